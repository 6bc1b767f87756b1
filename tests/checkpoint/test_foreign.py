"""Files that are not weights to read here are called what they are, whatever their names say.

The binary ones begin as files do that h5py 3.16, onnx 1.23, flax 0.12 and gguf 0.19 wrote.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import breadcrumbs.checkpoint as checkpoints
from breadcrumbs.errors import CheckpointError

HDF5 = "894844460d0a1a0a000000000008080004001000000000000000000000000000ffffffffffffffff"
ONNX = (
    "080e3a700a0c0a0178120179220452656c751201672a3b0803080410014201774a30000000000000803f00000040"
)
ONNX_OF_TORCH = "080e12077079746f7263683a700a0c0a0178120179220452656c751201672a3b080308041001"
FLAX = "81a6706172616d7381a564656e736581a66b65726e656cc73e0193920304a7666c6f61743332c430"
FLAX_OF_MANY = "de0014d93f6c617965725f776974685f615f6c6f6e675f6e616d655f30303030303030303030303030"
GGUF = "474755460300000001000000000000000000000000000000" + "0100000000000000" + "77"
TABLE = "00" * 40 + "57fb808b247547db"


def packed(mode: str, **files: bytes) -> bytes:
    out = io.BytesIO()
    if mode == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def arrays(save, *given, **named) -> bytes:
    out = io.BytesIO()
    save(out, *given, **named)
    return out.getvalue()


LFS = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345678\n"
)
KINDS = {
    "empty": (b"", "it is empty"),
    "zeros": (bytes(100_000), "holds zeros where it should begin"),
    "few zeros": (bytes(3), "holds zeros"),
    "Git LFS": (LFS, "Git LFS pointer.* of 12345678 bytes.*`git lfs pull`"),
    "git-annex": (b"/annex/objects/SHA256E-s10--abc.safetensors\n", "git annex get"),
    "HTML": (b"<!DOCTYPE html><html><body>Access denied</body></html>", "is an HTML page"),
    "HTML after a space": (b"\n\n  <html lang='en'>\n<head></head></html>", "is an HTML page"),
    "HTML of a byte order mark": (b"\xef\xbb\xbf<!doctype html><p>\xc3\xa9", "is an HTML page"),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML.*AccessDenied"),
    "JSON": (b'{"error": "Repository not found"}', "is a JSON text.*Repository not found"),
    "short JSON": (b"[]", "is a JSON text"),
    "text": (b"Entry not found", "is a text, not weights.*Entry not found"),
    "GGUF": (bytes.fromhex(GGUF), "is a GGUF file"),
    "GGML": (b"tjgg" + bytes(60), "is a GGML file"),
    "HDF5": (bytes.fromhex(HDF5), "is an HDF5 file"),
    "ONNX": (bytes.fromhex(ONNX), "is an ONNX graph"),
    "ONNX of Torch": (bytes.fromhex(ONNX_OF_TORCH), "is an ONNX graph"),
    "Flax": (bytes.fromhex(FLAX), "MessagePack file, as Flax"),
    "Flax of many": (bytes.fromhex(FLAX_OF_MANY), "MessagePack file, as Flax"),
    "TensorFlow": (bytes.fromhex("0012") + bytes.fromhex(TABLE), "TensorFlow checkpoint"),
    "npz": (arrays(np.savez, w=np.ones(3)), "archive of NumPy"),
    "packed npz": (arrays(np.savez_compressed, w=np.ones(3)), "archive of NumPy"),
    "npy": (arrays(np.save, np.ones(3)), "one array of NumPy"),
    "zip": (packed("zip", **{"a/model.safetensors": b"x"}), "zip archive .*Unpack"),
    "Keras": (packed("zip", **{"config.json": b"{}", "model.weights.h5": b""}), "Keras archive"),
    "cut zip": (packed("zip", a=bytes(500))[:300], "zip archive that is cut off"),
    "tar": (packed("w", **{"model.pt": b"x" * 600}), "tar archive"),
    "tar.gz": (packed("w:gz", **{"model.pt": b"x"}), "compressed with gzip"),
    "xz": (packed("w:xz", **{"model.pt": b"x"}), "compressed with xz"),
    "zstd": (bytes.fromhex("28b52ffd2003190000616263"), "compressed with Zstandard"),
}
NAMES = ["model.safetensors", "pytorch_model.bin", "x.ckpt", "x.pth.tar", "x.pt", "x", "x.gguf"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_called_what_it_is(tmp_path, kind):
    content, says = KINDS[kind]
    for name in NAMES:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=says) as error:
            checkpoints.open(path)
        text = str(error.value)
        assert text.startswith(f"{path}: ") and text.isprintable() and len(text) < 500
    for name in NAMES[2:]:
        (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=says):
        checkpoints.open(tmp_path)


def test_programs_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(2, 2)
    torch.jit.save(torch.jit.trace(module, torch.ones(1, 2)), tmp_path / "a.pt")
    torch.export.save(torch.export.export(module, (torch.ones(1, 2),)), tmp_path / "b.pt2")
    for name, says in (("a.pt", "TorchScript archive"), ("b.pt2", "exported program")):
        for suffix in ("", ".safetensors", ".bin"):
            path = tmp_path / (name + suffix)
            path.write_bytes((tmp_path / name).read_bytes())
            with pytest.raises(CheckpointError, match=says):
                checkpoints.open(path)
    code = "torch.jit.load(PATH).state_dict()"  # what the message advises
    eval(code, {"torch": torch, "PATH": tmp_path / "a.pt"})
    eval("torch.export.load(PATH).state_dict", {"torch": torch, "PATH": str(tmp_path / "b.pt2")})


@pytest.mark.parametrize("new", [True, False])
def test_weights_under_another_name(tmp_path, new):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    pickled = (tmp_path / "x.pt").read_bytes()
    for name in ("x", "x.model", "x.pkl", "0123abcd"):
        (tmp_path / name).write_bytes(pickled)
        with checkpoints.open(tmp_path / name) as checkpoint:
            assert checkpoint["w"].tolist() == [1, 1]
    (tmp_path / "x.safetensors").write_bytes(pickled)
    with pytest.raises(CheckpointError, match=r"pickle of Torch under .* Rename it to x\."):
        checkpoints.open(tmp_path / "x.safetensors")
    for name in ("y", "y.bin", "y.ckpt"):
        safetensors.numpy.save_file({"w": np.ones(2)}, tmp_path / name)
        with checkpoints.open(tmp_path / name) as checkpoint:
            assert checkpoint["w"].tolist() == [1, 1]


def test_a_damaged_safetensors_file_is_still_called_damaged(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"w": np.ones(200)}, path)
    whole = path.read_bytes()
    for content, says in (
        (whole[:500], "ends at byte 1600 of the data"),
        (whole[:20], "only 12 follow"),
        (b"\xff" * 600, "more than the 100000000"),
        (b"\1" * 5, "has 5 bytes, too short"),
        (whole[:8] + b"[" + whole[9:], "not a JSON object"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=says):
            checkpoints.open(path)


NO_TORCH = {
    "raw floats": (np.ones(100, np.float32).tobytes(), "nothing that `torch.save` writes"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "nothing that `torch.save` writes.*PNG"),
    "a database": (b"SQLite format 3\0" + bytes(50), "nothing that `torch.save` writes"),
    "a pickle": (pickle.dumps({"w": np.ones(3)}), r"`torch.save` did not write.*pickle\.load"),
    "an old pickle": (pickle.dumps({"w": [1.0]}, 2), "`torch.save` did not write"),
}


@pytest.mark.parametrize("kind", NO_TORCH)
def test_what_torch_cannot_have_saved(tmp_path, kind):
    pytest.importorskip("torch")
    content, says = NO_TORCH[kind]
    for name in ("pytorch_model.bin", "x.pt", "x.pth"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=says) as error:
            checkpoints.open(tmp_path / name)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_of_torch_that_is_cut_off(tmp_path, protocol):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    how = {"_use_new_zipfile_serialization": False, "pickle_protocol": protocol}
    torch.save({"w": torch.ones(200)}, path, **how)
    if protocol == 2:  # those that Torch's restricted unpickler knows
        with checkpoints.open(path) as checkpoint:
            assert checkpoint["w"].sum() == 200
    path.write_bytes(path.read_bytes()[:-100])
    says = "It was cut off" if protocol == 2 else "not a pickle of tensors alone"
    with pytest.raises(CheckpointError, match=says):
        checkpoints.open(path)


def test_parts_of_distributed_checkpoints(tmp_path):
    (tmp_path / "__0_0.distcp").write_bytes(packed("zip", **{"archive/data.pkl": b"x"}))
    with pytest.raises(CheckpointError, match=r"one part of a distributed.*dcp_to_torch"):
        checkpoints.open(tmp_path / "__0_0.distcp")


@pytest.mark.parametrize(
    "name", ["consolidated.0{}.pth", "mp_rank_0{}_model_states.pt", "consolidated.0{}.safetensors"]
)
def test_a_slice_of_several_is_no_model(tmp_path, name):
    def write(number: int) -> None:
        path = tmp_path / name.format(number)
        if name.endswith("safetensors"):
            safetensors.numpy.save_file({"w": np.ones(2)}, path)
        else:
            torch = pytest.importorskip("torch")
            torch.save({"module": {"w": torch.ones(2)}}, path)

    write(0)
    with checkpoints.open(tmp_path / name.format(0)) as checkpoint:
        assert checkpoint["w"].tolist() == [1, 1]
    write(1)
    with pytest.raises(CheckpointError, match="one model in 2 files with a slice of each tensor"):
        checkpoints.open(tmp_path / name.format(0))


def test_a_link_to_nothing(tmp_path):
    (tmp_path / "x.safetensors").symlink_to("gone")
    with pytest.raises(CheckpointError, match="is a link to 'gone', which is not there"):
        checkpoints.open(tmp_path / "x.safetensors")
