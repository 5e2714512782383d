"""The network of a lab of containers: two bridges of Docker's, and a filter beside them.

Docker gives this process an address on both. On the inner one it is cut off from everybody, for
good. The filter lies where Docker's bridges lie, and is written by a container of no network of
its own, so that it needs no rights of this process's.
"""

import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from tests.lab.host_backend import WITHIN_SECONDS, both_ways, interface_in, run_tool
from tests.lab.host_network import free_networks
from tests.lab.processes import LabError

TRIES = 5
CREATE = ("docker", "network", "create", "--internal")
LABEL = "recovery-lab"
NFT = ("--network=host", "--cap-drop=ALL", "--cap-add=NET_ADMIN", "--label", LABEL)
# Outlives the one it works for, and removes what carries the label. Docker may still be making
# something for one that was killed, so that it then looks again.
REAPER = rf"""
said=$(cat)
label="$1" image="$2" scratch="$3"
remove() {{
    docker ps --all --quiet --filter "label={LABEL}=$label" | xargs -r docker rm --force --volumes
    docker network ls --quiet --filter "label={LABEL}=$label" | xargs -r docker network rm
}}
remove
docker run --rm {" ".join(NFT)} "$image" nft delete table bridge "$label"
if [ "$said" != done ]; then
    rm -rf "$scratch"
    for again in 1 2 3; do
        sleep 2
        remove
    done
fi
"""


def filter_text(table: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Return what nft is given to drop just these: source and destination."""
    rules = [f"ip saddr {one} ip daddr {other} drop" for one, other in sorted(pairs)]
    chains = []
    for hook in ("prerouting", "output"):  # from a container, and from this process
        chain = f"type filter hook {hook} priority 0; policy accept;"
        chains += [f"chain {hook} {{", chain, *rules, "}"]
    name = f"table bridge {table}"
    return "\n".join([name, f"delete {name}", f"{name} {{", *chains, "}"]) + "\n"


class DockerNetwork:
    """One lab's own bridges, removed with every container of the lab when this process ends."""

    def __init__(self, name: str, scratch: Path, image: str) -> None:
        self.name = name
        self.scratch = scratch
        self._image = image
        self._dropped: set[tuple[str, str]] = set()
        self._reaper = subprocess.Popen(
            ["sh", "-c", REAPER, "reaper", name, image, str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the terminal is for the tests
        )
        try:
            self.subnet = self._made()
            self._filter(set())
        except BaseException:
            self.close()
            raise

    def bridge(self, side: str) -> str:
        """Return the name of the network on this side: `outer` or `inner`."""
        return f"{self.name}-{side}"

    @property
    def worker_address(self) -> str:
        """The address of this process, as the hosts see it."""
        return str(self.subnet[1])

    def interface_of(self, number: int, *, is_inner: bool) -> IPv4Interface:
        """Return the address, with its network, of a host counted from 1."""
        return interface_in(self.subnet, number, is_inner=is_inner)

    def drop(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Let nothing pass from the first address of each pair to the second; tell nobody."""
        self._filter(self._dropped | set(pairs))

    def let_pass(self, pairs: Iterable[tuple[str, str]] | None = None) -> None:
        """Let these pass again; `None`: all."""
        self._filter(set() if pairs is None else self._dropped - set(pairs))

    def _filter(self, dropped: set[tuple[str, str]]) -> None:
        outer, inner = self.subnet.subnets()
        strange = [str(outer), str(inner[1])]  # that address is this process's
        always = both_ways([str(inner)], strange)
        nft = ["docker", "run", "--rm", "--interactive", *NFT, self._image, "nft", "-f", "-"]
        run_tool(nft, filter_text(self.name, {*dropped, *always}))
        self._dropped = dropped

    def _made(self) -> IPv4Network:
        """Make the two bridges in a network that neither this machine nor Docker has."""
        seen = []
        for subnet, _ in zip(free_networks(), range(TRIES), strict=False):
            try:
                for side, half in zip(("outer", "inner"), subnet.subnets(), strict=True):
                    place = ["--subnet", str(half), "--gateway", str(half[1])]
                    label = ["--label", f"{LABEL}={self.name}"]
                    run_tool([*CREATE, *place, *label, self.bridge(side)])
            except LabError as taken:  # by another network of Docker's, which has no bridge up yet
                seen.append(str(taken))
                run_tool(["sh", "-c", f"docker network rm {self.bridge('outer')} || true"])
            else:
                return subnet
        raise LabError("\n".join(seen))

    def close(self) -> None:
        """Remove it, with every container that is left in it."""
        self._reaper.communicate(b"done", WITHIN_SECONDS)
