"""Adapters of tied and other embeddings, experts and biases, against the models that PEFT runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, MismatchError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

#: Of the logits: PEFT adds products to activations, we add them to weights.
CLOSE = 1e-4


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
        )
    )  # fmt: skip


def gpt2() -> Any:
    sizes = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    )


def t5() -> Any:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=40, d_model=24, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
            decoder_start_token_id=0,
        )
    )  # fmt: skip


def bart() -> Any:
    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=24,
            encoder_attention_heads=2, decoder_attention_heads=2, decoder_ffn_dim=24,
            max_position_embeddings=32, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        )
    )  # fmt: skip


def bert() -> Any:
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=32,
        )
    )  # fmt: skip


def experts(kind: str) -> Any:
    shared = {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "intermediate_size": 12,
    }  # fmt: skip
    if kind == "GptOss":
        shared |= {"num_local_experts": 3, "layer_types": ["full_attention"], "head_dim": 8}
        shared |= {"pad_token_id": 0, "num_experts_per_tok": 2}
    elif kind == "Mixtral":
        shared |= {"num_local_experts": 3}
    else:
        shared |= {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
        shared |= {"head_dim": 8, "decoder_sparse_step": 1}
    config = getattr(transformers, f"{kind}Config")(**shared)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def logits(model: Any) -> Any:
    ids = torch.arange(3, 15)[None]
    kind = model.config.model_type
    more = {"decoder_input_ids": ids + 4} if kind in ("t5", "bart") else {}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


def trained(folder: Path, make: Callable[[], Any], **settings: Any) -> tuple[Any, Path, Path]:
    """Return a live model with an adapter, the folders of its base and of the adapter."""
    torch.manual_seed(0)
    base, adapter = folder / "base", folder / "adapter"
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases too, which begin as zeros
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(base)
    live = peft.get_peft_model(
        type(model).from_pretrained(base), peft.LoraConfig(**{"r": 3, "lora_alpha": 6, **settings})
    )
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    live.eval().save_pretrained(adapter)
    return live, base, adapter


def imported(folder: Path, base: Path, adapter: Path, **more: Any) -> Any:
    return tasks.from_adapter(base, adapter, folder / "t.safetensors", force=True, **more)


def check(folder: Path, live: Any, base: Path, adapter: Path, untied: bool | None) -> Any:
    """Import, merge and load an adapter; the logits must be those of the live model."""
    kind = type(live.get_base_model())
    said, out = imported(folder, base, adapter), folder / "out"
    how = {"method": "task_arithmetic", "alpha": 1}
    report = breadcrumbs.merge(base, [folder / "t.safetensors"], output=out, **how)
    model, info = kind.from_pretrained(out, output_loading_info=True)
    assert not (info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"])
    found, expected = logits(model.eval()), logits(live)
    before = logits(kind.from_pretrained(base).eval())
    off = (found - expected).abs().max()
    assert off < CLOSE * expected.abs().max()
    assert off < 0.1 * (before - expected).abs().max()  # which changes something
    config = json.loads((out / "config.json").read_text())
    if untied is not None:
        assert bool(said.untied) == untied
        assert config["tie_word_embeddings"] is not untied
        assert any("changed separately" in warning for warning in report.warnings) == untied
    written = breadcrumbs.open(out)
    for given in (f"{base}+{adapter}", adapter):
        again = breadcrumbs.merge(base, [given], **how)
        assert set(again) == set(written)
        assert all((again[name] == written[name]).all() for name in again)
    return said


EMBED = {"llama": "embed_tokens", "gpt2": "wte", "t5": "shared", "bart": "shared"}
QUERY = {"llama": "q_proj", "gpt2": "c_attn", "t5": "q", "bart": "q_proj"}
MODELS = {"llama": llama, "gpt2": gpt2, "t5": t5, "bart": bart}
TIED = {
    "LoRA on the embeddings": ({"target_modules": ["EMBED", "QUERY"]}, True),
    "LoRA on the head": ({"target_modules": ["lm_head", "QUERY"]}, True),
    "LoRA on both": ({"target_modules": ["lm_head", "EMBED"]}, True),
    "embeddings trained": ({"target_modules": ["QUERY"], "modules_to_save": ["EMBED"]}, True),
    "head trained": ({"target_modules": ["QUERY"], "modules_to_save": ["lm_head"]}, True),
    "both": ({"target_modules": ["QUERY"], "modules_to_save": ["lm_head", "EMBED"]}, True),
    "one of each": ({"target_modules": ["EMBED"], "modules_to_save": ["lm_head"]}, True),
    "rows": ({"target_modules": ["QUERY"], "trainable_token_indices": [5, 3]}, False),
    "rows of both": (
        {"target_modules": ["QUERY"], "trainable_token_indices": {"EMBED": [3], "lm_head": [9]}},
        True,
    ),
}


def filled(settings: Any, kind: str) -> Any:
    if isinstance(settings, dict):
        return {filled(key, kind): filled(value, kind) for key, value in settings.items()}
    if isinstance(settings, list):
        return [filled(value, kind) for value in settings]
    return {"EMBED": EMBED[kind], "QUERY": QUERY[kind]}.get(settings, settings)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", TIED)
@pytest.mark.parametrize("kind", MODELS)
def test_tied_embeddings(tmp_path: Path, kind: str, what: str) -> None:
    settings, untied = TIED[what]
    live, base, adapter = trained(tmp_path, MODELS[kind], **filled(settings, kind))
    check(tmp_path, live, base, adapter, untied)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ],
)
def test_what_stays_tied_is_written_once(tmp_path: Path, settings) -> None:
    live, base, adapter = trained(tmp_path, llama, **settings, ensure_weight_tying=True)
    said = check(tmp_path, live, base, adapter, False)
    assert "lm_head.weight" not in said.tensors and "model.embed_tokens.weight" in said.tensors


@pytest.mark.filterwarnings("ignore")
def test_a_masked_model_has_its_bias_apart_too(tmp_path: Path) -> None:
    live, base, adapter = trained(tmp_path, bert, target_modules=["word_embeddings", "query"])
    said = check(tmp_path, live, base, adapter, True)
    assert set(said.untied) == {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_not_tied(tmp_path: Path) -> None:
    def apart() -> Any:
        config = llama().config
        config.tie_word_embeddings = False
        return transformers.LlamaForCausalLM(config)

    live, base, adapter = trained(tmp_path, apart, target_modules=["embed_tokens", "lm_head"])
    said = check(tmp_path, live, base, adapter, None)
    assert not said.untied and len(said.tensors) == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {"use_rslora": True, "target_modules": ["q_proj", "up_proj"]}),
        (
            "llama",
            {
                "target_modules": ["q_proj", "embed_tokens"],
                "rank_pattern": {"q_proj": 2},
                "alpha_pattern": {"embed_tokens": 5},
            },
        ),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("gpt2", {"target_modules": ["c_fc", "wpe"], "bias": "all"}),
        ("t5", {"target_modules": "all-linear", "exclude_modules": ["lm_head"]}),
    ],
)
def test_scales_and_layouts(tmp_path: Path, kind: str, settings) -> None:
    live, base, adapter = trained(tmp_path, MODELS[kind], **settings)
    check(tmp_path, live, base, adapter, None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("more", [{}, {"rank_pattern": {"mlp.experts.down_proj": 2}}])
@pytest.mark.parametrize("kind", ["Qwen3Moe", "Mixtral", "GptOss"])
def test_experts_in_one_parameter(tmp_path: Path, kind: str, more) -> None:
    """The files have a tensor for each expert, or (GptOss) one stack, turned."""
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"][: 2 if more else 1]
    live, base, adapter = trained(
        tmp_path,
        partial(experts, kind),
        target_modules=["q_proj"],
        target_parameters=parameters,
        **more,
    )
    said = check(tmp_path, live, base, adapter, None)
    products = [tensor for tensor in said.tensors.values() if "experts" in tensor.name]
    stacked = kind == "GptOss"
    assert {tensor.stack for tensor in products} == {3 if stacked else 1}
    assert len(products) == len(parameters) * (1 if stacked else 3) + (0 if stacked else 3)


@pytest.mark.filterwarnings("ignore")
def test_several_adapters_of_which_one_unties(tmp_path: Path) -> None:
    """Of the others, and of whole fine-tunings, the head is what the embeddings are."""
    live, base, adapter = trained(tmp_path, llama, target_modules=["lm_head", "q_proj"])
    imported(tmp_path, base, adapter)
    (tmp_path / "two").mkdir()
    _, _, other = trained(
        tmp_path / "two", llama, target_modules=["q_proj"], trainable_token_indices=[1]
    )
    tasks.from_adapter(base, other, tmp_path / "two.safetensors")
    whole = llama()
    whole.save_pretrained(tmp_path / "whole")
    given = [tmp_path / "t.safetensors", tmp_path / "two.safetensors", tmp_path / "whole"]
    merged = breadcrumbs.merge(base, given, method="task_arithmetic", alpha=0.5, dtype="float64")
    under = breadcrumbs.open(base)
    embed, head = "model.embed_tokens.weight", "lm_head.weight"
    first = under[embed].astype("float64")
    (second,) = tasks.unpack(base, [given[1]], tmp_path / "two.unpacked")
    rows = breadcrumbs.open(second)[embed].astype("float64") - first
    full = breadcrumbs.open(tmp_path / "whole")[embed].astype("float64") - first
    layer = live.get_base_model().lm_head
    product = layer.get_delta_weight("default").detach().double().numpy()
    assert abs(merged[embed] - (first + 0.5 * (rows + full))).max() < 1e-6
    assert abs(merged[head] - (first + 0.5 * (rows + full + product))).max() < 1e-6


@pytest.mark.filterwarnings("ignore")
def test_a_task_that_unties_is_unpacked_and_compared(tmp_path: Path) -> None:
    live, base, adapter = trained(tmp_path, llama, target_modules=["lm_head"])
    imported(tmp_path, base, adapter)
    tasks.unpack(base, [tmp_path / "t.safetensors"], tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert (logits(model) - logits(live)).abs().max() < CLOSE * logits(live).abs().max()
    vector = breadcrumbs.TaskVector(base, tmp_path / "t.safetensors")
    assert abs(vector["lm_head.weight"]).max() > 0.1
    assert not vector["model.embed_tokens.weight"].any()
    with pytest.raises(BreadcrumbsError, match=r"packed with another base"):
        breadcrumbs.merge(tmp_path / "out", [tmp_path / "t.safetensors"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_out_to_an_adapter_and_in_again(tmp_path: Path, kind: str) -> None:
    """A whole fine-tuning of a tied model: PEFT's live and merged models have both, too."""
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # of low rank, so that nothing is lost
                left = torch.randn(parameter.shape[0], 2) * 0.3
                parameter += (left @ torch.randn(2, parameter.shape[1])).reshape(parameter.shape)
    model.save_pretrained(tmp_path / "tuned")
    tasks.export(tmp_path / "base", tmp_path / "tuned", tmp_path / "a", to="lora", rank=2)
    assert peft.PeftConfig.from_pretrained(tmp_path / "a").task_type == "CAUSAL_LM"
    live = type(model).from_pretrained(tmp_path / "base")
    live = peft.PeftModel.from_pretrained(live, tmp_path / "a").eval()
    expected = logits(model)
    assert (logits(live) - expected).abs().max() < 1e-3 * expected.abs().max()
    merged = live.merge_and_unload()
    assert (logits(merged) - expected).abs().max() < 1e-3 * expected.abs().max()
    said = imported(tmp_path, tmp_path / "base", tmp_path / "a")
    assert not said.untied


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_told_is_refused_by_name(tmp_path: Path) -> None:
    _, base, adapter = trained(tmp_path, llama, target_modules=["q_proj"], use_dora=True)
    with pytest.raises(BreadcrumbsError, match=r"DoRA.*merge_and_unload"):
        imported(tmp_path, base, adapter)
    folder = tmp_path / "square"
    folder.mkdir()
    settings = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.down_proj"]}

    def square() -> Any:
        model = experts("GptOss")
        model.config.intermediate_size = model.config.hidden_size
        return type(model)(model.config)

    _, base, adapter = trained(folder, square, **settings)
    with pytest.raises(MismatchError, match=r"shapes.*fit in two ways.*merge_and_unload"):
        imported(folder, base, adapter)


@pytest.mark.filterwarnings("ignore")
def test_a_base_without_a_config_is_said(tmp_path: Path) -> None:
    _, base, adapter = trained(tmp_path, llama, target_modules=["embed_tokens"])
    notes: list[str] = []
    imported(tmp_path, base / "model.safetensors", adapter, note=notes.append)
    assert any("give the folder of the base" in note for note in notes)


@pytest.mark.filterwarnings("ignore")
def test_the_command_says_what_is_apart(tmp_path: Path) -> None:
    _, base, adapter = trained(tmp_path, llama, target_modules=["lm_head"])
    output = str(tmp_path / "t.safetensors")
    run = CliRunner().invoke(main, ["task", "import", str(base), str(adapter), "-o", output])
    assert run.exit_code == 0 and "note:" in run.output
    assert "tie_word_embeddings: false" in run.output
    run = CliRunner().invoke(
        main, ["merge", str(base), output, "-o", str(tmp_path / "m"), "--dry-run"]
    )
    assert run.exit_code == 0 and "changed separately" in run.output
