"""Who may do what at the API server's stand-in: who is asked for, as Node and RBAC would say."""

from dataclasses import dataclass

from tests.lab.control_plane_tls import Identity

READS_ONE = ("get",)
MASTERS = "system:masters"
ADMINS = "kubeadm:cluster-admins"
NODES = "system:nodes"
BOOTSTRAPPERS = "system:bootstrappers"
OF_BOOTSTRAPPERS = {  # as kubeadm's Roles let who comes with a token
    "configmaps": READS_ONE,
    "nodes": READS_ONE,
    "secrets": READS_ONE,
    "certificatesigningrequests": ("get", "create"),
}
ANONYMOUS = Identity("system:anonymous", ("system:unauthenticated",))
PUBLIC = ("/healthz", "/livez", "/readyz", "/version")
COMPONENTS = ("system:kube-controller-manager", "system:kube-scheduler")
READS = ("get", "list", "watch")
WRITTEN_BY_COMPONENTS = ("leases", "nodes", "certificatesigningrequests", "events")
OPEN_TO_ALL = ("selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews")
OF_NODES = {
    "nodes": ("get", "list", "create", "update", "patch"),
    "pods": ("get", "list", "create", "update", "patch", "delete"),
    "leases": ("get", "create", "update"),
    "certificatesigningrequests": ("get", "create"),
    "configmaps": ("get",),
}


@dataclass(frozen=True)
class Asked:
    """One request, as authorization sees it; a path where it is for no resource."""

    verb: str
    path: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""

    def refusal(self, user: str) -> str:
        """What a real API server says of it."""
        if not self.resource:
            return f'forbidden: User "{user}" cannot {self.verb} path "{self.path}"'
        named = f' "{self.name}"' if self.name else ""
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return (
            f'{self.resource}{named} is forbidden: User "{user}" cannot {self.verb} resource '
            f'"{self.resource}" in API group "{self.group}" {where}'
        )


def is_allowed(who: Identity, asked: Asked, *, has_admin_binding: bool) -> bool:
    """Whether this user may do that.

    Args:
        who: the user.
        asked: what.
        has_admin_binding: whether the ClusterRoleBinding kubeadm:cluster-admins is there.
    """
    if not asked.resource:
        is_discovery = asked.path.startswith(("/api", "/openapi"))
        return asked.path.startswith(PUBLIC) or (is_discovery and who != ANONYMOUS)
    if who == ANONYMOUS:
        return False
    is_admin = MASTERS in who.groups or (ADMINS in who.groups and has_admin_binding)
    if is_admin or asked.resource in OPEN_TO_ALL:
        return True
    if who.name in COMPONENTS:
        return asked.verb in READS or asked.resource in WRITTEN_BY_COMPONENTS
    if BOOTSTRAPPERS in who.groups:
        is_theirs = asked.resource != "secrets" or asked.name == "kubeadm-certs"
        return is_theirs and asked.verb in OF_BOOTSTRAPPERS.get(asked.resource, ())
    return NODES in who.groups and _is_allowed_to_node(who, asked)


def _is_allowed_to_node(who: Identity, asked: Asked) -> bool:
    own = who.name.removeprefix("system:node:")
    is_own = asked.verb in READS or asked.name in {"", own}
    if asked.resource == "nodes" and not is_own:
        return False  # NodeRestriction
    return asked.verb in OF_NODES.get(asked.resource, ())
