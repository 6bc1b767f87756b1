"""Adapters merged into one adapter, against PEFT: its combinations, and what it loads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, MismatchError, RecipeError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

TARGETS = {"one": ["q_proj", "v_proj"], "two": ["q_proj", "down_proj"]}
RANKS = {"one": 3, "two": 2}
WEIGHTS = [0.7, -0.5]


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base, and adapters of it of other ranks and targets."""
    folder = tmp_path_factory.mktemp("adapting")
    llama().save_pretrained(folder / "base")
    for name, targets in TARGETS.items():
        config = peft.LoraConfig(
            r=RANKS[name], lora_alpha=5, target_modules=targets, task_type="CAUSAL_LM"
        )
        live = peft.get_peft_model(llama(), config)
        torch.manual_seed(len(name) + RANKS[name])
        with torch.no_grad():
            for parameter in live.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn_like(parameter) * 0.3)
        live.peft_config["default"].base_model_name_or_path = "org/base"
        live.save_pretrained(folder / name)
    return folder


def changes(live: Any) -> dict[str, np.ndarray]:
    """Return what PEFT adds to each weight in the active adapter of a model."""
    found = {}
    for name, module in live.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            (active,) = module.active_adapters
            if active in module.lora_A:
                delta = module.get_delta_weight(active).detach().double().numpy()
                found[name.removeprefix("base_model.model.")] = delta
    return found


def ours(folder: Path, output: Path, base: Any = None, **settings: Any) -> tuple[Any, Any]:
    """Return the report of a merge into an adapter, and what PEFT loads."""
    paths = [folder / name for name in TARGETS]
    report = breadcrumbs.merge(base, paths, output=output, to="lora", **settings)
    return report, peft.PeftModel.from_pretrained(llama(), output).eval()


def theirs(folder: Path, kind: str, **settings: Any) -> Any:
    live = peft.PeftModel.from_pretrained(llama(), folder / "one", adapter_name="one")
    live.load_adapter(folder / "two", adapter_name="two")
    live.add_weighted_adapter(list(TARGETS), WEIGHTS, "both", combination_type=kind, **settings)
    live.set_adapter("both")
    return live.eval()


def test_sums_are_those_of_peft(folder: Path, tmp_path: Path) -> None:
    """Of `cat` exactly, of `svd` cut to a rank; neither has the base, and each has its ranks."""
    settings = {"method": "task_arithmetic", "alpha": 1, "weights": WEIGHTS}
    report, live = ours(folder, tmp_path / "cat", **settings)
    expected = changes(theirs(folder, "cat"))
    found = changes(live)
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        np.testing.assert_allclose(found[name], delta, atol=1e-6)
    assert report.error < 1e-6
    ids = torch.arange(12)[None]
    logits = theirs(folder, "cat")(ids).logits
    torch.testing.assert_close(live(ids).logits, logits, atol=1e-4, rtol=1e-4)
    said = json.loads((tmp_path / "cat" / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "org/base"
    assert said["task_type"] == "CAUSAL_LM"
    config = live.peft_config["default"]
    ranks = {n: config.rank_pattern.get(n, config.r) for n in found}
    wanted = {"q_proj": 5, "v_proj": 3, "down_proj": 2}
    assert ranks == {n: wanted[n.rpartition(".")[2]] for n in found}

    report, live = ours(folder, tmp_path / "svd", lora_rank=2, **settings)
    cut, lost, whole = changes(theirs(folder, "svd", svd_rank=2)), 0.0, 0.0
    for name, delta in changes(live).items():
        np.testing.assert_allclose(delta, cut[name], atol=1e-5)
        lost += np.square(delta - expected[name]).sum()
        whole += np.square(expected[name]).sum()
    assert report.error == pytest.approx((lost / whole) ** 0.5, rel=1e-5)
    assert f"lacks {report.error:.2%} of the step" in report.adapter


def test_linear_of_peft_is_ours_and_cross_terms(folder: Path, tmp_path: Path) -> None:
    for name in TARGETS:  # which PEFT combines so only where ranks are the same
        said = json.loads((folder / name / "adapter_config.json").read_text())
        said |= {"r": 2, "target_modules": ["q_proj"]}
        rng, tensors = np.random.default_rng(len(name) + said["lora_alpha"] + RANKS[name]), {}
        for layer in range(2):
            stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
            tensors[f"{stem}A.weight"] = rng.normal(size=(2, 16)).astype(np.float32)
            tensors[f"{stem}B.weight"] = rng.normal(size=(16, 2)).astype(np.float32)
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "adapter_model.safetensors")
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(said))
    weights = [0.7, 0.5]
    settings = {"method": "task_arithmetic", "alpha": 1, "weights": weights}
    _, live = ours(tmp_path, tmp_path / "sum", **settings)
    other = peft.PeftModel.from_pretrained(llama(), tmp_path / "one", adapter_name="one")
    other.load_adapter(tmp_path / "two", adapter_name="two")
    other.add_weighted_adapter(list(TARGETS), weights, "both", combination_type="linear")
    other.set_adapter("both")
    found, linear = changes(live), changes(other)
    one, two = (breadcrumbs.load(tmp_path / n / "adapter_model.safetensors") for n in TARGETS)
    for name, delta in found.items():
        a, b = (f"base_model.model.{name}.lora_{x}.weight" for x in "AB")
        cross = 2.5 * (0.7 * 0.5) ** 0.5 * (one[b] @ two[a] + two[b] @ one[a])
        np.testing.assert_allclose(linear[name], delta + cross, atol=1e-5)


@pytest.mark.parametrize("space", ["core", "knots"])
def test_it_answers_as_the_whole_merge(folder: Path, tmp_path: Path, space: str) -> None:
    """By a method of masks, whether the base is there or not: the same bytes, but for its name."""
    settings = {"method": "ties", "density": 0.5, "space": space}
    _, live = ours(folder, tmp_path / "lora", **settings)
    breadcrumbs.merge(
        folder / "base", [folder / n for n in TARGETS], output=tmp_path / "whole", **settings
    )
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    ids = torch.arange(12)[None]
    torch.testing.assert_close(live(ids).logits, whole(ids).logits, atol=1e-5, rtol=1e-5)
    ours(folder, tmp_path / "again", folder / "base", **settings)
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in ("lora", "again"))
    first, second = breadcrumbs.load(one), breadcrumbs.load(other)
    assert first.shapes == second.shapes
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_in_full_the_step_is_formed_and_cut(folder: Path, tmp_path: Path) -> None:
    settings = {"method": "ties", "density": 0.5}
    report, live = ours(folder, tmp_path / "lora", folder / "base", lora_rank=3, **settings)
    merged = breadcrumbs.merge(
        folder / "base", [folder / n for n in TARGETS], dtype="float64", **settings
    )
    base, lost, whole = breadcrumbs.load(folder / "base"), 0.0, 0.0
    for name, delta in changes(live).items():
        step = merged[f"{name}.weight"] - base[f"{name}.weight"]
        u, s, v = np.linalg.svd(step)
        np.testing.assert_allclose(delta, u[:, :3] * s[:3] @ v[:3], atol=1e-6)
        lost += np.square(s[3:]).sum()
        whole += np.square(s).sum()
    assert report.error == pytest.approx((lost / whole) ** 0.5, rel=1e-6)
    with pytest.raises(RecipeError, match="weights in the base 'org/base' are needed"):
        ours(folder, tmp_path / "none", **settings)
    assert not (tmp_path / "none").exists()


class Layers(torch.nn.Module):
    """A layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = torch.nn.Embedding(20, 12)
        self.linear = torch.nn.Linear(12, 18)
        self.conv = torch.nn.Conv2d(4, 6, 3)
        self.norm = torch.nn.LayerNorm(12)
        self.head = torch.nn.Linear(12, 2)


@pytest.mark.parametrize("space", ["core", "full"])
def test_each_kind_of_module_is_loaded(tmp_path: Path, space: str) -> None:
    """Tables, convolutions, biases and modules that are kept whole; what the adapters agree on."""
    save_file({n: x.numpy() for n, x in Layers().state_dict().items()}, tmp_path / "b.safetensors")
    settings = {"target_modules": ["embed", "linear", "conv"], "modules_to_save": ["head"]}
    for seed in (1, 2):
        config = peft.LoraConfig(r=seed + 1, bias="lora_only", **settings)
        live = peft.get_peft_model(Layers(), config)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in live.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        live.save_pretrained(tmp_path / str(seed))
    paths, base = [tmp_path / "1", tmp_path / "2"], tmp_path / "b.safetensors"
    method = {"method": "average", "space": space}
    breadcrumbs.merge(base, paths, to="lora", output=tmp_path / "lora", **method)
    loaded = peft.PeftModel.from_pretrained(Layers(), tmp_path / "lora").merge_and_unload()
    expected = breadcrumbs.merge(base, paths, **method)
    for name, tensor in loaded.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], atol=1e-6)
    with pytest.raises(RecipeError, match=r"weights in the base '.*' are needed"):
        breadcrumbs.merge(None, paths, to="lora", output=tmp_path / "none", **method)


def test_what_cannot_be_is_said_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    out, paths = tmp_path / "out", [folder / name for name in TARGETS]
    cases: list[tuple[dict[str, Any], type[BreadcrumbsError], str]] = [
        ({"base": "org/other"}, MismatchError, "one: was trained on 'org/base', and the base is"),
        ({"output": None}, RecipeError, "written to a folder. Give an output"),
        ({"to": "gguf"}, RecipeError, "to: there is no 'gguf'"),
        ({"to": "model"}, RecipeError, "lora_rank: is of an adapter"),
        ({"lora_rank": 0}, RecipeError, "rank 0 is not possible"),
        ({"output": folder / "one" / "in"}, RecipeError, "is one of the models"),
        ({"method": "slerp", "models": paths[:1]}, RecipeError, "slerp looks at the base"),
        (
            {"method": "task_arithmetic", "dtype": "float16", "alpha": 1e12},
            MismatchError,
            "the step does not fit float16",
        ),
        (
            {"base": f"{folder / 'base'}+{paths[0]}", "models": paths[1:]},
            MismatchError,
            "is a model with an adapter, and an adapter of it",
        ),
    ]
    for given, kind, message in cases:
        settings = {"base": None, "models": paths, "output": out, "to": "lora", "lora_rank": 1}
        settings |= {"space": "core", **given}
        with pytest.raises(kind, match=message):
            breadcrumbs.merge(settings.pop("base"), settings.pop("models"), **settings)
    assert not out.exists()
    breadcrumbs.merge("org/base", paths, method="average", to="lora", output=out)
    with pytest.raises(BreadcrumbsError, match="exists"):
        breadcrumbs.merge("org/base", paths, method="average", to="lora", output=out)
    (out / "mine.txt").write_text("")
    with pytest.raises(BreadcrumbsError, match=re.escape("holds 'mine.txt'")):
        breadcrumbs.merge("org/base", paths, method="average", to="lora", output=out, force=True)


def test_the_command_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a base, with one that is but named, and from the recipe that lies beside."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> Any:
        return CliRunner().invoke(main, ["merge", *words])

    flags = ["-m", "ties", "--space", "core", "--to", "lora", "-w", "1", "-w", "2"]
    outs = [tmp_path / name for name in ("alone", "named", "again")]
    first = run("one", "two", *flags, "-o", str(outs[0]))
    assert first.exit_code == 0, first.output
    assert "adapter of rank" in first.output
    assert "lacks nothing of the step but rounding" in first.output
    named = run("org/base", "one", "two", *flags, "-o", str(outs[1]), "--json")
    found = json.loads(named.stdout)
    assert found["error"] < 1e-6
    assert found["adapter"].startswith("adapter of rank")
    again = run(str(outs[0] / "breadcrumbs.yaml"), "--to", "lora", "-o", str(outs[2]))
    assert again.exit_code == 0, again.output
    one, *others = (breadcrumbs.load(out / "adapter_model.safetensors") for out in outs)
    assert all(np.array_equal(one[name], other[name]) for other in others for name in one)
    assert "library_name: peft" in (outs[0] / "README.md").read_text()
    for words, message in [
        (["base", "one", "--rank", "2", "-o", "x"], "give --to lora"),
        (["one", "two", "--to", "lora", "--verify", "-o", "x"], "does not go with --verify"),
        (["one", "two", "--to", "lora"], "give -o OUTPUT"),
        (["base", "--to", "lora", "-o", "x"], "no fine-tuned model is given"),
        (["one", "two", "--space", "core", "-o", "x"], "one: is an adapter, not a base model"),
    ]:
        wrong = run(*words)
        assert wrong.exit_code in (1, 2)
        assert message in wrong.output
    wrong = CliRunner().invoke(main, ["reproduce", str(outs[0])])
    assert "is an adapter, and those are not compared" in wrong.output
