"""Going back on a recovery from the command line, and what that would do.

What is needed is imported when it runs: help is not to wait.
"""
# ruff: noqa: PLC0415 (as the docstring says: Prefect alone takes seconds to import)

from typing import Annotated

import typer

from operate.options import BreakGlass, Debug, Deployment, Id, Json, OnWorker, TakeOver


def undo(  # noqa: PLR0913 (one parameter for each option)
    recovery_id: Id,
    *,
    by: Annotated[
        str,
        typer.Option(metavar="NAME", help="Who orders it; kept in the journal. --plan needs none."),
    ] = "",
    only_plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Show what would be undone and what stays; change and write nothing."
        ),
    ] = False,
    reason: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Why, where it was completed or another one has changed the target since; kept in "
            "the journal. Whoever must consent is asked all the same.",
        ),
    ] = "",
    break_glass: BreakGlass = "",
    take_over: TakeOver = False,
    worker: OnWorker = False,
    deployment: Deployment = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Walk the way back, last step first. What failed is tried again when it is repeated.

    With --plan nobody is asked, and it exits with 5 where nothing could be undone now.
    """
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer:
        from operate import orders, runs
        from recovery.run import Options

        history = answer.known(recovery_id)
        answer.goes_back = True
        how = "--by NAME --reason TEXT" if reason else "--by NAME"
        how = "--by NAME --break-glass REASON" if break_glass else how
        answer.after_interrupt = f"recover undo {{id}} {'--plan' if only_plan else how}"
        place = orders.Place(deployment, worker)
        if place.is_worker:
            answer.follows_worker()
        who = orders.who_plans(by, place) if only_plan else orders.named(by, "an undo")
        options = Options(
            undo_by=who,
            undo_reason=reason,
            break_glass=break_glass,
            take_over_by=who if take_over else "",
        )
        order = orders.order_to_resume(history, [], options)
        if only_plan:
            answer.end_plan(runs.plan(order, answer.progress))
            return
        answer.end(runs.carry_out(order, place, answer.progress))
