"""What is no weight: statistics, counters, buffers, markers, integers."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs.checkpoint import kinds
from breadcrumbs.cli.group import main
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.merging import opening
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.store import Store

RNG = np.random.default_rng(5)
WEIGHTS = {"conv.weight": RNG.standard_normal((6, 4)).astype(np.float32)}
MASK = np.triu(np.full((6, 6), -np.inf, np.float32), 1)


def tuned(base: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    moved = rng.standard_normal((6, 4)).astype(np.float32) / 10
    return base | {"conv.weight": base["conv.weight"] + moved}


def plan(base, models, **arguments: Any):
    recipe = Recipe("base", tuple(Model(f"model {i + 1}") for i in range(len(models))), **arguments)
    with opening.opened(recipe, [base, *models]) as made:
        return made


def copies(made) -> dict[str, str]:
    return {t.name: t.copied for t in made.tensors if t.copied}


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("layer1.0.bn1.running_mean", (64,), kinds.STATISTIC),
        ("bn/moving_variance", (64,), kinds.STATISTIC),
        ("batch_stats.block.bn.var", (64,), kinds.STATISTIC),
        ("running_mean_std.mean", (3,), kinds.STATISTIC),
        ("bn/moving_variance:0", (64,), kinds.STATISTIC),
        ("stem.bn._variance", (64,), kinds.STATISTIC),
        ("layer1.0.bn2.var", (64,), kinds.STATISTIC),
        ("backbone.BatchNorm_0.mean", (64,), kinds.STATISTIC),
        ("net/batch_norm/~/var_ema.average", (64,), kinds.STATISTIC),
        ("obs_rms.var", (3,), kinds.STATISTIC),
        ("normalize_inputs.buffer_observation_state.std", (3,), kinds.STATISTIC),
        ("quantize._codebook.cluster_size", (64,), kinds.STATISTIC),
        ("quantize._ema_cluster_size", (64,), kinds.STATISTIC),
        ("vq_vae._ema_w", (64, 4), kinds.STATISTIC),
        ("vq/ema_dw/hidden", (64, 4), kinds.STATISTIC),
        ("obs_normalizer._std", (3,), kinds.STATISTIC),
        ("value_norm.running_mean_sq", (1,), kinds.STATISTIC),
        ("input_stats.variance", (3,), kinds.STATISTIC),
        ("conv.activation_post_process.max_val", (), kinds.STATISTIC),
        ("conv.weight_fake_quant.scale", (8,), kinds.STATISTIC),
        ("fc.input_quantizer._amax", (), kinds.STATISTIC),
        ("encoder.quantizer.layers.0.codebook.cluster_usage", (64,), kinds.STATISTIC),
        ("encoder.quantizer.layers.0.codebook.embed_sum", (64, 4), kinds.STATISTIC),
        ("encoder.qembeddings_act.x_max", (1,), kinds.STATISTIC),
        ("max_max", (1,), kinds.WEIGHT),
        ("policy.log_std", (4,), kinds.WEIGHT),
        ("norm.scale", (8,), kinds.WEIGHT),
        ("n_averaged", (), kinds.COUNTER),
        ("vq/ema_dw/counter", (), kinds.COUNTER),
        ("normal.mean", (64,), kinds.WEIGHT),
        ("head.log_variance", (64,), kinds.WEIGHT),
        ("obs_rms.count", (), kinds.COUNTER),
        ("bn.num_batches_tracked", (), kinds.COUNTER),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (32,), kinds.BUFFER),
        ("h.0.attn.bias", (1, 1, 8, 8), kinds.BUFFER),
        ("h.0.attn.bias", (8,), kinds.WEIGHT),
        ("transformer.h.3.attn.masked_bias", (), kinds.BUFFER),
        ("layers.1.blocks.1.attn_mask", (4, 9, 9), kinds.BUFFER),
        ("sqrt_one_minus_alphas_cumprod", (1000,), kinds.BUFFER),
        ("text_model.causal_attention_mask", (8, 8), kinds.BUFFER),
        ("transformer.h.0.attn.mask", (1, 1, 8, 8), kinds.BUFFER),
        ("transformer.h.0.attn.embed_positions", (32, 8), kinds.BUFFER),
        ("model.rotary_emb.long_inv_freq", (32,), kinds.BUFFER),
        ("rope.freqs", (32,), kinds.BUFFER),
        ("visual.rope.freqs_cos", (16, 8), kinds.BUFFER),
        ("rope_embed.periods", (16,), kinds.BUFFER),
        ("model_ema.decay", (), kinds.BUFFER),
        ("layers.0.self_attn.q_proj.output_max", (), kinds.BUFFER),
        ("layers.0.self_attn.q_proj.input_min", (), kinds.BUFFER),
        ("layers.0.throughput_max", (), kinds.WEIGHT),
        ("decoder.version", (1,), kinds.BUFFER),
        ("blocks.0.freqs", (8,), kinds.WEIGHT),
        ("decoder.embed_positions.weight", (32, 8), kinds.WEIGHT),
        ("mask_token", (1, 1, 8), kinds.WEIGHT),
        ("betas", (1000,), kinds.BUFFER),
        ("lvlb_weights", (1000,), kinds.BUFFER),
        ("scale_factor", (), kinds.BUFFER),
        ("loss.logvar", (), kinds.WEIGHT),
        ("blocks.0.betas", (8,), kinds.WEIGHT),
        ("encoder.embed_positions._float_tensor", (1,), kinds.BUFFER),
        ("main.0.weight_u", (64,), kinds.BUFFER),
        ("conv.parametrizations.weight.0._v", (27,), kinds.BUFFER),
        ("conv.weight_v", (64, 3, 3), kinds.WEIGHT),
        ("fc.w_u", (64,), kinds.WEIGHT),
        ("transformer.attn_bias", (1, 8, 1, 128), kinds.BUFFER),
        ("transformer.attn_bias", (1, 8, 128, 128), kinds.BUFFER),
        ("block.attn_bias", (8, 16), kinds.WEIGHT),
        ("conv.weight_u", (8,), kinds.BUFFER),
        ("conv.weight_v", (27,), kinds.BUFFER),
        ("conv.weight_v", (8, 3, 3, 3), kinds.WEIGHT),  # of weight normalisation
        ("conv.parametrizations.weight.0._u", (8,), kinds.BUFFER),
        ("attn.pos_bias_u", (4, 8), kinds.WEIGHT),
        ("v_pred", (0,), kinds.MARKER),
        ("variance.weight", (4,), kinds.WEIGHT),
        ("head.mean", (4,), kinds.WEIGHT),
    ],
)
def test_names_and_shapes_tell_what_a_tensor_is(name, shape, kind):
    assert kinds.of(name, shape, True) == kind


def test_integers_are_no_weights_and_statistics_are_floating():
    assert kinds.of("head", (4,), False) == kinds.OTHER
    assert kinds.of("bn.running_mean", (4,), False) == kinds.OTHER
    assert kinds.of("embeddings.position_ids", (1, 512), False) == kinds.BUFFER


# --- statistics --------------------------------------------------------------------------------


def with_statistics(seed: int, n: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "bn.running_mean": rng.standard_normal(n).astype(np.float32),
        "bn.running_var": (rng.random(n) * rng.choice([1e-3, 1, 1e3])).astype(np.float32),
    }


def mean(columns: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """Return the weighted mean, entry by entry in fractions, rounded to float32."""
    result = []
    for column in zip(*(c.tolist() for c in columns), strict=True):
        total = sum(Fraction(x) * Fraction(w) for x, w in zip(column, weights, strict=True))
        result.append(np.float32(float(total / sum(map(Fraction, weights)))))
    return np.array(result)


@settings(deadline=None, max_examples=40)
@given(
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0, -2.0]), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_statistics_are_the_weighted_mean_of_the_models_whatever_the_method(weights, seed):
    base = WEIGHTS | with_statistics(seed)
    models = [tuned(base, i) | with_statistics(seed + 100 + i) for i in range(len(weights))]
    counted = [(m, w) for m, w in zip(models, weights, strict=True) if w > 0]
    for method, parameters in (("task_arithmetic", {"alpha": 1}), ("ties", {}), ("average", {})):
        if method == "average" and sum(weights) <= 0:
            continue
        found = breadcrumbs.merge(base, models, method=method, weights=weights, **parameters)
        for name in ("bn.running_mean", "bn.running_var"):
            expected = base[name]
            if counted:
                expected = mean([m[name] for m, _ in counted], [w for _, w in counted])
            assert found[name].tobytes() == expected.tobytes()


def methods_without_data() -> list[str]:
    return [m.name for m in METHODS.values() if m.statistics is None]


@pytest.mark.parametrize("method", methods_without_data())
def test_no_method_makes_a_variance_negative(method):
    base = WEIGHTS | {"bn.running_var": np.linspace(0.3, 1, 40, dtype=np.float32)}
    base |= {f"layers.{i}.weight": np.ones((4, 4), np.float32) for i in range(2)}
    number = METHODS[method].aggregate.models[1] or 4
    models = [
        tuned(base, i) | {"bn.running_var": base["bn.running_var"] * np.float32(0.2 + i / 50)}
        for i in range(number)
    ]
    given = {"task": "model 1"} if method == "tall_mask" else {}
    found = breadcrumbs.merge(base, models, method=method, **given)["bn.running_var"]
    low = np.min([model["bn.running_var"] for model in models], axis=0)
    high = np.max([model["bn.running_var"] for model in models], axis=0)
    assert (found >= low).all() and (found <= high).all()


def test_statistics_are_named_and_counted(tmp_path):
    base = WEIGHTS | with_statistics(1) | {"bn.num_batches_tracked": np.array(7)}
    models = [tuned(base, i) | with_statistics(i) for i in (2, 3)]
    made = plan(base, models, method="ties")
    assert copies(made) == {
        "bn.running_mean": "statistic",
        "bn.running_var": "statistic",
        "bn.num_batches_tracked": "not a weight",
    }
    assert dict(made.kinds) == {"weight": 1, "statistic": 2, "counter": 1}
    assert any("mean of the models" in note and "running_mean" in note for note in made.notes)
    assert not made.warnings
    weights = [tensor for tensor in made.merged if tensor.base.is_weight]
    assert sum(tensor.base.size for tensor in weights) == 24


def test_statistics_go_whole_through_task_files_and_stores(tmp_path):
    base = WEIGHTS | with_statistics(1)
    models = [tuned(base, i) | with_statistics(i) for i in (2, 3)]
    save_file(base, tmp_path / "base.safetensors")
    paths = []
    for i, model in enumerate(models):
        paths.append(str(tmp_path / f"t{i}.safetensors"))
        about = breadcrumbs.tasks.pack(base, model, paths[-1], name=f"t{i}", base_name="base")
        assert about.weights == 24 and about.kept <= 3
    want = breadcrumbs.merge(base, models, alpha=0.4)
    found = breadcrumbs.merge(str(tmp_path / "base.safetensors"), paths, alpha=0.4)
    for name in base:
        assert found[name].tobytes() == want[name].tobytes()
    with Store.create(tmp_path / "store", str(tmp_path / "base.safetensors"), alpha=0.4) as store:
        for i, path in enumerate(paths):
            store.add(f"t{i}", path)
        store.merge(tmp_path / "out.safetensors")
    again = load_file(tmp_path / "out.safetensors")
    assert all(again[name].tobytes() == found[name].tobytes() for name in base)


def test_a_statistic_that_is_not_finite_is_refused():
    base = WEIGHTS | with_statistics(1)
    model = tuned(base, 1) | {"bn.running_var": np.full(5, np.nan, np.float32)}
    with pytest.raises(MismatchError, match=r"'bn.running_var': a statistic .* not finite"):
        breadcrumbs.merge(base, [model])
    assert breadcrumbs.merge(base, [model], exclude="bn.*")


def test_a_negative_variance_is_refused():
    """A model that was merged wrongly before has such; its mean with others is wrong too."""
    base = WEIGHTS | {"bn.running_mean": np.zeros(3), "bn.running_var": np.ones(3)}
    model = tuned(base, 1) | {
        "bn.running_mean": np.full(3, -2.0),
        "bn.running_var": np.full(3, -2.0),
    }
    with pytest.raises(
        MismatchError, match=r"'bn\.running_var': a variance of a model is negative"
    ):
        breadcrumbs.merge(base, [model])
    found = breadcrumbs.merge(base, [model], exclude=["bn.running_var"])
    assert (found["bn.running_mean"] == -2).all() and (found["bn.running_var"] == 1).all()


def test_the_length_of_the_step_is_that_of_the_weights(tmp_path):
    """Statistics are no part of it, and a merge that moves them alone adds something."""
    base = WEIGHTS | {"bn.running_var": np.full(3, 50, np.float32)}
    paths = [tmp_path / f"{name}.safetensors" for name in ("base", "a", "b", "moved", "out")]
    save_file(base, paths[0])
    for seed, path in enumerate(paths[1:3]):
        save_file(tuned(base, seed) | {"bn.running_var": np.full(3, 1, np.float32)}, path)
    save_file(base | {"bn.running_var": np.full(3, 1, np.float32)}, paths[3])
    arguments = ["merge", *map(str, paths[:3]), "-m", "average", "-o", str(paths[4]), "--json"]
    report = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert 0.5 < report["step"] < 1 and report["norm"] < 1 and not report["warnings"]
    breadcrumbs.merge(str(paths[0]), [str(paths[3])], output=tmp_path / "moved")
    assert (load_file(tmp_path / "moved" / "model.safetensors")["bn.running_var"] == 1).all()


def test_onto_takes_its_own_statistics_into_the_mean():
    base = WEIGHTS | with_statistics(1)
    one, other = (tuned(base, i) | with_statistics(i) for i in (2, 3))
    found = breadcrumbs.merge(base, [one], onto=other, method="task_arithmetic")
    for name in ("bn.running_mean", "bn.running_var"):
        assert found[name].tobytes() == mean([one[name], other[name]], [1, 1]).tobytes()


# --- buffers, markers, integers ----------------------------------------------------------------

BUFFERS = {
    "embeddings.position_ids": np.arange(9)[None],
    "rotary_emb.inv_freq": (1 / 10000 ** (np.arange(4) / 4)).astype(np.float32),
    "h.0.attn.bias": np.tril(np.ones((1, 1, 6, 6), np.uint8)),
    "h.0.attn.masked_bias": np.array(-1e4, np.float32),
    "attn_mask": MASK,
    "text.causal": MASK,
    "alphas_cumprod": np.linspace(1, 0, 7).astype(np.float64),
}


@pytest.mark.parametrize("name", BUFFERS)
@pytest.mark.parametrize("where", ["base", "one model", "both", "all"])
def test_a_buffer_stops_no_merge_wherever_it_is(name, where):
    more = {name: BUFFERS[name]}
    base = WEIGHTS | (more if where in ("base", "both", "all") else {})
    models = [tuned(WEIGHTS, i) for i in (1, 2)]
    if name == "text.causal" and where != "all":
        pytest.skip("a mask that has no name of one is known by what it holds, in all models")
    if where in ("one model", "both", "all"):
        models[0] |= more
    if where == "all":
        models[1] |= more
    found = breadcrumbs.merge(base, models, method="task_arithmetic", alpha=0.5)
    assert list(found) == list(base)
    if name in found:
        assert found[name].tobytes() == BUFFERS[name].tobytes()
    want = breadcrumbs.merge(
        WEIGHTS, [tuned(WEIGHTS, i) for i in (1, 2)], method="task_arithmetic", alpha=0.5
    )
    assert found["conv.weight"].tobytes() == want["conv.weight"].tobytes()
    made = plan(base, models)
    assert not made.warnings
    if where == "one model":
        assert any("left out buffers" in note and name in note for note in made.notes)


def test_buffers_in_another_dtype_are_the_same():
    half = BUFFERS["rotary_emb.inv_freq"].astype(ml_dtypes.bfloat16)
    base = WEIGHTS | {"inv_freq": BUFFERS["rotary_emb.inv_freq"]}
    made = plan(base, [tuned(base, 1) | {"inv_freq": half}])
    assert not made.warnings and not made.notes


@pytest.mark.parametrize("dtypes", [("int64", "int32"), ("bool", "uint8"), ("uint64", "int64")])
def test_integers_in_another_dtype_are_the_same(dtypes):
    values = np.array([0, 1, 1])
    base, model = (WEIGHTS | {"ids": values.astype(dtype)} for dtype in dtypes)
    assert not plan(base, [tuned(model, 1)]).warnings
    other = tuned(model, 1) | {"ids": model["ids"][::-1].copy()}
    assert "'ids'" in plan(base, [other]).warnings[0]


def test_buffers_that_differ_are_named_and_not_merged():
    base = WEIGHTS | {"inv_freq": np.ones(4, np.float32)}
    models = [tuned(base, i) | {"inv_freq": np.full(4, i + 2, np.float32)} for i in range(2)]
    made = plan(base, models)
    assert any("buffers differ" in w and "'inv_freq'" in w for w in made.warnings)
    assert breadcrumbs.merge(base, models)["inv_freq"].tolist() == [1] * 4
    one = plan(base, models[:1])
    assert any("as all models have them" in note for note in one.notes) and not one.warnings
    assert breadcrumbs.merge(base, models[:1])["inv_freq"].tolist() == [2] * 4


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, np.uint8])
def test_one_model_whole_and_alpha_1_is_that_model_integers_too(dtype):
    base = WEIGHTS | {"codes": np.zeros(4, dtype), "bn.num_batches_tracked": np.array(3)}
    changed = {"codes": np.array([0, 1, 0, 1], dtype), "bn.num_batches_tracked": np.array(9)}
    model = tuned(base, 1) | changed
    found = breadcrumbs.merge(base, [model], method="task_arithmetic", alpha=1)
    assert all(found[name].tobytes() == model[name].tobytes() for name in model)
    made = plan(base, [model])
    assert len(made.warnings) == 1 and "'codes'" in made.warnings[0]
    both = plan(base, [model, tuned(base, 2)])
    assert any("differ between the models" in w and "'codes'" in w for w in both.warnings)
    assert not any("num_batches" in w for w in both.warnings)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_weights_of_whole_numbers_without_a_scale_are_refused(dtype):
    codes = {"experts.weight": np.arange(12, dtype=dtype).reshape(3, 4)}
    base = WEIGHTS | codes
    models = [tuned(base, i) | {"experts.weight": codes["experts.weight"] + i} for i in (1, 2)]
    models = [{name: value.astype(base[name].dtype) for name, value in m.items()} for m in models]
    for some in (models, models[:1]):
        with pytest.raises(MismatchError, match=r"quantised weights, in an .*unknown layout"):
            plan(base, some)
    assert plan(base, models, exclude=("experts.weight",)).kinds["other"] == 1
    same = [model | codes for model in models]
    assert not plan(base, same).warnings


@pytest.mark.parametrize(
    ("name", "shape"), [("experts.weight", (12,)), ("experts.table", (3, 4)), ("ids", (3, 4))]
)
def test_whole_numbers_that_are_no_weights_are_named(name, shape):
    base = WEIGHTS | {name: np.arange(12, dtype=np.int8).reshape(shape)}
    models = [tuned(base, i) | {name: base[name] + np.int8(i)} for i in (1, 2)]
    assert any(repr(name) in line for line in plan(base, models).warnings)


def test_packed_integers_are_not_counted_as_weights(tmp_path):
    base = WEIGHTS | {"codes": np.zeros(500, np.int32)}
    model = tuned(base, 1) | {"codes": np.ones(500, np.int32)}
    path = tmp_path / "t.safetensors"
    about = breadcrumbs.tasks.pack(base, model, path, transform="none", name="t", base_name="b")
    assert (about.kept, about.weights, about.density) == (24, 24, 1.0)
    found = breadcrumbs.merge(base, [str(path)], method="task_arithmetic", alpha=1)
    assert all(found[name].tobytes() == model[name].tobytes() for name in model)


def test_markers_of_all_models_are_kept_and_of_some_are_named():
    empty = np.zeros(0, np.float32)
    models = [tuned(WEIGHTS, i) | {"v_pred": empty} for i in (1, 2)]
    found = breadcrumbs.merge(WEIGHTS, models)
    assert list(found) == ["conv.weight", "v_pred"] and found["v_pred"].shape == (0,)
    made = plan(WEIGHTS, [models[0], tuned(WEIGHTS, 2)])
    assert any("left out markers" in w and "'v_pred'" in w for w in made.warnings)
    assert "v_pred" not in breadcrumbs.merge(WEIGHTS, [models[0], tuned(WEIGHTS, 2)])


def test_what_is_clipped_where_it_is_infinite():
    """Gemma 4 stores bounds of activations, infinite unless they are set."""
    base = {"w": np.ones((4, 4), np.float32), "q.input_max": np.array(np.inf, np.float32)}
    tuned = base | {"w": base["w"] + 1}
    found = breadcrumbs.merge(base, [tuned, tuned], method="task_arithmetic", alpha=0.25)
    assert found["q.input_max"] == np.inf and (found["w"] == 1.5).all()


def test_infinity_elsewhere_is_still_an_error():
    base = WEIGHTS | {"head.weight": MASK}
    with pytest.raises(MismatchError, match="-inf"):
        breadcrumbs.merge(base, [tuned(base, 1)])


# --- globs -------------------------------------------------------------------------------------


def test_extra_missing_and_nonfinite_take_globs():
    base = WEIGHTS | {"old.weight": np.ones(3, np.float32)}
    model = tuned(WEIGHTS, 1) | {"new.weight": np.ones(3, np.float32)}
    with pytest.raises(MismatchError, match=r'--extra "new.weight"'):
        plan(base, [model])
    with pytest.raises(MismatchError, match=r'--missing "old.weight"'):
        plan(base, [model], extra=("new.*",))
    made = plan(base, [model], extra=["new.*"], missing="old.*")
    assert [t.name for t in made.merged] == ["conv.weight", "old.weight"]
    with pytest.raises(RecipeError, match=r"extra: 'nwe.weight' matches no tensor.*'new.weight'"):
        plan(base, [model], extra=("nwe.weight",), missing="base")
    bad = base | {"old.weight": np.full(3, np.nan, np.float32)}
    for allowed in (True, "old.*", ["old.weight"]):
        found = breadcrumbs.merge(base, [tuned(bad, 1)], allow_nonfinite=allowed)
        assert found["old.weight"].tolist() == [1, 1, 1]
    with pytest.raises(MismatchError, match="nan"):
        breadcrumbs.merge(base, [tuned(bad, 1)], allow_nonfinite=["conv.*"])
    with pytest.raises(RecipeError, match="allow_nonfinite: 'x' matches no"):
        plan(base, [model], allow_nonfinite=["x"], extra="ignore", missing="base")


def test_globs_on_the_command_line_and_in_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(WEIGHTS | {"old.weight": np.ones(3, np.float32)}, "base.safetensors")
    model = tuned(WEIGHTS, 1) | {f"new.{i}.w": np.ones(3, np.float32) for i in range(9)}
    save_file(model | {"conv.weight": np.full((6, 4), np.inf, np.float32)}, "ft.safetensors")
    flags = ["--missing", "old.*", "--extra", "new.*", "--allow-nonfinite", "conv.*"]
    args = ["merge", "base.safetensors", "ft.safetensors", "-m", "task_arithmetic"]
    result = CliRunner().invoke(main, [*args, *flags, "--print-recipe"])
    (tmp_path / "recipe.yaml").write_text(result.stdout)
    dry = CliRunner().invoke(main, ["merge", "recipe.yaml", "--dry-run", "--json"])
    assert dry.exit_code == 0 and json.loads(dry.stdout)["merged"] == 2
    result = CliRunner().invoke(main, [*args, "-o", "out"])
    assert result.exit_code == 1 and '--extra "new.*"' in result.stderr


# --- nothing added -----------------------------------------------------------------------------


def test_a_merge_that_adds_nothing_is_an_error(tmp_path):
    other = {"layer.w": np.ones((2, 2), np.float32)}
    with pytest.raises(MismatchError, match="no tensor of the models is one of base"):
        plan(WEIGHTS, [other], extra="ignore", missing="base")
    save_file(WEIGHTS, tmp_path / "base.safetensors")
    save_file(WEIGHTS, tmp_path / "same.safetensors", {"made": "again"})
    out = tmp_path / "out"
    with pytest.raises(MismatchError, match=r"adds nothing.*same weights"):
        breadcrumbs.merge(
            str(tmp_path / "base.safetensors"), [str(tmp_path / "same.safetensors")], output=out
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "base.safetensors",
        "same.safetensors",
    ]


def test_a_step_that_rounding_takes_is_told_of(tmp_path):
    """Of bfloat16, the nearest numbers are .4 % apart: a smaller step leaves the base as it is."""
    base = {"a.weight": np.full((4, 4), 1, ml_dtypes.bfloat16), "b.weight": np.ones(3, np.float32)}
    near = base | {"a.weight": np.full((4, 4), 1.0078125, ml_dtypes.bfloat16)}
    for name, tensors in (("base", base), ("ft", near)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("base", "ft", "out")]
    arguments = ["merge", *paths[:2], "-m", "task_arithmetic", "--force", "-o", paths[2]]
    for more, told in (
        (["-p", "alpha=0.3"], True),
        (["-p", "alpha=0.3", "--dtype", "float32"], False),
        (["-p", "alpha=0.8"], False),
    ):
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 0
        assert ("rounding removes all of it" in " ".join(result.output.split())) == told
        assert (load_file(paths[2])["a.weight"].astype(np.float32) > 1).all() == (not told)
