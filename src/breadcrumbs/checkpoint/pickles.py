"""Read the pickles that `torch.save` writes, tensors only and lazily; needs Torch.

What is accepted: a mapping of names to tensors, or a mapping in which there is one such under some
keys, as training programs save it (`breadcrumbs.checkpoint.wrapped`). Torch's restricted unpickler
runs no code of the file. The tensors of a zip pickle (Torch 1.6 of 2020 and later) are mapped, so
their bytes are read when asked for; an older pickle can only be loaded whole, and takes its size in
memory while it is open.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import types
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from breadcrumbs.checkpoint import foreign, wrapped
from breadcrumbs.checkpoint.files import File
from breadcrumbs.checkpoint.memory import open_mapping
from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.errors import CheckpointError, MissingExtraError, install, printable


def open_pickle(path: str | os.PathLike[str], pick: tuple[str, ...] = ()) -> Checkpoint:
    """Return the tensors of the pickle ``path``; CheckpointError when there is no one set of them.

    pick: the keys that lead to them, where there are several.
    """
    with File(path) as file:  # the errors of a file that cannot be read
        file.read(0, min(file.size, 1))
    if kind := foreign.called(path) or foreign.no_pickle(path):
        raise CheckpointError(f"{path}: {kind}")
    content = _load(Path(path))
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not a mapping of names to tensors. "
            "Save `model.state_dict()`."
        )
    found = wrapped.find(content, str(path), pick)
    checkpoint = open_mapping(found.tensors, str(path))
    return Checkpoint(
        str(path), checkpoint.tensors, (Path(path),), notes=found.notes, within=found.keys
    )


def _load(path: Path) -> object:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            f"{path}: reading a pickle needs Torch. {install('torch')} Or convert the file to"
            " .safetensors."
        ) from None
    is_zip = zipfile.is_zipfile(path)
    try:
        if is_zip:
            _check_stored(path)
        with _harmless():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except Exception as error:  # a hostile pickle can make its reader raise anything
        if isinstance(error, EOFError) or "unexpected EOF" in str(error):
            raise CheckpointError(
                f"{path}: ends before all its tensors are there. It was cut off; copy or download"
                " it again."
            ) from None
        raise CheckpointError(
            f"{path}: is not a pickle of tensors alone ({_reason(error)}). "
            "Save `model.state_dict()` alone; where you trust the file, from "
            "`torch.load(PATH, weights_only=False)`, which runs code that is in it."
        ) from None


def _reason(error: Exception) -> str:
    """Return in a few words why Torch does not read a file; it says much more."""
    text = str(error).strip()
    if found := re.search(r"(GLOBAL|Trying to load unsupported GLOBAL|class) '?([\w.]+)", text):
        return f"it holds a {printable(found[2])}"
    return f"{type(error).__name__}: {shown((text or 'no reason').splitlines()[0])}"


def _harmless() -> AbstractContextManager[object]:
    """Return a context in which Torch's unpickler makes a few more types that only hold values.

    Those that training programs keep beside weights: settings of a command line, counters, times,
    NumPy's numbers.
    """
    import torch

    try:
        from numpy._core import multiarray
    except ImportError:  # NumPy 1
        from numpy.core import multiarray
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        return nullcontext()  # before Torch 2.6, which takes types under other names too
    dtypes = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDUS"]
    scalar, remake = multiarray.scalar, multiarray._reconstruct
    beside: list[Any] = [argparse.Namespace, types.SimpleNamespace, PurePosixPath]
    beside += [dict, list, int, float, np.dtype, np.ndarray, (_dict, "collections.defaultdict")]
    beside += [datetime.date, datetime.datetime, datetime.timedelta]
    old = [(it, f"numpy.core.multiarray.{it.__name__}") for it in (scalar, remake)]
    paths = [(PurePosixPath, "pathlib.PosixPath"), (PurePosixPath, "pathlib._local.PosixPath")]
    return torch.serialization.safe_globals([*beside, *dtypes, scalar, remake, *old, *paths])


def _dict(*_default: object) -> dict[object, object]:
    """Return what stands for a defaultdict, into which Torch's unpickler puts no values."""
    return {}


def _check_stored(path: Path) -> None:
    """Raise if the zip is compressed: mapping it would take compressed bytes for weights."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{path}: {shown(member.filename)} in it is compressed, which `torch.save` "
                    "never does. Load it and save it again."
                )
