"""The schedules that are wanted: read from `deployments/schedules.yaml`, each field checked.

Every error names the line, the entry, the field and the remedy; nothing on a server is touched
before all entries are right.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from pydantic import ValidationError

from operate.catalogue import recoveries
from operate.nearest import did_you_mean
from operate.parameters import typed_values
from operate.schedules.spread import spread_cron, spread_seconds
from recovery.errors import BadInput
from recovery.evidence.timeline import duration
from recovery.inputs import refuse_passwords
from recovery.run import Recovery
from recovery.values import shortly, to_plain
from recovery.verdict import Danger

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
INTERVAL = re.compile(r"(\d+) ?(m|h|d)")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
JITTER_MINUTES_MAX = 12 * 60
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)  # from which intervals are counted: a Monday
FIELDS = (
    "name", "recovery", "cron", "interval", "timezone", "jitter_minutes", "active", "plan_only",
    "while_running", "parameters",
)  # fmt: skip
Raise = Callable[[str, str, str], BadInput]


class WhileRunning(StrEnum):
    """What a scheduled run does where another recovery still holds its target."""

    SKIP = "skip"
    REFUSE = "refuse"


@dataclass(frozen=True)
class WantedSchedule:
    """One entry, read and found to be right."""

    name: str
    recovery: Recovery
    when: CronSchedule | IntervalSchedule
    is_active: bool
    parameters: Mapping[str, Any]
    line: int

    @property
    def told(self) -> str:
        """When it runs, for people."""
        if isinstance(self.when, CronSchedule):
            return f"{self.when.cron} {self.when.timezone}"
        return f"every {duration(self.when.interval.total_seconds())}"


def default_file() -> Path:
    """Where the schedules are: `RECOVER_SCHEDULES`, else in `deployments/` of the project."""
    given = os.environ.get("RECOVER_SCHEDULES", "")
    return Path(given) if given else Path(__file__).parents[2] / "deployments" / "schedules.yaml"


def wanted_schedules(file: Path) -> list[WantedSchedule]:
    """Read all entries.

    Raises:
        BadInput: the file cannot be read, or an entry is wrong; the first one is named.
    """
    wanted, wrong = read_schedules(file)
    if not wrong:
        return wanted
    first, more = wrong[0], len(wrong) - 1
    if more:
        told = f"{first.remedy} ({more} more: `recover schedules check`)"
        raise BadInput(first.field, first.seen, told)
    raise first


def read_schedules(file: Path) -> tuple[list[WantedSchedule], list[BadInput]]:
    """Read all entries; return those that are right, and what is wrong with the others.

    Raises:
        BadInput: the file cannot be read, is no YAML, or holds no list of schedules.
    """
    wanted: list[WantedSchedule] = []
    wrong: list[BadInput] = []
    lines: dict[str, int] = {}
    known = recoveries()
    for node in _entries(file):
        try:
            entry = _Entry(file, node)
            name = entry.name()
            if (first := lines.setdefault(name, entry.line)) != entry.line:
                remedy = "Give each schedule a name of its own"
                raise entry.error("name", f"{name!r} stands in line {first} too", remedy)
            wanted.append(entry.schedule(known))
        except BadInput as error:
            wrong.append(error)
    return wanted, wrong


def _entries(file: Path) -> Iterator[yaml.Node]:
    field, shape = str(file), "Write `schedules:` and a list of entries below it"
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        seen = f"it cannot be read: {error.strerror}"
        raise BadInput(field, seen, "Name a file with --file, or set RECOVER_SCHEDULES") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{file}:{mark.line + 1}" if mark else field
        told = getattr(error, "problem", None) or type(error).__name__
        raise BadInput(line, f"it is no valid YAML: {told}", shape) from error
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise BadInput(field, "it holds no names with values", shape)
    for key, value in root.value:
        line = f"{file}:{key.start_mark.line + 1}"
        if key.value != "schedules":
            raise BadInput(f"{line} {key.value}", "it is not known", shape)
        if isinstance(value, yaml.SequenceNode):
            yield from value.value
        elif value.tag != "tag:yaml.org,2002:null":
            raise BadInput(f"{line} schedules", "it is no list", shape)


class _Entry:
    """One entry with the lines of its fields."""

    def __init__(self, file: Path, node: yaml.Node) -> None:
        self.file, self.line = file, node.start_mark.line + 1
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        if not isinstance(node, yaml.MappingNode):
            raise self.error("entry", "it is no set of names with values", f"Give {FIELDS[:3]}")
        loader = yaml.SafeLoader("")
        for key, value in node.value:
            field = str(key.value)
            if field in self.lines:
                raise self.error(field, f"it stands in line {self.lines[field]} too", "Give one")
            self.lines[field] = key.start_mark.line + 1
            try:
                self.values[field] = loader.construct_object(value, deep=True)
            except yaml.YAMLError as error:
                raise self.error(
                    field, f"it cannot be read: {error}", "Write it as YAML"
                ) from error
            if field not in FIELDS:
                remedy = did_you_mean(field, FIELDS) + f"Known are {', '.join(FIELDS)}"
                raise self.error(field, "it is not known", remedy)

    def error(self, field: str, seen: str, remedy: str) -> BadInput:
        """What is wrong with a field, with its line."""
        line = self.lines.get(field.partition(".")[0], self.line)
        name = self.values.get("name")
        of = f"{name}." if isinstance(name, str) and field != "name" else ""
        return BadInput(f"{self.file}:{line} {of}{field}", seen, remedy)

    def name(self) -> str:
        """The name."""
        name = self.values.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            seen = "there is none" if name is None else f"{shortly(name)} is no name"
            raise self.error("name", seen, "Give small letters and digits, as in nightly-backup")
        return name

    def schedule(self, known: Mapping[str, Recovery]) -> WantedSchedule:
        """The whole entry.

        Raises:
            BadInput: a field is wrong.
        """
        recovery = self._recovery(known)
        plan_only = self._flag("plan_only", usual=False)
        if recovery.danger is Danger.DESTRUCTIVE and recovery.drill is None and not plan_only:
            raise self.error(
                "recovery",
                f"{recovery.name} is destructive, and nobody is there to approve its plan",
                "Schedule its plan with plan_only: true, or a drill; a person starts the rest",
            )
        parameters = self._parameters(recovery)
        options: dict[str, Any] = {"plan_only": True} if plan_only else {}
        if self._while_running() is WhileRunning.SKIP:
            options["if_taken"] = "skip"
        active = self._flag("active", usual=True)
        line, when = self.line, self._when()
        return WantedSchedule(self.name(), recovery, when, active, {**parameters, **options}, line)

    def _recovery(self, known: Mapping[str, Recovery]) -> Recovery:
        name = self.values.get("recovery")
        if isinstance(name, str) and name in known:
            return known[name]
        seen = "there is none" if name is None else f"there is no recovery {shortly(name)}"
        remedy = f"{did_you_mean(str(name), known)}`recover list` shows them all"
        raise self.error("recovery", seen, remedy)

    def _parameters(self, recovery: Recovery) -> dict[str, Any]:
        given = self.values.get("parameters") or {}
        if not isinstance(given, dict):
            raise self.error("parameters", "they are no names with values", "Write `name: value`")
        try:
            plain = {
                name: to_plain(value)
                for name, value in typed_values(recovery, given, "in parameters").items()
            }
            refuse_passwords(plain)
        except BadInput as wrong:
            remedy = wrong.remedy.replace("--set ", "").replace("=VALUE", ": VALUE")
            raise self.error(f"parameters.{wrong.field}", wrong.seen, remedy) from None
        return plain

    def _when(self) -> CronSchedule | IntervalSchedule:
        cron, interval = self.values.get("cron"), self.values.get("interval")
        if (cron is None) == (interval is None):
            seen = "there is neither cron nor interval" if cron is None else "there is cron as well"
            remedy = "Give one: cron: '30 2 * * *', or interval: 6h"
            raise self.error("interval" if interval is not None else "cron", seen, remedy)
        zone, jitter = self._zone(), self._jitter()
        name = self.name()
        if cron is not None:
            remedy = "Give minute, hour, day, month and weekday in quotes, as in '30 2 * * *'"
            if not isinstance(cron, str):
                raise self.error("cron", f"{shortly(cron)} is no text", remedy)
            try:
                CronSchedule(cron=cron, timezone=zone)
                return CronSchedule(cron=spread_cron(name, cron, jitter), timezone=zone)
            except ValidationError:
                raise self.error("cron", f"{cron!r} is no cron expression", remedy) from None
            except BadInput as wrong:
                raise self.error(wrong.field, wrong.seen, wrong.remedy) from None
        found = INTERVAL.fullmatch(str(interval))
        if found is None or not int(found[1]):
            seen = f"{shortly(interval)} is no interval"
            raise self.error("interval", seen, "Give minutes, hours or days, as in 90m, 6h or 1d")
        every = timedelta(**{UNITS[found[2]]: int(found[1])})
        if timedelta(minutes=jitter) >= every:
            raise self.error("jitter_minutes", "it is not less than the interval", "Give less")
        anchor = EPOCH + timedelta(seconds=spread_seconds(name, jitter))
        return IntervalSchedule(interval=every, anchor_date=anchor, timezone=zone)

    def _zone(self) -> str:
        zone = self.values.get("timezone", "UTC")
        try:
            ZoneInfo(str(zone))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            seen = f"{shortly(zone)} is no time zone"
            raise self.error("timezone", seen, "Give one as in UTC or Europe/Berlin") from None
        return str(zone)

    def _jitter(self) -> int:
        jitter = self.values.get("jitter_minutes", 0)
        if isinstance(jitter, bool) or not isinstance(jitter, int):
            raise self.error("jitter_minutes", f"{shortly(jitter)} is no number", "Give minutes")
        if not 0 <= jitter <= JITTER_MINUTES_MAX:
            raise self.error("jitter_minutes", f"{jitter}", f"Give 0 to {JITTER_MINUTES_MAX}")
        return jitter

    def _flag(self, field: str, *, usual: bool) -> bool:
        flag = self.values.get(field, usual)
        if not isinstance(flag, bool):
            raise self.error(field, f"{shortly(flag)} is neither true nor false", "Give one")
        return flag

    def _while_running(self) -> WhileRunning:
        given = self.values.get("while_running", WhileRunning.SKIP)
        try:
            return WhileRunning(given)
        except ValueError:
            known = ", ".join(WhileRunning)
            seen = f"{shortly(given)} is not known"
            raise self.error("while_running", seen, f"Give one of {known}") from None
