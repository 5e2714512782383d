"""A MySQL database whose server runs in a pod, reached through its port."""

import atexit
import os
from contextlib import ExitStack

from blocks.kube.forward import forward_to_pod
from blocks.mysql.server import MysqlServer, label_of
from recovery.errors import BadInput
from tasks.grafana.pods import place_in, ready_pod
from tasks.workloads.target import workload_order

FORWARDED_SECONDS = 12 * 3600
WITHIN_SECONDS = 60

_forwarded: dict[tuple[int, str, int], str] = {}
_open = ExitStack()
atexit.register(_open.close)


class MysqlInPod(MysqlServer):
    """A database that is reached through a socket, and is named by the Service it is known by."""

    _block_type_name = "MySQL database in a pod"
    _block_type_slug = "mysql-database-in-a-pod"

    @property
    def label(self) -> str:
        """The database by host and port, as clients in the cluster call it."""
        return label_of(self.host, self.port, self.database)


def through_pod(server: MysqlServer, cluster: str, namespace: str, workload: str) -> MysqlServer:
    """The same database, reached through a ready pod of this workload; itself where none is named.

    The way stays open until the process ends. A pod that is replaced meanwhile is not followed: a
    resume opens another way.

    Raises:
        BadInput: a workload is named and no cluster, or the database is reached by a socket.
        Refused: there is no such workload, or none of its pods is ready.
        ClusterForbidden, CommandFailed, Unreachable: as of `forward_to_pod`.
    """
    if not workload:
        return server
    if not cluster:
        raise BadInput("mysql", "a workload is named, and no cluster", "Give cluster, or empty it")
    if server.unix_socket is not None:
        raise BadInput(
            "target", "it names a socket of this worker", "Give the Service and its port"
        )
    order = workload_order(cluster, workload, namespace, WITHIN_SECONDS)
    key = (os.getpid(), order.label, server.port)
    if key not in _forwarded:
        with order.cluster.session() as session:
            place = place_in(ready_pod(session, order))
            way = forward_to_pod(session, place, server.port, within_seconds=FORWARDED_SECONDS)
            _forwarded[key] = str(_open.enter_context(way))
    fields = {name: getattr(server, name) for name in MysqlServer.model_fields}
    return MysqlInPod(**{**fields, "unix_socket": _forwarded[key]})
