"""The source of `breadcrumbs.merging.typed`, from the declarations of the methods."""

from __future__ import annotations

import textwrap

from breadcrumbs.methods.parameters import (
    Factor,
    Fraction,
    Fractions,
    Integer,
    OneOf,
    Parameter,
    Pattern,
    Ranges,
    Real,
    WhichModel,
)
from breadcrumbs.methods.registry import METHODS

HEAD = '''"""Parameters of methods and names of methods, as type checkers know them.

Made by `python -m docs.generate` from the declarations; edit those instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, TypedDict

import numpy as np

#: A number, or a decimal, which counts as it is written.
Number = float | Decimal | np.floating | np.integer

#: The published methods. Pairs (``transform+aggregate``) and plugins have other names.
MethodName = Literal[
'''


def kind(parameter: Parameter) -> str:
    """Return the type of what may be given for a parameter."""
    match parameter:
        case Factor():
            return 'Number | Literal["auto"]'
        case Fraction() | Real():
            return "Number"
        case Fractions():
            return "Number | Sequence[Number]"
        case Integer():
            return "int | np.integer"
        case OneOf(choices=choices):
            return f"Literal[{', '.join(f'{choice!r}' for choice in choices)}]".replace("'", '"')
        case WhichModel():
            return "str | int"
        case Pattern():
            return "str"
        case Ranges():
            return "int | str"


def declared() -> dict[str, list[Parameter]]:
    """Return every parameter of a method by name, each of its kinds once."""
    found: dict[str, list[Parameter]] = {}
    for method in METHODS.values():
        for name, parameter in method.parameters.items():
            known = found.setdefault(name, [])
            if all(kind(parameter) != kind(other) for other in known):
                known.append(parameter)
    return found


def _union(parameters: list[Parameter]) -> str:
    """Return the type of what may be given for parameters of one name."""
    kinds = dict.fromkeys(part for it in parameters for part in kind(it).split(" | "))
    literals = [part[len("Literal[") : -1] for part in kinds if part.startswith("Literal[")]
    choices = dict.fromkeys(choice for part in literals for choice in part.split(", "))
    plain = [part for part in kinds if not part.startswith("Literal[")]
    return " | ".join([*plain, *([f"Literal[{', '.join(choices)}]"] if choices else [])])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(f"{text[0].upper()}{text[1:]}.", 90)


def source() -> str:
    """Return the text of the module."""
    lines = [f'    "{name}",\n' for name in METHODS]
    parts = [HEAD, *lines, "]\n\n\n", "class Parameters(TypedDict, total=False):\n"]
    parts.append('    """Parameters of all methods, of which each method has some."""\n\n')
    for name, parameters in sorted(declared().items()):
        parts += [f"    #: {line}\n" for line in _wrapped(parameters[0].help)]
        parts.append(f"    {name}: {_union(parameters)}\n")
    return "".join(parts)
