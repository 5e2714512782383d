"""Members of etcd as a look at them finds them, for tables of what is judged from that."""

from dataclasses import replace

from blocks.ssh.command import Answer
from tasks.etcd.etcdctl import Listed, Status
from tasks.etcd.evidence import MemberSeen, MemberState
from tasks.etcd.settings import Settings
from tasks.etcd.target import EtcdCluster
from tasks.etcd.wal import LogEnd

CLUSTER = EtcdCluster("etcd", ())


def settings(number, *, of=3, **more):
    peers = tuple((f"h{n}", f"https://h{n}:2380") for n in range(1, of + 1))
    return Settings(
        f"h{number}", "/d", f"https://h{number}:2380", f"https://h{number}:2379",
        peers=peers, file="/etc/default/etcd", **more,
    )  # fmt: skip


def member(number, what=MemberState.SERVING, **more):
    said = None
    if what is MemberState.SERVING:
        leader, revision = more.pop("leader", 0), more.pop("revision", 10)
        errors, size = more.pop("errors", ()), more.pop("db_bytes", 0)
        more.setdefault("log", None if more.get("is_healthy") else LogEnd(revision, revision, 2))
        said = Status("3.4.23", 1, number, leader, revision, revision, 2, size, 0, False, errors)  # noqa: FBT003 (as the parser makes it)
    if what in {MemberState.AWAY, MemberState.NO_UNIT}:
        return MemberSeen(f"h{number}", what)
    given = {"settings": settings(number), "version": "3.4.23", "tool": "etcdctl", "hash": 7}
    return MemberSeen(f"h{number}", what, status=said, **(given | more))


def of_five(number, what=MemberState.SERVING, **more):
    return member(number, what, **{"settings": settings(number, of=5)} | more)


def of_another_cluster(number):
    seen = member(number, leader=number, is_healthy=True)
    return replace(seen, status=replace(seen.status, cluster_id=9))


WELL = {"leader": 1, "is_healthy": True}
NO_DATA, STOPPED, AWAY, SILENT = (
    MemberState.NO_DATA, MemberState.STOPPED, MemberState.AWAY, MemberState.SILENT,
)  # fmt: skip


FIVE = tuple(
    Listed(n, f"h{n}", f"https://h{n}:2380", f"https://h{n}:2379", is_learner=False)
    for n in (1, 2, 3, 4, 5)
)


LEARNER = Listed(9, "", "https://h9:2380", "", is_learner=True)
TWO_URLS = Listed(
    4, "h4", "https://h4:2380", "https://h4:2379", is_learner=False, has_several_urls=True
)


def well(number, **more):
    listed = tuple(
        Listed(n, f"h{n}", f"https://h{n}:2380", f"https://h{n}:2379", is_learner=False)
        for n in (1, 2, 3)
    )
    return member(number, **{"leader": 1, "is_healthy": True, "listed": listed} | more)


class Printing:
    """A host that prints the proof of a snapshot."""

    label = "h1"

    def read(self, argv, **_):
        return Answer("cat", self.label, 0, '{"revision":10}', "")
