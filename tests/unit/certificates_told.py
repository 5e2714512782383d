"""A host that answers what it was told to, and the certificates that acts find there."""

from contextlib import nullcontext
from dataclasses import replace

from blocks.ssh.command import Answer
from tests.unit.test_certificates_look import (
    CA,
    conf_line,
    issue,
    pair_line,
)

NEW = "ABC"


class Told:
    """A host that notes what it is told; `says` answers commands by a word in them."""

    def __init__(self, says=None, exit_codes=None):
        self.label = self.target = "root@cp1"
        self.says, self.exit_codes = says or {}, exit_codes or {}
        self.changed, self.written = [], {}

    def session(self):
        return nullcontext(self)

    def command_line(self, argv, *, as_root=False):
        return " ".join(argv)

    def put_line(self, path, **options):
        return f"put {path}"

    def put(self, content, path, **options):
        self.written[path] = content

    def _answer(self, argv):
        words = " ".join(argv)
        text = next((text for word, text in self.says.items() if word in words), "")
        code = next((code for word, code in self.exit_codes.items() if word in words), 0)
        if isinstance(text, Exception):
            raise text
        if isinstance(text, list):
            text = text.pop(0) if len(text) > 1 else text[0]
        return Answer(words, self.target, code, text, "")

    def read(self, argv, **options):
        return self._answer(argv)

    def change(self, argv, **options):
        self.changed.append(list(argv))
        return self._answer(argv)


def lines_of(*names, ca=CA):
    """What a look answers where these certificates, signed by `ca`, were just made."""
    told = [pair_line(name, ca) for name in ("ca", "etcd-ca", "front-proxy-ca")]
    for name in names:
        pair = issue(name, ca=ca)
        told.append(conf_line(name, pair) if name.endswith(".conf") else pair_line(name, pair))
    return "\n".join(told)


def work_with(job, **fields):
    return replace(job, work=replace(job.work, **fields))
