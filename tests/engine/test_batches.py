"""Small tensors that are merged several at a time: the same bytes and reports as one by one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import saved
from reference import DTYPES

from breadcrumbs.engine import batches
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.errors import MismatchError
from breadcrumbs.merging import files, opening
from breadcrumbs.plan.recipe import Model, Recipe

METHODS: dict[str, dict[str, Any]] = {
    "breadcrumbs": dict(beta=0.8, alpha=0.7),
    "breadcrumbs rows": dict(granularity="row", alpha=0.7),
    "task_arithmetic": dict(alpha=0.3, weights=(0.5, -2.0)),
    "dare_linear": dict(p=0.6, alpha=1.0),
    "average": dict(),
    "ties": dict(granularity="tensor", alpha=0.7),
    "ties rows": dict(granularity="row", merge="max", alpha=1.3),
    "dare_ties": dict(p=0.6, merge="sum", alpha=0.9),
    "ties+svc": dict(granularity="tensor", alpha=0.7),
    "task_arithmetic without one": dict(weights=(0.0, 1.0)),
}


def models(folder: Path, dtype: str, seed: int = 0) -> list[str]:
    """Return a mixture of 60 experts and what lies between them, in models of another order too."""
    rng = np.random.default_rng(seed)
    shapes = {f"experts.{i}.{side}.weight": (8, 64) for i in range(30) for side in ("up", "down")}
    shapes |= {f"norms.{i}.weight": (64,) for i in range(9)} | {"head.weight": (3, 100)}
    to = DTYPES[dtype]
    base = {name: rng.standard_normal(shape).astype(to) for name, shape in shapes.items()}
    result = [base]
    for _ in range(2):
        step = {name: 0.01 * rng.standard_normal(shape) for name, shape in shapes.items()}
        result.append({n: (a.astype(np.float64) + step[n]).astype(to) for n, a in base.items()})
    for arrays in result:  # so far apart that sums may round
        arrays["experts.7.up.weight"][0, :2] = (1e30, 1e-30)
    result[2]["experts.7.up.weight"][0, :2] = (2e30, 3e-30)
    result[1] = dict(reversed(result[1].items()))
    return saved(folder, result)


def merge(
    base: str, models: list[str], output: Path, method: str = "breadcrumbs", kernel: str = "auto"
) -> dict[str, Any]:
    """Return what is reported of a merge that goes to a file."""
    given = dict(METHODS[method])
    weights = given.pop("weights", (1.0, 1.0))
    both = zip(models, weights, strict=True)
    recipe = Recipe(base, tuple(Model(it, weight=w) for it, w in both), method.split()[0], given)
    with opening.opened(recipe) as plan:
        report = files.to_files(plan, output, threads=1, kernel=kernel)
    rest = {"seconds", "peak", "output"}
    return {key: value for key, value in report.to_mapping().items() if key not in rest}


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the tensors that are merged together, and those that are given back."""
    found: Counter[str] = Counter()
    before = batches.merge

    def counted(batch: batches.Batch) -> Any:
        values, reports = before(batch)
        found["together"] += sum(report is not None for report in reports)
        found["given back"] += sum(report is None for report in reports)
        return values, reports

    monkeypatch.setattr(batches, "merge", counted)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kernel", ["native", "numpy"])
@pytest.mark.parametrize("method", METHODS)
def test_bytes_and_reports_are_those_of_each_by_itself(
    method, kernel, dtype, tmp_path, merged, monkeypatch
):
    base, *others = models(tmp_path, dtype)
    one = merge(base, others, tmp_path / "one.safetensors", method, kernel)
    back = 0 if method == "task_arithmetic" else 1  # with weights sums are followed closely
    alone = "+" in method  # each in memory, as a whole
    assert merged == ({} if alone else {"together": 70 - back, "given back": back})
    monkeypatch.setattr(Writing, "several", False)
    other = merge(base, others, tmp_path / "other.safetensors", method, kernel)
    assert merged["together"] == (0 if alone else 70 - back)
    ours, theirs = (tmp_path / f"{name}.safetensors" for name in ("one", "other"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert one == other


def test_what_is_not_finite_is_named(tmp_path):
    base, first, second = models(tmp_path, "float32")
    from safetensors.numpy import load_file, save_file

    arrays = load_file(second)
    arrays["experts.3.down.weight"][1, 2] = np.nan
    save_file(arrays, second)
    with pytest.raises(MismatchError, match=r"'experts\.3\.down\.weight' has nan at entry 66"):
        merge(base, [first, second], tmp_path / "out.safetensors")
