"""Which method a name means: one of the table, a pair of the user's, or one of a plugin.

With a finish or without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from breadcrumbs.errors import RecipeError, suggestion
from breadcrumbs.methods import words
from breadcrumbs.methods.aggregates import Aggregate, Elementwise, Gram
from breadcrumbs.methods.finishes import Finish
from breadcrumbs.methods.method import Method, parts
from breadcrumbs.methods.table import AGGREGATES, FINISHES, METHODS, TRANSFORMS
from breadcrumbs.methods.transforms import Shaped, Transform

__all__ = ["AGGREGATES", "FINISHES", "METHODS", "TRANSFORMS", "Method", "get", "load_plugin"]

#: The entry points of installed packages that offer methods.
GROUP = "breadcrumbs.plugins"
#: By name, the file that a method is from, if it is none of the table's.
PLUGINS: dict[str, Path] = {}
#: The files of plugins that are loaded, in their order.
FILES: dict[Path, None] = {}
_loaded = False


def get(name: str) -> Method:
    """Return the method of that name; RecipeError suggests the nearest.

    ``transform+aggregate`` is a pair, such as ``breadcrumbs+elect``; ``+finish`` may follow either,
    as in ``task_arithmetic+svc``.
    """
    if isinstance(name, str) and name not in METHODS:
        _load_installed()
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    if isinstance(name, str) and "+" in name and name.rpartition("+")[2].strip() in FINISHES:
        method, _, finish = name.rpartition("+")
        return finished(get(method.strip()), FINISHES[finish.strip()])
    if isinstance(name, str) and "+" in name:
        transform, _, aggregate = name.partition("+")
        return pair(transform.strip(), aggregate.strip())
    for what, known, such in (
        ("finish", FINISHES, f"task_arithmetic+{name}"),
        ("transform", TRANSFORMS, f"{name}+sum"),
    ):
        if isinstance(name, str) and name in known:
            raise RecipeError(
                f"{name!r} is a {what}, a part of a method. Give one, such as {such}."
            )
    if isinstance(name, str) and (hint := words.method(name, METHODS)):
        raise RecipeError(f"there is no method {name!r}. {hint}")
    raise RecipeError(
        f"there is no method {name!r}.{suggestion(str(name), METHODS)}"
        f" `breadcrumbs methods` lists them all: {', '.join(METHODS)}."
    )


def finished(method: Method, finish: Finish) -> Method:
    """Return the method with a finish; RecipeError if it has one."""
    name = f"{method.name}+{finish.name}"
    if method.finish is not None:
        raise RecipeError(f"method {name}: {method.finish.name} is a finish, too. Give one.")
    both = set(method.parameters) & set(finish.parameters)
    if both:
        raise RecipeError(
            f"method {name}: both the method and its finish have a parameter {sorted(both)[0]!r}."
            " Choose another."
        )
    return replace(
        method,
        name=name,
        finish=finish,
        summary=f"{method.summary}; then {finish.summary}",
        formula=f"{method.formula}; of matrices M, the step before alpha, {finish.formula}",
        paper=f"{method.paper}; {finish.paper}",
        notes=f"{method.notes} {FINISHED}".strip(),
    )


#: What is true of every method with a finish.
FINISHED = (
    "A finish is for matrices, each of experts stacked in one tensor. Other tensors, embeddings and"
    " heads of language models are one row to svc, and stay as they are with boost. A sum of 0"
    " elects positive."
)


def pair(transform: str, aggregate: str) -> Method:
    """Return the method that combines the two; RecipeError says why a pair makes no sense."""
    name = f"{transform}+{aggregate}"
    if aggregate in METHODS and (why := METHODS[aggregate].aggregate.alone):
        raise RecipeError(f"method {name}: {why}. Use method {aggregate}.")
    if transform in METHODS and transform not in TRANSFORMS and aggregate not in AGGREGATES:
        near = suggestion(aggregate, FINISHES)
        raise RecipeError(
            f"method {name}: there is no finish {aggregate!r}.{near} There are"
            f" {', '.join(FINISHES)}."
        )
    first = _known("transform", transform, TRANSFORMS)
    second = _known("aggregate", aggregate, AGGREGATES)
    both = set(first.parameters) & set(second.parameters)
    if both:
        raise RecipeError(
            f"method {name}: both parts have a parameter {sorted(both)[0]!r}, so it is not clear"
            " which is meant. Choose another pair."
        )
    looks = isinstance(second, Gram) or (isinstance(second, Elementwise) and second.prepare)
    if isinstance(first, Shaped) and looks:
        raise RecipeError(
            f"method {name}: {aggregate} looks at entries before they are merged, and {transform}"
            " changes matrices as wholes. Choose another aggregate, such as sum, elect or tsv_m."
        )
    if transform == "none" and aggregate == "stitch":
        raise RecipeError(
            f"method {name}: without masks every model owns every entry. Use method average."
        )
    return Method(
        name,
        first,
        second,
        f"the task vectors, each through {transform}, combined by {aggregate}",
        f"base + {aggregate}({transform}(tau_1), ..., {transform}(tau_T))",
        "A combination chosen by the user; no paper",
    )


def _known(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        if name in METHODS:
            raise RecipeError(
                f"{name!r} is a method, not {'an' if kind == 'aggregate' else 'a'} {kind}."
                f" Use method {name}, or another {kind}: {', '.join(known)}."
            )
        raise RecipeError(
            f"there is no {kind} {name!r}.{suggestion(name, known)} Choose from {', '.join(known)}."
        )
    return known[name]


def load_plugin(path: str | Path) -> None:
    """Run a Python file and add what it names to the tables.

    ``METHOD``: a `Method`; ``METHODS``: several. Their transforms and aggregates that have a name
    are for pairs, too, as are those in ``TRANSFORMS`` and ``AGGREGATES``, dicts by name;
    ``FINISHES``, one by name, has finishes. Each is optional. Raises RecipeError where the file
    cannot be run or a name is taken.
    """
    import runpy

    try:
        found = runpy.run_path(str(path))
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RecipeError(f"{path}: the plugin cannot be loaded: {reason}") from error
    known = set(METHODS)
    _add(found, str(path))
    FILES[Path(path).absolute()] = None
    PLUGINS.update(dict.fromkeys(set(METHODS) - known, Path(path).absolute()))


def _load_installed() -> None:
    global _loaded
    if _loaded:
        return
    _loaded = True
    from importlib import metadata  # which takes a while, and few ask for it

    for entry in metadata.entry_points(group=GROUP):
        _add(vars(entry.load()), entry.value)


def _add(found: Mapping[str, Any], where: str) -> None:
    given = [*([found["METHOD"]] if "METHOD" in found else ()), *found.get("METHODS", ())]
    named = {getattr(method, "name", repr(method)): method for method in given}
    transforms, aggregates = parts(method for method in given if isinstance(method, Method))
    known: list[tuple[str, dict[str, Any], Any]] = [
        ("METHODS", METHODS, Method),
        ("TRANSFORMS", TRANSFORMS, Transform),
        ("AGGREGATES", AGGREGATES, Aggregate),
        ("FINISHES", FINISHES, Finish),
    ]
    new: list[dict[str, Any]] = [
        named,
        {**transforms, **found.get("TRANSFORMS", {})},
        {**aggregates, **found.get("AGGREGATES", {})},
        dict(found.get("FINISHES", {})),
    ]
    if not any(new):
        raise RecipeError(
            f"{where}: defines no METHOD, METHODS, TRANSFORMS, AGGREGATES or FINISHES."
        )
    for (key, table, kind), mine in zip(known, new, strict=True):
        for name, value in mine.items():
            if not isinstance(value, kind):
                raise RecipeError(f"{where}: {key}: {name!r} is a {type(value).__name__}.")
            if table.get(name, value) != value:
                raise RecipeError(f"{where}: {key}: the name {name!r} is taken. Choose another.")
    for (_, table, _), mine in zip(known, new, strict=True):
        table.update(mine)
