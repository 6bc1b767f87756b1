"""An output in memory: merged tensors as arrays."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES, array_shape, items
from breadcrumbs.engine.outputs import SegmentReport, one_by_one
from breadcrumbs.plan import Plan
from breadcrumbs.plan.units import Segment


class ArraySink:
    """Collects the merged tensors. arrays: by name, in the order of the plan."""

    def __init__(self, plan: Plan):
        self.arrays = {
            tensor.output: np.empty(
                array_shape(tensor.dtype, tensor.base.shape), DTYPES[tensor.dtype]
            )
            for tensor in plan.tensors
        }
        self._dtypes = [tensor.dtype for tensor in plan.tensors]
        self._flat = [array.reshape(-1) for array in self.arrays.values()]
        self._kept: list[bytes] = []
        self._lock = threading.Lock()

    def is_done(self, segment: Segment) -> SegmentReport | None:
        return None

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        start = items(self._dtypes[index], start)
        self._flat[index][start : start + values.size] = values.view(self._flat[index].dtype)

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        pass

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        one_by_one(self, segments, values, reports)

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        return self._flat[index][start : start + n].copy()

    def keep(self, data: bytes) -> int:
        with self._lock:
            self._kept.append(data)
            return len(self._kept) - 1

    def kept(self, at: int, size: int) -> bytes:
        return self._kept[at]
