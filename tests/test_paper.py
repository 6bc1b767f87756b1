"""The programs of the paper's figures, on a tiny family: they measure, draw, keep to the rules."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import letters
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from experiments import build
from experiments.paper import __main__ as program
from experiments.paper import choosing, encodings, pages, table1, tall
from experiments.paper.family import Family
from experiments.suites.tasks import SUITES

TASKS = ("first", "second", "third", "fourth")
PAPER = (0.3, 0.5, 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of one seed."""
    folder = tmp_path_factory.mktemp("letters")
    (folder / "seed-0").mkdir()
    letters.family(folder / "seed-0", TASKS, ("train", "train", "validation", "test"))
    return folder


@pytest.fixture(scope="module")
def family(folder: Path):
    with Family(folder, 0, 1) as family:
        yield family


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Try little of each method, so that all is quick; keep the user's cache as it is."""
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(folder / "cache"))
    tried = {"task_arithmetic": [{"alpha": a} for a in PAPER], "breadcrumbs": [{"alpha": 0.5}]}
    tried["fisher"] = [{}]  # without statistics: left out
    monkeypatch.setattr(table1, "TRIED", tried)
    monkeypatch.setattr(choosing, "ALPHAS", {"task_arithmetic": PAPER, "breadcrumbs": PAPER})
    monkeypatch.setattr(tall, "SIZES", (2, 4))
    kinds = {"breadcrumbs": ("exact", "ternary"), "whole": ("exact", "tsv:rank=2")}
    monkeypatch.setattr(encodings, "ENCODINGS", kinds)
    half = {"transform": "breadcrumbs", "beta": 0.5}
    monkeypatch.setitem(encodings.CUTS, "breadcrumbs", half)  # .9 of a row of 8 leaves nothing
    monkeypatch.setattr(encodings, "ALONE", (1.0, 2.0))
    monkeypatch.setattr(encodings, "ALPHAS", {"breadcrumbs": (0.5, 1.0), "whole": (0.3, 0.5)})


@pytest.mark.parametrize("name", pages.NAMES)
def test_every_figure_is_measured_and_drawn(
    name: str, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = importlib.import_module(f"experiments.paper.{name}")
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    assert pages.filled(name) == "Not measured yet."
    measured = figure.measure(family)
    program.keep(pages.RESULTS / f"{name}.json", "letters", 0, measured, 60)
    found = json.loads((pages.RESULTS / f"{name}.json").read_text())
    made = pages.filled(name)
    assert made.count("\n|") >= 2 and "1 min a seed" in made
    tmp_path = tmp_path / "figures"
    tmp_path.mkdir()
    figure.draw(found, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    shutil.rmtree(tmp_path)
    figure.draw(found, tmp_path)
    assert first == {path.name: path.read_bytes() for path in tmp_path.glob("*")}
    assert bool(first) == (not name.startswith("table"))


def test_methods_without_their_statistics_are_left_out(family: Family) -> None:
    assert set(table1.measure(family)["methods"]) == {
        "task_arithmetic",
        "breadcrumbs",
        table1.AUTHORS,
    }


def test_more_methods_stand_beside_those_measured(
    family: Family, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table1.json"
    command = ["paper", "table1", "--family", str(folder), "--workers", "1", "--out", str(path)]
    for method in ("task_arithmetic", "breadcrumbs"):
        monkeypatch.setattr("sys.argv", [*command, "--methods", method])
        program.main()
    found = json.loads(path.read_text())["seeds"]["0"]
    assert list(found["methods"]) == ["task_arithmetic", "breadcrumbs"]
    whole = table1.measure(family)
    assert found["methods"]["breadcrumbs"] == whole["methods"]["breadcrumbs"]
    assert found["base"] == whole["base"]
    monkeypatch.setattr("sys.argv", ["paper", "fig8", *command[2:], "--methods", "ties"])
    with pytest.raises(SystemExit):
        program.main()


def test_a_figure_may_score_fewer_rows(folder: Path) -> None:
    with Family(folder, 0, 1, rows=7) as few, Family(folder, 0, 1) as whole:
        for task in whole.suite.tasks:
            mine = few.suite.task(task.name)
            for split in ("validation", "test"):
                assert len(mine.rows(split)) == 7 < len(task.rows(split))
                assert set(mine.rows(split).inputs) <= set(task.rows(split).inputs)
            assert mine.rows("train").digest == task.rows("train").digest
            assert mine.finetuned == task.finetuned


def test_a_suite_is_built_step_by_step(tmp_path: Path) -> None:
    assert set(build.FIGURES) == set(SUITES)
    for suite, names in build.FIGURES.items():
        steps = build.family(suite, tmp_path, [0, 1], "table1" in names)
        more = {"text8": ["statistics"], "lm6": ["adapters"]}
        assert list(steps) == ["data", "fine-tunings", *more.get(suite, [])]
        assert ("--epochs" in steps["fine-tunings"]) == (suite in ("wordnet200", "lm6"))
        assert steps["fine-tunings"].count("--seed") == 2
    few = build.figures(tmp_path, [0], 50, ["fig2", "fig3"], 1)
    assert [command[-2:] for command in few.values()] == [["--rows", "25"], ["--rows", "50"]]
    whole = build.figures(tmp_path, [0], None, ["fig2", "fig3"], 1)
    assert whole["fig2"][-2:] == ["--rows", "100"] and "--rows" not in whole["fig3"]


def test_figures_are_built_side_by_side(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(build.__file__).parents[1])
    monkeypatch.setattr(build, "family", lambda *args: {})  # which is there:
    shutil.copytree(folder, tmp_path / "family")
    build.main(["text8", "--out", str(tmp_path), "--rows", "9", "--figures", "fig8", "fig7"])
    page = (tmp_path / "README.md").read_text()
    for name in ("fig7", "fig8"):
        assert f"(figures/{name}.svg)" in page and (tmp_path / "figures" / f"{name}.svg").exists()
    assert page.count("9 rows a task") == 2 and "\n|" in page
    with pytest.raises(SystemExit):
        build.main(["text8", "--out", str(tmp_path), "--figures", "fig4"])
    shutil.rmtree(tmp_path / "family")
    with pytest.raises(SystemExit, match="fig8 ended with"):
        build.main(["text8", "--out", str(tmp_path), "--figures", "fig8"])


def test_choices_are_made_on_validation_rows(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    score = family.pool.score

    def watched(jobs: Any, split: Any) -> Any:
        asked.append(split)
        return score(jobs, split)

    monkeypatch.setattr(family.pool, "score", watched)
    setting, value = choosing.chosen(family, "task_arithmetic", [["first", "second"]])
    assert set(asked) == {"validation"} and setting["alpha"] in PAPER
    recipes = [family.recipe("task_arithmetic", ["first", "second"], alpha=a) for a in PAPER]
    every = family.scores(recipes, "validation", [["first", "second"]] * len(PAPER))
    assert value == max(one.mean for one in every)


def test_entries_that_changed(family: Family) -> None:
    assert tall.weights(family, list(TASKS)) == (64, 0)


def test_a_whole_task_file_scores_as_its_model(family: Family, tmp_path: Path) -> None:
    found = encodings._of(family, tmp_path, "whole", "exact")
    assert found["error"] == 0 and found["alone"] == 1
    lossy = encodings._of(family, tmp_path / "..", "whole", "tvq:bits=1")
    assert lossy["error"] > 0.2 and lossy["alone"] != 1
    recipes = [family.recipe("task_arithmetic", alpha=found["alpha"])]
    (merged,) = family.scores(recipes, "test")
    assert found["merged"] == round(merged.mean, 5)


def test_a_mean_of_seeds_and_its_error() -> None:
    assert choosing.summary([1.0, 2.0, 3.0]) == (2.0, pytest.approx((1 / 3) ** 0.5))
    assert choosing.summary([1.5]) == (1.5, 0.0)
