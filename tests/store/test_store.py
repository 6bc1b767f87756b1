"""The store: what a merge of its tasks gives, at every revision, and the same bits again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from families import assert_same, checkpoints
from safetensors.numpy import save_file
from stores import filled, merged

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, MismatchError, RecipeError, StoreError
from breadcrumbs.plan import recipe
from breadcrumbs.store import Store, export, import_
from breadcrumbs.store.summed import Summed


@pytest.fixture
def from_sums(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each segment that was merged came from the running sum."""
    found: list[bool] = []
    summed = Summed._summed

    def noted(self, it, segment):
        merged = summed(self, it, segment)
        zeros = it.tensor.name == "layer.bias"  # all models hold some
        if it.context.plan.models and not it.tensor.copied and not zeros:
            found.append(merged is not None)
        return merged

    monkeypatch.setattr(Summed, "_summed", noted)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_every_change_gives_the_bits_of_a_merge(tmp_path: Path, dtype: str, from_sums) -> None:
    base, *models = checkpoints(tmp_path, dtype, models=4)
    with Store.create(tmp_path / "store", base, alpha=0.4) as store:
        weights: dict[str, float] = {}

        def check() -> None:
            mine = [models[int(name[1])] for name in weights]
            given = list(weights.values()) or None
            expected = breadcrumbs.merge(base, mine, weights=given, alpha=0.4)
            assert_same(merged(store), expected)

        check()
        for number in range(4):
            store.add(f"t{number}", models[number])
            weights[f"t{number}"] = 1.0
            check()
        for name, weight in (("t1", 0.37), ("t3", -2.0), ("t2", 0.0), ("t1", 1e-30), ("t2", 1.0)):
            store.set(name, weight)
            weights[name] = weight
            check()
        for name in ("t0", "t1", "t3", "t2"):
            store.remove(name)
            del weights[name]
            check()
    assert all(from_sums) and from_sums


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_add_and_remove_leave_no_bit_behind(tmp_path: Path, dtype: str) -> None:
    base, *models = checkpoints(tmp_path, dtype, models=4)
    with Store.create(tmp_path / "store", base) as store:
        store.add("a", models[0], weight=0.3)
        store.add("b", models[1], weight=-1.7)
        before = sums(store), merged(store)
        store.add("c", models[2], weight=1e-9)
        assert sums(store) != before[0]
        store.add("d", models[3], weight=3e12)
        store.remove("c")
        store.remove("d")
        assert sums(store) == before[0]
        assert_same(merged(store), before[1])
        assert store.verify().repaired == 0


def sums(store: Store) -> list[bytes]:
    """Return the sums and what is left out of them, of all blocks."""
    state = store._state(store.ledger.latest())
    found = []
    for tensor, number in store.sums._all():
        one = store.sums.at(tensor, number, state)
        found += [one.total.tobytes(), one.rest.tobytes(), one.inexact.tobytes()]
    return found


def test_sums_that_two_numbers_do_not_hold(tmp_path: Path) -> None:
    base = {"w": np.array([1.0, 3e-200, 0.0, 1e-300], np.float64)}
    save_file(base, tmp_path / "base.safetensors")
    steps = ([1e10, 1.0, 1e-310, 1e250], [1e-7, 1e30, 2.0, 1.0], [7e-80, 1e-60, 3e17, 1e-250])
    with Store.create(tmp_path / "s", tmp_path / "base.safetensors", method="task_arithmetic") as s:
        paths, before = [], None
        for number, step in enumerate(steps):
            paths.append(str(tmp_path / f"{number}.safetensors"))
            save_file({"w": base["w"] + np.array(step)}, paths[-1])
            s.add(f"t{number}", paths[-1], weight=1 + number / 3)
            if not number:
                before = sums(s), merged(s)["w"].tobytes()
        (tensor,) = s.base.tensors.values()
        assert s.sums.at(tensor, 0, s._state(3)).inexact.size
        weights = [1, 1 + 1 / 3, 1 + 2 / 3]
        expected = breadcrumbs.merge(
            tmp_path / "base.safetensors", paths, weights=weights, method="task_arithmetic"
        )
        assert_same(merged(s), expected)
        s.verify()
        s.remove("t1")
        s.remove("t2")
        assert (sums(s), merged(s)["w"].tobytes()) == before


def test_every_revision_again(tmp_path: Path, from_sums) -> None:
    store, _ = filled(tmp_path, models=3)
    with store:
        found = [merged(store, at=number) for number in range(4)]
        store.set("t2", 0.5)
        found.append(merged(store))
        store.remove("t1")
        found.append(merged(store))
    with Store.open(tmp_path / "store") as store:
        assert [revision.action for revision in store.log()] == ["add"] * 3 + ["set", "remove"]
        for number, expected in enumerate(found):
            assert_same(merged(store, at=number), expected)
            assert_same(merged(store, at=number, scratch=True), expected)
            assert store.verify(at=number).revision == number
        with pytest.raises(StoreError, match="no revision 6; the latest is 5"):
            store.merge(tmp_path / "out", at=6)
        assert store.diff(1, 5) == [
            {"name": "t1", "before": vars_of(store, 1)["t1"], "after": None},
            {"name": "t2", "before": None, "after": vars_of(store, 5)["t2"]},
            {"name": "t3", "before": None, "after": vars_of(store, 5)["t3"]},
        ]
    assert all(from_sums)


def vars_of(store: Store, at: int) -> dict:
    return {e.name: {"task": e.task, "weight": e.weight} for e in store.entries(at)}


@pytest.mark.parametrize("method", ["ties", "dare_linear", "breadcrumbs_ties", "tsv_m", "average"])
def test_other_methods(tmp_path: Path, method: str, from_sums) -> None:
    given = {} if method == "average" else {"alpha": 0.6}
    store, (base, *models) = filled(tmp_path, method=method, **given)
    with store:
        names = ["t1", "t2", "t3"]
        expected = breadcrumbs.merge(base, models, method=method, names=names, **given)
        assert_same(merged(store), expected)
        assert all(from_sums) == (method in ("dare_linear", "average"))
        store.verify()


def test_another_method_than_the_stores(tmp_path: Path) -> None:
    store, (base, *models) = filled(tmp_path, method="task_arithmetic")
    with store:
        for method in ("ties", "breadcrumbs"):
            expected = breadcrumbs.merge(base, models, method=method, alpha=0.7)
            assert_same(merged(store, method=method, alpha=0.7), expected)
        wide = breadcrumbs.merge(base, models, method="task_arithmetic", dtype="float64")
        assert_same(merged(store, dtype="float64"), wide)


def test_one_task_under_two_names(tmp_path: Path, from_sums) -> None:
    store, (base, *models) = filled(tmp_path, models=2, alpha=0.6)
    with store:
        before = sums(store)
        store.add("again", models[0])
        store.add("and again", models[0])
        assert len(list((tmp_path / "store" / "tasks").iterdir())) == 4  # their names differ
        file = tmp_path / "store" / "tasks" / f"{store.entries()[0].task}.safetensors"
        store.add("file", file)
        assert len(list((tmp_path / "store" / "tasks").iterdir())) == 4
        mine = [*models, *[models[0]] * 3]
        names = [entry.name for entry in store.entries()]
        assert_same(merged(store), breadcrumbs.merge(base, mine, names=names, alpha=0.6))
        store.remove("t1")
        store.remove("again")
        store.remove("file")
        assert sums(store) == before
    assert all(from_sums)


def alpha_of(folder: Path) -> float:
    return recipe.load(folder / "breadcrumbs.yaml").parameters["alpha"]


def test_alpha_is_found_anew_as_tasks_come_and_go(tmp_path: Path, from_sums) -> None:
    store, (base, *models) = filled(tmp_path, models=3)
    with store:
        assert "alpha" not in store.settings.parameters
        alphas = []
        for names in ([], ["t3"], ["t2"]):
            for name in names:
                store.remove(name)
            store.merge(tmp_path / "merged", force=True)
            alphas.append(alpha_of(tmp_path / "merged"))
            mine = models[: len(store.entries())]
            expected = breadcrumbs.merge(base, mine, alpha=alphas[-1])
            assert_same(dict(breadcrumbs.open(tmp_path / "merged")), expected)
            whole = tmp_path / f"whole{len(mine)}"
            breadcrumbs.merge(base, mine, output=whole)
            assert alphas[-1] == pytest.approx(alpha_of(whole), rel=0.1)
        assert alphas == sorted(alphas) and alphas[0] < 0.7 * alphas[-1]
        store.verify()
    assert all(from_sums)


def test_zeros_that_all_models_hold(tmp_path: Path) -> None:
    base = np.array([0.5, -0.5, 0.0, -0.0, 0.0, 1.0], np.float32)
    save_file({"w": base}, tmp_path / "base.safetensors")
    zeros = np.array([-0.0, 0.0, -0.0, 0.0, 0.0, 2.0], np.float32)
    mixed = np.array([0.0, 0.0, -0.0, -0.0, -0.0, -1.0], np.float32)
    for name, values in (("a", zeros), ("b", zeros), ("c", mixed)):
        save_file({"w": values}, tmp_path / f"{name}.safetensors")
    paths = [str(tmp_path / f"{name}.safetensors") for name in ["base", "a", "b", "c"]]
    with Store.create(tmp_path / "store", paths[0], method="average") as store:
        for number in range(1, 4):
            store.add(f"t{number}", paths[number])
            expected = breadcrumbs.merge(paths[0], paths[1 : number + 1], method="average")
            assert_same(merged(store), expected)
        store.remove("t1")
        assert_same(merged(store), breadcrumbs.merge(paths[0], paths[2:], method="average"))


def test_damaged_sums_are_made_again(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    with store:
        expected, blocks = merged(store), store.sums.blocks
    for name in ("totals", "blocks"):
        data = bytearray((tmp_path / "store" / "sums" / name).read_bytes())
        data[100] ^= 1
        (tmp_path / "store" / "sums" / name).write_bytes(data)
        with Store.open(tmp_path / "store") as store:
            assert_same(merged(store), expected)
            found = store.verify()
            assert found.blocks == blocks and found.repaired == (1 if name == "totals" else 0)
            assert store.verify().repaired == 0
    for path in (tmp_path / "store" / "sums").iterdir():
        path.unlink()
    with Store.open(tmp_path / "store") as store:
        assert_same(merged(store), expected)
        store.remove("t3")
        store.verify()


def test_damaged_task_file(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    path = sorted((tmp_path / "store" / "tasks").iterdir())[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with store, pytest.raises(StoreError, match="not that of its name"):
        store.verify()
    path.unlink()
    with Store.open(tmp_path / "store") as store, pytest.raises(BreadcrumbsError):
        store.verify()


def test_export_and_import(tmp_path: Path) -> None:
    store, (base, *_) = filled(tmp_path)
    with store:
        store.remove("t2")
        expected, early, log = merged(store), merged(store, at=2), store.log()
        export(store, tmp_path / "store.tar")
        with pytest.raises(BreadcrumbsError, match="exists"):
            export(store, tmp_path / "store.tar")
        first = (tmp_path / "store.tar").read_bytes()
        export(store, tmp_path / "store.tar", force=True)
        assert (tmp_path / "store.tar").read_bytes() == first
    Path(base).rename(tmp_path / "moved")
    with import_(tmp_path / "store.tar", tmp_path / "new", tmp_path / "moved") as again:
        assert again.log() == log
        assert_same(merged(again), expected)
        assert_same(merged(again, at=2), early)
        again.verify()
    with pytest.raises(MismatchError, match="its hash is"):
        import_(tmp_path / "store.tar", tmp_path / "other", tmp_path / "ft1")
    assert not (tmp_path / "other").exists()
    data = bytearray(first)
    data[-30_000] ^= 1
    (tmp_path / "bad.tar").write_bytes(data)
    for bad in (bytes(data), first[: len(first) // 2], first[:100], b"", b"x" * 2000):
        (tmp_path / "bad.tar").write_bytes(bad)
        with pytest.raises(StoreError):
            import_(tmp_path / "bad.tar", tmp_path / "other", tmp_path / "moved")
        assert not (tmp_path / "other").exists()
        assert not list(tmp_path.glob(".other*"))


def test_what_is_refused(tmp_path: Path) -> None:
    store, (base, *models) = filled(tmp_path, models=2)
    with store:
        with pytest.raises(StoreError, match="task 't1' exists already"):
            store.add("t1", models[0])
        with pytest.raises(StoreError, match="Did you mean 't1'"):
            store.remove("t11")
        with pytest.raises(StoreError, match="cannot be the name"):
            store.add("a\nb", models[0])
        with pytest.raises(RecipeError, match="not a finite number"):
            store.set("t1", float("nan"))
        whole = tmp_path / "whole.safetensors"
        tasks.pack(base, models[0], whole, transform="none")
        with pytest.raises(RecipeError, match="whole"):
            store.add("whole", whole)
        other = checkpoints(tmp_path / "other", seed=5, models=1)
        tasks.pack(other[0], other[1], tmp_path / "foreign.safetensors")
        with pytest.raises(MismatchError, match="Pack it with that base"):
            store.add("foreign", tmp_path / "foreign.safetensors")
        assert store.ledger.latest() == 2
        assert store.set("t1", 1.0) is None
    with pytest.raises(StoreError, match="not empty"):
        Store.create(tmp_path / "store", base)
    with pytest.raises(StoreError, match="is not a store"):
        Store.open(tmp_path)
    with Store.open(tmp_path / "store", other[0]) as moved, pytest.raises(MismatchError):
        moved.remove("t1")


def test_a_failed_add_leaves_nothing(tmp_path: Path) -> None:
    store, (base, *_) = filled(tmp_path, models=1)
    with store:
        before = sorted(path.name for path in (tmp_path / "store").rglob("*"))
        with pytest.raises(BreadcrumbsError):
            store.add("again", base)  # nothing changed, so nothing is kept
        assert sorted(path.name for path in (tmp_path / "store").rglob("*") if path) == sorted(
            {*before, "tmp"}
        )


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ("---\nlicense: [mit\n---\n", True),
        ("---\nlicense: mit\n", True),
        ("---\n- a\nb: c\n---\n", True),
        ("---\nlicense: mit\n---\n", False),
        ("---\ntags: [a]\n---\n", False),
        ("# A model\n", False),
    ],
)
def test_a_card_that_cannot_be_read_is_named(tmp_path: Path, card: str, told: bool) -> None:
    base, model, *_ = checkpoints(tmp_path)
    Path(model, "README.md").write_text(card)
    run = CliRunner().invoke
    run(main, ["store", "init", str(tmp_path / "s"), "--base", str(base)])
    result = run(main, ["store", "add", str(tmp_path / "s"), "one", str(model)])
    assert result.exit_code == 0, result.output
    assert ("its front matter cannot be read" in result.stderr) == told
    notes: list[str] = []
    with Store.open(tmp_path / "s") as store:
        store.add("two", model, license="mit", note=notes.append)
    assert not any("front matter" in note for note in notes)


def test_parts_in_the_card(tmp_path: Path) -> None:
    base, *models = checkpoints(tmp_path)
    Path(base, "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    Path(models[0], "README.md").write_text("---\nlicense: [mit, cc0-1.0]\n---\n")
    with Store.create(tmp_path / "store", base) as store:
        store.add("one", models[0], task_author="A | B")
        store.add("two", models[1], license="gpl-3.0", weight=0.5)
        store.add("three", models[2])
        store.merge(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\nlicense: unknown\ntags:\n")
    assert "No licence is stated by ../store/tasks/" in card, "of the third"
    assert "| base | base | apache-2.0 |" in card
    assert "| one | 1 | mit, cc0-1.0 | A \\| B |" in card
    assert "| two | 0.5 | gpl-3.0 | not stated |" in card
    assert "| three | 1 | not stated |" in card
    told = json.loads(breadcrumbs.open(tmp_path / "out").metadata["breadcrumbs"])
    parts = told["choice"]["store"]
    assert parts["revision"] == 3 and parts["base"]["license"] == "apache-2.0"
    assert [part["name"] for part in parts["tasks"]] == ["one", "two", "three"]
    recipe = CliRunner().invoke(
        main,
        ["merge", str(tmp_path / "out" / "breadcrumbs.yaml"), "-o", str(tmp_path / "x"), "-q"],
    )
    assert recipe.exit_code == 0, recipe.output
    assert_same(dict(breadcrumbs.open(tmp_path / "x")), dict(breadcrumbs.open(tmp_path / "out")))


def test_commands(tmp_path: Path) -> None:
    base, *models = checkpoints(tmp_path)
    store, merged_ = str(tmp_path / "store"), str(tmp_path / "merged")
    run = CliRunner().invoke

    def ok(*arguments: str):
        result = run(main, ["store", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert ok("init", store, "--base", base, "-p", "beta=0.8")["method"] == "breadcrumbs"
    ok("add", store, "one", models[0], "--license", "mit")
    assert ok("add", store, "two", models[1], "-w", "0.5")["revision"] == 2
    assert ok("set", store, "one", "weight=2")["tasks"][0]["weight"] == 2.0
    ok("remove", store, "two")
    (row,) = ok("list", store)
    assert (row["name"], row["license"], row["parameters"]["beta"]) == ("one", "mit", 0.8)
    assert len(ok("list", store, "--at", "2")) == 2
    assert [r["action"] for r in ok("log", store)] == ["add", "add", "set", "remove"]
    assert [r["name"] for r in ok("diff", store, "2", "4")] == ["one", "two"]
    ok("merge", store, "-o", merged_, "--at", "2", "-p", "alpha=0.3")
    expected = breadcrumbs.merge(base, models[:2], weights=[1, 0.5], beta=0.8, alpha=0.3)
    assert_same(dict(breadcrumbs.open(merged_)), expected)
    assert ok("verify", store)["revision"] == 4
    ok("export", store, "-o", str(tmp_path / "s.tar"))
    assert ok("import", str(tmp_path / "s.tar"), str(tmp_path / "new"))["revision"] == 4
    for arguments in (["list"], ["log"], ["verify"], ["diff", "0", "4"]):
        result = run(main, ["store", arguments[0], store, *arguments[1:]])
        assert result.exit_code == 0 and "one" in result.output + "one" * (arguments[0] == "verify")
    for arguments, code in (
        (["set", store, "one", "alpha=2"], 2),
        (["remove", store, "nine"], 1),
        (["list", merged_], 1),
    ):
        result = run(main, ["store", *arguments])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("model_stock", {}),
        ("tall_mask", {"task": "t2"}),
        ("consensus", {"scale": [0.2, 0.3, 0.4]}),
        ("nuslerp", {}),
    ],
)
def test_a_method_that_one_task_is_not_enough_for(
    tmp_path: Path, method: str, given: dict[str, Any]
) -> None:
    number = 2 if method == "nuslerp" else 3
    store, (base, *models) = filled(tmp_path, models=number, method=method, **given)
    names = [f"t{i + 1}" for i in range(number)]
    with store:
        expected = breadcrumbs.merge(base, models, method=method, names=names, **given)
        assert_same(merged(store), expected)
        with pytest.raises(BreadcrumbsError):
            store.merge(tmp_path / "one", at=1)
        other = checkpoints(tmp_path / "other", models=1, rows=99)[1]
        with pytest.raises(BreadcrumbsError, match="shape"):
            store.add("other", other)
