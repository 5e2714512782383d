"""Notices whose channel fails, whose server is away, and whose sender was killed: they arrive."""

import asyncio
import threading
import time

import pytest
from prefect.blocks.webhook import Webhook

from operate.orphans import proof
from operate.orphans.watch import Watch
from recovery.journal.events import Kind
from recovery.journal.opening import open_journal
from recovery.notices import loaded_blocks
from recovery.notices.lines import AT_ONCE_MAX, WAITING_MAX, Line, Try
from recovery.notices.loaded_blocks import LoadedBlocks
from tests.lab.processes import wait_until

RECOVERY, RUN = "00000000c0de", "01900000-0000-7000-8000-00000000c0de"
SOON = (0.01,)


class Letter(Try):
    """Something to send, which fails as often as it is told to."""

    def __init__(self, fails=0, waits_for=None):
        super().__init__()
        self.fails, self.waits_for, self.given_up = fails, waits_for, ""

    def send(self):
        if self.waits_for is not None:
            self.waits_for.wait()
        return self.tries >= self.fails

    def give_up(self, why):
        self.given_up = why


def test_what_a_channel_does_not_take_is_tried_again_until_it_does():
    line, letter = Line("post", SOON), Letter(fails=2)

    line.take(letter)

    wait_until(lambda: letter.is_over, "the third try", within_seconds=60)
    assert (letter.tries, letter.given_up) == (3, "")


def test_what_no_channel_takes_is_given_up_and_said_so():
    line, letter = Line("post", (2 * 3600.0,)), Letter(fails=9)

    line.take(letter)

    wait_until(lambda: letter.given_up, "the end of the tries", within_seconds=60)
    assert letter.given_up == "it was tried 1 times"


def test_many_at_once_all_go_out_by_a_few_threads_and_too_many_are_refused():
    gate = threading.Event()
    line, letters = Line("many", SOON), [Letter(waits_for=gate) for _ in range(WAITING_MAX + 1)]
    for letter in letters:
        line.take(letter)
    assert letters[-1].given_up
    threads = [one for one in threading.enumerate() if one.name == "many"]
    assert len(threads) <= AT_ONCE_MAX

    gate.set()

    all_are_over = lambda: all(letter.is_over for letter in letters)  # noqa: E731
    wait_until(all_are_over, "the last of them", within_seconds=60)
    assert [letter.tries for letter in letters[:-1]] == [1] * WAITING_MAX


def test_who_ends_waits_for_two_tries_and_no_longer_than_until_the_deadline():
    line, failing = Line("post", SOON), Letter(fails=2)
    line.take(failing)
    never = Line("post")
    never.take(Letter(waits_for=threading.Event()))

    line.wait(time.monotonic() + 60, 2)
    assert failing.tries >= 2
    assert len(never.wait(0.0, 2)) == 1


def test_a_block_that_was_loaded_serves_while_no_server_answers(monkeypatch):
    monkeypatch.setattr(loaded_blocks, "LOADED_FOR_SECONDS", -1.0)
    answers = [Webhook(url="http://sink.lab")]

    async def load(_name):
        if not answers:
            raise ConnectionError("the server is away")
        return answers.pop()

    blocks = LoadedBlocks(load)
    first = asyncio.run(blocks.get("webhook/ops"))

    again = asyncio.run(blocks.get("webhook/ops"))

    assert again.url == first.url
    assert again is not first  # each sending has a client of its own
    with pytest.raises(ConnectionError):
        asyncio.run(blocks.get("webhook/another"))


@pytest.fixture
def journal(tmp_path, monkeypatch):
    channels = tmp_path / "notifications.yaml"
    channels.write_text("channels: [{block: webhook/ops}]")
    monkeypatch.setenv("RECOVER_NOTIFICATIONS", str(channels))
    monkeypatch.setenv("RECOVER_JOURNAL", str(tmp_path / "journal.sqlite"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(proof, "ON_ITS_WAY_SECONDS", 0.0)
    opened = open_journal()
    lease = opened.take_lease("db", RECOVERY, "host:7", 30.0)
    body = {"flow": "mend", "target": "db", "parameters": {}, "flow_run_id": RUN}
    opened.append(RECOVERY, Kind.OPENED, body, lease=lease)
    opened.append(RECOVERY, Kind.ATTEMPT_STARTED, {"flow_run_id": RUN}, attempt=1, lease=lease)
    opened.release_lease(lease)
    yield opened
    opened.close()


def look_anew():
    """Look twice as a watch that was just started; return what it told."""
    told = []
    watch = Watch({}, notify=lambda text, facts: told.append(text))
    watch.look()
    watch.look()
    watch.close()
    return told


@pytest.mark.parametrize("error", ["", "HTTP 500"], ids=["it arrived", "it failed"])
def test_an_orphan_is_told_again_by_the_next_watch_unless_a_notice_of_it_arrived(journal, error):
    assert len(look_anew()) == 1
    assert len(look_anew()) == 1  # as the one before was killed before it had told anybody

    body = {"channel": "webhook/ops", "occasion": "lost", "error": error}
    journal.append(RECOVERY, Kind.NOTIFIED, body)

    assert len(look_anew()) == bool(error)


def test_without_a_channel_an_orphan_is_in_the_log_once(journal, monkeypatch):
    monkeypatch.delenv("RECOVER_NOTIFICATIONS")

    assert [len(look_anew()), len(look_anew())] == [1, 0]
