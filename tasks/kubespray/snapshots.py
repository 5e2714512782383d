"""A snapshot of etcd, kept on a host that lives before a playbook may delete its data there."""

from blocks.ssh import detached as ssh_detached
from blocks.ssh.detached import DetachedCommand
from blocks.ssh.host import SshHost
from recovery.errors import BadInput, CommandFailed, Refused
from recovery.steps import act, probe
from recovery.walk import current_fence
from tasks.kubespray.etcd import ETCDCTL
from tasks.kubespray.reading import Found
from tasks.kubespray.recovering import Due
from tasks.kubespray.target import Kubespray

FOLDER = "/var/lib/recover/kubespray"
SAVE_WITHIN_SECONDS = 1800.0
# The scratch restore is the proof: the tool that saves does not look at what it has written. Where
# etcdctl restores no more, etcdutl does.
SAVE = f"""set -e
umask 077
{ETCDCTL}
set -eu
file=$1
mkdir -p "$(dirname "$file")"
rm -rf "$file.new" "$file.proof"
etcdctl --command-timeout=20m snapshot save "$file.new"
if command -v etcdutl >/dev/null; then restore=etcdutl; else restore=etcdctl; fi
$restore snapshot restore "$file.new" --data-dir "$file.proof" --name proof \\
  --initial-cluster proof=http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380
rm -rf "$file.proof"
sync "$file.new"
mv -T "$file.new" "$file"
"""


def snapshot_path() -> str:
    """Where it is kept on the host."""
    return f"{FOLDER}/{current_fence().recovery_id}.db"


def keeper(order: Kubespray, found: Found, due: Due) -> SshHost:
    """The host whose data the role goes on from: the first that lives and has etcd.

    Raises:
        BadInput: it was not named over SSH.
    """
    for name in due.survivors:
        asked = due.etcd.of(name)
        host = order.host_of(name, found.layout)
        if asked is not None and asked.version and host is not None:
            return host
    raise BadInput("hosts", "none of them has an etcd", "Name a host of etcd that lives")


def _saving() -> DetachedCommand:
    argv = ("sh", "-c", SAVE, "save", snapshot_path())
    return DetachedCommand("keep-etcd-snapshot", argv, SAVE_WITHIN_SECONDS)


def save_commands(order: Kubespray, found: Found, due: Due) -> list[str]:
    """What saves the snapshot and proves it."""
    return ssh_detached.run_lines(keeper(order, found, due), _saving())


def is_kept(order: Kubespray, found: Found, due: Due) -> bool:
    """Whether the snapshot is there; it gets its name only once it is proven."""
    host = keeper(order, found, due)
    argv = ["test", "-f", snapshot_path()]
    return host.read(argv, accept=(0, 1), as_root=True).exit_code == 0


@act(commands=save_commands, done_when=is_kept)
def keep_snapshot(order: Kubespray, found: Found, due: Due) -> None:
    """Save a snapshot of etcd on a host that lives, and restore it into a scratch folder as proof.

    etcd is only read; it works without a quorum, too. The snapshot holds all secrets of the
    cluster, for root alone; it is kept until somebody removes it.

    Raises:
        CommandFailed: etcd gives none, the disk is full, or it cannot be restored.
        Unreachable: no answer; the host goes on.

    Runbook: docs/runbooks/kubespray.md, step 5.
    """
    ssh_detached.run(keeper(order, found, due), _saving())


@probe
def refuse_unless_given_is_there(order: Kubespray, snapshot: str) -> None:
    """Refuse where a snapshot was given that is not on the machine of the playbooks.

    Raises:
        Refused: it is not.

    Runbook: docs/runbooks/kubespray.md, step 4.
    """
    if not snapshot:
        return
    try:
        order.machine.read(["test", "-r", snapshot])
    except CommandFailed as error:
        raise Refused(
            order.label,
            f"there is no snapshot {snapshot} on {order.machine.label}",
            "The role copies it from there to the host: put it there, or leave etcd_snapshot empty",
        ) from error
