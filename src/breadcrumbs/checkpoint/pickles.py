"""Read the pickles that `torch.save` writes, tensors only and lazily; needs Torch.

What is accepted: a mapping of names to tensors, or such a mapping as the only value of a mapping,
under "state_dict" or "model". Torch's restricted unpickler runs no code of the file. The tensors of
a zip pickle (Torch 1.6 of 2020 and later) are mapped, so their bytes are read when asked for; an
older pickle can only be loaded whole, and takes its size in memory while it is open.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from breadcrumbs.checkpoint.files import File
from breadcrumbs.checkpoint.memory import open_mapping
from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.errors import CheckpointError, MissingExtraError

_NESTED = ("state_dict", "model")


def open_pickle(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the tensors of the pickle ``path``; CheckpointError when it holds anything else."""
    with File(path) as file:  # the errors of a file that cannot be read
        file.read(0, min(file.size, 1))
    content = _load(Path(path))
    if isinstance(content, Mapping) and len(content) == 1:
        key = next(iter(content))
        if key in _NESTED and isinstance(content[key], Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not a mapping of names to tensors. "
            "Save `model.state_dict()`."
        )
    for key, value in content.items():
        if type(value).__module__.split(".")[0] != "torch":
            raise CheckpointError(
                f"{path}: has {shown(key)}, a {type(value).__name__}, beside or instead of "
                "tensors. Save `model.state_dict()` alone."
            )
    checkpoint = open_mapping(content, str(path))
    return Checkpoint(str(path), checkpoint.tensors, (Path(path),))


def _load(path: Path) -> object:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            f"{path}: reading a pickle needs Torch. Run `pip install 'breadcrumbs[torch]'`, or "
            "convert the file to .safetensors."
        ) from None
    is_zip = zipfile.is_zipfile(path)
    try:
        if is_zip:
            _check_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except Exception as error:  # a hostile pickle can make its reader raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: is not a pickle of tensors alone ({type(error).__name__}: {shown(reason)}). "
            "Save `model.state_dict()`, or convert it to .safetensors where you trust it."
        ) from None


def _check_stored(path: Path) -> None:
    """Raise if the zip is compressed: mapping it would take compressed bytes for weights."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{path}: {shown(member.filename)} in it is compressed, which `torch.save` "
                    "never does. Load it and save it again."
                )
