"""Making certificates from the configuration of the cluster, beside those that are there.

They are made in a folder of their own with copies of the authorities, looked at there, and only
then put in the place of the old ones: a name that got lost is found before it is missed.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from recovery.errors import Refused
from recovery.steps import act
from recovery.verdict import Verdict
from tasks.certificates.catalogue import AUTHORITIES, BY_NAME, KUBERNETES, LEAVES
from tasks.certificates.cluster_config import ClusterNames, names_served, render
from tasks.certificates.files import faults_of, made_anew
from tasks.certificates.look_lines import Lines, embedded_seen, file_seen, seen_authorities
from tasks.certificates.look_script import look_argv
from tasks.certificates.reading import Presence
from tasks.certificates.restoring import beside_path, restore_backup
from tasks.certificates.seen import FileSeen
from tasks.certificates.work import Before, Job, Work

WITHIN_SECONDS = 120.0
MAKE_ROOM = r"""
set -eu; umask 077; pki=$1; new=$2; shift 2; rm -rf "$new"; mkdir -p "$new/pki/etcd"
for file; do if [ -e "$pki/$file" ]; then cp -p "$pki/$file" "$new/pki/$file"; fi; done
""".strip()
PUT_IN_PLACE = r"""
set -eu; new=$1; pki=$2; conf=$3; shift 3
for file; do
  case $file in
    *.conf) from=$new/$file; to=$conf/$file;; *) from=$new/pki/$file; to=$pki/$file;;
  esac
  if [ -e "$from" ]; then mv -f "$from" "$to"; fi
done; sync; rm -rf "$new"
""".strip()


def _leaf_files(work: Work) -> list[str]:
    """Keys before certificates: a server that looks between the two finds an old pair whole."""
    return [
        f"{leaf.file}{ending}"
        for leaf in LEAVES
        if leaf.name in work.names
        for ending in (("",) if leaf.is_kubeconfig else (".key", ".crt"))
    ]


def _room_argv(work: Work) -> list[str]:
    files = [f"{a.file}{ending}" for a in AUTHORITIES for ending in (".crt", ".key")]
    argv = ["sh", "-c", MAKE_ROOM, "make-room", work.pki, beside_path()]
    return [*argv, *files]


def _config_path() -> str:
    return f"{beside_path()}/kubeadm.yaml"


def _phase_argvs(work: Work) -> list[list[str]]:
    init = [work.kubeadm.path, "init", "phase"]
    config = ["--config", _config_path()]
    return [
        [*init, "kubeconfig", leaf.phase, *config, "--kubeconfig-dir", beside_path()]
        if leaf.is_kubeconfig
        else [*init, "certs", leaf.phase, *config]
        for leaf in LEAVES
        if leaf.name in work.names
    ]


def make_commands(job: Job) -> Iterable[str]:
    """What makes the certificates beside the old ones."""
    return [
        job.host.command_line(_room_argv(job.work), as_root=True),
        job.host.put_line(_config_path(), as_root=True),
        *(job.host.command_line(argv, as_root=True) for argv in _phase_argvs(job.work)),
    ]


def read_beside(job: Job) -> list[FileSeen]:
    """The certificates that were made, held against the copies of the authorities."""
    new = beside_path()
    asked = [word for a in AUTHORITIES for word in ("pair", a.name, f"{new}/pki/{a.file}")]
    for name in job.work.names:
        leaf = BY_NAME[name]
        place = f"{new}/{leaf.file}" if leaf.is_kubeconfig else f"{new}/pki/{leaf.file}"
        asked += ["conf" if leaf.is_kubeconfig else "pair", name, place]
    lines = Lines(job.host.read(look_argv(*asked), as_root=True).whole())
    _, trusted = seen_authorities(lines)
    found = []
    for name in job.work.names:
        authorities = trusted[BY_NAME[name].ca]
        if BY_NAME[name].is_kubeconfig:
            found.append(embedded_seen(lines, name, authorities))
        else:
            found.append(file_seen(lines, "pair", name, authorities))
    return found


def are_made(job: Job) -> Verdict:
    """Whether all of them lie beside the old ones, whole."""
    files = read_beside(job)
    if all(file.is_whole for file in files):
        return Verdict.DONE
    is_any = any(file.presence is not Presence.MISSING for file in files)
    return Verdict.HALF_DONE if is_any else Verdict.NOT_DONE


@act(
    commands=make_commands,
    done_when=are_made,
    each=("job",),
    undo=restore_backup,
    redo_half_done=True,
    lasts_until="put_in_place",
)
def make_beside(job: Job, config: ClusterNames) -> None:
    """Make certificates and kubeconfigs from the configuration, in a folder beside the real one.

    The authorities are copied there, never made. What is in use stays as it
    is. Done twice, the folder is emptied first.

    Raises:
        CommandFailed: kubeadm would not.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 5.
    """
    with job.host.session():
        job.host.change(_room_argv(job.work), as_root=True)
        text = render(config, job.work, f"{beside_path()}/pki")
        job.host.put(text.encode(), _config_path(), as_root=True)
        for argv in _phase_argvs(job.work):
            job.host.change(argv, within_seconds=WITHIN_SECONDS, as_root=True)


def put_commands(job: Job) -> Iterable[str]:
    """What puts them in the place of the old ones."""
    return [job.host.command_line(_put_argv(job.work), as_root=True)]


def _put_argv(work: Work) -> list[str]:
    head = ["sh", "-c", PUT_IN_PLACE, "put-in-place", beside_path(), work.pki, KUBERNETES]
    return [*head, *_leaf_files(work)]


def refuse_if_names_were_lost(job: Job, days_left_min: int) -> None:
    """Refuse to put a certificate in place that does not say what the old one says.

    Those that are in place already, of an act that was cut off, have been looked at.

    Raises:
        Refused: says which certificate lost what. Nothing was replaced.
    """
    made = [file for file in read_beside(job) if file.presence is not Presence.MISSING]
    before = [
        one
        if one.names
        else Before(one.name, one.serial, one.common_name, names_served(job, one.name))
        for one in job.work.before
    ]
    if faults := faults_of(made, before, days_left_min, datetime.now(UTC)):
        raise Refused(
            job.label,
            f"what was made is not what is there: {'; '.join(faults)}",
            "Nothing was replaced. Correct the configuration, and begin anew",
        )


@act(
    commands=put_commands,
    done_when=made_anew,
    each=("job",),
    refuse_if=(refuse_if_names_were_lost,),
    undo=restore_backup,
    redo_half_done=True,
)
def put_in_place(job: Job, days_left_min: int) -> None:  # noqa: ARG001 (its guard asks)
    """Put what was made in the place of what is there; the backup has the old ones.

    Each file is replaced at once. What every process holds in memory stays. Done twice, or cut off
    and done again, what is left to move is moved.

    Raises:
        CommandFailed: the host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 5.
    """
    job.host.change(_put_argv(job.work), as_root=True)
