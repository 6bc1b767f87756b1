"""Scores of models: by processes, by recipes in memory, and found again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs.cli import main
from breadcrumbs.errors import MismatchError, ScoreError, SplitError, SuiteError
from breadcrumbs.evaluate import devices, scores, suite
from breadcrumbs.evaluate.pool import Pool, Settings
from breadcrumbs.evaluate.results import Results, model_hash
from breadcrumbs.recipe import Model, Recipe

torch = pytest.importorskip("torch")

#: A module of one matrix: how often each letter occurs, times it; heads of class means.
FOUNDATION = """
import numpy as np
import torch
import breadcrumbs
from breadcrumbs.evaluate.foundation import Batch

LETTERS = "abcdefgh"

class Letters:
    kind, settings, trains_heads = "letters", {"letters": LETTERS}, True

    def load(self, base):
        module = torch.nn.Linear(8, 8, bias=False)
        with torch.no_grad(), breadcrumbs.open(base) as state:
            module.weight.copy_(torch.from_numpy(state["weight"]))
        return module.eval()

    def prepare(self, task, rows, size):
        found = []
        for start in range(0, len(rows), size):
            numbers = np.arange(start, min(start + size, len(rows)))
            counts = [[rows.inputs[i].count(c) for c in LETTERS] for i in numbers]
            labels = torch.from_numpy(rows.labels[numbers])
            found.append(Batch({"counts": torch.tensor(counts).float()}, numbers, labels))
        return found[::-1]  # in no order

    def head(self, module, task):
        (batch,) = self.prepare(task, task.rows("train"), 1000)
        embedded = module(batch.inputs["counts"]).float()
        means = [embedded[batch.labels == k].mean(0) for k in range(len(task.labels))]
        return {"classes": torch.stack(means)}

    def logits(self, module, head, batch):
        return -torch.cdist(module(batch.inputs["counts"]).float(), head["classes"])

    def loss(self, module, head, batch):
        return torch.nn.functional.cross_entropy(self.logits(module, head, batch), batch.labels)

FOUNDATION = Letters()
"""


def rows_of(seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(8, 0.7), 3)
    rows = []
    for number in range(300):
        letters = rng.choice(list("abcdefgh"), 6, p=chances[number % 3])
        rows.append(("".join(letters) + " " + "z" * number, f"class {number % 3}"))
    return rows


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, two fine-tunings and suite.yaml with a task for each."""
    folder = tmp_path_factory.mktemp("family")
    (folder / "letters.py").write_text(FOUNDATION)
    rng = np.random.default_rng(5)
    base = rng.standard_normal((8, 8)).astype(np.float32)
    tasks = []
    for number, name in enumerate(("first", "second")):
        lines = [f"{text},{label}\n" for text, label in rows_of(number)]
        (folder / f"{name}.csv").write_text("text,label\n" + "".join(lines))
        tuned = base + 0.3 * rng.standard_normal((8, 8)).astype(np.float32)
        save({"weight": tuned}, folder / f"{name}.safetensors")
        tasks.append(
            {
                "task": name,
                "data": f"{name}.csv",
                "text": "text",
                "finetuned": f"{name}.safetensors",
            }
        )
    save({"weight": base}, folder / "base.safetensors")
    mapping = {"foundation": "letters.py", "base": "base.safetensors", "tasks": tasks}
    (folder / "suite.yaml").write_text(json.dumps(mapping))
    return folder


def save(state: dict[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(state, path)


def settings(folder: Path, **more) -> Settings:
    return Settings(
        **{"results": str(folder / "r.sqlite"), "workers": 2, "cache": folder / "cache"} | more
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


def test_a_suite_that_is_tuned_on_has_no_test_rows_in_any_process(
    family: Path, tmp_path: Path
) -> None:
    made = suite.load(family / "suite.yaml").tuning()
    with pytest.raises(SplitError, match="test rows were asked for"):
        scores.of(made, [recipe(family, 0.3)], settings(tmp_path), split="test", alone=True)
    assert scores.of(made, [], settings(tmp_path), split="validation")


def test_broken_heads_and_results_are_made_again(family: Path, tmp_path: Path) -> None:
    made = suite.load(family / "suite.yaml")
    first = scores.of(made, [], settings(tmp_path))
    heads = sorted((tmp_path / "cache" / "heads").iterdir())
    assert len(heads) == 2
    whole = [path.read_bytes() for path in heads]
    for path, data in zip(heads, whole, strict=True):
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (tmp_path / "r.sqlite").write_bytes(b"no database at all" * 100)
    again = scores.of(made, [], settings(tmp_path))
    assert [row.value for row in again] == [row.value for row in first]
    assert [path.read_bytes() for path in heads] == whole
    assert Results(tmp_path / "r.sqlite").select(task="first")


def test_a_model_that_does_not_fit_is_named(family: Path, tmp_path: Path) -> None:
    save({"weights": np.zeros((8, 8), np.float32)}, tmp_path / "other.safetensors")
    made = suite.load(family / "suite.yaml")
    with pytest.raises(MismatchError, match=r"other.*missing: 'weight'; unexpected: 'weights'"):
        scores.of(made, [str(tmp_path / "other.safetensors")], settings(tmp_path), alone=True)


def test_a_process_that_dies_is_one_line(family: Path, tmp_path: Path) -> None:
    head = "    def prepare(self, task, rows, size):\n"
    bad = FOUNDATION.replace(head, head + "        import os; os._exit(9)\n")
    assert bad != FOUNDATION
    (tmp_path / "letters.py").write_text(bad)
    text = (family / "suite.yaml").read_text().replace("letters.py", str(tmp_path / "letters.py"))
    (family / "dying.yaml").write_text(text)
    made = suite.load(family / "dying.yaml")
    with pytest.raises(ScoreError, match=r"ended by itself.*fewer --workers"):
        scores.of(made, [], settings(tmp_path))


def test_processes_end_with_the_program(family: Path, tmp_path: Path) -> None:
    """Killed from outside, it leaves no process behind."""
    head = "    def logits(self, module, head, batch):\n"
    wait = "open(f'{HERE}{os.getpid()}', 'w').close(); time.sleep(60)"
    slow = FOUNDATION.replace(head, f"{head}        import os, time; {wait}\n")
    assert slow != FOUNDATION
    (tmp_path / "letters.py").write_text(f"HERE = {str(tmp_path / 'pid-')!r}\n" + slow)
    text = (family / "suite.yaml").read_text().replace("letters.py", str(tmp_path / "letters.py"))
    (family / "slow.yaml").write_text(text)
    run = [sys.executable, "-c", "from breadcrumbs.cli import main; main()", "evaluate"]
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
    from breadcrumbs.recipe import to_yaml

    (tmp_path / "r.yaml").write_text(to_yaml(recipe(family, 0.4)))
    run = ["evaluate", str(family / "suite.yaml"), str(tmp_path / "r.yaml")]
    run += ["--results", str(tmp_path / "r.sqlite"), "--split", "validation"]
    environment = {"BREADCRUMBS_CACHE": str(tmp_path / "cache")}
    result = CliRunner().invoke(main, run, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for word in ("base", "fine-tuned", "normalised", "first", "second", "r.yaml"):
        assert word in result.output
    result = CliRunner().invoke(main, [*run, "--json"], env=environment)
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
