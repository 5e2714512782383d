"""What the shell may complete: names of recoveries and parameters, ids, keys of steps.

An empty list is the answer wherever something is wrong: a shell is no place to say what.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from recovery.journal.store import Journal

Found = TypeVar("Found")


def recovery_names(incomplete: str) -> list[str]:
    """Complete the name of a recovery."""
    return _or_nothing(lambda: [name for name in _declared() if name.startswith(incomplete)])


def settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a parameter, up to its `=`."""
    return _or_nothing(
        lambda: [
            f"{name}="
            for name in _declared().get(_argument(ctx, "name"), [])
            if name.startswith(incomplete)
        ]
    )


def recovery_ids(incomplete: str) -> list[tuple[str, str]]:
    """Complete the id of a recovery; each with what it is."""

    def look() -> list[tuple[str, str]]:
        from recovery.evidence.status import read_recovery  # noqa: PLC0415 (help must not wait for it)

        journal = _journal()
        try:
            found = journal.recovery_ids(starting_with=incomplete, limit=50)
            read = [read_recovery(journal, each) for each in found]
        finally:
            journal.close()
        return [(each.history.recovery_id, f"{each.state} {each.history.flow}") for each in read]

    return _or_nothing(look)


def step_keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the key of a step of the recovery that stands before it."""

    def look() -> list[str]:
        from recovery.evidence.status import read_recovery  # noqa: PLC0415
        from recovery.journal.opening import find_recovery  # noqa: PLC0415

        journal = _journal()
        try:
            found = find_recovery(journal, _argument(ctx, "recovery_id"), "ID")
            steps = read_recovery(journal, found).history.steps
        finally:
            journal.close()
        return [key for key in steps if key.startswith(incomplete)]

    return _or_nothing(look)


def _argument(ctx: typer.Context, name: str) -> str:
    """Return what was typed for the first argument; behind an option it is not assigned yet."""
    return str(ctx.params.get(name) or next(iter(ctx.args), ""))


def _declared() -> dict[str, list[str]]:
    from operate.catalogue import declared_names  # noqa: PLC0415

    return declared_names()


def _journal() -> "Journal":
    from recovery.journal.opening import open_journal  # noqa: PLC0415

    return open_journal()


def _or_nothing(look: Callable[[], list[Found]]) -> list[Found]:
    try:
        return look()
    except Exception:  # noqa: BLE001 (see the module's first lines)
        return []
