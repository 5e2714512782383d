"""What is known to be secret, and taking it out of text in every form it may have been written in.

A secret seldom reaches a log as it was typed: a tool prints it JSON-escaped, a URL percent-encodes
it, an authorization header holds it in base64 behind a user name. So each registered value is
written out once in all these forms, and text is searched for the forms, as bytes. The search is
exact; what makes it fast is that text is first sampled in words of four or eight bytes, spaced so
that no form can lie between two samples, and only forms that share a word are looked for.

Not seen: base64 broken into lines inside the secret, and whatever is compressed or encrypted.
"""

import base64
import html
import json
import re
import struct
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import quote

MASK = "***"
_SHORT_CHARACTERS = 4  # shorter secrets are part of too many words
_HEAD_BYTES = 4
_LINE_CHARACTERS = 8  # shorter lines of a longer secret likewise
_NESTED_CHARACTERS = 512  # longer values are not written out in forms of forms
_WORDS = {8: (8, "Q"), 4: (4, "I"), 1: (4, "I")}  # bytes between samples: their width and code
_LONG_BYTES = 15  # any run of 15 bytes holds a word of 8 that starts at a multiple of 8
_MIDDLE_BYTES = 7  # and any run of 7 one of 4 that starts at a multiple of 4
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE = str.maketrans("+/", "-_")
_PEM_ARMOUR = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----")  # says what it is, not what it holds
_WHOLE_WORD = rb"(?<![\w\x80-\xff])(?:%s)(?![\w\x80-\xff])"
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_UNICODE_ESCAPE = re.compile(r"(?<=\\u)[0-9a-f]{4}")

Edges = tuple[frozenset[int], frozenset[int]]  # what may stand left and right of base64 for it
Span = tuple[int, int]
Writer = Callable[[str], str]
_NO_EDGES: Edges = (frozenset(), frozenset())
# How seldom a byte is in ordinary output: forms are sampled where they are least like it.
_COMMON, _FAIRLY_COMMON = b"abcdefghijklmnopqrstuvwxyz -_./:", b"0123456789"
_RARITY = bytes((b not in _COMMON) + (b not in _COMMON + _FAIRLY_COMMON) for b in range(256))


class Unprintable:
    """A value that shows as the mask; what redaction knows of `Secret`."""

    __slots__ = ()


def _escaping(escapes: Mapping[str, str]) -> Writer:
    table = str.maketrans(dict(escapes))
    return lambda text: text.translate(table)


def _percent(safe: str, blank: str = "%20") -> Writer:
    return lambda text: quote(text, safe=safe, errors="surrogatepass").replace("%20", blank)


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _json_unicode(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _repr(text: str) -> str:
    return repr("'\"" + text)[4:-1]  # with both quotes in it, repr escapes the single one


def _single_quotes_bare(text: str) -> str:
    return text.replace("\\'", "'")


def _applied(writers: Iterable[Writer], values: Iterable[str]) -> set[str]:
    return {write(value) for value in values for write in writers}


_PERCENT_WRITERS = (
    _percent(""),
    _percent("/"),
    _percent("", "+"),
    _percent("*", "+"),  # HTML forms
    _percent("!'()*"),  # encodeURIComponent
    _percent("$&+,/:;=@"),  # Go's net/url
    _percent("!#$%&'()*+,/:;=?@[]~"),  # what requests does to a URL it is given
)
_NESTING_WRITERS: tuple[Writer, ...] = (  # what is applied to text that is already escaped
    lambda text: text,
    _json,
    _json_unicode,
    _repr,
    lambda text: _single_quotes_bare(_repr(text)),
    _percent(""),
    _percent("/"),
    _percent("", "+"),
    html.escape,
    lambda text: text.replace("'", "'\"'\"'"),  # shlex.quote
)
_WRITERS: tuple[Writer, ...] = (
    *_NESTING_WRITERS,
    *_PERCENT_WRITERS,
    *(
        lambda text, write=write: _PERCENT.sub(lambda found: found[0].lower(), write(text))
        for write in _PERCENT_WRITERS
    ),
    lambda text: _UNICODE_ESCAPE.sub(lambda found: found[0].upper(), _json(text)),
    lambda text: _json_unicode(text).replace("/", "\\/"),
    lambda text: _escaping({c: f"\\u{ord(c):04x}" for c in "<>&"})(_json_unicode(text)),  # Go
    lambda text: ascii("'\"" + text)[4:-1],
    lambda text: _single_quotes_bare(ascii("'\"" + text)[4:-1]),
    lambda text: repr(b"'\"" + _bytes_of(text))[5:-1],
    lambda text: _single_quotes_bare(repr(b"'\"" + _bytes_of(text))[5:-1]),
    _escaping({"'": "'\\''"}),
    _escaping({c: "\\" + c for c in '\\"$`'}),  # in double quotes
    _escaping({c: "\\" + c for c in '\\"$`!'}),
    lambda text: re.sub(r"([^\w@%+=:,./-])", r"\\\1", text, flags=re.ASCII),  # printf %q
    *(_escaping({c: c + c}) for c in "'\"`\\"),  # SQL
    *(_escaping({"\\": "\\\\", "'": escape}) for escape in ("''", "\\'")),
    _escaping({c: "\\" + e for c, e in zip("\0\n\r\032\\'\"", "0nrZ\\'\"", strict=True)}),  # MySQL
    lambda text: html.escape(text, quote=False),
    *(
        _escaping({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': double, "'": single})
        for double, single in (("&#34;", "&#39;"), ("&quot;", "&#39;"), ("&quot;", "&apos;"))
    ),
)
_IN_BASE64_WRITERS = (lambda text: text, _json, _json_unicode, _percent(""), _percent("", "+"))
_OF_BASE64_WRITERS: tuple[Writer, ...] = (
    lambda text: text,
    lambda text: text.translate(_URL_SAFE),
    lambda text: text.replace("/", "\\/"),
    _percent(""),
    lambda text: _percent("")(text).replace("%2B", "%2b").replace("%2F", "%2f"),
)


def _either_alphabet(character: int, free_bits: int) -> frozenset[int]:
    """All characters of base64 that differ from one in no bits but the free ones."""
    fixed = _ALPHABET.index(character) & ~free_bits
    letters = bytes(_ALPHABET[n] for n in range(64) if n & ~free_bits == fixed)
    return frozenset(letters) | frozenset(letters.replace(b"+", b"-").replace(b"/", b"_"))


def _base64_cores(data: bytes) -> Iterator[tuple[str, Edges]]:
    """The characters that stand in base64 for nothing but `data`, wherever in the input it lies."""
    for offset in range(3):
        foreign_bits, own_bits = offset * 8 % 6, (offset + len(data)) * 8 % 6
        first, last = -(-offset * 8 // 6), (offset + len(data)) * 8 // 6
        encoded = base64.b64encode(b"\0" * offset + data + b"\0" * 3)
        left = right = frozenset[int]()
        if foreign_bits:
            left = _either_alphabet(encoded[first - 1], 0b111111 & ~(0b111111 >> foreign_bits))
        if own_bits:
            right = _either_alphabet(encoded[last], 0b111111 >> own_bits)
        yield encoded[first:last].decode(), (left, right)


@lru_cache(maxsize=8192)
def _forms_of(text: str) -> Mapping[bytes, Edges]:
    """Every way `text` may have been written, and what base64 may have beside it."""
    is_long = len(text) > _NESTED_CHARACTERS
    once = _applied(_WRITERS, [text])
    twice = _applied(_NESTING_WRITERS, [_json(text), _percent("")(text)] if is_long else once)
    forms = dict.fromkeys(map(_bytes_of, once | twice), _NO_EDGES)
    inner = {_bytes_of(form) for form in _applied(_IN_BASE64_WRITERS, [text])}
    inner |= {text.encode(name, "surrogatepass") for name in ("utf-8", "utf-16-le")}
    if all(character < "\u0100" for character in text):
        inner.add(text.encode("latin-1"))  # what requests encodes for basic authentication
    cores = [core for data in inner for core in _base64_cores(data)]
    if not is_long:  # a registry's credentials: base64 in JSON in base64
        for core, _ in list(_base64_cores(_bytes_of(text))):
            cores += _base64_cores(core.encode())
    for core, edges in cores:
        for form in map(_bytes_of, _applied(_OF_BASE64_WRITERS, [core])):
            left, right = forms.get(form, _NO_EDGES)
            forms[form] = (left | edges[0], right | edges[1])
    for data in inner:
        forms |= dict.fromkeys((data.hex().encode(), data.hex().upper().encode()), _NO_EDGES)
    return {form: edges for form, edges in forms.items() if len(form) >= _SHORT_CHARACTERS}


def _pieces_of(value: str) -> tuple[set[str], set[str]]:
    """What of a secret is looked for anywhere, and what only as whole words."""
    lines = re.split(r"\r\n|\r|\n", value)
    whole = {value, value.strip(), "\n".join(lines), "\r\n".join(lines)}
    anywhere = {part for part in whole if len(part) >= _SHORT_CHARACTERS}
    if len(lines) > 1:
        anywhere |= {line.strip() for line in lines if len(line.strip()) >= _LINE_CHARACTERS}
    words = {part for part in (value, value.strip()) if len(part) < _SHORT_CHARACTERS}
    return (
        {part for part in anywhere if not _PEM_ARMOUR.fullmatch(part)},
        {word for word in words if word.strip(" \t\r\n*")},
    )


@lru_cache(maxsize=65536)
def _samples_of(form: bytes) -> tuple[int, tuple[int, ...]]:
    """How far apart text may be sampled for a form, and the words it may show up as."""
    stride = 8 if len(form) >= _LONG_BYTES else 4 if len(form) >= _MIDDLE_BYTES else 1
    width, _ = _WORDS[stride]
    needed, rarity = stride + width - 1, form[:64].translate(_RARITY)
    at = max(range(len(rarity) - needed + 1), key=lambda n: sum(rarity[n : n + needed]))
    words = (form[at + n : at + n + width] for n in range(stride))
    return stride, tuple(int.from_bytes(word, sys.byteorder) for word in words)


class Index:
    """All forms of all known secrets, arranged for looking them up in text."""

    def __init__(self, values: Iterable[str]) -> None:
        self._edges: dict[bytes, Edges] = {}
        words: set[bytes] = set()
        for value in values:
            anywhere, short = _pieces_of(value)
            for piece in anywhere:
                for form, edges in _forms_of(piece).items():
                    left, right = self._edges.get(form, _NO_EDGES)
                    self._edges[form] = (left | edges[0], right | edges[1])
            words |= {_bytes_of(form) for word in short for form in _applied(_WRITERS, [word])}
        self._sorted = sorted(self._edges.keys() | words)
        self._longest = max(map(len, self._sorted), default=0)
        self._left_edges = frozenset[int]().union(*(left for left, _ in self._edges.values()))
        self._heads = {form[:_HEAD_BYTES] for form in self._sorted}
        self._samples: dict[int, dict[int, list[bytes]]] = {8: {}, 4: {}, 1: {}}
        for form in self._edges:
            stride, sampled = _samples_of(form)
            for word in sampled:
                self._samples[stride].setdefault(word, []).append(form)
        self._keys = {stride: frozenset(words) for stride, words in self._samples.items()}
        alternatives = b"|".join(map(re.escape, sorted(words, key=len, reverse=True)))
        self._words = re.compile(_WHOLE_WORD % alternatives) if words else None

    def spans_in(self, data: bytes) -> list[Span]:
        """Where forms stand, sorted, those that overlap as one."""
        spans = [found.span() for found in self._words.finditer(data)] if self._words else []
        for form in self._candidates_in(data):
            start = data.find(form)
            while start >= 0:
                spans.append(_widened(data, start, start + len(form), self._edges[form]))
                start = data.find(form, start + 1)
        merged: list[Span] = []
        for start, end in sorted(spans):
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _candidates_in(self, data: bytes) -> set[bytes]:
        candidates: set[bytes] = set()
        for stride, samples in self._samples.items():
            width, code = _WORDS[stride]
            for skipped in range(0, width, stride) if samples and len(data) >= width else ():
                count = (len(data) - skipped) // width
                words = struct.unpack_from(f"={count}{code}", data, skipped)
                for word in self._keys[stride].intersection(words):
                    candidates.update(samples[word])
        return candidates

    def start_of_unfinished(self, data: bytes) -> int:
        """Where a form may begin that the end of `data` cuts off; its length if nowhere."""
        for start in range(max(0, len(data) - self._longest), len(data)):
            head = data[start : start + _HEAD_BYTES]
            if len(head) == _HEAD_BYTES and head not in self._heads:
                continue
            tail = data[start:]
            at = bisect_left(self._sorted, tail)
            if at < len(self._sorted) and self._sorted[at].startswith(tail):
                break
        else:
            start = len(data)
        return start - 1 if start and data[start - 1] in self._left_edges else start


def _widened(data: bytes, start: int, end: int, edges: Edges) -> Span:
    """Take the characters beside base64 along that hold a few bits of the secret, and padding."""
    left, right = edges
    if start and data[start - 1] in left:
        start -= 1
    if right and data[end : end + 1] and data[end] in right:
        end += 1
    if left or right:
        end += len(data[end : end + 2]) - len(data[end : end + 2].lstrip(b"="))
    return start, end


class _Registry:
    """The secrets known to this process; their index is made when it is next asked for."""

    def __init__(self) -> None:
        self.values: frozenset[str] = frozenset()
        self._index: Index | None = None
        self._lock = threading.Lock()

    def set(self, values: frozenset[str], *, more: bool = False) -> None:
        with self._lock:
            self.values = self.values | values if more else values
            self._index = None

    def index(self) -> Index:
        index = self._index
        if index is None:
            with self._lock:
                index = self._index = self._index or Index(self.values)
        return index


known = _Registry()


def register(value: str) -> None:
    """Make a value known as secret, from now on and everywhere in this process."""
    if value.strip(" \t\r\n") and value not in MASK and value not in known.values:
        known.set(frozenset({value}), more=True)


@contextmanager
def isolated_registry() -> Iterator[None]:
    """Know no secrets at first and forget new ones at the end, in all threads: for tests."""
    before = known.values
    known.set(frozenset())
    try:
        yield
    finally:
        known.set(before)


def masked(data: bytes, spans: Iterable[Span]) -> bytes:
    """The bytes with a mask for each span."""
    parts, rest_from = [], 0
    for start, end in spans:
        parts += [data[rest_from:start], MASK.encode()]
        rest_from = end
    return b"".join([*parts, data[rest_from:]])


def _redact_bytes(data: bytes) -> bytes:
    """Redact until nothing is left: a mask may end a word, or complete a secret made of stars."""
    index = known.index()
    while spans := index.spans_in(data):
        data = masked(data, spans)
    return data


def redact(text: str) -> str:
    """The text with every form of every known secret replaced by the mask."""
    data = _bytes_of(text)
    clean = _redact_bytes(data)
    return text if clean is data else clean.decode("utf-8", "surrogatepass")


def redacted_head(text: str, chars_max: int) -> str:
    """The beginning of the text, masked before it is cut: half a secret is not known as one."""
    return redact(text)[:chars_max]


def redacted_tail(text: str, chars_max: int) -> str:
    """The end of the text, masked before it is cut."""
    return redact(text)[-chars_max:]


def contains_secret(text: str) -> bool:
    """Whether any form of any known secret stands in the text."""
    return bool(known.index().spans_in(_bytes_of(text)))


def redact_value(plain: Any) -> Any:
    """A JSON-like value (tuples, sets and bytes too) with every string and key in it redacted.

    Numbers are masked if they are a secret digit by digit; values of other types stay as they are.
    """
    clean = plain
    if isinstance(plain, str):
        clean = redact(plain)
    elif isinstance(plain, Mapping):
        clean = _redacted_mapping(plain)
    elif isinstance(plain, tuple):
        items = [redact_value(item) for item in plain]
        clean = type(plain)(*items) if hasattr(plain, "_fields") else tuple(items)
    elif isinstance(plain, list | set | frozenset):
        clean = type(plain)(redact_value(item) for item in plain)
    elif isinstance(plain, bytes | bytearray):
        clean = type(plain)(_redact_bytes(bytes(plain)))
    elif isinstance(plain, Unprintable):
        clean = MASK
    elif isinstance(plain, int | float) and not isinstance(plain, bool):
        clean = MASK if str(plain) in known.values else plain
    return clean


def _redacted_mapping(plain: Mapping[Any, Any]) -> dict[Any, Any]:
    clean: dict[Any, Any] = {}
    for key, value in plain.items():
        name, twins = redact_value(key), 1
        while name in clean:  # two keys that differ in nothing but secrets
            twins += 1
            name = f"{redact_value(key)} ({twins})"
        clean[name] = redact_value(value)
    return clean
