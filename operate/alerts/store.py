"""The memory of alerts: what was accepted, what was started for it, and what came of that.

It lies where the journal lies: a SQLite file beside it, or the same Postgres database. What was
accepted is on disk before the sender is told so. A run is started in two phases: the alert is
reserved with everything that will be sent, then confirmed by the id of its flow run.
"""

import json
from collections.abc import Mapping, Sequence

from operate.alerts.kept import WITHOUT_RUN, Kept, State
from operate.alerts.looks import AlertLooks
from operate.alerts.payload import Alert
from operate.alerts.routing import Decision, Kind

LATE_SECONDS = 900.0


class AlertStore(AlertLooks):
    """Alerts in a database. Instances are safe to share between threads."""

    def receive(self, read: Sequence[tuple[Alert, Decision]], now: float) -> list[State]:
        """Keep what was read, each alert once per episode; on disk when this returns.

        Args:
            read: alerts with what the routes make of them, in the order they came.
            now: the moment it is kept under.
        """
        with self._database.writing():
            return [self._receive(alert, decision, now) for alert, decision in read]

    def _receive(self, alert: Alert, decision: Decision, now: float) -> State:
        if shifted := self._shifted(alert):
            for one in shifted:
                self._note_repeat(one, now)
                if not alert.is_firing:
                    self._resolve(one, now)
            return shifted[0].state
        fresh = self._fresh(alert, decision)
        values: dict[str, object] = {
            "fingerprint": alert.fingerprint,
            "starts_at": alert.starts_at,
            "labels": json.dumps(dict(alert.labels), sort_keys=True),
            "is_firing": int(alert.is_firing),
            "state": fresh,
            "reason": decision.reason if alert.is_firing else "it was resolved before it was heard",
            "route": decision.route.name if decision.route else "",
            "work": decision.work,
            "severity": decision.route.severity if decision.route else "",
            "now": now,
            "resolved_at": 0.0 if alert.is_firing else now,
        }
        made = self._database.execute(
            """insert into recover_alerts (fingerprint, starts_at, labels, is_firing, state, reason,
                 route, work, severity, received_at, seen_at, resolved_at)
               values (:fingerprint, :starts_at, :labels, :is_firing, :state, :reason,
                 :route, :work, :severity, :now, :now, :resolved_at)
               on conflict (fingerprint, starts_at) do nothing""",
            **values,
        )
        if made:
            return fresh
        known = self.find(alert.fingerprint, alert.starts_at)
        if known is None:
            raise AssertionError  # what conflicts is there
        self._note_repeat(known, now)
        if alert.is_firing:
            return self._fires_again(known, values, now)
        if known.is_firing:
            self._resolve(known, now)
        return known.state

    def _shifted(self, alert: Alert) -> list[Kept]:
        """Find the episodes that go on, and that this one is or ends though it began elsewhen.

        Of two Prometheus that see the same, Alertmanager takes the earlier beginning, also later
        on: what fires since before an episode that goes on is that episode, and what ended after
        its beginning is its end. The end of one that is known is also that of those before it.
        """
        is_known = self.find(alert.fingerprint, alert.starts_at) is not None
        if is_known and alert.is_firing:
            return []
        going_on = self._kept("fingerprint = :id and is_firing = 1", id=alert.fingerprint)
        if alert.is_firing:
            return [kept for kept in going_on if kept.began_at > alert.starts_at]
        until = alert.starts_at if is_known else alert.ends_at
        return [kept for kept in going_on if kept.began_at <= until]

    def _note_repeat(self, known: Kept, now: float) -> None:
        self._database.execute(
            "update recover_alerts set repeats = repeats + 1, seen_at = :now where seq = :seq",
            now=now,
            seq=known.seq,
        )

    @staticmethod
    def _fresh(alert: Alert, decision: Decision) -> State:
        if decision.kind is not Kind.RUN:
            return State.NOT_ROUTED
        return State.WAITING if alert.is_firing else State.RESOLVED

    def _fires_again(self, known: Kept, values: Mapping[str, object], now: float) -> State:
        """Take a repeat: new routes may lead somewhere now, and a long resolved one may be back.

        One that comes soon after the end of its episode was overtaken by it on its way.
        """
        is_late = not known.is_firing and now - known.resolved_at < LATE_SECONDS
        if known.state not in WITHOUT_RUN or values["state"] != State.WAITING or is_late:
            return known.state
        self._database.execute(
            """update recover_alerts set is_firing = 1, state = :state, reason = :reason,
                 route = :route, work = :work, severity = :severity, resolved_at = 0,
                 not_before = 0,
                 generation = generation + :more, flow_run_id = '', run_state = '', outcome = '',
                 started_at = 0, ended_at = 0 where seq = :seq""",
            **{name: values[name] for name in ("state", "reason", "route", "work", "severity")},
            more=1 if known.flow_run_id else 0,
            seq=known.seq,
        )
        return State.WAITING

    def _resolve(self, known: Kept, now: float) -> None:
        self._database.execute(
            "update recover_alerts set is_firing = 0, resolved_at = :now where seq = :seq",
            now=now,
            seq=known.seq,
        )
        if known.state is State.WAITING:
            self.settle(known, State.CANCELLED, "it was resolved before anything was started")
        elif known.state is State.NEEDS_PERSON:
            self.settle(known, State.RESOLVED, f"resolved; before that: {known.reason}")

    def is_alone(self) -> bool:
        """Whether this process is the one of all receivers that starts runs, from now on."""
        return self._database.is_alone()

    def reserve(self, kept: Kept, deployment: str, decision: Decision, now: float) -> bool:
        """Write down what is about to be sent; false where somebody else was first."""
        if decision.route is None:
            raise AssertionError  # only what has a route is started
        with self._database.writing():
            changed = self._database.execute(
                """update recover_alerts set state = :reserved, reason = :reason, route = :route,
                     flow = :flow, work = :work, deployment = :deployment, severity = :severity,
                     parameters = :parameters, reserved_at = :now, not_before = 0
                   where seq = :seq and state = :waiting and is_firing = 1""",
                reserved=State.RESERVED,
                waiting=State.WAITING,
                reason=kept.because(decision.reason),
                route=decision.route.name,
                flow=decision.route.flow,
                work=decision.work,
                deployment=deployment,
                severity=decision.route.severity,
                parameters=json.dumps(dict(decision.parameters), sort_keys=True),
                now=now,
                seq=kept.seq,
            )
        return changed == 1

    def confirm(self, kept: Kept, flow_run_id: str, now: float) -> None:
        """Note the flow run that was started for a reserved alert."""
        self._change(
            kept.seq,
            "state = :state, flow_run_id = :id, started_at = :now",
            state=State.STARTED,
            id=flow_run_id,
            now=now,
        )

    def join(self, kept: Kept, leader: Kept) -> None:
        """Let an alert share the run that another one has started on the same target."""
        self._change(
            kept.seq,
            "state = :state, reason = :reason, flow_run_id = :id, started_at = :at, "
            "reserved_at = 0",
            state=State.JOINED,
            reason=f"shares the run of {leader.fingerprint}",
            id=leader.flow_run_id,
            at=leader.started_at,
        )

    def give_back(self, kept: Kept, reason: str, until: float) -> None:
        """Let a reserved alert wait again: the server has said that it takes no such run."""
        self._change(
            kept.seq,
            "state = case when is_firing = 1 then :state else :cancelled end, "
            "reason = :reason, not_before = :until",
            state=State.WAITING,
            cancelled=State.CANCELLED,
            reason=kept.because(reason),
            until=until,
        )

    def hold(self, kept: Kept, reason: str, until: float) -> None:
        """Let an alert wait, and say for what, unless it was released since it was read."""
        self._change(
            kept.seq,
            "reason = :reason, not_before = :until",
            "released_at = :released_at",
            reason=kept.because(reason),
            until=until,
            released_at=kept.released_at,
        )

    def weigh_anew(self) -> None:
        """Let whatever waits be due now: what it waits for may be set otherwise."""
        with self._database.writing():
            self._database.execute(
                "update recover_alerts set not_before = 0 where state in (:waiting, :reserved)",
                waiting=State.WAITING,
                reserved=State.RESERVED,
            )

    def settle(self, kept: Kept, state: State, reason: str) -> None:
        """Bring an alert to an end, and say why."""
        self._change(kept.seq, "state = :state, reason = :reason", state=state, reason=reason)

    def leave(self, kept: Kept, state: State, reason: str) -> bool:
        """Start nothing for an alert that waits, and say why; false where it waits no more.

        One that was resolved meanwhile has come to its end by that, and nobody could release it.
        """
        return self._change(
            kept.seq,
            "state = :state, reason = :reason",
            "state = :waiting and is_firing = 1",
            state=state,
            reason=reason,
            waiting=State.WAITING,
        )

    def release(self, kept: Kept, by: str, now: float) -> bool:
        """Let an alert that a person lets go on be due now; false where it has gone on itself."""
        return self._change(
            kept.seq,
            "state = :state, reason = :reason, not_before = 0, released_at = :now",
            "state = :was and is_firing = 1",
            state=State.WAITING,
            was=kept.state,
            reason=f"released by {by}",
            now=now,
        )

    def note_run(self, flow_run_id: str, state: str, outcome: str, now: float) -> None:
        """Note how far a run is; `outcome` names its last state, empty while it goes on."""
        changes = "run_state = :run_state, looked_at = :now"
        if outcome:
            changes += ", outcome = :outcome, ended_at = :now, state = :ended"
        with self._database.writing():
            self._database.execute(
                f"update recover_alerts set {changes} where flow_run_id = :id "  # noqa: S608 (ours)
                "and state in (:started, :joined)",
                run_state=state,
                outcome=outcome,
                now=now,
                ended=State.ENDED,
                started=State.STARTED,
                joined=State.JOINED,
                id=flow_run_id,
            )

    def take_up(self, flow_run_id: str, reason: str, now: float) -> None:
        """Note that a run goes on that had ended. `ended_at` stays: see Kept."""
        with self._database.writing():
            self._database.execute(
                """update recover_alerts set reason = :reason, outcome = '', run_state = '',
                     state = case when reserved_at > 0 then :started else :joined end,
                     ended_at = case when ended_at > 0 then ended_at else :now end
                   where flow_run_id = :id and state in (:ended, :cancelled)""",
                reason=reason,
                started=State.STARTED,
                joined=State.JOINED,
                now=now,
                id=flow_run_id,
                ended=State.ENDED,
                cancelled=State.CANCELLED,
            )

    def call_off(self, flow_run_id: str, reason: str) -> None:
        """Note that a run was cancelled for all alerts that share it."""
        with self._database.writing():
            self._database.execute(
                """update recover_alerts set state = :cancelled, reason = :reason
                   where flow_run_id = :id and state in (:started, :joined)""",
                cancelled=State.CANCELLED,
                reason=reason,
                id=flow_run_id,
                started=State.STARTED,
                joined=State.JOINED,
            )

    def end_cancelled(self, flow_run_id: str, reason: str, now: float) -> None:
        """Note that a run was cancelled that had acted, for all alerts that share it."""
        with self._database.writing():
            self._database.execute(
                """update recover_alerts set state = :ended, run_state = 'CANCELLED',
                     outcome = 'Cancelled', reason = :reason, ended_at = :now
                   where flow_run_id = :id and state in (:started, :joined)""",
                ended=State.ENDED,
                reason=reason,
                now=now,
                id=flow_run_id,
                started=State.STARTED,
                joined=State.JOINED,
            )

    def beat(self, name: str, at: float) -> None:
        """Note when something was last heard of."""
        with self._database.writing():
            self._database.execute(
                """insert into recover_alert_beats (name, at) values (:name, :at)
                   on conflict (name) do update set at = excluded.at""",
                name=name,
                at=at,
            )

    def forget(self, before: float, idle_max: int) -> None:
        """Forget ended alerts not heard of since then, and the oldest of too many without route."""
        with self._database.writing():
            self._database.execute(
                """delete from recover_alerts where seen_at < :before
                   and state not in (:waiting, :reserved, :started)""",
                before=before,
                waiting=State.WAITING,
                reserved=State.RESERVED,
                started=State.STARTED,
            )
            self._database.execute(
                """delete from recover_alerts where state = :idle and seq <= (
                     select seq from recover_alerts where state = :idle
                     order by seq desc limit 1 offset :idle_max)""",
                idle=State.NOT_ROUTED,
                idle_max=idle_max,
            )

    def close(self) -> None:
        """Close it; it is not used afterwards."""
        self._database.close()

    def _change(self, seq: int, changes: str, where: str = "1 = 1", **values: object) -> bool:
        with self._database.writing():
            changed = self._database.execute(
                f"update recover_alerts set {changes} where seq = :seq and {where}",  # noqa: S608
                seq=seq,
                **values,
            )
        return changed == 1
