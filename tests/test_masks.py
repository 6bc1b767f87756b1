"""A file of TALL masks gives back their bits, and the models that they rebuild."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import masks as reference
from test_preparing import saved
from test_published import close, family

import breadcrumbs
from breadcrumbs import masks, work
from breadcrumbs.errors import CheckpointError, MismatchError, OutputError, RecipeError

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["cats", "dogs", "birds"]
ON = pytest.mark.parametrize("on", ["sum", "ties"])


@ON
@pytest.mark.parametrize("kind", ["usual", "ties"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_masks_that_are_read_back_give_the_same_bits(on, kind, dtype, tmp_path, monkeypatch):
    base, *models = family(1, dtype, 3, kind)
    path, scales = tmp_path / "tasks.safetensors", [0.2, 0.4, 0.5]
    masks.write(base, models, path, names=NAMES, on=on, scale=scales)
    assert masks.tasks(path) == NAMES
    expected = reference.tall_masks(base, models, scale=scales, on=on)
    for task, mine in zip(NAMES, expected, strict=True):
        found = masks.read(path, task)
        assert set(found) == set(mine)
        for name, mask in mine.items():
            assert found[name].shape == mask.shape and (found[name] == mask).all()
    monkeypatch.setattr(work, "CHUNK", 16)
    monkeypatch.setattr(work, "ARENA", 16 * 16)
    again = tmp_path / "again.safetensors"
    masks.write(base, models, again, names=NAMES, on=on, scale=scales)
    assert again.read_bytes() == path.read_bytes()


@ON
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_rebuilt_model_is_that_of_tall_mask(on, dtype, tmp_path):
    base, *models = family(2, dtype, 3)
    path = tmp_path / "tasks.safetensors"
    masks.write(base, models, path, names=NAMES, on=on)
    for number, task in enumerate(NAMES):
        with masks.open(base, path, task) as model:
            found = dict(model)
        close(found, reference.tall_mask(base, models, number, on=on), 2.0**-7)
        expected = breadcrumbs.merge(base, models, method="tall_mask", on=on, task=number + 1)
        for name, values in expected.items():  # the vector is rounded to float32 in the file
            wide = [np.asarray(x, np.float64) for x in (found[name], values)]
            tolerance = 1e-15 if dtype == "float64" else 2.0**-22
            np.testing.assert_allclose(*wide, rtol=0, atol=tolerance * 8)
        assert (found["steps"] == base["steps"]).all()


def test_the_golden_models_come_back_from_files(tmp_path):
    paths = [str(GOLDEN / f"{name}.safetensors") for name in ("base", "ft0", "ft1", "ft2")]
    path = tmp_path / "tasks.safetensors"
    masks.write(paths[0], paths[1:], path)
    assert masks.tasks(path) == ["ft0.safetensors", "ft1.safetensors", "ft2.safetensors"]
    out = tmp_path / "out.safetensors"
    model = masks.open(paths[0], path, "ft2.safetensors")
    rebuilt = dict(model)
    breadcrumbs.merge(paths[0], [model], method="task_arithmetic", alpha=1, output=out)
    expected = breadcrumbs.open(GOLDEN / "expect-tall-l4-task2.safetensors")
    for name, values in breadcrumbs.open(out).items():
        assert values.tobytes() == rebuilt[name].tobytes()
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=4 * 2.0**-23)


def test_a_file_of_masks_is_small(tmp_path):
    rng = np.random.default_rng(3)
    base = {"w": rng.standard_normal((200, 500)).astype(np.float32)}
    models = [{"w": base["w"] + rng.standard_normal((200, 500)).astype(np.float32)}] * 10
    path = tmp_path / "tasks.safetensors"
    masks.write(base, models, path)
    bits = reference.compressed_bits(10, 100_000, 0)[1] - 32 * 100_000  # the base lies elsewhere
    assert path.stat().st_size * 8 == pytest.approx(bits, abs=2000 * 8)


def test_bytes_are_read_from_anywhere(tmp_path):
    base, *models = family(4, "bfloat16", 3)
    path = tmp_path / "tasks.safetensors"
    masks.write(base, models, path, names=NAMES)
    with masks.open(base, path, "dogs") as model:
        tensor = model.tensors["b"]
        whole = tensor.read().tobytes()
        for start, stop in ((0, 1), (3, 50), (33, 234), (18, 18), (233, 234)):
            out = bytearray(stop - start)
            tensor.source.read_into(start, memoryview(out))
            assert bytes(out) == whole[start:stop]


def test_what_does_not_fit_is_refused(tmp_path):
    base, *models = family(5, "float32", 2)
    path = tmp_path / "tasks.safetensors"
    with pytest.raises(OutputError, match=r"Give NAME\.safetensors"):
        masks.write(base, models, tmp_path / "folder")
    with pytest.raises(RecipeError, match=r"scale: 3 are given for 2 models"):
        masks.write(base, models, path, scale=[0.1, 0.2, 0.3])
    assert not list(tmp_path.iterdir())
    masks.write(base, models, path, names=NAMES[:2])
    with pytest.raises(OutputError, match="exists"):
        masks.write(base, models, path)
    masks.write(base, models, path, names=NAMES[1:], force=True)
    with pytest.raises(CheckpointError, match=r"has no task 'bird'\. Did you mean 'birds'"):
        masks.open(base, path, "bird")
    with pytest.raises(MismatchError, match=r"'b': .* is made for shape .* but here is shape"):
        masks.open(dict(base, b=base["b"][1:]), path, "birds")
    with pytest.raises(MismatchError, match=r"but here is no such tensor"):
        masks.open({"w": base["b"]}, path, "birds")
    (other,) = saved(tmp_path, [base])
    with pytest.raises(CheckpointError, match="holds no masks"):
        masks.tasks(other)
