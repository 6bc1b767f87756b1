"""Folders that are no model but hold some: a hub's cache, a Trainer's output, parts in subfolders.

They are not opened: which of several is meant is not for this program to say. The error gives the
path to write instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from breadcrumbs.errors import counted, listing

_CHECKPOINT = re.compile(r"(checkpoint|epoch|step|iter|global_step)[-_=]?\d+.*", re.IGNORECASE)
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
#: Subfolders that are looked into at most.
_MOST = 200


def instead(folder: Path) -> str | None:
    """Return what a folder without weights is, to follow its path; None if nothing is known."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())[:_MOST]
    except OSError:
        return None
    if "snapshots" in names:
        return _cached(folder)
    if folder.name == "snapshots" and (folder.parent / "refs").is_dir():
        return _cached(folder.parent)
    models = [name for name in names if name.startswith("models--")]
    if models:
        return (
            f"is the cache of a hub, with {counted(len(models), 'model')}:"
            f" {listing(map(_hub_id, models))}. Give the id of one."
        )
    checkpoints = sorted((n for n in names if _CHECKPOINT.fullmatch(n)), key=_by_number)
    filled = [name for name in checkpoints if _holds_weights(folder / name)]
    if filled or checkpoints:
        return _trained(folder, filled, checkpoints)
    parts = [name for name in names if not name.startswith(".") and _holds_weights(folder / name)]
    if parts:
        return (
            f"holds no weights itself; they lie in folders in it: {listing(parts)}. Give the path"
            f" of one of them, such as {folder / parts[0]}"
        )
    return None


def _cached(folder: Path) -> str:
    """Say what the cache folder of a model holds, and which snapshot its main branch is."""
    try:
        commits = sorted(it.name for it in (folder / "snapshots").iterdir() if it.is_dir())
    except OSError:
        commits = []
    try:
        main = (folder / "refs" / "main").read_text(errors="replace").strip()[:64]
    except OSError:
        main = ""
    model = f" of {_hub_id(folder.name)}" if folder.name.startswith("models--") else ""
    what = f"is a hub's cache folder{model}"
    if not commits:
        return f"{what}, without a snapshot. Download the model first."
    if main in commits:
        chosen, which = main, ", its main branch"
    else:
        chosen, which = commits[-1], " or another" if len(commits) > 1 else ""
    number = "1 snapshot" if len(commits) == 1 else f"{len(commits)} snapshots"
    return f"{what}, with {number}. Give {folder / 'snapshots' / chosen}{which}."


def _trained(folder: Path, filled: list[str], checkpoints: list[str]) -> str:
    if not filled:
        return (
            f"holds no weights itself, nor do the checkpoints in it: {listing(checkpoints)}. Give a"
            " folder with weights."
        )
    number = "a checkpoint" if len(filled) == 1 else f"{len(filled)} checkpoints"
    return (
        f"holds no weights itself, but {number} of a training: {listing(filled)}. Give the path of"
        f" the one that is meant, such as {folder / filled[-1]}"
    )


def _holds_weights(folder: Path) -> bool:
    try:
        return any(it.suffix in _WEIGHTS and it.is_file() for it in folder.iterdir())
    except OSError:
        return False


def _hub_id(name: str) -> str:
    return name.removeprefix("models--").replace("--", "/", 1)


def _by_number(name: str) -> tuple[int, str]:
    return int("0" + "".join(re.findall(r"\d+", name)[:1])), name
