"""Situations in which real output of kubeadm was kept, to be made anew.

The names are those of the files in the folder `kubeadm/generated` of the test data; each file is
what the command printed there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from tests.lab.control_plane_design import Age
from tests.lab.control_plane_files import File, Tree
from tests.lab.pki_kubeadm import CERTIFICATES, KUBERNETES

HOUR = timedelta(hours=1)
AGO = timedelta(seconds=-5)
DECADE = timedelta(days=3650)
VALID = Age(left=HOUR, authorities_left=DECADE, lifetime=HOUR)
LEAVES_EXPIRED = replace(VALID, left=AGO)
APISERVER_RENEWED = replace(LEAVES_EXPIRED, each={"apiserver": HOUR})
ALL_EXPIRED = replace(LEAVES_EXPIRED, authorities_left=AGO)
AUTHORITIES_EXPIRED = replace(VALID, authorities_left=AGO)

CHECK = ("certs", "check-expiration")
RENEW = ("certs", "renew", "all")
CONFIG = ("--config", "/c.yaml")


@dataclass(frozen=True)
class Situation:
    """The state of a host's certificates, and what was asked of kubeadm in it."""

    name: str
    age: Age
    command: tuple[str, ...]
    change: Callable[[Tree], None] = lambda tree: None
    exit_code: int = 0

    @property
    def has_json(self) -> bool:
        """Whether the answer was kept as JSON, too."""
        return self.command[: len(CHECK)] == CHECK and self.exit_code == 0


def removed(*patterns: str) -> Callable[[Tree], None]:
    """Return a change that removes the files that match."""

    def change(tree: Tree) -> None:
        for path in [p for p in tree if any(re.fullmatch(x, p) for x in patterns)]:
            del tree[path]

    return change


def truncated(tree: Tree) -> None:
    """Leave half of the API server's certificate."""
    path = f"{CERTIFICATES}/apiserver.crt"
    tree[path] = replace(tree[path], content=tree[path].content[:500])


def broken(tree: Tree) -> None:
    """Leave nothing of admin.conf that could be read."""
    tree[f"{KUBERNETES}/admin.conf"] = File(b"[\n")


NO_CA_KEY = removed(f"{CERTIFICATES}/ca.key")
NO_ETCD = removed(f"{CERTIFICATES}/etcd/.*", f"{CERTIFICATES}/apiserver-etcd-client.*")
NO_CA_KEYS = removed(f"{CERTIFICATES}/ca.key", f"{CERTIFICATES}/etcd/ca.key")
NOTHING = removed(f"{KUBERNETES}/.*")

_ALL = (
    Situation("00_all_missing", VALID, (*CHECK, *CONFIG), NOTHING),
    Situation("01_valid_1h", VALID, (*CHECK, *CONFIG)),
    Situation("02_all_leaf_expired", LEAVES_EXPIRED, (*CHECK, *CONFIG)),
    Situation("03_all_leaf_expired_noconfig", LEAVES_EXPIRED, CHECK),
    Situation("04_renew_one", LEAVES_EXPIRED, ("certs", "renew", "apiserver", *CONFIG)),
    Situation("05_mixed_after_renew_apiserver", APISERVER_RENEWED, (*CHECK, *CONFIG)),
    Situation(
        "06_ca_key_absent_externally_managed", APISERVER_RENEWED, (*CHECK, *CONFIG), NO_CA_KEY, 1
    ),
    Situation("07_renew_all_ca_key_absent", APISERVER_RENEWED, (*RENEW, *CONFIG), NO_CA_KEY, 1),
    Situation("08_external_etcd_files_missing", APISERVER_RENEWED, (*CHECK, *CONFIG), NO_ETCD),
    Situation("09_truncated_apiserver_crt", VALID, (*CHECK, *CONFIG), truncated, 1),
    Situation("10_broken_admin_conf", VALID, (*CHECK, *CONFIG), broken, 1),
    Situation("11_renew_all", LEAVES_EXPIRED, (*RENEW, *CONFIG)),
    Situation("12_after_renew_all", VALID, (*CHECK, *CONFIG)),
    Situation("13_renew_all_noconfig", LEAVES_EXPIRED, RENEW),
    Situation("14_san_after_renew_noconfig", LEAVES_EXPIRED, RENEW),
    Situation("15_everything_expired_incl_ca", ALL_EXPIRED, (*CHECK, *CONFIG)),
    Situation("16_renew_all_ca_expired", ALL_EXPIRED, (*RENEW, *CONFIG)),
    Situation("17_after_renew_ca_still_expired", AUTHORITIES_EXPIRED, (*CHECK, *CONFIG)),
    Situation("18_valid_ca_keys_absent_externally_managed", VALID, (*CHECK, *CONFIG), NO_CA_KEYS),
    Situation("19_renew_all_external_ca", VALID, (*RENEW, *CONFIG), NO_CA_KEYS),
)
SITUATIONS = {situation.name: situation for situation in _ALL}
