"""Merge: models and arguments in, files or arrays out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from breadcrumbs.checkpoint import durable, like
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging.files import to_arrays, to_files
from breadcrumbs.merging.opening import Source, check_length, globs, label, listed, named, opened
from breadcrumbs.plan.judgement import judged, refuse
from breadcrumbs.plan.recipe import Recipe, override


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
    chat_template: str | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    pad_to: int | None = None,
    tokens: Mapping[str, Any] | None = None,
    threads: int | None = None,
    kernel: str = "auto",
    sync: bool = True,
    strict: bool = False,
    **parameters: Any,
) -> Any:
    """Merge fine-tuned ``models`` into one: ``base + alpha * sum of transformed task vectors``.

    base, models: paths, hub ids (``org/name@revision``), adapters of the base as PEFT saves them
        (a folder, its file, a hub id; also ``BASE+ADAPTER``), or mappings of names to NumPy arrays
        or Torch tensors, such as a ``state_dict()`` (of a module, give that).
    method: a name that `breadcrumbs methods` lists; ``parameters`` are its parameters.
    output: a folder, or a ``.safetensors`` file, to stream the result to. Without it the result is
        returned as a dict of arrays: Torch tensors if the base is of Torch tensors, else NumPy.
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
    threads: how many work at once (all cores unless told); the result does not depend on it.
    kernel: ``auto``, ``native``, ``numpy``, or the name of installed kernels; the same bits.
    sync: wait until the output is on the disk, so that it survives a power cut.
    strict: whether any warning is an error: models that fit and yet do not go together (other
        configs or tokenizers, another pretraining, lost tensors). Without it, `Report.warnings`
        has them.

    Returns the dict, or with ``output`` a `breadcrumbs.merging.report.Report`. Raises a
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
        raise RecipeError(
            "statistics: found one value where a list is expected. Give one for each model."
        )
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
        chat_template=chat_template,
        vocabulary=None if vocabulary is None else os.fspath(vocabulary),
        pad_to=pad_to,
        tokens=tokens or {},
    )
    sources = [base, *models, *(statistics or []), *([] if onto is None else [onto])]
    with opened(recipe, sources, by_token=True) as it:
        if output is not None or strict:
            it = judged(it, strict)
        if output is not None:
            with durable.syncing(sync):
                return to_files(it, output, threads=threads, kernel=kernel, strict=strict)
        arrays, report = to_arrays(it, threads=threads, kernel=kernel)
        if strict:
            refuse(report.warnings)
    return like.like(base, arrays)


def with_settings(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with what is given (not None) changed; parameters are merged."""
    parameters = changes.pop("parameters", None)
    changes = {key: value for key, value in changes.items() if value is not None}
    if parameters:
        changes["parameters"] = {**recipe.parameters, **parameters}
    return replace(recipe, **changes)
