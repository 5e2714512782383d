"""Consent to a suspended run on a worker, given in the form of the UI or by `recover approve`."""

import contextlib
import itertools
import json
import os
from pathlib import Path
from unittest import mock

import pytest
import yaml
from prefect.blocks.webhook import Webhook
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from operate.cli import app
from recovery.journal.events import Kind
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.run import recovery_id_of
from tests.lab.prefect_server import private_prefect_server, process_worker
from tests.lab.processes import wait_until
from tests.lab.sinks import webhook_sink

PROJECT = Path(__file__).resolve().parent.parent.parent
POOL = "approvals"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
NUMBERS = itertools.count(1)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the journal, the approvers and the worlds of this module."""
    return tmp_path_factory.mktemp("approvals")


@pytest.fixture(scope="module")
def server(place):
    with private_prefect_server(place / "server") as running:
        running.create_process_pool(POOL)
        yield running


@pytest.fixture(scope="module")
def webhook():
    with webhook_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def worker(server, place, webhook):
    settings = {
        "PYTHONPATH": str(PROJECT),
        "RECOVER_JOURNAL": str(place / "journal.sqlite"),
        "RECOVER_LEASE_SECONDS": "3",
        "RECOVER_APPROVERS": str(place / "approvers.yaml"),
        "RECOVER_NOTIFICATIONS": str(place / "notifications.yaml"),
        "PREFECT_UI_URL": server.ui_url,
    }
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        Webhook(url=f"{webhook.url}/told").save("oncall")
    channels = {"channels": [{"block": "webhook/oncall"}]}
    (place / "notifications.yaml").write_text(yaml.safe_dump(channels))
    (place / "approvers.yaml").write_text("{}")
    with process_worker(server, POOL, place / "worker", settings=settings) as running:
        yield running


class Suspended:
    """A run of the recovery on the worker, with a folder of its own."""

    def __init__(self, server, place, **parameters):
        self.server, self.place = server, place
        self.folder = place / f"world{next(NUMBERS)}"
        self.folder.mkdir()
        self.put("a.old")
        flow = server.request("POST", "/flows/", {"name": "remove-files"})
        body = {
            "name": self.folder.name,
            "flow_id": flow["id"],
            "entrypoint": "tests.lab.approved_recovery.remove_files",
            "work_pool_name": POOL,
            "path": str(PROJECT),
            "job_variables": {"env": {"APPROVED_FOLDER": str(self.folder)}},
        }
        self.deployment = server.request("POST", "/deployments/", body)["id"]
        self.id = self.start(**parameters)
        self.recovery_id = recovery_id_of(self.id)

    def start(self, **parameters):
        path = f"/deployments/{self.deployment}/create_flow_run"
        body = {"parameters": {"folder": str(self.folder), **parameters}}
        return self.server.request("POST", path, body)["id"]

    def put(self, name, text=""):
        (self.folder / name).write_text(text)

    @property
    def removed(self):
        log = self.folder / "removed"
        return log.read_text().split() if log.exists() else []

    @property
    def state(self):
        return self.server.request("GET", f"/flow_runs/{self.id}")["state"]

    def wait_until_asked(self, times=1):
        """Wait until the run is suspended with its n-th question; return that question."""
        wait_until(
            lambda: self.state["name"] == "Suspended" and len(self.events(Kind.ASKED)) == times,
            f"question {times} of run {self.id}: {self.state}",
            within_seconds=90,
        )
        return self.history.consents.asked

    def wait_until_ended(self):
        wait_until(lambda: self.state["type"] in ENDED, f"the end of {self.id}", within_seconds=90)
        return self.state["name"]

    def form(self):
        """The schema and the description, as the UI reads them from the keyset of the state."""
        keys = self.state["state_details"]["run_input_keyset"]
        return [
            self.server.request("GET", f"/flow_runs/{self.id}/input/{keys[part]}")
            for part in ("schema", "description")
        ]

    def logged(self, text):
        """Whether the run's *Logs* have a line with this text; they are sent in batches."""
        body = {"logs": {"flow_run_id": {"any_": [self.id]}}, "limit": 200}
        return any(
            text in line["message"] for line in self.server.request("POST", "/logs/filter", body)
        )

    def answer(self, asked, **given):
        """Press *Resume*, as the UI does."""
        answer = {
            "plan_hash": asked.plan_hash,
            "decision": "approve",
            "approver": "Ada",
            "confirm": asked.confirm,
            **given,
        }
        return self.server.request("POST", f"/flow_runs/{self.id}/resume", {"run_input": answer})

    def retry(self):
        """Press *Retry*, as the UI does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        body = {"state": state, "force": True}
        self.server.request("POST", f"/flow_runs/{self.id}/set_state", body)

    def retry_until(self, name):
        """Retry it, again where the worker tells of the crash once more, until it is so."""

        def is_so():
            if self.state["type"] in ENDED and self.state["name"] != name:
                self.retry()
            return self.state["name"] == name

        wait_until(is_so, f"{name}", within_seconds=90)

    def events(self, kind):
        with contextlib.closing(open_journal(str(self.place / "journal.sqlite"))) as journal:
            return [e.body for e in journal.events(self.recovery_id) if e.kind == kind]

    @property
    def history(self):
        with contextlib.closing(open_journal(str(self.place / "journal.sqlite"))) as journal:
            return read_history(journal.events(self.recovery_id))


@pytest.fixture
def rules(place, worker):
    """Names the approvers; nobody is named after the test."""

    def write(**content):
        (place / "approvers.yaml").write_text(yaml.safe_dump(content))

    write()
    yield write
    write()


@pytest.fixture
def started(server, place, rules):
    return lambda **parameters: Suspended(server, place, **parameters)


def test_a_run_is_suspended_with_its_plan_and_goes_on_when_the_form_is_answered(started, webhook):
    run = started()
    asked = run.wait_until_asked()
    schema, description = run.form()
    told = f"press *Resume*; or `recover approve {run.recovery_id} --plan {asked.plan_hash}"
    wait_until(lambda: run.logged(told), f"a line in the log: {told}", within_seconds=60)

    refused = run.answer(asked, decision="maybe")
    run.answer(asked, reason="they are old")

    assert refused["status"] == "REJECT"
    assert run.wait_until_ended() == "Recovered"
    assert f"rm {run.folder / 'a.old'}" in description
    assert asked.plan_hash in description
    assert schema["properties"]["plan_hash"]["default"] == asked.plan_hash
    assert set(schema["required"]) == {"decision", "approver", "confirm"}
    assert run.removed == ["a.old"]
    assert all(attempt.prefect_worker for attempt in run.history.attempts)
    (approval,) = run.history.approvals
    assert (approval.by, approval.how, approval.reason) == ("Ada", "approved", "they are old")
    assert approval.plan_hash == asked.plan_hash
    told = told_of(run, webhook, count=3)
    assert set(told) == {"approval-asked", "approved", "recovered"}  # sent side by side
    assert f"--plan {asked.plan_hash} --by NAME" in told["approval-asked"]["next"]
    assert f"/runs/flow-run/{run.id}" in told["approval-asked"]["link"]


def told_of(run, webhook, count):
    """What the channel was told of a run, by occasion, once that many notices are there."""

    def arrived():
        seen = [one for one in webhook.at("/told") if one["recovery_id"] == run.recovery_id]
        return len(seen) >= count and {one["occasion"]: one for one in seen}

    return wait_until(arrived, f"{count} notices", within_seconds=30)


@pytest.fixture
def recover(server, place, worker):
    """The command, on a machine that reaches the journal and the server."""

    def call(*arguments, exits=0):
        environment = {**worker.environment(), "RECOVER_APPROVERS": ""}
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            temporary_settings({PREFECT_API_URL: server.api_url}),
        ):
            called = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert called.exit_code == exits, called.stdout + called.stderr
        return json.loads(called.stdout)

    return call


def test_two_persons_consent_one_in_the_form_and_one_by_the_command(started, rules, recover):
    rules(
        approvers={"Ada": {}, "Grace": {}},
        rules=[{"recovery": "remove-files", "needs": 2, "requester_suffices": False}],
    )
    run = started(requested_by="Ada")
    asked = run.wait_until_asked()

    run.answer(asked, approver=" Ada\n", decision="approve\n")
    asked = run.wait_until_asked(times=2)
    shown = recover("approve", run.recovery_id)
    unknown = recover("approve", run.recovery_id, "--plan", asked.plan_hash, "--by", "Eve", exits=2)
    said = recover("approve", run.recovery_id, "--plan", asked.plan_hash, "--by", "grace")

    assert (shown["given"], shown["missing"], shown["of"]) == (["Ada"], 1, ["Ada", "Grace"])
    assert unknown["error"]["field"] == "--by"
    assert said["run"] == f"flow run {run.id} goes on"
    assert run.wait_until_ended() == "Recovered"
    assert [(one.by, one.through) for one in run.history.approvals] == [
        ("Ada", "form"), ("Grace", "command"),
    ]  # fmt: skip


def test_what_does_not_count_is_named_and_a_retry_repeats_no_answer(started, rules):
    rules(approvers={"Ada": {}}, rules=[{"danger": "destructive", "of": ["Ada"]}])
    run = started()
    asked = run.wait_until_asked()
    eve = run.answer(asked, approver="Eve")
    run.answer(asked, confirm="yes")
    asked = run.wait_until_asked(times=2)
    wrong_word = asked.why
    run.answer(asked, decision="reject", reason="not tonight")
    ended = run.wait_until_ended(), run.state["message"]
    run.retry()
    asked = run.wait_until_asked(times=3)

    assert eve["status"] == "REJECT"
    assert "Ada confirmed 'yes'" in wrong_word
    assert ended[0] == "Refused"
    assert "Ada rejected plan" in ended[1]
    assert "not tonight" in ended[1]
    assert "nobody has approved" in asked.why
    assert run.removed == []


def test_a_changed_plan_voids_the_consent_and_a_killed_worker_reads_the_next_one_once(started):
    run = started()
    asked = run.wait_until_asked()
    run.put("b.old")
    run.answer(asked)
    anew = run.wait_until_asked(times=2)
    run.put("die-before", Kind.APPROVED)
    run.answer(anew)
    crashed = run.wait_until_ended()

    run.retry_until("Recovered")

    assert anew.plan_hash != asked.plan_hash
    assert "changed: remove[b.old] was" in anew.why
    assert crashed == "Crashed"
    assert len(run.events(Kind.ASKED)) == 2
    assert [one.plan_hash for one in run.history.approvals] == [anew.plan_hash]
    assert run.removed == ["a.old", "b.old"]


def test_a_run_that_nobody_answers_in_time_can_be_resumed(started, rules, recover):
    rules(rules=[{"danger": "destructive", "answer_within_hours": 3 / 3600}])
    run = started()
    wait_until(lambda: run.events(Kind.ASKED), "the question", within_seconds=90)

    ended = run.wait_until_ended()
    (asked,) = run.events(Kind.ASKED)
    said = recover("approve", run.recovery_id, "--plan", asked["plan_hash"], "--by", "Ada")

    assert ended == "Failed"
    assert "waits no longer" in said["run"]
    assert said["next"] == f"`recover resume {run.recovery_id}`"
    assert run.removed == []


@pytest.mark.skipif(
    os.environ.get("FAULTS") != "all", reason="FAULTS=all; the unit tests have it with our own form"
)
def test_going_back_on_a_worker_is_asked_for_with_its_steps(started):
    run = started(break_glass="a drill", approved_by="Ada")
    assert run.wait_until_ended() == "Recovered"

    run.id = run.start(resume=run.recovery_id, undo_by="Ada")
    asked = run.wait_until_asked()
    _, description = run.form()
    run.answer(asked, reason="they were not so old")

    assert "put_back" in description
    assert "destroys what was written to it since" in description
    assert run.wait_until_ended() == "Undone"
    assert (run.folder / "a.old").exists()
