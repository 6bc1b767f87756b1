"""Tables over seeds: numbers computed by hand, and what the command writes in each format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from result_rows import row

from breadcrumbs.cli.group import main
from breadcrumbs.errors import ResultsError
from breadcrumbs.evaluate.results import exports, seeds, tables
from breadcrumbs.evaluate.results.results import Results, Row

#: Right answers of ten, by seed: of the base, the fine-tuned models, and two merges.
RIGHT = {
    "movies": {"base": [2, 2, 2], "fine": [8, 10, 5], "ties": [6, 8, 3], "sum": [6, 6, 5]},
    "spam": {"base": [5, 5, 5], "fine": [10, 10, 10], "ties": [7, 8, 9], "sum": [9, 8, 7]},
}


def one(name: str, task: str, number: int, **more) -> Row:
    """Return a row of a model of the seed of that number."""
    right = RIGHT[task][name][number]
    fine = f"{number}{task[0].encode().hex()[-1]}af" * 16
    model = f"{number}{name[0].encode().hex()}e" * 16
    given = {
        "model": {"fine": fine, "base": "b" * 64}.get(name, model),
        "label": f"family/seed-{number}/{task if name == 'fine' else name}",
        "finetuned": fine,
        "seed": number,
        "right": [1] * right + [0] * (10 - right),
    }
    return row(task=task, **{**given, **more})


def family(*names: str, numbers=(0, 1, 2), **more) -> list[Row]:
    return [one(n, task, number, **more) for number in numbers for n in names for task in RIGHT]


ALL = ("base", "fine", "ties", "sum")


def test_means_and_errors_by_hand():
    table = seeds.over(tables.of(family(*ALL)))
    groups = {group.name: group for group in table.lines}
    assert list(groups) == ["base", "fine-tuned", "family/seed-*/ties", "family/seed-*/sum"]
    ties = groups["family/seed-*/ties"]
    assert ties.seeds == [0, 1, 2]
    # .6, .8, .3: squares about their mean of 17/30 sum to .126667, / 2 / 3.
    assert table.cell(ties, "movies") == pytest.approx((17 / 30, 0.145296631, 3))
    # Means over tasks, seed by seed: .65, .8, .6; squares .0216667.
    assert table.mean(ties) == pytest.approx((2.05 / 3, 0.060092521, 3))
    # (.6/.8 + .7)/2, (.8 + .8)/2, (.3/.5 + .9)/2 = .725, .8, .75, each by its own fine-tuned one.
    assert table.normalised(ties) == pytest.approx((2.275 / 3, 0.022047928, 3))
    assert table.normalised_cell(ties, "movies") == pytest.approx((2.15 / 3, 0.060092521, 3))
    assert table.normalised(groups["fine-tuned"]) == (1.0, 0.0, 3)
    assert table.mean(groups["base"]) == (0.35, 0.0, 3)  # exactly
    # .2 / .8, .2, .4 and .5: what the base is divided by differs between seeds.
    assert table.normalised(groups["base"]).value == pytest.approx((0.85 / 3 + 0.5) / 2)
    assert [group.name for group in table.best_first().lines[2:]] == [
        "family/seed-*/sum",
        "family/seed-*/ties",
    ]
    assert table.notes == ("means over 3 seeds, ± their standard error over seeds",)


def test_seeds_of_a_recipe_go_together_by_their_label():
    rows = [
        *family("base", "fine", numbers=[0], seed=None),
        *family("ties", seed=None, label="merged", numbers=[0]),
    ]
    for seed in (0, 1):  # of a random method, over one family
        for task in RIGHT:
            fine = one("fine", task, 0).finetuned
            rows.append(one("sum", task, seed, label="dare of 2", finetuned=fine))
    table = seeds.over(tables.of(rows))
    found = {group.name: table.mean(group) for group in table.lines}
    assert found["dare of 2"] == pytest.approx((0.725, 0.025, 2))
    assert found["merged"] == pytest.approx((0.65, None, 1))
    assert table.notes[1] == "of one seed, without an error: base, fine-tuned, merged"
    grid = exports.of_table(table)
    assert [line[3] for line in grid.body] == ["35.0", "90.0", "65.0", "72.5 ± 2.5"]


def test_a_seed_that_lacks_a_task_has_no_part_in_means():
    rows = [r for r in family(*ALL) if not ("2/ties" in r.label and r.task == "spam")]
    table = seeds.over(tables.of(rows))
    ties = next(group for group in table.lines if "ties" in group.name)
    assert table.cell(ties, "movies") == pytest.approx((17 / 30, 0.145296631, 3))
    assert table.cell(ties, "spam") == pytest.approx((0.75, 0.05, 2))
    assert table.mean(ties) == pytest.approx((0.725, 0.075, 2))
    assert any("ties: only 1 of 2 tasks" in note for note in table.notes)


def test_of_two_models_of_a_seed_the_last_counts_and_a_note_says_so():
    again = [one("ties", task, 0, model="f00d" * 16, right=[1] * 10) for task in RIGHT]
    table = seeds.over(tables.of([*family(*ALL), *again]))
    ties = next(group for group in table.lines if "ties" in group.name)
    assert table.cell(ties, "spam").value == pytest.approx((1 + 0.8 + 0.9) / 3)
    assert any("several models of seed 0, of which the last counts" in n for n in table.notes)


@pytest.mark.parametrize(
    ("label", "seed", "name"),
    [
        ("family/seed-1/merged", 1, "family/seed-*/merged"),
        ("family/seed-1/merged", 0, "family/seed-1/merged"),
        ("seed-10/merged-seed-1", 1, "seed-10/merged-seed-*"),
        ("reseed-1/merged", 1, "reseed-1/merged"),
        ("seed-1", None, "seed-1"),
    ],
)
def test_labels_are_shared_but_for_their_own_seed(label, seed, name):
    assert seeds.shared(tables.Line(label, label, "m", seed, {})) == name


@pytest.mark.parametrize(("some", "told"), [([0], "only seed 0"), ([], "no seed")])
def test_one_seed_is_none(some, told):
    rows = family(*ALL, numbers=some) or family(*ALL, numbers=[0], seed=None)
    with pytest.raises(ResultsError, match=f"text8, test rows: {told} is known, so there is no"):
        seeds.over(tables.of(rows))


@pytest.fixture
def file(tmp_path: Path) -> str:
    with Results(tmp_path / "r.sqlite") as results:
        results.add(*family(*ALL))
    return str(tmp_path / "r.sqlite")


def told(file: str, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["results", file, "--over", "seeds", *words])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def test_every_format_has_the_means_and_their_errors(file):
    table = told(file, "--best-first")
    lines = [" ".join(line.split()) for line in table.splitlines()]
    assert lines[-4].startswith("family/seed-*/sum 56.7 80.0") and "ties" in lines[-3]
    assert "75.8 ± 2.2" in table and "over 3 seeds" in table
    assert r"| family/seed-\*/ties | 56.7 | 80.0 | 68.3 ± 6.0 |" in told(
        file, "--format", "markdown"
    )
    assert r"68.3 $\pm$ 6.0" in told(file, "--format", "latex")
    wide = list(csv.DictReader(io.StringIO(told(file, "--format", "wide"))))
    assert wide[2]["name"] == "family/seed-*/ties" and wide[2]["seeds"] == "0 1 2"
    assert float(wide[2]["movies stderr"]) == pytest.approx(0.145296631)
    long = list(csv.DictReader(io.StringIO(told(file, "--format", "csv"))))
    assert [one["task"] for one in long] == ["movies", "spam", "mean"] * 4
    assert float(long[8]["value"]) == pytest.approx(2.05 / 3) and long[8]["seeds"] == "3"
    assert float(long[8]["normalised_stderr"]) == pytest.approx(0.022047928)
    plain = json.loads(told(file, "--json"))["models"][2]
    assert plain["seeds"] == [0, 1, 2] and plain["mean"]["stderr"] == pytest.approx(0.060092521)
    assert plain["tasks"]["movies"]["normalised"]["value"] == pytest.approx(2.15 / 3)


def test_what_does_not_go_with_it(file):
    assert "choose a --seed" in told(file, "--compare", "a", "b", code=2)
    assert "only seed 1 is known" in told(file, "--seed", "1", code=1)
    assert "family/seed-*/sum" not in told(file, "--model", "*ties")
