"""What lies beside weights: which files, and one row for each way a `modules.json` can lie."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breadcrumbs.checkpoint import beside
from breadcrumbs.errors import CheckpointError


def names(tmp_path: Path, modules: object) -> list[str]:
    """Return the module names in a `modules.json` of this content: bytes, or what is dumped."""
    text = modules if isinstance(modules, bytes) else json.dumps(modules).encode()
    (tmp_path / "modules.json").write_bytes(text)
    return beside.module_names(tmp_path / "modules.json")


def test_the_modules_of_a_sentence_transformer(tmp_path):
    paths = ["", "1_Pooling", "2_Normalize", "3_Dense", "1_Pooling"]
    modules = [{"idx": i, "name": str(i), "path": p, "type": "T"} for i, p in enumerate(paths)]
    assert names(tmp_path, modules) == ["1_Pooling", "2_Normalize", "3_Dense"]
    for name in ("1_Pooling", "3_Dense", "onnx"):
        (tmp_path / name).mkdir()
    assert beside.module_folders(tmp_path) == [tmp_path / "1_Pooling", tmp_path / "3_Dense"]


@pytest.mark.parametrize(
    "modules",
    [
        *(None, 1, "1_Pooling", {"path": "1_Pooling"}, [["1_Pooling"]], ["1_Pooling", None, 1]),
        *([{}], [{"path": None}], [{"path": ["1_Pooling"]}], [{"Path": "1_Pooling"}]),
        b"[NaN]",
    ],
)
def test_what_is_no_list_of_modules_names_none(tmp_path, modules):
    (tmp_path / "1_Pooling").mkdir()
    assert names(tmp_path, modules) == beside.module_folders(tmp_path) == []


@pytest.mark.parametrize(
    "modules",
    [
        *(b"", b"{", b"\xff", b"[" * 100_000, b"9" * 100_000),
        json.dumps([{"path": "1_Pooling"}]).encode() + b" " * (1 << 20),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error(tmp_path, modules):
    (tmp_path / "1_Pooling").mkdir()
    with pytest.raises(CheckpointError, match=r"modules\.json: cannot be read \(it "):
        names(tmp_path, modules)


def test_a_list_without_permission_is_an_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\)"):
        beside.module_names(tmp_path / "modules.json")


@pytest.mark.parametrize(
    "path",
    [
        *("..", "../x", "1_Pooling/..", "a/b", "/", "/etc", ".", ".git", ".replaced", "~/x"),
        *("..\\x", "C:", "C:\\x", "\\\\host\\x", "x\0", "x\n", "\ud800", "*", "1_Pooling/"),
    ],
)
def test_a_path_out_of_the_folder_is_passed_over(tmp_path, path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / ".git").mkdir()
    assert names(tmp_path, [{"path": path}, {"path": "1_Pooling"}]) == ["1_Pooling"]


@given(st.lists(st.dictionaries(st.sampled_from(["path", "type"]), st.text(), max_size=2)))
def test_any_name_is_inside_or_passed_over(tmp_path_factory, modules):
    folder = tmp_path_factory.mktemp("model")
    for name in names(folder, modules):
        assert os.path.dirname(os.path.realpath(folder / name)) == os.path.realpath(folder)
    assert beside.module_folders(folder) == []


def test_names_that_are_no_subfolders(tmp_path):
    (tmp_path / "file").write_text("x")
    paths = ["file", "missing", "x" * 5000, "modules.json"]
    assert names(tmp_path, [{"path": path} for path in paths]) == paths
    assert beside.module_folders(tmp_path) == []


def test_links_to_folders_are_passed_over(tmp_path):
    model, outside = tmp_path / "model", tmp_path / "outside"
    for folder in (model / "1_Pooling", model / ".git", outside):
        folder.mkdir(parents=True)
    try:
        for name, target in {"out": outside, "hidden": model / ".git", "up": tmp_path}.items():
            (model / name).symlink_to(target, target_is_directory=True)
        (tmp_path / "link").symlink_to(model, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    names(model, [{"path": path} for path in ("out", "hidden", "up", "1_Pooling")])
    assert beside.module_folders(model) == [model / "1_Pooling"]
    assert beside.module_folders(tmp_path / "link") == [tmp_path / "link" / "1_Pooling"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "modules.json")
    assert beside.module_folders(tmp_path) == []


WANTED = ["config.json", "LICENSE", "vocab.txt"]
WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
UNWANTED = [".gitattributes", "._model.safetensors", "README.md", "breadcrumbs.yaml"]
UNWANTED += ["model.onnx", "tf_model.h5", "rust_model.ot", "flax_model.msgpack"]


def test_which_files(tmp_path):
    for name in (*WANTED, *WEIGHTS, *UNWANTED):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    assert [path.name for path in beside.side_files(tmp_path)] == sorted(WANTED)
    assert [path.name for path in beside.module_files(tmp_path)] == sorted(WANTED + WEIGHTS)


def test_large_files_are_not_copied_but_weights_of_modules_are(tmp_path):
    for name in ("notes.txt", "model.safetensors"):
        with open(tmp_path / name, "wb") as file:
            file.truncate((100 << 20) + 1)
    assert beside.side_files(tmp_path) == []
    assert beside.module_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone: cannot be listed"):
        beside.module_files(tmp_path / "gone")
