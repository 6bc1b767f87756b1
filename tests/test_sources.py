"""Sources and splits: rows of every kind of source, draws, and what is wrong with files."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from breadcrumbs.errors import MissingExtraError, SplitError, SuiteError
from breadcrumbs.evaluate import inputs, splits, tasks
from breadcrumbs.evaluate.splits import Part
from breadcrumbs.evaluate.task import SPLITS, Rows, Split, Task

RECORDS = [{"text": f"text {i}, 'ä'", "label": ("spam", "ham", "other")[i % 3]} for i in range(60)]


def task(folder: Path, **entry: Any) -> Task:
    """Return the task of a declaration; columns are `text` and `label` unless told."""
    return tasks.read({"task": "t", **entry}, folder, "base", "suite.yaml: tasks[0]")[0].task


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    """Write records as a table of the kind that the file's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(records), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        pytest.importorskip("datasets").Dataset.from_list(records).to_parquet(str(path))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, records[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(records)
    return path


def refused(expected: str, folder: Path, split: Split = "train", **entry: Any) -> str:
    """Check that reading a split is refused, on one line that names the task."""
    with pytest.raises(SuiteError, match=expected) as error:
        task(folder, **entry).rows(split)
    text = str(error.value)
    assert text.startswith("task 't': ") and "\n" not in text
    return text


def pairs(rows: Rows, labels: Any) -> list[tuple[Any, str]]:
    return [(x, labels[y]) for x, y in zip(rows.inputs, rows.labels, strict=True)]


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_kind_of_table_gives_the_same_rows(tmp_path: Path, ending: str):
    write(tmp_path / f"a.{ending}", RECORDS)
    write(tmp_path / "b.csv", RECORDS)
    found, other = (task(tmp_path, data=n, text="text") for n in (f"a.{ending}", "b.csv"))
    assert found.labels == ("ham", "other", "spam")
    all_rows = [pair for split in SPLITS for pair in pairs(found.rows(split), found.labels)]
    assert sorted(all_rows) == sorted((r["text"], r["label"]) for r in RECORDS)
    assert [len(found.rows(split)) for split in SPLITS] == [36, 9, 15]
    for split in SPLITS:
        assert found.rows(split).digest == other.rows(split).digest
        assert found.rows(split).labels.dtype == np.int64


def test_pairs_of_texts_and_columns_by_other_names(tmp_path: Path):
    write(tmp_path / "a.csv", [{"a": f"a{i}", "b": f"b{i}", "c": "xy"[i % 2]} for i in range(20)])
    rows = task(tmp_path, data="a.csv", text=["b", "a"], label="c").rows("test")
    assert all(isinstance(pair, tuple) and pair[0][1:] == pair[1][1:] for pair in rows.inputs)
    assert all(pair[0][0] == "b" for pair in rows.inputs)


def test_cells_may_hold_line_breaks_and_errors_name_the_line(tmp_path: Path):
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",x\nb,y\nc,\n')
    refused("a.csv, line 5: column 'label' holds ''", tmp_path, data="a.csv", text="text")
    (tmp_path / "b.csv").write_text('\ufefftext,label\n"two\nlines",x\nb,y\n', encoding="utf-8")
    found = task(
        tmp_path, data="b.csv", text="text", splits={"test": 1, "validation": {"count": 1}}
    )
    with pytest.raises(SplitError, match="the train split is empty"):
        found.rows("train")


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.csv", "text,label\na,x,y\n", "a.csv, line 2: has 3 cells, the header 2"),
        ("a.csv", "text,text\na,x\n", "two columns 'text'"),
        ("a.csv", "texts,label\na,x\n", "no column 'text'. The columns are texts, label. Did"),
        ("a.csv", 'text,label\n"a,x\n', "a.csv, line 2: unexpected end of data"),
        ("a.csv", "", "the train split is empty"),
        ("a.csv", "text,label\n", "the train split is empty"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": 3', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", "[1]", "a.jsonl, line 1: is no object"),
        ("a.jsonl", '{"text": null, "label": 1}', "column 'text' holds nothing where a text"),
        ("a.jsonl", '{"text": 3.5, "label": 1}', "column 'text' holds 3.5 where a text"),
        ("a.jsonl", '{"text": "a", "label": 0.5}', "column 'label' holds 0.5"),
        ("a.jsonl", '{"text": "a"}', "a.jsonl, line 1: there is no column 'label'"),
        ("a.json", '{"text": "a"}', "is no list of objects"),
        ("a.json", "[" * 100000, "not JSON"),
        ("a.parquet", "PAR1", "cannot be read as parquet"),
        ("a.npz", "PK", "cannot be read as .npz"),
        ("a.py", "x = 1", "no function rows"),
        ("a.py", "x = (", "this Python file failed: SyntaxError"),
        ("a.py", "def rows(split): return open('none')", "failed: FileNotFoundError"),
        ("a.py", "def rows(split): return ['a'], [1, 2]", "1 inputs and other labels"),
        ("a.py", "def rows(split): return [3], [1]", "a.py, train, row 0: an input is 3"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, content: str, expected: str):
    (tmp_path / name).write_text(content)
    entry = {} if name.endswith((".npz", ".py")) else {"text": "text"}
    refused(expected, tmp_path, data=name, **entry)


def test_a_table_that_is_not_utf_8_is_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff\xfe,x\n")
    refused("a.csv: is not UTF-8", tmp_path, data="a.csv", text="text")


def test_folders_and_arrays_have_no_columns(tmp_path: Path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 3, 3), np.uint8), labels=[0, 1])
    with pytest.raises(SuiteError, match=r"text: names a column, and a.npz is no table"):
        task(tmp_path, data="a.npz", text="text")


# --- labels --------------------------------------------------------------------------------------


def test_numbers_are_labels_in_the_order_of_their_values(tmp_path: Path):
    records = [{"text": f"t{i}", "label": i % 11} for i in range(110)]
    write(tmp_path / "a.csv", records)
    write(tmp_path / "a.jsonl", records)
    for name in ("a.csv", "a.jsonl"):
        assert task(tmp_path, data=name, text="text").labels == tuple(str(i) for i in range(11))


def test_declared_labels_are_names_of_numbers(tmp_path: Path):
    write(tmp_path / "a.jsonl", [{"text": f"t{i}", "label": i % 2} for i in range(40)])
    write(tmp_path / "b.jsonl", [{"text": f"t{i}", "label": bool(i % 2)} for i in range(40)])
    write(tmp_path / "c.csv", [{"text": f"t{i}", "label": i % 2} for i in range(40)])
    found = [
        task(tmp_path, data=name, text="text", labels=["even", "odd"])
        for name in ("a.jsonl", "b.jsonl", "c.csv")
    ]
    for one in found:
        for text, label in pairs(one.rows("train"), one.labels):
            assert label == ("odd" if int(text[1:]) % 2 else "even")
    assert len({one.rows("train").digest for one in found}) == 1


def test_declared_labels_that_are_numbers_are_names(tmp_path: Path):
    write(tmp_path / "a.jsonl", [{"text": f"t{i}", "label": 1 + i % 2} for i in range(40)])
    found = task(tmp_path, data="a.jsonl", text="text", labels=[2, 1])
    for text, label in pairs(found.rows("train"), found.labels):
        assert label == ("2" if int(text[1:]) % 2 else "1")
    assert found.labels == ("2", "1")


@pytest.mark.parametrize(
    "labels, expected",
    [
        (["spam", "ham"], "line 4: label 'other' is not in `labels`"),
        (["spam", "ham", "othr"], "line 4: label 'other' is not in `labels`. Did you mean 'othr'"),
        (["spam", "ham", "other", "fourth"], "1 of 4 classes have no training rows: 'fourth'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: list[str], expected: str):
    write(tmp_path / "a.csv", RECORDS)
    refused(expected, tmp_path, data="a.csv", text="text", labels=labels)


def test_numbers_out_of_range_are_refused(tmp_path: Path):
    write(tmp_path / "a.jsonl", [{"text": f"t{i}", "label": i % 3} for i in range(40)])
    text = "label 2 is out of range; there are 2 labels, 0 to 1"
    refused(text, tmp_path, data="a.jsonl", text="text", labels=["a", "b"])
    write(tmp_path / "b.jsonl", [{"text": f"t{i}", "label": -1} for i in range(40)])
    refused("hidden", tmp_path, data="b.jsonl", text="text", labels=["a", "b"])


def test_a_label_that_no_training_row_has_is_refused(tmp_path: Path):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(20)]
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "test.csv", [{"text": "t", "label": "c"}])
    data = {"train": "train.csv", "test": "test.csv"}
    refused("test.csv, line 2: label 'c' is in no", tmp_path, "test", data=data, text="text")


# --- splits of the source ------------------------------------------------------------------------


def test_a_column_split_names_the_splits(tmp_path: Path):
    names = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    records = [{"text": f"t{i}", "label": "ab"[i % 2], "split": s} for i, s in enumerate(names)]
    write(tmp_path / "a.csv", records)
    found = task(tmp_path, data="a.csv", text="text")
    assert [list(found.rows(split).inputs) for split in SPLITS] == [
        [f"t{i}" for i in range(6)],
        ["t6", "t7"],
        ["t8", "t9", "t10", "t11"],
    ]


def test_a_file_for_each_split_and_validation_is_a_tenth_of_train(tmp_path: Path):
    write(tmp_path / "train.csv", RECORDS)
    write(tmp_path / "test.jsonl", RECORDS[:10])
    found = task(tmp_path, data={"train": "train.csv", "test": "test.jsonl"}, text="text")
    assert [len(found.rows(split)) for split in SPLITS] == [54, 6, 10]
    assert list(found.rows("test").inputs) == [r["text"] for r in RECORDS[:10]]
    assert not set(found.rows("train").inputs) & set(found.rows("validation").inputs)


def test_named_splits_are_taken_whole_unless_rows_are_drawn_of_them(tmp_path: Path):
    records = [*RECORDS, *RECORDS[:5]]
    for name in ("one", "two"):
        write(tmp_path / f"{name}.csv", [{**r, "split": name} for r in records])
    lines = (tmp_path / "two.csv").read_text().splitlines(keepends=True)[1:]
    (tmp_path / "a.csv").write_text((tmp_path / "one.csv").read_text() + "".join(lines))
    parts = {"train": "one", "validation": {"of": "one", "count": 7}, "test": "two"}
    found = task(tmp_path, data="a.csv", text="text", splits=parts)
    assert [len(found.rows(split)) for split in SPLITS] == [53, 7, 65]
    assert found.rows("train").notes == ("5 rows of 'one' are left out that repeat another row",)
    assert found.rows("test").notes == ()
    parts["test"] = {"of": "two", "count": 9}
    assert len(task(tmp_path, data="a.csv", text="text", splits=parts).rows("test")) == 9


def test_where_validation_rows_are_the_test_rows_others_are_drawn_of_train(tmp_path: Path):
    names = ["train"] * 40 + ["validation"] * 20
    write(tmp_path / "a.csv", [{**r, "split": s} for r, s in zip(RECORDS, names, strict=True)])
    found = task(tmp_path, data="a.csv", text="text", splits={"test": "validation"})
    assert [len(found.rows(split)) for split in SPLITS] == [36, 4, 20]


@pytest.mark.parametrize(
    "parts, expected",
    [
        ({"test": {"of": "tset", "count": 1}}, "there is no split 'tset'.*Did you mean 'test'"),
        ({"validation": 5}, "splits: validation: the source has the splits train, test. Say which"),
        ({"validation": "train"}, "train and validation would both be all of 'train'"),
        ({"test": {"of": "test", "count": 31}}, "test: 31 rows of 'test' are asked for, and there"),
        (
            {"validation": {"of": "test", "count": 20}, "test": {"of": "test", "count": 20}},
            "validation: 20 rows of 'test' are asked for, and there are 10 of 30 left",
        ),
        ({"validation": {"of": "test", "fraction": 0.01}}, "the validation split is empty"),
    ],
)
def test_splits_that_cannot_be_are_refused(tmp_path: Path, parts: dict[str, Any], expected: str):
    names = ("train", "test")
    write(tmp_path / "a.csv", [{**r, "split": names[i % 2]} for i, r in enumerate(RECORDS)])
    split = "validation" if "validation" in parts else "test"
    refused(expected, tmp_path, split, data="a.csv", text="text", splits=parts)


def test_splits_by_strange_names_have_to_be_declared(tmp_path: Path):
    write(tmp_path / "a.csv", [{**r, "split": "xy"[i % 2]} for i, r in enumerate(RECORDS)])
    refused(
        "has the splits x, y, and which of them is the train split",
        tmp_path,
        data="a.csv",
        text="text",
    )
    write(tmp_path / "b.csv", RECORDS)
    refused("the source has no splits", tmp_path, data="b.csv", text="text", splits={"train": "a"})
    refused(
        "has splits of its own", tmp_path, data={"train": "a.csv", "test": "b.csv"}, text="text"
    )


# --- draws ---------------------------------------------------------------------------------------


@st.composite
def drawn(draw: Any) -> tuple[list[str], dict[Split, Part], int]:
    """Labels of rows that all differ, what is asked for, a seed."""
    labels = draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60))
    test = draw(st.integers(1, len(labels)))
    validation = draw(st.integers(0, len(labels) - test))
    parts: dict[Split, Part] = {"test": Part("rest", count=test), "train": Part("rest")}
    if validation:
        parts["validation"] = Part("rest", count=validation)
    return labels, parts, draw(st.integers(0, 3))


def keys_of(n: int) -> list[bytes]:
    return [blake3(str(i).encode()).digest() for i in range(n)]


@given(drawn())
def test_draws_are_disjoint_exact_and_stratified(case: tuple[list[str], dict[Split, Part], int]):
    labels, parts, seed = case
    found = splits.draw(keys_of(len(labels)), labels, parts, seed)
    assert sorted(row for rows in found.values() for row in rows) == list(range(len(labels)))
    left = Counter(labels)
    for split in ("test", "validation"):
        if split in parts:
            assert len(found[split]) == parts[split].count
            taken = Counter(labels[row] for row in found[split])
            total = sum(left.values())
            for label, rows in left.items():
                assert abs(taken[label] - len(found[split]) * rows / total) < 1
            left -= taken


@given(drawn(), st.randoms(use_true_random=False))
def test_draws_do_not_depend_on_the_order_of_rows(
    case: tuple[list[str], dict[Split, Part], int], random: Any
):
    labels, parts, seed = case
    keys, order = keys_of(len(labels)), list(range(len(labels)))
    random.shuffle(order)
    first = splits.draw(keys, labels, parts, seed)
    again = splits.draw([keys[i] for i in order], [labels[i] for i in order], parts, seed)
    assert {s: [order[row] for row in rows] for s, rows in again.items()} == first


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), max_size=30))
def test_repeated_and_contradicting_rows_are_counted(rows: list[tuple[int, str]]):
    keys = [str(number).encode() for number, _ in rows]
    labels = [label for _, label in rows]
    kept, again, torn = splits.distinct(keys, labels)
    of = {key: {label for k, label in zip(keys, labels, strict=True) if k == key} for key in keys}
    assert {keys[row] for row in kept} == {key for key in of if len(of[key]) == 1}
    assert len(kept) == len({keys[row] for row in kept})
    assert torn == sum(len(of[key]) > 1 for key in keys) and again == len(rows) - len(kept) - torn


def test_another_seed_draws_others_and_another_validation_split_leaves_test(tmp_path: Path):
    write(tmp_path / "a.csv", RECORDS)
    found = {
        (seed, n): task(
            tmp_path, data="a.csv", text="text", seed=seed, splits={"validation": n, "test": 15}
        )
        for seed, n in ((0, 6), (0, 9), (1, 6))
    }
    tests = {key: found[key].rows("test").digest for key in found}
    assert tests[0, 6] == tests[0, 9] != tests[1, 6]
    assert set(found[0, 6].rows("validation").inputs) < set(found[0, 9].rows("validation").inputs)


def test_fractions_are_decimals_of_the_rows_that_differ(tmp_path: Path):
    records = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(100)]
    write(tmp_path / "a.csv", records + records[:40])
    parts = {"validation": 0.29, "test": {"fraction": 0.07}}
    found = task(tmp_path, data="a.csv", text="text", splits=parts)
    assert [len(found.rows(split)) for split in SPLITS] == [64, 29, 7]


def test_no_input_is_in_two_drawn_splits_and_what_is_left_out_is_said(tmp_path: Path):
    records = [{"text": f"t{i % 50}", "label": "ab"[i % 2]} for i in range(130)]
    records += [{"text": "t1", "label": "a"}, {"text": "new", "label": "a"}]
    write(tmp_path / "a.csv", records)
    found = task(tmp_path, data="a.csv", text="text")
    all_inputs = [text for split in SPLITS for text in found.rows(split).inputs]
    assert len(all_inputs) == len(set(all_inputs)) == 50 and "t1" not in all_inputs
    assert found.rows("test").notes == (
        "78 rows of the source are left out that repeat another row",
        "4 rows of the source are left out whose input has another label elsewhere",
    )


def test_two_orders_of_one_file_have_the_same_rows(tmp_path: Path):
    write(tmp_path / "a.csv", RECORDS)
    write(tmp_path / "b.csv", RECORDS[::-1])
    for split in SPLITS:
        first, second = (
            task(tmp_path, data=n, text="text").rows(split) for n in ("a.csv", "b.csv")
        )
        assert list(first.inputs) == list(second.inputs) and first.digest == second.digest


def test_a_digest_knows_inputs_labels_names_and_where_texts_end(tmp_path: Path):
    def digest(rows: list[tuple[Any, int]], names: tuple[str, ...] = ("x", "y")) -> str:
        from breadcrumbs.evaluate.reading import digest

        return digest([inputs.key(x) for x, _ in rows], np.array([y for _, y in rows]), names)

    rows: list[tuple[Any, int]] = [("ab", 0), (("a", "b"), 1)]
    others = [
        digest(rows),
        digest(rows[::-1]),
        digest([("ab", 1), (("a", "b"), 1)]),
        digest([("ab", 0), (("ab", ""), 1)]),
        digest([("ab", 0), (("", "ab"), 1)]),
        digest(rows, ("x", "z")),
        digest(rows, ("xy", "")),
    ]
    assert len(set(others)) == len(others) and digest(rows) == others[0]


# --- pictures ------------------------------------------------------------------------------------


def png(color: tuple[int, int, int], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (4, 3), color).save(buffer, kind)
    return buffer.getvalue()


def test_pictures_in_folders_of_classes(tmp_path: Path):
    for label, red in (("dark", 0), ("light", 200)):
        (tmp_path / "a" / label).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "a" / label / f"{i}.PNG").write_bytes(png((red + i, 0, 0)))
        (tmp_path / "a" / label / "notes.txt").write_text("left alone")
    found = task(tmp_path, data="a")
    assert [len(found.rows(split)) for split in SPLITS] == [24, 6, 10]
    for split in SPLITS:
        for picture, label in pairs(found.rows(split), found.labels):
            assert (label == "light") == (picture.getpixel((0, 0))[0] >= 200)
    part = found.rows("train").inputs[2:4]
    assert len(part) == 2 and part[0] == found.rows("train").inputs[2]


def test_pictures_in_folders_of_splits(tmp_path: Path):
    for split, n in (("train", 10), ("valid", 2), ("test", 3)):
        for label in "ab":
            (tmp_path / "a" / split / label).mkdir(parents=True)
            for i in range(n):
                (tmp_path / "a" / split / label / f"{i}.png").write_bytes(png((i, ord(label), n)))
    assert [len(task(tmp_path, data="a").rows(split)) for split in SPLITS] == [20, 4, 6]
    (tmp_path / "b").mkdir()
    refused("b: has no folders", tmp_path, data="b")


def test_a_column_of_paths_of_pictures(tmp_path: Path):
    for i in range(20):
        (tmp_path / "t" / "p").mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / "p" / f"{i}.png").write_bytes(png((i, 0, 0)))
    rows = [{"image": f"p/{i}.png", "label": "ab"[i % 2]} for i in range(20)]
    write(tmp_path / "t" / "a.csv", rows)
    found = task(tmp_path, data="t/a.csv", image="image")
    for picture, label in pairs(found.rows("train"), found.labels):
        assert "ab"[picture.getpixel((0, 0))[0] % 2] == label
    (tmp_path / "t" / "p" / "7.png").unlink()
    refused(
        "a.csv, line 9: .*7.png: cannot be read: No such file",
        tmp_path,
        data="t/a.csv",
        image="image",
    )


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path):
    for label in "ab":
        (tmp_path / "a" / label).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "a" / label / f"{i}.png").write_bytes(png((i, ord(label), 0)))
    (tmp_path / "a" / "a" / "3.png").write_bytes(png((3, 0, 0))[:45])
    found = task(tmp_path, data="a", splits={"train": {"count": 18}, "validation": 1, "test": 1})
    with pytest.raises(SuiteError, match=r"a/a/3.png: this picture cannot be read") as error:
        for split in SPLITS:
            list(found.rows(split).inputs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_pictures_of_any_mode_come_out_as_rgb(tmp_path: Path, mode: str):
    image = pytest.importorskip("PIL.Image")
    for label in "ab":
        (tmp_path / "a" / label).mkdir(parents=True)
        for i in range(10):
            picture = image.new("RGB", (4, 3 + i), (255, 255, 255))
            picture.convert(mode).save(tmp_path / "a" / label / f"{i}-{label}.png", dpi=(i, i))
    rows = task(tmp_path, data={"train": "a", "test": "a"}, splits={"validation": "test"})
    with pytest.raises(SuiteError, match="validation and test would both"):
        rows.rows("train")
    rows = task(tmp_path, data={"train": "a", "validation": "a", "test": "a"})
    for picture in rows.rows("test").inputs:
        assert picture.mode == "RGB" and picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_arrays_of_pictures(tmp_path: Path, shape: tuple[int, ...]):
    images = np.random.default_rng(0).integers(0, 256, (30, *shape), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(30) % 3)
    found = task(tmp_path, data="a.npz")
    there = {image.tobytes(): i % 3 for i, image in enumerate(images)}
    for split in SPLITS:
        for picture, label in zip(found.rows(split).inputs, found.rows(split).labels, strict=True):
            pixels = np.asarray(picture)
            assert pixels.shape == (5, 4, 3)
            assert there[(pixels if len(shape) == 3 else pixels[..., 0]).tobytes()] == label


@pytest.mark.parametrize(
    "arrays, expected",
    [
        ({"images": np.zeros((2, 3, 3), np.uint8)}, "no array 'labels'; it has images"),
        ({"images": np.zeros((2, 3, 3)), "labels": [0, 1]}, "images are float64 of shape"),
        ({"images": np.zeros((2, 3, 3, 2), np.uint8), "labels": [0, 1]}, "Give uint8 of shape"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0, 1, 2]}, "labels are int64 of"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0.5, 1]}, "labels are float64"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path: Path, arrays: Any, expected: str):
    np.savez(tmp_path / "a.npz", **arrays)
    refused(expected, tmp_path, data="a.npz")


# --- Python files, hub data sets -----------------------------------------------------------------


def test_a_python_file_gives_rows(tmp_path: Path):
    (tmp_path / "a.py").write_text(
        "import numpy as np\n"
        "LABELS = ['dark', 'light']\n"
        "SPLITS = ['train', 'test']\n"
        "def rows(split):\n"
        "    n = {'train': 20, 'test': 4}[split]\n"
        "    return [np.full((2, 2), 100 * (i % 2) + i, np.uint8) for i in range(n)],"
        " np.arange(n) % 2\n"
    )
    found = task(tmp_path, data="a.py")
    assert [len(found.rows(split)) for split in SPLITS] == [18, 2, 4]
    for picture, label in pairs(found.rows("train"), found.labels):
        assert (label == "light") == (picture.getpixel((0, 0))[0] >= 100)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set as on the hub, `org/set`, which `datasets` also finds in the working folder."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "sentence": datasets.Value("string"),
            "kind": datasets.ClassLabel(names=["zebra", "ant"]),
        }
    )
    for split, n in (("train", 30), ("test", 6)):
        rows = {
            "picture": [{"bytes": png((i, len(split), 0)), "path": None} for i in range(n)],
            "sentence": [f"{split} {i}" for i in range(n)],
            "kind": [i % 2 for i in range(n)],
        }
        path = tmp_path / "org" / "set" / "data" / f"{split}-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features).to_parquet(str(path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_hub_data_set_gives_texts_and_pictures_with_its_names_of_labels(hub: Path):
    words = task(hub, data="hub:org/set", text="sentence", label="kind")
    assert words.labels == ("zebra", "ant")
    assert [len(words.rows(split)) for split in SPLITS] == [27, 3, 6]
    assert pairs(words.rows("test"), words.labels)[:2] == [("test 0", "zebra"), ("test 1", "ant")]
    pictures = task(hub, data="hub:org/set", image="picture", label="kind")
    for picture, label in pairs(pictures.rows("train"), pictures.labels):
        assert picture.mode == "RGB" and picture.getpixel((0, 0))[1] == 5
        assert label == ("ant" if picture.getpixel((0, 0))[0] % 2 else "zebra")


def test_parquet_files_keep_names_of_labels_and_pictures(hub: Path):
    files = {split: f"org/set/data/{split}-0.parquet" for split in ("train", "test")}
    local = task(hub, data=files, image="picture", label="kind")
    from_hub = task(hub, data="hub:org/set", image="picture", label="kind")
    assert local.labels == ("zebra", "ant")
    for split in SPLITS:
        assert local.rows(split).digest == from_hub.rows(split).digest


def test_labels_of_a_hub_data_set_can_be_renamed_or_ordered_anew(hub: Path):
    entry = {"data": "hub:org/set", "text": "sentence", "label": "kind"}
    renamed = task(hub, **entry, labels=["striped", "small"])
    assert pairs(renamed.rows("test"), renamed.labels)[1] == ("test 1", "small")
    turned = task(hub, **entry, labels=["ant", "zebra"])
    assert pairs(turned.rows("test"), turned.labels)[1] == ("test 1", "ant")
    refused("`labels` has 'zebr', which is none.*Did", hub, **entry, labels=["ant", "zebr"])
    refused("has 3 names for 2", hub, **entry, labels=["a", "b", "c"])


def test_hub_data_sets_that_cannot_be_loaded_are_refused(hub: Path, monkeypatch: Any):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    refused("hub:org/other: could not be loaded", hub, data="hub:org/other", text="x")
    text = "no column 'sentense'. The columns are picture, sentence, kind. Did you mean 'sentence'"
    refused(text, hub, data="hub:org/set", text="sentense", label="kind")
    words = {"text": "sentence", "label": "sentence", "labels": ["a", "b"]}
    refused("row 0: label 'train 0' is not in `labels`", hub, data="hub:org/set", **words)


def test_a_missing_package_is_named_with_what_installs_it():
    with pytest.raises(MissingExtraError, match=r'nosuch.*pip install "breadcrumbs\[evaluate\]"'):
        inputs.optional("nosuch.module", "pictures are read")


def test_reading_text_needs_neither_torch_nor_datasets(tmp_path: Path):
    import subprocess
    import sys

    write(tmp_path / "a.csv", RECORDS)
    code = (
        "import sys; from pathlib import Path; from breadcrumbs.evaluate import tasks\n"
        "entry = {'task': 't', 'data': 'a.csv', 'text': 'text'}\n"
        f"found = tasks.read(entry, Path({str(tmp_path)!r}), 'b', 'x')[0].task\n"
        "assert len(found.rows('train')) == 36\n"
        "print([m for m in ('torch', 'datasets', 'PIL', 'pandas') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
