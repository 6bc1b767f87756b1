"""What a recipe says of the files that it was merged from once: their names, sizes and hashes.

Where they lay is kept in the user's cache, by their hashes, and not in the recipe: so it can be run
again on the machine that it was made on, also where it does not say more than a name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from blake3 import blake3

from breadcrumbs.checkpoint import cache, origin, wrapped
from breadcrumbs.errors import RecipeError
from breadcrumbs.plan.declared import RECIPE

#: What an input is.
KINDS = ("model", "statistics", "plugin")
#: Those that are named by their path.
PATHS = KINDS[:2]
#: BLAKE3 of the whole file, of a task file the hash in its header, or what told a file elsewhere
#: from others without being read: the hub's SHA-256, or the tag of a server.
HASHES = ("blake3", "task", "sha256", "etag")
_WIDE = 1 << 30
_CACHE = "inputs"


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


def remember(entry: Mapping[str, Any], place: str) -> None:
    """Keep where an input lies; nothing is kept of what is no path."""
    if entry["files"] and _is_there(place):
        cache.write(cache.folder(), _CACHE, _key(entry), os.fsencode(_absolute(place)))


def remembered(entry: Mapping[str, Any] | None, found: str) -> str:
    """Return where an input lies: ``found`` if it is there, else where it lay once, if it still
    does; else ``found``. Of a hub id it is the folder in a cache that it was merged from."""
    if entry is None or _is_there(found):
        return found
    kept = cache.read(cache.folder(), _CACHE, _key(entry))
    place = os.fsdecode(kept) if kept else ""
    of_hub = origin.is_repo(found.partition("@")[0])
    if not place or not _is_there(place) or (of_hub and origin.cached(place) != found):
        return found
    return place


def _key(entry: Mapping[str, Any]) -> str:
    return blake3(json.dumps([digest(dict(file)) for file in entry["files"]]).encode()).hexdigest()


def _pieces(place: str) -> list[str]:
    """Return the paths that a name has, of a base and its adapters; itself if it is one."""
    head = place.partition(wrapped.PICK)[0]
    return [head] if os.path.lexists(os.path.expanduser(head)) else head.split("+")


def _is_there(place: str) -> bool:
    return all(os.path.exists(os.path.expanduser(piece)) for piece in _pieces(place))


def _absolute(place: str) -> str:
    keys = place[len(place.partition(wrapped.PICK)[0]) :]
    return "+".join(os.path.abspath(os.path.expanduser(p)) for p in _pieces(place)) + keys


def _file(file: Any, where: str) -> dict[str, Any]:
    file = RECIPE.mapping(file, where, ("file", "bytes", *HASHES, "version"))
    if "file" not in file or sum(key in file for key in HASHES) != 1:
        raise RecipeError(f"{where}: a file has its name and one of {', '.join(HASHES)}.")
    RECIPE.text(file["file"], f"{where}: file")
    RECIPE.text(digest(file), f"{where}: {file['file']}")
    if "version" in file:
        RECIPE.text(file["version"], f"{where}: {file['file']}: version")
    if "bytes" in file:
        RECIPE.whole(file["bytes"], f"{where}: {file['file']}: bytes")
    return file
