"""Consent that is asked for by a form: answered, not answered, cut off between any two events."""

import contextlib
import itertools
from dataclasses import replace

import pytest
import yaml

import recovery.launch
from operate.approving import Consent, question_of, say
from recovery.approval.proof import code_for, key_line
from recovery.approval.question import Answer, Decision
from recovery.approval.question_markdown import question_markdown
from recovery.commands import changing
from recovery.errors import BadInput, CommandFailed, NeedsPerson, Refused
from recovery.evidence.report import markdown_report
from recovery.journal.events import flaws
from recovery.journal.history import RecoveryState, read_history
from recovery.journal.opening import open_journal
from recovery.launch import launch
from recovery.run import Options, Recovery, Run
from recovery.secrecy.secret import Secret
from recovery.stage import PlainStage
from recovery.steps import act, decision, undo
from recovery.verdict import Danger
from tests.unit.engine_lab import Form

RUN = "00000000-0000-7000-8000-00000000abcd"
ID = "00000000abcd"
TOKEN = "a token of some length"  # noqa: S105 (of this test alone)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may catch it."""


class CutJournal:
    """Ends the run before or after its n-th event."""

    def __init__(self, journal, when, n):
        self.journal, self.when, self.n = journal, when, n
        self.numbers = itertools.count(1)

    def __getattr__(self, name):
        return getattr(self.journal, name)

    def append(self, *args, **kwargs):
        is_it = next(self.numbers) == self.n
        if is_it and self.when == "before":
            raise Killed
        event = self.journal.append(*args, **kwargs)
        if is_it:
            raise Killed
        return event


class Wiped:
    """A recovery that wipes names, and its runs on one worker after the other."""

    def __init__(self, path):
        self.path = path
        self.form = Form()
        self.there = {"a"}
        self.wiped = []
        self.fails = False

        @undo
        def put_back(name: str) -> None:
            with changing(f"put back {name}", "lab"):
                self.there.add(name)

        @act(
            commands=lambda name: [f"wipe {name}"],
            done_when=lambda name: name not in self.there,
            undo=put_back,
            each=("name",),
            danger=Danger.DESTRUCTIVE,
        )
        def wipe(name: str) -> None:
            with changing(f"wipe {name}", "lab"):
                self.there.discard(name)
                self.wiped.append(name)
            if self.fails:
                raise CommandFailed("lab", f"wipe {name}", 1, "no")

        @decision
        def due() -> list[str]:
            return sorted(self.there)

        def flow():
            for name in due():
                wipe(name)

        self.recovery = Recovery("wipe", flow, "", (), Danger.DESTRUCTIVE, lambda: "lab", {})

    def run(self, *, run_id=RUN, form=True, **options):
        form = self.form if form else None
        return launch(self.recovery, {}, Options(**options), PlainStage((0.0,)), run_id, form)

    def cut(self, monkeypatch, when, n):
        """Run it, killed at its n-th event; return whether it came to that."""
        with monkeypatch.context() as patched:
            journal = CutJournal(open_journal(str(self.path)), when, n)
            patched.setattr(recovery.launch, "open_journal", lambda: journal)
            try:
                self.run()
            except Killed:
                return True
            return False

    def answer(self, **given):
        """Answer the latest question."""
        asked = self.history.consents.asked
        answer = {
            "plan_hash": asked.plan_hash,
            "decision": Decision.APPROVE,
            "approver": "Ada",
            "confirm": "lab",
            "reason": "",
            **given,
        }
        self.form.answers[asked.key] = Answer(**answer)
        return asked

    def events(self, kind):
        with contextlib.closing(open_journal(str(self.path))) as journal:
            events = journal.events(ID)
            assert flaws(events, *journal.head(ID)) == []
            return [event.body for event in events if event.kind == kind]

    @property
    def history(self):
        with contextlib.closing(open_journal(str(self.path))) as journal:
            return read_history(journal.events(ID))


@pytest.fixture
def wiped(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.delenv("RECOVER_APPROVERS", raising=False)
    return Wiped(tmp_path / "journal.sqlite")


@pytest.fixture
def rules(tmp_path, monkeypatch):
    def write(**content):
        (tmp_path / "approvers.yaml").write_text(yaml.safe_dump(content))
        monkeypatch.setenv("RECOVER_APPROVERS", str(tmp_path / "approvers.yaml"))

    return write


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("n", range(1, 12))
def test_a_worker_killed_at_any_event_of_consent_neither_acts_without_nor_asks_for_nothing(
    wiped, monkeypatch, when, n
):
    """Goal: consent is found again, counted once, and never made up.

    Method: cut the run at its n-th event, before it was asked, while the question is written, and
    when the answer is taken in; each time it is retried as the UI does, under the same id.
    """
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "1.5")  # the next one waits for its end
    was_cut = wiped.cut(monkeypatch, when, n)  # up to the question
    first = wiped.run() if was_cut else None
    assert wiped.wiped == []
    wiped.answer()
    wiped.cut(monkeypatch, when, n)  # from the answer to the end

    ended = wiped.run()

    assert first is None or isinstance(first.error, NeedsPerson)
    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert wiped.wiped == ["a"]
    assert len(wiped.history.approvals) == 1


def test_what_is_answered_counts_for_its_question_alone(wiped):
    wiped.run()
    wiped.answer(plan_hash="f" * 16)
    wiped.run()
    again = wiped.history.consents.asked
    wiped.run()  # a retry before anybody has answered

    assert "answered about plan" in again.why
    assert wiped.history.consents.asked.key != again.key
    assert wiped.wiped == []
    assert len(wiped.form.answers) == 1
    assert wiped.form.reads.count(next(iter(wiped.form.answers))) == 1


def test_consent_to_a_plan_that_changed_is_void_and_the_difference_is_named(wiped):
    wiped.run()
    wiped.answer()
    wiped.there.add("b")

    ended = wiped.run()

    assert "changed: wipe[b] was None, is now ['wipe b']" in str(ended.error)
    assert ended.question.given == ()
    assert wiped.wiped == []


def test_a_no_from_a_terminal_ends_the_run_that_is_woken_by_it(wiped, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    wiped.run()
    asked = wiped.history.consents.asked
    with contextlib.closing(open_journal(str(wiped.path))) as journal:
        said = say(journal, ID, Consent(asked.plan_hash, "Grace", "not tonight", rejects=True))
    wiped.answer(decision=Decision.LOOK_AGAIN, confirm="")

    ended = wiped.run()

    assert "look-again" in said["next"]
    assert isinstance(ended.error, Refused)
    assert "Grace rejected plan" in str(ended.error)
    assert wiped.wiped == []


def test_a_no_that_comes_while_the_plan_is_looked_at_again_is_heard(wiped, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    wiped.run()
    asked, make_plan = wiped.answer(), Run.make_plan

    def meanwhile(run, *given):
        with contextlib.closing(open_journal(str(wiped.path))) as journal:
            say(journal, ID, Consent(asked.plan_hash, "Grace", "not tonight", rejects=True))
        return make_plan(run, *given)

    monkeypatch.setattr(Run, "make_plan", meanwhile)

    ended = wiped.run()

    assert isinstance(ended.error, Refused)
    assert "Grace rejected plan" in str(ended.error)
    assert wiped.wiped == []


def test_a_question_is_answered_though_another_run_has_asked_since(wiped):
    wiped.run()
    asked = wiped.answer()
    elsewhere = wiped.run(run_id="00000000-0000-7000-8000-000000001234", form=False, resume=ID)

    ended = wiped.run()

    assert isinstance(elsewhere.error, NeedsPerson)
    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert asked.key in wiped.history.consents.settled


def test_a_proven_name_wants_its_code_in_the_form_and_at_the_terminal(wiped, rules, tmp_path):
    line, token = tmp_path / "ada", tmp_path / "token"
    line.write_text(key_line("Ada", Secret(TOKEN)).reveal())
    token.write_text(TOKEN)
    line.chmod(0o600), token.chmod(0o600)
    rules(approvers={"Ada": {"proof_file": str(line)}})
    wiped.run()
    asked = wiped.answer(code="0" * 24)
    doubted = wiped.run()
    with (
        contextlib.closing(open_journal(str(wiped.path))) as journal,
        pytest.raises(BadInput, match="prove"),
    ):
        say(journal, ID, Consent(asked.plan_hash, "ada"))
    wiped.answer(
        code=code_for(
            key_line("Ada", Secret(TOKEN)), ID, asked.plan_hash, wiped.history.consents.asked.key
        )
    )

    ended = wiped.run()

    assert asked.proven == ("Ada",)
    assert "did not prove that name" in str(doubted.error)
    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert TOKEN not in wiped.path.read_bytes().decode("utf-8", "replace")


def test_consent_from_a_terminal_alone_lets_a_resume_go_on(wiped, rules):
    rules(approvers={"Ada": {}, "Grace": {}}, rules=[{"danger": "destructive", "needs": 2}])
    wiped.run(form=False)
    with contextlib.closing(open_journal(str(wiped.path))) as journal:
        asked = question_of(journal, ID)
        first = say(journal, ID, Consent(asked["plan_hash"], "Ada"))
        same = say(journal, ID, Consent(asked["plan_hash"], "ada"))
        second = say(journal, ID, Consent(asked["plan_hash"], "Grace", "it is old"))
        with pytest.raises(BadInput, match="no plan"):
            say(journal, ID, Consent("f" * 16, "Ada"))
        with pytest.raises(BadInput, match="no approver"):
            say(journal, ID, Consent(asked["plan_hash"], "Eve"))

    ended = wiped.run(run_id="00000000-0000-7000-8000-000000001234", form=False, resume=ID)

    assert asked["plan"]["steps"][-1]["commands"] == ["wipe a"]
    assert (first["missing"], same["missing"], second["missing"]) == (1, 1, 0)
    assert second["next"] == f"`recover resume {ID}`"
    assert ended.state is RecoveryState.RECOVERED, ended.error
    assert len(wiped.history.approvals) == 2
    with contextlib.closing(open_journal(str(wiped.path))) as journal:
        with pytest.raises(Refused, match="come to its end"):
            say(journal, ID, Consent(asked["plan_hash"], "Ada"))
        report = markdown_report(journal, ID)
    assert "by Grace" in report
    assert "it is old" in report


def test_going_back_on_a_worker_wants_consent_with_a_reason_and_on_a_terminal_an_order(wiped):
    wiped.run(break_glass="a drill", approved_by="Ada")
    back = {"resume": ID, "undo_by": "Ada", "run_id": "00000000-0000-7000-8000-000000001234"}
    wiped.run(**back)
    asked = wiped.answer()
    without = wiped.run(**back)
    wiped.answer(reason="it was not so old")

    ended = wiped.run(**back)

    assert asked.goes_back
    assert asked.plan["steps"][0]["key"] == "undo wipe[a]"
    assert "gave no reason" in str(without.error)
    assert ended.state is RecoveryState.UNDONE, ended.error
    assert wiped.there == {"a"}


def test_the_plan_of_a_way_back_has_the_hash_that_is_asked_about_and_asks_nobody(wiped):
    wiped.run(break_glass="a drill", approved_by="Ada")
    back = {"resume": ID, "undo_by": "Ada", "run_id": RUN[:-1] + "e"}

    planned = wiped.run(**back, plan_only=True)

    assert planned.question is None
    assert wiped.history.consents.asked is None
    asking = wiped.run(**back)
    asked = wiped.history.consents.asked
    assert planned.plan.hash == asked.plan_hash
    assert planned.plan.as_plain()["steps"] == asked.plan["steps"]
    assert asking.question.planned["steps"] == asked.plan["steps"]
    assert wiped.there == set()


def test_who_consents_to_a_way_back_is_shown_what_it_would_leave(wiped):
    wipes, gone = wiped.recovery.fn, set()

    @act(commands=lambda: ["shred"], done_when=lambda: "b" in gone)
    def shred() -> None:
        with changing("shred", "lab"):
            gone.add("b")

    wiped.recovery = replace(wiped.recovery, fn=lambda: (wipes(), shred()))
    wiped.run(break_glass="a drill", approved_by="Ada")

    ended = wiped.run(resume=ID, undo_by="Ada", run_id=RUN[:-1] + "e")

    assert "- stays: shred on lab" in question_markdown(ended.question)


def test_two_persons_are_needed_to_go_back_from_a_terminal_where_the_rule_says_so(wiped, rules):
    rules(approvers={"Ada": {}, "Grace": {}}, rules=[{"danger": "destructive", "needs": 2}])
    wiped.fails = True  # so that it is not in use
    wiped.run(form=False, break_glass="a drill", approved_by="Ada")
    back = {"form": False, "resume": ID, "undo_by": "Ada", "run_id": RUN[:-1] + "e"}
    alone = wiped.run(**back)
    asked = wiped.history.consents.asked
    with contextlib.closing(open_journal(str(wiped.path))) as journal:
        say(journal, ID, Consent(asked.plan_hash, "Grace", "it is old"))

    ended = wiped.run(**back)

    assert isinstance(alone.error, NeedsPerson)
    assert "1 of 2 approvals" in str(alone.error)
    assert ended.state is RecoveryState.UNDONE, ended.error


def test_who_orders_the_way_back_is_not_the_other_person_that_the_rule_wants(wiped, rules):
    rules(
        approvers={"Ada": {}, "Grace": {}},
        rules=[{"danger": "destructive", "requester_suffices": False}],
    )
    wiped.run(form=False, requested_by="Bob", break_glass="a test", approved_by="Ada")
    undo = {"resume": ID, "undo_by": "Ada"}

    wiped.run(run_id="back", **undo)
    wiped.answer(reason="users complain")
    alone = wiped.run(run_id="back", **undo)

    assert isinstance(alone.error, NeedsPerson)
    assert "Ada asked for it, so another one must consent too" in str(alone.error)
    assert wiped.there == set()
    wiped.answer(approver="Grace", reason="users complain")
    assert wiped.run(run_id="back", **undo).state is RecoveryState.UNDONE


def test_what_it_takes_is_not_less_on_a_machine_without_the_file(wiped, rules, monkeypatch):
    rules(approvers={"Ada": {}, "Grace": {}}, rules=[{"danger": "destructive", "needs": 2}])
    wiped.run()
    plan_hash = wiped.history.consents.asked.plan_hash
    monkeypatch.delenv("RECOVER_APPROVERS")
    order = {"resume": ID, "approve": plan_hash, "form": False}

    stranger = wiped.run(run_id="b", approved_by="Mallory", **order)
    alone = wiped.run(run_id="c", approved_by="Ada", **order)

    for ended in (stranger, alone):
        assert isinstance(ended.error, NeedsPerson), ended
    assert "Mallory is no approver of it" in str(stranger.error)
    assert wiped.wiped == []
    assert wiped.run(run_id="d", approved_by="Grace", **order).state is RecoveryState.RECOVERED


def test_a_name_is_not_taken_as_it_is_where_nothing_is_there_to_prove_it_by(
    wiped, rules, tmp_path, monkeypatch
):
    kept = tmp_path / "ada"
    kept.write_text(key_line("Ada", Secret(TOKEN)).reveal())
    kept.chmod(0o600)
    rules(approvers={"Ada": {"proof_file": str(kept)}}, rules=[{"danger": "destructive"}])
    wiped.run()
    plan_hash = wiped.history.consents.asked.plan_hash
    monkeypatch.delenv("RECOVER_APPROVERS")

    ended = wiped.run(run_id="b", form=False, resume=ID, approve=plan_hash, approved_by="Ada")

    assert "Ada did not prove that name" in str(ended.error)
    assert wiped.wiped == []


def test_who_is_no_approver_takes_nothing_back_from_a_terminal(wiped, rules):
    rules(approvers={"Ada": {}}, rules=[{"danger": "destructive", "needs": 1, "of": ["Ada"]}])
    wiped.fails = True  # so that it is not in use
    wiped.run(form=False, break_glass="a drill", approved_by="Ada")
    back = {"form": False, "resume": ID}

    refused = wiped.run(**back, undo_by="Mallory", run_id=RUN[:-1] + "e")
    ended = wiped.run(**back, undo_by="Ada", run_id=RUN[:-1] + "f")

    assert isinstance(refused.error, NeedsPerson)
    assert "Mallory is no approver of it" in str(refused.error)
    assert ended.state is RecoveryState.UNDONE, ended.error


def test_going_back_without_consent_is_told_with_its_reason(wiped):
    wiped.run(break_glass="a drill", approved_by="Ada")

    wiped.run(
        form=False, resume=ID, run_id=RUN[:-1] + "e", undo_by="Grace", break_glass="wrong rows"
    )

    with contextlib.closing(open_journal(str(wiped.path))) as journal:
        report = markdown_report(journal, ID)
    assert wiped.there == {"a"}
    assert "wrong rows" in report


def test_the_question_shows_commands_whole_and_leaves_nothing_to_markdown(wiped):
    wiped.there = {"a", "<img src=x>", "`b`\n```\n# c"}

    question = wiped.run().question
    whole, cut = question_markdown(question), question_markdown(question, 200)

    assert "````text\nwipe `b`\n```\n# c\n````" in whole
    as_code = ("wipe <img src=x>", "`wipe[<img src=x>]`")
    assert "<img" not in whole.replace(as_code[0], "").replace(as_code[1], "")
    assert whole.startswith("**Acts to be done: 3, 3 of them destructive**: scroll, or read all")
    assert whole.index("What it would do") < whole.index("What was found")
    assert question.asked.plan_hash in cut
    assert "more steps are not shown here" in cut


def test_what_is_already_so_stands_in_one_line_behind_what_is_to_be_done(wiped):
    wiped.there = {"a", "b", "c"}
    question = wiped.run().question
    first, *others = [one for one in question.planned["steps"] if one["kind"] == "act"]
    for one in others:
        one["is_already_so"] = True

    told = question_markdown(question)

    assert told.startswith("**Acts to be done: 1, 1 of them destructive**")
    line = f"Already so, nothing to do (2): `{others[0]['key']}`, `{others[1]['key']}`"
    assert told.index(first["commands"][0]) < told.index(line) < told.index("What was found")
