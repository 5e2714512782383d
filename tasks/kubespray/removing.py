"""Taking a host out of the cluster, and what speaks against it by what holds at that moment."""

from collections.abc import Sequence

from recovery.errors import BadInput, CommandFailed, Refused, Unreachable
from recovery.steps import act, probe
from recovery.verdict import Danger
from tasks.kubespray import nodes, playbooks, recovering
from tasks.kubespray.etcd import Etcd, Member, address_of
from tasks.kubespray.layout import CONTROL_PLANE, ETCD, Layout
from tasks.kubespray.playbooks import Playbook
from tasks.kubespray.reading import Found
from tasks.kubespray.replacing import ReplacementDue, ReplacementWish
from tasks.kubespray.target import Kubespray


@probe
def refuse_unless_as_said(order: Kubespray, found: Found, wish: ReplacementWish) -> None:
    """Refuse where a host that is said to be gone is Ready, or one that is to be drained is not.

    Raises:
        Refused: the nodes of the API say otherwise.
        CommandFailed: the API does not answer.

    Runbook: docs/runbooks/kubespray.md, step 11.
    """
    seen = _ready(order, found.layout)
    _refuse_ready(order, wish, seen)
    if not wish.is_gone and not seen.get(wish.old, True):
        raise Refused(
            order.label,
            f"{wish.old} is not Ready: the playbook would wait for its drain and its reset",
            "Repair it, or power it off and set old_is_gone",
        )


def refuse_if_back(
    order: Kubespray, playbook: Playbook, found: Found, wish: ReplacementWish
) -> None:
    """Refuse a host that was gone and has come back: it would be neither drained nor reset.

    One that is to be drained may be no longer Ready where an earlier run has drained and reset it.

    Raises:
        Refused: it is Ready again.
        CommandFailed: the API does not answer.

    Runbook: docs/runbooks/kubespray.md, step 14.
    """
    if wish.is_gone and not playbooks.is_begun(order, playbook):
        _refuse_ready(order, wish, _ready(order, found.layout))


def refuse_unless_quorum_stands(
    order: Kubespray, playbook: Playbook, found: Found, due: ReplacementDue, wish: ReplacementWish
) -> None:
    """Refuse the removal of a member that the others could not do without.

    What is not there yet, in a plan, counts as it will be: the new member, healthy. Once it is
    there, it counts as healthy where a host says that all members are.

    Raises:
        Refused: too few others are healthy.
        Unreachable: one of them gives no answer.

    Runbook: docs/runbooks/kubespray.md, step 14.
    """
    layout = found.layout
    if wish.old not in layout.members(ETCD) or playbooks.is_begun(order, playbook):
        return
    others = [host for host in layout.members(ETCD) if host != wish.old]
    seen = Etcd(tuple(recovering.ask_all(order, layout, others)))
    healthy, total = counted(seen, layout, due, wish)
    if not total or healthy < total // 2 + 1:
        raise Refused(
            order.label,
            f"without {wish.old}, etcd would have {total} members and {healthy} healthy ones"
            if total
            else "etcd lists no members: it has no quorum",
            "Recover the others first; with quorum lost, `recover-control-plane`",
        )


def counted(
    seen: Etcd, layout: Layout, due: ReplacementDue, wish: ReplacementWish
) -> tuple[int, int]:
    """How many members are healthy without the old one, and how many there are; none: unknown."""
    if not seen.members:
        return 0, 0
    old, new = layout.addresses(wish.old), wish.new.addresses
    left = [one for one in seen.members if not _is_of(one, due.names.get(wish.old, ""), old)]
    if wish.is_gone:
        return len(seen.healthy), len(left)
    if not any(_is_of(one, due.names.get(wish.new.name, ""), new) for one in left):
        return len(seen.healthy) + 1, len(left) + 1
    is_new_healthy = any(one.are_all_healthy for one in seen.asked)
    return len(seen.healthy) + is_new_healthy, len(left)


@act(
    commands=playbooks.run_commands,
    done_when=playbooks.has_succeeded,
    refuse_if=(
        playbooks.refuse_unless_alone,
        playbooks.refuse_unless_understood,
        refuse_if_back,
        refuse_unless_quorum_stands,
    ),
    each=("playbook",),
    redo_stale=False,
    danger=Danger.DESTRUCTIVE,
)
def remove_node(
    order: Kubespray, playbook: Playbook, found: Found, due: ReplacementDue, wish: ReplacementWish
) -> None:
    """Run the playbook that drains, resets and removes the old host, or go on following it.

    What it does cannot be taken back. One that has failed is run anew by the next attempt, from its
    beginning, if the host is still as it was said to be and the other members stand.

    Raises:
        PlaybookFailed: tasks failed; names them with their hosts.
        UnitGone: there is no trace of how it ended; resuming runs it anew.
        NotVerified: it runs past the time it was given.
        Unreachable: no answer from the machine; the playbook goes on there.

    Runbook: docs/runbooks/kubespray.md, step 15.
    """
    del found, due, wish
    playbooks.run_playbook(order, playbook)


def _refuse_ready(order: Kubespray, wish: ReplacementWish, seen: dict[str, bool]) -> None:
    if wish.is_gone and seen.get(wish.old, False):
        raise Refused(
            order.label,
            f"{wish.old} is said to be gone, and its node is Ready",
            "Leave old_is_gone out: it is drained and reset then; or power it off",
        )


def _is_of(member: Member, name: str, addresses: Sequence[str]) -> bool:
    return (bool(name) and member.name == name) or address_of(member.peer) in addresses


def _ready(order: Kubespray, layout: Layout) -> dict[str, bool]:
    """Whether each node is Ready, as the first host of the control plane that answers has it.

    Raises:
        BadInput: none of them was named over SSH.
        CommandFailed: none answers.
    """
    error: CommandFailed | Unreachable | None = None
    for name in layout.members(CONTROL_PLANE):
        host = order.host_of(name, layout)
        if host is None:
            continue
        try:
            return {node.name: node.is_ready for node in nodes.nodes_of(host)}
        except (CommandFailed, Unreachable) as said:
            error = said
    if error is not None:
        raise error
    raise BadInput(
        "hosts",
        f"none of them is of {CONTROL_PLANE}",
        f"Name one of {' '.join(layout.members(CONTROL_PLANE))} as ssh://…",
    )
