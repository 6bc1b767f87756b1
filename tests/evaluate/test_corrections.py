"""Corrections behind a frozen model: rows, closed form, the file, and scores with it."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import result_rows
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.demo import model as demo
from breadcrumbs.errors import CheckpointError, SplitError, SuiteError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.corrections import affine, heads, kinds
from breadcrumbs.evaluate.corrections.seen import Seen
from breadcrumbs.evaluate.data.drawn import ABSENT, Draw
from breadcrumbs.evaluate.results import database, exports, tables
from breadcrumbs.evaluate.results.results import _ADDED, _UNIQUE, COLUMNS, Results, _values
from breadcrumbs.evaluate.scoring import scores
from breadcrumbs.evaluate.scoring.settings import Settings
from breadcrumbs.tune.learn import heads as learning

torch = pytest.importorskip("torch")

SPLITS = ("validation", "test")
#: Sentences of two tasks: what they are about, and whether they ask.
THINGS = ("cat", "dog", "ship", "river", "bread", "violin", "winter", "garden", "teacher", "engine")
SAID = ("the {} is old", "i saw a {} today", "this {} pleases nobody", "we have a {} at home")
ASKED = ("is the {} old", "did you see a {}", "whom does this {} please", "do we have a {}")


# The closed form


def slow(z, e):
    """Return the affine map and the penalty by solving anew for every row left out."""
    share = (z * e).sum() / (e * e).sum()
    share = share if share > 0 else 1.0
    z, e = z.astype(float), share * e.astype(float)
    n, width = z.shape
    scale = np.square(z - z.mean(0)).sum() / min(n, width)
    nothing, shift = np.square(e - z).sum(), 0.0
    errors = dict.fromkeys(affine.PENALTIES, 0.0)

    def solved(a, b, penalty):
        c = a - a.mean(0)
        w = np.linalg.solve(c.T @ c + penalty * np.eye(width), c.T @ (b - a - (b - a).mean(0)))
        return w, (b - a).mean(0) - a.mean(0) @ w

    for left in range(n):
        a, b = np.delete(z, left, 0), np.delete(e, left, 0)
        shift += np.square(e[left] - z[left] - (b - a).mean(0)).sum()
        for factor in affine.PENALTIES:
            w, c = solved(a, b, factor * scale)
            errors[factor] += np.square(e[left] - z[left] - z[left] @ w - c).sum()
    best = min(errors, key=errors.__getitem__)
    if nothing <= min(shift, errors[best]):
        assert np.square(e / share - z).sum() <= np.square((e - z) / share).sum()
        return np.zeros((width, width)), np.zeros(width)
    w, b = np.zeros((width, width)), (e - z).mean(0)
    if errors[best] < shift:
        w, b = solved(z, e, best * scale)
    return (np.eye(width) + w) / share - np.eye(width), b / share


@pytest.mark.parametrize(("rows", "noise"), [(40, 0.01), (12, 0.3), (5, 0.1), (9, 1e9), (3, 0.1)])
def test_the_closed_form_is_that_of_rows_left_out_one_by_one(rows, noise):
    rng = np.random.default_rng(rows)
    z = rng.normal(size=(rows, 6)) + 3
    e = z + z @ (0.3 * rng.normal(size=(6, 6))) + 1 + noise * rng.normal(size=(rows, 6))
    weight, shift, _ = affine.solve(z, e)
    expected = slow(z, e)
    np.testing.assert_allclose(weight, expected[0], atol=1e-9)
    np.testing.assert_allclose(shift, expected[1], atol=1e-8)


def test_what_is_left_of_the_experts_features_is_brought_to_their_length():
    e = np.random.default_rng(0).normal(size=(8, 4))
    weight, shift, _ = affine.solve(0.5 * e, e)
    assert np.array_equal(weight, np.eye(4)) and not shift.any()


def test_sixteen_rows_do_good_on_the_demo():
    """Means over two tasks and 20 draws of 16 rows of 64; with s = 1 they do harm."""
    family = demo.load_family()
    made = breadcrumbs.merge(
        family.base, [*family.finetuned.values()], method="task_arithmetic", alpha=0.3
    )
    merged = {name: made[name].astype(np.float32) for name in made}
    before, after = [], []
    for name in ("turns", "vowels"):
        task, own = family.tasks[name], breadcrumbs.load(family.finetuned[name])
        images = [task.validation.images[:64], task.test.images[:200]]
        rows, test = (demo.encode(merged, i.astype(np.float32) / demo.LEVELS) for i in images)
        weights = {n: own[n].astype(np.float32) for n in own}
        goal = demo.encode(weights, images[0].astype(np.float32) / demo.LEVELS)
        head, truth = np.array(task.head).T, task.test.labels[:200]
        before.append((np.argmax(test @ head, 1) == truth).mean())
        for seed in range(20):
            at = np.random.default_rng(seed).permutation(64)[:16]
            weight, shift, _ = affine.solve(rows[at], goal[at])
            after.append((np.argmax((test + test @ weight + shift) @ head, 1) == truth).mean())
    assert np.mean(after) > np.mean(before), (np.mean(before), np.mean(after))


def test_where_nothing_helps_nothing_is_done():
    z = np.random.default_rng(0).normal(size=(8, 4))
    noise = np.array([[1, -1, 1, -1], [-1, 1, -1, 1]] * 4) * 0.1
    for e in (z, z + noise * np.array([1, 1, -1, -1] * 2)[:, None]):
        weight, shift, penalty = affine.solve(z, e)
        assert not weight.any() and not shift.any() and penalty == np.inf


@pytest.mark.parametrize("name", kinds.NAMES)
def test_a_correction_of_nothing_changes_no_bit(name):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(7, 5)).astype(np.float32)
    head = {"classes": torch.from_numpy(rng.normal(size=(3, 5)).astype(np.float32))}
    kind = kinds.make(name)
    if hasattr(kind, "steps"):
        kind.steps = 0
    answer = lambda head, features: features @ head["classes"].T  # noqa: E731
    labels = np.full(7, ABSENT)
    made = kind.fit(Seen("t", Draw(), z, z, head, answer, labels))
    numbers = {name: torch.from_numpy(array) for name, array in made.items()}
    features = torch.from_numpy(z)
    out = answer(kind.head(numbers, head), kind.features(numbers, features))
    assert out.numpy().tobytes() == answer(head, features).numpy().tobytes()


def test_kinds_have_names():
    assert (
        kinds.make("lowrank:3").name == "lowrank:3" and kinds.make("lowrank").name == "lowrank:16"
    )
    for name in ("lowrank:0", "lowrank:x", "affin", "head:3"):
        with pytest.raises(SuiteError, match="there is no correction"):
            kinds.make(name)


# On MiniLM


@pytest.fixture(scope="module")
def home(tmp_path_factory, minilm) -> Path:
    """A folder with two tasks of MiniLM, an expert of each and an average of all three."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("home")
    base = load_file(Path(minilm) / "model.safetensors")
    rng = np.random.default_rng(3)
    merged = {name: array.astype(np.float32) for name, array in base.items()}
    tasks = []
    for task in ("things", "moods"):
        lines = ["text,label"]
        for thing in THINGS:
            for mood, forms in (("said", SAID), ("asked", ASKED)):
                lines += [f"{f.format(thing)},{thing if task == 'things' else mood}" for f in forms]
        (folder / f"{task}.csv").write_text("\n".join(lines) + "\n")
        state = dict(base)
        for name in base:
            if ".5." in name and base[name].ndim == 2:
                step = 0.02 * rng.standard_normal(base[name].shape).astype(np.float32)
                state[name] = (base[name] + step).astype(base[name].dtype)
                merged[name] = merged[name] + step
        save_file(state, folder / f"{task}.safetensors")
        splits = {"train": "rest", "validation": 20, "test": 24}
        entry = {"task": task, "data": f"{task}.csv", "splits": splits}
        tasks.append({**entry, "finetuned": f"{task}.safetensors"})
    save_file(
        {n: a.astype(base[n].dtype) for n, a in merged.items()}, folder / "merged.safetensors"
    )
    told = {"foundation": "sentence", "base": str(minilm), "tasks": tasks}
    (folder / "suite.yaml").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def learned(home, one_thread) -> heads.Heads:
    return learn(home, "affine")


def learn(home, kind, draw=None, **more) -> heads.Heads:
    suite, draw = suites.load(home / "suite.yaml"), draw or Draw(rows=12)
    model, cache = str(home / "merged.safetensors"), home / "cache"
    given = {"kind": kind, "device": "cpu", "precision": "float32", "cache": cache} | more
    return learning.learn(suite, model, draw, **given)


def settings(home, tmp_path) -> Settings:
    return Settings(str(tmp_path / "r.sqlite"), 1, "cpu", "float32", home / "cache")


def test_features_and_answer_are_the_logits_bit_for_bit(home, one_thread):
    suite = suites.load(home / "suite.yaml")
    foundation, task = suite.foundation, suite.task("moods")
    module = foundation.load(suite.base)
    head = foundation.head(module, task)
    for batch in foundation.prepare(task, task.rows("validation"), 8):
        with torch.inference_mode():
            whole = foundation.logits(module, head, batch)
            features = foundation.features(module, batch)
            parts = foundation.answer(head, features)
        assert whole.numpy().tobytes() == parts.numpy().tobytes()
        assert features.shape == (len(batch.rows), 384) and features.dtype == torch.float32


def test_fewer_rows_are_among_more_whatever_their_order(home):
    suite = suites.load(home / "suite.yaml")
    draw = Draw(rows=12)
    task = draw.opened(suite).task("things")
    twelve = draw.rows_of(task).keys
    assert replace(draw, rows=5).rows_of(task).keys == twelve[:5]
    assert replace(draw, seed=1).rows_of(task).keys != twelve
    rows = task.rows("validation")
    back = replace(rows, inputs=list(rows.inputs)[::-1], labels=rows.labels[::-1])
    turned = replace(task, read=lambda split: back)
    assert draw.rows_of(turned).keys == twelve
    batch = draw.batch("things", 7, 4, 12)
    assert len(set(batch)) == 4 and set(batch) <= set(range(12))
    assert batch.tolist() == Draw(rows=3).batch("things", 7, 4, 12).tolist()
    assert batch.tolist() != draw.batch("things", 8, 4, 12).tolist()


def test_test_rows_are_opened_by_name_alone_and_have_no_labels(home):
    suite = suites.load(home / "suite.yaml")
    truth = suite.task("moods").rows("test").labels
    for draw in (Draw(), Draw("train")):
        with pytest.raises(SplitError, match="test rows were asked for"):
            draw.opened(suite).task("moods").rows("test")
    opened = Draw("test-inputs").opened(suites.load(home / "suite.yaml"))
    task = opened.task("moods")
    rows = Draw("test-inputs").rows_of(task)
    assert len(rows) == 24 and set(rows.rows.labels) == {ABSENT}
    assert set(task.rows("test").labels) == {ABSENT}
    with pytest.raises(SplitError, match="validation rows were asked for"):
        task.rows("validation")
    del rows
    seen, stack = set(), [task]
    while stack:  # all that the task holds: no labels of these rows
        one = stack.pop()
        code = callable(one) and hasattr(one, "__globals__")
        if id(one) in seen or isinstance(one, type) or code:
            continue
        seen.add(id(one))
        assert not (isinstance(one, np.ndarray) and np.array_equal(one, truth))
        assert not (isinstance(one, list) and set(map(str, one)) == {"said", "asked"})
        stack += gc.get_referents(one)
    with pytest.raises(SplitError, match="come without labels"):
        Draw("test-inputs", answers="labels")


def test_features_come_closer_to_the_expert_and_a_second_run_is_the_same(home, learned, one_thread):
    again = learn(home, "affine")
    assert again.digest == learned.digest
    # Nothing kept, turned, and each task in a process of its own.
    anew = learn(home, "affine", cache=None, tasks=["moods", "things"], on="processes:2")
    for task, numbers in learned.numbers.items():
        for name, array in numbers.items():
            assert array.tobytes() == anew.numbers[task][name].tobytes()
    assert anew.digest == learned.digest
    assert learn(home, "affine", Draw(rows=12, seed=1)).digest != learned.digest
    surgery = learn(home, "lowrank:4")
    assert surgery.digest == learn(home, "lowrank:4", tasks=["moods", "things"]).digest
    assert surgery.numbers["moods"]["down"].shape == (4, 384)


def test_the_command_learns_and_scores(home, learned, tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(home / "cache"))
    suite, model = str(home / "suite.yaml"), str(home / "merged.safetensors")
    file, results = tmp_path / "heads.safetensors", tmp_path / "r.sqlite"
    run = ["learn", suite, model, "--rows", "12", "--precision", "float32", "-o", str(file)]
    done = CliRunner().invoke(main, run)
    assert done.exit_code == 0, done.output
    assert "affine for 2 tasks, 147,840 numbers a task at most, 48 encoder passes" in done.output
    assert heads.load(file).digest == learned.digest
    assert "exists" in CliRunner().invoke(main, run).output
    made = suites.load(suite)
    rows = scores.of(made, [model], settings(home, tmp_path), heads=str(file))
    plain, mine = rows[-4:-2], rows[-2:]
    for before, row in zip(plain, mine, strict=True):
        assert row.label == f"{model} + affine (12 validation rows)"
        assert (row.learned_split, row.learned_rows, row.answers) == ("validation", 12, "expert")
        assert (row.extra_numbers, row.encoder_passes, row.task_known) == (147840, 24, 1)
        assert not row.transductive and row.normalised is not None
        assert before.correction == "" and row.correction == learned.digest
        assert row.model == before.model and row.head == before.head
    grid = exports.of_table(tables.of(rows))
    assert len(grid.body) == 4  # base, fine-tuned, and both of the merge
    with Results(results) as kept:
        assert len(kept.select(correction=learned.digest[:8])) == 2
    again = scores.of(made, [model], settings(home, tmp_path), heads=str(file))
    assert [r.when for r in again] == [r.when for r in rows]  # found, not computed
    other = CliRunner().invoke(
        main, ["evaluate", suite, str(home / "moods.safetensors"), "--heads", str(file),
               "--results", str(results), "--precision", "float32", "--workers", "1"],
    )  # fmt: skip
    assert other.exit_code == 1 and "was learned behind model" in other.output
    assert other.output.strip().count("\n") == 0
    seen = learned.facts("moods", "test", ())
    assert not seen["transductive"] and learned.facts("moods", "validation", ())["transductive"]
    key = bytes.fromhex(learned.about["tasks"]["moods"]["keys"][0]) + bytes(24)
    assert learned.facts("moods", "test", [key])["transductive"]


def test_a_damaged_or_foreign_file_is_one_line(home, learned, tmp_path):
    file = tmp_path / "heads.safetensors"
    learned.save(file)
    with pytest.raises(CheckpointError, match="is not a file of corrections"):
        heads.load(home / "merged.safetensors")
    data = file.read_bytes()
    for broken in (data.replace(b'\\"tasks\\"', b'\\"tosks\\"'), data[:-1]):
        file.write_bytes(broken)
        with pytest.raises(CheckpointError):
            heads.load(file)
    told = replace(learned, about={**learned.about, "as": "lowrank:x"})
    told.save(file, force=True)
    with pytest.raises(SuiteError, match="no correction 'lowrank:x'"):
        heads.load(file)


def test_what_cannot_be_learned_is_refused(home, one_thread):
    with pytest.raises(SuiteError, match="answers: expert, not labels"):
        learn(home, "affine", Draw(answers="labels"))
    with pytest.raises(SplitError, match="2 rows for an affine correction, which needs 3"):
        learn(home, "affine", Draw(rows=2))
    with pytest.raises(SuiteError, match=r"no task 'mods'. Did you mean 'moods'"):
        learn(home, "affine", experts={"mods": "x"})


# Results


def test_a_transductive_row_is_set_above_no_other():
    right = [1] * 10
    rows = [
        result_rows.row("a"),
        result_rows.row("d", right=[1] * 6 + [0] * 4),
        result_rows.row("c", right=right, correction="d" * 64, transductive=True),
    ]
    table = tables.of(rows).best_first()
    assert [line.label for line in table.lines] == ["models/a", "models/d", "models/c"]
    grid = exports.of_table(table)
    assert grid.body[2][0] == "models/c (transductive)" and {row for row, _ in grid.best} == {0}
    assert any("models/c: is transductive" in note for note in table.notes)
    fair = tables.of([replace(row, transductive=False) for row in rows]).best_first()
    assert fair.lines[0].label == "models/c"


def test_a_file_of_version_1_is_brought_to_this_one_without_loss(tmp_path):
    path, copy = tmp_path / "r.sqlite", tmp_path / "copy.sqlite"
    rows = [result_rows.row("a"), result_rows.row("b", finetuned="a" * 64), result_rows.row("c")]
    before = [name for name in COLUMNS if name not in _ADDED]
    old = {name: COLUMNS[name] for name in before}
    unique = [n for n in _UNIQUE if n in old]
    with sqlite3.connect(path) as plain:
        for statement in database._schema(old, unique):
            plain.execute(statement)
        for row in rows:
            values = [v for n, v in zip(COLUMNS, _values(row), strict=True) if n in old]
            marks = ", ".join("?" * (len(values) + 1))
            plain.execute(
                f"INSERT INTO rows ({database._quoted([*before, 'checksum'])}) VALUES ({marks})",
                [*values, database.seal(values)],
            )
        plain.execute(f"PRAGMA application_id = {database.files.APPLICATION}")
        plain.execute("PRAGMA user_version = 1")
    plain.close()
    shutil.copy(path, copy)
    content = copy.read_bytes()
    with Results(copy, readonly=True) as results:
        assert results.select() == rows
    assert copy.read_bytes() == content
    with Results(path) as results:
        assert results.select() == rows
        results.add(replace(rows[0], label="again"))
    with Results(path) as results:
        assert results.select()[:3] == rows and len(results.select()) == 4
