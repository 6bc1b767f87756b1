"""What passes have found is noted: a resumed merge passes over nothing twice, to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from families import checkpoints

from breadcrumbs.checkpoint.journal import JOURNAL
from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.plain import of_json, to_json
from breadcrumbs.errors import OutputError
from breadcrumbs.merging import files, opening
from breadcrumbs.methods.folds import Cut
from breadcrumbs.plan import Sizes
from breadcrumbs.plan.recipe import Model, Recipe

#: Chunks and segments so small that tensors have several.
SMALL = Sizes(chunk=256, arena=1 << 14, run=32)
CASES: dict[str, dict[str, Any]] = {
    "ranks of tensors": {"method": "breadcrumbs", "beta": 0.3, "gamma": 0.9},
    "ranks of the model": {"method": "bottom_masking", "granularity": "model", "density": 0.3},
    "an election": {"method": "ties", "granularity": "model"},
    "norms": {"method": "breadcrumbs+elect", "rescale": "l1", "beta": 0.3, "gamma": 0.9},
    "fits": {"method": "tvq"},
    "a fit of two": {"method": "rtvq"},
    "inner products": {"method": "breadcrumbs+nuslerp", "beta": 0.3, "gamma": 0.9},
    "lines": {"method": "nuslerp", "angles": "row"},
    "a cut": {"method": "tatr"},
    "ranges": {"method": "breadcrumbs+pcb", "beta": 0.3, "gamma": 0.9},
    "a number": {"method": "emr", "task": "1"},
    "votes": {"method": "consensus", "on": "ties"},
}
cases = pytest.mark.parametrize("case", CASES)


class Stop(Exception):
    pass


@dataclass
class Merges:
    """Merges of one family. passes: those that the last one began."""

    paths: list[str]
    folder: Path
    passes: list[str]

    def merge(
        self, case: str, name: str, *, sizes: Sizes = SMALL, **options: Any
    ) -> dict[str, bytes]:
        """Return the files of weights of a merge."""
        self.passes.clear()
        given = dict(CASES[case], **options.pop("given", {}))
        if given["method"] not in ("tvq", "rtvq", "nuslerp", "breadcrumbs+nuslerp", "emr"):
            given.setdefault("alpha", 0.5)
        base, *models = self.paths
        made = Recipe(base, tuple(map(Model, models)), given.pop("method"), given)
        output = self.folder / name
        with opening.opened(made, sizes=sizes) as plan:
            files.to_files(plan, output, **{"threads": 1, **options})
        return {path.name: path.read_bytes() for path in output.glob("*.safetensors")}

    def journal(self, name: str) -> Path:
        return self.folder / f"{name}.partial" / JOURNAL


@pytest.fixture
def merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Merges:
    passes: list[str] = []
    looks = runner._looks

    def counted(context: Any, pass_: Any, *more: Any) -> Any:
        passes.append(type(pass_).__name__)
        return looks(context, pass_, *more)

    monkeypatch.setattr(runner, "_looks", counted)
    return Merges(checkpoints(tmp_path / "in", models=2, rows=24), tmp_path, passes)


@contextmanager
def stopping(owner: Any, name: str, after: int) -> Iterator[list[int]]:
    """Interrupt a call of a method after so many; how many are left is in the list."""
    before, left = getattr(owner, name), [after]

    def counted(*given: Any, **more: Any) -> Any:
        if not left[0]:
            raise Stop
        left[0] -= 1
        return before(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        yield left


def calls(owner: Any, name: str, run: Callable[[], Any]) -> tuple[Any, int]:
    """Return what a function returns, and how often it calls a method."""
    with stopping(owner, name, 10**9) as left:
        return run(), 10**9 - left[0]


def interrupted(merges: Merges, case: str, name: str, **more: Any) -> int:
    """Interrupt a merge, and return how many passes it had begun."""
    with pytest.raises(Stop):
        merges.merge(case, name, **more)
    return len(merges.passes)


@cases
def test_stopped_while_it_is_written(case: str, merges: Merges) -> None:
    expected, number = calls(Writing, "merge", lambda: merges.merge(case, "whole"))
    every = len(merges.passes)
    assert every and number > 3
    for at in (0, number // 2, number - 1):
        with stopping(Writing, "merge", at):
            before = interrupted(merges, case, f"out{at}")
        found = merges.merge(case, f"out{at}", resume=True)
        assert found == expected, at
        assert before + len(merges.passes) == every, at  # each of them once
        if at == number - 1:
            assert not merges.passes


@cases
def test_stopped_in_a_pass(case: str, merges: Merges) -> None:
    expected, number = calls(Facts, "add", lambda: merges.merge(case, "whole"))
    every = len(merges.passes)
    ends = sorted({0, number // 2, number - 1})
    for at in ends:  # what passes found before counts, and this one's does not
        with stopping(Facts, "add", at):
            interrupted(merges, case, f"out{at}")
        again = {"kernel": "native", "threads": 3, "resume": True}
        assert merges.merge(case, f"out{at}", **again) == expected
        assert merges.passes and (len(merges.passes) < every or not at or number == 1)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def known(path: Path) -> list[int]:
    return [i for i, line in enumerate(lines(path)) if "known" in line]


def written(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def text_digest(key: str, text: str) -> str:
    return blake3(f"{key}\n{text}".encode()).hexdigest()


DAMAGES: dict[str, Callable[[str, str, str], dict[str, Any]]] = {
    "another digit": lambda key, text, digest: {"known": _other(text), "digest": digest},
    "cut off": lambda key, text, digest: {"known": text[:-9], "digest": digest},
    "no digest": lambda key, text, digest: {"known": text},
    "of another merge": lambda key, text, digest: {
        "known": text,
        "digest": text_digest("another", text),
    },
    "no text": lambda key, text, digest: {"known": 7, "digest": text_digest(key, "7")},
    "no facts": lambda key, text, digest: {
        "known": text.partition("\n")[0] + "\n[1]",
        "digest": text_digest(key, text.partition("\n")[0] + "\n[1]"),
    },
    "other sizes": lambda key, text, digest: {
        "known": "0" + text,
        "digest": text_digest(key, "0" + text),
    },
}


def _other(text: str) -> str:
    at = 2 * len(text) // 3
    return text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("case", ["norms", "ranges"])
def test_damaged_facts_are_found_again(case: str, damage: str, merges: Merges) -> None:
    expected, number = calls(Writing, "merge", lambda: merges.merge(case, "whole"))
    with stopping(Writing, "merge", number - 1):
        interrupted(merges, case, "out")
    path = merges.journal("out")
    rows = lines(path)
    for at in known(path):
        text, digest = rows[at]["known"], rows[at]["digest"]
        assert digest == text_digest(rows[0]["key"], text)
        rows[at] = DAMAGES[damage](rows[0]["key"], text, digest)
    written(path, rows)
    assert merges.merge(case, "out", resume=True) == expected
    assert merges.passes


@cases
def test_facts_that_were_lost_are_found_again_with_all_that_follows(
    case: str, merges: Merges
) -> None:
    expected, number = calls(Writing, "merge", lambda: merges.merge(case, "whole"))
    with stopping(Writing, "merge", number - 1):
        interrupted(merges, case, "out")
    path = merges.journal("out")
    rows, noted = lines(path), known(path)
    for lost in {noted[0], noted[-1]}:
        written(path, rows[:lost] + rows[lost + 1 :])
        with stopping(Writing, "merge", 0):
            try:
                merges.merge(case, "out", resume=True)
            except Stop:
                continue
    assert merges.merge(case, "out", resume=True) == expected


def test_facts_of_other_sizes_are_not_taken_and_a_budget_is_none(merges: Merges) -> None:
    case = "ranks of the model"
    expected, number = calls(Writing, "merge", lambda: merges.merge(case, "whole"))
    for name, sizes, again in (("a", Sizes(chunk=128, arena=1 << 14), True), ("b", SMALL, False)):
        with stopping(Writing, "merge", number - 1):
            interrupted(merges, case, name)
        options = {"resume": True, "sizes": sizes, "max_memory": 10**9}
        assert merges.merge(case, name, **options) == expected
        assert bool(merges.passes) == again


def test_of_another_recipe_nothing_is_taken(merges: Merges) -> None:
    case = "ranks of the model"
    with stopping(Writing, "merge", 2):
        interrupted(merges, case, "out")
    with pytest.raises(OutputError, match="another recipe"):
        merges.merge(case, "out", resume=True, given={"density": 0.4})
    expected = merges.merge(case, "whole", given={"density": 0.4})
    assert merges.merge(case, "out", force=True, given={"density": 0.4}) == expected
    assert merges.passes


# --- facts as text ---


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert repr(one) == repr(other)


PLAIN = [
    None,
    True,
    3,
    -(10**30),
    0.1,
    -0.0,
    float("inf"),
    float("nan"),
    "a \n ü",
    [1, (2.5, "x"), []],
    {(1, 2): np.arange(6).reshape(2, 3), "b": {}},
    np.float64(0.1),
    np.float32(-0.0),
    np.array([np.nan, 5e-324, -np.inf]),
    np.zeros((0, 4), np.int64),
    np.array(3, np.uint8),
    np.arange(6, dtype=np.float32).reshape(2, 3).T,
    Cut(0.5, 7),
    (Cut(float("inf"), 0), [Cut(0.1, 2)]),
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_comes_back(value: Any) -> None:
    assert_same(of_json(json.loads(json.dumps(to_json(value)))), value)


@pytest.mark.parametrize(
    "value", [object(), lambda: 0, {1, 2}, np.array([object()]), Cut, b"x", np.zeros(2, "M8[s]")]
)
def test_what_is_no_plain_data_is_told(value: Any) -> None:
    with pytest.raises(TypeError):
        to_json(value)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"made": "os:system", "fields": {"command": "true"}},
        {"made": "breadcrumbs.methods.folds:Total", "fields": {}},
        {"made": "breadcrumbs.methods.folds:Cut", "fields": {"value": 1.0}},
        {"made": "nowhere:Cut", "fields": {}},
        {"made": 3},
        {"array": "x", "dtype": "<f8", "shape": [1]},
        {"array": to_json(np.zeros(2))["array"], "dtype": "<f8", "shape": [3]},
        {"array": to_json(np.zeros(2))["array"], "dtype": "O", "shape": [2]},
        {"dict": [[[], 1]]},
        {"tuple": 3},
    ],
)
def test_what_to_json_did_not_write_is_refused(data: Any) -> None:
    with pytest.raises(ValueError):
        of_json(data)


@pytest.mark.parametrize("text", ["[1]", "{", '{"cuts": 3}', '{"other": {"dict": []}}', '"x"', ""])
def test_texts_that_are_no_facts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Facts.of_text(text)
