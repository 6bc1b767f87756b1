"""Recipe and checkpoint headers -> Plan: what happens to each tensor, before a weight is read.

Everything that does not fit is an error here.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from breadcrumbs import plan_statistics
from breadcrumbs.aggregates import Elementwise
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, RecipeError, listing, suggestion
from breadcrumbs.method import Method
from breadcrumbs.parameters import AUTO, Values
from breadcrumbs.recipe import OUTPUT_DTYPES, Recipe
from breadcrumbs.settings import Own, Settings, check_granularity, placed
from breadcrumbs.tasks import cuts


@dataclass(frozen=True)
class TensorPlan:
    """What happens to one tensor.

    base: the base's tensor, which gives name and shape. dtype: of the output.
    models: the models' tensors, None for a model that lacks it. values: the method's parameters.
    own: for each model its weight and its parameters, which differ from `values` at most in the
    transform's. copied: why it is copied from the base; empty if it is merged. onto: what the step
    is added to instead of the base. statistics: the models' arrays for it, where the method takes
    any; turned: whether the inputs that they are about lie along axis 0.
    """

    base: Tensor
    dtype: str
    models: tuple[Tensor | None, ...]
    values: Values
    own: tuple[Own, ...]
    copied: str = ""
    onto: Tensor | None = None
    statistics: tuple[Tensor | None, ...] = ()
    turned: bool = False

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def target(self) -> Tensor:
        """What the step is added to, and what is copied."""
        return self.onto or self.base

    @property
    def bytes_read(self) -> int:
        """Bytes of the tensors that the result is made from, each counted once."""
        others = () if self.copied else (*self.models, *self.statistics)
        return self.base.nbytes + sum(other.nbytes for other in others if other)


@dataclass(frozen=True)
class Plan:
    """A recipe that fits its checkpoints. tensors: in the base's order. warnings: for the user.

    onto: the model that the step is added to instead of the base. statistics: a file for each
    model, if the method takes any. alpha: what was found from the weights, after `automatic.fixed`.
    """

    recipe: Recipe
    method: Method
    base: Checkpoint
    models: tuple[Checkpoint, ...]
    tensors: tuple[TensorPlan, ...]
    warnings: tuple[str, ...] = field(default=())
    onto: Checkpoint | None = None
    statistics: tuple[Checkpoint, ...] = ()
    alpha: float | None = None

    @property
    def target(self) -> Checkpoint:
        """What the step is added to, and whose other files are copied."""
        return self.onto or self.base

    @property
    def sources(self) -> tuple[Checkpoint, ...]:
        return (self.base, *self.models, *((self.onto,) if self.onto else ()))

    @property
    def inputs(self) -> tuple[Checkpoint, ...]:
        """All that is read: models and statistics."""
        return (*self.origins, *self.statistics)

    @property
    def origins(self) -> tuple[Checkpoint, ...]:
        """The sources, those that a stack is made of in its place, each once."""
        parts = [{p.label: p for p in source.parts or (source,)} for source in self.sources]
        return tuple(part for mine in parts for part in mine.values())

    @property
    def merged(self) -> list[TensorPlan]:
        return [tensor for tensor in self.tensors if not tensor.copied]

    @property
    def automatic(self) -> list[TensorPlan]:
        """The tensors whose alpha must be found from the weights before they can be merged."""
        return [tensor for tensor in self.merged if tensor.values.get("alpha") == AUTO]

    @property
    def bytes_measured(self) -> int:
        """Bytes that are read to find alpha, each counted once."""
        return sum(tensor.bytes_read for tensor in self.automatic)

    @property
    def prepares(self) -> bool:
        """Whether the aggregate looks at the whole model before anything is written."""
        aggregate = self.method.aggregate
        return isinstance(aggregate, Elementwise) and any(
            aggregate.passes(tensor.values) for tensor in self.merged if tensor.base.size
        )

    @property
    def entries(self) -> int:
        """Weights to work on: entries times models, over the merged tensors."""
        return sum(
            tensor.base.size * sum(m is not None for m in tensor.models) for tensor in self.merged
        )

    @property
    def bytes_read(self) -> int:
        """Bytes of the tensors that the result is made from, each counted once."""
        return sum(tensor.bytes_read for tensor in self.tensors)

    @property
    def bytes_written(self) -> int:
        return sum(tensor.base.size * DTYPES[tensor.dtype].itemsize for tensor in self.tensors)


def make(
    recipe: Recipe,
    base: Checkpoint,
    models: Sequence[Checkpoint],
    onto: Checkpoint | None = None,
    statistics: Sequence[Checkpoint] = (),
) -> Plan:
    """Return the plan of ``recipe`` for its open checkpoints; MismatchError or RecipeError if none.

    models: one checkpoint for each of ``recipe.models``, in their order. onto: that of the recipe.
    statistics: those of the recipe's models, if they have any.
    """
    recipe, method = cuts.settled(recipe, models)
    if not base.tensors:
        raise MismatchError(f"{base.label}: holds no tensors. Give a checkpoint with weights.")
    _check_number(method, models)
    plan_statistics.check_number(method, len(models), len(statistics))
    warnings = _same_models(recipe, base, models)
    _check_globs(recipe, base)
    settings = Settings(method, recipe)
    values = {name: settings.of(name) for name in base.tensors}
    check_granularity(method, values)
    values = placed(method, recipe, base, values, warnings)
    partners = [_partners(recipe, base, model, warnings) for model in models]
    targets = _targets(recipe, base, onto, warnings) if onto else {}
    tensors = []
    for name, tensor in base.tensors.items():
        copied = _copied(recipe, tensor)
        found = tuple(partner.get(name) for partner in partners)
        if copied in ("", "not a weight"):
            _check_fit(base, models, tensor, found)
        target = targets.get(name)
        dtype = (target or tensor).dtype
        if recipe.dtype and tensor.is_weight:
            dtype = OUTPUT_DTYPES[recipe.dtype]
        tensors.append(TensorPlan(tensor, dtype, found, *values[name], copied, target))
    plan = Plan(recipe, method, base, tuple(models), tuple(tensors), tuple(warnings), onto)
    if recipe.only_changed:
        plan = _only_changed(plan)
    return plan_statistics.add(plan, statistics)


def _targets(
    recipe: Recipe, base: Checkpoint, onto: Checkpoint, warnings: list[str]
) -> dict[str, Tensor]:
    """Return the tensors that steps are added to; MismatchError if they do not fit the base's."""
    found = _partners(recipe, base, onto, warnings)
    lost = [name for name in base.tensors if name not in found]
    if lost:
        raise MismatchError(
            f"{onto.label}: lacks {len(lost)} tensors of {base.label}: {listing(lost)}, so nothing"
            " can be added to them."
        )
    for name, tensor in base.tensors.items():
        _check_fit(base, [onto], tensor, [found[name]])
    return found


def _copied(recipe: Recipe, tensor: Tensor) -> str:
    if any(fnmatch.fnmatchcase(tensor.name, glob) for glob in recipe.exclude):
        return "excluded"
    if recipe.only and not any(fnmatch.fnmatchcase(tensor.name, glob) for glob in recipe.only):
        return "not among `only`"
    return "" if tensor.is_weight else "not a weight"


def _check_globs(recipe: Recipe, base: Checkpoint) -> None:
    globs = [("exclude", glob) for glob in recipe.exclude]
    globs += [("only", glob) for glob in recipe.only]
    globs += [("overrides", override.tensors) for override in recipe.overrides]
    for key, glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in base.tensors):
            raise RecipeError(
                f"recipe: {key}: {glob!r} matches no tensor of {base.label}."
                f"{suggestion(glob, base.tensors)} `breadcrumbs inspect` lists the names."
            )


def _check_number(method: Method, models: Sequence[Checkpoint]) -> None:
    least, most = method.aggregate.models
    if least <= len(models) <= (most or len(models)):
        return
    given = "given is 1 model" if len(models) == 1 else f"given are {len(models)} models"
    raise RecipeError(f"method {method.name}: needs {method.needs}; {given}.")


def _identity(checkpoint: Checkpoint) -> tuple:
    """Return what two checkpoints have in common that are one."""
    return checkpoint.files, checkpoint.layers


def _same_models(recipe: Recipe, base: Checkpoint, models: Sequence[Checkpoint]) -> list[str]:
    """Return warnings of models that are one; RecipeError if one is the base, but adds to it."""
    whole = recipe.parameters.get("of") == "models"  # merged whole, so that the base may be one
    scaled = recipe.parameters.get("normalize") == "none"
    warnings = []
    counts = Counter(_identity(model) for model in models if model.files)
    for model in models:
        if model.files and _identity(model) == _identity(base) and not whole:
            raise RecipeError(
                f"{model.label}: is the base itself, so there is nothing to add."
                " Give the base once, first, and then the fine-tuned models."
            )
        times = counts.pop(_identity(model), 1)
        if times > 1:
            often = "twice" if times == 2 else f"{times} times"
            warnings.append(f"{model.label} is given {often}, so it counts {often}")
    if not models and not base.layers and not scaled:
        warnings.append("no fine-tuned model is given, so the result is the base")
    return warnings


def _partners(
    recipe: Recipe, base: Checkpoint, model: Checkpoint, warnings: list[str]
) -> dict[str, Tensor]:
    """Return the model's tensors under the base's names, tied ones included."""
    partners = {name: tensor for name, tensor in model.tensors.items() if name in base.tensors}
    extra = [name for name in model.tensors if name not in base.tensors]
    extra = [name for name in extra if twin(model, name, partners) is None]
    if extra and recipe.extra == "error":
        near = suggestion(extra[0], base.tensors)
        raise MismatchError(
            f"{model.label}: has {len(extra)} tensors that {base.label} lacks: {listing(extra)}."
            f"{near} Is it a fine-tuning of this base? `extra: ignore` (--extra ignore) leaves"
            " them out."
        )
    if extra:
        warnings.append(f"{model.label}: left out what the base lacks: {listing(extra)}")
    missing = []
    for name, tensor in base.tensors.items():
        if name in partners or not tensor.is_weight or _copied(recipe, tensor):
            continue
        tied = twin(base, name, partners)
        if tied is None:
            missing.append(name)
        else:
            partners[name] = partners[tied]
    if missing and recipe.missing == "error":
        raise MismatchError(
            f"{model.label}: lacks {len(missing)} tensors of {base.label}: {listing(missing)}."
            " Is it a fine-tuning of this base? `missing: base` (--missing base) counts them as"
            " unchanged; `exclude` copies them from the base."
        )
    if missing:
        warnings.append(f"{model.label}: counted as unchanged what it lacks: {listing(missing)}")
    return partners


def twin(checkpoint: Checkpoint, name: str, among: dict[str, Tensor]) -> str | None:
    """Return the name of a tied tensor: same shape, dtype and bytes, stored under another name.

    Only matrices that are not constant count: norms and biases are often equal without being tied.
    """
    tensor = checkpoint.tensors[name]
    if len(tensor.shape) < 2:
        return None
    candidates = (checkpoint.tensors.get(other) for other in among if other != name)
    found = [other.name for other in candidates if other is not None and equal(tensor, other)]
    if len(found) != 1 or not _varies(tensor):
        return None
    return found[0]


def _varies(tensor: Tensor) -> bool:
    """Return whether the entries differ, reading until the first that does."""
    step = 1 << 18
    first = None
    for start in range(0, tensor.size, step):
        part = np.empty(min(step, tensor.size - start), DTYPES[tensor.dtype])
        tensor.read_into(start, part)
        values = part.view(np.uint8).reshape(part.size, -1)
        first = values[0].copy() if first is None else first
        if (values != first).any():
            return True
    return False


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same bytes, reading until the first difference."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    step = 1 << 20
    for start in range(0, a.nbytes, step):
        size = min(step, a.nbytes - start)
        pair = np.empty((2, size), np.uint8)
        a.source.read_into(start, memoryview(pair[0]))
        b.source.read_into(start, memoryview(pair[1]))
        if not np.array_equal(pair[0], pair[1]):
            return False
    return True


def _check_fit(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    tensor: Tensor,
    found: Sequence[Tensor | None],
) -> None:
    for model, other in zip(models, found, strict=True):
        if other is None:
            continue
        if other.shape != tensor.shape:
            raise MismatchError(
                f"{model.label}: tensor {tensor.name!r} has shape {other.shape}, {base.label} has"
                f" {tensor.shape}. Merged tensors share the base's shape. Give"
                f" `exclude: {tensor.name}` to keep the base's."
            )
        if other.is_weight != tensor.is_weight:
            raise MismatchError(
                f"{model.label}: tensor {tensor.name!r} holds {other.dtype}, {base.label} holds"
                f" {tensor.dtype}. Only floating-point weights are merged. Give"
                f" `exclude: {tensor.name}` to keep the base's."
            )


def _only_changed(plan: Plan) -> Plan:
    """Return the plan with tensors copied that are the base's in every model (bytes compared)."""
    tensors = []
    for tensor in plan.tensors:
        if not tensor.copied and all(m is None or equal(tensor.base, m) for m in tensor.models):
            tensor = replace(tensor, copied="unchanged")
        tensors.append(tensor)
    return replace(plan, tensors=tuple(tensors))
