"""A Redis on a scripted host, and its session, that say what a test has them say."""

import contextlib
from dataclasses import dataclass, field

import pytest

from blocks.redis_session import RedisSaidNo
from blocks.ssh.command import Answer
from tasks.redis_server import (
    failover,
    saving,
    waiting,
)
from tasks.redis_server.target import RedisServer
from tasks.redis_server.triage import Due, Finding
from tasks.redis_server.units import Process
from tests.unit.test_redis_outputs import INFO, STORAGE, UNIT

DUE = Due(Finding.RESTART_ORDERED, "redis-server.service", Process(64, 12729696546), "")
REPLICA = INFO.replace(
    "role:master",
    "role:slave\nmaster_host:10.0.0.1\nmaster_port:6379\nmaster_link_status:up\nslave_repl_offset:1",
)
SETTINGS = ["dir", "/var/lib/redis", "save", "3600 1", "port", "6379", "dbfilename", "dump.rdb"]
HELLO = "10.0.0.4,26379,e977,0,divoc,10.0.0.1,6379,0"


def slave(place="10.0.0.2", flags="slave", link="ok", priority="100"):
    return ["ip", place, "port", "6379", "flags", flags, "master-link-status", link,
            "slave-priority", priority]  # fmt: skip


def of_master(flags="master"):
    return ["name", "divoc", "flags", flags, "failover-timeout", "180000"]


def said_no(word, text="no"):
    return RedisSaidNo("db1", "", word, text)


@dataclass
class Session:
    """Answers each command by its first words; a list of answers is used up, the last one stays."""

    answers: dict
    sent: list = field(default_factory=list)

    def read(self, *words, within_seconds=0):
        self.sent.append(" ".join(words))
        for count in (3, 2, 1):
            key = " ".join(words[:count])
            if key in self.answers:
                answer = self.answers[key]
                if isinstance(answer, Turns):
                    answer = answer.next()
                if isinstance(answer, BaseException):
                    raise answer
                return answer
        raise AssertionError(f"nobody scripted {words}")

    change = read

    @contextlib.contextmanager
    def repeated(self, *words):
        yield lambda: self.read(*words)

    def heard(self, channel, within_seconds):
        yield from self.answers.get("heard", [])


class Turns(list):
    """Answers one after the other."""

    def next(self):
        return self.pop(0) if len(self) > 1 else self[0]


@dataclass
class Host:
    """Prints what fits the command; the first key that is part of it counts."""

    printed: dict
    address: str = "db1"
    target: str = "root@db1"
    sent: list = field(default_factory=list)

    def read(self, argv, *, within_seconds=0, accept=(0,), as_root=False):
        command = " ".join(argv)
        self.sent.append(command)
        for key, answer in self.printed.items():
            if key in command:
                text = answer.next() if isinstance(answer, Turns) else answer
                code, text = text if isinstance(text, tuple) else (0, text)
                assert code in accept, (command, code)
                return Answer(command, self.target, code, text, "")
        raise AssertionError(f"nobody scripted {command!r}")

    change = read

    def command_line(self, argv, *, as_root=False):
        return " ".join(argv)


LISTENS = 'LISTEN 0 511 127.0.0.1:6379 0.0.0.0:* users:(("redis-server",pid=64,fd=6))\n'
PRINTED = {
    "ss -Hltnp": LISTENS,
    "systemctl show --no-pager": UNIT,
    "grep -ihE": "dir /var/lib/redis\nsave 3600 1\n",
    "stat -c 'folder": STORAGE,
    "overcommit": "overcommit 1\n",
    "cat /proc/meminfo": "MemAvailable: 9 kB\n",
    "journalctl": "",
    "tail -n": "",
    "/stat": "64 (redis-server) S 1",
    "MainPID": "",
    "df -P": "overlay 1 1 99999999999 1% /\n",
    "test -f": (1, ""),
    "temp-*.rdb": "",
}
ANSWERS = {
    "PING": "PONG",
    "INFO": INFO,
    "CONFIG GET": SETTINGS,
    "CONFIG REWRITE": "OK",
    "TIME": ["1795239999", "0"],
    "BGSAVE": "Background saving started",
    "SET": "OK",
    "DEL": 1,
    "GET": "none",
    "PUBSUB": ["__sentinel__:hello", 1],
    "heard": [HELLO, HELLO],
    "SENTINEL GET-MASTER-ADDR-BY-NAME": ["10.0.0.1", "6379"],
    "SENTINEL SLAVES": [slave()],
    "SENTINEL MASTER": of_master(),
    "ACL USERS": ["default"],
    "ACL SETUSER": "OK",
    "SENTINEL CKQUORUM": "OK 3 usable Sentinels",
    "SENTINEL FAILOVER": "OK",
    "CLIENT": "OK",
    "REPLICAOF": "OK",
    "ROLE": ["master", 714, [["10.0.0.2", "6379", "714"]]],
}


@dataclass(frozen=True)
class Scripted(RedisServer):
    """A Redis whose sessions are scripted."""

    scripted: Session = None

    @contextlib.contextmanager
    def session(self, address=""):
        if isinstance(self.scripted.answers.get("connect"), BaseException):
            raise self.scripted.answers["connect"]
        yield self.scripted

    @contextlib.contextmanager
    def session_at(self, address, port, login):
        if isinstance(self.scripted.answers.get(f"connect {port}"), BaseException):
            raise self.scripted.answers[f"connect {port}"]
        yield self.scripted

    @property
    def label(self):
        return "redis:6379@db1"


@pytest.fixture
def make(monkeypatch):
    for module in (waiting, saving, failover):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "LOADING_PAUSE_SECONDS", 0.0)

    def make(printed=None, **answers):
        words = {name.replace("_", " "): answer for name, answer in answers.items()}
        printed = dict(printed or {})
        host = Host({**printed, **{k: v for k, v in PRINTED.items() if k not in printed}})
        return Scripted(host, 6379, scripted=Session({**ANSWERS, **words}))

    return make


def info(**changed):
    text = INFO
    for name, value in changed.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        text = text.replace(line, f"{name}:{value}")
    return text
