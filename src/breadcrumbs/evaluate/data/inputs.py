"""What a row holds: a text, a pair of texts, or a picture that is decoded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from blake3 import blake3

from breadcrumbs.errors import MissingExtraError, SuiteError, install

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Picture:
    """A picture not yet decoded. where: for messages.

    stored: its file's bytes, or its pixels: (h, w) or (h, w, 3) uint8, or a PIL image.
    """

    where: str
    stored: Callable[[], Any]

    def open(self) -> Image:
        """Return the picture as PIL, RGB; SuiteError if it is none."""
        import io

        images = optional("PIL.Image", "pictures are read")
        stored = self.stored()
        try:
            if isinstance(stored, bytes):
                with images.open(io.BytesIO(stored)) as image:
                    return image.convert("RGB")
            if isinstance(stored, np.ndarray):
                stored = images.fromarray(stored)
            return stored.convert("RGB")
        except Exception as error:  # Pillow's decoders raise all kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SuiteError(f"{self.where}: this picture cannot be read: {reason}") from None

    def key(self) -> bytes:
        """Return BLAKE3 of the file's bytes, or of size and pixels where there is no file."""
        stored = self.stored()
        if isinstance(stored, bytes):
            return blake3(b"file" + stored).digest()
        image = self.open()
        size = np.asarray(image.size, "<u8").tobytes()
        return blake3(b"picture" + size + image.tobytes()).digest()


class Inputs(Sequence[Any]):
    """Inputs of which pictures are decoded when they are asked for."""

    def __init__(self, stored: Sequence[Any]):
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Inputs: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Inputs(self._stored[index])
        found = self._stored[index]
        return found.open() if isinstance(found, Picture) else found

    def keys(self) -> list[bytes]:
        """Return what identifies each, without decoding pictures that have a file."""
        return [key(one) for one in self._stored]

    def picked(self, order: Sequence[int]) -> Inputs:
        """Return some of them in an order."""
        return Inputs([self._stored[row] for row in order])


def key(stored: Any) -> bytes:
    """Return what identifies an input: BLAKE3 of its texts with their lengths, or of a picture."""
    if isinstance(stored, Picture):
        return stored.key()
    hasher = blake3(b"text")
    for text in (stored,) if isinstance(stored, str) else stored:
        raw = text.encode("utf-8", "surrogatepass")
        hasher.update(len(raw).to_bytes(8, "little") + raw)
    return hasher.digest()


def optional(module: str, what: str) -> Any:
    """Return a module of the extra ``evaluate``; MissingExtraError says what it is needed for."""
    try:
        return import_module(module)
    except ImportError:
        package = {"PIL": "Pillow"}.get(module.split(".")[0], module.split(".")[0])
        raise MissingExtraError(
            f"{what} with {package}, which is not installed. {install('evaluate')}"
        ) from None
