"""Dashboards in JSON files: read and checked before anything is sent to a Grafana."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from recovery.errors import BadInput

FILE_MAX_BYTES = 32 << 20
UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
DERIVED_UID_DIGITS = 20
INPUT_REFERENCE = re.compile(r"\$\{(DS_[A-Za-z0-9_-]+)\}")
# What Grafana numbers by itself, and what only an export carries.
NUMBERED_BY_GRAFANA = ("id", "version")
ONLY_IN_EXPORTS = ("__inputs", "__requires", "__elements")
EXPORT_ANEW = "export it again with 'Export for sharing externally' off"


@dataclass(frozen=True)
class DashboardFile:
    """A dashboard as it will be sent: with a uid, without a number or version of its own.

    A file without a uid gets one derived from its title, the same each time, so that a resume
    finds what was imported before.
    """

    path: Path
    uid: str
    title: str
    panels: int
    text: str  # the dashboard as JSON in one fixed form
    is_uid_derived: bool = False

    @property
    def dashboard(self) -> dict[str, Any]:
        """The dashboard as it will be sent."""
        return dict(json.loads(self.text))

    @property
    def name(self) -> str:
        """How it is named in messages."""
        return f"{self.path.name} ({self.title!r}, uid {self.uid})"


class _Unfit(Exception):
    """Why one file cannot be imported: what was seen, and the remedy."""

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(seen, remedy)
        self.seen, self.remedy = seen, remedy


def read_dashboards(folder: Path) -> tuple[DashboardFile, ...]:
    """Read and check every `*.json` of a folder, in the order of their names.

    Raises:
        BadInput: the folder is missing or holds none, or a file is unfit; names every unfit file
            with its remedy, so that one correction is enough.
    """
    if not folder.is_dir():
        raise BadInput(str(folder), "no such folder", "Name the folder of the dashboard files")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json")
    if not paths:
        raise BadInput(
            str(folder), "it holds no .json file", "Name another, or leave the parameter out"
        )
    found: list[DashboardFile] = []
    faults: list[str] = []
    for path in paths:
        try:
            found.append(parse_dashboard(path, _text_of(path)))
        except _Unfit as unfit:
            faults.append(f"{path.name}: {unfit.seen} ({unfit.remedy})")
    faults += _doubles(found, "uid", lambda file: file.uid)
    # Grafana's own database may compare titles without regard to case.
    faults += _doubles(found, "title", lambda file: file.title.strip().casefold())
    if faults:
        raise BadInput(
            str(folder), "; ".join(faults), "Correct or remove these files; nothing was imported"
        )
    return tuple(found)


def parse_dashboard(path: Path, text: str) -> DashboardFile:
    """Check the text of one file and bring it into the form that is sent.

    Taken are a dashboard as Grafana's "JSON model" shows it, and `{"dashboard": …, "meta": …}` as
    its API answers. An export "for sharing externally" is taken only if nothing refers to its
    `__inputs` any more.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _Unfit(f"no valid JSON: {error}", "export it again") from error
    if isinstance(content, dict) and isinstance(content.get("dashboard"), dict):
        content = content["dashboard"]
    _refuse_unless_dashboard(content)
    title = content.get("title")
    if not isinstance(title, str) or not title.strip():
        raise _Unfit("it has no title", 'give it one, "title": "…"')
    _refuse_unresolved(content)
    uid = content.get("uid") or derived_uid(title)
    if not isinstance(uid, str) or not UID.fullmatch(uid):
        raise _Unfit(
            f"its uid {uid!r} is none", "use up to 40 letters, digits, hyphens and underscores"
        )
    dashboard = {
        name: value
        for name, value in content.items()
        if name not in ONLY_IN_EXPORTS and name not in NUMBERED_BY_GRAFANA
    }
    title = title.strip()  # as Grafana stores it
    dashboard |= {"uid": uid, "title": title}
    return DashboardFile(
        path,
        uid,
        title,
        count_panels(dashboard),
        json.dumps(dashboard, ensure_ascii=False, sort_keys=True),
        is_uid_derived=not content.get("uid"),
    )


def derived_uid(title: str) -> str:
    """The uid of a dashboard whose file has none: the same for the same title."""
    return "t-" + sha256(title.encode()).hexdigest()[:DERIVED_UID_DIGITS]


def count_panels(dashboard: dict[str, Any]) -> int:
    """How many panels show something: those of old rows and of folded rows too, rows not."""

    def panels_in(holder: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for panel in _objects_in(holder.get("panels")):
            yield panel
            yield from panels_in(panel)

    holders = (dashboard, *_objects_in(dashboard.get("rows")))
    panels = (panel for holder in holders for panel in panels_in(holder))
    return sum(1 for panel in panels if panel.get("type") != "row")


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise _Unfit(f"over {FILE_MAX_BYTES >> 20} MB", "is it a dashboard at all?")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unfit("not in UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise _Unfit(error.strerror or str(error), "let the worker read it") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _refuse_unless_dashboard(content: object) -> None:
    if not isinstance(content, dict):
        raise _Unfit("no dashboard but a list or a plain value", "export one dashboard per file")
    if "apiVersion" in content and "spec" in content:
        raise _Unfit(
            "it is in the resource format of Grafana 12 (apiVersion, spec)",
            "export it as classic JSON",
        )
    marks = ("panels", "rows", "schemaVersion", "templating")
    if not any(mark in content for mark in marks):
        raise _Unfit(
            f"no dashboard: none of {', '.join(marks)} is in it", "take it out of the folder"
        )
    if not all(isinstance(content.get(name) or [], list) for name in ("panels", "rows")):
        raise _Unfit("its panels or rows are no list", "export it again")


def _refuse_unresolved(content: dict[str, Any]) -> None:
    if content.get("__elements"):
        raise _Unfit(
            "it brings library panels along (__elements), which this import would lose",
            f"{EXPORT_ANEW} and import the library panels first",
        )
    rest = {name: value for name, value in content.items() if name not in ONLY_IN_EXPORTS}
    text = json.dumps(rest)
    inputs = [str(one.get("name")) for one in _objects_in(content.get("__inputs"))]
    open_inputs = [name for name in inputs if f"${{{name}}}" in text]
    if open_inputs:
        raise _Unfit(
            f"its __inputs are unresolved: {', '.join(open_inputs)}",
            f"{EXPORT_ANEW}, or put the names of the data sources in",
        )
    templating = content.get("templating")
    listed = templating.get("list") if isinstance(templating, dict) else None
    variables = {variable.get("name") for variable in _objects_in(listed)}
    lost = sorted(set(INPUT_REFERENCE.findall(" ".join(_data_sources(rest)))) - variables)
    if lost:
        raise _Unfit(
            f"it refers to data sources it does not name: {', '.join(lost)}",
            f"{EXPORT_ANEW}, or put the names of the data sources in",
        )


def _objects_in(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _data_sources(value: object) -> Iterator[str]:
    """Whatever stands as a data source anywhere in the dashboard, as text."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "datasource":
                yield json.dumps(inner)
            else:
                yield from _data_sources(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _data_sources(inner)


def _doubles(
    files: Iterable[DashboardFile], what: str, of: Callable[[DashboardFile], str]
) -> list[str]:
    by_value: dict[str, list[DashboardFile]] = {}
    for file in files:
        by_value.setdefault(of(file), []).append(file)
    return [
        f"{' and '.join(file.path.name for file in same)} have the same {what} "
        f"{getattr(same[0], what)!r} (keep one)"
        for same in by_value.values()
        if len(same) > 1
    ]
