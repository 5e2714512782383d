"""Which data source of which Grafana is to lead where, and what is accepted for that."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TypeVar
from urllib.parse import urlsplit

from blocks.grafana.api import GrafanaApi
from recovery.errors import BadInput
from recovery.secrecy.secret import Secret
from tasks.grafana_dashboard_files import UID

DERIVED_UID_DIGITS = 20
SECRET_CHARACTERS_MIN = 4  # shorter ones are part of too many words to be masked
E = TypeVar("E", bound=StrEnum)


class Kind(StrEnum):
    """The type of a data source, as Grafana calls it."""

    INFLUXDB = "influxdb"
    PROMETHEUS = "prometheus"
    LOKI = "loki"
    GRAPHITE = "graphite"
    ELASTICSEARCH = "elasticsearch"
    MYSQL = "mysql"
    POSTGRES = "postgres"

    @property
    def is_http(self) -> bool:
        """Whether it is reached at a URL rather than at host:port."""
        return self not in {Kind.MYSQL, Kind.POSTGRES}

    @property
    def has_own_login(self) -> bool:
        """Whether user and password are its own, rather than those of basic authentication."""
        return self in {Kind.INFLUXDB, Kind.MYSQL, Kind.POSTGRES}

    @property
    def password_field(self) -> str:
        """What its password is called among what Grafana encrypts."""
        return "password" if self.has_own_login else "basicAuthPassword"


class Accepted(StrEnum):
    """What is refused unless it is accepted by this name."""

    WORKS_NOW = "works-now"
    OTHER_TYPE = "other-type"
    FORMER_PASSWORD = "former-password"  # noqa: S105 (a name of what is accepted)
    HEALTH_UNKNOWN = "health-unknown"


@dataclass(frozen=True)
class PasswordSource:
    """Where a password lies on the worker: in a file or in an environment variable."""

    file: str = ""
    variable: str = ""

    @property
    def is_given(self) -> bool:
        """Whether there is one."""
        return bool(self.file or self.variable)

    def read(self) -> Secret | None:
        """The password; `None` where none is given.

        Raises:
            BadInput: the file or the variable is missing, or is too short for a secret.
        """
        if not self.is_given:
            return None
        secret = Secret.from_file(self.file) if self.file else Secret.from_env(self.variable)
        if len(secret.reveal()) < SECRET_CHARACTERS_MIN:
            seen = f"fewer than {SECRET_CHARACTERS_MIN} characters"
            remedy = "A password as short cannot be kept out of logs: take another"
            raise BadInput(self.file or self.variable, seen, remedy)
        return secret


@dataclass(frozen=True)
class DatasourceWish:
    """How the data source is to be; what is empty is left as it is found."""

    name: str
    kind: Kind
    url: str
    user: str = ""
    database: str = ""
    uid: str = ""
    is_default: bool = False


@dataclass(frozen=True)
class DatasourceOrder:
    """What was asked for. The label is what is leased: the data source of this name."""

    grafana: GrafanaApi
    wish: DatasourceWish
    password: PasswordSource = PasswordSource()
    former_password: PasswordSource = PasswordSource()
    accept: tuple[Accepted, ...] = ()

    @property
    def label(self) -> str:
        """The data source, by its name."""
        return label_of(self.grafana, self.wish.name)

    @property
    def new_uid(self) -> str:
        """The uid it gets where it is created: a resume finds what was created before."""
        digits = sha256(self.wish.name.encode()).hexdigest()[:DERIVED_UID_DIGITS]
        return self.wish.uid or f"ds-{digits}"


def label_of(grafana: GrafanaApi, name: str) -> str:
    """What is leased."""
    return f"{grafana.target}/datasource/{name}"


def datasource_order(
    grafana_url: str,
    wish: dict[str, str | bool],
    password: PasswordSource,
    former_password: PasswordSource,
    accept: Sequence[str],
) -> DatasourceOrder:
    """Read the parameters of the recovery.

    Args:
        grafana_url: where Grafana answers, and where its credentials lie.
        wish: the fields of `DatasourceWish` by their names.
        password: the new one.
        former_password: the one that undo puts back.
        accept: names of `Accepted`.

    Raises:
        BadInput: one is malformed, or holds a password.
    """
    name, kind = str(wish["name"]).strip(), one_of(Kind, "kind", str(wish["kind"]))
    uid, url = str(wish["uid"]), str(wish["url"]).strip().rstrip("/")
    if not name:
        raise BadInput("name", "it is empty: empty means none, never all", "Give the name")
    if uid and not UID.fullmatch(uid):
        raise BadInput("uid", f"{uid!r} is none", "Use up to 40 letters, digits, - and _")
    _refuse_bad_url(kind, url)
    for source in (password, former_password):
        if source.file and source.variable:
            raise BadInput("password", "it is given twice", "Give the file or the variable alone")
        source.read()
    user = str(wish["user"])
    if password.is_given and not user:
        raise BadInput("user", "there is a password and no user", "Give the user it is for")
    return DatasourceOrder(
        GrafanaApi.from_url(grafana_url),
        DatasourceWish(
            name, kind, url, user, str(wish["database"]), uid, is_default=bool(wish["is_default"])
        ),
        password,
        former_password,
        tuple(one_of(Accepted, "accept", one) for one in accept),
    )


def datasource_target(grafana_url: str, name: str) -> str:
    """What is leased: the data source; errors are those of `datasource_order`."""
    return label_of(GrafanaApi.from_url(grafana_url), name.strip())


def one_of(kinds: type[E], field: str, given: str) -> E:
    """Read a name.

    Raises:
        BadInput: it is none of these.
    """
    known = {str(one): one for one in kinds}
    if given not in known:
        raise BadInput(field, f"{given!r} is not known", f"Known: {', '.join(known)}")
    return known[given]


def _refuse_bad_url(kind: Kind, url: str) -> None:
    shape = "http://influxdb:8086" if kind.is_http else "grafanadb-mysql:3306"
    remedy = f"Write it as Grafana reaches it, as {shape}"
    try:
        parts = urlsplit(url if kind.is_http else f"//{url}")
        port = parts.port
    except ValueError as error:
        raise BadInput("url", str(error), remedy) from None
    if kind.is_http and parts.scheme not in {"http", "https"}:
        raise BadInput("url", f"{parts.scheme or 'none'!r} is not http", remedy)
    if not parts.hostname or (not kind.is_http and (port is None or parts.path)):
        raise BadInput("url", "it names no host, or no port", remedy)
    if parts.username is not None or parts.query or parts.fragment:
        remedy = "Give user and password apart: user, password_file"
        raise BadInput("url", "it holds more than scheme, host, port and path", remedy)
