"""YAML of others: whatever it says, an answer or one line, soon."""

from __future__ import annotations

from pathlib import Path

import pytest

from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.evaluate import suite
from breadcrumbs.plan import bounded_yaml, mergekit, recipe
from breadcrumbs.store import licences

PAIRS = list(zip("abcdefghi", "bcdefghij", strict=True))
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in PAIRS
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}], {new}1: 2}}\n" for old, new in PAIRS
)
HOSTILE = {
    "aliases": LAUGHS,
    "merge keys": MERGES,
    "keys": "".join(line + "\n" for line in LAUGHS.splitlines()) + "? *j\n: 1\n",
    "flow": "[" * 100_000,
    "indent": "\n".join(" " * i + "a:" for i in range(3000)),
    "itself": "a: &a [*a]",
    "decimal": "a: " + "9" * 1_000_000,
    "hexadecimal": "a: 0x" + "f" * 1_000_000,
    "sexagesimal": "a: 1" + ":59" * 300_000,
    "sexagesimal fraction": "a: 1" + ":59" * 300_000 + ".5",
    "object": "!!python/object/apply:os.system [true]",
    "date": "a: 2020-13-01",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_texts_are_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(HOSTILE[what])
    for read in (recipe.load, suite.load, mergekit.convert):
        with pytest.raises(BreadcrumbsError) as caught:
            read(str(path))
        assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 500
    (tmp_path / "README.md").write_text(f"---\n{HOSTILE[what]}\n---\n")
    assert licences.of_folder(tmp_path) == ""


def test_plain_aliases_are_what_they_stand_for() -> None:
    text = "a: &x {b: 1}\nc: {<<: *x, d: [*x, *x]}\ne: &y 5\nf: *y\n"
    assert bounded_yaml.load(text) == {
        "a": {"b": 1},
        "c": {"b": 1, "d": [{"b": 1}, {"b": 1}]},
        "e": 5,
        "f": 5,
    }


@pytest.mark.parametrize("text", ["? [a, b]\n: 1\n", "? {a: b}\n: 1\n", "{[a]: 1}"])
def test_keys_are_no_lists_or_mappings(text: str) -> None:
    with pytest.raises(bounded_yaml.YAMLRefused, match="a key is a list or mapping"):
        bounded_yaml.load(text)


def test_values_are_counted_as_aliases_stand_for_them() -> None:
    bounded_yaml.load("a: &a [1, 2]\nb: [*a, *a]", most=13)
    with pytest.raises(bounded_yaml.YAMLRefused, match="more than 11 values"):
        bounded_yaml.load("a: &a [1, 2]\nb: [*a, *a]", most=11)


def test_texts_nest_as_deep_as_they_may() -> None:
    bounded_yaml.load("[" * bounded_yaml.DEEPEST + "]" * bounded_yaml.DEEPEST)
    with pytest.raises(bounded_yaml.YAMLRefused, match="nests deeper than 100 levels"):
        bounded_yaml.load("[" * 101 + "]" * 101)
    with pytest.raises(bounded_yaml.YAMLRefused, match=r"alias \*a is within what it stands for"):
        bounded_yaml.load("a: &a [1, *a]")


def test_files_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# " + "x" * 100)
    with pytest.raises(bounded_yaml.YAMLRefused, match="more than 50 bytes"):
        bounded_yaml.read_text(path, 50)
    with pytest.raises(BreadcrumbsError, match="not a regular file"):
        recipe.load("/dev/zero")


def test_licence_of_a_card(tmp_path: Path) -> None:
    for front, found in (
        ("license: mit", "mit"),
        ("license: [mit, bsd]", "mit, bsd"),
        ("a: 1", ""),
    ):
        (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# Card")
        assert licences.of_folder(tmp_path) == found
