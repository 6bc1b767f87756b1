"""Adapters merged in their own space, against slow versions from dense changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from references import adapters as slow
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.merging import reproducing
from breadcrumbs.methods.table import METHODS
from breadcrumbs.plan import lowering

SHAPES = {"a.q.weight": (40, 32), "a.v.weight": (24, 32)}
ALPHA = 6


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], dict[str, Any]]:
    """Return a base, adapters of ranks 3, 4 and 2, and what they change: the last leaves `a.v`."""
    folder, rng = tmp_path_factory.mktemp("spaces"), np.random.default_rng(3)
    base = {name: rng.normal(size=shape) * 0.05 for name, shape in SHAPES.items()}
    base["a.v.bias"] = rng.normal(size=24)
    save_file(base, folder / "base.safetensors")
    paths, changes = [], {name: [] for name in SHAPES}
    for t, (rank, names) in enumerate([(3, SHAPES), (4, SHAPES), (2, ["a.q.weight"])]):
        tensors = {}
        for name in names:
            m, n = SHAPES[name]
            a, b = rng.normal(size=(rank, n)), rng.normal(size=(m, rank)) * 0.1
            a, b = a.astype(np.float32), b.astype(np.float32)
            stem = f"base_model.model.{name.removesuffix('.weight')}.lora_"
            tensors |= {f"{stem}A.weight": a, f"{stem}B.weight": b}
            changes[name].append((np.float64(b) * (ALPHA / rank), np.float64(a)))
        if t == 0:
            tensors["base_model.model.a.v.bias"] = (base["a.v.bias"] + 1).astype(np.float32)
        paths.append(folder / f"lora{t}")
        paths[t].mkdir()
        save_file(tensors, paths[t] / "adapter_model.safetensors")
        said = {"peft_type": "LORA", "r": rank, "lora_alpha": ALPHA, "bias": "all"}
        (paths[t] / "adapter_config.json").write_text(json.dumps(said))
    changes["a.v.weight"].append((np.zeros((24, 1)), np.zeros((1, 32))))
    return folder / "base.safetensors", paths, changes


def step(family: Any, paths: list[Path], **settings: Any) -> dict[str, np.ndarray]:
    merged = breadcrumbs.merge(family[0], paths, **settings)
    base = breadcrumbs.load(family[0])
    return {name: merged[name] - base[name] for name in merged}


@pytest.mark.parametrize("space", ["core", "knots"])
@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("ties", {"density": 0.5, "granularity": "tensor", "alpha": 1}, slow.ties(0.5)),
        ("iso_c", {"alpha": 1}, slow.iso_c),
        ("average", {}, lambda taus: sum(taus) / len(taus)),
    ],
)
def test_it_is_the_slow_version(family: Any, space: str, method: str, settings, expected) -> None:
    found = step(family, family[1], method=method, space=space, **settings)
    for name, pairs in family[2].items():
        wanted = getattr(slow, space)(pairs, expected)
        np.testing.assert_allclose(found[name], wanted, atol=1e-12)
    total = 12 if method == "ties" else 8  # a bias of 24 ones in one of three is merged in full
    assert found["a.v.bias"].sum() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("space", ["core", "knots"])
def test_sums_are_those_of_the_weights_in_any_order(family: Any, space: str) -> None:
    base, paths, _ = family
    settings = {"method": "task_arithmetic", "alpha": 0.7, "space": space}
    found = breadcrumbs.merge(base, paths, weights=[1, -0.5, 2], **settings)
    full = breadcrumbs.merge(base, paths, weights=[1, -0.5, 2], **{**settings, "space": "full"})
    for name in full:
        np.testing.assert_allclose(found[name], full[name], atol=1e-14)
    turned = breadcrumbs.merge(base, paths[::-1], weights=[2, -0.5, 1], **settings)
    assert all(np.array_equal(found[name], turned[name]) for name in full)
    assert found.report.norm == pytest.approx(full.report.norm, rel=1e-12)
    assert found.report.step == pytest.approx(full.report.step, rel=1e-12)


def test_what_is_an_adapter_by_any_name_is_one(family: Any, tmp_path: Path) -> None:
    """A task file with its factors, and an adapter in its base, give the bits of the adapter."""
    base, (first, second, _), _ = family
    file = tmp_path / "second.safetensors"
    tasks.from_adapter(base, second, file)
    settings = {"method": "ties", "space": "core"}
    plain = breadcrumbs.merge(base, [first, second], **settings)
    other = breadcrumbs.merge(base, [f"{base}+{first}", file], **settings)
    assert all(np.array_equal(plain[name], other[name]) for name in plain)
    report = breadcrumbs.merge(base, [first, second], output=tmp_path / "out", **settings)
    assert any(line.startswith("space core: 2 matrices") for line in report.notes)
    assert "space: core" in (tmp_path / "out" / "breadcrumbs.yaml").read_text()
    assert reproducing.reproduce(tmp_path / "out").same
    written = breadcrumbs.load(tmp_path / "out")
    assert all(np.array_equal(plain[name], written[name]) for name in plain)


def test_random_masks_and_ranks_of_the_model_are_of_coordinates(family: Any) -> None:
    """Ranked over the model, coordinates and biases count together."""
    base, paths, _ = family
    dropped = {"method": "dare+sum", "p": 0.5, "space": "core", "seed": 1}
    one, two = (breadcrumbs.merge(base, paths, **dropped) for _ in range(2))
    assert np.array_equal(one["a.q.weight"], two["a.q.weight"])
    found = breadcrumbs.merge(base, paths, method="ties", granularity="model", space="core")
    (row, *_) = found.report.models
    numbers = {"a.q.weight": 9 * 9, "a.v.weight": 7 * 7, "a.v.bias": 24}
    assert row.entries == sum(numbers.values())
    assert row.kept == int(0.2 * row.entries)


def test_alpha_is_chosen_as_in_full(family: Any, tmp_path: Path) -> None:
    """From inner products, which coordinates keep; the recipe has the number."""
    found = []
    for space in ("full", "core", "knots"):
        settings = {"method": "task_arithmetic", "alpha": "auto", "space": space}
        out = tmp_path / space
        found.append(breadcrumbs.merge(family[0], family[1], output=out, **settings).alpha)
        assert f"alpha: {found[-1]}" in (out / "breadcrumbs.yaml").read_text()
    assert found[0] == found[1] == found[2]


def test_adapters_of_one_direction_more_are_isotropic_in_their_span(tmp_path: Path) -> None:
    """Three adapters of rank 8: the step has the 24 directions of their sum, at one length."""
    rng, taus, paths = np.random.default_rng(0), [], []
    base = {"layer.weight": (rng.normal(size=(96, 80)) * 0.05).astype(np.float32)}
    for t in range(3):
        a, b = rng.normal(size=(8, 80)), rng.normal(size=(96, 8)) * 0.02
        a, b = a.astype(np.float32), b.astype(np.float32)
        stem = "base_model.model.layer.lora_"
        paths.append(tmp_path / str(t))
        paths[t].mkdir()
        tensors = {f"{stem}A.weight": a, f"{stem}B.weight": b}
        save_file(tensors, paths[t] / "adapter_model.safetensors")
        (paths[t] / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
        taus.append(np.float64(b) @ np.float64(a))
    u, _, v = np.linalg.svd(sum(taus))
    right = u[:, :24] @ v[:24]
    for space in ("core", "knots"):
        merged = breadcrumbs.merge(base, paths, method="iso_c", space=space, dtype="float64")
        found = merged["layer.weight"] - base["layer.weight"]
        cosine = (found * right).sum() / np.linalg.norm(found) / np.linalg.norm(right)
        assert cosine == pytest.approx(1, abs=1e-12)


def _cases() -> list[Any]:
    task = {"tall_mask": {"task": 1}}
    settings: list[tuple[str, dict[str, Any]]] = [(n, task.get(n, {})) for n in METHODS]
    settings += [("nuslerp", {"of": "models"}), ("karcher", {"of": "base_and_models"})]
    settings += [("multislerp", {"of": "models"}), ("average", {"base_weight": 1})]
    settings += [("average", {"normalize": "none"})]
    return [pytest.param(*one, id=f"{one[0]} {one[1] or ''}") for one in settings]


@pytest.mark.parametrize(("name", "given"), _cases())
def test_what_looks_at_the_base_is_refused(name: str, given: dict[str, Any]) -> None:
    """Whether a step changes with the base is what a method says of itself."""
    method = METHODS[name]
    if any(key not in method.parameters for key in given) or method.statistics is not None:
        pytest.skip("not of this method")
    rng = np.random.default_rng(5)
    number = max(2, method.aggregate.models[0])
    number = min(number, method.aggregate.models[1] or number)
    names = ("layers.0.w.weight", "layers.1.w.weight")
    taus = [{n: rng.normal(size=(8, 6)) for n in names} for _ in range(number)]
    steps = []
    for size in (1.0, 7.0):
        base = {n: size * rng.normal(size=x.shape) for n, x in taus[0].items()}
        models = [{n: base[n] + x for n, x in tau.items()} for tau in taus]
        merged = breadcrumbs.merge(base, models, method=name, **given)
        steps.append(merged["layers.0.w.weight"] - base["layers.0.w.weight"])
    depends = not np.allclose(*steps, atol=1e-9)
    values = method.complete(given)
    assert bool(lowering.beyond(lowering.of(method), values, [1.0] * number)) == depends


def test_what_has_no_place_in_a_space_is_refused_by_name(family: Any, tmp_path: Path) -> None:
    base, paths, _ = family
    merge = breadcrumbs.merge
    with pytest.raises(RecipeError, match=r"karcher looks at the base's weights.*space: full"):
        merge(base, paths, method="karcher", space="core")
    with pytest.raises(RecipeError, match="cor"):
        merge(base, paths, space="cor")
    whole = {name: breadcrumbs.load(base)[name] + 1 for name in breadcrumbs.load(base)}
    with pytest.raises(MismatchError, match=r"model 2: changes no matrix by a product"):
        merge(base, [paths[0], whole], space="core")
    dora = tmp_path / "dora"
    dora.mkdir()
    tensors = dict(breadcrumbs.load(paths[2] / "adapter_model.safetensors"))
    tensors["base_model.model.a.q.lora_magnitude_vector"] = np.ones(40, np.float32)
    save_file(tensors, dora / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": ALPHA, "use_dora": True}
    (dora / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(MismatchError, match=r"dora: is DoRA.*'a.q.weight'.*space: full"):
        merge(base, [paths[0], dora], space="knots")
    merge(base, [paths[0], dora], space="full")
