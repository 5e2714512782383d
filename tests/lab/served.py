"""What the ports of a host really serve, asked over the network by openssl.

Nothing here knows of `tasks`, so that it can bear witness against it.
"""

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from tests.lab.hosts import LabHost

PORTS = {
    "apiserver": 6443,
    "etcd-server": 2379,
    "etcd-peer": 2380,
    "kubelet-serving": 10250,
}
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
WITHIN_SECONDS = 10


@dataclass(frozen=True)
class Served:
    """The certificate one port shows."""

    address: str
    port: int
    serial: int
    subject: str
    ends_at: datetime

    @property
    def days_left(self) -> float:
        """How long it is good still, in days; negative once it has expired."""
        return (self.ends_at - datetime.now(UTC)).total_seconds() / 86400


def served(address: str, port: int) -> Served | None:
    """Return what a port shows, whether or not it asks for a client certificate; none if nothing.

    It is `openssl s_client`, which prints the certificate of a server that goes on to refuse it.
    """
    argv = ["openssl", "s_client", "-connect", f"{address}:{port}", "-servername", "localhost"]
    try:
        shown = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=WITHIN_SECONDS,
            text=True,
            errors="replace",
        ).stdout
    except subprocess.TimeoutExpired:
        return None
    return _read(shown, address, port)


def _read(shown: str, address: str, port: int) -> Served | None:
    if BEGIN not in shown:
        return None
    pem = BEGIN + shown.partition(BEGIN)[2].partition(END)[0] + END
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return Served(
        address,
        port,
        certificate.serial_number,
        certificate.subject.rfc4514_string(),
        certificate.not_valid_after_utc,
    )


def served_by(
    addresses: Iterable[str], names: Iterable[str] = tuple(PORTS)
) -> dict[tuple[str, str], Served | None]:
    """Return what the named ports of each address show, by address and name."""
    asked = [(address, name) for address in addresses for name in names]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda pair: served(pair[0], PORTS[pair[1]]), asked)
        return dict(zip(asked, answers, strict=True))


def serial_of(pem: bytes) -> int:
    """Return the serial number of the first certificate in a file."""
    return x509.load_pem_x509_certificate(pem).serial_number


def served_inside(host: LabHost, port: int) -> Served | None:
    """Return what a port shows that listens on the loopback interface of a host alone."""
    asked = f"openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null || true"
    return _read(host.run(asked), "127.0.0.1", port)
