"""Move a Grafana from SQLite to MySQL."""

from dataclasses import dataclass, field

from blocks.kube.cluster import ClusterParameter
from blocks.mysql.server import MysqlParameter, MysqlServer
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.grafana import (
    kept_copy,
    kept_dump,
    loading,
    pods_running,
    preflight,
    reader_pod,
    service,
)
from tasks.grafana.dashboards import import_dashboard, wanted_dashboards
from tasks.grafana.kept_copy import KeptCopy
from tasks.grafana.kept_dump import KeptDump
from tasks.grafana.migration import (
    SystemdUnit,
    mysql_target,
    source_file,
    systemd_unit,
    work_folder,
)
from tasks.grafana.mysql_in_pod import through_pod
from tasks.grafana.pods import GrafanaPods, grafana_pods, move_parts
from tasks.workloads import scaling, waiting


@dataclass(frozen=True)
class Moved:
    """What a move did: tables that were moved, and the cells that were compared and are equal.

    Those without rows on both sides count as moved. Nothing to move is no table and no cell. Tables
    that are not moved are those that both sides have and that the target keeps as they are, each
    with the reason. The dashboards are those imported from files. What is left to a person is to
    have Grafana run on MySQL, since nothing here changes what it is configured for, or to see that
    it does.
    """

    tables_moved: int
    cells_found_equal: int
    dashboard_files_imported: int
    left_to_person: list[str]
    tables_not_moved: dict[str, str] = field(default_factory=dict)


@recovery(
    runbook="docs/runbooks/grafana-sqlite-to-mysql.md",
    target=lambda target: mysql_target(target).label,
    parts=move_parts,
    danger=Danger.DESTRUCTIVE,
)
def move_grafana_to_mysql(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    source: str,
    target: MysqlParameter,
    grafana: str = "",
    skip_tables: list[str] | None = None,
    accept: list[str] | None = None,
    dashboards: str = "",
    grafana_url: str = "",
    cluster: ClusterParameter = "",
    namespace: str = "",
    mysql: str = "",
) -> Moved:
    """Move all rows of Grafana's SQLite database into the MySQL database it has been started on.

    Nothing is written before both sides were looked at cell by cell; losses are refused unless
    accepted by name. The target is dumped first, and undo puts the dump back.

    Args:
        source: Path of grafana.db on the worker, ssh://user@host/path?host_key=...&key_file=..., or
            pod:/path in the container of Grafana.
        target: mysql://user@host:port/database?password_file=PATH, or the name of a saved block.
        grafana: Unit to stop and start, systemd+ssh://user@host/UNIT, or a workload of cluster, as
            deployment/grafana; empty if Grafana is stopped.
        skip_tables: Tables to leave out, besides log-ins, locks, caches and migration logs.
        accept: Names of losses to accept, as the refusal prints them.
        dashboards: Folder of dashboard files (JSON) to import at the end; needs grafana_url.
        grafana_url: https://host:port/?token_file=PATH of the moved Grafana.
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or a saved block; where Grafana runs.
        namespace: Empty: the one of the block or the context.
        mysql: Workload whose pod leads to the target, as deployment/grafanadb-mysql.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md.
    """
    pods = grafana_pods(cluster, namespace, grafana)
    server = through_pod(mysql_target(target), cluster, namespace, mysql)
    skip = tuple(skip_tables or ())
    copy = KeptCopy(source_file(source, pods), work_folder(), tuple(accept or ()), skip)
    wanted = wanted_dashboards(dashboards, grafana_url)
    preflight.refuse_unless_fit(copy, server, skip, copy.accept)
    preflight.refuse_unless_prepared(server)
    tables = preflight.tables_due(copy, server, skip)
    if pods:
        cells = _moved_in_pods(pods, copy, server) if tables else []
    else:
        cells = _moved_on_host(systemd_unit(grafana), copy, server, has_rows=bool(tables))
    for dashboard in wanted:
        import_dashboard(dashboard)
    kept = preflight.tables_not_moved(copy, server, skip)
    return Moved(len(cells), sum(cells), len(wanted), service.left_to_person(grafana), kept)


def _moved_on_host(
    unit: SystemdUnit | None, copy: KeptCopy, mysql: MysqlServer, *, has_rows: bool
) -> list[int]:
    """Stop the unit, move the rows, and start it; return the cells compared in each table."""
    if unit and has_rows:
        service.refuse_unless_unit_exists(unit)
        service.stop_grafana(unit)
    cells = _move_rows(copy, mysql, copy.skip) if has_rows else []
    if unit:
        service.start_grafana(unit)
        service.grafana_stays_up(unit)
    return cells


def _moved_in_pods(pods: GrafanaPods, copy: KeptCopy, mysql: MysqlServer) -> list[int]:
    """Scale Grafana to nothing, read its claim by a pod of our own, and scale it back."""
    found = reader_pod.grafana_found(pods, copy.source.path)
    replicas = scaling.original_replicas(pods.order, found.workload)
    scaling.scale_down(pods.order, found.workload, replicas)
    waiting.no_pods_left(pods.order, found.workload)
    reader_pod.start_reader(pods, found)
    cells = _move_rows(copy, mysql, copy.skip)
    reader_pod.stop_reader(pods)
    pods_running.scale_back(pods, found.workload, replicas)
    waiting.is_out(pods.order, found.workload, pods.order.within_seconds)
    return cells


def _move_rows(copy: KeptCopy, mysql: MysqlServer, skip: tuple[str, ...]) -> list[int]:
    """Replace the rows of the target by those of the source; return the cells of each table."""
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
    return [sum(each.values()) for each in cells]
