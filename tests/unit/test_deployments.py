"""What the deployments say to the Prefect server: pools, queues, and one way to register them."""

from pathlib import Path

import pytest
import yaml

from operate.stack.pools import read_pools
from recovery.errors import BadInput

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"
DECLARED = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
POOLS = {pool.name: pool for pool in read_pools(DEPLOYMENTS / "work-pools.yaml")}


@pytest.mark.parametrize("declared", DECLARED, ids=lambda one: one["name"])
def test_a_deployment_is_in_the_pool_of_its_danger_and_in_a_queue_that_is_described(declared):
    pool = declared["work_pool"]

    danger = pool["name"].removeprefix("recoveries-")

    # One that only looks goes where changes do: it needs the same accounts, and no more.
    assert danger in declared["tags"] or (danger == "change" and "read" in declared["tags"])
    assert POOLS[pool["name"]].queues[pool["work_queue_name"]]
    assert pool["job_variables"] == {"command": "python -m prefect.engine"}
    assert declared["enforce_parameter_schema"]


def test_every_pool_is_used_and_described():
    assert {one["work_pool"]["name"] for one in DECLARED} == set(POOLS)
    assert all(pool.description for pool in POOLS.values())


@pytest.mark.parametrize(
    "text", ["", "[]", "work_pools: {a: {queues: {main: x}}}", "work_pools: [a]", "a: {"]
)
def test_a_malformed_file_of_pools_is_named(tmp_path, text):
    file = tmp_path / "work-pools.yaml"
    file.write_text(text)

    with pytest.raises(BadInput, match=r"work-pools\.yaml"):
        read_pools(file)


def test_a_file_of_pools_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"work-pools\.yaml: it cannot be read: No such file"):
        read_pools(tmp_path / "work-pools.yaml")
