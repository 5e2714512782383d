"""The file with the new key: whole, of mode 0600, and never written over another."""

from contextlib import nullcontext

import pytest

from recovery.errors import BadInput, Refused
from recovery.secrecy.secret import isolated_registry
from recovery.verdict import Verdict
from tasks.admin_key.anew import is_saved, save_key
from tasks.admin_key.finding import refuse_other_file
from tasks.admin_key.order import KeyWish
from tests.unit.test_admin_key import LogSession, a_pod, an_order, log_line

KEY = "abcd-efgh-4711"


@pytest.fixture(autouse=True)
def registry():
    with isolated_registry():
        yield


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new"


@pytest.fixture
def order(file, monkeypatch):
    """An order whose cluster has one pod with the key in its log."""
    order = an_order(key=KeyWish(r"key: (\S+)", str(file)))
    pod = a_pod(vantiq=0)
    session = LogSession(pod, {"vantiq": log_line(pod, f"key: {KEY}")})
    monkeypatch.setattr(type(order.cluster), "session", lambda _: nullcontext(session))
    return order


def test_the_key_is_written_whole_with_mode_0600_and_nothing_is_left_beside_it(order, file):
    assert is_saved(order) is Verdict.NOT_DONE

    save_key.fn(order)

    assert file.read_text() == f"{KEY}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert is_saved(order) is Verdict.DONE
    assert list(file.parent.iterdir()) == [file]


def test_what_a_killed_worker_left_stands_in_the_way_of_nothing(order, file):
    file.touch()
    (file.parent / ".new.part").write_text("abcd-")

    refuse_other_file(order)
    assert is_saved(order) is Verdict.NOT_DONE
    save_key.fn(order)

    assert file.read_text() == f"{KEY}\n"
    assert list(file.parent.iterdir()) == [file]


def test_no_second_copy_of_the_key_is_left_where_a_worker_was_killed_at_the_end(order, file):
    save_key.fn(order)
    (file.parent / ".new.part").hardlink_to(file)

    assert is_saved(order) is Verdict.HALF_DONE
    save_key.fn(order)

    assert is_saved(order) is Verdict.DONE
    assert list(file.parent.iterdir()) == [file]


def test_a_file_with_anything_else_is_neither_saved_nor_written_over(order, file):
    file.write_text("mine\n")

    assert is_saved(order) is Verdict.NOT_DONE
    with pytest.raises(Refused, match="does not have the key of the log"):
        save_key.fn(order)
    with pytest.raises(BadInput, match="is there already"):
        refuse_other_file(order)

    assert file.read_text() == "mine\n"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_refused_by_name(order, file):
    order = an_order(key=KeyWish(r"key: (\S+)", str(file / "below" / "new")))

    with pytest.raises(Refused, match="the key cannot be written to"):
        save_key.fn(order)


def test_whether_a_file_is_saved_is_not_known_once_the_log_has_no_key(order, file, monkeypatch):
    save_key.fn(order)
    pod = a_pod(vantiq=1)
    session = LogSession(pod, {"vantiq": log_line(pod, "ready")})
    monkeypatch.setattr(type(order.cluster), "session", lambda _: nullcontext(session))

    assert is_saved(order) is Verdict.UNKNOWN
