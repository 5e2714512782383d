"""What kube-controller-manager does, for the stand-in: as much of it as the tests look at."""

import contextlib
import copy
import hashlib
import json
import threading
from datetime import UTC, datetime

from tests.lab.kubernetes_store import Key, Refusal, now
from tests.lab.kubernetes_volumes import bind, with_claims

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
JOB_LABEL = "batch.kubernetes.io/job-name"


class Controllers:
    """One thread that brings the store to where its workloads want it."""

    def __init__(self, store):
        self.store = store
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._progress = {}  # of a Deployment: what was last seen, and when

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        with self.store.changed:
            self.store.changed.notify_all()
        self._thread.join(10)

    def _run(self):
        seen = 0
        while not self._closing.is_set():
            with self.store.changed:
                if self.store.version == seen:
                    self.store.changed.wait(0.2)
                changed = {at.namespace for _, _, at, _ in self.store.since(seen)}
                is_known = bool(changed) or self.store.version == seen  # no compaction in between
                seen = self.store.version
                due = (changed or self._under_way()) if is_known else {""}
            for namespace in sorted(due):
                self._reconcile(namespace)

    def _under_way(self):
        """Where a Deployment is not out yet: its deadline passes without a change."""
        return {
            key.namespace for key, body in self.store.items("deployments")
            if not any(c["reason"] == "NewReplicaSetAvailable"
                       for c in (body.get("status") or {}).get("conditions", []))
        }  # fmt: skip

    def _reconcile(self, namespace):
        for each in (self._volumes, self._collect_garbage, self._deployments, self._replica_sets,
                     self._stateful_sets, self._daemon_sets, self._jobs):  # fmt: skip
            with contextlib.suppress(Refusal):  # it changed in between: the next round has it
                each(namespace)

    def _collect_garbage(self, namespace):
        there = self.store.objects.copy()
        alive = {body["metadata"]["uid"] for body in there.values()}
        for key, body in there.items():
            if namespace not in {"", key.namespace}:
                continue
            owners = body["metadata"].get("ownerReferences") or []
            if owners and not any(o["uid"] in alive for o in owners):
                self.store.delete(key, {})

    def _volumes(self, _):
        bind(self.store)

    # -- Deployments -----------------------------------------------------------------------------

    def _deployments(self, namespace):
        for one in self.store.under("deployments", namespace):
            self._deployment(one)

    def _deployment(self, one):
        meta, spec = one["metadata"], one["spec"]
        digest = hash_of(spec["template"])
        sets = self._owned(one, "replicasets")
        new = next((s for s in sets if s["metadata"]["labels"][HASH] == digest), None)
        revisions = [int(s["metadata"]["annotations"][REVISION]) for s in sets]
        if new is None:
            new = self._new_set(one, digest, max(revisions, default=0) + 1)
            sets.append(new)
        elif int(new["metadata"]["annotations"][REVISION]) < max(revisions):
            new["metadata"]["annotations"][REVISION] = str(max(revisions) + 1)
            new = self.store.replace(key_of(new), new)
        revision = new["metadata"]["annotations"][REVISION]
        if (meta.get("annotations") or {}).get(REVISION) != revision:
            meta.setdefault("annotations", {})[REVISION] = revision
            one = self.store.replace(key_of(one), one)
        old = [s for s in sets if s["metadata"]["uid"] != new["metadata"]["uid"]]
        self._scale(spec, new, old)
        self._deployment_status(one, new, [new, *old])

    def _scale(self, spec, new, old):
        wanted = spec["replicas"]
        pods_of = {s["metadata"]["uid"]: self._active(s) for s in [new, *old]}
        if (spec.get("strategy") or {}).get("type") == "Recreate":
            for one in old:
                self._set_replicas(one, 0)
            if not any(pods_of[o["metadata"]["uid"]] for o in old):
                self._set_replicas(new, wanted)
            return
        rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
        surge = number(rolling.get("maxSurge", "25%"), wanted, up=True)
        unavailable = number(rolling.get("maxUnavailable", "25%"), wanted, up=False)
        if not surge and not unavailable:
            unavailable = 1
        total = sum(s["spec"]["replicas"] for s in [new, *old])
        room = wanted + surge - total
        now_has = new["spec"]["replicas"]
        if now_has > wanted:
            self._set_replicas(new, wanted)
        elif now_has < wanted and room > 0:
            self._set_replicas(new, min(wanted, now_has + room))
        available = {u: sum(is_ready(p) for p in pods) for u, pods in pods_of.items()}
        spare = sum(available.values()) - (wanted - unavailable)
        for one in sorted(old, key=lambda s: available[s["metadata"]["uid"]]):
            has = one["spec"]["replicas"]
            broken = has - available[one["metadata"]["uid"]]
            gone = min(has, max(0, broken) + max(0, min(spare, has - max(0, broken))))
            spare -= max(0, gone - max(0, broken))
            if gone:
                self._set_replicas(one, has - gone)

    def _deployment_status(self, one, new, sets):
        spec, meta = one["spec"], one["metadata"]
        pods = [p for s in sets for p in self._active(s)]
        updated = [
            p for p in pods if p["metadata"]["labels"][HASH] == new["metadata"]["labels"][HASH]
        ]
        ready = sum(map(is_ready, pods))
        wanted = spec["replicas"]
        is_out = len(updated) == wanted == len(pods) and ready == wanted
        progress = (meta["generation"], len(updated), ready, len(pods))
        uid = meta["uid"]
        if self._progress.get(uid, (None,))[0] != progress:
            self._progress[uid] = (progress, datetime.now(UTC))
        waited = (datetime.now(UTC) - self._progress[uid][1]).total_seconds()
        is_late = not is_out and waited > spec.get("progressDeadlineSeconds", 600)
        reason = "NewReplicaSetAvailable" if is_out else "ReplicaSetUpdated"
        conditions = [
            condition("Available", ready >= wanted - 1, "MinimumReplicasAvailable"),
            condition(
                "Progressing", not is_late, "ProgressDeadlineExceeded" if is_late else reason
            ),
        ]
        counts = {"observedGeneration": meta["generation"], "replicas": len(pods),
                  "updatedReplicas": len(updated), "readyReplicas": ready,
                  "availableReplicas": ready,
                  "unavailableReplicas": max(0, wanted - ready)}  # fmt: skip
        self._put_status(one, {**{n: v for n, v in counts.items() if v}, "conditions": conditions})

    def _new_set(self, one, digest, revision):
        meta = one["metadata"]
        template = copy.deepcopy(one["spec"]["template"])
        template["metadata"].setdefault("labels", {})[HASH] = digest
        labels = {**template["metadata"]["labels"]}
        body = {
            "metadata": {"name": f"{meta['name']}-{digest}", "labels": labels,
                         "annotations": {REVISION: str(revision)},
                         "ownerReferences": [owner(one)]},
            "spec": {"replicas": 0, "template": template, "selector": {"matchLabels": labels}},
        }  # fmt: skip
        return self.store.create(Key("apps/v1", "replicasets", meta["namespace"]), body)

    # -- sets of pods ----------------------------------------------------------------------------

    def _replica_sets(self, namespace):
        for one in self.store.under("replicasets", namespace):
            pods = self._active(one)
            alive = [p for p in pods if "deletionTimestamp" not in p["metadata"]]
            for _ in range(one["spec"]["replicas"] - len(alive)):
                self._create_pod(one, f"{one['metadata']['name']}-", is_generated=True)
            extra = len(alive) - one["spec"]["replicas"]
            for pod in sorted(alive, key=is_ready)[: max(0, extra)]:
                self.store.delete(key_of(pod), {})
            status = {"replicas": len(pods), "readyReplicas": sum(map(is_ready, pods))}
            self._put_status(one, status)

    def _stateful_sets(self, namespace):
        for one in self.store.under("statefulsets", namespace):
            name, wanted = one["metadata"]["name"], one["spec"]["replicas"]
            digest = f"{name}-{hash_of(one['spec']['template'])}"
            pods = {p["metadata"]["name"]: p for p in self._owned(one, "pods")}
            names = [f"{name}-{n}" for n in range(wanted)]
            for extra in sorted(set(pods) - set(names), reverse=True)[:1]:
                self.store.delete(key_of(pods[extra]), {})
            for each in names:
                if each not in pods:
                    marks = {"controller-revision-hash": digest}
                    self._create_pod(with_claims(self.store, one, each), each, marks)
                    break
                if not is_ready(pods[each]):
                    break
            else:
                stale = [n for n in names if revision_of(pods[n]) != digest]
                for each in stale[-1:]:
                    self.store.delete(key_of(pods[each]), {})
            updated = [p for p in pods.values() if revision_of(p) == digest]
            ready = sum(map(is_ready, pods.values()))
            is_out = len(updated) == wanted == ready
            known = (one.get("status") or {}).get("currentRevision", digest)
            counts = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready,
                      "updatedReplicas": len(updated), "updateRevision": digest,
                      "currentRevision": digest if is_out else known,
                      "observedGeneration": one["metadata"]["generation"]}  # fmt: skip
            self._put_status(one, counts)

    def _daemon_sets(self, namespace):
        for one in self.store.under("daemonsets", namespace):
            digest = hash_of(one["spec"]["template"])
            pods = self._owned(one, "pods")
            if not pods and self.store.under("nodes"):
                marks = {"controller-revision-hash": digest}
                self._create_pod(one, f"{one['metadata']['name']}-", marks, is_generated=True)
            for pod in pods:
                if revision_of(pod) != digest:
                    self.store.delete(key_of(pod), {})
            ready = sum(map(is_ready, pods))
            updated = sum(revision_of(p) == digest for p in pods)
            counts = {"desiredNumberScheduled": 1, "currentNumberScheduled": len(pods),
                      "updatedNumberScheduled": updated, "numberReady": ready,
                      "numberAvailable": ready,
                      "observedGeneration": one["metadata"]["generation"]}  # fmt: skip
            self._put_status(one, counts)

    def _jobs(self, namespace):
        for one in self.store.under("jobs", namespace):
            if any(c["type"] in {"Complete", "Failed"} for c in
                   (one.get("status") or {}).get("conditions", [])):  # fmt: skip
                continue
            pods = self._owned(one, "pods")
            name = one["metadata"]["name"]
            phases = [p["status"].get("phase") for p in pods]
            failed, done = phases.count("Failed"), phases.count("Succeeded")
            status = {"failed": failed, "succeeded": done, "active": len(pods) - failed - done}
            status = {n: v for n, v in status.items() if v}
            if done:
                status["conditions"] = [
                    condition("Complete", is_so=True, reason="CompletionsReached")
                ]
            elif failed > one["spec"].get("backoffLimit", 6):
                status["conditions"] = [
                    condition("Failed", is_so=True, reason="BackoffLimitExceeded")
                ]
            elif failed == len(pods):
                marks = {JOB_LABEL: name, "job-name": name}
                self._create_pod(one, f"{name}-", marks, is_generated=True)
            self._put_status(one, status)

    # -- what they share -------------------------------------------------------------------------

    def _create_pod(self, one, name, labels=None, *, is_generated=False):
        template = copy.deepcopy(one["spec"]["template"])
        meta = template.setdefault("metadata", {})
        meta["labels"] = {**(meta.get("labels") or {}), **(labels or {})}
        meta["ownerReferences"] = [owner(one)]
        meta.pop("name", None)
        meta["generateName" if is_generated else "name"] = name
        self.store.create(Key("v1", "pods", one["metadata"]["namespace"]), template)

    def _owned(self, one, resource):
        uid = one["metadata"]["uid"]
        return [
            body for body in self.store.under(resource, one["metadata"]["namespace"])
            if any(o["uid"] == uid for o in body["metadata"].get("ownerReferences") or [])
        ]  # fmt: skip

    def _active(self, one):
        """Its pods that have not ended: an evicted one stays listed, and counts for nothing."""
        pods = self._owned(one, "pods")
        return [
            p for p in pods if (p.get("status") or {}).get("phase") not in {"Failed", "Succeeded"}
        ]

    def _set_replicas(self, one, wanted):
        if one["spec"]["replicas"] != wanted:
            one["spec"]["replicas"] = wanted
            self.store.replace(key_of(one), one)

    def _put_status(self, one, status):
        key = key_of(one)
        fresh = self.store.get(key)
        for new in status.get("conditions", []):  # the moment it turned stays
            for old in (fresh.get("status") or {}).get("conditions", []):
                if (old["type"], old["status"]) == (new["type"], new["status"]):
                    new["lastTransitionTime"] = old["lastTransitionTime"]
        if (fresh.get("status") or {}) != status:
            self.store.replace(key, {**fresh, "status": status}, is_status=True)


def key_of(body):
    resource = body["kind"].lower() + "s"
    meta = body["metadata"]
    return Key(body["apiVersion"], resource, meta.get("namespace", ""), meta["name"])


def owner(one):
    meta = one["metadata"]
    return {"apiVersion": one["apiVersion"], "kind": one["kind"], "name": meta["name"],
            "uid": meta["uid"], "controller": True}  # fmt: skip


def hash_of(template):
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def revision_of(pod):
    return pod["metadata"]["labels"].get("controller-revision-hash")


def is_ready(pod):
    conditions = pod["status"].get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def condition(kind, is_so, reason):
    return {"type": kind, "status": "True" if is_so else "False", "reason": reason,
            "lastTransitionTime": now()}  # fmt: skip


def number(value, of, *, up):
    if isinstance(value, int):
        return value
    share = int(value.rstrip("%")) * of
    return -(-share // 100) if up else share // 100
