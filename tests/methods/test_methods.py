"""The table of methods: what each declares, counts, and refuses."""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import example, given
from hypothesis import strategies as st

import breadcrumbs
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.methods import parameters, published, registry
from breadcrumbs.methods.aggregates import Elementwise, Whole
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.parameters import Real
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.methods.transforms import Band, Draw, Everything

ROOT = Path(__file__).parents[2]


def refused(text: str, method: str = "breadcrumbs", **given_) -> str:
    with pytest.raises(RecipeError, match=text) as caught:
        registry.get(method).complete(given_)
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", "?"))
    return message


# --- what is declared --------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_documents_itself(name):
    method = METHODS[name]
    assert registry.get(name) is method and method.name == name
    assert method.summary and method.formula and re.search(r"\b(19|20)\d\d\b", method.paper)
    for parameter in method.parameters.values():
        assert parameter.help and parameter.range
    defaults = method.complete({})
    for key, parameter in method.parameters.items():
        assert (key in defaults) == (parameter.default is not None)


def test_published_defaults():
    defaults = {name: method.complete({}) for name, method in METHODS.items()}
    assert defaults["breadcrumbs"] == {
        "beta": Decimal("0.90"),
        "gamma": Decimal("0.99"),
        "variant": "paper",
        "counts": "decimal",
        "rescale": "none",
        "alpha": "auto",
    }
    assert defaults["task_arithmetic"] == {"alpha": 0.3}
    assert defaults["average"] == {"base_weight": 0.0, "normalize": "weights"}
    assert defaults["random_sparsed"] == {"density": Decimal("0.1"), "alpha": "auto"}


def test_an_unknown_method_suggests_the_nearest():
    with pytest.raises(RecipeError, match=r"no method 'breadcrumb'.*mean 'breadcrumbs'.*average"):
        registry.get("breadcrumb")
    for strange in (["average"], {}, None, 3):
        with pytest.raises(RecipeError, match="no method"):
            registry.get(strange)  # pyright: ignore[reportArgumentType]


# --- fractions ---------------------------------------------------------------------------------


def test_029_of_100_is_29():
    assert 0.29 * 100 < 29  # what floats would make of it
    assert parameters.count(parameters.decimal(0.29), 100) == 29
    for given_ in (0.29, "0.29", Decimal("0.29"), np.float64(0.29)):
        tau = np.arange(1, 101, dtype=np.float32)
        found = breadcrumbs.merge(
            {"w": 0 * tau}, [{"w": tau}], method="bottom_masking", density=given_
        )
        assert np.count_nonzero(found["w"]) == 29


@given(st.integers(0, 10**40), st.integers(0, 40), st.integers(0, 10**12))
@example(29999999999999999999999999999999, 32, 10)
def test_counts_are_floors_of_decimals(digits, places, n):
    fraction = Decimal(f"{digits}e-{places}")
    assert parameters.count(fraction, n) == math.floor(Fraction(digits, 10**places) * n)


@pytest.mark.parametrize(("given_", "found"), [(3, 3), ("12", 12), ("1e2", 100), (4.0, 4)])
def test_whole_numbers(given_, found):
    steps = parameters.Integer(300, 2, "steps")
    assert steps.parse(given_) == found and type(steps.parse(given_)) is int
    assert "2" in steps.range


@pytest.mark.parametrize("given_", [1, -3, 2.5, "2.0001", True, "two", None, math.inf, "1e999"])
def test_what_is_no_whole_number(given_):
    with pytest.raises(
        RecipeError, match=r"steps: .* is not possible\. Give a whole number from 2"
    ):
        parameters.parse("wudi", {"steps": parameters.Integer(300, 2, "steps")}, {"steps": given_})


@given(st.floats(0, 1), st.integers(0, 10**9))
def test_a_float_counts_as_the_decimal_that_it_prints_as(fraction, n):
    count = parameters.count(parameters.decimal(fraction), n)
    assert count == reference.floor_of(fraction, n)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 5000))
def test_ranks_of_breadcrumbs_are_those_of_the_definitions(beta, gamma, n):
    if beta >= gamma or gamma < 500:
        return
    quantiles = {"beta": beta / 1000, "gamma": gamma / 1000}
    transform = METHODS["breadcrumbs"].transform
    assert isinstance(transform, Band)
    removed = (1000 - gamma) * n // 1000
    paper = transform.ranks(n, METHODS["breadcrumbs"].complete(quantiles))
    assert paper == (beta * n // 1000, n - removed)
    values = METHODS["breadcrumbs"].complete({**quantiles, "variant": "authors"})
    kept = (1000 - beta) * n // 1000
    assert transform.ranks(n, values) == (max(0, n - removed - kept), n - removed)


@given(st.integers(1, 1000), st.integers(0, 499), st.sampled_from(["paper", "authors"]))
def test_density_with_outliers_says_the_same_as_beta_with_gamma(density, outliers, variant):
    if density + outliers > 1000:
        return
    method = METHODS["breadcrumbs"]
    given_ = {"density": density / 1000, "outliers": outliers / 1000, "variant": variant}
    values = method.complete(given_)
    assert "density" not in values and "outliers" not in values
    gamma = 1000 - outliers
    beta = 1000 - density if variant == "authors" else gamma - density
    assert values["gamma"] == Decimal(gamma) / 1000 and values["beta"] == Decimal(beta) / 1000
    if beta < gamma:
        quantiles = {"beta": beta / 1000, "gamma": gamma / 1000, "variant": variant}
        assert values == method.complete(quantiles)


def test_both_notations_merge_to_the_same_bits():
    rng = np.random.default_rng(0)
    base = {"w": np.zeros((7, 100), np.float32)}
    model = {"w": rng.standard_normal((7, 100)).astype(np.float32)}
    for variant, density in (("paper", 0.09), ("authors", 0.10)):
        quantiles = breadcrumbs.merge(base, [model], beta=0.9, gamma=0.99, variant=variant)
        other = breadcrumbs.merge(base, [model], density=density, outliers=0.01, variant=variant)
        assert np.count_nonzero(other["w"]) == {"paper": 63, "authors": 70}[variant]
        assert quantiles["w"].tobytes() == other["w"].tobytes()


# --- what is refused ---------------------------------------------------------------------------


def test_unknown_parameters_suggest_the_nearest():
    refused("method breadcrumbs has no parameter 'bta'.*Did you mean 'beta'", bta=0.9)
    refused("no parameter 'alpah'.*it has: alpha.*mean 'alpha'", "task_arithmetic", alpah=1)
    refused("average has no parameter 'alpha'.*it has: base_weight, normalize", "average", alpha=1)


@pytest.mark.parametrize("value", [-0.1, 1.1, "x", None, True, math.nan, math.inf, "", [0.5], {}])
def test_fractions_out_of_range(value):
    for key in ("beta", "gamma", "density"):
        message = refused(f"breadcrumbs: {key}: .* is not possible. Give 0 to 1", **{key: value})
        assert repr(value) in message


@pytest.mark.parametrize("value", ["x", None, True, math.nan, math.inf, -math.inf, "1e400", []])
def test_alpha_is_a_finite_number(value):
    refused("alpha: .* is not possible. Give any number", "task_arithmetic", alpha=value)


def test_numbers_of_every_kind_are_numbers():
    for value in (1, 1.0, "1", Decimal(1), np.float64(1), np.float32(1), np.int64(1)):
        assert METHODS["task_arithmetic"].complete({"alpha": value}) == {"alpha": 1.0}


def test_unknown_choices():
    refused("variant: 'paperr' is not possible. Give paper, authors", variant="paperr")
    refused("granularity: 'layer' .*Give kind, tensor, row, model", granularity="layer")


def test_beta_at_or_above_gamma_inverts_the_method():
    refused("beta 0.99 is not below gamma 0.9.*nothing would be kept", beta=0.99, gamma=0.9)
    refused("beta 0.9 is not below gamma 0.9", beta=0.9, gamma=0.9)
    refused("beta 0.995 is not below gamma 0.99", beta=0.995)


def test_gamma_of_a_hundredth_is_a_fraction_removed_and_not_a_quantile():
    message = refused("gamma 0.01 would remove the largest 99", gamma=0.01, beta=0)
    assert "quantile" in message and "0.99" in message and "outliers 0.01" in message


def test_the_two_notations_exclude_each_other():
    refused("beta and density are two ways", beta=0.9, density=0.1)
    refused("gamma and outliers are two ways", gamma=0.9, outliers=0.1)
    refused("beta and density are two ways", beta=0.9, gamma=0.99, density=0.1, outliers=0.01)
    refused("density and outliers belong together", density=0.1)
    refused("density and outliers belong together", outliers=0.1)


def test_density_and_outliers_share_the_whole():
    refused("density 0.6 with outliers 0.5 is not possible", density=0.6, outliers=0.5)
    refused("density 0 with outliers 0.01 is not possible", density=0, outliers=0.01)


def test_weights_that_add_up_to_nothing_have_no_mean():
    base, model = {"w": np.zeros(2, np.float32)}, {"w": np.ones(2, np.float32)}
    with pytest.raises(RecipeError, match="average: the weights add up to 0"):
        breadcrumbs.merge(base, [model, model], method="average", weights=[1, -1])


def test_random_masks_keep_their_share():
    transform = METHODS["random_sparsed"].transform
    assert isinstance(transform, Draw)
    assert transform.keep(METHODS["random_sparsed"].complete({"density": "0.25"})) == 0.25


# --- pairs and plugins -------------------------------------------------------------------------

FAMILY = [
    {"w": np.arange(24.0).reshape(4, 6) * k, "b": np.ones(3) + k, "layers.1.b": np.ones(2) * k}
    for k in (1, 2, -1.5)
]


def same(found, expected):
    return all(found[name].tobytes() == expected[name].tobytes() for name in expected)


@pytest.mark.parametrize(
    "pair, method, given",
    [
        ("none+sum", "task_arithmetic", {"alpha": 1}),
        ("none+mean", "average", {}),
        ("breadcrumbs+sum", "breadcrumbs", {"beta": 0.3, "gamma": 0.9}),
        ("breadcrumbs+elect", "breadcrumbs_ties", {"beta": 0.3, "gamma": 0.9, "merge": "sum"}),
        ("magnitude+elect", "ties", {"density": 0.5, "granularity": "model"}),
        ("dare+elect", "dare_ties", {"p": 0.4, "merge": "sum"}),
        ("della+sum", "della_linear", {}),
    ],
)
def test_a_pair_is_the_method_of_its_parts(pair, method, given):
    base, *models = FAMILY
    if "alpha" in METHODS[method].parameters:  # of which a pair may have another default
        given = {"alpha": 0.7, **given}
    found = breadcrumbs.merge(base, models, method=pair, **given)
    assert same(found, breadcrumbs.merge(base, models, method=method, **given))


@pytest.mark.parametrize("transform", registry.TRANSFORMS)
@pytest.mark.parametrize("aggregate", registry.AGGREGATES)
def test_every_pair_merges_or_says_why_not(transform, aggregate):
    base, *models = FAMILY
    try:
        found = breadcrumbs.merge(base, models, method=f"{transform}+{aggregate}")
    except RecipeError as error:
        assert str(error).startswith(f"method {transform}+{aggregate}: ")
        return
    assert all(np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize(
    "name, message",
    [
        ("dare+slerp", r"dare\+slerp: slerp turns whole weights.* Use method slerp"),
        ("dare+elct", r"no aggregate 'elct'\. Did you mean 'elect'"),
        ("dar+elect", r"no transform 'dar'\. Did you mean 'dare'"),
        ("none+emr", r"'emr' is a method, not an aggregate\. Use method emr, or another"),
        ("ties+sum", r"'ties' is a method, not a transform\. Use method ties, or another"),
        ("none+stitch", r"Use method average"),
        ("tsv_n", r"no method 'tsv_n'"),
    ],
)
def test_a_pair_that_makes_no_sense_is_explained(name, message):
    with pytest.raises(RecipeError, match=message):
        registry.get(name)


PLUGIN = """
import numpy as np
from breadcrumbs.methods import Elementwise, Everything, Method, Real

MEDIAN = Elementwise(
    combine=lambda entries, values: np.median(entries.terms, axis=0),
    parameters={"alpha": Real(1.0, "factor of the median")},
    models=(1, None),
)
AGGREGATES = {"median": MEDIAN}
METHODS = [Method("median", Everything(), MEDIAN, "median", "base + median tau_t", "2026")]
"""


def test_a_plugin_adds_methods_and_aggregates(tables, tmp_path):
    path = tmp_path / "my.py"
    path.write_text(PLUGIN)
    registry.load_plugin(path)
    base, *models = FAMILY
    found = breadcrumbs.merge(base, models, method="median", alpha=0.5)
    expected = base["w"] + 0.5 * np.median([m["w"] - base["w"] for m in models], axis=0)
    np.testing.assert_allclose(found["w"], expected, rtol=1e-15)
    breadcrumbs.merge(base, models, method="breadcrumbs+median", beta=0.1, gamma=0.9)


@pytest.mark.parametrize(
    "page, name, partner",
    [
        ("CONTRIBUTING.md", "midrange", "breadcrumbs+{}"),
        ("docs/plugins.md", "smallest", "{}+elect"),
    ],
)
def test_the_files_that_the_pages_show_are_plugins(tables, tmp_path, page, name, partner):
    shown = re.search(r'```python\n(""".*?)```', (ROOT / page).read_text(encoding="utf-8"), re.S)
    assert shown
    path = tmp_path / f"{name}.py"
    path.write_text(shown[1])
    registry.load_plugin(path)
    base, *models = FAMILY
    for method in (name, partner.format(name)):
        merged = breadcrumbs.merge(base, models, method=method, alpha=0.5)
        assert not same(merged, base) and all(np.isfinite(array).all() for array in merged.values())


def test_every_method_of_a_published_file_is_in_the_table():
    declared: list[Method] = []
    for module in pkgutil.iter_modules(published.__path__):
        found = vars(importlib.import_module(f"{published.__name__}.{module.name}")).values()
        groups = [value for value in found if isinstance(value, tuple | list)]
        declared += [value for value in found if isinstance(value, Method)]
        declared += [each for group in groups for each in group if isinstance(each, Method)]
    assert sorted(method.name for method in declared) == sorted(METHODS)


def test_a_name_in_pairs_means_one_thing():
    for kind in ("transform", "aggregate"):
        parts = [getattr(method, kind) for method in METHODS.values()]
        assert all(a == b for a in parts for b in parts if a.name and a.name == b.name)


def test_all_that_the_door_offers_is_there():
    assert all(hasattr(breadcrumbs.methods, name) for name in breadcrumbs.methods.__all__)


def test_a_plugin_says_why_its_aggregate_goes_with_no_transform(tables, tmp_path):
    path = tmp_path / "my.py"
    path.write_text(PLUGIN.replace("models=(1, None)", "alone='medians are of whole weights'"))
    registry.load_plugin(path)
    with pytest.raises(RecipeError, match=r"dare\+median: medians are of whole weights\. Use"):
        registry.get("dare+median")


@pytest.mark.parametrize("kind", [Elementwise, Whole])
@pytest.mark.parametrize("cut", [np.s_[:1], np.s_[..., None]])
def test_a_step_of_another_shape_is_refused(tables, kind, cut):
    def combine(first, second, *more):
        terms = first.terms if kind is Elementwise else second
        return terms.sum(axis=0)[cut]

    aggregate = kind(combine, {"alpha": Real(1.0, "factor")})
    registry.METHODS["bad"] = Method("bad", Everything(), aggregate, "sum", "sum", "2026")
    base, *models = FAMILY
    with pytest.raises(MismatchError, match=r"of method bad returned the shape .*Fix"):
        breadcrumbs.merge(base, models, method="bad")


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 / 0", "cannot be loaded: division by zero"),
        ("", "defines no METHOD, METHODS"),
        ("METHODS = [3]", "METHODS: '3' is a int"),
        ("AGGREGATES = {'x': 3}", "AGGREGATES: 'x' is a int"),
        (PLUGIN.replace('"median"', '"ties"'), "the name 'ties' is taken"),
    ],
)
def test_a_plugin_that_is_none_is_refused(tables, tmp_path, text, message):
    path = tmp_path / "my.py"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        registry.load_plugin(path)


def test_cabs_counts_what_each_model_keeps_and_has_places_for_all(tmp_path):
    rng = np.random.default_rng(0)
    base = {"w": np.zeros((9, 30), np.float32)}
    models = [{"w": rng.standard_normal((9, 30)).astype(np.float32)} for _ in range(5)]

    def kept(**given) -> list[int]:
        out = tmp_path / "out.safetensors"
        report = breadcrumbs.merge(base, models, method="cabs", output=out, **given)
        out.unlink()
        return [row.kept for row in report.models]

    # 13 blocks of 20 entries, 4 each, and of the last 10 entries 2 each.
    assert kept(m=20) == [54] * 5
    assert kept(n=3, m=20) == [13 * 3 + 1] * 5
    with pytest.raises(RecipeError, match=r"5 models cannot have 5 of 20 .*Give n=4"):
        kept(n=5, m=20)
    with pytest.raises(RecipeError, match=r"5 models cannot have 1 of 4 .*Give m=5"):
        kept(m=4)


def test_a_mask_owns_no_entry_that_its_model_did_not_change():
    base = {"w": np.zeros(4)}
    models = [{"w": np.array([1.0, 0, 0, 0])}, {"w": np.array([3.0, 2, 1, 0])}]
    found = breadcrumbs.merge(base, models, method="localize_and_stitch", density=0.75)
    assert found["w"].tolist() == [2, 2, 1, 0]  # the first owns one entry, not three
