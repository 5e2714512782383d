"""A value that cannot be printed, where it comes from, and errors cleaned of what is secret.

The other half, text and plain values, is in `recovery.secrecy.redaction`.
"""

import errno
import hmac
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Self, SupportsIndex

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, SchemaSerializer, core_schema

from recovery.errors import BadInput, Fenced, RecoveryError
from recovery.secrecy.redaction import (
    MASK,
    Unprintable,
    contains_secret,
    isolated_registry,
    redact,
    redact_value,
    register,
)

__all__ = [
    "MASK",
    "ScrubbedError",
    "Secret",
    "contains_secret",
    "isolated_registry",
    "redact",
    "redact_value",
    "scrub",
]

_FILE_BYTES_MAX = 1 << 20
_BUILT_IN_FIELDS = (  # of errors written in C, which keep no `__dict__`
    "filename",
    "filename2",
    "strerror",
    "object",
    "reason",
    "text",
    "msg",
    "name",
    "path",
    "value",
    "code",
)


class Secret(Unprintable):
    """A value that shows as `***` wherever it lands; only `reveal` gives it away.

    Making one makes the value known to redaction in the whole process. It is no string on purpose:
    what needs the value asks for it, and what merely prints gets the mask. It compares in constant
    time, cannot be pickled, and a copy of it is itself.
    """

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):  # callers pass what a YAML file or the environment gave them
            raise BadInput("secret", f"a value of type {type(value).__name__}", "Give it as a text")
        object.__setattr__(self, "_value", value)
        register(value)

    def reveal(self) -> str:
        """The value itself, for the one call that needs it."""
        return self._value

    def __str__(self) -> str:
        """The mask."""
        return MASK

    def __repr__(self) -> str:
        """The mask."""
        return MASK

    def __format__(self, spec: str) -> str:
        """The mask, whatever the format asks for."""
        return MASK

    def __eq__(self, other: object) -> bool:
        """Whether the values are the same, in a time that does not tell where they differ."""
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = (s.reveal().encode("utf-8", "surrogatepass") for s in (self, other))
        return hmac.compare_digest(mine, theirs)

    def __hash__(self) -> int:
        """One number for all secrets: a hash of the value would tell of it."""
        return hash(Secret)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a secret does not change."""
        raise AttributeError(name)

    def __copy__(self) -> Self:
        """Itself: there is no second one."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: there is no second one."""
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse: a pickle is the value in the clear."""
        raise TypeError(
            "a secret cannot be pickled: pass the name of it and read it where it is used"
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take a string or a secret, give the mask."""
        return core_schema.no_info_plain_validator_function(
            cls._validated,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda _: MASK),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A form shows it as a password."""
        return {"type": "string", "format": "password", "writeOnly": True}

    @classmethod
    def _validated(cls, given: Any) -> Self:
        if isinstance(given, cls):
            return given
        if given == MASK:
            raise PydanticCustomError("masked", "this is the mask of a secret, not the secret")
        if not isinstance(given, str):
            if isinstance(given, int | float) and not isinstance(given, bool):
                register(str(given))  # the error quotes it, and is logged
            raise PydanticCustomError("secret_type", "a secret is given as a text")
        return cls(given)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a secret from a file that only its owner (and group) may read.

        One line break at the end is not part of it.

        Raises:
            BadInput: missing, unreadable, open to everybody, too big, no text or empty. Nothing of
                the content is told.
        """
        try:
            with Path(path).open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_FILE_BYTES_MAX + 1)
        except OSError as error:
            why = (
                "there is no such file"
                if error.errno == errno.ENOENT
                else os.strerror(error.errno or 0)
            )
            remedy = "Put the secret there with mode 0600, readable by the user of the worker"
            raise BadInput(str(path), why, remedy) from None
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            seen = f"mode {stat.S_IMODE(mode):04o} opens it to everybody on this machine"
            remedy = (
                "Run chmod 0600 on it (in Kubernetes: defaultMode 0400), and think of a new one"
            )
            raise BadInput(str(path), seen, remedy)
        try:
            value = data.decode()
        except UnicodeDecodeError:
            raise BadInput(str(path), "not UTF-8 text", "Write the secret as text") from None
        value = value[:-2] if value.endswith("\r\n") else value.removesuffix("\n")
        if not value.strip():
            raise BadInput(str(path), "the file is empty", "Write the secret into it")
        if len(data) > _FILE_BYTES_MAX:
            raise BadInput(
                str(path), "bigger than 1 MiB", "Name the file that holds the secret alone"
            )
        return cls(value)

    @classmethod
    def from_env(cls, name: str) -> Self:
        """Read a secret from an environment variable.

        Raises:
            BadInput: not set, or empty.
        """
        value = os.environ.get(name)
        if value is None or not value.strip():
            seen = "not set" if value is None else "set, but empty"
            raise BadInput(name, seen, "Set it in the environment of the worker")
        return cls(value)


# What pydantic looks for when it meets a value it was given no schema for.
Secret.__pydantic_serializer__ = SchemaSerializer(  # type: ignore[attr-defined]
    core_schema.any_schema(
        serialization=core_schema.plain_serializer_function_ser_schema(lambda _: MASK)
    )
)


class ScrubbedError(Exception):
    """Stands for an error that could not be cleaned itself. Fields: its type's name, its text."""

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name, self.text = type_name, text

    def __str__(self) -> str:
        """`type: text`, as the last line of a traceback has it."""
        return f"{self.type_name}: {self.text}"


def scrub(error: BaseException) -> BaseException:
    """Take known secrets out of an error and of all errors it came from or contains.

    Errors are cleaned in place (`args`, attributes, notes) and stay what they are; one that goes on
    showing a secret is replaced by a `ScrubbedError` with its traceback. So raise and store what is
    returned. The locals of the frames in a traceback are left alone: nothing of ours prints them.
    """
    reached = list(_reached_from(error))
    clean: dict[int, BaseException] = {}
    for each in reversed(reached):  # what an error came from before the error itself
        _clean(each, clean)
    for each in reached:
        new, is_silent = clean[id(each)], each.__suppress_context__
        new.__cause__, new.__context__ = (
            None if origin is None else clean[id(origin)]
            for origin in (each.__cause__, each.__context__)
        )
        new.__suppress_context__ = is_silent
    return clean[id(error)]


def _reached_from(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        else:
            fields = (*each.args, *vars(each).values())
            waiting += [field for field in fields if isinstance(field, BaseException)]


def _clean(error: BaseException, clean: dict[int, BaseException]) -> BaseException:
    """Enter into `clean` what stands for the error from now on."""
    if id(error) in clean:
        return clean[id(error)]
    new = error
    _clean_fields(error)
    if isinstance(error, BaseExceptionGroup):
        members = [_clean(member, clean) for member in error.exceptions]
        is_same = all(a is b for a, b in zip(members, error.exceptions, strict=True))
        if contains_secret(error.message):
            new = BaseExceptionGroup(redact(error.message), members)  # an ExceptionGroup if it can
        elif not is_same:
            new = error.derive(members)
    elif _shows_secret(error):
        if isinstance(error, RecoveryError | Fenced) or not isinstance(error, Exception):
            _blank_fields(error)  # the kind of these decides what happens next
        if _shows_secret(error):
            new = ScrubbedError(type(error).__name__, redact(_text_of(error)))
    if new is not error:
        new.__traceback__ = error.__traceback__
        for note in getattr(error, "__notes__", ()):
            new.add_note(note)
    clean[id(error)] = new
    return new


def _clean_fields(error: BaseException) -> None:
    """Redact arguments and attributes where they stand, changing only what holds a secret."""
    if not isinstance(error, BaseExceptionGroup):  # there, they are the members
        error.args = tuple(_clean_field(argument) for argument in error.args)
    psycopg = sys.modules.get("psycopg")  # an error can be one of its only where it was imported
    if psycopg is not None and isinstance(error, psycopg.Error) and error.pgresult is not None:
        from psycopg.pq import DiagnosticField  # noqa: PLC0415

        result = error.pgresult  # behind `diag`: what the server quotes, values of rows among it
        vars(error)["_info"] = {field: result.error_field(field) for field in DiagnosticField}
    for name, value in list(vars(error).items()):
        vars(error)[name] = _clean_field(value)
    for name in _BUILT_IN_FIELDS:
        value = None if name in vars(error) else getattr(error, name, None)
        new = _clean_field(value)
        if new is not value:
            with suppress(AttributeError, TypeError):  # read-only; whether it shows is asked later
                setattr(error, name, new)


def _clean_field(value: Any) -> Any:
    """The value itself if no secret can be seen in it, else a redacted one."""
    if value is None or isinstance(value, BaseException):
        return value
    if not contains_secret(_text_of(value)) and redact_value(value) == value:
        return value
    clean = redact_value(value)
    return redact(_text_of(clean)) if contains_secret(_text_of(clean)) else clean


def _blank_fields(error: BaseException) -> None:
    """The last resort for an error whose kind must stay: its texts make a secret only together."""
    error.args = tuple(MASK if isinstance(field, str) else field for field in error.args)
    vars(error).update({name: MASK for name, v in vars(error).items() if isinstance(v, str)})


def _shows_secret(error: BaseException) -> bool:
    return contains_secret(_text_of(error)) or contains_secret(_text_of(error, repr))


def _text_of(value: object, write: Callable[[object], str] | None = None) -> str:
    write = write or (str if isinstance(value, str | BaseException) else repr)
    try:
        return write(value)
    except Exception:  # noqa: BLE001  # a foreign `__str__` may raise anything at all
        return f"<{type(value).__name__} that cannot be shown>"
