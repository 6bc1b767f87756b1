"""Pickles: tensors alone, read lazily; everything else is refused with one line."""

from __future__ import annotations

import collections
import decimal
import gc
import json
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

import breadcrumbs.checkpoint as checkpoints
from breadcrumbs.errors import CheckpointError, MissingExtraError

torch = pytest.importorskip("torch")


def state() -> dict:
    """Return a state dict with the dtypes that NumPy lacks, odd strides and a tied weight."""
    torch.manual_seed(0)
    weight = torch.randn(6, 4)
    return collections.OrderedDict(
        {
            "f32": weight,
            "tied": weight,
            "view": weight[2:4],
            "turned": weight.t(),
            "stepped": weight[::2, 1:3],
            "bf16": weight.bfloat16().t(),
            "f8": weight.to(torch.float8_e4m3fn).t(),
            "scalar": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "bool": torch.tensor([True, False]),
            "parameter": torch.nn.Parameter(torch.ones(2)),
        }
    )


def check(checkpoint, expected: dict) -> None:
    assert list(checkpoint) == list(expected)
    for name, tensor in expected.items():
        tensor = tensor.detach().contiguous()
        assert checkpoint[name].shape == tuple(tensor.shape), name
        raw = tensor.reshape(-1).view(torch.uint8).numpy()
        assert checkpoint[name].tobytes() == raw.tobytes(), name
        if tensor.numel() > 2:  # from a position inside, too
            out = np.empty(2, checkpoint[name].dtype)
            checkpoint.tensors[name].read_into(1, out)
            assert out.tobytes() == checkpoint[name].reshape(-1)[1:3].tobytes(), name


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
@pytest.mark.parametrize("new", [True, False])
def test_round_trip(tmp_path, suffix, nested, new):
    path = tmp_path / f"x{suffix}"
    tensors = state()
    if not new:  # that format is older than float8
        del tensors["f8"]
    content = {nested: tensors} if nested else tensors
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with checkpoints.open(path) as checkpoint:
        check(checkpoint, tensors)
        assert checkpoint.files == (path,) and checkpoint.label == str(path)


def test_folders_of_pickles(tmp_path):
    one, two = {"a": torch.ones(2)}, {"b": torch.zeros(3)}
    torch.save(one, tmp_path / "pytorch_model-1.bin")
    torch.save(two, tmp_path / "pytorch_model-2.bin")
    index = {"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with checkpoints.open(tmp_path) as checkpoint:
        assert {name: array.tolist() for name, array in checkpoint.items()} == {
            "a": [1, 1],
            "b": [0, 0, 0],
        }
        assert len(checkpoint.files) == 2
    torch.save(one | two, tmp_path / "pytorch_model.bin")
    with checkpoints.open(tmp_path) as checkpoint:
        assert [file.name for file in checkpoint.files] == ["pytorch_model.bin"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_bytes_are_read_only_when_asked_for(tmp_path):
    tensors = {"big": torch.zeros(64 << 20, dtype=torch.uint8), "small": torch.ones(4)}
    torch.save(tensors, tmp_path / "x.pt")
    del tensors

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    with checkpoints.open(tmp_path / "x.pt") as checkpoint:
        assert checkpoint["small"].tolist() == [1] * 4
        assert resident() - before < 32 << 20


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


BAD = {
    "code": (lambda: {"a": Evil()}, "not a pickle of tensors alone"),
    "a class": (lambda: {"a": decimal.Decimal(1)}, "not a pickle of tensors alone"),
    "a module": (lambda: torch.nn.Linear(1, 1), "not a pickle of tensors alone"),
    "a tensor": (lambda: torch.ones(2), "holds a Tensor, not a mapping"),
    "a list": (lambda: [torch.ones(2)], "holds a list, not a mapping"),
    "no tensors": (lambda: {"epoch": 3, "lr": 0.1}, "its keys are 'epoch', 'lr'"),
    "an optimizer alone": (
        lambda: {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
        "no mapping of names to tensors that could be weights; its keys are 'optimizer'",
    ),
    "lists of tensors": (lambda: {"shadow": [torch.ones(1)]}, "its keys are 'shadow'"),
    "a list among tensors": (
        lambda: {"w": torch.ones(1), "parts": [torch.ones(1)]},
        "'parts', a list, among the tensors",
    ),
    "a Torch size": (lambda: {"w": torch.Size([1])}, "'w'"),
    "a name that is a number": (lambda: {3: torch.ones(1)}, "3 is not a string"),
    "a dtype": (lambda: {"w": torch.ones(1, dtype=torch.complex128)}, "complex128"),
    "sparse": (lambda: {"w": torch.eye(2).to_sparse()}, "sparse"),
    "nothing": (lambda: {}, "holds no tensors"),
}


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("case", BAD)
def test_anything_but_tensors_is_refused(tmp_path, monkeypatch, case, new):
    monkeypatch.chdir(tmp_path)
    make, says = BAD[case]
    path = tmp_path / "x.pt"
    torch.save(make(), path, _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match=says) as error:
        checkpoints.open(path)
    assert str(error.value).startswith(str(path)) and str(error.value).isprintable()
    assert os.listdir(tmp_path) == ["x.pt"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_are_refused(tmp_path):
    torch.save(state(), tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    path = tmp_path / "damaged.pt"
    for content in (b"", b"x", whole[:1000], whole[:-100], b"PK\5\6" + bytes(18), pickle.dumps({})):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"damaged\.pt") as error:
            checkpoints.open(path)
        assert str(error.value).isprintable()


def test_a_compressed_zip_is_refused(tmp_path):
    torch.save(state(), tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as plain,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(CheckpointError, match="is compressed"):
        checkpoints.open(tmp_path / "y.pt")


def test_without_torch_the_message_says_what_to_install(tmp_path, monkeypatch):
    torch.save(state(), tmp_path / "x.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'pip install "\.\[torch\]"'):
        checkpoints.open(tmp_path / "x.pt")


def test_a_file_is_let_go_with_its_checkpoint(tmp_path):
    torch.save(state(), tmp_path / "x.pt")
    with checkpoints.open(tmp_path / "x.pt") as checkpoint:
        assert len(checkpoint["f32"]) == 6
    del checkpoint
    gc.collect()
    os.remove(tmp_path / "x.pt")  # which Windows refuses while it is mapped
