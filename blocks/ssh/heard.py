"""The output of a command as lines, told while it still runs."""

import time
from collections import deque
from collections.abc import Callable

LONG_SECONDS = 2.0  # what changes nothing and ends sooner is told by its answer alone
LINE_BYTES_MAX = 65536  # never cut: half of a secret would not be known as one
EARLY_MAX = 20


class Lines:
    r"""Cuts streams into lines and passes each on; those of a quick look are not told.

    Args:
        hear: is told each line without its end; what was overwritten with `\r` is left out.
        is_at_once: from the first line on, not only after a while.
    """

    def __init__(self, hear: Callable[[str], None] | None, *, is_at_once: bool) -> None:
        self._hear = hear
        self._told_from = time.monotonic() + (0.0 if is_at_once else LONG_SECONDS)
        self._open: dict[str, bytearray] = {}
        self._over: dict[str, int] = {}
        self._early: deque[str] = deque(maxlen=EARLY_MAX)

    def add(self, stream: str, chunk: bytes) -> None:
        """Take in what came next on a stream."""
        if self._hear is None or not chunk:
            return
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._grow(stream, line)
            self._tell(stream)
        self._grow(stream, rest)

    def end(self) -> None:
        """Tell what came last and had no end."""
        for stream in list(self._open):
            if self._open[stream] or self._over.get(stream):
                self._tell(stream)

    def _grow(self, stream: str, part: bytes) -> None:
        line = self._open.setdefault(stream, bytearray())
        if self._over.get(stream) or len(line) + len(part) > LINE_BYTES_MAX:
            self._over[stream] = self._over.get(stream, 0) + len(line) + len(part)
            line.clear()
        else:
            line += part

    def _tell(self, stream: str) -> None:
        line, over = bytes(self._open.pop(stream)), self._over.pop(stream, 0)
        if self._hear is None:
            return
        shown = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
        self._early.append(f"(a line of {over} bytes)" if over else shown)
        if time.monotonic() >= self._told_from:
            while self._early:
                self._hear(self._early.popleft())
