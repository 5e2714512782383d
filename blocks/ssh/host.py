"""A host reached over SSH, as a block: commands, files and forwarded connections on it."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, ClassVar, Self

from prefect.blocks.core import Block
from pydantic import Field

from blocks.ssh.command import Answer, Order, Sudo, require_exit_code
from blocks.ssh.connection import Via
from blocks.ssh.deadline import Deadline
from blocks.ssh.endpoint import SshEndpoint
from blocks.ssh.fence import (
    HostFence,
    Raised,
    guarded,
    is_unheard_of,
    refuse_fenced,
)
from blocks.ssh.fence_scripts import EXIT_CODE, SAYS
from blocks.ssh.files import (
    Fetched,
    copy_by_cat,
    copy_by_sftp,
    framed,
    parse_sha256sum,
    put_argv,
    start_sftp,
)
from blocks.ssh.forwarding import forward
from blocks.ssh.sending import send
from blocks.ssh.sudo import sudo_argv
from blocks.ssh.url import path_in_url
from recovery.commands import changing, reading
from recovery.errors import AnswerLost, CommandFailed, NotVerified, Unreachable
from recovery.secrecy.secret import Secret
from recovery.walk import Fence, current_fence

__all__ = ["SshHost", "path_in_url"]

NO_SUDO = 127
SECRET_SECONDS = 30.0
FENCES_MAX = 3  # a guard around a guard: as it was named, and its first two addresses
FENCE_EXIT_CODES = (0, EXIT_CODE, NO_SUDO)


class SshHost(SshEndpoint, Block):
    """A host and the references to what logs in to it; no secret is kept in the block itself.

    Its host key must be known, and that of every jump host: pinned by fingerprint, or in a
    known_hosts file. The agent is asked for signatures only and is never forwarded.

    Example:
        ```python
        host = SshHost(address="db1", user="ops", host_key="SHA256:…", key_file="/run/keys/ops")
        with host.session():
            print(host.read(["uptime"]).stdout)
        ```
    """

    _block_type_name: ClassVar[str | None] = "SSH host"
    _block_type_slug: ClassVar[str | None] = "ssh-host"
    _description: ClassVar[str | None] = (
        "A host that recoveries reach over SSH. Holds references to credentials on the worker "
        "(files, environment variables, Secret blocks, the agent), never the credentials."
    )

    output_max_bytes: int = Field(default=1_000_000, ge=1000)

    def command_line(self, argv: Sequence[str], *, as_root: bool = False) -> str:
        """The exact text of a command, for the plan; `as_root`: through sudo, unless it is root."""
        if isinstance(argv, str) or not argv:
            raise TypeError("a command is a sequence of its parts, never a string")
        if not as_root or self.is_root:
            return shlex.join(argv)
        return shlex.join(sudo_argv(argv, with_password=self.sudo_password.is_given))

    def put_line(
        self, path: str, *, mode: int = 0o600, owner: str = "", as_root: bool = False
    ) -> str:
        """The exact text of `put`, for the plan; the content is no part of it."""
        return self.command_line(put_argv(path, mode, owner), as_root=as_root)

    @contextlib.contextmanager
    def session(self) -> Iterator[Self]:
        """Keep one connection for all that is run inside; opened at the first command.

        Sessions nest and may be shared by threads. A connection found dead is opened anew before
        a command is sent, never after. Steps need none: between them it is kept for a while.
        """
        with self.way().session():
            yield self

    def read(
        self,
        argv: Sequence[str],
        *,
        within_seconds: float = 60,
        accept: tuple[int, ...] = (0,),
        stdin: Secret | None = None,
        as_root: bool = False,
    ) -> Answer:
        """Run a command that changes nothing and return its answer.

        Args:
            argv: the command and its arguments, each quoted as it is; no shell reads them.
            within_seconds: for connecting, running and the whole output.
            accept: the exit codes that are an answer.
            stdin: what the command reads from its standard input.
            as_root: through sudo, unless the login is root.

        Raises:
            Unreachable: no answer, or not all of it; asking again may help.
            HostKeyRefused: the host, or one on the way, is not known to be the one meant.
            LoginRefused: it let us not in.
            SudoRefused: this login may not do that as root.
            CommandFailed: another exit code, or ended by a signal.
            BadInput: a reference to a credential leads nowhere.
        """
        order = self._order(argv, within_seconds, stdin, is_change=False, as_root=as_root)
        return self._run(order, accept)

    def change(
        self,
        argv: Sequence[str],
        *,
        within_seconds: float = 60,
        accept: tuple[int, ...] = (0,),
        stdin: Secret | None = None,
        as_root: bool = False,
    ) -> Answer:
        """Run a command that changes the host and return its answer.

        Arguments and errors are those of `read`. In a recovery the host itself refuses it where it
        has heard of a later attempt (`Fenced`). `AnswerLost` says that it was sent and may have
        run, or may run still: nothing on the host ends it at the deadline, since half of a change
        may be worse than all of it; what comes next waits for its end.
        """
        order = self._order(argv, within_seconds, stdin, is_change=True, as_root=as_root)
        return self._run(order, accept)

    def put(  # noqa: PLR0913 (what a file is)
        self,
        content: Secret | bytes,
        path: str,
        *,
        mode: int = 0o600,
        owner: str = "",
        as_root: bool = False,
        within_seconds: float = 120,
    ) -> None:
        """Write a file there: whole or not at all, synced, under its name only at the end.

        Args:
            content: sent on standard input; never part of a command line.
            path: absolute; a file that is there is replaced, a symbolic link is refused.
            mode: its permissions.
            owner: as chown takes it, `user:group`; empty: the account that writes it.
            as_root: written by root.
            within_seconds: for all of it.

        Raises:
            CommandFailed: it could not be written; what was there is still there.
            AnswerLost: not known whether it was; done twice it does no harm.
        """
        argv = put_argv(path, mode, owner)
        order = self._order(argv, within_seconds, None, is_change=True, as_root=as_root)
        self._run(replace(order, stdin=framed(content)), (0,))

    def fetch(
        self,
        remote_path: str,
        local_path: Path,
        *,
        as_root: bool = False,
        within_seconds: float = 3600,
    ) -> Fetched:
        """Copy a file of the host to this worker (mode 0600), equal by size and SHA-256.

        The copy appears under its name only once it is proven; one that is there is replaced.
        Nothing is changed on the host.

        Raises:
            NotVerified: it changed while it was copied, or was damaged on the way.
            Refused: this worker has not the space for it.
            CommandFailed: it cannot be read there, or the host has no SFTP.
            Unreachable: as of `read`.
        """
        partial = local_path.with_name(local_path.name + ".partial")
        read = ["cat", "--", remote_path]
        order = self._order(read, within_seconds, None, is_change=False, as_root=as_root)
        by_sftp = order.sudo is None
        if by_sftp:
            order = replace(order, command=f"sftp get {shlex.quote(remote_path)}")
        with self.session():
            expected = self._remote_sha256(remote_path, order.deadline, as_root=as_root)
            with reading(order.command, self.target) as call:
                self._tell_host(order)
                with self.way().channel(order.command, order.deadline) as (connection, channel):
                    if by_sftp:
                        copy = copy_by_sftp(connection, channel, order, remote_path, partial)
                    else:
                        copy = copy_by_cat(connection, channel, order, partial)
                call.answer = f"{copy.size_bytes} bytes, sha256 {copy.sha256}"
            if copy.sha256 != expected:
                again = self._remote_sha256(remote_path, order.deadline, as_root=as_root)
                partial.unlink()
                raise NotVerified(
                    self.target,
                    f"a copy of {remote_path} with sha256 {expected}",
                    f"{copy.size_bytes} bytes with sha256 {copy.sha256}",
                    "It was damaged on the way: resume to copy it again"
                    if again == expected
                    else "It changed while it was copied: stop what writes to it, then resume",
                )
        partial.replace(local_path)
        return Fetched(local_path, copy.size_bytes, copy.sha256)

    def read_into(
        self,
        argv: Sequence[str],
        sink: BinaryIO,
        *,
        within_seconds: float = 3600,
        as_root: bool = False,
    ) -> None:
        """Run a command that changes nothing and write what it prints to `sink`, keeping none.

        For what must lie on no disk in the clear: the evidence has what it says of errors, no more.
        Cut off, `sink` has got a part of it. Errors are those of `read`.
        """
        order = self._order(argv, within_seconds, None, is_change=False, as_root=as_root)
        with reading(order.command, self.target) as call:
            self._tell_host(order)
            answer = send(self.way(), replace(order, sink=sink))
            call.answer, call.exit_code = answer.stderr, answer.exit_code
            require_exit_code(answer, (0,))

    def require_sftp(self, *, within_seconds: float = 30) -> None:
        """Ask whether the host offers SFTP, by which `fetch` copies.

        Raises:
            CommandFailed: it does not.
            Unreachable: as of `read`.
        """
        deadline = Deadline(within_seconds)
        order = Order("sftp", self.target, deadline, is_change=False)
        with self.way().channel("sftp", deadline) as (connection, channel):
            start_sftp(connection, channel, order)

    @contextlib.contextmanager
    def forwarded(self, address: str, port: int, *, within_seconds: float = 30) -> Iterator[Path]:
        """Lead a local unix socket to an address as the host sees it, until the block ends.

        The socket lies in a private folder and is named as Postgres names its own, so that psycopg
        takes the folder as `host` and redis-py the path as `unix_socket_path`.

        Args:
            address: as the host sees it, often 127.0.0.1.
            port: there.
            within_seconds: for each connection to be made.

        Raises:
            Refused: sshd forbids forwarding.
            Unreachable: nothing listens there, or the host gives no answer.
        """
        asked = f"tcp {address}:{port}"
        deadline = Deadline(within_seconds)
        way = self.way()
        with way.session(), contextlib.ExitStack() as until_end:
            with reading(asked, self.target):
                self._tell_host(Order(asked, self.target, deadline, is_change=False))
                connection = until_end.enter_context(way.connection(asked, deadline))
                via = Via(connection, self.target)
                path = until_end.enter_context(forward(via, (address, port), within_seconds))
            yield path

    def _remote_sha256(self, remote_path: str, deadline: Deadline, *, as_root: bool) -> str:
        argv = ["sha256sum", "--", remote_path]
        order = self._order(argv, deadline.seconds_left, None, is_change=False, as_root=as_root)
        return parse_sha256sum(self._run(order, (0,)).whole())

    def _order(
        self,
        argv: Sequence[str],
        within_seconds: float,
        stdin: Secret | None,
        *,
        is_change: bool,
        as_root: bool,
    ) -> Order:
        through_sudo = as_root and not self.is_root
        return Order(
            self.command_line(argv, as_root=as_root),
            self.target,
            Deadline(within_seconds),
            is_change,
            stdin=None if stdin is None else stdin.reveal().encode(),
            sudo=self._sudo() if through_sudo else None,
            output_max_bytes=self.output_max_bytes,
        )

    def _sudo(self) -> Sudo:
        reference = self.sudo_password
        if reference.block is None:
            return Sudo(reference.read())
        # A block is asked for over the network, which is too much for each command.
        known = self.way().fact("password for sudo", reference.read, for_seconds=SECRET_SECONDS)
        return Sudo(known)

    def _run(self, order: Order, accept: tuple[int, ...]) -> Answer:
        passing = changing if order.is_change else reading
        with passing(order.command, self.target) as call:
            answer = self._sent(replace(order, heard=call.heard))
            call.answer, call.exit_code = str(answer), answer.exit_code
            return require_exit_code(answer, accept)

    def _sent(self, order: Order) -> Answer:
        """Send it, in a recovery fenced at the host."""
        fences = self._tell_host(order)
        if not fences or not order.is_change:
            return send(self.way(), order)
        answer = self._guarded(order, fences)
        if is_unheard_of(answer):  # its files are gone, as what is in memory is after a reboot
            self._forget(fences)
            answer = self._guarded(order, fences)
        refuse_fenced(answer, fences[0])
        return answer

    def _guarded(self, order: Order, fences: Sequence[Fence]) -> Answer:
        text = order.command
        for fence in fences:
            text = guarded(text, fence, self._raised(fence, order.deadline))
        try:
            return send(self.way(), replace(order, sent=text))
        except AnswerLost:
            self._forget(fences)  # it may run still: whoever comes next must wait for it
            raise

    def _forget(self, fences: Sequence[Fence]) -> None:
        for fence in fences:
            self._fence().forget(fence)

    def _tell_host(self, order: Order) -> list[Fence]:
        """Have the host know of the attempt that is running before anything is asked of it.

        By each name under which it is leased: another attempt may know it by one of them only. A
        look goes on where that cannot be kept there; a change does not.
        """
        if current_fence().epoch < 1:
            return []
        fences = current_fence().over(self.places)[:FENCES_MAX]
        for fence in fences:
            if order.is_change or not self._fence().is_broken(fence):
                try:
                    self._raised(fence, order.deadline)
                except CommandFailed:
                    if order.is_change:
                        raise
        return fences

    def _fence(self) -> HostFence:
        return self.way().fact("fence", HostFence)

    def _raised(self, fence: Fence, deadline: Deadline) -> Raised:
        def run(script: str, arguments: list[str], by_sudo: bool) -> Answer:  # noqa: FBT001
            argv = ["sh", "-c", script, SAYS, *arguments]
            left = deadline.seconds_left
            order = self._order(argv, left, None, is_change=False, as_root=by_sudo)
            told = replace(order, command=f"fence epoch {fence.epoch}", sent=order.command)
            return require_exit_code(send(self.way(), told), FENCE_EXIT_CODES)

        try:
            return self._fence().raised(fence, run, self.target, deadline, is_root=self.is_root)
        except AnswerLost as lost:  # of the fence: the command itself was not sent
            raise Unreachable(lost.target, lost.asked, lost.seen) from lost
