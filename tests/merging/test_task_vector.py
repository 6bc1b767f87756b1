"""Task vectors add, scale and apply as the formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from reference import DTYPES
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import TaskVector
from breadcrumbs.errors import MismatchError


def state(seed: int, dtype="float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.standard_normal((4, 5)).astype(DTYPES[dtype]),
        "b": rng.standard_normal(3).astype(DTYPES[dtype]),
        "scale": np.asarray(rng.standard_normal()).astype(DTYPES[dtype]),
        "steps": np.arange(seed, seed + 3),
    }


BASE, FIRST, SECOND = state(0), state(1), state(2)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, values in found.items():
        assert (values.dtype, values.shape) == (expected[name].dtype, expected[name].shape)
        assert values.tobytes() == expected[name].tobytes(), name


def test_a_task_vector_maps_the_names_of_weights_to_differences():
    tau = TaskVector(BASE, FIRST)
    assert list(tau) == ["w", "b", "scale"] and len(tau) == 3
    for name, values in tau.items():
        assert values.dtype == np.float64 and values.shape == BASE[name].shape
        expected = FIRST[name].astype(np.float64) - BASE[name].astype(np.float64)
        assert np.array_equal(values, expected)


def test_algebra():
    a, b = TaskVector(BASE, FIRST), TaskVector(BASE, SECOND)
    combined = a + 0.5 * b - (-a) * 2
    for name in a:
        assert np.array_equal(combined[name], a[name] + 0.5 * b[name] + a[name] * 2)
        assert np.array_equal((0 + a + b)[name], a[name] + b[name])
        assert np.array_equal((a - a)[name], np.zeros_like(a[name]))
        assert np.array_equal((2 * a)[name], (a * 2)[name])
    expected = np.sqrt(sum((a[name] ** 2).sum() for name in a))
    assert a.norm() == pytest.approx(expected, rel=1e-12)
    # Analogy: c + b - a is again a vector over the same tensors.
    assert list(b + b - a) == list(a)


@given(st.sampled_from(sorted(DTYPES)), st.integers(0, 50))
def test_base_plus_task_vector_is_the_model(dtype, seed):
    base, model = state(seed, dtype), state(seed + 1, dtype)
    tau = TaskVector(base, model)
    expected = {**model, "steps": base["steps"]}
    for found in (tau.apply_to(base), base + tau, tau + base):
        if dtype != "float64":
            assert_same(found, expected)
        else:
            for name in expected:
                assert np.allclose(found[name], expected[name], rtol=1e-15, atol=1e-15)
    assert_same(tau.apply_to(base, 0.0), base)


@given(st.sampled_from(sorted(set(DTYPES) - {"float64"})), st.integers(0, 50))
def test_applying_a_sum_is_the_method(dtype, seed):
    base, models = state(seed, dtype), [state(seed + 1, dtype), state(seed + 2, dtype)]
    total = sum(TaskVector(base, model) for model in models)
    found = total.apply_to(base, 0.25)  # pyright: ignore[reportAttributeAccessIssue]
    assert_same(found, reference.merge(base, models, method="task_arithmetic", alpha=0.25))
    assert_same(found, breadcrumbs.merge(base, models, method="task_arithmetic", alpha=0.25))


def test_paths_and_torch_models(tmp_path):
    from safetensors.numpy import save_file

    paths = [tmp_path / "base.safetensors", tmp_path / "model.safetensors"]
    for path, arrays in zip(paths, (BASE, FIRST), strict=True):
        save_file(arrays, path)
    found = TaskVector(*paths).apply_to(paths[0])
    assert_same({name: found[name] for name in BASE}, {**FIRST, "steps": BASE["steps"]})
    torch = pytest.importorskip("torch")
    tensors = [{k: torch.from_numpy(v.copy()) for k, v in m.items()} for m in (BASE, FIRST)]
    merged = TaskVector(*tensors).apply_to(tensors[0])
    for name, values in merged.items():
        assert isinstance(values, torch.Tensor)
        assert torch.equal(values, tensors[name != "steps"][name])


def test_what_does_not_fit_is_refused():
    tau = TaskVector(BASE, FIRST)
    less = {name: FIRST[name] for name in ("w", "steps", "scale")}
    with pytest.raises(MismatchError, match=r"lacks tensors of .*'b'.*fine-tuning of this base"):
        TaskVector(BASE, less)
    with pytest.raises(MismatchError, match=r"'b' has shape \(4,\).*has \(3,\)"):
        TaskVector(BASE, {**FIRST, "b": np.zeros(4, np.float32)})
    with pytest.raises(MismatchError, match=r"lacks tensors of the task vector: 'b'"):
        tau.apply_to(less)
    with pytest.raises(MismatchError, match=r"different tensors: 'b'.*vectors of one base"):
        _ = tau + TaskVector({"w": BASE["w"], "scale": BASE["scale"]}, less)
    with pytest.raises(TypeError):
        _ = tau + 3
    with pytest.raises(TypeError):
        _ = tau - 3  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(TypeError):
        _ = tau - BASE  # pyright: ignore[reportOperatorIssue]


def test_operands_stay_as_they_are():
    a, b = TaskVector(BASE, FIRST), TaskVector(BASE, SECOND)
    before = {name: values.copy() for name, values in a.items()}
    _ = (a + b, a - b, 3 * a, -a, a.apply_to(BASE, 2))
    assert_same(dict(a), before)
    assert_same(BASE, state(0))


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_scalars_stay_arrays(dtype):
    base, model = state(5, dtype), state(6, dtype)
    found = TaskVector(base, model).apply_to(base)["scale"]
    assert isinstance(found, np.ndarray) and found.shape == () and found.dtype == DTYPES[dtype]


def test_a_model_may_store_one_of_two_tied_copies():
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    base = {table: BASE["w"], "model.norm.weight": BASE["b"], head: BASE["w"]}
    tuned = {table: FIRST["w"], "model.norm.weight": FIRST["b"]}
    both = {**tuned, head: FIRST["w"]}
    for model in (tuned, {name: both[name] for name in base if name != table}, both):
        assert_same(TaskVector(base, model).apply_to(base), both)
    assert_same(TaskVector(tuned, both).apply_to(tuned), tuned)


def test_a_head_that_is_untied_is_refused(tmp_path):
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    for name, tensors in (("base", {table: BASE["w"]}), ("tuned", {table: FIRST["w"]})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"tie_word_embeddings": true}')
        more = {head: SECOND["w"]} if name == "tuned" else {}
        save_file({**tensors, **more}, tmp_path / name / "model.safetensors")
    with pytest.raises(MismatchError, match="has untied 'lm_head"):
        TaskVector(tmp_path / "base", tmp_path / "tuned")
