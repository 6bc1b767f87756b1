"""How the values of a block are written: name -> encoding. One file each.

An encoding turns the fine-tuned weights at the kept places into bytes and back, block by block. It
is called by its name, and parameters after it: ``tvq:bits=3``, ``tsv:energy=0.8``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from breadcrumbs import parameters
from breadcrumbs.errors import CheckpointError, RecipeError, suggestion
from breadcrumbs.parameters import Parameter, Values


@dataclass(frozen=True)
class Encoding:
    """encode: (values, the base's weights there) -> (code, bytes).

    decode: (code, bytes, number, dtype, the base's weights there) -> values; raises CheckpointError
    without the place, and makes nothing larger than ``number`` values need. The base's weights are
    None unless ``needs_base``. lossless: whether what is decoded is what was encoded. rank:
    (shape of a matrix, its singular values) -> how many triplets stand for it; None where matrices
    are coded in blocks like all else. name: with its parameters, as it is called.
    """

    name: str
    encode: Callable[[np.ndarray, np.ndarray | None], tuple[int, bytes]]
    decode: Callable[[int, memoryview, int, np.dtype, np.ndarray | None], np.ndarray]
    lossless: bool
    needs_base: bool = False
    rank: Callable[[tuple[int, int], np.ndarray], int] | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of encoding. make: (its whole name, values) -> the encoding. packs: whether
    `task pack` offers it."""

    summary: str
    make: Callable[[str, Values], Encoding]
    parameters: Mapping[str, Parameter]
    packs: bool = True


def kinds() -> dict[str, Kind]:
    """Return all kinds by name."""
    from breadcrumbs.tasks.encodings import exact, low_rank, signed, tvq

    return {
        "exact": exact.KIND,
        "int8": signed.INT8,
        "int4": signed.INT4,
        "ternary": signed.TERNARY,
        "tvq": tvq.KIND,
        "tsv": low_rank.TSV,
        "lora": low_rank.LORA,
    }


def asked(text: str) -> Encoding:
    """Return the encoding that a user calls ``text``; RecipeError if there is none."""
    name, _, rest = text.partition(":")
    known = {name: kind for name, kind in kinds().items() if kind.packs}
    if name not in known:
        raise RecipeError(
            f"encoding: there is no {name!r}.{suggestion(name, known)} There are"
            f" {', '.join(known)}."
        )
    return _made(name, rest, known[name])


def get(text: object) -> Encoding:
    """Return the encoding that a file calls ``text``; CheckpointError if there is none."""
    name, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    known = kinds()
    if name not in known:
        raise CheckpointError(
            f"there is no encoding {text!r}. There are {', '.join(known)}; a newer version of"
            " Breadcrumbs may know more."
        )
    try:
        return _made(name, rest, known[name])
    except RecipeError as error:
        raise CheckpointError(str(error)) from None


def _made(name: str, rest: str, kind: Kind) -> Encoding:
    given = {}
    for pair in rest.split(",") if rest else ():
        key, equals, value = pair.partition("=")
        if not equals or key in given:
            raise RecipeError(
                f"encoding {name}: {pair!r} is not KEY=VALUE, once, such as tvq:bits=3"
            )
        given[key] = value
    values = parameters.parse(f"encoding {name}", kind.parameters, given)
    values = {**parameters.defaults(kind.parameters), **values}
    pairs = [f"{key}={parameters.written(value)}" for key, value in sorted(values.items())]
    return kind.make(f"{name}:{','.join(pairs)}" if pairs else name, values)
