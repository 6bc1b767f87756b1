"""Folders with a LoRA adapter, as PEFT writes them: what they say, and which tensors they change.

    adapter_config.json           r, lora_alpha, use_rslora, ...
    adapter_model.safetensors     base_model.model.MODULE.lora_A.weight (r, in), .lora_B.weight, ...

The change of a weight is ``B A`` times ``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with
``use_rslora``. Other tensors in the file (biases, ``modules_to_save``) stand for the base's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.folder import open_file
from breadcrumbs.checkpoint.safetensors import MAX_JSON, parse_json
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError, MismatchError, listing
from breadcrumbs.tasks.factors import EXACT, Factors

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model", "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_(?:(A|B)\.weight|embedding_(A|B))")
#: Settings that say nothing about what the adapter changes once it is trained.
_HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora", "velora_config",
}  # fmt: skip
#: Settings that change what it means, and what they are called.
_REFUSED = {
    "use_dora": "DoRA, which scales the columns of the base as well",
    "use_qalora": "QALoRA",
    "lora_bias": "a bias of lora_B",
    "layer_replication": "a model of which layers were repeated",
    "trainable_token_indices": "rows of embeddings that were trained by themselves",
    "alora_invocation_tokens": "activated LoRA, which depends on the input",
    "arrow_config": "Arrow, which depends on the input",
}
#: Ways to begin training that change the base, or begin from a base that was quantised.
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_ADVICE = "Merge it into its model with PEFT (`merge_and_unload`), and pack that."


@dataclass(frozen=True)
class Adapter:
    """An open adapter. products: A and B by the weight that they change, as the adapter calls it.
    whole: other tensors, by name. config: what it says of itself."""

    label: str
    config: Mapping[str, Any]
    products: Mapping[str, tuple[Tensor, Tensor]]
    whole: Mapping[str, Tensor]
    source: Checkpoint = field(repr=False)

    def scale(self, name: str) -> float:
        """Return what the product for a weight is multiplied by."""
        rank = self.products[name][0].shape[0]
        alpha = self.config["lora_alpha"]
        module = name.removesuffix(".weight")
        for pattern, value in self.config["alpha_pattern"].items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return float(alpha / (math.sqrt(rank) if self.config["use_rslora"] else rank))


def open_adapter(path: str | Path) -> Adapter:
    """Return the adapter in a folder; CheckpointError for what is none, or not understood."""
    folder = Path(path)
    config = _config(folder)
    files = [folder / (WEIGHTS + suffix) for suffix in (".safetensors", ".bin")]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder}: has no {files[0].name}. Give the folder of an adapter.")
    source = open_file(found, label=str(folder))
    try:
        return _sorted(str(folder), config, source)
    except BaseException:
        source.close()
        raise


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_JSON)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read: {error.strerror}. Give the folder of an adapter of PEFT."
        ) from None
    config = {**_DEFAULTS, **parse_json(text, str(path))}
    if config["peft_type"] != "LORA":
        raise CheckpointError(
            f"{path}: is of type {shown(config['peft_type'])}, and only LORA is read. {_ADVICE}"
        )
    for key, what in _REFUSED.items():
        if config.get(key):
            raise CheckpointError(f"{path}: {key} is set: {what}. {_ADVICE}")
    begun = str(config.pop("init_lora_weights")).lower()
    if begun.startswith(_OTHER_BASE):
        raise CheckpointError(
            f"{path}: was begun with {begun}, which changes the base. Convert it to plain LoRA"
            " with PEFT, or merge it into its model and pack that."
        )
    for key, value in config.items():
        if key not in _HARMLESS and value:
            raise CheckpointError(
                f"{path}: sets {shown(key)} to {shown(value)}, which is not known here. {_ADVICE}"
            )
    patterns = config["alpha_pattern"]
    alphas = [config["lora_alpha"], *(patterns.values() if isinstance(patterns, dict) else [None])]
    for alpha in alphas:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e30:
            raise CheckpointError(f"{path}: has {shown(alpha)} for a lora_alpha.")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error:
            raise CheckpointError(f"{path}: alpha_pattern {shown(pattern)} is odd.") from None
    return config


#: What older versions of PEFT do not write.
_DEFAULTS: dict[str, Any] = {
    "peft_type": None,
    "lora_alpha": 8,
    "alpha_pattern": {},
    "use_rslora": False,
    "fan_in_fan_out": False,
    "init_lora_weights": True,
}


def _sorted(label: str, config: dict[str, Any], source: Checkpoint) -> Adapter:
    """Return the adapter with its tensors told apart; CheckpointError for any that is odd."""
    factors: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    for key, tensor in source.tensors.items():
        name = key.removeprefix(PREFIX)
        found = _FACTOR.fullmatch(name)
        if found:
            which = found[2] or found[3]
            factors.setdefault(f"{found[1]}.weight", {})[which] = tensor
        elif "lora_magnitude_vector" in name:
            raise CheckpointError(f"{label}: {shown(key)}: it is {_REFUSED['use_dora']}. {_ADVICE}")
        elif "lora_" in name or name == key:
            raise CheckpointError(f"{label}: {shown(key)} is not known here. {_ADVICE}")
        elif ".modules_to_save." in name:
            copies[name.replace(".modules_to_save.", ".")] = tensor
        elif ".original_module." not in name:
            whole[name.replace(".base_layer.", ".")] = tensor
    products = {}
    for name, both in factors.items():
        if set(both) != {"A", "B"}:
            raise CheckpointError(f"{label}: {name} has {listing(both)} of A and B. Copy it again.")
        products[name] = both["A"], both["B"]
    return Adapter(label, config, products, copies | whole, source)


def fitted(adapter: Adapter, base: Checkpoint) -> dict[str, str]:
    """Return what the base calls the tensors of an adapter; those that it lacks are not in it.

    Names may differ by a prefix, the same for all. MismatchError unless all products fit.
    """
    products = list(adapter.products)
    ways = _ways(products[0] if products else next(iter(adapter.whole), ""), base.tensors)
    found = [way for way in ways if all(_renamed(n, way) in base.tensors for n in products)]
    if not found:
        missing = [n for n in products if n not in base.tensors] or list(adapter.whole)
        raise MismatchError(
            f"{adapter.label}: changes {listing(missing, 3)}, which {base.label} lacks. Is it an"
            f" adapter of {shown(adapter.config.get('base_model_name_or_path'))}?"
        )
    if len(found) > 1:
        fits = listing(_renamed(products[0], way) for way in found)
        raise MismatchError(
            f"{adapter.label}: {shown(products[0])} may be {fits} of {base.label}. Rename the"
            " tensors of the adapter."
        )
    names = {name: _renamed(name, found[0]) for name in [*products, *adapter.whole]}
    return {name: mine for name, mine in names.items() if mine in base.tensors}


def _ways(name: str, known: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of a prefix to take from a name and one to add, with which it is known."""
    parts = name.split(".")
    if name in known:
        return [("", "")]
    for cut in range(len(parts) - 1):
        tail = ".".join(parts[cut:])
        gone = name[: len(name) - len(tail)]
        ways = [(gone, n[: len(n) - len(tail)]) for n in known if f".{n}".endswith(f".{tail}")]
        if ways:
            return ways
    return []


def _renamed(name: str, way: tuple[str, str]) -> str:
    gone, added = way
    return added + name.removeprefix(gone) if name.startswith(gone) else ""


def factors(adapter: Adapter, names: Mapping[str, str], base: Checkpoint) -> dict[str, Factors]:
    """Return the factors of the base's tensors; MismatchError where the shapes do not fit.

    names: as `fitted` returns them.
    """
    lies = {n: _lie(*adapter.products[n], base.tensors[names[n]]) for n in adapter.products}
    for name, lie in lies.items():
        if not lie:
            a, b = adapter.products[name]
            raise MismatchError(
                f"{adapter.label}: {shown(name)} is a product of {b.shape} and {a.shape}, but"
                f" the base's tensor has shape {base.tensors[names[name]].shape}."
            )
    turned = bool(adapter.config["fan_in_fan_out"])
    plain = [name for name, lie in lies.items() if lie <= {"plain", "turned"}]
    odd = [n for n in plain if lies[n] == {"plain" if turned else "turned"}]
    unknown = [n for n in plain if len(lies[n]) == 2]
    if odd and unknown:
        raise MismatchError(
            f"{adapter.label}: fan_in_fan_out is {turned}, but {shown(odd[0])} lies the other way,"
            f" so it is not known how {shown(unknown[0])} does. {_ADVICE}"
        )
    found = {}
    for name, lie in lies.items():
        way = next(iter(lie)) if len(lie) == 1 else ("turned" if turned else "plain")
        made = _factors(adapter, name, way)
        if not all(np.isfinite(x.astype(np.float32)).all() for x in (made.left, made.right)):
            raise MismatchError(f"{adapter.label}: {shown(name)} is not finite. Repair it.")
        found[names[name]] = made
    return found


def _lie(a: Tensor, b: Tensor, base: Tensor) -> set[str]:
    """Return how B A may lie in the base's tensor: plain, turned, embedding, convolution."""
    if {a.dtype, b.dtype} - set(EXACT) or not a.shape or not a.shape[0] or len(base.shape) < 2:
        return set()
    rank, ends = a.shape[0], (b.shape[0], *a.shape[1:]) if b.shape else ()
    if len(a.shape) == len(b.shape) == 2 and b.shape[1] == rank:
        if ".lora_embedding_" in a.name:
            return {"embedding"} if base.shape == ends[::-1] else set()
        ways = (("plain", ends), ("turned", ends[::-1]))
        return {way for way, shape in ways if base.shape == shape}
    ones = (1,) * (len(base.shape) - 2)
    return {"convolution"} if b.shape[1:] == (rank, *ones) and base.shape == ends else set()


def _factors(adapter: Adapter, name: str, way: str) -> Factors:
    a, b = (tensor.read() for tensor in adapter.products[name])
    scale = adapter.scale(name)
    if way in ("turned", "embedding"):
        return Factors(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T), scale)
    return Factors(b.reshape(len(b), -1), a.reshape(len(a), -1), scale)


def without_products(adapter: Adapter, names: Mapping[str, str], base: Checkpoint) -> list[str]:
    """Return the names of whole tensors to be taken; MismatchError where one does not fit.

    A copy of a weight that has a product, as adapters of embeddings have, must be the base's.
    """
    found = []
    for name, tensor in adapter.whole.items():
        if name not in names:
            continue
        mine = base.tensors[names[name]]
        if mine.shape != tensor.shape:
            raise MismatchError(
                f"{adapter.label}: {shown(name)} has shape {tensor.shape}, the base's"
                f" {mine.shape}. Was the vocabulary resized? {_ADVICE}"
            )
        if name in adapter.products:
            held = mine.read()
            if not np.array_equal(held, tensor.read().astype(held.dtype)):
                raise MismatchError(
                    f"{adapter.label}: holds other weights than {base.label} under the product for"
                    f" {shown(name)}. {_ADVICE}"
                )
            continue
        found.append(name)
    return found


def lacking(adapter: Adapter, names: Mapping[str, str]) -> Sequence[str]:
    """Return the names of tensors that the base has not."""
    return [name for name in adapter.whole if name not in names]
