"""How long the step is against the task vectors: in the report, on screen, in JSON and the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from breadcrumbs.cli import group
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.merging.report import Report
from breadcrumbs.plan.recipe import Model, Recipe, override


def reported(
    base: dict[str, np.ndarray],
    models: list[dict[str, np.ndarray]],
    method: str = "task_arithmetic",
    weights: list[float] | None = None,
    **more: Any,
) -> Report:
    given = weights or [1.0] * len(models)
    named = tuple(Model(f"m{i}", weight=w) for i, w in enumerate(given))
    recipe = {key: more.pop(key) for key in ("overrides", "exclude") if key in more}
    with opening.opened(Recipe("base", named, method, more, **recipe), [base, *models]) as plan:
        return merging_files.to_arrays(plan, threads=1)[1]


BASE = {"w": np.zeros(9), "v": np.zeros(4)}
ONE = {"w": np.ones(9), "v": np.zeros(4)}  # its task vector is 3 long
TWO = {"w": np.zeros(9), "v": np.full(4, 2.0)}  # 4


@pytest.mark.parametrize(
    ("how", "step"),
    [
        ({"alpha": 1.0}, 5 / 3.5),
        ({"alpha": 1.0, "weights": [1.0, 0.0]}, 1.0),
        ({"alpha": 0.5, "weights": [2.0, 2.0]}, 5 / 3.5),
        ({"alpha": 1.0, "exclude": ("v",), "weights": [1.0, 1.0]}, 1.0),
        ({"alpha": "auto"}, (3.5 / 5) ** 0.25),
        ({"method": "average"}, 2.5 / 3.5),
        ({"alpha": 1.0, "overrides": (override({"tensors": "v", "weight": 0}, "here"),)}, 1.0),
        ({"alpha": "auto", "exclude": ("v",)}, 0.5**1.25),
        ({"alpha": 0.0}, 0.0),
    ],
    ids=str,
)
def test_it_is_the_norm_of_the_update_by_the_mean_task_vector(how: dict, step: float) -> None:
    report = reported(BASE, [ONE, TWO], **how)
    assert report.step == pytest.approx(step, rel=3e-3)
    assert report.step_exact
    assert report.to_mapping()["step"] == report.step


def test_without_task_vectors_there_is_no_such_number() -> None:
    for models in ([], [dict(BASE)]):
        report = reported(BASE, models)
        assert report.step is None and report.length == ""


@pytest.mark.parametrize(("table", "said"), [(2.7, False), (4.5, True)])
def test_tables_count_among_the_task_vectors_of_all_models(table: float, said: bool) -> None:
    """An adapter leaves them as they are, which is no reason to count the others' twice."""
    base = {"embed_tokens.weight": np.zeros((1, 4)), "w": np.zeros(4)}
    whole = {"embed_tokens.weight": np.full((1, 4), table / 2), "w": np.full(4, 1.9)}
    adapter = {**base, "w": np.full(4, 0.2)}
    report = reported(base, [whole, adapter], alpha=0.72)
    assert report.step is not None and 1.36 < report.step < 1.5
    assert any(line.startswith("the step is") for line in report.warnings) == said


@pytest.mark.parametrize(
    ("alpha", "said"), [(1.0, False), (1.5, False), (1.6, True), (-1.6, True), (3.0, True)]
)
def test_a_long_step_is_warned_of_with_a_shorter_one(alpha: float, said: bool) -> None:
    report = reported(BASE, [ONE], alpha=alpha)
    found = [line for line in report.warnings if line.startswith("the step is")]
    assert bool(found) == said
    if said:
        sign = "-" if alpha < 0 else ""
        assert f"{abs(alpha):.3g} times the mean task vector" in found[0]
        assert found[0].endswith(f"give a smaller alpha, such as {sign}1")


@pytest.mark.parametrize(("name", "said"), [("lm_head.weight", True), ("w", False)])
def test_where_embeddings_have_most_a_step_is_long_sooner(name: str, said: bool) -> None:
    """And only there: 3 of the length is of the first tensor, 1 of the second, which is none."""
    base = {name: np.zeros((3, 3)), "v": np.zeros(1)}
    model = {name: np.ones((3, 3)), "v": np.ones(1)}
    for alpha, long in ((1.0, False), (1.35, False), (1.4, said), (1.5, said), (1.6, True)):
        assert bool(reported(base, [model], alpha=alpha).warnings) == long, alpha
    assert not reported(base, [model | {"v": np.full(1, 3.1)}], alpha=1.5).warnings


def test_methods_that_keep_tasks_apart_may_go_further() -> None:
    rng = np.random.default_rng(0)
    base = {"w": np.zeros((40, 40))}
    models = [{"w": np.zeros((40, 40))} for _ in range(4)]
    for i, model in enumerate(models):  # blocks of their own
        model["w"][10 * i : 10 * i + 10, 10 * i : 10 * i + 10] = rng.standard_normal((10, 10))
    apart = reported(base, models, "tsv_m")
    assert apart.step is not None and apart.step == pytest.approx(2, rel=0.1)
    assert not apart.warnings
    assert reported(base, models, alpha=1.0).warnings


@pytest.mark.parametrize(("name", "length"), [("lm_head.weight", 1.5), ("w", 10**0.5)])
def test_of_masks_that_are_drawn_alpha_auto_goes_far_and_says_so(name: str, length: float) -> None:
    rng = np.random.default_rng(0)
    base = {name: np.zeros((200, 100))}
    model = {name: rng.standard_normal((200, 100))}
    report = reported(base, [model], "dare_linear")
    assert report.step == pytest.approx(length, rel=0.02)
    (line,) = report.warnings
    assert "noise of the drawn masks" in line
    assert not reported(base, [model], "dare_linear", p=0.2).warnings


def files(folder: Path, base: dict, models: list[dict]) -> list[str]:
    paths = []
    for number, state in enumerate((base, *models)):
        paths.append(str(folder / f"{number}.safetensors"))
        save_file(state, paths[-1])
    return paths


@pytest.mark.parametrize(("size", "about"), [(3_000, ""), (400_000, "about ")])
def test_screen_json_and_card_say_it(tmp_path: Path, size: int, about: str) -> None:
    rng = np.random.default_rng(0)
    base = {"w": np.zeros(size, np.float32)}
    model = {"w": rng.standard_normal(size).astype(np.float32)}
    paths = files(tmp_path, base, [model])
    asked = ["merge", *paths, "-m", "task_arithmetic", "-p", "alpha=2"]
    done = CliRunner().invoke(group.main, [*asked, "-o", str(tmp_path / "out")])
    said = " ".join(done.output.split())
    assert done.exit_code == 0, done.output
    assert f", {about}2" in said and "times the mean task vector" in said
    assert "warning: the step is" in said
    card = (tmp_path / "out" / "README.md").read_text()
    assert "times the mean task vector." in card and (about in card)
    done = CliRunner().invoke(group.main, [*asked, "-o", str(tmp_path / "again"), "--json"])
    found = json.loads(done.stdout)
    assert found["step"] == pytest.approx(2, rel=0.02)
    assert found["step_exact"] == (not about)
