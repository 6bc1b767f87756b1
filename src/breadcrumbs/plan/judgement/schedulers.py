"""Diffusion models that predict different things: noise (epsilon) or velocity (v_prediction).

A folder of diffusers has this in the config of its scheduler, beside the model's folder or in it; a
single file in an empty tensor (`v_pred`, `ztsnr`) or in its metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.plan.judgement import beside
from breadcrumbs.plan.plan import Plan

_KEYS = (
    "prediction_type", "rescale_betas_zero_snr", "beta_schedule", "beta_start", "beta_end",
    "num_train_timesteps",
)  # fmt: skip
_FILE = Path("scheduler") / "scheduler_config.json"
#: Names of tensors that say something by being there.
_MARKERS = ("v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_mean")
_METADATA = "modelspec.prediction_type"
#: Names that stand for others.
_PREDICTS = {"v": "v_prediction", "eps": "epsilon"}


def warnings(plan: Plan) -> list[str]:
    """Return a line for each thing in which a model's training differs from the base's."""
    base = said(plan.base)
    seen, found = {plan.base.label}, []
    for source in plan.origins:
        if source.cut is not None or source.label in seen:
            continue
        seen.add(source.label)
        its = said(source)
        for key in dict.fromkeys((*base, *its)):
            both = base.get(key), its.get(key)
            if both[0] != both[1] and (None not in both or key in _MARKERS):
                mine, other = (_text(key, value) for value in both)
                found.append(
                    f"{source.label}: {key} is {other}, in {plan.base.label} {mine}: they were"
                    " trained to predict different things, and their mean predicts neither. Leave"
                    " the model out, or give the base that it was trained from"
                )
    return found


def said(source: Checkpoint) -> dict[str, Any]:
    """Return what a source says of its training."""
    found: dict[str, Any] = {}
    folder = source.folder
    if folder is not None:
        config = beside.mapping(folder / _FILE)
        if not config and (folder.parent / "model_index.json").is_file():
            config = beside.mapping(folder.parent / _FILE)
        found = {key: config[key] for key in _KEYS if config.get(key) is not None}
    if source.metadata.get(_METADATA):
        found.setdefault("prediction_type", source.metadata[_METADATA])
    kind = found.get("prediction_type")
    if isinstance(kind, str):
        found["prediction_type"] = _PREDICTS.get(kind, kind)
    return found | {name: True for name in _MARKERS if name in source.tensors}


def _text(key: str, value: Any) -> str:
    if key in _MARKERS:
        return "marked" if value else "not marked"
    return str(value)[:60]
