"""What one process of `breadcrumbs finetune` does: fine-tune, one task after the other."""

from __future__ import annotations

import contextlib
import fnmatch
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint import Checkpoint
from breadcrumbs.errors import SplitError, SuiteError, TrainingError, suggestion
from breadcrumbs.evaluate.data.task import Rows, Split, Task
from breadcrumbs.evaluate.finetuning import finetuned
from breadcrumbs.evaluate.finetuning.saved import Saved
from breadcrumbs.evaluate.finetuning.training import Settings, Step, Training, drawn, key
from breadcrumbs.evaluate.foundations.foundation import Answering, on
from breadcrumbs.evaluate.scoring.scoring import check_labels
from breadcrumbs.modules.precise import precise

if TYPE_CHECKING:
    from breadcrumbs.evaluate.finetuning.lora import Lora
    from breadcrumbs.evaluate.scoring.scoring import Scorer
    from breadcrumbs.evaluate.suite import Suite

#: Called with what is being done, or with a step.
Tell = Callable[[str | Step], None]


class Tuner:
    """Fine-tunes the base of a suite, and writes what comes out.

    settings: with a precision that is not ``auto``. cache: folder of heads, see `Scorer`. every:
    seconds between two states that are saved. force: begin again what was made or begun.
    """

    def __init__(
        self,
        suite: Suite,
        output: Path,
        settings: Settings,
        *,
        device: str = "cpu",
        cache: Path | None = None,
        every: float = 60.0,
        force: bool = False,
    ):
        self.force = force
        self.suite, self.output, self.settings = suite.tuning(), output, settings
        self.device, self.cache, self.every = device, cache, every
        self._scorer: Scorer | None = None

    def tune(self, name: str, seed: int, tell: Tell = lambda what: None) -> dict[str, Any]:
        """Return the record of a fine-tuning: made now, gone on with, or found finished."""
        task = self.suite.task(name)
        rows, validation = _read(task, "train"), _read(task, "validation")
        scorer, self._scorer = self._scorer or self._new_scorer(), None
        of = finetuned.made_of(self.suite, task, self.settings, seed)
        of |= {"base": scorer.keys.of(self.suite.base)}
        of |= {"training rows": rows.digest, "labels": list(task.labels)}
        path = finetuned.folder(self.output, name, seed)
        if self.force:
            finetuned.clear(path)
        record = finetuned.found(path)
        if record is not None:
            self._scorer = scorer
            finetuned.check_same(path, record["made_of"], of)
            finetuned.tidy(path)
            return record
        rows, base = drawn(rows, self.settings.rows, seed, name), scorer.base
        assert isinstance(base, Checkpoint)
        lora = self._lora(scorer, name, seed)
        writer = finetuned.begin(path, base, of, lora)
        saved = Saved(finetuned.partial(path) / finetuned.STATE, self.every)
        try:
            state, told = self._train(scorer, task, (rows, validation), seed, saved, tell, lora)
            record = {"made_of": of, **told}
            finetuned.finish(writer, base, state, record, lora)
        except TrainingError:
            saved.remove()  # going on from there would end in the same way
            raise
        except (MemoryError, RuntimeError) as error:  # Torch raises the latter
            full = ("out of memory" in str(error)) or ("allocate memory" in str(error))
            if isinstance(error, MemoryError) or full:
                raise TrainingError(
                    f"task {name!r}: out of memory. Run this again with fewer --workers to go on,"
                    f" or begin again (--force) with a --batch below {self.settings.batch}."
                ) from None
            raise
        finally:
            writer.abandon()
        # Not after a failure, when the weights are others than the scorer takes them for.
        self._scorer = scorer
        return record

    def _new_scorer(self) -> Scorer:
        from breadcrumbs.evaluate.scoring.scoring import Scorer

        return Scorer(
            self.suite,
            device=self.device,
            precision=self.settings.precision,
            cache=self.cache,
            train=True,
        )

    def _lora(self, scorer: Scorer, task: str, seed: int) -> Lora | None:
        """Put an adapter into the scorer's module, if one is to be trained."""
        if self.settings.lora is None:
            return None
        from breadcrumbs.evaluate.finetuning.lora import Lora

        settings, drawn = self.settings, key(seed, task, "lora")
        freeze, base = settings.freeze, self.suite.base
        _check_globs(scorer, freeze)
        return Lora(scorer.module, scorer.slots, self.settings.lora, freeze, drawn, base)

    def _train(
        self,
        scorer: Scorer,
        task: Task,
        read: tuple[Rows, Rows],
        seed: int,
        saved: Saved,
        tell: Tell,
        lora: Lora | None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the fine-tuned weights, by the base's names, or those of the adapter, and what is
        told of them.

        read: training and validation rows.
        """
        from breadcrumbs.checkpoint.hashing import model_hash

        settings, (rows, validation) = self.settings, read
        weights = _weights(scorer, settings.freeze) if lora is None else lora.weights
        tell("making the head")
        head = _own(scorer.head(task))
        _check_labels(scorer, head, task, rows, validation)
        it = Training(scorer.foundation, scorer.module, weights, head, task, rows, settings, seed)
        if (state := saved.read()) is None:
            tell("scoring the base")
            hash_ = scorer.keys.of(self.suite.base)
            before = scorer.score(task, "validation", scorer.base, hash_).value
            earlier = 0.0
        else:
            it.restore(state["training"])
            before, earlier = state["before"], state["seconds"]
            tell(f"going on after step {it.step}")
        began = time.perf_counter()

        def step(done: Step) -> None:
            tell(done)
            if done.rows < done.total and saved.is_due():
                spent = earlier + time.perf_counter() - began
                saved.write({"training": it.state(), "before": before, "seconds": spent})

        it.run(step)
        seconds = earlier + time.perf_counter() - began
        tell("scoring the result")
        trained = it.trained()
        with contextlib.ExitStack() as open_:
            if lora is None:
                state = tuned = _tuned(scorer, trained, task)
            else:
                state = lora.state()
                tuned = open_.enter_context(lora.opened(self.suite.base))
                lora.remove()
            hash_ = model_hash(tuned)
            after = scorer.score(task, "validation", tuned, hash_).value
        return state, {
            "model": hash_,
            "validation": {"metric": task.metric, "before": before, "after": after},
            "rows": {"train": len(rows), "validation": len(validation)},
            "tensors": {"trained": len(trained), "all": len(state)},
            "steps": it.step,
            "seconds": round(seconds, 3),
            "rows_per_second": round(it.total / seconds, 2),
            "device": str(scorer.device),
            "versions": finetuned.versions(),
        }


def _read(task: Task, split: Split) -> Rows:
    rows = task.rows(split)
    if not len(rows):
        raise SplitError(f"task {task.name!r}: there are no {split} rows. Fine-tuning needs some.")
    return rows


def _weights(scorer: Scorer, freeze: tuple[str, ...]) -> list[Any]:
    """Freeze the tensors whose names match; return the parameters that are left, each once."""
    slots = scorer.slots.names
    _check_globs(scorer, freeze)
    for name, slot in slots.items():
        if any(fnmatch.fnmatchcase(name, glob) for glob in freeze):
            slot.tensor.requires_grad_(False)
    found = {id(slot.tensor): slot.tensor for slot in slots.values() if slot.tensor.requires_grad}
    if not found:
        raise SuiteError(f"--freeze {' '.join(freeze)}: leaves nothing to train. Freeze less.")
    return list(found.values())


def _check_globs(scorer: Scorer, freeze: tuple[str, ...]) -> None:
    for glob in freeze:
        if not any(fnmatch.fnmatchcase(name, glob) for name in scorer.base):
            raise SuiteError(
                f"--freeze {glob!r}: matches no tensor of {scorer.suite.base}."
                f"{suggestion(glob, scorer.base)} `breadcrumbs inspect` lists the names."
            )


def _own(head: Any) -> Any:
    """Return copies of a head's tensors, which may be of a kind that no gradient goes through."""
    if isinstance(head, Mapping):
        return {name: _own(one) for name, one in head.items()}
    return head.clone() if hasattr(head, "clone") else head


def _check_labels(scorer: Scorer, head: Any, task: Task, rows: Rows, validation: Rows) -> None:
    """Raise SuiteError for labels that the head has no class for."""
    import torch

    if isinstance(scorer.foundation, Answering) and scorer.foundation.answers(task):
        return
    first = Rows(rows.inputs[:1], rows.labels[:1], rows.digest + "[:1]")
    batch = on(scorer.foundation.prepare(task, first, 1)[0], scorer.device)
    with torch.no_grad(), precise(scorer.precision, scorer.device):
        classes = scorer.foundation.logits(scorer.module, head, batch).shape[-1]
    check_labels(task, "train", rows.labels, np.arange(len(rows)), classes)
    check_labels(task, "validation", validation.labels, np.arange(len(validation)), classes)


def _tuned(scorer: Scorer, trained: set[int], task: Task) -> dict[str, np.ndarray]:
    """Return all tensors of the base's checkpoint: the trained ones, the others as they were."""
    slots, taken = scorer.slots.names, scorer.slots.take()
    state = {}
    for name in scorer.base:
        if name in slots and id(slots[name].tensor) in trained:
            state[name] = taken[name]
            if not np.isfinite(state[name]).all():
                raise TrainingError(
                    f"task {task.name!r}: tensor {name!r} has values that {state[name].dtype}"
                    " cannot hold. Lower the rate."
                )
        else:
            state[name] = scorer.base[name]
    return state
