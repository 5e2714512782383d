"""Which key of which ConfigMap or Secret is to hold which value, and what is accepted."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from blocks.kube.cluster import KubernetesCluster
from blocks.kube.path import path_of
from recovery.errors import BadInput
from recovery.secrecy.secret import Secret
from tasks.settings.value_types import ValueType
from tasks.workloads.target import Workload, WorkloadOrder

KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
SECRET_BY_NAME = re.compile(
    r"(^|[._-])(SECRET|PASSWORD|PASSWD|TOKEN|PRIVATE_?KEY|AUTH_?KEY|API_?KEY|CREDENTIALS?)($|[._-])",
    re.IGNORECASE,
)
E = TypeVar("E", bound=StrEnum)
SECRET_CHARACTERS_MIN = 4  # shorter ones are part of too many words to be masked


class ObjectKind(StrEnum):
    """What holds settings, as kubectl writes it before the slash."""

    CONFIG_MAP = "configmap"
    SECRET = "secret"  # noqa: S105 (the name of a kind)

    @property
    def resource(self) -> str:
        """Its name in paths."""
        return f"{self}s"


class Accepted(StrEnum):
    """What is refused unless it is accepted by this name."""

    ARGO_CD = "argo-cd"
    FLUX = "flux"
    HELM = "helm"
    OPERATOR = "operator"
    OTHER_TYPE = "other-type"
    EMPTY_VALUE = "empty-value"
    SHADOWED = "shadowed"
    NOT_WELL = "not-well"
    SMS_IS_OFF = "sms-is-off"


@dataclass(frozen=True)
class ValueSource:
    """Where the new value comes from: it is given, or a reference leads to a secret one."""

    value: str = ""
    file: str = ""
    variable: str = ""

    @property
    def is_reference(self) -> bool:
        """Whether the value is kept on the worker, and so is secret."""
        return bool(self.file or self.variable)

    def besides(self) -> Mapping[str, Secret]:
        """What else is kept with a secret value for the way back, by its key there: nothing."""
        return {}

    def go_back_first(self, setting: "ConfigOrder", kept: str) -> None:
        """Put back what else was given the value, before the value goes back: nothing here.

        Done twice, the second does nothing.
        """

    def read(self) -> Secret | str:
        """The value.

        Raises:
            BadInput: the file or the variable is missing, or is too short for a secret.
        """
        if not self.is_reference:
            return self.value
        name = self.file or self.variable
        secret = Secret.from_file(name) if self.file else Secret.from_env(name)
        if len(secret.reveal()) < SECRET_CHARACTERS_MIN:
            seen = f"fewer than {SECRET_CHARACTERS_MIN} characters"
            raise BadInput(name, seen, "A secret as short cannot be kept out of logs: take another")
        return secret


@dataclass(frozen=True)
class ConfigOrder:
    """What was asked for. The label is what is leased: the object. No consumer named means all."""

    cluster: KubernetesCluster
    namespace: str
    kind: ObjectKind
    name: str
    key: str
    source: ValueSource
    value_type: ValueType | None = None
    is_added: bool = False
    is_restarted: bool = True
    consumers: tuple[str, ...] = ()
    accept: tuple[Accepted, ...] = ()
    within_seconds: int = 600

    @property
    def label(self) -> str:
        """The object."""
        return f"{self.cluster.label}/{self.namespace}/{self.kind}/{self.name}"

    @property
    def path(self) -> str:
        """Where the API has the object."""
        return path_of("v1", self.kind.resource, self.name, namespace=self.namespace)

    @property
    def is_secret(self) -> bool:
        """Whether neither the old nor the new value may be seen anywhere."""
        return self.kind is ObjectKind.SECRET or self.source.is_reference

    def workload_order(self, workload: Workload) -> WorkloadOrder:
        """The order that steps of one of its consumers take."""
        kind, name = workload.kind, workload.name
        return WorkloadOrder(self.cluster, self.namespace, kind, name, self.within_seconds)


@dataclass(frozen=True)
class Wishes:
    """How a value is set, apart from which and where; the defaults are those of the forms."""

    value_type: str = ""
    is_added: bool = False
    is_restarted: bool = True
    consumers: Sequence[str] = ()
    accept: Sequence[str] = ()
    within_seconds: int = 600


def config_order(
    place: tuple[str, str, str], key: str, source: ValueSource, wishes: Wishes
) -> ConfigOrder:
    """Read the parameters of a recovery.

    Args:
        place: the cluster, the namespace, and the object, as `configmap/divoc-config`.
        key: which of its keys.
        source: the new value.
        wishes: the rest.

    Raises:
        BadInput: one is malformed, a secret was given in the open, or no value at all.
    """
    cluster, namespace, given = place
    kind, name = object_named(given)
    if not KEY.fullmatch(key):
        raise BadInput("key", f"{key!r} is no key", "Give letters, digits, '.', '_' and '-'")
    accept = tuple(_one_of(Accepted, "accept", one) for one in wishes.accept)
    wanted = _one_of(ValueType, "value_type", wishes.value_type) if wishes.value_type else None
    if wishes.within_seconds < 1:
        raise BadInput("within_seconds", f"{wishes.within_seconds}", "Give at least 1")
    _refuse_bad_source(kind, key, source, is_empty_fine=Accepted.EMPTY_VALUE in accept)
    block = KubernetesCluster.named(cluster)
    return ConfigOrder(
        block,
        block.namespace_of(namespace),
        kind,
        name,
        key,
        source,
        wanted,
        wishes.is_added,
        wishes.is_restarted,
        tuple(wishes.consumers),
        accept,
        wishes.within_seconds,
    )


def config_target(cluster: str, namespace: str, config: str) -> str:
    """What is leased: the object; errors are those of `config_order`."""
    kind, name = object_named(config)
    block = KubernetesCluster.named(cluster)
    return f"{block.label}/{block.namespace_of(namespace)}/{kind}/{name}"


def object_named(given: str) -> tuple[ObjectKind, str]:
    """Read `configmap/divoc-config` or `secret/divoc-secrets`.

    Raises:
        BadInput: it is neither.
    """
    kind, _, name = given.strip().partition("/")
    kinds = {str(one): one for one in ObjectKind}
    found = kinds.get(kind.lower().removesuffix("s"))
    if found is None or not name or "/" in name:
        remedy = "Write configmap/NAME or secret/NAME"
        raise BadInput("config", f"{given!r} names neither a ConfigMap nor a Secret", remedy)
    return found, name


def _refuse_bad_source(
    kind: ObjectKind, key: str, source: ValueSource, *, is_empty_fine: bool
) -> None:
    by_reference = "Put it into a file of mode 0600 on the worker and name that as value_file"
    given = [one for one in (source.value, source.file, source.variable) if one]
    if len(given) > 1:
        raise BadInput("value", "it is given twice", "Give value, value_file or value_env alone")
    if source.value and kind is ObjectKind.SECRET:
        raise BadInput("value", "values of Secrets are not given in the open", by_reference)
    if source.value and SECRET_BY_NAME.search(key):
        raise BadInput("value", f"{key} looks like a secret", by_reference)
    if given or source.is_reference or (is_empty_fine and kind is ObjectKind.CONFIG_MAP):
        return
    remedy = f"Give value, value_file or value_env; accept {Accepted.EMPTY_VALUE} to empty the key"
    raise BadInput("value", "there is none", remedy)


def _one_of(kinds: type[E], field: str, given: str) -> E:
    known = {str(one): one for one in kinds}
    if given not in known:
        raise BadInput(field, f"{given!r} is not known", f"Known: {', '.join(known)}")
    return known[given]
