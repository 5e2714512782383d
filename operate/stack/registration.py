"""What the Prefect server must know: block types, work pools, deployments and their schedules.

Run as `python -m operate.stack.registration FILE` against the server of PREFECT_API_URL; may be
run again at any time.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from blocks.grafana.api import GrafanaApi
from blocks.inventory import HostInventory
from blocks.keycloak.api import KeycloakApi
from blocks.kube.cluster import KubernetesCluster
from blocks.mysql.server import MysqlServer
from blocks.postgres.server import PostgresServer
from blocks.ssh.host import SshHost
from operate.schedules.applying import apply_schedules
from operate.stack.place import PROJECT
from operate.stack.pools import Pool, read_pools

BLOCK_TYPES: tuple[type[Block], ...] = (
    GrafanaApi, HostInventory, KeycloakApi, KubernetesCluster, MysqlServer, PostgresServer, SshHost,
)  # fmt: skip
# One process instead of two: without it Prefect first starts a Python of its own that looks for
# the flow, which costs half a second a run.
ENGINE = "python -m prefect.engine"


def register(deployments: Path) -> None:
    """Register everything; what is there already is brought up to date.

    Raises:
        BadInput: the file of the work pools, or that of the schedules, is wrong.
        subprocess.CalledProcessError: `prefect deploy` said no; it has printed why.
    """
    pools = read_pools(deployments.with_name("work-pools.yaml"))
    with get_client(sync_client=True) as client:
        for pool in pools:
            _register_pool(client, pool)
    for block_type in BLOCK_TYPES:
        block_type.register_type_and_schema()
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    subprocess.run(  # noqa: S603 (its arguments are our own)
        [*prefect, "deploy", "--all", "--prefect-file", str(deployments)], cwd=PROJECT, check=True
    )
    apply_schedules()


def _register_pool(client: SyncPrefectClient, pool: Pool) -> None:
    template = _base_job_template(client)
    try:
        client.read_work_pool(pool.name)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=pool.name,
                description=pool.description,
                type="process",
                base_job_template=template,
            )
        )
    else:
        client.update_work_pool(
            pool.name, WorkPoolUpdate(description=pool.description, base_job_template=template)
        )
    for name, description in pool.queues.items():
        _register_queue(client, pool.name, name, description)


def _register_queue(client: SyncPrefectClient, pool: str, name: str, description: str) -> None:
    """Make a queue of a pool, or bring its description up to date."""
    queues = f"/work_pools/{quote(pool)}/queues"
    body = {"name": name, "description": description}
    known = client._client.post(f"{queues}/filter", json={}).json()  # noqa: SLF001 (the client has no call for a queue's description)
    if name in {one["name"] for one in known}:
        client._client.patch(f"{queues}/{quote(name)}", json=body)  # noqa: SLF001 (as above)
    else:
        client._client.post(f"{queues}/", json=body)  # noqa: SLF001 (as above)


def _base_job_template(client: SyncPrefectClient) -> dict[str, Any]:
    known = client.read_worker_metadata()
    template: dict[str, Any] = known["prefect"]["process"]["default_base_job_configuration"]
    template["variables"]["properties"]["command"]["default"] = ENGINE
    return template


if __name__ == "__main__":
    register(Path(sys.argv[1]))
