"""What people see: tables, progress and reports on a terminal. Everything goes to stderr but what
was asked for, which goes to stdout."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from breadcrumbs import sizes
from breadcrumbs.errors import printable, sentence
from breadcrumbs.kernels import will_compile
from breadcrumbs.methods import Method
from breadcrumbs.plan import Plan
from breadcrumbs.report import Report, said_of_parts


def terminal(stderr: bool = False) -> Any:
    """Return a console of rich that prints what it is given as it is."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def ruled(*columns: str, right: tuple[int, ...] = ()) -> Any:
    """Return a table of rich with a line below its head. right: columns of numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold")
    return table


@contextmanager
def progress(plan: Plan, *, quiet: bool, doing: str = "merging") -> Iterator[Callable[[int], None]]:
    """Show a bar with bytes per second and time left on a terminal, and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda nbytes: None
        return
    if will_compile(plan.entries):
        terminal(stderr=True).print("compiling kernels, once: 10 to 20 seconds")
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bar = Progress(
        TextColumn(doing),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=terminal(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=plan.bytes_measured + plan.bytes_read)
        yield lambda nbytes: bar.advance(task, nbytes)


@contextmanager
def status(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is being done, in one line that is replaced."""
    if quiet or not sys.stderr.isatty():
        yield lambda what: None
        return
    console = terminal(stderr=True)
    with console.status("") as line:
        yield lambda what: line.update(what)


@contextmanager
def counted(*, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar of things done on a terminal, with the time left, and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total, what: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=terminal(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=what
        )


def plan(plan: Plan, threads: int, *, as_json: bool) -> None:
    """Print what a merge would do."""
    copied = Counter(tensor.copied for tensor in plan.tensors if tensor.copied)
    quantised = {source.label: found for source in plan.sources if (found := source.quantised)}
    facts: dict[str, Any] = {
        "method": plan.recipe.method,
        "parameters": {
            key: _text(value) for key, value in plan.method.complete(plan.recipe.parameters).items()
        },
        "models": len(plan.models),
        "tensors": len(plan.tensors),
        "merged": len(plan.merged),
        "quantised": quantised,
        "copied": dict(copied),
        "bytes_read": plan.bytes_read,
        "bytes_measured": plan.bytes_measured,
        "bytes_written": plan.bytes_written,
        "memory": sizes.memory(plan, threads),
        "threads": threads,
        "excluded": [
            t.name for t in plan.tensors if t.copied.startswith(("excluded", "not among"))
        ],
        "parts": _parts(plan),
        "kinds": dict(plan.kinds),
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = ruled("plan", "")
    settings = ", ".join(f"{key} {value}" for key, value in facts["parameters"].items())
    table.add_row("method", f"{facts['method']} ({settings})")
    table.add_row("models", f"{len(plan.models)} and the base {printable(plan.base.label)}")
    table.add_row("tensors", f"{facts['tensors']}, of which {facts['merged']} are merged")
    for part, number in facts["parts"].items():
        table.add_row("", f"{number} in {printable(part)}")
    for kind, number in plan.kinds.items():
        table.add_row("", f"{number} {kind if number == 1 else plural(kind)}")
    for source, how in quantised.items():
        table.add_row("quantised", f"{printable(source)}: {how}")
    for reason, number in copied.items():
        table.add_row("not merged", f"{number} ({reason})")
    for name in facts["excluded"]:
        table.add_row("", printable(name))
    table.add_row("to read", sizes.human(plan.bytes_read))
    if plan.bytes_measured:
        table.add_row("", f"{sizes.human(plan.bytes_measured)} before that, to find alpha")
    table.add_row("to write", sizes.human(plan.bytes_written))
    table.add_row("memory", f"about {sizes.human(facts['memory'])} with {threads} threads")
    if will_compile(plan.entries):
        table.add_row("", "150 MB more while kernels are compiled, once, for 10 to 20 seconds")
    terminal().print(table)
    note(plan.notes)
    warnings(plan.warnings)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def report(report: Report, output: str | None, *, verbose: bool) -> None:
    """Print what a merge did."""
    console = terminal(stderr=True)
    table = ruled("model", "weight", "kept", "of weights", right=(1, 2, 3))
    for row in report.models:
        table.add_row(
            printable(row.name), f"{row.weight:g}", f"{row.fraction:.2%}", f"{row.entries:,}"
        )
    if report.models:
        console.print(table)
    copied = ", ".join(f"{number} {reason}" for reason, number in report.copied.items())
    peak = f", {sizes.human(report.peak)} of memory at most" if report.peak else ""
    alpha = f"; {report.found}" if report.found else ""
    console.print(
        f"{report.method}: {report.merged} of {report.tensors} tensors merged"
        f"{f' (copied: {copied})' if copied else ''}; norm of the update {report.norm:.4g}"
        f"{report.length and f', {report.length}'}{alpha}\n"
        f"{sizes.human(report.bytes_read)} read, {sizes.human(report.bytes_written)} written in"
        f" {report.seconds:.1f} s{peak}"
    )
    if report.parts:
        console.print(printable(said_of_parts(report.parts)))
    if report.lost is not None:
        console.print(f"lost to FP8: {report.lost:.0%} of the step")
    if report.shares:
        shares = ", ".join(f"{value:.2%} are {what}" for what, value in report.shares.items())
        console.print(f"of the weights that changed, {shares}")
    if report.emptied:
        shown = report.emptied if verbose else report.emptied[:5]
        more = len(report.emptied) - len(shown)
        more = f" and {more} more (-v lists them)" if more else ""
        console.print(
            f"{len(report.emptied)} tensors lost the whole task vector of some model: "
            f"{', '.join(map(printable, shown))}{more}"
        )
    note(report.notes)
    warnings(report.warnings)
    console.print(f"written: {printable(str(output))}")


def _parts(plan: Plan) -> dict[str, int]:
    """Return the number of tensors in each folder of a model whose weights lie in several."""
    if plan.base.layout is None:
        return {}
    return dict(Counter(plan.base.layout.split(t.name)[0].folder or "." for t in plan.tensors))


def plural(kind: str) -> str:
    """Return what several tensors of a kind are called."""
    return {"tied copy": "tied copies", "other": "integers or others"}.get(kind, kind + "s")


def note(notes: Any) -> None:
    """Print what is right, but should be known."""
    for note in notes:
        print(f"note: {sentence(printable(note))}", file=sys.stderr)


def warnings(warnings: Sequence[str]) -> None:
    """Print warnings, a line each."""
    for warning in warnings:
        print(f"warning: {sentence(printable(warning))}", file=sys.stderr)


def methods(methods: list[Method]) -> None:
    """Print one line for each method."""
    table = ruled("method", "what it does", "models", "passes", right=(3,))
    table.columns[0].no_wrap = True
    for method in methods:
        needs = method.statistics
        summary = f"{method.summary} (needs: {needs.kind} statistics)" if needs else method.summary
        table.add_row(method.name, summary, method.number, str(method.passes))
    console = terminal()
    console.print(table)
    ordered = ", ".join(method.name for method in methods if method.order == "matters")
    console.print(
        "All need a base, and no data but where statistics are named. Passes are how often each"
        f" weight is read. The order of the models matters to {ordered or 'none'} alone."
        " `breadcrumbs methods NAME` explains one: formula, parameters, paper.\n"
        "Pairs of one's own: --transform and --aggregate, or TRANSFORM+AGGREGATE."
    )


def method_mapping(method: Method) -> dict[str, Any]:
    """Return a method as plain data."""
    return {
        "name": method.name,
        "summary": method.summary,
        "formula": method.formula,
        "paper": method.paper,
        "notes": method.notes,
        "needs": method.needs,
        "statistics": method.statistics.kind if method.statistics else None,
        "passes": method.passes,
        "order": method.order,
        "parameters": {
            name: {
                "default": None if p.default is None else str(p.default),
                "range": p.range,
                "help": p.help,
            }
            for name, p in method.parameters.items()
        },
    }


def method(method: Method) -> None:
    """Print all about one method."""
    facts = method_mapping(method)
    console = terminal()
    console.print(f"{method.name}: {method.summary}\n")
    console.print(f"    merged = {method.formula}\n")
    table = ruled("parameter", "default", "range", "meaning")
    for name, p in facts["parameters"].items():
        table.add_row(name, p["default"] or "", p["range"], p["help"])
    if facts["parameters"]:
        console.print(table)
    times = {1: "once", 2: "twice"}.get(facts["passes"], f"at most {facts['passes']} times")
    console.print(
        f"Needs {facts['needs']}. Reads each weight {times}. The order of models {facts['order']}."
    )
    console.print(f"Paper: {method.paper}.")
    if method.notes:
        console.print(method.notes)


def inspection(found: dict[str, Any], *, tensors: bool) -> None:
    """Print what `breadcrumbs.inspection.inspect` found."""
    console = terminal()
    table = ruled("file", "bytes", "BLAKE3", right=(1,))
    for file in found["files"]:
        table.add_row(printable(file["file"]), f"{file['bytes']:,}", file.get("blake3", ""))
    console.print(printable(found["path"]))
    if found["files"]:
        console.print(table)
    dtypes = ", ".join(f"{n:,} {dtype}" for dtype, n in found["entries_by_dtype"].items())
    console.print(
        f"{len(found['tensors'])} tensors, {found['parameters']:,} weights,"
        f" {sizes.human(found['bytes'])} ({dtypes})"
    )
    if found["quantised"]:
        console.print(f"{found['quantised']}, read as F32")
    if found["task"]:
        _task(console, found["task"])
    if found["archive"]:
        _archive(console, found["archive"])
    if tensors:
        more = ("kept",) if found["task"] else ()
        table = ruled("tensor", "dtype", "shape", "bytes", *more, right=(3, 4))
        for tensor in found["tensors"]:
            shape = " x ".join(map(str, tensor["shape"])) or "scalar"
            cells = [printable(tensor["name"]), tensor["dtype"], shape, f"{tensor['bytes']:,}"]
            if more:
                cells.append(f"{tensor['kept'] / max(1, tensor['entries']):.2%}")
            table.add_row(*cells)
        console.print(table)
    if isinstance(found["statistics"], dict):
        said = found["statistics"]
        facts = ", ".join(f"{key} {said[key]}" for key in ("examples", "labels") if key in said)
        console.print(printable(f"statistics of the kind {said.get('kind')}  {facts}".rstrip()))
    merged = found["merged_from"]
    if merged and "choice" in merged:
        choice = merged["choice"]
        for c in choice["candidates"]:
            console.print(
                f"{choice['by']}: {printable(c['name'])} scores {c['score']:.6g},"
                f" {'in' if c['kept'] else 'not in'} the mean"
            )
    if merged:
        recipe = merged.get("recipe", {})
        console.print(
            f"merged by breadcrumbs {merged.get('version')} ({recipe.get('method')}) from"
        )
        for source in merged.get("inputs", []):
            name = printable(source.get("model") or source["statistics"])
            for file in source["files"]:
                console.print(
                    f"  {name}  {printable(file['file'])}  {file['bytes']:,} bytes"
                    f"  {file.get('blake3', file.get('task', ''))[:16]}...",
                )


def _archive(console: Any, archive: dict[str, Any]) -> None:
    """Print what an archive of tasks says of itself."""
    base = archive["base"]
    revision = f" (revision {base['revision']})" if base["revision"] else ""
    tasks = ", ".join(archive["tasks"])
    console.print(
        printable(
            f"archive of {len(archive['tasks'])} tasks by {archive['method']}: {tasks}; of base"
            f" {base['name']}{revision}, hash {base['hash'][:16]}..."
        )
    )


def _task(console: Any, task: dict[str, Any]) -> None:
    """Print what a task file says of itself."""
    base, values = task["base"], task["parameters"]
    cut = ", ".join(f"{key} {value}" for key, value in values.items())
    revision = f" at {base['revision']}" if base["revision"] else ""
    who = ", ".join(filter(None, (task["author"], task["license"], task["made_by"])))
    console.print(
        printable(
            f"task {task['name']} of base {base['name']}{revision}, hash {base['hash'][:16]}..."
        )
    )
    console.print(
        printable(
            f"{task['kept']:,} weights kept, {task['density']:.2%} of the base's, by"
            f" {task['transform']}{f' ({cut})' if cut else ''}; values {task['encoding']}"
            f"{lost(task['error'])}; by {who}"
        )
    )


def lost(error: Mapping[str, float] | None) -> str:
    """Return what the encoding of a task file loses, in words that follow its name."""
    if error is None:
        return ""
    share, largest = error["relative"], error["largest"]
    return f", which loses {share:.2%} of the kept task vector, at most {largest:.2g} of a weight"


def soup(found: Any, output: str) -> None:
    """Print what a greedy soup chose."""
    console = terminal(stderr=True)
    table = ruled("model", "alone", "mean with it", "in the mean", right=(1, 2))
    for c in found.candidates:
        mean = "" if c.mean is None else f"{c.mean:.6g}"
        table.add_row(printable(c.name), f"{c.score:.6g}", mean, "yes" if c.kept else "no")
    console.print(table)
    console.print(
        f"the mean of {len(found.chosen)} of {len(found.candidates)} models scores"
        f" {found.score:.6g} on the data that chose it; written to {printable(output)}"
    )
    warnings(found.report.warnings)


def comparison(found: Any) -> None:
    """Print how alike task vectors are."""
    console = terminal()
    table = ruled("task vector", "norm", "of weights", right=(1, 2))
    for name, norm, kept in zip(found.names, found.norms, found.kept, strict=True):
        share = kept / found.entries if found.entries else 0.0
        table.add_row(printable(name), f"{norm:.4g}", f"{share:.2%}")
    console.print(table)
    table = ruled("pair", "", "cosine", "Pearson", "distance", "conflicts", right=(2, 3, 4, 5))
    rows = [(printable(p["first"]), printable(p["second"]), p) for p in found.pairs]
    if len(rows) > 1:
        rows.append(("mean", "of all pairs", found.kinship))
    for first, second, pair in rows:
        numbers = (f"{pair[key]:.4f}" for key in ("cosine", "pearson"))
        table.add_row(first, second, *numbers, f"{pair['euclid']:.4g}", f"{pair['conflicts']:.2%}")
    if rows:
        console.print(table)
    note(found.notes)
    warnings(found.warnings)


def demo(result: Any) -> None:
    """Print the table of the demo and what it shows."""
    table = ruled("test accuracy", *(row.name for row in result.rows), right=(1, 2, 3, 4))
    for task in result.tasks:
        table.add_row(task, *(f"{row.accuracy[task]:.1%}" for row in result.rows))
    table.add_section()
    table.add_row("mean", *(f"{row.mean:.1%}" for row in result.rows))
    table.add_row("normalised", *(f"{row.normalised:.1%}" for row in result.rows))
    console = terminal()
    console.print(table)
    console.print(f"{result.lesson} ({result.seconds:.0f} s)")


def rows(header: Sequence[str], body: Sequence[Sequence[str]], right: tuple[int, ...] = ()) -> None:
    """Print rows of text under a header."""
    table = ruled(*header, right=right)
    for row in body:
        table.add_row(*(printable(cell) for cell in row))
    terminal().print(table)


def grid(grid: Any, title: str, notes: Sequence[str] = (), out: TextIO | None = None) -> None:
    """Print a grid of cells, in several tables where the terminal is too narrow for one.

    out: a file that is written instead, where nothing is too wide.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    stream: TextIO = out or sys.stdout
    width = None if stream.isatty() else 1 << 16
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    columns = list(zip(grid.header, *grid.body, strict=True))
    widths = [max(cell_len(printable(cell)) for cell in column) + 3 for column in columns]
    blocks: list[list[int]] = [[]]
    for number in range(1, len(columns)):
        if blocks[-1] and sum(widths[j] for j in (0, *blocks[-1], number)) > console.width:
            blocks.append([])
        blocks[-1].append(number)
    console.print(printable(title))
    for block in blocks:
        shown = [0, *block]
        right = tuple(range(1, len(shown)))
        table = ruled(*(printable(grid.header[j]) for j in shown), right=right)
        for i, row in enumerate(grid.body):
            if grid.last and i + 1 == len(grid.body):
                table.add_section()
            style = ["bold" if (i, j) in grid.best else "" for j in shown]
            cells = zip(shown, style, strict=True)
            table.add_row(*(Text(printable(row[j]), style=one) for j, one in cells))
        console.print(table)
    for note in notes:
        console.print(printable(sentence(note)))
