"""A desk of alerts, with the routes of the project or others."""

import pytest

from tests.lab.alert_desk import Desk, routes


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    made = Desk(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def with_routes(desk):
    def change(**given):
        desk.store.close()
        desk.routes = routes(**given)
        desk.begin()
        return desk

    return change
