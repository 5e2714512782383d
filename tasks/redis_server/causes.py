"""What keeps a Redis from running or saving, read from what it logged; each cause has a name."""

import re
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why it does not run, answer or save, as a refusal names it."""

    MASKED = "masked"
    NO_ANSWER = "frozen"
    DISK_HANGS = "disk-hangs"
    TRACED = "traced"
    FREEZER = "freezer"
    NO_PASSWORD = "no-password"  # noqa: S105 (a name)
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 (a name)
    NO_RIGHT = "no-right"
    CLIENTS = "too-many-clients"
    MEMORY_FULL = "memory-full"
    DISK_FULL = "disk-full"
    PERMISSION = "permission"
    READ_ONLY = "read-only-file-system"
    FOLDER = "no-such-folder"
    NO_FORK = "no-memory-to-fork"
    CANNOT_SAVE = "cannot-save"
    CONFIGURATION = "configuration"
    PORT_TAKEN = "port-taken"
    NO_ADDRESS = "no-such-address"
    AOF_CUT = "aof-cut-off"
    AOF_DAMAGED = "aof-damaged"
    AOF_MISSING = "aof-missing"
    RDB_DAMAGED = "rdb-damaged"
    NEWER_RDB = "newer-format"
    KILLED_FOR_MEMORY = "killed-for-memory"
    START_TIMEOUT = "start-timeout"
    DUMP_IGNORED = "dump-ignored"
    AOF_IGNORED = "aof-ignored"
    NO_FILES = "no-data-files"
    NO_REPLICAS = "too-few-replicas"
    LINK_DOWN = "replica-link-down"
    PROTECTED = "protected-mode"
    NO_REDIS = "no-redis"


@dataclass(frozen=True)
class Sign:
    """A line of a log that names a cause; `at` is when, in seconds of the epoch, if known."""

    cause: Cause
    text: str
    at: float = 0.0


OPENING = (
    r"(Failed opening|Can't open|Error opening|Can't chdir|Fatal error loading|Error moving"
    r"|Can't rename|Failed to)"
)
# The first that fits a line counts; captured from Redis 7.0.15 and read in the source of 5 to 7.2.
SIGNS: tuple[tuple[Cause, str], ...] = (
    (Cause.CONFIGURATION, r"FATAL CONFIG FILE ERROR"),
    (Cause.CONFIGURATION, r"can't open config file"),
    (Cause.PORT_TAKEN, r"bind: Address already in use"),
    (Cause.NO_ADDRESS, r"bind: Cannot assign requested address"),
    (Cause.AOF_CUT, r"Unexpected end of file reading the append only file"),
    (Cause.AOF_DAMAGED, r"Bad file format reading the append only file"),
    (Cause.AOF_DAMAGED, r"Unrecoverable error reading the append only file"),
    (Cause.AOF_MISSING, r"[Aa]ppend.?only.*(manifest|doesn't exist|does not exist|No such file)"),
    (Cause.AOF_MISSING, r"The AOF file .* doesn't exist"),
    (Cause.NEWER_RDB, r"Can't handle RDB format version"),
    (Cause.RDB_DAMAGED, r"Short read or OOM loading DB|Wrong signature trying to load DB"),
    (Cause.RDB_DAMAGED, r"Wrong RDB checksum|Internal error in RDB"),
    (Cause.READ_ONLY, r"Read-only file system"),
    (Cause.PERMISSION, rf"{OPENING}.*Permission denied"),
    (Cause.DISK_FULL, r"No space left on device|Disk quota exceeded"),
    (Cause.FOLDER, rf"{OPENING}.*No such file or directory"),
    (Cause.NO_FORK, r"fork: Cannot allocate memory"),
    (Cause.KILLED_FOR_MEMORY, r"Out Of Memory allocating|oom-kill|A process of this unit has"),
    (Cause.START_TIMEOUT, r"start operation timed out"),
)  # fmt: skip
COMPILED = tuple((cause, re.compile(pattern)) for cause, pattern in SIGNS)
REASONS_IN_CONFIGURATION = {
    "Permission denied": Cause.PERMISSION,
    "No such file or directory": Cause.FOLDER,
}
STARTING = re.compile(r"Redis is starting|: Starting \S|^Starting |Valkey is starting")
STAMPED = re.compile(r"(?P<at>\d{9,}\.\d+) \S+ [^:]+: (?P<text>.*)")
LINES_AFTER = (
    3  # of a configuration error: which line of the file, what stands there, what is wrong
)


def signs_in(printed: str) -> list[Sign]:
    """Causes in what was logged since the last start, first one first.

    Lines of the journal begin with a time (`journalctl -o short-unix`), those of Redis's own log
    do not:

        1795240544.520000 lab redis-server[84]: >>> 'appendonly yess'
        84:M 21 Nov 2026 05:55:44.521 # Error trying to save the DB, can't exit.
    """
    lines = [_stamped(line) for line in printed.splitlines()]
    starts = [n for n, (_, text) in enumerate(lines) if STARTING.search(text)]
    lines = lines[starts[-1] :] if starts else lines
    found = []
    for n, (at, text) in enumerate(lines):
        for cause, pattern in COMPILED:
            if not pattern.search(text):
                continue
            if cause is Cause.CONFIGURATION:
                found.append(_configuration_error([said for _, said in lines[n:]], at))
            else:
                found.append(Sign(cause, _without_stamp(text), at))
            break
    return found


def _configuration_error(texts: list[str], at: float) -> Sign:
    said = " ".join(text.strip() for text in texts[: LINES_AFTER + 1] if text.strip())
    last = next((text for text in reversed(texts[: LINES_AFTER + 1]) if text.strip()), "")
    return Sign(REASONS_IN_CONFIGURATION.get(last.strip(), Cause.CONFIGURATION), said, at)


def _stamped(line: str) -> tuple[float, str]:
    stamped = STAMPED.fullmatch(line)
    return (float(stamped["at"]), stamped["text"]) if stamped else (0.0, line)


def _without_stamp(text: str) -> str:
    """A line of Redis's own log without process and time: `84:M 21 Nov 2026 05:55:44.521 # …`."""
    return re.sub(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ [*#.-] ", "", text).strip()
