"""Who may consent and who is told, as this machine would have it: a part of `recover doctor`."""

from operate.catalogue import recoveries
from operate.findings import Finding, Health, bad
from recovery.approval.approvers import NAME, Approvers, approvers
from recovery.approval.proof import kept_line
from recovery.errors import RecoveryError
from recovery.notices.channels import NAME as NOTIFICATIONS
from recovery.notices.channels import channels

SEE = "docs/approvals.md says how"


def examine_approvals() -> list[Finding]:
    """Look at the files that say who may consent, and who is told."""
    return [*_approvers(), _channels()]


def _approvers() -> list[Finding]:
    try:
        policy = approvers()
    except RecoveryError as error:
        return [bad(NAME, error)]
    if not policy.approvers:
        seen = "nobody is named: anyone may consent to what is destructive, and one person suffices"
        return [Finding(NAME, Health.NOTE, seen, f"Name approvers; {SEE}")]
    unknown = sorted({rule.recovery for rule in policy.rules} - {""} - set(recoveries()))
    if unknown:
        seen = f"a rule is about {', '.join(unknown)}, which is no recovery"
        return [Finding(NAME, Health.BAD, seen, "Correct its name: `recover list` has them all")]
    told = f"{len(policy.approvers)} approvers, {len(policy.rules)} rules"
    return [Finding(NAME, Health.OK, told), *_proofs(policy)]


def _proofs(policy: Approvers) -> list[Finding]:
    found = []
    for name in policy.approvers:
        path = policy.proof_file(name)
        try:
            if path is not None:
                kept_line(path)
        except RecoveryError as error:
            found.append(bad(f"approver {name}", error))
    return found


def _channels() -> Finding:
    try:
        known = channels()
    except RecoveryError as error:
        return bad(NOTIFICATIONS, error)
    if not known:
        seen = "nobody is told when a recovery needs somebody"
        return Finding(NOTIFICATIONS, Health.NOTE, seen, f"Name channels; {SEE}")
    return Finding(NOTIFICATIONS, Health.OK, ", ".join(one.block for one in known))
