"""`recover alerts ...`: the receiver, what a payload would do, and what became of alerts."""
# ruff: noqa: PLC0415 (as in operate.cli: help is not to wait for Prefect)

from pathlib import Path
from typing import Annotated

import typer

from operate.options import Debug, Json

PORT = 9095
alerts_app = typer.Typer(no_args_is_help=True, help="Alerts that start recoveries.")
RoutesFile = Annotated[
    Path | None,
    typer.Option(
        "--routes",
        metavar="FILE",
        help="The routes; RECOVER_ALERT_ROUTES, else deployments/alert-routes.yaml.",
    ),
]
Store = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="WHERE",
        help="Where alerts are kept: a path or postgresql:// URL; beside the journal.",
    ),
]


@alerts_app.command()
def serve(  # noqa: PLR0913 (one parameter for each option)
    *,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = PORT,
    routes: RoutesFile = None,
    bearer_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tokens, one a line.")
    ] = None,
    basic_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="name:password, one a line.")
    ] = None,
    hmac_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keys of X-Recover-Signature, one a line.")
    ] = None,
    without_authentication: Annotated[
        bool,
        typer.Option("--without-authentication", help="Only where only this machine can post."),
    ] = False,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain in PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key in PEM.")] = None,
    store: Store = "",
    debug: Debug = False,
) -> None:
    """Receive alerts over HTTP and start what the routes say; runs until it is stopped."""
    from operate.endings import answering

    with answering(as_json=False, debug=debug, next_command="recover alerts serve --help"):
        from operate.alerts.authentication import Authentication
        from operate.alerts.serving import Settings
        from operate.alerts.serving import serve as listen

        listen(
            Settings(
                host,
                port,
                routes,
                Authentication(bearer_file, basic_file, hmac_file),
                without_authentication,
                tls_certificate,
                tls_key,
                store,
            )
        )


@alerts_app.command("test")
def rehearse(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A payload; - is standard input.")],
    *,
    routes: RoutesFile = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a payload would do and why; sends nothing and needs no server."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover alerts test --help") as to:
        from operate.alerts.screens import show_rehearsal
        from operate.alerts.telling import rehearsal

        told = rehearsal(file, routes)
        to.give(told, lambda console: show_rehearsal(console, told))


@alerts_app.command("list")
def list_(
    *,
    state: Annotated[str, typer.Option(metavar="STATE", help="Only those that stand so.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most, latest first.")] = 50,
    store: Store = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the alerts that were heard of, where each stands, and why."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover alerts list --help") as to:
        from operate.alerts.screens import show_alerts
        from operate.alerts.telling import listed

        rows = listed(store, state, limit)
        to.give(rows, lambda console: show_alerts(console, rows, state))


@alerts_app.command()
def status(
    *, routes: RoutesFile = None, store: Store = "", as_json: Json = False, debug: Debug = False
) -> None:
    """Count the alerts by where they stand; say when the watchdog was last heard."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover alerts list") as to:
        from operate.alerts.screens import show_status
        from operate.alerts.telling import status_of

        told = status_of(store, routes)
        to.give(told, lambda console: show_status(console, told))


@alerts_app.command()
def release(
    fingerprint: Annotated[str, typer.Argument(metavar="FINGERPRINT", help="Of the alert.")],
    *,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who decides.")],
    store: Store = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let an alert start its run that was left to a person, cools down or is flapping."""
    from operate.endings import answering

    with answering(as_json=as_json, debug=debug, next_command="recover alerts list") as to:
        from operate.alerts.screens import show_alerts
        from operate.alerts.telling import released

        rows = released(store, fingerprint, by)
        to.give(rows, lambda console: show_alerts(console, rows))
