"""Everything of a suite from nothing: data, fine-tunings, scores, figures, and a page of them.

    python -m experiments.build text8 --out FOLDER --rows 50

is a quick look at the figures of the paper on 50 rows of each task and one seed. Without ``--rows``
and with ``--seeds 0 1 2`` it is what docs/paper.md shows, over many hours. Started again, it goes
on where it was: data and fine-tunings that are there stay, and scores are kept.

Figures are measured side by side, as many as there are cores, each in one process: what merging
takes long for is then merged once, and no core waits for the last point of a method.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from experiments.paper.contenders import CONTENDERS, SLOW
from experiments.paper.family import say
from experiments.paper.pages import table

from breadcrumbs.errors import listing
from breadcrumbs.modules.devices import device

#: The figures of papers for each suite, longest first. (fig5 takes two more foundations: see the
#: README.)
FIGURES = {
    "text8": ("fig2", "frontier", "fig3", "fig6", "table2", "fig9", "fig7", "fig8"),
    "text20": ("tall", "votes"),
    "wordnet200": ("fig4",),
    "lm6": ("frontier",),
}
#: What else docs/paper.md shows.
MORE = {
    "text8": ("encodings", "alpha", "compressed", "store"),
    "text20": ("alpha",),
    "wordnet200": ("alpha",),
    "lm6": (),
}
#: Where `fisher` and `regmean` stand in the table.
STATISTICS = ("text8",)
EPOCHS = {"wordnet200": 6}
#: The rows of each task where very many merges are scored: of all, and of ``--rows``.
FEWER = {"fig2": (100, 0.5)}
PYTHON = (sys.executable, "-m")
TRAINING = ("--rate", "3e-4", "--schedule", "linear", "--freeze", "embeddings.word_embeddings*")
#: Of a language model: embeddings and the lower half of the layers stay.
LANGUAGE = (
    *("--rate", "1e-4", "--batch", "8", "--epochs", "1", "--rows", "600"),
    *("--freeze", "model.embed_tokens.*", "--freeze", "model.layers.?.*"),
    *("--freeze", "model.layers.1[0-4].*"),
)
ADAPTERS = ("--lora", "16", "--rate", "4e-4")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every step as a command of its own; say what each took."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", choices=FIGURES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--rows", type=int, help="score so many rows of each task; default: all")
    parser.add_argument("--figures", nargs="+", help="default: those of the paper")
    given = parser.parse_args(arguments)
    names = given.figures or FIGURES[given.suite]
    known = FIGURES[given.suite] + MORE[given.suite]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--figures: no {listing(unknown)}. There are {listing(known)}.")
    began = time.monotonic()
    statistics = given.suite in STATISTICS and "frontier" in names
    for step in family(given.suite, given.out, given.seeds, statistics).items():
        run(*step)
    cores = 1 if device().type == "cuda" else os.cpu_count() or 1
    with ThreadPoolExecutor(min(cores, len(names))) as pool:
        commands = figures(given.out, given.seeds, given.rows, names, max(1, cores // len(names)))
        running = [pool.submit(run, *step, named=True) for step in commands.items()]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    page = write(given.out, names)
    say(f"== all of {given.suite}: {(time.monotonic() - began) / 60:.1f} min. See {page}")


def run(title: str, command: Sequence[str], named: bool = False) -> None:
    """Run a command; say what it took. named: put the title before each line that it prints.

    SystemExit if it fails.
    """
    start = time.monotonic()
    say(f"== {title}")
    pipe = subprocess.PIPE if named else None
    with subprocess.Popen(command, stderr=pipe, text=True, encoding="utf-8") as process:
        for line in process.stderr or ():
            say(f"{title}: {line.rstrip()}")
    if process.returncode:
        raise SystemExit(f"{title} ended with {process.returncode}: {' '.join(command)}")
    say(f"== {title}: {time.monotonic() - start:.0f} s")


def family(
    suite: str, out: Path, seeds: Sequence[int], statistics: bool
) -> Mapping[str, Sequence[str]]:
    """Return the commands that make the models, by title, in order."""
    models, data = str(out / "family"), str(out / "suite")
    numbers = list(map(str, seeds))
    tune = [*PYTHON, "breadcrumbs", "finetune", f"{data}/suite.yaml"]
    tune += [part for number in numbers for part in ("--seed", number)]
    tune += LANGUAGE if suite == "lm6" else TRAINING
    tune += ["--epochs", str(EPOCHS[suite])] if suite in EPOCHS else []
    found = {"data": [*PYTHON, "experiments.suites", suite, "--out", data]}
    found["fine-tunings"] = [*tune, "-o", models]
    if suite == "lm6":
        found["adapters"] = [*tune, *ADAPTERS, "-o", str(out / "adapters")]
    gather = [*PYTHON, "experiments.paper.gather", "--family", models, "--seeds", *numbers]
    return {**found, "statistics": gather} if statistics else found


def figures(
    out: Path, seeds: Sequence[int], rows: int | None, names: Sequence[str], workers: int
) -> Mapping[str, Sequence[str]]:
    """Return the commands that measure and draw figures, by name. workers: processes of each."""
    found = {}
    for name in names:
        command = [*PYTHON, "experiments.paper", name, "--family", str(out / "family")]
        command += ["--seeds", *map(str, seeds), "--workers", str(workers)]
        command += ["--out", str(out / "results" / f"{name}.json")]
        command += ["--figures", str(out / "figures")]
        of_all, part = FEWER.get(name, (None, 1))
        few = of_all if rows is None else max(1, int(rows * part))
        if name == "frontier":
            command += ["--parts", "untuned", "tuned"]  # what costs are is not told side by side
            quick = [one for one in CONTENDERS if one not in SLOW]
            command += ["--methods", *quick] if rows else []
        found[name] = [*command, *(["--rows", str(few)] if few else [])]
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
