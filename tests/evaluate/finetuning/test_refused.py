"""What cannot be fine-tuned, and is refused with a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from breadcrumbs.errors import OutputError, SplitError, SuiteError, TrainingError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.task import Rows
from breadcrumbs.evaluate.finetuning import finetuned, finetuning

pytest.importorskip("torch")
pytest.importorskip("transformers")

from bag_family import SETTINGS, tuner, write_suite

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"freeze": ("hiden.*",)}, "--freeze 'hiden.*': matches no tensor .*Did you mean 'hidden"),
        ({"freeze": ("*",)}, r"--freeze \*: leaves nothing to train"),
    ],
)
def test_what_cannot_be_frozen(suite, tmp_path, change, told):
    with pytest.raises(SuiteError, match=told):
        tuner(suite, tmp_path, replace(SETTINGS, **change)).tune("two", 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"rate": float("nan")}, "rate nan"),
        ({"batch": 0}, "batch 0"),
        ({"warmup": 1.0}, "warmup 1.0"),
        ({"decay": -1.0}, "decay -1.0"),
        ({"schedule": "cosin"}, "schedule 'cosin'.*cosine"),
        ({"rows": 0}, "rows 0"),
    ],
)
def test_impossible_settings(change, told):
    with pytest.raises(SuiteError, match=told):
        replace(SETTINGS, **change)


def test_a_training_that_explodes_says_where_and_what_to_lower(suite, tmp_path):
    with pytest.raises(TrainingError, match=r"'two': at step \d+, the .*Lower the rate \(1e\+30\)"):
        tuner(suite, tmp_path, replace(SETTINGS, rate=1e30), every=0).tune("two", 0)
    assert not (tmp_path / "seed-0/two").exists()
    finetuning._check(suite, tmp_path, SETTINGS, [finetuning.Job("two", 0)], force=False)
    tuner(suite, tmp_path).tune("two", 0)  # with a lower rate, as the error says


def test_labels_that_the_head_has_no_class_for(home, tmp_path):
    text = (home / "bag.py").read_text()
    assert "len(task.labels), WIDTH" in text
    text = text.replace('head["classes"].T', 'head["classes"][:2].T')
    (home / "less.py").write_text(text)
    suite = suites.load(write_suite(home, "three", foundation="less.py"))
    with pytest.raises(SuiteError, match=r"'three': train row \d+ has label 2.*head has 2 classes"):
        tuner(suite, tmp_path).tune("three", 0)


def test_test_rows_cannot_be_reached(home, tmp_path):
    text = (home / "bag.py").read_text().replace('task.rows("train")', 'task.rows("test")')
    (home / "peek.py").write_text(text)
    suite = suites.load(write_suite(home, "three", foundation="peek.py"))
    with pytest.raises(SplitError, match="'three': test rows were asked for"):
        tuner(suite, tmp_path).tune("three", 0)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_task_without_rows(suite, tmp_path, split):
    task = suite.task("two")
    none = Rows((), np.empty(0, np.int64), "none")
    task = replace(task, read=lambda asked, read=task.read: none if asked == split else read(asked))
    with pytest.raises(SplitError, match=f"'two': there are no {split} rows"):
        tuner(replace(suite, tasks=(task,)), tmp_path).tune("two", 0)


@pytest.mark.parametrize("name", ["suite.yaml", "a/b", "..", "x.partial", "x.safetensors", ""])
def test_names_that_no_folder_can_have(name):
    with pytest.raises(SuiteError, match="cannot be the name of a folder"):
        finetuned.folder(Path("out"), name, 0)


def test_a_folder_of_something_else_is_never_touched(suite, tmp_path):
    (tmp_path / "seed-0/two").mkdir(parents=True)
    (tmp_path / "seed-0/two/finetune.json").write_text("{}")
    for force in (False, True):
        with pytest.raises(
            OutputError, match="exists, and `breadcrumbs finetune` did not write it"
        ):
            finetuning.run(suite, tmp_path, SETTINGS, tasks=["two"], force=force)


def test_an_output_that_cannot_be_written_is_refused_at_once(suite, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="seed-0: cannot be made: Not a directory"):
        finetuning.run(suite, tmp_path / "file", SETTINGS)
