"""RSA keys, made once and kept: a node has fourteen, and each takes a tenth of a second."""

import fcntl
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.lab.pki import key_pem, new_rsa_key

CACHE = Path(__file__).parents[2] / ".lab"
MARK = b"-----END RSA PRIVATE KEY-----\n"


class Keys:
    """Keys handed out one after another, none of them twice by the same instance.

    Two labs get the same keys. They never meet, and what `kubeadm` makes in them is new.
    """

    def __init__(self) -> None:
        self._file = CACHE / "rsa-keys.pem"
        self._given = 0

    def take(self, count: int) -> list[RSAPrivateKey]:
        """Return so many keys, made now where fewer are kept."""
        CACHE.mkdir(exist_ok=True)
        self._file.touch(mode=0o600)
        with self._file.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            kept = file.read().split(MARK)[:-1]
            first, self._given = self._given, self._given + count
            for _ in range(self._given - len(kept)):
                pem = key_pem(new_rsa_key())
                file.write(pem)
                kept.append(pem.removesuffix(MARK))
        return [quickly_loaded(pem + MARK) for pem in kept[first : self._given]]


def quickly_loaded(pem: bytes) -> RSAPrivateKey:
    """Read a key of our own making, without the proof that its primes are prime."""
    key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError(f"{key!r} is no RSA key")
    return key
