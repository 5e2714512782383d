"""A Kubernetes cluster as a Prefect block: where its kubeconfig lies and who acts."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from blocks.kube.access import Source, open_access, place_of_server
from blocks.kube.session import KubernetesSession
from blocks.kube.wire import Wire
from blocks.saved import saved_block
from recovery.also_known import also_known, is_known
from recovery.errors import BadInput
from recovery.forms import Saved, told_from_reference

SCHEMES = ("kubeconfig", "in-cluster")
OPTIONS = ("env", "context", "namespace", "as", "as_group", "name")
OTHERWISE = "kubeconfig:///path/on/the/worker?context=NAME&namespace=NS, nor in-cluster:"
SHAPE = "Write kubeconfig:///path/on/the/worker?context=NAME&namespace=NS, or in-cluster:"
FRESH_SECONDS = 60.0  # tokens are read anew from their files after that, as kubectl would


class KubernetesCluster(Block):
    """One cluster, one account, and the namespace that is meant where none is given.

    The block holds references only: credentials stay in the kubeconfig on the worker, with its
    exec plugins and token files, or in the worker's own pod.
    """

    model_config = ConfigDict(json_schema_extra=told_from_reference)

    _block_type_name: ClassVar[str | None] = "Kubernetes cluster"
    _block_type_slug: ClassVar[str | None] = "kubernetes-cluster"
    _description: ClassVar[str | None] = (
        "A cluster by the kubeconfig on the worker, or the one the worker runs in; no credentials."
    )
    _code_example: ClassVar[str | None] = (
        'KubernetesCluster.from_url("kubeconfig:///etc/recover/prod.conf?context=prod")'
    )

    kubeconfig: Path | None = Field(
        default=None, description="Path of a kubeconfig, on the worker."
    )
    kubeconfig_env: str = Field(
        default="", description="Environment variable of the worker with the path, as KUBECONFIG."
    )
    context: str = Field(default="", description="Empty: the current context of the kubeconfig.")
    namespace: str = Field(default="", description="Empty: that of the context.")
    as_user: str = Field(default="", description="Account to impersonate.")
    as_groups: list[str] = Field(default_factory=list, description="Groups to impersonate.")
    alias: str = Field(
        default="", description="Name of the cluster; empty: the address of its API."
    )
    within_seconds: float = Field(default=30, gt=0, description="For one request and its answer.")

    _open: KubernetesSession | None = PrivateAttr(default=None)
    _opened_at: float = PrivateAttr(default=0.0)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kubeconfig is not None and self.kubeconfig_env:
            raise ValueError("name kubeconfig or kubeconfig_env, not both")
        if self.kubeconfig is not None and not self.kubeconfig.is_absolute():
            raise ValueError("give the absolute path: a worker stands in another folder")
        if self.as_groups and not self.as_user:
            raise ValueError("groups are impersonated only together with a user (as=)")
        if self.context and self.kubeconfig is None and not self.kubeconfig_env:
            raise ValueError("in the cluster there is no context")
        return self

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `kubeconfig:///path?context=…`, `kubeconfig:?env=NAME`, or `in-cluster:`.

        Other options: `namespace`, `as`, `as_group` (several times), `name`.

        Raises:
            BadInput: it is malformed, or holds what is not known.
        """
        parts = urlsplit(url.strip())
        if parts.scheme not in SCHEMES:
            raise BadInput("scheme", f"{parts.scheme or 'none'!r} is not kubeconfig", SHAPE)
        if parts.netloc or parts.fragment:
            raise BadInput("cluster URL", f"{parts.netloc or '#'!r} is in it", SHAPE)
        options: dict[str, list[str]] = {}
        for name, value in parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True):
            if name not in OPTIONS or not value:
                known = ", ".join(OPTIONS)
                raise BadInput(name, "this option is not known, or empty", f"Known are {known}")
            if name in options and name != "as_group":
                raise BadInput(name, "it is given twice", "Give it once")
            options.setdefault(name, []).append(value)
        path = unquote(parts.path)
        is_file = parts.scheme == "kubeconfig"
        if is_file != bool(path or options.get("env")) or (path and options.get("env")):
            raise BadInput("cluster URL", "it names no kubeconfig, or one too many", SHAPE)
        one = {name: values[0] for name, values in options.items()}
        try:
            return cls(
                kubeconfig=Path(path) if path else None,
                kubeconfig_env=one.get("env", ""),
                context=one.get("context", ""),
                namespace=one.get("namespace", ""),
                as_user=one.get("as", ""),
                as_groups=options.get("as_group", []),
                alias=one.get("name", ""),
            )
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "cluster URL"
            raise BadInput(field, str(first["msg"]), SHAPE) from None

    @classmethod
    def named(cls, given: str, field: str = "cluster") -> Self:
        """Read a parameter: a `kubeconfig:` or `in-cluster:` URL, or the name of a saved block.

        Raises:
            BadInput: the URL is malformed, or there is no such block.
        """
        if given.startswith(("/", "~")):
            path = Path(given).expanduser()
            raise BadInput(field, f"{given} is a path", f"Write kubeconfig://{path}")
        if given.partition(":")[0] not in SCHEMES or ":" not in given:
            return saved_block(cls, given, field, OTHERWISE)
        try:
            return cls.from_url(given)
        except BadInput as wrong:
            raise BadInput(f"{field} ({wrong.field})", wrong.seen, wrong.remedy) from None

    @property
    def source(self) -> Source:
        """Where its configuration lies."""
        return Source(self.kubeconfig, self.kubeconfig_env, self.context)

    @property
    def label(self) -> str:
        """The cluster as it is named everywhere: by its own name, or the address of its API.

        What has a name of its own is leased by its address as well, for who does not use that name.

        Raises:
            BadInput: the kubeconfig that says so cannot be read.
        """
        if not self.alias:
            return f"kubernetes://{place_of_server(self.source)}"
        label = f"kubernetes://{self.alias}"
        if not is_known(label):
            with suppress(BadInput):  # who only names it need not have the kubeconfig
                also_known(label, f"kubernetes://{place_of_server(self.source)}")
        return label

    def namespace_of(self, given: str = "") -> str:
        """The namespace that is meant: the given one, the block's, or the context's.

        Raises:
            BadInput: none of them names one; `default` is never guessed.
        """
        if named := given or self.namespace:
            return named
        with self.session() as session:
            if session.namespace:
                return session.namespace
        raise BadInput("namespace", "neither it nor the context names one", "Give the namespace")

    @contextmanager
    def session(self) -> Iterator[KubernetesSession]:
        """Open a session, or go on with the open one; credentials are read anew each minute.

        Raises:
            BadInput: the kubeconfig cannot be read, or has no such context.
        """
        with self._lock:
            if self._open is None or time.monotonic() - self._opened_at > FRESH_SECONDS:
                access = open_access(self.source, user=self.as_user, groups=self.as_groups)
                namespace = self.namespace or access.namespace
                wire = Wire(access, self.label)
                self._open = KubernetesSession(wire, self.label, namespace, self.within_seconds)
                self._opened_at = time.monotonic()
            session = self._open
        yield session


ClusterParameter = Annotated[str, Saved(KubernetesCluster)]
