"""The space of a search: which parameters of which methods take which values.

Read from flags such as ``alpha=0.1:1.5``, checked against the methods' declarations before
anything is merged. A *point* is one choice for all of it, as plain data: ``{"method": "ties",
"density": 0.2, "alpha": 0.9, "weight.movies": 0.5}``.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from breadcrumbs.errors import RecipeError, suggestion
from breadcrumbs.methods import registry
from breadcrumbs.methods.parameters import (
    AUTO,
    Factor,
    Integer,
    OneOf,
    Parameter,
    Pattern,
    Real,
    WhichModel,
    decimal,
)
from breadcrumbs.plan.recipe import Recipe

Point = dict[str, Any]

#: Steps that a range may have.
MOST = 10_000
WEIGHT = "weight."


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, evenly or, with ``log``, by their logarithm.

    whole: whole ones only. Others are rounded to a thousandth of the range or finer, so that
    recipes can be read.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def rounded(self, value: float) -> float:
        if self.log:
            value = float(f"{value:.4g}")
        else:
            value = round(value, 3 - math.floor(math.log10(self.high - self.low)))
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Values:
    """A few values, or one. ordered: numbers, from the smallest on."""

    values: tuple[Any, ...]
    ordered: bool = False


Dimension = Range | Values
#: Chooses from a dimension of that name.
Choose = Callable[[str, Dimension], Any]


@dataclass(frozen=True)
class Space:
    """What is searched. parameters: of each method. weights: of models by name."""

    parameters: Mapping[str, Mapping[str, Dimension]]
    weights: Mapping[str, Dimension]

    def point(self, choose: Choose) -> Point:
        """Return the point that a function from names and dimensions to values chooses."""
        names = tuple(self.parameters)
        method = names[0] if len(names) == 1 else choose("method", Values(names))
        point = {"method": method}
        for key, dimension in self.parameters[method].items():
            point[key] = choose(f"{method}.{key}", dimension)
        for name, dimension in self.weights.items():
            point[WEIGHT + name] = choose(WEIGHT + name, dimension)
        return point

    def points(self) -> Iterator[Point]:
        """Yield all points, alpha changing first; RecipeError where a range has no steps."""
        for method, mine in self.parameters.items():
            weights = {WEIGHT + name: values for name, values in self.weights.items()}
            every = dict(sorted({**mine, **weights}.items(), key=lambda pair: pair[0] == "alpha"))
            axes = [_listed(key, dimension) for key, dimension in every.items()]
            for choice in itertools.product(*axes):
                yield {"method": method, **dict(zip(every, choice, strict=True))}

    def check(self, template: Recipe) -> None:
        """Raise RecipeError for a method that none of the corners of its ranges is possible for."""
        for method, mine in self.parameters.items():
            first: RecipeError | None = None
            corners = [_ends(dimension) for dimension in mine.values()]
            for choice in itertools.islice(itertools.product(*corners), MOST):
                try:
                    recipe(template, {"method": method, **dict(zip(mine, choice, strict=True))})
                    break
                except RecipeError as error:
                    first = first or error
            else:
                raise first or RecipeError(f"method {method}: has no point to try.")

    def to_mapping(self) -> dict[str, Any]:
        """Return the space as plain data."""
        every = {f"{m}.{key}": d for m, mine in self.parameters.items() for key, d in mine.items()}
        every |= {WEIGHT + name: dimension for name, dimension in self.weights.items()}
        plain = {
            name: list(d.values) if isinstance(d, Values) else [d.low, d.high, d.log, d.whole]
            for name, d in every.items()
        }
        return {"methods": list(self.parameters), **plain}


def recipe(template: Recipe, point: Point) -> Recipe:
    """Return the template with a point's method, parameters and weights; RecipeError if none."""
    parameters = {k: v for k, v in point.items() if k != "method" and not k.startswith(WEIGHT)}
    models = (replace(m, weight=point.get(WEIGHT + m.name, m.weight)) for m in template.models)
    return replace(
        template, method=point["method"], parameters=parameters, models=tuple(models), overrides=()
    )


def parse(names: Sequence[str], flags: Sequence[tuple[str, str]], models: Sequence[str]) -> Space:
    """Return the space that methods and ``KEY=VALUES`` flags describe.

    A key is a parameter of the methods that have it, ``METHOD.parameter`` of that one alone, or
    ``weight.NAME`` of the models whose name matches. VALUES: one value, several with commas, or a
    range: ``LOW:HIGH``, ``LOW:HIGH:STEP``, ``LOW:HIGH:log``. RecipeErrors say which key is wrong.
    """
    declared = {name: registry.get(name).parameters for name in names}
    common: dict[str, str] = {}
    own: dict[str, dict[str, str]] = {name: {} for name in declared}
    weights: dict[str, Dimension] = {}
    seen = set()
    for key, text in flags:
        if key in seen:
            raise RecipeError(f"-p {key}: is given twice.")
        seen.add(key)
        if key.startswith(WEIGHT):
            weights |= _weights(key, text, models)
            continue
        method, dot, parameter = key.rpartition(".")
        if not dot:
            _check_known(key, key, [k for mine in declared.values() for k in mine])
            common[key] = text
        elif method not in declared:
            raise RecipeError(
                f"-p {key}: {method!r} is not one of the methods that are searched:"
                f" {', '.join(declared)}.{suggestion(method, declared)}"
            )
        else:
            _check_known(key, parameter, list(declared[method]))
            own[method][parameter] = text
    parameters = {}
    for method, mine in declared.items():
        texts = {key: text for key, text in common.items() if key in mine} | own[method]
        parameters[method] = {
            key: dimension(f"-p {key}", text, mine[key]) for key, text in texts.items()
        }
    return Space(parameters, weights)


def _check_known(key: str, parameter: str, known: Sequence[str]) -> None:
    if parameter not in known:
        names = ", ".join(dict.fromkeys(known)) or "none"
        raise RecipeError(
            f"-p {key}: the methods that are searched have no parameter {parameter!r} (they have:"
            f" {names}).{suggestion(parameter, known)}"
        )


def _weights(key: str, text: str, models: Sequence[str]) -> dict[str, Dimension]:
    glob = key.removeprefix(WEIGHT)
    found = [name for name in models if fnmatch.fnmatchcase(name, glob)]
    if not found:
        raise RecipeError(
            f"-p {key}: there is no model {glob!r}.{suggestion(glob, models)} The models are"
            f" {', '.join(models)}."
        )
    return dict.fromkeys(found, dimension(f"-p {key}", text, Real(1.0, "")))


def dimension(where: str, text: str, parameter: Parameter) -> Dimension:
    """Return what a flag's text says of a parameter; RecipeError begins with ``where``."""

    def possible(value: Any) -> Any:
        try:
            parameter.parse(value)
        except ValueError:
            raise RecipeError(
                f"{where}={text}: {str(value)!r} is not possible. Give {parameter.range}."
            ) from None
        return value

    if isinstance(parameter, Pattern):
        return Values((possible(text),))
    if isinstance(parameter, Factor) and text.strip() == AUTO:
        return Values((AUTO,))
    if isinstance(parameter, OneOf | WhichModel):
        return Values(tuple(possible(part.strip()) for part in text.split(",")))
    parts = [part.strip() for part in text.split(":")]
    if len(parts) == 1:
        numbers = sorted({_number(where, part) for part in text.split(",")})
        return Values(tuple(_plain(possible(x), parameter) for x in numbers), ordered=True)
    if len(parts) > 3 or "," in text:
        raise RecipeError(
            f"{where}={text}: is not a range. Give LOW:HIGH, LOW:HIGH:STEP or LOW:HIGH:log,"
            f" or values"
            " with commas."
        )
    low, high = (possible(_number(where, part)) for part in parts[:2])
    if low >= high:
        raise RecipeError(f"{where}={text}: {low} is not below {high}. Give LOW:HIGH.")
    if len(parts) == 3 and parts[2] != "log":
        return _steps(where, text, low, high, _number(where, parts[2]), parameter)
    log = len(parts) == 3
    if log and low <= 0:
        raise RecipeError(f"{where}={text}: a logarithm needs a range above 0.")
    return Range(
        _plain(low, parameter), _plain(high, parameter), log, isinstance(parameter, Integer)
    )


def _steps(
    where: str, text: str, low: Decimal, high: Decimal, step: Decimal, parameter: Parameter
) -> Values:
    if step <= 0:
        raise RecipeError(f"{where}={text}: the step {step} is not above 0.")
    number = int((high - low) / step) + 1
    if number > MOST:
        raise RecipeError(f"{where}={text}: has {number:,} steps, more than {MOST:,}.")
    values = [low + step * i for i in range(number)]
    if isinstance(parameter, Integer) and any(value != int(value) for value in values):
        raise RecipeError(f"{where}={text}: has steps that are not whole numbers.")
    return Values(tuple(_plain(value, parameter) for value in values), ordered=True)


def _number(where: str, text: str) -> Decimal:
    try:
        return decimal(text)
    except ValueError:
        raise RecipeError(f"{where}: {text.strip()!r} is not a number.") from None


def _plain(number: Decimal, parameter: Parameter) -> int | float:
    return int(number) if isinstance(parameter, Integer) else float(number)


def _ends(dimension: Dimension) -> tuple[Any, ...]:
    return dimension.values if isinstance(dimension, Values) else (dimension.low, dimension.high)


def _listed(key: str, dimension: Dimension) -> Sequence[Any]:
    if isinstance(dimension, Values):
        return dimension.values
    if dimension.whole and dimension.high - dimension.low < MOST:
        return range(int(dimension.low), int(dimension.high) + 1)
    raise RecipeError(
        f"sampler grid: {key}={dimension.low:g}:{dimension.high:g} has no steps. Give some, as in"
        f" {key}={dimension.low:g}:{dimension.high:g}:{(dimension.high - dimension.low) / 10:g}."
    )
