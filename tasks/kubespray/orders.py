"""What a person asks for, as typed values: hosts that go and come, what playbooks are given."""

import re
from collections.abc import Sequence

from recovery.errors import BadInput
from tasks.kubespray.playbooks import Playbook
from tasks.kubespray.recovering import Wish
from tasks.kubespray.replacing import ReplacementDue, ReplacementWish
from tasks.kubespray.target import names_given, new_hosts

CONTROL_PLANE_LIMIT = "etcd,kube_control_plane"
RETRIES_MAX = 1000
MINUTES_MAX = 24 * 60
EVEN_IS_FINE = ("ignore_assert_errors", True)  # the validation wants an odd number of etcd hosts
PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+@-]+")


def recovery_wish(
    broken: Sequence[str], new: Sequence[str] | None, snapshot: str, *, comes_back: bool
) -> Wish:
    """Read what is lost and what takes its place.

    Raises:
        BadInput: it does not fit together.
    """
    lost, hosts = names_given(broken, "broken"), new_hosts(new or ())
    if comes_back and hosts:
        raise BadInput("new", "the lost hosts come back themselves", "Give new, or comes_back")
    if snapshot and not PLAIN_PATH.fullmatch(snapshot):
        raise BadInput(
            "etcd_snapshot", f"{snapshot!r} is no plain absolute path", "Start it with /"
        )
    return Wish(lost, hosts, comes_back, snapshot)


def recover_playbook(wish: Wish, etcd_retries: int, within_minutes: int) -> Playbook:
    """The run of recover-control-plane.yml.

    Raises:
        BadInput: a number is out of its range.
    """
    variables: list[tuple[str, str | int | bool]] = [("etcd_retries", _retries(etcd_retries))]
    if wish.snapshot:
        variables.append(("etcd_snapshot", wish.snapshot))
    return Playbook(
        "recover-control-plane",
        "recover-control-plane.yml",
        CONTROL_PLANE_LIMIT,
        tuple(variables),
        seconds_of(within_minutes),
    )


def replacement_wish(old: str, new: str, *, is_gone: bool) -> ReplacementWish:
    """Read which host goes and which comes.

    Raises:
        BadInput: it does not fit together.
    """
    (going,) = names_given([old], "old")
    coming = new_hosts([new])
    if not coming or coming[0].name == going:
        raise BadInput("new", f"{new!r}", "Write another host as name ansible_host=ADDRESS")
    return ReplacementWish(going, coming[0], is_gone)


def joining_playbook(due: ReplacementDue, etcd_retries: int, within_minutes: int) -> Playbook:
    """The run of cluster.yml that takes the new host in, beside the old one."""
    is_even = due.is_even_meanwhile
    return _cluster("join", etcd_retries, within_minutes, is_even=is_even)


def settling_playbook(etcd_retries: int, within_minutes: int) -> Playbook:
    """The run of cluster.yml that writes every configuration anew, once the old host is out."""
    return _cluster("settle", etcd_retries, within_minutes, is_even=False)


def _cluster(name: str, etcd_retries: int, minutes: int, *, is_even: bool) -> Playbook:
    variables: list[tuple[str, str | int | bool]] = [("etcd_retries", _retries(etcd_retries))]
    if is_even:
        variables.append(EVEN_IS_FINE)
    limit = CONTROL_PLANE_LIMIT
    return Playbook(name, "cluster.yml", limit, tuple(variables), seconds_of(minutes))


def control_plane_facts_playbook(file: str, within_minutes: int) -> Playbook:
    """The run of facts.yml before the role: it takes addresses from facts that are kept a day.

    Without them its first task fails unheeded, and what comes of that is for its luck.
    """
    return Playbook("facts", file, CONTROL_PLANE_LIMIT, (), seconds_of(within_minutes))


def facts_playbook(wish: ReplacementWish, file: str, within_minutes: int) -> Playbook:
    """The run of facts.yml: of all hosts, but one that is gone."""
    limit = f"all:!{wish.old}" if wish.is_gone else ""
    return Playbook("facts", file, limit, (), seconds_of(within_minutes))


def scale_playbook(wish: ReplacementWish, within_minutes: int) -> Playbook:
    """The run of scale.yml on the host that comes in."""
    return Playbook("scale", "scale.yml", wish.new.name, (), seconds_of(within_minutes))


def remove_playbook(wish: ReplacementWish, due: ReplacementDue, within_minutes: int) -> Playbook:
    """The run of remove-node.yml. It asks nobody: consent was given to the plan."""
    variables: list[tuple[str, str | int | bool]] = [
        ("node", wish.old),
        ("skip_confirmation", True),
    ]
    if due.is_even_meanwhile:
        variables.append(EVEN_IS_FINE)
    if wish.is_gone:
        variables += [("reset_nodes", False), ("allow_ungraceful_removal", True)]
    seconds = seconds_of(within_minutes)
    return Playbook("remove-node", "remove-node.yml", "", tuple(variables), seconds)


def seconds_of(within_minutes: int) -> float:
    """The time a playbook may take.

    Raises:
        BadInput: it is none, or longer than a day.
    """
    if not 0 < within_minutes <= MINUTES_MAX:
        raise BadInput("within_minutes", f"{within_minutes}", f"Give 1 to {MINUTES_MAX}")
    return within_minutes * 60.0


def _retries(etcd_retries: int) -> int:
    if not 0 < etcd_retries <= RETRIES_MAX:
        raise BadInput("etcd_retries", f"{etcd_retries}", f"Give 1 to {RETRIES_MAX}")
    return etcd_retries
