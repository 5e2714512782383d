"""Recoveries that are gone on with after others have acted on their target."""

import contextlib

import pytest

from recovery.errors import NeedsPerson
from recovery.journal.opening import open_journal
from recovery.steps import decision
from tests.unit.engine_lab import down, taken_back
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)

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
