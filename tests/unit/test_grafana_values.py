"""One cell on its way into a MySQL column."""

import pytest

from tasks.grafana.columns import Column, Misfit
from tasks.grafana.values import literal_form, losses_of, printed_form, stored_form


def column(column_type, **more):
    data_type = column_type.partition("(")[0].partition(" ")[0]
    lengths = {"tinytext": 255, "text": 65_535, "mediumtext": 2**24 - 1, "blob": 65_535}
    inside = column_type.partition("(")[2].rstrip(")")
    length = int(inside) if inside.isdigit() else lengths.get(data_type, 0)
    given = {"length_max": length, "charset": "utf8mb4", "is_nullable": True, "has_default": True}
    return Column("c", data_type, column_type, **{**given, **more})


@pytest.mark.parametrize(
    ("cell", "stored"),
    [
        (b"2024-03-31 02:30:00", b"2024-03-31 02:30:00"),
        (b"2024-03-31 02:30:00.123456789+02:00", b"2024-03-31 00:30:00"),
        (b"2023-12-31 21:30:01.25-05:30", b"2024-01-01 03:00:01"),
        (b"2022-12-31 23:59:59.999999999+00:00", b"2022-12-31 23:59:59"),
        (b"2024-10-27T01:59:59Z", b"2024-10-27 01:59:59"),
        (b"2023-06-01 10:00:00 +0000 UTC", b"2023-06-01 10:00:00"),
        (b"2023-06-01 10:00:00.5 -0300 -03 m=+0.123", b"2023-06-01 13:00:00"),
        (b"2023-06-01 10:00:00 +0200 CEST", b"2023-06-01 08:00:00"),
        (b"2017-06-20", b"2017-06-20 00:00:00"),
        (b"0001-01-01 00:00:00", b"0001-01-01 00:00:00"),
        (b"0001-01-01T00:00:00Z", b"0001-01-01 00:00:00"),
        (b"9999-12-31 23:59:59", b"9999-12-31 23:59:59"),
        (1_700_000_000, b"2023-11-14 22:13:20"),
        (1_700_000_000_123, b"2023-11-14 22:13:20"),
        (-1, b"1969-12-31 23:59:59"),
        (None, None),
    ],
)
def test_a_date_of_any_form_is_stored_as_whole_seconds_of_utc(cell, stored):
    assert stored_form(column("datetime"))(cell) == stored


def test_a_column_with_fractions_keeps_as_many_digits_as_it_has():
    store = stored_form(column("datetime(3)", precision=3))

    assert store(b"2024-01-02 03:04:05.6789") == b"2024-01-02 03:04:05.678"
    assert store(b"2024-01-02 03:04:05") == b"2024-01-02 03:04:05.000"


@pytest.mark.parametrize(
    "cell",
    [
        b"last Tuesday", b"2024-02-30 10:00:00", b"2024-01-01 25:00:00", b"", 1.5, 10**15,
        b"2020-W01-1 00:00:00", b"0001-01-01 00:00:00+02:00", b"9999-12-31 23:59:59-01:00",
        b"2024-13-01",
    ],
)  # fmt: skip
def test_what_is_no_date_fits_no_date_column(cell):
    with pytest.raises(Misfit) as misfit:
        stored_form(column("datetime"))(cell)

    assert misfit.value.kind == "invalid-date"


def test_a_timestamp_ends_in_2038():
    with pytest.raises(Misfit, match="2038"):
        stored_form(column("timestamp"))(b"2038-01-19 03:14:08")


@pytest.mark.parametrize(
    ("cell", "loss"),
    [
        (b"2024-01-01 00:00:00.5", "truncated-fraction"),
        (b"2024-01-01 00:00:00.000000001+00:00", "truncated-fraction"),
        (1_700_000_000_001, "truncated-fraction"),
        (b"2024-01-01 00:00:00.000", ""),
        (b"2024-01-01 00:00:00+02:00", ""),
        (b"2017-06-20", ""),
        (1_700_000_000, "epoch-date"),
        (b"0001-01-01 00:00:00", "early-year"),
        (b"0999-01-01T00:00:00Z", "early-year"),
        (None, ""),
    ],
)
def test_only_a_fraction_of_a_second_is_a_loss_of_a_date(cell, loss):
    assert losses_of(column("datetime"))(cell) == loss


@pytest.mark.parametrize(
    ("column_type", "cell", "stored"),
    [
        ("bigint(20)", 2**63 - 1, b"9223372036854775807"),
        ("bigint(20)", -(2**63), b"-9223372036854775808"),
        ("bigint(20) unsigned", 2**64 - 1, b"18446744073709551615"),
        ("int(11)", 0, b"0"),
        ("int(11)", 3.0, b"3"),
        ("int(11)", b" 42 ", b"42"),
        ("smallint(6)", -32_768, b"-32768"),
        ("tinyint(1)", b"true", b"1"),
        ("tinyint(1)", b"FALSE", b"0"),
        ("tinyint(1)", 5, b"5"),
    ],
)
def test_a_whole_number_is_stored_as_its_digits(column_type, cell, stored):
    assert stored_form(column(column_type))(cell) == stored


@pytest.mark.parametrize(
    ("column_type", "cell", "kind"),
    [
        ("int(11)", 2**31, "out-of-range"),
        ("tinyint(1)", 300, "out-of-range"),
        ("bigint(20)", 1e300, "out-of-range"),
        ("int(11) unsigned", -1, "out-of-range"),
        ("bigint(20)", 1.5, "not-a-number"),
        ("bigint(20)", float("inf"), "not-a-number"),
        ("bigint(20)", b"none", "not-a-number"),
        ("bigint(20)", b"true", "not-a-number"),
        ("bigint(20)", b"1); DROP TABLE x", "not-a-number"),
        ("double", b"wide", "not-a-number"),
        ("double", float("inf"), "out-of-range"),
        ("float", 1e300, "out-of-range"),
        ("json", b"{", "invalid-json"),
        ("json", b"NaN", "invalid-json"),
        ("geometry", b"x", "unsupported-type"),
    ],
)
def test_what_a_column_cannot_hold_does_not_fit(column_type, cell, kind):
    with pytest.raises(Misfit) as misfit:
        stored_form(column(column_type))(cell)

    assert misfit.value.kind == kind


def test_a_varchar_counts_characters_and_a_text_bytes():
    fires = "\N{FIRE}".encode()

    assert stored_form(column("varchar(189)"))(fires * 189) == fires * 189
    assert stored_form(column("text"))(b"y" * 65_535) == b"y" * 65_535
    with pytest.raises(Misfit, match="190 characters"):
        stored_form(column("varchar(189)"))(fires * 190)
    with pytest.raises(Misfit, match="65536 bytes"):
        stored_form(column("text"))(fires * 16_384)


def test_four_byte_characters_do_not_fit_three_byte_columns():
    store = stored_form(column("varchar(10)", charset="utf8mb3"))

    assert store("é€".encode()) == "é€".encode()
    with pytest.raises(Misfit) as misfit:
        store("\N{FIRE}".encode())
    assert misfit.value.kind == "four-byte-characters"


@pytest.mark.parametrize("cell", [b"\xff", b"\xed\xa0\x80", b"a\xc3"])
def test_bytes_that_are_no_utf_8_fit_no_text(cell):
    with pytest.raises(Misfit) as misfit:
        stored_form(column("text"))(cell)

    assert misfit.value.kind == "invalid-utf8"


def test_every_byte_fits_a_blob_and_is_written_as_bytes():
    every = bytes(range(256))
    blob = column("blob", charset="")

    assert stored_form(blob)(every) == every
    assert literal_form(blob)(b"a'b\\") == b"_binary'a''b\\'"


def test_a_text_literal_doubles_quotes_and_nothing_else():
    text = column("text")

    assert literal_form(text)(b'it\'s \\n "x" %s \x00') == b"'it''s \\n \"x\" %s \x00'"


def test_a_char_drops_blanks_at_the_end_and_says_so():
    char = column("char(8)")

    assert stored_form(char)(b"ab  ") == b"ab"
    assert losses_of(char)(b"ab  ") == "trailing-blanks"
    assert losses_of(char)(b"ab") == ""


def test_fractions_are_compared_as_numbers():
    double, single = column("double"), column("float")
    money = column("decimal(6,2)", digits=6, scale=2)

    assert stored_form(double)(0.1) == printed_form(double)(b"0.1")
    assert stored_form(single)(0.1) == printed_form(single)(b"0.10000000149011612")
    assert losses_of(single)(0.1) == "rounded-number"
    assert stored_form(money)(1.5) == printed_form(money)(b"1.50")
    assert losses_of(money)(1.005) == "rounded-number"
    with pytest.raises(Misfit, match="no room"):
        stored_form(money)(123_456)


def test_json_columns_are_compared_by_meaning():
    json_column = column("json")

    assert stored_form(json_column)(b'{"b": 1,"a":[]}') == printed_form(json_column)(
        b'{"a": [], "b": 1}'
    )
