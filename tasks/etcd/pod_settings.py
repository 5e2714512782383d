"""How a static pod of etcd is set up: read from its manifest, in place or parked, and its host."""

import io
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from blocks.ssh.host import SshHost
from recovery.errors import Refused, UnreadableOutput
from recovery.secrecy.redaction import redacted_tail
from tasks.etcd.as_static_pod import IS_UP, MANIFEST, PARKED
from tasks.etcd.manifest import (
    ONE_EACH,
    EtcdPod,
    OddManifestError,
    changed,
    parse_manifest,
    pod_name,
)
from tasks.etcd.settings import Found, Settings, settings_from

WITHIN_SECONDS = 20.0
NAME = "etcd"
TRIED = {"initial-cluster": "a=https://a:2380,b=https://b:2380", "initial-cluster-state": "new"}
# All in the folder of the kubelet that may describe this pod: whatever lies there is started.
LOOK = r"""
for file in "$1"/* "$2"; do
  [ -f "$file" ] || continue
  case $file in "$1/etcd.yaml" | "$2") ;; *)
    grep -Eq "name[\"']?:[[:space:]]*[\"']?etcd[\"']?[[:space:],]*$" "$file" || continue ;;
  esac
  echo "file $file"
  sed "s/^/|/" "$file"
  echo
done
[ ! -L "$1/etcd.yaml" ] || echo "odd $1/etcd.yaml is a symbolic link"
[ "$(stat -Lc %d "$1")" = "$(stat -Lc %d /etc/kubernetes)" ] ||
  echo "odd $1 is a file system of its own, so that nothing is moved out of it in one step"
reads=$(sed -n "s/^staticPodPath:[[:space:]]*//p" /var/lib/kubelet/config.yaml 2>/dev/null |
  tr -d "\"' ")
case ${reads%/} in "" | "$1") ;; *) echo "odd the kubelet reads $reads instead of $1" ;; esac
echo "kubelet $(systemctl is-active kubelet)"
""".strip()


@dataclass(frozen=True)
class PodSeen:
    """A static pod of etcd as its host has it.

    Attributes:
        text: of the manifest that counts.
        is_placed: whether it lies in the folder of the kubelet, and not where it is parked.
        others: more files in that folder that describe it.
        kubelet: whether that runs, in the words of systemd.
        odd: what there is about that folder otherwise than kubeadm makes it.
    """

    text: str
    is_placed: bool
    others: tuple[str, ...]
    kubelet: str
    odd: str = ""


def look_for_pod(host: SshHost) -> PodSeen | None:
    """The static pod of etcd of a host; `None` where it has none. The evidence has no content.

    Raises:
        Unreachable: no answer.
        UnreadableOutput: it printed something else.
        Refused: its manifest is called otherwise than kubeadm calls it.
    """
    sink = io.BytesIO()
    folder = MANIFEST.rpartition("/")[0]
    argv = ["sh", "-c", LOOK, "look", folder, PARKED]
    host.read_into(argv, sink, within_seconds=WITHIN_SECONDS, as_root=True)
    return parse_look(host.target, sink.getvalue().decode(errors="replace"))


def parse_look(target: str, printed: str) -> PodSeen | None:
    """Read what LOOK prints: each file after a line `file PATH`, its lines after a `|`.

        file /etc/kubernetes/manifests/etcd.yaml
        |apiVersion: v1
        odd the kubelet reads /etc/manifests instead of /etc/kubernetes/manifests
        kubelet active

    Raises:
        UnreadableOutput: it is something else.
        Refused: only a file of another name describes it.
    """
    texts: dict[str, list[str]] = {}
    path, kubelet, odd = "", "", ""
    for line in printed.splitlines():
        if line.startswith("file "):
            path = line.removeprefix("file ")
            texts[path] = []
        elif line.startswith("|") and path:
            texts[path].append(line[1:])
        elif line.startswith("odd "):
            odd = line.removeprefix("odd ")
        elif line.startswith("kubelet "):
            kubelet = line.removeprefix("kubelet ")
        elif line:
            raise UnreadableOutput("look for a static pod of etcd", redacted_tail(printed, 200))
    files = {path: "\n".join([*lines, ""]) for path, lines in texts.items()}
    own = {MANIFEST, PARKED}
    others = tuple(at for at, text in files.items() if at not in own and pod_name(text) == NAME)
    at = next((at for at in (MANIFEST, PARKED) if at in files), None)
    if at is not None:
        return PodSeen(files[at], at == MANIFEST, others, kubelet, odd)
    if others:
        raise Refused(
            target,
            f"its etcd is a static pod of {', '.join(others)}, and kubeadm's is {MANIFEST}",
            f"Give it that name, by one `mv`: the kubelet starts it anew then ({PARKED} for one "
            "that is to stay down)",
        )
    return None


def pod_found(host: SshHost, pod: PodSeen) -> Found:
    """A member that the kubelet runs.

    Raises:
        Unreachable: no answer.
        Refused: its manifest is not understood, or its data is not on the host under its own name.
    """
    settings = pod_settings(host.target, pod)
    argv = ["sh", "-c", IS_UP, "is-up", settings.data]
    runs = host.read(argv, accept=(0, 1), as_root=True).exit_code == 0
    where = "in place" if pod.is_placed else f"parked in {PARKED}"
    state = "runs" if runs else "does not run"
    told = f"static pod etcd {state}, manifest {where}, kubelet {pod.kubelet or 'unknown'}"
    return Found(told, runs, is_starting=False, settings=settings)


def pod_settings(target: str, pod: PodSeen) -> Settings:
    """What a static pod of etcd is started with; errors are those of `pod_found`."""
    try:
        parsed = parse_manifest(pod.text)
    except OddManifestError as error:
        raise Refused(target, f"the manifest of its etcd: {error}", ONE_EACH) from error
    values = {k: v for k, v in parsed.env.items() if k.startswith("ETCD_")}
    settings = settings_from(target, dict(parsed.flags), values)
    if "data-dir" not in parsed.flags:
        raise Refused(
            target,
            "the manifest of its etcd does not say where its data is (--data-dir)",
            "Give it as a flag, as kubeadm does: the process is known by it",
        )
    if parsed.on_host(settings.data) != str(PurePosixPath(settings.data)):
        raise Refused(
            target,
            f"its etcd has its data in {settings.data} of its container, which is "
            f"{parsed.on_host(settings.data) or 'no folder'} of the host",
            "Have the manifest mount a folder of the host there by the same path (hostPath), as "
            "kubeadm does",
        )
    return _on_host(settings, parsed, *obstacle_to_change(pod))


def _on_host(settings: Settings, pod: EtcdPod, obstacle: str, remedy: str) -> Settings:
    return replace(
        settings,
        authority=pod.on_host(settings.authority) or settings.authority,
        certificate=pod.on_host(settings.certificate) or settings.certificate,
        key=pod.on_host(settings.key) or settings.key,
        file=MANIFEST,
        is_static_pod=True,
        obstacle=obstacle,
        remedy=remedy,
    )


def obstacle_to_change(pod: PodSeen) -> tuple[str, str]:
    """Why a member could not be stopped or told of another cluster, and the remedy; else empty."""
    if pod.others:
        also = f"{', '.join(pod.others)} describes it, too, and the kubelet starts all in there"
        return also, "Move that file out of the folder"
    if pod.odd:
        return pod.odd, "Have the folder and the file there as kubeadm makes them, without links"
    if pod.kubelet != "active":
        down = f"the kubelet is {pod.kubelet or 'unknown'}, and only that stops and starts it"
        return down, "Bring it up, `systemctl start kubelet`; see `journalctl -u kubelet`"
    try:
        changed(pod.text, TRIED)
    except OddManifestError as error:
        return f"its manifest cannot be changed: {error}", ONE_EACH
    return "", ""
