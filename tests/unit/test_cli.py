"""The command line's own rules: exit codes, one line an error, nothing imported for help."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

import flows
from operate import catalogue, doctor, orders, runs, screens
from operate.cli import app
from operate.completion import recovery_ids, recovery_names
from operate.endings import Answer, as_document, exit_code_of, text_of
from operate.outcomes import ToldError, ended_of
from operate.progress import Progress, ToldStage
from operate.settlement import Settlement
from operate.settling import settle
from recovery import errors
from recovery.errors import BadInput, Fenced, NeedsPerson, Refused, TargetTaken, Unreachable
from recovery.evidence.status import status_of
from recovery.journal.events import Kind
from recovery.journal.opening import open_journal

COMMANDS = [
    "list", "plan", "run", "status", "resume", "resolve", "undo", "report", "bundle", "doctor",
]  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), prog_name="recover")


@pytest.fixture
def journal(tmp_path, monkeypatch):
    path = tmp_path / "journal.sqlite"
    monkeypatch.setenv("RECOVER_JOURNAL", str(path))
    opened = open_journal(str(path))
    yield opened
    opened.close()


@pytest.fixture
def failed(journal):
    """The id of a recovery with an act in doubt and a look that failed."""
    recovery_id, about = "0123456789ab", {"kind": "act", "target": "db1"}
    journal.append(recovery_id, Kind.OPENED, {"format": 1, "flow": "gone", "target": "db1"})
    journal.append(recovery_id, Kind.ATTEMPT_STARTED, {"flow_run_id": "run"}, attempt=1)
    journal.append(recovery_id, Kind.INTENDED, about, step="load[a]", attempt=1)
    journal.append(recovery_id, Kind.DONE, {"how": "acted"}, step="load[a]", attempt=1)
    journal.append(recovery_id, Kind.INTENDED, about, step="load[b]", attempt=1)
    look = {"kind": "verify", "target": "db1", "error": "not so"}
    journal.append(recovery_id, Kind.FAILED, look, step="served", attempt=1)
    ended = {"as": "refused", "error": "refused on db1: no.", "error_type": "BadInput"}
    journal.append(recovery_id, Kind.ATTEMPT_ENDED, ended, attempt=1)
    return recovery_id


@pytest.mark.parametrize("command", [[], ["run"], ["journal", "verify"]])
def test_help_imports_neither_prefect_nor_the_flows(command):
    code = (
        "import sys\nfrom operate.cli import app\n"
        f"try: app({[*command, '--help']})\nexcept SystemExit: pass\n"
        "loaded = {'prefect', 'recovery.run', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_and_debug(command):
    shown = run(command, "--help").output

    assert "--json" in shown
    assert "--debug" in shown


def test_without_arguments_the_commands_are_listed():
    ended = run()

    assert ended.exit_code == 2
    assert all(command in ended.output for command in COMMANDS)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("a", "b", "c"), 2),
        (Unreachable("a", "b", "c"), 3),
        (ValueError("x"), 3),
        (NeedsPerson("a", "b", "c"), 4),
        (Refused("a", "b", "c"), 5),
        (TargetTaken("a", "b", 1.0), 5),
        (Fenced("a", 1, "b"), 5),
        (KeyboardInterrupt(), 130),
        (None, 0),
    ],
)
def test_every_error_has_its_exit_code(error, code):
    assert exit_code_of(error) == code


def test_an_error_is_one_line_and_an_unexpected_one_says_what_it_is():
    assert text_of(Refused("a", "b\n  c", "d")) == "refused on a: b c. d."
    assert text_of(ValueError("x\ny")).startswith("ValueError: x y ")
    assert "--debug" in text_of(ValueError("x"))


def test_an_error_as_json_has_type_message_field_and_remedy():
    assert as_document(BadInput("days", "bad", "Mend it")) == {
        "type": "BadInput",
        "message": "days: bad. Mend it",
        "field": "days",
        "remedy": "Mend it",
    }
    assert as_document(ToldError("Unreachable", "gone", 3))["type"] == "Unreachable"


class StateOfRun:
    def __init__(self, name, message):
        self.name, self.message = name, message

    def is_completed(self):
        return self.name == "Recovered"


@pytest.mark.parametrize(
    ("name", "message", "code"),
    [
        ("Recovered", "", 0),
        ("Refused", "recovery 00: refused on db1: no. Do.", 5),
        ("Refused", "recovery 00: days: bad. Mend it", 2),
        ("Needs person", "who?", 4),
        ("Half done", "mend", 4),
        ("Failed", "no", 3),
        ("Crashed", "killed", 3),
    ],
)
def test_a_state_of_a_run_stands_for_an_exit_code(journal, name, message, code):
    ended = ended_of(StateOfRun(name, message), "00", "")

    assert exit_code_of(ended.error) == code


def test_the_journal_knows_better_than_the_state_what_the_error_was(failed):
    ended = ended_of(StateOfRun("Refused", "refused on db1: no."), failed, "run")

    assert exit_code_of(ended.error) == errors.ExitCode.BAD_INPUT


def test_a_broken_module_of_flows_is_told_about_and_the_others_are_offered(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "broken_on_purpose.py").write_text("import no_such_module")
    monkeypatch.setattr(flows, "__path__", [*flows.__path__, str(tmp_path)])

    known = catalogue.recoveries()

    assert "move-grafana-to-mysql" in known
    assert "flows.broken_on_purpose is left out" in caplog.text


def test_names_for_completion_are_those_that_are_declared():
    read = catalogue.declared_names()

    for name, parameters in read.items():
        assert list(catalogue.recoveries()[name].parameters) == parameters
    assert recovery_names("move-") == [name for name in read if name.startswith("move-")]


def test_completion_says_nothing_where_there_is_no_journal(monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", "redis://nowhere")

    assert recovery_ids("") == []


@pytest.mark.parametrize(
    ("step", "how", "told"),
    [
        ("load[c]", "redo", "has no step 'load[c]'. Did you mean 'load["),
        ("load[a]", "redo", "load[a] (act) is done since"),
        ("load[a]", "abandon", "load[a] (act) is done since"),
        ("served", "done", "served (verify) is failed"),
    ],
)
def test_a_step_that_needs_no_settling_is_not_settled(journal, failed, step, how, told):
    before = journal.head(failed)

    with pytest.raises(BadInput) as refused:
        settle(journal, failed, step, Settlement(how), by="Ada", reason="so")

    assert told in str(refused.value)
    assert journal.head(failed) == before


@pytest.mark.parametrize(
    ("step", "how"), [("load[b]", "done"), ("load[b]", "redo"), ("served", "abandon")]
)
def test_a_step_in_doubt_is_settled_and_the_target_is_free_again(journal, failed, step, how):
    settle(journal, failed, step, Settlement(how), by="Ada", reason="looked")

    last = journal.events(failed)[-1]
    assert (last.kind, last.step, last.epoch) == (Kind.RESOLVED, step, 0)
    assert last.body == {"as": how, "by": "Ada", "reason": "looked"}
    assert journal.holder("db1") is None


def test_a_recovery_that_is_held_is_not_settled(journal, failed):
    journal.take_lease("db1", failed, "elsewhere:1", 5.0)

    with pytest.raises(Refused, match="elsewhere:1"):
        settle(journal, failed, "load[b]", Settlement.DONE, by="Ada", reason="so")


def test_a_recovery_of_another_release_is_named(failed):
    ended = run("resume", failed, "--json")

    assert ended.exit_code == 2
    document = json.loads(ended.stdout)
    assert "there is no recovery 'gone'" in document["error"]["message"]
    assert document["id"] == failed


@pytest.fixture
def recovered(journal):
    """The id of a recovery that decided, looked, and came to a result."""
    recovery_id, about = "ba9876543210", {"kind": "act", "target": "db1"}
    opened = {"format": 1, "flow": "cure", "target": "db1", "danger": "destructive"}
    due = {"kind": "decision", "value": {"finding": "not-running", "saw": "inactive (dead)"}}
    journal.append(recovery_id, Kind.OPENED, opened)
    journal.append(recovery_id, Kind.ATTEMPT_STARTED, {"flow_run_id": "run"}, attempt=1)
    journal.append(recovery_id, Kind.DECIDED, due, step="cure_due", attempt=1)
    journal.append(recovery_id, Kind.INTENDED, about, step="start", attempt=1)
    journal.append(recovery_id, Kind.DONE, {"how": "acted"}, step="start", attempt=1)
    saw = {"kind": "probe", "saw": "Notes()", "value": ["3 sessions"]}
    journal.append(recovery_id, Kind.SAW, saw, step="for_l3", attempt=1)
    ended = {"as": "recovered", "result": {"finding": "not-running", "notes": ["3 sessions"]}}
    journal.append(recovery_id, Kind.ATTEMPT_ENDED, ended, attempt=1)
    return recovery_id


def test_status_tells_what_the_steps_found_and_what_came_of_it(recovered):
    lines = run("status", recovered).stdout.splitlines()

    assert "  cure_due  finding: not-running, saw: inactive (dead)" in lines
    assert "  for_l3  3 sessions" in lines
    assert lines[lines.index("outcome") :][:3] == [
        "outcome", "  finding: not-running", "  notes: 3 sessions",
    ]  # fmt: skip


def test_the_end_of_a_run_is_told_in_short(journal, failed):
    text = shown(screens.show_summary, status_of(journal, failed))

    assert "load[b]" in text
    assert "load[a]" not in text
    assert f"3 steps: 1 done, 1 in-doubt, 1 failed; 1 attempt; `recover status {failed}`" in text


def test_of_a_recovery_at_work_no_total_is_claimed(failed):
    assert run("status").stdout.splitlines()[1].split()[-1] == "1"


@pytest.mark.parametrize("how", [("--approve", "0" * 16), ("--break-glass", "it burns")])
def test_consent_is_given_by_name(recovered, how):
    for command in (("run", "recover-redis", "--set", "host=h"), ("resume", recovered)):
        ended = run(*command, *how)

        assert (ended.exit_code, ended.stdout) == (2, "")
        assert f"--by: {how[0]} is given by name" in ended.stderr


def test_a_refused_command_that_came_to_nothing_prints_its_sentence_alone(
    journal, recovered, capsys
):
    answer = Answer(as_json=False, debug=False)
    answer.known(recovered)

    assert answer.fail(NeedsPerson("db1", "it was recovered", "Type this instead")) == 4

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "needs a person: db1: it was recovered. Type this instead.\n"


def test_a_refused_undo_prints_its_sentence_alone(journal, recovered, capsys):
    answer = Answer(as_json=False, debug=False, goes_back=True)
    answer.known(recovered)
    ended = {"as": "refused", "error": "refused on db1: nothing to undo."}
    journal.append(recovered, Kind.ATTEMPT_STARTED, {"goes": "back"}, attempt=2)
    journal.append(recovered, Kind.ATTEMPT_ENDED, ended, attempt=2)

    answer.fail(Refused("db1", "nothing to undo", "See its report"))

    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "refused on db1: nothing to undo. See its report.\n")


def test_a_plan_that_failed_is_made_again_and_nothing_is_resumed(monkeypatch):
    def gone(*_):
        raise Unreachable("db1", "log in", "no route")

    monkeypatch.setattr(runs, "launch", gone)

    ended = run("plan", "recover-redis", "--set", "host=ssh://root@h")

    told = ended.stderr.splitlines()
    assert told[-2].endswith("can be reached from this worker, then try again.")
    assert told[-1] == "next: mend that, then `recover plan recover-redis` again"


BACK = ("--by", "Ada")


@pytest.mark.parametrize(
    ("command", "more", "following"),
    [
        ("resume", (), "recover resume ID"),
        ("resume", ("--worker",), "recover status ID"),
        ("undo", BACK, "recover undo ID --by NAME"),
        ("undo", (*BACK, "--break-glass", "why"), "recover undo ID --by NAME --break-glass REASON"),
        ("undo", (*BACK, "--reason", "why"), "recover undo ID --by NAME --reason TEXT"),
        ("undo", (*BACK, "--worker"), "recover status ID"),
        ("undo", ("--plan",), "recover undo ID --plan"),
    ],
)
def test_ctrl_c_says_how_to_go_on_the_same_way(failed, monkeypatch, command, more, following):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(orders, "order_to_resume", lambda *_: None)
    monkeypatch.setattr(runs, "carry_out", interrupted)
    monkeypatch.setattr(runs, "plan", interrupted)

    ended = run(command, failed, *more)

    assert ended.exit_code == 130
    assert ended.stderr.splitlines()[-1] == f"next: `{following.replace('ID', failed)}`"


def test_doctor_refuses_hosts_that_are_none():
    for hosts, told in (("", "HOSTS: it is empty"), ("?keyfile=x", "bad input: hosts: ")):
        ended = run("doctor", hosts)

        assert ended.exit_code == 2
        assert told in ended.stderr


def test_status_is_shown_to_people_with_what_to_do_next(failed):
    ended = run("status", failed[:4])

    assert ended.exit_code == 0
    assert "load[b]" in ended.stdout
    assert "next: " in ended.stdout


def test_the_broken_pair_of_packages_is_found(monkeypatch):
    for fastapi, health in [("0.150.0", "ok"), ("0.154.9", "ok"), ("0.155.0", "bad")]:
        versions = {"prefect": "3.8.8", "fastapi": fastapi}
        monkeypatch.setattr(doctor, "_installed", versions.get)
        found = {finding.name: finding for finding in doctor.examine()}["packages"]
        assert (fastapi, found.health) == (fastapi, health)


def test_what_is_wrong_on_the_machine_is_found_with_a_remedy(journal, monkeypatch, tmp_path):
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "90")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_DEFAULT_RESULT_STORAGE_BLOCK", "s3/x")
    monkeypatch.setenv("PATH", str(tmp_path))

    ended = run("doctor", "--json")

    found = {row["name"]: row for row in json.loads(ended.stdout)["findings"]}
    assert ended.exit_code == 3
    for name in ("RECOVER_LEASE_SECONDS", "PREFECT_API_URL", "client of MySQL or MariaDB"):
        assert found[name]["health"] == "bad"
        assert found[name]["remedy"]
    assert found["PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"]["health"] == "note"
    assert found["journal"]["health"] == "ok"
    assert journal.recovery_ids() == []


def test_a_clock_behind_the_journal_is_found(journal, failed, monkeypatch):
    class Earlier(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2020, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(doctor, "datetime", Earlier)

    found = {finding.name: finding for finding in doctor.examine()}["clock"]

    assert found.health == "bad"


def shown(show, plain, width=10_000):
    out = StringIO()
    show(Console(file=out, width=width, highlight=False), plain)
    return out.getvalue()


def test_a_plan_keeps_its_commands_in_one_piece_on_a_narrow_terminal():
    command = "mariadb-dump --result-file=dump.sql " + " ".join(f"table_{n}" for n in range(50))
    step = {
        "key": "load[t]",
        "kind": "act",
        "target": "db1",
        "danger": "destructive",
        "commands": [command],
    }
    plan = {"hash": "ab", "flow": "f", "target": "db1", "refusals": ["no"], "steps": [step]}

    text = shown(screens.show_plan, plan, width=40)

    assert command in text
    assert "DESTRUCTIVE" in text
    assert text.endswith("REFUSED no\n")


def planned(**more):
    act = {"key": "start", "kind": "act", "target": "db1", "danger": "change", "commands": []}
    look = {"key": "cure_due", "kind": "decision", "found": "saw: inactive (dead)", "commands": []}
    steps = [look, {**act, **more}]
    return {"hash": "ab", "flow": "f", "target": "db1", "refusals": [], "steps": steps}


def test_a_plan_shows_what_was_found_and_the_first_line_of_a_long_command():
    plan = planned(commands=["sh -c 'set -eu\ncp a b\nsync'", "systemctl start x"])

    text = shown(screens.show_plan, plan)

    assert "decision cure_due  saw: inactive (dead)" in text
    assert "… 2 more lines (--full shows them)" in text
    assert "cp a b" not in text
    assert "cp a b" in shown(partial(screens.show_plan, is_full=True), plan)


def test_a_plan_tells_the_way_back_that_is_mostly_not_needed_from_what_will_be_done():
    plan = planned(commands=["start"])
    back = {**plan["steps"][1], "key": "stop", "only_if": "it does not come up"}
    plan["steps"].append({**back, "commands": ["stop"]})

    text = shown(screens.show_plan, plan)

    assert "act stop on db1  change, only if it does not come up" in text
    assert "1 of 2 acts to do, 1 more only if needed, 1 commands; nothing was changed" in text


def test_a_plan_with_nothing_to_do_says_that_it_is_well():
    text = shown(screens.show_plan, planned(is_already_so=True))

    assert "it is well: nothing to do" in text
    assert "saw: inactive (dead)" in text


def test_a_step_back_that_several_acts_share_is_told_for_each():
    out = StringIO()
    acts = [SimpleNamespace(key="renew[a]"), SimpleNamespace(key="drop[a]")]
    step = SimpleNamespace(kind="undo")
    back = SimpleNamespace(key="undo renew[a]", step=step, undoes=acts, outcome=None)
    stage = SimpleNamespace(put_on=lambda _: None)

    ToldStage(stage, Progress(console=Console(file=out))).put_on(back)

    assert [line.split()[-1] for line in out.getvalue().splitlines()] == ["renew[a]", "drop[a]"]


def test_progress_off_a_terminal_is_plain_lines():
    out = StringIO()
    progress = Progress(console=Console(file=out, highlight=False))

    with progress.shown("looking"):
        progress.began("load[a]")
        progress.ended("load[a]", "Already so", 1.5)
        progress.note("[bold]as it is[/bold]")

    assert out.getvalue() == "Already so        1.50 s  load[a]\n[bold]as it is[/bold]\n"
