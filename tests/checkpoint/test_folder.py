"""Folders and indexes: which file is taken, and one row for each way an index can lie."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from breadcrumbs.checkpoint import folder as reader
from breadcrumbs.checkpoint.folder import open_folder, parse_index, weight_files
from breadcrumbs.errors import CheckpointError


def write(path: Path, *names: str) -> Path:
    """Write a safetensors file of one small array for each of ``names``."""
    arrays = {name: np.full(2, ord(name[0]), np.float32) for name in names}
    safetensors.numpy.save_file(arrays, path)
    return path


def write_index(folder: Path, weight_map: object, stem: str = "model.safetensors") -> Path:
    path = folder / f"{stem}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Return a folder with tensors a, b in shard 1 and c in shard 2, and their index."""
    write(tmp_path / "model-1.safetensors", "a", "b")
    write(tmp_path / "model-2.safetensors", "c")
    one, two = "model-1.safetensors", "model-2.safetensors"
    write_index(tmp_path, {"c": two, "a": one, "b": one})
    return tmp_path


def test_shards_are_one_checkpoint_in_the_order_of_the_files(sharded):
    with open_folder(sharded) as checkpoint:
        assert list(checkpoint) == ["a", "b", "c"]
        assert checkpoint["c"].tolist() == [99, 99]
        assert checkpoint.folder == sharded and checkpoint.label == str(sharded)
        assert [file.name for file in checkpoint.files] == [
            "model-1.safetensors",
            "model-2.safetensors",
        ]
    with pytest.raises(ValueError, match="closed"):
        checkpoint["c"]


FILES = {
    # files in the folder, the one that is taken or what the message says
    "one file": (["model.safetensors", "config.json", "README.md"], "model.safetensors"),
    "file before index": (
        ["model.safetensors", "model.safetensors.index.json"],
        "model.safetensors",
    ),
    "index": (
        ["model.safetensors.index.json", "model-1.safetensors", "consolidated.safetensors"],
        "model.safetensors.index.json",
    ),
    "safetensors before pickles": (["pytorch_model.bin", "model.safetensors"], "model.safetensors"),
    "diffusion": (
        ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"],
        "diffusion_pytorch_model.safetensors",
    ),
    "diffusion index": (
        ["diffusion_pytorch_model.safetensors.index.json", "x.safetensors"],
        "diffusion_pytorch_model.safetensors.index.json",
    ),
    "the only other": (["vit.safetensors", "._vit.safetensors", "training.bin"], "vit.safetensors"),
    "the only other index": (
        ["m.safetensors.index.json", "m-1.safetensors", "m-2.safetensors"],
        "m.safetensors.index.json",
    ),
    "pickle": (["pytorch_model.bin", "training_args.bin"], "pytorch_model.bin"),
    "pickle index": (
        ["pytorch_model.bin.index.json", "pytorch_model-1.bin"],
        "pytorch_model.bin.index.json",
    ),
    "model beside adapter": (
        ["model.safetensors", "adapter_model.safetensors"],
        "model.safetensors",
    ),
    "pickle beside adapter": (
        ["pytorch_model.bin", "adapter_model.safetensors"],
        "pytorch_model.bin",
    ),
    "adapter": (
        ["adapter_model.safetensors", "adapter_config.json", "other.safetensors"],
        "is an adapter (adapter_model.safetensors)",
    ),
    "adapter pickle": (["adapter_model.bin", "adapter_config.json"], "is an adapter"),
    "several": (["a.safetensors", "b.safetensors"], "'a.safetensors', 'b.safetensors'"),
    "several indexes": (
        ["a.safetensors.index.json", "b.safetensors.index.json", "a-1.safetensors"],
        "'a.safetensors.index.json', 'b.safetensors.index.json'",
    ),
    "other formats": (["model.gguf", "tf_model.h5"], "Found 'model.gguf', 'tf_model.h5'"),
    "GGUF": (["config.json", "model.gguf"], "'model.gguf' is GGUF, mostly quantised weights"),
    "Flax": (["config.json", "flax_model.msgpack"], "'flax_model.msgpack' is weights of Flax"),
    "TensorFlow": (["model.ckpt.index", "model.ckpt.data-00000-of-00001"], "a TensorFlow checkp"),
    "DeepSpeed": (["mp_rank_00_model_states.pt", "zero_to_fp32.py"], "python zero_to_fp32.py ."),
    "distributed": (["__0_0.distcp", ".metadata"], "dcp_to_torch FOLDER"),
    "Lightning": (["last.ckpt", "hparams.yaml"], "last.ckpt"),
    "timm": (["model_best.pth.tar", "args.yaml"], "model_best.pth.tar"),
    "beside an optimizer": (["net.pt", "optimizer.pt", "rng_state_0.pth", "scaler.pt"], "net.pt"),
    "slices of Llama": (
        ["consolidated.00.pth", "consolidated.01.pth"],
        "one model in 2 files with a slice of each tensor",
    ),
    "slices as safetensors": (
        ["consolidated.00.safetensors", "consolidated.01.safetensors", "params.json"],
        "with a slice of each tensor",
    ),
    "one slice, which is the whole": (
        ["consolidated.00.pth", "params.json"],
        "consolidated.00.pth",
    ),
    "several of Lightning": (["a.ckpt", "last.ckpt"], "several checkpoints: 'a.ckpt', 'last.ckpt'"),
    "pickles of other things": (["optimizer.pt", "training_args.bin"], "holds no model.safeten"),
    "nothing": ([], "It has no files"),
    "weights given twice": (["consolidated.safetensors", "w.safetensors"], "w.safetensors"),
    "weights of Mistral's own names alone": (
        ["consolidated.safetensors", "params.json", "tekken.json"],
        "consolidated.safetensors",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_which_file_of_a_folder_is_taken(case):
    names, expected = FILES[case]
    if expected in names:
        assert weight_files(reversed(names), "here") == [expected]
    else:
        with pytest.raises(CheckpointError) as error:
            weight_files(names, "here")
        assert str(error.value).startswith("here: ") and expected in str(error.value)


def test_shards_beside_the_same_weights_in_one_file(tmp_path):
    """As Mistral gives them, of which the index was not downloaded."""
    for number, name in enumerate(("a", "b"), 1):
        path = tmp_path / f"model-0000{number}-of-00002.safetensors"
        safetensors.numpy.save_file({name: np.ones(2)}, path)
    safetensors.numpy.save_file({"layers.0": np.ones(4)}, tmp_path / "consolidated.safetensors")
    with open_folder(tmp_path) as opened:
        assert set(opened) == {"a", "b"}


def test_an_index_can_be_given_itself(sharded):
    with reader.open_file(sharded / "model.safetensors.index.json") as checkpoint:
        assert len(checkpoint) == 3 and checkpoint.folder == sharded


def test_shards_may_be_links_out_of_the_folder(sharded, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("blobs") / "abc123"
    (sharded / "model-2.safetensors").rename(elsewhere)
    try:
        os.symlink(elsewhere, sharded / "model-2.safetensors")
    except OSError:
        pytest.skip("no right to make links")
    with open_folder(sharded) as checkpoint:
        assert checkpoint["c"].tolist() == [99, 99]


ONE, TWO = "model-1.safetensors", "model-2.safetensors"
HONEST = {"a": ONE, "b": ONE, "c": TWO}
LIES = {
    "shard missing": (HONEST | {"d": "model-3.safetensors"}, "1 of 3 shards that are not there"),
    "tensor not in its shard": (HONEST | {"d": TWO}, f"puts tensor 'd' in {TWO}"),
    "tensor in another shard": (HONEST | {"b": TWO}, f"not there but in {ONE}"),
    "unlisted tensors": ({"a": ONE, "c": TWO}, f"does not list what {ONE} holds: 'b'"),
    "empty": ({}, "no 'weight_map'"),
    "not an object": ([ONE], "no 'weight_map'"),
    "shard not a string": (HONEST | {"a": 1}, "puts tensor 'a' in 1"),
    "parent": (HONEST | {"a": "../model-1.safetensors"}, "plain name"),
    "deeper": (HONEST | {"a": "sub/model-1.safetensors"}, "plain name"),
    "absolute": (HONEST | {"a": "/etc/model.safetensors"}, "plain name"),
    "backslash": (HONEST | {"a": "..\\model-1.safetensors"}, "plain name"),
    "deeper on Windows": (HONEST | {"a": "sub\\model-1.safetensors"}, "plain name"),
    "drive": (HONEST | {"a": "C:model-1.safetensors"}, "plain name"),
    "NUL": (HONEST | {"a": "model\0.safetensors"}, "plain name"),
    "surrogate": (HONEST | {"a": "\ud800.safetensors"}, "plain name"),
    "hidden": (HONEST | {"a": ".safetensors"}, "plain name"),
    "folder": (HONEST | {"a": ".."}, "plain name"),
    "nothing": (HONEST | {"a": ""}, "plain name"),
    "another format": (HONEST | {"a": "pytorch_model.bin"}, "plain name of a .safetensors file"),
    "itself": (HONEST | {"a": "model.safetensors.index.json"}, "plain name"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_refused(sharded, lie):
    weight_map, says = LIES[lie]
    write_index(sharded, weight_map)
    with pytest.raises(CheckpointError) as error:
        open_folder(sharded)
    assert says in str(error.value)
    assert str(error.value).startswith(str(sharded / "model.safetensors.index.json"))
    assert str(error.value).isprintable()


def test_a_tensor_in_two_shards_is_refused(sharded):
    write(sharded / TWO, "b", "c")
    with pytest.raises(CheckpointError, match=f"tensor 'b' is in {ONE} and in {TWO}"):
        open_folder(sharded)


def test_a_tensor_listed_twice_is_refused(sharded):
    text = f'{{"weight_map": {{"a": "{ONE}", "b": "{ONE}", "c": "{TWO}", "a": "{TWO}"}}}}'
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="'a' twice"):
        open_folder(sharded)


def test_a_broken_shard_is_named_and_the_others_are_closed(sharded, recwarn):
    (sharded / TWO).write_bytes(b"\1\2\3\4\5")
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors: has 5 bytes"):
        open_folder(sharded)
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


def test_an_index_that_is_too_large_is_not_read(sharded, monkeypatch):
    os.truncate(sharded / "model.safetensors.index.json", reader.MAX_JSON + 1)
    monkeypatch.setattr(reader, "parse_index", lambda *_: pytest.fail("was read"))
    with pytest.raises(CheckpointError, match=f"more than the {reader.MAX_JSON}"):
        open_folder(sharded)


def test_a_model_without_tensors_is_refused(tmp_path):
    safetensors.numpy.save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        open_folder(tmp_path)


def test_many_models_may_be_open_at_once(sharded):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, limits[1]))
    checkpoints = []
    try:
        checkpoints.extend(open_folder(sharded) for _ in range(100))
        assert {checkpoint["c"][0] for checkpoint in checkpoints} == {99}
    finally:
        for checkpoint in checkpoints:
            checkpoint.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
SHARD = st.text() | st.sampled_from([ONE, "../" + ONE, "/" + ONE, "con.safetensors"])


def check(text: bytes) -> None:
    """Read the index ``text``; it is refused, or every shard lies in the folder itself."""
    try:
        weight_map = parse_index(text, "model.safetensors", "x")
    except CheckpointError as error:
        assert "\n" not in str(error)
        return
    for name, shard in weight_map.items():
        assert isinstance(name, str)
        assert (Path("here") / shard).parent == Path("here")
        assert os.path.normpath(os.path.join("here", shard)) == os.path.join("here", shard)
        assert shard.endswith(".safetensors")


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_fuzz_index(text):
    check(text)


@given(st.dictionaries(st.text(), SHARD | SHARD.map(lambda text: text + ".safetensors") | JSON))
@settings(max_examples=50)
def test_fuzz_weight_map(weight_map):
    check(json.dumps({"weight_map": weight_map}).encode())


@given(st.data())
@settings(max_examples=200)
def test_fuzz_changes_of_a_valid_index(data):
    text = bytearray(json.dumps({"metadata": {}, "weight_map": HONEST}).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 8)))
        text[start:stop] = data.draw(st.binary(max_size=4) | st.sampled_from([b"../", b"\\\\"]))
    check(bytes(text))


SHARDS = {
    "safetensors": ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
    "another stem": ["x.fp16-1-of-2.safetensors", "x.fp16-2-of-2.safetensors"],
    "from 0": ["model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"],
    "uneven digits": ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"],
    "pickles": ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
    "underlines": ["net_1_of_2.pt", "net_2_of_2.pt"],
}


@pytest.mark.parametrize("case", SHARDS)
def test_shards_without_an_index_are_read_together(tmp_path, case):
    one, two = SHARDS[case]
    arrays = {"a": np.ones(2, np.float32)}, {"b": np.full(3, 7, np.float32)}
    for name, mine in zip((one, two), arrays, strict=True):
        if name.endswith(".safetensors"):
            safetensors.numpy.save_file(mine, tmp_path / name)
        else:
            torch = pytest.importorskip("torch")
            torch.save({k: torch.from_numpy(v) for k, v in mine.items()}, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    with open_folder(tmp_path) as checkpoint:
        assert checkpoint.keys() == {"a", "b"} and checkpoint["b"].tolist() == [7] * 3
        assert checkpoint.folder == tmp_path and checkpoint.label == str(tmp_path)
        assert [file.name for file in checkpoint.files] == [one, two]
        assert checkpoint.notes == ("there is no index, so its 2 shards are read by their names",)
    (tmp_path / one).unlink()
    with pytest.raises(CheckpointError) as error:
        open_folder(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: has 1 of 2 shards, and no index. Missing:"
        f" '{one if case != 'from 0' else 'model-00002-of-00002.safetensors'}'. Download or copy"
        " them, and the index."
    )


def test_of_several_sets_of_shards_the_plain_one_is_taken(tmp_path):
    def named(stem: str) -> list[str]:
        return [f"{stem}-0000{i}-of-00002.safetensors" for i in (1, 2)]

    assert weight_files([*named("model.fp16"), *named("model")], "here") == named("model")
    with pytest.raises(CheckpointError, match="of 2 models without an index"):
        weight_files([*named("a"), *named("b")], "here")
    with pytest.raises(CheckpointError, match="several models or shards without an index"):
        weight_files([*named("model"), "other.safetensors"], "here")
    three = [name.replace("of-00002", "of-00003") for name in named("model")]
    with pytest.raises(CheckpointError, match=r"Missing: 'model-00003-of-00003\.safetensors'"):
        weight_files(three, "here")
    lost = [f"model-{i:05}-of-00400.safetensors" for i in range(1, 3)]
    with pytest.raises(CheckpointError, match=r"has 2 of 400 shards.* and 393 more"):
        weight_files(lost, "here")


def test_shards_of_different_models_are_refused(tmp_path):
    for i in (1, 2):
        safetensors.numpy.save_file({"w": np.ones(1)}, tmp_path / f"m-{i}-of-2.safetensors")
    with pytest.raises(CheckpointError, match=r"'w' is in m-1-of-2\..* and in m-2-of-2\."):
        open_folder(tmp_path)


def weights_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    safetensors.numpy.save_file({"w": np.ones(1)}, folder / "model.safetensors")
    return folder


def says(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        open_folder(folder)
    assert str(error.value).isprintable() and str(error.value).startswith(f"{folder}: ")
    return str(error.value)


def test_the_cache_folder_of_a_hub_is_called_what_it_is(tmp_path):
    cache = tmp_path / "models--org--name"
    one = weights_in(cache / "snapshots" / "aaa")
    assert "is a hub's cache folder of org/name, with 1 snapshot. Give" in says(cache)
    assert str(one) in says(cache) and str(one) in says(tmp_path / "models--org--name")
    two = weights_in(cache / "snapshots" / "bbb")
    assert "with 2 snapshots" in says(cache) and f"{two} or another" in says(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("aaa\n")
    assert f"Give {one}, its main branch." in says(cache)
    assert str(one) in says(cache / "snapshots")
    assert "the cache of a hub, with 1 model: 'org/name'" in says(tmp_path)
    with open_folder(one) as checkpoint:
        assert len(checkpoint) == 1
    (cache / "refs" / "main").write_text("gone")
    assert f"{two} or another" in says(cache)


def test_a_cache_folder_without_a_snapshot(tmp_path):
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    assert "without a snapshot. Download" in says(tmp_path / "models--a--b")


def test_a_training_run_says_which_checkpoints_there_are(tmp_path):
    for step in (1000, 500, 20):
        weights_in(tmp_path / f"checkpoint-{step}")
    (tmp_path / "runs").mkdir()
    (tmp_path / "trainer_state.json").write_text("{}")
    text = says(tmp_path)
    assert (
        "3 checkpoints of a training: 'checkpoint-20', 'checkpoint-500', 'checkpoint-1000'" in text
    )
    assert text.endswith(f"such as {tmp_path / 'checkpoint-1000'}")
    weights_in(tmp_path / "top")
    (tmp_path / "top" / "model.safetensors").rename(tmp_path / "model.safetensors")
    with open_folder(tmp_path) as checkpoint:  # the training's last word
        assert checkpoint["w"].tolist() == [1]


def test_a_training_run_whose_checkpoints_hold_nothing(tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    assert "nor do the checkpoints in it: 'checkpoint-5'" in says(tmp_path)


def test_a_folder_of_folders_names_those_with_weights(tmp_path):
    for name in ("vae", "unet"):
        weights_in(tmp_path / name)
    (tmp_path / "scheduler").mkdir()
    assert "they lie in folders in it: 'unet', 'vae'" in says(tmp_path)
