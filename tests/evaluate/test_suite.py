"""Suites: what a YAML file declares, what is refused, and the shipped ones."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from breadcrumbs.errors import BreadcrumbsError, SplitError, SuiteError
from breadcrumbs.evaluate import suite
from breadcrumbs.evaluate.data import declared, sources
from breadcrumbs.evaluate.data.task import SPLITS

FOUNDATION = """
class Words:
    kind = "words"
    settings = {}
    def load(self, base): ...
    def prepare(self, task, rows, size): ...
    def head(self, module, task): ...
    def logits(self, module, head, batch): ...
    def loss(self, module, head, batch): ...

FOUNDATION = Words()
"""

SUITE = """
suite: little
foundation: words.py
base: bases/small
tasks:
  - task: movies
    data: data/movies.csv
    text: review
    label: verdict
    finetuned: models/movies
  - others/spam.yaml
"""


def table(path: Path, rows: int = 40, columns: tuple[str, str] = ("review", "verdict")) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"text {i}", "fresh" if i % 3 else "rotten"] for i in range(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite of two tasks, one of them in a file of its own."""
    home = tmp_path / "home"
    table(home / "data" / "movies.csv")
    table(home / "others" / "data" / "mails.csv", 20, ("mail", "kind"))
    for name in ("bases/small", "models/movies"):
        (home / name).mkdir(parents=True)
    (home / "words.py").write_text(FOUNDATION)
    (home / "suite.yaml").write_text(SUITE)
    (home / "others" / "spam.yaml").write_text(
        "{task: spam, data: data/mails.csv, text: mail, label: kind, metric: f1, seed: 3}"
    )
    return home


def changed(folder: Path, **changes: Any) -> Path:
    """Write the suite with keys of its first task changed; None takes one out."""
    data = yaml.safe_load(SUITE)
    data["tasks"][0].update(changes)
    data["tasks"][0] = {k: v for k, v in data["tasks"][0].items() if v is not None}
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def message(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def digests(found: suite.Suite) -> list[str]:
    return [task.rows(split).digest for task in found.tasks for split in SPLITS]


def test_a_suite_says_what_its_file_says(folder: Path):
    found = suite.load(folder / "suite.yaml")
    assert (found.name, found.foundation.kind) == ("little", "words")
    assert found.base == str(folder / "bases/small")
    movies, spam = found.tasks
    assert (movies.name, movies.metric, movies.labels) == (
        "movies",
        "accuracy",
        ("fresh", "rotten"),
    )
    assert movies.finetuned == str(folder / "models/movies") and spam.finetuned is None
    assert (spam.name, spam.metric) == ("spam", "f1")
    assert [len(movies.rows(split)) for split in SPLITS] == [24, 6, 10]
    assert found.task("spam") is spam and found.path == folder / "suite.yaml"


def test_reading_a_suite_opens_no_data(folder: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    before = sources._table
    monkeypatch.setattr(sources, "_table", lambda *a: (read.append(a[1]), before(*a))[1])
    found = suite.load(folder / "suite.yaml").tuning()
    repr(found)
    found.to_mapping(folder)
    assert not read
    rows = found.task("movies").rows("train")
    assert found.task("movies").rows("train") is rows
    found.task("movies").rows("validation")
    assert read == ["data/movies.csv"]


def test_inputs_are_in_the_column_text_unless_told(folder: Path):
    rows = suite.load(folder / "suite.yaml").task("movies").rows("train")
    data = folder / "data" / "movies.csv"
    path = changed(folder, text=None)
    with pytest.raises(
        SuiteError, match=r"no column 'text'. The columns are .*review.*`text` \(or"
    ):
        suite.load(path).task("movies").rows("train")
    data.write_text(data.read_text().replace("review", "text", 1))
    found = suite.load(path).task("movies").rows("train")
    assert len(found) == 24 and found.digest == rows.digest


def test_a_suite_that_is_being_tuned_refuses_test_rows(folder: Path):
    found = suite.load(folder / "suite.yaml")
    for task in found.tuning().tasks:
        assert len(task.rows("train")) and len(task.rows("validation"))
        with pytest.raises(SplitError, match="test rows were asked for"):
            task.rows("test")
    assert len(found.task("movies").rows("test")) == 10


def test_the_same_file_gives_the_same_rows(folder: Path):
    first, second = suite.load(folder / "suite.yaml"), suite.load(folder / "suite.yaml")
    assert digests(first) == digests(second) and len(set(digests(first))) == 6


def test_a_suite_without_a_name_takes_the_files(folder: Path):
    (folder / "texts.yaml").write_text(SUITE.replace("suite: little\n", ""))
    assert suite.load(folder / "texts.yaml").name == "texts"


def test_a_file_may_hold_a_list_of_tasks(folder: Path):
    (folder / "others" / "two.yaml").write_text(
        "- {task: a, data: data/mails.csv, text: mail, label: kind}\n"
        "- {task: b, data: data/mails.csv, text: mail, label: kind, seed: 1}\n"
    )
    (folder / "list.yaml").write_text(SUITE.replace("others/spam.yaml", "others/two.yaml"))
    assert [task.name for task in suite.load(folder / "list.yaml").tasks] == ["movies", "a", "b"]


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_saved_suite_gives_the_same_tasks_elsewhere(folder: Path, tmp_path: Path, place: str):
    found = suite.load(folder / "suite.yaml")
    new = (folder if place == "inside" else tmp_path) / "out"
    (new / "spam").mkdir(parents=True)
    filled = found.with_models({"spam": str(new / "spam")})
    filled.save(new / "suite.yaml")
    assert yaml.safe_load((new / "suite.yaml").read_text())["tasks"][1]["finetuned"] == "spam"
    again = suite.load(new / "suite.yaml")
    assert (again.name, again.base) == (found.name, found.base)
    assert [task.finetuned for task in again.tasks] == [
        str(folder / "models/movies"),
        str(new / "spam"),
    ]
    assert [(t.metric, t.labels) for t in again.tasks] == [
        (t.metric, t.labels) for t in found.tasks
    ]
    assert digests(again) == digests(found)
    assert sorted(path.name for path in new.iterdir()) == ["spam", "suite.yaml"]


def test_a_saved_suite_finds_what_its_foundation_names(folder: Path, tmp_path: Path):
    (folder / "towers").mkdir()
    path = folder / "clip.yaml"
    path.write_text(SUITE.replace("words.py", "{kind: clip, text: ./towers}"))
    suite.load(path).save(tmp_path / "suite.yaml")
    again = suite.load(tmp_path / "suite.yaml")
    assert again.foundation.settings["text"] == str(folder / "towers")


def test_a_folder_that_is_moved_with_all_in_it_still_works(folder: Path, tmp_path: Path):
    suite.load(folder / "suite.yaml").save(folder / "saved.yaml")
    before = digests(suite.load(folder / "saved.yaml"))
    folder.rename(tmp_path / "moved")
    assert digests(suite.load(tmp_path / "moved" / "saved.yaml")) == before


def test_base_and_fine_tuned_can_be_of_another_size(folder: Path):
    path = changed(folder, finetuned="org/{base}_movies")
    assert suite.load(path).task("movies").finetuned == "org/small_movies"
    found = suite.load(path, base="them/large@v1")
    assert (found.base, found.task("movies").finetuned) == ("them/large@v1", "org/large_movies")


def test_places_inside_packages_are_found_without_importing_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "site" / "packed_data"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    table(package / "tables" / "m.csv")
    (package / "model").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    path = changed(folder, data="package:packed_data/tables/m.csv")
    found = suite.load(path, base="package:packed_data/model")
    assert found.base == str(package / "model")
    assert len(found.task("movies").rows("train")) == 24
    assert found.to_mapping()["base"] == "package:packed_data/model"
    with pytest.raises(SuiteError, match="no package 'packed_dota'"):
        suite.load(changed(folder, data="package:packed_dota/m.csv"))
    with pytest.raises(SuiteError, match=r"n.csv: no such file or folder. Did you mean 'm.csv'"):
        suite.load(changed(folder, data="package:packed_data/tables/n.csv"))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"lable": "x"}, r"unknown key 'lable'.* Did you mean 'label'\?"),
    "no data": ({"data": None}, r"tasks\[0\]: there is no 'data'"),
    "no file": ({"data": "data/movis.csv"}, r"data: data/movis.csv: no such.*'movies.csv'"),
    "a hub id without hub:": ({"data": "org/name"}, "written hub:org/name"),
    "another ending": ({"data": "suite.yaml"}, "cannot be read as data"),
    "text and image": ({"image": "x"}, "`text` and `image`"),
    "three texts": ({"text": ["a", "b", "c"]}, "found 3 columns"),
    "a truth value": ({"labels": [False, True]}, r"labels\[0\]: found False.*in quotes"),
    "one label": ({"labels": ["x"]}, "there is one label"),
    "a label twice": ({"labels": ["x", "y", "x"]}, "'x' appears twice"),
    "a metric": ({"metric": "acuracy"}, "Did you mean 'accuracy'"),
    "a seed": ({"seed": -1}, "seed: -1 is not a whole number"),
    "a head": ({"head": "x"}, "head: found 'x' where `key: value` lines are expected"),
    "config": ({"config": "x"}, "config: is for hub data sets"),
    "a name": ({"task": "a/b"}, "cannot be the name of a folder"),
    "a split": ({"splits": {"dev": 3}}, "splits: unknown key 'dev'"),
    "no rows": ({"splits": {"test": 0}}, "splits: test: 0 is not a whole number of 1 or more"),
    "a fraction": ({"splits": {"test": 1.5}}, "splits: test: 1.5 is not a fraction"),
    "count and fraction": (
        {"splits": {"test": {"count": 1, "fraction": 0.1}}},
        "give `count` or `fraction`",
    ),
    "a list": ({"splits": {"test": [1]}}, r"splits: test: found \[1\]. Give the name"),
    "data of unknown splits": ({"data": {"trian": "x"}}, "Did you mean 'train'"),
}


@pytest.mark.parametrize("changes, expected", WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_task_is_said_with_its_place(
    folder: Path, changes: dict[str, Any], expected: str
):
    path = changed(folder, **changes)
    with pytest.raises(SuiteError, match=expected) as error:
        suite.load(path)
    assert message(error).startswith(f"{path}: tasks[0]")


@pytest.mark.parametrize(
    "before, after, expected",
    [
        ("suite: little", "finetuned_seed: -1", "finetuned_seed: -1 is not a whole number"),
        ("suite: little", "siute: little", "unknown key 'siute'.*Did you mean 'suite'"),
        ("base: bases/small\n", "", "there is no 'base'"),
        ("foundation: words.py\n", "", "there is no 'foundation'"),
        ("words.py", "word.py", "foundation: word.py: no such file"),
        ("words.py", "sentense", "foundation: .*'sentense'"),
        ("others/spam.yaml", "others/spm.yaml", r"tasks\[1\]: others/spm.yaml: no such file"),
        ("task: movies", "task: Spam", "appears twice"),
        ("tasks:", "tasks: [", "line 6: not YAML"),
        ("    text: review", "    text: review\n    text: x", "line 9: not YAML: .*appears twice"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said_with_its_place(
    folder: Path, before: str, after: str, expected: str
):
    path = folder / "wrong.yaml"
    path.write_text(SUITE.replace(before, after))
    with pytest.raises(SuiteError, match=expected) as error:
        suite.load(path)
    assert message(error).startswith(str(path))


def test_an_error_in_a_tasks_own_file_names_that_file(folder: Path):
    (folder / "others" / "spam.yaml").write_text("{task: spam, data: data/mails.csv, txt: mail}")
    with pytest.raises(SuiteError, match=r"spam.yaml: unknown key 'txt'"):
        suite.load(folder / "suite.yaml")


def test_unknown_suites_and_tasks_are_refused_with_the_nearest_name(folder: Path):
    with pytest.raises(SuiteError, match=r"clip9: no such file. Did you mean 'clip8'\?"):
        suite.load("clip9")
    with pytest.raises(SuiteError, match="is a folder"):
        suite.load(folder)
    with pytest.raises(SuiteError, match=r"no task 'movie'. Did you mean 'movies'"):
        suite.load(folder / "suite.yaml").task("movie")
    with pytest.raises(SuiteError, match="no task 'movie'"):
        suite.load(folder / "suite.yaml").with_models({"movie": "x"})


# --- the shipped suites --------------------------------------------------------------------------


SHIPPED = {"clip14": 14, "clip20": 20, "clip8": 8, "glue4": 4}


@pytest.mark.parametrize("name, tasks", SHIPPED.items())
def test_the_shipped_suites_are_read(name: str, tasks: int):
    found = suite.load(name)
    assert len(found.tasks) == tasks and found.name == name
    for task in found.tasks:
        templates = task.head.get("templates", task.head.get("template"))
        for template in [templates] if isinstance(templates, str) else templates:
            assert "{}" in template or "{0}" in template


def test_every_shipped_suite_is_tested():
    assert suite.shipped() == list(SHIPPED)


def test_the_larger_clip_suites_hold_the_smaller_and_follow_the_base():
    names = [[task.name for task in suite.load(f"clip{n}").tasks] for n in (8, 14, 20)]
    assert names[2][:14] == names[1] and names[1][:8] == names[0]
    for size in ("base-patch32", "base-patch16", "large-patch14"):
        found = suite.load("clip8", base=f"openai/clip-vit-{size}")
        assert found.task("dtd").finetuned == f"tanganke/clip-vit-{size}_dtd"


def test_the_shape_of_clip8_runs_on_a_local_folder_of_pictures(tmp_path: Path):
    """Each task of clip8 with its data, and nothing else, replaced."""
    image = pytest.importorskip("PIL.Image")
    for split, number in (("train", 20), ("test", 4)):
        for at, label in enumerate(("dull", "bright")):
            (tmp_path / "pictures" / split / label).mkdir(parents=True)
            for i in range(number):
                color = (100 * at + i, i, len(split))
                image.new("RGB", (8, 6), color).save(
                    tmp_path / "pictures" / split / label / f"{i}.png"
                )
    data = suite.load("clip8").to_mapping()
    for task in data["tasks"]:
        task["data"] = "pictures"
        del task["image"]
        task.pop("config", None)
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(data))
    found = suite.load(tmp_path / "local.yaml")
    assert found.task("cars").head == suite.load("clip8").task("cars").head
    for task in found.tasks:
        assert [len(task.rows(split)) for split in SPLITS] == [36, 4, 8]
        assert task.labels == ("bright", "dull")
        rows = task.rows("test")
        for picture, label in zip(rows.inputs, rows.labels, strict=True):
            assert (picture.mode, picture.size) == ("RGB", (8, 6))
            assert (picture.getpixel((0, 0))[0] >= 100) == (task.labels[label] == "bright")


# --- whatever a file may hold --------------------------------------------------------------------

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=4),
    st.text("\n\0/.~a", max_size=3),
    st.just("long" * 100),
    st.sampled_from(["data/movies.csv", "words.py", "hub:", "package:", "package:a/b", "rest"]),
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["of", "count", "test", "train", "kind", "task"]), ATOMS),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    where=st.sampled_from(["suite", "task"]),
    key=st.sampled_from([*suite.KEYS, *declared.KEYS]),
    value=VALUES,
)
def test_whatever_stands_in_a_file_is_read_or_refused_on_one_line(
    folder: Path, where: str, key: str, value: Any
):
    data = yaml.safe_load(SUITE)
    (data if where == "suite" else data["tasks"][0])[key] = value
    path = folder / "any.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    try:
        found = suite.load(path)
        for task in found.tasks:
            for split in SPLITS:
                task.rows(split)
    except BreadcrumbsError as error:
        assert "\n" not in str(error)


def test_a_suite_that_was_read_from_goes_to_another_process(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(40)))
    path = tmp_path / "s.yaml"
    path.write_text("foundation: sentence\nbase: b\ntasks:\n- {task: a, data: a.csv, text: text}\n")
    made = suite.load(path)
    digest = made.task("a").rows("test").digest
    again = pickle.loads(pickle.dumps(made.tuning()))
    assert again.task("a").rows("train").digest == made.task("a").rows("train").digest
    assert digest not in pickle.dumps(made).decode("latin-1")
    with pytest.raises(SplitError, match="test rows were asked for"):
        again.task("a").rows("test")
