"""The certificates of one host held against what they were, and the way back to that."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from recovery.errors import NotVerified
from recovery.steps import verify
from recovery.verdict import Verdict
from tasks.certificates.catalogue import AUTHORITIES, BY_NAME, KUBERNETES
from tasks.certificates.look import Host
from tasks.certificates.look_lines import Lines, seen_authorities, seen_leaf
from tasks.certificates.look_script import look_argv
from tasks.certificates.reading import KeyState, Presence
from tasks.certificates.seen import FileSeen
from tasks.certificates.work import Before, Job

WITHIN_SECONDS = 60.0


def leaf_requests(names: Sequence[str]) -> list[str]:
    """What asks for certificates by kubeadm's names, and for the authorities."""
    asked = [word for a in AUTHORITIES for word in ("pair", a.name, a.file)]
    for name in names:
        leaf = BY_NAME[name]
        place = f"{KUBERNETES}/{leaf.file}" if leaf.is_kubeconfig else leaf.file
        asked += ["conf" if leaf.is_kubeconfig else "pair", name, place]
    return asked


def leaves_of(lines: Lines, names: Sequence[str]) -> list[FileSeen]:
    """The certificates that were asked for, signatures held against the authorities there."""
    _, trusted = seen_authorities(lines)
    return [seen_leaf(lines, name, trusted[BY_NAME[name].ca]) for name in names]


def read_leaves(host: Host, names: Sequence[str]) -> list[FileSeen]:
    """Read certificates of a host by kubeadm's names.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root.
    """
    argv = look_argv(*leaf_requests(names))
    answer = host.read(argv, within_seconds=WITHIN_SECONDS, as_root=True)
    return leaves_of(Lines(answer.whole()), names)


def made_anew(job: Job) -> Verdict:
    """Whether every certificate due on the host is another one than before, whole and signed."""
    return judge_made_anew(read_leaves(job.host, job.work.names), job.work.before)


def judge_made_anew(files: Sequence[FileSeen], before: Sequence[Before]) -> Verdict:
    """Whether all, some or none are others than before. One that is broken is half of another."""
    old = {one.name: one.serial for one in before}
    done = [file.is_whole and file.serial != old.get(file.name, "") for file in files]
    untouched = [file.serial == old.get(file.name, "") for file in files]
    if all(done):
        return Verdict.DONE
    return Verdict.NOT_DONE if all(untouched) else Verdict.HALF_DONE


def broken_names(files: Sequence[FileSeen], before: Sequence[Before]) -> list[str]:
    """Those that could be read before and cannot now: a renewal was cut off while it wrote them."""
    could_be_read = {one.name for one in before if one.serial}
    return [
        file.name
        for file in files
        if file.presence is not Presence.READABLE and file.name in could_be_read
    ]


@verify(each=("job",))
def files_are_sound(job: Job, days_left_min: int) -> int:
    """The number of new certificates on the host: each says what the old one said, and lasts.

    Raises:
        NotVerified: a name is lost, the key does not fit, the authority has not signed it, or it
            ends too soon; says which.

    Runbook: docs/runbooks/kubeadm-certificates.md, step 6.
    """
    files = read_leaves(job.host, job.work.names)
    faults = faults_of(files, job.work.before, days_left_min, datetime.now(UTC))
    if faults:
        raise NotVerified(
            job.label,
            f"{len(files)} new certificates that say what the old ones said",
            "; ".join(faults),
            "No process uses them yet. Undo the recovery, or mend the configuration of kubeadm "
            "(certificateValidityPeriod) and resume",
        )
    return len(files)


def faults_of(
    files: Sequence[FileSeen], before: Sequence[Before], days_left_min: float, now: datetime
) -> list[str]:
    """What is wrong with certificates that were made anew, in words.

    Groups (organizations) may change: kubeadm moved them between releases.
    """
    old = {one.name: one for one in before}
    faults = []
    for file in files:
        was = old.get(file.name, Before(file.name))
        if file.certificate is None:
            faults.append(f"{file.name} {file.presence} {file.why}".strip())
            continue
        lost = lost_names(was.names, file.certificate.names)
        if lost:
            faults.append(f"{file.name} lost {', '.join(lost)}")
        if was.serial and file.certificate.common_name != was.common_name:
            faults.append(
                f"{file.name} is for {file.certificate.common_name!r}, was for {was.common_name!r}"
            )
        if file.key is not KeyState.FITS:
            faults.append(f"the key of {file.name} {file.key}")
        if not file.is_signed:
            faults.append(f"{file.name} is not signed by its authority")
        left = (file.certificate.not_after - now).total_seconds() / 86400
        if left < days_left_min:
            faults.append(f"{file.name} lasts {left:.1f} days only")
    return faults


def lost_names(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Names and addresses that a certificate had and has no more, spelt as openssl spells them."""
    kept = {_plain_name(name) for name in now}
    return [name for name in before if _plain_name(name) not in kept]


def _plain_name(name: str) -> str:
    return re.sub(r"\s", "", name).lower()
