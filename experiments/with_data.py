"""What a few unlabelled rows give on the demo's family: `python -m experiments.with_data FOLDER`.

Writes the demo's models, images and a suite into FOLDER, merges by task arithmetic and TSV-M,
learns each kind of correction from 16, 64 and 200 validation rows a task, three draws each, packs
the fine-tunings against the base and against the merges, learns routers to what there is then,
scores all on the test rows once, and prints tables. `results.sqlite` has all rows.
docs/with-data.md shows what came out.

The file is the suite's foundation too: the demo's encoder, in NumPy, with a head of class means.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import cache
from breadcrumbs.demo import model as demo
from breadcrumbs.evaluate.foundations.foundation import Batch

KINDS = ("affine", "lowrank:16", "head")
ROWS = (16, 64, 200)
SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, Any]] = {"task_arithmetic": {"alpha": 0.3}, "tsv_m": {"alpha": 1.0}}
PACKED = {
    "top 10 %": {"beta": 0.9, "gamma": 1.0},
    "tsv:rank=8": {"transform": "none", "encoding": "tsv:rank=8"},
}


class Demo:
    """The demo's encoder as a foundation with features."""

    kind, trains_heads = "demo", False

    def __init__(self):
        self.settings = {"scale": 10.0}

    def load(self, base):
        root = torch.nn.Module()
        with checkpoint.open(base) as state:
            for name in state:
                *path, last = name.split(".")
                place = root
                for part in path:
                    if not hasattr(place, part):
                        place.add_module(part, torch.nn.Module())
                    place = getattr(place, part)
                tensor = torch.from_numpy(np.array(state[name], np.float32))
                place.register_parameter(last, torch.nn.Parameter(tensor))
        return root.eval()

    def prepare(self, task, rows, size):
        made = []
        for start in range(0, len(rows), size):
            numbers = np.arange(start, min(start + size, len(rows)))
            pixels = np.stack([np.asarray(rows.inputs[int(i)])[..., 0] for i in numbers])
            labels = torch.from_numpy(rows.labels[numbers])
            made.append(Batch({"pixels": torch.from_numpy(pixels)}, numbers, labels))
        return made

    def head(self, module, task):
        head = np.array(demo.load_family().tasks[task.name].head, np.float32)
        return {"classes": torch.from_numpy(head)}

    def features(self, module, batch):
        weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
        images = batch.inputs["pixels"].numpy().astype(np.float32) / demo.LEVELS
        return torch.from_numpy(np.ascontiguousarray(demo.encode(weights, images)))

    def answer(self, head, features):
        unit = torch.nn.functional.normalize(features, dim=-1)
        return self.settings["scale"] * unit @ head["classes"].T

    def logits(self, module, head, batch):
        return self.answer(head, self.features(module, batch))

    def loss(self, module, head, batch):
        return torch.nn.functional.cross_entropy(self.logits(module, head, batch), batch.labels)


FOUNDATION = Demo()


def prepare(folder: Path, foundation: str = __file__) -> Path:
    """Write the demo's models and images; return the suite of them. foundation: its file."""
    from breadcrumbs.demo import write

    family = demo.load_family()
    if not (folder / "models").exists():
        write(folder / "models")
    tasks = []
    for name, task in family.tasks.items():
        for split in ("validation", "test"):
            held = getattr(task, split)
            np.savez(folder / f"{name}-{split}.npz", images=held.images, labels=held.labels)
        files = {"train": "validation", "validation": "validation", "test": "test"}
        tasks.append(
            {
                "task": name,
                "data": {split: f"{name}-{of}.npz" for split, of in files.items()},
                "labels": [f"{name} {k}" for k in range(len(task.head))],
                "finetuned": f"models/{name}",
            }
        )
    path = folder / "suite.yaml"
    told = {"suite": "demo", "foundation": os.path.abspath(foundation), "base": "models/base"}
    path.write_text(yaml.safe_dump({**told, "tasks": tasks}))
    return path


def run(folder: Path) -> None:
    """Merge, learn, pack, route, score and print."""
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.scoring.settings import Settings

    folder.mkdir(parents=True, exist_ok=True)
    made = suites.load(prepare(folder))
    models = [str(task.finetuned) for task in made.tasks]
    settings = Settings(str(folder / "results.sqlite"), workers=1, cache=cache.folder())
    places = {}
    for method, parameters in METHODS.items():
        path = folder / f"{method}.safetensors"
        if not path.exists():
            breadcrumbs.merge(made.base, models, method=method, output=path, **parameters)
        places[method] = str(path)
    corrected(folder, made, places, settings)
    packed(folder, made, {"base": made.base, **places})
    routed(folder, made, places, settings)


def corrected(folder: Path, made: Any, places: dict[str, str], settings: Any) -> None:
    """Learn corrections behind merges, score them, and print means over draws."""
    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.evaluate.scoring import scores
    from breadcrumbs.evaluate.scoring.settings import Corrected
    from breadcrumbs.tune.learn import heads

    specs: list[Any] = []
    for method, path in places.items():
        specs.append(path)
        for kind in KINDS:
            for number in ROWS:
                for seed in SEEDS:
                    file = f"{method}-{kind.replace(':', '')}-{number}-{seed}.safetensors"
                    if not (folder / file).exists():
                        draw = Draw(rows=number, seed=seed)
                        found = heads.learn(made, path, draw, kind=kind, cache=cache.folder())
                        found.save(folder / file)
                    specs.append(Corrected(path, str(folder / file)))
    rows, size = scores.of(made, specs, settings, alone=True), len(made.tasks)
    own = {row.task: row.value for row in scores.of(made, [], settings) if row.own}
    each = [rows[at : at + size] for at in range(0, len(rows), size)]
    for spec, mine in zip(specs, each, strict=True):
        if isinstance(spec, str):
            print(f"| {Path(spec).stem} | none | {percent(mine, own):.1f} |")
    for method in places:
        for kind in KINDS:
            line = []
            for number in ROWS:
                start = f"{method}-{kind.replace(':', '')}-{number}-"
                found = [
                    percent(mine, own)
                    for spec, mine in zip(specs, each, strict=True)
                    if not isinstance(spec, str) and Path(spec.heads).name.startswith(start)
                ]
                line.append(f"{np.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})")
            print(f"| {method} | {kind} | {' / '.join(line)} |")


def percent(rows: Any, own: dict[str, float]) -> float:
    """Return the mean over tasks of what rows score, in percent of the fine-tuned models."""
    return 100 * float(np.mean([row.value / own[row.task] for row in rows]))


def packed(folder: Path, made: Any, places: dict[str, str]) -> None:
    """Pack the fine-tunings against models, and print what each keeps and how large it is."""
    from breadcrumbs.taskfile import view
    from breadcrumbs.tasks.packing import pack

    own = {t.name: demo.accuracy(dict(breadcrumbs.load(t.finetuned)), t.name) for t in made.tasks}
    for name, place in places.items():
        for label, options in PACKED.items():
            got, size = [], 0
            for task in made.tasks:
                file = at(folder, task.name, label, name)
                pack(place, task.finetuned, file, force=True, **options)
                size += file.stat().st_size
                with view.open_model(place, str(file)) as state:
                    got.append(demo.accuracy(dict(state), task.name) / own[task.name])
            each = size / len(got) / 1000
            print(f"| packed, {label}, against {name} | {100 * np.mean(got):.1f} | {each:.1f} kB |")


def at(folder: Path, task: str, label: str, name: str) -> Path:
    """Return where the task file of a task is, packed in a way against a model."""
    return folder / f"{task}-{label.replace(' ', '')}-{name}.safetensors"


def routed(folder: Path, made: Any, places: dict[str, str], settings: Any) -> None:
    """Learn routers to experts, task files and corrections, and print what rows score then."""
    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.evaluate.scoring import scores
    from breadcrumbs.evaluate.scoring.settings import Corrected
    from breadcrumbs.tune.learn import routing

    own = {row.task: row.value for row in scores.of(made, [], settings) if row.own}
    model, names = places["tsv_m"], [task.name for task in made.tasks]
    for number in ROWS:
        behind: dict[str, dict[str, Any]] = {"the fine-tuned models": {}}
        for label, name in (("top 10 %", "tsv_m"), ("tsv:rank=8", "base")):
            files = {task: str(at(folder, task, label, name)) for task in names}
            behind[f"{label}, against {name}"] = {"experts": files}
        file = folder / f"tsv_m-affine-{number}-0.safetensors"
        behind["affine corrections"] = {"heads": str(file)}
        for label, more in behind.items():
            draw = Draw(rows=number, answers="none")
            found = routing.learn(made, model, draw, cache=cache.folder(), **more)
            path = folder / "router.safetensors"
            found.save(path, force=True)
            specs = [Corrected(model, str(path), given) for given in (False, True)]
            rows, size = scores.of(made, specs, settings, alone=True), len(names)
            told = [percent(mine, own) for mine in (rows[:size], rows[size:])]
            print(f"| router to {label}, {number} rows | {told[0]:.1f} | {told[1]:.1f} |")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
