"""Write the adapters beside this file, and what PEFT merges them to. Needs peft 0.21.2.

    python tests/golden/peft/make.py

NAME/base, NAME/adapter (as PEFT saves them) and NAME/merged.safetensors (`merge_and_unload`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BERT = {
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 6,
}
GPT = {"vocab_size": 12, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 6}


def convolutions() -> Any:
    from torch.nn import Conv2d, Module

    class Convolutions(Module):
        def __init__(self):
            super().__init__()
            self.wide, self.thin = Conv2d(3, 8, 3), Conv2d(8, 8, 1)

    return Convolutions()


def bert() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**BERT))


def gpt() -> Any:
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config(**GPT))


MADE = {
    "plain": (bert, {"r": 2, "lora_alpha": 3, "target_modules": ["query", "dense"]}),
    "everything": (
        bert,
        {
            "r": 2,
            "lora_alpha": 3,
            "use_rslora": True,
            "target_modules": ["query", "value", "word_embeddings", "dense"],
            "rank_pattern": {"attention.output.dense": 3, "pooler.dense": 1},
            "alpha_pattern": {"value": 5, "pooler.dense": 7},
            "bias": "all",
            "modules_to_save": ["LayerNorm"],
        },
    ),
    "turned": (
        gpt,
        {"r": 3, "target_modules": ["c_attn", "c_proj", "wpe"], "fan_in_fan_out": True},
    ),
    "convolutions": (convolutions, {"r": 2, "target_modules": ["wide", "thin"]}),
}


def make(name: str, of: Any, settings: dict[str, Any]) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import save_file

    torch.manual_seed(3)
    folder = HERE / name
    module = of()
    base = {key: value.clone() for key, value in module.state_dict().items()}
    (folder / "base").mkdir(parents=True, exist_ok=True)
    save_file(base, folder / "base" / "model.safetensors")
    if hasattr(module, "config"):
        module.config.save_pretrained(folder / "base")
    tuned = get_peft_model(module, LoraConfig(**settings))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    tuned.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    config = folder / "adapter" / "adapter_config.json"
    said = json.loads(config.read_text())
    for key in ("target_modules", "modules_to_save"):  # sets, in any order
        said[key] = sorted(said[key]) if said[key] else said[key]
    config.write_text(json.dumps(said, indent=2))
    again = of()
    again.load_state_dict(base)
    merged = PeftModel.from_pretrained(again, str(folder / "adapter")).merge_and_unload()
    state = {key: value.contiguous() for key, value in merged.state_dict().items()}
    save_file(state, folder / "merged.safetensors")


if __name__ == "__main__":
    for name, (of, settings) in MADE.items():
        make(name, of, settings)
