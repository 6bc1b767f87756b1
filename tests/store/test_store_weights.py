"""Weights of one merge of a store: by age, and by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from families import assert_same
from stores import filled, merged

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.store.history import Entry
from breadcrumbs.store.weighting import weighted


def test_ages_make_a_moving_average(tmp_path: Path) -> None:
    store, (base, *models) = filled(tmp_path, "float64", 4, method="task_arithmetic")
    with store:
        store.set("t2", 0.0)  # absent
        found = merged(store, alpha=1, weights=["ema:0.25"])
        loaded = [dict(breadcrumbs.load(models[number])) for number in (0, 2, 3)]
        for name, values in found.items():
            if values.dtype != np.float64:
                continue
            mean, whole = loaded[0][name], 1.0
            for one in loaded[1:]:
                whole = 0.25 * whole + 1
                mean = mean + (one[name] - mean) / whole
            assert np.allclose(values, mean, rtol=0, atol=1e-14)
        means = merged(store, alpha=1, weights=["ema:1"]), merged(store, alpha=1 / 3)
        for name in means[0]:
            assert np.allclose(means[0][name], means[1][name], rtol=0, atol=1e-14)
        last = breadcrumbs.merge(base, [models[3]], method="task_arithmetic", alpha=1)
        assert_same(merged(store, alpha=1, weights=["ema:0"]), last)


def test_the_recipe_has_the_weights(tmp_path: Path) -> None:
    store, (base, *models) = filled(tmp_path, models=3, method="task_arithmetic")
    with store:
        before = merged(store, alpha=0.5)
    out = tmp_path / "out"
    arguments = ["store", "merge", str(tmp_path / "store"), "-o", str(out), "-p", "alpha=0.5"]
    more = ["--weights", "t1=-2", "--weights", "ema:0.5"]
    done = CliRunner().invoke(main, [*arguments, *more])
    assert done.exit_code == 0 and "'t1' -2, 't2' 0.2857, 't3' 0.5714" in done.stderr
    recipe = yaml.safe_load((out / "breadcrumbs.yaml").read_text())
    weights = [model["weight"] for model in recipe["models"]]
    assert weights == [-2, 2 / 7, 4 / 7]
    again = breadcrumbs.merge(base, models, weights=weights,
                              method="task_arithmetic", alpha=0.5)  # fmt: skip
    assert_same(dict(breadcrumbs.load(out)), again)
    with store.open(tmp_path / "store") as store:  # nothing of it stays
        assert [entry.weight for entry in store.entries()] == [1, 1, 1]
        assert_same(merged(store, alpha=0.5), before)
        assert_same(merged(store, alpha=0.5, weights={"t2": 2 / 7, "t3": 4 / 7, "t1": -2}), again)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["ema:2"], "beta is from 0 to 1"),
        (["ema:x"], "'x' is not a number"),
        (["ema:0.5", "ema:0.4"], "2 times"),
        (["half"], "says nothing"),
        (["=1"], "says nothing"),
        (["t9=1"], "no task 't9'"),
        (["t1=nan"], "not a finite number"),
        ({"t9": 1.0}, "no task 't9'"),
    ],
)
def test_what_is_no_weight(given, told: str) -> None:
    entries = [Entry("t1", "0" * 64, 1.0)]
    with pytest.raises(BreadcrumbsError, match=told):
        weighted(entries, given)


def test_names_may_look_like_anything() -> None:
    entries = [Entry(name, "0" * 64, 1.0) for name in ("ema:1", "a=b")]
    assert [one.weight for one in weighted(entries, ["ema:1=3", "a=b=4"])] == [3, 4]
    assert weighted([], ["ema:0.5"]) == []
