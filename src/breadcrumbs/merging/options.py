"""The keyword arguments of `breadcrumbs.merge`, as type checkers know them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from breadcrumbs.merging.opening import Source
from breadcrumbs.merging.typed import MethodName, Number, Parameters


class Options(Parameters, total=False):
    """All but ``output`` and ``as_``, on which the result depends; the method's parameters too."""

    method: MethodName | str
    weights: Iterable[Number] | None
    names: Iterable[str] | None
    overrides: Sequence[Mapping[str, Any]] | None
    exclude: str | Sequence[str] | None
    only: str | Sequence[str] | None
    only_changed: bool
    to: Literal["model", "lora"]
    lora_rank: int | None
    dtype: Any
    missing: str | Sequence[str]
    extra: str | Sequence[str]
    rename: str | Sequence[str]
    allow_nonfinite: bool | Sequence[str]
    untie: bool
    seed: int
    onto: Source | None
    statistics: Iterable[Source] | None
    tokenizer: str | os.PathLike[str] | None
    chat_template: str | None
    vocabulary: str | os.PathLike[str] | None
    pad_to: int | None
    tokens: Mapping[str, Any] | None
    space: Literal["full", "core", "knots"]
    device: str
    threads: int | None
    kernel: str
    sync: bool
    strict: bool
    force: bool
    resume: bool
    progress: bool | None
