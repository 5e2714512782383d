"""What an object holds at a key, as it stands there: a Secret has it in base64, and never shows."""

import base64
from collections.abc import Mapping
from typing import Any

from blocks.kube import text
from blocks.kube.seen import is_telling
from recovery.secrecy.secret import Secret
from tasks.settings.order import ConfigOrder, ObjectKind

Content = Secret | str
SET_BY_PREFIX = "set-by.recovery-pipelines.io/"
ANNOTATION_NAME_MAX = 63


def standing(order: ConfigOrder, read: Mapping[str, Any]) -> Content | None:
    """What stands at the key of the order; `None` where it is not there. A secret is typed so."""
    data = read.get("data") or {}
    if order.key not in data:
        return None
    return as_typed(order, str(data[order.key]))


def as_typed(order: ConfigOrder, content: Content) -> Content:
    """A content of the order, typed as secret where it gives anything away, and not where not."""
    bare = content.reveal() if isinstance(content, Secret) else content
    return Secret(bare) if order.is_secret and is_telling(bare) else bare


def as_it_stands(order: ConfigOrder, plain: Content) -> Content:
    """A plain value as it is written at the key."""
    if not isinstance(plain, Secret):
        return plain
    if order.kind is not ObjectKind.SECRET:
        return plain
    return in_base64(plain)


def as_it_is_read(order: ConfigOrder, found: Content) -> Content:
    """What a program reads of what stands at the key."""
    if order.kind is not ObjectKind.SECRET:
        return found
    return out_of_base64(found.reveal() if isinstance(found, Secret) else found)


def in_base64(plain: Content) -> Secret:
    """A value as a Secret holds it."""
    bare = plain.reveal() if isinstance(plain, Secret) else plain
    return Secret(base64.b64encode(bare.encode()).decode())


def out_of_base64(found: str) -> Secret:
    """The value that a Secret holds."""
    return Secret(base64.b64decode(found).decode(errors="replace"))


def is_same(one: Content | None, other: Content | None) -> bool:
    """Whether two contents are equal, whichever of them is typed as secret."""
    return _bare(one) == _bare(other)


def pointer(order: ConfigOrder) -> str:
    """Where the key is."""
    return text.pointer_to("data", order.key)


def set_by_name(order: ConfigOrder) -> str:
    """The annotation that says which recovery set the key last."""
    return SET_BY_PREFIX + order.key[:ANNOTATION_NAME_MAX].strip("._-")


def _bare(content: Content | None) -> str | None:
    return content.reveal() if isinstance(content, Secret) else content
