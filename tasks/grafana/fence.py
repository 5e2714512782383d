"""The fence in the target database: a table that says who may write and what was loaded.

Each load runs in one transaction that first locks the fence row and compares its epoch, and last
writes a marker of the table it loaded. So a marker stands exactly where a load was committed, and a
worker that wakes up from a pause finds a newer epoch, or its session ended, and commits nothing.
"""

from typing import Any

from blocks.mysql.session import MysqlSession
from recovery.errors import CommandFailed, Refused
from recovery.walk import Fence

TABLE = "recover_fence"
NO_SUCH_SESSION = 1094
CREATE = (
    "CREATE TABLE IF NOT EXISTS `recover_fence` (item varchar(190) NOT NULL PRIMARY KEY, "
    "recovery_id varchar(64) NOT NULL, epoch bigint NOT NULL, copy_sha256 varchar(64) NOT NULL, "
    "row_count bigint NOT NULL, session_id bigint NOT NULL) "
    "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
)
END_SESSION = "KILL %s /* a session of an earlier attempt, noted in recover_fence */"
RAISE = "REPLACE INTO `recover_fence` VALUES ('fence', %s, %s, '', 0, 0)"
NOTE_SESSION = "REPLACE INTO `recover_fence` VALUES ('session', %s, %s, '', 0, %s)"
NOTE_TABLE = "REPLACE INTO `recover_fence` VALUES (%s, %s, %s, %s, %s, 0)"
LOCK = "SELECT recovery_id, epoch FROM `recover_fence` WHERE item = 'fence' FOR UPDATE"
DROP = "DROP TABLE IF EXISTS `recover_fence`"
IS_SESSION_HERE = "SELECT 1 FROM information_schema.processlist WHERE id = %s AND db = DATABASE()"
IS_THERE = (
    "SELECT 1 FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_name = 'recover_fence'"
)
RAISE_COMMANDS = (CREATE, END_SESSION, RAISE)


def raised(session: MysqlSession) -> Fence | None:
    """Who may write now; `None` where there is no fence."""
    found = _rows(session, "item = 'fence'")
    return Fence(str(found[0][0]), int(found[0][1])) if found else None


def loaded(session: MysqlSession, table: str, fence: Fence) -> tuple[str, int] | None:
    """Hash of the copy this recovery loaded a table from, and its rows; `None` if it did not."""
    found = _rows(session, "item = %s AND recovery_id = %s", f"table:{table}", fence.recovery_id)
    return (str(found[0][2]), int(found[0][3])) if found else None


def refusal(target: str, standing: Fence) -> Refused:
    """Say whose fence stands in the way."""
    return Refused(
        target,
        f"the fence of recovery {standing.recovery_id} (epoch {standing.epoch}) stands there",
        f"See `recover status {standing.recovery_id}`; undo or resume that one first",
    )


def raise_to(session: MysqlSession, fence: Fence) -> None:
    """Let this attempt write and no older one. What an older one has begun is rolled back.

    Raises:
        Refused: a newer attempt, or another recovery, has its fence there.
    """
    session.change(CREATE)
    standing = raised(session)
    if standing is not None and (
        standing.recovery_id != fence.recovery_id or standing.epoch > fence.epoch
    ):
        raise refusal(session.target, standing)
    for row in _rows(session, "item = 'session' AND epoch < %s", fence.epoch):
        _end_session(session, int(row[4]))
    session.change(RAISE, (fence.recovery_id, fence.epoch))


def enter(session: MysqlSession, fence: Fence) -> None:
    """Note the session that is about to load, so that a later attempt can end it."""
    own_id = session.rows("SELECT CONNECTION_ID()")[0][0]
    session.change(NOTE_SESSION, (fence.recovery_id, fence.epoch, own_id))


def lock(session: MysqlSession, fence: Fence) -> None:
    """Hold the fence until this transaction ends.

    Raises:
        Refused: it is not this attempt's any more; nothing of the transaction is committed.
    """
    found = session.rows(LOCK)
    if not found or (str(found[0][0]), int(found[0][1])) != (fence.recovery_id, fence.epoch):
        raise Refused(
            session.target,
            f"the fence is no longer that of recovery {fence.recovery_id}, epoch {fence.epoch}",
            "A newer attempt is at work, or the fence was removed: see `recover status`",
        )


def note_table(session: MysqlSession, fence: Fence, table: str, sha256: str, rows: int) -> None:
    """Mark a table as loaded, in the transaction that loads it."""
    session.change(NOTE_TABLE, (f"table:{table}", fence.recovery_id, fence.epoch, sha256, rows))


def _end_session(session: MysqlSession, session_id: int) -> None:
    # Ids begin anew with the server: only a session on this very database can be the one noted.
    if not session.rows(IS_SESSION_HERE, (session_id,)):
        return
    try:
        session.change(END_SESSION, (session_id,))
    except CommandFailed as error:
        if error.code != NO_SUCH_SESSION:
            raise


def _rows(session: MysqlSession, where: str, *args: object) -> list[tuple[Any, ...]]:
    columns = "recovery_id, epoch, copy_sha256, row_count, session_id"
    if not session.rows(IS_THERE):
        return []
    return session.rows(f"SELECT {columns} FROM `{TABLE}` WHERE {where}", args)  # noqa: S608 (constants)
