"""Adapters by themselves wherever a model is named: the merge's base is theirs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.cli.group import main
from breadcrumbs.errors import CheckpointError, MismatchError, RecipeError
from breadcrumbs.methods.table import METHODS

NAMES = [f"model.layers.{i}.{end}" for i in (0, 1) for end in ("q_proj", "up_proj", "norm")]
SHAPES = {"q_proj": (12, 8), "up_proj": (20, 8), "norm": (8,)}
RANK = 2
WEIGHTS = "adapter_model.safetensors"


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) * 0.1).astype(np.float32)


def base_of(folder: Path, prefix: str = "", seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {f"{prefix}{name}.weight": SHAPES[name.rpartition(".")[2]] for name in NAMES}
    save_file({n: normal(rng, *shape) for n, shape in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def adapter_of(folder: Path, seed: int, ends: str = "q_proj", **config: Any) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name in NAMES:
        out, *rest = SHAPES[name.rpartition(".")[2]]
        if name.endswith(ends) and rest:
            stem = f"base_model.model.{name}.lora_"
            tensors[f"{stem}A.weight"] = normal(rng, RANK, *rest)
            tensors[f"{stem}B.weight"] = normal(rng, out, RANK)
    save_file(tensors, folder / WEIGHTS)
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


@pytest.fixture
def family(tmp_path: Path) -> tuple[Path, list[Path]]:
    """Return a base and two adapters on it, of other layers."""
    adapters = [
        adapter_of(tmp_path / f"a{i}", i, ends) for i, ends in enumerate(("q_proj", "proj"))
    ]
    return base_of(tmp_path / "base"), adapters


def run(*words: object, code: int = 0) -> str:
    ran = CliRunner().invoke(main, list(map(str, words)), terminal_width=200)
    assert ran.exit_code == code, ran.output
    return ran.output


def same(first: Any, second: Any) -> bool:
    return set(first) == set(second) and all(
        np.array_equal(first[n], second[n]) and first[n].dtype == second[n].dtype for n in first
    )


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if not m.statistics])
def test_the_bits_of_any_method(family: Any, tmp_path: Path, method: str) -> None:
    """Folders, files, task files, a base in memory: all are the base with the adapter in it."""
    base, adapters = family
    files = [tmp_path / f"{t}.safetensors" for t in range(2)]
    for adapter, file in zip(adapters, files, strict=True):
        tasks.from_adapter(base, adapter, file)
    number = METHODS[method].aggregate.models[1] or 2
    adapters, files = adapters[-number:], files[-number:]
    settings: dict[str, Any] = {"method": method, "names": ["a0", "a1"][-number:]}
    settings |= {"task": "a1"} if method == "tall_mask" else {}
    expected = breadcrumbs.merge(base, [f"{base}+{a}" for a in adapters], **settings)
    assert not same(expected, breadcrumbs.open(base))
    assert same(breadcrumbs.merge(base, adapters, **settings), expected)
    weights = [adapter / WEIGHTS for adapter in adapters]
    assert same(breadcrumbs.merge(dict(breadcrumbs.open(base)), weights, **settings), expected)
    assert same(breadcrumbs.merge(base, [*files[:-1], adapters[-1]], **settings), expected)


@pytest.mark.parametrize("given", ["alone", "base+adapter", "task file"])
def test_what_is_kept_counts_what_an_adapter_changes(family: Any, tmp_path: Path, given: str):
    base, adapters = family
    models = [str(adapter) for adapter in adapters]
    if given == "base+adapter":
        models = [f"{base}+{adapter}" for adapter in adapters]
    if given == "task file":
        models = [str(tmp_path / f"{t}.safetensors") for t in range(2)]
        for adapter, file in zip(adapters, models, strict=True):
            tasks.from_adapter(base, adapter, file)
    sizes = [2 * 12 * 8, 2 * (12 * 8 + 20 * 8)]
    for method, more, share in (
        ("task_arithmetic", {}, 1.0),
        ("ties", {"density": 0.25, "granularity": "model"}, 0.25),
        ("breadcrumbs", {"beta": 0.5, "gamma": 1.0}, 0.5),
    ):
        out = tmp_path / method
        report = breadcrumbs.merge(base, models, method=method, output=out, **more)
        assert [row.entries for row in report.models] == sizes
        assert [row.fraction for row in report.models] == pytest.approx([share] * 2, abs=0.02)
        assert report.emptied == []
    lost = breadcrumbs.merge(
        base, models, method="ties", density=0.005, granularity="model", output=tmp_path / "few"
    )
    assert lost.emptied and all("norm" not in name for name in lost.emptied)


SOUP = ("--known-score", 1, "--known-score", 2, "--score", "sh -c 'echo 3' {}")


def test_every_command_takes_them(family: Any, tmp_path: Path) -> None:
    base, (first, second) = family
    out, both = tmp_path / "out", [f"{base}+{first}", f"{base}+{second}"]
    run("merge", base, first, second, "-m", "ties", "-o", out)
    expected = breadcrumbs.merge(base, both, method="ties")
    assert same(load_file(out / "model.safetensors"), expected)
    assert "0.0000" in run("compare", base, first, adapter_of(tmp_path / "up", 5, "up_proj"))
    run("task", "pack", base, first, "--transform", "none", "-o", tmp_path / "p.safetensors")
    packed = dict(tasks.opened(breadcrumbs.open(base), tmp_path / "p.safetensors"))
    assert same(packed, dict(breadcrumbs.open(both[0])))
    assert "LoRA of PEFT, rank 2, scale 2, 2 modules ('q_proj')" in run("inspect", first)
    run("soup", base, first, second, *SOUP, "-o", tmp_path / "s")
    run("compress", base, first, second, "-o", tmp_path / "arc.safetensors")
    run("extract", tmp_path / "arc.safetensors", "a0", "-o", tmp_path / "x", "--base", base)
    config = tmp_path / "merge.yml"
    config.write_text(
        "merge_method: ties\nbase_model: base\nmodels:\n- {model: a0, parameters: {density: 0.5,"
        " weight: 1}}\n- {model: base+a1, parameters: {density: 0.5, weight: 1}}\n"
    )
    run("merge", config, "-o", tmp_path / "kit")
    (first / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    run("merge", base, first, "--tokenizer", first, "-o", tmp_path / "talks")
    assert (tmp_path / "talks" / "tokenizer.json").exists()
    vector = breadcrumbs.TaskVector(base, first)
    a, b = (
        load_file(first / WEIGHTS)[f"base_model.model.{NAMES[0]}.lora_{x}.weight"] for x in "AB"
    )
    assert abs(vector[f"{NAMES[0]}.weight"] - 2 * b.astype(np.float64) @ a).max() < 1e-7
    assert not vector[f"{NAMES[1]}.weight"].any()


@pytest.mark.parametrize("given", ["{}", "{}/adapter_model.safetensors", "{base}+{}"])
def test_a_merge_of_adapters_is_made_again(family: Any, tmp_path: Path, given: str) -> None:
    base, adapters = family
    names = [given.format(adapter, base=base) for adapter in adapters]
    run("merge", base, *names, "-o", tmp_path / "out")
    assert "all the same bits" in run("reproduce", tmp_path / "out")
    (tmp_path / "far" / "away").mkdir(parents=True)
    moved = (tmp_path / "out").rename(tmp_path / "far" / "away" / "out")
    assert "all the same bits" in run("reproduce", moved)  # where its inputs lay, by their hashes
    moved.rename(tmp_path / "out")
    adapter_of(adapters[1], 7, "proj")
    ran = run("reproduce", tmp_path / "out", code=1)
    assert "a1" in ran and "has changed since the recipe was made" in ran


@pytest.mark.parametrize("method", ["breadcrumbs", "task_arithmetic"])
def test_a_store_of_adapters(family: Any, tmp_path: Path, method: str) -> None:
    base, adapters = family
    store = tmp_path / "store"
    run("store", "init", store, "--base", base, "--method", method, "-p", "alpha=0.5")
    for adapter in adapters:
        run("store", "add", store, adapter.name, adapter)
    run("store", "merge", store, "-o", tmp_path / "out")
    expected = breadcrumbs.merge(base, adapters, method=method, alpha=0.5)
    assert same(load_file(tmp_path / "out" / "model.safetensors"), expected)
    assert "lost the whole task vector" not in run("store", "merge", store, "-o", tmp_path / "b")
    kinds = {tasks.TaskFile.open(path).about.encoding for path in store.rglob("*.safetensors")}
    assert kinds == {"lora" if method == "task_arithmetic" else "exact"}


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base_of(tmp_path / "base")
    for t, name in enumerate(("math-lora", "code-lora")):
        adapter_of(tmp_path / name, t, ("q_proj", "proj")[t], base_model_name_or_path="base")
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.split("\n")
    ]
    printed = {line: run(*shlex.split(line)[1:]) for line in lines if line}
    assert len(printed) >= 10
    lost = next(said for line, said in printed.items() if "sum-lora" in line)
    assert "lacks nothing of the step but rounding" in lost
    peft: dict[str, Any] = {"method": "task_arithmetic", "alpha": 1, "dtype": "float32"}
    summed = breadcrumbs.merge("base", ["math-lora", "code-lora"], **peft)
    again = breadcrumbs.merge("base", ["sum-lora"], **peft)
    assert all(abs(summed[name] - again[name]).max() < 1e-6 for name in summed)


def cached(monkeypatch: pytest.MonkeyPatch, cache: Path, repo: str) -> Path:
    """Return the folder of a repository in a cache of a hub that nobody can reach."""
    from huggingface_hub import constants

    place = cache / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return place / "snapshots" / COMMIT


COMMIT = "c" * 40


def test_an_adapter_of_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base_of(cached(monkeypatch, tmp_path, "org/base"))
    mine = adapter_of(
        cached(monkeypatch, tmp_path, "org/adapter"), 0, base_model_name_or_path="org/base"
    )
    adapter_of(
        cached(monkeypatch, tmp_path, "org/other"), 0, base_model_name_or_path="org/elsewhere"
    )
    out = tmp_path / "out"
    given: dict[str, Any] = {"method": "task_arithmetic", "alpha": 1}
    report = breadcrumbs.merge("org/base", ["org/adapter"], output=out, **given)
    assert report.warnings == []
    expected = breadcrumbs.merge("org/base", [mine], **given)
    assert same(load_file(out / "model.safetensors"), expected)
    said = run("inspect", out)
    assert said.count(f"org/adapter@{COMMIT}") == 2 and "adapter_config.json" in said
    assert f"org/adapter@{COMMIT}" in run("inspect", "org/adapter")
    breadcrumbs.merge("org/base", [mine, adapter_of(tmp_path / "here", 3)], output=tmp_path / "two")
    assert (
        "base_model:\n- org/base\n- org/adapter\nbase" in (tmp_path / "two/README.md").read_text()
    )
    warned = run("merge", "org/base", "org/other", "-o", out, "--force")
    assert "org/other was trained on 'org/elsewhere', and the base is 'org/base'" in warned
    assert not out.with_name("none").exists()
    strict = ("--strict", "-o", tmp_path / "none")
    told = run("merge", "org/base", f"org/other@{COMMIT}", *strict, code=1)
    assert "trained on 'org/elsewhere'" in told


def test_what_does_not_fit_says_what_to_do(family: Any, tmp_path: Path) -> None:
    base, (first, _) = family
    with pytest.raises(MismatchError, match=r"a0: is an adapter, not a base model. Give the model"):
        breadcrumbs.merge(first, [base])
    named = adapter_of(tmp_path / "n", 0, base_model_name_or_path="org/base")
    for call in (
        lambda: breadcrumbs.merge(f"{named}+{first}", [base]),
        lambda: breadcrumbs.TaskVector(named, base),
        lambda: tasks.from_adapter(named, first, tmp_path / "t.safetensors"),
    ):
        with pytest.raises(MismatchError, match=r"n: is an adapter.*'org/base', which it was tr"):
            call()
    run("store", "init", tmp_path / "store", "--base", named, code=1)
    head = load_file(first / WEIGHTS)
    head["base_model.model.score.weight"] = np.ones((2, 8), np.float32)
    save_file(head, first / WEIGHTS)
    with pytest.raises(
        MismatchError, match=r"holds 'score.weight', which .* lacks.*--extra ignore"
    ):
        breadcrumbs.merge(base, [first])
    for extra in ("ignore", ["score.*"]):
        report = breadcrumbs.merge(base, [first], extra=extra, output=tmp_path / f"o{len(extra)}")
        assert any("left out what the base lacks: 'score.weight'" in w for w in report.warnings)
    (tmp_path / "bare").mkdir()
    save_file(head, tmp_path / "bare" / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"bare/adapter_config.json: cannot be read"):
        breadcrumbs.merge(base, [tmp_path / "bare"])
    other = {"peft_type": "VERA"}
    (tmp_path / "bare" / "adapter_config.json").write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match=r"'VERA', and only LORA, LOHA and LOKR .*_unload"):
        breadcrumbs.merge(base, [tmp_path / "bare"])
    assert "cannot be merged" in run("inspect", tmp_path / "bare" / WEIGHTS)


def test_rules_are_for_the_names_of_the_adapter(family: Any, tmp_path: Path) -> None:
    _, adapters = family
    base = base_of(tmp_path / "two", "first.")
    tensors = load_file(base / "model.safetensors")
    tensors |= {n.replace("first.", "second."): a for n, a in tensors.items()}
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(MismatchError, match=r'may be .*--rename "\*=first\.\*" or --rename'):
        breadcrumbs.merge(base, adapters)
    how = {"method": "task_arithmetic", "alpha": 1}
    found = breadcrumbs.merge(base, adapters, rename="*=second.*", **how)
    for name, before in tensors.items():
        changed = name.startswith("second.") and not name.endswith("norm.weight")
        assert (found[name] != before).any() == changed
    first = {n: a for n, a in load_file(adapters[0] / WEIGHTS).items() if ".0." in n}
    save_file(first, adapters[0] / WEIGHTS)
    plain = base_of(tmp_path / "plain")
    rule = "model.layers.0.*=model.layers.1.*"  # which its names in the base match, too
    found = breadcrumbs.merge(plain, adapters[:1], rename=rule, **how)
    changed = [n for n, before in breadcrumbs.open(plain).items() if (found[n] != before).any()]
    assert changed == ["model.layers.1.q_proj.weight"]
    with pytest.raises(RecipeError, match="matches no tensor of any model"):
        breadcrumbs.merge(base, adapters, rename=["*=second.*", "x.*=y.*"], **how)


def test_a_target_with_an_adapter_keeps_the_dtypes_of_the_base(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base")
    half = {
        n: a.astype(ml_dtypes.bfloat16) for n, a in load_file(base / "model.safetensors").items()
    }
    save_file(half, base / "model.safetensors")
    first, second = (adapter_of(tmp_path / f"a{t}", t) for t in range(2))
    how: dict[str, Any] = {"method": "task_arithmetic", "alpha": 1}
    for target in (second, f"{base}+{second}"):
        found = breadcrumbs.merge(base, [first], onto=target, **how)
        both = breadcrumbs.merge(base, [first, second], **how)
        for name, array in found.items():
            assert array.dtype == ml_dtypes.bfloat16
            assert abs(array.astype(np.float32) - both[name].astype(np.float32)).max() < 0.01


def test_what_is_scored_is_the_base_with_the_adapter(family: Any) -> None:
    from breadcrumbs.taskfile import view

    base, (first, _) = family
    with view.open_model(str(base), str(first)) as model:
        assert same(dict(model), dict(breadcrumbs.open(f"{base}+{first}")))
