"""Backups on the host and off it: sealed, proven, and refused where they could not be."""

import hashlib
import io
import json
import secrets
import tarfile
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.ssh.command import Answer
from recovery.errors import BadInput, CommandFailed, NotVerified, Refused
from recovery.secrecy.secret import Secret, isolated_registry
from recovery.verdict import Verdict
from tasks.certificates import backup, off_host, restoring, sealed
from tasks.certificates.off_host import BackupKey, OffHostCopy
from tests.unit.certificates_seen import account, job_of, seen_host
from tests.unit.test_certificates_look import encoded

HEX = "5f" * 32
SIZES = [0, 1, 65535, 65536, 65537, 131072, 200_000]


@pytest.fixture(autouse=True)
def own_secrets():
    with isolated_registry():
        yield


@pytest.fixture
def key():
    return Secret(HEX)


def seal(path, content, key, *, pieces=1000):
    with sealed.create_private(path) as file:
        writer = sealed.SealedWriter(file, key)
        assert writer.writable()
        for start in range(0, len(content), pieces):
            assert writer.write(content[start : start + pieces]) > 0
        return writer.finish()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", [997, 65536, 1 << 20])
def test_what_was_sealed_is_opened_whatever_its_size(tmp_path, key, size, pieces):
    content, path = secrets.token_bytes(size), tmp_path / "sealed"

    sha256 = seal(path, content, key, pieces=pieces)

    assert b"".join(sealed.opened(path, key)) == content
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_of_it_is_in_the_clear_and_no_two_are_the_same(tmp_path, key):
    content = b"-----BEGIN RSA PRIVATE KEY-----" * 5000
    one, other = tmp_path / "1", tmp_path / "2"

    seal(one, content, key)
    seal(other, content, key)

    assert b"PRIVATE" not in one.read_bytes()
    assert one.read_bytes()[60:] != other.read_bytes()[60:]
    assert HEX not in one.read_bytes().hex()


DAMAGE = {
    "one bit": lambda body: body[:100] + bytes([body[100] ^ 1]) + body[101:],
    "a bit of the header": lambda body: body[:20] + bytes([body[20] ^ 1]) + body[21:],
    "cut between two chunks": lambda body: body[: sealed.HEADER_BYTES + 2 * (65536 + 16)],
    "cut inside a chunk": lambda body: body[:-5],
    "two chunks swapped": lambda body: (
        body[: sealed.HEADER_BYTES]
        + body[sealed.HEADER_BYTES + 65552 : sealed.HEADER_BYTES + 131104]
        + body[sealed.HEADER_BYTES : sealed.HEADER_BYTES + 65552]
        + body[sealed.HEADER_BYTES + 131104 :]
    ),
    "something appended": lambda body: body + b"x",
    "nothing behind the header": lambda body: body[: sealed.HEADER_BYTES],
    "no header": lambda body: b"x" * 500,
    "nothing": lambda body: b"",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_of_any_kind_is_found(tmp_path, key, name):
    path = tmp_path / "sealed"
    seal(path, secrets.token_bytes(180_000), key)
    path.write_bytes(DAMAGE[name](path.read_bytes()))

    with pytest.raises(Refused, match=r"not what was written|no encrypted backup"):
        list(sealed.opened(path, key))


def test_another_key_is_told_from_damage(tmp_path, key):
    path = tmp_path / "sealed"
    seal(path, b"something", key)

    with pytest.raises(Refused, match="was encrypted with key"):
        list(sealed.opened(path, Secret("ab" * 32)))


def test_a_key_is_read_from_a_file_that_nobody_else_may_read(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"{HEX}\n")
    path.chmod(0o600)

    assert sealed.load_key(path).reveal() == HEX

    path.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        sealed.load_key(path)


@pytest.mark.parametrize("content", ["", "abc", "zz" * 32, f"{HEX}{HEX}", "\udcff"])
def test_a_key_that_is_none_is_refused_with_how_to_make_one(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)

    with pytest.raises(BadInput, match="openssl rand -hex 32"):
        sealed.load_key(path)


def test_a_key_that_is_not_there_is_refused_with_how_to_make_one(tmp_path):
    with pytest.raises(BadInput, match="openssl rand -hex 32"):
        sealed.load_key(tmp_path / "none")


def test_no_key_named_is_refused_with_both_ways_out(tmp_path):
    with pytest.raises(Refused, match=r"openssl rand -hex 32.*off_host_backup=false"):
        off_host.refuse_unless_key_is_named(BackupKey(""))

    path = tmp_path / "key"
    path.write_text(HEX)
    path.chmod(0o600)
    off_host.refuse_unless_key_is_named(BackupKey(str(path)))


# -- the copy on the worker ----------------------------------------------------------------------

FILES = {"etc/kubernetes/pki/ca.key": b"secret", "etc/kubernetes/admin.conf": b"conf" * 30_000}


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        folder = tarfile.TarInfo("etc/kubernetes/manifests")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return buffer.getvalue()


def listed(files):
    return "".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in files.items())


class Archived:
    """A host that keeps an archive, and notes what it is told to change."""

    def __init__(self, archive=b"", listed="", *, is_whole=True, ready="", summed=""):
        self.label = self.target = "root@cp1"
        self.archive, self.listed, self.is_whole = archive, listed, is_whole
        self.ready, self.summed = ready, summed
        self.changed, self.written = [], {}

    def session(self):
        return nullcontext(self)

    def command_line(self, argv, *, as_root=False):
        return " ".join(argv)

    def read(self, argv, **options):
        text, code = "", 0
        if "is-whole" in argv:
            code = 0 if self.is_whole else 1
        elif argv[0] == "cat":
            text = self.listed
        elif argv[0] == "sha256sum":
            text = self.summed
        elif "ready" in argv:
            text = f"ready\t{encoded(self.ready)}"
        return Answer(argv[0], self.target, code, text, "")

    def read_into(self, argv, sink, **options):
        if not self.archive:
            raise CommandFailed(self.target, "cat", 1, "No such file or directory")
        sink.write(self.archive)

    def change(self, argv, **options):
        self.changed.append(list(argv))
        return Answer(argv[0], self.target, 0, "", "")

    def put(self, content, path, **options):
        self.written[path] = content


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOVER_WORK_DIR", str(tmp_path / "work"))
    path = tmp_path / "key"
    path.write_text(HEX)
    path.chmod(0o600)
    return BackupKey(str(path))


def job_on(host, *, key="", **options):
    return replace(job_of(host=host, **options), backup_key_file=key)


def test_the_archive_is_copied_sealed_and_proven(worker):
    job = job_on(Archived(tar_of(FILES), listed(FILES)))
    assert not off_host.is_copied(job)

    off_host.copy_off_host(job, worker)

    assert off_host.is_copied(job)
    copy = OffHostCopy("root@cp1")
    assert b"secret" not in copy.path.read_bytes()
    assert json.loads(copy.note.read_text())["files"] == len(FILES)
    assert not list(copy.path.parent.glob("*.partial"))
    assert {p.stat().st_mode & 0o777 for p in copy.path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (FILES, listed({**FILES, "etc/kubernetes/pki/sa.key": b"more"})),
        ({**FILES, "etc/more": b""}, listed(FILES)),
        ({**FILES, "etc/kubernetes/admin.conf": b"other"}, listed(FILES)),
        (FILES, ""),
    ],
)
def test_a_copy_that_is_not_what_the_host_holds_is_none(worker, held, told):
    job = job_on(Archived(tar_of(held), told))

    with pytest.raises(NotVerified, match="Nothing was changed on the host"):
        off_host.copy_off_host(job, worker)

    assert not off_host.is_copied(job)


@pytest.mark.parametrize("content", [b"no archive", tar_of(FILES)[:90]], ids=["text", "cut"])
def test_what_is_no_archive_is_none(worker, content):
    job = job_on(Archived(content, listed(FILES)))

    with pytest.raises(NotVerified):
        off_host.copy_off_host(job, worker)


def test_a_worker_without_space_is_told(worker, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealed, "create_private", full)

    with pytest.raises(Refused, match="No space left"):
        off_host.copy_off_host(job_on(Archived(tar_of(FILES), listed(FILES))), worker)


def test_a_copy_that_was_damaged_later_is_none_any_more(worker):
    job = job_on(Archived(tar_of(FILES), listed(FILES)))
    off_host.copy_off_host(job, worker)
    copy = OffHostCopy("root@cp1")

    copy.path.write_bytes(copy.path.read_bytes()[:-1])

    assert not off_host.is_copied(job)


def test_names_of_hosts_make_names_of_files(worker):
    assert OffHostCopy("root@[fd00::1]:22").path.name == "root@_fd00__1__22.tgz.sealed"


def test_the_plan_of_a_copy_says_what_is_read_and_where_it_goes(worker):
    (line,) = off_host.copy_commands(job_on(Archived()), worker)

    assert line.startswith("cat -- /var/backups/kubernetes-certificates/")
    assert "| encrypt with" in line


# -- the backup on the host ----------------------------------------------------------------------


def test_what_is_backed_up_holds_the_kubeconfigs_of_people_and_a_folder_elsewhere():
    seen = seen_host(left=timedelta(days=3), pki="/srv/pki", accounts=(account(),))

    assert backup.kept_paths(job_on(Archived(), seen=seen)) == (
        "etc/kubernetes",
        "var/lib/kubelet/pki",
        "srv/pki",
        "home/ops/.kube/config",
    )


@pytest.mark.parametrize(("is_whole", "verdict"), [(True, Verdict.DONE), (False, Verdict.NOT_DONE)])
def test_a_backup_counts_only_while_it_is_whole(is_whole, verdict):
    assert backup.is_backed_up(job_on(Archived(is_whole=is_whole))) is verdict


# -- the way back --------------------------------------------------------------------------------


def test_an_archive_that_is_gone_is_sent_back_from_the_worker(worker):
    archive = tar_of(FILES)
    off_host.copy_off_host(job_on(Archived(archive, listed(FILES))), worker)
    bare = Archived(is_whole=False)

    restoring.prepare_archive(job_on(bare, key=worker.path))

    written = {Path(path).name: content for path, content in bare.written.items()}
    assert written["archive.tgz"] == archive
    assert written["files.sha256"] == listed(FILES).encode()
    assert written["seal.sha256"].decode() == listed(
        {"archive.tgz": archive, "files.sha256": listed(FILES).encode()}
    )
    assert bare.changed == [["install", "-d", "-m", "0700", backup.folder_of()]]


def test_an_archive_that_is_whole_is_used_where_it_lies():
    host = Archived()

    restoring.prepare_archive(job_on(host))

    assert not host.written


def test_without_any_archive_the_way_back_says_where_to_look(worker):
    with pytest.raises(Refused, match="this worker has none"):
        restoring.prepare_archive(job_on(Archived(is_whole=False), key=worker.path))


READY = "HTTP/1.0 200 OK\r\n\r\nok"
ENDED = timedelta(days=-9000)


@pytest.mark.parametrize(
    ("left", "ready", "is_refused"),
    [(ENDED, READY, True), (ENDED, "", False), (timedelta(days=9000), READY, False)],
)
def test_a_control_plane_that_works_is_not_put_back_to_what_has_ended(left, ready, is_refused):
    seen = seen_host(left=left, each={"apiserver": timedelta(days=3)})
    job = job_on(Archived(ready=ready), seen=seen, days=9001)

    if is_refused:
        with pytest.raises(Refused, match="that would stop it"):
            restoring.refuse_to_go_back_to_ended(job)
    else:
        restoring.refuse_to_go_back_to_ended(job)


def test_every_file_put_back_is_held_against_its_hash():
    told = listed({"etc/kubernetes/pki/apiserver.crt": b"old", "etc/other": b"x"})
    same = listed({"/etc/kubernetes/pki/apiserver.crt": b"old"})

    restoring.refuse_unless_put_back(job_on(Archived(listed=told, summed=same)))
    with pytest.raises(NotVerified, match=r"another /etc/kubernetes/pki/apiserver\.crt"):
        restoring.refuse_unless_put_back(job_on(Archived(listed=told, summed="")))
    restoring.refuse_unless_put_back(job_on(Archived(listed="")))


def test_only_what_was_made_anew_counts_as_ended():
    job = job_on(Archived(), seen=seen_host(each={"apiserver": timedelta(days=-1)}))

    assert restoring.ended_before(job.work, datetime.now(UTC)) == ["apiserver"]
    assert restoring.ended_before(replace(job.work, names=()), datetime.now(UTC)) == []
