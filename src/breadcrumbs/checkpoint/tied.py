"""Tied tensors given apart: a base as if it stored each of them.

`transformers` stores embeddings and a head that are one tensor once. What changes one of them alone
needs a tensor of its own for the other, which begins as the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import MismatchError, suggestion


def untied(base: Checkpoint, pairs: Mapping[str, str]) -> Checkpoint:
    """Return the base with tensors of their own: by name, the name of what each was tied to.

    A name that the base lacks gets the bytes of the other, which are read where they lie; one that
    it stores stays as it is. `Checkpoint.untied` has the pairs, those of earlier calls too.
    MismatchError where the base lacks what a name is tied to.
    """
    tensors = dict(base.tensors)
    for name, other in pairs.items():
        if other not in base.tensors:
            raise MismatchError(
                f"{base.label}: has no tensor {other!r} that {name!r} could be tied to."
                f"{suggestion(other, base.tensors)}"
            )
        tensors.setdefault(name, replace(base.tensors[other], name=name))
    if not pairs:
        return base
    return replace(base, tensors=tensors, untied={**base.untied, **pairs})


def stored(base: Checkpoint) -> Checkpoint:
    """Return the base with the tensors alone that its files hold, as it was before `untied`."""
    if not base.untied:
        return base
    views = {
        name
        for name, other in base.untied.items()
        if base.tensors[name].source is base.tensors[other].source
    }
    kept = {name: tensor for name, tensor in base.tensors.items() if name not in views}
    return replace(base, tensors=kept, untied={})
