"""Which file of an output a tensor goes to: the weights of a model may lie in several folders.

A model of several parts, as a diffusers pipeline or a sentence-transformers model with a Dense
layer, is one checkpoint whose tensors are called FOLDER/NAME. Each part has files of its own, which
are called as the base's are, so that the library that wrote the base opens the result:

    model.safetensors, pytorch_model.bin                 model.safetensors
    diffusion_pytorch_model.safetensors, or .bin         diffusion_pytorch_model.safetensors
    open_clip_pytorch_model.bin                          open_clip_model.safetensors
    model.fp16.safetensors, pytorch_model.fp16.bin       model.fp16.safetensors
    another X.safetensors of a folder                    X.safetensors

A variant (fp16) stays in the names of files and index, which libraries open if they are told, as
they are for the base: ``from_pretrained(..., variant="fp16")``. It goes where it names a dtype and
weights of another one are written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

STEM = "model"
#: Names without suffix that libraries ask for, and what each is called as safetensors.
KNOWN = {
    "model": STEM,
    "pytorch_model": STEM,
    "diffusion_pytorch_model": "diffusion_pytorch_model",
    "open_clip_model": "open_clip_model",
    "open_clip_pytorch_model": "open_clip_model",
    "adapter_model": "adapter_model",
}
#: Those of them that are whole models.
WHOLE = KNOWN.keys() - {"adapter_model"}
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.|$)")
#: Of an index, also as older diffusers call it: ``model.safetensors.fp16.index.json``.
_INDEX = re.compile(r".+(?P<suffix>\.safetensors|\.bin)(\.\w+)?\.index(\.\w+)?\.json")
_OF_VARIANT = re.compile(r"\.index\.(\w+)\.json|\.(\w+)\.index\.json")
_WORD = re.compile(r"[A-Za-z]\w*")
#: Variants that are called by a dtype, and that dtype.
DTYPES = {
    "fp16": "F16", "float16": "F16", "half": "F16",
    "bf16": "BF16", "bfloat16": "BF16",
    "fp32": "F32", "float32": "F32",
    "fp8": "F8", "float8": "F8",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a part of a model lies. folder: in that of the model, "" for it itself. stem: its file
    without variant and ``.safetensors``. variant: of its file's name; or empty."""

    folder: str = ""
    stem: str = STEM
    variant: str = ""

    def file(self, number: int = 0, of: int = 1) -> str:
        """Return the name of shard ``number`` (from 0) of ``of``, as libraries name it."""
        shard = "" if of == 1 else f"-{number + 1:05d}-of-{of:05d}"
        return f"{self.stem}{self._dotted}{shard}.safetensors"

    @property
    def index(self) -> str:
        return f"{self.stem}.safetensors.index{self._dotted}.json"

    @property
    def _dotted(self) -> str:
        return f".{self.variant}" if self.variant else ""


@dataclass(frozen=True)
class Layout:
    """The places of a model, each of a folder of its own.

    apart: whether each is a model of its own, as the components of a pipeline are.
    """

    places: tuple[Place, ...] = (Place(),)
    apart: bool = False

    @property
    def several(self) -> bool:
        """Whether tensors are called by the folders that they lie in."""
        return any(place.folder for place in self.places)

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(place.folder for place in self.places if place.folder)

    def split(self, name: str) -> tuple[Place, str]:
        """Return the place of a tensor, and what it is called in the file there."""
        if "/" in name:
            for place in self.places:
                if place.folder and name.startswith(place.folder + "/"):
                    return place, name[len(place.folder) + 1 :]
        return self._own, name

    def component(self, name: str) -> str:
        """Return the folder of the model of its own that a tensor is of; "" if all are of one."""
        return self.split(name)[0].folder if self.apart else ""

    @property
    def _own(self) -> Place:
        return next((place for place in self.places if not place.folder), Place())


def place(folder: str, files: Sequence[str], in_folder: bool = True) -> Place:
    """Return what the weights of a part of an output are called whose base has these files.

    in_folder: whether the base is a folder; the name of a file alone says nothing that a library
    would look for in a folder, unless it is one of `KNOWN`.
    """
    names = {_without_suffix(file) for file in files}
    name = names.pop() if len(names) == 1 else STEM
    known, dot, variant = name.partition(".")
    if known in KNOWN:
        kept = in_folder and dot and _WORD.fullmatch(variant)
        return Place(folder, KNOWN[known], variant if kept else "")
    ours = in_folder and files and files[0].endswith(".safetensors")
    return Place(folder, name if ours else STEM)


def variant(name: str) -> str | None:
    """Return the variant of a file of weights, or of their index, that libraries know by its name:
    empty if it has none, None for another file."""
    found, suffix = "", indexed(name)
    if suffix:
        match = _OF_VARIANT.search(name)
        found = next((one for one in match.groups() if one), "") if match else ""
        found = "" if f".{found}" == suffix else found
        name = name[: name.rindex(suffix) + len(suffix)]
    known, dot, rest = _without_suffix(name).partition(".")
    if not name.endswith((".safetensors", ".bin")) or known not in WHOLE:
        return None
    return found or (rest if _WORD.fullmatch(rest) or not dot else None)


def indexed(name: str) -> str:
    """Return the suffix of the files that an index of this name lists; empty if it is none."""
    match = _INDEX.fullmatch(name)
    return match["suffix"] if match else ""


def _without_suffix(name: str) -> str:
    name = _SHARD.sub("", name)
    for suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"):
        name = name.removesuffix(suffix)
    return name


def is_ours(name: str) -> bool:
    """Whether a file of a folder is weights as we write them, or their index."""
    index = indexed(name) == ".safetensors"
    return name[:1] != "." and (index or name.endswith(".safetensors"))
