"""Lab hosts with the members of one etcd: TLS, units of Debian, power cuts, keys that are counted.

What is counted here is counted by `etcdctl` inside the hosts, without any code of the recovery.
The programs are Debian's, or those of a newer etcd, shown in their place.
"""

import base64
import contextlib
import hashlib
import ipaddress
import json
import shlex
import subprocess
from datetime import timedelta
from pathlib import Path

from tasks.etcd.wal import parse_segment
from tests.lab.control_plane_host import binary
from tests.lab.hosts import lab_hosts
from tests.lab.pki import CLIENT, SERVER, Validity, Wanted, authority, new_key
from tests.lab.processes import LabError, ServerMissing, wait_until

DATA = "/var/lib/etcd/default"
FILE = "/etc/default/etcd"
TLS = "/etc/ssl/etcd"
COPIES = "/var/lib/recover/copies"
AT_ONCE = 100  # operations of one transaction; etcd allows 128
UP_WITHIN_SECONDS = 60
PROGRAMS = ("etcd", "etcdctl", "etcdutl")
NEWER = (3, 5)
ENVIRONMENT = """\
# The etcd of the lab.
ETCD_NAME={name}
ETCD_DATA_DIR={data}
ETCD_LISTEN_PEER_URLS=https://{address}:2380
ETCD_LISTEN_CLIENT_URLS=https://{address}:2379,https://127.0.0.1:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://{address}:2380
ETCD_ADVERTISE_CLIENT_URLS=https://{address}:2379

# It was begun with these.
ETCD_INITIAL_CLUSTER={cluster}
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_INITIAL_CLUSTER_TOKEN=lab
ETCD_QUOTA_BACKEND_BYTES=5000000

ETCD_TRUSTED_CA_FILE={tls}/ca.pem
ETCD_CERT_FILE={tls}/member.pem
ETCD_KEY_FILE={tls}/member-key.pem
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_TRUSTED_CA_FILE={tls}/ca.pem
ETCD_PEER_CERT_FILE={tls}/member.pem
ETCD_PEER_KEY_FILE={tls}/member-key.pem
ETCD_PEER_CLIENT_CERT_AUTH=true
"""
NEW = f"""
systemctl kill -s KILL etcd 2>/dev/null
systemctl unmask etcd 2>/dev/null
systemctl stop etcd $(systemctl list-units --all --no-legend --plain 'recover-*' | cut -d' ' -f1)
systemctl reset-failed 2>/dev/null
rm -rf /var/lib/etcd/* {COPIES} /run/recover/units /root/acknowledged
cp -p /etc/etcd.as-new {FILE}
"""


class LabMember:
    """A member of etcd on a lab host, run by a unit of systemd."""

    data = DATA
    file = FILE  # what it is told of its cluster in
    tls = (f"{TLS}/ca.pem", f"{TLS}/member.pem", f"{TLS}/member-key.pem")

    def __init__(self, host):
        self.host = host

    @property
    def client_url(self):
        return f"https://{self.host.address}:2379"

    @property
    def label(self):
        """As a recovery calls the host."""
        return self.host.block().label

    @property
    def etcdctl(self):
        """The program with its certificate, as a shell takes it."""
        authority, certificate, key = self.tls
        return f"etcdctl --cacert={authority} --cert={certificate} --key={key}"

    def ctl(self, *words, endpoints="", within_seconds=15, stdin=""):
        """What etcdctl prints, run inside the host with the certificate of this member.

        `stdin` is a command whose output it reads.
        """
        command = (
            f"timeout {within_seconds} {self.etcdctl} --endpoints={endpoints or self.client_url} "
            f"--command-timeout={within_seconds}s {shlex.join(words)}"
        )
        if stdin:
            command = f"{stdin} | {command}"
        return self.host.run(command, within_seconds + 10)

    def power_on(self):
        """Give the host its power back, and wait for sshd: it boots until its etcd has quorum."""
        self.host.power_on(wait=False)
        wait_until(
            lambda: "active" in self.host.run("systemctl is-active ssh").split(),
            f"sshd of {self.host}",
            within_seconds=UP_WITHIN_SECONDS,
        )

    def status(self):
        return json.loads(self.ctl("endpoint", "status", "-w", "json"))[0]["Status"]

    def revision(self):
        """At which revision it is; each write of a client is one."""
        return self.status()["header"]["revision"]

    def log_end(self):
        """Where its log ends, as it lies on the disk."""
        *_, last = sorted(self.host.run(f"ls {self.data}/member/wal/*.wal").split())
        return parse_segment(Path(last).name, self.host.read_file(last))

    def is_healthy(self):
        with contextlib.suppress(LabError):
            self.ctl("endpoint", "health", within_seconds=5)
            return True
        return False

    def fill(self, count, prefix="key"):
        """Write that many keys, each acknowledged."""
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            puts = "".join(f"put {prefix}/{n:05} value-{n}\n" for n in numbers)
            text = f"\n{puts}\n\n"
            self.ctl("txn", stdin=f"printf %s {shlex.quote(text)}")

    def contents(self):
        """Every key with its value, as this member has them; needs no quorum.

        Those of Kubernetes are left out: they change by themselves.
        """
        printed = self.ctl("get", "", "--from-key", "--consistency=s", "-w", "json")
        pairs = json.loads(printed).get("kvs", [])
        return {
            base64.b64decode(pair["key"]).decode(): base64.b64decode(pair["value"]).decode()
            for pair in pairs
            if not base64.b64decode(pair["key"]).startswith(b"/registry/")
        }

    @contextlib.contextmanager
    def writer(self):
        """Let a client inside the host write key after key; yields what tells the acknowledged."""
        script = (
            "i=0; while :; do i=$((i+1)); "
            f"{self.etcdctl} --endpoints={self.client_url} put written/$i $i >/dev/null 2>&1 && "
            "echo written/$i >> /root/acknowledged; done"
        )
        self.host.run(f"systemd-run --quiet --unit=writer sh -c {shlex.quote(script)}")
        try:
            yield lambda: self.host.read_file("/root/acknowledged").decode().split()
        finally:
            self.host.run("systemctl stop writer")

    def fill_up(self):
        """Write values over and over until the database has reached its quota."""
        script = (
            "v=$(head -c 50000 /dev/zero | tr '\\0' x); echo; "
            'for n in 1 2 3 4 5 6 7 8; do echo "put large/$n $v"; done; echo; echo'
        )
        for _ in range(60):
            try:
                self.ctl("txn", stdin=f"({script})")
            except LabError as error:
                if "database space exceeded" in str(error):
                    return
                raise
        raise LabError("the quota was not reached")

    def compact(self):
        """Let go of all old revisions."""
        self.ctl("compact", "--physical", str(self.status()["header"]["revision"]))

    def stop(self):
        """Stop it, as a person does."""
        self.host.run("systemctl stop etcd")

    def kill(self):
        """End it at once, and have it stay down."""
        self.host.run("systemctl kill -s KILL etcd; systemctl stop etcd")

    def start(self):
        """Start it, and do not wait until it serves."""
        self.host.run("systemctl start --no-block etcd")

    def is_at_rest(self):
        """Whether it is stopped."""
        state = self.host.run("systemctl is-active etcd || true").strip()
        return state in {"inactive", "failed"}

    def lose_data(self):
        """Stop the member for good, and have its disk be empty."""
        self.kill()
        self.host.run(f"rm -rf {self.data}")

    def damage(self):
        """Overwrite pages in the middle of its database while it is stopped."""
        self.kill()
        self.host.run(
            f"cd {self.data}/member/snap && dd if=/dev/urandom of=db bs=4096 seek=2 count=40 "
            "conv=notrunc status=none"
        )

    def inode(self):
        """That of its database, by which the file is told from any copy."""
        return self.host.run(f"stat -c %i {self.data}/member/snap/db").strip()

    def copies_of_data(self):
        """Places on this host that hold data of etcd: directories of a member, and snapshots."""
        found = self.host.run(
            f"find /var/lib/etcd {COPIES} -name db -path '*member*' -o -name db -path '*before*'"
            " -o -name snapshot.db 2>/dev/null || true"
        )
        return sorted(found.split())


class EtcdLab:
    """The members, and what is done to all of them."""

    has_other_clients = False  # that write to it as well

    def __init__(self, lab, spares=0):
        self.lab = lab
        count = len(lab.hosts) - spares
        self.members = [LabMember(host) for host in lab.hosts[:count]]
        self.spares = [LabMember(host) for host in lab.hosts[count:]]  # set up, in no cluster
        self.initial = ",".join(
            f"{m.host.name}=https://{m.host.address}:2380" for m in self.members
        )

    def hosts(self, user="root", *, with_spares=False):
        """As a recovery is told of them."""
        named = [*self.members, *self.spares] if with_spares else self.members
        return " ".join(member.host.url(user) for member in named)

    def prepare(self):
        """Give each its certificate and its settings."""
        validity = Validity.with_left(timedelta(days=300), timedelta(days=365))
        root = authority("etcd-ca", validity, new_key())
        for member in (*self.members, *self.spares):
            host = member.host
            addresses = (ipaddress.ip_address(host.address), ipaddress.ip_address("127.0.0.1"))
            wanted = Wanted(host.name, (), (SERVER, CLIENT), (host.name,), addresses)
            pair = root.issue(wanted, validity, new_key())
            host.run(f"install -d -o etcd -g etcd -m 0750 {TLS}")
            host.write(f"{TLS}/ca.pem", root.certificate_pem.decode())
            host.write(f"{TLS}/member.pem", pair.certificate_pem.decode())
            host.write(f"{TLS}/member-key.pem", pair.key_pem.decode(), mode=0o600)
            said = {"name": host.name, "data": DATA, "address": host.address, "tls": TLS}
            text = ENVIRONMENT.format(cluster=self.initial, **said)
            host.write("etc/etcd.as-new", text)
            host.run(f"chown etcd {TLS}/*")
        self.enable_members()

    def enable_members(self):
        """Have members started when their hosts boot, and spares not."""
        for member in self.members:
            member.host.run("systemctl enable etcd 2>/dev/null")
        for member in self.spares:
            member.host.run("systemctl disable etcd 2>/dev/null")

    def begin_anew(self):
        """Let all members run as on the first day, whatever a test has done."""
        self.lab.heal()
        for member in (*self.members, *self.spares):
            member.host.thaw()
        for member in (*self.members, *self.spares):
            member.power_on()
            member.host.run(NEW)
        if self.spares:  # one may have become a member
            self.enable_members()
        for member in self.members:  # none while another still runs: that would know it already
            member.host.run("systemctl start --no-block etcd")
        self.wait_until_healthy()

    def wait_until_healthy(self):
        for member in self.members:
            wait_until(member.is_healthy, f"{member.host}", within_seconds=UP_WITHIN_SECONDS)

    def digest(self):
        """What each member that runs has of all keys."""
        return {m.host.name: digest_of(m.contents()) for m in self.members if m.host.machine.is_on}


def digest_of(contents):
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def newer_etcd():
    """Where the programs of an etcd that is newer than Debian's lie, by name.

    Raises:
        ServerMissing: one of them is absent, or they are no newer; says which.
    """
    found = {name: binary(name) for name in PROGRAMS}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise ServerMissing(f"there is no newer {', '.join(missing)} in KUBEBUILDER_ASSETS")
    told = subprocess.run([found["etcd"], "--version"], capture_output=True, text=True, check=True)
    version = told.stdout.split()[2]  # etcd Version: 3.6.14
    if tuple(int(part) for part in version.split(".")[:2]) < NEWER:
        raise ServerMissing(f"etcd in KUBEBUILDER_ASSETS is {version}, and no newer than Debian's")
    return found


@contextlib.contextmanager
def etcd_lab(directory: Path, count=3, spares=0, *, is_newer=False):
    """Run that many hosts with a member of etcd each, healthy and empty.

    Args:
        directory: for keys and logs; made where it is missing.
        count: how many members.
        spares: how many hosts more, on which etcd is set up and does not run.
        is_newer: run the programs of KUBEBUILDER_ASSETS instead of Debian's.

    Raises:
        ServerMissing: those are not there, or this machine cannot run hosts.
    """
    shown = newer_etcd() if is_newer else {}
    binds = [(path.resolve(), Path("/usr/bin") / name, True) for name, path in shown.items()]
    with lab_hosts(directory, count + spares, binds=binds) as lab:
        etcd = EtcdLab(lab, spares)
        etcd.prepare()
        etcd.begin_anew()
        yield etcd
