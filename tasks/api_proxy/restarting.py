"""Restarting the local proxy to the API servers, and seeing that it serves."""

import time
from collections.abc import Iterable

from blocks.ssh.host import SshHost
from recovery.errors import NotVerified, Refused
from recovery.steps import act, verify
from recovery.verdict import Verdict
from tasks.api_proxy.finding import ProxyRestart, reasons_against
from tasks.api_proxy.proxy import NAME, Proxy, look_at_proxy, looked_at
from tasks.static_pods import remove_argv

PAUSE_SECONDS = 1.0
COMMAND_SECONDS = 120.0
LOGS = f"/var/log/pods/kube-system_{NAME}*"


def restart_commands(proxy: ProxyRestart) -> Iterable[str]:
    """What restarts it."""
    argv = remove_argv(proxy.due.runtime, proxy.due.pods)
    return [proxy.host.command_line(argv, as_root=True)]


def is_restarted(proxy: ProxyRestart) -> Verdict:
    """Whether it serves what its configuration says, and was restarted where that was ordered."""
    return judge_restarted(proxy, look_at_proxy(proxy.host))


def judge_restarted(proxy: ProxyRestart, now: Proxy) -> Verdict:
    """The same, of what was seen."""
    is_another = not set(now.pods) & set(proxy.due.pods)
    return Verdict.of(not now.why_unwell and (is_another or not proxy.due.was_well))


def refuse_unless_it_would_serve(proxy: ProxyRestart) -> None:
    """Refuse to take down a proxy that would not come back, or would lead nowhere.

    Raises:
        Refused: the kubelet is down, or no API server that it names answers any more.
    """
    if against := reasons_against(looked_at(proxy.host)):
        remedies = dict.fromkeys(reason.remedy for reason in against)
        raise Refused(proxy.label, "; ".join(reason.why for reason in against), ". ".join(remedies))


@act(
    commands=restart_commands,
    done_when=is_restarted,
    each=("proxy",),
    refuse_if=(refuse_unless_it_would_serve,),
)
def restart_proxy(proxy: ProxyRestart) -> None:
    """Remove the pods that were found, and wait until the one that the kubelet makes serves.

    The kubelet of the host reaches no API for some seconds; its pods go on running. Done twice, the
    second removes nothing: pods made since are not among those named.

    Raises:
        CommandFailed: the container runtime said no.
        NotVerified: it does not serve in time.
        Unreachable: no answer.

    Runbook: docs/runbooks/nginx-proxy.md, step 4.
    """
    argv = remove_argv(proxy.due.runtime, proxy.due.pods)
    ends = time.monotonic() + proxy.within_seconds
    with proxy.host.session():
        proxy.host.change(argv, within_seconds=COMMAND_SECONDS, as_root=True)
        while judge_restarted(proxy, now := look_at_proxy(proxy.host)) is not Verdict.DONE:
            if time.monotonic() >= ends:
                raise NotVerified(
                    proxy.label,
                    f"{NAME} to serve the API within {proxy.within_seconds:g} s",
                    now.why_unwell or "its pod is still the same",
                    f"See {LOGS} and `journalctl -u kubelet` there, then resume",
                )
            time.sleep(PAUSE_SECONDS)


@verify(each=("host",))
def proxy_serves(host: SshHost) -> str:
    """What the API answers through the proxy of this host; also of those that were left alone.

    Raises:
        NotVerified: it does not serve; says why, and what mends it.

    Runbook: docs/runbooks/nginx-proxy.md, step 5.
    """
    now = looked_at(host)
    if not now.why_unwell:
        return f"{now.listens}: {now.answers}"
    remedies = dict.fromkeys(reason.remedy for reason in reasons_against(now))
    raise NotVerified(
        host.label,
        f"the API to answer through {NAME}",
        now.why_unwell,
        ". ".join(remedies) or f"See {LOGS} there, then start the recovery again",
    )
