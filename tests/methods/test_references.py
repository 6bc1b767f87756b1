"""The references agree with what published programs return, and with sums done by hand.

The programs ran in float32 on PyTorch; see golden/README.md.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from golden_models import (
    EPS,
    PUBLISHED,
    SCALES,
    base_and_models,
    conditioning,
    golden_masks,
    load,
    trimmed_count,
)
from reference import breadcrumbs_mask
from references import classical, masks, spectral
from references.common import flat_magnitude, largest, shaped, weights_of


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_reference_is_the_published_program(name):
    base, models = base_and_models()
    expected, merged = load(f"expect-{name}"), PUBLISHED[name](base, models)
    assert set(merged) == set(expected)
    for key, values in expected.items():
        off = np.abs(np.asarray(merged[key], np.float64) - values.astype(np.float64))
        # A task vector, a product, a sum and the merged weight are rounded: 4 EPS of the weight.
        # An entry that only one of two masks keeps is off by a thousand times that.
        bound = 4 * EPS * np.abs(base[key].astype(np.float64)).max(initial=1)
        if name == "tsv_m-a1" and values.ndim == 2:
            bound += conditioning(base[key], [m[key] for m in models])
        assert off.max(initial=0) <= bound, key


@pytest.mark.parametrize("digit", SCALES)
def test_tall_and_consensus_masks_are_the_published_ones_in_every_entry(digit):
    base, models = base_and_models()
    total, held = masks.multi_task(base, models), golden_masks(SCALES[digit])
    votes = {name: np.sum([mask[name] for mask in held], axis=0) for name in total}
    counts = {"task0": held[0], "task2": held[2]}
    kept = {f"tall-l{digit}-{task}": mask for task, mask in counts.items()}
    for k in (1, 2):
        kept[f"consensus-l{digit}-k{k}-a0p3"] = {name: v >= k for name, v in votes.items()}
    seen = 0
    for name, mask in kept.items():
        for key, values in load(f"expect-{name}").items():
            if key in mask:
                # A step that float32 weights cannot show hides its mask: there is none here.
                assert np.array_equal(values != base[key], mask[key] & (total[key] != 0)), key
                seen += int(mask[key].sum())
    assert seen > 1000


@pytest.mark.parametrize("merge", ["mean", "sum"])
def test_the_ties_program_trims_one_entry_less_of_each_model(merge):
    base, models = base_and_models()
    weights, count = trimmed_count()
    assert (weights, count) == (12780, 2556)
    names = weights_of(base)
    extra = np.zeros(weights, bool)
    for model in models:
        size = flat_magnitude(base, model, names)
        extra |= largest(size, count + 1) ^ largest(size, count)
    assert extra.sum() == 3  # one place of each model
    exact = classical.ties(base, models, density=0.2, merge=merge)
    expected, where = load(f"expect-ties-dis-{merge}-k20-l1"), shaped(extra, base, names)
    differing, changed = 0, [0, 0]
    for name in names:
        changed[0] += int((expected[name] != base[name]).sum())
        changed[1] += int((exact[name] != base[name]).sum())
        differs = np.abs(exact[name] - expected[name]) > 4 * EPS * np.abs(base[name]).max(initial=1)
        assert not np.any(differs & ~where[name]), name
        differing += int(differs.sum())
    # In the third place another model has the elected sign, so only its trim differs.
    assert differing == 2 and changed == [6203, 6201]


def test_the_published_statistics_add_up():
    base, models = base_and_models()
    rates = masks.consensus_statistics(base, models, scale=0.4)
    whole = kept = 0
    for key, values in load("expect-consensus-l4-k1-a0p3").items():
        moved = np.any([m[key] != base[key] for m in models], axis=0)
        whole += int(moved.sum())
        kept += int((values != base[key]).sum())
    assert rates["catastrophic"] == pytest.approx(1 - kept / whole, abs=1e-15)
    kept = sum(
        int((values != base[key]).sum())
        for key, values in load("expect-consensus-l4-k2-a0p3").items()
    )
    assert rates["catastrophic"] + rates["selfish"] == pytest.approx(1 - kept / whole, abs=1e-15)


# --- small cases, by hand ----------------------------------------------------------------------


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def model(*values: float) -> dict[str, np.ndarray]:
    return {"w": row(*values)}


def test_ties_by_hand():
    base = model(0, 0, 0, 0, 0)
    models = [model(4, -3, 1, 0, 0), model(-2, -1, 0, 5, 0), model(1, 0, 6, -5, 0)]
    # floor(.4 * 5) = 2 each: (4, -3), (-2, 5), (6, -5). Sums 2, -3, 6, 0, 0: signs + - + ? ?; the
    # elected ones sum to 1, so ? is +. Agreeing: 4 | -3 | 6 | 5 | none.
    mean = classical.ties(base, models, density=0.4)["w"]
    assert mean.tolist() == [4, -3, 6, 5, 0]
    halved = classical.ties(base, models, density=0.4, alpha=0.5)["w"]
    assert halved.tolist() == [2, -1.5, 3, 2.5, 0]
    # All kept: sums 3, -4, 7, 0, 0; column 0 has 4 and 1, column 1 -3 and -1, column 2 1 and 6.
    every = dict(density=1)
    assert classical.ties(base, models, **every)["w"].tolist() == [2.5, -2, 3.5, 5, 0]
    assert classical.ties(base, models, **every, merge="sum")["w"].tolist() == [5, -4, 7, 5, 0]
    assert classical.ties(base, models, **every, merge="max")["w"].tolist() == [4, -3, 6, 5, 0]
    # The majority is negative here, so the tie of 1 and -1 goes to -1; mergekit's to +1.
    tied = [model(1, -2, -2), model(-1, -2, -2)]
    origin = model(0, 0, 0)
    assert classical.ties(origin, tied, density=1)["w"].tolist() == [-1, -2, -2]
    mergekits = classical.ties(origin, tied, density=1, granularity="tensor")
    assert mergekits["w"].tolist() == [1, -2, -2]
    # Nothing elected: negative.
    assert classical.ties(model(0), [model(3), model(-3)], density=1)["w"].tolist() == [-3]
    maximum = classical.ties(model(0), [model(3), model(-3)], density=1, merge="max")
    assert maximum["w"].tolist() == [-3]


def test_ties_weights_by_hand():
    # 1 * 1 and -1 * -1 both say +1: their mean is 1, where a signed sum of weights is 0.
    opposite = classical.ties(model(0), [model(1), model(-1)], density=1, weights=[1, -1])
    assert opposite["w"].tolist() == [1]
    # (3 * 2 + 1 * 4) / (3 + 1)
    assert classical.ties(model(0), [model(2), model(4)], density=1, weights=[3, 1])["w"] == 2.5


def test_ties_ranks_the_model_or_the_tensor():
    base = {"a": row(0, 0), "b": row(0, 0), "n": np.array([7])}
    models = [{"a": row(9, 8), "b": row(1, 2), "n": np.array([9])}]
    whole = classical.ties(base, models, density=0.5)
    assert (whole["a"].tolist(), whole["b"].tolist(), whole["n"].tolist()) == ([9, 8], [0, 0], [7])
    each = classical.ties(base, models, density=0.5, granularity="tensor")
    assert (each["a"].tolist(), each["b"].tolist()) == ([9, 0], [0, 2])
    none = classical.ties(base, models, density=0.4, granularity="tensor")
    assert none["a"].tolist() == [0, 0]
    one = classical.ties(base, models, density=0.4, granularity="tensor", least=1)
    assert one["a"].tolist() == [9, 0]


def test_pruning_by_hand():
    tau, draws = row(1, 2, 3, 4), np.array([0.05, 0.5, 0.0999, 0.1])
    assert classical.dare(tau, draws, p=0.9) == pytest.approx(row(10, 0, 30, 0))
    assert classical.dare(tau, draws, p=0).tolist() == [1, 2, 3, 4]
    assert classical.dare(tau, draws, p=0.5).tolist() == [2, 0, 6, 8]
    assert classical.dare(tau, draws, p=1).tolist() == [0, 0, 0, 0]
    # Equal magnitudes: the later is the larger.
    odd = np.arange(1000) % 2
    assert np.flatnonzero(largest(odd, 250)).tolist() == list(range(501, 1000, 2))
    base, tied = row(0, 0, 0, 0, 0), row(1, -2, 2, -1, 2)
    keep = classical.magnitude_mask(base, tied, density=0.4)
    assert keep.tolist() == [False, False, True, False, True]
    rows = classical.magnitude_mask(
        np.zeros((2, 2), np.float32), row(1, 2, 4, 3).reshape(2, 2), density=0.5, granularity="row"
    )
    assert rows.tolist() == [[False, True], [True, False]]
    # .29 * 100 is 29, though the float is below.
    many = np.arange(100, dtype=np.float32)
    assert classical.magnitude_mask(np.zeros(100), many, density=0.29).sum() == 29
    pruned = classical.magnitude_prune(base, [tied, row(0, 0, 0, 9, 8)], density=0.4, alpha=0.5)
    assert pruned.tolist() == [0, 0, 1, 4.5, 5]


def test_della_by_hand():
    base = np.zeros((2, 3), np.float32)
    tuned = np.array([[3, -1, 2], [5, 5, 6]], np.float32)
    chance = classical.della_probabilities(base, tuned, density=0.5, epsilon=0.2)
    assert chance == pytest.approx(np.array([[0.7, 0.3, 0.5], [0.3, 0.5, 0.7]]))
    kept = classical.della(tuned, np.full((2, 3), 0.4), chance)
    assert kept == pytest.approx(np.array([[3 / 0.7, 0, 4], [0, 10, 6 / 0.7]]))
    column = classical.della_probabilities(np.zeros((2, 1)), np.ones((2, 1)), density=0.5)
    assert column.tolist() == [[0.5], [0.5]]
    assert classical.della_probabilities(np.zeros(()), np.ones(()), density=0.4) == 0.4
    with pytest.raises(ValueError, match="inside"):
        classical.della_probabilities(base, tuned, density=0.9, epsilon=0.1)
    # dare_ties, della and breadcrumbs_ties end alike: sums 3 and -3.
    taus = [row(4, -3), row(-1, 0)]
    assert classical.elected_sum(row(1, 1), taus, alpha=0.5).tolist() == [3, -0.5]
    assert classical.elected_sum(row(1, 1), taus, merge="mean").tolist() == [5, -2]
    assert classical.linear_sum(row(1, 1), taus, weights=[1, 2], alpha=0.5).tolist() == [2, -0.5]


HALF = math.sqrt(0.5)


def test_means_on_spheres_by_hand():
    x, y = row(2, 0), row(0, 1)
    # sin 45 / sin 90 = sqrt(1/2) of each, the lengths as they are.
    assert classical.slerp(x, [y]) == pytest.approx([2 * HALF, HALF])
    # At a third of a right angle: sin 60 and sin 30.
    assert classical.slerp(x, [y], t=1 / 3) == pytest.approx([2 * math.sqrt(0.75), 0.5])
    assert classical.slerp(x, [row(4, 0)], t=0.25).tolist() == [2.5, 0]
    assert classical.slerp(x, [row(-2, 0)], t=0.25).tolist() == [1, 0]
    # Zeros are at a right angle to all.
    assert classical.slerp(row(0, 0), [y]) == pytest.approx([0, HALF])
    # Of task vectors, t = 3 / (1 + 3): sin 22.5 and sin 67.5.
    low, high = math.sin(math.pi / 8), math.sin(3 * math.pi / 8)
    nuslerp = classical.nuslerp(row(1, 1), [row(3, 1), row(1, 2)], weights=[1, 3])
    assert nuslerp == pytest.approx([1 + 2 * low, 1 + high])
    assert classical.nuslerp(None, [x, y], weights=[1, -1]) == pytest.approx([2 * HALF, HALF])
    # Rows (1, 0), (0, 1) and (1, 0), (0, 3): parallel in each row, not as a whole.
    first, second = np.eye(2, dtype=np.float32), np.diag(row(1, 3))
    lines = classical.nuslerp(None, [first, second], flatten=False)
    assert lines == pytest.approx(np.diag([1.0, 2.0]))
    # Along the first axis, columns (1, 0), (3, 0) are parallel, (2, 0) and (0, 0) at 90 degrees.
    first, second = np.array([[1, 2], [0, 0]]), np.array([[3, 0], [0, 0]])
    columns = classical.nuslerp(None, [first, second], flatten=False, row_wise=True)
    assert columns == pytest.approx(np.array([[2, 2 * HALF], [0, 0]]))
    # Two unit vectors at a right angle have their mean at 45 degrees; the mean length is 1.5.
    assert classical.multislerp(None, [x, y]) == pytest.approx([1.5 * HALF, 1.5 * HALF])
    shifted = classical.multislerp(row(1, 1), [row(3, 1), row(1, 2)])
    assert shifted == pytest.approx([1 + 1.5 * HALF, 1 + 1.5 * HALF])
    # Weights 3/4, 1/4 of (1, 0) and (0, 1): (3, 1) / sqrt 10, at the length 3/4 * 2 + 1/4.
    ratio = classical.multislerp(None, [x, y], weights=[3, 1])
    assert ratio == pytest.approx(np.array([3, 1]) / math.sqrt(10) * 1.75)
    whole = classical.multislerp(None, [x, y], weights=[3, 1], normalize=False)
    assert whole == pytest.approx(np.array([3, 1]) / math.sqrt(10) * 7)
    assert classical.multislerp(None, [x, -x]).tolist() == [0, 0]
    # Directions that cancel, and a tensor that nobody changed: the mean.
    assert classical.multislerp(None, [x, -2 * x, y * 0]) == pytest.approx([-2 / 3, 0])
    assert classical.multislerp(x, [x, x, x]).tolist() == [2, 0]
    third = classical.karcher(None, [row(3, 0, 0), row(0, 3, 0), row(0, 0, 3)])
    assert third == pytest.approx(np.full(3, math.sqrt(3)))
    # At 0, 0 and 90 degrees the mean angle is 30.
    angles = classical.karcher(None, [row(1, 0), row(1, 0), row(0, 1)])
    assert angles == pytest.approx([math.sqrt(0.75), 0.5], abs=1e-5)
    # At 0, 0 and 150 degrees it is 50, though the sum is at 24: an angle of 126.
    turn = [math.cos(math.radians(150)), math.sin(math.radians(150))]
    wide = classical.karcher(None, [row(1, 0), row(1, 0), np.array(turn)], max_iter=50)
    fifty = math.radians(50)
    assert wide == pytest.approx([math.cos(fifty), math.sin(fifty)], abs=1e-4)
    assert classical.karcher(row(1, 0), [row(0, 1)]) == pytest.approx([HALF, HALF])
    # Zeros have no direction, but a length of 0.
    assert classical.karcher(None, [row(0, 0), row(4, 0)]).tolist() == [2, 0]
    # Opposite ones have no mean: the first's direction.
    assert classical.karcher(None, [row(1, 0), row(-3, 0)]).tolist() == [2, 0]
    # At angles of 2e-4, where float32 cosines are all 1: half way.
    close = classical.karcher(None, [np.array([1, 0.0]), np.array([1, 2e-4])], tol=1e-9)
    assert close[1] == pytest.approx(1e-4, rel=1e-6)
    assert classical.nearswap(row(0, 0, 0), [row(5, -0.25, 0)], t=1).tolist() == [1, -0.25, 0]


def test_sce_by_hand():
    base = row(0, 0, 0)
    taus = [row(3, 1, 0), row(1, -2, 0)]
    # Energies 10 and 5: weights 2/3, 1/3. Sums 4, -1: entry 0 is (2/3 * 3 + 1/3 * 1) / 1 = 7/3,
    # entry 1 is -2 alone.
    assert classical.sce(base, taus) == pytest.approx([7 / 3, -2, 0])
    # Variances 1, 2.25, 0, 0: half of the two that vary is entry 1. Energies 1 and 4; -2 wins.
    frozen = [np.append(tau, 0) for tau in taus]
    assert classical.sce(np.zeros(4), frozen, density=0.5).tolist() == [0, -2, 0, 0]
    # As large, times a millionth: the weights stay 2/3 and 1/3.
    tiny = classical.sce(base, [tau * np.float32(2**-20) for tau in taus])
    assert tiny * 2**20 == pytest.approx([7 / 3, -2, 0])
    assert classical.sce(base, [base, base]).tolist() == [0, 0, 0]


def test_model_stock_by_hand():
    base = row(1, 1)
    right, up = row(2, 1), row(1, 2)
    assert classical.model_stock(base, [right, up]).tolist() == [1, 1]  # cos 0: t 0
    assert classical.model_stock(base, [right, right]).tolist() == [2, 1]  # cos 1: t 1
    # cos 60 = 1/2: t = 2 * .5 / 1.5 = 2/3 of the mean (.75, sqrt(.75) / 2).
    sixty = np.array([0.5, math.sqrt(0.75)])
    stock = classical.model_stock(np.zeros(2), [np.array([1.0, 0]), sixty])
    assert stock == pytest.approx(2 / 3 * np.array([0.75, math.sqrt(0.75) / 2]))
    # Three with cosines 1/2, 1/2, 1/2: t = 1.5 / 2 = 3/4 of the mean (2, 2, 2) / 3.
    corners = [row(1, 1, 0), row(1, 0, 1), row(0, 1, 1)]
    assert classical.model_stock(row(0, 0, 0), corners) == pytest.approx([0.5, 0.5, 0.5])
    # cos -1: the base; without the clamp the denominator is 0, which gives the base too.
    for clamp in (True, False):
        opposite = classical.model_stock(base, [right, row(0, 1)], clamp=clamp)
        assert opposite.tolist() == [1, 1]
    # cos -1/2: t = -1 / .5 = -2 of the mean (.25, sqrt(.75) / 2).
    obtuse = [np.array([1.0, 0]), np.array([-0.5, math.sqrt(0.75)])]
    assert classical.model_stock(np.zeros(2), obtuse).tolist() == [0, 0]
    free = classical.model_stock(np.zeros(2), obtuse, clamp=False)
    assert free == pytest.approx([-0.5, -math.sqrt(0.75)])
    rows = classical.model_stock(np.zeros((2, 2)), [np.eye(2), np.fliplr(np.eye(2)) + np.eye(2)])
    # As a whole: cos = 2 / (sqrt 2 * 2) = HALF; t = 2 HALF / (1 + HALF).
    assert rows[0] == pytest.approx(2 * HALF / (1 + HALF) * np.array([1, 0.5]))
    lines = classical.model_stock(
        np.zeros((2, 2)), [np.array([[1, 0], [1, 0]]), np.array([[1, 0], [0, 1]])], filter_wise=True
    )
    assert lines.tolist() == [[1, 0], [0, 0]]
    assert classical.model_stock(base, [base, right]).tolist() == [1, 1]
    # Lengths of 1 and 1, a guard of 2: the cosine 1 is 1/2, t = 2/3.
    guarded = classical.model_stock(base, [right, right], guard=2.0)
    assert guarded == pytest.approx([1 + 2 / 3, 1])
    assert classical.model_stock(base, [right, right], guard=0.5).tolist() == [2, 1]


def test_soups_by_hand():
    models = [model(0, 0), model(4, 0), model(2, 2), model(-8, 9)]

    def score(m):  # best at (3, 1)
        return -abs(float(m["w"][0]) - 3) - abs(float(m["w"][1]) - 1)

    scores = [score(m) for m in models]
    assert scores == [-4, -2, -2, -19]
    # First (4, 0) at -2; with (2, 2) the mean is (3, 1) at 0: joins; with (0, 0) it is (2, 2/3) at
    # -4/3: does not; (-8, 9) does not.
    merged, chosen = classical.greedy_soup(models, scores, score)
    assert (chosen, merged["w"].tolist()) == ([1, 2], [3, 1])
    # An equal score joins.
    assert classical.greedy_soup([model(1), model(1)], [5, 5], lambda _: 5)[1] == [0, 1]


def test_fisher_by_hand():
    models = [row(1, 1, 4), row(5, 9, 8)]
    fishers = [row(3, 0, 0), row(1, 2, 0)]
    assert classical.fisher(models, fishers).tolist() == [2, 9, 6]
    # (1 * 3 * 1 + 3 * 1 * 5) / (3 + 3)
    # and (4 + 3 * 8) / (1 + 3) where no model has any.
    assert classical.fisher(models, fishers, weights=[1, 3]).tolist() == [3, 9, 7]
    # Two examples whose gradients cancel: 1, not the square of their sum.
    assert classical.diagonal_fisher([row(1), row(-1)]).tolist() == [1]


def test_regmean_by_hand():
    models = [np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]])]
    # Diagonal: column 0 is (3 * 1 + 1 * 3) / 4, column 1 (1 * 0 + 3 * 4) / 4.
    grams = [np.diag([3.0, 1.0]), np.diag([1.0, 3.0])]
    assert classical.regmean(models, grams, ridge=0) == pytest.approx(np.array([[1.5, 3]]))
    # One sees only x0 + x1 (1 -> 1 a unit), the other only x0 - x1 (-1): W = (a, b) with a + b = 1
    # and a - b = -1, from the whole off-diagonals.
    grams = [np.ones((2, 2)), np.array([[1.0, -1.0], [-1.0, 1.0]])]
    whole = classical.regmean(models, grams, off_diagonal=1, ridge=0)
    assert whole == pytest.approx(np.array([[0.0, 1.0]]))
    # Halved: right = (1, .5) + (3 - 2, 4 - 1.5) = (2, 3) over 2 I.
    half = classical.regmean(models, grams, off_diagonal=0.5, ridge=0)
    assert half == pytest.approx(np.array([[1.0, 1.5]]))
    # Equal models come back from singular statistics; none at all gives the mean.
    same = classical.regmean([models[1], models[1]], [np.ones((2, 2))] * 2, off_diagonal=1)
    assert same.tolist() == [[3, 4]]
    assert classical.regmean(models, [np.zeros((2, 2))] * 2).tolist() == [[2, 2]]
    # Weights multiply the Gram matrices: column 0 is (3 * 1 + 2 * 1 * 3) / (3 + 2 * 1).
    heavy = classical.regmean(models, [np.diag([3.0, 1.0]), np.diag([1.0, 3.0])], weights=[1, 2])
    assert heavy == pytest.approx(np.array([[9 / 5, 24 / 7]]), rel=1e-5)


def test_tall_masks_by_hand():
    base, models = model(0, 0, 0, 0), [model(3, 1, 0, 0), model(10, -1, 2, 0)]
    # tau_MT = (13, 0, 2, 0). Task 0 at .3: 3 > .3 * 10 is false (equal), 1 > .3 * 1, 0 > .3 * 2 is
    # false, 0 > 0 is false. Task 1: 10 > .3 * 3, 1 > .3 * 1, 2 > 0, 0 > 0 is false.
    held = masks.tall_masks(base, models, scale=0.3)
    assert [m["w"].tolist() for m in held] == [
        [False, True, False, False],
        [True, True, True, False],
    ]
    # At .2 the first entry is 3 > 2. Task 1 at 4: 10 > 12 and 1 > 4 are false, 2 > 0.
    held = masks.tall_masks(base, models, scale=[0.2, 4])
    assert [m["w"].tolist() for m in held] == [
        [True, True, False, False],
        [False, False, True, False],
    ]
    assert masks.tall_mask(base, models, 1, scale=0.3)["w"].tolist() == [13, 0, 2, 0]
    agreed = masks.consensus(base, models, scale=0.3, k=2, alpha=1)
    assert agreed["w"].tolist() == [0, 0, 0, 0]  # only entry 1, whose sum is 0
    assert masks.consensus(base, models, scale=0.3, k=1, alpha=1)["w"].tolist() == [13, 0, 2, 0]
    assert masks.consensus(base, models, scale=0.3, k=0, alpha=2)["w"].tolist() == [26, 0, 4, 0]
    # Entries 0, 1, 2 changed; 0 and 2 have one vote.
    assert masks.consensus_statistics(base, models, scale=0.3) == {
        "catastrophic": 0,
        "selfish": pytest.approx(2 / 3),
    }
    # TIES keeps floor(.2 * 4) = 0, so nothing agrees with a whole of 0 but at lambda < 1.
    on = masks.tall_masks(base, models, scale=0.6, on="ties")
    assert on[0]["w"].tolist() == [True, True, False, False]
    assert masks.compressed_bits(20, 3, 5) == (32 * 65, 32 * 11 + 60)


def test_emr_by_hand():
    base = {"a": row(0, 0, 0), "b": row(0)}
    models = [{"a": row(4, -1, 1), "b": row(2)}, {"a": row(-2, -3, -1), "b": row(6)}]
    unified, held, rescalers = masks.emr(base, models)
    # Sums 2, -4, 0 and 8: + - - +, the last zero negative. Largest that agree: 4, 3, 1, 6.
    assert (unified["a"].tolist(), unified["b"].tolist()) == ([4, -3, -1], [6])
    assert held[0]["a"].tolist() == [True, True, False]
    assert held[1]["a"].tolist() == [False, True, True]
    # Task 0: (4 + 1 + 1 + 2) / (4 + 3 + 6); task 1: (2 + 3 + 1 + 6) / (3 + 1 + 6).
    assert rescalers == pytest.approx([8 / 13, 12 / 10])
    # By tensors: (6/3 + 2) / (7/3 + 6) and (6/3 + 6) / (4/3 + 6).
    assert masks.emr(base, models, variant="authors")[2] == pytest.approx([12 / 25, 24 / 22])
    rebuilt = masks.emr_model(base, models, 1)
    assert rebuilt["a"] == pytest.approx([0, -3.6, -1.2])
    assert masks.emr(base, [base])[2] == [1]


def test_breadcrumbs_ties_by_hand():
    base = row(0, 0, 0, 0, 0)
    models = [row(5, 4, 3, 2, 1), row(-5, -1, 3, 2, 4)]
    # Of five: floor(.2 * 5) = 1 largest goes, the next floor(.4 * 5) = 2 stay.
    held = [masks.outlier_mask(base, m, density=0.4, gamma=0.2) for m in models]
    assert [m.tolist() for m in held] == [[0, 1, 1, 0, 0], [0, 0, 1, 0, 1]]
    merged = masks.breadcrumbs_ties(base, models, held)
    assert merged.tolist() == [0, 4, 6, 0, 4]
    mean = masks.breadcrumbs_ties(base, models, held, merge="mean", alpha=0.5)
    assert mean.tolist() == [0, 2, 1.5, 0, 2]
    # gamma gives way, a short tensor is not erased, gamma 0 cuts nothing, density 1 keeps all.
    assert masks.outlier_mask(base, models[0], density=0.8, gamma=0.6).tolist() == [0, 1, 1, 1, 1]
    assert masks.outlier_mask(base, models[0], density=0.4, gamma=0.01).tolist() == [1, 1, 0, 0, 0]
    assert masks.outlier_mask(base, models[0], density=0.4, gamma=0).sum() == 2
    assert masks.outlier_mask(base, models[0], density=1, gamma=0.4).all()
    paper = [breadcrumbs_mask(m.tolist(), beta=0.4, gamma=0.8) for m in models]
    assert masks.breadcrumbs_ties(base, models, paper).tolist() == [0, 4, 6, 0, 4]


def test_singular_values_by_hand():
    base = np.zeros((2, 2))
    first, second = np.diag([4.0, 1.0]), np.array([[0, 1.0], [3.0, 0]])
    # One triplet each: 4 e1 e1' and 3 e2 e1'. U = (e1 e2); V^T = (e1; e1) has the polar factor
    # (e1; e1) / sqrt 2, so M = (4 e1 + 3 e2) e1' / sqrt 2.
    tsv = spectral.tsv_m(base, [first, second])
    assert tsv == pytest.approx(np.array([[4, 0], [3, 0]]) * HALF)
    compressed = spectral.tsv_c(base, [first, second])
    assert compressed[0] == pytest.approx(np.diag([4, 0]))
    assert compressed[1] == pytest.approx(np.array([[0, 0], [3, 0]]))
    # Three tasks in two dimensions: still one triplet each.
    assert spectral.tsv_rank((2, 2), 3) == 1
    # Equal models: half the triplets of one, not what an SVD puts in empty places.
    assert spectral.tsv_m(base, [first, first]) == pytest.approx(np.diag([4, 0]))
    assert spectral.tsv_m(base, [first, base]) == pytest.approx(np.diag([4, 0]))
    assert spectral.tsv_m(base, [first]) == pytest.approx(first)
    # The sum has singular values 5 and 1 of diag(5, -1): the mean is 3.
    iso = spectral.iso_c(base, [first, np.diag([1.0, -2.0])])
    assert iso == pytest.approx(np.diag([3.0, -3.0]))
    # A sum of rank 1: only its direction, at the mean (6 + 0) / 2.
    assert spectral.iso_c(base, [np.diag([6.0, 0])]) == pytest.approx(np.diag([3.0, 0]))
    for method in (spectral.tsv_m, spectral.iso_c, spectral.iso_cts, spectral.star, spectral.wudi):
        assert not method(base, [base, base]).any()
        assert method(row(0, 1), [row(2, 1), row(0, 3)], alpha=0.5).tolist() == [0.5, 1.5]
        assert method(np.zeros((0, 3)), [np.zeros((0, 3))]).shape == (0, 3)


def test_iso_cts_by_hand():
    # (d - s) / T: (10 - 8) / 3 rounds to 1; (10 - 8) / 4 = .5 and (20 - 16) / 8 to the even 0;
    # (20 - 10) / 4 = 2.5 to 2; 1 of 1 is common; at common .2, 4 / 5 rounds to 1 for each of five
    # and would leave nothing.
    assert spectral.iso_cts_ranks(10, 3) == (7, 1)
    assert spectral.iso_cts_ranks(10, 4) == (10, 0)
    assert spectral.iso_cts_ranks(20, 8) == (20, 0)
    assert spectral.iso_cts_ranks(20, 4, 0.5) == (12, 2)
    assert spectral.iso_cts_ranks(1, 2) == (1, 0)
    assert spectral.iso_cts_ranks(1, 1) == (1, 0)
    assert spectral.iso_cts_ranks(5, 5, 0.2) == (5, 0)
    assert spectral.iso_cts_ranks(100, 2, 0.29) == (28, 36)
    # d 3, one task, common .4: s = 1, own 2. The sum is the task vector diag(5, 2, 2): one common
    # e1, then the rest diag(0, 2, 2): all of it at the mean 3.
    tau = np.diag([5.0, 2.0, 2.0])
    assert spectral.iso_cts(np.zeros((3, 3)), [tau], common=0.4) == pytest.approx(3 * np.eye(3))
    # Two tasks, s = 1: the sum diag(6, 3, 0), common 6 e1. Of each rest, one triplet: 4 e2 of the
    # first, -1 e2 and 2 e3 of the second, so 2 e3. The mean of 4, 2 and 6 is 4.
    first, second = np.diag([3.0, 4.0, -2.0]), np.diag([3.0, -1.0, 2.0])
    merged = spectral.iso_cts(np.zeros((3, 3)), [first, second], common=0.4)
    assert merged == pytest.approx(4 * np.eye(3))


def test_star_by_hand():
    # 4 of 4 + 3 + 2 + 1 is 40 %: one value, raised to 10; 41 % needs 4 + 3, times 10/7.
    tau = np.diag([1.0, 4.0, 3.0, 2.0])
    assert spectral.star_step(tau) == pytest.approx(np.diag([0, 10.0, 0, 0]))
    assert spectral.star_step(tau, eta=0.41) == pytest.approx(np.diag([0, 40 / 7, 30 / 7, 0]))
    assert spectral.star_step(tau, eta=1) == pytest.approx(tau)
    merged = spectral.star(np.eye(4), [np.eye(4) + tau, np.eye(4)], alpha=2)
    assert merged == pytest.approx(np.eye(4) + np.diag([0, 10.0, 0, 0]))


def test_wudi_by_hand():
    base, right, up = np.zeros((1, 2)), np.array([[2.0, 0]]), np.array([[0, 1.0]])
    # Orthogonal task vectors do not interfere: their sum is the minimum, and Adam stays there.
    assert spectral.wudi(base, [right, up]).tolist() == [[2, 1]]
    # Twice (2, 0): A = 2 e1 e1', B = (4, 0): from (4, 0), the gradient is 2 (8 - 4) > 0 and the
    # first step of Adam is the rate; the minimum is (2, 0).
    once = spectral.wudi(base, [right, right], solver="adam", steps=1, rate=0.25)
    assert once == pytest.approx(np.array([[3.75, 0]]))
    assert spectral.wudi(base, [right, right], solver="adam", steps=None) == pytest.approx(right)
    # Gradient flow: from (4, 0) towards (2, 0), as exp(-2 t) over the mean eigenvalue (2 + 0) / 2;
    # the ridge: 4 / (2 + .1).
    flow = spectral.wudi(base, [right, right], time=0.5)
    assert flow == pytest.approx(np.array([[2 + 2 * math.exp(-1), 0]]))
    ridge = spectral.wudi(base, [right, right], solver="ridge")
    assert ridge == pytest.approx(np.array([[4 / 2.1, 0]]))
    rng = np.random.default_rng(1)
    taus = [rng.standard_normal((3, 4)) for _ in range(3)]
    a, b = spectral.wudi_terms(taus)
    point, side = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    slope = (
        spectral.wudi_loss(point + 1e-5 * side, taus)
        - spectral.wudi_loss(point - 1e-5 * side, taus)
    ) / 2e-5
    assert float(np.sum(2 * (point @ a - b) * side)) == pytest.approx(slope, rel=1e-7)
    zero = np.zeros((3, 4))
    least = spectral.wudi(zero, taus, solver="adam", steps=None)
    assert least @ a == pytest.approx(b)
    long = spectral.wudi(zero, taus, solver="adam", steps=3000, rate=1e-2)
    assert spectral.wudi_loss(long, taus) == pytest.approx(spectral.wudi_loss(least, taus))


def test_tatr_by_hand():
    base, models = model(0, 0, 0, 0), [model(1, 3, 0, -2), model(2, -1, 5, 0)]
    # Omega = 2 |a| |b| = 4, 6, 0, 0. Three quarters keep all but entry 1; a half the last two.
    merged = spectral.tatr(base, models, quantile=0.75, alpha=1)
    assert merged["w"].tolist() == [3, 0, 5, -2]
    merged = spectral.tatr(base, models, quantile=0.5, alpha=2)
    assert merged["w"].tolist() == [0, 0, 10, -4]
    # One model conflicts with none: all are 0, and the count still holds.
    assert spectral.tatr(base, models[:1], quantile=1, alpha=1)["w"].tolist() == [1, 3, 0, -2]
    assert spectral.tatr(base, models[:1], quantile=0.5, alpha=1)["w"].tolist() == [1, 3, 0, 0]


def test_pcb_by_hand():
    base, models = model(0, 0, 0, 0), [model(1, 2, 0, 0)]
    # One model of four entries: the edge floor(.0001 * 4) = 0, floor(.9999 * 4) - 1 = 2: sorted
    # 0, 0, 1, 2 clamps 2 to 1. a = (1, 1, 0, 0), e^1 tanh(1) and e^1 tanh(4), 0, 0. ratio .5:
    # sorted index 2 is e tanh 1: scores 0, 1, 0, 0. Entry 1: 1.2 * 1.
    assert spectral.pcb(base, models, ratio=0.5)["w"].tolist() == [0, 1.2, 0, 0]
    # An edge of 1/4 clamps 1, 3, 2, 5 to 2 and 3; 0, 6, 0, 0 to 0. The sum is 1, -3, -2, 5. Model
    # 0: a = 2 3 2 3, the product is least in entry 1, whose score is 0. Model 1 scores 0 1 0 0.
    # With each score of model 0 alone in its entry: 2, (3 * 0 - 0 * 1) / 1, -2, 3.
    both = [model(1, 3, -2, 5), model(0, -6, 0, 0)]
    merged = spectral.pcb(base, both, ratio=1, edge=0.25, alpha=1)
    assert merged["w"] == pytest.approx([2, 0, -2, 3])
    # A constant is stretched to 0, and nothing is left.
    assert spectral.pcb(base, [base, base])["w"].tolist() == [0, 0, 0, 0]


def test_cabs_by_hand():
    base = np.zeros((2, 3), np.float32)
    first = np.array([[1, 3, 2], [-4, 5, 6]], np.float32)
    second = np.array([[9, 8, 7], [1, 2, 3]], np.float32)
    # Blocks of four in C order: (1, 3, 2, -4) and (5, 6), where floor(2 * 2 / 4) = 1 stays.
    held = spectral.cabs_masks(base, [first, second, second], n=2, m=4)
    assert held[0].tolist() == [[0, 1, 0], [1, 0, 1]]
    assert held[1].tolist() == [[1, 0, 1], [0, 1, 0]]  # of what is left
    assert not held[2].any()  # nothing left
    merged = spectral.cabs(base, [first, second], n=2, m=4, weights=[1, 0.5], alpha=2)
    assert merged.tolist() == [[9, 6, 7], [-8, 2, 12]]
    # The other way round the second has first choice.
    turned = spectral.cabs_masks(base, [second, first], n=2, m=4)
    assert turned[0].tolist() == [[1, 1, 0], [0, 0, 1]]


def test_localize_and_stitch_by_hand():
    base = model(0, 0, 0, 0)
    models = [model(4, 3, 1, 0), model(-6, 0, 2, 1), model(0, 0, 9, 8)]
    # Half of four each: 4 3 | -6 2 | 9 8; entry 0 and 2 have two owners.
    merged = spectral.localize_and_stitch(base, models, density=0.5)
    assert merged["w"].tolist() == [-1, 3, 5.5, 8]


def test_lines_by_hand():
    base = {
        "blocks.0.w": row(0),
        "blocks.1.w": row(0),
        "blocks.4.w": row(0),
        "head": row(0),
    }
    models = [dict.fromkeys(base, row(1)), dict.fromkeys(base, row(3))]
    merged = spectral.lines(base, models, pattern=r"blocks\.(\d+)\.", alpha=0.5, beta=1)
    # The sum 4 times .5, .5 + 1/4, .5 + 4/4; outside, .5.
    assert [float(merged[name][0]) for name in base] == [2, 3, 6, 2]
    deeper = spectral.lines(base, models, pattern=r"blocks\.(\d+)\.", beta=2, layers=9)
    assert [float(deeper[name][0]) for name in base] == [2, 3, 6, 2]  # 1/T = .5; 2 * l / 8
    assert float(spectral.lines(base, models, pattern="(9)", beta=1)["head"][0]) == 2


def test_quantisation_by_hand():
    # 2 bits of [-1, 2]: scale 3 / 3, zero 1: codes 0, 1, 2, 3. 1.5 + 1 = 2.5 is a half: even 2.
    codes, scale, zero = spectral.quantise(np.array([-1, 0, 1.5, 2]), 2)
    assert (codes.tolist(), scale, zero) == ([0, 1, 2, 3], 1, 1)
    assert spectral.tvq(row(-1, 0, 1.5, 2), bits=2).tolist() == [-1, 0, 1, 2]
    # Zero comes back as zero, whatever the range; a constant as itself.
    assert spectral.tvq(row(-0.3, 0, 0.7), bits=3)[1] == 0
    assert spectral.tvq(row(5, 5), bits=2).tolist() == [5, 5]
    assert spectral.tvq(row(), bits=2).size == 0
    # [2, 3.5] in one bit: scale 2/3, zero -round(4/3) = -1, codes round(1/3) and round(4/3).
    assert spectral.tvq(row(2, 3.5), bits=1).tolist() == [1.5, 3]
    # The mean (0, 4, 7) is its own code in 3 bits; the offsets (-3, 0, 1) at scale 3/4, zero 2:
    # codes 0, 2, 3 are -8/3, 0, 4/3; (3, 0, -1): zero 1, codes 3, 1, 0 are 8/3, 0, -4/3.
    taus = [np.array([-3.0, 4, 8]), np.array([3.0, 4, 6])]
    first, second = spectral.rtvq(taus)
    assert first == pytest.approx([-8 / 3, 4, 25 / 3])
    assert second == pytest.approx([8 / 3, 4, 17 / 3])
    # The offset makes good the base's error: one task comes back from 2 bits of what is left.
    (alone,) = spectral.rtvq([np.array([0, 1.0, 10])], base_bits=1, offset_bits=8)
    assert alone == pytest.approx([0, 1, 10])


def test_kinship_by_hand():
    base = {"a": row(1), "b": row(1, 1)}
    models = [{"a": row(2), "b": row(2, 1)}, {"a": row(0), "b": row(0, 1)}, base]
    table = spectral.kinship(base, models)
    # (1, 1, 0) and its opposite: -1, -1, sqrt 8; with zeros 0, 0, sqrt 2.
    assert table["cosine"][0, 1] == pytest.approx(-1)
    assert table["pearson"][1, 0] == pytest.approx(-1)
    assert table["euclid"][0, 1] == pytest.approx(math.sqrt(8))
    assert table["mean_cosine"] == pytest.approx(-1 / 3)
    assert table["mean_euclid"] == pytest.approx((math.sqrt(8) + 2 * math.sqrt(2)) / 3)
    # Means 2/3 and 1: (1/3, 1/3, -2/3) . (-1, 0, 1) = -1 over sqrt(2/3) sqrt(2).
    other = {"a": row(1), "b": row(2, 3)}
    assert spectral.kinship(base, [models[0], other])["pearson"][0, 1] == pytest.approx(
        -1 / math.sqrt(4 / 3)
    )
