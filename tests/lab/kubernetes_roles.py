"""The Role that each recovery needs: generated from what its tests were seen to ask of an API.

`make roles` runs those tests with accounts that may do everything and are listened to: by the
stand-in itself, and by the audit log of the real API that pods run on. It writes
`deployments/kubernetes`. Every other run gives each account just what stands there, on the real API
as well: a right that is missing fails the tests of its recovery, by name.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent.parent.parent / "deployments" / "kubernetes"
VERSION = "rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
HEAD = """# What {recovery} asks of the cluster, and nothing else. Written by `make roles`.
# kubectl apply --namespace NAMESPACE --filename THIS_FILE
# The worker's account is the service account `recovery-worker` of the namespace `recovery`.
"""
WORKER = {"kind": "ServiceAccount", "name": "recovery-worker", "namespace": "recovery"}
REVIEWS, REVIEW = "authorization.k8s.io", "selfsubjectaccessreviews"
WORKLOADS = {"deployments", "statefulsets", "daemonsets"}
ARE_RECORDED = os.environ.get("RIGHTS") == "record"

Right = tuple[str, str, str]  # API group, resource as RBAC writes it, verb


def account_of(recovery, namespace):
    """Whom tests impersonate to run a recovery in a namespace."""
    return f"recovery:{recovery}:{namespace}"


class RightsAsked:
    """What each recovery asked for: in its own namespace, and of the cluster."""

    def __init__(self):
        self.inside: dict[str, set[Right]] = defaultdict(set)
        self.outside: dict[str, set[Right]] = defaultdict(set)

    def note(self, user, right, namespace):
        """Keep a request of an account of ours, unless it is into a namespace of others."""
        kind, _, rest = user.partition(":")
        recovery, _, own = rest.partition(":")
        if kind == "recovery" and namespace in {"", own}:
            (self.inside if namespace else self.outside)[recovery].add(right)

    def note_audit(self, log):
        """Keep what the audit log of a real API has of our accounts."""
        for line in log.read_text().splitlines():
            event = json.loads(line)
            asked = event.get("objectRef") or {}
            user = (event.get("impersonatedUser") or {}).get("username", "")
            if asked.get("resource") == REVIEW:
                self.note_review(user, event["requestObject"])
            elif asked.get("resource"):
                self.note_attributes(
                    user, {"group": asked.get("apiGroup"), "verb": event["verb"], **asked}
                )

    def note_review(self, user, review):
        """Keep what an account asked whether it may do it: it does so where it will."""
        self.note_attributes(user, review["spec"]["resourceAttributes"])

    def note_attributes(self, user, asked):
        """Keep a request in the words of an access review."""
        sub = asked.get("subresource")
        resource = f"{asked['resource']}/{sub}" if sub else asked["resource"]
        right = (asked.get("group") or "", resource, asked["verb"])
        self.note(user, right, asked.get("namespace") or "")

    def write(self, folder=FOLDER):
        """Write the manifest of each recovery that was listened to."""
        folder.mkdir(exist_ok=True)
        for recovery in sorted({*self.inside, *self.outside}):
            objects = manifest(recovery, self.inside[recovery], self.outside[recovery])
            text = yaml.safe_dump_all(objects, sort_keys=False, default_flow_style=None, width=100)
            (folder / f"{recovery}.yaml").write_text(HEAD.format(recovery=recovery) + text)


HEARD = RightsAsked()


def manifest(recovery, inside, outside):
    """The objects that grant these rights to the worker."""
    objects = []
    for prefix, rights in (("", inside), ("Cluster", outside)):
        if rights:
            name = f"recovery:{recovery}"
            metadata = {"name": name}
            reference = {"apiGroup": GROUP, "kind": f"{prefix}Role", "name": name}
            role = {"apiVersion": VERSION, "kind": f"{prefix}Role", "metadata": metadata}
            binding = {"apiVersion": VERSION, "kind": f"{prefix}RoleBinding", "metadata": metadata}
            objects += [
                {**role, "rules": rules(rights | alike(rights))},
                {**binding, "roleRef": reference, "subjects": [WORKER]},
            ]
    return objects


def alike(rights):
    """What goes along with rights: whether it was asked for went by chance, or by the one test.

    What is listed may be waited for, by a watch that shows the same. What is done to a workload of
    one kind is done to one of another, if that is looked for.
    """
    streams = {
        ("", kind, verb)
        for _, kind, _ in rights
        if kind in {"pods/exec", "pods/portforward"}
        for verb in ("create", "get")  # 1.36 wants both, older ones the first
    }
    waited = {(group, kind, "watch") for group, kind, verb in rights if verb == "list"}
    asked = {
        (kind, verb)
        for group, kind, verb in rights | waited
        if group == "apps" and kind in WORKLOADS
    }
    kinds = {kind for kind, verb in asked if verb in {"list", "patch"}}
    if any(verb == "patch" for _, verb in asked):
        kinds |= {"deployments", "statefulsets"}
    return streams | waited | {("apps", kind, verb) for kind in kinds for _, verb in asked}


def rules(rights):
    """One rule for all resources of a group that take the same verbs."""
    verbs = defaultdict(set)
    for group, resource, verb in rights:
        verbs[group, resource].add(verb)
    resources = defaultdict(list)
    for (group, resource), theirs in sorted(verbs.items()):
        resources[group, tuple(sorted(theirs))].append(resource)
    return [
        {"apiGroups": [group], "resources": names, "verbs": list(theirs)}
        for (group, theirs), names in resources.items()
    ]


def granted(recovery, user):
    """The objects of a recovery's manifest, bound to a user instead of to the worker."""
    file = FOLDER / f"{recovery}.yaml"
    if not file.is_file():
        raise AssertionError(f"no {file.name} in deployments/kubernetes: run `make roles`")
    objects = [one for one in yaml.safe_load_all(file.read_text()) if one]
    for one in objects:
        if "subjects" in one:
            one["metadata"]["name"] = user
            one["subjects"] = [{"apiGroup": GROUP, "kind": "User", "name": user}]
    return objects


def everything(user):
    """What lets a user do everything, and so be listened to."""
    whatever = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": "lab:everything"}
    role = {"apiVersion": VERSION, "kind": "ClusterRole", "metadata": {"name": reference["name"]}}
    return [
        {**role, "rules": [whatever]},
        {
            "apiVersion": VERSION,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": reference,
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
        },
    ]
