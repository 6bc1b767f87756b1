"""What a search prints: the best trials, those that none beats on all tasks, test scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from breadcrumbs.errors import printable
from breadcrumbs.tune.search.space import Point
from breadcrumbs.tune.search.trials import Found, Trial

#: Trials of the table of the best.
SHOWN = 10


def named(point: Point) -> str:
    """Return a point in words: ``ties density 0.2, alpha 0.9``."""
    values = ", ".join(f"{key} {value}" for key, value in point.items() if key != "method")
    return f"{point['method']} {values}".strip()


def line(trial: Trial) -> str:
    """Return a trial on one line, as it is told while a search runs."""
    about = "about " if trial.part else ""
    return f"trial {trial.number}: {about}{trial.score:.4f}  {named(trial.point)}"


def show(
    found: Found, output: str, *, pareto: bool, least: float | None = None, tested: Any = None
) -> None:
    """Print the best trials, and what else was asked for.

    pareto: the trials that no other one is at least as good as on every task. least: what the mean
    accuracy of the best is at least (`search.bound`), if that is known. tested: `Tested`.
    """
    from breadcrumbs.cli.console import terminal

    out = terminal()
    ranked = sorted(found.whole, key=lambda trial: (-trial.score, trial.number))
    out.print(_trials(ranked[:SHOWN], found.objective))
    if pareto:
        out.print("Pareto front (no other trial is better on all tasks):")
        out.print(_trials(found.pareto, found.objective, tasks=True))
    left = (
        f"; {found.left_out} points of the grid were impossible and skipped"
        if found.left_out
        else ""
    )
    out.print(
        f"the best of {len(found.trials)} trials on validation rows: {named(found.best.point)};"
        f" written to {printable(output)}{left}"
    )
    if len(found.whole) < len(found.trials):
        lost = len(found.trials) - len(found.whole)
        out.print(f"{lost} trials lost on a few of the rows and were not scored on all")
    if least is not None:
        out.print(
            f"mean accuracy on rows like these: at least {least:.1%}, with 95 % confidence"
            f" whichever of the {len(found.trials)} trials was chosen (Clopper-Pearson)"
        )
    if tested is not None:
        _tested(out, tested)


def _trials(trials: Sequence[Trial], objective: str, tasks: bool = False) -> Any:
    from breadcrumbs.cli.console import ruled

    names = list(trials[0].values) if tasks else []
    right = tuple(range(len(names) + 2))
    columns = ("trial", printable(objective), *map(printable, names), "method and parameters")
    made = ruled(*columns, right=right)
    for trial in trials:
        values = (f"{trial.values[name]:.1%}" for name in names)
        point = printable(named(trial.point))
        made.add_row(str(trial.number), f"{trial.score:.4f}", *values, point)
    return made


def _tested(out: Any, found: Any) -> None:
    """Print the test scores of the best point, and which others were seen before."""
    from breadcrumbs.cli.console import ruled

    made = ruled("task", "test", "error", "normalised", "error", right=(1, 2, 3, 4))
    for row in found.rows:
        ratio = row.normalised_estimate
        more = (f"{ratio.value:.1%}", f"{ratio.stderr:.1%}") if ratio else ("", "")
        made.add_row(printable(row.task), f"{row.value:.1%}", f"{row.stderr:.1%}", *more)
    made.add_section()
    more = [f"{x:.1%}" for x in found.normalised] if found.normalised else ["", ""]
    made.add_row("mean", f"{found.raw.value:.1%}", f"{found.raw.stderr:.1%}", *more)
    out.print(made)
    if found.others:
        known = "; ".join(f"{printable(label)}: {value:.1%}" for label, value in found.others)
        out.print(
            f"note: test scores of {len(found.others)} other settings of these models had been"
            f" computed before, so the test rows are not new: {known}"
        )
