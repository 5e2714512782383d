"""Who has a role of Keycloak: by itself, by a group or one above it, or by a role that holds it.

A composite role gives the roles that it holds, which may be composite as well; it may be of the
realm or of one of its clients, and every user has the default roles of the realm.
"""

from dataclasses import dataclass
from typing import Any

from blocks.keycloak.session import LISTED_MAX, KeycloakSession, in_path
from recovery.errors import UnreadableOutput


@dataclass(frozen=True)
class RoleAt:
    """A role. `path` is where Keycloak has who it was given to."""

    key: str
    path: str
    is_composite: bool


def users_with(session: KeycloakSession, realm: str, role: str) -> list[str]:
    """Names of the enabled users that have a role of a realm, in whichever way.

    A group gives its roles to the groups below it.

    Args:
        session: an open session, of an account that may view the realm, its users, groups and
            clients.
        realm: which realm.
        role: the name of a role of the realm.

    Raises:
        KeycloakNotFound: there is no such realm, or no such role in it.
        UnreadableOutput: there are more roles or clients than are asked for at once.
        KeycloakLoginRefused, KeycloakPermissionMissing, Unreachable and the rest: as of
            `KeycloakSession.client_named`.
    """
    found: list[Any] = []
    for one in giving(session, realm, role):
        found += session.listed(f"{one.path}/users")
        found += _in_groups(session, realm, session.listed(f"{one.path}/groups"))
    return sorted({str(one.get("username")) for one in found if one.get("enabled", True)})


def giving(session: KeycloakSession, realm: str, role: str) -> list[RoleAt]:
    """The role itself, and every composite role that holds it, at whatever depth.

    Errors are those of `users_with`.
    """
    path = f"/admin/realms/{in_path(realm)}"
    mine = _role(f"{path}/roles", session.read(f"{path}/roles/{in_path(role)}"))
    composites = [one for one in _roles(session, path) if one.is_composite]
    held = {
        one.key: {
            str(each["id"])
            for each in _whole(session, f"{path}/roles-by-id/{in_path(one.key)}/composites")
        }
        for one in composites
    }
    found = [mine]
    for giver in found:  # it grows
        known = {one.key for one in found}
        found += [one for one in composites if one.key not in known and giver.key in held[one.key]]
    return found


def _roles(session: KeycloakSession, path: str) -> list[RoleAt]:
    roles = [_role(f"{path}/roles", one) for one in _whole(session, f"{path}/roles")]
    for client in _whole(session, f"{path}/clients"):
        of_client = f"{path}/clients/{in_path(str(client['id']))}/roles"
        roles += [_role(of_client, one) for one in _whole(session, of_client)]
    return roles


def _role(path: str, read: Any) -> RoleAt:
    name = in_path(str(read["name"]))
    return RoleAt(str(read["id"]), f"{path}/{name}", bool(read.get("composite")))


def _whole(session: KeycloakSession, path: str) -> list[Any]:
    """All of a list: what is left out could be what is looked for."""
    found = session.listed(path)
    if len(found) >= LISTED_MAX:
        raise UnreadableOutput(f"GET {path}", f"{len(found)} or more, which is not all")
    return found


def _in_groups(session: KeycloakSession, realm: str, groups: list[Any]) -> list[Any]:
    """The users of groups, and of those below them."""
    found = []
    while groups:
        group = f"/admin/realms/{in_path(realm)}/groups/{in_path(str(groups.pop()['id']))}"
        found += session.listed(f"{group}/members")
        read = session.read(group)
        below = read.get("subGroups") or []
        if not below and read.get("subGroupCount"):  # from 23 on they are asked for
            below = session.listed(f"{group}/children")
        groups += below
    return found
