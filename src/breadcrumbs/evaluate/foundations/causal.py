"""Causal language models, scored by lm-eval, which brings its own tasks.

A task of such a suite names one of lm-eval's (``data: lm-eval:NAME``, or ``lm-eval:mine.yaml``),
and its score is the main metric of that. lm-eval asks the model, as
`breadcrumbs.evaluate.foundation.Scoring` says.

Validation and test rows are the two splits that lm-eval's task has of those names. Where it has
one, that is the test split, and the suite has to say what is to be chosen on:
``splits: {validation: "train[-500:]", test: validation}``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from breadcrumbs.errors import BreadcrumbsError, SuiteError
from breadcrumbs.evaluate.foundation import Batch, Measured
from breadcrumbs.evaluate.foundations import lm_tasks, pretrained
from breadcrumbs.evaluate.foundations.settings import Setting, checked
from breadcrumbs.evaluate.task import Rows, Split, Task

if TYPE_CHECKING:
    import torch

#: Draws for the standard errors that have no formula.
_DRAWS = 1000


class Causal:
    """`Foundation` of models that transformers opens with AutoModelForCausalLM.

    It remembers the tokenizer of the base that was loaded last.
    """

    kind = "causal"
    SETTINGS: Mapping[str, Setting] = {}

    def __init__(self, settings: Mapping[str, Any], folder: Path | None = None):
        checked(self.kind, self.SETTINGS, settings)
        self.settings: Mapping[str, Any] = {"lm_eval": lm_tasks.version()}
        self._tokenizer: Any = None

    def load(self, base: str) -> torch.nn.Module:
        """Return the language model of the base, in its own dtype, as such models are run."""
        transformers = pretrained.transformers_or_error()
        module = pretrained.model(transformers.AutoModelForCausalLM, base, widen=False)
        self._tokenizer = pretrained.beside(transformers.AutoTokenizer, base)
        return module

    def score(self, module: torch.nn.Module, task: Task, split: Split, size: int) -> Measured:
        """Return what lm-eval finds on the rows of a split, ``size`` requests at once.

        After `load`. SplitError where the task does not show them.
        """
        reader = task.read
        if not isinstance(reader, lm_tasks.LmEval):
            raise SuiteError(
                f"task {task.name!r}: foundation causal takes tasks of lm-eval. Give data:"
                " lm-eval:NAME."
            )
        task.rows(split)
        with _asking(task), lm_tasks.quiet():
            name, made = task.name, reader.task(split)
            model = lm_tasks.lm_eval("models.huggingface").HFLM(
                pretrained=module, backend="causal", tokenizer=self._tokenizer, batch_size=size
            )
            found = lm_tasks.lm_eval("evaluator").evaluate(
                model,
                {"tasks": {name: made}, "groups": {}, "group_map": {}},
                log_samples=False,
                bootstrap_iters=_DRAWS,
            )
            return _measured(task, found["results"][name], found["n-samples"][name]["effective"])

    def prepare(self, task: Task, rows: Rows, size: int) -> Sequence[Batch]:
        _only_scored()

    def head(self, module: torch.nn.Module, task: Task) -> Any:
        _only_scored()

    def logits(self, module: torch.nn.Module, head: Any, batch: Batch) -> torch.Tensor:
        _only_scored()

    def loss(self, module: torch.nn.Module, head: Any, batch: Batch) -> torch.Tensor:
        _only_scored()


def _only_scored() -> NoReturn:
    raise SuiteError("foundation causal: lm-eval scores its models; they are not trained here.")


def _measured(task: Task, found: Mapping[str, Any], items: int) -> Measured:
    """Return the task's metric, after the first filter unless the metric names another."""
    metric, _, wanted = task.metric.partition(",")
    filters = [key.partition(",")[2] for key in found if key.partition(",")[0] == metric]
    chosen = wanted or next(iter(filters), "")
    if chosen not in filters:
        raise SuiteError(
            f"task {task.name!r}: metric {task.metric!r}: there is no such filter. Give one of"
            f" {', '.join(f'{metric},{name}' for name in filters)}."
        )
    stderr = found.get(f"{metric}_stderr,{chosen}")
    return Measured(
        value=float(found[f"{metric},{chosen}"]),
        stderr=float(stderr) if isinstance(stderr, int | float) else None,
        items=int(items),
    )


@contextlib.contextmanager
def _asking(task: Task) -> Iterator[None]:
    """Raise what lm-eval raises, of whatever type, as one line."""
    try:
        yield
    except BreadcrumbsError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SuiteError(f"task {task.name!r}: lm-eval cannot score it: {reason}") from error
