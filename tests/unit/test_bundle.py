"""The bundle: what is in it, that it can be trusted, and that no secret leaves with it."""

import gzip
import io
import json
import stat
import tarfile

import pytest

from recovery.errors import BadInput
from recovery.evidence.bundle import SecretInBundle, verify_bundle, write_bundle
from recovery.journal.sqlite_store import SqliteJournal
from recovery.secrecy.redaction import isolated_registry, register
from tests.unit.journals import (
    RECOVERY,
    Clock,
    Writer,
    changed,
    killed_and_resumed,
    killed_in_doubt,
)

FILES = [
    "HANDOVER.md",
    "SHA256SUMS",
    "environment.json",
    "events.jsonl",
    "plan.json",
    "report.html",
    "report.md",
    "status.json",
]


@pytest.fixture
def journal(tmp_path):
    opened = SqliteJournal(tmp_path / "journal.sqlite")
    opened._connection.execute("pragma synchronous = off")  # hundreds of events, quickly
    yield opened
    opened.close()


@pytest.fixture
def writer(journal, monkeypatch):
    return Writer(journal, Clock(monkeypatch))


def contents(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def repacked(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_a_bundle_holds_all_evidence_and_is_for_its_owner_only(journal, writer, tmp_path):
    killed_and_resumed(writer)

    path = write_bundle(journal, RECOVERY, tmp_path / "bundle.tar.gz")

    files = contents(path)
    assert list(files) == FILES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    events = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    assert [event["hash"] for event in events] == [e.hash for e in journal.events(RECOVERY)]
    assert json.loads(files["plan.json"])["hash"] == "00ff00ff00ff00ff"
    assert json.loads(files["status.json"])["state"] == "recovered"
    assert json.loads(files["environment.json"])["workers"] == ["worker-1:411"]
    assert verify_bundle(path) == []


def test_a_folder_gets_a_bundle_named_by_its_recovery(journal, writer, tmp_path):
    killed_in_doubt(writer)

    path = write_bundle(journal, RECOVERY, tmp_path)

    assert path == tmp_path / f"recovery-{RECOVERY}.tar.gz"


def test_the_same_journal_makes_the_same_bytes(journal, writer, tmp_path):
    killed_and_resumed(writer)

    one = write_bundle(journal, RECOVERY, tmp_path / "one.tar.gz")
    two = write_bundle(journal, RECOVERY, tmp_path / "two.tar.gz")

    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as tar:
        assert {(m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, "", 0o600)}
        last = int(journal.events(RECOVERY)[-1].moment.timestamp())
        assert {m.mtime for m in tar.getmembers()} == {last}


def test_the_handover_says_what_is_safe_and_what_is_not(journal, writer, tmp_path):
    writer.open().start()
    writer.look("refuse_if_target_is_foreign")
    writer.act("back_up_target", 1.4)
    writer.intend("load[user]", "INSERT INTO user")
    writer.kill()

    text = contents(write_bundle(journal, RECOVERY, tmp_path))["HANDOVER.md"].decode()

    seen, tried, safe, forbidden = (
        text.index(f"## What {words}")
        for words in ("was seen", "was tried", "is safe to do next", "must not be done")
    )
    assert "refuse_if_target_is_foreign" in text[seen:tried]
    assert "`load[user]`: In doubt" in text[tried:safe]
    assert f"recover resume {RECOVERY}" in text[safe:forbidden]
    assert f"recover undo {RECOVERY} --by NAME" in text[safe:forbidden]
    assert "Do not repeat `load[user]` by hand" in text[forbidden:]
    assert "It was to send `INSERT INTO user`" in text[forbidden:]


@pytest.mark.parametrize("name", sorted(set(FILES) - {"SHA256SUMS"}))
@pytest.mark.parametrize("change", ["changed", "missing"])
def test_a_file_that_was_touched_is_found(journal, writer, tmp_path, name, change):
    killed_and_resumed(writer)
    path = write_bundle(journal, RECOVERY, tmp_path)
    files = contents(path)
    if change == "changed":
        files[name] += b" "
    else:
        del files[name]
    repacked(path, files)

    found = verify_bundle(path)

    assert any(name in flaw and change in flaw for flaw in found), found


def test_a_file_that_was_added_and_a_list_that_is_gone_are_found(journal, writer, tmp_path):
    killed_and_resumed(writer)
    path = write_bundle(journal, RECOVERY, tmp_path)
    files = contents(path)
    repacked(path, {**files, "more.md": b"trust me"})

    assert verify_bundle(path) == ["more.md was added"]

    del files["SHA256SUMS"]
    repacked(path, files)

    assert "SHA256SUMS is missing" in verify_bundle(path)[0]


@pytest.mark.parametrize("cut", ["middle", "tail"])
def test_a_journal_that_was_changed_before_it_was_bundled_is_found(journal, writer, tmp_path, cut):
    killed_and_resumed(writer)
    which = "seq = 9" if cut == "middle" else "seq > 30"
    with changed(journal) as store:
        store.execute(f"delete from events where {which}")  # noqa: S608 (of this test)

    path = write_bundle(journal, RECOVERY, tmp_path)

    assert verify_bundle(path)
    assert "chain is broken" in contents(path)["HANDOVER.md"].decode()


@pytest.mark.parametrize(
    "data", [b"", b"no archive", gzip.compress(b"no tar", mtime=0), b"\x1f\x8b\x08"]
)
def test_what_is_no_bundle_is_said_to_be_none(tmp_path, data):
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(data)

    assert "no bundle" in verify_bundle(path)[0]


def test_a_bundle_that_was_cut_off_is_found(journal, writer, tmp_path):
    killed_and_resumed(writer)
    path = write_bundle(journal, RECOVERY, tmp_path)
    whole = path.read_bytes()

    for size in (len(whole) // 3, len(whole) - 20):
        path.write_bytes(whole[:size])
        assert verify_bundle(path)


def test_links_and_twins_in_an_archive_are_refused(tmp_path):
    path = tmp_path / "bundle.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("report.md")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)

    assert "no plain file" in verify_bundle(path)[0]


def test_a_bundle_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        verify_bundle(tmp_path / "none.tar.gz")


def test_a_secret_in_the_journal_keeps_the_bundle_from_being_written(journal, writer, tmp_path):
    folder = tmp_path / "bundles"
    folder.mkdir()
    with isolated_registry():
        writer.open().start().act("load[org]", 0.1, "mysql -p hunter2-hunter2")
        writer.end("recovered")
        register("hunter2-hunter2")

        with pytest.raises(SecretInBundle) as raised:
            write_bundle(journal, RECOVERY, folder)

    assert raised.value.files == "events.jsonl"
    assert "hunter2" not in str(raised.value)
    assert list(folder.iterdir()) == []


def test_a_place_that_cannot_be_written_is_bad_input_and_nothing_is_left(journal, writer, tmp_path):
    killed_in_doubt(writer)
    folder = tmp_path / "taken.tar.gz"

    with pytest.raises(BadInput, match="cannot be written"):
        write_bundle(journal, RECOVERY, folder / "none" / "bundle.tar.gz")
    assert not folder.exists()


def test_five_hundred_steps_make_a_bundle_that_verifies(journal, writer, tmp_path):
    writer.open().start()
    for n in range(500):
        writer.act(f"load[{n}]", 0.003)
    writer.end("recovered")

    assert verify_bundle(write_bundle(journal, RECOVERY, tmp_path)) == []
