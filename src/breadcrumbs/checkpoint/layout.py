"""Which file of an output a tensor goes to: the weights of a model may lie in several folders.

A model of several parts, as a diffusers pipeline or a sentence-transformers model with a Dense
layer, is one checkpoint whose tensors are called FOLDER/NAME. Each part has files of its own, which
are called as the base's are, so that the library that wrote the base opens the result:

    model.safetensors, pytorch_model.bin                 model.safetensors
    diffusion_pytorch_model.safetensors, or .bin         diffusion_pytorch_model.safetensors
    open_clip_pytorch_model.bin                          open_clip_model.safetensors
    model.fp16-00001-of-00002.safetensors                model.safetensors
    another X.safetensors of a folder                    X.safetensors

A variant (fp16) is dropped from the name: libraries open the name without it unless they are told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

STEM = "model"
INDEX = ".safetensors.index.json"
#: Names without suffix that libraries ask for, and what each is called as safetensors.
KNOWN = {
    "model": STEM,
    "pytorch_model": STEM,
    "diffusion_pytorch_model": "diffusion_pytorch_model",
    "open_clip_model": "open_clip_model",
    "open_clip_pytorch_model": "open_clip_model",
    "adapter_model": "adapter_model",
}
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.|$)")


@dataclass(frozen=True)
class Place:
    """Where a part of a model lies. folder: in that of the model, "" for it itself. stem: its file
    without ``.safetensors``."""

    folder: str = ""
    stem: str = STEM

    def file(self, number: int = 0, of: int = 1) -> str:
        """Return the name of shard ``number`` (from 0) of ``of``, as libraries name it."""
        shard = "" if of == 1 else f"-{number + 1:05d}-of-{of:05d}"
        return f"{self.stem}{shard}.safetensors"

    @property
    def index(self) -> str:
        return self.stem + INDEX


@dataclass(frozen=True)
class Layout:
    """The places of a model, each of a folder of its own."""

    places: tuple[Place, ...] = (Place(),)

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

    @property
    def _own(self) -> Place:
        return next((place for place in self.places if not place.folder), Place())


def stem(files: Sequence[str], in_folder: bool = True) -> str:
    """Return what the weights of an output are called whose base has these files.

    in_folder: whether the base is a folder; the name of a file alone says nothing that a library
    would look for in a folder, unless it is one of `KNOWN`.
    """
    names = {_without_suffix(file) for file in files}
    name = names.pop() if len(names) == 1 else STEM
    for known, mine in KNOWN.items():
        if name == known or name.startswith(known + "."):  # a variant
            return mine
    return name if in_folder and files and files[0].endswith(".safetensors") else STEM


def _without_suffix(name: str) -> str:
    name = _SHARD.sub("", name)
    for suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"):
        name = name.removesuffix(suffix)
    return name


def is_ours(name: str) -> bool:
    """Whether a file of a folder is weights as we write them, or their index."""
    return name[:1] != "." and name.endswith((".safetensors", INDEX))
