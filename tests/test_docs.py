"""Links of the pages lead somewhere, and the names that they and docstrings say are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_architecture import FLOORS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
#: In texts, what looks like the name of a module and is a key of metadata, or a file.
KEYS = ("task", "archive", "patch", "error", "tensors", "digest", "digests", "yaml", "learned")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAME = re.compile(r"`breadcrumbs\.([a-z_]+(?:\.\w+)*)\b")
IMPORT = re.compile(r"^from breadcrumbs\.?([\w.]*) import ([\w, ]+)", re.M)


def _prose(path: Path) -> str:
    """Return a page without its blocks of code, in which nothing is a link or a heading."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def _anchors(path: Path) -> set[str]:
    """Return what links to a page's headings are called, as GitHub calls them."""
    found: dict[str, int] = {}
    for text in re.findall(r"^#+ (.+)$", _prose(path), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).strip().lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {name if not i else f"{name}-{i}" for name, n in found.items() for i in range(n + 1)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path):
    lost = []
    for link in LINK.findall(_prose(page)):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            lost.append(link)
    assert not lost


def test_the_index_has_every_page():
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in LINK.findall(text)}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES if "docs" in path.parts}
    assert pages <= linked | {"README.md"}


def test_the_table_of_floors_is_that_of_the_test():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| room | what it is for |")
    rooms = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.M)
    assert rooms == [room for floor in FLOORS for room in floor]


def _is_there(name: str) -> bool:
    """Return whether a dotted name after ``breadcrumbs.`` is a module, or is in one."""
    parts = name.split(".")
    for number in range(len(parts), -1, -1):
        home = ROOT.joinpath("src", "breadcrumbs", *parts[:number])
        file = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
        if file.exists():
            return not parts[number:] or parts[number] in _names(file)
    return False


def _names(file: Path) -> set[str]:
    """Return the words of a module's code: what is defined or named in it."""
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    found = set()
    for node in tree:
        found |= {getattr(node, key, None) for key in ("name", "id", "attr")}
        found |= {node.value} if isinstance(node, ast.Constant) else set()
    return {name for name in found if isinstance(name, str)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_pages_are_there(page: Path):
    text = page.read_text(encoding="utf-8")
    names = {name for name in NAME.findall(text) if name.partition(".")[0] not in KEYS}
    for home, imported in IMPORT.findall(text):
        names |= {f"{home}.{name.strip()}".strip(".") for name in imported.split(",")}
    assert not sorted(name for name in names if not _is_there(name))


def test_names_in_docstrings_are_there():
    lost = []
    for path in SOURCES:
        for name in NAME.findall(path.read_text(encoding="utf-8")):
            if name.partition(".")[0] not in KEYS and not _is_there(name):
                lost.append(f"{path.name}: {name}")
    assert not lost
