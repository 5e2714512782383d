"""Commands, files and ports of pods that really run: exec, copy and port-forward."""

import hashlib
import io
import socket
from pathlib import Path

import pytest

from blocks.kube.answer import ClusterConflict, ClusterForbidden, ClusterNotFound
from blocks.kube.cluster import KubernetesCluster
from blocks.kube.copying import copy_in, copy_in_text, copy_out, hash_in_pod
from blocks.kube.exec import Command, Place, ask_in_pod, exec_text, run_in_pod
from blocks.kube.forward import forward_to_pod
from recovery.errors import BadInput, CommandFailed, NotVerified, Unreachable, UnreadableOutput
from recovery.secrecy.secret import Secret, isolated_registry
from tests.lab.kubernetes_kubelet import BUSYBOX
from tests.lab.ports import LOOPBACK, free_port
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(120)
FOLDER = "/tmp"  # noqa: S108 (of the container)
INSIDE = f"{FOLDER}/in a file"


@pytest.fixture(scope="module")
def running(pods_kubernetes):
    """A namespace with a pod that runs, and a web server in it."""
    api = pods_kubernetes
    namespace, port = api.namespace("exec"), free_port()
    command = ["sh", "-c", f"echo hello > /tmp/index.html; httpd -f -p {LOOPBACK}:{port} -h /tmp"]
    container = {"name": "main", "image": BUSYBOX, "command": command}
    spec = {"hostNetwork": True, "terminationGracePeriodSeconds": 0, "containers": [container]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box"}, "spec": spec}
    api.apply(body, namespace)
    path = api.path("v1", "pods", namespace, "box")

    def is_ready():
        told = api.client.get(path)["status"].get("conditions") or []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in told)

    wait_until(is_ready, "the pod", within_seconds=90)
    return api, namespace, port


@pytest.fixture
def session(running):
    with KubernetesCluster.from_url(running[0].url).session() as opened:
        yield opened


@pytest.fixture
def place(running):
    return Place(running[1], "box", "main")


def test_a_command_is_answered_by_its_output_and_exit_code(session, place):
    printed = run_in_pod(session, place, Command(("sh", "-c", "echo out; echo err >&2")))
    said = ask_in_pod(session, place, Command(("sh", "-c", "exit 3")))

    assert (printed.exit_code, printed.stdout, printed.stderr) == (0, "out\n", "err\n")
    assert said.exit_code == 3


def test_a_command_that_says_no_is_an_error_with_the_end_of_its_output(session, place):
    with pytest.raises(CommandFailed, match=r"exit code 7.*no such table") as failed:
        run_in_pod(session, place, Command(("sh", "-c", "echo no such table >&2; exit 7")))
    assert failed.value.code == 7


def test_a_program_that_the_container_lacks_is_told_as_that(session, place):
    with pytest.raises(CommandFailed, match="no such program"):
        run_in_pod(session, place, Command(("mongosh", "--version")))
    with pytest.raises(CommandFailed, match="no such program"):
        run_in_pod(session, place, Command(("sh", "-c", "mongosh --version")))


def test_a_secret_reaches_the_command_by_its_input_and_shows_nowhere(session, place):
    with isolated_registry():
        command = Command(("cat",), stdin=Secret("0f-the-lab-42"))

        printed = run_in_pod(session, place, command)

        assert printed.stdout == "0f-the-lab-42"  # the input ended, so that cat did too
        assert exec_text(place, command) == f"EXEC {place}: cat < stdin"


def test_more_input_than_any_buffer_holds_comes_back_whole(session, place):
    content = bytes(range(256)) * 4096 * 4
    digest = hashlib.sha256()
    command = Command(("cat",), stdin=io.BytesIO(content), sink=digest.update)

    run_in_pod(session, place, command)

    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


def test_output_is_bounded(session, place):
    with pytest.raises(UnreadableOutput, match="more than 1000 bytes"):
        run_in_pod(session, place, Command(("yes",), output_bytes_max=1000))


def test_a_command_that_does_not_end_is_given_up_at_its_deadline(session, place):
    with pytest.raises(Unreachable, match="it did not end in time"):
        run_in_pod(session, place, Command(("sleep", "60"), within_seconds=1))


def test_a_pod_or_container_that_is_not_there_is_told(session, place):
    with pytest.raises(ClusterNotFound, match="nobody"):
        run_in_pod(session, Place(place.namespace, "nobody", "main"), Command(("true",)))
    with pytest.raises(CommandFailed, match="container sidecar is not valid"):
        run_in_pod(session, Place(place.namespace, "box", "sidecar"), Command(("true",)))


def test_another_pod_of_the_same_name_is_left_alone(session, place):
    other = Place(place.namespace, place.pod, place.container, uid="gone")

    with pytest.raises(ClusterConflict, match="another pod"):
        run_in_pod(session, other, Command(("true",)))


def test_the_rule_that_is_missing_is_told_and_is_enough(running):
    api, namespace, _ = running
    place = Place(namespace, "box", "main")
    with KubernetesCluster.from_url(api.url_as("reader")).session() as reader:
        with pytest.raises(ClusterForbidden) as forbidden:
            run_in_pod(reader, place, Command(("true",)))
        with (
            pytest.raises(ClusterForbidden, match="pods/portforward"),
            forward_to_pod(reader, place, 1, within_seconds=10),
        ):
            pass
    told = str(forbidden.value)
    assert 'resources: ["pods/exec"], verbs: ["create", "get"]' in told
    api.allow(namespace, "reader", ("", "pods/exec", "get"))

    def asked():
        with KubernetesCluster.from_url(api.url_as("reader")).session() as reader:
            return ask_in_pod(reader, place, Command(("true",)))

    def is_only_got():
        try:
            return not asked()
        except ClusterForbidden as error:  # what was granted is seen a moment later
            return "cannot get" not in str(error)

    wait_until(is_only_got, "the right to get", within_seconds=10)
    rules = [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]}]
    path = api.path("rbac.authorization.k8s.io/v1", "roles", namespace, "reader")
    api.client.patch(path, {"rules": rules})

    def may():
        try:
            return asked().exit_code == 0
        except ClusterForbidden:
            return False

    wait_until(may, "the rule to be enough", within_seconds=10)


def test_a_file_is_copied_in_and_out_with_the_same_hash(session, place, tmp_path):
    source, back = tmp_path / "in", tmp_path / "out"
    source.write_bytes(bytes(range(256)) * 4096 * 3)

    copied = copy_in(session, place, source, INSIDE)
    returned = copy_out(session, place, INSIDE, back)

    assert copied.sha256 == returned.sha256 == hash_in_pod(session, place, INSIDE)
    assert back.read_bytes() == source.read_bytes()
    assert back.stat().st_mode & 0o777 == 0o600
    assert copied.sha256 in copy_in_text(place, source, INSIDE)


def test_a_copy_that_cannot_be_written_leaves_what_was_there(session, place, tmp_path):
    source = tmp_path / "in"
    source.write_text("new")

    with pytest.raises(CommandFailed, match="nonexistent"):
        copy_in(session, place, source, "/nonexistent/folder/file")
    with pytest.raises(BadInput, match="No such file"):
        copy_in(session, place, tmp_path / "absent", f"{FOLDER}/x")


def test_a_file_that_is_not_there_or_too_large_leaves_none_on_the_worker(session, place, tmp_path):
    with pytest.raises(CommandFailed, match="absent"):
        copy_out(session, place, f"{FOLDER}/absent", tmp_path / "out")
    run_in_pod(session, place, Command(("sh", "-c", "yes | head -c 100000 > /tmp/large")))
    with pytest.raises(UnreadableOutput, match="more than 1000 bytes"):
        copy_out(session, place, f"{FOLDER}/large", tmp_path / "out", bytes_max=1000)

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_while_it_is_copied_is_not_taken(session, place, tmp_path):
    script = (
        "yes | head -c 20000000 > /tmp/f; "
        "(i=0; while [ $i -lt 100000 ]; do echo $i >> /tmp/f; i=$((i+1)); done) >/dev/null 2>&1 &"
    )
    run_in_pod(session, place, Command(("sh", "-c", script)))

    with pytest.raises(NotVerified, match="Somebody writes to it"):
        copy_out(session, place, f"{FOLDER}/f", tmp_path / "out")


def test_a_port_of_a_pod_is_reached_through_a_private_socket(session, place, running):
    with forward_to_pod(session, place, running[2], within_seconds=60) as path:
        assert path.parent.stat().st_mode & 0o077 == 0
        for _ in range(2):
            assert "hello" in fetched(path)
        folder = path.parent
    assert not folder.exists()


def test_a_port_that_nobody_listens_on_is_told_before_anybody_connects(session, place):
    with (
        pytest.raises(CommandFailed, match="connection refused"),
        forward_to_pod(session, place, free_port(), within_seconds=10),
    ):
        pass


def fetched(path: Path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    return answer.decode()
