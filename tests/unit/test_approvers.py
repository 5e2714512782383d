"""Who may consent, how many it takes, and what proves a name."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from operate.approval_findings import examine_approvals
from operate.findings import Health
from recovery.approval.approvers import (
    ANYONE,
    Rule,
    approvers,
    asked_by_alert,
    counted,
    not_proven,
)
from recovery.approval.proof import code_for, kept_line, key_line
from recovery.approval.question import Answer, Decision
from recovery.errors import BadInput
from recovery.inputs import refuse_nameless
from recovery.journal.consents import Approval, Consents
from recovery.journal.events import FIRST_HASH, Event, Kind
from recovery.notices.channels import channels
from recovery.run import Options
from recovery.secrecy.secret import Secret
from recovery.values import canonical
from recovery.verdict import Danger

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"
PLAN = "0123456789abcdef"
LATER = (datetime.now(UTC) + timedelta(days=30)).isoformat()
TOKEN = "a token of some length"  # noqa: S105 (of this test alone)


def given(by, **more):
    return Approval(PLAN, by, LATER, "approved", **more)


@pytest.fixture
def policy(tmp_path, monkeypatch):
    def read(text):
        file = tmp_path / "approvers.yaml"
        file.write_text(text)
        monkeypatch.setenv("RECOVER_APPROVERS", str(file))
        return approvers()

    return read


def test_without_a_file_one_of_anyone_consents_to_what_is_destructive(monkeypatch):
    monkeypatch.delenv("RECOVER_APPROVERS", raising=False)

    read = approvers()

    assert read.rule_for("any", Danger.DESTRUCTIVE) == ANYONE
    assert read.rule_for("any", Danger.CHANGE) is None
    assert counted(ANYONE, [given("who ever")], "").missing == 0


def test_the_first_rule_that_fits_counts_and_may_be_about_a_mere_change(policy):
    read = policy("""
approvers: {Ada: {}, Grace: , Linus: {}}
rules:
  - {recovery: restart-service, danger: change, of: [Ada]}
  - {recovery: restore-mongodb, needs: 2, of: [Ada, Grace]}
  - {danger: destructive}
""")

    assert read.rule_for("restart-service", Danger.CHANGE).of == ("Ada",)
    assert read.rule_for("restore-mongodb", Danger.DESTRUCTIVE).needs == 2
    assert read.rule_for("repair-redis-aof", Danger.DESTRUCTIVE).of == ("Ada", "Grace", "Linus")
    assert read.rule_for("recover-redis", Danger.CHANGE) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("approvers: {Ada: {}, ' ada': {}}", "two names differ"),
        ("approvers: {'': {}}", "a name is empty"),
        ("approvers: {Ada: {password: x}}", r"approvers\.Ada\.password"),
        ("approvers: {Alert RedisDown (route x): {}}", "how an alert is named"),
        ("rules: [{needs: 2}]", "neither a recovery nor a danger"),
        ("rules: [{danger: huge}]", r"rules\.0\.danger"),
        ("approvers: {Ada: {}}\nrules: [{danger: destructive, of: [Eve]}]", "Eve is no approver"),
        ("approvers: {Ada: {}}\nrules: [{danger: destructive, needs: 2}]", "2 of 1 persons"),
        ("rules: [{danger: destructive, needs: 0}]", r"rules\.0\.needs"),
        ("rule: []", "rule"),
        ("rules: [", "RECOVER_APPROVERS"),
        ("- Ada", "RECOVER_APPROVERS"),
    ],
)
def test_a_malformed_file_is_refused_with_what_is_wrong(policy, text, named):
    with pytest.raises(BadInput, match=named):
        policy(text)


def test_a_file_that_is_not_there_lets_nobody_consent(monkeypatch, tmp_path):
    monkeypatch.setenv("RECOVER_APPROVERS", str(tmp_path / "none.yaml"))

    with pytest.raises(BadInput, match="cannot be read"):
        approvers()


@pytest.mark.parametrize(
    ("names", "requester", "missing"),
    [
        ([], "Ada", 2),
        (["Ada"], "Ada", 1),
        (["Ada", "ADA", " ada "], "Ada", 1),  # one person, however it is typed
        (["Ada", "Eve"], "Ada", 1),  # no approver
        (["Ada", "Grace"], "Ada", 0),
        (["Grace", "Linus"], "", 0),
    ],
)
def test_distinct_persons_are_counted(names, requester, missing):
    rule = Rule(danger=Danger.DESTRUCTIVE, needs=2, of=("Ada", "Grace", "Linus"))

    assert counted(rule, [given(name) for name in names], requester).missing == missing


@pytest.mark.parametrize(
    ("names", "requester", "missing"),
    [
        (["Ada"], "ada", 1),
        (["Grace"], "Ada", 0),
        (["Ada", "Grace"], "Ada", 0),
        (["Ada"], "", 1),  # it may have been Ada who asked
        (["Ada", "Grace"], "", 0),
        (["Ada"], asked_by_alert("RedisDown", "redis"), 1),  # Ada may have set it off
        (["Ada", "Grace"], asked_by_alert("", "redis"), 0),
    ],
)
def test_who_asked_for_it_does_not_suffice_where_the_rule_says_so(names, requester, missing):
    rule = Rule(danger=Danger.DESTRUCTIVE, of=("Ada", "Grace"), requester_suffices=False)

    assert counted(rule, [given(name) for name in names], requester).missing == missing


@pytest.mark.parametrize("alert", ["RedisDown", ""])
@pytest.mark.parametrize("written", [str, str.upper, "  {}".format])
def test_an_alert_that_asks_never_consents_even_where_anyone_may(alert, written):
    name = written(asked_by_alert(alert, "redis"))

    count = counted(ANYONE, [given(name)], name)

    assert (count.persons, count.missing) == ((), 1)
    assert counted(ANYONE, [given(name), given("Ada")], name).persons == ("Ada",)


def test_a_name_is_proven_by_a_code_for_this_plan_of_this_recovery_alone(policy, tmp_path):
    file = tmp_path / "grace"
    line = key_line("Grace", Secret(TOKEN))
    file.write_text(line.reveal() + "\n")
    file.chmod(0o600)
    read = policy(f"approvers: {{Ada: {{}}, Grace: {{proof_file: {file}}}}}")
    rule = read.rule_for("any", Danger.DESTRUCTIVE)
    code = code_for(key_line("grace", Secret(TOKEN)), "one", PLAN, "q1")

    def doubted(recovery_id, *said, spent=()):
        return not_proven(read, rule, said, recovery_id, spent)

    assert TOKEN not in file.read_text()
    assert doubted("one", given("Ada"), given("grace", code=code, about="q1")) == []
    assert doubted("one", given("Grace", code=code, about="q1"), given("Grace")) == []
    assert doubted("one", given("Grace", code=code, about="q2")) == ["Grace"]
    assert doubted("one", given("Grace", code=code, about="q1"), spent={code}) == ["Grace"]
    assert doubted("one", given("Grace", code="\N{LATIN SMALL LETTER U WITH DIAERESIS}")) == [
        "Grace"
    ]
    assert doubted("one", given("Grace")) == ["Grace"]
    assert doubted("two", given("Grace", code=code, about="q1")) == ["Grace"]
    other = Approval("f" * 16, "Grace", LATER, "approved", code=code, about="q1")
    assert doubted("one", other) == ["Grace"]


def test_a_file_of_proof_that_holds_something_else_or_is_open_to_all_is_named(tmp_path):
    other, opened = tmp_path / "other", tmp_path / "opened"
    other.write_text("hunter2hunter2hunter2")
    other.chmod(0o600)
    opened.write_text(key_line("Ada", Secret(TOKEN)).reveal())
    opened.chmod(0o644)

    with pytest.raises(BadInput, match="recover approver"):
        kept_line(other)
    with pytest.raises(BadInput, match="mode 0644"):
        kept_line(opened)
    with pytest.raises(BadInput, match="fewer than 16"):
        key_line("Ada", Secret("short"))


def event(seq, kind, **body):
    return Event("one", seq, 1, 1, LATER, kind, "", canonical(body), FIRST_HASH, FIRST_HASH)


def test_a_rejection_voids_what_was_given_to_that_plan_before_it():
    consents = Consents()
    said = [
        event(1, Kind.APPROVED, hash=PLAN, by="Ada", until=LATER, how="approved"),
        event(2, Kind.REJECTED, hash=PLAN, by="Grace", reason="no"),
        event(3, Kind.APPROVED, hash=PLAN, by="Linus", until=LATER, how="approved"),
    ]

    for one in said:
        consents.hear(one, one.body)

    assert [one.by for one in consents.standing(PLAN)] == ["Linus"]


def test_a_question_of_a_later_release_can_be_read():
    consents = Consents()
    one = event(1, Kind.ASKED, key="k", plan_hash=PLAN, flow_run_id="r", colour="red")

    consents.hear(one, one.body)

    assert consents.open_question("r").plan_hash == PLAN
    assert consents.open_question("another run") is None


@pytest.mark.parametrize("options", [{"approve": PLAN}, {"break_glass": "now"}])
def test_a_consent_in_a_form_wants_a_name(options):
    with pytest.raises(BadInput, match="approved_by"):
        refuse_nameless(Options(**options))

    refuse_nameless(Options(**options, approved_by="Ada"))


def test_decisions_are_spelt_as_the_form_shows_them():
    assert [str(one) for one in Decision] == ["approve", "reject", "look-again"]
    assert Answer(flaw="x").decision is None


def test_the_files_of_the_project_can_be_read(monkeypatch):
    monkeypatch.setenv("RECOVER_APPROVERS", str(DEPLOYMENTS / "approvers.yaml"))
    monkeypatch.setenv("RECOVER_NOTIFICATIONS", str(DEPLOYMENTS / "notifications.yaml"))

    assert approvers().rule_for("any", Danger.DESTRUCTIVE).needs == 1
    assert channels() == ()


def test_the_doctor_says_who_is_missing(policy, tmp_path):
    nobody = policy("rules: [{danger: destructive}]") and examine_approvals()
    unknown = policy("approvers: {Ada: {}}\nrules: [{recovery: nope}]") and examine_approvals()
    file = tmp_path / "none"
    unproven = policy(f"approvers: {{Ada: {{proof_file: {file}}}}}") and examine_approvals()

    assert nobody[0].health is Health.NOTE
    assert "one person suffices" in nobody[0].seen
    assert unknown[0].health is Health.BAD
    assert "nope" in unknown[0].seen
    assert [one.health for one in unproven[:2]] == [Health.OK, Health.BAD]
    assert str(file) in unproven[1].seen
