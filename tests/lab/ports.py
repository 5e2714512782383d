"""Ports of the loopback interface that nobody listens on."""

import secrets
import socket

LOOPBACK = "127.0.0.1"
PORTS = range(12_000, 30_000)  # below those that the kernel gives to whoever connects

_marks: list[socket.socket] = []


def free_port() -> int:
    """Return a loopback TCP port that is free now and is given to nobody else while we live.

    A name of the kernel's marks it as given, so that of many processes only one gets it, and it is
    free again when that one ends, however it ends.
    """
    while True:
        port = secrets.choice(PORTS)
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mark.bind(f"\0recovery-lab-port-{port}")
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
                listener.bind((LOOPBACK, port))
        except OSError:
            mark.close()
            continue
        _marks.append(mark)
        return port


def accepts_connections(port: int) -> bool:
    """Whether something listens on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0
