"""BLAKE3 of models and of files, kept as long as nothing writes to the files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import cache, mirrors, places
from breadcrumbs.checkpoint.files import File, FileRange
from breadcrumbs.checkpoint.memory import ArrayBytes
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.checkpoint.tied import stored

#: Bytes of a model that are read at once.
MODEL_STEP = 8 << 20
#: Where hashes of models are kept, and those of files.
KIND, FILES = "hashes", "files"
#: Seconds since the last write after which a later write bears a later time.
SETTLED = 2.0


def model_hash(
    source: str | os.PathLike[str] | Mapping[str, Any],
    threads: int = 0,
    fresh: bool = False,
    settled: float = SETTLED,
) -> str:
    """Return the BLAKE3 of a model's weights: names, dtypes, shapes and bytes, in order of names.

    source: whatever `breadcrumbs.load` opens. The hash is that of the tensors: the same for one
    file, for shards and for arrays in memory, whatever the order and whatever else the files say.
    Arrays are hashed where they are; files are read in steps. threads: 0 for one a core.

    The hash of files is kept (`cache.folder`) and given again as long as nothing wrote to them, by
    their sizes, times and inodes. fresh: whether to read them all the same. settled: seconds since
    the last write before which nothing is kept.
    """
    whole = checkpoint.open(source)
    opened = stored(whole)
    try:
        key = _key(opened, settled)
        kept = cache.read(cache.folder(), KIND, key) if key and not fresh else None
        if kept is not None:
            return kept.decode()
        found = _of_weights(opened, threads)
        if key and _key(opened, settled) == key:
            cache.write(cache.folder(), KIND, key, found.encode())
    finally:
        if whole is not source:
            whole.close()
    return found


class FileHashes:
    """BLAKE3 of whole files: what is known of them before they are read, and kept once they were.

    files: looked at now. settled: as for `model_hash`. known: by path, the hash that was kept of a
    file that nothing wrote to since.
    """

    def __init__(self, files: Iterable[Path], settled: float = SETTLED):
        self._keys = {file: _file_key(file, settled) for file in files}
        self.known: dict[Path, str] = {}
        for file, key in self._keys.items():
            mirror = mirrors.of(file)
            if mirror is not None and mirror.known is not None:
                self.known[file] = mirror.known  # which is told, and nothing is read for it
                continue
            kept = cache.read(cache.folder(), FILES, key) if key else None
            if kept is not None:
                self.known[file] = kept.decode()

    def keep(self, hashes: Mapping[Path, str]) -> None:
        """Keep hashes of bytes that were read since, of files that are still as they were."""
        for file, key in self._keys.items():
            if key and file in hashes and file not in self.known and _file_key(file, 0.0) == key:
                cache.write(cache.folder(), FILES, key, hashes[file].encode())


def stamp(path: str) -> tuple[tuple[str, int, int, int, int], ...]:
    """Return what changes when something writes to a file or folder, or replaces it.

    The same for whatever is neither, such as a hub id. Of a URL, what is there now is asked.
    """
    if places.is_url(path):
        from breadcrumbs.checkpoint.places import folders

        here = str(folders.here(path)[0])  # another one where a file has changed
        return ((here, 0, 0, 0, 0),)
    where = Path(path)
    files = sorted(where.iterdir()) if where.is_dir() else [where]
    found = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple(
        (name, said.st_ino, said.st_size, said.st_mtime_ns, said.st_ctime_ns)
        for name, said in found
    )


def _of_weights(model: Checkpoint, threads: int) -> str:
    hasher = blake3(max_threads=threads or blake3.AUTO)
    buffer = np.empty(0, np.uint8)
    for name in sorted(model.tensors):
        tensor = model.tensors[name]
        head = json.dumps([name, tensor.dtype, list(tensor.shape)]).encode()
        hasher.update(len(head).to_bytes(8, "little") + head)
        where = tensor.source
        if isinstance(where, ArrayBytes) and where.array.flags.c_contiguous:
            hasher.update(where.array.reshape(-1).view(np.uint8).data)
            continue
        if not buffer.size:
            buffer = np.empty(MODEL_STEP, np.uint8)
        for start in range(0, tensor.nbytes, MODEL_STEP):
            piece = buffer[: min(MODEL_STEP, tensor.nbytes - start)]
            where.read_into(start, piece.data)
            hasher.update(piece.data)
    return hasher.hexdigest()


def _key(model: Checkpoint, settled: float = SETTLED) -> str | None:
    """Return a digest of where a model's weights lie and when that was last written.

    None where weights are no plain bytes of files, or where these were written so lately that a
    write that follows may bear the same time.
    """
    files: dict[File, list[Any]] = {}
    tensors = []
    for name, tensor in model.tensors.items():
        parts = getattr(tensor.source, "parts", (tensor,))  # of quantised weights several
        for source in (part.source for part in parts):
            if not isinstance(source, FileRange):
                return None
            if source.file not in files:
                mirror = mirrors.of(source.file.path)
                if mirror is not None:
                    found = [mirror.known, mirror.size] if mirror.known else None
                else:
                    found = _written(os.fstat(source.file.fileno()), source.file.path, settled)
                if found is None:
                    return None
                files[source.file] = [len(files), *found]
            number = files[source.file][0]
            tensors.append([name, tensor.dtype, tensor.shape, number, source.offset])
    written = json.dumps([list(files.values()), tensors])
    return blake3(written.encode()).hexdigest() if tensors else None


def _file_key(file: Path, settled: float) -> str | None:
    """Return a digest of where a file lies and when it was last written; None as `_key` does, and
    of a mirror, which is written as it is read."""
    if mirrors.of(file) is not None:
        return None
    try:
        found = _written(file.stat(), file, settled)
    except OSError:
        return None
    return blake3(json.dumps(found).encode()).hexdigest() if found else None


def _written(said: os.stat_result, path: Path, settled: float) -> list[Any] | None:
    """Return where a file lies and what tells that something wrote to it; None if just now."""
    if time.time() - max(said.st_mtime, said.st_ctime) < settled:
        return None
    place, times = os.path.realpath(path), [said.st_mtime_ns, said.st_ctime_ns]
    return [place, said.st_dev, said.st_ino, said.st_size, *times]
