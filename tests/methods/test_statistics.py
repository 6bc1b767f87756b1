"""Methods that take statistics of each model: their references, and ways to give them wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
from families import merge
from references import classical
from safetensors.numpy import save_file
from statistics_rows import SHAPES, TABLE, Arrays, fishers, grams, regmean

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.cli.inspection import inspect
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, MismatchError, RecipeError
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.plan import Sizes, recipe
from breadcrumbs.plan.statistics import KEY

NAMES = ["model 1", "model 2", "model 3"]
WEIGHTS = ([1.0, 1.0, 1.0], [1.0, 0.5, 2.0], [1.0, 0.0, 3.0])


class Described(dict):
    """Arrays with metadata, as those of `breadcrumbs.statistics`."""

    def __init__(self, arrays: Arrays, **said: Any):
        super().__init__(arrays)
        self.metadata = {KEY: json.dumps(said)} if said else {}


def family(seed: int, dtype: str) -> list[Arrays]:
    """Return a base and three models."""
    return families.family(seed, dtype, 3, "normal", SHAPES)


methods = pytest.mark.parametrize("method", TABLE)


@methods
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_merge_is_the_references(method, dtype):
    row = TABLE[method]
    base, *models = family(1, dtype)
    statistics = row.make(2)
    for settings in row.settings:
        for weights in WEIGHTS:
            found = breadcrumbs.merge(
                base,
                models,
                method=method,
                weights=weights,
                statistics=statistics,
                dtype="float64",
                **settings,
            )
            some = [i for i in range(3) if weights[i]]
            expected = row.reference(
                base,
                [models[i] for i in some],
                [statistics[i] for i in some],
                [weights[i] for i in some],
                **settings,
            )
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12, err_msg=name)
            assert (found["steps"] == base["steps"]).all()


@methods
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_model_and_equal_models_come_back(method, dtype):
    row = TABLE[method]
    base, model, *_ = family(3, dtype)
    statistics = row.make(4)
    for number in (1, 3):
        found = breadcrumbs.merge(
            base, [model] * number, method=method, statistics=statistics[:number]
        )
        for name in SHAPES:
            assert found[name].tobytes() == model[name].tobytes(), name


@methods
def test_the_base_comes_back_bit_for_bit(method):
    row = TABLE[method]
    base, *_ = family(3, "float32")
    base["v"][:2] = [0.0, -0.0]
    found = breadcrumbs.merge(base, [base.copy()] * 3, method=method, statistics=row.make(4))
    assert all(found[name].tobytes() == values.tobytes() for name, values in base.items())


@methods
def test_the_order_of_models_changes_nothing(method):
    row = TABLE[method]
    base, *models = family(5, "float32")
    statistics = row.make(6)
    found = [
        breadcrumbs.merge(
            base,
            [models[i] for i in order],
            method=method,
            weights=[[1.0, 0.3, 2.0][i] for i in order],
            statistics=[statistics[i] for i in order],
        )
        for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0])
    ]
    for other in found[1:]:
        for name in SHAPES:
            if row.exact:
                assert other[name].tobytes() == found[0][name].tobytes()
            else:
                np.testing.assert_allclose(other[name], found[0][name], rtol=1e-6, atol=1e-7)


@methods
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_chunks_threads_kernels_and_files_change_no_bit(method, dtype, tmp_path):
    row = TABLE[method]
    base, *models = family(7, dtype)
    statistics = row.make(8)
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    files = [tmp_path / f"s{i}.safetensors" for i in range(3)]
    for path, arrays in zip([*paths, *files], [base, *models, *statistics], strict=True):
        save_file(arrays, path)
    given = dict(method=method, weights=[1.0, 0.5, 2.0])
    expected = breadcrumbs.merge(base, models, statistics=statistics, **given)
    given["sizes"] = Sizes(chunk=64, arena=128 * 16)
    for found in (
        merge(base, models, statistics=statistics, kernel="numpy", threads=3, **given),
        merge(paths[0], paths[1:], statistics=files, kernel="native", threads=2, **given),
    ):
        for name, values in expected.items():
            assert found[name].tobytes() == values.tobytes(), name


@methods
def test_a_model_without_a_tensor_counts_as_unchanged(method):
    row = TABLE[method]
    base, *models = family(9, "float32")
    statistics = row.make(10)
    changed = dict(models[0], w=base["w"].copy())
    without = {name: values for name, values in models[0].items() if name != "w"}
    given = dict(method=method, missing="base")
    found = breadcrumbs.merge(base, [without, *models[1:]], statistics=statistics, **given)
    expected = breadcrumbs.merge(base, [changed, *models[1:]], statistics=statistics, **given)
    assert all(found[name].tobytes() == values.tobytes() for name, values in expected.items())
    # Without statistics of it, it has no say.
    less = {name: values for name, values in statistics[0].items() if name != "w"}
    found = breadcrumbs.merge(
        base, [without, *models[1:]], statistics=[less, *statistics[1:]], **given
    )
    expected = row.reference(base, models[1:], statistics[1:], [1, 1])["w"]
    if method == "fisher":
        nobody = (statistics[1]["w"] == 0) & (statistics[2]["w"] == 0)
        expected[nobody] = classical.weighted_mean([changed["w"], *(m["w"] for m in models[1:])])[
            nobody
        ]
        np.testing.assert_allclose(found["w"], expected, rtol=1e-6)
    else:  # but the ridge pulls towards the mean of all
        np.testing.assert_allclose(found["w"], expected, atol=1e-4)


def test_a_square_weight_is_turned_where_the_metadata_say_so(tmp_path):
    base, *models = family(11, "float64")
    statistics = [Described(g, kind="gram", turned=["q", "c"]) for g in grams(12)]
    expected = regmean(base, models, statistics, None, turned=["q"])
    found = breadcrumbs.merge(base, models, method="regmean", statistics=statistics)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12)
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file, arrays in zip(files, statistics, strict=True):
        save_file(dict(arrays), file, metadata=arrays.metadata)
    again = breadcrumbs.merge(base, models, method="regmean", statistics=files)
    assert all(again[name].tobytes() == values.tobytes() for name, values in found.items())
    with pytest.raises(MismatchError, match="statistics 1: says that the inputs of 'q' lie along"):
        mixed = [statistics[0], *grams(12)[1:]]
        breadcrumbs.merge(base, models, method="regmean", statistics=mixed)


def test_without_a_ridge_what_nobody_saw_is_refused():
    base, *models = family(13, "float32")
    blind = grams(14)
    for arrays in blind:
        arrays["w"][0] = arrays["w"][:, 0] = 0
    found = breadcrumbs.merge(base, models, method="regmean", statistics=blind)
    middle = classical.weighted_mean([m["w"] for m in models])
    np.testing.assert_allclose(found["w"][:, 0], middle[:, 0], rtol=1e-6)
    with pytest.raises(RecipeError, match="without a ridge"):
        breadcrumbs.merge(base, models, method="regmean", statistics=blind, ridge=0)


def less(arrays: Arrays, name: str) -> Arrays:
    return {key: values for key, values in arrays.items() if key != name}


def wrong(method: str) -> dict[str, tuple[Any, type[BreadcrumbsError], str]]:
    """Return by name: statistics of three models, the error, and what its message has."""
    one, two, three = TABLE[method].make(15)
    what = "Fisher information" if method == "fisher" else "Gram matrices"
    bad = dict(two, w=two["w"].copy())
    bad["w"][0, 0] = np.nan
    negative = dict(two, w=two["w"].copy())
    negative["w"][0, 0] = -1
    return {
        "none": (
            None,
            RecipeError,
            f"needs the .*{what}.*0 are given for 3.*breadcrumbs.statistics",
        ),
        "a name missing": (
            [one, less(two, "w"), three],
            MismatchError,
            "statistics 2: has nothing",
        ),
        "a shape": (
            [one, dict(two, w=np.ones((4, 4))), three],
            MismatchError,
            r"of shape \(4, 4\)",
        ),
        "a dtype": (
            [one, dict(two, w=two["w"].astype(np.int32)), three],
            MismatchError,
            "statistics 2: 'w' is I32",
        ),
        "all of another model": ([{"x": np.ones(3)}] * 3, MismatchError, "has no"),
        "another kind": (
            [one, Described(two, kind="other"), three],
            MismatchError,
            "statistics 2: holds statistics of the kind 'other'",
        ),
        "damaged": ([one, Described(two, turned=["w"]), three], CheckpointError, "are damaged"),
        "not a number": ([one, bad, three], MismatchError, "statistics 2: 'w' has entries that"),
        "negative": ([one, negative, three], MismatchError, "negative or not finite"),
    }


@methods
@pytest.mark.parametrize("case", list(wrong("fisher")))
def test_wrong_statistics_are_refused_in_one_line(method, case):
    base, *models = family(16, "float32")
    statistics, kind, message = wrong(method)[case]
    with pytest.raises(kind, match=message) as caught:
        breadcrumbs.merge(base, models, method=method, statistics=statistics)
    assert "\n" not in str(caught.value)


@methods
def test_what_does_not_belong_together_is_refused(method):
    base, *models = family(17, "float32")
    statistics = TABLE[method].make(18)
    with pytest.raises(RecipeError, match="statistics: found 2 for 3 models"):
        breadcrumbs.merge(base, models, method=method, statistics=statistics[:2])
    with pytest.raises(RecipeError, match="statistics: found one value where a list is expected"):
        breadcrumbs.merge(base, models, method=method, statistics=statistics[0])
    for wrong_kind in (5, "", ["a"]):
        with pytest.raises(RecipeError, match=r"models\[0\]: statistics: found"):
            recipe.from_mapping({"base": "b", "models": [{"model": "m", "statistics": wrong_kind}]})
    with pytest.raises(RecipeError, match="task_arithmetic: takes no statistics; 3 files"):
        breadcrumbs.merge(base, models, method="task_arithmetic", statistics=statistics)
    with pytest.raises(RecipeError, match="model 2 has the weight -1"):
        breadcrumbs.merge(base, models, method=method, statistics=statistics, weights=[1, -1, 1])
    given = dict(method=method, statistics=statistics)
    below = [{"tensors": "q", "model": "model 2", "weight": -1}]
    with pytest.raises(RecipeError, match=r"model 2 has the weight -1 in 'q'.*none below 0"):
        breadcrumbs.merge(base, models, **given, overrides=below)
    # What holds for no tensor that is merged does not matter.
    breadcrumbs.merge(base, models, **given, overrides=below, exclude="q")
    above = [{"tensors": "*", "model": "model 2", "weight": 1}]
    found = breadcrumbs.merge(base, models, **given, weights=[1, -1, 1], overrides=above)
    expected = breadcrumbs.merge(base, models, **given)
    assert all(found[name].tobytes() == values.tobytes() for name, values in expected.items())
    with pytest.raises(RecipeError, match=f"Use method {method}"):
        breadcrumbs.merge(base, models, method=f"breadcrumbs+{method}", statistics=statistics)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return a base, two models and their Fisher information, in files of one folder."""
    names = ["base", "ft1", "ft2", "ft1-fisher", "ft2-fisher"]
    paths = [tmp_path / f"{name}.safetensors" for name in names]
    for path, arrays in zip(paths, [*family(19, "float32")[:3], *fishers(20)[:2]], strict=True):
        save_file(arrays, path)
    return paths


def test_a_recipe_names_statistics_beside_it_and_an_output_their_hashes(files, tmp_path):
    folder = files[0].parent
    (folder / "recipe.yaml").write_text(
        "base: base.safetensors\nmethod: fisher\nmodels:\n"
        "  - {model: ft1.safetensors, statistics: ft1-fisher.safetensors}\n"
        "  - {model: ft2.safetensors, statistics: ft2-fisher.safetensors, weight: 2}\n"
    )
    made = recipe.load(folder / "recipe.yaml")
    assert [model.statistics for model in made.models] == [str(path) for path in files[3:]]
    with opening.opened(made) as plan:
        assert plan.bytes_read == 5 * sum(plan.base[k].nbytes for k in SHAPES) + 24
        done: list[int] = []
        merging_files.to_files(plan, folder / "out", progress=done.append)
        assert sum(done) == plan.bytes_read
    expected = breadcrumbs.merge(
        files[0], files[1:3], method="fisher", statistics=files[3:], weights=[1, 2]
    )
    found = breadcrumbs.open(folder / "out")
    assert all(found[name].tobytes() == values.tobytes() for name, values in expected.items())
    inputs = inspect(str(folder / "out"))["merged_from"]["inputs"]
    assert [next(iter(source)) for source in inputs] == ["model"] * 3 + ["statistics"] * 2
    assert all(len(source["files"][0]["blake3"]) == 64 for source in inputs)
    card = (folder / "out" / "README.md").read_text()
    assert "ft2-fisher.safetensors" in card.partition("## Inputs")[2]
    assert "fisher.safetensors" not in card.partition("# Merged")[0]
    again = recipe.load(folder / "out" / "breadcrumbs.yaml")
    assert [model.statistics for model in again.models] == [str(path) for path in files[3:]]


def test_statistics_are_no_model_to_take_a_tokenizer_of():
    data = {"base": "b", "method": "fisher", "models": [{"model": "m", "statistics": "f"}]}
    for known in ("b", "m"):
        assert recipe.from_mapping({**data, "tokenizer": known}).tokenizer == known
    assert recipe.from_mapping({**data, "onto": "o", "tokenizer": "o"}).tokenizer == "o"
    with pytest.raises(RecipeError, match=r"'f' is not one of the models\. Give one of b, m\."):
        recipe.from_mapping({**data, "tokenizer": "f"})


def test_the_command_takes_one_file_for_each_model(files, tmp_path):
    from click.testing import CliRunner

    base, *models = map(str, files[:3])
    given = [f"--statistics={path}" for path in files[3:]]
    run = CliRunner().invoke
    out = str(tmp_path / "out.safetensors")
    result = run(main, ["merge", base, *models, "-o", out, "-m", "fisher", *given, "-w1", "-w2"])
    assert result.exit_code == 0, result.output
    expected = breadcrumbs.merge(
        files[0], files[1:3], method="fisher", statistics=files[3:], weights=[1, 2]
    )
    assert breadcrumbs.open(out)["w"].tobytes() == expected["w"].tobytes()
    result = run(main, ["merge", base, *models, "-o", out, "-m", "fisher", given[0]])
    assert result.exit_code == 2 and "1 statistics are given for 2 models" in result.output
    half = files[0].parent / "half.yaml"
    half.write_text(
        f"base: {base}\nmethod: fisher\nmodels:\n  - {models[0]}\n"
        f"  - {{model: {models[1]}, statistics: {files[4]}}}\n"
    )
    result = run(main, ["merge", str(half), "--dry-run"])
    assert result.exit_code == 1 and "1 are given for 2 models" in result.output
    result = run(main, ["merge", base, *models, "-m", "fisher", "--dry-run"])
    assert result.exit_code == 1 and "breadcrumbs.statistics.fisher" in result.output
    for name, word in (("fisher", "Fisher information"), ("regmean", "Gram matrices")):
        result = run(main, ["methods", name])
        assert word in " ".join(result.output.split()) and result.exit_code == 0
    assert "needs: gram" in " ".join(run(main, ["methods"]).output.split())


def test_an_interrupted_merge_is_not_resumed_with_other_statistics(files, tmp_path):
    made = recipe.Recipe(
        str(files[0]),
        tuple(
            recipe.Model(str(m), statistics=str(s))
            for m, s in zip(files[1:3], files[3:], strict=True)
        ),
        method="fisher",
    )

    def stop(nbytes: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with opening.opened(made) as plan, pytest.raises(KeyboardInterrupt):
        merging_files.to_files(plan, out, progress=stop, threads=1)
    save_file(fishers(21)[0], files[3])
    with opening.opened(made) as plan, pytest.raises(BreadcrumbsError, match="other inputs"):
        merging_files.to_files(plan, out, resume=True)
    with pytest.raises(RecipeError, match="is one of the models"):
        breadcrumbs.merge(
            files[0], files[1:3], method="fisher", statistics=files[3:], output=files[3]
        )


def test_tensors_that_are_copied_need_no_statistics():
    base, *models = family(22, "float32")
    few = [{"v": arrays["v"]} for arrays in fishers(23)]
    found = breadcrumbs.merge(base, models, method="fisher", statistics=few, only="v")
    whole = breadcrumbs.merge(base, models, method="fisher", statistics=fishers(23))
    assert found["v"].tobytes() == whole["v"].tobytes()
    assert found["w"].tobytes() == base["w"].tobytes()
