"""Whether a service gets a token with the secret it has, and is let in with it."""

from recovery.errors import NotVerified
from recovery.secrecy.secret import Secret
from recovery.steps import verify
from tasks.client_secrets.order import SecretOrder
from tasks.settings.contents import as_it_is_read, standing

UNAUTHORIZED = 401


def left_to_person(order: SecretOrder) -> list[str]:
    """What of step 8 is left to a person, where no service was named that is to let a token in."""
    if order.service is not None:
        return []
    return [f"see that no service answers 401 to {order.client_id}: service_url was empty (step 8)"]


@verify
def token_is_given(order: SecretOrder) -> list[str]:
    """What is seen with the secret that the setting holds now: a token, and a service let in.

    Raises:
        NotVerified: no token is given, or the service answers 401 to it.
        Unreachable: no answer.
        KeycloakNotFound, KeycloakHttpsRequired, CommandFailed: see there.

    Runbook: docs/runbooks/admin-api-secret.md, step 8.
    """
    with order.config.cluster.session() as cluster:
        found = standing(order.config, cluster.get(order.config.path)) or ""
    read = as_it_is_read(order.config, found)
    secret = read if isinstance(read, Secret) else Secret(read)
    with order.keycloak.session() as session:
        answer = session.token_with(order.realm, order.client_id, secret)
        if not answer.is_given:
            raise NotVerified(
                order.label,
                f"a token for {order.client_id} with the value of {order.config.key}",
                answer.told,
                "Somebody changed the one or the other since: begin a new recovery",
            )
        seen = [f"the value of {order.config.key} gives a token: {answer.told}"]
        if order.service is None:
            return seen
        bearer = session.bearer(order.realm, order.client_id, secret)
    status = order.service.status_for(bearer or Secret(""))
    if status == UNAUTHORIZED:
        raise NotVerified(
            order.service.label,
            "that a token of the client is let in",
            "it answers 401 to a token that Keycloak has just given",
            "The secret is right. Compare the issuer in the report with the address of Keycloak "
            "that the service checks against, and the clocks of both (synchronise-clocks)",
        )
    return [*seen, f"{order.service.label} answers {status} to it"]
