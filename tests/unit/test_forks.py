"""Forks that are cut off while they begin."""

import contextlib

import pytest

from recovery import launch
from recovery.commands import changing
from recovery.errors import NeedsPerson, Refused
from recovery.evidence.status import status_of
from recovery.journal.opening import open_journal
from recovery.journal.sqlite_store import SqliteJournal
from recovery.plan import as_markdown
from recovery.steps import act, decision, undo, verify
from tests.unit.engine_lab import down, taken_back
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


class Stopped:
    """A service that a recovery stops, loads and starts; the load fails until it is mended."""

    def __init__(self, lab):
        self.lab, self.runs = lab, True

        @undo
        def start_again() -> None:
            self.turn(on=True)

        @undo
        def stop_again() -> None:
            self.turn(on=False)

        @act(
            commands=lambda: ["stop"],
            done_when=lambda: not self.runs,
            undo=start_again,
            takes_down=True,
            lasts_until="start",
        )
        def stop() -> None:
            self.turn(on=False)

        @act(commands=lambda: ["start"], done_when=lambda: self.runs, undo=stop_again)
        def start() -> None:
            self.turn(on=True)

        note, load = lab.make("note"), taken_back(lab, "load")
        self.works, load.fn = load.fn, lambda n="": self.load()
        self.is_broken = True
        self.stop = stop
        self.flow = lambda: (note(), stop(), load(), start())

    def load(self):
        if self.is_broken:
            raise down()
        self.works()

    def turn(self, *, on):
        with changing("start" if on else "stop", "lab"):
            self.runs = on

    def run(self, **options):
        return self.lab.run(self.flow, **options)

    def next_of(self, recovery_id):
        with contextlib.closing(open_journal(str(self.lab.path))) as journal:
            status = status_of(journal, recovery_id)
            return status["state"], status["next"]


def test_what_a_fork_took_over_is_not_undone_with_it_and_that_is_told(lab):
    service = Stopped(lab)
    parent = service.run().recovery_id
    service.is_broken = False
    fork = service.run(resume=parent, fork=True).recovery_id
    back = {"resume": fork, "undo_by": "me", "break_glass": "a test"}

    planned = service.run(**back, plan_only=True).plan
    ended = service.run(**back)

    assert [(one.key, str(one.why), one.done_by) for one in planned.stays] == [
        ("stop", "taken-over", parent),
        ("note", "no-way-back", ""),
    ]
    assert f"stays: stop on lab (done): taken over from recovery {parent}" in as_markdown(planned)
    assert f"`recover undo {parent} --by NAME --reason TEXT` is to follow" in as_markdown(planned)
    assert isinstance(ended.error, NeedsPerson)
    assert f"`recover undo {parent} --by NAME --reason TEXT`" in str(ended.error)
    assert not service.runs
    state, following = service.next_of(fork)
    assert (state, following.startswith(f"`recover undo {parent} --by NAME --reason TEXT`")) == (
        "needs-person",
        True,
    )

    assert service.run(resume=parent, undo_by="me").state == "undone"
    assert service.runs
    assert service.next_of(fork)[1] == (
        f"nothing is left to take back: `recover undo {fork} --by NAME` ends this one"
    )
    assert service.run(resume=fork, undo_by="me").state == "undone"
    left = service.run(**back, plan_only=True).plan.stays
    assert [(one.key, str(one.why)) for one in left] == [("note", "no-way-back")]


def test_a_fork_that_did_nothing_itself_names_the_recovery_that_is_to_be_undone(lab):
    service = Stopped(lab)

    @verify
    def wait_until_well() -> None:
        raise down()

    service.flow = lambda: (service.stop(), wait_until_well())
    parent = service.run().recovery_id
    fork = service.run(resume=parent, fork=True).recovery_id
    of_fork = service.run(resume=fork, fork=True).recovery_id
    back = {"resume": of_fork, "undo_by": "me"}

    planned = service.run(**back, plan_only=True).plan
    ended = service.run(**back)

    assert isinstance(ended.error, Refused)
    assert f"`recover undo {parent} --by NAME --reason TEXT`" in str(ended.error)
    assert planned.refusals == [str(ended.error)]
    assert not service.runs
    assert service.next_of(of_fork)[1].startswith(
        f"`recover undo {parent} --by NAME --reason TEXT`"
    )


def test_what_a_fork_found_in_doubt_and_then_done_is_left_to_who_did_it(lab):
    half = taken_back(lab, "half")

    def loses_its_answer(n=""):
        with changing("make half", "lab"):
            lab.there.add("half")
        raise down()

    half.fn = loses_its_answer
    parent = lab.run(half).recovery_id
    fork = lab.run(half, resume=parent, fork=True)

    ended = lab.run(half, resume=fork.recovery_id, undo_by="me", break_glass="a test")

    assert fork.state == "recovered", fork.error
    assert f"`recover undo {parent} --by NAME --reason TEXT`" in str(ended.error)
    assert lab.there == {"half"}


def test_what_an_older_release_did_that_has_no_way_back_keeps_no_fork_from_its_end(
    lab, monkeypatch
):
    """Method: the recovery that it is forked from does not say which acts have a way back."""
    append = SqliteJournal.append

    def append_as_before(journal, recovery_id, kind, body, **more):
        body = {name: value for name, value in body.items() if name != "has_way_back"}
        return append(journal, recovery_id, kind, body, **more)

    note, load, way = lab.make("note"), taken_back(lab, "load"), []

    def flow():
        note()
        if way:
            load()

    with monkeypatch.context() as patched:
        patched.setattr(SqliteJournal, "append", append_as_before)
        parent = lab.run(flow).recovery_id
    way.append("the fork goes further")
    fork = lab.run(flow, resume=parent, fork=True).recovery_id
    back = {"resume": fork, "undo_by": "me", "break_glass": "a test"}

    planned = lab.run(flow, **back, plan_only=True).plan
    ended = lab.run(flow, **back)

    assert [(one.key, str(one.why)) for one in planned.stays] == [("note", "no-way-back")]
    assert (ended.state, lab.there) == ("undone", {"note"})


def test_what_a_fork_took_over_and_nobody_did_is_not_told_to_be_undone(lab):
    service = Stopped(lab)
    service.runs, service.flow = False, service.stop
    parent = service.run().recovery_id
    fork = service.run(resume=parent, fork=True).recovery_id

    ended = service.run(resume=fork, undo_by="me", break_glass="a test")

    assert isinstance(ended.error, Refused)
    state, following = service.next_of(fork)
    assert following == f"nothing is to be undone; see `recover report {fork}` for what it did"
    assert state == "refused"
