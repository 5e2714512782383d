"""What a demo is asked for, how it talks, and the ways in which it fails."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NO = frozenset({"", "0", "no", "false", "off"})
TARGET_SCHEME = "mysql://"
SQLITE_MARK = b"SQLite format 3\0"


class DemoFailed(Exception):
    """Something did not go as a recovery promises; the text is for people."""

    exit_code = 1


class TooQuick(DemoFailed):
    """It was recovered before it could be killed: nothing failed, and less was shown."""

    exit_code = 0


class BadWish(DemoFailed):
    """A variable asks for what cannot be done; nothing was started or changed for it."""

    exit_code = 2


class DemoRefused(DemoFailed):
    """The recovery refuses to move this source to this target, and says why."""

    exit_code = 5


@dataclass(frozen=True)
class Wish:
    """What the variables ask for.

    Attributes:
        source: a grafana.db to move a copy of; `None` for one made on the spot.
        target: the URL of a MySQL database; empty for a private one.
        accept: names of losses to accept, as the recovery's refusal prints them.
        keep: leave everything up at the end until Ctrl-C.
    """

    source: Path | None
    target: str
    accept: tuple[str, ...]
    keep: bool


def read_wish(variables: Mapping[str, str] = os.environ) -> Wish:
    """Read SOURCE, TARGET, ACCEPT and KEEP.

    Raises:
        BadWish: one of them cannot be granted.
    """
    given = {name: variables.get(name, "").strip() for name in ("SOURCE", "TARGET", "ACCEPT")}
    source = Path(given["SOURCE"]).expanduser().absolute() if given["SOURCE"] else None
    if source is not None:
        if "://" in given["SOURCE"]:
            raise BadWish(f"SOURCE: {given['SOURCE']} is no path of a file on this machine")
        if not source.exists():
            raise BadWish(f"SOURCE: there is no {source}")
        if not source.is_file():
            raise BadWish(f"SOURCE: {source} is no file")
        if not os.access(source, os.R_OK):
            raise BadWish(f"SOURCE: {source} cannot be read by this account")
        with source.open("rb") as file:
            if file.read(len(SQLITE_MARK)) != SQLITE_MARK:
                raise BadWish(f"SOURCE: {source} is no database of SQLite")
    if given["TARGET"] and not given["TARGET"].startswith(TARGET_SCHEME):
        raise BadWish("TARGET: write mysql://USER@HOST:PORT/DATABASE?password_file=PATH")
    if given["TARGET"] and source is None:
        raise BadWish("TARGET: wants a SOURCE too, or made-up rows would replace those it holds")
    accept = tuple(given["ACCEPT"].replace(",", " ").split())
    return Wish(source, given["TARGET"], accept, variables.get("KEEP", "").lower() not in NO)


def say(text: str = "") -> None:
    """Print one line at once, whole, also from several threads."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def headline(text: str) -> None:
    """Begin a part of the story."""
    say(f"\n== {text}")
