"""What is looked at before anything is touched, and what is decided from it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from blocks.mysql.server import MysqlServer
from blocks.mysql.session import quote_name
from recovery.errors import BadInput
from recovery.steps import decision, probe
from recovery.walk import current_fence
from tasks.grafana import fence
from tasks.grafana.acceptance import Grade, Hazard, refuse_unknown, refuse_unless_accepted
from tasks.grafana.client import dump_program, load_program
from tasks.grafana.compare import compare_table
from tasks.grafana.grants import refuse_unless_may_create
from tasks.grafana.hazards import find_hazards
from tasks.grafana.kept_copy import KeptCopy
from tasks.grafana.schema import read_source_schema, read_target_schema
from tasks.grafana.source import SourceCopy, refuse_if_copy_changed
from tasks.grafana.tables import SchemaComparison, SkippedTable, TablePair, compare_schemas

TABLES_OF_EVERY_GRAFANA = frozenset({"org", "user"})
COMPARISONS_KEPT_MAX = 8
ASKED_FOR = "you asked to leave it out"
# Left out, the rest is broken: envelope encryption, permissions by id, markers of migrations.
MUST_MOVE = frozenset(
    {
        "kv_store", "data_keys", "secrets", "data_source", "signing_key", "sso_setting", "role",
        "permission", "builtin_role", "seed_assignment", "user_role", "team_role", "org", "user",
        "provenance_type", "alert_configuration", "preferences", "api_key",
    }
)  # fmt: skip
# Parents first, so that a load that was broken off can be read.
READ_FIRST = ("org", "user", "org_user", "team", "role", "data_keys", "secrets", "data_source")


@dataclass(frozen=True)
class Fitness:
    """What a look at both sides found."""

    comparison: SchemaComparison
    hazards: tuple[Hazard, ...]


@probe
def refuse_unless_fit(
    copy: KeptCopy, target: MysqlServer, skip_tables: Sequence[str], accept: Sequence[str]
) -> None:
    """Refuse what would be lost or go wrong and was not accepted by name.

    Raises:
        Refused: names every hazard with the row that shows it, and what accepts it.
        BadInput: the source is no database of Grafana, or a table to skip does not exist.
        CommandFailed: the server refused the account; asking again cannot help.
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 1.
    """
    refuse_unknown(accept)
    fitness = look_anew(copy.now(), target, skip_tables)
    refuse_unless_accepted(target.label, fitness.hazards, accept)


@probe
def refuse_unless_prepared(target: MysqlServer) -> None:
    """Refuse early what a later step would be refused for, once Grafana is stopped.

    Raises:
        Refused: another recovery's fence stands there, or the account may not make the scratch
            database in which the dump is proven; says what to grant.
        BadInput: the programs that dump and load are not installed on this worker.
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 1.
    """
    dump_program(target)
    load_program(target, target.database)
    with target.connect() as session:
        standing = fence.raised(session)
        if standing is not None and standing.recovery_id != current_fence().recovery_id:
            raise fence.refusal(target.label, standing)
        refuse_unless_may_create(session, target.user)


@probe
def refuse_unless_still_fit(
    copy: KeptCopy, target: MysqlServer, skip_tables: Sequence[str], accept: Sequence[str]
) -> None:
    """Look again at both sides, now with the copy that is loaded: rows may have come since.

    Raises:
        Refused, BadInput, CommandFailed, Unreachable: as of `refuse_unless_fit`.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 4.
    """
    now = copy.now()
    refuse_if_copy_changed(now)
    refuse_unless_accepted(target.label, look_anew(now, target, skip_tables).hazards, accept)


@decision(none_is_fine=True)
def tables_due(copy: KeptCopy, target: MysqlServer, skip_tables: Sequence[str]) -> list[str]:
    """Names of the tables whose rows differ; none means there is nothing to move."""
    now = copy.now()
    due = []
    with target.connect() as session:
        for pair in compared(now, target, skip_tables).copied:
            rows = session.rows(f"SELECT COUNT(*) FROM {quote_name(pair.name)}")[0][0]  # noqa: S608
            if rows != pair.source.rows or not compare_table(now.path, session, pair).is_equal:
                due.append(pair.name)
    return due


@decision
def tables_to_move(copy: KeptCopy, target: MysqlServer, skip_tables: Sequence[str]) -> list[str]:
    """Names of the tables that are moved, in the order in which they are."""
    pairs = compared(copy.now(), target, skip_tables).copied
    rank = {name: place for place, name in enumerate(READ_FIRST)}
    return sorted((pair.name for pair in pairs), key=lambda name: (rank.get(name, 99), name))


@probe
def tables_not_moved(
    copy: KeptCopy, target: MysqlServer, skip_tables: Sequence[str]
) -> dict[str, str]:
    """Tables that both sides have and that stay in the target as they are, each with the reason.

    Raises:
        BadInput: the target has no schema of Grafana any more.
        Unreachable: the server gave no answer.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, what is not moved.
    """
    return compared(copy.now(), target, skip_tables).kept


def look(copy: SourceCopy, target: MysqlServer, skip_tables: Sequence[str]) -> Fitness:
    """What the last look of this attempt found; looks where there was none, as after a resume."""
    known = _looks.get(_about(copy, target, skip_tables))
    return look_anew(copy, target, skip_tables) if known is None else known


def look_anew(copy: SourceCopy, target: MysqlServer, skip_tables: Sequence[str]) -> Fitness:
    """Compare both sides cell by cell as they would be moved."""
    _comparisons.pop(_about(copy, target), None)
    comparison = compared(copy, target, skip_tables)
    with target.connect() as session:
        hazards = [*find_hazards(copy.path, session, comparison), *_left_out(comparison)]
    left_out = {table.name for table in comparison.skipped if table.reason == ASKED_FOR}
    found = Fitness(
        comparison,
        tuple(
            hazard
            for hazard in hazards
            if hazard.kind == "left-out" or hazard.place.split(".", 1)[0] not in left_out
        ),
    )
    _looks.clear()  # one recovery moves one copy: what was seen of others is of no use
    _looks[_about(copy, target, skip_tables)] = found
    return found


def compared(copy: SourceCopy, target: MysqlServer, skip_tables: Sequence[str]) -> SchemaComparison:
    """Pair the tables of both sides, leaving out those named.

    Raises:
        BadInput: the target has no schema of Grafana, or a table to skip is unknown.
    """
    comparison = _compared(copy, target)
    if not {pair.name for pair in comparison.copied} >= TABLES_OF_EVERY_GRAFANA:
        raise BadInput(
            "target",
            f"{target.label} does not hold the tables of a Grafana",
            "Start the same version of Grafana once with this database, then stop it again",
        )
    known = {pair.name for pair in comparison.copied} | {t.name for t in comparison.skipped}
    unknown = sorted(set(skip_tables) - known)
    if unknown:
        raise BadInput(
            "skip_tables",
            f"{', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} no table of the source",
            f"Its tables are: {', '.join(sorted(known))}",
        )
    return replace(
        comparison,
        copied=tuple(pair for pair in comparison.copied if pair.name not in skip_tables),
        skipped=(
            *comparison.skipped,
            *(
                SkippedTable(pair.name, ASKED_FOR, pair.source.rows)
                for pair in comparison.copied
                if pair.name in skip_tables
            ),
        ),
    )


def pair_of(copy: SourceCopy, target: MysqlServer, table: str) -> TablePair:
    """Both sides of one table.

    Raises:
        BadInput: one side does not have it any more.
    """
    for pair in compared(copy, target, ()).copied:
        if pair.name == table:
            return pair
    raise BadInput(table, "the table is not on both sides any more", "Look at both sides again")


_looks: dict[Hashable, Fitness] = {}
_comparisons: dict[Hashable, SchemaComparison] = {}


def _about(copy: SourceCopy, target: MysqlServer, skip_tables: Sequence[str] = ()) -> Hashable:
    """What a look holds for: both sides, and the attempt that looked."""
    attempt = current_fence()
    return attempt.recovery_id, attempt.epoch, copy.sha256, target.label, tuple(skip_tables)


def _compared(copy: SourceCopy, target: MysqlServer) -> SchemaComparison:
    """Read both schemas once for each look: neither changes while rows are moved."""
    key = _about(copy, target)
    known = _comparisons.get(key)
    if known is None:
        source = read_source_schema(copy.path)
        with target.connect() as session:
            known = compare_schemas(source, read_target_schema(session))
        while len(_comparisons) >= COMPARISONS_KEPT_MAX:
            _comparisons.pop(next(iter(_comparisons)))
        _comparisons[key] = known
    return known


def _left_out(comparison: SchemaComparison) -> list[Hazard]:
    return [
        Hazard(
            "left-out",
            table.name,
            Grade.LOSS,
            table.rows,
            "",
            "",
            "you asked to skip it, and the rest does not work without it",
            "Move it, too",
        )
        for table in comparison.skipped
        if table.name in MUST_MOVE and table.rows
    ]
