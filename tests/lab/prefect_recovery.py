"""The counted recovery as a Prefect flow, and one that meets secrets everywhere."""

import os

from recovery.commands import changing
from recovery.declare import recovery
from recovery.errors import CommandFailed, Refused
from recovery.secrecy.secret import Secret
from recovery.steps import act, probe, verify
from recovery.verdict import Danger
from tests.lab import counted_recovery as counted
from tests.lab.counted_recovery import change, look


@probe
def refuse_if_locked(world: str) -> None:
    if look(world, "locked"):
        raise Refused(world, "it is locked", "Unlock it")


@recovery(
    runbook="docs/runbooks/mend.md", target=lambda world: f"world {world}", danger=Danger.CHANGE
)
def mend_world(world: str) -> int:
    """Mend a world.

    Args:
        world: its folder.
    """
    refuse_if_locked(world)
    names = counted.tables(world)
    backup = counted.back_up(world, "11.1")
    counted.stop(world)
    fill.over(names, world)
    counted.wait_until_loaded(world)
    counted.start(world, backup)
    counted.wait_until_served(world)
    return len(names)


@recovery(
    runbook="docs/runbooks/mend.md",
    target=lambda world: f"world {world}",
    danger=Danger.CHANGE,
    resumes_itself="each of its acts has a probe, and none destroys anything",
)
def mend_world_by_itself(world: str) -> int:
    """Mend a world, and go on with that without a person.

    Args:
        world: its folder.
    """
    names = counted.tables(world)
    backup = counted.back_up(world, "11.1")
    counted.stop(world)
    fill.over(names, world)
    counted.wait_until_loaded(world)
    counted.start(world, backup)
    counted.wait_until_served(world)
    return len(names)


@act(
    commands=lambda table: [f"make load-{table}"],
    done_when=counted.is_loaded,
    undo=counted.unload,
)
def fill(table: str, world: str) -> None:
    change(world, f"load-{table}")


@act(commands=lambda: ["login"], without_probe="it leaves nothing", redo_in_doubt=True)
def log_in(world: str) -> None:
    """Print the secret, and fail with it and because of it."""
    value = Secret(os.environ["LEAKY_SECRET"]).reveal()
    with changing("login", world) as call:
        call.answer = f"password is {value}"
        print(f"printed {value}")  # noqa: T201 (must not show)
    try:
        int(f"bad password {value}")
    except ValueError as error:
        raise CommandFailed(world, f"login {value}", 1, f"denied: {value}") from error


@act(
    commands=lambda token: [f"use {token}"],
    without_probe="it leaves nothing",
    redo_in_doubt=True,
    expected=lambda token: token,
)
def use(world: str, token: str) -> str:
    with changing(f"use {token}", world) as call:
        call.answer = token
    return token


@verify
def wait_for(world: str) -> str:
    raise RuntimeError(os.environ["LEAKY_SECRET"])


@recovery(
    runbook="docs/runbooks/mend.md", target=lambda world: f"world {world}", danger=Danger.CHANGE
)
def leak(world: str, how: str) -> str:
    """Meet a secret.

    Args:
        world: the folder of the world.
        how: where it turns up.
    """
    value = Secret(os.environ["LEAKY_SECRET"]).reveal()
    if how == "argument and result":
        use(world, value)
    elif how == "foreign error":
        wait_for(world)
    elif how == "flow result":
        return value
    else:
        log_in(world)
    return ""
