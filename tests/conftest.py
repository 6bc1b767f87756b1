"""Settings of the property tests: no time limits, the same examples in every run."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "exact",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("exact")
