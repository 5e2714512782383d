"""Rows of a Grafana database about who may do what: organisations, users, teams, roles, keys."""

import base64
import json
import random
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.lab.grafana_schema import Rows

FIRST_DAY = datetime(2021, 3, 1, 8, tzinfo=UTC)
ORGANISATIONS = ("Main Org.", "Platform", "Zahlungsverkehr Köln", "Données", "Night Shift")
USERS_EACH = 8


@dataclass
class World:
    """What the rows refer to, and the one source of chance."""

    rows: Rows
    chance: random.Random
    organisations: list[int] = field(default_factory=list)
    users: dict[int, list[int]] = field(default_factory=dict)
    teams: dict[int, list[int]] = field(default_factory=dict)
    sources: dict[int, list[str]] = field(default_factory=dict)
    folders: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    dashboards: dict[int, list[tuple[int, str]]] = field(default_factory=dict)

    def uid(self) -> str:
        """Return an identifier of the kind Grafana makes."""
        return "".join(self.chance.choices(string.ascii_lowercase + string.digits, k=14))

    def token(self, length: int) -> str:
        """Return letters and digits."""
        return "".join(self.chance.choices(string.ascii_letters + string.digits, k=length))

    def moment(self) -> datetime:
        """Return a moment in the four years that the database covers."""
        return FIRST_DAY + timedelta(seconds=self.chance.randrange(4 * 365 * 86400))

    def moments(self) -> dict[str, str]:
        """Return `created` and `updated`, in this order of time."""
        created, updated = sorted((self.moment(), self.moment()))
        return {"created": stamp(created), "updated": stamp(updated)}

    def encrypted(self, data_key: str) -> str:
        """Return a secret as the envelope encryption stores it."""
        name = base64.b64encode(data_key.encode()).decode().rstrip("=")
        return base64.b64encode(f"#{name}#".encode() + self.chance.randbytes(48)).decode()


def stamp(moment: datetime) -> str:
    """Return a moment as Grafana usually writes it into SQLite."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def add_organisation(world: World, name: str, users: int = USERS_EACH) -> int:
    """Add an organisation with users, a service account, teams, preferences and data sources."""
    rows, first = world.rows, not world.organisations
    org = rows.add("org", version=0, name=name, billing_email="", **world.moments())
    world.organisations.append(org)
    world.users[org] = [add_user(world, org, n, is_admin=first and n == 0) for n in range(users)]
    add_service_account(world, org)
    add_teams(world, org)
    add_managed_roles(world, org)
    add_data_sources(world, org)
    rows.add(
        "preferences", org_id=org, user_id=0, version=1, home_dashboard_id=0, timezone="utc",
        theme="dark", team_id=0, week_start="", json_data="{}", **world.moments(),
    )  # fmt: skip
    return org


def add_user(world: World, org: int, number: int, *, is_admin: bool) -> int:
    """Add a user with the membership that Grafana wants besides."""
    login = "admin" if is_admin else f"user{number:02}-of-{org}"
    email = "admin@localhost" if is_admin else f"{login}@lab.test"
    user = world.rows.add(
        "user", version=0, login=login, email=email,
        name=f"Usér {number} of {org}", password=world.chance.randbytes(50).hex(),
        salt=world.token(10), rands=world.token(10), company="", org_id=org,
        is_admin=int(is_admin), email_verified=number % 2, theme="", help_flags1=0,
        last_seen_at=stamp(world.moment()), is_disabled=int(number == 5), is_service_account=0,
        uid=world.uid(), **world.moments(),
    )  # fmt: skip
    role = "Admin" if is_admin or number == 1 else world.chance.choice(["Viewer", "Editor"])
    world.rows.add("org_user", org_id=org, user_id=user, role=role, **world.moments())
    if number == 2:
        world.rows.add(
            "user_auth", user_id=user, auth_module="oauth_generic_oauth", auth_id=world.uid(),
            created=stamp(world.moment()), o_auth_access_token=world.token(200),
            o_auth_refresh_token="", o_auth_token_type="Bearer",  # noqa: S106 - the kind, not a token
            o_auth_expiry=stamp(world.moment()),
        )  # fmt: skip
        seen = int(world.moment().timestamp())
        world.rows.add(
            "user_auth_token", user_id=user, auth_token=world.chance.randbytes(32).hex(),
            prev_auth_token=world.chance.randbytes(32).hex(), user_agent="Mozilla/5.0",
            client_ip="192.0.2.7", auth_token_seen=1, seen_at=seen, rotated_at=seen,
            created_at=seen, updated_at=seen, revoked_at=0,
        )  # fmt: skip
    return user


def add_service_account(world: World, org: int) -> None:
    """Add a service account with a token, and an API key of the old kind."""
    moments = world.moments()
    account = world.rows.add(
        "user", version=0, login=f"sa-{org}-deploy", email=f"sa-{org}-deploy", name="deploy",
        org_id=org, is_admin=0, is_disabled=0, is_service_account=1, uid=world.uid(), **moments,
    )  # fmt: skip
    world.rows.add("org_user", org_id=org, user_id=account, role="Editor", **moments)
    for name, owner, expires in (("deploy", account, None), ("scraper", None, 1893456000)):
        world.rows.add(
            "api_key", org_id=org, name=f"{name}-{org}", key=world.chance.randbytes(50).hex(),
            role="Viewer", expires=expires, service_account_id=owner, is_revoked=0,
            last_used_at=None, **moments,
        )  # fmt: skip


def add_teams(world: World, org: int) -> None:
    """Add two teams, with members and roles."""
    world.teams[org] = []
    for name in ("On Call", "Betrieb & Netz"):
        moments = world.moments()
        team = world.rows.add(
            "team", name=name, org_id=org, uid=world.uid(), email="", **moments,
        )  # fmt: skip
        world.teams[org].append(team)
        for user in world.users[org][:3]:
            world.rows.add(
                "team_member", org_id=org, team_id=team, user_id=user, external=0,
                permission=0 if user % 2 else 4, **moments,
            )  # fmt: skip


def add_managed_roles(world: World, org: int) -> None:
    """Add the roles that Grafana manages itself, their permissions and who holds them."""
    created = stamp(world.moment())
    for kind in ("viewer", "editor", "users:1", "teams:1"):
        target = f"builtins:{kind}" if ":" not in kind else kind
        role = world.rows.add(
            "role", name=f"managed:{target}:permissions", description="", version=0, org_id=org,
            uid=world.uid(), display_name="", group_name="", hidden=0, created=created,
            updated=created,
        )  # fmt: skip
        for action in ("dashboards:read", "annotations:read", "folders:read"):
            scope = world.uid()
            world.rows.add(
                "permission", role_id=role, action=action, scope=f"dashboards:uid:{scope}",
                kind="dashboards", attribute="uid", identifier=scope, created=created,
                updated=created,
            )  # fmt: skip
        if kind in {"viewer", "editor"}:
            world.rows.add(
                "builtin_role", role=kind.title(), role_id=role, org_id=org, created=created,
                updated=created,
            )  # fmt: skip
        elif kind == "users:1":
            world.rows.add(
                "user_role", org_id=org, user_id=world.users[org][0], role_id=role,
                created=created, group_mapping_uid="",
            )  # fmt: skip
        else:
            world.rows.add(
                "team_role", org_id=org, team_id=world.teams[org][0], role_id=role, created=created
            )


def add_data_sources(world: World, org: int) -> None:
    """Add data sources of four kinds with their encrypted settings and the keys to them."""
    data_key = world.uid()
    moments = world.moments()
    world.rows.add(
        "data_keys", name=data_key, active=1, scope="root", provider="secretKey.v1",
        encrypted_data=world.chance.randbytes(52),
        label=f"{moments['created'][:10]}/root@secretKey.v1", **moments,
    )  # fmt: skip
    world.sources[org] = []
    for number, kind in enumerate(("prometheus", "influxdb", "mysql", "loki")):
        uid = world.uid()
        world.sources[org].append(uid)
        settings = {"httpMethod": "POST", "timeInterval": "15s", "customQueryParameters": "a=1&b=2"}
        world.rows.add(
            "data_source", org_id=org, version=1, type=kind, name=f"{kind} {org}", access="proxy",
            url=f"http://{kind}.lab.test:90{number}0", password="", user="reader", database="",
            basic_auth=number % 2, basic_auth_user="", basic_auth_password="",
            is_default=int(number == 0), json_data=json.dumps(settings), with_credentials=0,
            secure_json_data=json.dumps({"password": world.encrypted(data_key)}), read_only=0,
            uid=uid, is_prunable=0, api_version="", **moments,
        )  # fmt: skip
        world.rows.add(
            "secrets", org_id=org, namespace=f"{kind} {org}", type="datasource",
            value=world.encrypted(data_key), **moments,
        )  # fmt: skip


def add_server_wide(world: World) -> None:
    """Add what belongs to no organisation: markers, signing keys, locks, quotas, caches."""
    rows, moments = world.rows, world.moments()
    for namespace, key, value in (
        ("ngalert.migration", "currentAlertingType", "UnifiedAlerting"),
        ("datasource", "secretMigrationStatus", "compatible"),
        ("infra.usagestats", "anonymous_id", "5b0c2f9e-0000-4000-8000-5f3a6d1c9b47"),
        ("plugin.publickeys", "key-of-the-lab", "-----BEGIN\r\nnot a key\r\n\r\n-----END\n"),
    ):
        rows.add("kv_store", org_id=0, namespace=namespace, key=key, value=value, **moments)
    rows.add(
        "signing_key", key_id="id-2024-06-es256", private_key=world.token(398), alg="ES256",
        added_at=moments["created"], expires_at=moments["updated"],
    )  # fmt: skip
    rows.add(
        "server_lock", operation_uid="cleanup expired auth tokens", version=52,
        last_execution=1718000000,
    )  # fmt: skip
    rows.add("quota", org_id=None, user_id=None, target="dashboard", limit=-1, **moments)
    rows.add(
        "cache_data", cache_key="id-token-1-user-1", data=world.chance.randbytes(300),
        expires=569, created_at=1718000000,
    )  # fmt: skip
    rows.add("login_attempt", username="nobody", ip_address="192.0.2.9", created=1718000000)
    rows.add(
        "seed_assignment", builtin_role="Viewer", action="orgs:read", scope="", role_name=None,
    )  # fmt: skip
    rows.add(
        "temp_user", org_id=1, version=0, email="invited@lab.test", name="", role="Viewer",
        code=world.token(30), status="InvitePending", invited_by_user_id=1, email_sent=0,
        created=1718000000, updated=1718000000,
    )  # fmt: skip
    rows.add(
        "sso_setting", id=world.uid(), provider="generic_oauth", settings='{"enabled":false}',
        is_deleted=0, **moments,
    )  # fmt: skip
