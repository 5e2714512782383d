"""Parameters as people give them, `--set name=value` and YAML files, turned into typed values."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import PydanticUserError, ValidationError

from operate.nearest import did_you_mean
from recovery.errors import BadInput
from recovery.run import Recovery
from recovery.secrecy.redaction import redact
from recovery.values import shortly, to_plain, type_adapter

OPTIONS = {
    "resume": "recover resume ID",
    "fork": "recover resume ID --set NAME=VALUE",
    "from_step": "recover resume ID --from STEP",
    "plan_only": "recover plan NAME",
    "approve": "--approve HASH",
    "approved_by": "--by NAME",
    "break_glass": "--break-glass REASON",
    "take_over_by": "recover resume ID --take-over --by NAME",
    "undo_by": "recover undo ID --by NAME",
    "undo_reason": "recover undo ID --by NAME --reason TEXT",
    "requested_by": "recover run NAME --by NAME",
    "if_taken": "recover schedules --help",
}
WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    timedelta: "a duration such as 00:10:00 or PT10M",
    datetime: "a moment such as 2026-03-01T09:30:00Z",
    NoneType: "null",
}
LISTS = (list, tuple, set, frozenset, Sequence, Iterable)


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once: of two values the second would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (as declared by PyYAML)
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    None, None, f"{key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def typed_parameters(
    recovery: Recovery,
    settings: Sequence[str] = (),
    file: Path | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a value for every parameter of a recovery.

    Args:
        recovery: whose parameters.
        settings: texts `name=value`; they count more than the file.
        file: a YAML file of names and values.
        recorded: plain values of the recovery that this one goes on from; counts least.

    Raises:
        BadInput: a name, a value or the file is wrong, or a parameter is missing; it is named.
    """
    typed = {
        name: _typed(recovery, name, value, "recorded")
        for name, value in (recorded or {}).items()
        if name in recovery.parameters
    }
    for name, value in (read_parameter_file(file) if file else {}).items():
        typed[name] = _typed(recovery, name, value, f"in {file}")
    for name, text in split_settings(settings).items():
        typed[name] = _typed_from_text(recovery, name, text)
    _refuse_missing(recovery, typed)
    return {name: typed.get(name, default) for name, (_, default) in recovery.parameters.items()}


def typed_values(recovery: Recovery, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a value for each parameter that is given; those left out have a default.

    Args:
        recovery: whose parameters.
        values: values by name, as YAML or JSON has them.
        where: where they were found, for messages.

    Raises:
        BadInput: a name or a value is wrong, or a parameter is missing.
    """
    typed = {str(name): _typed(recovery, str(name), each, where) for name, each in values.items()}
    _refuse_missing(recovery, typed)
    return typed


def split_settings(settings: Sequence[str]) -> dict[str, str]:
    """Take `name=value` texts apart.

    Raises:
        BadInput: one has no name or no `=`, or two are for the same name.
    """
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise BadInput(
                "--set", f"{shortly(setting)} is no name=value", "Write --set name=value"
            )
        if found.setdefault(name.strip(), text) != text:
            raise BadInput(
                name.strip(),
                f"it is set twice, to {shortly(found[name.strip()])} and to {shortly(text)}",
                "Set it once",
            )
    return found


def read_parameter_file(file: Path) -> dict[str, Any]:
    """Read names and values from a YAML file.

    Raises:
        BadInput: it cannot be read, is no YAML, or holds something else.
    """
    field = f"--params {file}"
    try:
        read = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise BadInput(
            field, f"it cannot be read: {error.strerror}", "Name a YAML file that exists"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(field, "it is no UTF-8 text", "Name a YAML file") from error
    except yaml.YAMLError as error:
        raise BadInput(
            field,
            f"it is no valid YAML: {_place_of(error)}",
            "Mend it; it holds `name: value` lines",
        ) from error
    if read is None:
        return {}
    if not isinstance(read, dict):
        raise BadInput(
            field,
            f"it holds {_article(type(read).__name__)}, not names with values",
            "Write `name: value` lines",
        )
    return {str(name): value for name, value in read.items()}


def expected(annotation: Any) -> str:
    """Say in words what a value of this type is."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        words = WORDS[annotation]
    elif origin is Annotated:
        words = expected(arguments[0])
    elif origin in {Union, UnionType}:
        words = " or ".join(expected(each) for each in arguments)
    elif origin is Literal:
        words = "one of " + ", ".join(map(str, arguments))
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        words = "one of " + ", ".join(str(member.value) for member in annotation)
    elif (origin or annotation) in LISTS:
        inner = [each for each in arguments if each is not ...]
        of = f" of {_plural(expected(inner[0]))}" if inner and inner[0] is not str else ""
        words = f"a list{of}, such as [a, b]"
    elif (origin or annotation) in {dict, Mapping}:
        words = "names with values, such as {a: b}"
    else:
        words = _article(type_name(annotation))
    return words


def type_name(annotation: Any) -> str:
    """Write a type as its declaration does, without the modules."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("NoneType", "None")


def described(recovery: Recovery, form: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the parameters of a recovery, as `recover list` prints them.

    Args:
        recovery: whose.
        form: the properties of its form, which hold what its docstring says of each.
    """
    rows = []
    for name, (annotation, default) in recovery.parameters.items():
        row = {"name": name, "type": type_name(annotation), "required": default is ...}
        if default is not ...:
            row["default"] = _plain_or_text(default)
        if text := form.get(name, {}).get("description"):
            row["description"] = text
        rows.append(row)
    return rows


def _refuse_missing(recovery: Recovery, typed: Mapping[str, Any]) -> None:
    missing = [
        name
        for name, (_, default) in recovery.parameters.items()
        if name not in typed and default is ...
    ]
    if missing:
        raise BadInput(
            ", ".join(missing),
            f"{recovery.name} cannot do without {'it' if len(missing) == 1 else 'them'}",
            "Give " + " ".join(f"--set {name}=VALUE" for name in missing),
        )


def _typed(recovery: Recovery, name: str, value: Any, where: str) -> Any:
    annotation = _annotation_of(recovery, name)
    try:
        return type_adapter(annotation).validate_python(value)
    except ValidationError as error:
        remedy = f"Give {expected(annotation)}"
        if isinstance(value, str | list | dict) is False and "text" in remedy:
            remedy += ", in quotes"
        raise BadInput(
            name, f"{_what_is_wrong(annotation, value, error)} ({where})", remedy
        ) from None


def _typed_from_text(recovery: Recovery, name: str, text: str) -> Any:
    annotation = _annotation_of(recovery, name)
    adapter = type_adapter(annotation)
    try:
        if text == "null" and _takes_null(annotation):
            return None
        return adapter.validate_strings(text)
    except (ValidationError, PydanticUserError):
        pass  # no plain text is of this type: it is written as YAML, as lists are
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError:
        value = text
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        with suppress(ValidationError, PydanticUserError, yaml.YAMLError):
            # Numbers in a list of texts are texts: [1, 5, 25%].
            return adapter.validate_python(yaml.load(text, yaml.BaseLoader))
        raise BadInput(
            name, _what_is_wrong(annotation, text, error), f"Give {expected(annotation)}"
        ) from None


def _takes_null(annotation: Any) -> bool:
    return NoneType in get_args(annotation)


def _annotation_of(recovery: Recovery, name: str) -> Any:
    if name in recovery.parameters:
        return recovery.parameters[name][0]
    if name in OPTIONS:
        raise BadInput(name, "it is an option, not a parameter", f"Use `{OPTIONS[name]}`")
    takes = ", ".join(recovery.parameters) or "no parameters"
    raise BadInput(
        name,
        f"{recovery.name} has no such parameter",
        f"{did_you_mean(name, recovery.parameters)}It takes: {takes}",
    )


def _what_is_wrong(annotation: Any, seen: Any, error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    shown = shortly(seen, 120)
    place = ".".join(str(part) for part in problem["loc"])
    if place and get_origin(annotation) not in {Union, UnionType}:
        return f"in {shown}, {redact(place)}: {redact(problem['msg'])}"
    return f"{shown} is not {expected(annotation)}"


def _place_of(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _plain_or_text(value: Any) -> Any:
    try:
        return to_plain(value)
    except TypeError:
        return redact(str(value))


def _plural(words: str) -> str:
    return {"a whole number": "whole numbers", "a number": "numbers"}.get(words, words)


def _article(word: str) -> str:
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"
