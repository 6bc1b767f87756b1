"""What stands on the page of `inspect`: where the weights of a checkpoint lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from breadcrumbs import machine
from breadcrumbs.pages import charts, layers, lines
from breadcrumbs.pages.page import Figure, Page, Section, Table

#: Tensors that are listed on the page at most.
MOST = 2000


def of(found: Mapping[str, Any]) -> Page:
    """Return the page of what `inspection.inspect` found."""
    tensors = found["tensors"]
    name = str(found["path"]).rstrip("/").rpartition("/")[2] or str(found["path"])
    tiles = [
        ("weights", f"{found['parameters']:,}"),
        ("size", machine.human(found["bytes"])),
        ("tensors", f"{len(tensors):,}"),
        ("stored as", ", ".join(found["entries_by_dtype"]) or "nothing"),
    ]
    facts = [("quantised", found["quantised"])] if found["quantised"] else []
    hashed = any(f.get("blake3") for f in found["files"])
    files = [(f["file"], f["bytes"], f.get("blake3", ""))[: 2 + hashed] for f in found["files"]]
    dtypes = [(dtype, n) for dtype, n in found["entries_by_dtype"].items()]
    tables = [
        Table(("file", "bytes", "BLAKE3")[: 2 + hashed], files, "Files"),
        Table(("dtype", "entries"), dtypes, "Entries by dtype"),
    ]
    sections = [Section("What it holds", facts=facts, tables=tables)]
    if tensors:
        sections.append(
            Section("Where the weights lie", _LIE, figures=[_sizes(tensors), *_kinds(tensors)])
        )
    if found["scores"]:
        sections.append(_scores(found["scores"]))
    merged = found["merged_from"]
    if isinstance(merged, dict):
        recipe = merged.get("recipe", {})
        rows = [
            (str(source.get("model") or source.get("statistics", "")), f["file"], f["bytes"])
            for source in merged.get("inputs", [])
            for f in source["files"]
        ]
        facts = [
            ("method", str(recipe.get("method"))),
            ("by", f"breadcrumbs {merged.get('version')}"),
        ]
        facts += [(key, str(value)) for key, value in recipe.get("parameters", {}).items()]
        origin = Table(("model", "file", "bytes"), rows)
        sections.append(Section("What it was merged from", facts=facts, tables=[origin]))
    body = [
        (t["name"], t["dtype"], " x ".join(map(str, t["shape"])) or "scalar", t["bytes"])
        for t in tensors[:MOST]
    ]
    left = f" The first {MOST:,} of {len(tensors):,}." if len(tensors) > MOST else ""
    listed = Table(("tensor", "dtype", "shape", "bytes"), body)
    sections.append(Section("Tensors", f"From the headers of the files.{left}", tables=[listed]))
    lead = "What this checkpoint holds, from its headers; no weight was read."
    return Page(name, "inspect", lead, tiles, sections)


def _scores(scores: list[dict[str, Any]]) -> Section:
    """Return what the card of a model says that it scores; drawn where all are of one metric."""
    rows = [(s["task"], s["split"], s["metric"], s["value"], s["stderr"]) for s in scores]
    header = ("task", "split", "metric", "score", "standard error")
    bars = [(s["task"] or str(n), s["value"], s["stderr"]) for n, s in enumerate(scores, 1)]
    figures = []
    if len({s["metric"] for s in scores}) == 1 and len({name for name, *_ in bars}) == len(bars):
        title = f"{scores[0]['metric'] or 'score'} of each task".capitalize()
        says = "Lines are one standard error to each side, where the card states it."
        figures = [
            lines.bars("scores", title, says, bars, label="task", value="score", form=".3~g")
        ]
    says = "From the model card beside the weights (model-index)."
    return Section("What it scores", says, figures=figures, tables=[Table(header, rows)])


def _sizes(tensors: list[dict[str, Any]]) -> Figure:
    """Return how many weights each kind of module has in each layer."""
    places = layers.places(t["name"] for t in tensors)
    counts, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for tensor in tensors:
        place = places[tensor["name"]]
        counts[place.kind, place.column] += tensor["entries"]
        sizes[place.kind, place.column] += tensor["bytes"]
    records = [
        {"x": x, "y": y, "value": n or None, "bytes": sizes[y, x]} for (y, x), n in counts.items()
    ]
    rows = [(r["y"], r["x"], r["value"], r["bytes"]) for r in records]
    return charts.heat(
        "sizes",
        "Weights by layer",
        "Rows are kinds of modules, columns layers, the first what is outside of these. Stronger"
        " colours hold more weights; they are of orders of magnitude.",
        records,
        x=("layer", layers.columns(places.values())),
        y=("", list(dict.fromkeys(place.kind for place in places.values()))),
        value=("weights", "~s"),
        tips=[("value", "weights", ",d"), ("bytes", "bytes", ",d")],
        table=Table(("part", "layer", "weights", "bytes"), rows),
        log=True,
    )


def _kinds(tensors: list[dict[str, Any]]) -> list[Figure]:
    places = layers.places(t["name"] for t in tensors)
    counts = Counter[str]()
    for tensor in tensors:
        counts[places[tensor["name"]].kind] += tensor["bytes"]
    rows = [(kind, float(n), None) for kind, n in counts.most_common(20)]
    return [
        lines.bars(
            "kinds",
            "Bytes by kind of module",
            "All layers together: what makes the file large.",
            rows,
            label="part",
            value="bytes",
            form=".3~s",
        )
    ]


_LIE = "Names of tensors are read as layers and kinds of modules."
