"""A method: a transform, an aggregate and perhaps a finish, with their published defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from breadcrumbs.methods import parameters
from breadcrumbs.methods.aggregates import Aggregate, Elementwise, Gram, Statistics, Whole
from breadcrumbs.methods.calibration import Calibration
from breadcrumbs.methods.finishes import Finish
from breadcrumbs.methods.parameters import Parameter, Values
from breadcrumbs.methods.transforms import Band, Fitted, Transform


@dataclass(frozen=True)
class Method:
    """One way to merge.

    summary: one line. formula: plain text. paper: where it was published. notes: what the paper
    leaves open and where other programs differ. caution: (parameters, number of models) -> a
    warning of what such a merge ends in, with what to set instead, or nothing. calibration: finds
    parameters that say `auto`; without one, alpha alone may, and is found from the weights.
    finish: what is done to the merged step in the end.
    """

    name: str
    transform: Transform
    aggregate: Aggregate
    summary: str
    formula: str
    paper: str
    notes: str = ""
    caution: Callable[[Values, int], str] = lambda values, models: ""
    calibration: Calibration | None = None
    finish: Finish | None = None

    @property
    def parameters(self) -> dict[str, Parameter]:
        last = self.finish.parameters if self.finish else {}
        return {**self.transform.parameters, **self.aggregate.parameters, **last}

    @property
    def number(self) -> str:
        """How many models it takes besides the base."""
        least, most = self.aggregate.models
        if most is None:
            return f"{least} or more" if least else "any"
        return str(least) if least == most else f"{least} to {most}"

    @property
    def needs(self) -> str:
        number = f"{self.number} model{'' if self.number == '1' else 's'}"
        if self.number == "any":
            number = "any number of models"
        needs = self.statistics
        if needs is None:
            return f"a base and {number}, no data"
        return f"a base, {number}, and {needs.what} of each, made with {needs.make}"

    @property
    def statistics(self) -> Statistics | None:
        """What it takes of each model besides its weights."""
        aggregate = self.aggregate
        return aggregate.statistics if isinstance(aggregate, Elementwise | Whole) else None

    @property
    def algebra(self) -> bool:
        """Whether it makes products or decompositions of matrices, which a device may make."""
        parts = (self.transform, self.aggregate, self.finish)
        return any(getattr(part, "algebra", False) for part in parts)

    @property
    def passes(self) -> int:
        """How often each weight is read at most, but for tensors that fit a chunk."""
        aggregate = self.aggregate
        fits = self.transform.passes if isinstance(self.transform, Fitted) else 0
        prepares = isinstance(aggregate, Elementwise) and aggregate.passes(self.complete({}))
        first = 1 + (self.finish is not None)
        return (
            first + isinstance(self.transform, Band) + isinstance(aggregate, Gram) + fits + prepares
        )

    @property
    def order(self) -> str:
        ordered = isinstance(self.aggregate, Whole) and self.aggregate.ordered
        return "matters" if ordered else "does not matter"

    def complete(self, given: Mapping[str, Any]) -> Values:
        """Return ``given`` checked, with defaults for the rest; RecipeError names what is wrong."""
        values = parameters.parse(f"method {self.name}", self.parameters, given)
        ours = {k: v for k, v in values.items() if k in self.transform.parameters}
        others = {k: v for k, v in values.items() if k not in self.transform.parameters}
        if isinstance(self.aggregate, Whole):
            others |= self.aggregate.check(
                {k: v for k, v in others.items() if k in self.aggregate.parameters}
            )
        return parameters.defaults(self.parameters) | self.transform.check(ours) | others

    def stated(self, given: Mapping[str, Any]) -> Values:
        """Return ``given`` with the defaults that hold besides it, to be written and read back."""
        values = self.complete(given)
        replaces = self.transform.replaces if isinstance(self.transform, Band) else {}
        replaced = {name for key in given for name in replaces.get(key, ())}
        return {k: v for k, v in values.items() if k not in replaced} | parameters.parse(
            f"method {self.name}", self.parameters, given
        )


def parts(methods: Iterable[Method]) -> tuple[dict[str, Transform], dict[str, Aggregate]]:
    """Return the transforms and the aggregates of methods that pairs may name, by their names."""
    pairs = [(method.transform, method.aggregate) for method in methods]
    transforms = {first.name: first for first, _ in pairs if first.name}
    return transforms, {second.name: second for _, second in pairs if second.name}
