"""Elections of the whole model in two reads: what was written with a wrong majority is mended."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from references import classical

from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.engine import runner
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import Election, Nowhere, SegmentReport
from breadcrumbs.engine.passes import ranks
from breadcrumbs.kernels import numpy as plain
from breadcrumbs.merging import files, opening
from breadcrumbs.plan import Sizes, lengths
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.plan.units import Segment

SMALL = Sizes(chunk=64, arena=1024)
DTYPE_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}


@pytest.fixture(autouse=True)
def mended(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how segments are mended."""
    counter: Counter[str] = Counter()
    mend = Ballot.mend

    def counted(self, segment):
        report = mend(self, segment)
        counter["put right" if report else "merged again"] += 1
        return report

    monkeypatch.setattr(Ballot, "mend", counted)
    return counter


def family(sign: int, dtype: str = "float32") -> list[dict[str, np.ndarray]]:
    """Return a base and two models: most entries elect ``sign``, but not those of the first tensor.

    Of all tensors many entries are opposite in the models.
    """
    rng, to = np.random.default_rng(1), DTYPES[DTYPE_NAMES[dtype]]
    base, models = {}, ({}, {})
    for name, size, likely in (("a", 500, -sign), ("b", 900, sign), ("c", 600, sign)):
        base[name] = (rng.integers(-8, 9, size) / 4).astype(to)
        first = rng.integers(0, 3, size) * likely
        second = np.where(rng.random(size) < 0.4, -first, rng.integers(0, 3, size) * likely)
        for model, tau in zip(models, (first, second), strict=True):
            model[name] = (base[name].astype(np.float64) + tau / 4).astype(to)
    return [base, *models]


def recipe(weight: float = 1.0, onto: str | None = None, **values: Any) -> Recipe:
    models = (Model("one", weight), Model("two", weight))
    return Recipe("base", models, "ties", {"density": 0.9, **values}, onto=onto)


def merged(
    made: Recipe, arrays: list, sizes: Sizes = SMALL, **options: Any
) -> dict[str, np.ndarray]:
    with opening.opened(made, arrays, sizes) as plan:
        return files.to_arrays(plan, **{"threads": 1, **options})[0]


def expected(arrays: list, dtype: str, **settings: Any) -> dict[str, np.ndarray]:
    exact = classical.ties(*classical_arrays(arrays), density=0.9, **settings)
    name = DTYPE_NAMES[dtype]
    return {key: plain.round_to(np.asarray(value), name) for key, value in exact.items()}


def classical_arrays(arrays: list) -> tuple:
    wide = [{k: v.astype(np.float64) for k, v in part.items()} for part in arrays]
    return wide[0], wide[1:]


def assert_same(arrays: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> None:
    assert {k: v.tolist() for k, v in arrays.items()} == {k: v.tolist() for k, v in others.items()}


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize(("merge", "weight"), [("mean", 1), ("sum", 1), ("max", 1), ("mean", 0.5)])
def test_what_the_wrong_majority_wrote_is_put_right(
    kernel: str, sign: int, dtype: str, merge: str, weight: float, mended: Counter[str]
) -> None:
    arrays = family(sign, dtype)
    result = merged(recipe(weight, merge=merge), arrays, kernel=kernel)
    settings = {"merge": merge, "weights": [weight, weight]}
    assert_same(result, expected(arrays, dtype, **settings))
    assert mended["put right"] >= 2 and not mended["merged again"]
    assert_same(result, merged(recipe(weight, merge=merge), arrays, kernel=kernel, threads=3))


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("how", ["no room", "onto another"])
def test_what_was_not_kept_is_merged_again(
    kernel: str, how: str, mended: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = family(1)
    right = expected(arrays, "float32")
    if how == "no room":
        narrow = replace(SMALL, undecided=1 << 20, spare=1)
        assert_same(merged(recipe(), arrays, narrow, kernel=kernel), right)
    else:
        onto = {name: values + 1 for name, values in arrays[0].items()}
        result = merged(recipe(onto="target"), [*arrays, onto], kernel=kernel)
        assert_same(result, {name: values + 1 for name, values in right.items()})
    assert mended["merged again"] >= 2 and not mended["put right"]


def test_every_input_is_read_twice(mended: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    before = Tensor.read_into

    def counted(self: Tensor, start: int, out: np.ndarray) -> None:
        read[f"{self.name} {id(self.source)}"] += out.size
        before(self, start, out)

    def sampled(tensor: Tensor, start: int, n: int) -> np.ndarray:  # for the length of the step
        entries = np.empty(n, DTYPES[tensor.dtype])
        before(tensor, start, entries)
        return entries.astype(np.float64)

    monkeypatch.setattr(lengths, "_read", sampled)
    monkeypatch.setattr(Tensor, "read_into", counted)
    at = np.full(4, np.float32(0.25).view(np.uint32))  # what a sample, which reads too, would find
    sample = lambda self, models, margin: dict.fromkeys(models, ranks.Sampled(at, 0.0, 0.0))  # noqa: E731
    monkeypatch.setattr(ranks.Unit, "sampled", sample)
    arrays = family(1)
    merged(recipe(density=0.5), arrays)
    assert mended["put right"] >= 2
    sizes = {name: 2 * values.size for name, values in arrays[0].items()}
    assert len(read) == 9 and all(n == sizes[key[0]] for key, n in read.items())


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_report_is_that_of_the_majority(kernel: str, dtype: str, mended: Counter[str]) -> None:
    base, one, two = family(1, dtype)
    some = np.where(np.arange(500) % 16, 0, 0.25).astype(dtype)
    one, two = ({**part, "a": base["a"] - some} for part in (one, two))
    three = {**one, "a": base["a"] + 2 * some}  # so one sign's mean is twice the other's
    made = Recipe("base", (Model("one"), Model("two"), Model("three")), "ties", {"density": 1})
    with opening.opened(made, [base, one, two, three], SMALL) as plan:
        result, report = files.to_arrays(plan, threads=1, kernel=kernel)
    assert mended["put right"] and (result["a"] == base["a"] + 2 * some).all()
    updates = [result[name] - base[name].astype(float) for name in result]
    assert report.norm == pytest.approx(np.sqrt(sum((x**2).sum() for x in updates)))


def test_a_segment_that_is_written_again_votes_once() -> None:
    ballot = Ballot(Nowhere())
    first, second = Segment(0, 0, 10, 0), Segment(0, 10, 20, 1)
    for segment, votes in ((first, 5), (first, 5), (second, -6)):
        ballot.note(segment, SegmentReport([], election=Election(votes, 1, 3)))
    assert ballot.majority == -1 and ballot.is_wrong(first)


# --- interrupted and resumed ---


def to_files(folder: Path, **options: Any) -> Path:
    output = folder / "out"
    with opening.opened(recipe(), family(1), SMALL) as plan:
        files.to_files(plan, output, threads=1, verify=True, **options)
    return output


def weights(output: Path) -> bytes:
    return (output / "model.safetensors").read_bytes()


@pytest.mark.parametrize("when", ["written", "mended", "half"])
def test_resumed(
    when: str, tmp_path: Path, mended: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = to_files(tmp_path / "whole")
    for folder in (tmp_path / "whole", tmp_path / "resumed"):
        folder.mkdir(exist_ok=True)
    first = mended["put right"]
    assert first >= 2
    with monkeypatch.context() as patch:
        if when == "half":
            stop_at(patch, runner._Runner, "_report", 5)
        else:
            stop_at(patch, Ballot, "mend", 0 if when == "written" else 1)
        with pytest.raises(KeyboardInterrupt):
            to_files(tmp_path / "resumed")
    resumed = to_files(tmp_path / "resumed", resume=True)
    assert weights(resumed) == weights(whole)
    assert when != "half" or mended["merged again"]


def stop_at(patch: pytest.MonkeyPatch, owner: type, name: str, after: int) -> None:
    """Interrupt a call of that method after so many."""
    before, left = getattr(owner, name), [after]

    def counted(*given: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return before(*given)

    patch.setattr(owner, name, counted)
