"""Judging what a restore of MongoDB works on, and what its Jobs say."""

from contextlib import nullcontext

import pytest

from blocks.kube.answer import ClusterConflict, ClusterForbidden
from recovery.errors import NotVerified, Refused
from recovery.verdict import Verdict
from tasks.jobs.ending import JobEnding, JobWait
from tasks.jobs.needs import missing_and_unseen, needs_of
from tasks.jobs.template import (
    NAME_CHARS_MAX,
    RECOVERY_LABEL,
    JobSource,
    body_of,
    digest_of,
    find_cronjob,
    job_body,
    planned_job,
)
from tasks.mongodb import preflight, running
from tasks.mongodb.order import RestoreWish, mongo_order
from tasks.mongodb.outcome import read_log
from tasks.workloads.interference import Interference, Interferer
from tasks.workloads.scaling import REPLICAS
from tasks.workloads.target import Workload, WorkloadKind

IN_CLUSTER = "in-cluster:?namespace=vantiq&name=lab"
ID = "0123456789ab"
CLIENT = Workload(WorkloadKind.STATEFULSET, "vantiq", "vantiq", "u", "app=vantiq")
SUMMARY = "{} document(s) restored successfully. {} document(s) failed to restore."


class FakeSession:
    """Answers by the last part of a path; `errors` are raised for it instead."""

    label = "kubernetes://lab"

    def __init__(self, errors=None, logs="", **objects):
        self.table, self.errors, self.log = objects, errors or {}, logs

    def resource_of(self, version, kind):
        return "cronjobs" if self.table.get("served", version) == version else ""

    def find(self, path):
        return self.get(path)

    def get(self, path):
        return self._of(path.rpartition("/")[2].replace("-", "_"))

    def objects(self, path, **selected):
        return self._of(path.rpartition("/")[2]) or []

    def objects_and_version(self, path, **selected):
        return self.objects(path), "1"

    def logs(self, namespace, pod, order):
        return self.log

    def create(self, path, body):
        raise ClusterConflict(self.label, f"POST {path}", 409, "it is there")

    def _of(self, name):
        if name in self.errors:
            raise self.errors[name]
        return self.table.get(name)


def a_cronjob(container=None, **spec):
    pod = {
        "containers": [{"name": "m", "image": "mongo:4", **(container or {})}],
        "restartPolicy": "OnFailure",
        **spec,
    }
    job = {"suspend": True, "podFailurePolicy": {"rules": []}, "template": {"spec": pod}}
    return {
        "metadata": {"name": "mongorestore"},
        "spec": {"jobTemplate": {"metadata": {"labels": {"app": "m"}}, "spec": job}},
    }


def an_order(**wish):
    return mongo_order(IN_CLUSTER, "", None, RestoreWish(("mongorestore",), **wish))


def planned(cronjob=None):
    digest = digest_of(cronjob or a_cronjob())
    return planned_job(JobSource("mongorestore", "vantiq", digest, []), ID)


def waiting(session, within_seconds=0.0):
    return JobWait(session, "lab", planned(), within_seconds, "the way on")


@pytest.mark.parametrize(
    ("lines", "counted"),
    [
        ([f"2026-11-20T03:10:00Z {SUMMARY.format(41, 0)}"], (True, 41, 0, [])),
        ([SUMMARY.format(40, 1), SUMMARY.format(2, 3)], (True, 42, 4, [])),
        (["x\tFailed: no reachable servers"], (False, 0, 0, ["Failed: no reachable servers"])),
        (["continuing through error: E11000 duplicate key"], (False, 0, 0, [])),
        ([], (False, 0, 0, [])),
    ],
)
def test_a_log_is_read_for_documents_that_failed_and_for_a_run_that_broke_off(lines, counted):
    found = read_log(lines)

    assert (found.said, found.restored, found.failed, found.broken_off) == counted


def test_a_job_runs_once_whatever_its_template_says():
    spec = job_body(a_cronjob(), planned())["spec"]

    assert spec["backoffLimit"] == 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert not {"suspend", "podFailurePolicy"} & set(spec)


def test_the_name_of_a_job_fits_however_long_that_of_its_cronjob_is():
    name = planned_job(JobSource("m" * 52, "vantiq", "", []), ID).job

    assert len(name) <= NAME_CHARS_MAX
    assert name.endswith(f"-{ID}")


def test_a_template_that_was_changed_since_is_not_run():
    changed = a_cronjob({"args": ["--drop"]})

    with pytest.raises(Refused, match="was changed since"):
        body_of(FakeSession(mongorestore=changed), "lab", planned())


def test_cronjobs_of_an_old_api_are_found_and_none_at_all_is_refused():
    old = FakeSession(served="batch/v1beta1", mongorestore=a_cronjob())

    assert find_cronjob(old, "lab", "vantiq", "mongorestore")["metadata"]["name"] == "mongorestore"
    with pytest.raises(Refused, match="serves no CronJobs"):
        find_cronjob(FakeSession(served="none"), "lab", "vantiq", "mongorestore")


def test_what_a_pod_cannot_start_without_is_listed_and_what_is_optional_is_not():
    environment = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "a"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "no", "key": "b", "optional": True}}},
    ]
    sources = [{"secret": {"name": "token"}}, {"configMap": {"name": "settings"}}]
    cronjob = a_cronjob(
        {"env": environment, "envFrom": [{"configMapRef": {"name": "all"}}]},
        volumes=[{"name": "p", "projected": {"sources": sources}}],
        serviceAccountName="backup",
    )
    forbidden = ClusterForbidden("lab", "GET", 403, "no")

    missing, unseen = missing_and_unseen(
        FakeSession({"keys": forbidden}, token={}), "vantiq", cronjob
    )

    assert ("secrets", "no") not in needs_of(cronjob)
    assert missing == ["ConfigMap all", "ConfigMap settings", "ServiceAccount backup"]
    assert unseen == ["Secret keys"]


@pytest.mark.parametrize(
    ("who", "name", "seen", "is_against"),
    [
        (Interferer.HPA, "h", "1 to 5 replicas", False),
        (Interferer.HPA, "h", "0 to 5 replicas", True),
        (Interferer.KEDA, "k", "", True),
        (Interferer.FLUX, "f", "", True),
        (Interferer.OPERATOR, "o", "", True),
        (Interferer.HELM, "h", "", False),
        (Interferer.BUDGET, "b", "", False),
        (Interferer.REPLICAS_OWNER, "kubectl", "", False),
        (Interferer.NOT_KNOWN, "autoscalers", "", True),
        (Interferer.NOT_KNOWN, "budgets", "", False),
    ],
)
def test_only_who_scales_up_from_zero_speaks_against_a_restore(who, name, seen, is_against):
    assert preflight.is_against(Interference(who, name, seen)) is is_against


def test_a_container_without_an_image_is_refused():
    with pytest.raises(Refused, match="no image for m"):
        preflight.refuse_unfit(an_order(), "mongorestore", a_cronjob({"image": ""}))


@pytest.mark.parametrize(
    ("words", "told"),
    [("mongorestore --drop", "are replaced"), ("mongorestore", "count as failed")],
)
def test_whether_a_restore_drops_is_told(words, told):
    lines = preflight.told_of("r", a_cronjob({"command": words.split()}))

    assert told in lines[-1]


def test_a_restore_is_refused_while_a_pod_of_a_client_is_there_again(monkeypatch):
    read = {"metadata": {"annotations": {REPLICAS: f"{ID}:3"}}}
    session = FakeSession(vantiq=read, pods=[{"metadata": {"name": "vantiq-0"}}])
    order = an_order()
    monkeypatch.setattr(type(order.cluster), "session", lambda _: nullcontext(session))

    with pytest.raises(Refused, match="runs while the data is to be restored: vantiq-0"):
        running.refuse_writers(order, [CLIENT])


def test_a_job_of_somebody_else_is_neither_ours_nor_overwritten(monkeypatch):
    job = planned()
    foreign = {"metadata": {"labels": {RECOVERY_LABEL: "another"}}}
    table = {job.job.replace("-", "_"): foreign, "mongorestore": a_cronjob()}
    order = an_order()
    session = FakeSession(**table)
    monkeypatch.setattr(type(order.cluster), "session", lambda _: nullcontext(session))

    assert running.is_created(order, job) is Verdict.UNKNOWN
    with pytest.raises(ClusterConflict):
        running.take_backup.fn(order, job)


def test_a_job_without_any_pod_is_told_with_the_event_that_says_why():
    events = [{"message": "exceeded quota: pods"}]
    session = FakeSession(jobs=[{"metadata": {"uid": "j"}}], events=events)

    with pytest.raises(NotVerified, match="exceeded quota: pods"):
        waiting(session).until_ended()


def test_a_condition_that_is_not_final_is_no_end():
    conditions = [{"type": "SuccessCriteriaMet", "status": "True"}]
    pod = {"metadata": {"name": "p", "uid": "p"}, "status": {"phase": "Running"}}
    job = {"metadata": {"uid": "j"}, "status": {"conditions": conditions}}

    with pytest.raises(NotVerified, match="It is left running"):
        waiting(FakeSession(jobs=[job], pods=[pod])).until_ended()


def test_what_keeps_a_pod_from_being_placed_is_waited_out_first():
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod = {"metadata": {"name": "p", "uid": "p"}, "status": {"conditions": [scheduled]}}

    with pytest.raises(NotVerified, match="It is left running"):
        waiting(FakeSession(jobs=[{"metadata": {"uid": "j"}}], pods=[pod])).until_ended()


def test_a_job_that_is_not_there_is_gone():
    assert waiting(FakeSession()).until_ended() is JobEnding.GONE
