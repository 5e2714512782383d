"""The `recover` command as people and scripts meet it: its output, its exit code, its effects."""

import contextlib
import json
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.integration.toy_recoveries import SECONDS, Command


@pytest.fixture
def recover(tmp_path):
    return Command(tmp_path)


def states(status):
    return {step["key"]: step["state"] for step in status["steps"]}


def test_a_plan_shows_exact_commands_and_changes_nothing(recover):
    plan = recover.json("plan", "touch-files", "--set", f"folder={recover.world}")

    acts = [step for step in plan["steps"] if step["kind"] == "act"]
    assert acts[0]["commands"] == [f"touch {recover.world}/a"]
    assert (plan["flow"], plan["target"]) == ("touch-files", str(recover.world))
    assert plan["refusals"] == []
    assert recover.made() == []
    assert recover.ids() == []


def test_a_plan_that_would_be_refused_says_why_and_exits_with_5(recover):
    recover.put("frozen")

    plan = recover.json("plan", "touch-files", "--set", f"folder={recover.world}", exits=5)
    stdout, _ = recover("plan", "touch-files", "--set", f"folder={recover.world}", exits=5)

    assert "it is frozen" in plan["refusals"][0]
    assert "REFUSED on " in stdout.splitlines()[-1]


def test_a_run_prints_its_status_last_and_its_progress_on_stderr(recover):
    recover.is_process = True

    stdout, stderr = recover("run", "touch-files", "--set", f"folder={recover.world}", "--json")

    status = json.loads(stdout)
    assert status["state"] == "recovered"
    assert len(stdout.splitlines()) == 1
    assert [line.split()[0] for line in stderr.splitlines()] == [
        "Passed", "Done", "Done", "Done", "Verified",
    ]  # fmt: skip
    assert recover.made() == ["a", "b", "c"]


def test_parameters_come_from_a_file_and_from_settings(recover, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(f"folder: {recover.world}\nnames: [x, y]\ndays: 1\n")

    status = recover.json("run", "touch-files", "--params", file, "--set", "days=2")

    assert status["parameters"] == {"folder": str(recover.world), "names": ["x", "y"], "days": 2}


def test_bad_input_is_one_line_with_the_field_and_touches_nothing(recover):
    wanted = f"folder={recover.world}"
    for arguments, told in [
        (("run", "touch-filse"), "Did you mean 'touch-files'?"),
        (("run", "touch-files"), "folder: touch-files cannot do without it"),
        (("run", "touch-files", "--set", wanted, "--set", "dayz=1"), "Did you mean 'days'?"),
        (("run", "touch-files", "--set", wanted, "--set", "days=x"), "days: 'x' is not a whole"),
        (("run", "touch-files", "--params", "no.yaml"), "--params no.yaml: it cannot be read"),
        (("resume", "0000"), "ID: no recovery '0000'"),
        (("status", "0000"), "ID: no recovery '0000'"),
        (("run",), "Missing argument 'NAME'"),
        (("bogus",), "No such command 'bogus'"),
    ]:
        stdout, stderr = recover(*arguments, exits=2)

        first, second = stderr.splitlines()[:2]
        assert len(stderr.splitlines()) == 2, stderr
        assert first.startswith("bad input: ")
        assert told in first
        assert second.startswith("next: `recover ")
        assert stdout == ""
    assert recover.made() == []
    assert recover.ids() == []


def test_bad_input_as_json_names_type_field_and_remedy(recover):
    error = recover.touch("--set", "days=x", exits=2)["error"]

    assert (error["type"], error["field"]) == ("BadInput", "days")
    assert error["remedy"] == "Give a whole number"
    assert recover.json("run", exits=2)["error"]["type"] == "BadInput"


@pytest.mark.parametrize(
    ("journal", "told"),
    [("text.sqlite", "is no SQLite file"), ("redis://x", "redis:// is no kind of journal")],
)
def test_a_journal_that_is_none_is_bad_input(recover, tmp_path, journal, told):
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    recover.env["RECOVER_JOURNAL"] = journal if "://" in journal else str(tmp_path / journal)

    error = recover.touch(exits=2)["error"]

    assert error["field"] == "RECOVER_JOURNAL"
    assert told in error["message"]
    assert recover.made() == []


def test_a_failure_is_one_line_with_what_to_type_next_and_a_resume_does_the_rest(recover):
    recover.put("break-b")
    failed = recover.touch(exits=3)
    assert failed["state"] == "failed"
    assert failed["error"]["type"] == "CommandFailed"
    _, stderr = recover("resume", failed["id"], exits=3)
    assert stderr.splitlines()[-2].startswith("failed: ")
    assert "no space left on device" in stderr.splitlines()[-2]
    assert f"`recover resume {failed['id']}`" in stderr.splitlines()[-1]
    recover.take_away("break-b")

    status = recover.json("resume", failed["id"][:6])

    assert status["state"] == "recovered"
    assert [attempt["ended_as"] for attempt in status["attempts"]] == [
        "failed", "failed", "recovered",
    ]  # fmt: skip


def test_a_killed_run_is_resumed_and_done_steps_are_passed_over(recover):
    recovery_id = recover.killed_in("b")
    assert states(recover.json("status", recovery_id))["touch[b]"] in {"intended", "in-doubt"}

    stdout, stderr = recover("resume", recovery_id)

    assert stdout.splitlines()[0].split()[:2] == [recovery_id, "recovered"]
    assert [line.split()[0] for line in stderr.splitlines() if "touch[" in line] == [
        "Restored", "Done", "Done",
    ]  # fmt: skip
    assert recover.made() == ["a", "b", "c"]


def test_a_step_in_doubt_is_settled_by_a_person_and_only_then(recover):
    recovery_id = recover.killed_in("b")
    recover.put("unknown-b")
    time.sleep(2.1)  # its lease runs out
    stuck = recover.json("resume", recovery_id, exits=4)
    assert states(stuck)["touch[b]"] == "in-doubt"
    by = ("--by", "Ada", "--reason", "looked")

    _, stderr = recover("resolve", recovery_id, "touch[bb]", "--as", "redo", *by, exits=2)
    assert "Did you mean 'touch[b]'" in stderr
    _, stderr = recover("resolve", recovery_id, "touch[a]", "--as", "redo", *by, exits=2)
    assert "touch[a] (act) is done since" in stderr
    recover(
        "resolve", recovery_id, "touch[b]", "--as", "redo", "--by", "", "--reason", "x", exits=2
    )
    recover("resolve", recovery_id, "touch[b]", "--as", "perhaps", *by, exits=2)
    settled = recover.json("resolve", recovery_id, "touch[b]", "--as", "redo", *by)
    recover.take_away("unknown-b")

    assert settled["id"] == recovery_id
    assert recover.events(recovery_id)[-1].body == {"as": "redo", "by": "Ada", "reason": "looked"}
    assert recover.json("resume", recovery_id)["state"] == "recovered"


def test_an_abandoned_recovery_is_not_resumed(recover):
    recover.put("break-b")
    recovery_id = recover.touch(exits=3)["id"]
    by = ("--by", "Ada", "--reason", "done by hand")

    recover("resolve", recovery_id, "touch[b]", "--as", "abandon", *by)

    assert "abandoned by Ada" in recover.json("resume", recovery_id, exits=5)["error"]["message"]


def test_a_running_recovery_is_neither_resolved_nor_resumed_nor_its_target_given_away(recover):
    recover.put("hold-b")
    process = recover.start("run", "touch-files", "--set", f"folder={recover.world}")
    recover.wait_for_intent("touch[b]")
    (recovery_id,) = recover.ids()
    by = ("--by", "Ada", "--reason", "impatient")

    taken = recover.touch(exits=5)
    _, stderr = recover("resolve", recovery_id, "touch[b]", "--as", "done", *by, exits=5)
    recover("resume", recovery_id, exits=5)
    planned = recover.json("undo", recovery_id, "--plan", exits=5)
    recover.take_away("hold-b")
    process.communicate(timeout=SECONDS)

    assert recovery_id in taken["error"]["message"]
    assert "is running" in stderr
    assert "is at work" in planned["refusals"][0]
    assert [step["key"] for step in planned["steps"]] == ["undo touch[b]", "undo touch[a]"]
    assert process.returncode == 0


def test_an_undo_goes_back_by_name_and_a_second_one_has_nothing_to_do(recover):
    recovery_id = recover.touch()["id"]
    recover("undo", recovery_id, exits=2)
    recover("undo", recovery_id, "--by", "Ada", exits=4)
    assert recover.made()
    by = ("--by", "Ada", "--reason", "the wrong folder")

    stdout, stderr = recover("undo", recovery_id, *by, "--json")

    assert json.loads(stdout)["state"] == "undone"
    assert [line.split()[0] for line in stderr.splitlines()] == ["Undone"] * 3
    assert recover.made() == []


def test_the_plan_of_an_undo_is_what_the_undo_then_does_and_writes_nothing(recover):
    recovery_id = recover.touch()["id"]
    before = recover.events(recovery_id)

    stdout, _ = recover("undo", recovery_id, "--plan")
    planned = recover.json("undo", recovery_id, "--plan")

    assert recover.events(recovery_id) == before
    assert recover.made() == ["a", "b", "c"]
    steps = [step["key"] for step in planned["steps"]]
    assert [line.split()[3] for line in stdout.splitlines() if " act undo " in line] == [
        key.split()[1] for key in steps
    ]
    assert f"remove: folder: {recover.world}, name: c" in stdout
    assert "3 steps back to walk; nothing was changed" in stdout
    assert "it wants a reason (--reason TEXT): it was recovered at" in stdout
    assert f"plan {planned['hash']}" in stdout
    _, stderr = recover("undo", recovery_id, "--by", "Ada", "--reason", "the wrong folder")
    assert [line.partition(" s  ")[2] for line in stderr.splitlines()] == steps
    again, _ = recover("undo", recovery_id, "--plan")
    assert "no step back is left to walk; nothing was changed" in again
    assert "undone already: touch[c], touch[b], touch[a]" in again


def test_the_plan_of_an_undo_without_anything_to_undo_exits_as_the_undo_does(recover):
    wanted = ("--set", f"folder={recover.world}", "--break-glass", "a test", "--by", "Ada")
    recovery_id = recover.json("run", "overwrite-files", *wanted)["id"]

    stdout, _ = recover("undo", recovery_id, "--plan", exits=5)
    planned = recover.json("undo", recovery_id, "--plan", exits=5)
    undone = recover.json("undo", recovery_id, "--by", "Ada", "--break-glass", "x", exits=5)

    assert [act["why"] for act in planned["stays"]] == ["no-way-back"]
    assert f"stays: overwrite[a] on {recover.world} (done): no way back" in stdout
    assert planned["refusals"] == [undone["error"]["message"]]


def test_the_plan_of_an_undo_is_made_here_and_of_a_recovery_that_is_known(recover):
    recovery_id = recover.touch()["id"]

    _, on_worker = recover("undo", recovery_id, "--plan", "--worker", exits=2)
    _, unknown = recover("undo", "abc123", "--plan", exits=2)

    assert "--plan: the plan of a way back is made in this process" in on_worker
    assert "no recovery" in unknown


def test_a_fork_prints_what_is_reused_redone_and_changed(recover):
    parent = recover.touch()
    stdout, _ = recover("resume", parent["id"], "--set", "names=[a, b, d]", "--set", "days=3")
    fork = recover.json("resume", parent["id"], "--from", "touch[b]")

    assert f"fork of {parent['id']}" in stdout
    assert "changed  days: 30 -> 3" in stdout
    assert "reused   touch[a]" in stdout
    assert "redone   touch[d]" in stdout
    assert recover.made() == ["a", "b", "c", "d"]
    assert fork["id"] != parent["id"]
    assert fork["forked_from"]["reused"] == ["touch[a]"]
    _, stderr = recover("resume", parent["id"], "--from", "touch[z]", exits=2)
    assert "--from: " in stderr


def test_a_destructive_recovery_wants_the_hash_of_its_plan(recover):
    wanted = ("--set", f"folder={recover.world}")
    asked = recover.json("run", "overwrite-files", *wanted, exits=4)
    plan = recover.json("plan", "overwrite-files", *wanted)

    assert plan["hash"] in asked["error"]["message"]
    assert recover.made() == []
    recover("run", "overwrite-files", *wanted, "--approve", "0" * 16, "--by", "Ada", exits=4)
    done = recover.json("run", "overwrite-files", *wanted, "--approve", plan["hash"], "--by", "Ada")
    assert done["approvals"][0]["by"] == "Ada"
    assert recover.made() == ["a"]


def test_a_take_over_is_ordered_by_name(recover):
    recovery_id = recover.killed_in("b")

    _, stderr = recover("resume", recovery_id, "--take-over", exits=2)
    assert "--by: a take-over is ordered by name" in stderr
    status = recover.json("resume", recovery_id, "--take-over", "--by", "Ada")

    assert status["state"] == "recovered"
    assert any(
        e.kind == "taken-over" and e.body["by"] == "Ada" for e in recover.events(recovery_id)
    )


def test_what_is_known_to_be_gone_is_taken_over_to_go_back(recover):
    recovery_id = recover.killed_in("b")

    status = recover.json("undo", recovery_id, "--by", "Ada", "--take-over")

    assert status["state"] == "undone"
    assert recover.made() == []
    taken = [e.body["by"] for e in recover.events(recovery_id) if e.kind == "taken-over"]
    assert taken == ["Ada"]


def test_ctrl_c_says_how_to_resume(recover):
    recover.put("hold-b")
    process = recover.start("run", "touch-files", "--set", f"folder={recover.world}")
    recover.wait_for_intent("touch[b]")

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=SECONDS)
    recover.take_away("hold-b")

    (recovery_id,) = recover.ids()
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == f"next: `recover resume {recovery_id}`"
    assert "Traceback" not in stderr
    assert recover.json("resume", recovery_id)["state"] == "recovered"


def test_reports_bundle_and_verification_of_the_journal(recover, tmp_path):
    recovery_id = recover.touch()["id"]
    html, markdown, archive = (tmp_path / name for name in ("r.html", "r.md", "b.tar.gz"))

    text, _ = recover("report", recovery_id[:5], "--full")
    short, _ = recover("report", recovery_id)
    recover("report", recovery_id, "--html", html, "--markdown", markdown)
    bundle = recover.json("bundle", recovery_id, "--to", archive)
    recover("report", recovery_id, "--html", tmp_path / "no" / "r.html", exits=2)

    assert text.strip() == markdown.read_text().strip()
    assert recover.json("report", recovery_id)["report"].strip() == text.strip()
    assert short.strip().endswith("--full` has those that change something.")
    assert len(short) < len(text)
    assert "<svg" in html.read_text()
    assert Path(bundle["bundle"]) == archive
    assert archive.stat().st_size > 0
    assert recover.json("journal", "verify") == {recovery_id: []}


def test_a_changed_event_is_found_and_exits_with_4(recover):
    recovery_id = recover.touch()["id"]
    with contextlib.closing(sqlite3.connect(recover.journal)) as connection:
        connection.execute("update events set body = replace(body, 'a', 'b') where seq = 3")
        connection.commit()

    flaws = recover.json("journal", "verify", recovery_id, exits=4)[recovery_id]
    doctor = recover.json("doctor", exits=3)

    assert any("event 3" in flaw for flaw in flaws)
    assert not doctor["well"]


def test_a_server_that_does_not_answer_is_told_about_and_done_without(recover):
    recover.env["PREFECT_API_URL"] = "http://127.0.0.1:9/api"

    stdout, stderr = recover("run", "touch-files", "--set", f"folder={recover.world}", "--json")
    worker = recover.touch("--worker", exits=3)

    assert json.loads(stdout)["state"] == "recovered"
    assert "does not answer" in stderr.splitlines()[0]
    assert "going on in this process without it" in stderr.splitlines()[0]
    assert worker["error"]["type"] == "Unreachable"
    assert len(recover.ids()) == 1


def test_a_worker_without_a_server_is_bad_input(recover):
    assert recover.touch("--worker", exits=2)["error"]["field"] == "PREFECT_API_URL"


def test_status_without_an_id_lists_all(recover):
    first, second = recover.touch()["id"], recover.touch()["id"]

    rows = recover.json("status")
    stdout, _ = recover("status")

    assert [row["id"] for row in rows] == [second, first]
    assert second in stdout.splitlines()[1]


def test_ids_names_and_steps_are_completed(recover):
    recovery_id = recover.touch()["id"]
    recover.is_process = True
    for line, wanted in [
        (f"recover status {recovery_id[:4]}", recovery_id),
        (f"recover resolve {recovery_id} touch[a", "touch[a]"),
        ("recover run move-gr", "move-grafana-to-mysql"),
        ("recover run move-grafana-to-mysql --set sour", "source="),
    ]:
        recover.env |= {
            "_RECOVER_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        stdout, _ = recover()
        assert wanted in stdout.split()
