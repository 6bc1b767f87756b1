"""Live Torch modules as checkpoints, those with adapters of PEFT in them too.

A module is its ``state_dict()``. Where PEFT has put layers of LoRA into it, its own weights are
found under their names from before (`underneath`), and the active adapter is read like the files of
one: the product of its factors, added to the weights as they are read. Torch and PEFT are
recognised without being imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import CheckpointError, MismatchError, listing

#: What PEFT puts around a module, and what its own weights are called in there.
_INSIDE = {"BaseTunerLayer": "base_layer", "AuxiliaryTrainingWrapper": "original_module"}
_ADVICE = "Give `merge_and_unload()` of a copy of the model."


def is_module(value: object) -> bool:
    """Whether ``value`` is a Torch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def underneath(module: Any) -> Mapping[str, Any]:
    """Return the state dict of a module without the adapters that PEFT put into it."""
    root = _root(module)
    state, inside = root.state_dict(), _inside(root)
    packed = next((key for key in state if "_packed_params" in key), None)
    if packed is not None:
        raise CheckpointError(
            f"module: {packed!r} is quantised by Torch. Give the model that it was made from."
        )
    if not inside:
        return state
    found = {}
    for key, value in state.items():
        name = _outer(key, inside)
        if name is not None:
            found[name] = value
    return found


class InFiles(dict[str, Any]):
    """The weights of a module of transformers under the names that they have in its files.

    called: of each name the module's own, where the files hold its tensors as they are; else empty.
    """

    called: Mapping[str, str]


def in_files(module: Any) -> Any:
    """Return a module's weights as its files would hold them, the module itself for one of others.

    transformers 5 has other names in memory than in files, and experts in one tensor.
    """
    library = sys.modules.get("transformers.core_model_loading")
    convert = getattr(library, "revert_weight_conversion", None)
    if convert is None or not hasattr(module, "save_pretrained") or _layers(module):
        return module
    state = module.state_dict()
    try:
        made = InFiles(convert(module, dict(state)))
    except Exception:  # of what the library knows of its own models; names in memory remain
        return module
    own = {id(tensor): name for name, tensor in state.items()}
    called = {name: own[id(tensor)] for name, tensor in made.items() if id(tensor) in own}
    made.called = called if len(called) == len(made) == len(state) else {}
    return made


def opened(module: Any, label: str, open_mapping: Callable[..., Checkpoint]) -> Checkpoint:
    """Return a module as a checkpoint, with its active adapter where PEFT has put one in.

    open_mapping: (mapping, label) -> its checkpoint. CheckpointError for adapters that are no plain
    LoRA, for several that are active at once, and for one that is merged into its base already.
    """
    layers = _layers(module)
    if not layers:
        kind = getattr(getattr(module, "active_peft_config", None), "peft_type", None)
        if kind is not None and hasattr(module, "get_base_model"):
            raise CheckpointError(
                f"{label}: an adapter of type {getattr(kind, 'value', kind)} changes no weights, so"
                " there is nothing to merge. Give adapters of LoRA, or whole models."
            )
        return open_mapping(underneath(module), label)
    names = list(dict.fromkeys(name for layer in layers for name in layer.active_adapters))
    if len(names) != 1:
        raise CheckpointError(
            f"{label}: {len(names)} adapters are active ({listing(names)}). Choose one with"
            " `set_adapter`; several are merged as several models."
        )
    if any(layer.merged for layer in layers):
        raise CheckpointError(
            f"{label}: its adapter is merged into its weights. Call `unmerge_adapter()` first, or"
            " give `unload()` of it."
        )
    return _with_adapter(module, names[0], label, open_mapping)


def copied(module: Any, label: str) -> Any:
    """Return a copy of a module, without adapters; CheckpointError where there can be none."""
    import copy

    try:
        made = copy.deepcopy(module)
    except Exception as error:  # whatever the module's own parts raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{label}: this module cannot be copied ({reason}). Give its `state_dict()`."
        ) from None
    root = _root(made)
    inside = _inside(root)
    for name, inner in inside.items():
        parent, _, last = name.rpartition(".")
        setattr(root.get_submodule(parent), last, getattr(root.get_submodule(name), inner))
    if inside and hasattr(root, "peft_config"):
        del root.peft_config
        root._hf_peft_config_loaded = False
    return root


def fill(module: Any, state: Mapping[str, Any], label: str) -> None:
    """Make the weights of a module those of a state, in place; MismatchError if one is missing.

    state: Torch tensors. Tied weights stay tied, and other dtypes than the module's are kept.
    """
    left = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        left.setdefault(id(tensor), []).append(name)
        if name in state:
            tensor.data = state[name]
    lost = [names[0] for names in left.values() if not any(name in state for name in names)]
    if lost:
        raise MismatchError(f"{label}: nothing came for {listing(lost)}. Give its `state_dict()`.")


def _root(module: Any) -> Any:
    """Return the module that PEFT's own one is around, or the module itself."""
    is_peft = any(kind.__name__ == "PeftModel" for kind in type(module).__mro__)
    return module.get_base_model() if is_peft else module


def _is(module: Any, name: str) -> bool:
    kinds = type(module).__mro__
    return any(kind.__name__ == name and kind.__module__.startswith("peft.") for kind in kinds)


def _layers(module: Any) -> list[Any]:
    """Return the layers of a module that hold adapters."""
    if "peft" not in sys.modules:
        return []
    return [it for it in _root(module).modules() if _is(it, "BaseTunerLayer")]


def _inside(root: Any) -> dict[str, str]:
    """Return by name of a module that PEFT put in what it calls its own there, longest first."""
    if "peft" not in sys.modules:
        return {}
    found = {}
    for name, module in root.named_modules():
        for kind, inner in _INSIDE.items():
            if _is(module, kind):
                found[name] = inner
    return dict(sorted(found.items(), key=lambda pair: len(pair[0]), reverse=True))


def _outer(key: str, inside: Mapping[str, str]) -> str | None:
    """Return what a weight was called before PEFT came; None for one that it added."""
    for name, inner in inside.items():
        if key.startswith(f"{name}."):
            rest = key[len(name) + 1 :]
            if not rest.startswith(f"{inner}."):
                return None
            key = f"{name}.{rest[len(inner) + 1 :]}"
    return key


def _with_adapter(
    module: Any, name: str, label: str, open_mapping: Callable[..., Checkpoint]
) -> Checkpoint:
    from peft import get_peft_model_state_dict

    from breadcrumbs.checkpoint.adapters import inserted, peft, placing

    given = module.peft_config[name].to_dict()
    # Weights that training began from are the module's own here, whatever they were begun with.
    config = peft.checked({**given, "init_lora_weights": True}, label)
    state = get_peft_model_state_dict(module, adapter_name=name, save_embedding_layers=False)
    under = open_mapping(underneath(module), label)
    named = {f"{peft.PREFIX}{key.removeprefix(peft.PREFIX)}": it for key, it in state.items()}
    found = peft.sort(label, config, open_mapping(named, label))
    made = placing.changes(found, under)
    placing.check_whole(made, found)
    return inserted.view(made)
