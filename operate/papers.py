"""Files that are handed on: reports and the bundle of all evidence."""

from pathlib import Path
from typing import Any

from recovery.errors import BadInput
from recovery.evidence.bundle import write_bundle
from recovery.evidence.report import html_report, markdown_report
from recovery.journal.store import Journal


def write_reports(
    journal: Journal,
    recovery_id: str,
    html: Path | None,
    markdown: Path | None,
    *,
    is_full: bool = True,
) -> dict[str, Any]:
    """Write the files that were asked for, whole; without any, return the report as Markdown.

    Where that is not full, it ends before the commands and their answers.

    Raises:
        BadInput: a file cannot be written.
    """
    told: dict[str, Any] = {"id": recovery_id}
    if html is None and markdown is None:
        return {**told, "report": markdown_report(journal, recovery_id, is_full=is_full)}
    if html is not None:
        _write(html, html_report(journal, recovery_id), "--html")
    if markdown is not None:
        _write(markdown, markdown_report(journal, recovery_id), "--markdown")
    return {**told, "files": [str(path.absolute()) for path in (html, markdown) if path]}


def write_archive(journal: Journal, recovery_id: str, to: Path | None) -> dict[str, Any]:
    """Write the bundle; without a path, into the current folder.

    Raises:
        BadInput: it cannot be written there.
    """
    path = to or Path(f"recovery-{recovery_id}.tar.gz")
    try:
        written = write_bundle(journal, recovery_id, path)
    except OSError as error:
        raise _unwritable("--to", path, error) from error
    return {"id": recovery_id, "bundle": str(written.absolute())}


def _write(path: Path, text: str, field: str) -> None:
    try:
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(field, path, error) from error


def _unwritable(field: str, path: Path, error: OSError) -> BadInput:
    return BadInput(
        f"{field} {path}",
        f"it cannot be written: {error.strerror or error}",
        "Name a file in a folder that exists and can be written",
    )
