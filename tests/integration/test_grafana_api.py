"""Importing dashboards over HTTP, against a stand-in that answers as Grafana 11 documents."""

import json
import pickle
import socket
import threading
import time

import pytest

from blocks.grafana.answer import (
    GrafanaConflict,
    GrafanaLoginRefused,
    GrafanaPermissionMissing,
)
from blocks.grafana.api import GrafanaApi
from blocks.ssh.connection import AnswerLost
from recovery.commands import Call, current_gate
from recovery.errors import CommandFailed, RecoveryError, Unreachable, UnreadableOutput
from tasks import grafana_dashboards
from tasks.grafana_dashboard_files import read_dashboards
from tasks.grafana_dashboards import Presence
from tests.lab.grafana_api import PASSWORD, TOKEN, USER, Reply, stand_in_grafana
from tests.lab.ports import free_port
from tests.lab.sshd import silent_server

PANELS = [{"id": 1, "type": "timeseries", "title": "CPU „Last“ 😀", "gridPos": {"h": 8, "w": 12}}]
NODES = {"id": 7, "uid": "nodes", "title": "Nodes", "version": 1, "panels": PANELS}
OLD = {"title": "Old", "rows": [{"panels": [{"id": 1, "type": "graph"}]}]}


@pytest.fixture
def lab():
    with stand_in_grafana() as grafana:
        yield grafana


@pytest.fixture
def api(lab, monkeypatch):
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    return GrafanaApi(url=lab.url, token_env="GRAFANA_TOKEN", within_seconds=5)  # noqa: S106 - a name


@pytest.fixture
def files(tmp_path):
    for name, content in {"nodes": NODES, "old": OLD}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return read_dashboards(tmp_path)


def test_health_needs_no_login_and_is_true_of_the_database(lab, api):
    assert api.health().is_database_ok
    assert api.health().version == "11.6.4"

    lab.database = "failing"

    assert not api.health().is_database_ok


def test_both_ways_to_log_in_work(lab, api, tmp_path):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "password").chmod(0o600)
    basic = GrafanaApi(url=lab.url, user=USER, password_file=tmp_path / "password")

    assert api.organisation().name == "Main Org."
    assert basic.organisation().org_id == 1


def test_dashboards_are_imported_into_a_new_folder_and_read_back_equal(lab, api, files):
    assert not grafana_dashboards.has_folder(api, "infra")
    grafana_dashboards.create_folder(api, "infra", "Infrastructure")
    assert grafana_dashboards.has_folder(api, "infra")

    for file in files:
        assert grafana_dashboards.dashboard_presence(api, file, "infra") is Presence.ABSENT
        grafana_dashboards.import_dashboard(api, file, "infra")

    for file in files:
        assert grafana_dashboards.dashboard_presence(api, file, "infra") is Presence.SAME
        assert grafana_dashboards.require_dashboard(api, file, "infra").panels_seen == 1
    assert lab.dashboards["nodes"]["dashboard"]["panels"] == PANELS
    assert lab.dashboards["nodes"]["meta"]["folderUid"] == "infra"


def test_an_address_that_is_no_grafana_does_not_count_as_one_without_dashboards(lab, api, files):
    astray = api.model_copy(update={"url": lab.url + "/else"})
    lab.replies["/api/folders/infra"] = Reply(404, "<html>404 Not Found</html>")

    with pytest.raises(CommandFailed, match="sub-path"):
        grafana_dashboards.dashboard_presence(astray, files[0])
    with pytest.raises(CommandFailed, match="sub-path"):
        grafana_dashboards.has_folder(api, "infra")


def test_the_general_folder_is_always_there(lab, api):
    assert grafana_dashboards.has_folder(api, "")
    assert lab.requests == []


def test_a_dashboard_that_is_there_is_not_overwritten_even_where_its_version_fits(lab, api, files):
    lab.dashboards["nodes"] = {
        "meta": {"folderUid": ""},
        "dashboard": {**NODES, "id": 3, "version": 1, "panels": []},
    }

    with pytest.raises(GrafanaConflict, match="order overwriting only if"):
        grafana_dashboards.import_dashboard(api, files[0])

    assert lab.dashboards["nodes"]["dashboard"]["panels"] == []
    grafana_dashboards.import_dashboard(api, files[0], overwrites=True)
    assert lab.dashboards["nodes"]["dashboard"]["panels"] == PANELS
    assert lab.dashboards["nodes"]["dashboard"]["version"] == 2


def test_a_second_folder_of_the_same_uid_is_a_conflict(api):
    grafana_dashboards.create_folder(api, "infra", "Infrastructure")

    with pytest.raises(GrafanaConflict, match="same UID already exists"):
        grafana_dashboards.create_folder(api, "infra", "Else")


def test_a_provisioned_dashboard_is_refused_with_what_grafana_says(lab, api, files):
    lab.dashboards["nodes"] = {"meta": {"provisioned": True}, "dashboard": {**NODES, "version": 1}}

    with pytest.raises(CommandFailed, match="provisioned"):
        grafana_dashboards.import_dashboard(api, files[0], overwrites=True)


def test_a_wrong_token_is_refused_and_not_shown(lab, monkeypatch):
    monkeypatch.setenv("GRAFANA_TOKEN", "glsa_wrong")
    api = GrafanaApi(url=lab.url, token_env="GRAFANA_TOKEN")  # noqa: S106 - a name

    with pytest.raises(GrafanaLoginRefused, match="Unauthorized") as refusal:
        api.organisation()

    assert "glsa_wrong" not in str(refusal.value)


def test_an_account_that_may_not_write_is_told_which_permission_it_lacks(lab, api, files):
    lab.role = "Viewer"

    with pytest.raises(GrafanaPermissionMissing, match="dashboards:create"):
        grafana_dashboards.import_dashboard(api, files[0])


@pytest.mark.parametrize(
    ("reply", "error", "named"),
    [
        (Reply(302, "", {"Location": "/login?t=x"}), GrafanaLoginRefused, "stands in front"),
        (Reply(307, "", {"Location": "https://sso/oauth2/x"}), GrafanaLoginRefused, "sso"),
        (Reply(200, "<html>Sign in</html>"), GrafanaLoginRefused, "a login page answered"),
        (Reply(301, "", {"Location": "https://grafana/"}), CommandFailed, "points to https"),
        (Reply(500, {"message": "database is locked"}), CommandFailed, "Read the log"),
        (Reply(502, "<html>Bad Gateway"), Unreachable, "status 502"),
        (Reply(503, {"message": "shutting down"}), Unreachable, "shutting down"),
        (Reply(429, {"message": "slow down"}), Unreachable, "slow down"),
        (Reply(404, {"message": "Not found"}), CommandFailed, "sub-path"),
        (Reply(418, {"message": "teapot"}), CommandFailed, "teapot"),
        (Reply(200, "{", {"Content-Type": "application/json"}), UnreadableOutput, "cannot read"),
        (Reply(200, {"id": "x"}), UnreadableOutput, "cannot read"),
    ],
)
def test_each_refusal_has_its_own_error_and_remedy(lab, api, reply, error, named):
    lab.replies["/api/org"] = reply

    with pytest.raises(error, match=named) as raised:
        api.organisation()

    again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own bytes
    assert (type(again), str(again)) == (type(raised.value), str(raised.value))
    assert raised.type is error


def test_a_login_is_not_sent_to_where_a_redirect_points(lab, api):
    lab.replies["/api/org"] = Reply(302, "", {"Location": f"{lab.url}/api/else?auth"})

    with pytest.raises(GrafanaLoginRefused):
        api.organisation()

    assert lab.requests == ["GET /api/org"]


def test_a_port_that_is_closed_and_a_server_that_is_silent_are_unreachable(api):
    closed = api.model_copy(update={"url": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(Unreachable, match="refused"):
        closed.health()

    with silent_server() as port:
        silent = api.model_copy(update={"url": f"http://127.0.0.1:{port}", "within_seconds": 0.5})
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"silent for 0\.5 s"):
            silent.health()
        assert time.monotonic() - started < 3


def test_an_answer_that_trickles_for_ever_is_given_up_at_the_deadline(api):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        is_over = threading.Event()

        def trickle():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                while not is_over.wait(0.05):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        threading.Thread(target=trickle, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unreachable, match="did not end"):
            api.model_copy(update={"url": url, "within_seconds": 0.5}).health()
        is_over.set()


def test_an_import_whose_answer_is_lost_may_have_happened_and_is_found_by_looking(lab, api, files):
    lab.loses_answers = True

    with pytest.raises(AnswerLost, match="may have run"):
        grafana_dashboards.import_dashboard(api, files[0])

    lab.loses_answers = False
    assert grafana_dashboards.dashboard_presence(api, files[0]) is Presence.SAME


def test_every_request_passes_the_gate_and_the_plan_shows_what_is_sent(api, files):
    calls: list[Call] = []

    class Recorder:
        def before(self, call):
            calls.append(call)
            if call.is_change:
                raise RecoveryError

        def after(self, call, error):
            pass

    token = current_gate.set(Recorder())
    try:
        assert grafana_dashboards.dashboard_presence(api, files[0]) is Presence.ABSENT
        with pytest.raises(RecoveryError):
            grafana_dashboards.import_dashboard(api, files[0])
    finally:
        current_gate.reset(token)

    look, change = calls
    assert (look.command.split()[0], look.is_change, look.exit_code) == ("GET", False, 404)
    assert "POST" in change.command
    assert "dashboard 'Nodes', uid nodes, 1 panels, sha256 " in change.command
    assert grafana_dashboards.dashboard_presence(api, files[0]) is Presence.ABSENT
