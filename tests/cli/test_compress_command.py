"""`breadcrumbs compress` and `extract`, scales found on validation rows, and what they print."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import letters
import numpy as np
import pytest
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs.archives import open_archive
from breadcrumbs.cli.group import main
from breadcrumbs.evaluate.scoring import pool
from breadcrumbs.tune import scales

TASKS = ("first", "second", "third")
SUITE = ("--workers", "1", "--precision", "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, fine-tunings and a suite."""
    return letters.family(tmp_path_factory.mktemp("letters"), TASKS)


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(folder / "cache"))


def run(*arguments: str, code: int = 0) -> Any:
    ran = CliRunner().invoke(main, list(arguments))
    assert ran.exit_code == code, ran.output
    return ran


def files() -> list[str]:
    return ["base.safetensors", *(f"{task}.safetensors" for task in TASKS)]


def test_compress_and_extract(folder):
    told = run(
        "compress", *files(), "-o", "t.safetensors", "--name", "a", "--name", "b", "--name", "c"
    )
    assert "3 tasks in t.safetensors" in told.output and "catastrophic" in told.output
    assert "outside layers" in told.output
    said = run("extract", "t.safetensors", "b", "-o", "b.safetensors")
    assert said.stderr == "wrote b.safetensors: 256 B\n" and not said.stdout
    merged = breadcrumbs.merge(files()[0], files()[1:], method="tall_mask", task=2)
    assert dict(breadcrumbs.open("b.safetensors"))["weight"].tobytes() == merged["weight"].tobytes()
    exists = run("extract", "t.safetensors", "b", "-o", "b.safetensors", code=1)
    assert exists.stderr.count("\n") == 1 and "exists" in exists.stderr
    again = run("extract", "t.safetensors", "a", "-o", "b.safetensors", "--force", "--json")
    assert json.loads(again.stdout) == {"output": "b.safetensors", "task": "a", "bytes": 256}
    for task in ("a", "b"):
        run("extract", "t.safetensors", task, "-o", "folder", "--force")
        one, two = (Path(name, "model.safetensors") for name in ("folder", "new"))
        run("extract", "t.safetensors", task, "-o", "new")
        assert one.read_bytes() == two.read_bytes()
        shutil.rmtree("new")
    one.write_bytes(Path("first.safetensors").read_bytes())  # trained on, say: no more ours
    kept = run("extract", "t.safetensors", "a", "-o", "folder", "--force", code=1)
    assert "holds no model of ours" in kept.stderr
    assert one.read_bytes() == Path("first.safetensors").read_bytes()
    shutil.rmtree("folder")
    wrong = run("extract", "t.safetensors", "d", "-o", "d.safetensors", code=1)
    assert "has no task 'd'" in wrong.stderr
    other = run("extract", "t.safetensors", "a", "-o", "d", "--base", "first.safetensors", code=1)
    assert "is not the base of t.safetensors" in other.stderr and not Path("d").exists()


def test_numbers_for_programs(folder):
    flags = ("-p", "scale=0.2,0.4,0.6", "-p", "on=ties", "--json", "--force")
    told = json.loads(run("compress", *files(), "-o", "j.safetensors", *flags).stdout)
    assert told["bytes"]["archive"] == Path("j.safetensors").stat().st_size
    assert told["bits_as_the_paper_counts"] == {"models": 32 * 192, "masks": 32 * 128 + 3 * 64}
    assert sum(told["shares"]["all"].values()) == pytest.approx(1)
    with open_archive("j.safetensors") as archive:
        assert archive.parameters == {"on": "ties", "scale": ["0.2", "0.4", "0.6"]}
        assert archive.tasks == tuple(Path(path).stem for path in files()[1:])
    seen = json.loads(run("inspect", "j.safetensors", "--hash", "--json").stdout)["archive"]
    assert seen["shares"] == told["shares"] and seen["tasks"] == told["tasks"]
    said = " ".join(run("inspect", "j.safetensors").output.split())
    assert "archive of 3 tasks by tall: first, second, third" in said
    for method in ("emr", "tsv"):
        out = ("-o", f"{method}.safetensors", "-m", method)
        found = json.loads(run("compress", *files(), *out, "--json").stdout)
        assert found["method"] == method and bool(found["shares"]) == (method == "emr")


def test_scales_are_found_on_validation_rows(folder, monkeypatch):
    pytest.importorskip("torch")
    asked = []
    score = pool.Pool.score

    def watched(self, jobs, split):
        asked.append((split, [task.name for task in self.suite.tasks]))
        values = list(score(self, jobs, split))
        recipes = [recipe for recipe, _ in jobs]
        found = {number: rows[0] for number, rows in values}
        asked.append({(r.task, recipes[n].parameters["scale"]): r.value for n, r in found.items()})
        return values

    monkeypatch.setattr(pool.Pool, "score", watched)
    run("compress", "--suite", "suite.yaml", "-o", "s.safetensors", *SUITE, "--quiet")
    (split, names), values = asked
    assert split == "validation" and names == list(TASKS) and len(values) == 15
    with open_archive("s.safetensors") as archive:
        assert archive.tasks == TASKS
        for task, scale in zip(TASKS, archive.parameters["scale"], strict=True):
            mine = [values[task, tried] for tried in scales.SCALES]
            assert scale == scales.SCALES[int(np.argmax(mine))]  # the first of equal ones
        assert len({v for (t, _), v in values.items() if t == "first"}) > 1  # there was a choice


def test_the_lowest_scale_wins_ties():
    values = {("a", "0.2"): 0.5, ("a", "0.3"): 0.7, ("a", "0.4"): 0.7, ("b", "0.2"): 0.1}
    values |= {("b", "0.3"): 0.1, ("b", "0.4"): 0.1}
    assert scales.best(values, ("0.2", "0.3", "0.4")) == {"a": "0.3", "b": "0.2"}


def test_what_is_not_right_is_said(folder):
    suite = ("--suite", "suite.yaml", *SUITE)
    usage = run("compress", "-o", "x.safetensors", code=2)
    assert "give BASE and one fine-tuned model or more, or --suite" in usage.stderr
    names = run("compress", "-o", "x.safetensors", *suite, "--name", "a", code=2)
    assert "give no --name" in names.stderr
    pytest.importorskip("torch")
    names = ("--name", "firsd", "--name", "second", "--name", "third")
    unknown = run("compress", *files(), "-o", "x.safetensors", *suite, *names, code=1)
    assert "there is no task 'firsd'. Did you mean 'first'" in unknown.stderr
    assert not Path("x.safetensors").exists()
