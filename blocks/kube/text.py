"""What is sent to a Kubernetes API to change something, as plans and evidence show it.

A plan is made before the act, so it cannot hold the resourceVersion that the object will have
then, nor the epoch of an attempt that has not begun. Both stand in the text as placeholders, and
what they mean is fixed: `"as read"` is the version that the session read right before it sends,
after it found that everything the text tests for still holds; `"this attempt"` is the fence. What
the object must still be like (its uid, its replicas, its revision) is tested by value, stands in
the text, and is what an approval is bound to. Nothing else of a text is filled in later.

A secret never stands in a text. A value of type `Secret` shows as its mask and is written out only
on the wire, and whatever is sent to the path of a Secret has its contents masked here, of whichever
type they are, and made known to redaction. `_shown` is the one place that does this.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from blocks.kube.path import asked_by
from blocks.kube.seen import SECRET_FIELDS, learn_secrets
from recovery.secrecy.redaction import redacted_head
from recovery.secrecy.secret import MASK, Secret

Object = dict[str, Any]
Operation = dict[str, Any]

AS_READ = "as read"
THIS_ATTEMPT = "this attempt"
FENCE = "recovery-pipelines.io/fence"
VERSION_POINTER = "/metadata/resourceVersion"
FENCE_POINTER = "/metadata/annotations/recovery-pipelines.io~1fence"
MISSING = object()
MAPS = ("/annotations", "/labels")


def tests(**values: object) -> list[Operation]:
    """Operations that test: `tests(uid=..., replicas=3)`; for other places, see `tested`."""
    places = {"uid": "/metadata/uid", "replicas": "/spec/replicas"}
    return [tested(places[name], value) for name, value in values.items()]


def tested(pointer: str, value: object) -> Operation:
    """One operation that tests a place of the object for a value."""
    return {"op": "test", "path": pointer, "value": value}


def pointer_to(*parts: str) -> str:
    """Make a JSON pointer: `pointer_to("metadata", "annotations", "a.io/b")`."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def patch_text(path: str, operations: Sequence[Operation]) -> str:
    """What `KubernetesSession.patch` sends."""
    return f"PATCH {path} {_shown(path, fenced(operations))}"


def merge_text(path: str, body: Mapping[str, Any]) -> str:
    """What `KubernetesSession.merge` sends."""
    return f"PATCH {path} {_shown(path, fenced_merge(body))} (application/merge-patch+json)"


def create_text(path: str, body: Mapping[str, Any]) -> str:
    """What `KubernetesSession.create` sends."""
    return f"POST {path} {_shown(path, fenced_body(body))}"


def delete_text(path: str, uid: str, propagation: str = "Background") -> str:
    """What `KubernetesSession.delete` sends."""
    return f"DELETE {path} {_json(delete_options(uid, propagation))}"


def delete_where_text(path: str, operations: Sequence[Operation]) -> str:
    """What `KubernetesSession.delete_where` sends: which object it is shows only then."""
    body = delete_options(AS_READ, "Background")
    return f"DELETE {path} {_json(body)} where {_json(list(operations))}"


def evict_text(path: str, uid: str) -> str:
    """What `KubernetesSession.evict` sends for the pod at this path."""
    return f"POST {path}/eviction {_json(eviction(path, uid))}"


def fenced(operations: Sequence[Operation]) -> list[Operation]:
    """The operations of a patch, with the fence and the version it was read at."""
    return [
        *operations,
        tested(VERSION_POINTER, AS_READ),
        {"op": "add", "path": FENCE_POINTER, "value": THIS_ATTEMPT},
    ]


def fenced_merge(body: Mapping[str, Any]) -> Object:
    """A merge patch, with the fence and the version it was read at."""
    whole = fenced_body(body)
    whole["metadata"]["resourceVersion"] = AS_READ
    return whole


def fenced_body(body: Mapping[str, Any]) -> Object:
    """A new object, with the fence."""
    whole = copy.deepcopy(dict(body))
    annotations = whole.setdefault("metadata", {}).setdefault("annotations", {})
    annotations[FENCE] = THIS_ATTEMPT
    return whole


def delete_options(uid: str, propagation: str, version: str = AS_READ) -> Object:
    """The body of a deletion that is bound to one object in one version."""
    return {
        "preconditions": {"uid": uid, "resourceVersion": version},
        "propagationPolicy": propagation,
    }


def eviction(path: str, uid: str) -> Object:
    """The body of an eviction that is bound to one pod."""
    parts = path.split("/")
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": parts[-1], "namespace": parts[-3]},
        "deleteOptions": {"preconditions": {"uid": uid}},
    }


def value_at(read: object, pointer: str) -> object:
    """What stands at a JSON pointer; `MISSING` where nothing does."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(read, dict) and name in read:
            read = read[name]
        elif isinstance(read, list) and name.isdigit() and int(name) < len(read):
            read = read[int(name)]
        else:
            return MISSING
    return read


def changed_since(read: Mapping[str, Any], operations: Sequence[Operation]) -> str:
    """Which test of a patch does not hold for the object as it was read; empty where all do."""
    for operation in operations:
        if operation["op"] != "test":
            continue
        seen, wanted = value_at(dict(read), operation["path"]), operation["value"]
        if seen == (wanted.reveal() if isinstance(wanted, Secret) else wanted):
            continue
        if isinstance(wanted, Secret) or (read.get("kind") == "Secret" and _is_content(operation)):
            now = "not there" if seen is MISSING else "another value"
            return f"{operation['path']} is {now}, and not what it was"
        now = "not there" if seen is MISSING else redacted_head(_json(seen), 200)
        return f"{operation['path']} is {now}, and was {redacted_head(_json(wanted), 200)}"
    return ""


def filled_patch(
    operations: Sequence[Operation], read: Mapping[str, Any], fence: tuple[str, str] | None
) -> list[Operation]:
    """The operations as they are sent: with the version of the object and the fence's value."""
    sent = [*operations, tested(VERSION_POINTER, read["metadata"]["resourceVersion"])]
    if fence is not None:
        pointer = pointer_to("metadata", "annotations", fence[0])
        sent.append({"op": "add", "path": pointer, "value": fence[1]})
    return [*_missing_maps(sent, read), *sent]


def _missing_maps(sent: Sequence[Operation], read: Mapping[str, Any]) -> list[Operation]:
    """Annotations and labels are added to a map, which an object without any does not have."""
    added = [operation["path"].rpartition("/")[0] for operation in sent if operation["op"] == "add"]
    return [
        {"op": "add", "path": parent, "value": {}}
        for parent in dict.fromkeys(added)
        if parent.endswith(MAPS) and not isinstance(value_at(dict(read), parent), dict)
    ]


def filled_body(
    body: Mapping[str, Any], fence: tuple[str, str] | None, version: str = ""
) -> Object:
    """A body as it is sent: with the fence's value, and the version where it is a merge patch."""
    whole = copy.deepcopy(dict(body))
    metadata = whole.setdefault("metadata", {})
    if fence is not None:
        metadata.setdefault("annotations", {})[fence[0]] = fence[1]
    if version:
        metadata["resourceVersion"] = version
    return whole


def _shown(path: str, sent: object) -> str:
    """What is sent, without anything secret in it; the one place that decides what a text holds."""
    asked = asked_by("GET", path)
    if asked is None or (asked.group, asked.resource) != ("", "secrets"):
        return _json(sent)
    if isinstance(sent, list):
        return _json([_masked_operation(operation) for operation in sent])
    whole = dict(sent) if isinstance(sent, Mapping) else {}
    for field in SECRET_FIELDS:
        if field in whole:
            _learn(whole[field])
            contents_of = whole[field] if isinstance(whole[field], Mapping) else {}
            whole[field] = {
                name: value if value is None else MASK for name, value in contents_of.items()
            }
    return _json(whole)


def _masked_operation(operation: Operation) -> Operation:
    if "value" not in operation or not _is_content(operation):
        return operation
    _learn(operation["value"])
    return {**operation, "value": MASK}


def _is_content(operation: Mapping[str, Any]) -> bool:
    """Whether an operation on a Secret holds, or may hold, its contents."""
    parts = str(operation["path"]).split("/")
    return len(parts) == 1 or parts[1] in SECRET_FIELDS


def _learn(value: object) -> None:
    contents = value if isinstance(value, Mapping) else {"": value}
    plain = {name: one for name, one in contents.items() if isinstance(one, str)}
    learn_secrets({"kind": "Secret", "data": plain})


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_masked)


def _masked(value: object) -> str:
    if isinstance(value, Secret):
        return MASK
    raise TypeError(f"{type(value).__name__} has no place in a request")
