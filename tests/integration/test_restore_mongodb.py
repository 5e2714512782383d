"""restore-mongodb against a Kubernetes API: what holds afterwards is asked of the API."""

import contextlib
import threading

import pytest

import flows.mongodb  # noqa: F401 (declares the recovery)
from recovery.errors import BadInput, NeedsPerson, NotVerified, Refused
from recovery.journal.history import StepState, read_history
from recovery.journal.opening import open_journal
from recovery.stage import PlainStage
from tasks.mongodb.rights import rules_for
from tasks.workloads.target import Workload, WorkloadKind
from tests.integration.kubernetes_runs import RESTORED, Mongodb, cronjob
from tests.lab.kubernetes_node import FAILS, MISSING, READY, SUCCEEDS, Image
from tests.lab.processes import wait_until

NOTE = "recovery-pipelines.io/replicas"


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))


@pytest.fixture
def mongodb(kubernetes):
    """An installation whose client has one replica."""
    return Mongodb(kubernetes, kubernetes.namespace("mongodb")).deploy()


def is_down(mongodb):
    """Whether the client is scaled to nothing and says what it had."""
    one = mongodb.client()
    noted = one["metadata"]["annotations"][NOTE].rpartition(":")[2]
    return one["spec"]["replicas"] == 0 and noted == str(mongodb.replicas)


def annotate(mongodb, **annotations):
    path = mongodb.api.path("apps/v1", "statefulsets", mongodb.namespace, "vantiq")
    mongodb.api.client.patch(path, {"metadata": {"annotations": annotations}})


def test_a_restore_backs_up_stops_the_client_and_brings_its_one_replica_back(mongodb):
    ended = mongodb.restore(userdb_cronjob="userdbrestore")

    assert ended.error is None, ended.error
    assert mongodb.is_well()
    jobs = mongodb.jobs()
    assert {name: mongodb.starts(name) for name in jobs} == dict.fromkeys(
        ("mongobackup", "mongorestore", "userdbrestore"), 1
    )
    assert [(one.restored, one.failed) for one in ended.result.restores] == [(41, 0), (41, 0)]
    assert ended.result.backup.log[-1].endswith("done dumping")
    assert any("restartPolicy OnFailure" in line for line in ended.result.told)


def test_its_job_has_no_owner_no_second_try_and_is_kept_for_a_day(mongodb):
    ended = mongodb.restore()

    job = mongodb.jobs()["mongorestore"]
    assert job["metadata"]["name"] == f"mongorestore-{ended.recovery_id}"
    assert "ownerReferences" not in job["metadata"]
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_recovery_that_is_done_is_not_done_again_when_resumed(mongodb):
    first = mongodb.restore()
    generation = mongodb.client()["metadata"]["generation"]

    resumed = mongodb.restore(options={"resume": first.recovery_id})

    assert resumed.error is None, resumed.error
    assert mongodb.client()["metadata"]["generation"] == generation
    assert mongodb.starts("mongorestore") == 1


def test_three_replicas_are_three_again_after_a_second_restore_too(kubernetes):
    mongodb = Mongodb(kubernetes, kubernetes.namespace("mongodb"), replicas=3).deploy()

    for _ in range(2):
        ended = mongodb.restore(take_backup_first=False)
        assert ended.error is None, ended.error

    assert mongodb.is_well()


def test_a_plan_shows_each_change_in_order_and_makes_none(mongodb):
    planned = mongodb.restore(options={"plan_only": True, "break_glass": ""})

    assert planned.error is None, planned.error
    assert planned.plan.refusals == []
    sent = [command for step in planned.plan.steps for command in step.commands]
    assert [command.split(" ")[0] for command in sent] == ["POST", "PATCH", "POST", "PATCH"]
    assert '"name":"mongorestore-@recovery@"' in sent[2]
    assert mongodb.jobs() == {}
    assert mongodb.is_well()


def test_what_was_planned_may_be_approved_by_its_hash(mongodb):
    planned = mongodb.restore(options={"plan_only": True, "break_glass": ""})
    approved = {"approve": planned.plan.hash, "approved_by": "kim", "break_glass": ""}

    ended = mongodb.restore(options=approved)

    assert ended.error is None, ended.error
    assert mongodb.is_well()


def test_a_run_that_broke_off_is_no_success_though_the_job_is_complete(mongodb):
    log = "2026-11-20T03:10:00.000+0000\tFailed: no reachable servers\n"
    mongodb.api.node.images[mongodb.image("mongorestore")] = Image(SUCCEEDS, log=log)

    ended = mongodb.restore(take_backup_first=False)

    assert isinstance(ended.error, NotVerified)
    assert "it ended as complete and says: Failed: no reachable servers" in str(ended.error)
    assert is_down(mongodb)


def test_documents_that_failed_are_no_success_though_the_job_is_complete(mongodb):
    image = mongodb.image("mongorestore")
    mongodb.api.node.images[image] = Image(SUCCEEDS, log=RESTORED.format(40, 1))

    ended = mongodb.restore(take_backup_first=False)

    assert isinstance(ended.error, NotVerified)
    assert "1 document(s) failed to restore" in str(ended.error)
    assert "Every client stays at 0 replicas" in str(ended.error)
    assert is_down(mongodb)

    forked = mongodb.restore(
        options={"resume": ended.recovery_id, "fork": True},
        take_backup_first=False,
        accept_failed_documents=1,
    )
    assert forked.error is None, forked.error
    assert mongodb.starts("mongorestore") == 1
    assert mongodb.is_well()


def test_a_job_that_fails_leaves_the_client_down_and_a_fork_restores_anew(mongodb):
    image = mongodb.image("mongorestore")
    log = "2026-11-20T03:10:00.000+0000\tFailed: error connecting to db server\n"
    mongodb.api.node.images[image] = Image(FAILS, log=log)

    ended = mongodb.restore(take_backup_first=False)

    assert isinstance(ended.error, NotVerified)
    assert "BackoffLimitExceeded" in str(ended.error)
    assert "Failed: error connecting to db server" in str(ended.error)
    assert is_down(mongodb)
    assert mongodb.starts("mongorestore") == 1

    mongodb.api.node.images[image] = Image(SUCCEEDS, log=RESTORED.format(41, 0))
    again = {"resume": ended.recovery_id, "fork": True, "from_step": "job_for[mongorestore]"}
    forked = mongodb.restore(options=again, take_backup_first=False)
    assert forked.error is None, forked.error
    assert mongodb.starts("mongorestore") == 2
    assert mongodb.is_well()


def test_going_back_after_a_failed_restore_starts_as_many_clients_as_there_were(mongodb):
    mongodb.api.node.images[mongodb.image("mongorestore")] = Image(FAILS, log="broken\n")
    ended = mongodb.restore(take_backup_first=False)
    assert is_down(mongodb)

    undone = mongodb.restore(
        options={"resume": ended.recovery_id, "undo_by": "kim"}, take_backup_first=False
    )

    assert undone.error is None, undone.error
    wait_until(mongodb.is_well, "the client again", within_seconds=30)


def test_a_log_that_does_not_say_how_many_failed_is_for_a_person(mongodb):
    mongodb.api.node.images[mongodb.image("mongorestore")] = Image(SUCCEEDS, log="bye\n")

    ended = mongodb.restore(take_backup_first=False)

    assert isinstance(ended.error, NeedsPerson)
    assert "does not say how many documents failed" in str(ended.error)
    assert is_down(mongodb)

    accepted = ["not-the-newest:mongorestore", "no-summary:mongorestore"]
    forked = mongodb.restore(
        options={"resume": ended.recovery_id, "fork": True},
        take_backup_first=False,
        accept=accepted,
    )
    assert forked.error is None, forked.error
    assert mongodb.is_well()


def test_a_job_that_vanishes_has_an_unknown_outcome_and_is_not_made_again(mongodb):
    mongodb.api.node.images[mongodb.image("mongorestore")] = Image(READY, log="restoring\n")

    def is_waited_for():
        with contextlib.closing(open_journal()) as journal:
            (recovery_id,) = journal.recovery_ids()
            restores = read_history(journal.events(recovery_id)).steps.get("restore[mongorestore]")
        return restores is not None and restores.state is StepState.DONE

    def delete():
        wait_until(is_waited_for, "the Job to be made", within_seconds=25)
        path = mongodb.api.path("batch/v1", "jobs", mongodb.namespace)
        job = mongodb.jobs()["mongorestore"]["metadata"]["name"]
        mongodb.api.client.delete(f"{path}/{job}", {"propagationPolicy": "Background"})

    deletion = threading.Thread(target=delete)
    deletion.start()
    ended = mongodb.restore(take_backup_first=False)
    deletion.join()

    assert isinstance(ended.error, NeedsPerson)
    assert "its outcome is unknown" in str(ended.error)
    resumed = mongodb.restore(options={"resume": ended.recovery_id}, take_backup_first=False)
    assert isinstance(resumed.error, NeedsPerson)
    assert mongodb.jobs() == {}
    assert is_down(mongodb)


def test_an_image_that_is_missing_is_named_at_once(mongodb):
    image = mongodb.image("mongorestore")
    mongodb.api.node.images[image] = Image(MISSING)

    ended = mongodb.restore(take_backup_first=False, restore_within_seconds=300)

    assert isinstance(ended.error, NotVerified)
    assert "mongorestore: ImagePullBackOff" in str(ended.error)
    assert is_down(mongodb)


def test_a_job_that_still_runs_at_the_deadline_is_left_running(mongodb):
    mongodb.api.node.images[mongodb.image("mongorestore")] = Image(READY, log="restoring\n")

    ended = mongodb.restore(take_backup_first=False, restore_within_seconds=2)

    assert isinstance(ended.error, NotVerified)
    assert "It is left running" in str(ended.error)
    assert "restoring" in str(ended.error)
    assert list(mongodb.jobs()) == ["mongorestore"]


def test_a_cronjob_that_is_not_there_is_told_with_those_that_are(mongodb):
    ended = mongodb.restore(restore_cronjob="mongorestor", accept=["not-the-newest:mongorestor"])

    assert isinstance(ended.error, Refused)
    assert "There is mongorestore" in str(ended.error)
    assert mongodb.is_well()


def test_a_secret_or_a_volume_that_is_not_there_is_named_before_anything_is_stopped(mongodb):
    volumes = [
        {"name": "a", "secret": {"secretName": "dbbackup-creds"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "backup"}},
        {"name": "c", "configMap": {"name": "some", "optional": True}},
    ]
    body = cronjob("other", mongodb.image("mongorestore"), volumes=volumes)
    mongodb.api.apply(body, mongodb.namespace)

    ended = mongodb.restore(restore_cronjob="other", take_backup_first=False)

    assert isinstance(ended.error, Refused)
    assert "no PersistentVolumeClaim backup, no Secret dbbackup-creds" in str(ended.error)
    assert mongodb.is_well()


def test_a_restore_of_several_pods_at_once_is_refused(mongodb):
    body = cronjob("other", mongodb.image("mongorestore"))
    body["spec"]["jobTemplate"]["spec"]["parallelism"] = 2
    mongodb.api.apply(body, mongodb.namespace)

    ended = mongodb.restore(restore_cronjob="other", take_backup_first=False)

    assert isinstance(ended.error, Refused)
    assert "parallelism 2" in str(ended.error)


def test_a_fresh_backup_that_the_restore_might_pick_needs_a_word(mongodb):
    ended = mongodb.restore(accept=[])

    assert isinstance(ended.error, Refused)
    assert "accept not-the-newest:mongorestore" in str(ended.error)
    assert mongodb.jobs() == {}


def test_who_would_scale_the_client_up_again_is_refused_until_accepted_by_name(mongodb):
    annotate(mongodb, **{"argocd.argoproj.io/tracking-id": "vantiq"})

    refused = mongodb.restore(take_backup_first=False)

    assert isinstance(refused.error, Refused)
    assert "argo-cd:vantiq" in str(refused.error)
    accepted = mongodb.restore(take_backup_first=False, accept=["argo-cd:vantiq"])
    assert accepted.error is None, accepted.error
    assert mongodb.is_well()


def test_an_autoscaler_is_disabled_by_zero_and_told(mongodb):
    target = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "vantiq"}
    body = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "vantiq"},
        "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 5},
    }
    mongodb.api.apply(body, mongodb.namespace)

    ended = mongodb.restore(take_backup_first=False)

    assert ended.error is None, ended.error
    assert "horizontal-pod-autoscaler vantiq: 1 to 5 replicas" in ended.result.told
    assert mongodb.is_well()


def test_a_client_at_zero_comes_back_with_the_number_a_person_names(mongodb):
    path = mongodb.api.path("apps/v1", "statefulsets", mongodb.namespace, "vantiq")
    mongodb.api.client.patch(path, {"spec": {"replicas": 0}})

    refused = mongodb.restore(take_backup_first=False)
    ended = mongodb.restore(take_backup_first=False, clients=["statefulset/vantiq=1"])

    assert isinstance(refused.error, Refused)
    assert "statefulset/vantiq=NUMBER" in str(refused.error)
    assert ended.error is None, ended.error
    assert mongodb.is_well()


@pytest.mark.parametrize(
    "wrong",
    [{"clients": []}, {"clients": ["vantiq=x"]}, {"clients": ["vantiq", "statefulset/vantiq"]},
     {"restore_cronjob": ""}, {"restore_within_seconds": 0}],
)  # fmt: skip
def test_a_parameter_that_is_empty_or_malformed_is_named(kubernetes, wrong):
    ended = Mongodb(kubernetes, "divoc").restore(**wrong)

    assert isinstance(ended.error, BadInput)
    assert ended.error.field in {"clients", "restore_cronjob", "restore_within_seconds"}


def test_a_daemon_set_cannot_be_a_client(mongodb):
    body = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "agent", "image": mongodb.image("agent")}]},
            },
        },
    }
    mongodb.api.apply(body, mongodb.namespace)

    ended = mongodb.restore(clients=["daemonset/agent"])

    assert isinstance(ended.error, Refused)
    assert "daemonset/agent cannot be scaled" in str(ended.error)


def test_rights_that_are_missing_are_told_with_the_role_and_that_role_is_enough(mongodb):
    user = f"{mongodb.namespace}-limited"
    reading = ("apps", "statefulsets", "get,list,watch")
    mongodb.api.allow(mongodb.namespace, f"{user}-less", reading)
    client = Workload(WorkloadKind.STATEFULSET, mongodb.namespace, "vantiq", "", "")
    rules = [(group, kind, ",".join(verbs)) for group, kind, verbs in rules_for([client])]
    mongodb.api.allow(mongodb.namespace, user, *rules)

    mongodb.cluster = mongodb.api.url_as(f"{user}-less")
    refused = mongodb.restore()
    mongodb.cluster = mongodb.api.url_as(user)
    ended = mongodb.restore()

    assert isinstance(refused.error, Refused)
    assert 'apiGroups: ["apps"], resources: ["statefulsets"], verbs: [patch]' in str(refused.error)
    assert 'resources: ["pods/log"], verbs: [get]' in str(refused.error)
    assert ended.error is None, ended.error
    assert mongodb.is_well()
