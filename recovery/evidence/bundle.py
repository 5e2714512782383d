"""The bundle: all evidence of a recovery in one archive with a list of hashes, for whoever is next.

The same journal makes the same bytes: names are sorted, and every time in the archive is that of
the journal's last event. A bundle that would hold a known secret is not written.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
import tempfile
import zlib
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recovery.errors import BadInput, ExitCode, RecoveryError
from recovery.evidence.evidence import Evidence, Shown
from recovery.evidence.report import environment, html_of
from recovery.evidence.report_markdown import markdown_of
from recovery.evidence.status import Reading, read_recovery
from recovery.evidence.telling import evidence_of
from recovery.journal.events import FIRST_HASH, FORMAT, Event, flaws
from recovery.journal.store import Journal
from recovery.secrecy.redaction import contains_secret, redact
from recovery.words import field_lines

SUMS = "SHA256SUMS"
LINES_MAX = 60
COMMANDS_MAX = 5
BUNDLE_BYTES_MAX = 2_000_000_000
_SEEN = {Shown.PASSED, Shown.VERIFIED, Shown.DECIDED, Shown.REFUSED, Shown.STALE, Shown.LOOKED}
_DOUBTFUL = {Shown.IN_DOUBT, Shown.FAILED, Shown.STALE, Shown.UNDO_FAILED, Shown.RUNNING}


class SecretInBundle(RecoveryError):
    """A file of the bundle holds a known secret; nothing was written. Fields: recovery, files."""

    exit_code = ExitCode.NEEDS_PERSON

    def __init__(self, recovery_id: str, files: str) -> None:
        super().__init__(recovery_id, files)
        self.recovery_id, self.files = recovery_id, files

    def __str__(self) -> str:
        """Which files, why that can be, what to do."""
        return (
            f"the bundle of recovery {self.recovery_id} was not written: {self.files} would hold a "
            "value that is known to be secret now (it was not when it was journaled). Hand over "
            f"`recover report {self.recovery_id}` instead, which masks it, and change that secret."
        )


def write_bundle(journal: Journal, recovery_id: str, path: Path) -> Path:
    """Write the bundle of a recovery, readable for its owner only; return where it lies.

    Args:
        journal: where the recovery is.
        recovery_id: which one.
        path: the file to write, replaced if it is there; or a folder to write it into.

    Raises:
        BadInput: there is no such recovery, or the file cannot be written.
        SecretInBundle: a known secret would be in it.
    """
    reading = read_recovery(journal, recovery_id)
    contents = _contents(reading, type(journal).__name__)
    leaking = [name for name, data in contents.items() if contains_secret(data.decode())]
    if leaking:
        raise SecretInBundle(recovery_id, ", ".join(sorted(leaking)))
    contents[SUMS] = _sums(contents)
    target = path / f"recovery-{recovery_id}.tar.gz" if path.is_dir() else path
    try:
        _write(target, _archive(contents, int(reading.events[-1].moment.timestamp())))
    except OSError as error:
        raise BadInput(
            "path", f"{target} cannot be written: {error.strerror or error}", "Name another file"
        ) from error
    return target


def verify_bundle(path: Path) -> list[str]:
    """Name every file that was changed, is missing or was added, and every break in the journal.

    Raises:
        BadInput: there is no such file, or it cannot be read.
    """
    try:
        contents = _read(path)
    except FileNotFoundError as error:
        raise BadInput("path", f"{path} does not exist", "Name a bundle") from error
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        return [f"it is no bundle, or was cut off: {error}"]
    except OSError as error:
        raise BadInput("path", f"{path} cannot be read: {error}", "Name a bundle") from error
    found = _changed_files(contents)
    if "events.jsonl" in contents:
        found += _broken_chain(contents["events.jsonl"], contents.get("status.json", b""))
    return found


def handover_of(evidence: Evidence, reading: Reading) -> str:
    """Write what was seen and tried, what is safe to do next and what must not be done."""
    spans = [span for attempt in evidence.attempts for span in attempt.spans]
    seen = list({s.key: s for s in spans if s.shown in _SEEN and s.kind != "person"}.values())
    acts = [step for step in evidence.steps if step.kind == "act"]
    # What went wrong first: it is what is looked for, and the list may be cut.
    tried = [step for step in acts if step.shown is not Shown.ALREADY_SO]
    tried.sort(key=lambda step: step.shown not in _DOUBTFUL)
    doubtful = [
        {
            "key": step.key,
            "target": step.target or evidence.status["target"],
            "shown": str(step.shown),
            "commands": step.commands[:COMMANDS_MAX],
            "more": max(0, len(step.commands) - COMMANDS_MAX),
        }
        for step in acts
        if step.shown in _DOUBTFUL
    ]
    text = (
        environment()
        .get_template("handover.md")
        .render(
            evidence=evidence,
            status=evidence.status,
            seen=seen[:LINES_MAX],
            outcome=field_lines(evidence.status["result"])[:LINES_MAX],
            present=[step for step in acts if step.shown is Shown.ALREADY_SO][:LINES_MAX],
            tried=tried[:LINES_MAX],
            doubtful=doubtful[:LINES_MAX],
            undoable=reading.history.steps_to_undo(),
            begun=[step for step in tried if step.shown is not Shown.UNDONE],
            left_out={
                "seen": max(0, len(seen) - LINES_MAX),
                "tried": max(0, len(tried) - LINES_MAX),
            },
        )
    )
    return redact(text)


def _contents(reading: Reading, journal_kind: str) -> dict[str, bytes]:
    evidence = evidence_of(reading)
    lines = [json.dumps(asdict(event), ensure_ascii=False) for event in reading.events]
    texts = {
        "report.md": markdown_of(evidence),
        "report.html": html_of(evidence),
        "status.json": _json(evidence.status),
        "plan.json": _json(evidence.plan or None),
        "HANDOVER.md": handover_of(evidence, reading),
        "environment.json": _json(_environment(evidence, journal_kind)),
        "events.jsonl": "".join(f"{line}\n" for line in lines),
    }
    return {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _environment(evidence: Evidence, journal_kind: str) -> dict[str, Any]:
    return {
        "bundled_by_release": _version("recovery-pipelines"),
        "opened_by_release": evidence.status["release"],
        "attempts_by_release": {str(each.n): each.release for each in evidence.attempts},
        "workers": sorted({each.worker for each in evidence.attempts if each.worker}),
        "python": platform.python_version(),
        "prefect": _version("prefect"),
        "journal": {"kind": journal_kind, "format": FORMAT},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _sums(contents: dict[str, bytes]) -> bytes:
    lines = [f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents)]
    return "".join(lines).encode()


def _archive(contents: dict[str, bytes], modified: int) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", fileobj=packed, mtime=modified) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(contents):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(contents[name]), modified, 0o600
            tar.addfile(member, io.BytesIO(contents[name]))
    return packed.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Put the file there whole or not at all; mode 0600 from its first byte on."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


# -- verification --------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with gzip.open(path) as zipped:  # to its end: what comes last there is its own checksum
        data = zipped.read(BUNDLE_BYTES_MAX + 1)
    if len(data) > BUNDLE_BYTES_MAX:
        raise ValueError(f"it holds more than {BUNDLE_BYTES_MAX} bytes")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is None:
                raise ValueError(f"{member.name!r} is no plain file")
            if member.name in contents:
                raise ValueError(f"{member.name!r} is in it twice")
            contents[member.name] = file.read()
    return contents


def _changed_files(contents: dict[str, bytes]) -> list[str]:
    if SUMS not in contents:
        return [f"{SUMS} is missing, so nothing shows whether the other files are as written"]
    expected: dict[str, str] = {}
    found = []
    for line in contents[SUMS].decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        if not name:
            found.append(f"{SUMS} has a line that is no hash: {line[:80]!r}")
        expected[name] = digest
    for name in sorted({*expected, *contents} - {SUMS, ""}):
        if name not in contents:
            found.append(f"{name} is missing")
        elif name not in expected:
            found.append(f"{name} was added")
        elif hashlib.sha256(contents[name]).hexdigest() != expected[name]:
            found.append(f"{name} was changed")
    return found


def _broken_chain(lines: bytes, status: bytes) -> list[str]:
    try:
        events = [Event(**json.loads(line)) for line in lines.splitlines()]
        flawed = flaws(events, 0, FIRST_HASH)[:-1] if events else []
    except (ValueError, TypeError) as error:
        return [f"events.jsonl cannot be read: {error}"]
    try:
        head = json.loads(status)["journal"]
        head_seq, head_hash = int(head["events"]), str(head["head"])
    except (ValueError, TypeError, KeyError):
        return [*flawed, "status.json does not tell where the journal ends"]
    return flaws(events, head_seq, head_hash)
