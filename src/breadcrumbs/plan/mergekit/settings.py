"""What a setting is for one tensor: filters choose a value, gradients run over the layers.

As mergekit 0.1.5 does: the first entry of a list whose filter is part of the tensor's name; where
none is, the next scope is asked. A gradient of k values runs from the first layer to the last, with
straight lines between them; names and true/false step. What is in no layer has the first value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from breadcrumbs.errors import suggestion
from breadcrumbs.plan.mergekit.config import Config, Settings, Slice
from breadcrumbs.plan.mergekit.lines import Node


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method of mergekit's. scope: shared by all, of each model, or of all inputs,
    the base's too. kind: float, int or bool. default: None if there is none.
    """

    scope: str
    kind: type
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Place:
    """Where a tensor lies. name: in the output. t: of its layer, 0 to 1. number: of its slice."""

    name: str
    t: float
    number: int


def value(node: Node, name: str, t: float, kind: type) -> Any:
    """Return the value of a setting for the tensor ``name``, or None if no filter fits."""
    entries = node.value if isinstance(node.value, list) else [node]
    if not entries:
        return None
    if not any(isinstance(entry.value, dict) for entry in entries):
        if any(isinstance(entry.value, list) for entry in entries):
            node.refuse("a gradient is a list of values.")
        return _along([scalar(entry, kind) for entry in entries], t, kind, node)
    for entry in entries:
        body = entry.mapping("a filtered value", ("value", "filter"))
        if "value" not in body:
            entry.refuse("there is no value.")
        wanted = body["filter"].value if "filter" in body else None
        if wanted is None or wanted == "*" or str(wanted) in name:
            return value(body["value"], name, t, kind)
    return None


def _along(values: list[Any], t: float, kind: type, node: Node) -> Any:
    if kind is bool:
        return values[int(t * (len(values) - 1))]
    place = t * (len(values) - 1)
    before = int(place)
    after, share = min(len(values) - 1, before + 1), place - before
    found = (1 - share) * values[before] + share * values[after]
    if kind is int and found != int(found):
        node.refuse(f"this gradient gives {found:g}, where a whole number belongs.")
    return kind(found)


def scalar(node: Node, kind: type) -> Any:
    """Return a number or a truth value; RecipeError with the line for anything else."""
    given = node.value
    if kind is bool:
        known = {"true": True, "false": False, "1": True, "0": False}
        found = known.get(str(given).lower())
        if found is None:
            node.refuse(f"{given!r} is neither true nor false.")
        return found
    try:
        number = float(given) if isinstance(given, int | float | str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (kind is int and number != int(number)):
        what = "whole number" if kind is int else "number"
        node.refuse(f"{given!r} is not a {what}.")
    return kind(number)


def filters(config: Config) -> list[str]:
    """Return the texts that some setting filters by, in order."""
    found: dict[str, None] = {}
    for settings in scopes(config):
        for node in settings.values():
            for entry in node.value if isinstance(node.value, list) else [node]:
                body = entry.value if isinstance(entry.value, dict) else {}
                if "filter" in body and body["filter"].value is not None:
                    found[str(body["filter"].value)] = None
    return [text for text in found if text != "*"]


def scopes(config: Config) -> Iterable[Settings]:
    """Yield all settings of a configuration."""
    for piece in config.slices:
        for source in piece.sources:
            yield source.parameters
        yield piece.parameters
    yield from config.scopes


def check_names(
    config: Config, method: str, known: Mapping[str, Parameter], others: Iterable[str]
) -> list[str]:
    """Return notes on settings without effect; RecipeError for one that no method has."""
    notes = []
    places = [
        (settings, whose)
        for piece in config.slices
        for settings, whose in [(s.parameters, "model") for s in piece.sources]
        + [(piece.parameters, "")]
    ]
    for settings, whose in [*places, *((settings, "") for settings in config.scopes)]:
        for name, node in settings.items():
            if name not in known and name not in others:
                node.refuse(
                    f"{method} has no parameter {name!r} (it has: {', '.join(known) or 'none'})."
                    f"{suggestion(name, known)}"
                )
            if name not in known:
                notes.append(f"line {node.line}: {name} has no effect on {method}")
            elif whose and known[name].scope == "shared":
                notes.append(f"line {node.line}: {name} has no effect on one model")
    return notes


def resolve(
    config: Config, piece: Slice, place: Place, known: Mapping[str, Parameter], inputs: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the shared values for a tensor, and those of each source of its slice.

    inputs: the tensor's name in each source, which is what filters of its values look at.
    """

    def find(
        name: str, parameter: Parameter, own: list[Settings], tensor: str, node: Node, of: str = ""
    ) -> Any:
        for settings in (*own, piece.parameters, *config.scopes):
            if name in settings:
                found = value(settings[name], tensor, place.t, parameter.kind)
                if found is not None:
                    return found
        if parameter.required:
            node.refuse(
                f"there is no {name}{of} for tensor {tensor!r}."
                f" Give `parameters: {{{name}: VALUE}}`."
            )
        return parameter.default

    shared = {
        name: find(name, parameter, [], place.name, piece.node)
        for name, parameter in known.items()
        if parameter.scope == "shared"
    }
    each = []
    for source, tensor in zip(piece.sources, inputs, strict=True):
        mine = [
            (name, parameter)
            for name, parameter in known.items()
            if parameter.scope == "input"
            or (parameter.scope == "model" and source.model != piece.base)
        ]
        own, of = [source.parameters], f" of {source.model}"
        each.append({n: find(n, p, own, tensor, source.node, of) for n, p in mine})
    return shared, each
