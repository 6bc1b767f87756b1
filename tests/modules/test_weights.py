"""Slots: weights of checkpoints, under their names, in modules that may call them otherwise."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tiny_module import Tiny, state_of

import breadcrumbs
from breadcrumbs.errors import MismatchError
from breadcrumbs.modules.slots import Slots, as_torch

torch = pytest.importorskip("torch")


def moved(state, by=0.5):
    return {n: a + a.dtype.type(by) if a.dtype.kind == "f" else a for n, a in state.items()}


def assert_holds(module, state):
    own = module.state_dict()
    for name, array in state.items():
        wanted = array.astype(np.float32) if array.dtype.kind not in "iu" else array
        np.testing.assert_array_equal(own[name].numpy(), wanted, err_msg=name)


@pytest.fixture
def tiny():
    return Tiny()


def test_weights_are_put_in_place(tiny):
    base = state_of(tiny)
    before = {name: tensor.data_ptr() for name, tensor in tiny.state_dict().items()}
    Slots(tiny, base).put(moved(base))
    assert_holds(tiny, moved(base))
    assert before == {name: tensor.data_ptr() for name, tensor in tiny.state_dict().items()}
    assert torch.equal(tiny.last.weight, tiny.embed.weight)


def test_buffers_and_counters_are_put_too(tiny):
    base = state_of(tiny)
    slots = Slots(tiny, base)
    state = base | {
        "norm.running_mean": np.arange(4, dtype=np.float32),
        "norm.num_batches_tracked": np.array(7),
    }
    slots.put(state)
    assert tiny.norm.num_batches_tracked.item() == 7
    assert tiny.norm.running_mean.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64, np.float32])
def test_any_float_dtype_goes_in(tiny, dtype):
    base = state_of(tiny)
    slots = Slots(tiny, base)
    state = {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in moved(base).items()}
    slots.put(state)
    assert_holds(tiny, state)


@pytest.mark.parametrize(
    "name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16", "float32", "float64"]
)
def test_arrays_become_tensors_with_the_same_values(name):
    values = np.array([[0.5, -2.0], [1.0, 0.0]], np.float32)
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    made = as_torch(values.astype(dtype))
    assert str(made.dtype) == f"torch.{name}"
    np.testing.assert_array_equal(made.float().numpy(), values)
    assert as_torch(np.array(1.5, dtype)).shape == ()


def test_arrays_that_torch_cannot_use_are_copied():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    array.flags.writeable = False
    assert as_torch(array).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert as_torch(array[::-1, ::-2]).tolist() == [[5, 3], [2, 0]]


@pytest.mark.parametrize("prefix", ["bert.", "a.b.c."])
def test_names_may_have_a_prefix_more_or_less(tiny, prefix):
    plain = state_of(tiny)
    longer = {prefix + name: array for name, array in plain.items()}
    Slots(tiny, longer).put(moved(longer))
    assert_holds(tiny, moved(plain))

    wrapped = Tiny()
    outer = torch.nn.Module()
    outer.core = wrapped
    Slots(outer, plain).put(moved(plain))
    assert_holds(wrapped, moved(plain))


def test_other_names_are_found_by_their_values(tiny):
    base = state_of(tiny)
    old = {name.replace("inner.weight", "inner.gamma"): array for name, array in base.items()}
    Slots(tiny, old).put(moved(old))
    assert_holds(tiny, moved(base))


def test_values_that_fit_two_places_are_not_guessed():
    module = torch.nn.Sequential(torch.nn.LayerNorm(3), torch.nn.LayerNorm(3))
    base = {n.replace("weight", "gamma"): t.numpy() for n, t in module.state_dict().items()}
    with pytest.raises(MismatchError, match=r"no tensors for '0.weight', '1.weight'.*'0.gamma'"):
        Slots(module, base)
    del base["1.gamma"], base["1.bias"]
    module[1].requires_grad_(False)
    with pytest.raises(MismatchError, match=r"no tensors for '0.weight' of the .*'0.gamma'"):
        Slots(module, base)


def test_what_the_module_does_not_hold_must_be_the_bases(tiny):
    base = state_of(tiny) | {"position_ids": np.arange(3), "cls.bias": np.ones(2, np.float32)}
    slots = Slots(tiny, base)
    slots.put(base)
    slots.put(state_of(tiny))  # nor need it be there
    with pytest.raises(MismatchError, match="changed, but not used by the module: 'position_ids'"):
        slots.put(base | {"position_ids": np.arange(3) + 1})


def test_all_that_does_not_fit_is_in_one_message(tiny):
    base = state_of(tiny)
    slots = Slots(tiny, base)
    state = moved(base) | {
        "inner.bias": np.zeros((4, 1), np.float32),
        "norm.bias": np.zeros(4, np.int64),
        "extra": np.zeros(1),
    }
    del state["norm.weight"], state["norm.running_var"]
    with pytest.raises(MismatchError) as error:
        slots.put(state)
    message = str(error.value)
    assert "missing: 'norm.weight', 'norm.running_var'" in message
    assert "unexpected: 'extra'" in message
    assert "'inner.bias' has shape (4, 1), not (4,)" in message
    assert "'norm.bias' is int64, not float32" in message
    assert "\n" not in message
    assert_holds(tiny, base)


def test_tied_weights_may_come_once_or_twice_but_alike(tiny):
    slots = Slots(tiny, state_of(tiny, tied=True))
    state = moved(state_of(tiny, tied=True))
    slots.put(state)
    assert_holds(tiny, state)
    slots.put({name: array for name, array in state.items() if name != "embed.weight"})
    with pytest.raises(MismatchError, match=r"one weight in the module.*embed.weight = last.weig"):
        slots.put(state | {"last.weight": state["last.weight"] + 1})


def test_a_module_that_holds_other_values_is_refused(tiny):
    base = state_of(tiny)
    with torch.no_grad():
        tiny.inner.bias[2] += 1
    with pytest.raises(MismatchError, match=r"holds other values.*'inner.bias'"):
        Slots(tiny, base)


def test_the_sign_of_a_zero_counts(tiny):
    with torch.no_grad():
        tiny.inner.bias[0] = 0.0
    base = state_of(tiny)
    base["inner.bias"][0] = -0.0
    with pytest.raises(MismatchError, match="other values"):
        Slots(tiny, base)


def test_what_the_base_lacks_must_be_frozen(tiny):
    base = state_of(tiny)
    del base["inner.weight"], base["inner.bias"]
    with pytest.raises(MismatchError, match=r"no tensors for 'inner.weight', 'inner.bias'"):
        Slots(tiny, base)
    tiny.inner.requires_grad_(False)
    before = tiny.inner.weight.clone()
    Slots(tiny, base).put(moved(base))
    assert torch.equal(tiny.inner.weight, before)


def test_frozen_weights_left_out_are_the_bases_again(tiny):
    base = state_of(tiny)
    tiny.inner.requires_grad_(False)
    slots = Slots(tiny, base)
    rest = {name: array for name, array in moved(base).items() if "inner" not in name}
    slots.put(moved(base))
    assert_holds(tiny, moved(base))
    slots.put(rest)
    assert_holds(tiny, base | rest)
    slots.put(moved(base, 2))
    slots.put(rest)
    assert_holds(tiny, base | rest)


def test_weights_come_out_as_they_went_in(tiny):
    base = {
        name: array.astype(ml_dtypes.bfloat16) if array.dtype.kind == "f" else array
        for name, array in state_of(tiny).items()
    }
    tiny.load_state_dict(
        {n: as_torch(a).float() if a.dtype.kind != "i" else as_torch(a) for n, a in base.items()},
        strict=False,
    )
    prefixed = {f"x.{name}": array for name, array in base.items()}
    slots = Slots(tiny, prefixed)
    taken = slots.take()
    assert list(taken) == list(prefixed)
    for name, array in taken.items():
        assert array.dtype == prefixed[name].dtype
        assert array.tobytes() == prefixed[name].tobytes()
    with torch.no_grad():
        tiny.inner.bias += 1
    assert slots.take()["x.inner.bias"].tobytes() != taken["x.inner.bias"].tobytes()
    assert taken["x.inner.bias"].tobytes() == prefixed["x.inner.bias"].tobytes()


def test_merges_and_files_go_in_as_they_are(tiny, tmp_path):
    base, tuned = state_of(tiny), moved(state_of(tiny))
    slots = Slots(tiny, base)
    merged = breadcrumbs.merge(base, [tuned], method="task_arithmetic", alpha=0.5)
    slots.put(merged)
    assert_holds(tiny, merged)
    breadcrumbs.merge(base, [tuned], method="task_arithmetic", alpha=2, output=tmp_path / "merged")
    with breadcrumbs.open(tmp_path / "merged") as state:
        slots.put(state)
        assert_holds(tiny, dict(state))
