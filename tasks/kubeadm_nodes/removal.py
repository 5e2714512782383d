"""Removing the Node of a lost host, and giving its labels and taints to its successor."""

import json
from collections.abc import Iterable

from recovery.errors import Refused
from recovery.steps import act
from recovery.verdict import Danger, Verdict
from tasks.kubeadm_nodes.cluster import NodeObject, node_now
from tasks.kubeadm_nodes.lost import Lost
from tasks.kubeadm_nodes.membership import acting
from tasks.kubeadm_nodes.order import Replacement

WITHIN_SECONDS = 120.0
KUBECTL = ("kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "--request-timeout", "30s")


def delete_argv(lost: Lost) -> list[str]:
    """What deletes the Node."""
    return [*KUBECTL, "delete", "node", lost.name, "--ignore-not-found"]


def delete_commands(replacement: Replacement, lost: Lost) -> Iterable[str]:
    """What deletes it."""
    return [acting(replacement, lost).command_line(delete_argv(lost), as_root=True)]


def is_deleted(replacement: Replacement, lost: Lost) -> Verdict:
    """Whether the Node that was seen is gone; its successor may have the same name."""
    now = node_now(acting(replacement, lost), lost.name)
    return Verdict.of(now is None or now.uid != lost.uid)


def refuse_if_it_lives(replacement: Replacement, lost: Lost) -> None:
    """Refuse to delete a Node that has come back meanwhile; asked immediately before.

    Raises:
        Refused: it is Ready.
    """
    now = node_now(acting(replacement, lost), lost.name)
    if now is not None and now.uid == lost.uid and now.is_ready:
        raise Refused(
            replacement.label,
            f"the node {now.name} is Ready again: its host has come back",
            "Switch the host off, or `kubeadm reset` there, then resume: its member of etcd may be "
            "removed already, and it must not come back with the old data",
        )


@act(
    commands=delete_commands,
    done_when=is_deleted,
    refuse_if=(refuse_if_it_lives,),
    danger=Danger.DESTRUCTIVE,
)
def delete_node(replacement: Replacement, lost: Lost) -> None:
    """Delete the Node of the lost host: what ran there is started elsewhere.

    Labels and taints were kept before; volumes stay. Done twice, the second finds it gone.

    Raises:
        CommandFailed: the API said no.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 5.
    """
    host = acting(replacement, lost)
    host.change(delete_argv(lost), within_seconds=WITHIN_SECONDS, as_root=True)


def missing_in(now: NodeObject, lost: Lost) -> str:
    """What of the labels and taints of the lost node its successor does not have; empty: nothing.

    A taint that somebody has given to the successor meanwhile is not taken away.
    """
    labels = [key for key, value in lost.labels.items() if now.labels.get(key) != value]
    taints = [one.key for one in lost.taints if one not in now.taints]
    return ", ".join([*labels, *taints])


def patch_of(lost: Lost) -> str:
    """What gives the labels; the taints it registers with, so that nothing is placed before."""
    return json.dumps({"metadata": {"labels": lost.labels}}, sort_keys=True, separators=(",", ":"))


def put_back_argv(replacement: Replacement, lost: Lost) -> list[str]:
    """What gives them to it."""
    name = replacement.new_name
    return [*KUBECTL, "patch", "node", name, "--type", "merge", "--patch", patch_of(lost)]


def put_back_commands(replacement: Replacement, lost: Lost) -> Iterable[str]:
    """What gives them to it."""
    argv = put_back_argv(replacement, lost)
    return [acting(replacement, lost).command_line(argv, as_root=True)]


def are_put_back(replacement: Replacement, lost: Lost) -> Verdict:
    """Whether the successor has the labels and taints of the lost node."""
    now = node_now(acting(replacement, lost), replacement.new_name)
    if now is None or now.uid == lost.uid:
        return Verdict.NOT_DONE
    return Verdict.of(not missing_in(now, lost))


@act(commands=put_back_commands, done_when=are_put_back)
def put_back_labels(replacement: Replacement, lost: Lost) -> None:
    """Give the successor the labels that somebody had given to the lost node.

    Those of the kubelet, of kubeadm and of the cloud it has made itself; the taints it has
    registered with. Done twice is once.

    Raises:
        CommandFailed: the API said no.

    Runbook: docs/runbooks/kubeadm-nodes.md, step 7.
    """
    argv = put_back_argv(replacement, lost)
    acting(replacement, lost).change(argv, within_seconds=WITHIN_SECONDS, as_root=True)
