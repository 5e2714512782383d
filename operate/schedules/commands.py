"""`recover schedules`: check the file, apply it to the server, and list what the server has."""
# ruff: noqa: PLC0415 (help is not to wait for Prefect)

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from operate.options import Debug, Json

if TYPE_CHECKING:
    from rich.console import Console

BAD_INPUT = 2
File = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="The schedules; deployments/schedules.yaml if left out."
    ),
]
schedules_app = typer.Typer(
    no_args_is_help=True,
    help="Schedules of recoveries and drills, from deployments/schedules.yaml.",
)


@schedules_app.command("check")
def check(*, file: File = None, as_json: Json = False, debug: Debug = False) -> None:
    """Say what is wrong with the file, line by line; exits with 2 if anything is."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer:
        from operate.schedules.wanted import default_file, read_schedules

        wanted, wrong = read_schedules(file or default_file())
        rows = [{"field": each.field, "seen": each.seen, "remedy": each.remedy} for each in wrong]
        plain = {"right": [entry.name for entry in wanted], "wrong": rows}
        answer.give(plain, lambda console: _show_check(console, plain))
        if wrong:
            raise typer.Exit(BAD_INPUT)


@schedules_app.command("apply")
def apply(*, file: File = None, as_json: Json = False, debug: Debug = False) -> None:
    """Bring the server to the schedules of the file; those of others are left alone."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover schedules check") as answer:
        from operate.schedules.applying import apply_schedules

        rows = [applied.as_plain() for applied in apply_schedules(file)]
        answer.give(rows, lambda console: _show_applied(console, rows))


@schedules_app.command("list")
def list_(*, as_json: Json = False, debug: Debug = False) -> None:
    """List the schedules on the server that this file's are."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer:
        from operate.schedules.applying import schedules_on_server

        rows = schedules_on_server()
        answer.give(rows, lambda console: _show_listed(console, rows))


def _show_check(console: "Console", plain: dict[str, Any]) -> None:
    for row in plain["wrong"]:
        console.print(f"{row['field']}: {row['seen']}. {row['remedy']}", markup=False)
    console.print(f"{len(plain['right'])} right, {len(plain['wrong'])} wrong")


def _show_applied(console: "Console", rows: list[dict[str, Any]]) -> None:
    for row in rows:
        state = "" if row["is_active"] or row["change"] == "removed" else ", inactive"
        when = f", {row['when']}" if row["when"] else ""
        line = f"{row['change']:8} {row['name']}: {row['recovery']}{when}{state}"
        console.print(line, markup=False)
    if not rows:
        console.print("no schedule is wanted, and the server has none of ours")


def _show_listed(console: "Console", rows: list[dict[str, Any]]) -> None:
    from recovery.evidence.timeline import duration

    for row in rows:
        when = row["when"].get("cron") or f"every {duration(row['when'].get('interval', 0))}"
        state = "" if row["is_active"] else ", inactive"
        zone = row["when"].get("timezone", "UTC")
        line = f"{row['name']}: {row['recovery']}, {when} {zone}{state}"
        console.print(line, markup=False)
    if not rows:
        console.print("the server has no schedule of ours; `recover schedules apply` makes them")
