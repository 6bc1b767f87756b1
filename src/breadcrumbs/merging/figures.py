"""Figures of a look at task vectors: magnitudes, cosines, and where the models moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from breadcrumbs.merging.looking import AFTER, BEFORE, FIRST, Look, TensorLook
from breadcrumbs.pages import charts, layers, lines
from breadcrumbs.pages.page import Choice, Figure, Section, Table
from breadcrumbs.pages.theme import DIVERGING

#: Bins that together hold less than this share at either end are not shown.
RARE = 2e-4
WHEN = ("before cutting", "after cutting")
#: The first option of several.
ALL = "all models"
#: So that a page stays small: cells of a heat map at most (of all models together they are always
#: there), histograms, and models of a matrix.
CELLS, HISTOGRAMS, MATRIX = 3000, 56, 64


def sections(look: Look) -> list[Section]:
    """Return the sections that are drawn from a look: magnitudes, cosines, layers."""
    sampled = ""
    if look.share < 1:
        sampled = (
            f" Figures of this part are from an even sample of {look.share:.1%} of all weights."
        )
    magnitudes = Section(
        "Magnitudes",
        "A task vector is what a fine-tuning changed: its weights minus the base's." + sampled,
        figures=[_histogram(look), *([_kept(look)] if look.cuts else [])],
    )
    places = layers.places(t.name for t in look.tensors)
    norms = _norms(look, places)
    figures: list[Figure] = []
    if len(look.names) > 1:
        figures.append(cosines(look.names, {WHEN[i]: look.cosines[i] for i in _times(look)}))
    parts = [magnitudes]
    if figures:
        parts.append(Section("How alike they are", figures=figures))
    by_layer = [norms, *([_conflicts(look, places)] if len(look.names) > 1 else [])]
    parts.append(Section("Layer by layer", _LAYERS, figures=by_layer))
    return parts


def cosines(names: Sequence[str], tables: Mapping[str, np.ndarray]) -> Figure:
    """Return the cosines (T, T) of all pairs of models, of the first `MATRIX` ones."""
    shown = {key: table[:MATRIX, :MATRIX].tolist() for key, table in tables.items()}
    more = f" Of {len(names)} models the first {MATRIX} are shown." if len(names) > MATRIX else ""
    title, says = "Cosine of every pair", f"{_COSINE}{more}"
    return charts.matrix("cosine", title, says, names[:MATRIX], shown, value="cosine")


def _histogram(look: Look) -> Figure:
    """Return how many weights changed by how much, with the two cuts of each task vector."""
    records, marks, rows = [], [], []
    by_name = {tensor.name: tensor for tensor in look.tensors}
    tensors = [key for key in look.histograms if not key or key in by_name]
    tensors = tensors[: max(1, HISTOGRAMS // len(look.names))]
    for t, model in enumerate(look.names[:HISTOGRAMS]):
        for key in tensors:
            counts = look.histograms[key][t]
            total = counts.sum()
            if not total:
                continue
            here = {"model": model, "tensor": key or "all"}
            records += [here | bar for bar in bars_of(counts / total)]
            mine = [by_name[key]] if key else look.tensors
            cuts = _cuts(mine, t) if look.cuts else {}
            marks += [here | mark for mark in _marks(cuts, bool(key))]
            rows.append(
                (
                    model,
                    key or "all tensors",
                    f"{counts[0].sum() / total:.2%}",
                    cuts.get("left"),
                    cuts.get("right"),
                )
            )
    models = Choice("model", "Model", [(name, name) for name in look.names[:HISTOGRAMS]])
    options = [(key or "all", key or "all tensors") for key in tensors]
    table = Table(
        ("model", "tensor", "kept, of the weights that changed", "lower cut", "upper cut"), rows
    )
    says = _HISTOGRAM if look.cuts else _HISTOGRAM_WHOLE
    return charts.histogram(
        "magnitudes",
        "How large the changes are",
        says,
        records,
        marks,
        x="magnitude of the change of a weight",
        y="share, per doubling of the magnitude",
        choices=[models, Choice("tensor", "Tensors", options)],
        table=table,
    )


def bars_of(shares: np.ndarray) -> list[dict[str, Any]]:
    """Return the bars of a histogram (2, BINS) of shares that are kept and cut off, two in each
    doubling; as high as the share would be in a whole one. What is rare at both ends is left out.
    """
    pairs = shares.reshape(2, -1, 2).sum(axis=2)
    total = np.cumsum(pairs.sum(axis=0))
    records = []
    for i in np.flatnonzero((total > RARE) & (total - pairs.sum(axis=0) < 1 - RARE)):
        low, high = (charts.magnitude(2 * (int(i) + j) + FIRST) for j in (0, 1))
        foot = 0.0
        for kind, share in zip(("kept", "cut off"), pairs[:, i].tolist(), strict=True):
            top = foot + share / np.log2(high / low)
            if share:
                bar = {"from": low, "to": high, "low": round(foot, 6), "high": round(top, 6)}
                records.append({**bar, "kind": kind, "share": round(share, 6)})
            foot = top
    return records


def _cuts(tensors: Sequence[TensorLook], t: int) -> dict[str, float]:
    """Return where a task vector is cut, below (``left``) and above (``right``), if it is.

    Of several tensors the median, each counted with its size.
    """
    found: dict[str, float] = {}
    kept = [x for x in tensors if np.isfinite(x.low[t]) and x.high[t] > 0]
    sizes = np.array([x.size for x in kept], np.float64)
    lows = np.array([x.low[t] for x in kept])
    highs = np.array([x.high[t] for x in kept])
    edges = np.array([x.edges[t] for x in kept])
    changed = np.array([x.both[BEFORE, t, t] for x in kept])
    stay = np.array([x.both[AFTER, t, t] for x in kept])
    if not len(kept) or not (stay < changed).any():
        return found
    found["left"] = _median(lows, sizes)
    if ((highs < edges) * sizes).sum() > sizes.sum() / 2:
        found["right"] = _median(highs, sizes)
    return found


def _median(values: np.ndarray, sizes: np.ndarray) -> float:
    order = np.argsort(values)
    half = np.searchsorted(np.cumsum(sizes[order]), sizes.sum() / 2)
    return float(values[order][min(half, len(values) - 1)])


def _marks(cuts: dict[str, float], one: bool) -> list[dict[str, Any]]:
    said = {"left": "lower cut", "right": "upper cut"}
    which = "" if one else "median "
    return [
        {"at": at, "side": side, "short": said[side], "text": f"{which}{said[side]} at {at:.3g}"}
        for side, at in cuts.items()
    ]


def _kept(look: Look) -> Figure:
    rows = [
        (name, float(share), None) for name, share in zip(look.names, look.kept[AFTER], strict=True)
    ]
    return lines.bars(
        "kept",
        "How many weights each model changes",
        "The share of all weights that a model changes in the merge. It is less than the share that"
        " the method keeps where a fine-tuning left weights as they were: those are kept, too, and"
        " change nothing.",
        rows,
        label="model",
        value="weights changed",
        form=".1%",
    )


def _norms(look: Look, places: dict[str, layers.Place]) -> Figure:
    """Return how far each part of the model moved, against the size of its weights."""

    def cells(t: int | None, when: int) -> Callable[[list[TensorLook]], dict[str, Any]]:
        def cell(mine: list[TensorLook]) -> dict[str, Any]:
            norms = np.sqrt(sum(x.norms[when] ** 2 for x in mine))
            norm = float(np.sqrt((norms**2).mean())) if t is None else float(norms[t])
            base = float(np.sqrt(sum(x.base**2 for x in mine)))
            return {
                "value": _round(norm / base) if base else None,
                "norm": _round(norm),
                "n": _n(mine),
            }

        return cell

    several = len(look.names) > 1
    each = len({(p.kind, p.column) for p in places.values()}) * len(_times(look))
    names = look.names[: max(1 - several, CELLS // max(1, each) - several)]
    models = [ALL, *names] if several else list(names)
    records = []
    for t, model in [*([(None, ALL)] if several else []), *enumerate(names)]:
        for when in _times(look):
            named = {"model": model, "when": WHEN[when]}
            records += _cells(look, places, cells(t, when), named)
    return _layer_heat(
        look,
        places,
        records,
        "norms",
        "Where the models moved",
        "The length of each part's change, divided by the length of the base's weights there."
        " Strong colours moved far; empty cells have no such weights.",
        ("change / base", ".1%"),
        [("norm", "norm of the change", ".4g"), ("n", "weights", ",d")],
        [Choice("model", "Model", [(m, m) for m in models]), *_when(look)],
    )


def _conflicts(look: Look, places: dict[str, layers.Place]) -> Figure:
    """Return where task vectors pull in opposite directions, over all pairs."""
    pairs = np.triu_indices(len(look.names), 1)

    def cells(when: int) -> Callable[[list[TensorLook]], dict[str, Any]]:
        def cell(mine: list[TensorLook]) -> dict[str, Any]:
            opposite = sum(float(x.opposite[when][pairs].sum()) * x.scale for x in mine)
            both = sum(float(x.both[when][pairs].sum()) * x.scale for x in mine)
            return {"value": _round(opposite / both) if both else None, "n": _n(mine)}

        return cell

    records = []
    for when in _times(look):
        records += _cells(look, places, cells(when), {"when": WHEN[when]})
    return _layer_heat(
        look,
        places,
        records,
        "conflicts",
        "Where they disagree",
        "Of the weights that two models both changed, the share that they changed in opposite"
        " directions, over all pairs. Half, the pale colour, is what chance gives; blue parts"
        " agree, and orange ones undo each other.",
        ("opposite signs", ".0%"),
        [("n", "weights", ",d")],
        _when(look),
        colours=DIVERGING[::-1],
        middle=0.5,
    )


def _layer_heat(
    look: Look,
    places: dict[str, layers.Place],
    records: list[dict[str, Any]],
    name: str,
    title: str,
    says: str,
    value: tuple[str, str],
    tips: list[tuple[str, str, str]],
    choices: list[Choice],
    **more: Any,
) -> Figure:
    kinds = list(dict.fromkeys(places[t.name].kind for t in look.tensors))
    fields = [choice.signal for choice in choices]
    shown = [("value", *value), *tips]
    rows = [
        (*(r[f] for f in fields), r["y"], r["x"], *(r[f] for f, _, _ in shown)) for r in records
    ]
    columns = (*(c.label for c in choices), "part", "layer", *(title for _, title, _ in shown))
    return charts.heat(
        name,
        title,
        says,
        records,
        x=("layer", layers.columns(places.values())),
        y=("", kinds),
        value=value,
        tips=shown,
        table=Table(columns, rows),
        choices=choices,
        **more,
    )


def _cells(
    look: Look,
    places: dict[str, layers.Place],
    cell: Callable[[list[TensorLook]], dict[str, Any]],
    named: dict[str, str],
) -> list[dict[str, Any]]:
    """Return a record for each kind of module in each layer."""
    groups: dict[tuple[str, str], list[TensorLook]] = {}
    for tensor in look.tensors:
        place = places[tensor.name]
        groups.setdefault((place.kind, place.column), []).append(tensor)
    return [
        {**named, "y": kind, "x": column} | cell(mine) for (kind, column), mine in groups.items()
    ]


def _round(value: float) -> float:
    """Return a number with the digits that a page has room for."""
    return float(f"{value:.7g}")


def _times(look: Look) -> tuple[int, ...]:
    return (BEFORE, AFTER) if look.cuts else (BEFORE,)


def _when(look: Look) -> list[Choice]:
    return [Choice("when", "Task vectors", [(w, w) for w in WHEN])] if look.cuts else []


def _n(mine: Sequence[TensorLook]) -> int:
    return sum(tensor.size for tensor in mine)


_COSINE = (
    "1 means that two task vectors point the same way, 0 that they have nothing to do with each"
    " other, less than 0 that they undo each other. Fine-tunings near 0 merge best."
)
_HISTOGRAM = (
    "How many weights changed by how much, on a logarithmic axis. What is blue is kept; what is"
    " gray is cut off: the many small changes on the left, which carry little, and the few largest"
    " on the right, where the method cuts these too. Lines mark the smallest and the largest change"
    " that is kept in a tensor; of all tensors together the median, since each has cuts of its own."
)
_HISTOGRAM_WHOLE = (
    "How many weights changed by how much, on a logarithmic axis. This method cuts nothing off."
)
_LAYERS = (
    "Rows are kinds of modules, columns the layers from input to output, the first what is outside"
    " of these."
)
