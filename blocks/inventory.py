"""Several hosts under one name, as a block, a file on the worker, or URLs typed into a form."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

import yaml
from prefect.blocks.core import Block
from pydantic import Field

from blocks.saved import saved_block
from blocks.ssh.host import SshHost
from recovery.errors import BadInput
from recovery.forms import Saved

SHAPE = "ssh://user@host?host_key=SHA256:…&key_file=/path"
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Inventory:
    """Hosts in the order given. The label is what a recovery of all of them leases."""

    label: str
    hosts: tuple[SshHost, ...]

    def named(self, labels: Sequence[str]) -> list[SshHost]:
        """The hosts of these labels, in the order of the inventory.

        Raises:
            BadInput: there is none of such a label.
        """
        known = {host.label for host in self.hosts}
        if unknown := [label for label in labels if label not in known]:
            raise BadInput(
                "hosts", f"{self.label} has no {unknown[0]!r}", f"It has {', '.join(sorted(known))}"
            )
        return [host for host in self.hosts if host.label in set(labels)]


class HostInventory(Block):
    """Hosts that belong together, such as the control plane of a cluster.

    Example:
        ```python
        HostInventory(label="prod-control-plane", hosts=["ssh://root@cp1?host_key=SHA256:…"])
        ```
    """

    _block_type_name: ClassVar[str | None] = "Host inventory"
    _block_type_slug: ClassVar[str | None] = "host-inventory"
    _description: ClassVar[str | None] = (
        "Hosts that belong together. Holds addresses and references to credentials on the worker, "
        "never the credentials."
    )

    label: str = Field(description="Names the hosts together: one recovery at a time under it.")
    hosts: list[str] = Field(min_length=1, description=f"One URL a host: {SHAPE}")

    def inventory(self) -> Inventory:
        """Read the URLs.

        Raises:
            BadInput: the label or a URL is malformed, or a host is given twice.
        """
        return _inventory(self.label, self.hosts, f"block {self.label}")

    @classmethod
    def named(cls, name: str, field: str) -> Self:
        """Return the saved block of this name; see `saved_block` for its error."""
        otherwise = f"the path of an inventory file on the worker, nor {SHAPE}"
        return saved_block(cls, name, field, otherwise)


def hosts_named(given: str, field: str = "hosts") -> Inventory:
    """Read a parameter that names hosts.

    It is the name of a saved inventory block, the path of a YAML file on the worker
    (`{label: prod, hosts: [ssh://…, …]}`), or ssh URLs separated by blanks or commas.

    Raises:
        BadInput: it is none of these; names the field and the host.
    """
    text = given.strip()
    if not text:
        raise BadInput(field, "it is empty: empty means none, never all", f"Give {SHAPE}")
    if "://" in text:
        urls = [url for url in re.split(r"[\s,]+", text) if url]
        return _inventory("", urls, field)
    if text.endswith(SUFFIXES) or text.startswith(("/", "~")):
        return _from_file(Path(text).expanduser(), field)
    return HostInventory.named(text, field).inventory()


def host_named(given: str, field: str = "host") -> SshHost:
    """Read a parameter that names one host, in any of the ways of `hosts_named`.

    Raises:
        BadInput: it names none, or several.
    """
    inventory = hosts_named(given, field)
    if len(inventory.hosts) != 1:
        raise BadInput(field, f"it names {len(inventory.hosts)} hosts", "Name exactly one")
    return inventory.hosts[0]


def _from_file(path: Path, field: str) -> Inventory:
    shape = "Write label: NAME and hosts: with one ssh:// URL a line"
    if not path.is_absolute():
        raise BadInput(
            field,
            f"{str(path)!r} is a relative path, and a worker stands in another folder",
            "Give the absolute path",
        )
    try:
        read = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(
            field, f"{path} cannot be read: {error.strerror}", "Put it there on the worker"
        ) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise BadInput(field, f"{path} is no YAML: {error}", shape) from error
    if not isinstance(read, dict) or set(read) != {"label", "hosts"}:
        raise BadInput(field, f"{path} has not the two fields label and hosts", shape)
    label, urls = read["label"], read["hosts"]
    if not isinstance(label, str) or not isinstance(urls, list):
        raise BadInput(field, f"in {path}, label is no text or hosts is no list", shape)
    return _inventory(label, [str(url) for url in urls], f"{field} ({path})")


def _inventory(label: str, urls: Sequence[str], field: str) -> Inventory:
    if label and not LABEL.fullmatch(label):
        raise BadInput(field, f"{label!r} is no label", "Use letters, digits, dot, dash")
    if not urls:
        raise BadInput(field, "it has no host: empty means none, never all", f"Give {SHAPE}")
    hosts = []
    for url in urls:
        try:
            hosts.append(SshHost.from_url(url))
        except BadInput as wrong:
            raise BadInput(f"{field} ({wrong.field})", wrong.seen, wrong.remedy) from None
    places = [place_of(host) for host in hosts]
    if twice := {place for place in places if places.count(place) > 1}:
        raise BadInput(field, f"{min(twice)} is given twice", "Give each host once")
    return Inventory(label or ",".join(sorted(places)), tuple(hosts))


def leased_places(hosts: Sequence[SshHost], field: str = "hosts") -> list[str]:
    """What a recovery of these hosts leases with its target: each by every name known of it.

    Raises:
        BadInput: two of them are one machine.
    """
    named: dict[str, SshHost] = {}
    for host in hosts:
        for place in host.places:
            other = named.setdefault(place, host)
            if other is not host:
                seen = f"{place_of(other)} and {place_of(host)} are one host, {place}"
                raise BadInput(field, seen, "Give each host once, or correct the names")
    return list(named)


def place_of(host: SshHost) -> str:
    """A host without the account that logs in: whoever does, it is the same host."""
    return host.target.rpartition("@")[2]


HostsParameter = Annotated[str, Saved(HostInventory)]
