"""Where an adapter's modules are in a base, and adapters that are no folders of PEFT's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import checkpoint, tasks
from breadcrumbs.checkpoint import hub
from breadcrumbs.checkpoint.beside import RECIPE
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, MismatchError
from breadcrumbs.merging import files, opening
from breadcrumbs.plan import mergekit

SIZE, RANK = 8, 4


def normal(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * 0.05).astype(np.float32)


def base_of(folder: Path, names: list[str], dtype: Any = np.float32, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: normal(t, SIZE, SIZE).astype(dtype) for t, name in enumerate(names)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def adapter_of(folder: Path, modules: list[str], **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for t, module in enumerate(modules):
        stem = f"base_model.model.{module}.lora_"
        tensors[f"{stem}A.weight"] = normal(20 + t, RANK, SIZE)
        tensors[f"{stem}B.weight"] = normal(40 + t, SIZE, RANK)
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def product(t: int) -> np.ndarray:
    return normal(40 + t, SIZE, RANK).astype(np.float64) @ normal(20 + t, RANK, SIZE)


def layers(prefix: str, number: int) -> list[str]:
    return [f"{prefix}.{i}.self_attn.q_proj" for i in range(number)]


def weights(modules: list[str]) -> list[str]:
    return [f"{module}.weight" for module in modules]


@pytest.mark.parametrize(
    ("theirs", "language", "vision", "number"),
    [
        ("model.language_model.layers", "language_model.model.layers", "vision_tower.layers", 3),
        ("model.layers", "language_model.model.layers", "vision_tower.layers", 2),
        ("language_model.model.layers", "model.language_model.layers", "model.visual.layers", 2),
        ("model.layers", "llm.layers", "audio.encoder.layers", 2),
    ],
)
def test_the_language_model_and_never_a_tower(
    tmp_path: Path, theirs: str, language: str, vision: str, number: int
) -> None:
    mine, tower = layers(language, 2), layers(vision, number)
    base = base_of(tmp_path / "base", weights([*tower, *mine]))
    adapter = adapter_of(tmp_path / "adapter", layers(theirs, 2))
    said = tasks.from_adapter(base, adapter, tmp_path / "t.safetensors")
    assert list(said.tensors) == weights(mine)


def test_both_towers_by_their_own_names(tmp_path: Path) -> None:
    mine, tower = layers("language_model.model.layers", 2), layers("vision_tower.layers", 2)
    base = base_of(tmp_path / "base", weights([*tower, *mine]))
    theirs = [*layers("model.language_model.layers", 2), *layers("model.vision_tower.layers", 2)]
    adapter = adapter_of(tmp_path / "adapter", theirs)
    merged = breadcrumbs.merge(base, [f"{base}+{adapter}"], method="task_arithmetic", alpha=1)
    before = load_file(base / "model.safetensors")
    for t, name in enumerate(weights([*mine, *tower])):
        np.testing.assert_allclose(merged[name], before[name] + 2 * product(t), atol=1e-6)


def test_two_places_and_an_option_that_picks(tmp_path: Path) -> None:
    first, second = layers("first.layers", 2), layers("second.layers", 2)
    base = base_of(tmp_path / "base", weights([*first, *second]))
    adapter = adapter_of(tmp_path / "adapter", layers("model.layers", 2))
    output = tmp_path / "t.safetensors"
    with pytest.raises(MismatchError, match=r'--rename "model\.\*=first\.\*" or .*=second'):
        tasks.from_adapter(base, adapter, output)
    said = tasks.from_adapter(base, adapter, output, rename=["model.*=second.*"])
    assert list(said.tensors) == weights(second)
    with pytest.raises(BreadcrumbsError, match="has no such name"):
        tasks.from_adapter(base, adapter, output, rename=["nothing.*=second.*"], force=True)
    with pytest.raises(BreadcrumbsError, match="is not OLD=NEW"):
        tasks.from_adapter(base, adapter, output, rename=["model.*"], force=True)


UNET = ["down_blocks.0.attentions.0.to_q", "mid_block.proj_in"]


def kohya(path: Path, modules: list[str], alpha: float | None = 2.0) -> Path:
    tensors = {}
    for t, module in enumerate(modules):
        tensors[f"{module}.lora_down.weight"] = normal(20 + t, RANK, SIZE)
        tensors[f"{module}.lora_up.weight"] = normal(40 + t, SIZE, RANK)
        if alpha is not None:
            tensors[f"{module}.alpha"] = np.array(alpha, np.float32)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(("alpha", "scale"), [(2.0, 2 / RANK), (None, 1.0)])
def test_kohya_by_names_without_dots(tmp_path: Path, prefix: str, alpha, scale: float) -> None:
    names = weights([prefix + module for module in UNET])
    base = base_of(tmp_path / "unet", names)
    flat = [f"lora_unet_{module.replace('.', '_')}" for module in UNET]
    file = kohya(tmp_path / "k.safetensors", flat, alpha)
    tasks.from_adapter(base, file, tmp_path / "t.safetensors")
    merged = breadcrumbs.merge(
        base, [tmp_path / "t.safetensors"], method="task_arithmetic", alpha=1
    )
    before = load_file(base / "model.safetensors")
    for t, name in enumerate(names):
        np.testing.assert_allclose(merged[name], before[name] + scale * product(t), atol=1e-6)
    both = kohya(tmp_path / "both.safetensors", [*flat, "lora_te_text_model_fc1"], alpha)
    with pytest.raises(MismatchError, match=r"holds 'lora_te_text_model_fc1.*--extra ignore"):
        tasks.from_adapter(base, both, tmp_path / "u.safetensors")
    assert tasks.from_adapter(base, both, tmp_path / "u.safetensors", extra="ignore").tensors
    odd = kohya(tmp_path / "odd.safetensors", [*flat, "lora_unet_up_blocks_7"], alpha)
    with pytest.raises(MismatchError, match=r"kohya.* lacks 1 of the 3 modules"):
        tasks.from_adapter(base, odd, tmp_path / "v.safetensors")
    alone = breadcrumbs.merge(base, [file], method="task_arithmetic", alpha=1)
    assert all((alone[name] == merged[name]).all() for name in names)


def test_kohya_names_that_are_two(tmp_path: Path) -> None:
    base = base_of(tmp_path / "unet", weights(["a.b_c", "a_b.c"]))
    file = kohya(tmp_path / "k.safetensors", ["lora_unet_a_b_c"])
    with pytest.raises(MismatchError, match=r"may mean 'a.b_c.weight', 'a_b.c.weight'"):
        tasks.from_adapter(base, file, tmp_path / "t.safetensors")


@pytest.mark.parametrize("form", ["lora_{}.weight", "lora.{}.weight"])
@pytest.mark.parametrize("alpha", [None, 8])
def test_diffusers(tmp_path: Path, form: str, alpha) -> None:
    base = base_of(tmp_path / "unet", weights(UNET))
    ends = ("A", "B") if form.startswith("lora_") else ("down", "up")
    tensors = {}
    for t, module in enumerate(UNET):
        tensors[f"unet.{module}.{form.format(ends[0])}"] = normal(20 + t, RANK, SIZE)
        tensors[f"unet.{module}.{form.format(ends[1])}"] = normal(40 + t, SIZE, RANK)
    said = {"unet.r": RANK, "unet.lora_alpha": alpha}
    metadata = {"lora_adapter_metadata": json.dumps(said)} if alpha else None
    (tmp_path / "lora").mkdir()
    save_file(tensors, tmp_path / "lora" / "pytorch_lora_weights.safetensors", metadata)
    tasks.from_adapter(base, tmp_path / "lora", tmp_path / "t.safetensors")
    merged = breadcrumbs.merge(
        base, [tmp_path / "t.safetensors"], method="task_arithmetic", alpha=1
    )
    before = load_file(base / "model.safetensors")
    for t, name in enumerate(weights(UNET)):
        expected = before[name] + (alpha or RANK) / RANK * product(t)
        np.testing.assert_allclose(merged[name], expected, atol=1e-6)


@pytest.mark.parametrize("part", ["dora_scale", "hada_w1_a", "lokr_w1", "lora_mid.weight"])
def test_other_kinds_are_refused_by_name(tmp_path: Path, part: str) -> None:
    base = base_of(tmp_path / "unet", weights(UNET))
    save_file({f"lora_unet_mid_block_proj_in.{part}": normal(0, 4, 4)}, tmp_path / "k.safetensors")
    with pytest.raises(CheckpointError, match=r"LoRA file of kohya.* (DoRA|LoHa|LoKr|LoCon)"):
        tasks.from_adapter(base, tmp_path / "k.safetensors", tmp_path / "t.safetensors")


def test_an_adapter_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    cache, commit = tmp_path / "cache", "a" * 40
    place = cache / "models--org--adapter"
    adapter_of(place / "snapshots" / commit, layers("model.layers", 2))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    empty = cache / "models--org--model" / "snapshots" / commit
    empty.mkdir(parents=True)
    (cache / "models--org--model" / "refs").mkdir()
    (cache / "models--org--model" / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    base = base_of(tmp_path / "base", weights(layers("model.layers", 2)))
    said = tasks.from_adapter(base, "org/adapter", tmp_path / "t.safetensors")
    assert said.name == "adapter" and len(said.tensors) == 2
    assert hub.fetch_adapter("org/adapter", commit)[1] == commit
    with breadcrumbs.open(f"{base}+org/adapter") as model:
        assert set(model) == set(said.tensors)
    with pytest.raises(CheckpointError, match="in the local cache, so it is not an adapter"):
        tasks.from_adapter(base, "org/model", tmp_path / "u.safetensors")
    with pytest.raises(CheckpointError, match="not in the local cache"):
        tasks.from_adapter(base, "org/other", tmp_path / "u.safetensors")
    with pytest.raises(CheckpointError, match="no such file or folder"):
        tasks.from_adapter(base, "nothing", tmp_path / "u.safetensors")


@pytest.mark.parametrize("lora", ["ft: {model: base, lora: adapter}", "ft: base+adapter"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_configuration_of_mergekit(tmp_path: Path, lora: str, dtype) -> None:
    names = weights(layers("model.layers", 2))
    base = base_of(tmp_path / "base", names, dtype)
    adapter_of(tmp_path / "adapter", layers("model.layers", 2))
    text = lora.replace("ft: ", "model: ")
    config = tmp_path / "merge.yml"
    config.write_text(
        "merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
        f"- {{{text}, parameters: {{weight: 0.5}}}}\n"
    )
    with opening.opened(mergekit.convert(config).recipe) as plan:
        arrays, _ = files.to_arrays(plan)
    before = load_file(base / "model.safetensors")
    for t, name in enumerate(names):
        expected = (before[name].astype(np.float64) + product(t)).astype(dtype)
        assert arrays[name].dtype == dtype
        np.testing.assert_allclose(
            arrays[name].astype(np.float64), expected.astype(np.float64), rtol=2e-2, atol=1e-4
        )


def test_a_base_with_an_adapter_keeps_its_dtype(tmp_path: Path) -> None:
    names = weights(layers("model.layers", 2))
    base = base_of(tmp_path / "base", names, ml_dtypes.bfloat16)
    adapter = adapter_of(tmp_path / "adapter", layers("model.layers", 2))
    whole = breadcrumbs.merge(base, [f"{base}+{adapter}"], method="task_arithmetic", alpha=1)
    again = breadcrumbs.merge(f"{base}+{adapter}", [base], method="task_arithmetic", alpha=0)
    for name in names:
        assert again[name].dtype == ml_dtypes.bfloat16
        assert (again[name] == whole[name]).all()
    breadcrumbs.merge(
        f"{base}+{adapter}", [base], method="task_arithmetic", alpha=0, output=tmp_path / "out"
    )
    recipe = (tmp_path / "out" / RECIPE).read_text()
    assert "base: ../base+../adapter\n" in recipe


def test_an_adapter_of_another_model_that_is_here(tmp_path: Path) -> None:
    names = weights(layers("model.layers", 2))
    base, other = base_of(tmp_path / "base", names), base_of(tmp_path / "other", names[::-1])
    copy = base_of(tmp_path / "copy", names, torch_dtype="float32")
    for named, is_other in ((base, False), (copy, False), ("org/far", False), (other, True)):
        adapter = adapter_of(
            tmp_path / "adapter",
            layers("model.layers", 2),
            base_model_name_or_path=str(named),
        )
        told: list[str] = []
        tasks.from_adapter(base, adapter, tmp_path / "t.safetensors", force=True, warn=told.extend)
        with checkpoint.open(f"{base}+{adapter}") as opened:
            assert list(opened.warnings) == told and not opened.notes
        assert [str(other) in line for line in told] == [True] * is_other
        merge = [str(base), f"{base}+{adapter}", "-m", "average", "-o", str(tmp_path / "out")]
        merge += ["-p", "base_weight=1"]  # else it is told of that the base does not count
        run = CliRunner().invoke(main, ["merge", *merge, "--strict", "--force"])
        assert run.exit_code == is_other and ("was trained on" in run.stderr) == is_other


def test_the_adapters_of_a_training_are_named(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", weights(layers("model.layers", 2)))
    for step in ("checkpoint-10", "checkpoint-20"):
        adapter_of(tmp_path / "run" / step, layers("model.layers", 2))
    with pytest.raises(CheckpointError, match="'checkpoint-10', 'checkpoint-20' in it do"):
        checkpoint.open(f"{base}+{tmp_path / 'run'}")


@pytest.mark.parametrize("wrapped", ["base_model.model.", ""])
def test_a_state_dict_with_an_adapter_in_it(tmp_path: Path, wrapped: str) -> None:
    """Of a model of PEFT that was saved as it was trained: its weights lie under `base_layer`."""
    name = "model.layers.0.self_attn.q_proj"
    base = {f"{name}.weight": normal(0, SIZE, SIZE), "model.norm.weight": normal(1, SIZE)}
    whole = {
        f"{wrapped}{name}.base_layer.weight": normal(0, SIZE, SIZE),
        f"{wrapped}{name}.lora_A.default.weight": normal(2, RANK, SIZE),
        f"{wrapped}{name}.lora_B.default.weight": normal(3, SIZE, RANK),
        f"{wrapped}model.norm.weight": normal(4, SIZE),
    }
    with pytest.raises(MismatchError, match=r"holds a LoRA that was not put into.*lora_A.*merge_"):
        breadcrumbs.merge(base, [whole])
    native = base | {f"{name}.lora_A.speech.weight": normal(2, RANK, SIZE)}
    assert breadcrumbs.merge(native, [native | base]).keys() == native.keys()  # as Phi-4 has them


def test_factors_in_a_dtype_that_is_not_read(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", weights(layers("model.layers", 1)))
    adapter = adapter_of(tmp_path / "adapter", layers("model.layers", 1))
    file = adapter / "adapter_model.safetensors"
    save_file({name: a.astype(np.float64) for name, a in load_file(file).items()}, file)
    with pytest.raises(MismatchError, match=r"matrices in 'F64', and only 'F32'.* in float32"):
        checkpoint.open(f"{base}+{adapter}")


def test_an_adapter_of_another_layer_has_no_place(tmp_path: Path) -> None:
    """Of a layer that a smaller base lacks, whatever its own one layer is called."""
    base = base_of(tmp_path / "base", weights(layers("model.layers", 1)))
    other = adapter_of(tmp_path / "a", ["model.layers.7.self_attn.q_proj"])
    with pytest.raises(MismatchError, match=r"changes 'model\.layers\.7\..*which .* lacks"):
        tasks.from_adapter(base, other, tmp_path / "a.safetensors")
    right = adapter_of(tmp_path / "b", layers("transformer.layers", 1))
    tasks.from_adapter(base, right, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").is_file()


def test_the_rules_for_a_tower_that_is_called_otherwise_may_be_pasted(tmp_path):
    ends = ("query", "key", "value")
    names = [f"vit.encoder.layer.{i}.attention.attention.{end}" for i in (0, 1) for end in ends]
    base = base_of(tmp_path / "base", weights(names))
    live = [f"vit.layers.{i}.attention.{x}_proj" for i in (0, 1) for x in "qv"]
    adapter = adapter_of(tmp_path / "adapter", live)
    output = tmp_path / "task.safetensors"
    with pytest.raises(MismatchError) as caught:
        tasks.from_adapter(str(base), adapter, output)
    rules = re.findall('--rename "(.+?)"', str(caught.value))
    assert len(rules) == 2
    tasks.from_adapter(str(base), adapter, output, rename=rules)
    found = breadcrumbs.merge(str(base), [output], method="task_arithmetic", alpha=1)
    own = load_file(base / "model.safetensors")
    changed = [name for name in names if name.endswith(("query", "value"))]
    for t, name in enumerate(changed):
        expected = own[f"{name}.weight"] + 2 * product(t)
        assert np.allclose(found[f"{name}.weight"], expected, atol=1e-6)
