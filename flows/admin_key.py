"""Make an installation anew whose admin key was lost before anybody ever used it."""

from dataclasses import dataclass

from blocks.keycloak.api import KeycloakParameter
from blocks.kube.cluster import ClusterParameter
from recovery.declare import recovery
from recovery.verdict import Danger
from tasks.admin_key import anew, changing, finding, stopping
from tasks.admin_key.order import (
    AdminKeyForm,
    AdminKeyOrder,
    KeyWish,
    Login,
    admin_key_order,
    admin_key_parts,
    admin_key_target,
)
from tasks.workloads import scaling, waiting


@dataclass(frozen=True)
class Reinstalled:
    """What was removed and what now holds.

    Attributes:
        found: what was there, and went.
        told: what was proven of it, and who declared it empty.
        volumes: which volume each claim has now.
        kept: the disks of before, which are removed by hand when nobody will go back.
        client: how the client stands.
        key_file: where the key lies on the worker.
        left_to_person: to log in with it, and to remove the disks of before some day.
    """

    found: str
    told: list[str]
    volumes: dict[str, str]
    kept: list[str]
    client: str
    key_file: str
    left_to_person: list[str]


@recovery(
    runbook="docs/runbooks/lost-admin-key.md",
    target=admin_key_target,
    parts=admin_key_parts,
    danger=Danger.DESTRUCTIVE,
)
def reinstall_lost_admin_key(  # noqa: PLR0913, PLR0917 (each is a field of the form)
    cluster: ClusterParameter,
    keycloak: KeycloakParameter,
    realm: str,
    role: str,
    confirm: str,
    declared_by: str,
    window: str,
    key_pattern: str,
    key_file: str,
    namespace: str = "",
    client: str = "statefulset/vantiq",
    databases: list[str] | None = None,
    baseline: list[str] | None = None,
    database_user: str = "",
    database_password_file: str = "",
    within_seconds: int = 600,
    accept: list[str] | None = None,
) -> Reinstalled:
    """Remove the claims of a database that was never used, and keep the key of the new one.

    Refused unless it is proven that nobody can log in and that the database holds nothing but what
    a fresh one does. Two persons are needed, and a reason to do without a plan is not taken.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        keycloak: https://USER@HOST/auth?password_file=/path, or the name of a saved block.
        realm: Realm of the installation in Keycloak.
        role: Realm role that a system administrator has.
        confirm: What is erased, in words that the refusal gives; they name cluster and namespace.
        declared_by: Who declares that the installation holds no data; another one approves.
        window: When it may be done, as BEGIN/END with time zones, at most 24 hours.
        key_pattern: Regular expression that finds the key in the client's log, in one group.
        key_file: Path of a new file on the worker for the new key.
        namespace: Empty: the one of the block or the context.
        client: What makes the key at its first start.
        databases: StatefulSets whose claims are removed; default: statefulset/mongodb.
        baseline: Documents of a fresh installation, as database.collection=NUMBER.
        database_user: Who asks the database; empty: nobody has to.
        database_password_file: File of mode 0600 on the worker with the password.
        within_seconds: How long the pods of a workload may take to go, and to come up.
        accept: Names of what to accept, as refusals print them: missing-realm, missing-role.

    Runbook: docs/runbooks/lost-admin-key.md, steps 1 to 9.
    """
    form = AdminKeyForm(
        cluster,
        namespace,
        client,
        databases,
        keycloak,
        realm,
        role,
        baseline or (),
        Login(database_user, database_password_file),
        KeyWish(key_pattern, key_file),
        confirm,
        declared_by,
        window,
        within_seconds,
        accept or (),
    )
    order = admin_key_order(form)
    found = finding.lost_key_found(order)
    return _made_anew(order, found)


def _made_anew(order: AdminKeyOrder, found: finding.LostKeyFound) -> Reinstalled:
    """Keep the disks, stop, remove the claims, start, prove, and keep the key."""
    orders = dict(zip(map(str, found.databases), order.databases, strict=True))
    had = {str(one): scaling.original_replicas(orders[str(one)], one) for one in found.databases}
    clients = scaling.original_replicas(order.client, found.client)
    finding.refuse_unless_still_lost(order)
    for claim in found.claims:
        changing.keep_volume(order, claim)
    stopping.stop_as_agreed(order.client, found.client, clients, order)
    waiting.no_pods_left(order.client, found.client)
    finding.refuse_unless_still_empty(order)  # nobody can write to it any more
    for one in found.databases:
        stopping.stop_as_agreed(orders[str(one)], one, had[str(one)], order)
        waiting.no_pods_left(orders[str(one)], one)
    for claim in found.claims:
        changing.remove_claim(order, found, claim)
    for one in found.databases:
        scaling.scale_back(orders[str(one)], one, had[str(one)])
        waiting.is_out(orders[str(one)], one, order.within_seconds)
    volumes = anew.is_anew(order, found)
    scaling.scale_back(order.client, found.client, clients)
    holds = waiting.is_out(order.client, found.client, order.within_seconds)
    anew.save_key(order)
    kept = [one.volume for one in found.claims]
    left = anew.left_to_person(order, kept)
    return Reinstalled(found.seen, found.told, volumes, kept, holds, order.key.file, left)
