"""The backup on the host: taken before anything is changed, unpacked and compared at once."""

from collections.abc import Iterable

from recovery.steps import act
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.certificates.catalogue import KUBELET_PKI, KUBERNETES
from tasks.certificates.work import Job

BASE = "/var/backups/kubernetes-certificates"
WITHIN_SECONDS = 300.0
# What kubeadm keeps in etc/kubernetes/tmp are copies of etcd from upgrades: large, and not changed.
BACK_UP = r"""
set -eu; umask 077; cd /; to=$1; shift
install -d -m 0700 "${to%/*}" "$to"
trap 'rm -rf "$to/proof" "$to"/*.partial' EXIT
find "$@" -path etc/kubernetes/tmp -prune -o -type f -exec sha256sum -- {} + >"$to/files.partial"
tar --exclude=etc/kubernetes/tmp --hard-dereference -czpf "$to/archive.partial" -- "$@"
rm -rf "$to/proof"; mkdir "$to/proof"
tar -C "$to/proof" -xzpf "$to/archive.partial"
(cd "$to/proof"; sha256sum --quiet --check "$to/files.partial")
mv "$to/archive.partial" "$to/archive.tgz"; mv "$to/files.partial" "$to/files.sha256"
cd "$to"; sha256sum archive.tgz files.sha256 >seal.partial; sync
mv seal.partial seal.sha256; sync
""".strip()
IS_WHOLE = 'cd "$1" && exec sha256sum --quiet --check seal.sha256'


def folder_of() -> str:
    """Where this recovery keeps what it needs on a host."""
    return f"{BASE}/{current_fence().recovery_id}"


def kept_paths(job: Job) -> tuple[str, ...]:
    """What is in the archive, relative to the root."""
    outside = () if f"{job.work.pki}/".startswith(f"{KUBERNETES}/") else (job.work.pki,)
    paths = (KUBERNETES, KUBELET_PKI, *outside, *(a.path for a in job.work.accounts))
    return tuple(path.lstrip("/") for path in paths)


def _argv(job: Job) -> list[str]:
    return ["sh", "-c", BACK_UP, "back-up", folder_of(), *kept_paths(job)]


def back_up_commands(job: Job) -> Iterable[str]:
    """What takes and proves the backup."""
    return [job.host.command_line(_argv(job), as_root=True)]


def is_backed_up(job: Job) -> Verdict:
    """Whether the archive of this recovery lies on the host, byte by byte as it was taken."""
    argv = ["sh", "-c", IS_WHOLE, "is-whole", folder_of()]
    answer = job.host.read(argv, accept=(0, 1, 2), as_root=True)
    return Verdict.DONE if answer.exit_code == 0 else Verdict.NOT_DONE


@act(commands=back_up_commands, done_when=is_backed_up, each=("job",), redo_stale=False)
def back_up(job: Job) -> None:
    """Back up what is about to change, and all that hangs on it, on the host itself.

    Nothing but the backup is written. Done twice before anything was changed, the second replaces
    the first; gone later, it cannot be taken again, and a person is asked.

    Raises:
        CommandFailed: no space, a file that cannot be read, or one that changed while it was read.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 3.
    """
    job.host.change(_argv(job), within_seconds=WITHIN_SECONDS, as_root=True)
