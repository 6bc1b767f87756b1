"""Ledgers and exports of stores that somebody altered: refused in one line, each for its reason."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from families import assert_same, checkpoints
from stores import filled, merged

from breadcrumbs import tasks
from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.store import Store, archive, export, import_


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of two tasks, an export of it, and what else tests take from there."""
    folder = tmp_path_factory.mktemp("made")
    store, (base, first, *_) = filled(folder, models=2)
    with store:
        store.set("t1", 0.5)
        export(store, folder / "store.tar")
    other = checkpoints(folder / "other", seed=5, models=1)
    tasks.pack(other[0], other[1], folder / "foreign.safetensors")
    tasks.pack(base, first, folder / "whole.safetensors", transform="none")
    return folder


def refused(error: pytest.ExceptionInfo[BreadcrumbsError]) -> str:
    text = str(error.value)
    assert len(text.splitlines()) == 1 and len(text) < 600
    return text


# --- the ledger ---------------------------------------------------------------------------------

LEDGERS = {
    "another program's": (["PRAGMA application_id = 7"], "is not the ledger of a store"),
    "a later version": (["PRAGMA user_version = 9"], "version 9; .* Update Breadcrumbs"),
    "no version": (["PRAGMA user_version = 0"], "version 0; .* It is damaged"),
    "another table": (["CREATE TABLE more (x)"], "tables are not those of a ledger"),
    "a trigger": (
        [
            "CREATE TRIGGER t AFTER INSERT ON revisions BEGIN UPDATE revisions SET weight = 9 WHERE"
            " number = 1; END"
        ],
        "tables are not those of a ledger",
    ),
    "a view in place of a table": (
        ["ALTER TABLE tasks RENAME TO hidden", "CREATE VIEW tasks AS SELECT * FROM hidden"],
        "tables are not those of a ledger",
    ),
    "another column": (["ALTER TABLE tasks ADD COLUMN x TEXT"], "tables are not those"),
    "an index": (["CREATE INDEX i ON revisions (name)"], "tables are not those of a ledger"),
    "a lost table": (["DROP TABLE settings"], "tables are not those of a ledger"),
    "a setting that is a number": (
        ["UPDATE settings SET value = '7' WHERE key = 'base_hash'"],
        "cannot be read: base_hash",
    ),
    "parameters that are a list": (
        ["UPDATE settings SET value = '[]' WHERE key = 'parameters'"],
        "cannot be read: parameters",
    ),
    "a setting too many": (["INSERT INTO settings VALUES ('more', '1')"], "cannot be read"),
    "a setting that is no JSON": (
        ["UPDATE settings SET value = '{' WHERE key = 'method'"],
        "cannot be read",
    ),
    "a lost setting": (["DELETE FROM settings WHERE key = 'base'"], "cannot be read"),
    "a gap": (["UPDATE revisions SET number = 9 WHERE number = 3"], "does not follow"),
    "an unknown action": (
        ["UPDATE revisions SET action = 'rename' WHERE number = 3"],
        "does not follow",
    ),
    "a name added twice": (
        [
            "UPDATE revisions SET name = 't1' WHERE number = 2",
            "DELETE FROM revisions WHERE number = 3",
        ],
        "does not follow",
    ),
    "a removal of what is not there": (
        ["UPDATE revisions SET name = 't9', action = 'remove' WHERE number = 3"],
        "does not follow",
    ),
    "a weight of another task": (
        ["UPDATE revisions SET task = (SELECT task FROM revisions WHERE number = 2) WHERE"
         " number = 3"],
        "does not follow",
    ),
    "what a task says is no JSON": (["UPDATE tasks SET said = '['"], "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", LEDGERS)
def test_an_altered_ledger_is_refused(made: Path, tmp_path: Path, what: str) -> None:
    statements, message = LEDGERS[what]
    shutil.copytree(made / "store", tmp_path / "store")
    with sqlite3.connect(tmp_path / "store" / "ledger.sqlite") as plain:
        for statement in statements:
            plain.execute(statement)
    plain.close()
    with (
        pytest.raises(BreadcrumbsError, match=message) as error,
        Store.open(tmp_path / "store") as store,
    ):
        store.entries()
        store.merge(tmp_path / "out")
    refused(error)
    assert not (tmp_path / "out").exists()


def test_a_ledger_that_was_copied_is_the_same(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "store", tmp_path / "store")
    with sqlite3.connect(tmp_path / "store" / "ledger.sqlite") as plain:
        plain.execute("VACUUM")
    plain.close()
    with Store.open(tmp_path / "store") as store, Store.open(made / "store") as first:
        assert store.log() == first.log()
        assert_same(merged(store), merged(first))


# --- exports --------------------------------------------------------------------------------------

Head = dict[str, Any]
Members = dict[str, bytes]


def _read(path: Path) -> tuple[Head, Members]:
    with tarfile.open(path) as opened:
        members = {m.name: opened.extractfile(m).read() for m in opened}  # type: ignore
    return json.loads(members.pop("store.json")), members


def _write(path: Path, head: Head, members: Members, first: str = "store.json") -> None:
    with tarfile.open(path, "w") as out:
        for name, data in {first: json.dumps(head).encode(), **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))


def _name(digest: str) -> str:
    return f"tasks/{digest}.safetensors"


def _instead(data: bytes, said: Head | None = None) -> Callable[[Head, Members], None]:
    """Return what puts another task file in the place of the first one, noted as it is."""

    def change(head: Head, members: Members) -> None:
        old, new = head["tasks"][0]["hash"], blake3(data).hexdigest()
        del members[_name(old)]
        members[_name(new)] = data
        head["tasks"][0] |= {"hash": new, "bytes": len(data)} | ({"said": said} if said else {})
        for revision in head["log"]:
            if revision["task"] == old:
                revision["task"] = new

    return change


def _task(head: Head, members: Members) -> str:
    return _name(head["tasks"][0]["hash"])


def _flip(head: Head, members: Members) -> None:
    name = _task(head, members)
    data = bytearray(members[name])
    data[-1] ^= 1
    members[name] = bytes(data)


def _swap(head: Head, members: Members) -> None:
    one, other = (_name(task["hash"]) for task in head["tasks"])
    members[one], members[other] = members[other], members[one]


EXPORTS: dict[str, tuple[Callable[[Head, Members], Any], str]] = {
    "a later version": (lambda h, m: h.update(version=9), "version 9; .* Update"),
    "no version": (lambda h, m: h.pop("version"), "cannot be read: 'version'"),
    "bytes that are a text": (
        lambda h, m: h["tasks"][0].update(bytes="9"), "cannot be read: bytes"
    ),
    "bytes that are a bool": (
        lambda h, m: h["tasks"][0].update(bytes=True), "cannot be read: bytes"
    ),
    "what a task says is a list": (
        lambda h, m: h["tasks"][0].update(said=[]), "cannot be read: said"
    ),
    "a hash that is a path": (
        lambda h, m: h["tasks"][0].update(hash="../../x"), "is not a hash of a task file"
    ),
    "a weight that is a text": (
        lambda h, m: h["log"][0].update(weight="1"), "cannot be read: weight"
    ),
    "a time that is a number": (lambda h, m: h["log"][0].update(time=5), "cannot be read: time"),
    "a number that is a bool": (
        lambda h, m: h["log"][0].update(number=True), "cannot be read: number"
    ),
    "a base hash that is a number": (
        lambda h, m: h["settings"].update(base_hash=5), "cannot be read: base_hash"
    ),
    "parameters that are a list": (
        lambda h, m: h["settings"].update(parameters=[1]), "cannot be read: parameters"
    ),
    "an unknown setting": (lambda h, m: h["settings"].update(more=1), "cannot be read"),
    "a log that is not a list": (lambda h, m: h.update(log={}), "cannot be read: log"),
    "a task that is not there": (
        lambda h, m: h["log"][0].update(task="0" * 64), "names a task that it does not hold"
    ),
    "a weight that is not a number": (
        lambda h, m: h["log"][2].update(weight=float("nan")), "not a finite number"
    ),
    "a name of two lines": (
        lambda h, m: [r.update(name="a\nb") for r in h["log"] if r["name"] == "t1"],
        "cannot be the name",
    ),
    "a gap in the log": (lambda h, m: h["log"][2].update(number=4), "does not follow"),
    "a removal of what is not there": (
        lambda h, m: h["log"][2].update(action="remove", name="t9"), "does not follow"
    ),
    "a log of the second alone": (lambda h, m: h["log"].pop(0), "does not follow"),
    "another byte": (_flip, "does not match its hash"),
    "two tasks in each other's place": (_swap, "does not name|other bytes"),
    "a longer file": (
        lambda h, m: m.update({_task(h, m): m[_task(h, m)] + b" "}), "does not name"
    ),
    "a file too many": (lambda h, m: m.update({_name("0" * 64): b"x"}), "does not name"),
    "a file that nobody named": (lambda h, m: m.update({"notes.txt": b"x"}), "does not name"),
    "a file too few": (lambda h, m: m.pop(_task(h, m)), "lacks 1 task files"),
    "a task noted otherwise": (
        lambda h, m: h["tasks"][0]["said"].update(author="somebody else"),
        "says something else of itself",
    ),
    "a licence noted otherwise": (
        lambda h, m: h["tasks"][0]["said"].update(license="mit"), "says something else of itself"
    ),
    "another base": (lambda h, m: h["settings"].update(base_hash="0" * 64), "its hash is"),
    "a method that is not known": (lambda h, m: h["settings"].update(method="x"), "method"),
    "a method that cuts otherwise": (
        lambda h, m: h["settings"].update(method="ties"),
        r"bad.tar: tasks/\w+.safetensors: was cut by breadcrumbs",
    ),
    "a method for one model": (lambda h, m: h["settings"].update(method="slerp"), "needs"),
    "a parameter that is not one": (
        lambda h, m: h["settings"].update(parameters={"betta": 1}), "betta"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", EXPORTS)
def test_an_altered_export_is_refused(made: Path, tmp_path: Path, what: str) -> None:
    change, message = EXPORTS[what]
    head, members = _read(made / "store.tar")
    change(head, members)
    _write(tmp_path / "bad.tar", head, members)
    with pytest.raises(BreadcrumbsError, match=message) as error:
        import_(tmp_path / "bad.tar", tmp_path / "new")
    refused(error)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("foreign", "task on another base"), ("whole", "says something else|whole")],
)
def test_tasks_that_store_add_refuses_are_refused(
    made: Path, tmp_path: Path, name: str, message: str
) -> None:
    head, members = _read(made / "store.tar")
    _instead((made / f"{name}.safetensors").read_bytes())(head, members)
    _write(tmp_path / "bad.tar", head, members)
    with pytest.raises(BreadcrumbsError, match=message) as error:
        import_(tmp_path / "bad.tar", tmp_path / "new")
    refused(error)
    assert not (tmp_path / "new").exists()


def test_archives_that_are_no_exports(made: Path, tmp_path: Path) -> None:
    head, members = _read(made / "store.tar")
    _write(tmp_path / "named.tar", head, members, first="other.json")
    with pytest.raises(BreadcrumbsError, match="is not an export of a store"):
        import_(tmp_path / "named.tar", tmp_path / "new")
    with tarfile.open(tmp_path / "link.tar", "w") as out:
        link = tarfile.TarInfo("store.json")
        link.type, link.linkname = tarfile.SYMTYPE, str(made / "store.tar")
        out.addfile(link)
    with pytest.raises(BreadcrumbsError):
        import_(tmp_path / "link.tar", tmp_path / "new")
    with tarfile.open(tmp_path / "large.tar", "w") as out:
        said = tarfile.TarInfo("store.json")
        said.size = archive.LARGEST + 1
        out.addfile(said)  # the rest is left out
    with pytest.raises(BreadcrumbsError, match="is not an export of a store"):
        import_(tmp_path / "large.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_export_written_anew_is_imported(made: Path, tmp_path: Path) -> None:
    head, members = _read(made / "store.tar")
    _write(tmp_path / "again.tar", head, dict(reversed(members.items())))
    with (
        import_(tmp_path / "again.tar", tmp_path / "new") as store,
        Store.open(made / "store") as first,
    ):
        assert store.log() == first.log()
        assert_same(merged(store), merged(first))


def test_a_folder_that_cannot_be_written_is_told_from_a_damaged_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "store", tmp_path / "store")
    (tmp_path / "store" / "ledger.sqlite").write_bytes(b"none" * 99)
    with pytest.raises(BreadcrumbsError, match="Is the disk full, or the file damaged"):
        Store.open(tmp_path / "store")
    monkeypatch.setattr("breadcrumbs.store.tables.os.access", lambda *given: False)
    with pytest.raises(BreadcrumbsError, match="which SQLite needs even to read"):
        Store.open(tmp_path / "store")
