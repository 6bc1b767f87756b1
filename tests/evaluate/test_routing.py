"""Routers: which task a row is of, each row for itself, and what answers it, on a real network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bag_family
import numpy as np
import pytest
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs import tasks as task_files
from breadcrumbs.cli.group import main
from breadcrumbs.errors import CheckpointError, MismatchError, RecipeError, SuiteError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.corrections import heads
from breadcrumbs.evaluate.data.drawn import Draw
from breadcrumbs.evaluate.routing import logistic, router
from breadcrumbs.evaluate.scoring import scores
from breadcrumbs.evaluate.scoring.settings import Settings
from breadcrumbs.tune.learn import heads as correcting
from breadcrumbs.tune.learn import routing

torch = pytest.importorskip("torch")

TASKS = ("pairs", "all")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with two tasks, an expert of each, their merge, and one expert packed against it."""
    folder = tmp_path_factory.mktemp("routes")
    bag_family.prepare(folder)
    labels = {"pairs": ["pets", "cars"], "all": ["food", "pets"]}
    rng = np.random.default_rng(0)
    base = dict(breadcrumbs.load(folder / "base"))
    from safetensors.numpy import save_file

    lines = ["foundation: bag.py", "base: base", "tasks:"]
    for task in TASKS:
        splits = {"train": 60, "validation": 40, "test": 50}
        bag_family.write_rows(folder / f"{task}.csv", labels[task], splits)
        state = {
            n: np.asarray(a + 0.6 * rng.standard_normal(a.shape) * (a.ndim == 2)).astype(a.dtype)
            for n, a in base.items()
        }
        save_file(state, folder / f"{task}.safetensors")
        more = f"data: {task}.csv, text: text, label: label, finetuned: {task}.safetensors"
        lines.append(f"- {{task: {task}, {more}}}")
    (folder / "suite.yaml").write_text("\n".join(lines) + "\n")
    models = [str(folder / f"{task}.safetensors") for task in TASKS]
    merged = folder / "merged.safetensors"
    breadcrumbs.merge(folder / "base", models, method="task_arithmetic", output=merged, alpha=0.5)
    packed = {"transform": "none", "encoding": "exact"}
    task_files.pack(merged, models[1], folder / "all.task.safetensors", **packed)
    found = correcting.learn(suites.load(folder / "suite.yaml"), str(merged), Draw(), kind="affine")
    found.save(folder / "heads.safetensors")
    learned(folder).save(folder / "router.safetensors")
    learned(folder, heads=folder / "heads.safetensors").save(folder / "corrected.safetensors")
    return folder


def learned(home, **more) -> router.Router:
    suite, model = suites.load(home / "suite.yaml"), str(home / "merged.safetensors")
    if "heads" not in more:
        more.setdefault("experts", {"all": str(home / "all.task.safetensors")})
    return routing.learn(suite, model, Draw(answers="none"), device="cpu", **more)


def scored(home, tmp_path, file, **more):
    settings = Settings(str(tmp_path / "r.sqlite"), 1, "cpu", "float32", home / "cache")
    suite, model = suites.load(home / "suite.yaml"), str(home / "merged.safetensors")
    return scores.of(suite, [model], settings, alone=True, router=str(home / file), **more)


def one_by_one(home, found, head_given=False) -> dict[str, list[bool]]:
    """Return which test rows are answered right, each routed and answered alone."""
    suite = suites.load(home / "suite.yaml")
    made = suite.foundation
    base = made.load(suite.base)
    cards = {name: made.head(base, suite.task(name)) for name in TASKS}
    paths = {"pairs": home / "pairs.safetensors", "all": home / "all.safetensors"}
    modules = {name: made.load(str(path)) for name, path in paths.items()}
    merged = made.load(str(home / "merged.safetensors"))
    right = {}
    for name in TASKS:
        task = suite.task(name)
        rows, hits = task.rows("test"), []
        for number in range(len(rows)):
            one = replace(rows, inputs=[rows.inputs[number]], labels=rows.labels[[number]])
            with torch.inference_mode():
                (batch,) = made.prepare(task, one, 1)
                z = made.features(merged, batch)
                to = found.tasks[found.choose(z)[0]]
                better = made.features(modules[to], batch)
                if found.heads is not None:
                    better = found.heads.features(to, z)
                own = name if head_given else to
                answer = int(made.answer(cards[own], better).argmax())
            hits.append(suite.task(own).labels[answer] == task.labels[int(batch.labels[0])])
        right[name] = hits
    return right


@pytest.mark.parametrize(
    ("file", "given"),
    [("router.safetensors", False), ("router.safetensors", True), ("corrected.safetensors", False)],
)
def test_rows_are_routed_and_answered_each_for_itself(home, tmp_path, one_thread, file, given):
    found = router.load(home / file)
    rows = scored(home, tmp_path, file, head_given=given)[-2:]
    wanted = one_by_one(home, found, given)
    for row in rows:
        hits = np.unpackbits(np.frombuffer(row.hits, np.uint8), count=row.items).astype(bool)
        assert hits.tolist() == wanted[row.task]
        assert row.correction == replace(found, head_given=given).digest
        assert (row.task_known, row.answers, row.learned_split) == (given, "task", "validation")
        assert ("head given" if given else "task unknown") in row.label
    assert 0 < sum(sum(hits) for hits in wanted.values()) < 100
    again = scored(home, tmp_path, file, head_given=given)[-2:]
    assert [row.when for row in again] == [row.when for row in rows]  # found, not computed


def test_a_choice_depends_on_no_other_row(home):
    found = router.load(home / "router.safetensors")
    rng = np.random.default_rng(1)
    features = rng.standard_normal((500, 24)).astype(np.float32) * 0.2
    whole = found.choose(features)
    assert set(whole) == {0, 1}
    for size in (1, 7, 64):
        parts = [found.choose(features[at : at + size]) for at in range(0, 500, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    order = rng.permutation(500)
    assert np.array_equal(found.choose(torch.from_numpy(features[order])), whole[order])
    features[3] = np.nan
    assert found.choose(features)[3] == 0 and len(found.choose(features[:0])) == 0


def test_the_regression_is_at_its_least_and_counts_tasks_alike():
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(n, 5)) + 2 * np.eye(3, 5)[t] for t, n in enumerate((40, 9, 300))]
    weight, bias = logistic._least(rows, 1e-2, None)
    slope_w, slope_b = 1e-2 * weight, np.zeros(3)
    for task, mine in enumerate(rows):
        logits = mine @ weight.T + bias
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        chances[:, task] -= 1
        slope_w += chances.T @ mine / (3 * len(mine))
        slope_b += chances.mean(0) / 3
    assert np.abs(slope_w).max() < 1e-6 and np.abs(slope_b).max() < 1e-6
    told = logistic.fit(rows)
    moved = logistic.fit([1000 * one + 7 for one in rows])  # whatever the scale
    for task, mine in enumerate(rows):
        right = np.argmax(mine @ told["weight"].T + told["bias"], 1)
        assert (right == task).mean() > 0.7
        same = np.argmax((1000 * mine + 7) @ moved["weight"].T + moved["bias"], 1)
        assert (same == right).mean() > 0.98


def test_the_file_says_what_it_is_and_what_it_leads_to(home, tmp_path):
    found = router.load(home / "router.safetensors")
    assert found.digest == learned(home).digest and found.tasks == TASKS
    numbers = [one["numbers"] for one in found.about["tasks"]]
    whole = sum(array.size for array in breadcrumbs.load(home / "pairs.safetensors").values())
    assert numbers[0] == whole > numbers[1] > 0
    with pytest.raises(CheckpointError, match="is not a router"):
        router.load(home / "heads.safetensors")
    data = (home / "router.safetensors").read_bytes()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(data.replace(b'\\"draw\\"', b'\\"drew\\"'))
    with pytest.raises(CheckpointError, match="is a damaged router"):
        router.load(broken)
    other = correcting.learn(
        suites.load(home / "suite.yaml"), str(home / "merged.safetensors"), Draw(rows=9)
    )
    for name in ("corrected", "heads"):
        (tmp_path / f"{name}.safetensors").write_bytes((home / f"{name}.safetensors").read_bytes())
    assert router.load(tmp_path / "corrected.safetensors").heads is not None
    other.save(tmp_path / "heads.safetensors", force=True)
    with pytest.raises(SuiteError, match="leads to corrections"):
        router.load(tmp_path / "corrected.safetensors")


def test_what_is_of_another_model_is_refused(home, tmp_path, one_thread):
    suite = str(home / "suite.yaml")
    run = ["evaluate", suite, str(home / "all.safetensors"), "--router"]
    run += [str(home / "router.safetensors"), "--results", str(tmp_path / "r.sqlite")]
    done = CliRunner().invoke(main, [*run, "--workers", "1", "--precision", "float32"])
    assert done.exit_code == 1 and "was learned behind model" in done.output
    moved = learned(home, experts={"pairs": str(home / "merged.safetensors")})
    replace(moved, paths={t: str(home / "all.safetensors") for t in TASKS}).save(
        home / "moved.safetensors"
    )
    with pytest.raises(SuiteError, match="sends rows of 'pairs' to model"):
        scored(home, tmp_path, "moved.safetensors")
    with pytest.raises(SuiteError, match="a router leads to corrections or to experts"):
        learned(home, heads=home / "heads.safetensors", experts={"all": "x"})
    with pytest.raises(SuiteError, match="chooses between tasks"):
        learned(home, tasks=["all"])


# --- a live module ---


def test_a_switch_corrects_and_routes(home):
    suite = suites.load(home / "suite.yaml")
    made, merged = suite.foundation, str(home / "merged.safetensors")
    module = made.load(merged)
    before = {name: t.clone() for name, t in module.state_dict().items()}
    task = suite.task("all")
    batch = made.prepare(task, task.rows("validation"), 64)[0]
    z, found = made.features(module, batch).detach(), heads.load(home / "heads.safetensors")
    file = home / "corrected.safetensors"
    with breadcrumbs.switch(module, base=merged, router=file) as tasks:
        assert {*tasks.tasks} == {*TASKS} and tasks.features(z) is z
        with tasks.using("all") as now:
            assert torch.equal(tasks.features(made.features(now, batch)), found.features("all", z))
            assert tasks.task is None
        tasks.put("pairs")
        assert torch.equal(tasks.features(z), found.features("pairs", z))
        chosen = router.load(file)
        assert tasks.route(z) == [chosen.tasks[n] for n in chosen.choose(z)]
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    one = home / "all.task.safetensors"
    only = correcting.learn(suite, merged, Draw(), kind="head", tasks=["pairs"])
    only.save(home / "only.safetensors", force=True)
    head = {"classes": torch.ones(2, 24)}
    with breadcrumbs.switch(
        module, {"all": one}, base=merged, heads=home / "only.safetensors",
        router=home / "router.safetensors",
    ) as tasks:  # fmt: skip
        with tasks.using("all"):
            assert tasks.features(z) is z and tasks.head(head) is head
            assert not torch.equal(module.hidden.weight, before["hidden.weight"])
        with tasks.using("pairs"):
            assert torch.equal(module.hidden.weight, before["hidden.weight"])
            tuned = torch.from_numpy(only.numbers["pairs"]["classes"])
            assert torch.equal(tasks.head(head)["classes"], tuned)


def test_a_switch_refuses_what_does_not_fit(home):
    suite = suites.load(home / "suite.yaml")
    merged, file = str(home / "merged.safetensors"), home / "heads.safetensors"
    module = suite.foundation.load(merged)
    one = {"all": home / "all.task.safetensors"}
    with pytest.raises(RecipeError, match="no tasks is given"):
        breadcrumbs.switch(module, base=merged)
    with pytest.raises(RecipeError, match="Give base=, the merged model"):
        breadcrumbs.switch(module, heads=file)
    with pytest.raises(SuiteError, match="was learned behind model"):
        breadcrumbs.switch(module, base=suite.base, heads=file)
    with pytest.raises(MismatchError, match="other values"):
        breadcrumbs.switch(suite.foundation.load(suite.base), base=merged, heads=file)
    with pytest.raises(RecipeError, match="has 'all', which something was learned for"):
        breadcrumbs.switch(module, one, base=merged, heads=file)
    with pytest.raises(RecipeError, match="sends rows to 'pairs', which no file"):
        breadcrumbs.switch(module, one, base=merged, router=home / "router.safetensors")
    tasks = breadcrumbs.switch(module, base=merged, heads=file)
    with tasks, pytest.raises(RecipeError, match="there is no router"):
        tasks.route(np.zeros((1, 24), np.float32))
