"""Methods that are no plain sum: each is its slow reference, and the same bits however it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import close, family, merge, save
from published_rows import (
    NAMES,
    TABLE,
    Row,
    numbered,
)
from reference import DTYPES, is_weight
from safetensors.numpy import load_file

import breadcrumbs
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan import Sizes

Arrays = dict[str, np.ndarray]
GOLDEN = Path(__file__).parents[1] / "golden"


GOLDEN_SETTINGS: dict[str, dict[str, Any]] = (
    {
        f"consensus-l{digit}-k{k}-a0p3": dict(method="consensus", scale=digit / 10, k=k, alpha=0.3)
        for digit in (2, 4, 6)
        for k in (1, 2)
    }
    | {
        f"tall-l{digit}-task{task}": dict(method="tall_mask", scale=digit / 10, task=task + 1)
        for digit in (2, 4, 6)
        for task in (0, 2)
    }
    | {"pcb-r0p1-l1p2": dict(method="pcb")}
    | {f"{method}-a1": dict(method=method) for method in ("tsv_m", "iso_c", "iso_cts")}
)

ORDERS = {2: [[0, 1], [1, 0]], 3: [[0, 1, 2], [2, 0, 1], [1, 2, 0]]}

WEIGHTS = ([1.0, 1.0, 1.0], [1.0, -0.5, 2.0], [2.0, 2.0, 2.0])


def weights_of(row: Row) -> list[list[float]]:
    """Return the weights to try."""
    found = [[abs(w) for w in weights] if row.positive else weights for weights in WEIGHTS]
    return found if row.weighted else found[:1]


methods = pytest.mark.parametrize("method", TABLE)


@methods
@pytest.mark.parametrize("kind", ["usual", "ties"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_merge_is_the_references(method, kind, dtype):
    row = TABLE[method]
    base, *models = family(1, dtype, row.models, kind)
    for settings in row.settings:
        for weights in weights_of(row):
            mine = weights[: row.models]
            found = breadcrumbs.merge(
                base, models, method=method, weights=mine, dtype="float64", **settings
            )
            close(found, row.reference(base, models, mine, **settings), 1e-12)
            assert (found["steps"] == base["steps"]).all()


@pytest.mark.parametrize("name", GOLDEN_SETTINGS)
def test_a_merge_is_the_published_programs(name):
    stems = ("base", "ft0", "ft1", "ft2", f"expect-{name}")
    base, *models, expected = (load_file(GOLDEN / f"{stem}.safetensors") for stem in stems)
    found = breadcrumbs.merge(base, models, **GOLDEN_SETTINGS[name])
    assert set(found) == set(expected)
    # PyTorch's float32 SVD is off by more; test_references works out by how much.
    tolerance = 1e-6 if name == "tsv_m-a1" else 4 * 2.0**-23
    close(found, {key: v.astype(np.float64) for key, v in expected.items()}, tolerance)


@methods
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_to_add_gives_the_base_bit_for_bit(method, dtype):
    base, *_ = family(2, dtype, 0)
    base["zeros"] = np.array([0.0, -0.0, 1.0]).astype(DTYPES[dtype])
    models = [{name: values.copy() for name, values in base.items()}] * TABLE[method].models
    for settings in TABLE[method].settings:
        found = breadcrumbs.merge(base, models, method=method, **settings)
        for name, values in found.items():
            assert values.tobytes() == base[name].tobytes(), (name, settings)


def in_order(settings: dict[str, Any], order: list[int]) -> dict[str, Any]:
    """Return settings that say of the models in that order what they said before."""
    result = {
        key: [value[i] for i in order] if isinstance(value, list) else value
        for key, value in settings.items()
    }
    if "task" in settings:
        result["task"] = order.index(settings["task"] - 1) + 1
    return result


@methods
@pytest.mark.parametrize("kind", ["usual", "ties", "wide", "alike"])
def test_the_order_of_models_changes_no_bit_of_float64(method, kind):
    row = TABLE[method]
    if not row.order or row.models < 2:
        return
    base, *models = family(3, "float64", row.models, "ties" if kind == "ties" else "usual")
    rng = np.random.default_rng(5)
    for at, model in enumerate(models):
        for name in (name for name in base if is_weight(base[name])):
            if kind == "wide":
                model[name] = np.asarray(
                    base[name] + np.ldexp(model[name], rng.integers(-30, 30, base[name].shape))
                )
            elif kind == "alike":  # as long as each other, and at right angles
                step = np.zeros(base[name].size)
                step[at :: len(models)][:1] = 0.3
                model[name] = np.asarray(base[name] + step.reshape(base[name].shape))
    for settings in row.settings:
        for weights in weights_of(row):
            results = [
                breadcrumbs.merge(
                    base,
                    [models[i] for i in order],
                    names=[NAMES[i] for i in order],
                    weights=[weights[i] for i in order],
                    method=method,
                    **in_order(settings, order),
                )
                for order in ORDERS[row.models]
            ]
            for other in results[1:]:
                for name, values in results[0].items():
                    assert other[name].tobytes() == values.tobytes(), (name, settings, weights)


@methods
def test_the_order_of_models_changes_nothing(method):
    row = TABLE[method]
    if not row.order or row.models < 2:
        return
    base, *models = family(3, "float32", row.models, "ties")
    for settings in row.settings:
        found = [
            breadcrumbs.merge(
                base,
                [models[i] for i in order],
                names=[NAMES[i] for i in order],
                method=method,
                **in_order(settings, order),
            )
            for order in ORDERS[row.models]
        ]
        for other in found[1:]:
            for name, values in found[0].items():
                assert other[name].tobytes() == values.tobytes(), name


@methods
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_chunks_threads_kernels_and_files_change_no_bit(method, dtype, tmp_path):
    row = TABLE[method]
    base, *models = family(4, dtype, row.models)
    paths = [tmp_path / f"{i}.safetensors" for i in range(len(models) + 1)]
    for path, arrays in zip(paths, (base, *models), strict=True):
        save(path, arrays)
    for settings in row.settings[:3]:
        given = dict(method=method, names=NAMES[: row.models], **settings)
        expected = breadcrumbs.merge(base, models, kernel="numpy", threads=1, **given)
        given["sizes"] = Sizes(chunk=64, arena=128 * 16)
        for found in (
            merge(base, models, kernel="numpy", threads=3, **given),
            merge(paths[0], paths[1:], kernel="native", threads=2, **given),
        ):
            for name, values in expected.items():
                assert found[name].tobytes() == values.tobytes(), (name, settings)


@methods
def test_a_model_without_a_tensor_leaves_it_as_it_is(method):
    row = TABLE[method]
    base, *models = family(5, "float32", row.models)
    changed = dict(models[0])
    changed["b"] = base["b"].copy()
    without = {name: values for name, values in models[0].items() if name != "b"}
    for settings in row.settings[:2]:
        found = breadcrumbs.merge(
            base, [without, *models[1:]], method=method, missing="base", **settings
        )
        expected = breadcrumbs.merge(base, [changed, *models[1:]], method=method, **settings)
        for name, values in expected.items():
            assert found[name].tobytes() == values.tobytes(), name


@methods
def test_the_wrong_number_of_models_is_refused(method):
    least, most = METHODS[method].aggregate.models
    base, *models = family(6, "float32", 4)
    wrong = ([least - 1] if least else []) + ([most + 1] if most else [])
    for number in wrong:
        with pytest.raises(
            RecipeError, match=rf"{method}: needs .* (given is|{number} models were given)"
        ):
            breadcrumbs.merge(base, models[:number], method=method)


@pytest.mark.parametrize("method", [*TABLE, "breadcrumbs", "task_arithmetic", "average"])
def test_onto_a_fine_tuning_adds_the_same_step_to_it(method):
    number = TABLE[method].models if method in TABLE else 3
    base, *models, target = family(7, "float32", number + 1)
    target["steps"] = np.arange(3) + 5
    weights = [1.0, 1.0, 1.0][:number] if method in ("slerp", "karcher") else [2.0] * number
    if method in TABLE and not TABLE[method].weighted:
        weights = [1.0] * number
    given = numbered(method, dict(method=method, weights=weights, dtype="float64"))
    given |= {"task": 1} if method == "tall_mask" else {}
    plain = breadcrumbs.merge(base, models, **given)
    found = breadcrumbs.merge(base, models, onto=target, **given)
    for name, values in found.items():
        if name == "steps":
            assert (values == target[name]).all()
            continue
        step = plain[name] - base[name].astype(np.float64)
        np.testing.assert_allclose(values, target[name] + step, rtol=0, atol=1e-14 * 8)


def test_onto_in_files_copies_what_belongs_to_the_target(tmp_path):
    base, model, target = family(8, "bfloat16", 2)
    folders = [tmp_path / name for name in ("base", "model", "target")]
    for folder, arrays in zip(folders, (base, model, target), strict=True):
        folder.mkdir()
        save(folder / "model.safetensors", arrays)
        (folder / "config.json").write_text(f'{{"model_type": "{folder.name}"}}')
    out = tmp_path / "out"
    breadcrumbs.merge(
        folders[0], [folders[1]], onto=folders[2], output=out, beta=0.2, gamma=0.9, alpha=0.7
    )
    again = breadcrumbs.merge(base, [model], onto=target, beta=0.2, gamma=0.9, alpha=0.7)
    found = breadcrumbs.open(out)
    assert all(found[name].tobytes() == values.tobytes() for name, values in again.items())
    assert "target" in (out / "config.json").read_text()
    text = (out / "breadcrumbs.yaml").read_text()
    assert "onto:" in text and "target" in text
    without = {name: values for name, values in target.items() if name != "b"}
    with pytest.raises(MismatchError, match="lacks 1 tensor"):
        breadcrumbs.merge(base, [model], onto=without)
