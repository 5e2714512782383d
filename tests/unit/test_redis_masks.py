"""Passwords that stand in logs and start commands of Redis, masked by sed as on the host."""

import shutil
import subprocess

import pytest

from tasks.redis_server.logs import SECRETS
from tasks.redis_server.units import MASK

SECRET = "hunter2"  # noqa: S105 (made up)


def masked(script, line):
    sed = shutil.which("sed")
    return subprocess.run([sed, "-E", script], input=line, text=True, capture_output=True,
                          check=True).stdout  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        'REQUIREPASS "hunter2 one" oops',
        'requirepass "it\'s-hunter2" x',
        "requirepass\thunter2 x",
        "requirepas hunter2",
        'masterauth "abc\'hunter2"',
        "tls-key-file-pass hunter2",
        "tls-client-key-file-pass hunter2",
        "user default on >hunter2",
        "  USER\tx on #hunter2 ~*",
        "sentinel auth-pass divoc hunter2",
    ],
)
def test_a_wrong_line_of_the_configuration_shows_no_password(line):
    seen = masked(SECRETS, f"1795240446.5 lab redis-server[84]: >>> '{line}'")

    assert SECRET not in seen
    assert line.split()[0] in seen


@pytest.mark.parametrize(
    "line",
    [
        ">>> 'appendonly yess'",
        "84:M * User requested shutdown...",
        "84:M # Failed opening the temp RDB file x for saving: Permission denied",
    ],
)
def test_other_lines_of_the_log_are_left_as_they_are(line):
    assert masked(SECRETS, line) == line


@pytest.mark.parametrize(
    "options",
    [
        "--requirepass first second-hunter2",
        "--requirepass ab;hunter2 cd",
        "--REQUIREPASS hunter2",
        "--masterauth=hunter2",
        "--tls-key-file-pass hunter2",
        "--user default on >hunter2 ~* +@all",
        "--sentinel auth-pass divoc hunter2",
    ],
)
def test_a_start_command_shows_no_password_and_every_other_option(options):
    shown = (
        f"ExecStart={{ argv[]=/usr/bin/redis-server --dir /d {options} --port 1 ; ignore_errors=no"
    )

    seen = masked(MASK, shown)

    assert SECRET not in seen
    assert "--dir /d --" in seen
    assert seen.endswith("*** --port 1 ; ignore_errors=no")


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        ("/bin/redis-cli -a hunter2 shutdown NOSAVE", "NOSAVE"),
        ("/bin/redis-cli -a hunter2 shutdown", ""),
        ("/bin/kill -s KILL $MAINPID", "kill -s KILL"),
        ("/bin/kill -s TERM $MAINPID", ""),
    ],
)
def test_of_a_stop_command_only_what_loses_data_is_shown(command, seen):
    assert masked(MASK, f"ExecStop={{ argv[]={command} ; ignore_errors=no }}") == f"ExecStop={seen}"
