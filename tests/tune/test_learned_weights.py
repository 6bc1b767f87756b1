"""Learned weights: gradients, what the recipe merges, runs that go on, and what is said of rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import bag_family
import numpy as np
import pytest
import tiny_module
from click.testing import CliRunner
from reference import breadcrumbs_mask
from references import classical

from breadcrumbs import checkpoint
from breadcrumbs.cli.group import main
from breadcrumbs.errors import RecipeError, SuiteError
from breadcrumbs.evaluate import learned as provenance
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.drawn import ABSENT, Answers, Draw
from breadcrumbs.evaluate.scoring import scores
from breadcrumbs.evaluate.scoring.scoring import featured
from breadcrumbs.evaluate.scoring.settings import Settings
from breadcrumbs.merging import files, opening
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.methods.parameters import Ranges
from breadcrumbs.modules.slots import Slots
from breadcrumbs.plan.recipe import Model, Recipe, load, to_yaml
from breadcrumbs.taskfile import view
from breadcrumbs.tasks.packing import pack
from breadcrumbs.tune.learn.weights import family as families
from breadcrumbs.tune.learn.weights import kinds, learned, ranks, vertices
from breadcrumbs.tune.learn.weights.lessons import backward, lessons

torch = pytest.importorskip("torch")
functional = torch.nn.functional

FEATURED = """

class Featured(BagFoundation):
    def features(self, module, batch):
        return module(**batch.inputs)

    def answer(self, head, features):
        return 20 * features @ head["classes"].T

    def logits(self, module, head, batch):
        return self.answer(head, self.features(module, batch))


FOUNDATION = Featured()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with two tasks of a small network, and a model of each."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("weights")
    bag_family.prepare(folder)
    (folder / "bag.py").write_text((folder / "bag.py").read_text() + FEATURED)
    base, rng = load_file(folder / "base" / "model.safetensors"), np.random.default_rng(5)
    lines = ["foundation: bag.py", "base: base", "tasks:"]
    for task in ("two", "three"):
        shutil.copytree(folder / "base", folder / f"m-{task}")
        state = {
            name: array
            if array.dtype.kind == "i"
            else array + 0.2 * rng.standard_normal(array.shape).astype(np.float32)
            for name, array in base.items()
        }
        save_file(state, folder / f"m-{task}" / "model.safetensors")
        data = f"data: {task}.csv, text: text, label: label, finetuned: m-{task}"
        lines.append(f"- {{task: {task}, {data}}}")
    (folder / "suite.yaml").write_text("\n".join(lines) + "\n")
    return folder


def recipe_of(home, method="task_arithmetic", **parameters) -> Recipe:
    models = tuple(Model(str(home / f"m-{task}"), name=task) for task in ("two", "three"))
    return Recipe(str(home / "base"), models, method, parameters)


def learn(home, recipe, kind="adamerging", draw=None, per=None, cache=None, tasks=(), **given):
    draw = draw or Draw(rows=24)
    settings = kinds.make(kind, draw.answers, per, given)
    suite = suites.load(home / "suite.yaml")
    more = {"device": "cpu", "precision": "float32", "threads": 1, "tasks": tasks}
    return learned.learn(suite, recipe, draw, settings, cache=cache, **more)


def scorer_of(home, draw):
    from breadcrumbs.evaluate.scoring.scoring import Scorer

    opened = draw.opened(suites.load(home / "suite.yaml"))
    return Scorer(opened, device="cpu", precision="float32", cache=None, train=True)


def weights_of(folder) -> dict[str, np.ndarray]:
    with checkpoint.open(str(folder)) as state:
        return {name: np.array(state[name]) for name in state}


def slow_parts(home, method, **settings) -> dict[str, list[np.ndarray]]:
    """Return of each float tensor what the models add for a weight of 1, float64, all held."""
    base = weights_of(home / "base")
    models = [weights_of(home / f"m-{task}") for task in ("two", "three")]
    names = [name for name, array in base.items() if array.dtype.kind == "f"]
    if method == "survivors":
        at = [classical.survivors(base, models, w, alpha=1, **settings)
              for w in ((1, 1), (2, 1), (1, 2))]  # fmt: skip
        return {name: [more[name] - at[0][name] for more in at[1:]] for name in names}
    taus = {
        n: [m[n].astype(np.float64) - base[n].astype(np.float64) for m in models] for n in names
    }
    if method == "breadcrumbs":
        for name, mine in taus.items():
            masks = [breadcrumbs_mask(np.abs(t.astype(np.float32)).ravel().tolist(), **settings)
                     for t in mine]  # fmt: skip
            taus[name] = [t * np.reshape(m, t.shape) for t, m in zip(mine, masks, strict=True)]
    return taus


def slow_loss(kind, logits, expert, labels):
    p = logits.softmax(-1)
    if kind == "entropy":
        return -(p * p.log()).sum(-1).mean()
    if kind == "labels":
        return -p[torch.arange(len(p)), labels].log().mean()
    if kind == "hard":
        return -p[torch.arange(len(p)), expert.argmax(-1)].log().mean()
    q = expert.softmax(-1)
    return (q * (q.log() - p.log())).sum(-1).mean()


@pytest.mark.parametrize(
    ("method", "settings", "loss"),
    [
        ("task_arithmetic", {}, "kl"),
        ("breadcrumbs", {"beta": 0.5, "gamma": 0.9, "granularity": "tensor"}, "entropy"),
        ("survivors", {"density": 0.5}, "labels"),
        ("task_arithmetic", {}, "hard"),
    ],
)
def test_gradients_are_those_of_autograd_through_all_models(home, method, settings, loss):
    known: dict[str, Answers] = {"entropy": "none", "labels": "labels"}
    draw = Draw(rows=12, answers=known.get(loss, "expert"))
    scorer = scorer_of(home, draw)
    suite = scorer.suite
    paths = {task.name: str(home / f"m-{task.name}") for task in suite.tasks}
    found = lessons(scorer, draw, suite.tasks, paths, None)
    assert [lesson.name for lesson in found] == ["three", "two"]
    with opening.opened(recipe_of(home, method, alpha=0.3, **settings)) as plan:
        family = families.Family(plan, scorer.slots, threads=1)
        weights = family.start.copy()  # all the same, in one case
        if method != "breadcrumbs":
            weights *= np.linspace(0.5, 2, weights.size).reshape(weights.shape)
        family.put(weights)
        module = scorer.module
        module.zero_grad()
        value = sum(backward(scorer, one, np.arange(12), loss) for one in found)
        mine = family.pull(weights)
    slow = {k: v for k, v in settings.items() if k != "granularity"}
    parts = slow_parts(home, method, **slow)
    scale = torch.tensor(weights, requires_grad=True)
    base = weights_of(home / "base")
    state = {}
    for column, name in enumerate(family.names):
        step = sum(scale[t, column] * torch.from_numpy(p) for t, p in enumerate(parts[name]))
        state[name] = (torch.from_numpy(base[name]).double() + step).float()
    foundation, total = featured(suite.foundation), torch.zeros(())
    for one in found:
        (batch,) = suite.foundation.prepare(one.task, one.rows.rows, 12)
        expert = None
        if draw.answers == "expert":
            whole = {n: torch.from_numpy(a) for n, a in weights_of(paths[one.name]).items()}
            features = torch.func.functional_call(module, whole, kwargs=batch.inputs)
            expert = foundation.answer(one.head, features)
        features = torch.func.functional_call(module, state, kwargs=batch.inputs)
        logits = foundation.answer(one.head, features)
        total = total + slow_loss(loss, logits, expert, batch.labels)
    total.backward()
    assert value == pytest.approx(total.item(), rel=1e-5)
    assert np.abs(mine).max() > 1e-3
    np.testing.assert_allclose(mine, scale.grad.numpy(), rtol=1e-3, atol=1e-6)
    used = [name for name in family.names if not name.startswith("unused")]
    assert (mine[:, [family.names.index(name) for name in used]] != 0).all()
    assert draw.answers == "labels" or set(found[0].rows.rows.labels) == {ABSENT}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["task_arithmetic", "survivors"])
def test_the_recipe_merges_without_data_to_the_bits_in_the_module(home, tmp_path, method, dtype):
    recipe = recipe_of(home, method)
    if dtype == torch.bfloat16:
        recipe = replace(recipe, dtype="bfloat16")
    scorer = scorer_of(home, Draw())
    with opening.opened(recipe) as plan:
        family = families.Family(plan, scorer.slots, threads=1)
        rng = np.random.default_rng(0)
        for per in ("tensor", "model"):
            weights = families.rounded(rng.uniform(0.1, 0.9, family.start.shape))
            if per == "model":
                weights[:] = weights[:, :1]
            family.put(weights)
            made = family.learned(weights, per)
            path = tmp_path / f"{per}.yaml"
            path.write_text(to_yaml(made))
            with Sweep(recipe.base) as sweep:
                merged = sweep.merged(load(path))
            for name, array in merged.items():
                inside = family.slots.names[name].tensor.detach()
                assert inside.numpy().tobytes() == array.astype(inside.numpy().dtype).tobytes()


def test_runs_go_on_and_orders_only_permute(home, tmp_path):
    recipe = recipe_of(home)
    whole = learn(home, recipe, steps="6", cache=tmp_path / "a")
    learn(home, recipe, steps="3", cache=tmp_path / "b")
    again = learn(home, recipe, steps="6", cache=tmp_path / "b")
    assert whole.weights.tobytes() == again.weights.tobytes() and whole.losses == again.losses
    assert learn(home, recipe, steps="3", cache=tmp_path / "a").losses == whole.losses[:3]
    turned = replace(recipe, models=recipe.models[::-1])
    other = learn(home, turned, steps="6", tasks=["three", "two"])
    assert other.weights[::-1].tobytes() == whole.weights.tobytes()
    assert other.recipe.learned == whole.recipe.learned
    assert learn(home, recipe, draw=Draw(rows=24, seed=1), steps="6").losses != whole.losses
    assert whole.weights.shape == (2, len(whole.tensors)) and whole.numbers == whole.weights.size
    one = learn(home, recipe, per="model", steps="6")
    assert (one.weights == one.weights[:, :1]).all() and not one.recipe.overrides
    assert one.recipe.models[0].weight == one.weights[0, 0] != 0.3


def test_the_loss_falls(home):
    found = learn(home, recipe_of(home), steps="25", rate="0.05", batch="24")
    assert found.losses[-1] < 0.8 * found.losses[0]
    assert found.weights.min() >= families.LEAST and found.weights.max() <= 1


@pytest.mark.parametrize("per", ["model", "tensor"])
@pytest.mark.parametrize("oracle", kinds.ORACLES)
def test_frank_wolfe_chooses_as_its_oracle_says(home, oracle, per):
    draw = Draw(rows=12, answers="labels")
    scorer, recipe = scorer_of(home, draw), recipe_of(home)
    base = weights_of(home / "base")
    found = lessons(scorer, draw, scorer.suite.tasks, {}, None)
    with opening.opened(recipe) as plan:
        family = families.Family(plan, scorer.slots, threads=1)
        family.put(family.start)
        for one in found:
            backward(scorer, one, np.arange(12), "labels")
        scores = vertices.choose(family, family.start, oracle)
        for column, name in enumerate(family.names):
            place = family.slots.names[name].tensor
            g = np.zeros(place.shape) if place.grad is None else place.grad.double().numpy()
            for t, parts in enumerate(slow_parts(home, "task_arithmetic")[name]):
                theta = base[name].astype(np.float64) + parts
                inner, lengths = (g * theta).sum(), np.linalg.norm(g) * np.linalg.norm(theta)
                slow = inner if oracle == "paper" else inner / lengths if lengths else 0.0
                assert scores[t, column] == pytest.approx(slow, rel=1e-6, abs=1e-9)
    got = learn(home, recipe, "frank-wolfe", draw, per, steps="1", rate="0.2", oracle=oracle)
    best = np.broadcast_to(
        scores.argmin(0) if per == "tensor" else scores.sum(1).argmin(), scores.shape[1]
    )
    expected = np.full(scores.shape, 0.3 * 0.8)
    expected[best, np.arange(scores.shape[1])] += 0.2
    np.testing.assert_allclose(got.weights, expected, rtol=1e-6)


def test_a_weight_that_is_tied_is_learned_once():
    module = tiny_module.Tiny()
    base, tuned = (tiny_module.state_of(tiny_module.Tiny(seed), tied=True) for seed in (0, 1))
    for name, array in base.items():
        if array.dtype.kind != "f":
            tuned[name] = array
    slots = Slots(module, base)
    recipe = Recipe("base", (Model("model"),), "task_arithmetic")
    with opening.opened(recipe, [base, tuned]) as plan:
        family = families.Family(plan, slots, threads=1)
        (name,) = {"embed.weight", "last.weight"} & set(family.names)
        family.put(family.start)
        module.eval()(torch.arange(5)).square().sum().backward()
        found = family.pull(family.start)[0, family.names.index(name)]
        tau = tuned["embed.weight"].astype(float) - base["embed.weight"]
        gradient = module.embed.weight.grad.double().numpy()
        assert found == pytest.approx((gradient * tau).sum(), rel=1e-6)
        weights = family.start * np.linspace(1, 2, family.start.size)
        family.put(weights)
        made = family.learned(weights, "tensor")
    with opening.opened(made, [base, tuned]) as plan:  # in which it is still tied
        merged, _ = files.to_arrays(plan)
    for name, array in merged.items():
        assert module.state_dict()[name].numpy().tobytes() == array.tobytes()


def test_task_files_give_the_gradients_of_what_they_stand_for(home, tmp_path):
    scorer, found = scorer_of(home, Draw()), []
    files = [str(tmp_path / f"{task}.safetensors") for task in ("two", "three")]
    for task, file in zip(("two", "three"), files, strict=True):
        pack(str(home / "base"), str(home / f"m-{task}"), file, beta=0.9, gamma=1)
    for kind in ("packed", "whole"):
        sources: list[Any] = [str(home / "base"), *files]
        if kind == "whole":
            for t, file in enumerate(files, 1):
                with view.open_model(sources[0], file) as state:
                    sources[t] = {name: np.array(state[name]) for name in state}
        with opening.opened(recipe_of(home), sources) as plan:
            family = families.Family(plan, scorer.slots, threads=1)
            family.put(family.start)
            rng = torch.Generator().manual_seed(0)
            for parameter in family.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=rng)
            found.append(family.pull(family.start))
    assert np.abs(found[0]).min() > 0
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_triplets_are_learned_as_autograd_says_and_merge_from_the_recipe(home, tmp_path):
    recipe, draw = recipe_of(home), Draw(rows=12, answers="labels")
    scorer = scorer_of(home, draw)
    found = lessons(scorer, draw, scorer.suite.tasks, {}, None)
    rng = np.random.default_rng(2)
    with opening.opened(recipe) as plan:
        family = ranks.Ranked(plan, scorer.slots, tmp_path, threads=1)
        assert set(family.logits) == {"hidden.weight", "unused.weight", "words.weight"}
        for logits in family.more():
            logits.copy_(torch.from_numpy(rng.standard_normal(len(logits))))
        weights = families.rounded(family.start * rng.uniform(0.5, 2, family.start.shape))
        family.put(weights)
        scorer.module.zero_grad()
        for one in found:
            backward(scorer, one, np.arange(12), "labels")
        mine = family.pull(weights)
        made = family.learned(weights, "tensor")
        inside = {n: s.tensor.detach().numpy().copy() for n, s in family.slots.names.items()}
    (tmp_path / "made.yaml").write_text(to_yaml(made))
    with Sweep(recipe.base) as sweep:
        merged = sweep.merged(load(tmp_path / "made.yaml"))
    for name, array in merged.items():
        np.testing.assert_allclose(inside[name], array, rtol=0, atol=1e-6)
    base, scale = weights_of(home / "base"), torch.tensor(weights, requires_grad=True)
    masks, state = {}, {}
    for column, name in enumerate(family.names):
        theta = torch.from_numpy(base[name]).double()
        for t, tau in enumerate(slow_parts(home, "task_arithmetic")[name]):
            part = torch.from_numpy(tau)
            if name in family.logits:
                u, s, v = np.linalg.svd(tau, full_matrices=False)
                logit = family.logits[name][t].detach().clone().requires_grad_(True)
                soft = (logit / 10).sigmoid()
                masks[name, t] = logit
                mask = (soft > 0.5).double() + soft - soft.detach()
                part = torch.from_numpy(u * s) * mask @ torch.from_numpy(v)
            theta = theta + scale[t, column] * part
        state[name] = theta.float()
    total, foundation = torch.zeros(()), featured(scorer.suite.foundation)
    for one in found:
        (batch,) = scorer.suite.foundation.prepare(one.task, one.rows.rows, 12)
        features = torch.func.functional_call(scorer.module, state, kwargs=batch.inputs)
        logits = foundation.answer(one.head, features)
        total = total + functional.cross_entropy(logits, batch.labels)
    total.backward()
    np.testing.assert_allclose(mine, scale.grad.numpy(), rtol=1e-3, atol=1e-6)
    for (name, t), logit in masks.items():
        if name != "unused.weight":
            got = family.logits[name][t].grad.numpy()
            assert np.abs(got).max() > 1e-7
            np.testing.assert_allclose(got, logit.grad.numpy(), rtol=2e-3, atol=1e-8)
    ended = learn(home, recipe, "adarank", steps="30", rate="0.02", batch="24")
    assert ended.losses[-1] < ended.losses[0]
    assert ended.recipe.method == "triplets+sum"
    assert any("keep" in one.parameters for one in ended.recipe.overrides)


def test_names_of_triplets():
    for kept, text in (("1101", "1-2,4"), ("0", "none"), ("11", "all"), ("0110", "2-3")):
        assert Ranges.of([c == "1" for c in kept]) == text
        if text != "all":
            assert list(Ranges.numbers(text)) == [i for i, c in enumerate(kept) if c == "1"]
            assert Ranges("all", "").parse(text) == text
    assert Ranges("all", "").parse(3) == "3"
    for text in ("0", "3-2", "2,1", "1-2,2", "", "1-", "a", None, True, "1234567"):
        with pytest.raises(ValueError):
            Ranges("all", "").parse(text)


def test_the_command_writes_a_recipe_that_is_known_for_what_it_saw(home, tmp_path, monkeypatch):
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(tmp_path / "cache"))
    suite, made = str(home / "suite.yaml"), tmp_path / "learned.yaml"
    run = ["learn", suite, "task_arithmetic", "--what", "weights", "--precision", "float32"]
    more = ["--split", "test-inputs", "--rows", "12", "--as", "symerge", "-p", "steps=2"]
    done = CliRunner().invoke(main, [*run, *more, "-o", str(made)])
    assert done.exit_code == 0, done.output
    assert "10 weights, on average two" in done.output and "72 encoder passes" in done.output
    heads = made.with_suffix(".heads.safetensors")
    merged = tmp_path / "merged"
    assert CliRunner().invoke(main, ["merge", str(made), "-o", str(merged)]).exit_code == 0
    settings = Settings(None, 1, "cpu", "float32", tmp_path / "cache")
    loaded = suites.load(suite)
    rows = scores.of(loaded, [str(made), str(merged)], settings, alone=True, heads=str(heads))
    assert len(rows) == 8 and len({row.model for row in rows}) == 1
    for row in rows:
        assert row.transductive and row.learned_split == "test-inputs" and row.learned_rows == 12
        assert row.task_known == bool(row.correction)
    told = provenance.of_recipe(load(made))
    assert told is not None
    for split, yes in (("test", True), ("validation", False)):
        found = provenance.facts(told["draw"], told["tasks"]["two"], split, ())
        assert found["transductive"] is yes
    other = scores.of(loaded, [str(merged)], settings, alone=True, split="validation")
    assert not any(row.transductive for row in other)
    assert "exists" in CliRunner().invoke(main, [*run, *more, "-o", str(made)]).output
    heads_only = [*run[:3], "--what", "heads", "--per", "model", "-o", "x.safetensors"]
    assert "--per is of --what weights" in CliRunner().invoke(main, heads_only).output


def test_what_cannot_be_learned_is_refused(home):
    for method in ("average", "ties", "tsv_m"):
        with pytest.raises(RecipeError, match="not a sum of weights times what the models add"):
            learn(home, recipe_of(home, method))
    with pytest.raises(SuiteError, match=r"called 'adamergin'. Did you mean 'adamerging'"):
        kinds.make("adamergin", "expert")
    with pytest.raises(SuiteError, match="has no number 'stepps'"):
        kinds.make("adamerging", "expert", None, {"stepps": "3"})
    with pytest.raises(SuiteError, match="steps: '0' is not possible"):
        kinds.make("adamerging", "expert", None, {"steps": "0"})
    with pytest.raises(SuiteError, match="entropy alone"):
        kinds.make("symerge", "none")
    mine = recipe_of(home)
    with pytest.raises(RecipeError, match="not above 0"):
        learn(home, replace(mine, models=(replace(mine.models[0], weight=-1), mine.models[1])))
    with pytest.raises(SuiteError, match="is not the base of the suite"):
        learn(home, replace(mine, base=str(home / "m-two"), models=mine.models[1:]))
