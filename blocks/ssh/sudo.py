"""Running as root through sudo: the exact text, the password on its input, and its refusals."""

import re
from collections.abc import Sequence

from recovery.errors import CommandFailed

# sudo asks in these words, so that the password is sent when it is asked for and at no other time:
# sent unasked (NOPASSWD), it would be the first line that the command itself reads.
PROMPT = "recover-asks-for-sudo: "
REFUSED, TAIL_LINES = 1, 5
HARMLESS = ("unable to resolve host", "unable to send audit message", "setrlimit(")
MISSING = re.compile(r"^sudo: (?P<name>.*): command not found$", re.MULTILINE)
WITHOUT_PREFIX = ("not in the sudoers file", "is not allowed to ", "may not run sudo")
REMEDIES = (
    (
        "must have a tty",
        "sudoers of the host asks for a terminal: add `Defaults:USER !requiretty` there",
    ),
    (
        "a password is required",
        (
            "Let this user run exactly this command without a password (NOPASSWD in sudoers), or "
            "name its password (sudo_password_file, sudo_password_env), or log in as root"
        ),
    ),
    (
        "not in the sudoers file",
        "Give this user a line in sudoers of the host, or log in as another one",
    ),
    ("may not run sudo", "Give this user a line in sudoers of the host, or log in as another one"),
    ("is not allowed to ", "Allow this user exactly this command in sudoers of the host"),
    ("account validation failure", "The account is locked or expired on the host: mend that"),
)
WRONG = (
    "sudo did not take the one that was given: put the right one where sudo_password_file or "
    "sudo_password_env names it (it was tried once; more tries may lock the account)"
)


class SudoRefused(CommandFailed):
    """The login is good, but may not do this as root. Fields as of CommandFailed."""


class SudoPasswordWrong(SudoRefused):
    """Sudo did not take the password. Fields as of CommandFailed."""


def sudo_argv(argv: Sequence[str], *, with_password: bool) -> list[str]:
    """The command as root runs it: by sudo that never asks, or that asks on its standard input.

    With `-k` sudo asks even where it was told the password a moment ago, so that whether it asks is
    up to sudoers alone. Without a command it is the question whether the password is right.
    """
    asking = ["-k", "-S", "-p", PROMPT] if with_password else ["-n"]
    return ["sudo", *asking, "--", *argv]


def verify_argv() -> list[str]:
    """Whether sudo takes the password at all; nothing is run."""
    return ["sudo", "-k", "-S", "-p", PROMPT, "-v"]


def refusal_of(  # noqa: PLR0913 (an answer: that knows us, not we it)
    target: str, command: str, exit_code: int, stdout: str, stderr: str, *, times_asked: int = 0
) -> CommandFailed | None:
    """What sudo itself said no with, if it was sudo and not the command.

    It ends with 1 then, as many a command does to say "no": that must not be taken for one.
    """
    if exit_code != REFUSED or stdout:
        return None
    tail = "\n".join(stderr.strip().splitlines()[-TAIL_LINES:])
    if times_asked > 1:
        return SudoPasswordWrong(target, command, exit_code, tail, f"{WRONG}, then resume")
    if MISSING.search(stderr):
        remedy = "Install what is missing there or put it where sudo looks (secure_path)"
        return CommandFailed(target, command, exit_code, tail, f"{remedy}, then resume")
    lines = stderr.splitlines()
    own = [line for line in lines if line.startswith("sudo: ")]
    said = [line for line in own if not any(known in line for known in HARMLESS)]
    said += [line for line in lines if any(known in line for known in WITHOUT_PREFIX)]
    if not said:
        return None
    remedy = next(
        (remedy for known, remedy in REMEDIES if any(known in line for line in said)),
        "See what sudo says and what sudoers of the host allows this user",
    )
    return SudoRefused(target, command, exit_code, tail, f"{remedy}, then resume")


class Prompts:
    """Takes the prompts of sudo out of an error stream and counts them."""

    def __init__(self) -> None:
        self.seen = 0
        self._prompt = PROMPT.encode()
        self._held = b""

    def without(self, chunk: bytes) -> bytes:
        """What came next, without prompts; a beginning of one is held back."""
        text = self._held + chunk
        self.seen += text.count(self._prompt)
        text = text.replace(self._prompt, b"")
        held = next(
            (n for n in range(len(self._prompt) - 1, 0, -1) if text.endswith(self._prompt[:n])), 0
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> bytes:
        """What was held back and is no prompt after all."""
        held, self._held = self._held, b""
        return held
