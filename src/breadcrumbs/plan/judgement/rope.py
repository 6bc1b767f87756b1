"""Rotary embeddings as a config says them, in the spellings of transformers 4 and 5.

Version 4 has `rope_theta` and `rope_scaling` (whose kind is `type` or `rope_type`), 5 has both in
`rope_parameters`, there possibly for each kind of layer. Equal settings have one value here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = {
    "global_rope_theta", "local_rope_theta", "partial_rotary_factor", "rope_local_base_freq",
    "rope_parameters", "rope_pct", "rope_scaling", "rope_theta", "rotary_emb_base", "rotary_pct",
}  # fmt: skip
#: Names of one kind. `mrope` is the plain kind with sections, which are compared themselves.
_KINDS = {"su": "longrope", "mrope": "default", "none": "default"}
#: What is meant where a scaling does not say it.
_USUAL: dict[str, Any] = {
    "attention_factor": None, "beta_fast": 32, "beta_slow": 1, "truncate": True,
}  # fmt: skip
#: Follows from the lengths of texts, which are no difference by themselves.
_DERIVED = {"max_position_embeddings", "original_max_position_embeddings"}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return rope_theta, rope_local_base_freq, rope_scaling, partial_rotary_factor: what is said.

    rope_scaling: without its plain and usual values, so {} for null.
    """
    found: dict[str, Any] = {}
    for theirs, ours in (
        ("rotary_emb_base", "rope_theta"),
        ("global_rope_theta", "rope_theta"),
        ("rope_theta", "rope_theta"),
        ("local_rope_theta", "rope_local_base_freq"),
        ("rope_local_base_freq", "rope_local_base_freq"),
        ("rope_pct", "partial_rotary_factor"),
        ("rotary_pct", "partial_rotary_factor"),
        ("partial_rotary_factor", "partial_rotary_factor"),
    ):
        if config.get(theirs) is not None:
            found[ours] = config[theirs]
    scaling = config.get("rope_parameters")
    if not isinstance(scaling, Mapping):
        scaling = config.get("rope_scaling")
    if not isinstance(scaling, Mapping):
        said = "rope_scaling" in config or "rope_parameters" in config
        return found | {"rope_scaling": {}} if said else found
    inner = {key: value for key, value in scaling.items() if isinstance(value, Mapping)}
    main = inner.get("full_attention", scaling if not inner else {})
    local = inner.get("sliding_attention", {})
    for part, ours in ((main, "rope_theta"), (local, "rope_local_base_freq")):
        if part.get("rope_theta") is not None:
            found[ours] = part["rope_theta"]
    if main.get("partial_rotary_factor") is not None:
        found["partial_rotary_factor"] = main["partial_rotary_factor"]
    found["rope_scaling"] = _plain(main)
    rest = {k: _plain(v) for k, v in inner.items() if k != "full_attention"}
    rest = {k: v for k, v in rest.items() if v}
    if rest:
        found["rope_scaling"] |= rest
    return found


def _plain(scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scaling without what says nothing; {} of the plain kind."""
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    kind = _KINDS.get(kind, kind)
    apart = {"rope_theta", "rope_type", "type", "partial_rotary_factor", *_DERIVED}
    found = {
        key: value
        for key, value in scaling.items()
        if key not in apart and value is not None and (key not in _USUAL or value != _USUAL[key])
    }
    if kind == "default":
        return {key: value for key, value in found.items() if key.endswith("section")}
    return {"rope_type": kind, **found}
