"""The controller manager or scheduler of one host, as it is seen there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import yaml

from recovery.secrecy.redaction import redacted_head
from tasks.certificates.api import ask_api
from tasks.certificates.catalogue import Component, held
from tasks.certificates.files import leaf_requests, leaves_of
from tasks.certificates.look import Host
from tasks.certificates.look_lines import Lines, started_in
from tasks.certificates.look_script import look_argv
from tasks.certificates.proof import ENDPOINTS, LEASES, leader_of
from tasks.certificates.seen import FileSeen, Runtime, RuntimeKind
from tasks.static_pods import list_argv

WITHIN_SECONDS = 45.0


class Health(StrEnum):
    """What a process answers to `/healthz`."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    SILENT = "silent"


@dataclass(frozen=True)
class Instance:
    """One of the processes that take turns in leading.

    Attributes:
        component: which one.
        pods: ids of its pods in the container runtime, also of those that have ended.
        started_at: in seconds of the host's clock; 0 where it does not run.
        config: its kubeconfig.
        health: what it answers.
        answer: the same in its own words, and where it was asked.
        manifest: its manifest without the values of variables; empty where there is none.
        aside: manifests of that name beside the folder.
        complaint: the last thing the kubelet said of the manifest.
        log: the end of its log.
    """

    component: Component
    pods: tuple[str, ...]
    started_at: float
    config: FileSeen
    health: Health
    answer: str
    manifest: str
    aside: tuple[str, ...] = ()
    complaint: str = ""
    log: str = ""

    @property
    def label(self) -> str:
        """What it is, for the journal: how it is changes from look to look."""
        return str(self.component)

    @property
    def why_unwell(self) -> str:
        """Why it does not do its work; empty where nothing says that."""
        if not self.started_at:
            return f"it does not run{self.last_words}"
        if self.started_at <= self.config.changed_at:
            return "it was started before its kubeconfig was written, and holds an older one"
        if self.health is not Health.HEALTHY:
            return f"it runs, and is {self.health} at {self.answer}"
        return ""

    @property
    def last_words(self) -> str:
        """How its log ends, to be added to what is said of it."""
        lines = self.log.strip().splitlines()
        return f"; its log ends: {lines[-1].strip()}" if lines else ""

    @property
    def manifest_fault(self) -> str:
        """Why the kubelet can make no pod of its manifest; empty where it can."""
        try:
            read = yaml.safe_load(self.manifest)
            names = [one["name"] for one in read["spec"]["containers"]]
        except yaml.YAMLError as error:
            return f"it is no YAML: {' '.join(str(error).split())}"
        except (LookupError, TypeError):
            return "it is no pod with containers"
        return "" if self.component in names else f"it has no container {self.component}"


def look_at_instance(
    host: Host, component: Component, runtime: Runtime, node_name: str
) -> Instance:
    """Look at one process: pods, manifest, kubeconfig, health, and what is said of it.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root, or the container runtime says no.
    """
    names = [leaf.name for leaf in held(component)]
    requests = [*leaf_requests(names), "processes", "component", component]
    with host.session():
        answer = host.read(look_argv(*requests), within_seconds=WITHIN_SECONDS, as_root=True)
        pods: Sequence[str] = ()
        if runtime.kind is not RuntimeKind.NONE:
            listed = list_argv(runtime, f"{component}-{node_name}")
            pods = host.read(listed, within_seconds=WITHIN_SECONDS, as_root=True).whole().split()
    return instance_in(Lines(answer.whole()), component, pods)


def instance_in(lines: Lines, component: Component, pods: Sequence[str]) -> Instance:
    """What a look has seen of it."""
    (config,) = leaves_of(lines, [leaf.name for leaf in held(component)])
    health, answer = parse_healthz(lines, component)
    return Instance(
        component,
        tuple(sorted(pods)),
        started_in(lines).get(component, 0.0),
        config,
        health,
        answer,
        lines.text(f"text:{component}"),
        tuple(lines.all(f"aside:{component}")),
        lines.text(f"complaint:{component}").strip(),
        lines.text(f"log:{component}"),
    )


def parse_healthz(lines: Lines, component: Component) -> tuple[Health, str]:
    """Read what `GET /healthz` answered over a bare connection, and where.

        healthz:kube-scheduler<TAB>127.0.0.1:10259 SFRUUC8xLjAgMjAwIE9L…

    Nothing where nobody listens, or does not answer in time.
    """
    address, _, encoded = lines.one(f"healthz:{component}").partition(" ")
    text = Lines(f"x\t{encoded}").text("x")
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    status = head.partition(" ")[2].partition("\n")[0]
    if not status:
        return Health.SILENT, address
    shown = " ".join(redacted_head(body, 200).split())
    said = f"{address}: {status}" + (f" ({shown})" if shown else "")
    return (Health.HEALTHY if status.startswith("200") else Health.UNHEALTHY), said


@dataclass(frozen=True)
class Leader:
    """Who leads, or why that is not known, and whether the lease was renewed just now."""

    seen: str
    is_fresh: bool

    @property
    def label(self) -> str:
        """What it is, for the journal: who leads changes from look to look."""
        return "leader"


def leader_seen(hosts: Sequence[Host], component: Component) -> Leader:
    """Ask the API who leads, on one host after the other until one can tell.

    Raises:
        Unreachable: a host gave no answer.
    """
    said = []
    for host in hosts:
        paths = {"lease": f"{LEASES}/{component}", "old": f"{ENDPOINTS}/{component}"}
        answers, lines = ask_api(host, paths)
        if answers["lease"].status:
            now = datetime.fromtimestamp(float(lines.all("clock")[-1]), UTC)
            seen, is_fresh = leader_of(answers["lease"], answers["old"], now)
            return Leader(seen, is_fresh)
        said.append(
            f"{host.label}: {redacted_head(answers['lease'].text.strip(), 200) or 'no answer'}"
        )
    return Leader("; ".join(said), is_fresh=False)
