"""What defaults gain on each family: `python -m experiments.defaults.summary FOLDER`.

Writes what was measured into experiments/results/defaults.json, beside other families, and prints
the table of docs/choosing.md, and under it what ends below the base. A gain is the share of what
fine-tuning gains in loss on the merged tasks, in percent: 0 is the base, 100 the fine-tunings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from experiments.defaults import families, rules

RESULTS = Path(__file__).parent.parent / "results" / "defaults.json"
#: Methods whose masks are drawn.
DRAWN = ("dare_linear", "dare_ties", "random_sparsed")
SHOWN = ("breadcrumbs", "magnitude", "dare_linear")


def gains(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each method gains as it comes, for each set of models.

    And of those that were followed along alpha: with the best alpha, and where the share that masks
    leave is always restored.
    """
    rows, known = [], found["alphas"]
    for one in found["sets"]:
        base = np.mean([found["base"][task] for task in one["tasks"]])
        room = base - np.mean([found["own"][task] for task in one["tasks"]])

        def gain(losses: Any, base: Any = base, room: Any = room) -> int:
            return round(100 * float((base - np.mean(losses)) / room))

        names = dict.fromkeys([*one["defaults"], *one["methods"]])
        for method in names:
            row: dict[str, Any] = {"models": len(one["tasks"]), "first": one["tasks"][0]}
            row["method"] = method
            if method in one["defaults"]:
                mine = one["defaults"][method]
                row["default"], row["warned"] = gain(mine["losses"]), mine["warned"]
                row["step"] = float(f"{mine['step'] or 0:.3g}")
            if method in one["methods"]:
                seen = one["methods"][method]
                row["searched"] = max(map(gain, seen["losses"]))
                now = "now, drawn" if method in DRAWN else "now"
                for name, rule in (("restored", "projection"), ("rule", now)):
                    alpha = rules.RULES[rule](seen["sums"])
                    row[name] = gain(rules.loss_at(known, seen["losses"], alpha))
                    row[f"alpha {name}"] = float(f"{alpha:.3g}")
            rows.append(row)
    return rows


def main() -> None:
    measured, without = {}, []
    for name in families.names():
        path = Path(sys.argv[1], f"{name}.json")
        if path.exists():
            found = json.loads(path.read_text())
            measured[name] = gains(found)
            without += [f"{name}: {task} ({100 * g:.1f})" for task, g in found["without"].items()]
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(before | measured, indent=1) + "\n")
    print("| family | models | " + " | ".join(f"`{m}`" for m in SHOWN) + " | `tsv_m` |")
    print("|---|---|" + "---|" * (len(SHOWN) + 1))
    for name, rows in measured.items():
        part = "" if name in families.SETTINGS and not families.SETTINGS[name].chooses else " *"
        for models in sorted({row["models"] for row in rows}):
            of = {m: [r for r in rows if (r["models"], r["method"]) == (models, m)] for m in SHOWN}
            cells = [worst(mine) for mine in of.values()]
            last = [r["default"] for r in rows if (r["models"], r["method"]) == (models, "tsv_m")]
            shown = min(last) if last else ""
            print(f"| {name}{part} | {models} | {' | '.join(cells)} | {shown} |")
    print(f"\nLeft out, with what fine-tuning gains in percent: {', '.join(without)}\n")
    for name, rows in measured.items():
        for row in rows:
            if row.get("default", 0) < 0:
                print(f"below the base: {name} {row}")


def worst(rows: list[dict[str, Any]]) -> str:
    """Return a cell: the best alpha, restored shares, the default, where the default is worst."""
    mine = [row for row in rows if "default" in row and "searched" in row]
    if not mine:
        return ""
    return "{searched} / {restored} / {default}".format_map(min(mine, key=lambda r: r["default"]))


if __name__ == "__main__":
    main()
