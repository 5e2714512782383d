"""A stand-in for kube-apiserver: TLS, authentication and a few resources in a real etcd.

It is started with kubeadm's own arguments. It shows the serving certificate that it loaded when
it started until it is started again, as old releases did. With the file `RELOADS` there it shows
the one on disk, as kube-apiserver 1.36 was seen to do within a second. Like the real one it reads
its client certificate for etcd at each new connection, ends where it finds no etcd at its start
(after 20 s; 8 here), and is not ready where it loses it later.
"""

import base64
import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.lab.control_plane_access import (
    ADMINS,
    ANONYMOUS,
    BOOTSTRAPPERS,
    Asked,
    is_allowed,
)
from tests.lab.control_plane_protobuf import decoded
from tests.lab.control_plane_requests import (
    KINDS,
    Answer,
    Request,
    discovery,
    key_of,
    stamped,
    status,
)
from tests.lab.control_plane_store import Conflict, Etcd, Store, Unavailable
from tests.lab.control_plane_tls import (
    AnswerNo,
    ApiClient,
    Handler,
    Identity,
    TlsServer,
    serve,
    server_context,
)

RELOADS = Path("/etc/lab/apiserver-reloads")
VERSION_FILE = Path("/etc/lab/version")
SEED = Path("/var/lib/lab/seed.yaml")
GIVES_UP_SECONDS = 8.0  # 20 in reality
RESOURCE = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<rest>.+))?"
)
NOTHING_THERE = status(
    HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource"
)
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Server:
    """What all requests share."""

    def __init__(self, flags: dict[str, str]) -> None:
        self.flags = flags
        self.version = VERSION_FILE.read_text().strip() if VERSION_FILE.exists() else "1.36.2"
        etcd = Etcd(
            flags["etcd-servers"].split(","),
            flags["etcd-cafile"],
            flags["etcd-certfile"],
            flags["etcd-keyfile"],
        )
        self.store = Store(etcd)
        self.is_etcd_healthy = False
        self._loaded = self._load()
        self._loaded_of = self._stamp()

    def context(self) -> ssl.SSLContext:
        """What is shown: loaded at the start, or anew where it reloads and has a whole pair."""
        stamp = self._stamp()
        if RELOADS.exists() and stamp != self._loaded_of:
            try:
                self._loaded, self._loaded_of = self._load(), stamp
            except (OSError, ssl.SSLError) as error:
                log(f"serving certificate not reloaded: {error}")
        return self._loaded

    def _load(self) -> ssl.SSLContext:
        names = ("tls-cert-file", "tls-private-key-file", "client-ca-file")
        return server_context(*(self.flags[name] for name in names))

    def _stamp(self) -> list[int]:
        names = ("tls-cert-file", "tls-private-key-file")
        paths = [Path(self.flags[name]) for name in names]
        return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]

    def wait_for_etcd(self) -> None:
        """Wait until etcd answers, and put there what a cluster has from its beginning.

        Raises:
            SystemExit: it did not.
        """
        deadline = time.monotonic() + GIVES_UP_SECONDS
        while not self.store.is_healthy():
            if time.monotonic() > deadline:
                log("Error: context deadline exceeded")
                sys.exit(1)
            time.sleep(0.1)
        seeds = yaml.safe_load_all(SEED.read_text()) if SEED.exists() else []
        for seed in seeds:
            try:
                self.store.create(key_of(seed), stamped(seed))
            except (Conflict, Unavailable):
                continue
        self.is_etcd_healthy = True

    def watch_etcd(self) -> None:
        """Ask etcd again and again, so that probes need not."""
        while True:
            self.is_etcd_healthy = self.store.is_healthy()
            time.sleep(0.3)

    def health(self, path: str) -> Answer:
        """Answer a probe."""
        if self.is_etcd_healthy:
            return HTTPStatus.OK, "ok"
        names = ["ping", "log", "etcd"] + ["etcd-readiness"] * (path == "/readyz")
        lines = [
            f"[-]{name} failed: reason withheld" if "etcd" in name else f"[+]{name} ok"
            for name in names
        ]
        checked = path.lstrip("/")
        return HTTPStatus.INTERNAL_SERVER_ERROR, "\n".join([*lines, f"{checked} check failed\n"])

    def has_admin_binding(self) -> bool:
        """Whether admin.conf's group is bound to a role."""
        return self.store.get(f"clusterrolebindings//{ADMINS}") is not None

    def who_brings(self, authorization: str) -> Identity:
        """Who comes with a bootstrap token; nobody where it is none that is known."""
        public, _, secret = authorization.removeprefix("Bearer ").partition(".")
        kept = self.store.get(f"secrets/kube-system/bootstrap-token-{public}")
        if not secret or kept is None:
            return Identity("", ())
        if base64.b64decode(kept["data"]["token-secret"]).decode() != secret:
            return Identity("", ())
        groups = base64.b64decode(kept["data"]["auth-extra-groups"]).decode().split(",")
        return Identity(f"system:bootstrap:{public}", (BOOTSTRAPPERS, *groups))

    def said(self, path: str) -> Answer:
        """Answer what is asked of no resource."""
        if path in {"/healthz", "/livez", "/readyz"}:
            return self.health(path)
        if path == "/version":
            major, minor, _ = self.version.split(".")
            said = {"major": major, "minor": minor, "gitVersion": f"v{self.version}"}
            return HTTPStatus.OK, {**said, "platform": "linux/amd64"}
        found = discovery(path)
        return NOTHING_THERE if found is None else (HTTPStatus.OK, found)

    def kubelet_log(self, asked: Asked) -> Answer:
        """Fetch the log of a pod from its kubelet, as the API server's kubelet client."""
        pod = self.store.get(f"pods/{asked.namespace}/{asked.name}")
        if pod is None:
            return NOTHING_THERE
        container = pod["spec"]["containers"][0]["name"]
        node = self.store.get(f"nodes//{pod['spec']['nodeName']}") or {"status": {}}
        addresses = node["status"].get("addresses") or [{"address": ""}]
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # kubeadm gives no --kubelet-certificate-authority
        certificate, key = (self.flags[f"kubelet-client-{n}"] for n in ("certificate", "key"))
        meta = pod["metadata"]
        path = f"/containerLogs/{meta['namespace']}/{meta['name']}/{container}"
        try:
            context.load_cert_chain(certificate, key)
            client = ApiClient(f"https://{addresses[0]['address']}:10250", context)
            return HTTPStatus.OK, str(client.ask("GET", path))
        except AnswerNo as error:
            return status(error.code, "Unauthorized", str(error.args[1]))
        except OSError as error:
            return status(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", str(error))


class ApiHandler(Handler):
    """Answers one client."""

    served: Server

    def do_GET(self) -> None:  # noqa: N802 - as http.server calls it
        self._respond()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815

    def _respond(self) -> None:
        try:
            code, content = self._answered(self._sent())
        except Unavailable as error:
            text = f"etcd: {error}"
            code, content = status(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", text)
        except ValueError as error:
            code, content = status(HTTPStatus.BAD_REQUEST, "BadRequest", str(error))
        self.answer(code, content)

    def _sent(self) -> dict[str, Any]:
        body = self.body()
        if "protobuf" in (self.headers.get("Content-Type") or ""):
            return decoded(body)
        sent: dict[str, Any] = json.loads(body or b"{}")
        return sent

    def _answered(self, sent: dict[str, Any]) -> Answer:
        parts = urlsplit(self.path)
        who, brought = self.identity, self.headers.get("Authorization", "")
        if not who.name and brought:
            who = self.served.who_brings(brought)
        if who.has_expired or (brought and not who.name):
            return status(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")
        who = Identity(who.name, (*who.groups, "system:authenticated")) if who.name else ANONYMOUS
        found = RESOURCE.fullmatch(parts.path)
        asked = Asked(VERBS[self.command], parts.path)
        if found:
            named = {name: found[name] or "" for name in ("group", "resource", "namespace", "name")}
            verb = "list" if asked.verb == "get" and not found["name"] else asked.verb
            asked = Asked(verb, parts.path, **named)
        has_binding = ADMINS not in who.groups or self.served.has_admin_binding()
        if not is_allowed(who, asked, has_admin_binding=has_binding):
            return status(HTTPStatus.FORBIDDEN, "Forbidden", asked.refusal(who.name))
        if not asked.resource:
            return self.served.said(parts.path)
        if asked.resource not in KINDS.get((asked.group, "v1"), {}):
            return NOTHING_THERE
        if found and found["rest"] == "log":
            return self.served.kubelet_log(asked)
        request = Request(self.served.store, who, asked, has_binding=has_binding)
        return request.answered(sent, parse_qs(parts.query))


def log(text: str) -> None:
    """Say something in the container's log."""
    sys.stderr.write(f"{datetime.now(UTC).isoformat()} {text}\n")
    sys.stderr.flush()


def flags_of(words: Sequence[str]) -> dict[str, str]:
    """Read `--name=value` arguments."""
    pairs = (word.lstrip("-").partition("=") for word in words)
    return {name: value for name, _, value in pairs}


def main(words: Sequence[str]) -> None:
    """Run until it is ended."""
    flags = flags_of(words)
    server = Server(flags)
    server.wait_for_etcd()
    ApiHandler.served = server
    listener = TlsServer(("0.0.0.0", int(flags["secure-port"])), ApiHandler, server.context)  # noqa: S104
    threading.Thread(target=server.watch_etcd, daemon=True).start()
    serve(listener)
    log("serving")
    threading.Event().wait()
