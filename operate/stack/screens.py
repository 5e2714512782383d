"""What people see of a stack: what runs, and where."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"up": "green", "silent": "yellow", "starting": "cyan", "given up": "bold red"}


def show_stack(console: Console, told: Mapping[str, Any]) -> None:
    """Show the processes of a stack in a table, and below it what they work on."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("process", "", "pid", "what it is for", "where"):
        table.add_column(title)
    for one in told["processes"]:
        health = Text(one["health"], STYLES.get(one["health"], "yellow"))
        table.add_row(one["name"], health, str(one["pid"] or ""), one["what"], one["where"])
    console.print(table)
    console.print()
    for name, value in (
        ("UI", told["ui"]),
        ("API", f"PREFECT_API_URL={told['api']}"),
        ("journal", f"RECOVER_JOURNAL={told['journal']}"),
        ("alert routes", told.get("alert_routes", "")),
        ("recoveries", f"{told['deployments']} deployments"),
        ("logs, database", told["home"]),
    ):
        console.print(Text(f"{name:14}  ", "bold").append(value, ""), soft_wrap=True)
