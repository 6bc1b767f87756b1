"""Merges agree with what the methods' published programs return; see golden/README.md."""

from pathlib import Path
from typing import Any

import golden_models
import numpy as np
import pytest
import reference

import breadcrumbs

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = [GOLDEN / f"ft{t}.safetensors" for t in range(3)]

CASES: dict[str, dict[str, Any]] = {
    "authors-b90-g99-a1": dict(
        method="breadcrumbs", variant="authors", beta=0.90, gamma=0.99, alpha=1
    ),
    "authors-b80-g98p5-a0p4": dict(
        method="breadcrumbs", variant="authors", beta=0.80, gamma=0.985, alpha=0.4
    ),
    "topkeep-authors-20-a0p5": dict(
        method="bottom_masking", granularity="row", density=0.20, alpha=0.5
    ),
    "topzero-authors-5-a0p5": dict(
        method="top_masking", granularity="row", outliers=0.05, alpha=0.5
    ),
    "task_arithmetic-a0p3": dict(method="task_arithmetic", alpha=0.3),
}


def load(path: Path) -> dict[str, np.ndarray]:
    return dict(breadcrumbs.open(path))


def test_every_expectation_is_met_by_a_case():
    files = {path.stem.removeprefix("expect-") for path in GOLDEN.glob("expect-*")}
    # What the package does not offer yet is met by the references alone.
    assert files == set(CASES) | set(golden_models.PUBLISHED)


@pytest.mark.parametrize("name", CASES)
def test_a_merge_is_the_published_programs(name):
    base, expected = load(GOLDEN / "base.safetensors"), load(GOLDEN / f"expect-{name}.safetensors")
    merged = breadcrumbs.merge(base, [load(path) for path in MODELS], **CASES[name])
    assert list(merged) == list(base) and set(merged) == set(expected)
    for key, values in merged.items():
        assert values.dtype == base[key].dtype and values.shape == base[key].shape
        # An entry that only one of the two masks keeps is off by far more than rounding.
        off = np.abs(values.astype(np.float64) - expected[key].astype(np.float64))
        bound = 4 * np.finfo(np.float32).eps * np.abs(base[key].astype(np.float64)).max(initial=1)
        assert np.count_nonzero(off > bound) == 0, key
        if name != "task_arithmetic-a0p3":
            assert np.count_nonzero((values == base[key]) != (expected[key] == base[key])) == 0, key


@pytest.mark.parametrize("name", ["authors-b80-g98p5-a0p4"])
def test_a_merge_of_the_golden_models_is_the_references_bit_for_bit(name):
    base, models = load(GOLDEN / "base.safetensors"), [load(path) for path in MODELS]
    merged = breadcrumbs.merge(base, models, **CASES[name])
    expected = reference.merge(base, models, **CASES[name])
    for key, values in merged.items():
        assert values.tobytes() == expected[key].tobytes(), key


def test_the_golden_files_merge_from_disk_to_disk_to_the_same_bits(tmp_path):
    output, case = tmp_path / "merged.safetensors", CASES["authors-b80-g98p5-a0p4"]
    breadcrumbs.merge(GOLDEN / "base.safetensors", MODELS, output=output, **case)
    base, models = load(GOLDEN / "base.safetensors"), [load(path) for path in MODELS]
    expected = breadcrumbs.merge(base, models, **case)
    merged = load(output)
    assert set(merged) == set(expected)
    for key, values in merged.items():
        assert values.tobytes() == expected[key].tobytes(), key
