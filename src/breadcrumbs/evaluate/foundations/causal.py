"""Causal language models, scored by lm-eval, which brings its own tasks.

A task of such a suite names one of lm-eval's (``data: lm-eval:NAME``, or ``lm-eval:mine.yaml``),
and its score is the main metric of that: one that counts right answers, such as acc, acc_norm or
exact_match. lm-eval asks the model, as `foundation.Answering` says.

Validation and test rows are the two splits that lm-eval's task has of those names. Where it has
one, that is the test split, and the suite has to say what is to be chosen on:
``splits: {validation: "train[-500:]", test: validation}``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from breadcrumbs.errors import BreadcrumbsError, SuiteError
from breadcrumbs.evaluate.data import lm_eval
from breadcrumbs.evaluate.data.settings import Setting, checked
from breadcrumbs.evaluate.data.task import Rows, Split, Task
from breadcrumbs.evaluate.foundations import pretrained
from breadcrumbs.evaluate.foundations.foundation import Batch

if TYPE_CHECKING:
    import torch


class Causal:
    """`Foundation` of models that transformers opens with AutoModelForCausalLM.

    It remembers the tokenizer of the base that was loaded last.
    """

    kind = "causal"
    trains_heads = False
    SETTINGS: Mapping[str, Setting] = {}

    def __init__(self, settings: Mapping[str, Any], folder: Path | None = None):
        checked(self.kind, self.SETTINGS, settings)
        self.settings: Mapping[str, Any] = {"lm_eval": lm_eval.version()}
        self._tokenizer: Any = None

    def load(self, base: str) -> torch.nn.Module:
        """Return the language model of the base, in its own dtype, as such models are run."""
        transformers = pretrained.transformers_or_error()
        module = pretrained.model(transformers.AutoModelForCausalLM, base, widen=False)
        self._tokenizer = pretrained.beside(transformers.AutoTokenizer, base)
        return module

    def hits(self, module: torch.nn.Module, task: Task, split: Split, size: int) -> np.ndarray:
        """Return which rows of a split lm-eval finds right, (n,) bool. After `load`.

        SplitError where the task does not show them, SuiteError where its metric is no count.
        """
        reader = task.read
        if not isinstance(reader, lm_eval.LmEval):
            raise SuiteError(
                f"task {task.name!r}: foundation causal takes tasks of lm-eval. Give data:"
                " lm-eval:NAME."
            )
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
        _only_asked()

    def head(self, module: torch.nn.Module, task: Task) -> dict[str, torch.Tensor]:
        """Return nothing: such models answer in words."""
        return {}

    def logits(self, module: torch.nn.Module, head: Any, batch: Batch) -> torch.Tensor:
        _only_asked()

    def loss(self, module: torch.nn.Module, head: Any, batch: Batch) -> torch.Tensor:
        _only_asked()


def _only_asked() -> NoReturn:
    raise SuiteError(
        "foundation causal: its models are only evaluated, with lm-eval, and not fine-tuned."
    )


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
