"""The recoveries on offer: everything that the modules of `flows` declare."""

import ast
import importlib
import logging
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flows
from operate.nearest import did_you_mean

if TYPE_CHECKING:
    from prefect import Flow

    from recovery.run import Recovery

DECORATOR = "recovery"
logger = logging.getLogger("recovery")


def recoveries() -> "Mapping[str, Recovery]":
    """Return every recovery by name, after importing the modules that declare them.

    A module that cannot be imported is told about and left out: a broken recovery must not keep
    another one from being run.
    """
    for name in _module_names():
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with it, the others still count)
            logger.error("%s is left out: %s: %s", name, type(error).__name__, error)  # noqa: TRY400 (one line)
    from recovery.declare import RECOVERIES  # noqa: PLC0415 (imports Prefect, which takes seconds)

    return dict(sorted(RECOVERIES.items()))


def recovery_named(name: str, field: str = "NAME") -> "Recovery":
    """Return the recovery of this name.

    Raises:
        BadInput: there is none; names the nearest and all there are.
    """
    from recovery.errors import BadInput  # noqa: PLC0415 (imports Prefect)

    known = recoveries()
    if found := known.get(name):
        return found
    remedy = f"Choose one of: {', '.join(known) or 'none, flows declares no recovery'}"
    raise BadInput(field, f"there is no recovery {name!r}", f"{did_you_mean(name, known)}{remedy}")


def flow_of(recovery: "Recovery") -> "Flow[..., Any]":
    """Return the Prefect flow that a recovery's declaration left in its module."""
    found: Flow[..., Any] = getattr(
        importlib.import_module(recovery.fn.__module__), recovery.fn.__name__
    )
    return found


def rows() -> list[dict[str, Any]]:
    """Describe every recovery, as `recover list --json` prints it."""
    from operate.parameters import described  # noqa: PLC0415 (imports Prefect)

    return [
        {
            "name": recovery.name,
            "runbook": recovery.runbook,
            "answers": list(recovery.answers),
            "danger": str(recovery.danger),
            "resumes_itself": recovery.resumes_itself,
            "proven_at": None,
            "parameters": described(recovery, flow_of(recovery).parameters.properties),
        }
        for recovery in recoveries().values()
    ]


def declared_names() -> dict[str, list[str]]:
    """Return names of recoveries and their parameters as read from the source, importing nothing.

    Shell completion wants an answer at once; what it misses can still be typed.
    """
    return {
        function.name.replace("_", "-"): [
            argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)
        ]
        for path in sorted(_folder().glob("*.py"))
        for function in _declarations(path)
    }


def _folder() -> Path:
    return Path(next(iter(flows.__path__)))


def _module_names() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules(flows.__path__, prefix="flows."))


def _declarations(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(each, ast.Call)
            and isinstance(each.func, ast.Name)
            and each.func.id == DECORATOR
            for each in node.decorator_list
        ):
            yield node
