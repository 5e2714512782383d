"""Which tables are moved and which are not, and what the two schemas differ in."""

from dataclasses import dataclass

from tasks.grafana.acceptance import Grade, Hazard
from tasks.grafana.columns import Column
from tasks.grafana.schema import (
    LOG_SUFFIX,
    MigrationLog,
    SourceSchema,
    SourceTable,
    TargetSchema,
    TargetTable,
    guessed_version,
)

OWN_TABLES = frozenset({"recover_fence"})
SKIPPED = {
    "server_lock": "locks of running servers",
    "session": "log-ins of browsers; people log in again",
    "user_auth_token": "log-ins of browsers; people log in again",
    "login_attempt": "failed log-ins of the last minutes",
    "cache_data": "a cache that is filled anew",
    "entity_event": "a queue of search indexing that is filled anew",
    "test_data": "left by Grafana's own tests",
    "sqlite_sequence": "SQLite's own; AUTO_INCREMENT takes its place",
}
UNIFIED_LOG = "unifiedstorage_migration_log"
SECRET_TABLES = frozenset(
    {"secret_keeper", "secret_secure_value", "secret_data_key", "secret_encrypted_value"}
)
ENTERPRISE_TABLES = frozenset(
    {
        "license_token", "report", "report_settings", "report_dashboards", "data_source_acl",
        "data_source_usage_by_day", "data_source_cache", "dashboard_usage_by_day",
        "dashboard_usage_sums", "team_group", "setting", "recording_rules",
        "recording_rules_remote_write", "caching_configuration", "query_caching",
        "user_dashboard_views", "user_stats", "usage_insights",
    }
)  # fmt: skip
SHOWN_NAMES_MAX = 5
SAME_VERSION = (
    "Run the same version and edition on both sides: start the newer one once on a copy of the "
    "SQLite file, without network, and move that copy"
)


@dataclass(frozen=True)
class TablePair:
    """One table that is moved: both sides of it, and the columns they share."""

    source: SourceTable
    target: TargetTable
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """Its name on the server."""
        return self.target.name


@dataclass(frozen=True)
class SkippedTable:
    """One table that is not moved, and why not."""

    name: str
    reason: str
    rows: int


@dataclass(frozen=True)
class SchemaComparison:
    """What is moved, what is not, and what differs."""

    source_version: str
    target_version: str
    copied: tuple[TablePair, ...]
    skipped: tuple[SkippedTable, ...]
    only_in_source: tuple[str, ...]
    only_in_target: tuple[str, ...]
    migrations_only_in_source: tuple[str, ...]
    migrations_only_in_target: tuple[str, ...]
    hazards: tuple[Hazard, ...]

    @property
    def kept(self) -> dict[str, str]:
        """Tables that both sides have and that the target keeps as they are, with the reasons."""
        missing = set(self.only_in_source)
        return {table.name: table.reason for table in self.skipped if table.name not in missing}


def is_of_unified_storage(table: str) -> bool:
    """Whether newer Grafanas keep their dashboards in it: moved as one set or not at all."""
    is_resource = table == "resource" or table.startswith("resource_")
    return (is_resource and not table.endswith(LOG_SUFFIX)) or table in SECRET_TABLES


def reason_to_skip(table: str) -> str:
    """Why a table is not moved; empty for one that is."""
    if table.endswith(LOG_SUFFIX):
        return "tells how the tables of its own side were made"
    return SKIPPED.get(table, "")


def compare_schemas(source: SourceSchema, target: TargetSchema) -> SchemaComparison:
    """Pair the tables by name and find what speaks against moving their rows."""
    theirs = {table.name.lower(): table for table in target.tables if table.name not in OWN_TABLES}
    mine = {table.name.lower(): table for table in source.tables}
    copied: list[TablePair] = []
    skipped: list[SkippedTable] = []
    hazards: list[Hazard] = []
    for name, table in mine.items():
        if reason := reason_to_skip(name):
            skipped.append(SkippedTable(table.name, reason, table.rows))
        elif name in theirs:
            pair, found = _pair(table, theirs[name])
            copied.append(pair)
            hazards += found
        else:
            skipped.append(SkippedTable(table.name, "the target has no such table", table.rows))
            hazards += _missing_table(table)
    only_in_source = tuple(sorted(table.name for n, table in mine.items() if n not in theirs))
    only_in_target = tuple(sorted(table.name for n, table in theirs.items() if n not in mine))
    hazards += _editions(only_in_source, only_in_target)
    hazards += _unified_storage(source, target, tuple(copied))
    ahead, behind = [], []
    names = {log.name for log in source.logs} | {log.name for log in target.logs}
    for log_name in sorted(names - {UNIFIED_LOG}):
        a, b = _log_named(source.logs, log_name), _log_named(target.logs, log_name)
        ahead += [f"{log_name}: {m}" for m in a.applied if m not in set(b.applied)]
        behind += [f"{log_name}: {m}" for m in b.applied if m not in set(a.applied)]
        hazards += _migrations(a, b)
    return SchemaComparison(
        source_version=guessed_version(source.logs),
        target_version=guessed_version(target.logs),
        copied=tuple(sorted(copied, key=lambda pair: pair.name)),
        skipped=tuple(sorted(skipped, key=lambda table: table.name)),
        only_in_source=only_in_source,
        only_in_target=only_in_target,
        migrations_only_in_source=tuple(ahead),
        migrations_only_in_target=tuple(behind),
        hazards=tuple(hazards),
    )


def _log_named(logs: tuple[MigrationLog, ...], name: str) -> MigrationLog:
    return next((log for log in logs if log.name == name), MigrationLog(name, (), ()))


def _pair(source: SourceTable, target: TargetTable) -> tuple[TablePair, list[Hazard]]:
    mine = {column.name.lower(): column for column in source.columns}
    theirs = {column.name.lower(): column for column in target.columns}
    shared = tuple(c for n, c in theirs.items() if n in mine and not c.is_generated)
    hazards = []
    for name, column in theirs.items():
        if name in mine or column.is_generated:
            continue
        must_be_given = not column.has_default and not column.is_nullable
        hazards.append(
            Hazard(
                "no-source-column" if must_be_given else "default-filled",
                f"{target.name}.{column.name}",
                Grade.OBSTACLE if must_be_given and source.rows else Grade.NOTICE,
                source.rows, "", "",
                "the column is in the target alone"
                + (", must have a value and has no default" if must_be_given else ""),
                SAME_VERSION if must_be_given else "",
            )
        )  # fmt: skip
    if target.engine.lower() != "innodb":
        hazards.append(
            Hazard(
                "not-transactional", target.name, Grade.OBSTACLE, 0, "", target.engine,
                f"its engine is {target.engine}, which cannot take back a half-done load",
                f"Run ALTER TABLE `{target.name}` ENGINE=InnoDB",
            )
        )  # fmt: skip
    return TablePair(source, target, shared), hazards


def _missing_table(table: SourceTable) -> list[Hazard]:
    if not table.rows:
        return []
    return [
        Hazard(
            "no-target-table", table.name, Grade.LOSS, table.rows, "", "",
            "the target has no such table, its rows would be lost", SAME_VERSION,
        )
    ]  # fmt: skip


def _editions(only_in_source: tuple[str, ...], only_in_target: tuple[str, ...]) -> list[Hazard]:
    hazards = []
    for names, side in ((only_in_source, "source"), (only_in_target, "target")):
        found = sorted(ENTERPRISE_TABLES.intersection(names))
        if found:
            hazards.append(
                Hazard(
                    "other-edition", side, Grade.LOSS, 0, "", "",
                    f"only the {side} has tables of Grafana Enterprise ({_named(found)})",
                    "Run the same edition on both sides",
                )
            )  # fmt: skip
    return hazards


def _migrations(source: MigrationLog, target: MigrationLog) -> list[Hazard]:
    hazards = []
    for side, log in (("source", source), ("target", target)):
        if log.failed:
            hazards.append(
                Hazard(
                    "failed-migration", f"{side}.{log.name}", Grade.OBSTACLE, len(log.failed), "",
                    log.failed[0], f"migrations of the {side} failed, its schema is half done",
                    "Start Grafana on it until its migrations succeed, then stop it again",
                )
            )  # fmt: skip
    known = set(target.applied)
    ahead = [m for m in source.applied if m not in known]
    tried = {*source.applied, *source.failed}
    behind = [m for m in target.applied if m not in tried]
    shared_last = max((n for n, m in enumerate(source.applied) if m in known), default=-1)
    newer = [m for m in ahead if source.applied.index(m) > shared_last]
    if newer:
        hazards.append(
            Hazard(
                "newer-source", source.name, Grade.LOSS, len(newer), "", newer[0],
                f"the source is newer: the target has not had {_named(newer)}", SAME_VERSION,
            )
        )  # fmt: skip
    if len(ahead) > len(newer):
        retired = [m for m in ahead if m not in newer]
        hazards.append(
            Hazard(
                "retired-migration", source.name, Grade.NOTICE, len(retired), "", retired[0],
                f"the source once had migrations that newer Grafanas dropped ({_named(retired)})",
                "",
            )
        )  # fmt: skip
    if behind:
        hazards.append(
            Hazard(
                "newer-target", target.name, Grade.LOSS, len(behind), "", behind[0],
                "the target is newer: the rows of the source have not been through "
                f"{_named(behind)}, and would never be",
                SAME_VERSION,
            )
        )  # fmt: skip
    return hazards


def _unified_storage(
    source: SourceSchema, target: TargetSchema, copied: tuple[TablePair, ...]
) -> list[Hazard]:
    """Refuse to move part of what belongs together, or to move it where nobody would look."""
    mine, theirs = _log_named(source.logs, UNIFIED_LOG), _log_named(target.logs, UNIFIED_LOG)
    if set(mine.applied) != set(theirs.applied):
        moved, legacy = ("source", "target") if mine.applied else ("target", "source")
        ahead = sorted(set(mine.applied) ^ set(theirs.applied))
        return [
            Hazard(
                "unified-storage", UNIFIED_LOG, Grade.OBSTACLE, len(ahead), "", ahead[0],
                f"the {moved} keeps its dashboards in unified storage and the {legacy} does not: "
                "rows moved as they are would be invisible",
                "Move at one version at most 12.3 and upgrade afterwards, or start the newer "
                "Grafana once on a copy of the SQLite file and move that copy",
            )
        ]  # fmt: skip
    hazards = []
    by_name = {pair.source.name.lower(): pair for pair in copied}
    belonging = [table for table in source.tables if is_of_unified_storage(table.name.lower())]
    if any(table.rows for table in belonging):
        for table in belonging:
            pair = by_name.get(table.name.lower())
            if pair is None or len(pair.columns) != len(table.columns):
                hazards.append(
                    Hazard(
                        "unified-storage", table.name, Grade.OBSTACLE, table.rows, "", "",
                        "tables of unified storage move as one set, and this one differs in the "
                        "target",
                        SAME_VERSION,
                    )
                )  # fmt: skip
    return hazards


def _named(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:SHOWN_NAMES_MAX]))
    left = len(names) - SHOWN_NAMES_MAX
    return f"{shown} and {left} more" if left > 0 else shown
