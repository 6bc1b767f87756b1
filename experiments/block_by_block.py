"""What learning block by block gives on the demo's family: `python -m experiments.block_by_block`.

    python -m experiments.block_by_block FOLDER [KIND ...]

Merges by task arithmetic and TSV-M, and learns every KIND (all unless told) from 64 and 200
unlabelled validation rows a task, with three seeds of the draw; scores all on the test rows once
and prints a table. `results.sqlite` has all rows. docs/with-data.md shows what came out.

The file is the suite's foundation too: the demo's encoder, in Torch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from experiments import with_data
from torch.nn import functional

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import cache
from breadcrumbs.demo import model as demo

ROWS, SEEDS = (64, 200), (0, 1, 2)
#: By name: the kind, what it begins as, and its numbers.
KINDS: dict[str, tuple[str, str, dict[str, float]]] = {
    "distill": ("distill", "tsv_m", {}),
    "distill-ta": ("distill", "task_arithmetic", {}),
    "prodistill": ("prodistill", "task_arithmetic", {}),
    "regmean": ("regmean", "average", {}),
    "regmean++": ("regmean++", "average", {}),
    "lot": ("lot", "average", {}),
    "lot++": ("lot++", "average", {}),
    "regmean-tsv": ("regmean", "tsv_m", {}),
    "surgery": ("blocks:16", "tsv_m", {}),  # corrections, task known
}


class Block(torch.nn.Module):
    """A block of the demo's encoder; names of weights are the checkpoint's."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm1, self.norm2 = (torch.nn.LayerNorm(width, demo.EPSILON) for _ in range(2))
        self.attention = torch.nn.ModuleDict(
            {"qkv": torch.nn.Linear(width, 3 * width), "out": torch.nn.Linear(width, width)}
        )
        self.mlp = torch.nn.ModuleDict(
            {"up": torch.nn.Linear(width, hidden), "down": torch.nn.Linear(hidden, width)}
        )

    def forward(self, x):
        n, places, width = x.shape
        split = self.attention["qkv"](self.norm1(x)).view(n, places, 3, demo.HEADS, -1)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        x = x + self.attention["out"](mixed.transpose(1, 2).reshape(n, places, width))
        return x + self.mlp["down"](functional.silu(self.mlp["up"](self.norm2(x))))


class Encoder(torch.nn.Module):
    """The demo's encoder: a stem, which no fine-tuning changes, and two blocks."""

    def __init__(self, state):
        super().__init__()
        hidden, width = state["blocks.0.mlp.up.weight"].shape
        self.blocks = torch.nn.ModuleList(Block(width, hidden) for _ in range(2))
        self.norm = torch.nn.LayerNorm(width, demo.EPSILON)
        for name in state:
            if not name.startswith(("blocks.", "norm.")):
                *path, last = name.split(".")
                place = self
                for part in path:
                    if not hasattr(place, part):
                        place.add_module(part, torch.nn.Module())
                    place = getattr(place, part)
                place.register_parameter(last, torch.nn.Parameter(torch.empty(state[name].shape)))
        wide = {name: torch.from_numpy(np.asarray(state[name], np.float32)) for name in state}
        self.load_state_dict(wide)

    def forward(self, x):
        weights = {n: p.detach().numpy() for n, p in self.named_parameters() if "blocks" not in n}
        x = torch.from_numpy(np.ascontiguousarray(demo.stem(weights, x.numpy())))
        for block in self.blocks:
            x = block(x)
        return functional.normalize(self.norm(x).mean(1), dim=-1)


class Demo(with_data.Demo):
    """The demo's encoder as a foundation with blocks."""

    def load(self, base):
        with checkpoint.open(base) as state:
            return Encoder(state).eval()

    def features(self, module, batch):
        return module(batch.inputs["pixels"].float() / demo.LEVELS)


FOUNDATION = Demo()


def prepare(folder: Path) -> Path:
    """Write the demo's models, images and suite, with this foundation; return the suite."""
    path = with_data.prepare(folder)
    told = yaml.safe_load(path.read_text()) | {"foundation": os.path.abspath(__file__)}
    path = folder / "blocks.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def run(folder: Path, names: list[str]) -> None:
    """Merge, learn, score and print."""
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.evaluate.results import exports, tables
    from breadcrumbs.evaluate.scoring import scores
    from breadcrumbs.evaluate.scoring.settings import Corrected, Settings, Spec
    from breadcrumbs.tune.learn import heads
    from breadcrumbs.tune.learn.blocks import kinds
    from breadcrumbs.tune.learn.blocks.learning import learn

    folder.mkdir(parents=True, exist_ok=True)
    made = suites.load(prepare(folder))
    models = [str(task.finetuned) for task in made.tasks]
    paths: list[Spec] = []
    for method, parameters in {**with_data.METHODS, "average": {}}.items():
        path = folder / f"{method}.safetensors"
        if not path.exists():
            breadcrumbs.merge(made.base, models, method=method, output=path, **parameters)
        paths.append(str(path))
    for name in names:
        kind, start, given = KINDS[name]
        for number in ROWS:
            for seed in SEEDS:
                path = folder / f"{name}-{number}-{seed}.safetensors"
                begun, draw = str(folder / f"{start}.safetensors"), Draw(rows=number, seed=seed)
                if not path.exists() and ":" in kind:
                    heads.learn(made, begun, draw, kind=kind).save(path)
                elif not path.exists():
                    learn(made, begun, path, draw, kinds.make(kind, given))
                paths.append(Corrected(begun, str(path)) if ":" in kind else str(path))
    settings = Settings(str(folder / "results.sqlite"), workers=1, cache=cache.folder())
    rows = scores.of(made, paths, settings)
    print(exports.markdown(exports.of_table(tables.of(rows))))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:] or list(KINDS))
