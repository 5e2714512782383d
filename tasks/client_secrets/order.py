"""Which client's secret is repaired, and in which setting its users read it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from blocks.bearer_url import BearerUrl
from blocks.keycloak_api import KeycloakApi
from blocks.keycloak_session import PREFIX
from recovery.errors import BadInput, Refused
from recovery.secrecy.secret import Secret
from tasks.settings.order import ConfigOrder, ValueSource, Wishes, config_order

BESIDES = "keycloak"  # where the Secret that keeps the values has the former one of Keycloak
MADE_BYTES = 32
MASKED = "**********"  # what an export of a realm has instead of a secret, and an import puts in


@dataclass(frozen=True)
class ClientSecretSource(ValueSource):
    """The value comes from Keycloak, or is made and then given to it.

    Attributes:
        keycloak: where the client is.
        realm: of the client.
        uuid: of the client; empty where it is not looked for yet.
        is_made: the value is a new one, that of the file or a random one. What is kept of the
            first that was made stands for it from then on.
    """

    keycloak: KeycloakApi | None = None
    realm: str = ""
    uuid: str = ""
    is_made: bool = False

    @property
    def is_reference(self) -> bool:
        """See ValueSource."""
        return True

    def besides(self) -> Mapping[str, Secret]:
        """The secret that Keycloak has, where it is to get another."""
        held = self.held() if self.is_made else None
        return {} if held is None else {BESIDES: held}

    def read(self) -> Secret | str:
        """See ValueSource.

        Raises:
            Refused: Keycloak has no secret any more.
            KeycloakPermissionMissing, Unreachable and the rest: see there.
        """
        if self.is_made:
            return super().read() if self.file else Secret(secrets.token_urlsafe(MADE_BYTES))
        held = self.held()
        if held is None:
            remedy = "Begin a new recovery, which sets one"
            raise Refused(self.realm, "the client has no secret any more", remedy)
        return held

    def held(self) -> Secret | None:
        """The secret that Keycloak has now."""
        if self.keycloak is None or not self.uuid:
            return None
        with self.keycloak.session() as session:
            return session.secret_of(self.realm, self.uuid)


@dataclass(frozen=True)
class SecretOrder:
    """What was asked for. The label is the client."""

    keycloak: KeycloakApi
    realm: str
    client_id: str
    config: ConfigOrder
    secret_file: str
    is_ordered: bool
    service: BearerUrl | None

    @property
    def label(self) -> str:
        """The client."""
        return f"{self.keycloak.label}/{self.realm}/{self.client_id}"

    def setting(self, uuid: str, *, is_made: bool) -> ConfigOrder:
        """The order for the setting that holds the secret, once it is known where that is from."""
        source = ClientSecretSource(
            file=self.secret_file if is_made else "",
            keycloak=self.keycloak,
            realm=self.realm,
            uuid=uuid,
            is_made=is_made,
        )
        return replace(self.config, source=source)


@dataclass(frozen=True)
class SecretWishes:
    """How it is repaired; the defaults are those of the form."""

    secret_file: str = ""
    is_ordered: bool = False
    service_url: str = ""

    def read_file(self) -> Self:
        """Itself, once the file is known to hold a secret.

        Raises:
            BadInput: it does not.
        """
        if self.secret_file:
            ValueSource(file=self.secret_file).read()
        return self


def secret_order(
    client: tuple[str, str, str],
    place: tuple[str, str, str],
    key: str,
    wishes: tuple[SecretWishes, Wishes],
) -> SecretOrder:
    """Read the parameters of the recovery.

    Args:
        client: the Keycloak, the realm and the name of the client.
        place: the cluster, the namespace, and the object, as `configmap/divoc-config`.
        key: which of its keys holds the secret.
        wishes: how the secret, and how the setting is changed.

    Raises:
        BadInput: one is malformed.
    """
    keycloak, realm, client_id = client
    for name, given in (("realm", realm), ("client_id", client_id)):
        if not given.strip():
            raise BadInput(name, "it is empty: empty means none, never all", "Give one name")
    how, rest = wishes[0].read_file(), wishes[1]
    return SecretOrder(
        KeycloakApi.named(keycloak),
        realm,
        client_id,
        config_order(place, key, ClientSecretSource(), rest),
        how.secret_file,
        how.is_ordered,
        BearerUrl.from_url(how.service_url) if how.service_url else None,
    )


def client_leased(keycloak: str, realm: str, client_id: str) -> list[str]:
    """What is leased besides the object of the setting: the client, however it is addressed."""
    server = KeycloakApi.named(keycloak).label.removesuffix(PREFIX)
    return [f"{server}/{realm}/{client_id}"]
