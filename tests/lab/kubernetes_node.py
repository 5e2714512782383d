"""A node without containers: plays the kubelet's part towards either API, as the test decides.

Pods are bound to it, get the state that the test has chosen for their image, and go when they are
deleted. It serves their logs as a kubelet does, at a port of its own.
"""

import contextlib
import hashlib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.lab.kubernetes_client import ApiSaidNo, LabClient
from tests.lab.kubernetes_store import now
from tests.lab.pki import Validity, key_pem, new_key, self_signed
from tests.lab.ports import LOOPBACK

NAME = "lab-node"
READY, CRASHES, MISSING, UNREADY, SUCCEEDS, FAILS, DIES = (
    "ready", "crashes", "missing", "unready", "succeeds", "fails", "dies",
)  # fmt: skip


@dataclass
class Image:
    """What becomes of a container of this image, from the next pull on.

    One that DIES ends as `ended` says and is started again, unless `is_cured` says of the container
    in the pod's spec that it has what it needs.
    """

    state: str = READY
    build: str = "1"
    log: str = "started\n"
    previous_log: str = "panic: the run before\n"
    boots: Callable[[dict], str] | None = None  # tells the state from the pod, as it starts
    ended: dict = field(default_factory=dict)
    is_cured: object = None


@dataclass
class LabNode:
    """The node. `holds_deletions` keeps deleted pods Terminating."""

    client: LabClient
    images: dict = field(default_factory=dict)
    holds_deletions: bool = False
    port: int = 0
    pulled: dict = field(default_factory=dict)  # by uid of the pod: the images it was started with
    starts: list = field(default_factory=list)  # names of the pods it ever started
    _closing: threading.Event = field(default_factory=threading.Event)

    def register(self):
        """Make the node object, with the address its logs are asked at."""
        with contextlib.suppress(ApiSaidNo):
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME}}
            self.client.post("/api/v1/nodes", body)
        node = self.client.get(f"/api/v1/nodes/{NAME}")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady",
                 "lastHeartbeatTime": now(), "lastTransitionTime": now()}  # fmt: skip
        node["status"] = {
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": LOOPBACK}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "capacity": {"pods": "500", "cpu": "64", "memory": "64Gi"},
            "allocatable": {"pods": "500", "cpu": "64", "memory": "64Gi"},
        }
        self.client.put(f"/api/v1/nodes/{NAME}/status", node)
        with contextlib.suppress(ApiSaidNo):  # the controller has not seen yet that it is ready
            self.client.patch(f"/api/v1/nodes/{NAME}", {"spec": {"taints": None}})

    def log_of(self, namespace, pod, container, is_previous):
        """What a container wrote; `None` where it did not run (before)."""
        for images in list(self.pulled.values()):
            if images["pod"] == (namespace, pod) and container in images:
                image = images[container]
                if image.state == MISSING or (is_previous and image.state not in {CRASHES, DIES}):
                    return None
                return image.previous_log if is_previous else image.log
        return None

    def run(self):
        """Play the kubelet until `close`."""
        while not self._closing.is_set():
            try:
                listed = self.client.get("/api/v1/pods")
                for pod in listed["items"]:
                    self._tend(pod)
                version = listed["metadata"]["resourceVersion"]
                watched = f"/api/v1/pods?watch=true&timeoutSeconds=2&resourceVersion={version}"
                for event in self.client.stream(watched, self._closing):
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        self._tend(event["object"])
            except (OSError, HTTPException, ApiSaidNo, ValueError, KeyError):  # it went, or is new
                self._closing.wait(0.05)

    def close(self):
        self._closing.set()

    def _tend(self, pod):
        meta, spec = pod["metadata"], pod["spec"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        with contextlib.suppress(ApiSaidNo):
            if "deletionTimestamp" in meta:
                if not self.holds_deletions:
                    self.client.delete(path, {"gracePeriodSeconds": 0,
                                              "preconditions": {"uid": meta["uid"]}})  # fmt: skip
            elif not spec.get("nodeName"):
                body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]},
                        "target": {"kind": "Node", "name": NAME}}  # fmt: skip
                self.client.post(f"{path}/binding", body)
            elif spec["nodeName"] == NAME and (self._is_new(pod) or self._is_to_end(pod)):
                self._start(pod, path)

    def _is_new(self, pod):
        """Not started, or what was said of its start was lost with the API."""
        is_told = bool((pod.get("status") or {}).get("containerStatuses"))
        return pod["metadata"]["uid"] not in self.pulled or not is_told

    def _is_to_end(self, pod):
        """A Job's pod runs first, so that a watch sees that too."""
        states = {i.state for n, i in self.pulled[pod["metadata"]["uid"]].items() if n != "pod"}
        return states & {SUCCEEDS, FAILS} and pod["status"].get("phase") == "Running"

    def _start(self, pod, path):
        meta = pod["metadata"]
        is_new = self._is_new(pod)
        if meta["uid"] not in self.pulled:
            self.starts.append(meta["name"])
            now_are = {c["name"]: self.images.get(c["image"], Image())
                       for c in pod["spec"]["containers"]}  # fmt: skip
            copies = {n: Image(**vars(i)) for n, i in now_are.items()}
            for one in pod["spec"]["containers"]:
                image = copies[one["name"]]
                image.state = image.boots(pod) if image.boots else image.state
                if image.state == DIES and image.is_cured is not None and image.is_cured(one):
                    image.state = READY
            self.pulled[meta["uid"]] = {"pod": (meta["namespace"], meta["name"]), **copies}
        chosen = self.pulled[meta["uid"]]
        statuses = [
            _container(c, chosen[c["name"]], is_new=is_new) for c in pod["spec"]["containers"]
        ]
        is_ready = all(s["ready"] for s in statuses)
        states = {chosen[c["name"]].state for c in pod["spec"]["containers"]}
        phase = "Pending" if MISSING in states else "Running"
        if not is_new and states & {SUCCEEDS, FAILS}:
            phase = "Failed" if FAILS in states else "Succeeded"
        conditions = [
            {"type": kind, "status": "True" if is_so else "False", "lastTransitionTime": now()}
            for kind, is_so in (("PodScheduled", True), ("Initialized", True),
                                ("ContainersReady", is_ready), ("Ready", is_ready))
        ]  # fmt: skip
        status = {"phase": phase, "conditions": conditions, "containerStatuses": statuses,
                  "startTime": now(), "hostIP": LOOPBACK}  # fmt: skip
        self.client.patch(f"{path}/status", {"status": status})


def _container(container, image, *, is_new):
    digest = hashlib.sha256(f"{container['image']}{image.build}".encode()).hexdigest()
    name = container["image"].partition(":")[0]
    told = {"name": container["name"], "image": container["image"], "restartCount": 0,
            "ready": image.state == READY, "started": image.state in {READY, UNREADY},
            "imageID": f"docker.io/{name}@sha256:{digest}", "lastState": {},
            "state": {"running": {"startedAt": now()}}}  # fmt: skip
    if image.state == MISSING:
        waiting = {
            "reason": "ImagePullBackOff",
            "message": f"Back-off pulling {container['image']}",
        }
        told.update(imageID="", state={"waiting": waiting})
    elif image.state in {CRASHES, DIES}:
        ended = {"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now(),
                 **image.ended}  # fmt: skip
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed"}
        told.update(restartCount=3, state={"waiting": waiting}, lastState={"terminated": ended})
    elif image.state in {SUCCEEDS, FAILS} and not is_new:
        code = 0 if image.state == SUCCEEDS else 1
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error",
                 "startedAt": now(), "finishedAt": now()}  # fmt: skip
        told.update(state={"terminated": ended}, started=False)
    return told


class _Logs(BaseHTTPRequestHandler):
    node: LabNode

    def do_GET(self):
        parts = urlsplit(self.path)
        _, kind, namespace, pod, container = (*parts.path.split("/"), "", "", "", "")[:5]
        query = parse_qs(parts.query)
        is_previous = query.get("previous") == ["true"]
        text = self.node.log_of(namespace, pod, container, is_previous)
        found = kind == "containerLogs" and text is not None
        lines = (text or "").splitlines()[-int(query.get("tailLines", ["100000"])[0]) :]
        content = "".join(f"{line}\n" for line in lines).encode()
        missing = f'previous terminated container "{container}" not found'
        said = content if found else missing.encode()
        self.send_response(200 if found else 400)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format, *args):  # noqa: A002 (as the base class has it)
        """Say nothing."""


@contextlib.contextmanager
def lab_node(client, scratch: Path):
    """Run a node for an API until the end of the block."""
    node = LabNode(client)
    key = new_key()
    day = timedelta(days=1)
    _, pem = self_signed(LOOPBACK, Validity.with_left(day, day), key)
    (scratch / "kubelet.pem").write_bytes(pem + key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(scratch / "kubelet.pem")
    server = ThreadingHTTPServer((LOOPBACK, 0), type("Logs", (_Logs,), {"node": node}))
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    node.port = server.server_address[1]
    node.register()
    threading.Thread(target=node.run, daemon=True).start()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield node
    finally:
        node.close()
        server.shutdown()
        server.server_close()
