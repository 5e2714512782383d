"""Renewing the certificates that kubeadm keeps, from the ones that are there."""

from collections.abc import Iterable

from recovery.errors import CommandFailed
from recovery.steps import act
from tasks.certificates.backup import folder_of
from tasks.certificates.catalogue import SUPER_ADMIN
from tasks.certificates.files import broken_names, made_anew, read_leaves
from tasks.certificates.kubeadm import (
    CERTS_SINCE,
    SUPER_ADMIN_SINCE,
    Renewal,
    parse_renewal,
)
from tasks.certificates.restoring import restore_backup, unpack_argv
from tasks.certificates.work import Job, Work, leaf_paths

WITHIN_SECONDS = 180.0


def renew_argvs(work: Work) -> list[list[str]]:
    """The commands of kubeadm that renew; releases before 1.20 may stop at a missing file."""
    where = [] if work.is_standard_pki else ["--cert-dir", work.pki]
    is_known = work.kubeadm.minor >= SUPER_ADMIN_SINCE
    has_all = all(one.serial for one in work.before if is_known or one.name != SUPER_ADMIN)
    if has_all or work.kubeadm.minor >= CERTS_SINCE:
        return [work.kubeadm.certs("renew", "all", *where)]
    return [work.kubeadm.certs("renew", *where, name) for name in work.names]


def _mend_argv(job: Job) -> list[str]:
    return unpack_argv("only-if-a-renewal-was-cut-off", folder_of(), leaf_paths(job.work))


def renew_commands(job: Job) -> Iterable[str]:
    """What renews the files; before it, what mends one that was being written when all stopped."""
    argvs = [_mend_argv(job), *renew_argvs(job.work)]
    return [job.host.command_line(argv, as_root=True) for argv in argvs]


@act(
    commands=renew_commands,
    done_when=made_anew,
    each=("job",),
    undo=restore_backup,
    redo_half_done=True,
)
def renew(job: Job) -> None:
    """Have kubeadm issue its certificates anew, from the authorities and names that are there.

    Each gets a new private key. Authorities and the service account key stay, and so does what
    every process holds in memory. Done twice, it issues a second fresh set.

    Raises:
        CommandFailed: kubeadm would not, or left some out, which its exit code does not tell.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 5.
    """
    with job.host.session():
        if broken_names(read_leaves(job.host, job.work.names), job.work.before):
            job.host.change(_mend_argv(job), as_root=True)
        for argv in renew_argvs(job.work):
            answer = job.host.change(argv, within_seconds=WITHIN_SECONDS, as_root=True)
            said = parse_renewal(answer.whole())
            left_out = left_out_names(said, job.work.names if "all" in argv else argv[-1:])
            if left_out:
                raise CommandFailed(
                    job.label,
                    answer.command,
                    answer.exit_code,
                    f"it left out {', '.join(left_out)}\n{answer.stdout}",
                    "Find out why (an authority without its key, a missing file), then resume",
                )


def left_out_names(said: Renewal, wanted: Iterable[str]) -> list[str]:
    """Those of the wanted that kubeadm did not say it renewed."""
    return [name for name in wanted if name not in said.renewed]
