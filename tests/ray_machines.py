"""A cluster of Ray for tests: two machines that are this one, and listen to nobody else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

MACHINE = {"num_cpus": 1, "object_store_memory": 10**8}


@pytest.fixture(scope="session")
def machines() -> Iterator[Any]:
    """Two machines with a processor each, to which this process is connected."""
    changed = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # then it listens on the loopback interface alone
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    import ray  # which looks at them once
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**MACHINE, "include_dashboard": False})

    def add() -> None:
        made.second = made.add_node(**MACHINE)

    made.add = add
    add()
    ray.init(address=made.address, log_to_driver=False, logging_level="CRITICAL")
    yield made
    ray.shutdown()
    made.shutdown()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
