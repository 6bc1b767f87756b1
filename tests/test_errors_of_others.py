"""Errors that were found in other programs, one test each, so that they never come here."""

from __future__ import annotations

import numpy as np
import pytest

import breadcrumbs
from breadcrumbs.errors import RecipeError


def merged(base, models, **settings) -> np.ndarray:
    found = breadcrumbs.merge({"w": base}, [{"w": model} for model in models], **settings)
    return np.asarray(found["w"])


@pytest.mark.parametrize("variant", ["paper", "authors"])
def test_a_tensor_shorter_than_one_over_one_minus_gamma_is_not_erased(variant):
    base, model = np.zeros(20, np.float32), np.arange(1, 21, dtype=np.float32)
    found = merged(base, [model], beta=0, gamma=0.99, variant=variant)
    assert found.tolist() == model.tolist()  # floor(.01 * 20) = 0 are cut


def test_gamma_0_is_refused_and_does_not_invert_the_method():
    base, model = np.zeros(20, np.float32), np.ones(20, np.float32)
    with pytest.raises(RecipeError, match="gamma"):
        merged(base, [model], beta=0.9, gamma=0)


def test_opposite_weights_of_ties_divide_by_no_zero():
    base = np.zeros(4, np.float32)
    models = [np.array([1, 2, -3, 4], np.float32), np.array([1, -2, 3, 1], np.float32)]
    found = merged(base, models, method="ties", density=1, weights=[1.0, -1.0])
    # The terms are (1, -1), (2, 2), (-3, -3) and (4, -1): of the first pair, the majority's sign.
    assert np.isfinite(found).all()
    assert found[1:].tolist() == [2, -3, 4] and abs(found[0]) == 1


def test_rows_of_one_column_are_dropped_by_della_with_its_density():
    base, model = np.zeros((4000, 1), np.float32), np.ones((4000, 1), np.float32)
    found = merged(base, [model], method="della_linear", density=0.5, epsilon=0.2, alpha=1)
    kept = found[found != 0]
    assert np.isfinite(found).all() and (kept == 2).all() and 1800 < kept.size < 2200


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_that_drops_all_leaves_the_base(method):
    base, model = np.arange(9, dtype=np.float32), np.ones(9, np.float32)
    assert merged(base, [model, model], method=method, p=1).tolist() == base.tolist()


@pytest.mark.parametrize("method", ["tsv_m", "iso_cts"])
def test_more_models_than_a_matrix_has_directions(method):
    rng = np.random.default_rng(0)
    base, *models = rng.standard_normal((6, 3, 2))
    found = merged(base, models, method=method)
    assert np.isfinite(found).all() and not np.array_equal(found, base)


def test_iso_cts_without_room_for_common_directions():
    rng = np.random.default_rng(0)
    base, *models = rng.standard_normal((5, 4, 4))
    found = merged(base, models, method="iso_cts", common=0)
    assert np.isfinite(found).all() and not np.array_equal(found, base)
