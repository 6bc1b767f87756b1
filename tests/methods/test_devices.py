"""Matrices on a device: as NumPy has them but for rounding, and it is said where they were made.

What is done on a GPU is what Torch does on the processor, and is tested there; on CUDA too where
there is one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

import breadcrumbs
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.errors import MissingExtraError, RecipeError
from breadcrumbs.methods import algebra
from breadcrumbs.methods.algebra import torch as of_torch
from breadcrumbs.methods.algebra.numpy import NUMPY
from breadcrumbs.methods.registry import METHODS

torch = pytest.importorskip("torch")
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
DEVICES = ["cpu:torch", pytest.param("cuda", marks=no_cuda)]

#: In parts of the largest entry of the step, at most; docs/gpu.md says so.
NEAR = 1e-12
#: Methods, with parameters that take other ways; regmean, which takes data, has its operations.
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name, method in METHODS.items() if method.algebra and name != "regmean"),
    ("wudi", {"solver": "ridge"}),
    ("wudi", {"solver": "adam", "steps": 3}),
    ("task_arithmetic+svc", {}),
    ("ties+boost", {}),
    ("low_rank+sum", {"rank": 5}),
]


def family() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    shapes = {"wide": (70, 110), "tall": (90, 66), "thin": (9, 80), "experts.up": (2, 20, 12)}
    base = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return [
        base,
        *({n: a + 0.1 * rng.standard_normal(a.shape) for n, a in base.items()} for _ in range(3)),
    ]


@pytest.mark.parametrize("device", DEVICES)
def test_all_that_a_device_makes_is_near(device, monkeypatch):
    base, *models = family()
    expected = [breadcrumbs.merge(base, models, method=name, **more) for name, more in CASES]

    def never(*given: object, **more: object) -> None:
        raise AssertionError("made by NumPy")

    for operation in ("product", "eigh", "svd", "qr", "solve"):
        monkeypatch.setattr(type(NUMPY), operation, never)
    for (name, more), here in zip(CASES, expected, strict=True):
        there = breadcrumbs.merge(base, models, method=name, device=device, **more)
        for tensor, values in base.items():
            step = np.abs(here[tensor] - values).max()
            assert np.abs(there[tensor] - here[tensor]).max() <= NEAR * step, (name, tensor)


@pytest.mark.parametrize("device", DEVICES)
def test_operations(device):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 4)), rng.standard_normal((4, 9))
    square = a.T @ a
    still = b[::-1]
    still.flags.writeable = False
    with algebra.on(device):
        out = np.zeros((6, 18))[:, ::2]
        assert np.allclose(algebra.product(a, still, out=out), a @ still) and out.any()
        assert np.allclose(algebra.product(a.T, a, algebra.hold(b)), square @ b)
        e, q = algebra.eigh(square)
        assert np.allclose((q * e) @ q.T, square) and (np.diff(e) > 0).all()
        u, s, v = algebra.svd(a)
        assert u.shape == (6, 4) and np.allclose((u * s) @ v, a)
        q, r = algebra.qr(a)
        assert np.allclose(q.T @ q, np.eye(4)) and np.allclose(q @ r, a)
        assert np.allclose(square @ algebra.solve(square, b), b)
        with pytest.raises(np.linalg.LinAlgError):
            algebra.solve(np.zeros((4, 4)), b)
        assert algebra.eigh(square)[0].dtype == np.float64


@pytest.mark.parametrize("device", DEVICES)
def test_an_output_says_what_computed_it(device, tmp_path):
    base, *models = family()
    said = {}
    for name, where in (("here", "cpu"), ("there", device)):
        place = tmp_path / f"{name}.safetensors"
        report = breadcrumbs.merge(base, models, method="iso_c", device=where, output=place)
        about = json.loads(read_header(place).metadata["breadcrumbs"])
        said[name] = report.kernel, about["recipe"].get("device"), about.get("computed")
    assert "Torch" not in said["here"][0] and said["here"][1:] == (None, None)
    kernel, recipe, computed = said["there"]
    assert recipe == device and computed == algebra.of(device).name
    assert kernel.endswith(f"; matrices by Torch {torch.__version__} {computed.split(' ', 2)[2]}")


def test_what_is_not_there_is_said_in_a_line(monkeypatch):
    base, *models = family()

    def merge(device: str, method: str = "iso_c") -> None:
        breadcrumbs.merge(base, models, method=method, device=device)

    with pytest.raises(RecipeError, match=r"'cudo' is not possible\. Did you mean 'cuda'\?"):
        merge("cudo")
    with pytest.raises(RecipeError, match=r"device cuda: ties neither .* are tsv_m, iso_c, "):
        merge("cuda", "ties")
    of_torch.on.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"^device cuda: Torch .* Look at `nvidia-smi`"):
        merge("cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"^device cuda: needs Torch\..*pip install"):
        merge("cuda")
    of_torch.on.cache_clear()
