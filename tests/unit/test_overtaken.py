"""Recoveries that are gone on with after others have acted on their target."""

import contextlib

import pytest

from recovery import launch
from recovery.errors import Fenced, NeedsPerson, Refused
from recovery.journal.events import Kind
from recovery.journal.opening import open_journal
from recovery.steps import decision
from tests.unit.engine_lab import down, taken_back
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)

BREAK = "w1 is to be put back all the same"
A_RUN = "00000000-0000-7000-8000-00000000aaaa"
A = "00000000aaaa"


class Rolling:
    """A recovery of what is due, which fails at what is broken."""

    def __init__(self, lab):
        self.lab, self.due, self.broken = lab, ["w1"], {"w1"}
        self.reboot = taken_back(lab, "reboot", each=("n",))
        works = self.reboot.fn
        self.reboot.fn = lambda n: self.fail() if n in self.broken else works(n)

        @decision
        def due() -> list[str]:
            return self.due

        def flow():
            for node in due():
                self.reboot(node)

        self.flow = flow

    def fail(self):
        raise down()

    def run(self, **options):
        return self.lab.run(self.flow, **options)


@pytest.fixture
def rolling(lab):
    return Rolling(lab)


@pytest.mark.parametrize("again", [{"run_id": A_RUN}, {"resume": A}])
def test_what_a_later_one_of_the_flow_has_changed_is_not_done_over_without_a_reason(
    lab, rolling, again
):
    rolling.run(run_id=A_RUN)
    rolling.due, rolling.broken = ["w2"], set()
    later = rolling.run()

    ended = rolling.run(**again)

    assert isinstance(ended.error, NeedsPerson)
    assert f"recovery {later.recovery_id} (lab) has changed it since" in str(ended.error)
    assert lab.done == ["rebootw2"]
    assert rolling.run(resume=A, break_glass="w1 is due all the same").state == "recovered"
    assert rolling.run(resume=later.recovery_id).state == "recovered"  # it was, and stays so


def test_a_later_one_is_told_of_before_what_was_before_it_is_put_back(lab, rolling):
    rolling.broken = set()
    first = rolling.run(run_id=A_RUN)
    rolling.due = ["w2"]
    later = rolling.run()

    ended = rolling.run(resume=first.recovery_id, undo_by="me")

    assert f"recovery {later.recovery_id} (lab) has changed it since" in str(ended.error)
    assert lab.there == {"rebootw1", "rebootw2"}


def test_a_later_one_is_told_of_however_many_recoveries_were_written_to_since(lab, rolling):
    rolling.due = ["w0", "w1"]
    rolling.run(run_id=A_RUN)
    later = lab.run(lab.make("mend"), name="other")
    with contextlib.closing(open_journal(str(lab.path))) as journal:
        for n in range(1000):
            journal.append(f"elsewhere-{n}", Kind.SAW, {})

    ended = rolling.run(resume=A, undo_by="me")

    assert f"recovery {later.recovery_id} (other) has changed it since" in str(ended.error)
    assert lab.there == {"rebootw0", "mend"}


def test_a_failed_one_is_not_taken_back_over_a_later_one_of_whatever_flow(lab, rolling):
    rolling.due = ["w0", "w1"]
    rolling.run(run_id=A_RUN)
    lab.run(lab.make("mend"), name="other")

    ended = rolling.run(resume=A, undo_by="me")

    assert "(other) has changed it since" in str(ended.error)
    assert lab.there == {"rebootw0", "mend"}


def test_a_recovery_goes_on_after_another_flow_has_mended_what_stopped_it(lab, rolling):
    rolling.run(run_id=A_RUN)
    lab.run(lab.make("mend"), name="other")
    rolling.broken = set()

    assert rolling.run(run_id=A_RUN).state == "recovered"


@pytest.mark.parametrize("is_undone", [True, False])
def test_a_later_one_that_did_nothing_or_was_undone_stands_in_nobodys_way(lab, rolling, is_undone):
    rolling.run(run_id=A_RUN)
    if is_undone:
        rolling.due, rolling.broken = ["w2"], set()
        later = rolling.run()
        rolling.run(resume=later.recovery_id, undo_by="me", break_glass="the wrong one")
    else:
        lab.there.add("rebootw2")
        rolling.due = ["w2"]
        rolling.run()  # finds that it is so
    rolling.broken = set()

    assert rolling.run(resume=A).state == "recovered"


@pytest.mark.parametrize("order", [{"undo_by": "me"}, {}])
def test_an_earlier_one_that_was_taken_back_since_has_changed_the_target(lab, rolling, order):
    """Goal: what a recovery saved is not put back over the way back of one before it.

    Method: both change the target, the first one is taken back, the second one is gone on with.
    """
    rolling.due, rolling.broken = ["w0"], set()
    earlier = rolling.run()
    rolling.due, rolling.broken = ["w0b", "w1"], {"w1"}
    rolling.run(run_id=A_RUN)
    rolling.run(resume=earlier.recovery_id, undo_by="me", break_glass="the wrong one")
    rolling.broken = set()
    back = {"resume": A, "undo_by": "me"}

    planned = rolling.run(**back, plan_only=True).plan
    ended = rolling.run(resume=A, **order)

    (why,) = planned.wants_reason
    assert f"recovery {earlier.recovery_id} (lab) was taken back since, at" in why
    assert isinstance(ended.error, NeedsPerson)
    assert "was taken back since" in str(ended.error)
    assert lab.there == {"rebootw0b"}
    assert rolling.run(resume=A, **order, break_glass="it is meant").error is None


def test_a_retry_goes_on_with_no_journal_that_was_changed(lab, rolling):
    rolling.run(run_id=A_RUN)
    with contextlib.closing(open_journal(str(lab.path))) as journal:
        changed = "update events set body = replace(body, 'w1', 'w9') where kind = 'decided'"
        journal._connection.execute(changed)
    rolling.broken = set()

    retried, resumed = rolling.run(run_id=A_RUN), rolling.run(resume=A)

    for ended in (retried, resumed):
        assert ended.state == "needs-person"
        assert "its journal is not what was written" in str(ended.error)
    assert lab.done == []


class Asking:
    """A form that nobody has answered."""

    def answer(self, asked):
        return None


def in_mid_act(lab, name, do, *, flow="other"):
    """Another recovery that makes a name, and in the middle of that something happens."""
    other = taken_back(lab, name)
    works = other.fn

    def change(n=""):
        do()
        works(n)

    other.fn = change
    return lab.run(other, name=flow)


@pytest.mark.parametrize(
    ("order", "flow"),
    [({"undo_by": "me"}, "other"), ({"undo_by": "me", "form": Asking()}, "other"), ({}, "lab")],
    ids=["back", "back by a form", "forward"],
)
def test_nobody_loses_the_target_to_a_take_over_that_wants_a_reason_and_has_none(
    lab, rolling, order, flow
):
    """Goal: what a take-over is refused for costs nobody the lease.

    Method: order it while the other one is in the middle of an act, which is then a later one.
    """
    rolling.due = ["w0", "w1"]
    rolling.run(run_id=A_RUN)
    before, refused = len(lab.events(A)), []

    def take_over():
        refused.append(rolling.run(resume=A, take_over_by="me", **order))

    other = in_mid_act(lab, "mend", take_over, flow=flow)

    assert isinstance(refused[0].error, NeedsPerson)
    assert f"recovery {other.recovery_id} ({flow}) has changed it since" in str(refused[0].error)
    assert f"{A} --by NAME --take-over --" in str(refused[0].error)
    assert (other.state, lab.there) == ("recovered", {"rebootw0", "mend"})
    assert len(lab.events(A)) == before


def test_a_take_over_to_go_back_on_what_was_completed_is_to_be_ordered_as_one_again(lab, rolling):
    rolling.broken = set()
    rolling.run(run_id=A_RUN)

    ended = rolling.run(resume=A, undo_by="me", take_over_by="me")

    assert f"`recover undo {A} --by NAME --take-over --reason TEXT`" in str(ended.error)


def test_a_take_over_for_a_reason_is_on_record_before_anything_else_of_its_attempt(lab, rolling):
    rolling.due = ["w0", "w1"]
    rolling.run(run_id=A_RUN)
    before, ended = len(lab.events(A)), []
    order = {"resume": A, "undo_by": "me", "take_over_by": "me", "break_glass": BREAK}

    with pytest.raises(Fenced):
        in_mid_act(lab, "mend", lambda: ended.append(rolling.run(**order)))

    assert ended[0].state == "undone"
    taken, started = lab.events(A)[before : before + 2]
    assert (taken.kind, started.kind) == ("taken-over", "attempt-started")
    assert [one["recovery_id"] for one in taken.body["from"]] == ["000000000002"]


def test_a_take_over_that_is_refused_behind_the_lease_is_on_record(lab, rolling, monkeypatch):
    """Goal: who was fenced finds out by whom.

    Method: the other one begins to act between the question and the taking.
    """
    rolling.due = ["w0", "w1"]
    rolling.run(run_id=A_RUN)
    monkeypatch.setattr(launch, "refuse_vain_take_over", lambda run, recovery_id: None)
    ended = []
    order = {"resume": A, "undo_by": "me", "take_over_by": "me"}

    with pytest.raises(Fenced):
        in_mid_act(lab, "mend", lambda: ended.append(rolling.run(**order)))

    assert isinstance(ended[0].error, NeedsPerson)
    assert lab.events(A)[-1].kind == "taken-over"


@pytest.mark.parametrize(
    ("why", "order"),
    [
        ("is recovered, and recovery", {}),
        ("is undone, and recovery", {"undo_by": "me"}),
        ("did nothing that has a way back", {"undo_by": "me"}),
    ],
)
def test_nobody_loses_the_target_to_a_take_over_for_which_nothing_is_left_to_do(
    lab, rolling, why, order
):
    rolling.broken = set() if "recovered" in why or "undone" in why else {"w1"}
    if "did nothing" in why:
        rolling.flow = lab.make("elsewhere", commands=list, done_when=fails)
    rolling.run(run_id=A_RUN)
    if "undone" in why:
        rolling.run(resume=A, undo_by="me", break_glass=BREAK)
    refused = []

    def take_over():
        refused.append(
            rolling.run(resume=A, take_over_by="me", break_glass=BREAK, **order),
        )

    other = in_mid_act(lab, "mend", take_over)

    assert isinstance(refused[0].error, Refused)
    assert why in str(refused[0].error)
    assert other.state == "recovered"


def fails():
    raise down()
