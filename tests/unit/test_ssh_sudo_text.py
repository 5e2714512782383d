"""What sudo says and asks, told from what the command says."""

import pytest

from blocks.ssh.command import Answer, require_exit_code
from blocks.ssh.sudo import PROMPT, Prompts, SudoRefused, refusal_of, sudo_argv
from recovery.errors import CommandFailed

# sudo 1.9.13p3 of Debian 12, and 1.8.23 where it says so.
REFUSALS = {
    "sudo: a password is required\n": "NOPASSWD",
    "sudo: unable to resolve host db1: Name or service not known\nsudo: a password is required\n": (
        "NOPASSWD"
    ),
    "sudo: sorry, you must have a tty to run sudo\n": "requiretty",  # 1.8.23
    "guest is not in the sudoers file.\nThis incident has been reported to the administrator.\n": (
        "a line in sudoers"
    ),
    "guest is not in the sudoers file.  This incident will be reported.\n": "a line in sudoers",
    "Sorry, user guest is not allowed to execute '/usr/bin/id' as root on h1.\n": (
        "exactly this command"
    ),
    "Sorry, user guest may not run sudo on h1.\n": "a line in sudoers",
    "sudo: account validation failure, is your account locked?\n": "locked or expired",
    "sudo: /etc/sudo.conf is owned by uid 1000, should be 0\n": "See what sudo says",
    "sudo: ein Passwort ist notwendig\n": "See what sudo says",
}


@pytest.mark.parametrize("said", REFUSALS)
@pytest.mark.parametrize("accept", [(0,), (0, 1)])
def test_a_refusal_is_named_with_its_remedy_whatever_is_accepted(said, accept):
    answer = Answer("sudo -n -- id", "db1", 1, "", said, is_through_sudo=True)

    with pytest.raises(SudoRefused) as refused:
        require_exit_code(answer, accept)

    assert REFUSALS[said] in refused.value.remedy


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        ("", ""),
        ("", "grep: nonesuch\n"),
        ("", "sudo: unable to resolve host db1: Name or service not known\n"),
        ("found\n", "sudo: a password is required\n"),
    ],
)
def test_what_the_command_itself_says_is_its_answer(stdout, stderr):
    answer = Answer("sudo -n -- grep x", "db1", 1, stdout, stderr, is_through_sudo=True)

    assert require_exit_code(answer, (0, 1)) is answer


def test_the_same_words_without_sudo_are_the_command_s_own():
    answer = Answer("x", "db1", 1, "", "sudo: a password is required\n")

    assert require_exit_code(answer, (0, 1)) is answer


def test_a_program_that_sudo_does_not_find_is_missing_and_no_refusal():
    error = refusal_of("db1", "sudo -n -- x", 1, "", "sudo: x: command not found\n")

    assert type(error) is CommandFailed
    assert "Install what is missing" in str(error)


def test_to_be_asked_again_means_that_the_password_was_wrong():
    said = "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt\n"

    error = refusal_of("db1", "sudo -k -S -- x", 1, "", said, times_asked=2)

    assert isinstance(error, SudoRefused)
    assert "sudo_password_file" in error.remedy


def test_the_command_stands_behind_the_options_of_sudo():
    assert sudo_argv(["-x", "y"], with_password=False) == ["sudo", "-n", "--", "-x", "y"]
    assert sudo_argv(["x"], with_password=True) == ["sudo", "-k", "-S", "-p", PROMPT, "--", "x"]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_prompts_are_taken_out_however_the_stream_is_cut(size):
    stream = f"lecture\n{PROMPT}warning\n{PROMPT}{PROMPT[:5]}".encode()
    prompts = Prompts()

    text = b"".join(prompts.without(stream[n : n + size]) for n in range(0, len(stream), size))
    text += prompts.rest()

    assert text.decode() == f"lecture\nwarning\n{PROMPT[:5]}"
    assert prompts.seen == 2
