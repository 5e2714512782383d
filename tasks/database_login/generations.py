"""How a Keycloak is told its database: by the variables of either generation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from tasks.database_login.environment import Variable

PORT = 5432
# jdbc:postgresql://db-1:5432,db-2/keycloak?sslmode=require
JDBC = re.compile(
    r"jdbc:postgresql://(?P<host>[^:/,?]+)(:(?P<port>\d+))?[^/?]*/(?P<database>[^?]+)(\?(?P<rest>.*))?"
)


@dataclass(frozen=True)
class Names:
    """The names of one generation's variables, and what counts where one is missing."""

    vendor: str
    host: str
    port: str
    database: str
    user: str
    password: str
    url: str
    is_host_default: str

    @property
    def all(self) -> frozenset[str]:
        """Every name, and that of the file that may hold the password instead."""
        names = (self.vendor, self.host, self.port, self.database, self.user, self.password)
        return frozenset({*names, self.url, f"{self.password}_FILE"} - {""})


WILDFLY = Names(
    "DB_VENDOR", "DB_ADDR", "DB_PORT", "DB_DATABASE", "DB_USER", "DB_PASSWORD", "", "postgres"
)
QUARKUS = Names(
    "KC_DB", "KC_DB_URL_HOST", "KC_DB_URL_PORT", "KC_DB_URL_DATABASE", "KC_DB_USERNAME",
    "KC_DB_PASSWORD", "KC_DB_URL", "localhost",
)  # fmt: skip
EVERY_NAME = WILDFLY.all | QUARKUS.all


@dataclass(frozen=True)
class PodLogin:
    """What a Keycloak logs in to its database with; it holds what is secret.

    Attributes:
        host, port, database, user: as the pod has them.
        sslmode: that of the JDBC URL; empty where it says none.
        password: the variable; `None` where there is none.
        named: the name of that variable.
        vendor: what database it is; empty where nothing says so.
        has_file: whether the password is that of a file in the container.
    """

    host: str
    port: int
    database: str
    user: str
    sslmode: str
    password: Variable | None
    named: str
    vendor: str
    has_file: bool


def pod_login(variables: Mapping[str, Variable]) -> PodLogin | None:
    """Read the variables of a container; `None` where they are none of a Keycloak's database."""
    is_quarkus = bool(QUARKUS.all & set(variables))
    names = QUARKUS if is_quarkus else WILDFLY
    if not {names.user, names.password, f"{names.password}_FILE"} & set(variables):
        return None

    def text(name: str, otherwise: str) -> str:
        return variables[name].text.strip() if name in variables else otherwise

    host = text(names.host, names.is_host_default)
    port, database, sslmode = text(names.port, str(PORT)), text(names.database, "keycloak"), ""
    if names.url and (read := JDBC.fullmatch(text(names.url, ""))):
        host, port, database = read["host"], read["port"] or str(PORT), read["database"]
        sslmode = parse_qs(read["rest"] or "").get("sslmode", [""])[0]
    return PodLogin(
        host,
        int(port) if port.isdigit() else PORT,
        database,
        text(names.user, "keycloak"),
        sslmode,
        variables.get(names.password),
        names.password,
        text(names.vendor, ""),
        f"{names.password}_FILE" in variables,
    )
