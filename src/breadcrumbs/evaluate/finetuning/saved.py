"""The state of a training on disk: whole, or not there.

The file is the BLAKE3 digest of what follows, then a Torch archive. It takes its name when it is
whole; one whose digest is wrong is not used.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from blake3 import blake3

from breadcrumbs.checkpoint import durable
from breadcrumbs.errors import OutputError

_DIGEST = 32
#: Of the time, saving takes a part in so many at most.
_SHARE = 20


class Saved:
    """A state that is written from time to time.

    every: seconds between two, or more where writing takes long.
    """

    def __init__(self, path: Path, every: float):
        self.path, self.every = path, every
        self._next = time.monotonic() + every

    def is_due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() >= self._next

    def write(self, state: Any) -> None:
        """Replace the state; OutputError, and the old one stays."""
        import torch

        began = time.monotonic()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getbuffer()
        part = self.path.with_name(self.path.name + ".part")
        try:
            with open(part, "wb") as file:
                file.write(blake3(data).digest())
                file.write(data)
                file.flush()
                if durable.is_on():
                    durable.file(file.fileno())
            durable.replace(part, self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(
                f"{self.path}: cannot be written: {error.strerror}. Make room, and run this again"
                " to go on from the last state that was saved."
            ) from None
        now = time.monotonic()
        self._next = now + max(self.every, _SHARE * (now - began) if self.every else 0)

    def read(self) -> Any:
        """Return the state, or None where there is none that is whole."""
        import torch

        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        if blake3(memoryview(data)[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        return torch.load(io.BytesIO(data[_DIGEST:]), weights_only=True, map_location="cpu")

    def remove(self) -> None:
        """Forget the state, if there is one."""
        self.path.unlink(missing_ok=True)
