"""Which Keycloak cannot log in to its database, and which of the two sides is to give way."""

from dataclasses import dataclass
from enum import StrEnum

from blocks.postgres.server import PostgresServer
from recovery.errors import BadInput
from tasks.settings.order import Accepted, ConfigOrder, ValueSource, Wishes, config_order
from tasks.workloads.target import WorkloadOrder


class Side(StrEnum):
    """Which side is wrong, and is corrected: only a person knows."""

    WORKLOAD = "workload"  # gets the password that the database has
    ROLE = "role"  # gets the password that the workload has


@dataclass(frozen=True)
class LoginOrder:
    """What was asked for. The label is the workload; no side is to look only.

    Attributes:
        workload: the Keycloak.
        cluster: as it was given.
        server: where the worker reaches the database, as an account that may change the role.
        side: what is corrected.
        password: where the right password lies, for a workload that is corrected.
        accept: names of what is refused otherwise.
        is_final: the role's password is set also where the former one cannot be kept.
    """

    workload: WorkloadOrder
    cluster: str
    server: PostgresServer | None
    side: Side | None
    password: ValueSource
    accept: tuple[str, ...]
    is_final: bool

    @property
    def label(self) -> str:
        """The workload."""
        return self.workload.label

    def setting(self, holder: str, key: str) -> ConfigOrder:
        """The order that corrects the value which the workload reads.

        That the workload is not well is why it is corrected.
        """
        accept = (*self.accept, Accepted.NOT_WELL)
        wishes = Wishes(accept=accept, within_seconds=self.workload.within_seconds)
        place = (self.cluster, self.workload.namespace, holder)
        return config_order(place, key, self.password, wishes)


@dataclass(frozen=True)
class LoginWishes:
    """How it is repaired; the defaults are those of the form."""

    database: str = ""
    side: str = ""
    password_file: str = ""
    accept: tuple[str, ...] = ()
    is_final: bool = False


def login_order(workload: WorkloadOrder, cluster: str, wishes: LoginWishes) -> LoginOrder:
    """Read the parameters of the recovery.

    Raises:
        BadInput: one is malformed, or does not go with the side.
    """
    sides = {str(one): one for one in Side}
    if wishes.side and wishes.side not in sides:
        raise BadInput("side", f"{wishes.side!r} is not known", f"Known: {', '.join(sides)}")
    side = sides.get(wishes.side)
    if (side is Side.WORKLOAD) != bool(wishes.password_file):
        seen = "the right password belongs to side=workload, and to nothing else"
        raise BadInput("password_file", seen, "Give both, or neither of them")
    if side is Side.ROLE and not wishes.database:
        remedy = "Name an account that may change the role, as postgresql://ADMIN@HOST/DB?…"
        raise BadInput("database", "there is none, and the role is to be changed", remedy)
    known = {str(one) for one in Accepted}
    if unknown := set(wishes.accept) - known:
        seen = f"{', '.join(sorted(unknown))} is not known"
        raise BadInput("accept", seen, f"Known: {', '.join(sorted(known))}")
    return LoginOrder(
        workload,
        cluster,
        PostgresServer.named(wishes.database) if wishes.database else None,
        side,
        ValueSource(file=wishes.password_file),
        wishes.accept,
        wishes.is_final,
    )


def database_leased(database: str) -> list[str]:
    """What is leased besides the workload: the database server, where one is named."""
    return PostgresServer.named(database).places if database else []
