"""A member stood down and its way back: their scripts on files of the test, without any etcd."""

import os
import subprocess

import pytest

from recovery.errors import Refused
from tasks.etcd import standing_down
from tasks.etcd.as_unit import GO_BACK, SET, variables
from tasks.etcd.evidence import MemberSeen, MemberState
from tasks.etcd.parts import Part
from tasks.etcd.standing_down import MOVE, Stood, wanted_settings
from tasks.etcd.target import EtcdCluster

TELL = '#!/bin/sh\necho "$@" >>"${0%/*}/told"\n'


@pytest.fixture
def place(tmp_path):
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "systemctl"
    stub.write_text(TELL)
    stub.chmod(0o755)
    (tmp_path / "etcd.env").write_text("ETCD_INITIAL_CLUSTER_STATE=existing\n")
    (tmp_path / "settings-before").write_text("ETCD_INITIAL_CLUSTER_STATE=new\n")
    return tmp_path


def run(place, script, *more):
    """Run a script of a member's host; return what systemctl was told."""
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    argv = ["sh", "-c", script, "sh", str(place / "member"), str(place / "aside"), *more]
    subprocess.run(argv, check=True, env={**os.environ, "PATH": path})
    told = place / "bin" / "told"
    return told.read_text() if told.exists() else ""


def go_back(place, had):
    given = (str(place / "etcd.env"), str(place / "settings-before"), "etcd", had)
    return run(place, GO_BACK, *given)


@pytest.mark.parametrize("left", ["nothing", "an empty directory"])
@pytest.mark.parametrize("has_joined", [False, True])
def test_a_member_that_had_no_data_is_neither_started_nor_set_up_anew(place, left, has_joined):
    if left != "nothing":
        (place / "member").mkdir()
    run(place, MOVE, "etcd")
    if has_joined:
        (place / "member").mkdir()
        (place / "member" / "db").write_text("of the new cluster")

    for _ in range(2):
        assert "start" not in go_back(place, "no")

    assert not (place / "member" / "db").exists()
    assert "=existing" in (place / "etcd.env").read_text()
    assert (place / "aside" / "after" / "db").exists() == has_joined


def test_a_member_that_had_data_is_started_on_it_with_its_settings(place):
    (place / "member").mkdir()
    (place / "member" / "db").write_text("of before")
    run(place, MOVE, "etcd")
    (place / "member").mkdir()

    told = go_back(place, "yes")

    assert (place / "member" / "db").read_text() == "of before"
    assert "=new" in (place / "etcd.env").read_text()
    assert "start --no-block -- etcd" in told


def test_what_a_boot_has_begun_before_the_mark_was_set_is_not_taken_for_the_data(place):
    (place / "aside" / "before").mkdir(parents=True)
    (place / "aside" / "before" / "db").write_text("of before")
    (place / "member").mkdir()
    (place / "member" / "db").write_text("begun at a boot")

    for _ in range(2):
        go_back(place, "yes")

        assert (place / "member" / "db").read_text() == "of before"
    assert (place / "aside" / "after" / "db").read_text() == "begun at a boot"
    assert not (place / "aside" / "after.1").exists()


def test_the_members_are_written_without_quotes_which_docker_would_keep(tmp_path):
    file = tmp_path / "etcd.env"
    file.write_text("# of kubespray\nETCD_INITIAL_CLUSTER=a=https://h1:2380\nETCD_NAME=a\n")
    listed = "a=https://h1:2380,b=https://h2:2380"
    part = Part(EtcdCluster("etcd", ()), None, MemberSeen("h2", MemberState.NO_DATA), listed)
    wanted = variables(wanted_settings(part))
    argv = ["sh", "-c", SET, "set", str(file), str(tmp_path / "kept"), *wanted]

    subprocess.run(argv, check=True)

    assert file.read_text().splitlines() == [
        "# of kubespray",
        f"ETCD_INITIAL_CLUSTER={listed}",
        "ETCD_NAME=a",
        "ETCD_INITIAL_CLUSTER_STATE=existing",
    ]


@pytest.mark.parametrize(
    ("has_former", "was_emptied", "is_asked"),
    [(False, False, True), (True, True, False), (True, False, False), (False, True, False)],
)
def test_one_that_was_emptied_of_nothing_is_emptied_again_though_the_new_cluster_serves(
    monkeypatch, has_former, was_emptied, is_asked
):
    begun = Stood(
        is_at_rest=False,
        has_data=True,
        has_former=has_former,
        was_emptied=was_emptied,
        is_set=True,
    )
    monkeypatch.setattr(standing_down, "stood", lambda _: begun)

    def works(_):
        raise Refused("etcd", "it has quorum again", "")

    monkeypatch.setattr(standing_down, "refuse_if_quorum_came_back", works)
    part = Part(EtcdCluster("etcd", ()), None, MemberSeen("h2", MemberState.NO_DATA), "")

    if is_asked:
        with pytest.raises(Refused):
            standing_down.refuse_unless_old_has_no_quorum(part)
    else:
        standing_down.refuse_unless_old_has_no_quorum(part)
