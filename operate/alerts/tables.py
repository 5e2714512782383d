"""The tables of alerts, in SQL that SQLite and Postgres share."""

TABLES = (
    """create table if not exists recover_alerts (
      seq {serial}, fingerprint text not null, starts_at text not null, labels text not null,
      is_firing integer not null, state text not null, reason text not null default '',
      route text not null default '', flow text not null default '', work text not null default '',
      deployment text not null default '', parameters text not null default '{{}}',
      severity text not null default '', generation integer not null default 1,
      flow_run_id text not null default '', run_state text not null default '',
      outcome text not null default '', repeats integer not null default 0,
      received_at double precision not null, seen_at double precision not null,
      not_before double precision not null default 0,
      reserved_at double precision not null default 0,
      started_at double precision not null default 0,
      resolved_at double precision not null default 0,
      ended_at double precision not null default 0,
      looked_at double precision not null default 0,
      released_at double precision not null default 0,
      unique (fingerprint, starts_at))""",
    "create index if not exists recover_alerts_by_state on recover_alerts (state, seq)",
    "create index if not exists recover_alerts_by_work on recover_alerts (work, started_at)",
    "create index if not exists recover_alerts_by_run on recover_alerts (flow_run_id)",
    """create table if not exists recover_alert_beats (
      name text primary key, at double precision not null)""",
)
