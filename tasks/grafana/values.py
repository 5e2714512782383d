"""One cell on its way from SQLite into a MySQL column: the form it will be stored and printed in.

The stored form is what the server prints for the cell in its text protocol once it holds it. It is
used twice, to write the cell and to compare it, so that nothing is written that could not be told
apart from what was meant.
"""

import json
import re
import struct
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from blocks.mysql.session import quote_text
from tasks.grafana.columns import Cell, Column, Kind, Misfit
from tasks.grafana.moments import moment_loss, stored_moment

Store = Callable[[Cell], bytes | None]

COUNTED_IN_CHARACTERS = frozenset({"char", "varchar"})
THREE_BYTE_CHARSETS = frozenset({"utf8", "utf8mb3"})
TRUTHS = {b"true": b"1", b"false": b"0", b"t": b"1", b"f": b"0"}
WHOLE_NUMBER = re.compile(rb"[+-]?\d+")


def stored_form(column: Column) -> Store:
    """How the column will hold a cell: a function from the cell to the bytes the server prints.

    It raises `Misfit` for what the column cannot hold. What it holds less exactly (a fraction of a
    second) comes out as it will be stored; `losses_of` tells of it.
    """
    makers: dict[Kind, Callable[[Column], Store]] = {
        Kind.INTEGER: _integers,
        Kind.BOOLEAN: _integers,
        Kind.MOMENT: _moments,
        Kind.TEXT: _texts,
        Kind.BYTES: _blobs,
        Kind.FLOAT: _floats,
        Kind.DOUBLE: _floats,
        Kind.DECIMAL: _decimals,
        Kind.JSON: _documents,
        Kind.UNSUPPORTED: _unsupported,
    }
    return makers[column.kind](column)


def printed_form(column: Column) -> Callable[[bytes], bytes] | None:
    """How to read what the server prints, where that is not the stored form already."""
    if column.kind in (Kind.FLOAT, Kind.DOUBLE):
        return lambda printed: repr(float(printed)).encode()
    if column.kind is Kind.DECIMAL:
        return lambda printed: _plain_decimal(Decimal(printed.decode()))
    if column.kind is Kind.JSON:
        return _one_json
    return None


def literal_form(column: Column) -> Callable[[bytes], bytes]:
    """How to write the stored form into a statement."""
    if column.kind is Kind.BYTES:
        # Without the introducer the server takes the bytes for UTF-8 and refuses what is not.
        return lambda stored: b"_binary" + quote_text(stored)
    if column.kind in (Kind.TEXT, Kind.MOMENT, Kind.JSON):
        return quote_text
    return lambda stored: stored


def losses_of(column: Column) -> Callable[[Cell], str] | None:
    """What gets lost or changes its form: a function to a stable word, empty for nothing."""
    if column.kind is Kind.MOMENT:
        return lambda cell: moment_loss(cell, column.precision)
    if column.kind is Kind.BOOLEAN:
        return lambda cell: "bool-text" if _text_of(cell).strip().lower() in TRUTHS else ""
    if column.kind is Kind.FLOAT:
        return lambda cell: "rounded-number" if _single(_number(cell)) != _number(cell) else ""
    if column.kind is Kind.DECIMAL:
        return lambda cell: "rounded-number" if _decimal(cell) != _scaled(cell, column) else ""
    if column.data_type == "char":
        return lambda cell: "trailing-blanks" if _text_of(cell).endswith(b" ") else ""
    return None


def _integers(column: Column) -> Store:
    least, greatest = column.number_range
    is_boolean = column.kind is Kind.BOOLEAN

    def store(cell: Cell) -> bytes | None:
        if cell is None:
            return None
        if isinstance(cell, bytes):
            text = cell.strip()
            if is_boolean and text.lower() in TRUTHS:
                return TRUTHS[text.lower()]
            if not WHOLE_NUMBER.fullmatch(text):
                raise Misfit("not-a-number", "it is no whole number")
            number = int(text)
        elif isinstance(cell, float):
            if not cell.is_integer():
                raise Misfit("not-a-number", "it is no whole number")
            number = int(cell)
        else:
            number = cell
        if not least <= number <= greatest:
            raise Misfit("out-of-range", f"{column.column_type} ends at {least} and {greatest}")
        return b"%d" % number

    return store


def _moments(column: Column) -> Store:
    return stored_moment(column.precision, is_timestamp=column.data_type == "timestamp")


def _text_of(cell: Cell) -> bytes:
    if isinstance(cell, bytes):
        return cell
    return b"" if cell is None else str(cell).encode()


def _texts(column: Column) -> Store:
    length_max = column.length_max
    is_counted_in_characters = column.data_type in COUNTED_IN_CHARACTERS
    is_three_byte = column.charset in THREE_BYTE_CHARSETS
    is_padded = column.data_type == "char"

    def store(cell: Cell) -> bytes | None:
        if cell is None:
            return None
        data = cell if isinstance(cell, bytes) else _text_of(cell)
        characters = len(data)
        if not data.isascii():
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                raise Misfit("invalid-utf8", f"it is no UTF-8 at byte {error.start}") from None
            characters = len(text)
            if is_three_byte and max(text) > "\uffff":
                raise Misfit("four-byte-characters", f"{column.charset} has no {max(text)!r}")
        if (characters if is_counted_in_characters else len(data)) > length_max:
            unit = f"{characters} characters" if is_counted_in_characters else f"{len(data)} bytes"
            raise Misfit("too-long", f"{unit}, {column.column_type} holds {length_max}")
        return data.rstrip(b" ") if is_padded else data

    return store


def _blobs(column: Column) -> Store:
    def store(cell: Cell) -> bytes | None:
        if cell is None:
            return None
        data = _text_of(cell)
        if len(data) > column.length_max:
            held = f"{column.column_type} holds {column.length_max}"
            raise Misfit("too-long", f"{len(data)} bytes, {held}")
        if column.data_type == "binary":
            return data.ljust(column.length_max, b"\0")
        return data

    return store


def _number(cell: Cell) -> float:
    try:
        return float(cell or 0)
    except ValueError:
        raise Misfit("not-a-number", "it is no number") from None


def _single(number: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        raise Misfit("out-of-range", "it is too large for a float") from None


def _floats(column: Column) -> Store:
    def store(cell: Cell) -> bytes | None:
        if cell is None:
            return None
        number = _number(cell)
        if number - number != 0:  # neither infinity nor "not a number" can be stored
            raise Misfit("out-of-range", "it is no finite number")
        return repr(_single(number) if column.kind is Kind.FLOAT else number).encode()

    return store


def _decimal(cell: Cell) -> Decimal:
    try:
        return Decimal((_text_of(cell) or b"0").decode())
    except (InvalidOperation, UnicodeDecodeError):
        raise Misfit("not-a-number", "it is no number") from None


def _scaled(cell: Cell, column: Column) -> Decimal:
    try:
        scaled = _decimal(cell).quantize(Decimal(1).scaleb(-column.scale), ROUND_HALF_UP)
    except InvalidOperation:
        raise Misfit("out-of-range", f"{column.column_type} has no room for it") from None
    if len(scaled.as_tuple().digits) > column.digits:
        raise Misfit("out-of-range", f"{column.column_type} has no room for it")
    return scaled


def _plain_decimal(number: Decimal) -> bytes:
    return f"{number.normalize():f}".encode() if number else b"0"


def _decimals(column: Column) -> Store:
    return lambda cell: None if cell is None else _plain_decimal(_scaled(cell, column))


def _one_json(text: bytes) -> bytes:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise Misfit("invalid-json", f"it is no JSON ({error})") from None
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _documents(_: Column) -> Store:
    return lambda cell: None if cell is None else _one_json(_text_of(cell))


def _unsupported(column: Column) -> Store:
    def store(cell: Cell) -> bytes | None:
        if cell is None:
            return None
        raise Misfit("unsupported-type", f"no conversion to {column.column_type} is known")

    return store
