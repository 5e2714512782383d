"""The secrets of a client that a recovery has kept: the new one, and the former one of Keycloak."""

from recovery.secrecy.secret import Secret
from tasks.settings.changing import wanted
from tasks.settings.contents import as_it_is_read
from tasks.settings.keeping import kept_besides
from tasks.settings.order import ConfigOrder

BESIDES = "keycloak"  # where the Secret that keeps the values has the former one of Keycloak
MASKED = "**********"  # what an export of a realm has instead of a secret, and an import puts in


def new_secret(setting: ConfigOrder, kept: str) -> Secret:
    """The new secret as it is kept; in a plan, one that nobody has.

    Raises:
        NotVerified: what was kept of it is gone.
    """
    with setting.cluster.session() as session:
        read = as_it_is_read(setting, wanted(session, setting, kept))
    return read if isinstance(read, Secret) else Secret(read)


def secret_of_before(setting: ConfigOrder, kept: str) -> Secret | None:
    """What Keycloak had, were it the mask of an export; `None` where it had none."""
    with setting.cluster.session() as session:
        found = kept_besides(session, setting, kept, BESIDES)
    return found if found.reveal() else None


def secret_to_go_back_to(setting: ConfigOrder, kept: str) -> Secret | None:
    """What Keycloak had, if that is a secret: none and the mask of an export are no way back."""
    before = secret_of_before(setting, kept)
    return None if before is None or before.reveal() == MASKED else before
