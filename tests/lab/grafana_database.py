"""Make Grafana 11 databases of our own: full ones in SQLite, freshly started ones in MySQL.

Run as `python -m tests.lab.grafana_database out.db`.
"""

import argparse
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.lab.grafana_awkward import LOSSY, Planted, plant_awkward
from tests.lab.grafana_content import (
    LARGEST_CELL,
    add_alerting,
    add_annotations,
    add_around_dashboards,
    add_dashboard,
    add_folders,
    add_snapshot,
    dashboard_json,
    panels,
)
from tests.lab.grafana_people import (
    ORGANISATIONS,
    World,
    add_organisation,
    add_server_wide,
)
from tests.lab.grafana_schema import Rows, Schema, grafana_11, tick, ticks

ORDINARY_SIZES = (1_500, 2_500, 4_000, 9_000)
MIGRATED_AT = "2025-02-13 18:20:53"
STARTED_AT = "2025-03-21 11:21:47"


@dataclass(frozen=True)
class GrafanaDatabase:
    """What was made: the file, rows by table, the cells planted, and the rows written last."""

    path: Path
    counts: dict[str, int]
    awkward: dict[str, Planted]
    lossy: dict[str, Planted]
    last: dict[str, tuple[int, ...]]  # row ids by table; with `in_wal` these are in the -wal alone


def make_grafana_database(  # noqa: PLR0913 - each is a switch of its own
    path: Path | str,
    *,
    dashboards: int = 300,
    versions_each: int = 3,
    awkward: bool = True,
    lossy: Collection[str] = (),
    seed: int = 11,
    size_mb: float | None = None,
    in_wal: bool = False,
) -> GrafanaDatabase:
    """Write a Grafana 11 database; the same arguments make the same rows.

    Args:
        path: a file that does not exist yet.
        dashboards: how many ordinary ones, besides folders and planted ones.
        versions_each: how many versions each of them has.
        awkward: plant the cells that must survive a migration, and store some texts as blobs.
        lossy: names out of `LOSSY`, of cells that a migration must refuse.
        seed: of all chance.
        size_mb: about how large the file shall be, by larger dashboards.
        in_wal: leave the last rows in `<path>-wal`, in WAL mode, as a killed Grafana does.

    Raises:
        FileExistsError: there is such a file.
        ValueError: a lossy name is unknown, or too few dashboards for that size.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(path)
    if unknown := set(lossy) - set(LOSSY):
        raise ValueError(f"{sorted(unknown)} are not among {sorted(LOSSY)}")
    size = None
    if size_mb is not None:
        size = int(size_mb * 1e6 / (max(dashboards, 1) * (1 + versions_each)))
        if size > LARGEST_CELL:
            raise ValueError(f"{dashboards} dashboards would have {size} bytes each")

    with building(path, in_wal=in_wal) as connection:
        schema = grafana_11()
        create_tables(connection, schema)
        world = World(Rows(connection, schema), random.Random(seed))  # noqa: S311 - wants repetition
        pool = panels(world.chance)
        late = max(dashboards // 10, 1) if dashboards else 0
        for name in ORGANISATIONS[:-1]:
            add_organisation(world, name)
        add_server_wide(world)
        for org in world.organisations:
            add_folders(world, org)
        add_dashboards(world, pool, dashboards - late, versions_each, size=size, blobs=awkward)
        for org in world.organisations:
            if not world.dashboards.get(org):
                add_dashboard(world, org, "{}", 1)
            add_around_dashboards(world, org)
            add_alerting(world, org, rules=6)
            add_annotations(world, org, how_many=12)
            add_snapshot(world, org, dashboard_json("Snapshot", "snap", pool, 5_000, org))
        planted = plant_awkward(world) if awkward else {}
        refused = {name: LOSSY[name](world) for name in sorted(lossy)}
        connection.commit()
        if in_wal:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        before = {table: len(ids) for table, ids in world.rows.ids.items()}
        org = add_organisation(world, ORGANISATIONS[-1])
        add_folders(world, org)
        add_dashboards(world, pool, late, versions_each, size=size, blobs=awkward)
        add_annotations(world, world.organisations[0], how_many=3)
        connection.commit()

    last = {t: tuple(ids[before.get(t, 0) :]) for t, ids in world.rows.ids.items()}
    return GrafanaDatabase(
        path,
        dict(world.rows.counts),
        planted,
        refused,
        {table: ids for table, ids in last.items() if ids},
    )


@contextlib.contextmanager
def building(path: Path, *, in_wal: bool) -> Iterator[sqlite3.Connection]:
    """Open a new database for writing; at the end leave the file, and the -wal where asked for.

    The last connection that closes puts the -wal into the main file. So both are copied while it
    is open, which is the state that a killed process leaves.
    """
    draft = path.with_name(path.name + ".draft") if in_wal else path
    try:
        with contextlib.closing(sqlite3.connect(draft)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            if in_wal:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            yield connection
            if in_wal:
                shutil.copyfile(draft, path)
                shutil.copyfile(f"{draft}-wal", f"{path}-wal")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        if in_wal:
            draft.unlink(missing_ok=True)


def create_tables(connection: sqlite3.Connection, schema: Schema) -> None:
    """Create every table, with the logs of migrations filled."""
    for table in schema.tables.values():
        for statement in table.sqlite_statements():
            connection.execute(statement)
    rows = Rows(connection, schema)
    for log, names in schema.migrations.items():
        for name in names:
            rows.add(log, migration_id=name, sql="", success=1, error="", timestamp=MIGRATED_AT)


def add_dashboards(  # noqa: PLR0913 - each is a property of the dashboards
    world: World,
    pool: list[str],
    how_many: int,
    versions_each: int,
    *,
    size: int | None,
    blobs: bool,
) -> None:
    """Add ordinary dashboards, spread over the organisations."""
    for number in range(how_many):
        org = world.organisations[number % len(world.organisations)]
        size_bytes = size or world.chance.choice(ORDINARY_SIZES)
        title = f"{world.chance.choice(('Betrieb', 'Ops', 'Réseau'))} {number}"
        uid = world.uid()
        data: str | bytes = dashboard_json(title, uid, pool, size_bytes, number)
        if blobs and isinstance(data, str) and number % 2:
            data = data.encode()
        add_dashboard(world, org, data, versions_each, title=title, uid=uid)


class Cursor(Protocol):
    """What is needed of a cursor of any MySQL library."""

    def execute(self, query: str) -> object:
        """Run a statement."""

    def close(self) -> object:
        """End it."""


class Connection(Protocol):
    """What is needed of a connection of any MySQL library."""

    def cursor(self) -> Cursor:
        """Open a cursor."""

    def commit(self) -> object:
        """Make it last."""


def make_grafana_mysql_schema(connection: Connection, *, started: bool = True) -> None:
    """Make the tables of Grafana 11 in the current database of a MySQL connection.

    Args:
        connection: of PyMySQL or the like, with a database chosen.
        started: with the rows that the first start of Grafana leaves in them.
    """
    cursor = connection.cursor()
    for statement in grafana_mysql_statements(started=started):
        cursor.execute(statement)
    cursor.close()
    connection.commit()


def grafana_mysql_statements(*, started: bool = True) -> list[str]:
    """Return what `make_grafana_mysql_schema` executes."""
    schema = grafana_11()
    statements = [table.mysql_statement() for table in schema.tables.values()]
    for log, names in schema.migrations.items():
        columns = ["migration_id", "sql", "success", "error", "timestamp"]
        statements.append(insert(log, columns, *[(n, "", 1, "", MIGRATED_AT) for n in names]))
    return statements + (first_start_statements() if started else [])


def insert(table: str, columns: Collection[str], *rows: tuple[object, ...]) -> str:
    """Return one INSERT of rows of plain texts, numbers and NULLs."""
    values = ", ".join("(" + ", ".join(map(literal, row)) + ")" for row in rows)
    return f"INSERT INTO {tick(table)} ({ticks(columns)}) VALUES {values}"  # noqa: S608


def literal(value: object) -> str:
    """Return a value as MySQL reads it in its default mode."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def first_start_statements() -> list[str]:
    """Return what the first start of Grafana inserts: each of it stands in the way of a load."""
    dates = {"created": STARTED_AT, "updated": STARTED_AT}
    routing = '{"alertmanager_config":{"route":{"receiver":"grafana-default-email"}}}'
    rows: list[tuple[str, dict[str, object]]] = [
        ("org", {"id": 1, "version": 0, "name": "Main Org.", **dates}),
        (
            "user",
            {
                "id": 1, "version": 0, "login": "admin", "email": "admin@localhost", "name": "",
                "password": "f" * 100, "salt": "fresh", "rands": "fresh", "company": "",
                "org_id": 1, "is_admin": 1, "email_verified": 0, "theme": "", "help_flags1": 0,
                "is_disabled": 0, "is_service_account": 0, "uid": "fresh-admin", **dates,
            },
        ),
        ("org_user", {"id": 1, "org_id": 1, "user_id": 1, "role": "Admin", **dates}),
        (
            "alert_configuration",
            {
                "id": 1, "alertmanager_configuration": routing, "configuration_version": "v1",
                "created_at": 1742556107, "default": 1, "org_id": 1, "configuration_hash": "0" * 32,
            },
        ),
        (
            "data_keys",
            {
                "name": "fresh-data-key", "active": 1, "scope": "root",
                "provider": "secretKey.v1", "encrypted_data": "fresh",
                "label": "2025-03-21/root@secretKey.v1", **dates,
            },
        ),
        (
            "kv_store",
            {
                "id": 1, "org_id": 0, "namespace": "ngalert.migration",
                "key": "currentAlertingType", "value": "UnifiedAlerting", **dates,
            },
        ),
        (
            "server_lock",
            {
                "id": 1, "operation_uid": "cleanup expired auth tokens", "version": 14,
                "last_execution": 1743340995,
            },
        ),
    ]  # fmt: skip
    for number, kind in enumerate(("Viewer", "Editor"), start=1):
        role: dict[str, object] = {
            "id": number, "name": f"managed:builtins:{kind.lower()}:permissions",
            "description": "", "version": 0, "org_id": 1, "uid": f"fresh-role-{number}", **dates,
            "display_name": "", "group_name": "", "hidden": 0,
        }  # fmt: skip
        acl = {"org_id": -1, "dashboard_id": -1, "permission": number, "role": kind}
        migrated = {"created": "2017-06-20 00:00:00", "updated": "2017-06-20 00:00:00"}
        rows += [
            ("role", role),
            ("builtin_role", {"id": number, "role": kind, "role_id": number, "org_id": 1, **dates}),
            ("dashboard_acl", {"id": number, **acl, **migrated}),
        ]
    return [insert(table, values, tuple(values.values())) for table, values in rows]


def main() -> None:
    """Write a database from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.grafana_database")
    parser.add_argument("path", type=Path)
    parser.add_argument("--dashboards", type=int, default=300)
    parser.add_argument("--versions-each", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="without the awkward cells")
    parser.add_argument("--lossy", action="append", default=[], choices=sorted(LOSSY))
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--size-mb", type=float)
    parser.add_argument("--in-wal", action="store_true", help="leave the last rows in the -wal")
    given = parser.parse_args()
    made = make_grafana_database(
        given.path,
        dashboards=given.dashboards,
        versions_each=given.versions_each,
        awkward=not given.plain,
        lossy=given.lossy,
        seed=given.seed,
        size_mb=given.size_mb,
        in_wal=given.in_wal,
    )
    rows = sum(made.counts.values())
    size_bytes = made.path.stat().st_size
    print(f"{made.path}: {rows} rows in {len(made.counts)} tables, {size_bytes} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
