"""Kubeconfigs of people: replaced by the new admin.conf, each with its own owner and mode."""

from collections.abc import Iterable, Sequence

from recovery.errors import BadInput
from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.certificates.backup import folder_of
from tasks.certificates.catalogue import ADMIN, KUBERNETES
from tasks.certificates.look_lines import Lines, account_seen, embedded_seen
from tasks.certificates.look_script import look_argv
from tasks.certificates.restoring import prepare_archive, refuse_to_go_back_to_ended
from tasks.certificates.seen import Account
from tasks.certificates.work import Job

TO_BE_REPLACED = (
    "replace ~/.kube/config of everybody who uses a copy of admin.conf: users was empty, and such "
    "a copy ends when the former one did (step 13)"
)
# Written by its owner, not by root: a link that its owner puts in the way leads nowhere new.
WRITE = (
    'set -euC; umask 077; new="$1.recover"; rm -f -- "$new"; cat >"$new"; [ -s "$new" ]; '
    'chmod -- "$2" "$new"; mv -fT -- "$new" "$1"; sync'
)
REPLACE = (
    'exec setpriv --reuid "$3" --regid "$4" --clear-groups sh -c "$5" write "$1" "$2" '
    f"<{KUBERNETES}/{ADMIN}"
)
PUT_BACK = (
    'tar -xzOf "$6/archive.tgz" -- "${1#/}" | '
    'setpriv --reuid "$3" --regid "$4" --clear-groups sh -c "$5" write "$1" "$2"'
)


def names_in(users: str) -> tuple[str, ...]:
    """Read the parameter `users`: names separated by blanks or commas; none is fine.

    Raises:
        BadInput: one of them is no name of an account.
    """
    names = users.replace(",", " ").split()
    for name in names:
        if not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
            raise BadInput("users", f"{name!r} is no name of an account", "Write them as: root ops")
    return tuple(dict.fromkeys(names))


def left_to_person(users: tuple[str, ...]) -> list[str]:
    """What of step 13 is left to a person, where no account was named."""
    return [] if users else [TO_BE_REPLACED]


def _argv(script: str, name: str, account: Account, *more: str) -> list[str]:
    uid, _, gid = account.ids.partition(":")
    return ["sh", "-c", script, name, account.path, account.mode, uid, gid, WRITE, *more]


def replace_commands(job: Job, account: Account) -> Iterable[str]:
    """What replaces it."""
    return [job.host.command_line(_argv(REPLACE, "replace-kubeconfig", account), as_root=True)]


def is_replaced(job: Job, account: Account) -> Verdict:
    """Whether the account has the certificate of the new admin.conf, owner and mode as before."""
    path = f"{KUBERNETES}/{ADMIN}"
    argv = look_argv("conf", ADMIN, path, "account", account.name)
    lines = Lines(job.host.read(argv, as_root=True).whole())
    admin = embedded_seen(lines, ADMIN, [])
    if not admin.serial or (
        ADMIN in job.work.names and admin.serial == job.work.serial_before(ADMIN)
    ):
        return Verdict.NOT_DONE
    now = account_seen(lines, account.name)
    return Verdict.of((now.serial, now.ids, now.mode) == (admin.serial, account.ids, account.mode))


@undo
def put_back_kubeconfig(job: Job, account: Account) -> None:
    """Put back the kubeconfig of an account from the archive.

    Raises:
        Refused: there is no backup any more, or going back would stop what works.
        CommandFailed: the host said no.
        Unreachable: no answer.
    """
    with job.host.session():
        refuse_to_go_back_to_ended(job)
        prepare_archive(job)
        job.host.change(_argv(PUT_BACK, "put-back-kubeconfig", account, folder_of()), as_root=True)


@act(
    commands=replace_commands,
    done_when=is_replaced,
    each=("job", "account"),
    undo=put_back_kubeconfig,
)
def replace_kubeconfig(job: Job, account: Account) -> None:
    """Replace the kubeconfig of an account by the new admin.conf, owner and mode as they are.

    The old one is in the backup. Done twice, it is written twice.

    Raises:
        CommandFailed: the host said no.
        Unreachable: no answer.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 13.
    """
    job.host.change(_argv(REPLACE, "replace-kubeconfig", account), as_root=True)


def accounts_of(jobs: Sequence[Job]) -> list[tuple[Job, Account]]:
    """Every kubeconfig that is replaced, beside the work on its host."""
    return [(job, account) for job in jobs for account in job.work.accounts]
