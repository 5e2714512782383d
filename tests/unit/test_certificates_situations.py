"""The nineteen situations of kubeadm's certificates: each leads to the right decision or refusal.

They are judged twice: as kubeadm 1.36.2 printed them (`RECOVER_TEST_DATA`), and made anew here.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from recovery.errors import UnreadableOutput
from tasks.certificates.catalogue import AUTHORITIES, BY_NAME, LEAVES, EtcdKind
from tasks.certificates.cluster_config import names_in, parse_config
from tasks.certificates.files import lost_names
from tasks.certificates.judging import (
    Method,
    names_due,
    reasons_against,
    regenerated_names,
    renewable_names,
)
from tasks.certificates.kubeadm import (
    Known,
    Kubeadm,
    Report,
    parse_json,
    parse_renewal,
    parse_text,
)
from tasks.certificates.preflight import reasons_of_kubeadm
from tasks.certificates.reading import Presence
from tasks.certificates.renewal import left_out_names
from tests.unit.certificates_seen import seen_host

NOW = datetime(2026, 11, 21, 1, 10, 9, tzinfo=UTC)  # when most of them were printed
ALL = tuple(sorted(leaf.name for leaf in LEAVES))
ETCDS = tuple(sorted(leaf.name for leaf in LEAVES if leaf.is_etcds))
HOUR, ENDED, TEN_YEARS = timedelta(hours=1), timedelta(seconds=-5), timedelta(days=3650)


@dataclass(frozen=True)
class Situation:
    """What is there, and what is to be decided.

    `left` says how long each certificate has; `None` is missing. `due` are the names that are due
    with thirty days, `due_at_once` with none; `refused` is what the refusal says, if there is one.
    """

    left: dict[str, timedelta | None]
    authorities_left: timedelta | None = TEN_YEARS
    without: tuple[str, ...] = ()  # authorities that are not there at all
    without_key: tuple[str, ...] = ()
    etcd: EtcdKind = EtcdKind.STACKED
    due: tuple[str, ...] = ALL
    due_at_once: tuple[str, ...] = ()
    refused: str = ""


def each(left):
    return dict.fromkeys(ALL, left)


SITUATIONS = {
    "00_all_missing": Situation(
        each(None),
        authorities_left=None,
        due=tuple(name for name in ALL if name != "super-admin.conf"),
        due_at_once=tuple(name for name in ALL if name != "super-admin.conf"),
        refused="authority ca.crt is missing",
    ),
    "01_valid_1h": Situation(each(HOUR)),
    "02_all_leaf_expired": Situation(each(ENDED), due_at_once=ALL),
    "03_all_leaf_expired_noconfig": Situation(each(ENDED), due_at_once=ALL),
    "05_mixed_after_renew_apiserver": Situation(
        each(ENDED) | {"apiserver": HOUR},
        due_at_once=tuple(name for name in ALL if name != "apiserver"),
    ),
    "08_external_etcd_files_missing": Situation(
        each(ENDED) | {"apiserver": HOUR} | dict.fromkeys(ETCDS),
        without=("etcd-ca",),
        etcd=EtcdKind.EXTERNAL,
        due=tuple(name for name in ALL if name not in ETCDS),
        due_at_once=tuple(name for name in ALL if name not in {*ETCDS, "apiserver"}),
    ),
    "12_after_renew_all": Situation(each(HOUR)),
    "15_everything_expired_incl_ca": Situation(
        each(ENDED), authorities_left=ENDED, due_at_once=ALL, refused=r"ca\.crt ended .*before what"
    ),
    "17_after_renew_ca_still_expired": Situation(
        each(HOUR), authorities_left=ENDED, due_at_once=ALL, refused=r"ca\.crt ended .*before what"
    ),
    "18_valid_ca_keys_absent_externally_managed": Situation(
        each(HOUR), without_key=("ca", "etcd-ca"), refused=r"ca\.crt\.key|external authority"
    ),
}


def made_anew(situation):
    """The situation as kubeadm prints it in JSON."""

    def entry(name, left, **more):
        ends_at = None if left is None else f"{NOW + left:%Y-%m-%dT%H:%M:%SZ}"
        seconds = 0 if left is None else int(left.total_seconds())
        return {
            "name": name,
            "expirationDate": ends_at,
            "residualTime": seconds,
            "missing": left is None,
            **more,
        }

    return json.dumps(
        {
            "kind": "CertificateExpirationInfo",
            "apiVersion": "output.kubeadm.k8s.io/v1alpha3",
            "certificates": [
                entry(
                    name,
                    left,
                    externallyManaged=left is not None
                    and BY_NAME[name].ca in situation.without_key,
                )
                for name, left in situation.left.items()
            ],
            "certificateAuthorities": [
                entry(
                    a.name,
                    None if a.name in situation.without else situation.authorities_left,
                    externallyManaged=a.name in situation.without_key,
                )
                for a in AUTHORITIES
            ],
        }
    )


def assert_judged_right(report, situation, now):
    due = names_due(report, situation.etcd, now, 30)
    assert tuple(sorted(due)) == situation.due
    assert tuple(sorted(names_due(report, situation.etcd, now, 0))) == situation.due_at_once
    told = "; ".join(
        reason.why for reason in reasons_against(report, situation.etcd, due, now, Method.RENEW)
    )
    assert bool(told) == bool(situation.refused), told
    assert re.search(situation.refused, told), told


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_made_anew_is_judged_right(name):
    report = parse_json(made_anew(SITUATIONS[name]))

    assert_judged_right(report, SITUATIONS[name], NOW)


@pytest.fixture(scope="module")
def generated(recover_test_data):
    return recover_test_data / "kubeadm" / "generated"


def printed(path):
    """What kubeadm printed: without the command that stands before it and the code behind it."""
    lines = path.read_text().splitlines()
    return "\n".join(
        line for line in lines if not line.startswith(("$ ", "rc=", "json rc=", "yaml rc="))
    )


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_as_kubeadm_printed_it_is_judged_right(generated, name):
    in_json = parse_json(printed(generated / f"{name}.json"))
    in_text = parse_text(printed(generated / f"{name}.txt"))

    assert_judged_right(in_json, SITUATIONS[name], NOW)
    assert_same_but_for_seconds(in_text, in_json)


def assert_same_but_for_seconds(in_text, in_json):
    pairs = ((in_text.leaves, in_json.leaves), (in_text.authorities, in_json.authorities))
    for ours, theirs in pairs:
        for one, other in zip(ours, theirs, strict=True):
            assert (one.name, one.presence) == (other.name, other.presence)
            if other.not_after:
                assert one.not_after == other.not_after.replace(second=0)
                assert one.is_external == other.is_external


FAILURES = {  # what kubeadm says where it would not even list; the refusal carries it
    "06_ca_key_absent_externally_managed": "Error checking external CA condition for ca",
    "09_truncated_apiserver_crt": "failed to load existing certificate apiserver",
    "10_broken_admin_conf": "failed to load kubeConfig file /etc/kubernetes/admin.conf",
}


@pytest.mark.parametrize("name", FAILURES)
def test_where_kubeadm_would_not_list_what_it_says_is_the_refusal(generated, name):
    seen = seen_host(kubeadm_failed=printed(generated / f"{name}.stderr"))

    (reason,) = reasons_of_kubeadm(seen)

    assert FAILURES[name] in reason.why
    assert "\n" not in reason.why
    assert "regenerate" in reason.remedy


@pytest.mark.parametrize("text", FAILURES.values())
def test_what_kubeadm_says_when_it_would_not_list_is_the_refusal(text):
    said = f"W1121 certs.go:474] WARNING: something\nerror: {text}: x509\nTo see the stack trace"

    (reason,) = reasons_of_kubeadm(seen_host(kubeadm_failed=said))

    assert reason.why.endswith(f"error: {text}: x509")


RENEWALS = {  # renewed, external
    "04_renew_one": (("apiserver",), ()),
    "07_renew_all_ca_key_absent": ((), ()),
    "11_renew_all": (ALL, ()),
    "13_renew_all_noconfig": (ALL, ()),
    "16_renew_all_ca_expired": (ALL, ()),  # it says so; that the authority has ended is refused
    "19_renew_all_external_ca": (
        ("front-proxy-client",),
        tuple(name for name in ALL if name != "front-proxy-client"),
    ),
}


@pytest.mark.parametrize("name", RENEWALS)
def test_what_a_renewal_left_out_is_read_from_what_it_printed(generated, name):
    said = parse_renewal(printed(generated / f"{name}.txt"))

    renewed, external = RENEWALS[name]
    assert tuple(sorted(said.renewed)) == renewed
    assert tuple(sorted(said.external)) == external
    assert left_out_names(said, ALL) == [one for one in ALL if one not in renewed]


def test_what_a_renewal_left_out_is_read_from_each_kind_of_line():
    said = parse_renewal(
        "[renew] Reading configuration from the cluster...\n\n"
        "certificate for serving the Kubernetes API renewed\n"
        "MISSING! certificate for serving etcd\n"
        "Detected external front-proxy-ca, "
        "certificate for the front proxy client can't be renewed\n"
        "\nDone renewing certificates. You must restart the kube-apiserver, and etcd.\n"
    )

    assert (said.renewed, said.missing) == (("apiserver",), ("etcd-server",))
    assert said.external == ("front-proxy-client",)
    assert left_out_names(said, ["apiserver", "etcd-server"]) == ["etcd-server"]


CONFIG = """
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
controlPlaneEndpoint: lb-apiserver.kubernetes.local:6443
apiServer:
  certSANs: [lb-apiserver.kubernetes.local, 10.0.0.10]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {name: cp1}
"""
NAMES_OF_14 = (
    "DNS:cp1, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, "
    "DNS:kubernetes.default.svc.cluster.local, DNS:lb-apiserver.kubernetes.local, "
    "IP Address:10.96.0.1, IP Address:10.0.0.10"
)


def test_a_renewal_keeps_exactly_the_names_of_the_configuration(generated):
    text = (generated / "14_san_after_renew_noconfig.txt").read_text()
    config = parse_config((generated / "kubeadm-config.v1beta4.yaml").read_text(), "sample")

    assert names_in(config, "apiserver", "cp1", "10.0.0.10") == sorted(openssl_names(text))


def test_the_names_of_a_configuration_are_those_kubeadm_gives_them():
    expected = names_in(parse_config(CONFIG, "sample"), "apiserver", "cp1", "10.0.0.10")

    assert expected == sorted(openssl_names(NAMES_OF_14))
    assert lost_names(openssl_names(NAMES_OF_14), expected) == []


def openssl_names(text):
    """What `openssl x509 -ext subjectAltName` prints."""
    return re.findall(r"(?:DNS|IP Address):[^,\s]+", text)


def test_with_files_missing_a_renewal_is_refused_and_a_regeneration_is_not():
    left = each(HOUR) | {"apiserver": None, "etcd-server": None}
    report = parse_json(made_anew(Situation(left)))
    due = names_due(report, EtcdKind.STACKED, NOW, 30)

    (reason,) = reasons_against(report, EtcdKind.STACKED, due, NOW, Method.RENEW)
    assert "apiserver.crt, etcd/server.crt missing" in reason.why
    assert reasons_against(report, EtcdKind.STACKED, due, NOW, Method.REGENERATE) == []
    assert "apiserver" not in renewable_names(report, EtcdKind.STACKED)
    assert set(regenerated_names(report, EtcdKind.STACKED)) == set(ALL)


def test_a_joined_host_has_no_super_admin_conf_and_is_fine():
    report = parse_json(made_anew(Situation(each(HOUR) | {"super-admin.conf": None})))
    due = names_due(report, EtcdKind.STACKED, NOW, 30)

    assert "super-admin.conf" not in due
    assert reasons_against(report, EtcdKind.STACKED, due, NOW, Method.RENEW) == []
    assert "super-admin.conf" not in regenerated_names(report, EtcdKind.STACKED)


def test_a_file_that_cannot_be_read_is_refused_by_name():
    leaves = [Known(name, Presence.READABLE, NOW + HOUR) for name in ALL if name != "apiserver"]
    broken = Known("apiserver", Presence.UNREADABLE, why="no certificate")
    authorities = tuple(Known(a.name, Presence.READABLE, NOW + TEN_YEARS) for a in AUTHORITIES)
    report = Report((*leaves, broken), authorities)

    (reason,) = reasons_against(report, EtcdKind.STACKED, ALL, NOW, Method.RENEW)

    assert reason.why == "apiserver.crt cannot be read: no certificate"


def test_an_authority_that_cannot_be_read_is_refused():
    authorities = (
        Known("ca", Presence.UNREADABLE, why="no certificate"),
        *(Known(n, Presence.READABLE, NOW + TEN_YEARS) for n in ("etcd-ca", "front-proxy-ca")),
    )
    leaves = tuple(Known(name, Presence.READABLE, NOW + HOUR) for name in ALL)

    (reason,) = reasons_against(
        Report(leaves, authorities), EtcdKind.STACKED, ALL, NOW, Method.REGENERATE
    )

    assert "the authority ca.crt cannot be read" in reason.why


@pytest.mark.parametrize(("days", "is_refused"), [(399, True), (401, False)])
def test_an_authority_must_outlive_what_it_signs(days, is_refused):
    left = timedelta(days=days)
    report = parse_json(made_anew(Situation(each(HOUR), authorities_left=left)))

    reasons = reasons_against(report, EtcdKind.STACKED, ALL, NOW, Method.RENEW)

    assert bool(reasons) == is_refused


def test_an_authority_without_key_matters_only_to_what_is_due():
    situation = Situation(each(timedelta(days=200)), without_key=("front-proxy-ca",))
    report = parse_json(made_anew(situation))

    assert reasons_against(report, EtcdKind.STACKED, ("apiserver",), NOW, Method.RENEW) == []
    assert "front-proxy-client" not in renewable_names(report, EtcdKind.STACKED)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"certificates": [{"name": "x"}]}', "error: no", '{"certificates": 5}']
)
def test_json_that_is_none_of_kubeadms_is_not_understood(text):
    with pytest.raises(UnreadableOutput):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CERTIFICATE EXPIRES\n",
        "CERTIFICATE   EXPIRES\nadmin.conf   tomorrow   1d   ca   no\n",
    ],
)
def test_a_table_that_is_none_of_kubeadms_is_not_understood(text):
    with pytest.raises(UnreadableOutput):
        parse_text(text)


def test_the_table_of_old_releases_is_read_as_well():
    report = parse_text(
        "CERTIFICATE                EXPIRES                  RESIDUAL TIME   EXTERNALLY MANAGED\n"
        "admin.conf                 May 15, 2020 13:03 UTC   364d            false\n"
        "apiserver                  May 15, 2020 13:00 UTC   364d            true\n"
    )

    assert [leaf.name for leaf in report.leaves] == ["admin.conf", "apiserver"]
    assert [leaf.is_external for leaf in report.leaves] == [False, True]
    assert report.authorities == ()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v1.36.2", ["certs", "check-expiration", "-o", "json"]),
        ("v1.29.0", ["certs", "check-expiration"]),
        ("v1.20.15", ["certs", "check-expiration"]),
        ("v1.19.16", ["alpha", "certs", "check-expiration"]),
        ("v1.15.0", ["alpha", "certs", "check-expiration"]),
    ],
)
def test_each_release_is_called_in_its_own_way(version, expected):
    assert Kubeadm("/bin/kubeadm", version).check_expiration() == ["/bin/kubeadm", *expected]


def test_kubeconfigs_were_made_by_an_alpha_command_until_1_20():
    assert Kubeadm("k", "v1.20.0").kubeconfig("user") == ["k", "alpha", "kubeconfig", "user"]
    assert Kubeadm("k", "v1.21.0").kubeconfig("user") == ["k", "kubeconfig", "user"]


@pytest.mark.parametrize(
    ("version", "api"), [("v1.15.3", "v1beta2"), ("v1.30.1", "v1beta3"), ("v1.31.0", "v1beta4")]
)
def test_each_release_reads_its_own_configuration(version, api):
    assert Kubeadm("k", version).config_version == f"kubeadm.k8s.io/{api}"


def test_what_is_no_version_is_not_understood():
    with pytest.raises(UnreadableOutput, match="kubeadm version"):
        Kubeadm("k", "command not found").certs("renew")
