"""Looking at all clocks before anything is done, and once more at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blocks.inventory import Inventory
from blocks.ssh.host import SshHost
from recovery.errors import BadInput, NotVerified, Refused
from recovery.steps import decision, probe, verify
from tasks.clocks import judging
from tasks.clocks.daemons import daemons_of
from tasks.clocks.judging import STEP_BACK, WORKER_CLOCK, Due, Found, Limits
from tasks.clocks.mending import DueClock, has_etcd
from tasks.clocks.offsets import offset_of
from tasks.clocks.sources import Following, following

NONE_MAY_FAIL = "0"
ONE_BY_ONE = ("1",)


def limits_of(
    warn_seconds: float,
    fail_seconds: float,
    accept: Sequence[str],
    *,
    may_step: bool,
    step_back_max_seconds: float,
) -> Limits:
    """Read the parameters.

    Raises:
        BadInput: a limit is not above the one before it, or nothing of an accepted name is known.
    """
    if not 0 < warn_seconds <= fail_seconds:
        raise BadInput(
            "warn_seconds",
            f"{warn_seconds:g} is not between 0 and fail_seconds ({fail_seconds:g})",
            "Give seconds, as 1 and 5",
        )
    if step_back_max_seconds < 0:
        raise BadInput("step_back_max_seconds", f"{step_back_max_seconds:g} is below 0", "Give 0")
    for name in accept:
        if name != WORKER_CLOCK and not name.startswith(f"{STEP_BACK}:"):
            raise BadInput(
                "accept", f"{name!r} is no name of a loss", "Give it as the refusal prints it"
            )
    return Limits(warn_seconds, fail_seconds, may_step, step_back_max_seconds, tuple(accept))


@decision(each=("host",))
def clock_found(host: SshHost) -> Found:
    """The clock of a host as it was found, and what keeps it.

    Raises:
        Unreachable: the host gave no answer.
        CommandFailed: it has no systemd, or a tool of its daemon is missing.
        UnreadableOutput: a tool printed what we do not understand.

    Runbook: docs/runbooks/clocks.md, step 1.
    """
    with host.session():
        daemons = daemons_of(host)
        running = [daemon for daemon in daemons if daemon.is_active]
        state = following(host, running[0]) if len(running) == 1 else Following()
        return Found(host.label, offset_of(host), daemons, state, has_etcd(host))


@probe
def refuse_unless_clear(found: Sequence[Found], limits: Limits) -> None:
    """Refuse to begin while something speaks against it that nobody accepted.

    Raises:
        Refused: all reasons, each with its host and what to do.

    Runbook: docs/runbooks/clocks.md, step 2.
    """
    said = judging.objections(found, limits)
    if not said:
        return
    reasons = "; ".join(f"{each.target}: {each.reason}" for each in said)
    remedies = dict.fromkeys(each.remedy for each in said)
    raise Refused(
        ", ".join(dict.fromkeys(each.target for each in said)), reasons, ". ".join(remedies)
    )


@decision(none_is_fine=True)
def hosts_due(found: Sequence[Found], limits: Limits) -> list[Due]:
    """What is due on which hosts.

    Runbook: docs/runbooks/clocks.md, step 3.
    """
    judged = (judging.due_of(each, limits) for each in found)
    return [due for due in judged if due is not None]


@dataclass(frozen=True)
class Round:
    """Clocks that are mended on the same terms; those of `recovery.fan_out.FanOut`."""

    clocks: list[DueClock]
    serial: Sequence[str]
    max_fail: str


def in_order(
    inventory: Inventory,
    dues: Sequence[Due],
    limits: Limits,
    within_seconds: float,
    rest: Round,
) -> list[Round]:
    """The clocks due in the order they are mended.

    Those of etcd members come last, one by one, and none after one that failed: two that jump at
    once may cost the quorum, and so may one more once a member is lost.

    Args:
        inventory: the hosts.
        dues: what is due on them.
        limits: from which offset on.
        within_seconds: how long each may take.
        rest: the terms for hosts that are no etcd members; its clocks are not looked at.
    """
    by_host = {due.host: due for due in dues}
    clocks = [
        DueClock(host, by_host[host.label], limits, within_seconds)
        for host in inventory.named(list(by_host))
    ]
    members = Round([clock for clock in clocks if clock.due.has_etcd], ONE_BY_ONE, NONE_MAY_FAIL)
    others = replace(rest, clocks=[clock for clock in clocks if not clock.due.has_etcd])
    return [each for each in (others, members) if each.clocks]


@verify
def clocks_agree(hosts: Sequence[SshHost], limits: Limits) -> float:
    """Seconds between the two clocks that are furthest apart, once all are measured again.

    Raises:
        NotVerified: two are further apart than the limit.
        Unreachable: a host gave no answer.

    Runbook: docs/runbooks/clocks.md, step 10.
    """
    offsets = {host.label: offset_of(host).seconds for host in hosts}
    first, last, apart = judging.widest(offsets)
    if apart > limits.warn_seconds:
        raise NotVerified(
            f"{first} and {last}",
            f"clocks within {limits.warn_seconds:g} s of each other",
            f"{apart:.3f} s",
            "One of them has drifted since it was mended, or follows another source: resume to "
            "measure again",
        )
    return round(apart, 6)
