"""Recipes: what is written reads back, and what is wrong is refused with a place and a way out."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

import breadcrumbs
from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import registry
from breadcrumbs.plan.recipe import (
    OUTPUT_DTYPES,
    Model,
    Override,
    Recipe,
    from_mapping,
    load,
    to_mapping,
    to_yaml,
)


def read(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def refused(folder: Path, text: str, expected: str) -> str:
    with pytest.raises(RecipeError, match=expected) as caught:
        read(folder, text)
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    return message


# --- round trips -------------------------------------------------------------------------------

#: Without the Unicode line ends, which the YAML library folds into spaces.
LETTERS = st.characters(codec="utf-8", exclude_characters="\0\x85\u2028\u2029")
TEXTS = st.text(LETTERS, min_size=1, max_size=12).filter(lambda text: text not in (".", ".."))
FRACTIONS = st.one_of(
    st.integers(0, 1000).map(lambda k: k / 1000), st.floats(0, 1, allow_subnormal=False)
)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def parameter_sets(draw, method: str) -> dict[str, Any]:
    given_: dict[str, Any] = {}
    if method == "breadcrumbs":
        beta, gamma = sorted(draw(st.tuples(FRACTIONS, st.integers(501, 1000))))
        gamma = gamma / 1000
        if draw(st.booleans()) and beta < gamma:
            given_ |= {"beta": beta, "gamma": gamma}
        elif draw(st.booleans()):
            outliers = draw(st.integers(0, 999))
            density = draw(st.integers(1, 1000 - outliers))
            given_ |= {"density": density / 1000, "outliers": outliers / 1000}
        if draw(st.booleans()):
            given_["variant"] = draw(st.sampled_from(["paper", "authors"]))
    declared = registry.get(method).parameters
    for key in {"density", "outliers"} & set(declared) if method not in PAIRED else ():
        given_[key] = draw(FRACTIONS)
    if "granularity" in declared and draw(st.booleans()):
        given_["granularity"] = draw(st.sampled_from(["tensor", "row"]))
    if "alpha" in declared and draw(st.booleans()):
        given_["alpha"] = draw(NUMBERS)
    return given_


#: Methods whose density is possible only together with something else.
PAIRED = ("breadcrumbs", "breadcrumbs_ties", "della", "della_linear")


@st.composite
def recipes(draw) -> Recipe:
    method = draw(st.sampled_from(list(registry.METHODS)))
    models = draw(st.lists(st.builds(Model, TEXTS, NUMBERS, st.one_of(st.just(""), TEXTS))))
    declared = registry.get(method).parameters
    alphas = st.fixed_dictionaries({}, optional={"alpha": NUMBERS} if "alpha" in declared else {})
    return Recipe(
        base=draw(TEXTS),
        models=tuple(models),
        method=method,
        parameters=draw(parameter_sets(method)),
        overrides=tuple(
            Override(draw(TEXTS), draw(alphas)) for _ in range(draw(st.integers(0, 2)))
        ),
        exclude=tuple(draw(st.lists(TEXTS, max_size=2))),
        only=tuple(draw(st.lists(TEXTS, max_size=2))),
        only_changed=draw(st.booleans()),
        dtype=draw(st.sampled_from([None, *OUTPUT_DTYPES])),
        missing=draw(st.sampled_from(["error", "base"])),
        extra=draw(st.sampled_from(["error", "ignore"])),
        allow_nonfinite=draw(st.booleans()),
        seed=draw(st.integers(0, 2**70)),
    )


@given(recipes(), st.booleans())
@settings(max_examples=150)
def test_what_is_written_reads_back(tmp_path, recipe, complete):
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    again = read(folder, to_yaml(recipe, complete=complete))
    method = registry.get(recipe.method)
    assert method.complete(again.parameters) == method.complete(recipe.parameters)
    if complete:
        shown = set(again.parameters)
        assert shown >= set(recipe.parameters)
        again = Recipe(**{**vars(again), "parameters": recipe.parameters})
    assert again == recipe
    assert from_mapping(to_mapping(recipe)) == recipe


def test_a_plus_at_the_end_is_no_adapter(tmp_path):
    recipe = read(tmp_path, "base: base+\nmodels: [one]\n")
    assert recipe.base == "base+"


def test_the_smallest_recipe(tmp_path):
    recipe = read(tmp_path, "base: org/base\nmodels: [org/one@v1, {model: two, weight: 0.5}]\n")
    assert recipe == Recipe("org/base", (Model("org/one@v1"), Model("two", 0.5)))
    assert [model.name for model in recipe.models] == ["one", "two"]
    assert to_mapping(recipe) == {
        "base": "org/base",
        "models": ["org/one@v1", {"model": "two", "weight": 0.5}],
        "method": "breadcrumbs",
    }


def test_a_complete_recipe_states_the_defaults():
    data = to_mapping(Recipe("b", (Model("m"),)), complete=True)
    more = {"variant": "paper", "counts": "decimal", "rescale": "none", "alpha": "auto"}
    assert data["parameters"] == {"beta": 0.9, "gamma": 0.99, **more}


def test_models_of_one_name_get_names_of_their_own():
    models = (Model("a/x"), Model("b/x"), Model("c/x@main"), Model("d", name="y"))
    assert [m.name for m in Recipe("b", models).models] == ["x", "x-2", "x-3", "y"]


def test_paths_are_relative_to_the_recipe(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "one").mkdir()
    recipe = read(tmp_path, "base: models/one\nmodels: [models/two, org/hub, models/one]\n")
    assert recipe.base == str(tmp_path / "models" / "one")
    assert [m.path for m in recipe.models] == ["models/two", "org/hub", recipe.base]


# --- what is no recipe -------------------------------------------------------------------------

GOOD = "base: b\nmodels: [m]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found nothing where `key: value` lines are expected"),
        ("3", "found 3 where `key: value`"),
        ("just text", "found 'just text' where"),
        ("- a\n- b", r"found \['a', 'b'\] where"),
        ("1: 2", "the key 1 is not a text. Put it in quotes"),
        ("base: b", "there is no 'models'. A recipe names a base and models"),
        ("models: [m]", "there is no 'base'"),
        ("base:\nmodels: [m]", "base: found nothing where a text is expected"),
        ("base: [b]\nmodels: [m]", "base: found .* where a text is expected"),
        ("base: b\nmodels: m", "models: found 'm' where a list is expected"),
        ("base: b\nmodels: [3]", r"models\[0\]: found 3 where `key: value`"),
        ("base: b\nmodels: [m, '']", r"models\[1\]: found '' where a text is expected"),
        ("base: b\nmodels: [{weight: 1}]", r"models\[0\]: there is no 'model'"),
        ("base: b\nmodels: [{model: m, wieght: 1}]", "unknown key 'wieght'.*mean 'weight'"),
        ("base: b\nmodels: [{model: m, weight: x}]", "weight: 'x' is not a number"),
        ("base: b\nmodels: [{model: m, weight: .nan}]", "weight: nan is not a number"),
        ("base: b\nmodels: [{model: m, weight: 1e400}]", "weight"),
        ("base: b\nmodels: [{model: m, name: 3}]", "name: found 3 where a text is expected"),
        (GOOD + "metod: average", "unknown key 'metod'. Known are base, models.*mean 'method'"),
        (GOOD + "method: tie", "no method 'tie'"),
        (GOOD + "method: averag", "no method 'averag'. Did you mean 'average'"),
        (GOOD + "method: [average]", "no method"),
        (GOOD + "parameters: [beta]", "parameters: found .* where `key: value`"),
        (GOOD + "parameters: {beta: 2}", "beta: 2 is not possible. Give 0 to 1"),
        (GOOD + "parameters: {bta: 0.2}", "no parameter 'bta'.*mean 'beta'"),
        (GOOD + "parameters: {gamma: 0.01}", "gamma 0.01 would remove the largest 99"),
        (GOOD + "parameters: {beta: 0.99, gamma: 0.9}", "beta 0.99 is not below gamma 0.9"),
        (GOOD + "parameters: {beta: 0.9, density: 0.1}", "two ways to say the same thing"),
        (GOOD + "parameters: {density: 0.1}", "density and outliers belong together"),
        (GOOD + "overrides: {a: 1}", "overrides: found .* where a list is expected"),
        (GOOD + "overrides: [{alpha: 1}]", r"overrides\[0\]: there is no 'tensors'"),
        (GOOD + "overrides: [{tensors: a, alhpa: 1}]", "no parameter 'alhpa'.*mean 'alpha'"),
        (GOOD + "overrides: [{tensors: a, gamma: 0.5}]", "beta 0.90 is not below gamma 0.5"),
        (GOOD + "exclude: 3", "exclude: found 3 where a list is expected"),
        (GOOD + "only: [3]", "only: found 3 where a text is expected"),
        (GOOD + "only_changed: 1", "only_changed: 1 is neither true nor false"),
        (GOOD + "allow_nonfinite: maybe", "allow_nonfinite: 'maybe' is neither true nor false"),
        (GOOD + "dtype: float23", "dtype: 'float23' is not possible.*mean 'float"),
        (GOOD + "dtype: [float32]", "dtype: .* is not possible"),
        (GOOD + "missing: ignore", "missing: 'ignore' is not possible. Give one of error, base"),
        (GOOD + "extra: base", "extra: 'base' is not possible. Give one of error, ignore"),
        (GOOD + "seed: -1", "seed: -1 is not a whole number"),
        (GOOD + "seed: 1.5", "seed: 1.5 is not a whole number"),
        (GOOD + "seed: true", "seed: True is not a whole number"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, expected):
    refused(tmp_path, text, expected)


def test_errors_of_yaml_name_file_and_line(tmp_path):
    path = str(tmp_path / "recipe.yaml")
    message = refused(tmp_path, GOOD + "parameters: {beta: 0.9\n", "not YAML")
    assert message.startswith(f"{path}, line ")
    message = refused(tmp_path, GOOD + "base: c\n", "the key 'base' appears twice")
    assert message.startswith(f"{path}, line 3: ")
    message = refused(tmp_path, GOOD + "parameters:\n  beta: 0.5\n  beta: 0.6\n", "appears twice")
    assert message.startswith(f"{path}, line 5: ")
    message = refused(tmp_path, GOOD + "\tseed: 1\n", "not YAML")
    assert ", line " in message
    message = refused(tmp_path, GOOD + "seed: !!python/object:os.system {}\n", "not YAML")
    assert ", line 3" in message


def test_what_is_no_text_is_no_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00base")
    with pytest.raises(RecipeError, match=r"cannot be read as text .*Give a YAML recipe"):
        load(path)
    with pytest.raises(RecipeError, match=r"absent.yaml: cannot be read"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(tmp_path)


STRANGE = [
    "method: [a]\nbase: x\nmodels: [y]",
    "seed: !!bool foo",
    "base: !!int ''",
    "? !!set {a}\n: 1",
    "? [a]\n: 1",
    "&a {b: *a}",
    "- &a [*a]",
    "<<: 3",
    "a: !!binary x",
    "2020-13-45: 1",
    "base: 9999-99-99",
    "{" * 2000,
    "base: 'x\\0'\nmodels: ['\\0']",
    f"base: {'a' * 5000}\nmodels: [{'b' * 5000}]",
    "a: &a [x]\n" + "".join(f"a{i}: &a{i} [*a,*a]\n" for i in range(3)),
]


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_strange_yaml_ends_in_a_recipe_or_an_error_of_one_line(tmp_path, text):
    try:
        read(tmp_path, text)
    except RecipeError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from([*Recipe.__dataclass_fields__, "model"]), st.integers()),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(TREES)
@settings(max_examples=200)
@example({"base": "b", "models": [], "parameters": {"alpha": []}})
@example({"base": "b", "models": [{"model": "m", "weight": {}}]})
@example({"base": "b", "models": [], "method": {}, "overrides": [{"tensors": "a", "alpha": {}}]})
def test_any_data_is_a_recipe_or_refused(data):
    if isinstance(data, dict):
        data = {"base": "b", "models": []} | data
    try:
        from_mapping(data)
    except RecipeError as error:
        assert "\n" not in str(error)


@settings(max_examples=200)
@given(st.text(alphabet="ab:-[]{}!&*?|>'\"%@ \n#,0.", max_size=40))
def test_any_text_is_a_recipe_or_refused(tmp_path, text):
    with contextlib.suppress(RecipeError):
        read(tmp_path, text)


# --- Python arguments are checked alike --------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (dict(seed=-1), "seed: -1 is not a whole number"),
        (dict(seed="x"), "seed: 'x' is not a whole number"),
        (dict(weights=[1, 2]), "weights: found 2 for 1 model"),
        (dict(names=[]), "names: found 0 for 1 model"),
        (dict(weights=[float("nan")]), "weight nan is not finite"),
        (dict(overrides=[{"alpha": 1}]), "there is no 'tensors'"),
        (dict(method="breadcrums"), "mean 'breadcrumbs'"),
        (dict(bta=0.5), "no parameter 'bta'.*mean 'beta'"),
        (dict(dtype="bf16"), "dtype: 'bf16' is not possible.*bfloat16"),
        (dict(missing="ignore"), "missing: 'ignore' is not possible"),
    ],
)
def test_python_arguments(arguments, expected):
    import numpy as np

    base = {"w": np.zeros(2, np.float32)}
    with pytest.raises(RecipeError, match=expected):
        breadcrumbs.merge(base, [base], **arguments)


def test_one_model_is_no_list_of_models():
    for one in ("path", Path("path"), {}):
        with pytest.raises(
            RecipeError, match=r"one model where a list is expected. Give \[model\]"
        ):
            breadcrumbs.merge("base", one)  # pyright: ignore[reportArgumentType]


def test_recipes_are_plain_yaml():
    recipe = Recipe("b", (Model("m"),), parameters={"alpha": 0.5}, exclude=("*.bias",))
    assert yaml.safe_load(to_yaml(recipe)) == to_mapping(recipe)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("models/digits", "digits"),
        ("models/digits.safetensors", "digits"),
        ("org/digits@v1.2", "digits"),
        ("digits.task.safetensors", "digits.task"),
        (".safetensors", ".safetensors"),
        ("/", "/"),
    ],
)
def test_models_are_called_by_the_end_of_their_path(path: str, name: str) -> None:
    recipe = Recipe("base", (Model(path),))
    assert recipe.models[0].name == name
    assert to_mapping(recipe)["models"] == [path]
