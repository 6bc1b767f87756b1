"""Adapters on embeddings of models whose heads have names of their own, against live models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs.errors import MismatchError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS: dict[str, Any] = {
    "vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2
}  # fmt: skip
BERT: dict[str, Any] = TOKENS | {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32,
}  # fmt: skip
BART: dict[str, Any] = TOKENS | {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "max_position_embeddings": 32, "decoder_start_token_id": 0,
}  # fmt: skip
T5: dict[str, Any] = TOKENS | {
    "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2,
    "decoder_start_token_id": 0,
}  # fmt: skip
LLAMA = {**BERT, "num_key_value_heads": 2, "tie_word_embeddings": True}
#: Class, settings, what the adapter has, and the tensors that are apart.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], set[str]]] = {
    "a decoder with the head of RoBERTa": (
        "RobertaForCausalLM", {**BERT, "is_decoder": True},
        {"target_modules": ["word_embeddings"]}, {"lm_head.decoder.weight", "lm_head.decoder.bias"},
    ),
    "a decoder with the head of BERT": (
        "BertLMHeadModel", {**BERT, "is_decoder": True}, {"target_modules": ["word_embeddings"]},
        {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
    ),
    "of a kind that no list names": (
        "NystromformerForMaskedLM", {**BERT, "segment_means_seq_len": 12, "num_landmarks": 3},
        {"target_modules": ["word_embeddings"]},
        {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"},
    ),
    "without a bias that is tied": (
        "EsmForMaskedLM", {**BERT, "mask_token_id": 3}, {"target_modules": ["word_embeddings"]},
        {"lm_head.decoder.weight"},
    ),
    "ModernBERT": (
        "ModernBertForMaskedLM",
        {**BERT, "cls_token_id": 1, "sep_token_id": 2, "global_attn_every_n_layers": 1},
        {"target_modules": ["tok_embeddings"]}, {"decoder.weight"},
    ),
    "Mamba": (
        "MambaForCausalLM", {**BERT, "state_size": 4}, {"target_modules": ["embeddings"]},
        {"lm_head.weight"},
    ),
    "Marian": (
        "MarianMTModel", BART, {"target_modules": ["lm_head"]},
        {"lm_head.weight", *(f"model.{s}.embed_tokens.weight" for s in ("encoder", "decoder"))},
    ),
    "UMT5, which scales its head": (
        "UMT5ForConditionalGeneration", T5, {"target_modules": ["lm_head"]},
        {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"},
    ),
    "T5 1.1, which does not": (
        "T5ForConditionalGeneration", {**T5, "tie_word_embeddings": False},
        {"target_modules": ["lm_head"]},
        {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"},
    ),
    "rows, and a product on the head that follows them": (
        "LlamaForCausalLM", LLAMA,
        {"target_modules": ["lm_head"], "trainable_token_indices": [7, 3]}, {"lm_head.weight"},
    ),
    "the same, scaled": (
        "T5ForConditionalGeneration", T5,
        {"target_modules": ["lm_head"], "trainable_token_indices": [7, 3]},
        {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"},
    ),
}  # fmt: skip


def made(kind: str, settings: dict[str, Any]) -> Any:
    model = getattr(transformers, kind)
    return model(model.config_class(**settings))


def logits(model: Any) -> Any:
    ids = torch.arange(3, 15)[None]
    more = {"decoder_input_ids": ids + 4} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


def trained(folder: Path, model: Any, **settings: Any) -> tuple[Any, Path, Path]:
    """Return a live model with an adapter, the folders of its base and of the adapter."""
    base, adapter = folder / "base", folder / "adapter"
    model.save_pretrained(base)
    live = type(model).from_pretrained(base)
    live = peft.get_peft_model(live, peft.LoraConfig(**{"r": 3, "lora_alpha": 6, **settings}))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    live.eval().save_pretrained(adapter)
    return live, base, adapter


@pytest.mark.parametrize("case", CASES)
def test_the_head_is_apart_under_its_own_name(tmp_path: Path, case: str) -> None:
    kind, config, settings, apart = CASES[case]
    torch.manual_seed(0)
    live, base, adapter = trained(tmp_path, made(kind, config), **settings)
    breadcrumbs.merge(
        base, [f"{base}+{adapter}"], output=tmp_path / "out", method="task_arithmetic", alpha=1
    )
    model, info = type(live.get_base_model()).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not (info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"])
    found, expected = logits(model.eval()), logits(live)
    assert (found - expected).abs().max() < 3e-4 * expected.abs().max()
    with breadcrumbs.open(base) as before, breadcrumbs.open(tmp_path / "out") as after:
        assert set(after) - set(before) == apart - set(before)
        assert apart <= set(after)


@pytest.mark.parametrize("kind", ["EncoderDecoderModel", "SomeForMaskedLM"])
def test_a_head_of_unknown_name_is_refused(tmp_path: Path, kind: str) -> None:
    """A table that changes alone would change the head with it."""
    torch.manual_seed(0)
    _, base, adapter = trained(
        tmp_path, made("BertForMaskedLM", BERT), target_modules=["word_embeddings"]
    )
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"architectures": [kind]}))
    if kind == "SomeForMaskedLM":
        with breadcrumbs.open(base) as model:
            weights = {k: model[k] for k in model if not k.startswith("cls.")}
        save_file(weights, base / "model.safetensors")
    with pytest.raises(MismatchError, match=rf"word_embeddings.*how a '{kind}' ties its head"):
        breadcrumbs.merge(base, [f"{base}+{adapter}"])


@pytest.mark.parametrize(
    ("kind", "settings", "target", "table", "head"),
    [
        ("LlamaForCausalLM", LLAMA, "lm_head", "model.embed_tokens", "lm_head"),
        ("LlamaForCausalLM", LLAMA, "embed_tokens", "model.embed_tokens", "lm_head"),
        (
            "MPNetForMaskedLM",
            BERT,
            "lm_head.decoder",
            "mpnet.embeddings.word_embeddings",
            "lm_head.decoder",
        ),
    ],
)
@pytest.mark.parametrize("says", [True, False])
def test_a_base_that_stores_its_embeddings_as_its_head(
    tmp_path: Path, kind: str, settings, target: str, table: str, head: str, says: bool
) -> None:
    """`save_model` of safetensors keeps the head; where its metadata are lost, none is guessed."""
    torch.manual_seed(0)
    live, base, adapter = trained(tmp_path, made(kind, settings), target_modules=[target])
    weights = load_file(base / "model.safetensors")
    weights[f"{head}.weight"] = weights.pop(f"{table}.weight")
    said = {f"{table}.weight": f"{head}.weight"} if says else None
    save_file(weights, base / "model.safetensors", said)
    how = {"output": tmp_path / "out", "method": "task_arithmetic", "alpha": 1}
    if not says:
        with pytest.raises(MismatchError, match=r"no embeddings|changes '.*embed_tokens"):
            breadcrumbs.merge(base, [f"{base}+{adapter}"], **how)
        return
    breadcrumbs.merge(base, [f"{base}+{adapter}"], **how)
    model = type(live.get_base_model()).from_pretrained(tmp_path / "out").eval()
    found, expected = logits(model), logits(live)
    assert (found - expected).abs().max() < 3e-4 * expected.abs().max()


def test_a_path_with_a_plus(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, base, adapter = trained(tmp_path, made("LlamaForCausalLM", LLAMA), target_modules=["q_proj"])
    whole = breadcrumbs.open(f"{base}+{adapter}")
    places = [shutil.copytree(it, tmp_path / "a+b" / f"{it.name}+c") for it in (base, adapter)]
    again = breadcrumbs.open("+".join(map(str, places)))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (whole[name] == again[name]).all()
    twice = breadcrumbs.open("+".join(map(str, [*places, adapter])))
    plain = breadcrumbs.open(base)[name]
    assert abs((twice[name] - plain) - 2 * (whole[name] - plain)).max() < 1e-6
