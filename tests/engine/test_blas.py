"""NumPy's linear algebra has one thread during a merge, and as many as before after it."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import breadcrumbs
from breadcrumbs.methods import registry
from breadcrumbs.methods.aggregates import Whole
from breadcrumbs.methods.aggregates.matrices import each
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.parameters import Real
from breadcrumbs.methods.transforms import Everything


def numbers() -> set[int]:
    """Return how many threads each loaded library of linear algebra would use."""
    return {row["num_threads"] for row in threadpool_info() if row["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two():
    with threadpool_limits(2, user_api="blas"):
        if numbers() != {2}:
            pytest.skip("NumPy's linear algebra cannot be told how many threads to use")
        yield


def test_a_whole_aggregate_computes_in_the_merges_own_threads(monkeypatch):
    seen = []

    def combine(base, taus, weights, values):
        seen.append(numbers())
        if values["power"] == 3:
            raise ZeroDivisionError
        return taus.sum(axis=0)

    whole = Whole(combine, {"power": Real(1.0, "exponent")})
    method = Method("watched", Everything(), whole, "sum", "sum", "2026")
    monkeypatch.setitem(registry.METHODS, "watched", method)
    base, model = ({"w": np.full((3, 3), x, np.float32)} for x in (0, 1))
    breadcrumbs.merge(base, [model], method="watched")
    assert seen == [{1}] and numbers() == {2}
    with pytest.raises(ZeroDivisionError):
        breadcrumbs.merge(base, [model], method="watched", power=3)
    assert numbers() == {2}


def test_matrices_that_take_long_come_first(monkeypatch):
    seen = []

    def combine(base, taus, weights, values):
        seen.append(base.shape)
        return taus.sum(axis=0)

    whole = Whole(combine, {"alpha": Real(1.0, "factor")}, each=each)
    method = Method("watched", Everything(), whole, "sum", "sum", "2026")
    monkeypatch.setitem(registry.METHODS, "watched", method)
    shapes = [(3,), (9, 2), (4, 7), (90,), (6, 5), (2, 8, 8), (6, 6)]
    names = [f"{i}.weight" for i in range(4)] + ["experts.weight", "moe.input.weight", "z"]
    base = {name: np.zeros(shape, np.float32) for name, shape in zip(names, shapes, strict=True)}
    model = {name: array + 1 for name, array in base.items()}
    breadcrumbs.merge(base, [model], method="watched", threads=1)
    assert seen == [(8, 8), (8, 8), (6, 6), (6, 5), (4, 7), (9, 2), (3,), (90,)]
