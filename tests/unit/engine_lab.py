"""A small recovery on a world of files, for tests of what the engine does with it."""

import contextlib

import pytest

from recovery.commands import changing
from recovery.errors import (
    CommandFailed,
)
from recovery.journal.events import Kind, flaws
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from recovery.launch import launch
from recovery.run import Options, Recovery
from recovery.secrecy.redaction import isolated_registry
from recovery.stage import PlainStage
from recovery.steps import act, undo, verify
from recovery.verdict import Danger, Verdict

NO_DELAY = PlainStage((0.0, 0.0, 0.0))


class Form:
    """Prefect's form: keeps each answer by the key of its question, for ever, as Prefect does."""

    def __init__(self):
        self.answers = {}
        self.reads = []

    def answer(self, asked):
        self.reads.append(asked.key)
        return self.answers.get(asked.key)


class Lab:
    """A world of names that are there or not, a flow made of steps on it, and its runs."""

    def __init__(self, path):
        self.path = path
        self.there = set()
        self.done = []
        self.answers = {}
        self.runs = 0

    def verdict(self, name):
        answer = self.answers.get(name)
        if isinstance(answer, Exception):
            raise answer
        return answer if answer is not None else Verdict.of(name in self.there)

    def make(self, name, **terms):
        """An act that puts a name into the world."""

        def change(n=""):
            key = f"{name}{n}"
            with changing(f"make {key}", "lab"):
                self.done.append(key)
                self.there.add(key)

        change.__name__ = name
        change.__annotations__["return"] = None
        terms.setdefault("done_when", lambda n="": self.verdict(f"{name}{n}"))
        terms.setdefault("commands", lambda n="": [f"make {name}{n}"])
        return act(**terms)(change)

    def run(self, flow, *, danger=Danger.CHANGE, parameters=None, name="lab", form=None, **options):
        """Run a flow as a recovery; a run id of its own each time, and a form as on a worker."""
        self.runs += 1
        given = parameters or {}
        declared = Recovery(
            name=name,
            fn=flow,
            runbook="",
            answers=(),
            danger=danger,
            target_of=lambda **_: "lab",
            parameters={name: (type(value), ...) for name, value in given.items()},
        )
        run_id = options.pop("run_id", f"00000000-0000-7000-8000-{self.runs:012x}")
        return launch(declared, given, Options(**options), NO_DELAY, run_id, form)

    def events(self, recovery_id):
        with contextlib.closing(open_journal(str(self.path))) as journal:
            events = journal.events(recovery_id)
            assert flaws(events, *journal.head(recovery_id)) == []
            return events

    def history(self, recovery_id):
        return read_history(self.events(recovery_id))

    def resolve(self, recovery_id, step, how):
        with contextlib.closing(open_journal(str(self.path))) as journal:
            body = {"as": how, "by": "me", "reason": "looked"}
            journal.append(recovery_id, Kind.RESOLVED, body, step=step)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    with isolated_registry():
        yield Lab(tmp_path / "journal.sqlite")


def fails_once(error):
    left = [error]

    @verify
    def wait_until_well() -> None:
        if left:
            raise left.pop()

    return wait_until_well


def down():
    return CommandFailed("lab", "x", 1, "no")


def taken_back(lab, name, **terms):
    """An act that is gone back on by a step that may be told to fail."""

    @undo
    def take(n="") -> None:
        if f"take {name}{n}" in lab.answers:
            raise lab.answers[f"take {name}{n}"]
        with changing(f"unmake {name}{n}", "lab"):
            lab.there.discard(f"{name}{n}")

    take.__name__ = take.name = f"take_{name}"
    return lab.make(name, undo=take, **terms)
