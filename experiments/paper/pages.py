"""Tables of docs/paper.md, out of what was measured: experiments/results/*.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper import alpha, defaults, fig2, fig3, fig5, fig8, fig9, tall, votes
from experiments.paper.choosing import COMPARED, summary
from experiments.paper.drawing import NAMES

RESULTS = Path(__file__).resolve().parent.parent / "results"

Found = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(values: Sequence[float]) -> str:
    """Return the mean over seeds and its standard error, in percent."""
    mean, error = summary(values)
    return shown(mean, error) if len(values) > 1 else f"{100 * mean:.1f}"


def shown(mean: float, error: float) -> str:
    """Return a share with its standard error, in percent."""
    return f"{100 * mean:.1f} ± {100 * error:.1f}"


def seeds(found: Found) -> list[Any]:
    """Return what each seed gave."""
    return list(found["seeds"].values())


def made(found: Found) -> str:
    """Return how numbers were made, as a line."""
    each = sum(found["seconds"].values()) / len(found["seconds"]) / 60
    number = len(found["seeds"])
    over = f"Mean ± standard error over {number} seeds" if number > 1 else "One seed"
    return (
        f"\n\n{over} of fine-tuning; {found['suite']}."
        f" `{found['command']}`; {each:.0f} min a seed ({found['machine']})."
    )


def settings(every: Sequence[Mapping[str, Any]]) -> str:
    """Return the parameters that seeds chose: ``alpha .2, .3``."""
    names = list(dict.fromkeys(name for one in every for name in one))
    parts = []
    for name in names:
        values = list(dict.fromkeys(str(one.get(name, "")) for one in every))
        parts.append(f"{name} {', '.join(values)}")
    return "; ".join(parts)


def table1(found: Found) -> str:
    """Return methods by what they reach on test rows."""
    every = seeds(found)
    own = [one["fine-tuned"] for one in every]
    base = [
        sum(value / mine[name] for name, value in one["base"].items()) / len(mine)
        for one, mine in zip(every, own, strict=True)
    ]
    raw = [fmean(one["base"].values()) for one in every]
    rows = [["base", percent(base), percent(raw), "", ""]]
    names = [name for name in every[0]["methods"] if all(name in one["methods"] for one in every)]
    for name in sorted(names, key=lambda n: sum(one["methods"][n]["test"] for one in every)):
        mine = [one["methods"][name] for one in every]
        chosen = [one["parameters"] for one in mine]
        for one in chosen:
            one.pop("variant", None)
        rows.append(
            [
                NAMES.get(name, f"`{name}`"),
                percent([one["test"] for one in mine]),
                percent([one["raw"] for one in mine]),
                percent([one["validation"] for one in mine]),
                settings(chosen),
            ]
        )
    raw = [fmean(one.values()) for one in own]
    rows.append(["fine-tuned, each on its task", "100", percent(raw), "", ""])
    head = ["method", "normalised, %", "raw, %", "validation, %", "chosen"]
    return table(head, rows)


def table2(found: Found) -> str:
    """Return what the others' task vectors add to a fine-tuned model."""
    runs = [row for seed in seeds(found) for row in seed.values()]
    own = [row["fine-tuned"] for row in runs]
    rows = []
    for method in COMPARED:
        gains = [row[method]["test"] - mine for row, mine in zip(runs, own, strict=True)]
        used = [g for g, row in zip(gains, runs, strict=True) if row[method]["parameters"]]
        mean, error = summary(gains)
        better, worse = sum(gain > 0 for gain in used), sum(gain < 0 for gain in used)
        rows.append(
            [
                NAMES[method],
                f"{100 * mean:+.2f} ± {100 * error:.2f}",
                str(len(used)),
                str(better),
                str(worse),
            ]
        )
    head = ["added", "points of test accuracy", f"tried on, of {len(runs)}", "better", "worse"]
    mean, error = summary(own)
    return f"Fine-tuned models score {100 * mean:.1f} on average.\n\n{table(head, rows)}"


def figure2(found: Found) -> str:
    """Return accuracy by number of tasks merged."""
    rows = []
    columns = {
        (method, column): fig2.by_size(found, method, column)
        for method in COMPARED
        for column in (1, 2)
    }
    for size in columns[COMPARED[0], 1]:
        cells = [columns[method, column][size] for column in (1, 2) for method in COMPARED]
        rows.append(
            [str(size), *(f"{100 * mean:.1f} ± {100 * error:.1f}" for mean, error in cells)]
        )
    heads = [f"{NAMES[m]}, {on}" for on in ("all tasks", "merged tasks") for m in COMPARED]
    return table(["tasks merged", *heads], rows)


def figure3(found: Found) -> str:
    """Return accuracy with all tasks merged, by how many were tuned on."""
    rows = []
    for few in [str(few) for few in fig3.FEW] + ["all"]:
        cells = []
        for method in COMPARED:
            cells.append(shown(*fig3.curve(found, method, few)[-1]))
        rows.append([few, *cells])
    return table(["tuned on", *(NAMES[method] for method in COMPARED)], rows)


def figure4(found: Found) -> str:
    """Return accuracy along the sequence, and what a further task costs."""
    every, rows = seeds(found), []
    for i, n in enumerate(every[0]["at"]):
        cells = [percent([one[method]["values"][i] for one in every]) for method in COMPARED]
        times = [fmean(one["seconds"][i][key] for one in every) for key in ("add", "merge")]
        shown = [f"{seconds:.1f} s" for seconds in times]
        rows.append([str(n), percent([one["base"][i] for one in every]), *cells, *shown])
    head = ["tasks merged", "base", *(NAMES[method] for method in COMPARED)]
    return table([*head, "adding one", "writing the model"], rows)


def figure5(found: Found) -> str:
    """Return accuracy by size of the foundation."""
    rows = []
    for size, every in fig5.sizes(found).items():
        keys = ("base", "fine-tuned", "base normalised")
        rows.append(
            [
                f"{int(size) / 1e6:.1f}M",
                *(percent([one[key] for one in every]) for key in keys),
                *(percent([one[method]["test"] for one in every]) for method in COMPARED),
            ]
        )
    head = ["weights trained", "base, raw", "fine-tuned, raw", "base"]
    return table([*head, *(NAMES[method] for method in COMPARED)], rows)


def figure6(found: Found) -> str:
    """Return how the two methods compare on pairs of tasks."""
    rows = []
    every = seeds(found)
    for method in COMPARED:
        means = [fmean(one["values"][method]) for one in every]
        rows.append(
            [NAMES[method], percent(means), settings([s["settings"][method] for s in every])]
        )
    differences = [
        up - across
        for one in every
        for across, up in zip(*(one["values"][method] for method in COMPARED), strict=True)
    ]
    mean, error = summary(differences)
    better = sum(value > 0 for value in differences)
    text = (
        f"Breadcrumbs is ahead on {better} of {len(differences)} pairs; the difference is"
        f" {100 * mean:+.2f} ± {100 * error:.2f} points."
    )
    return f"{table(['method', 'mean of all pairs, %', 'chosen'], rows)}\n\n{text}"


def figure7(found: Found) -> str:
    """Return what each tail does."""
    rows = []
    every = seeds(found)
    for kind in every[0]:
        scores = [sorted(value for _, value in one[kind]["tried"]) for one in every]
        rows.append(
            [
                kind,
                str(len(scores[0])),
                percent([one[0] for one in scores]),
                percent([one[len(one) // 2] for one in scores]),
                percent([one[-1] for one in scores]),
                percent([one[kind]["test"] for one in every]),
            ]
        )
    head = ["tails cut", "settings", "worst", "median", "best", "test of the best"]
    return table(head, rows)


def figure8(found: Found) -> str:
    """Return cosines before and after masking."""
    names = {"whole": "task vectors", "paper": "masked, paper", "authors": "masked, authors"}
    rows = []
    for kind, name in names.items():
        means = []
        largest = 0.0
        for one in seeds(found):
            values = list(map(abs, fig8.pairs(one[kind])))
            means.append(fmean(values))
            largest = max(largest, *values)
        mean, error = summary(means)
        rows.append([name, f"{mean:.4f} ± {error:.4f}", f"{largest:.4f}"])
    return table(["", "mean of absolute cosines", "largest"], rows)


def figure9(found: Found) -> str:
    """Return how much the parameters matter."""
    cells = fig9.average(found, "alpha_beta", "alpha", "beta")
    rows = []
    for beta in sorted({beta for _, beta in cells}):
        mine = {alpha: value for (alpha, b), value in cells.items() if b == beta}
        best = max(mine, key=mine.__getitem__)
        good = [alpha for alpha, value in mine.items() if value > mine[best] - 0.02]
        rows.append(
            [
                f"{beta:g}",
                f"{100 * mine[best]:.1f} at {best:g}",
                f"{min(good):g} to {max(good):g}",
                f"{100 * mine[max(mine)]:.1f}",
            ]
        )
    last = max(alpha for alpha, _ in cells)
    return table(["beta", "best", "alpha within 2 points of it", f"at alpha {last:g}"], rows)


def masks(found: Found) -> str:
    """Return TALL-masks: what is kept and at how many bits; and Consensus Merging by k."""
    every = seeds(found)
    rows = []
    for size in [str(size) for size in tall.SIZES if str(size) in every[0]]:
        mine = [one[size] for one in every]
        full, packed = mine[0]["gigabits"]
        merged = [[one["consensus"][str(k)]["normalised"] for one in mine] for k in range(4)]
        rows.append(
            [
                size,
                f"{full:.2f} → {packed:.2f}",
                percent([one["rebuilt"]["normalised"] for one in mine]),
                percent([one["rebuilt"]["normalised at .4"] for one in mine]),
                *map(percent, merged),
            ]
        )
    head = ["tasks", "gigabits", "rebuilt, %", "at lambda .4", "k = 0", "k = 1", "k = 2", "k = 3"]
    return table(head, rows)


def voted(found: Found) -> str:
    """Return how many masks have the weights that were changed."""
    rows = []
    for size, every in votes.shares(found).items():
        rows.append([size, *(percent([one[kind] for one in every]) for kind in every[0])])
    says = ("no mask (catastrophic)", "one (selfish)", "some (general)", "all (universal)")
    return table(["tasks", *(f"in {what}, %" for what in says)], rows)


def automatic(found: Found) -> str:
    """Return what `alpha: auto` loses."""
    gains = alpha.losses(found)
    columns = list(dict.fromkeys((suite, size) for suite, size, _ in gains))
    rows = []
    for case in dict.fromkeys(case for _, _, case in gains):
        cells = [gains.get((*column, case)) for column in columns]
        shown = [f"{100 * fmean(c):+.1f}" if c else "" for c in cells]
        rows.append([case, *shown])
    head = [f"{suite}, {size} tasks" for suite, size in columns]
    worst = min(gains, key=lambda key: fmean(gains[key]))
    mean = fmean(gains[worst])
    text = f"At worst, mean over seeds: {100 * mean:+.2f} points ({worst[2]}, {worst[1]} tasks)."
    return f"{table(['points by which auto differs', *head], rows)}\n\n{text}"


def settled(found: Found) -> str:
    """Return what settings lose that nobody chose for the models at hand."""
    rows, columns = [], []
    for method, settings in defaults.losses(found).items():
        columns = columns or list(next(iter(settings.values())))
        automatic = [setting for setting in settings if setting.endswith("auto")]
        for setting in [*defaults.ranked(settings)[:3], *automatic]:
            cells = [settings[setting].get(column) for column in columns]
            losses = [cell for cell in cells if cell is not None]
            shown = ["" if cell is None else f"{100 * cell:.1f}" for cell in cells]
            ends = [f"{100 * fmean(losses):.1f}", f"{100 * max(losses):.1f}"]
            rows.append([NAMES.get(method, f"`{method}`"), setting, *shown, *ends])
    heads = [f"{suite}, {size}" for suite, size in columns]
    return table(["method", "setting", *heads, "mean", "most"], rows)


def encodings(found: Found) -> str:
    """Return what task files weigh, lose and score, by encoding."""
    every, rows = seeds(found), []
    for name in every[0]:
        mine = [one[name] for one in every]
        cut, _, encoding = name.partition(" ")
        rows.append(
            [
                {"breadcrumbs": "10 %", "whole": "all"}[cut],
                f"`{encoding}`",
                f"{fmean(one['share'] for one in mine):.3f}",
                f"{fmean(one['bits'] for one in mine):.2f}",
                percent([one["error"] for one in mine]),
                percent([one["alone"] for one in mine]),
                percent([one["alone, chosen"] for one in mine]),
                percent([one["merged"] for one in mine]),
            ]
        )
    head = ["kept", "encoding", "of the model's bytes", "bits a trained weight", "lost, %"]
    return table([*head, "alone, %", "alone, scale chosen, %", "merged, %"], rows)


def stored(found: Found) -> str:
    """Return what a store holds after each change, and what that scores."""
    every, rows = seeds(found), []
    for number, row in enumerate(every[0]["rows"]):
        mine = [one["rows"][number] for one in every]
        sizes = [one["bytes"][row["name"]] for one in every]
        times = [fmean(one[key] for one in mine) for key in ("seconds", "merge seconds")]
        rows.append(
            [
                f"{row['action']} {row['name']}",
                str(len(row["tasks"])),
                f"{fmean(sizes) / 1e6:.2f} MB" if row["action"] == "add" else "",
                *(f"{seconds:.1f} s" for seconds in times),
                "yes" if all(one["same bits"] for one in mine) else "NO",
                percent([one["normalised"] for one in mine]),
            ]
        )
    head = ["change", "tasks", "task file", "time", "writing the model"]
    shown = table([*head, "bits of the merged checkpoints", "normalised, %"], rows)
    models = [size for one in every for size in one["bytes of a model"]]
    good = all(one["verified"] for one in every)
    said = "found the same" if good else "DID NOT FIND the same"
    text = (
        f"A fine-tuned checkpoint is {fmean(models) / 1e6:.1f} MB. `store verify` {said} bits from"
        f" scratch, and {every[0]['blocks']} blocks of the sum whole."
    )
    return f"{shown}\n\n{text}"


def compressed(found: Found) -> str:
    """Return what archives weigh, and what each rebuilt model scores."""
    every = seeds(found)
    tasks = list(next(iter(every[0]["ways"].values()))["normalised"])
    whole = fmean(one["models"] for one in every)
    rows = [["the models", f"{whole / 1e6:.1f} MB", *["100"] * (1 + len(tasks))]]
    for way in every[0]["ways"]:
        mine = [one["ways"][way] for one in every]
        values = [one["normalised"] for one in mine]
        means = [fmean(one.values()) for one in values]
        each = [f"{100 * fmean(one[task] for one in values):.1f}" for task in tasks]
        size = f"{fmean(one['bytes'] for one in mine) / 1e6:.1f} MB"
        rows.append([way, size, percent(means), *each])
    return table(["", "bytes beside the base", "normalised, %", *tasks], rows)


TABLES: dict[str, Callable[[Found], str]] = {
    "table1": table1,
    "table2": table2,
    "fig2": figure2,
    "fig3": figure3,
    "fig4": figure4,
    "fig5": figure5,
    "fig6": figure6,
    "fig7": figure7,
    "fig8": figure8,
    "fig9": figure9,
    "tall": masks,
    "votes": voted,
    "alpha": automatic,
    "defaults": settled,
    "encodings": encodings,
    "store": stored,
    "compressed": compressed,
}


def filled(name: str) -> str:
    """Return the table of one figure, with how it was made; a word where nothing was measured."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text())
    return TABLES[name](found) + made(found)
