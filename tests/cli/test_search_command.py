"""`breadcrumbs search` end to end: a suite of tiny encoders, scored in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from breadcrumbs.cli.group import main
from breadcrumbs.evaluate.results.results import Results
from breadcrumbs.plan import recipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("optuna")

#: Notes every split that is read.
ROWS = """
from pathlib import Path

LABELS = ["cat", "dog"]

def rows(split):
    with open(Path({folder!r}) / "read.log", "a") as file:
        file.write("{name} " + split + chr(10))
    texts = [f"{{'a cat purrs' if i % 2 else 'the dog barks'}} {name} {{i * 7919 % 97}} {{split}}"
             for i in range(12)]
    return texts, [i % 2 for i in range(12)]
"""
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def folder(minilm, tmp_path_factory) -> Path:
    """Return a folder with a suite: a tiny random BERT, and the same with noise for each task."""
    folder = tmp_path_factory.mktemp("suite")
    torch.manual_seed(0)
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config = transformers.BertConfig(vocab_size=30522, initializer_range=0.5, **sizes)
    transformers.BertModel(config).save_pretrained(folder / "base")
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(folder / "base")
    base = load_file(folder / "base" / "model.safetensors")
    lines = ["suite: pets", "foundation: sentence", "base: base", "tasks:"]
    for number, name in enumerate(NAMES):
        rng = np.random.default_rng(number)
        noise = {k: 0.3 * rng.standard_normal(v.shape).astype(np.float32) for k, v in base.items()}
        (folder / name).mkdir()
        save_file({k: v + noise[k] for k, v in base.items()}, folder / name / "model.safetensors")
        (folder / f"{name}.py").write_text(ROWS.format(folder=str(folder), name=name))
        lines.append(f"- {{task: {name}, data: {name}.py, finetuned: {name}}}")
    (folder / "suite.yaml").write_text("\n".join(lines) + "\n")
    return folder


def search(folder: Path, *arguments: str):
    fixed = ["search", str(folder / "suite.yaml"), "-o", str(folder / "best.yaml")]
    more = ["--results", str(folder / "results.sqlite"), "--workers", "1", "--force"]
    return CliRunner().invoke(main, [*fixed, *more, "--precision", "float32", *arguments])


def read(folder: Path) -> set[str]:
    """Return what was read since this was last asked."""
    log = folder / "read.log"
    found = set(log.read_text().splitlines()) if log.exists() else set()
    log.unlink(missing_ok=True)
    return found


def test_a_search_by_the_command_line(folder, monkeypatch):
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(folder / "cache"))
    storage = ("--storage", str(folder / "search.log"))
    flags = ("-p", "alpha=0.2:1:0.4", "-m", "ties", "-m", "task_arithmetic", "--sampler", "grid")
    few = search(folder, *flags, *storage, "--few", "2", "--pareto")
    assert few.exit_code == 0, few.output
    # No test row, and of the third task no row at all.
    assert read(folder) == {f"{t} {s}" for t in NAMES[:2] for s in ("train", "validation")}
    assert "the best of 6 trials on validation rows" in few.output
    text = (folder / "best.yaml").read_text()
    assert "# suite pets, tasks one, two (of 3; the same setting is used for all)" in text
    assert str(folder) not in text  # paths beside it are relative
    best = recipe.load(folder / "best.yaml")
    assert [model.name for model in best.models] == list(NAMES)

    figures = [part for name in ("alpha-curve", "sweep", "pareto") for part in ("--svg", name)]
    figures[1::2] = [str(folder / f"{name}.svg") for name in figures[1::2]]
    asked = ("--few-tasks", "one,two", "--test", "--json")
    again = search(folder, *flags, *storage, *asked, *figures)
    assert again.exit_code == 0, again.output
    assert all("task_arithmetic" in Path(path).read_text() for path in figures[1::2])
    assert "one test" in read(folder)
    told = json.loads(again.output)
    assert len(told["trials"]) == 6 and told["best"]["point"]["method"] == best.method
    assert recipe.load(folder / "best.yaml") == best
    assert set(told["test"]["values"]) == set(NAMES) and told["test"]["others"] == []
    assert 0 < told["test"]["raw"]["stderr"] < 0.5

    other = search(folder, "-p", "alpha=0.5", "-p", "beta=0.5", "--trials", "1", "--test")
    assert other.exit_code == 0, other.output
    flat = " ".join(other.output.split())
    assert "note: test scores of 1 other settings of these models had been computed" in flat

    third = search(folder, *flags, *storage, "--few", "1")
    assert third.exit_code == 1
    assert "is of another search" in third.output and third.output.count("\n") == 1


def test_a_race_by_the_command_line(folder, monkeypatch):
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(folder / "cache"))
    read(folder)  # what another test read
    flags = ("-p", "alpha=0.2:1:0.2", "-m", "task_arithmetic", "--sampler", "grid")
    done = search(folder, *flags, "--batch", "5", "--race", "0.3", "--json")
    assert done.exit_code == 0, done.output
    assert {line.split()[1] for line in read(folder)} <= {"train", "validation"}
    told = json.loads(done.output)
    whole = [trial for trial in told["trials"] if not trial["part"]]
    assert len(told["trials"]) == 5 and 1 <= len(whole) <= 2
    assert told["best"] in whole and 0 < told["accuracy_at_least"] < 1
    with Results(folder / "results.sqlite", readonly=True) as results:
        few = results.select(split="anchors")
        assert len(few) == 15 and all(row.items <= 5 for row in few)
    shown = search(folder, *flags, "--batch", "5", "--race", "0.3")
    flat = " ".join(shown.output.split())
    assert f"{5 - len(whole)} trials lost on a few of the rows" in flat
    assert "with 95 % confidence whichever of the 5 trials was chosen" in flat
    assert f"; {len(whole)} of them on all rows" in (folder / "best.yaml").read_text()
    free = search(folder, "-p", "alpha=0.2,0.4", "--trials", "2", "--json")
    assert json.loads(free.output)["accuracy_at_least"] is None  # tpe proposes by what it has seen


def test_a_search_over_a_method_of_ones_own(folder, monkeypatch, tmp_path, tables):
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(folder / "cache"))
    plugin = tmp_path / "mine.py"
    text = (
        "from dataclasses import replace\n"
        "from breadcrumbs.methods.table import METHODS as KNOWN\n"
        "METHODS = [replace(KNOWN['task_arithmetic'], name='mine')]\n"
    )
    plugin.write_text(text)
    storage = ("--storage", str(tmp_path / "search.log"), "--plugin", str(plugin))
    flags = ("-m", "mine", "-p", "alpha=0.2,0.4", "--sampler", "grid")
    found = search(folder, *flags, *storage)
    assert found.exit_code == 0, found.output
    assert "the best of 2 trials" in found.output
    auto = search(folder, "-m", "task_arithmetic", "-p", "alpha=auto", "--trials", "1")
    assert auto.exit_code == 0, auto.output
    assert recipe.load(folder / "best.yaml").parameters["alpha"] == "auto"


def test_a_task_that_is_named_twice_counts_once(folder, monkeypatch):
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(folder / "cache"))
    twice = ("--task", "one", "--task", "one", "--task", "two", "--few-tasks", "one,one")
    found = search(folder, *twice, "-p", "alpha=0.5", "--trials", "1", "--test")
    assert found.exit_code == 0, found.output
    assert [model.name for model in recipe.load(folder / "best.yaml").models] == ["one", "two"]


USAGE = {
    ("-p", "alfa=1"): (1, "Did you mean 'alpha'?"),
    ("-p", "alpha"): (2, "'alpha' is not KEY=VALUE"),
    ("-m", "tie"): (1, "there is no method 'tie'. Did you mean 'ties'?"),
    ("--few", "4"): (1, "--few 4: there are 3 tasks"),
    ("--few", "1", "--few-tasks", "one"): (2, "give --few or --few-tasks"),
    ("--few-tasks", "on"): (1, "there is no task 'on'. Did you mean 'one'?"),
    ("--task", "tow"): (1, "there is no task 'tow'"),
    ("--few", "1", "-p", "weight.one=1,2"): (2, "--few cannot find them"),
    ("--objective", "meen"): (1, "Did you mean 'mean'?"),
    ("--sampler", "grit"): (1, "Did you mean 'grid'?"),
    ("-o", "best.txt"): (2, "its name must end in .yaml"),
    ("-o", "none/best.yaml"): (1, "there is no folder none"),
}


@pytest.mark.parametrize("arguments", USAGE)
def test_what_is_refused_before_anything_is_scored(folder, arguments):
    read(folder)
    result = search(folder, *arguments)
    code, message = USAGE[arguments]
    assert result.exit_code == code and message in " ".join(result.output.split())
    assert not read(folder)


def test_an_output_is_not_replaced_unless_told(folder):
    (folder / "mine.yaml").write_text("precious")
    arguments = ["search", str(folder / "suite.yaml"), "-o", str(folder / "mine.yaml")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "exists" in result.output
    assert (folder / "mine.yaml").read_text() == "precious"
