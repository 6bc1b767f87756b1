"""Who may import whom: down the list of packages alone, and no circle of files.

Imports in functions and for types alone count as all others. docs/architecture.md draws it.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import breadcrumbs

ROOT = Path(breadcrumbs.__file__).parent

#: Packages and modules at the top, the highest first; those on one line do not know each other.
FLOORS = [
    ["cli"],
    ["tune"],
    ["evaluate"],
    ["store", "modules", "demo"],
    ["tasks", "archives"],
    ["merging"],
    ["engine"],
    ["plan"],
    ["taskfile"],
    ["methods"],
    ["pages"],
    ["checkpoint"],
    ["kernels"],
    ["machine", "threads"],
    ["errors", "version"],
]
#: Of the engine, those that come last in a line of imports first.
ENGINE = [
    ["runner"],
    ["batches"],
    ["consumers"],
    ["replay", "majority"],
    ["routes"],
    ["passes"],
    ["vectors"],
    ["terms"],
    ["merged", "rounding", "exactness"],
    ["context"],
    ["workspace", "facts", "outputs", "digests"],
    ["plain"],
]
DOORS = {"", "__main__"}


def _modules() -> dict[str, Path]:
    """Return all modules by their name after ``breadcrumbs.``; packages too."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] for a in node.names if _ours(a.name)}
        elif isinstance(node, ast.ImportFrom) and node.module and _ours(node.module):
            assert not node.level, f"{path}: import by the whole name"
            home = node.module.partition(".")[2]
            names = [f"{home}.{a.name}" if home else a.name for a in node.names]
            found |= {name if name in known else home for name in names}
    return found


def _ours(name: str) -> bool:
    return name.partition(".")[0] == "breadcrumbs"


@functools.cache
def _arrows() -> list[tuple[str, str]]:
    known = _modules()
    return [
        (name, other)
        for name, path in known.items()
        for other in sorted(_imports(path, known))
        if other != name and other in known
    ]


def _upward(arrows: list[tuple[str, str]], floors: list[list[str]], depth: int) -> list[str]:
    """Return the arrows between rooms of one house that do not go down."""
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    wrong = []
    for name, other in arrows:
        first, second = name.split(".")[depth], other.split(".")[depth]
        if first != second and floor[first] >= floor[second]:
            wrong.append(f"{name} imports {other}")
    return wrong


def test_nothing_imports_what_is_above_it():
    arrows = [(a, b) for a, b in _arrows() if a not in DOORS and b not in DOORS]
    assert not _upward(arrows, FLOORS, 0)


def test_nothing_but_the_doors_imports_the_door():
    assert not [f"{a} imports {b}" for a, b in _arrows() if b in DOORS - {a} and a not in DOORS]


def test_nothing_below_the_runner_knows_it():
    inside = [
        (a, b)
        for a, b in _arrows()
        if a.startswith("engine.") and b.startswith("engine.") and "protocol" not in b
    ]
    assert not _upward(inside, ENGINE, 1)


def test_there_is_no_circle_of_files():
    arrows: dict[str, set[str]] = {}
    for name, other in _arrows():
        arrows.setdefault(name, set()).add(other)
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name in done:
            return
        for other in sorted(arrows.get(name, ())):
            walk(other, [*way, name])
        done.add(name)

    for name in sorted(arrows):
        walk(name, [])


def test_every_room_has_its_floor():
    rooms = {name.split(".")[0] for name in _modules()} - DOORS
    assert rooms == {room for rooms in FLOORS for room in rooms}
    packages = [room for room in rooms if (ROOT / room).is_dir()]
    assert len(packages) <= 16 and len(rooms) - len(packages) + len(DOORS) <= 6


TESTS = Path(__file__).parent


def _patched(path: Path) -> list[str]:
    """Return the constants of the package that a file of tests sets: `setattr` of names, texts,
    and plain assignments."""
    tree, ours, found = ast.parse(path.read_text()), {"breadcrumbs"}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _ours(node.module or ""):
            ours |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            ours |= {alias.asname for alias in node.names if alias.asname and _ours(alias.name)}

    def add(owner: str, name: str) -> None:
        if owner.partition(".")[0] in ours and name.strip("_") and name == name.upper():
            found.append(f"{path.relative_to(TESTS)}: {owner}.{name}")

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            add(ast.unparse(node.value), node.attr)
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("setattr"):
            continue
        texts = [it.value for it in node.args[:2] if isinstance(it, ast.Constant)]
        if texts and isinstance(node.args[0], ast.Constant):
            add(*str(texts[0]).rpartition(".")[::2])
        elif texts:
            add(ast.unparse(node.args[0]), str(texts[0]))
    return found


#: Where the library of kernels and its sources are, and its flags: no sizes.
OF_THE_LIBRARY = {
    f"kernels/test_built.py: {name}"
    for name in ("built.SOURCES", "build.SOURCES", "build.NEEDED", "library.PATH")
}


def test_sizes_are_handed_in_and_no_constant_is_patched():
    found = {one for path in sorted(TESTS.rglob("*.py")) for one in _patched(path)}
    assert found == OF_THE_LIBRARY


def test_a_patched_constant_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "TESTS", tmp_path)
    path = tmp_path / "test_it.py"
    path.write_text(
        "from breadcrumbs.plan import units as work\nimport breadcrumbs.machine as it, other\n"
        "patch.setattr(work, 'CHUNK', 1)\nmonkeypatch.setattr('breadcrumbs.plan.units._A_B', 2)\n"
        "it.C = 3\nsetattr(work.more, 'D', 4)\npatch.setattr(other, 'E', 5)\nwork.name = it.C\n"
    )
    found = [line.partition(": ")[2] for line in _patched(path)]
    assert sorted(found) == ["breadcrumbs.plan.units._A_B", "it.C", "work.CHUNK", "work.more.D"]
