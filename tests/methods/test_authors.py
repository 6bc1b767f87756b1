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
    ("della", "fuse-mean-f32-t4"): {"density": 1, "epsilon": 0, "alpha": 1.1},
    ("emr", "task1-flat-f32-t4"): {"task": 1},
    ("fisher", "min0-f32-t4"): {},
    ("fisher", "min1e-6-f32-t4"): {"added": 1e-6},
    ("model_stock", "fusionbench-f32-t4"): {"ratio": "free", "pairs": "angles"},
    ("sce", "topk.1-f32-t4"): {"density": 0.1, "adds": "all"},
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
    given = dict(CASES[case])
    if case[0] == "fisher":
        given["statistics"] = [part(f"fisher{t}") for t in range(1, 1 + len(models))]
    found = breadcrumbs.merge(base, models, method=case[0], **given)
    expected = part(f"expect-{case[1]}")
    if case[0] == "model_stock":  # whose cosine of a number is 1 or -1, and its angle noise there
        expected.pop("logit_scale")
    assert max(off(found, expected).values()) <= LOOSE.get(case[0], 4e-7)


@pytest.mark.parametrize(("n", "m"), [(64, 256), (3, 32)])
def test_cabs_is_the_authors_but_for_last_blocks(n: int, m: int) -> None:
    base, models, part = load("cabs")
    found = breadcrumbs.merge(base, models, method="cabs", n=n, m=m)
    expected = part(f"expect-{n}-{m}-f32-t2")
    for name, values in expected.items():
        whole = values.size // m * m  # what is left of a tensor is dropped there
        off = np.abs(found[name].reshape(-1) - values.reshape(-1))[:whole]
        assert off.max(initial=0) <= 4e-7 * np.abs(values).max(), name
    assert sum(values.size // m for values in expected.values()) > 0


def test_every_file_is_looked_at() -> None:
    assert {path.stem for path in AUTHORS.glob("*.safetensors")} == {
        "cabs",
        *(name for name, _ in CASES),
    }
