"""What is leased with a database: its server, and the host that runs it."""

from blocks.inventory import host_named, leased_places
from blocks.postgres.server import PostgresServer


def server_and_host(database: str, host: str) -> list[str]:
    """The server by every name known of it, since another database of it is the same server.

    Args:
        database: the parameter that names the database.
        host: the parameter that names its host; empty: none.
    """
    places = leased_places([host_named(host)], "host") if host else []
    return [*PostgresServer.named(database).places, *places]
