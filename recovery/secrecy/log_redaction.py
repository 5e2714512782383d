"""Secrets kept out of what leaves the process as it goes: streams, standard output, log records."""

import codecs
import io
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

from recovery.secrecy.redaction import (
    MASK,
    contains_secret,
    known,
    masked,
    redact,
    redact_value,
)

_PLAIN = (str, bytes, int, float, type(None))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class StreamRedactor:
    """Redacts text that comes in pieces, holding back only what may be the start of a secret."""

    def __init__(self) -> None:
        self._held = b""
        self._before = b""  # the last byte shown: whether a short secret is a word depends on it

    def feed(self, chunk: str) -> str:
        """Take the next piece; return what is now known to be safe to show."""
        return self._advance(chunk, is_last=False)

    def finish(self) -> str:
        """The end of the text: return what was held back, redacted."""
        return self._advance("", is_last=True)

    def _advance(self, chunk: str, *, is_last: bool) -> str:
        index = known.index()
        self._held += chunk.encode("utf-8", "surrogatepass")
        while True:
            shift = len(self._before)
            found = index.spans_in(self._before + self._held)
            spans = [(max(0, start - shift), end - shift) for start, end in found if end > shift]
            safe = len(self._held) if is_last else index.start_of_unfinished(self._held)
            for start, end in reversed(spans) if not is_last else ():
                if start < safe < end or end == len(self._held):
                    safe = min(safe, start)
            finished = [span for span in spans if span[1] <= safe]
            if not finished:
                break
            self._held = masked(self._held[:safe], finished) + self._held[safe:]
        shown, self._held = self._held[:safe], self._held[safe:]
        self._before = (self._before + shown)[-1:]
        return shown.decode("utf-8", "surrogatepass")


class ByteStreamRedactor:
    """The same for bytes of UTF-8; bytes that are none come out as the replacement character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = StreamRedactor()

    def feed(self, chunk: bytes) -> str:
        """Take the next piece; return what is now known to be safe to show."""
        return self._text.feed(self._decoder.decode(chunk))

    def finish(self) -> str:
        """The end of the bytes: return what was held back, redacted."""
        return self._text.feed(self._decoder.decode(b"", final=True)) + self._text.finish()


class _RedactingStream(io.TextIOBase):
    """A text stream that redacts on the way to another. It has no `buffer`, which would not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._redactor = StreamRedactor()
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            self._stream.write(self._redactor.feed(text))
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._stream.flush()

    def finish(self) -> None:
        with self._lock:
            self._stream.write(self._redactor.finish())
            self._stream.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors


@contextmanager
def redacting_stdio() -> Iterator[None]:
    """Redact what is printed to standard output and standard error meanwhile.

    What child processes print, and what is written to the file descriptors, is not seen.
    """
    with ExitStack() as stack:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            redacting = _RedactingStream(stream)
            stack.callback(redacting.finish)
            stack.enter_context(redirect(cast("Any", redacting)))
        yield


def install_log_redaction() -> None:
    """Redact every record of every logger in this process, and warnings. Done twice, it is once.

    Records are cleaned between their logger and the handlers, since only there they are complete:
    `extra` is added after the record factory has run. Handlers of Prefect, for the console and for
    the API, get them like all others. The locals that some handlers add to a traceback are read
    from the frames and not seen here.
    """
    if not getattr(logging.Logger.callHandlers, "redacts", False):
        logging.Logger.callHandlers = _redacting_handlers(  # type: ignore[method-assign]
            logging.Logger.callHandlers
        )
    if not getattr(warnings.formatwarning, "redacts", False):
        warnings.formatwarning = _redacting_warnings(warnings.formatwarning)


def _redacting_handlers(call_handlers: Any) -> Any:
    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802
        call_handlers(self, redacted_record(record))

    callHandlers.redacts = True  # type: ignore[attr-defined]
    return callHandlers


def _redacting_warnings(format_warning: Any) -> Any:
    def formatwarning(*args: Any, **kwargs: Any) -> str:
        return redact(format_warning(*args, **kwargs))

    formatwarning.redacts = True  # type: ignore[attr-defined]
    return formatwarning


def redacted_record(record: logging.LogRecord) -> logging.LogRecord:
    """Clean a record in place; one that cannot be cleaned loses all it says. Never raises."""
    try:
        _redact_message(record)
        _redact_error(record)
        _redact_rest(record)
    except Exception as error:  # noqa: BLE001  # logging must never break what it tells about
        place = f"{record.pathname}:{record.lineno}"
        for name in set(vars(record)) - _STANDARD:
            setattr(record, name, MASK)
        record.msg = f"A log record of {place} was withheld: {type(error).__name__} in redaction"
        record.args = record.exc_info = record.exc_text = record.stack_info = None
    return record


def _redact_message(record: logging.LogRecord) -> None:
    if record.args:
        record.args = cast("Any", _redacted_if_needed(record.args))
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001  # reported by the handler, which prints both of these
        record.msg = redact(str(record.msg))
        return
    if contains_secret(message) or contains_secret(str(record.msg)):
        record.msg, record.args = redact(message), None


def _redact_error(record: logging.LogRecord) -> None:
    """Freeze a traceback that shows a secret as redacted text; leave others to the formatters."""
    if record.exc_info and record.exc_info[0] is not None:
        text = "".join(traceback.format_exception(*record.exc_info)).removesuffix("\n")
        if contains_secret(text):
            record.exc_info, record.exc_text = None, redact(text)
    if record.exc_text:
        record.exc_text = redact(record.exc_text)


def _redact_rest(record: logging.LogRecord) -> None:
    """Redact what the caller added, by whichever name, and where the record says it came from."""
    for name, value in list(vars(record).items()):
        if name not in {"msg", "args", "exc_info", "exc_text"} and not isinstance(
            value, int | float
        ):
            setattr(record, name, _redacted_if_needed(value))


def _redacted_if_needed(value: Any) -> Any:
    """The value, or what is left of it; for objects, their text if it shows a secret."""
    if isinstance(value, str):
        return redact(value)
    clean = redact_value(value)
    if contains_secret(repr(clean)) or contains_secret(str(clean)):
        if isinstance(clean, tuple):
            return tuple(_redacted_if_needed(item) for item in clean)
        return redact(str(clean))
    return clean
