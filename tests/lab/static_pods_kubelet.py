"""A stand-in for the kubelet: static pods, its two certificates, its Node.

It starts whatever lies in the manifests folder (all but hidden files), starts it again when it
ends or its pod is removed, and anew when the manifest changes. Of two files with a pod of the same
name it takes the last one by name alone, as kubelet 1.36 was seen to do: a copy `x.yaml.bak` ends
what `x.yaml` had started.

Intervals are a tenth of the real ones: it looks every second (20 s), and waits 1, 2, 4 … 30 s
before it starts what failed (10 s … 5 min).
"""

import hashlib
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.lab.control_plane_tls import Handler, TlsServer, serve, server_context
from tests.lab.static_pods_node import ClientCertificate, NodeReporter, Refusal, make_serving_pair
from tests.lab.static_pods_runtime import EXITED, READY, RUNNING, NotFound, ask

LOOK_SECONDS = 1.0
LOGS = "/var/log/pods"
DOCKERSHIM = "unix:///var/run/dockershim.sock"
ALLOWED_TO_READ = ("kube-apiserver-kubelet-client",)
BACKOFF_SECONDS = (0, 1, 2, 4, 8, 16, 30)


@dataclass
class Settings:
    """What the kubelet was told by flags and files."""

    node_name: str
    kubeconfig: str
    bootstrap: str
    endpoint: str
    manifests: Path
    rotates: bool
    client_authority: str
    taints: str = ""  # as --register-with-taints has them

    @classmethod
    def read(cls, words: Sequence[str]) -> "Settings":
        """Read the flags, and the files that they name."""
        flags = {n: v for n, _, v in (word.lstrip("-").partition("=") for word in words)}
        config = yaml.safe_load(Path(flags["config"]).read_text())
        instance = Path(flags["config"]).with_name("instance-config.yaml")
        if instance.exists():
            config |= yaml.safe_load(instance.read_text()) or {}
        endpoint = flags.get("container-runtime-endpoint") or config.get("containerRuntimeEndpoint")
        host = Path("/etc/hostname").read_text().strip().lower()
        return cls(
            flags.get("hostname-override") or host,
            flags["kubeconfig"],
            flags.get("bootstrap-kubeconfig", ""),
            endpoint or DOCKERSHIM,
            Path(config.get("staticPodPath") or "/nonexistent"),
            bool(config.get("rotateCertificates")),
            config["authentication"]["x509"]["clientCAFile"],
            flags.get("register-with-taints", ""),
        )


@dataclass(frozen=True)
class Manifest:
    """A static pod as one file describes it."""

    uid: str
    file: str
    pod: dict[str, Any] = field(hash=False, compare=False)

    @property
    def name(self) -> str:
        """Its name without that of the node."""
        return str(self.pod["metadata"]["name"])


@dataclass
class Failures:
    """How often a container ended of itself, and when."""

    count: int = 0
    seen: set[str] = field(default_factory=set)
    retry_at: float = 0.0


class Kubelet:
    """The static pods of one node."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.manifests: list[Manifest] = []
        self._failures: dict[tuple[str, str], Failures] = {}
        self._stopping: set[str] = set()

    def ask(self, verb: str, **given: object) -> Any:
        """Ask the container runtime; errors are those of `ask`."""
        return ask(self.settings.endpoint, verb, **given)

    def full_name(self, manifest: Manifest) -> str:
        """The name of its pod."""
        return f"{manifest.name}-{self.settings.node_name}"

    def sync(self) -> None:
        """Look at the folder and at the runtime once, and do what is missing."""
        self.manifests = self._read()
        present = {manifest.uid for manifest in self.manifests}
        known = self.ask("list")
        own = [p for p in known["pods"] if p["annotations"].get("kubernetes.io/config.source")]
        leaving = [pod for pod in own if pod["uid"] not in present]
        for pod in leaving:
            self._end(pod)
        waits_for = {pod["name"] for pod in leaving}
        for manifest in self.manifests:
            if self.full_name(manifest) not in waits_for:
                self._keep(manifest, known)

    def _read(self) -> list[Manifest]:
        found: dict[str, Manifest] = {}
        for path in sorted(self.settings.manifests.glob("[!.]*")):
            if not path.is_file():
                continue
            content = path.read_bytes()
            try:
                pod = yaml.safe_load(content)
                containers = pod["spec"]["containers"]
                text = f"{pod['metadata']['name']}{containers[0]['name']}"
            except (yaml.YAMLError, KeyError, TypeError, IndexError) as error:
                log(f'"Could not process manifest file" path="{path}" err="{error!r}"')
                continue
            source = f"{text}host:{self.settings.node_name}file:{path}".encode()
            uid = hashlib.md5(content + source).hexdigest()  # noqa: S324 - as the kubelet names one
            found[str(pod["metadata"]["name"])] = Manifest(uid, str(path), pod)
        return list(found.values())

    def _keep(self, manifest: Manifest, known: dict[str, Any]) -> None:
        """Make the pod and its containers where they are missing."""
        pods = [pod for pod in known["pods"] if pod["uid"] == manifest.uid]
        ready = [pod for pod in pods if pod["state"] == READY]
        if ready:
            pod_id = ready[-1]["id"]
        else:
            attempt = max((pod["attempt"] + 1 for pod in pods), default=0)
            pod_id = self.ask("run_pod", **self._sandbox(manifest, attempt))
        mine = [one for one in known["containers"] if one["pod"] == pod_id]
        earlier = [one["id"] for pod in pods if pod["id"] != pod_id for one in self._of(pod, known)]
        for wanted in manifest.pod["spec"]["containers"]:
            ran = [one for one in mine if one["name"] == wanted["name"]]
            if any(one["state"] == RUNNING for one in ran):
                continue
            if self._may_start(manifest, wanted["name"], ran):
                self._start(manifest, wanted, pod_id)
                for old in [one["id"] for one in ran[:-1]]:
                    self._forget("remove_container", given=old, force=False)
        for pod in pods:
            if pod["id"] != pod_id and pod["state"] != READY and len(earlier) > 0:
                self._forget("remove_pod", given=pod["id"])

    @staticmethod
    def _of(pod: dict[str, Any], known: dict[str, Any]) -> list[dict[str, Any]]:
        return [one for one in known["containers"] if one["pod"] == pod["id"]]

    def _may_start(self, manifest: Manifest, name: str, ran: list[dict[str, Any]]) -> bool:
        """Whether it is time: at once, but after each further failure later."""
        failures = self._failures.setdefault((manifest.uid, name), Failures())
        ended = {one["id"] for one in ran if one["state"] == EXITED} - failures.seen
        if ended:
            failures.seen |= ended
            longest = len(BACKOFF_SECONDS) - 1
            wait = BACKOFF_SECONDS[min(failures.count, longest)]
            failures.count += 1
            failures.retry_at = time.monotonic() + wait
            if wait:
                log(f'"Error syncing pod" err="CrashLoopBackOff: back-off {wait}s" pod="{name}"')
        return time.monotonic() >= failures.retry_at

    def _sandbox(self, manifest: Manifest, attempt: int) -> dict[str, Any]:
        meta = manifest.pod["metadata"]
        name, namespace = self.full_name(manifest), meta.get("namespace", "default")
        return {
            "name": name,
            "namespace": namespace,
            "uid": manifest.uid,
            "attempt": attempt,
            "labels": {
                **(meta.get("labels") or {}),
                "io.kubernetes.pod.name": name,
                "io.kubernetes.pod.namespace": namespace,
                "io.kubernetes.pod.uid": manifest.uid,
            },
            "annotations": {
                **(meta.get("annotations") or {}),
                "kubernetes.io/config.hash": manifest.uid,
                "kubernetes.io/config.source": "file",
            },
        }

    def _start(self, manifest: Manifest, wanted: dict[str, Any], pod_id: str) -> None:
        sandbox = self._sandbox(manifest, 0)
        name, namespace = sandbox["name"], sandbox["namespace"]
        folder = Path(LOGS) / f"{namespace}_{name}_{manifest.uid}" / wanted["name"]
        logs = [int(path.stem) for path in folder.glob("*.log") if path.stem.isdigit()]
        attempt = max(logs, default=-1) + 1
        labels = {k: v for k, v in sandbox["labels"].items() if k.startswith("io.kubernetes.")}
        self.ask(
            "run_container",
            pod=pod_id,
            name=wanted["name"],
            attempt=attempt,
            image=wanted["image"],
            command=[*wanted["command"], *(wanted.get("args") or [])],
            labels={**labels, "io.kubernetes.container.name": wanted["name"]},
            annotations={"io.kubernetes.container.restartCount": str(attempt)},
            log_path=str(folder / f"{attempt}.log"),
        )
        for old in sorted(logs)[:-1]:
            (folder / f"{old}.log").unlink(missing_ok=True)

    def _end(self, pod: dict[str, Any]) -> None:
        """Stop a pod whose manifest is gone, in the background: it has 30 s to end."""
        if pod["id"] in self._stopping:
            return
        self._stopping.add(pod["id"])

        def end() -> None:
            try:
                for one in self._of(pod, self.ask("list")):
                    self.ask("stop_container", given=one["id"], within_seconds=30)
                self.ask("stop_pod", given=pod["id"])
                self.ask("remove_pod", given=pod["id"])
            except (NotFound, OSError, ValueError) as error:
                log(f'"Failed to stop pod" pod="{pod["name"]}" err="{error!r}"')
            self._stopping.discard(pod["id"])

        threading.Thread(target=end, daemon=True).start()

    def _forget(self, verb: str, **given: object) -> None:
        try:
            self.ask(verb, **given)
        except (NotFound, ValueError) as error:
            log(f'"Failed to collect garbage" err="{error!r}"')


class KubeletHandler(Handler):
    """Port 10250: for the API server alone."""

    kubelet: Kubelet

    def do_GET(self) -> None:  # noqa: N802 - as http.server calls it
        who = self.identity
        if not who.name or who.has_expired:
            self.answer(HTTPStatus.UNAUTHORIZED, "Unauthorized")
        elif who.name not in ALLOWED_TO_READ and "system:masters" not in who.groups:
            self.answer(HTTPStatus.FORBIDDEN, f"Forbidden (user={who.name})")
        elif self.path == "/healthz":
            self.answer(HTTPStatus.OK, "ok")
        elif self.path.startswith("/containerLogs/"):
            _, _, namespace, pod, container = self.path.split("?")[0].split("/")
            logs = Path(LOGS).glob(f"{namespace}_{pod}_*/{container}/*.log")
            newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
            text = newest.read_text(errors="replace") if newest else ""
            self.answer(HTTPStatus.OK, text)
        else:
            self.answer(HTTPStatus.NOT_FOUND, "404 page not found")


class Healthz(BaseHTTPRequestHandler):
    """Port 10248, of this host alone."""

    def do_GET(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        """Keep quiet."""


def log(text: str) -> None:
    """Say something in the journal, as klog does."""
    stamp = time.strftime("%m%d %H:%M:%S", time.gmtime())
    sys.stderr.write(f"E{stamp}.000000    1234 kubelet.go:1] {text}\n")
    sys.stderr.flush()


def main(words: Sequence[str]) -> None:
    """Run until it is ended; the containers go on without it."""
    settings = Settings.read(words)
    try:
        client = ClientCertificate(settings.kubeconfig, settings.bootstrap, settings.rotates)
    except Refusal as refusal:
        for line in refusal.lines:
            log(line)
        sys.exit(1)
    kubelet = Kubelet(settings)
    serving = make_serving_pair(settings.node_name)
    context = server_context(*serving, settings.client_authority)
    KubeletHandler.kubelet = kubelet
    serve(TlsServer(("0.0.0.0", 10250), KubeletHandler, lambda: context))  # noqa: S104
    serve(ThreadingHTTPServer(("127.0.0.1", 10248), Healthz))
    reporter = NodeReporter(kubelet, client)
    threading.Thread(target=reporter.run, daemon=True).start()
    while True:
        try:
            kubelet.sync()
        except (OSError, NotFound, ValueError) as error:
            log(f'"Unable to sync" err="{error!r}"')
        time.sleep(LOOK_SECONDS)
