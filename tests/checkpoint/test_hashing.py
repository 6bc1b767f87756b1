"""Digests of input files: what is offered, in whatever order, changes no digest."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import hashing
from breadcrumbs.checkpoint.files import File, FileRange
from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.engine import digests as of_files
from breadcrumbs.merging import provenance


@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 120)), max_size=12),
    st.sampled_from([1, 7, 64]),
    st.sampled_from([0, 5, 1000]),
    st.integers(0, 10),
)
@settings(max_examples=200)
def test_offers_in_any_order(tmp_path_factory, content, offers, step, gap, early):
    path = tmp_path_factory.mktemp("hashed") / "weights"
    path.write_bytes(content)
    with File(path) as file:
        digests = of_files.FileDigests([path], step=step, gap=gap)
        tasks = digests.tasks()
        for task in tasks[:early]:
            assert task() == []
        tensor = Tensor("w", "U8", (len(content),), FileRange(file, 0, len(content)))
        for start, length in offers:
            raw = np.frombuffer(content, np.uint8)[start : start + length]
            digests.offer(tensor, min(start, len(content)), raw)
        for task in tasks[early:]:
            task()
    assert digests.digests == {path: blake3(content).hexdigest()}


def test_offers_in_order_are_not_read_again(tmp_path, monkeypatch):
    content = np.random.default_rng(0).bytes(10_000)
    path = tmp_path / "weights"
    path.write_bytes(content)
    digests = of_files.FileDigests([path])
    with File(path) as file:
        tensor = Tensor("w", "BF16", (4900,), FileRange(file, 200, 9800))
        digests.offer(tensor, 0, np.frombuffer(content, np.uint16)[100:3000])
        monkeypatch.setattr(File, "read_into", None)
        digests.offer(tensor, 2900, np.frombuffer(content, np.uint16)[3000:])
        for task in digests.tasks():
            task()
    assert digests.digests == {path: blake3(content).hexdigest()}


def test_offers_from_many_threads(tmp_path):
    content = np.random.default_rng(1).bytes(1 << 20)
    path = tmp_path / "weights"
    path.write_bytes(content)
    digests = of_files.FileDigests([path])
    with File(path) as file, ThreadPoolExecutor(8) as pool:
        tensor = Tensor("w", "U8", (len(content),), FileRange(file, 0, len(content)))
        raw = np.frombuffer(content, np.uint8)
        for start in range(0, len(content), 4096):
            pool.submit(digests.offer, tensor, start, raw[start : start + 4096])
    for task in digests.tasks():
        task()
    assert digests.digests == {path: blake3(content).hexdigest()}


def hash_of(source, settled: float = -1.0, **more) -> str:
    """Return the hash of a model; that of files that were written just now is kept."""
    return hashing.model_hash(source, settled=settled, **more)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A file of weights and the list of those that were read to be hashed."""
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(tmp_path / "cache"))
    path, read = tmp_path / "w.safetensors", []
    save_file({"a": np.arange(6, dtype=np.float32), "b": np.ones(3, np.float16)}, path)
    plain = hashing._of_weights
    monkeypatch.setattr(
        hashing, "_of_weights", lambda model, threads: read.append(model.label) or plain(model, 1)
    )
    return path, read


def test_the_hash_of_a_file_is_kept(kept):
    path, read = kept
    found = hash_of(path)
    assert hash_of(path) == hash_of(str(path)) == found
    assert len(read) == 1
    assert hash_of(path, fresh=True) == found
    assert len(read) == 2


def test_a_file_that_was_written_to_is_read_again(kept):
    path, read = kept
    found, said = hash_of(path), path.stat()
    with open(path, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    os.utime(path, ns=(said.st_atime_ns, said.st_mtime_ns))
    assert path.stat().st_mtime_ns == said.st_mtime_ns
    assert hash_of(path) != found
    assert len(read) == 2


def test_of_the_same_files_other_tensors_have_another_hash(kept):
    path, _ = kept
    found = hash_of(path)
    with checkpoint.open(path) as model:
        part = replace(model, tensors={"a": model.tensors["a"]})
        assert hash_of(part) == hash_of({"a": model["a"]}) != found
        named = replace(model, tensors={"b": model.tensors["b"], "c": model.tensors["a"]})
        assert hash_of(named) not in (found, hash_of(part))


def test_a_damaged_cache_is_read_past(kept, tmp_path):
    path, read = kept
    found = hash_of(path)
    (entry,) = (tmp_path / "cache" / "hashes").iterdir()
    for damaged in (b"", entry.read_bytes()[:-1], entry.read_bytes()[:-1] + b"z"):
        entry.write_bytes(damaged)
        assert hash_of(path) == found
    assert len(read) == 4
    assert hash_of(path) == found
    assert len(read) == 4


def test_a_cache_that_takes_nothing_is_no_error(kept, tmp_path, monkeypatch):
    path, read = kept
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(tmp_path / "file" / "cache"))
    assert hash_of(path) == hash_of(path)
    assert len(read) == 2


def test_what_was_written_just_now_is_not_kept(kept, tmp_path):
    path, read = kept
    assert hash_of(path, 60.0) == hash_of(path, 60.0)
    assert len(read) == 2
    assert not (tmp_path / "cache").exists()


def test_hashes_of_files_are_kept_until_something_writes_to_them(kept):
    path, _ = kept
    first = hashing.FileHashes([path, path.with_name("gone")], 0.0)
    assert not first.known
    first.keep({path: "a" * 64})
    assert hashing.FileHashes([path], 0.0).known == {path: "a" * 64}
    said = path.stat()
    with open(path, "r+b") as file:
        file.write(path.read_bytes())
    os.utime(path, ns=(said.st_atime_ns, said.st_mtime_ns))
    assert not hashing.FileHashes([path], 0.0).known


def test_the_hash_of_a_file_that_changed_meanwhile_is_not_kept(kept):
    path, _ = kept
    hashes = hashing.FileHashes([path], 0.0)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    hashes.keep({path: "a" * 64})
    assert not hashing.FileHashes([path], 0.0).known
    lately = hashing.FileHashes([path])  # written just now
    lately.keep({path: "a" * 64})
    assert not hashing.FileHashes([path], 0.0).known


def test_a_merge_does_not_hash_again_what_nothing_wrote_to(tmp_path, monkeypatch):
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(tmp_path / "cache"))
    weights = np.random.default_rng(0).standard_normal((3, 300, 40), np.float32)
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, values in zip(paths, weights, strict=True):
        save_file({"w": values}, path)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)  # as if it were a minute later
    hashed = []
    plain = of_files.FileDigests.tasks
    monkeypatch.setattr(
        of_files.FileDigests, "tasks", lambda it: hashed.append(len(plain(it))) or plain(it)
    )
    said = []
    for name in ("one", "two"):
        breadcrumbs.merge(paths[0], paths[1:], output=tmp_path / f"{name}.safetensors")
        with checkpoint.open(tmp_path / f"{name}.safetensors") as model:
            said.append(json.loads(model.metadata["breadcrumbs"])["inputs"])
    assert hashed == [3, 0]
    assert said[0] == said[1]
    assert [one["files"][0]["blake3"] for one in said[0]] == [
        blake3(path.read_bytes()).hexdigest() for path in paths
    ]


TOLD = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns", "st_mtime", "st_ctime")


def told(path: Path, field: str = "", by: float = 0) -> SimpleNamespace:
    """Return what a file says of itself, a field of it changed, as if it were of long ago."""
    real = os.stat(path)
    found = {name: getattr(real, name) for name in (*TOLD, "st_mode")}
    found |= {"st_mtime": 1e6, "st_ctime": 1e6}
    return SimpleNamespace(**(found | ({field: found[field] + by} if field else {})))


@pytest.mark.parametrize("field", ["st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"])
def test_each_of_what_tells_files_apart_counts(tmp_path, monkeypatch, field):
    path = tmp_path / "w.safetensors"
    save_file({"a": np.arange(6, dtype=np.float32)}, path)
    with checkpoint.open(path) as model:
        found = []
        for said in (told(path), told(path), told(path, field, 1)):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "stat", lambda self, said=said, **_: said)
                patch.setattr(os, "fstat", lambda fd, said=said: said)
                mine = hashing.stamp(str(path)), provenance.stamp(path), hashing._key(model)
                found.append(mine)
    assert None not in found[0] and found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))


@pytest.mark.parametrize("field", ["st_mtime", "st_ctime"])
def test_files_that_were_just_written_have_no_key(tmp_path, monkeypatch, field):
    path = tmp_path / "w.safetensors"
    save_file({"a": np.arange(6, dtype=np.float32)}, path)
    with checkpoint.open(path) as model:
        for by, known in ((0, True), (time.time() - 1e6 - 0.5, False)):
            monkeypatch.setattr(os, "fstat", lambda fd, by=by: told(path, field, by))
            assert (hashing._key(model) is not None) == known
