"""How long a step `polar` takes: by the number of task vectors, and of what they have in common."""

import numpy as np
import pytest

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import registry
from breadcrumbs.methods.published.polar import polar

RNG = np.random.default_rng(0)
TAUS = RNG.standard_normal((12, 24, 40)) * 10.0 ** RNG.uniform(-2, 2, (12, 1, 1))


def step(taus: np.ndarray, length: float = 2.0) -> np.ndarray:
    return polar(taus.copy(), {"length": length})


@pytest.mark.parametrize("count", [6, 12])
def test_of_many_models_it_is_as_long_as_asked_for(count):
    taus = TAUS[:count] / np.linalg.norm(TAUS[:count], axis=(1, 2))[:, None, None]
    assert np.linalg.norm(step(3 * taus)) == pytest.approx(6)
    assert np.linalg.norm(step(taus, 0.5)) == pytest.approx(0.5)
    with_zeros = np.concatenate([taus, np.zeros_like(taus)])  # these are no models of this matrix
    assert step(with_zeros) == pytest.approx(step(taus))


def test_it_goes_no_further_along_task_vectors_than_these_or_their_sum_go():
    one = TAUS[0]
    square = np.vdot(one, one)
    assert np.vdot(step(one[None]), one) == pytest.approx(square)
    alike = np.stack([one, one, one])
    assert np.vdot(step(alike, 100), one) == pytest.approx(square)
    rest = 1e-3 * TAUS[1] * np.linalg.norm(one) / np.linalg.norm(TAUS[1])
    cancelling = step(np.stack([one, rest - one]))
    assert np.vdot(cancelling, rest) == pytest.approx(np.vdot(rest, rest))


def test_it_scales_with_the_task_vectors_whose_squares_may_be_no_numbers():
    assert step(TAUS * 2.0**600) == pytest.approx(step(TAUS) * 2.0**600)
    assert not step(np.zeros((2, 3, 4))).any()


def test_a_length_below_0_is_refused():
    assert registry.get("polar").complete({"length": 0})["length"] == 0
    with pytest.raises(RecipeError, match="length -1 is below 0"):
        registry.get("polar").complete({"length": -1})
