"""Comparisons of task vectors: the slow reference, and the same bits however they are read."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from reference import DTYPES, breadcrumbs_mask, draws
from references import spectral
from references.common import flat, magnitude, weights_of
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.merging import comparison, opening
from breadcrumbs.plan import Sizes

Arrays = dict[str, np.ndarray]
KEYS = ("cosine", "pearson", "euclid", "conflicts", "norms", "kept")


def family(seed: int, dtype: str = "float32", models: int = 4) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    shapes = {"b": (13, 9), "a": (4, 50), "v": (31,), "s": (), "t": (3, 4, 5), "none": (0, 3)}
    base = {name: np.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}
    common = {name: rng.standard_normal(values.shape) for name, values in base.items()}
    result = [base]
    for _ in range(models):
        steps = {n: 0.5 * common[n] + rng.standard_normal(v.shape) + 0.2 for n, v in base.items()}
        steps["b"][rng.random((13, 9)) < 0.3] = 0
        result.append({name: values + steps[name] / 16 for name, values in base.items()})
    to = DTYPES[dtype]
    result = [{n: np.asarray(v, np.float64).astype(to) for n, v in one.items()} for one in result]
    for arrays in result:
        arrays["steps"] = np.arange(3)
    return result


def conflicts(base: Arrays, models: list[Arrays]) -> np.ndarray:
    names = weights_of(base)
    taus = [(flat(m, names) - flat(base, names)).tolist() for m in models]
    table = np.zeros((len(models), len(models)))
    for i, x in enumerate(taus):
        for j, y in enumerate(taus):
            both = [a * b for a, b in zip(x, y, strict=True) if a and b]
            table[i, j] = sum(p < 0 for p in both) / max(len(both), 1)
    return table


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_comparison_is_the_references(dtype):
    base, *models = family(1, dtype)
    found = breadcrumbs.compare(base, models)
    expected = spectral.kinship(base, models)
    for key in ("cosine", "pearson", "euclid"):
        np.testing.assert_allclose(getattr(found, key), expected[key], rtol=0, atol=1e-13)
        assert found.kinship[key] == pytest.approx(expected[f"mean_{key}"], rel=1e-13)
    assert (found.conflicts == conflicts(base, models)).all()
    names = weights_of(base)
    assert found.entries == flat(base, names).size
    for model, norm, kept in zip(models, found.norms, found.kept, strict=True):
        tau = flat(model, names) - flat(base, names)
        assert norm == pytest.approx(math.sqrt(math.fsum(tau * tau)), rel=1e-14)
        assert kept == np.count_nonzero(tau)
    assert len(found.pairs) == 6 and found.pairs[1]["second"] == "model 3"


def test_breadcrumbs_first_gives_the_cosines_of_masked_task_vectors():
    base, *models = family(2)
    masked = []
    for model in models:
        masked.append(dict(model))
        for name in weights_of(base):
            size = magnitude(base[name], model[name]).reshape(-1).tolist()
            mask = np.array(breadcrumbs_mask(size, beta=0.4, gamma=0.9), bool)
            mask = mask.reshape(base[name].shape)
            masked[-1][name] = np.where(mask, model[name], base[name])
    found = breadcrumbs.compare(base, models, transform="breadcrumbs", beta=0.4, gamma=0.9)
    expected = breadcrumbs.compare(base, masked)
    for key in KEYS:
        assert getattr(found, key).tobytes() == getattr(expected, key).tobytes(), key
    np.testing.assert_allclose(found.cosine, spectral.kinship(base, masked)["cosine"], atol=1e-13)
    assert not np.allclose(found.cosine, breadcrumbs.compare(base, models).cosine, atol=1e-2)


def test_dare_first_rescales_what_stays():
    base, model = family(3, models=1)
    found = breadcrumbs.compare(base, [model], transform="dare", p=0.75)
    total = 0.0
    for name in weights_of(base):
        tau = (model[name].astype(np.float64) - base[name]).reshape(-1)
        drawn = np.array(draws((0, "model 1", name), tau.size)) / 2.0**32
        total += math.fsum((4 * tau[drawn < 0.25]) ** 2)
    assert found.norms[0] == pytest.approx(math.sqrt(total), rel=1e-14)


SETTINGS = (
    {},
    {"transform": "breadcrumbs", "beta": 0.4, "gamma": 0.9},
    {"transform": "breadcrumbs", "beta": 0.4, "gamma": 0.9, "granularity": "row"},
    {"transform": "magnitude", "density": 0.5, "granularity": "model"},
    {"transform": "della"},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("block, held", [(8, 3), (64, 2), (1000, 256)])
def test_chunks_threads_and_files_change_no_bit(settings, block, held, tmp_path):
    base, *models = family(4)
    paths = [tmp_path / f"{i}.safetensors" for i in range(5)]
    for path, arrays in zip(paths, [base, *models], strict=True):
        save_file(arrays, path)
    sizes, given = Sizes(block=block, held=held), dict(settings)
    transform = given.pop("transform", "none")

    def compared(sources: list, sizes: Sizes, threads: int) -> comparison.Comparison:
        named = opening.named(sources[1:], [f"model {i}" for i in range(4)])
        recipe = comparison.recipe("base", named, transform, given)
        with opening.opened(recipe, sources, sizes) as plan:
            return comparison.of(plan, threads=threads)

    expected = compared([base, *models], sizes, 1)
    for chunk in (16, 50, 64):
        for threads in (1, 3):
            found = compared(paths, replace(sizes, chunk=chunk, arena=128 * 16), threads)
            for key in KEYS:
                assert getattr(found, key).tobytes() == getattr(expected, key).tobytes(), key


def test_zeros_constants_and_opposites():
    base = {"w": np.zeros(4, np.float32), "v": np.ones(3, np.float32)}

    def model(*values: float) -> Arrays:
        return {"w": np.array(values, np.float32), "v": base["v"]}

    models = [model(1, 2, 0, 0), model(-1, -2, 0, 0), model(0, 0, 0, 0), model(1, 1, 1, 1)]
    found = breadcrumbs.compare(base, models)
    assert found.cosine[0].tolist() == [1, -1, 0, pytest.approx(3 / math.sqrt(20))]
    assert found.cosine[2].tolist() == [0, 0, 0, 0]
    assert found.euclid[0, 1] == math.sqrt(4 + 16) and found.conflicts[0].tolist() == [0, 1, 0, 0]
    all_ones = [{"w": np.full(4, 0.1, np.float32)}, {"w": np.full(4, 0.3, np.float32)}]
    flat_ones = breadcrumbs.compare({"w": base["w"]}, [*all_ones, {"w": models[0]["w"]}])
    assert flat_ones.pearson[0].tolist() == [0, 0, 0] and flat_ones.pearson[2, 2] == 1
    alone = breadcrumbs.compare(base, models[:1])
    assert alone.pairs == [] and alone.kinship == {} and alone.norms[0] == math.sqrt(5)


def test_left_out_and_lacking_tensors():
    base, *models = family(5)
    few = breadcrumbs.compare(base, models, exclude="b", only=["b", "v"])
    small = [{"v": arrays["v"]} for arrays in (base, *models)]
    assert few.cosine.tobytes() == breadcrumbs.compare(small[0], small[1:]).cosine.tobytes()
    without = {name: values for name, values in models[0].items() if name != "b"}
    found = breadcrumbs.compare(base, [without, *models[1:]], missing="base")
    expected = breadcrumbs.compare(base, [dict(models[0], b=base["b"]), *models[1:]])
    assert found.cosine.tobytes() == expected.cosine.tobytes()
    assert found.entries == expected.entries


def test_what_cannot_be_compared_is_refused():
    base, *models = family(6)
    for given, message in (
        ({"transform": "breadcrumb"}, "Did you mean 'breadcrumbs'"),
        ({"alpha": 1}, "transform none has no parameter 'alpha'"),
        ({"transform": "breadcrumbs", "betta": 1}, "Did you mean 'beta'"),
        ({"names": ["a"]}, "found 1 for 4 models"),
    ):
        with pytest.raises(BreadcrumbsError, match=message):
            breadcrumbs.compare(base, models, **given)
    with pytest.raises(BreadcrumbsError, match="no models are given"):
        breadcrumbs.compare(base, [])
    with pytest.raises(BreadcrumbsError, match="a list is expected"):
        breadcrumbs.compare(base, models[0])
    with pytest.raises(BreadcrumbsError, match="has nan"):
        breadcrumbs.compare(base, [dict(models[0], v=np.full(31, np.nan, np.float32))])


def test_the_command_prints_a_table_or_json(tmp_path):
    base, *models = family(7, models=3)
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("base", "ft1", "ft2", "ft3")]
    for path, arrays in zip(paths, [base, *models], strict=True):
        save_file(arrays, path)
    given = ["compare", *paths, "--transform", "breadcrumbs", "-p", "beta=0.4", "-p", "gamma=.9"]
    result = CliRunner().invoke(main, [*given, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    found = breadcrumbs.compare(paths[0], paths[1:], transform="breadcrumbs", beta=0.4, gamma=0.9)
    assert told == found.to_mapping()
    assert {"beta": "0.4", "gamma": "0.9", "variant": "paper"}.items() <= told["parameters"].items()
    assert told["pairs"][0]["first"] == "ft1" and len(told["pairs"]) == 3
    result = CliRunner().invoke(main, given)
    assert f"{found.cosine[0, 1]:.4f}" in result.stdout and "of all pairs" in result.stdout
    result = CliRunner().invoke(main, ["compare", *paths, "-p", "alpha=1"])
    assert result.exit_code == 1 and "no parameter 'alpha'" in result.output


def test_the_command_leaves_out_what_nobody_changed_and_numbers_that_are_none(tmp_path):
    base, *models = family(8, models=2)
    models = [{**base, "a": model["a"], "v": model["v"]} for model in models]
    models[0]["v"][:3] = np.nan
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("base", "ft1", "ft2")]
    for path, arrays in zip(paths, [base, *models], strict=True):
        save_file(arrays, path)

    def run(*more: str):
        return CliRunner().invoke(main, ["compare", *paths, "--json", *more])

    refused = run("--only-changed")
    assert refused.exit_code == 1 and "has nan" in refused.output
    every = json.loads(run("--allow-nonfinite").stdout)
    some = json.loads(run("--allow-nonfinite", "--only-changed").stdout)
    assert some["entries"] == base["a"].size + base["v"].size < every["entries"]
    found = breadcrumbs.compare(paths[0], paths[1:], allow_nonfinite=True, only_changed=True)
    assert some == found.to_mapping()
