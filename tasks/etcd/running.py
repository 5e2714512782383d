"""How a member is run on its host: as a unit of systemd, or as a static pod of the kubelet.

Each step asks this and knows of no other way to stop a member, to start it, or to tell it of its
cluster. What it runs on, its data and its peers are the same either way.
"""

from collections.abc import Mapping
from typing import Protocol

from blocks.ssh.host import SshHost
from recovery.errors import Refused
from tasks.etcd.as_static_pod import KUBELET, MANIFEST, AsStaticPod
from tasks.etcd.as_unit import AsUnit, unit_found
from tasks.etcd.pod_settings import look_for_pod, pod_found
from tasks.etcd.settings import Found, Settings
from tasks.services import checked_name

UNIT = "etcd"


class Running(Protocol):
    """A member of etcd as its host runs it."""

    @property
    def unit(self) -> str:
        """The unit of systemd that it runs under, or that runs it."""

    @property
    def log(self) -> str:
        """Where what it says is read, for people."""

    def take_down_lines(self, wanted: Mapping[str, str], keep: str) -> list[str]:
        """The exact texts of what `take_down` sends."""

    def take_down(self, wanted: Mapping[str, str], keep: str) -> None:
        """Tell it of another cluster and stop it, in the order that a boot in between leaves safe.

        Args:
            wanted: flags of etcd and their values, which it reads once it has no data.
            keep: where its former settings are kept, unless they are already.

        Raises:
            NotVerified: it did not stop.
            CommandFailed: its host said no.
            Unreachable: no answer.
        """

    def stop(self) -> None:
        """Stop it; errors are those of `take_down`."""

    def start_lines(self) -> list[str]:
        """The exact texts of what `start` sends."""

    def start(self) -> None:
        """Start it, and do not wait until it serves."""

    def go_back_argv(self, data: str, aside: str, keep: str, *, had_data: bool) -> list[str]:
        """What moves its data of before back, with its settings, and starts it if it had any."""

    def is_at_rest(self) -> bool:
        """Whether it is stopped and nothing of it runs."""

    def is_told(self, wanted: Mapping[str, str]) -> bool:
        """Whether it would be started with these flags."""

    def is_up(self) -> bool:
        """Whether it runs; asked first, since etcdctl takes seconds where nobody listens yet."""

    def is_started(self) -> bool:
        """Whether it runs, or is about to."""

    def failure(self, *, is_queued: bool) -> str:
        """How it fails after its start, with what it logged; empty while that may still come."""

    def enable_argv(self) -> list[str]:
        """What has it started when its host boots."""

    def disable_argv(self) -> list[str]:
        """What leaves it at rest when its host boots."""

    def is_enabled(self) -> bool:
        """Whether it is started when its host boots."""


def running(host: SshHost, unit: str, settings: Settings) -> Running:
    """How the member with these settings is run."""
    if settings.is_static_pod:
        return AsStaticPod(host, settings)
    return AsUnit(host, unit, settings)


def found_on(host: SshHost, unit: str) -> tuple[Found | None, str]:
    """A member as its host runs it, and that for people; `None` where nothing there runs one.

    A unit that is at rest beside a static pod is one that a package has brought along.

    Args:
        host: its host.
        unit: of systemd that runs it; that of the kubelet: its static pod, whatever else is there.

    Raises:
        Unreachable: the host gave no answer.
        CommandFailed: it has no systemd.
        UnreadableOutput: what a tool printed is not understood.
        Refused: it is set up in a way that is not known here, or there are two.
    """
    pod = look_for_pod(host)
    found, told = (None, "") if unit == KUBELET else unit_found(host, unit)
    if pod is None or (found is not None and unit != checked_name(UNIT)):
        return found, told or "no static pod of etcd"
    if found is not None and found.is_running:
        raise Refused(
            host.target,
            f"it runs etcd as {found.told} and has a static pod of it ({MANIFEST})",
            f"Say which is meant: unit={KUBELET} for the static pod; where it is the unit, move "
            "that manifest out of the folder",
        )
    as_pod = pod_found(host, pod)
    return as_pod, as_pod.told
