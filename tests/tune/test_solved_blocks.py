"""Blocks that are solved, or whose coefficients are learned: against whole models, slowly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import breadcrumbs
from breadcrumbs import statistics
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.drawn import Draw
from breadcrumbs.tune.learn.blocks import kinds, learning, streamed

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

NAMES = ("moods", "things")
WORDS = ("cat", "dog", "ship", "river", "bread", "violin", "winter", "garden", "the old teacher")
ROWS = 20


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_bert) -> Path:
    """A folder with two tasks of a tiny BERT, an expert of each and their average."""
    folder = tmp_path_factory.mktemp("home")
    base, tasks = tiny_bert("base"), []
    for number, task in enumerate(NAMES):
        lines = ["text,label"]
        for i, one in enumerate(WORDS):
            for j, other in enumerate(WORDS):
                lines.append(f"{task} of {one} and {other},{'ab'[(i + j) % 2]}")
        (folder / f"{task}.csv").write_text("\n".join(lines) + "\n")
        rng = np.random.default_rng(number)
        state = {n: np.array(a) for n, a in breadcrumbs.load(base).items()}
        for name, array in state.items():
            if "encoder" in name:
                array += 0.1 * rng.standard_normal(array.shape).astype(np.float32)
        _save(state, folder / f"{task}.safetensors")
        splits = {"train": "rest", "validation": ROWS, "test": 10}
        entry = {"task": task, "data": f"{task}.csv", "splits": splits}
        tasks.append({**entry, "finetuned": f"{task}.safetensors"})
    told = {"foundation": "sentence", "base": base, "tasks": tasks}
    (folder / "suite.yaml").write_text(json.dumps(told))
    models = [folder / f"{task}.safetensors" for task in NAMES]
    breadcrumbs.merge(base, models, method="average", output=folder / "average.safetensors")
    return folder


def _save(state, path):
    from safetensors.numpy import save_file

    save_file(state, path)


def learn(home, output, name, **given):
    suite = suites.load(home / "suite.yaml")
    model, kind = str(home / "average.safetensors"), kinds.make(name, given)
    learning.learn(suite, model, output, Draw(rows=ROWS), kind, device="cpu", precision="float32")
    return breadcrumbs.load(output)


class Whole:
    """The models of a home, whole, and the batches of its rows."""

    def __init__(self, home):
        self.suite, draw = suites.load(home / "suite.yaml"), Draw(rows=ROWS)
        opened = draw.opened(self.suite)
        self.base = self.model(self.suite.base)
        self.merged = self.model(home / "average.safetensors")
        self.experts = {name: self.model(home / f"{name}.safetensors") for name in NAMES}
        self.batches = {}
        for name in NAMES:
            task = opened.task(name)
            rows = draw.rows_of(task).rows
            self.batches[name] = self.suite.foundation.prepare(task, rows, streamed.BATCH)

    def model(self, path):
        module = self.suite.foundation.load(self.suite.base).requires_grad_(False)
        state = breadcrumbs.load(path)
        module.load_state_dict(
            {name: torch.from_numpy(np.asarray(state[name])) for name in state}, strict=False
        )
        return module


def taken_in(module, batches, block):
    """Return by layer of a block the inputs (places, width) that are no padding, float64."""
    found: dict[str, list] = {}
    places: list = []

    def note(name):
        def hook(_layer, args, _out):
            found.setdefault(name, []).append(args[0][places[-1]].double().numpy())

        return hook

    layers = module.encoder.layer[block].named_modules()
    hooks = [m.register_forward_hook(note(n)) for n, m in layers if hasattr(m, "weight")]
    for batch in batches:
        places.append(batch.inputs["attention_mask"].bool())
        module(**batch.inputs)
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(parts) for name, parts in found.items()}


def slow(home, *, merged, lot, off_diagonal, ridge):
    """Return the state after solving block by block, by normal equations of whole models."""
    whole = Whole(home)
    for block in range(2):
        inputs = {}
        for name, expert in whole.experts.items():
            module = expert
            if merged:  # an expert's block behind the blocks merged so far
                module = whole.model(home / "average.safetensors")
                module.load_state_dict(whole.merged.state_dict())
                module.encoder.layer[block].load_state_dict(
                    expert.encoder.layer[block].state_dict()
                )
            inputs[name] = taken_in(module, whole.batches[name], block)
        layers = dict(whole.merged.encoder.layer[block].named_modules())
        olds = dict(whole.base.encoder.layer[block].named_modules())
        for layer in inputs[NAMES[0]]:
            target = layers[layer].weight
            reference = (olds[layer].weight if lot else target).double().numpy()
            steps, grams = [], []
            for name, expert in whole.experts.items():
                own = dict(expert.encoder.layer[block].named_modules())[layer].weight
                steps.append(own.double().numpy() - reference)
                x = inputs[name][layer]
                if "LayerNorm" in layer:
                    x = x - x.mean(-1, keepdims=True)
                    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
                    grams.append((x**2).mean(0))
                else:
                    gram = x.T @ x / len(x)
                    keep = np.eye(len(gram)) + off_diagonal * (1 - np.eye(len(gram)))
                    grams.append(gram * keep)
            if "LayerNorm" in layer:
                if not lot:
                    continue
                step = sum(s * g for s, g in zip(steps, grams, strict=True)) / sum(grams)
            else:
                total = sum(grams)
                right = sum(s @ g for s, g in zip(steps, grams, strict=True))
                more = ridge * np.trace(total) / len(total) * np.eye(len(total))
                step = right @ np.linalg.pinv(total + more, rcond=1e-10, hermitian=True)
            target.copy_(torch.from_numpy(reference + step).float())
    return whole.merged.state_dict()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("regmean", {}),
        ("regmean++", {"off_diagonal": 0.9, "ridge": 1e-3}),
        ("lot", {}),
        ("lot++", {}),
    ],
)
def test_solved_blocks_are_those_of_whole_models(home, tmp_path, one_thread, name, given):
    found = learn(home, tmp_path / "out.safetensors", name, **given)
    settings = kinds.make(name, given).settings
    expected = slow(home, merged="++" in name, lot="lot" in name, **settings)
    for tensor, array in found.items():
        np.testing.assert_allclose(array, expected[tensor].numpy(), atol=2e-4, err_msg=tensor)
    average = breadcrumbs.load(home / "average.safetensors")
    moved = [tensor for tensor in found if found[tensor].tobytes() != average[tensor].tobytes()]
    assert len(moved) == (16 if "lot" in name else 12)


def test_regmean_from_the_average_is_the_method_of_that_name(home, tmp_path, one_thread):
    whole = Whole(home)
    grams = [
        statistics.gram(whole.experts[name], [batch.inputs for batch in whole.batches[name]])
        for name in NAMES
    ]
    models = [home / f"{name}.safetensors" for name in NAMES]
    method = breadcrumbs.merge(whole.suite.base, models, method="regmean", statistics=grams)
    found = learn(home, tmp_path / "out.safetensors", "regmean")
    for tensor, array in found.items():
        if "pooler" not in tensor:
            np.testing.assert_allclose(array, method[tensor], atol=1e-5, err_msg=tensor)


def test_coefficients_are_learned_as_by_autograd_through_whole_models(home, tmp_path, one_thread):
    rate, alpha = 0.1, 0.3
    found = learn(home, tmp_path / "o.safetensors", "prodistill", steps=3, rate=rate, alpha=alpha)
    whole, draw = Whole(home), Draw(rows=ROWS)
    for block in range(2):
        prefix = f"encoder.layer.{block}."
        base = dict(whole.base.named_parameters())
        inside = [name for name in base if name.startswith(prefix)]
        taus = [
            {n: dict(whole.experts[task].named_parameters())[n] - base[n] for n in inside}
            for task in NAMES
        ]
        alphas = [{n: torch.full_like(base[n], alpha) for n in inside} for _ in NAMES]
        flat = [own[n].requires_grad_(True) for own in alphas for n in inside]
        adam = torch.optim.Adam(flat, lr=rate)

        def merged(base=base, inside=inside, taus=taus, alphas=alphas):
            return {
                n: base[n] + sum(a[n] * t[n] for a, t in zip(alphas, taus, strict=True))
                for n in inside
            }

        for step in range(3):
            loss = 0.0
            for task in NAMES:
                batches = whole.batches[task]
                number = len(batches)
                order = draw.batch(f"{task}\0{block}", step // number, number, number)
                batch = batches[order[step % number]]
                how = batch.inputs | {"output_hidden_states": True}
                out = torch.func.functional_call(whole.merged, merged(), kwargs=how)
                goal = whole.experts[task](**how).hidden_states[block + 1]
                square = (out.hidden_states[block + 1] - goal) ** 2
                loss = loss + square[batch.inputs["attention_mask"].bool()].mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        for name, value in merged().items():
            dict(whole.merged.named_parameters())[name].copy_(value.detach())
    for name, array in found.items():
        if "encoder" in name and "key.bias" not in name:  # which has no gradient but noise
            expected = whole.merged.state_dict()[name].numpy()
            away = np.abs(array - expected) > 1e-3
            assert away.mean() < 0.02, name


def test_numbers_out_of_range_are_refused():
    with pytest.raises(SuiteError, match=r"off_diagonal: 1\.5 is above 1"):
        kinds.make("regmean", {"off_diagonal": 1.5})
    with pytest.raises(SuiteError, match=r"no number 'steps'\. It has off_diagonal, ridge"):
        kinds.make("lot", {"steps": 3})
    assert math.isclose(kinds.make("regmean++").settings["off_diagonal"], 0.95)
