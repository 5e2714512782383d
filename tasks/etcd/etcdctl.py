"""Asking etcd by the etcdctl of a member's own host: commands, and what they print."""

import json
from dataclasses import dataclass

from blocks.ssh.command import Answer
from blocks.ssh.host import SshHost
from recovery.errors import CommandFailed, Unreachable, UnreadableOutput
from recovery.secrecy.redaction import redacted_tail
from tasks.etcd.settings import Settings
from tasks.etcd.tools import PATH, WITH_TOOLS

DIAL_SECONDS = 3
ASK_SECONDS = 5
HASH_SECONDS = 300  # it reads every key; a large database takes minutes
POLL_SECONDS = 2  # a first connection to one that begins to listen may hang
SLACK_SECONDS = 10
NO_KEY = "recover/none"  # what is read to see whether reads are answered
NOT_RUN = (126, 127)  # it is not there, or may not be run
EXIT_CODES = (0, 1, 2, 3, 4, 5, 124, 128, 137)
UNANSWERED = (
    "context deadline exceeded",
    "connection refused",
    "request timed out",
    "no leader",
    "leader changed",
    "transport: ",
    "unhealthy cluster",
    "all SubConns are in TransientFailure",
    "too many learner",  # the one before is not promoted yet
    "rpc not supported for learner",
)


@dataclass(frozen=True)
class Status:
    """What a member says of itself; it says so without quorum, too."""

    version: str
    cluster_id: int
    member_id: int
    leader: int
    revision: int
    raft_index: int
    raft_term: int
    db_bytes: int
    in_use_bytes: int
    is_learner: bool
    errors: tuple[str, ...]

    @property
    def is_leader(self) -> bool:
        """Whether it leads."""
        return self.leader == self.member_id != 0


@dataclass(frozen=True)
class Hashed:
    """A hash of keys, and up to where old revisions of them are gone.

    Those of two members can be compared where they have let go of the same.
    """

    hash: int
    compacted: int


@dataclass(frozen=True)
class Listed:
    """A member as the cluster lists it; one that has never started has no name."""

    member_id: int
    name: str
    peer_url: str
    client_url: str
    is_learner: bool
    has_several_urls: bool = False

    @property
    def hex_id(self) -> str:
        """Its id as commands take it."""
        return f"{self.member_id:x}"


def argv(settings: Settings, *words: str, within_seconds: int = ASK_SECONDS) -> list[str]:
    """A command of etcdctl on a member's host, to that member, with an end of its own."""
    tls = {"cacert": settings.authority, "cert": settings.certificate, "key": settings.key}
    finding = ["env", f"PATH={PATH}"]
    if settings.is_static_pod:
        finding = ["sh", "-c", WITH_TOOLS, "with-tools", settings.data]
    return [
        *finding,
        *("timeout", "-k", "5", str(within_seconds + DIAL_SECONDS + SLACK_SECONDS), "etcdctl"),
        f"--endpoints={settings.client_url}",
        *(f"--{name}={path}" for name, path in tls.items() if path),
        *(f"--dial-timeout={DIAL_SECONDS}s", f"--command-timeout={within_seconds}s"),
        *words,
    ]


def ask(host: SshHost, settings: Settings, *words: str, within_seconds: int = ASK_SECONDS) -> str:
    """What etcdctl prints to a question.

    Raises:
        Unreachable: etcd, or its host, gave no answer.
        CommandFailed: it said no.
    """
    command = argv(settings, *words, within_seconds=within_seconds)
    seconds = within_seconds + DIAL_SECONDS + 2 * SLACK_SECONDS
    answer = host.read(command, within_seconds=seconds, accept=EXIT_CODES, as_root=True)
    return require_answer(host, settings, words, answer)


def require_answer(
    host: SshHost, settings: Settings, words: tuple[str, ...], answer: Answer
) -> str:
    """The output of an etcdctl that succeeded; its silence is told from its no.

    Raises:
        Unreachable: etcd gave it no answer.
        CommandFailed: it said no.
    """
    if answer.exit_code == 0:
        return answer.stdout
    said = redacted_tail(answer.stderr.strip() or answer.stdout.strip(), 600)
    asked = f"etcdctl {' '.join(words)}"
    if answer.exit_code in {124, 137} or any(sign in said for sign in UNANSWERED):
        raise Unreachable(
            f"{host.target} ({settings.client_url})",
            asked,
            said or "nothing in time",
            "See `systemctl status` of its unit there, and what it logged, then resume",
        )
    raise CommandFailed(host.target, asked, answer.exit_code or 0, said)


def status(host: SshHost, settings: Settings, within_seconds: int = ASK_SECONDS) -> Status:
    """What a member says of itself; errors are those of `ask`."""
    words = ("endpoint", "status", "-w", "json")
    return parse_status(ask(host, settings, *words, within_seconds=within_seconds))


def members(host: SshHost, settings: Settings) -> list[Listed]:
    """The members that a member lists; from 3.5 on it needs quorum. Errors are those of `ask`."""
    return parse_members(ask(host, settings, "member", "list", "-w", "json"))


def hash_at(host: SshHost, settings: Settings, revision: int) -> Hashed:
    """The hash of all keys up to a revision; equal where data is equal. Errors as of `ask`."""
    words = ("endpoint", "hashkv", f"--rev={revision}", "-w", "json")
    return parse_hash(ask(host, settings, *words, within_seconds=HASH_SECONDS))


def is_healthy(host: SshHost, settings: Settings, within_seconds: int = ASK_SECONDS) -> bool:
    """Whether a member answers a read that needs quorum; a full database does so, too.

    Raises:
        Unreachable: the host gave no answer.
        CommandFailed: there is no etcdctl that can be run.
    """
    words = ("get", NO_KEY, "--keys-only")
    command = argv(settings, *words, within_seconds=within_seconds)
    seconds = within_seconds + DIAL_SECONDS + 2 * SLACK_SECONDS
    gone = NOT_RUN if settings.is_static_pod else ()  # with the container that has it
    answer = host.read(command, within_seconds=seconds, accept=(*EXIT_CODES, *gone), as_root=True)
    return answer.exit_code == 0


def parse_status(printed: str) -> Status:
    """Read what `etcdctl endpoint status -w json` prints of one endpoint (3.4 to 3.6).

        [{"Endpoint":"https://10.0.0.10:2379","Status":{"header":{"cluster_id":14841639068965178418,
        "member_id":10276657743932975437,"revision":5,"raft_term":2},"version":"3.4.23",
        "dbSize":20480,"leader":10276657743932975437,"raftIndex":8,"raftTerm":2,
        "raftAppliedIndex":8,"dbSizeInUse":16384,"errors":["etcdserver: no leader"]}}]

    What is zero, false or empty is left out.

    Raises:
        UnreadableOutput: it is something else.
    """
    try:
        said = json.loads(printed)[0]["Status"]
        header = said["header"]
        return Status(
            str(said["version"]),
            int(header.get("cluster_id", 0)),
            int(header.get("member_id", 0)),
            int(said.get("leader", 0)),
            int(header.get("revision", 0)),
            int(said.get("raftIndex", 0)),
            int(said.get("raftTerm", 0)),
            int(said.get("dbSize", 0)),
            int(said.get("dbSizeInUse", 0)),
            bool(said.get("isLearner", False)),
            tuple(str(error).strip() for error in said.get("errors") or ()),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableOutput("etcdctl endpoint status", printed) from error


def parse_members(printed: str) -> list[Listed]:
    """Read what `etcdctl member list -w json` prints (3.4 to 3.6).

        {"header":{…},"members":[{"ID":10276657743932975437,"name":"h1",
        "peerURLs":["https://10.0.0.10:2380"],"clientURLs":["https://10.0.0.10:2379"]}]}

    Raises:
        UnreadableOutput: it is something else.
    """
    try:
        return [
            Listed(
                int(entry["ID"]),
                str(entry.get("name") or ""),
                _first(entry["peerURLs"]),
                _first(entry.get("clientURLs")),
                bool(entry.get("isLearner", False)),
                len(entry["peerURLs"]) > 1,
            )
            for entry in json.loads(printed)["members"]
        ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableOutput("etcdctl member list", printed) from error


def parse_hash(printed: str) -> Hashed:
    """Read what `etcdctl endpoint hashkv -w json` prints of one endpoint (3.4 to 3.6).

        [{"Endpoint":"…","HashKV":{"header":{…},"hash":2453312,"compact_revision":3}}]

    Raises:
        UnreadableOutput: it is something else.
    """
    try:
        said = json.loads(printed)[0]["HashKV"]
        return Hashed(int(said.get("hash", 0)), int(said.get("compact_revision", 0)))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableOutput("etcdctl endpoint hashkv", printed) from error


def _first(urls: list[str] | None) -> str:
    return urls[0].rstrip("/") if urls else ""
