"""LoRA in one file, as kohya's scripts and diffusers write it.

    lora_unet_down_blocks_0_..._to_q.lora_down.weight, .lora_up.weight, .alpha         kohya
    unet.down_blocks.0...to_q.lora_A.weight, .lora_B.weight (older: .lora.down.weight)  diffusers

The scale is alpha / rank, and 1 where no alpha is given. One file may be for several components of
a pipeline; which of them the base is, its names tell. In kohya's names the dots are underscores, so
they are compared with the base's names without dots.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.adapters import peft
from breadcrumbs.checkpoint.adapters.adapter import ADVICE, Adapter, Pair
from breadcrumbs.checkpoint.folder import open_file
from breadcrumbs.checkpoint.patterns import Pattern
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError, MismatchError, listing

FILE = "pytorch_lora_weights.safetensors"
#: A component of kohya's names: ``lora_unet_``, ``lora_te1_``, ...
_KOHYA = Pattern(r"(lora_(?:unet|te\d*|transformer|prior_\w+?|dit|llm)_)(.+)")
_FACTOR = Pattern(
    r"(?P<module>.+?)(?:\.lora_(?P<new>A|B|down|up)(?:\.default)?|(?:\.|_)lora\.(?P<old>down|up))"
    r"\.weight"
)
_REFUSED = {
    "dora_scale": "DoRA, which scales the columns of the base as well",
    "lora_magnitude_vector": "DoRA, which scales the columns of the base as well",
    "lora_mid": "LoCon with a third matrix (Tucker)",
    "hada_": "LoHa, a product of entries",
    "lokr_": "LoKr, a Kronecker product",
    "oft_": "OFT, a rotation",
}
_ELSEWHERE = "Merge it into its model with the program that it is for, and give that."
_DOWN = ("A", "down")
#: What names of such tensors have in them.
_KINDS = ("lora_", ".lora.", "_lora.", "dora_scale", "hada_", "lokr_", "oft_")


def in_folder(folder: Path) -> Path | None:
    """Return the LoRA file in a folder without a config of PEFT, if it is one that is known."""
    file = folder / FILE
    if file.is_file():
        return file
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1 or (folder / "config.json").exists():
        return None
    with open_file(found[0]) as source:
        return found[0] if is_lora(source.tensors) else None


def is_lora(names: Iterable[str]) -> bool:
    """Return whether names of tensors are those of an adapter, and of nothing else."""
    names = list(names)
    if not any(any(kind in name for kind in _KINDS) for name in names[:64]):
        return False
    return all(
        any(kind in name for kind in _KINDS)
        or name.startswith(peft.PREFIX)
        or name.endswith(".alpha")
        for name in names
    )


def of(source: Checkpoint) -> Adapter:
    """Return the adapter in an open file; CheckpointError for what is none, or not understood."""
    label = source.label
    kind = "kohya" if any(_KOHYA.match(name) for name in source.tensors) else "diffusers"
    what = f"is a LoRA file of {kind}"
    factors: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    for key, tensor in source.tensors.items():
        refused = next((why for part, why in _REFUSED.items() if part in key), None)
        if refused:
            raise CheckpointError(
                f"{label}: {what}, and {shown(key)} belongs to {refused}. {_ELSEWHERE}"
            )
        found = _FACTOR.fullmatch(key)
        if key.startswith(peft.PREFIX):
            raise CheckpointError(
                f"{label}: is an adapter of PEFT without its {peft.CONFIG}. Give both."
            )
        if found:
            down = (found["new"] or found["old"]) in _DOWN
            factors.setdefault(found["module"], {})["A" if down else "B"] = tensor
        elif key.endswith(".alpha") and tensor.size == 1 and tensor.is_weight:
            alphas[key.removesuffix(".alpha")] = float(
                tensor.read().astype(np.float64).reshape(-1)[0]
            )
        elif not factors and not any("lora" in name for name in source.tensors):
            raise CheckpointError(
                f"{label}: is not an adapter: it holds {listing(source.tensors, 3)}. Give the"
                " folder of an adapter of PEFT, or a LoRA file of kohya's scripts or diffusers."
            )
        else:
            raise CheckpointError(
                f"{label}: {what}, and {shown(key)} in it is unknown. {_ELSEWHERE}"
            )
    settings = _settings(source)
    products: dict[str, Pair] = {}
    scales: dict[str, float] = {}
    for module, both in factors.items():
        if set(both) != {"A", "B"} or not both["A"].shape:
            raise CheckpointError(
                f"{label}: {what}, and of A and B {module} has only {listing(both)}. Copy it again."
            )
        name = f"{_plain(module)}.weight"
        rank = both["A"].shape[0]
        products[name] = both["A"], both["B"]
        scales[name] = _scale(label, module, rank, alphas, settings)
    return Adapter(label, kind, products, {}, source, scales)


def _plain(module: str) -> str:
    """Return a module's name as diffusers has it today: not that of an attention processor."""
    module = module.replace(".processor.", ".")
    return (
        re.sub(r"\.to_out_lora$", ".to_out.0", re.sub(r"_lora$", "", module))
        if (module.endswith("_lora"))
        else re.sub(r"\.to_out$", ".to_out.0", module)
    )


def _settings(source: Checkpoint) -> dict[str, dict[str, Any]]:
    """Return what diffusers says of each component in the file's metadata."""
    found: dict[str, dict[str, Any]] = {}
    with suppress(ValueError, TypeError, RecursionError):
        for key, value in json.loads(source.metadata.get("lora_adapter_metadata", "{}")).items():
            component, _, setting = key.partition(".")
            found.setdefault(component, {})[setting] = value
    return found


def _scale(
    label: str,
    module: str,
    rank: int,
    alphas: Mapping[str, float],
    settings: Mapping[str, Mapping[str, Any]],
) -> float:
    component, _, inner = module.partition(".")
    if module in alphas:
        return alphas[module] / rank
    said = settings.get(component)
    if not said or "lora_alpha" not in said:
        return 1.0
    if said.get("use_dora"):
        raise CheckpointError(f"{label}: use_dora is set: {_REFUSED['dora_scale']}. {ADVICE}")
    patterns = said.get("alpha_pattern")
    config = {
        "lora_alpha": said["lora_alpha"],
        "alpha_pattern": patterns if isinstance(patterns, dict) else {},
        "use_rslora": bool(said.get("use_rslora")),
    }
    try:
        return peft.scale(config, inner, rank)
    except (TypeError, ValueError, re.error):
        raise CheckpointError(
            f"{label}: its metadata have a lora_alpha for {module} that is not a number."
        ) from None


def dotted(adapter: Adapter, base: Checkpoint) -> dict[str, str]:
    """Return what the base calls the weights that underscored names mean; those that it has.

    MismatchError where a name may be two of the base's, or only part of a component is there.
    """
    flat: dict[str, list[str]] = {}
    for name in base.tensors:
        if name.endswith(".weight"):
            flat.setdefault(name.removesuffix(".weight").replace(".", "_"), []).append(name)
    components: dict[str, list[str]] = {}
    for name in adapter.products:
        found = _KOHYA.match(name)
        components.setdefault(found[1] if found else "", []).append(name)
    result: dict[str, str] = {}
    for component, names in components.items():
        bare = {name: name[len(component) :].removesuffix(".weight") for name in names}
        for cut, stem in _stems(list(bare.values()), flat):
            new = {name: stem + tail.removeprefix(cut) for name, tail in bare.items()}
            mine = {name: flat[known] for name, known in new.items() if known in flat}
            twice = [found for found in mine.values() if len(found) > 1]
            if twice:
                raise MismatchError(
                    f"{adapter.label}: is a LoRA file of kohya, which writes underscores for dots:"
                    f" one name may mean {listing(twice[0])} of {base.label}."
                )
            if len(mine) < len(bare):
                lost = [name for name in bare if name not in mine]
                raise MismatchError(
                    f"{adapter.label}: is a LoRA file of kohya, and {base.label} lacks {len(lost)}"
                    f" of the {len(bare)} modules of {component}: {listing(lost, 3)}. Is it another"
                    " kind of model?"
                )
            result |= {name: found[0] for name, found in mine.items()}
    return result


def _stems(names: list[str], flat: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what most names of a component begin with that the base's lack, or the reverse.

    A beginning that the base lacks, as `transformers` 5 lacks ``text_model``, only if all have it.
    """
    counts: dict[str, int] = {}
    for tail in names[:: max(1, len(names) // 32)]:
        for known in flat:
            if known == tail or known.endswith(f"_{tail}"):
                stem = known[: len(known) - len(tail)]
                counts[stem] = counts.get(stem, 0) + 1
    if counts:
        return [("", max(counts, key=lambda stem: (counts[stem], -len(stem))))]
    first = names[0]
    for at in (i + 1 for i, letter in enumerate(first) if letter == "_"):
        cut = first[:at]
        if all(n.startswith(cut) and n.removeprefix(cut) in flat for n in names):
            return [(cut, "")]
    return []


def of_component(adapter: Adapter, folder: str, folders: Sequence[str]) -> list[str]:
    """Return the weights that a LoRA file has for one component of a pipeline."""
    found = []
    for name in adapter.products:
        kohya = _KOHYA.match(name)
        if kohya:
            meant = _FOLDERS.get(kohya[1], ())
        else:
            first = name.partition(".")[0]
            meant = (first,) if first in folders else _FOLDERS["lora_unet_"]
        if folder == next((one for one in meant if one in folders), None):
            found.append(name)
    return found


#: The components that kohya's names speak of.
_FOLDERS: dict[str, tuple[str, ...]] = {
    "lora_unet_": ("unet", "transformer"),
    "lora_transformer_": ("transformer",),
    "lora_te_": ("text_encoder",),
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
    "lora_te3_": ("text_encoder_3",),
}
