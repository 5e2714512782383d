"""Who may do what in the stand-in Kubernetes API: Roles, ClusterRoles, those that gather others.

What is here answers as kube-apiserver 1.36 does in the contract tests. The rules of a ClusterRole
that gathers others are worked out when they are asked for; the real controller writes them down.
"""

from tests.lab.kubernetes_store import selected

ADMIN = "admin"
REVIEWS = {"selfsubjectaccessreviews", "subjectaccessreviews"}


def may(store, wanted, user, groups=()):
    """Whether an account may do what the `resourceAttributes` of an access review say."""
    if user == ADMIN:
        return True
    namespace = wanted.get("namespace") or ""
    roles = {role["metadata"]["name"]: role for role in store.under("clusterroles")}
    bindings = [(binding, roles) for binding in store.under("clusterrolebindings")]
    if namespace:
        own = {one["metadata"]["name"]: one for one in store.under("roles", namespace)}
        for binding in store.under("rolebindings", namespace):
            known = own if binding["roleRef"]["kind"] == "Role" else roles
            bindings.append((binding, known))
    return any(
        grants(rule, wanted)
        for binding, known in bindings
        if any(is_subject(one, user, groups) for one in binding.get("subjects") or [])
        for rule in rules_of(known.get(binding["roleRef"]["name"]), known)
    )


def is_subject(subject, user, groups):
    if subject["kind"] == "ServiceAccount":
        return user == f"system:serviceaccount:{subject.get('namespace')}:{subject['name']}"
    return subject["name"] == user if subject["kind"] == "User" else subject["name"] in groups


def rules_of(role, roles):
    if role is None:
        return []
    gathering = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
    if gathering is None:
        return role.get("rules") or []
    labels = [
        ",".join(f"{name}={value}" for name, value in (one.get("matchLabels") or {}).items())
        for one in gathering
    ]
    sources = [one for one in roles.values() if any(selected(one, label, "") for label in labels)]
    return [rule for one in sources for rule in one.get("rules") or []]


def grants(rule, wanted):
    sub = wanted.get("subresource")
    what = f"{wanted['resource']}/{sub}" if sub else wanted["resource"]
    return bool(
        {wanted.get("group", ""), "*"} & set(rule.get("apiGroups", []))
        and {what, "*", f"*/{sub}" if sub else what} & set(rule.get("resources", []))
        and {wanted["verb"], "*"} & set(rule.get("verbs", []))
    )
