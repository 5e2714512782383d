"""Start a program that the kernel asks to end as soon as the process that started it is gone.

Run as a file, without the project: `python -I -S bound.py PARENT_PID PROGRAM [ARGUMENT ...]`.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PARENT_IS_GONE = 3


def main() -> None:
    """Bind this process to its parent, and become the program."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before this was bound to it
        sys.exit(PARENT_IS_GONE)
    os.execvp(command[0], command)  # noqa: S606 (that no shell reads it is the point)


if __name__ == "__main__":
    main()
