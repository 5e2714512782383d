"""What is due for a control plane that has lost hosts: what is broken, what takes its place."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from enum import StrEnum

from blocks.ssh.host import SshHost
from recovery.errors import BadInput, Refused
from recovery.steps import decision
from tasks.kubespray import edits, etcd, judging, reading
from tasks.kubespray.edits import Change
from tasks.kubespray.etcd import Asked, Etcd
from tasks.kubespray.layout import CONTROL_PLANE, ETCD, Layout, NewHost
from tasks.kubespray.reading import Found
from tasks.kubespray.target import Kubespray

ASKED_AT_ONCE = 8


class Finding(StrEnum):
    """What was found."""

    WELL = "well"
    BROKEN = "broken"


@dataclass(frozen=True)
class Wish:
    """What a person asks for.

    Attributes:
        broken: hosts that are lost, by their names in the inventory.
        new: hosts that take their places.
        comes_back: the broken hosts were installed anew, and take their own places.
        snapshot: a snapshot on the machine of the playbooks; empty: the role takes one.
    """

    broken: tuple[str, ...]
    new: tuple[NewHost, ...]
    comes_back: bool
    snapshot: str

    @property
    def label(self) -> str:
        """What is to take the place of what."""
        others = "themselves" if self.comes_back else " ".join(one.name for one in self.new)
        return f"{' '.join(self.broken)} by {others or 'nothing'}"


@dataclass(frozen=True)
class Due:
    """What was found and is to be done.

    Attributes:
        finding: whether there is anything to do.
        etcd: as it was.
        survivors: hosts that live, the one to go on from first.
        change: of the inventory, before the playbook.
        closing: of the inventory, after it.
        members: the names that etcd is to have in the end.
        nodes: the nodes of the control plane in the end.
        gone: nodes that are to be gone then.
    """

    finding: Finding
    etcd: Etcd
    survivors: tuple[str, ...]
    change: Change
    closing: Change
    members: tuple[str, ...]
    nodes: tuple[str, ...]
    gone: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What was found, and how the inventory changes."""
        if self.finding is Finding.WELL:
            return f"nothing to do: {self.etcd}"
        return f"{self.etcd}; survivors {' '.join(self.survivors)}\n{self.change}"


@decision
def recovery_due(order: Kubespray, found: Found, wish: Wish) -> Due:
    """What is broken, who lives, and how the inventory has to change.

    Every host of etcd and the control plane must be named as broken, or live and be asked: one of
    which nothing is known counts as failed.

    Raises:
        BadInput: a host is not in the inventory, or none over SSH was named for one that lives.
        Refused: a host that is called broken is healthy.

    Runbook: docs/runbooks/kubespray.md, steps 2 and 3.
    """
    layout = found.layout
    refuse_other_etcd(found)
    if not any(host in layout.hosts for host in wish.broken):
        return _already(order, layout, wish)
    _refuse_unknown(layout, wish)
    asked = ask_all(order, layout, [host for host in whole(layout) if host not in wish.broken])
    seen = Etcd(tuple(asked))
    if wish.comes_back and (done := _came_back(order, layout, wish, seen)):
        return done
    _refuse_healthy(order, layout, wish, seen)
    survivors = etcd.best_first(asked)
    edit = edits.recovery_edit(layout, survivors, wish.broken, wish.new, comes_back=wish.comes_back)
    text = reading.text_of(order)
    change = edits.change_of(text, order.inventory, edit)
    after = edits.applied(text, order.inventory, edit)
    closing = edits.change_of(
        after, order.inventory, edits.closing_edit(wish.broken, comes_back=wish.comes_back)
    )
    final = judging.document_of(after, order.inventory).layout()
    names = judging.member_names(final)
    return Due(
        Finding.BROKEN,
        seen,
        tuple(survivors),
        change,
        closing,
        tuple(names[host] for host in final.members(ETCD)),
        final.members(CONTROL_PLANE),
        () if wish.comes_back else wish.broken,
    )


def refuse_other_etcd(found: Found) -> None:
    """Refuse a cluster whose etcd is no service of its hosts.

    Raises:
        BadInput: it is not.
    """
    if found.etcd_type and found.etcd_type != "host":
        raise BadInput(
            "inventory, etcd_deployment_type",
            f"etcd is deployed as {found.etcd_type}",
            "This recovery is for etcd as a service of its hosts (host): a static pod of kubeadm "
            "is left to the recoveries of kubeadm clusters",
        )


def whole(layout: Layout) -> list[str]:
    """All hosts of etcd and the control plane."""
    return list(dict.fromkeys([*layout.members(ETCD), *layout.members(CONTROL_PLANE)]))


def ask_all(order: Kubespray, layout: Layout, hosts: Sequence[str]) -> list[Asked]:
    """Ask hosts about etcd, side by side.

    Raises:
        BadInput: none over SSH was named for one of them.
        Unreachable: one gives no answer.
    """
    if not hosts:
        return []
    named = {name: order.host_of(name, layout) for name in hosts}
    if missing := [name for name, host in named.items() if host is None]:
        raise BadInput(
            "hosts",
            f"none of them is {missing[0]} ({', '.join(layout.addresses(missing[0]))})",
            f"Name {missing[0]} in hosts as ssh://…, or in broken if it is lost",
        )
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        futures = [
            pool.submit(copy_context().run, _ask, host, name, name in layout.members(ETCD))
            for name, host in named.items()
            if host is not None
        ]
        return [future.result() for future in futures]


def _ask(host: SshHost, name: str, is_etcd: bool) -> Asked:  # noqa: FBT001 (of a host)
    if is_etcd:
        return etcd.ask(host, name)
    host.read(["true"], within_seconds=etcd.WITHIN_SECONDS)
    return Asked(name)


def _refuse_unknown(layout: Layout, wish: Wish) -> None:
    for host in wish.broken:
        if host not in whole(layout):
            raise BadInput(
                "broken",
                f"{host} is neither of etcd nor of the control plane",
                f"Name one of {' '.join(whole(layout))}; a worker is `replace-worker-node`'s",
            )
    for new in wish.new:
        if new.name in whole(layout):
            raise BadInput("new", f"{new.name} is in the inventory already", "Name a new host")


def _refuse_healthy(order: Kubespray, layout: Layout, wish: Wish, seen: Etcd) -> None:
    """Ask those that are called broken and were named over SSH all the same: they may be well."""
    reachable = [host for host in wish.broken if order.host_of(host, layout) is not None]
    for host in reachable:
        try:
            again = ask_all(order, layout, [host])
        except BadInput:  # installed anew: it has no etcd yet
            continue
        if again[0].is_healthy:
            raise Refused(
                order.label,
                f"{host} is called broken, and its etcd is healthy",
                "Leave it out of broken, or out of hosts if it is to be given up: "
                "`replace-control-plane-node` replaces one that lives",
            )
    if not seen.asked:
        raise Refused(
            order.label,
            "no host of the control plane lives",
            "Restore etcd from a snapshot with `recover-etcd-quorum` on a new host first; without "
            "a snapshot and the certificates of the cluster, it has to be installed anew",
        )


def _already(order: Kubespray, layout: Layout, wish: Wish) -> Due:
    """None of the broken hosts is in the inventory any more: the new ones must be there, and well.

    Raises:
        BadInput: they are not: then the names are wrong.
    """
    names = judging.member_names(layout)
    named = [host for host in whole(layout) if order.host_of(host, layout) is not None]
    seen = Etcd(tuple(ask_all(order, layout, named)))
    members = {member.name for member in seen.members}
    is_there = all(one.name in whole(layout) for one in wish.new)
    if not is_there or not wish.new or members != set(names.values()):
        raise BadInput(
            "broken",
            f"{wish.broken[0]} is not in the inventory",
            f"Name hosts of {ETCD} and {CONTROL_PLANE}: {' '.join(whole(layout))}",
        )
    return _well(order, layout, seen)


def _came_back(order: Kubespray, layout: Layout, wish: Wish, seen: Etcd) -> Due | None:
    reachable = [host for host in wish.broken if order.host_of(host, layout) is not None]
    if len(reachable) < len(wish.broken):
        return None
    try:
        again = ask_all(order, layout, reachable)
    except BadInput:  # nothing is installed there yet
        return None
    if not all(one.is_healthy for one in again):
        return None
    return _well(order, layout, Etcd((*seen.asked, *again)))


def _well(order: Kubespray, layout: Layout, seen: Etcd) -> Due:
    nothing = edits.change_of(reading.text_of(order), order.inventory, edits.Edit())
    names = judging.member_names(layout)
    return Due(
        Finding.WELL,
        seen,
        seen.healthy,
        nothing,
        nothing,
        tuple(names.values()),
        layout.members(CONTROL_PLANE),
    )
