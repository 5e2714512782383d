"""What the binder of kube-controller-manager does to volumes and claims, for the stand-in."""

import contextlib
import copy

from tests.lab.kubernetes_store import Key, Refusal

UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def bind(store):
    """Bring every volume and every claim one step further."""
    for claim in store.under("persistentvolumeclaims"):
        if "deletionTimestamp" in claim["metadata"]:
            _let_go(store, claim)
        elif claim["status"]["phase"] == "Pending":
            _find_volume(store, claim)
    for volume in store.under("persistentvolumes"):
        _phase(store, volume)


def with_claims(store, stateful_set, pod_name):
    """A StatefulSet as the pod of this name is made of it, with its claims, which are made."""
    one = copy.deepcopy(stateful_set)
    namespace = one["metadata"]["namespace"]
    volumes = one["spec"]["template"]["spec"].setdefault("volumes", [])
    for template in one["spec"].get("volumeClaimTemplates") or []:
        name = f"{template['metadata']['name']}-{pod_name}"
        volumes.append({"name": template["metadata"]["name"],
                        "persistentVolumeClaim": {"claimName": name}})  # fmt: skip
        with contextlib.suppress(Refusal):  # it is there already
            labels = one["spec"]["selector"]["matchLabels"]
            body = {"metadata": {"name": name, "labels": labels},
                    "spec": copy.deepcopy(template["spec"])}  # fmt: skip
            store.create(Key("v1", "persistentvolumeclaims", namespace), body)
    return one


def _let_go(store, claim):
    """Let a claim go that no pod uses any more."""
    meta = claim["metadata"]
    for pod in store.under("pods", meta["namespace"]):
        for volume in pod["spec"].get("volumes") or []:
            if (volume.get("persistentVolumeClaim") or {}).get("claimName") == meta["name"]:
                return
    key = Key("v1", "persistentvolumeclaims", meta["namespace"], meta["name"])
    meta["finalizers"] = []
    store.replace(key, claim)
    store.delete(key, {})


def _find_volume(store, claim):
    wanted = claim["spec"].get("volumeName")
    free = [v for v in store.under("persistentvolumes") if _may_have(v, claim)]
    if wanted:
        free = [v for v in free if v["metadata"]["name"] == wanted]
    mine = [v for v in free if v["spec"].get("claimRef")]
    fitting = mine if mine and wanted else [v for v in mine or free if _fits(v, claim)]
    for volume in sorted(fitting, key=_size_of)[:1]:
        _join(store, volume, claim)


def _may_have(volume, claim):
    """Whether a volume is nobody's, or kept for this claim."""
    ref, meta = volume["spec"].get("claimRef"), claim["metadata"]
    if not ref:
        return volume["status"]["phase"] == "Available"
    is_its = (ref.get("namespace"), ref.get("name")) == (meta["namespace"], meta["name"])
    return is_its and ref.get("uid") in {None, meta["uid"]}


def _fits(volume, claim):
    spec, wanted = volume["spec"], claim["spec"]
    return (
        spec.get("storageClassName", "") == wanted.get("storageClassName", "")
        and spec.get("volumeMode", "Filesystem") == wanted.get("volumeMode", "Filesystem")
        and set(wanted["accessModes"]) <= set(spec["accessModes"])
        and _size_of(volume) >= bytes_in(wanted["resources"]["requests"]["storage"])
    )


def _join(store, volume, claim):
    meta = claim["metadata"]
    volume["spec"]["claimRef"] = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta["namespace"],
        "name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"],
    }  # fmt: skip
    volume["status"]["phase"] = "Bound"
    store.replace(Key("v1", "persistentvolumes", "", volume["metadata"]["name"]), volume)
    key = Key("v1", "persistentvolumeclaims", meta["namespace"], meta["name"])
    claim["spec"]["volumeName"] = volume["metadata"]["name"]
    bound = store.replace(key, claim)
    store.replace(key, {**bound, "status": {"phase": "Bound"}}, is_status=True)


def _phase(store, volume):
    """The phase that a volume has by its reference."""
    ref = volume["spec"].get("claimRef") or {}
    key = Key("v1", "persistentvolumes", "", volume["metadata"]["name"])
    phase = "Available"
    if ref.get("uid"):
        claims = store.under("persistentvolumeclaims", ref["namespace"])
        is_there = ref["uid"] in {one["metadata"]["uid"] for one in claims}
        phase = "Bound" if is_there else "Released"
    if phase == "Released" and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
        phase = "Failed"  # as of a hostPath outside of where the controller deletes
    if volume["status"]["phase"] != phase:
        volume["status"]["phase"] = phase
        store.replace(key, volume)


def _size_of(volume):
    return bytes_in(volume["spec"]["capacity"]["storage"])


def bytes_in(quantity):
    unit = quantity[-2:]
    return int(quantity[:-2]) * UNITS[unit] if unit in UNITS else int(quantity)
