"""Blocks as they were loaded last: that the Prefect server is away is told through them as well."""

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable

from prefect.blocks.core import Block
from prefect.settings import get_current_settings

from recovery.secrecy.redaction import redact

LOADED_FOR_SECONDS = 60.0  # from then on it is asked for again, and the old one serves in need
LOADED_WITHIN_SECONDS = 10.0
logger = logging.getLogger("recovery.notices")


class LoadedBlocks:
    """Remembers the blocks of this process, by server and name. Threads may share it.

    Args:
        load: loads one by its `slug/name`.
    """

    def __init__(self, load: Callable[[str], Awaitable[Block]]) -> None:
        self._load = load
        self._known: dict[tuple[str, str], tuple[float, Block]] = {}

    async def get(self, name: str) -> Block:
        """Return a block for one sending; the one of before where no server answers.

        Raises:
            Exception: it was never loaded, and cannot be now; whatever Prefect says of it.
        """
        key = _key(name)
        loaded_at, block = self._known.get(key, (0.0, None))
        if block is None or time.monotonic() - loaded_at > LOADED_FOR_SECONDS:
            try:
                async with asyncio.timeout(LOADED_WITHIN_SECONDS):
                    block = await self._load(name)
                self._known[key] = time.monotonic(), block
            except Exception as error:
                if block is None:
                    raise
                seen = redact(str(error) or type(error).__name__)
                logger.warning("%s is used as it was loaded before: %s", name, seen)
        mine = copy.copy(block)  # what it holds open belongs to the event loop of one sending
        mine.block_initialization()
        return mine

    def doubt(self, name: str) -> None:
        """Have a block loaded anew next time: it failed, and may have been mended meanwhile."""
        if known := self._known.get(_key(name)):
            self._known[_key(name)] = float("-inf"), known[1]


def _key(name: str) -> tuple[str, str]:
    return get_current_settings().api.url or "", name


blocks = LoadedBlocks(Block.aload)
