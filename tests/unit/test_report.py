"""What the report shows of journals as attempts write them, hostile ones among them."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recovery.errors import BadInput
from recovery.evidence.evidence import Shown
from recovery.evidence.report import (
    html_report,
    markdown_report,
    timeline_svg,
)
from recovery.evidence.report_markdown import (
    MARKDOWN_BYTES_MAX,
    code,
    fenced,
    inline,
    markdown_of,
)
from recovery.evidence.telling import read_evidence
from recovery.evidence.timeline import (
    PLOT_LEFT,
    PLOT_RIGHT,
    ROWS_MAX,
    TIMES,
    drawing_of,
    duration,
    tick_label,
)
from recovery.journal.consents import LOOKED
from recovery.journal.events import Kind
from recovery.journal.sqlite_store import SqliteJournal
from recovery.secrecy.redaction import isolated_registry, register
from tests.unit.journals import (
    RECOVERY,
    Clock,
    Writer,
    changed,
    killed_and_resumed,
    killed_in_doubt,
)

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> ``` ```` | a | b |\n# heading\n"
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x00\x07 \u202egnp.exe [link](javascript:alert(1)) "
    "</pre></svg></style>{{ 7 * 7 }}{% raw %} &amp; " + "x" * 5000
)
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """The tags of a page, their attributes and the text, refusing what is not balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def journal(tmp_path):
    opened = SqliteJournal(tmp_path / "journal.sqlite")
    opened._connection.execute("pragma synchronous = off")  # hundreds of events, quickly
    yield opened
    opened.close()


@pytest.fixture
def writer(journal, monkeypatch):
    return Writer(journal, Clock(monkeypatch))


def steps(journal):
    return {step.key: step for step in read_evidence(journal, RECOVERY).steps}


def many_steps(writer, count=500):
    writer.open().start()
    for n in range(count):
        if n == count // 2:
            writer.act("compare_tables", 300)
        writer.act(f"load[table_{n:03}]", 0.003, f"INSERT INTO table_{n}", f"{n} rows")
    writer.intend("restart_grafana", "systemctl restart grafana")
    writer.fail("restart_grafana", "exit code 1")
    writer.end("failed", "exit code 1")


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(journal, writer):
    killed_and_resumed(writer)

    page = Page(html_report(journal, RECOVERY))

    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in {"href", "src"}]
    assert links
    assert all(link.startswith("#") for link in links)
    targets = {f"#{value}" for name, value in page.attributes if name == "id"}
    assert set(links) <= targets


def test_state_and_what_to_do_next_come_before_everything_else(journal, writer):
    killed_in_doubt(writer)

    for text in (html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)):
        head = text[text.index("move-grafana-to-mysql") :]
        assert head.index("What to do next") < head.lower().index(
            "timeline" if "<" in text else "#"
        )
        assert f"recover resume {RECOVERY}" in head[: head.index("back_up_target")]


def test_a_recovery_that_leaves_a_step_to_a_person_is_not_told_as_nothing_to_do(journal, writer):
    writer.open().start()
    writer.end("recovered", result={"left_to_person": ["start Grafana, see `GET /api/health`"]})

    page, text = html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)

    assert "start Grafana, see <code>GET /api/health</code>" in page
    assert '<div class="box doubt">' in page
    assert "start Grafana, see `GET /api/health`" in text[: text.index("Recovery `")]
    assert "nothing" not in text


@pytest.mark.parametrize(
    ("asked", "told"),
    [({"requested_by": "alert RedisDown (route redis)"}, "alert RedisDown (route redis)"),
     ({}, "nobody known")],
)  # fmt: skip
def test_who_asked_for_it_is_told_with_the_first_run(journal, writer, asked, told):
    writer.open(**asked).start()
    writer.end("recovered")

    page, text = html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)

    assert f"<dt>Asked for by</dt><dd>{told}</dd>" in page
    assert f"- Asked for by {told}, as flow run `01234567-89ab-4000-8000-000000000001`" in text


def test_tables_have_captions_and_the_drawing_a_name(journal, writer):
    killed_and_resumed(writer)

    page = Page(html_report(journal, RECOVERY))

    assert page.tags.count("table") == page.tags.count("caption") > 3
    assert ("role", "img") in page.attributes
    assert ("aria-labelledby", "tl-title tl-desc") in page.attributes
    assert page.tags.count("h1") == 1


def test_outcomes_are_told_apart(journal, writer):
    writer.open().start()
    writer.already_so("make_database")
    writer.act("back_up_target")
    writer.intend("load[org]")
    writer.kill()
    writer.start().reconcile("load[org]")
    writer.act("load[user]")
    writer.verify("wait_until_equal")
    writer.end("recovered")

    told = steps(journal)

    assert {key: step.shown for key, step in told.items()} == {
        "make_database": Shown.ALREADY_SO,
        "back_up_target": Shown.COMPLETED,
        "load[org]": Shown.RECONCILED,
        "load[user]": Shown.COMPLETED,
        "wait_until_equal": Shown.VERIFIED,
    }
    assert {key: step.restored_in for key, step in told.items() if step.restored_in} == {
        "make_database": [2],
        "back_up_target": [2],
    }
    for text in (html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)):
        assert all(word in text for word in ("Already so", "Reconciled", "Restored in", "Verified"))


def test_a_probe_of_a_step_passed_over_is_told_as_restored(journal, writer):
    killed_and_resumed(writer)

    spans = {span.attempt: span.shown for span in steps(journal)["back_up_target"].spans}

    assert spans == {1: Shown.COMPLETED, 2: Shown.RESTORED}


def test_time_is_told_as_working_waiting_and_lost(journal, writer):
    killed_and_resumed(writer)

    evidence = read_evidence(journal, RECOVERY)

    assert [gap.kind for gap in evidence.gaps] == ["lost", "waiting"]
    assert evidence.gap_seconds("lost") == pytest.approx(252)
    assert evidence.gap_seconds("waiting") == pytest.approx(5 * 3600 + 60)
    assert 100 < evidence.working_seconds < 130
    assert [span.shown for span in evidence.gaps[1].spans] == [Shown.RESOLVED]


def test_what_spoke_against_it_is_told_in_order(journal, writer):
    killed_and_resumed(writer)

    told = [(s.key, s.shown) for s in read_evidence(journal, RECOVERY).spoke_against()]

    assert told == [
        ("load[dashboard]", Shown.IN_DOUBT),
        ("load[org]", Shown.STALE),
        ("load[dashboard]", Shown.IN_DOUBT),
    ]


def test_a_step_that_was_stale_and_done_anew_is_told_as_both(journal, writer):
    killed_and_resumed(writer)

    notes = {s.shown: s.note for s in read_evidence(journal, RECOVERY).spoke_against()}

    assert notes[Shown.STALE].endswith("not-done, so it was done anew in attempt 2")


def test_a_step_took_what_it_took_in_the_attempt_that_did_it(journal, writer):
    killed_and_resumed(writer)
    for _ in range(3):  # asked again side by side, and long
        writer.start()
        writer.send("load[org]", "is it done: load[org]", "yes", seconds=20)
        writer.end("failed", "exit code 1")

    org = steps(journal)["load[org]"]

    assert org.attempt == 2
    assert 0.08 < org.seconds < 0.1
    assert sum(span.seconds for span in org.spans) > 60


def test_looks_side_by_side_take_together_as_long_as_the_longest(journal, writer):
    many_steps(writer, count=40)
    writer.start()
    for n in range(40):
        at = writer.clock.moment
        writer.send(f"load[table_{n:03}]", "is it done", "yes", seconds=3)
        writer.clock.moment = at
    writer.clock.pass_seconds(60)
    writer.end("failed", "exit code 1")

    rows = drawing_of(read_evidence(journal, RECOVERY))["lanes"][-1].rows

    assert [row.told for row in rows] == ["= 40\u00d7 3.0 s"]


def test_an_attempt_that_only_made_a_plan_has_its_look_in_its_lane(journal, writer):
    writer.open().start()
    writer.clock.pass_seconds(2)
    writer.approve()
    writer.end("needs-person", "nobody has approved it")

    row = drawing_of(read_evidence(journal, RECOVERY))["lanes"][0].rows[0]

    assert (row.kind, row.label) == ("probe", "plan 00ff00ff00ff00ff")
    assert row.told.endswith("Looked 2.0 s")


def test_an_answer_that_only_woke_the_run_is_told_as_nobodys(journal, writer):
    writer.open().start()
    body = {"by": "Ada", "hash": "00ff00ff00ff00ff", "through": "form", "why": LOOKED}
    writer.write(Kind.DISREGARDED, body)
    writer.write(Kind.DISREGARDED, {**body, "why": "Ada is no approver of it"})
    writer.end("refused", "Ada rejected it")

    (said,) = read_evidence(journal, RECOVERY).people

    assert said.note.endswith("Ada is no approver of it")


def test_the_short_report_ends_before_the_commands_and_says_how_to_see_them(journal, writer):
    killed_and_resumed(writer)

    short = markdown_report(journal, RECOVERY, is_full=False)

    assert "## Plan and approvals" in short
    assert "## Commands" not in short
    assert "412 rows" not in short
    assert "Left out" not in short
    assert short.endswith(f"`recover report {RECOVERY} --full` has those that change something.\n")


def test_parameters_left_empty_are_named_apart(journal, writer):
    writer.open(parameters={"source": "grafana.db", "cluster": "", "skip": None, "days": 0})

    text = markdown_report(journal, RECOVERY)

    assert "- Parameters: `days` = `0`, `source` = `grafana.db`\n" in text
    assert "- Left empty: `cluster`, `skip`\n" in text


def test_the_worker_of_prefect_that_took_a_run_is_named_with_its_process(journal, writer):
    writer.open()
    writer.lease, writer.n = journal.take_lease(writer.target, RECOVERY, "worker-1:411", 15), 1
    writer.write(Kind.ATTEMPT_STARTED, {"worker": "vm:1581", "prefect_worker": "second"})
    writer.end("failed", "exit code 1")

    assert read_evidence(journal, RECOVERY).attempts[0].worker == "second on vm:1581"
    assert "second on vm:1581" in markdown_report(journal, RECOVERY)


def test_approvals_and_the_plan_are_shown(journal, writer):
    killed_and_resumed(writer)

    for text in (html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)):
        assert "00ff00ff00ff00ff" in text
        assert "by Ann, until 2027-03-02" in text
        assert "as redo by Ben: looked at the table" in text


def test_what_a_probe_saw_is_told_with_its_time(journal, writer):
    writer.open().start()
    writer.look("days_left", Kind.SAW, 0.5, saw="29.5", value=29.5)
    writer.end("recovered")

    (span,) = steps(journal)["days_left"].spans

    assert (span.shown, span.note, span.seconds) == (Shown.LOOKED, "29.5", pytest.approx(0.5))


def found_and_started(writer):
    """A decision, an act that returns something, a look with no value, and an outcome."""
    writer.open().start()
    due = {"finding": "not-running", "unit": "redis-server", "saw": "inactive (dead)"}
    writer.decide("cure_due", due)
    writer.act("start")
    writer.look("for_l3", Kind.SAW, saw="ForL3(lines=['x'])", value={"notes": ["3 sessions"]})
    result = {"finding": "not-running", "now": {"role": "master", "keys": 5}, "copy": ""}
    writer.end("recovered", result=result)


def test_what_the_steps_found_and_what_came_of_it_is_told_in_words(journal, writer):
    found_and_started(writer)

    markdown, page = markdown_report(journal, RECOVERY), html_report(journal, RECOVERY)

    outcome = markdown[markdown.index("## Outcome") : markdown.index("## What the steps found")]
    assert "- finding: not-running\n- copy: none\n- now: keys: 5, role: master\n" in outcome
    told = "- `cure_due`: finding: not-running, saw: inactive (dead), unit: redis-server"
    assert told in markdown
    assert "- `for_l3`: notes: 3 sessions" in markdown
    assert "ForL3(" not in markdown + page
    assert "<summary>finding: not-running, saw: inactive (dead), unit: redis-server" in page
    assert "&#34;unit&#34;: &#34;redis-server&#34;" in page


def test_what_was_cut_is_had_by_a_command_that_gives_it(journal, writer):
    found_and_started(writer)

    cut = markdown_of(read_evidence(journal, RECOVERY), 3000)

    assert f"All of it: `recover report {RECOVERY} --html FILE`." in cut


def test_what_a_step_in_doubt_was_to_send_is_shown(journal, writer):
    writer.open().start().intend("load[user]", "INSERT INTO user")
    writer.kill()

    page = html_report(journal, RECOVERY)

    assert "What it was to send; whether it did is not known" in page
    assert "INSERT INTO user" in page


def test_a_fork_shows_what_was_reused_redone_and_changed(journal, writer):
    diff = {
        "recovery": "cccccccccccc",
        "from_step": "load[user]",
        "changed": {"source": ["old.db", "new.db"]},
        "reused": ["back_up_target"],
        "redone": ["load[user]"],
    }
    writer.open(forked_from=diff)
    body = writer.about("act") | {"how": "reused", "result": None, "reused_from": "cccccccccccc"}
    writer.by_person(Kind.DONE, body, "back_up_target")
    writer.start().act("load[user]")
    writer.end("recovered")

    assert steps(journal)["back_up_target"].shown is Shown.REUSED
    for text in (html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)):
        assert all(word in text for word in ("cccccccccccc", "old.db", "new.db", "load[user]"))


def test_a_way_back_is_shown_with_what_failed(journal, writer):
    writer.open().start().act("load[org]")
    writer.act("load[user]")
    writer.end("failed", "no")
    writer.start("back", "Ann").undo("load[user]")
    writer.undo("load[org]", "no route to host")
    writer.end("needs-person", "half done")

    evidence = read_evidence(journal, RECOVERY)

    assert [(s.key, s.shown) for s in evidence.way_back()] == [
        ("undo load[user]", Shown.UNDONE),
        ("undo load[org]", Shown.UNDO_FAILED),
    ]
    for text in (html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)):
        assert "Way back" in text
        assert "no route to host" in text
        assert "put back load[org]" in text


def test_a_broken_chain_is_said_at_once(journal, writer):
    killed_and_resumed(writer)
    with changed(journal) as store:
        store.execute("update events set at = '2027-03-01T00:00:00+00:00' where seq = 6")

    page, markdown = html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)

    assert "tampered with or damaged" in page[: page.index("<main>")]
    assert "broken in 1 places" in markdown[: markdown.index("## Steps")]
    assert re.search(r"event 6 \(\w+\) was changed", markdown)


@pytest.mark.parametrize("hostile", [HOSTILE, "`", "a|b\\|c", "\ud800", "-->", "]]>"])
def test_hostile_text_anywhere_stays_text(journal, writer, hostile):
    storable = hostile.encode("utf-8", "replace").decode()
    key = f"load[{storable[:300]}]"
    writer.open(target=f"db1 {storable}", parameters={storable: storable}, runbook=storable)
    writer.start().look(f"refuse {storable}", Kind.REFUSED, reason=storable)
    writer.intend(key, storable)
    writer.send(key, storable, storable, is_change=True, exit_code=1, error=storable)
    writer.fail(key, storable)
    writer.write(Kind.APPROVED, {"hash": storable, "by": storable, "until": storable, "how": "x"})
    writer.end("failed", storable)

    page, markdown = Page(html_report(journal, RECOVERY)), markdown_report(journal, RECOVERY)

    assert page.open == []
    assert not {"script", "img"} & set(page.tags)
    shown = "".join(page.texts) + markdown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", markdown)
    outside = re.sub(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", outside)
    assert not re.search(r"<[a-z/!]", outside)
    assert "\n# heading" not in outside


def test_a_cell_cannot_end_its_row(journal, writer):
    writer.open().start().act("load[a|b\\|c`d]")
    writer.end("recovered")

    rows = [
        r for r in markdown_report(journal, RECOVERY).splitlines() if "load" in r and r[0] == "|"
    ]

    assert rows
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 8 for row in rows)


def test_secrets_that_became_known_later_are_masked(journal, writer):
    with isolated_registry():
        writer.open().start()
        writer.act("load[org]", 0.1, "mysql -p hunter2-hunter2", "hun\x1b[0mter2-hunter2")
        writer.end("failed", "hunter2-hunter2")
        register("hunter2-hunter2")

        page, markdown = html_report(journal, RECOVERY), markdown_report(journal, RECOVERY)

    assert "hunter2" not in page + markdown
    assert "***" in page


def test_a_long_report_stays_within_its_size_and_says_what_was_cut(journal, writer):
    writer.open().start()
    for n in range(450):
        writer.act(f"load[{n}]", 0.01, f"INSERT INTO t{n} " + "é" * 900, "answer " * 200)
    writer.end("recovered")

    markdown = markdown_report(journal, RECOVERY)

    assert len(markdown.encode()) <= MARKDOWN_BYTES_MAX
    assert "50 of 450 steps" in markdown
    assert re.search(r"\d+ of 450 commands", markdown)


def test_five_hundred_steps_stay_readable_and_the_failure_has_a_row_of_its_own(journal, writer):
    many_steps(writer)

    lane = drawing_of(read_evidence(journal, RECOVERY))["lanes"][0]

    assert len(lane.rows) <= ROWS_MAX
    assert [row.label for row in lane.rows] == [
        f"load {TIMES}250",
        "compare_tables",
        f"load {TIMES}250",
        "restart_grafana",
    ]
    assert lane.rows[-1].look == "bad"
    assert Page(html_report(journal, RECOVERY)).tags.count("tr") > 500


def test_any_number_of_troubles_and_attempts_is_drawn_in_bounds(journal, writer):
    writer.open()
    for _ in range(30):
        writer.start()
        for n in range(20):
            writer.act(f"fine_{n}")
            writer.intend(f"bad_{n}")
            writer.fail(f"bad_{n}", "no")
        writer.end("failed", "no")

    drawing = drawing_of(read_evidence(journal, RECOVERY))

    assert drawing["left_out"] == 18
    assert all(len(lane.rows) <= ROWS_MAX for lane in drawing["lanes"])


def test_an_axis_shows_short_steps_beside_a_long_one(journal, writer):
    many_steps(writer)

    lane = drawing_of(read_evidence(journal, RECOVERY))["lanes"][0]

    assert lane.is_uneven
    first = lane.rows[0].bars[0]
    assert first.width > 50
    xs = [tick.x for tick in lane.ticks]
    assert len(xs) >= 3
    assert xs == sorted(xs)
    assert all(PLOT_LEFT <= x <= PLOT_RIGHT for x in xs)
    assert "5 min" in [tick.label for tick in lane.ticks]


def test_an_axis_is_even_where_that_hides_nothing(journal, writer):
    killed_and_resumed(writer)

    lane = drawing_of(read_evidence(journal, RECOVERY))["lanes"][0]

    assert not lane.is_uneven
    assert [tick.label for tick in lane.ticks] == ["0", "1 s", "2 s", "3 s", "4 s"]


def test_the_drawing_is_xml_and_can_stand_alone(journal, writer):
    killed_and_resumed(writer)

    drawn = ET.fromstring(timeline_svg(read_evidence(journal, RECOVERY)))  # noqa: S314 (our own)

    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert "nan" not in ET.tostring(drawn, encoding="unicode")


def test_an_attempt_that_did_nothing_and_one_at_work_can_be_drawn(journal, writer):
    writer.open()
    assert "no attempt has begun" in html_report(journal, RECOVERY)

    writer.start()
    assert Page(html_report(journal, RECOVERY)).open == []

    writer.intend("load[org]")
    assert steps(journal)["load[org]"].shown is Shown.RUNNING
    assert "is at work since" in markdown_report(journal, RECOVERY)


def test_an_unknown_recovery_has_no_report(journal):
    with pytest.raises(BadInput, match="no recovery nope"):
        html_report(journal, "nope")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0002, "<1 ms"),
        (0.0123, "12 ms"),
        (3.14159, "3.1 s"),
        (59, "59 s"),
        (252, "4 min 12 s"),
        (18060, "5 h 01 min"),
        (200000, "2 d 7 h"),
    ],
)
def test_durations_are_written_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.02, "20 ms"), (2, "2 s"), (2.5, "2.5 s"), (90, "1 min 30 s"), (7200, "2 h")],
)
def test_ticks_are_round_times(seconds, text):
    assert tick_label(seconds) == text


def test_markdown_signs_are_taken_for_what_they_are():
    assert inline("a *b* <c> [d](e) ~~f~~ snake_case _g_") == (
        "a \\*b\\* &lt;c&gt; \\[d\\](e) \\~\\~f\\~\\~ snake_case \\_g\\_"
    )
    assert code("a`b``c") == "```a`b``c```"
    assert code("`") == "`` ` ``"
    assert fenced("```\nend").startswith("````text\n")


def test_the_templates_are_in_the_wheel(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as built:
        names = {
            Path(name).name for name in built.namelist() if "recovery/evidence/templates/" in name
        }

    assert names == {path.name for path in (ROOT / "recovery" / "evidence" / "templates").iterdir()}
