"""What compressing prints: sizes, and whose weights there are, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from breadcrumbs import machine
from breadcrumbs.archives.report import Report
from breadcrumbs.archives.votes import KINDS, by_layer, shares
from breadcrumbs.errors import printable


def show(report: Report) -> None:
    """Print a report."""
    from breadcrumbs.cli.console import note, terminal, warnings

    out = terminal()
    tasks = "1 task" if len(report.tasks) == 1 else f"{len(report.tasks)} tasks"
    out.print(
        f"{tasks} in {printable(report.path)}: {machine.human(report.bytes)}; with the base"
        f" {machine.human(report.bytes + report.base_bytes)} instead of the"
        f" {machine.human(report.model_bytes)} of the models ({report.seconds:.1f} s)"
    )
    out.print(
        f"{report.trained:,} weights in tensors that some task changed, {report.frozen:,} in others"
    )
    bits = report.bits
    if "masks" in bits:
        out.print(
            f"by the paper's accounting: {bits['models'] / 1e9:.4g} gigabits of models,"
            f" {bits['masks'] / 1e9:.4g} of base, vector and masks"
        )
    if report.votes:
        out.print(table(report.votes))
    note(report.notes)
    warnings(report.warnings)


def table(votes: Mapping[str, Sequence[int]]) -> Any:
    """Return a table of the shares of each kind of changed weights, in all and by layer."""
    from breadcrumbs.cli.console import ruled

    made = ruled("changed weights", "", *KINDS, right=(1, 2, 3, 4, 5))
    for layer, mine in by_layer(votes).items():
        cells = (f"{share:.2%}" for share in shares(mine).values())
        made.add_row(layer, f"{sum(mine):,}", *cells)
    return made
