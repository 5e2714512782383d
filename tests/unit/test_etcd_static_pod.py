"""A static pod of etcd: how it is found on a host, moved away and put back, without any kubelet."""

import contextlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from recovery.errors import NotVerified, Refused, UnreadableOutput
from tasks.etcd import as_static_pod, running
from tasks.etcd.as_static_pod import (
    GO_BACK,
    HAS_FAILED,
    IS_AT_REST,
    IS_UP,
    MANIFEST,
    PARK,
    PARKED,
    PUT_BACK,
    AsStaticPod,
)
from tasks.etcd.fitness import refuse_unless_fit, refuse_unless_told_by_file
from tasks.etcd.judging import judge
from tasks.etcd.pod_settings import LOOK, PodSeen, parse_look, pod_settings
from tasks.etcd.running import found_on
from tasks.etcd.settings import Found, Settings
from tasks.etcd.terms import Terms
from tasks.etcd.tools import WITH_TOOLS
from tasks.etcd.wal import LogEnd
from tests.unit.etcd_seen import NO_DATA, STOPPED, member, settings
from tests.unit.test_etcd_manifest import KUBEADM, with_command

BAK = "/etc/kubernetes/manifests/etcd.yaml.bak"
URLS = "--advertise-client-urls=https://10.0.0.1:2379"


def printed(files, kubelet="active"):
    """As LOOK prints it."""
    shown = [
        f"file {path}\n" + "".join(f"|{line}\n" for line in text.splitlines())
        for path, text in files.items()
    ]
    return "\n".join([*shown, f"kubelet {kubelet}\n"])


def seen(files, kubelet="active"):
    return parse_look("h1", printed(files, kubelet))


def settings_in(text):
    return pod_settings("h1", seen({MANIFEST: text}))


def test_settings_are_those_of_its_flags_and_its_folders():
    settings = pod_settings("h1", seen({MANIFEST: KUBEADM}))

    assert (settings.name, settings.data) == ("cp1", "/var/lib/etcd")
    assert settings.client_url == "https://10.0.0.1:2379"
    assert settings.peers == (("cp1", "https://10.0.0.1:2380"),)
    assert (settings.is_static_pod, settings.file, settings.obstacle) == (True, MANIFEST, "")


def test_one_that_was_parked_is_known_and_one_in_place_counts_before_it():
    other = KUBEADM.replace("--name=cp1", "--name=older")
    parked = seen({PARKED: KUBEADM})
    both = seen({MANIFEST: KUBEADM, PARKED: other})

    assert not parked.is_placed
    assert pod_settings("h1", parked).name == "cp1"
    assert both.is_placed
    assert pod_settings("h1", both).name == "cp1"
    assert seen({}) is None
    assert seen({BAK: "kind: Pod\nmetadata: {name: other}\n"}) is None


@pytest.mark.parametrize(
    ("files", "kubelet", "why"),
    [
        ({MANIFEST: KUBEADM, BAK: KUBEADM}, "active", "etcd.yaml.bak describes it, too"),
        ({PARKED: KUBEADM, BAK: KUBEADM}, "active", "etcd.yaml.bak describes it, too"),
        ({MANIFEST: KUBEADM}, "failed", "the kubelet is failed"),
        ({MANIFEST: KUBEADM}, "", "the kubelet is unknown"),
    ],
)
def test_what_stands_against_stopping_it_is_refused_before_anything_is_touched(files, kubelet, why):
    settings = pod_settings("h1", seen(files, kubelet))

    with pytest.raises(Refused, match=why):
        refuse_unless_told_by_file("etcd", member(1, settings=settings))


def test_one_that_is_down_may_join_without_a_tool_and_survives_with_one_alone():
    pod = pod_settings("h1", seen({MANIFEST: KUBEADM}))
    down = member(1, NO_DATA, settings=pod, version="", tool="")

    refuse_unless_fit("etcd", down, is_survivor=False)

    with pytest.raises(Refused, match="in the image of etcd alone"):
        refuse_unless_fit("etcd", down, is_survivor=True)
    with pytest.raises(Refused, match=r"is 3\.3\.1"):
        refuse_unless_fit("etcd", replace(down, version="3.3.1"), is_survivor=False)


def test_what_a_person_types_to_start_or_stop_one_is_what_its_host_understands():
    pod = member(1, settings=pod_settings("h1", seen({MANIFEST: KUBEADM})))

    assert pod.start_by_hand == f"mv {PARKED} {MANIFEST}"
    assert pod.stop_by_hand.endswith(f"mv {MANIFEST} {PARKED}")
    assert member(1).start_by_hand == "systemctl start etcd"


def test_a_manifest_that_cannot_be_changed_can_be_looked_at_and_is_not_rebuilt():
    shared = KUBEADM.replace("  - command:\n", "  - command: &flags\n")
    shared = shared.replace("  hostNetwork", "  - command: *flags\n    name: b\n  hostNetwork")

    settings = pod_settings("h1", seen({MANIFEST: shared}))

    assert settings.name == "cp1"
    with pytest.raises(Refused, match="cannot be changed"):
        refuse_unless_told_by_file("etcd", member(1, NO_DATA, settings=settings))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (with_command("    - etcd --name=cp1 --data-dir=/d\n"), "does not begin with the program"),
        (KUBEADM.replace("--data-dir", "--data-directory"), "does not say where its data is"),
        (KUBEADM.replace("mountPath: /var/lib/etcd", "mountPath: /data"), "no folder of the host"),
        (KUBEADM.replace("path: /var/lib/etcd", "path: /mnt/etcd"), "is /mnt/etcd of the host"),
        (with_command(f"    - etcd\n    - {URLS}\n    - --config-file=/c\n"), "configuration file"),
        (with_command(f"    - etcd\n    - {URLS}\n    - --wal-dir=/w\n"), "apart from its data"),
    ],
)
def test_a_manifest_that_is_not_known_here_is_refused(text, why):
    with pytest.raises(Refused, match=why):
        pod_settings("h1", seen({MANIFEST: text}))


def test_one_of_another_name_is_refused_with_the_name_it_needs():
    with pytest.raises(Refused, match=r"/etc/kubernetes/manifests/etcd-1\.yaml"):
        seen({"/etc/kubernetes/manifests/etcd-1.yaml": KUBEADM})


def test_other_output_of_the_look_is_carried_in_the_error():
    with pytest.raises(UnreadableOutput, match="no such host"):
        parse_look("h1", "no such host\n")


def test_the_look_prints_each_file_that_the_kubelet_would_start_and_no_hidden_one(tmp_path):
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "etcd.yaml").write_text(KUBEADM.rstrip("\n"))  # without an end of its last line
    (folder / "etcd.yaml.bak").write_text(KUBEADM)
    (folder / ".etcd.yaml.swp").write_text(KUBEADM)
    (folder / "kube-apiserver.yaml").write_text("metadata: {name: kube-apiserver}\n")
    argv = ["sh", "-c", LOOK, "look", str(folder), str(tmp_path / "none")]

    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    told = told.replace(str(folder), "/etc/kubernetes/manifests")

    found = parse_look("h1", told)
    assert found.others == (BAK,)
    assert pod_settings("h1", found).name == "cp1"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "etcd.yaml").write_text("of before\n")
    return SimpleNamespace(
        file=tmp_path / "manifests" / "etcd.yaml",
        parked=tmp_path / "parked" / "etcd.yaml",
        keep=tmp_path / "copies" / "settings-before",
        data=tmp_path / "data" / "member",
        aside=tmp_path / "data" / "aside",
    )


def run(script, *words):
    subprocess.run(["sh", "-c", script, "sh", *map(str, words)], check=True)


def test_a_manifest_is_parked_and_put_back_however_often_and_nothing_is_left_beside_it(place):
    for _ in range(2):
        run(PARK, place.file, place.parked, place.keep)

        assert list(place.file.parent.iterdir()) == []
        assert place.parked.read_text() == place.keep.read_text() == "of before\n"
    place.parked.write_text("of now\n")
    run(PARK, place.file, place.parked, place.keep)
    assert place.keep.read_text() == "of before\n"
    for _ in range(2):
        run(PUT_BACK, place.file, place.parked)

        assert list(place.file.parent.iterdir()) == [place.file]
        assert place.file.read_text() == "of now\n"
        assert not place.parked.exists()


def test_one_that_lay_parked_already_is_kept_beside_the_newer_one(place):
    place.parked.parent.mkdir()
    place.parked.write_text("older\n")

    run(PARK, place.file, place.parked, "")

    assert place.parked.read_text() == "of before\n"
    assert [path.read_text() for path in place.parked.parent.glob("*~")] == ["older\n"]


@pytest.mark.parametrize("had", ["yes", "no"])
def test_the_way_back_puts_the_manifest_of_before_back_only_with_its_data(place, had):
    run(PARK, place.file, place.parked, place.keep)
    place.parked.write_text("of the new cluster\n")
    (place.aside / "before").mkdir(parents=True)
    (place.aside / "before" / "db").write_text("of before")
    if had == "no":
        shutil.rmtree(place.aside / "before")
        (place.aside / "emptied").write_text("")

    words = (place.data, place.aside, place.file, place.parked, place.keep, had)
    for _ in range(2):
        run(GO_BACK, *words)

        assert place.file.exists() == (had == "yes")
        assert place.data.exists() == (had == "yes")
    if had == "yes":
        assert place.file.read_text() == "of before\n"
        assert not place.parked.exists()


@contextlib.contextmanager
def an_etcd(tmp_path, *words, before=()):
    """A process that is called etcd, by way of the command before it."""
    program = tmp_path / "bin" / "etcd"
    program.parent.mkdir(exist_ok=True)
    shutil.copy("/bin/sh", program)
    argv = [*before, program, "-c", "echo; read line", "etcd", *words]
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, env={"PATH": "/of/etcd:/usr/bin:/bin"}, **piped) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


@pytest.mark.parametrize("written", [("--data-dir={}",), ("--data-dir", "{}"), ("-data-dir={}",)])
def test_its_process_is_known_by_its_data_and_another_etcd_is_not_taken_for_it(tmp_path, written):
    def is_up(data):
        argv = ["sh", "-c", IS_UP, "is-up", data]
        return subprocess.run(argv, check=False).returncode == 0

    data = str(tmp_path / "data")
    with an_etcd(tmp_path, *(word.format(data) for word in written)):
        assert is_up(data)
        assert not is_up("/var/lib/patroni")
    assert not is_up(data)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root takes tools from elsewhere")
def test_the_tools_of_the_container_that_runs_come_before_those_of_the_host(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    argv = ["sh", "-c", WITH_TOOLS, "with-tools", str(data), "sh", "-c", "echo $PATH"]
    program = ["sh", "-c", WITH_TOOLS, "with-tools", str(data), "no-such-tool"]

    with an_etcd(tmp_path, f"--data-dir={data}") as process:
        found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    without = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    missing = subprocess.run(program, capture_output=True, check=False)

    assert found.split(":")[0] == f"/proc/{process.pid}/root/of/etcd"
    assert "/proc/" not in without
    assert missing.returncode == 127


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has others do this")
@pytest.mark.parametrize("before", [
    ("unshare", "--mount", "sh", "-c", 'mount --bind {other} {data} && exec "$0" "$@"'),
    ("setpriv", "--reuid=65534", "--clear-groups"),
])  # fmt: skip
def test_what_only_calls_itself_etcd_lends_no_tools(tmp_path, before):
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data, other):
        folder.mkdir()
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):  # that others can run what is in there
        if folder != Path("/tmp"):  # noqa: S108 (as it is)
            folder.chmod(0o755)
    words = [word.format(data=data, other=other) for word in before]
    argv = ["sh", "-c", WITH_TOOLS, "with-tools", str(data), "sh", "-c", "echo $PATH"]

    with an_etcd(tmp_path, f"--data-dir={data}", before=words):
        found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert "/proc/" not in found


@pytest.mark.parametrize("flag", ["--force-new-cluster", "--force-new-cluster=true"])
def test_a_member_that_makes_a_cluster_of_its_own_at_each_start_is_not_started(flag):
    text = KUBEADM.replace("    - etcd\n", f"    - etcd\n    - {flag}\n", 1)
    forced = settings_in(text)
    members = [
        replace(
            member(n, STOPPED, log=LogEnd(9, 9, 2)), settings=replace(settings(n), is_forced=True)
        )
        for n in (1, 2)
    ]

    assert forced.is_forced
    assert not settings_in(KUBEADM).is_forced
    assert not settings_in(text.replace(flag, "--force-new-cluster=false")).is_forced
    with pytest.raises(Refused, match="each start makes a cluster of it alone"):
        judge("etcd", [*members, member(3, NO_DATA)], Terms())


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("name: etcd-data\n", "name: etcd-data\n      subPath: inner\n", "no folder"),
        (
            "    image:",
            "    env: [{name: ETCD_INITIAL_CLUSTER, value: a=b}]\n    image:",
            "its environment says ETCD_INITIAL_CLUSTER",
        ),
    ],
)
def test_what_the_kubelet_would_do_otherwise_than_it_is_read_is_an_obstacle(old, new, why):
    text = KUBEADM.replace(old, new, 1)
    try:
        told = settings_in(text).obstacle
    except Refused as refused:
        told = str(refused)
    assert why in told


@pytest.mark.parametrize(
    ("said", "is_link", "odd"),
    [
        ("staticPodPath: {0}/", False, ""),
        ('staticPodPath: "{0}"', False, ""),
        ("kind: KubeletConfiguration", False, ""),
        ("staticPodPath: /elsewhere", False, "the kubelet reads /elsewhere instead of {0}"),
        ("staticPodPath: {0}", True, "{0}/etcd.yaml is a symbolic link"),
    ],
)
def test_the_folder_of_the_kubelet_is_looked_at_for_what_kubeadm_does_not_make(
    tmp_path, said, is_link, odd
):
    folder, config = tmp_path / "manifests", tmp_path / "config.yaml"
    folder.mkdir()
    config.write_text(said.format(folder) + "\n")
    (tmp_path / "own.yaml").write_text(KUBEADM)
    script = LOOK.replace("/var/lib/kubelet/config.yaml", str(config))
    script = script.replace("/etc/kubernetes)", f"{tmp_path})")
    if is_link:
        (folder / "etcd.yaml").symlink_to(tmp_path / "own.yaml")
    argv = ["sh", "-c", script, "look", str(folder), str(tmp_path / "parked")]

    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    found = [line for line in told.splitlines() if line.startswith("odd ")]
    assert found == ([f"odd {odd.format(folder)}"] if odd else [])


@pytest.mark.parametrize("odd", ["is a symbolic link", "the kubelet reads /etc/manifests instead"])
def test_a_folder_that_is_otherwise_than_kubeadm_makes_it_is_an_obstacle(odd):
    told = printed({MANIFEST: KUBEADM}).replace("kubelet ", f"odd {odd}\nkubelet ", 1)

    assert odd in pod_settings("h1", parse_look("h1", told)).obstacle


@pytest.mark.parametrize(
    ("pods", "is_placed", "is_at_rest"),
    [("", False, True), ("4f1c", False, False), ("", True, False)],
)
def test_it_is_at_rest_once_the_kubelet_has_ended_its_pod(
    tmp_path, monkeypatch, pods, is_placed, is_at_rest
):
    crictl = tmp_path / "crictl"
    crictl.write_text(f"#!/bin/sh\necho {pods}\n")
    crictl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = tmp_path / "etcd.yaml"
    if is_placed:
        file.write_text("")
    argv = ["sh", "-c", IS_AT_REST, "is-at-rest", str(file), str(tmp_path / "data")]

    assert (subprocess.run(argv, check=False).returncode == 0) == is_at_rest


def test_what_a_container_logged_that_has_ended_is_told_and_older_logs_are_not(
    tmp_path, monkeypatch
):
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text('#!/bin/sh\necho "$KUBELET_SINCE"\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    script = HAS_FAILED.replace("/var/log/pods", str(tmp_path))
    folder = tmp_path / "kube-system_etcd-cp1_uid" / "etcd"
    folder.mkdir(parents=True)
    log, file = folder / "0.log", tmp_path / "etcd.yaml"
    argv = ["sh", "-c", script, "has-failed", str(file), str(tmp_path / "data")]

    def told(written_at):
        log.write_text("started\npanic: crc mismatch\n")
        os.utime(log, (written_at, written_at))
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert told(1) == ""  # its manifest is away
    file.write_text("")
    now = file.stat().st_ctime
    assert told(now - 60) == ""  # of before it was put back
    assert told(now + 1) == ""  # it may be about to run
    argv[2] = script.replace("3 seconds ago", "now + 1 hour")
    assert told(now + 1).splitlines() == ["its container has ended", "panic: crc mismatch"]
    monkeypatch.setenv("KUBELET_SINCE", "Thu 2099-01-01 00:00:00 UTC")
    assert told(now + 1) == ""  # the kubelet has come up since, and is about to start it


class Host:
    """A host of which nothing is asked but what a test says."""

    target = label = "h1"

    def command_line(self, argv, **_):
        return " ".join(argv)

    def change(self, argv, **_):
        pass

    def put_line(self, path, **_):
        return f"put {path}"


def test_a_plan_shows_the_flags_that_are_written_into_the_manifest():
    pod = AsStaticPod(Host(), Settings(is_static_pod=True))

    lines = pod.take_down_lines({"initial-cluster-state": "existing"}, "/copies/settings-before")

    assert lines[1:] == [
        f"# {PARKED}, all else as it is, with: --initial-cluster-state=existing",
        f"put {PARKED}",
    ]


def test_one_that_became_odd_meanwhile_stays_parked_and_says_so(monkeypatch):
    monkeypatch.setattr(AsStaticPod, "_stop", lambda *_: None)
    monkeypatch.setattr(as_static_pod, "read_manifest", lambda *_: "a: [")
    pod = AsStaticPod(Host(), Settings(is_static_pod=True))

    with pytest.raises(Refused, match="It is stopped"):
        pod.take_down({"initial-cluster-state": "existing"}, "")


def test_one_that_the_kubelet_does_not_end_is_not_taken_for_stopped(monkeypatch):
    monkeypatch.setattr(as_static_pod, "STOP_SECONDS", 0)
    monkeypatch.setattr(as_static_pod, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(AsStaticPod, "is_at_rest", lambda _: False)
    pod = AsStaticPod(Host(), Settings(is_static_pod=True))

    with pytest.raises(NotVerified, match="the kubelet to end its etcd"):
        pod.stop()


@pytest.mark.parametrize(
    ("unit", "is_running", "has_unit", "found"),
    [
        ("etcd.service", False, True, "pod"),  # a package has brought the unit along
        ("etcd.service", False, False, "pod"),
        ("kubelet.service", True, True, "pod"),
        ("etcd-events.service", True, True, "unit"),
        ("etcd-events.service", False, False, "pod"),
    ],
)
def test_a_unit_that_runs_beside_a_static_pod_is_not_taken_for_it(
    monkeypatch, unit, is_running, has_unit, found
):
    as_unit = Found("unit", is_running, is_starting=False, settings=Settings())
    as_pod = Found("pod", is_running=True, is_starting=False, settings=Settings())
    pod = PodSeen(KUBEADM, is_placed=True, others=(), kubelet="active")
    monkeypatch.setattr(running, "look_for_pod", lambda _: pod)
    monkeypatch.setattr(running, "unit_found", lambda *_: (as_unit if has_unit else None, "none"))
    monkeypatch.setattr(running, "pod_found", lambda *_: as_pod)

    assert found_on(Host(), unit)[0].told == found


def test_an_etcd_that_runs_as_both_is_refused_with_the_way_to_say_which(monkeypatch):
    as_unit = Found("unit etcd", is_running=True, is_starting=False, settings=Settings())
    pod = PodSeen(KUBEADM, is_placed=True, others=(), kubelet="active")
    monkeypatch.setattr(running, "look_for_pod", lambda _: pod)
    monkeypatch.setattr(running, "unit_found", lambda *_: (as_unit, "unit etcd"))

    with pytest.raises(Refused, match="unit=kubelet"):
        found_on(Host(), "etcd.service")
