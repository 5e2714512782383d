"""Giving a client its new secret at Keycloak, and giving the former one back.

The new secret is made once, kept in the Secret of the recovery before Keycloak hears of it, and
sent as a value. Letting Keycloak make one would give another each time it is asked, so that an
answer that was lost, or a worker that was, would leave one that nobody has kept.
"""

from blocks.keycloak.session import set_secret_text
from recovery.errors import Refused
from recovery.secrecy.secret import Secret
from recovery.steps import act, undo
from recovery.verdict import Verdict
from tasks.client_secrets.finding import ClientFound
from tasks.client_secrets.kept import new_secret, secret_of_before, secret_to_go_back_to
from tasks.client_secrets.order import SecretOrder
from tasks.settings.changing import is_kept_later
from tasks.settings.order import ConfigOrder

NONE = Secret("")


def is_client_secret_set(
    order: SecretOrder, setting: ConfigOrder, found: ClientFound, kept: str
) -> Verdict:
    """Whether Keycloak has the new secret, which is read back from it."""
    return Verdict.of(_held(order, found) == new_secret(setting, kept))


def is_client_secret_back(
    order: SecretOrder, setting: ConfigOrder, found: ClientFound, kept: str, *, is_due: bool
) -> Verdict:
    """Whether it need not, or Keycloak has the former secret, or there is none to go back to."""
    if not is_due:
        return Verdict.DONE
    former = secret_to_go_back_to(setting, kept)
    return Verdict.of(former is None or _held(order, found) == former)


def set_commands(order: SecretOrder, found: ClientFound) -> list[str]:
    """What gives the client another secret."""
    return [set_secret_text(order.realm, found.uuid)]


def refuse_other_secret(
    order: SecretOrder, setting: ConfigOrder, found: ClientFound, kept: str
) -> None:
    """Refuse to write over a secret that somebody set since the recovery began.

    A plan of keeping it compares nothing: what Keycloak has when it is kept is what counts.

    Raises:
        Refused: Keycloak has neither the former one, or none where it had none, nor the new one.
    """
    with setting.cluster.session() as session:
        if is_kept_later(session, setting, kept):
            return
    former = secret_of_before(setting, kept)
    before = NONE if former is None else former
    if _held(order, found) not in {before, new_secret(setting, kept)}:
        raise Refused(
            order.label,
            "somebody gave the client another secret since it was looked at",
            "Ask who; begin a new recovery, which takes that one over if it works",
        )


@undo
def client_secret_put_back(setting: ConfigOrder, kept: str) -> None:
    """Give the client its former secret, where it has that of this recovery.

    The way back of the value has done so before; this is for a value that was never written.
    """
    setting.source.go_back_first(setting, kept)


@act(
    commands=set_commands,
    done_when=is_client_secret_set,
    refuse_if=[refuse_other_secret],
    undo=client_secret_put_back,
    lasts_until="put_client_secret_back",
    redo_stale=False,
)
def set_client_secret(
    order: SecretOrder, setting: ConfigOrder, found: ClientFound, kept: str
) -> None:
    """Give the client the new secret at Keycloak; all else of it is left as it is.

    From here on to the restart of the last of them, services that ask for a token with the former
    secret get none. Done twice, the same secret is sent twice.

    Raises:
        Refused: somebody has changed it meanwhile.
        AnswerLost: not known whether it was set; it is asked before it is sent again.
        KeycloakPermissionMissing, KeycloakNotFound, Unreachable and the rest: see there.

    Runbook: docs/runbooks/admin-api-secret.md, step 5.
    """
    with order.keycloak.session() as session:
        session.set_secret(order.realm, found.uuid, new_secret(setting, kept))


@act(
    commands=set_commands,
    done_when=is_client_secret_back,
    redo_stale=False,
    only_if="a service does not come up with it",
)
def put_client_secret_back(
    order: SecretOrder, setting: ConfigOrder, found: ClientFound, kept: str, *, is_due: bool
) -> None:
    """Give the client its former secret, where a service did not come up with the new one.

    A plan shows it always, as it does what puts the value back. Done twice, the same one is sent
    twice.

    Raises:
        NotVerified: somebody has given it another one since.
        KeycloakPermissionMissing, Unreachable and the rest: see there.

    Runbook: docs/runbooks/admin-api-secret.md, step 7.
    """
    del order, found, is_due  # for the probe; the source of the setting knows both
    setting.source.go_back_first(setting, kept)


def _held(order: SecretOrder, found: ClientFound) -> Secret:
    with order.keycloak.session() as session:
        held = session.secret_of(order.realm, found.uuid)
    return NONE if held is None else held
