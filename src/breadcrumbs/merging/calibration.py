"""`alpha: auto`: how far to step, from the weights alone.

With D the sum of the task vectors and S the step at alpha 1::

    alpha = c ** 1.25 / p,   p = <S, D> / |D|^2,   c = mean of |task vector| / |D|

p is the share of the task vectors that the method's step still has: 1 for their plain sum, 0.5 for
one that masks leave half of. c tells how much they are in each other's way: of T task vectors
that are orthogonal, 1 / sqrt(T). The mean of the models has the share 1 / T, c squared, of each of
them, and a step as long as a task vector has the share c; what is best on validation rows lies
between the two, and nearer to the second. But masks and elections never go further than 1.5 times
the mean task vector, but for masks that are drawn: what these keep stands for the rest, and the
rest of their step is noise to every task.

Where embeddings and heads have most of |D|^2, as in small language models that were trained whole,
p is theirs alone, and says little of the rest: most of a task vector of theirs is often one shift
of all rows, which no output shows. What restores p there goes several times as far as any model did
(as far as masks ranked by row went in most families, but not in all). There the
step is made as long as that of the plain sum instead, alpha = c ** 1.25 * |D| / |S|, which is
c ** 0.25 task vectors; and masks that are drawn keep to 1.5 times the mean task vector too.

The exponent was set once, on eight fine-tunings of a sentence encoder, whose embeddings were
frozen; what holds where embeddings move was found on small language models. docs/choosing.md has
the numbers, and docs/paper.md what alpha loses against alpha chosen on validation rows.

Weights count: D is the weighted sum, over their mean. Alpha is rounded to three digits.

Of a pipeline, each component has an alpha of its own.

Of a task that was cut when it was packed the whole vector is gone. But its file says which share of
the squared norm was kept, tensor by tensor. What was kept stands for the whole, with its product
with the step and the length of the whole. So alpha differs a little from that of whole models.
"""

from __future__ import annotations

import contextlib
import glob
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.sparse import Sparse
from breadcrumbs.checkpoint.tables import is_table
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.engine import routes, runner
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import Nowhere, SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import registry
from breadcrumbs.methods.parameters import AUTO
from breadcrumbs.plan import Plan, TensorPlan, lowering, making
from breadcrumbs.plan.recipe import Override
from breadcrumbs.plan.units import Segment

EXPONENT = 1.25
#: How long a step may be that restores the share, in lengths of the mean task vector.
LONGEST = 1.5
#: Digits that alpha is rounded to: sums differ in the last bits between machines.
DIGITS = 3
#: Bytes of weights that are read at once where they are not at hand.
_READ = 4 << 20
#: Bytes of what is found of ranks on the way that are kept for the merge.
KEPT = 64 << 20


def fixed(
    plan: Plan,
    *,
    threads: int = 1,
    kernel: str = "auto",
    progress: Callable[[int], None] = lambda nbytes: None,
    facts: Facts | None = None,
) -> Plan:
    """Return the plan with numbers where it says `auto`; the same plan if it does not.

    They are found by the calibration of the method; alpha, without one, from the weights. facts:
    to be filled with what is found on the way that holds for the merge too.
    """
    if not plan.automatic:
        return plan
    run = partial(runner.run, threads=threads, kernel=kernel, progress=progress)
    if plan.method.calibration is None:
        return _with_alpha(plan, run, Facts() if facts is None else facts)
    found = plan.method.calibration.find(plan, run)
    weights = found.weights.items()
    more = tuple(Override(name, {}, model, weight) for (name, model), weight in weights)
    parameters = {**plan.recipe.parameters, **found.parameters}
    recipe = replace(plan.recipe, parameters=parameters, overrides=(*plan.recipe.overrides, *more))
    made = making.make(recipe, plan.base, plan.models, plan.onto, plan.statistics)
    if made.automatic:
        raise RecipeError(
            f"method {plan.method.name}: its calibration left {AUTO!r} where numbers belong. Fix"
            " the method, or give numbers."
        )
    return replace(made, warnings=plan.warnings, notes=plan.notes, sizes=plan.sizes)


def _with_alpha(plan: Plan, run: Callable[..., object], facts: Facts) -> Plan:
    """Return the plan with a number for alpha, found from the weights.

    facts: to be filled with the cuts, where those of all that is merged are found. Merges once
    without writing. RecipeError where the step is added to another model than the base, or leads
    away from the task vectors.
    """
    sink, found_facts = Products(measured(plan)), Facts()
    run(sink.plan, sink, facts=found_facts, keeps=KEPT)
    return told(plan, sink, found_facts, facts)


def measured(plan: Plan) -> Plan:
    """Return the plan whose products alpha follows from: of the tensors that ask for it."""
    if plan.recipe.onto is not None:
        raise RecipeError(
            "recipe: alpha: auto is for a step from the base. With onto, give a number, such as"
            " 0.2."
        )
    return replace(_with(plan, 1.0), tensors=tuple(map(_measured, plan.automatic)))


def told(plan: Plan, sink: Products, found_facts: Facts, facts: Facts) -> Plan:
    """Return the plan with the alpha that follows from products.

    found_facts: of the plan that was measured; what of them holds for the merge goes into facts.
    """
    asked = plan.automatic
    if len(asked) == len(plan.merged):
        numbers = {tensor.name: number for number, tensor in enumerate(plan.tensors)}
        cuts = found_facts.cuts.items()
        facts.cuts |= {(numbers[asked[i].name], start): cut for (i, start), cut in cuts}
    components = dict.fromkeys(tensor.component for tensor in asked)
    parts = {component: sink.of(component) for component in components}
    found = {component: part.alpha for component, part in parts.items()}
    moved = {component: found[component] for component, part in parts.items() if part.moved}
    mean = sink.of(None).mean if len(asked) == len(plan.merged) else None
    return replace(_told_all(plan, found), alphas=moved or found, task_length=mean)


class Products(Writing):
    """A consumer that keeps of what is merged nothing but inner products with the task vectors."""

    merges = several = False

    def __init__(self, plan: Plan):
        super().__init__(Nowhere())
        self.plan = plan
        self._found: dict[tuple[int, int], np.ndarray] = {}
        self._moved: set[str] = set()
        self._lock = threading.Lock()
        self._shares = [_shares(model) for model in plan.models]

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        merged = routes.merge(terms, segment, ballot.majority if ballot else None)
        for start, values in merged.pieces:
            self._measure(terms, segment.index, start, values)
        if ballot and merged.undecided:
            ballot.take(segment, merged.undecided, merged.report)
        return merged.report

    def _measure(self, terms: Terms, index: int, start: int, values: np.ndarray) -> None:
        """Note the products of entries from ``start`` on with the task vectors there."""
        tensor, number = terms.tensor, len(self.plan.models)
        who = [t for t in range(number) if tensor.models[t] is not None and tensor.own[t].weight]
        shares = np.array([self._shares[t].get(tensor.name, 1.0) for t in who])
        weights = np.array([tensor.own[t].weight for t in who])
        models = [model for t in who if (model := tensor.models[t]) is not None]
        row, found = np.zeros(3 + 2 * number), np.zeros(3 + len(who))
        reads = [tensor.base, *models]
        most = max(1, _READ // (len(reads) * terms.dtype.itemsize))
        space = terms.context.space
        whole = models == terms.models and not terms.careful  # then what was read is at hand
        step = values.size if whole else most
        for at in range(0, values.size, step):
            part = values[at : at + step]
            if terms.careful:  # what is at hand has lost what is not finite
                rows = space.buffer("measured", (len(reads), part.size), terms.dtype)
                space.read(reads, start + at, rows)
                part = part.copy()
                part[terms.check(rows, slice(0, 0), start + at)[2]] = 0.0
            else:
                rows = space.load(reads, start + at, part.size, terms.dtype)
            by = weights, weights / np.sqrt(shares)
            terms.kernels.lengths(rows[0], rows[1:], *by, part, found)
        moved = bool(found[2]) or self._is_other(terms, start, values)
        row[:3] = found[:3]
        for t, square, share, weight in zip(who, found[3:], shares, weights, strict=True):
            row[3 + 2 * t : 5 + 2 * t] = square / share, weight**2 * square / share
        with self._lock:
            if moved:
                self._moved.add(tensor.component)
            self._found[index, start] = row  # what comes again counts, not what came before

    def sent(self) -> dict[str, Any]:
        """Return what was found as plain data, which `add` takes."""
        places = np.array(list(self._found), np.int64).reshape(-1, 2)
        width = 3 + 2 * len(self.plan.models)
        rows = np.array(list(self._found.values())).reshape(-1, width)
        return {"places": places, "rows": rows, "moved": sorted(self._moved)}

    def add(self, sent: Mapping[str, Any]) -> None:
        """Take in what was found of other segments."""
        places = map(tuple, sent["places"].tolist())
        self._found |= dict(zip(places, sent["rows"], strict=True))
        self._moved |= set(sent["moved"])

    @staticmethod
    def _is_other(terms: Terms, start: int, values: np.ndarray) -> bool:
        """Return whether any entry is not the base's, however short the step."""
        base, untouched = terms.base(start, values.size)
        other = terms.kernels.widen(base) != values
        other[untouched] = False
        return bool(other.any())

    def of(self, component: str | None) -> Measured:
        """Return what was found of a component, or of all."""
        tensors = self.plan.tensors
        rows = {
            place: row
            for place, row in self._found.items()
            if component in (None, tensors[place[0]].component)
        }
        moved = bool(self._moved) if component is None else component in self._moved
        return Measured(self.plan, component or "", rows, moved)


@dataclass(frozen=True)
class Measured:
    """Inner products and squares of a component of a plan, or of all of it, by tensor and start.

    moved: whether the step of any part has any length.
    """

    plan: Plan
    component: str
    rows: Mapping[tuple[int, int], np.ndarray]
    moved: bool

    @property
    def alpha(self) -> float:
        """What alpha follows; the order in which parts came does not change it."""
        if not self.moved:
            return 1.0
        product, square, step, *_ = self._sums
        where = f"{self.component}: " if self.component else ""
        if product <= 0 or not math.isfinite(product):
            raise RecipeError(
                f"recipe: {where}alpha: auto needs a step in the direction of the task vectors, and"
                " this one points away from them. Give a number."
            )
        lengths, weights = self._lengths
        alpha = 0.0
        with contextlib.suppress(ZeroDivisionError, OverflowError):  # of squares beyond float64
            crowded = math.fsum(lengths) / len(weights) / math.sqrt(square)
            length, share = math.sqrt(square / step), square / product
            longest = LONGEST * crowded ** (1 - EXPONENT) * length
            asked = lowering.of(registry.get(self.plan.recipe.method))
            drawn = asked.draw or asked.chances
            if self._is_of_tables(square):
                restored = min(share, longest) if drawn else length
            else:
                restored = share if drawn else min(share, longest)
            mean = math.fsum(weights) / len(weights)
            alpha = float(f"{crowded**EXPONENT * restored / mean:.{DIGITS}g}")
        if not 0 < alpha < math.inf:
            raise RecipeError(
                f"recipe: {where}alpha: auto cannot be computed: the task vectors are so short or"
                " so long that their squares are out of range. Give a number."
            )
        return alpha

    def _is_of_tables(self, square: float) -> bool:
        """Return whether embeddings and heads have most of the square of the sum."""
        tensors = self.plan.tensors
        rows = self.rows.items()
        tables = (row[1] for (i, _), row in rows if is_table(tensors[i].name))
        return math.fsum(tables) > square / 2

    @property
    def mean(self) -> float:
        """The mean length of the task vectors that have any, each by the size of its weight."""
        lengths, weights = self._lengths
        total = math.fsum(w for length, w in zip(lengths, weights, strict=True) if length)
        return math.fsum(lengths) / total if total else 0.0

    @property
    def _sums(self) -> list[float]:
        return [math.fsum(column) for column in zip(*self.rows.values(), strict=True)] or [0.0] * 3

    @property
    def _tensors(self) -> Iterator[TensorPlan]:
        return (t for t in self.plan.tensors if self.component in ("", t.component))

    @property
    def _lengths(self) -> tuple[list[float], list[float]]:
        """The lengths of the weighted task vectors that count, and the sizes of their weights."""
        squares = self._sums[3:]
        lengths, weights = [], []
        for number, model in enumerate(self.plan.recipe.models):
            own, weighted = squares[2 * number : 2 * number + 2] or (0.0, 0.0)
            if any(tensor.own[number].weight for tensor in self._tensors):
                lengths.append(math.sqrt(weighted))
                # Its weight; on average, where overrides say another one for some tensors.
                weights.append(math.sqrt(weighted / own) if own else abs(model.weight))
        return lengths, weights


def _shares(model: Checkpoint) -> dict[str, float]:
    """Return what was kept of each tensor of a task that was cut, of the squared norm."""
    found = {
        name: tensor.source.share
        for name, tensor in model.tensors.items()
        if isinstance(tensor.source, Sparse)
    }
    return {name: share for name, share in found.items() if 0 < share < 1}


def _measured(tensor: TensorPlan) -> TensorPlan:
    """Return the tensor as it is merged to be measured: not rounded to a narrow dtype."""
    dtype = "F64" if tensor.base.dtype == "F64" else "F32"
    return replace(_told(tensor, 1.0), dtype=dtype)


def _told(tensor: TensorPlan, alpha: float) -> TensorPlan:
    """Return what happens to a tensor with a number in place of `auto`."""
    if tensor.values.get("alpha") != AUTO:
        return tensor
    own = tuple(
        replace(one, values={**one.values, "alpha": alpha} if "alpha" in one.values else one.values)
        for one in tensor.own
    )
    return replace(tensor, values={**tensor.values, "alpha": alpha}, own=own)


def _with(plan: Plan, alpha: float) -> Plan:
    """Return the plan with a number where it says `auto`."""
    tensors = tuple(_told(tensor, alpha) for tensor in plan.tensors)
    return replace(plan, tensors=tensors)


def _told_all(plan: Plan, alphas: Mapping[str, float]) -> Plan:
    """Return the plan with a number for each component, in its recipe too.

    A recipe that says `auto` of some tensors of several components stays as it is, since there is
    no one number to write for them.
    """
    tensors = tuple(
        _told(tensor, alphas[tensor.component]) if tensor.component in alphas else tensor
        for tensor in plan.tensors
    )
    plan, recipe = replace(plan, tensors=tensors), plan.recipe
    of_some = any(override.parameters.get("alpha") == AUTO for override in recipe.overrides)
    if list(alphas) == [""]:
        (alpha,) = alphas.values()
        overrides = tuple(
            replace(o, parameters={**o.parameters, "alpha": alpha})
            if o.parameters.get("alpha") == AUTO
            else o
            for o in recipe.overrides
        )
        recipe = replace(recipe, overrides=overrides)
        if plan.method.complete(recipe.parameters).get("alpha") == AUTO:
            recipe = replace(recipe, parameters={**recipe.parameters, "alpha": alpha})
    elif not of_some:
        mine = (Override(f"{glob.escape(c)}/*", {"alpha": a}) for c, a in alphas.items())
        recipe = replace(recipe, overrides=(*mine, *recipe.overrides))
    return replace(plan, recipe=recipe)
