"""What lies beside the weights of a model: config, tokenizer, and the modules in subfolders.

A sentence-transformers model is a list of modules. The one of path "" is the model in the folder
itself; the others have settings, and some of them small weights, in subfolders of their own:

    modules.json       [{"path": "", ...}, {"path": "1_Pooling", ...}, {"path": "2_Dense", ...}]
    1_Pooling/config.json
    2_Dense/config.json, 2_Dense/model.safetensors

A subfolder counts if its path is a plain name and it is no link. Other entries, and a
`modules.json` that is something else, mean nothing here and are passed over. One that cannot be
read is an error: the parts of the model that it names would be lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from breadcrumbs.checkpoint.folder import INDEX, is_plain
from breadcrumbs.errors import CheckpointError

MODULES = "modules.json"
RECIPE = "breadcrumbs.yaml"
_WEIGHTS = {
    ".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".ckpt",
}  # fmt: skip
_TOKENIZER = {
    "added_tokens.json", "merges.txt", "sentencepiece.bpe.model", "special_tokens_map.json",
    "spiece.model", "tekken.json", "vocab.json", "vocab.txt",
}  # fmt: skip
_LARGEST = 100 << 20
_LARGEST_LIST = 1 << 20


def side_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder that are neither weights nor about this one model."""
    return _files(folder, _is_side)


def is_tokenizer(name: str) -> bool:
    """Return whether a file beside the weights is a part of the tokenizer."""
    return name.startswith(("tokenizer", "chat_template")) or name in _TOKENIZER


def module_files(subfolder: Path) -> list[Path]:
    """Return the files of a module that go with it: as of a folder, and its weights."""
    return _files(subfolder, lambda path: is_module_weights(path.name) or _is_side(path))


def module_folders(folder: Path) -> list[Path]:
    """Return the subfolders of ``folder`` that are there and that its `modules.json` names."""
    top = os.path.realpath(folder)
    return [folder / name for name in module_names(folder / MODULES) if _is_subfolder(top, name)]


def module_names(path: Path) -> list[str]:
    """Return the names of subfolders in the `modules.json` at ``path``, each once."""
    try:
        if path.is_file() and path.stat().st_size > _LARGEST_LIST:
            raise _unreadable(path, f"it has more than {_LARGEST_LIST} bytes")
        modules = json.loads(path.read_bytes()) if path.is_file() else []
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None
    except (ValueError, RecursionError):
        raise _unreadable(path, "it is not JSON") from None
    entries = modules if isinstance(modules, list) else []
    paths = [entry.get("path") for entry in entries if isinstance(entry, dict)]
    names = [path for path in paths if isinstance(path, str) and path and is_plain(path)]
    return list(dict.fromkeys(names))


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be read ({why}), so it is unknown which folders are parts of the model."
        " Copy or download it again, or remove it if there are none."
    )


def is_module_weights(name: str) -> bool:
    """Whether a file of a module is weights that sentence-transformers reads, or their index."""
    return name[:1] != "." and name.endswith((".safetensors", ".bin", INDEX))


def _is_side(path: Path) -> bool:
    name = path.name
    about = name.startswith(".") or name in (RECIPE, "README.md")
    if about or name.endswith(INDEX) or path.suffix in _WEIGHTS:
        return False
    return path.stat().st_size <= _LARGEST


def _files(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and wanted(path))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be listed: {error.strerror}.") from None


def _is_subfolder(top: str, name: str) -> bool:
    """Whether ``name`` is a folder right in ``top``, a path without links, and no link itself."""
    path = os.path.join(top, name)
    real = os.path.realpath(path)
    return os.path.isdir(path) and os.path.normcase(real) == os.path.normcase(path)
