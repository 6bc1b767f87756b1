"""A base of which only the name is known, and what adapters say of it: names and shapes, no weight.

Adapters are put into it like into any base (`inserted.put_into`), and what needs no weight of it
can be done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from breadcrumbs.checkpoint.adapters import matrices, reading
from breadcrumbs.checkpoint.adapters.adapter import Adapter
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import MismatchError, RecipeError

#: Under what the metadata of such a base say what PEFT calls its kind.
TASK = "task_type"


@dataclass(frozen=True)
class Absent:
    """The bytes of a tensor of a base that is not there. turned: whether it lies as (in, out)."""

    name: str
    base: str
    turned: bool

    def read_into(self, start: int, out: memoryview) -> None:
        """Raise RecipeError."""
        raise RecipeError(
            f"tensor {self.name!r}: its weights in the base {shown(self.base)} are needed for this"
            " merge. Give the folder of the base first, or merge in the space of the adapters"
            " (--space core)."
        )


def of(sources: Sequence[Checkpoint], named: str = "") -> Checkpoint:
    """Return the base that open adapters are for, without its weights.

    named: how the user calls it; without it, it is what the adapters say. MismatchError where they
    say different ones, or that a weight has different shapes; RecipeError for adapters that do not
    tell the shapes.
    """
    adapters = [_read(source) for source in sources]
    label = _agreed(adapters, named)
    tensors: dict[str, Tensor] = {}
    for adapter in adapters:
        turned = bool(adapter.config.get("fan_in_fan_out"))
        for name, shape in _shapes(adapter).items():
            mine = Tensor(name, "F32", shape, Absent(name, label, turned))
            known = tensors.setdefault(name, mine)
            if known.shape != shape or known.source != mine.source:
                raise MismatchError(
                    f"{adapter.label}: {shown(name)} is for a weight of shape {shape}"
                    f"{' (fan_in_fan_out)' * turned}, and another adapter's is for one of"
                    f" {known.shape}. They are of different bases."
                )
    kinds = {str(adapter.config.get("task_type") or "") for adapter in adapters}
    return Checkpoint(label, tensors, metadata={TASK: kinds.pop() if len(kinds) == 1 else ""})


def _read(source: Checkpoint) -> Adapter:
    if source.is_bare_adapter:
        found = reading.of(source)
        if found.kind == "PEFT":
            return found
    raise RecipeError(
        f"{source.label}: is no adapter of PEFT, so the names and shapes of the base's weights are"
        " not known from it. Give the folder of the base first."
    )


def _agreed(adapters: Sequence[Adapter], named: str) -> str:
    """Return what the base is called; MismatchError where adapters were trained on others."""
    said = named
    for adapter in adapters:
        theirs = adapter.trained_on
        if said and theirs and _last(theirs) != _last(said):
            raise MismatchError(
                f"{adapter.label}: was trained on {shown(theirs)}, and the base is {shown(said)}"
                f"{'' if named else ', by the adapters before it'}. Give the folder of the base"
                " first, if they are one."
            )
        said = said or theirs
    return said or "base"


def _last(name: str) -> str:
    return name.rstrip("/\\").replace("\\", "/").rpartition("/")[2].partition("@")[0].lower()


def _shapes(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that an adapter changes; RecipeError if it does not say."""
    unknown = [*adapter.others, *adapter.stacks, *adapter.rows]
    if unknown:
        raise RecipeError(
            f"{adapter.label}: does not say of which shape the base's {shown(unknown[0])} is. Give"
            " the folder of the base first."
        )
    found: dict[str, tuple[int, ...]] = {}
    for name, (a, _) in adapter.products.items():
        shape = matrices.shape(adapter, name)
        table = ".lora_embedding_" in a.name
        is_turned = bool(adapter.config.get("fan_in_fan_out")) and len(shape) == 2
        found[name] = shape[::-1] if table or is_turned else shape
    return found | {name: tensor.shape for name, tensor in adapter.whole.items()}
