"""The header reader: what real files hold, and one row for each way a file can lie."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breadcrumbs.checkpoint import safetensors as reader
from breadcrumbs.checkpoint.files import File, FileRange
from breadcrumbs.checkpoint.safetensors import open_safetensors, parse_header, read_header
from breadcrumbs.checkpoint.tensors import DTYPES, NAMES, bits
from breadcrumbs.errors import CheckpointError


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    """Return what a header says of one tensor; by default an honest one of 8 bytes."""
    shape, offsets = (list(v) if isinstance(v, tuple) else v for v in (shape, offsets))
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def write(path: Path, header: bytes | dict, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def arrays() -> dict[str, np.ndarray]:
    """Return one array of every dtype, with every byte value, and the odd shapes."""
    result = {}
    for dtype, name in NAMES.items():
        codes = np.arange(256, dtype=np.uint8)
        values = codes % 2 == 1 if name == "BOOL" else codes.view(dtype)
        result[f"all.{name}"] = values.reshape(2, -1)
    result |= {"scalar": np.array(3.5, np.float32), "empty": np.zeros((0, 4), np.float16)}
    return result | {'näme/with\n"odd" characters': np.array([1], np.int8)}


def test_reads_what_the_safetensors_package_writes(tmp_path):
    expected = arrays()
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(expected, path, metadata={"format": "pt", "näme": "ü"})
    assert read_header(path).metadata == {"format": "pt", "näme": "ü"}
    with open_safetensors(path) as checkpoint:
        assert checkpoint.keys() == expected.keys()
        assert checkpoint.files == (path,)
        for name, array in expected.items():
            found = checkpoint[name]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert found.tobytes() == array.tobytes()
            assert checkpoint.tensors[name].nbytes == array.nbytes


def test_every_dtype_name_is_the_one_of_the_format(tmp_path):
    for dtype, name in NAMES.items():
        data = safetensors.numpy.save({"x": np.zeros(3, dtype)})
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        assert read_header(path).tensors[0].dtype == name


def test_reads_ranges_from_many_threads(tmp_path):
    array = np.arange(100_000, dtype=np.int32)
    safetensors.numpy.save_file({"a": array[:7].copy(), "x": array}, tmp_path / "x.safetensors")
    wrong = []
    with open_safetensors(tmp_path / "x.safetensors") as checkpoint:

        def read(seed: int) -> None:
            for start in np.random.default_rng(seed).integers(0, 90_000, 50):
                out = np.empty(1000, np.int32)
                checkpoint.tensors["x"].read_into(int(start), out)
                if not np.array_equal(out, array[start : start + 1000]):
                    wrong.append(start)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_tensors_come_in_the_order_of_their_bytes(tmp_path):
    header = {"b": entry(offsets=(8, 16)), "a": entry(offsets=(0, 8))}
    header["none"] = entry(shape=(0,), offsets=(8, 8))
    path = write(tmp_path / "x.safetensors", header, bytes(16))
    assert [tensor.name for tensor in read_header(path).tensors] == ["a", "none", "b"]


def test_header_may_be_padded_with_spaces(tmp_path):
    text = json.dumps({"a": entry()}).encode() + b"   "
    path = write(tmp_path / "x.safetensors", text, b"12345678")
    with open_safetensors(path) as checkpoint:
        assert checkpoint["a"].tobytes() == b"12345678"


A = json.dumps(entry())
HUGE = [2**62, 2**62]
LIES = {
    # header as an object or bytes, bytes of data, what the message says
    "not JSON": (b"{nothing", 0, "not valid JSON"),
    "not an object": (b"[1, 2]", 0, "not a JSON object"),
    "nothing": (b"", 0, "holds zeros"),
    "space before it": (b' {"a": 1}', 0, "not a JSON object"),
    "two objects": (b"{}{}", 0, "not valid JSON"),
    "NaN": (b'{"a": NaN}', 0, "NaN"),
    "not UTF-8": (b'{"\xff": 1}', 0, "not UTF-8 at byte 2"),
    "nested": (b'{"a":' + b"[" * 100_000, 0, "nested too deeply"),
    "nested objects": (b'{"a":' * 100_000, 0, "nested too deeply"),
    "huge integer": (b'{"a":' + b"9" * 5000 + b"}", 0, "not valid JSON"),
    "same name twice": (f'{{"a": {A}, "a": {A}}}'.encode(), 8, "'a' twice"),
    "same key twice": (b'{"a": {"dtype": "F32", "dtype": "F16"}}', 8, "'dtype' twice"),
    "name cannot be written": ({"\ud800": entry()}, 8, "cannot be called"),
    "metadata not an object": ({"__metadata__": [1]}, 0, "'__metadata__'"),
    "metadata not strings": ({"__metadata__": {"step": 3}}, 0, "'step'"),
    "metadata cannot be written": ({"__metadata__": {"k": "\ud800"}}, 0, "'__metadata__' 'k'"),
    "entry not an object": ({"a": 5}, 0, "'a' has 5"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, 8, "'a' has"),
    "unknown key": ({"a": entry() | {"scale": 2}}, 8, "'scale'"),
    "dtype F3": ({"a": entry("F3", (16,))}, 8, "'F3', which is not supported. Supported: F64"),
    "odd F4": ({"a": entry("F4", (15,))}, 8, "not a whole number of bytes"),
    "odd F6": ({"a": entry("F6_E2M3", (3, 3))}, 8, "not a whole number of bytes"),
    "short F4": ({"a": entry("F4", (14,))}, 8, "7 bytes"),
    "short F6": ({"a": entry("F6_E3M2", (2, 4))}, 8, "6 bytes"),
    "dtype C128": ({"a": entry("C128", (1,))}, 8, "'C128'"),
    "dtype lower case": ({"a": entry("f32")}, 8, "'f32'"),
    "dtype not a string": ({"a": entry(["F32"])}, 8, "dtype ['F32']"),
    "shape not a list": ({"a": entry(shape=2)}, 8, "shape 2"),
    "shape negative": ({"a": entry(shape=(-2,))}, 8, "shape [-2]"),
    "shape twice negative": ({"a": entry(shape=(-1, -2))}, 8, "shape [-1, -2]"),
    "shape of bools": ({"a": entry(shape=(True, 2))}, 8, "shape [True, 2]"),
    "shape of floats": ({"a": entry(shape=(2.0,))}, 8, "shape [2.0]"),
    "shape of strings": ({"a": entry(shape=("2",))}, 8, "shape ['2']"),
    "shape over 64 bits": ({"a": entry(shape=(2**63, 0), offsets=(0, 0))}, 0, "64 bits"),
    "shape of 65 dimensions": ({"a": entry(shape=(1,) * 65, offsets=(0, 4))}, 4, "up to 64"),
    "shape that wraps round": ({"a": entry(shape=(2**62 + 2,))}, 8, "but its data_offsets span 8"),
    "empty but huge": ({"a": entry(shape=(*HUGE, 0), offsets=(0, 0))}, 0, "too large"),
    "offsets not a list": ({"a": entry(offsets="08")}, 8, "data_offsets '08'"),
    "one offset": ({"a": entry(offsets=(8,))}, 8, "data_offsets [8]"),
    "three offsets": ({"a": entry(offsets=(0, 8, 8))}, 8, "data_offsets [0, 8, 8]"),
    "offset a float": ({"a": entry(offsets=(0, 8.0))}, 8, "data_offsets [0, 8.0]"),
    "offset a bool": ({"a": entry("U8", (1,), (False, True))}, 1, "data_offsets [False, True]"),
    "offset negative": ({"a": entry(offsets=(-8, 0))}, 8, "data_offsets [-8, 0]"),
    "offsets backwards": ({"a": entry(offsets=(8, 0))}, 8, "data_offsets [8, 0]"),
    "bytes do not match": ({"a": entry(shape=(3,))}, 8, "12 bytes, but its data_offsets span 8"),
    "out of range": ({"a": entry(shape=(4,), offsets=(0, 16))}, 8, "ends at byte 16"),
    "begins late": ({"a": entry(offsets=(4, 12))}, 12, "hole"),
    "hole": ({"a": entry(), "b": entry(offsets=(12, 20))}, 20, "'b' leaves a hole"),
    "overlap": ({"a": entry(), "b": entry(offsets=(4, 12))}, 12, "'b' overlaps"),
    "same bytes": ({"a": entry(), "b": entry()}, 8, "'b' overlaps"),
    "empty inside another": (
        {"a": entry(), "b": entry(shape=(0,), offsets=(4, 4))},
        8,
        "'b' overlaps",
    ),
    "bytes left over": ({"a": entry()}, 9, "end at byte 8 of the data, but there are 9"),
    "bytes without tensors": ({}, 1, "end at byte 0 of the data, but there are 1"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(tmp_path, lie):
    header, nbytes, says = LIES[lie]
    path = write(tmp_path / "liar.safetensors", header, bytes(nbytes))
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    message = str(error.value)
    assert says in message
    assert message.startswith(str(path))
    assert "\n" not in message and len(message) < 800


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has 0 bytes"),
        (b"\x01\0\0\0\0\0\0", "has 7 bytes"),
        (struct.pack("<Q", 3) + b"{}", "has 3 bytes, but only 2 follow"),
        (struct.pack("<Q", 100_000_001) + b"{}", "more than the 100000000"),
        (b"\xff" * 8 + b"{}", "more than the 100000000"),
    ],
)
def test_a_wrong_length_is_refused_before_the_header_is_read(tmp_path, content, says, monkeypatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    asked = []
    read = File.read
    monkeypatch.setattr(File, "read", lambda *args: asked.append(args[2]) or read(*args))
    with pytest.raises(CheckpointError, match=says):
        read_header(path)
    assert sum(asked) <= 8


def test_header_of_too_many_values_is_refused():
    number = reader.MAX_JSON_PARTS
    with pytest.raises(CheckpointError, match=f"more than {number} values"):
        parse_header(b'{"a": [' + b"[]," * (number // 2) + b"[]]}", 0, "x")


@pytest.mark.parametrize("name", ["a" * 1000, "\x1b[31m\n", "é" * 500])
def test_messages_stay_short_and_on_one_line(name):
    with pytest.raises(CheckpointError) as error:
        parse_header(json.dumps({name: entry(shape=[1] * 5000)}).encode(), 8, "x")
    assert len(str(error.value)) < 500 and str(error.value).isprintable()


def test_a_file_cut_off_after_opening_is_noticed(tmp_path):
    path = write(tmp_path / "x.safetensors", {"a": entry()}, bytes(8))
    with open_safetensors(path) as checkpoint:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 3)
        with pytest.raises(CheckpointError, match=r"x\.safetensors: ends at byte"):
            checkpoint["a"]


def test_files_without_preadv_read_the_same(tmp_path):
    class Short(File):
        at_once = 5

    class Seeking(Short):
        def _read_some(self, offset, out):
            with self._lock:
                self._raw.seek(offset)
                return self._raw.readinto(out[:3]) or 0  # and in short pieces

    (tmp_path / "x").write_bytes(bytes(range(100)))
    for kind in (Seeking, Short, File):
        with kind(tmp_path / "x") as file:
            assert file.read(10, 50) == bytes(range(10, 60))
            runs = np.zeros((3, 8), np.uint8)
            file.read_runs([92, 0, 3], runs)
            assert [bytes(run) for run in runs] == [bytes(range(at, at + 8)) for at in (92, 0, 3)]
            with pytest.raises(CheckpointError, match="ends at byte 100, where byte 101"):
                file.read_runs([0, 93, 1], runs)
            with pytest.raises(CheckpointError, match="ends at byte 100, where byte 101"):
                file.read(10, 91)


def test_range_of_a_file_keeps_to_itself(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(100)))
    with File(tmp_path / "x") as file:
        part = FileRange(file, 10, 20)
        out = bytearray(5)
        part.read_into(15, memoryview(out))
        assert out == bytes(range(25, 30))
        for start in (-1, 16):
            with pytest.raises(ValueError):
                part.read_into(start, memoryview(out))
        runs = np.zeros((2, 5), np.uint8)
        part.read_runs([15, 0], runs)
        assert runs.tolist() == [list(range(25, 30)), list(range(10, 15))]
        for starts in ([0, 16], [-1, 0]):
            with pytest.raises(ValueError):
                part.read_runs(starts, runs)
    with pytest.raises(ValueError, match="closed"):
        part.read_into(0, memoryview(out))


def test_only_regular_files_are_opened(tmp_path):
    for path, says in ((tmp_path, "not a regular file"), (tmp_path / "no", "cannot be opened")):
        with pytest.raises(CheckpointError, match=says):
            File(path)


VALID = {
    "__metadata__": {"format": "pt"},
    "a": entry("BF16", (2, 3), (0, 12)),
    "b": entry("F32", (), (12, 16)),
    "c": entry("I64", (0, 7), (16, 16)),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
SIZES = st.integers(-1, 20) | st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, 2**64])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F3"]),
        "shape": st.lists(SIZES, max_size=4),
        "data_offsets": st.lists(SIZES, min_size=1, max_size=3),
    }
)


def check(text: bytes, nbytes: int) -> None:
    """Read the header ``text``; it is refused, or its tensors are whole and cover the data."""
    try:
        header = parse_header(text, nbytes, "x.safetensors")
    except CheckpointError as error:
        assert "\n" not in str(error)
        return
    end = 0
    for tensor in header.tensors:
        assert tensor.begin == end
        end = tensor.end
        assert end - tensor.begin == math.prod(tensor.shape) * bits(tensor.dtype) // 8
    assert end == nbytes


@given(st.binary(), st.integers(0, 40))
def test_fuzz_bytes(text, nbytes):
    check(b"{" + text, nbytes)


@given(JSON, st.integers(0, 40))
@settings(max_examples=50)
def test_fuzz_json(value, nbytes):
    check(json.dumps(value).encode(), nbytes)


@given(st.dictionaries(st.text(), ENTRY | JSON, max_size=3), st.integers(0, 40))
@settings(max_examples=50)
def test_fuzz_entries(header, nbytes):
    check(json.dumps(header).encode(), nbytes)


@given(st.data())
@settings(max_examples=300)
def test_fuzz_changes_of_a_valid_header(data):
    text = bytearray(json.dumps(VALID).encode())
    check(bytes(text), 16)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 12)))
        text[start:stop] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"-1", b"0", b"[", b"}", b'"', b"1e9", b"\\"])
        )
    check(bytes(text), data.draw(st.sampled_from([16, 0, 15, 17])))


@given(content=st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_fuzz_files(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        read_header(path)
