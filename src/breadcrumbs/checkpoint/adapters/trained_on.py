"""Whether an adapter was trained on another model than the one that it is put into."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from breadcrumbs.checkpoint import opening, origin
from breadcrumbs.checkpoint.adapters.adapter import Adapter
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor, shown
from breadcrumbs.errors import BreadcrumbsError

#: Tensors and entries of each that are looked at.
_TENSORS, _ENTRIES = 4, 4096


def another(adapter: Adapter, base: Checkpoint, names: Iterable[str]) -> list[str]:
    """Return a line if an adapter names another model than ``base``, or one with other weights.

    names: what the adapter changes. A model that is not on this machine is not asked for; of one of
    a hub its name is compared, where the base is from there too.
    """
    named = adapter.trained_on
    repo = origin.at_commit(base).partition("@")[0]
    try:
        if not named or repo == named:
            return []
        if not Path(named).is_dir():
            return _other_repo(adapter, repo, named)
        with opening.opened(named) as theirs:
            both = [
                (base.tensors[n], theirs.tensors[n])
                for n in names
                if n in base.tensors and n in theirs.tensors
            ]
            alike = [(a, b) for a, b in both if (a.dtype, a.shape) == (b.dtype, b.shape)]
            if all(_begins(a) == _begins(b) for a, b in alike[:_TENSORS]):
                return []
    except (BreadcrumbsError, OSError, ValueError):
        return []  # that model is not what this merge is about
    return [
        f"{adapter.label} was trained on {shown(named)}, whose weights are not those of"
        f" {base.label}. Give that model as the base, unless this is intended"
    ]


def _other_repo(adapter: Adapter, repo: str, named: str) -> list[str]:
    if not repo or not opening.is_single(named):
        return []
    return [
        f"{adapter.label} was trained on {shown(named)}, and the base is {shown(repo)}. Give that"
        " model as the base, unless this one has the same weights"
    ]


def _begins(tensor: Tensor) -> bytes:
    """Return the bytes of the first entries of a tensor."""
    found = np.empty(min(_ENTRIES, tensor.size), DTYPES[tensor.dtype])
    tensor.read_into(0, found)
    return found.tobytes()
