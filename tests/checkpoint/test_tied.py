"""A base whose tied tensors are given apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import hashing
from breadcrumbs.checkpoint.tied import untied
from breadcrumbs.errors import MismatchError
from breadcrumbs.merging import files, opening
from breadcrumbs.plan.recipe import Model, Recipe

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {EMBED: rng.normal(size=(6, 4)).astype(np.float32), "w": np.ones(3, np.float32) * seed}


def test_the_same_bytes_under_another_name(tmp_path: Path) -> None:
    save_file(tensors(1), tmp_path / "base.safetensors")
    with checkpoint.open(tmp_path / "base.safetensors") as base:
        apart = untied(base, {HEAD: EMBED})
        assert list(apart.tensors) == [*base.tensors, HEAD]
        assert (apart[HEAD] == base[EMBED]).all() and apart.tensors[HEAD].name == HEAD
        assert apart.untied == {HEAD: EMBED} and not base.untied
        assert hashing.model_hash(apart) == hashing.model_hash(base)
        assert apart.stored is base and untied(apart, {HEAD: EMBED}).stored is base
        assert untied(base, {}) is base
        with pytest.raises(MismatchError, match=r"no tensor 'model.embed.weight'.*embed_tokens"):
            untied(base, {HEAD: "model.embed.weight"})


def test_a_copy_that_is_stored_stays(tmp_path: Path) -> None:
    held = tensors(1) | {HEAD: np.full((6, 4), 2.0, np.float32)}
    apart = untied(checkpoint.open(held), {HEAD: EMBED})
    assert (apart[HEAD] == 2).all() and apart.untied == {HEAD: EMBED}
    assert apart.stored and list(apart.stored.tensors) == list(held)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"tie_word_embeddings": True}, {"tie_word_embeddings": False}),
        ({}, {"tie_word_embeddings": False}),
        (
            {"text_config": {"tie_word_embeddings": True, "a": 1}, "vision_config": {}},
            {
                "text_config": {"tie_word_embeddings": False, "a": 1},
                "vision_config": {},
                "tie_word_embeddings": False,
            },
        ),
    ],
)
def test_written_apart_with_a_config_that_says_so(tmp_path: Path, config, expected) -> None:
    (tmp_path / "base").mkdir()
    save_file(tensors(1), tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    model = tensors(2) | {HEAD: np.zeros((6, 4), np.float32)}
    save_file(model, tmp_path / "ft.safetensors")
    recipe = Recipe(
        str(tmp_path / "base"),
        (Model(str(tmp_path / "ft.safetensors")),),
        "task_arithmetic",
        {"alpha": 1.0},
    )
    with checkpoint.open(tmp_path / "base") as base:
        sources = [untied(base, {HEAD: EMBED}), tmp_path / "ft.safetensors"]
        with opening.opened(recipe, sources) as plan:
            files.to_files(plan, tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert set(out) == set(model)
    assert not out[HEAD].any()
    np.testing.assert_allclose(out[EMBED], model[EMBED], rtol=1e-6)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == expected
    plain = breadcrumbs.merge(tmp_path / "base", [tensors(2)], method="average", output=None)
    assert HEAD not in plain
