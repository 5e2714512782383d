"""The way into a Kubernetes API: a kubeconfig on the worker, read by the official client."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography import x509

from recovery.errors import BadInput
from recovery.secrecy.secret import Secret

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECRET_FIELDS = ("token", "password", "client-key-data", "id-token", "refresh-token")
USER_AGENT = "recovery-pipelines"


@dataclass(frozen=True)
class Source:
    """Where the configuration lies on the worker. Neither file nor variable: in the cluster."""

    file: Path | None = None
    variable: str = ""
    context: str = ""

    @property
    def paths(self) -> list[Path]:
        """The files it is read from; none in the cluster.

        Raises:
            BadInput: the variable is not set, or a file is missing.
        """
        if self.file is not None:
            paths = [self.file]
        elif self.variable:
            value = os.environ.get(self.variable, "")
            paths = [Path(part).expanduser() for part in value.split(os.pathsep) if part]
            if not paths:
                remedy = "Set it in the environment of the worker to the path of a kubeconfig"
                raise BadInput(self.variable, "not set, or empty", remedy)
        else:
            return []
        for path in paths:
            if not path.is_file():
                remedy = "Put the kubeconfig there on the worker, readable by its user"
                raise BadInput("cluster (kubeconfig)", f"there is no file {path}", remedy)
        return paths


@dataclass
class Access:
    """What opens connections, and what is known of the credentials for error messages."""

    server: str
    context: str
    namespace: str
    client: Any = field(repr=False)
    groups: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Host and port of the API."""
        parts = urlsplit(self.server)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"{host}:{port}{parts.path.rstrip('/')}"

    def told_credentials(self) -> str:
        """Which credentials were sent, and whether their certificate ran out."""
        configuration = self.client.configuration
        by = f"context {self.context!r}" if self.context else "the pod's service account"
        if configuration.api_key.get("BearerToken"):
            return f"The token of {by} was refused: it ran out, was revoked, or is another's"
        if not configuration.cert_file:
            return f"{by} has no credentials that could be read"
        try:
            pem = Path(configuration.cert_file).read_bytes()
            ends = x509.load_pem_x509_certificate(pem).not_valid_after_utc
        except (OSError, ValueError):
            return f"The client certificate of {by} cannot be read"
        if ends < datetime.now(UTC):
            return f"The client certificate of {by} ran out at {ends:%Y-%m-%d %H:%M} UTC"
        return f"The client certificate of {by} (good until {ends:%Y-%m-%d}) was refused"


def place_of_server(source: Source) -> str:
    """Host and port of the API without opening anything; errors are those of `open_access`."""
    if not source.paths:
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise BadInput(
                "cluster",
                "this worker runs in no cluster (KUBERNETES_SERVICE_HOST is not set)",
                "Name a kubeconfig: kubeconfig:///path/on/the/worker?context=NAME",
            )
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    merged = _merged(source)
    context = _context(source, merged)
    clusters = {one.get("name"): one.get("cluster") or {} for one in merged["clusters"]}
    cluster = clusters.get(context.get("cluster"), {})
    return Access(str(cluster.get("server", "")), "", "", None).place


def open_access(source: Source, *, user: str = "", groups: Sequence[str] = ()) -> Access:
    """Read the configuration and make a client of it; nothing is sent yet.

    Args:
        source: where the configuration lies.
        user: whom to impersonate; empty: nobody.
        groups: the groups of whom is impersonated.

    Raises:
        BadInput: a file is missing, is no kubeconfig, or has no such context: names those it has.
    """
    # Here, not above: the client's models take most of a second, which `recover list` need not pay.
    from kubernetes.client.api_client import ApiClient  # noqa: PLC0415
    from kubernetes.client.configuration import Configuration  # noqa: PLC0415
    from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415
    from kubernetes.config.incluster_config import load_incluster_config  # noqa: PLC0415
    from kubernetes.config.kube_config import (  # noqa: PLC0415
        KubeConfigLoader,
        KubeConfigMerger,
    )

    configuration = Configuration()
    configuration.retries = False
    context, namespace = "", ""
    try:
        if paths := source.paths:
            merged = _merged(source)
            chosen = _context(source, merged)
            _register_secrets(merged)
            context = source.context or str(merged["current-context"])
            namespace = str(chosen.get("namespace") or "")
            official: Any = KubeConfigMerger, KubeConfigLoader  # which state no types
            merger = official[0](os.pathsep.join(map(str, paths)))
            official[1](merger.config, active_context=context).load_and_set(configuration)
        else:
            place_of_server(source)  # says what is missing where this runs in no cluster
            in_cluster: Any = load_incluster_config
            in_cluster(configuration)
            folder = SERVICE_ACCOUNT / "namespace"
            namespace = folder.read_text().strip() if folder.is_file() else ""
    except (ConfigException, OSError, KeyError, TypeError, AttributeError) as error:
        where = ", ".join(map(str, source.paths)) or "in-cluster"
        raise BadInput("cluster", f"{where}: {error}", "Correct the kubeconfig") from error
    if token := configuration.api_key.get("BearerToken"):
        Secret(str(token).partition(" ")[2].strip() or str(token))
    client: Any = ApiClient(configuration)
    client.user_agent = USER_AGENT
    if user:
        client.set_default_header("Impersonate-User", user)
    access = Access(str(configuration.host), context, namespace, client, tuple(groups))
    _refuse_another(source, access)
    return access


def _refuse_another(source: Source, opened: Access) -> None:
    """Refuse a client of another cluster than the one that leases, plans and messages name."""
    named = place_of_server(source)
    if source.paths and opened.place != named:
        where = ", ".join(map(str, source.paths))
        what = f"{where} names {named}, and requests would go to {opened.place}"
        raise BadInput("cluster", what, "Name one kubeconfig whose names are used once")


def _merged(source: Source) -> dict[str, Any]:
    """All files as one, as kubectl reads them: the first one that sets something wins."""
    merged: dict[str, Any] = {"contexts": [], "clusters": [], "users": []}
    for path in source.paths:
        try:
            read = yaml.safe_load(path.read_text())
        except (OSError, UnicodeError, yaml.YAMLError) as error:
            why = getattr(error, "strerror", None) or "it is no YAML"
            raise BadInput(str(path), str(why), "Correct it on the worker") from None
        if not isinstance(read, dict):
            raise BadInput(str(path), "it is no kubeconfig", "Name the file of kubectl")
        for name in ("contexts", "clusters", "users"):
            for one in read.get(name) or []:
                if one.get("name") not in (known.get("name") for known in merged[name]):
                    merged[name].append(one)
        merged["current-context"] = merged.get("current-context") or read.get("current-context")
    return merged


def _context(source: Source, merged: dict[str, Any]) -> dict[str, Any]:
    known = {one.get("name"): one.get("context") or {} for one in merged["contexts"]}
    wanted = source.context or merged.get("current-context")
    if wanted not in known:
        what = f"no context {wanted!r}" if wanted else "no current context"
        where = ", ".join(map(str, source.paths))
        there = ", ".join(sorted(map(str, known))) or "none at all"
        raise BadInput("cluster (context)", f"{where} has {what}", f"It has {there}")
    return dict(known[wanted])


def _register_secrets(merged: dict[str, Any]) -> None:
    for one in merged["users"]:
        user = one.get("user") or {}
        provider = (user.get("auth-provider") or {}).get("config") or {}
        for value in (*(user.get(f) for f in SECRET_FIELDS), *(provider.get(f) for f in provider)):
            if isinstance(value, str) and value:
                Secret(value)
