"""Forks that are cut off while they begin."""

import contextlib

import pytest

from recovery import launch
from recovery.journal.opening import open_journal
from recovery.steps import decision
from tests.unit.engine_lab import down
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)
from tests.unit.test_consent import CutJournal, Killed

RUN = "00000000-0000-7000-8000-0000000f0000"
ID = "0000000f0000"
BEGINS_NOTHING = (1, "before")


def go_on(lab):
    """Let nobody wait for the lease of who was killed."""
    with contextlib.closing(open_journal(str(lab.path))) as journal:
        journal.take_lease("lab", ID, "test", 0.01, by_force=True)


@pytest.mark.parametrize(("n", "when"), [
    (n, when) for n in range(1, 6) for when in ("before", "after")
])  # fmt: skip
@pytest.mark.parametrize("by_id", [False, True])
def test_a_fork_killed_while_it_begins_does_nothing_in_doubt_twice(
    lab, monkeypatch, n, when, by_id
):
    """Goal: what the parent left in doubt is asked about, wherever its fork was cut off.

    Method: cut the fork at its n-th event, then retry its run, or resume it by its id.
    """
    days = iter(["monday", "tuesday"])

    @decision
    def day() -> str:
        return next(days)

    one = lab.make("one", each=("n",))
    pay = lab.make("pay", done_when=None, without_probe="the bank does not tell")
    pay.fn = lambda n="": (lab.done.append("pay"), lose_answer())

    def lose_answer():
        raise down()

    def flow():
        one(day()), pay()

    first = lab.run(flow)
    forks = {"resume": first.recovery_id, "fork": True}
    with monkeypatch.context() as patched:
        cut = CutJournal(open_journal(str(lab.path)), when, n)
        patched.setattr(launch, "open_journal", lambda: cut)
        with pytest.raises(Killed):
            lab.run(flow, run_id=RUN, **forks)
    go_on(lab)
    by_id = by_id and (n, when) != BEGINS_NOTHING

    forked = lab.run(flow, **({"resume": ID} if by_id else {"run_id": RUN, **forks}))

    assert forked.recovery_id == ID
    assert forked.state == "needs-person", forked.error
    assert "pay is in doubt" in str(forked.error)
    assert lab.done == ["onemonday", "pay"]
    assert lab.history(ID).decisions["day"]["value"] == "monday"
