"""Which tensors a class of `transformers` ties to its embeddings: heads of language models.

What a file stores of a head tells its name (``cls.predictions.bias`` is beside
``cls.predictions.decoder``), for models that are decoders too; else the class does. The names are
those of `_tied_weights_keys` in `transformers` 5.
"""

from __future__ import annotations

import re
from collections.abc import Collection

#: What a file stores of a head, and the module of its matrix.
_BESIDE = (
    (re.compile(r"((?:.*\.)?predictions)\.(?:bias|transform\.dense\.weight|dense\.weight)"), True),
    (re.compile(r"((?:.*\.)?lm_head)\.(?:dense|layer_norm)\.weight"), True),
    (re.compile(r"((?:.*\.)?)vocab_transform\.weight"), "vocab_projector"),
    (re.compile(r"((?:.*\.)?)generator_predictions\.dense\.weight"), "generator_lm_head"),
)
#: Classes whose head has no bias that is tied, by the start of their name.
_NO_BIAS = ("Esm", "Gte", "Lxmert")
#: Heads of classes, by the start of their name, that are not called ``lm_head``.
_CALLED = {
    "proj_out": ("Whisper", "Canary", "CohereAsr", "Moonshine"),
    "embed_out": ("GPTNeoX",),
    "output_projection": ("BioGpt", "TrOCR"),
    "pred_layer.proj": ("Flaubert", "XLMWithLMHead"),
    "lm_loss": ("XLNet",),
    "head": ("Rwkv",),
    "output": ("Git",),
    "decoder": ("ModernBert",),
    "lm_head.out_proj": ("T5Gemma",),
    "lm_head.decoder": ("BertGeneration",),
    "text_model.lm_head": ("Kosmos2",),
    "model.decoder.output_projection": ("FSMT",),
    "text_decoder_postnet.lm_head": ("SpeechT5",),
    "mlm_score.decoder": ("Vilt", "BridgeTower"),
}
#: Ends of the names of heads.
_HEADS = tuple(
    f".{head}.weight"
    for head in (
        "lm_head", *_CALLED, "lm_head.decoder", "predictions.decoder", "vocab_projector",
        "generator_lm_head",
    )
)  # fmt: skip
_WITH_HEAD = re.compile(r".*(LM|LMHeadModel|MTModel|DoubleHeadsModel|Generation|ForPreTraining)")
#: Ends of the names of classes that have no head of words.
_WITHOUT = re.compile(
    r".*(?<!EncoderDecoder)(Model|Encoder|Classification|Answering|Choice|Detection|Segmentation"
    r"|Embedding|Projection|Retrieval|Regression|Prediction|Scoring|Ranking|Backbone|CTC|XVector)"
)


def is_head(name: str) -> bool:
    """Return whether a tensor is the matrix of a head that may be tied, by its name."""
    return f".{name}".endswith(_HEADS)


def copies(names: Collection[str], source: str) -> dict[str, str]:
    """Return the tables of encoder and decoder that are the one called shared."""
    if not source.endswith("shared.weight"):
        return {}
    stem = source.removesuffix("shared.weight")
    parts = [f"{stem}{side}." for side in ("encoder", "decoder")]
    found = [part for part in parts if any(name.startswith(part) for name in names)]
    return {f"{part}embed_tokens.weight": source for part in found}


def tied(names: Collection[str], kind: str, source: str) -> dict[str, str] | None:
    """Return what the head of a class is tied to, by name; None if that is not known.

    names: the tensors of the model. kind: the class, empty if it is not known, as in files of
    which only their names tell that there is a head. source: the embeddings.
    """
    if kind.startswith("Pop2Piano"):  # its head is apart, and scaled or not by what is tied
        return None
    if kind and not _WITH_HEAD.fullmatch(kind):
        return {} if _WITHOUT.fullmatch(kind) else None
    for pattern, module in _BESIDE:
        for found in filter(None, map(pattern.fullmatch, names)):
            head = f"{found[1]}.decoder" if module is True else f"{found[1]}{module}"
            bias = module is True and not kind.startswith(_NO_BIAS)
            more = {f"{head}.bias": f"{found[1]}.bias"} if bias else {}
            return {f"{head}.weight": source} | more
    for head, starts in _CALLED.items():
        if kind.startswith(starts):
            return {f"{head}.weight": source}
    if kind.endswith("ForMaskedLM") and "lm_head.bias" not in names:
        return None if source.endswith("word_embeddings.weight") else _head(source)
    if kind.endswith("ForPreTraining"):
        return {}
    return _head(source)


def _head(source: str) -> dict[str, str]:
    under = "language_model." if source.startswith("language_model.model.") else ""
    return {f"{under}lm_head.weight": source}


def by_names(source: str) -> bool:
    """Return whether embeddings are those of a model with a head around it, by their name."""
    return source.startswith(("model.", "transformer.", "language_model.", "gpt_neox.", "shared."))
