"""One machine under several names is leased as one."""

import pytest

from blocks.inventory import hosts_named, leased_places
from blocks.machines import names_of
from blocks.postgres.server import PostgresServer
from flows import certificates, clocks, redis_server, registry_database, registry_indexes
from recovery.declare import RECOVERIES
from recovery.errors import BadInput

BY_NAME, BY_ADDRESS = "ssh://root@localhost", "ssh://ops@127.0.0.1"
FLOWS = (certificates, clocks, redis_server, registry_database, registry_indexes)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        ("FE80::1%eth0", ("FE80::1%eth0", "fe80::1")),
        ("::ffff:10.0.0.1", ("::ffff:10.0.0.1", "10.0.0.1")),
        ("nonesuch.invalid", ("nonesuch.invalid",)),
        ("no..name", ("no..name",)),
    ],
)
def test_an_address_is_written_in_one_way_and_a_name_nobody_knows_stays(name, names):
    assert names_of(name) == names


def test_a_name_is_followed_by_the_addresses_it_stands_for():
    assert names_of("localhost")[:2] == ("localhost", "127.0.0.1")


def test_a_name_that_a_jump_host_resolves_stays_as_it_is():
    (host,) = hosts_named(f"{BY_NAME}:2222?jump=ssh%3A%2F%2Fbastion").hosts

    assert host.places == ("localhost:2222",)


def test_one_host_given_by_two_names_is_bad_input():
    with pytest.raises(BadInput, match="and localhost are one host"):
        leased_places(hosts_named(f"{BY_ADDRESS} {BY_NAME}").hosts)


@pytest.mark.parametrize("flow", ["renew-control-plane-certificates", "synchronise-clocks"])
def test_hosts_by_name_and_by_address_are_leased_as_the_same(flow):
    by_name, by_address = (
        RECOVERIES[flow].parts_of(hosts=f"ssh://root@cp9.invalid {one}")
        for one in (BY_NAME, BY_ADDRESS)
    )

    assert set(by_name) & set(by_address) == {"cp9.invalid", "127.0.0.1"}


def test_a_redis_by_name_and_by_address_is_leased_as_the_same():
    by_name, by_address = (
        RECOVERIES["recover-redis"].parts_of(host=one) for one in (BY_NAME, BY_ADDRESS)
    )

    assert set(by_name) & set(by_address) == {"127.0.0.1"}


@pytest.mark.parametrize(
    "flow",
    ["recover-registry-database", "force-registry-database-shutdown", "repair-registry-indexes"],
)
def test_two_databases_of_one_server_are_leased_as_the_same(flow):
    one, other = (
        RECOVERIES[flow].parts_of(database=database, host=host)
        for database, host in (
            ("postgresql://u@localhost:5433/registry", BY_NAME),
            ("postgresql://v@127.0.0.1:5433/postgres", BY_ADDRESS),
        )
    )

    assert set(one) & set(other) == {"postgresql server 127.0.0.1 port 5433", "127.0.0.1"}
    assert RECOVERIES[flow].parts_of(database="postgresql://u@db.invalid/d", host="") == [
        "postgresql server db.invalid port 5432"
    ]


def test_a_server_that_its_host_reaches_by_loopback_is_that_of_the_host():
    through = PostgresServer.from_url(
        "postgresql://u@127.0.0.1/d?via=ssh%3A%2F%2Froot%40db.invalid"
    )

    assert through.places == PostgresServer.from_url("postgresql://u@db.invalid/e").places
