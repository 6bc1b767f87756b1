"""Which classes of the package are what a protocol asks for, so that tests leave out none."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import NamedTuple

import breadcrumbs

ROOT = Path(breadcrumbs.__file__).parent


class _Class(NamedTuple):
    """bases: by name. methods: with the names of their parameters."""

    module: str
    name: str
    bases: tuple[str, ...]
    methods: dict[str, list[str]]


@functools.cache
def _classes() -> list[_Class]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
                mine = [it for it in node.body if isinstance(it, ast.FunctionDef)]
                methods = {it.name: [arg.arg for arg in it.args.args] for it in mine}
                found.append(_Class(module, node.name, bases, methods))
    return found


def _methods(it: _Class) -> dict[str, list[str]]:
    """Return the methods of a class, inherited ones too."""
    found: dict[str, list[str]] = {}
    for base in reversed(it.bases):
        named = [other for other in _classes() if other.name == base and other is not it]
        near = [other for other in named if other.module == it.module] or named
        for other in near:
            found |= _methods(other)
    return found | it.methods


def of(protocol: str) -> set[str]:
    """Return ``module.Class`` of all that have the methods of a protocol, with its parameters."""
    (it,) = (it for it in _classes() if it.name == protocol)
    asked = _methods(it)
    return {
        f"{it.module}.{it.name}"
        for it in _classes()
        if "Protocol" not in it.bases
        and all(_methods(it).get(key) == given for key, given in asked.items())
    }


def name_of(value: object) -> str:
    """Return ``module.Class`` of a value, as `of` calls it."""
    return f"{type(value).__module__}.{type(value).__qualname__}".partition(".")[2]
