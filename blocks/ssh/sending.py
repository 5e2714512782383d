"""Sending an order on its way to a host, after the password that sudo will ask for was proven."""

import hashlib
import shlex
from dataclasses import replace

from blocks.ssh.command import Answer, Order, require_exit_code
from blocks.ssh.keeping import Way
from blocks.ssh.running import run_command
from blocks.ssh.sudo import SudoPasswordWrong, verify_argv
from recovery.secrecy.secret import Secret

PROVEN_SECONDS = 300.0


def send(way: Way, order: Order) -> Answer:
    """Carry the order out and return how it ended, whatever its exit code.

    Raises:
        Unreachable: it was not sent.
        AnswerLost: it was sent, but how it ended is not known.
        SudoPasswordWrong: it was not sent, since sudo would not take the password.
        CommandFailed: the server would not run it, or a signal ended it.
    """
    if order.sudo is not None and order.sudo.password is not None:
        never_asks = _never_asks(way, order, order.sudo.password)
        order = replace(order, sudo=replace(order.sudo, never_asks=never_asks))
    with way.channel(order.command, order.deadline) as (connection, channel):
        return run_command(connection, channel, order)


def _never_asks(way: Way, order: Order, password: Secret) -> bool:
    """Whether sudo never asks this account; the password is tried once, before it is needed.

    A wrong one would else be followed by what the command is to read, as if that were meant as
    further tries; and each try counts against the account, so that it is not tried again soon.
    """

    def ask() -> bool | SudoPasswordWrong:
        command = shlex.join(verify_argv())
        question = replace(order, command=command, sent="", stdin=None, is_change=False)
        with way.channel(command, order.deadline) as (connection, channel):
            answer = run_command(connection, channel, question)
        try:
            return require_exit_code(answer, (0,)).times_asked == 0
        except SudoPasswordWrong as wrong:
            return wrong

    name = f"sudo {hashlib.sha256(password.reveal().encode()).hexdigest()}"
    known = way.fact(name, ask, for_seconds=PROVEN_SECONDS)
    if isinstance(known, SudoPasswordWrong):
        raise SudoPasswordWrong(*known.args)
    return known
