"""Cells of a Grafana database that a careless migration breaks, and cells that none can save."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.grafana_content import add_dashboard, dashboard_json, panels
from tests.lab.grafana_people import World
from tests.lab.grafana_schema import grafana_11

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
CONTROL = "".join(map(chr, range(1, 32)))
FOUR_BYTES = "\N{FIRE} on call \N{FAMILY} \N{MATHEMATICAL BOLD CAPITAL A}"
ODD_LETTERS = "e\u0301 \u200d \u202eright to left\u202c \ufeff \u2028 \u00df \u0130"
SQL_LIKE = "x'); DROP TABLE dashboard; -- \\' \\\" \\0 %s %(a)s :a ? {{ b }} ${c} \x1a"


@dataclass(frozen=True)
class Planted:
    """One cell and where it is: the row of `table` with these `key` values, in `column`."""

    table: str
    key: dict[str, object]
    column: str
    stored: object
    acceptable: tuple[object, ...] = ()  # what MySQL may hold afterwards; none: what was stored

    def __post_init__(self) -> None:
        if not self.acceptable:
            object.__setattr__(self, "acceptable", (self.stored,))


def plant_awkward(world: World) -> dict[str, Planted]:
    """Add every awkward cell there is, and say where each one is."""
    return {
        **awkward_dashboards(world),
        **awkward_dates(world),
        **awkward_numbers(world),
        **awkward_texts(world),
    }


def dashboard_with(world: World, data: str | bytes, column: str = "data", **changes) -> Planted:
    """Add a dashboard to the first organisation, and point to one column of it."""
    key, _ = add_dashboard(world, world.organisations[0], data, 1, **changes)
    stored = changes.get(column, data)
    text = stored.decode() if isinstance(stored, bytes) else stored
    return Planted("dashboard", {"id": key}, column, stored, (text,))


def awkward_dashboards(world: World) -> dict[str, Planted]:
    """Add dashboards whose JSON must arrive byte for byte."""
    pool = panels(world.chance)
    escapes = r'{"a":"\\d+\\.\\d","b":"say \"hi\"","c":"C:\\new\\table","d":"\/","e":"\u0000"}'
    numbers = '{"a":1e400,"b":-0.0,"c":12345678901234567890,"d":1.10,"a":2}'
    layout = json.dumps({"title": "x", "panels": [1, 2]}, indent="\t").replace("\n", "\r\n")
    log = '{"title":"Upgrades","panels":[{"rawSql":"SELECT count(*) FROM migration_log"}]}'
    big, bigger = (dashboard_json("Big", "big", pool, size, 3) for size in (300_000, 2_000_000))
    return {
        "backslashes-and-quotes": dashboard_with(world, escapes),
        "json-numbers": dashboard_with(world, numbers),
        "crlf-and-tabs-in-json": dashboard_with(world, layout),
        "four-bytes-in-json": dashboard_with(world, f'{{"title":"{FOUR_BYTES}"}}'),
        "surrogates-in-json": dashboard_with(world, '{"title":"\\ud83d\\ude00 \\ud800"}'),
        "mentions-migration-log": dashboard_with(world, log),
        "dashboard-of-300-kb": dashboard_with(world, big),
        "dashboard-of-2-mb": dashboard_with(world, bigger.encode()),
        "blob-for-text": dashboard_with(world, f'{{"title":"{ODD_LETTERS}"}}'.encode()),
        "statement-in-text": dashboard_with(world, json.dumps({"title": SQL_LIKE})),
        "four-bytes-in-title": dashboard_with(world, "{}", "title", title=FOUR_BYTES),
        "longest-title": dashboard_with(world, "{}", "title", title="\N{FIRE}" * 189),
        "quotes-in-title": dashboard_with(world, "{}", "title", title="O'Brien's \"b\" `c` \\ %"),
        "null": dashboard_with(world, "{}", "plugin_id", plugin_id=None),
        "empty-string": dashboard_with(world, "{}", "plugin_id", plugin_id=""),
        "trailing-blanks": dashboard_with(world, "{}", "slug", slug="trailing  "),
        "leading-blank-line": dashboard_with(world, "\n {}\n\n"),
    }


def awkward_dates(world: World) -> dict[str, Planted]:
    """Add dates in every form that Go and SQLite leave behind; MySQL keeps whole seconds of UTC."""
    forms = {
        "date-with-nanoseconds-and-offset": (
            "2024-03-31 02:30:00.123456789+02:00", "2024-03-31 00:30:00",
        ),
        "date-with-negative-offset": ("2023-12-31 21:30:01.25-05:30", "2024-01-01 03:00:01"),
        "date-almost-the-next-second": (
            "2022-12-31 23:59:59.999999999+00:00", "2022-12-31 23:59:59", "2023-01-01 00:00:00",
        ),
        "date-with-t-and-z": ("2024-10-27T01:59:59Z", "2024-10-27 01:59:59"),
        "date-with-zone-name": ("2023-06-01 10:00:00 +0000 UTC", "2023-06-01 10:00:00"),
        "date-alone": ("2017-06-20", "2017-06-20 00:00:00"),
        "date-as-epoch": (1_700_000_000, "2023-11-14 22:13:20"),
        "date-zero-of-go": ("0001-01-01 00:00:00", "0001-01-01 00:00:00"),
        "date-zero-of-go-with-zone": ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00"),
        "date-far-ahead": ("9999-12-31 23:59:59", "9999-12-31 23:59:59"),
        "date-in-a-skipped-hour": ("2024-03-31 02:30:00", "2024-03-31 02:30:00"),
    }  # fmt: skip
    return {
        name: Planted(
            "dashboard",
            dashboard_with(world, "{}", "created", created=stored).key,
            "created",
            stored,
            tuple(acceptable),
        )
        for name, (stored, *acceptable) in forms.items()
    } | {
        "date-as-text-stays": kv_store_with(world, "2025-06-14T20:58:05-05:00"),
    }


def kv_store_with(world: World, value: str | bytes) -> Planted:
    """Add a key of the whole server, org_id 0, with this value."""
    row = world.rows.add(
        "kv_store", org_id=0, namespace="lab", key=world.uid(), value=value, **world.moments()
    )
    return Planted("kv_store", {"id": row}, "value", value)


def awkward_numbers(world: World) -> dict[str, Planted]:
    """Add zeros, extremes, and booleans that are text."""
    rows, moments = world.rows, world.moments()
    rows.add("playlist", id=0, name="Zero", interval="", org_id=0, uid=world.uid())
    preferences = rows.add(
        "preferences", org_id=0, user_id=0, version=0, home_dashboard_id=0, timezone="", theme="",
        team_id=None, week_start=None, json_data=None, **moments,
    )  # fmt: skip
    for permission, role in ((1, "Viewer"), (2, "Editor")):  # as every Grafana has them
        acl = rows.add(
            "dashboard_acl", org_id=-1, dashboard_id=-1, user_id=None, team_id=None,
            permission=permission, role=role, created="2017-06-20", updated="2017-06-20",
        )  # fmt: skip
    data_source = rows.add(
        "data_source", org_id=world.organisations[0], version=1, type="mysql", name="Booleans",
        access="proxy", url="", basic_auth="false", is_default="true", json_data=b'{"a":"\\\\"}',
        with_credentials=0, secure_json_data="{}", read_only=None, uid=world.uid(), **moments,
    )  # fmt: skip
    user = rows.add(
        "user", version=0, login="textual", email="textual@lab.test", org_id=1, is_admin=0,
        is_service_account="true", uid=world.uid(), **moments,
    )  # fmt: skip
    return {
        "id-zero": Planted("playlist", {"id": 0}, "name", "Zero"),
        "org-id-zero": Planted("playlist", {"id": 0}, "org_id", 0),
        "user-id-zero": Planted("preferences", {"id": preferences}, "user_id", 0),
        "org-id-negative": Planted("dashboard_acl", {"id": acl}, "org_id", -1),
        "int64-largest": dashboard_with(world, "{}", "gnet_id", gnet_id=INT64_MAX),
        "int64-smallest": dashboard_with(world, "{}", "gnet_id", gnet_id=INT64_MIN),
        "int32-largest": dashboard_with(world, "{}", "updated_by", updated_by=2**31 - 1),
        "boolean-text-true": Planted(
            "data_source", {"id": data_source}, "is_default", "true", (1,)
        ),
        "boolean-text-false": Planted(
            "data_source", {"id": data_source}, "basic_auth", "false", (0,)
        ),
        "boolean-typed-text": Planted("user", {"id": user}, "is_service_account", "true", (1,)),
        "blob-for-json": Planted(
            "data_source", {"id": data_source}, "json_data", b'{"a":"\\\\"}', ('{"a":"\\\\"}',)
        ),
    }  # fmt: skip


def awkward_texts(world: World) -> dict[str, Planted]:
    """Add texts outside of JSON, in columns with reserved names too."""
    rows, moments, org = world.rows, world.moments(), world.organisations[0]
    rule: dict[str, object] = {
        "org_id": org, "title": "For", "condition": "A", "data": "[]", "rule_group": "g",
        "uid": world.uid(), "namespace_uid": world.uid(), "updated": moments["updated"],
    }  # fmt: skip
    rule_id = rows.add("alert_rule", **rule, **{"for": INT64_MAX}, annotations="y" * 65_535)
    guid = "00000000-0000-4000-8000-00000000aaaa"
    rows.add(
        "resource", guid=guid, resource_version=INT64_MAX, group="lab.grafana.app",
        resource="things", namespace="default", name="a", value="{}", action=1,
    )  # fmt: skip
    item = rows.add("playlist_item", playlist_id=0, type="", value="", title="", order=-1)
    data_key = Planted("data_keys", {"name": "every-byte"}, "encrypted_data", bytes(range(256)))
    rows.add(
        "data_keys", name="every-byte", active=0, scope="root", provider="secretKey.v1", label="",
        encrypted_data=data_key.stored, **moments,
    )  # fmt: skip
    tag = rows.add("tag", key="Env", value="Prod")
    rows.add("tag", key="Env", value="Próduction")
    return {
        "control-characters": kv_store_with(world, CONTROL),
        "newlines-of-every-kind": kv_store_with(world, "a\nb\r\nc\rd\n"),
        "odd-letters": kv_store_with(world, ODD_LETTERS),
        "statement-in-value": kv_store_with(world, SQL_LIKE),
        "only-a-backslash": kv_store_with(world, "\\"),
        "text-of-a-number": kv_store_with(world, "007e1"),
        "the-word-null": kv_store_with(world, "NULL"),
        "text-of-exactly-64k": Planted("alert_rule", {"id": rule_id}, "annotations", "y" * 65_535),
        "reserved-for": Planted("alert_rule", {"id": rule_id}, "for", INT64_MAX),
        "reserved-group": Planted("resource", {"guid": guid}, "group", "lab.grafana.app"),
        "reserved-order": Planted("playlist_item", {"id": item}, "order", -1),
        "reserved-key": Planted("tag", {"id": tag}, "key", "Env"),
        "every-byte-in-blob": data_key,
    }


def case_colliding_login(world: World) -> Planted:
    """Two logins that differ in case only; the unique index of MySQL takes one."""
    for login in ("Ops.Lead", "ops.lead"):
        user = world.rows.add(
            "user", version=0, login=login, email=f"{world.uid()}@lab.test", org_id=1, is_admin=0,
            uid=world.uid(), **world.moments(),
        )  # fmt: skip
    return Planted("user", {"id": user}, "login", login)


def accent_colliding_team(world: World) -> Planted:
    """Two teams of one organisation whose names differ in an accent only."""
    for name in ("Équipe", "Equipe"):
        team = world.rows.add("team", name=name, org_id=1, uid=world.uid(), **world.moments())
    return Planted("team", {"id": team}, "name", name)


def blank_colliding_tag(world: World) -> Planted:
    """Two tags that differ in a trailing blank only."""
    for key in ("stage", "stage "):
        tag = world.rows.add("tag", key=key, value="one")
    return Planted("tag", {"id": tag}, "key", key)


def case_colliding_kv_key(world: World) -> Planted:
    """Two keys of the key-value store that differ in case only."""
    for key in ("lastSent", "lastsent"):
        row = world.rows.add(
            "kv_store", org_id=0, namespace="lossy", key=key, value="", **world.moments()
        )
    return Planted("kv_store", {"id": row}, "key", key)


def case_colliding_primary_key(world: World) -> Planted:
    """Two data keys whose names, the primary key, differ in case only."""
    for name in ("lossy-key", "LOSSY-key"):
        world.rows.add(
            "data_keys", name=name, active=0, scope="root", provider="secretKey.v1", label="",
            encrypted_data=b"\0", **world.moments(),
        )  # fmt: skip
    return Planted("data_keys", {"name": name}, "name", name)


def too_long_title(world: World) -> Planted:
    """A dashboard title of 190 letters; the column of MySQL holds 189."""
    return dashboard_with(world, "{}", "title", title="T" * 190)


def int_out_of_range(world: World) -> Planted:
    """A user id of 2 to the 31st in a column that is an int in MySQL."""
    return dashboard_with(world, "{}", "updated_by", updated_by=2**31)


def boolean_out_of_range(world: World) -> Planted:
    """A 300 in a boolean, a tinyint in MySQL."""
    return dashboard_with(world, "{}", "has_acl", has_acl=300)


def text_for_number(world: World) -> Planted:
    """A word in a numeric column."""
    return dashboard_with(world, "{}", "gnet_id", gnet_id="none")


def fraction_for_number(world: World) -> Planted:
    """One and a half in a column of whole numbers; MySQL would round it."""
    return dashboard_with(world, "{}", "gnet_id", gnet_id=1.5)


def text_over_64k(world: World) -> Planted:
    """Annotations of a rule with 20,000 letters but 80,000 bytes; a text of MySQL holds 65,535."""
    value = "\N{FIRE}" * 20_000
    rule = world.rows.add(
        "alert_rule", org_id=1, title="Long", condition="A", data="[]", rule_group="g",
        uid=world.uid(), namespace_uid=world.uid(), updated="2024-01-01 00:00:00",
        annotations=value,
    )  # fmt: skip
    return Planted("alert_rule", {"id": rule}, "annotations", value)


def text_over_16m(world: World) -> Planted:
    """A dashboard of 16 MiB; a mediumtext of MySQL holds one byte less."""
    return dashboard_with(world, '{"a":"' + "x" * ((16 << 20) - 8) + '"}')


def blob_over_64k(world: World) -> Planted:
    """An encrypted key of 65,536 bytes; a blob of MySQL holds one less."""
    world.rows.add(
        "data_keys", name="long-key", active=0, scope="root", provider="secretKey.v1", label="",
        encrypted_data=b"\1" * 65_536, **world.moments(),
    )  # fmt: skip
    return Planted("data_keys", {"name": "long-key"}, "encrypted_data", b"\1" * 65_536)


def invalid_date(world: World) -> Planted:
    """The 30th of February."""
    return dashboard_with(world, "{}", "updated", updated="2024-02-30 10:00:00")


def unreadable_date(world: World) -> Planted:
    """Words where a date should be."""
    return dashboard_with(world, "{}", "updated", updated="last Tuesday")


def invalid_utf8(world: World) -> Planted:
    """Bytes in a text that are no UTF-8."""
    planted = kv_store_with(world, "to be replaced")
    raw = b'{"a":"\xff\xfe\xed\xa0\x80"}'
    world.rows.connection.execute(
        "UPDATE kv_store SET value = CAST(? AS TEXT) WHERE id = ?", (raw, planted.key["id"])
    )
    return Planted("kv_store", planted.key, "value", raw)


def null_not_allowed(world: World) -> Planted:
    """A NULL in a column that SQLite lets be NULL and MySQL does not."""
    row = world.rows.add("seed_assignment", builtin_role=None, action="lab:read", scope="")
    return Planted("seed_assignment", {"id": row}, "builtin_role", None)


def sqlite_only_column(world: World) -> Planted:
    """A column with values in it that the tables of MySQL do not have."""
    world.rows.connection.execute("ALTER TABLE dashboard ADD COLUMN reviewed_by TEXT")
    return dashboard_with(world, "{}", "reviewed_by", reviewed_by="the night shift")


def sqlite_only_table(world: World) -> Planted:
    """A table with a row in it, as of the Enterprise edition, that MySQL does not have."""
    world.rows.connection.execute(
        "CREATE TABLE report (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL)"
    )
    row = world.rows.add("report", name="Monthly")
    return Planted("report", {"id": row}, "name", "Monthly")


def newer_schema(world: World) -> Planted:
    """A migration that the other side has not had: the database is of a newer Grafana."""
    return migration(world, "add a column that 11.5 does not know", success=1)


def failed_migration(world: World) -> Planted:
    """A migration that did not succeed: the schema is half of one version, half of another."""
    return migration(world, grafana_11().migrations["migration_log"][-1], success=0)


def migration(world: World, name: str, *, success: int) -> Planted:
    """Add a line to the log of migrations."""
    row = world.rows.add(
        "migration_log", migration_id=name, sql="", success=success, error="",
        timestamp="2025-01-01 00:00:00",
    )  # fmt: skip
    return Planted("migration_log", {"id": row}, "success", success)


def unified_storage(world: World) -> Planted:
    """Dashboards that were moved to unified storage; the table called dashboard is stale."""
    log = "unifiedstorage_migration_log"
    world.rows.connection.execute(
        f"CREATE TABLE {log} (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, migration_id TEXT, "
        "sql TEXT, success INTEGER, error TEXT, timestamp DATETIME)"
    )
    row = world.rows.add(
        log, migration_id="folders and dashboards migration", sql="", success=1, error="",
        timestamp="2025-11-01 00:00:00",
    )  # fmt: skip
    world.rows.add(
        "resource", guid="00000000-0000-4000-8000-00000000bbbb", resource_version=1, action=1,
        group="dashboard.grafana.app", resource="dashboards", namespace="default", name="moved",
        value="{}",
    )  # fmt: skip
    return Planted(log, {"id": row}, "success", 1)


LOSSY: dict[str, Callable[[World], Planted]] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        case_colliding_login, accent_colliding_team, blank_colliding_tag, case_colliding_kv_key,
        case_colliding_primary_key, too_long_title, int_out_of_range, boolean_out_of_range,
        text_for_number, fraction_for_number, text_over_64k, text_over_16m, blob_over_64k,
        invalid_date, unreadable_date, invalid_utf8, null_not_allowed, sqlite_only_column,
        sqlite_only_table, newer_schema, failed_migration, unified_storage,
    )
}  # fmt: skip
