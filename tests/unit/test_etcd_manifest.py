"""The flags of a static pod of etcd: read from its manifest, and changed without anything else."""

import pytest
import yaml

from tasks.etcd.manifest import OddManifestError, changed, parse_manifest, pod_name

PEERS = "cp1=https://10.0.0.1:2380,cp2=https://10.0.0.2:2380"
KUBEADM = """\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.0.0.1:2379
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://10.0.0.1:2379
    - --data-dir=/var/lib/etcd  # on a disk of its own
    - --initial-cluster=cp1=https://10.0.0.1:2380
    - --name=cp1
    image: registry.example.net/etcd:3.5.16-0
    name: etcd
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
    - mountPath: /etc/kubernetes/pki/etcd
      name: etcd-certs
  hostNetwork: true
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki/etcd
      type: DirectoryOrCreate
    name: etcd-certs
  - hostPath:
      path: /var/lib/etcd
      type: DirectoryOrCreate
    name: etcd-data
"""
JOIN = {"initial-cluster": PEERS, "initial-cluster-state": "existing"}
BEFORE, AFTER = (
    KUBEADM.split("    - etcd\n", 1)[0],
    "    image:" + KUBEADM.split("    image:", 1)[1],
)


def with_command(lines):
    return f"{BEFORE}{lines}{AFTER}"


def test_flags_and_folders_are_read_as_kubeadm_writes_them():
    pod = parse_manifest(KUBEADM)

    assert pod.flags["name"] == "cp1"
    assert pod.flags["data-dir"] == "/var/lib/etcd"
    assert pod.on_host("/var/lib/etcd/member") == "/var/lib/etcd/member"
    assert pod.on_host("/elsewhere") == ""
    assert pod_name(KUBEADM) == "etcd"


def test_a_change_keeps_every_other_line_as_it_was():
    after = changed(KUBEADM, JOIN)

    lost = [line for line in KUBEADM.splitlines() if line not in after.splitlines()]
    come = [line for line in after.splitlines() if line not in KUBEADM.splitlines()]
    assert lost == ["    - --initial-cluster=cp1=https://10.0.0.1:2380"]
    assert come == [f"    - --initial-cluster={PEERS}", "    - --initial-cluster-state=existing"]
    assert changed(after, JOIN) == after


@pytest.mark.parametrize(
    "command",
    [
        "    - etcd\n    - --name\n    - cp1\n    - --initial-cluster\n    - a=https://b:2380\n",
        '    - "etcd"\n    - "--name=cp1"\n    - \'--initial-cluster=a=https://b:2380\'\n',
        "    - /usr/local/bin/etcd\n    args:\n    - --name=cp1\n    - --log-level=warn # quiet\n",
        "    - etcd\n    args: [--name=cp1, '--initial-cluster=a=https://b:2380']\n",
        "    - etcd\n    - -name=cp1\n    - --client-cert-auth\n    - --force-new-cluster=true\n",
        "    - etcd\n    - &own --name=cp1\n    - --force-new-cluster\n",
    ],
)
def test_flags_are_changed_however_they_are_written(command):
    text = with_command(command)
    former = parse_manifest(text)

    after = parse_manifest(changed(text, JOIN))

    assert after.flags == {**former.flags, **JOIN}
    assert (after.env, after.mounts) == (former.env, former.mounts)


def test_another_container_with_the_same_flags_keeps_its_own():
    sidecar = "  - command: [sidecar, --initial-cluster=mine]\n    name: sidecar\n  hostNetwork"
    text = KUBEADM.replace("  hostNetwork", sidecar)

    after = changed(text, JOIN)

    other = yaml.safe_load(after)["spec"]["containers"][1]
    assert other["command"] == ["sidecar", "--initial-cluster=mine"]
    assert parse_manifest(after).flags["initial-cluster"] == PEERS


def test_a_manifest_in_json_is_changed_too():
    text = yaml.safe_dump(yaml.safe_load(KUBEADM), default_flow_style=True, width=10_000)

    after = changed(text, JOIN)

    assert parse_manifest(after).flags == {**parse_manifest(KUBEADM).flags, **JOIN}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("a: [", "no YAML"),
        ("kind: Pod\n---\nkind: Pod\n", "no YAML"),
        ("kind: Pod\n", "no containers"),
        (KUBEADM.replace("    name: etcd\n", "    name: other\n"), "0 of its containers"),
        (with_command("    - etcd --name=cp1 --data-dir=/d\n"), "does not begin with the program"),
        (with_command("    - sh\n    - -c\n    - exec etcd\n"), "begin with the program etcd but"),
        (with_command("    - etcd\n    - --name=cp1 --data-dir=/d\n"), "several words"),
        (with_command("    - etcd\n    - |\n      --name=cp1\n"), "block of text"),
        (KUBEADM.replace("  - command:\n", "  - command: etcd\n    ports:\n"), "no list of words"),
    ],
)
def test_what_is_not_understood_is_told_and_not_guessed(text, why):
    with pytest.raises(OddManifestError, match=why):
        parse_manifest(text)
    with pytest.raises(OddManifestError, match=why):
        changed(text, JOIN)


@pytest.mark.parametrize(
    ("text", "wanted", "why"),
    [
        (with_command("    - etcd\n    - # its name\n      --name=cp1\n"), JOIN, "line of its own"),
        (KUBEADM, {"initial-cluster": "a: b: c"}, "could not be changed in its text"),
        (KUBEADM, {"initial-cluster": "a #b"}, "without something else"),
    ],
)
def test_what_cannot_be_changed_is_left_as_it_is(text, wanted, why):
    assert parse_manifest(text).flags["name"] == "cp1"
    with pytest.raises(OddManifestError, match=why):
        changed(text, wanted)


def test_a_volume_without_a_name_is_told_as_what_no_kubelet_could_start():
    text = KUBEADM.removesuffix("    name: etcd-data\n")

    with pytest.raises(OddManifestError, match="no pod that the kubelet could start"):
        parse_manifest(text)


def test_a_command_that_an_anchor_shares_with_another_container_is_not_changed():
    shared = "  - command: *flags\n    name: other\n  hostNetwork"
    text = KUBEADM.replace("  - command:\n", "  - command: &flags\n")
    text = text.replace("  hostNetwork", shared)

    with pytest.raises(OddManifestError, match="without something else"):
        changed(text, JOIN)
