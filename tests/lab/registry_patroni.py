"""Two hosts of the lab with the database of a registry under Patroni, and etcd on the first."""

import json

import yaml

from tests.lab.processes import wait_until
from tests.lab.registry_host import DATA, PORT, RegistryHost

CONFIG = "/etc/patroni/config.yml"
SCOPE = "registry"


class PatroniPair:
    """`db1`, which is to lead, and `db2`, which may not."""

    def __init__(self, lab, directory):
        self.hosts = [RegistryHost(host, directory) for host in lab.hosts]
        self.leader, self.replica = self.hosts
        self.replica.password = self.leader.password
        self.replica.password_file = self.leader.password_file
        self.superuser_password, self.replication_password = "su" * 9, "re" * 9

    def configuration(self, member):
        address = member.address
        hba = [
            "local all all peer",
            "host replication replicator samenet scram-sha-256",
            "host all all samenet scram-sha-256",
        ]
        return {
            "scope": SCOPE,
            "name": member.host.name,
            "etcd3": {"host": f"{self.leader.address}:2379"},
            "restapi": {"listen": "0.0.0.0:8008", "connect_address": f"{address}:8008"},
            "bootstrap": {
                "dcs": {"ttl": 20, "loop_wait": 1, "retry_timeout": 9},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"0.0.0.0:{PORT}",
                "connect_address": f"{address}:{PORT}",
                "data_dir": DATA,
                "bin_dir": "/usr/lib/postgresql/15/bin",
                "use_unix_socket": True,
                "basebackup": [{"checkpoint": "fast"}],
                "pg_hba": hba,
                "parameters": {"unix_socket_directories": "/run/postgresql", "fsync": "off"},
                "authentication": {
                    "superuser": {"username": "postgres", "password": self.superuser_password},
                    "replication": {
                        "username": "replicator", "password": self.replication_password,
                    },
                },
            },
            "tags": {"nofailover": member is self.replica},
        }  # fmt: skip

    def prepare(self):
        first = self.leader
        first.run(
            f"printf 'ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379\\n"
            f"ETCD_ADVERTISE_CLIENT_URLS=http://{first.address}:2379\\n' >> /etc/default/etcd;"
            "systemctl start etcd"
        )
        for member in self.hosts:
            member.run(f"rm -rf {DATA}; install -d -o postgres -g postgres -m 700 {DATA}")
            member.host.write(CONFIG, yaml.safe_dump(self.configuration(member)), mode=0o640)
            member.run(f"chown root:postgres {CONFIG}; systemctl start patroni")
            wait_until(
                lambda name=member.host.name: self.state_of(name) in {"running", "streaming"},
                f"{member.host.name} to run",
                within_seconds=90,
            )
            if member is first:
                quoted = member.password.replace("'", "''")
                wait_until(lambda: not self.in_recovery(), "it to lead", within_seconds=60)
                member.psql(f"CREATE ROLE registry LOGIN PASSWORD '{quoted}'")
                member.psql("CREATE DATABASE registry OWNER registry")

    def members(self):
        printed = self.leader.run(f"patronictl -c {CONFIG} list -f json")
        return {row["Member"]: row for row in json.loads(printed)}

    def state_of(self, name):
        return self.members().get(name, {}).get("State", "")

    def in_recovery(self):
        return self.leader.psql("SELECT pg_is_in_recovery()") == "t"

    def restore(self):
        """Let both run again as they did, whatever a test has done."""
        self.leader.run(
            "test -e /usr/bin/patronictl || mv /usr/bin/patronictl.away /usr/bin/patronictl;"
            "systemctl unmask patroni 2>/dev/null; systemctl start etcd;"
            f"sed -i '/pre_auth_delay/d' {DATA}/postgresql.auto.conf"
        )
        self.leader.run(f"patronictl -c {CONFIG} resume {SCOPE} 2>/dev/null || true")
        for member in self.hosts:
            member.run("systemctl reset-failed patroni 2>/dev/null; systemctl start patroni")
        wait_until(
            lambda: self.state_of("db1") == "running" and not self.in_recovery(),
            "db1 to lead",
            within_seconds=90,
        )
