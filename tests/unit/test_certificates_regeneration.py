"""Certificates that are made anew from a configuration."""

import json
from dataclasses import replace

import pytest

from recovery.errors import BadInput, Refused, Unreachable
from recovery.verdict import Verdict
from tasks.certificates import (
    cluster_config,
    regeneration,
    restoring,
)
from tasks.certificates.cluster_config import names_in, parse_config
from tasks.certificates.judging import Method
from tasks.certificates.seen import Served
from tasks.certificates.work import Before
from tests.unit.certificates_seen import (
    certificate,
    job_of,
    node_of,
)
from tests.unit.certificates_told import Told, lines_of
from tests.unit.test_certificates_look import (
    encoded,
)

CONFIG = """
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
clusterName: prod
controlPlaneEndpoint: "[fd00::9]:6443"
networking: {serviceSubnet: "fd00:1::/112,10.0.0.0/12", dnsDomain: example.net}
apiServer: {certSANs: [a.example.net, 192.0.2.1]}
etcd: {local: {serverCertSANs: [e.example.net], peerCertSANs: [p.example.net]}}
---
kind: Other
"""
CLUSTER = "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\n"


def test_names_come_from_the_whole_configuration():
    config = parse_config(CONFIG, "sample")

    assert names_in(config, "apiserver", "cp1", "192.0.2.7") == [
        "DNS:a.example.net",
        "DNS:cp1",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.example.net",
        "IP Address:192.0.2.1",
        "IP Address:192.0.2.7",
        "IP Address:fd00:1::1",
        "IP Address:fd00::9",
    ]
    assert "DNS:e.example.net" in names_in(config, "etcd-server", "cp1", "192.0.2.7")
    assert "DNS:p.example.net" in names_in(config, "etcd-peer", "cp1", "192.0.2.7")
    assert names_in(config, "front-proxy-client", "cp1", "192.0.2.7") == []
    assert config.cluster_name == "prod"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "a: [",
        "kind: ClusterConfiguration\napiVersion: other/v1",
        "kind: InitConfiguration\napiVersion: kubeadm.k8s.io/v1beta4",
        f"{CLUSTER}networking: 5",
        f"{CLUSTER}networking: {{serviceSubnet: none}}",
    ],
)
def test_what_is_no_configuration_of_kubeadms_is_refused_with_where_to_find_one(text):
    with pytest.raises(BadInput, match="get cm kubeadm-config"):
        parse_config(text, "sample")


def test_real_configurations_of_every_release_are_read(recover_test_data):
    folder = recover_test_data / "kubeadm" / "config"
    known = [
        f for f in sorted(folder.glob("*.yaml")) if "kind: ClusterConfiguration" in f.read_text()
    ]
    assert known

    for file in known:
        text = file.read_text()
        if "invalid" in file.name or "v1alpha" in text or "kubeadm.k8s.io/" not in text:
            continue
        assert parse_config(text, file.name).source == file.name


def test_the_configuration_for_a_host_names_its_own_version_node_and_address():
    config = replace(parse_config(CONFIG, "sample"), validity="2160h0m0s", algorithm="ECDSA-P256")
    work = job_of().work

    text = cluster_config.render(config, work, "/new/pki")
    old = cluster_config.render(
        config, replace(work, kubeadm=replace(work.kubeadm, version="v1.30.1")), "/new/pki"
    )

    assert "certificatesDir: /new/pki" in text
    assert "kubernetesVersion: v1.36.2" in text
    assert "advertiseAddress: 10.0.0.10" in text
    assert "name: cp1" in text
    assert "certificateValidityPeriod: 2160h0m0s" in text
    assert "encryptionAlgorithm: ECDSA-P256" in text
    assert "v1beta3" in old
    assert "certificateValidityPeriod" not in old


def test_a_configuration_is_read_from_the_file_that_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)

    assert cluster_config.cluster_names([node_of()], str(path)).source == str(path)
    with pytest.raises(BadInput, match="relative path"):
        cluster_config.cluster_names([node_of()], "c.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        cluster_config.cluster_names([node_of()], str(tmp_path / "none"))


def test_a_configuration_is_read_from_the_first_api_that_answers():
    answer = json.dumps({"data": {"ClusterConfiguration": CONFIG}})
    off = Told({"look": Unreachable("h", "read", "off")})
    up = Told({"look": f"api:config\t0 {encoded(answer)}"})
    nodes = [replace(node_of(), host=off), replace(node_of(), host=up)]

    assert cluster_config.cluster_names(nodes, "").cluster_name == "prod"
    with pytest.raises(Refused, match="no configuration is named"):
        cluster_config.cluster_names([replace(node_of(), host=off)], "")


def regenerating(**changes):
    names = names_in(parse_config(CONFIG, "s"), "apiserver", "cp1", "10.0.0.10")
    before = (Before("apiserver", "01D", "kube-apiserver", tuple(names)),)
    fields = {"names": ("apiserver",), "before": before, **changes}
    job = job_of(method=Method.REGENERATE)
    return replace(job, work=replace(job.work, **fields))


def test_names_that_would_be_lost_are_found_before_anything_is_made():
    config = parse_config(CONFIG, "the file")
    cluster_config.refuse_if_names_would_be_lost(regenerating(), config)
    more = Before("apiserver", "01D", "kube-apiserver", ("DNS:lb.example.net",))

    with pytest.raises(
        Refused, match=r"apiserver would lose DNS:lb\.example\.net.*\(by the file\)"
    ):
        cluster_config.refuse_if_names_would_be_lost(regenerating(before=(more,)), config)


def test_what_is_served_stands_for_a_certificate_that_cannot_be_read():
    served = Served("kube-apiserver", "a:1", certificate("x", names=("DNS:lb.example.net",)))
    job = regenerating(before=(Before("apiserver"),))
    job = replace(job, seen=replace(job.seen, served=(served,)))

    with pytest.raises(Refused, match="would lose DNS:lb"):
        cluster_config.refuse_if_names_would_be_lost(job, parse_config(CONFIG, "s"))


def test_certificates_are_made_beside_the_old_ones_with_copies_of_the_authorities():
    host = Told()
    job = replace(regenerating(names=("apiserver", "admin.conf")), host=host)

    regeneration.make_beside(job, parse_config(CONFIG, "s"))

    beside = restoring.beside_path()
    room, *phases = host.changed
    assert room[3] == "make-room"
    assert "ca.key" in room
    assert not [word for word in room if word.startswith("sa.")]
    assert phases == [
        ["/bin/it", "init", "phase", "certs", "apiserver", "--config", f"{beside}/kubeadm.yaml"],
        ["/bin/it", "init", "phase", "kubeconfig", "admin", "--config", f"{beside}/kubeadm.yaml",
         "--kubeconfig-dir", beside],
    ]  # fmt: skip
    assert b"certificatesDir" in host.written[f"{beside}/kubeadm.yaml"]
    assert len(list(regeneration.make_commands(job))) == 4


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (lines_of("apiserver", "admin.conf"), Verdict.DONE),
        (lines_of("apiserver"), Verdict.HALF_DONE),
        (lines_of(), Verdict.NOT_DONE),
    ],
)
def test_what_was_made_beside_is_looked_at_there(text, verdict):
    job = replace(regenerating(names=("apiserver", "admin.conf")), host=Told({"look": text}))

    assert regeneration.are_made(job) is verdict


def test_a_certificate_that_lost_a_name_is_not_put_in_place():
    job = replace(regenerating(), host=Told({"look": lines_of("apiserver")}))

    with pytest.raises(Refused, match=r"apiserver lost DNS:a\.example\.net.*Nothing was replaced"):
        regeneration.refuse_if_names_were_lost(job, 30)
    fine = replace(regenerating(before=(Before("apiserver", "01D", "apiserver"),)), host=job.host)
    regeneration.refuse_if_names_were_lost(fine, 30)
    gone = replace(regenerating(), host=Told({"look": lines_of()}))
    regeneration.refuse_if_names_were_lost(gone, 30)


def test_keys_are_put_in_place_before_their_certificates():
    host = Told()

    regeneration.put_in_place(
        replace(regenerating(names=("apiserver", "admin.conf")), host=host), 30
    )

    (argv,) = host.changed
    assert argv[-3:] == ["apiserver.key", "apiserver.crt", "admin.conf"]
