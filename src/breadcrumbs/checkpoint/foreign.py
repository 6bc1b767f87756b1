"""What a file is that is no weights to read here, told by its bytes whatever its name says.

Git LFS pointers, pages of a server, the files of other programs: each is called what it is, with
what to do. Nothing here is asked of a file that opens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from breadcrumbs.checkpoint.tensors import shown

#: Bytes at the begin that are looked at, and at the end.
HEAD, TAIL = 4096, 8

_AGAIN = "Download it again."
_FROM = "Give the safetensors or PyTorch files of the model it was made from."
_MAGIC = (
    (b"GGUF", f"is a GGUF file, weights for llama.cpp, mostly quantised. {_FROM}"),
    (b"lmgg", f"is a GGML file, weights for an old llama.cpp. {_FROM}"),
    (b"tjgg", f"is a GGML file, weights for an old llama.cpp. {_FROM}"),
    (b"\x89HDF\r\n\x1a\n", f"is an HDF5 file, as Keras and TensorFlow write. {_FROM}"),
    (
        b"\x93NUMPY",
        "is one array of NumPy (.npy) without a name. Give a mapping of names to arrays in"
        " Python, or save one with `safetensors.numpy.save_file`.",
    ),
    (b"\x1f\x8b", "is compressed with gzip. Unpack it with `gunzip` first."),
    (b"BZh", "is compressed with bzip2. Unpack it with `bunzip2` first."),
    (b"\xfd7zXZ\0", "is compressed with xz. Unpack it with `unxz` first."),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard. Unpack it with `unzstd` first."),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive. Unpack it first."),
    (b"Rar!\x1a\x07", "is a RAR archive. Unpack it first."),
    (b"%PDF", f"is a PDF document. {_AGAIN}"),
    (b"TFL3", f"is a TensorFlow Lite file. {_FROM}"),
)
#: The end of a LevelDB table, which TensorFlow's checkpoints (`.index`, version 1's all) are.
_TABLE = bytes.fromhex("57fb808b247547db")
#: The number with which pickles of Torch begin that are no zip (before 1.6, of 2020).
_TORCH = bytes.fromhex("6cfc9c46f9206aa85019")
_LFS = b"version https://git-lfs.github.com/spec/"
_TEXT = frozenset(range(32, 127)) | {9, 10, 12, 13} | frozenset(range(128, 256))

#: What the names of other programs' files say, where a folder has nothing else.
_NAMES = {
    ".gguf": "GGUF, mostly quantised weights for llama.cpp",
    ".onnx": "an ONNX graph",
    ".onnx_data": "an ONNX graph",
    ".h5": "HDF5 weights of Keras or TensorFlow",
    ".keras": "a Keras archive",
    ".msgpack": "weights of Flax",
    ".index": "a TensorFlow checkpoint",
    ".tflite": "a TensorFlow Lite file",
    ".pb": "a TensorFlow graph",
    ".npz": "arrays of NumPy",
    ".ot": "weights of rust-bert",
    ".mlmodel": "a Core ML model",
    ".pdparams": "weights of Paddle",
    ".distcp": "a distributed checkpoint of Torch",
}
_DISTRIBUTED = (
    "Make one file of it with `python -m torch.distributed.checkpoint.format_utils"
    " dcp_to_torch FOLDER model.pt`."
)


def called(path: str | os.PathLike[str]) -> str | None:
    """Return what the file ``path`` is and what to do, to follow its path; None if that is unknown.

    A pickle of Torch, which may be read, is unknown; `is_pickle` knows it.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(HEAD)
            file.seek(max(0, size - TAIL))
            tail = file.read(TAIL)
    except OSError:
        return None
    if not size:
        return "has 0 bytes: it is empty. Download or copy it again."
    if Path(path).suffix == ".distcp":
        return f"is one part of a distributed checkpoint of Torch. {_DISTRIBUTED}"
    if not head.strip(b"\0"):
        return (
            "holds zeros where it should begin, as after a download or a copy that was cut short."
            " Download or copy it again."
        )
    if head.startswith(b"PK\3\4") or head.startswith(b"PK\5\6"):
        return _zip(path)
    return next((text for look in _LOOKS if (text := look(head, tail, Path(path).name))), None)


def is_pointer(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a pointer of Git LFS, which stands for another one."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_LFS)) == _LFS
    except OSError:
        return False


def is_pickle(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as what `torch.save` writes does: a zip of it, or an older pickle."""
    try:
        with open(path, "rb") as file:
            head = file.read(2)
    except OSError:
        return False
    if head == b"PK":
        return any(name.rsplit("/", 1)[-1] == "data.pkl" for name in _members(path))
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def no_pickle(path: str | os.PathLike[str]) -> str | None:
    """Return what a file is that Torch cannot have saved, and what to do; None if it may have."""
    with open(path, "rb") as file:
        head = file.read(64)
    if not is_pickle(path):
        return (
            f"is nothing that `torch.save` writes, nor anything else that is known here: it begins"
            f" with {shown(head[:8])}. Give a .safetensors file, or a pickle of Torch."
        )
    if head[:2] != b"PK" and _TORCH not in head:
        return (
            "is a pickle that `torch.save` did not write. Where you trust it, since loading it runs"
            " code that is in it: `torch.save(pickle.load(open(PATH, 'rb')), 'model.pt')`."
        )
    return None


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a safetensors file does: a length, and a JSON object."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return len(head) == 9 and int.from_bytes(head[:8], "little") <= size - 8 and head[8:] == b"{"


def among(names: Iterable[str]) -> str:
    """Return what the files ``names`` of a folder without weights are, and what to do, if known."""
    for name in names:
        suffix = Path(name).suffix
        if suffix == ".distcp":
            return f" {shown(name)} is of a distributed checkpoint of Torch. {_DISTRIBUTED}"
        if suffix in _NAMES:
            return f" {shown(name)} is {_NAMES[suffix]}. {_FROM}"
        if name.endswith("_model_states.pt") or name == "zero_to_fp32.py":
            return (
                " These are the parts of a DeepSpeed checkpoint. Make one state dict of them with"
                " `python zero_to_fp32.py . OUTPUT`."
            )
    return ""


def _members(path: str | os.PathLike[str]) -> list[str]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return []


def _zip(path: str | os.PathLike[str]) -> str | None:
    names = _members(path)
    tops = {name.split("/", 1)[-1] for name in names}
    if "constants.pkl" in tops or any(name.startswith("code/") for name in tops):
        return (
            "is a TorchScript archive, a program with weights in it. Save the state dict alone:"
            " `torch.save(torch.jit.load(PATH).state_dict(), 'model.pt')`."
        )
    if any("exported_program" in name or name.startswith("models/") for name in tops):
        return (
            "is an exported program of torch.export. Save the state dict alone:"
            " `torch.save(torch.export.load(PATH).state_dict, 'model.pt')`."
        )
    if any(name.rsplit("/", 1)[-1] == "data.pkl" for name in names):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return (
            "is an archive of NumPy (.npz). Write it as safetensors:"
            " `safetensors.numpy.save_file(dict(numpy.load(PATH)), 'model.safetensors')`."
        )
    if "model.weights.h5" in tops:
        return f"is a Keras archive. {_FROM}"
    if not names:
        return f"is a zip archive that is cut off or empty. {_AGAIN}"
    found = ", ".join(shown(name) for name in names[:3])
    return f"is a zip archive (of {found}), not weights. Unpack it and give what is in it."


def _pointer(head: bytes, tail: bytes, name: str) -> str | None:
    if head.startswith(_LFS):
        size = re.search(rb"^size (\d+)$", head, re.MULTILINE)
        instead = f" of {size[1].decode()} bytes" if size else ""
        return (
            f"is a Git LFS pointer, in place of the weights{instead}. Run `git lfs pull` in that"
            " folder, or download the file itself."
        )
    if b"/annex/objects/" in head[:512]:
        return "is a git-annex pointer. Run `git annex get` on it."
    return None


def _by_magic(head: bytes, tail: bytes, name: str) -> str | None:
    for magic, text in _MAGIC:
        if head.startswith(magic) or (magic == b"TFL3" and head[4:8] == magic):
            return text
    if head[257:262] == b"ustar":
        return "is a tar archive. Unpack it with `tar -xf` and give what is in it."
    if tail == _TABLE:
        return f"is a part of a TensorFlow checkpoint. {_FROM}"
    return None


def _page(head: bytes, tail: bytes, name: str) -> str | None:
    """Say what a text is: a page or message of a server, in place of a file."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text or not set(head) <= _TEXT or not (text[:1] == b"<" or _is_unicode(head)):
        return None
    start, begins = text[:256].lower(), shown(text[:60].decode(errors="replace"))
    if re.match(rb"<(!doctype\s+html|html|head|body|title|script|!--)", start):
        return f"is an HTML page, not weights ({begins}). {_AGAIN}"
    if start.startswith(b"<"):
        return f"is an XML text, mostly a server's message, not weights ({begins}). {_AGAIN}"
    if text[:1] in (b"{", b"["):
        return f"is a JSON text, not weights ({begins}). Give the weights, or download them again."
    return f"is a text, not weights ({begins}). {_AGAIN}"


def _is_unicode(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > HEAD - 4  # a letter that the end of the head cuts
    return True


def _protobuf(head: bytes, tail: bytes, name: str) -> str | None:
    """Know ONNX: the version of its format, 1 to 20, and then the producer, a text, or a graph."""
    named = name.endswith(".onnx")
    begins = head[:1] == b"\x08" and 1 <= head[1] <= 20 and head[2:3] in (b"\x12", b"\x3a", b"\x42")
    if named or (begins and (head[2:3] == b"\x3a" or head[4 : 4 + min(head[3], 4)].isascii())):
        return f"is an ONNX graph. {_FROM}"
    return None


def _message_pack(head: bytes, tail: bytes, name: str) -> str | None:
    """Know Flax: a MessagePack map whose first key is a text."""
    skip = 1 if 0x81 <= head[0] <= 0x8F else {0xDE: 3, 0xDF: 5}.get(head[0], 0)
    if not skip or len(head) < skip + 2:
        return None
    first = head[skip]
    at = skip + 1 if 0xA1 <= first <= 0xBF else skip + 2 if first == 0xD9 else 0
    size = first & 31 if 0xA1 <= first <= 0xBF else head[skip + 1]
    key = head[at : at + size]
    if at and size and key.isascii() and key.decode(errors="replace").isprintable():
        return f"is a MessagePack file, as Flax writes. {_FROM}"
    return None


_LOOKS: tuple[Callable[[bytes, bytes, str], str | None], ...] = (
    _pointer, _by_magic, _page, _protobuf, _message_pack,
)  # fmt: skip
