"""Every way of losing members of etcd: recovered with every acknowledged key, or refused truly.

An ordinary run takes a sample of the patterns on three members; FAULTS=all takes every one, also
on a newer etcd, and those of five members.
"""

import itertools

import pytest

from recovery.run import RecoveryState
from tests.faults.conftest import IS_WHOLE
from tests.integration.etcd_runs import EtcdRuns
from tests.lab.etcd_hosts import etcd_lab
from tests.lab.session import started_or_skipped

pytestmark = pytest.mark.timeout(600)
KEYS = 150
# How the last survivors are found: serving what needs no quorum, started anew and silent, stopped,
# stopped before the others were lost, as where the power of all goes at once, or with a database
# that is damaged.
SURVIVORS = ("serving", "silent", "stopped", "stopped-first", "damaged")
LOST = ("no-data", "off")


def patterns(count):
    """How many are lost, how they are, and how those are that are left."""
    return [
        (lost, how, left) for lost, how, left in itertools.product(range(1, count), LOST, SURVIVORS)
    ]


SAMPLE = [(2, "no-data", "damaged")]
OF_THREE = patterns(3) if IS_WHOLE else SAMPLE
OF_FIVE = patterns(5) if IS_WHOLE else []


@pytest.fixture(scope="module", params=["debian", "newer"] if IS_WHOLE else ["debian"])
def three(request, tmp_path_factory):
    is_newer = request.param == "newer"
    lab = etcd_lab(tmp_path_factory.mktemp("etcd3"), is_newer=is_newer)
    with started_or_skipped(lab, is_optional=is_newer) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    with started_or_skipped(etcd_lab(tmp_path_factory.mktemp("etcd5"), 5)) as etcd:
        yield etcd


def lose(etcd, lost, how, left):
    """Bring the members into a pattern; return those that are left."""
    gone, rest = etcd.members[-lost:], etcd.members[:-lost]
    if left == "stopped-first":
        stop(rest)
    for member in gone:
        member.lose_data() if how == "no-data" else member.host.power_cut()
    if left in {"silent", "stopped"}:
        stop(rest)
    for member in rest if left != "damaged" else rest[:1]:
        if left == "damaged":
            member.damage()
        if left == "silent":
            member.host.run("systemctl start --no-block etcd")
    return rest


def stop(members):
    for member in members:
        member.host.run("systemctl kill -s KILL etcd; systemctl stop etcd")


def recover_from(etcd, tmp_path, lost, how, left):
    etcd.begin_anew()
    etcd.members[0].fill(KEYS)
    before = etcd.members[0].contents()
    rest = lose(etcd, lost, how, left)
    off = [f"off:{m.host.address}" for m in etcd.members[-lost:]] if how == "off" else []

    ended = EtcdRuns(etcd, tmp_path).run(accept=off)

    if ended.state is RecoveryState.RECOVERED:
        joined = rest if how == "off" else etcd.members
        for member in joined if ended.result.cure == "rebuild" else rest:
            if left != "damaged" or member is not rest[0]:
                assert member.contents() == before, member.host
        return ended
    assert ended.state is RecoveryState.REFUSED, ended.error
    return ended


def is_recovered(count, lost, left):
    """Whether a pattern is to be recovered from; else there is a reason against it."""
    has_quorum = count - lost > count // 2
    if has_quorum:
        return left.startswith(
            "stopped"
        )  # they are started; what serves or is silent is not rebuilt
    return left != "damaged"


REASONS = ("has quorum", "elects no leader", "cannot be used", "fails", "disagree")


def assert_as_it_should_be(ended, count, lost, left):
    if is_recovered(count, lost, left):
        assert ended.state is RecoveryState.RECOVERED, ended.error
    elif ended.state is RecoveryState.REFUSED:
        assert any(reason in str(ended.error) for reason in REASONS), ended.error


@pytest.mark.parametrize(("lost", "how", "left"), OF_THREE)
def test_any_loss_of_three_members_is_recovered_or_refused_truly(three, tmp_path, lost, how, left):
    ended = recover_from(three, tmp_path, lost, how, left)

    assert_as_it_should_be(ended, 3, lost, left)


@pytest.mark.parametrize(("lost", "how", "left"), OF_FIVE)
def test_any_loss_of_five_members_is_recovered_or_refused_truly(five, tmp_path, lost, how, left):
    ended = recover_from(five, tmp_path, lost, how, left)

    assert_as_it_should_be(ended, 5, lost, left)
