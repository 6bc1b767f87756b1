"""What training programs save around a state dict: found, said, and never guessed at."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

import breadcrumbs
import breadcrumbs.checkpoint as checkpoints
from breadcrumbs.errors import CheckpointError

torch = pytest.importorskip("torch")


def state(seed: int = 0) -> dict:
    random = np.random.default_rng(seed)
    return {
        "fc.weight": torch.from_numpy(random.standard_normal((3, 2))),
        "fc.bias": torch.from_numpy(random.standard_normal(3)),
    }


def adam() -> dict:
    """Return what Adam has to save after a step."""
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


TRAINING = {
    "epoch": 3,
    "global_step": 10,
    "best": np.float64(0.5),
    "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("x")),
    "arch": "resnet",
    "lr_schedulers": [{"last_epoch": 1}],
    "optimizer_states": [],
    "rng_state": torch.get_rng_state(),
    "callbacks": {"EMA": {"shadow": {"fc.weight": torch.ones(3, 2)}}},
    "hyper_parameters": {"sizes": [1, 2]},
    "nothing": None,
    "seen": collections.defaultdict(int, {"a": 3}),
    "of each": collections.defaultdict(list),
    "config": SimpleNamespace(depth=2),
    "begun": datetime.datetime(2024, 5, 1, 12, 30),
    "took": datetime.timedelta(hours=3),
}
WRAPPED = {
    "Lightning": (lambda s: {"state_dict": s, **TRAINING}, ("state_dict",)),
    "timm": (lambda s: {"epoch": 1, "state_dict": s, "metric": 0.5}, ("state_dict",)),
    "fairseq": (
        lambda s: {"model": s, "extra_state": {"epoch": 2, "val_loss": torch.tensor(0.5)}},
        ("model",),
    ),
    "nanoGPT": (lambda s: {"model": s, "optimizer": adam(), "iter_num": 1}, ("model",)),
    "DeepSpeed": (lambda s: {"module": s, "optimizer": None, "dp_size": 1}, ("module",)),
    "Megatron": (lambda s: {"iteration": 5, "model": {"language": s}}, ("model", "language")),
    "twice": (lambda s: {"model": {"state_dict": s, "step": 3}}, ("model", "state_dict")),
    "three times": (lambda s: {"a": {"b": {"net": s}}}, ("a", "b", "net")),
    "a moving average alone": (lambda s: {"params_ema": s}, ("params_ema",)),
    "an empty one beside": (lambda s: {"params": s, "params_ema": {}}, ("params",)),
    "one twice": (lambda s: {"model": s, "state_dict": dict(s)}, ("model",)),
    "a loss beside": (lambda s: {"model_state_dict": s, "loss": torch.ones(())}, None),
    "an unknown key": (lambda s: {"mein_netz": s, "epoche": 3}, ("mein_netz",)),
    "ordered": (lambda s: {"network": collections.OrderedDict(s)}, ("network",)),
    "arrays": (lambda s: {"weights": {k: v.numpy() for k, v in s.items()}}, ("weights",)),
}


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("case", WRAPPED)
def test_the_state_dict_is_found(tmp_path, case, new):
    make, keys = WRAPPED[case]
    path = tmp_path / ("x.ckpt" if new else "x.pth.tar")
    torch.save(make(state()), path, _use_new_zipfile_serialization=new)
    with checkpoints.open(path) as checkpoint:
        assert {k: v.tolist() for k, v in checkpoint.items()} == {
            k: v.tolist() for k, v in state().items()
        }
        assert checkpoint.within == (keys or ("model_state_dict",))
        (note,) = checkpoint.notes
        assert note.startswith(f"the tensors under {'::'.join(checkpoint.within)!r} are taken")
        beside = [key for key in make(state()) if key != checkpoint.within[0]]
        assert ("passed over" in note) == bool(beside) or case == "twice"
        assert all(repr(key) in note for key in beside[:5])


def test_what_merges_is_what_the_bare_one_gives(tmp_path):
    base, tuned = state(0), state(1)
    torch.save({"model": tuned, "optimizer": adam()}, tmp_path / "tuned.pt")
    torch.save({"state_dict": base, **TRAINING}, tmp_path / "base.ckpt")
    found = breadcrumbs.merge(tmp_path / "base.ckpt", [tmp_path / "tuned.pt"], alpha=0.5)
    wanted = breadcrumbs.merge(base, [tuned], alpha=0.5)
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in wanted.items()}


def test_numbers_among_the_tensors_are_passed_over(tmp_path):
    torch.save({**state(), "version": 2, "note": "x"}, tmp_path / "x.pt")
    with checkpoints.open(tmp_path / "x.pt") as checkpoint:
        assert set(checkpoint) == set(state()) and checkpoint.within == ()
        assert checkpoint.notes == ("passed over 'version', 'note'",)
    torch.save(state(), tmp_path / "bare.pt")
    with checkpoints.open(tmp_path / "bare.pt") as checkpoint:
        assert checkpoint.notes == checkpoint.within == ()


SEVERAL = {
    "a moving average": (lambda a, b: {"model": a, "ema": b}, "'model', 'ema'", "ema"),
    "timm's": (
        lambda a, b: {"state_dict": a, "state_dict_ema": b, "epoch": 1},
        "'state_dict', 'state_dict_ema'",
        "state_dict_ema",
    ),
    "two networks": (lambda a, b: {"G": a, "D": b}, "'G', 'D'", "D"),
    "deeper": (
        lambda a, b: {"model": {"student": a, "teacher": b}},
        "'model::student', 'model::teacher'",
        "model::teacher",
    ),
    "more of it": (lambda a, b: {"net": a, "ema": {"net": b}}, "'net', 'ema::net'", "ema"),
    "beside a layer": (lambda a, b: {**a, "ema": b}, "'.', 'ema'", "ema"),
    "under no model's name": (lambda a, b: {"t": b["fc.bias"], "x": b}, "'.', 'x'", "x"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_of_several_none_is_taken_unless_told(tmp_path, case):
    make, listed, pick = SEVERAL[case]
    path = tmp_path / "x.pt"
    torch.save(make(state(0), state(1)), path)
    with pytest.raises(CheckpointError) as error:
        checkpoints.open(path)
    text = str(error.value)
    assert f"{path}: holds 2 sets of tensors, under {listed}. Say which is meant" in text
    assert text.endswith(f"such as {path}::{listed.split(',')[0][1:-1]}")
    with checkpoints.open(f"{path}::{pick}") as checkpoint:
        assert checkpoint["fc.bias"].tolist() == state(1)["fc.bias"].tolist()
        assert checkpoint.label == f"{path}::{pick}" and checkpoint.files == (path,)
    with checkpoints.open(text.split("such as ")[1]):  # ready to paste
        pass
    if listed.startswith("'.'"):
        with checkpoints.open(f"{path}::.") as checkpoint:
            assert all(key in make(state(0), state(1)) for key in checkpoint)


def test_two_sets_of_one_file_are_two_models(tmp_path):
    torch.save({"model": state(0), "ema": state(1)}, tmp_path / "x.pt")
    one, two = (f"{tmp_path / 'x.pt'}::{key}" for key in ("model", "ema"))
    found = breadcrumbs.merge(one, [two], method="task_arithmetic", alpha=1)
    assert found["fc.bias"].tolist() == state(1)["fc.bias"].tolist()


def test_a_key_can_be_picked_in_a_folder_and_a_stack(tmp_path):
    layers = {"model": {f"layers.{i}.w": torch.full((2,), float(i)) for i in range(3)}, "ema": {}}
    layers["ema"] = {name: -tensor for name, tensor in layers["model"].items()}
    torch.save(layers, tmp_path / "pytorch_model.bin")
    with checkpoints.open(f"{tmp_path}::ema") as checkpoint:
        assert checkpoint["layers.2.w"].tolist() == [-2, -2] and checkpoint.folder == tmp_path
    with checkpoints.open(f"{tmp_path}::ema[1:3] + {tmp_path}::model[0:1]") as stack:
        assert [x.tolist()[0] for x in stack.values()] == [-1, -2, 0]
        assert len(stack.notes) == 2


PICKS = {
    "no such key": ("y", r"has no key 'y'\. Its keys are 'model', 'epoch'"),
    "no such key there": ("model::y", r"has no key 'y' under 'model'\. Its keys are 'fc\.weight'"),
    "a number": ("epoch", r"'epoch' is a int, not a mapping"),
    "a tensor": ("model::fc.bias", r"'model::fc\.bias' is a Tensor, not a mapping"),
    "nothing": ("", r"has no key ''"),
    "none of its own": (".", "holds no mapping of names to tensors"),
}


@pytest.mark.parametrize("case", PICKS)
def test_a_wrong_key_is_refused(tmp_path, case):
    pick, says = PICKS[case]
    torch.save({"model": state(), "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=says) as error:
        checkpoints.open(f"{tmp_path / 'x.pt'}::{pick}")
    assert str(error.value).isprintable()


def test_a_key_of_a_file_that_has_none(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file(state(), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="holds tensors alone, so there is nothing under 'e'"):
        checkpoints.open(f"{tmp_path / 'x.safetensors'}::e")
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoints.open(f"{tmp_path / 'y.pt'}::e")


@pytest.mark.skipif(os.name == "nt", reason="no colon in names there")
def test_a_file_whose_name_has_colons_is_itself(tmp_path):
    torch.save(state(), tmp_path / "x::ema.pt")
    with checkpoints.open(tmp_path / "x::ema.pt") as checkpoint:
        assert set(checkpoint) == set(state())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


def test_code_beside_the_state_dict_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state(), "args": Evil()}, "x.ckpt")
    with pytest.raises(CheckpointError, match=r"weights_only=False\)`, which runs code"):
        checkpoints.open("x.ckpt")
    assert os.listdir() == ["x.ckpt"]
    before = set(torch.serialization.get_safe_globals())
    torch.save({"state_dict": state(), **TRAINING}, "x.ckpt")
    with checkpoints.open("x.ckpt"):
        assert set(torch.serialization.get_safe_globals()) == before


def test_tied_tensors_and_views_are_right(tmp_path):
    weight = torch.arange(12.0).reshape(3, 4)
    tensors = {"a.w": weight, "b.w": weight, "c.w": weight.t(), "d.w": weight[1:, ::2]}
    torch.save({"model": tensors}, tmp_path / "x.pt")
    with checkpoints.open(tmp_path / "x.pt") as checkpoint:
        for name, tensor in tensors.items():
            assert checkpoint[name].tolist() == tensor.tolist()
