"""Give the services that log in to Keycloak as a client a secret that it takes."""

from dataclasses import dataclass

from blocks.keycloak.api import KeycloakParameter
from blocks.kube.cluster import ClusterParameter
from flows.config_values import DIVOC_CONFIG, restart_consumers
from recovery.declare import recovery
from tasks.client_secrets import finding, proof, rights, setting
from tasks.client_secrets.finding import ClientFound, SecretDue
from tasks.client_secrets.order import SecretOrder, SecretWishes, client_leased, secret_order
from tasks.settings import changing, keeping, rollout
from tasks.settings import finding as settings
from tasks.settings.finding import ConfigFound
from tasks.settings.order import Wishes, config_target

SECRET_KEY = "ADMIN_API_CLIENT_SECRET"  # noqa: S105 (the name of a key)


@dataclass(frozen=True)
class SecretRotated:
    """What was found, what was done, and what now holds.

    Attributes:
        found: which of the two sides had a secret that works.
        done: nothing, or what was set where, and who was restarted.
        holds: what each service that was restarted sees now.
        token: what is seen with the secret that the services have: a token, a service let in.
        told: who else reads or owns the setting.
        kept: the Secret that holds the former secrets and the new one.
        left_to_person: to see that services let a token in, where none was named to be asked.
    """

    found: str
    done: str
    holds: list[str]
    token: list[str]
    told: list[str]
    kept: str
    left_to_person: list[str]


@recovery(runbook="docs/runbooks/admin-api-secret.md", target=config_target, parts=client_leased)
def rotate_admin_api_secret(  # noqa: PLR0913, PLR0917 (fields of the form)
    cluster: ClusterParameter,
    keycloak: KeycloakParameter,
    namespace: str = "",
    config: str = DIVOC_CONFIG,
    key: str = SECRET_KEY,
    realm: str = "divoc",
    client_id: str = "admin-api",
    secret_file: str = "",
    rotate: bool = False,  # noqa: FBT001, FBT002 (a field of the form)
    service_url: str = "",
    consumers: list[str] | None = None,
    accept: list[str] | None = None,
    within_seconds: int = 600,
) -> SecretRotated:
    """Make DIVOC's services and Keycloak agree on the secret of admin-api, where they answer 401.

    Where Keycloak's secret works, the services get that; else both get a new one.

    Args:
        cluster: kubeconfig:///path?context=NAME, in-cluster:, or the name of a saved block.
        keycloak: https://USER@HOST/auth?password_file=/path on the worker, or a saved block.
        namespace: Empty: the one of the block or the context.
        config: What holds the secret for the services: configmap/NAME or secret/NAME.
        key: Which key of it.
        realm: The realm of the client.
        client_id: The client that the services log in as.
        secret_file: File of mode 0600 on the worker with the new secret; empty: one is made.
        rotate: Give both a new one although the present one works.
        service_url: What must no longer answer 401 to a token of the client; empty: not asked.
        consumers: Restart these alone, in this order; empty: all that read the key.
        accept: Names of what is refused otherwise, as helm or not-well.
        within_seconds: How long the pods of each may take to come up.

    Runbook: docs/runbooks/admin-api-secret.md, steps 1 to 8.
    """
    wishes = Wishes(consumers=consumers or (), accept=accept or (), within_seconds=within_seconds)
    how = SecretWishes(secret_file, rotate, service_url)
    place = (cluster, namespace, config)
    order = secret_order((keycloak, realm, client_id), place, key, (how, wishes))
    found = finding.client_found(order)
    in_config = order.setting(found.uuid, is_made=found.is_set)
    config_found = settings.config_found(in_config)
    if found.due is SecretDue.NOTHING and config_found.is_so:
        token = proof.token_is_given(order)
        left = proof.left_to_person(order)
        return SecretRotated(found.seen, "nothing", [], token, config_found.told, "", left)
    rights.refuse_missing_rights(in_config, config_found)
    kept = ""
    if found.is_set or not config_found.is_equal:
        kept = keeping.keep_values(in_config)
    if found.is_set:
        setting.set_client_secret(order, in_config, found, kept)
    changing.set_value(in_config, config_found, kept)
    late = restart_consumers(
        in_config,
        config_found,
        kept,
        lambda is_due: _keycloak_goes_back(order, found, kept, is_due=is_due),
    )
    holds = rollout.is_seen(in_config, config_found, kept, late)
    token = proof.token_is_given(order)
    done = _done(found, config_found)
    left = proof.left_to_person(order)
    return SecretRotated(found.seen, done, holds, token, config_found.told, kept, left)


def _keycloak_goes_back(order: SecretOrder, found: ClientFound, kept: str, *, is_due: bool) -> None:
    """Give Keycloak its former secret again, where it got another and a service cannot use it."""
    if found.is_set:
        in_config = order.setting(found.uuid, is_made=True)
        setting.put_client_secret_back(order, in_config, found, kept, is_due=is_due)


def _done(found: ClientFound, config_found: ConfigFound) -> str:
    what = "nothing to set" if config_found.is_equal else "taken over from Keycloak"
    if found.is_set:
        what = "set at Keycloak and for the services"
    return f"{what}; restarted: {', '.join(map(str, config_found.consumers)) or 'none'}"
