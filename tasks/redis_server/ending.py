"""Whether a process that was asked to end is at it: it may have woken, and save for a long time."""

import time

from recovery.walk import step_logger
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import HUNG_UP, SILENT, Due, ask

STANDSTILL_SECONDS = 30.0  # of a process that does nothing that can be seen
SAVING_STANDSTILL_SECONDS = 120.0  # of one that has begun to save: its disk may be slow
ENDS_WITHIN_SECONDS = 3 * 3600.0  # as long as it goes on
TOLD_EVERY_SECONDS = 30.0
NOT_AWAKE = {SILENT, HUNG_UP, "BUSY"}
SAVING = "saving"
# What it saves goes to temp-PID.rdb in its folder, and is written a page at a time. A script that
# never ends takes processor time, too, so that this counts only once it saves.
LOOK = r"""
grep -E '^(wchar|write_bytes):' "/proc/$1/io" 2>/dev/null
cd -- "/proc/$1/cwd" 2>/dev/null || exit 0
stat -c 'temp %n %s' -- temp-*.rdb 2>/dev/null
[ -e "temp-$1.rdb" ] || exit 0
echo saving
grep ctxt_switches "/proc/$1/status"
exit 0
"""


class Ending:
    """Looks again and again at a process that was asked to end."""

    def __init__(self, server: RedisServer, due: Due) -> None:
        self._server, self._due = server, due
        self._moved_at = self._told_at = time.monotonic()
        self._ends = self._moved_at + ENDS_WITHIN_SECONDS
        self._seen = self._look()
        self.is_awake = False

    def goes_on(self) -> bool:
        """Whether it is to be waited for: it answers, saves or writes, or did so a moment ago.

        Raises:
            Unreachable: the host gives no answer.
        """
        seen, now = self._look(), time.monotonic()
        self.is_awake = self._answers()
        if seen != self._seen or self.is_awake:
            self._seen, self._moved_at = seen, now
        if now - self._told_at > TOLD_EVERY_SECONDS:
            self._told_at = now
            step_logger().info("it is asked to end, and %s", "saves" if SAVING in seen else "works")
        limit = SAVING_STANDSTILL_SECONDS if SAVING in seen else STANDSTILL_SECONDS
        return now - self._moved_at < limit and now < self._ends

    def _look(self) -> str:
        argv = ["sh", "-c", LOOK, "look", str(self._due.process.pid)]
        return self._server.host.read(argv, within_seconds=20, as_root=True).stdout

    def _answers(self) -> bool:
        listeners = self._server.listeners()
        return bool(listeners) and ask(self._server, listeners[0].address, 1).word not in NOT_AWAKE
