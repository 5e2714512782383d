"""Drills as the journal tells them: phases, comparison with earlier ones, the picture."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.drill import Drill, DrillRun, phase_seconds, slower_than_usual
from recovery.evidence.report import trend_svg
from recovery.evidence.trend import trend_markdown
from recovery.journal.history import History, StepRecord, StepState

BEGAN = datetime(2026, 3, 1, 9, tzinfo=UTC)
DRILL = Drill("back-up-things", {"z_pick": "decide", "m_load": "restore", "a_compare": "verify"})


def moment(seconds):
    return (BEGAN + timedelta(seconds=seconds)).isoformat()


def history_of(**ended):
    history = History("abc", "drill-things", "things", {}, moment(0))
    for name, seconds in ended.items():
        history.steps[name] = StepRecord(
            name, "act", "things", StepState.DONE, 1, ended_at=moment(seconds)
        )
    return history


def run(n=0, *, state="recovered", interrupted=False, rpo=60.0, **phases):
    phases = phases or {"decide": 1.0, "restore": 10.0, "verify": 2.0}
    return DrillRun(
        f"run{n:09}", "drill-things", "things", moment(n * 86400), moment(n * 86400 + 60), state,
        phases, sum(phases.values()), rpo, interrupted,
    )  # fmt: skip


def test_phases_follow_each_other_in_the_order_of_a_recovery_and_leave_no_gap():
    phases = phase_seconds(history_of(a_compare=30, m_load=20, z_pick=5), DRILL)

    assert phases == {"decide": 5.0, "restore": 15.0, "verify": 10.0}


def test_a_drill_that_stopped_has_the_phases_that_ended():
    assert phase_seconds(history_of(z_pick=5, a_compare=30), DRILL) == {"decide": 5.0}


def test_a_phase_that_is_none_is_refused_where_it_is_declared():
    with pytest.raises(ValueError, match="'loading' is no phase"):
        Drill("back-up-things", {"load": "loading"})


@pytest.mark.parametrize(
    ("earlier", "restore", "told"),
    [
        ([run(n) for n in range(3)], 16.0, ["restore took 16.0 s, usually 10.0 s (3 drills)"]),
        ([run(n) for n in range(3)], 14.0, []),
        ([run(n) for n in range(2)], 60.0, []),
        ([run(n, interrupted=True) for n in range(3)], 60.0, []),
        ([run(n, state="failed") for n in range(3)], 60.0, []),
        ([run(n, restore=0.1) for n in range(3)], 0.9, []),
    ],
)
def test_a_phase_is_slow_beside_the_median_of_those_that_count(earlier, restore, told):
    own = run(9, decide=1.0, restore=restore, verify=2.0)

    assert slower_than_usual(own, earlier) == told


@pytest.mark.parametrize("count", [1, 5, 60])
def test_the_picture_has_a_column_for_each_of_the_latest_runs(count):
    runs = [run(n, rpo=None if n % 3 == 0 else 60.0) for n in range(count)]
    runs[0] = run(0, state="failed", decide=1.0)

    svg = trend_svg(runs)

    columns = ET.fromstring(svg).findall(".//{http://www.w3.org/2000/svg}g")  # noqa: S314 (ours)
    assert len(columns) == min(count, 24)
    assert "NaN" not in svg


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=5), st.floats(0, 1e9))
def test_a_picture_can_be_drawn_of_whatever_was_measured(times, rpo):
    runs = [run(n, rpo=rpo, decide=took, restore=took / 3) for n, took in enumerate(times)]

    root = ET.fromstring(trend_svg(runs))  # noqa: S314 (ours)

    heights = [float(each.get("height", 0)) for each in root.iter() if each.tag.endswith("rect")]
    assert all(0 <= height <= 151 for height in heights)


def test_the_artifact_tells_what_is_slow_and_escapes_what_is_told():
    runs = [run(n) for n in range(3)] + [run(9, decide=1.0, restore=40.0, verify=2.0)]

    markdown = trend_markdown(runs, trend_svg(runs))

    assert "**Slower than usual:** restore took 40.0 s" in markdown
    assert "data:image/svg+xml;base64," in markdown
    assert markdown.count("| `run") == 4
