"""Labels of classifiers in different orders: the rows of their heads are about different things."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from breadcrumbs.plan.judgement import beside
from breadcrumbs.plan.plan import Plan

#: Names that say no more than the number: what a config has where nobody named the labels.
_NUMBER = re.compile(r"(label|class)?[ _-]?\d+")
_SHOWN = 6


def warnings(plan: Plan, base: Mapping[str, Any]) -> list[str]:
    """Return a line for each model whose labels are not those of the first source with names.

    base: the config of the base. Where no merged tensor has a row for each label there is no head
    to spoil.
    """
    first, names, found = plan.base.label, of(base), []
    for source, path in beside.others(plan):
        its = of(beside.mapping(path / "config.json"))
        if its is None:
            continue
        if names is None:
            first, names = source.label, its
        if _key(its) == _key(names) or len(its) != len(names) or not _has_head(plan, len(its)):
            continue
        what = "in another order" if sorted(_key(its)) == sorted(_key(names)) else "others"
        found.append(
            f"{source.label}: config.json: the labels (id2label) are {what}: {_text(its)}; those of"
            f" {first} are {_text(names)}. The rows of the heads are about different labels: keep"
            " the head out with --exclude, or bring the rows into one order first"
        )
    return found


def of(config: Mapping[str, Any]) -> list[str] | None:
    """Return the names of a config's labels in order; None if it has none, or nobody named them."""
    by_id = config.get("id2label")
    if not isinstance(by_id, Mapping):
        by_name = config.get("label2id")
        if not isinstance(by_name, Mapping):
            return None
        by_id = {value: key for key, value in by_name.items() if isinstance(value, int)}
    try:
        rows = {int(key): str(value) for key, value in by_id.items()}
    except (ValueError, TypeError):
        return None
    if len(rows) < 2 or sorted(rows) != list(range(len(rows))):
        return None
    names = [rows[i] for i in range(len(rows))]
    return None if all(_NUMBER.fullmatch(name) for name in _key(names)) else names


def _key(names: list[str]) -> list[str]:
    """Return names as they are compared: in any case and spelling of gaps."""
    return [re.sub(r"[\s_-]+", " ", name).strip().casefold() for name in names]


def _has_head(plan: Plan, rows: int) -> bool:
    return any(rows in tensor.base.shape[:1] for tensor in plan.merged)


def _text(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
