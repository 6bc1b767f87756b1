"""An adapter that is trained instead of the weights: PEFT's LoRA on the linear layers of a module.

    W + 2 B A     A: (rank, in), drawn by the seed; B: (out, rank), 0 at first

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv:2106.09685. The
factor is alpha / rank of PEFT's configuration. A layer whose weight is frozen gets none, and
neither does one that gives the logits of a language model.
"""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint import Checkpoint
from breadcrumbs.errors import MissingExtraError, SuiteError, install
from breadcrumbs.modules.slots import Slots
from breadcrumbs.taskfile import view

if TYPE_CHECKING:
    import torch

#: PEFT's alpha over the rank.
SCALE = 2
#: Of the file of weights.
STEM = "adapter_model"


class Lora:
    """LoRA layers in a module, until they are removed.

    slots: of the module, which tell the base's names. rank: of each layer. freeze: globs of names
    of the base. seed: of A. base: what the adapter says that it is of. SuiteError where no linear
    layer is left.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        slots: Slots,
        rank: int,
        freeze: Sequence[str],
        seed: int,
        base: str,
    ):
        import torch

        peft = peft_or_error()
        names = {id(slot.tensor): name for name, slot in slots.names.items()}
        layers = self._layers = sorted(_layers(module, names, freeze))
        if not layers:
            raise SuiteError(f"--lora {rank}: no linear layer is left to adapt. Freeze less.")
        config = peft.LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=layers)
        torch.manual_seed(seed)
        self._wrapped: Any = peft.get_peft_model(module, config)
        self._config: Any = self._wrapped.peft_config["default"]
        self._config.base_model_name_or_path = base
        self._inside = True

    @property
    def weights(self) -> list[torch.nn.Parameter]:
        """The matrices A and B, in a fixed order."""
        return [weight for weight in self._wrapped.parameters() if weight.requires_grad]

    def state(self) -> dict[str, np.ndarray]:
        """Return what was trained, by the names that PEFT saves it with."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self._wrapped)
        return {name: tensor.detach().cpu().numpy() for name, tensor in found.items()}

    def write_config(self, folder: Path) -> None:
        """Write what PEFT reads beside the weights."""
        self._config.inference_mode = True
        self._config.target_modules = self._layers  # PEFT's is a set, in any order
        self._config.save_pretrained(str(folder))

    @contextmanager
    def opened(self, base: str) -> Iterator[Checkpoint]:
        """Give the fine-tuning that the adapter is on its base, out of a folder that then goes."""
        from safetensors.numpy import save_file

        with tempfile.TemporaryDirectory(prefix="breadcrumbs-lora-") as folder:
            self.write_config(Path(folder))
            save_file(self.state(), Path(folder, f"{STEM}.safetensors"))
            with view.open_model(base, folder) as model:
                yield model

    def remove(self) -> None:
        """Make the module what it was before."""
        if self._inside:
            self._wrapped.unload()
            self._inside = False


def peft_or_error() -> Any:
    """Return the module peft; MissingExtraError where it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError(
            f"--lora needs {error.name}, which is not installed. {install('evaluate', 'peft')}"
        ) from None
    return peft


def _layers(module: Any, names: dict[int, str], freeze: Sequence[str]) -> list[str]:
    """Return the names in the module of the linear layers to adapt."""
    import torch

    last = getattr(module, "get_output_embeddings", lambda: None)()
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and layer is not last
        and id(layer.weight) in names
        and not any(fnmatch.fnmatchcase(names[id(layer.weight)], glob) for glob in freeze)
    ]
