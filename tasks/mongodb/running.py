"""Running the Jobs that back up and restore MongoDB, each once."""

from collections.abc import Iterable

from blocks.kube import text
from blocks.kube.answer import ClusterConflict
from recovery.errors import Refused
from recovery.steps import act, decision
from recovery.verdict import Danger, Verdict
from recovery.walk import current_fence
from tasks.jobs.template import RECOVERY_LABEL, JobSource, PlannedJob, body_of, planned_job
from tasks.mongodb.order import MongoOrder
from tasks.workloads.pods import is_history
from tasks.workloads.scaling import REPLICAS
from tasks.workloads.target import Workload


@decision(each=("source",))
def job_for(order: MongoOrder, source: JobSource) -> PlannedJob:
    """The Job that is made from a CronJob, by a name that a resume finds again.

    A fork from here makes another one.
    """
    del order
    return planned_job(source, current_fence().recovery_id)


def create_commands(order: MongoOrder, job: PlannedJob) -> Iterable[str]:
    """What creates it."""
    with order.cluster.session() as session:
        body = body_of(session, order.label, job)
    return [text.create_text(job.jobs_path, body)]


def is_created(order: MongoOrder, job: PlannedJob) -> Verdict:
    """Whether there is a Job of this name that is this recovery's."""
    with order.cluster.session() as session:
        read = session.find(job.path)
    if read is None:
        return Verdict.NOT_DONE
    is_ours = (read["metadata"].get("labels") or {}).get(RECOVERY_LABEL) == job.recovery
    return Verdict.DONE if is_ours else Verdict.UNKNOWN


def refuse_writers(order: MongoOrder, clients: list[Workload]) -> None:
    """Refuse to restore while a pod of a client that was scaled down is there again.

    Raises:
        Refused: one is.
    """
    with order.cluster.session() as session:
        for client in clients:
            read = session.get(client.path)
            if REPLICAS not in (read["metadata"].get("annotations") or {}):
                continue  # not scaled down yet: this is a plan
            pods = session.objects(client.pods_path, labels=client.selector)
            if names := [pod["metadata"]["name"] for pod in pods if not is_history(pod)]:
                reason = f"{client} runs while the data is to be restored: {', '.join(names)}"
                raise Refused(order.label, reason, "Find out who scaled it up, then resume")


@act(each=("job",), commands=create_commands, done_when=is_created, redo_stale=False)
def take_backup(order: MongoOrder, job: PlannedJob) -> None:
    """Start a backup of the data as it is now: the point to go back to.

    Done twice, it finds the Job of the first time.

    Raises:
        Refused: the template of the CronJob is another by now.
        ClusterConflict, ClusterRejected, ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/mongodb-restore.md, step 3.
    """
    _create(order, job)


@act(
    each=("job",),
    commands=create_commands,
    done_when=is_created,
    refuse_if=[refuse_writers],
    redo_stale=False,
    danger=Danger.DESTRUCTIVE,
)
def restore(order: MongoOrder, job: PlannedJob, clients: list[Workload]) -> None:  # noqa: ARG001
    """Start the restore, which overwrites or adds to what is in the database.

    It is not taken back: what it replaced is only in the backup. Done twice, it finds the Job of
    the first time, and a Job that has vanished is not made again unasked.

    Raises:
        Refused: a client runs, or the template of the CronJob is another by now.
        ClusterConflict, ClusterRejected, ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/mongodb-restore.md, step 6.
    """
    _create(order, job)


def _create(order: MongoOrder, job: PlannedJob) -> None:
    with order.cluster.session() as session:
        body = body_of(session, order.label, job)
        try:
            session.create(job.jobs_path, body)
        except ClusterConflict:
            if is_created(order, job) is not Verdict.DONE:
                raise
