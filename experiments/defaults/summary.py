"""What each rule gains on each family: `python -m experiments.defaults.summary FOLDER`.

Writes experiments/results/defaults.json and prints the table of docs/choosing.md. A gain is the
share of what fine-tuning gains in loss on the merged tasks, in percent: 0 is the base, 100 the
fine-tunings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from experiments.defaults import families, measure, rules

RESULTS = Path(__file__).parent.parent / "results" / "defaults.json"
#: Methods whose masks are drawn.
DRAWN = ("dare_linear", "dare_ties", "random_sparsed")
SHOWN = ("breadcrumbs", "magnitude", "dare_linear")


def gains(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each set of models and method the gain of the searched alpha and of each rule."""
    rows, known = [], found.get("alphas", measure.ALPHAS)
    for one in found["sets"]:
        base = np.mean([found["base"][task] for task in one["tasks"]])
        room = base - np.mean([found["own"][task] for task in one["tasks"]])
        for method, seen in one["methods"].items():

            def gain(alpha: float, seen: Any = seen, base: Any = base, room: Any = room) -> float:
                loss = np.mean(rules.loss_at(known, seen["losses"], alpha))
                return round(100 * float((base - loss) / room))

            now = "now, drawn" if method in DRAWN else "now"
            alphas = {
                "before": rules.RULES["projection"](seen["sums"]),
                "now": rules.RULES[now](seen["sums"]),
            }
            row = {"models": len(one["tasks"]), "method": method}
            row["searched"] = max(map(gain, known[: len(seen["losses"])]))
            for rule, alpha in alphas.items():
                row[rule], row[f"alpha {rule}"] = gain(alpha), float(f"{alpha:.3g}")
            rows.append(row)
        for method, losses in one["fixed"].items():
            gained = round(100 * float((base - np.mean(losses)) / room))
            rows.append({"models": len(one["tasks"]), "method": method, "now": gained})
    return rows


def main() -> None:
    measured = {}
    for name in families.names():
        path = Path(sys.argv[1], f"{name}.json")
        if path.exists():
            measured[name] = gains(json.loads(path.read_text()))
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    print("| family | models | " + " | ".join(f"`{m}`" for m in SHOWN) + " | `tsv_m` |")
    print("|---|---|" + "---|" * (len(SHOWN) + 1))
    for name, rows in measured.items():
        part = "" if name in families.SETTINGS and not families.SETTINGS[name].chooses else " *"
        for models in sorted({row["models"] for row in rows}):
            cells = []
            for method in SHOWN:
                mine = [r for r in rows if (r["models"], r["method"]) == (models, method)]
                worst = min(mine, key=lambda row: row["now"])
                cells.append("{searched} / {before} / {now}".format_map(worst))
            fixed = [r["now"] for r in rows if (r["models"], r["method"]) == (models, "tsv_m")]
            print(f"| {name}{part} | {models} | {' | '.join(cells)} | {min(fixed)} |")


if __name__ == "__main__":
    main()
