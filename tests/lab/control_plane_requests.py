"""What the API server's stand-in does with its resources, once a request is allowed."""

import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from tests.lab.control_plane_access import Asked, is_allowed
from tests.lab.control_plane_store import Conflict, Store
from tests.lab.control_plane_tls import Identity

Answer = tuple[int, object]
KINDS: dict[tuple[str, str], dict[str, tuple[str, bool, str]]] = {  # kind, in a namespace, short
    ("", "v1"): {
        "configmaps": ("ConfigMap", True, "cm"),
        "events": ("Event", True, "ev"),
        "namespaces": ("Namespace", False, "ns"),
        "nodes": ("Node", False, "no"),
        "pods": ("Pod", True, "po"),
        "secrets": ("Secret", True, ""),
        "serviceaccounts": ("ServiceAccount", True, "sa"),
        "services": ("Service", True, "svc"),
    },
    ("apps", "v1"): {
        "daemonsets": ("DaemonSet", True, "ds"),
        "deployments": ("Deployment", True, "deploy"),
    },
    ("authentication.k8s.io", "v1"): {"selfsubjectreviews": ("SelfSubjectReview", False, "")},
    ("authorization.k8s.io", "v1"): {
        "selfsubjectaccessreviews": ("SelfSubjectAccessReview", False, "")
    },
    ("certificates.k8s.io", "v1"): {
        "certificatesigningrequests": ("CertificateSigningRequest", False, "csr")
    },
    ("coordination.k8s.io", "v1"): {"leases": ("Lease", True, "")},
    ("rbac.authorization.k8s.io", "v1"): {"clusterrolebindings": ("ClusterRoleBinding", False, "")},
}


class Request:
    """One request for a resource, allowed already."""

    def __init__(self, store: Store, who: Identity, asked: Asked, *, has_binding: bool) -> None:
        self.store = store
        self.who = who
        self.asked = asked
        self.has_binding = has_binding
        self.kind, self.is_namespaced, _ = KINDS[asked.group, "v1"][asked.resource]
        self.folder = f"{asked.resource}/{asked.namespace}"
        self.version = f"{asked.group}/v1" if asked.group else "v1"

    def answered(self, sent: dict[str, Any], query: dict[str, list[str]]) -> Answer:
        """Do what is asked."""
        if self.asked.resource == "selfsubjectreviews":
            user = {"username": self.who.name, "groups": list(self.who.groups)}
            return HTTPStatus.CREATED, {**self._typed({}), "status": {"userInfo": user}}
        if self.asked.resource == "selfsubjectaccessreviews":
            return HTTPStatus.CREATED, {**self._typed(sent), "status": self._review(sent)}
        if self.asked.verb == "list":
            return self._list(query)
        if self.asked.verb == "create":
            return self._create(sent)
        there = self.store.get(self.key)
        if there is None:
            text = f'{self.asked.resource} "{self.asked.name}" not found'
            return status(HTTPStatus.NOT_FOUND, "NotFound", text)
        return self._on(there, sent)

    @property
    def key(self) -> str:
        """Where the object is kept."""
        return f"{self.folder}/{self.asked.name}"

    def _on(self, there: dict[str, Any], sent: dict[str, Any]) -> Answer:
        if self.asked.verb == "get":
            return HTTPStatus.OK, self._typed(there)
        if self.asked.verb == "delete":
            self.store.delete(self.key)
            return HTTPStatus.OK, self._typed(there)
        changed = merged(there, sent) if self.asked.verb == "patch" else sent
        kept = {name: there["metadata"].get(name) for name in ("uid", "creationTimestamp")}
        changed["metadata"] = {**changed.get("metadata", {}), **kept}
        try:
            stored = self.store.update(self.key, changed)
        except Conflict:
            text = f'Operation cannot be fulfilled on {self.asked.resource} "{self.asked.name}"'
            return status(HTTPStatus.CONFLICT, "Conflict", text)
        return HTTPStatus.OK, self._typed(stored)

    def _list(self, query: dict[str, list[str]]) -> Answer:
        is_wide = self.is_namespaced and not self.asked.namespace
        prefix = self.asked.resource if is_wide or not self.is_namespaced else self.folder
        items, revision = self.store.list(prefix)
        for text in query.get("labelSelector", []):
            wanted = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
            items = [
                i for i in items if wanted.items() <= (i["metadata"].get("labels") or {}).items()
            ]
        for text in query.get("fieldSelector", []):
            for path, _, value in (part.partition("=") for part in text.split(",")):
                items = [item for item in items if _at(item, path) == value.lstrip("=")]
        return HTTPStatus.OK, {
            "kind": f"{self.kind}List",
            "apiVersion": self.version,
            "metadata": {"resourceVersion": revision},
            "items": items,
        }

    def _create(self, sent: dict[str, Any]) -> Answer:
        meta = sent.setdefault("metadata", {})
        if not meta.get("name"):
            meta["name"] = f"{meta.get('generateName', '')}{time.time_ns() % 10**8:x}"
        if self.is_namespaced:
            meta["namespace"] = self.asked.namespace
        if self.asked.resource == "certificatesigningrequests":
            sent["spec"] |= {"username": self.who.name, "groups": list(self.who.groups)}
        try:
            stored = self.store.create(f"{self.folder}/{meta['name']}", stamped(sent))
        except Conflict:
            text = f'{self.asked.resource} "{meta["name"]}" already exists'
            return status(HTTPStatus.CONFLICT, "AlreadyExists", text)
        return HTTPStatus.CREATED, self._typed(stored)

    def _review(self, sent: dict[str, Any]) -> dict[str, Any]:
        of = sent.get("spec", {}).get("resourceAttributes", {})
        keys = ("verb", "group", "resource", "namespace", "name")
        asked = Asked(path="", **{key: of.get(key, "") for key in keys})
        return {"allowed": is_allowed(self.who, asked, has_admin_binding=self.has_binding)}

    def _typed(self, value: dict[str, Any]) -> dict[str, Any]:
        return {"kind": self.kind, "apiVersion": self.version, **value}


def stamped(value: dict[str, Any]) -> dict[str, Any]:
    """Give an object the moment of its making and an id."""
    meta = value.setdefault("metadata", {})
    meta.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    meta.setdefault("uid", f"{time.time_ns():032x}")
    return value


def merged(there: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Apply a merge patch."""
    result = dict(there)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def status(code: int, reason: str, message: str) -> Answer:
    """Say no, as the API does."""
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": int(code),
    }


def key_of(value: dict[str, Any]) -> str:
    """Return where an object is kept."""
    kinds = {kind: plural for known in KINDS.values() for plural, (kind, *_) in known.items()}
    meta = value["metadata"]
    return f"{kinds[value['kind']]}/{meta.get('namespace', '')}/{meta['name']}"


def _at(item: dict[str, Any], path: str) -> str:
    value: Any = item
    for part in path.rstrip("!").split("."):
        value = (value or {}).get(part)
    return str(value or "")


def discovery(path: str) -> object | None:
    """Answer what APIs there are; none where the path is no such question."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    groups = [
        {
            "name": group,
            "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
            "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
        }
        for group, version in KINDS
        if group
    ]
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    for (group, version), resources in KINDS.items():
        if path == (f"/apis/{group}/{version}" if group else "/api/v1"):
            listed = [
                {
                    "name": plural,
                    "singularName": "",
                    "kind": kind,
                    "namespaced": is_namespaced,
                    "shortNames": [short] if short else [],
                    "verbs": ["create", "delete", "get", "list", "patch", "update"],
                }
                for plural, (kind, is_namespaced, short) in resources.items()
            ]
            named = f"{group}/{version}" if group else version
            return {"kind": "APIResourceList", "groupVersion": named, "resources": listed}
    return None
