"""What is read of a host before and after a reboot."""

import pytest

from recovery.errors import UnreadableOutput
from tasks.reboot import Boot, parse_boot
from tasks.reboot_hazards import options_of_root, parse_inhibitors, parse_locks

BOOT = "9f1c8a52-5f0d-4d5b-8f5e-2f8f4f6f1d2a"
MOUNTS = """\
rootfs / rootfs rw 0 0
proc /proc proc rw,nosuid 0 0
/dev/vda1 / ext4 ro,relatime,errors=remount-ro 0 0
/dev/vdb1 /data ext4 rw 0 0
"""


def test_a_boot_is_read_with_its_uptime():
    assert parse_boot(f"{BOOT}\n52.31 98.20\n") == (BOOT, 52.31)


@pytest.mark.parametrize("printed", ["", BOOT, f"{BOOT}\nsoon\n", "no-uuid\n52.31 98.20\n"])
def test_what_is_no_boot_is_not_taken_for_one(printed):
    with pytest.raises(UnreadableOutput):
        parse_boot(printed)


def test_a_boot_stands_in_the_journal_as_it_is():
    assert not hasattr(Boot, "label")  # it would stand there for all of it


def test_locks_against_a_shutdown_are_read_whatever_their_names_hold():
    printed = r'a(ssssuu) 2 "shutdown:sleep" "it\'s \"me\"" "back up $x" "block" 0 58 '
    printed += '"sleep" "b" "" "delay" 1000 7\n'

    assert parse_inhibitors(printed) == [
        ("shutdown:sleep", 'it\'s "me"', "back up $x", "block"),
        ("sleep", "b", "", "delay"),
    ]
    assert parse_inhibitors("a(ssssuu) 0\n") == []


@pytest.mark.parametrize(
    "printed",
    ["", "a(ssssuu)", 'a(ssssuu) 1 "shutdown"', "a(ss) 0", 'a(ssssuu) x "a"', 'a(ssssuu) 1 "a'],
)
def test_what_is_no_list_of_locks_is_not_an_empty_one(printed):
    with pytest.raises(UnreadableOutput):
        parse_inhibitors(printed)


def test_the_root_that_counts_is_the_one_mounted_last():
    assert options_of_root(MOUNTS) == ["ro", "relatime", "errors=remount-ro"]
    assert options_of_root("# / is not here\n") == ()


def test_the_lock_of_a_package_tool_is_found_by_its_inode_and_one_that_waits_holds_none():
    files = "5311774 /var/lib/dpkg/lock-frontend\n5311775 /var/lib/dpkg/lock\n\n"
    locks = (
        "1: OFDLCK ADVISORY  WRITE -1 fe:00:1515618 0 EOF\n"
        "2: POSIX  ADVISORY  WRITE 83 00:3b:5311774 0 EOF\n"
        "2: -> POSIX  ADVISORY  WRITE 99 00:3b:5311774 0 EOF\n"
    )

    assert parse_locks(files + locks) == [("/var/lib/dpkg/lock-frontend", 83)]
    assert parse_locks("\n" + locks) == []
    assert parse_locks("\n") == []


def test_what_are_no_locks_is_not_none():
    with pytest.raises(UnreadableOutput):
        parse_locks("1 /x\n\ngarbage\n")
