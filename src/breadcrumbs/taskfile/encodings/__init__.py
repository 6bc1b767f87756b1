"""How the values of a block are written: name -> encoding. One file each.

An encoding turns the fine-tuned weights at the kept places into bytes and back, block by block. It
is called by its name, and parameters after it: ``tvq:bits=3``, ``tsv:energy=0.8``.
"""

from __future__ import annotations

from breadcrumbs.errors import CheckpointError, RecipeError, suggestion
from breadcrumbs.methods import parameters
from breadcrumbs.taskfile.encodings import exact, low_rank, signed, tvq
from breadcrumbs.taskfile.encodings.kind import Encoding, Kind

__all__ = ["Encoding", "Kind", "asked", "get", "kinds"]


def kinds() -> dict[str, Kind]:
    """Return all kinds by name."""
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
            f"there is no encoding {text!r}. Choose from {', '.join(known)}; a newer version of"
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
