"""Folders with a LoRA adapter, as PEFT writes them: what they say, and which tensors they change.

    adapter_config.json           r, lora_alpha, use_rslora, ...
    adapter_model.safetensors     base_model.model.MODULE.lora_A.weight (r, in), .lora_B.weight, ...

The change of a weight is ``B A`` times ``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with
``use_rslora``. With ``use_dora`` every row of the sum of both is brought to the length that
``lora_magnitude_vector`` says. LoHa and LoKr have products of other kinds
(`breadcrumbs.checkpoint.adapters.lycoris`). Other tensors in the file (biases,
``modules_to_save``) stand for the base's, and rows (``token_adapter``,
``trainable_token_indices``) for some of its rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint.adapters import lycoris
from breadcrumbs.checkpoint.adapters.adapter import ADVICE, Adapter, Pair
from breadcrumbs.checkpoint.safetensors import MAX_JSON, parse_json
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError, listing

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model", "base_model.model."
_ROWS = ".token_adapter.trainable_tokens_delta"
_FACTOR = re.compile(r"(.+)\.lora_(?:(A|B)\.weight|embedding_(A|B))")
_MAGNITUDE = re.compile(r"(.+)\.lora_magnitude_vector(?:\.weight)?")
#: Kinds of adapters that are read.
_KINDS = ("LORA", "LOHA", "LOKR")
#: Settings that say nothing about what the adapter changes once it is trained.
_HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "target_parameters", "task_type", "trainable_token_indices",
    "use_dora", "use_rslora", "velora_config",
    "alpha", "decompose_both", "decompose_factor", "init_weights", "module_dropout", "rank_dropout",
    "rank_dropout_scale", "use_effective_conv2d",
}  # fmt: skip
#: Settings that change what it means, and what they are called.
_REFUSED = {
    "use_qalora": "QALoRA",
    "lora_bias": "a bias of lora_B",
    "layer_replication": "a model of which layers were repeated",
    "alora_invocation_tokens": "activated LoRA, which depends on the input",
    "arrow_config": "Arrow, which depends on the input",
}
#: Ways to begin training that change the base, or begin from a base that was quantised.
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def weights(folder: Path, label: str) -> Path:
    """Return the file with the matrices of the adapter in a folder; CheckpointError for none."""
    _config(folder, label)
    files = [folder / (WEIGHTS + suffix) for suffix in (".safetensors", ".bin")]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise CheckpointError(f"{label}: has no {files[0].name}. Give the folder of an adapter.")
    return found


def of(folder: Path, source: Checkpoint) -> Adapter:
    """Return the adapter whose config is in a folder; CheckpointError if it is not understood."""
    label = Path(source.label)
    where = label.parent if label.name.startswith(f"{WEIGHTS}.") else label
    return sort(source.label, _config(folder, str(where)), source)


def scale(config: Any, module: str, rank: int) -> float:
    """Return what the product for a module is multiplied by."""
    alpha = of_module(config, "alpha_pattern", module, config["lora_alpha"])
    return float(alpha / (math.sqrt(rank) if config["use_rslora"] else rank))


def of_module(config: Any, key: str, module: str, usual: Any) -> Any:
    """Return the number that a pattern of the config gives a module."""
    for pattern, value in config[key].items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return usual


def _config(folder: Path, label: str) -> dict[str, Any]:
    path = Path(label) / CONFIG
    try:
        with open(folder / CONFIG, "rb") as file:
            text = file.read(MAX_JSON)
    except OSError as error:
        within = sorted(it.parent.name for it in folder.glob(f"*/{CONFIG}"))
        if within:
            raise CheckpointError(
                f"{label}: holds no adapter itself; {listing(within)} in it do. Give the path of"
                f" one, such as {Path(label) / within[-1]}."
            ) from None
        raise CheckpointError(
            f"{path}: cannot be read: {error.strerror}. Give the folder of an adapter of PEFT."
        ) from None
    return checked(parse_json(text, str(path)), str(path))


def _word(kind: object) -> object:
    """Return a type as files name it, where PEFT has it as an enumeration."""
    return getattr(kind, "value", kind)


def checked(given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return what a config says, with defaults; CheckpointError for what is not understood."""
    config = {**_DEFAULTS, **given}
    if config["peft_type"] not in _KINDS:
        kind = shown(_word(config["peft_type"]))
        raise CheckpointError(
            f"{path}: is of type {kind}, and only LORA, LOHA and LOKR are read. {ADVICE}"
        )
    config["lora_alpha"] = config.pop("alpha", None) or config["lora_alpha"]
    for key, what in _REFUSED.items():
        if config.get(key):
            raise CheckpointError(f"{path}: {key} is set: {what}. {ADVICE}")
    begun = str(config.pop("init_lora_weights")).lower()
    if begun.startswith(_OTHER_BASE):
        raise CheckpointError(
            f"{path}: was initialised with {begun}, which changes the base. Convert it to plain"
            " LoRA with PEFT, or merge it into its model and give that."
        )
    for key, value in config.items():
        if key not in _HARMLESS and value:
            raise CheckpointError(
                f"{path}: sets {shown(key)} to {shown(value)}, which is unknown. {ADVICE}"
            )
    for usual, key in (("lora_alpha", "alpha_pattern"), ("r", "rank_pattern")):
        _check_numbers(path, config, usual, key)
    return config


def _check_numbers(path: str, config: Mapping[str, Any], usual: str, key: str) -> None:
    """Raise CheckpointError for a rank or alpha that is no number, or a pattern that is none."""
    patterns = config[key]
    numbers = [config[usual], *(patterns.values() if isinstance(patterns, dict) else [None])]
    for number in numbers:
        odd = isinstance(number, bool) or not isinstance(number, int | float)
        if odd or not abs(number) < 1e30 or (usual == "r" and number <= 0):
            raise CheckpointError(f"{path}: {usual} cannot be {shown(number)}.")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error:
            raise CheckpointError(
                f"{path}: {key}: {shown(pattern)} is not a regular expression."
            ) from None


#: What older versions of PEFT do not write.
_DEFAULTS: dict[str, Any] = {
    "peft_type": None,
    "lora_alpha": 8,
    "alpha_pattern": {},
    "rank_pattern": {},
    "r": 8,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "init_lora_weights": True,
}


def sort(label: str, config: dict[str, Any], source: Checkpoint) -> Adapter:
    """Return the adapter with its tensors told apart; CheckpointError for any that is odd."""
    factors: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    rows: dict[str, tuple[Tensor, list[int]]] = {}
    others: dict[str, dict[str, Tensor]] = {}
    magnitudes: dict[str, Tensor] = {}
    for key, tensor in source.tensors.items():
        name = key.removeprefix(PREFIX)
        found = _FACTOR.fullmatch(name)
        if found:
            factors.setdefault(found[1], {})[found[2] or found[3]] = tensor
        elif found := _MAGNITUDE.fullmatch(name):
            magnitudes[f"{found[1]}.weight"] = tensor
        elif found := lycoris.PART.fullmatch(name):
            others.setdefault(f"{found[1]}.weight", {})[found[2]] = tensor
        elif name.endswith(_ROWS):
            module = name.removesuffix(_ROWS)
            rows[f"{module}.weight"] = tensor, _indices(label, config, module, tensor)
        elif any(kind in name for kind in ("lora_", "hada_", "lokr_")) or name == key:
            raise CheckpointError(f"{label}: {shown(key)} is an unknown tensor. {ADVICE}")
        elif ".modules_to_save." in name:
            copies[name.replace(".modules_to_save.", ".")] = tensor
        elif ".original_module." not in name and ".token_adapter." not in name:
            whole[name.replace(".base_layer.", ".")] = tensor
    products: dict[str, Pair] = {}
    stacks: dict[str, list[Pair]] = {}
    scales: dict[str, float] = {}
    for module, both in factors.items():
        if set(both) != {"A", "B"}:
            raise CheckpointError(
                f"{label}: of A and B {module}.weight has only {listing(both)}. Copy it again."
            )
        pair = both["A"], both["B"]
        if parameters(config, module):
            stacks.setdefault(module.replace(".base_layer", ""), []).append(pair)
        else:
            name = f"{module}.weight"
            products[name] = pair
            scales[name] = scale(config, module, pair[0].shape[0] if pair[0].shape else 1)
    lost = [name for name in magnitudes if name not in products]
    if lost:
        raise CheckpointError(
            f"{label}: {shown(lost[0])} has a magnitude of DoRA but no matrices A and B. {ADVICE}"
        )
    plain = [name for name in products if name not in magnitudes]
    if config.get("use_dora") and (plain or stacks):
        raise CheckpointError(
            f"{label}: use_dora is set, but there is no lora_magnitude_vector for"
            f" {listing(plain or stacks, 3)}. {ADVICE}"
        )
    for name, parts in others.items():
        lycoris.check(label, name, parts)
        module = name.removesuffix(".weight")
        rank = lycoris.rank(parts) or of_module(config, "rank_pattern", module, config["r"])
        scales[name] = scale(config, module, rank)
    return Adapter(
        label,
        "PEFT",
        products,
        copies | whole,
        source,
        scales,
        rows,
        stacks,
        others,
        magnitudes,
        config,
        str(config.get("base_model_name_or_path") or ""),
    )


def parameters(config: Mapping[str, Any], module: str) -> list[str]:
    """Return the parameters of a module, which are no ``weight``, that an adapter is for."""
    module = module.replace(".base_layer", "")
    found = []
    for name in config.get("target_parameters") or ():
        inner, _, last = str(name).rpartition(".")
        if last != "weight" and f".{module}".endswith(f".{inner}"):
            found.append(last)
    return found


def _indices(label: str, config: Mapping[str, Any], module: str, rows: Tensor) -> list[int]:
    """Return which rows of a table an adapter's rows are."""
    found = config.get("trainable_token_indices")
    if isinstance(found, dict):
        keys = [key for key in found if f".{module}".endswith(f".{key}")]
        found = found[max(keys, key=len)] if keys else None
    if (
        not isinstance(found, list)
        or not all(type(index) is int and index >= 0 for index in found)
        or len(rows.shape) != 2
        or rows.shape[0] != len(set(found)) != 0
        or len(set(found)) != len(found)
    ):
        raise CheckpointError(
            f"{label}: {shown(module)} has rows of shape {rows.shape}, and trainable_token_indices"
            f" are {shown(found)}. {ADVICE}"
        )
    return found
