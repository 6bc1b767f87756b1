"""`heads.safetensors`: the corrections of all tasks, bound to the model they were learned behind.

Tensors are ``TASK/NAME``, float32. The metadata (key `META`) are JSON: ``version`` 1, the
kind ``as``, hashes of the ``model`` and of the ``base`` (as results have them) and ``foundation``,
what was drawn (``draw``) and of each task its ``labels``, the ``expert`` (a hash), ``rows`` (their
digest), ``keys`` (16 digits of each row's) and ``encoder_passes``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint import whole
from breadcrumbs.errors import CheckpointError, OutputError, SuiteError, listing, suggestion
from breadcrumbs.evaluate import learned
from breadcrumbs.evaluate.corrections import blocks, kinds

META, VERSION = "breadcrumbs.heads", 1
DIGITS = learned.DIGITS
_KEYS = ("as", "model", "base", "foundation", "draw", "tasks")
_TASK = ("labels", "expert", "rows", "keys", "encoder_passes")


@dataclass(frozen=True, eq=False, repr=False)
class Heads:
    """Corrections by task. about: what the metadata say. numbers: task -> name -> array."""

    about: Mapping[str, Any]
    numbers: Mapping[str, Mapping[str, np.ndarray]]
    path: str = "heads"
    _torch: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Heads: {self.about['as']} for {listing(sorted(self.numbers))}>"

    @cached_property
    def kind(self) -> kinds.Kind:
        """What the corrections do."""
        return kinds.make(self.about["as"])

    @cached_property
    def digest(self) -> str:
        """BLAKE3 of what they are: numbers and metadata, in whichever order tasks were learned."""
        hasher = blake3(json.dumps(self.about, sort_keys=True).encode())
        for task, name, array in self._all():
            hasher.update(json.dumps([task, name, array.shape]).encode() + array.tobytes())
        return hasher.hexdigest()

    @property
    def called(self) -> str:
        """What is added to the name of the model."""
        draw = self.about["draw"]
        number = "all" if draw["rows"] is None else draw["rows"]
        label = ", labels" if draw["answers"] == "labels" else ""
        seed = f", seed {draw['seed']}" if draw["seed"] else ""
        split = "test inputs" if draw["split"] == "test-inputs" else f"{draw['split']} rows"
        return f"{self.about['as']} ({number} {split}{label}{seed})"

    def check(self, model: str, base: str, foundation: str, name: str) -> None:
        """Raise SuiteError unless they were learned behind the model of that hash. name: its."""
        self.check_model(model, name)
        for what, given in (("base", base), ("foundation", foundation)):
            if self.about[what] != given:
                raise SuiteError(
                    f"{self.path}: was learned behind {what} {self.about[what][:8]}, and the"
                    f" suite's {what} is {given[:8]}. Learn it again for this one: breadcrumbs"
                    " learn."
                )

    def check_model(self, model: str, name: str) -> None:
        """Raise SuiteError unless they were learned behind the weights of that hash. name: its."""
        if self.about["model"] != model:
            raise SuiteError(
                f"{self.path}: was learned behind model {self.about['model'][:8]}, and {name} is"
                f" {model[:8]}. Learn it again for this one: breadcrumbs learn."
            )

    def check_task(self, task: str, labels: Iterable[str]) -> None:
        """Raise SuiteError unless the task is there, with these labels."""
        if task not in self.numbers:
            raise SuiteError(
                f"{self.path}: has no task {task!r}.{suggestion(task, self.numbers)} It has"
                f" {listing(sorted(self.numbers), 24)}. Choose with --task, or learn it."
            )
        if self.about["tasks"][task]["labels"] != list(labels):
            raise SuiteError(
                f"{self.path}: task {task!r} had other labels when it was learned. Learn it again."
            )

    @property
    def is_inside(self) -> bool:
        """Whether blocks of the model are corrected: then features are computed `within` them."""
        return isinstance(self.kind, blocks.Blocks)

    def check_outside(self) -> None:
        """Raise SuiteError where blocks inside the model are corrected."""
        if self.is_inside:
            raise SuiteError(
                f"{self.path}: {self.about['as']} corrects blocks inside the model, which"
                " breadcrumbs evaluate alone does. Learn affine or lowrank:16 for other uses."
            )

    def within(self, stack: Any, task: str, device: Any) -> AbstractContextManager[None]:
        """Return a context in which blocks are corrected. stack: of the module (`Stack`)."""
        return blocks.within(stack.blocks, self._numbers(task, device))

    def logits(
        self, foundation: Any, head: Any, features: Any, task: str, *, within: bool = False
    ) -> Any:
        """Return logits (rows, classes) of corrected features. foundation: `Featured`.

        within: whether features were computed with the blocks corrected; SuiteError where they have
        to be, and were not.
        """
        features = self.features(task, features, within=within)
        return foundation.answer(self.head(task, head, features.device), features)

    def features(self, task: str, features: Any, *, within: bool = False) -> Any:
        """Return corrected features (rows, width) of a task: of NumPy or of Torch, as given.

        within: as for `logits`.
        """
        self._known(task)
        if not within:
            self.check_outside()
        if isinstance(features, np.ndarray):
            return self.kind.features(self.numbers[task], features)
        import torch

        with torch.autocast(features.device.type, enabled=False):
            return self.kind.features(self._numbers(task, features.device), features)

    def head(self, task: str, head: Any, device: Any = "cpu") -> Any:
        """Return the head that answers: tensors by name, on the device."""
        self._known(task)
        return self.kind.head(self._numbers(task, device), head)

    def facts(self, task: str, split: str, keys: Iterable[bytes]) -> dict[str, Any]:
        """Return what a row of results says of them. keys: of the rows that are scored."""
        mine = learned.facts(self.about["draw"], self.about["tasks"][task], split, keys)
        numbers = sum(array.size for array in self.numbers[task].values())
        return mine | {"task_known": True, "extra_numbers": numbers}

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the file, whole or not at all; OutputError if it exists, without ``force``."""
        from safetensors.numpy import save

        place = Path(path)
        if place.suffix != ".safetensors":
            raise OutputError(f"{place}: corrections are one file. Give NAME.safetensors.")
        tensors = {f"{task}/{name}": array for task, name, array in self._all()}
        said = json.dumps({"version": VERSION, **self.about}, sort_keys=True)
        whole.write(place, [save(tensors, {META: said})], force=force)

    def _known(self, task: str) -> None:
        self.check_task(task, self.about["tasks"].get(task, {}).get("labels", ()))

    def _all(self) -> Iterable[tuple[str, str, np.ndarray]]:
        for task in sorted(self.numbers):
            for name, array in sorted(self.numbers[task].items()):
                yield task, name, np.ascontiguousarray(array, "<f4")

    def _numbers(self, task: str, device: Any) -> Mapping[str, Any]:
        import torch

        key = f"{task}\0{device}"
        if key not in self._torch:
            arrays = self.numbers[task].items()
            self._torch[key] = {n: torch.from_numpy(a.copy()).to(device) for n, a in arrays}
        return self._torch[key]


def load(path: str | os.PathLike[str]) -> Heads:
    """Return the corrections of a file; CheckpointError for a file of something else."""
    file = os.fspath(path)
    missing = "is not a file of corrections. Give one that `breadcrumbs learn` wrote."
    said, arrays = learned.read(file, META, missing)
    try:
        about = learned.parsed(said, VERSION, file)
        fits = all(key in about for key in _KEYS)
        fits = fits and all(key in one for one in about["tasks"].values() for key in _TASK)
    except (ValueError, KeyError, AttributeError, TypeError):
        fits, about = False, {}
    numbers: dict[str, dict[str, np.ndarray]] = {task: {} for task in about.get("tasks", {})}
    for name, array in arrays.items():
        task, _, own = name.partition("/")
        fits = fits and task in numbers and bool(np.isfinite(array).all())
        numbers.setdefault(task, {})[own] = array
    if not fits or not all(numbers.values()):
        raise CheckpointError(f"{file}: its corrections are damaged. Learn them again.")
    made = Heads(about, numbers, file)
    made.kind  # noqa: B018 - a kind that there is not is an error here
    return made
