"""What `open` takes for a path, a hub id or a mapping, and what it says when there is nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import breadcrumbs
import breadcrumbs.checkpoint as checkpoints
from breadcrumbs.checkpoint import hub
from breadcrumbs.errors import CheckpointError, RecipeError


@pytest.fixture
def model(tmp_path: Path, monkeypatch) -> Path:
    """Return a folder ``org/name`` with one tensor, under the working directory."""
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    safetensors.numpy.save_file({"w": np.ones(2)}, folder / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def asked(model, monkeypatch) -> list:
    """Return the list of what is asked of the hub, which always gives ``model``."""
    asked = []

    def fetch(repo, revision):
        asked.append((repo, revision))
        return model, "c0ffee"

    monkeypatch.setattr(hub, "fetch", fetch)
    return asked


def test_paths(model, asked):
    file = os.path.join("org", "name", "model.safetensors")
    for source in (
        model,
        str(model),
        Path("org/name"),
        "org/name",
        "./org/name/",
        file,
        Path(file),
    ):
        with checkpoints.open(source) as checkpoint:
            assert checkpoint["w"].tolist() == [1, 1]
            assert checkpoint.label == str(source)
            assert checkpoint.folder == (None if "." in Path(source).name else Path(source))
            assert checkpoint.repo is None
    assert not asked


def test_home_folder(model, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(model.parent))
    with checkpoints.open("~/name") as checkpoint:
        assert checkpoint.label == "~/name" and checkpoint.folder == model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/other", ("org/other", None)),
        ("org/other@v1.0", ("org/other", "v1.0")),
        ("org/other@refs/pr/1", ("org/other", "refs/pr/1")),
        ("a-b.c_d/E-2.1", ("a-b.c_d/E-2.1", None)),
    ],
)
def test_hub_ids(asked, model, text, expected):
    with checkpoints.open(text) as checkpoint:
        assert checkpoint.label == text
        assert checkpoint.repo == f"{expected[0]}@c0ffee"
        assert checkpoint.folder == model
    assert asked == [expected]


PATHS = [
    "",
    "name",
    "./a/b",
    "../a",
    "/a/b",
    "~/a",
    "C:/a",
    "C:\\a",
    "a\\b",
    "a/b/c",
    "a/b/",
    "a//b",
]
PATHS += ["a/b.safetensors", "a/b.bin", "a/b.PT", "a/b.pth", "a/b.safetensors.index.json"]
PATHS += ["a b/c", "a/b@", "a/b@../c", "a/b@c/../d", "a/b@c\nd", "\0/a"]


@pytest.mark.parametrize("text", [*PATHS, Path("org/other")])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(asked, text):
    with pytest.raises(CheckpointError, match="no such file or folder") as error:
        checkpoints.open(text)
    assert not asked and str(error.value).isprintable()


def test_the_nearest_name_is_suggested(model):
    with pytest.raises(CheckpointError, match=r"Did you mean 'model\.safetensors'\?"):
        checkpoints.open("org/name/modle.safetensors")
    with pytest.raises(CheckpointError, match=r"There is no folder .* either"):
        checkpoints.open("./nowhere/model.safetensors")


def test_a_mistyped_folder_that_could_be_a_hub_id(model, monkeypatch):
    def fetch(repo, revision):
        raise CheckpointError(f"{repo}: is not there.")

    monkeypatch.setattr(hub, "fetch", fetch)
    with pytest.raises(CheckpointError, match=r"org/nam: is not there\. Did you mean 'name'\?"):
        checkpoints.open("org/nam")
    with pytest.raises(CheckpointError, match=r"other/nam: is not there\.$"):
        checkpoints.open("other/nam")


def test_mappings_and_checkpoints():
    checkpoint = checkpoints.open({"w": np.ones(2)})
    assert checkpoint.label == "mapping" and checkpoint["w"].tolist() == [1, 1]
    assert checkpoints.open(checkpoint) is checkpoint
    with pytest.raises(CheckpointError, match=r"^base: 'w'"):
        checkpoints.open({"w": None}, "base")


def test_anything_else_is_refused(tmp_path):
    class Model:
        state_dict = dict

    with pytest.raises(CheckpointError, match=r"a Model is not .* Give its `state_dict\(\)`"):
        checkpoints.open(Model())  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="a list is not a path"):
        checkpoints.open(["a"])  # type: ignore[arg-type]
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"is a GGUF file, .* quantised weights"):
        checkpoints.open(tmp_path / "model.gguf")
    (tmp_path / "model.unknown").write_bytes(bytes(range(1, 200)))
    with pytest.raises(CheckpointError, match="not a kind of weights"):
        checkpoints.open(tmp_path / "model.unknown")


def test_a_module_is_its_state_dict():
    torch = pytest.importorskip("torch")
    module, state = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).state_dict()
    several = torch.nn.Sequential(module)
    assert type(breadcrumbs.merge(module, [state])) is torch.nn.Linear
    assert dict(breadcrumbs.merge(state, [module])).keys() == state.keys()
    for models in (module, several):
        with pytest.raises(RecipeError, match=r"Give \[model\]"):
            breadcrumbs.merge(state, models)
    with pytest.raises(CheckpointError, match=r"^model 1: None is not a path"):
        breadcrumbs.merge(state, [None])  # type: ignore[list-item]
    assert breadcrumbs.load(module).shapes == {"weight": (2, 2), "bias": (2,)}
    assert set(breadcrumbs.merge(state, [state])) == {"weight", "bias"}
