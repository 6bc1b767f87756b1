"""Revisions of a team: authors, replacing, going back, dropping what is old, a base that moves."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner
from families import assert_same, checkpoints
from stores import filled, merged

from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, MismatchError, StoreError
from breadcrumbs.store import Store, collect, export, import_, info
from breadcrumbs.store.history import Entry, History, Revision


def test_who_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (_, *models) = filled(tmp_path, models=2)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Ada L.\n")
    with store:
        store.remove("t2", message="  worse than before ")
        store.set("t1", 0.5, author="B.", message="half")
        (tmp_path / "gitconfig").write_text("")
        monkeypatch.setenv("LOGNAME", "ada")
        store.add("t2", models[1])
        said = [(one.author, one.message) for one in store.log()]
        assert said[-3:] == [("Ada L.", "worse than before"), ("B.", "half"), ("ada", "")]
        for text in ("two\nlines", "x" * 2001):
            with pytest.raises(StoreError, match="message: give one line"):
                store.remove("t1", message=text)
        export(store, tmp_path / "store.tar")
        with import_(tmp_path / "store.tar", tmp_path / "again") as again:
            assert again.log() == store.log()


def test_replacing_is_removing_and_adding(tmp_path: Path) -> None:
    """In one revision, with the order of adding, which some methods heed."""
    for method in ("breadcrumbs", "sce"):
        store, (_, *models) = filled(tmp_path / method, models=3, method=method)
        shutil.copytree(store.folder, tmp_path / method / "other")
        other = Store.open(tmp_path / method / "other")
        with store, other:
            replaced = store.add("t1", models[2], replace=True, weight=0.3)
            assert replaced is not None and replaced.number == 4
            other.remove("t1")
            other.add("t1", models[2], weight=0.3)
            assert store.entries() == other.entries()
            assert_same(merged(store), merged(other))
            again = store.add("t1", models[2], replace=True)
            assert again is None and store.ledger.latest() == 4
            kept = store.add("t1", models[0], replace=True)
            assert kept is not None and kept.weight == 0.3
            with pytest.raises(StoreError, match="no task 't9' to replace"):
                store.add("t9", models[0], replace=True)


def test_going_back(tmp_path: Path) -> None:
    store, (_, *models) = filled(tmp_path)
    with store:
        before, entries = merged(store), store.entries()
        store.set("t2", -1.5)
        store.add("t1", models[2], replace=True)
        store.remove("t3")
        made = store.revert(3)
        assert made is not None and (made.number, made.action, made.target) == (7, "revert", 3)
        assert store.entries() == entries
        assert_same(merged(store), before)
        assert_same(merged(store, scratch=True), before)
        assert store.revert(7) is None
        store.revert(0)
        assert store.entries() == [] and store.entries(7) == entries
        store.set("t1", 2.0) if store.revert(7) else None
        with pytest.raises(StoreError, match="no revision 99; the latest is 10"):
            store.revert(99)
        shutil.rmtree(store.folder / "tasks")
        with pytest.raises(StoreError, match=r"task 't1' \(.*\): is gone"):
            Store.open(store.folder).revert(4)


def test_dropping_what_is_old(tmp_path: Path) -> None:
    store, (_, *models) = filled(tmp_path, models=4)
    with store:
        store.add("t1", models[3], replace=True)  # 5: t1's first file is of revisions 1 to 4
        store.remove("t2")  # 6
        store.revert(4)  # 7: and of this one
        store.remove("t2")  # 8
        store.remove("t1")  # 9
        expected = {at: merged(store, at=at) for at in (8, 9)}
        files = sorted((store.folder / "tasks").iterdir())
        size = sum(path.stat().st_size for path in files)
        plan = collect(store, keep=2)
        assert (plan.first, plan.revisions, plan.deleted) == (8, 7, False)
        assert [name for name, _, _ in plan.tasks] == ["t1", "t2"]
        assert sorted((store.folder / "tasks").iterdir()) == files and len(store.log()) == 9
        spilled = store.folder / "tasks" / f"{'0' * 64}.safetensors"
        spilled.write_bytes(b"of a killed process")
        done = collect(store, keep=2, delete=True)
        assert [one.number for one in store.log()] == [8, 9]
        assert done.bytes == plan.bytes + 19
        left = sum(path.stat().st_size for path in (store.folder / "tasks").iterdir())
        assert left == size - plan.bytes
        for at, state in expected.items():
            assert_same(merged(store, at=at), state)
            assert_same(merged(store, at=at, scratch=True), state)
        assert store.verify().repaired == 0
        with pytest.raises(StoreError, match=r"revision 4 was dropped .* the oldest kept is 8"):
            store.entries(4)
        assert store.entries(0) == []
        again = collect(store, keep=2, delete=True)
        assert (again.revisions, again.tasks) == (0, [])
        added = store.add("t2", models[1])
        assert added is not None and added.number == 10
        export(store, tmp_path / "store.tar")
    with import_(tmp_path / "store.tar", tmp_path / "new") as new:
        assert [one.number for one in new.log()] == [8, 9, 10]
        assert_same(merged(new, at=8), expected[8])
        collect(new, keep=1, delete=True)
        assert [entry.name for entry in new.entries()] == ["t3", "t4", "t2"]


def test_a_base_that_moved(tmp_path: Path) -> None:
    store, (base, *models) = filled(tmp_path, models=2)
    with store:
        before = merged(store)
    shutil.move(base, tmp_path / "moved")
    with Store.open(tmp_path / "store") as store:
        with pytest.raises(StoreError, match="give --base if it has moved"):
            store.merge(tmp_path / "x")
        with pytest.raises(MismatchError, match="its hash is"):
            store.move_base(models[0])
        store.move_base(tmp_path / "moved")
    with Store.open(tmp_path / "store") as store:
        assert_same(merged(store), before)
        assert len(store.log()) == 2


def test_a_store_of_the_first_version(tmp_path: Path) -> None:
    """Its history is taken over, in one transaction."""
    store, _ = filled(tmp_path, models=2)
    with store:
        expected, log = merged(store), store.log()
    with sqlite3.connect(store.ledger.path) as plain:
        for statement in (
            "DROP TABLE entries",
            "ALTER TABLE revisions RENAME TO now",
            "CREATE TABLE revisions (number INTEGER PRIMARY KEY, time TEXT NOT NULL, action TEXT"
            " NOT NULL, name TEXT NOT NULL, task TEXT NOT NULL REFERENCES tasks, weight REAL NOT"
            " NULL) STRICT",
            "INSERT INTO revisions SELECT number, time, action, name, task, weight FROM now",
            "DROP TABLE now",
            "PRAGMA user_version = 1",
        ):
            plain.execute(statement)
    plain.close()
    with Store.open(store.folder) as old:
        told = [(one.number, one.time, one.name, one.task) for one in old.log()]
        assert told == [(one.number, one.time, one.name, one.task) for one in log]
        assert_same(merged(old), expected)
        old.remove("t1", message="now with a message")
    with Store.open(store.folder) as again:
        assert again.log()[-1].message == "now with a message"


HASH = "a" * 64


def revision(number: int, action: str = "add", name: str = "a", **more) -> Revision:
    task = "" if action == "revert" else HASH
    return Revision(number, "2026", action, name, **{"task": task, "weight": 1.0, **more})


@pytest.mark.parametrize(
    ("log", "whole"),
    [
        ([revision(1), revision(2, "revert", "", target=0)], {}),  # not written out
        ([revision(1), revision(2, "revert", "", target=0)], {2: [Entry("a", HASH, 1.0)]}),
        ([revision(1), revision(2, "revert", "", target=2)], {2: []}),
        ([revision(1), revision(2, "revert", "")], {2: []}),
        ([revision(1), revision(2, "set", target=1)], {}),
        ([revision(1), revision(2, "replace", "b")], {}),
        ([revision(1), revision(2, "set")], {2: []}),
        ([revision(1)], {7: []}),
        ([revision(3)], {}),
        ([revision(3)], {3: [Entry("a", HASH, 1.0), Entry("a", HASH, 2.0)]}),
        ([revision(1), revision(2, "set", task="")], {}),
    ],
)
def test_histories_that_cannot_be(log: list[Revision], whole: dict[int, list[Entry]]) -> None:
    with pytest.raises(StoreError, match="go back to a copy"):
        list(History(log, whole).states())


def test_errors_name_tasks(tmp_path: Path) -> None:
    store, _ = filled(tmp_path / "a folder", models=2)
    with store:
        digest = store.entries()[1].task
        path = store.folder / "tasks" / f"{digest}.safetensors"
    data = path.read_bytes()
    for damaged in (data[:-1] + b"x", data[: len(data) // 2]):
        path.write_bytes(damaged)
        with Store.open(store.folder) as again:
            for ask in (
                again.verify,
                lambda store=again: store.merge(tmp_path / "x", scratch=True),
            ):
                with pytest.raises(BreadcrumbsError) as error:
                    ask()
                assert f"task 't2' ({path})" in str(error.value)
    path.unlink()
    with (
        Store.open(store.folder) as again,
        pytest.raises(BreadcrumbsError, match=r"task 't2' \(.*\).*no such file"),
    ):
        again.merge(tmp_path / "x")


def test_commands_of_a_team(tmp_path: Path) -> None:
    base, *models = checkpoints(tmp_path, models=2)
    place, out = str(tmp_path / "store"), str(tmp_path / "out")

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.output

    assert "note: fine-tunings that you add are cut by breadcrumbs" in run(
        "store", "init", place, "--base", base
    )
    plain = run("store", "init", f"{place}2", "--base", base, "-m", "task_arithmetic")
    assert "note:" not in plain
    assert "note:" not in run("store", "init", f"{place}3", "--base", base, "-q")
    run("store", "add", place, "one", models[0], "-m", "first", "--author", "A. B.")
    run("store", "add", place, "one", models[1], code=1)
    run("store", "add", place, "one", models[1], "--replace", "--task-author", "C.")
    run("store", "remove", place, "one", "-m", "why")
    assert "revision 4, 1 task" in run("store", "revert", place, "1", "-m", "back")
    assert "nothing changed" in run("store", "revert", place, "1")
    shown = run("store", "log", place)
    for word in ("A. B.", "first", "replace", "revert", "to 1", "back"):
        assert word in shown
    assert "A. B." not in run("store", "info", place) and "back" in run("store", "info", place)
    assert json.loads(run("store", "info", place, "--json"))["latest"] == 4
    with Store.open(place) as store:
        assert info(store)["packed_as"]["transform"] == "breadcrumbs"
    assert "kept of a task" in run("inspect", place)
    assert json.loads(run("inspect", place, "--json"))["store"]["latest"] == 4
    run("inspect", place, "--verify")
    run("store", "merge", place, "-o", out)
    assert "revision 4 of a store" in run("inspect", out) and "task one" in run("inspect", out)
    run("inspect", out, "--verify")
    assert "can go" in run("store", "gc", place)
    assert len(json.loads(run("store", "log", place, "--json"))) == 4
    assert "dropped 3 revisions before 4 and 1 task file" in run("store", "gc", place, "--delete")
    shutil.copytree(base, tmp_path / "moved")
    run("store", "set", place, "--base", str(tmp_path / "moved"))
    run("store", "set", place, "one", "weight=0.5", "--base", base)
    with Store.open(place) as store:
        assert (store.settings.base, store.entries()[0].weight) == (base, 0.5)
    for wrong in ([], ["one"], ["one", "alpha=1"]):
        run("store", "set", place, *wrong, code=2)
    (task,) = (tmp_path / "store" / "tasks").iterdir()
    task.write_bytes(task.read_bytes()[:-1])
    assert "task 'one'" in run("inspect", place, "--verify", code=1)
