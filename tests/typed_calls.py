"""Calls as type checkers see them, right ones and wrong ones; pyright looks at this file in CI.

Each wrong call has a comment that silences pyright; one that silences nothing is an error.
`assert_type` says what comes back. Nothing here is run.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import assert_type

import numpy as np
import pandas
import torch

import breadcrumbs
from breadcrumbs.checkpoint import Weights
from breadcrumbs.merging.comparison import Comparison
from breadcrumbs.merging.report import Report
from breadcrumbs.merging.result import Merged


class Net(torch.nn.Module):
    """A module of the user's."""


def right(net: Net, state: dict[str, torch.Tensor], arrays: dict[str, np.ndarray]) -> None:
    """What comes back is what was given."""
    assert_type(breadcrumbs.merge(net, [net, "ft1", state]), Net)
    assert_type(breadcrumbs.merge(state, [state], method="ties"), Merged[torch.Tensor])
    assert_type(breadcrumbs.merge(arrays, (arrays,)), Merged[np.ndarray])
    assert_type(breadcrumbs.merge("base", [Path("ft1")]), Merged[np.ndarray])
    assert_type(breadcrumbs.merge("base", ["ft1"], output="merged"), Report)
    assert_type(breadcrumbs.merge(net, [net], output=Path("merged"), force=True), Report)
    assert_type(breadcrumbs.merge("base", ["ft1"], as_="torch"), Merged[torch.Tensor])
    assert_type(breadcrumbs.merge(net, [net], as_="numpy"), Merged[np.ndarray])
    assert_type(breadcrumbs.load("base"), Weights[np.ndarray])
    weights = breadcrumbs.load("base", as_="torch")
    assert_type(weights["name", 1:3], torch.Tensor)
    assert_type(breadcrumbs.merge(weights, [weights]), Merged[torch.Tensor])
    breadcrumbs.merge("base", (path for path in ["ft1"]), beta=Decimal("0.85"), gamma=np.float32(1))
    breadcrumbs.merge("base", ["ft1"], method="none+elect", alpha="auto", progress=False)
    breadcrumbs.merge("base", ["ft1"], method="breadcrumbs", density=0.1, granularity="row")
    assert_type(breadcrumbs.compare(net, [net]), Comparison)
    assert_type(breadcrumbs.compare("base", ["ft1"]).to_frame(), pandas.DataFrame)
    tau = breadcrumbs.TaskVector(net, state)
    assert_type(-tau / 2 - tau, breadcrumbs.TaskVector)
    assert_type(tau.cosine(tau) + tau.dot(tau) + tau.norm(), float)


def wrong(net: Net, state: dict[str, torch.Tensor]) -> None:
    """What is refused when it is run, pyright refuses before."""
    breadcrumbs.merge(net, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.merge(net, net)  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.merge(net, 3)  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.merge("base", [None])  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.merge("base", "ft1", "ft2")  # pyright: ignore[reportCallIssue]
    breadcrumbs.merge("base", ["ft1"], methd="ties")  # pyright: ignore[reportCallIssue]
    breadcrumbs.merge("base", ["ft1"], densty=0.1)  # pyright: ignore[reportCallIssue]
    breadcrumbs.merge("base", ["ft1"], alpha=[0.5])  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.merge("base", ["ft1"], granularity="rows")  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.merge("base", ["ft1"], as_="jax")  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.merge("base", ["ft1"], threads="2")  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.load("base", as_="jax")  # pyright: ignore[reportCallIssue, reportArgumentType]
    breadcrumbs.mrge("base", ["ft1"])  # pyright: ignore[reportAttributeAccessIssue]
    breadcrumbs.TaskVector(net, state) + 3  # pyright: ignore
