"""Models that fit and do not go together get a line each; those that do get none."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import archives, tasks
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, MismatchError, RecipeError
from breadcrumbs.merging import api, opening
from breadcrumbs.plan.judgement import configs, judged, labels, rope, tokenizers
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.tasks import packing

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
Q, HEAD, NORM = "layers.0.q_proj.weight", "score.weight", "norm.weight"


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {Q: (64, 64), HEAD: (3, 64), NORM: (64,)}
    return {n: rng.normal(0, 0.05, shape).astype(np.float32) for n, shape in found.items()}


def tuned(base: dict[str, np.ndarray], seed: int, scale: float = 0.002) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: (x + rng.normal(0, scale, x.shape)).astype(x.dtype) for n, x in base.items()}


def model(
    folder: Path,
    tensors: dict[str, np.ndarray] | None = None,
    config: Any = None,
    beside: dict[str, Any] | None = None,
) -> Path:
    """Write a model; what stands beside the weights as JSON, or as it is if it is text."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = tuned(weights(), hash(folder.name) % 99) if tensors is None else tensors
    save_file(chosen, folder / "model.safetensors", {"format": "pt"})
    for name, said in ({"config.json": config} | (beside or {})).items():
        if said is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            text = said if isinstance(said, str) else json.dumps(said)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def warned(base: Path, *models: Path, **settings: Any) -> tuple[str, ...]:
    """Return the warnings of a plan."""
    recipe = Recipe(
        str(base), tuple(Model(str(m)) for m in models), "task_arithmetic", {"alpha": 0.5}
    )
    with opening.opened(api.with_settings(recipe, **settings), by_token=True) as plan:
        found = judged(plan).warnings
    assert all("\n" not in line and not line.endswith(".") for line in found)
    return found


def invoke(*args: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


# --- configs -------------------------------------------------------------------------------------


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


VLM = {"model_type": "llava", "text_config": LLAMA, "vision_config": {"hidden_act": "gelu"}}
T5_V5 = {"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": False}
YARN = {"type": "yarn", "factor": 4.0}
DIFFERENT = [
    (LLAMA, {"rope_theta": 1e6}, "rope_theta"),
    (LLAMA, {"rope_scaling": YARN}, "rope_scaling"),
    (LLAMA | {"rope_scaling": YARN}, {"rope_scaling": YARN | {"factor": 8.0}}, "rope_scaling"),
    (LLAMA, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_theta"),
    (without(LLAMA, "rope_theta"), {"rope_theta": 1e6}, "rope_theta"),
    (LLAMA, {"num_attention_heads": 8}, "num_attention_heads"),
    (LLAMA, {"num_key_value_heads": 2}, "num_key_value_heads"),
    (without(LLAMA, "num_key_value_heads"), {"num_key_value_heads": 2}, "num_key_value_heads"),
    (LLAMA, {"head_dim": 32}, "head_dim"),
    (LLAMA, {"hidden_act": "gelu"}, "hidden_act"),
    (LLAMA | {"parallel_attn": True}, {"parallel_attn": False}, "parallel_attn"),
    (
        LLAMA | {"layer_types": ["sliding_attention"]},
        {"layer_types": ["full_attention"]},
        "layer_types",
    ),
    (LLAMA, {"rms_norm_eps": 1e-6}, "rms_norm_eps"),
    (LLAMA, {"sliding_window": 4096}, "sliding_window"),
    (LLAMA, {"attention_bias": True}, "attention_bias"),
    ({"model_type": "t5"}, {"tie_word_embeddings": False}, "scale_decoder_outputs"),
    (T5_V5 | {"scale_decoder_outputs": True}, T5_V5, "scale_decoder_outputs"),
    (LLAMA, {"tie_word_embeddings": True}, "tie_word_embeddings"),
    (LLAMA, {"model_type": "mistral"}, "model_type"),
    (LLAMA, {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    (LLAMA, {"embedding_multiplier": 12.0}, "embedding_multiplier"),
    (LLAMA | {"num_experts_per_tok": 2}, {"num_experts_per_tok": 4}, "num_experts_per_tok"),
    (LLAMA | {"scoring_func": "softmax"}, {"scoring_func": "sigmoid"}, "scoring_func"),
    (VLM, {"text_config": LLAMA | {"rope_theta": 1e6}}, "text_config.rope_theta"),
    (VLM, {"vision_config": {"hidden_act": "quick_gelu"}}, "vision_config.hidden_act"),
    (
        {"model_type": "bert", "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"},
        {"position_embedding_type": "relative_key"},
        "position_embedding_type",
    ),
    (
        {"architectures": ["LlamaForCausalLM"]},
        {"architectures": ["MistralForCausalLM"]},
        "architectures",
    ),
]
GEMMA = {"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": None}
SAME = [
    (LLAMA, LLAMA),
    ({"model_type": "t5", "tie_word_embeddings": False}, T5_V5),
    ({"model_type": "t5"}, T5_V5 | {"scale_decoder_outputs": True}),
    ({"model_type": "mt5", "tie_word_embeddings": False}, {"model_type": "mt5"}),
    (LLAMA, LLAMA | {"rope_theta": 10000}),
    (
        LLAMA,
        without(LLAMA, "rope_theta")
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ),
    (LLAMA, without(LLAMA, "rope_theta")),
    (
        LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}},
        without(LLAMA, "rope_theta")
        | {"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e4}},
    ),
    (
        LLAMA | {"rope_scaling": {"type": "su", "short_factor": [1.0]}},
        LLAMA | {"rope_scaling": {"rope_type": "longrope", "type": "su", "short_factor": [1]}},
    ),
    (
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    (LLAMA, LLAMA | {"rope_scaling": None, "attention_bias": False, "sliding_window": None}),
    (LLAMA, LLAMA | {"head_dim": 16, "mlp_bias": False, "pretraining_tp": 1}),
    (LLAMA, without(LLAMA, "num_key_value_heads", "tie_word_embeddings")),
    (LLAMA, LLAMA | {"hidden_act": "swish"}),
    (LLAMA, LLAMA | {"layer_types": ["full_attention"] * 2}),
    (LLAMA | {"sliding_window": 9, "use_sliding_window": False}, LLAMA),
    (GEMMA, {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh"}),
    (LLAMA | {"torch_dtype": "float16"}, LLAMA | {"dtype": "bfloat16"}),
    (LLAMA | {"eos_token_id": 1}, LLAMA | {"eos_token_id": [1, 2]}),
    (
        LLAMA | {"_name_or_path": "a", "max_position_embeddings": 2048, "use_cache": True},
        LLAMA | {"_name_or_path": "b", "max_position_embeddings": 4096, "use_cache": False},
    ),
    (
        LLAMA | {"architectures": ["LlamaForCausalLM"], "hidden_dropout_prob": 0.1},
        LLAMA | {"architectures": ["LlamaForSequenceClassification"], "hidden_dropout_prob": 0.0},
    ),
    (LLAMA | {"transformers_version": "4.30.0"}, LLAMA | {"transformers_version": "5.1.0"}),
    (LLAMA, {}),
    (LLAMA, VLM),
    ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}}, {"rope_scaling": None}
     | {"rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [1, 2]}}),
]  # fmt: skip


@pytest.mark.parametrize(("base", "change", "key"), DIFFERENT)
def test_a_config_that_differs_is_named_with_both_values(tmp_path, base, change, key):
    found = warned(
        model(tmp_path / "base", weights(), base), model(tmp_path / "ft", config=base | change)
    )
    assert len(found) == 1 and found[0].startswith(f"{tmp_path / 'ft'}: config.json")
    assert f"{key} is " in found[0]
    back = warned(tmp_path / "ft", tmp_path / "base")
    assert len(back) == 1 and f"{key} is " in back[0]


@pytest.mark.parametrize(("base", "other"), SAME)
def test_configs_that_mean_the_same_are_not(tmp_path, base, other):
    a, b = model(tmp_path / "base", weights(), base), model(tmp_path / "ft", config=other)
    assert warned(a, b) == warned(b, a) == ()


@pytest.mark.parametrize(("times", "said"), [(1.01, True), (1 + 1e-9, False)])
def test_numbers_that_differ_by_more_than_rounding_are_named(tmp_path, times, said):
    base = LLAMA | {"rms_norm_eps": 1e-5}
    other = base | {"rms_norm_eps": 1e-5 * times}
    lines = warned(model(tmp_path / "base", config=base), model(tmp_path / "ft", config=other))
    assert any("rms_norm_eps" in line for line in lines) == said


@pytest.mark.parametrize(
    "kind",
    ["Llama", "Qwen2", "Qwen3", "Mistral", "Gemma2", "Gemma3Text", "GptOss", "Phi3", "Bert",
     "Roberta", "GPT2", "T5", "ModernBert", "Granite", "GPTNeoX", "Mixtral", "DeepseekV3"],
)  # fmt: skip
def test_configs_of_transformers_go_with_what_they_leave_out(kind):
    """A class's own defaults written out, and left out: no difference where any is known."""
    transformers = pytest.importorskip("transformers")
    whole = getattr(transformers, f"{kind}Config")().to_dict()
    for key in [k for k in whole if k not in ("model_type", "num_attention_heads", "hidden_size")]:
        if key in ("num_key_value_heads", "head_dim", "use_sliding_window"):
            continue  # the defaults of these are sizes of one model of the family
        rest = {k: value for k, value in whole.items() if k != key}
        assert list(configs.differing(whole, rest)) == [], key
        assert list(configs.differing(rest, whole)) == [], key


def test_rope_of_transformers_is_one_in_both_spellings():
    transformers = pytest.importorskip("transformers")
    written = transformers.LlamaConfig(
        rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
                         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192},
    ).to_dict()  # fmt: skip
    older = {
        "rope_theta": 500000.0,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    }  # fmt: skip
    assert rope.settings(written) == rope.settings(older)
    assert rope.settings(older)["rope_scaling"]["factor"] == 8.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[1, 2]",
        "null",
        "[" * 100_000,
        '{"a_config":' * 500 + "1" + "}" * 500,
        json.dumps(LLAMA | {"rope_theta": [[["x"]]]}),
        json.dumps(LLAMA | {"rope_scaling": "yes", "rope_parameters": {"full_attention": 3}}),
        json.dumps(LLAMA | {"rope_theta": 10**400, "id2label": {"x": 1, "y": [2]}}),
        json.dumps(LLAMA | {"model_type": 7, "architectures": [None], "id2label": [1]}),
        json.dumps(LLAMA | {"model_type": ["llama"], "hidden_size": 0, "num_attention_heads": 0}),
        '{"rope_theta": NaN, "rms_norm_eps": Infinity}',
        " " * (5 << 20) + "{}",
    ],
    ids=range(13),
)
def test_broken_configs_do_no_harm(tmp_path, text):
    base = model(tmp_path / "base", weights(), LLAMA)
    odd = model(tmp_path / "odd", config=text, beside={"tokenizer.json": text, "vocab.json": text})
    broken = "is not JSON" in " ".join(warned(base, odd))
    assert broken == any("is not JSON" in line for line in warned(odd, base))


BROKEN = [
    ("{", "is not JSON,"),
    ("", "is not JSON,"),
    ("\x00" * 9, "is not JSON,"),
    ("[1, 2]", "is not a JSON object,"),
    (" " * (5 << 20) + "{}", "is larger than 4 MB,"),
    ('{"a_config":' * 50 + "1" + "}" * 50, "has more than 20 levels,"),
]


@pytest.mark.parametrize(("text", "why"), BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("whose", ["model", "base"])
def test_a_broken_config_is_named(tmp_path, text, why, whose):
    base = model(tmp_path / "base", weights(), text if whose == "base" else LLAMA)
    good = model(tmp_path / "good", config=LLAMA)
    odd = model(tmp_path / "odd", config=text if whose == "model" else LLAMA)
    (line,) = warned(base, good, odd)
    assert line.startswith(f"{base if whose == 'base' else odd}: config.json {why}")
    invoke("merge", base, good, odd, "-o", tmp_path / "out", "--strict", code=1)
    assert not (tmp_path / "out").exists()


# --- labels --------------------------------------------------------------------------------------

NAMES = ["entailment", "neutral", "contradiction"]


def named(*names: str) -> dict[str, Any]:
    return {"id2label": {str(i): name for i, name in enumerate(names)}}


@pytest.mark.parametrize(
    ("base", "its", "expected"),
    [
        (named(*NAMES), named(*NAMES[::-1]), "another order"),
        (named(*NAMES), {"label2id": {n: 2 - i for i, n in enumerate(NAMES)}}, "another order"),
        (named(*NAMES), named("a", "b", "c"), "others"),
        (named(*NAMES), named("Entailment", "NEUTRAL ", "contradiction"), ""),
        (named(*NAMES), named("LABEL_0", "LABEL_1", "LABEL_2"), ""),
        (named("LABEL_0", "LABEL_1", "LABEL_2"), named(*NAMES), ""),
        (named(*NAMES), {}, ""),
        (named(*NAMES), named("yes", "no"), ""),
        (named(*NAMES), named("0", "1", "2"), ""),
    ],
)
def test_labels_in_another_order(tmp_path, base, its, expected):
    found = warned(
        model(tmp_path / "base", weights(), LLAMA | base),
        model(tmp_path / "ft", config=LLAMA | its),
    )
    assert len(found) == bool(expected)
    assert not found or (expected in found[0] and "id2label" in found[0])


def test_labels_of_the_models_are_compared_where_the_base_has_none(tmp_path):
    base = model(tmp_path / "base", weights(), LLAMA)
    a = model(tmp_path / "a", config=LLAMA | named(*NAMES))
    b = model(tmp_path / "b", config=LLAMA | named(*NAMES[::-1]))
    (line,) = warned(base, a, b)
    assert line.startswith(str(b)) and str(a) in line
    assert warned(base, a, b, exclude=(HEAD,)) == ()


def test_label_names_that_are_numbers_are_none():
    assert labels.of(named("LABEL_0", "LABEL_1")) is None
    assert labels.of(named("label 0", "class-1")) is None
    assert labels.of(named("cat", "dog")) == ["cat", "dog"]


# --- diffusion -----------------------------------------------------------------------------------


def test_velocity_among_noise(tmp_path):
    paths = {}
    for name, kind in (("base", "epsilon"), ("v", "v_prediction"), ("e", "epsilon")):
        scheduler = {"scheduler_config.json": {"prediction_type": kind, "beta_start": 0.1}}
        model(tmp_path / name / "unet", tuned(weights(), 1), {"_class_name": "UNet"})
        folder = model(tmp_path / name / "scheduler", beside=scheduler)
        (folder / "model.safetensors").unlink()
        (tmp_path / name / "model_index.json").write_text("{}")
        paths[name] = tmp_path / name / "unet"
    (line,) = warned(paths["base"], paths["v"], paths["e"])
    assert str(paths["v"]) in line and "v_prediction" in line and "epsilon" in line


def test_markers_and_metadata_of_single_files(tmp_path):
    base = weights()
    marked = tuned(base, 1) | {"v_pred": np.zeros(0, np.float32)}
    save_file(base, tmp_path / "base.safetensors", {"modelspec.prediction_type": "epsilon"})
    save_file(marked, tmp_path / "marked.safetensors", {"format": "pt"})
    save_file(tuned(base, 2), tmp_path / "v.safetensors", {"modelspec.prediction_type": "v"})
    paths = [tmp_path / f"{name}.safetensors" for name in ("base", "marked", "v")]
    found = [line for line in warned(*paths, extra="ignore") if "predict" in line]
    assert len(found) == 2 and "v_pred" in found[0] and "v_prediction" in found[1]


# --- tokenizers ----------------------------------------------------------------------------------


def fast(*tokens: str, added: tuple[str, ...] = (), merges: Any = None, **more: Any) -> Any:
    vocabulary: Any = {token: i for i, token in enumerate(tokens)}
    kind = {"type": "BPE", "vocab": vocabulary, "merges": merges or []}
    rows = [{"id": len(tokens) + i, "content": token} for i, token in enumerate(added)]
    return {"tokenizer.json": {"model": kind, "added_tokens": rows, **more}}


def unigram(*tokens: str) -> Any:
    pairs = [[token, -float(i)] for i, token in enumerate(tokens)]
    return {"tokenizer.json": {"model": {"type": "Unigram", "vocab": pairs}}}


def eos(token: Any, *stops: int) -> Any:
    more = {"generation_config.json": {"eos_token_id": list(stops)}} if stops else {}
    return {"tokenizer_config.json": {"eos_token": token}} | more


def said(**settings: Any) -> Any:
    return {"tokenizer_config.json": settings}


OTHER_TOKENS = [
    (fast("a", "b"), fast("a", "b", added=("<|im_end|>",)), "only it has: '<|im_end|>'"),
    (fast("a", "b", added=("<x>",)), fast("a", "b"), "lacks: '<x>'"),
    (fast("a", "b"), fast("b", "a"), "other ids: 'b', 'a'"),
    (fast("a", "b", "c", merges=["a b"]), fast("a", "b", "c", merges=["b c"]), "other merges"),
    (unigram("a", "b"), unigram("a", "b", "c"), "only it has: 'c'"),
    ({"vocab.txt": "a\nb\n"}, {"vocab.txt": "a\nc\n"}, "only it has: 'c'"),
    ({"vocab.json": {"a": 0}}, {"vocab.json": {"a": 1}}, "other ids: 'a'"),
    (
        {"vocab.json": {"a": 0}},
        {"vocab.json": {"a": 0}, "added_tokens.json": {"<b>": 1}},
        "only it has: '<b>'",
    ),
    ({"spm.model": "one"}, {"spm.model": "two"}, "spm.model differs"),
    ({"qwen.tiktoken": "one"}, {"qwen.tiktoken": "other"}, "qwen.tiktoken differs"),
    (eos("</s>"), eos("<|im_end|>"), "eos_token is '<|im_end|>', not '</s>'"),
    (eos("</s>", 2), eos({"content": "</s>"}, 2, 7), "eos_token_id is [2, 7], not [2]"),
]
OTHER_TOKENS += [
    (said(add_bos_token=True), said(add_bos_token=False), "add_bos_token is false, not true"),
    (said(add_eos_token=False), said(add_eos_token=True), "add_eos_token is true, not false"),
    (said(do_lower_case=True), said(do_lower_case=False), "do_lower_case is false, not true"),
    (said(chat_template="one"), said(chat_template="two"), "another chat template"),
    (said(chat_template="one"), {"chat_template.jinja": "two"}, "another chat template"),
    (eos("</s>"), eos("</s>") | {"chat_template.jinja": "one"}, "a chat template, where that has"),
    (said(), said(chat_template=[{"name": "rag", "template": "x"}]), "a chat template, where that"),
]
SAME_TOKENS = [
    (fast("a", "b"), fast("a", "b", padding={"length": 3}, truncation={"max_length": 4})),
    (fast("a", "b", merges=["a b"]), fast("a", "b", merges=[["a", "b"]])),
    (fast("a", "b"), {}),
    ({}, fast("a", "b")),
    (fast("a", "b"), {"tokenizer.json": "{"}),
    (eos("</s>", 2), eos({"content": "</s>"}, 2)),
    (eos("</s>"), {"generation_config.json": {"eos_token_id": 9}}),
    (eos("</s>") | {"chat_template.jinja": "one"}, eos("</s>")),
    (eos("</s>") | {"chat_template.jinja": "one\n"}, said(chat_template="one")),
    (said(add_bos_token=True), said(add_eos_token=True, do_lower_case=False)),
    (
        {"chat_template.json": {"chat_template": "one"}},
        said(
            chat_template=[
                {"name": "tools", "template": "x"},
                {"name": "default", "template": "one"},
            ]
        ),
    ),
    ({"spm.model": "one"}, {"spm.model": "one"}),
]


@pytest.mark.parametrize(("base", "its", "expected"), OTHER_TOKENS)
def test_other_tokens_are_named(tmp_path, base, its, expected):
    a = model(tmp_path / "base", weights(), LLAMA, base)
    b = model(tmp_path / "ft", config=LLAMA, beside=its)
    (line,) = warned(a, b)
    option = "--chat-template" if "chat" in expected else "--tokenizer"
    assert expected in line and f"Give {option} {b} " in line
    assert warned(a, b, tokenizer=str(b)) == ()
    recipe = packing.recipe(str(a), (Model(str(b)),), "none", {})
    with opening.opened(recipe, on_base=True) as plan:  # what packs has neither option
        (line,) = judged(plan, packing=True).warnings
    merging = "When you merge it" if "chat" in expected else "merge the model itself"
    assert f"not that of {a}, on which it is packed: " in line and merging in line


@pytest.mark.parametrize(("base", "its"), SAME_TOKENS)
def test_equal_tokenizers_are_not(tmp_path, base, its):
    a = model(tmp_path / "base", weights(), LLAMA, base)
    assert warned(a, model(tmp_path / "ft", config=LLAMA, beside=its)) == ()


def test_with_a_tokenizer_chosen_the_others_are_compared_with_it(tmp_path):
    base = model(tmp_path / "base", weights(), LLAMA, fast("a", "b"))
    one = model(tmp_path / "one", config=LLAMA, beside=fast("a", "b", added=("<x>",)))
    two = model(tmp_path / "two", config=LLAMA, beside=fast("a", "b", added=("<y>",)))
    (line,) = warned(base, one, two, tokenizer=str(one))
    assert line.startswith(str(two)) and "'<y>'" in line and "'<x>'" in line
    assert "--tokenizer" not in line


TABLE = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("its", "number", "last"),
    [
        (fast("a", "b", "c", added=("<d>", "<e>")), 2, 4),
        (unigram("a", "b", "c", "d"), 1, 3),
        ({"vocab.json": {"a": 0}, "added_tokens.json": {"<x>": 9}}, 1, 9),
        ({"vocab.txt": "a\nb\nc\nd\ne\nf\n"}, 3, 5),
        ({"spm.model": "x", **said(added_tokens_decoder={"3": {"content": "<pad>"}})}, 1, 3),
        (fast("a", "b", added=("c",)), 0, 0),
        ({"spm.model": "x"}, 0, 0),
    ],
)
def test_tokens_beyond_the_rows_of_the_embedding(tmp_path, its, number, last):
    tensors = weights() | {TABLE: weights()[HEAD]}
    base = model(tmp_path / "base", tensors, LLAMA, fast("a", "b", "c"))
    ft = model(tmp_path / "ft", tuned(tensors, 1), LLAMA, its)
    assert not [line for line in warned(base, ft) if " rows of " in line]
    if number:
        with pytest.raises(RecipeError) as error:
            warned(base, ft, tokenizer=str(ft))
        line = str(error.value)
        assert line.startswith(f"{ft}: its tokenizer has tokens beyond the 3 rows")
        assert line.count("'") == 2 * number and f"(up to number {last})" in line
    else:
        warned(base, ft, tokenizer=str(ft))
    more = ("--tokenizer", ft, "-o", tmp_path / "out", "--strict")
    invoke("merge", base, ft, *more, code=int(bool(number)))


def test_five_tokens_are_named_and_the_others_counted(tmp_path):
    base = model(tmp_path / "base", weights(), LLAMA, fast("a"))
    more = tuple(f"<{i}>" for i in range(9))
    (line,) = warned(base, model(tmp_path / "ft", config=LLAMA, beside=fast("a", added=more)))
    assert "'<4>' and 4 more" in line and "'<5>'" not in line


def test_a_large_tokenizer_is_not_parsed_beyond_the_limit(tmp_path):
    base = model(tmp_path / "base", weights(), LLAMA, fast("a", "b", "c"))
    ft = model(tmp_path / "ft", config=LLAMA, beside=fast("a", "b", "d"))
    assert warned(base, ft)
    with open(Path(ft) / "tokenizer.json", "a") as file:
        file.write(" " * tokenizers.LARGEST)
    assert warned(base, ft) == ()
    (Path(ft) / "tokenizer.json").unlink()


# --- weights -------------------------------------------------------------------------------------


def test_another_pretraining(tmp_path):
    base = model(tmp_path / "base", weights(), LLAMA)
    far = model(tmp_path / "far", weights(5), LLAMA)
    (line,) = warned(base, model(tmp_path / "ft", config=LLAMA), far)
    assert line.startswith(f"{far}: differs from {base} by 1.4 times") and "pretraining" in line


def test_a_new_head_and_a_long_norm_are_no_pretraining(tmp_path):
    base = weights() | {"a.weight": weights(3)[Q], "b.weight": weights(4)[Q]}
    base[HEAD] = np.full((3, 64), 2.0, np.float32)  # nearly all of the length
    ft = tuned(base, 1) | {HEAD: -base[HEAD], NORM: base[NORM] + 9}
    assert warned(model(tmp_path / "base", base), model(tmp_path / "ft", ft)) == ()


def test_small_models_of_a_few_weights_are_not_judged(tmp_path):
    base = {"w": np.ones((8, 8), np.float32)}
    assert warned(model(tmp_path / "base", base), model(tmp_path / "ft", {"w": -base["w"]})) == ()


def test_tensors_of_zeros(tmp_path):
    base = weights() | {"bias": np.zeros(64, np.float32), "lora_B": np.zeros((64, 4), np.float32)}
    lost = tuned(base, 1) | {k: np.zeros_like(base[k]) for k in (Q, "bias", "lora_B")}
    (line,) = warned(model(tmp_path / "base", base), model(tmp_path / "ft", lost))
    assert "1 tensor of zeros" in line and Q in line and "zero_to_fp32.py" in line
    lost[NORM] = np.zeros_like(base[NORM])
    (line,) = warned(tmp_path / "base", model(tmp_path / "ft", lost))
    assert "2 tensors" in line and NORM in line


def test_zeros_but_for_some_rows_are_weights(tmp_path):
    base = {"emb": np.zeros((100, 64), np.float32)}
    base["emb"][-1] = 1
    ft = {"emb": base["emb"] * np.float32(1.1)}
    assert warned(model(tmp_path / "base", base), model(tmp_path / "ft", ft)) == ()


@pytest.mark.parametrize("rows", [slice(0, 1), slice(7, 9), slice(15, 16)])
def test_zeros_but_for_some_places_are_weights(tmp_path, rows):
    base = {"w": np.ones((16, 64), np.float32)}
    ft = {"w": np.zeros((16, 64), np.float32)}
    ft["w"][rows] = 1
    assert warned(model(tmp_path / "base", base), model(tmp_path / "ft", ft)) == ()


def test_task_files_are_not_judged_again(tmp_path):
    base = model(tmp_path / "base", weights(), LLAMA)
    far = model(tmp_path / "far", weights(5), LLAMA)
    task = tmp_path / "far.safetensors"
    tasks.pack(base, far, task, transform="none")
    assert not any("pretraining" in line for line in warned(base, task))
    assert any("pretraining" in line for line in warned(base, far))


@pytest.mark.parametrize("at", ["base", "ft"])
def test_empty_tensors_are_an_incomplete_save(tmp_path, at):
    tensors = {"base": weights(), "ft": tuned(weights(), 1)}
    tensors[at][Q] = np.zeros(0, np.float32)
    for name, mine in tensors.items():
        model(tmp_path / name, mine)
    with pytest.raises(MismatchError, match=r"ZeRO-3.*zero_to_fp32\.py") as caught:
        warned(tmp_path / "base", tmp_path / "ft")
    assert str(caught.value).startswith(f"{tmp_path / at}: tensor")


def test_the_demo_has_no_warning():
    data = files("breadcrumbs") / "demo" / "data"
    names = ("base", "animals", "digits", "fashion", "turns", "vowels", "weights")
    assert warned(*(Path(str(data / f"{name}.safetensors")) for name in names)) == ()


def test_a_perturbed_minilm_has_none(minilm, tmp_path):
    import shutil

    shutil.copytree(minilm, tmp_path / "ft")
    path = tmp_path / "ft" / "model.safetensors"
    state = load_file(path)
    rng = np.random.default_rng(0)
    for name, x in state.items():
        if x.dtype == np.float32 and x.ndim == 2:
            state[name] = x + 0.02 * x.std() * rng.standard_normal(x.shape, np.float32)
    save_file(state, path, {"format": "pt"})
    assert warned(Path(minilm), tmp_path / "ft") == ()


# --- where they are told -------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a base, a good and an odd fine-tuning."""
    monkeypatch.chdir(tmp_path)
    model(Path("base"), weights(), LLAMA)
    model(Path("good"), config=LLAMA)
    model(Path("odd"), config=LLAMA | {"rope_theta": 1e6})
    return tmp_path


ADD = ("-m", "task_arithmetic", "-p", "alpha=0.5")


def test_before_the_merge_and_in_the_card(pair):
    result = invoke("merge", "base", "odd", *ADD, "-o", "out")
    line = next(x for x in result.stderr.splitlines() if x.startswith("warning: odd: config.json"))
    assert result.stderr.index(line) < result.stderr.index("tensors merged")
    assert result.stderr.count(line) == 1
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "## Warnings\n\n* odd: config.json: rope\\_theta" in card or "rope_theta" in card
    assert card.index("## Warnings") < card.index("## Recipe")
    quiet = invoke("merge", "base", "odd", *ADD, "-o", "out", "--force", "-q")
    assert quiet.stderr == ""


def test_in_the_plan_and_in_json(pair):
    assert "warning: odd: config.json" in invoke("merge", "base", "odd", *ADD, "--dry-run").stderr
    for more in (["--dry-run"], ["-o", "out"]):
        said = json.loads(invoke("merge", "base", "odd", *ADD, *more, "--json").stdout)
        assert len(said["warnings"]) == 1


def test_what_is_right_has_no_warning_and_passes_strict(pair):
    result = invoke("merge", "base", "good", *ADD, "-o", "out", "--strict")
    assert "warning" not in result.stderr
    assert "## Warnings" not in Path("out/README.md").read_text(encoding="utf-8")


STRICT = [
    ("merge", "base", "odd", *ADD, "-o", "out"),
    ("merge", "base", "odd", *ADD, "--dry-run"),
    ("merge", "base", "good", "good", *ADD, "-o", "out"),
    ("task", "pack", "base", "odd", "-o", "out.safetensors"),
    ("compress", "base", "odd", "-o", "out.safetensors"),
    ("store", "add", "shared", "odd", "odd"),
]


@pytest.mark.parametrize("args", STRICT, ids=" ".join)
def test_strict_makes_them_errors(pair, args):
    invoke("store", "init", "shared", "--base", "base", *ADD)
    before = sorted(pair.rglob("*"))
    result = invoke(*args, "--strict", code=1)
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("breadcrumbs: ") and "--strict" in result.stderr
    after = [path for path in sorted(pair.rglob("*")) if path.name != "tmp" or path.is_file()]
    assert after == before
    again = invoke(*args)
    assert "warning: " in again.stderr


def test_strict_reads_no_weights_before_it_refuses(pair, monkeypatch):
    from breadcrumbs.engine import runner

    monkeypatch.setattr(runner, "run", lambda *args, **more: pytest.fail("merged"))
    invoke("merge", "base", "odd", "-o", "out", "--strict", code=1)


def test_strict_store_merge(pair):
    invoke("store", "init", "shared", "--base", "base", *ADD)
    invoke("store", "add", "shared", "good", "good", "--strict")
    invoke("store", "merge", "shared", "-o", "out", "--strict")
    invoke("store", "merge", "shared", "-o", "flat", "--strict", "-p", "alpha=0", code=1)
    assert not Path("flat").exists()


def test_what_shows_only_after_the_merge_is_an_error_too(pair):
    result = invoke("merge", "base", "good", "-m", "task_arithmetic", "-p", "alpha=0",
                    "-o", "out", "--strict", code=1)  # fmt: skip
    assert "nothing is added" in result.stderr and not Path("out").exists()


def test_strict_in_python(pair):
    given: dict[str, Any] = {"method": "task_arithmetic", "alpha": 0.5}
    for more in ({}, {"output": "out"}):
        with pytest.raises(MismatchError, match="rope_theta"):
            breadcrumbs.merge("base", ["odd"], strict=True, **given, **more)
        breadcrumbs.merge("base", ["good"], strict=True, **given, **more)
    report = breadcrumbs.merge("base", ["odd"], output="odder", **given)
    assert len(report.warnings) == 1
    with pytest.raises(BreadcrumbsError, match="rope_theta"):
        archives.compress("base", ["odd"], "a.safetensors", strict=True)
    with pytest.raises(BreadcrumbsError, match="rope_theta"):
        tasks.pack("base", "odd", "a.safetensors", strict=True)
    assert not Path("a.safetensors").exists()


def test_onto_another_config_is_told_of(pair):
    found = warned(Path("base"), Path("good"), onto="odd")
    assert len(found) == 1 and found[0].startswith("odd: ") and "config of odd" in found[0]


@pytest.mark.parametrize("end", ["?", ".", "!", "y"])
def test_no_line_ends_twice(end, capsys):
    from breadcrumbs.cli import console
    from breadcrumbs.plan.judgement import refuse

    console.warnings([f"why{end}"])
    console.note([f"why{end}"])
    mark = "." if end == "y" else ""
    assert capsys.readouterr().err == f"warning: why{end}{mark}\nnote: why{end}{mark}\n"
    with pytest.raises(MismatchError, match=re.escape(f"why{end}{mark} Nothing is written")):
        refuse([f"why{end}"])


def test_judging_twice_says_it_once(pair):
    recipe = Recipe("base", (Model("odd"),), "task_arithmetic")
    with opening.opened(recipe) as plan:
        once = judged(plan)
        assert judged(once).warnings == once.warnings and plan.warnings == ()
