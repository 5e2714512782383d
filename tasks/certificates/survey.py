"""The look at every host: the step that everything else is judged by."""

from collections.abc import Sequence

from blocks.inventory import Inventory
from blocks.ssh.host import SshHost
from recovery.steps import probe
from tasks.certificates.look import look_at
from tasks.certificates.seen import Seen
from tasks.certificates.work import Node


def nodes_of(inventory: Inventory, users: Sequence[str]) -> list[Node]:
    """Every host with what is to be seen of it."""
    found = survey.over(inventory.hosts, users)
    return [Node(host, seen) for host, seen in zip(inventory.hosts, found, strict=True)]


@probe(each=("host",))
def survey(host: SshHost, users: Sequence[str]) -> Seen:
    """What is to be seen of a control-plane host: files, what is served, what runs, what is said.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root.
        UnreadableOutput: it answered something else.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 1.
    """
    return look_at(host, users)
