"""`make demo` does what it says, on a source of one's own, and leaves nothing behind."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from recovery.evidence.status import verify_journal
from recovery.journal.history import read_history
from recovery.journal.opening import open_journal
from tests.conftest import PROJECT
from tests.lab.cells import compare, tick
from tests.lab.demo_proof import Proof, prove_cells, tables_of_both
from tests.lab.demo_stack import FRACTIONS, Stack
from tests.lab.demo_watch import Watch
from tests.lab.demo_wish import Wish
from tests.lab.grafana_database import make_grafana_database
from tests.lab.ports import accepts_connections
from tests.lab.processes import ServerMissing, find_binary, wait_until

pytestmark = pytest.mark.timeout(600)

DEMO_WITHIN_SECONDS = 300
LOAD = "load_table["


def start(folder, **variables):
    """Start the demo in a folder, as `make demo` does in the clone."""
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.lab.demo"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT), **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def output_of(folder):
    return (folder / "output").read_text()


def wait_for_output(folder, demo, pattern):
    """Wait until the demo says this, or fails."""
    wait_until(
        lambda: re.search(pattern, output_of(folder), re.DOTALL) or demo.poll() is not None,
        f"the demo to say {pattern}",
        within_seconds=DEMO_WITHIN_SECONDS,
        log=folder / "output",
    )
    assert demo.poll() is None, output_of(folder)


def stop(folder, demo):
    """Press Ctrl-C; return the exit code once no process is left that has to do with the folder."""
    demo.send_signal(signal.SIGINT)
    code = demo.wait(60)
    wait_until(lambda: not processes_of(folder), "no process to be left", within_seconds=15)
    return code


def processes_of(folder):
    """Return the commands that run in this folder or name it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()  # empty for what has ended
                place = str((process / "cwd").readlink())
                if command and (str(folder).encode() in command or place.startswith(str(folder))):
                    found.append(command)
    return found


def told(pattern, text):
    """Return what the demo told, by a pattern with one group."""
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in:\n{text}"
    return found.group(1)


@pytest.fixture
def mariadb_is_installed():
    try:
        find_binary("mariadbd")
    except ServerMissing as missing:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"{missing}, and CI must have it", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def source(mariadb_is_installed, tmp_path_factory):
    """A small Grafana of one's own, its last rows in the -wal."""
    path = tmp_path_factory.mktemp("own") / "grafana.db"
    return make_grafana_database(path, dashboards=60, versions_each=2, size_mb=6, in_wal=True)


def target_url(text):
    """Return where the demo's database is, by what it tells a person."""
    host, port, user, database = re.search(
        r"mariadb -h (\S+) -P (\d+) -u (\S+) (\S+)", text
    ).groups()
    (password_file,) = shlex.split(told(r'"\$\(cat (.+?)\)"', text))
    return f"mysql://{user}@{host}:{port}/{database}?password_file={password_file}"


def test_it_moves_kills_resumes_and_proves_and_ends_by_ctrl_c_with_nothing_left(source, tmp_path):
    """Goal: what the demo says of itself is so.

    Method: let it stay up, look at database, journal and papers by other means than its own, and
    alter a cell to see that its proof can fail.
    """
    beside = {path: path.read_bytes() for path in source.path.parent.iterdir()}
    demo = start(tmp_path, SOURCE=str(source.path), KEEP="1")
    try:
        wait_for_output(tmp_path, demo, "stays up until Ctrl-C.*MariaDB: MYSQL_PWD")
        text = output_of(tmp_path)
        stack = Stack(Wish(source.path, "", (), keep=False), tmp_path, source.path, (FRACTIONS,))
        stack.target_url = target_url(text)
        with (
            contextlib.closing(open_journal(told(r"RECOVER_JOURNAL=(\S+)", text))) as journal,
            contextlib.closing(stack.connect()) as target,
        ):
            expect_killed_and_resumed(journal, text)
            expect_awkward_cells(source, target)
            expect_all_cells(source, target, journal, text)
            expect_tables_that_stay_to_be_told(stack, target, journal, text)
            expect_proof_to_fail_for_one_altered_cell(stack, target, journal)
        expect_papers(text)
        address = told(r"UI:      (http://127\.0\.0\.1:\d+)\n", text)
        assert accepts_connections(int(address.rpartition(":")[2]))
    finally:
        code = stop(tmp_path, demo)

    assert code == 0
    left = sorted(path.suffix for path in (tmp_path / ".lab").iterdir())
    assert left == [".gz", ".html"]
    assert {path: path.read_bytes() for path in source.path.parent.iterdir()} == beside


def expect_killed_and_resumed(journal, text):
    """One attempt was killed, the next recovered, and only the table in flight was loaded twice."""
    (recovery_id,) = journal.recovery_ids()
    events = journal.events(recovery_id)
    first, second = read_history(events).attempts
    assert (first.ended_as, second.ended_as) == ("lost", "recovered")
    assert first.flow_run_id == second.flow_run_id
    assert first.worker.rpartition(":")[2] == told(r"kill -9 (\d+)", text) != second.worker
    assert verify_journal(journal) == {recovery_id: []}

    begun = [
        {e.step for e in events if e.attempt == n and e.kind == "intended" and LOAD in e.step}
        for n in (1, 2)
    ]
    assert begun[0]
    assert begun[1]
    assert all(f"journal: {step} was intended" in text for step in begun[0] & begun[1])
    assert len(begun[0] & begun[1]) <= 1


def expect_awkward_cells(source, target):
    """Every awkward cell is in the target as it should be."""
    for name, planted in source.awkward.items():
        where = " AND ".join(f"{tick(column)} = %s" for column in planted.key)
        with target.cursor() as cursor:
            cursor.execute(
                f"SELECT {tick(planted.column)} FROM {tick(planted.table)} WHERE {where}",  # noqa: S608
                tuple(planted.key.values()),
            )
            ((stored,),) = cursor.fetchall()
        assert as_bytes(stored) in set(map(as_bytes, planted.acceptable)), name


def as_bytes(value):
    return value if value is None or isinstance(value, bytes) else str(value).encode()


def expect_all_cells(source, target, journal, text):
    """Every cell of every table that was loaded is equal, and all were counted."""
    (recovery_id,) = journal.recovery_ids()
    steps = read_history(journal.events(recovery_id)).steps
    tables = [key[len(LOAD) : -1] for key in steps if key.startswith(LOAD)]
    found = compare(source.path, target, tables, tolerate=[FRACTIONS])
    assert found.differences == []
    assert len(tables) > 50
    assert f"{found.cells} cells in {found.rows} rows of {len(tables)} tables compared" in text


def expect_proof_to_fail_for_one_altered_cell(stack, target, journal):
    """The proof holds, and does not once a single blank was added somewhere."""
    (recovery_id,) = journal.recovery_ids()
    watch = Watch(stack, journal, recovery_id, "")
    watch.look()
    before, after = Proof(), Proof()
    prove_cells(before, stack, watch)
    with target.cursor() as cursor:
        assert cursor.execute("UPDATE org SET name = CONCAT(name, ' ') WHERE id = 1") == 1
    prove_cells(after, stack, watch)
    assert before.failed == []
    assert after.failed == ["every cell of what was moved is the same on both sides"]


def expect_tables_that_stay_to_be_told(stack, target, journal, text):
    """What both sides have was moved or is named; the proof fails for one that is not named."""
    (recovery_id,) = journal.recovery_ids()
    steps = read_history(journal.events(recovery_id)).steps
    moved = {key[len(LOAD) : -1] for key in steps if key.startswith(LOAD)}
    stay = set(tables_of_both(stack, target)) - moved
    assert set(re.findall(r"not moved: (\w+): \w", text)) == stay
    assert {"cache_data", "migration_log", "user_auth_token"} <= stay
    assert f"Moved {len(moved)} of the {len(moved) + len(stay)} tables that both" in text
    watch = Watch(stack, journal, recovery_id, "")
    watch.look()
    untold = [
        replace(event, body_text=event.body_text.replace('"cache_data":', '"cache_date":'))
        for event in watch.events
    ]
    watch.events = untold
    proof = Proof()
    prove_cells(proof, stack, watch)
    assert proof.failed == [
        "every table that both sides have was moved, or is named with why it is not"
    ]


def expect_papers(text):
    """Report and bundle lie where it says."""
    page = Path(told(r"report: (\S+)", text)).read_text()
    assert "<svg" in page
    assert not re.search(r"""(?:src|href)=["']?https?://""", page)
    with tarfile.open(told(r"bundle: (\S+)", text)) as archive:
        assert any(name.endswith("SHA256SUMS") for name in archive.getnames())


def test_ctrl_c_in_the_middle_stops_and_removes_everything(source, tmp_path):
    demo = start(tmp_path, SOURCE=str(source.path))
    wait_for_output(tmp_path, demo, r"attempt 1 by process .* load_table\[")
    assert len(processes_of(tmp_path)) > 3

    code = stop(tmp_path, demo)

    assert code == 130
    assert list((tmp_path / ".lab").iterdir()) == []


def test_a_loss_that_nobody_accepted_is_a_refusal_and_exit_code_5(mariadb_is_installed, tmp_path):
    source = tmp_path / "lossy.db"
    make_grafana_database(source, dashboards=5, lossy=["invalid-date"])

    demo = start(tmp_path, SOURCE=str(source))

    assert demo.wait(DEMO_WITHIN_SECONDS) == 5
    assert re.search(r"(?m)^refused: .*invalid-date:dashboard.updated", output_of(tmp_path))
    assert list((tmp_path / ".lab").iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SOURCE": "/nowhere/grafana.db"}, "SOURCE: there is no /nowhere/grafana.db"),
        ({"SOURCE": "/"}, "SOURCE: / is no file"),
        ({"SOURCE": __file__}, "is no database of SQLite"),
        ({"SOURCE": "ssh://host/grafana.db"}, "is no path of a file on this machine"),
        ({"TARGET": "mysql://root@db/grafana"}, "TARGET: wants a SOURCE too"),
        ({"TARGET": "grafana"}, "TARGET: write mysql://"),
    ],
    ids=["missing", "folder", "no database", "remote", "target alone", "no url"],
)
def test_a_variable_that_cannot_be_granted_is_one_line_and_exit_code_2(
    variables, message, tmp_path
):
    code = start(tmp_path, **variables).wait(60)

    assert code == 2
    assert message in output_of(tmp_path)
    assert len(output_of(tmp_path).splitlines()) == 1
    assert not (tmp_path / ".lab").exists()
