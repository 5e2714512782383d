"""Reading from the API on a control-plane host, with the credentials of its admin.conf."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recovery.errors import UnreadableOutput
from tasks.certificates.look import Host
from tasks.certificates.look_lines import Lines
from tasks.certificates.look_script import look_argv

WITHIN_SECONDS = 60.0
OK, UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 200, 401, 403, 404
BY_KUBECTL = {  # what kubectl prints for what the server answered
    "(Unauthorized)": UNAUTHORIZED,
    "You must be logged in": UNAUTHORIZED,
    "(Forbidden)": FORBIDDEN,
    "(NotFound)": NOT_FOUND,
}


@dataclass(frozen=True)
class ApiAnswer:
    """What the API answered: an HTTP status, 0 where there was none, and the text."""

    status: int
    text: str

    def parsed(self) -> dict[str, Any]:
        """The object that was answered.

        Raises:
            UnreadableOutput: it is none.
        """
        try:
            read = json.loads(self.text)
        except ValueError as error:
            raise UnreadableOutput("kubectl get --raw", self.text) from error
        if not isinstance(read, dict):
            raise UnreadableOutput("kubectl get --raw", self.text)
        return read


def ask_api(host: Host, paths: Mapping[str, str]) -> tuple[dict[str, ApiAnswer], Lines]:
    """Get several paths at once; return the answers by name, and all lines of the look.

    Raises:
        Unreachable: the host gave no answer.
        CommandFailed: it does not let us read as root.
    """
    words = [word for name, path in paths.items() for word in ("api", name, path)]
    answer = host.read(look_argv(*words), within_seconds=WITHIN_SECONDS, as_root=True)
    lines = Lines(answer.whole())
    return {name: parse_answer(lines, name) for name in paths}, lines


def parse_answer(lines: Lines, name: str) -> ApiAnswer:
    """Read the answer to one `api` request: from kubectl, or as it came over the wire.

        api:nodes<TAB>0 eyJraW5kIjoi…
        api:nodes<TAB>http SFRUUC8xLjAgMjAwIE9L…

    The first word is kubectl's exit code, or `http`.
    """
    how, _, encoded = lines.one(f"api:{name}").partition(" ")
    text = Lines(f"x\t{encoded}").text("x")
    if how == "http":
        head, _, body = text.replace("\r\n", "\n").partition("\n\n")
        status = re.match(r"HTTP/1\.[01] (\d{3})", head)
        return ApiAnswer(int(status[1]) if status else 0, body)
    if how == "0":
        return ApiAnswer(OK, text)
    status_of = (status for mark, status in BY_KUBECTL.items() if mark in text)
    return ApiAnswer(next(status_of, 0), text)
