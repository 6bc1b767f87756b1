"""Digests of tensors, from what is written of them in any order, and the check of files by them.

A tensor is cut into blocks of `BLOCK` bytes, the last one shorter; each block has the BLAKE3 of its
bytes (16 bytes of it), and the tensor that of the digests of its blocks, one after another. So it
does not depend on who wrote which part when. The header of a file that is written here says

    breadcrumbs.tensors   the digests of its tensors in hexadecimal, in the order of their bytes
    breadcrumbs.digest    BLAKE3 of all else that the header says, those digests included

and the index of several files has the last one of each.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError
from breadcrumbs.threads import Task, run_tasks

TENSORS, DIGEST = "breadcrumbs.tensors", "breadcrumbs.digest"
#: In the metadata of an index: the digest of each file.
FILES = "breadcrumbs.digests"
BLOCK = 128 << 10
SIZE = 16
#: Reads so many bytes from a position of a tensor on.
Read = Callable[[int, int], bytes]


def of_blocks(digests: bytes) -> bytes:
    """Return the digest of what has blocks of such digests."""
    return blake3(digests).digest(SIZE)


class Described(Protocol):
    """A tensor in a header."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def of_header(entries: Sequence[Described], metadata: Mapping[str, str]) -> str:
    """Return the digest of what a header says, but for this digest."""
    said = {key: text for key, text in sorted(metadata.items()) if key != DIGEST}
    tensors = [[entry.name, entry.dtype, list(entry.shape)] for entry in entries]
    text = json.dumps([said, tensors], separators=(",", ":"), ensure_ascii=False)
    return blake3(text.encode(errors="replace")).hexdigest()


def placeholders(count: int) -> dict[str, str]:
    """Return metadata that have the place of the digests of a file of so many tensors."""
    return {TENSORS: "0" * (2 * SIZE * count), DIGEST: "0" * 64}


class Growing:
    """The digests of tensors that are being written. sizes: their bytes."""

    def __init__(self, sizes: Sequence[int]):
        self._sizes = sizes
        self._blocks: dict[int, np.ndarray] = {}
        self._known: dict[int, np.ndarray] = {}
        self._whole: dict[int, bytes] = {}
        self._under_way: dict[tuple[int, int], tuple[int, Any]] = {}
        self._lock = threading.Lock()

    def wrote(self, number: int, start: int, data: memoryview) -> None:
        """Note bytes of a tensor from byte ``start`` on. Those written twice count as last written.

        A block is known if it was written at once, or piece by piece from its beginning on.
        """
        size = self._sizes[number]
        if 0 < len(data) == size <= BLOCK:  # as of most tensors where they are many
            whole = of_blocks(blake3(data).digest(SIZE))
            with self._lock:
                self._whole[number] = whole
                self._blocks.pop(number, None)
                self._known.pop(number, None)
            return
        self._wrote(number, size, start, data)

    def wrote_several(self, numbers: Sequence[int], data: memoryview) -> list[str]:
        """Do as `wrote` for whole tensors that lie one after the other, each of one block at most.

        Return their digests in hexadecimal.
        """
        found, at = {}, 0
        for number in numbers:
            end = at + self._sizes[number]
            found[number] = of_blocks(blake3(data[at:end]).digest(SIZE))
            at = end
        with self._lock:
            self._whole |= found
            if self._blocks:
                for number in numbers:
                    self._blocks.pop(number, None)
                    self._known.pop(number, None)
        return [digest.hex() for digest in found.values()]

    def _wrote(self, number: int, size: int, start: int, data: memoryview) -> None:
        blocks, known = self._of(number)
        for i, low, high, whole in _pieces(size, start, start + len(data)):
            piece = data[low - start : high - start]
            digest = blake3(piece).digest(SIZE) if whole else self._piece(number, i, low, piece)
            if digest is None:
                known[i] = False
            else:
                blocks[i], known[i] = np.frombuffer(digest, np.uint8), True

    def of(self, number: int, start: int, stop: int, read: Read) -> bytes:
        """Return a digest of some bytes of a tensor; what is not known of them is read."""
        if stop - start == self._sizes[number] and (whole := self._whole.get(number)) is not None:
            return whole
        blocks, known = self._of(number)
        found = []
        for i, low, high, whole in _pieces(self._sizes[number], start, stop):
            if whole and known[i]:
                found.append(blocks[i].tobytes())
                continue
            found.append(blake3(read(low, high - low)).digest(SIZE))
            if whole:
                blocks[i], known[i] = np.frombuffer(found[-1], np.uint8), True
        return of_blocks(b"".join(found))

    def settle(self, number: int) -> None:
        """Keep the digest of a tensor that is written, and not those of its blocks."""
        with self._lock:
            known = self._known.get(number)
            if known is not None and known.all():
                self._whole[number] = of_blocks(self._blocks[number].tobytes())
                del self._blocks[number], self._known[number]

    def tensor(self, number: int, read: Read) -> bytes:
        """Return the digest of a tensor that is written; what is not known of it is read."""
        with self._lock:
            if number in self._whole:
                return self._whole[number]
        found = self.of(number, 0, self._sizes[number], read)
        self.settle(number)
        return found

    def _of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if number not in self._blocks:
                self._whole.pop(number, None)
                count = -(-self._sizes[number] // BLOCK)
                self._blocks[number] = np.zeros((count, SIZE), np.uint8)
                self._known[number] = np.zeros(count, np.bool_)
            return self._blocks[number], self._known[number]

    def _piece(self, number: int, block: int, low: int, piece: memoryview) -> bytes | None:
        """Hash a part of a block, from byte ``low`` of the tensor on.

        Return the digest of the block if this was the last part, and all came in order.
        """
        with self._lock:
            at, hasher = self._under_way.pop((number, block), (0, None))
        if low == block * BLOCK:
            hasher = blake3()
        elif hasher is None or at != low:
            return None
        hasher.update(piece)
        high = low + len(piece)
        if high == min((block + 1) * BLOCK, self._sizes[number]):
            return hasher.digest(SIZE)
        with self._lock:
            self._under_way[number, block] = high, hasher
        return None


def read(size: int, start: int, stop: int, read: Read) -> bytes:
    """Return the same as `Growing.of`, from bytes that are all read. size: of the tensor."""
    pieces = _pieces(size, start, stop)
    return of_blocks(
        b"".join(blake3(read(low, high - low)).digest(SIZE) for _, low, high, _ in pieces)
    )


def _pieces(size: int, start: int, stop: int) -> Iterator[tuple[int, int, int, bool]]:
    """Yield how blocks cut some bytes of a tensor: number, first and last byte, if it is whole."""
    for i in range(start // BLOCK, -(-stop // BLOCK)):
        begin, end = i * BLOCK, min((i + 1) * BLOCK, size)
        low, high = max(begin, start), min(end, stop)
        yield i, low, high, (low, high) == (begin, end)


def check(file: Checkpoint, path: str, threads: int) -> None:
    """Raise CheckpointError that names what differs, unless one file is as its digests say.

    Also if it has none. file: of one safetensors file, all of its tensors.
    """
    metadata, tensors = file.metadata, list(file.tensors.values())
    said = metadata.get(TENSORS)
    if said is None or DIGEST not in metadata:
        raise CheckpointError(
            f"{path}: has no digest to verify. Files that this program writes have one; compare"
            " --hash with that of another copy."
        )
    again = "It has been altered or damaged; copy, download or merge it again."
    if metadata[DIGEST] != of_header(tensors, metadata) or len(said) != 2 * SIZE * len(tensors):
        raise CheckpointError(f"{path}: its header is not what was written. {again}")
    found: dict[int, bytes] = {}

    def look(number: int) -> list[Task]:
        found[number] = of_tensor(tensors[number])
        return []

    run_tasks([partial(look, number) for number in range(len(tensors))], threads)
    for number, tensor in enumerate(tensors):
        if found[number].hex() != said[2 * SIZE * number : 2 * SIZE * (number + 1)]:
            raise CheckpointError(
                f"{path}: tensor {shown(tensor.name)} is not what was written. {again}"
            )


def of_tensor(tensor: Tensor) -> bytes:
    """Return the digest of a tensor in a file."""
    buffer = np.empty(min(tensor.nbytes, 8 * BLOCK), np.uint8)
    found = []
    for start in range(0, tensor.nbytes, 8 * BLOCK):
        piece = buffer[: min(8 * BLOCK, tensor.nbytes - start)].data
        tensor.source.read_into(start, piece)
        found += [blake3(piece[i : i + BLOCK]).digest(SIZE) for i in range(0, len(piece), BLOCK)]
    return of_blocks(b"".join(found))
