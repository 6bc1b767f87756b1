"""Read the header of a safetensors file, and refuse one that lies.

    8 bytes      n, unsigned, little-endian; at most 100,000,000
    n bytes      a JSON object in UTF-8 that begins with "{", padded with spaces:
                     {"__metadata__": {str: str, ...},
                      name: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
    the rest     the tensors, little-endian, C order, one after another without gaps

A file is refused unless its tensors cover the rest exactly and each has the bytes of its shape and
dtype. The format is read here rather than by the `safetensors` package because that one maps the
file, where this program reads ranges of it into buffers of its own.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from breadcrumbs.checkpoint import foreign
from breadcrumbs.checkpoint.files import File, FileRange
from breadcrumbs.checkpoint.tensors import (
    DTYPES,
    Checkpoint,
    Tensor,
    bits,
    check_name,
    is_unicode,
    shown,
)
from breadcrumbs.errors import CheckpointError

MAX_JSON = 100_000_000
#: How many ``{``, ``[`` and ``,`` may be in a header or index. Each can become some 200 bytes of
#: Python objects; an honest header has about eight for a tensor, an index has one.
MAX_JSON_PARTS = 2_000_000
MAX_DIMS = 64  # NumPy's
_INT64 = 2**63 - 1
_AGAIN = "It is cut off or not a safetensors file; copy or download it again."
_KEYS = {"dtype", "shape", "data_offsets"}


class Entry(NamedTuple):
    """One tensor of a header; its bytes are ``begin`` to ``end``, counted from ``data_start``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself; ``tensors`` in the order of their bytes."""

    metadata: dict[str, str]
    tensors: list[Entry]
    data_start: int


def open_safetensors(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the tensors of one safetensors file; raises CheckpointError as `read_header` does."""
    file = File(path)
    try:
        header = _header(file)
    except BaseException:
        file.close()
        raise
    tensors = {
        name: Tensor(name, dtype, shape, FileRange(file, header.data_start + begin, end - begin))
        for name, dtype, shape, begin, end in header.tensors
    }
    return Checkpoint(str(path), tensors, (file.path,), metadata=header.metadata, close=file.close)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return the header of the safetensors file ``path``, checked; else CheckpointError."""
    with File(path) as file:
        return _header(file)


def _header(file: File) -> Header:
    try:
        return _own_header(file)
    except CheckpointError as error:
        kind = foreign.called(file.path) or _pickle(file.path)
        if kind is None:
            raise
        raise CheckpointError(f"{file.path}: {kind}") from error


def _pickle(path: Path) -> str | None:
    if not foreign.is_pickle(path):
        return None
    return (
        "is a pickle of Torch under the name of a safetensors file. Rename it to "
        f"{path.with_suffix('.pt').name}, which is read where Torch is installed."
    )


def _own_header(file: File) -> Header:
    where = str(file.path)
    if file.size < 8:
        raise CheckpointError(
            f"{where}: has {file.size} bytes, too short for a safetensors file. {_AGAIN}"
        )
    length = int.from_bytes(file.read(0, 8), "little")
    if length > MAX_JSON:
        raise CheckpointError(
            f"{where}: says that its header has {length} bytes, more than the {MAX_JSON} that the "
            "format allows. It is damaged or not a safetensors file."
        )
    if length > file.size - 8:
        raise CheckpointError(
            f"{where}: says that its header has {length} bytes, but only {file.size - 8} follow. "
            + _AGAIN
        )
    return parse_header(file.read(8, length), file.size - 8 - length, where)


def parse_header(text: bytes, data_bytes: int, where: str) -> Header:
    """Return the header written in ``text`` for a file in which ``data_bytes`` bytes follow it."""
    if not text.startswith(b"{"):
        raise CheckpointError(f"{where}: its header is not a JSON object. {_AGAIN}")
    members = parse_json(text, f"{where}: its header")
    metadata = _metadata(members.pop("__metadata__", {}), where)
    tensors = [_entry(name, info, where) for name, info in members.items()]
    tensors.sort(key=lambda entry: (entry.begin, entry.end))
    _check_cover(tensors, data_bytes, where)
    return Header(metadata, tensors, 8 + len(text))


def parse_json(text: bytes, what: str) -> dict[str, object]:
    """Return the JSON object in ``text``, strictly: UTF-8, no NaN, no name twice in an object.

    ``what`` begins the message of the CheckpointError raised otherwise. At most `MAX_JSON_PARTS`
    parts, so that no text of 100 MB takes more than some 600 MB while it is read.
    """
    if sum(map(text.count, (b"{", b"[", b","))) > MAX_JSON_PARTS:
        raise CheckpointError(f"{what} holds more than {MAX_JSON_PARTS} values. It is damaged.")

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise CheckpointError(f"{what} has {shown(twice)} twice. Write the file again.")
        return result

    def constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(text.decode(), object_pairs_hook=members, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{what} is not UTF-8 at byte {error.start}. It is damaged."
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else shown(str(error))
        raise CheckpointError(f"{what} is not valid JSON ({reason}). It is damaged.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} is not a JSON object. It is damaged.")
    return value


def _metadata(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: '__metadata__' is not an object of strings.")
    for key, item in value.items():
        if not isinstance(item, str):
            raise CheckpointError(
                f"{where}: '__metadata__' has {shown(item)} for {shown(key)}. Values are strings."
            )
        if not is_unicode(key + item):
            raise CheckpointError(f"{where}: '__metadata__' {shown(key)} is not Unicode.")
    return value


def _entry(name: str, info: object, where: str) -> Entry:
    """Return the checked entry of one tensor (all but its place among the others)."""
    check_name(name, where)
    fault = _fault(info)
    if fault or not isinstance(info, dict):
        raise CheckpointError(f"{where}: tensor {shown(name)} has {fault}")
    begin, end = info["data_offsets"]
    return Entry(name, info["dtype"], tuple(info["shape"]), begin, end)


def _fault(info: object) -> str:
    """Return what is wrong with what a header says of a tensor, after "has"; empty if nothing."""
    if not isinstance(info, dict) or info.keys() != _KEYS:
        found = list(info) if isinstance(info, dict) else info
        return f"{shown(found)} in the header. Exactly dtype, shape, data_offsets belong there."
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"dtype {shown(dtype)}, which is not supported. Supported: {', '.join(DTYPES)}."
    if not _are_sizes(shape) or len(shape) > MAX_DIMS:
        return (
            f"shape {shown(shape)}. A shape is a list of up to {MAX_DIMS} integers of 64 bits, none"
            " negative."
        )
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"data_offsets {shown(offsets)}. They are two integers, begin <= end."
    begin, end = offsets
    entry_bits = bits(dtype)
    nbytes, rest = divmod(math.prod(shape) * entry_bits, 8)
    if rest:
        return f"shape {shown(shape)} of {dtype}, which is not a whole number of bytes."
    if nbytes != end - begin:
        return (
            f"shape {shown(shape)} of {dtype}, {shown(nbytes)} bytes, but its data_offsets span"
            f" {end - begin}."
        )
    if 0 in shape and math.prod(length or 1 for length in shape) * entry_bits // 8 > _INT64:
        return f"shape {shown(shape)}, too large for an array."
    return ""


def _check_cover(tensors: list[Entry], data_bytes: int, where: str) -> None:
    """Raise unless ``tensors``, in order, cover ``data_bytes`` bytes without gap or overlap."""
    end = 0
    for entry in tensors:
        if entry.end > data_bytes:
            raise CheckpointError(
                f"{where}: tensor {shown(entry.name)} ends at byte {entry.end} of the data, but "
                f"there are {data_bytes}. {_AGAIN}"
            )
        if entry.begin != end:
            fault = "overlaps the one before" if entry.begin < end else "leaves a hole before it"
            raise CheckpointError(
                f"{where}: tensor {shown(entry.name)} {fault}: it begins at byte {entry.begin} of "
                f"the data, not {end}. It is damaged."
            )
        end = entry.end
    if end != data_bytes:
        raise CheckpointError(
            f"{where}: its tensors end at byte {end} of the data, but there are {data_bytes}. "
            "It is damaged."
        )


def _are_sizes(value: object) -> bool:
    """Whether ``value`` is a list of integers from 0 to 2**63 - 1 (a bool is no integer here)."""
    if not isinstance(value, list):
        return False
    for item in value:  # noqa: SIM110  `all` takes three times as long, twice for each tensor
        if type(item) is not int or not 0 <= item <= _INT64:
            return False
    return True
