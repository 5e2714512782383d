"""Paths of the Kubernetes API: how they are made, and which right a request on one needs."""

from dataclasses import dataclass
from urllib.parse import quote, urlencode

VERBS = {"POST": "create", "PUT": "update", "DELETE": "delete", "PATCH": "patch"}
SELF_SUBJECT = "selfsubjectaccessreviews"
STREAMS = {"exec", "attach", "portforward"}


@dataclass(frozen=True)
class Asked:
    """What a request asks for, in the words of RBAC. Empty where it is no resource, or has none."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def kind_text(self) -> str:
        """The resource as RBAC writes it: `pods/log`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def __str__(self) -> str:
        """As an operator would say it."""
        what = f"{self.kind_text}.{self.group}" if self.group else self.kind_text
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {what}{where}"

    @property
    def rule(self) -> str:
        """The Role that would grant it (a ClusterRole where it is in no namespace), as YAML."""
        place = f", namespace: {self.namespace}" if self.namespace else ""
        # A stream begins with a GET, and from 1.35 on is held to be a creation as well.
        verbs = ["create", "get"] if self.subresource in STREAMS else [self.verb]
        told = ", ".join(f'"{verb}"' for verb in verbs)
        return (
            "apiVersion: rbac.authorization.k8s.io/v1\n"
            f"kind: {'Role' if self.namespace else 'ClusterRole'}\n"
            f"metadata: {{name: recover{place}}}\n"
            "rules:\n"
            f'- {{apiGroups: ["{self.group}"], resources: ["{self.kind_text}"], '
            f"verbs: [{told}]}}"
        )


def asked_by(method: str, path: str, *, is_watch: bool = False) -> Asked | None:
    """The right that a request needs; `None` where its path names no resource, as /version."""
    parts = [part for part in path.partition("?")[0].split("/") if part]
    if parts[:1] == ["api"]:
        group, rest = "", parts[2:]
    elif parts[:1] == ["apis"]:
        group, rest = parts[1] if len(parts) > 1 else "", parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":  # noqa: PLR2004 (namespaces/NAME/RESOURCE)
        namespace, rest = rest[1], rest[2:]
    if not rest:
        return None
    resource, name, subresource = (*rest[:3], "", "", "")[:3]
    verb = VERBS.get(method, "get" if name else "list")
    if subresource in STREAMS:
        verb = "create"
    return Asked("watch" if is_watch else verb, group, resource, subresource, namespace, name)


def path_of(
    version: str,
    resource: str,
    name: str = "",
    *,
    namespace: str = "",
    subresource: str = "",
) -> str:
    """Make a path: `path_of("apps/v1", "deployments", "registry", namespace="divoc")`."""
    root = "/apis" if "/" in version else "/api"
    parts = [f"{root}/{version}"]
    if namespace:
        parts.append(f"namespaces/{quote(namespace, safe='')}")
    parts += [quote(part, safe="") for part in (resource, name, subresource) if part]
    return "/".join(parts)


def with_query(path: str, **query: object) -> str:
    """Add what is not empty to a path; Python's names stand as they are sent."""
    given = {name: value for name, value in query.items() if value not in {None, "", False}}
    if not given:
        return path
    text = urlencode({k: "true" if v is True else v for k, v in given.items()}, safe="=,()!")
    return f"{path}?{text}"
