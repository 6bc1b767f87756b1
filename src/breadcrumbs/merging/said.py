"""What the inputs of a merge say of themselves, in their model cards: licence, languages, task."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breadcrumbs import taskfile
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.plan import bounded_yaml

#: Bytes of a card that are read, values in its front matter, characters of a licence.
_LARGEST, _MOST, _LONGEST = 1 << 20, 100_000, 1000

#: Words that tell a licence from its text, and its id on the hub; the first that fit, in order.
_TEXTS = (
    ("llama 3.3 community license", "llama3.3"),
    ("llama 3.2 community license", "llama3.2"),
    ("llama 3.1 community license", "llama3.1"),
    ("meta llama 3 community license", "llama3"),
    ("llama 4 community license", "llama4"),
    ("llama 2 community license", "llama2"),
    ("gemma terms of use", "gemma"),
    ("attribution-noncommercial-sharealike 4.0", "cc-by-nc-sa-4.0"),
    ("attribution-noncommercial-noderivatives 4.0", "cc-by-nc-nd-4.0"),
    ("attribution-noncommercial 4.0", "cc-by-nc-4.0"),
    ("attribution-sharealike 4.0", "cc-by-sa-4.0"),
    ("attribution 4.0 international", "cc-by-4.0"),
    ("creativeml open rail", "creativeml-openrail-m"),
    ("gnu affero general public license", "agpl-3.0"),
    ("gnu lesser general public license", "lgpl-3.0"),
    ("gnu general public license version 2", "gpl-2.0"),
    ("gnu general public license", "gpl-3.0"),
    ("mozilla public license version 2.0", "mpl-2.0"),
    ("apache license version 2.0", "apache-2.0"),
    ("permission is hereby granted, free of charge", "mit"),
    ("redistributions of source code must retain", "bsd-3-clause"),
)
_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "COPYING")


@dataclass(frozen=True)
class Card:
    """The front matter of a model card, as far as a merge passes it on; nothing where it is silent.

    license: the id on the hub. license_name, license_link: of one that is no id.
    """

    license: str = ""
    license_name: str = ""
    license_link: str = ""
    languages: tuple[str, ...] = ()
    pipeline_tag: str = ""
    library_name: str = ""
    base_models: tuple[str, ...] = ()


def of_all(models: Iterable[Checkpoint]) -> dict[str, Card]:
    """Return what inputs say of themselves, by their labels; of ``BASE+ADAPTER`` the adapter too,
    by what follows the ``+``."""
    found: dict[str, Card] = {}
    for model in models:
        found[model.label] = of(model)
        inside = model.folder
        others = {p.parent for p in model.files if inside and not p.is_relative_to(inside)}
        if len(others) == 1 and "+" in model.label:
            found.setdefault(model.label.rpartition("+")[2], _of_folder(others.pop()))
    return found


def of(model: Checkpoint) -> Card:
    """Return what an input says of itself: its card, else a text of a licence beside it.

    Of a task file, what its header says.
    """
    if taskfile.KEY in model.metadata:
        return Card(license=_of_task(model.metadata[taskfile.KEY]))
    return _of_folder(model.folder)


def _of_folder(folder: Path | None) -> Card:
    front = front_matter(folder) if folder is not None else {}
    license = ", ".join(_texts(front.get("license")))[:_LONGEST]
    return Card(
        license=license or _in_file(folder),
        license_name=_text(front.get("license_name")),
        license_link=_text(front.get("license_link")),
        languages=_texts(front.get("language")),
        pipeline_tag=_text(front.get("pipeline_tag")),
        library_name=_text(front.get("library_name")),
        base_models=_texts(front.get("base_model")),
    )


def scores(folder: Path | None) -> list[dict[str, Any]]:
    """Return what the card in a folder says that its model scores (`model-index`): of each result
    the task, the split, the metric, the value and, if it is there, its standard error."""
    found = []
    for model in _mappings((front_matter(folder) if folder else {}).get("model-index")):
        for result in _mappings(model.get("results")):
            data = result.get("dataset")
            data = data if isinstance(data, dict) else {}
            for metric in _mappings(result.get("metrics")):
                value, more = metric.get("value"), metric.get("args")
                error = more.get("standard_error") if isinstance(more, dict) else None
                if isinstance(value, int | float) and not isinstance(value, bool):
                    found.append(
                        {
                            "task": _text(data.get("name")) or _text(data.get("type")),
                            "split": _text(data.get("split")),
                            "metric": _text(metric.get("type")),
                            "value": float(value),
                            "stderr": float(error) if isinstance(error, int | float) else None,
                        }
                    )
    return found


def _mappings(given: Any) -> list[dict[str, Any]]:
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def front_matter(folder: Path, note: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Return what the model card in a folder says before its text; nothing if there is none.

    note: is told of a card that cannot be read.
    """
    path = folder / "README.md"
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST).decode(errors="replace").replace("\r\n", "\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        note(_unread(path, error.strerror or str(error)))
        return {}
    front, end, _ = text[4:].partition("\n---")
    if not text.startswith("---\n"):
        return {}
    try:
        if not end:
            raise bounded_yaml.YAMLRefused("it has no end")
        said = bounded_yaml.load(front, _MOST)
    except bounded_yaml.YAMLRefused as error:
        note(_unread(path, str(error)))
        return {}
    return said if isinstance(said, dict) else {}


def of_folder(folder: Path | None, note: Callable[[str], None] = lambda line: None) -> str:
    """Return the licence that the model card in a folder states, or nothing."""
    front = front_matter(folder, note) if folder is not None else {}
    return ", ".join(_texts(front.get("license")))[:_LONGEST]


def _unread(path: Path, why: str) -> str:
    """Return the line about a card that says nothing."""
    return (
        f"{path}: its front matter cannot be read ({why}), so its licence is not known. Give"
        " --license"
    )


def _of_task(text: str) -> str:
    try:
        return _text(json.loads(text).get("license"))
    except (ValueError, RecursionError, AttributeError):
        return ""


def _in_file(folder: Path | None) -> str:
    """Return the id of the licence whose text lies in a folder; ``other`` if it is not known."""
    paths = [folder / name for name in _FILES] if folder is not None else []
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return ""
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST).decode(errors="replace").lower()
    except OSError:
        return ""
    text = re.sub(r"[\s,]+", " ", text)
    found = (id_ for words, id_ in _TEXTS if words.replace(",", "") in text)
    return next(found, "other")


def _text(value: Any) -> str:
    return value.strip()[:_LONGEST] if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    every = value if isinstance(value, list) else [value]
    return tuple(one for one in every if isinstance(one, str) and one.strip())
