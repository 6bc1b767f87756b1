"""Angles of rows and columns: the references at all shapes, and the same bits in all pieces."""

from __future__ import annotations

import numpy as np
import pytest
from families import merge
from references import classical

from breadcrumbs.engine.passes import lines as angles
from breadcrumbs.plan import Sizes

SHAPES = [(), (1,), (7,), (0,), (5, 1), (1, 5), (6, 4), (4, 30), (3, 0), (0, 3), (2, 3, 4), (40, 3)]


def family(shape: tuple[int, ...], models: int) -> list[np.ndarray]:
    rng = np.random.default_rng([len(shape), *shape])
    base = rng.standard_normal(shape)
    return [np.asarray(base + step) for step in [0, *rng.standard_normal((models, *shape)) / 8]]


def merged(arrays: list[np.ndarray], **settings) -> np.ndarray:
    base, *models = ({"w": array, "other": np.ones(3)} for array in arrays)
    return merge(base, models, **settings)["w"]


CASES = {
    "row": (
        2,
        dict(method="nuslerp", angles="row"),
        lambda base, models: classical.nuslerp(base, models, flatten=False),
    ),
    "column": (
        2,
        dict(method="nuslerp", angles="column"),
        lambda base, models: classical.nuslerp(base, models, flatten=False, row_wise=True),
    ),
    "stock": (
        3,
        dict(method="model_stock", angles="row"),
        lambda base, models: classical.model_stock(base, models, filter_wise=True),
    ),
}
cases = pytest.mark.parametrize("case", CASES)


@cases
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("block", [4, 1 << 14])
def test_each_line_has_the_references_angle(case, shape, block):
    number, settings, reference = CASES[case]
    arrays = family(shape, number)
    found = merged(arrays, sizes=Sizes(block=block), **settings)
    assert found.shape == shape
    if found.size:
        expected = reference(arrays[0], arrays[1:])
        # Short lines are often nearly opposite, and the references take angles from cosines.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@cases
@pytest.mark.parametrize("shape", [(40, 30), (5, 200), (150, 3), (4, 5, 6), (333,)], ids=str)
@pytest.mark.parametrize("block", [16, 64, 1 << 14])
def test_chunks_and_threads_change_no_bit(case, shape, block):
    number, settings, _ = CASES[case]
    arrays = [array.astype(np.float32) for array in family(shape, number)]
    given = dict(settings, dtype="float64")
    expected = merged(arrays, sizes=Sizes(block=block), threads=1, **given)
    for chunk in (7, 16, 100):
        sizes = Sizes(chunk=chunk, arena=64 * 16, block=block)
        for threads in (1, 3):
            found = merged(arrays, sizes=sizes, threads=threads, **given)
            assert found.tobytes() == expected.tobytes()


def test_a_row_is_as_if_it_were_alone():
    base, *models = family((6, 40), 3)
    found = merged([base, *models], method="model_stock", angles="row")
    for i in range(6):
        alone = merged([array[i] for array in (base, *models)], method="model_stock")
        np.testing.assert_allclose(found[i], alone, rtol=0, atol=1e-15)
    whole = merged([base, *models], method="model_stock")
    assert np.abs(found - whole).max() > 1e-3


def test_masks_of_rows_too_long_for_a_chunk_go_with_the_angle_of_the_tensor():
    arrays = family((4, 30), 3)
    settings = dict(method="breadcrumbs+model_stock", beta=0.2, gamma=0.9, granularity="row")
    expected = merged(arrays, **settings)
    for chunk in (64, 16):
        assert merged(arrays, sizes=Sizes(chunk=chunk), **settings).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind, shape", [("column", (1001, 2)), ("row", (2, 1001))])
def test_long_lines_lose_no_small_entries(kind, shape):
    line = np.array([1e8] + [1.0] * 1000)
    rows = np.broadcast_to(line[:, None] if kind == "column" else line, shape).reshape(1, -1)
    found = angles.coefficients([rows], shape, kind, lambda gram: gram[..., 0], 1)
    assert found.tolist() == [[1e16 + 1000]] * 2  # one by one, all 1000 would be rounded away
