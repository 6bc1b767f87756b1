"""Plans, reports and comparisons on the screen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from breadcrumbs import machine
from breadcrumbs.cli.console import note, ruled, terminal, warnings
from breadcrumbs.errors import counted, printable
from breadcrumbs.merging import estimate
from breadcrumbs.merging.report import Report, said_of_parts
from breadcrumbs.plan import Plan


def plan(plan: Plan, threads: int, *, as_json: bool, push: Any = None) -> None:
    """Print what a merge would do. push: what of it would be pushed, for JSON."""
    merged = {t.name for t in (plan.coordinates.plan if plan.coordinates else plan).merged}
    copied = Counter(t.copied for t in plan.tensors if t.copied and t.name not in merged)
    quantised = {source.label: found for source in plan.sources if (found := source.quantised)}
    time = estimate.seconds(plan)
    facts: dict[str, Any] = {
        "method": plan.recipe.method,
        "parameters": {
            key: _text(value) for key, value in plan.method.complete(plan.recipe.parameters).items()
        },
        "models": len(plan.models),
        "tensors": len(plan.tensors),
        "merged": len(merged),
        "quantised": quantised,
        "copied": dict(copied),
        "bytes_read": plan.bytes_read,
        "bytes_measured": plan.bytes_measured,
        "bytes_written": plan.bytes_written,
        "seconds": time and time[0],
        "read_speed": time and time[1],
        "memory": estimate.memory(plan, threads),
        "threads": threads,
        "excluded": [
            t.name for t in plan.tensors if t.copied.startswith(("excluded", "not among"))
        ],
        "parts": _parts(plan),
        "kinds": dict(plan.kinds),
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        **({"push": push} if push else {}),
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
    table.add_row("to read", machine.human(plan.bytes_read))
    if plan.bytes_measured:
        table.add_row("", f"{machine.human(plan.bytes_measured)} before that, to choose alpha")
    table.add_row("to write", machine.human(plan.bytes_written))
    if time:
        took, speed = machine.duration(time[0]), machine.human(time[1])
        table.add_row("time", f"{took} or more, at the {speed}/s measured on this disk")
    memory = machine.human(facts["memory"])
    table.add_row("memory", f"about {memory} with {counted(threads, 'thread')}")
    terminal().print(table)
    note(plan.notes)
    warnings(plan.warnings)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def report(report: Report, output: str | None, *, verbose: bool, told: Sequence[str] = ()) -> None:
    """Print what a merge did. told: warnings that were printed before it began."""
    console = terminal(stderr=True)
    table = ruled("model", "weight", "kept", "of weights", right=(1, 2, 3))
    for row in report.models:
        table.add_row(
            printable(row.name), f"{row.weight:g}", f"{row.fraction:.2%}", f"{row.entries:,}"
        )
    if report.models:
        console.print(table)
    copied = ", ".join(f"{number} {reason}" for reason, number in report.copied.items())
    peak = f", peak memory {machine.human(report.peak)}" if report.peak else ""
    alpha = f"; {report.found}" if report.found else ""
    console.print(
        f"{report.method}: {report.merged} of {counted(report.tensors, 'tensor')} merged"
        f"{f' (copied: {copied})' if copied else ''}; norm of the update {report.norm:.4g}"
        f"{report.length and f', {report.length}'}{alpha}\n"
        f"{machine.human(report.bytes_read)} read, {machine.human(report.bytes_written)} written in"
        f" {report.seconds:.1f} s{peak}"
    )
    if report.parts:
        console.print(printable(said_of_parts(report.parts)))
    if report.adapter:
        console.print(report.adapter)
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
            f"{counted(len(report.emptied), 'tensor')} lost the whole task vector of some model: "
            f"{', '.join(map(printable, shown))}{more}"
        )
    note(report.notes)
    warnings([line for line in report.warnings if line not in told])
    if output is not None:
        console.print(f"written: {printable(str(output))}")


def _parts(plan: Plan) -> dict[str, int]:
    """Return the number of tensors in each folder of a model whose weights lie in several."""
    if plan.base.layout is None:
        return {}
    return dict(Counter(plan.base.layout.split(t.name)[0].folder or "." for t in plan.tensors))


def plural(kind: str) -> str:
    """Return what several tensors of a kind are called."""
    return {"tied copy": "tied copies", "other": "integers or others"}.get(kind, kind + "s")


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


def comparison(found: Any, *, layers: bool = False) -> None:
    """Print how alike task vectors are. layers: and each layer of theirs."""
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
    if layers:
        console.print(_layers(found))
    note(found.notes)
    warnings(found.warnings)


def _layers(found: Any) -> Any:
    """Return the table of the layers of a comparison."""
    norms = [f"norm {printable(name)}" for name in found.names]
    columns = ("layer", "weights", *norms, "cosine", "conflicts")
    table = ruled(*columns, right=tuple(range(1, len(columns))))
    for layer in found.layers:
        cosine, conflicts = layer.mean("cosine"), layer.mean("conflicts")
        table.add_row(
            printable(layer.name),
            f"{layer.entries:,}",
            *(f"{norm:.4g}" for norm in layer.norms),
            "" if cosine is None else f"{cosine:.4f}",
            "" if conflicts is None else f"{conflicts:.2%}",
        )
    return table
