"""The worker of Prefect that took a run: people know workers by their names, not by processes."""

import os

# Prefect 3.8 sets it for each run that a worker starts.
PREFECT_WORKER = "PREFECT__WORKER_NAME"


def this_prefect_worker() -> str:
    """The name of the worker that started this process; empty where a person did."""
    return os.environ.get(PREFECT_WORKER, "")


def worker_told(process: str, prefect_worker: str) -> str:
    """Where an attempt worked, for people; it ends with the process as the lease names it."""
    return f"{prefect_worker} on {process}" if prefect_worker else process
