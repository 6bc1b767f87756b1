"""Tensors of several names that are one."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import checkpoint, tasks
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.merging import files, opening
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan import ties
from breadcrumbs.plan.recipe import Model, Recipe, override

RNG = np.random.default_rng(11)
T5 = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
BART = ("model.shared.weight", "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight", "lm_head.weight")  # fmt: skip


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(names, table: np.ndarray, body: np.ndarray) -> dict[str, np.ndarray]:
    return {"block.0.w": body, **{name: table.copy() for name in names}}


TABLE, BODY = normal(24, 8), normal(8, 8)
TUNED = [(TABLE + normal(24, 8) / 9, BODY + normal(8, 8) / 9) for _ in range(3)]


def plan(base, models, **arguments: Any):
    overrides = tuple(override(o, "o") for o in arguments.pop("overrides", []))
    listed = tuple(Model(f"model {i + 1}") for i in range(len(models)))
    recipe = Recipe("base", listed, overrides=overrides, **arguments)
    with opening.opened(recipe, [base, *models]) as made:
        return made


def methods() -> list[str]:
    return [m.name for m in METHODS.values() if m.statistics is None and m.name != "lines"]


@pytest.mark.parametrize("method", methods())
def test_copies_count_once_and_stay_equal_whatever_files_store(method):
    """The model of one copy, and those of all copies, of some, of others, to the same bits."""
    number = METHODS[method].aggregate.models[1] or 3
    given: dict[str, Any] = {"task": "model 1"} if method == "tall_mask" else {}
    single = model(T5[:1], TABLE, BODY)
    want = breadcrumbs.merge(
        single, [model(T5[:1], *t) for t in TUNED[:number]], method=method, **given
    )
    for stored in ([T5, T5, T5], [T5[:1], T5, T5[1:2]], [T5[:1]] * 3, [T5[2:]] * 3):
        tuned = [model(names, *t) for names, t in zip(stored, TUNED, strict=True)][:number]
        found = breadcrumbs.merge(model(T5, TABLE, BODY), tuned, method=method, **given)
        assert set(found) == {*T5, "block.0.w"}
        for name in T5:
            assert found[name].tobytes() == want["shared.weight"].tobytes(), (stored, name)
        assert found["block.0.w"].tobytes() == want["block.0.w"].tobytes()


def test_the_plan_names_them():
    made = plan(model(BART, TABLE, BODY), [model(BART[:1], *TUNED[0])])
    assert {t.name: t.tied for t in made.tensors if t.tied} == {
        name: "model.shared.weight" for name in BART[1:]
    }
    assert dict(made.kinds) == {"weight": 2, "tied copy": 3}
    assert made.bytes_read == 2 * (24 * 8 + 64) * 4


@pytest.mark.parametrize(
    "ends", [("predictions", "predictions.decoder"), ("lm_head", "lm_head.decoder")]
)
def test_biases_of_masked_language_models(ends):
    names = [f"cls.{end}.bias" if end.startswith("p") else f"{end}.bias" for end in ends]
    bias, tuned = normal(24), normal(24)
    base = {"w": BODY, names[0]: bias, names[1]: bias.copy()}
    found = breadcrumbs.merge(base, [{"w": BODY + 1, names[0]: tuned}], method="average")
    assert found[names[0]].tobytes() == found[names[1]].tobytes() == tuned.tobytes()


@pytest.mark.parametrize("ends", [("predictions.bias", "predictions.decoder.bias"),
                                  ("lm_head.bias", "lm_head.decoder.bias")])  # fmt: skip
def test_a_bias_that_a_model_alone_stores_twice(ends):
    one, other = (f"cls.{end}" for end in ends)
    base, bias = {"a.w": BODY, one: normal(8)}, normal(8)
    stored = {"a.w": BODY + 1, one: bias, other: bias.astype(ml_dtypes.bfloat16)}
    stored[one] = stored[other].astype(np.float32)
    found = breadcrumbs.merge(base, [stored], method="task_arithmetic", alpha=1)
    assert set(found) == set(base)
    assert np.allclose(found[one], stored[one], atol=1e-6)
    with pytest.raises(MismatchError, match=other):
        breadcrumbs.merge(base, [stored | {other: bias + 1}], method="task_arithmetic", alpha=1)


def test_a_copy_in_another_dtype():
    base = {"model.embed_tokens.weight": TABLE.astype(ml_dtypes.bfloat16), "w": BODY}
    tuned = {"model.embed_tokens.weight": TUNED[0][0].astype(ml_dtypes.bfloat16), "w": BODY}
    for dtype in (np.float32, np.float64):
        both = tuned | {"lm_head.weight": tuned["model.embed_tokens.weight"].astype(dtype)}
        found = breadcrumbs.merge(base, [both], method="average")
        assert list(found) == list(base)
    # What was rounded when it was copied is the same too; what differs by more is not.
    rounded = tuned | {"lm_head.weight": TUNED[0][0]}
    assert breadcrumbs.merge(base, [rounded], method="average")
    with pytest.raises(MismatchError, match=r"lm_head.weight"):
        plan(base, [tuned | {"lm_head.weight": TUNED[0][0] * 1.1}])


# --- untied ------------------------------------------------------------------------------------

LLAMA = ("model.embed_tokens.weight", "lm_head.weight")


def folder(path, tensors, **config) -> str:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return str(path)


@pytest.mark.parametrize("stored", [1, 2])
def test_a_model_that_has_untied_its_head(tmp_path, stored):
    base = folder(tmp_path / "base", model(LLAMA[:stored], TABLE, BODY), tie_word_embeddings=True)
    head = normal(24, 8)
    apart = folder(tmp_path / "ft", model(LLAMA, *TUNED[0]) | {"lm_head.weight": head})
    tied = folder(tmp_path / "ft2", model(LLAMA[:1], *TUNED[1]))
    given: dict[str, Any] = dict(method="task_arithmetic", alpha=0.5)
    with pytest.raises(
        MismatchError, match=r"ft: has untied 'lm_head.weight' .*merge --untie.* need"
    ):
        breadcrumbs.merge(base, [apart, tied], output=tmp_path / "no", **given)
    breadcrumbs.merge(base, [apart, tied], output=tmp_path / "out", untie=True, **given)
    out = load_file(tmp_path / "out/model.safetensors")
    steps = np.float64(0.5) * (head.astype(np.float64) - TABLE), 0.5 * (TUNED[1][0] - TABLE)
    assert np.allclose(out["lm_head.weight"], TABLE + steps[0] + steps[1], atol=1e-6)
    assert not np.allclose(out["lm_head.weight"], out["model.embed_tokens.weight"])
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    again = breadcrumbs.merge(base, [apart, tied], untie=True, **given)
    assert all(again[name].tobytes() == out[name].tobytes() for name in out)


def test_a_base_whose_config_ties_nothing_has_no_copies_to_speak_of(tmp_path):
    base = folder(tmp_path / "base", model(LLAMA, TABLE, BODY), tie_word_embeddings=False)
    apart = model(LLAMA, *TUNED[0]) | {"lm_head.weight": normal(24, 8)}
    made = plan(base, [apart])
    assert not any(tensor.tied for tensor in made.tensors)
    found = breadcrumbs.merge(base, [apart], method="task_arithmetic", alpha=1)
    assert all(found[name].tobytes() == apart[name].tobytes() for name in apart)


def test_what_is_said_of_one_copy_alone():
    base, tuned = model(LLAMA, TABLE, BODY), model(LLAMA, *TUNED[0])
    for given in (
        {"exclude": ("lm_head*",)},
        {"only": ("lm_head*", "block*")},
        {"overrides": [{"tensors": "lm_head*", "alpha": 1}]},
    ):
        with pytest.raises(RecipeError, match=r"lm_head\*' matches one of .* Name both.*--untie"):
            plan(base, [tuned], **given)
    both = plan(base, [tuned], exclude=("lm_head*", "*embed_tokens*"))
    assert [tensor.name for tensor in both.merged] == ["block.0.w"]
    found = breadcrumbs.merge(base, [tuned], exclude="lm_head*", untie=True, method="average")
    assert found["lm_head.weight"].tobytes() == TABLE.tobytes()
    assert found["model.embed_tokens.weight"].tobytes() == TUNED[0][0].tobytes()


def test_layers_that_happen_to_be_equal_are_merged_apart_where_models_tell_them_apart():
    base = {"layers.0.w": BODY, "layers.1.w": BODY.copy(), "layers.2.w": BODY.copy()}
    tuned = {"layers.0.w": BODY + 1, "layers.1.w": BODY + 2, "layers.2.w": BODY + 1}
    made = plan(base, [tuned])
    assert {t.name: t.tied for t in made.tensors if t.tied} == {"layers.2.w": "layers.0.w"}
    found = breadcrumbs.merge(base, [tuned], method="task_arithmetic", alpha=1)
    assert all(found[name].tobytes() == tuned[name].tobytes() for name in tuned)


def test_groups_are_found_among_many_tensors_of_one_shape():
    arrays = {f"e.{i}.w": normal(4, 4) for i in range(300)}
    arrays["copy.w"] = arrays["e.7.w"].copy()
    arrays["near.w"] = arrays["e.8.w"].copy()
    arrays["near.w"][2, 1] += 1
    assert ties.groups(checkpoint.open(arrays)) == [("e.7.w", "copy.w")]


# --- through files -----------------------------------------------------------------------------


@pytest.mark.parametrize("names", [T5, BART])
def test_task_files_hold_one_copy_and_give_all(tmp_path, names):
    base, tuned = model(names, TABLE, BODY), model(names, *TUNED[0])
    save_file(base, tmp_path / "base.safetensors")
    paths = []
    for i, stored in enumerate((names, names[:1])):
        paths.append(str(tmp_path / f"t{i}.safetensors"))
        tasks.pack(
            base, model(stored, *TUNED[0]), paths[i], transform="none", name="t", base_name="b"
        )
    assert (tmp_path / "t0.safetensors").read_bytes() == (tmp_path / "t1.safetensors").read_bytes()
    found = breadcrumbs.merge(
        str(tmp_path / "base.safetensors"), paths[:1], method="task_arithmetic", alpha=1
    )
    assert all(found[name].tobytes() == tuned[name].tobytes() for name in tuned)
    tasks.unpack(base, paths[:1], tmp_path / "un.safetensors")
    back = load_file(tmp_path / "un.safetensors")
    assert all(back[name].tobytes() == tuned[name].tobytes() for name in tuned)


def test_a_merge_that_was_interrupted_goes_on_with_copies(tmp_path, monkeypatch):
    from breadcrumbs.engine.consumers import Writing

    save_file(model(T5, TABLE, BODY), tmp_path / "base.safetensors")
    save_file(model(T5[:1], *TUNED[0]), tmp_path / "ft.safetensors")
    paths = str(tmp_path / "base.safetensors"), [str(tmp_path / "ft.safetensors")]
    given: dict[str, Any] = dict(method="ties", output=tmp_path / "out")

    def stop(self, plan):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Writing, "end", stop)
        breadcrumbs.merge(*paths, **given)
    recipe = Recipe(paths[0], (Model(paths[1][0]),), "ties")
    with opening.opened(recipe) as made:
        files.to_files(made, tmp_path / "out", resume=True, verify=True)
    found = load_file(tmp_path / "out/model.safetensors")
    want = breadcrumbs.merge(*paths, method="ties")
    assert all(found[name].tobytes() == want[name].tobytes() for name in want)
    assert found[T5[1]].tobytes() == found[T5[0]].tobytes()


def test_archives_and_comparisons_take_copies_as_one(tmp_path):
    base = model(T5, TABLE, BODY)
    tuned = [model(T5[:1], *TUNED[0]), model(T5, *TUNED[1])]
    breadcrumbs.compress(base, tuned, tmp_path / "a.safetensors", names=["a", "b"])
    for name, (table, _) in zip("ab", TUNED, strict=False):
        breadcrumbs.extract(
            tmp_path / "a.safetensors", name, tmp_path / f"{name}-out.safetensors", base=base
        )
        back = load_file(tmp_path / f"{name}-out.safetensors")
        assert len({back[copy].tobytes() for copy in T5}) == 1
        assert np.linalg.norm(back[T5[0]] - table) < np.linalg.norm(TABLE - table)
    assert breadcrumbs.compare(base, tuned)
