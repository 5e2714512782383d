"""What tests see of the hosts of the lab from outside and from one another."""

import contextlib

from recovery.errors import Unreachable
from tests.lab.hosts import LabHost
from tests.lab.processes import LabError

SILENT_WITHIN_SECONDS = 4  # where a busy machine is too slow for it, silence is not proven


def read(host: LabHost, *argv: str, user: str = "root", within_seconds: float = 60) -> str:
    """Return what a command says over ssh."""
    return host.block(user).read(argv, within_seconds=within_seconds).stdout.strip()


def is_silent(host: LabHost) -> bool:
    """Whether no answer comes from it over ssh."""
    with contextlib.suppress(Unreachable):
        read(host, "true", within_seconds=SILENT_WITHIN_SECONDS)
        return False
    return True


def can_ping(one: LabHost, address: str) -> bool:
    """Whether this address answers a host."""
    with contextlib.suppress(LabError):
        return "1 received" in one.run(f"ping -c 1 -W 2 {address}")
    return False
