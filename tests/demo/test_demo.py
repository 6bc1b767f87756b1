"""What `breadcrumbs demo` measures is what merging by hand gives; what it says to try next runs."""

import dataclasses
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs import checkpoint, demo
from breadcrumbs.cli.group import main
from breadcrumbs.cli.views import demo as view
from breadcrumbs.demo import model

FEW = 40


@pytest.fixture(scope="module")
def few():
    """The family with few images of each task, in the demo and in the measure alike."""
    whole = model.load_family()

    def short(split):
        return model.HeldOut(split.images[:FEW], split.labels[:FEW])

    tasks = {
        name: dataclasses.replace(task, validation=short(task.validation), test=short(task.test))
        for name, task in whole.tasks.items()
    }
    family = dataclasses.replace(whole, tasks=tasks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "load_family", lambda: family)
        patch.setattr(demo, "load_family", lambda: family)
        model._kept.clear()
        yield family
    model._kept.clear()


@pytest.fixture(scope="module")
def result(few):
    return demo.run()


def test_the_rows_are_what_merging_by_hand_gives(few, result):
    base, models = str(few.base), [str(path) for path in few.finetuned.values()]
    rows = {row.name: row for row in result.rows}
    assert list(rows) == ["base", "fine-tuned", *demo.ONE_MODEL, "compress"]
    merged = breadcrumbs.merge(base, models, method="tsv_m")
    for task, data in few.tasks.items():
        right = model.logits(merged, data.head, data.test.images).argmax(1) == data.test.labels
        assert rows["tsv_m"].accuracy[task] == np.mean(right)
    assert rows["tsv_m"].mean == pytest.approx(np.mean(list(rows["tsv_m"].accuracy.values())))
    assert rows["fine-tuned"].normalised == 1
    assert 0.2 < rows["breadcrumbs"].alpha < 2  # chosen, and told
    halves = breadcrumbs.merge(base, models, method="task_arithmetic", alpha=0.6)
    means = [model.accuracy(halves, task, "validation") for task in few.tasks]
    assert result.curves["task_arithmetic"][0.6] == pytest.approx(np.mean(means))


def test_what_is_packed_is_one_small_file(few, result):
    packed, tuned = result.rows[-1], result.rows[1]
    assert packed.size < 430_000
    assert tuned.size == sum(path.stat().st_size for path in few.finetuned.values())
    assert packed.normalised > max(row.normalised for row in result.rows[2:-1])


def test_numbers_in_words_are_those_of_the_result(result, capsys):
    view.show(result)
    said = " ".join(capsys.readouterr().out.split())
    gain = result.rows[1].mean - result.rows[0].mean
    assert f"{100 * gain:.1f} points better than the base" in said
    assert f"{result.rows[-1].normalised:.1%} of the accuracy" in said
    other = dataclasses.replace(result, rows=result.rows[::-1])  # nothing is written in
    assert view._found(other) != view._found(result)
    assert json.dumps(result.to_mapping())


def test_what_to_try_next_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in view.NEXT:
        ran = CliRunner().invoke(main, line.split()[1:])
        assert ran.exit_code == 0, ran.output
    with checkpoint.open("merged") as merged:
        assert len(dict(merged)) == 43
    again = CliRunner().invoke(main, view.NEXT[0].split()[1:])
    assert isinstance(again.exception, SystemExit) and "exists" in again.output


def test_every_task_is_explained_in_a_line():
    assert list(demo.ASKED) == list(model.load_family().tasks)
    assert all(len(asked) < 68 and not re.search(r"\n", asked) for asked in demo.ASKED.values())


def test_another_stem_is_not_taken_for_the_last(few):
    with checkpoint.open(few.base) as file:
        base = dict(file)
    first = model.accuracy(base, "digits")
    broken = {n: np.zeros_like(v) if n.startswith("embed") else v for n, v in base.items()}
    assert model.accuracy(broken, "digits") < 0.5 < first == model.accuracy(base, "digits")
