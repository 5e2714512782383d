"""The role of kubespray that recovers a control plane, run only where it falls into no trap."""

from recovery.errors import Refused
from recovery.steps import act, probe
from recovery.verdict import Danger
from tasks.kubespray import edits, playbooks
from tasks.kubespray.etcd import Etcd
from tasks.kubespray.layout import ETCD, MEMBER_NAME, Group, Layout
from tasks.kubespray.playbooks import Playbook
from tasks.kubespray.reading import Found
from tasks.kubespray.recovering import Due, Wish, ask_all
from tasks.kubespray.target import Kubespray
from tasks.kubespray.traps import Meant, traps


@probe
def refuse_traps(order: Kubespray, found: Found, due: Due, wish: Wish) -> None:
    """Refuse what is known to go wrong inside the role.

    Raises:
        Refused: names the trap, what would happen, and the way out.

    Runbook: docs/runbooks/kubespray.md, step 4.
    """
    _refuse(order, _meant(found, due, wish, due.etcd))
    etcd_size = len(projected(found.layout, due.change.edit).members(ETCD))
    if etcd_size % 2 == 0:
        raise Refused(
            order.label,
            f"etcd would have {etcd_size} hosts, and the playbook takes an odd number only",
            "Name as many new hosts as are broken, or one more or less",
        )


def refuse_traps_now(
    order: Kubespray, playbook: Playbook, found: Found, due: Due, wish: Wish
) -> None:
    """Refuse a run of the role that falls into a trap by what the survivors say now.

    Since the first look a survivor may have died. And where an earlier run of the role has failed
    behind its restore, the next one would count the hosts that are still to join as lost members.

    Raises:
        Refused: names the trap, what would happen, and the way out.
        Unreachable: a survivor gives no answer.

    Runbook: docs/runbooks/kubespray.md, step 4.
    """
    if playbooks.is_begun(order, playbook):
        return
    now = Etcd(tuple(ask_all(order, found.layout, due.survivors)))
    _refuse(order, _meant(found, due, wish, now))


@act(
    commands=playbooks.run_commands,
    done_when=playbooks.has_succeeded,
    refuse_if=(
        playbooks.refuse_unless_alone,
        playbooks.refuse_unless_understood,
        refuse_traps_now,
    ),
    each=("playbook",),
    redo_stale=False,
    danger=Danger.DESTRUCTIVE,
)
def recover_by_role(
    order: Kubespray, playbook: Playbook, found: Found, due: Due, wish: Wish
) -> None:
    """Run the role to its end, or go on following a run that an earlier attempt has started.

    What it does cannot be taken back. One that has failed is run anew by the next attempt, from its
    beginning, if it would fall into no trap then.

    Raises:
        PlaybookFailed: tasks failed; names them with their hosts.
        UnitGone: there is no trace of how it ended; resuming runs it anew.
        NotVerified: it runs past the time it was given.
        Unreachable: no answer from the machine; the playbook goes on there.

    Runbook: docs/runbooks/kubespray.md, step 8.
    """
    del found, due, wish
    playbooks.run_playbook(order, playbook)


def projected(layout: Layout, edit: edits.Edit) -> Layout:
    """The inventory as it will be once the edit is made."""
    variables = {host: dict(own) for host, own in layout.variables.items()}
    for host in edit.adds:
        variables.setdefault(host.name, {}).update(dict(host.variables))
    for name, member in edit.pins:
        variables.setdefault(name, {})[MEMBER_NAME] = member
    groups = {**layout.groups, **{name: Group(hosts) for name, hosts in edit.groups}}
    return Layout(variables, groups)


def _meant(found: Found, due: Due, wish: Wish, now: Etcd) -> Meant:
    edit = due.change.edit
    layout = projected(found.layout, edit)
    return Meant(layout, wish.broken, dict(edit.pins), now, wish.snapshot, due.etcd)


def _refuse(order: Kubespray, meant: Meant) -> None:
    for trap in traps(meant):
        raise Refused(order.label, f"{trap.name}: {trap.seen}", trap.remedy)
