"""Which weight and parameters hold for a tensor, and for each model in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from breadcrumbs.checkpoint import composite
from breadcrumbs.checkpoint.tables import is_table
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import parameters
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.parameters import Values
from breadcrumbs.methods.transforms import unit_of
from breadcrumbs.plan import lowering
from breadcrumbs.plan.recipe import Override, Recipe
from breadcrumbs.plan.ties import matches


@dataclass(frozen=True)
class Own:
    """What holds for one model in one tensor."""

    weight: float
    values: Values


#: By tensor, the parameters, and what each model has of its own.
Found = dict[str, tuple[Values, tuple[Own, ...]]]


class Settings:
    """What the parameters of a tensor are. Tensors with the same overrides share one answer."""

    def __init__(self, method: Method, recipe: Recipe):
        self.method, self.recipe = method, recipe
        self._known: dict[tuple[bool, tuple[int, ...]], tuple[Values, tuple[Own, ...]]] = {}

    def of(self, name: str) -> tuple[Values, tuple[Own, ...]]:
        """Return the parameters of the tensor of that name, and what each model has of its own."""
        overrides = self.recipe.overrides
        match = tuple(i for i, o in enumerate(overrides) if matches([o.tensors], name))
        key = is_table(name), match
        if key not in self._known:
            self._known[key] = self._find(key[0], [overrides[i] for i in match])
        return self._known[key]

    def _find(self, table: bool, overrides: Sequence[Override]) -> tuple[Values, tuple[Own, ...]]:
        common = dict(self.recipe.parameters)
        for override in overrides:
            if not override.model:
                common.update(override.parameters)
        values = self._complete(common, table)
        own = []
        for model in self.recipe.models:
            given, weight = {**self.recipe.parameters, **model.parameters}, model.weight
            for override in overrides:
                if override.model in ("", model.name):
                    given.update(override.parameters)
                    weight = weight if override.weight is None else override.weight
            own.append(Own(weight, values if given == common else self._complete(given, table)))
        return values, tuple(own)

    def _complete(self, given: Values, table: bool) -> Values:
        models = [(model.name, model.weight) for model in self.recipe.models]
        owner, declared = f"method {self.method.name}", self.method.parameters
        found = parameters.resolve(owner, declared, self.method.complete(given), models)
        transform = lowering.of(self.method).band
        if transform and "granularity" in transform.parameters:
            return {**found, "granularity": unit_of(transform.granularity(found), table)}
        return found


def placed(
    method: Method,
    recipe: Recipe,
    base: Checkpoint,
    values: Found,
    warnings: list[str],
    is_copied: Callable[[str], bool],
) -> Found:
    """Return the settings with what the aggregate makes of the names of all weights.

    RecipeError where it makes nothing of those of a component, but for one that is only copied.
    """
    aggregate = lowering.of(method).linear
    if aggregate is None or aggregate.place is None:
        return values
    number = sum(model.weight != 0 for model in recipe.models)
    known: dict[str, Values] = {}
    parts = by_component(base, {n: values[n] for n, t in base.tensors.items() if t.is_weight})
    for folder, part in parts.items():
        start = f"{folder}: " if folder else ""
        try:
            mine, found = aggregate.place(
                {name: common for name, (common, _) in part.items()}, number
            )
        except RecipeError as error:
            if folder and all(map(is_copied, part)):
                continue
            raise RecipeError(f"{start}method {method.name}: {error}") from None
        known |= mine
        warnings.append(f"{start}method {method.name}: {found}")
    return {name: (known.get(name, common), own) for name, (common, own) in values.items()}


def by_component(base: Checkpoint, values: Found) -> dict[str, Found]:
    """Return settings by the component of a pipeline that tensors are of, "" where it is none."""
    if base.layout is None:
        return {"": values}
    parts: dict[str, Found] = {}
    for name, mine in values.items():
        parts.setdefault(composite.component(base, name), {})[name] = mine
    return parts


def check_granularity(method: Method, values: Found) -> None:
    """Raise RecipeError unless what is ranked or looked at together has the same parameters."""
    transform, aggregate = lowering.of(method).band, lowering.of(method).elementwise
    every = [common for common, _ in values.values()]
    if aggregate and not aggregate.by_tensor and any(map(aggregate.passes, every)):
        keys = set(aggregate.parameters) - {"alpha"}
        if any(common.get(key) != every[0].get(key) for common in every for key in keys):
            raise RecipeError(
                f"recipe: overrides: method {method.name} looks at the whole model, so only alpha"
                " can differ between tensors."
            )
    if transform is None:
        return

    def mine(own: Own) -> Values:
        known = [key for key in transform.parameters if key != "rescale"]
        return {key: own.values.get(key) for key in known}

    first: tuple[Own, ...] | None = None
    checked: set[int] = set()  # ids: tensors with the same overrides share their settings
    for name, (_, owns) in values.items():
        if id(owns) in checked:
            continue
        checked.add(id(owns))
        units = {transform.granularity(own.values) for own in owns}
        if len(units) > 1:
            raise RecipeError(
                f"recipe: tensor {name!r}: the granularity differs between the models"
                f" ({', '.join(sorted(units))}). Give one granularity for all."
            )
        first = owns if first is None else first
        pairs = zip(first, owns, strict=True)
        if "model" in {transform.granularity(own.values) for own in (*first, *owns)} and any(
            a is not b and mine(a) != mine(b) for a, b in pairs
        ):
            raise RecipeError(
                "recipe: overrides: with granularity model all tensors are ranked together, so only"
                " weights and alpha can differ between them. Use granularity tensor or row."
            )
