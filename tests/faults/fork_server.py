"""Recoveries run in children of one process that has imported everything: a kill costs no import.

Started as `python -m tests.faults.fork_server`; each line on standard input is one order in JSON:
`{"module", "flow", "parameters", "options", "environment", "retry_delays", "kill", "stops",
"events", "answer"}`. `kill` is `[n, "before"|"after"]`: SIGKILL at the n-th event written to the
journal, or `[n, "stop"]`: SIGSTOP before it, and the answer is the id of the process that stopped;
`[kind, step, is_change, n]` in place of `n` is the n-th of that kind.
`stops` are further events to stop before: `[kind, step, is_change, times]` each. `events` is a file
that gets a line for each event written, and for each of those stops, `answer` one that gets how the
run ended. The order `{"go_on": pid}` lets a stopped process go on and waits for its end.
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

STOPPED = "stopped"  # instead of the kind of an event, which comes last in that line


class KillingJournal(sqlite_store.SqliteJournal):
    """A journal whose process dies at one of its events."""

    kill_at: ClassVar[int | list] = 0
    side = "before"
    stops: ClassVar[Counter] = Counter()
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
            if is_it and cls.side == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if is_it and cls.side == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            if cls.stops[point] > 0:
                cls.stops[point] -= 1
                cls.tell(STOPPED, *point[1:], point[0])
                os.kill(os.getpid(), signal.SIGSTOP)
            event = super().append(recovery_id, kind, body, step=step, **rest)
            cls.tell(*point, str(body.get("command", "")))
            if is_it and cls.side == "after":
                os.kill(os.getpid(), signal.SIGKILL)
        return event

    @classmethod
    def tell(cls, *event):
        """Add a line to the file of events."""
        with cls.told_to.open("a") as log:
            log.write(json.dumps(event) + "\n")


def run(order):
    """Do one order in this process, a child."""
    os.environ.update(order["environment"])
    KillingJournal.kill_at, KillingJournal.side = order.get("kill") or (0, "before")
    KillingJournal.stops = Counter({tuple(point): n for *point, n in order.get("stops") or ()})
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
