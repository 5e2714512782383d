"""Dashboard files: what is taken, what is refused and why, and how they are compared."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from blocks.grafana.answer import GrafanaNotFound, said_in
from blocks.grafana.api import GrafanaApi
from recovery.errors import BadInput, NotVerified, Refused, UnreadableOutput
from tasks import grafana_dashboards
from tasks.grafana_dashboard_files import count_panels, derived_uid, read_dashboards
from tasks.grafana_dashboards import Presence, compare, differences

PANEL = {"id": 1, "type": "timeseries", "title": "CPU", "datasource": {"uid": "prom"}}
NODES = {"id": 7, "uid": "nodes", "title": "Nodes", "version": 12, "panels": [PANEL]}


def folder_of(tmp_path: Path, **files: object) -> Path:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    return tmp_path


def only(folder: Path):
    (file,) = read_dashboards(folder)
    return file


@dataclass
class Shelf:
    """A Grafana that holds these dashboards, each with the folder it is in."""

    held: dict[str, tuple[str, dict]] = field(default_factory=dict)
    target: str = "http://grafana"
    sent: list = field(default_factory=list)

    def get(self, path):
        uid = path.rpartition("/")[2]
        if uid not in self.held:
            raise GrafanaNotFound(self.target, path, 404, "Dashboard not found")
        folder_uid, dashboard = self.held[uid]
        return {"meta": {"folderUid": folder_uid}, "dashboard": dashboard}

    def post(self, path, body, *, note):
        self.sent.append((path, body, note))


def test_a_dashboard_is_sent_without_the_number_and_version_of_where_it_came_from(tmp_path):
    file = only(folder_of(tmp_path, nodes=NODES))

    assert file.dashboard == {"uid": "nodes", "title": "Nodes", "panels": [PANEL]}
    assert (file.uid, file.title, file.panels, file.is_uid_derived) == ("nodes", "Nodes", 1, False)


def test_what_the_api_answers_is_unwrapped(tmp_path):
    file = only(folder_of(tmp_path, nodes={"meta": {"slug": "nodes"}, "dashboard": NODES}))

    assert file.uid == "nodes"


def test_a_byte_order_mark_is_passed_over_and_other_files_are_not_looked_at(tmp_path):
    folder_of(tmp_path, nodes="\ufeff" + json.dumps(NODES))
    (tmp_path / "README.md").write_text("not a dashboard")

    assert only(tmp_path).uid == "nodes"


def test_a_missing_uid_is_derived_from_the_title_and_stays_the_same(tmp_path):
    file = only(folder_of(tmp_path, nodes={**NODES, "uid": None, "title": " Nodes "}))

    assert file.uid == derived_uid(" Nodes ")
    assert file.dashboard["title"] == "Nodes"
    assert file.is_uid_derived
    assert len(file.uid) <= 40


def test_inputs_that_nothing_refers_to_any_more_are_dropped(tmp_path):
    content = {**NODES, "__inputs": [{"name": "DS_PROM"}], "__requires": [{}]}

    assert "__inputs" not in only(folder_of(tmp_path, nodes=content)).dashboard


def test_a_variable_named_like_an_input_is_none(tmp_path):
    panel = {**PANEL, "datasource": {"uid": "${DS_PROM}"}}
    content = {**NODES, "panels": [panel], "templating": {"list": [{"name": "DS_PROM"}]}}

    assert only(folder_of(tmp_path, nodes=content)).panels == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no valid JSON"),
        ("{", "no valid JSON"),
        ('{"title": "x", "panels": [NaN]}', "no valid JSON: NaN"),
        ('{"title": "\\ud800", "panels": []}', "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ([NODES], "one dashboard per file"),
        ("7", "a list or a plain value"),
        ({"title": "x", "type": "datasource"}, "no dashboard"),
        ({"apiVersion": "dashboard.grafana.app/v2", "spec": {}}, "classic JSON"),
        ({**NODES, "panels": {}, "rows": "x"}, "no list"),
        ({**NODES, "title": ""}, "it has no title"),
        ({**NODES, "title": None}, "it has no title"),
        ({"panels": []}, "it has no title"),
        ({**NODES, "uid": "a b"}, "its uid 'a b' is none"),
        ({**NODES, "uid": "x" * 41}, "is none"),
        ({**NODES, "uid": 7}, "its uid 7 is none"),
        (
            {**NODES, "__inputs": [{"name": "VAR_X"}], "links": [{"url": "${VAR_X}"}]},
            "its __inputs are unresolved: VAR_X",
        ),
        (
            {**NODES, "panels": [{**PANEL, "datasource": "${DS_PROM}"}]},
            "data sources it does not name: DS_PROM",
        ),
        ({**NODES, "__elements": {"a": {}}}, "library panels"),
    ],
)
def test_an_unfit_file_is_refused_by_name_with_the_reason(tmp_path, content, reason):
    folder_of(tmp_path, unfit=content)

    with pytest.raises(BadInput) as refusal:
        read_dashboards(tmp_path)

    assert f"unfit.json: {reason}" in str(refusal.value) or (
        "unfit.json: " in str(refusal.value) and reason in str(refusal.value)
    )


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "latin.json").write_bytes('{"title": "é"}'.encode("latin-1"))

    with pytest.raises(BadInput, match=r"latin\.json: not in UTF-8"):
        read_dashboards(tmp_path)


def test_every_unfit_file_is_named_at_once(tmp_path):
    folder_of(tmp_path, a="{", b={**NODES, "title": ""}, c=NODES)

    with pytest.raises(BadInput) as refusal:
        read_dashboards(tmp_path)

    assert "a.json" in str(refusal.value)
    assert "b.json" in str(refusal.value)
    assert "c.json" not in str(refusal.value)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({**NODES, "title": "Else"}, "same uid 'nodes'"),
        ({**NODES, "uid": "else", "title": "NODES "}, "same title"),
    ],
)
def test_two_files_for_one_dashboard_are_refused(tmp_path, other, reason):
    folder_of(tmp_path, a=NODES, b=other)

    with pytest.raises(BadInput, match=r"a\.json and b\.json have the " + reason):
        read_dashboards(tmp_path)


def test_no_folder_and_no_files_are_refused_rather_than_nothing_imported(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        read_dashboards(tmp_path / "none")
    with pytest.raises(BadInput, match=r"no \.json file"):
        read_dashboards(tmp_path)


def test_panels_of_rows_old_and_new_are_counted_and_rows_are_not():
    old = {"rows": [{"panels": [PANEL, PANEL]}, {"panels": [PANEL]}]}
    new = {"panels": [{"type": "row", "panels": [PANEL, PANEL]}, {"type": "row"}, PANEL]}

    assert (count_panels(old), count_panels(new), count_panels({})) == (3, 3, 0)


@pytest.mark.parametrize(
    ("expected", "seen", "places"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, []),
        ({"a": 1.0}, {"a": 1}, []),
        ({"a": True}, {"a": 1}, ["$.a"]),
        ({"a": 1}, {}, ["$.a (missing)"]),
        ({}, {"a": None}, ["$.a (added)"]),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, ["$.a (3 elements instead of 2)", "$.a[1]"]),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}, ["$.a.b"]),
        ({"a": None}, {"a": []}, ["$.a"]),
    ],
)
def test_differences_are_found_where_they_are(expected, seen, places):
    assert list(differences(expected, seen)) == places


def test_the_number_and_version_given_by_grafana_are_no_difference(tmp_path):
    file = only(folder_of(tmp_path, nodes=NODES))

    comparison = compare(file, {**NODES, "id": 99, "version": 1})

    assert (str(comparison), comparison.differences) == ("equal, 1 panels", ())


def test_a_dashboard_that_lost_a_panel_shows(tmp_path):
    file = only(folder_of(tmp_path, nodes=NODES))

    comparison = compare(file, {**NODES, "panels": []})

    assert (comparison.panels_expected, comparison.panels_seen) == (1, 0)
    assert "differs at $.panels" in str(comparison)


@pytest.mark.parametrize(
    ("held", "presence"),
    [
        ({}, Presence.ABSENT),
        ({"nodes": ("infra", NODES)}, Presence.SAME),
        ({"nodes": ("", NODES)}, Presence.DIFFERENT),
        ({"nodes": ("infra", {**NODES, "panels": []})}, Presence.DIFFERENT),
    ],
)
def test_absent_same_and_different_are_told_apart(tmp_path, held, presence):
    file = only(folder_of(tmp_path, nodes=NODES))

    assert grafana_dashboards.dashboard_presence(Shelf(held), file, "infra") is presence


def test_an_answer_without_a_dashboard_is_neither_absent_nor_present(tmp_path):
    file = only(folder_of(tmp_path, nodes=NODES))
    shelf = Shelf({"nodes": ("", "rubbish")})

    with pytest.raises(UnreadableOutput):
        grafana_dashboards.dashboard_presence(shelf, file)


def test_overwriting_is_refused_by_name_unless_the_dashboards_are_the_same(tmp_path):
    files = read_dashboards(folder_of(tmp_path, nodes=NODES))

    grafana_dashboards.refuse_if_it_would_overwrite(Shelf(), files)
    grafana_dashboards.refuse_if_it_would_overwrite(Shelf({"nodes": ("", NODES)}), files)
    with pytest.raises(Refused, match=r"nodes\.json .* differs at \$\.panels"):
        grafana_dashboards.refuse_if_it_would_overwrite(
            Shelf({"nodes": ("", {**NODES, "panels": []})}), files
        )


@pytest.mark.parametrize("held", [{}, {"nodes": ("", {**NODES, "panels": []})}])
def test_a_dashboard_that_is_not_as_in_the_file_is_not_verified(tmp_path, held):
    file = only(folder_of(tmp_path, nodes=NODES))

    with pytest.raises(NotVerified, match=r"nodes\.json"):
        grafana_dashboards.require_dashboard(Shelf(held), file)


def test_an_import_never_carries_a_version_and_overwrites_only_when_told(tmp_path):
    file, shelf = only(folder_of(tmp_path, nodes=NODES)), Shelf()

    grafana_dashboards.import_dashboard(shelf, file, "infra")
    grafana_dashboards.import_dashboard(shelf, file, overwrites=True)

    (_, first, note), (_, second, told) = shelf.sent
    assert "version" not in first["dashboard"]
    assert first["dashboard"]["id"] is None
    assert (first["overwrite"], first["folderUid"], note) == (
        False,
        "infra",
        "dashboard 'Nodes', uid nodes, 1 panels",
    )
    assert (second["overwrite"], second["folderUid"]) == (True, "")
    assert told.endswith(", overwrites")


def test_a_folder_uid_that_is_none_is_refused():
    with pytest.raises(BadInput, match="folder uid"):
        grafana_dashboards.create_folder(Shelf(), "a/b", "A")


def test_a_url_gives_every_reference():
    api = GrafanaApi.from_url("http://admin@[::1]:3000/grafana/?password_file=/run/pw&org_id=2")

    assert (api.url, api.user, api.org_id) == ("http://[::1]:3000/grafana", "admin", 2)
    assert str(api.password_file) == "/run/pw"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("grafana:3000?token_env=T", "no http or https URL"),
        ("http://grafana", "either a token or a user with a password"),
        ("http://grafana?password_file=/p", "name the user"),
        ("http://grafana?password_file=/p&token_env=T", "either a token"),
        ("http://admin:hunter2@grafana", "it holds a password"),
        ("http://grafana?tokenfile=/t", "unknown or empty option"),
        ("http://grafana?token_env=T&org_id=x", "org_id"),
    ],
)
def test_a_wrong_url_is_refused_by_the_part_that_is_wrong(url, named):
    with pytest.raises(BadInput, match=named) as refusal:
        GrafanaApi.from_url(url)

    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"message": "no", "status": "name-exists"}', "name-exists: no"),
        ('{"title": "x"}', '{"title": "x"}'),
        ("<html>bad gateway", "<html>bad gateway"),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_what_an_error_answer_says_is_found(text, said):
    assert said_in(text) == said
