"""One machine under several names: the addresses that a name stands for, as this worker sees it.

What a recovery leases of a machine it leases under the name that was given and under each address,
so that whoever gives the address, or another name of it, finds it taken. A name that only a jump
host resolves, or nobody, stays as it is.
"""

import ipaddress
import socket
import threading
from functools import cache

RESOLVE_WITHIN_SECONDS = 3.0
ADDRESSES_MAX = 8  # of one name; the rest of them is not leased


def names_of(name: str) -> tuple[str, ...]:
    """The name or address as it was given, then the addresses it stands for."""
    try:
        addresses = _addresses_of(name)
    except OSError:
        addresses = ()
    return tuple(dict.fromkeys((name, *addresses)))


@cache  # what was found only: that a name is not known may pass
def _addresses_of(name: str) -> tuple[str, ...]:
    try:
        return (_written(name.partition("%")[0]),)
    except ValueError:
        pass
    found: list[str] = []
    is_known = threading.Event()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.extend(str(answer[4][0]).partition("%")[0] for answer in answers)
        is_known.set()

    # The resolver cannot be stopped: one that hangs is left behind.
    asking = threading.Thread(target=ask, name=f"resolve {name}", daemon=True)
    asking.start()
    asking.join(RESOLVE_WITHIN_SECONDS)
    if not is_known.is_set():
        raise OSError(name)
    addresses = sorted(set(map(_written, found)), key=lambda one: (":" in one, one))
    return tuple(addresses[:ADDRESSES_MAX])


def _written(address: str) -> str:
    """An address in the one way in which it is compared.

    Raises:
        ValueError: it is none.
    """
    read = ipaddress.ip_address(address)
    mapped = read.ipv4_mapped if isinstance(read, ipaddress.IPv6Address) else None
    return str(mapped or read)
