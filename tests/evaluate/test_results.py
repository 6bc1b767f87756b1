"""Files of results: real SQLite files, real processes, killed and damaged ones too."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from result_rows import row
from safetensors.numpy import save_file

from breadcrumbs.checkpoint.hashing import model_hash
from breadcrumbs.errors import BreadcrumbsError, OutputError, ResultsError, ScoreError
from breadcrumbs.evaluate.results.results import KEY, Results, Row
from breadcrumbs.evaluate.results.sqlite_files import VERSION


def key(one: Row) -> dict[str, str]:
    return {name: getattr(one, name) for name in KEY}


#: Finds `row` and `Results` in a process whose first argument is the folder of `result_rows`.
HEAD = """import os, sys
sys.path.insert(0, sys.argv.pop(1))
from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.evaluate.results.results import Results
from result_rows import row
"""
HERE = str(Path(__file__).parents[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def run(code: str, *arguments: object, wait: bool = True) -> subprocess.Popen[str]:
    """Run Python code that finds `row` and `Results`, and its arguments in ``sys.argv[1:]``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + code, HERE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        assert process.wait() == 0, process.communicate()
    return process


# --- rows -------------------------------------------------------------------------------------


def test_a_row_comes_back_as_it_was(path):
    full = row(
        finetuned="a" * 64,
        recipe=json.dumps({"method": "ties", "näme": "\x00'\"%"}),
        recipe_hash="c" * 64,
        seed=(1 << 63) - 1,
        seconds=0.1 + 0.2,
        value=0.1 + 0.2,
        label="a\udcffb",
    )
    assert full.label == "a\\udcffb"  # a file name that is no Unicode can be kept
    bare = row("n", hits=None)
    for file in (path, ":memory:"):
        with Results(file) as results:
            results.add(full, bare)
            assert results.select() == [full, bare]
            assert results.recall(full.key) == full
            assert results.recall(replace(full, precision="bfloat16").key) is None
    with Results(path) as results:
        assert results.recall(bare.key) == bare


def test_numbers_of_numpy_are_plain_numbers(path):
    plain = row()
    of_numpy = row(value=np.float32(0.5), correct=np.int64(7), items=np.int32(10), seed=np.int8(3))
    assert of_numpy == replace(plain, value=0.5, seed=3)
    with Results(path) as results:
        results.add(of_numpy)
        assert results.select() == [of_numpy]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"value": float("nan")}, "scores nan"),
        ({"stderr": float("inf")}, "is not a number"),
        ({"correct": 11}, "11 of 10"),
        ({"correct": 0, "items": 0, "hits": b""}, "0 of 0"),
        ({"correct": 6}, "hits of 2 bytes with 7 right do not fit 6 of 10"),
        ({"hits": b"\xff\x00\x00", "correct": 8}, "hits of 3 bytes"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 1 << 63}, "seed 9223372036854775808"),
    ],
)
def test_a_row_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(ScoreError, match=says) as error:
        row(**wrong)
    assert str(error.value).startswith("models/m on spam: ")


def test_the_same_score_again_takes_the_place_of_the_first(path):
    with Results(path) as results:
        results.add(row(), row("n"))
        later = row(value=0.6, correct=6, hits=None, when="later")
        results.add(later)
        assert results.select() == [row("n"), later]
        # ... but not of one in another suite, by another name, of another seed or reference.
        others = [
            replace(later, suite="text20"),
            replace(later, label="best"),
            replace(later, seed=1),
            replace(later, seed=0),
            replace(later, finetuned="a" * 64),
            replace(later, finetuned="b" * 64),
            replace(later, recipe_hash="1"),
        ]
        results.add(*others)
        assert results.select() == [row("n"), later, *others]
        assert results.recall(later.key) == others[-1]


def test_a_row_that_is_recalled_is_written_only_under_a_new_name(path):
    with Results(path) as results:

        def written() -> list[tuple[int]]:  # a row that is written again has another number
            return results._database.ask("SELECT id FROM rows ORDER BY id")

        first = row()
        results.add(first)
        before = written()
        assert results.recall(first.key, label=first.label, finetuned=None) == first
        assert written() == before
        second = results.recall(first.key, label="best", suite="text20")
        assert second == replace(first, label="best", suite="text20")
        assert results.select() == [first, second]
        before = written()
        assert results.recall(first.key, label=first.label, suite=first.suite) == first
        assert results.recall(first.key) == second
        assert written() == before and results.select() == [first, second]
        assert results.recall(replace(first.key, split="validation"), label="best") is None


def test_rows_of_one_call_are_written_together_or_not_at_all(path):
    with Results(path) as results:
        good, bad = row(), row("n")
        object.__setattr__(bad, "seed", 1 << 70)
        with pytest.raises(OverflowError):
            results.add(good, bad)
        assert results.select() == []
        results.add(good)
        assert results.select() == [good]


def test_rows_are_chosen_by_any_column(path):
    rows = [
        row("a1", "movies", seed=0, label="ties [0:4]"),
        row("a2", "spam", seed=1),
        row("b1", "spam mail", split="validation", finetuned="a" * 64),
    ]
    with Results(path) as results:
        results.add(*rows)
        assert results.select(model="a") == rows[:2]
        assert results.select(model="a2" * 32) == [rows[1]]
        assert results.select(task="spam") == [rows[1]]
        assert results.select(task="spam*") == rows[1:]
        assert results.select(task=["movies", "spam"], seed=[0, 1, 2]) == rows[:2]
        assert results.select(label="ties [0:4]") == [rows[0]]  # not taken for a glob
        assert results.select(finetuned=None) == rows[:2]
        assert results.select(seed=None, split="validation") == [rows[2]]
        assert results.select(task=[]) == []
        assert results.select(value=0.7, items=10, version=rows[0].version) == rows
        assert results.contents() == [("text8", "validation", 1), ("text8", "test", 2)]
        with pytest.raises(ResultsError, match=r"no 'modle' to choose by\. Did you mean 'model'"):
            results.select(modle="a")


def test_normalised_values_come_from_the_row_of_the_fine_tuned_model(path):
    fine = row("f", finetuned="f" * 64, right=[1] * 8 + [0] * 2)
    merged = row("m", finetuned="f" * 64, right=[1] * 6 + [0] * 4)
    with Results(path) as results:
        results.add(merged)
        assert results.select(**key(merged))[-1].normalised is None
        others = [{"precision": "bfloat16"}, {"split": "validation"}, {"rows": "1"}, {"head": "1"}]
        for other in [*others, {"base": "1"}, {"foundation": "1"}, {"metric": "f1"}]:
            results.add(replace(fine, **other))
        assert results.select(**key(merged))[-1].normalised is None
        results.add(fine)
        found = results.select(**key(merged))[-1]
        assert found.reference == fine and found == merged
        assert found.finetuned_value == 0.8
        assert found.normalised == pytest.approx(0.75, abs=1e-15)
        itself = results.select(**key(fine))[-1]
        assert (itself.normalised, itself.finetuned_value) == (1.0, 0.8)
        assert results.select(model="m")[0].to_mapping()["normalised"] == found.normalised
        assert "hits" not in found.to_mapping() and json.dumps(found.to_mapping())
        # The same weights for two seeds of fine-tunings: each row has its own reference.
        second = row("g", finetuned="g" * 64, right=[1] * 9 + [0])
        results.add(second, replace(merged, finetuned="g" * 64, seed=1))
        assert [one.normalised for one in results.select(model="m")] == pytest.approx([0.75, 2 / 3])


# --- several processes, and killed ones ---------------------------------------------------------


@pytest.mark.parametrize("before", [None, b"", b"garbage" * 5000])
def test_several_processes_write_at_once(path, before):
    """They all begin with no file, with an empty one, or with one that is none."""
    if before is not None:
        path.write_bytes(before)
    code = (
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with Results(sys.argv[1]) as results:\n"
        "    for i in range(40):\n"
        "        results.add(row(sys.argv[2], f'task {i}'), row('s', f'task {i}', seed=0))\n"
        "        assert results.select(model=sys.argv[2])[-1].task == f'task {i}'\n"
    )
    arguments = [sys.executable, "-c", HEAD + code, HERE, str(path)]
    processes = [
        subprocess.Popen([*arguments, name], stdin=-1, stdout=-1, stderr=-1, text=True)
        for name in "cdea"
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    with Results(path, readonly=True) as results:
        for name in "cdea":
            found = results.select(model=name * 64)
            assert [one.task for one in found] == [f"task {i}" for i in range(40)]
        assert len(results.select(model="s")) == 40
    aside = sorted(name for name in os.listdir(path.parent) if "broken" in name)
    assert aside == (["results.sqlite.broken"] if before else [])
    if before:
        assert Path(f"{path}.broken").read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["results.sqlite", *aside]


@pytest.mark.parametrize("seed", range(3))
def test_a_process_that_is_killed_while_writing_leaves_whole_rows(path, seed):
    code = (
        "results = Results(sys.argv[1])\n"
        "for i in range(10**6):\n"
        "    results.add(row('c', f'task {i}'), row('d', f'task {i}'))\n"
        "    print(i, flush=True)\n"
    )
    process = run(code, path, wait=False)
    assert process.stdout is not None
    for _ in range(random.Random(seed).randint(20, 200)):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    said = [line for line in process.stdout.read().splitlines() if line]
    process.wait()
    with sqlite3.connect(path) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    plain.close()
    with Results(path, warn=pytest.fail) as results:
        ones, others = results.select(model="c"), results.select(model="d")
        assert [one.task for one in ones] == [f"task {i}" for i in range(len(ones))]
        assert [one.task for one in others] == [one.task for one in ones]
        assert len(ones) > int(said[-1] if said else 19)  # what it said was kept is kept
        results.add(row("e"))
        assert results.recall(row("e").key)


def test_a_file_that_is_removed_is_made_again(path):
    with Results(path) as results:
        results.add(row())
        path.unlink()
        assert results.select() == []
        results.add(row("n"))
    with Results(path) as results:
        assert [one.model[0] for one in results.select()] == ["n"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_opens_the_file_anew(path):
    with Results(path) as results:
        results.add(row())
        child = os.fork()
        if not child:
            try:
                results.add(row("n"))
                results.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        results.add(row("o"))
        assert [one.model[0] for one in results.select()] == ["m", "n", "o"]


# --- damage -------------------------------------------------------------------------------------


def filled(path: Path, number: int = 60) -> list[Row]:
    """Return rows that fill several pages of the file."""
    rows = [row("m", f"task {i}", seed=i, recipe="{}" * 200) for i in range(number)]
    with Results(path) as results:
        results.add(*rows)
    return rows


def test_a_row_that_was_changed_is_absent_and_can_be_written_again(path):
    rows = filled(path)
    for column, value in [("value", 0.71), ("label", "models/n"), ("seconds", 1), ("hits", None)]:
        with sqlite3.connect(path) as plain:
            plain.execute(f"UPDATE rows SET {column} = ? WHERE task = 'task 7'", [value])
        plain.close()
        said: list[str] = []
        with Results(path, warn=said.append) as results:
            assert results.recall(rows[7].key) is None
            assert results.select() == rows[:7] + rows[8:]
            assert len(said) == 1 and "rows with a wrong checksum: 1" in said[0]
            results.add(rows[7])
            assert results.recall(rows[7].key) == rows[7]
            results.add(*rows)
        with sqlite3.connect(path) as plain:
            plain.execute("DELETE FROM rows WHERE label = 'models/n'")
        plain.close()


def test_a_byte_flipped_on_disk_is_never_believed(path):
    """Of 200 files with a flipped bit, or cut short: rows are right or absent, and none is lost."""
    rows = filled(path)
    whole = path.read_bytes()
    known = {one.task: one for one in rows}
    dice = random.Random(0)
    outcomes = {"as it is": 0, "refused": 0, "set aside": 0}
    for attempt in range(200):
        for name in os.listdir(path.parent):
            (path.parent / name).unlink()
        at = dice.randrange(100) if attempt % 4 == 0 else dice.randrange(len(whole))
        broken = bytearray(whole)
        broken[at] ^= 1 << dice.randrange(8)
        if attempt % 5 == 1:
            del broken[at:]
        path.write_bytes(broken)
        try:
            with Results(path, readonly=True, warn=lambda text: None) as results:
                for one in results.select():
                    assert one == known[one.task]
        except ResultsError:
            pass
        assert os.listdir(path.parent) == ["results.sqlite"] and path.read_bytes() == broken
        said: list[str] = []
        try:
            with Results(path, warn=said.append) as results:
                for one in results.select():
                    assert one == known[one.task]
                new = row("n", "new")
                results.add(new)
                assert results.recall(new.key) == new
                results.add(*rows)
                assert sorted(one.task for one in results.select()) == sorted(["new", *known])
        except ResultsError as error:
            assert "another program" in str(error) or "later breadcrumbs" in str(error)
            assert path.read_bytes() == broken
            outcomes["refused"] += 1
            continue
        aside = Path(f"{path}.broken")
        outcomes["set aside" if aside.exists() else "as it is"] += 1
        if aside.exists():
            assert said and str(aside) in said[-1]
            if aside.read_bytes() != broken:  # it was found to be broken after it was written to
                assert "new" in aside.read_bytes().decode(errors="replace")
    assert min(outcomes.values()) > 0, outcomes


def test_what_can_be_read_of_a_damaged_file_is_kept(path):
    rows = filled(path, 400)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    said: list[str] = []
    with Results(path, warn=said.append) as results:
        found = results.select()
        assert 100 < len(found) < 400
        assert all(one == rows[one.seed] for one in found)
        assert found[0] == rows[0] and found[-1] == rows[-1]  # from both ends
        assert f"{len(found)} rows that could be read" in said[0] and len(said) == 1
    assert Path(f"{path}.broken").read_bytes() == data
    # ... and to read only, from memory.
    path.write_bytes(data)
    with Results(path, readonly=True, warn=said.append) as results:
        assert results.select() == found
    assert f"{len(found)} rows could be read" in said[1]
    assert path.read_bytes() == data


def test_two_that_find_the_same_damage_set_one_file_aside(path):
    rows = filled(path)
    with Results(path, warn=lambda text: None) as first, Results(path) as second:
        assert first.select() == second.select() == rows
        first._database._mend("as both have found")
        second._database._mend("as both have found")
        assert first.select() == second.select() == rows
    # The first one's log was still in use by the second, so it stands beside the broken file.
    aside = {name for name in os.listdir(path.parent) if "broken" in name}
    assert "results.sqlite.broken" in aside and not any("broken-2" in name for name in aside)


def test_an_index_that_hides_a_row_is_made_anew(path):
    rows = filled(path, 400)
    data = path.read_bytes()
    pages = [bytearray(data[at : at + 4096]) for at in range(0, len(data), 4096)]
    hits = [page for page in pages if page[0] == 10 and b"task 77" in page]  # leaves of an index
    assert hits
    for page in hits:  # one holds it, another one may hold what a split has left
        page[:] = page.replace(b"task 77", b"task 7z")
    path.write_bytes(b"".join(pages))
    said: list[str] = []
    with Results(path, warn=said.append) as results:
        assert results.recall(rows[77].key) == rows[77]
        assert results.select() == rows
    assert len(said) == 1 and "the 400 rows that could be read" in said[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.sqlite", b"not a database\n" * 20),
        ("results.sqlite", b"SQLite format 3\0"),
        ("results.db", bytes(4096)),
    ],
)
def test_garbage_is_set_aside(tmp_path, name, content, capsys):
    path = tmp_path / name
    for number in ("", "-2", "-3"):
        path.write_bytes(content)
        with Results(path) as results:
            results.add(row())
            assert results.select() == [row()]
        assert Path(f"{path}.broken{number}").read_bytes() == content
        err = capsys.readouterr().err
        assert err.startswith(f"warning: {path}: is damaged") and err.count("\n") == 1
    path.write_bytes(content)
    with pytest.raises(ResultsError, match="is not a file of results"):
        Results(path, readonly=True).select()
    assert path.read_bytes() == content


def test_a_file_of_another_kind_stays_as_it_is(tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text("suite: text8\n")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as plain:
        plain.execute("CREATE TABLE rows (id INTEGER, model TEXT)")
    plain.close()
    later = tmp_path / "later.sqlite"
    with Results(later) as results:
        results.add(row())
    with sqlite3.connect(later) as plain:
        plain.execute(f"PRAGMA user_version = {VERSION + 1}")
    plain.close()
    for path, says in [
        (suite, "suite.yaml: is not a file of results"),
        (foreign, "is a database of another program"),
        (later, "by a later breadcrumbs .version 3 of the table; this one knows 2"),
    ]:
        before = path.read_bytes()
        for readonly in (False, True):
            with pytest.raises(ResultsError, match=says):
                Results(path, readonly=readonly).select()
            if not readonly:
                with pytest.raises(ResultsError, match=says):
                    Results(path).add(row())
        assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["foreign.sqlite", "later.sqlite", "suite.yaml"]


def test_a_log_left_by_a_file_that_was_removed_is_not_replayed(path):
    """SQLite would take FILE-wal for the log of the new file."""
    code = "results = Results(sys.argv[1]); results.add(row('c')); os._exit(0)"
    run(code, path)
    log = Path(f"{path}-wal").read_bytes()
    assert len(log) > 4096
    path.unlink()
    with Results(path) as results:
        results.add(row("d"))
        assert [one.model[0] for one in results.select()] == ["d"]
    assert Path(f"{path}.broken-wal").read_bytes() == log


# --- where it cannot be written -----------------------------------------------------------------


def test_to_read_only_makes_and_changes_nothing(path, tmp_path):
    with pytest.raises(ResultsError, match="sqlite: cannot be opened: No such file"):
        Results(path, readonly=True).select()
    assert os.listdir(tmp_path) == []
    rows = filled(path)
    with pytest.raises(ResultsError, match=r"Did you mean 'results.sqlite'\?"):
        Results(tmp_path / "result.sqlite", readonly=True).select()
    before = path.read_bytes()
    with Results(path, readonly=True) as results:
        assert results.select() == rows
        with pytest.raises(OutputError, match="cannot be used: attempt to write a readonly"):
            results.add(row())
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["results.sqlite"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "x.sqlite", tmp_path / "file" / "x.sqlite", tmp_path):
        with pytest.raises(BreadcrumbsError, match="cannot be") as error:
            Results(path).add(row())
        assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX")
def test_a_folder_without_write_permission_can_be_read(path, tmp_path):
    rows = filled(path)
    tmp_path.chmod(0o555)
    code = (
        "if not os.geteuid(): os.setgid(65534); os.setuid(65534)\n"
        "print([one.task for one in Results(sys.argv[1], readonly=True).select()])\n"
        "try: Results(sys.argv[1]).add(row())\n"
        "except BreadcrumbsError as error: print(error)\n"
    )
    try:
        for folder in tmp_path.parents:
            if folder.stat().st_uid == os.geteuid() and "pytest" in str(folder):
                folder.chmod(0o755)
        path.chmod(0o444)
        said, err = run(code, path, wait=False).communicate()
        assert not err, err
        assert said.splitlines()[0] == str([one.task for one in rows]), err
        assert "cannot be used" in said.splitlines()[1]
    finally:
        tmp_path.chmod(0o755)


# --- hashes of models -----------------------------------------------------------------------------


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "z.weight": rng.standard_normal((300, 200), np.float32),
        "a.bias": rng.standard_normal(7).astype(ml_dtypes.bfloat16),
        "scale": np.array(2.5),
        "steps": np.arange(5),
        "none": np.empty((0, 3), np.float32),
        "large": rng.standard_normal((9 << 20) // 8),
    }


def test_the_hash_is_that_of_the_tensors_wherever_they_are(tmp_path):
    tensors = arrays()
    expected = model_hash(tensors)
    assert len(expected) == 64 and set(expected) <= set("0123456789abcdef")
    assert model_hash(dict(reversed(tensors.items()))) == expected == model_hash(tensors, 1)
    columns = {**tensors, "z.weight": np.asfortranarray(tensors["z.weight"])}
    assert not columns["z.weight"].flags.c_contiguous
    assert model_hash(columns) == expected
    save_file(tensors, tmp_path / "one.safetensors", {"format": "pt", "note": "anything"})
    assert model_hash(tmp_path / "one.safetensors") == expected
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, part in enumerate((["large", "a.bias"], ["z.weight", "scale", "steps", "none"])):
        save_file({name: tensors[name] for name in part}, shards / f"{number}.safetensors")
        for name in part:
            index[name] = f"{number}.safetensors"
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert model_hash(str(shards)) == expected


index: dict[str, str] = {}


def test_the_hash_differs_where_the_model_does():
    tensors = arrays()
    changed = tensors["z.weight"].copy()
    changed[-1, -1] = np.nextafter(changed[-1, -1], np.float32(9))
    negative = {"w": np.array([-0.0], np.float32)}
    models = [
        tensors,
        {**tensors, "z.weight": changed},
        {**tensors, "z.weight": tensors["z.weight"].reshape(200, 300)},
        {**tensors, "z.weight": tensors["z.weight"].view(np.int32)},
        {("z.bias" if name == "z.weight" else name): a for name, a in tensors.items()},
        {name: a for name, a in tensors.items() if name != "none"},
        {name: a for name, a in tensors.items() if name != "steps"},
        {"a": np.array([1, 2], np.int8), "b": np.array([3], np.int8)},
        {"a": np.array([1], np.int8), "b": np.array([2, 3], np.int8)},
        negative,
        {"w": np.abs(negative["w"])},
    ]
    assert len({model_hash(model) for model in models}) == len(models)


def test_the_hash_of_torch_tensors_is_that_of_their_arrays():
    torch = pytest.importorskip("torch")
    tensors = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    plain = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(3, ml_dtypes.bfloat16),
    }
    assert model_hash(tensors) == model_hash(plain)
    assert model_hash({**tensors, "w": tensors["w"].t().contiguous().t()}) == model_hash(plain)


def test_the_hash_stays_the_same_from_version_to_version():
    """Rows are found again by it: a change of this number makes every cache worthless."""
    assert model_hash({"w": np.arange(3, dtype=np.float32), "n": np.array(7)}) == PINNED


PINNED = "15d1ec9dd866db50ac982ed3da8b1e1a4b8935703674de682588d8d87961be7c"
