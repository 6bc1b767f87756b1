"""What a config means where it does not say it: defaults of transformers that matter.

Taken from the classes of transformers 4.57 and 5; where a family is not listed, `ABSENT` holds, and
a key that is in neither is not known, so that its absence is no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Of a value that is not known.
UNKNOWN: Any = object()

ABSENT: dict[str, Any] = {
    "alibi": False,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "embedding_multiplier": 1.0,
    "final_logit_softcapping": None,
    "logits_scaling": 1.0,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "qk_layernorm": False,
    "residual_multiplier": 1.0,
    "rope_scaling": {},
    "rope_theta": 10000.0,
    "scale_attn_by_inverse_layer_idx": False,
    "sliding_window": None,
    "use_qk_norm": False,
}

_THETA = {
    500000.0: "bitnet cohere csm ernie4_5 ernie4_5_moe exaone flex_olmo llama4_text"
    " mllama_text_model olmo3 qwen3_vl_text qwen3_vl_moe_text",
    1e6: "cwm emu3_text_model gemma3_text gemma3n_text lfm2 lfm2_moe minimax ministral3 mixtral"
    " phimoe qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text",
    160000.0: "modernbert modernbert-decoder",
    150000.0: "gpt_oss",
    100000.0: "helium",
    2e6: "smollm3",
    5e6: "minimax_m2",
    1e7: "longcat_flash",
    12e6: "apertus",
    20000.0: "jina_embeddings_v3",
}
_WINDOW = {
    4096: "cohere2 dots1 exaone4 gemma2 gemma3_text ministral mistral olmo3 vaultgemma",
    512: "gemma3n_text gemma4_text",
    128: "gpt_oss",
}
_ROTARY = {
    0.5: "bamba glm glm4 glm4_moe nemotron persimmon phi recurrent_gemma",
    0.25: "gpt_neox qwen3_5_text qwen3_5_moe_text qwen3_next stablelm",
}
_UNTIED = (
    "llama mistral mixtral ministral qwen2 qwen2_moe qwen3 qwen3_moe phi phi3 phimoe gpt_neox"
    " gpt_oss deepseek_v2 deepseek_v3 olmo olmo2 olmo3 olmoe stablelm persimmon llama4_text helium"
    " glm glm4 codegen gptj arcee smollm granitemoe dbrx nemotron minimax"
)
_TIED = (
    "bert roberta xlm-roberta distilbert albert electra deberta deberta-v2 camembert bart mbart"
    " gpt2 gemma gemma2 gemma3_text bloom cohere cohere2 opt t5 starcoder2 smollm3 modernbert"
)
_SILU = "llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe phi3 deepseek_v2 deepseek_v3 olmo2"
_GELU = "bert roberta xlm-roberta camembert electra deberta deberta-v2 vit deit beit"

_OF_TYPE: dict[str, dict[str, Any]] = {
    "rope_theta": {t: value for value, types in _THETA.items() for t in types.split()},
    "rope_scaling": dict.fromkeys(("apertus", "cwm", "gpt_oss", "ministral3"), UNKNOWN),
    "sliding_window": {t: value for value, types in _WINDOW.items() for t in types.split()},
    "partial_rotary_factor": {t: value for value, types in _ROTARY.items() for t in types.split()},
    "tie_word_embeddings": {
        **dict.fromkeys(_UNTIED.split(), False),
        **dict.fromkeys(_TIED.split(), True),
    },
    "hidden_act": {**dict.fromkeys(_SILU.split(), "silu"), **dict.fromkeys(_GELU.split(), "gelu")},
    "attention_bias": dict.fromkeys(["glm", "glm4", "gpt_neox", "gpt_oss", "seed_oss"], True),
    "attn_logit_softcapping": {"gemma2": 50.0, "vaultgemma": 50.0},
    "final_logit_softcapping": {"gemma2": 30.0, "gemma3n_text": 30.0, "vaultgemma": 30.0},
    "rms_norm_eps": {
        **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), 1e-6),
        **dict.fromkeys(("mixtral", "phi3", "olmo2"), 1e-5),
    },
    "layer_norm_eps": dict.fromkeys(("bert", "roberta", "electra", "vit"), 1e-12),
}


def value(key: str, config: Mapping[str, Any]) -> Any:
    """Return what a config, or one in it, means by not having ``key``; `UNKNOWN` if that is not
    known."""
    if key == "num_key_value_heads":
        return config.get("num_attention_heads", UNKNOWN)
    if key == "head_dim":
        width, heads = config.get("hidden_size"), config.get("num_attention_heads")
        if not isinstance(width, int) or not isinstance(heads, int) or not heads:
            return UNKNOWN
        return width // heads
    kind = config.get("model_type")
    of_type = _OF_TYPE.get(key, {})
    if isinstance(kind, str) and kind in of_type:
        return of_type[kind]
    return ABSENT.get(key, UNKNOWN)
