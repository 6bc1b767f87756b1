"""What every encoding of task files keeps to: what it wrote it reads, and nothing else.

Nothing above `taskfile` knows which one a file has. One row a kind, with parameters to try.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest
from families import WRITTEN
from hypothesis import given
from hypothesis import strategies as st

from breadcrumbs.errors import CheckpointError
from breadcrumbs.taskfile import encodings
from breadcrumbs.taskfile.encodings import Encoding, Kind

ENCODINGS = {
    "exact": ["exact"],
    "int8": ["int8"],
    "int4": ["int4"],
    "ternary": ["ternary"],
    "tvq": ["tvq", "tvq:bits=1", "tvq:bits=3", "tvq:bits=8"],
    "tsv": ["tsv", "tsv:rank=3", "tsv:energy=0.8"],
    "lora": ["lora"],
}
every = pytest.mark.parametrize("name", [name for mine in ENCODINGS.values() for name in mine])


def test_every_kind_is_here() -> None:
    made = []
    for module in pkgutil.iter_modules(encodings.__path__, f"{encodings.__name__}."):
        values = vars(importlib.import_module(module.name)).values()
        made += [value for value in values if isinstance(value, Kind)]
    known = encodings.kinds()
    assert made and all(any(kind is one for one in known.values()) for kind in made)
    assert ENCODINGS.keys() == known.keys()
    for name, mine in ENCODINGS.items():
        assert len(mine) > 1 or not known[name].parameters


def block(name: str, seed: int = 0, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return values that are kept and the base's there, of a dtype of checkpoints."""
    rng, dtype = np.random.default_rng([seed, n]), WRITTEN[name]
    base = rng.standard_normal(n).astype(dtype)
    moved = base.astype(np.float64) + rng.choice([-1, 1], n) * rng.uniform(0.01, 0.05, n)
    return moved.astype(dtype), base


def back(made: Encoding, code: int, data: bytes, base: np.ndarray) -> np.ndarray:
    return made.decode(code, memoryview(data), base.size, base.dtype, base)


def exact(made: Encoding) -> bool:
    """Return whether blocks come back as they are: where matrices alone lose something, too."""
    return made.lossless or made.rank is not None


@every
class TestEncodings:
    """What an encoding promises."""

    def test_a_file_calls_it_by_its_whole_name(self, name: str) -> None:
        made = encodings.get(name)
        assert made.name.partition(":")[0] == name.partition(":")[0]
        assert encodings.get(made.name).name == made.name
        assert encodings.kinds()[name.partition(":")[0]].summary

    @pytest.mark.parametrize("dtype", WRITTEN)
    @pytest.mark.parametrize("n", [1, 2, 7, 300])
    def test_what_is_written_is_read(self, name: str, dtype: str, n: int) -> None:
        made, (values, base) = encodings.get(name), block(dtype, n=n)
        code, data = made.encode(values, base)
        found = back(made, code, data, base)
        assert found.dtype == values.dtype and found.shape == values.shape
        if exact(made):
            assert found.tobytes() == values.tobytes()
            return
        wide = [array.astype(np.float64) for array in (found, values, base)]
        largest = np.abs(wide[1] - wide[2]).max()
        rounding = np.abs(wide[1]) * 2.0 ** -{"bfloat16": 8, "float16": 11}.get(dtype, 20)
        assert (np.abs(wide[0] - wide[1]) <= largest + rounding).all()

    def test_it_says_what_it_needs(self, name: str) -> None:
        made, (values, base) = encodings.get(name), block("float32")
        if not made.needs_base:
            code, data = made.encode(values, None)
            found = made.decode(code, memoryview(data), values.size, values.dtype, None)
            assert found.tobytes() == values.tobytes()
            assert made.lossless
        if not exact(made):
            assert made.needs_base
            code, data = made.encode(values, base)
            assert len(data) < values.nbytes  # else there was nothing to lose

    def test_the_same_again_and_nothing_changed(self, name: str) -> None:
        made, (values, base) = encodings.get(name), block("float32")
        before = values.tobytes(), base.tobytes()
        first = made.encode(values, base)
        assert made.encode(values, base) == first == encodings.get(made.name).encode(values, base)
        found = back(made, *first, base)
        assert found.tobytes() == back(made, *first, base).tobytes()
        assert (values.tobytes(), base.tobytes()) == before

    @given(data=st.data())
    def test_any_bits_come_back_where_nothing_is_lost(self, name: str, data: Any) -> None:
        made = encodings.get(name)
        dtype = WRITTEN[data.draw(st.sampled_from(sorted(WRITTEN)))]
        raw = data.draw(st.binary(min_size=dtype.itemsize, max_size=200))
        values = np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)
        if exact(made):
            code, written = made.encode(values, np.zeros_like(values))
            assert back(made, code, written, values).tobytes() == values.tobytes()

    def test_other_codes_and_other_lengths_are_refused(self, name: str) -> None:
        made, (values, base) = encodings.get(name), block("float32")
        code, data = made.encode(values, base)
        for given_ in [(2, data), (255, data), (code, data + b"\0"), (code, b"")]:
            with pytest.raises(CheckpointError) as raised:
                back(made, *given_, base)
            assert str(raised.value).isprintable()

    def test_cut_off_bytes_are_refused(self, name: str) -> None:
        made, (values, base) = encodings.get(name), block("float32", n=40)
        code, data = made.encode(values, base)
        for size in range(len(data)):
            with pytest.raises(CheckpointError) as raised:
                back(made, code, data[:size], base)
            assert str(raised.value).isprintable()

    @given(data=st.data())
    def test_altered_bytes_are_values_or_refused(self, name: str, data: Any) -> None:
        made, (values, base) = encodings.get(name), block("float32", n=40)
        code, written = made.encode(values, base)
        changed = bytearray(written)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        try:
            with np.errstate(all="ignore"):
                found = back(made, code, bytes(changed), base)
        except CheckpointError as error:
            assert str(error).isprintable()
        else:
            assert found.shape == values.shape and found.dtype == values.dtype
