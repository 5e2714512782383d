"""Repairing a damaged AOF: what it costs, and cutting a copy of it down to what can be read."""

from dataclasses import dataclass

from blocks.ssh import detached as ssh_detached
from blocks.ssh.detached import DetachedCommand
from recovery.errors import Refused
from recovery.steps import act, decision
from recovery.verdict import Danger
from tasks.redis_server import losses, orders, units
from tasks.redis_server.files import AofDamage, aof_damage, tool
from tasks.redis_server.running import is_running
from tasks.redis_server.settings import settings_of
from tasks.redis_server.storage import storage_of
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import PONG, SILENT, Due, Finding, Spoken, ask
from tasks.redis_server.units import RedisUnit

REPAIR_WITHIN_SECONDS = 6 * 3600.0
# Repairs a copy, looks at it again, and only then exchanges the two, by renaming within one folder.
# Cut off between the two renames, the next run finds the repaired one beside an empty place.
REPAIR = """set -eu
cd "$1"
name=$2 file=$3 check=$4
if [ -e "$name" ]; then
  rm -rf "./$name.repaired" "./$name.damaged"
  cp -a --reflink=auto -- "$name" "./$name.repaired"
  case $file in "$name") at=$name.repaired ;; *) at=$name.repaired/${file#"$name"/} ;; esac
  echo y | "$check" --fix "$at"
  "$check" "$at"
  sync -f .
  mv -T -- "$name" "$name.damaged"
fi
mv -T -- "$name.repaired" "$name"
sync -f .
rm -rf "./$name.damaged"
"""


@dataclass(frozen=True)
class Repair:
    """An AOF that is to be repaired.

    Attributes:
        folder: the data folder.
        name: what is exchanged there: the folder of the AOF, or the one file there was before 7.0.
        file: what the tool is given, within the data folder.
        damage: what the tool said before.
    """

    folder: str
    name: str
    file: str
    damage: AofDamage


@decision
def repair_due(server: RedisServer) -> Due:
    """The unit whose AOF is to be repaired; well where it serves, for nothing is due then.

    Raises:
        Refused: it answers otherwise than by PONG.

    Runbook: docs/runbooks/redis.md, step 10.
    """
    unit = units.find_unit(server)
    listeners = server.listeners()
    spoken = ask(server, listeners[0].address) if listeners else Spoken(SILENT)
    if spoken.word == PONG:
        return Due(Finding.WELL, unit.name, unit.process, "it runs and answers")
    if spoken.word != SILENT:
        raise Refused(
            server.label,
            f"it runs and answers ({spoken.word} {spoken.text}): its AOF was loaded, and is not "
            "repaired under it",
            "Start recover-redis instead: it names the cause",
        )
    return Due(Finding.NOT_RUNNING, unit.name, unit.process, str(unit.status))


@decision
def damage_found(server: RedisServer, due: Due, accept: tuple[str, ...]) -> Repair:
    """What is damaged, and how much of it is lost by a repair, which must have been accepted.

    Raises:
        Refused: nothing is damaged, or the loss was not accepted by its name.
        CommandFailed: redis-check-aof is not there.

    Runbook: docs/runbooks/redis.md, step 11.
    """
    unit = units.redis_unit(server.host, due.unit)
    settings = settings_of(server.host, unit.arguments, unit.name)
    storage = storage_of(server.host, settings, unit.user)
    if not settings.is_aof or not storage.aof_path:
        raise Refused(
            server.label,
            f"{settings.file or unit.name} uses no AOF, or there is none in {settings.folder}",
            "Start recover-redis instead: it names the cause",
        )
    damage = aof_damage(server, unit, storage.aof_path)
    if not damage.lost_bytes:
        raise Refused(
            server.label, f"{damage}: there is nothing to repair", "Start recover-redis instead"
        )
    remedy = (
        "A replica or a backup may have them: look there first. A cut-off end is what a power cut "
        "leaves; damage in the middle costs everything behind it"
    )
    loss = losses.Loss(damage.loss, f"{damage}; the rest would be cut off", remedy)
    losses.refuse_losses(server.label, [loss], accept)
    file = storage.aof_path.removeprefix(f"{settings.folder}/")
    return Repair(settings.folder, file.split("/", maxsplit=1)[0], file, damage)


def _repairing(server: RedisServer, due: Due, repair: Repair) -> DetachedCommand:
    unit = units.redis_unit(server.host, due.unit)
    check = tool(unit, "redis-check-aof")
    argv = ("sh", "-c", REPAIR, "repair", repair.folder, repair.name, repair.file, check)
    return DetachedCommand(f"repair-aof-{server.port}", argv, REPAIR_WITHIN_SECONDS)


def repair_commands(server: RedisServer, due: Due, repair: Repair) -> list[str]:
    """What repairs it."""
    return ssh_detached.run_lines(server.host, _repairing(server, due, repair))


def is_repaired(server: RedisServer, due: Due, repair: Repair) -> bool:
    """Whether the AOF is there and can be read to its end."""
    unit = units.redis_unit(server.host, due.unit)
    path = f"{repair.folder}/{repair.file}"
    argv = ["test", "-f", path]
    if server.host.read(argv, within_seconds=20, accept=(0, 1), as_root=True).exit_code:
        return False
    return aof_damage(server, unit, path).lost_bytes == 0


def refuse_while_it_runs(server: RedisServer, due: Due) -> None:
    """Refuse to exchange files under a process that uses them.

    Raises:
        Refused: it runs.
    """
    unit: RedisUnit = units.redis_unit(server.host, due.unit)
    if not unit.status.is_at_rest:
        raise Refused(
            server.label, f"{unit.status}: its files are in use", "Stop the unit, then resume"
        )


@act(
    commands=repair_commands,
    done_when=is_repaired,
    refuse_if=(refuse_while_it_runs,),
    danger=Danger.DESTRUCTIVE,
)
def repair_aof(server: RedisServer, due: Due, repair: Repair) -> None:
    """Cut a copy of the AOF down to what can be read, and put it in the place of the damaged one.

    What is behind the damage is lost to Redis; the whole of it is in the copy that was made before.
    Begun and cut off, it goes on where it was. Done twice, the second finds nothing to repair.

    Raises:
        Refused: the unit runs.
        CommandFailed: redis-check-aof could not repair it; nothing was exchanged.
        Unreachable: no answer; the host goes on with it.

    Runbook: docs/runbooks/redis.md, step 12.
    """
    ssh_detached.run(server.host, _repairing(server, due, repair))


@act(commands=orders.begin_lines, done_when=is_running)
def start_repaired(server: RedisServer, due: Due) -> None:
    """Start the unit on the AOF that was repaired. Done twice, the second does nothing.

    Raises:
        NotVerified: it did not start; carries the error it logged.
        CommandFailed: systemd or sudo said no.
        Unreachable: no answer; systemd goes on starting it.

    Runbook: docs/runbooks/redis.md, step 12.
    """
    orders.begin(server, due)
