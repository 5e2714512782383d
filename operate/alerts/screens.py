"""What the commands about alerts show to people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from operate.alerts.kept import ASKS_PERSON


def show_rehearsal(console: Console, told: Mapping[str, Any]) -> None:
    """Show what each alert of a payload would do, and why."""
    for one in told["alerts"]:
        line = f"{_shown(one['name']) or '(no name)'} {one['status']}: {one['would']}"
        if one["target"]:
            line += f" {one['flow']} on {one['target']}"
        console.print(Text(line, style="bold"))
        for reason in one["reasons"]:
            console.print(Text(f"  {_shown(reason)}"))
        if one["parameters"] and one["would"] == "run":
            given = ", ".join(f"{name}={value}" for name, value in one["parameters"].items())
            console.print(Text(f"  parameters: {given}"))
    for aside in told["set_aside"]:
        console.print(Text(f"set aside: {_shown(aside)}", style="yellow"))
    for remark in told["remarks"]:
        console.print(Text(f"note: {remark}", style="yellow"))


def show_alerts(console: Console, rows: Sequence[Mapping[str, Any]], state: str = "") -> None:
    """Show alerts as a table, latest first. `state` is what was asked for, if anything."""
    if not rows:
        console.print(f"no alert is in state {state}" if state else "no alert was heard of")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("alert", "fingerprint", "since", "state", "on", "recovery", "why"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = (row["name"], row["fingerprint"], row["starts_at"][:19], row["state"], row["work"])
        table.add_row(*(Text(_shown(cell)) for cell in (*cells, row["recovery_id"], _why(row))))
    console.print(table)


def show_status(console: Console, told: Mapping[str, Any]) -> None:
    """Show how many alerts stand where."""
    console.print(Text(f"store: {told['store']}"))
    console.print(Text(f"routes: {told['routes']}, as named here; a receiver may have others"))
    counts = ", ".join(f"{n} {state}" for state, n in sorted(told["alerts"].items()))
    console.print(Text(f"alerts: {counts or 'none was heard of'}"))
    asking = f"; {told['asking']} more wait for a person" * bool(told["asking"])
    running = f"{told['running']} of at most {told['running_max']}{asking}"
    console.print(Text(f"runs on their way: {running}"))
    heard = told["watchdog_heard_at"] or "never"
    silent = " (silent for too long)" if told["watchdog_is_silent"] else ""
    console.print(Text(f"watchdog last heard: {heard}{silent}"))
    for remark in told["remarks"]:
        console.print(Text(f"note: {remark}", style="yellow"))


def _why(row: Mapping[str, Any]) -> str:
    """Why it stands there, and where to look on."""
    if row["state"] == ASKS_PERSON:
        return f"it waits for an answer: recover approve {row['recovery_id']}"
    run = f" (flow run {row['flow_run_id']})" * bool(row["flow_run_id"] and not row["recovery_id"])
    return f"{row['reason']}{run}" + f" → {row['outcome']}" * bool(row["outcome"])


def _shown(text: str) -> str:
    """Text of a stranger as a terminal may show it: no control characters."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
