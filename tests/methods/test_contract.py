"""What every method keeps to: one table, one row a method, one test for each promise."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import published_rows
import pytest
import reference
import statistics_rows
from families import merge
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import DTYPES

import breadcrumbs
from breadcrumbs.errors import MismatchError
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan import Sizes

HUNDREDTHS = st.integers(0, 100).map(lambda k: k / 100)
UNITS = st.sampled_from(["tensor", "row", "model"])
EXAMPLES = settings().max_examples  # of the profile: 40, or 1


@dataclass(frozen=True)
class Row:
    """whole: parameters that keep everything, at factor 1. half: the same at factor 1/2.

    settings: parameters of all kinds.
    """

    whole: Mapping[str, Any]
    half: Mapping[str, Any]
    settings: st.SearchStrategy[dict[str, Any]]


def row(everything: dict[str, Any], settings: dict[str, Any]) -> Row:
    alpha = st.sampled_from([1, 0.3, 0.5, -1, 0.1, 0, 1.7])
    return Row(
        {**everything, "alpha": 1},
        {**everything, "alpha": 0.5},
        st.fixed_dictionaries({"alpha": alpha}, optional=settings),
    )


QUANTILES = st.tuples(st.integers(0, 99), st.integers(50, 100)).filter(lambda it: it[0] < it[1])
TABLE = {
    "breadcrumbs": Row(
        {"beta": 0, "gamma": 1, "alpha": 1},
        {"beta": 0, "gamma": 1, "alpha": 0.5},
        st.builds(
            lambda quantiles, rest: {
                "beta": quantiles[0] / 100,
                "gamma": quantiles[1] / 100,
                **rest,
            },
            QUANTILES,
            st.fixed_dictionaries(
                {"alpha": st.sampled_from([1, 0.3, -0.5])},
                optional={"variant": st.sampled_from(["paper", "authors"]), "granularity": UNITS},
            ),
        ),
    ),
    "task_arithmetic": row({}, {}),
    "average": Row({}, {}, st.just({})),
    "bottom_masking": row({"density": 1}, {"density": HUNDREDTHS, "granularity": UNITS}),
    "magnitude": row({"density": 1}, {"density": HUNDREDTHS, "granularity": UNITS}),
    "top_masking": row({"outliers": 0}, {"outliers": HUNDREDTHS, "granularity": UNITS}),
    "random_sparsed": row({"density": 1}, {"density": HUNDREDTHS}),
}
methods = pytest.mark.parametrize("method", TABLE)


def test_every_method_has_its_row():
    published, with_data = set(published_rows.TABLE), set(statistics_rows.TABLE)
    assert set(TABLE) | published | with_data == set(METHODS)


# --- weights of all kinds ----------------------------------------------------------------------

SHAPES = st.sampled_from(
    [(), (0,), (1,), (1, 1), (3, 0, 2), (2,), (7,), (3, 5), (2, 3, 4), (1, 9), (11, 1), (20,)]
)
KINDS = ("bits", "bits", "usual", "ties", "constant", "zeros", "denormal", "huge")


def finite(values: np.ndarray) -> np.ndarray:
    """Return the weights with those that are not finite, or too large to subtract, replaced."""
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
        usable = np.isfinite(wide) & (np.abs(wide) < 2.0**1000)
        return np.where(usable, values, np.asarray(-0.0).astype(values.dtype))


def weights(kind: str, shape: tuple[int, ...], dtype: str, rng) -> np.ndarray:
    """Return finite weights of one kind: any bits, equal magnitudes, zeros of both signs, ..."""
    to = DTYPES[dtype]
    n = int(np.prod(shape))
    if kind == "bits":
        values = rng.integers(0, 256, n * to.itemsize, np.uint8).view(to)
        return finite(values.reshape(shape))
    precision, smallest, largest = reference.FORMATS[dtype]
    signs = rng.choice([-1.0, 1.0], shape)
    values = {
        "usual": lambda: rng.standard_normal(shape),
        "ties": lambda: rng.integers(-3, 4, shape) / 4,
        "constant": lambda: np.full(shape, 0.75),
        "zeros": lambda: 0.0 * signs,
        "denormal": lambda: signs * rng.integers(0, 4, shape) * 2.0 ** (smallest - precision + 1),
        "huge": lambda: signs * min(largest, 2.0**999) / rng.integers(1, 3, shape),
    }[kind]()
    return finite(np.asarray(values).astype(to).reshape(shape))


FEW = st.integers(0, 3)


@st.composite
def families(draw, models=FEW, mixed=False, shapes=SHAPES):
    """Return (base, models): dicts of one to three tensors, of one dtype, or each of its own."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    one = draw(st.sampled_from(sorted(DTYPES)))
    dtypes = st.sampled_from(sorted(DTYPES)) if mixed else st.just(one)
    named = {name: draw(shapes) for name in draw(st.permutations("abc"))[: draw(st.integers(1, 3))]}
    family = []
    for number in range(1 + draw(models)):
        family.append({})
        for name, shape in named.items():
            kind = draw(st.sampled_from((*KINDS, "base") if number else KINDS))
            if kind == "base":
                family[-1][name] = family[0][name].copy()
            else:
                family[-1][name] = weights(kind, shape, draw(dtypes), rng)
    return family[0], family[1:]


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, values in found.items():
        other = np.asarray(expected[name])
        assert (values.dtype, values.shape) == (other.dtype, other.shape), name
        if values.tobytes() != other.tobytes():
            at = np.flatnonzero(values.reshape(-1).view(np.uint8) != other.reshape(-1).view("u1"))
            at = int(at[0]) // values.itemsize
            raise AssertionError(
                f"{name}: entry {at} is {values.flat[at]!r}, not {other.flat[at]!r}"
            )


def merged(base, models, **arguments) -> dict[str, np.ndarray] | str:
    """Return the merged arrays, or, where a value does not fit the dtype, the error's text."""
    try:
        with np.errstate(over="ignore"):
            return breadcrumbs.merge(base, models, **arguments)
    except MismatchError as error:
        assert "does not fit" in str(error)
        return str(error)


# --- promises that need no reference -----------------------------------------------------------


@methods
@given(families(models=st.just(0)), st.data())
def test_no_models_give_the_base_bit_for_bit(method, family, data):
    base, _ = family
    given_ = data.draw(TABLE[method].settings)
    assert_same(breadcrumbs.merge(base, [], method=method, **given_), base)


@methods
@given(families(models=st.just(1)))
@settings(max_examples=3 * EXAMPLES)
def test_one_model_kept_whole_gives_that_model_bit_for_bit(method, family):
    base, (model,) = family
    assert_same(breadcrumbs.merge(base, [model], method=method, **TABLE[method].whole), model)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@methods
def test_differences_beyond_float64_are_refused_and_never_wrong(method):
    largest = np.finfo(np.float64).max
    base, model = {"w": np.array([-largest, 1.0])}, {"w": np.array([largest, 1.0])}
    with pytest.raises(MismatchError, match=r"'w'.*does not fit F64"):
        breadcrumbs.merge(base, [model], method=method, **TABLE[method].whole)


@methods
@given(families(models=st.just(1), mixed=True))
def test_a_model_wider_than_the_base_comes_out_in_its_own_dtype(method, family):
    base, (model,) = family
    with np.errstate(over="ignore", invalid="ignore"):
        base = {name: base[name].astype(DTYPES["float8_e4m3fn"]) for name in base}
        model = {name: model[name].astype(np.float32) for name in model}
    base = {name: finite(values) for name, values in base.items()}
    model = {name: finite(values) for name, values in model.items()}
    found = breadcrumbs.merge(base, [model], method=method, dtype="float32", **TABLE[method].whole)
    assert_same(found, model)


@methods
@given(families(models=st.just(1)))
@settings(max_examples=2 * EXAMPLES)
def test_two_equal_models_at_half_the_factor_give_that_model(method, family):
    base, (model,) = family
    found = breadcrumbs.merge(base, [model, dict(model)], method=method, **TABLE[method].half)
    assert_same(found, model)


@methods
@given(families(models=st.just(0)), st.data())
def test_models_identical_to_the_base_give_the_base(method, family, data):
    base, _ = family
    number = data.draw(st.integers(1, 3))
    given_ = data.draw(TABLE[method].settings)
    models = [{name: values.copy() for name, values in base.items()} for _ in range(number)]
    assert_same(breadcrumbs.merge(base, models, method=method, **given_), base)


@methods
@given(families(mixed=True), st.data())
def test_dtype_shape_and_order_survive(method, family, data):
    base, models = family
    found = merged(base, models, method=method, **data.draw(TABLE[method].settings))
    if isinstance(found, str):
        return
    kinds = [(name, values.dtype, values.shape) for name, values in base.items()]
    assert [(name, values.dtype, values.shape) for name, values in found.items()] == kinds


@methods
@given(families(models=st.integers(2, 4), mixed=True), st.data())
@settings(max_examples=2 * EXAMPLES)
def test_the_order_of_models_changes_no_bit(method, family, data):
    base, models = family
    given_ = data.draw(TABLE[method].settings)
    factors = st.sampled_from([1.0, 1.0, 0.3, 2.0, 1 / 3])
    factors = data.draw(st.lists(factors, min_size=len(models), max_size=len(models)))
    names = [f"task-{i}" for i in range(len(models))]
    order = data.draw(st.permutations(range(len(models))))
    dtype = data.draw(st.sampled_from([None, "float64"]))
    results = [
        merged(
            base,
            [models[i] for i in who],
            method=method,
            weights=[factors[i] for i in who],
            names=[names[i] for i in who],
            dtype=dtype,
            **given_,
        )
        for who in (range(len(models)), order)
    ]
    one, other = results
    if isinstance(one, str) or isinstance(other, str):
        assert isinstance(one, str) and isinstance(other, str)
    else:
        assert_same(other, one)


@methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_order_of_models_changes_no_bit_of_sums_that_float64_does_not_hold(method, dtype):
    rng = np.random.default_rng(0)
    n = 400
    base = {"w": rng.standard_normal(n).astype(dtype)}
    spread = [2.0 ** rng.integers(-40, 40, n) for _ in range(5)]
    models = [{"w": (rng.standard_normal(n) * s).astype(dtype)} for s in spread]
    names = [f"task-{i}" for i in range(5)]
    given_: dict[str, Any] = {**TABLE[method].whole} | (
        {} if method == "average" else {"alpha": 0.3}
    )
    for factors in ([1.0] * 5, [0.1, 0.2, 0.7, 0.9, 1.0]):
        results = [
            breadcrumbs.merge(
                base,
                [models[i] for i in who],
                names=[names[i] for i in who],
                weights=[factors[i] for i in who],
                method=method,
                dtype="float64",
                **given_,
            )
            for who in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3])
        ]
        assert_same(results[1], results[0])
        assert_same(results[2], results[0])


@methods
def test_sums_that_no_pair_of_float64_holds_are_exact(method):
    rng = np.random.default_rng(1)
    large, middle, small = (rng.standard_normal(50) * scale for scale in (2.0**600, 1.0, 2.0**-600))
    terms = [large, middle, small, -large, -middle, 3 * large, -3 * large]
    base = {"w": np.zeros(50)}
    for order in (range(7), [6, 5, 4, 3, 2, 1, 0], [2, 0, 4, 6, 1, 5, 3]):
        models = [{"w": terms[i]} for i in order]
        found = breadcrumbs.merge(base, models, method=method, **TABLE[method].whole)
        factor = 1 / 7 if method == "average" else 1.0
        assert_same(found, {"w": factor * small})


# --- the reference -----------------------------------------------------------------------------


@methods
@given(families(mixed=True), st.data())
@settings(max_examples=5 * EXAMPLES // 2)
def test_the_result_is_the_references(method, family, data):
    base, models = family
    given_ = data.draw(TABLE[method].settings)
    arguments: dict[str, Any] = {"method": method, "seed": data.draw(st.integers(0, 3))}
    if data.draw(st.booleans()):
        factors = st.sampled_from([1.0, 0.3, 2.0, -1.0, 0.0])
        factors = st.lists(factors, min_size=len(models), max_size=len(models))
        arguments["weights"] = data.draw(factors)
        assume(method != "average" or sum(arguments["weights"]) or not models)
    arguments["dtype"] = data.draw(st.sampled_from([None, None, "float32", "bfloat16", "float64"]))
    found = merged(base, models, **arguments, **given_)
    expected = reference.merge(base, models, **arguments, **given_)
    if isinstance(found, str):
        with np.errstate(invalid="ignore"):
            wide = [values.astype(np.float64) for values in expected.values()]
        assert not all(np.isfinite(values).all() for values in wide)
    else:
        assert_same(found, expected)


@methods
def test_models_that_lack_tensors_leave_them_as_they_are(method):
    rng = np.random.default_rng(3)
    base = {"b": rng.standard_normal((6, 5)), "a": rng.standard_normal(9)}
    base = {name: values.astype(np.float32) for name, values in base.items()}
    models = [
        {"a": rng.standard_normal(9).astype(np.float32)},
        {"b": rng.standard_normal((6, 5)).astype(np.float32)},
    ]
    for unit in ("tensor", "row", "model"):
        own = METHODS[method].parameters
        given_ = {"granularity": unit, "alpha": 0.4}
        given_ = {key: value for key, value in given_.items() if key in own}
        found = breadcrumbs.merge(base, models, method=method, missing="base", **given_)
        expected = reference.merge(base, models, method=method, **given_)
        assert_same(found, expected)


# --- the same bits, however it is computed -----------------------------------------------------


def checkpoints(seed: int, dtypes: list[str], tensors: int = 5) -> list[dict[str, np.ndarray]]:
    """Return a base and models of a few thousand entries, with ties, an integer and a scalar."""
    rng = np.random.default_rng(seed)
    shapes = [(33, 70), (500,), (2, 3, 40), (), (2100,)][:tensors]
    result = []
    for dtype in dtypes:
        model: dict[str, np.ndarray] = {}
        for i, shape in enumerate(shapes):
            kind = ("usual", "ties", "usual", "constant", "usual")[i]
            model[f"layer.{i}"] = weights(kind, shape, dtype, rng)
        model["steps"] = np.arange(4)
        result.append(model)
    return result


VARIETY = [
    ["bfloat16"] * 4,
    ["float32"] * 4,
    ["float16", "float32", "bfloat16", "float8_e5m2"],
    ["float64", "float32", "float32", "float64"],
    ["float32"] * 11,
]


def typical(method: str) -> list[dict[str, Any]]:
    """Return a few settings of the method that keep some of each unit and cut some."""
    if method == "breadcrumbs":
        return [
            {"beta": 0.4, "gamma": 0.93, "variant": variant, "granularity": unit}
            for variant, unit in (
                ("paper", "tensor"),
                ("authors", "row"),
                ("paper", "model"),
            )
        ]
    declared = METHODS[method].parameters
    fraction = {"density": 0.37} if "density" in declared else {}
    fraction |= {"outliers": 0.21} if "outliers" in declared else {}
    units = ("tensor", "row", "model") if "granularity" in declared else (None,)
    return [{**fraction, **({"granularity": unit} if unit else {})} for unit in units]


@methods
@pytest.mark.parametrize("dtypes", VARIETY, ids=lambda dtypes: f"{dtypes[0]}x{len(dtypes)}")
def test_kernels_and_threads_change_no_bit(method, dtypes):
    base, *models = checkpoints(1, dtypes)
    for given_ in typical(method):
        arguments: dict[str, Any] = dict(method=method, **given_)
        plain = breadcrumbs.merge(base, models, kernel="numpy", threads=1, **arguments)
        assert_same(breadcrumbs.merge(base, models, kernel="native", **arguments), plain)
        arguments["sizes"] = Sizes(chunk=256, arena=512 * 12)
        for kernel in ("numpy", "native"):
            assert_same(merge(base, models, kernel=kernel, threads=3, **arguments), plain)


NAMES = {dtype: name for name, dtype in breadcrumbs.checkpoint.tensors.DTYPES.items()}


def write_file(path, arrays: Mapping[str, np.ndarray]) -> None:
    header, at = {}, 0
    for name, values in arrays.items():
        offsets = [at, at + values.nbytes]
        header[name] = {
            "dtype": NAMES[values.dtype],
            "shape": list(values.shape),
            "data_offsets": offsets,
        }
        at = offsets[1]
    text = json.dumps(header).encode()
    data = b"".join(values.tobytes() for values in arrays.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_folder(folder, arrays: Mapping[str, np.ndarray], order: list[str], shards: int) -> None:
    """Write a checkpoint whose tensors lie in that order, in one file or in shards."""
    folder.mkdir()
    if shards == 1:
        write_file(folder / "model.safetensors", {name: arrays[name] for name in order})
        return
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        mine = order[i::shards]
        write_file(folder / file, {name: arrays[name] for name in mine})
        where |= dict.fromkeys(mine, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@methods
@pytest.mark.parametrize("dtypes", VARIETY[:4], ids=lambda dtypes: f"{dtypes[0]}x{len(dtypes)}")
def test_streaming_changes_no_bit(method, dtypes, tmp_path):
    base, *models = checkpoints(2, dtypes)
    rng = np.random.default_rng(5)
    paths = []
    for i, arrays in enumerate((base, *models)):
        order = rng.permutation(list(arrays)).tolist()
        paths.append(tmp_path / f"model-{i}")
        write_folder(paths[-1], arrays, order, shards=i % 3 + 1)
    names = [f"model-{i + 1}" for i in range(len(models))]
    for i, given_ in enumerate(typical(method)):
        arguments: dict[str, Any] = dict(method=method, seed=7, **given_)
        expected = breadcrumbs.merge(base, models, names=names, **arguments)
        outputs = [tmp_path / f"out-{i}", tmp_path / f"out-{i}.safetensors", tmp_path / f"in-{i}"]
        more = {"sizes": Sizes(chunk=300, arena=600 * 12), "threads": 2, **arguments}
        for output, kernel in zip(outputs, ("numpy", "native"), strict=False):
            merge(paths[0], paths[1:], output=output, kernel=kernel, **more)
        breadcrumbs.merge(paths[0], paths[1:], output=outputs[2], kernel="native", **arguments)
        in_memory = breadcrumbs.merge(paths[0], paths[1:], **arguments)
        for found in (in_memory, *map(breadcrumbs.open, outputs)):
            assert_same({name: found[name] for name in expected}, expected)
            assert set(found) == set(expected)


@methods
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_torch_tensors_and_arrays_give_the_same_bits(method, dtype):
    torch = pytest.importorskip("torch")

    def tensor(values: np.ndarray) -> Any:
        flat = torch.from_numpy(values.reshape(-1).view(np.uint8).copy())
        return flat.view(getattr(torch, values.dtype.name)).reshape(values.shape)

    family = checkpoints(4, [dtype] * 3, tensors=4)
    tensors = [{name: tensor(values) for name, values in model.items()} for model in family]
    for given_ in typical(method):
        expected = breadcrumbs.merge(family[0], family[1:], method=method, **given_)
        found = breadcrumbs.merge(tensors[0], tensors[1:], method=method, **given_)
        assert list(found) == list(expected)
        for name, values in found.items():
            assert isinstance(values, torch.Tensor)
            assert values.dtype == tensors[0][name].dtype
            assert tuple(values.shape) == expected[name].shape
            bits = values.reshape(-1).view(torch.uint8).numpy()
            assert bits.tobytes() == expected[name].tobytes()


def test_random_masks_depend_on_names_alone():
    base, first, second = checkpoints(6, ["float32"] * 3)
    arguments: dict[str, Any] = dict(method="random_sparsed", density=0.5)
    alone = breadcrumbs.merge(base, [first], names=["one"], **arguments)
    other = breadcrumbs.merge(base, [first], names=["two"], **arguments)
    seeded = breadcrumbs.merge(base, [first], names=["one"], seed=1, **arguments)
    again = breadcrumbs.merge(base, [second, first], names=["two", "one"], **arguments)
    with_second = breadcrumbs.merge(base, [first, second], names=["one", "two"], **arguments)
    assert_same(again, with_second)
    for found in (other, seeded):
        assert found["layer.0"].tobytes() != alone["layer.0"].tobytes()
    part = np.count_nonzero(alone["layer.0"] != base["layer.0"]) / base["layer.0"].size
    assert 0.45 < part < 0.55
