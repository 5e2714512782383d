"""The way back: put the files back that were changed, and have them used again."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from recovery.errors import NotVerified, Refused
from recovery.steps import undo
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.certificates import sealed
from tasks.certificates.backup import folder_of, is_backed_up
from tasks.certificates.catalogue import KUBELET_PKI, KUBERNETES, Component
from tasks.certificates.look_lines import Lines, api_state
from tasks.certificates.look_script import look_argv
from tasks.certificates.off_host import OffHostCopy, parse_listed
from tasks.certificates.restart import (
    RESTART_KUBELET,
    etcd_is_healthy,
    restart_pod,
    wait_until_used,
)
from tasks.certificates.seen import ApiState
from tasks.certificates.work import Job, Work, changed_paths

# What was not there before is not there afterwards. The files get the time of now, so that whoever
# was started earlier is known to hold something else.
UNPACK = r"""
set -eu; cd /; kept=$1/archive.tgz; shift; list=$(tar -tzf "$kept")
for path; do
  if printf '%s\n' "$list" | grep -qxF -- "$path"
  then tar -xpmzf "$kept" -- "$path"; else rm -f -- "$path"; fi
done; sync
""".strip()
WITHIN_SECONDS = 120.0


def unpack_argv(name: str, folder: str, paths: Sequence[str]) -> list[str]:
    """What puts files back from the archive.

    Args:
        name: why, for who reads the plan.
        folder: where the archive lies.
        paths: absolute.
    """
    return ["sh", "-c", UNPACK, name, folder, *(path.lstrip("/") for path in paths)]


@undo
def restore_backup(job: Job) -> None:
    """Put back every file this recovery changed on the host, and restart what uses it.

    The archive on the host is used; where that is gone or damaged, the encrypted one is sent back.
    Safe where nothing was changed, and twice.

    Raises:
        Refused: what would be put back has ended while the control plane serves what is good, or
            there is no backup any more.
        NotVerified: a file is not what it was, or what uses it did not come back.
        CommandFailed: the host said no.
        Unreachable: no answer.
    """
    with job.host.session():
        refuse_to_go_back_to_ended(job)
        prepare_archive(job)
        argv = unpack_argv("put-back", folder_of(), changed_paths(job.work))
        job.host.change(argv, within_seconds=WITHIN_SECONDS, as_root=True)
        job.host.change(["rm", "-rf", "--", reissued_path(), beside_path()], as_root=True)
        refuse_unless_put_back(job)
        _use_again(job)


def reissued_path() -> str:
    """Where this recovery puts a client certificate of the kubelet."""
    return f"{KUBELET_PKI}/kubelet-client-{current_fence().recovery_id}.pem"


def beside_path() -> str:
    """Where this recovery makes certificates from a configuration, before they replace others."""
    return f"{KUBERNETES}/.recover-{current_fence().recovery_id}"


def refuse_to_go_back_to_ended(job: Job) -> None:
    """Refuse to stop a control plane that works.

    Raises:
        Refused: its API server is ready, and the certificates from before have ended.
    """
    ended = ended_before(job.work, datetime.now(UTC))
    if not ended:
        return
    answer = job.host.read(look_argv("ready"), as_root=True)
    state = api_state(Lines(answer.whole()).text("ready"))
    if state in {ApiState.READY, ApiState.CLOSED}:
        raise Refused(
            job.label,
            f"its API server is {state}, and what would be put back has ended "
            f"({', '.join(ended[:3])}): that would stop it",
            f"If that is wanted all the same, unpack {folder_of()}/archive.tgz there by hand",
        )


def ended_before(work: Work, now: datetime) -> list[str]:
    """Names of the certificates made anew whose predecessors have ended."""
    return [
        one.name
        for one in work.before
        if one.name in work.names and one.not_after is not None and one.not_after <= now
    ]


def prepare_archive(job: Job) -> None:
    """See to it that the archive lies whole on the host; errors are those of `send_back`."""
    if is_backed_up(job) is not Verdict.DONE:
        send_back(job)


def send_back(job: Job) -> None:
    """Send the encrypted archive of this worker to the host it is of.

    Raises:
        Refused: it is not on this worker, or cannot be decrypted.
        BadInput: the key cannot be read.
    """
    copy = OffHostCopy(job.label)
    if not copy.is_kept():
        raise Refused(
            job.label,
            f"the archive in {folder_of()} is gone or damaged, and this worker has none",
            f"Go on where the copy was taken, or bring {copy.path.name} and {copy.note.name} to "
            f"{copy.path.parent} here",
        )
    noted = json.loads(copy.note.read_text())
    archive = b"".join(sealed.opened(copy.path, sealed.load_key(Path(job.backup_key_file))))
    listed = noted["listed"].encode()
    hashes = {"archive.tgz": archive, "files.sha256": listed}
    seal = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in hashes.items())
    folder = folder_of()
    job.host.change(["install", "-d", "-m", "0700", folder], as_root=True)
    for name, body in {**hashes, "seal.sha256": seal.encode()}.items():
        job.host.put(body, f"{folder}/{name}", mode=0o600, as_root=True)


def refuse_unless_put_back(job: Job) -> None:
    """Hold every file that was put back against its hash from before.

    Raises:
        NotVerified: one is another.
    """
    listed = parse_listed(
        job.host.read(["cat", "--", f"{folder_of()}/files.sha256"], as_root=True).whole()
    )
    wanted = {f"/{name}": sha256 for name, sha256 in listed.items()}
    paths = [path for path in changed_paths(job.work) if path in wanted]
    if not paths:
        return
    now = parse_listed(
        job.host.read(["sha256sum", "--", *paths], accept=(0, 1), as_root=True).whole()
    )
    if wrong := [path for path in paths if now.get(path) != wanted[path]]:
        raise NotVerified(
            job.label,
            "every file to be what it was before",
            f"another {', '.join(wrong[:5])}",
            f"Unpack {folder_of()}/archive.tgz there by hand",
        )


def _use_again(job: Job) -> None:
    """Restart what uses the files; wait for it, unless they have ended and nothing can work."""
    is_waited_for = not ended_before(job.work, datetime.now(UTC))
    if job.work.touches_kubelet:
        job.host.change(RESTART_KUBELET, within_seconds=WITHIN_SECONDS, as_root=True)
    for component in job.work.restarts:
        if component is Component.KUBELET or not job.work.names:
            continue
        restart_pod(job, component)
        if is_waited_for:
            wait_until_used(job.host, component)
        if is_waited_for and component is Component.ETCD:
            etcd_is_healthy(job)  # or the next host would take its member away too soon
