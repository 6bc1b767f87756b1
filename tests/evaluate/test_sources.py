"""Sources: rows of tables, Python files and hub data sets, their labels, and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_tasks import RECORDS, pairs, png, refused, task, write

from breadcrumbs.errors import MissingExtraError, SplitError, SuiteError
from breadcrumbs.evaluate.data import inputs
from breadcrumbs.evaluate.data.task import SPLITS


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
        ("a.jsonl", "[1]", "a.jsonl, line 1: is not an object"),
        ("a.jsonl", '{"text": null, "label": 1}', "column 'text' holds nothing where a text"),
        ("a.jsonl", '{"text": 3.5, "label": 1}', "column 'text' holds 3.5 where a text"),
        ("a.jsonl", '{"text": "a", "label": 0.5}', "column 'label' holds 0.5"),
        ("a.jsonl", '{"text": "a"}', "a.jsonl, line 1: there is no column 'label'"),
        ("a.json", '{"text": "a"}', "is not a list of objects"),
        ("a.json", "[" * 100000, "not JSON"),
        ("a.parquet", "PAR1", "cannot be read as parquet"),
        ("a.npz", "PK", "cannot be read as .npz"),
        ("a.npz", "PK\3\4", "cannot be read as .npz"),
        ("a.npz", "", "cannot be read as .npz"),
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
    with pytest.raises(SuiteError, match=r"text: names a column, and a.npz is not a table"):
        task(tmp_path, data="a.npz", text="text")


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
    refused("`labels` has 'zebr', which is not one.*Did", hub, **entry, labels=["ant", "zebr"])
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
    with pytest.raises(MissingExtraError, match=r'nosuch.*pip install "\.\[evaluate\]"'):
        inputs.optional("nosuch.module", "pictures are read")


def test_reading_text_needs_neither_torch_nor_datasets(tmp_path: Path):
    import subprocess
    import sys

    write(tmp_path / "a.csv", RECORDS)
    code = (
        "import sys; from pathlib import Path\n"
        "from breadcrumbs.evaluate.data import declared as tasks\n"
        "entry = {'task': 't', 'data': 'a.csv', 'text': 'text'}\n"
        f"found = tasks.read(entry, Path({str(tmp_path)!r}), 'b', 'x')[0].task\n"
        "assert len(found.rows('train')) == 36\n"
        "print([m for m in ('torch', 'datasets', 'PIL', 'pandas') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
