"""YAML with the line that each value stands on, so that an error can say where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from breadcrumbs.errors import RecipeError, suggestion
from breadcrumbs.plan import bounded_yaml


@dataclass(frozen=True)
class Node:
    """A value, and where it stands: a dict of nodes, a list of nodes, or a scalar."""

    value: Any
    path: Path
    line: int

    def refuse(self, why: str) -> NoReturn:
        """Raise RecipeError that names file and line."""
        raise RecipeError(f"{self.path}, line {self.line}: {why}")

    def mapping(self, what: str, known: Iterable[str] | None = None) -> dict[str, Node]:
        """Return the nodes by key; RecipeError if it is not a mapping or a key is not ``known``."""
        if not isinstance(self.value, dict):
            self.refuse(f"{what} is not a mapping of `key: value` lines.")
        for key, node in self.value.items():
            if known is not None and key not in known:
                known = list(known)
                near = suggestion(str(key), known)
                node.refuse(f"{what} has no {key!r} (it has: {', '.join(known)}).{near}")
        return self.value

    def items(self, what: str) -> list[Node]:
        """Return the nodes of a list that is not empty."""
        if not isinstance(self.value, list) or not self.value:
            self.refuse(f"{what} is not a list, or an empty one.")
        return self.value

    def text(self, what: str) -> str:
        if not isinstance(self.value, str) or not self.value:
            self.refuse(f"{what} is not a text.")
        return self.value


def read(path: Path) -> Node:
    """Return what a YAML file holds; RecipeError with the line where it is none."""
    found = read_all(path)
    if len(found) > 1:
        found[1].refuse(
            "a second document begins here, where one belongs. `breadcrumbs merge` runs all."
        )
    return found[0]


def read_all(path: Path) -> list[Node]:
    """Return what each document of a YAML file holds; RecipeError as `read`."""
    import yaml

    try:
        roots, loader = bounded_yaml.compose_all(bounded_yaml.read_text(path))
        if not roots:
            raise RecipeError(f"{path}: is empty. Give a mergekit configuration.")
        first = [1, *(root.start_mark.line + 1 for root in roots[1:])]
        pairs = zip(roots, first, strict=True)
        return [_node(loader, root, path, line, ()) for root, line in pairs]
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text ({error}).") from None
    except bounded_yaml.YAMLRefused as error:
        if error.line:
            raise RecipeError(f"{path}, line {error.line}: not YAML: {error}.") from None
        raise RecipeError(f"{path}: not YAML that is understood here: {error}.") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise RecipeError(f"{path}: not YAML that is understood here: {reason}") from None


def _node(loader: Any, node: Any, path: Path, line: int, above: tuple[int, ...]) -> Node:
    import yaml

    if id(node) in above or len(above) > 20:
        raise RecipeError(f"{path}, line {line}: nests too deep.")
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        entries = [
            _node(loader, entry, path, entry.start_mark.line + 1, above) for entry in node.value
        ]
        return Node(entries, path, line)
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        found: dict[Any, Node] = {}
        for key_node, entry in node.value:
            key, at = str(key_node.value), key_node.start_mark.line + 1
            if key in found:
                raise RecipeError(f"{path}, line {at}: the key {key!r} appears twice.")
            found[key] = _node(loader, entry, path, at, above)
        return Node(found, path, line)
    return Node(loader.construct_object(node), path, line)
