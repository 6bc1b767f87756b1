"""Tensors of names that no library gives, through all kinds of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import archives, tasks


@pytest.mark.parametrize(
    "name", ["", "..", "a\nb", "a/b", "/a", "a\x00b", "mask/0/w", "[0]*?", "名前"]
)
def test_a_tensor_of_any_name_comes_back(tmp_path: Path, name: str) -> None:
    draw = np.random.default_rng(0)
    other = draw.normal(size=(8, 8)).astype(np.float32)
    held = {"w": other, name: np.arange(4)}
    base = str(tmp_path / "base.safetensors")
    save_file(held, base)
    models = []
    for number in (1, 2):
        models.append(str(tmp_path / f"ft{number}.safetensors"))
        step = draw.normal(size=(8, 8)).astype(np.float32)
        save_file({"w": other + step, name: held[name] + number}, models[-1])
    tuned = dict(breadcrumbs.open(models[0]))
    task, packed, back = (tmp_path / f"{n}.safetensors" for n in ("task", "packed", "back"))
    tasks.pack(base, models[0], task, transform="none")
    tasks.unpack(base, [str(task)], back)
    assert {n: list(a.flat) for n, a in breadcrumbs.open(back).items()} == {
        n: list(a.flat) for n, a in tuned.items()
    }
    archives.compress(base, models, packed, names=["one", "two"])
    archives.extract(packed, "one", back, base=base, force=True)
    found = dict(breadcrumbs.open(back))
    assert found.keys() == tuned.keys() and np.array_equal(found[name], tuned[name])


def test_a_name_with_brackets_is_itself(tmp_path: Path) -> None:
    name = "layers[0].weight"
    base, tuned = ({name: np.eye(4) * n, "layers.0": np.eye(4) * -n} for n in (1, 2))
    for how in ({"exclude": [name]}, {"overrides": [{"tensors": name, "alpha": 0.0}]}):
        found = breadcrumbs.merge(base, [tuned], method="task_arithmetic", alpha=1.0, **how)
        assert np.array_equal(found[name], base[name])
        assert np.array_equal(found["layers.0"], tuned["layers.0"])
    del tuned[name]
    found = breadcrumbs.merge(base, [tuned], method="task_arithmetic", alpha=1.0, missing=[name])
    assert np.array_equal(found[name], base[name])
