"""`recover watch`: find attempts whose worker is gone, again and again, or once."""
# ruff: noqa: PLC0415 (a command imports what it needs when it runs)

import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from operate.options import Debug, Json

if TYPE_CHECKING:
    from operate.orphans.watch import Look, Watch

FAILED, NEEDS_PERSON = 3, 4
LOOKS_EVERY_SECONDS = 2.0

Once = Annotated[
    bool, typer.Option("--once", help="Look once and end, as from cron; exits with 4 or 3.")
]
Every = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.2, help="How long to pause between two looks.")
]
Pulse = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Touch this file after each look, for a health check."),
]


def watch(
    *,
    once: Once = False,
    every: Every = LOOKS_EVERY_SECONDS,
    pulse: Pulse = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find attempts whose worker is gone; say so, and resume where that is declared safe.

    With --once it exits with 4 where an orphan waits for a person, and with 3 where the journal or
    the Prefect server did not answer. Ended by SIGTERM or Ctrl-C. Any number may run at once.
    """
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover doctor") as answer:
        from operate.catalogue import recoveries
        from operate.orphans.telling import tell_people
        from operate.orphans.watch import Watch
        from recovery.notices.channels import load_blocks
        from recovery.notices.sending import wait_until_sent

        _log_to_stderr()
        watching = Watch(recoveries(), is_single=once, notify=tell_people)
        try:
            if once:
                look = watching.look()
                answer.give(vars(look), lambda console: console.print(_in_words(look)))
                code = exit_code_of(look)
                if code:
                    raise typer.Exit(code)
                return
            load_blocks()
            look_until_ended(watching, every, pulse, as_json=as_json)
        finally:
            wait_until_sent()
            watching.close()


def look_until_ended(
    watching: "Watch", every_seconds: float, pulse: Path | None = None, *, as_json: bool = False
) -> None:
    """Look until this process is told to end; the look that is under way is finished first."""
    from operate.endings import print_json

    is_over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        is_over.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    logging.getLogger("recovery.orphans").info("watching for orphans")
    while not is_over.is_set():
        look = watching.look()
        if as_json and look.is_news:
            print_json(vars(look))
        if pulse is not None:
            pulse.touch()
        is_over.wait(every_seconds)


def exit_code_of(look: "Look") -> int:
    """What a single look ends with."""
    if look.journal_error:
        return FAILED
    if look.needs_person:
        return NEEDS_PERSON
    return FAILED if look.server_error else 0


def _in_words(look: "Look") -> str:
    if look.journal_error:
        return f"the journal {look.journal} does not answer: {look.journal_error}"
    lines = [
        f"recovery {row['recovery']} on {row['target']}: attempt {row['attempt']} is gone; "
        f"{row['what']}: {row['why']}. {row['next']}".rstrip()
        for row in look.orphans
    ]
    lines += [f"run {row['run']} was {row['was']}, is {row['is']}" for row in look.mended]
    lines += [f"run {row['run']} is {row['is']}: {row['why']}" for row in look.waiting]
    lines += [
        f"recovery {row['recovery']} on {row['target']}: nobody answered until {row['until']}; "
        f"to ask anew: {row['next']}"
        for row in look.unanswered
    ]
    if look.server_error:
        lines.append(f"the Prefect server {look.server} does not answer: {look.server_error}")
    return "\n".join(lines or ["no orphan"])


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("recovery.orphans")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
