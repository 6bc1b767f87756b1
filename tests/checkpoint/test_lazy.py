"""Tensors that are read when they are asked for, and no more of them than that."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import Weights

WHOLE = np.arange(60, dtype=np.float32).reshape(5, 4, 3)


class Counting:
    """The bytes of a tensor, which notes what is read of it."""

    def __init__(self, source):
        self.source, self.ranges = source, []

    def read_into(self, start: int, out: memoryview) -> None:
        self.ranges.append((start, start + len(out)))
        self.source.read_into(start, out)


def counted(path) -> tuple[Weights[np.ndarray], Counting]:
    opened = checkpoint.open(path)
    tensor = opened.tensors["w"]
    source = Counting(tensor.source)
    return Weights(replace(opened, tensors={"w": replace(tensor, source=source)})), source


@given(arrays.basic_indices((5, 4, 3), allow_newaxis=False))
def test_an_index_is_numpys(index):
    index = index if isinstance(index, tuple) else (index,)
    assert np.array_equal(breadcrumbs.load({"w": WHOLE})["w", *index], WHOLE[index])


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    weights = breadcrumbs.load({"w": WHOLE, "b": np.ones(2, ml_dtypes.bfloat16)}, as_="torch")
    assert torch.equal(weights["w", 1:3, 0], torch.from_numpy(WHOLE[1:3, 0].copy()))
    assert weights["b"].dtype == torch.bfloat16 and weights["b", 0].shape == ()


def test_rows_read_their_bytes_alone(tmp_path):
    save_file({"w": WHOLE}, tmp_path / "w.safetensors")
    weights, source = counted(tmp_path / "w.safetensors")
    assert weights.shapes == {"w": (5, 4, 3)} and weights.dtypes == {"w": "float32"}
    assert "w" in weights and "v" not in weights and weights.size == 60 and weights.nbytes == 240
    assert repr(weights).endswith("w.safetensors: 1 tensor, 60 entries, float32>")
    assert source.ranges == []
    assert np.array_equal(weights["w", 2:4, 1], WHOLE[2:4, 1])
    assert np.array_equal(weights["w", -1], WHOLE[4])
    assert source.ranges == [(96, 192), (192, 240)]
    assert np.array_equal(weights["w"], WHOLE)
    with pytest.raises(IndexError, match="'w' has 5 rows, and no row 5"):
        _ = weights["w", 5]


def test_what_is_in_a_checkpoint_is_told_without_reading(tmp_path):
    save_file({"w": WHOLE}, tmp_path / "w.safetensors")
    weights, source = counted(tmp_path / "w.safetensors")
    assert "w" in weights.checkpoint and weights.get("v") is None and not source.ranges
    with weights as same:
        assert same is weights


def test_a_name_that_is_not_there_is_a_key_error():
    weights = breadcrumbs.load({"weight": WHOLE})
    with pytest.raises(KeyError) as caught:
        _ = weights["wieght"]
    said = "mapping: has no tensor 'wieght'. Did you mean 'weight'? It has 'weight'."
    assert str(caught.value) == said
    with pytest.warns(DeprecationWarning, match="called breadcrumbs.load"):
        assert np.array_equal(breadcrumbs.open({"w": WHOLE})["w"], WHOLE)  # type: ignore
