"""Where playbooks are run from: the worker's own machine, or a deploy host over SSH.

Both take the same few calls, and both let a command go on when the worker is lost.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from blocks.inventory import host_named, leased_places, place_of
from blocks.local import detached as local_detached
from blocks.local.machine import LocalMachine
from blocks.ssh import detached as ssh_detached
from blocks.ssh.command import Answer
from blocks.ssh.detached import Detached, DetachedCommand
from blocks.ssh.host import SshHost
from blocks.ssh.login import own_user
from recovery.secrecy.secret import Secret


class DeployMachine(Protocol):
    """What a playbook is run from."""

    @property
    def label(self) -> str:
        """Its name in messages."""

    @property
    def places(self) -> list[str]:
        """What is leased of it, so that nobody reboots it meanwhile."""

    def session(self) -> contextlib.AbstractContextManager[object]:
        """Keep a connection for what is run inside."""

    def home(self) -> str:
        """The home of the account that runs the playbooks."""

    def line(self, argv: Sequence[str]) -> str:
        """The exact text of a command, for the plan."""

    def read(
        self, argv: Sequence[str], *, within_seconds: float = 60, accept: tuple[int, ...] = (0,)
    ) -> Answer:
        """Run a command that changes nothing."""

    def text_of(self, argv: Sequence[str], *, within_seconds: float = 60) -> str:
        """What a command that changes nothing prints; the evidence keeps none of it."""

    def change(
        self, argv: Sequence[str], *, within_seconds: float = 60, stdin: Secret | None = None
    ) -> Answer:
        """Run a command that changes something."""

    def detached_lines(self, command: DetachedCommand) -> list[str]:
        """The exact texts of what starts and settles a command that goes on, for the plan."""

    def start(self, command: DetachedCommand) -> None:
        """Start it, or adopt it."""

    def look(self, command: DetachedCommand) -> Detached:
        """How far it is."""

    def settle(self, command: DetachedCommand) -> None:
        """Take it away once it has ended."""


@dataclass(frozen=True)
class OwnMachine:
    """The worker's own machine."""

    machine: LocalMachine = field(default_factory=LocalMachine)

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.machine.label

    @property
    def places(self) -> list[str]:
        """Nothing: its name is part of the target."""
        return []

    def session(self) -> contextlib.AbstractContextManager[object]:
        """Nothing is opened."""
        return self.machine.session()

    def home(self) -> str:
        """The home of the worker's account."""
        return self.machine.home

    def line(self, argv: Sequence[str]) -> str:
        """The exact text of a command, for the plan."""
        return self.machine.command_line(argv)

    def read(
        self, argv: Sequence[str], *, within_seconds: float = 60, accept: tuple[int, ...] = (0,)
    ) -> Answer:
        """See `LocalMachine.read`."""
        return self.machine.read(argv, within_seconds=within_seconds, accept=accept)

    def text_of(self, argv: Sequence[str], *, within_seconds: float = 60) -> str:
        """See `LocalMachine.text_of`."""
        return self.machine.text_of(argv, within_seconds=within_seconds)

    def change(
        self, argv: Sequence[str], *, within_seconds: float = 60, stdin: Secret | None = None
    ) -> Answer:
        """See `LocalMachine.change`."""
        return self.machine.change(argv, within_seconds=within_seconds, stdin=stdin)

    def detached_lines(self, command: DetachedCommand) -> list[str]:
        """See `local_detached`."""
        return [
            local_detached.start_line(self.machine, command),
            local_detached.settle_line(self.machine, command),
        ]

    def start(self, command: DetachedCommand) -> None:
        """See `local_detached.start`."""
        local_detached.start(self.machine, command)

    def look(self, command: DetachedCommand) -> Detached:
        """See `local_detached.look`."""
        return local_detached.look(self.machine, command)

    def settle(self, command: DetachedCommand) -> None:
        """See `local_detached.settle`."""
        local_detached.settle(self.machine, command)


@dataclass(frozen=True)
class DeployHost:
    """A host over SSH. What goes on is a unit of its systemd, as the account that logs in."""

    host: SshHost

    @property
    def label(self) -> str:
        """Its name in messages."""
        return place_of(self.host)

    @property
    def places(self) -> list[str]:
        """The host under each of its names."""
        return leased_places([self.host], "deploy_host")

    @contextlib.contextmanager
    def session(self) -> Iterator[object]:
        """See `SshHost.session`."""
        with self.host.session():
            yield self

    def home(self) -> str:
        """The home of the account that logs in."""
        return self.host.read(["printenv", "HOME"], within_seconds=20).whole().strip()

    def line(self, argv: Sequence[str]) -> str:
        """The exact text of a command, for the plan."""
        return self.host.command_line(argv)

    def read(
        self, argv: Sequence[str], *, within_seconds: float = 60, accept: tuple[int, ...] = (0,)
    ) -> Answer:
        """See `SshHost.read`."""
        return self.host.read(argv, within_seconds=within_seconds, accept=accept)

    def text_of(self, argv: Sequence[str], *, within_seconds: float = 60) -> str:
        """See `SshHost.read_into`."""
        printed = io.BytesIO()
        self.host.read_into(argv, printed, within_seconds=within_seconds)
        return printed.getvalue().decode(errors="replace")

    def change(
        self, argv: Sequence[str], *, within_seconds: float = 60, stdin: Secret | None = None
    ) -> Answer:
        """See `SshHost.change`."""
        return self.host.change(argv, within_seconds=within_seconds, stdin=stdin)

    def detached_lines(self, command: DetachedCommand) -> list[str]:
        """See `ssh_detached.run_lines`."""
        return ssh_detached.run_lines(self.host, self._as_login(command))

    def start(self, command: DetachedCommand) -> None:
        """See `ssh_detached.start`."""
        ssh_detached.start(self.host, self._as_login(command))

    def look(self, command: DetachedCommand) -> Detached:
        """See `ssh_detached.look`."""
        return ssh_detached.look(self.host, self._as_login(command))

    def settle(self, command: DetachedCommand) -> None:
        """See `ssh_detached.settle`."""
        ssh_detached.settle(self.host, self._as_login(command))

    def _as_login(self, command: DetachedCommand) -> DetachedCommand:
        """The command as the account that logs in: a unit of the host runs as root."""
        if self.host.is_root:
            return command
        argv = ("runuser", "-u", self.host.user or own_user(), "--", *command.argv)
        return DetachedCommand(command.name, argv, command.within_seconds)


def deploy_machine(given: str, field: str = "deploy_host") -> DeployMachine:
    """Read the parameter: empty is the worker's own machine, else one host.

    Raises:
        BadInput: it names no host, or several.
    """
    return DeployHost(host_named(given, field)) if given.strip() else OwnMachine()
