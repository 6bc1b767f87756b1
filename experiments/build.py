"""Everything of a suite from nothing: data, fine-tunings, scores, figures, and a page of them.

    python -m experiments.build text8 --out FOLDER --rows 50

is a quick look at all figures on 50 rows of each task and one seed. Without ``--rows`` and with
``--seeds 0 1 2`` it is what docs/paper.md shows, over many hours. Started again, it goes on where
it was: data and fine-tunings that are there stay, and scores are kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.paper.family import say
from experiments.paper.pages import table

#: What docs/paper.md shows of each suite. (fig5 takes two more foundations: see the README.)
FIGURES = {
    "text8": (
        *("table1", "fig2", "fig3", "fig6", "table2", "fig7", "fig8", "fig9"),
        *("alpha", "encodings", "store", "compressed"),
    ),
    "text20": ("tall", "votes", "alpha"),
    "wordnet200": ("fig4", "alpha"),
}
EPOCHS = {"wordnet200": 6}
#: Of figures that score very many merges: the rows of each task, unless told.
ROWS = {"fig2": 100}
TRAINING = ("--rate", "3e-4", "--schedule", "linear", "--freeze", "embeddings.word_embeddings*")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every step as a command of its own; say what each took."""
    parser = argparse.ArgumentParser(prog="python -m experiments.build", description=__doc__)
    parser.add_argument("suite", choices=FIGURES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--rows", type=int, help="score so many rows of each task; default: all")
    parser.add_argument("--figures", nargs="+", help="default: all of the suite")
    given = parser.parse_args(arguments)
    names = given.figures or FIGURES[given.suite]
    began = time.monotonic()
    for title, command in steps(given.suite, given.out, given.seeds, given.rows, names):
        start = time.monotonic()
        say(f"== {title}")
        if code := subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{title} ended with {code}: {' '.join(command)}")
        say(f"== {title}: {time.monotonic() - start:.0f} s")
    page = write(given.out, names)
    say(f"== all of {given.suite}: {(time.monotonic() - began) / 60:.1f} min. See {page}")


def steps(
    suite: str, out: Path, seeds: Sequence[int], rows: int | None, names: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Return (title, command) of every step, in order."""
    python = [sys.executable, "-m"]
    family, data = str(out / "family"), str(out / "suite")
    numbers = list(map(str, seeds))
    found = [("data", [*python, "experiments.suites", suite, "--out", data])]
    tune = [*python, "breadcrumbs", "finetune", f"{data}/suite.yaml", "-o", family, *TRAINING]
    tune += [part for number in numbers for part in ("--seed", number)]
    tune += ["--epochs", str(EPOCHS[suite])] if suite in EPOCHS else []
    found.append(("fine-tunings", tune))
    of = ["--family", family, "--seeds", *numbers]
    if "table1" in names:
        found.append(("statistics", [*python, "experiments.paper.gather", *of]))
    for name in names:
        ends = ["--out", str(out / "results" / f"{name}.json"), "--figures", str(out / "figures")]
        ends += ["--rows", str(rows or ROWS[name])] if rows or name in ROWS else []
        found.append((name, [*python, "experiments.paper", name, *of, *ends]))
    return found


def write(out: Path, names: Sequence[str]) -> Path:
    """Write a page of all tables and drawings; return its path."""
    parts = [f"# {out.name}"]
    for name in names:
        drawing = out / "figures" / f"{name}.svg"
        parts += [f"## {name}", f"![](figures/{name}.svg)"] if drawing.exists() else [f"## {name}"]
        parts.append(table(name, out / "results" / f"{name}.json"))
    page = out / "README.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


if __name__ == "__main__":
    main()
