"""The folder of an adapter, as PEFT reads it, put together and written.

An adapter of a pipeline is for several models at once, which PEFT has no folder for: it is one file
as diffusers writes it, ``COMPONENT.MODULE.lora_A.weight``, scale 1, for ``pipe.load_lora_weights``.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint import configs, origin, tied, whole
from breadcrumbs.checkpoint.adapters import lora_files, nominal, peft
from breadcrumbs.checkpoint.beside import RECIPE
from breadcrumbs.checkpoint.outfile import Entry, header
from breadcrumbs.checkpoint.tensors import NAMES, Tensor
from breadcrumbs.errors import MismatchError, OutputError, listing
from breadcrumbs.plan import Plan, TensorPlan

#: Modules that are tables of rows, not matrices that multiply: PEFT keeps their factors elsewhere.
_TABLES = re.compile(r"(?i)embed|^(wte|wpe|shared|relative_attention_bias)$")
#: Models whose layers of these names hold their weights as (in, out).
_TURNED = {"gpt2", "imagegpt", "openai-gpt", "decision_transformer"}
_TURNED_NAMES = ("c_attn", "c_proj", "c_fc", "q_attn")
#: How classes of transformers that are causal language models end.
_CAUSAL = ("ForCausalLM", "LMHeadModel")
#: What a folder holds that may be replaced by another.
_MINE = {f"{peft.WEIGHTS}.safetensors", peft.CONFIG, lora_files.FILE, "README.md", RECIPE}


@dataclass
class Made:
    """An adapter being put together.

    tensors: by key of the file. ranks: of each module with factors. modules, tied: that are kept
    whole. biases: of what has one of its own. turned: whether weights lie as (in, out). pipeline:
    whether it is for the components of one.
    """

    pipeline: bool = False
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    biases: list[TensorPlan] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)
    turned: bool = False

    def add(self, base: Tensor, left: np.ndarray, right: np.ndarray, turned: bool) -> None:
        """Add the factors (m, rank) and (rank, n) of what changes of a weight.

        turned: whether the weight lies as (in, out), if it is no table.
        """
        module, rank = base.name.removesuffix(".weight"), left.shape[1]
        where = module.replace("/", ".", 1) if self.pipeline else peft.PREFIX + module
        stem = f"{where}.lora_"
        self.ranks[module] = rank
        if len(base.shape) > 2:
            ones = [1] * (len(base.shape) - 2)
            a = right.reshape(rank, *base.shape[1:])
            pair = {"A.weight": a, "B.weight": left.reshape(len(left), rank, *ones)}
        elif not self.pipeline and _TABLES.search(module.rpartition(".")[2]):
            pair = {"embedding_A": left.T, "embedding_B": right.T}
        elif turned:
            self.turned = True
            pair = {"A.weight": left.T, "B.weight": right.T}
        else:
            pair = {"A.weight": right, "B.weight": left}
        self.tensors |= {stem + key: value for key, value in pair.items()}

    def keep(self, tensor: TensorPlan, label: str, advice: str) -> None:
        """Note that a tensor is kept whole, with its module or as a bias; MismatchError if neither.

        label: of the model that changes it.
        """
        module, _, what = tensor.name.rpartition(".")
        if self.pipeline:
            raise MismatchError(
                f"{label}: tensor {tensor.name!r} changes as a whole, and an adapter that diffusers"
                f" loads has matrices alone. {advice}"
            )
        if what == "bias" and module:
            self.biases.append(tensor)
        elif what == "weight" and module:
            self.modules.append(module)
        else:
            raise MismatchError(
                f"{label}: tensor {tensor.name!r} cannot be in an adapter. {advice}"
            )

    def rest(self, plan: Plan, add: Callable[[TensorPlan, str], None]) -> None:
        """Add biases, and modules that are kept whole. add: adds a tensor under a key."""
        found = {tensor.name: tensor for tensor in plan.tensors}
        for module in self.modules:
            for name, tensor in found.items():
                if name.startswith(f"{module}."):
                    add(tensor, peft.PREFIX + name)
        for tensor in self.biases:
            module = tensor.name.removesuffix(".bias")
            if module in self.modules:
                continue
            inner = ".base_layer" if module in self.ranks else ""
            add(tensor, f"{peft.PREFIX}{module}{inner}.bias")

    def config(self, plan: Plan) -> dict[str, Any]:
        """Return what the adapter says of itself.

        Of ranks that differ, the one that most modules have is that of all but those that it lists.
        The product of each module is taken as it is: its alpha is its rank.
        """
        known = origin.at_commit(plan.base)
        repo, _, revision = known.partition("@")
        repo = repo or next(iter(origin.repos(plan.base)), "")
        place = os.path.abspath(plan.base.label) if plan.base.files else plan.base.label
        biased = any(t.name.removesuffix(".bias") not in self.modules for t in self.biases)
        usual = max(Counter(self.ranks.values()).items(), key=lambda pair: (pair[1], pair[0]))[0]
        others = {module: rank for module, rank in self.ranks.items() if rank != usual}
        patterns = {"rank_pattern": others, "alpha_pattern": dict(others)} if others else {}
        return {
            "peft_type": "LORA",
            "task_type": _task_type(plan),
            "base_model_name_or_path": repo or place,
            "revision": revision or None,
            "inference_mode": True,
            "r": usual,
            "lora_alpha": usual,
            **patterns,
            "lora_dropout": 0.0,
            "use_rslora": False,
            "use_dora": False,
            "init_lora_weights": True,
            "fan_in_fan_out": self.turned,
            "bias": "all" if biased else "none",
            "target_modules": list(self.ranks),
            "modules_to_save": list(dict.fromkeys([*self.modules, *self.tied])) or None,
        }

    def write(
        self,
        plan: Plan,
        output: Path,
        metadata: Mapping[str, str],
        force: bool,
        beside: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        """Write the folder, which takes its name when it is whole. beside: writes other files."""
        entries = [Entry(n, NAMES[x.dtype], x.shape) for n, x in self.tensors.items()]
        arrays = (np.ascontiguousarray(x).reshape(-1) for x in self.tensors.values())
        data = [header(entries, dict(metadata)), *(x.view(np.uint8).data for x in arrays)]
        if self.pipeline:
            files = {lora_files.FILE: data}
        else:
            config = json.dumps(self.config(plan), indent=2).encode()
            files = {f"{peft.WEIGHTS}.safetensors": data, peft.CONFIG: [config]}
        with whole.folder(output, force=force) as folder:
            for name, pieces in files.items():
                with open(folder / name, "wb") as file:
                    file.writelines(pieces)
            beside(folder)


def check_output(output: Path, force: bool) -> None:
    """Raise OutputError for what is no folder, exists, or holds more than an adapter."""
    if output.suffix == ".safetensors":
        raise OutputError(f"{output}: an adapter is a folder. Give the name of one.")
    if output.exists() and not force:
        raise OutputError(f"{output}: exists. Give another output, or --force to replace it.")
    if not output.exists():
        return
    if not output.is_dir():
        raise OutputError(f"{output}: is not a folder, so it is not replaced by one. Remove it.")
    for entry in output.iterdir():
        if entry.name not in _MINE:
            raise OutputError(
                f"{output}: holds {entry.name!r}, so --force does not replace it. Remove it"
                " yourself, or give another output."
            )


def is_turned(plan: Plan, tensor: Tensor) -> bool:
    """Return whether a weight lies as (in, out), by the kind of model that the base is."""
    last = tensor.name.removesuffix(".weight").rpartition(".")[2]
    return last in _TURNED_NAMES and configs.read(plan.base.folder).get("model_type") in _TURNED


def both_names(plan: Plan, name: str, ties: Mapping[str, str], advice: str) -> list[str]:
    """Return both names of a tensor that two modules share; MismatchError for one of more names.

    PEFT changes each module by itself, and where it merges products into one tensor that two
    modules share it adds both: so such a tensor is kept whole, under each name.
    """
    source = ties.get(name, name)
    names = [source, *(n for n, other in ties.items() if other == source)]
    if len(names) > 2:
        raise MismatchError(
            f"{plan.models[0].label}: changes {source!r}, which is {listing(names[1:])} too, and no"
            f" adapter that PEFT runs says so. {advice}"
        )
    return names


def check_base(plan: Plan) -> None:
    """Raise MismatchError for a base that is a model with an adapter: no folder of it is there, so
    PEFT would load the result on the model alone."""
    if plan.base.inserted is not None:
        raise MismatchError(
            f"{plan.base.label}: is a model with an adapter, and an adapter of it fits no model"
            " that PEFT loads. Write that model to a folder first, and give the folder as the base."
        )


def check_apart(plan: Plan) -> None:
    """Raise MismatchError for a head apart that the base's kind of model scales otherwise."""
    for name in plan.base.untied:
        if tied.head_scale(plan.base, name) != 1:
            raise MismatchError(
                f"{plan.models[0].label}: has {name!r} apart, which this kind of model then scales"
                " otherwise, so no adapter says it. Export to dense."
            )


def _task_type(plan: Plan) -> str | None:
    """Return what PEFT calls the kind of the base, without which its `AutoPeftModelForCausalLM`
    does not load; None of others, whose kind may bring modules that are not in the adapter."""
    if told := plan.base.metadata.get(nominal.TASK):
        return told
    names = configs.read(plan.base.folder).get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    return "CAUSAL_LM" if isinstance(name, str) and name.endswith(_CAUSAL) else None
