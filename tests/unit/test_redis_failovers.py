"""Failovers by sentinel that are declined, joined, or never decided; and what is named."""

from dataclasses import replace

import pytest

from blocks.redis_session import RedisSaidNo
from recovery.errors import BadInput, NotVerified, Refused, Unreachable
from tasks.redis_server import (
    failover,
    sentinels,
)
from tasks.redis_server.files import AofDamage
from tasks.redis_server.sentinels import Watch
from tasks.redis_server.target import redis_server
from tests.unit.redis_scripted import DUE, HELLO, REPLICA, Turns, info, of_master, said_no, slave
from tests.unit.redis_scripted import make as make  # noqa: PLC0414 (the fixture)
from tests.unit.test_redis_outputs import INFO

WATCH = Watch("divoc", "10.0.0.1", 6379, ("10.0.0.4:26379",), ("10.0.0.2:6379",))
PROMOTED = INFO.replace("replid2:0", "replid2:aaaa").replace("offset:-1", "offset:715")
FAILING_OVER = of_master("master,failover_in_progress")


def test_nobody_who_listens_is_no_sentinel(make):
    server = make(PUBSUB=["__sentinel__:hello", 0])

    assert not sentinels.watch_over(server).is_kept


def test_those_who_watch_are_heard(make):
    watch = sentinels.watch_over(make())

    assert watch == WATCH


def test_sentinels_that_say_nothing_are_not_passed_over(make):
    with pytest.raises(Refused, match="none said anything"):
        sentinels.watch_over(make(heard=[]))


def test_two_names_for_one_master_are_not_chosen_between(make):
    with pytest.raises(Refused, match="under several names: divoc, other"):
        sentinels.watch_over(
            make(heard=[HELLO, HELLO.replace("divoc", "other").replace("0.4", "0.5")])
        )


def test_a_redis_that_cannot_hold_writes_back_is_not_failed_over(make):
    old = make(INFO=info(redis_version="6.0.16"))

    with pytest.raises(Refused, match=r"Redis 6\.0\.16 cannot hold writes back"):
        failover.refuse_unless_failover_can_succeed(old, WATCH)


def test_without_an_answer_of_any_sentinel_nothing_is_begun(make):
    server = make(**{"connect 26379": Unreachable("s", "tcp", "refused")})

    with pytest.raises(Unreachable, match=r"10\.0\.0\.4:26379: refused"):
        failover.refuse_unless_failover_can_succeed(server, WATCH)


def test_a_sentinel_that_says_no_is_not_asked_with_another_password(make):
    follows = {"grep -ihE": "dir /var/lib/redis\nreplicaof 10.0.0.1 6379\n"}
    server = make(follows, INFO=REPLICA, **{"connect 26379": said_no("DENIED")})

    with pytest.raises(RedisSaidNo):
        failover.has_failed_over(server, DUE, WATCH)


def test_a_replica_that_its_file_makes_a_master_has_not_failed_over_yet(make):
    follows = {"grep -ihE": "dir /var/lib/redis\nreplicaof 10.0.0.1 6379\n"}

    assert not failover.has_failed_over(make(INFO=REPLICA), DUE, WATCH)
    assert failover.has_failed_over(make(follows, INFO=REPLICA), DUE, WATCH)


def test_a_replica_that_lags_behind_ends_the_failover_before_it_is_ordered(make, monkeypatch):
    monkeypatch.setattr(failover, "CATCH_UP_SECONDS", 0.01)
    both = [slave(), slave("10.0.0.3", priority="1", link="err")]
    lagging = ["master", 714, [["10.0.0.2", "6379", "714"], ["10.0.0.3", "6379", "3"]]]
    server = make(ROLE=lagging, **{"SENTINEL SLAVES": both})

    with pytest.raises(NotVerified, match=r"each replica .* catch up .*10\.0\.0\.3:6379 at 3"):
        failover.fail_over(server, DUE, WATCH)

    assert server.scripted.sent[-1] == "CLIENT UNPAUSE"
    assert not [sent for sent in server.scripted.sent if "FAILOVER" in sent]


def test_a_replica_that_cannot_be_promoted_may_lag_behind(make):
    known = [slave(), slave("10.0.0.3", priority="0"), slave("10.0.0.4", flags="slave,s_down")]
    moving = Turns([["10.0.0.1", "6379"], ["10.0.0.2", "6379"]])
    server = make(
        INFO=Turns([INFO, INFO, PROMOTED, REPLICA]),
        **{"SENTINEL SLAVES": known, "SENTINEL GET-MASTER-ADDR-BY-NAME": moving},
    )

    failover.fail_over(server, DUE, WATCH)

    assert "REPLICAOF 10.0.0.2 6379" in server.scripted.sent


def test_the_writes_go_on_where_sentinel_gives_up(make):
    server = make(**{"SENTINEL MASTER": Turns([of_master(), FAILING_OVER, of_master()])})

    with pytest.raises(NotVerified, match=r"it gave up, and 10\.0\.0\.1:6379 is the master"):
        failover.fail_over(server, DUE, WATCH)

    assert server.scripted.sent[-1] == "CLIENT UNPAUSE"
    assert not [sent for sent in server.scripted.sent if sent.startswith("REPLICAOF")]


def test_the_writes_stay_held_back_while_sentinel_has_not_decided(make, monkeypatch):
    monkeypatch.setattr(failover, "DECIDES_SECONDS", -359.99)
    server = make(**{"SENTINEL MASTER": Turns([of_master(), FAILING_OVER])})

    with pytest.raises(NotVerified, match="the writes are still held back"):
        failover.fail_over(server, DUE, WATCH)

    assert "CLIENT UNPAUSE" not in server.scripted.sent


def test_the_writes_are_held_back_for_as_long_as_sentinel_may_take(make):
    moving = Turns([["10.0.0.1", "6379"], ["10.0.0.2", "6379"]])
    server = make(
        INFO=Turns([INFO, INFO, PROMOTED, REPLICA]),
        **{"SENTINEL GET-MASTER-ADDR-BY-NAME": moving},
    )

    failover.fail_over(server, DUE, replace(WATCH, failover_seconds=60.0))

    sent = server.scripted.sent
    assert sent.index("CLIENT PAUSE 150000 WRITE") < sent.index("SENTINEL FAILOVER divoc")


def test_a_failover_that_sentinel_declines_is_told_and_the_writes_go_on(make):
    server = make(**{"SENTINEL FAILOVER": said_no("NOGOODSLAVE")})

    with pytest.raises(RedisSaidNo):
        failover.fail_over(server, DUE, WATCH)

    assert server.scripted.sent[-1] == "CLIENT UNPAUSE"


def test_a_failover_under_way_is_joined(make):
    server = make(**{"SENTINEL MASTER": Turns([FAILING_OVER, FAILING_OVER, of_master()])})

    with pytest.raises(NotVerified, match="it gave up"):
        failover.fail_over(server, DUE, WATCH)

    assert "SENTINEL FAILOVER divoc" not in server.scripted.sent


@pytest.mark.parametrize(
    ("promoted", "seen"),
    [
        (INFO.replace("replid2:0", "replid2:aaaa").replace("offset:-1", "offset:600"), "599"),
        (INFO, "it is a master of another history"),
        (said_no("NOAUTH"), "it does not tell"),
    ],
)
def test_an_old_master_does_not_follow_one_that_has_less_and_is_fenced(make, promoted, seen):
    moving = Turns([["10.0.0.1", "6379"], ["10.0.0.2", "6379"]])
    server = make(
        INFO=Turns([INFO, INFO, promoted]), **{"SENTINEL GET-MASTER-ADDR-BY-NAME": moving}
    )

    with pytest.raises(NotVerified, match=seen):
        failover.fail_over(server, DUE, WATCH)

    sent = server.scripted.sent
    assert sent[-2:] == ["CLIENT PAUSE 3600000 WRITE", "ACL SETUSER default -replicaof -slaveof"]
    assert "CLIENT UNPAUSE" not in sent
    assert not [one for one in sent if one.startswith("REPLICAOF")]


def test_a_fence_that_is_refused_is_told(make):
    moved = {"SENTINEL GET-MASTER-ADDR-BY-NAME": ["10.0.0.2", "6379"]}
    server = make(**moved, ACL_SETUSER=said_no("NOPERM"))

    with pytest.raises(NotVerified, match="not all of that was taken: ACL SETUSER default"):
        failover.fail_over(server, DUE, WATCH)


def test_a_failover_that_sentinel_has_ended_already_is_only_followed(make):
    moved = {"SENTINEL GET-MASTER-ADDR-BY-NAME": ["10.0.0.2", "6379"]}
    server = make(INFO=Turns([INFO, INFO, INFO, PROMOTED, REPLICA]), **moved)

    failover.fail_over(server, DUE, WATCH)

    changes = [sent for sent in server.scripted.sent if sent.split()[0] in {"REPLICAOF", "CLIENT"}]
    assert changes == ["CLIENT PAUSE 390000 WRITE", "REPLICAOF 10.0.0.2 6379", "CLIENT UNPAUSE"]


def test_an_old_master_that_gets_no_link_is_told(make, monkeypatch):
    monkeypatch.setattr(failover, "LINK_WITHIN_SECONDS", 0.01)
    down = REPLICA.replace("link_status:up", "link_status:down")
    moved = {"SENTINEL GET-MASTER-ADDR-BY-NAME": ["10.0.0.2", "6379"]}

    with pytest.raises(NotVerified, match="link to the new master"):
        failover.fail_over(make(INFO=down, **moved), DUE, WATCH)


@pytest.mark.parametrize(
    ("changed", "field_named"),
    [
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"password_file": "keys/redis"}, "password_file"),
        ({"tls_ca_file": "ca.pem"}, "tls_ca_file"),
        ({"user": "ops"}, "user"),
        ({"copies": "relative"}, "copies"),
        ({"copies": "/var/../etc"}, "copies"),
        ({"copies": "/"}, "copies"),
        ({"host": ""}, "host"),
    ],
)
def test_a_parameter_that_is_malformed_is_named(changed, field_named):
    right = {"host": "ssh://root@db1", "port": 6379, "unit": "", "user": "", "password_file": "",
             "tls_ca_file": "", "copies": "/var/lib/recover/copies"}  # fmt: skip

    with pytest.raises(BadInput) as wrong:
        redis_server(**{**right, **changed})

    assert wrong.value.field == field_named


def test_a_server_is_named_by_port_and_host():
    server = redis_server("ssh://root@db1:2222", 6380, "", "", "", "", "/var/lib/recover")

    assert server.label == "redis:6380@db1:2222"


def test_a_loss_is_named_by_its_bytes():
    assert AofDamage("x", 355, 89, 266, "").loss == "aof-bytes:266"
