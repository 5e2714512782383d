"""However a lab of hosts ends, nothing of it is left here, and no root file system half built."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.lab import docker_backend, host_root, nspawn_backend
from tests.lab.docker_network import LABEL, NFT
from tests.lab.host_backend import run_tool
from tests.lab.host_cgroups import TOP
from tests.lab.hosts import DOCKER, NSPAWN, capabilities_of, lab_hosts
from tests.lab.processes import LabError, ServerMissing, wait_until
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(300)  # the first run builds the root file system

GONE_WITHIN_SECONDS = 60
LAB = """
    import signal, sys
    from pathlib import Path
    from tests.lab.hosts import BACKENDS, lab_hosts

    def tell(host):
        network = host.machine.network
        if host.name == "h2":
            print(network.name, network.scratch, flush=True)
            if sys.argv[2] == "booting":
                signal.pause()

    (backend,) = [each for each in BACKENDS if each.name == sys.argv[3]]
    with lab_hosts(Path(sys.argv[1]), 2, inner=1, before_boot=tell, backend=backend) as lab:
        lab.hosts[0].run("systemctl start redis-server")
        if sys.argv[2] == "frozen":
            lab.hosts[1].freeze()
        if sys.argv[2] == "cut off":
            lab.cut(lab.hosts[0])
            lab.hosts[1].power_cut()
        print("ready", flush=True)
        signal.pause()
"""
BUILD = """
    import sys
    from pathlib import Path
    from tests.lab import host_root

    host_root.CACHE = Path(sys.argv[1])
    host_root.root_file_system()
"""


@contextlib.contextmanager
def script(text, *arguments):
    """Run Python of our own; it is killed by SIGKILL at the end of the block, and not before."""
    command = [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def needed(*names):
    capabilities_of(NSPAWN).require(*names)
    yield


@pytest.fixture(autouse=True)
def can_run_hosts():
    with started_or_skipped(needed("freeze", "partition")):
        yield


def groups_of(name):
    return [Path(top, each) for top, below, _ in os.walk(TOP) for each in below if name in each]


def processes_in(groups):
    listed = [file.read_text().split() for group in groups for file in group.rglob("cgroup.procs")]
    return {Path("/proc", pid) for pids in listed for pid in pids}


def mentions(word):
    """The processes whose command line has the word."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (process / "cmdline").read_bytes():
                found.append(process)
    return found


def traces_of(name, scratch):
    """What there is of a lab: links, mounts, control groups, processes, files."""
    mounts = [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if scratch in line
    ]
    links = [link for link in Path("/sys/class/net").iterdir() if link.name == name]
    files = [Path(scratch)] if Path(scratch).exists() else []
    return [*links, *mounts, *groups_of(name), *mentions(scratch), *mentions(name), *files]


@pytest.mark.parametrize("state", ["booting", "up", "frozen", "cut off"])
def test_nothing_is_left_of_a_lab_whose_owner_is_killed(tmp_path, state):
    with script(LAB, tmp_path, state, NSPAWN.name) as owner:
        name, scratch = owner.stdout.readline().split()
        if state != "booting":
            assert owner.stdout.readline() == "ready\n"
            assert len(processes_in(groups_of(name))) > 3
        inside = processes_in(groups_of(name))
        assert len(traces_of(name, scratch)) > 5

    wait_until(
        lambda: not [*traces_of(name, scratch), *filter(Path.exists, inside)],
        "nothing to be left",
        within_seconds=GONE_WITHIN_SECONDS,
    )


@pytest.mark.parametrize("state", ["booting", "frozen"])
def test_nothing_is_left_of_a_lab_in_containers_whose_owner_is_killed(tmp_path, state):
    reason = capabilities_of(DOCKER).ssh
    if reason:
        pytest.skip(f"hosts in containers: {reason}")
    with script(LAB, tmp_path, state, DOCKER.name) as owner:
        name, scratch = owner.stdout.readline().split()
        if state != "booting":
            assert owner.stdout.readline() == "ready\n"
        assert len(traces_in_docker(name)) == 2 + 2 + 1

    wait_until(
        lambda: not [*traces_in_docker(name), *mentions(scratch), *mentions(name)],
        "nothing to be left",
        within_seconds=GONE_WITHIN_SECONDS,
    )
    assert not Path(scratch).exists()


def traces_in_docker(name):
    """What Docker has of a lab: containers, networks, filter."""
    label = ["--quiet", "--filter", f"label={LABEL}={name}"]
    containers = run_tool(["docker", "ps", "--all", *label]).split()
    networks = run_tool(["docker", "network", "ls", *label]).split()
    nft = ["docker", "run", "--rm", *NFT, docker_backend.image(), "nft", "list", "tables"]
    filters = [line for line in run_tool(nft).splitlines() if name in line]
    return [*containers, *networks, *filters]


def test_nothing_is_left_of_a_lab_that_has_ended(tmp_path):
    with started_or_skipped(lab_hosts(tmp_path, 2)) as lab:
        name, scratch = lab.network.name, str(lab.network.scratch)
        inside = processes_in(groups_of(name))
        assert len(traces_of(name, scratch)) > 5

    assert not traces_of(name, scratch)
    assert not [process for process in inside if process.exists()]


def test_nothing_is_left_of_a_host_whose_guardian_is_killed(tmp_path):
    with started_or_skipped(lab_hosts(tmp_path)) as lab:
        name, scratch = lab.network.name, str(lab.network.scratch)
        inside = processes_in(groups_of(name))
        (guardian,) = {*mentions("guardian.py")} & {*mentions(f"{scratch}/h1")}

        os.kill(int(guardian.name), signal.SIGKILL)

        wait_until(
            lambda: not [process for process in inside if process.exists()],
            "every process to end with it",
            within_seconds=GONE_WITHIN_SECONDS,
        )
        assert not lab.hosts[0].is_up

    assert not traces_of(name, scratch)


def test_a_build_that_is_killed_leaves_nothing_that_is_taken_for_a_root_file_system(tmp_path):
    with script(BUILD, tmp_path) as builder:
        wait_until(
            lambda: [*tmp_path.glob("partial-*/files/usr")],
            "the build to be at work",
            within_seconds=120,
            still_worth_it=lambda: builder.poll() is None,
        )
        assert mentions(str(tmp_path))

    wait_until(
        lambda: (
            not [*tmp_path.glob("partial-*"), *tmp_path.glob("root-*"), *mentions(f"{tmp_path}")]
        ),
        "nothing to be left",
        within_seconds=GONE_WITHIN_SECONDS,
    )


def test_a_build_that_fails_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(host_root, "CACHE", tmp_path)
    nowhere = tmp_path / "nowhere.list"
    nowhere.write_text(f"deb [trusted=yes] file:{tmp_path}/nowhere stable main\n")
    monkeypatch.setattr(host_root, "sources", lambda: [nowhere])

    with pytest.raises(LabError, match="nowhere"):
        host_root.root_file_system()

    assert {path.name for path in tmp_path.iterdir()} == {
        "root.lock",
        "root.log",
        nowhere.name,
    }


def test_what_this_machine_lacks_is_said(tmp_path, monkeypatch):
    capabilities_of.cache_clear()
    without = tmp_path / "bin"
    without.mkdir()
    for binary in nspawn_backend.BINARIES:
        if binary != "mmdebstrap":
            (without / binary).symlink_to(shutil.which(binary) or "/nonesuch")
    monkeypatch.setenv("PATH", str(without))
    try:
        with pytest.raises(ServerMissing, match="no ssh here: mmdebstrap is not installed"):
            lab_hosts(tmp_path / "lab").__enter__()
        assert not (tmp_path / "lab").exists()
    finally:
        capabilities_of.cache_clear()


def test_a_capability_that_is_missing_is_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(nspawn_backend, "FILTER", "no rule\n")
    capabilities_of.cache_clear()
    try:
        with pytest.raises(ServerMissing, match="no partition here"):
            lab_hosts(tmp_path / "lab", need=["partition"]).__enter__()
    finally:
        capabilities_of.cache_clear()
