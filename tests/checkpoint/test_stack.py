"""Stacks: layers of checkpoints on top of each other, under new numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs.checkpoint.stack import Part, is_first, parse, renamed
from breadcrumbs.errors import BreadcrumbsError, CheckpointError
from breadcrumbs.merging import files, opening
from breadcrumbs.plan import recipe

TENSORS = ("attn.q.weight", "mlp.weight", "norm.weight")


def arrays(seed: int, layers: int = 4, prefix: str = "model.layers.") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = ["model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"]
    names += [f"{prefix}{i}.{name}" for i in reversed(range(layers)) for name in TENSORS]
    return {name: rng.standard_normal((3, 4)).astype("float32") for name in names}


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, name in enumerate(("a", "b", "c d")):
        (tmp_path / name).mkdir()
        save_file(arrays(seed), tmp_path / name / "model.safetensors", {"format": "pt"})
        config = {"num_hidden_layers": 4, "layer_types": [f"{name}{i}" for i in range(4)]}
        config |= {"vision_config": {"num_hidden_layers": 2}, "eos": [1, 2, 3, 4]}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    return tmp_path


def by_hand(*parts: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Return the stack of (seed, first, last)."""
    made = {"model.embed_tokens.weight": arrays(parts[0][0])["model.embed_tokens.weight"]}
    number = 0
    for seed, first, last in parts:
        for layer in range(first, last):
            for name in TENSORS:
                made[f"model.layers.{number}.{name}"] = arrays(seed)[f"model.layers.{layer}.{name}"]
            number += 1
    for name in ("model.norm.weight", "lm_head.weight"):
        made[name] = arrays(parts[-1][0])[name]
    return made


def same(found, wanted) -> None:
    assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in wanted.items()}


@pytest.mark.parametrize(
    "text, parts",
    [
        ("{}/a[0:3] + {}/b[1:4]", [(0, 0, 3), (1, 1, 4)]),
        ("{}/a[2:3]", [(0, 2, 3)]),
        ("{}/a[0:2] + {}/a[1:3] + {}/c d[3:4]", [(0, 0, 2), (0, 1, 3), (2, 3, 4)]),
    ],
)
def test_layers_are_counted_through(folder, text, parts):
    with breadcrumbs.open(text.replace("{}", str(folder))) as found:
        same(dict(found), by_hand(*parts))
        assert len(found.files) == len({seed for seed, *_ in parts})


def test_a_stack_is_written_with_its_number_of_layers(folder):
    text = f"{folder}/a[0:3] + {folder}/b[1:4]"
    breadcrumbs.merge(text, [], method="average", output=folder / "out")
    same(dict(breadcrumbs.open(folder / "out")), by_hand((0, 0, 3), (1, 1, 4)))
    config = json.loads((folder / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 6
    assert config["layer_types"] == ["a0", "a1", "a2", "a1", "a2", "a3"]
    assert config["vision_config"] == {"num_hidden_layers": 2} and config["eos"] == [1, 2, 3, 4]
    card = (folder / "out" / "README.md").read_text()
    assert "\n| ../a | model.safetensors |" in card and "\n| ../b | model.safetensors |" in card
    again = folder / "again.safetensors"
    with opening.opened(recipe.load(folder / "out" / "breadcrumbs.yaml")) as plan:
        files.to_files(plan, again)
    same(dict(breadcrumbs.open(again)), by_hand((0, 0, 3), (1, 1, 4)))


def test_stacks_are_merged_with_stacks(folder):
    base, model = (f"{folder}/{name}[0:2] + {folder}/{name}[1:3]" for name in "ab")
    found = breadcrumbs.merge(base, [model], method="task_arithmetic", alpha=0.5)
    a, b = by_hand((0, 0, 2), (0, 1, 3)), by_hand((1, 0, 2), (1, 1, 3))
    same(found, breadcrumbs.merge(a, [b], method="task_arithmetic", alpha=0.5))


def test_two_ranges_of_one_model_are_two_models(folder):
    base, model = f"{folder}/a[0:2]", f"{folder}/a[2:4]"
    found = breadcrumbs.merge(base, [model], method="task_arithmetic", alpha=1)
    wide = breadcrumbs.merge(by_hand((0, 0, 2)), [by_hand((0, 2, 4))], method="average")
    same(found, wide)
    with pytest.raises(BreadcrumbsError, match="is the base itself"):
        breadcrumbs.merge(base, [base])


def test_paths_in_a_recipe_are_relative_to_it(folder):
    (folder / "r.yaml").write_text("base: a[0:2] + elsewhere/b[1:3]\nmodels: []\n")
    found = recipe.load(folder / "r.yaml")
    assert found.base == f"{folder}/a[0:2] + elsewhere/b[1:3]"


def test_texts_that_name_stacks():
    assert parse("a[0:3]") == [Part("a", 0, 3)]
    assert parse("org/a@v1[0:3] + b c[4:5]") == [Part("org/a@v1", 0, 3), Part("b c", 4, 5)]
    for text in ("a", "a + b", "a[0:3] + b", "a[0]", "[0:3]", "a[0:-1]", "a[0:3]x"):
        assert parse(text) is None
    assert renamed("a[0:3] + b[1:2]", str.upper) == "A[0:3] + B[1:2]"
    assert renamed("a + b", str.upper) == "A + B"


def test_a_folder_of_that_very_name_goes_first(folder):
    (folder / "a[0:2]").mkdir()
    save_file(arrays(7), folder / "a[0:2]" / "model.safetensors")
    same(dict(breadcrumbs.open(f"{folder}/a[0:2]")), arrays(7))


@pytest.mark.parametrize(
    "name, first",
    [
        ("model.embed_tokens.weight", True),
        ("transformer.wte.weight", True),
        ("wpe.weight", True),
        ("bert.embeddings.LayerNorm.weight", True),
        ("shared.weight", True),
        ("gpt_neox.embed_out.weight", False),
        ("lm_head.weight", False),
        ("model.norm.weight", False),
        ("transformer.ln_f.weight", False),
    ],
)
def test_embeddings_are_of_the_first_part(name, first):
    assert is_first(name) == first


def test_what_cannot_be_stacked(folder):
    (folder / "h").mkdir()
    save_file(arrays(0, prefix="h."), folder / "h" / "model.safetensors")
    (folder / "two").mkdir()
    both = arrays(0, prefix="encoder.") | arrays(0, prefix="decoder.")
    save_file(both, folder / "two" / "model.safetensors")
    (folder / "none").mkdir()
    save_file({"w": np.zeros(3, np.float32)}, folder / "none" / "model.safetensors")
    for text, expected in (
        ("a[0:5]", r"a\[0:5\]: there are no such layers.*0 to 3; write \[0:4\]"),
        ("a[2:2]", "no such layers"),
        ("a[0:1] + h[0:1]", "layers are called differently: 'h.', 'model.layers.'"),
        ("two[0:1]", "layers under several names: 'decoder.', 'encoder.'"),
        ("none[0:1]", "no numbered layers"),
        ("a[0:1] + missing/x/y[0:1]", "no such file or folder"),
    ):
        paths = " + ".join(f"{folder}/{part}" for part in text.split(" + "))
        with pytest.raises(CheckpointError, match=expected):
            breadcrumbs.open(paths)


def test_transformers_opens_a_stack(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=20,
        tie_word_embeddings=True,
    )
    transformers.Qwen3ForCausalLM(config).save_pretrained(tmp_path / "a")
    breadcrumbs.merge(
        f"{tmp_path}/a[0:3] + {tmp_path}/a[1:3]", [], method="average", output=tmp_path / "out"
    )
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert model.config.num_hidden_layers == 5 and not report["missing_keys"]
    layers = model.model.layers
    assert torch.equal(layers[3].mlp.up_proj.weight, layers[1].mlp.up_proj.weight)
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
