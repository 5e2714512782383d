"""Databases of real Grafanas, 4.6 to 12.0, move to MariaDB without one differing cell."""

import pytest

from blocks.mysql.server import MysqlServer
from recovery.errors import Refused
from tasks.grafana.acceptance import Grade, in_the_way, refuse_unless_accepted
from tasks.grafana.compare import compare_table, refuse_unless_equal
from tasks.grafana.hazards import find_hazards
from tasks.grafana.load import load_table
from tasks.grafana.schema import read_source_schema, read_target_schema
from tasks.grafana.source import take_copy
from tasks.grafana.tables import compare_schemas
from tasks.kept_files import sha256_of
from tests.lab.grafana_specimens import SPECIMENS, data_directory, make_target, unpack_source

# The dumps are of other people's Grafanas, with dashboards of their own in them.
OTHER_PEOPLE = "replaced-rows:*"
LOSSES = {
    "g9.0.9": {"newer-source:migration_log"},  # the dump is two patch releases older
    "g10.4.0": {"truncated-fraction:kv_store.updated", "truncated-fraction:permission.updated"},
    "g11.5.1": {
        "truncated-fraction:kv_store.updated",
        "truncated-fraction:signing_key.added_at",
        "truncated-fraction:signing_key.expires_at",
    },
    "g12.0.x": {
        "truncated-fraction:kv_store.updated",
        "truncated-fraction:signing_key.added_at",
        "truncated-fraction:signing_key.expires_at",
    },
}

pytestmark = pytest.mark.skipif(
    not (data_directory() / "grafana-sqlite").is_dir(),
    reason=f"no real databases: set RECOVER_TEST_DATA (looked in {data_directory()})",
)


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda specimen: specimen.source)
def test_a_real_database_moves_whole_once_its_losses_are_accepted(
    mariadb, mariadb_url, tmp_path, specimen
):
    server = MysqlServer.from_url(mariadb_url)
    original = unpack_source(specimen, tmp_path)
    before = sha256_of(original)
    make_target(mariadb, specimen, original, server.database)
    copy = take_copy(original, tmp_path / "copy")

    with server.connect() as session:
        schemas = compare_schemas(read_source_schema(copy.path), read_target_schema(session))
        hazards = find_hazards(copy.path, session, schemas)
        left = in_the_way(hazards, [OTHER_PEOPLE])
        assert {hazard.name for hazard in left} == LOSSES.get(specimen.source, set())
        assert not [hazard for hazard in hazards if hazard.grade is Grade.OBSTACLE]
        if left:
            with pytest.raises(Refused):
                refuse_unless_accepted(server.label, hazards, [OTHER_PEOPLE])

        rows = sum(load_table(copy.path, session, pair).rows for pair in schemas.copied)
        found = [compare_table(copy.path, session, pair) for pair in schemas.copied]

    refuse_unless_equal(server.label, found)
    assert rows == sum(comparison.rows for comparison in found) > 0
    assert sha256_of(original) == before


def test_a_source_and_a_target_of_different_versions_are_refused(mariadb, mariadb_url, tmp_path):
    server = MysqlServer.from_url(mariadb_url)
    older, newer = SPECIMENS[2], SPECIMENS[-1]
    original = unpack_source(older, tmp_path)
    make_target(mariadb, newer, original, server.database)
    copy = take_copy(original, tmp_path / "copy")

    with server.connect() as session:
        schemas = compare_schemas(read_source_schema(copy.path), read_target_schema(session))
        found = {hazard.name for hazard in find_hazards(copy.path, session, schemas)}

    assert "newer-target:migration_log" in found
    assert (schemas.source_version, schemas.target_version) == ("6.2 or later", "12.0 or later")
