"""What was developed, once, on test rows of a family that was not looked at before.

`python -m experiments.ours.judge SUITE OUT --size 50 --steps tsv_m iso_c iso_c@length=2`: a step is
a candidate, at alpha 1 unless ``@alpha=``, ``@length=`` (in mean task vectors, matrix by matrix) or
``@share=`` (exponent of c, as `alpha: auto`) says otherwise. ``base`` is the base.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

import numpy as np
from experiments.ours.candidates import parsed
from experiments.ours.lab import Lab, Step, merged
from experiments.ours.trials import rest_of, share


def scaled(lab: Lab, who: list[int], step: Step, rule: str) -> Step:
    """Return a step as long as a rule says."""
    name, _, text = rule.partition("=")
    value = float(text)
    if name == "alpha":
        return {n: value * step[n] for n in step}
    if name == "length":
        return {
            n: value * lab.length(who, [n]) / max(float(np.linalg.norm(step[n])), 1e-30) * step[n]
            for n in step
        }
    square = sum(float(np.vdot(s, s)) for s in (lab.taus[n][who].sum(axis=0) for n in step))
    crowded = lab.length(who, lab.matrices) / square**0.5
    factor = crowded**value / share(lab, who, step)
    return {n: factor * step[n] for n in step}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("suite")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int)
    parser.add_argument("--split", default="test")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--steps", nargs="+", required=True)
    asked = parser.parse_args()
    lab = Lab(asked.suite, asked.size, asked.rows)
    who = list(range(len(lab.tasks)))
    made: dict[str, Step] = {}
    for text in asked.steps:
        head, _, rule = text.partition("@")
        if head not in made:
            made = {head: merged(lab, who, parsed(head))[0] if head != "base" else {}}
        step = scaled(lab, who, made[head], rule or "alpha=1")
        rest = rest_of(lab, who, "mean") if head != "base" else {}
        values = lab.score({**step, **rest}, who, asked.split)
        square = sum(float(np.vdot(v, v)) for v in step.values())
        row = {
            "suite": lab.suite.name,
            "tasks": len(who),
            "rows": asked.rows,
            "step": text,
            "value": round(100 * fmean(values), 2),
            "length": round(square**0.5 / lab.length(who, lab.matrices), 3),
            "share": round(share(lab, who, step), 4) if step else 0.0,
        }
        with asked.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
