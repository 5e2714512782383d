"""When the backup of a MongoDB runs: looked at, and switched on once a backup was proven."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from blocks.kube import text
from blocks.kube.session import KubernetesSession
from blocks.kube.text import Operation
from recovery.errors import Refused
from recovery.steps import act, decision, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.jobs.needs import SECRET, SHOWN, missing_and_unseen
from tasks.jobs.template import JobSource, cronjobs_path, digest_of, find_cronjob
from tasks.mongodb.backup_order import BackupOrder
from tasks.mongodb.credentials import Credentials, SecretFound, look_at_secret
from tasks.mongodb.preflight import refuse_unfit, told_of
from tasks.mongodb.rights import BACKUP_RULES, SECRET_RULES, refuse_missing_rights

VALUES = """vantiq:
  mongodb:
    backup:
      enabled: true
      provider: azure
      schedule: "@daily"
      bucket: NAME"""
TO_BE_SEEN = (
    "look in the bucket: the archive is there and of plausible size; it is known to be good once "
    "it was restored, to a copy of the installation"
)


@dataclass(frozen=True)
class Schedule:
    """A CronJob, when it ran and whether it did; `wanted` is when it is to run."""

    path: str
    uid: str
    found: str
    was_suspended: bool
    wanted: str


@dataclass(frozen=True)
class BackupFound:
    """What a backup has to be enabled with."""

    source: JobSource
    schedule: Schedule
    credentials: Credentials


@decision
def backup_found(order: BackupOrder) -> BackupFound:
    """The CronJob of the backup, when it runs, and the Secret it needs.

    Raises:
        Refused: there is no such CronJob, it is not fit, what its pod needs is not there, or a
            right is missing.
        BadInput: the file of credentials is malformed.
        ClusterForbidden, ClusterLoginRefused, Unreachable: see there.

    Runbook: docs/runbooks/mongodb-backup.md, step 1.
    """
    rules = [*BACKUP_RULES, *(SECRET_RULES if order.credentials_file else ())]
    with order.cluster.session() as session:
        refuse_missing_rights(session, order, rules)
        path = f"{cronjobs_path(session, order.namespace)}/{order.backup}"
        if session.find(path) is None:
            _refuse_not_deployed(session, order)
        cronjob = find_cronjob(session, order.label, order.namespace, order.backup)
        refuse_unfit(order, order.backup, cronjob)
        credentials = look_at_secret(session, order, current_fence().recovery_id)
        missing, unseen = missing_and_unseen(session, order.namespace, cronjob)
    if credentials.found is not SecretFound.NOT_MEANT:
        missing = [one for one in missing if one != f"{SHOWN[SECRET]} {order.secret}"]
    if missing:
        reason = f"pods of CronJob {order.backup} cannot start: there is no {', no '.join(missing)}"
        remedy = "Name a credentials_file to put a Secret there; else put it there, then resume"
        raise Refused(order.label, reason, remedy)
    told = told_of(order.backup, cronjob)
    if unseen:
        told.append(f"{order.backup}: the account may not look for {', '.join(unseen)}")
    spec = cronjob["spec"]
    schedule = Schedule(
        path,
        cronjob["metadata"]["uid"],
        spec["schedule"],
        bool(spec.get("suspend")),
        order.schedule or spec["schedule"],
    )
    source = JobSource(order.backup, order.namespace, digest_of(cronjob), told)
    return BackupFound(source, schedule, credentials)


def _refuse_not_deployed(session: KubernetesSession, order: BackupOrder) -> None:
    try:
        find_cronjob(session, order.label, order.namespace, order.backup)
    except Refused as refused:
        remedy = f"{refused.remedy}. In deploy.yaml the keys stand so, then deploy:\n{VALUES}\n"
        raise Refused(order.label, refused.reason, remedy) from None


def on_operations(schedule: Schedule) -> list[Operation]:
    """Let it run, at the times that are wanted."""
    return [
        *_as_it_was(schedule.uid, schedule.found, is_suspended=schedule.was_suspended),
        {"op": "add", "path": "/spec/suspend", "value": False},
        {"op": "replace", "path": "/spec/schedule", "value": schedule.wanted},
    ]


def back_operations(schedule: Schedule) -> list[Operation]:
    """Make it as it was."""
    return [
        *_as_it_was(schedule.uid, schedule.wanted, is_suspended=False),
        {"op": "add", "path": "/spec/suspend", "value": schedule.was_suspended},
        {"op": "replace", "path": "/spec/schedule", "value": schedule.found},
    ]


def _as_it_was(uid: str, schedule: str, *, is_suspended: bool) -> list[Operation]:
    tested: list[Operation] = [text.tested("/spec/schedule", schedule)]
    if is_suspended:
        tested.append(text.tested("/spec/suspend", value=True))
    return [*text.tests(uid=uid), *tested]


def _stands(order: BackupOrder, schedule: Schedule) -> tuple[str, bool]:
    with order.cluster.session() as session:
        spec: dict[str, Any] = session.get(schedule.path)["spec"]
    return str(spec["schedule"]), bool(spec.get("suspend"))


def is_on(order: BackupOrder, schedule: Schedule) -> Verdict:
    """Whether it runs at the times that are wanted."""
    return Verdict.of(_stands(order, schedule) == (schedule.wanted, False))


def on_commands(schedule: Schedule) -> Iterable[str]:
    """What switches it on."""
    return [text.patch_text(schedule.path, on_operations(schedule))]


@undo
def schedule_taken_back(order: BackupOrder, schedule: Schedule) -> None:
    """Make the CronJob run when it did, or not at all as before."""
    if _stands(order, schedule) != (schedule.found, schedule.was_suspended):
        with order.cluster.session() as session:
            session.patch(schedule.path, back_operations(schedule))


@act(commands=on_commands, done_when=is_on, undo=schedule_taken_back)
def switch_on(order: BackupOrder, schedule: Schedule) -> None:
    """Let the CronJob run at the times that are wanted.

    The next deployment sets it to what its values say. Done twice, it does nothing.

    Raises:
        ClusterConflict: somebody changed its times meanwhile.
        ClusterRejected, ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/mongodb-backup.md, step 4.
    """
    with order.cluster.session() as session:
        session.patch(schedule.path, on_operations(schedule))
