"""What a fine-tuning depends on: seeds, the order of batches, the rate, precision."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import breadcrumbs
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.finetuning import training
from breadcrumbs.evaluate.finetuning.training import Place, factor
from breadcrumbs.modules import precise

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from bag_family import SETTINGS, tuner, weights, write_suite  # noqa: E402
from bag_foundation import FOUNDATION, write_base  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_seeds_give_other_models_and_heads_do_not_change(suite, whole, tmp_path):
    mine = tuner(suite, tmp_path)
    records = [mine.tune("three", seed)["validation"]["before"] for seed in (0, 1)]
    assert weights(tmp_path / "seed-0/three") == weights(whole)
    assert weights(tmp_path / "seed-1/three") != weights(whole)
    assert records[0] == records[1]


def batches(suite, settings, start=Place(), seed=0):  # noqa: B008
    """Return (place, texts) of all batches of a training."""
    task = suite.task("three")
    module = FOUNDATION.load(suite.base)
    it = training.Training(
        FOUNDATION, module, list(module.parameters()), None, task, task.rows("train"), settings,
        seed,
    )  # fmt: skip
    return [(place, batch.inputs) for place, batch in it._batches(start)]


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(suite):
    settings = replace(SETTINGS, batch=2)  # windows of 32 rows: 200 rows are six and a quarter
    made = batches(suite, settings)
    epochs = [[inputs for place, inputs in made if place.epoch == epoch] for epoch in range(3)]
    keys = [
        [
            tuple(row[mask > 0].tolist())
            for b in epoch
            for row, mask in zip(b["words"], b["mask"], strict=True)
        ]
        for epoch in epochs
    ]
    assert sorted(keys[0]) == sorted(keys[1]) == sorted(keys[2])
    assert len(keys[0]) == 200
    together = [{frozenset(key[i : i + 2]) for i in range(0, 200, 2)} for key in keys]
    assert len(together[0] & together[1]) < 20 > len(together[1] & together[2])
    padding = [1 - float(b["mask"].mean()) for epoch in epochs for b in epoch]
    assert np.mean(padding) < 0.05  # at random it would be a quarter


def test_batches_go_on_from_any_place(suite):
    settings = replace(SETTINGS, batch=2)
    made = batches(suite, settings)
    for number in (0, 1, 15, 16, 99, 100, 101, 299):
        rest = batches(suite, settings, start=made[number][0])
        assert [place for place, _ in rest] == [place for place, _ in made[number + 1 :]]
        assert all(
            torch.equal(a["words"], b["words"])
            for (_, a), (_, b) in zip(rest, made[number + 1 :], strict=True)
        )


def test_rows_are_drawn_by_the_seed(suite):
    rows = suite.task("three").rows("train")
    few = training.drawn(rows, 20, 0, "three")
    assert len(few) == len(set(few.inputs)) == 20
    assert set(few.inputs) < set(rows.inputs)
    label = dict(zip(rows.inputs, rows.labels, strict=True))
    assert [label[text] for text in few.inputs] == few.labels.tolist()
    assert list(few.inputs) == list(training.drawn(rows, 20, 0, "three").inputs)
    assert list(few.inputs) != list(training.drawn(rows, 20, 1, "three").inputs)
    assert training.drawn(rows, 1000, 0, "three") is rows


def test_the_rate_rises_then_falls_to_nothing():
    linear = replace(SETTINGS, warmup=0.2, schedule="linear")
    shares = [0.1, 0.2, 0.6, 1.0]
    assert [factor(share, linear) for share in shares] == pytest.approx([0.5, 1, 0.5, 0])
    cosine = replace(linear, schedule="cosine")
    assert [factor(share, cosine) for share in shares] == pytest.approx([0.5, 1, 0.5, 0])
    assert factor(0.4, cosine) == pytest.approx(0.5 + 0.5 * 0.5**0.5)
    assert factor(0.0, replace(linear, warmup=0.0)) == 1


def test_a_narrow_base_is_trained_in_float32_and_rounded_once(home, tmp_path):
    """Steps of this rate are lost on bfloat16 weights, and add up in float32."""
    if not (home / "narrow").exists():
        write_base(home / "narrow", torch.bfloat16)
    suite = suites.load(write_suite(home, "three", base="narrow"))
    settings = replace(SETTINGS, rate=1e-4, epochs=20)
    tuner(suite, tmp_path, settings).tune("three", 0)
    base, tuned = breadcrumbs.open(suite.base), breadcrumbs.open(tmp_path / "seed-0/three")
    assert tuned["words.weight"].dtype == base["words.weight"].dtype == ml_dtypes.bfloat16
    large = np.abs(wide(base)) > 0.5  # where the next bfloat16 number is 2e-3 away, or more
    assert np.mean(wide(tuned)[large] != wide(base)[large]) > 0.1


def wide(checkpoint):
    return checkpoint["words.weight"].astype(np.float32)


def test_short_attention_is_the_same_attention():
    draw = torch.Generator().manual_seed(0)
    for tokens, kind in ((precise.SHORT, "Flash"), (precise.SHORT + 1, "")):
        query = torch.randn(2, 3, tokens, 8, generator=draw, requires_grad=True)
        plain = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        with precise.short_attention(torch.device("cpu")):
            mine = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        with precise.precise("float32", torch.device("cpu")):  # in which models are scored
            scored = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        names = [type(value.grad_fn).__name__ for value in (plain, mine, scored)]
        assert (names[0] == names[1]) == (kind == "") and names[0] == names[2], names
        torch.testing.assert_close(mine, plain)
