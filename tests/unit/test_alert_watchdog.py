"""The silence of the watchdog is told, whatever clocks and restarts do."""

from tests.unit.alert_desks import desk as desk  # noqa: PLC0414 (the fixture)


def test_the_silence_of_the_watchdog_is_told_once_an_hour_and_its_return_too(desk):
    desk.post("Watchdog")
    desk.work(after=500)
    assert not desk.told

    for _ in range(3):
        desk.work(after=200)
    desk.restart()
    desk.work(after=700)
    assert [notice.severity for notice in desk.told] == ["critical"]
    desk.work(after=3600)
    desk.work(after=1)
    assert [notice.severity for notice in desk.told] == ["critical"] * 2

    desk.post("Watchdog")
    desk.work(after=1)
    desk.work(after=1)

    assert [notice.severity for notice in desk.told] == ["critical", "critical", "info"]
    assert not desk.started


def test_a_watchdog_that_was_never_heard_is_told_too(desk):
    desk.work(after=601)

    assert [notice.subject for notice in desk.told] == ["the watchdog is silent"]


def test_a_receiver_that_restarts_again_and_again_still_hears_the_silence(desk):
    for _ in range(7):
        desk.work(after=100)
        desk.restart()
    desk.work()

    assert [notice.subject for notice in desk.told] == ["the watchdog is silent"]


def test_a_receiver_that_was_away_gives_the_watchdog_its_whole_interval(desk):
    desk.post("Watchdog")
    desk.work()
    desk.now += 5000
    desk.restart()

    desk.work(after=500)

    assert not desk.told


def test_a_clock_that_was_put_back_does_not_put_off_the_silence(desk):
    desk.post("Watchdog")
    desk.work()

    desk.work(after=-5000)
    desk.work(after=601)

    assert [notice.subject for notice in desk.told] == ["the watchdog is silent"]
