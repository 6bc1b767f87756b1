"""What results look like in a notebook, and what type checkers know of the arguments."""

from __future__ import annotations

import builtins
import inspect
import pydoc
import re
import time
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from docs import typed

import breadcrumbs
from breadcrumbs.checkpoint import notebook
from breadcrumbs.errors import MissingExtraError
from breadcrumbs.merging import api, progress
from breadcrumbs.merging.options import Options
from breadcrumbs.merging.typed import MethodName, Parameters
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan import USUAL
from breadcrumbs.tune.search.trials import Found, Trial

pandas = pytest.importorskip("pandas")


def state(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_normal((40, 50)).astype("f"), "<b>": rng.standard_normal(3)}


BASE, MODELS = state(0), [state(1), state(2)]


def results() -> list[tuple[Any, str, int]]:
    """Return what can be shown, the beginning of its text, and how many rows its frame has."""
    tau = breadcrumbs.TaskVector(BASE, MODELS[0])
    merged = breadcrumbs.merge(BASE, MODELS, names=["a", "<i>"])
    points = [({"beta": 0.5}, 0.4), ({"beta": 0.9}, 0.7)]
    trials = [Trial(i, point, s, {"cats": s}, {"cats": s}) for i, (point, s) in enumerate(points)]
    soup = breadcrumbs.greedy_soup(BASE, MODELS, lambda model: float(-np.abs(model["w"]).sum()))
    return [
        (merged, "<Merged of 2 tensors: 2 models by breadcrumbs, 2 of 2", 2),
        (merged.report, "<Report: 2 models by breadcrumbs, 2 of 2 tensors merged, 2,003 w", 2),
        (breadcrumbs.compare(BASE, MODELS), "<Comparison of model 1, model 2 on base; cosine", 1),
        (tau, "<TaskVector of 2 tensors, 2,003 entries, norm ", 2),
        (breadcrumbs.load(BASE), "<Weights of mapping: 2 tensors, 2,003 entries, fl", 2),
        (soup, "<Soup of ", 2),
        (Found(trials, "mean"), "<Found: the best of 2 trials has mean 0.7 at beta 0.9>", 2),
    ]


def test_results_are_shown_in_a_line_a_table_and_a_frame():
    for result, text, rows in results():
        assert repr(result).startswith(text) and "\n" not in repr(result)
        page = result._repr_html_()
        assert page.startswith("<div>") and page.endswith("</div>")
        names = set(re.findall(r"</?(\w+)", page))
        assert names <= {"div", "strong", "br", "table", "thead", "tbody", "tr", "th", "td", "em"}
        frame = result.to_frame()
        assert isinstance(frame, pandas.DataFrame) and len(frame) == rows
    assert "&lt;i&gt;" in results()[1][0]._repr_html_()


def test_a_matrix_as_a_frame():
    compared = breadcrumbs.compare(BASE, MODELS, names=["a", "b"])
    frame = compared.to_frame("cosine")
    assert list(frame.columns) == list(frame.index) == ["a", "b"]
    assert frame.loc["a", "b"] == compared.cosine[0, 1]


def test_long_tables_are_cut_and_counted():
    many = {f"t{i}": np.zeros(1, np.float32) for i in range(notebook.ROWS + 5)}
    page = breadcrumbs.load(many)._repr_html_()
    assert page.count("<tr>") == notebook.ROWS + 1 and "and 5 more" in page


def test_without_pandas_a_line_says_how_to_get_it(monkeypatch):
    plain = builtins.__import__

    def without(name: str, *more: Any, **settings: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return plain(name, *more, **settings)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"`pip install pandas`"):
        breadcrumbs.load(BASE).to_frame()


@pytest.mark.parametrize("seed", range(3))
def test_products_of_task_vectors_are_the_bits_of_compare(seed):
    rng = np.random.default_rng(seed)
    size = 3 * USUAL.block + 17
    made = [{"w": rng.standard_normal(size).astype("f"), "b": np.ones(2)} for _ in range(3)]
    base, *models = made
    compared = breadcrumbs.compare(base, models)
    first, second = (breadcrumbs.TaskVector(base, model) for model in models)
    assert [first.norm(), second.norm()] == compared.norms.tolist()
    assert first.cosine(second) == compared.cosine[0, 1]
    assert first.cosine(-first) == -1 and first.cosine(first - first) == 0
    assert first.dot(second) == pytest.approx(first.norm() * second.norm() * first.cosine(second))
    halved = (first / 2 - first * 0.5).norm()
    assert halved == 0 and (first / np.float32(4)).norm() == first.norm() / 4


def test_a_bar_is_shown_once_and_changed_in_place(monkeypatch):
    import IPython.core.display_functions as display_functions

    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(display_functions, "display", lambda *a, **how: calls.append(how))
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    times = iter(np.arange(0, 100, 0.05))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(times)))
    with progress.bar(1000, None, "merging") as told:
        for _ in range(100):
            told(10)
    assert len({call["display_id"] for call in calls}) == 1
    assert [call.get("update", False) for call in calls].count(False) == 1 and len(calls) < 30
    calls.clear()
    with progress.bar(1000, False, "merging") as told:
        for _ in range(100):
            told(10)
    assert not calls


def test_public_names_are_there_to_see():
    names = {name for name in dir(breadcrumbs) if not name.startswith("_")}
    assert names == set(breadcrumbs.__all__) - {"__version__"} and "load" in names
    text = pydoc.plain(pydoc.render_doc(breadcrumbs))
    assert all(name in text for name in names)
    with pytest.raises(AttributeError, match=r"no attribute 'mrge'\. Did you mean 'merge'\?"):
        _ = breadcrumbs.mrge  # type: ignore


def test_type_checkers_know_all_arguments():
    signature = inspect.signature(api.merge).parameters
    given = set(signature) - {"base", "models", "output", "as_", "parameters"}
    parameters = {name for method in METHODS.values() for name in method.parameters}
    assert set(get_type_hints(Parameters)) == parameters
    assert set(get_type_hints(Options)) == given | parameters
    assert set(get_args(MethodName)) == set(METHODS)
    path = inspect.getsourcefile(inspect.getmodule(Parameters))  # type: ignore[arg-type]
    with open(str(path), encoding="utf-8") as file:
        assert file.read() == typed.source()
    assert not given & parameters  # one name, one meaning
