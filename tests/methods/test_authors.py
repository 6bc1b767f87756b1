"""Methods agree with what their authors' programs return; golden/README.md says which these are.

Each file holds a base, its fine-tunings, and what became of them: ``base/NAME``, ``ft1/NAME``, ...,
``expect-CASE/NAME``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import breadcrumbs

AUTHORS = Path(__file__).parents[1] / "golden" / "authors"
Arrays = dict[str, np.ndarray]

#: What WUDI's authors touch of CLIP.
LAYERS = ["*attn.in_proj_weight", "*attn.out_proj.weight", "*mlp.c_fc.weight", "*mlp.c_proj.weight"]
#: Float32 there: 300 steps of Adam, and divisions by small numbers, leave more than rounding.
LOOSE = {"wudi": 2e-6}
#: By file and case, the settings with which the result is theirs to rounding, in all float tensors.
CASES: dict[tuple[str, str], dict[str, Any]] = {
    ("magmax", "a.5-bf16-t4"): {"ties": "later", "dtype": "float32"},
    ("wudi", "vit-layers-f32-t4"): {"solver": "adam", "only": LAYERS},
}


def load(name: str) -> tuple[Arrays, list[Arrays], Callable[[str], Arrays]]:
    """Return the base, the fine-tunings, and what gives the arrays of any other part."""
    arrays = dict(breadcrumbs.open(AUTHORS / f"{name}.safetensors"))

    def part(role: str) -> Arrays:
        start = f"{role}/"
        return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}

    models = [part(f"ft{t}") for t in range(1, 10)]
    return part("base"), [model for model in models if model], part


def off(found: Arrays, expected: Arrays) -> dict[str, float]:
    """Return of each float tensor the largest difference, over its largest weight."""
    return {
        name: float(
            np.abs(np.asarray(found[name], np.float64) - values).max() / np.abs(values).max()
        )
        for name, values in expected.items()
        if values.dtype.kind == "f"
    }


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_a_merge_is_the_authors(case: tuple[str, str]) -> None:
    base, models, part = load(case[0])
    found = breadcrumbs.merge(base, models, method=case[0], **CASES[case])
    assert max(off(found, part(f"expect-{case[1]}")).values()) <= LOOSE.get(case[0], 4e-7)


def test_every_file_is_looked_at() -> None:
    assert {path.stem for path in AUTHORS.glob("*.safetensors")} == {name for name, _ in CASES}
