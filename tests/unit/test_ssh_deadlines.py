"""Limits in time for commands on many hosts at once."""

import threading

from blocks.ssh.deadline import Deadline, called_at


def test_a_call_at_a_deadline_that_hangs_keeps_no_other_from_its_own():
    hangs, is_called, rung = threading.Event(), threading.Event(), threading.Event()

    def hang():
        is_called.set()
        hangs.wait()

    with called_at(Deadline(0.0), hang):
        assert is_called.wait(30)
        with called_at(Deadline(0.0), rung.set):
            assert rung.wait(30)
    hangs.set()
