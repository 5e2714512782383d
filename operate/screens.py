"""What people see: tables, plans and statuses on standard output."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from recovery.secrecy.redaction import redact, redact_value

WIDTH_UNBROKEN = 10_000  # where no person looks, a line is never broken
DANGERS = {"read": "dim", "change": "yellow", "destructive": "bold red"}
STATES = {
    "running": "cyan",
    "recovered": "green",
    "done": "green",
    "already-so": "green",
    "undone": "green",
    "intended": "cyan",
    "failed": "bold red",
    "refused": "bold red",
    "needs-person": "bold yellow",
    "in-doubt": "bold yellow",
    "stale": "bold yellow",
    "ok": "green",
    "note": "yellow",
    "bad": "bold red",
}
Plain = Mapping[str, Any]


def on_stdout() -> Console:
    """Return the console of standard output."""
    width = None if sys.stdout.isatty() else WIDTH_UNBROKEN
    return Console(highlight=False, width=width)


def show_recoveries(console: Console, rows: Sequence[Plain]) -> None:
    """List the recoveries, each with its parameters."""
    if not rows:
        console.print("no recovery is declared in flows")
    for row in rows:
        title = Text(row["name"], "bold")
        title.append("  ").append(_danger(row["danger"]))
        console.print(title)
        console.print(f"  runbook  {row['runbook']}", markup=False)
        console.print(f"  answers  {', '.join(row['answers']) or 'started by a person'}")
        for parameter in row["parameters"]:
            need = "required" if parameter["required"] else f"default {parameter['default']!r}"
            line = f"  --set {parameter['name']}=…  {parameter['type']}, {need}"
            console.print(line, markup=False, soft_wrap=True)
            if parameter.get("description"):
                console.print(f"      {parameter['description']}", markup=False, soft_wrap=True)
        console.print()


def show_plan(console: Console, plan: Plain) -> None:
    """Show every step with its exact commands, then the hash, or what it would be refused for."""
    plan = redact_value(plan)
    console.width = WIDTH_UNBROKEN  # commands are copied from here: the terminal may break lines
    tree = Tree(Text(f"{plan['flow']} on {plan['target']}", "bold"), guide_style="dim")
    for step in plan["steps"]:
        branch = tree.add(_planned_step(step))
        for command in step["commands"]:
            branch.add(Text(command, "cyan"))
    console.print(tree, soft_wrap=True)
    acts = [step for step in plan["steps"] if step["kind"] == "act"]
    to_do = [step for step in acts if not step.get("is_already_so")]
    commands = sum(len(step["commands"]) for step in acts)
    console.print(
        f"{len(to_do)} of {len(acts)} acts to do, {commands} commands; nothing was changed"
    )
    if not plan["refusals"]:
        console.print(Text(f"plan {plan['hash']}", "bold"))
    for refusal in plan["refusals"]:
        reasons = (
            refusal.removeprefix("refused ").replace("; [", ";\n  [").replace(": [1]", ":\n  [1]")
        )
        console.print(Text(f"REFUSED {reasons}", "bold red"), soft_wrap=True)


def _planned_step(step: Plain) -> Text:
    line = Text(f"{step['kind']} ", "dim" if step["kind"] != "act" else "")
    line.append(step["key"], "bold" if step["kind"] == "act" else "dim")
    if step["kind"] == "act":
        line.append(f" on {step['target']}  ", "dim")
        line.append(
            Text("already so, nothing to do", "green")
            if step.get("is_already_so")
            else _danger(step["danger"])
        )
    return line


def show_status(console: Console, status: Plain) -> None:
    """Show one recovery: where it stands, its attempts, its steps, and what to do next."""
    head = Text(f"{status['id']}  ", "bold")
    head.append(_state(status["state"])).append(f"  {status['flow']} on {status['target']}")
    console.print(head, soft_wrap=True)
    if status.get("forked_from"):
        show_difference(console, status["forked_from"])
    attempts = _table("attempt", "epoch", "started", "ended", "as", "worker", "flow run")
    for attempt in status["attempts"]:
        attempts.add_row(
            str(attempt["n"]),
            str(attempt["epoch"]),
            _moment(attempt["started_at"]),
            _moment(attempt["ended_at"]),
            _state(attempt["ended_as"] or "running"),
            attempt.get("worker", ""),
            attempt["flow_run_id"],
        )
    if status["attempts"]:
        console.print(attempts)
    steps = _table("step", "kind", "state", "attempt", "seconds", "verdict", "target")
    for step in status["steps"]:
        steps.add_row(
            Text(step["key"]),
            step["kind"],
            _state(step["state"]),
            str(step["attempt"] or ""),
            _seconds(step),
            Text(step["verdict"]),
            Text(step["target"]),
        )
    if status["steps"]:
        console.print(steps)
    if isinstance(status.get("error"), str) and status["error"]:
        console.print(Text(f"error: {' '.join(status['error'].split())}", "red"), soft_wrap=True)
    if status.get("next"):
        console.print(Text(f"next: {status['next']}", "bold"), soft_wrap=True)


def show_statuses(console: Console, rows: Sequence[Plain]) -> None:
    """Show the recoveries of the journal, those written to last first."""
    if not rows:
        console.print("the journal holds no recovery; start one with `recover run NAME`")
        return
    table = _table("id", "state", "recovery", "target", "begun", "ended", "attempts", "steps done")
    for row in rows:
        table.add_row(
            row["id"],
            _state(row["state"]),
            row["flow"],
            Text(row["target"]),
            _moment(row["opened_at"]),
            _moment(row["ended_at"]),
            str(row["attempts"]),
            f"{row['steps_done']} of {row['steps']}",
        )
    console.print(table)


def show_difference(console: Console, fork: Plain) -> None:
    """Show what a fork reuses, redoes and changes against the recovery it comes from."""
    console.print(f"fork of {fork['recovery']}", markup=False)
    for name, (before, now) in fork["changed"].items():
        console.print(Text(f"  changed  {name}: {before!r} -> {now!r}", "yellow"), soft_wrap=True)
    for word, style in (("reused", "dim"), ("redone", "cyan")):
        for key in fork[word]:
            console.print(Text(f"  {word}   {key}", style), soft_wrap=True)


def show_flaws(console: Console, found: Mapping[str, Sequence[str]]) -> None:
    """Show which recoveries' events are the chain that was written, and where not."""
    for recovery_id, flaws in found.items():
        for flaw in flaws:
            console.print(Text(f"{recovery_id}: {flaw}", "bold red"), soft_wrap=True)
    intact = sum(not flaws for flaws in found.values())
    console.print(f"{intact} of {len(found)} recoveries intact")


def show_findings(console: Console, findings: Sequence[Plain]) -> None:
    """Show what the doctor found, each with its remedy."""
    for finding in findings:
        line = Text.assemble(_state(f"{finding['health']:4}"), f"  {finding['name']}: ")
        line.append(redact(finding["seen"]))
        console.print(line, soft_wrap=True)
        if finding["remedy"]:
            console.print(Text(f"      {finding['remedy']}", "bold"), soft_wrap=True)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _danger(danger: str) -> Text:
    word = danger.upper() if danger == "destructive" else danger
    return Text(word, DANGERS.get(danger, ""))


def _state(state: str) -> Text:
    return Text(state, STATES.get(state.strip(), ""))


def _moment(at: str | None) -> str:
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S}Z" if at else ""


def _seconds(step: Plain) -> str:
    if not step["started_at"] or not step["ended_at"] or step["state"] == "undone":
        return ""
    spent = datetime.fromisoformat(step["ended_at"]) - datetime.fromisoformat(step["started_at"])
    return f"{max(0.0, spent.total_seconds()):.2f}"
