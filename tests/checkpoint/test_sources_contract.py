"""What every source of bytes keeps to: any pieces, from any thread, are the whole.

A tensor is read in pieces of any length from any byte on, by several threads at once; nothing above
`checkpoint` knows what it reads. One row a way in which weights can lie.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import implementations
import ml_dtypes
import numpy as np
import pytest
import quantised_files
from families import WRITTEN, checkpoints, packed
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import archives, checkpoint, tasks
from breadcrumbs.checkpoint.memory import DeviceBytes
from breadcrumbs.checkpoint.quantised.experts import Bands, Experts
from breadcrumbs.checkpoint.rows import MEAN, SEVERAL, ZERO, Rows
from breadcrumbs.checkpoint.rows import gathered as rows_of
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, items
from breadcrumbs.checkpoint.tied import untied
from breadcrumbs.merging.spaces import Lifted
from breadcrumbs.taskfile import view

#: One that task files keep in two blocks, one of odd rows, a scalar, none at all, one of bytes.
SHAPES = {"long": (BLOCK // 300 + 20, 300), "odd": (13, 9), "one": (), "none": (0, 3)}
BF16 = np.dtype(ml_dtypes.bfloat16)


def arrays(dtype: Any = np.float32, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = {name: np.asarray(rng.standard_normal(shape)) for name, shape in SHAPES.items()}
    return {n: v.astype(dtype) for n, v in drawn.items()} | {"ids": np.arange(7, dtype=np.uint8)}


def one_file(folder: Path) -> Checkpoint:
    save_file(arrays(BF16), folder / "model.safetensors")
    return checkpoint.open(folder / "model.safetensors")


def shards(folder: Path) -> Checkpoint:
    whole = arrays()
    parts = [{n: whole[n] for n in names} for names in (("odd", "ids"), ("long", "one", "none"))]
    return checkpoint.open(quantised_files.shards(folder, parts))


def pickled(folder: Path) -> Checkpoint:
    torch = pytest.importorskip("torch")
    whole = {name: torch.from_numpy(values) for name, values in arrays().items()}
    turned = {"turned": whole["odd"].t(), "stepped": whole["long"][::2, 1:3]}
    torch.save(whole | turned, folder / "model.bin")
    return checkpoint.open(folder / "model.bin")


def memory(folder: Path) -> Checkpoint:
    whole = arrays()
    return checkpoint.open(whole | {"turned": whole["odd"].T, "stepped": whole["long"][::2, 1:3]})


def torch_tensors(folder: Path) -> Checkpoint:
    torch = pytest.importorskip("torch")
    whole = {name: torch.from_numpy(values) for name, values in arrays().items()}
    half = whole["long"].bfloat16().t()
    return checkpoint.open(whole | {"turned": whole["odd"].t(), "half": half})


def device(folder: Path) -> Checkpoint:
    """As if the tensors were on another device."""
    read = torch_tensors(folder)
    torch = pytest.importorskip("torch")
    held = {name: torch.from_numpy(values) for name, values in arrays(seed=4).items()}
    made = {name: replace(read.tensors[name], source=DeviceBytes(held[name])) for name in held}
    turned = Tensor("turned", "F32", (9, 13), DeviceBytes(held["odd"].t()))
    return replace(read, tensors={**made, "turned": turned})


def stack(folder: Path) -> Checkpoint:
    for seed, name in enumerate("ab"):
        whole = {f"layers.{i}.{n}": v for i in range(2) for n, v in arrays(seed=seed + i).items()}
        save_file(whole, folder / f"{name}.safetensors")
    return checkpoint.open(f"{folder}/a.safetensors[0:2] + {folder}/b.safetensors[1:2]")


def task(dtype: str = "float32", **options: Any) -> Callable[[Path], Checkpoint]:
    """Return what makes a task file of those options, on its base."""

    def made(folder: Path) -> Checkpoint:
        base, model = checkpoints(folder, dtype, models=1, rows=BLOCK // 300 + 20)
        (file,) = packed(folder, base, [model], **options)
        return view.open_model(base, file)

    return made


def adapted(folder: Path) -> tuple[Path, Path]:
    """Return a base of bfloat16, and an adapter with factors for one tensor and rows for one."""
    rng, a, b = np.random.default_rng(0), (4, 30), (50, 4)
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir()
    adapter.mkdir()
    weights = {"layer.weight": rng.normal(size=(50, 30)), "embed.weight": rng.normal(size=(40, 9))}
    save_file({n: w.astype(BF16) for n, w in weights.items()}, base / "model.safetensors")
    (base / "config.json").write_text("{}")
    stem = "base_model.model."
    factors = {
        f"{stem}layer.lora_A.weight": rng.normal(size=a).astype(np.float32),
        f"{stem}layer.lora_B.weight": rng.normal(size=b).astype(np.float32),
        f"{stem}embed.token_adapter.trainable_tokens_delta": rng.normal(size=(3, 9)).astype("f4"),
    }
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["layer"]}
    said["trainable_token_indices"] = {"embed": [1, 7, 8]}
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    return base, adapter


def inserted(folder: Path) -> Checkpoint:
    base, adapter = adapted(folder)
    return checkpoint.open(f"{base}+{adapter}")


def dora(folder: Path) -> Checkpoint:
    """An adapter whose sum with the base has lengths of its own, by row."""
    base, adapter = adapted(folder)
    held = dict(breadcrumbs.open(adapter / "adapter_model.safetensors"))
    held["base_model.model.layer.lora_magnitude_vector.weight"] = np.arange(50, dtype=np.float32)
    held = {name: values for name, values in held.items() if "lora" in name}
    save_file(held, adapter / "adapter_model.safetensors")
    return checkpoint.open(f"{base}+{adapter}")


def factors(folder: Path) -> Checkpoint:
    """A task file of the adapter's factors."""
    base, adapter = adapted(folder)
    said = json.loads((adapter / "adapter_config.json").read_text())
    del said["trainable_token_indices"]
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    held = dict(breadcrumbs.open(adapter / "adapter_model.safetensors"))
    kept = {name: values for name, values in held.items() if "lora" in name}
    save_file(kept, adapter / "adapter_model.safetensors")
    tasks.from_adapter(base, adapter, folder / "task.safetensors")
    return view.open_model(str(base), str(folder / "task.safetensors"))


def archive(method: str) -> Callable[[Path], Checkpoint]:
    """Return what makes an archive by a method, of which one of three tasks is read."""

    def made(folder: Path) -> Checkpoint:
        base, *models = checkpoints(folder, models=3, rows=40)
        path = folder / "archive.safetensors"
        archives.compress(base, models, path, names=["a", "b", "c"], method=method)
        return archives.model(path, "b", base)

    return made


def quantised(folder: Path) -> Checkpoint:
    """Codes of 8 bits, whose scales are of blocks, beside weights that are none."""
    said = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    tensors: dict[str, Any] = {"norm.weight": quantised_files.bf16(np.ones(8))}
    for seed, (name, shape) in enumerate({"a": (256, 130), "b": (5, 7)}.items()):
        code, scale = quantised_files.quantised(quantised_files.normal(seed, *shape))
        tensors |= {f"{name}.weight": code, f"{name}.weight_scale_inv": scale}
    return checkpoint.open(quantised_files.folder(folder, tensors, said))


def experts(folder: Path) -> Checkpoint:
    """Codes of 4 bits of gpt-oss, which are read in several bands."""
    rng = np.random.default_rng(2)
    blocks = rng.integers(0, 256, (2, 40, 6, 16)).astype(np.uint8)
    scales = rng.integers(100, 140, (2, 40, 6)).astype(np.uint8)
    tensors = {"up_blocks": blocks, "up_scales": scales}
    quantised_files.folder(folder, tensors, {"quant_method": "mxfp4"})
    found = checkpoint.open(folder)
    source = found.tensors["up"].source
    assert isinstance(source, Experts)
    small = replace(found.tensors["up"], source=replace(source, bands=Bands(32 * 64, 2)))
    return replace(found, tensors={**found.tensors, "up": small})


def scaled(folder: Path) -> Checkpoint:
    """The head of a T5 that was tied: the embedding times a factor."""
    shared = np.random.default_rng(1).standard_normal((13, 9)).astype(BF16)
    save_file({"shared.weight": shared}, folder / "model.safetensors")
    said = {"model_type": "t5", "d_model": 9, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(said))
    return untied(checkpoint.open(folder), {"lm_head.weight": "shared.weight"})


def gathered(folder: Path) -> Checkpoint:
    """Rows of two tables of other dtypes, in runs and in any order, and some that are made."""
    file, other = one_file(folder), arrays(seed=1)["odd"]
    mine, its = file.tensors["odd"], checkpoint.open({"odd": other}).tensors["odd"]
    part = np.array([0, 0, 0, 1, 1, MEAN, ZERO, 0, SEVERAL, 1, MEAN])
    row = np.array([3, 4, 5, 12, 2, 0, 0, 11, 0, 3, 0])
    rows = Rows(part, row, {8: [(0, 1), (1, 7)]})
    table = rows_of(mine, rows, [mine, its], mine.dtype)
    wanted = [
        mine.read()[r] if p == 0 else other[r].astype(BF16) for p, r in zip(part, row, strict=True)
    ]
    found = table.read()
    assert all(found[i].tobytes() == wanted[i].tobytes() for i in (0, 1, 2, 3, 4, 7, 9))
    return replace(file, tensors={**file.tensors, "odd": table})


def lifted(folder: Path) -> Checkpoint:
    """A tensor of a file with a product of factors added, as merges in a space of adapters make."""
    file = one_file(folder)
    mine = file.tensors["odd"]
    rng = np.random.default_rng(2)
    left, right = rng.standard_normal((mine.shape[0], 3)), rng.standard_normal((3, mine.shape[1]))
    found = replace(mine, dtype="F64", source=Lifted(mine, left, right))
    expected = mine.read().astype(np.float64) + (left @ right).reshape(mine.shape)
    assert np.allclose(found.read(), expected, rtol=0, atol=1e-12)
    return replace(file, tensors={**file.tensors, "odd": found})


SOURCES: dict[str, Callable[[Path], Checkpoint]] = {
    "a file": one_file,
    "shards": shards,
    "a pickle": pickled,
    "arrays": memory,
    "Torch tensors": torch_tensors,
    "a device": device,
    "a stack": stack,
    **{f"a task file, {dtype}": task(dtype, transform="none") for dtype in WRITTEN},
    "a task file, cut": task("bfloat16"),
    "a task file, signs": task(encoding="ternary"),
    "a task file, codes": task(transform="none", encoding="tvq"),
    "a task file, singular vectors": task(transform="none", encoding="tsv:rank=5"),
    "factors": factors,
    "an adapter in a base": inserted,
    "DoRA in a base": dora,
    "masks of an archive": archive("tall"),
    "scaled masks of an archive": archive("emr"),
    "singular vectors of an archive": archive("tsv"),
    "quantised": quantised,
    "experts": experts,
    "a head that was tied": scaled,
    "rows of several tables": gathered,
    "a step in a space": lifted,
}
#: Of each row the classes that have the bytes of its tensors; all have some from a file, too.
KEPT = "taskfile.view.KeptBytes"
CLASSES = {
    "a pickle": {"checkpoint.memory.ArrayBytes"},
    "arrays": {"checkpoint.memory.ArrayBytes"},
    "Torch tensors": {"checkpoint.memory.ArrayBytes"},
    "a device": {"checkpoint.memory.DeviceBytes"},
    **{name: {KEPT} for name in SOURCES if name.startswith("a task file")},
    "factors": {KEPT},
    "an adapter in a base": {
        "checkpoint.adapters.inserted.ProductBytes",
        "checkpoint.adapters.inserted.RowBytes",
    },
    "DoRA in a base": {"checkpoint.adapters.inserted.DoraBytes"},
    "masks of an archive": {"archives.rebuilding.Masked"},
    "scaled masks of an archive": {"archives.rebuilding.Masked"},
    "singular vectors of an archive": {"archives.rebuilding.Made"},
    "quantised": {"checkpoint.quantised.sources.Scaled"},
    "experts": {"checkpoint.quantised.experts.Experts"},
    "a head that was tied": {"checkpoint.tied.ScaledBytes"},
    "rows of several tables": {"checkpoint.rows.Gathered"},
    "a step in a space": {"merging.spaces.Lifted"},
}
FILES = {"checkpoint.files.FileRange"}
#: What others are made from, what has a source itself, and what only refuses to be read.
BASES = {
    "checkpoint.adapters.nominal.Absent",
    "plan.spaces.__init__.Pending",
    "checkpoint.adapters.inserted._Changed",
    "checkpoint.quantised.sources.Dequantised",
    "checkpoint.tensors.Tensor",
}
Read = tuple[Checkpoint, dict[str, bytes]]


def test_every_source_is_here() -> None:
    assert set().union(FILES, BASES, *CLASSES.values()) == implementations.of("Bytes")


@pytest.fixture(scope="module", params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A checkpoint, and the bytes of its tensors as one read gives them."""
    with SOURCES[request.param](tmp_path_factory.mktemp("source")) as opened:
        found = {implementations.name_of(tensor.source) for tensor in opened.tensors.values()}
        assert found - FILES == CLASSES.get(request.param, set())
        yield opened, {name: tensor.read().tobytes() for name, tensor in opened.tensors.items()}


def part(tensor: Tensor, start: int, stop: int) -> bytes:
    """Return bytes of a tensor, read into the middle of others; those must stay as they are."""
    room = np.full(stop - start + 16, 0xA5, np.uint8)
    tensor.source.read_into(start, room[8:-8].data)
    assert (room[:8] == 0xA5).all() and (room[-8:] == 0xA5).all(), tensor.name
    return room[8:-8].tobytes()


def cuts(rng: np.random.Generator, size: int, number: int = 9) -> list[int]:
    return [0, *sorted(rng.integers(0, size + 1, number).tolist()), size]


class TestSources:
    """What a source of bytes promises."""

    def test_a_tensor_has_as_many_bytes_as_it_says(self, source: Read) -> None:
        opened, whole = source
        assert whole and all(len(whole[n]) == t.nbytes for n, t in opened.tensors.items())

    def test_a_second_read_gives_the_same(self, source: Read) -> None:
        opened, whole = source
        for name, tensor in opened.tensors.items():
            assert tensor.read().tobytes() == whole[name], name

    @given(data=st.data())
    @settings(max_examples=25)
    def test_any_range_of_bytes(self, source: Read, data: st.DataObject) -> None:
        opened, whole = source
        name = data.draw(st.sampled_from([n for n in whole if whole[n]]))
        size = len(whole[name])
        near = st.sampled_from([0, size, *range(4 * BLOCK - 9, min(size, 4 * BLOCK + 9))])
        start, stop = sorted(data.draw(st.tuples(*[near | st.integers(0, size)] * 2)))
        if start < stop:
            assert part(opened.tensors[name], start, stop) == whole[name][start:stop], name

    def test_any_pieces_of_entries_in_any_order(self, source: Read) -> None:
        opened, whole = source
        rng = np.random.default_rng(3)
        for name, tensor in opened.tensors.items():
            itemsize = tensor.nbytes // tensor.size if tensor.size else 1
            found = np.empty(items(tensor.dtype, tensor.size) * itemsize, np.uint8)
            ends = cuts(rng, tensor.size)
            pieces = list(itertools.pairwise(ends))
            rng.shuffle(pieces)
            for start, stop in pieces:
                tensor.read_into(start, found[start * itemsize : stop * itemsize])
            assert found.tobytes() == whole[name], name

    def test_threads_read_at_once(self, source: Read) -> None:
        opened, whole = source
        names = [name for name in whole if whole[name]]
        together = threading.Barrier(6)

        def read(seed: int) -> None:
            rng = np.random.default_rng(seed)
            together.wait(60)
            for name in rng.permutation(names).tolist():
                ends = cuts(rng, len(whole[name]), 5)
                for start, stop in itertools.pairwise(ends):
                    if start < stop:
                        found = part(opened.tensors[name], start, stop)
                        assert found == whole[name][start:stop], (name, start, stop)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(read, range(6)))
