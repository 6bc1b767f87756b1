"""Where a model came from, as its place or its own files tell: the id that it has on a hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from breadcrumbs.checkpoint import configs
from breadcrumbs.checkpoint.tensors import Checkpoint

#: A repository of a hub, `org/name`, as it may stand in a model card.
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_START = "models--"


def is_repo(text: object) -> bool:
    """Whether a text has the form of a hub id and is no path of this machine."""
    return isinstance(text, str) and bool(_REPO.fullmatch(text)) and not os.path.exists(text)


def cached(path: str | os.PathLike[str] | None) -> str:
    """Return ``org/name@commit`` of a folder in the cache of `huggingface_hub`, else nothing."""
    parts = Path(os.path.abspath(path)).parts if path is not None else ()
    if len(parts) < 3 or parts[-2] != "snapshots" or not parts[-3].startswith(_START):
        return ""
    repo = parts[-3].removeprefix(_START).replace("--", "/", 1)
    return f"{repo}@{parts[-1]}" if _REPO.fullmatch(repo) else ""


def at_commit(model: Checkpoint) -> str:
    """Return ``org/name@commit`` of an open model of a hub, also one given as its folder in the
    cache, else nothing."""
    return model.repo or cached(model.folder)


def repos(model: Checkpoint) -> tuple[str, ...]:
    """Return the hub id of an open model, without a revision, where it is known; else nothing.

    Of ``BASE+ADAPTER`` those of both. A config names the model that was loaded before it was saved,
    which of a fine-tuning is its base. So it counts only where the folder has the name of that
    repository.
    """
    bare = model.inserted if model.adapter is not None else None  # whose base has a name apart
    folder = model.folder if bare is None else bare.folder
    known = model.repo or cached(folder)
    if known:
        found = (one.removeprefix("hf://").partition("@")[0] for one in known.split("+"))
        return tuple(one for one in found if is_repo(one))
    named = named_in_config(model) if bare is None else ""
    if folder is not None and named:
        own, called = Path(os.path.abspath(folder)).name, named.rpartition("/")[2]
        return (named,) if own.lower() == called.lower() else ()
    return ()


def named_in_config(model: Checkpoint) -> str:
    """Return the hub id that the config of a model names as what was loaded, else nothing."""
    named = configs.read(model.folder).get("_name_or_path")
    return named if isinstance(named, str) and is_repo(named) else ""
