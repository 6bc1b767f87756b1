"""What a recipe says of the files that it was merged from once: their names, sizes and hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from breadcrumbs.errors import RecipeError
from breadcrumbs.plan.declared import RECIPE

#: What an input is.
KINDS = ("model", "statistics", "plugin")
#: Those that are named by their path.
PATHS = KINDS[:2]
#: BLAKE3 of the whole file, or of a task file the hash in its header.
HASHES = ("blake3", "task")
_WIDE = 1 << 30


def parse(entry: Any, where: str) -> dict[str, Any]:
    """Return what plain data say of one input; RecipeError begins with ``where``."""
    entry = RECIPE.mapping(entry, where, (*KINDS, "files"))
    what = [key for key in KINDS if key in entry]
    if len(what) != 1 or "files" not in entry:
        raise RecipeError(f"{where}: one of {', '.join(KINDS)} belongs here, and its files.")
    RECIPE.text(entry[what[0]], f"{where}: {what[0]}")
    files = [_file(file, f"{where}: files") for file in RECIPE.items(entry["files"], where)]
    return {what[0]: entry[what[0]], "files": files}


def to_yaml(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines of a recipe that say them, one for each file."""
    import yaml

    def line(value: Any, flow: bool) -> str:
        style = {"default_flow_style": flow, "sort_keys": False, "width": _WIDE}
        return yaml.safe_dump(value, **style).strip()

    lines = ["inputs:"]
    for entry in entries:
        named = {key: entry[key] for key in KINDS if key in entry}
        lines += [f"- {line(named, False)}", "  files:"]
        lines += [f"  - {line(dict(file), True)}" for file in entry["files"]]
    return "\n".join(lines) + "\n"


def name(entry: dict[str, Any]) -> str:
    """Return what an input is called."""
    return next(str(entry[key]) for key in KINDS if key in entry)


def digest(file: dict[str, Any]) -> str:
    """Return the hash of a file of an input."""
    return next(str(file[key]) for key in HASHES if key in file)


def _file(file: Any, where: str) -> dict[str, Any]:
    file = RECIPE.mapping(file, where, ("file", "bytes", *HASHES))
    if "file" not in file or sum(key in file for key in HASHES) != 1:
        raise RecipeError(f"{where}: a file has its name and its hash, blake3 or task.")
    RECIPE.text(file["file"], f"{where}: file")
    RECIPE.text(digest(file), f"{where}: {file['file']}")
    if "bytes" in file:
        RECIPE.whole(file["bytes"], f"{where}: {file['file']}: bytes")
    return file
