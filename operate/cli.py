"""The `recover` command. Each command imports what it needs when it runs: help is not to wait."""
# ruff: noqa: PLC0415 (as the first line says: Prefect alone takes seconds to import)

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from operate import completion
from operate.alerts.commands import alerts_app
from operate.approve_command import approve, approver
from operate.drills.commands import drills_app
from operate.options import (
    AnyId,
    Approve,
    BreakGlass,
    By,
    Debug,
    Deployment,
    Full,
    Hosts,
    Id,
    Json,
    Name,
    OnWorker,
    ParameterFile,
    Settings,
    TakeOver,
)
from operate.orphans.command import watch
from operate.schedules.commands import schedules_app
from operate.settlement import Settlement
from operate.stack import commands as stack
from operate.undo_command import undo

FAILED, NEEDS_PERSON, INTERRUPTED = 3, 4, 130


class OneLineErrors(TyperGroup):
    """Tells a wrong command line in one line, or as JSON where that was asked for."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command; see the class."""
        main: Any = super().main
        if not options.pop("standalone_mode", True):
            return main(*args, standalone_mode=False, **options)
        try:
            code = main(*args, standalone_mode=False, **options)
        except typer.TyperException as error:
            code = error.exit_code
            self._tell(error, list(options.get("args") or sys.argv[1:]))
        except typer.Abort:
            code = INTERRUPTED
        sys.exit(code if isinstance(code, int) else 0)

    def _tell(self, error: typer.TyperException, arguments: list[str]) -> None:
        message = error.format_message().replace("Value error, ", "")
        if not message:
            return  # no arguments at all: help was printed
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "recover"
        if "--json" in arguments:
            from operate.endings import print_json

            print_json(
                {"error": {"type": "BadInput", "message": message, "remedy": f"{path} --help"}}
            )
        typer.echo(f"bad input: {message}", err=True)
        typer.echo(f"next: `{path} --help`", err=True)


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Recover broken platforms: look, refuse with a reason, act, resume anywhere.",
    epilog="Exit codes: 0 recovered or nothing to do, 2 bad input, 3 failed (resume), "
    "4 needs a person, 5 refused or taken, 130 Ctrl-C.",
)
journal_app = typer.Typer(no_args_is_help=True, help="The journal: the memory of all recoveries.")
app.add_typer(journal_app, name="journal")
app.add_typer(alerts_app, name="alerts")
app.command()(stack.up)
app.command()(stack.down)
app.command()(approve)
app.command()(approver)
app.add_typer(drills_app, name="drill")
app.add_typer(schedules_app, name="schedules")


@app.command("list")
def list_(*, as_json: Json = False, debug: Debug = False) -> None:
    """List the recoveries, their runbooks, the alerts they answer, their parameters."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer:
        from operate.catalogue import rows
        from operate.drills.records import with_proofs
        from operate.screens import show_recoveries

        listed = with_proofs(rows())
        answer.give(listed, lambda console: show_recoveries(console, listed))


@app.command()
def plan(  # noqa: PLR0913 (one parameter for each option)
    name: Name,
    *,
    settings: Settings = None,
    params: ParameterFile = None,
    full: Full = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what would be done, with exact commands, and change nothing.

    Exits with 5 where the recovery would be refused.
    """
    from operate.endings import answering

    again = f"mend that, then `recover plan {name}` again"
    with answering(as_json=as_json, debug=debug, again=again) as answer:
        from operate import orders, runs

        order = orders.order_to_run(name, settings or [], params)
        answer.end_plan(runs.plan(order, answer.progress), is_full=full)


@app.command()
def run(  # noqa: PLR0913 (one parameter for each option)
    name: Name,
    *,
    settings: Settings = None,
    params: ParameterFile = None,
    approve: Approve = "",
    by: By = "",
    break_glass: BreakGlass = "",
    worker: OnWorker = False,
    deployment: Deployment = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Carry a recovery out; print what came of it.

    Runs in this process, and shows in the Prefect UI where PREFECT_API_URL is set.
    """
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer:
        from operate import orders, runs
        from recovery.run import Options

        options = Options(approve=approve, approved_by=by, break_glass=break_glass)
        order = orders.order_to_run(name, settings or [], params, orders.consented(options))
        place = orders.Place(deployment, worker)
        if place.is_worker:
            answer.follows_worker()
        answer.end(runs.carry_out(order, place, answer.progress))


@app.command()
def resume(  # noqa: PLR0913 (one parameter for each option)
    recovery_id: Id,
    *,
    from_step: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Fork: a new recovery that redoes this step and all after it.",
            autocompletion=completion.step_keys,
        ),
    ] = "",
    settings: Settings = None,
    approve: Approve = "",
    by: By = "",
    break_glass: BreakGlass = "",
    take_over: TakeOver = False,
    worker: OnWorker = False,
    deployment: Deployment = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Go on with what is not done; with --set or --from in a new recovery (a fork)."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer:
        from operate import orders, runs
        from recovery.run import Options

        history = answer.known(recovery_id)
        options = Options(
            from_step=from_step,
            approve=approve,
            approved_by=by,
            break_glass=break_glass,
            take_over_by=orders.named(by, "a take-over") if take_over else "",
        )
        order = orders.order_to_resume(history, settings or [], orders.consented(options))
        place = orders.Place(deployment, worker)
        if place.is_worker:
            answer.follows_worker()
        answer.end(runs.carry_out(order, place, answer.progress))


app.command()(undo)


@app.command()
def status(
    recovery_id: AnyId = None,
    *,
    limit: Annotated[
        int, typer.Option(min=1, help="How many recoveries to list at most, latest first.")
    ] = 50,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell where the recoveries stand, or the attempts and steps of one."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer, answer.journal() as journal:
        from operate import screens
        from recovery.evidence.status import all_statuses, status_of

        if recovery_id is None:
            rows = all_statuses(journal, limit)
            answer.give(rows, lambda console: screens.show_statuses(console, rows))
            return
        told = status_of(journal, answer.find(journal, recovery_id))
        answer.give(told, lambda console: screens.show_status(console, told))


@app.command()
def resolve(  # noqa: PLR0913 (one parameter for each option)
    recovery_id: Id,
    step: Annotated[
        str,
        typer.Argument(
            metavar="STEP",
            help="Key of the step, as `recover status ID` shows it.",
            autocompletion=completion.step_keys,
        ),
    ],
    *,
    how: Annotated[
        Settlement,
        typer.Option(
            "--as",
            help="done: its effect is there. redo: do it again. abandon: end the recovery here.",
        ),
    ],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who decides; kept in the journal.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the journal.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Settle a step in doubt, after looking at the target; touches nothing but the journal."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer, answer.journal() as journal:
        from operate import screens, settling
        from recovery.evidence.status import status_of

        found = answer.find(journal, recovery_id)
        settling.settle(journal, found, step, how, by=by, reason=reason)
        told = status_of(journal, found)
        answer.give(told, lambda console: screens.show_summary(console, told))


@app.command()
def report(  # noqa: PLR0913 (one parameter for each option)
    recovery_id: Id,
    *,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one self-contained HTML page instead."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Markdown instead.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also the commands and their answers, as files and JSON.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print what was found, done and verified, as Markdown; or write it to files, and name them."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer, answer.journal() as journal:
        from operate.papers import write_reports

        found = answer.find(journal, recovery_id)
        told = write_reports(journal, found, html, markdown, is_full=full or as_json)
        text = told.get("report", "").rstrip("\n") or "\n".join(told["files"])
        answer.give(told, lambda console: console.out(text, highlight=False))


@app.command()
def bundle(
    recovery_id: Id,
    *,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where; recovery-ID.tar.gz if left out.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write all evidence into one archive with a list of hashes."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer, answer.journal() as journal:
        from operate.papers import write_archive

        told = write_archive(journal, answer.find(journal, recovery_id), to)
        answer.give(told, lambda console: console.out(told["bundle"], highlight=False))


@journal_app.command("verify")
def verify(recovery_id: AnyId = None, *, as_json: Json = False, debug: Debug = False) -> None:
    """Find events that were changed, removed or reordered; exits with 4 if there are any."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer, answer.journal() as journal:
        from operate.screens import show_flaws
        from recovery.evidence.status import verify_journal

        wanted = None if recovery_id is None else answer.find(journal, recovery_id)
        found = verify_journal(journal, wanted)
        answer.give(found, lambda console: show_flaws(console, found))
        if any(found.values()):
            raise typer.Exit(NEEDS_PERSON)


@app.command()
def doctor(hosts: Hosts = None, *, as_json: Json = False, debug: Debug = False) -> None:
    """Say what is missing or cannot be reached, here or on hosts; exits with 3 if anything is.

    Of a host it shows the fingerprint to pin, by which it is known from then on.
    """
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover doctor --help") as answer:
        from operate.doctor import examine
        from operate.findings import is_well
        from operate.host_findings import examine_hosts
        from operate.screens import show_findings

        findings = examine() if hosts is None else examine_hosts(hosts)
        rows = [finding.as_plain() for finding in findings]
        plain = {"well": is_well(findings), "findings": rows}
        answer.give(plain, lambda console: show_findings(console, rows))
        if not is_well(findings):
            raise typer.Exit(FAILED)


app.command()(watch)

if __name__ == "__main__":
    app()
