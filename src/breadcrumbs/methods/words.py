"""What other programs call things, and what the same is called here: hints for errors.

Names are those of mergekit 0.1.5, of PEFT's `add_weighted_adapter`, of FusionBench and MergeLM, and
of the merge tabs for diffusion models. None of them is taken in place of ours: where programs use
one word they often mean two things.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

_MEAN = "the mean of the models, in which the base does not count (-p base_weight=1 counts it)"
_NOT_DATA = "learns from unlabelled data, which no method here does. Nearest are fisher and regmean"

#: By name elsewhere, what to use.
METHODS = {
    "linear": f"mergekit's linear is average here: {_MEAN}.",
    "simple_average": f"Use average: {_MEAN}.",
    "weighted_average": f"Use average with -w for each model: {_MEAN}.",
    "mean": f"Use average: {_MEAN}.",
    "weighted_sum": "Use average with -w for each model and -p base_weight=W for the base.",
    "soup": "Use average, or `breadcrumbs soup` for the greedy soup.",
    "model_soup": "Use average, or `breadcrumbs soup` for the greedy soup.",
    "greedy_soup": "It is a command: `breadcrumbs soup`.",
    "uniform_soup": f"Use average: {_MEAN}.",
    "dare": "Use dare_linear, which adds what is left, or dare_ties, which elects signs.",
    "ta": "Use task_arithmetic.",
    "arithmetic": "Use task_arithmetic.",
    "task_vectors": "Use task_arithmetic.",
    "add_difference": "A + (B - C) * M is: merge C B --onto A -m task_arithmetic -p alpha=M.",
    "ties_merging": "Use ties.",
    "ties_svd": "Use ties: it merges the products of adapters, not their factors.",
    "dare_ties_svd": "Use dare_ties: it merges the products of adapters, not their factors.",
    "dare_linear_svd": "Use dare_linear: it merges the products of adapters, not their factors.",
    "magnitude_prune": "Use magnitude.",
    "magnitude_prune_svd": "Use magnitude.",
    "svd": "Of adapters BASE+ADAPTER, task_arithmetic with -p alpha=1 is their sum, exactly.",
    "cat": "Of adapters BASE+ADAPTER, task_arithmetic with -p alpha=1 is their sum, exactly.",
    "model_breadcrumbs": "Use breadcrumbs.",
    "breadcrumbs_linear": "Use breadcrumbs.",
    "della_ties": "Use della, which elects signs.",
    "passthrough": 'A stack of layers is a base without models: merge "A[0:16] + B[8:24]" -o OUT.',
    "frankenmerge": 'A stack of layers is a base without models: merge "A[0:16] + B[8:24]" -o OUT.',
    "fisher_merging": "Use fisher, with --statistics.",
    "regmean_plusplus": "RegMean++ is not offered. Nearest is regmean, with --statistics.",
    "task_singular_vector": "Use tsv_m.",
    "task_singular_vectors": "Use tsv_m.",
    "tsvm": "Use tsv_m.",
    "tsv": "Use tsv_m.",
    "isotropic_merging": "Use iso_c or iso_cts.",
    "iso": "Use iso_c or iso_cts.",
    "emr_merging": "Use emr.",
    "pcb_merging": "Use pcb.",
    "wudi_merging": "Use wudi.",
    "tall_masks": "Use tall_mask with -p task=NAME, or consensus for one model for all tasks.",
    "consensus_ta": "Use consensus.",
    "adamerging": f"AdaMerging {_NOT_DATA}.",
    "concrete_subspace": f"Concrete {_NOT_DATA}.",
    "surgery": f"Surgery {_NOT_DATA}.",
    "moe": "Mixtures of experts are not made here. -m emr is nearest: a mask for each task.",
    "evolve": "`breadcrumbs search` looks for a method and its parameters on your tasks.",
    "extract_lora": "`breadcrumbs task export --to lora` makes an adapter of a fine-tuning.",
    "tokensurgeon": "Putting another tokenizer into a model is not offered.",
    "layershuffle": "Layers are chosen by hand: a base such as A[0:8] + A[4:16].",
    "git_rebasin": "Models of one pretraining are merged here; aligning others is not offered.",
    "zipit": "Models of one pretraining are merged here; aligning others is not offered.",
}

_WEIGHT = (
    "A weight is of one model: -w VALUE once for each, in order (`weight:` of a model in YAML)"
)
_TO_FLAG = {"seed": "seed", "random_seed": "seed", "out_dtype": "dtype", "dtype": "dtype"}
_TO_FLAG |= {"tokenizer_source": "tokenizer", "tokenizer": "tokenizer"}
_TO_FLAG |= {"chat_template": "chat-template", "base_model": "onto"}

#: By name elsewhere of a parameter, what it may be here, of which the method has one.
_ALPHA = (
    *("lambda", "lambda_", "lambd", "lam", "lamda", "coef", "coefficient", "scaling", "scale"),
    *("scaling_factor", "scaling_coef", "scaling_coefficient", "multiplier", "factor", "strength"),
)
_DENSITY = (
    *("density", "keep", "keep_ratio", "top_k", "topk", "k", "threshold", "reset_thresh"),
    *("select_topk", "trim"),
)
_DROP = (
    *("p", "drop", "drop_rate", "drop_prob", "mask_rate", "weight_mask_rate", "sparsity"),
    *("sparsity_ratio", "prune", "prune_ratio"),
)
PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_ALPHA, ("alpha",)),
    **dict.fromkeys(("gamma", "outlier", "outlier_ratio"), ("outliers",)),
    "use_weight_rescale": ("rescale",),
    "merge_func": ("merge",),
    "consensus_method": ("merge",),
    "filter_wise": ("angles",),
    "nuslerp_flatten": ("angles",),
    "nuslerp_row_wise": ("angles",),
    "normalize_weights": ("normalize",),
    "iterations": ("max_iter",),
}


def method(name: str, known: Collection[str]) -> str:
    """Return what to write in place of the name of a method, as a sentence; or nothing."""
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    if plain in known:
        return f"It is written {plain}."
    short = plain.removesuffix("_merging").removesuffix("_merge")
    return METHODS.get(plain) or METHODS.get(short) or (f"Use {short}." if short in known else "")


def parameter(name: str, value: Any, known: Collection[str]) -> str:
    """Return what to write in place of a parameter that a method lacks, as a sentence; or nothing.

    known: the parameters that it has.
    """
    plain = name.strip().lower().replace("-", "_")
    if plain in known:
        return f"It is written {plain}."
    if plain in ("weight", "weights", "ratio", "ratios"):
        return f"{_WEIGHT}."
    if plain in ("alpha", *_ALPHA) and "alpha" not in known:
        return "This method has no factor. Weigh the models with -w, or use task_arithmetic."
    if plain in (*_DENSITY, *_DROP):
        return _kept(plain in _DROP, value, known)
    if plain == "normalize" and "merge" in known:
        return "normalize: true is -p merge=mean, and false -p merge=sum."
    if plain == "normalize":
        return "The sum is not divided by the weights: divide alpha by their sum."
    if plain == "majority_sign_method":
        return "The sign of the sum is elected, PEFT's `total`. Leave it out."
    if plain in ("int8_mask", "eps", "lazy_unpickle"):
        return "It changes no result. Leave it out."
    if plain in _TO_FLAG:
        return f"It is an option of its own: --{_TO_FLAG[plain]}."
    found = next((ours for ours in PARAMETERS.get(plain, ()) if ours in known), "")
    return f"It is called {found} here." if found else ""


def _kept(dropped: bool, value: Any, known: Collection[str]) -> str:
    """Return how a method that lacks it is told how much to keep, or to drop."""
    from decimal import Decimal, InvalidOperation

    try:
        other = str(1 - Decimal(str(value)))
    except InvalidOperation:
        other = "VALUE"
    if "p" in known:
        return f"p is the share that is dropped: -p p={value if dropped else other}."
    if "density" in known and "outliers" in known:
        kept = other if dropped else value
        return (
            f"The share that is kept is density, with outliers: -p density={kept} -p outliers=0.01."
        )
    if "density" in known:
        return f"The share that is kept is density: -p density={other if dropped else value}."
    return "This method keeps all entries; ties, magnitude, breadcrumbs and dare_linear drop some."


#: Options of other programs' commands, and what to do here.
OPTIONS = {
    **dict.fromkeys(
        ("cuda", "gpu-rich", "multi-gpu", "read-to-gpu", "num-gpus"),
        "Merges run on the processor; --device cuda is for methods of matrices. Leave it out.",
    ),
    **dict.fromkeys(
        ("lazy-unpickle", "low-cpu-memory", "clone-tensors", "async-write", "lazy-loader"),
        "Weights are always read piece by piece; --max-memory SIZE sets how much. Leave it out.",
    ),
    "allow-crimes": "Models need no common architecture, only tensors that fit. Leave it out.",
    "trust-remote-code": "No code of a model is run. Leave it out.",
    "copy-tokenizer": "The base's tokenizer is copied; --tokenizer MODEL takes another.",
    "write-model-card": "A card is always written. Leave it out.",
    "safe-serialization": "Outputs are safetensors always. Leave it out.",
    "tokenizer-source": "Use --tokenizer MODEL.",
    "out-shard-size": "Use --shard-size SIZE.",
    "max-shard-size": "Use --shard-size SIZE.",
    "random-seed": "Use --seed N.",
    "num-threads": "Use --threads N.",
    "merge-method": "Use --method NAME.",
    "out-dtype": "Use --dtype NAME.",
    "base-model": "The base is the first argument.",
    "models": "Models are arguments: BASE FINETUNED...",
    "out-path": "Use -o OUTPUT.",
    "output-path": "Use -o OUTPUT.",
    "config": "A recipe is an argument: breadcrumbs merge RECIPE.yaml -o OUTPUT.",
    "transformers-cache": "The cache is where HF_HUB_CACHE says.",
    "lora-merge-cache": "Adapters are merged as they are read. Leave it out.",
    "weights": "Use -w VALUE once for each model, in order.",
}


def option(name: str, known: Collection[str]) -> str:
    """Return what to give in place of an option ``--name``, as a sentence; or nothing.

    known: parameters of methods.
    """
    plain = name.lstrip("-").lower().replace("_", "-")
    if plain in OPTIONS:
        return OPTIONS[plain]
    below = plain.replace("-", "_")
    if below in ("ties", "slerp", "breadcrumbs", "task_arithmetic"):
        return f"A method is given by -m: -m {below}."
    if below in known:
        return f"Parameters of the method are given by -p: -p {below}=VALUE."
    if below in PARAMETERS:
        return f"Parameters of the method are given by -p: -p {PARAMETERS[below][0]}=VALUE."
    if below in METHODS:
        return f"A method is given by -m: -m {below}."
    return ""
