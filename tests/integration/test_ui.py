"""The Prefect UI in a real browser: a form filled, a run watched, refused, retried and recovered.

Skipped where Chromium is not installed, also in CI: it is for no recovery, and its 300 MB are more
than all else that the suite needs. `RECOVER_PICTURES=FOLDER` takes the pictures of the docs anew.
"""

from urllib.parse import quote

import pytest

from tests.integration.ui_runs import page as page  # noqa: PLC0414 (the fixture)
from tests.integration.ui_runs import stack_with, take
from tests.lab.cells import compare
from tests.lab.grafana_database import make_grafana_database, make_grafana_mysql_schema
from tests.lab.processes import write_secret

pytestmark = pytest.mark.timeout(900)

FRACTIONS = "truncated-fraction:*"
MOVED = ("dashboard", "data_source", "user", "org", "alert_rule")
RULES = "approvers: {Ada: {}}\nrules: [{danger: destructive}]\n"
PASSWORD = "only-of-this-test"  # noqa: S105 (it is)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stack_with(RULES, tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def target(mariadb, tmp_path):
    """A schema of Grafana, for an account that lacks a right which the move needs."""
    mariadb.create_database("ui")
    with mariadb.connect("ui") as connection:
        make_grafana_mysql_schema(connection)
    mariadb.execute(
        f"CREATE OR REPLACE USER grafana IDENTIFIED BY '{PASSWORD}'",
        "GRANT ALL ON ui.* TO grafana",
    )
    write_secret(tmp_path / "password", PASSWORD)
    file = quote(str(tmp_path / "password"), safe="/")
    yield f"mysql://grafana@{mariadb.host}:{mariadb.port}/ui?password_file={file}"
    mariadb.execute("DROP USER grafana", "DROP DATABASE ui")


def test_a_form_is_filled_a_run_is_refused_and_its_retry_moves_every_row(
    stack, page, mariadb, target, tmp_path
):
    source = tmp_path / "grafana.db"
    make_grafana_database(source, dashboards=30)
    wanted = {"Source": str(source), "Target": target}

    fill(page, wanted)
    page.switch_on("Plan only, change nothing")
    page.field("Source").scroll_into_view_if_needed()
    take(page, "form")
    planned = page.submit()
    page.shows_state("Planned")
    fill(page, {**wanted, "Approval: hash of the plan": plan_hash(stack, planned)})
    page.fill("Approval: your name", "Ada")
    run = page.submit()
    page.shows_state("Refused")
    take(page, "refused")
    mariadb.execute("GRANT ALL ON `recover\\_%`.* TO grafana")  # as the page says
    page.retry()
    page.shows_state("Recovered")
    page.open_tasks(run)
    take(page, "recovered")

    assert stack.ask("GET", f"/flow_runs/{run}").json()["run_count"] == 2
    with mariadb.connect("ui") as connection:
        compared = compare(source, connection, MOVED, tolerate=[FRACTIONS])
    assert compared.rows > 30
    assert not compared.differences


def test_the_only_approver_there_is_consents_in_the_form(stack, page, mariadb, target, tmp_path):
    source = tmp_path / "grafana.db"
    make_grafana_database(source, dashboards=3)
    mariadb.execute("GRANT ALL ON `recover\\_%`.* TO grafana")
    fill(page, {"Source": str(source), "Target": target})
    page.submit()
    page.shows_state("Suspended")

    page.answer(
        {
            "Decision": "approve",
            "Your name": "Ada",
            "Confirm": f"mysql://{mariadb.host}:{mariadb.port}/ui",
            "Reason": "a rehearsal",
        }
    )

    page.shows_state("Recovered")
    take(page, "approved")


def fill(page, fields):
    """Fill the form of the move."""
    page.open_form("move-grafana-to-mysql")
    for title, text in fields.items():
        page.fill(title, text)
    page.add_to_list("Accept", FRACTIONS)


def plan_hash(stack, run_id):
    """Return the hash that the plan's artifact is named by."""
    body = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
    (artifact,) = stack.ask("POST", "/artifacts/filter", body).json()
    return artifact["key"].removeprefix("plan-")
