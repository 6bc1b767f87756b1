"""A small real network, tasks of a few words, and what fine-tunes the one on the others."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from bag_foundation import write_base

from breadcrumbs.evaluate.finetuning.training import Settings
from breadcrumbs.evaluate.finetuning.tuner import Tuner

NOUNS = {
    "pets": ["cat", "dog", "fish", "hamster", "bird"],
    "cars": ["wheel", "engine", "brake", "road", "fuel"],
    "food": ["bread", "soup", "cake", "apple", "rice"],
}
FILLER = ["the", "a", "is", "very", "some", "of", "with", "and", "it", "to"]
SETTINGS = Settings(epochs=3, rate=1e-2, batch=16, freeze=("hidden.bias",), precision="float32")


def prepare(folder: Path) -> None:
    """Write a base, its foundation, and a suite of two tasks."""
    write_base(folder / "base")
    shutil.copy(Path(__file__).with_name("bag_foundation.py"), folder / "bag.py")
    for name, labels in (("two", ["pets", "cars"]), ("three", list(NOUNS))):
        write_rows(folder / f"{name}.csv", labels, {"train": 200, "validation": 90, "test": 50})
    write_suite(folder, "two", "three")


def write_rows(path: Path, labels: Sequence[str], splits: dict[str, int]) -> None:
    draw = random.Random(path.stem)
    lines = ["text,label,split"]
    for split, number in splits.items():
        for row in range(number):
            label = draw.choice(labels)
            words = draw.choices(FILLER, k=draw.randint(0, 12)) + draw.choices(NOUNS[label], k=2)
            lines.append(f"{' '.join(words)} {row},{label},{split}")
    path.write_text("\n".join(lines) + "\n")


def write_suite(folder: Path, *tasks: str, foundation: str = "bag.py", base: str = "base") -> Path:
    lines = [f"foundation: {foundation}", f"base: {base}", "tasks:"]
    lines += [f"- {{task: {t}, data: {t}.csv, text: text, label: label}}" for t in tasks]
    path = folder / f"{'-'.join(tasks)}-{Path(foundation).stem}-{base}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def tuner(suite, output, settings=SETTINGS, every=1e9):
    return Tuner(suite, Path(output), settings, every=every)


def weights(folder) -> bytes:
    return (Path(folder) / "model.safetensors").read_bytes()
