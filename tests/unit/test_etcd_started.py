"""Which member that was started is not waited for any longer: without any etcd."""

from types import SimpleNamespace

import pytest

from recovery.errors import Refused
from tasks import services
from tasks.etcd import as_unit, placing
from tasks.etcd.parts import Part
from tasks.etcd.target import EtcdCluster
from tasks.services import UnitState
from tests.unit.etcd_seen import STOPPED, member


@pytest.fixture
def part(monkeypatch):
    """A part, and the state of its unit, which a test may change."""
    now = {"state": UnitState.INACTIVE}

    def status(_host, unit):
        state = now["state"]
        return services.UnitStatus(unit, state, "loaded", "dead", "enabled", "", 0, 0, ())

    monkeypatch.setattr(as_unit, "unit_status", status)
    host = SimpleNamespace(label="h1", read=lambda *_, **__: SimpleNamespace(stdout="no space"))
    return Part(EtcdCluster("etcd", ()), host, member(1, STOPPED), "", is_rebuilt=False), now


def test_a_start_that_waits_for_another_unit_is_not_called_failed(part):
    started, _ = part

    placing.refuse_if_it_fails(started, is_queued=True)

    with pytest.raises(Refused, match="h1 was started and fails"):
        placing.refuse_if_it_fails(started)


def test_one_that_has_failed_is_told_at_once_with_what_it_logged(part):
    started, now = part
    now["state"] = UnitState.FAILED

    with pytest.raises(Refused, match="no space"):
        placing.refuse_if_it_fails(started, is_queued=True)
