"""Splits: those of the source, and rows that are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from source_tasks import RECORDS, refused, task, write

from breadcrumbs.evaluate.data import inputs, splits
from breadcrumbs.evaluate.data.splits import Part
from breadcrumbs.evaluate.data.task import SPLITS, Split


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
    some = [{**r, "split": ("train", "val")[i % 2]} for i, r in enumerate(RECORDS)]
    write(tmp_path / "c.csv", some)
    advice = r"none is left for test\. Draw it, as in splits: {test: {of: train, fraction: 0.2}}"
    refused(advice, tmp_path, data="c.csv", text="text")
    parts = {"test": {"of": "train", "fraction": "0.2"}}
    drawn = task(tmp_path, data="c.csv", text="text", splits=parts)
    assert [len(drawn.rows(split)) for split in SPLITS] == [24, 30, 6]
    write(tmp_path / "b.csv", RECORDS)
    refused("the source has no splits", tmp_path, data="b.csv", text="text", splits={"train": "a"})
    refused(
        "has splits of its own", tmp_path, data={"train": "a.csv", "test": "b.csv"}, text="text"
    )


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
        from breadcrumbs.evaluate.data.reading import digest

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
