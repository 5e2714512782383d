"""What the commands about alerts show to people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


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


def show_alerts(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Show alerts as a table, latest first."""
    if not rows:
        console.print("no alert was heard of")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("alert", "fingerprint", "since", "state", "on", "why"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        why = f"{row['reason']} {row['outcome'] and '→ ' + row['outcome']}"
        cells = (row["name"], row["fingerprint"], row["starts_at"][:19], row["state"], row["work"])
        table.add_row(*(Text(_shown(cell)) for cell in (*cells, why)))
    console.print(table)


def show_status(console: Console, told: Mapping[str, Any]) -> None:
    """Show how many alerts stand where."""
    for name in ("store", "routes"):
        console.print(Text(f"{name}: {told[name]}"))
    counts = ", ".join(f"{n} {state}" for state, n in sorted(told["alerts"].items()))
    console.print(Text(f"alerts: {counts or 'none was heard of'}"))
    console.print(Text(f"runs on their way: {told['running']} of at most {told['running_max']}"))
    heard = told["watchdog_heard_at"] or "never"
    silent = " (silent for too long)" if told["watchdog_is_silent"] else ""
    console.print(Text(f"watchdog last heard: {heard}{silent}"))
    for remark in told["remarks"]:
        console.print(Text(f"note: {remark}", style="yellow"))


def _shown(text: str) -> str:
    """Text of a stranger as a terminal may show it: no control characters."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
