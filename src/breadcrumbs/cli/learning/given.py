"""What all kinds of `breadcrumbs learn` take from its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs.cli.shared import pair
from breadcrumbs.errors import OutputError

if TYPE_CHECKING:
    from breadcrumbs.evaluate.data.drawn import Draw


def check_free(places: Iterable[Path], options: Mapping[str, Any]) -> None:
    """Raise OutputError for an output that exists, unless it may be replaced."""
    for place in places:
        if place.exists() and not options["force"]:
            raise OutputError(f"{place} exists. Give another name, or --force to replace it.")


def check_file(place: Path, what: str, endings: Iterable[str] = (".safetensors",)) -> None:
    """Raise OutputError for an output that has another ending. what: it is, in the message."""
    endings = tuple(endings)
    if place.suffix not in endings:
        raise OutputError(f"{place}: {what}. Give NAME{endings[0]}.")


def draw(options: Mapping[str, Any], answers: str | None = None) -> Draw:
    """Return which rows are asked for. answers: other than those of the option."""
    from breadcrumbs.evaluate.data.drawn import Draw

    found: Any = answers or options["answers"]
    return Draw(options["split"], options["rows"], found, options["seed"])


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return tasks, experts, device and precision, as all that learn take them."""
    return {
        "tasks": options["tasks"],
        "experts": dict(pair(text) for text in options["experts"]),
        "device": options["device"],
        "precision": options["precision"],
    }


def is_quiet(options: Mapping[str, Any]) -> bool:
    """Return whether nothing is told while it learns."""
    return options["quiet"] or options["as_json"]
