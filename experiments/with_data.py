"""What a few unlabelled rows give on the demo's family: `python -m experiments.with_data FOLDER`.

Writes the demo's models, images and a suite into FOLDER, merges by task arithmetic and TSV-M,
learns each kind of correction from 16, 64 and 200 validation rows a task, packs the fine-tunings
against the base and against the merges, scores all on the test rows once, and prints a table.
`results.sqlite` has all rows. docs/with-data.md shows what came out.

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
                tensor = torch.from_numpy(np.asarray(state[name], np.float32))
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
    """Merge, learn, pack, score and print."""
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.evaluate.results import exports, tables
    from breadcrumbs.evaluate.scoring import scores
    from breadcrumbs.evaluate.scoring.settings import Corrected, Settings, Spec
    from breadcrumbs.taskfile import view
    from breadcrumbs.tasks.packing import pack
    from breadcrumbs.tune.learn import heads

    folder.mkdir(parents=True, exist_ok=True)
    made = suites.load(prepare(folder))
    base, models = made.base, {task.name: str(task.finetuned) for task in made.tasks}
    settings = Settings(str(folder / "results.sqlite"), workers=1, cache=cache.folder())
    specs: list[Spec] = []
    places = {"base": base}
    for method, parameters in METHODS.items():
        path = folder / f"{method}.safetensors"
        if not path.exists():
            breadcrumbs.merge(base, [*models.values()], method=method, output=path, **parameters)
        places[method] = str(path)
        specs.append(str(path))
        for kind in KINDS:
            for number in ROWS:
                file = folder / f"{method}-{kind.replace(':', '')}-{number}.safetensors"
                if not file.exists():
                    draw = Draw(rows=number)
                    found = heads.learn(made, str(path), draw, kind=kind, cache=cache.folder())
                    found.save(file)
                specs.append(Corrected(str(path), str(file)))
    rows = scores.of(made, specs, settings)
    print(exports.markdown(exports.of_table(tables.of(rows))))
    for name, place in places.items():
        for label, options in PACKED.items():
            got, size = {}, 0
            for task, path in models.items():
                file = folder / f"{task}-{label.replace(' ', '')}-{name}.safetensors"
                pack(place, path, file, force=True, **options)
                size += file.stat().st_size
                with view.open_model(place, str(file)) as state:
                    got[task] = demo.accuracy(dict(state), task)
            own = {row.task: row.value for row in rows if row.own}
            ratio = np.mean([got[task] / own[task] for task in got])
            each = size / len(got) / 1000
            print(f"| packed, {label}, against {name} | {100 * ratio:.1f} | {each:.1f} kB a task |")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
