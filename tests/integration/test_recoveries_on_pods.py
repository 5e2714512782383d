"""Recoveries of services whose pods really run: what their processes see afterwards.

An ordinary run has one of each kind; FAULTS=all has them all.
"""

import pytest

import flows.mongodb  # noqa: F401 (declares recoveries)
import flows.volumes  # noqa: F401 (declares a recovery)
from recovery.secrecy.secret import isolated_registry
from recovery.stage import PlainStage
from tests.faults.conftest import IS_WHOLE
from tests.integration.client_secret_runs import KEY, Platform
from tests.integration.config_runs import Settings, encoded
from tests.integration.datasource_runs import Datasources
from tests.integration.login_runs import RIGHT, WRONG, keycloak_on
from tests.integration.metrics_runs import POINTS, Metrics
from tests.integration.pods_runs import (
    BACKS_UP,
    KeycloakInPods,
    MongodbInPods,
    Services,
    VolumesInPods,
    telegraf,
)
from tests.lab.grafana_api import stand_in_grafana
from tests.lab.keycloak import CLIENT, REALM, lab_keycloak
from tests.lab.keycloak_server import WITH_PREFIX
from tests.lab.processes import made_up_password, scratch_directory, wait_until

pytestmark = pytest.mark.timeout(400)
whole_only = pytest.mark.skipif(not IS_WHOLE, reason="with FAULTS=all")
CONFIG = [{"configMapRef": {"name": "divoc-config"}}]
LIMIT, SMS = "CERTIFICATE_UPDATE_LIMIT", "SMS_AUTH_KEY"
WRITTEN = 'SELECT count("cpu_usage_nanocores") FROM "kubernetes_pod_container"'
OLD_KEY, OLD_SECRET = "0ld-key-0f-the-lab", "0ld-0f-the-lab-23"  # which a script need not encode
# A service of DIVOC: it is ready once Keycloak has given it a token for the secret it has.
LOGS_IN = (
    "form=grant_type=client_credentials; "
    f'wget -q -O /tmp/token --post-data "$form&client_id={CLIENT}&client_secret=${KEY}" '
    f'"$KEYCLOAK_URL/realms/{REALM}/protocol/openid-connect/token" || echo "401 from Keycloak"; '
    "grep -q access_token /tmp/token && touch /tmp/up; exec sleep 100000"
)


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setattr("recovery.declare.PlainStage", lambda: PlainStage((0.1, 0.2)))
    with isolated_registry():
        yield


@pytest.fixture
def folder():
    """A folder of this machine that pods mount."""
    with scratch_directory("podsdata") as made:
        yield made


@pytest.fixture
def mongodb(pods_kubernetes, folder):
    api = pods_kubernetes
    return MongodbInPods(api, api.namespace("mongodb"), replicas=2, folder=folder)


@pytest.fixture
def volumes(pods_kubernetes, folder):
    return VolumesInPods(pods_kubernetes, pods_kubernetes.namespace("volumes"), folder)


@pytest.fixture
def services(pods_kubernetes):
    return Services(pods_kubernetes, pods_kubernetes.namespace("divoc"))


@pytest.fixture
def settings(services, tmp_path):
    """DIVOC's settings, and the two services that read a key of them."""
    made = Settings(services.api, services.namespace, tmp_path)
    made.config_map(data={LIMIT: "100", SMS: OLD_KEY, "ENABLE_SMS": "true"})
    for name in ("vaccination-api", "notification-service"):
        services.deploy(name, envFrom=CONFIG)
    services.wait_until_out("vaccination-api", "notification-service")
    return made


def test_a_restore_runs_once_while_no_client_writes_and_all_come_back(mongodb):
    (mongodb.data / "document-1").write_text("as it was\n")
    mongodb.deploy()
    (mongodb.backup / "document-1").write_text("from the backup\n")
    (mongodb.backup / "document-2").write_text("from the backup\n")

    ended = mongodb.restore(take_backup_first=False)

    assert ended.error is None, ended.error
    (restored,) = ended.result.restores
    assert (restored.restored, restored.failed) == (2, 0)
    restored_now = {"document-1": "from the backup", "document-2": "from the backup"}
    found = mongodb.documents()
    assert {name: found[name] for name in restored_now} == restored_now
    assert mongodb.is_well()
    assert mongodb.starts("mongorestore") == 1


@whole_only
def test_a_restore_backs_up_what_there_is_and_restores_just_that(mongodb):
    (mongodb.data / "document-1").write_text("as it was\n")
    mongodb.deploy()

    ended = mongodb.restore()

    assert ended.error is None, ended.error
    assert ended.result.backup.log[-1].split("as nobody: done dumping ")[1] == "3 files"
    assert ended.result.restores[0].restored == 3
    assert mongodb.documents()["document-1"] == "as it was"
    assert mongodb.is_well()


@whole_only
def test_a_restore_whose_archive_is_missing_leaves_the_clients_down_and_says_so(mongodb):
    mongodb.deploy()

    ended = mongodb.restore(take_backup_first=False)

    assert "Every client stays at 0 replicas" in str(ended.error), ended.error
    assert mongodb.client()["spec"]["replicas"] == 0
    undone = mongodb.restore(
        options={"resume": ended.recovery_id, "undo_by": "kim"}, take_backup_first=False
    )
    assert undone.error is None, undone.error
    wait_until(mongodb.is_well, "the client to be well again", within_seconds=120)


@whole_only
def test_a_backup_is_proven_with_its_credentials_and_then_runs_by_its_schedule(mongodb, tmp_path):
    mongodb.cronjob("mongobackup", BACKS_UP, secret="dbbackup-creds")  # noqa: S106 (its name)
    (mongodb.data / "document-1").write_text("as it was\n")
    file = tmp_path / "credentials.txt"
    file.write_text(
        f"export AZURE_STORAGE_ACCOUNT=backups\nexport AZURE_STORAGE_KEY={encoded('k' * 64)}\n"
    )
    file.chmod(0o600)

    ended = mongodb.enable_backup(
        credentials_file=str(file), backup_schedule="* * * * *", backup_within_seconds=120
    )

    assert ended.error is None, ended.error
    assert "as backups: done dumping 1 files" in ended.result.proof.log[-1]
    wait_until(
        lambda: mongodb.starts("mongobackup") > 1, "a run by the schedule", within_seconds=120
    )


@pytest.mark.parametrize("is_local", [pytest.param(True, marks=whole_only), False])
def test_what_was_written_to_a_released_volume_is_there_again(volumes, is_local):
    old = volumes.local("old") if is_local else volumes.volume("old")
    volumes.claim("data", old)
    (volumes.folder / old / "canary").write_text("before the undeploy\n")
    volumes.remove_claim("data")
    volumes.wait_for_phase(old, "Released")
    volumes.bound("new", "data")
    volumes.run_on("data")
    assert volumes.in_pod("k8s-app", "web", "ls", "/data") == ""

    ended = volumes.run(old, within_seconds=120)

    assert ended.error is None, ended.error
    assert volumes.in_pod("k8s-app", "web", "cat", "/data/canary") == "before the undeploy"
    if not IS_WHOLE:
        return
    undone = volumes.run(
        old, options={"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"},
        within_seconds=120,
    )  # fmt: skip
    assert undone.error is None, undone.error
    assert volumes.in_pod("k8s-app", "web", "ls", "/data") == ""
    assert (volumes.folder / old / "canary").read_text() == "before the undeploy\n"


@whole_only
def test_a_stateful_set_finds_its_old_data_under_its_own_claim(volumes):
    old = volumes.volume("old")
    volumes.claim("data-db-0", old)
    (volumes.folder / old / "canary").write_text("before the undeploy\n")
    volumes.remove_claim("data-db-0")
    volumes.wait_for_phase(old, "Released")
    volumes.volume("new")
    volumes.run_set_on_template()

    ended = volumes.run(
        old, "statefulset/db", was="data-db-0", accept=["replaced-claim:data-db-0"],
        within_seconds=120,
    )  # fmt: skip

    assert ended.error is None, ended.error
    assert volumes.in_pod("app", "db", "cat", "/data/canary") == "before the undeploy"


def test_the_limit_is_raised_for_the_process_that_counts(services, settings):
    other = services.pod("notification-service")["metadata"]["uid"]
    assert services.environment("vaccination-api")[LIMIT] == "100"

    ended = settings.run("raise-certificate-update-limit", limit=250, within_seconds=120)

    assert ended.error is None, ended.error
    assert services.environment("vaccination-api")[LIMIT] == "250"
    assert services.pod("notification-service")["metadata"]["uid"] == other
    assert services.environment("notification-service")[LIMIT] == "100"


@whole_only
def test_a_new_sms_key_is_in_the_process_that_sends(services, settings):
    other = services.pod("vaccination-api")["metadata"]["uid"]
    new = made_up_password()

    ended = settings.run("rotate-sms-key", key_file=settings.file(new), within_seconds=120)

    assert ended.error is None, ended.error
    assert services.environment("notification-service")[SMS] == new
    assert services.pod("vaccination-api")["metadata"]["uid"] == other
    undone = settings.undo(ended, "rotate-sms-key", key_file=settings.file(new), within_seconds=120)
    assert undone.error is None, undone.error
    assert services.environment("notification-service")[SMS] == OLD_KEY


@whole_only
def test_a_value_that_a_process_does_not_start_with_is_taken_back_under_an_approved_plan(
    services, settings
):
    needs = 'test "$REGISTRY_URL" = http://registry && touch /tmp/up; exec sleep 100000'
    settings.config_map("urls", data={"REGISTRY_URL": "http://registry"})
    services.deploy("certificate-api", needs, envFrom=[{"configMapRef": {"name": "urls"}}])
    services.wait_until_out("certificate-api")
    before = services.pod("certificate-api")["metadata"]["uid"]
    given = {"config": "configmap/urls", "key": "REGISTRY_URL", "value": "http://registri"}
    planned = settings.run(options={"plan_only": True}, **given)

    consent = {"approve": planned.plan.hash, "approved_by": "kim"}
    ended = settings.run(options=consent, **given)

    assert "the value was put back" in str(ended.error)
    assert settings.value("REGISTRY_URL", "urls") == "http://registry"
    services.wait_until_out("certificate-api")
    assert services.pod("certificate-api")["metadata"]["uid"] == before


def test_a_service_logs_in_to_keycloak_with_the_secret_that_both_were_given(services, tmp_path):
    settings = Settings(services.api, services.namespace, tmp_path)
    with lab_keycloak(tmp_path / "keycloak", WITH_PREFIX) as keycloak:
        keycloak.make(secret=OLD_SECRET)
        platform = Platform(settings, keycloak)
        old = platform.held
        settings.config_map(data={KEY: old, "KEYCLOAK_URL": keycloak.url})
        services.deploy("portal-api", LOGS_IN, envFrom=CONFIG)
        services.wait_until_out("portal-api")

        ended = platform.run(rotate=True, within_seconds=120)

        assert ended.error is None, ended.error
        services.wait_until_out("portal-api")
        assert services.environment("portal-api")[KEY] == platform.held != old
        assert keycloak.gives_token(platform.held)


@whole_only
def test_pods_that_the_database_refused_come_up_with_the_right_password(
    services, postgres, tmp_path
):
    settings = Settings(services.api, services.namespace, tmp_path)
    plain = keycloak_on(services.api, postgres, tmp_path)
    keycloak = KeycloakInPods(settings, postgres, plain.role, tmp_path)
    with keycloak.door() as door:
        keycloak.run_pods(WRONG, door)

        ended = keycloak.run(
            side="workload", password_file=settings.file(RIGHT), within_seconds=120
        )

        assert ended.error is None, ended.error
        assert "password-refused" in ended.result.found
        services.wait_until_out("keycloak")
        assert services.environment("keycloak")["KC_DB_PASSWORD"] == RIGHT
        assert services.pod("keycloak")["status"]["containerStatuses"][0]["restartCount"] == 0


@whole_only
def test_telegraf_writes_points_again_once_it_may_list_what_it_measures(
    services, influxdb, tmp_path
):
    database = influxdb.create_database("pods")
    influxdb.write(database, *POINTS, seconds_ago=7200)
    telegraf(services, influxdb, database, POINTS)
    with stand_in_grafana() as lab:
        lab.role = "Admin"
        sources = Datasources(lab, influxdb, database, tmp_path)
        sources.add()
        place = services.api.url_for("restore-grafana-metrics", services.namespace)
        metrics = Metrics(sources, {"cluster": place, "namespace": services.namespace})
        metrics.put()

        ended = metrics.run(dashboards=["vantiq"], within_seconds=120)

    assert ended.error is None, ended.error
    assert ended.result.found[0].startswith("kubernetes_pod_container is stale")
    assert ended.result.rights[0] == "it may do what it needs"
    assert any("pods is forbidden" in one for one in ended.result.left_to_person)
    assert not any("cannot be read" in one for one in ended.result.left_to_person)
    (counted,) = influxdb.execute(WRITTEN, database)
    assert counted["values"][0][1] > 1
    assert ended.result.migrated == ["'Vantiq Resources': 4 of 4 new queries return rows"]
