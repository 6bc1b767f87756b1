"""Words of other programs get a hint that holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs.cli import main
from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import words
from breadcrumbs.methods.registry import METHODS, get

#: What hints may name besides methods.
OTHERS = {"mergekit", "adapters", "fine", "one", "masks", "layers"}


def hint(method: str, **parameters: Any) -> str:
    with pytest.raises(RecipeError) as error:
        get(method).complete(parameters)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", words.METHODS)
def test_names_of_methods(name: str) -> None:
    assert name not in METHODS, "so that it is an error at all"
    said = hint(name)
    for found in re.findall(r"(?:Use|Nearest (?:are|is)|-m) ([a-z_]+)", said):
        assert found in METHODS, said
    for found in re.findall(r"`breadcrumbs (\w+)", said):
        assert main.get_command(None, found) is not None, said  # type: ignore[arg-type]


def test_spellings_and_what_nobody_knows() -> None:
    assert "It is written ties." in hint("TIES")
    assert "It is written task_arithmetic." in hint("Task-Arithmetic")
    assert "Use della." in hint("della_merging")
    assert "Did you mean 'ties'?" in hint("tiess")


@pytest.mark.parametrize(
    ("method", "name", "value", "said"),
    [
        ("breadcrumbs", "lambda", 1, "It is called alpha here."),
        ("ties", "scaling_factor", 0.3, "It is called alpha here."),
        ("ties", "Alpha", 0.3, "It is written alpha."),
        ("average", "lambda", 0.3, "use task_arithmetic"),
        ("ties", "weight", 0.5, "-w VALUE once for each"),
        ("task_arithmetic", "density", 0.5, "This method keeps all entries"),
        ("dare_linear", "density", 0.1, "-p p=0.9"),
        ("dare_linear", "drop_rate", 0.9, "-p p=0.9"),
        ("ties", "sparsity", 0.8, "-p density=0.2"),
        ("breadcrumbs", "topk", 0.1, "-p density=0.1 -p outliers=0.01"),
        ("ties", "normalize", True, "-p merge=mean"),
        ("dare_linear", "normalize", True, "divide alpha by their sum"),
        ("ties", "majority_sign_method", "total", "Leave it out"),
        ("ties", "int8_mask", True, "Leave it out"),
        ("ties", "merge_func", "sum", "It is called merge here."),
        ("model_stock", "filter_wise", True, "It is called angles here."),
        ("multislerp", "normalize_weights", True, "It is called normalize here."),
        ("slerp", "tokenizer_source", "base", "--tokenizer"),
        ("ties", "desnity", 0.2, "Did you mean 'density'?"),
    ],
)
def test_names_of_parameters(method: str, name: str, value: Any, said: str) -> None:
    assert said in hint(method, **{name: value})


def test_what_hints_say_works(tmp_path: Path) -> None:
    base = {"w": np.zeros((4, 4), np.float32)}
    tuned = {"w": np.arange(16, dtype=np.float32).reshape(4, 4)}
    for method, given in (
        ("dare_linear", {"p": 0.9}),
        ("ties", {"density": 0.2, "merge": "mean"}),
        ("breadcrumbs", {"density": 0.1, "outliers": 0.01}),
        ("average", {"base_weight": 1}),
    ):
        breadcrumbs.merge(base, [tuned], method=method, **given)
    stack = {f"l.{i}.w": np.full(3, i, np.float32) for i in range(4)}
    save_file(stack, tmp_path / "a.safetensors")
    a = tmp_path / "a.safetensors"
    said = CliRunner().invoke(main, ["merge", f"{a}[0:2] + {a}[1:4]", "-o", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--alpha", "-p alpha=VALUE"),
        ("--lambda", "-p alpha=VALUE"),
        ("--density", "-p density=VALUE"),
        ("--cuda", "Leave it out."),
        ("--out-shard-size", "--shard-size"),
        ("--base-model", "first argument"),
        ("--ties", "-m ties"),
        ("--allow-crimes", "Leave it out."),
    ],
)
def test_options_of_other_programs(option: str, said: str) -> None:
    result = CliRunner().invoke(main, ["merge", "base", "ft", "-o", "x", option, "1"])
    assert result.exit_code == 2 and said in result.stderr


def test_options_of_other_programs_are_none_of_ours() -> None:
    merge = main.get_command(None, "merge")  # type: ignore[arg-type]
    assert merge is not None
    ours = {name.lstrip("-") for parameter in merge.params for name in parameter.opts}
    assert not ours & words.OPTIONS.keys()
    for advice in words.OPTIONS.values():
        for name in re.findall(r"--([a-z-]+)", advice):
            assert name in ours, advice


def test_the_mean_of_one_model_is_told_of(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "ft1", "ft2")):
        weights = np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32)
        save_file({"w": weights}, tmp_path / f"{name}.safetensors")

    def warned(*arguments: str) -> bool:
        paths = [str(tmp_path / a) if a.endswith("tensors") else a for a in arguments]
        out = str(tmp_path / "out.safetensors")
        result = CliRunner().invoke(main, ["merge", *paths, "--force", "-o", out, "-m", "average"])
        assert result.exit_code == 0, result.output
        return "the base does not count in it" in " ".join(result.stderr.split())

    assert warned("base.safetensors", "ft1.safetensors")
    assert not warned("base.safetensors", "ft1.safetensors", "-p", "base_weight=1")
    assert not warned("base.safetensors", "ft1.safetensors", "ft2.safetensors")
