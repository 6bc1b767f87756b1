"""T5, text to text: an input written with a template, and an answer out of a few words.

    logits_k = log p(tokens of word k and the end | input)         (rank classification)
    loss     = mean over tokens of the cross-entropy of the right word

The encoder runs once for each row, the decoder once for each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs.evaluate.data.settings import Setting, check_head, checked, words
from breadcrumbs.evaluate.data.task import Rows, Task
from breadcrumbs.evaluate.foundations import pretrained, texts
from breadcrumbs.evaluate.foundations.foundation import Batch
from breadcrumbs.methods.parameters import Integer

if TYPE_CHECKING:
    import torch

#: What the loss leaves out.
_PAD = -100


class T5:
    """`Foundation` of T5 models that transformers opens. Texts, and pairs of texts.

    It remembers the tokenizer of the base that was loaded last.
    """

    kind = "t5"
    trains_heads = False
    SETTINGS: Mapping[str, Setting] = {
        "max_tokens": Integer(128, 2, "tokens of an input; what is longer is cut"),
    }

    def __init__(self, settings: Mapping[str, Any], folder: Path | None = None):
        self.settings: Mapping[str, Any] = checked(self.kind, self.SETTINGS, settings)
        self._tokenizer: Any = None

    def load(self, base: str) -> torch.nn.Module:
        """Return the T5ForConditionalGeneration of the base."""
        transformers = pretrained.transformers_or_error()
        module = pretrained.model(transformers.T5ForConditionalGeneration, base)
        self._tokenizer = pretrained.beside(transformers.AutoTokenizer, base)
        return module

    def prepare(self, task: Task, rows: Rows, size: int) -> Sequence[Batch]:
        """Return tokens of the inputs, rows of like length together. After `load`.

        Of the task's head: ``template``, with ``{0}`` where the text goes, and ``{1}`` for the
        second of a pair.
        """
        check_head(task, ("template", "words"))
        columns = texts.columns(task, rows, self.kind)
        template = texts.template(task, len(columns))
        written = [template.format(*row) for row in zip(*columns, strict=True)]
        most = self.settings["max_tokens"]
        made = texts.batches(self._tokenizer, [written], rows.labels, size, most)
        names = ("input_ids", "attention_mask")
        return [replace(b, inputs={name: b.inputs[name] for name in names}) for b in made]

    def head(self, module: Any, task: Task) -> dict[str, torch.Tensor]:
        """Return the tokens (classes, longest) of the words of the classes, padded with -100.

        Of the task's head: ``words``, one for each label.
        """
        import torch

        check_head(task, ("template", "words"))
        tokens = [self._tokenizer(text_target=word)["input_ids"] for word in words(task)]
        texts.check_distinct(task, words(task), tokens)
        rows = [torch.tensor(word) for word in tokens]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=_PAD)
        return {"words": padded.to(next(module.parameters()).device)}

    def logits(self, module: Any, head: Any, batch: Batch) -> torch.Tensor:
        """Return log-likelihoods (rows, classes) of the words, float32."""
        import torch

        inputs = self._inputs(module, batch)
        encoded = module.get_encoder()(**inputs)
        columns = []
        for word in head["words"]:
            word = word[word != _PAD].expand(len(batch.rows), -1)
            logs = self._decoded(module, word, inputs, encoded).log_softmax(-1)
            columns.append(logs.gather(-1, word[..., None])[..., 0].sum(-1))
        return torch.stack(columns, -1)

    def loss(self, module: Any, head: Any, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of the tokens of the right words."""
        import torch

        inputs = self._inputs(module, batch)
        words = head["words"][batch.labels.to(head["words"].device)]
        logits = self._decoded(module, words, inputs, module.get_encoder()(**inputs))
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), words.flatten(), ignore_index=_PAD
        )

    def _inputs(self, module: Any, batch: Batch) -> dict[str, torch.Tensor]:
        device = next(module.parameters()).device
        return {name: tensor.to(device) for name, tensor in batch.inputs.items()}

    def _decoded(
        self, module: Any, words: Any, inputs: Mapping[str, Any], encoded: Any
    ) -> torch.Tensor:
        """Return logits (rows, tokens, vocabulary), float32, of each token given those before."""
        import torch

        config = module.config
        first = torch.full_like(words[:, :1], config.decoder_start_token_id)
        before = words[:, :-1].masked_fill(words[:, :-1] == _PAD, config.pad_token_id)
        return module(
            encoder_outputs=encoded,
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=torch.cat([first, before], 1),
            use_cache=False,
        ).logits.float()
