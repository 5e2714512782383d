"""Move a Grafana from SQLite to MySQL."""

from dataclasses import dataclass

from blocks.mysql_server import MysqlServer
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.grafana import kept_copy, kept_dump, loading, preflight, service
from tasks.grafana.dashboards import import_dashboard, wanted_dashboards
from tasks.grafana.kept_copy import KeptCopy
from tasks.grafana.kept_dump import KeptDump
from tasks.grafana.migration import mysql_target, source_file, systemd_unit, work_folder


@dataclass(frozen=True)
class Moved:
    """What a move did: tables that differed and are equal now, and the cells compared to know it.

    Nothing to move is no table and no cell. The dashboards are those imported from files.
    """

    tables_that_differed: int
    cells_compared: int
    dashboard_files_imported: int


@recovery(
    runbook="docs/runbooks/grafana-sqlite-to-mysql.md",
    target=lambda target: mysql_target(target).label,
    danger=Danger.DESTRUCTIVE,
)
def move_grafana_to_mysql(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    source: str,
    target: str,
    grafana: str = "",
    skip_tables: list[str] | None = None,
    accept: list[str] | None = None,
    dashboards: str = "",
    grafana_url: str = "",
) -> Moved:
    """Move all rows of Grafana's SQLite database into the MySQL database it has been started on.

    Nothing is written before both sides were looked at cell by cell; losses are refused unless
    accepted by name. The target is dumped first, and undo puts the dump back.

    Args:
        source: Path of grafana.db on the worker, or ssh://user@host/path?host_key=...&key_file=...
        target: mysql://user@host:port/database?password_file=PATH, or the name of a saved block.
        grafana: Unit to stop and start, systemd+ssh://user@host/UNIT; empty if Grafana is stopped.
        skip_tables: Tables to leave out, besides those that only matter to running servers.
        accept: Names of losses to accept, as the refusal prints them.
        dashboards: Folder of dashboard files (JSON) to import at the end; needs grafana_url.
        grafana_url: https://host:port/?token_file=PATH of the moved Grafana.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md.
    """
    mysql, unit = mysql_target(target), systemd_unit(grafana)
    skip = tuple(skip_tables or ())
    copy = KeptCopy(source_file(source), work_folder(), tuple(accept or ()), skip)
    wanted = wanted_dashboards(dashboards, grafana_url)
    preflight.refuse_unless_fit(copy, mysql, skip, copy.accept)
    preflight.refuse_unless_prepared(mysql)
    tables = preflight.tables_due(copy, mysql, skip)
    if unit and tables:
        service.refuse_unless_unit_exists(unit)
        service.stop_grafana(unit)
    cells = _move_rows(copy, mysql, skip) if tables else 0
    if unit:
        service.start_grafana(unit)
        service.grafana_stays_up(unit)
    for dashboard in wanted:
        import_dashboard(dashboard)
    return Moved(len(tables), cells, len(wanted))


def _move_rows(copy: KeptCopy, mysql: MysqlServer, skip: tuple[str, ...]) -> int:
    """Replace the rows of the target by those of the source; return the cells compared."""
    dump = KeptDump(copy.folder)
    kept_copy.take_copy(copy)
    preflight.refuse_unless_still_fit(copy, mysql, skip, copy.accept)
    tables = preflight.tables_to_move(copy, mysql, skip)
    kept_dump.dump_target(mysql, dump)
    kept_dump.prove_dump(mysql, dump)
    loading.raise_fence(mysql, dump)
    for table in tables:
        loading.load_table(mysql, dump, copy, table)
    cells = [loading.every_cell_is_equal(mysql, copy, table) for table in tables]
    kept_copy.source_has_not_changed(copy)
    loading.remove_fence(mysql)
    return sum(cells)
