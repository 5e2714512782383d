"""The same for DBOS, run by the interpreter of the peers.

`cost URL STEPS` prints what each step took; `run URL WORLD STEPS` leaves one file for each.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

from dbos import DBOS, SetWorkflowID

logging.disable(logging.CRITICAL)


@DBOS.step()
def nothing(n: int) -> None:
    del n


@DBOS.step()
def make(world: str, n: int) -> None:
    times = 1 + len(list(Path(world).glob(f"{n}.*")))
    os.close(os.open(Path(world) / f"{n}.{times}", os.O_CREAT | os.O_EXCL))


@DBOS.workflow()
def cost(steps: int) -> list[float]:
    seconds = []
    for n in range(steps):
        began = time.perf_counter()
        nothing(n)
        seconds.append(time.perf_counter() - began)
    return seconds


@DBOS.workflow()
def mend(world: str, steps: int) -> None:
    for n in range(steps):
        make(world, n)


def main(what: str, url: str, *rest: str) -> None:
    DBOS(config={"name": "bench", "system_database_url": url, "application_version": "1"})
    DBOS.launch()
    if what == "cost":
        print(json.dumps(cost(int(rest[0]))))
    else:
        with SetWorkflowID("mend"):
            DBOS.start_workflow(mend, rest[0], int(rest[1])).get_result()
    DBOS.destroy()


main(*sys.argv[1:])
