"""Whether a Job that backs up or restores MongoDB did so: by its log, not by its exit code."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from recovery.errors import NeedsPerson, NotVerified
from recovery.steps import verify
from recovery.walk import current_fence
from tasks.jobs.ending import KEPT_LINES, JobEnding, JobWait
from tasks.jobs.template import PlannedJob
from tasks.mongodb.order import MongoOrder

# "2026-11-20T03:10:00.000+0000	41 document(s) restored successfully. 0 document(s) failed to
# restore." is the last line of mongorestore 4.2 and of the tools 100.x; its exit code is 0 though
# documents failed. "Failed: error connecting to db server: ..." ends a run that broke off.
SUMMARY = re.compile(
    r"(\d+) document\(s\) restored successfully\. (\d+) document\(s\) failed to restore\."
)
BROKEN_OFF = re.compile(r"(?:^|\s)Failed: \S.*")
NO_SUMMARY = "no-summary"
SHOWN_MAX = 3
TO_BE_COMPARED = (
    "compare the counts and indexes of the database, as by countDocuments({}), with those of before"
)


@dataclass(frozen=True)
class JobRan:
    """How a Job went. Documents are -1 where its log did not say.

    Attributes:
        job: its name.
        seconds: how long it was waited for, in the attempt that saw its end.
        restored: documents that were restored.
        failed: documents that were not.
        log: its last lines.
    """

    job: str
    seconds: int
    restored: int
    failed: int
    log: list[str]


@dataclass(frozen=True)
class Counted:
    """What the log of mongorestore says. `said` is whether it says how many."""

    said: bool
    restored: int
    failed: int
    broken_off: list[str]


def read_log(lines: Iterable[str]) -> Counted:
    """Count over all summaries of a log, of several runs in one pod too."""
    found, broken = [], []
    for line in lines:
        if summary := SUMMARY.search(line):
            found.append((int(summary[1]), int(summary[2])))
        elif failure := BROKEN_OFF.search(line):
            broken.append(failure[0].strip())
    restored, failed = (sum(one[n] for one in found) for n in (0, 1))
    return Counted(bool(found), restored, failed, broken)


@verify(each=("job",))
def is_backed_up(order: MongoOrder, job: PlannedJob) -> JobRan:
    """How the backup went. No client was stopped yet.

    Raises:
        NotVerified: it failed, cannot start, or still runs at the deadline.
        NeedsPerson: the Job is gone, and nobody can tell.
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/mongodb-restore.md, step 3.
    """
    way_on = f"No client was stopped, nothing was restored; `{_again(job)}` backs up with a new Job"
    ran, _ = _ended(order, job, way_on)
    return ran


@verify(each=("job",))
def is_restored(order: MongoOrder, job: PlannedJob, accept_failed: int) -> JobRan:
    """How many documents were restored, by the log of the Job.

    Raises:
        NotVerified: it failed, documents failed, it cannot start, or still runs at the deadline.
        NeedsPerson: nobody can tell: the Job is gone, or its log does not say.
        Unreachable: the API gave no answer up to the deadline.

    Runbook: docs/runbooks/mongodb-restore.md, step 7.
    """
    way_on = (
        "Every client stays at 0 replicas, the data may be half restored. Once the cause is "
        f"mended, `{_again(job)}` restores again with a new Job; "
        f"`recover undo {current_fence().recovery_id}` starts the clients on the data as it is, "
        "and brings no backup back"
    )
    ran, counted = _ended(order, job, way_on)
    expected = f"Job {job.job} to restore every document"
    if counted.broken_off:
        seen = f"it ended as complete and says: {' | '.join(counted.broken_off[:SHOWN_MAX])}"
        raise NotVerified(order.label, expected, seen, way_on)
    if not counted.said and f"{NO_SUMMARY}:{job.name}" not in order.accept:
        seen = " | ".join(ran.log[-SHOWN_MAX:]) or "nothing, or the log is gone"
        raise NeedsPerson(
            order.label,
            f"Job {job.job} is complete, and its log does not say how many documents failed: "
            f"{seen}",
            f"Look at the data. Where it is whole, "
            f"`recover resume {current_fence().recovery_id} --set "
            f"'accept=[\"{NO_SUMMARY}:{job.name}\"]'` goes on from here. {way_on}",
        )
    if counted.failed > accept_failed:
        raise NotVerified(
            order.label,
            expected,
            f"{counted.failed} document(s) failed to restore, {counted.restored} were restored, "
            f"though its exit code is 0: {' | '.join(ran.log[-SHOWN_MAX:])}",
            "Without --drop, documents that were there count as failed. Where that is it, "
            f"`recover resume {current_fence().recovery_id} --set "
            f"accept_failed_documents={counted.failed}` goes on from here. {way_on}",
        )
    return ran


def _again(job: PlannedJob) -> str:
    return f"recover resume {current_fence().recovery_id} --from 'job_for[{job.name}]'"


def _ended(order: MongoOrder, job: PlannedJob, way_on: str) -> tuple[JobRan, Counted]:
    began = time.monotonic()
    with order.cluster.session() as session:
        wait = JobWait(session, order.label, job, order.job_within_seconds, way_on)
        ending = wait.until_ended()
    log = wait.lines
    counted = read_log(log)
    last = " | ".join(log[-SHOWN_MAX:]) or "no log was to be had"
    if ending is JobEnding.GONE:
        question = f"Job {job.job} is gone and nobody saw its end: its outcome is unknown ({last})"
        remedy = f"Find out who deleted it and look at the data. {way_on}"
        raise NeedsPerson(order.label, question, remedy)
    if ending is JobEnding.FAILED:
        seen = f"it failed ({wait.why}): {' | '.join(counted.broken_off) or last}"
        raise NotVerified(order.label, f"Job {job.job} to end well", seen, way_on)
    known = (counted.restored, counted.failed) if counted.said else (-1, -1)
    ran = JobRan(job.job, round(time.monotonic() - began), *known, log[-KEPT_LINES:])
    return ran, counted
