"""Streams into pods whose answer is lost on the way: begun, perhaps, or certainly not."""

import contextlib
import socket
import threading

import pytest

from blocks.kube.cluster import KubernetesCluster
from blocks.kube.exec import Command, Place, run_in_pod
from recovery.errors import AnswerLost, Unreachable
from tests.lab.kubernetes_api import standin_kubeconfig
from tests.lab.ports import LOOPBACK, free_port

PLACE = Place("divoc", "web-1", "web")


@contextlib.contextmanager
def answering(answer):
    """A server that reads a request, answers so, and hangs up."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(1 << 16)
                        client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def cluster_at(tmp_path, port):
    file = tmp_path / "conf"
    file.write_text(standin_kubeconfig(f"http://{LOOPBACK}:{port}"))
    return KubernetesCluster.from_url(f"kubeconfig://{file}")


def gateway(status):
    return f"HTTP/1.1 {status} Gateway\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("answer", [b"", gateway(502), gateway(504)])
def test_a_change_that_may_have_been_begun_is_an_answer_lost(tmp_path, answer):
    with answering(answer) as port, cluster_at(tmp_path, port).session() as session:
        with pytest.raises(AnswerLost):
            run_in_pod(session, PLACE, Command(("touch", "x"), is_change=True))
        with pytest.raises(Unreachable) as looked:
            run_in_pod(session, PLACE, Command(("ls",)))

    assert not isinstance(looked.value, AnswerLost)


def test_a_change_that_was_never_sent_is_no_answer_lost(tmp_path):
    with (
        cluster_at(tmp_path, free_port()).session() as session,
        pytest.raises(Unreachable) as refused,
    ):
        run_in_pod(session, PLACE, Command(("touch", "x"), is_change=True))

    assert not isinstance(refused.value, AnswerLost)


def test_an_api_that_says_nothing_is_given_up_at_the_deadline(tmp_path):
    with (
        socket.create_server((LOOPBACK, 0)) as silent,
        cluster_at(tmp_path, silent.getsockname()[1]).session() as session,
        pytest.raises(Unreachable),
    ):
        run_in_pod(session, PLACE, Command(("ls",), within_seconds=0.5))
