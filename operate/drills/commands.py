"""`recover drill`: what the drills have proven, their history, and running one."""
# ruff: noqa: PLC0415 (help is not to wait for Prefect)

from typing import TYPE_CHECKING, Any

import typer

from operate.options import Debug, Deployment, Json, Name, OnWorker, ParameterFile, Settings

if TYPE_CHECKING:
    from rich.console import Console

drills_app = typer.Typer(
    no_args_is_help=True, help="Drills: recoveries exercised on a stand-in, timed."
)


@drills_app.command("list")
def list_(*, as_json: Json = False, debug: Debug = False) -> None:
    """List the drills: how the last run of each ended, when it last proved, RTO and RPO."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer, answer.journal() as journal:
        from operate.drills.records import drill_rows

        rows = drill_rows(journal)
        answer.give(rows, lambda console: _show_drills(console, rows))


@drills_app.command("history")
def history(name: Name, *, as_json: Json = False, debug: Debug = False) -> None:
    """List the runs of a drill, latest first, with the time of each phase."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer, answer.journal() as journal:
        from operate.drills.records import drill_named, history_rows

        rows = history_rows(journal, drill_named(name))
        answer.give(rows, lambda console: _show_history(console, rows))


@drills_app.command("run")
def run(  # noqa: PLR0913 (one parameter for each option)
    name: Name,
    *,
    settings: Settings = None,
    params: ParameterFile = None,
    worker: OnWorker = False,
    deployment: Deployment = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a drill; print what it proved. As `recover run`, but of drills only."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, again="`recover drill list`") as answer:
        from operate import orders, runs
        from operate.drills.records import drill_named

        order = orders.order_to_run(drill_named(name).name, settings or [], params)
        answer.end(runs.carry_out(order, orders.Place(deployment, worker), answer.progress))


def _show_drills(console: "Console", rows: list[dict[str, Any]]) -> None:
    from recovery.evidence.timeline import duration

    if not rows:
        console.print("no recovery in flows is a drill")
    for row in rows:
        on = f" on {row['target']}" if row["target"] else ""
        console.print(f"{row['drill']}{on}", style="bold", markup=False, soft_wrap=True)
        at = f" ({row['last_id']})" if row["last_id"] else ""
        console.print(f"  last run   {row['last']}{at}, {row['runs']} in all", markup=False)
        if row["age_seconds"] is None:
            console.print(f"  {row['proves']} is unproven")
            continue
        age = duration(row["age_seconds"])
        word = "proven" if row["is_proven"] else "unproven: it is too long ago"
        console.print(f"  {row['proves']} was {word}, {age} ago", markup=False)
        phases = ", ".join(f"{name} {duration(took)}" for name, took in row["phases"].items())
        console.print(f"  RTO        {_told(row['rto_seconds'])} ({phases})", markup=False)
        console.print(f"  RPO        {_told(row['rpo_seconds'])}", markup=False)


def _show_history(console: "Console", rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from recovery.evidence.timeline import duration

    if not rows:
        console.print("the journal holds no run of it; start one with `recover drill run`")
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("id", "began", "ended as", "RTO", "RPO", "phases"):
        table.add_column(title, overflow="fold")
    for row in rows:
        phases = ", ".join(f"{name} {duration(took)}" for name, took in row["phases"].items())
        state = row["state"] + (" (interrupted)" if row["is_interrupted"] else "")
        measured = [_told(row["rto_seconds"]), _told(row["rpo_seconds"])]
        table.add_row(row["recovery_id"], row["began_at"][:19], state, *measured, phases)
    console.print(table)


def _told(seconds: float | None) -> str:
    from recovery.evidence.timeline import duration

    return "not measured" if seconds is None else duration(seconds)
