"""Tables in Markdown of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.paper.choosing import summary


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(values: Sequence[float]) -> str:
    """Return the mean over seeds and its standard error, in percent."""
    return shown(*summary(values))


def shown(mean: float, error: float) -> str:
    """Return a share with its standard error, if there is one, in percent."""
    return f"{100 * mean:.1f}" + (f" ± {100 * error:.1f}" if error else "")


def by_seed(found: dict[str, Any]) -> list[Any]:
    """Return what each seed gave."""
    return list(found["seeds"].values())


def parameters(every: Sequence[Mapping[str, Any]]) -> str:
    """Return the parameters that seeds chose: ``alpha 0.2, 0.3``."""
    names = list(dict.fromkeys(name for one in every for name in one))
    parts = []
    for name in names:
        values = list(dict.fromkeys(str(one.get(name, "")) for one in every))
        parts.append(f"{name} {', '.join(values)}")
    return "; ".join(parts)
