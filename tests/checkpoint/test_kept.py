"""Tied tensors of which a file keeps another name than that of the embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.errors import MismatchError

RNG = np.random.default_rng(5)
HOW = {"method": "task_arithmetic", "alpha": 0.3}
#: The name that is kept, those that the metadata name, and what the tensor is then.
KEPT = {
    "Llama": ("lm_head.weight", ["model.embed_tokens.weight"], "model.embed_tokens.weight"),
    "T5": (
        "decoder.embed_tokens.weight",
        ["lm_head.weight", "shared.weight", "encoder.embed_tokens.weight"], "shared.weight",
    ),
    "MPNet": (
        "lm_head.decoder.weight", ["mpnet.embeddings.word_embeddings.weight"],
        "mpnet.embeddings.word_embeddings.weight",
    ),
    "a bias": ("lm_head.bias", ["lm_head.decoder.bias"], "lm_head.bias"),
    "the embeddings": ("a.wte.weight", ["lm_head.weight"], "a.wte.weight"),
}  # fmt: skip


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("case", KEPT)
def test_metadata_tell_what_a_tensor_is(tmp_path: Path, case: str) -> None:
    kept, others, name = KEPT[case]
    tensors = {"a.block.w": normal(4, 4), kept: normal(16, 4)}
    save_file(tensors, tmp_path / "model.safetensors", {other: kept for other in others})
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with checkpoint.open(path) as found:
            assert list(found) == ["a.block.w", name]
            assert np.array_equal(found[name], tensors[kept])
            said = (f"{name!r} is stored as {kept!r}, to which it is tied",)
            assert found.notes == (said if name != kept else ())


def test_metadata_of_shards_are_in_their_index(tmp_path: Path) -> None:
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    save_file({"lm_head.weight": normal(16, 4)}, tmp_path / names[0])
    save_file({"model.layers.0.w": normal(4, 4)}, tmp_path / names[1])
    index = {
        "metadata": {"total_size": 320, "model.embed_tokens.weight": "lm_head.weight"},
        "weight_map": {"lm_head.weight": names[0], "model.layers.0.w": names[1]},
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with checkpoint.open(tmp_path) as found:
        assert set(found) == {"model.embed_tokens.weight", "model.layers.0.w"}


def test_what_is_stored_too_stays(tmp_path: Path) -> None:
    tensors = {"lm_head.weight": normal(16, 4), "model.embed_tokens.weight": normal(16, 4)}
    said = {"model.embed_tokens.weight": "lm_head.weight", "format": "pt"}
    save_file(tensors, tmp_path / "model.safetensors", said)
    with checkpoint.open(tmp_path) as found:
        assert set(found) == set(tensors)


def model(name: str, table: np.ndarray, body: np.ndarray) -> dict[str, np.ndarray]:
    return {"model.layers.0.w": body, name: table}


TABLE, BODY = normal(16, 4), normal(4, 4)
TUNED = [(TABLE + normal(16, 4) / 9, BODY + normal(4, 4) / 9) for _ in range(2)]


@pytest.mark.parametrize(
    ("base", "mine"),
    [
        ("model.embed_tokens.weight", "lm_head.weight"),
        ("lm_head.weight", "model.embed_tokens.weight"),
        ("shared.weight", "encoder.embed_tokens.weight"),
        ("model.shared.weight", "lm_head.weight"),
    ],
)
def test_one_copy_of_another_name(base: str, mine: str) -> None:
    """Each model stores one of two names, and none says that they are one tensor."""
    want = breadcrumbs.merge(model(base, TABLE, BODY), [model(base, *t) for t in TUNED], **HOW)
    models = [model(mine, *TUNED[0]), model(base, *TUNED[1])]
    found = breadcrumbs.merge(model(base, TABLE, BODY), models, **HOW)
    assert found.keys() == want.keys()
    assert all(np.array_equal(found[name], want[name]) for name in want)


def test_several_equal_copies_of_other_names() -> None:
    base = model("shared.weight", TABLE, BODY)
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    both = model(names[0], *TUNED[0]) | {names[1]: TUNED[0][0]}
    want = breadcrumbs.merge(base, [model("shared.weight", *TUNED[0])], **HOW)
    assert np.array_equal(
        breadcrumbs.merge(base, [both], **HOW)["shared.weight"], want["shared.weight"]
    )
    with pytest.raises(MismatchError, match=r"tensors that base lacks: 'encoder.embed_tokens"):
        breadcrumbs.merge(base, [both | {names[1]: TUNED[1][0]}], **HOW)


def test_what_is_no_copy(tmp_path: Path) -> None:
    """A head of a model that says so, one beside embeddings, and one of another shape."""
    base = model("model.embed_tokens.weight", TABLE, BODY)
    head = model("lm_head.weight", *TUNED[0])
    config = {"model_type": "llama", "tie_word_embeddings": False}
    save_file(head, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    others = [
        tmp_path,
        head | {"model.wte.weight": normal(16, 4)},
        head | {"lm_head.weight": normal(15, 4)},
    ]
    for other in others:
        with pytest.raises(MismatchError, match="that base lacks"):
            breadcrumbs.merge(base, [other], **HOW)
    two = {"encoder.embed_tokens.weight": TABLE, "decoder.embed_tokens.weight": normal(16, 4)}
    one = {"encoder.embed_tokens.weight": TABLE, "lm_head.weight": TUNED[0][0]}
    with pytest.raises(MismatchError, match="that base lacks"):
        breadcrumbs.merge(two, [one], **HOW)


def test_the_output_has_the_embeddings(tmp_path: Path) -> None:
    kept = {"model.embed_tokens.weight": "lm_head.weight"}
    (tmp_path / "base").mkdir()
    save_file(model("lm_head.weight", TABLE, BODY), tmp_path / "base/model.safetensors", kept)
    models = [model("model.embed_tokens.weight", *t) for t in TUNED]
    breadcrumbs.merge(tmp_path / "base", models, output=tmp_path / "out", **HOW)
    want = breadcrumbs.merge(model("model.embed_tokens.weight", TABLE, BODY), models, **HOW)
    found = load_file(tmp_path / "out/model.safetensors")
    assert found.keys() == want.keys()
    assert all(np.array_equal(found[name], want[name]) for name in want)
