"""A stand-in for the HTTP API of Grafana: folders, dashboards and data sources, kept in memory.

A Grafana itself is not installable everywhere the tests run. This answers what the documentation of
Grafana 11 says it answers, in status and shape, for the few requests that the project makes; the
order of the refusals (uid, then version) is Grafana's too. `release` makes it an older one, as far
as data sources go. Faults are set on it from outside.
"""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.lab.grafana_datasources import StandInDatasources
from tests.lab.ports import LOOPBACK

TOKEN = "glsa_lab_0123456789"  # noqa: S105 - of this stand-in alone
USER, PASSWORD = "admin", "pässword:with colon"
VERSION = "11.6.4"
PERMISSIONS = {
    "Admin": ["datasources:read", "datasources:create", "datasources:write", "datasources:query"],
    "Editor": ["datasources:query"],
    "Viewer": ["datasources:query"],
}


@dataclass(frozen=True)
class Reply:
    """An answer: status, body (text as it is, anything else as JSON) and further headers."""

    status: int
    body: Any = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class StandInGrafana:
    """What the stand-in holds, and the faults it shows."""

    port: int = 0
    database: str = "ok"
    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)  # by uid, with meta
    history: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)  # by uid, version
    datasources: StandInDatasources = field(default_factory=StandInDatasources)
    requests: list[str] = field(default_factory=list)
    role: str = "Editor"
    replies: dict[str, Reply] = field(default_factory=dict)  # instead of the true answer, by path
    loses_answers: bool = False  # does what is asked, then hangs up
    loses_answers_to: str = ""  # likewise, once, to a request of this method

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}/grafana"

    def answer(self, method: str, path: str, login: str, body: Any) -> Reply:
        """Return what Grafana answers to a request."""
        if path in self.replies:
            return self.replies[path]
        if path == "/api/health":
            release = self.datasources.release
            version = VERSION if release == 11 else f"{release}.1.3"
            said = {"commit": "c0ffee", "database": self.database, "version": version}
            return Reply(200 if self.database == "ok" else 503, said)
        if refusal := self._refusal(method, login):
            return refusal
        if path.partition("?")[0].split("/")[:3] == ["", "api", "datasources"]:
            return self._datasource(method, path, body)
        return self._get(path) if method == "GET" else self._post(path, body)

    def _datasource(self, method: str, path: str, body: Any) -> Reply:
        is_use = "/proxy/" in path or path.endswith("/health")
        if self.role != "Admin" and not is_use:
            return Reply(403, {"message": "Permission denied", "title": "Access denied"})
        return Reply(*self.datasources.answer(method, path, body))

    def _refusal(self, method: str, login: str) -> Reply | None:
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if login not in {f"Bearer {TOKEN}", f"Basic {basic}"}:
            said = {"message": "Unauthorized", "messageId": "auth.unauthorized", "statusCode": 401}
            return Reply(401, {**said, "traceID": ""})
        if method != "GET" and self.role == "Viewer":
            needed = (
                "You'll need additional permissions to perform this action. Permissions needed: "
            )
            said = {"accessErrorId": "ACE0000000001", "title": "Access denied"}
            return Reply(403, {**said, "message": needed + "dashboards:create"})
        return None

    def _post(self, path: str, body: dict[str, Any]) -> Reply:
        if path == "/api/folders":
            return self._create_folder(body)
        if path == "/api/dashboards/db":
            return self._save_dashboard(body)
        if path.startswith("/api/dashboards/uid/") and path.endswith("/restore"):
            return self._restore(path.split("/")[4], body["version"])
        return Reply(404, {"message": "Not found"})

    def _get(self, path: str) -> Reply:
        if (said := self._about_itself(path)) is not None:
            return Reply(200, said)
        kind, _, uid = path.removeprefix("/api/").rpartition("/")
        if kind == "folders" and uid in self.folders:
            return Reply(200, self.folders[uid])
        if kind == "folders":
            return Reply(404, {"message": "folder not found", "status": "not-found"})
        if kind == "dashboards/uid" and uid in self.dashboards:
            return Reply(200, self.dashboards[uid])
        is_dashboard = kind == "dashboards/uid"
        return Reply(404, {"message": "Dashboard not found" if is_dashboard else "Not found"})

    def _about_itself(self, path: str) -> Any:
        if path == "/api/org":
            return {"id": 1, "name": "Main Org.", "address": {}}
        if path.startswith("/api/search?"):
            return [self._found(uid) for uid in self.dashboards]
        if path == "/api/access-control/user/permissions" and self.datasources.release >= 9:
            return {name: ["datasources:*"] for name in PERMISSIONS[self.role]}
        return None

    def _found(self, uid: str) -> dict[str, Any]:
        dashboard = self.dashboards[uid]["dashboard"]
        return {"id": dashboard["id"], "uid": uid, "title": dashboard["title"], "type": "dash-db"}

    def _create_folder(self, body: dict[str, Any]) -> Reply:
        uid = body["uid"]
        if uid in self.folders:
            return Reply(
                409,
                {"message": "a folder with the same UID already exists", "status": "name-exists"},
            )
        self.folders[uid] = {"id": len(self.folders) + 1, "version": 1, **body}
        return Reply(200, self.folders[uid])

    def _restore(self, uid: str, version: int) -> Reply:
        if (uid, version) not in self.history:
            return Reply(404, {"message": "Dashboard version not found"})
        stored, old = self.dashboards[uid], self.history[uid, version]
        dashboard = {**old, "version": stored["dashboard"]["version"]}
        return self._save_dashboard({"dashboard": dashboard, **stored["meta"]})

    def _save_dashboard(self, body: dict[str, Any]) -> Reply:
        dashboard = dict(body["dashboard"])
        if not dashboard.get("title"):
            return Reply(400, {"message": "Dashboard title cannot be empty"})
        folder = body.get("folderUid", "")
        if folder and folder not in self.folders:
            return Reply(400, {"message": "folder not found", "status": "not-found"})
        uid = dashboard.get("uid") or f"made-{len(self.dashboards)}"
        stored = self.dashboards.get(uid)
        version = stored["dashboard"]["version"] if stored else 0
        if stored and stored["meta"].get("provisioned"):
            return Reply(400, {"message": "Cannot save provisioned dashboard"})
        if stored and dashboard.get("version", 0) != version and not body.get("overwrite"):
            return Reply(
                412,
                {
                    "message": "The dashboard has been changed by someone else",
                    "status": "version-mismatch",
                },
            )
        if stored:
            self.history[uid, version] = stored["dashboard"]
        number = stored["dashboard"]["id"] if stored else len(self.dashboards) + 1
        dashboard |= {"id": number, "uid": uid, "version": version + 1}
        meta = {"folderUid": folder, "provisioned": False, "type": "db", "version": version + 1}
        self.dashboards[uid] = {"meta": meta, "dashboard": dashboard}
        return Reply(
            200,
            {
                "id": number,
                "uid": uid,
                "slug": "x",
                "status": "success",
                "url": f"/d/{uid}/x",
                "version": version + 1,
                "folderUid": folder,
            },
        )


@contextlib.contextmanager
def stand_in_grafana() -> Iterator[StandInGrafana]:
    """Run a stand-in Grafana on a free loopback port, under the sub-path `/grafana`."""
    grafana = StandInGrafana()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_PUT(self) -> None:
            self._answer("PUT")

        def do_DELETE(self) -> None:
            self._answer("DELETE")

        def _answer(self, method: str) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.removeprefix("/grafana")
            grafana.requests.append(f"{method} {path}")
            login = self.headers.get("Authorization", "")
            reply = grafana.answer(method, path, login, json.loads(content or b"null"))
            is_lost_once = grafana.loses_answers_to == method
            if grafana.loses_answers or is_lost_once:
                grafana.loses_answers_to = "" if is_lost_once else grafana.loses_answers_to
                self.close_connection = True
                return
            is_text = isinstance(reply.body, str)
            body = (reply.body if is_text else json.dumps(reply.body)).encode()
            self.send_response(reply.status)
            kind = "text/html" if is_text else "application/json; charset=UTF-8"
            for name, value in {"Content-Type": kind, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        server.daemon_threads = True
        grafana.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield grafana
        finally:
            server.shutdown()
