"""Consent to a way back: to the steps back that were shown, at the state they were shown in."""

import contextlib

import pytest
import yaml

from operate.approving import Consent, say
from recovery import launch
from recovery.approval.question import Answer, Decision
from recovery.approval.question_markdown import question_markdown
from recovery.commands import changing
from recovery.errors import BadInput, NeedsPerson, Refused
from recovery.evidence.report import markdown_report
from recovery.evidence.status import status_of
from recovery.journal.opening import open_journal
from recovery.notices import ending
from recovery.steps import act, probe, undo
from tests.unit.engine_lab import Form, down, fails_once, taken_back
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)
from tests.unit.test_consent import CutJournal, Killed

RUN = "00000000-0000-7000-8000-00000000bac0"
EVENTS_OF_UNDO = 6


class Worker:
    """Orders the way back of a recovery as a worker does, and answers what it asks."""

    def __init__(self, lab, flow, recovery_id):
        self.lab, self.flow, self.recovery_id = lab, flow, recovery_id
        self.form = Form()

    def undo(self, **options):
        terms = {"run_id": RUN, "undo_by": "Bob", "resume": self.recovery_id, **options}
        return self.lab.run(self.flow, form=self.form, **terms)

    @property
    def asked(self):
        return self.lab.history(self.recovery_id).consents.asked

    def answer(self, asked=None, approver="Ada"):
        asked = asked or self.asked
        given = Answer(asked.plan_hash, Decision.APPROVE, approver, "users complain", "lab")
        self.form.answers[asked.key] = given

    def consent(self, plan_hash, by="Ada", reason="users complain", **more):
        """Consent by `recover approve`."""
        with contextlib.closing(open_journal(str(self.lab.path))) as journal:
            return say(journal, self.recovery_id, Consent(plan_hash, by, reason, **more))


@pytest.fixture
def failed(lab):
    """A recovery that has done its only act, and failed once behind it."""
    one, check = taken_back(lab, "one"), fails_once(down())

    def flow():
        one(), check()

    return Worker(lab, flow, lab.run(flow).recovery_id)


@pytest.fixture(autouse=True)
def no_file_of_approvers(monkeypatch):
    monkeypatch.delenv("RECOVER_APPROVERS", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def test_consent_to_a_way_back_does_not_outlive_an_attempt_that_went_forward(lab, failed):
    failed.undo()
    before = failed.asked
    failed.consent(before.plan_hash)
    assert lab.run(failed.flow, resume=failed.recovery_id).state == "recovered"

    ended = failed.undo()

    assert isinstance(ended.error, NeedsPerson)
    assert "it was recovered at" in failed.asked.why
    assert failed.asked.plan_hash != before.plan_hash
    assert lab.there == {"one"}


def test_consent_to_dropping_one_thing_is_none_to_dropping_another(lab):
    made, dropped = iter(["first", "second"]), []

    @undo
    def drop(result: str) -> None:
        with changing(f"drop {result}", "lab"):
            dropped.append(result)
            lab.there.clear()

    @act(
        commands=lambda: ["create"],
        done_when=lambda: bool(lab.there),
        expected=lambda: "foretold",
        undo=drop,
    )
    def create() -> str:
        with changing("create", "lab"):
            name = next(made)
            lab.there.add(name)
        if name == "first":
            raise down()
        return name

    worker = Worker(lab, create, lab.run(create).recovery_id)
    worker.undo()
    shown = worker.asked.plan["steps"][0]["commands"]
    worker.consent(worker.asked.plan_hash)
    lab.there.clear()
    assert lab.run(create, resume=worker.recovery_id).state == "recovered"

    ended = worker.undo()

    assert shown == ["drop: result: foretold"]
    assert isinstance(ended.error, NeedsPerson)
    assert worker.asked.plan["steps"][0]["commands"] == ["drop: result: second"]
    assert dropped == []


def test_an_answer_to_a_way_back_that_another_recovery_overtook_is_void_and_that_is_told(
    lab, failed
):
    failed.undo()
    before = failed.asked
    later = lab.run(taken_back(lab, "mend"), name="other")
    failed.answer(before)

    ended = failed.undo()

    assert isinstance(ended.error, NeedsPerson)
    (overtaken,) = failed.asked.plan["wants_reason"]
    assert f"recovery {later.recovery_id} (other) has changed it since" in overtaken
    assert f"plan {before.plan_hash} was approved" in failed.asked.why
    assert lab.there == {"one", "mend"}
    failed.answer()
    assert failed.undo().state == "undone"


def test_consent_to_a_way_back_holds_over_more_acts_of_a_flow_that_was_shown(lab, failed, caplog):
    lab.run(lab.make("saved"), name="back-up")
    failed.undo()
    before = failed.asked
    again = lab.run(lab.make("saved again"), name="back-up")  # by a schedule
    failed.answer(before)

    assert failed.undo().state == "undone"
    assert failed.asked == before
    assert f"recovery {again.recovery_id} (back-up) has changed it since" in caplog.text


@pytest.mark.parametrize("is_of_another_flow", [True, False])
def test_consent_to_a_way_back_is_void_over_what_was_not_shown(lab, failed, is_of_another_flow):
    """Goal: nobody consents to putting back what they were told nothing of.

    Method: after the answer another flow acts, or one that was shown as acting goes halfway back.
    """
    flow = taken_back(lab, "saved")
    shown = lab.run(flow, name="back-up")
    failed.undo()
    before = failed.asked
    if is_of_another_flow:
        lab.run(lab.make("mend"), name="mending")
    else:
        lab.answers["take saved"] = down()
        back = {"resume": shown.recovery_id, "undo_by": "me", "break_glass": "the wrong one"}
        assert lab.run(flow, name="back-up", **back).state == "needs-person"
    failed.answer(before)

    ended = failed.undo()

    assert isinstance(ended.error, NeedsPerson)
    assert f"plan {before.plan_hash} was approved" in failed.asked.why
    assert "one" in lab.there


def test_what_was_said_to_stay_is_not_taken_back_by_another_release_under_the_same_consent(lab):
    two = taken_back(lab, "two")
    releases = [lab.make("one"), taken_back(lab, "one")]

    def flow():
        releases[0](), two()

    worker = Worker(lab, flow, lab.run(flow).recovery_id)
    worker.undo()
    worker.answer()
    releases.pop(0)

    ended = worker.undo()

    assert isinstance(ended.error, NeedsPerson)
    assert lab.there == {"one", "two"}


def test_a_question_about_a_way_back_takes_no_consent_once_an_attempt_went_forward(lab, failed):
    failed.undo()
    lab.run(failed.flow, resume=failed.recovery_id)

    with pytest.raises(Refused, match="gone forward since"):
        failed.consent(failed.asked.plan_hash)


def test_what_is_asked_anew_after_an_attempt_went_forward_is_ordered_with_a_reason(
    lab, failed, monkeypatch, rule_of_two
):
    id_ = failed.recovery_id
    lab.run(failed.flow, resume=id_, undo_by="Ada")
    monkeypatch.delenv("RECOVER_APPROVERS")
    assert lab.run(failed.flow, resume=id_).state == "recovered"

    with pytest.raises(Refused) as refused:
        failed.consent(failed.asked.plan_hash)

    assert f"`recover undo {id_} --by NAME --reason TEXT` asks anew" in refused.value.remedy


@pytest.mark.parametrize("name", ["undo_reason", "break_glass"])
def test_a_reason_of_blanks_is_none(lab, name):
    one = taken_back(lab, "one")
    recovery_id = lab.run(one).recovery_id

    ended = lab.run(one, resume=recovery_id, undo_by="Bob", **{name: " \t"})

    assert isinstance(ended.error, NeedsPerson)
    assert lab.there == {"one"}


def test_consent_covers_the_way_back_that_failed_halfway_and_is_gone_on_with(lab):
    copies = []

    @undo
    def take(result: str) -> None:
        with changing(f"unmake {result}", "lab"):
            copies.remove(result)

    @act(
        commands=lambda: ["copy"],
        done_when=lambda: bool(copies),
        expected=lambda: copies[-1] if copies else "none is there",
        undo=take,
    )
    def copy() -> str:
        with changing("copy", "lab"):
            copies.append("copy 1")
        raise down()

    one = taken_back(lab, "one")

    def flow():
        one(), copy()

    worker = Worker(lab, flow, lab.run(flow).recovery_id)
    lab.run(lab.make("mend"), name="other")  # known of when it is asked
    planned = worker.undo(plan_only=True, run_id=RUN[:-1] + "1").plan
    worker.undo()
    asked = worker.asked
    worker.answer()
    lab.answers["take one"] = down()

    half = worker.undo()
    del lab.answers["take one"]
    halfway = worker.undo(plan_only=True, run_id=RUN[:-1] + "2").plan
    elsewhere = worker.undo(run_id=RUN[:-1] + "3")

    assert half.state == "needs-person"
    assert halfway.undone == ["copy"]
    assert planned.hash == asked.plan_hash == halfway.hash
    assert elsewhere.state == "undone", elsewhere.error
    assert (worker.asked, copies, lab.there) == (asked, [], {"mend"})


def test_a_question_on_a_worker_takes_the_price_of_going_back_from_no_terminal(lab):
    one = taken_back(lab, "one")
    worker = Worker(lab, one, lab.run(one).recovery_id)
    lab.run(lab.make("mend"), name="other")
    worker.undo()

    ended = lab.run(one, resume=worker.recovery_id, undo_by="Bob")

    assert isinstance(ended.error, NeedsPerson)
    assert "it was recovered at" in str(ended.error)
    assert "(other) has changed it since" in str(ended.error)
    assert lab.there == {"one", "mend"}


@pytest.fixture
def rule_of_two(tmp_path, monkeypatch):
    """Two persons are to consent, whatever it is."""
    rules = {
        "approvers": {"Ada": {}, "Grace": {}},
        "rules": [{"danger": danger, "needs": 2} for danger in ("destructive", "change")],
    }
    (tmp_path / "approvers.yaml").write_text(yaml.safe_dump(rules))
    monkeypatch.setenv("RECOVER_APPROVERS", str(tmp_path / "approvers.yaml"))


def test_the_second_person_is_shown_what_going_back_costs_too(lab, request):
    one = taken_back(lab, "one")
    worker = Worker(lab, one, lab.run(one).recovery_id)
    lab.run(lab.make("mend"), name="other")
    request.getfixturevalue("rule_of_two")  # from now on
    worker.undo()
    first = worker.asked
    worker.answer()

    second = worker.undo().question

    assert second.asked.plan_hash == first.plan_hash
    form = question_markdown(second)
    for told in ("1 of 2 approvals", "Bob orders the way back", "it was recovered at"):
        assert told in second.asked.why
        assert told in form
    assert "has changed it since" in form
    assert "it wants a reason" in form


def status(lab, recovery_id):
    with contextlib.closing(open_journal(str(lab.path))) as journal:
        return status_of(journal, recovery_id)["next"]


def test_what_is_next_while_a_way_back_waits_for_consent_is_to_read_and_answer(lab, failed):
    failed.undo()
    plan_hash, id_ = failed.asked.plan_hash, failed.recovery_id

    asked = status(lab, id_)
    said = failed.consent(plan_hash)
    approved = status(lab, id_)
    lab.answers["take one"] = down()
    half = failed.undo()

    assert asked == (
        f"read what is asked (`recover approve {id_}`), then answer in the UI or "
        f"`recover approve {id_} --plan {plan_hash} --by NAME --reason TEXT`"
    )
    assert said["missing"] == 0
    assert approved.startswith("it is approved and goes on by itself")
    assert f"`recover undo {id_} --by NAME --worker`" in approved
    assert half.state == "needs-person"
    assert status(lab, id_).startswith("mend what stopped the way back")


def test_what_is_next_after_a_terminal_has_asked_is_to_consent_and_to_go_back_again(
    lab, failed, rule_of_two
):
    id_ = failed.recovery_id
    ended = lab.run(failed.flow, resume=id_, undo_by="Ada")
    approve = f"`recover approve {id_} --plan {failed.asked.plan_hash} --by NAME --reason TEXT`"

    asked = status(lab, id_)
    failed.consent(failed.asked.plan_hash, by="Grace")

    assert approve in str(ended.error)
    assert (
        asked == f"read what is asked (`recover approve {id_}`), then {approve}, and "
        f"`recover undo {id_} --by NAME` again"
    )
    assert status(lab, id_) == f"it is approved: `recover undo {id_} --by NAME` goes on"


def test_what_is_told_after_a_no_to_a_way_back_asks_anew_and_never_goes_forward(lab, failed):
    failed.undo()
    failed.consent(failed.asked.plan_hash, rejects=True)

    refused = failed.undo()
    told = status(lab, failed.recovery_id)
    anew = failed.undo(run_id=RUN[:-1] + "1")

    assert isinstance(refused.error, Refused)
    order = f"`recover undo {failed.recovery_id} --by NAME --worker` asks anew"
    assert refused.error.remedy == f"Nothing more is done; {order}"
    assert f"`recover undo {failed.recovery_id} --by NAME --reason TEXT` again" in told
    assert anew.question is not None


@pytest.mark.parametrize("form", [None, Form()])
def test_the_notice_of_a_way_back_that_failed_says_how_to_go_on_with_it(lab, monkeypatch, form):
    told, ways = [], []
    one = taken_back(lab, "one")

    @probe
    def look() -> str:
        raise down()

    def flow():
        one()
        if ways:
            look()

    first = lab.run(flow)
    ways.append("a later release looks before it ends")
    monkeypatch.setattr(ending, "notify", lambda notice, _journal: told.append(notice))

    failed = lab.run(flow, form=form, resume=first.recovery_id, undo_by="me", undo_reason="why")

    assert failed.state == "failed"
    how = "--reason TEXT" if form is None else "--worker"
    order = f"recover undo {first.recovery_id} --by NAME {how}"
    assert told[-1].next_command == f"{order}, once the cause is mended"


def test_consent_to_a_way_back_from_a_terminal_wants_a_reason_as_the_form_does(lab, failed):
    failed.undo()

    with pytest.raises(BadInput, match="wants a reason") as refused:
        failed.consent(failed.asked.plan_hash, reason=" ")

    assert refused.value.field == "--reason"
    assert lab.history(failed.recovery_id).approvals == []
    assert failed.consent(failed.asked.plan_hash, reason="", rejects=True)["missing"] == 0


def test_a_reason_of_its_own_takes_back_what_was_completed_and_keeps_the_rule(lab, request):
    """Goal: who may not do it alone cannot, and need not break the glass to go back.

    Method: two of Ada and Grace are to consent; Mallory orders it, then Ada and Grace do.
    """
    one = taken_back(lab, "one")
    worker = Worker(lab, one, lab.run(one).recovery_id)
    request.getfixturevalue("rule_of_two")  # from now on

    def undo(by, **reason):
        return lab.run(one, resume=worker.recovery_id, undo_by=by, **reason)

    unasked = undo("Ada")
    mallory = undo("Mallory", undo_reason="because")
    by_mallory = worker.asked
    ada = undo("Ada", undo_reason="it was the wrong one")
    assert lab.there == {"one"}
    again = f"`recover undo {worker.recovery_id} --by NAME --reason TEXT`"
    said = worker.consent(worker.asked.plan_hash, by="Grace")
    waiting = status(lab, worker.recovery_id)
    done = undo("Ada", undo_reason="it was the wrong one")

    assert "--by NAME --reason TEXT`" in str(unasked.error)
    assert "Mallory is no approver of it" in str(mallory.error)
    assert "Mallory orders the way back: because" in by_mallory.why
    assert again in str(mallory.error)
    assert isinstance(ada.error, NeedsPerson)
    assert said["next"] == again
    assert waiting == f"it is approved: {again} goes on"
    assert done.state == "undone"
    given = lab.history(worker.recovery_id).approvals
    assert [(one.by, one.how, one.reason) for one in given] == [
        ("Mallory", "approved", "because"),
        ("Ada", "approved", "it was the wrong one"),
        ("Grace", "approved", "users complain"),
        ("Ada", "approved", "it was the wrong one"),
    ]


def test_the_reason_of_a_way_back_that_needs_no_other_person_is_in_the_report(lab):
    one = taken_back(lab, "one")
    first = lab.run(one)
    lab.run(lab.make("mend"), name="other")

    odd = lab.run(one, resume=first.recovery_id, undo_reason="it was the wrong one")
    ended = lab.run(
        one, resume=first.recovery_id, undo_by="Bob", undo_reason="it was the wrong one"
    )

    assert isinstance(odd.error, BadInput)
    assert odd.error.field == "undo_reason"
    assert ended.state == "undone", ended.error
    with contextlib.closing(open_journal(str(lab.path))) as journal:
        assert "it was the wrong one" in markdown_report(journal, first.recovery_id)


@pytest.mark.parametrize("is_as_shown", [True, False])
def test_a_take_over_on_a_worker_wants_no_reason_beside_the_one_of_the_consent(
    lab, failed, is_as_shown
):
    """Goal: an approved way back whose worker was killed is gone on with under the same consent.

    Method: consent, a lease that nobody releases, and another run that takes over; where another
    flow has acted after the consent, nothing is taken.
    """
    lab.run(lab.make("mend"), name="other")
    failed.undo()
    failed.consent(failed.asked.plan_hash)
    if not is_as_shown:
        lab.run(lab.make("more"), name="another")
    with contextlib.closing(open_journal(str(lab.path))) as journal:
        journal.take_lease("lab", failed.recovery_id, "gone", 20)

    ended = failed.undo(run_id=RUN[:-1] + "1", take_over_by="Bob")

    if is_as_shown:
        assert ended.state == "undone", ended.error
    else:
        assert isinstance(ended.error, NeedsPerson)
        assert "--take-over --reason TEXT" in str(ended.error)
        assert "one" in lab.there


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("n", range(1, EVENTS_OF_UNDO + 1))
def test_a_way_back_killed_at_any_event_is_gone_on_with_under_the_same_consent(
    lab, failed, monkeypatch, n, when
):
    """Goal: who has consented once is not asked again, and nothing is undone without it.

    Method: cut the answered way back at its n-th event; then another run goes on with it.
    """
    failed.undo()
    asked = failed.asked
    failed.answer()
    with monkeypatch.context() as patched:
        cut = CutJournal(open_journal(str(lab.path)), when, n)
        patched.setattr(launch, "open_journal", lambda: cut)
        with pytest.raises(Killed):
            failed.undo()
    with contextlib.closing(open_journal(str(lab.path))) as journal:  # its lease has run out
        journal.take_lease("lab", failed.recovery_id, "test", 0.01, by_force=True)

    ended = failed.undo()

    assert ended.state == "undone", ended.error
    assert failed.asked == asked
    assert lab.there == set()


def test_an_undisturbed_way_back_writes_as_many_events_as_it_is_killed_at(lab, failed):
    failed.undo()
    failed.answer()
    before = len(lab.events(failed.recovery_id))

    failed.undo()

    assert len(lab.events(failed.recovery_id)) - before == EVENTS_OF_UNDO
