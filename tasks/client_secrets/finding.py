"""Why the users of a client get no token, and what is to be done about its secret."""

from dataclasses import dataclass
from enum import StrEnum

from blocks.keycloak.answer import TokenAnswer
from blocks.keycloak.session import KeycloakClient, KeycloakSession
from recovery.errors import Refused
from recovery.secrecy.secret import Secret
from recovery.steps import decision
from tasks.client_secrets.kept import MASKED
from tasks.client_secrets.order import SecretOrder
from tasks.settings.contents import as_it_is_read, standing
from tasks.settings.order import ValueSource

WITH_SECRET = "client-secret"  # noqa: S105 (the name of an authenticator)


class SecretDue(StrEnum):
    """What is to be done about the secret."""

    NOTHING = "nothing"  # the setting's gives a token; a pod may still have an older one
    TAKE_OVER = "take-over"  # Keycloak's is right, and the setting's is not
    SET = "set"  # both get a new one


@dataclass(frozen=True)
class ClientFound:
    """A client as it was found. `seen` says why the secret is due."""

    uuid: str
    due: SecretDue
    seen: str

    @property
    def is_set(self) -> bool:
        """Whether Keycloak gets a new secret."""
        return self.due is SecretDue.SET


@decision
def client_found(order: SecretOrder) -> ClientFound:
    """The client, whether the setting's secret gives a token, and what is due.

    The secret that Keycloak has is taken over where it works: that changes nothing there.

    Raises:
        Refused: the realm has no such client, or no secret can help it.
        KeycloakLoginRefused, KeycloakPermissionMissing, KeycloakNotFound: see there.
        ClusterForbidden, Unreachable: see there.

    Runbook: docs/runbooks/admin-api-secret.md, steps 1 to 3.
    """
    in_setting = _in_setting(order)
    with order.keycloak.session() as session:
        client = session.client_named(order.realm, order.client_id)
        refuse_unusable(order, client)
        held = session.secret_of(order.realm, client.uuid) if client else None
        tried = _tried(session, order, in_setting)
        due, seen = SecretDue.NOTHING, f"the value of {order.config.key} gives a token"
        if not tried.is_given:
            due, seen = _due(session, order, held)
            seen = f"the value of {order.config.key} gives none ({tried.told}); {seen}"
        if order.is_ordered or _is_other(order, in_setting, held):
            due, seen = SecretDue.SET, f"{seen}; a new one was asked for"
    return ClientFound(client.uuid if client else "", due, seen)


def refuse_unusable(order: SecretOrder, client: KeycloakClient | None) -> None:
    """Refuse a client that gets no token whatever its secret is.

    Raises:
        Refused: it is not there, is disabled, is public, logs in otherwise or may not.
    """
    if client is None:
        reason, remedy = "the realm has no client of this name", "See its clients in the console"
    elif not client.is_enabled:
        reason, remedy = "the client is disabled", "Find out who disabled it, and enable it"
    elif client.is_public:
        reason = "the client is public or bearer-only, and has no secret that counts"
        remedy = "Name the confidential one that the services log in as"
    elif client.authenticator != WITH_SECRET:
        reason = f"the client does not log in by a secret but by {client.authenticator}"
        remedy = "Renew what it logs in with in the console"
    elif not client.has_service_account:
        reason = "its service account is switched off, so that no secret gives a token"
        remedy = "Switch service accounts on for it, and give them the roles they had"
    else:
        return
    raise Refused(order.label, reason, f"{remedy}, then begin again")


def _in_setting(order: SecretOrder) -> Secret | None:
    """The secret that the services have; what else may be wrong with it is told by the setting."""
    with order.config.cluster.session() as session:
        found = standing(order.config, session.find(order.config.path) or {})
    if not found:
        return None
    read = as_it_is_read(order.config, found)
    return read if isinstance(read, Secret) else Secret(read)


def _tried(session: KeycloakSession, order: SecretOrder, secret: Secret | None) -> TokenAnswer:
    return session.token_with(order.realm, order.client_id, secret or Secret(""))


def _due(
    session: KeycloakSession, order: SecretOrder, held: Secret | None
) -> tuple[SecretDue, str]:
    """What is due where the services get no token, by what Keycloak has."""
    if held is None:
        return SecretDue.SET, "Keycloak has none at all"
    if held.reveal() == MASKED:
        return SecretDue.SET, "Keycloak has the mask of a realm's export, which everybody knows"
    if _tried(session, order, held).is_given:
        return SecretDue.TAKE_OVER, "that of Keycloak gives one"
    return SecretDue.SET, "nor does that of Keycloak"


def _is_other(order: SecretOrder, in_setting: Secret | None, held: Secret | None) -> bool:
    """Whether a file holds another secret than both have."""
    if not order.secret_file:
        return False
    wanted = ValueSource(file=order.secret_file).read()
    return not (wanted == in_setting == held)
