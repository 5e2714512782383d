"""Move a Grafana from SQLite to MySQL on a worker, kill it halfway, resume it, prove the result.

Run as `python -m tests.lab.demo`, or `make demo`. Variables, all of which may be empty:

- SOURCE: path of a grafana.db of one's own, of which a copy is moved; made on the spot otherwise.
- TARGET: mysql://USER@HOST:PORT/DATABASE?password_file=PATH, with a schema of Grafana; needs
  SOURCE. A private MariaDB otherwise.
- ACCEPT: names of losses to accept, as the recovery's refusal prints them.
- KEEP: 1 leaves everything up at the end until Ctrl-C.

Exits with 0 only if every check held, 1 if one failed, 2 for a variable that cannot be granted, 5
if the recovery refuses.
"""

import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from urllib.error import URLError

from tests.lab.demo_wish import BadWish, DemoFailed, read_wish, say
from tests.lab.processes import LabError, ServerMissing

FAILED, BAD_WISH, INTERRUPTED = 1, 2, 130
LOOKS = "looks"  # below the work folder: copies that were only looked at
FOREIGN_SETTINGS = ("PREFECT_", "RECOVER_")


def main() -> int:
    """Tell the whole story; return the exit code."""
    try:
        wish = read_wish()
    except BadWish as error:
        say(f"demo: {error}")
        return error.exit_code
    lab = Path.cwd() / ".lab"
    lab.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="demo-", dir=lab))
    isolate(home)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_once)
    code = 0
    try:
        from tests.lab.demo_story import tell  # noqa: PLC0415 (Prefect reads its settings there)

        tell(wish, home)
    except BaseException as error:  # noqa: BLE001 - whatever it is: one line, and the rest in a file
        code, text = outcome_of(error)
        say(f"demo: {text}")
        if code == FAILED:
            (home / "error.log").write_text("".join(traceback.format_exception(error)))
            say(f"demo: everything it started is stopped; logs and journal are in {home}")
    if code != FAILED:
        tidy(home, keep_way_back=bool(wish.target))
    return code


def tidy(home: Path, *, keep_way_back: bool) -> None:
    """Remove the demo's directory, but for the way back of a database that is not the demo's own.

    The dump in the work folder and the journal are all that can put a TARGET back.
    """
    begun = [path for path in (home / "work").glob("*/") if path.name != LOOKS]
    if not (keep_way_back and begun):
        shutil.rmtree(home, ignore_errors=True)
        return
    for path in home.iterdir():
        if path.is_dir() and path.name != "work":
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith(("work", "journal.sqlite")):
            path.unlink()
    say(
        f"demo: the dump of TARGET and the journal are kept in {home}: "
        f"RECOVER_JOURNAL={home}/journal.sqlite RECOVER_WORK_DIR={home}/work recover status"
    )


def outcome_of(error: BaseException) -> tuple[int, str]:
    """Return what a demo that ended early exits with, and one line about it."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "stopped; what it had started is stopped and removed"
    if isinstance(error, ServerMissing):
        return BAD_WISH, f"{error}: install mariadb-server, or run `make setup`, which says how"
    if isinstance(error, DemoFailed):
        return error.exit_code, str(error)
    if isinstance(error, LabError):
        return FAILED, str(error).splitlines()[0]
    if isinstance(error, URLError):
        return FAILED, f"the Prefect server does not answer any more: {error.reason}"
    return FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def isolate(home: Path) -> None:
    """Give this process none of this account's settings of Prefect and of recoveries."""
    for name in [name for name in os.environ if name.startswith(FOREIGN_SETTINGS)]:
        del os.environ[name]
    os.environ.update(
        PREFECT_HOME=str(home / "own"), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1"
    )


def stop_once(_number: int, _frame: FrameType | None) -> None:
    """Stop as for Ctrl-C; a second one must not disturb the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
