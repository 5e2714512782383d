"""Which client's secret is repaired, and in which setting its users read it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from blocks.bearer_url import BearerUrl
from blocks.keycloak.api import KeycloakApi
from blocks.keycloak.session import PREFIX
from recovery.errors import BadInput, NotVerified, Refused
from recovery.secrecy.secret import Secret
from tasks.client_secrets.kept import (
    BESIDES,
    new_secret,
    secret_of_before,
    secret_to_go_back_to,
)
from tasks.settings.order import ConfigOrder, ValueSource, Wishes, config_order

MADE_BYTES = 32


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

    def go_back_first(self, setting: ConfigOrder, kept: str) -> None:
        """Give the client its former secret, where it has that of this recovery.

        Raises:
            Refused: Keycloak had none, so that the former value would let nobody in.
            NotVerified: somebody has given it another one since, or what was kept is gone.
            KeycloakPermissionMissing, Unreachable and the rest: see there.
        """
        if not self.is_made or self.keycloak is None:
            return
        new, held = new_secret(setting, kept), self.held()
        if held == secret_of_before(setting, kept):
            return
        label = f"{self.keycloak.label}/{self.realm}"
        if held != new:
            raise NotVerified(
                label,
                "the secret of this recovery, to put the former one in its place",
                "another one",
                "Somebody set it since: ask who, and whether the services have that one",
            )
        former = secret_to_go_back_to(setting, kept)
        if former is None:
            raise Refused(
                label,
                "Keycloak had no secret before, or the mask of an export, which everybody knows: "
                "it has none to go back to, and would refuse the former value of the services",
                "Leave both as they are; for another secret begin a new recovery with rotate",
            )
        with self.keycloak.session() as session:
            session.set_secret(self.realm, self.uuid, former)

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
