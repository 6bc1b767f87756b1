"""Archives that are cut off, altered, of another version or made to deceive: one line each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from families import family
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from breadcrumbs import archives as compression
from breadcrumbs.archives import archive as archives
from breadcrumbs.archives import open_archive
from breadcrumbs.checkpoint.outfile import Entry, header
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.errors import BreadcrumbsError, CheckpointError

METHODS = ("tall", "emr", "tsv")
NAMES = ["cats", "dogs", "birds"]
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of an archive by each method."""
    folder = tmp_path_factory.mktemp("archives")
    base, *models = family(1, "float32", 3)
    for method in METHODS:
        path = folder / f"{method}.safetensors"
        compression.compress(base, models, path, names=NAMES, method=method)
    return {method: (folder / f"{method}.safetensors").read_bytes() for method in METHODS}


def base() -> dict[str, np.ndarray]:
    return family(1, "float32", 0)[0]


def read_all(path: Path) -> None:
    """Read all that an archive holds."""
    with open_archive(path) as archive:
        archive.verify()
        archive.votes()
        tasks = archive.tasks
    for task in tasks:
        with compression.model(path, task, base()) as model:
            dict(model)


def refused(path: Path, match: str | None = None) -> None:
    """Check that an archive is refused on one line that names the file."""
    with pytest.raises(BreadcrumbsError, match=match) as error:
        read_all(path)
    assert str(error.value).isprintable() and str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def parts(data: bytes, folder: Path) -> tuple[dict[str, str], list[tuple], bytes]:
    """Return the metadata, the arrays and the bytes after the header."""
    path = folder / "whole.safetensors"
    path.write_bytes(data)
    head = read_header(path)
    return (
        head.metadata,
        [(t.name, t.dtype, t.shape) for t in head.tensors],
        data[head.data_start :],
    )


def sealed(
    path: Path, metadata: dict[str, str], arrays: list[tuple], data: bytes, seal: bool = True
) -> Path:
    """Write an archive, with the hash that what it says now has."""
    held = [array for array in arrays if array[0] != archives.DIGESTS]
    digests = data[len(data) - 32 * len(held) :]
    if seal:
        new = archives.content_hash(metadata[archives.KEY], held, digests)
        metadata = metadata | {archives.HASH: new}
    path.write_bytes(header([Entry(*array) for array in arrays], metadata) + data)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_the_golden_way_reads(method, made, tmp_path):
    path = sealed(tmp_path / "a.safetensors", *parts(made[method], tmp_path))
    read_all(path)
    assert path.read_bytes() == made[method]


@pytest.mark.parametrize("method", METHODS)
@QUICK
@given(cut=st.integers(1, 4000))
def test_a_truncated_file_is_refused(method, cut, made, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(made[method][: -min(cut, len(made[method]))])
    refused(path)


@pytest.mark.parametrize("method", METHODS)
@QUICK
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_an_altered_byte_is_refused(method, place, mask, made, tmp_path):
    data = bytearray(made[method])
    data[int(place * len(data))] ^= mask
    path = tmp_path / "altered.safetensors"
    path.write_bytes(data)
    try:
        read_all(path)
    except BreadcrumbsError as error:
        assert str(error).isprintable() and str(path) in str(error)
    else:  # a space of the header, or a letter of the program's name in JSON that reads the same
        whole = tmp_path / "whole.safetensors"
        whole.write_bytes(made[method])
        assert archives.open_archive(path).hash == archives.open_archive(whole).hash


@pytest.mark.parametrize("method", METHODS)
def test_every_altered_array_is_named(method, made, tmp_path):
    metadata, arrays, data = parts(made[method], tmp_path)
    start = 0
    for name, dtype, shape in arrays:
        size = Entry(name, dtype, shape).nbytes
        altered = bytearray(data)
        altered[start] ^= 1
        path = sealed(tmp_path / "a.safetensors", metadata, arrays, bytes(altered))
        if name == archives.DIGESTS:
            refused(path, "is not what was written")
        else:
            refused(path, f"'{name}' is not what was written")
        path = sealed(tmp_path / "a.safetensors", metadata, arrays, bytes(altered), seal=False)
        refused(path)
        start += size


def said(metadata: dict[str, str], **changes) -> dict[str, str]:
    about = json.loads(metadata[archives.KEY])
    about |= changes
    return metadata | {archives.KEY: json.dumps({k: v for k, v in about.items() if v is not ...})}


def test_other_versions_and_other_files_are_refused(made, tmp_path):
    metadata, arrays, data = parts(made["tall"], tmp_path)
    path = tmp_path / "a.safetensors"
    for version in (2, 0, None, "1", 10**400, [1]):
        sealed(path, said(metadata, version=version), arrays, data)
        refused(path, "is an archive of version .* this program reads version 1")
    sealed(path, metadata | {archives.KEY: "{"}, arrays, data)
    refused(path)
    path.write_bytes(header([Entry("w", "F32", (1,))], {}) + bytes(4))
    refused(path, "is not an archive of tasks")
    path.write_bytes(b"")
    refused(path)


LIES = [
    {"method": "zip"},
    {"method": "tsv"},
    {"method": ...},
    {"tasks": []},
    {"tasks": "cats"},
    {"tasks": ["cats", "cats", "dogs"]},
    {"tasks": ["cats", "dogs"]},
    {"tasks": [*NAMES, "more"]},
    {"tasks": [1, 2, 3]},
    {"base": None},
    {"base": {"name": "base", "hash": "0" * 64}},
    {"base": {"name": "base", "revision": None}},
    {"base": {"name": "base", "revision": None, "hash": "00"}},
    {"base": {"name": 1, "revision": None, "hash": "0" * 64}},
    {"base": {"name": "base", "revision": 2, "hash": "0" * 64}},
    {"parameters": None},
    {"tasks": ...},
]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_what_an_archive_says_must_be_as_specified(lie, made, tmp_path):
    metadata, arrays, data = parts(made["tall"], tmp_path)
    path = sealed(tmp_path / "a.safetensors", said(metadata, **lie), arrays, data)
    refused(path, "is not an archive as docs/compression.md specifies it")


@pytest.mark.parametrize(
    "factors", [None, [], [1.0, 1.0], [1.0, 1.0, -1.0], [1, 1, 1], [1.0, 1.0, float("inf")], "abc"]
)
def test_rescalers_must_be_numbers(factors, made, tmp_path):
    metadata, arrays, data = parts(made["emr"], tmp_path)
    lie = said(metadata, parameters={"rescale": factors})
    refused(sealed(tmp_path / "a.safetensors", lie, arrays, data))


@pytest.mark.parametrize(
    ("method", "name", "new"),
    [
        ("tall", "mask/0/v", ("mask/7/v", "U8", (4,))),
        ("tall", "mask/0/v", ("mask/00/v", "U8", (4,))),
        ("tall", "mask/0/v", ("mask/0/w", "U8", (4,))),
        ("tall", "mask/0/v", ("mask/0/v", "I8", (4,))),
        ("tall", "mask/0/v", ("mask/0/v", "U8", (2, 2))),
        ("tall", "mask/0/v", ("whole/0/b", "U8", (4,))),
        ("tall", "value/v", ("value/v", "F32", (31, 1, 1, 1))),
        ("tall", "value/v", ("value/v", "I32", (31,))),
        ("tall", "value/v", ("else/v", "F32", (31,))),
        ("tall", "votes", ("votes", "F64", (9, 4))),
        ("tall", "votes", ("votes", "I64", (4, 9))),
        ("tall", "digests", ("digests", "I8", (37, 32))),
        ("tsv", "left/0/b", ("left/0/b", "F32", (3, 13))),
        ("tsv", "left/0/b", ("left/0/b", "F32", (39,))),
        ("tsv", "left/0/b", ("left/1/c", "F32", (13, 3))),
        ("tsv", "left/0/b", ("value/b", "F32", (13, 3))),
        ("tsv", "whole/0/v", ("mask/0/v", "F32", (31,))),
    ],
)
def test_arrays_must_fit_each_other(method, name, new, made, tmp_path):
    metadata, arrays, data = parts(made[method], tmp_path)
    assert name in {array[0] for array in arrays}
    changed = [new if array[0] == name else array for array in arrays]
    path = sealed(tmp_path / "a.safetensors", metadata, changed, data)
    with pytest.raises(BreadcrumbsError) as error:
        read_all(path)
    assert str(error.value).isprintable()


def test_a_file_without_digests_is_refused(made, tmp_path):
    metadata, arrays, data = parts(made["tall"], tmp_path)
    path = tmp_path / "a.safetensors"
    rest = data[: len(data) - 32 * (len(arrays) - 1)]
    path.write_bytes(header([Entry(*array) for array in arrays[:-1]], metadata) + rest)
    refused(path, "is not an archive as")


def test_a_file_that_is_cut_off_while_it_is_read_is_refused(made, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(made["tall"])
    with compression.model(path, "cats", base()) as model:
        with path.open("rb+") as file:
            file.truncate(len(made["tall"]) // 2)
        with pytest.raises(CheckpointError, match="cut off or replaced while being read"):
            dict(model)
