"""Modules of transformers beside their files, in which weights have other names."""

from __future__ import annotations

from typing import Any

import pytest

import breadcrumbs

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers", minversion="5.0")
tf.logging.set_verbosity_error()
tf.logging.disable_progress_bar()

TOWER = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
DECODER = {f"decoder_{name}": TOWER[name] for name in list(TOWER)[:4]}
STAGES = {
    "num_encoder_blocks": 2, "depths": [1, 2], "sr_ratios": [2, 1], "hidden_sizes": [8, 16],
    "patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
    "decoder_hidden_size": 8,
}  # fmt: skip
EXPERTS = {
    "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "intermediate_size": 16, "num_local_experts": 2,
}  # fmt: skip
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vitmae": ("ViTMAEForPreTraining", "ViTMAEConfig", {**TOWER, **DECODER}),
    "yolos": ("YolosForObjectDetection", "YolosConfig", {**TOWER, "image_size": [16, 16]}),
    "segformer": ("SegformerForSemanticSegmentation", "SegformerConfig", STAGES),
}
ALL = {"method": "task_arithmetic", "alpha": 1}


def made(kind: str, config: str, settings: dict[str, Any], seed: int) -> Any:
    torch.manual_seed(seed)
    module = getattr(tf, kind)(getattr(tf, config)(**settings))
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return module


def assert_same(found: Any, expected: Any) -> None:
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_modules_and_files_of_one_architecture(kind, tmp_path):
    base, tuned = (made(*KINDS[kind], seed) for seed in range(2))
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned")
    assert set(breadcrumbs.load(tmp_path / "base").shapes) != set(base.state_dict())
    breadcrumbs.merge(tmp_path / "base", [tuned], output=tmp_path / "merged", **ALL)
    assert_same(type(base).from_pretrained(tmp_path / "merged"), tuned)
    read = type(base).from_pretrained(tmp_path / "base")
    for module in (base, read):
        merged = breadcrumbs.merge(module, [tmp_path / "tuned"], **ALL)
        assert type(merged) is type(base)
        assert_same(merged, tuned)
    compared = breadcrumbs.compare(base, [tuned, tmp_path / "tuned"])
    assert compared.cosine[0, 1] == pytest.approx(1)
    assert_same(breadcrumbs.TaskVector(base, tmp_path / "tuned").apply_to(base), tuned)


def test_experts_of_a_module_are_those_of_the_files(tmp_path):
    base, tuned = (made("MixtralForCausalLM", "MixtralConfig", EXPERTS, seed) for seed in range(2))
    base.save_pretrained(tmp_path / "base")
    breadcrumbs.merge(tmp_path / "base", [tuned], output=tmp_path / "merged", **ALL)
    assert_same(type(base).from_pretrained(tmp_path / "merged"), tuned)
