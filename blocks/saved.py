"""Blocks that a parameter names: saved on the Prefect server, made by the team in its UI."""

import re
from typing import TypeVar

from prefect.blocks.core import Block
from prefect.settings import get_current_settings

from recovery.errors import BadInput

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
B = TypeVar("B", bound=Block)


def saved_block(kind: type[B], name: str, field: str, otherwise: str) -> B:
    """Return the saved block of this kind and name.

    Args:
        kind: the class of the block.
        name: its name, as the UI shows it.
        field: the parameter that names it, for the error.
        otherwise: what else the parameter may hold, as a sentence part: "a mysql:// URL".

    Raises:
        BadInput: no server is configured, or it has no such block.
    """
    remedy = f"Give {otherwise.replace(', nor ', ' or ')}"
    what = f"{kind.get_block_type_name()} block"
    if not NAME.fullmatch(name) or not get_current_settings().api.url:
        raise BadInput(
            field,
            f"it is neither {otherwise} nor, with PREFECT_API_URL set, the name of a {what}",
            remedy,
        )
    try:
        block = Block.load(f"{kind.get_block_type_slug()}/{name}")
    except ValueError as error:
        raise BadInput(
            field,
            f"{name!r} is neither {otherwise} nor the name of a {what}",
            f"{remedy}, or save the block first",
        ) from error
    if not isinstance(block, kind):
        raise BadInput(field, f"block {name!r} is of another type", f"Name a {what}")
    return block
