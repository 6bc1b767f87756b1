"""The files that a merge is made from, as its output names them, and the check of them.

A recipe that lies beside a model says the hash of every file of its inputs. Merged again, it gives
the same bits, or an error that names the file that is another one now.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from breadcrumbs.checkpoint import mirrors
from breadcrumbs.checkpoint.files import File
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.engine.digests import PENDING, FileDigests
from breadcrumbs.errors import CheckpointError
from breadcrumbs.merging.published import Names
from breadcrumbs.methods import registry
from breadcrumbs.plan import Plan
from breadcrumbs.plan import inputs as said
from breadcrumbs.version import __version__

MADE_BY = f"breadcrumbs {__version__}"
_SHOWN = 12
_STEP = 8 << 20


class Changed(CheckpointError):
    """An input is not what it was when the recipe was written."""


def described(it: Plan, digests: FileDigests, names: Names) -> list[dict[str, Any]]:
    """Return each input with its name in the output, and of each file its bytes and hash.

    The hash of a task file is that which it has in its header, and which its blocks were compared
    with as they were read. A file elsewhere has what told it from others without being read
    (`mirrors.Identity`). A plugin that the method is from is an input too.
    """
    found = []
    for number, source in enumerate(it.inputs):
        hash_ = "task" if source.cut else "blake3"
        files = [
            {
                "file": source.shown_file(f),
                "bytes": digests.sizes[f],
                **(_told(f) or {hash_: digests.digests[f]}),
            }
            for f in source.own_files
        ]
        what = "model" if number < len(it.origins) else "statistics"
        found.append({what: names.of(source.label), "files": files})
    plugin = registry.PLUGINS.get(it.recipe.method)
    if plugin is not None:
        found.append({"plugin": plugin.name, "files": [_whole(plugin)]})
    return found


def remember(it: Plan, digests: FileDigests, names: Names) -> None:
    """Keep where the inputs of a merge lie, for whoever runs its recipe again on this machine."""
    for entry, source in zip(described(it, digests, names), it.inputs, strict=False):
        said.remember(entry, source.label)


def _whole(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "blake3": _hash(path)}


def _told(path: Path) -> dict[str, str]:
    """Return what a recipe says of a file elsewhere, nothing of one that is known by its hash."""
    mirror = mirrors.of(path)
    return mirror.identity.said() if mirror is not None and mirror.identity.kind else {}


@cache
def _of_all(path: Path, kind: str, told: object) -> str:
    """Return the hash of a file, which is read. told: what tells it from what was there before."""
    import hashlib

    hasher = hashlib.sha256() if kind == "sha256" else blake3()
    with File(path) as file:
        for start in range(0, file.size, _STEP):
            hasher.update(file.read(start, min(_STEP, file.size - start)))
    return hasher.hexdigest()


def _hash(path: Path, kind: str = "blake3") -> str:
    said = path.stat()
    return _of_all(path, kind, mirrors.of(path) or (said.st_ino, said.st_size, said.st_mtime_ns))


def check(it: Plan, digests: FileDigests) -> None:
    """Raise `Changed` for the first file that is not what the recipe says, as far as is known.

    What the recipe says of models that it does not name any more is passed over.
    """
    now = {source.label: source for source in it.inputs}
    for entry in it.recipe.inputs:
        source = now.get(said.name(dict(entry)))
        if source is not None and "plugin" not in entry:
            _check(source, entry["files"], digests)
        plugin = registry.PLUGINS.get(it.recipe.method)
        if "plugin" in entry and plugin is not None:
            _compare(plugin.name, plugin, entry["files"][0], _hash(plugin))


def _check(source: Checkpoint, files: list[dict[str, Any]], digests: FileDigests) -> None:
    names = [source.shown_file(path) for path in source.own_files]
    known = [file["file"] for file in files]
    if names != known:
        lost = [name for name in known if name not in names] or known
        new = [name for name in names if name not in known] or names
        then = said.digest(files[known.index(lost[0])])[:_SHOWN]
        raise Changed(
            f"{source.label}: the recipe was made with {lost[0]}, whose hash began with {then}; now"
            f" there is {new[0]} instead. {_ADVICE}"
        )
    for path, file in zip(source.own_files, files, strict=True):
        now = digests.digests[path]
        if now == PENDING and file.get("bytes", digests.sizes[path]) != digests.sizes[path]:
            now = _hash(path)
        now = _as_known(path, file, now, source.label)
        single = source.label.endswith(names[0]) and len(names) == 1
        where = source.label if single else f"{source.label}: {source.shown_file(path)}"
        _compare(where, path, file, now)


def _as_known(path: Path, file: Mapping[str, Any], now: str, label: str) -> str:
    """Return what a file is now, told as the recipe tells what it was."""
    told = _told(path)
    if "etag" in file:
        if "etag" not in told:
            raise Changed(
                f"{label}: the recipe knows {file['file']} by the tag that a server gave it, which"
                " says nothing of another place. Give the URL that it was read from, or remove"
                " `inputs` from the recipe."
            )
        same = told.get("version", "") == file.get("version", "")
        return told["etag"] if same else f"{told['etag']} {told.get('version', '')}"
    if "sha256" in file:
        return told.get("sha256") or _hash(path, "sha256")
    return _hash(path) if told and "blake3" in file else now


def _compare(where: str, path: Path, file: Mapping[str, Any], now: str) -> None:
    then = said.digest(dict(file))
    if now not in (PENDING, then):
        raise Changed(
            f"{where} has changed since the recipe was made: its hash began with {then[:_SHOWN]},"
            f" and now begins with {now[:_SHOWN]}. {_ADVICE}"
        )


_ADVICE = "Give the original file, or remove `inputs` from the recipe to merge what is there now."


def other_version(it: Plan) -> str:
    """Return a note if another version of the program wrote the recipe, else nothing."""
    then = it.recipe.made_by
    if not then or then == MADE_BY:
        return ""
    return f"the recipe was made by {then}, and this is {MADE_BY}: the bits may differ"
