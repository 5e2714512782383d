"""The story that a demo tells: plan, start, kill in the middle, resume, prove."""

import shlex
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event

from recovery.evidence.status import as_status, read_recovery
from recovery.run import recovery_id_of
from tests.lab.demo_proof import prove, timeline
from tests.lab.demo_stack import Stack, bring_up, largest_table
from tests.lab.demo_watch import (
    LOAD,
    Killed,
    Watch,
    kill_flow,
    retry_as_the_ui_does,
    wait_for_crash_report,
    wait_for_late_report,
    wait_for_the_lease,
    wait_for_the_middle,
)
from tests.lab.demo_wish import DemoFailed, Wish, headline, say

ACTS_SHOWN_MAX = 12
COMMAND_CHARACTERS_MAX = 90


def tell(wish: Wish, home: Path) -> None:
    """Tell the whole story; what it starts ends with it.

    Raises:
        DemoFailed: a check failed, or it did not get that far.
        KeyboardInterrupt: somebody stopped it.
    """
    began = time.monotonic()
    stack = Stack(wish, home, wish.source or home / "grafana.db", wish.accept)
    with ExitStack() as everything:
        headline(f"Setting up below {home}")
        bring_up(stack, everything)
        headline("The plan, by `recover plan`: nothing is changed yet")
        show_plan(stack)
        journal = everything.enter_context(closing(stack.journal()))
        headline("The recovery, as a run of its deployment on the worker")
        flow_run_id = stack.run_on_worker()
        watch = Watch(stack, journal, recovery_id_of(flow_run_id), flow_run_id)
        address = f"{stack.server.ui_url}/runs/flow-run/{flow_run_id}"
        say(f"recovery {watch.recovery_id}, approved plan {stack.plan['hash']}, {address}")
        killed = kill_in_the_middle(watch)
        resume(watch, killed)
        headline("What can be proven")
        proof = prove(stack, watch, killed)
        headline(f"Timeline of recovery {watch.recovery_id}")
        for line in timeline(watch, killed):
            say(line)
        say(f"\nreport: {proof.html}\nbundle: {proof.bundle}\nUI:     {address}")
        if proof.failed:
            raise DemoFailed(f"these did not hold: {'; '.join(proof.failed)}")
        say(
            f"Moved {proof.moved} of the {proof.moved + proof.kept} tables that both sides have "
            f"(the other {proof.kept} are named above), killed, resumed and proven in "
            f"{time.monotonic() - began:.0f} s."
        )
        if wish.keep:
            stay_up(stack, watch)
        else:
            say("All that was started is being stopped; KEEP=1 leaves it up.")


def show_plan(stack: Stack) -> None:
    """Show every kind of act once, with the first of its commands."""
    plan = stack.plan
    acts = [step for step in plan["steps"] if step["kind"] == "act"]
    say(f"plan {plan['hash']} of {plan['flow']} on {plan['target']}: {len(plan['steps'])} steps")
    if stack.accept:
        say(f"  losses that are accepted by name: {', '.join(stack.accept)}")
    by_name: dict[str, list[dict]] = {}
    for act in acts:
        by_name.setdefault(act["key"].partition("[")[0], []).append(act)
    for alike in list(by_name.values())[:ACTS_SHOWN_MAX]:
        act = alike[-1]
        more = f" and {len(alike) - 1} like it" if len(alike) > 1 else ""
        say(f"  {act['danger']:<11} {act['key']}{more}")
        for command in act["commands"][:4]:
            text = " ".join(command.split())
            cut = text[:COMMAND_CHARACTERS_MAX] + (
                "…" if len(text) > COMMAND_CHARACTERS_MAX else ""
            )
            say(f"                {cut}")
        if len(act["commands"]) > 4:
            say(f"                … {len(act['commands']) - 4} more")
    looks = len(plan["steps"]) - len(acts)
    say(f"  read        {looks} looks and verifications")


def kill_in_the_middle(watch: Watch) -> Killed:
    """Follow the recovery into the load, and kill -9 its process there."""
    keys = [step["key"] for step in watch.stack.plan["steps"]]
    tables = [key[len(LOAD) : -1] for key in keys if key.startswith(LOAD)]
    if not tables:
        raise DemoFailed("the plan loads no table, so there is nothing to kill it in")
    wait_for_the_middle(watch, *largest_table(watch.stack, tables))
    killed = kill_flow(watch)
    say(f"  kill -9 {killed.pid}: the flow's process is gone, {killed.loaded} tables are loaded")
    headline("What is known of it now")
    reading = read_recovery(watch.journal, watch.recovery_id)
    holder = reading.holder
    if killed.step:
        say(f"journal: {killed.step} was intended and has no outcome")
    else:
        say("journal: the last step has an outcome, the next was not begun")
    if holder is not None:
        say(f"lease:   held by {holder.owner} for {holder.seconds_left:.1f} s more; not stolen")
    say(f"Prefect: {wait_for_crash_report(watch)}")
    wait_for_the_lease(watch)
    wait_for_late_report(watch, killed)
    status = as_status(read_recovery(watch.journal, watch.recovery_id))
    doubt = [step["key"] for step in status["steps"] if step["state"] == "in-doubt"]
    say(f"status:  {status['state']}; in doubt: {', '.join(doubt) or 'nothing'}; the lease ran out")
    if status["state"] != "failed" or doubt != ([killed.step] if killed.step else []):
        raise DemoFailed(f"`recover status` should tell of one step in doubt, and tells {status}")
    say(f"next:    {status['next']}")
    return killed


def resume(watch: Watch, killed: Killed) -> None:
    """Resume the recovery and follow it to its end."""
    headline("Resumed, as by *Retry* in the UI: the same flow run, a new process")
    retry_as_the_ui_does(watch)
    watch.until_recovered(attempt=2)
    if watch.attempts[-1].worker.endswith(f":{killed.pid}"):
        raise DemoFailed("the process that was killed went on")


def stay_up(stack: Stack, watch: Watch) -> None:
    """Leave everything up until Ctrl-C, and say how to look around."""
    headline("All of it stays up until Ctrl-C")
    settings = " ".join(f"{k}={shlex.quote(v)}" for k, v in stack.settings.items())
    recover = Path(sys.executable).with_name("recover")
    say(f"UI:      {stack.server.ui_url}")
    say(f"CLI:     {settings} {recover} status {watch.recovery_id}")
    if stack.mariadb is not None:
        database = stack.mariadb
        say(
            f'MariaDB: MYSQL_PWD="$(cat {shlex.quote(str(database.password_file))})" mariadb '
            f"-h {database.host} -P {database.port} -u {database.user} grafana"
        )
    try:
        Event().wait()
    except KeyboardInterrupt:
        say("\nStopping it all.")
