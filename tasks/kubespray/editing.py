"""Changing the inventory: saved before, written whole or not at all, only where it is as seen."""

from recovery.errors import Refused, UndoFailed
from recovery.secrecy.redaction import redacted_head
from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.kubespray import edits, reading
from tasks.kubespray.edits import Change
from tasks.kubespray.playbooks import running_now
from tasks.kubespray.target import Kubespray, encoded

# The first words are the hashes before and after, so that a plan binds the content that it shows.
WRITE = """set -eu
path=$(readlink -f -- "$1") before=$2 after=$3
of() { sha256sum <"$1" | cut -d " " -f 1; }
now=$(of "$path")
[ "$now" != "$after" ] || exit 0
if [ "$now" != "$before" ]; then
  echo "$path was changed by somebody else meanwhile" >&2
  exit 75
fi
draft=$path.recover-draft
cp -p -- "$path" "$draft"
base64 -d >"$draft"
[ "$(of "$draft")" = "$after" ] || { echo "it was damaged on the way" >&2; exit 75; }
sync "$draft"
mv -T -- "$draft" "$path"
sync "$(dirname "$path")"
"""
SAVE = """set -eu
umask 077
path=$1 hash=$2 copy=$3
mkdir -p "$(dirname "$copy")"
cp -p -- "$path" "$copy.partial"
now=$(sha256sum <"$copy.partial" | cut -d " " -f 1)
[ "$now" = "$hash" ] || { echo "it was changed" >&2; exit 75; }
sync "$copy.partial"
mv -T -- "$copy.partial" "$copy"
"""
HASH_OF = 'sha256sum <"$1" 2>/dev/null | cut -d " " -f 1'


def copy_of(order: Kubespray, change: Change) -> str:
    """Where the inventory is saved before this change of it."""
    return f"{order.kept}/inventory.{change.before[:12]}"


def _save_argv(order: Kubespray, change: Change) -> list[str]:
    return ["sh", "-c", SAVE, "save", order.inventory, change.before, copy_of(order, change)]


def _write_argv(order: Kubespray, before: str, after: str) -> list[str]:
    return ["sh", "-c", WRITE, "write", order.inventory, before, after]


def is_saved(order: Kubespray, change: Change) -> bool:
    """Whether the copy is there and whole."""
    return _hash_of(order, copy_of(order, change)) == change.before


def save_commands(order: Kubespray, change: Change) -> list[str]:
    """What copies the inventory."""
    return [order.machine.line(_save_argv(order, change))]


@act(commands=save_commands, done_when=is_saved, each=("what",))
def save_inventory(order: Kubespray, change: Change, what: str) -> None:
    """Copy the inventory into the folder of this recovery. It itself is only read.

    Raises:
        CommandFailed: it was changed meanwhile, or cannot be copied.

    Runbook: docs/runbooks/kubespray.md, step 5.
    """
    del what
    order.machine.change(_save_argv(order, change))


def edit_commands(order: Kubespray, change: Change) -> list[str]:
    """What writes the inventory, and the lines that change."""
    line = order.machine.line(_write_argv(order, change.before, change.after))
    return [line, *(f"# {line}" for line in change.diff)]


def is_edited(order: Kubespray, change: Change, then: str = "") -> Verdict:
    """Whether the inventory is as it is to be; one that is neither is somebody else's work.

    `then` is the hash that a later change of the same recovery makes of it: this one is in it.
    """
    now = _hash_of(order, order.inventory)
    if now in {change.after, then}:
        return Verdict.DONE
    return Verdict.NOT_DONE if now == change.before else Verdict.UNKNOWN


@undo
def restore_inventory(order: Kubespray, change: Change) -> None:
    """Write the saved inventory back, if nobody has changed it since.

    Raises:
        UndoFailed: somebody has, or the copy is gone.

    Runbook: docs/runbooks/kubespray.md, way back.
    """
    now = _hash_of(order, order.inventory)
    if now == change.before:
        return
    copy = copy_of(order, change)
    if now != change.after or not is_saved(order, change):
        raise UndoFailed(
            order.label,
            "edit_inventory",
            f"{order.inventory} was changed since, or {copy} is gone",
            f"Compare {order.inventory} with {copy} on {order.machine.label} by hand",
        )
    if others := running_now(order):
        raise UndoFailed(
            order.label,
            "edit_inventory",
            f"a playbook of this inventory runs: {redacted_head(others[0], 300)}",
            "Let it end, then `recover undo` again",
        )
    text = order.machine.text_of(["cat", "--", copy])
    argv = _write_argv(order, change.after, change.before)
    order.machine.change(argv, stdin=encoded(text))


@act(commands=edit_commands, done_when=is_edited, undo=restore_inventory, each=("what",))
def edit_inventory(order: Kubespray, change: Change, what: str, then: str = "") -> None:
    """Write the inventory with the change made. Nothing that runs heeds it before a playbook does.

    Done twice, the second does nothing.

    Raises:
        Refused: it is another text than was looked at.
        CommandFailed: it was changed meanwhile, or cannot be written; what was there stays.

    Runbook: docs/runbooks/kubespray.md, step 6.
    """
    del what, then
    text = reading.text_of(order)
    if edits.sha256(text) != change.before:
        raise Refused(
            order.label,
            f"{order.inventory} was changed by somebody since it was looked at",
            "Begin anew: `recover run` with the same parameters looks at it again",
        )
    after = edits.applied(text, order.inventory, change.edit)
    argv = _write_argv(order, change.before, change.after)
    order.machine.change(argv, stdin=encoded(after))


def _hash_of(order: Kubespray, path: str) -> str:
    return order.machine.read(["sh", "-c", HASH_OF, "hash", path]).whole().strip()
