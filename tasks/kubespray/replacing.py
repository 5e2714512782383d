"""What is due to replace one host by another: both changes of the inventory, who is asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from recovery.errors import BadInput, Refused
from recovery.steps import decision
from tasks.kubespray import edits, judging, reading, recovering
from tasks.kubespray.edits import Change, Edit
from tasks.kubespray.layout import CONTROL_PLANE, ETCD, WORKERS, Layout, NewHost
from tasks.kubespray.reading import Found
from tasks.kubespray.recovering import Finding
from tasks.kubespray.target import Kubespray

GROUPS = (CONTROL_PLANE, ETCD, WORKERS)


@dataclass(frozen=True)
class ReplacementWish:
    """Which host goes, which comes, and whether the one that goes is gone already."""

    old: str
    new: NewHost
    is_gone: bool

    @property
    def label(self) -> str:
        """Both names."""
        return f"{self.old} by {self.new.name}"


@dataclass(frozen=True)
class ReplacementDue:
    """What is to be done.

    Attributes:
        finding: whether there is anything to do.
        first: the change of the inventory at the beginning.
        second: the change once the old host is out of the cluster.
        names: the name in etcd of each of its hosts, old and new.
        members: the names that etcd is to have in the end.
        nodes: nodes that are to be Ready in the end.
        is_even_meanwhile: the playbooks see an even number of hosts of etcd in between.
    """

    finding: Finding
    first: Change
    second: Change
    names: dict[str, str]
    members: tuple[str, ...]
    nodes: tuple[str, ...]
    is_even_meanwhile: bool = False

    def members_with(self, old: str) -> tuple[str, ...]:
        """The members while the old host is there still."""
        own = self.names.get(old)
        return self.members if own is None else (*self.members, own)

    def __str__(self) -> str:
        """How the inventory changes."""
        if self.finding is Finding.WELL:
            return "nothing to do: the old host is not in the inventory, and the new one is"
        return f"{self.first}\nand in the end\n{self.second}"


@decision
def worker_due(order: Kubespray, found: Found, wish: ReplacementWish) -> ReplacementDue:
    """How the inventory changes to replace a worker.

    Raises:
        BadInput: it is none, or the new host is in the inventory already.

    Runbook: docs/runbooks/kubespray.md, steps 11 and 12.
    """
    layout = found.layout
    if done := _already(order, layout, wish, WORKERS):
        return done
    if wish.old not in layout.members(WORKERS) or wish.old in recovering.whole(layout):
        raise BadInput(
            "old",
            f"{wish.old} is no host of {WORKERS} alone",
            f"Name one of {' '.join(_alone(layout)) or 'none: there is none'}; one of the control "
            "plane or etcd is `replace-control-plane-node`'s",
        )
    _refuse_known(layout, wish)
    workers = layout.members(WORKERS)
    adding = Edit(adds=(wish.new,), groups=((WORKERS, (*workers, wish.new.name)),))
    final = tuple(wish.new.name if host == wish.old else host for host in workers)
    removing = Edit(removes=(wish.old,), groups=((WORKERS, _last(final, wish.new.name)),))
    return _due(order, adding, removing, (wish.new.name,))


@decision
def control_plane_due(order: Kubespray, found: Found, wish: ReplacementWish) -> ReplacementDue:
    """How the inventory changes to replace a host of the control plane or etcd.

    One that lives stays until the new one is in; one that is gone leaves first, since nothing joins
    while etcd has a member that does not answer.

    Raises:
        BadInput: it is none of them, the new host is in the inventory already, or etcd is no
            service of its hosts.
        Refused: it is gone and the first of its group, from which the playbooks do everything.

    Runbook: docs/runbooks/kubespray.md, steps 11 and 12.
    """
    layout = found.layout
    recovering.refuse_other_etcd(found)
    if done := _already(order, layout, wish, CONTROL_PLANE):
        return done
    if wish.old not in recovering.whole(layout):
        raise BadInput(
            "old",
            f"{wish.old} is neither of {CONTROL_PLANE} nor of {ETCD}",
            f"Name one of {' '.join(recovering.whole(layout))}; a worker is that of "
            "`replace-worker-node`",
        )
    _refuse_known(layout, wish)
    first = [group for group in (CONTROL_PLANE, ETCD) if layout.members(group)[0] == wish.old]
    if wish.is_gone and first:
        raise Refused(
            order.label,
            f"{wish.old} is gone, and is the first of {' and '.join(first)}: the playbooks do "
            "everything from there",
            f"`recover-control-plane` with broken={wish.old} puts one that lives first",
        )
    own = [group for group in GROUPS if wish.old in layout.members(group)]
    others = {group: [h for h in layout.members(group) if h != wish.old] for group in own}
    pins = edits.pins(layout, (wish.new,) if ETCD in own else ())
    if wish.is_gone:
        opening = Edit(pins=tuple(pin for pin in pins if pin[0] != wish.new.name))
        closing_adds: tuple[NewHost, ...] = (wish.new,)
    else:
        opening = Edit(
            pins=pins,
            adds=(wish.new,),
            groups=tuple(
                (group, (*hosts, wish.old, wish.new.name)) for group, hosts in others.items()
            ),
        )
        closing_adds = ()
    closing = Edit(
        pins=tuple(pin for pin in pins if pin[0] != wish.old),
        adds=closing_adds,
        groups=tuple((group, (*hosts, wish.new.name)) for group, hosts in others.items()),
        removes=(wish.old,),
    )
    ready = (*[h for h in layout.members(CONTROL_PLANE) if h != wish.old],)
    comes = (wish.new.name,) if CONTROL_PLANE in own or WORKERS in own else ()
    return _due(order, opening, closing, (*ready, *comes), dict(pins))


def _due(
    order: Kubespray,
    opening: Edit,
    closing: Edit,
    ready: Sequence[str],
    names: dict[str, str] | None = None,
) -> ReplacementDue:
    text = reading.text_of(order)
    between = edits.applied(text, order.inventory, opening)
    second = edits.change_of(between, order.inventory, closing)
    after = judging.document_of(
        edits.applied(between, order.inventory, closing), order.inventory
    ).layout()
    etcd = after.members(ETCD)
    meanwhile = judging.document_of(between, order.inventory).layout().members(ETCD)
    return ReplacementDue(
        Finding.BROKEN,
        edits.change_of(text, order.inventory, opening),
        second,
        names or {},
        tuple((names or {})[host] for host in etcd) if names else (),
        tuple(ready),
        len(meanwhile) % 2 == 0,
    )


def _already(
    order: Kubespray, layout: Layout, wish: ReplacementWish, group: str
) -> ReplacementDue | None:
    is_in = wish.new.name in (*layout.members(group), *layout.members(ETCD))
    if wish.old in layout.hosts or not is_in:
        return None
    nothing = edits.change_of(reading.text_of(order), order.inventory, Edit())
    names = judging.member_names(layout) if group != WORKERS else {}
    ready = tuple(
        name
        for name in (wish.new.name,)
        if name in (*layout.members(CONTROL_PLANE), *layout.members(WORKERS))
    )
    return ReplacementDue(Finding.WELL, nothing, nothing, names, tuple(names.values()), ready)


def _refuse_known(layout: Layout, wish: ReplacementWish) -> None:
    if wish.new.name in layout.hosts:
        raise BadInput("new", f"{wish.new.name} is in the inventory already", "Name a new host")


def _alone(layout: Layout) -> list[str]:
    return [host for host in layout.members(WORKERS) if host not in recovering.whole(layout)]


def _last(hosts: Sequence[str], name: str) -> tuple[str, ...]:
    return (*[host for host in hosts if host != name], name)
