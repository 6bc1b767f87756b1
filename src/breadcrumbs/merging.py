"""Merge: a recipe or arguments in, files or arrays out."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from blake3 import blake3

from breadcrumbs import automatic, card, checkpoint, memory, plan, sizes
from breadcrumbs.checkpoint import beside, composite, durable, sinusoids
from breadcrumbs.checkpoint.quantised.writing import Layout, SameSink
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.checkpoint.writer import Entry, Writer
from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Consumer, Writing
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.engine.outputs import Output, SegmentReport, TensorReport
from breadcrumbs.errors import CheckpointError, MismatchError, RecipeError
from breadcrumbs.plan import Plan, rounded, variants
from breadcrumbs.plan.judgement import judged, refuse
from breadcrumbs.recipe import SAME, Model, Recipe, override, to_mapping
from breadcrumbs.report import Report
from breadcrumbs.version import __version__
from breadcrumbs.work import Segment

Source = str | os.PathLike[str] | Mapping[str, Any]


def merge(
    base: Source,
    models: Sequence[Source],
    *,
    method: str = "breadcrumbs",
    output: str | os.PathLike[str] | None = None,
    weights: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    overrides: Sequence[Mapping[str, Any]] = (),
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    only_changed: bool = False,
    dtype: str | None = None,
    missing: str | Sequence[str] = "error",
    extra: str | Sequence[str] = "error",
    rename: str | Sequence[str] = (),
    allow_nonfinite: bool | Sequence[str] = False,
    untie: bool = False,
    seed: int = 0,
    onto: Source | None = None,
    statistics: Sequence[Source] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    kernel: str = "auto",
    sync: bool = True,
    strict: bool = False,
    **parameters: Any,
) -> Any:
    """Merge fine-tuned ``models`` into one: ``base + alpha * sum of transformed task vectors``.

    base, models: paths, hub ids (``org/name@revision``), or mappings of names to NumPy arrays or
        Torch tensors, such as a ``state_dict()`` (of a module, give that).
    method: a name that `breadcrumbs methods` lists; ``parameters`` are its parameters.
    output: a folder, or a ``.safetensors`` file, to stream the result to. Without it the result is
        returned as a dict of arrays: Torch tensors if the base is of Torch tensors, else NumPy.
    weights: one factor for each task vector. names: of the models, which key random masks.
    overrides: parameters for some tensors, such as ``{"tensors": "*.bias", "alpha": 1}``.
    exclude, only: globs of tensor names; what they leave out is copied from the base.
    only_changed, dtype, missing, extra, allow_nonfinite, untie, seed: see
        `breadcrumbs.recipe.Recipe`.
    rename: rules ``OLD=NEW`` for the names of models; each ``*`` of OLD goes into that of NEW. A
        prefix that the names of one model have and those of the other lack is found without.
    onto: a model that the step is added to instead of the base: with the other fine-tunings as
        ``models``, this improves a fine-tuning (Model Breadcrumbs, section 4.5).
    statistics: one for each model, for a method that needs them: what `breadcrumbs.statistics`
        makes, or paths of files of it.
    tokenizer: one of the paths, whose tokenizer files are copied instead of the base's, and its
        numbers of special tokens.
    threads: how many work at once (all cores unless told); the result does not depend on it.
    kernel: ``plain``, ``compiled`` or ``auto``; the same bits, faster or sooner.
    sync: wait until the output is on the disk, so that it survives a power cut.
    strict: whether any warning is an error: models that fit and yet do not go together (other
        configs or tokenizers, another pretraining, lost tensors). Without it, `Report.warnings`
        has them.

    Returns the dict, or with ``output`` a `breadcrumbs.report.Report`. Raises a
    `breadcrumbs.errors.BreadcrumbsError` that says in one line what is wrong and what to do.

    >>> import numpy as np, breadcrumbs
    >>> base = {"w": np.zeros(3, np.float32)}
    >>> tuned = {"w": np.array([1, 2, 4], np.float32)}
    >>> breadcrumbs.merge(base, [tuned], method="task_arithmetic", alpha=0.5)["w"].tolist()
    [0.5, 1.0, 2.0]
    """
    models = listed(models)
    mine = named(models, names)
    if isinstance(statistics, str | os.PathLike | Mapping):
        raise RecipeError("statistics: found one where a list belongs. Give one for each model.")
    for key, given in (("weights", weights), ("statistics", statistics)):
        check_length(key, given, models)
    recipe = Recipe(
        base=label(base, "base"),
        models=tuple(
            replace(
                model,
                weight=float(weights[i]) if weights else 1.0,
                statistics=label(statistics[i], f"statistics {i + 1}") if statistics else None,
            )
            for i, model in enumerate(mine)
        ),
        method=method,
        parameters=parameters,
        overrides=tuple(override(o, f"overrides[{i}]") for i, o in enumerate(overrides)),
        exclude=globs(exclude),
        only=globs(only),
        only_changed=only_changed,
        dtype=dtype,
        missing=missing,
        extra=extra,
        rename=globs(rename),
        allow_nonfinite=allow_nonfinite,
        untie=untie,
        seed=seed,
        onto=None if onto is None else label(onto, "onto"),
        tokenizer=None if tokenizer is None else os.fspath(tokenizer),
    )
    sources = [base, *models, *(statistics or []), *([] if onto is None else [onto])]
    with opened(recipe, sources) as it:
        if output is not None or strict:
            it = judged(it, strict)
        if output is not None:
            with durable.syncing(sync):
                return to_files(it, output, threads=threads, kernel=kernel, strict=strict)
        arrays, report = to_arrays(it, threads=threads, kernel=kernel)
        if strict:
            refuse(report.warnings)
    return memory.like(base, arrays)


def named(models: Sequence[Source], names: Sequence[str] | None = None) -> tuple[Model, ...]:
    """Return models as a recipe has them; RecipeError for another number of names."""
    models = listed(models)
    check_length("names", names, models)
    return tuple(
        Model(label(model, f"model {i + 1}"), name=names[i] if names else "")
        for i, model in enumerate(models)
    )


def listed(models: Iterable[Source]) -> list[Source]:
    """Return models as a list; RecipeError for one alone, which would be taken for a list."""
    if isinstance(models, str | os.PathLike | Mapping) or hasattr(models, "state_dict"):
        raise RecipeError("models: found one model where a list belongs. Give [model].")
    return list(models)


def check_length(key: str, given: Sequence[Any] | None, models: Sequence[Source]) -> None:
    """Raise RecipeError unless what is given is one for each model."""
    if given is not None and len(given) != len(models):
        raise RecipeError(f"{key}: {len(given)} are given for {len(models)} models.")


def globs(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return one glob or several, or rules that rename, as a recipe has them."""
    return (given,) if isinstance(given, str) else tuple(given)


def label(source: Source, otherwise: str) -> str:
    """Return how messages call a source: its path, or ``otherwise`` for arrays in memory."""
    if isinstance(source, Checkpoint):
        return source.label
    if not isinstance(source, str | os.PathLike | Mapping):
        raise CheckpointError(f"{otherwise}: {checkpoint.not_a_source(source)}")
    return otherwise if isinstance(source, Mapping) else os.fspath(source)


class opened:
    """A context that opens a recipe's checkpoints, gives its plan and closes them.

    sources: what to open instead of the recipe's paths: the base, the models, their statistics,
    `onto`, as far as there are any.
    """

    def __init__(self, recipe: Recipe, sources: Sequence[Source] | None = None):
        self.recipe = recipe
        self.sources = sources or recipe.paths
        self.stack = ExitStack()

    def __enter__(self) -> Plan:
        labels = self.recipe.paths
        with self.stack:
            found = [
                self.stack.enter_context(checkpoint.open(source, label))
                for source, label in zip(self.sources, labels, strict=True)
            ]
            made = planned(self.recipe, found)
            self.stack = self.stack.pop_all()
        return made

    def __exit__(self, *error: object) -> None:
        self.stack.close()


def planned(recipe: Recipe, checkpoints: Sequence[Checkpoint]) -> Plan:
    """Return the plan of a recipe for its open checkpoints, those of ``recipe.paths``, in order.

    Task files among them become the fine-tunings that they stand for, and models of other names
    those under the base's.
    """
    from breadcrumbs.plan import naming
    from breadcrumbs.tasks import adapted, view

    first = adapted.narrow(checkpoints[0])
    base, *models = view.on_base(first, [first, *checkpoints[1:]])
    onto = models.pop() if recipe.onto is not None else None
    number = len(recipe.models)
    others = [*models[:number], *([onto] if onto is not None else [])]
    composite.check_parts(base, others, recipe.missing, recipe.extra)
    lines = beside.notices(onto or base, models[:number])
    models, onto, statistics, notes = naming.under_base(
        recipe, base, models[:number], onto, models[number:]
    )
    base, *found = sinusoids.told([base, *models, *([onto] if onto is not None else [])])
    models, onto = found[: len(models)], found[-1] if onto is not None else None
    made = plan.make(recipe, base, models, onto, statistics)
    said = [f"{it.label}: {note}" for it in checkpoints for note in it.notes]
    warnings = (*made.warnings, *lines, *(line for it in checkpoints for line in it.warnings))
    if base.untied:
        from breadcrumbs.tasks import placing

        warnings = (*warnings, placing.said(base, base.untied))
    return replace(made, notes=(*said, *notes, *made.notes), warnings=warnings)


def _without_same_parts(it: Plan) -> Plan:
    """Return the plan with the parts of a model copied that are the base's in every model."""
    same = composite.same_parts(it.base, it.models) if it.onto is None else []
    start = tuple(f"{part}/" for part in same)
    tensors = (
        replace(t, copied="unchanged") if not t.copied and t.name.startswith(start) else t
        for t in it.tensors
    )
    return replace(it, tensors=tuple(tensors)) if same else it


def to_arrays(
    it: Plan, *, threads: int | None = None, kernel: str = "auto"
) -> tuple[dict[str, np.ndarray], Report]:
    """Carry out a plan in memory; return the merged arrays and the report."""
    if _is_quantised_again(it):
        raise RecipeError("dtype same: quantises what is written to files. Give an output.")
    began = time.perf_counter()
    it = _without_same_parts(it)
    threads = sizes.threads(it, threads, None, kernel)
    it = automatic.fixed(it, threads=threads, kernel=kernel)
    sink = memory.ArraySink(it)
    rows = runner.write(it, sink, threads=threads, kernel=kernel)
    return sink.arrays, Report.of(it, rows, time.perf_counter() - began)


def to_files(
    it: Plan,
    output: str | os.PathLike[str],
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    shard_size: int = 5 * 10**9,
    kernel: str = "auto",
    resume: bool = False,
    force: bool = False,
    verify: bool = False,
    strict: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
    choice: Choice | None = None,
    consumer: Callable[[Output], Consumer] = Writing,
) -> Report:
    """Carry out a plan into a folder or a ``.safetensors`` file; return the report.

    max_memory: bytes of resident memory not to go beyond; fewer threads are used if need be, and
    no kernels compiled.
    shard_size: bytes of a file of a folder at most. resume: go on with an interrupted merge.
    force: replace an existing output. verify: read the result again and compare digests.
    strict: whether warnings are errors, those of the plan before anything is read.
    progress: called with numbers of input bytes done.
    choice: how the models were chosen, for the metadata and the model card.
    consumer: makes what takes the merged segments, from the output.

    The output takes its name only when it is whole. Raises OutputError, MismatchError.
    """
    began = time.perf_counter()
    if strict:
        refuse(it.warnings)
    it = _without_same_parts(it)
    chosen = sizes.kernel(it, kernel, max_memory)
    threads = sizes.threads(it, threads, max_memory, chosen)
    output = Path(output)
    check_not_input(it, output)
    card.tokenizer_of(it)
    if it.target.folder:
        beside.files(it.target.folder)  # which says what cannot be read, before it is too late
    stamps = _stamps(it)
    budget = sizes.budget(it, threads, max_memory, chosen)
    it = automatic.fixed(it, threads=threads, kernel=chosen, progress=progress, budget=budget)
    known = {file: c.cut.hash for c in it.inputs if c.cut for file in c.files}
    digests = FileDigests(tuple(dict.fromkeys(f for c in it.inputs for f in c.files)), known)
    metadata = {"format": "pt", "breadcrumbs": _provenance(it, digests, choice)}
    layout = Layout(it) if _is_quantised_again(it) else None
    writer = Writer(
        output,
        layout.entries if layout else _entries(it),
        metadata,
        shard_size=shard_size,
        key=_key(it, shard_size, stamps),
        force=force,
        resume=resume,
        layout=variants.layout(it),
    )
    if not writer.single:
        it = replace(it, notes=(*it.notes, *variants.said(it)))
    sink, again = FileSink(writer), None
    try:
        if layout:
            again = SameSink(sink, writer, it, layout)
        rows = runner.run(
            it,
            consumer(again or sink),
            threads=threads,
            kernel=chosen,
            progress=progress,
            digests=digests,
            budget=budget,
        )
        if again:
            again.complete()
        _check_unchanged(stamps, _stamps(it))
        if verify:
            writer.verify()
        report = Report.of(it, rows, time.perf_counter() - began, digests.models(it))
        _check_added(it, rows)
        if report.norm and not again and rounded.is_base(it, sink.read):
            report.warnings.append(
                "the step is so small that rounding takes all of it, so the result is the base:"
                " give --dtype float32, or a larger step"
            )
        if strict:
            refuse(report.warnings)
        if again:
            report.lost = math.sqrt(again.lost) / report.norm if report.norm else 0.0
        if chosen != kernel:
            report.warnings.append(
                f"kernels are not compiled within {sizes.human(max_memory or 0)}, so this was slow;"
                " a merge without a limit compiles them, once"
            )
        metadata["breadcrumbs"] = _provenance(it, digests, choice)
        story = choice.to_markdown() if choice else ""
        writer.close(lambda folder: card.add(folder, it, report, digests, story))
    except Nothing:
        writer.discard()
        raise
    except BaseException:
        if again:
            again.close()
        writer.abandon()
        raise
    report.seconds = time.perf_counter() - began
    return report


class Nothing(MismatchError):
    """The merged model would be the base."""


def _check_added(it: Plan, rows: Sequence[TensorReport]) -> None:
    """Raise `Nothing` if a merge adds nothing to the base, though it was asked to.

    rows: what was done to its tensors.
    """
    others = [tensor for tensor in it.tensors if tensor.copied]
    taken = [t for t in others if t.name not in it.base or t.target is not t.base]
    asked = [
        tensor
        for tensor in it.merged
        if tensor.values.get("alpha") != 0 and any(own.weight for own in tensor.own)
    ]
    same = not it.merged and any(tensor.copied == "unchanged" for tensor in others)
    if taken or not (asked or same) or any(row.squares for row in rows):
        return
    why = "nothing is kept of the task vectors; are the parameters as meant?"
    if all(m is None or plan.equal(t.base, m) for t in it.merged for m in t.models):
        models = ", ".join(model.label for model in it.models)
        why = f"{models} and the base have the same weights. Give fine-tunings of it."
    raise Nothing(f"{it.base.label}: this merge adds nothing to it: {why}")


def _entries(it: Plan) -> list[Entry]:
    return [Entry(tensor.output, tensor.dtype, tensor.base.shape) for tensor in it.tensors]


def _is_quantised_again(it: Plan) -> bool:
    return it.recipe.dtype == SAME and bool(it.target.quantised)


def check_not_input(it: Plan, output: Path) -> None:
    """Refuse an output that is an input, lies in the folder of one, or holds one."""
    out = os.path.normcase(os.path.realpath(output))
    for source in it.inputs:
        for path in (source.folder, *source.files):
            if path is None:
                continue
            real = os.path.normcase(os.path.realpath(path))
            if _inside(out, real) or _inside(real, out):
                raise RecipeError(
                    f"{output}: is one of the models to merge, or in its folder, or holds it."
                    " Inputs are never written to; give another output."
                )


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


#: What is looked at to tell whether a file is still the same.
Stamp = tuple[int, int, int, int]


def _stamps(it: Plan) -> dict[str, Stamp]:
    """Return what changes when an input file is written to or replaced, of every one."""
    files = [file for source in it.inputs for file in source.files]
    return {str(file): _stamp(file) for file in files}


def _stamp(file: Path) -> Stamp:
    """Return size, times and inode: whoever sets the time of writing back changes the other one.

    Not the number of the disk, which may be another after the next start of the machine.
    """
    try:
        found = file.stat()
    except OSError:  # gone: changed
        return 0, 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _check_unchanged(before: dict[str, Stamp], after: dict[str, Stamp]) -> None:
    for file, stamp in before.items():
        if after[file] != stamp:
            raise CheckpointError(
                f"{file}: changed while it was being merged. Let nothing write to the inputs, and"
                " merge again with --force."
            )


def _provenance(it: Plan, digests: FileDigests, choice: Choice | None) -> str:
    """Return the recipe and the size and hash of every input file, as JSON.

    The hash of a task file is that which it has in its header, and which its blocks were compared
    with as they were read.
    """
    inputs = []
    for number, source in enumerate(it.inputs):
        hash_ = "task" if source.cut else "blake3"
        files = [
            {"file": source.shown_file(f), "bytes": digests.sizes[f], hash_: digests.digests[f]}
            for f in source.files
        ]
        what = "model" if number < len(it.origins) else "statistics"
        inputs.append({what: source.repo or source.label, "files": files})
    return json.dumps(
        {
            "version": __version__,
            "recipe": to_mapping(card.resolved(it), complete=True),
            "inputs": inputs,
            **({"choice": choice.to_mapping()} if choice else {}),
        },
    )


def _key(it: Plan, shard_size: int, stamps: dict[str, Stamp]) -> str:
    """Return a digest of all that the output's bytes and layout depend on."""
    places = variants.layout(it).places
    names = [(place.folder, place.stem, place.variant) for place in places]
    depends = [__version__, to_mapping(it.recipe, complete=True), stamps, shard_size, names]
    return blake3(json.dumps(depends).encode()).hexdigest()


class Choice(Protocol):
    """How the models of a merge were chosen."""

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain data, for the metadata."""
        ...

    def to_markdown(self) -> str:
        """Return it as a section of the model card."""
        ...


class FileSink:
    """Hands merged segments to a `Writer`, and tells which ones an earlier run finished."""

    def __init__(self, writer: Writer):
        self.writer = writer

    def is_done(self, segment: Segment) -> SegmentReport | None:
        note = self.writer.done.get((segment.index, segment.start))
        if note is None or note["stop"] != segment.stop:
            return None
        return SegmentReport.of(note)

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        self.writer.write(index, start, values)

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        self.writer.finished(segment.index, segment.start, segment.stop, report.to_mapping())

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        return self.writer.read(index, start, n)

    def keep(self, data: bytes) -> int:
        return self.writer.keep(data)

    def kept(self, at: int, size: int) -> bytes:
        return self.writer.kept(at, size)


def with_settings(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with what is given (not None) changed; parameters are merged."""
    parameters = changes.pop("parameters", None)
    changes = {key: value for key, value in changes.items() if value is not None}
    if parameters:
        changes["parameters"] = {**recipe.parameters, **parameters}
    return replace(recipe, **changes)
