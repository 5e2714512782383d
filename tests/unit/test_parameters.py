"""Parameters as people type them: typed values, or a line that says what is wrong."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import pytest

from operate.parameters import (
    OPTIONS,
    described,
    expected,
    read_parameter_file,
    split_settings,
    typed_parameters,
)
from recovery.declare import OPTION_NAMES
from recovery.errors import BadInput
from recovery.run import Recovery
from recovery.verdict import Danger


class Speed(StrEnum):
    SLOW = "slow"
    FAST = "fast"


@dataclass(frozen=True)
class Window:
    hour: int
    minutes: int = 30


PARAMETERS = {
    "source": (str, ...),
    "target": (str, ...),
    "days": (int, 30),
    "share": (float, 0.5),
    "reboot": (bool, False),
    "folder": (Path | None, None),
    "skip": (list[str], []),
    "grace": (timedelta, timedelta(minutes=10)),
    "speed": (Speed, Speed.SLOW),
    "window": (Window, Window(2)),
    "labels": (dict[str, int], {}),
    "note": (str | None, None),
}


def declared(parameters=None):
    return Recovery(
        "move-things",
        lambda **given: given,
        "docs/runbooks/move.md",
        (),
        Danger.CHANGE,
        lambda **given: str(given),
        PARAMETERS if parameters is None else parameters,
    )


def typed(*settings, file=None, recorded=None):
    settings = ("source=a", "target=b", *settings)
    return typed_parameters(declared(), settings, file, recorded)


def refusal(*settings, file=None):
    with pytest.raises(BadInput) as refused:
        typed(*settings, file=file)
    return refused.value


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("days=7", 7),
        ("share=1e-1", 0.1),
        ("reboot=true", True),
        ("reboot=no", False),
        ("folder=/srv/x y", Path("/srv/x y")),
        ("folder=null", None),
        ("skip=[session, cache]", ["session", "cache"]),
        ('skip=["session"]', ["session"]),
        ("skip=[]", []),
        ("grace=00:00:30", timedelta(seconds=30)),
        ("grace=PT2M", timedelta(minutes=2)),
        ("speed=fast", Speed.FAST),
        ("window={hour: 3}", Window(3)),
        ("labels={a: 1}", {"a": 1}),
        ("note=007", "007"),
        ("note=null", None),
        ("note=[a]", "[a]"),
        ("source=null", "null"),
        ("source=a=b&c", "a=b&c"),
        ("source=", ""),
    ],
)
def test_a_text_becomes_a_value_of_the_declared_type(setting, value):
    name = setting.partition("=")[0]

    given = typed_parameters(
        declared(), [setting, *(f"{n}=x" for n in ("source", "target") if n != name)]
    )

    assert given[name] == value
    assert type(given[name]) is type(value)


def test_numbers_in_a_list_of_texts_are_texts():
    assert typed("skip=[1, 5, 25%]")["skip"] == ["1", "5", "25%"]


def test_what_is_not_given_has_its_default():
    given = typed()

    assert list(given) == list(PARAMETERS)
    assert given["window"] == Window(2)


@pytest.mark.parametrize(
    ("setting", "field", "told"),
    [
        ("days=soon", "days", "'soon' is not a whole number"),
        ("reboot=perhaps", "reboot", "'perhaps' is not true or false"),
        ("skip=session", "skip", "'session' is not a list, such as [a, b]"),
        ("skip=[a", "skip", "'[a' is not a list"),
        ("speed=warp", "speed", "'warp' is not one of slow, fast"),
        ("window={hour: late}", "window", "hour: Input should be a valid integer"),
        ("grace=soon", "grace", "a duration such as 00:10:00"),
    ],
)
def test_an_ill_typed_value_is_named_with_what_was_seen_and_what_is_expected(setting, field, told):
    refused = refusal(setting)

    assert refused.field == field
    assert told in refused.seen
    assert refused.remedy.startswith("Give ")


def test_an_unknown_name_is_told_with_the_nearest_and_all_there_are():
    refused = refusal("reboots=true")

    assert refused.field == "reboots"
    assert "Did you mean 'reboot'?" in refused.remedy
    assert "source, target, days" in refused.remedy


def test_every_option_given_as_a_parameter_is_pointed_to_its_option():
    assert set(OPTIONS) == set(OPTION_NAMES)
    for name in OPTION_NAMES:
        assert "recover " in refusal(f"{name}=x").remedy or "--" in refusal(f"{name}=x").remedy


def test_all_missing_parameters_are_named_at_once():
    with pytest.raises(BadInput) as refused:
        typed_parameters(declared())

    assert refused.value.field == "source, target"
    assert "--set source=VALUE --set target=VALUE" in refused.value.remedy


@pytest.mark.parametrize("setting", ["days", "=7", " =7", ""])
def test_a_setting_without_name_or_sign_is_refused(setting):
    with pytest.raises(BadInput, match="name=value"):
        split_settings([setting])


def test_one_name_set_to_two_values_is_refused():
    assert split_settings(["a=1", "a=1"]) == {"a": "1"}
    with pytest.raises(BadInput, match=r"a: it is set twice, to '1' and to '2'"):
        split_settings(["a=1", "a=2"])


def test_a_file_gives_values_and_a_setting_counts_more(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("days: 3\nskip: [x]\nspeed: fast\nnote: text\n")

    given = typed("days=4", file=file)

    assert (given["days"], given["skip"], given["speed"]) == (4, ["x"], Speed.FAST)


def test_recorded_values_count_least(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("days: 3\n")
    recorded = {"source": "s", "days": 1, "share": 0.25, "grace": 5.0, "gone": 1}

    given = typed_parameters(declared(), ["target=t"], file, recorded)

    assert (given["source"], given["days"], given["share"]) == ("s", 3, 0.25)
    assert given["grace"] == timedelta(seconds=5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n- b\n", "it holds a list, not names with values"),
        ("just text", "it holds a str, not names with values"),
        ("a: [1\nb: 2\n", "it is no valid YAML: line 2"),
        ("a: 1\na: 2\n", "'a' stands there twice"),
        ("a: !!python/object:os.system x\n", "it is no valid YAML"),
        ("\x00", "it is no valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_with_the_place(tmp_path, text, told):
    file = tmp_path / "p.yaml"
    file.write_text(text)

    with pytest.raises(BadInput) as refused:
        read_parameter_file(file)

    assert str(file) in refused.value.field
    assert told in refused.value.seen


def test_a_missing_file_a_folder_and_bytes_are_refused(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\xfa")

    for name, told in [("no.yaml", "No such file"), (".", "directory"), ("b.yaml", "UTF-8")]:
        with pytest.raises(BadInput, match=told):
            read_parameter_file(tmp_path / name)


def test_an_empty_file_gives_nothing(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("# nothing\n")

    assert read_parameter_file(file) == {}


def test_a_number_for_a_text_in_a_file_is_to_be_quoted(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("source: 5\n")

    with pytest.raises(BadInput) as refused:
        typed_parameters(declared(), ["target=t"], file)

    assert refused.value.remedy == "Give text, in quotes"
    assert str(file) in refused.value.seen


def test_parameters_are_described_with_type_and_default():
    rows = {row["name"]: row for row in described(declared(), {})}

    assert rows["source"] == {"name": "source", "type": "str", "required": True}
    assert rows["skip"] == {"name": "skip", "type": "list[str]", "required": False, "default": []}
    assert rows["window"]["default"] == {"hour": 2, "minutes": 30}
    assert rows["note"]["type"] == "str | None"


def test_types_are_put_in_words():
    assert expected(int | None) == "a whole number or null"
    assert expected(list[int]) == "a list of whole numbers, such as [a, b]"
    assert expected(Window) == "a Window"
