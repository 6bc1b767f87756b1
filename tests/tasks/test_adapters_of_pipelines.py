"""LoRA files for several components of a pipeline, on the pipeline and on one component of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.errors import MismatchError

SIZE, RANK = 8, 3
UNET = ["down_blocks.0.attentions.0.to_q", "mid_block.proj_in"]
TEXT = ["encoder.layers.0.self_attn.q_proj", "encoder.layers.0.mlp.fc1"]
ONE = {"method": "task_arithmetic", "alpha": 1}


def normal(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * 0.05).astype(np.float32)


def pipeline(folder: Path, text: str = "", image: str = "unet") -> Path:
    """A pipeline; text: what its text encoder's names begin with."""
    parts = {image: UNET, "text_encoder": [text + name for name in TEXT], "vae": ["conv"]}
    for number, (part, modules) in enumerate(parts.items()):
        (folder / part).mkdir(parents=True)
        found = {f"{m}.weight": normal(10 * number + t, SIZE, SIZE) for t, m in enumerate(modules)}
        save_file(found, folder / part / "model.safetensors")
        (folder / part / "config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({part: ["x", "y"] for part in parts}))
    return folder


def lora(path: Path, form: str, image: str, text: str = "text_model.") -> Path:
    """A LoRA for both: of kohya's scripts (form: flat), or of diffusers."""
    tensors = {}
    names = [f"unet.{m}" for m in UNET] + [f"text_encoder.{text}{m}" for m in TEXT]
    for t, name in enumerate(names):
        down, up = normal(50 + t, RANK, SIZE), normal(70 + t, SIZE, RANK)
        if form == "kohya":
            flat = f"lora_{name}".replace(".", "_").replace("text_encoder", "te")
            tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            tensors[f"{flat}.alpha"] = np.array(RANK, np.float32)
        else:
            name = name.replace("unet", image)
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(tensors, path)
    return path


def products() -> list[np.ndarray]:
    return [normal(70 + t, SIZE, RANK) @ normal(50 + t, RANK, SIZE) for t in range(4)]


@pytest.mark.parametrize("image", ["unet", "transformer"])
@pytest.mark.parametrize("text", ["", "text_model."])
@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_all_components_at_once(tmp_path: Path, form: str, text: str, image: str) -> None:
    base = pipeline(tmp_path / "base", text, image)
    file = lora(tmp_path / "lora.safetensors", form, image)
    names = [f"{image}/{m}.weight" for m in UNET]
    names += [f"text_encoder/{text}{m}.weight" for m in TEXT]
    task = tmp_path / "t.safetensors"
    assert set(tasks.from_adapter(base, file, task).tensors) == set(names)
    before = breadcrumbs.open(base)
    for given, out in ((f"{base}+{file}", tmp_path / "a"), (task, tmp_path / "b")):
        merged = breadcrumbs.merge(base, [given], **ONE)
        for name, product in zip(names, products(), strict=True):
            np.testing.assert_allclose(merged[name], before[name] + product, atol=1e-6)
        assert (merged["vae/conv.weight"] == before["vae/conv.weight"]).all()
        breadcrumbs.merge(base, [given], output=out, **ONE)
        written = load_file(out / image / "model.safetensors")
        assert (written[f"{UNET[0]}.weight"] == merged[names[0]]).all()
    one = tmp_path / "lora"
    breadcrumbs.merge(base, [file, file], method="average", space="core", to="lora", output=one)
    keys = set(load_file(one / "pytorch_lora_weights.safetensors"))
    modules = [f"{image}.{m}" for m in UNET] + [f"text_encoder.{text}{m}" for m in TEXT]
    assert keys == {f"{module}.lora_{which}.weight" for module in modules for which in "AB"}
    merged = breadcrumbs.merge(base, [one], **ONE)
    for name, product in zip(names, products(), strict=True):
        np.testing.assert_allclose(merged[name], before[name] + product, atol=1e-6)


def test_one_component_alone(tmp_path: Path) -> None:
    """Also of a text encoder whose names lack what kohya's begin with, as transformers 5 saves."""
    base = pipeline(tmp_path / "base")
    file = lora(tmp_path / "lora.safetensors", "kohya", "unet")
    for part, modules, found in (
        ("unet", UNET, products()[:2]),
        ("text_encoder", TEXT, products()[2:]),
    ):
        task = tmp_path / f"{part}.safetensors"
        with pytest.raises(MismatchError, match="--extra ignore"):
            tasks.from_adapter(base / part, file, task)
        tasks.from_adapter(base / part, file, task, extra="ignore")
        merged = breadcrumbs.merge(base / part, [task], **ONE)
        before = load_file(base / part / "model.safetensors")
        for module, product in zip(modules, found, strict=True):
            name = f"{module}.weight"
            np.testing.assert_allclose(merged[name], before[name] + product, atol=1e-6)


def test_a_pipeline_without_one_of_them(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base")
    file = lora(tmp_path / "lora.safetensors", "diffusers", "unet")
    shutil.rmtree(base / "text_encoder")
    (base / "model_index.json").write_text(json.dumps({"unet": ["x", "y"], "vae": ["x", "y"]}))
    with pytest.raises(MismatchError, match=r"holds 'text_encoder.*--extra ignore"):
        breadcrumbs.open(f"{base}+{file}")
    said = tasks.from_adapter(base, file, tmp_path / "t.safetensors", extra="ignore")
    assert len(said.tensors) == 2


def test_a_pipeline_of_the_same_weights(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base")
    shutil.copytree(base, tmp_path / "copy")
    with pytest.raises(MismatchError, match=r"adds nothing to it: .*copy and the base have the"):
        breadcrumbs.merge(base, [tmp_path / "copy"], output=tmp_path / "out", **ONE)
