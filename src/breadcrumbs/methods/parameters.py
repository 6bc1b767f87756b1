"""Declared parameters: a default, a range and one line of help; checks and documents itself.

Fractions are decimals. ``0.29`` means 29 hundredths, not the nearest binary number, so that a
fraction of 100 entries is 29 and never 28: `count` computes on the decimal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext
from numbers import Real as Real_
from typing import Any

from breadcrumbs.errors import RecipeError, suggestion
from breadcrumbs.methods import words

Values = dict[str, Any]

#: Digits that a decimal may have.
DIGITS = 100


def decimal(value: Any) -> Decimal:
    """Return a number as the decimal that it is written as; raise ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real_ | str | Decimal):
        raise ValueError(value)
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(value) from None
    if not number.is_finite() or len(number.as_tuple().digits) > DIGITS:
        raise ValueError(value)
    if abs(int(number.as_tuple().exponent)) > 400:
        raise ValueError(value)
    return number


def count(fraction: Decimal, n: int) -> int:
    """Return ``floor(fraction * n)``, exactly."""
    numerator, denominator = fraction.as_integer_ratio()
    return numerator * n // denominator


def difference(a: Decimal | int, b: Decimal) -> Decimal:
    """Return ``a - b``, exactly for decimals of up to `DIGITS` digits."""
    with localcontext(prec=4 * DIGITS):
        return a - b


@dataclass(frozen=True)
class Fraction:
    """A decimal in [0, 1]. ``default`` None: not given."""

    default: Decimal | None
    help: str

    def __init__(self, default: str | None, help: str):
        object.__setattr__(self, "default", None if default is None else Decimal(default))
        object.__setattr__(self, "help", help)

    @property
    def range(self) -> str:
        return "0 to 1"

    def parse(self, value: Any) -> Decimal:
        number = decimal(value)
        if not 0 <= number <= 1:
            raise ValueError(value)
        return number


@dataclass(frozen=True)
class Real:
    """A finite number, positive, zero or negative. ``default`` None: not given."""

    default: float | str | None
    help: str

    @property
    def range(self) -> str:
        return "any number"

    def parse(self, value: Any) -> float:
        number = float(decimal(value))
        if not math.isfinite(number):
            raise ValueError(value)
        return number


#: In place of a number: found from the weights, see `breadcrumbs.merging.calibration`.
AUTO = "auto"


@dataclass(frozen=True)
class Factor(Real):
    """A finite number, or `AUTO`."""

    @property
    def range(self) -> str:
        return "any number, or auto"

    def parse(self, value: Any) -> Any:
        return AUTO if value == AUTO else super().parse(value)


@dataclass(frozen=True)
class Integer:
    """A whole number that is not below ``least``, nor above ``most`` if there is one.

    ``default`` None: not given.
    """

    default: int | None
    least: int
    help: str
    most: int | None = None

    @property
    def range(self) -> str:
        end = "up" if self.most is None else f"to {self.most}"
        return f"a whole number from {self.least} {end}"

    def parse(self, value: Any) -> int:
        number = decimal(value)
        if number != int(number) or number < self.least:
            raise ValueError(value)
        if self.most is not None and number > self.most:
            raise ValueError(value)
        return int(number)


@dataclass(frozen=True)
class OneOf:
    """One of a few names."""

    default: str | None
    choices: tuple[str, ...]
    help: str

    @property
    def range(self) -> str:
        return ", ".join(self.choices)

    def parse(self, value: Any) -> str:
        if value not in self.choices:
            raise ValueError(value)
        return value


@dataclass(frozen=True)
class Fractions:
    """A decimal in [0, 1] for all models, or one for each, in their order."""

    default: Decimal
    help: str

    def __init__(self, default: str, help: str):
        object.__setattr__(self, "default", Decimal(default))
        object.__setattr__(self, "help", help)

    @property
    def range(self) -> str:
        return "0 to 1; or one per model, such as 0.2,0.4"

    def parse(self, value: Any) -> Decimal | tuple[Decimal, ...]:
        one = Fraction(None, "")
        if isinstance(value, str) and "," in value:
            value = value.split(",")
        if isinstance(value, Sequence) and not isinstance(value, str):
            return tuple(one.parse(each) for each in value)
        return one.parse(value)

    def resolve(self, value: Any, models: Models) -> tuple[Decimal, ...]:
        if not isinstance(value, tuple):
            return (value,) * len(models)
        if len(value) != len(models):
            raise RecipeError(f"{len(value)} values are given for {len(models)} models.")
        return value


@dataclass(frozen=True)
class WhichModel:
    """One of the models, by its name or its number from 1 on. Never given by default."""

    required: bool
    help: str
    default: None = None

    @property
    def range(self) -> str:
        return "a model's name, or its number, counted from 1"

    def parse(self, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value):
            raise ValueError(value)
        return str(value)

    def resolve(self, value: Any, models: Models) -> int | None:
        """Return the number of the model, from 0."""
        names = [name for name, _ in models]
        known = f"Give one of {', '.join(names)}, or a number from 1 to {len(names)}."
        if value is None:
            if self.required:
                raise RecipeError(f"is not given. {known}")
            return None
        numbers = [str(number + 1) for number in range(len(names))]
        if value not in names and value not in numbers:
            raise RecipeError(f"there is no model {value!r}. {known}{suggestion(value, names)}")
        number = (names if value in names else numbers).index(value)
        if models[number][1] == 0:
            raise RecipeError(f"model {names[number]!r} has weight 0, so it takes no part.")
        return number


@dataclass(frozen=True)
class Pattern:
    """A regular expression with one group."""

    default: str
    help: str

    @property
    def range(self) -> str:
        return "a regular expression with one group"

    def parse(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(value)
        try:
            groups = re.compile(value).groups
        except re.error:
            raise ValueError(value) from None
        if groups != 1:
            raise ValueError(value)
        return value


#: Of `Ranges`: every one, and not one.
ALL, NONE = "all", "none"


@dataclass(frozen=True)
class Ranges:
    """Whole numbers from 1 up, as text: ``1-12,15``, ``all`` or ``none``."""

    default: str
    help: str

    @property
    def range(self) -> str:
        return f"numbers and ranges from 1 up, as 1-12,15; or {ALL}, or {NONE}"

    def parse(self, value: Any) -> str:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str):
            raise ValueError(value)
        if text not in (ALL, NONE):
            last = 0
            for part in text.split(","):
                found = re.fullmatch(r"([1-9]\d{0,5})(?:-([1-9]\d{0,5}))?", part)
                if found is None or not last < int(found[1]) <= int(found[2] or found[1]):
                    raise ValueError(value)
                last = int(found[2] or found[1])
        return text

    @staticmethod
    def numbers(text: str) -> Iterator[int]:
        """Yield the numbers of a text that is not ``all``, less 1."""
        for part in text.split(",") if text != NONE else ():
            first, _, last = part.partition("-")
            yield from range(int(first) - 1, int(last or first))

    @staticmethod
    def of(kept: Sequence[bool]) -> str:
        """Return the text of which are kept."""
        if all(kept):
            return ALL
        parts, start = [], 0
        for place in range(len(kept) + 1):
            if place == len(kept) or not kept[place]:
                if place > start:
                    parts.append(f"{start + 1}-{place}" if place > start + 1 else f"{place}")
                start = place + 1
        return ",".join(parts) or NONE


Parameter = Fraction | Real | Integer | OneOf | Fractions | WhichModel | Pattern | Ranges

#: The names and weights of the models.
Models = Sequence[tuple[str, float]]


def parse(owner: str, declared: Mapping[str, Parameter], given: Mapping[str, Any]) -> Values:
    """Return ``given`` checked against ``declared``, no defaults added; RecipeErrors name keys."""
    values: Values = {}
    for name, value in given.items():
        if name not in declared:
            known = ", ".join(declared) or "none"
            hint = words.parameter(str(name), value, declared)
            hint = f" {hint}" if hint else suggestion(str(name), declared)
            raise RecipeError(f"{owner} has no parameter {name!r} (it has: {known}).{hint}")
        try:
            values[name] = declared[name].parse(value)
        except ValueError:
            raise RecipeError(
                f"{owner}: {name}: {value!r} is not possible. Give {declared[name].range}."
            ) from None
    return values


def resolve(
    owner: str, declared: Mapping[str, Parameter], values: Values, models: Models
) -> Values:
    """Return the values with those that speak of models made numbers of them; RecipeErrors."""
    result = dict(values)
    for name, parameter in declared.items():
        if isinstance(parameter, Fractions | WhichModel):
            try:
                result[name] = parameter.resolve(values.get(name), models)
            except RecipeError as error:
                raise RecipeError(f"{owner}: {name}: {error}") from None
    return result


def written(value: Any) -> Any:
    """Return a value as plain data: decimals as floats, or as text where those read otherwise."""
    if isinstance(value, tuple):
        return [written(each) for each in value]
    if not isinstance(value, Decimal):
        return value
    return float(value) if decimal(float(value)) == value else str(value)


def defaults(declared: Mapping[str, Parameter]) -> Values:
    """Return the default of every declared parameter that has one."""
    return {name: p.default for name, p in declared.items() if p.default is not None}
