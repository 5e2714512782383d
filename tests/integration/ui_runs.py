"""A page of the Prefect UI in a real browser, on a stack that asks approvers for their consent."""

import contextlib
import os
from pathlib import Path

import pytest

from tests.integration.stack_runs import running_stack
from tests.lab.browser import prefect_page
from tests.lab.session import started_or_skipped


@contextlib.contextmanager
def stack_with(rules, folder):
    """Run a stack with these approvers and rules until the end of the block."""
    file = folder / "approvers.yaml"
    file.write_text(rules)
    with running_stack(folder, RECOVER_APPROVERS=str(file)) as stack:
        yield stack


@pytest.fixture
def page(stack):
    with started_or_skipped(prefect_page(stack.ui), is_optional=True) as page:
        yield page


def take(page, name, **height):
    """Take a picture where the docs are to be illustrated anew."""
    if folder := os.environ.get("RECOVER_PICTURES"):
        page.picture(Path(folder) / f"{name}.png", **height)
