"""`breadcrumbs finetune`: families of a small real network, made in processes, and killed."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import breadcrumbs
from breadcrumbs.checkpoint import durable
from breadcrumbs.errors import BreadcrumbsError, OutputError, SplitError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.finetuning import finetuned, finetuning

pytest.importorskip("torch")
pytest.importorskip("transformers")

from bag_family import SETTINGS, tuner, weights, write_suite
from bag_foundation import FOUNDATION

OPTIONS = ["--epochs", "3", "--rate", "1e-2", "--batch", "16", "--freeze", "hidden.bias"]
OPTIONS += ["--precision", "float32"]

pytestmark = pytest.mark.usefixtures("one_thread")


def command(*words: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "breadcrumbs", "finetune", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def family(home):
    """What the command wrote and printed: two tasks, one seed, two processes."""
    ran = command(home / "two-three-bag-base.yaml", "-o", home / "family", *OPTIONS, "--json")
    out, told = ran.communicate(timeout=300)
    assert ran.returncode == 0, told
    return home / "family" / "seed-0", json.loads(out), told


def test_a_family_is_a_folder_for_each_task_and_a_suite_of_them(family, suite):
    folder, records, told = family
    assert sorted(path.name for path in folder.iterdir()) == ["suite.yaml", "three", "two"]
    made = suites.load(folder / "suite.yaml")
    assert made.seed == 0
    for task in made.tasks:
        assert Path(task.finetuned) == folder / task.name
        assert task.rows("test").digest == suite.task(task.name).rows("test").digest
    for record, name in zip(records, ["two", "three"], strict=True):
        assert record["made_of"]["task"] == name
        assert record["validation"]["after"] > record["validation"]["before"] + 0.1
        assert record == json.loads((folder / name / "finetune.json").read_text())
        assert f"{name}, seed 0: accuracy on validation rows" in told


def test_a_fine_tuning_is_a_folder_like_the_bases(family, home):
    folder, *_ = family
    files = ["config.json", "finetune.json", "model.safetensors"]
    assert sorted(path.name for path in (folder / "two").iterdir()) == files
    assert (folder / "two/config.json").read_bytes() == (home / "base/config.json").read_bytes()
    base, tuned = breadcrumbs.open(home / "base"), breadcrumbs.open(folder / "two")
    assert list(base) == list(tuned)
    changed = {name for name in base if base[name].tobytes() != tuned[name].tobytes()}
    assert changed == {"words.weight", "hidden.weight"}  # frozen, unused and int64 stay
    FOUNDATION.load(str(folder / "two"))


def test_processes_give_the_bits_of_a_single_one(family, whole):
    assert weights(family[0] / "three") == weights(whole)


def test_what_is_finished_is_kept_and_other_settings_are_refused(family, suite):
    path = family[0] / "two/model.safetensors"
    before, told = path.stat(), []
    again = tuner(suite, family[0].parent).tune("two", 0, told.append)
    assert again == family[1][0] and not told
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with pytest.raises(OutputError, match=r"two: was made with rate 0\.01, and now it is 0\.001"):
        finetuning.run(suite, family[0].parent, replace(SETTINGS, rate=1e-3))


def test_force_begins_again_and_a_failure_does_not_stop_the_others(home, family, tmp_path):
    output = tmp_path / "family"
    shutil.copytree(family[0].parent, output)
    text = (home / "bag.py").read_text()
    text = text.replace(
        'task.rows("train")', 'task.rows("test" if task.name == "two" else "train")'
    )
    (home / "peek.py").write_text(text)
    suite = suites.load(write_suite(home, "two", "three", foundation="peek.py"))
    settings = replace(SETTINGS, epochs=1)
    with pytest.raises(SplitError, match=r"^task 'two': test rows were asked for"):
        finetuning.run(suite, output, settings, force=True, workers=1)
    record = finetuned.found(output / "seed-0/three")
    assert record is not None and record["made_of"]["epochs"] == 1
    made = suites.load(output / "seed-0/suite.yaml")
    assert [task.finetuned for task in made.tasks] == [None, str(output / "seed-0/three")]


def test_force_removes_nothing_whose_rows_are_not_there(home, family, tmp_path):
    output = tmp_path / "family"
    shutil.copytree(family[0].parent, output)
    path = write_suite(home, "two", "three")
    other = path.with_name("gone.yaml")
    other.write_text(path.read_text().replace("two.csv", "gone.csv"))
    (home / "gone.csv").write_text("text,label,split\na cat,pets,test\n")
    with pytest.raises(BreadcrumbsError, match="'two'"):
        finetuning.run(suites.load(other), output, SETTINGS, force=True, workers=1)
    assert finetuned.found(output / "seed-0/two") == family[1][0]


def test_errors_of_a_users_file_do_not_stop_the_others(home, tmp_path):
    text = (home / "bag.py").read_text()
    change = 'rows = task.rows("train")\n        {"three": 1}[task.name]'
    (home / "odd.py").write_text(text.replace('rows = task.rows("train")', change))
    suite = suites.load(write_suite(home, "two", "three", foundation="odd.py"))
    with pytest.raises(KeyError, match="two"):
        finetuning.run(suite, tmp_path, replace(SETTINGS, epochs=1), workers=1)
    assert finetuned.found(tmp_path / "seed-0/three") is not None
    assert finetuned.found(tmp_path / "seed-0/two") is None
    made = suites.load(tmp_path / "seed-0/suite.yaml")
    assert [task.finetuned for task in made.tasks] == [None, str(tmp_path / "seed-0/three")]


def test_killed_at_any_moment_it_goes_on_to_the_same_bits(home, suite, whole, tmp_path):
    """With SIGKILL, of the first process alone: those that it began end by themselves."""
    for attempt, longest in enumerate((0.2, 0.1, 0.05, 0.0, 0.0)):  # it may be done before that
        output = tmp_path / str(attempt)
        words = [home / "two-three-bag-base.yaml", "-o", output, "--task", "three", *OPTIONS]
        ran = command(*words, "--save-every", "0", "--workers", "1")
        state = output / "seed-0/three.partial/state"
        while ran.poll() is None and not state.exists():
            time.sleep(0.001)
        time.sleep(random.random() * longest)
        ran.send_signal(signal.SIGKILL)
        ran.communicate(timeout=60)  # until nobody has its stderr open any more
        if not (output / "seed-0/three").exists():
            break
    else:
        raise AssertionError("this computer is too fast for this test")
    told = []
    tuner(suite, output).tune("three", 0, told.append)
    assert re.match("going on after step", told[1])
    assert weights(output / "seed-0/three") == weights(whole)
    assert not (output / "seed-0/three.partial").exists()


def test_stopped_while_the_result_is_synced_it_goes_on(suite, whole, tmp_path, monkeypatch):
    """That takes as long as the disk does, so a process is often killed in there."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(durable, "tree", interrupt)
        tuner(suite, tmp_path, every=0.0).tune("three", 0)
    told = []
    tuner(suite, tmp_path).tune("three", 0, told.append)
    assert re.match("going on after step", told[1])
    assert weights(tmp_path / "seed-0/three") == weights(whole)
    state = tmp_path / "seed-0/three/state"
    assert not state.exists()
    state.touch()  # killed right after the rename
    tuner(suite, tmp_path).tune("three", 0)
    assert not state.exists()
