"""Task runs that a lost attempt left behind: nobody else tells the server that they have ended.

The server ends those of a cancelled run itself; those of a crashed one it shows as `Running` for
ever, also when the same run was retried and has recovered since.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from prefect.client.schemas.objects import StateType

from operate.orphans.runs import Runs, SeenRun

WHY = "its process is gone: the state of its flow run, when that crashed, says more"
logger = logging.getLogger("recovery.orphans")


@dataclass
class LeftTasks:
    """Has the task runs of crashed runs shown as crashed, once for each crash.

    It is an embellishment: where it fails, that is logged, and tried again at the next look.
    """

    _ended: set[tuple[str, str]] = field(default_factory=set)
    _failed: set[tuple[str, str]] = field(default_factory=set)

    def end(self, asked: Runs, gone: Iterable[SeenRun]) -> None:
        """See to the runs whose attempt is gone, as far as they are shown as crashed.

        A run that is retried has the same id: one that is not in that crash any more, when it is
        asked for again, is left alone.
        """
        crashes = {(r.run_id, r.state_id) for r in gone if r.state_type is StateType.CRASHED}
        due = (crashes - self._ended) | self._failed
        if not due:
            return
        try:
            runs = asked.of(run_id for run_id, _ in due).values()
            ended = asked.crash_tasks([r for r in runs if (r.run_id, r.state_id) in due], WHY)
        except Exception as error:  # noqa: BLE001 (whatever it is, orphans are still to be seen to)
            if not due <= self._failed:
                logger.warning("task runs of crashed runs stay as they are for now: %s", error)
            self._failed = due
            return
        self._ended, self._failed = crashes, set()
        if ended:
            logger.info("shown as crashed, as their run is: task runs %s", ", ".join(ended))
