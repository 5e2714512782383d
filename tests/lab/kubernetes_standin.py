"""A stand-in for kube-apiserver on loopback, for machines without one; see `kubernetes_store`."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

import jsonpatch

from tests.lab.kubernetes_rbac import REVIEWS, may
from tests.lab.kubernetes_roles import ARE_RECORDED, HEARD
from tests.lab.kubernetes_store import (
    OF_THE_CLUSTER,
    RESOURCES,
    Key,
    Refusal,
    Store,
    merged,
    named,
    selected,
)
from tests.lab.ports import LOOPBACK

TOKEN = "stand-in-token-0123456789"  # noqa: S105 - of this stand-in alone
VERBS = {"POST": "create", "PUT": "update", "DELETE": "delete", "PATCH": "patch"}
PAGE_TOKEN = "after:"  # noqa: S105 - no secret
BOOKMARK_SECONDS = 1.0


class StandInApi:
    """Answers requests from a store; controllers and a node act on it from outside."""

    def __init__(self):
        self.store = Store()
        self.log_of = lambda namespace, pod, container, previous: None
        self.port = 0
        self.is_away = False  # closes connections without an answer
        self.closing = threading.Event()

    def respond(self, request):
        parts = [unquote(p) for p in request.place.strip("/").split("/")]
        if found := self._about_itself(parts):
            request.send(200, found)
            return
        version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, sub = (*rest, "", "", "")[:3]
        if resource not in RESOURCES.get(version, {}):
            request.send_text(404, "404 page not found\n")
            return
        key = Key(version, resource, namespace, name)
        is_watch = request.query.get("watch") == "true"
        verb = VERBS.get(request.command, "watch" if is_watch else "get" if name else "list")
        self._authorise(request.user, verb, key, sub)
        if resource in REVIEWS:
            spec = request.body["spec"]
            if ARE_RECORDED and "user" not in spec:
                HEARD.note_review(request.user, request.body)
            who = spec.get("user") or request.user
            allowed = may(self.store, spec["resourceAttributes"], who, spec.get("groups") or ())
            status = {"allowed": allowed}
            request.send(201, {**request.body, "status": status})
        elif is_watch:
            self._watch(request, key, request.query)
        elif request.command == "GET":
            self._get(request, key, sub, request.query)
        else:
            self._change(request, key, sub)

    def _about_itself(self, parts):
        groups = {}
        for version in RESOURCES:
            group, _, short = version.rpartition("/")
            groups.setdefault(group, []).append({"groupVersion": version, "version": short})
        if parts == ["version"]:
            return {"gitVersion": "v1.36.2-stand-in", "major": "1", "minor": "36"}
        if parts[0] == "apis" and len(parts) == 2 and parts[1] in groups:
            served = groups[parts[1]]
            return {"kind": "APIGroup", "name": parts[1], "versions": served,
                    "preferredVersion": served[0]}  # fmt: skip
        if parts[0] in {"api", "apis"} and "/".join(parts[1:]) in RESOURCES:
            version = "/".join(parts[1:])
            listed = [{"name": n, "kind": k, "namespaced": n not in OF_THE_CLUSTER}
                      for n, k in RESOURCES[version].items()]  # fmt: skip
            return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}
        return None

    def _authorise(self, user, verb, key, sub):
        if key.resource == "selfsubjectaccessreviews":
            return
        if ARE_RECORDED:
            what = f"{key.resource}/{sub}" if sub else key.resource
            HEARD.note(user, (key.version.rpartition("/")[0], what, verb), key.namespace)
        group = key.version.rpartition("/")[0]
        wanted = {"verb": verb, "group": group, "resource": key.resource, "subresource": sub,
                  "namespace": key.namespace, "name": key.name}  # fmt: skip
        if not may(self.store, wanted, user):
            what = f"{key.resource}/{sub}" if sub else key.resource
            where = f' in the namespace "{key.namespace}"' if key.namespace else ""
            raise Refusal(
                403,
                "Forbidden",
                f'{named(key)} "{key.name}" is forbidden: User "{user}" cannot {verb} resource '
                f'"{what}" in API group "{group}"{where or " at the cluster scope"}',
            )

    def _get(self, request, key, sub, query):
        if sub == "log":
            pod = self.store.get(Key("v1", "pods", key.namespace, key.name))
            container = query.get("container") or pod["spec"]["containers"][0]["name"]
            is_previous = query.get("previous") == "true"
            told = self.log_of(key.namespace, key.name, container, is_previous)
            if told is None:
                what = "previous terminated container" if is_previous else "container"
                said = f'{what} "{container}" in pod "{key.name}" is not available'
                raise Refusal(400, "BadRequest", said)
            lines = told.splitlines()[-int(query.get("tailLines", 10**6)) :]
            text = "".join(f"{line}\n" for line in lines)
            return request.send_text(200, text[: int(query.get("limitBytes", 10**9))])
        if key.name:
            return request.send(200, self.store.get(key))
        with self.store.changed:
            version = str(self.store.version)
            found = [
                (k, o) for k, o in self.store.items(key.resource, key.namespace)
                if selected(o, query.get("labelSelector", ""), query.get("fieldSelector", ""))
            ]  # fmt: skip
        metadata = {"resourceVersion": version}
        after = query.get("continue", "").removeprefix(PAGE_TOKEN)
        if after:
            found = [(k, o) for k, o in found if f"{k.namespace}/{k.name}" > after]
        limit = int(query.get("limit") or 0)
        if limit and len(found) > limit:
            found = found[:limit]
            metadata["continue"] = f"{PAGE_TOKEN}{found[-1][0].namespace}/{found[-1][0].name}"
        kind = RESOURCES[key.version][key.resource]
        bare = [{n: v for n, v in o.items() if n not in {"kind", "apiVersion"}} for _, o in found]
        listed = {"kind": f"{kind}List", "apiVersion": key.version, "metadata": metadata}
        return request.send(200, {**listed, "items": bare})

    def _change(self, request, key, sub):
        store, body, method = self.store, request.body, request.command
        content_type = (request.headers.get("Content-Type") or "").partition(";")[0]
        if sub == "binding":
            pod = store.get(key)
            pod["spec"]["nodeName"] = body["target"]["name"]
            store.replace(key, pod)
            return request.send(201, {"kind": "Status", "status": "Success"})
        if sub == "eviction":
            store.delete(key, body.get("deleteOptions") or {})
            return request.send(201, {"kind": "Status", "status": "Success"})
        if method == "POST":
            is_tried = request.query.get("dryRun") == "All"
            made = store.create(key, body, request.manager, is_tried=is_tried)
            return request.send(201, made)
        if method == "DELETE":
            return request.send(200, store.delete(key, body or {}))
        old = store.get(key)
        if method == "PUT":
            return request.send(200, store.replace(key, body, is_status=sub == "status"))
        if content_type == "application/json-patch+json":
            try:
                new = jsonpatch.JsonPatch(body).apply(old)
            except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
                raise refused_patch() from None
        elif content_type in {
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        }:
            new = merged(old, body, is_strategic="strategic" in content_type)
        else:
            raise Refusal(415, "UnsupportedMediaType", f"{content_type} is not supported")
        # A patch without a version is applied to whatever is there, as the API does it.
        is_status = sub == "status"
        new = store.replace(key, new, is_status=is_status, manager=request.manager)
        return request.send(200, new)

    def _watch(self, request, key, query):
        store = self.store
        since = int(query.get("resourceVersion") or 0)
        ends = float(query.get("timeoutSeconds") or 300)
        with store.changed:
            is_old = since < store.compacted
        request.begin_stream()
        if is_old:
            gone = Refusal(410, "Expired", "too old resource version")
            return request.send_line({"type": "ERROR", "object": status_of(gone)})
        waited = 0.0
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        with store.changed:
            there = store.items(key.resource, key.namespace)
            seen = {k for k, body in there if selected(body, labels, fields)}
        while waited < ends and not self.closing.is_set() and not self.is_away:
            with store.changed:
                news = store.since(since)
                if not news:
                    store.changed.wait(0.1)
                    waited += 0.1
                    news = store.since(since)
            for version, kind, at, body in news:
                since = version
                if at.resource != key.resource or key.namespace not in {"", at.namespace}:
                    continue
                fits = selected(body, labels, fields)
                if not fits and (not labels or at not in seen):
                    continue
                seen.add(at)
                request.send_line({"type": kind if fits else "DELETED", "object": body})
            is_due = int(waited * 10) % int(BOOKMARK_SECONDS * 10) == 0
            if not news and query.get("allowWatchBookmarks") == "true" and is_due:
                kind = RESOURCES[key.version][key.resource]
                body = {"kind": kind, "metadata": {"resourceVersion": str(since)}}
                request.send_line({"type": "BOOKMARK", "object": body})
        return None


def refused_patch():
    """As the real one says it: without a word on which operation it was."""
    said = "the server rejected our request due to an error in our request"
    return Refusal(422, "Invalid", said)


def status_of(refusal):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": refusal.message,
            "reason": refusal.reason, "code": refusal.code, "details": refusal.details}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """One connection to the stand-in."""

    protocol_version = "HTTP/1.1"
    api: StandInApi

    def handle_any(self):
        parts = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(size) or "null")
        if self.api.is_away:
            self.close_connection = True
            return
        self.place, self.query = parts.path, dict(parse_qsl(parts.query))
        agent = (self.headers.get("User-Agent") or "").partition("/")[0]
        self.manager = agent or "unknown"
        self.user = self.headers.get("Impersonate-User", "admin")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(401, status_of(Refusal(401, "Unauthorized", "Unauthorized")))
            return
        try:
            self.api.respond(self)
        except Refusal as refusal:
            self.send(refusal.code, status_of(refusal))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 (their names)

    def send(self, code, body):
        self.send_text(code, json.dumps(body), "application/json")

    def send_text(self, code, text, content_type="text/plain"):
        content = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def begin_stream(self):
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()

    def send_line(self, body):
        self.wfile.write(json.dumps(body).encode() + b"\n")
        self.wfile.flush()

    def log_message(self, format, *args):  # noqa: A002 (as the base class has it)
        """Say nothing."""


class Listener(ThreadingHTTPServer):
    """Takes a whole burst of connections."""

    daemon_threads = True
    request_queue_size = 128


@contextlib.contextmanager
def served(api):
    """Serve a stand-in until the end of the block."""
    server = Listener((LOOPBACK, 0), type("OneHandler", (Handler,), {"api": api}))
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
