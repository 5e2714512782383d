"""What a person asks for, as typed values: hosts that go and come, what playbooks are given."""

import re
from collections.abc import Sequence

from recovery.errors import BadInput
from tasks.kubespray.playbooks import Playbook
from tasks.kubespray.recovering import Wish
from tasks.kubespray.target import names_given, new_hosts

RETRIES_MAX = 1000
MINUTES_MAX = 24 * 60
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
        "etcd,kube_control_plane",
        tuple(variables),
        seconds_of(within_minutes),
    )


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
