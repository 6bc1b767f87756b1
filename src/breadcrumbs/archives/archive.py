"""The archive of tasks: what docs/compression.md specifies, read and checked.

Whatever is not as specified is refused with a CheckpointError of one line; nothing is read of an
array whose size has not been compared with the shape that it is for.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.archives.votes import by_layer, shares
from breadcrumbs.checkpoint import hashing
from breadcrumbs.checkpoint.safetensors import open_safetensors, parse_json
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError, MismatchError, suggestion
from breadcrumbs.taskfile.about import BaseReference

KEY, HASH, VERSION = "breadcrumbs.archive", "breadcrumbs.archive.hash", 1
VOTES, DIGESTS = "votes", "digests"
METHODS = ("tall", "emr", "tsv")
STEP = 1 << 20
_ARRAY = re.compile(r"(value)/(.*)|(mask|left|right|whole)/(0|[1-9]\d{0,5})/(.*)", re.DOTALL)
_MOST_TASKS = 100_000


@dataclass(frozen=True)
class Archive:
    """An open archive; a context manager.

    path: where it is. method: ``tall``, ``emr`` or ``tsv``. tasks: their names. base: what it is
    for. parameters: of the method. hash: of the content. values, masks, lefts, rights, wholes: its
    arrays, by tensor, or by task and tensor; those of a tensor stand for its tied copies too. tied:
    by the name of a copy, that of the tensor.
    """

    path: str
    method: str
    tasks: tuple[str, ...]
    base: BaseReference
    parameters: Mapping[str, Any]
    hash: str
    file: Checkpoint = field(repr=False)
    values: dict[str, Tensor] = field(default_factory=dict, repr=False)
    masks: dict[tuple[int, str], Tensor] = field(default_factory=dict, repr=False)
    lefts: dict[tuple[int, str], Tensor] = field(default_factory=dict, repr=False)
    rights: dict[tuple[int, str], Tensor] = field(default_factory=dict, repr=False)
    wholes: dict[tuple[int, str], Tensor] = field(default_factory=dict, repr=False)
    tied: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def number(self, task: str) -> int:
        """Return the number of a task; CheckpointError if there is none of that name."""
        if task not in self.tasks:
            raise CheckpointError(
                f"{self.path}: has no task {shown(task)}.{suggestion(task, self.tasks)} There are"
                f" {', '.join(self.tasks)}."
            )
        return self.tasks.index(task)

    def names(self, task: int) -> list[str]:
        """Return the names of the tensors that a task has other than the base."""
        mine = (found for found in (self.masks, self.lefts, self.wholes))
        return list(dict.fromkeys(name for found in mine for t, name in found if t == task))

    def bits(self, task: int, name: str) -> np.ndarray:
        """Return the packed mask of a task for a tensor: eight entries a byte, the first highest.

        Zeros where the task left the tensor as it is.
        """
        mask = self.masks.get((task, name))
        size = self.values[name].size
        return np.zeros(-(-size // 8), np.uint8) if mask is None else mask.read()

    def votes(self) -> dict[str, list[int]]:
        """Return, by tensor, how many of its changed weights are in 0, 1, ... all masks."""
        self.verify([VOTES])
        if VOTES not in self.file.tensors:
            return {}
        names = [name for name in self.values if name not in self.tied]
        return dict(zip(names, self.file[VOTES].tolist(), strict=True))

    def to_mapping(self) -> dict[str, Any]:
        """Return what it says of itself as plain data, with the shares of each kind of weights."""
        return {
            "version": VERSION,
            "method": self.method,
            "tasks": list(self.tasks),
            "parameters": dict(self.parameters),
            "base": asdict(self.base),
            "hash": self.hash,
            "shares": {layer: shares(mine) for layer, mine in by_layer(self.votes()).items()},
        }

    def verify_task(self, task: int) -> None:
        """Read all that a task is rebuilt from; CheckpointError if a bit of it was altered."""
        groups = (self.masks, self.lefts, self.rights, self.wholes)
        mine = [tensor.name for group in groups for (t, _), tensor in group.items() if t == task]
        mine += [self.values[name].name for t, name in self.masks if t == task]
        self.verify(mine)

    def verify(self, arrays: Sequence[str] | None = None) -> None:
        """Read arrays, all unless told; CheckpointError if a bit of one was altered."""
        wanted = self.file.tensors if arrays is None else set(arrays)
        digests = self.file[DIGESTS]
        buffer = np.empty(STEP, np.uint8)
        others = (tensor for tensor in self.file.tensors.values() if tensor.name != DIGESTS)
        for tensor, digest in zip(others, digests, strict=True):
            if tensor.name not in wanted:
                continue
            hasher = blake3()
            for start in range(0, tensor.nbytes, STEP):
                piece = buffer[: min(STEP, tensor.nbytes - start)]
                tensor.source.read_into(start, piece.data)
                hasher.update(piece.data)
            if hasher.digest() != digest.tobytes():
                raise CheckpointError(
                    f"{self.path}: {shown(tensor.name)} is not what was written. The file has been"
                    " altered or damaged; copy or download it again."
                )

    def check_base(self, base: Checkpoint) -> None:
        """Raise MismatchError, which names the base that is needed, unless ``base`` is that."""
        for name, shape, dtype in self._expected():
            mine = base.tensors.get(name)
            fits = mine is not None and mine.shape == shape and mine.is_float
            if mine is None or not fits or (dtype and mine.dtype != dtype):
                found = f"{mine.dtype} of shape {mine.shape}" if mine else "no such tensor"
                raise MismatchError(
                    f"{base.label}: tensor {name!r}: {self.path} is made for"
                    f" {dtype or 'a weight'} of shape {shape}, but here is {found}."
                    f" {self.base_needed}"
                )
        found = hashing.model_hash(base)
        if found != self.base.hash:
            raise MismatchError(
                f"{base.label}: is not the base of {self.path}: its weights have the hash"
                f" {found[:16]}..., not {self.base.hash[:16]}... {self.base_needed}"
            )

    @property
    def base_needed(self) -> str:
        revision = f" (revision {self.base.revision})" if self.base.revision else ""
        return f"Give the base that it was made with, {shown(self.base.name)}{revision}."

    def _expected(self) -> Iterator[tuple[str, tuple[int, ...], str | None]]:
        """Yield name, shape and dtype (None for any) of the tensors that the base must have."""
        for name, value in self.values.items():
            yield name, value.shape, value.dtype if self.method == "tall" else None
        for (task, name), left in self.lefts.items():
            yield name, (left.shape[0], self.rights[task, name].shape[1]), None


def open_archive(path: str | os.PathLike[str]) -> Archive:
    """Return the archive at ``path``, its header and sizes checked; CheckpointError if it is none.

    What its arrays hold is compared with their digests by `Archive.verify`.
    """
    file = open_safetensors(path)
    try:
        return of(file)
    except BaseException:
        file.close()
        raise


def is_archive(file: Checkpoint) -> bool:
    """Return whether an open checkpoint is an archive."""
    return KEY in file.metadata


def content_hash(text: str, arrays: Sequence[tuple[str, str, Sequence[int]]], digests: Any) -> str:
    """Return the hash of an archive: of what it says, of its arrays' names, dtypes, shapes (in the
    order of the file, without the digests), and of their digests."""
    described = json.dumps([[name, dtype, list(shape)] for name, dtype, shape in arrays])
    hasher = blake3()
    for part in (text.encode(), described.encode(), bytes(digests)):
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.hexdigest()


def of(file: Checkpoint) -> Archive:
    """Return the archive that an open checkpoint is; CheckpointError if it is none."""
    path = file.label
    text = file.metadata.get(KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: is not an archive of tasks. Give a file that `breadcrumbs compress` made."
        )
    with _refusing(path):
        said = parse_json(text.encode(), f"{path}: its metadata {KEY!r}")
        version = said.get("version")
        if version != VERSION:
            raise CheckpointError(
                f"{path}: is an archive of version {shown(version)}, and this program reads version"
                f" {VERSION}. Compress again, or use a program of that version."
            )
        digests = file.tensors[DIGESTS]
        _need(digests.dtype == "U8" and digests.shape == (len(file.tensors) - 1, 32))
        held = [t for t in file.tensors.values() if t.name != DIGESTS]
        found = file.metadata.get(HASH)
        described = [(t.name, t.dtype, t.shape) for t in held]
        if found != content_hash(text, described, file[DIGESTS].tobytes()):
            raise CheckpointError(
                f"{path}: what it says of itself is not what was written. The file has been"
                " altered or damaged; copy or download it again."
            )
        base: Any = said["base"]
        tasks: Any = said["tasks"]
        parameters: Any = said["parameters"]
        _need(said["method"] in METHODS and isinstance(parameters, dict))
        _need(isinstance(tasks, list) and 0 < len(tasks) <= _MOST_TASKS)
        _need(all(isinstance(task, str) for task in tasks) and len(set(tasks)) == len(tasks))
        _need(isinstance(base["revision"], str | None))
        _need(isinstance(base["name"], str) and re.fullmatch(r"[0-9a-f]{64}", base["hash"]))
        archive = Archive(
            path,
            str(said["method"]),
            tuple(tasks),
            BaseReference(base["name"], base["revision"], base["hash"]),
            parameters,
            str(found),
            file,
        )
        for tensor in held:
            _add(archive, tensor)
        _check(archive)
        tied: Any = said.get("tied", {})
        _need(isinstance(tied, dict))
        archive = replace(archive, tied=tied)
        _copy(archive)
    return archive


def _copy(archive: Archive) -> None:
    """Give tied copies the arrays of the tensors that they are one with."""
    for name, other in archive.tied.items():
        _need(isinstance(other, str) and other not in archive.tied)
        found = False
        if other in archive.values:
            _need(name not in archive.values)
            archive.values[name], found = archive.values[other], True
        for arrays in (archive.masks, archive.lefts, archive.rights, archive.wholes):
            for task in range(len(archive.tasks)):
                if (task, other) in arrays:
                    _need((task, name) not in arrays)
                    arrays[task, name], found = arrays[task, other], True
        _need(found)


def _add(archive: Archive, tensor: Tensor) -> None:
    """Put an array where it belongs."""
    if tensor.name == VOTES:
        return
    match = _ARRAY.fullmatch(tensor.name)
    _need(match)
    assert match
    if match[1]:
        archive.values[match[2]] = tensor
        return
    task, name = int(match[4]), match[5]
    _need(task < len(archive.tasks))
    groups = {
        "mask": archive.masks,
        "left": archive.lefts,
        "right": archive.rights,
        "whole": archive.wholes,
    }
    groups[match[3]][task, name] = tensor


def _check(archive: Archive) -> None:
    """Raise unless the arrays are those of the method, and their sizes fit each other."""
    values, masks = archive.values, archive.masks
    if archive.method == "tsv":
        _need(not values and not masks and archive.lefts.keys() == archive.rights.keys())
    else:
        _need(not archive.lefts and not archive.rights)
    for (task, name), left in archive.lefts.items():
        right = archive.rights[task, name]
        _need(len(left.shape) == 2 == len(right.shape) and left.shape[1] == right.shape[0])
        _need(left.dtype == right.dtype and left.dtype in ("F32", "F64"))
        _need((task, name) not in archive.wholes)
    for (task, name), mask in masks.items():
        _need(name in values and mask.dtype == "U8")
        _need(mask.shape == (-(-values[name].size // 8),) and (task, name) not in archive.wholes)
    _need(all(value.is_float for value in values.values()))
    votes = archive.file.tensors.get(VOTES)
    _need((votes is not None) == bool(values))
    if votes is not None:
        _need(votes.dtype == "I64" and votes.shape == (len(values), len(archive.tasks) + 1))
    if archive.method == "emr":
        factors = archive.parameters["rescale"]
        _need(isinstance(factors, list) and len(factors) == len(archive.tasks))
        every = [f for one in factors for f in (one.values() if isinstance(one, dict) else [one])]
        _need(all(isinstance(f, float) and math.isfinite(f) and f >= 0 for f in every))


class _Unlike(Exception):
    """Something in an archive is not as specified."""


def _need(holds: object) -> None:
    if not holds:
        raise _Unlike


@contextmanager
def _refusing(path: str) -> Iterator[None]:
    try:
        yield
    except (_Unlike, KeyError, TypeError, ValueError, IndexError, RecursionError):
        raise CheckpointError(
            f"{path}: is not an archive as docs/compression.md specifies it. It is damaged, or"
            " another program made it; compress again."
        ) from None
