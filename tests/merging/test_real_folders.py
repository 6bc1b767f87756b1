"""Folders as libraries write them, merged and opened by the same libraries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import breadcrumbs
from breadcrumbs import checkpoint, tasks
from breadcrumbs.merging import files, opening
from breadcrumbs.plan.recipe import Model, Recipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def merge(
    paths: list[Path], output: Path, alpha: float, shard_size: int = 5 * 10**9, **recipe: Any
) -> Any:
    models = tuple(Model(str(path)) for path in paths[1:])
    made = Recipe(str(paths[0]), models, "task_arithmetic", {"alpha": alpha}, **recipe)
    with opening.opened(made) as plan:
        return files.to_files(plan, output, kernel="numpy", shard_size=shard_size)


def moved(module: Any, seed: int, by: float = 0.02) -> Any:
    """Move the weights of a module at random, as a fine-tuning would; return it."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight += by * torch.randn(weight.shape, generator=draw)
    return module


def same_weights(one: Path, other: Path) -> bool:
    with checkpoint.open(one) as first, checkpoint.open(other) as second:
        assert first.keys() == second.keys() and len(first) > 0
        return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shards", ["1GB", "60KB"])
def test_a_variant_opens_as_one(tiny_bert, tmp_path, one_thread, shards):
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(tiny_bert(kind=transformers.BertForSequenceClassification))
    paths = [tmp_path / name for name in ("base", "tuned", "out", "wide")]
    for seed, path in enumerate(paths[:2]):
        moved(model.half() if not seed else model, seed)
        model.save_pretrained(path, variant="fp16", max_shard_size=shards)
    assert not list(paths[0].glob("model.safetensors"))
    size = 60_000 if shards == "60KB" else 5 * 10**9
    merge(paths[:2], paths[2], 1.0, shard_size=size)
    assert sorted(paths[0].glob("*.index.*")) == [] or size == 60_000
    again = kind.from_pretrained(paths[2], variant="fp16").state_dict()
    wanted = model.state_dict()
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)
    with pytest.raises(OSError):
        kind.from_pretrained(paths[2])
    merge(paths[:2], paths[3], 1.0, shard_size=size, dtype="float32")
    plain = kind.from_pretrained(paths[3], dtype="auto").state_dict()
    assert all(torch.equal(plain[name], wanted[name].float()) for name in wanted)


# --- sentence-transformers ---


def test_a_sentence_transformer_with_a_dense_layer(minilm, tmp_path, one_thread):
    sentences = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    body = modules.Transformer(minilm)
    width = body.get_embedding_dimension()
    parts = [body, modules.Pooling(width), modules.Dense(width, 16), modules.LayerNorm(16)]
    model = sentences.SentenceTransformer(modules=parts, device="cpu")
    texts = ["the cat sleeps", "two dogs bark"]
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    model.save(str(base))
    moved(model, 1).save(str(tuned))
    wanted = model.encode(texts)
    assert (
        np.abs(sentences.SentenceTransformer(str(base), device="cpu").encode(texts) - wanted).max()
        > 0.01
    )
    merge([base, tuned], tmp_path / "out", 1.0)
    assert same_weights(tmp_path / "out", tuned)
    again = sentences.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert (again.encode(texts) == wanted).all()
    names = [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert sorted(names) == ["1_Pooling", "2_Dense", "3_LayerNorm"]


def test_a_cross_encoder(tiny_bert, tmp_path, one_thread):
    sentences = pytest.importorskip("sentence_transformers")
    folder = Path(tiny_bert(kind=transformers.BertForSequenceClassification))
    model = sentences.CrossEncoder(str(folder), device="cpu")
    model.save_pretrained(str(tmp_path / "base"))
    moved(model, 1).save_pretrained(str(tmp_path / "tuned"))
    pairs = [("a cat", "a dog"), ("it rains", "the sun")]
    wanted = model.predict(pairs)
    merge([tmp_path / "base", tmp_path / "tuned"], tmp_path / "out", 1.0)
    again = sentences.CrossEncoder(str(tmp_path / "out"), device="cpu")
    assert (again.predict(pairs) == wanted).all()


# --- a trainer's folder ---


def test_a_folder_of_a_trainer(tiny_bert, tmp_path, one_thread):
    pytest.importorskip("accelerate")
    start = Path(tiny_bert(kind=transformers.BertForSequenceClassification))
    tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    rows = [{**tokenizer("a b"), "labels": 0}, {**tokenizer("c d"), "labels": 1}]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=1, save_steps=1, report_to=[], use_cpu=True
    )
    trainer = transformers.Trainer(
        model=transformers.BertForSequenceClassification.from_pretrained(start),
        args=arguments,
        train_dataset=rows,  # pyright: ignore[reportArgumentType]
        processing_class=tokenizer,
    )
    trainer.save_metrics("all", trainer.train().metrics)
    trainer.save_state()
    trainer.save_model()
    tuned = tmp_path / "run" / "checkpoint-1"
    left = {
        "optimizer.pt",
        "scheduler.pt",
        "trainer_state.json",
        "training_args.bin",
        "rng_state.pth",
    }
    assert left <= {path.name for path in tuned.iterdir()}
    assert {"all_results.json", "checkpoint-1"} <= {p.name for p in (tmp_path / "run").iterdir()}
    kept = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    for base in (tuned, tmp_path / "run"):
        output = tmp_path / f"from-{base.name}"
        report = merge([base, start], output, 0.5)
        assert report.warnings == []
        assert {p.name for p in output.iterdir()} == kept | {"README.md", "breadcrumbs.yaml"}
        transformers.AutoModelForSequenceClassification.from_pretrained(output)


# --- remote code ---


def test_remote_code_opens_from_the_output(tmp_path, one_thread):
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    code = {
        "configuration_toy.py": "from transformers import PretrainedConfig\n\n\n"
        "class ToyConfig(PretrainedConfig):\n    model_type = 'toy'\n",
        "layers.py": "from torch import nn\n\n\nLinear = nn.Linear\n",
        "modeling_toy.py": "from transformers import PreTrainedModel\n\n"
        "from .configuration_toy import ToyConfig\nfrom .layers import Linear\n\n\n"
        "class Toy(PreTrainedModel):\n    config_class = ToyConfig\n\n"
        "    def __init__(self, config):\n        super().__init__(config)\n"
        "        self.out = Linear(2, 2)\n        self.post_init()\n",
        "train.py": "raise SystemExit\n",
    }
    said = {"model_type": "toy", "auto_map": {"AutoConfig": "configuration_toy.ToyConfig"}}
    said["auto_map"] |= {"AutoModel": "modeling_toy.Toy"}
    for seed, folder in enumerate((base, tuned)):
        folder.mkdir()
        for name, text in code.items():
            (folder / name).write_text(text)
        (folder / "config.json").write_text(json.dumps(said))
        torch.manual_seed(seed)
        weights = {"out.weight": torch.randn(2, 2), "out.bias": torch.randn(2)}
        torch.save(weights, folder / "pytorch_model.bin")
    merge([base, tuned], tmp_path / "out", 1.0)
    assert not (tmp_path / "out" / "train.py").exists()
    model = transformers.AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert (model.out.weight == torch.load(tuned / "pytorch_model.bin")["out.weight"]).all()


# --- diffusers ---


def tiny_pipeline(folder: Path) -> Any:
    """Return a Stable Diffusion of some thousand weights, with a tokenizer of nine words."""
    import diffusers

    vocab = ["<|startoftext|>", "<|pad|>", "<|endoftext|>", "a</w>", "b</w>", "a", "b"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    words = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
    )
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    kinds |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    size = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    unet = diffusers.UNet2DConditionModel(
        sample_size=4, cross_attention_dim=8, attention_head_dim=4, **size, **kinds
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **size,
    )
    config = transformers.CLIPTextConfig(
        vocab_size=7, hidden_size=8, intermediate_size=8, num_attention_heads=2,
        num_hidden_layers=1, max_position_embeddings=16,
        bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        vae, transformers.CLIPTextModel(config), words, unet,
        diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        None, None, requires_safety_checker=False,
    )  # fmt: skip


def picture(folder: Path, **options: Any) -> np.ndarray:
    """Return what the pipeline in a folder draws in one step."""
    return drawn(opened_pipeline(folder, **options))


def opened_pipeline(folder: Path, **options: Any) -> Any:
    import diffusers

    options |= {"local_files_only": True, "low_cpu_mem_usage": False}
    return diffusers.DiffusionPipeline.from_pretrained(folder, **options)


def drawn(pipe: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(0)
    size = {"height": 8, "width": 8, "num_inference_steps": 1}
    return pipe("a b", generator=draw, output_type="np", **size).images


def test_a_pipeline_of_diffusers(tmp_path, one_thread):
    diffusers = pytest.importorskip("diffusers")
    diffusers.logging.set_verbosity_error()
    pipe = tiny_pipeline(tmp_path)
    base, first, second = paths = [tmp_path / name for name in ("base", "ft1", "ft2")]
    pipe.save_pretrained(base, max_shard_size="20KB")
    assert (base / "unet" / "diffusion_pytorch_model.safetensors.index.json").exists()
    for seed, path in enumerate(paths[1:], 1):
        for module in (pipe.unet, pipe.text_encoder):
            moved(module, seed)
        pipe.save_pretrained(path)
    shutil.rmtree(second)
    pipe.save_pretrained(second, variant="fp16", safe_serialization=True)
    pictures = [picture(path) for path in (base, first)]
    assert np.abs(pictures[0] - pictures[1]).max() > 0

    merge([base, first], tmp_path / "one", 1.0)
    assert same_weights(tmp_path / "one", first)
    assert (picture(tmp_path / "one") == pictures[1]).all()
    report = merge([base, first, second], tmp_path / "out", 0.5)
    assert report.parts["vae"] == 0 < min(report.parts["unet"], report.parts["text_encoder"])
    b, f, s, found = map(checkpoint.open, (*paths, tmp_path / "out"))
    for name in b:
        x, y, z = (m[name].astype(np.float64) for m in (b, f, s))
        step = 0.5 * ((y - x) + (z - x))
        assert np.allclose(found[name], x + step, rtol=1e-6, atol=1e-7), name
    assert np.isfinite(picture(tmp_path / "out")).all()

    tasks.pack(base, first, tmp_path / "t.safetensors", transform="none")
    tasks.unpack(base, [tmp_path / "t.safetensors"], tmp_path / "un")
    assert same_weights(tmp_path / "un", first)
    out = tmp_path / "variant"
    report = merge([second, base], out, 1.0)  # back to the base
    assert (out / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists()
    assert 'open the output with variant="fp16"' in " ".join(report.notes)
    assert np.allclose(picture(out, variant="fp16"), picture(base), atol=1e-5)

    alone = [path / "unet" for path in (base, first)]
    merge(alone, tmp_path / "unet", 1.0)
    kind = diffusers.UNet2DConditionModel
    loaded = kind.from_pretrained(tmp_path / "unet", low_cpu_mem_usage=False).state_dict()
    expected = kind.from_pretrained(first / "unet", low_cpu_mem_usage=False).state_dict()
    assert all((loaded[name] == expected[name]).all() for name in expected)


def test_adapters_of_a_pipeline_give_one_that_diffusers_loads(tmp_path, one_thread):
    diffusers = pytest.importorskip("diffusers")
    peft = pytest.importorskip("peft")
    diffusers.logging.set_verbosity_error()
    tiny_pipeline(tmp_path).save_pretrained(tmp_path / "base")
    for seed in (1, 2):  # of the U-Net: transformers takes no adapter by the newest PEFT
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            tmp_path / "base", low_cpu_mem_usage=False
        )
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "proj_in", "conv1"])
        pipe.unet.add_adapter(config)
        for name, weight in pipe.unet.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.3)
        given = peft.get_peft_model_state_dict(pipe.unet)
        pipe.save_lora_weights(tmp_path / str(seed), unet_lora_layers=given)
    paths = [tmp_path / "1", tmp_path / "2"]
    for number, method in enumerate([{"method": "average"}, {"method": "ties", "space": "core"}]):
        out = tmp_path / f"out{number}"
        lora = tmp_path / f"lora{number}"
        breadcrumbs.merge(tmp_path / "base", paths, output=out, **method)
        breadcrumbs.merge(tmp_path / "base", paths, output=lora, to="lora", **method)
        expected = picture(out)
        assert np.abs(expected - picture(tmp_path / "base")).max() > 1e-3
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            tmp_path / "base", low_cpu_mem_usage=False
        )
        pipe.load_lora_weights(lora)
        assert np.allclose(drawn(pipe), expected, atol=2e-5)
        assert "library_name: diffusers" in (lora / "README.md").read_text()
        again = breadcrumbs.merge(tmp_path / "base", [lora], method="average")
        for name, values in breadcrumbs.load(out).items():
            assert np.allclose(again[name], values, atol=1e-5), name
