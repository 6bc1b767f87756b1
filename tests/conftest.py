"""Fixtures that several files use, and settings of the property tests.

No time limits, and the same examples in every run.
"""

import os
import tempfile

from hypothesis import HealthCheck, settings
from tiny_models import clip, llama, minilm, one_thread, t5, tiny_bert  # noqa: F401

_cache = tempfile.TemporaryDirectory(prefix="breadcrumbs-cache-")
os.environ["BREADCRUMBS_CACHE"] = _cache.name  # the user's is neither read nor written

settings.register_profile(
    "exact",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("exact")
