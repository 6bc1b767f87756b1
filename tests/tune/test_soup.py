"""Greedy soups: the reference's choice, in memory and in files, and a command that scores."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from references import classical
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.cli.inspection import inspect
from breadcrumbs.errors import BreadcrumbsError, MismatchError, OutputError, ScoreError
from breadcrumbs.plan import recipe

Arrays = dict[str, np.ndarray]


def family(seed: int, models: int = 6) -> tuple[Arrays, list[Arrays]]:
    """Return a base and models around a target that is 1 everywhere, some further off."""
    rng = np.random.default_rng(seed)
    base = {"w": np.zeros((4, 5)), "steps": np.arange(3)}
    tuned = []
    for number in range(models):
        step = rng.standard_normal((4, 5)) * (1 + number % 3) / 2
        tuned.append({"w": 1 + step, "steps": base["steps"]})
    return base, tuned


def score(state: Any) -> float:
    """Return how near a model is to the target; higher is better."""
    return -float(np.abs(np.asarray(state["w"], np.float64) - 1).mean())


def names(order: list[int]) -> list[str]:
    return [f"model {i + 1}" for i in order]


@pytest.mark.parametrize("seed", range(6))
def test_it_chooses_what_the_reference_chooses(seed):
    base, models = family(seed)
    scores = [score(model) for model in models]
    expected, chosen = classical.greedy_soup(models, scores, score)
    found = breadcrumbs.greedy_soup(base, models, score)
    assert found.chosen == names(chosen)
    assert found.merged is not None
    np.testing.assert_allclose(found.merged["w"], expected["w"], rtol=0, atol=1e-15)
    assert (
        found.score
        == score(found.merged)
        == max([c.mean or c.score for c in found.candidates if c.kept])
    )
    assert [c.score for c in found.candidates] == sorted(scores, reverse=True)
    known = breadcrumbs.greedy_soup(base, models, score, scores)
    assert known.candidates == found.candidates


def test_the_seeds_above_keep_some_and_leave_some_out():
    kept = [len(breadcrumbs.greedy_soup(*family(seed), score).chosen) for seed in range(6)]
    assert min(kept) < 6 and max(kept) > 1, kept


def test_an_equal_score_joins_and_equal_models_stay_in_order():
    base, models = family(7, 3)
    calls: list[Any] = []

    def flat(state: Any) -> float:
        calls.append(state)
        return 5.0

    found = breadcrumbs.greedy_soup(base, models, flat)
    assert found.chosen == names([0, 1, 2]) and len(calls) == 3 + 2
    found = breadcrumbs.greedy_soup(base, models, lambda state: 4.0, [5, 6, 5])
    assert found.chosen == ["model 2"] and found.score == 6
    assert [c.name for c in found.candidates] == ["model 2", "model 1", "model 3"]
    assert [c.mean for c in found.candidates] == [None, 4.0, 4.0]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return the folders of a base and five models."""
    base, models = family(1, 5)
    folders = []
    for number, arrays in enumerate([base, *models]):
        folders.append(tmp_path / ("base" if not number else f"ft{number}"))
        folders[-1].mkdir()
        save_file(arrays, folders[-1] / "model.safetensors")
        (folders[-1] / "config.json").write_text("{}")
    return folders


def score_of(path: Any) -> float:
    return score(breadcrumbs.open(path))


def test_in_files_there_is_one_candidate_at_a_time(files, tmp_path):
    out = tmp_path / "deep" / "out"
    out.parent.mkdir()
    seen: list[Path] = []

    def scored(candidate: Path) -> float:
        assert (candidate / "config.json").exists()
        assert not any(path.exists() for path in seen)
        assert candidate.parent.parent == out.parent
        seen.append(candidate)
        return score_of(candidate)

    found = breadcrumbs.greedy_soup(files[0], files[1:], scored, output=out)
    assert len(seen) == 5 + 4 and [path.name for path in out.parent.iterdir()] == ["out"]
    base, models = family(1, 5)
    expected = breadcrumbs.greedy_soup(base, models, score)
    order = [int(name[-1]) for name in expected.chosen]
    assert found.chosen == [f"ft{number}" for number in order]
    assert breadcrumbs.open(out)["w"].tobytes() == expected.merged["w"].tobytes()
    # The result is an average like any other, and says how it came about.
    made = recipe.load(out / "breadcrumbs.yaml")
    assert made.method == "average" and [m.name for m in made.models] == found.chosen
    told = inspect(str(out))["merged_from"]["choice"]
    assert told == found.to_mapping()
    card = (out / "README.md").read_text()
    assert f"| ft{order[0]} | {found.candidates[0].score!r} |  | yes |" in card
    assert card.index("How the models were chosen") < card.index("## Recipe")
    result = CliRunner().invoke(main, ["inspect", str(out)])
    assert "greedy soup: ft" in result.output
    single = tmp_path / "deep" / "one.safetensors"
    again = breadcrumbs.greedy_soup(files[0], files[1:], score_of, output=single)
    assert again.candidates == found.candidates and single.is_file()


def test_errors_come_before_anything_is_scored(files, tmp_path):
    def never(candidate: Any) -> float:
        raise AssertionError("scored")

    out, there = tmp_path / "out", tmp_path / "there"
    there.mkdir()
    base, models = family(1, 2)
    with pytest.raises(MismatchError, match="shape"):
        breadcrumbs.greedy_soup(base, [models[0], {"w": np.zeros(3)}], never)
    with pytest.raises(OutputError, match="exists"):
        breadcrumbs.greedy_soup(files[0], files[1:3], never, output=there)
    with pytest.raises(BreadcrumbsError, match="one of the models"):
        breadcrumbs.greedy_soup(files[0], files[1:3], never, output=files[1])
    with pytest.raises(BreadcrumbsError, match="found 1 for 2 models"):
        breadcrumbs.greedy_soup(files[0], files[1:3], never, [1.0], output=out)
    with pytest.raises(BreadcrumbsError, match="no models"):
        breadcrumbs.greedy_soup(files[0], [], never, output=out)
    with pytest.raises(BreadcrumbsError, match="a list is expected"):
        breadcrumbs.greedy_soup(files[0], files[1], never, output=out)
    for value in (None, "much", float("nan")):
        with pytest.raises(ScoreError, match=r"of ft1 is .*, which is not a number"):
            breadcrumbs.greedy_soup(files[0], files[1:3], lambda path, v=value: v, output=out)
    assert not out.exists() and not list(tmp_path.glob(".breadcrumbs-soup-*"))


SCORER = """
import sys
import numpy as np
from safetensors.numpy import load_file
state = load_file(sys.argv[1] + "/model.safetensors")
print("looking at", sys.argv[1])
print("no number", file=sys.stderr)
print(-float(np.abs(state["w"] - 1).mean()))
"""


def test_a_command_scores(files, tmp_path):
    (tmp_path / "my score.py").write_text(SCORER)
    out, script = str(tmp_path / "out"), tmp_path / "my score.py"
    given = ["soup", *map(str, files), "-o", out, "--score", f"{sys.executable} '{script}' {{}}"]
    result = CliRunner().invoke(main, [*given, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    expected = breadcrumbs.greedy_soup(files[0], files[1:], score_of)
    assert told["candidates"] == expected.to_mapping()["candidates"]
    assert told["score"] == expected.score and told["merge"]["method"] == "average"
    assert expected.merged is not None
    assert breadcrumbs.open(out)["w"].tobytes() == expected.merged["w"].tobytes()
    known = [f"--known-score={score_of(path)}" for path in files[1:]]
    result = CliRunner().invoke(main, [*given, *known, "--force"])
    assert result.exit_code == 0 and "models scores" in result.output
    result = CliRunner().invoke(main, [*given, *known])
    assert result.exit_code == 1 and "exists" in result.output


BAD = {
    "no place for the path": ("true", r"has no \{\}"),
    "an open quote": ("true '{}", "No closing quotation"),
    "no such program": ("no-such-program-here {}", "cannot be run"),
    "a failure": (f"{sys.executable} -c 'raise SystemExit(3)' {{}}", "ended with code 3"),
    "no number": (f"{sys.executable} -c 'print(1); print(\"much\")' {{}}", "is 'much'"),
    "nothing": (f"{sys.executable} -c '' {{}}", "the last line of .* is ''"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_command_that_gives_no_score_is_an_error_in_one_line(case, files, tmp_path):
    text, message = BAD[case]
    out = tmp_path / "out"
    given = ["soup", *map(str, files[:3]), "-o", str(out), "--score", text]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 1 and not out.exists()
    (line,) = [line for line in result.output.splitlines() if line.startswith("breadcrumbs: ")]
    assert re.search(message, line), line
