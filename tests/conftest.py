"""Fixtures that several files use, and settings of the property tests.

No time limits, and the same examples in every run, unless fuzzing asks for others.
"""

import os
import tempfile
from collections.abc import Iterator

import numpy as np  # noqa: F401  # whose threads are limited
import pytest
from hypothesis import HealthCheck, settings
from ray_machines import machines  # noqa: F401
from threadpoolctl import threadpool_limits
from tiny_models import clip, llama, minilm, one_thread, t5, tiny_bert  # noqa: F401

from breadcrumbs.checkpoint import durable
from breadcrumbs.kernels.native import built
from breadcrumbs.methods import registry

if built.problem():  # other kernels than those that are meant would be tested
    pytest.exit(built.problem(), returncode=1)

_cache = tempfile.TemporaryDirectory(prefix="breadcrumbs-cache-")
os.environ["BREADCRUMBS_CACHE"] = _cache.name  # the user's is neither read nor written

# On small matrices, threads of linear algebra wait for each other, and are busy at it.
threadpool_limits(1, user_api="blas")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of processes that tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of Torch, which is not loaded yet

pytest.register_assert_rewrite("families", "foundation_tasks", "raw_rows")

for name, examples in {"exact": 40, "quick": 1, "fuzz": 100}.items():
    settings.register_profile(
        name,
        deadline=None,
        derandomize=name != "fuzz",
        database=None,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
settings.load_profile("exact")


@pytest.fixture(autouse=True)
def unsynced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Do not wait for the disk, but where that is the subject: thousands of small outputs do."""
    with durable.syncing("power_cuts" in request.module.__name__):
        yield


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards what plugins added to the tables of methods."""
    for name in ("METHODS", "TRANSFORMS", "AGGREGATES", "FINISHES", "PLUGINS", "FILES"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
