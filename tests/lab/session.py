"""What a whole test session needs: no settings of this machine, and servers or a reason."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.lab.processes import ServerMissing

Started = TypeVar("Started")
HOME_PREFIX = "lab-prefect-home-"


def isolate_prefect() -> Path:
    """Give Prefect an empty home and none of the settings of this machine; return the home.

    Raises:
        pytest.UsageError: Prefect is imported already, and has read its settings.
    """
    if "prefect" in sys.modules:
        raise pytest.UsageError("Prefect was imported before the tests could isolate it")
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix=HOME_PREFIX))
    os.environ.update(
        PREFECT_HOME=str(home), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1"
    )
    return home


def forget(home: Path) -> None:
    """Remove the home that `isolate_prefect` made."""
    shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def started_or_skipped(
    server: AbstractContextManager[Started], *, is_optional: bool = False
) -> Iterator[Started]:
    """Run a server for the fixture around; where it is not installed, skip, or fail in CI.

    Optional is what the set-up cannot install, such as Kubernetes or Docker: skipped in CI too.
    """
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(server)
        except ServerMissing as missing:
            if os.environ.get("CI", "").lower() == "true" and not is_optional:
                pytest.fail(f"{missing}, and CI must have it", pytrace=False)
            pytest.skip(str(missing))
        yield running
