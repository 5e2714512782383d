"""What may keep a recovery from being run on this machine, each finding with its remedy."""

import os
import platform
import shutil
import socket
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version

from operate.approval_findings import examine_approvals
from operate.findings import Finding, Health, bad
from recovery.errors import RecoveryError
from recovery.evidence.status import verify_journal
from recovery.journal.lease import this_worker
from recovery.journal.opening import open_journal
from recovery.journal.store import Journal, Lease, lease_seconds
from recovery.stage import retry_delays_seconds

PYTHON_MIN = (3, 11)
BROKEN_PREFECT = "3.8.8"
BROKEN_FASTAPI_MIN = (0, 155)
CLOCK_SKEW_MAX = timedelta(seconds=5)
FLAWS_SHOWN = 3
CLIENTS = {
    "dump of a MySQL or MariaDB database": ("mariadb-dump", "mysqldump"),
    "client of MySQL or MariaDB": ("mariadb", "mysql"),
}


def examine() -> list[Finding]:
    """Look at everything that a recovery on this machine leans on; changes nothing that lasts."""
    return [
        _python(),
        *_journal(),
        _lease(),
        _patience(),
        *_server(),
        *examine_approvals(),
        _prefect_pair(),
        _result_storage(),
        *[_program(what, names) for what, names in CLIENTS.items()],
    ]


def _python() -> Finding:
    seen = platform.python_version()
    if sys.version_info < PYTHON_MIN:
        return Finding("python", Health.BAD, seen, "Use Python 3.11 or later")
    return Finding("python", Health.OK, seen)


def _journal() -> list[Finding]:
    try:
        journal = open_journal()
    except RecoveryError as error:
        return [bad("journal", error)]
    try:
        return [_writable(journal), _chain(journal), _clock_against(journal)]
    except RecoveryError as error:
        return [bad("journal", error)]
    finally:
        journal.close()


def _writable(journal: Journal) -> Finding:
    """Write to it without leaving an event: take a lease on no real target and give it back."""
    target = f"doctor of {socket.gethostname()}"  # one row for each machine, which stays
    lease = journal.take_lease(target, "doctor", this_worker(), 1.0)
    if isinstance(lease, Lease):
        journal.release_lease(lease)
    return Finding("journal", Health.OK, f"{journal.url} can be written")


def _chain(journal: Journal) -> Finding:
    found = verify_journal(journal, None)
    flawed = {recovery_id: flaws for recovery_id, flaws in found.items() if flaws}
    if not flawed:
        return Finding("journal chain", Health.OK, f"{len(found)} recoveries, none altered")
    shown = [f"{recovery_id}: {flaws[0]}" for recovery_id, flaws in flawed.items()]
    return Finding(
        "journal chain",
        Health.BAD,
        "; ".join(shown[:FLAWS_SHOWN]),
        "See `recover journal verify`; find out who changed the journal before trusting it",
    )


def _clock_against(journal: Journal) -> Finding:
    now = datetime.now(UTC)
    for recovery_id in journal.recovery_ids(limit=1):
        last = journal.events(recovery_id)[-1].moment
        if last > now + CLOCK_SKEW_MAX:
            return Finding(
                "clock",
                Health.BAD,
                f"{now.isoformat(timespec='seconds')}, but the journal was written at "
                f"{last.isoformat(timespec='seconds')}",
                "Set the clock; approvals and the order of events lean on it",
            )
    return Finding("clock", Health.OK, now.isoformat(timespec="seconds"))


def _lease() -> Finding:
    try:
        seconds = lease_seconds()
    except RecoveryError as error:
        return bad("RECOVER_LEASE_SECONDS", error)
    return Finding("RECOVER_LEASE_SECONDS", Health.OK, f"{seconds:g} s")


def _patience() -> Finding:
    try:
        delays = retry_delays_seconds()
    except RecoveryError as error:
        return bad("RECOVER_PATIENCE_SECONDS", error)
    told = f"asks {len(delays)} times more, the last one {sum(delays):g} s after the first"
    return Finding("RECOVER_PATIENCE_SECONDS", Health.OK, told)


def _server() -> list[Finding]:
    from operate.server import api_url, ask_server  # noqa: PLC0415 (imports httpx)

    url, name = api_url(), "PREFECT_API_URL"
    if not url:
        return [Finding(name, Health.NOTE, "not set: runs stay in this process and out of a UI")]
    try:
        answer = ask_server(url)
    except RecoveryError as error:
        return [bad(name, error)]
    ours = _installed("prefect")
    if answer.version.split(".")[:2] != ours.split(".")[:2]:
        found = Finding(
            name,
            Health.NOTE,
            f"{url} answers with version {answer.version}; here is {ours}",
            "Run the same release of Prefect on both sides",
        )
    else:
        found = Finding(name, Health.OK, f"{url} answers with version {answer.version}")
    if answer.at is not None:
        skew = abs(datetime.now(UTC) - answer.at)
        if skew > CLOCK_SKEW_MAX:
            seen = f"{skew.total_seconds():.0f} s apart from the Prefect server's"
            return [found, Finding("clock", Health.BAD, seen, "Set both clocks, by NTP")]
    return [found]


def _prefect_pair() -> Finding:
    prefect, fastapi = _installed("prefect"), _installed("fastapi")
    seen = f"prefect {prefect}, fastapi {fastapi}"
    if prefect == BROKEN_PREFECT and _numbers(fastapi) >= BROKEN_FASTAPI_MIN:
        return Finding(
            "packages",
            Health.BAD,
            f"{seen}: the server of this Prefect does not start with it",
            "Install from requirements.lock, or any fastapi below 0.151",
        )
    return Finding("packages", Health.OK, seen)


def _result_storage() -> Finding:
    name = "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"
    block = os.environ.get(name, "")
    if block and os.environ.get("PREFECT_TASKS_DEFAULT_NO_CACHE", "").lower() not in {"1", "true"}:
        return Finding(
            name,
            Health.NOTE,
            f"{block}: it makes Prefect keep and reuse results of tasks that are not ours",
            "Set PREFECT_TASKS_DEFAULT_NO_CACHE=true with it; steps of recoveries use no cache",
        )
    return Finding(name, Health.OK, block or "not set")


def _program(what: str, names: tuple[str, ...]) -> Finding:
    for name in names:
        if found := shutil.which(name):
            return Finding(what, Health.OK, found)
    return Finding(
        what,
        Health.BAD,
        f"neither {' nor '.join(names)} is on PATH",
        "Install the client programs of MariaDB or MySQL (on Debian: mariadb-client)",
    )


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
