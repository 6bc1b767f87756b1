"""Compress: the models of many tasks into one archive, streamed.

Tensors go to threads; a thread holds a chunk of the models (of TSV-C: a matrix of one), and writes
it in order, so that each array is hashed as it is written.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs import machine
from breadcrumbs import plan as plans
from breadcrumbs.archives.archive import DIGESTS, HASH, KEY, METHODS, VERSION, VOTES, content_hash
from breadcrumbs.archives.report import Report
from breadcrumbs.archives.singular import rank, triplets
from breadcrumbs.checkpoint import durable, hashing, origin, quantised
from breadcrumbs.checkpoint.outfile import Entry
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor, items
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.engine import runner
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.rounding import rounded
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.engine.workspace import one_blas_thread
from breadcrumbs.errors import OutputError, RecipeError, suggestion
from breadcrumbs.merging import files, opening
from breadcrumbs.merging.published import Names
from breadcrumbs.methods.aggregates import Entries
from breadcrumbs.methods.parameters import written
from breadcrumbs.methods.published import emr, tall_masks
from breadcrumbs.plan import Plan, TensorPlan, units
from breadcrumbs.plan.judgement import judged
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.plan.units import Job
from breadcrumbs.threads import Stopped, Task, run_tasks
from breadcrumbs.version import __version__

#: The method of a merge that tells what a method of compression needs, the parameters that may be
#: given, and those that are fixed: masks are of the plain sum.
_MERGES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "tall": ("consensus", ("on", "scale"), {"alpha": 1.0}),
    "emr": ("emr", (), {}),
    "tsv": ("tsv_m", (), {}),
}


def compress(
    base: opening.Source,
    models: Sequence[opening.Source],
    output: str | os.PathLike[str],
    *,
    method: str = "tall",
    names: Sequence[str] | None = None,
    whole: str | Sequence[str] = (),
    rename: str | Sequence[str] = (),
    threads: int | None = None,
    force: bool = False,
    sync: bool = True,
    strict: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
    **parameters: Any,
) -> Report:
    """Write an archive from which, with the base, the model of each task is rebuilt.

    base, models: paths, hub ids or mappings of arrays, as for `breadcrumbs.merge`. output: a
        ``.safetensors`` file.
    method: ``tall`` (a multi-task model and a bit of each weight for each task), ``emr`` (a unified
        model, bits, and a factor for each task) or ``tsv`` (singular triplets of each task).
    parameters: of ``tall``: ``on`` and ``scale`` (lambda, one or one for each task), as of the
        method `tall_mask`.
    names: of the tasks, the last parts of the paths unless told. whole: globs of tensors that are
        stored as each model has them, such as heads; so are integers that a model changed, and
        tensors that the base lacks. rename: as for `breadcrumbs.merge`.
    threads: how many work at once, all cores unless told; the file does not depend on it. force:
        replace a file that exists. sync: wait until it is on the disk. strict: whether warnings
        are errors, as for `breadcrumbs.merge`. progress: called with numbers of input bytes done.
    """
    made = recipe(base, models, method, parameters, names=names, whole=whole, rename=rename)
    output = Path(output)
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: an archive is one file. Give NAME.safetensors.")
    with opening.opened(made, [base, *models], on_base=True) as plan, durable.syncing(sync):
        given = {"threads": threads, "force": force, "strict": strict, "progress": progress}
        return of(plan, output, method, **given)


def recipe(
    base: opening.Source,
    models: Sequence[opening.Source],
    method: str,
    parameters: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    whole: str | Sequence[str] = (),
    rename: str | Sequence[str] = (),
) -> Recipe:
    """Return the recipe whose plan `of` compresses; RecipeError for what is unknown."""
    if method not in METHODS:
        raise RecipeError(
            f"--method {method}: there is no such way to compress.{suggestion(method, METHODS)}"
            f" Choose from {', '.join(METHODS)}."
        )
    merge, known, fixed = _MERGES[method]
    for key in parameters:
        if key not in known:
            mine = f"It has {' and '.join(known)}." if known else "It has none."
            raise RecipeError(
                f"--method {method}: unknown parameter {key!r}.{suggestion(key, known)} {mine}"
            )
    if not models:
        raise RecipeError("compress: no models are given. Give a base and its fine-tunings.")
    return Recipe(
        opening.label(base, "base"),
        opening.named(models, names),
        merge,
        parameters={**parameters, **fixed},
        exclude=opening.globs(whole),
        rename=opening.globs(rename),
        extra="ignore",
    )


def of(
    plan: Plan,
    output: Path,
    method: str,
    *,
    threads: int | None = None,
    force: bool = False,
    strict: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Report:
    """Compress the models of a plan, as `compress` does."""
    began = time.perf_counter()
    files.check_not_input(plan, output)
    for source in plan.sources:
        quantised.refuse(source, "an archive")
    plan = judged(replace(plan, warnings=()), strict, packing=True)  # what the base lacks is stored
    compression = _Compression(plan, method, threads or machine.available_cores(), progress)
    compression.write(output, force)
    size, seconds = output.stat().st_size, time.perf_counter() - began
    return Report.of(
        plan, str(output), method, compression.votes, compression.trained, size, seconds
    )


@dataclass
class _Compression:
    """One archive under way. changed: by number of the tensor, which models changed it.

    votes: by tensor, how many of its changed weights are in how many masks. trained: weights in the
    tensors that some model changed.
    """

    plan: Plan
    method: str
    threads: int
    progress: Callable[[int], None]
    changed: dict[int, list[int]] = field(default_factory=dict)
    votes: dict[str, np.ndarray] = field(default_factory=dict)
    trained: int = 0

    def __post_init__(self) -> None:
        self.context, self.stop = Context(self.plan), threading.Event()
        self.tasks = [model.name for model in self.plan.recipe.models]
        self._digests: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def write(self, output: Path, force: bool) -> None:
        self._run([partial(self._find_changed, i) for i in range(len(self.plan.tensors))])
        self.changed = dict(sorted(self.changed.items()))
        merged = [t for i in self.changed if not (t := self.plan.tensors[i]).copied]
        self.trained = sum(tensor.base.size for tensor in merged)
        jobs = {
            job.pieces[0].index: job
            for job in units.jobs(self.plan)
            if not self.plan.tensors[job.pieces[0].index].copied
        }
        parameters: dict[str, Any] = {}
        if self.method == "tall":
            self.context.facts.add(runner.known(self.plan, threads=self.threads))
            for tensor in self.plan.merged[:1]:
                values = tensor.values
                parameters = {"on": values["on"], "scale": [str(s) for s in values["scale"]]}
        elif self.method == "emr":
            parameters = {"rescale": self._rescalers(jobs)}
        entries, tasks = self._layout(jobs)
        text = self._about(parameters, output)
        metadata = {KEY: text, HASH: "0" * 64}
        self.writer = Writer(
            output,
            entries,
            metadata,
            shard_size=None,
            key="",
            force=force,
            resume=False,
            digested=False,  # it has digests of its own
        )
        self.number = {entry.name: i for i, entry in enumerate(entries)}
        try:
            self._run(tasks)
            held = [(e.name, e.dtype, e.shape) for e in entries if e.name != DIGESTS]
            rows = [name.partition("/")[2] for name, _, _ in held if name.startswith("value/")]
            if rows:
                array = np.array([self.votes[name] for name in rows], np.int64)
                self._put(VOTES, 0, array.reshape(-1), blake3(), last=True)
            digests = b"".join(self._digests[name] for name, _, _ in held)
            self.writer.write(self.number[DIGESTS], 0, np.frombuffer(digests, np.uint8))
            metadata[HASH] = content_hash(text, held, digests)
            self.writer.close(lambda folder: None)
        except BaseException:
            self.writer.discard()
            raise

    def _run(self, tasks: Sequence[Callable[[], None]]) -> None:
        def task(do: Callable[[], None]) -> Task:
            def run() -> list[Task]:
                do()
                return []

            return run

        with one_blas_thread():  # the threads are those of the tasks
            run_tasks([task(do) for do in tasks], self.threads, self.stop)

    def _about(self, parameters: dict[str, Any], output: Path) -> str:
        base = self.plan.base
        name, _, revision = origin.at_commit(base).partition("@")
        changed = {self.plan.tensors[i].name for i in self.changed}
        tied = {t.name: t.tied for t in self.plan.tensors if t.tied and t.tied in changed}
        return json.dumps(
            {
                "version": VERSION,
                "method": self.method,
                "tasks": self.tasks,
                "parameters": {key: written(value) for key, value in parameters.items()},
                "base": {
                    "name": name or Names(self.plan, output).of(self.plan.recipe.base),
                    "revision": revision or None,
                    "hash": hashing.model_hash(base),
                },
                "program": f"breadcrumbs {__version__}",
                **({"tied": tied} if tied else {}),
            }
        )

    def _find_changed(self, index: int) -> None:
        tensor = self.plan.tensors[index]
        mine = [
            t
            for t, model in enumerate(tensor.models)
            if model is not None and not tensor.tied and not plans.equal(tensor.base, model)
        ]
        with self._lock:
            if mine:
                self.changed[index] = mine
            else:
                self.progress(tensor.bytes_read)

    # --- what goes into the file ---

    def _layout(self, jobs: Mapping[int, Job]) -> tuple[list[Entry], list[Callable[[], None]]]:
        """Return the arrays of the file, large items first, and the tasks that write them."""
        entries: list[Entry] = []
        tasks: list[Callable[[], None]] = []
        for index, models in self.changed.items():
            tensor = self.plan.tensors[index]
            if tensor.copied:
                self._add_wholes(tensor, models, entries, tasks)
            elif self.method == "tsv":
                self._add_triplets(tensor, models, entries, tasks)
            else:
                dtype = tensor.base.dtype if self.method == "tall" else _widest(tensor)
                entries.append(Entry(f"value/{tensor.name}", dtype, tensor.base.shape))
                size = -(-tensor.base.size // 8)
                entries += [Entry(f"mask/{t}/{tensor.name}", "U8", (size,)) for t in models]
                tasks.append(partial(self._write_masked, jobs[index], tensor, models))
        for t, model in enumerate(self.plan.models):
            partners = {n: found for n, found in model.tensors.items() if n in self.plan.base}
            for name, found in model.tensors.items():
                if name not in partners and plans.twin(model, name, partners) is None:
                    entries.append(Entry(f"whole/{t}/{name}", found.dtype, found.shape))
                    tasks.append(partial(self._copy, found, entries[-1].name))
        number = sum(entry.name.startswith("value/") for entry in entries)
        if number:
            entries.append(Entry(VOTES, "I64", (number, len(self.tasks) + 1)))
        entries.sort(key=lambda entry: -entry.itemsize)
        return [*entries, Entry(DIGESTS, "U8", (len(entries), 32))], tasks

    def _add_wholes(self, tensor: TensorPlan, models, entries, tasks) -> None:
        for t in models:
            model = tensor.models[t]
            assert model is not None
            entries.append(Entry(f"whole/{t}/{tensor.name}", model.dtype, model.shape))
            tasks.append(partial(self._copy, model, entries[-1].name))

    def _add_triplets(self, tensor: TensorPlan, models, entries, tasks) -> None:
        """Add the triplets of a matrix, or the models' own tensors, where those are no larger."""
        count = rank(tensor.base.shape, len(self.tasks))
        dtype = "F64" if tensor.base.dtype == "F64" else "F32"
        rows, columns = tensor.base.shape if count else (0, 0)
        size = count * (rows + columns) * DTYPES[dtype].itemsize
        if not count or size >= max(m.nbytes for m in tensor.models if m is not None):
            self._add_wholes(tensor, models, entries, tasks)
            return
        for t in models:
            entries.append(Entry(f"left/{t}/{tensor.name}", dtype, (rows, count)))
            entries.append(Entry(f"right/{t}/{tensor.name}", dtype, (count, columns)))
            tasks.append(partial(self._write_triplets, tensor, t, count))

    # --- the tasks ---

    def _copy(self, tensor: Tensor, name: str) -> None:
        hasher = blake3()
        chunk = self.plan.sizes.chunk
        for start in range(0, tensor.size, chunk):
            number = items(tensor.dtype, min(chunk, tensor.size - start))
            part = np.empty(number, DTYPES[tensor.dtype])
            tensor.read_into(start, part)
            self._put(name, start, part, hasher)
        self._digests[name] = hasher.digest()
        self.progress(tensor.nbytes)

    def _write_triplets(self, tensor: TensorPlan, task: int, count: int) -> None:
        left, right = triplets(self.plan, tensor, task, count)
        for side, array in (("left", left), ("right", right)):
            name = f"{side}/{task}/{tensor.name}"
            entry = self.writer.entries[self.number[name]]
            self._put(name, 0, array.astype(DTYPES[entry.dtype]).reshape(-1), blake3(), last=True)
        self.progress(tensor.bytes_read // (1 + len(tensor.models)))

    def _write_masked(self, job: Job, tensor: TensorPlan, models: Sequence[int]) -> None:
        value = f"value/{tensor.name}"
        dtype = self.writer.entries[self.number[value]].dtype
        hashers = {name: blake3() for name in [value, *(f"mask/{t}/{tensor.name}" for t in models)]}
        votes = np.zeros(len(self.tasks) + 1, np.int64)
        terms, kernels = Terms(self.context, job, tensor), self.context.kernels
        for start, entries in self._stream(job, tensor):
            raw, _ = terms.base(start, entries.taus.shape[1])
            base = terms.kernels.widen(raw).astype(np.float64)
            step, masks = self._step(entries, tensor)
            merged = kernels.add_step(base, step)
            if self.method == "tall":
                part = rounded(merged, tensor, kernels).view(DTYPES[dtype])
            else:
                part = kernels.round_to(merged, dtype).view(DTYPES[dtype])
            self._put(value, start, part, hashers[value])
            for t in models:
                name = f"mask/{t}/{tensor.name}"
                self._put(name, start // 8, np.packbits(masks[t]), hashers[name])
            votes += count_votes(entries.taus, masks)
        self._digests.update((name, hasher.digest()) for name, hasher in hashers.items())
        self.votes[tensor.name] = votes
        self.progress(tensor.bytes_read)

    def _step(self, entries: Entries, tensor: TensorPlan) -> tuple[np.ndarray, np.ndarray]:
        """Return the common task vector of some entries, and the masks (T, n)."""
        if self.method == "emr":
            return emr.elected(entries)
        total, rest = tall_masks.multi_task(entries)
        return total, tall_masks.masks(entries, total, rest, tensor.values)

    def _stream(self, job: Job, tensor: TensorPlan):
        it = Vectors(Terms(self.context, job, tensor))
        for segment in job.segments():
            for chunk in it.chunks(segment):
                if self.stop.is_set():
                    raise Stopped
                yield chunk.start, it.present(chunk)

    def _rescalers(self, jobs: Mapping[int, Job]) -> list[float] | list[dict[str, float]]:
        """Return the rescalers of all tasks, of a pipeline by component; tensors that nobody
        changed add nothing."""
        norms: dict[str, list[emr.Norms]] = {}

        def look_at(job: Job, tensor: TensorPlan) -> None:
            mine = [emr.Norms() for _ in self.tasks]
            for _, entries in self._stream(job, tensor):
                unified, agree = emr.elected(entries)
                for t, term in enumerate(entries.terms):
                    mine[t].add(term, unified, agree[t])
            with self._lock:
                known = norms.setdefault(tensor.component, [emr.Norms() for _ in self.tasks])
                for whole, part in zip(known, mine, strict=True):
                    whole += part

        changed = [(jobs[i], self.plan.tensors[i]) for i in self.changed if i in jobs]
        self._run([partial(look_at, job, tensor) for job, tensor in changed])
        if set(norms) <= {""}:
            return [norm.rescaler for norm in norms.get("", [emr.Norms() for _ in self.tasks])]
        return [
            {component: norms[component][t].rescaler for component in sorted(norms)}
            for t in range(len(self.tasks))
        ]

    def _put(self, name: str, start: int, values: np.ndarray, hasher: Any, last=False) -> None:
        self.writer.write(self.number[name], start, values)
        hasher.update(values.view(np.uint8).data)
        if last:
            self._digests[name] = hasher.digest()


def count_votes(taus: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return how many of the weights that some task changed are in 0, 1, ..., T masks."""
    changed = taus.any(axis=0)
    return np.bincount(np.count_nonzero(masks, axis=0)[changed], minlength=len(masks) + 1)


def _widest(tensor: TensorPlan) -> str:
    """Return the dtype that holds all weights of the models at a tensor."""
    names = {tensor.base.dtype, *(model.dtype for model in tensor.models if model is not None)}
    if len(names) == 1:
        return names.pop()
    return "F64" if "F64" in names else "F32"
