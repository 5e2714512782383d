"""Who is told of what: a data file that names Prefect's notification blocks, by reference alone."""

import asyncio
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import yaml
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.webhook import Webhook
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recovery.errors import BadInput, Unreachable
from recovery.notices.loaded_blocks import blocks
from recovery.notices.notice import Notice, Occasion
from recovery.secrecy.redaction import redact

NAME = "RECOVER_NOTIFICATIONS"
BLOCK = r"^[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*$"
HTTP_REFUSED_MIN = 400
LOADS_AGAIN_SECONDS = 30.0
logger = logging.getLogger("recovery.notices")


class Channel(BaseModel):
    """One way to people: a block as `slug/name`, and the occasions it is used for (none: all)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: str = Field(pattern=BLOCK)
    occasions: tuple[Occasion, ...] = tuple(Occasion)

    def send(self, notice: Notice) -> None:
        """Send a notice; returns when the other side has answered.

        Raises:
            BadInput: the block is of no kind that can tell anybody anything.
            Unreachable: a webhook answered with an error.
            Exception: whatever the block raises.
        """
        try:
            asyncio.run(self._send(notice))
        except Exception:
            blocks.doubt(self.block)
            raise

    async def _send(self, notice: Notice) -> None:
        block: Any = await blocks.get(self.block)
        if isinstance(block, NotificationBlock):
            with block.raise_on_failure():
                await block.notify(notice.body, notice.subject)
        elif isinstance(block, Webhook):
            answer = await block.call(notice.as_plain())
            if answer.status_code >= HTTP_REFUSED_MIN:
                raise Unreachable(self.block, "a notification", f"HTTP {answer.status_code}")
        else:
            kind = type(block).get_block_type_name()
            raise BadInput(
                NAME, f"{self.block} is a {kind} block", "Name a notification or webhook block"
            )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    channels: tuple[Channel, ...] = ()


def channels() -> tuple[Channel, ...]:
    """The channels of the file that RECOVER_NOTIFICATIONS names; none where it names none.

    Raises:
        BadInput: it cannot be read, or is malformed.
    """
    path = os.environ.get(NAME, "").strip()
    if not path:
        return ()
    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return _File.model_validate(read or {}).channels
    except OSError as error:
        raise BadInput(NAME, f"{path} cannot be read: {error.strerror}", "Mend it") from error
    except (ValueError, yaml.YAMLError) as error:
        raise BadInput(NAME, f"{path}: {_first_flaw(error)}", "See docs/approvals.md") from error


def is_used_for(occasion: Occasion) -> bool:
    """Whether anybody is told on this occasion; not where the file of channels is wrong."""
    try:
        return any(occasion in channel.occasions for channel in channels())
    except BadInput:
        return False


def load_blocks() -> None:
    """Load the block of each channel beside whatever goes on, to have them where no server is.

    For a process that lives long, and tells of the server itself.
    """
    threading.Thread(target=_load_blocks, name="load notification blocks", daemon=True).start()


def _load_blocks() -> None:
    try:
        missing = [channel.block for channel in channels()]
    except BadInput as error:
        logger.warning("nobody is notified: %s", error)
        return
    level = logging.WARNING
    while missing := [name for name in missing if not _is_loaded(name, level)]:
        level = logging.DEBUG  # once is enough
        time.sleep(LOADS_AGAIN_SECONDS)


def _is_loaded(name: str, level: int) -> bool:
    try:
        asyncio.run(blocks.get(name))
    except Exception as error:  # noqa: BLE001 (whatever is wrong with a channel, the others count)
        logger.log(level, "%s cannot be loaded: %s", name, redact(str(error)))
        return False
    return True


def _first_flaw(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split())
