"""Adapters by themselves, wherever a model is named, against PEFT and against ``BASE+ADAPTER``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.errors import MismatchError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


class Layers(torch.nn.Module):
    """A layer of each kind that adapters are for."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 12)
        self.linear = torch.nn.Linear(12, 18)
        self.square = torch.nn.Linear(12, 12)
        self.conv = torch.nn.Conv2d(4, 6, 3)
        self.point = torch.nn.Conv2d(4, 6, 1)
        self.turned = transformers.pytorch_utils.Conv1D(18, 12)
        self.head = torch.nn.Linear(12, 2)


def adapted(folder: Path, make: Any, config: Any, seed: int = 0) -> tuple[dict, Path, dict]:
    """Return the weights of a base, the folder of an adapter on it, and what PEFT merges."""
    torch.manual_seed(seed)
    base = make()
    before = {name: tensor.detach().clone() for name, tensor in base.state_dict().items()}
    live = peft.get_peft_model(base, config)
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    live.save_pretrained(folder)
    return before, folder, live.merge_and_unload().state_dict()


LINEAR = ["linear", "square"]


@pytest.mark.filterwarnings("ignore")
def test_a_table_of_more_tokens_is_for_the_plan(tmp_path: Path) -> None:
    """PEFT saves a table that was made larger whole; rows are matched or refused like a model's."""

    def larger() -> Any:
        model = Layers()
        model.embed = torch.nn.Embedding(22, 12)
        return model

    config = peft.LoraConfig(r=3, target_modules=LINEAR, modules_to_save=["embed"])
    base, folder, _ = adapted(tmp_path, larger, config)
    base["embed.weight"] = base["embed.weight"][:20].clone()
    with pytest.raises(MismatchError, match=r"shape \(22, 12\).*Was the vocabulary resized"):
        breadcrumbs.merge(base, [folder])  # no table by its name
    base["embed_tokens.weight"], rename = base.pop("embed.weight"), ["embed.*=embed_tokens.*"]
    with pytest.raises(MismatchError, match=r"shape \(22, 12\).*without a tokenizer"):
        breadcrumbs.merge(base, [folder], rename=rename)
    kept = breadcrumbs.merge(base, [folder], rename=rename, exclude="embed_tokens.*")
    assert (kept["linear.weight"] != base["linear.weight"]).any()
    with pytest.raises(MismatchError, match="Was the vocabulary resized"):
        tasks.from_adapter(base, folder, tmp_path / "t.safetensors", rename=rename)


KINDS = {
    "LoRA": peft.LoraConfig(r=3, lora_alpha=5, target_modules=[*LINEAR, "embed", "conv", "point"]),
    "rsLoRA": peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=LINEAR, use_rslora=True, rank_pattern={"square": 2},
        alpha_pattern={"linear": 7},
    ),
    "DoRA": peft.LoraConfig(r=3, lora_alpha=5, target_modules=LINEAR, use_dora=True),
    "DoRA of tables and convolutions": peft.LoraConfig(
        r=3, target_modules=["embed", "conv", "point"], use_dora=True, modules_to_save=["head"],
    ),
    "DoRA of (in, out)": peft.LoraConfig(
        r=3, target_modules=["turned"], use_dora=True, fan_in_fan_out=True
    ),
    "LoHa": peft.LoHaConfig(r=3, alpha=5, target_modules=[*LINEAR, "conv", "point"]),
    "LoHa, three matrices": peft.LoHaConfig(
        r=3, target_modules=["conv", "linear"], use_effective_conv2d=True,
        alpha_pattern={"linear": 2}, rank_pattern={"linear": 2},
    ),
    "LoKr": peft.LoKrConfig(r=8, alpha=5, target_modules=[*LINEAR, "conv", "point"]),
    "LoKr, thin": peft.LoKrConfig(
        r=1, alpha=5, target_modules=[*LINEAR, "conv"], decompose_both=True,
        use_effective_conv2d=True, rank_pattern={"square": 2},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_merges(tmp_path: Path, kind: str) -> None:
    base, folder, expected = adapted(tmp_path, Layers, KINDS[kind])
    merged = breadcrumbs.merge(base, [folder], method="task_arithmetic", alpha=1)
    changed = 0
    for name, tensor in expected.items():
        assert (merged[name] - tensor).abs().max() <= 2e-6 * tensor.abs().max(), name
        changed += bool((tensor - base[name]).abs().max() > 1e-3)
    assert changed >= 1
