"""Recoveries run in children of one process that has imported everything: a kill costs no import.

Started as `python -m tests.faults.fork_server`; each line on standard input is one order in JSON:
`{"module", "flow", "parameters", "options", "environment", "retry_delays", "kill", "strikes",
"events", "answer"}`. `kill` is `[n, "before"|"after"]`: SIGKILL at the n-th event written to the
journal, or `[n, "stop"]`: SIGSTOP before it, and the answer is the id of the process that stopped;
`[kind, step, is_change, n]` in place of `n` is the n-th of that kind.
`strikes` are further ones, `[kind, step, is_change, side, times]` each: so often at such an event.
`events` is a file that gets a line for each event written, and for each strike, `answer` one that
gets how the run ended. The order `{"go_on": pid}` lets a stopped process go on and waits for its
end.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from recovery.declare import RECOVERIES
from recovery.journal import opening, sqlite_store
from recovery.launch import launch
from recovery.run import Options
from recovery.secrecy.log_redaction import install_log_redaction
from recovery.stage import PlainStage

STRUCK = "struck"  # instead of the kind of an event, which comes last in that line, with the side
SIGNALS = {"before": signal.SIGKILL, "stop": signal.SIGSTOP, "after": signal.SIGKILL}


class KillingJournal(sqlite_store.SqliteJournal):
    """A journal whose process dies at one of its events."""

    kill_at: ClassVar[int | list] = 0
    side = "before"
    strikes: ClassVar[Counter] = Counter()
    told_to = Path(os.devnull)
    written = 0
    met: ClassVar[Counter] = Counter()

    def append(self, recovery_id, kind, body, *, step="", **rest):
        cls = type(self)
        with self._lock:
            cls.written += 1
            point = str(kind), step, bool(body.get("is_change"))
            cls.met[point] += 1
            is_it = cls.kill_at in (cls.written, [*point, cls.met[point]])
            for side in ("before", "stop"):
                cls.strike(point, side, is_it=is_it)
            event = super().append(recovery_id, kind, body, step=step, **rest)
            cls.tell(*point, str(body.get("command", "")))
            cls.strike(point, "after", is_it=is_it)
        return event

    @classmethod
    def strike(cls, point, side, *, is_it):
        """Send this process the signal of that side, if its time has come."""
        is_due = cls.strikes[*point, side] > 0
        if is_due:
            cls.strikes[*point, side] -= 1
            cls.tell(STRUCK, *point[1:], [point[0], side])
        if is_due or (is_it and cls.side == side):
            os.kill(os.getpid(), SIGNALS[side])

    @classmethod
    def tell(cls, *event):
        """Add a line to the file of events."""
        with cls.told_to.open("a") as log:
            log.write(json.dumps(event) + "\n")


def run(order):
    """Do one order in this process, a child."""
    os.environ.update(order["environment"])
    KillingJournal.kill_at, KillingJournal.side = order.get("kill") or (0, "before")
    KillingJournal.strikes = Counter({tuple(point): n for *point, n in order.get("strikes") or ()})
    KillingJournal.told_to = Path(order["events"])
    opening.SqliteJournal = KillingJournal
    declared = RECOVERIES[order["flow"]]
    defaults = {name: default for name, (_, default) in declared.parameters.items()}
    install_log_redaction()
    ended = launch(
        declared,
        {**defaults, **order["parameters"]},
        Options(**order["options"]),
        PlainStage(order["retry_delays"]),
        str(uuid4()),
    )
    told = {
        "id": ended.recovery_id,
        "state": str(ended.state),
        "error": str(ended.error) if ended.error else "",
        "plan": ended.plan.as_plain() if ended.plan else None,
        "result": repr(ended.result),
    }
    Path(order["answer"]).write_text(json.dumps(told))


def begin(order):
    """Fork a child that does the order; return its id."""
    importlib.import_module(order["module"])  # here, so that no child has to
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run(order)
        code = 0
    except BaseException:  # noqa: BLE001 (the child ends here, whatever it was)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve():
    """Do each order in a child and say how that ended: its exit code, negative for a signal."""
    for line in sys.stdin:
        order = json.loads(line)
        child = order.get("go_on") or begin(order)
        if "go_on" in order:
            os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, os.WUNTRACED)
        ended = f"stopped {child}" if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
        sys.stdout.write(f"{ended}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
