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

from tests.lab.demo_wish import BadWish, DemoFailed, read_wish, say
from tests.lab.processes import LabError, ServerMissing

INTERRUPTED = 130
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
    code = 1
    try:
        from tests.lab.demo_story import tell  # noqa: PLC0415 (Prefect reads its settings there)

        tell(wish, home)
        code = 0
    except KeyboardInterrupt:
        say("demo: stopped; what it had started is stopped and removed")
        code = INTERRUPTED
    except ServerMissing as error:
        say(f"demo: {error}: install mariadb-server, or run `make setup`, which says how")
        code = 2
    except DemoFailed as error:
        say(f"demo: {error}")
        code = error.exit_code
        if type(error) is DemoFailed:
            tell_where_logs_are(home)
    except LabError as error:
        say(f"demo: {str(error).splitlines()[0]}")
        (home / "error.log").write_text(str(error))
        tell_where_logs_are(home)
    except Exception as error:  # noqa: BLE001 - whatever it is: one line, and the rest in a file
        say(f"demo: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
        (home / "error.log").write_text(traceback.format_exc())
        tell_where_logs_are(home)
    finally:
        if code != 1:
            shutil.rmtree(home, ignore_errors=True)
    return code


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


def tell_where_logs_are(home: Path) -> None:
    """Point to what a failed demo leaves behind."""
    say(f"demo: everything it started is stopped; logs and journal are in {home}")


if __name__ == "__main__":
    sys.exit(main())
