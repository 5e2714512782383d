"""What people see: tables, plans and statuses on standard output."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from recovery.secrecy.redaction import redact, redact_value
from recovery.way_back_plan import is_of_way_back, notes_on_way_back
from recovery.words import field_lines

ODD_MAX, FOUND_MAX = 30, 15
DONE = {"done", "already-so"}
WIDTH_UNBROKEN = 10_000  # where no person looks, a line is never broken
DANGERS = {"read": "dim", "change": "yellow", "destructive": "bold red"}
STATES = {
    "running": "cyan",
    "recovered": "green",
    "done": "green",
    "already-so": "green",
    "undone": "green",
    "called-off": "dim",
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
        if row.get("has_drill"):
            console.print(f"  drill    {_proof(row)}")
        for parameter in row["parameters"]:
            need = "required" if parameter["required"] else f"default {parameter['default']!r}"
            line = f"  --set {parameter['name']}=…  {parameter['type']}, {need}"
            console.print(line, markup=False, soft_wrap=True)
            if parameter.get("description"):
                console.print(f"      {parameter['description']}", markup=False, soft_wrap=True)
        console.print()


def _proof(row: Plain) -> str:
    if not row["proven_at"]:
        return "unproven: no drill of it has succeeded"
    at = f"{_moment(row['proven_at'])}"
    return f"proven {at}" if row["is_proven"] else f"unproven: the last proof is of {at}"


def show_plan(console: Console, plan: Plain, *, is_full: bool = False) -> None:
    """Show what was found and every command, then the hash, or what it would be refused for.

    Of a command of many lines its first is shown, unless `is_full`.
    """
    plan = redact_value(plan)
    console.width = WIDTH_UNBROKEN  # commands are copied from here: the terminal may break lines
    tree = Tree(Text(f"{plan['flow']} on {plan['target']}", "bold"), guide_style="dim")
    for step in plan["steps"]:
        branch = tree.add(_planned_step(step))
        for command in step["commands"]:
            branch.add(_command(command, is_full=is_full))
    console.print(tree, soft_wrap=True)
    console.print(_told_of_way_back(plan) if is_of_way_back(plan) else _told_of_acts(plan))
    if not plan["refusals"]:
        console.print(Text(f"plan {plan['hash']}", "bold"))
    for refusal in plan["refusals"]:
        reasons = (
            refusal.removeprefix("refused ").replace("; [", ";\n  [").replace(": [1]", ":\n  [1]")
        )
        console.print(Text(f"REFUSED {reasons}", "bold red"), soft_wrap=True)


def _told_of_acts(plan: Plain) -> Text:
    """How much there is to do."""
    acts = [step for step in plan["steps"] if step["kind"] == "act"]
    due = [step for step in acts if not step.get("is_already_so")]
    to_do = [step for step in due if not step.get("only_if")]
    if not to_do and not plan["refusals"]:
        return Text("it is well: nothing to do", "green")
    commands = sum(len(step["commands"]) for step in to_do)
    held = f", {len(due) - len(to_do)} more only if needed" if len(due) > len(to_do) else ""
    return Text(
        f"{len(to_do)} of {len(acts)} acts to do{held}, {commands} commands; nothing was changed"
    )


def _told_of_way_back(plan: Plain) -> Text:
    """How many steps back there are, and what there is to know beside them, a line each."""
    count = len(plan["steps"])
    steps = f"{count} step{'' if count == 1 else 's'} back" if count else "no step back is left"
    lines = [f"{steps} to walk; nothing was changed", *notes_on_way_back(plan)]
    return Text("\n").join(Text(line, "yellow" if i else "") for i, line in enumerate(lines))


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
        if step.get("only_if") and not step.get("is_already_so"):
            line.append(f", only if {step['only_if']}", "dim")
    if step.get("found"):
        line.append(f"  {step['found']}")
    return line


def _command(command: str, *, is_full: bool) -> Text:
    first, *others = command.splitlines() or [""]
    if is_full or not others:
        return Text(command, "cyan")
    more = f"… {len(others)} more {'line' if len(others) == 1 else 'lines'} (--full shows them)"
    return Text.assemble((first, "cyan"), "\n", (more, "dim"))


def show_status(console: Console, status: Plain) -> None:
    """Show one recovery: where it stands, its attempts, its steps, and what to do next."""
    _show_head(console, status)
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
    _show_steps(console, status["steps"])
    _show_reasons(console, status)
    _show_found(console, status["found"])
    _show_end(console, status)


def show_summary(console: Console, status: Plain) -> None:
    """Show what a run came to: the steps that are not done, how many are, and what was found."""
    _show_head(console, status)
    odd = [step for step in status["steps"] if step["state"] not in DONE]
    _show_steps(console, odd[:ODD_MAX])
    if len(odd) > ODD_MAX:
        console.print(Text(f"… {len(odd) - ODD_MAX} more", "dim"))
    states = Counter(step["state"] for step in status["steps"])
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    n = len(status["attempts"])
    console.print(
        f"{len(status['steps'])} steps: {counts or 'none'}; {n} attempt{'' if n == 1 else 's'}; "
        f"`recover status {status['id']}` shows all",
        soft_wrap=True,
    )
    if status["state"] != "undone":
        is_told = status["result"] is not None  # what was looked at is told by the outcome
        rows = [row for row in status["found"] if not (is_told and row["kind"] == "probe")]
        _show_found(console, rows, FOUND_MAX)
    _show_end(console, status)


def _show_head(console: Console, status: Plain) -> None:
    head = Text(f"{status['id']}  ", "bold")
    head.append(_state(status["state"])).append(f"  {status['flow']} on {status['target']}")
    console.print(head, soft_wrap=True)
    if status.get("forked_from"):
        show_difference(console, status["forked_from"])


def _show_steps(console: Console, rows: Sequence[Plain]) -> None:
    steps = _table("step", "kind", "state", "attempt", "seconds", "verdict", "target")
    for step in rows:
        steps.add_row(
            Text(step["key"]),
            step["kind"],
            _state(step["state"]),
            str(step["attempt"] or ""),
            _seconds(step),
            Text(step["verdict"]),
            Text(step["target"]),
        )
    if rows:
        console.print(steps)


def _show_reasons(console: Console, status: Plain) -> None:
    """Show why steps failed, but for what the error of the recovery says."""
    told = " ".join(str(status.get("error") or "").split())
    for step in status["steps"]:
        why = " ".join(step["error"].split())
        if step["state"] not in DONE and why and why not in told:
            line = Text.assemble((f"  {step['key']}  ", "dim"), (why, "red"))
            console.print(line, soft_wrap=True)


def _show_found(console: Console, rows: Sequence[Plain], most: int = WIDTH_UNBROKEN) -> None:
    """Show what the steps returned, a line for each."""
    for row in rows[:most]:
        console.print(Text.assemble((f"  {row['key']}  ", "dim"), row["told"]), soft_wrap=True)
    if len(rows) > most:
        console.print(Text(f"  … {len(rows) - most} more", "dim"))


def _show_end(console: Console, status: Plain) -> None:
    """Show the outcome, else the error, and what to do next."""
    if status["state"] == "recovered" and (lines := field_lines(status["result"])):
        console.print("outcome", style="bold")
        for line in lines:
            console.print(Text(f"  {line}"), soft_wrap=True)
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
            str(row["steps_done"]),  # of how many, nobody knows before its end
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
