"""What stands on the pages of `compare` and `merge`: sections and figures of plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from breadcrumbs import machine
from breadcrumbs.errors import counted
from breadcrumbs.merging import figures
from breadcrumbs.merging.looking import Look
from breadcrumbs.merging.report import Report
from breadcrumbs.pages import lines
from breadcrumbs.pages.page import Page, Section, Table
from breadcrumbs.plan import Plan, recipe

#: Pairs that are listed at most.
PAIRS = 500


def of_comparison(found: Any) -> Page:
    """Return the page of a `comparison.Comparison`."""
    kin, pairs = found.kinship, len(found.pairs)
    cut = "" if found.transform == "none" else f" after {found.transform}"
    tiles = [("models", str(len(found.names))), ("weights", short(found.entries))]
    if pairs:
        tiles += [
            ("mean cosine", f"{kin['cosine']:.3f}"),
            ("sign conflicts", f"{kin['conflicts']:.1%}"),
        ]
    rows = [
        (name, float(norm), f"{n / found.entries if found.entries else 0:.2%}")
        for name, norm, n in zip(found.names, found.norms, found.kept, strict=True)
    ]
    columns = ("model", "model ", "cosine", "Pearson", "distance", "opposite signs")
    values = [
        (
            p["first"],
            p["second"],
            f"{p['cosine']:.4f}",
            f"{p['pearson']:.4f}",
            float(p["euclid"]),
            f"{p['conflicts']:.2%}",
        )
        for p in sorted(found.pairs, key=lambda p: -abs(p["cosine"]))[:PAIRS]
    ]
    tables = [Table(("task vector", "norm", "weights not 0"), rows, "Length and density")]
    if values:
        which = "Every pair" if pairs <= PAIRS else f"The {PAIRS:,} pairs that are most alike"
        tables.append(Table(columns, values, which))
    sections = [Section("Task vectors", _task_vectors(cut), tables=tables)]
    if found.look:
        sections += figures.sections(found.look)
    elif pairs:
        matrix = figures.cosines(found.names, {"all": found.cosine})
        sections.append(Section("How alike they are", figures=[matrix]))
    sections.append(_layer_section(found))
    return Page(
        f"{_listed(found.names)} compared",
        "compare",
        f"How the fine-tunings of {recipe.name_of(found.base)} differ from it and from each"
        f" other{cut}.",
        tiles,
        sections,
        found.warnings,
        found.notes,
    )


def of_merge(plan: Plan, look: Look | None, report: Report | None, output: str | None) -> Page:
    """Return the page of a merge, or, without a report, of the plan of one."""
    names = [model.name for model in plan.recipe.models]
    values = plan.method.complete(plan.recipe.parameters)
    merged = "tensors merged" if report else "tensors to merge"
    tiles = [("models", str(len(names))), (merged, _of(len(plan.merged), plan.tensors))]
    facts = [("method", plan.recipe.method)]
    facts += [(key, _text(value)) for key, value in values.items() if key != "alpha"]
    alpha = values.get("alpha")
    if report and report.found:
        facts.append(("alpha", report.found.removeprefix("alpha ")))
    elif alpha is not None:
        facts.append(
            ("alpha", "chosen automatically when merged" if alpha == "auto" else _text(alpha))
        )
    if report and report.step is not None:
        tiles.append(("step / task vector", f"{report.step:.3g}"))
        facts.append(("step", report.length))
    if report:
        tiles += [
            ("time", f"{report.seconds:.1f} s"),
            ("written", machine.human(report.bytes_written)),
        ]
        facts += [("norm of the update", f"{report.norm:.4g}"), ("kernels", report.kernel)]
        if report.peak:
            facts.append(("peak memory", machine.human(report.peak)))
    else:
        tiles += [("to read", machine.human(plan.bytes_read))]
        tiles += [("to write", machine.human(plan.bytes_written))]
    sections = [
        Section("What was merged" if report else "What would be merged", _MERGED, facts)
        if not plan.kinds
        else Section(
            "What was merged" if report else "What would be merged",
            _MERGED,
            facts,
            tables=[_kinds(plan), _sources(plan, report)],
        )
    ]
    if report and report.models and report.step is not None and look:
        sections.append(_step(look, report))
    if look and len(names):
        sections += figures.sections(look)
    sections.append(
        Section(
            "Recipe",
            "Save this as recipe.yaml in the folder of the merge: breadcrumbs merge recipe.yaml"
            " -o again makes the same bits.",
            code=recipe.to_yaml(plan.recipe),
        )
    )
    where = f", written to {output}" if report and output else "; nothing was written"
    count = f"{counted(len(names), 'fine-tuning')} of {recipe.name_of(plan.base.label)}"
    return Page(
        f"{_listed(names)} merged" if report else f"{_listed(names)}: the plan of a merge",
        "merge" if report else "merge --dry-run",
        f"{count} by {plan.recipe.method}: {plan.method.summary}{where}.",
        tiles,
        sections,
        report.warnings if report else plan.warnings,
        report.notes if report else plan.notes,
    )


def _step(look: Look, report: Report) -> Section:
    """Return how long the step is against the task vectors."""
    before, after = look.norms
    rows = [
        (f"{m.name}, whole", float(n), None) for m, n in zip(report.models, before, strict=True)
    ]
    if look.cuts:
        rows += [
            (f"{m.name}, kept", float(n), None) for m, n in zip(report.models, after, strict=True)
        ]
    rows.append(("the step of the merge", report.norm, None))
    kept = " Blue: what is kept of that." if look.cuts else ""
    colours = [f"@{'cut' if i < len(before) else 'kept'}" for i in range(len(rows) - 1)] + ["@warm"]
    figure = lines.bars(
        "step",
        "Length of the step against the task vectors",
        f"Gray: what each fine-tuning changed, as a length.{kept} Orange: the step of the merge."
        " Fine-tunings are known to work one task vector away from the base; a step much longer"
        " than 1.5 of them may do worse than the base.",
        rows,
        colours=colours,
        label="vector",
        value="length",
        form=".3g",
    )
    return Section("How far the merge goes", figures=[figure])


def _layer_section(found: Any) -> Section:
    rows = [
        (
            layer.name,
            layer.entries,
            *map(float, layer.norms),
            *tuple(_rounded(layer.mean(key)) for key in ("cosine", "conflicts")),
        )
        for layer in found.layers
    ]
    norms = [f"norm of {name}" for name in found.names]
    columns = ("layer", "weights", *norms, "mean cosine", "opposite signs")
    return Section("Table of layers", "Of all pairs the mean.", tables=[Table(columns, rows)])


def _kinds(plan: Plan) -> Table:
    reasons: dict[str, int] = {}
    for tensor in plan.tensors:
        if tensor.copied:
            reasons[tensor.copied] = reasons.get(tensor.copied, 0) + 1
    rows: list[tuple[str, Any]] = [(kind, number) for kind, number in plan.kinds.items()]
    rows += [(f"not merged: {reason}", number) for reason, number in reasons.items()]
    return Table(("kind of tensor", "tensors"), rows, "Tensors by kind")


def _sources(plan: Plan, report: Report | None) -> Table:
    if report is None:
        rows = [(m.name, m.path, m.weight) for m in plan.recipe.models]
        return Table(("model", "from", "weight"), rows, "Models")
    rows = [(m.name, m.weight, f"{m.fraction:.2%}", m.kept, m.entries) for m in report.models]
    return Table(("model", "weight", "kept", "entries kept", "of weights"), rows, "Models")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _of(number: int, every: Sequence[Any]) -> str:
    return f"{number} of {len(every)}"


def short(number: int) -> str:
    """Return a number of weights in few letters: 22.7M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _listed(names: Sequence[str]) -> str:
    ends = [recipe.name_of(name) for name in names]
    if len(ends) > 4:
        return f"{', '.join(ends[:3])} and {len(ends) - 3} more"
    return " and ".join([", ".join(ends[:-1]), ends[-1]]) if len(ends) > 1 else "".join(ends)


def _task_vectors(cut: str) -> str:
    return (
        "A task vector is what a fine-tuning changed: its weights minus the base's. Cosines near 0"
        f" mean that two fine-tunings changed the model in unrelated ways. These are exact{cut}."
    )


_MERGED = "Floating-point weights are merged; everything else is copied from the base."
