"""Which of mergekit's programs a YAML file is for, and the merges of one that holds several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from breadcrumbs.errors import RecipeError
from breadcrumbs.plan.mergekit.lines import Node, read_all

#: Keys that tell a file of another program of mergekit's, and what to say of it.
_OTHERS = {
    ("experts", "gate_mode"): (
        "is for mergekit-moe: it makes a mixture of experts, which is not offered. For one model of"
        " all, give a merge_method and models; -m emr keeps a mask for each task"
    ),
    ("genome",): (
        "is for mergekit-evolve: it searches for parameters by its own tasks, which is not offered."
        " `breadcrumbs search` searches on tasks of yours (docs/search.md)"
    ),
}
#: What holds no names of models.
_NO_MODELS = ("merge_method", "dtype", "out_dtype", "chat_template", "filter", "name")


@dataclass(frozen=True)
class Document:
    """One merge of several. name: of its output, by which others take it; empty for the last.

    uses: the names of the merges that it takes.
    """

    name: str
    node: Node
    uses: frozenset[str]

    def at(self, places: Mapping[str, str]) -> Node:
        """Return it with other merges named by where their outputs are."""
        return _renamed(self.node, places)


def is_config(path: Path) -> bool:
    """Return whether a YAML file is one mergekit configuration or several, and no recipe.

    RecipeError for one of another program of mergekit's.
    """
    try:
        roots = read_all(path)
    except Exception:  # whatever it is, reading it as a recipe says what is wrong
        return False
    found = [root.value for root in roots if isinstance(root.value, dict)]
    for keys, why in _OTHERS.items():
        for value in found:
            if any(key in value for key in keys) and "merge_method" not in value:
                raise RecipeError(f"{path}: {why}.")
    return len(found) == len(roots) and all("merge_method" in value for value in found)


def documents(path: Path) -> list[Document]:
    """Return the merges of a file, each after those that it takes; RecipeError where none is."""
    roots = read_all(path)
    if len(roots) == 1:
        return [Document("", roots[0], frozenset())]
    nodes: dict[str, Node] = {}
    for root in roots:
        body = dict(root.mapping("a mergekit configuration"))
        name = body.pop("name").text("name") if "name" in body else ""
        if name in nodes:
            what = f"is called {name}" if name else "has no name"
            root.refuse(f"a second merge {what}. Give each a `name` of its own.")
        if name and ("/" in name or name in (".", "..")):
            root.refuse(f"{name!r} cannot be the name of a merge: it becomes a folder's.")
        nodes[name] = replace(root, value=body)
    found = {
        name: Document(name, node, frozenset(_used(node, nodes.keys() - {""})))
        for name, node in nodes.items()
    }
    return _in_order(found)


def _in_order(found: Mapping[str, Document]) -> list[Document]:
    done: dict[str, Document] = {}

    def add(document: Document, above: tuple[str, ...]) -> None:
        if document.name in above:
            circle = " -> ".join((*above, document.name))
            document.node.refuse(f"this merge takes its own result: {circle}.")
        for name in sorted(document.uses):
            if name not in done:
                add(found[name], (*above, document.name))
        done.setdefault(document.name, document)

    for document in sorted(found.values(), key=lambda one: not one.name):  # the last one at the end
        add(document, ())
    return list(done.values())


def _used(node: Node, names: set[str]) -> Iterator[str]:
    """Yield the names of merges that a configuration takes as models."""
    if isinstance(node.value, dict):
        for key, inner in node.value.items():
            if key not in _NO_MODELS:
                yield from _used(inner, names)
    elif isinstance(node.value, list):
        for inner in node.value:
            yield from _used(inner, names)
    elif isinstance(node.value, str) and node.value.partition("+")[0] in names:
        yield node.value.partition("+")[0]


def _renamed(node: Node, places: Mapping[str, str]) -> Node:
    value = node.value
    if isinstance(value, dict):
        inner = {k: n if k in _NO_MODELS else _renamed(n, places) for k, n in value.items()}
        return replace(node, value=inner)
    if isinstance(value, list):
        return replace(node, value=[_renamed(inner, places) for inner in value])
    if isinstance(value, str) and (name := value.partition("+")[0]) in places:
        return replace(node, value=places[name] + value[len(name) :])
    return node
