"""The package as a whole: what importing costs, what is public, what is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import breadcrumbs

SOURCE = Path(breadcrumbs.__file__).parent
NAMES = sorted(
    info.name
    for info in pkgutil.walk_packages([str(SOURCE)], "breadcrumbs.")
    if not info.name.endswith("__main__")
    and (info.ispkg or (SOURCE.parent / f"{info.name.replace('.', '/')}.py").exists())
)


def test_there_are_modules() -> None:
    assert {"breadcrumbs.cli", "breadcrumbs.kernels.numpy"} <= set(NAMES)


def test_no_module_imports_torch() -> None:
    """Every module is there without the extras: one process imports all of them."""
    script = (
        "import importlib, sys\n"
        "for name in ('torch', 'transformers', 'safetensors'): sys.modules[name] = None\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, *NAMES], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_import_is_light() -> None:
    script = "import breadcrumbs, sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"numpy", "torch", "rich", "click", "yaml", "huggingface_hub"}
    assert not heavy & set(ran.stdout.split())


def test_public_names() -> None:
    for name in breadcrumbs.__all__:
        value = getattr(breadcrumbs, name)
        assert isinstance(value, str) or inspect.getdoc(value), f"{name} has no docstring"
    assert len(set(breadcrumbs.__all__)) == len(breadcrumbs.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = breadcrumbs.nothing  # type: ignore


def test_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


@pytest.mark.parametrize("name", ["breadcrumbs", *NAMES])
def test_everything_public_has_a_docstring(name: str) -> None:
    """Modules, and the functions and classes in them without a leading underscore."""
    module = importlib.import_module(name)
    assert module.__doc__ and module.__doc__.strip(), name
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    missing = [node.name for node in _public(tree) if not ast.get_docstring(node)]
    assert not missing, f"{name}: no docstring: {', '.join(missing)}"


def _public(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    found: list[ast.FunctionDef | ast.ClassDef] = []
    for node in tree.body:
        decorators = {ast.unparse(it) for it in getattr(node, "decorator_list", ())}
        if "overload" in decorators:  # the function itself comes after them
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found.append(node)
    return found


def test_extras_that_errors_name_are_there() -> None:
    """Nothing is released: what is missing is installed from a checkout, by an extra of it."""
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == "breadcrumbs" and set(project["scripts"]) == {"breadcrumbs"}
    named = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r"""\binstall\(["'](\w+)["']""", text))
        assert "breadcrumbs[" not in text, f"{path}: no index has it; say errors.install(EXTRA)"
    assert {"torch", "evaluate"} <= named <= set(project["optional-dependencies"])
    for page in [*SOURCE.parents[1].glob("*.md"), *SOURCE.parents[1].glob("docs/**/*.md")]:
        extras = re.findall(r'pip install (?:-e )?"\.\[(\w+)\]"', page.read_text("utf-8"))
        assert set(extras) <= set(project["optional-dependencies"]), page


def test_modules_between_a_command_and_the_arithmetic() -> None:
    """Three packages between the command and the kernels: merging, engine and its routes."""
    chain = ["cli.merge", "merging.files", "engine.runner", "engine.consumers", "engine.routes"]
    for above, below in itertools.pairwise(chain):
        module: ModuleType = importlib.import_module(f"breadcrumbs.{above}")
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)]
        names = {f"{n.module}.{a.name}" for n in imports for a in n.names}
        names |= {str(n.module) for n in imports}
        assert f"breadcrumbs.{below}" in names, f"{above} does not use {below}"
