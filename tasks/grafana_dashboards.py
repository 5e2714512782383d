"""Dashboards from checked files: are they in Grafana, import them, read them back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from blocks.grafana.answer import GrafanaNotFound
from blocks.grafana.api import in_path
from recovery.errors import BadInput, NotVerified, Refused, UnreadableOutput
from tasks.grafana_dashboard_files import NUMBERED_BY_GRAFANA, UID, DashboardFile, count_panels

SHOWN_DIFFERENCES = 5


IMPORT_PATH = "/api/dashboards/db"


class Presence(StrEnum):
    """Whether Grafana has a dashboard as the file has it."""

    ABSENT = "absent"
    SAME = "same"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Comparison:
    """What Grafana gave back beside what the file holds; no differences means equal."""

    panels_expected: int
    panels_seen: int
    differences: tuple[str, ...]

    def __str__(self) -> str:
        """As it stands in a report."""
        if not self.differences:
            return f"equal, {self.panels_seen} panels"
        more = len(self.differences) - SHOWN_DIFFERENCES
        return (
            f"{self.panels_seen} panels of {self.panels_expected}; differs at "
            + ", ".join(self.differences[:SHOWN_DIFFERENCES])
            + (f" and {more} more" if more > 0 else "")
        )


class Grafana(Protocol):
    """What is asked of a Grafana here: `GrafanaApi`, or a stand-in in tests."""

    @property
    def target(self) -> str:
        """Its name in messages."""

    def get(self, path: str) -> Any:
        """Read; raises `GrafanaNotFound` for what is not there."""

    def post_command(self, path: str, body: Mapping[str, Any], *, note: str) -> str:
        """What `post` will send."""

    def post(self, path: str, body: dict[str, Any], *, note: str) -> Any:
        """Change."""


def differences(expected: Any, seen: Any, at: str = "$") -> Iterator[str]:
    """The places where two JSON values differ, as `$.panels[2].title`."""
    if isinstance(expected, dict) and isinstance(seen, dict):
        for name in sorted({*expected, *seen}):
            if name not in expected or name not in seen:
                yield f"{at}.{name} ({'missing' if name in expected else 'added'})"
            else:
                yield from differences(expected[name], seen[name], f"{at}.{name}")
    elif isinstance(expected, list) and isinstance(seen, list):
        if len(expected) != len(seen):
            yield f"{at} ({len(seen)} elements instead of {len(expected)})"
        for place, (one, other) in enumerate(zip(expected, seen, strict=False)):
            yield from differences(one, other, f"{at}[{place}]")
    elif isinstance(expected, bool) is not isinstance(seen, bool) or expected != seen:
        yield at  # True equals 1 in Python, but not in JSON


def compare(file: DashboardFile, stored: dict[str, Any]) -> Comparison:
    """What Grafana stored beside the file, but for what Grafana numbers by itself."""
    kept = {name: value for name, value in stored.items() if name not in NUMBERED_BY_GRAFANA}
    return Comparison(file.panels, count_panels(kept), tuple(differences(file.dashboard, kept)))


def dashboard_presence(grafana: Grafana, file: DashboardFile, folder_uid: str = "") -> Presence:
    """Whether Grafana has the dashboard, in this folder and as the file has it.

    Raises:
        Unreachable: no answer; asking again may help.
        GrafanaLoginRefused, GrafanaPermissionMissing: the account may not look.
    """
    comparison = _look(grafana, file, folder_uid)
    if comparison is None:
        return Presence.ABSENT
    return Presence.DIFFERENT if comparison.differences else Presence.SAME


def refuse_if_it_would_overwrite(
    grafana: Grafana, files: Sequence[DashboardFile], folder_uid: str = ""
) -> None:
    """Refuse where Grafana has another dashboard under the uid of a file.

    Raises:
        Refused: names each, with where it differs.
    """
    met = [(file, _look(grafana, file, folder_uid)) for file in files]
    taken = [f"{file.name}: {seen}" for file, seen in met if seen and seen.differences]
    if taken:
        raise Refused(
            grafana.target,
            f"it has {len(taken)} of these dashboards, but not as in the files: "
            + "; ".join(taken),
            "Take these files out, or order overwriting if the files are to win",
        )


def has_folder(grafana: Grafana, uid: str) -> bool:
    """Whether the folder is there; the General folder, of empty uid, always is."""
    if not uid:
        return True
    try:
        grafana.get(f"/api/folders/{in_path(uid)}")
    except GrafanaNotFound:
        return False
    return True


def create_folder(grafana: Grafana, uid: str, title: str) -> None:
    """Create a folder for dashboards at the top level.

    Done twice, the second is answered with `GrafanaConflict`; `has_folder` tells. Undone by
    deleting the folder, which deletes what is in it.

    Raises:
        BadInput: the uid is none.
        GrafanaConflict: the uid is taken, or (up to Grafana 10) the title.
    """
    if not UID.fullmatch(uid):
        raise BadInput("folder uid", f"{uid!r} is none", "Use letters, digits, - and _, up to 40")
    note = f"folder {title!r}, uid {uid}"
    grafana.post("/api/folders", {"uid": uid, "title": title}, note=note)


def import_dashboard(
    grafana: Grafana, file: DashboardFile, folder_uid: str = "", *, overwrites: bool = False
) -> None:
    """Import one dashboard into a folder, the General one if its uid is empty.

    Sent without a version: with one that happens to be the stored one, Grafana would overwrite
    without being told to. Done twice, the second is answered with `GrafanaConflict` unless
    `overwrites`, which leaves one more version in the dashboard's history; `dashboard_presence`
    tells. A dashboard that was overwritten comes back from that history.

    Raises:
        GrafanaConflict: a dashboard of this uid is there already.
        GrafanaPermissionMissing: the account may not write in this folder.
        CommandFailed: Grafana said no, as to a dashboard that is provisioned from a file.
        AnswerLost: it may have been imported; look first.
    """
    body, note = _import_request(file, folder_uid, overwrites=overwrites)
    grafana.post(IMPORT_PATH, body, note=note)


def import_command(grafana: Grafana, file: DashboardFile, folder_uid: str = "") -> str:
    """What `import_dashboard` will send, for the plan."""
    body, note = _import_request(file, folder_uid, overwrites=False)
    return grafana.post_command(IMPORT_PATH, body, note=note)


def _import_request(
    file: DashboardFile, folder_uid: str, *, overwrites: bool
) -> tuple[dict[str, Any], str]:
    body = {
        "dashboard": {**file.dashboard, "id": None},
        "folderUid": folder_uid,
        "overwrite": overwrites,
        "message": f"imported from {file.path.name}",
    }
    note = f"dashboard {file.title!r}, uid {file.uid}, {file.panels} panels"
    return body, note + (", overwrites" if overwrites else "")


def require_dashboard(grafana: Grafana, file: DashboardFile, folder_uid: str = "") -> Comparison:
    """Read a dashboard back and compare panels and every value with the file.

    Raises:
        NotVerified: it is not there, in another folder, or not as the file has it.
    """
    comparison = _look(grafana, file, folder_uid)
    if comparison is None or comparison.differences:
        raise NotVerified(
            grafana.target,
            f"{file.name} as in the file, with {file.panels} panels",
            "none of this uid" if comparison is None else str(comparison),
            "Look at it in Grafana: someone may have saved it since, or this release rewrites "
            "dashboards as it stores them",
        )
    return comparison


def _look(grafana: Grafana, file: DashboardFile, folder_uid: str) -> Comparison | None:
    path = f"/api/dashboards/uid/{in_path(file.uid)}"
    try:
        said = grafana.get(path)
    except GrafanaNotFound:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("dashboard"), dict):
        raise UnreadableOutput(f"GET {path}", json.dumps(said))
    comparison = compare(file, said["dashboard"])
    seen_in = (said.get("meta") or {}).get("folderUid") or ""
    if seen_in != folder_uid:
        where = f"folder ({seen_in or 'General'} instead of {folder_uid or 'General'})"
        return Comparison(
            comparison.panels_expected, comparison.panels_seen, (where, *comparison.differences)
        )
    return comparison
