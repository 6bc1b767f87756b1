"""What figures are drawn from, against plain NumPy; and what stands on the pages of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reference import breadcrumbs_mask

import breadcrumbs
from breadcrumbs.merging import figures, looking, opening, picture
from breadcrumbs.merging.looking import BINS, FIRST
from breadcrumbs.methods import registry
from breadcrumbs.pages import charts
from breadcrumbs.plan import USUAL
from breadcrumbs.plan.recipe import Model, Recipe

NAMES = ("one", "two", "three")
SHAPES = {"embed.weight": (20, 8), "h.0.up.weight": (16, 8), "h.0.up.bias": (16,)}
SHAPES |= {"h.1.up.weight": (16, 8), "h.1.up.bias": (16,), "norm.weight": (8,)}
CUT = {"beta": 0.5, "gamma": 0.9, "granularity": "tensor"}


def family(seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    base = {n: rng.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
    models = []
    for _ in NAMES:
        step = {n: rng.standard_normal(s) * (rng.random(s) < 0.8) / 9 for n, s in SHAPES.items()}
        models.append({n: (base[n] + step[n]).astype(np.float32) for n in base})
    return [base, *models]


def look(arrays, method="breadcrumbs", sizes=USUAL, enough=looking.ENOUGH, **parameters):
    made = Recipe("base", tuple(Model(n, name=n) for n in NAMES), method, parameters)
    with opening.opened(made, arrays, sizes) as plan:
        return looking.look(plan, threads=2, enough=enough)


def taus(arrays, name: str) -> np.ndarray:
    base, *models = (one[name].astype(np.float64).reshape(-1) for one in arrays)
    return np.array([model - base for model in models])


def masks(raw: np.ndarray) -> np.ndarray:
    sizes = np.abs(raw.astype(np.float32)).tolist()
    return np.array([breadcrumbs_mask(row, beta=0.5, gamma=0.9) for row in sizes], bool)


def test_a_look_is_what_numpy_finds_before_and_after_the_cut():
    arrays = family()
    found = look(arrays, **CUT)
    assert found.share == 1 and found.cuts and found.names == NAMES
    both = {n: np.stack([raw := taus(arrays, n), raw * masks(raw)]) for n in SHAPES}
    for tensor in found.tensors:
        mine = both[tensor.name]
        kept = mine[1] != 0
        assert tensor.size == tensor.seen == mine.shape[2]
        base = arrays[0][tensor.name].astype(np.float64)
        assert tensor.base == pytest.approx(np.linalg.norm(base))
        np.testing.assert_allclose(tensor.norms, np.linalg.norm(mine, axis=2))
        signs = np.sign(mine)
        for i in range(3):
            for j in range(3):
                product = signs[:, i] * signs[:, j]
                assert (tensor.opposite[:, i, j] == (product < 0).sum(axis=1)).all()
                assert (tensor.both[:, i, j] == (product != 0).sum(axis=1)).all()
        for t in range(3):
            sizes = np.abs(mine[0, t])
            assert tensor.edges[t] == sizes.max()
            if kept[t].any():
                assert tensor.low[t] == sizes[kept[t]].min()
                assert tensor.high[t] == sizes[kept[t]].max()
    whole = np.concatenate(list(both.values()), axis=2)
    norms = np.linalg.norm(whole, axis=2)
    np.testing.assert_allclose(found.norms, norms)
    for when in (0, 1):
        cosines = whole[when] @ whole[when].T / np.outer(norms[when], norms[when])
        np.testing.assert_allclose(found.cosines[when], cosines, atol=1e-12)
        np.testing.assert_allclose(found.kept[when], (whole[when] != 0).mean(axis=1))


def test_a_histogram_counts_what_is_kept_and_what_is_cut():
    arrays = family(1)
    found = look(arrays, **CUT)
    edges = np.array([charts.magnitude(FIRST + i) for i in range(BINS + 1)])
    for key in found.histograms:
        names = [key] if key else list(SHAPES)
        for t in range(3):
            raw = [taus(arrays, name) for name in names]
            kept = np.concatenate([masks(one)[t] for one in raw])
            sizes = np.abs(np.concatenate([one[t] for one in raw]))
            for row, chosen in enumerate((kept & (sizes > 0), ~kept & (sizes > 0))):
                expected, _ = np.histogram(sizes[chosen], edges)
                assert (found.histograms[key][t, row] == expected).all()
    counts = found.histograms[""][0]
    bars = figures.bars_of(counts / counts.sum())
    shares = sum(bar["share"] for bar in bars)
    assert 1 - 3 * figures.RARE < shares <= 1 + 1e-4
    for bar in bars:  # as high as the share of a whole doubling
        width = np.log2(bar["to"] / bar["from"])
        assert (bar["high"] - bar["low"]) * width == pytest.approx(bar["share"], abs=3e-6)


def test_a_sample_is_even_and_close():
    rng = np.random.default_rng(5)
    base = {n: rng.standard_normal(k).astype(np.float32) for n, k in (("w", 1 << 14), ("b", 40))}
    step = {n: rng.standard_normal(v.size).astype(np.float32) for n, v in base.items()}
    models = [{n: base[n] + step[n] for n in base}]
    models += [{n: 2 * v - base[n] for n, v in models[0].items()}, models[0]]
    sizes = replace(USUAL, chunk=128)
    found = look([base, *models], sizes=sizes, enough=1 << 12, beta=0.9, gamma=0.99)
    assert 0.24 < found.share < 0.27
    exact = look([base, *models], sizes=sizes, beta=0.9, gamma=0.99)
    np.testing.assert_allclose(found.norms, exact.norms, rtol=0.1)
    assert [t.base for t in found.tensors] == pytest.approx([t.base for t in exact.tensors], 0.05)
    np.testing.assert_allclose(found.kept, exact.kept, rtol=0.2)
    total = found.histograms[""][0].sum()
    assert total == pytest.approx(sum(v.size for v in base.values()), rel=1e-6)


@pytest.mark.parametrize("method", [m for m in registry.METHODS if m not in ("fisher", "regmean")])
def test_any_method_can_be_looked_at(method):
    """The transform is looked at, whatever is made of task vectors then."""
    number = registry.METHODS[method].number
    arrays = family()[: 2 if number == "1" else 3 if number == "2" else 4]
    names = NAMES[: len(arrays) - 1]
    made = Recipe("base", tuple(Model(n, name=n) for n in names), method, _needs(method))
    with opening.opened(made, arrays) as plan:
        found = looking.look(plan, threads=1)
    raw = np.concatenate([taus(arrays, name) for name in SHAPES], axis=1)
    np.testing.assert_allclose(found.norms[0], np.linalg.norm(raw, axis=1))
    assert set(figures_of(found)) >= {"magnitudes", "norms"}


def _needs(method: str) -> dict:
    return {"lines": {"pattern": r"h\.(\d+)\."}, "tall_mask": {"task": "one"}}.get(method, {})


def figures_of(found) -> dict:
    return {f.name: f for section in figures.sections(found) for f in section.figures}


def test_heat_maps_have_the_numbers_of_their_cells():
    arrays = family(2)
    made = figures_of(look(arrays, **CUT))
    cells = made["norms"].spec["data"]["values"]
    mine = [c for c in cells if (c["model"], c["when"]) == ("two", "before cutting")]
    assert {(c["y"], c["x"]) for c in mine} == {
        ("embed", "\N{EN DASH}"),
        ("up", "0"),
        ("up", "1"),
        ("norm", "\N{EN DASH}"),
    }
    up = next(c for c in mine if (c["y"], c["x"]) == ("up", "1"))
    raw = np.concatenate([taus(arrays, f"h.1.up.{n}")[1] for n in ("weight", "bias")])
    base = np.concatenate([arrays[0][f"h.1.up.{n}"].reshape(-1) for n in ("weight", "bias")])
    assert up["norm"] == pytest.approx(np.linalg.norm(raw)) and up["n"] == raw.size
    assert up["value"] == pytest.approx(np.linalg.norm(raw) / np.linalg.norm(base))
    cell = made["conflicts"].spec["data"]["values"][0]
    raw = taus(arrays, "embed.weight")
    pairs = [raw[i] * raw[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    wrong, there = (sum(np.count_nonzero(f(p)) for p in pairs) for f in (lambda p: p < 0, abs))
    assert (cell["y"], cell["value"]) == ("embed", pytest.approx(wrong / there))


def test_layers_of_a_comparison_are_what_numpy_finds():
    arrays = family(3)
    found = breadcrumbs.compare(arrays[0], arrays[1:], names=NAMES)
    assert [layer.name for layer in found.layers] == ["0", "1", "outside of layers"]
    names = [n for n in SHAPES if n.startswith("h.1.")]
    raw = np.concatenate([taus(arrays, name) for name in names], axis=1)
    layer = found.layers[1]
    assert layer.entries == raw.shape[1]
    norms = np.linalg.norm(raw, axis=1)
    np.testing.assert_allclose(layer.norms, norms)
    np.testing.assert_allclose(layer.cosine, raw @ raw.T / np.outer(norms, norms), atol=1e-12)
    product = raw[0] * raw[2]
    share = (product < 0).sum() / np.count_nonzero(product)
    assert layer.conflicts[0, 2] == pytest.approx(share)
    total = sum(layer.norms**2 for layer in found.layers)
    np.testing.assert_allclose(np.sqrt(total), found.norms)
    plain = found.to_mapping()["layers"][1]
    assert plain["norms"]["three"] == pytest.approx(norms[2])
    assert plain["cosine"] == pytest.approx(layer.mean("cosine"))


def test_the_page_of_a_merge_tells_its_recipe_kept_and_step(tmp_path):
    from breadcrumbs.merging import files

    arrays = family(4)
    recipe = Recipe(
        "base", tuple(Model(n, name=n) for n in NAMES), parameters={**CUT, "alpha": 0.5}
    )
    with opening.opened(recipe, arrays) as plan:
        report = files.to_files(plan, tmp_path / "out.safetensors", threads=1)
        page = picture.of_merge(plan, looking.look(plan, threads=1), report, "out")
    assert set(page.figures) == {"step", "magnitudes", "kept", "cosine", "norms", "conflicts"}
    step = page.figures["step"].table.rows
    assert step[-1] == ("the step of the merge", report.norm)
    raw = np.concatenate([taus(arrays, n) for n in SHAPES], axis=1)
    assert step[0][1] == pytest.approx(np.linalg.norm(raw[0]))
    assert "beta: 0.5" in page.sections[-1].code
    kinds = page.sections[0].tables[0].rows
    assert ("weight", 6) in kinds
