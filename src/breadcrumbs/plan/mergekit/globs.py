"""Sets of tensor names as a few globs."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Sequence

from breadcrumbs.checkpoint.stack import LAYER


def cover(wanted: set[str], names: Sequence[str], filters: Sequence[str]) -> list[str]:
    """Return globs that match ``wanted`` among ``names`` and nothing else.

    Whole layers, parts of one, one tensor of all layers, and ``filters`` that names contain, are
    tried; what is left is named.
    """
    left, found = set(wanted), []
    matches = {g: set(fnmatch.filter(names, g)) for g in _candidates(wanted, filters)}
    fitting = {g: match for g, match in matches.items() if match and match <= wanted}
    while fitting and left:
        best = max(fitting, key=lambda g: len(fitting[g] & left))
        if len(fitting[best] & left) < 2 and best != "*":
            break
        found.append(best)
        left -= fitting.pop(best)
    return found + [glob.escape(name) for name in names if name in left]


def _candidates(wanted: set[str], filters: Sequence[str]) -> list[str]:
    parts = [f"*{glob.escape(text)}*" for text in filters]
    found = dict.fromkeys(["*", *parts])
    for name in sorted(wanted):
        match = LAYER.search(name)
        if match is None:
            continue
        before, after = glob.escape(name[: match.start()]), glob.escape(name[match.end() :])
        layer = f"{before}{match[1]}."
        found[f"{before}*{after}"] = None
        found.update(dict.fromkeys([f"{layer}*", *(layer + part for part in parts)]))
        found[f"{layer}{glob.escape(name[match.end() :].lstrip('.').partition('.')[0])}.*"] = None
    return list(found)
