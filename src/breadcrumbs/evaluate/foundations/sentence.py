"""Sentence encoders (BERT, MiniLM and the like) with a head of class means.

e(x) = normalise(mean of the last hidden states of the tokens of x)
c_k  = normalise(mean of e(x) over the training rows of class k), by the base; then frozen
logits = scale * e(x) . c_k
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.errors import SuiteError, listing
from breadcrumbs.evaluate.data.settings import Positive, Setting, check_head, checked
from breadcrumbs.evaluate.data.task import Rows, Task
from breadcrumbs.evaluate.foundations import pretrained, texts
from breadcrumbs.evaluate.foundations.foundation import Batch
from breadcrumbs.methods.parameters import Integer, OneOf

if TYPE_CHECKING:
    import torch

#: Rows at once for a head. It is fixed, so that a head does not depend on who makes it.
_ROWS = 64


class Sentence:
    """`Foundation` of encoders that transformers opens with AutoModel. Texts, and pairs of texts.

    It remembers the tokenizer of the base that was loaded last.
    """

    kind = "sentence"
    trains_heads = True
    SETTINGS: Mapping[str, Setting] = {
        "max_tokens": Integer(32, 2, "tokens of a row; what is longer is cut"),
        "scale": Positive(20.0, "factor of the cosine"),
        "pooling": OneOf("mean", ("mean", "cls"), "over tokens, or the first token"),
    }

    def __init__(self, settings: Mapping[str, Any], folder: Path | None = None):
        self.settings: Mapping[str, Any] = checked(self.kind, self.SETTINGS, settings)
        self._tokenizer: Any = None

    def load(self, base: str) -> torch.nn.Module:
        """Return the encoder of the base. Its pooler, if it has one, is not used, and is frozen."""
        transformers = pretrained.transformers_or_error()
        module = pretrained.model(transformers.AutoModel, base, spare=("pooler.",))
        places = getattr(module.config, "max_position_embeddings", None)
        if places and self.settings["max_tokens"] > places:
            raise SuiteError(
                f"{base}: has places for {places} tokens, fewer than max_tokens:"
                f" {self.settings['max_tokens']}. Give that many or fewer."
            )
        if getattr(module, "pooler", None) is not None:
            module.pooler.requires_grad_(False)
        self._tokenizer = pretrained.beside(transformers.AutoTokenizer, base)
        return module

    def prepare(self, task: Task, rows: Rows, size: int) -> Sequence[Batch]:
        """Return tokens, rows of like length together. After `load`."""
        found = texts.columns(task, rows, self.kind)
        most = self.settings["max_tokens"]
        return texts.batches(self._tokenizer, found, rows.labels, size, most)

    def head(self, module: torch.nn.Module, task: Task) -> dict[str, torch.Tensor]:
        """Return the normalised means (classes, width) of the classes of the training rows."""
        import torch

        check_head(task, ())
        rows = task.rows("train")
        found = np.bincount(rows.labels, minlength=len(task.labels))
        absent = [label for label, n in zip(task.labels, found, strict=True) if not n]
        if absent:
            raise SuiteError(
                f"task {task.name!r}: no training row is {listing(absent)}, so there is no mean of"
                " that class. Give more training rows, or labels without it."
            )
        device = next(module.parameters()).device
        sums: Any = 0
        with torch.no_grad():
            for batch in self.prepare(task, rows, _ROWS):
                which = torch.nn.functional.one_hot(batch.labels.to(device), len(task.labels))
                embedded = self._embed(module, batch)
                sums = sums + which.double().T @ embedded.double()
        return {"classes": torch.nn.functional.normalize(sums, dim=-1).float()}

    def features(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return embeddings (rows, width) of length 1, float32.

        Those before have the length of their texts, which says nothing.
        """
        return self._embed(module, batch)

    def answer(self, head: Any, features: torch.Tensor) -> torch.Tensor:
        """Return scale * features . classes (rows, classes), float32.

        A corrected embedding is not made of length 1 again: no answer depends on that.
        """
        import torch

        with torch.autocast(features.device.type, enabled=False):
            return self.settings["scale"] * features @ head["classes"].T

    def logits(self, module: torch.nn.Module, head: Any, batch: Batch) -> torch.Tensor:
        """Return scale * cosine (rows, classes), float32 whatever autocast makes of the encoder."""
        return self.answer(head, self.features(module, batch))

    def loss(self, module: torch.nn.Module, head: Any, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of the classes."""
        import torch

        logits = self.logits(module, head, batch)
        return torch.nn.functional.cross_entropy(logits, batch.labels.to(logits.device))

    def _embed(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return normalised embeddings (rows, width), float32."""
        import torch

        device = next(module.parameters()).device
        inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        hidden = module(**inputs).last_hidden_state.float()
        if self.settings["pooling"] == "cls":
            pooled = hidden[:, 0]
        else:  # its length is of no account once it is normalised, so a sum will do
            pooled = (hidden * inputs["attention_mask"][..., None]).sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1)
