"""Tables of results and comparisons: numbers computed by hand, and what the command prints."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from result_rows import row

from breadcrumbs.cli.group import main
from breadcrumbs.errors import ResultsError
from breadcrumbs.evaluate.results import exports, standard_errors, tables
from breadcrumbs.evaluate.results.comparison import compare
from breadcrumbs.evaluate.results.results import Results, Row

FINE = {"movies": "a" * 64, "spam": "c" * 64}
BITS = {
    "movies": {
        "base": "1010000000",
        "fine": "1111111100",
        "merged": "1111110000",
        "other": "0000011111",
    },
    "spam": {
        "base": "1100000000",
        "fine": "1111100000",
        "merged": "0001111000",
        "other": "0001111000",
    },
}
MODELS = {"base": "b", "merged": "1234", "other": "1299"}


def made(name: str, task: str, **more) -> Row:
    """Return a row of one of the models above; ``fine`` is the one of the task."""
    right = [int(bit) for bit in BITS[task][name]]
    hash_ = FINE[task] if name == "fine" else MODELS[name] * (64 // len(MODELS[name]))
    label = f"models/{task}" if name == "fine" else name
    hash_ = more.pop("model", hash_)
    return row(hash_, task, right, **{"label": label, "finetuned": FINE[task], **more})


def family(*models: str, **more) -> list[Row]:
    return [made(model, task, **more) for model in models for task in BITS]


ALL = ("base", "fine", "merged", "other")


# --- numbers, by hand -----------------------------------------------------------------------------


def test_means_and_ratios_by_hand():
    table = tables.of(family(*ALL))
    merged = table.line("merged")
    assert [line.name for line in table.lines] == ["base", "fine-tuned", "merged", "other"]
    # (.6 + .4) / 2; each has variance .6 * .4 / 10 = .024: sqrt(2 * .024) / 2.
    assert table.mean(merged) == pytest.approx((0.5, 0.10954451150103323), abs=1e-12)
    # (.6 / .8 + .4 / .5) / 2, which the ratio of the means, .5 / .65 = .769, is not.
    # movies: 6 rows where both are right, 2 where the fine-tuned one is, 2 of neither:
    # (6 (1 - .75)^2 + 2 .75^2) / .8^2 / 100 = .0234375. spam: 2, 3 and 2 alone, 3 of neither:
    # (2 (1 - .8)^2 + 3 .8^2 + 2) / .5^2 / 100 = .16. sqrt(.0234375 + .16) / 2.
    assert table.normalised(merged) == pytest.approx((0.775, 0.21414802), abs=1e-8)
    assert merged.rows["movies"].normalised_estimate == pytest.approx((0.75, 0.0234375**0.5))
    assert merged.rows["spam"].normalised_estimate == pytest.approx((0.8, 0.4))
    assert table.mean(table.line("fine-tuned")) == pytest.approx((0.65, (0.016 + 0.025) ** 0.5 / 2))
    assert table.normalised(table.line("fine-tuned")) == (1.0, 0.0)
    assert table.normalised(table.line("base")).value == pytest.approx((0.25 + 0.4) / 2)


def test_a_ratio_without_single_answers_takes_the_models_as_independent():
    # (.024 + .75^2 * .016) / .8^2 = .0515625: no covariance to take off.
    expected = pytest.approx((0.75, 0.0515625**0.5))
    fine, merged = made("fine", "movies"), made("merged", "movies")
    for rows in (
        [made("fine", "movies", hits=None), merged],
        [fine, made("merged", "movies", hits=None)],
        [made("fine", "movies", metric="f1"), made("merged", "movies", metric="f1")],
    ):
        assert tables.of(rows).line("merged").rows["movies"].normalised_estimate == expected


def test_what_lm_eval_counts_is_paired_as_accuracy_is():
    rows = [made("fine", "movies", metric="acc_norm"), made("merged", "movies", metric="acc_norm")]
    found = tables.of(rows).line("merged").rows["movies"].normalised_estimate
    assert found == pytest.approx((0.75, 0.0234375**0.5))


def test_a_difference_by_hand():
    found = compare(tables.of(family(*ALL)), "merged", "other")
    # Only one right on 5 rows, only the other on 4: ((5 + 4) / 10 - .1^2) / 10 = .089.
    assert found.raw["movies"] == pytest.approx((0.1, 0.089**0.5), abs=1e-12)
    assert found.raw["spam"] == (0.0, 0.0)  # the same answers
    assert found.mean == pytest.approx((0.05, 0.089**0.5 / 2), abs=1e-12)
    # merged - other - .125 fine, over .8: 5 of .875, 1 of -.125, 2 of -1.125, 2 of -1.
    # (5 .875^2 + .125^2 + 2 1.125^2 + 2) / .8^2 / 100 = .130859375.
    assert found.normalised["movies"] == pytest.approx((0.125, 0.130859375**0.5), abs=1e-12)
    assert found.normalised["spam"] == (0.0, 0.0)
    assert found.normalised_mean == pytest.approx((0.0625, 0.130859375**0.5 / 2))
    assert not found.mean.clear and found.notes == ()
    assert exports.verdict(found).startswith("no clear difference of the means: 5.0 ± 14.9 points")
    unpaired = compare(
        tables.of([*family("base", "fine", "merged"), *family("other", hits=None)]),
        "merged",
        "other",
    )
    assert unpaired.raw["movies"] == pytest.approx((0.1, (0.024 + 0.025) ** 0.5))
    assert unpaired.raw["spam"] == pytest.approx((0.0, (0.024 + 0.024) ** 0.5))
    assert "not paired, as means of the same answers are: 'movies', 'spam'" in unpaired.notes


def test_the_sign_and_the_verdict():
    right = {"good": [1] * 95 + [0] * 5, "bad": [1] * 80 + [0] * 20}
    rows = [row(name, "t", bits, label=name) for name, bits in (("bad", right["bad"]),)]
    rows.append(row("d", "t", right["good"], label="good"))
    table = tables.of(rows)
    for names in (("good", "bad"), ("bad", "good")):
        found = compare(table, *names)
        # 15 rows of 100, all in favour of one: sqrt((.15 - .0225) / 100) = .0357.
        assert abs(found.mean.value) == pytest.approx(0.15)
        assert found.mean.stderr == pytest.approx(0.1275**0.5 / 10) and found.mean.clear
        assert exports.verdict(found) == (
            "good is better than bad by 15.0 ± 3.6 points, more than two standard errors"
        )
    assert compare(table, "bad", "good").mean.value < 0


@given(st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=40))
def test_errors_are_those_of_each_rows_part(answers):
    """Against the definition: the spread of what each row of the split adds to the estimate."""
    a, b, f = np.array(answers, int).T
    rows = {
        name: row(digit, "t", bits.tolist(), finetuned="f" * 64)
        for name, digit, bits in (("a", "a", a), ("b", "b", b), ("f", "f", f))
    }
    one, two, _ = tables.refer(rows.values(), rows.values())
    n = len(answers)
    assert standard_errors.difference(one, two) == pytest.approx(
        (a.mean() - b.mean(), np.std(a - b) / n**0.5), abs=1e-12
    )
    if not f.any():
        assert one.normalised is None and standard_errors.ratio_difference(one, two) is None
        return
    ratio = a.mean() / f.mean()
    parts = (a - ratio * f) / f.mean()
    assert one.normalised_estimate == pytest.approx(
        (ratio, (parts**2).mean() ** 0.5 / n**0.5), abs=1e-9
    )
    ratio = (a.mean() - b.mean()) / f.mean()
    parts = (a - b - ratio * f) / f.mean()
    assert standard_errors.ratio_difference(one, two) == pytest.approx(
        (ratio, (parts**2).mean() ** 0.5 / n**0.5), abs=1e-9
    )


def test_each_of_two_models_is_divided_by_its_own_fine_tuned_model():
    second = row("e", "movies", [1] * 10, finetuned="e" * 64, label="models/movies", seed=1)
    other = made("other", "movies", finetuned="e" * 64, seed=1)
    table = tables.of([made("fine", "movies"), second, made("merged", "movies"), other])
    assert [line.name for line in table.lines] == [
        "fine-tuned",
        "fine-tuned seed 1",
        "merged",
        "other",
    ]
    found = compare(table, "merged", "other")
    # .6 / .8 - .5 / 1. The second divisor is always right, so it adds nothing; rows of the parts
    # (merged - .75 fine) / .8 - (other - .5): 5 of .3125 + .5, 1 of .3125 - .5, 2 of
    # -.9375 - .5, 2 of -.5.
    variance = (5 * 0.8125**2 + 0.1875**2 + 2 * 1.4375**2 + 2 * 0.5**2) / 100
    assert found.normalised["movies"] == pytest.approx((0.25, variance**0.5))


def test_nothing_is_divided_by_nothing():
    fine = row("f", "t", [0] * 10, metric="matthews", finetuned="f" * 64, value=0.0)
    table = tables.of([fine, row("a", "t", metric="matthews", finetuned="f" * 64)])
    assert table.lines[1].rows["t"].normalised is None and table.normalised(table.lines[1]) is None
    assert table.normalised(table.lines[0]) == (1.0, 0.0)


# --- which rows are in a table --------------------------------------------------------------------


def test_a_missing_task_leaves_no_mean_and_says_so():
    rows = [*family("base", "fine", "merged"), made("other", "movies")]
    table = tables.of(rows)
    other = table.line("other")
    assert table.mean(other) is None and table.normalised(other) is None
    assert table.notes == ("other: only 1 of 2 tasks, so there is no mean",)
    assert exports.of_table(table).body[-1] == ("other", "50.0", "", "", "")
    table = tables.of([one for one in rows if one.model != FINE["spam"]])
    assert table.mean(table.line("merged")) and not table.normalised(table.line("merged"))
    assert "no row of the fine-tuned model of 'spam': nothing to divide by" in table.notes


def test_rows_that_were_measured_otherwise_are_not_mixed_in():
    old = family("base", "merged", precision="bfloat16")
    table = tables.of([*old, made("other", "movies", rows="00"), *family("base", "fine", "other")])
    assert [line.name for line in table.lines] == ["base", "fine-tuned", "other"]
    assert table.notes == (
        "movies: left out 3 rows with another precision or rows than the latest row has",
        "spam: left out 2 rows with another precision than the latest row has",
    )
    with pytest.raises(ResultsError, match="one suite and one split"):
        tables.of([*family("base"), *family("base", split="validation")])


def test_lines_of_the_same_label_are_told_apart():
    again = [made("merged", task, model="5678" * 16) for task in BITS]
    seeds = family("other", seed=0) + [made("other", task, seed=1) for task in BITS]
    table = tables.of([*family("fine", "merged"), *again, *seeds])
    assert [line.name for line in table.lines] == [
        "fine-tuned",
        "merged 12341234",
        "merged 56785678",
        "other seed 0",
        "other seed 1",
    ]
    assert table.line("5678").model == "5678" * 16
    assert table.line("other seed 1").seed == 1
    assert table.line("models/spam").model == FINE["spam"]  # on its own task alone
    with pytest.raises(ResultsError, match="'merged' may be 'merged 12341234 12341234', 'merged 5"):
        table.line("merged")
    with pytest.raises(ResultsError, match=r"no model 'finetuned' .*Did you mean 'fine-tuned'\?"):
        table.line("finetuned")
    assert [line.name for line in table.only(["5678", "other*"]).lines] == [
        "merged 56785678",
        "other seed 0",
        "other seed 1",
    ]


def test_a_fine_tuned_model_scored_on_other_tasks_has_a_line_of_its_own():
    foreign = row(FINE["movies"], "spam", [1] * 10, label="models/movies", finetuned=FINE["spam"])
    table = tables.of([*family("fine", "merged"), foreign])
    assert [line.name for line in table.lines] == ["fine-tuned", "models/movies", "merged"]
    grid = exports.of_table(table)
    # It is the best on spam; on movies, its own task, it does not compete.
    assert (1, 2) in grid.best and (1, 1) not in grid.best and (0, 1) not in grid.best


def test_the_best_is_marked_where_it_is_alone():
    grid = exports.of_table(tables.of(family(*ALL)))
    assert grid.header == ("model", "movies", "spam", "mean", "normalised")
    assert grid.body == (
        ("base", "20.0", "20.0", "20.0 ± 8.9", "32.5 ± 13.4"),
        ("fine-tuned", "80.0", "50.0", "65.0 ± 10.1", "100.0 ± 0.0"),
        ("merged", "60.0", "40.0", "50.0 ± 11.0", "77.5 ± 21.4"),
        ("other", "50.0", "40.0", "45.0 ± 11.1", "71.2 ± 23.9"),
    )
    assert grid.best == {(2, 1), (2, 3), (2, 4)}  # on spam two are 40.0
    assert exports.of_table(tables.of(family("merged"))).best == frozenset()
    order = [line.name for line in tables.of(family("other", "base", "merged")).lines]
    assert order == ["base", "other", "merged"]
    table = tables.of(family("other", "fine", "base", "merged")).best_first()
    assert [line.name for line in table.lines] == ["base", "fine-tuned", "merged", "other"]


# --- the command ------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with results of two suites."""
    monkeypatch.chdir(tmp_path)
    with Results("results.sqlite") as results:
        results.add(*family("base", "merged", suite="older", split="validation"))
        results.add(*family(*ALL))
    return tmp_path


def invoke(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["results", *args])
    unexpected = result.exception if not isinstance(result.exception, SystemExit) else None
    assert unexpected is None, f"{args}: {unexpected!r}"
    assert result.exit_code == code, result.output
    return result


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip(" ─")]


def test_the_table_of_the_latest_suite(here):
    found = lines(invoke().stdout)
    assert found[0] == "text8, test rows, in percent"
    assert found[1] == "model movies spam mean normalised"
    assert found[4] == "merged 60.0 40.0 50.0 ± 11.0 77.5 ± 21.4"
    assert len(found) == 6
    older = lines(invoke("--split", "validation").stdout)
    assert older[0] == "older, validation rows, in percent"
    assert [line.split()[0] for line in older[2:]] == ["base", "merged"]
    some = lines(invoke("--task", "mov*", "--model", "1234", "--model", "base").stdout)
    assert some[1:] == [
        "model movies mean normalised",
        "base 20.0 20.0 ± 12.6 25.0 ± 15.3",
        "merged 60.0 60.0 ± 15.5 75.0 ± 15.3",
    ]


def test_the_command_prints_what_the_library_returns(here):
    table = tables.of(family(*ALL))
    assert json.loads(invoke("--json").stdout) == json.loads(json.dumps(table.to_mapping()))
    assert invoke("--format", "json").stdout == invoke("--json").stdout
    assert json.loads(invoke("--json").stdout)["models"][2]["tasks"]["movies"]["correct"] == 6
    assert invoke("--format", "markdown").stdout == (
        "| model | movies | spam | mean | normalised |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| base | 20.0 | 20.0 | 20.0 ± 8.9 | 32.5 ± 13.4 |\n"
        "| fine-tuned | 80.0 | 50.0 | 65.0 ± 10.1 | 100.0 ± 0.0 |\n"
        "| merged | **60.0** | 40.0 | **50.0 ± 11.0** | **77.5 ± 21.4** |\n"
        "| other | 50.0 | 40.0 | 45.0 ± 11.1 | 71.2 ± 23.9 |\n"
    )
    long = list(csv.DictReader(io.StringIO(invoke("--format", "csv").stdout)))
    assert len(long) == 8 and {line["label"] for line in long} == {
        "base",
        "merged",
        "other",
        "models/movies",
        "models/spam",
    }
    mine = next(x for x in long if x["label"] == "merged" and x["task"] == "movies")
    assert float(mine["normalised"]) == pytest.approx(0.75) and mine["seed"] == ""
    assert float(mine["stderr"]) == 0.024**0.5 and mine["items"] == "10"
    wide = list(csv.DictReader(io.StringIO(invoke("--format", "wide").stdout)))
    assert wide[2]["name"] == "merged" and float(wide[2]["normalised"]) == pytest.approx(0.775)
    assert list(wide[0])[:5] == ["name", "model", "seed", "movies", "movies stderr"]


def test_names_are_escaped(here):
    with Results("results.sqlite") as results:
        results.add(made("merged", "movies", suite="odd", label="a|b_c* 5% & \\x{}#$~^\n[i]"))
    lines = invoke("--format", "markdown").stdout.splitlines()
    assert lines[2].startswith(r"| a\|b\_c\* 5% & \\x{}#$~^ \[i\] | 60.0 |")
    line = invoke("--format", "latex").stdout.splitlines()[4]
    name = r"a|b\_c* 5\% \& \textbackslash{}x\{\}\#\$\textasciitilde{}\textasciicircum{} [i]"
    # The fine-tuned model was scored in another suite, on the same rows.
    assert line == name + r" & 60.0 & 60.0 $\pm$ 15.5 & 75.0 $\pm$ 15.3 \\"
    assert r"\x{}#$~^\n[i]" in invoke().stdout  # on the screen no line break, no markup


def test_latex(here):
    assert invoke("--format", "latex", "--model", "merged", "--model", "other").stdout == (
        "\\begin{tabular}{lrrrr}\n\\toprule\n"
        "model & movies & spam & mean & normalised \\\\\n\\midrule\n"
        "merged & \\textbf{60.0} & 40.0 & \\textbf{50.0 $\\pm$ 11.0} &"
        " \\textbf{77.5 $\\pm$ 21.4} \\\\\n"
        "other & 50.0 & 40.0 & 45.0 $\\pm$ 11.1 & 71.2 $\\pm$ 23.9 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_comparisons(here):
    found = lines(invoke("--compare", "merged", "1299").stdout)
    assert found[0] == "text8, test rows: merged minus other"
    assert found[2] == "movies 60.0 50.0 +10.0 ± 29.8 +12.5 ± 36.2 no"
    assert found[4] == "mean 50.0 45.0 +5.0 ± 14.9 +6.2 ± 18.1 no"
    assert found[5].startswith("no clear difference of the means: 5.0 ± 14.9 points, within")
    plain = json.loads(invoke("--compare", "merged", "other", "--json").stdout)
    assert plain["tasks"]["movies"]["stderr"] == pytest.approx(0.089**0.5)
    assert plain["mean"]["beyond_two_stderr"] is False and plain["second"] == "other"
    rows = list(
        csv.reader(io.StringIO(invoke("--compare", "b" * 9, "other", "--format", "csv").stdout))
    )
    assert [line[0] for line in rows] == ["task", "movies", "spam", "mean"]
    assert "\\midrule\nmean &" in invoke("--compare", "base", "other", "--format", "latex").stdout
    assert invoke("--compare", "base", "other", "--format", "wide", code=2)


def test_files_are_written_once(here):
    for name, kind in [("t.md", "markdown"), ("t.tex", "latex"), ("t.CSV", "csv"), ("t", "table")]:
        assert invoke("-o", name).stdout == ""
        assert Path(name).read_text(encoding="utf-8") == invoke("--format", kind).stdout
    before = Path("results.sqlite").read_bytes()
    error = invoke("-o", "results.sqlite", code=1).stderr
    assert error == "breadcrumbs: results.sqlite: exists. Give --force to replace it.\n"
    assert Path("results.sqlite").read_bytes() == before
    assert invoke("-o", "none/t.md", code=1).stderr.startswith("breadcrumbs: none/t.md: cannot be")
    invoke("-o", "t.md", "--force", "--task", "spam")
    assert "movies" not in Path("t.md").read_text()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nothing.sqlite"], "nothing.sqlite: cannot be opened: No such file or directory."),
        (["reslts.sqlite"], "Did you mean 'results.sqlite'?"),
        (["."], "cannot be opened: Is a directory."),
        (
            ["--task", "movie"],
            "no test rows of task 'movie' in suite 'text8'. Did you mean 'movies'?",
        ),
        (["--task", "x*"], "There are 'movies', 'spam'."),
        (["--suite", "text9"], "no rows of suite 'text9'. Did you mean 'text8'?"),
        (
            ["--suite", "older"],
            "no test rows. There are 8 test rows of text8, 4 validation rows of",
        ),
        (["--split", "train"], "no train rows."),
        (["--model", "merge"], "no model 'merge' among the results. Did you mean 'merged'?"),
        (["--compare", "merged", "12"], "no model '12'"),
        (["--seed", "3"], "no rows with seed (3,). There are seed None."),
        (["--precision", "float16"], "There are precision float32."),
    ],
)
def test_errors_say_what_there_is(here, args, says):
    error = invoke(*args, code=1).stderr
    assert says in error and error.count("\n") == 1 and error.startswith("breadcrumbs: ")


def test_files_that_hold_no_rows(here):
    with Results("empty.sqlite") as results:
        assert results.select() == []
    assert "empty.sqlite: holds no rows yet" in invoke("empty.sqlite", code=1).stderr
    Path("notes.txt").write_text("x" * 200)
    assert "notes.txt: is not a file of results" in invoke("notes.txt", code=1).stderr
    assert sorted(os.listdir()) == ["empty.sqlite", "notes.txt", "results.sqlite"]


def test_a_narrow_terminal_gets_all_columns_in_several_tables(here):
    pty = pytest.importorskip("pty")
    tasks = [f"task number {i}" for i in range(12)]
    with Results("results.sqlite") as results:
        results.add(*(row("a", task, suite="wide", label="merged") for task in tasks))
    leader, follower = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-m", "breadcrumbs", "results"],
        stdout=follower,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "60", "TERM": "xterm"},
        check=True,
    )
    os.close(follower)
    text = re.sub(r"\x1b\[[0-9;]*m|\r", "", os.read(leader, 1 << 16).decode())
    os.close(leader)
    assert not ran.stderr and max(map(len, text.splitlines())) <= 60
    for task in [*tasks, "mean", "normalised"]:
        assert text.count(task + " ") + text.count(task + "\n") == 1, task
    assert text.count("merged") == len([line for line in text.splitlines() if "model" in line]) > 2


def test_tables_in_a_notebook():
    pytest.importorskip("pandas")
    table = tables.of(family(*ALL))
    assert repr(table).endswith(f"{len(table.lines)} models on 2 tasks>")
    frame = table.to_frame().set_index("model")
    assert list(frame.columns) == ["movies", "spam", "mean", "normalised"]
    assert frame.loc["merged", "movies"] == 0.6 and frame.loc["merged", "mean"] == 0.5
    assert "<td>merged</td><td>0.6</td>" in table._repr_html_()
    compared = compare(table, "merged", "base")
    assert list(compared.to_frame()["difference"]) == pytest.approx([0.4, 0.2])
    assert repr(compared) == "<Comparison of merged with base: +0.3000 on average of 2 tasks>"
    assert "<td>0.4</td>" in compared._repr_html_()
