"""Queries written by hand, from docker's names to those of containerd."""

from itertools import pairwise

from tasks.metrics.containerd import (
    LABELS,
    NOT_SCALED,
    POD_CONTAINER,
    NoCounterpart,
    dropped,
    field_counterpart,
    is_docker_measurement,
    mentions_docker,
    pattern_counterpart,
    tag_counterpart,
)
from tasks.metrics.influxql import Word, WordKind, closing, next_word, words_of, written

SHOW_TAG_VALUES = ("show", "tag", "values")
VALUES = (WordKind.TEXT, WordKind.PATTERN, WordKind.NAME)
OPERATORS = {"=", "!=", "<>", "=~", "!~"}
ENDS_OF_SELECT = ("from",)
KEYWORDS = {
    "and", "or", "where", "group", "by", "from", "select", "as", "fill", "order", "limit", "slimit",
    "with", "key", "in", "time", "desc", "asc", "null", "none", "previous", "linear", "tz",
    "offset", "soffset", "into", "now",
}  # fmt: skip


def migrated_query(query: str) -> str:
    """A query with the names of containerd; the same query where it asks for nothing of docker's.

    Raises:
        NoCounterpart: something in it has none.
    """
    words = words_of(query)
    if tuple(word.text.lower() for word in words if word.kind is not WordKind.BLANK)[:3] == (
        SHOW_TAG_VALUES
    ):
        return _migrated_listing(query, words)
    measurements = [
        unquoted for unquoted in _measurements(words) if is_docker_measurement(unquoted)
    ]
    if not measurements:
        if mentions_docker(query):
            raise NoCounterpart("it names docker where no measurement stands")
        return query
    if len(set(measurements)) > 1 or len(measurements) != len(_measurements(words)):
        raise NoCounterpart("it asks several measurements at once")
    words = _with_fields(words, measurements[0])
    return written(_with_conditions(_with_measurement(words)))


def _migrated_listing(query: str, words: list[Word]) -> str:
    """A list of tag values: `SHOW TAG VALUES [FROM x] WITH KEY = y [WHERE …]`.

    Without FROM, every measurement would be looked through.
    """
    names = [word.bare for word in words if word.kind is WordKind.NAME]
    measurements = _measurements(words)
    is_ours = any(map(is_docker_measurement, measurements)) or any(one in LABELS for one in names)
    if not is_ours or (measurements and not all(map(is_docker_measurement, measurements))):
        return query
    renamed = [
        word.named(LABELS[word.bare])
        if word.kind is WordKind.NAME and word.bare in LABELS
        else word
        for word in _with_measurement(words)
    ]
    if not measurements:
        after = next(n for n, word in enumerate(renamed) if word.is_keyword("values"))
        said = [Word(WordKind.BLANK, " "), Word(WordKind.NAME, "from"), Word(WordKind.BLANK, " ")]
        renamed[after + 1 : after + 1] = [*said, Word(WordKind.NAME, f'"{POD_CONTAINER}"')]
    return written(_with_conditions(renamed))


def _measurements(words: list[Word]) -> list[str]:
    """What stands behind each FROM, without a retention policy."""
    found = []
    for n, word in enumerate(words):
        if not word.is_keyword("from"):
            continue
        at = next_word(words, n)
        while at < len(words) and words[at].text != "(":
            while at + 1 < len(words) and words[at + 1].text == ".":
                at += 2
            found.append(words[at].bare)
            comma = next_word(words, at)
            if comma >= len(words) or words[comma].text != ",":
                break
            at = next_word(words, comma)
    return found


def _with_measurement(words: list[Word]) -> list[Word]:
    return [
        word.named(POD_CONTAINER)
        if word.kind is WordKind.NAME and is_docker_measurement(word.bare)
        else word
        for word in words
    ]


def _with_fields(words: list[Word], measurement: str) -> list[Word]:
    """Rename fields between SELECT and FROM, and bring their values into the former unit."""
    result = list(words)
    starts = [n for n, word in enumerate(result) if word.is_keyword("select")]
    for start in reversed(starts):
        end = next(n for n in range(start, len(result)) if result[n].is_keyword(*ENDS_OF_SELECT))
        for n in reversed(range(start + 1, end)):
            word = result[n]
            is_call = next_word(result, n) < end and result[next_word(result, n)].text == "("
            if word.kind is not WordKind.NAME or is_call or _is_alias(result, n):
                continue
            if word.is_keyword(*KEYWORDS) or word.text.startswith("$"):
                continue
            counterpart = field_counterpart(measurement, word.bare)
            result[n] = word.named(counterpart.name)
            if counterpart.scale and (after := _end_of_value(result, start, n)):
                result.insert(after + 1, Word(WordKind.OTHER, counterpart.scale))
    return result


def _is_alias(words: list[Word], n: int) -> bool:
    before = [word for word in words[:n] if word.kind is not WordKind.BLANK]
    return bool(before) and before[-1].is_keyword("as")


def _end_of_value(words: list[Word], start: int, field: int) -> int:
    """Where the outermost call ends that a field stands in; 0 where its value has no unit."""
    n, end = start + 1, field
    while n < field:
        if words[n].text == "(" and (shut := closing(words, n)) > field:
            if words[n - 1].is_keyword(*NOT_SCALED):
                return 0
            end = max(end, shut)
            n += 1
        else:
            n += 1
    return end


def _with_conditions(words: list[Word]) -> list[Word]:
    """Rename the tags behind WHERE and GROUP BY; drop conditions without a meaning any more."""
    result: list[Word] = []
    n, is_behind = 0, False
    while n < len(words):
        word = words[n]
        is_behind = is_behind or word.is_keyword("where", "by")
        if not is_behind or word.kind is not WordKind.NAME or word.is_keyword(*KEYWORDS):
            result.append(word)
            n += 1
            continue
        operator = next_word(words, n)
        if operator >= len(words) or words[operator].text not in OPERATORS:
            is_call = operator < len(words) and words[operator].text == "("
            is_variable = word.text.startswith(("$", "[["))
            kept = word if is_call or is_variable else word.named(tag_counterpart(word.bare))
            result.append(kept)
            n += 1
            continue
        value = next_word(words, operator)
        given = words[value].text if value < len(words) else ""
        instead = dropped(word.bare, given)
        if instead is None:
            tag = tag_counterpart(word.bare)
            result += [word.named(tag), *words[n + 1 : value]]
            kind = words[value].kind if value < len(words) else WordKind.OTHER
            result.append(Word(kind, pattern_counterpart(tag, given)))
            n = value + 1
        elif instead:
            result.append(Word(WordKind.NAME, f"pod_name =~ {instead}"))
            n = value + 1
        else:
            n = _past_dropped(words, result, value)
    return _without_empty_where(result)


def _past_dropped(words: list[Word], result: list[Word], value: int) -> int:
    """Go on past a condition that is dropped, and past the AND on one of its sides.

    Raises:
        NoCounterpart: an OR stands there: without the condition it would mean another thing.
    """
    after = next_word(words, value)
    before = [n for n, word in enumerate(result) if word.kind is not WordKind.BLANK]
    is_or_before = bool(before) and result[before[-1]].is_keyword("or")
    if is_or_before or (after < len(words) and words[after].is_keyword("or")):
        raise NoCounterpart("a condition that has no meaning any more stands beside an OR")
    if after < len(words) and words[after].is_keyword("and"):
        return next_word(words, after)
    if before and result[before[-1]].is_keyword("and"):
        del result[before[-1] :]
        while result and result[-1].kind is WordKind.BLANK:
            result.pop()
    return value + 1


def _without_empty_where(words: list[Word]) -> list[Word]:
    """Take out brackets and a WHERE that nothing is left in."""
    text = [n for n, word in enumerate(words) if word.kind is not WordKind.BLANK]
    for one, two in pairwise(text):
        is_call = one > 0 and words[one - 1].kind is WordKind.NAME
        if words[one].text == "(" and words[two].text == ")" and not is_call:
            return _without_empty_where(words[:one] + words[two + 1 :])
    for place, n in enumerate(text):
        if not words[n].is_keyword("where"):
            continue
        following = words[text[place + 1]] if place + 1 < len(text) else None
        if following is None or following.is_keyword("group", "order", "limit"):
            end = len(words) if following is None else text[place + 1]
            kept = words[:n]
            while kept and kept[-1].kind is WordKind.BLANK and following is None:
                kept.pop()
            return kept + words[end:]
        if following.is_keyword("and"):
            return words[: n + 1] + words[text[place + 1] + 1 :]
    return words
