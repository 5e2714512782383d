"""A host that has heard of attempts that a journal restored from a backup does not know."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from blocks.ssh import fence as ssh_fence
from blocks.ssh.command import Answer
from blocks.ssh.deadline import Deadline
from recovery.errors import Fenced, Refused
from recovery.journal.opening import open_journal
from recovery.walk import Fence, current_fence
from tests.unit.engine_lab import lab as lab  # noqa: PLC0414 (the fixture)


class Host:
    """This machine in place of a host: the scripts themselves, with the fence in a folder."""

    def __init__(self, folder):
        self.environment = {**os.environ, "RECOVER_FENCE_DIR": str(folder)}

    def __call__(self, script, arguments, by_sudo):
        argv = ["sh", "-c", script, ssh_fence.SAYS, *arguments]
        ran = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        return Answer("fence", "db1", ran.returncode, ran.stdout, ran.stderr)

    def hear_of(self, fence):
        return ssh_fence._raise(fence, self, "db1", Deadline(60), is_root=os.getuid() == 0)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path / "fence")


def journal_of(lab):
    return contextlib.closing(open_journal(str(lab.path)))


def test_who_holds_the_lease_of_a_restored_journal_is_told_so_and_what_to_remove(lab, host):
    with journal_of(lab) as journal:
        folder = host.hear_of(Fence("0123abcd", 12, "lab", journal=journal.identity)).lasting
    one = lab.make("one")
    one.fn = lambda n="": (host.hear_of(current_fence()), lab.there.add("one"))

    refused = lab.run(one)

    assert isinstance(refused.error, Refused), refused.error
    assert "epoch 12 of recovery 0123abcd" in str(refused.error)
    assert "was the journal restored?" in str(refused.error)
    for path in Path(folder).iterdir():
        assert path.name.partition(".")[0] in str(refused.error)
        path.unlink()
    assert lab.run(one, resume=refused.recovery_id).state == "recovered"


def test_who_lost_the_lease_is_fenced_as_ever(lab, host):
    def lose_it(n=""):
        mine = current_fence()
        with journal_of(lab) as journal:
            journal.take_lease("lab", "another", "test", 15, by_force=True)
        host.hear_of(Fence("another", mine.epoch + 1, "lab", journal=mine.journal))
        host.hear_of(mine)

    one = lab.make("one")
    one.fn = lose_it

    with pytest.raises(Fenced):
        lab.run(one)
