"""Merge: models and arguments in, files or arrays out."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from breadcrumbs import kernels
from breadcrumbs.checkpoint import durable, places
from breadcrumbs.errors import RecipeError, explained, suggestion
from breadcrumbs.merging import adapting, opening, saving
from breadcrumbs.merging import progress as bars
from breadcrumbs.merging.files import carried_out, to_files
from breadcrumbs.merging.opening import Source, globs, label, opened
from breadcrumbs.merging.report import Report
from breadcrumbs.merging.result import Merged, given_back, kind_of
from breadcrumbs.methods import registry
from breadcrumbs.plan.judgement import judged, refuse
from breadcrumbs.plan.recipe import Recipe, override

if TYPE_CHECKING:
    from typing import Unpack

    import numpy as np
    import torch

    from breadcrumbs.checkpoint import Checkpoint, Weights
    from breadcrumbs.merging.options import Options

    Path_ = str | os.PathLike[str]
    Array = TypeVar("Array", bound=Any)
    M = TypeVar("M", bound=torch.nn.Module)


@overload
def merge(
    base: Source | None, models: Iterable[Source], *, output: Path_, **options: Unpack[Options]
) -> Report: ...
@overload
def merge(
    base: Source,
    models: Iterable[Source],
    *,
    output: None = None,
    as_: Literal["torch"],
    **options: Unpack[Options],
) -> Merged[torch.Tensor]: ...
@overload
def merge(
    base: Source,
    models: Iterable[Source],
    *,
    output: None = None,
    as_: Literal["numpy"],
    **options: Unpack[Options],
) -> Merged[np.ndarray]: ...
@overload
def merge(
    base: Path_ | Checkpoint,
    models: Iterable[Source],
    *,
    output: None = None,
    as_: None = None,
    **options: Unpack[Options],
) -> Merged[np.ndarray]: ...
@overload
def merge(
    base: Weights[Array] | Mapping[str, Array],
    models: Iterable[Source],
    *,
    output: None = None,
    as_: None = None,
    **options: Unpack[Options],
) -> Merged[Array]: ...
@overload
def merge(
    base: M,
    models: Iterable[Source],
    *,
    output: None = None,
    as_: None = None,
    **options: Unpack[Options],
) -> M: ...
@explained
def merge(
    base: Any,
    models: Any,
    *,
    method: str = "breadcrumbs",
    output: str | os.PathLike[str] | None = None,
    as_: Literal["numpy", "torch"] | None = None,
    to: Literal["model", "lora"] = "model",
    lora_rank: int | None = None,
    weights: Iterable[Any] | None = None,
    names: Iterable[str] | None = None,
    overrides: Sequence[Mapping[str, Any]] | None = (),
    exclude: str | Sequence[str] = (),
    only: str | Sequence[str] = (),
    only_changed: bool = False,
    dtype: Any = None,
    missing: str | Sequence[str] = "error",
    extra: str | Sequence[str] = "error",
    rename: str | Sequence[str] = (),
    allow_nonfinite: bool | Sequence[str] = False,
    untie: bool = False,
    seed: int = 0,
    onto: Any = None,
    statistics: Iterable[Any] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    chat_template: str | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    pad_to: int | None = None,
    tokens: Mapping[str, Any] | None = None,
    space: str = "full",
    device: str = "cpu",
    threads: int | None = None,
    kernel: str = "auto",
    sync: bool = True,
    strict: bool = False,
    force: bool = False,
    resume: bool = False,
    progress: bool | None = None,
    **parameters: Any,
) -> Any:
    """Merge fine-tuned ``models`` into one: ``base + alpha * sum of transformed task vectors``.

    base, models: paths, hub ids (``org/name@revision``), adapters of the base as PEFT saves them
        (a folder, its file, a hub id; also ``BASE+ADAPTER``), mappings of names to NumPy arrays or
        Torch tensors, such as a ``state_dict()``, Torch modules, or what `breadcrumbs.load`
        returns. A model of PEFT is its active adapter on its base; as ``base`` it is the base
        alone.
    method: a name that `breadcrumbs methods` lists; ``parameters`` are its parameters.
    output: a folder, or a ``.safetensors`` file, to stream the result to, or a URL of a bucket.
        Without it the result comes back as what the base was given as.
    as_: ``numpy`` or ``torch``: return a dict of such tensors instead.
    to: ``lora`` writes the folder of an adapter that PEFT loads on the base, of ``lora_rank`` at
        most: all that the step has, unless told. In a ``space`` of adapters, and for sums, the base
        may be None, or the name of a model that is not on this machine.
    weights: one factor for each task vector. names: of the models, which key random masks.
    overrides: parameters for some tensors, such as ``{"tensors": "*.bias", "alpha": 1}``.
    exclude, only: globs of tensor names; what they leave out is copied from the base.
    only_changed, dtype, missing, extra, allow_nonfinite, untie, seed: see
        `breadcrumbs.plan.recipe.Recipe`.
    rename: rules ``OLD=NEW`` for the names of models; each ``*`` of OLD goes into that of NEW. A
        prefix that the names of one model have and those of the other lack is found without.
    onto: a model that the step is added to instead of the base: with the other fine-tunings as
        ``models``, this improves a fine-tuning (Model Breadcrumbs, section 4.5).
    statistics: one for each model, for a method that needs them: what `breadcrumbs.statistics`
        makes, or paths of files of it.
    tokenizer: one of the paths, whose tokenizer files are copied instead of the base's, and its
        numbers of special tokens.
    chat_template: what the output's tokenizer gets: ``auto`` (that of most models), one of the
        paths, ``chatml``, ``llama3``, a file, or Jinja.
    vocabulary: ``base``, ``union`` or one of the paths, whose tokens the result has; unless told,
        the smallest that loses no token. Rows of embeddings are matched by token.
    pad_to: rows of the embedding are a multiple of this.
    tokens: which rows single tokens begin as, as in a recipe.
    space: ``core`` or ``knots``: merge adapters in coordinates of their own (docs/adapters.md).
    device: ``cuda`` makes products and decompositions of matrices on a GPU, with Torch, of methods
        that have any (docs/gpu.md).
    threads: how many work at once (all cores unless told); the result does not depend on it.
    kernel: ``auto``, ``native``, ``numpy``, or the name of installed kernels; the same bits.
    sync: wait until the output is on the disk, so that it survives a power cut.
    force, resume: replace an output that exists; go on with a merge that was interrupted.
    progress: show a bar: True, also on a terminal; False, never; else in notebooks alone.
    strict: whether any warning is an error: models that fit and yet do not go together (other
        configs or tokenizers, another pretraining, lost tensors). Without it, `Report.warnings`
        has them.

    Returns, with ``output``, the `breadcrumbs.merging.report.Report`. Without it, of a module a
    copy of it with the merged weights (without adapters), which warns of what a report would; else
    a dict of tensors of the base's kind (`breadcrumbs.merging.result.Merged`), whose ``report`` has
    it and which can be saved: of Torch where the base's are, of NumPy for a path. Inputs are never
    changed.

    Raises a `breadcrumbs.errors.BreadcrumbsError` that says in one line what is wrong and what to
    do.

    >>> import numpy as np, breadcrumbs
    >>> base = {"w": np.zeros(3, np.float32)}
    >>> tuned = {"w": np.array([1, 2, 4], np.float32)}
    >>> breadcrumbs.merge(base, [tuned], method="task_arithmetic", alpha=0.5)["w"].tolist()
    [0.5, 1.0, 2.0]
    """
    _check_keywords(method, parameters)
    models = opening.listed(models)
    factors = opening.numbers("weights", weights, models)
    given = opening.each("statistics", statistics, models)
    if output is not None and as_ is not None:
        raise RecipeError(f"as_: {as_!r} is for results in memory. Leave out as_ or the output.")
    if output is not None and not isinstance(output, str | os.PathLike):
        raise RecipeError(
            f"output: {output!r} is not a path. Give a folder, or a .safetensors file."
        )
    if to not in ("model", "lora"):
        raise RecipeError(f"to: there is no {to!r}. Give 'model' or 'lora'.")
    if to == "lora":
        adapting.check(output, resume)
        kind = "adapter"
    else:
        if lora_rank is not None:
            raise RecipeError("lora_rank: is of an adapter. Give to='lora'.")
        kind = kind_of(base, as_)
    if kind == "module" and output is None and untie:
        raise RecipeError("untie: a module holds tied weights once. Give its `state_dict()`.")
    recipe = Recipe(
        base=adapting.called(base) if to == "lora" else label(base, "base"),
        models=tuple(
            replace(
                model,
                weight=factors[i] if factors else 1.0,
                statistics=label(given[i], f"statistics {i + 1}") if given else None,
            )
            for i, model in enumerate(opening.named(models, names))
        ),
        method=method,
        parameters=opening.plain(parameters),
        overrides=tuple(
            override(one, f"overrides[{i}]") for i, one in enumerate(_overrides(overrides))
        ),
        exclude=globs(exclude),
        only=globs(only),
        only_changed=only_changed,
        dtype=opening.dtype_name(dtype),
        missing=missing,
        extra=extra,
        rename=globs(rename),
        allow_nonfinite=allow_nonfinite,
        untie=untie,
        seed=opening.whole("seed", seed),
        onto=None if onto is None else label(onto, "onto"),
        tokenizer=None if tokenizer is None else label(tokenizer, "tokenizer"),
        chat_template=chat_template,
        vocabulary=None if vocabulary is None else os.fspath(vocabulary),
        pad_to=None if pad_to is None else opening.whole("pad_to", pad_to),
        tokens=tokens or {},
        space=space,
        device=device,
    )
    added = [] if onto is None else [onto]
    state = opening.under(base, opening.any_files([*models, *added]))
    mine = opening.alongside(state, [*models, *added])
    sources = [state, *mine[: len(models)], *(given or []), *mine[len(models) :]]
    kernels.check(str(kernel))
    threads = None if threads is None else max(1, opening.whole("threads", threads))
    settings: dict[str, Any] = {"threads": threads, "kernel": kernel}
    if to == "lora":
        assert output is not None
        with adapting.opened(recipe, sources) as it, durable.syncing(sync):
            rank = None if lora_rank is None else opening.whole("lora_rank", lora_rank)
            settings |= {"force": force, "strict": strict}
            return adapting.to_folder(it, output, rank=rank, **settings)
    on_disk = all(isinstance(source, str | os.PathLike) for source in sources)
    with opened(recipe, sources, by_token=True) as it:
        if output is not None or strict or on_disk:
            it = judged(it, strict)
        total = it.bytes_measured + it.bytes_read
        if output is not None and places.is_output(os.fspath(output)):
            total += it.bytes_written
        with bars.bar(total, progress, "merging") as told:
            settings["progress"] = told
            if output is not None:
                with durable.syncing(sync):
                    return to_files(
                        it, output, strict=strict, force=force, resume=resume, **settings
                    )
            done, arrays, report = carried_out(it, **settings)
        if strict:
            refuse(report.warnings)
        if kind == "module":
            for line in report.warnings:
                warnings.warn(line, stacklevel=3)
            return given_back(base, state, arrays, as_)
        if on_disk:
            save = partial(_again, recipe, threads, kernel, sync, progress)
        else:
            save = partial(saving.save, saving.without_weights(done), report)
    return Merged.of(given_back(base, state, arrays, as_), report, save)


def _again(
    recipe: Recipe,
    threads: int | None,
    kernel: str,
    sync: bool,
    progress: bool | None,
    output: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    **settings: Any,
) -> Report:
    """Write a merge of files that is in memory already; return the report."""
    with opened(recipe, by_token=True) as it:
        it = judged(it, False)
        total = it.bytes_measured + it.bytes_read
        with bars.bar(total, progress, "saving") as told, durable.syncing(sync):
            return saving.again(
                it, tensors, output, threads=threads, kernel=kernel, progress=told, **settings
            )


def _overrides(given: Any) -> list[Any]:
    """Return overrides as a list; one alone is one."""
    if given is None or isinstance(given, Mapping):
        return [] if given is None else [given]
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise RecipeError(f"overrides: {given!r} is not a list. Give [{{'tensors': ..., ...}}].")
    return list(given)


def _check_keywords(method: Any, parameters: Mapping[str, Any]) -> None:
    """Raise RecipeError for what looks like a misspelt argument rather than a parameter."""
    known = registry.get(method).parameters
    mine = [name for name in inspect.signature(merge).parameters if name != "parameters"]
    for name in parameters:
        if name in ("overwrite", "exist_ok") and name not in known:
            raise RecipeError(f"merge: has no argument {name!r}. It is called 'force' here.")
        if name not in known and not suggestion(name, known) and (near := suggestion(name, mine)):
            raise RecipeError(f"merge: has no argument {name!r}.{near}")


def with_settings(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with what is given (not None) changed; parameters are merged."""
    parameters = changes.pop("parameters", None)
    changes = {key: value for key, value in changes.items() if value is not None}
    if parameters:
        changes["parameters"] = {**recipe.parameters, **parameters}
    return replace(recipe, **changes)
