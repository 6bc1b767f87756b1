"""`router.safetensors`: which task a row is of, and what answers it, beside one merged model.

Tensors ``weight`` (tasks, width) and ``bias`` (tasks,), float32. The metadata (key `META`) are
JSON: ``version`` 1, the kind ``as``, hashes of the ``model``, ``base`` and ``foundation``, what was
drawn (``draw``), and of each task, in the order of the numbers, its ``name``, ``labels``, the
digest of its ``rows``, ``keys`` (16 digits of each row's), ``encoder_passes``, and the ``expert``
(a hash) that answers, with its ``numbers``; or ``heads``, the digest of the corrections that do.
``paths`` says where these are, from the file's folder on, and is no part of what the router is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint import whole
from breadcrumbs.checkpoint.safetensors import open_safetensors
from breadcrumbs.errors import CheckpointError, OutputError, SuiteError, listing, printable
from breadcrumbs.evaluate import learned
from breadcrumbs.evaluate.corrections import heads as corrections
from breadcrumbs.evaluate.corrections.heads import Heads

META, VERSION = "breadcrumbs.router", 1
KINDS = ("logistic",)
_KEYS = ("as", "model", "base", "foundation", "draw", "tasks", "heads")
_TASK = ("name", "labels", "rows", "keys", "encoder_passes", "expert", "numbers")


@dataclass(frozen=True, eq=False, repr=False)
class Router:
    """Tasks told apart. about: what the metadata say but for paths. numbers: arrays by name.

    heads: the corrections that answer, where they do. paths: of the experts by task, else.
    head_given: whether a row is answered with the head of its own task, whichever it is sent to, as
    most published results are. Unless told, with that of the task it is sent to.
    """

    about: Mapping[str, Any]
    numbers: Mapping[str, np.ndarray]
    paths: Mapping[str, str]
    heads: Heads | None = None
    path: str = "router"
    head_given: bool = False

    def __repr__(self) -> str:
        return f"<Router: {self.about['as']} between {listing(self.tasks)}>"

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Their names, by number."""
        return tuple(one["name"] for one in self.about["tasks"])

    @cached_property
    def digest(self) -> str:
        """BLAKE3 of what it is, and of how it answers."""
        hasher = blake3(json.dumps([self.about, self.head_given], sort_keys=True).encode())
        for name, array in sorted(self.numbers.items()):
            hasher.update(json.dumps([name, array.shape]).encode() + array.tobytes())
        return hasher.hexdigest()

    @property
    def called(self) -> str:
        """What is added to the name of the model."""
        draw = self.about["draw"]
        number = "all" if draw["rows"] is None else draw["rows"]
        seed = f", seed {draw['seed']}" if draw["seed"] else ""
        split = "test inputs" if draw["split"] == "test-inputs" else f"{draw['split']} rows"
        over = f"{self.heads.about['as']} corrections" if self.heads else "experts"
        known = "head given" if self.head_given else "task unknown"
        return f"{self.about['as']} router to {over}, {known} ({number} {split}{seed})"

    def choose(self, features: Any) -> np.ndarray:
        """Return the number of the task of each row (rows,), int64. features: (rows, width).

        Row by row in float64, so that a row's task depends on no other row, whatever the batch. A
        row with something that is no number is sent to the first task.
        """
        if not isinstance(features, np.ndarray):
            features = features.detach().float().cpu().numpy()
        weight, bias = (self.numbers[n].astype(np.float64) for n in ("weight", "bias"))
        rows = np.asarray(features, np.float64)
        logits = ((weight * row).sum(1) + bias for row in rows)
        return np.array([np.argmax(np.nan_to_num(one)) for one in logits], np.int64)

    def check_model(self, model: str, name: str) -> None:
        """Raise SuiteError unless it was learned behind the weights of that hash. name: its."""
        self._same("model", model, name)

    def check(self, model: str, base: str, foundation: str, name: str) -> None:
        """Raise SuiteError unless it was learned behind the model of that hash. name: its."""
        self._same("model", model, name)
        self._same("base", base, "the suite's base")
        self._same("foundation", foundation, "the suite's foundation")

    def check_task(self, task: str, labels: Iterable[str]) -> None:
        """Raise SuiteError unless it knows the task, with these labels."""
        mine = {one["name"]: one for one in self.about["tasks"]}.get(task)
        if mine is None:
            raise SuiteError(
                f"{self.path}: has no task {printable(task)!r}. It has {listing(self.tasks, 24)}."
                " Choose with --task, or learn it."
            )
        if mine["labels"] != list(labels):
            raise SuiteError(
                f"{self.path}: task {task!r} had other labels when it was learned. Learn it again."
            )

    def facts(self, task: str, split: str, keys: Iterable[bytes]) -> dict[str, Any]:
        """Return what a row of results says of it. keys: of the rows that are scored."""
        number, scored = self.tasks.index(task), list(keys)
        mine = self.about["tasks"][number]
        every = {**mine, "keys": [key for one in self.about["tasks"] for key in one["keys"]]}
        facts = learned.facts(self.about["draw"], every, split, scored) | {
            "learned_rows": len(mine["keys"]),
            "answers": "task",
            "task_known": self.head_given,
            "extra_numbers": self.numbers["weight"][number].size + 1 + mine["numbers"],
        }
        if self.heads is not None:
            more = self.heads.facts(task, split, scored)
            facts["transductive"] = facts["transductive"] or more["transductive"]
            for name in ("extra_numbers", "encoder_passes"):
                facts[name] += more[name]
        return facts

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the file, whole or not at all; OutputError if it exists, without ``force``."""
        from safetensors.numpy import save

        place = Path(path)
        if place.suffix != ".safetensors":
            raise OutputError(f"{place}: a router is one file. Give NAME.safetensors.")
        folder = os.path.join(os.path.realpath(place.parent), "")
        paths = {name: _short(given, folder) for name, given in self.paths.items()}
        if self.heads is not None:
            paths = {"": _short(self.heads.path, folder)}
        said = json.dumps({"version": VERSION, **self.about, "paths": paths}, sort_keys=True)
        arrays = {name: np.ascontiguousarray(one, "<f4") for name, one in self.numbers.items()}
        whole.write(place, [save(arrays, {META: said})], force=force)

    def _same(self, what: str, given: str, which: str) -> None:
        if self.about[what] != given:
            raise SuiteError(
                f"{self.path}: was learned behind {what} {self.about[what][:8]}, and {which} is"
                f" {given[:8]}. Learn it again for this one: breadcrumbs learn --what router."
            )


def label(path: str | os.PathLike[str] | None) -> str:
    """Return what messages call a router."""
    return "router" if path is None else printable(os.fspath(path))


def load(path: str | os.PathLike[str]) -> Router:
    """Return the router of a file, with the corrections that it leads to.

    CheckpointError for a file of something else, SuiteError where these corrections are others.
    """
    file = os.fspath(path)
    missing = "is not a router. Give a file that `breadcrumbs learn --what router` wrote."
    said, arrays = learned.read(file, META, missing)
    try:
        about = learned.parsed(said, VERSION, file)
        paths = about.pop("paths")
        tasks: Sequence[Any] = about["tasks"]
        fits = all(key in about for key in _KEYS) and about["as"] in KINDS
        fits = fits and all(key in one for one in tasks for key in _TASK)
        fits = fits and arrays["weight"].shape[:1] == arrays["bias"].shape == (len(tasks),)
        fits = fits and all(np.isfinite(array).all() for array in arrays.values())
        wanted = {""} if about["heads"] else {one["name"] for one in tasks}
        fits = fits and set(paths) == wanted and all(isinstance(p, str) for p in paths.values())
    except (ValueError, KeyError, AttributeError, TypeError):
        fits, about, paths = False, {}, {}
    if not fits:
        raise CheckpointError(f"{file}: is a damaged router. Learn it again.")
    folder = os.path.dirname(os.path.realpath(file))
    there = {name: _long(one, folder) for name, one in paths.items()}
    if not about["heads"]:
        return Router(about, arrays, there, None, file)
    behind = corrections.load(there[""])
    if behind.digest != about["heads"]:
        raise SuiteError(
            f"{file}: leads to corrections {about['heads'][:8]}, and {there['']} has"
            f" {behind.digest[:8]}. Learn the router again."
        )
    return Router(about, arrays, {}, behind, file)


def is_router(path: str | os.PathLike[str]) -> bool:
    """Return whether a safetensors file is a router."""
    with open_safetensors(os.fspath(path)) as found:
        return META in found.metadata


def _short(path: str, folder: str) -> str:
    """Return a path from the folder on, if it is inside; hub ids as they are."""
    if not os.path.exists(path):
        return path
    real = os.path.realpath(path)
    return real.removeprefix(folder) if real.startswith(folder) else real


def _long(path: str, folder: str) -> str:
    inside = os.path.join(folder, path)
    return inside if os.path.exists(inside) else path
