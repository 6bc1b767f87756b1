"""A sink in memory: merged tensors as arrays."""

from __future__ import annotations

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine import SegmentReport
from breadcrumbs.plan import Plan
from breadcrumbs.work import Segment


class ArraySink:
    """Collects the merged tensors. arrays: by name, in the order of the plan."""

    def __init__(self, plan: Plan):
        self.arrays = {
            tensor.name: np.empty(tensor.base.shape, DTYPES[tensor.dtype])
            for tensor in plan.tensors
        }
        self._flat = [array.reshape(-1) for array in self.arrays.values()]

    def is_done(self, segment: Segment) -> SegmentReport | None:
        return None

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        self._flat[index][start : start + values.size] = values.view(self._flat[index].dtype)

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        pass
