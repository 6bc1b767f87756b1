"""Adapters and patches: read as PEFT reads them, written as others read them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from families import assert_same, checkpoints, packed
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, MismatchError

GOLDEN = Path(__file__).parents[1] / "golden" / "peft"
BASE = {
    "model.up.weight": (6, 4),
    "model.down.weight": (4, 6),
    "model.square.weight": (4, 4),
    "model.norm.weight": (4,),
    "model.up.bias": (6,),
}


def base_of(folder: Path, dtype: Any = np.float32, names: dict[str, Any] | None = None) -> Path:
    rng = np.random.default_rng(0)
    tensors = {n: rng.normal(size=s).astype(dtype) for n, s in (names or BASE).items()}
    save_file(tensors, folder / "base.safetensors")
    return folder / "base.safetensors"


def adapter_of(folder: Path, ranks: dict[str, int] | None = None, **config: Any) -> Path:
    """Write an adapter in PEFT's format; ranks by module."""
    rng = np.random.default_rng(1)
    tensors = {}
    for module, rank in (ranks or {"up": 2, "square": 3}).items():
        rows, columns = BASE[f"model.{module}.weight"]
        stem = f"base_model.model.model.{module}.lora_"
        tensors[stem + "A.weight"] = rng.normal(size=(rank, columns)).astype(np.float32)
        tensors[stem + "B.weight"] = rng.normal(size=(rows, rank)).astype(np.float32)
    return written(folder, tensors, **config)


def written(folder: Path, tensors: dict[str, np.ndarray], **config: Any) -> Path:
    path = folder / "adapter"
    path.mkdir(exist_ok=True)
    save_file(tensors, path / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}
    (path / "adapter_config.json").write_text(json.dumps(said))
    return path


@pytest.mark.parametrize("name", ["plain", "everything", "turned", "convolutions"])
def test_as_peft_merges_it(tmp_path: Path, name: str) -> None:
    folder = GOLDEN / name
    base = folder / "base" / "model.safetensors"
    file = tmp_path / "t.safetensors"
    tasks.from_adapter(base, folder / "adapter", file)
    (out,) = tasks.unpack(base, [file], tmp_path / "out.safetensors")
    found, expected, before = (
        load_file(out),
        load_file(folder / "merged.safetensors"),
        load_file(base),
    )
    assert set(found) == set(expected)
    changed = 0
    for key, mine in found.items():
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, expected[key], rtol=3e-7, atol=1e-7, err_msg=key)
        changed += not np.array_equal(mine, before[key])
        assert np.array_equal(mine, before[key]) == np.array_equal(expected[key], before[key]), key
    assert changed == {"plain": 5, "everything": 20, "turned": 4, "convolutions": 2}[name]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, {"up": 4 / 2, "square": 4 / 3}),
        ({"use_rslora": True}, {"up": 4 / 2**0.5, "square": 4 / 3**0.5}),
        ({"alpha_pattern": {"squ.*e": 6, "p": 7}}, {"up": 4 / 2, "square": 6 / 3}),
        ({"lora_alpha": 0.5}, {"up": 0.25, "square": 0.5 / 3}),
    ],
)
def test_b_a_times_scale(tmp_path: Path, config, scales, dtype) -> None:
    base, adapter = base_of(tmp_path, dtype), adapter_of(tmp_path, **config)
    file = tmp_path / "t.safetensors"
    said = tasks.from_adapter(base, adapter, file, name="mine", license="MIT")
    assert (said.name, said.license, said.transform) == ("mine", "MIT", "none")
    (out,) = tasks.unpack(base, [file], tmp_path / "out.safetensors")
    before, after = load_file(base), load_file(out)
    factors = load_file(adapter / "adapter_model.safetensors")
    held = load_file(file)
    for module, scale in scales.items():
        stem = f"base_model.model.model.{module}.lora_"
        a, b = factors[stem + "A.weight"], factors[stem + "B.weight"]
        assert (held[f"left/model.{module}.weight"] == b).all()
        assert (held[f"right/model.{module}.weight"] == a).all()
        delta = scale * (b.astype(np.float64) @ a.astype(np.float64))
        weight = before.pop(f"model.{module}.weight").astype(np.float64) + delta
        mine = after.pop(f"model.{module}.weight")
        assert mine.dtype == (np.float64 if dtype is np.float64 else np.float32)
        np.testing.assert_allclose(mine, weight, rtol=6e-8, atol=1e-15)
    assert_same(before, {name: after[name] for name in before})


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_sums_of_adapters_and_finetunings(tmp_path: Path, dtype) -> None:
    """PEFT adds A to A and B to B; what must be added is B A to B A."""
    base, file = base_of(tmp_path, dtype), tmp_path / "t.safetensors"
    tasks.from_adapter(base, adapter_of(tmp_path), file)
    tuned = {n: (x + dtype(0.25)).astype(dtype) for n, x in load_file(base).items()}
    save_file(tuned, tmp_path / "ft.safetensors")
    for kernel in ("numpy", "native"):
        merged = breadcrumbs.merge(
            base,
            [file, tmp_path / "ft.safetensors"],
            method="task_arithmetic",
            alpha=0.5,
            kernel=kernel,
        )
        (out,) = tasks.unpack(base, [file], tmp_path / "out.safetensors", force=True)
        before, one = load_file(base), load_file(out)
        for name, mine in merged.items():
            under, *wide = (x[name].astype(np.float64) for x in (before, one, tuned))
            expected = under + 0.5 * sum(x - under for x in wide)
            assert mine.dtype == dtype
            rtol = 1e-6 if dtype is np.float32 else 2**-8
            np.testing.assert_allclose(mine.astype(np.float64), expected, rtol=rtol, atol=1e-7)


def test_adapters_in_pickles(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base, adapter = base_of(tmp_path), adapter_of(tmp_path)
    tasks.from_adapter(base, adapter, tmp_path / "a.safetensors")
    weights = adapter / "adapter_model.safetensors"
    tensors = {name: torch.from_numpy(x) for name, x in load_file(weights).items()}
    torch.save(tensors, adapter / "adapter_model.bin")
    weights.unlink()
    tasks.from_adapter(base, adapter, tmp_path / "b.safetensors")
    assert_same(load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors"))


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (lambda n: n, True),
        (lambda n: n.removeprefix("model."), True),
        (lambda n: f"backbone.{n}", True),
        (lambda n: f"backbone.{n.removeprefix('model.')}", True),
        (lambda n: n.replace("up", "upper"), False),
    ],
)
def test_names_with_another_prefix(tmp_path: Path, names, fits: bool) -> None:
    base = base_of(tmp_path, names={names(n): s for n, s in BASE.items()})
    adapter = adapter_of(tmp_path, base_model_name_or_path="org/base")
    if not fits:
        with pytest.raises(MismatchError, match=r"'model.up.weight', which .* lacks.*'org/base'"):
            tasks.from_adapter(base, adapter, tmp_path / "t.safetensors")
        return
    said = tasks.from_adapter(base, adapter, tmp_path / "t.safetensors")
    assert set(said.tensors) == {names("model.up.weight"), names("model.square.weight")}


def test_names_that_fit_twice(tmp_path: Path) -> None:
    names = {f"{tower}.{n}": s for tower in ("first", "second") for n, s in BASE.items()}
    base, adapter = base_of(tmp_path, names=names), adapter_of(tmp_path)
    with pytest.raises(MismatchError, match=r"may be 'first.model.*', 'second.model.*--rename"):
        tasks.from_adapter(base, adapter, tmp_path / "t.safetensors")


def test_which_way_a_matrix_lies(tmp_path: Path) -> None:
    turned = {n: s[::-1] for n, s in BASE.items()}
    base, file = base_of(tmp_path, names=turned), tmp_path / "t.safetensors"
    tasks.from_adapter(base, adapter_of(tmp_path, fan_in_fan_out=True), file)
    (out,) = tasks.unpack(base, [file], tmp_path / "out.safetensors")
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    before, after = load_file(base), load_file(out)
    for module, scale in (("up", 2), ("square", 4 / 3)):
        stem = f"base_model.model.model.{module}.lora_"
        delta = scale * (factors[stem + "B.weight"] @ factors[stem + "A.weight"]).T
        name = f"model.{module}.weight"
        np.testing.assert_allclose(after[name], before[name] + delta, rtol=1e-5, atol=1e-6)
    tasks.from_adapter(base, adapter_of(tmp_path, {"up": 2}), file, force=True)  # shapes tell
    with pytest.raises(MismatchError, match=r"'model.up.weight' lies the other way.*square"):
        tasks.from_adapter(base, adapter_of(tmp_path), file, force=True)


def test_other_tensors_take_the_place_of_the_base(tmp_path: Path) -> None:
    base, file = base_of(tmp_path), tmp_path / "t.safetensors"
    before = load_file(base)
    adapter = adapter_of(tmp_path, {"up": 2}, bias="all", modules_to_save=["norm"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    stem = "base_model.model.model."
    norm = np.arange(4, dtype=np.float32)
    tensors |= {
        stem + "up.base_layer.bias": before["model.up.bias"] + 1,
        stem + "up.base_layer.weight": before["model.up.weight"],
        stem + "norm.weight": norm,
        stem + "norm.original_module.weight": before["model.norm.weight"],
        stem + "norm.modules_to_save.weight": norm,
    }
    written(tmp_path, tensors)
    said = tasks.from_adapter(base, adapter, file)
    assert set(said.tensors) == {"model.up.weight", "model.up.bias", "model.norm.weight"}
    (out,) = tasks.unpack(base, [file], tmp_path / "out.safetensors")
    after = load_file(out)
    assert (after["model.norm.weight"] == norm).all()
    assert (after["model.up.bias"] == before["model.up.bias"] + 1).all()
    written(tmp_path, tensors | {stem + "up.base_layer.weight": before["model.up.weight"] + 1})
    with pytest.raises(MismatchError, match=r"besides the change, are not those of"):
        tasks.from_adapter(base, adapter, file, force=True)
    written(tmp_path, tensors | {"base_model.model.score.weight": norm})
    with pytest.raises(MismatchError, match=r"'score.weight', which .* lacks. Give --extra ignore"):
        tasks.from_adapter(base, adapter, file, force=True)
    assert tasks.from_adapter(base, adapter, file, force=True, extra="ignore").kept
    written(tmp_path, tensors | {stem + "norm.weight": np.ones(5, np.float32)})
    with pytest.raises(MismatchError, match=r"shape \(5,\)"):
        tasks.from_adapter(base, adapter, file, force=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "is of type 'IA3'"),
        ({"use_dora": True}, "use_dora is set, but"),
        ({"lora_bias": True}, "a bias of lora_B"),
        ({"layer_replication": [[0, 2]]}, "layers were repeated"),
        ({"init_lora_weights": "pissa_niter_16"}, "initialised with pissa_niter_16"),
        ({"kasa_config": {"a": 1}}, "sets 'kasa_config'"),
        ({"lora_alpha": "4"}, "lora_alpha cannot be '4'"),
        ({"lora_alpha": True}, "lora_alpha cannot be True"),
        ({"alpha_pattern": {"up": None}}, "lora_alpha cannot be None"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern: .* is not a regular"),
        ({"alpha_pattern": [1]}, "lora_alpha cannot be None"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(tmp_path: Path, config, message: str) -> None:
    base, adapter = base_of(tmp_path), adapter_of(tmp_path, **config)
    with pytest.raises(CheckpointError, match=message):
        tasks.from_adapter(base, adapter, tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(odd=np.ones(2, np.float32)), "'odd' is an unknown tensor"),
        (lambda t: t.pop(next(iter(t))), "of A and B"),
        (lambda t: t.update({k: v[:, :-1] for k, v in t.items()}), "is a product of"),
        (lambda t: t.update({k: v.astype(np.float64) for k, v in t.items()}), "matrices in 'F64'"),
        (lambda t: t.update({k: v * np.nan for k, v in t.items()}), "is not finite"),
        (
            lambda t: t.update({"base_model.model.x.lora_magnitude_vector": np.ones(2, "f4")}),
            "DoRA",
        ),
        (
            lambda t: t.update({"base_model.model.x.lora_B.bias": np.ones(2, "f4")}),
            "an unknown tensor",
        ),
    ],
)
def test_odd_tensors_are_refused(tmp_path: Path, change, message: str) -> None:
    base, adapter = base_of(tmp_path), adapter_of(tmp_path)
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    written(tmp_path, tensors)
    with pytest.raises(BreadcrumbsError, match=message) as raised:
        tasks.from_adapter(base, adapter, tmp_path / "t.safetensors")
    assert str(raised.value).isprintable()
    assert not list(tmp_path.glob("t.*"))


def test_no_adapter(tmp_path: Path) -> None:
    base = base_of(tmp_path)
    with pytest.raises(CheckpointError, match=r"adapter_config.json: cannot be read"):
        tasks.from_adapter(base, tmp_path, tmp_path / "t.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match=r"has no adapter_model.safetensors"):
        tasks.from_adapter(base, tmp_path, tmp_path / "t.safetensors")
    with pytest.raises(MismatchError, match=r"is an adapter, not a base model. Give the model"):
        breadcrumbs.merge(adapter_of(tmp_path), [base])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["peft_type", "lora_alpha", "alpha_pattern", "use_rslora", "fan_in_fan_out"]
        )
        | st.text(max_size=5),
        _JSON,
        max_size=3,
    )
)
def test_any_config_is_taken_or_refused(tmp_path_factory, config) -> None:
    folder = tmp_path_factory.getbasetemp() / "configs"
    if not folder.exists():
        folder.mkdir()
        base_of(folder)
    adapter = adapter_of(folder, **config)
    try:
        tasks.from_adapter(
            folder / "base.safetensors", adapter, folder / "t.safetensors", force=True
        )
    except BreadcrumbsError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("name", ["plain", "everything", "turned", "convolutions"])
def test_an_adapter_of_its_rank_is_exact(tmp_path: Path, name: str) -> None:
    """Out to an adapter and in again: what PEFT merged, to the last digits of float32."""
    base = GOLDEN / name / "base"
    error = tasks.export(
        base, GOLDEN / name / "merged.safetensors", tmp_path / "a", to="lora", rank=3
    )
    assert error["relative"] < 1e-5
    theirs = load_file(GOLDEN / name / "adapter" / "adapter_model.safetensors")
    assert set(load_file(tmp_path / "a" / "adapter_model.safetensors")) <= set(theirs)
    said = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert said["fan_in_fan_out"] == (name == "turned")
    assert said["bias"] == ("all" if name == "everything" else "none")
    tasks.from_adapter(base, tmp_path / "a", tmp_path / "t.safetensors")
    (out,) = tasks.unpack(base, [tmp_path / "t.safetensors"], tmp_path / "out.safetensors")
    expected = load_file(GOLDEN / name / "merged.safetensors")
    for key, mine in load_file(out).items():
        np.testing.assert_allclose(mine, expected[key], rtol=3e-7, atol=1e-7, err_msg=key)


def test_the_error_of_an_adapter(tmp_path: Path) -> None:
    base, model = checkpoints(tmp_path, models=1)
    (file,) = packed(tmp_path, base, [model], transform="none")
    exclude = ["scale", "steps"]
    for rank in (2, 50):
        error = tasks.export(
            base, file, tmp_path / "a", to="lora", rank=rank, exclude=exclude, force=True
        )
        before, tuned = (dict(breadcrumbs.open(path)) for path in (base, model))
        lost = whole = 0.0
        for name in ("embed.weight", "layer.weight", "layer.bias"):
            tau = tuned[name].astype(np.float64) - before[name]
            whole += (tau**2).sum()
            if tau.ndim == 2:
                lost += (np.linalg.svd(tau, compute_uv=False)[rank:] ** 2).sum()
        assert error["relative"] == pytest.approx((lost / whole) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_patch_makes_the_finetuning(tmp_path: Path, dtype: str) -> None:
    base, model = checkpoints(tmp_path, dtype, models=1)
    (file,) = packed(tmp_path, base, [model], transform="none")
    for number, source in enumerate((file, model)):
        path = tmp_path / f"patch{number}.safetensors"
        assert tasks.export(base, source, path, to="patch") is None
        patch = load_file(path)
        state = {name: x.copy() for name, x in breadcrumbs.open(base).items()}
        for key in patch:
            if key.endswith(".indices"):
                name = key.removesuffix(".indices")
                flat = state[name].reshape(-1)
                flat[patch[key]] = patch[f"{name}.values"]
                state[name] = flat.reshape(state[name].shape)
        assert_same(state, dict(breadcrumbs.open(model)))


def test_command_line(tmp_path: Path) -> None:
    base, adapter = str(base_of(tmp_path)), str(adapter_of(tmp_path))
    file, again = str(tmp_path / "t.safetensors"), str(tmp_path / "again")
    ran = CliRunner().invoke(main, ["task", "import", base, adapter, "-o", file])
    assert ran.exit_code == 0 and "2 products and 0 other tensors" in ran.output, ran.output
    ran = CliRunner().invoke(main, ["inspect", file, "--json"])
    held = {tensor["name"]: tensor for tensor in json.loads(ran.output)["tensors"]}
    assert held["model.up.weight"]["bytes"] == 4 * 2 * (6 + 4)
    export = ["task", "export", base, file]
    ran = CliRunner().invoke(main, [*export, "--to", "lora", "--rank", "2", "-o", again])
    assert ran.exit_code == 0 and "of the task vector is lost" in ran.output, ran.output
    ran = CliRunner().invoke(main, [*export, "--to", "lora", "-o", again])
    assert ran.exit_code == 1 and "exists" in ran.output
    dense, patch = str(tmp_path / "d.safetensors"), str(tmp_path / "p.safetensors")
    for to, path in (("dense", dense), ("patch", patch)):
        ran = CliRunner().invoke(main, [*export, "--to", to, "-o", path])
        assert ran.exit_code == 0 and ran.output == f"{path}\n", ran.output
    (out,) = tasks.unpack(base, [file], tmp_path / "out.safetensors")
    assert_same(load_file(out), load_file(dense))
    save_file(
        {**load_file(base), "model.norm.weight": np.ones(4, "f4")}, tmp_path / "n.safetensors"
    )
    ran = CliRunner().invoke(
        main, ["task", "export", base, str(tmp_path / "n.safetensors"), "--to", "lora", "-o", "x"]
    )
    assert ran.exit_code == 1 and "changes no matrix" in ran.output
    shutil.rmtree(again)
