"""The algebra of Torch, on a GPU or, to see how far it is off NumPy's, on the processor.

All of it is float64. TensorFloat-32, which Torch may be told to multiply float32 with, is of no
consequence. One operation is done at a time on a device, whatever the number of threads, so that
its memory holds the matrices of one.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.errors import MissingExtraError, RecipeError, install
from breadcrumbs.methods.algebra.protocol import Algebra, Matrix

if TYPE_CHECKING:
    import torch


@functools.cache
def on(device: str) -> Algebra:
    """Return the algebra on a device as Torch calls it; an error, in a line, where it is not."""
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            f"device {device}: needs Torch. {install('torch')} Or leave `device` out: the processor"
            " does all that a GPU does."
        ) from None
    if device == "cpu":
        return _Torch(device, f"Torch {torch.__version__} on the processor, in float64")
    leave = "Or leave `device` out: the processor does all that a GPU does."
    if not torch.cuda.is_available():
        built = f"was built with CUDA {torch.version.cuda}, and finds no GPU"
        if torch.version.hip is None and torch.version.cuda is None:
            built = "was built without CUDA"
        raise RecipeError(
            f"device {device}: Torch {torch.__version__} {built}. Look at `nvidia-smi`, and install"
            f" the Torch for it from pytorch.org. {leave}"
        )
    number = int(device.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        raise RecipeError(
            f"device {device}: there are {torch.cuda.device_count()}, counted from 0. {leave}"
        )
    called = torch.cuda.get_device_name(number)
    return _Torch(device, f"Torch {torch.__version__} on {called}, in float64")


class _Held:
    """A matrix that is on the device."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


class _Torch:
    def __init__(self, device: str, name: str):
        import torch

        self.name = name
        self._torch, self._device = torch, device
        self._lock = threading.Lock()

    def product(self, *factors: Matrix, out: np.ndarray | None = None) -> np.ndarray:
        with self._one():
            there = [self._put(factor) for factor in factors]
            several = len(there) > 2
            found = self._torch.linalg.multi_dot(there) if several else there[0] @ there[1]
            del there
            if out is None:
                return self._taken(found)
            out[...] = self._taken(found)
            return out

    def eigh(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._parts(self._torch.linalg.eigh, matrix)

    def svd(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._parts(functools.partial(self._torch.linalg.svd, full_matrices=False), matrix)

    def qr(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._parts(self._torch.linalg.qr, matrix)

    def solve(self, matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        with self._one():
            return self._taken(self._torch.linalg.solve(self._put(matrix), self._put(right)))

    def hold(self, matrix: np.ndarray) -> Matrix:
        with self._one():
            return _Held(self._put(matrix))

    def _parts(self, function: Any, matrix: np.ndarray) -> Any:
        with self._one():
            return tuple(self._taken(part) for part in function(self._put(matrix)))

    def _put(self, matrix: Matrix) -> torch.Tensor:
        """Return a matrix on the device; on the processor it is the same memory, if it can be."""
        if isinstance(matrix, _Held):
            return matrix.tensor
        array = np.asarray(matrix, np.float64)
        if not array.flags.writeable or any(step < 0 for step in array.strides):
            array = array.copy()
        return self._torch.from_numpy(array).to(self._device)

    def _taken(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.cpu().numpy()

    @contextlib.contextmanager
    def _one(self) -> Iterator[None]:
        """Do one operation at a time; say in our words what it cannot do."""
        torch = self._torch
        with self._lock, torch.no_grad():
            try:
                yield
            except torch.linalg.LinAlgError as error:
                raise np.linalg.LinAlgError(str(error)) from None
            except torch.OutOfMemoryError as error:
                raise RecipeError(
                    f"device {self._device}: its memory is too small for a matrix of this model:"
                    f" {' '.join(str(error).split())[:200]} Leave `device` out."
                ) from None
