"""Restarting a controller manager or scheduler, and seeing that it works."""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from recovery.errors import NotVerified, Refused
from recovery.steps import act, verify
from recovery.verdict import Verdict
from tasks.certificates.catalogue import Component
from tasks.certificates.restart import STARTS_AGAIN
from tasks.certificates.work import Node
from tasks.leaders.finding import Restart
from tasks.leaders.instance import Instance, leader_seen, look_at_instance
from tasks.leaders.judging import MANIFESTS, reasons_against
from tasks.static_pods import remove_argv

PAUSE_SECONDS = 1.0
STAYS_SECONDS = 6.0
COMMAND_SECONDS = 120.0
LEADS_WITHIN_SECONDS = 120.0


def remove_commands(restart: Restart) -> Iterable[str]:
    """What restarts it."""
    return [
        restart.host.command_line(remove_argv(restart.due.runtime, restart.due.pods), as_root=True)
    ]


def is_restarted(restart: Restart) -> Verdict:
    """Whether it is well, and no longer the one that was found where that had looked well."""
    return judge_restarted(restart, restart.look())


def judge_restarted(restart: Restart, now: Instance) -> Verdict:
    """The same, of what was seen."""
    is_another = not set(now.pods) & set(restart.due.pods)
    return Verdict.of(not now.why_unwell and (is_another or not restart.due.was_well))


def refuse_unless_started_again(restart: Restart) -> None:
    """Refuse to remove a pod that nobody would start again.

    Raises:
        Refused: the kubelet is not active, or the manifest is not there.
    """
    manifest = f"{MANIFESTS}/{restart.component}.yaml"
    argv = ["sh", "-c", STARTS_AGAIN, "starts-again", manifest]
    answer = restart.host.read(argv, accept=(0, 1, 2, 3, 4), as_root=True)
    if answer.exit_code:
        raise Refused(
            restart.label,
            f"nobody would start {restart.component} again: {answer.stdout.strip()}",
            f"Bring back {manifest}, and the kubelet (`systemctl start kubelet`), then resume",
        )


@act(
    commands=remove_commands,
    done_when=is_restarted,
    each=("restart",),
    refuse_if=(refuse_unless_started_again,),
)
def restart_instance(restart: Restart) -> None:
    """Have the kubelet start it anew: remove the pods that were found, wait until it is well.

    Nothing else on the host is touched, and workloads go on running. Done twice, the second removes
    nothing: pods made since are not among those named.

    Raises:
        CommandFailed: the container runtime said no.
        NotVerified: it did not come back well in time; says what it does, and how its log ends.
        Unreachable: no answer.

    Runbook: docs/runbooks/control-plane-leaders.md, step 4.
    """
    with restart.host.session():
        restart.host.change(
            remove_argv(restart.due.runtime, restart.due.pods),
            within_seconds=COMMAND_SECONDS,
            as_root=True,
        )
        wait_until_well(restart)


def wait_until_well(restart: Restart) -> None:
    """Wait until it runs, holds the kubeconfig on disk and says that it is healthy.

    Raises:
        NotVerified: not in time.
    """
    ends = time.monotonic() + restart.within_seconds
    while True:
        now = restart.look()
        if judge_restarted(restart, now) is Verdict.DONE:
            return
        if time.monotonic() >= ends:
            seen = now.why_unwell.removesuffix(now.last_words) or "its pod is still the same"
            raise NotVerified(
                restart.label,
                f"{restart.component} to be well within {restart.within_seconds:g} s",
                f"{seen}{now.last_words}",
                f"A restart does not mend it: compare {MANIFESTS}/{restart.component}.yaml with "
                f"another host, read /var/log/pods/kube-system_{restart.component}*, then resume",
            )
        time.sleep(PAUSE_SECONDS)


@verify(each=("restart",))
def stays_up(restart: Restart, seconds: float = STAYS_SECONDS) -> str:
    """That it is still the same process, and well, some seconds later: one that fails comes often.

    Raises:
        NotVerified: it ended in between, or is unwell again.

    Runbook: docs/runbooks/control-plane-leaders.md, step 4.
    """
    before = restart.look()
    time.sleep(seconds)
    now = restart.look()
    is_same = abs(now.started_at - before.started_at) < 1
    if now.why_unwell or not is_same:
        raise NotVerified(
            restart.label,
            f"{restart.component} to stay up for {seconds:g} s",
            now.why_unwell or "it ended and was started again",
            f"Read /var/log/pods/kube-system_{restart.component}* there, then resume",
        )
    return now.answer


@verify
def somebody_leads(
    nodes: Sequence[Node], component: Component, within_seconds: float = LEADS_WITHIN_SECONDS
) -> str:
    """Who leads; its lease was renewed just now.

    Raises:
        NotVerified: nobody has renewed it in time.
        Unreachable: a host gave no answer.

    Runbook: docs/runbooks/control-plane-leaders.md, step 5.
    """
    ends = time.monotonic() + within_seconds
    while True:
        leader = leader_seen([node.host for node in nodes], component)
        if leader.is_fresh:
            return leader.seen
        if time.monotonic() >= ends:
            raise NotVerified(
                component.label,
                "its lease to be renewed",
                leader.seen,
                f"See /var/log/pods/kube-system_{component}* on every control-plane host: mostly "
                "it does not reach the API, or may not. Mend that, then resume",
            )
        time.sleep(PAUSE_SECONDS)


@verify(each=("node",))
def is_well(node: Node, component: Component) -> str:
    """What the one of this host answers: it is well, also where it was not restarted.

    Raises:
        NotVerified: it is unwell, where no restart mends it; says what does.

    Runbook: docs/runbooks/control-plane-leaders.md, step 5.
    """
    now = look_at_instance(node.host, component, node.seen.runtime, node.seen.node_name)
    if not now.why_unwell:
        return now.answer
    against = reasons_against(now, node.seen, max(datetime.now(UTC), node.seen.seen_at))
    remedies = dict.fromkeys(reason.remedy for reason in against)
    raise NotVerified(
        node.label,
        f"{component} to be well on every host that was named",
        "; ".join([now.why_unwell, *(reason.why for reason in against)]),
        f"Another one leads. {'. '.join(remedies) or 'Start the recovery again'}",
    )
