"""Configs in the folders of a model are compared as its own is, modules without weights too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from breadcrumbs.merging import opening
from breadcrumbs.plan.judgement import judged
from breadcrumbs.plan.recipe import Model, Recipe

TYPES = "sentence_transformers.models."
MODULES = ["Transformer", "Pooling", "Dense"]
DENSE = {"in_features": 8, "activation_function": "torch.nn.modules.activation.Tanh"}
POOLING = {"embedding_dimension": 8, "pooling_mode": "mean"}
OLD = {
    "word_embedding_dimension": 8, "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
}  # fmt: skip


def weights(seed: int) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(seed).normal(0, 1, (8, 8)).astype(np.float32)}


def write(path: Path, said: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said))


def sentence(folder: Path, seed: int = 0, modules=MODULES, types=TYPES, **configs: Any) -> Path:
    names = ["" if not i else f"{i}_{name}" for i, name in enumerate(modules)]
    listed = [{"path": n, "type": types + m} for n, m in zip(names, modules, strict=True)]
    write(folder / "modules.json", listed)
    write(folder / "config.json", {"model_type": "bert"})
    write(folder / "1_Pooling" / "config.json", configs.get("pooling", POOLING))
    write(folder / "2_Dense" / "config.json", configs.get("dense", DENSE))
    for name in names[3:]:
        (folder / name).mkdir()
    save_file(weights(seed), folder / "model.safetensors")
    save_file(weights(seed + 1), folder / "2_Dense" / "model.safetensors")
    return folder


def pipeline(folder: Path, seed: int = 0, **configs: Any) -> Path:
    parts = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"}
    write(folder / "model_index.json", {name: ["x", kind] for name, kind in parts.items()})
    for i, part in enumerate(parts):
        write(folder / part / "config.json", configs.get(part, {}))
        save_file(weights(seed + i), folder / part / "model.safetensors")
    return folder


def warned(base: Path, *models: Path) -> list[str]:
    recipe = Recipe(str(base), tuple(Model(str(m)) for m in models), "task_arithmetic", {})
    with opening.opened(recipe) as plan:
        return [line for line in judged(plan).warnings if "json" in line]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"dense": DENSE | {"activation_function": "torch.nn.Identity"}}, "2_Dense/config.json: a"),
        ({"pooling": POOLING | {"pooling_mode": "cls"}}, "1_Pooling/config.json: pooling_mode is"),
        (
            {"pooling": OLD | {"pooling_mode_max_tokens": True}},
            r'pooling_mode is \["max", "mean"\], in .*/base "mean"',
        ),
        ({"modules": [*MODULES, "Normalize"]}, "modules.json: .*Dense, Normalize, those of"),
    ],
)
def test_modules_of_sentence_transformers(tmp_path: Path, other: dict[str, Any], says: str) -> None:
    base = sentence(tmp_path / "base")
    (line,) = warned(base, sentence(tmp_path / "other", 5, **other))
    assert re.search(says, line) and line.startswith(str(tmp_path / "other"))
    assert "\n" not in line and not line.endswith(".")


@pytest.mark.parametrize(
    "other",
    [
        {"types": "sentence_transformers.base.modules.something."},
        {"pooling": OLD},
        {"dense": DENSE | {"module_output_name": "sentence_embedding"}},
    ],
)
def test_modules_that_mean_the_same(tmp_path: Path, other: dict[str, Any]) -> None:
    assert not warned(sentence(tmp_path / "base"), sentence(tmp_path / "other", 5, **other))


def test_components_of_diffusers(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base", text_encoder={"hidden_act": "quick_gelu"}, unet={"x": 1})
    same = pipeline(tmp_path / "same", 3, text_encoder={"hidden_act": "quick_gelu"}, unet={"x": 1})
    assert not warned(base, same)
    other = pipeline(tmp_path / "other", 5, text_encoder={"hidden_act": "gelu"}, unet={"x": 2})
    lines = warned(base, other)
    assert [line.partition(".json")[0].rpartition(" ")[2] for line in lines] == [
        "unet/config",
        "text_encoder/config",
    ]
    assert 'hidden_act is "gelu"' in lines[1] and "x is 2, not 1" in lines[0]


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    base = sentence(tmp_path / "base")
    other = sentence(tmp_path / "other", 5)
    (other / "2_Dense" / "config.json").write_text("[]")
    (other / "1_Pooling" / "config.json").unlink()
    assert not warned(base, other)


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer.json", "spiece.model"])
def test_the_tokenizer_of_a_component(tmp_path: Path, name: str) -> None:
    models = []
    for number, tokens in enumerate([{"a": 0, "b": 1}, {"a": 0, "b": 1}, {"a": 0, "c": 1}]):
        folder = pipeline(tmp_path / str(number), 3 * number)
        index = json.loads((folder / "model_index.json").read_text())
        write(folder / "model_index.json", index | {"tokenizer_2": ["transformers", "X"]})
        said = {"model": {"vocab": tokens}} if name == "tokenizer.json" else tokens
        write(folder / "tokenizer_2" / name, said)
        models.append(folder)
    base, same, other = models
    recipe = Recipe(str(base), (Model(str(same)), Model(str(other))), "task_arithmetic", {})
    with opening.opened(recipe) as plan:
        (line,) = [line for line in judged(plan).warnings if "its tokenizer" in line]
    what = "spiece.model differs" if name == "spiece.model" else "tokens that only it has: 'c'"
    assert f"tokenizer_2: {what}" in line and line.startswith(str(other))


@pytest.mark.parametrize("name", ["tekken.json", "vocab-src.json", "dict.txt"])
def test_vocabularies_of_other_names(tmp_path: Path, name: str) -> None:
    base, same, other = (sentence(tmp_path / n, i) for i, n in enumerate(("base", "same", "other")))
    for folder, text in ((base, "a"), (same, "a"), (other, "b")):
        (folder / name).write_text(text)
    recipe = Recipe(str(base), (Model(str(same)), Model(str(other))), "task_arithmetic", {})
    with opening.opened(recipe) as plan:
        (line,) = [line for line in judged(plan).warnings if "its tokenizer" in line]
    assert line.startswith(str(other)) and f"{name} differs" in line
