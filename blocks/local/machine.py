"""The worker's own machine as a place where commands run, spoken to as a host over SSH is."""

import contextlib
import os
import shlex
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from blocks.local.program import run_program
from blocks.ssh.command import Answer, BoundedOutput, require_exit_code
from recovery.commands import changing, reading
from recovery.errors import AnswerLost, CommandFailed, Unreachable
from recovery.journal.opening import journal_folder
from recovery.secrecy.secret import Secret
from recovery.walk import current_fence

OUTPUT_BYTES_MAX = 1_000_000
TEXT_BYTES_MAX = 64_000_000
NOT_STARTED = 127


@dataclass(frozen=True)
class LocalMachine:
    """This machine, as the account of the worker."""

    @property
    def label(self) -> str:
        """The name of the machine: where a worker elsewhere would find nothing of what ran."""
        return f"worker:{socket.gethostname()}"

    @property
    def target(self) -> str:
        """Its name in messages."""
        return self.label

    @property
    def home(self) -> str:
        """The home of the account."""
        return str(Path.home())

    @property
    def jobs(self) -> Path:
        """The folder of commands that outlive the worker."""
        base = os.environ.get("RECOVER_WORK_DIR") or str(journal_folder() / "work")
        return Path(base) / "detached"

    def command_line(self, argv: Sequence[str]) -> str:
        """The exact text of a command, for the plan."""
        return shlex.join(argv)

    @contextlib.contextmanager
    def session(self) -> Iterator[Self]:
        """Nothing is opened; here so that a host over SSH can stand in its place."""
        yield self

    def read(
        self, argv: Sequence[str], *, within_seconds: float = 60, accept: tuple[int, ...] = (0,)
    ) -> Answer:
        """Run a command that changes nothing and return its answer.

        Raises:
            Unreachable: it did not end in time.
            CommandFailed: another exit code, or there is no such program.
        """
        with reading(self.command_line(argv), self.target) as call:
            try:
                answer = self._run(argv, within_seconds, None)
            except TimeoutError as error:
                seen = f"no end within {within_seconds:g} s"
                raise Unreachable(self.target, call.command, seen) from error
            call.answer, call.exit_code = str(answer), answer.exit_code
            return require_exit_code(answer, accept)

    def text_of(self, argv: Sequence[str], *, within_seconds: float = 60) -> str:
        """What a command that changes nothing prints; the evidence has what it says of errors.

        It may be long: of an inventory of hundreds of hosts Ansible lists megabytes.

        Raises:
            Unreachable: it did not end in time.
            CommandFailed: another exit code than 0, or there is no such program.
            UnreadableOutput: it printed more than any text has.
        """
        with reading(self.command_line(argv), self.target) as call:
            try:
                answer = self._run(argv, within_seconds, None, TEXT_BYTES_MAX)
            except TimeoutError as error:
                seen = f"no end within {within_seconds:g} s"
                raise Unreachable(self.target, call.command, seen) from error
            call.answer, call.exit_code = answer.stderr, answer.exit_code
            return require_exit_code(answer, (0,)).whole()

    def change(
        self,
        argv: Sequence[str],
        *,
        within_seconds: float = 60,
        accept: tuple[int, ...] = (0,),
        stdin: Secret | None = None,
    ) -> Answer:
        """Run a command that changes something and return its answer.

        Raises:
            AnswerLost: it did not end in time.
            CommandFailed: another exit code, or there is no such program.
        """
        with changing(self.command_line(argv), self.target) as call:
            try:
                answer = self._run(argv, within_seconds, stdin)
            except TimeoutError as error:
                seen = f"no end within {within_seconds:g} s"
                raise AnswerLost(self.target, call.command, seen) from error
            call.answer, call.exit_code = str(answer), answer.exit_code
            return require_exit_code(answer, accept)

    def _run(
        self,
        argv: Sequence[str],
        within_seconds: float,
        stdin: Secret | None,
        output_max_bytes: int = OUTPUT_BYTES_MAX,
    ) -> Answer:
        environment = {
            "HOME": self.home,
            "RECOVER_EPOCH": str(current_fence().epoch),
            "SSH_AUTH_SOCK": os.environ.get("SSH_AUTH_SOCK", ""),
        }
        with tempfile.TemporaryFile() as printed:
            try:
                ended = run_program(
                    argv,
                    within_seconds=within_seconds,
                    environment=environment,
                    stdin=None if stdin is None else [stdin.reveal().encode()],
                    stdout=printed,
                )
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise
                said = f"{argv[0]}: {error.strerror}"
                raise CommandFailed(self.target, shlex.join(argv), NOT_STARTED, said) from error
            printed.seek(0)
            out = BoundedOutput(output_max_bytes)
            while piece := printed.read(1 << 16):
                out.add(piece)
        return Answer(
            shlex.join(argv), self.target, ended.code, str(out), ended.errors, out.left_out_bytes
        )
