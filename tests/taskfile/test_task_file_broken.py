"""Task files that lie, in every way: one line each, and no memory for what is not there."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import kernels, tasks
from breadcrumbs.errors import BreadcrumbsError, CheckpointError
from breadcrumbs.taskfile import about, positions
from breadcrumbs.taskfile.encodings import exact, get

N = 2000


def base_and_task(folder: Path, name: str = "t.safetensors") -> tuple[dict[str, np.ndarray], Path]:
    rng = np.random.default_rng(0)
    base = {"w": rng.normal(0, 1, N).astype(np.float32)}
    tuned = {"w": base["w"] + rng.normal(0, 0.1, N).astype(np.float32)}
    options = {"transform": "magnitude", "density": 0.1, "name": "t", "force": True}
    tasks.pack(base, tuned, folder / name, **options)
    return base, folder / name


def refused(path: Path) -> str:
    """Return the line with which a file is refused, opened and read to its end."""
    with pytest.raises(CheckpointError) as error, tasks.TaskFile.open(path) as task:
        task.verify()
    line = str(error.value)
    assert line.isprintable() and line.startswith(str(path)) and len(line) < 2000, line
    return line


def test_cut_off_anywhere(tmp_path: Path) -> None:
    _, path = base_and_task(tmp_path)
    data = path.read_bytes()
    for size in range(0, len(data), 37):
        path.write_bytes(data[:size])
        refused(path)


def test_any_byte_altered(tmp_path: Path) -> None:
    _, path = base_and_task(tmp_path)
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 2):
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        refused(path)
        data[at] ^= 1 << at % 8


def forged(
    folder: Path,
    change: Callable[[dict[str, Any]], Any] = lambda said: None,
    row: tuple[int, ...] | None = None,
    data: bytes | None = None,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a task file with right hashes that says and holds what it is told to.

    change: of the JSON. row: entries kept, codes and sizes of the one block. data: its bytes.
    """
    _, path = base_and_task(folder, "honest.safetensors")
    with breadcrumbs.open(path) as found:  # type: ignore
        said = json.loads(found.metadata[about.KEY])
        table, bytes_ = found["blocks/w"].copy(), found["data/w"].tobytes()
    bytes_ = bytes_ if data is None else data
    if row is not None:
        table[0, :5] = row
        said["tensors"]["w"]["kept"] = row[0]
    table[0, 5:] = np.frombuffer(blake3(bytes_).digest(16), "<u4")
    change(said)
    text = json.dumps(said)
    metadata = {about.KEY: text, about.HASH: about.digest(text, {"w": table.tobytes()})}
    arrays = {"blocks/w": table, "data/w": np.frombuffer(bytes_, np.uint8), **(extra or {})}
    save_file(arrays, folder / "forged.safetensors", metadata)
    return folder / "forged.safetensors"


def test_a_forgery_that_tells_the_truth_is_read(tmp_path: Path) -> None:
    with tasks.TaskFile.open(forged(tmp_path)) as task:
        task.verify()


def put(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change: the last of ``keys`` is the value, or a member to remove if it is `put`."""

    def change(said: dict[str, Any]) -> None:
        *path, name, value = keys
        for key in path:
            said = said[key]
        if value is put:
            del said[name]
        else:
            said[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("version", 2), "of version 2; this program reads version 1. Update"),
        (put("version", True), "of version True"),
        (put("version", put), "of version None"),
        (put("basis", {}), "unknown 'basis'. Did you mean 'base'"),
        (put("base", put), "does not say its 'base'"),
        (put("base", "hash", "ab"), "hash of its base"),
        (put("base", "revision", 3), "says 3 for 'revision'"),
        (put("encoding", "int3"), "no encoding 'int3'. Choose from exact"),
        (put("weights", -1), "negative"),
        (put("parameters", []), "for 'parameters'"),
        (put("tensors", "w", "kept", N + 1), "keeps 2001 of 2000"),
        (put("tensors", "w", "kept", 7), "does not fit its bytes"),
        (put("tensors", "w", "dtype", "F31"), "'F31', which is not supported"),
        (put("tensors", "w", "shape", [-1]), r"shape \[-1\]"),
        (put("tensors", "w", "shape", [2**40]), r"table of shape \(1, 9\), not \(1048576, 9\)"),
        (put("tensors", "w", "shape", [2**62, 2**62]), "keeps 200 of 212"),
        (put("tensors", "w", "shape", [100]), "says that it keeps 200 of 100"),
        (put("tensors", "w", "dtype", "F64"), "bytes of values|planes"),
        (put("tensors", {}), "which its metadata do not name"),
        (put("tensors", "v", {"dtype": "F32", "shape": [1], "kept": 1}), "'v' has no table"),
    ],
)
def test_metadata_that_lie(tmp_path: Path, change, message: str) -> None:
    assert re.search(message, refused(forged(tmp_path, change)))


def frame(data: bytes, sized: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=sized).compress(data)


def planes(last: bytes) -> bytes:
    """Return values of four entries, the highest plane of which is these bytes."""
    return np.array([4, 4, 4, len(last)], "<u4").tobytes() + bytes(12) + last


VALUES = np.ones(4, np.float32).tobytes()
BITS = bytes([15]) + bytes(N // 8 - 1)
OUT = bytes([2, 250, 255, 255, 255, 255, 255, 255, 255, 0, 0])
OUT16 = np.array([0, 0, 0, 1997], "<u2").tobytes()
HUGE = frame(bytes(1 << 28))
BLOCKS = {
    "fits": ((1, BITS), (0, VALUES), ""),
    "fits in a frame": ((17, frame(BITS)), (0, VALUES), ""),
    "gaps8 out of range": ((2, OUT), (0, VALUES), "other positions"),
    "gaps16 out of range": ((3, OUT16), (0, VALUES), "other positions"),
    "too many": ((1, bytes([31]) + BITS[1:]), (0, VALUES), "other positions than the 4 of 2000"),
    "too few": ((1, bytes([7]) + BITS[1:]), (0, VALUES), "other positions"),
    "a short bitmap": ((1, BITS[:-1]), (0, VALUES), "249 bytes of positions where 250"),
    "a long bitmap": ((1, BITS + b"\0"), (0, VALUES), "251 bytes of positions"),
    "half a gap": ((3, bytes(9)), (0, VALUES), "9 bytes of positions"),
    "a long last gap": ((2, bytes([0, 0, 0, 0, 255])), (0, VALUES), "other positions"),
    "not all": ((0, b""), (0, VALUES), "keeps all, but 4 of 2000"),
    "unknown positions": ((9, BITS), (0, VALUES), "unknown code 9"),
    "unknown values": ((1, BITS), (9, VALUES), "unknown code 9"),
    "a frame that grows": ((17, HUGE), (0, VALUES), "268435456 bytes where at most 250"),
    "a frame of no size": ((17, frame(BITS, False)), (0, VALUES), "frame of -1 bytes"),
    "more than a frame": ((17, frame(BITS) + b"x"), (0, VALUES), "cannot be read"),
    "no frame": ((18, b"abcdefgh"), (0, VALUES), "cannot be read"),
    "few values": ((1, BITS), (0, VALUES[:-1]), "15 bytes of values where 16 belong"),
    "no planes": ((1, BITS), (1, b"abc"), "too few for 4 planes"),
    "long planes": ((1, BITS), (1, planes(bytes(4))[:-1]), "not as long"),
    "a plane that grows": ((1, BITS), (1, planes(HUGE)), "where at most 4 belong"),
    "a small plane": ((1, BITS), (1, planes(frame(b"abc"))), "plane of 3 bytes for 4"),
}


@pytest.mark.parametrize("what", BLOCKS)
def test_blocks_that_lie(tmp_path: Path, what: str) -> None:
    (a, first), (b, second), message = BLOCKS[what]
    row = (4, a, len(first), b, len(second))
    path = forged(tmp_path, row=row, data=first + second)
    if not message:
        with tasks.TaskFile.open(path) as task:
            assert task.kept("w", 0).positions.tolist() == [0, 1, 2, 3]
        return
    assert message in refused(path)


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """A frame of a gigabyte that says so, in a block that has room for 250 bytes."""
    bomb = frame(bytes(1 << 30))
    path = forged(tmp_path, row=(4, 17, len(bomb), 0, 16), data=bomb + VALUES)
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_strangers_are_refused(tmp_path: Path) -> None:
    assert "'other'" in refused(forged(tmp_path, extra={"other": np.zeros(2)}))
    save_file({"w": np.zeros(2)}, tmp_path / "w.safetensors")
    assert "is not a task file. Make one with" in refused(tmp_path / "w.safetensors")


def test_damage_is_found_while_merging(tmp_path: Path) -> None:
    base, path = base_and_task(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for method in ("magnitude", "task_arithmetic", "tsv_m"):
        with pytest.raises(CheckpointError, match="block 0 does not match its hash"):
            breadcrumbs.merge(base, [path], method=method)


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
json_values = st.recursive(
    leaves | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=5,
)


@given(st.data(), json_values)
def test_any_member_may_be_anything(tmp_path_factory, data, value) -> None:
    """Opened it is right, or it is refused in one line."""
    folder = tmp_path_factory.mktemp("fuzz")
    _, path = base_and_task(folder, "honest.safetensors")
    with breadcrumbs.open(path) as found:  # type: ignore
        said = json.loads(found.metadata[about.KEY])
    keys: list[Any] = [data.draw(st.sampled_from(sorted(said)))]
    if keys[0] in ("base", "tensors") and data.draw(st.booleans()):
        inner = said[keys[0]] if keys[0] == "base" else said["tensors"]["w"]
        keys += ["w"] * (keys[0] == "tensors") + [data.draw(st.sampled_from(sorted(inner)))]
    path = forged(folder, put(*keys, value))
    try:
        with tasks.TaskFile.open(path) as task:
            task.verify()
    except BreadcrumbsError as error:
        assert isinstance(error, CheckpointError) and str(error).isprintable()


@pytest.fixture(scope="module", params=kernels.PACKAGES)
def tools(request):
    return kernels.choose(request.param)


@given(st.integers(1, 70000), st.floats(0, 1), st.integers(0, 9))
def test_positions_come_back(tools, n: int, density: float, seed: int) -> None:
    keep = np.random.default_rng(seed).random(n) < density ** (1 + seed)
    keep[-1] |= not keep.any()
    at = np.flatnonzero(keep).astype(np.uint32)
    best = len(positions.encode(at, n)[1])
    for code in positions.NAMES:
        if code == positions.ALL and at.size < n:
            continue
        kind = code % positions.ZSTD
        data = b""
        if kind == positions.BITMAP:
            data = np.packbits(keep, bitorder="little").tobytes()
        elif kind:
            data = positions._gaps(at, kind)
        data = frame(data) if code >= positions.ZSTD else data
        found = np.empty_like(at)
        positions.decode(code, memoryview(data), found, n, tools)
        assert (found == at).all()
        assert best <= len(data) or kind > 1 or code >= positions.ZSTD
    code, data = positions.encode(at, n)
    found = np.empty_like(at)
    positions.decode(code, memoryview(data), found, n, tools)
    assert (found == at).all()


@given(
    st.sampled_from([1, 2, 3, 4, 17, 18, 255]),
    st.binary(max_size=40),
    st.integers(1, 300),
    st.integers(0, 300),
)
def test_any_bytes_are_positions_or_refused(tools, code, data, n, number) -> None:
    found = np.full(number, 2**32 - 1, np.uint32)
    try:
        positions.decode(code, memoryview(data), found, n, tools)
    except CheckpointError:
        return
    assert (np.diff(found.astype(np.int64)) > 0).all() and (not number or found[-1] < n)


@given(st.sampled_from(["<u1", "<f2", "<f4", "<f8"]), st.integers(1, 3000), st.integers(0, 9))
def test_values_come_back(dtype: str, n: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 0.03, n).astype(dtype)
    code, data = get("exact").encode(values, None)
    assert len(data) <= values.nbytes
    again = get("exact").decode(code, memoryview(data), n, values.dtype, None)
    assert again.tobytes() == values.tobytes()


@given(st.integers(0, 3), st.binary(max_size=60), st.integers(1, 20))
def test_any_bytes_are_values_or_refused(code: int, data: bytes, n: int) -> None:
    try:
        values = exact.EXACT.decode(code, memoryview(data), n, np.dtype(np.float32), None)
    except CheckpointError:
        return
    assert values.shape == (n,)
