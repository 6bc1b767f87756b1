"""Heads of many names that a fine-tuning has untied, or a base: the names are of transformers 5."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import tied
from breadcrumbs.errors import MismatchError

#: Class, model_type, embeddings, head, and what else a file has that tells of the head.
HEADS = {
    "Llama": ("LlamaForCausalLM", "llama", "model.embed_tokens", "lm_head", ()),
    "DistilBERT": (
        "DistilBertForMaskedLM", "distilbert", "distilbert.embeddings.word_embeddings",
        "vocab_projector", ("vocab_transform.weight",),
    ),
    "ELECTRA": (
        "ElectraForMaskedLM", "electra", "electra.embeddings.word_embeddings",
        "generator_lm_head", ("generator_predictions.dense.weight",),
    ),
    "Whisper": (
        "WhisperForConditionalGeneration", "whisper", "model.decoder.embed_tokens", "proj_out", ()
    ),
    "Mamba": ("MambaForCausalLM", "mamba", "backbone.embeddings", "lm_head", ()),
    "XLM": ("XLMWithLMHeadModel", "xlm", "transformer.embeddings", "pred_layer.proj", ()),
    "XLNet": ("XLNetLMHeadModel", "xlnet", "transformer.word_embedding", "lm_loss", ()),
    "RoBERTa": (
        "RobertaForCausalLM", "roberta", "roberta.embeddings.word_embeddings", "lm_head.decoder",
        ("lm_head.dense.weight",),
    ),
    "ModernBERT": (
        "ModernBertForMaskedLM", "modernbert", "model.embeddings.tok_embeddings", "decoder", ()
    ),
    "GPT-NeoX, as transformers 5 calls it": (
        "GPTNeoXForCausalLM", "gpt_neox", "gpt_neox.embed_in", "lm_head", ()
    ),
}  # fmt: skip
ONE = {"method": "task_arithmetic", "alpha": 1}


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model(folder: Path, kind: str, seed: int, ties: bool) -> Path:
    name, family, table, head, beside = HEADS[kind]
    tensors = {f"{table}.weight": normal(seed, 12, 4), "layers.0.weight": normal(seed + 1, 4, 4)}
    tensors |= {key: normal(seed + 2, 4, 4) for key in beside}
    if not ties:
        tensors[f"{head}.weight"] = normal(seed + 3, 12, 4)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {"architectures": [name], "model_type": family, "tie_word_embeddings": ties}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", HEADS)
def test_a_fine_tuning_that_unties(tmp_path: Path, kind: str) -> None:
    base, tuned = (model(tmp_path / n, kind, s, n == "b") for n, s in (("b", 1), ("t", 9)))
    head = f"{HEADS[kind][3]}.weight"
    with pytest.raises(MismatchError, match=rf"has untied '{head}' from .*--untie"):
        breadcrumbs.merge(base, [tuned], **ONE)
    breadcrumbs.merge(base, [tuned], output=tmp_path / "out", untie=True, **ONE)
    want, found = (load_file(it / "model.safetensors") for it in (tuned, tmp_path / "out"))
    assert set(found) == set(want)
    for name in want:
        np.testing.assert_allclose(found[name], want[name], atol=1e-6)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["tie_word_embeddings"] is False


@pytest.mark.parametrize("kind", [kind for kind in HEADS if "NeoX" not in kind])
def test_a_fine_tuning_that_ties_what_the_base_has_apart(tmp_path: Path, kind: str) -> None:
    """Its head is its embeddings, not the base's head."""
    base, tuned = (model(tmp_path / n, kind, s, n == "t") for n, s in (("b", 1), ("t", 9)))
    table, head = (f"{name}.weight" for name in HEADS[kind][2:4])
    merged = breadcrumbs.merge(base, [tuned], **ONE)
    want = load_file(tuned / "model.safetensors")
    for name in want:
        np.testing.assert_allclose(merged[name], want[name], atol=1e-6)
    np.testing.assert_allclose(merged[head], want[table], atol=1e-6)


@pytest.mark.parametrize("said", [False, None])
def test_a_head_that_is_lost_is_no_tied_one(tmp_path: Path, said: bool | None) -> None:
    """Of Llama nothing is tied where a config does not say so."""
    base, tuned = (model(tmp_path / n, "Llama", s, n == "t") for n, s in (("b", 1), ("t", 9)))
    config = json.loads((tuned / "config.json").read_text()) | {"tie_word_embeddings": said}
    (tuned / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if value is not None})
    )
    with pytest.raises(MismatchError, match=r"lacks 1 tensor of .*'lm_head.weight'"):
        breadcrumbs.merge(base, [tuned], **ONE)


@pytest.mark.parametrize(
    ("name", "table", "found"),
    [
        ("BertModel", "embeddings.word_embeddings", {}),
        ("BertForSequenceClassification", "bert.embeddings.word_embeddings", {}),
        ("T5EncoderModel", "shared", {"encoder.embed_tokens.weight": "shared.weight"}),
        ("MarianMTModel", "model.shared", {"lm_head.weight": "model.shared.weight"}),
        ("LukeForMaskedLM", "luke.embeddings.word_embeddings", None),
    ],
)
def test_what_a_class_ties(tmp_path: Path, name: str, table: str, found) -> None:
    tensors = {f"{table}.weight": normal(0, 12, 4)}
    if name.startswith("T5"):
        tensors["encoder.block.0.w.weight"] = normal(1, 4, 4)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [name]}))
    with checkpoint.open(tmp_path) as opened:
        assert tied.ties(opened) == (found or {})
        assert tied.unknown_head(opened) == (name if found is None else "")
