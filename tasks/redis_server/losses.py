"""What a restart would lose: worked out before it is done, from what the server says of itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recovery.errors import BadInput, Refused
from tasks.redis_server.settings import ON_SIGTERM, Settings
from tasks.redis_server.status import Info

MEMORY_ONLY = "memory-only"
NO_COPY = "no-copy"
SINCE_LAST_SAVE = "since-last-save"
LAST_SECOND = "aof-last-second"
STOP_WITHOUT_SAVE = "stop-without-save"
NO_FILES = "no-files"
NEWER_DUMP = "newer-dump"
AOF_BYTES = "aof-bytes:"
ACCEPTABLE = (
    MEMORY_ONLY, NO_COPY, SINCE_LAST_SAVE, LAST_SECOND, STOP_WITHOUT_SAVE, NO_FILES, NEWER_DUMP,
)  # fmt: skip
KEPT_BY_FILE = ("folder", "rdb", "is_aof", "aof", "aof_folder")
SAVES_IN_TIME = 0.5  # of what systemd allows: the next save may take longer than the last


@dataclass(frozen=True)
class Loss:
    """What would be lost. One without a name cannot be accepted."""

    name: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """The name, where there is one, and what is lost."""
        return f"{self.name}: {self.what}" if self.name else self.what


@dataclass(frozen=True)
class Terms:
    """How systemd treats the process: seconds for it to stop and to start, and what then."""

    stop_within_seconds: float
    start_within_seconds: float
    kills_at_the_end: bool
    stops_otherwise: str = ""  # how, where a stop is more than SIGTERM and waiting


def losses(info: Info, running: Settings, on_file: Settings, terms: Terms) -> list[Loss]:
    """What a stop by SIGTERM and a start by the configuration file would lose. Unknown counts."""
    found = [
        *_not_written(info, running),
        *_not_saved_by_the_stop(info, running, on_file, terms),
        *_other_files(running, on_file),
        *_other_role(info, on_file),
    ]
    if info.is_cluster and info.is_master:
        found.append(
            Loss("", "it is a master of a Redis Cluster, and its slots would be away",
                 "`CLUSTER FAILOVER` at one of its replicas first, then restart it as replica")
        )  # fmt: skip
    took = max(0, info.last_save_seconds)
    if terms.kills_at_the_end and took > terms.stop_within_seconds * SAVES_IN_TIME:
        found.append(
            Loss("", f"its last save took {took} s, and systemd kills it after "
                     f"{terms.stop_within_seconds:g} s, in the middle of the next one",
                 "Set TimeoutStopSec=infinity for the unit (`systemctl edit`), then resume")
        )  # fmt: skip
    if took > terms.start_within_seconds * SAVES_IN_TIME:
        found.append(
            Loss("", f"its last save took {took} s, loading takes as long, and systemd ends a "
                     f"start after {terms.start_within_seconds:g} s, again and again",
                 "Set TimeoutStartSec=infinity for the unit (`systemctl edit`), then resume")
        )  # fmt: skip
    return found


def _not_written(info: Info, running: Settings) -> Iterable[Loss]:
    is_copy = not info.is_master and info.is_link_up  # its master has all of it
    if not running.is_persistent and not is_copy:
        keys = f"{info.total_keys} keys"
        if info.replicas_online:
            yield Loss(
                "",
                f"neither AOF nor save points are configured: it would come back without what was "
                f"written since the save of this recovery, and its {info.replicas_online} replicas "
                f"would copy that ({keys})",
                "`CONFIG SET appendonly yes` and wait for the rewrite, then resume",
            )
        else:
            yield Loss(
                MEMORY_ONLY,
                f"neither AOF nor save points are configured: {keys} are in memory only. A save is "
                "made first; what is written after it is lost",
                "`CONFIG SET save '3600 1'` makes it save when it stops, or accept the loss",
            )
    if not info.aof_write_is_ok:
        yield Loss("", "the AOF cannot be written", "See its log and its disk, then resume")
    if not info.last_save_is_ok and not is_copy:
        yield Loss(
            "",
            f"the last save failed and {info.changes_unsaved} changes are unsaved: it would not "
            "stop, or would be killed",
            "See its log and its disk, then resume",
        )


def _not_saved_by_the_stop(
    info: Info, running: Settings, on_file: Settings, terms: Terms
) -> Iterable[Loss]:
    """What is written between the save of this recovery and a stop that does not save."""
    if not info.is_master and info.is_link_up:
        return
    hasty = [said.on_sigterm for said in (running, on_file) if said.is_hasty]
    if hasty and not running.is_aof:  # a stop writes the AOF out, whatever it is told
        yield Loss(
            STOP_WITHOUT_SAVE,
            f"`{ON_SIGTERM} {hasty[0]}` makes it stop without a save, or although one failed: "
            "what is written after the save of this recovery would be lost",
            f"`CONFIG SET {ON_SIGTERM} default`, and so in its file, then resume",
        )
    if terms.stops_otherwise:
        yield Loss(
            STOP_WITHOUT_SAVE,
            f"its unit stops it by {terms.stops_otherwise}, so that it need not save: what is "
            "written after the save of this recovery would be lost",
            "`systemctl edit` the unit: KillSignal=SIGTERM, and no ExecStop that kills or says "
            "nosave; then resume",
        )


def _other_files(running: Settings, on_file: Settings) -> Iterable[Loss]:
    differing = [
        f"{name} is {getattr(running, name)}, in the file {getattr(on_file, name)}"
        for name in KEPT_BY_FILE
        if getattr(running, name) != getattr(on_file, name)
    ]
    if differing:
        yield Loss(
            "",
            f"it runs with other settings than {on_file.file or 'its start command'} has, so that "
            f"it would load other files: {'; '.join(differing)}",
            "Decide which is right; `CONFIG REWRITE` writes the running ones, then resume",
        )
    if running.save_points and not on_file.is_persistent:
        yield Loss(
            "",
            "it saves now, and would not any more after a restart",
            "`CONFIG REWRITE` writes the running settings, then resume",
        )


def _other_role(info: Info, on_file: Settings) -> Iterable[Loss]:
    remedy = "`CONFIG REWRITE` writes the role it has now, then resume"
    if info.is_master and on_file.replica_of:
        what = f"it is a master, and would come back as replica of {on_file.replica_of}, whose data"
        yield Loss("", f"{what} would replace its own", remedy)
    if not info.is_master and not on_file.replica_of:
        what = f"it is a replica of {info.master}, and would come back as a master beside that one"
        yield Loss("", what, remedy)


def refuse_losses(target: str, found: Sequence[Loss], accepted: Iterable[str]) -> None:
    """Refuse what would be lost and was not accepted by name.

    Raises:
        Refused: something would.
    """
    names = set(accepted)
    left = [loss for loss in found if not loss.name or loss.name not in names]
    if not left:
        return
    named = [loss.name for loss in left if loss.name]
    told = f"; to accept it, name it in accept_loss: {', '.join(named)}" if named else ""
    raise Refused(
        target,
        "; ".join(str(loss) for loss in left),
        "; ".join(loss.remedy for loss in left) + told,
    )


def checked_names(accept: Iterable[str] | None) -> tuple[str, ...]:
    """The names of losses that a person accepts.

    Raises:
        BadInput: one is unknown; a name of something else would be accepted unseen.
    """
    names = tuple(accept or ())
    for name in names:
        digits = name.removeprefix(AOF_BYTES)
        if name not in ACCEPTABLE and not (name.startswith(AOF_BYTES) and digits.isdigit()):
            raise BadInput(
                "accept_loss",
                f"{name!r} is no loss of Redis",
                f"Known: {', '.join(ACCEPTABLE)}, {AOF_BYTES}NUMBER",
            )
    return names
