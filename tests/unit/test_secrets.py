"""A secret cannot be printed, and errors are cleaned of it without becoming something else."""

import copy
import json
import logging
import pickle
import pprint
import subprocess
import traceback
from dataclasses import asdict, dataclass

import cloudpickle
import psycopg
import pydantic
import pydantic_core
import pymysql
import pytest
from psycopg.pq import DiagnosticField

from recovery import errors
from recovery.secrecy.redaction import MASK, contains_secret, isolated_registry, redact
from recovery.secrecy.secret import ScrubbedError, Secret, scrub

VALUE = "pa55\"w'ord/+é"


@pytest.fixture(autouse=True)
def _no_secrets_known():
    with isolated_registry():
        yield


@pytest.fixture
def secret():
    return Secret(VALUE)


@dataclass(frozen=True)
class Login:
    user: str
    password: Secret


class Model(pydantic.BaseModel):
    password: Secret
    spare: Secret | None = None


def test_a_secret_shows_as_the_mask_everywhere(secret):
    model = Model(password=secret, spare=VALUE)
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>20}",
        f"{secret:>20}",
        "%s %r" % (secret, secret),  # noqa: UP031
        pprint.pformat(secret),
        json.dumps({"a": secret}, default=str),
        repr(Login("me", secret)),
        str(asdict(Login("me", secret))),
        repr(model),
        str(model.model_dump()),
        model.model_dump_json(),
        pydantic_core.to_json({"a": secret, "b": Login("me", secret)}).decode(),
        logging.makeLogRecord({"msg": "%s", "args": (secret,)}).getMessage(),
    ]

    assert all(MASK in text and VALUE not in text for text in shown), shown
    assert secret.reveal() == VALUE
    assert model.spare is not None
    assert model.spare.reveal() == VALUE


def test_a_secret_is_compared_by_value_and_hashed_without_it(secret):
    assert secret == Secret(VALUE)
    assert secret != Secret("other")
    assert secret != VALUE
    assert len({hash(secret), hash(Secret("other"))}) == 1
    assert {secret, Secret(VALUE)} == {secret}


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_secret_is_not_pickled(secret, dumps):
    with pytest.raises(TypeError, match="cannot be pickled"):
        dumps({"password": secret})


def test_a_secret_is_not_json_and_does_not_change(secret):
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(AttributeError):
        secret._value = "other"
    with pytest.raises(errors.BadInput, match="type int"):
        Secret(1234)


def test_a_copy_of_a_secret_is_the_secret(secret):
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"a": secret})["a"] is secret


def test_making_a_secret_makes_it_known(secret):
    assert redact(f"-{VALUE}-") == "-***-"


def test_pydantic_takes_neither_the_mask_nor_a_number_and_shows_no_value():
    with pytest.raises(pydantic.ValidationError, match="the mask of a secret"):
        Model(password=MASK)
    with pytest.raises(pydantic.ValidationError) as caught:
        Model(password=12345678)

    assert "12345678" not in str(scrub(caught.value))
    assert Model.model_json_schema()["properties"]["password"]["format"] == "password"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_a_file_without_its_last_line_break(tmp_path, ending):
    path = tmp_path / "password"
    path.write_bytes(f" two\nlines {ending}".encode())
    path.chmod(0o600)

    assert Secret.from_file(path).reveal() == " two\nlines "


@pytest.mark.parametrize(
    ("content", "mode", "seen"),
    [
        (None, 0o600, "no such file"),
        (b"", 0o600, "empty"),
        (b"\n", 0o600, "empty"),
        (b"hunter2", 0o644, "mode 0644"),
        (b"hunter2\xff", 0o600, "not UTF-8"),
        (b"hunter2" * 200_000, 0o600, "bigger"),
    ],
)
def test_a_bad_secret_file_is_refused_without_telling_of_its_content(tmp_path, content, mode, seen):
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)

    with pytest.raises(errors.BadInput) as caught:
        Secret.from_file(path)

    assert caught.value.field == str(path)
    assert seen in caught.value.seen
    assert caught.value.remedy
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_secret_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("GRAFANA_PASSWORD", VALUE)
    monkeypatch.setenv("EMPTY_PASSWORD", "")

    assert Secret.from_env("GRAFANA_PASSWORD").reveal() == VALUE
    for name, seen in (("EMPTY_PASSWORD", "empty"), ("NO_PASSWORD", "not set")):
        with pytest.raises(errors.BadInput, match=seen):
            Secret.from_env(name)


OURS = [
    errors.BadInput("field", VALUE, "remedy"),
    errors.Unreachable(VALUE, "asked", "seen"),
    errors.CommandFailed("node", f"mysql -p{VALUE}", 1, f"denied {VALUE}"),
    errors.UnreadableOutput("cmd", VALUE),
    errors.Refused("node", VALUE, "remedy"),
    errors.TargetTaken("node", VALUE, 3.0),
    errors.NotVerified("node", "expected", VALUE),
    errors.UndoFailed("node", "step", VALUE, "by hand"),
    errors.NeedsPerson("node", VALUE, "remedy"),
    errors.Fenced("node", 3, VALUE),
]


def shown_by(error):
    return "".join(
        [
            *traceback.format_exception(error),
            str(error),
            repr(error),
            repr(error.args),
            repr(vars(error)),
        ]
    )


@pytest.mark.parametrize("template", OURS, ids=lambda error: type(error).__name__)
def test_our_errors_stay_what_they_are_and_survive_pickling(secret, template):
    error = copy.copy(template)

    clean = scrub(error)

    assert clean is error
    assert not contains_secret(shown_by(clean))
    assert MASK in str(clean)
    for dumps in (pickle.dumps, cloudpickle.dumps):
        again = pickle.loads(dumps(clean))  # noqa: S301
        assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
        assert vars(again) == vars(error)


def foreign_errors():
    unicode_error = UnicodeDecodeError("utf-8", VALUE.encode(), 3, 4, "bad")
    called = subprocess.CalledProcessError(
        1, ["psql", f"--password={VALUE}"], f"out {VALUE}".encode(), VALUE
    )
    timeout = subprocess.TimeoutExpired(f"psql {VALUE}", 3, output=VALUE)
    noted = ValueError("harmless")
    noted.add_note(f"tried {VALUE}")
    server = psycopg.errors.UniqueViolation(f"duplicate {VALUE}", info=Result())
    return [
        ValueError(VALUE, 3, {"a": [VALUE]}),
        KeyError(VALUE),
        OSError(2, "no such file", f"/tmp/{VALUE}"),  # noqa: S108
        called,
        timeout,
        noted,
        unicode_error,
        ImportError(VALUE, name=VALUE, path=VALUE),
        SystemExit(VALUE),
        KeyboardInterrupt(VALUE),
        StopIteration(VALUE),
        pymysql.err.OperationalError(1045, f"Access denied using {VALUE}"),
        psycopg.OperationalError(f"connection to postgres://me:{VALUE}@db failed"),
        server,
    ]


class Result:
    """Looks to psycopg like the answer of a server."""

    def error_field(self, field):
        return f"Key (password)=({VALUE})".encode() if field in set(DiagnosticField) else None

    nparams = ntuples = status = 1


@pytest.mark.parametrize("at", range(14))
def test_foreign_errors_stay_what_they_are_and_survive_pickling(secret, at):
    error = foreign_errors()[at]

    clean = scrub(error)

    assert clean is error
    assert not contains_secret(shown_by(clean))
    assert MASK in shown_by(clean)
    again = cloudpickle.loads(cloudpickle.dumps(clean))
    assert type(again) is type(error)
    assert str(again) == str(clean)


def test_what_a_server_told_in_detail_is_cleaned_as_well(secret):
    clean = scrub(foreign_errors()[-1])

    assert isinstance(clean, psycopg.Error)
    assert not contains_secret(str(clean.diag.message_detail))


def test_an_error_that_goes_on_showing_a_secret_is_replaced(secret):
    class Stubborn(Exception):
        def __str__(self):
            return f"stubborn {VALUE}"

    def fail():
        try:
            raise KeyError("inner")  # noqa: TRY301
        except KeyError as inner:
            raise Stubborn(VALUE) from inner

    with pytest.raises(Stubborn) as caught:
        fail()
    caught.value.add_note(f"note {VALUE}")

    clean = scrub(caught.value)

    assert isinstance(clean, ScrubbedError)
    assert str(clean) == "Stubborn: stubborn ***"
    assert clean.__traceback__ is caught.value.__traceback__
    assert isinstance(clean.__cause__, KeyError)
    assert clean.__notes__ == ["note ***"]
    assert str(pickle.loads(pickle.dumps(clean))) == str(clean)  # noqa: S301


def test_an_error_whose_text_raises_is_no_obstacle(secret):
    class Broken(Exception):
        def __str__(self):
            raise ZeroDivisionError

        __repr__ = __str__

    error = Broken("x")

    assert scrub(error) is error


def test_the_whole_chain_is_cleaned_and_stays_a_chain(secret):
    first, second = OSError(VALUE), ValueError("second")
    third = RuntimeError(VALUE)
    second.__cause__, third.__context__ = first, second
    first.__context__ = third  # a cycle
    third.__suppress_context__ = False

    clean = scrub(third)

    assert clean is third
    assert clean.__context__ is second
    assert clean.__suppress_context__ is False
    assert second.__suppress_context__ is True
    assert not contains_secret(str(first) + str(third))


def test_groups_are_cleaned_with_their_members_and_message(secret):
    class Stubborn(Exception):
        def __str__(self):
            return VALUE

    inner = ExceptionGroup("inner", [ValueError(VALUE), Stubborn()])
    inner.add_note(VALUE)
    clean = scrub(ExceptionGroup(f"outer {VALUE}", [inner, KeyError(VALUE)]))

    assert isinstance(clean, ExceptionGroup)
    assert not contains_secret("".join(traceback.format_exception(clean)) + repr(clean))
    assert clean.message == "outer ***"
    nested = clean.exceptions[0]
    assert isinstance(nested, ExceptionGroup)
    assert [type(member) for member in nested.exceptions] == [ValueError, ScrubbedError]
    assert nested.__notes__ == [MASK]


def test_a_group_without_secrets_is_left_alone(secret):
    group = ExceptionGroup("outer", [ValueError("a")])

    assert scrub(group) is group


def test_errors_inside_of_errors_are_cleaned(secret):
    inner = ValueError(VALUE)
    outer = RuntimeError("outer", inner)

    assert scrub(outer) is outer
    assert not contains_secret(repr(outer))


def test_an_object_in_an_error_that_shows_a_secret_becomes_text(secret):
    class Answer:
        def __repr__(self):
            return f"<answer {VALUE}>"

    answer = object()
    error = RuntimeError(Answer(), answer)
    error.answer = Answer()

    assert scrub(error) is error
    assert error.args == ("<answer ***>", answer)
    assert error.answer == "<answer ***>"


def test_a_very_long_chain_is_no_obstacle(secret):
    error = ValueError(VALUE)
    for _ in range(5000):
        newer = ValueError(VALUE)
        newer.__cause__ = error
        error = newer

    assert not contains_secret(str(scrub(error)))
