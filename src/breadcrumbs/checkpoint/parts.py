"""What a model consists of: the one list, for a folder, for a hub and for what is written.

A model is a folder, and the subfolders that its own lists name:

    modules.json         of sentence-transformers: the module of path "" is the folder itself, the
                         others have settings, and some of them weights, in subfolders
    router_config.json   of a sentence-transformers module of several ways
    model_index.json     of diffusers: each component in a subfolder of its name
    additional_chat_templates, custom_generate      of transformers

Of each of these the weights belong to it (one format, `breadcrumbs.checkpoint.folder` says which),
and the files that `kind` knows: configs, tokenizer, processors, word lists, licences, and Python
files that the configs name (`breadcrumbs.checkpoint.remote_code`). What else lies there (other
formats, training state and logs, pictures, data, what is about this one model) stays behind.

A subfolder counts if its path is a plain name and it is no link. A list that cannot be read, or
that names a folder elsewhere, is an error: what it names would be lost without a word.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from breadcrumbs.checkpoint import layout, remote_code
from breadcrumbs.checkpoint.folder import is_plain, weight_files
from breadcrumbs.checkpoint.patterns import Pattern
from breadcrumbs.checkpoint.tensors import shown
from breadcrumbs.errors import CheckpointError

MODULES, ROUTES, COMPONENTS = "modules.json", "router_config.json", "model_index.json"
#: Subfolders that belong to a model wherever they are found, without weights.
TEMPLATES, GENERATE = "additional_chat_templates", "custom_generate"
#: About the one model beside which they lie.
ABOUT = (
    "breadcrumbs.yaml", "README.md", "mergekit_config.yml", "adapter_config.json", "finetune.json",
    "learned.json",
)  # fmt: skip
LARGEST = 100 << 20
_LARGEST_LIST = 1 << 20
_DEEPEST = 3

_LEFT = Pattern(
    r"""^(.*_results|trainer_state|training_args|training_config|train_config|log_history|ds_config.*
    |deepspeed.*|zero_config.*|optimizer.*|rng_state.*|random_states.*|wandb.*|events\.out.*|hparams
    |openvino.*|ov_config|mlc-chat-config|onnx.*|quant_?strategy|.*\.index(\..+)?)
    \.(json|ya?ml|txt)$""",
    re.VERBOSE,
)
_TOKENIZER = Pattern(
    r"""^(tokenizer|tokenization_|chat_template|special_tokens|added_tokens|sentencepiece)
    |\.(model|spm|codes|bpe|tiktoken|vocab|tokenizer)$ | \.model\.v\d+(m\d+)?$
    | vocab.*\.(json|txt|bin|pkl)$ | merges.*\.txt$
    |^(tekken|normalizer|encoder|word_shape|word_pronunciation|emoji)\.json$ |^dict.*\.txt$""",
    re.VERBOSE,
)
_TEXT = (".json", ".jinja", ".txt", ".yaml", ".yml", ".cfg", ".metadata", ".npy", ".npz")
_LISTS = Pattern(r"(label|class|tag|synset)\w*\.(csv|tsv)$", re.IGNORECASE)
_LEGAL = Pattern(r"^(.*LICEN[CS]E.*|NOTICE.*|.*USE_POLICY.*|COPYING.*|.*TERMS.*)$", re.IGNORECASE)
_CODE = Pattern(
    r"^(configuration|modeling|processing|image_processing|feature_extraction)_\w+\.py$"
)
#: Weights of other formats, which a folder may hold besides those that are read.
_OTHER_FORMATS = (".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".mlmodel", ".tflite", ".pb")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_OF_TRAINING = Pattern(
    r"""^((optimizer|scheduler|scaler|sampler|dataloader|rng_state|random_states|training_args|trainer|ema
    |global_step|custom_checkpoint|pytorch_model_fsdp
    |openvino|consolidated|.*optim_states|.*model_states)([._-].*)?
    |(open_clip_|diffusion_)?(pytorch_|flax_|tf_|adapter_)?model(-\d.*|\..*))$""",
    re.VERBOSE,
)


class Tree(Protocol):
    """Where a model lies."""

    @property
    def where(self) -> str:
        """What messages call it."""
        ...

    def files(self, folder: str) -> list[str]:
        """Return the names of the files right in a folder, sorted."""
        ...

    def is_folder(self, folder: str) -> bool:
        """Return whether there is such a folder, and it is no link."""
        ...

    def size(self, path: str) -> int | None:
        """Return the bytes of a file, None where that is not known."""
        ...

    def read(self, path: str) -> bytes:
        """Return the content of a file; OSError if it cannot be read."""
        ...


@dataclass(frozen=True)
class Local:
    """The tree of a folder of this machine."""

    path: Path

    @property
    def where(self) -> str:
        return str(self.path)

    def files(self, folder: str) -> list[str]:
        try:
            return sorted(path.name for path in (self.path / folder).iterdir() if path.is_file())
        except OSError as error:
            where = self.path / folder
            raise CheckpointError(f"{where}: cannot be listed: {error.strerror}.") from None

    def is_folder(self, folder: str) -> bool:
        path = os.path.join(os.path.realpath(self.path), *folder.split("/"))
        same = os.path.normcase(os.path.realpath(path)) == os.path.normcase(path)
        return same and os.path.isdir(path)

    def size(self, path: str) -> int | None:
        return (self.path / path).stat().st_size

    def read(self, path: str) -> bytes:
        return (self.path / path).read_bytes()


def folders(tree: Tree, folder: str = "", deep: int = 0) -> list[str]:
    """Return the subfolders of a model that belong to it, each once and after the one around it."""
    found: list[str] = []
    for name in _named(tree, folder) if deep < _DEEPEST else ():
        path = _join(folder, name)
        if tree.is_folder(path):
            found += [path, *folders(tree, path, deep + 1)]
    return list(dict.fromkeys(found))


def kind(name: str) -> str:
    """Return what a file beside weights is by its name: ``tokenizer``, ``code``, ``text`` (configs,
    processors, word lists, licences), ``extra`` (weights that are not read), or "" for what stays
    behind."""
    if name[:1] == "." or name in ABOUT or _LEFT.match(name):
        return ""
    if _TOKENIZER.search(name) and (not name.endswith(".py") or name.startswith("tokenization_")):
        return "tokenizer"
    if _CODE.match(name):
        return "code"
    if name.endswith(_TEXT) or _LISTS.search(name) or _LEGAL.match(name):
        return "text"
    if name.endswith((*_PICKLED, ".safetensors")) and not _OF_TRAINING.match(name):
        return "extra"
    return ""


def is_tokenizer(path: str) -> bool:
    """Whether a file beside weights, in a folder of the model, is a part of the tokenizer."""
    folder, _, name = path.rpartition("/")
    return kind(name) == "tokenizer" or folder.rpartition("/")[2] == TEMPLATES


def has_weights(names: list[str]) -> bool:
    """Whether among the files of a subfolder there are weights that can be read."""
    return any(
        name.endswith(".safetensors")
        or layout.indexed(name) == ".safetensors"
        or ("pytorch_model" in name and (name.endswith(".bin") or layout.indexed(name) == ".bin"))
        for name in names
        if name[:1] != "."
    )


def is_pipeline(tree: Tree) -> bool:
    """Whether the model is a pipeline of diffusers."""
    return COMPONENTS in tree.files("") and bool(_components(tree, ""))


def with_weights(tree: Tree) -> list[str]:
    """Return the subfolders of a model that have weights; CheckpointError for unreadable ones."""
    return [folder for folder in folders(tree) if _has_own(tree, folder)]


def weights(tree: Tree) -> dict[str, list[str]]:
    """Return the weights of each folder of a model that has any: a file, or the index of several.

    CheckpointError if it cannot be told which they are, or there are none at all.
    """
    found = with_weights(tree)
    if not found or (has_weights(tree.files("")) and not is_pipeline(tree)):
        found = ["", *found]
    where = {folder: os.path.join(tree.where, folder) if folder else tree.where for folder in found}
    return {folder: weight_files(tree.files(folder), where[folder]) for folder in found}


def _has_own(tree: Tree, folder: str) -> bool:
    names = tree.files(folder)
    if has_weights(names):
        return True
    where = os.path.join(tree.where, folder)
    odd = [name for name in names if name.endswith(_OTHER_FORMATS)]
    if odd and folder in _index(tree, ""):
        raise CheckpointError(
            f"{where}: holds {odd[0]!r}, and no .safetensors or .bin, so this part of the pipeline"
            " cannot be read. Give a pipeline with those."
        )
    return False


def files(tree: Tree, folder: str) -> list[str]:
    """Return the names of the files of a folder of a model that go with its weights."""
    names = tree.files(folder)
    code = _code(tree, folder, names)
    return [
        name
        for name in names
        if name in code
        or (kind(name) in ("tokenizer", "text") and _is_small(tree, _join(folder, name)))
    ]


def extra(tree: Tree, folder: str) -> list[str]:
    """Return the names of small files that may be weights of the model and that are not known."""
    if not folder and is_pipeline(tree):
        return []  # the same once more, in one file
    names = [name for name in tree.files(folder) if kind(name) == "extra"]
    return [name for name in names if _is_small(tree, _join(folder, name))]


def _is_small(tree: Tree, path: str) -> bool:
    size = tree.size(path)
    if size is None:  # of a hub that does not tell
        return kind(path.rpartition("/")[2]) != "extra"
    return size <= LARGEST


def tokenizer_code(tree: Tree) -> list[str]:
    """Return the paths of the Python files that the tokenizers of a model consist of."""
    return [
        _join(folder, name)
        for folder in ("", *folders(tree))
        for name in _code(tree, folder, tree.files(folder), of="tokenizer")
    ]


def _code(tree: Tree, folder: str, names: list[str], of: str = "") -> list[str]:
    """Return the Python files of a folder that its configs name. of: ``tokenizer``: its alone."""
    if folder.rpartition("/")[2] == GENERATE and not of:
        return [name for name in names if name.endswith(".py")]

    def read(name: str) -> bytes | None:
        try:
            return tree.read(_join(folder, name))
        except OSError:
            return None

    def parsed(name: str) -> Any:
        try:
            return json.loads(read(name) or b"null")
        except (ValueError, RecursionError):
            return None

    if not any(name.endswith(".py") for name in names):
        return []
    known = (of,) if of else ("tokenizer", "code")
    seeds = [name[:-3] for name in names if name.endswith(".py") and kind(name) in known]
    for name in names:
        if remote_code.is_config(name) and (not of or name == "tokenizer_config.json"):
            seeds += remote_code.named(parsed(name))
    if of:
        return remote_code.files(seeds, names, read)
    seeds += remote_code.of_modules(parsed(MODULES) if MODULES in names else None)
    for owner, component in ((folder, "_class_name"), ("", folder)):
        reference = _index(tree, owner).get(component)
        if isinstance(reference, list) and reference and isinstance(reference[0], str):
            seeds.append(reference[0])
    return remote_code.files(seeds, names, read)


# --- the lists ---


def _named(tree: Tree, folder: str) -> list[str]:
    """Return the names of subfolders that a folder of a model gives, there or not."""
    names = tree.files(folder)
    found = [*_module_names(tree, folder, names), *_routes(tree, folder, names)]
    if COMPONENTS in names:
        found += _components(tree, folder)
    return [*found, TEMPLATES, GENERATE]


def _module_names(tree: Tree, folder: str, names: list[str]) -> Iterator[str]:
    data = _list(tree, _join(folder, MODULES)) if MODULES in names else []
    for entry in data if isinstance(data, list) else ():
        path = entry.get("path") if isinstance(entry, dict) else None
        if isinstance(path, str) and path not in ("", "."):
            yield _checked(tree, _join(folder, MODULES), path)


def _routes(tree: Tree, folder: str, names: list[str]) -> Iterator[str]:
    data = _list(tree, _join(folder, ROUTES)) if ROUTES in names else {}
    types = data.get("types") if isinstance(data, dict) else None
    for name in types if isinstance(types, dict) else ():
        yield _checked(tree, _join(folder, ROUTES), name)


def _components(tree: Tree, folder: str) -> list[str]:
    """Return the components of a pipeline; CheckpointError if one is not there."""
    found = []
    for name, value in _index(tree, folder).items():
        both = isinstance(value, list) and len(value) == 2
        if name.startswith("_") or not both or not all(isinstance(v, str) for v in value):
            continue
        name = _checked(tree, _join(folder, COMPONENTS), name)
        if not tree.is_folder(_join(folder, name)):
            raise CheckpointError(
                f"{tree.where}: model_index.json names the part {name!r}, and there is no folder of"
                f" that name (a link does not count). Copy it there, or write null for {name!r} if"
                " the pipeline does without."
            )
        found.append(name)
    return found


def _index(tree: Tree, folder: str) -> dict[str, Any]:
    if folder.count("/") or COMPONENTS not in tree.files(folder):
        return {}
    data = _list(tree, _join(folder, COMPONENTS))
    return data if isinstance(data, dict) else {}


def _list(tree: Tree, path: str) -> Any:
    """Return what a list of folders says; CheckpointError if that cannot be told."""
    where = os.path.join(tree.where, path)
    try:
        if (tree.size(path) or 0) > _LARGEST_LIST:
            raise CheckpointError(
                f"{where}: has more than {_LARGEST_LIST} bytes, so it is not a list."
            )
        return json.loads(tree.read(path))
    except OSError as error:
        what = error.strerror or error
    except (ValueError, RecursionError) as error:
        what = str(error) or type(error).__name__
    raise CheckpointError(
        f"{where}: cannot be read ({what}), so the folders that it names would be lost. Fix it, or"
        " remove it if the model has none."
    )


def _checked(tree: Tree, path: str, name: str) -> str:
    if not is_plain(name):
        raise CheckpointError(
            f"{os.path.join(tree.where, path)}: names the folder {shown(name)}. A part of a model"
            " is called by the plain name of a folder beside it."
        )
    return name


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
