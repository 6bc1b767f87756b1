"""Scores of models: by processes, by recipes in memory, and found again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import letters
import numpy as np
import pytest
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs.checkpoint.hashing import model_hash
from breadcrumbs.cli.group import main
from breadcrumbs.errors import MismatchError, ScoreError, SplitError, SuiteError
from breadcrumbs.evaluate import suite
from breadcrumbs.evaluate.results import tables
from breadcrumbs.evaluate.results.results import Key, Results
from breadcrumbs.evaluate.scoring import scores
from breadcrumbs.evaluate.scoring.keys import Keys
from breadcrumbs.evaluate.scoring.pool import Pool
from breadcrumbs.evaluate.scoring.scoring import Scorer
from breadcrumbs.evaluate.scoring.settings import Settings
from breadcrumbs.modules import devices
from breadcrumbs.plan.recipe import Model, Recipe

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, two fine-tunings and suite.yaml with a task for each."""
    return letters.family(tmp_path_factory.mktemp("family"), ("first", "second"))


def settings(folder: Path, **more) -> Settings:
    return Settings(
        **{"results": str(folder / "r.sqlite"), "workers": 1, "cache": folder / "cache"} | more
    )


def recipe(family: Path, alpha: float) -> Recipe:
    models = tuple(Model(str(family / f"{n}.safetensors"), name=n) for n in ("first", "second"))
    return Recipe(str(family / "base.safetensors"), models, "task_arithmetic", {"alpha": alpha})


def expected(family: Path, state: np.ndarray, task: str, split: str) -> float:
    """The accuracy, by loops over rows, from the same file and splits."""
    base = breadcrumbs.open(family / "base.safetensors")["weight"].astype(float)
    mine = suite.load(family / "suite.yaml").task(task)

    def embedded(text: str, weight: np.ndarray) -> np.ndarray:
        return weight.astype(float) @ np.array([text.count(c) for c in "abcdefgh"], float)

    train, asked = mine.rows("train"), mine.rows(split)
    means = []
    for k in range(3):
        own = [t for t, label in zip(train.inputs, train.labels, strict=True) if label == k]
        means.append(np.mean([embedded(text, base) for text in own], axis=0))
    right = 0
    for text, label in zip(asked.inputs, asked.labels, strict=True):
        distances = [np.linalg.norm(embedded(text, state) - mean) for mean in means]
        right += int(np.argmin(distances)) == label
    return right / len(asked)


def weight(path: Path) -> np.ndarray:
    return breadcrumbs.open(path)["weight"]


def test_scores_are_those_of_one_row_at_a_time(family: Path, tmp_path: Path) -> None:
    made = suite.load(family / "suite.yaml")
    merged = recipe(family, 0.5)
    rows = scores.of(made, [merged], settings(tmp_path, precision="float32"), split="validation")
    base, tuned = weight(family / "base.safetensors"), {}
    for name in ("first", "second"):
        tuned[name] = weight(family / f"{name}.safetensors")
    half = base.astype(float) + 0.5 * sum(one.astype(float) - base for one in tuned.values())
    found = {(row.label, row.task): row.value for row in rows}
    label = rows[-1].label
    for task in ("first", "second"):
        assert found["base", task] == expected(family, base, task, "validation")
        assert found["fine-tuned", task] == expected(family, tuned[task], task, "validation")
        wanted = expected(family, half.astype(np.float32), task, "validation")
        assert found[label, task] == wanted
        (row,) = [row for row in rows if row.label == label and row.task == task]
        assert row.normalised == pytest.approx(wanted / found["fine-tuned", task])
        assert row.items == 45 and row.stderr == pytest.approx((wanted * (1 - wanted) / 45) ** 0.5)


def test_a_merged_file_is_found_by_the_hash_of_its_recipe_in_memory(
    family: Path, tmp_path: Path
) -> None:
    made = suite.load(family / "suite.yaml")
    rows = scores.of(made, [recipe(family, 0.3)], settings(tmp_path), alone=True)
    models = [family / "first.safetensors", family / "second.safetensors"]
    out = tmp_path / "merged.safetensors"
    breadcrumbs.merge(
        family / "base.safetensors", models, method="task_arithmetic", alpha=0.3, output=out
    )
    assert {row.model for row in rows} == {model_hash(out)}
    with Pool(made, settings(tmp_path)) as pool:
        ((_, again),) = list(pool.score([(str(out), ["first", "second"])], "test"))
        assert pool._executor is None, "all rows were there, and a process was started"
    assert [row.value for row in again] == [row.value for row in rows]
    assert {row.label for row in again} == {str(out)}


@pytest.mark.parametrize("results", ["r.sqlite", None])
def test_a_model_that_is_written_again_is_scored_again(
    family: Path, tmp_path: Path, results: str | None
) -> None:
    made, out = suite.load(family / "suite.yaml"), tmp_path / "merged.safetensors"
    files = [family / "base.safetensors", family / "first.safetensors"]
    kept = results and str(tmp_path / results)
    with Pool(made, settings(tmp_path, results=kept, workers=1)) as pool:
        for number in (0, 1, 0, 1):
            shutil.copy(files[number], tmp_path / "new")
            os.replace(tmp_path / "new", out)
            ((_, (row,)),) = pool.score([(str(out), ["first"])], "test")
            assert row.model == model_hash(files[number])
            assert row.value == expected(family, weight(out), "first", "test")


def test_a_suite_that_is_tuned_on_has_no_test_rows_in_any_process(
    family: Path, tmp_path: Path
) -> None:
    made = suite.load(family / "suite.yaml").tuning()
    with pytest.raises(SplitError, match="test rows were asked for"):
        scores.of(
            made, [recipe(family, 0.3)], settings(tmp_path, workers=2), split="test", alone=True
        )
    assert scores.of(made, [], settings(tmp_path, workers=2), split="validation")


def test_broken_heads_and_results_are_made_again(family: Path, tmp_path: Path) -> None:
    made = suite.load(family / "suite.yaml")
    first = scores.of(made, [], settings(tmp_path, workers=2))
    heads = sorted((tmp_path / "cache" / "heads").iterdir())
    assert len(heads) == 2
    whole = [path.read_bytes() for path in heads]
    for path, data in zip(heads, whole, strict=True):
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (tmp_path / "r.sqlite").write_bytes(b"no database at all" * 100)
    again = scores.of(made, [], settings(tmp_path, workers=2))
    assert [row.value for row in again] == [row.value for row in first]
    assert [path.read_bytes() for path in heads] == whole
    assert Results(tmp_path / "r.sqlite").select(task="first")


def test_a_model_that_does_not_fit_is_named(family: Path, tmp_path: Path) -> None:
    letters.save({"weights": np.zeros((8, 8), np.float32)}, tmp_path / "other.safetensors")
    made = suite.load(family / "suite.yaml")
    with pytest.raises(MismatchError, match=r"other.*missing: 'weight'; unexpected: 'weights'"):
        scores.of(made, [str(tmp_path / "other.safetensors")], settings(tmp_path), alone=True)


def test_a_process_that_dies_is_one_line(family: Path, tmp_path: Path) -> None:
    head = "    def prepare(self, task, rows, size):\n"
    bad = letters.FOUNDATION.replace(head, head + "        import os; os._exit(9)\n")
    assert bad != letters.FOUNDATION
    (tmp_path / "letters.py").write_text(bad)
    text = (family / "suite.yaml").read_text().replace("letters.py", str(tmp_path / "letters.py"))
    (family / "dying.yaml").write_text(text)
    made = suite.load(family / "dying.yaml")
    with pytest.raises(ScoreError, match=r"lost 5 times at the same score.*fewer --workers"):
        scores.of(made, [], settings(tmp_path, workers=2))


def test_processes_end_with_the_program(family: Path, tmp_path: Path) -> None:
    """Killed from outside, it leaves no process behind."""
    head = "    def logits(self, module, head, batch):\n"
    wait = "open(f'{HERE}{os.getpid()}', 'w').close(); time.sleep(60)"
    slow = letters.FOUNDATION.replace(head, f"{head}        import os, time; {wait}\n")
    assert slow != letters.FOUNDATION
    (tmp_path / "letters.py").write_text(f"HERE = {str(tmp_path / 'pid-')!r}\n" + slow)
    text = (family / "suite.yaml").read_text().replace("letters.py", str(tmp_path / "letters.py"))
    (family / "slow.yaml").write_text(text)
    run = [sys.executable, "-m", "breadcrumbs", "evaluate"]
    run += [str(family / "slow.yaml"), "--results", str(tmp_path / "r.sqlite"), "--workers", "2"]
    environment = {**os.environ, "BREADCRUMBS_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(run, env=environment)
    pids: list[int] = []
    for _ in range(600):
        pids = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
        if pids:
            break
        time.sleep(0.1)
    assert pids
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.1)
    raise AssertionError("a process is left")


def test_the_command_scores_a_recipe_and_prints_a_table(family: Path, tmp_path: Path) -> None:
    from breadcrumbs.plan.recipe import to_yaml

    (tmp_path / "r.yaml").write_text(to_yaml(recipe(family, 0.4)))
    run = ["evaluate", str(family / "suite.yaml"), str(tmp_path / "r.yaml")]
    run += ["--results", str(tmp_path / "r.sqlite"), "--split", "validation"]
    environment = {"BREADCRUMBS_CACHE": str(tmp_path / "cache")}
    result = CliRunner().invoke(main, run, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for word in ("base", "fine-tuned", "normalised", "first", "second", "r.yaml", "in percent"):
        assert word in result.output
    same = [run[0], run[1], str(family / "base.safetensors"), *run[3:]]
    told = CliRunner().invoke(main, same, env=environment).output
    assert "base.safetensors: its weights are the base's, bit for bit." in " ".join(told.split())
    assert "bit for bit" not in result.output
    figure = ["--svg", str(tmp_path / "means.svg")]
    result = CliRunner().invoke(main, [*run, "--json", *figure], env=environment)
    assert "r.yaml" in (tmp_path / "means.svg").read_text()
    rows = json.loads(result.stdout)
    assert [row["task"] for row in rows] == ["first", "second"] * 3
    assert all(0 < row["value"] <= 1 and row["split"] == "validation" for row in rows)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "frist"], "there is no task 'frist'. Did you mean 'first'?"),
        (["--precision", "bfloat"], "'bfloat': give one of auto, float32, bfloat16."),
        (["--device", "gpu9"], "--device gpu9:"),
        (["nowhere"], "nowhere"),
    ],
)
def test_problems_are_one_line(
    family: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    run = ["evaluate", str(family / "suite.yaml"), *flags, "--results", str(tmp_path / "r.sqlite")]
    result = CliRunner().invoke(main, run)
    assert result.exit_code == 1, result.output
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_the_precision_is_one_that_there_is() -> None:
    where = devices.device("cpu")
    assert devices.precision("auto", where) in ("float32", "bfloat16")
    with pytest.raises(SuiteError, match="Did you mean 'float32'"):
        devices.precision("float23", where)


def test_a_row_that_is_found_is_normalised_by_the_models_of_the_suite_at_hand(
    family: Path, tmp_path: Path
) -> None:
    made = suite.load(family / "suite.yaml")
    before = scores.of(made, [], settings(tmp_path))
    swapped = made.with_models(
        {"first": str(family / "second.safetensors"), "second": str(family / "first.safetensors")}
    )
    after = scores.of(swapped, [], settings(tmp_path))
    for first, second in zip(before[:2], after[:2], strict=True):
        assert (first.model, first.value) == (second.model, second.value)
        assert first.finetuned != second.finetuned
        (own,) = [r for r in after if r.label == "fine-tuned" and r.task == second.task]
        assert second.normalised == pytest.approx(second.value / own.value)


def test_a_search_depends_on_what_its_rows_are_kept_by(tmp_path: Path) -> None:
    folder = letters.family(tmp_path, ("first", "second"))
    names = ["first", "second"]

    def of_search() -> dict[str, Any]:
        tuning = suite.load(folder / "suite.yaml").tuning()  # which has no test rows
        return Keys(tuning, "float32").of_search(names)

    before = of_search()
    assert json.loads(json.dumps(before)) == before == of_search()
    data = folder / "first.csv"
    data.write_text(data.read_text().replace("class 2", "class two"))
    changed = of_search()
    assert {key for key in before if before[key] != changed[key]} == {"rows", "heads"}
    assert before["rows"]["second"] == changed["rows"]["second"]
    letters.save({"weight": np.eye(8, dtype=np.float32)}, folder / "second.safetensors")
    tuned = of_search()
    assert {key for key in tuned if tuned[key] != changed[key]} == {"weights"}


def test_heads_depend_on_the_names_of_classes_that_only_the_data_say(tmp_path: Path) -> None:
    folder = letters.family(tmp_path, ("first",))
    code = next(folder.glob("*.py"))
    code.write_text(code.read_text().replace('{"letters": LETTERS}, True', "{}, False"))

    def keys() -> Keys:
        made = suite.load(folder / "suite.yaml")
        assert not made.foundation.trains_heads
        return Keys(made, "float32")

    before = keys().head("first")
    assert before == keys().head("first")
    data = folder / "first.csv"
    data.write_text(data.read_text().replace("class 2", "class two"))
    assert keys().head("first") != before


def test_heads_of_tasks_with_the_same_names_of_classes_are_apart(tmp_path: Path) -> None:
    folder = letters.family(tmp_path, ("first", "second"))
    code = next(folder.glob("*.py"))
    code.write_text(code.read_text().replace('{"letters": LETTERS}, True', "{}, False"))
    made = suite.load(folder / "suite.yaml")
    keys, (first, second) = Keys(made, "float32"), made.tasks
    assert list(first.labels) == list(second.labels) and first.head == second.head
    assert keys.head("first") != keys.head("second")  # a foundation may look at the task's name


def test_rows_depend_on_what_lies_beside_the_base(tmp_path: Path) -> None:
    folder = letters.family(tmp_path, ("first",))
    (folder / "base").mkdir()
    (folder / "base.safetensors").rename(folder / "base" / "model.safetensors")
    (folder / "base" / "config.json").write_text('{"width": 8}')
    (folder / "base" / "README.md").write_text("about it")
    text = (folder / "suite.yaml").read_text()
    (folder / "suite.yaml").write_text(text.replace("base.safetensors", "base"))

    def key() -> Key:
        return Keys(suite.load(folder / "suite.yaml"), "float32").key("0" * 64, "first", "test")

    before = key()
    (folder / "base" / "README.md").write_text("about something else")
    assert key() == before
    (folder / "base" / "config.json").write_text('{"width": 9}')
    assert {n for n in asdict(before) if getattr(before, n) != getattr(key(), n)} == {
        "foundation",
        "head",
    }


def test_answers_that_are_no_numbers_are_wrong_and_labels_must_fit(tmp_path: Path) -> None:
    folder = letters.family(tmp_path, ("first",))
    letters.save({"weight": np.full((8, 8), np.nan, np.float32)}, folder / "broken.safetensors")
    made = suite.load(folder / "suite.yaml")
    (row,) = scores.of(made, [str(folder / "broken.safetensors")], settings(tmp_path), alone=True)
    assert row.value == 0.0
    code = next(folder.glob("*.py"))
    code.write_text(code.read_text().replace('head["classes"])', 'head["classes"][:2])'))
    with pytest.raises(SuiteError, match=r"'first': test row \d+ has label 2.* has 2 classes"):
        scores.of(suite.load(folder / "suite.yaml"), [], settings(tmp_path))


def test_batches_are_kept_up_to_a_limit(family: Path) -> None:
    scorer = Scorer(suite.load(family / "suite.yaml"), cache=None)
    tasks = scorer.suite.tasks
    first = scorer._prepared(tasks[0], "test")
    assert scorer._prepared(tasks[1], "test") and scorer._prepared(tasks[0], "test") is first
    scorer.kept = 1
    assert scorer._prepared(tasks[0], "validation")
    assert list(scorer._batches) == [("first", "validation")]


def test_names_with_brackets_are_no_globs(family: Path, tmp_path: Path) -> None:
    made = suite.load(family / "suite.yaml")
    for name in ("my [v2]", "my v"):
        scores.of(replace(made, name=name), [], settings(tmp_path))
    with Results(tmp_path / "r.sqlite") as results:
        assert {row.suite for row in tables.choose(results, suite="my [v2]")} == {"my [v2]"}


def test_rows_have_the_seed_of_the_fine_tuning_or_else_of_the_recipe(
    family: Path, tmp_path: Path
) -> None:
    made = suite.load(family / "suite.yaml")
    merged = replace(recipe(family, 0.5), seed=7)
    rows = scores.of(made, [merged], settings(tmp_path))
    assert [row.seed for row in rows] == [None] * 4 + [7] * 2
    models = {name: str(family / f"{name}.safetensors") for name in ("first", "second")}
    seeded = made.with_models(models, 3)
    assert [row.seed for row in scores.of(seeded, [merged], settings(tmp_path))] == [3] * 6
    seeded.save(family / "seeded.yaml")
    assert suite.load(family / "seeded.yaml").seed == 3
    assert seeded.with_models(models).to_mapping() == made.with_models(models).to_mapping()
