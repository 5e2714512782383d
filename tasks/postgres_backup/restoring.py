"""Restoring a backup into a database of the drill's own, and destroying that again."""

from collections.abc import Iterable
from enum import StrEnum

from blocks.postgres.programs import newest_program, place_of, run_on_server, shown
from blocks.postgres.session import PostgresSession, quote_name, quote_text
from recovery.commands import changing
from recovery.errors import CommandFailed, Refused
from recovery.steps import act, decision, undo
from recovery.verdict import Verdict
from recovery.walk import current_fence, step_logger
from tasks.postgres_backup.manifest import manifests, pieces_of, read_manifest
from tasks.postgres_backup.order import DrillOrder

WITHIN_SECONDS = 12 * 3600.0
FOUND = (
    "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = %s"
)
IS_EMPTY = (
    "SELECT NOT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')"
)
LEFT_BEHIND = (
    "SELECT datname FROM pg_database WHERE datname LIKE 'drill\\_%%' "
    "AND shobj_description(oid, 'pg_database') LIKE 'recover drill %%' AND datname <> %s "
    "ORDER BY 1"
)


class ScratchState(StrEnum):
    """What stands under the name of the drill's database."""

    ABSENT = "absent"
    BEGUN = "begun"
    RESTORED = "restored"
    FOREIGN = "foreign"


@decision
def chosen_backup(drill: DrillOrder) -> str:
    """The backup to restore: the one that is named, else the newest from before the incident.

    Raises:
        Refused: there is none, or the folder holds those of several databases and none is named.

    Runbook: docs/runbooks/postgres-backup.md, step 6.
    """
    found = manifests(drill.folder, drill.store)
    if drill.backup:
        found = [manifest for manifest in found if manifest.run_id == drill.backup]
    elif drill.incident_at is not None:
        found = [manifest for manifest in found if manifest.ended_at <= drill.incident_at]
    stores = sorted({manifest.store for manifest in found})
    if len(stores) > 1:
        raise Refused(
            drill.folder.label,
            f"it holds backups of several databases: {', '.join(stores)}",
            "Name one with store=",
        )
    if not found:
        wanted = drill.backup or drill.store or "any database"
        before = f" from before {drill.incident_at}" if drill.incident_at else ""
        raise Refused(
            drill.folder.label,
            f"there is no whole backup of {wanted}{before}",
            "Take one with back-up-postgres, or see what happened to those that were there",
        )
    return found[0].run_id


def mark_of(state: ScratchState) -> str:
    """The comment by which this drill knows its database, and how far it is."""
    return f"recover drill {current_fence().recovery_id}: {state}"


def scratch_state(session: PostgresSession, drill: DrillOrder) -> ScratchState:
    """What stands under the name of the drill's database."""
    found = session.rows(FOUND, (drill.scratch,))
    if not found:
        return ScratchState.ABSENT
    for state in (ScratchState.BEGUN, ScratchState.RESTORED):
        if found[0][0] == mark_of(state):
            return state
    if found[0][0]:
        return ScratchState.FOREIGN
    with drill.server.connect(drill.scratch) as inside:  # killed before it was marked
        return ScratchState.BEGUN if inside.value(IS_EMPTY) else ScratchState.FOREIGN


def drop_line(drill: DrillOrder) -> str:
    """The statement that destroys the drill's database and ends whoever is in it."""
    return f"DROP DATABASE IF EXISTS {quote_name(drill.scratch)} WITH (FORCE)"


def mark_line(drill: DrillOrder, state: ScratchState) -> str:
    """The statement that marks the database as this drill's."""
    return f"COMMENT ON DATABASE {quote_name(drill.scratch)} IS {quote_text(mark_of(state))}"


def create_line(drill: DrillOrder, backup: str) -> str:
    """The statement that makes the database, with the encoding and collation of the original."""
    manifest = read_manifest(drill.folder.manifest_of(backup))
    if manifest is None:
        raise Refused(drill.folder.label, f"the manifest of {backup} is gone", "Bring it back")
    collation = quote_text(manifest.collation)
    return (
        f"CREATE DATABASE {quote_name(drill.scratch)} TEMPLATE template0 "
        f"ENCODING {quote_text(manifest.encoding)} LC_COLLATE {collation} LC_CTYPE {collation}"
    )


def restore_arguments(drill: DrillOrder) -> list[str]:
    """The arguments of pg_restore: nothing that reaches out of the scratch database."""
    return [
        *place_of(drill.server),
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        "--no-publications",
        "--no-subscriptions",
        "--no-tablespaces",
        f"--dbname={drill.scratch}",
    ]


def load_line(drill: DrillOrder, backup: str) -> str:
    """The command that restores."""
    program = shown(newest_program("pg_restore"), restore_arguments(drill))
    return f"{program} < {drill.folder.dump_of(backup)}"


def restore_commands(drill: DrillOrder, backup: str) -> Iterable[str]:
    """What restores a backup; the first only where an earlier attempt broke off."""
    return [
        drop_line(drill),
        create_line(drill, backup),
        mark_line(drill, ScratchState.BEGUN),
        load_line(drill, backup),
        mark_line(drill, ScratchState.RESTORED),
    ]


def is_restored(drill: DrillOrder) -> Verdict:
    """By the mark of the drill's database: half done until pg_restore has ended well."""
    with drill.server.connect() as session:
        state = scratch_state(session, drill)
    return {
        ScratchState.ABSENT: Verdict.NOT_DONE,
        ScratchState.BEGUN: Verdict.HALF_DONE,
        ScratchState.RESTORED: Verdict.DONE,
        ScratchState.FOREIGN: Verdict.HALF_DONE,
    }[state]


def refuse_foreign_scratch(drill: DrillOrder) -> None:
    """Refuse a database of this name that is not this drill's.

    Raises:
        Refused: there is one; it is left alone.
    """
    with drill.server.connect() as session:
        if scratch_state(session, drill) is ScratchState.FOREIGN:
            raise Refused(
                drill.server.label,
                f"there is a database {drill.scratch} that this drill did not make",
                "See whose it is; a new drill takes another name",
            )


@undo
def drop_scratch(drill: DrillOrder) -> None:
    """Destroy the drill's database."""
    refuse_foreign_scratch(drill)
    with drill.server.connect() as session:
        session.change(drop_line(drill))


@act(
    commands=restore_commands,
    done_when=is_restored,
    refuse_if=(refuse_foreign_scratch,),
    undo=drop_scratch,
    redo_half_done=True,
    lasts_until="destroy_scratch",
)
def restore_backup(drill: DrillOrder, backup: str) -> None:
    """Make the drill's own database and restore the backup into it; no other is touched.

    Done twice, what stands is destroyed and made anew. Where pg_restore says no, the database is
    destroyed at once.

    Raises:
        CommandFailed: pg_restore or the server said no.
        Refused: a database of that name is not this drill's, or the dump cannot be decrypted.
        Unreachable: no answer; what was begun is destroyed by a resume, or by the undo.

    Runbook: docs/runbooks/postgres-backup.md, step 7.
    """
    with drill.server.connect() as session:
        if scratch_state(session, drill) is not ScratchState.ABSENT:
            session.change(drop_line(drill))
        session.change(create_line(drill, backup))
        session.change(mark_line(drill, ScratchState.BEGUN))
        try:
            _load(drill, backup)
        except (CommandFailed, Refused) as error:
            step_logger().warning("%s is destroyed: %s", drill.scratch, error)
            session.change(drop_line(drill))
            raise
        session.change(mark_line(drill, ScratchState.RESTORED))


def _load(drill: DrillOrder, backup: str) -> None:
    manifest = read_manifest(drill.folder.manifest_of(backup))
    if manifest is None:
        raise Refused(drill.folder.label, f"the manifest of {backup} is gone", "Bring it back")
    with changing(load_line(drill, backup), drill.server.label) as call:
        run_on_server(
            newest_program("pg_restore"),
            restore_arguments(drill),
            drill.server,
            WITHIN_SECONDS,
            source=pieces_of(drill.folder, manifest),
        )
        call.exit_code = 0


def destroy_commands(drill: DrillOrder) -> Iterable[str]:
    """What destroys the drill's database."""
    return [drop_line(drill)]


def is_destroyed(drill: DrillOrder) -> Verdict:
    """Whether no database of the drill's name is left."""
    with drill.server.connect() as session:
        return Verdict.of(not session.rows(FOUND, (drill.scratch,)))


@act(commands=destroy_commands, done_when=is_destroyed, refuse_if=(refuse_foreign_scratch,))
def destroy_scratch(drill: DrillOrder) -> None:
    """Destroy the database that this drill has made, and end whoever is in it.

    Done twice, the second does nothing.

    Raises:
        CommandFailed: the server said no.
        Unreachable: no answer; it may have been done.

    Runbook: docs/runbooks/postgres-backup.md, step 9.
    """
    with drill.server.connect() as session:
        session.change(drop_line(drill))


def left_behind(drill: DrillOrder) -> list[str]:
    """Databases on the server that other drills have marked and not destroyed."""
    with drill.server.connect() as session:
        return [str(name) for (name,) in session.rows(LEFT_BEHIND, (drill.scratch,))]
