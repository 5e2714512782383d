"""The values of a secret setting, kept for the way back: in a Secret beside it, and nowhere else.

A journal holds no secrets, and a file on one worker is of no use to the next one. Whoever may read
a Secret of the namespace can read this one, and nobody else; so it gives nothing away that its
reader could not read before. It stays until somebody removes it: the runbook says how.
"""

from typing import Any

from blocks.kube import text
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import NotVerified
from recovery.secrecy.secret import Secret
from recovery.steps import act
from recovery.verdict import Verdict
from recovery.walk import current_fence
from tasks.settings.contents import Content, as_it_stands, in_base64, out_of_base64, standing
from tasks.settings.order import ConfigOrder, ObjectKind

KEPT_BY = "recovery-pipelines.io/kept-by"
BEFORE, AFTER = "before", "after"


def kept_name() -> str:
    """The name of the Secret that keeps the values of this recovery."""
    return f"recovery-{current_fence().recovery_id}"


def kept_path(order: ConfigOrder, kept: str) -> str:
    """Where the API has it."""
    return path_of("v1", "secrets", kept, namespace=order.namespace)


def kept_contents(session: KubernetesSession, order: ConfigOrder, kept: str, which: str) -> Content:
    """One of the kept values, as it stands at the key.

    Raises:
        NotVerified: it is gone, or was never there.
    """
    read = session.find(kept_path(order, kept)) or {}
    data = read.get("data") or {}
    if which not in data:  # an empty value is one
        raise NotVerified(
            order.label,
            f"the value of {which} in secret/{kept}",
            "no such Secret, or no such value in it",
            "Set the value by hand from where secrets are issued",
        )
    found = str(data[which] or "")
    if order.kind is ObjectKind.SECRET:
        return Secret(found)
    return out_of_base64(found)


def kept_besides(session: KubernetesSession, order: ConfigOrder, kept: str, which: str) -> Secret:
    """What else the source of the value had to keep; empty where it had nothing of that name."""
    read = session.find(kept_path(order, kept)) or {}
    return out_of_base64(str((read.get("data") or {}).get(which, "")))


def is_kept(order: ConfigOrder) -> Verdict:
    """Whether the values of this recovery are kept."""
    with order.cluster.session() as session:
        return Verdict.of(session.find(kept_path(order, kept_name())) is not None)


def kept_body(session: KubernetesSession, order: ConfigOrder) -> dict[str, Any]:
    """The Secret that keeps the value of now, and the one it is to become."""
    before = standing(order, session.get(order.path))
    after = as_it_stands(order, order.source.read())
    values = {BEFORE: before, AFTER: after}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": kept_name(),
            "labels": {KEPT_BY: current_fence().recovery_id},
            "annotations": {f"{KEPT_BY}-for": f"{order.kind}/{order.name}/{order.key}"},
        },
        "immutable": True,
        "data": {
            **{name: in_base64(value) for name, value in order.source.besides().items()},
            **{name: _encoded(order, value) for name, value in values.items() if value is not None},
        },
    }


def keep_commands(order: ConfigOrder) -> list[str]:
    """What keeps them."""
    with order.cluster.session() as session:
        body = kept_body(session, order)
    return [text.create_text(kept_path(order, ""), body)]


@act(commands=keep_commands, done_when=is_kept, expected=kept_name, redo_stale=False)
def keep_values(order: ConfigOrder) -> str:
    """Keep the old and the new value in a Secret of this recovery; return its name.

    From here on the new value is the one that is kept, whatever becomes of its file. The object
    itself is not changed. Done twice, the second does nothing, because the Secret is there.

    Raises:
        ClusterConflict: there is one of this name.
        BadInput: the new value cannot be read.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/config-value.md, step 4.
    """
    with order.cluster.session() as session:
        session.create(kept_path(order, ""), kept_body(session, order))
    return kept_name()


def _encoded(order: ConfigOrder, value: Content) -> Content:
    """A value as a Secret holds it; that of a Secret is so already."""
    if order.kind is ObjectKind.SECRET:
        return value
    return in_base64(value)
