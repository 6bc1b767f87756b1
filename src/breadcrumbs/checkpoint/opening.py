"""What a path, a hub id or a mapping names, opened; `breadcrumbs.checkpoint.open` is the way in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import composite, kept, places, quantised, stack, wrapped
from breadcrumbs.checkpoint import folder as _folder
from breadcrumbs.checkpoint.memory import open_mapping
from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.errors import CheckpointError, suggestion

#: Characters of a path at most.
_LONGEST = 4096
_HUB_ID = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>(?!.*\.\.)\w[\w./+-]*))?"
)
_SUFFIXES = (".safetensors", ".json", *_folder.PICKLES)


def opened(
    source: str | os.PathLike[str] | Mapping[str, Any],
    label: str = "",
    insert: Callable[[str, str, str], Checkpoint] | None = None,
) -> Checkpoint:
    """Return the checkpoint that ``source`` names, as `breadcrumbs.checkpoint.open` says.

    insert: (all of ``BASE+ADAPTER``, base, adapter) -> the model with the adapter in it; None: such
    a name is none.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        return quantised.view(open_mapping(source, label or "mapping"))
    if not isinstance(source, str | os.PathLike):
        raise CheckpointError(not_a_source(source))
    text = os.fsdecode(source)
    if isinstance(source, str) and places.is_url(text) and stack.parse(text) is None:
        both = _with_adapter(text)
        return insert(text, *both) if both and insert else _open_url(text)
    path = Path(os.path.expanduser(text))
    if text and os.path.isdir(path):
        return composite.open_folder(path, text)
    if text and os.path.exists(path):
        found = replace(_folder.open_file(path), label=text)
        return kept.view(quantised.view(found, path.parent))
    if text and os.path.islink(path):
        raise CheckpointError(
            f"{shown(text)}: is a link to {shown(os.readlink(path))}, which is not there."
        )
    parts = stack.parse(text) if isinstance(source, str) else None
    if parts is not None:
        return _open_stack(text, parts, insert)
    head, found, keys = text.partition(wrapped.PICK)
    if found and head and os.path.exists(inside := Path(os.path.expanduser(head))):
        is_folder = os.path.isdir(inside)
        pick = tuple(keys.split(wrapped.PICK))
        opener = _folder.open_folder if is_folder else _folder.open_file
        found_ = replace(opener(inside, pick=pick), label=text)
        return quantised.view(found_, inside if is_folder else inside.parent)
    both = _with_adapter(text) if isinstance(source, str) else None
    if both is not None and insert is not None:
        return insert(text, *both)
    if not isinstance(source, str):
        raise CheckpointError(f"{_path(text)}: no such file or folder.{_nearest(path)}")
    return _open_hub(text, *hub_id(text), path)


def _with_adapter(text: str) -> tuple[str, str] | None:
    """Return the base and the adapter that ``BASE+ADAPTER`` names; None for anything else."""
    parts = text.split("+")
    splits = [("+".join(parts[:n]), "+".join(parts[n:])) for n in range(len(parts) - 1, 0, -1)]
    splits = [it for it in splits if it[0] and not it[0][-1].isspace() and it[1]]
    for base, adapter in splits:  # a path may hold a + itself
        if _is_there(adapter) and (_is_there(base) or _with_adapter(base)):
            return base, adapter
    if places.is_url(text) and not any(places.is_url(adapter) for _, adapter in splits):
        return None  # a URL may hold a + itself
    for base, adapter in splits[:1]:
        if _is_there(adapter) or _HUB_ID.fullmatch(adapter):
            return base, adapter
    return None


def is_single(text: str) -> bool:
    """Whether a text names one folder, file or hub id, and no stack or model with an adapter."""
    return _is_there(text) or _HUB_ID.fullmatch(text) is not None


def _is_there(text: str) -> bool:
    if places.is_url(text):
        return not any(places.is_url(piece) for piece in text.split("+")[1:])
    return os.path.exists(os.path.expanduser(text))


def hub_id(text: str, what: str = "model") -> tuple[str, str | None]:
    """Return the repository and revision that a hub id names, where no path of that name exists.

    CheckpointError for what cannot be one. what: is looked for.
    """
    found = _HUB_ID.fullmatch(text)
    if not found or text.lower().endswith(_SUFFIXES):
        base, plus, adapter = text.rpartition("+")
        if plus and os.path.exists(os.path.expanduser(base)):
            raise CheckpointError(
                f"{shown(text)}: there is no adapter {shown(adapter)} to put into {shown(base)}."
                " Give the path or hub id of an adapter after the +."
            )
        path = Path(os.path.expanduser(text))
        near = _nearest(path) if what == "model" else f" Give the folder or hub id of an {what}."
        raise CheckpointError(f"{_path(text)}: no such file or folder.{near}")
    return found["repo"], found["revision"]


def _path(text: str) -> str:
    """Return a path as messages quote it: whole, if it can be one."""
    return repr(text) if len(text) <= _LONGEST else shown(text)


def is_hub_id(text: str) -> bool:
    """Whether a text may be the hub id of a model, and is no name of a file."""
    return bool(_HUB_ID.fullmatch(text)) and not text.lower().endswith(_SUFFIXES)


def not_a_source(source: object) -> str:
    """Return why something is not what `open` takes, and what to give instead."""
    kind = type(source)
    article = "an" if kind.__name__[0].lower() in "aeiou" else "a"
    what = "None" if source is None else f"{article} {kind.__name__}"
    advice = ""
    if kind.__module__.partition(".")[0] in ("torch", "numpy"):
        advice = " Give a dict of tensors by name, such as a state dict."
    elif isinstance(getattr(source, "components", None), Mapping):
        advice = " Give the folder of this pipeline, or one of its modules."
    elif hasattr(source, "state_dict"):
        advice = " Give its `state_dict()`."
    return f"{what} is not a path, a hub id, a mapping of arrays or a Torch module.{advice}"


def _open_stack(
    text: str, parts: list[stack.Part], insert: Callable[[str, str, str], Checkpoint] | None
) -> Checkpoint:
    with ExitStack() as within:
        found: dict[str, Checkpoint] = {}
        for part in parts:
            if part.path not in found:
                found[part.path] = within.enter_context(opened(part.path, "", insert))
        made = stack.put_together(text, parts, [found[part.path] for part in parts])
        within.pop_all()
    return made


def _open_url(text: str) -> Checkpoint:
    from breadcrumbs.checkpoint.places import folders

    path, url = folders.here(text)
    where = path if path.is_dir() else path.parent
    try:
        found = replace(opened(path), label=text, repo=url)
        if where == path and url.startswith("http"):
            note = "its server lists no files: beside the weights, those of common names were read"
            found = replace(found, notes=(*found.notes, note))
    except CheckpointError as error:
        named = str(error).replace(str(where), url if where == path else url.rpartition("/")[0])
        raise type(error)(named) from None
    return found


def _open_hub(text: str, repo: str, revision: str | None, path: Path) -> Checkpoint:
    from breadcrumbs.checkpoint import hub

    try:
        folder, commit = hub.fetch(repo, revision)
    except _folder.AdapterError:
        raise
    except CheckpointError as error:
        hint = _nearest(path) if path.parent.is_dir() else ""
        raise CheckpointError(f"{error}{hint}") from None
    return replace(composite.open_folder(folder, text), repo=f"{repo}@{commit}")


def _nearest(path: Path) -> str:
    """Return what else there is with nearly the name of ``path``, which does not exist."""
    try:
        near = suggestion(path.name, os.listdir(path.parent))
    except (OSError, ValueError):
        return f" There is no folder {shown(str(path.parent))} either."
    return near or " Give a path, or a hub id like org/name."
