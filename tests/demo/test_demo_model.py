"""The demo's family: small files, the forward pass of Torch, the stated accuracies."""

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from breadcrumbs import checkpoint
from breadcrumbs.demo import model

README = (model.DATA / "README.md").read_text(encoding="utf-8")
TASKS = ("animals", "digits", "fashion", "turns", "vowels", "weights")


def load_file(path: Path) -> dict[str, np.ndarray]:
    with checkpoint.open(path) as file:
        return dict(file)


def stated(task: str) -> list[float]:
    """Return README's accuracies: base validation and test, fine-tuned validation and test."""
    (row,) = re.findall(rf"^\| {task} \|.*\|$", README, re.MULTILINE)
    return [float(cell) for cell in row.strip("|").split("|")[-4:]]


def test_family_names_base_finetunings_and_tasks():
    family = model.load_family()
    assert tuple(family.tasks) == tuple(family.finetuned) == TASKS
    base = load_file(family.base)
    for path in family.finetuned.values():
        tuned = load_file(path)
        assert {n: v.shape for n, v in tuned.items()} == {n: v.shape for n, v in base.items()}
        changed = {n for n in base if (tuned[n] != base[n]).any()}
        assert changed, path
        assert all(name.startswith("blocks.") for name in changed), path
        assert all(v.dtype == ml_dtypes.bfloat16 for v in tuned.values())


def test_files_are_small():
    sizes = {path.name: path.stat().st_size for path in model.DATA.iterdir()}
    assert max(sizes.values()) < 2**20, sizes
    assert sum(sizes.values()) < 4 * 2**20, sizes
    for name, size in sizes.items():
        if name in ("base.safetensors", "heldout.safetensors"):
            assert f"{size:,}" in README, name


@pytest.mark.parametrize("task", TASKS)
def test_held_out_data_are_whole(task):
    data = model.load_family().tasks[task]
    classes = len(data.head)
    np.testing.assert_allclose(np.linalg.norm(data.head, axis=1), 1, atol=1e-5)
    for held_out, count in ((data.validation, 200), (data.test, 400)):
        assert held_out.images.shape == (count, 28, 28)
        assert held_out.images.max() == model.LEVELS
        assert set(held_out.labels) == set(range(classes))
    images = np.concatenate([data.validation.images, data.test.images]).reshape(600, -1)
    if task in ("animals", "digits", "fashion", "turns"):
        assert len(np.unique(images, axis=0)) > 590  # 16 grey levels may make two alike


@pytest.mark.parametrize("task", TASKS)
def test_cosines_are_those_of_torch(task):
    family = model.load_family()
    golden = load_file(model.DATA / "heldout.safetensors")[f"{task}.golden"]
    data = family.tasks[task]
    weights = load_file(family.finetuned[task])
    found = model.logits(weights, data.head, data.test.images[: len(golden)])
    np.testing.assert_allclose(found, golden, atol=2e-5)


@pytest.mark.parametrize("task", TASKS)
def test_accuracies_are_those_of_the_readme(task):
    family = model.load_family()
    found = [
        model.accuracy(load_file(path), task, split)
        for path in (family.base, family.finetuned[task])
        for split in ("validation", "test")
    ]
    # A machine that sums in another order may flip a near tie: two of 400 at most.
    np.testing.assert_allclose(found, stated(task), atol=0.0051)


def test_float32_and_bfloat16_weights_give_the_same_answer():
    family = model.load_family()
    narrow = load_file(family.finetuned["vowels"])
    wide = {name: value.astype(np.float32) for name, value in narrow.items()}
    assert model.accuracy(narrow, "vowels") == model.accuracy(wide, "vowels")


def test_an_unknown_task_or_split_is_named():
    with pytest.raises(KeyError, match="vowels"):
        model.accuracy({}, "birds")
    with pytest.raises(ValueError, match="validation"):
        model.accuracy({}, "vowels", "train")  # type: ignore[arg-type]
