"""SurgeryV2, greedy: against whole models, and corrections inside where they are scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import breadcrumbs
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.corrections import blocks, heads
from breadcrumbs.evaluate.corrections.blocks import Blocks
from breadcrumbs.evaluate.corrections.lowrank import begun
from breadcrumbs.evaluate.data.drawn import Draw
from breadcrumbs.evaluate.scoring import scores
from breadcrumbs.evaluate.scoring.settings import Settings
from breadcrumbs.tune.learn import heads as learning
from breadcrumbs.tune.learn.blocks import surgery

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

RANK, ROWS, STEPS = 3, 20, 50


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_bert) -> Path:
    """A folder with a task of a tiny BERT, its expert and a merge."""
    folder, base = tmp_path_factory.mktemp("home"), tiny_bert("base")
    words = ("cat", "dog", "ship", "river", "bread", "violin and piano", "winter", "a garden")
    lines = ["text,label"]
    lines += [
        f"{a} near {b},{'xy'[(i + j) % 2]}"
        for i, a in enumerate(words)
        for j, b in enumerate(words)
    ]
    (folder / "near.csv").write_text("\n".join(lines) + "\n")
    rng, state = (
        np.random.default_rng(0),
        {n: np.array(a) for n, a in breadcrumbs.load(base).items()},
    )
    for name, array in state.items():
        if "encoder" in name:
            array += 0.2 * rng.standard_normal(array.shape).astype(np.float32)
    _save(state, folder / "expert.safetensors")
    splits = {"train": "rest", "validation": ROWS, "test": 12}
    task = {"task": "near", "data": "near.csv", "splits": splits, "finetuned": "expert.safetensors"}
    told = {"foundation": "sentence", "base": base, "tasks": [task]}
    (folder / "suite.yaml").write_text(json.dumps(told))
    models = [folder / "expert.safetensors"]
    out = folder / "merged.safetensors"
    breadcrumbs.merge(base, models, method="task_arithmetic", alpha=0.5, output=out)
    return folder


def _save(state, path):
    from safetensors.numpy import save_file

    save_file(state, path)


@pytest.fixture(scope="module")
def learned(home, one_thread) -> heads.Heads:
    suite, kind, how = (
        suites.load(home / "suite.yaml"),
        Blocks(RANK, STEPS),
        {"precision": "float32"},
    )
    experts = {"near": str(home / "expert.safetensors")}
    how |= {"device": torch.device("cpu"), "progress": lambda done, total, what: None}
    return surgery.learn(
        suite, str(home / "merged.safetensors"), Draw(rows=ROWS), kind, experts, **how
    )


def whole(home, suite, name):
    """Return the module with the weights of a file, not to be trained."""
    module = suite.foundation.load(suite.base).requires_grad_(False)
    state = breadcrumbs.load(home / f"{name}.safetensors")
    wide = {name: torch.from_numpy(np.asarray(state[name])) for name in state}
    module.load_state_dict(wide, strict=False)
    return module


def test_each_block_is_fitted_on_what_the_corrected_ones_before_give(home, learned, one_thread):
    suite, draw = suites.load(home / "suite.yaml"), Draw(rows=ROWS)
    numbers = learned.numbers["near"]
    known = {name: torch.from_numpy(array) for name, array in numbers.items()}
    task = draw.opened(suite).task("near")
    merged, expert = (whole(home, suite, name) for name in ("merged", "expert"))
    batches = suite.foundation.prepare(task, draw.rows_of(task).rows, 16)
    assert len(batches) == 2 and (batches[1].inputs["attention_mask"] == 0).any()
    for number in range(2):
        outs, goals = [], []  # of a batch: of each row its places, and the mean that is wanted
        for batch in batches:
            how = batch.inputs | {"output_hidden_states": True}
            with blocks.within(merged.encoder.layer[:number], known):
                given = merged(**how).hidden_states[number + 1]
            goal = expert(**how).hidden_states[number + 1]
            masks = batch.inputs["attention_mask"].bool()
            outs.append([x[mask] for x, mask in zip(given, masks, strict=True)])
            means = [x[mask].mean(0) for x, mask in zip(goal, masks, strict=True)]
            goals.append(torch.stack(means))
        made = begun(f"0\0near\0{number}", RANK, 8)
        adam = torch.optim.Adam(list(made.values()), lr=1e-3)
        for step in range(STEPS):
            at = int(draw.batch(f"near\0{number}", step // 2, 2, 2)[step % 2])
            means = []
            for x in outs[at]:
                hidden = torch.relu(torch.einsum("rd,pd->pr", made["down"], x))
                means.append((x - torch.einsum("dr,pr->pd", made["up"], hidden)).mean(0))
            loss = (torch.stack(means) - goals[at]).abs().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        for name in ("down", "up"):
            expected = made[name].detach().numpy()
            np.testing.assert_allclose(numbers[f"{number}.{name}"], expected, atol=1e-4)


def test_it_is_scored_inside_and_nowhere_else(home, learned, tmp_path, one_thread):
    file, model = tmp_path / "h.safetensors", str(home / "merged.safetensors")
    suite, how = suites.load(home / "suite.yaml"), {"device": "cpu", "precision": "float32"}
    draw = Draw(rows=ROWS)
    learning.learn(suite, model, draw, kind=f"blocks:{RANK}", **how).save(file)
    settings = Settings(str(tmp_path / "r.sqlite"), 1, "cpu", "float32", tmp_path / "cache")
    row = scores.of(suite, [model], settings, heads=str(file))[-1]
    assert row.extra_numbers == 3 * 2 * 8 * RANK and row.encoder_passes == 2 * ROWS
    assert row.label.endswith("+ blocks:3 (20 validation rows)")
    found = heads.load(file)
    with pytest.raises(SuiteError, match="corrects blocks inside the model"):
        found.features("near", np.zeros((1, 8), np.float32))
    task = draw.opened(suite).task("near")
    merged, expert = (whole(home, suite, name) for name in ("merged", "expert"))
    batch = suite.foundation.prepare(task, draw.rows_of(task).rows, 32)[0]
    numbers = {n: torch.from_numpy(a) for n, a in found.numbers["near"].items()}
    nothing = {name: torch.zeros_like(one) for name, one in numbers.items()}
    features = suite.foundation.features
    with torch.inference_mode():
        plain, goal = features(merged, batch), features(expert, batch)
        with blocks.within(merged.encoder.layer, nothing):
            same = features(merged, batch)
        with blocks.within(merged.encoder.layer, numbers):
            better = found.kind.features(numbers, features(merged, batch))
    assert plain.numpy().tobytes() == same.numpy().tobytes()
    assert (better - goal).abs().mean() < 0.7 * (plain - goal).abs().mean()
