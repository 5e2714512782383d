"""What was asked for on the command line: a recovery, its parameters, and where to run it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from operate.catalogue import recovery_named
from operate.nearest import did_you_mean
from operate.parameters import typed_parameters
from recovery.errors import BadInput
from recovery.inputs import refuse_passwords
from recovery.journal.history import History
from recovery.run import Options, Recovery, this_user
from recovery.values import to_plain


@dataclass(frozen=True)
class Place:
    """Where to run: here, or on a worker by a deployment (`only`: the recovery's only one)."""

    deployment: str = ""
    only_deployment: bool = False

    @property
    def is_worker(self) -> bool:
        """Whether a worker is to do it."""
        return bool(self.deployment) or self.only_deployment


@dataclass(frozen=True)
class Order:
    """What was asked for: a recovery, its parameters (typed), and how to run.

    Attributes:
        recorded: the parameters are those of the recovery that is gone on with, not given anew.
        after_seq: the last event of that recovery when the order was given.
    """

    recovery: Recovery
    parameters: dict[str, Any]
    options: Options
    recorded: bool = False
    after_seq: int = 0


def order_to_run(
    name: str, settings: list[str], file: Path | None, options: Options | None = None
) -> Order:
    """Order a new recovery.

    Raises:
        BadInput: the recovery is unknown, or a parameter wrong or missing.
    """
    recovery = recovery_named(name)
    parameters = typed_parameters(recovery, settings, file)
    refuse_passwords({key: to_plain(value) for key, value in parameters.items()})
    return Order(recovery, parameters, options or Options())


def order_to_resume(history: History, settings: list[str], options: Options) -> Order:
    """Order to go on with a recovery, back or forward; changed parameters or a step make a fork.

    Raises:
        BadInput: this release does not have its recovery, or a parameter is wrong.
    """
    recovery = recovery_named(history.flow, field=f"recovery {history.recovery_id}")
    is_fork = bool(settings or options.from_step)
    if options.from_step and options.from_step not in history.steps:
        raise unknown_step(history, options.from_step, "--from")
    parameters = typed_parameters(recovery, settings, recorded=history.parameters)
    options = replace(options, resume=history.recovery_id, fork=is_fork)
    after = 0 if is_fork else history.last_seq
    return Order(recovery, parameters, options, recorded=not is_fork, after_seq=after)


def named(by: str, what: str) -> str:
    """Return who orders something that only a person may order.

    Raises:
        BadInput: nobody is named.
    """
    if not by.strip():
        raise BadInput("--by", f"{what} is ordered by name, and none is given", "Add --by NAME")
    return by


def who_plans(by: str, place: Place) -> str:
    """Return who asks for the plan of a way back: this account, unless somebody is named.

    Raises:
        BadInput: a worker is to make it.
    """
    if place.is_worker:
        raise BadInput(
            "--plan",
            "the plan of a way back is made in this process, not on a worker",
            "Leave --worker and --deployment out, or run the deployment from the UI with *Plan "
            "only*, the id to resume and your name for the undo",
        )
    return by.strip() or this_user()


def consented(options: Options) -> Options:
    """Return the options, whose consent is given by somebody.

    Raises:
        BadInput: a plan is approved, or done without, and nobody is named.
    """
    given = "--approve" if options.approve else "--break-glass" if options.break_glass else ""
    if given and not options.approved_by.strip():
        raise BadInput("--by", f"{given} is given by name, and none is given", "Add --by NAME")
    return options


def unknown_step(history: History, step: str, field: str) -> BadInput:
    """Say that a recovery has no such step, with the nearest of those it has."""
    keys = list(history.steps)
    return BadInput(
        field,
        f"recovery {history.recovery_id} has no step {step!r}",
        did_you_mean(step, keys) + f"`recover status {history.recovery_id}` has all of its steps",
    )


def given_options(options: Options) -> dict[str, Any]:
    """Return the options that differ from the defaults, by name."""
    usual = Options()
    return {name: value for name, value in vars(options).items() if value != getattr(usual, name)}
