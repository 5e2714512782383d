# ruff: noqa: INP001 - a script of the image, in no package
"""Whether the background services of Prefect in this container are at work; for its health check.

They listen on nothing, but tell Redis every two seconds that they live.
"""

import asyncio
import os
import socket
import sys

from docket import Docket


async def is_at_work() -> bool:
    """Whether the worker of this container has given a sign of life within seconds."""
    async with Docket(name="prefect", url=os.environ["PREFECT_SERVER_DOCKET_URL"]) as queue:
        return any(w.name.startswith(f"{socket.gethostname()}#") for w in await queue.workers())


if __name__ == "__main__":
    sys.exit(not asyncio.run(is_at_work()))
