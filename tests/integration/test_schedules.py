"""Schedules brought to a real Prefect server, and a drill that really fires on a worker."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

import flows.postgres_backup  # noqa: F401 (declares the recoveries)
from operate.schedules import wanted
from operate.schedules.applying import apply_schedules, schedules_on_server
from recovery.declare import RECOVERIES, run_plainly
from recovery.drill import read_runs
from recovery.errors import BadInput
from recovery.journal.opening import open_journal
from recovery.run import Options
from tests.integration.toy_recoveries import ROOT
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(240)
DRILL, BACK_UP = "drill-postgres-restore", "back-up-postgres"
NIGHTLY = """
  - name: nightly
    recovery: back-up-postgres
    cron: "30 2 * * *"
    timezone: Europe/Berlin
    active: false
    parameters: {database: "postgresql://a@db:5432/a", folder: /var/backups}
"""


@pytest.fixture
def server(prefect_server, monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_LEASE_SECONDS", "8")
    return prefect_server


@pytest.fixture
def deployments(server, prefect_worker, tmp_path):
    """The deployments of both recoveries, as `prefect deploy` makes them, on the lab's pool."""
    made = []
    for name in (DRILL, BACK_UP):
        flow = server.request("POST", "/flows/", {"name": name})
        variables = {"RECOVER_JOURNAL": str(tmp_path / "journal.sqlite"), "PYTHONPATH": str(ROOT)}
        body = {
            "name": name,
            "flow_id": flow["id"],
            "entrypoint": f"flows.postgres_backup.{name.replace('-', '_')}",
            "work_pool_name": prefect_worker.pool,
            "path": str(ROOT),
            "job_variables": {"env": variables},
        }
        made.append(server.request("POST", "/deployments/", body)["id"])
    yield made
    for deployment in made:
        server.request("DELETE", f"/deployments/{deployment}")


@pytest.fixture
def write(tmp_path):
    def written(entries):
        file = tmp_path / "schedules.yaml"
        file.write_text(f"schedules:{entries or ' []'}")
        return file

    return written


def changes(file):
    return {applied.name: applied.change for applied in apply_schedules(file)}


def test_the_server_is_brought_to_the_file_and_a_second_time_changes_nothing(
    server, deployments, write
):
    drill, backup = deployments
    theirs = {
        "schedule": {"cron": "0 0 1 1 *", "timezone": "UTC"}, "active": False, "slug": "by-hand",
    }  # fmt: skip
    server.request("POST", f"/deployments/{backup}/schedules", [theirs])

    created, again = changes(write(NIGHTLY)), changes(write(NIGHTLY))
    (listed,) = schedules_on_server()
    changed = changes(write(NIGHTLY.replace("30 2", "45 2").replace("/var", "/srv")))
    (known,) = schedules_on_server()
    moved = NIGHTLY.replace(BACK_UP, DRILL).replace(
        'database: "postgresql://a@db:5432/a"', 'server: "postgresql://a@db:5432/a"'
    )
    now_a_drill = changes(write(moved))
    removed = changes(write(""))

    assert (created, again) == ({"nightly": "created"}, {"nightly": "same"})
    assert (listed["recovery"], listed["is_active"]) == (BACK_UP, False)
    assert listed["parameters"]["folder"] == "/var/backups"
    assert changed == {"nightly": "changed"}
    assert (known["when"]["cron"], known["parameters"]["folder"]) == ("45 2 * * *", "/srv/backups")
    assert now_a_drill == {"nightly": "changed"}
    assert removed == {"nightly": "removed"}
    assert schedules_on_server() == []
    left = server.request("GET", f"/deployments/{backup}/schedules")
    assert [schedule["slug"] for schedule in left] == ["by-hand"]
    assert server.request("GET", f"/deployments/{drill}/schedules") == []


def test_what_the_server_cannot_run_is_refused_before_anything_is_made(server, write):
    with pytest.raises(BadInput, match="no deployment of back-up-postgres"):
        apply_schedules(write(NIGHTLY))

    assert schedules_on_server() == []


@pytest.fixture
def backed_up(server, postgres, postgres_dsn, tmp_path):
    """The parameters of a drill that has a backup to restore."""
    database, folder = postgres_dsn.rpartition("/")[2], str(tmp_path / "backups")
    password = quote(str(postgres.password_file))

    def url(name):
        place = f"{postgres.user}@{postgres.host}:{postgres.port}"
        return f"postgresql://{place}/{name}?password_file={password}"

    declared = RECOVERIES[BACK_UP]
    usual = {name: default for name, (_, default) in declared.parameters.items()}
    taken = run_plainly(declared, {**usual, "database": url(database), "folder": folder}, Options())
    assert taken.error is None
    return {"folder": folder, "server": url("lab")}


def test_a_scheduled_drill_fires_on_a_worker_and_shows_its_trend(
    server, deployments, write, monkeypatch, backed_up
):
    # An interval of a minute that is counted from seconds ahead, so that nobody waits for long.
    monkeypatch.setattr(wanted, "EPOCH", datetime.now(UTC) + timedelta(seconds=15))
    entry = f"""
  - name: often
    recovery: {DRILL}
    interval: 1m
    parameters: {json.dumps(backed_up)}
"""

    apply_schedules(write(entry))
    journal = open_journal()
    (run,) = wait_until(
        lambda: [run for run in read_runs(journal, DRILL) if run.is_proof][:1],
        "a scheduled drill to have ended",
        within_seconds=180,
    )
    assert changes(write("")) == {"often": "removed"}

    assert run.rto_seconds
    assert run.rpo_seconds is not None
    flow_run = {"flow_runs": {"deployment_id": {"any_": [deployments[0]]}}}
    runs = server.request("POST", "/flow_runs/filter", flow_run)
    assert any(each["auto_scheduled"] for each in runs)
    wanted_key = {"artifacts": {"key": {"any_": [DRILL]}}}
    artifacts = wait_until(
        lambda: server.request("POST", "/artifacts/filter", wanted_key),
        "the artifact of the drill",
        within_seconds=60,
    )
    assert "data:image/svg+xml;base64," in artifacts[0]["data"]
    assert "| RTO | decide | fetch | restore | verify | RPO |" in artifacts[0]["data"]
