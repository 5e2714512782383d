"""What time daemons said of real clocks: captured from chrony 4.3, systemd 252 and ntpsec 1.2.2."""

from pathlib import Path

import pytest

from recovery.errors import UnreadableOutput
from tasks.clocks.daemons import DaemonKind, parse_daemons
from tasks.clocks.sources import (
    Following,
    Source,
    parse_chrony,
    parse_ntpq,
    parse_timesync_status,
)

CAPTURED = Path(__file__).parent / "captured_clocks"
FOLLOWED = Source("10.0.2.2", is_reached=True, is_followed=True)


def captured(name):
    return (CAPTURED / f"{name}.txt").read_text()


def chrony(tracking, sources):
    return parse_chrony(
        captured(f"chronyc-4.3-tracking-{tracking}"), captured(f"chronyc-4.3-sources-{sources}")
    )


def test_chronyd_that_follows_a_source_says_how_far_off_it_believes_the_clock_to_be():
    right = chrony("synchronised", "v-synchronised")
    fast = chrony("30-s-fast", "v-synchronised")

    assert right == Following((FOLLOWED,), -0.211311862)
    assert fast.ahead_seconds == 29.608789444
    assert fast.has_source  # and "Leap status: Normal", of a clock 30 s off
    assert chrony("after-makestep", "v-synchronised").ahead_seconds == -0.000002727


@pytest.mark.parametrize(
    ("tracking", "sources", "reached"),
    [
        ("just-started", "just-started", [False]),
        ("unreachable", "v-unreachable", [False, False]),
        ("just-started", "offline", [False]),
    ],
)
def test_chronyd_without_a_source_believes_nothing(tracking, sources, reached):
    found = chrony(tracking, sources)

    assert found.ahead_seconds is None
    assert not found.has_source
    assert [source.is_reached for source in found.sources] == reached


def test_all_standings_of_a_source_are_told_apart():
    table = captured("chronyc-4.3-sources-v-synchronised").rpartition("===\n")[0] + "===\n"
    rows = [
        "#* PPS0                          0   4   377    11    +12ns[  +40ns] +/-  134ns",
        "^+ ntp1.example.net              2  10   377   417   -120us[ -121us] +/- 9000us",
        "^x 2001:db8::1                   2   6    17    23     +2s [   +2s ] +/-   10ms",
        "=? peer.example.net              0   6     0     -     +0ns[   +0ns] +/-    0ns",
    ]

    found = parse_chrony(captured("chronyc-4.3-tracking-synchronised"), table + "\n".join(rows))

    assert [str(source.name) for source in found.sources] == [
        "PPS0",
        "ntp1.example.net",
        "2001:db8::1",
        "peer.example.net",
    ]
    assert str(found) == (
        "PPS0 (followed), ntp1.example.net (answers, not followed), "
        "2001:db8::1 (answers, not followed), peer.example.net (does not answer)"
    )


@pytest.mark.parametrize(
    ("tracking", "sources"),
    [
        ("", "chronyc-4.3-sources-offline"),
        ("timedatectl-252-status", "chronyc-4.3-sources-offline"),
        ("chronyc-4.3-tracking-synchronised", ""),
        ("chronyc-4.3-tracking-synchronised", "timedatectl-252-status"),
    ],
)
def test_what_chronyc_does_not_print_is_not_read_as_a_clock_without_sources(tracking, sources):
    with pytest.raises(UnreadableOutput):
        parse_chrony(tracking and captured(tracking), sources and captured(sources))


def test_timesyncd_follows_the_server_that_has_answered():
    found = parse_timesync_status(captured("timedatectl-252-timesync-status-synchronised"))

    assert found == Following((Source("10.0.2.2 (10.0.2.2)", is_reached=True, is_followed=True),))


def test_the_offset_that_timesyncd_shows_is_not_taken_for_that_of_the_clock():
    found = parse_timesync_status(captured("timedatectl-252-timesync-status-was-30-s-fast"))

    assert found.ahead_seconds is None  # it stepped the clock when it saw this


def test_timesyncd_whose_server_does_not_answer_follows_nothing():
    found = parse_timesync_status(captured("timedatectl-252-timesync-status-unreachable"))

    assert not found.has_source
    assert str(found) == "10.0.2.77 (10.0.2.77) (does not answer)"
    assert not parse_timesync_status("").sources
    assert not parse_timesync_status("       Server: n/a\n Packet count: 0\n").sources


def test_what_timedatectl_does_not_print_is_no_state():
    with pytest.raises(UnreadableOutput):
        parse_timesync_status(captured("timedatectl-252-status"))


def test_ntpd_that_follows_a_source_says_by_how_much_the_clock_is_ahead():
    found = parse_ntpq(captured("ntpq-ntpsec-1.2.2-pn-synchronised"))

    assert found.sources == (FOLLOWED, Source("10.0.2.77", is_reached=False, is_followed=False))
    assert found.ahead_seconds == pytest.approx(0.0000957)


def test_ntpd_follows_nobody_while_the_clock_is_far_off():
    found = parse_ntpq(captured("ntpq-ntpsec-1.2.2-pn-20-s-fast"))

    assert [source.is_reached for source in found.sources] == [True, False]
    assert not found.has_source
    assert not parse_ntpq(captured("ntpq-ntpsec-1.2.2-pn-unresolved")).has_source


def test_an_ntpq_that_finds_no_ntpd_ends_with_0_and_is_no_table():
    with pytest.raises(UnreadableOutput):
        parse_ntpq(captured("ntpq-ntpsec-1.2.2-pn-not-running"))
    with pytest.raises(UnreadableOutput):
        parse_ntpq("     remote  refid st t when poll reach delay offset jitter\n====\nshort row\n")
    assert not parse_ntpq("").sources
    assert not parse_ntpq("No association ID's returned\n").sources


def test_each_daemon_is_found_once_by_the_name_its_system_gives_it():
    found = parse_daemons(captured("systemctl-252-show-daemons"))

    assert [(each.unit, each.kind, each.is_active, each.starts_at_boot) for each in found] == [
        ("chrony.service", DaemonKind.CHRONYD, True, False),
        ("systemd-timesyncd.service", DaemonKind.TIMESYNCD, False, False),
    ]


def test_an_alias_is_no_second_daemon_and_a_masked_one_is_told_as_such():
    blocks = captured("systemctl-252-show-daemons").strip().split("\n\n")
    enabled = blocks[1].replace("disabled", "enabled")
    masked = blocks[2].replace("LoadState=loaded", "LoadState=masked")

    chronyd, timesyncd = parse_daemons("\n\n".join([enabled, enabled, masked, *blocks[3:]]))

    assert chronyd.starts_at_boot
    assert timesyncd.is_masked
    assert str(chronyd) == "chrony.service (runs, starts at boot)"
    assert str(timesyncd) == "systemd-timesyncd.service (masked)"


def test_a_block_that_is_missing_is_no_daemon_that_is():
    with pytest.raises(UnreadableOutput):
        parse_daemons(captured("systemctl-252-show-daemons").partition("\n\n")[2])
