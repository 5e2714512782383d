"""The local proxy to the API servers that kubespray puts on every worker, as it is seen there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from blocks.ssh.host import SshHost
from recovery.errors import CommandFailed, Unreachable, UnreadableOutput
from tasks.certificates.look_lines import Lines, api_state, runtime_in
from tasks.certificates.look_script import look_argv
from tasks.certificates.seen import ApiState, Runtime, RuntimeKind
from tasks.static_pods import list_argv

NAME = "nginx-proxy"
CONF = "/etc/nginx/nginx.conf"
WITHIN_SECONDS = 60.0
ANSWERS = frozenset({ApiState.READY, ApiState.CLOSED})
UPSTREAM = re.compile(r"upstream\s+(\S+)\s*\{([^}]*)\}")
SERVER = re.compile(r"^\s*server\s+([^\s;]+:\d+)(?=[\s;])", re.MULTILINE)
LISTEN = re.compile(r"^\s*listen\s+([^\s;]+)", re.MULTILINE)
SCRIPT = r"""
tell() { printf '%s\t%s\n' "$1" "$2"; }
for file in /etc/kubernetes/manifests/nginx-proxy.y*ml; do [ -e "$file" ] && tell manifest "$file"
done
if [ -e "$1" ]; then tell written "$(stat -L -c %.9Y "$1")"; tell conf "$(base64 -w 0 <"$1")"; fi
case $2 in
  docker) for one in $("$3" ps -q --filter name=k8s_nginx-proxy_nginx-proxy); do
      tell started "$(date -d "$("$3" inspect --format '{{.State.StartedAt}}' "$one")" +%s.%N)"
    done;;
  cri) for one in $("$3" --runtime-endpoint "$4" ps --name '^nginx-proxy$' -q); do
      tell started "$(date -d "$("$3" --runtime-endpoint "$4" inspect "$one" |
        sed -n 's/^ *"startedAt": "\(.*\)",*$/\1/p' | head -n 1)" +%s.%N)"
    done;;
esac
:
"""
ASK = r"""
for at; do
  { said=$(printf 'GET /livez HTTP/1.0\r\nHost: %s\r\n\r\n' "$at" |
    timeout 5 openssl s_client -quiet -connect "$at" 2>/dev/null | head -c 200 | base64 -w 0)
    printf 'livez:%s\t%s\n' "$at" "$said"; } &
done
wait
"""


@dataclass(frozen=True)
class Proxy:
    """The proxy of one host.

    Attributes:
        host: its label.
        unseen: why nothing could be seen of it; empty where it could.
        manifest: path of its manifest; empty where there is none.
        runtime: what its pod is restarted with.
        is_kubelet_active, has_openssl: whether somebody starts it again, and can ask it.
        pods: ids of its pods, also of those that have ended.
        started_at: when its container was started; 0 where none runs.
        written_at: when its configuration was last written.
        listens: address on which it serves the API; empty where its configuration names none.
        answers: what is said through it.
        servers: the API servers its configuration names, and what each answers.
    """

    host: str
    unseen: str = ""
    manifest: str = ""
    runtime: Runtime = field(default_factory=lambda: Runtime(RuntimeKind.NONE))
    is_kubelet_active: bool = False
    has_openssl: bool = False
    pods: tuple[str, ...] = ()
    started_at: float = 0.0
    written_at: float = 0.0
    listens: str = ""
    answers: ApiState = ApiState.SILENT
    servers: dict[str, ApiState] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The host, for the journal: how its proxy is changes from look to look."""
        return self.host

    @property
    def living(self) -> list[str]:
        """The API servers that answer."""
        return [at for at, state in self.servers.items() if state in ANSWERS]

    @property
    def dead(self) -> list[str]:
        """The API servers that do not answer."""
        return [at for at, state in self.servers.items() if state not in ANSWERS]

    @property
    def why_unwell(self) -> str:
        """Why it does not serve as its configuration says; empty where it does."""
        if self.unseen:
            return f"it cannot be read: {self.unseen}"
        if not self.started_at:
            return "it does not run"
        if self.started_at <= self.written_at:
            return f"it was started before {CONF} was written, and serves the older one"
        if self.answers not in ANSWERS:
            return f"the API is {self.answers} through it, at {self.listens or 'no address'}"
        return ""


def look_at_proxy(host: SshHost) -> Proxy:
    """Look at the proxy of a host, and at every API server it names.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root, or the container runtime says no.
        UnreadableOutput: it answered something else.
    """

    def ask(argv: Sequence[str]) -> str:
        return host.read(argv, within_seconds=WITHIN_SECONDS, as_root=True).whole()

    with host.session():
        facts = Lines(ask(look_argv("facts")))
        runtime = runtime_in(facts)
        words = [CONF, runtime.kind, runtime.client, runtime.endpoint]
        lines = Lines(ask(["sh", "-c", SCRIPT, "look-at-proxy", *words]))
        is_known = runtime.kind is not RuntimeKind.NONE
        pods = ask(list_argv(runtime, NAME)).split() if is_known else []
        listens, servers = parse_conf(lines.text("conf"))
        asked = [at for at in (listens, *servers) if at]
        said = Lines(ask(["sh", "-c", ASK, "ask-livez", *asked]) if asked else "")
    states = {at: api_state(said.text(f"livez:{at}")) for at in asked}
    return Proxy(
        host.label,
        "",
        lines.one("manifest"),
        runtime,
        facts.one("kubelet-active") == "active",
        bool(facts.one("tool:openssl")),
        tuple(sorted(pods)),
        max((float(value) for value in lines.all("started")), default=0.0),
        float(lines.one("written") or 0),
        listens,
        states.get(listens, ApiState.SILENT),
        {at: states[at] for at in servers},
    )


def parse_conf(text: str) -> tuple[str, list[str]]:
    """Read where a proxy listens for the API, and which API servers it leads to.

    kubespray 2.10 to 2.31 write:

        stream {
          upstream kube_apiserver {
            least_conn;
            server 10.0.0.10:6443;
          }
          server {
            listen 127.0.0.1:6443;
            proxy_pass kube_apiserver;

    Nothing where there is no such block.
    """
    for upstream in UPSTREAM.finditer(text):
        name, servers = upstream[1], SERVER.findall(upstream[2])
        serving = re.search(rf"server\s*\{{([^}}]*proxy_pass\s+{re.escape(name)};[^}}]*)\}}", text)
        listens = LISTEN.search(serving[1]) if serving else None
        if servers:
            return (_address(listens[1]) if listens else ""), servers
    return "", []


def _address(listens: str) -> str:
    """Where to ask what listens there: a bare port, or every address, is asked on this host."""
    host, _, port = listens.rpartition(":")
    try:
        everywhere = not host or ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        everywhere = host == "*"
    return f"127.0.0.1:{port}" if everywhere else listens


def looked_at(host: SshHost) -> Proxy:
    """The same; a host that cannot be read is told as such."""
    try:
        return look_at_proxy(host)
    except (Unreachable, CommandFailed, UnreadableOutput) as error:
        return Proxy(host.label, unseen=str(error))
