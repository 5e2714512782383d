"""A stand-in for kubeadm, for hosts of the lab where the real program is not to be had.

It is held to the same contract tests as the real one (tests/integration/test_kubeadm_contract.py),
for what a renewal of certificates asks of kubeadm, its untrue exit codes included. What it cannot
do it refuses as an unknown command.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from tests.lab import kubeadm_standin_kubeconfigs as kubeconfigs
from tests.lab import kubeadm_standin_phases as phases
from tests.lab.kubeadm_standin_certs import DONE, Keeper
from tests.lab.kubeadm_standin_config import (
    KubeadmError,
    Place,
    configured,
    from_file,
    made_up,
    seconds_of,
)
from tests.lab.kubeadm_standin_output import PRINTERS, as_object, as_text
from tests.lab.pki_kubeadm import KUBERNETES, Cluster, minor_of

VERSION_FILE = Path("/etc/lab/kubeadm-version")
FORMATS = (
    "go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,kyaml,"
    "template,templatefile,text,yaml"
)
YEAR = "8760h0m0s"


@dataclass
class Order:
    """One invocation: where, with which flags, of which name."""

    place: Place
    name: str = ""
    flags: dict[str, str] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        """The configuration as the phases read it: the file given, else defaults."""
        config = self.flags.get("config")
        if config:
            return from_file(self.place, config)
        return self.elsewhere(made_up(self.place, asks_for_version=True))

    @property
    def configs_in(self) -> str:
        """Where kubeconfigs go."""
        return self.flags.get("kubeconfig-dir") or KUBERNETES

    def elsewhere(self, cluster: Cluster) -> Cluster:
        """Return the configuration with what the flags say otherwise."""
        extra = self.flags.get("apiserver-cert-extra-sans", "")
        return replace(
            cluster,
            certificates_directory=self.flags.get("cert-dir") or cluster.certificates_directory,
            address=self.flags.get("apiserver-advertise-address") or cluster.address,
            extra_names=tuple(extra.split(",")) if extra else cluster.extra_names,
        )

    def looked_up(self, prefix: str) -> Cluster:
        """The configuration as `certs` reads it: of the file, else of the cluster, else made up."""
        return self.elsewhere(configured(self.place, self.flags.get("config"), prefix=prefix))


def check_expiration(order: Order) -> None:
    """Say what expires when. The exit code says nothing of it."""
    kind = order.flags.get("output", "text")
    if kind != "text" and kind not in PRINTERS:
        raise KubeadmError(
            "could not construct output printer: unable to match a printer suitable for the "
            f'output format "{kind}", allowed formats are: {FORMATS}'
        )
    prefix = "check-expiration" if kind == "text" else ""
    cluster = order.looked_up(prefix)
    own, above = Keeper(order.place, cluster).lines()
    if kind == "text":
        order.place.say(as_text(own, above, order.place.version).removesuffix("\n"))
    else:
        order.place.say(PRINTERS[kind](as_object(own, above)).removesuffix("\n"))


def renew(order: Order) -> None:
    """Renew one certificate or all; exits 0 for what is missing or cannot be renewed."""
    cluster = order.looked_up("renew")
    keeper = Keeper(order.place, cluster)
    if order.name != "all":
        if order.name not in keeper.all:
            raise KubeadmError(f"{order.name} is not a valid certificate for this cluster")
        order.place.say(keeper.renew(order.name))
        return
    for name in keeper.all:
        order.place.say(keeper.renew(name))
    if minor_of(order.place.version) >= (1, 20):
        order.place.say(DONE)


def print_version(order: Order) -> None:
    """Say which release this is."""
    version = f"v{order.place.version}"
    major, minor = minor_of(version)
    known = {
        "major": str(major),
        "minor": str(minor),
        "gitVersion": version,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.0",
        "compiler": "gc",
        "platform": "linux/amd64",
    }
    kind = order.flags.get("output", "")
    said = {
        "": f'kubeadm version: &version.Info{{Major:"{major}", Minor:"{minor}", '
        f'GitVersion:"{version}"}}',
        "short": version,
        "json": json.dumps({"clientVersion": known}, indent=2),
        "yaml": yaml.safe_dump({"clientVersion": known}),
    }
    if kind not in said:
        raise KubeadmError(f"invalid output format: {kind}")
    order.place.say(said[kind])


def user_kubeconfig(order: Order) -> None:
    """Print a kubeconfig with a new client certificate."""
    if "client-name" not in order.flags:
        raise KubeadmError('required flag(s) "client-name" not set')
    groups = [g for g in order.flags.get("org", "").split(",") if g]
    seconds = seconds_of(order.flags.get("validity-period", YEAR), 0)
    name = order.flags["client-name"]
    order.place.say(kubeconfigs.user_kubeconfig(order.place, order.cluster, name, groups, seconds))


def _finalize(order: Order) -> None:
    phases.is_begun_with_external(order.place, order.cluster)
    kubeconfigs.point_kubelet_at_rotated(order.place)


def _certificates(order: Order) -> None:
    phases.make_certificates(order.place, order.cluster, order.name)


def _kubeconfigs(order: Order) -> None:
    cluster = order.cluster
    is_external = phases.is_begun_with_external(order.place, cluster, order.configs_in)
    kubeconfigs.make_kubeconfigs(
        order.place, cluster, order.name, is_external=is_external, folder=order.configs_in
    )


def _requests(order: Order) -> None:
    phases.generate_requests(order.place, order.cluster, order.configs_in)


def _help(order: Order) -> None:
    order.place.say("Kubeadm experimental sub-commands\n")


Command = Callable[[Order], None]
COMMON = frozenset({"config", "cert-dir", "kubeconfig", "kubeconfig-dir", "v"})
PHASE = COMMON | {"apiserver-advertise-address", "apiserver-cert-extra-sans"}
USER = frozenset({"config", "client-name", "org", "validity-period", "token", "v"})


@dataclass(frozen=True)
class Known:
    """A command: what does it, the flags it takes, and the names it takes as a last word."""

    run: Command
    flags: frozenset[str]
    names: tuple[str, ...] = ()


def commands(version: str) -> dict[tuple[str, ...], Known]:
    """The commands this release has."""
    release = minor_of(version)
    printed = COMMON | {"output"} if release >= (1, 30) else COMMON
    renewable = (*phases.ORDER, *kubeconfigs.FILES.values(), "all")
    no_renewal = {"ca", "front-proxy-ca", "etcd-ca", "kubelet.conf"}
    if release < (1, 29):
        no_renewal.add("super-admin.conf")
    renewed = tuple(name for name in renewable if name not in no_renewal)
    certs = {
        ("check-expiration",): Known(check_expiration, printed),
        ("renew",): Known(renew, COMMON, renewed),
    }
    known: dict[tuple[str, ...], Known] = {
        ("version",): Known(print_version, frozenset({"output", "v"})),
        ("init", "phase", "certs"): Known(_certificates, PHASE, (*phases.ORDER, "sa", "all")),
        ("init", "phase", "kubeconfig"): Known(_kubeconfigs, PHASE, (*kubeconfigs.FILES, "all")),
    }
    rotation = "enable-client-cert-rotation" if release >= (1, 32) else "experimental-cert-rotation"
    known["init", "phase", "kubelet-finalize"] = Known(_finalize, COMMON, (rotation, "all"))
    if release < (1, 21):
        known.update({("alpha", "certs", *words): one for words, one in certs.items()})
    else:
        known["alpha",] = Known(_help, COMMON, ("",))
    if release >= (1, 20):
        known.update({("certs", *words): one for words, one in certs.items()})
        known["certs", "generate-csr"] = Known(_requests, COMMON)
    parents = ("kubeconfig",) if release >= (1, 21) else ("alpha", "kubeconfig")
    known[*parents, "user"] = Known(user_kubeconfig, USER)
    return known


def understood(words: Sequence[str], place: Place) -> tuple[Known, Order]:
    """Find the command that is meant and read its flags.

    Raises:
        KubeadmError: there is no such command or flag.
    """
    known = commands(place.version)
    if words[:1] == ["alpha"] and ("alpha",) in known:
        return known["alpha",], Order(place)
    path: tuple[str, ...] = ()
    rest = list(words)
    while rest and not rest[0].startswith("-") and path not in known:
        if not any(one[: len(path) + 1] == (*path, rest[0]) for one in known):
            raise KubeadmError(f'unknown command "{rest[0]}" for "{" ".join(("kubeadm", *path))}"')
        path = (*path, rest.pop(0))
    if path not in known:
        raise KubeadmError("\nerror: subcommand is required")
    command, order = known[path], Order(place)
    called = " ".join(("kubeadm", *path))
    if command.names:
        is_name = bool(rest) and not rest[0].startswith("-")
        if is_name and rest[0] in command.names:
            order.name = rest.pop(0)
            called = f"{called} {order.name}"
        elif len(rest) > is_name:
            raise KubeadmError(f"unknown flag: {rest[is_name].partition('=')[0]}")
        elif is_name:
            raise KubeadmError(f'unknown command "{rest[0]}" for "{called}"')
        else:
            raise KubeadmError("\nerror: subcommand is required")
    order.flags = _flags(rest, command.flags, called)
    return command, order


def _flags(words: list[str], known: frozenset[str], called: str) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise KubeadmError(f'unknown command "{word}" for "{called}"')
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            short, attached = name[:1], name[1:]
            name = {"o": "output"}.get(short, short)
            if name not in known:
                raise KubeadmError(f"unknown shorthand flag: '{short}' in -{short}")
            equals, value = ("=", attached or value) if attached or equals else ("", "")
        if name not in known:
            raise KubeadmError(f"unknown flag: --{name}")
        if not equals:
            if not rest:
                raise KubeadmError(f"flag needs an argument: --{name}")
            value = rest.pop(0)
        found[name] = value
    return found


def main(words: Sequence[str], version: str = "", root: str = "/") -> int:
    """Do what the words say and return the exit code."""
    rest = list(words)
    for i, word in enumerate(rest):
        if word == "--rootfs" or word.startswith("--rootfs="):
            _, equals, value = word.partition("=")
            root = value if equals else rest[i + 1]
            del rest[i : i + (1 if equals else 2)]
            break
    if not version:
        own = Path(root) / VERSION_FILE.relative_to("/")
        version = own.read_text().strip() if own.exists() else Place().version
    place = Place(Path(root), version.removeprefix("v"))
    os.umask(0o022)
    try:
        command, order = understood(rest, place)
        command.run(order)
    except KubeadmError as error:
        sys.stdout.flush()
        sys.stderr.write(
            f"error: {error.text}\n"
            "To see the stack trace of this error execute with --v=5 or higher\n"
        )
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
