"""Arguments and options that several commands of `recover` share."""

from pathlib import Path
from typing import Annotated

import typer

from operate import completion

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The recovery, e.g. move-grafana-to-mysql.",
        autocompletion=completion.recovery_names,
    ),
]
Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of the recovery, or the beginning of it.",
        autocompletion=completion.recovery_ids,
    ),
]
AnyId = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]",
        help="Id of one recovery, or the beginning of it; all where it is left out.",
        autocompletion=completion.recovery_ids,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A parameter; repeatable. Lists as YAML: --set 'skip_tables=\\[session, cache]'.",
        autocompletion=completion.settings,
    ),
]
ParameterFile = Annotated[
    Path | None,
    typer.Option("--params", metavar="FILE", help="YAML file of parameters; --set counts more."),
]
Approve = Annotated[
    str, typer.Option(metavar="HASH", help="Consent to the plan with this hash, for 24 hours.")
]
By = Annotated[
    str, typer.Option(metavar="NAME", help="Who consents or orders; kept in the journal.")
]
BreakGlass = Annotated[
    str,
    typer.Option(metavar="REASON", help="Go ahead without an approved plan; kept in the journal."),
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Take the target from an attempt that is known to be gone; wants --by.",
    ),
]
OnWorker = Annotated[
    bool, typer.Option("--worker", help="Run on a worker, by the recovery's only deployment.")
]
Deployment = Annotated[
    str, typer.Option(metavar="FLOW/NAME", help="Run on a worker, by this deployment.")
]
Full = Annotated[bool, typer.Option("--full", help="Show commands of many lines whole.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]
Hosts = Annotated[
    str | None,
    typer.Argument(
        metavar="[HOSTS]",
        help="Look at these hosts instead: ssh://user@host?…, an inventory file or block.",
    ),
]
