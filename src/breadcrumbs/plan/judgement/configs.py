"""Configs that differ in what the weights mean: the output has one config, and all the weights.

Compared is all that both configs say, those in them too, but for what changes nothing that the
weights mean (lengths, dropout, dtypes, names, versions, settings of generation); and what only one
of them says, where `defaults` knows what the other means by its silence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint.patterns import Pattern
from breadcrumbs.plan.judgement import beside, defaults, labels, modules, rope
from breadcrumbs.plan.plan import Plan

#: Configs in configs are looked into so far.
_DEPTH = 4
_SHOWN = 60
#: Whole numbers from here on are compared as they are.
_MOST = 1e300

#: Keys that change nothing that weights mean, or that others look after.
_HARMLESS = Pattern(
    r"_.*|.*version|.*unsloth.*|.*dtype|architectures|auto_map|name_or_path|use_cache|.*_use_cache"
    r"|.*vocab_size|max_position_embeddings|max_seq\w*|seq_len\w*|n_positions|n_ctx|model_max_length"
    r"|.*drop.*|.*initiali[sz]er.*|init_.*|.*_init|.*_std|.*loss.*|.*_coef|.*jitter.*"
    r"|gradient_checkpointing|output_.*|return_.*|problem_type|num_labels|finetuning_task"
    r"|task_specific_params|quantization_config|compression_config|.*token_ids?|.*token_index"
    r"|tokenizer_class|keys_to_ignore.*|max_length|min_length|.*num_beams?|num_beam_groups|do_sample"
    r"|temperature|top_[kp]|typical_p|.*_penalty|no_repeat_ngram_size|encoder_no_repeat_ngram_size"
    r"|early_stopping|num_return_sequences|bad_words_ids|prefix|forced_.*|.*suppress_tokens"
    r"|remove_invalid_values|chunk_size_feed_forward|torchscript|use_bfloat16|[bt]f16|fp16|fp32|tf_.*"
    r"|.*flash.*|.*attn_impl\w*|.*fused.*|pretraining_tp|.*parallel_(?!attn|block|res)\w+|lang(uage)?|sample_size"
    r"|mask_(time|feature)_.*|apply_spec_augment|ctc_.*|id2label|label2id|use_weighted_layer_sum"
    r"|num_hidden_layers|num_layers|n_layers?|use_sliding_window|hidden_activation|.*_tp|ep_size"
)  # fmt: skip
#: Keys that get a line of their own; all others that differ share one.
_NAMED = Pattern(
    r"model_type|rope_.*|partial_rotary_factor|.*heads?|.*kv_heads|head_dim|.*act(ivation\w*)?|.*_fn"
    r"|.*eps\w*|.*epsilon|.*norm.*|sliding_window|.*window.*|layer_types|.*bias|tie_.*|.*softcap\w*"
    r"|.*multiplier|.*scal\w*|.*_type|.*per_tok|top_?k_.*|.*routing.*|.*pool.*|is_decoder|alibi"
    r"|prediction_type|patch_size|.*parallel_.*|.*stride.*|.*causal.*"
)
#: Activations of one formula.
_SAME_ACT = {
    "swish": "silu", "gelu_python": "gelu", "gelu_new": "gelu_pytorch_tanh",
    "gelu_fast": "gelu_pytorch_tanh", "gelu_accurate": "gelu_pytorch_tanh",
}  # fmt: skip
#: T5, of which transformers 4 says "not tied" where nothing is scaled before the head; 5 says all
#: are tied, and that beside it. mT5 never scales.
_SCALED = ("t5", "mt5", "umt5", "longt5", "pop2piano")


def warnings(plan: Plan) -> list[str]:
    """Return a line for each thing that matters in which a config differs from the base's."""
    folder = beside.folder_of(plan.base)
    base = beside.mapping(folder / "config.json") if folder else {}
    found = labels.warnings(plan, base)
    if folder:
        found += _broken(plan.base.label, folder)
    for source, path in beside.others(plan):
        found += _broken(source.label, path)
        if base:
            its = beside.mapping(path / "config.json")
            found += _differences(plan, source.label, "config.json", base, its)
        for name, mine, its in modules.configs(folder, path) if folder else ():
            found += _differences(plan, source.label, name, mine, its)
    return [*found, *modules.warnings(plan)]


def _broken(label: str, folder: Path) -> list[str]:
    """Return a line about a config of which nothing can be told."""
    why = beside.trouble(folder / "config.json")
    return [
        f"{label}: config.json {why}, so nothing in it was checked. Fix it, or make"
        " sure yourself that this is a fine-tuning of the base"
    ] * bool(why)


def _differences(
    plan: Plan, label: str, name: str, base: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the lines of one config of a model. name: of the file."""
    rest = []
    for key, mine, its in differing(base, config):
        if key.endswith("tie_word_embeddings") and plan.base.untied:
            continue  # the output's config says that they are apart
        if _NAMED.fullmatch(key.rpartition(".")[2]):
            yield (
                f"{label}: {name}: {key} is {_text(its)}, in {plan.base.label} {_text(mine)};"
                f" the merged model gets the config of {plan.target.label}, under which weights"
                " trained with another one mean something else. Leave the model out, or give the"
                " base that it was trained from"
            )
        else:
            rest.append(f"{key} is {_text(its)}, not {_text(mine)}")
    if rest:
        more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""
        yield (
            f"{label}: {name} differs from that of {plan.base.label}: {', '.join(rest[:5])}"
            f"{more}. The merged model gets the config of {plan.target.label}; check whether the"
            " differences change what the weights mean"
        )


def differing(base: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, the base's value, the model's) of what differs; a key in a config in it as
    ``text_config.rope_theta``."""
    if not base or not config:
        return
    if ("text_config" in base) != ("text_config" in config):  # a part of the other
        base, config = _text_part(base), _text_part(config)
    yield from _differing(base, config, "", _DEPTH)


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _differing(
    base: Mapping[str, Any], config: Mapping[str, Any], where: str, depth: int
) -> Iterator[tuple[str, Any, Any]]:
    mine, its = facts(base), facts(config)
    kinds = mine.get("model_type"), its.get("model_type")
    if None in kinds:
        both = _stem(base), _stem(config)
        if None not in both and both[0] != both[1]:
            yield f"{where}architectures", *both
    for key in dict.fromkeys((*mine, *its)):
        values = [
            found[key] if key in found else defaults.value(key, whole)
            for found, whole in ((mine, base), (its, config))
        ]
        if not any(value is defaults.UNKNOWN for value in values) and not _same(*values):
            yield where + key, *values
    for key, inner in base.items() if depth else ():
        other = config.get(key)
        if not key.endswith("_config") or _HARMLESS.fullmatch(key):
            continue
        if isinstance(inner, Mapping) and isinstance(other, Mapping):
            yield from _differing(inner, other, f"{where}{key}.", depth - 1)


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config says of the meaning of weights, equal things in one spelling."""
    found = {
        key: value
        for key, value in config.items()
        if not isinstance(value, Mapping) and key not in rope.KEYS and not _HARMLESS.fullmatch(key)
    }
    found |= rope.settings(config)
    kind = config.get("model_type")
    act = config.get("hidden_activation")
    if isinstance(kind, str) and kind.startswith("gemma"):  # which has never looked at hidden_act
        act = act or "gelu_pytorch_tanh"
    if act is not None:
        found["hidden_act"] = act
    if found.get("num_key_value_heads", 0) is None:
        del found["num_key_value_heads"]
    if found.get("head_dim", 0) is None:
        del found["head_dim"]
    if config.get("use_sliding_window") is False or found.get("sliding_window", 1) in (None, 0):
        found["sliding_window"] = None
        found.pop("max_window_layers", None)
    if kind in _SCALED:
        tied = found.pop("tie_word_embeddings", True) is not False
        found.setdefault("scale_decoder_outputs", tied and kind != "mt5")
    layers = found.get("layer_types")
    if isinstance(layers, list) and all(layer == "full_attention" for layer in layers):
        found["layer_types"] = "full_attention"  # of whatever number of layers
    return found


def _stem(config: Mapping[str, Any]) -> str | None:
    """Return the family that a config's class is of, such as Llama of LlamaForCausalLM."""
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes or not isinstance(classes[0], str):
        return None
    return re.split(r"For|Model|LMHead|DoubleHeads", classes[0])[0] or None


def _same(a: Any, b: Any) -> bool:
    """Return whether two values mean the same."""
    if isinstance(a, str) and isinstance(b, str):
        return _SAME_ACT.get(a, a) == _SAME_ACT.get(b, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or (max(abs(a), abs(b)) < _MOST and math.isclose(a, b, rel_tol=1e-6))
    return a == b or (a in (None, False) and b in (None, False))


def _text(value: Any) -> str:
    """Return a value as JSON has it, and short."""
    text = json.dumps(value, ensure_ascii=False) if value != {} else "none"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
