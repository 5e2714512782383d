"""`recover up` and `recover down`: everything on one machine, with embedded stores."""
# ruff: noqa: PLC0415 (each command imports what it needs when it runs: help is not to wait)

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from operate.options import Debug, Json

if TYPE_CHECKING:
    from operate.endings import Answer
    from operate.stack.place import Place

FAILED = 3
Home = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Its own folder: Prefect's database, logs; default: `up` beside the journal.",
    ),
]
Port = Annotated[
    int,
    typer.Option(min=0, max=65535, help="Of server and UI, on 127.0.0.1; 0: any that is free."),
]
AlertsPort = Annotated[
    int,
    typer.Option(min=0, max=65535, help="Of the alert receiver, on 127.0.0.1; 0: any free one."),
]
Deployments = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Other deployments than those of this release."),
]


def up(  # noqa: PLR0913 (one parameter for each option)
    *,
    port: Port = 4200,
    alerts_port: AlertsPort = 9095,
    home: Home = None,
    deployments: Deployments = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once everything is up; see `recover down`.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Start Prefect with its UI, workers, deployments, alert receiver, orphan watch; until Ctrl-C.

    What dies is started again. Where it runs already, that is said, and the exit code is 5; with
    --detach it is 0.
    """
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover up --help") as answer:
        from operate.stack.claim import UpAlready
        from operate.stack.detached import bring_up_detached
        from operate.stack.screens import show_stack
        from operate.stack.supervision import Stack, refuse_if_any_taken, refuse_if_running

        place = _place(home, port, deployments, alerts_port)
        place.prepare()
        try:
            if detach:
                refuse_if_running(place)
                refuse_if_any_taken(place)
                told = bring_up_detached(place, answer.progress.note)
                answer.give(told, lambda console: show_stack(console, told))
                return
            held = Stack(place, answer.progress.note).run(lambda told: _give(answer, told))
        except UpAlready as already:
            found = already.told
            if not found.get("up"):
                raise
            answer.give(found, lambda console: show_stack(console, found))
            if detach:
                answer.progress.note("it runs already", "bold")
                return
            raise
        if not held:
            raise typer.Exit(FAILED)


def down(*, home: Home = None, as_json: Json = False, debug: Debug = False) -> None:
    """Stop what `recover up` started on this machine, and wait for its end.

    Where nothing runs, that is said, and the exit code is 0.
    """
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover down --help") as answer:
        from operate.stack.detached import take_down

        place = _place(home, 0, None)
        told = take_down(place)
        plain = {"stopped": bool(told), "pid": told.get("pid"), "home": str(place.home)}
        line = f"stopped: {told['ui']}" if told else f"nothing runs in {place.home}"
        answer.give(plain, lambda console: console.print(line, markup=False, soft_wrap=True))


def _place(home: Path | None, port: int, deployments: Path | None, alerts_port: int = 0) -> "Place":
    from operate.stack.place import Place, default_deployments, default_home
    from operate.stack.supervision import free_port

    return Place(
        (home or default_home()).expanduser().absolute(),
        port or free_port(),
        (deployments or default_deployments()).expanduser().absolute(),
        alerts_port or free_port(),
    )


def _give(answer: "Answer", told: dict[str, Any]) -> None:
    from operate.stack.screens import show_stack

    answer.give(told, lambda console: show_stack(console, told))
    answer.progress.note("all up; Ctrl-C stops it", "bold green")
