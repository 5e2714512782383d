"""Looking at a control-plane host: one command, and what kubeadm says."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from blocks.ssh.command import Answer
from tasks.certificates.catalogue import (
    AUTHORITIES,
    KUBELET_CONF,
    KUBELET_CURRENT,
    KUBELET_PKI,
    KUBERNETES,
    LEAVES,
)
from tasks.certificates.kubeadm import Kubeadm, Report, parse_json, parse_text
from tasks.certificates.look_lines import SERVED, Lines, seen_in
from tasks.certificates.look_script import look_argv
from tasks.certificates.seen import Seen

LOOK_WITHIN_SECONDS = 90.0
KUBEADM_WITHIN_SECONDS = 90.0
FILES = (
    *(word for a in AUTHORITIES for word in ("pair", a.name, a.file)),
    *(
        word
        for leaf in LEAVES
        for word in (
            ("conf", leaf.name, f"{KUBERNETES}/{leaf.file}")
            if leaf.is_kubeconfig
            else ("pair", leaf.name, leaf.file)
        )
    ),
)
KUBELET_FILES = (
    *("conf", "kubelet.conf", KUBELET_CONF),
    *("pem", "kubelet-client", KUBELET_CURRENT),
    *("pair", "kubelet-serving", f"{KUBELET_PKI}/kubelet"),
    *("pem", "kubelet-server", f"{KUBELET_PKI}/kubelet-server-current.pem"),
)


class Host(Protocol):
    """What is asked of a host here: `SshHost`, or a stand-in in tests."""

    @property
    def label(self) -> str:
        """Its name in keys and messages."""

    def session(self) -> AbstractContextManager[object]:
        """Keep one connection for all that is run inside."""

    def read(
        self,
        argv: Sequence[str],
        *,
        within_seconds: float = ...,
        accept: tuple[int, ...] = ...,
        as_root: bool = ...,
    ) -> Answer:
        """Run what changes nothing."""


def look_at(host: Host, accounts: Sequence[str] = ()) -> Seen:
    """Read a host: its files, what it serves, what runs on it, and what kubeadm says.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root.
        UnreadableOutput: it answered something else.
    """
    requests = [
        *("facts", *FILES, *KUBELET_FILES, "foreign", "processes"),
        *("same", "sa.key", "", "sa.key", "same", "sa.pub", "-pubin", "sa.pub"),
        *(word for name in SERVED for word in ("served", name)),
        "ready",
        *(word for name in accounts for word in ("account", name)),
    ]
    with host.session():
        host.read(["true"], as_root=True)  # so that connecting is no part of the round trip
        asked_at = time.time()
        printed = host.read(
            look_argv(*requests), within_seconds=LOOK_WITHIN_SECONDS, as_root=True
        ).whole()
        answered_at = time.time()
        lines = Lines(printed)
        report, failed = _ask_kubeadm(host, lines)
    return seen_in(lines, asked_at, answered_at, report, failed)


def _ask_kubeadm(host: Host, lines: Lines) -> tuple[Report | None, str]:
    """What kubeadm says of the certificates, or why it would not."""
    path, version = lines.one("tool:kubeadm"), lines.one("version")
    if not path or not version:
        return None, ""
    kubeadm = Kubeadm(path, version)
    argv = kubeadm.check_expiration()
    if lines.one("same-pki") == "no":
        argv += ["--cert-dir", lines.one("pki")]
    answer = host.read(argv, within_seconds=KUBEADM_WITHIN_SECONDS, accept=(0, 1), as_root=True)
    if answer.exit_code:
        return None, answer.stderr.strip() or answer.stdout.strip() or "it printed nothing"
    return (parse_json if kubeadm.prints_json else parse_text)(answer.whole()), ""
