"""What crictl says and does, asked of the real one on a real containerd and of the stand-in."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lab import static_pods_runtime
from tests.lab.processes import GuardedProcess, Place, bare_environment, wait_until
from tests.lab.real_control_plane_runtime import (
    PAUSE_IMAGE,
    Containerd,
    find_crictl,
    private_containerd,
)
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(120)

PROJECT = Path(__file__).parents[2]
CODE = "import sys; from tests.lab.static_pods_crictl import main; sys.exit(main(sys.argv[1:]))"


class Crictl:
    """crictl, with a runtime of its own."""

    def __init__(self, endpoint: str, command: list[str]):
        self.endpoint = endpoint
        self.command = command

    def run(self, *words: str, endpoint: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, "--runtime-endpoint", endpoint or self.endpoint, *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
        )

    def told(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make_pod(self, name: str, component: str) -> tuple[str, str]:
        """Make a pod as the kubelet does, with one container that runs; return both ids."""
        raise NotImplementedError

    def clear(self) -> None:
        for pod in self.told("pods", "-q").split():
            self.run("rmp", "-f", pod)


def labels_of(name: str, component: str) -> tuple[dict[str, str], dict[str, str]]:
    of_pod = {
        "component": component,
        "io.kubernetes.pod.name": name,
        "io.kubernetes.pod.namespace": "kube-system",
        "io.kubernetes.pod.uid": f"uid-of-{name}",
        "tier": "control-plane",
    }
    own = {key: value for key, value in of_pod.items() if key.startswith("io.")}
    return of_pod, {**own, "io.kubernetes.container.name": component}


class RealCrictl(Crictl):
    def __init__(self, containerd: Containerd, folder: Path):
        super().__init__(containerd.endpoint, [find_crictl()])
        self.cgroup_parent = containerd.cgroup_parent
        self.folder = folder

    def make_pod(self, name, component):
        of_pod, of_container = labels_of(name, component)
        network_of_host = {"namespace_options": {"network": 2}}
        pod = {
            "metadata": {
                "name": name,
                "namespace": "kube-system",
                "uid": f"uid-of-{name}",
                "attempt": 0,
            },
            "labels": of_pod,
            "annotations": {"kubernetes.io/config.source": "file"},
            "log_directory": str(self.folder / "log"),
            "linux": {
                "cgroup_parent": self.cgroup_parent,
                "security_context": network_of_host,
            },
        }
        container = {
            "metadata": {"name": component, "attempt": 3},
            "image": {"image": PAUSE_IMAGE},
            "command": ["/usr/local/bin/pause"],
            "log_path": f"{component}/3.log",
            "labels": of_container,
            "annotations": {"io.kubernetes.container.restartCount": "3"},
            "linux": {},
        }
        files = self.folder / "pod.json", self.folder / "container.json"
        for file, content in zip(files, (pod, container), strict=True):
            file.write_text(json.dumps(content))
        pod_id = self.told("runp", str(files[0])).strip()
        made = self.told("create", pod_id, str(files[1]), str(files[0])).strip()
        self.told("start", made)
        return pod_id, made


class StandinCrictl(Crictl):
    def __init__(self, endpoint: str, folder: Path):
        super().__init__(endpoint, [sys.executable, "-c", CODE])
        self.folder = folder

    def make_pod(self, name, component):
        of_pod, of_container = labels_of(name, component)
        source = {"kubernetes.io/config.source": "file"}
        pod = static_pods_runtime.ask(
            self.endpoint,
            "run_pod",
            name=name,
            namespace="kube-system",
            uid=f"uid-of-{name}",
            attempt=0,
            labels=of_pod,
            annotations=source,
        )
        made = static_pods_runtime.ask(
            self.endpoint,
            "run_container",
            pod=pod,
            name=component,
            attempt=3,
            image=PAUSE_IMAGE,
            command=["sleep", "infinity"],
            labels=of_container,
            annotations={"io.kubernetes.container.restartCount": "3"},
            log_path=str(self.folder / "log" / component / "3.log"),
        )
        return pod, made


@contextmanager
def standin_runtime(folder: Path):
    socket = folder / "runtime.sock"
    code = "import sys; from tests.lab.static_pods_runtime import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, str(folder / "state.json"), str(socket)]
    environment = bare_environment(PYTHONPATH=str(PROJECT))
    process = GuardedProcess(command, environment, Place(folder / "runtime.log", folder))
    try:
        wait_until(socket.exists, "the runtime", within_seconds=20, log=folder / "runtime.log")
        yield f"unix://{socket}"
    finally:
        process.close()


@contextmanager
def real_crictl(folder):
    find_crictl()
    with private_containerd(folder) as containerd:
        yield RealCrictl(containerd, folder)


@contextmanager
def standin_crictl(folder):
    with standin_runtime(folder) as endpoint:
        yield StandinCrictl(endpoint, folder)


@pytest.fixture(scope="module", params=["real", "standin"])
def program(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crictl")
    kind = {"real": real_crictl, "standin": standin_crictl}[request.param]
    with started_or_skipped(kind(folder), is_optional=request.param == "real") as program:
        yield program


@pytest.fixture
def crictl(program):
    yield program
    program.clear()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text))


def test_pods_are_listed_with_their_state(crictl):
    before = datetime.now(UTC)
    pod, _ = crictl.make_pod("etcd-cp1", "etcd")

    (listed,) = json.loads(crictl.told("pods", "-o", "json"))["items"]

    made_at = datetime.fromtimestamp(int(listed["createdAt"]) / 1e9, UTC)
    assert timedelta(seconds=-1) < made_at - before < timedelta(seconds=30)
    del listed["createdAt"]
    assert listed == {
        "id": pod,
        "metadata": {
            "name": "etcd-cp1",
            "uid": "uid-of-etcd-cp1",
            "namespace": "kube-system",
            "attempt": 0,
        },
        "state": "SANDBOX_READY",
        "labels": labels_of("etcd-cp1", "etcd")[0],
        "annotations": {"kubernetes.io/config.source": "file"},
        "runtimeHandler": "",
    }


def test_containers_are_listed_with_their_attempt(crictl):
    pod, container = crictl.make_pod("etcd-cp1", "etcd")

    (listed,) = json.loads(crictl.told("ps", "-o", "json"))["containers"]

    assert listed["createdAt"].isdigit()
    assert listed["imageRef"].startswith("sha256:")
    del listed["createdAt"], listed["imageRef"]
    assert listed == {
        "id": container,
        "podSandboxId": pod,
        "metadata": {"name": "etcd", "attempt": 3},
        "image": {
            "image": PAUSE_IMAGE,
            "annotations": {},
            "userSpecifiedImage": "",
            "runtimeHandler": "",
            "imageRef": "",
        },
        "state": "CONTAINER_RUNNING",
        "labels": labels_of("etcd-cp1", "etcd")[1],
        "annotations": {"io.kubernetes.container.restartCount": "3"},
        "imageId": "",
    }


def test_the_tables_have_the_columns_of_crictl(crictl):
    crictl.make_pod("etcd-cp1", "etcd")

    pods = crictl.told("pods").splitlines()
    containers = crictl.told("ps").splitlines()

    assert re.split(r"  +", pods[0]) == (
        ["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]
    )
    assert re.split(r"  +", containers[0])[:7] == (
        ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID"]
    )
    assert re.split(r"  +", pods[1])[2:] == ["Ready", "etcd-cp1", "kube-system", "0", "(default)"]
    assert re.split(r"  +", containers[1])[3:6] == ["Running", "etcd", "3"]


def test_a_running_container_shows_when_it_was_started(crictl):
    _, container = crictl.make_pod("etcd-cp1", "etcd")

    known = json.loads(crictl.told("inspect", container[:13]))

    status = known["status"]
    assert moment(status["startedAt"]) > datetime.now(UTC) - timedelta(minutes=1)
    assert status["finishedAt"] == "0001-01-01T00:00:00Z"
    assert (status["state"], status["exitCode"], status["reason"]) == ("CONTAINER_RUNNING", 0, "")
    assert status["metadata"] == {"attempt": 3, "name": "etcd"}
    assert status["logPath"].endswith("/log/etcd/3.log")
    assert Path(f"/proc/{known['info']['pid']}").exists()


def test_names_are_regular_expressions_that_may_fit_anywhere(crictl):
    etcd, _ = crictl.make_pod("etcd-cp1", "etcd")
    api, container = crictl.make_pod("kube-apiserver-cp1", "kube-apiserver")

    assert crictl.told("pods", "--name", "etcd-*", "-q").split() == [etcd]
    assert crictl.told("pods", "--namespace", "kube", "-q").split() == [api, etcd]
    assert crictl.told("pods", "--name", "^apiserver", "-q") == ""
    assert crictl.told("ps", "--name", "api", "-q").split() == [container]
    assert crictl.told("ps", "--pod", api[:8], "-q").split() == [container]
    assert crictl.told("pods", "--label", "component=etcd", "-q").split() == [etcd]
    assert crictl.told("pods", "--state", "notready", "-q") == ""


def test_a_stopped_container_is_listed_only_with_a(crictl):
    _, container = crictl.make_pod("etcd-cp1", "etcd")

    assert crictl.told("stop", container) == f"{container}\n"

    assert crictl.told("ps", "-q") == ""
    assert crictl.told("ps", "-a", "-q").split() == [container]
    assert crictl.told("ps", "--state", "exited", "-q").split() == [container]
    status = json.loads(crictl.told("inspect", container))["status"]
    assert (status["state"], status["exitCode"]) == ("CONTAINER_EXITED", 137)
    assert status["reason"] == "Error"
    assert moment(status["finishedAt"]) > moment(status["startedAt"])


def test_a_running_pod_is_removed_only_by_force(crictl):
    pod, _ = crictl.make_pod("etcd-cp1", "etcd")

    refused = crictl.run("rmp", pod)
    assert refused.returncode == 1
    assert "is running, please stop it first" in refused.stderr

    assert crictl.told("rmp", "-f", pod) == f"Stopped sandbox {pod}\nRemoved sandbox {pod}\n"
    assert crictl.told("pods", "-q") == crictl.told("ps", "-a", "-q") == ""


def test_what_is_not_there_is_an_error(crictl):
    pod, container = crictl.make_pod("etcd-cp1", "etcd")
    crictl.told("rmp", "-f", pod)

    for words in (["rmp", "-f", pod], ["inspect", container], ["rm", "-f", container]):
        done = crictl.run(*words)
        assert done.returncode == 1, words
        assert "code = NotFound" in done.stderr
        assert done.stdout == ""


def test_removing_nothing_shows_the_usage_and_exits_0(crictl):
    pod, _ = crictl.make_pod("etcd-cp1", "etcd")

    done = crictl.run("rmp", "-f")

    assert done.returncode == 0
    assert "crictl rmp - Remove one or more pods" in done.stdout
    assert crictl.told("pods", "-q").split() == [pod]


def test_a_flag_behind_an_argument_is_taken_for_another_argument(crictl):
    pod, _ = crictl.make_pod("etcd-cp1", "etcd")

    done = crictl.run("rmp", pod, "-f")

    assert done.returncode == 1
    assert crictl.told("pods", "-q").split() == [pod]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ps", "--bogus"], 1, "flag provided but not defined: -bogus"),
        (["bogus"], 3, "No help topic for 'bogus'"),
        (["ps", "-o", "bad"], 1, 'unsupported output format "bad"'),
    ],
)
def test_a_mistake_is_told(crictl, words, code, said):
    done = crictl.run(*words)

    assert done.returncode == code
    assert said in done.stderr.replace("\\", "")


def test_a_runtime_that_is_not_there_is_told(crictl):
    done = crictl.run("ps", endpoint="unix:///nonexistent.sock")

    assert done.returncode == 1
    assert "dial unix /nonexistent.sock: connect: no such file or directory" in done.stderr
