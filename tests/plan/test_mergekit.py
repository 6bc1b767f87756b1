"""mergekit's configurations: its results, a recipe of ours for each, and refusals with the line."""

from __future__ import annotations

import fnmatch
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from mergekit_suite import models
from mergekit_suite.models import CONFIGS
from safetensors.numpy import load_file

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging import files, opening
from breadcrumbs.plan import recipe
from breadcrumbs.plan.mergekit import convert, is_config
from breadcrumbs.plan.mergekit.globs import cover
from breadcrumbs.plan.mergekit.lines import read
from breadcrumbs.plan.mergekit.settings import value

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yml"))
STRIDE = 19


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("mergekit")
    for family in models.FAMILIES:
        models.save(made, family)
    return made


def converted(folder: Path, text: str, name: str = "config"):
    path = folder / f"{name}.yml"
    path.write_text(text)
    return convert(path)


def merged(made: recipe.Recipe) -> dict[str, np.ndarray]:
    with opening.opened(made) as plan:
        return files.to_arrays(plan)[0]


# --- mergekit's results ------------------------------------------------------------------------


def test_every_configuration_was_run():
    known = load_file(CONFIGS.parent / "golden.safetensors")
    assert set(known) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_merge_is_mergekits(folder, name):
    text = (CONFIGS / f"{name}.yml").read_text()
    found = merged(converted(folder, text, name).recipe)
    wanted = load_file(CONFIGS.parent / "golden.safetensors")[name]
    given = yaml.safe_load(text)
    dtype = given.get("out_dtype") or given.get("dtype") or "float32"
    assert {values.dtype.name for values in found.values()} == {dtype}
    off = np.abs(models.flat(found)[::STRIDE] - wanted).max()
    # Of bfloat16 the rounding of the output, and of the largest entry that all are divided by.
    assert off <= (2.0**-7 if dtype == "bfloat16" else 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_that_is_printed_makes_the_same_bits(folder, name):
    runner = CliRunner()
    (folder / f"{name}.yml").write_text((CONFIGS / f"{name}.yml").read_text())
    printed = runner.invoke(main, ["from-mergekit", str(folder / f"{name}.yml")])
    assert printed.exit_code == 0, printed.output
    again = folder / f"{name}-recipe.yaml"
    again.write_text(printed.stdout)
    assert not is_config(again) and is_config(folder / f"{name}.yml")
    wanted = merged(convert(folder / f"{name}.yml").recipe)
    found = merged(recipe.load(again))
    assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in wanted.items()}


def test_the_command_runs_a_configuration_as_it_is(folder, tmp_path):
    path = folder / "config.yml"
    path.write_text((CONFIGS / "tokenizer.yml").read_text())
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["merge", str(path), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "chat_template: no model has one" in " ".join(done.stderr.split())
    wanted = merged(convert(path).recipe)
    found = dict(breadcrumbs.open(out))
    assert all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)
    assert recipe.load(out / "breadcrumbs.yaml").method == "task_arithmetic"


def test_flags_go_before_the_configuration(folder):
    path = folder / "config.yml"
    path.write_text((CONFIGS / "task_arithmetic.yml").read_text())
    run = ["merge", str(path), "--print-recipe", "-p", "alpha=0.25", "--dtype", "bfloat16"]
    done = CliRunner().invoke(main, run)
    assert float(yaml.safe_load(done.stdout)["parameters"]["alpha"]) == 0.25
    assert yaml.safe_load(done.stdout)["dtype"] == "bfloat16"


def test_slices_of_all_layers_are_the_models_themselves(folder):
    found = converted(folder, (CONFIGS / "slerp_slices.yml").read_text()).recipe
    assert (found.base, found.models[0].path) == (str(folder / "ft1"), str(folder / "ft2"))
    found = converted(folder, (CONFIGS / "frankenmerge.yml").read_text()).recipe
    assert found.base == f"{folder}/ft1[0:3] + {folder}/ft2[1:3] + {folder}/ft3[2:4]"


@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "sce", "linear", "karcher"])
def test_a_base_alone_is_the_base(folder, method):
    text = f"merge_method: {method}\nbase_model: base\nmodels: [{{model: base}}]\n"
    text += "parameters: {weight: 2}" if method != "sce" else ""
    found = converted(folder, text).recipe
    assert (found.base, found.models) == (str(folder / "base"), ())
    wanted = dict(breadcrumbs.open(folder / "base"))
    assert all(v.tobytes() == wanted[k].tobytes() for k, v in merged(found).items())


def test_random_methods_say_that_their_draws_are_others(folder):
    text = """
merge_method: dare_ties
base_model: base
models:
  - {model: ft1, parameters: {weight: 0.5, density: 0.3}}
  - {model: ft2, parameters: {weight: 0.5, density: 0.6}}
parameters: {lambda: 0.5}
"""
    found = converted(folder, text)
    assert any("draws at random" in note for note in found.notes)
    assert [m.parameters for m in found.recipe.models] == [{}, {"p": 0.4}]
    expected = {"alpha": 0.5, "p": 0.7, "rescale": "l1", "merge": "sum"}
    assert found.recipe.parameters == expected
    again = converted(folder, text.replace("lambda: 0.5", "rescale: false, normalize: true"))
    expected = {"alpha": 1.0, "p": 0.7, "rescale": "none"}
    assert again.recipe.parameters == expected


# --- what is refused ---------------------------------------------------------------------------

TIES = """merge_method: ties
base_model: base
models:
  - model: ft1
    parameters: {weight: 1}
  - model: ft2
    parameters: {weight: 1}
"""

REFUSED: list[tuple[str, str]] = [
    ("merge_method: tie\nmodels: [{model: ft1}]", "line 1: .*'tie' is unknown.*mean 'ties'"),
    ("merge_method: arcee_fusion\nmodels: [{model: ft1}]", "line 2: arcee_fusion needs a base_m"),
    ("models: [{model: ft1}]", "no merge_method"),
    (TIES + "modles: []", "line 8: .*no 'modles'.*mean 'mod"),
    (TIES + "slices: []", "line 8: exactly one of models, slices and modules"),
    ("merge_method: ties", "exactly one of models, slices and modules"),
    (TIES.replace("base_model: base\n", ""), "line 2: ties needs a base_model"),
    (TIES + "parameters: {densty: 0.3}", "line 8: ties has no parameter 'densty'.*'density'"),
    (TIES + "parameters: {density: much}", "line 8: 'much' is not a number"),
    (TIES + "parameters:\n  density:\n    - [1, 2]", "line 9: a gradient is a list of values"),
    (TIES + "parameters:\n  density: {filter: mlp}", "line 9: there is no value"),
    (
        TIES + "parameters:\n  density:\n    - {filtr: mlp, value: 1}",
        "line 10: .*'filtr'",
    ),
    (TIES + "parameters: {normalize: 3}", "line 8: 3 is neither true nor false"),
    (TIES.replace("{weight: 1}", "{density: 1}"), "line 4: there is no weight of "),
    (TIES.replace("ft2", "ft1"), "line 6: ft1 appears twice"),
    (TIES.replace("ft2", "ft2+lora"), "line 6: .*there is no adapter .*lora"),
    (TIES + "dtype: int64", "line 8: dtype 'int64' is not possible"),
    (TIES + "tokenizer_source: ft3", "line 8: .*ft3 is not one of the models"),
    (TIES + "tokenizer:\n  source: ft3", "line 9: .*ft3 is not one of the models"),
    (TIES + "tokenizer:\n  source: base\n  token: {}", "line 10: a tokenizer section has no"),
    (TIES + "tokenizer:\n  pad_to_multiple_of: 0", "line 9: pad_to_multiple_of is a whole"),
    (TIES + "tokenizer:\n  tokens: {w1: {}}", "line 9: the token 'w1' has no source"),
    (TIES + "tokenizer:\n  tokens: {w1: {source: {kind: one}}}", "line 9: kind 'one' is not"),
    (
        TIES + "tokenizer:\n  tokens: {w1: {source: {kind: model_token, model: ft1}}}",
        "line 9: a model_token has a model, and token or token_id",
    ),
    (TIES + "tokenizer: base", "line 8: a tokenizer section"),
    (TIES + "dtype: float32\ndtype: float32", "line 9: the key 'dtype' appears twice"),
    (TIES + "parameters: [", "line [89]: not YAML"),
    ("merge_method: linear\nmodels: {model: ft1}", "line 2: models is not a list"),
    ("merge_method: linear\nmodels: [{parameters: {weight: 1}}]", "line 2: there is no model"),
    (
        "merge_method: linear\nmodels:\n- {model: ft1, parameters: {weight: 1}}\n"
        "- {model: ft2, parameters: {weight: -1}}",
        "line 3: the weights add up to 0",
    ),
    ("merge_method: slerp\nbase_model: base\nmodels: [{model: ft1}]", "line 3: there is no t"),
    (
        "merge_method: slerp\nbase_model: base\nmodels: [{model: ft1}]\nparameters: {t: 1.5}",
        "line 4: t 1.5 lies beyond",
    ),
    (
        "merge_method: slerp\nbase_model: base\nmodels: [{model: ft1}, {model: ft2}]",
        "line 3: slerp takes 2 models, here 3",
    ),
    ("merge_method: passthrough\nmodels: [{model: ft1}, {model: ft2}]", "takes 1 models?, here 2"),
    (
        "merge_method: nearswap\nbase_model: base\nmodels: [{model: ft1}]\nparameters: {t: 1e-7}",
        "line 4: t 1e-07 is below 1e-6",
    ),
    (
        "merge_method: della\nbase_model: base\nmodels: [{model: ft1}]\n"
        "parameters: {weight: 1, density: 0.1}",
        "density 0.1 with epsilon 0.15",
    ),
    (
        "merge_method: breadcrumbs\nbase_model: base\nmodels: [{model: ft1}]\n"
        "parameters:\n  weight: 1\n  gamma: 1.5",
        "line 6: gamma 1.5 is not a fraction",
    ),
    (
        "merge_method: passthrough\nslices:\n- sources:\n  - {model: ft1, layer_range: [0, 9]}",
        "no such layers.*0 to 3",
    ),
    ("merge_method: passthrough\nslices:\n- sources:\n  - {model: ft1}", "line 4: .*layer_range"),
    (
        "merge_method: passthrough\nslices:\n- sources:\n  - {model: ft1, layer_range: [2, 2]}",
        "line 4: this layer_range holds no layer",
    ),
    (
        "merge_method: linear\nparameters: {weight: 1}\nslices:\n- sources:\n"
        "  - {model: ft1, layer_range: [0, 2]}\n  - {model: ft2, layer_range: [0, 3]}",
        "line 4: the sources of a slice have as many layers each",
    ),
    (
        "merge_method: nuslerp\nparameters: {weight: 1}\nslices:\n- base_model: base\n"
        "  sources:\n  - {model: base, layer_range: [0, 2]}\n"
        "  - {model: ft1, layer_range: [0, 2]}\n  - {model: ft2, layer_range: [0, 2]}\n"
        "- sources:\n  - {model: ft1, layer_range: [2, 4]}\n"
        "  - {model: ft2, layer_range: [2, 4]}",
        "line 9: some slices have a base_model and this one has not",
    ),
    (
        "merge_method: linear\nmodules:\n  a: {models: [{model: ft1}]}\n"
        "  b: {models: [{model: ft1}]}",
        "line 4: more than one module",
    ),
]


@pytest.mark.parametrize("text, expected", REFUSED, ids=[e for _, e in REFUSED])
def test_what_cannot_be_done_is_refused_with_its_line(folder, text, expected):
    with pytest.raises(breadcrumbs.errors.BreadcrumbsError, match=expected) as caught:
        converted(folder, text)
    assert "\n" not in str(caught.value)
    if "no such layers" not in expected:
        assert str(caught.value).startswith(f"{folder / 'config.yml'}, line ")


@pytest.mark.parametrize(
    "more, note",
    [
        ("parameters: {int8_mask: true}", "line 8: int8_mask has no effect on ties"),
        ("parameters: {gamma: 0.1}", "line 8: gamma has no effect on ties"),
        ("dtype: bfloat16\nout_dtype: float32", "line 8: dtype is not used"),
    ],
)
def test_what_changes_no_weight_is_named(folder, more, note):
    plain, found = converted(folder, TIES), converted(folder, TIES + more)
    assert plain.notes == () and any(note in text for text in found.notes)
    assert found.recipe.parameters == plain.recipe.parameters


def test_a_shared_parameter_under_a_model_is_named(folder):
    found = converted(folder, TIES.replace("{weight: 1}", "{weight: 1, normalize: false}", 1))
    assert found.notes == ("line 5: normalize has no effect on one model",)
    assert found.recipe.parameters == converted(folder, TIES).recipe.parameters


# --- tokenizers --------------------------------------------------------------------------------


def test_the_tokenizer_of_a_model_is_copied(tmp_path):
    models.save(tmp_path)
    (tmp_path / "ft1" / "special_tokens_map.json").write_text('{"unk_token": "w0"}')
    (tmp_path / "base" / "merges.txt").write_text("the base's")
    (tmp_path / "base" / "other.json").write_text("{}")
    path = tmp_path / "config.yml"
    path.write_text((CONFIGS / "tokenizer.yml").read_text())
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["merge", str(path), "-o", str(out), "-q"])
    assert done.exit_code == 0, done.output
    assert (out / "special_tokens_map.json").exists() and (out / "other.json").exists()
    assert not (out / "merges.txt").exists()
    assert recipe.load(out / "breadcrumbs.yaml").tokenizer == str(tmp_path / "ft1")


@pytest.mark.parametrize("given", ["tokenizer_source: union", "tokenizer: {source: union}"])
@pytest.mark.parametrize("start", [TIES, TIES.replace("base_model: base\n", "")])
def test_the_union_of_equal_vocabularies_is_each_of_them(tmp_path, given, start):
    models.save(tmp_path)
    if "base_model" not in start:
        start = start.replace("ties", "linear")
    found = converted(tmp_path, start + given).recipe
    wanted = str(tmp_path / ("base" if "base_model" in start else "ft1"))
    assert (found.tokenizer or found.base) == wanted


@pytest.mark.parametrize("kind", ["union", "base", "ft1"])
def test_rows_are_matched_where_vocabularies_differ(tmp_path, kind):
    models.save(tmp_path)
    path = tmp_path / "ft1" / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["vocab"] |= {"w1": 2, "w2": 1}
    path.write_text(json.dumps(data))
    more = "tokenizer:\n  source: {}\n  pad_to_multiple_of: 64\n  tokens:\n"
    tokens = "    w3: {source: {kind: model_token, model: ft2, token_id: 5}, force: true}\n"
    tokens += "    new: {source: {kind: zero}}\n    w4: {source: ft1}\n"
    found = converted(tmp_path, TIES + more.format(kind) + tokens).recipe
    assert found.vocabulary == (str(tmp_path / "ft1") if kind == "ft1" else kind)
    assert found.pad_to == 64 and found.tokens == {
        "w3": {"force": True, "model": str(tmp_path / "ft2"), "id": 5},
        "new": {"zero": True},
        "w4": {"model": str(tmp_path / "ft1")},
    }
    assert recipe.from_mapping(recipe.to_mapping(found)) == found
    plain = converted(tmp_path, TIES + f"tokenizer_source: {kind}").recipe
    assert plain.vocabulary == found.vocabulary and not plain.tokens


@pytest.mark.parametrize("kind", ["union", "base"])
def test_a_vocabulary_that_is_not_there_is_refused(tmp_path, kind):
    models.save(tmp_path)
    (tmp_path / "ft1" / "tokenizer.json").unlink()
    with pytest.raises(RecipeError, match=r"line 8: .*no tokenizer to compare"):
        converted(tmp_path, TIES + f"tokenizer_source: {kind}")


def test_a_recipe_names_a_tokenizer_among_its_models():
    with pytest.raises(RecipeError, match=r"tokenizer: 'c' is not one of the models.*a, b"):
        recipe.Recipe("a", (recipe.Model("b"),), tokenizer="c")


# --- settings and globs ------------------------------------------------------------------------


def along(values: list[float], layer: int, layers: int) -> float:
    """Return the gradient at a layer, from the words: straight lines between equal steps."""
    x = layer / (layers - 1) * (len(values) - 1)
    xs = list(range(len(values)))
    return float(np.interp(x, xs, values))


@pytest.mark.parametrize("values", [[1.0], [0.0, 1.0], [0.3, 0.1, 0.9], [1.0, 0.5, 0.2, 0.7, 0.0]])
@pytest.mark.parametrize("layers", [2, 3, 7, 32])
def test_a_gradient_runs_over_the_layers(tmp_path, values, layers):
    (tmp_path / "v.yml").write_text(json.dumps(values))
    node = read(tmp_path / "v.yml")
    for layer in range(layers):
        found = value(node, "x", layer / (layers - 1), float)
        assert found == pytest.approx(along(values, layer, layers), abs=1e-12)


def test_the_first_filter_that_fits_wins_and_else_the_next_scope(folder):
    text = """
merge_method: task_arithmetic
base_model: base
models:
  - model: ft1
    parameters:
      weight:
        - {filter: q_proj, value: 2}
        - {filter: self_attn, value: 3}
        - {filter: q_proj, value: 4}
parameters:
  weight: [{filter: mlp, value: [5, 8]}, {filter: "*", value: 6}]
"""
    made = converted(folder, text).recipe
    with opening.opened(made) as plan:
        for tensor in plan.tensors:
            name = tensor.name
            wanted: Any = 6
            if "mlp" in name:
                wanted = 5 + int(name.split(".")[2])
            if "self_attn" in name:
                wanted = 2 if "q_proj" in name else 3
            assert tensor.own[0].weight == wanted, name


@pytest.mark.parametrize("seed", range(30))
def test_globs_match_what_they_should_and_nothing_else(seed):
    names = [*models.shapes(tied=False), "a[0].w", "a0.w"]
    rng = random.Random(seed)
    wanted = {name for name in names if rng.random() < rng.choice([0.1, 0.5, 0.9])}
    wanted |= {n for n in names if n.startswith(f"model.layers.{rng.randrange(4)}.")}
    if seed % 2:
        wanted |= {n for n in names if "q_proj" in n}
    found = cover(wanted, names, ["q_proj", "mlp", "["])
    matched = {n for n in names for g in found if fnmatch.fnmatchcase(n, g)}
    assert matched == wanted


def test_globs_are_few():
    names = list(models.shapes(tied=False))
    assert cover(set(names), names, []) == ["*"]
    mlp = {name for name in names if "mlp" in name}
    assert cover(mlp, names, ["mlp"]) == ["*mlp*"]
    layer = {name for name in names if ".2." in name}
    assert cover(layer, names, []) == ["model.layers.2.*"]
    assert cover(layer & mlp, names, ["mlp"]) == ["model.layers.2.*mlp*"]
    assert cover({n for n in names if "q_proj" in n}, names, []) == [
        "model.layers.*.self_attn.q_proj.weight"
    ]


# --- mangled configurations --------------------------------------------------------------------

JUNK: list[Any] = [None, True, 0, -1, 2.5, "x", "", [], {}, [1], ["a"], [[1, 2]], {"value": 1}]
JUNK += [{"value": [0, 1], "filter": "mlp"}, [{"value": 1}], "nan", 1e400, 10**30, "ft1", "1e-3"]


def places(data: Any, at: tuple = ()) -> list[tuple]:
    below = data.items() if isinstance(data, dict) else enumerate(data)
    found = [at] if at else []
    for key, entry in below:
        found += places(entry, (*at, key)) if isinstance(entry, dict | list) else [(*at, key)]
    return found


@pytest.mark.parametrize("seed", range(60))
def test_a_mangled_configuration_is_a_recipe_or_refused_in_one_line(folder, seed):
    rng = random.Random(seed)
    data = yaml.safe_load((CONFIGS / f"{rng.choice(NAMES)}.yml").read_text())
    *above, last = rng.choice(places(data))
    parent = data
    for key in above:
        parent = parent[key]
    if rng.random() < 0.2:
        del parent[last]
    else:
        parent[last] = rng.choice(JUNK)
    try:
        found = converted(folder, yaml.safe_dump(data, sort_keys=False), "mangled")
        assert recipe.from_mapping(recipe.to_mapping(found.recipe)) == found.recipe
    except breadcrumbs.errors.BreadcrumbsError as error:
        assert "\n" not in str(error)
