"""The stack of docker-compose.yml: nothing runs as root, listens openly, or is told a secret."""

import re
import shutil
import stat
import subprocess

import pytest
import yaml

from tests.conftest import PROJECT

STACK = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES = STACK["services"]
ONCE = {name for name, service in SERVICES.items() if service.get("restart") == "no"}
CLIENTS = [name for name, s in SERVICES.items() if "RECOVER_JOURNAL" in s.get("environment", {})]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_is_root_or_has_rights_of_its_own(name):
    service = SERVICES[name]

    assert service["user"] == "${RECOVER_UID:-10001}:${RECOVER_GID:-10001}"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_of_a_stated_version_and_shows_its_health(name):
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2].rpartition(":-")[2].strip("}")

    assert re.match(r"(.*-)?\d+\.\d+", tag)
    assert (name in ONCE) != bool(service.get("healthcheck"))


def test_only_what_asks_who_calls_is_published_and_on_loopback_by_default():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert set(published) == {"server", "alerts"}
    for ports in published.values():
        assert all(port.startswith("${RECOVER_LISTEN:-127.0.0.1}:") for port in ports)


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_by_file_and_each_service_has_only_its_own(name):
    service = SERVICES[name]

    assert set(service.get("secrets", [])) <= set(STACK["secrets"])
    for variable, value in service.get("environment", {}).items():
        is_file = variable.endswith("_FILE") or "password_file=" in str(value)
        assert is_file or not re.search("(?i)password|secret|token|auth_string", variable), variable
    if name in CLIENTS:
        assert set(service["secrets"]) <= {"prefect_auth", "journal_password", "alerts_token"}


def test_each_pool_has_two_workers_that_share_the_journal_and_what_recoveries_save():
    pools = yaml.safe_load((PROJECT / "deployments" / "work-pools.yaml").read_text())["work_pools"]
    served = {
        pool: [s for s in SERVICES.values() if f"--pool={pool}" in s.get("command", [])]
        for pool in pools
    }

    for one, two in served.values():
        assert one == two
        assert one["environment"]["RECOVER_JOURNAL"].startswith("postgresql://journal@postgres:")
        assert "work:/var/lib/recover" in one["volumes"]


@pytest.fixture
def clone(tmp_path):
    """The files that the stack is made of, in a folder of their own."""
    for path in ("docker-compose.yml", "scripts/compose_secrets.sh"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / path, tmp_path / path)
    return tmp_path


def test_secrets_are_random_for_one_account_alone_and_written_once(clone):
    script = [clone / "scripts" / "compose_secrets.sh"]
    subprocess.run(script, check=True, capture_output=True)
    files = {path.name: path for path in (clone / "secrets").iterdir() if path.is_file()}
    first = {name: path.read_text() for name, path in files.items()}
    again = subprocess.run(script, check=True, capture_output=True, text=True)

    assert set(STACK["secrets"]) <= set(first)
    assert len(set(first.values())) == len(first)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert {name: path.read_text() for name, path in files.items()} == first
    assert "wrote" not in again.stderr
    assert (clone / ".env").read_text().count("RECOVER_UID=") == 1


def test_compose_reads_the_file_without_a_warning(clone):
    plugin = ["docker", "compose"]
    has_plugin = (
        shutil.which("docker")
        and not subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode
    )
    if not has_plugin and not shutil.which("docker-compose"):
        pytest.skip("neither `docker compose` nor docker-compose is installed")
    program = plugin if has_plugin else ["docker-compose"]
    subprocess.run([clone / "scripts" / "compose_secrets.sh"], check=True, capture_output=True)

    read = subprocess.run(
        [*program, "config", "--quiet"], cwd=clone, capture_output=True, text=True, check=False
    )

    assert (read.returncode, read.stdout, read.stderr) == (0, "", "")
