"""Ports of the loopback interface that nobody listens on."""

import socket

LOOPBACK = "127.0.0.1"

_given: set[int] = set()


def free_port() -> int:
    """Return a loopback TCP port that is free now and was not given out before by this process.

    The kernel picks from its ephemeral range and goes round it, so two processes that ask at the
    same time get different ports. The port is not held: start the server soon.
    """
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((LOOPBACK, 0))
            port = int(listener.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def accepts_connections(port: int) -> bool:
    """Whether something listens on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        return client.connect_ex((LOOPBACK, port)) == 0
