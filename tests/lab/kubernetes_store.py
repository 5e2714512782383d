"""The objects of the stand-in Kubernetes API: versions, patches, watches, selectors.

What is here answers as kube-apiserver 1.36 does in the contract tests; what differs is a mistake of
this file. kmock 0.8 was looked at first: it keeps no resourceVersion, so that nothing of what the
project relies on (preconditions, conflicts, 410) could be tested against it.
"""

import copy
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

RESOURCES = {
    "v1": {
        "pods": "Pod", "services": "Service", "endpoints": "Endpoints", "configmaps": "ConfigMap",
        "secrets": "Secret", "events": "Event", "serviceaccounts": "ServiceAccount",
        "persistentvolumeclaims": "PersistentVolumeClaim", "replicationcontrollers":
        "ReplicationController", "namespaces": "Namespace", "nodes": "Node",
        "persistentvolumes": "PersistentVolume", "resourcequotas": "ResourceQuota",
        "limitranges": "LimitRange",
    },
    "apps/v1": {
        "deployments": "Deployment", "replicasets": "ReplicaSet", "statefulsets": "StatefulSet",
        "daemonsets": "DaemonSet", "controllerrevisions": "ControllerRevision",
    },
    "batch/v1": {"jobs": "Job", "cronjobs": "CronJob"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"ingresses": "Ingress"},
    "coordination.k8s.io/v1": {"leases": "Lease"},
    "discovery.k8s.io/v1": {"endpointslices": "EndpointSlice"},
    "rbac.authorization.k8s.io/v1": {
        "roles": "Role", "rolebindings": "RoleBinding",
        "clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding",
    },
    "authorization.k8s.io/v1": {
        "selfsubjectaccessreviews": "SelfSubjectAccessReview",
        "subjectaccessreviews": "SubjectAccessReview",
    },
    "storage.k8s.io/v1": {
        "volumeattachments": "VolumeAttachment", "storageclasses": "StorageClass",
        "csinodes": "CSINode", "csidrivers": "CSIDriver",
    },
}  # fmt: skip
OF_THE_CLUSTER = {
    "namespaces", "nodes", "persistentvolumes", "clusterroles", "clusterrolebindings",
    "selfsubjectaccessreviews", "subjectaccessreviews", "volumeattachments", "storageclasses",
    "csinodes", "csidrivers",
}  # fmt: skip
EVENTS_KEPT = 5000
HAVE_PHASES = {"pods", "persistentvolumes", "persistentvolumeclaims"}
IN_USE = "kubernetes.io/pvc-protection"
LISTS = {"containers", "volumes", "env", "volumeMounts", "initContainers"}


class Refusal(Exception):
    """A Status that is not Success."""

    def __init__(self, code, reason, message, details=None):
        super().__init__(code, reason, message)
        self.code, self.reason, self.message, self.details = code, reason, message, details or {}


@dataclass(frozen=True, order=True)
class Key:
    """Which object: group and version, resource, namespace and name."""

    version: str
    resource: str
    namespace: str
    name: str = ""


@dataclass
class Store:
    """All objects, and what happened to them."""

    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)
    events: deque = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    version: int = 100
    compacted: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    _listed: dict[str, dict[str, dict[Key, dict[str, Any]]]] = field(default_factory=dict)

    def get(self, key):
        with self.changed:
            if key not in self.objects:
                raise missing(key)
            return copy.deepcopy(self.objects[key])

    def under(self, resource, namespace=""):
        """Every object of a resource, as a copy; in one namespace, or in all."""
        with self.changed:
            return [copy.deepcopy(body) for _, body in self.items(resource, namespace)]

    def items(self, resource, namespace=""):
        """Return the same with their keys, in order and not copied: to be read while `changed`."""
        by_namespace = self._listed.get(resource, {})
        chosen = [by_namespace.get(namespace, {})] if namespace else by_namespace.values()
        return sorted((item for of_one in chosen for item in of_one.items()), key=key_of_item)

    def since(self, version):
        """Return what happened after a version: to be asked while `changed`."""
        news = []
        for event in reversed(self.events):
            if event[0] <= version:
                break
            news.append(event)
        return news[::-1]

    def create(self, key, body, manager="unknown", *, is_tried=False):
        with self.changed:
            is_there = Key("v1", "namespaces", "", key.namespace) in self.objects
            if key.namespace and not is_there:
                raise missing(Key("v1", "namespaces", "", key.namespace))
            metadata = body.setdefault("metadata", {})
            name = metadata.get("name") or metadata.get("generateName", "") + uuid.uuid4().hex[:5]
            key = Key(key.version, key.resource, key.namespace, name)
            if key in self.objects:
                told = f'{named(key)} "{name}" already exists'
                raise Refusal(409, "AlreadyExists", told)
            metadata.update(name=name, uid=str(uuid.uuid4()), creationTimestamp=now())
            if key.namespace:
                metadata["namespace"] = key.namespace
            if "spec" in body and key.resource not in {"pods", "nodes"}:
                metadata["generation"] = 1
            if key.resource == "secrets" and "stringData" in body:
                raise Refusal(400, "BadRequest", "the stand-in takes data of Secrets only")
            body.update(apiVersion=key.version, kind=RESOURCES[key.version][key.resource])
            if key.resource in {"deployments", "statefulsets", "replicasets"}:
                body["spec"].setdefault("replicas", 1)
            if key.resource in HAVE_PHASES:
                body.setdefault("status", {}).setdefault("phase", "Pending")
            note_fields({}, body, key, manager)
            if key.resource == "persistentvolumeclaims":
                metadata.setdefault("finalizers", [IN_USE])
            if not is_tried:
                self._put(key, body, "ADDED")
            return copy.deepcopy(body)

    def replace(self, key, body, *, is_status=False, manager="unknown"):
        """Put an object in place of the one that is there, if that is of the stated version."""
        with self.changed:
            old = self.objects.get(key)
            if old is None:
                raise missing(key)
            told = body["metadata"].get("resourceVersion")
            if told not in {None, old["metadata"]["resourceVersion"]}:
                raise Refusal(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {named(key)} "{key.name}": the object has '
                    "been modified; please apply your changes to the latest version and try again",
                )
            new = copy.deepcopy(body)
            drop_empty_maps(new)
            new["metadata"]["uid"] = old["metadata"]["uid"]
            if is_status:
                new = {**copy.deepcopy(old), "status": new.get("status", {})}
            elif "status" in old and key.resource != "persistentvolumes":
                new["status"] = copy.deepcopy(old["status"])
            if "generation" in old["metadata"]:
                bump = new.get("spec") != old.get("spec")
                new["metadata"]["generation"] = old["metadata"]["generation"] + bump
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if old.get("immutable") and new.get("data") != old.get("data"):
                said = "data: Forbidden: field is immutable when `immutable` is set"
                raise Refusal(422, "Invalid", said)
            if new != old:
                note_fields(old, new, key, manager)
                self._put(key, new, "MODIFIED")
            return copy.deepcopy(self.objects[key])

    def delete(self, key, options):
        with self.changed:
            old = self.objects.get(key)
            if old is None:
                raise missing(key)
            for name, wanted in (options.get("preconditions") or {}).items():
                if old["metadata"][name] != wanted:
                    raise Refusal(
                        409,
                        "Conflict",
                        f"Precondition failed: {name} in precondition: {wanted}, "
                        f"in object meta: {old['metadata'][name]}",
                    )
            is_pod = key.resource == "pods" and old["spec"].get("nodeName")
            if is_pod and options.get("gracePeriodSeconds") != 0:
                if "deletionTimestamp" not in old["metadata"]:
                    new = copy.deepcopy(old)
                    new["metadata"].update(deletionTimestamp=now(), deletionGracePeriodSeconds=30)
                    self._put(key, new, "MODIFIED")
                return copy.deepcopy(self.objects[key])
            if old["metadata"].get("finalizers"):
                new = copy.deepcopy(old)
                new["metadata"].setdefault("deletionTimestamp", now())
                self._put(key, new, "MODIFIED")
                return copy.deepcopy(new)
            self.version += 1
            del self.objects[key]
            del self._listed[key.resource][key.namespace][key]
            old["metadata"]["resourceVersion"] = str(self.version)
            self.events.append((self.version, "DELETED", key, old))
            self.changed.notify_all()
            return old

    def compact(self):
        """Forget what happened: watches from before get a 410."""
        with self.changed:
            self.events.clear()
            self.compacted = self.version

    def _put(self, key, body, kind):
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = copy.deepcopy(body)
        by_namespace = self._listed.setdefault(key.resource, {})
        by_namespace.setdefault(key.namespace, {})[key] = self.objects[key]
        self.events.append((self.version, kind, key, copy.deepcopy(body)))
        self.changed.notify_all()


def key_of_item(item):
    key, _ = item
    return (key.version, key.resource, key.namespace, key.name)


def note_fields(old, new, key, manager):
    """Note who wrote which key last, of what holds settings; of managedFields there is no more."""
    if key.resource not in {"configmaps", "secrets"}:
        return
    before, now_is = old.get("data") or {}, new.get("data") or {}
    written = {f"f:{name}": {} for name in now_is if before.get(name) != now_is[name]}
    gone = {f"f:{name}" for name in before if name not in now_is}
    kept = {
        entry["manager"]: {**entry, "fieldsV1": {"f:data": {
            name: {} for name in entry["fieldsV1"]["f:data"] if name not in {*written, *gone}
        }}}
        for entry in old.get("metadata", {}).get("managedFields") or []
    }  # fmt: skip
    mine = kept.get(manager, {"fieldsV1": {"f:data": {}}})["fieldsV1"]["f:data"]
    kept[manager] = {"manager": manager, "operation": "Update", "apiVersion": key.version,
                     "time": now(), "fieldsV1": {"f:data": {**mine, **written}}}  # fmt: skip
    new["metadata"]["managedFields"] = list(kept.values())


def drop_empty_maps(body):
    """Leave out maps that hold nothing, as the API does: a template is the same without them."""
    template = (body.get("spec") or {}).get("template") or {}
    for metadata in (body["metadata"], template.get("metadata") or {}):
        for name in ("annotations", "labels"):
            if metadata.get(name) == {}:
                del metadata[name]


def now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def named(key):
    """A resource as messages have it: `deployments.apps`."""
    group = key.version.rpartition("/")[0]
    return f"{key.resource}.{group}" if group else key.resource


def missing(key):
    return Refusal(404, "NotFound", f'{named(key)} "{key.name}" not found')


def selected(body, labels, fields):
    """Whether the two selectors let an object through."""
    own = body["metadata"].get("labels") or {}
    for part in filter(None, (p.strip() for p in labels.split(","))):
        if "!=" in part:
            name, _, value = part.partition("!=")
            fits = own.get(name) != value
        elif "=" in part:
            name, _, value = part.replace("==", "=").partition("=")
            fits = own.get(name) == value
        else:
            fits = (part[1:] not in own) if part.startswith("!") else part in own
        if not fits:
            return False
    for part in filter(None, fields.split(",")):
        path, _, value = part.partition("=")
        seen = body
        for name in path.split("."):
            seen = (seen or {}).get(name) if isinstance(seen, dict) else None
        if (seen or "") != value:
            return False
    return True


def merged(old, patch, *, is_strategic=False):
    """RFC 7386, and of the strategic kind what names elements of lists."""
    if not isinstance(patch, dict):
        return patch
    whole = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            whole.pop(name, None)
        elif is_strategic and name in LISTS and isinstance(value, list):
            elements = {e["name"]: e for e in whole.get(name) or []}
            for e in value:
                elements[e["name"]] = merged(elements.get(e["name"], {}), e, is_strategic=True)
            whole[name] = list(elements.values())
        else:
            whole[name] = merged(whole.get(name), value, is_strategic=is_strategic)
    return whole
