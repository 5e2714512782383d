"""A host of the lab on which the database of a registry runs, put back to new between tests."""

import shlex
from contextlib import contextmanager, suppress
from urllib.parse import quote

import psycopg

from tests.lab.processes import LabError, made_up_password, wait_until, write_secret

DATA = "/var/lib/postgresql/15/main"
CONFIG = "/etc/postgresql/15/main"
LOG = "/var/log/postgresql/postgresql-15-main.log"
UNIT = "postgresql@15-main.service"
PORT = 5432
EXTRA = """
listen_addresses = '*'
fsync = off
checkpoint_timeout = 1h
max_wal_size = 4GB
log_startup_progress_interval = 200ms
authentication_timeout = 10s
"""
HBA = "\nhost all all samenet scram-sha-256\nhost replication all samenet scram-sha-256\n"

# Runs what makes a server replay its log, and stops the process that does so; nothing is forked in
# between, since a redo of this size is soon over.
STOP_STARTUP = r"""
import os, signal, subprocess, sys, time
subprocess.run(sys.argv[1], shell=True, check=True)
ends = time.monotonic() + 30
while time.monotonic() < ends:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as title:
                is_startup = title.read().startswith(b"postgres: 15/main: startup")
        except OSError:
            continue
        if is_startup:
            sys.exit(os.kill(int(pid), signal.SIGSTOP))
sys.exit("no redo was seen")
"""


class RegistryHost:
    """The host, its cluster `15/main`, and what tests do to them."""

    def __init__(self, host, directory):
        self.host = host
        self.password = made_up_password()
        self.password_file = directory / f"registry-{host.name}.password"
        write_secret(self.password_file, self.password)

    @property
    def address(self):
        return self.host.address

    def url(self, **parts):
        """As the registry is told of its database; parts replace those that would be right."""
        user, port = parts.get("user", "registry"), parts.get("port", PORT)
        place = f"{parts.get('address', self.address)}:{port}/{parts.get('database', 'registry')}"
        file = quote(str(parts.get("password_file", self.password_file)))
        more = f"&{parts['more']}" if "more" in parts else ""
        return f"postgresql://{user}@{place}?password_file={file}{more}"

    def ssh_url(self, user="root"):
        keys = self.host.keys
        return (
            f"ssh://{user}@{self.address}?known_hosts={quote(str(keys.known_hosts))}"
            f"&key_file={quote(str(keys.client_key))}"
        )

    def prepare(self):
        """Make the registry's database, and keep all of it as it is then."""
        self.run(f"cat >> {CONFIG}/postgresql.conf <<'END'\n{EXTRA}\nEND")
        self.run(f"cat >> {CONFIG}/pg_hba.conf <<'END'{HBA}END")
        self.run(f"systemctl start {UNIT}")
        quoted = self.password.replace("'", "''")
        self.psql(f"CREATE ROLE registry LOGIN REPLICATION PASSWORD '{quoted}'")
        self.psql("CREATE DATABASE registry OWNER registry")
        self.run(f"systemctl stop {UNIT}")
        self.run(f"cp -a {DATA} /var/lib/postgresql/new && cp -a {CONFIG} /etc/postgresql/new")

    def reset(self):
        """Put back what `prepare` kept; the server is down afterwards."""
        self.run(
            f"systemctl unmask {UNIT} 2>/dev/null; rm -rf /etc/systemd/system/{UNIT}.d;"
            f"rm -f /etc/systemd/system/lab-pg.service; systemctl daemon-reload;"
            f"for pid in $(pgrep postgres); do kill -CONT $pid; done;"
            f"systemctl kill -s KILL {UNIT} lab-pg.service 2>/dev/null;"
            f"systemctl stop {UNIT} lab-pg.service 2>/dev/null; pkill -9 postgres;"
            f"systemctl reset-failed 2>/dev/null;"
            f"for place in {DATA}/pg_wal {DATA} /mnt/tiny; do "
            f"  while mountpoint -q $place; do umount -l $place; done; done; true"
        )
        wait_until(lambda: not self.pids(), "every server to be gone", within_seconds=20)
        self.run(
            f"rm -rf {DATA} {CONFIG} {LOG}* /run/postgresql/.s.* /tmp/.s.PGSQL.*;"
            f"cp -a /var/lib/postgresql/new {DATA} && cp -a /etc/postgresql/new {CONFIG}"
        )

    def follow(self, primary):
        """Become a streaming standby of another host."""
        quoted = primary.password.replace("'", "'\\''")
        self.run(
            f"rm -rf {DATA}; PGPASSWORD='{quoted}' runuser -u postgres -- pg_basebackup -R "
            f"--checkpoint=fast -h {primary.address} -U registry -D {DATA}"
        )
        self.configure(cluster_name=self.host.name)
        self.run(f"systemctl start {UNIT}")
        wait_until(
            lambda: self.psql("SELECT status FROM pg_stat_wal_receiver") == "streaming",
            "it to stream",
            within_seconds=30,
        )

    def run(self, text, within_seconds=60):
        return self.host.run(text, within_seconds)

    def psql(self, statement, database="postgres"):
        """Run a statement as the superuser of the server, and return what is printed."""
        quoted = statement.replace("'", "'\\''")
        return self.run(f"runuser -u postgres -- psql -XAtq -d {database} -c '{quoted}'").strip()

    def configure(self, **settings):
        lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        self.run(f"cat >> {CONFIG}/postgresql.conf <<'END'\n{lines}END")

    def start(self):
        self.run(f"systemctl start {UNIT}")
        wait_until(self.answers, "the server to answer", within_seconds=20)

    def answers(self):
        with self.connect():
            return True

    def connect(self, **options):
        return psycopg.connect(
            host=self.address, port=PORT, user="registry", dbname="registry",
            password=self.password, autocommit=True, connect_timeout=3, **options,
        )  # fmt: skip

    def pids(self):
        """Every process of a server."""
        with suppress(LabError):
            return self.run("pgrep -x postgres").split()
        return []

    def postmaster(self):
        """Number and start of the server's process; empty where none runs."""
        with suppress(LabError):
            pid = self.run(f"head -n 1 {DATA}/postmaster.pid").strip()
            return self.run(f"cut -d ' ' -f 1,22 /proc/{pid}/stat").strip()
        return ""

    def kill(self):
        """Kill the server as the kernel would."""
        self.run(f"kill -9 $(head -n 1 {DATA}/postmaster.pid)")
        wait_until(self.is_settled, "systemd to have noticed", within_seconds=90)

    def is_settled(self):
        """Whether nothing runs and the unit is not on its way: Debian's own stop cleans up."""
        state = self.run(f"systemctl show -p ActiveState --value {UNIT}").strip()
        return not self.pids() and state in {"failed", "inactive"}

    def stop_redo(self, trigger):
        """Do what makes the server replay its log, and hold it in the middle of that."""
        self.host.write("root/stop_startup.py", STOP_STARTUP)
        self.run(f"python3 /root/stop_startup.py {shlex.quote(trigger)}")

    def log(self):
        return self.run(f"cat {LOG}* 2>/dev/null || true")

    def starts(self):
        """How often a server came up, as its log has it."""
        return self.log().count("starting PostgreSQL")

    @contextmanager
    def transaction(self, statement="CREATE TABLE IF NOT EXISTS held (n int)"):
        """Be in the middle of a transaction."""
        with suppress(psycopg.OperationalError), self.connect() as connection:
            connection.execute("BEGIN")
            connection.execute(statement)
            yield connection
