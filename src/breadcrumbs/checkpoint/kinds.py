"""What a tensor is, from its name, dtype and shape: not all that is floating point is a weight.

    weight      trained, and merged
    statistic   measured on data and no weight: batch normalisation's running mean and variance,
                sizes of clusters of codebooks, ranges that training for quantisation has seen
    counter     how many batches such a statistic has seen
    buffer      computed from the config by whoever loads the model, or from weights: positions,
                rotary frequencies, causal masks, noise schedules, vectors of spectral norms
    marker      without entries: what matters is that it is there
    other       integers, booleans, complex numbers and codes

The names are those that PyTorch, Keras, Flax, Haiku, Paddle, transformers, timm, fairseq, LeRobot,
OpenAI's CLIP, codebooks and the latent diffusion programs give to what they register as buffers.
"""

from __future__ import annotations

import functools
import re

WEIGHT, STATISTIC, COUNTER = "weight", "statistic", "counter"
BUFFER, MARKER, OTHER = "buffer", "marker", "other"

_STATISTIC = re.compile(
    r"(^|[./])(_?(running|moving)_(mean|var|variance|std|mean_sq)(:0)?"
    r"|(running_mean_std|(\w+_)?rms)[./](mean|var)|debiasing_term"
    r"|\w+_stats[./](.*[./])?(mean|var|variance|std)"
    r"|(mean|var|dw|cluster_size)_ema[./](average|hidden)|ema_(dw|cluster_size)[./](average|hidden)"
    r"|((\w*_)?(bn|batch_?norm|norm)_?\d*|(un)?normaliz\w+)[./](mean|var|variance|std)"
    r"|_(mean|var|variance|std)|_?(min|max)_val|_?amax|x_(min|max)"
    r"|(activation_post_process|\w*fake_quant\w*)(_\d+)?[./](\w+[./])?scale"
    r"|(normalize_(inputs|targets)|unnormalize_outputs)[./]buffer_\w+[./](mean|std|min|max)"
    r"|(_?ema_)?cluster_(size|usage)|embed_(avg|sum)|_?ema_w|embed_ema)$",
    re.IGNORECASE,
)
_NEVER_NEGATIVE = re.compile(r"(^|[./_])(var|variance|std)(:0)?$", re.IGNORECASE)
_COUNTER = re.compile(
    r"(^|[./])(num_batches_tracked|n_averaged|(running_mean_std|(\w+_)?rms|\w*normaliz\w*)[./]count"
    r"|(mean|var|dw|cluster_size)_ema[./]counter|ema_(dw|cluster_size)[./]counter)$"
)
_BUFFER = re.compile(
    r"(^|[./])("
    r"position_ids|token_type_ids|rel_pos_ids|relative_position_index|relative_coords_table"
    r"|(\w+_)?inv_freq|freqs_(cis|cos|sin)|(cos|sin)_cache(d)?|rope_cache|rope_freqs[./]weight"
    r"|rotary(_pos)?_emb[./](cos|sin|freqs)|rope[./]freqs|rope_embed[./]periods"
    r"|masked_bias|(\w+_)?(attn|attention|causal|padding|key_padding|window|sliding)_?mask"
    r"|(in|out)put_(min|max)"  # of what Gemma 4 clips, infinite unless they are set
    r"|(attn|attention|self_attn)[./](mask|embed_positions)|alibi(_slopes|_bias)?"
    r"|embed_positions[./]_float_tensor|(encoder|decoder)[./]version|model_ema[./](decay|num_updates)"
    r"|mel_filters|mel_scale[./]fb|spectrogram[./]window|(pixel|image)_(mean|std)|anchor_grid"
    r"|positional_encoding_gaussian_matrix"
    r"|(sqrt_(one_minus_)?|log_one_minus_|sqrt_recip(m1)?_)?alphas_cumprod(_prev)?"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])"
    r")$|^(\w+\.)?(betas|lvlb_weights)$|^(logvar|scale_factor)$"
)
#: ALiBi of MPT: one row of it for each head, or a square.
_ALIBI = re.compile(r"(^|[./])_?attn_bias$")
#: GPT-2's causal mask, which is called like a bias and has four dimensions.
_MASK_NAMED_BIAS = re.compile(r"(^|[./])(attn|attention|self_attn|self_attention)[./]bias$")
#: Vectors by which spectral normalisation knows the largest singular value of its weight; a
#: `weight_v` of more dimensions is that of weight normalisation, which is trained.
_SPECTRAL = re.compile(r"(^|[./])(parametrizations[./]\w+[./]\d+[./]_[uv]|\w*weight(_bar)?_[uv])$")
#: How tensors are called that are trained.
_TRAINED = re.compile(r"(^|[./_])(weight|bias|kernel|scale|gamma|beta|embedding|w|b)$")


def of(name: str, shape: tuple[int, ...], floating: bool) -> str:
    """Return what a tensor is. floating: whether its dtype is one of weights."""
    if 0 in shape:
        return MARKER
    told = _by_name(name)
    if told == STATISTIC and not floating:
        return OTHER
    if told:
        return told
    if len(shape) == 1 and _SPECTRAL.search(name):
        return BUFFER
    square = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3] > 1
    if square and _MASK_NAMED_BIAS.search(name):
        return BUFFER
    if len(shape) == 4 and shape[0] == 1 and shape[2] in (1, shape[3]) and _ALIBI.search(name):
        return BUFFER
    return WEIGHT if floating else OTHER


@functools.lru_cache(maxsize=1 << 17)
def _by_name(name: str) -> str:
    """Return what a name alone tells; empty if nothing."""
    if name.endswith(".weight") and not name.endswith("rope_freqs.weight"):
        return ""  # as most names; of those above none but this one ends so
    if _COUNTER.search(name):
        return COUNTER
    if _STATISTIC.search(name):
        return STATISTIC
    return BUFFER if _BUFFER.search(name) else ""


def is_variance(name: str) -> bool:
    """Return whether a statistic is one that is never negative, by its name."""
    return bool(_NEVER_NEGATIVE.search(name))


def may_be_mask(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor that is no buffer by its name may be a mask: square, not trained."""
    return len(shape) > 1 and shape[-1] == shape[-2] > 1 and not _TRAINED.search(name)
