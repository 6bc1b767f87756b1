"""Models whose weights lie in several folders: pipelines and models of modules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import checkpoint, tasks
from breadcrumbs.archives import extract
from breadcrumbs.checkpoint import composite, layout
from breadcrumbs.checkpoint.layout import Layout, Place
from breadcrumbs.cli.group import main
from breadcrumbs.cli.inspection import inspect
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, MismatchError, OutputError
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.store import Store
from breadcrumbs.tune import soup

Arrays = dict[str, np.ndarray]
DIFFUSION = "diffusion_pytorch_model.safetensors"
PIPELINE = {
    "_class_name": "SomePipeline",
    "_diffusers_version": "0.30",
    "requires_safety_checker": True,
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
}


def arrays(seed: int, **shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def moved(given: Arrays, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        k: v + np.float32(0.1) * rng.standard_normal(v.shape, np.float32) for k, v in given.items()
    }


def put(path: Path, tensors: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"format": "pt"})


def text(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))


#: Of a pipeline, by the name of the weights. The VAE is never trained.
PARTS = {
    f"unet/{DIFFUSION}": arrays(1, a=(6, 5), b=(7,)),
    f"vae/{DIFFUSION}": arrays(2, a=(4, 4)),
    "text_encoder/model.safetensors": arrays(3, a=(3, 3)),
    "text_encoder_2/model.fp16.safetensors": arrays(4, a=(2, 3)),
}


def pipeline(folder: Path, seed: int = 0) -> Path:
    for number, (name, tensors) in enumerate(PARTS.items()):
        tuned = seed and not name.startswith("vae")
        put(folder / name, moved(tensors, 10 * seed + number) if tuned else tensors)
        text(folder / Path(name).parent / "config.json", {"torch_dtype": "float32"})
    text(folder / "model_index.json", PIPELINE)
    text(folder / "scheduler" / "scheduler_config.json", {"steps": 1})
    text(folder / "tokenizer" / "vocab.json", {"a": seed})
    put(folder / "whole_pipeline.safetensors", arrays(9, x=(2,)))  # in one file, as some have it
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"another format")
    text(folder / "unet" / "trainer_state.json", {})
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [pipeline(tmp_path / name, seed) for seed, name in enumerate(("base", "ft1", "ft2"))]


def merge(models: list[Path], output: Path, **options: Any) -> Any:
    recipe = Recipe(
        str(models[0]),
        tuple(Model(str(model)) for model in models[1:]),
        **{"method": "task_arithmetic", "parameters": {"alpha": 0.5}, **options.pop("recipe", {})},
    )
    with opening.opened(recipe) as plan:
        return merging_files.to_files(plan, output, kernel="numpy", threads=2, **options)


def wanted(models: list[Path], name: str, alpha: float = 0.5) -> Arrays:
    base, *tuned = (load_file(model / name) for model in models)
    return {
        key: (
            value + alpha * sum((t[key].astype(np.float64) - value for t in tuned), np.zeros(()))
        ).astype(np.float32)
        for key, value in base.items()
    }


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


WRITTEN = {
    *("README.md", "breadcrumbs.yaml", "model_index.json", "scheduler/scheduler_config.json"),
    *("tokenizer/vocab.json", f"unet/{DIFFUSION}", "unet/config.json", f"vae/{DIFFUSION}"),
    *("vae/config.json", "text_encoder/model.safetensors", "text_encoder/config.json"),
    *("text_encoder_2/model.fp16.safetensors", "text_encoder_2/config.json"),
}


def same(found: Arrays, expected: Arrays) -> bool:
    assert found.keys() == expected.keys()
    return all((found[key] == value).all() for key, value in expected.items())


def check(models: list[Path], output: Path, alpha: float = 0.5) -> None:
    assert files(output) == WRITTEN
    for name in PARTS:
        found = load_file(output / name)
        assert same(found, wanted(models, name, alpha)), name
    assert json.loads((output / "tokenizer/vocab.json").read_text()) == {"a": 0}


# --- merging ---


def test_a_pipeline_is_merged_part_by_part(models, tmp_path):
    report = merge(models, tmp_path / "out")
    check(models, tmp_path / "out")
    assert report.copied == {"unchanged": 1} and report.merged == 4
    assert report.parts["vae"] == 0 < report.parts["unet"]
    assert np.isclose(sum(norm**2 for norm in report.parts.values()), report.norm**2)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: diffusers" in card and "as in the base: vae" in card
    found = inspect(str(tmp_path / "out"))
    assert {file["file"] for file in found["files"]} == {
        name for name in WRITTEN if name.endswith(".safetensors")
    }
    for source in found["merged_from"]["inputs"]:
        assert {file["file"] for file in source["files"]} == set(PARTS)
        assert all(len(file["blake3"]) == 64 and file["blake3"] in card for file in source["files"])
    with safe_open(tmp_path / "out" / "unet" / DIFFUSION, "np") as file:
        assert set(file.keys()) == {"a", "b"}
        assert file.metadata()["format"] == "pt"


def test_in_memory_and_with_globs(models):
    found = breadcrumbs.merge(
        models[0],
        models[1:],
        method="task_arithmetic",
        alpha=0.5,
        exclude=["text_encoder/*"],
        overrides=[{"tensors": "unet/a", "alpha": 0.0}],
    )
    unet = wanted(models, f"unet/{DIFFUSION}")
    kept = load_file(models[0] / "unet" / DIFFUSION)
    assert (found["unet/b"] == unet["b"]).all() and (found["unet/a"] == kept["a"]).all()
    assert (found["text_encoder/a"] == PARTS["text_encoder/model.safetensors"]["a"]).all()
    assert list(found) == ["text_encoder/a", "text_encoder_2/a", "unet/a", "unet/b", "vae/a"]


def test_shards_and_indexes_are_of_each_part(models, tmp_path):
    merge(models, tmp_path / "out", shard_size=130)
    unet = tmp_path / "out" / "unet"
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert {path.name for path in unet.iterdir()} == {
        *shards,
        DIFFUSION + ".index.json",
        "config.json",
    }
    index = json.loads((unet / (DIFFUSION + ".index.json")).read_text())
    assert index["weight_map"] == {"a": shards[0], "b": shards[1]}
    assert index["metadata"]["total_size"] == 4 * 37
    again = merge([tmp_path / "out", *models[1:]], tmp_path / "again")
    assert again.tensors == 5
    for model in models[1:]:  # sharded like the base or not
        assert (
            composite.same_parts(checkpoint.open(tmp_path / "out"), [checkpoint.open(model)]) == []
        )
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    both = [checkpoint.open(tmp_path / name) for name in ("out", "copy")]
    assert set(composite.same_parts(both[0], both[1:])) == {
        *("unet", "vae", "text_encoder", "text_encoder_2")
    }


def test_dtype_reaches_every_part(models, tmp_path):
    merge(models, tmp_path / "out", recipe={"dtype": "bfloat16"})
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        said = json.loads((tmp_path / "out" / part / "config.json").read_text())
        assert said == {"torch_dtype": "bfloat16"}
    assert {t["dtype"] for t in inspect(str(tmp_path / "out"))["tensors"]} == {"BF16"}


def test_resume_and_force(models, tmp_path):
    class Stop(Exception):
        pass

    def stop(nbytes: int) -> None:
        raise Stop

    output = tmp_path / "out"
    with pytest.raises(Stop):
        merge(models, output, progress=stop)
    assert (tmp_path / "out.partial" / "unet" / DIFFUSION).exists() and not output.exists()
    merge(models, output, resume=True)
    check(models, output)
    with pytest.raises(OutputError, match="exists"):
        merge(models, output)
    merge(models, output, force=True, recipe={"parameters": {"alpha": 1.0}})
    check(models, output, 1.0)
    for name in ("unet/notes", "mine", "tokenizer/notes.md"):
        (output / name).mkdir() if "." not in name else (output / name).write_text("mine")
        with pytest.raises(OutputError, match=f"holds {name!r}, so --force does not replace it"):
            merge(models, output, force=True)
        (output / name).rmdir() if "." not in name else (output / name).unlink()
    with pytest.raises(OutputError, match="no model of ours"):
        (output / "breadcrumbs.yaml").unlink()
        merge(models, output, force=True)


def test_the_command_line_says_what_the_parts_are(models, tmp_path):
    run = CliRunner()
    paths = [str(model) for model in models]
    done = run.invoke(main, ["merge", *paths, "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["parts"] == {
        **{"unet": 2, "vae": 1, "text_encoder": 1, "text_encoder_2": 1},
    }
    assert "2 in unet" in run.invoke(main, ["merge", *paths, "--dry-run"]).output
    done = run.invoke(main, ["merge", *paths, "-o", str(tmp_path / "out"), "-m", "average"])
    assert done.exit_code == 0 and "as in the base: vae" in done.output


def test_one_part_alone_keeps_its_name(models, tmp_path):
    merge([model / "unet" for model in models], tmp_path / "unet")
    assert same(load_file(tmp_path / "unet" / DIFFUSION), wanted(models, f"unet/{DIFFUSION}"))
    merge([model / "text_encoder_2" for model in models], tmp_path / "te2")
    assert files(tmp_path / "te2") == {
        *("README.md", "breadcrumbs.yaml", "model.fp16.safetensors", "config.json")
    }


def test_the_tokenizers_of_a_pipeline_are_taken(models, tmp_path):
    merge(models, tmp_path / "out", recipe={"tokenizer": f"{models[1]}/"})
    assert json.loads((tmp_path / "out" / "tokenizer" / "vocab.json").read_text()) == {"a": 1}
    assert files(tmp_path / "out") == WRITTEN


# --- tasks, stores, archives, soups ---


def test_tasks_of_a_pipeline(models, tmp_path):
    paths = [tmp_path / f"{model.name}.safetensors" for model in models[1:]]
    for model, path in zip(models[1:], paths, strict=True):
        tasks.pack(models[0], model, path, transform="none")
    tasks.unpack(models[0], paths[:1], tmp_path / "un")
    assert files(tmp_path / "un") == WRITTEN - {"README.md", "breadcrumbs.yaml"}
    for name in PARTS:
        assert same(load_file(tmp_path / "un" / name), load_file(models[1] / name))
    tasks.unpack(models[0], paths[:1], tmp_path / "un", force=True)
    report = merge([models[0], *paths], tmp_path / "out")
    check(models, tmp_path / "out")
    assert report.copied == {"unchanged": 1}, "what no task keeps anything of"
    assert report.emptied == []


def test_a_store_of_pipelines(models, tmp_path):
    settings = {"method": "task_arithmetic", "alpha": 0.5}
    with Store.create(tmp_path / "store", models[0], **settings) as store:
        for model in models[1:]:
            store.add(model.name, model)
        store.merge(tmp_path / "out")
    check(models, tmp_path / "out")


def test_archives_of_pipelines(models, tmp_path):
    breadcrumbs.compress(models[0], models[1:], tmp_path / "archive.safetensors")
    extract(tmp_path / "archive.safetensors", "ft1", tmp_path / "out")
    assert files(tmp_path / "out") == WRITTEN - {"breadcrumbs.yaml"}


def test_a_soup_of_pipelines(models, tmp_path):
    def score(candidate: Any) -> float:
        assert (Path(candidate) / "model_index.json").exists()
        return float(load_file(Path(candidate) / "unet" / DIFFUSION)["a"].sum())

    found = soup.greedy_soup(models[0], models[1:], score, output=tmp_path / "out")
    assert found.chosen and files(tmp_path / "out") == WRITTEN


def test_compare_sees_all_parts(models):
    whole = breadcrumbs.TaskVector(models[0], models[1])
    found = breadcrumbs.compare(models[0], models[1:]).to_mapping()
    assert np.isclose(found["models"][0]["norm"], whole.norm())
    assert whole.keys() >= {"unet/a", "vae/a"} and not whole["vae/a"].any()


# --- what does not fit ---


def refused(
    models: list[Path], output: Path, kind: type[BreadcrumbsError], says: str, **how: Any
) -> None:
    with pytest.raises(kind) as error:
        merge(models, output, **how)
    assert says in str(error.value) and "\n" not in str(error.value), str(error.value)
    assert not output.exists()


def test_parts_that_lack(models, tmp_path):
    out = tmp_path / "out"
    shutil.rmtree(models[1] / "text_encoder_2")
    refused(models, out, CheckpointError, "ft1: model_index.json names the part 'text_encoder_2'")
    said = PIPELINE | {"text_encoder_2": [None, None]}
    text(models[1] / "model_index.json", said)
    refused(models, out, MismatchError, "ft1: has no weights in 'text_encoder_2'")
    merge(models, out, recipe={"missing": "base"})
    base, second = (
        load_file(m / "text_encoder_2/model.fp16.safetensors") for m in (models[0], models[2])
    )
    found = load_file(out / "text_encoder_2/model.fp16.safetensors")["a"]
    assert (found == (base["a"] + 0.5 * (second["a"].astype(float) - base["a"])).astype("f4")).all()
    shutil.rmtree(models[0] / "text_encoder_2")
    text(models[0] / "model_index.json", said)
    refused(models, tmp_path / "o", MismatchError, "ft2: has weights in 'text_encoder_2', where")
    merge(models, tmp_path / "o", recipe={"extra": "ignore"})
    assert files(tmp_path / "o") == {n for n in WRITTEN if not n.startswith("text_encoder_2")}


def test_a_part_and_a_whole(models, tmp_path):
    out = tmp_path / "out"
    says = "ft1/unet: is one part (unet), and"
    refused([models[0], models[1] / "unet"], out, MismatchError, says)
    says = f"breadcrumbs merge {models[0]}/unet {models[1]}/unet -o unet"
    refused([models[0], models[1] / "unet"], out, MismatchError, says)
    says = f"Give {models[1]}/unet."
    refused([models[0] / "unet", models[1]], out, MismatchError, says)
    refused(models, tmp_path / "out.safetensors", OutputError, "is one file, and the model has")
    refused([models[0] / "vae", models[1] / "unet"], out, MismatchError, "ft1/unet")


def test_parts_that_cannot_be_read(models, tmp_path):
    out = tmp_path / "out"
    (models[0] / "vae" / DIFFUSION).rename(models[0] / "vae" / "model.onnx")
    refused(models, out, CheckpointError, "vae: holds 'model.onnx', and no .safetensors or .bin")
    text(models[0] / "model_index.json", "{")
    refused(models, out, CheckpointError, "model_index.json: cannot be read")


def test_layers_of_a_pipeline_are_not_stacked(models):
    with pytest.raises(CheckpointError, match="is a model of several parts"):
        checkpoint.open(f"{models[0]}[0:1] + {models[1]}[0:1]")


# --- modules ---


def modules(
    folder: Path, seed: int, dense: str = "2_Dense/model.safetensors", root: str = ""
) -> Path:
    body = arrays(1, **{"encoder.w": (4, 4)})
    put(folder / root / "model.safetensors", moved(body, seed) if seed else body)
    head = arrays(2, **{"linear.weight": (2, 4), "linear.bias": (2,)})
    head = moved(head, seed) if seed else head
    if dense.endswith(".bin"):
        torch = pytest.importorskip("torch")
        (folder / dense).parent.mkdir(parents=True)
        torch.save({k: torch.from_numpy(v) for k, v in head.items()}, folder / dense)
    else:
        put(folder / dense, head)
    names = [root, "1_Pooling", dense.split("/")[0], "3_LayerNorm"]
    put(
        folder / "3_LayerNorm" / "model.safetensors",
        moved(arrays(5, **{"norm.weight": (2,)}), seed),
    )
    text(folder / "modules.json", [{"path": name, "type": "T"} for name in names])
    text(folder / "1_Pooling" / "config.json", {})
    text(folder / root / "config.json", {})
    return folder


@pytest.mark.parametrize("root", ["", "0_Transformer"])
@pytest.mark.parametrize("dense", ["2_Dense/model.safetensors", "2_Dense/pytorch_model.bin"])
def test_modules_are_merged(tmp_path, dense, root):
    base, tuned = (modules(tmp_path / name, seed, dense, root) for seed, name in enumerate("ab"))
    merge([base, tuned], tmp_path / "out", recipe={"parameters": {"alpha": 1.0}})
    with checkpoint.open(tuned) as expected, checkpoint.open(tmp_path / "out") as found:
        assert same(dict(found), dict(expected))
    assert {
        name for name in files(tmp_path / "out") if "/" in name or name.endswith("safetensors")
    } == {
        *("2_Dense/model.safetensors", "3_LayerNorm/model.safetensors", "1_Pooling/config.json"),
        *(["0_Transformer/config.json"] if root else []),
        f"{root}/model.safetensors" if root else "model.safetensors",
    }
    tasks.pack(base, tuned, tmp_path / "t.safetensors", transform="none")
    tasks.unpack(base, [tmp_path / "t.safetensors"], tmp_path / "un")
    assert same(
        load_file(tmp_path / "un/2_Dense/model.safetensors"),
        load_file(tmp_path / "out/2_Dense/model.safetensors"),
    )


def test_a_model_without_the_module(tmp_path):
    base, tuned = (modules(tmp_path / name, seed) for seed, name in enumerate("ab"))
    (tuned / "modules.json").unlink()
    says = "b: has no weights in '2_Dense', '3_LayerNorm'"
    refused([base, tuned], tmp_path / "out", MismatchError, says)
    merge([base, tuned], tmp_path / "out", recipe={"missing": "base"})
    dense = load_file(tmp_path / "out/2_Dense/model.safetensors")
    assert same(dense, load_file(base / "2_Dense/model.safetensors"))


def test_a_tensor_called_like_one_of_a_module(tmp_path):
    base = modules(tmp_path / "a", 0)
    put(base / "model.safetensors", arrays(1, **{"2_Dense/linear.weight": (4, 4)}))
    with pytest.raises(CheckpointError, match="called like one of the part '2_Dense'"):
        checkpoint.open(base)


# --- weights besides ---


def test_weights_that_are_not_merged_are_named(tmp_path):
    paths = []
    for seed, name in enumerate(("base", "ft")):
        put(tmp_path / name / "model.safetensors", arrays(seed, w=(2,)))
        (tmp_path / name / "colbert_linear.pt").write_bytes(name.encode())
        (tmp_path / name / "model_head.pkl").write_bytes(b"same")
        (tmp_path / name / "optimizer.pt").write_bytes(name.encode())
        put(tmp_path / name / "speech" / "model.safetensors", arrays(seed, w=(2,)))
        text(tmp_path / name / "speech" / "config.json", {})
        for leftover in ("checkpoint-500", "onnx"):
            shutil.copytree(tmp_path / name / "speech", tmp_path / name / leftover)
        paths.append(tmp_path / name)
    report = merge(paths, tmp_path / "out")
    (first, second) = report.warnings
    assert "'colbert_linear.pt' may be weights too" in first and "model_head" not in first
    assert "'speech' holds weights, and no list of the model names it" in second
    assert "merge it by itself" in second
    assert files(tmp_path / "out") == {
        *(
            "README.md",
            "breadcrumbs.yaml",
            "model.safetensors",
            "model_head.pkl",
            "colbert_linear.pt",
        )
    }
    assert (tmp_path / "out" / "colbert_linear.pt").read_bytes() == b"base"


# --- names of files ---


def variant_folders(tmp_path: Path, *names: str) -> list[Path]:
    """Return a base and a fine-tuning whose arrays are in each of some files."""
    paths = [tmp_path / "base", tmp_path / "ft"]
    for seed, path in enumerate(paths):
        for extra, name in enumerate(names):
            put(path / name, arrays(seed + 10 * extra, w=(2, 3), v=(3,)))
    return paths


def test_a_variant_stays_in_the_names_of_files_and_index(tmp_path):
    paths = variant_folders(tmp_path, "model.fp16.safetensors")
    report = merge(paths, tmp_path / "out", shard_size=30)
    weights = {name for name in files(tmp_path / "out") if "model." in name}
    shards = {f"model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert weights == {*shards, "model.safetensors.index.fp16.json"}
    assert 'open the output with variant="fp16"' in " ".join(report.notes)
    again = merge([tmp_path / "out", paths[1]], tmp_path / "again", recipe={"dtype": "bfloat16"})
    assert (tmp_path / "again" / "model.safetensors").exists()
    assert "without it" in " ".join(again.notes)
    assert "no index" not in " ".join(again.notes)
    merge(paths, tmp_path / "out", shard_size=30, force=True)  # it is known as ours
    assert CliRunner().invoke(main, ["inspect", "--verify", str(tmp_path / "out")]).exit_code == 0
    other = tmp_path / "again" / "model.safetensors"
    shutil.copy(other, tmp_path / "out" / "model.fp16-00001-of-00002.safetensors")
    assert CliRunner().invoke(main, ["inspect", "--verify", str(tmp_path / "out")]).exit_code == 1


@pytest.mark.parametrize(
    ("variant", "dtype", "kept"),
    [("fp16", "float16", True), ("fp32", "float16", False), ("non_ema", "float16", True)],
)
def test_a_variant_goes_where_it_says_another_dtype(tmp_path, variant, dtype, kept):
    paths = variant_folders(tmp_path, f"diffusion_pytorch_model.{variant}.safetensors")
    merge(paths, tmp_path / "out", recipe={"dtype": dtype})
    name = f"diffusion_pytorch_model.{variant}" if kept else "diffusion_pytorch_model"
    assert (tmp_path / "out" / f"{name}.safetensors").exists()


@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model", "open_clip_model"])
def test_the_plain_weights_are_read_beside_variants(tmp_path, stem):
    names = [f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{stem}.non_ema.safetensors"]
    paths = variant_folders(tmp_path, *names)
    report = merge(paths, tmp_path / "out")
    assert {n for n in files(tmp_path / "out") if n.endswith(".safetensors")} == {names[0]}
    with checkpoint.open(paths[0]) as found:
        assert np.array_equal(found["w"], arrays(0, w=(2, 3))["w"])
    assert sum("variants are left out: fp16, non_ema" in note for note in report.notes) == 2
    (paths[0] / names[0]).unlink()
    with pytest.raises(CheckpointError, match="several models"):
        checkpoint.open(paths[0])


@pytest.mark.parametrize(
    "index", ["model.safetensors.index.bf16.json", "model.safetensors.bf16.index.json"]
)
def test_the_index_of_a_variant_is_read(tmp_path, index):
    shards = [f"model.bf16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard, name in zip(shards, "wv", strict=True):
        put(tmp_path / "m" / shard, arrays(0, **{name: (2, 3)}))
    text = json.dumps({"weight_map": {"w": shards[0], "v": shards[1]}})
    (tmp_path / "m" / index).write_text(text)
    with checkpoint.open(tmp_path / "m") as found:
        assert set(found) == {"w", "v"} and not found.notes
    (tmp_path / "m" / index).write_text(text.replace('"v"', '"u"'))
    with pytest.raises(CheckpointError, match="does not list"):
        checkpoint.open(tmp_path / "m")


STEMS = [
    (["model.safetensors"], "model"),
    (["model.fp16.safetensors"], "model.fp16"),
    (["pytorch_model.bf16.bin"], "model.bf16"),
    ([f"model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)], "model.fp16"),
    ([f"model-0000{i}-of-00002.fp16.safetensors" for i in (1, 2)], "model.fp16"),
    (["pytorch_model.bin"], "model"),
    (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"], "model"),
    (["diffusion_pytorch_model.safetensors"], "diffusion_pytorch_model"),
    (["diffusion_pytorch_model.bin"], "diffusion_pytorch_model"),
    (["diffusion_pytorch_model.non_ema.safetensors"], "diffusion_pytorch_model.non_ema"),
    (["diffusion_pytorch_model-00001-of-00003.safetensors"], "diffusion_pytorch_model"),
    (["open_clip_model.safetensors"], "open_clip_model"),
    (["open_clip_pytorch_model.bin"], "open_clip_model"),
    (["adapter_model.safetensors"], "adapter_model"),
    (["consolidated.safetensors"], "consolidated"),
    (["weights.v2.safetensors"], "weights.v2"),
    (["part-a.safetensors", "part-b.safetensors"], "model"),
    (["checkpoint.pt"], "model"),
    ([], "model"),
]


@pytest.mark.parametrize(("names", "stem"), STEMS)
def test_what_the_weights_of_an_output_are_called(names, stem):
    found = layout.place("", names)
    assert found.file() == f"{stem}.safetensors"
    known = found.stem if found.stem in layout.KNOWN.values() else "model"
    assert layout.place("", names, in_folder=False) == layout.Place("", known)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "weights.safetensors"])
def test_the_output_is_called_as_the_base(tmp_path, name):
    paths = [tmp_path / "base", tmp_path / "ft"]
    for seed, path in enumerate(paths):
        put(path / name, arrays(seed, w=(2, 3), v=(3,)))
    merge(paths, tmp_path / "out", shard_size=20)
    stem = name.removesuffix(".safetensors")
    assert f"{name}.index.json" in files(tmp_path / "out")
    assert f"{stem}-00001-of-00002.safetensors" in files(tmp_path / "out")
    merge([tmp_path / "out", paths[1]], tmp_path / "again", force=True)
    assert (tmp_path / "again" / name).exists()
    merge([path / name for path in paths], tmp_path / "files")
    own = name if stem == "open_clip_model" else "model.safetensors"
    assert (tmp_path / "files" / own).exists()


def test_names_are_split_by_the_innermost_folder():
    found = composite._inner_first([Place(""), Place("a"), Place("a/b"), Place("c")])
    it = Layout(found)
    assert [it.split(name)[0].folder for name in ("a/b/x", "a/x", "c/x", "x", "d/x", "ab/x")] == [
        *("a/b", "a", "c", "", "", ""),
    ]
