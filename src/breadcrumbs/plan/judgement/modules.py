"""Models of several folders: the configs of each, and which modules follow each other.

A model of sentence-transformers means something else with another activation of a Dense layer,
another pooling, or a normalisation at the end, none of which has weights; one of diffusers with
another config of a component.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import parts
from breadcrumbs.errors import CheckpointError
from breadcrumbs.plan.judgement import beside
from breadcrumbs.plan.plan import Plan

_CONFIG = "config.json"
#: Ways of pooling as sentence-transformers wrote them before version 6, by what it calls them now.
_POOLING = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
#: Modules of one meaning.
_SAME = {"MLMTransformer": "Transformer"}


def configs(base: Path, other: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield (path, what the base's says, what the other's says) of the configs in subfolders."""
    for folder in folders(base):
        name = f"{folder}/{_CONFIG}"
        mine, its = (_pooling(beside.mapping(path / name)) for path in (base, other))
        if mine and its:
            yield name, mine, its


def warnings(plan: Plan) -> Iterator[str]:
    """Yield a line for each model whose modules are others than the base's."""
    folder = beside.folder_of(plan.base)
    base = _modules(folder) if folder else []
    for source, path in beside.others(plan) if base else ():
        its = _modules(path)
        if its and its != base:
            yield (
                f"{source.label}: modules.json: its modules are {', '.join(its)}, those of"
                f" {plan.base.label} {', '.join(base)}; the merged model gets those of"
                f" {plan.target.label}. Leave the model out, or give the base that it was trained"
                " from"
            )


def folders(base: Path) -> list[str]:
    """Return the subfolders that belong to a model, as far as that can be told."""
    try:
        return parts.folders(parts.Local(base))
    except CheckpointError:
        return []  # of which the merge itself tells


def _modules(folder: Path) -> list[str]:
    """Return the kinds of a model's modules in order; none where there is no list."""
    found = beside.parsed(folder / parts.MODULES)
    kinds = [entry.get("type") for entry in found or () if isinstance(entry, dict)]
    names = [kind.rpartition(".")[2] for kind in kinds if isinstance(kind, str)]
    return [_SAME.get(name, name) for name in names]


def _pooling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the ways of pooling as they are called now."""
    said = {new: bool(config[old]) for new, old in _POOLING.items() if old in config}
    found = {key: value for key, value in config.items() if key not in _POOLING.values()}
    if said:
        found["pooling_mode"] = [new for new, on in said.items() if on]
    mode = found.get("pooling_mode")
    if isinstance(mode, list) and len(mode) == 1:
        found["pooling_mode"] = mode[0]
    return found
