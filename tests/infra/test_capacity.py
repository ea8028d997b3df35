"""The production pools fit the training of every model."""

from pathlib import Path
from typing import Any

import pytest

from infra.checks.terraform_config import load, unquoted
from pipelines.rayjob.sizes import JOB_SIZES, JobSize

PROD = load(Path(__file__).parents[2] / "infra" / "terraform" / "envs" / "prod")
POOLS: dict[str, dict[str, Any]] = PROD.modules["platform"]["gpu_pools"]

# What the kubelet and the system reserve on a node: EKS reserves 11 MiB a pod and 255 MiB more, some CPU, and 100 MiB
# before it evicts; the device plugin, the CNI, Prometheus' and DCGM's exporters request the rest.
RESERVED_VCPUS, RESERVED_MEMORY_SHARE = 1, 0.1


def holds(pool: dict[str, Any], size: JobSize) -> bool:
    return (
        pool["gpus"] == size.gpus
        and pool["gpu_memory_gib"] >= size.gpu_memory
        and pool["vcpus"] - RESERVED_VCPUS >= size.cpus
        and pool["memory_gib"] * (1 - RESERVED_MEMORY_SHARE) >= size.memory
        and pool["max_nodes"] >= size.nodes
    )


@pytest.mark.parametrize("model", JOB_SIZES)
def test_some_pool_fits_the_training_of(model: str) -> None:
    on_demand = [pool for pool in POOLS.values() if unquoted(pool["capacity_type"]) == "ON_DEMAND"]
    assert any(holds(pool, JOB_SIZES[model]) for pool in on_demand)


def test_a_job_of_several_nodes_stays_in_one_zone() -> None:
    for size in JOB_SIZES.values():
        if size.nodes > 1:
            assert all(pool["zone"] is not None for pool in POOLS.values() if holds(pool, size))


def test_every_pool_scales_to_zero() -> None:
    assert {pool["min_nodes"] for pool in POOLS.values()} == {0}
