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
from experiments.paper import choosing, contenders, encodings, frontier, pages, standings, tall
from experiments.paper.family import Family
from experiments.suites.tasks import SUITES

from breadcrumbs.methods.registry import METHODS

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
    tried = {name: contenders.CONTENDERS[name] for name in ("task_arithmetic", "iso_c", "average")}
    tried["fisher"] = contenders.CONTENDERS["fisher"]  # without statistics: left out
    monkeypatch.setattr(frontier, "CONTENDERS", tried)
    monkeypatch.setattr(standings, "CONTENDERS", tried)
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
    program.keep(pages.path(name), "letters", 0, measured, 60)
    found = json.loads(pages.path(name).read_text())
    made = pages.filled(name)
    assert made.count("\n|") >= 2 and "1 min a seed" in made
    tmp_path = tmp_path / "figures"
    tmp_path.mkdir()
    figure.draw(found, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    shutil.rmtree(tmp_path)
    figure.draw(found, tmp_path)
    assert first == {path.name: path.read_bytes() for path in tmp_path.glob("*")}
    assert bool(first) == (name not in ("frontier", "table2"))


def test_the_table_goes_on_where_it_was(
    family: Family, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "frontier.json"
    command = ["paper", "frontier", "--family", str(folder), "--workers", "1", "--out", str(path)]
    more: tuple[list[str], ...] = (["--methods", "iso_c"], ["--parts", "untuned"], [])
    for flags in more:
        monkeypatch.setattr("sys.argv", [*command, *flags])
        program.main()
    found = json.loads(path.read_text())["seeds"]["0"]["4"]
    whole = frontier.measure(family)["4"]
    for name, cell in whole["methods"].items():
        assert {**found["methods"][name], "cost": 0} == {**cell, "cost": 0}
    assert found["base"] == whole["base"] and "fisher" not in whole["methods"]
    monkeypatch.setattr(frontier, "_MEASURED", {})  # nothing is left to measure
    monkeypatch.setattr("sys.argv", command)
    program.main()
    monkeypatch.setattr("sys.argv", ["paper", "fig8", *command[2:], "--methods", "ties"])
    with pytest.raises(SystemExit):
        program.main()


def test_two_runs_of_the_table_keep_what_the_other_found(tmp_path: Path) -> None:
    path = tmp_path / "frontier.json"
    for cell in ({"tuned": [0.9, 0.8]}, {"cost": 1.0}):  # each knows of its own alone
        program.keep(path, "letters", 0, {"4": {"methods": {"ties": cell}}}, 1, name="frontier")
    (column,) = json.loads(path.read_text())["seeds"]["0"].values()
    assert column["methods"]["ties"] == {"tuned": [0.9, 0.8], "cost": 1.0}


def test_the_three_of_a_method_are_what_they_are_called(family: Family) -> None:
    cell = frontier.measure(family)["4"]["methods"]["task_arithmetic"]
    asked = {"untuned": 0.3, "auto": "auto", "tuned": cell["chosen"]["alpha"]}
    for part, alpha in asked.items():
        (score,) = family.scores([family.recipe("task_arithmetic", alpha=alpha)], "test")
        assert cell[part] == [round(score.mean, 5), round(score.raw, 5)]
    alphas = [one["alpha"] for one in contenders.CONTENDERS["task_arithmetic"].tried]
    recipes = [family.recipe("task_arithmetic", alpha=alpha) for alpha in alphas]
    tried = [round(one.mean, 5) for one in family.scores(recipes, "validation")]
    assert [value for _, value in cell["tried"]] == tried
    assert cell["validation"] == max(tried) and cell["cost"] > 0


def test_every_contender_merges_what_it_says(family: Family) -> None:
    models = contenders.CONTENDERS.values()
    for one in models:
        for values in (one.untuned, one.automatic, *one.choices):
            if values is not None:
                family.recipe(one.method, **values)
    merging = {one.method for one in models}
    others = {"tall_mask", "nearswap", "slerp", "nuslerp", "arcee_fusion"}  # of one model or two
    assert {*METHODS} <= merging | others
    comes = [contenders.CONTENDERS[name].comes for name in ("breadcrumbs", "ties", "tsv_m")]
    assert comes == ["auto", "untuned", "untuned"]
    assert contenders.CONTENDERS["breadcrumbs"].untuned["alpha"] == 1.0
    assert contenders.CONTENDERS["wudi (ridge)"].automatic is None


def test_standings_rank_by_what_is_lost_and_say_what_is_missing() -> None:
    def column(**scores: float) -> dict[str, Any]:
        cells = {name: {"untuned": [score, score]} for name, score in scores.items()}
        return {"methods": cells, "base": [0.5, 0.4], "fine-tuned": 0.8}

    both = [
        {"suite": "text8", "seeds": {"0": {"8": column(iso_c=0.9, task_arithmetic=0.8)}}},
        {"suite": "demo", "seeds": {"0": {"6": column(iso_c=0.8, average=0.9)}}},
    ]
    rows = standings.untuned(both).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        "| base",
        "| Iso-C",
        "| `average`",
        "| Task Arithmetic",
    ]
    assert rows[3].endswith("| 90.0 | 80.0 | 5.0 | 10.0 |")
    both[0]["seeds"]["1"] = {"8": column(iso_c=0.7)}  # alone there: as good as the best of its seed
    assert standings.untuned(both).splitlines()[3].endswith("| 80.0 ± 10.0 | 80.0 | 5.0 | 10.0 |")
    tuned = {"methods": {"iso_c": {"untuned": [0.7, 0.7], "tuned": [0.75, 0.7]}}}
    both[0]["seeds"]["1"] = {"8": {**column(), **tuned}}
    assert "| Iso-C |  / +5.0 |" in standings.gains(both)  # of the seed that has both
    lacking = standings.missing(both)
    assert "* text20, 14 tasks: all." in lacking
    assert (
        "text8, 8 tasks: untuned of 1 of 3 methods: `average`" in lacking
        and "* lm6: all." in lacking
    )


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
    for suite in build.FIGURES:
        steps = build.family(suite, tmp_path, [0, 1], suite in build.STATISTICS)
        more = {"text8": ["statistics"], "lm6": ["adapters"]}
        assert list(steps) == ["data", "fine-tunings", *more.get(suite, [])]
        assert ("--epochs" in steps["fine-tunings"]) == (suite in ("wordnet200", "lm6"))
        assert steps["fine-tunings"].count("--seed") == 2
    few = build.figures(tmp_path, [0], 50, ["fig2", "fig3"], 1)
    assert [command[-2:] for command in few.values()] == [["--rows", "25"], ["--rows", "50"]]
    (quick,) = build.figures(tmp_path, [0], 50, ["frontier"], 1).values()
    (slow,) = build.figures(tmp_path, [0], None, ["frontier"], 1).values()
    assert "wudi (ridge)" in quick and "wudi (adam)" not in quick and "--methods" not in slow
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
