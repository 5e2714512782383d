"""The file of routes: what it refuses, what it makes of alerts, and what the shipped one covers."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operate.alerts.payload import Alert
from operate.alerts.routes import Mode
from operate.alerts.routes_file import FILE, read_routes
from operate.alerts.routing import Kind, decide
from operate.catalogue import recoveries
from recovery.errors import BadInput

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)  # a Sunday
GOOD = """\
version: 1
watchdog:
  match: alertname="Watchdog"
  silent_after_seconds: 60
maintenance:
  - name: moved
    match: ['instance="b:9121"']
    from: 2026-03-01T11:00:00Z
    until: 2026-03-01T13:00:00Z
targets:
  redis:
    - name: alpha
      when: {instance: [a:9121, "a.local:9121"]}
      parameters: {host: ssh://a, port: 6379}
    - name: beta
      when: {instance: b:9121}
      parameters: {host: ssh://b}
  frozen:
    - name: alpha
      when: {instance: a:9121}
      parameters: {host: ssh://a}
routes:
  - name: down
    match: [alertname="RedisDown"]
    flow: recover-redis
    targets: redis
    parameters: {restart: true}
    severity: critical
  - name: frozen
    match: [alertname="RedisFrozen"]
    flow: end-frozen-redis
    targets: frozen
    mode: recover
unrouted:
  - match: [alertname="InfoInhibitor"]
    reason: it is only there for others
"""
BROKEN = [  # what is replaced, by what, the field that is named, a word of what is said
    ("version: 1", "version: 2", "version", "version 1"),
    ("version: 1\n", "", "the file", "version is missing"),
    ("flow: recover-redis", "flow: recover-reddis", "routes[0].flow", "recover-redis"),
    ("targets: redis", "targets: redes", "routes[0].targets", "redes"),
    ("severity: critical", "severity: bad", "routes[0].severity", "critical"),
    ("mode: recover", "mode: at-once", "routes[1].mode", "triage"),
    ("mode: recover", "approve: abc", "routes[1].approve", "no such field"),
    ("{restart: true}", "{approve: abc}", "routes[0].parameters.approve", "option"),
    ("{restart: true}", "{break_glass: now}", "routes[0].parameters.break_glass", "option"),
    ("{restart: true}", "{plan_only: false}", "routes[0].parameters.plan_only", "option"),
    ("{restart: true}", "{restrt: true}", "routes[0].parameters.restrt", "restart"),
    ("{restart: true}", "[restart]", "routes[0].parameters", "no names"),
    ("port: 6379", "port: many", "targets.redis[0].parameters.port", "whole number"),
    ("port: 6379", "resume: abc", "targets.redis[0].parameters.resume", "option"),
    ("{host: ssh://b}", "{port: 5}", "targets.redis[1].parameters", "host"),
    ("{host: ssh://b}", "{host: 'ssh://u:s3cr3t@b'}", "targets.redis[1].parameters.host", "URL"),
    ("{instance: b:9121}", "{instance: []}", "targets.redis[1].when.instance", "no value"),
    ("{instance: b:9121}", "{instance: 5}", "targets.redis[1].when.instance", "no list"),
    ("name: beta", "name: alpha", "targets.redis[0]", "two targets"),
    ("name: frozen", "name: down", "routes[0]", "two routes"),
    ('[alertname="RedisDown"]', "[]", "routes[0].match", "empty"),
    ('[alertname="RedisDown"]', "[alertname]", "routes[0].match[0]", "no matcher"),
    ('[alertname="RedisDown"]', "['a=~\"(\"']", "routes[0].match[0]", "no pattern"),
    ("silent_after_seconds: 60", "silent_after_seconds: 0", "watchdog.silent_after_seconds", "1"),
    ("until: 2026-03-01T13:00:00Z", "until: 2026-03-01T10:00:00Z", "maintenance[0].until", "ends"),
    ("until: 2026-03-01T13:00:00Z", "at: soon", "maintenance[0]", "does not say"),
    ("    reason: it is only there for others\n", "", "unrouted[0]", "reason is missing"),
    ("unrouted:", "unroute:", "unroute", "unrouted"),
    ("routes:", "routes:\n  - name: [", "", "YAML"),
    ("port: 6379", "port: 6379, port: 6380", "", "twice"),
]  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def write(text):
        file = tmp_path / "routes.yaml"
        file.write_text(text)
        return read_routes(file)

    return write


@pytest.fixture
def routes(written):
    return written(GOOD)


def alert(name, *, is_firing=True, starts_at=NOW, **labels):
    return Alert("f", starts_at.isoformat(), is_firing, {"alertname": name, **labels})


def test_a_moment_without_quotes_is_sent_as_text(written):
    (drill,) = written(
        """\
version: 1
targets:
  backups:
    - name: nightly
      parameters: {folder: /srv/backups, server: "postgresql://u@db/scratch"}
routes:
  - name: drill
    match: alertname="A"
    flow: drill-postgres-restore
    targets: backups
    parameters: {incident_at: 2026-11-01T10:00:00Z}
"""
    ).routes

    assert json.dumps(drill.parameters) == '{"incident_at": "2026-11-01T10:00:00+00:00"}'


@pytest.mark.parametrize(("what", "by", "field", "word"), BROKEN)
def test_a_wrong_file_is_refused_by_field_line_and_remedy(written, what, by, field, word):
    text = GOOD.replace(what, by, 1)
    assert text != GOOD

    with pytest.raises(BadInput) as refused:
        written(text)

    place = re.fullmatch(r".+/routes.yaml:(\d+)(?:: (.+))?", refused.value.field)
    assert place, refused.value.field
    assert (place[2] or "") == field
    assert word in f"{refused.value.seen} {refused.value.remedy}"
    assert refused.value.remedy
    assert "s3cr3t" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput):
        read_routes(tmp_path / "none.yaml")


def test_triage_is_the_default_and_parameters_are_those_of_the_file(routes):
    decision = decide(routes, alert("RedisDown", instance="a.local:9121"), NOW)

    assert decision.kind is Kind.RUN
    assert decision.parameters == {
        "host": "ssh://a", "port": 6379, "restart": True, "plan_only": True,
        "requested_by": "alert RedisDown (route down)",
    }  # fmt: skip
    assert decision.work == "recover-redis/alpha"


def test_a_destructive_recovery_is_never_given_consent(routes):
    decision = decide(routes, alert("RedisFrozen", instance="a:9121"), NOW)

    assert decision.route.mode is Mode.RECOVER
    assert decision.parameters == {
        "host": "ssh://a", "requested_by": "alert RedisFrozen (route frozen)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [
        ("RedisDown", {}, Kind.UNKNOWN_TARGET),
        ("RedisDown", {"instance": "a:9121 "}, Kind.UNKNOWN_TARGET),
        ("RedisDown", {"instance": "$(reboot)"}, Kind.UNKNOWN_TARGET),
        ("redisdown", {"instance": "a:9121"}, Kind.NO_ROUTE),
        ("InfoInhibitor", {}, Kind.UNROUTED),
        ("Watchdog", {"instance": "a:9121"}, Kind.WATCHDOG),
    ],
)
def test_what_leads_nowhere_says_so(routes, name, labels, kind):
    assert decide(routes, alert(name, **labels), NOW).kind is kind


def test_an_alert_from_before_what_is_remembered_starts_nothing(routes):
    old = alert("RedisDown", instance="a:9121", starts_at=NOW - timedelta(days=91))

    assert decide(routes, old, NOW).kind is Kind.TOO_OLD


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(labels=st.dictionaries(st.text(), st.text()))
def test_no_label_gets_further_than_into_comparisons(routes, labels):
    hostile = {**labels, "alertname": "RedisDown", "instance": "a:9121"}

    decision = decide(routes, Alert("f", NOW.isoformat(), is_firing=True, labels=hostile), NOW)

    assert decision.parameters == {
        "host": "ssh://a", "port": 6379, "restart": True, "plan_only": True,
        "requested_by": "alert RedisDown (route down)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("match", "name", "asks"),
    [
        ("alertname=~RedisDown|RedisSlow", "RedisSlow", "alert RedisSlow (route down)"),
        ("alertname=~Redis.*", "RedisDown", "alert (route down)"),
        ("alertname=~Redis.*|RedisDown", "RedisDown", "alert (route down)"),
        ("alertname!=Other", "$(reboot)", "alert (route down)"),
        ('instance="a:9121"', "$(reboot)", "alert (route down)"),
    ],
)
def test_the_alert_that_asks_is_named_only_where_the_route_names_it(written, match, name, asks):
    text = GOOD.replace('[alertname="RedisDown"]', f"['{match}']")

    decision = decide(written(text), alert(name, instance="a:9121"), NOW)

    assert decision.parameters["requested_by"] == asks


@pytest.mark.parametrize(
    ("window", "moment", "is_open"),
    [
        ({"days": ["sun"], "at": "11:00", "lasts_minutes": 90}, NOW, True),
        ({"days": ["sun"], "at": "10:00", "lasts_minutes": 90}, NOW, False),
        ({"days": ["sat"], "at": "23:00", "lasts_minutes": 800}, NOW, True),
        ({"days": ["mon"], "at": "11:00", "lasts_minutes": 90}, NOW, False),
        (
            {"days": ["sun"], "at": "13:00", "lasts_minutes": 5, "timezone": "Europe/Berlin"},
            NOW,
            True,
        ),
    ],
)  # fmt: skip
def test_a_weekly_window_is_open_at_its_hours(written, window, moment, is_open):
    text = yaml.safe_dump({"version": 1, "routes": [], "maintenance": [{"name": "w", **window}]})
    (read,) = written(text).windows

    assert (read.open_until({}, moment) is not None) is is_open


def test_a_window_counts_for_what_it_names_only(routes):
    (window,) = routes.windows

    assert window.open_until({"instance": "b:9121"}, NOW)
    assert not window.open_until({"instance": "a:9121"}, NOW)
    assert not window.open_until({"instance": "b:9121"}, NOW + timedelta(hours=1))


# What monitoring of such platforms sends; those of exporters and mixins, by their usual names.
NAMES = """
KubeClientCertificateExpiration KubeletClientCertificateExpiration
KubeletClientCertificateRenewalErrors KubeletServerCertificateExpiration
KubeletServerCertificateRenewalErrors KubeAPIDown KubeAPIInstanceUnreachable
KubeAPIErrorBudgetBurn KubeAPITerminatedRequests KubeClientErrors KubeAggregatedAPIDown
KubeAggregatedAPIErrors KubeControllerManagerDown KubeControllerManagerInstanceUnreachable
KubeSchedulerDown KubeSchedulerInstanceUnreachable KubeletDown KubeletInstanceUnreachable
KubeNodeNotReady KubeNodeUnreachable KubeNodeReadinessFlapping KubeNodePressure KubeNodeEviction
etcdInsufficientMembers etcdNoLeader etcdMembersDown etcdDatabaseQuotaLowSpace
etcdBackendQuotaLowSpace etcdExcessiveDatabaseGrowth etcdDatabaseHighFragmentationRatio
etcdHighFsyncDurations etcdHighCommitDurations etcdMemberCommunicationSlow
etcdHighNumberOfLeaderChanges etcdHighNumberOfFailedProposals etcdGRPCRequestsSlow
etcdHighNumberOfFailedGRPCRequests KubePodCrashLooping KubePodNotReady KubeContainerWaiting
KubeContainerOOMKilled KubeDeploymentReplicasMismatch KubeDeploymentRolloutStuck
KubeDeploymentGenerationMismatch KubeStatefulSetReplicasMismatch KubeStatefulSetGenerationMismatch
KubeStatefulSetUpdateNotRolledOut KubeDaemonSetRolloutStuck KubeDaemonSetNotScheduled
KubeDaemonSetMisScheduled KubeJobFailed KubeJobNotCompleted KubeJobCompletion KubeHpaMaxedOut
KubeHpaReplicasMismatch KubePdbNotEnoughHealthyPods CPUThrottlingHigh KubeCPUOvercommit
KubeMemoryOvercommit KubeCPUQuotaOvercommit KubeMemoryQuotaOvercommit KubeQuotaAlmostFull
KubeQuotaFullyUsed KubeQuotaExceeded KubePersistentVolumeFillingUp
KubePersistentVolumeInodesFillingUp KubePersistentVolumeErrors PersistentVolumeReleased
NodeClockSkewDetected NodeClockNotSynchronising NodeFilesystemSpaceFillingUp
NodeFilesystemAlmostOutOfSpace NodeFilesystemFilesFillingUp NodeFilesystemAlmostOutOfFiles
NodeMemoryHighUtilization NodeMemoryMajorPagesFaults NodeSystemdServiceFailed TargetDown RedisDown
RedisMissingMaster RedisMissingBackup RedisOutOfConfiguredMaxmemory PostgresqlDown
PostgresqlTooManyConnections PostgresqlInvalidIndex PostgresqlReplicationLag MongodbDown
MongodbReplicaMemberUnhealthy MongodbReplicationLag KafkaTopicsReplicas KafkaConsumersGroup
ZookeeperDown ZookeeperMissingLeader ClickhouseNodeDown ClickHouseDiskSpaceLowOnData
GrafanaRequestsFailing CertManagerCertNotReady CertManagerCertExpirySoon CertManagerAbsent
CertificateNotReady CertificateExpiring BlackboxSslCertificateWillExpireSoon
BlackboxSslCertificateExpired BlackboxProbeFailed BlackboxProbeHttpFailure
PrometheusNotConnectedToAlertmanagers AlertmanagerFailedToSendAlerts
AlertmanagerClusterFailedToSendAlerts PrometheusRuleFailures InfoInhibitor Watchdog
""".split()  # noqa: SIM905 (as a list it would be a page)


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_file_routes_every_usual_alert_or_says_why_not(name):
    decision = decide(read_routes(FILE), alert(name), NOW)

    assert decision.kind is not Kind.NO_ROUTE
    assert (decision.kind is Kind.WATCHDOG) is (name == "Watchdog")


def test_the_shipped_file_leads_every_answered_alert_to_a_recovery_that_answers_it():
    routes = read_routes(FILE)
    answered = {
        answer: {other.name for other in recoveries().values() if answer in other.answers}
        for recovery in recoveries().values()
        if recovery.fn.__module__.startswith("flows.")
        for answer in recovery.answers
    }

    led = {name: decide(routes, alert(name), NOW).route for name in answered}

    assert all(led[name] and led[name].flow in flows for name, flows in answered.items()), led


def test_the_shipped_file_starts_nothing_before_targets_are_named():
    routes = read_routes(FILE)

    assert not any(route.targets for route in routes.routes)
    assert all(route.mode is Mode.TRIAGE for route in routes.routes)
    assert len(routes.remarks) == 1
