"""What `breadcrumbs demo` prints: the tasks, two tables, and what they say in words."""

from __future__ import annotations

from typing import Any

from breadcrumbs.cli.console import ruled, terminal
from breadcrumbs.machine import human

#: To try next; they run as they stand, in any folder that has no `family`.
NEXT = (
    "breadcrumbs demo --models family",
    "breadcrumbs compare family/base family/digits family/turns",
    "breadcrumbs merge family/base family/digits family/turns -m tsv_m -o merged",
)


def show(result: Any) -> None:
    """Print it all; every number comes from the result."""
    console = terminal()
    console.print("One base, a small vision model, and six fine-tunings of it, one a task:\n")
    wide = max(map(len, result.tasks))
    for task, asked in result.tasks.items():
        console.print(f"  {task:{wide}}  {asked}")
    console.print(f"\nOn {result.images} test images, with each method as it comes:")
    console.print(_accuracies(result))
    console.print(_found(result) + "\n")
    console.print(
        "alpha says how far a merge steps from the base. Mean accuracy, %, on"
        f" {result.swept_images} validation images:"
    )
    console.print(_curves(result))
    console.print(_steps(result) + "\n")
    console.print(f"That took {result.seconds:.0f} s, without training or search. Try next:\n")
    for line in NEXT:
        console.print(f"  {line}")


def _accuracies(result: Any) -> Any:
    columns = [*result.tasks, "mean"]
    table = ruled("accuracy, %", *columns, right=tuple(range(1, len(columns) + 1)))
    for row in result.rows:
        cells = [*row.accuracy.values(), row.mean]
        table.add_row(row.name, *(f"{100 * cell:.1f}" for cell in cells))
    return table


def _curves(result: Any) -> Any:
    alphas = list(next(iter(result.curves.values())))
    table = ruled("alpha", *(f"{a:g}" for a in alphas), right=tuple(range(1, len(alphas) + 1)))
    for method, means in result.curves.items():
        table.add_row(method, *(f"{100 * mean:.1f}" for mean in means.values()))
    return table


def _found(result: Any) -> str:
    """Say what the first table shows, and no more."""
    base, tuned, *merged, packed = result.rows
    best = max(merged, key=lambda row: row.mean)
    return (
        f"Six models ({human(tuned.size)}) are {_points(tuned.mean - base.mean)} better than the"
        f" base. Merged into one ({human(best.size)}), {best.name} keeps"
        f" {_points(best.mean - base.mean)} of that; one standard error is"
        f" {100 * result.error:.1f}. `breadcrumbs compress` puts all six into one file of"
        f" {human(packed.size)} beside the base ({human(result.base_size)}): one task at a time"
        f" comes out of it, with {packed.normalised:.1%} of the accuracy of its fine-tuning."
    )


def _steps(result: Any) -> str:
    """Say how the curves end, and what was taken without them."""
    end = max(max(means) for means in result.curves.values())
    falls, taken = [], []
    for method, means in result.curves.items():
        falls.append(f"{method} is {_points(max(means.values()) - means[end])} below its best")
        taken += [f"{row.alpha:.2g} of {method}" for row in result.rows if row.name == method]
    return (
        f"At alpha {end:g}, {' and '.join(falls)}. The first table has alpha"
        f" {' and '.join(taken)}, as published or chosen automatically."
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
