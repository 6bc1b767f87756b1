"""Kernels chosen by name: one more package, and who may name the packages that there are."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

import breadcrumbs
from breadcrumbs import kernels
from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.kernels import numpy as plain
from breadcrumbs.kernels.protocol import OPERATIONS

STUB = "def {}(*given):\n    raise NotImplementedError({})\n"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that installs a module as the kernels of that name."""

    def install(name: str, source: str) -> None:
        (tmp_path / f"{name}_kernels.py").write_text(source)
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        entry = f"[{kernels.GROUP}]\n{name} = {name}_kernels\n"
        (about / "entry_points.txt").write_text(entry)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, f"{name}_kernels", raising=False)

    monkeypatch.setattr(kernels, "_loaded", dict(kernels._loaded))
    return install


@pytest.fixture
def family():
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((8, 8)).astype(np.float32)}
    return base, [{"w": base["w"] + np.float32(0.1)}, {"w": base["w"] - np.float32(0.2)}]


def refused(family, **given) -> str:
    base, models = family
    with pytest.raises(BreadcrumbsError) as caught:
        breadcrumbs.merge(base, models, **given)
    said = str(caught.value)
    assert "\n" not in said and said.endswith(("'auto'.", "numpy, native.", "NumPy's."))
    return said


@pytest.mark.parametrize("reason", ["", "no device"])
@pytest.mark.parametrize("method", ["ties", "model_stock", "sce"])
def test_kernels_that_do_nothing_yet_end_in_one_line(installed, family, method, reason):
    given = repr(reason) if reason else ""
    installed("stubs", "".join(STUB.format(name, given) for name in OPERATIONS))
    said = refused(family, kernel="stubs", method=method)
    assert said.startswith("the kernels 'stubs' do not have '") and reason in said


def test_kernels_that_take_numpys_give_the_same_bits(installed, family):
    base, models = family
    names = ", ".join(OPERATIONS)
    installed("borrowed", f"from {plain.__name__} import {names}\n")
    merged = breadcrumbs.merge(base, models, kernel="borrowed", method="ties")
    expected = breadcrumbs.merge(base, models, method="ties")
    assert merged["w"].tobytes() == expected["w"].tobytes()


def test_kernels_that_lack_an_operation_are_named(installed, family):
    installed("partial", f"from {plain.__name__} import {', '.join(OPERATIONS[2:])}\n")
    said = refused(family, kernel="partial")
    assert f"lack {OPERATIONS[0]}, {OPERATIONS[1]}." in said


def test_unknown_kernels_are_refused_before_anything_is_read(family):
    base, models = family
    models = [{"w": model["w"] * np.nan} for model in models]
    said = refused((base, models), kernel="nativ")
    assert said.startswith("there are no kernels 'nativ'. Did you mean 'native'?")


def test_packages_are_named_in_kernels_alone():
    """Everywhere else arithmetic takes the kernels that it is given."""
    root = Path(breadcrumbs.__file__).parent
    packages = set(kernels.PACKAGES.values())
    for path in root.rglob("*.py"):
        if path.is_relative_to(root / "kernels"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{one.name}" for one in node.names} | {node.module}
                assert not any(name.startswith(tuple(packages)) for name in names), path
