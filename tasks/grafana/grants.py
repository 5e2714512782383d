"""What an account may do, as far as `SHOW GRANTS` tells."""

import re

from blocks.mysql.session import MysqlSession
from recovery.errors import Refused

SCRATCH_PATTERN = r"recover\_%"
GRANT = re.compile(r"^GRANT (?P<rights>.+?) ON (?:TABLE )?(?P<where>\S+) TO ", re.IGNORECASE)
ROLE = re.compile(r"^(?:GRANT [^ ]+ TO |SET DEFAULT ROLE )", re.IGNORECASE)


def may_create_scratch(grants: list[str]) -> bool | None:
    r"""Whether databases called `recover_...` may be made; `None` where the grants do not tell.

    Reads lines such as ``GRANT ALL PRIVILEGES ON `recover\_%`.* TO `grafana`@`%` ``.
    """
    is_told = True
    for line in grants:
        found = GRANT.match(line)
        if found is None:
            is_told = is_told and ROLE.match(line) is None  # rights may come by a role
            continue
        rights = {right.strip().upper() for right in found["rights"].split(",")}
        database = found["where"].rpartition(".")[0].strip("`")
        if rights & {"ALL", "ALL PRIVILEGES", "CREATE"} and _covers_scratch(database):
            return True
    return False if is_told else None


def refuse_unless_may_create(session: MysqlSession, user: str) -> None:
    """Refuse an account that may not make the scratch database.

    Raises:
        Refused: it may not; says what to grant.
    """
    grants = [str(row[0]) for row in session.rows("SHOW GRANTS")]
    if may_create_scratch(grants) is False:
        raise Refused(
            session.target,
            f"the account {user} may not make the scratch database in which the dump is proven",
            f"Run GRANT ALL ON `{SCRATCH_PATTERN}`.* TO the account for the time of the migration",
        )


def _covers_scratch(database: str) -> bool:
    """Whether a pattern of a grant covers every name that begins with `recover_`."""
    if database == "*":
        return True
    pattern = re.escape(database).replace(r"\\_", "_").replace("_", ".").replace("%", ".*")
    return database.endswith("%") and re.fullmatch(pattern, "recover_0123456789ab") is not None
