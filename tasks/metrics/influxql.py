"""Queries in InfluxQL taken apart into words, far enough to put other names into them."""

import re
from dataclasses import dataclass
from enum import StrEnum


class WordKind(StrEnum):
    """What a word of a query is."""

    BLANK = "blank"
    NAME = "name"  # with or without double quotes
    TEXT = "text"  # in single quotes
    PATTERN = "pattern"  # a regular expression between slashes
    OTHER = "other"


@dataclass(frozen=True)
class Word:
    """One word as it is written."""

    kind: WordKind
    text: str

    @property
    def bare(self) -> str:
        """A name without its quotes and without `::tag` or `::field`."""
        return unquoted(self.text).partition("::")[0] if self.kind is WordKind.NAME else self.text

    def is_keyword(self, *keywords: str) -> bool:
        """Whether it is one of these, in whichever case."""
        return self.kind is WordKind.NAME and self.text.lower() in keywords

    def named(self, name: str) -> "Word":
        """Another name in its place, quoted as it is quoted, with its `::tag`."""
        _, mark, suffix = self.text.partition("::")
        is_quoted = self.text.startswith('"')
        return Word(self.kind, f'"{name}"' if is_quoted else name + mark + suffix)


FORMS = (
    (WordKind.BLANK, re.compile(r"\s+")),
    (WordKind.NAME, re.compile(r'"(?:[^"\\]|\\.)*"(?:::\w+)?')),
    (WordKind.TEXT, re.compile(r"'(?:[^'\\]|\\.)*'")),
    # Grafana's variables stand for names and parts of them: $pod, ${pod:regex}, [[pod]].
    (WordKind.NAME, re.compile(r"(?:\$\{[^}]*\}|\[\[[^\]]*\]\]|[$A-Za-z_][\w.$-]*)(?:::\w+)?")),
    (WordKind.OTHER, re.compile(r"=~|!~|!=|<>|<=|>=|[0-9][\w.]*|.", re.DOTALL)),
)
PATTERN = re.compile(r"/(?:[^/\\\n]|\\.)*/")
BEFORE_PATTERN = {"=~", "!~"}


def words_of(query: str) -> list[Word]:
    """Every word of a query; put together again, they are the query."""
    words: list[Word] = []
    place, before = 0, ""
    while place < len(query):
        pattern = PATTERN.match(query, place)
        if pattern and (before in BEFORE_PATTERN or before.lower() == "from"):
            word = Word(WordKind.PATTERN, pattern.group())
        else:
            word = _word_at(query, place)
        words.append(word)
        place += len(word.text)
        if word.kind is not WordKind.BLANK:
            before = word.text
    return words


def written(words: list[Word]) -> str:
    """The query of these words."""
    return "".join(word.text for word in words)


def unquoted(name: str) -> str:
    """A name without double quotes."""
    return name[1:].partition('"')[0] if name.startswith('"') else name


def next_word(words: list[Word], after: int) -> int:
    """The place of the next word that is no blank; the end where there is none."""
    place = after + 1
    while place < len(words) and words[place].kind is WordKind.BLANK:
        place += 1
    return place


def closing(words: list[Word], opening: int) -> int:
    """The place of the bracket that closes the one at `opening`; the last word where none does."""
    depth = 0
    for place in range(opening, len(words)):
        depth += {"(": 1, ")": -1}.get(words[place].text, 0)
        if depth == 0:
            return place
    return len(words) - 1


def _word_at(query: str, place: int) -> Word:
    for kind, form in FORMS:
        if found := form.match(query, place):
            return Word(kind, found.group())
    raise AssertionError  # the last form takes any character
