"""What the Prefect UI shows of a recovery's parameters: titles with units, and blocks to pick."""

from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from prefect.blocks.core import Block
from pydantic import Field

from recovery.errors import BadInput

UNITS = ("seconds", "minutes", "hours", "days", "mb")
SPELT = {
    "url": "URL", "tls": "TLS", "ca": "CA", "uid": "UID", "env": "environment variable",
    "userdb": "user database", "cronjob": "CronJob", "kubeadm": "kubeadm", "mysql": "MySQL",
    "min": "at least", "max": "at most", "cpu": "CPU",
}  # fmt: skip
# Names that say too little where the code of the flow is not beside them.
TITLES = {
    "accept": "Accept by name",
    "max_fail": "Hosts that may fail",
    "new": "New host",
    "off_host_backup": "Keep an encrypted backup on the worker, too",
    "old": "Old host",
    "old_is_gone": "The old host is gone",
    "within_minutes": "Time limit (minutes)",
    "within_seconds": "Time limit (seconds)",
}


@dataclass(frozen=True)
class Saved:
    """Marks a parameter that takes text, or the name of a saved block: the form offers those."""

    kind: type[Block]


def told_from_reference(schema: dict[str, Any], model: type[Block]) -> None:
    """Extend the schema of a block all of whose fields have defaults, so that it can be picked.

    To Prefect's server a picked block, `{"$ref": ...}`, is either a reference or a block written
    out; where nothing is required it would be both, and is refused. The form sends the field that
    is required here with its default.
    """
    extend: Any = Block.model_config["json_schema_extra"]
    extend(schema, model)
    filled = [name for name, field in schema["properties"].items() if field.get("default")]
    schema["required"] = filled[-1:]


def title_of(name: str) -> str:
    """Write the name of a parameter as the form does: `quiet_seconds` is `Quiet (seconds)`."""
    if name in TITLES:
        return TITLES[name]
    words = name.split("_")
    units = [word for word in words if word in UNITS and word != words[0]]
    text = " ".join(SPELT.get(word, word) for word in words if word not in units)
    unit = f" ({', '.join(units)})" if units else ""
    return f"{text[:1].upper()}{text[1:]}{unit}"


def plain_type(annotation: Any) -> Any:
    """Return the type that the recovery itself takes: a block that was picked comes as its name."""
    return get_args(annotation)[0] if _saved_in(annotation) else annotation


def shown_type(name: str, annotation: Any) -> Any:
    """Return the type that the form is made from: with its title, and with a block to pick."""
    saved = _saved_in(annotation)
    kind = plain_type(annotation) | saved.kind if saved else annotation
    return Annotated[kind, Field(json_schema_extra={"title": title_of(name)})]


def name_of_picked(field: str, value: Any) -> Any:
    """Return the name of a block that was picked in the form; any other value as it is.

    Raises:
        BadInput: the block was never saved, and so has no name.
    """
    if not isinstance(value, Block):
        return value
    name = value._block_document_name  # noqa: SLF001 (Prefect has no other way to ask)
    if not name:
        raise BadInput(field, "this block is not saved", "Save it, then pick it")
    return name


def _saved_in(annotation: Any) -> Saved | None:
    if get_origin(annotation) is not Annotated:
        return None
    return next((one for one in get_args(annotation)[1:] if isinstance(one, Saved)), None)
