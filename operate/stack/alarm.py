"""Tell people what became of a part of the stack, by the channels of RECOVER_NOTIFICATIONS.

Run once, as a module, in the surroundings of the stack: its server keeps the channels.
"""

import sys

from recovery.notices.notice import Notice, Occasion
from recovery.notices.sending import notify, wait_until_sent


def main() -> None:
    """Send the text that is the one argument."""
    notify(Notice(Occasion.ALARM, sys.argv[1], next_command="recover doctor"))
    wait_until_sent()


if __name__ == "__main__":
    main()
