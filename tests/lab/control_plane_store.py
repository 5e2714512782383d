"""The objects of the API server's stand-in, kept in a real etcd under /registry.

It talks to etcd through the JSON gateway of its client port, with a client certificate. Like
etcd's own client it reads its certificate when it connects, and keeps the connection.
"""

import base64
import contextlib
import http.client
import json
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

WITHIN_SECONDS = 2.0
ROOT = "/registry"


class Unavailable(Exception):
    """etcd did not answer, or has no quorum."""


class Conflict(Exception):
    """The object is there already, or another than was expected."""


@dataclass
class Etcd:
    """A client of some members of one etcd."""

    servers: list[str]
    authority: str
    certificate: str
    key: str
    within_seconds: float = WITHIN_SECONDS
    _kept: http.client.HTTPSConnection | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request to whichever member answers.

        Raises:
            Unavailable: none did, or there is no quorum.
        """
        if not self._lock.acquire(timeout=self.within_seconds):
            raise Unavailable("others wait for an answer already")
        try:
            return self._asked(path, json.dumps(body))
        finally:
            self._lock.release()

    def _asked(self, path: str, content: str) -> dict[str, Any]:
        said = "no server"
        for server in ["", *self.servers] if self._kept else self.servers:
            try:
                connection = self._kept if self._kept and not server else self._connect(server)
                connection.request("POST", path, content)
                response = connection.getresponse()
                text = response.read().decode()
            except (OSError, http.client.HTTPException) as error:
                said = repr(error)
                self._drop()
                continue
            if response.status == http.HTTPStatus.OK:
                answer: dict[str, Any] = json.loads(text)
                return answer
            said = text
            self._drop()
        raise Unavailable(said)

    def _connect(self, server: str) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        parts = urlsplit(server)
        self._kept = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=self.within_seconds, context=context
        )
        return self._kept

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


class Store:
    """Objects by the path of their key."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd

    def is_healthy(self) -> bool:
        """Whether a read that needs a quorum is answered."""
        try:
            self._range(f"{ROOT}/health")
        except Unavailable:
            return False
        return True

    def get(self, key: str) -> dict[str, Any] | None:
        """Return one object; none where there is none."""
        found = self._range(f"{ROOT}/{key}").get("kvs", [])
        return _object(found[0]) if found else None

    def list(self, prefix: str) -> tuple[list[dict[str, Any]], str]:
        """Return the objects below a path, and the revision they were read at."""
        start = f"{ROOT}/{prefix}/"
        answer = self._range(start, start[:-1] + "0")  # 0 comes right after the slash
        return [_object(kv) for kv in answer.get("kvs", [])], answer["header"]["revision"]

    def create(self, key: str, value: dict[str, Any]) -> dict[str, Any]:
        """Store an object that is not there yet.

        Raises:
            Conflict: it is.
        """
        return self._put(key, value, {"target": "CREATE", "create_revision": "0"})

    def update(self, key: str, value: dict[str, Any]) -> dict[str, Any]:
        """Store an object over the one that was read.

        Raises:
            Conflict: it has changed since, or is gone.
        """
        version = value.get("metadata", {}).get("resourceVersion")
        if not version:
            there = self.get(key)
            if there is None:
                raise Conflict(key)
            version = there["metadata"]["resourceVersion"]
        return self._put(key, value, {"target": "MOD", "mod_revision": version})

    def delete(self, key: str) -> bool:
        """Remove an object; return whether it was there."""
        answer = self._etcd.ask("/v3/kv/deleterange", {"key": _coded(f"{ROOT}/{key}")})
        return bool(int(answer.get("deleted", "0")))

    def _range(self, key: str, end: str = "") -> dict[str, Any]:
        body = {"key": _coded(key)}
        if end:
            body["range_end"] = _coded(end)
        return self._etcd.ask("/v3/kv/range", body)

    def _put(self, key: str, value: dict[str, Any], expected: dict[str, str]) -> dict[str, Any]:
        kept = json.loads(json.dumps(value))
        with contextlib.suppress(KeyError):
            del kept["metadata"]["resourceVersion"]
        coded = _coded(f"{ROOT}/{key}")
        put = {"request_put": {"key": coded, "value": _coded(json.dumps(kept))}}
        compare = {"key": coded, "result": "EQUAL", **expected}
        answer = self._etcd.ask("/v3/kv/txn", {"compare": [compare], "success": [put]})
        if not answer.get("succeeded"):
            raise Conflict(key)
        kept.setdefault("metadata", {})["resourceVersion"] = answer["header"]["revision"]
        stored: dict[str, Any] = kept
        return stored


def _object(kv: dict[str, str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.b64decode(kv["value"]))
    value.setdefault("metadata", {})["resourceVersion"] = kv["mod_revision"]
    return value


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
