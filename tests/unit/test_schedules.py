"""Schedules as data: what is right is read, what is wrong is named with line, field and remedy."""

import re
from pathlib import Path

import pytest

from operate.schedules.spread import spread_cron, spread_seconds
from operate.schedules.wanted import default_file, read_schedules, wanted_schedules
from recovery.errors import BadInput

FILE = Path(__file__).resolve().parents[2] / "deployments" / "schedules.yaml"
BACKUP = """
  - name: nightly
    recovery: back-up-postgres
    cron: "30 2 * * *"
    parameters:
      database: postgresql://a@db:5432/a
      folder: /var/backups
"""


@pytest.fixture
def written(tmp_path):
    def write(entries):
        file = tmp_path / "schedules.yaml"
        file.write_text(f"schedules:{entries}")
        return file

    return write


def changed(line, by):
    return BACKUP.replace(line, by)


def test_the_file_of_the_project_and_its_example_are_right(tmp_path):
    text = FILE.read_text()
    example = tmp_path / "example.yaml"
    lines = re.findall(r"^# (schedules:|  .*)$", text[text.index("For example") :], re.MULTILINE)
    example.write_text("\n".join(lines))

    assert default_file() == FILE
    assert wanted_schedules(FILE) == []
    assert [each.name for each in wanted_schedules(example)] == [
        "nightly-registry-backup",
        "weekly-registry-restore",
    ]


def test_an_entry_becomes_a_schedule_with_what_was_left_out(written):
    (entry,) = wanted_schedules(written(BACKUP))

    assert entry.when.cron == "30 2 * * *"
    assert entry.when.timezone == "UTC"
    assert entry.is_active
    assert dict(entry.parameters) == {
        "database": "postgresql://a@db:5432/a", "folder": "/var/backups", "if_taken": "skip",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "by", "where", "told"),
    [
        ("back-up-postgres", "back-up-postgre", "3 nightly.recovery", "back-up-postgres"),
        ("back-up-postgres", "end-frozen-redis", "3 nightly.recovery", "plan_only: true"),
        ('cron: "30 2 * * *"', "interval: 0h", "4 nightly.interval", "as in 90m, 6h or 1d"),
        ('cron: "30 2 * * *"', "cron: '30 2 * *'", "4 nightly.cron", "is no cron expression"),
        ('cron: "30 2 * * *"', "active: true", "2 nightly.cron", "neither cron nor interval"),
        ("cron:", "interval: 6h\n    cron:", "4 nightly.interval", "Give one"),
        ("cron:", "crom: x\n    cron:", "4 nightly.crom", "Did you mean 'cron'"),
        ("cron:", "cron: x\n    cron:", "4 nightly.cron", "stands in line 4 too"),
        ("cron:", "timezone: Mars\n    cron:", "4 nightly.timezone", "Europe/Berlin"),
        ("cron:", "active: maybe\n    cron:", "4 nightly.active", "neither true nor false"),
        ("cron:", "while_running: wait\n    cron:", "4 nightly.while_running", "skip, refuse"),
        ("cron:", "jitter_minutes: -1\n    cron:", "4 nightly.jitter_minutes", "Give 0 to"),
        ("folder: /var/backups", "keep: many", "5 nightly.parameters.keep", "a whole number"),
        ("folder: /var/backups", "keep: 3", "5 nightly.parameters.folder", "cannot do without"),
        ("folder:", "resume: abc\n      folder:", "5 nightly.parameters.resume", "an option"),
        ("a@db", "a:secret@db", "5 nightly.parameters.database", "password in the URL"),
        ("nightly", "Nightly", "2 name", "as in nightly-backup"),
    ],
)
def test_a_wrong_field_is_named_with_its_line_and_remedy(written, line, by, where, told):
    with pytest.raises(BadInput) as refused:
        wanted_schedules(written(changed(line, by)))

    assert refused.value.field.endswith(f"schedules.yaml:{where}")
    assert told in f"{refused.value.seen} {refused.value.remedy}"
    assert "secret" not in str(refused.value)


def test_a_destructive_recovery_may_be_planned_on_a_schedule(written):
    entry = """
  - name: look
    recovery: repair-redis-aof
    interval: 1d
    plan_only: true
    parameters: {}
"""
    _, wrong = read_schedules(written(entry))

    assert all("destructive" not in each.seen for each in wrong)


def test_all_that_is_wrong_is_told_at_once_and_names_stand_once(written):
    twice = BACKUP + BACKUP + changed("30 2", "99 2").replace("nightly", "other")

    wanted, wrong = read_schedules(written(twice))

    assert [each.name for each in wanted] == ["nightly"]
    assert len(wrong) == 2
    assert "stands in line 2 too" in wrong[0].seen


@pytest.mark.parametrize("text", ["schedules: 3", "- a", "other: []", "schedules: [", "a: b: c"])
def test_a_file_of_another_shape_is_refused(tmp_path, text):
    file = tmp_path / "schedules.yaml"
    file.write_text(text)

    with pytest.raises(BadInput):
        wanted_schedules(file)


def test_a_schedule_is_put_off_within_its_jitter_and_always_the_same():
    names = [f"backup-{n}" for n in range(40)]

    shifts = {name: spread_seconds(name, 30) for name in names}

    assert all(0 <= shift <= 1800 and shift % 60 == 0 for shift in shifts.values())
    assert len(set(shifts.values())) > 10
    assert shifts == {name: spread_seconds(name, 30) for name in names}
    minutes = {spread_cron(name, "50 22 * * *", 30) for name in names}
    assert all(re.fullmatch(r"(5\d 22|\d 23|1\d 23|20 23) \* \* \*", each) for each in minutes)


@pytest.mark.parametrize(
    ("cron", "jitter"), [("*/5 * * * *", 3), ("50 * * * *", 20), ("50 23 * * *", 20)]
)
def test_a_cron_that_cannot_be_put_off_is_refused(cron, jitter):
    with pytest.raises(BadInput, match="jitter_minutes"):
        spread_cron("backup", cron, jitter)
