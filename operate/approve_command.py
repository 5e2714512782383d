"""`recover approve` and `recover approver`: consent from a terminal, and what proves a name."""
# ruff: noqa: PLC0415 (a command imports what it needs when it runs: help is not to wait)

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from operate.options import By, Debug, Full, Id, Json

if TYPE_CHECKING:
    from rich.console import Console

TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="File of mode 0600 with your token; proves your name."
    ),
]


def approve(  # noqa: PLR0913 (one parameter for each option)
    recovery_id: Id,
    *,
    plan: Annotated[
        str, typer.Option("--plan", metavar="HASH", help="The plan you have read.")
    ] = "",
    by: By = "",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the journal.")] = "",
    reject: Annotated[
        bool, typer.Option("--reject", help="Say no: it ends refused, and can be resumed.")
    ] = False,
    token_file: TokenFile = None,
    code: Annotated[
        bool,
        typer.Option("--code", help="Print the code that proves your name in the form of the UI."),
    ] = False,
    full: Full = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is asked of you; with --plan, consent to it, or --reject it.

    Works on any machine that reaches the journal, and wakes the run that waits.
    """
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug) as answer, answer.journal() as journal:
        from operate import approving
        from recovery.errors import BadInput

        found = answer.find(journal, recovery_id)
        if not plan:
            if by or reject or reason or code:
                remedy = f"Look at `recover approve {found}`, then add --plan HASH"
                raise BadInput("--plan", "it is not said to which plan", remedy)
            asked = approving.question_of(journal, found)
            answer.give(asked, lambda console: _show_question(console, asked, is_full=full))
            return
        consent = approving.Consent(plan, by, reason, reject, token_file)
        if code:
            made = approving.code_of(journal, found, consent)
            answer.give({"code": made}, lambda console: console.out(made, highlight=False))
            return
        said = approving.say(journal, found, consent)
        answer.give(said, lambda console: _show_said(console, said))


def approver(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The approver, as in the file.")],
    *,
    token_file: Annotated[
        Path, typer.Option("--token-file", metavar="FILE", help="File of mode 0600 with the token.")
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help="New file that workers are to be given.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the file by which workers can tell that NAME is proven; the token is not in it."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover approver --help") as answer:
        from operate.approving import keep_proof

        keep_proof(name, token_file, to)
        told = {"name": name, "file": str(to)}
        answer.give(told, lambda console: console.out(f"written: {to}", highlight=False))


def _show_question(console: "Console", asked: dict[str, Any], *, is_full: bool) -> None:
    from operate.screens import show_plan

    if asked["plan"]:
        show_plan(console, asked["plan"], is_full=is_full)
    persons = f"of {', '.join(asked['of'])}" if asked["of"] else "of anyone"
    console.print(asked["why"], markup=False, soft_wrap=True)
    console.print(
        f"asked for by {asked['requested_by'] or 'nobody known'}; approved by "
        f"{', '.join(asked['given']) or 'nobody'}; {asked['missing']} more {persons}",
        markup=False,
        soft_wrap=True,
    )
    if asked["until"]:
        console.print(f"it waits until {asked['until']}", markup=False, soft_wrap=True)
    if asked["next"]:
        console.print(f"next: {asked['next']}", markup=False, soft_wrap=True)


def _show_said(console: "Console", said: dict[str, Any]) -> None:
    for text in (said["said"], said["run"], f"next: {said['next']}"):
        if text:
            console.print(text, markup=False, soft_wrap=True)
