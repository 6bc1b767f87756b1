"""Trials of candidates on validation rows of one family: a line of JSON each.

`python -m experiments.ours.trials SUITE LOG --sizes 8 --candidates ta tsv_m "flow:time=2|svc"
--alphas .7 1 1.4 --rest mean auto`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from experiments.ours.candidates import parsed
from experiments.ours.lab import Lab, Step, merged


def rest_of(lab: Lab, who: list[int], rule: str) -> dict[str, np.ndarray]:
    """Return the step of what is no matrix: its sum times 1/T, c^1.25, or a number."""
    sums = {name: lab.taus[name][who].sum(axis=0) for name in lab.rest}
    if rule == "mean":
        factor = 1 / len(who)
    elif rule == "auto":
        square = sum(float(np.vdot(s, s)) for s in sums.values())
        factor = (lab.length(who, lab.rest) / square**0.5) ** 1.25
    else:
        factor = float(rule)
    return {name: factor * s for name, s in sums.items()}


def share(lab: Lab, who: Sequence[int], step: Step) -> float:
    """Return the share of the sum of the task vectors that a step of matrices has."""
    sums = {name: lab.taus[name][who].sum(axis=0) for name in step}
    product = sum(float(np.vdot(value, sums[name])) for name, value in step.items())
    return product / sum(float(np.vdot(s, s)) for s in sums.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("suite")
    parser.add_argument("log", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8])
    parser.add_argument("--candidates", nargs="+", required=True)
    parser.add_argument("--alphas", nargs="+", default=["1"])
    parser.add_argument("--rest", nargs="+", default=["mean"])
    asked = parser.parse_args()
    lab = Lab(asked.suite)
    everyone = range(len(lab.tasks))
    for text in asked.candidates:
        for size in asked.sizes:
            groups = [list(everyone[i : i + size]) for i in range(0, len(everyone), size)]
            steps = [merged(lab, who, parsed(text)) for who in groups]
            for rule in asked.rest:
                for alpha in map(float, asked.alphas):
                    values, lengths, shares = [], [], []
                    for who, (step, _) in zip(groups, steps, strict=True):
                        whole = {name: alpha * value for name, value in step.items()}
                        square = sum(float(np.vdot(v, v)) for v in whole.values())
                        lengths.append(square**0.5 / lab.length(who, lab.matrices))
                        shares.append(share(lab, who, whole))
                        values += lab.score({**whole, **rest_of(lab, who, rule)}, who)
                    row = {
                        "candidate": text,
                        "size": size,
                        "alpha": alpha,
                        "rest": rule,
                        "value": round(100 * fmean(values), 2),
                        "length": round(fmean(lengths), 3),
                        "share": round(fmean(shares), 4),
                        "seconds": round(fmean(s for _, s in steps), 2),
                        "tasks": [round(100 * v, 1) for v in values],
                    }
                    with asked.log.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(
                        text,
                        size,
                        rule,
                        alpha,
                        row["value"],
                        row["length"],
                        row["share"],
                        row["seconds"],
                        flush=True,
                    )


if __name__ == "__main__":
    main()
