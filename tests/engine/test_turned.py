"""Large matrices whose task vectors are made one after the other: the same bits as all at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from families import merge

from breadcrumbs.engine.routes import wholes
from breadcrumbs.plan import USUAL

#: From the first entry on, in chunks of which the last of a table has one entry.
TURNS = replace(USUAL, turns=1, chunk=128)
METHODS: dict[str, dict[str, Any]] = {
    "tsv_m": {},
    "iso_c": dict(weights=[1.0, -0.5, 0.3] * 3),
    "iso_cts": {},
    "star": dict(eta=0.6),
    "cart": dict(weights=[2.0, 1.0, 0.0] * 3),
    "dc": dict(alpha=0.7),
    "polar": dict(weights=[1.0, -0.5, 0.3] * 3),
    "breadcrumbs+tsv_m": dict(beta=0.6, gamma=0.9),
    "dare+iso_c": dict(p=0.3),
    "task_arithmetic+svc": dict(weights=[1.0, -0.5, 0.3] * 3),
}


def family(dtype: type) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    shapes = {
        "model.embed_tokens.weight": (43, 3),
        "up.weight": (30, 41),
        "down.weight": (41, 30),
        "conv.weight": (3, 7, 5),
        "experts.up": (3, 16, 12),
        "experts.up_bias": (3, 12),
        "norm.weight": (1,),
    }
    base = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    models = [
        {n: (a + 0.1 * rng.standard_normal(a.shape)).astype(dtype) for n, a in base.items()}
        for _ in range(9)
    ]
    del models[1]["up.weight"], models[4]["model.embed_tokens.weight"]
    return [base, *models]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_one_after_the_other_is_all_at_once(method, dtype, monkeypatch):
    base, *models = family(dtype)
    given = dict(METHODS[method], method=method, missing="base")
    expected = merge(base, models, **given)
    held, read = set(), wholes._read

    def counted(it, *given):
        held.add(it.tensor.name)
        return read(it, *given)

    monkeypatch.setattr(wholes, "_read", counted)
    found = merge(base, models, sizes=TURNS, threads=2, **given)
    stacks = {"experts.up"} if method.startswith("breadcrumbs") else set()
    assert held == stacks  # of which several parts are one segment
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name
