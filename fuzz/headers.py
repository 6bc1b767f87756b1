"""Feed bytes to the readers of safetensors headers and of indexes, until one misbehaves.

    pip install atheris
    python fuzz/headers.py header -max_total_time=300 -rss_limit_mb=1024
    python fuzz/headers.py index -max_total_time=300 -rss_limit_mb=1024

Only CheckpointError may come out, on one printable line. A header that is accepted must cover its
data exactly with tensors of the right sizes; an index, name only files of its own folder. Further
arguments are libFuzzer's; folders among them are read as examples and kept up to date.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["breadcrumbs", "json"]):  # type: ignore
    import numpy as np

    from breadcrumbs.checkpoint.folder import parse_index
    from breadcrumbs.checkpoint.safetensors import parse_header, read_header
    from breadcrumbs.checkpoint.tensors import DTYPES
    from breadcrumbs.errors import CheckpointError

EXAMPLES = {
    "header": [
        b'\x00\x10{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],'
        b'"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}',
        b'\x01\x02\x00\x00\x00\x00\x00\x00\x00{}',
    ],
    "index": [
        b'{"metadata":{"total_size":1},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}',
        b'{"weight_map":{"a":"..\\\\..\\/x.safetensors"}}',
    ],
}  # fmt: skip


def header(data: bytes) -> None:
    """Odd first byte: a file follows. Even: the size of the data, then the text of a header."""
    if data[:1] and data[0] % 2:
        SCRATCH.write_bytes(data[1:])
        found, nbytes = refused(read_header, SCRATCH), None
    else:
        nbytes = data[1] if len(data) > 1 else 0
        found = refused(parse_header, data[2:], nbytes, "x")
    if found is None:
        return
    end = 0
    for tensor in found.tensors:
        assert tensor.begin == end, tensor
        end = tensor.end
        assert end - tensor.begin == np.empty(tensor.shape, DTYPES[tensor.dtype]).nbytes, tensor
    assert end == (len(data) - 1 - found.data_start if nbytes is None else nbytes)


def index(data: bytes) -> None:
    for shard in (refused(parse_index, data, "model.safetensors", "x") or {}).values():
        assert os.path.dirname(os.path.normpath(os.path.join("here", shard))) == "here", shard
        assert "\\" not in shard and ":" not in shard and "\0" not in shard, shard


def refused(read, *arguments):
    """Return what ``read`` returns, or None when it refuses as it should."""
    try:
        return read(*arguments)
    except CheckpointError as error:
        assert str(error).isprintable() and len(str(error)) < 5000, str(error)
        return None


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in EXAMPLES:
        sys.exit(__doc__)
    kind = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as folder:
        SCRATCH = Path(folder) / "x.safetensors"
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for number, example in enumerate(EXAMPLES[kind]):
            (seeds / str(number)).write_bytes(example)
        atheris.Setup([*sys.argv, str(seeds)], {"header": header, "index": index}[kind])
        atheris.Fuzz()
