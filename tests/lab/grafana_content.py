"""Rows of a Grafana database about what is shown: folders, dashboards, alert rules, annotations."""

import json
import random

from tests.lab.grafana_people import World, stamp

LARGEST_CELL = 15 << 20  # MySQL keeps dashboards in a mediumtext
PANEL_KINDS = ("timeseries", "stat", "table", "gauge", "logs")
WORDS = ("Übersicht", "Latency", "Kubernetes", "Disk", "Zugriffe", "Queue", "Réseau", "Nodes")


def panels(chance: random.Random, how_many: int = 40) -> list[str]:
    """Return the JSON of some panels, to be put together into dashboards of any size."""
    made = []
    for number in range(how_many):
        query = f'sum by (job) (rate(http_{number}_total{{path=~"/api/v\\d+/.*",x!="a\\\\b"}}[5m]))'
        made.append(
            json.dumps(
                {
                    "id": number,
                    "type": chance.choice(PANEL_KINDS),
                    "title": f'Panel {number}: "{chance.choice(WORDS)}" \\ {chance.random():.6f}',
                    "description": "first line\nsecond line\twith a tab",
                    "gridPos": {"h": 8, "w": 12, "x": 0, "y": 8 * number},
                    "targets": [{"refId": "A", "expr": query, "legendFormat": "{{job}} %s ?"}],
                    "fieldConfig": {"defaults": {"unit": "s", "min": -1.5e-7}, "overrides": []},
                },
                ensure_ascii=bool(number % 2),
                separators=(",", ":"),
            )
        )
    return made


def dashboard_json(title: str, uid: str, pool: list[str], size_bytes: int, first: int) -> str:
    """Return a dashboard of about this size, beginning with the given panel of the pool."""
    head = json.dumps({"title": title, "uid": uid, "schemaVersion": 40, "tags": ["lab"]})
    chosen, size, at = [], len(head), first
    while size < size_bytes or not chosen:
        panel = pool[at % len(pool)]
        chosen.append(panel)
        size += len(panel.encode()) + 1
        at += 1
    return head[:-1] + ', "panels": [' + ",".join(chosen) + "]}"


def add_folders(world: World, org: int) -> None:
    """Add folders, one inside another, both in their own table and as dashboards."""
    world.folders[org] = []
    parent = None
    for name in ("Infrastructure", "Anwendungen", "Archive"):
        uid, moments = world.uid(), world.moments()
        world.rows.add(
            "folder", uid=uid, org_id=org, title=name, description=None, parent_uid=parent,
            **moments,
        )  # fmt: skip
        folder = world.rows.add(
            "dashboard", version=1, slug=name.lower(), title=name, org_id=org, uid=uid,
            data=json.dumps({"schemaVersion": 17, "title": name, "uid": uid}), is_folder=1,
            created_by=1, updated_by=1, gnet_id=0, plugin_id="", folder_uid=parent, **moments,
        )  # fmt: skip
        world.folders[org].append((folder, uid))
        parent = uid


def add_dashboard(world: World, org: int, data: str | bytes, versions: int, **changes: object):
    """Add a dashboard with versions, tags, a star; `changes` override its columns.

    Returns:
        Its id and its uid.
    """
    number = world.rows.counts["dashboard"]
    folder, folder_uid = world.folders[org][number % len(world.folders[org])]
    moments = world.moments()
    values: dict[str, object] = {
        "version": max(versions, 1), "slug": f"dashboard-{number}", "title": f"Dashboard {number}",
        "data": data, "org_id": org, "updated_by": 1, "created_by": 1, "gnet_id": 0,
        "plugin_id": "", "folder_id": folder, "is_folder": 0, "has_acl": 0, "uid": world.uid(),
        "is_public": 0, "deleted": None, "folder_uid": folder_uid, **moments, **changes,
    }  # fmt: skip
    dashboard, uid = world.rows.add("dashboard", **values), str(values["uid"])
    text = data.decode() if isinstance(data, bytes) else data
    for version in range(1, versions + 1):
        world.rows.add(
            "dashboard_version", dashboard_id=dashboard, parent_version=version - 1,
            restored_from=0, version=version, created=moments["updated"], created_by=1,
            message=f"save {version}", data=text,
        )  # fmt: skip
    for term in ("lab", f"tag{number % 7}"):
        world.rows.add(
            "dashboard_tag", dashboard_id=dashboard, term=term, dashboard_uid=uid, org_id=org
        )
    if number % 5 == 0:
        world.rows.add(
            "star", user_id=1, dashboard_id=dashboard, dashboard_uid=uid, org_id=org,
            updated=moments["updated"],
        )  # fmt: skip
    world.dashboards.setdefault(org, []).append((dashboard, uid))
    return dashboard, uid


def add_around_dashboards(world: World, org: int) -> None:
    """Add what refers to the dashboards of an organisation."""
    rows, moments = world.rows, world.moments()
    dashboard, uid = world.dashboards[org][0]
    rows.add(
        "dashboard_acl", org_id=org, dashboard_id=dashboard, user_id=world.users[org][1],
        team_id=None, permission=2, role=None, **moments,
    )  # fmt: skip
    rows.add(
        "dashboard_provisioning", dashboard_id=dashboard, name="default", updated=1718000000,
        external_id=f"/etc/grafana/dashboards/{org}.json", check_sum="0" * 32,
    )  # fmt: skip
    rows.add(
        "dashboard_public", uid=world.uid(), dashboard_uid=uid, org_id=org, time_settings="",
        template_variables=None, access_token=world.chance.randbytes(16).hex(), created_by=1,
        updated_by=None, created_at=moments["created"], updated_at=None, is_enabled=1,
        annotations_enabled=0, time_selection_enabled=1, share="public",
    )  # fmt: skip
    playlist = rows.add("playlist", name="Wall", interval="5m", org_id=org, uid=world.uid())
    rows.add(
        "playlist_item", playlist_id=playlist, type="dashboard_by_uid", value=uid, title="", order=1
    )
    element = rows.add(
        "library_element", org_id=org, folder_id=0, uid=world.uid(), name="Shared panel", kind=1,
        type="stat", description="", model='{"type":"stat"}', created_by=1, updated_by=1,
        version=1, folder_uid="", **moments,
    )  # fmt: skip
    rows.add(
        "library_element_connection", element_id=element, kind=1, connection_id=dashboard,
        created=moments["created"], created_by=1,
    )  # fmt: skip
    rows.add(
        "short_url", org_id=org, uid=world.uid(), path=f"d/{uid}/x?var-a=%2F&b='", created_by=1,
        created_at=1718000000, last_seen_at=None,
    )  # fmt: skip
    query = world.uid()
    rows.add(
        "query_history", uid=query, org_id=org, datasource_uid=world.sources[org][0], created_by=1,
        created_at=1718000000, comment="", queries='[{"expr":"up{job=\\"a\\"}"}]',
    )  # fmt: skip
    rows.add("query_history_star", query_uid=query, user_id=1, org_id=org)
    rows.add(
        "correlation", uid=world.uid(), org_id=org, source_uid=world.sources[org][0],
        target_uid=world.sources[org][1], label="logs", description="", config="{}",
        provisioned=0, type="query",
    )  # fmt: skip
    rows.add(
        "plugin_setting", org_id=org, plugin_id="lab-app", enabled=1, pinned=0, json_data="{}",
        secure_json_data="{}", plugin_version="1.0.0", **moments,
    )  # fmt: skip
    rows.add(
        "resource", guid=f"00000000-0000-4000-8000-{org:012}", resource_version=org * 1000,
        group="playlist.grafana.app", resource="playlists", namespace=f"org-{org}",
        name=world.uid(), value='{"kind":"Playlist"}', action=1, label_set=None,
        previous_resource_version=0, folder="",
    )  # fmt: skip


def add_alerting(world: World, org: int, rules: int) -> None:
    """Add alert rules with versions, their routing, an instance and their provenance."""
    rows = world.rows
    routing = {"template_files": {}, "alertmanager_config": {"route": {"receiver": "mail"}}}
    moments = world.moments()
    for table, more in (
        ("alert_configuration", {}),
        ("alert_configuration_history", {"last_applied": 1718000000}),
    ):
        rows.add(
            table, alertmanager_configuration=json.dumps(routing, indent="\t"), org_id=org,
            configuration_version="v1", created_at=1718000000, default=0,
            configuration_hash=world.chance.randbytes(16).hex(), **more,
        )  # fmt: skip
    rows.add("ngalert_configuration", org_id=org, alertmanagers=None, created_at=1, updated_at=1)
    folder_uid = world.folders[org][0][1]
    for number in range(rules):
        uid = world.uid()
        common: dict[str, object] = {
            "title": f"Rule {number}", "condition": "B", "rule_group": f"group {number // 4}",
            "data": json.dumps([{"refId": "A", "model": {"expr": 'up{job=~"a|b\\\\.c"} == 0'}}]),
            "interval_seconds": 60, "no_data_state": "NoData", "exec_err_state": "Error",
            "for": 300_000_000_000, "annotations": json.dumps({"summary": 'disk "full"\n'}),
            "labels": '{"severity":"page"}', "rule_group_idx": number % 4 + 1, "is_paused": 0,
            "notification_settings": None, "record": "", "metadata": "{}", "version": 1,
        }  # fmt: skip
        rows.add(
            "alert_rule", **common, org_id=org, uid=uid, namespace_uid=folder_uid,
            dashboard_uid=None, panel_id=None, updated=moments["updated"],
        )  # fmt: skip
        rows.add(
            "alert_rule_version", **common, rule_org_id=org, rule_uid=uid,
            rule_namespace_uid=folder_uid, parent_version=0, restored_from=0,
            created=moments["created"],
        )  # fmt: skip
        rows.add(
            "alert_instance", rule_org_id=org, rule_uid=uid, labels="[]",
            labels_hash=world.token(40),
            current_state="Normal", current_state_since=1718000000, last_eval_time=1718000060,
            current_state_end=1718000240, current_reason="", result_fingerprint="0" * 16,
        )  # fmt: skip
        rows.add(
            "provenance_type", org_id=org, record_key=uid, record_type="alertRule", provenance="api"
        )


def add_annotations(world: World, org: int, how_many: int) -> None:
    """Add annotations, every third with a tag."""
    dashboard, _ = world.dashboards[org][0]
    for number in range(how_many):
        moment = int(world.moment().timestamp() * 1000)
        annotation = world.rows.add(
            "annotation", org_id=org, alert_id=0, user_id=1, dashboard_id=dashboard, panel_id=2,
            type="", title="", text=f"deployed {number}\r\nby <b>hand</b>", metric=None,
            prev_state="", new_state="", data="{}", epoch=moment, region_id=0, created=moment,
            updated=moment, epoch_end=moment, tags='["deploy:prod"]',
        )  # fmt: skip
        if number % 3 == 0:
            tag = world.rows.add("tag", key=f"deploy-{org}", value=f"prod-{annotation}")
            world.rows.add("annotation_tag", annotation_id=annotation, tag_id=tag)


def add_snapshot(world: World, org: int, data: str) -> None:
    """Add a dashboard snapshot."""
    moments = world.moments()
    world.rows.add(
        "dashboard_snapshot", name="Snapshot", key=world.token(32), delete_key=world.token(32),
        org_id=org, user_id=1, external=0, external_url="", dashboard=data,
        expires=stamp(world.moment().replace(year=2074)), external_delete_url="",
        dashboard_encrypted=world.chance.randbytes(2000), **moments,
    )  # fmt: skip
