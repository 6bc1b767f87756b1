"""Task files: packed, merged to the same bits as the fine-tunings, unpacked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3
from click.testing import CliRunner
from families import WRITTEN, assert_same, checkpoints, merge, packed

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.cli import inspection
from breadcrumbs.cli.group import main
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.plan import USUAL, Sizes
from breadcrumbs.plan.recipe import Model, Recipe, load
from breadcrumbs.taskfile.about import BLOCK
from breadcrumbs.taskfile.view import KeptBytes

CUT = [
    ("breadcrumbs", {}, "breadcrumbs"),
    ("breadcrumbs", {"variant": "authors"}, "breadcrumbs"),
    ("breadcrumbs", {"granularity": "row", "beta": 0.8}, "breadcrumbs"),
    ("breadcrumbs", {"granularity": "model"}, "breadcrumbs"),
    ("breadcrumbs", {"density": 0.1, "outliers": 0.02}, "breadcrumbs"),
    ("breadcrumbs", {"density": 0.1, "outliers": 0.02, "counts": "mergekit"}, "breadcrumbs"),
    ("breadcrumbs", {"variant": "authors"}, "breadcrumbs_ties"),
    ("magnitude", {"density": 0.1}, "magnitude"),
    ("magnitude", {"density": 0.3, "granularity": "row"}, "ties"),
    ("top_masking", {"outliers": 0.05}, "top_masking"),
    ("random_mask", {}, "random_sparsed"),
    ("dare", {"p": 0.8}, "dare_linear"),
]


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize(("transform", "given", "method"), CUT)
def test_same_bits_as_the_finetunings(tmp_path: Path, transform, given, method, kernel) -> None:
    for dtype in ("float32", "bfloat16") if kernel == "native" else WRITTEN:
        rows = BLOCK // 300 + 7 if (dtype, kernel) == ("bfloat16", "native") else 120
        base, *models = checkpoints(tmp_path / dtype, dtype, rows=rows)
        files = packed(tmp_path, base, models, transform=transform, **given)
        settings = {"method": method, "kernel": kernel, "alpha": 0.4}
        expected = breadcrumbs.merge(base, models, **settings, **given)
        assert_same(breadcrumbs.merge(base, files, **settings), expected)
        assert_same(breadcrumbs.merge(base, files, **settings, **given), expected)
        weights = [0.5, 1.0, -2.0]
        expected = breadcrumbs.merge(base, models, weights=weights, **settings, **given)
        assert_same(breadcrumbs.merge(base, files, weights=weights, **settings), expected)


@pytest.mark.parametrize("dtype", WRITTEN)
@pytest.mark.parametrize(
    "method",
    ["breadcrumbs", "task_arithmetic", "average", "ties", "dare_ties", "della", "tsv_m", "slerp"],
)
def test_whole_tasks_are_as_good_as_checkpoints(tmp_path: Path, method: str, dtype: str) -> None:
    base, *models = checkpoints(tmp_path, dtype, models=1 if method == "slerp" else 3)
    files = packed(tmp_path, base, models, transform="none")
    expected = breadcrumbs.merge(base, models, method=method)
    assert_same(breadcrumbs.merge(base, files, method=method), expected)
    assert_same(breadcrumbs.merge(base, [files[0], *models[1:]], method=method), expected)


def test_unpacked_without_a_transform_is_the_finetuning(tmp_path: Path) -> None:
    base, *models = checkpoints(tmp_path, "bfloat16")
    files = packed(tmp_path, base, models, transform="none")
    one = tasks.unpack(base, files[:1], tmp_path / "again")
    assert one == [tmp_path / "again"]
    assert (tmp_path / "again" / "config.json").exists()
    assert_same(dict(breadcrumbs.open(one[0])), dict(breadcrumbs.open(models[0])))
    several = tasks.unpack(base, files, tmp_path / "all")
    for path, model in zip(several, models, strict=True):
        assert path.name == Path(model).name
        assert_same(dict(breadcrumbs.open(path)), dict(breadcrumbs.open(model)))


def test_unpacked_is_the_base_but_for_what_is_kept(tmp_path: Path) -> None:
    base, model = checkpoints(tmp_path, models=1, rows=BLOCK // 300 + 7)
    (file,) = packed(tmp_path, base, [model], transform="magnitude", density=0.1)
    (out,) = tasks.unpack(base, [file], tmp_path / "again.safetensors")
    before, after, tuned = (dict(breadcrumbs.open(path)) for path in (base, out, model))
    with tasks.TaskFile.open(file) as task:
        assert set(task.tensors) < set(before) and "frozen.weight" not in task.tensors
        for name, tensor in task.tensors.items():
            flat = before[name].reshape(-1).copy()
            for block in range(tensor.blocks):
                kept = task.kept(name, block)
                assert (np.diff(kept.positions.astype(np.int64)) > 0).all()
                at = block * BLOCK + kept.positions
                assert (kept.values == tuned[name].reshape(-1)[at]).all()
                flat[at] = kept.values
            assert flat.tobytes() == after[name].tobytes()
        n = before["embed.weight"].size
        assert abs(task.tensors["embed.weight"].kept - n // 10) <= 2
        assert task.density == pytest.approx(0.1, abs=0.01)


def test_same_bytes_whatever_the_threads(tmp_path: Path) -> None:
    base, model = checkpoints(tmp_path, models=1, rows=BLOCK // 300 + 7)
    said = []
    for threads in (1, 3):
        path = tmp_path / f"t{threads}.safetensors"
        tasks.pack(base, model, path, variant="authors", name="t", threads=threads)
        said.append(path.read_bytes())
    assert said[0] == said[1]


def test_another_base_is_refused(tmp_path: Path) -> None:
    base, model = checkpoints(tmp_path / "a", models=1)
    other, _ = checkpoints(tmp_path / "b", models=1, seed=1)
    (file,) = packed(tmp_path, base, [model])
    with pytest.raises(MismatchError, match=r"another base than .*Give 'base', hash [0-9a-f]{16}"):
        breadcrumbs.merge(other, [file])
    with pytest.raises(MismatchError, match=r"which is not a base. Give the model 'base' first"):
        breadcrumbs.merge(file, [model])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.8}, r"was cut by breadcrumbs \(beta 0.9.*asks for beta 0.8"),
        ({"method": "ties"}, "was cut by breadcrumbs, which method ties does not"),
        ({"overrides": [{"tensors": "*bias", "beta": 0.8}]}, "everywhere alike"),
        ({"density": 0.2, "outliers": 0.01}, "asks for beta 0.79"),
    ],
)
def test_other_cuts_are_refused(tmp_path: Path, settings, message) -> None:
    base, *models = checkpoints(tmp_path, models=2)
    files = packed(tmp_path, base, models)
    with pytest.raises(RecipeError, match=message):
        breadcrumbs.merge(base, files, **settings)


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    base, *models = checkpoints(tmp_path, models=2)
    (first,) = packed(tmp_path, base, models[:1])
    (second,) = packed(tmp_path, base, models[1:], beta=0.8)
    with pytest.raises(RecipeError, match=r"beta 0.8.*Pack all of them the same way"):
        breadcrumbs.merge(base, [first, second])
    with pytest.raises(RecipeError, match="is whole"):
        breadcrumbs.merge(base, [first, models[1]])
    (third,) = packed(tmp_path, base, models[1:], transform="magnitude", granularity="model")
    with pytest.raises(RecipeError, match="looks at what was cut, too"):
        breadcrumbs.merge(base, [third], method="ties")
    summed = breadcrumbs.merge(base, [first, second], method="task_arithmetic", alpha=1)
    assert summed["scale"].dtype == np.float32


@pytest.mark.parametrize("transform", ["della", "tvq", "rtvq"])
def test_what_changes_weights_cannot_be_packed(tmp_path: Path, transform: str) -> None:
    base, model = checkpoints(tmp_path, models=1)
    with pytest.raises(RecipeError, match="changes the weights that it keeps"):
        tasks.pack(base, model, tmp_path / "t.safetensors", transform=transform)
    with pytest.raises(RecipeError, match="rescale l1"):
        tasks.pack(base, model, tmp_path / "t.safetensors", rescale="l1")


def test_command_line(tmp_path: Path) -> None:
    base, *models = checkpoints(tmp_path, "bfloat16", models=2)
    files = [str(tmp_path / f"t{i}.safetensors") for i in (1, 2)]
    for model, file in zip(models, files, strict=True):
        ran = CliRunner().invoke(main, ["task", "pack", base, model, "-o", file, "-p", "beta=0.8"])
        assert ran.exit_code == 0 and "of the model's" in ran.output, ran.output
    out = str(tmp_path / "merged")
    ran = CliRunner().invoke(main, ["merge", base, *files, "-o", out, "-q"])
    assert ran.exit_code == 0, ran.output
    alpha = load(tmp_path / "merged" / "breadcrumbs.yaml").parameters["alpha"]
    expected = breadcrumbs.merge(base, models, beta=0.8, alpha=alpha)
    assert_same(dict(breadcrumbs.open(out)), expected)
    inputs = inspection.inspect(out)["merged_from"]["inputs"]
    hashes = [tasks.TaskFile.open(file).hash for file in files]
    assert [one["files"][0].get("task") for one in inputs] == [None, *hashes]
    assert [len(one["files"][0].get("blake3", "")) for one in inputs] == [64, 0, 0]
    ran = CliRunner().invoke(main, ["inspect", out])
    assert all(hash_[:16] in ran.output for hash_ in hashes)
    assert all(hash_ in Path(out, "README.md").read_text() for hash_ in hashes)
    again = str(tmp_path / "again")
    ran = CliRunner().invoke(main, ["merge", f"{out}/breadcrumbs.yaml", "-o", again, "--json"])
    assert ran.exit_code == 0, ran.output
    assert_same(dict(breadcrumbs.open(out)), dict(breadcrumbs.open(again)))
    kept = json.loads(ran.output)["models"][0]
    assert kept["fraction"] == pytest.approx(0.19, abs=0.01)
    ran = CliRunner().invoke(main, ["task", "unpack", base, *files, "-o", str(tmp_path / "ft")])
    assert ran.exit_code == 0 and ran.output.split() == [
        str(tmp_path / "ft" / f"ft{i}") for i in (1, 2)
    ]


def test_everything_that_takes_a_model_takes_a_task(tmp_path: Path) -> None:
    base, *models = checkpoints(tmp_path, models=3)
    files = packed(tmp_path, base, models, transform="none")
    one, other = breadcrumbs.compare(base, models), breadcrumbs.compare(base, files)
    assert other.names == one.names and (other.cosine == one.cosine).all()
    tau, other = breadcrumbs.TaskVector(base, models[0]), breadcrumbs.TaskVector(base, files[0])
    assert_same(tau, other)
    expected = breadcrumbs.merge(base, models, method="ties")
    with Sweep(base) as sweep:
        for alpha in (0.5, 1.0):
            recipe = Recipe(base, tuple(map(Model, files)), "ties", {"alpha": alpha})
            found = sweep.merged(recipe)
    assert_same(found, expected)

    def score(state) -> float:
        return -float(np.abs(state["layer.weight"]).sum())

    soups = [breadcrumbs.greedy_soup(base, paths, lambda path: score(breadcrumbs.open(path)),
             output=tmp_path / f"soup{i}") for i, paths in enumerate((models, files))]  # fmt: skip
    assert soups[0].candidates == soups[1].candidates
    assert_same(*(dict(breadcrumbs.open(tmp_path / f"soup{i}")) for i in range(2)))
    improved = [breadcrumbs.merge(base, m[1:], onto=m[0], alpha=0.2) for m in (models, files)]
    assert_same(*improved)


def test_inspect(tmp_path: Path) -> None:
    base, model = checkpoints(tmp_path, "bfloat16", models=1)
    path = tmp_path / "t.safetensors"
    tasks.pack(base, model, path, name="cats", base_name="org/base", author="A. Author", beta=0.8)
    found = inspection.inspect(str(path), with_hash=True)
    assert found["task"]["name"] == "cats" and found["task"]["base"]["name"] == "org/base"
    assert found["task"]["parameters"]["beta"] == 0.8
    assert {t["name"]: t["kept"] for t in found["tensors"]}["steps"] == 2
    assert found["parameters"] == sum(t["kept"] for t in found["tensors"]) - 2
    ran = CliRunner().invoke(main, ["inspect", str(path), "--tensors"])
    said = " ".join(ran.output.split())
    assert "task cats of base org/base" in said and "A. Author" in said and "beta 0.8" in said
    assert inspection.inspect(base)["task"] is None
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    ran = CliRunner().invoke(main, ["inspect", str(path), "--hash"])
    assert ran.exit_code == 1 and "does not match its hash" in ran.output


def test_the_example_of_the_page() -> None:
    """Its bytes are read as the page says, by nothing but the page."""
    page = (Path(__file__).parents[2] / "docs" / "task-file.md").read_text(encoding="utf-8")
    rows = re.findall(r"^[0-9a-f]{4}  (.{47})", page, re.MULTILINE)
    data = bytes.fromhex("".join(rows))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    said = header["__metadata__"]["breadcrumbs.task"]
    begin, end = (8 + size + at for at in header["blocks/w"]["data_offsets"])
    table = np.frombuffer(data[begin:end], "<u4").tolist()
    assert table[:5] == [2, 1, 1, 0, 4]
    held = data[end:]
    assert blake3(held).digest(16) == data[end - 16 : end]
    assert [i for i in range(8) if held[0] >> i & 1] == [1, 6]
    assert np.frombuffer(held[1:], ml_dtypes.bfloat16).tolist() == [1.5, 2.0]
    wanted = blake3(said.encode() + data[begin:end]).hexdigest()
    assert header["__metadata__"]["breadcrumbs.task.hash"] == wanted
    line = b'["w", "BF16", [8]]'
    ones = np.ones(8, ml_dtypes.bfloat16).tobytes()
    expected = blake3(len(line).to_bytes(8, "little") + line + ones).hexdigest()
    assert json.loads(said)["base"]["hash"] == expected


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize("weights", [None, [1.0, 0.25, 3.0, 0.5, 0.1]])
@pytest.mark.parametrize("most", [USUAL.kept, 1000, 1])
def test_sums_make_no_finetuning_whole(tmp_path, monkeypatch, kernel, weights, most) -> None:
    rng = np.random.default_rng(0)
    base = {"w": rng.normal(0, 1, 5000).astype(np.float32)}
    models = [{"w": base["w"] + rng.normal(0, 0.1, 5000).astype(np.float32)} for _ in range(5)]
    files = [tmp_path / f"t{i}.safetensors" for i in range(5)]
    for model, file in zip(models, files, strict=True):
        tasks.pack(base, model, file)
    settings = {"kernel": kernel, "weights": weights, "alpha": 0.3}
    expected = breadcrumbs.merge(base, models, **settings)

    def refuse(*arguments: object) -> None:
        raise AssertionError("a fine-tuning is made whole")

    monkeypatch.setattr(KeptBytes, "read_into", refuse)
    sizes = Sizes(kept=most)  # 450 entries are kept of each: in groups of 2, 1
    assert_same(merge(base, files, sizes=sizes, **settings), expected)


@pytest.mark.parametrize("kernel", ["numpy", "native"])
def test_sums_of_terms_that_differ_much_make_no_finetuning_whole(
    tmp_path: Path, monkeypatch, kernel
) -> None:
    rng = np.random.default_rng(0)
    base = {"w": (rng.normal(0, 1, 3000) * 2.0 ** rng.integers(-40, 0, 3000)).astype(np.float32)}
    models = [{"w": base["w"] + rng.normal(0, 0.1, 3000).astype(np.float32)} for _ in range(5)]
    files = [tmp_path / f"t{i}.safetensors" for i in range(5)]
    for model, file in zip(models, files, strict=True):
        tasks.pack(base, model, file)
    expected = breadcrumbs.merge(base, models, kernel=kernel, alpha=0.3)

    def refuse(*arguments: object) -> None:
        raise AssertionError("a fine-tuning is made whole")

    monkeypatch.setattr(KeptBytes, "read_into", refuse)
    assert_same(breadcrumbs.merge(base, files, kernel=kernel, alpha=0.3), expected)
