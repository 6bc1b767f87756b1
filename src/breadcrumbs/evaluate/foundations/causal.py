"""Causal language models: answers by likelihood, by generation, or asked by lm-eval.

Of a task with rows of its own, a prompt is written for each (`prompts`), and

    logits_k = log p(tokens of word k | prompt) / n_k     n_k: 1, or the length of the word
    loss     = mean over tokens of the cross-entropy of the right word and the end of the text

With the metric ``exact_match`` the model writes its answer instead, taking the likeliest token each
time, and is right where the first line is the row's label, spaces around it aside.

A task may name one of lm-eval's (``data: lm-eval:NAME``, or ``lm-eval:mine.yaml``), and its score
is the main metric of that: one that counts right answers, such as acc, acc_norm or exact_match.
lm-eval asks the model, as `foundation.Answering` says.

Validation and test rows of such a task are the two splits that lm-eval's task has of those names.
Where it has one, that is the test split, and the suite has to say what is to be chosen on:
``splits: {validation: "train[-500:]", test: validation}``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.errors import BreadcrumbsError, SuiteError
from breadcrumbs.evaluate.data import lm_eval
from breadcrumbs.evaluate.data.metrics import EXACT_MATCH
from breadcrumbs.evaluate.data.settings import Setting, checked
from breadcrumbs.evaluate.data.task import Rows, Split, Task
from breadcrumbs.evaluate.foundations import pretrained, texts
from breadcrumbs.evaluate.foundations.foundation import Batch
from breadcrumbs.evaluate.foundations.prompts import PAD, Prompts
from breadcrumbs.methods.parameters import Integer

if TYPE_CHECKING:
    import torch


#: How an answer is written, whatever the base's generation_config.json says.
GREEDY = {"do_sample": False, "num_beams": 1, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
GREEDY |= {"repetition_penalty": 1.0}


class Causal:
    """`Foundation` of models that transformers opens with AutoModelForCausalLM.

    It remembers the tokenizer of the base that was loaded last.
    """

    kind = "causal"
    trains_heads = False
    SETTINGS: Mapping[str, Setting] = {
        "max_tokens": Integer(256, 1, "tokens of a text; what is longer is cut"),
        "new_tokens": Integer(16, 1, "tokens of an answer that is generated, at most"),
    }

    def __init__(self, settings: Mapping[str, Any], folder: Path | None = None):
        self.settings: Mapping[str, Any] = checked(self.kind, self.SETTINGS, settings)
        self._tokenizer: Any = None

    def load(self, base: str) -> torch.nn.Module:
        """Return the language model of the base, in its own dtype, as such models are run."""
        transformers = pretrained.transformers_or_error()
        module = pretrained.model(transformers.AutoModelForCausalLM, base, widen=False)
        self._tokenizer = pretrained.beside(transformers.AutoTokenizer, base)
        return module

    def answers(self, task: Task) -> bool:
        """Whether `hits` is asked: of lm-eval's tasks, and where an answer is generated."""
        return isinstance(task.read, lm_eval.LmEval) or task.metric == EXACT_MATCH

    def hits(self, module: torch.nn.Module, task: Task, split: Split, size: int) -> np.ndarray:
        """Return which rows of a split are answered right, (n,) bool. After `load`.

        Of lm-eval's tasks SplitError where the task does not show them, SuiteError where its metric
        is no count.
        """
        reader = task.read
        if not isinstance(reader, lm_eval.LmEval):
            rows = task.rows(split)
            written = self._written(module, task, rows, size)
            right = [task.labels[label] for label in rows.labels]
            return np.array([text == answer for text, answer in zip(written, right, strict=True)])
        task.rows(split)
        with _asking(task), lm_eval.quiet():
            name, made = task.name, reader.task(split)
            model = lm_eval.lm_eval("models.huggingface").HFLM(
                pretrained=module, backend="causal", tokenizer=self._tokenizer, batch_size=size
            )
            found = lm_eval.lm_eval("evaluator").evaluate(
                model,
                {"tasks": {name: made}, "groups": {}, "group_map": {}},
                log_samples=True,
                bootstrap_iters=0,
            )
            return _hits(task, found["samples"][name])

    def prepare(self, task: Task, rows: Rows, size: int) -> Sequence[Batch]:
        """Return tokens of the prompts, rows of like length together. After `load`."""
        import torch

        tokens = self._prompts(task).of(rows, self.settings["max_tokens"])
        found = []
        for batch in texts.padded({"input_ids": tokens}, {}, rows.labels, size):
            lengths = torch.tensor([[len(tokens[row])] for row in batch.rows])
            found.append(replace(batch, inputs={**batch.inputs, "length": lengths}))
        return found

    def head(self, module: torch.nn.Module, task: Task) -> dict[str, torch.Tensor]:
        """Return the tokens of the words of the classes, and what likelihoods are divided by.

        ``words`` (classes, longest), padded with -100; ``trained``, the same with the end of the
        text after each; ``lengths`` (classes,). Of lm-eval's tasks nothing: it asks itself.
        """
        if isinstance(task.read, lm_eval.LmEval):
            return {}
        import torch

        prompts = self._prompts(task)
        tokens = prompts.words(task)
        end = self._tokenizer.eos_token_id
        ended = [[*word, end] if end is not None else word for word in tokens]
        made = {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(word) for word in rows], batch_first=True, padding_value=PAD
            )
            for name, rows in (("words", tokens), ("trained", ended))
        }
        made["lengths"] = torch.tensor(prompts.lengths(task, tokens), dtype=torch.float32)
        where = next(module.parameters()).device
        return {name: tensor.to(where) for name, tensor in made.items()}

    def logits(self, module: Any, head: Any, batch: Batch) -> torch.Tensor:
        """Return log-likelihoods (rows, classes) of the words, float32.

        One pass over the prompts gives the first token of all words, and one pass more each word of
        several tokens.
        """
        import torch

        words = head["words"]
        first = words[:1, :1].expand(len(batch.rows), -1)
        logs = _logits(module, batch, first)[:, 0].log_softmax(-1)
        columns = list(logs[:, words[:, 0]].unbind(-1))
        for number, word in enumerate(words):
            word = word[word != PAD]
            if len(word) > 1:
                word = word.expand(len(batch.rows), -1)
                logs = _logits(module, batch, word).log_softmax(-1)
                columns[number] = logs.gather(-1, word[..., None])[..., 0].sum(-1)
        return torch.stack(columns, -1) / head["lengths"]

    def loss(self, module: Any, head: Any, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of the tokens of the right words and the end after them."""
        import torch

        if not head:
            raise SuiteError("foundation causal: lm-eval asks its tasks; they are not trained on.")
        words = head["trained"][batch.labels.to(head["trained"].device)]
        words = words[:, : int((words != PAD).sum(-1).max())]
        return torch.nn.functional.cross_entropy(
            _logits(module, batch, words).flatten(0, 1), words.flatten(), ignore_index=PAD
        )

    def _prompts(self, task: Task) -> Prompts:
        if isinstance(task.read, lm_eval.LmEval):
            raise SuiteError("foundation causal: lm-eval asks its tasks; they are not trained on.")
        return Prompts(task, self._tokenizer)

    def _written(self, module: Any, task: Task, rows: Rows, size: int) -> list[str]:
        """Return the first line that the model writes after each prompt, without spaces around."""
        import torch

        found = [""] * len(rows)
        ends = self._tokenizer.eos_token_id
        pad = self._tokenizer.pad_token_id
        asked = {"eos_token_id": ends, "pad_token_id": ends if pad is None else pad}
        for batch in self.prepare(task, rows, size):
            ids, lengths = batch.inputs["input_ids"], batch.inputs["length"]
            places = torch.arange(ids.shape[1]) - (ids.shape[1] - lengths)  # now padded on the left
            mask = places >= 0
            ids = ids.gather(1, places.clamp(min=0))
            written = module.generate(
                input_ids=ids.to(module.device),
                attention_mask=mask.long().to(module.device),
                max_new_tokens=self.settings["new_tokens"],
                **GREEDY,
                **asked,
            )[:, ids.shape[1] :]
            texts_ = self._tokenizer.batch_decode(written, skip_special_tokens=True)
            for row, text in zip(batch.rows, texts_, strict=True):
                found[row] = text.strip().partition("\n")[0].strip()
        return found


def _logits(module: Any, batch: Batch, answers: torch.Tensor) -> torch.Tensor:
    """Return logits (rows, tokens, vocabulary), float32, of each token of the answers given the
    prompt and the tokens before.

    answers: (rows, tokens), padded with -100. What is padded lies after what is asked, which no
    token sees that comes before it, so no mask is needed.
    """
    import torch

    lengths = batch.inputs["length"].to(answers.device)
    ids = batch.inputs["input_ids"].to(answers.device)
    more = answers[:, :-1]
    ids = torch.cat([ids, torch.zeros_like(more)], 1)
    ids.scatter_(1, lengths + torch.arange(more.shape[1], device=ids.device), more.clamp(min=0))
    kept = ids.shape[1] - int(lengths.min()) + 1  # from the end of the shortest prompt on
    logits = module(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[:, -kept:]
    places = lengths - lengths.min() + torch.arange(answers.shape[1], device=ids.device)
    return logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1])).float()


def _hits(task: Task, samples: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the task's metric of each row, after the first filter unless it names another."""
    metric, _, wanted = task.metric.partition(",")
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    chosen = wanted or filters[0]
    if chosen not in filters:
        raise SuiteError(
            f"task {task.name!r}: metric {task.metric!r}: there is no such filter. Give one of"
            f" {', '.join(f'{metric},{name}' for name in filters)}."
        )
    mine = [sample for sample in samples if sample["filter"] == chosen]
    each = [sample[metric] for sample in sorted(mine, key=lambda sample: sample["doc_id"])]
    if not all(np.isscalar(one) and one in (0, 1) for one in each):
        raise SuiteError(
            f"task {task.name!r}: metric {metric!r} is not a count of right answers. Give one"
            f" that is,"
            " such as acc or exact_match."
        )
    return np.array(each, bool)


@contextlib.contextmanager
def _asking(task: Task) -> Iterator[None]:
    """Raise what lm-eval raises, of whatever type, as one line."""
    try:
        yield
    except BreadcrumbsError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SuiteError(f"task {task.name!r}: lm-eval cannot ask it: {reason}") from error
