"""Carrying out a recovery for the command line: here, here under Prefect, or on a worker."""

import logging
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any
from uuid import uuid4

from prefect import State
from prefect.exceptions import Abort
from prefect.logging.handlers import PrefectConsoleHandler

from operate.catalogue import flow_of
from operate.orders import Order, Place, given_options
from operate.progress import Progress, ToldStage
from operate.server import api_url, ask_server
from recovery.errors import BadInput, Unreachable
from recovery.launch import launch
from recovery.run import Ended, recovery_id_of, this_user
from recovery.secrecy.log_redaction import install_log_redaction
from recovery.stage import PlainStage
from recovery.steps import StepKind


def plan(order: Order, progress: Progress) -> Ended:
    """Walk a recovery, or its way back, without changing anything; needs no server."""
    order = replace(order, options=replace(order.options, plan_only=True))
    install_log_redaction()
    given = {} if order.recorded else order.parameters
    with progress.shown("looking"), redirect_stdout(sys.stderr):
        return launch(order.recovery, given, order.options, PlainStage(), str(uuid4()))


def carry_out(order: Order, place: Place, progress: Progress) -> Ended:
    """Carry an order out.

    Where PREFECT_API_URL names a server, the run shows there. One that does not answer is told
    about and done without: a recovery must not need what may be broken.

    Raises:
        Unreachable: a worker was asked for, and there is no server to reach it by.
        Fenced: the lease was lost.
    """
    url = api_url()
    order = _with_requester(order)
    if place.is_worker:
        if not url:
            raise BadInput(
                "PREFECT_API_URL",
                "it is not set, and a worker is reached through that server",
                "Set it, or leave --worker and --deployment out to run in this process",
            )
        ask_server(url)
        from operate.submission import run_on_worker  # noqa: PLC0415 (seldom)

        return run_on_worker(order, place, progress)
    if url:
        try:
            ask_server(url)
        except Unreachable as error:
            progress.note(
                f"the Prefect server {url} does not answer ({error.seen}): "
                "going on in this process without it",
                "yellow",
            )
        else:
            return _run_under_prefect(order, progress)
    return _run_plainly(order, progress)


def _with_requester(order: Order) -> Order:
    """Say who asks for a recovery that begins now: who is named, else this account."""
    options = order.options
    if options.requested_by or (options.resume and not options.fork):
        return order
    who = options.approved_by or this_user()
    return replace(order, options=replace(options, requested_by=who))


def _run_plainly(order: Order, progress: Progress) -> Ended:
    install_log_redaction()
    flow_run_id = str(uuid4())
    progress.recovery_id = _id_of(order, flow_run_id)
    parameters = {} if order.recorded else order.parameters
    kinds = frozenset({StepKind.UNDO} if order.options.undo_by else ())
    with progress.shown("looking"), redirect_stdout(sys.stderr):
        return launch(
            order.recovery,
            parameters,
            order.options,
            ToldStage(PlainStage(), progress, kinds),
            flow_run_id,
        )


def _run_under_prefect(order: Order, progress: Progress) -> Ended:
    from operate.following import followed  # noqa: PLC0415
    from operate.outcomes import ended_of  # noqa: PLC0415 (imports Prefect's client)

    run_ids: list[str] = []

    def note_run(flow: Any, flow_run: Any, state: Any) -> None:
        del flow, state
        run_ids.append(str(flow_run.id))
        progress.recovery_id = _id_of(order, run_ids[0])

    _quieten_console()
    flow: Any = flow_of(order.recovery).with_options(on_running=[note_run])
    with (
        progress.shown("looking"),
        followed(progress, order.after_seq),
        redirect_stdout(sys.stderr),
    ):
        given = {**order.parameters, **given_options(order.options)}
        try:
            state: State[Any] = flow(**given, return_state=True)
        except Abort as abort:
            raise abort.__cause__ or abort from None
    return ended_of(state, progress.recovery_id, run_ids[0] if run_ids else "")


def _quieten_console() -> None:
    """Keep Prefect's log off the terminal, warnings apart: the server still gets all of it."""
    for name in ("", *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.setLevel(logging.WARNING)


def _id_of(order: Order, flow_run_id: str) -> str:
    is_new = order.options.fork or not order.options.resume
    return recovery_id_of(flow_run_id) if is_new else order.options.resume
