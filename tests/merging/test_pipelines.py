"""Pipelines: each component is merged by a plan of its own, as if it were merged alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from breadcrumbs import tasks
from breadcrumbs.archives import compress, extract
from breadcrumbs.cli.group import main
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.methods.table import METHODS
from breadcrumbs.plan import recipe
from breadcrumbs.plan.recipe import Model, Override, Recipe

Arrays = dict[str, np.ndarray]
PARTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


def arrays(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    shapes = {"layers.0.w": (30, 20), "layers.1.w": (20, 30), "layers.1.b": (30,), "head": (9, 7)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def pipeline(folder: Path, seed: int) -> Path:
    """Write a pipeline whose components moved by different lengths; the VAE never does."""
    index = {part: ["library", "Class"] for part in PARTS}
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "P", **index}))
    for number, (part, name) in enumerate(PARTS.items()):
        # Both text encoders begin as one, so that there are equal tensors in two components.
        state, rng = arrays(min(number, 1)), np.random.default_rng(10 * seed + number)
        if seed and part != "vae":
            size = (0.5, 0.02, 0.1)[number]
            for value in state.values():
                noise = size * rng.standard_normal(value.shape) * rng.gamma(1, 1, value.shape)
                value += (noise + (size if part == "text_encoder" else 0)).astype(np.float32)
        (folder / part).mkdir()
        save_file(state, folder / part / name)
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("family")
    return [pipeline(folder / name, seed) for seed, name in enumerate(("base", "a", "b", "c"))]


def made(paths: list[Path], part: str = "", **how: Any) -> Recipe:
    """Return the recipe of pipelines, or of one part of each."""
    base, *models = (str(path / part) if part else str(path) for path in paths)
    names = [path.name for path in paths[1:]]
    both = zip(models, names, strict=True)
    return Recipe(base, tuple(Model(path, name=name) for path, name in both), **how)


def merged(paths: list[Path], part: str = "", **how: Any) -> tuple[Arrays, Any]:
    with opening.opened(made(paths, part, **how)) as plan:
        return merging_files.to_arrays(plan, kernel="numpy", threads=2)


WHOLE = [
    ("ties", {"granularity": "model"}),
    ("ties", {"granularity": "model", "density": 0.05, "alpha": 0.4}),
    ("breadcrumbs", {"granularity": "model"}),
    ("emr", {"task": "b"}),
    ("tall_mask", {"task": "b"}),
]
ANY = [n for n, m in METHODS.items() if not m.statistics and m.number == "any" and n != "tall_mask"]


@pytest.mark.parametrize(("method", "given"), [*((name, {}) for name in ANY), *WHOLE])
def test_a_component_is_merged_as_alone(family, method, given):
    how = {"method": method, "parameters": given}
    found, report = merged(family, **how)
    for part in ("transformer", "text_encoder", "text_encoder_2"):
        alone, mine = merged(family, part, **how)
        for name, value in alone.items():
            assert np.array_equal(found[f"{part}/{name}"], value), (part, name)
        assert report.alphas.get(part) == mine.alpha
    same = load_file(family[0] / "vae" / PARTS["vae"])
    assert all(np.array_equal(found[f"vae/{name}"], value) for name, value in same.items())
    assert "vae" not in report.alphas


def test_each_component_has_an_alpha(family):
    _, report = merged(family, method="breadcrumbs")
    assert len(set(report.alphas.values())) == 3 and report.alpha is None
    assert f"{report.alphas['text_encoder']:g} of text_encoder" in report.found
    *_, one = merged(family, "vae", method="task_arithmetic", parameters={"alpha": "auto"})
    assert not one.alphas


def test_the_recipe_beside_the_output_says_each_alpha(family, tmp_path):
    paths = [str(path) for path in family]
    run = CliRunner().invoke(main, ["merge", *paths, "-o", str(tmp_path / "out"), "--json"])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    again = recipe.load(tmp_path / "out" / "breadcrumbs.yaml")
    told = {o.tensors.partition("/")[0]: o.parameters["alpha"] for o in again.overrides}
    assert {part: told[part] for part in said["alphas"]} == said["alphas"]
    with opening.opened(again) as plan:
        assert merging_files.to_files(plan, tmp_path / "again").alphas == {}
    for part, name in PARTS.items():
        one, other = (load_file(tmp_path / out / part / name) for out in ("out", "again"))
        assert all(np.array_equal(one[key], other[key]) for key in one)


def test_a_number_for_one_component(family):
    how: dict[str, Any] = {"method": "breadcrumbs"}
    given = (Override("transformer/*", {"alpha": 0.5}),)
    found, report = merged(family, **how, overrides=given)
    assert "transformer" not in report.alphas and len(report.alphas) == 2
    alone, _ = merged(family, "transformer", parameters={"alpha": 0.5}, **how)
    assert all(np.array_equal(found[f"transformer/{n}"], v) for n, v in alone.items())


def test_a_model_wide_rank_may_differ_between_components(family):
    ranks = {"granularity": "model", "density": 0.3}
    given = (Override("transformer/*", {"density": 0.05}),)
    found, _ = merged(family, method="ties", parameters=ranks, overrides=given)
    alone, _ = merged(family, "transformer", method="ties", parameters=ranks | {"density": 0.05})
    assert all(np.array_equal(found[f"transformer/{n}"], v) for n, v in alone.items())
    within = (Override("transformer/head", {"density": 0.05}),)
    with pytest.raises(RecipeError, match="granularity model"):
        merged(family, method="ties", parameters=ranks, overrides=within)


def test_auto_for_some_tensors_stays_so_in_the_recipe(family, tmp_path):
    given = (Override("*head", {"alpha": "auto"}),)
    how: dict[str, Any] = {"method": "task_arithmetic", "parameters": {"alpha": 0.3}}
    with opening.opened(made(family, **how, overrides=given)) as plan:
        merging_files.to_files(plan, tmp_path / "out")
    again = recipe.load(tmp_path / "out" / "breadcrumbs.yaml")
    assert again.parameters["alpha"] == 0.3
    with opening.opened(made(family, "text_encoder", **how, overrides=given)) as plan:
        report = merging_files.to_files(plan, tmp_path / "one")
    again = recipe.load(tmp_path / "one" / "breadcrumbs.yaml")
    assert again.parameters["alpha"] == 0.3
    assert [o.parameters["alpha"] for o in again.overrides] == [report.alpha]


@pytest.mark.parametrize("transform", ["breadcrumbs", "dare"])
def test_cut_task_files_of_pipelines_merge_as_the_models(family, tmp_path, transform):
    given: dict[str, Any] = {"granularity": "model"} if transform == "breadcrumbs" else {}
    files = [tmp_path / f"{path.name}.safetensors" for path in family[1:]]
    for path, file in zip(family[1:], files, strict=True):
        tasks.pack(family[0], path, file, transform=transform, **given)
    method = {"dare": "dare_linear"}.get(transform, transform)
    how = {"method": method, "parameters": {**given, "alpha": 0.4}}
    whole, _ = merged(family, **how)
    from_files, _ = merged([family[0], *files], **how)
    assert all(np.array_equal(from_files[name], value) for name, value in whole.items())


def test_a_sweep_of_pipelines(family):
    with Sweep(family[0], dict(zip("abc", family[1:], strict=True))) as sweep:
        for given in ({}, {"alpha": 0.2}, {"alpha": "auto"}):
            how = {"method": "breadcrumbs", "parameters": given}
            found, (whole, _) = sweep.merged(made(family, **how)), merged(family, **how)
            assert all(np.array_equal(found[name], value) for name, value in whole.items())


@pytest.mark.parametrize(("method", "merge"), [("emr", "emr"), ("tall", "tall_mask")])
def test_archives_give_what_the_merges_of_pipelines_do(family, tmp_path, method, merge):
    archive = tmp_path / "tasks.safetensors"
    given: dict[str, Any] = {"scale": "0.4"} if method == "tall" else {}
    compress(family[0], family[1:], archive, method=method, **given)
    extract(archive, "b", tmp_path / "b")
    found, _ = merged(family, method=merge, parameters={"task": "b", **given})
    for part, name in PARTS.items():
        for key, value in load_file(tmp_path / "b" / part / name).items():
            assert np.array_equal(found[f"{part}/{key}"], value), (part, key)


def test_lines_finds_the_layers_of_each_component(family, tmp_path):
    paths = [pipeline(tmp_path / name, seed) for seed, name in enumerate(("base", "a"))]
    for path in paths:
        file = path / "text_encoder" / "model.safetensors"
        save_file({"head": load_file(file)["head"]}, file)
    with pytest.raises(RecipeError, match=r"text_encoder: method lines: .* no layer"):
        merged(paths, method="lines")
    found, report = merged(paths, method="lines", exclude=("text_encoder/*",))
    assert any(line.startswith("transformer: method lines: found 2") for line in report.warnings)
    alone, _ = merged(paths, "transformer", method="lines")
    assert all(np.array_equal(found[f"transformer/{n}"], v) for n, v in alone.items())
