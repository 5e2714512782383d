"""Making the probes of a container laxer: what is written, and why not."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from recovery.errors import Refused
from tasks.containers.causes import Cause, Ending
from tasks.containers.change import Change, change, written
from tasks.containers.order import ContainerOrder, ProbeKind

DEFAULTS = {"periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3}
GRACE_SECONDS = 30
BY_PROBE = {Cause.LIVENESS, Cause.STARTUP}


def value_of(probe: Mapping[str, Any], name: str) -> int:
    """A number of a probe, with the API's default where it is not there."""
    return int(probe.get(name) or DEFAULTS.get(name, 0))


def budget_seconds(probe: Mapping[str, Any]) -> int:
    """How long a container may fail a probe from its start on before it is restarted."""
    spent = value_of(probe, "periodSeconds") * value_of(probe, "failureThreshold")
    return value_of(probe, "initialDelaySeconds") + spent


def starting_seconds(container: Mapping[str, Any]) -> int:
    """How long the container may take to start before a probe restarts it; 0 where none does."""
    probe = container.get("startupProbe") or container.get("livenessProbe")
    return budget_seconds(probe) if probe else 0


def probe_changes(order: ContainerOrder, container: Mapping[str, Any]) -> list[Change]:
    """What makes the probes as they are asked to be; none where they are.

    Raises:
        Refused: there is no such probe, or it would become stricter.
    """
    changes = _startup_changes(order, container) if order.probes.startup_seconds else []
    if not order.probes.fields:
        return changes
    kind = order.probes.probe
    probe = container.get(kind.field)
    if not probe:
        reason = f"container {container['name']} has no {kind} probe"
        raise Refused(order.label, reason, "Name another probe; without one, none restarts it")
    wanted = {**probe, **order.probes.fields}
    if budget_seconds(wanted) < budget_seconds(probe):
        raise Refused(
            order.label,
            f"the {kind} probe would become stricter: {budget_seconds(probe)} s of failures are "
            f"allowed now, and {budget_seconds(wanted)} s would be",
            "Raise failure_threshold with period_seconds",
        )
    for name, value in order.probes.fields.items():
        if name == "timeoutSeconds" and value < value_of(probe, name):
            reason = f"the {kind} probe would wait {value} s, and waits {value_of(probe, name)} s"
            raise Refused(order.label, reason, "Raise timeout_seconds, or leave it out")
        if value != value_of(probe, name):
            changes.append(change(container, f"/{kind.field}/{name}", value))
    return changes


def _startup_changes(order: ContainerOrder, container: Mapping[str, Any]) -> list[Change]:
    """A startup probe that gives so many seconds: the liveness probe waits for its first success.

    A larger initialDelaySeconds would hold off the liveness probe after quick starts as well.
    """
    wanted, startup = order.probes.startup_seconds, container.get("startupProbe")
    probe = startup or container.get("livenessProbe")
    if not probe:
        reason = f"container {container['name']} has neither a startup nor a liveness probe"
        remedy = "No probe restarts it: see how it ends, in its previous log"
        raise Refused(order.label, reason, remedy)
    period = value_of(probe, "periodSeconds")
    if startup:
        now = budget_seconds(startup)
        rest = max(0, wanted - value_of(startup, "initialDelaySeconds"))
        threshold = max(1, math.ceil(rest / period))
        if threshold < value_of(startup, "failureThreshold"):
            reason = f"it may take {now} s to start now, and could take {wanted} s only"
            raise Refused(order.label, reason, f"Give more than {now} as startup_seconds")
        same = threshold == value_of(startup, "failureThreshold")
        return [] if same else [change(container, "/startupProbe/failureThreshold", threshold)]
    threshold = max(1, math.ceil(wanted / period))
    if threshold * period <= budget_seconds(probe):
        now = budget_seconds(probe)
        reason = f"its liveness probe already lets it take {now} s to start"
        raise Refused(order.label, reason, f"Give more than {now} as startup_seconds")
    where = "/startupProbe/failureThreshold"
    return [Change(where, "", written(threshold), copied_from="/livenessProbe")]


def refuse_unless_probes_restart_it(
    order: ContainerOrder, container: Mapping[str, Any], mine: Sequence[Ending]
) -> None:
    """Refuse laxer probes where no probe, or not in this way, is what restarts the container.

    Args:
        order: what was asked for.
        container: as its workload has it.
        mine: how it ended, in each pod, by a probe.

    Raises:
        Refused: a probe ends it otherwise than what is asked for would mend.
    """
    wish = order.probes
    told = "; ".join(map(str, mine[:3]))
    if {one.cause for one in mine} == {Cause.STARTUP} and not wish.startup_seconds:
        reason = f"its startup probe is what fails, and that stays as it is: {told}"
        raise Refused(order.label, reason, "Give startup_seconds")
    if wish.startup_seconds and not wish.fields:
        budget = starting_seconds(container) + GRACE_SECONDS
        budget += value_of(container.get("livenessProbe") or {}, "periodSeconds")
        if all(one.lived_seconds > budget for one in mine):
            reason = (
                f"it had started long before: it was ended after "
                f"{min(one.lived_seconds for one in mine)} s or more, and a startup probe is done "
                f"with its first success: {told}"
            )
            remedy = (
                "See in its previous log what it hangs on; timeout_seconds or failure_threshold "
                "help where it is only slow"
            )
            raise Refused(order.label, reason, remedy)
    only_timeout = set(wish.fields) == {"timeoutSeconds"} and not wish.startup_seconds
    if only_timeout and not any(one.is_slow for one in mine):
        reason = f"its probe gets an answer, and a bad one, so that more time is of no use: {told}"
        remedy = "See why it answers so; where it only starts slowly, give startup_seconds"
        raise Refused(order.label, reason, remedy)
    if wish.fields and wish.probe is ProbeKind.READINESS and not wish.startup_seconds:
        reason = "readiness probes restart nothing; they only take a pod out of its Service"
        raise Refused(order.label, reason, f"Name the probe that does: {told}")


def refuse_if_late_by_itself(order: ContainerOrder, read: Mapping[str, Any]) -> None:
    """Refuse a start that may take longer than the rollout is given.

    Args:
        order: what was asked for.
        read: the workload.

    Raises:
        Refused: its pods would be given up before they have had their time.
    """
    wanted = order.probes.startup_seconds
    deadline = read["spec"].get("progressDeadlineSeconds")
    if wanted > order.within_seconds:
        reason = f"it may take {wanted} s to start, and is waited for {order.within_seconds} s"
        raise Refused(order.label, reason, "Raise within_seconds above startup_seconds")
    if deadline is not None and wanted > int(deadline):
        reason = f"it may take {wanted} s to start, and its progressDeadlineSeconds is {deadline}"
        raise Refused(order.label, reason, "Have that raised, or give less as startup_seconds")
