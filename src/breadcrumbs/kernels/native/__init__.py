"""The operations in C, compiled once for all levels of a processor. The same bits as NumPy's."""

from __future__ import annotations

from breadcrumbs.kernels.native.ranks import count_runs, cut_units, select, tally
from breadcrumbs.kernels.native.raw import extent, round_to
from breadcrumbs.kernels.native.sums import begin_band, merge_band
from breadcrumbs.kernels.numpy import *  # noqa: F403
from breadcrumbs.kernels.native.ranks import count_runs, cut_units, select, tally  # noqa
from breadcrumbs.kernels.native.raw import extent, round_to  # noqa
from breadcrumbs.kernels.native.sums import begin_band, merge_band  # noqa
