"""How a setting stands, who reads it, and every reason not to change it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import Refused
from recovery.secrecy.secret import Secret
from recovery.steps import decision
from tasks.settings.consumers import Consumer, consumers_of
from tasks.settings.contents import as_it_stands, is_same, standing
from tasks.settings.order import Accepted, ConfigOrder, ObjectKind
from tasks.settings.value_types import fits, type_of
from tasks.workloads.interference import Interferer, owners_in

SHOWN_MAX = 20
TAKEN_BACK_BY = {
    Interferer.ARGO_CD: Accepted.ARGO_CD,
    Interferer.FLUX: Accepted.FLUX,
    Interferer.HELM: Accepted.HELM,
    Interferer.OPERATOR: Accepted.OPERATOR,
}


@dataclass(frozen=True)
class ConfigFound:
    """A setting as it was found.

    Attributes:
        uid: of the object.
        is_there: whether the key is.
        has_data: whether the object has any key.
        is_equal: whether the value is the wanted one already.
        before: the value of before; empty where it is secret or was not there.
        consumers: what is to be restarted, in this order.
        told: who else reads it, owns it, or was left out.
        left: whom a person has to restart, since this was told not to.
    """

    uid: str
    is_there: bool
    has_data: bool
    is_equal: bool
    before: str
    consumers: list[Consumer]
    told: list[str]
    left: list[str] = field(default_factory=list)

    @property
    def is_so(self) -> bool:
        """Whether there is nothing to do."""
        return self.is_equal and not self.consumers

    @property
    def seen(self) -> str:
        """How it stood, in a line."""
        if self.is_equal:
            late = ", ".join(map(str, self.consumers))
            return f"the value is set; older pods: {late}" if late else "the value is set and read"
        if not self.is_there:
            return "the key is not there"
        return f"the value is {self.before!r}" if self.before else "the value is another one"


@decision
def config_found(order: ConfigOrder) -> ConfigFound:
    """How the setting stands, and which workloads are restarted for it.

    Raises:
        Refused: there is no such object or key, it is immutable, somebody would take the change
            back, the value is of another type, nobody would see it, or a consumer is not well.
        BadInput: the new value cannot be read.
        ClusterForbidden, ClusterLoginRefused, Unreachable: see there.

    Runbook: docs/runbooks/config-value.md, steps 1 to 3.
    """
    with order.cluster.session() as session:
        read = _object(session, order)
        before = standing(order, read)
        wanted = order.source.read()
        is_equal = is_same(before, as_it_stands(order, wanted))
        _refuse_missing_key(order, read)
        owners = _owners(order, read)
        if not is_equal:
            _refuse_immutable(order, read)
            _refuse_other_type(order, before, wanted)
        consumers, told = consumers_of(session, order, read)
        due, left_out, left = _due(order, consumers, is_equal=is_equal)
    for one in due:
        _refuse_unwell(order, one)
    return ConfigFound(
        read["metadata"]["uid"],
        before is not None,
        bool(read.get("data")),
        is_equal,
        before if isinstance(before, str) and not order.is_secret else "",
        due,
        [*owners, *left_out, *told, *_who_else(due)],
        left,
    )


def _who_else(due: list[Consumer]) -> list[str]:
    """Who else changes what is restarted, or holds its pods."""
    return [f"{one}: {other}" for one in due for other in one.found.others]


def _object(session: KubernetesSession, order: ConfigOrder) -> Mapping[str, Any]:
    if (read := session.find(order.path)) is not None:
        return read
    remedy = f"See `kubectl get {order.kind.resource} --namespace {order.namespace}`"
    if order.kind is ObjectKind.CONFIG_MAP:  # to list Secrets is to read all of them
        listed = session.objects(path_of("v1", order.kind.resource, namespace=order.namespace))
        known = [one["metadata"]["name"] for one in listed]
        near = get_close_matches(order.name, known, 3, 0.5)
        remedy = f"The nearest are {', '.join(near)}" if near else f"There is {_some(known)}"
    reason = f"namespace {order.namespace} has no {order.kind}/{order.name}"
    raise Refused(order.label, reason, remedy)


def _refuse_missing_key(order: ConfigOrder, read: Mapping[str, Any]) -> None:
    if order.key in (read.get("binaryData") or {}):
        reason = f"{order.key} holds binary data, which is not changed by value"
        raise Refused(order.label, reason, "Replace the object from the file it was made of")
    known = sorted(read.get("data") or {})
    if order.key in known or order.is_added:
        return
    near = get_close_matches(order.key, known, 3, 0.5)
    there = f"The nearest are {', '.join(near)}" if near else f"There is {_some(known)}"
    raise Refused(order.label, f"it has no key {order.key}", f"{there}; add=true adds it")


def _refuse_immutable(order: ConfigOrder, read: Mapping[str, Any]) -> None:
    if read.get("immutable"):
        raise Refused(
            order.label,
            "it is immutable, which nothing can take back",
            "Create one of another name with the new value, let its consumers refer to that, and "
            "delete this one when none does",
        )


def _owners(order: ConfigOrder, read: Mapping[str, Any]) -> list[str]:
    owners = owners_in(read)
    for one in owners:
        accepted = TAKEN_BACK_BY.get(one.who)
        if accepted is not None and accepted not in order.accept:
            raise Refused(
                order.label,
                f"it is not ours alone: {one}",
                f"Change the value where that comes from; accept={accepted} changes it here as "
                "well, until it is taken back",
            )
    return [str(one) for one in owners]


def _refuse_other_type(
    order: ConfigOrder, before: Secret | str | None, wanted: Secret | str
) -> None:
    """A secret has no type that could be told of."""
    if isinstance(wanted, Secret) or Accepted.OTHER_TYPE in order.accept:
        return
    if order.value_type is not None:
        if not fits(wanted, order.value_type):
            reason = f"{wanted!r} is no {order.value_type}"
            raise Refused(order.label, reason, "Correct the value, or leave value_type out")
    elif isinstance(before, str) and before and not fits(wanted, kind := type_of(before)):
        raise Refused(
            order.label,
            f"{order.key} is a {kind} now ({before!r}), and {wanted!r} is none",
            f"Correct the value; where it is meant, accept={Accepted.OTHER_TYPE}",
        )


def _due(
    order: ConfigOrder, consumers: list[Consumer], *, is_equal: bool
) -> tuple[list[Consumer], list[str], list[str]]:
    """What is restarted, in the order that was given, why others are not, and what a person does.

    Whoever was started after the value was set has nothing to be restarted for.
    """
    known = {name: one for one in consumers for name in (str(one), one.workload.name)}
    for name in order.consumers:
        if name not in known:
            there = ", ".join(map(str, consumers)) or "nobody does"
            reason = f"{name} does not read {order.key} of {order.kind}/{order.name}"
            raise Refused(order.label, reason, f"Who does: {there}")
    chosen = [known[name] for name in order.consumers] if order.consumers else consumers
    told = [f"{one} reads it and was not named" for one in consumers if one not in chosen]
    due, left = [], []
    for one in chosen:
        if one.shadowed and not one.ways:
            _refuse_shadowed(order, one)
            told.append(f"{one} does not see it: {'; '.join(one.shadowed)}")
        elif one.found.state.wanted == 0:
            told.append(f"{one} is scaled to 0 and reads it when it starts")
        elif is_equal and one.has_it:
            continue
        elif order.is_restarted:
            due.append(one)
        else:
            left.append(f"restart {one}: it keeps the value it has read until then")
    return due, told, left


def _refuse_shadowed(order: ConfigOrder, one: Consumer) -> None:
    if Accepted.SHADOWED not in order.accept:
        raise Refused(
            order.label,
            f"{one} would not see the change: {'; '.join(one.shadowed)}",
            f"Change it there; accept={Accepted.SHADOWED} changes it here all the same",
        )


def _refuse_unwell(order: ConfigOrder, one: Consumer) -> None:
    state, pods = one.found.state, one.found.pods
    if state.hold:
        raise Refused(order.label, f"{one}: {state.hold}", "Have whoever set that end it")
    is_well = state.is_out and all(pod.is_ready and not pod.is_terminating for pod in pods)
    if not is_well and Accepted.NOT_WELL not in order.accept:
        raise Refused(
            order.label,
            f"{one} is not all there, so nobody could tell what the new value does to it: "
            f"{one.found.seen}",
            f"Mend that first, as by restart-service; where the value of now is the cause, "
            f"accept={Accepted.NOT_WELL}",
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return (", ".join(names[:SHOWN_MAX]) or "none at all") + more
