"""Asking again, side by side, whether what an earlier attempt has done is still so."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from recovery.errors import RecoveryError
from recovery.verdict import Verdict
from recovery.walk import StepCall

PROBES_AT_ONCE = 8


@dataclass
class Staleness:
    """The steps passed over whose probes were asked again and not looked at yet.

    Attributes:
        verdict_of: asks a step's probe.
        settle_one: writes down that a step is no longer so; raises where a person must be asked.
    """

    verdict_of: Callable[[StepCall], Verdict]
    settle_one: Callable[[StepCall, Verdict], None]
    _asked: list[tuple[StepCall, Future[Verdict]]] = field(default_factory=list)
    _stale: list[str] = field(default_factory=list)
    _settled_with: BaseException | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _pool: ThreadPoolExecutor | None = None

    def ask_again(self, call: StepCall) -> None:
        """Begin to ask a step's probe."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(PROBES_AT_ONCE, "staleness")
            context = contextvars.copy_context()
            self._asked.append((call, self._pool.submit(context.run, self.verdict_of, call)))

    def settle(self) -> list[str]:
        """Wait for all answers; return the keys of the steps that must be done again.

        Steps mapped side by side all wait here, and none goes on when one is told not to. A probe
        that nobody answered is asked again when this is called again.
        """
        with self._lock:
            if self._settled_with is not None:
                raise self._settled_with
            asked, self._asked = self._asked, []
            unanswered: RecoveryError | None = None
            for call, future in asked:
                try:
                    verdict = future.result()
                    if verdict is not Verdict.DONE:
                        self.settle_one(call, verdict)
                        self._stale.append(call.key)
                except RecoveryError as error:
                    if not error.is_retried:
                        self._settled_with = error
                        raise
                    self.ask_again(call)
                    unanswered = error
                except BaseException as error:
                    self._settled_with = error
                    raise
            if unanswered is not None:
                raise unanswered
            return self._stale

    def stop_everybody(self, reason: BaseException) -> None:
        """Let nobody go on past `settle` in this walk."""
        with self._lock:
            self._settled_with = reason

    def close(self) -> None:
        """Let go of the probes that have not begun, and wait for the others."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
