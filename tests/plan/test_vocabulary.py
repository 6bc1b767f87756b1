"""Rows matched by token: against loops over Python floats, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import archives
from breadcrumbs.checkpoint import vocabulary
from breadcrumbs.cli import main
from breadcrumbs.errors import BreadcrumbsError, MismatchError, RecipeError
from breadcrumbs.merging import files, opening, sweep
from breadcrumbs.plan import recipe
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.store import Store
from breadcrumbs.tasks import packing
from breadcrumbs.tune.soup import greedy_soup

EMBED, HEAD, BIAS, NORM = "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias", "norm"
TABLES = (EMBED, HEAD, BIAS)
WIDTH = 5
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}


def fast(tokens: dict[str, int], added: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a tokenizer.json."""
    pieces = {token: i for token, i in tokens.items() if token not in added}
    rows = [{"id": tokens[t], "content": t, "special": True, "normalized": False} for t in added]
    return {"model": {"type": "WordLevel", "vocab": pieces}, "added_tokens": rows}


def save(
    folder: Path,
    tokens: dict[str, int],
    rows: int,
    seed: int,
    added: tuple[str, ...] = (),
    near: dict[str, np.ndarray] | None = None,
    dtype: str = "float64",
    config: dict[str, Any] | None = None,
) -> str:
    """Save a model with an embedding, a head and a bias of it.

    near: of another model, which it is a fine-tuning of: what has no row for tokens.
    """
    rng = np.random.default_rng(seed)
    shapes = {EMBED: (rows, WIDTH), HEAD: (rows, WIDTH), BIAS: (rows,), NORM: (7,)}
    tensors = {n: rng.standard_normal(s).astype(dtype) for n, s in shapes.items()}
    if near is not None:
        tensors[NORM] = near[NORM] + tensors[NORM] / 8
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "tokenizer.json").write_text(json.dumps(fast(tokens, added)))
    (folder / "config.json").write_text(json.dumps({**LLAMA, "vocab_size": rows, **(config or {})}))
    return str(folder)


def by_token(folder: str | Path) -> dict[str, dict[str, list[float]]]:
    """Return the rows of the tables of a model by token, each as a list of floats."""
    tensors = load_file(Path(folder) / "model.safetensors")
    found = vocabulary.read(Path(folder))
    assert found is not None
    return {
        name: {t: np.atleast_1d(tensors[name][i]).tolist() for t, i in found.ids.items()}
        for name in TABLES
    }


def numbered(tokens: list[str], rng: random.Random, spare: int) -> tuple[dict[str, int], int]:
    """Return tokens under numbers in any order, with rows that are none among them."""
    places = rng.sample(range(len(tokens) + spare), len(tokens))
    return dict(zip(tokens, places, strict=True)), len(tokens) + spare


# --- a slow reference ----------------------------------------------------------------------------


def kept(values: dict[tuple[str, int], float], beta: float, gamma: float) -> set[tuple[str, int]]:
    """Return which entries are kept of those that are ranked together, in the order given."""
    n, order = len(values), sorted(values, key=lambda key: abs(values[key]))
    first, last = math.floor(beta * n + 1e-9), n - math.floor((1 - gamma) * n + 1e-9)
    return set(order[first:last])


def slow(
    name: str, tokens: list[str], base: Any, models: list[Any], alpha: float, cut: Any, whole: bool
) -> dict[str, list[float]]:
    """Return the merged rows by token. cut: beta and gamma, or None. whole: all rows are ranked
    together, in the order of ``tokens``; else each row."""
    result: dict[str, list[float]] = {}
    old = base[name]
    for token in tokens:
        owners = [model[name][token] for model in models if token in model[name]]
        if token in old:
            result[token] = list(old[token])
        elif owners:
            result[token] = [
                math.fsum(column) / len(owners) for column in zip(*owners, strict=True)
            ]
    for model in models:
        mine = {
            (token, j): model[name][token][j] - old[token][j]
            for token in tokens
            if token in old and token in model[name]
            for j in range(len(old[token]))
        }
        groups = [mine] if whole else [
            {key: x for key, x in mine.items() if key[0] == token} for token in old
        ]  # fmt: skip
        for group in groups:
            for token, j in kept(group, *cut) if cut else group:
                result[token][j] += alpha * group[token, j]
    return result


METHODS = {
    "task_arithmetic": ({}, None, False),
    "breadcrumbs": ({"beta": 0.4, "gamma": 0.8}, (0.4, 0.8), False),
    "breadcrumbs of rows": ({"beta": 0.4, "gamma": 0.8, "granularity": "row"}, (0.4, 0.8), False),
    "breadcrumbs of tensors": (
        {"beta": 0.25, "gamma": 0.9, "granularity": "tensor"}, (0.25, 0.9), True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_of_models_with_other_tokens_in_any_order(tmp_path, seed, method):
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(11)]
    ids, rows = numbered(words, rng, 2)
    save(tmp_path / "base", ids, rows, 0)
    base = load_file(tmp_path / "base" / "model.safetensors")
    for k, more in enumerate((["<x>"], ["<x>", "<y>", "<z>"])):
        mine = rng.sample(words, 9)
        tokens, rows = numbered([*mine, *more], rng, 3 * k)
        save(tmp_path / f"ft{k}", tokens, rows, k + 1, tuple(more), near=base)
    given, cut, whole = METHODS[method]
    report = breadcrumbs.merge(
        str(tmp_path / "base"),
        [str(tmp_path / "ft0"), str(tmp_path / "ft1")],
        method=method.split()[0],
        output=tmp_path / "out",
        vocabulary="union",
        pad_to=16,
        alpha=0.7,
        **given,
    )
    found = vocabulary.read(tmp_path / "out")
    assert found is not None and found.ids.keys() == {*words, "<x>", "<y>", "<z>"}
    assert {t: i for t, i in found.ids.items() if t in ids} == ids
    merged, read = by_token(tmp_path / "out"), [by_token(tmp_path / f"ft{k}") for k in range(2)]
    old = by_token(tmp_path / "base")
    order = sorted(found.ids, key=found.ids.__getitem__)
    for name in TABLES:
        by_row = whole or name == BIAS  # a bias is no table: ranked as one
        wanted = slow(name, order, old, read, 0.7, cut, by_row)
        for token in order:
            np.testing.assert_allclose(merged[name][token], wanted[token], rtol=0, atol=1e-12)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written[EMBED].shape == (16, WIDTH) and written[BIAS].shape == (16,)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 16
    assert "the union of all: 14 tokens in 16 rows" in " ".join(report.notes)
    again = recipe.load(tmp_path / "out" / "breadcrumbs.yaml")
    assert (again.vocabulary, again.pad_to) == ("union", 16)
    with opening.opened(again, by_token=True) as plan:
        files.to_files(plan, tmp_path / "again", kernel="numpy", threads=1)
    other = load_file(tmp_path / "again" / "model.safetensors")
    assert all(other[name].tobytes() == written[name].tobytes() for name in written)


# --- which vocabulary ----------------------------------------------------------------------------

A, B, C = "a", "b", "c"
THREE = {A: 0, B: 1, C: 2}
CHAT = {**THREE, "<s>": 3, "</s>": 4}


def merged(folder: Path, *models: str, **given: Any) -> dict[str, np.ndarray]:
    breadcrumbs.merge(
        models[0], models[1:], method="task_arithmetic", alpha=1, output=folder, **given
    )
    return load_file(folder / "model.safetensors")


@pytest.fixture
def family(tmp_path):
    """Return a base of 3 tokens in 4 rows, and one with two more in 8."""
    base = save(tmp_path / "base", THREE, 4, 0, config={"eos_token_id": 1, "pad_token_id": 2})
    chat = save(tmp_path / "chat", CHAT, 8, 1, ("<s>", "</s>"), config={"eos_token_id": 4})
    return base, chat


def test_the_smallest_vocabulary_that_loses_no_token(tmp_path, family):
    base, chat = family
    out, mine = merged(tmp_path / "out", base, chat), load_file(Path(chat) / "model.safetensors")
    np.testing.assert_allclose(out[EMBED], mine[EMBED])  # rows of chat, its padding as it is there
    assert (tmp_path / "out/tokenizer.json").read_text() == Path(chat, "tokenizer.json").read_text()
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (said["vocab_size"], said["eos_token_id"]) == (8, 4)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_padding_alone_loses_no_token(tmp_path, order):
    small = save(tmp_path / "small", THREE, 3, 0)
    wide = save(tmp_path / "wide", THREE, 8, 1)
    base, model = [(small, wide), (wide, small)][order[0]]
    rows = [3, 8][order[0]]
    before = load_file(Path(base) / "model.safetensors")
    out = merged(tmp_path / "out", base, model)
    assert out[EMBED].shape == (rows, WIDTH)
    assert out[EMBED][3:].tobytes() == before[EMBED][3:].tobytes(), "padding is no part of a merge"
    mine = load_file(Path(model) / "model.safetensors")
    np.testing.assert_allclose(out[HEAD][:3], mine[HEAD][:3])


@pytest.mark.parametrize("given", ["base", "union", "chat", None])
def test_what_is_asked_for(tmp_path, family, given):
    base, chat = family
    wanted = chat if given == "chat" else given
    out = merged(tmp_path / "out", base, chat, vocabulary=wanted)
    mine = load_file(Path(chat) / "model.safetensors")
    rows = {"base": 4, "union": 5}.get(given or "", 8)
    assert out[EMBED].shape[0] == out[HEAD].shape[0] == out[BIAS].shape[0] == rows
    known = vocabulary.read(tmp_path / "out")
    assert known is not None and max(known.ids.values()) < rows
    for number in range(3 if given == "base" else 5):
        np.testing.assert_allclose(out[HEAD][number], mine[HEAD][number])


def test_padding_is_made_as_the_mean_and_never_the_most_likely(tmp_path, family):
    base, chat = family
    out = merged(tmp_path / "out", base, chat, vocabulary="base", pad_to=64)
    assert out[HEAD].shape == (64, WIDTH)
    old = load_file(Path(base) / "model.safetensors")
    assert out[HEAD][3].tobytes() == old[HEAD][3].tobytes()
    np.testing.assert_allclose(out[HEAD][4:], np.tile(old[HEAD].mean(axis=0), (60, 1)), atol=1e-15)
    assert merged(tmp_path / "bare", base, chat, vocabulary="base", pad_to=1)[HEAD].shape[0] == 3


def test_tokens_in_the_padding_of_the_base(tmp_path):
    """Of equal shapes, one row is that of a token that the base lacks: taken, not merged."""
    base = save(tmp_path / "base", THREE, 8, 0)
    chat = save(tmp_path / "chat", CHAT, 8, 1, ("<s>", "</s>"))
    breadcrumbs.merge(base, [chat], method="task_arithmetic", alpha=0.25, output=tmp_path / "out")
    old, mine, out = (
        load_file(Path(f) / "model.safetensors") for f in (base, chat, tmp_path / "out")
    )
    assert out[EMBED][3:].tobytes() == mine[EMBED][3:].tobytes()
    np.testing.assert_allclose(out[EMBED][:3], old[EMBED][:3] * 0.75 + mine[EMBED][:3] * 0.25)


def test_a_row_without_a_name_is_what_the_base_calls_it(tmp_path):
    """A tokenizer that leaves out a token, and an embedding that has it, change nothing."""
    base = save(tmp_path / "base", THREE, 4, 0)
    tuned = save(tmp_path / "ft", {A: 0, C: 2}, 4, 1)
    out, mine = merged(tmp_path / "out", base, tuned), load_file(Path(tuned) / "model.safetensors")
    assert all(np.allclose(out[name], mine[name]) for name in TABLES)


def test_tables_that_are_left_as_they_are_keep_the_vocabulary(tmp_path, family):
    out = merged(tmp_path / "out", *family, exclude=["*embed*", "lm_head*"])
    old = load_file(Path(family[0]) / "model.safetensors")
    assert all(out[name].tobytes() == old[name].tobytes() for name in TABLES)


def test_onto_another_model(tmp_path, family):
    base, chat = family
    tuned = save(tmp_path / "ft", {C: 0, A: 1, B: 2}, 3, 2)
    out = merged(tmp_path / "out", base, tuned, onto=chat)
    old, mine, target = (by_token(folder)[EMBED] for folder in (base, tuned, chat))
    assert out[EMBED].shape == (8, WIDTH)
    for token, number in CHAT.items():
        step = np.subtract(mine[token], old[token]) if token in old else np.zeros(WIDTH)
        np.testing.assert_allclose(out[EMBED][number], target[token] + step)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (said["vocab_size"], said["eos_token_id"]) == (8, 4)


def test_narrow_and_wide_dtypes_leave_added_rows_exact(tmp_path):
    base = save(tmp_path / "base", THREE, 3, 0, dtype="float32")
    half = save(tmp_path / "half", {B: 0, "<x>": 1}, 2, 1, ("<x>",), dtype="float16")
    out = merged(tmp_path / "out", base, half)
    old, mine = by_token(base)[EMBED], by_token(half)[EMBED]
    known = vocabulary.read(tmp_path / "out")
    assert known is not None and out[EMBED].dtype == np.float32
    for token, row in {A: old[A], C: old[C], "<x>": mine["<x>"]}.items():
        assert out[EMBED][known.ids[token]].tolist() == row


def test_numbers_in_configs_follow_their_tokens(tmp_path):
    config = {"pad_token_id": 2, "image_token_index": 0, "text_config": {"vocab_size": 3}}
    base = save(tmp_path / "base", THREE, 3, 0, config=config)
    other = save(tmp_path / "ft", {C: 0, A: 1, B: 2, "<x>": 3}, 4, 1, ("<x>",))
    merged(tmp_path / "out", base, other)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["image_token_index"] == 1 and said["text_config"]["vocab_size"] == 4


@pytest.mark.parametrize("who", ["chat", "both"])
def test_a_head_that_one_model_unties_brings_its_own_rows(tmp_path, who):
    """The base ties its head; what chat has apart goes out apart, rows of its tokens too."""
    tie, added = {"tie_word_embeddings": True}, ("<s>", "</s>")
    base = save(tmp_path / "base", THREE, 4, 0, config=tie)
    chat = save(tmp_path / "chat", CHAT, 5, 1, added)
    tied = save(tmp_path / "tied", {**THREE, "<x>": 3}, 4, 2, ("<x>",), config=tie)
    for folder in (base, tied):
        tensors = load_file(Path(folder) / "model.safetensors")
        kept = {name: tensors[name] for name in (EMBED, NORM)}
        save_file(kept, Path(folder) / "model.safetensors", {"format": "pt"})
    tensors = load_file(Path(chat) / "model.safetensors")
    del tensors[BIAS]
    save_file(tensors, Path(chat) / "model.safetensors", {"format": "pt"})
    models = [base, chat, tied] if who == "both" else [base, chat]
    refused(MismatchError, "has untied 'lm_head.weight'", *models)
    out = merged(tmp_path / "out", *models, untie=True)
    old, its = (load_file(Path(f) / "model.safetensors")[EMBED] for f in (base, tied))
    step = its - old if who == "both" else np.zeros_like(old)
    for name in (EMBED, HEAD):
        np.testing.assert_allclose(out[name][:3], tensors[name][:3] + step[:3], atol=1e-12)
        assert out[name][3:5].tobytes() == tensors[name][3:5].tobytes()
        assert who == "chat" or out[name][5].tobytes() == its[3].tobytes()
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["tie_word_embeddings"] is False


def test_sweeps_and_statistics(tmp_path, family):
    base, chat = family
    asked = Recipe(base, (Model(chat),), "task_arithmetic", {"alpha": 0.5})
    out = tmp_path / "out"
    breadcrumbs.merge(base, [chat], method="task_arithmetic", alpha=0.5, output=out)
    wanted = load_file(out / "model.safetensors")
    with sweep.Sweep(base) as one:
        found = one.merged(asked)
        small = one.merged(dataclasses.replace(asked, vocabulary="base"))
    assert all(found[name].tobytes() == array.tobytes() for name, array in wanted.items())
    assert small[HEAD][:3].tobytes() == wanted[HEAD][:3].tobytes() and len(small[HEAD]) == 4
    tensors = load_file(Path(chat) / "model.safetensors")
    fisher = {name: np.abs(array) for name, array in tensors.items()}
    both: list[Any] = [fisher, fisher]
    arrays = breadcrumbs.merge(base, [chat, chat], method="fisher", statistics=both)
    assert all(np.allclose(arrays[name], array) for name, array in tensors.items())


# --- single tokens -------------------------------------------------------------------------------


def test_rows_of_single_tokens(tmp_path, family):
    base, chat = family
    other = save(tmp_path / "other", {**THREE, "<s>": 3}, 4, 2, ("<s>",))
    tokens = {
        "<s>": {"model": other, "force": True},
        "</s>": {"model": base, "token": B},
        A: {"zero": True, "force": True},
    }
    out = merged(tmp_path / "out", base, chat, other, tokens=tokens)
    old, mine, its = (by_token(folder)[EMBED] for folder in (base, chat, other))
    assert out[EMBED][0].tolist() == [0.0] * WIDTH
    assert out[EMBED][3].tolist() == its["<s>"]
    np.testing.assert_allclose(out[EMBED][4], mine["</s>"])  # b's row, and chat's step from it
    step = np.subtract(mine[B], old[B]) + np.subtract(its[B], old[B])
    np.testing.assert_allclose(out[EMBED][1], old[B] + step)
    again = recipe.load(tmp_path / "out" / "breadcrumbs.yaml")
    assert dict(again.tokens) == tokens


BAD = [
    ({"x": 3}, "give the model whose row"),
    ({"x": {"model": "base", "zero": True}}, "give a model, or zero"),
    ({"x": {"model": "base", "token": "a", "id": 1}}, "two ways to say one thing"),
    ({"x": {"zero": True, "id": 1}}, "is one of a model"),
    ({"x": "nowhere"}, "'nowhere' is not one of the models"),
    ({"x": {"model": "base", "forced": True}}, "unknown key 'forced'"),
]


@pytest.mark.parametrize(("tokens", "message"), BAD)
def test_what_cannot_be_said_of_a_token(tokens, message):
    with pytest.raises(RecipeError, match=message):
        Recipe("base", (Model("ft"),), tokens=tokens)


# --- what is refused -----------------------------------------------------------------------------


def refused(kind: type[BreadcrumbsError], match: str, *models: str, **given: Any) -> None:
    with pytest.raises(kind, match=match) as error:
        breadcrumbs.merge(
            models[0], models[1:], method="task_arithmetic", alpha=1, strict=False, **given
        )
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_does_not_fit(tmp_path, family):
    base, chat = family
    message = "does not fit the vocabulary of .*no rows for '<s>', '</s>'. Give --vocabulary"
    refused(RecipeError, message, base, chat, vocabulary="base", tokenizer=chat)
    out = merged(tmp_path / "out", base, chat, tokenizer=base)
    known = vocabulary.read(tmp_path / "out")
    assert (
        known is not None and max(known.ids.values()) < out[EMBED].shape[0] and "<s>" in known.ids
    )
    broken = save(tmp_path / "broken", {**THREE, "<x>": 9}, 4, 3, ("<x>",))
    refused(RecipeError, "beyond the 4 rows .*'<x>' .up to .* 9", base, broken, tokenizer=broken)


def test_rows_that_no_tokenizer_tells(tmp_path, family):
    base, chat = family
    (Path(chat) / "tokenizer.json").unlink()
    refused(
        MismatchError, "shape .8, 5., .* has .4, 5., and no tokenizer.*Copy its tok", base, chat
    )
    arrays = load_file(Path(chat) / "model.safetensors")
    says = "model 1 is in memory, without a tokenizer .*cannot be matched by token. Save it"
    with pytest.raises(MismatchError, match=says):
        breadcrumbs.merge(base, [arrays], method="task_arithmetic", alpha=1)


def test_tokenizers_of_other_pieces_need_a_choice(tmp_path, family):
    base, _ = family
    other = save(tmp_path / "other", {A: 0, "x": 1, "y": 2, "z": 3}, 4, 1)
    refused(MismatchError, "its tokenizer is not that.*'x', 'y', 'z'.*Choose", base, other)
    out = merged(tmp_path / "out", base, other, vocabulary="union")
    known = vocabulary.read(tmp_path / "out")
    assert known is not None and not known.added
    assert {t: known.ids[t] for t in "xyz"} == {"x": 3, "y": 4, "z": 5}
    mine = by_token(other)[EMBED]
    assert [out[EMBED][known.ids[t]].tolist() for t in "xyz"] == [mine[t] for t in "xyz"]


@pytest.mark.parametrize("given", [None, "union"])
def test_tokens_of_a_chat_template_that_the_written_tokenizer_has(tmp_path, given):
    base = save(tmp_path / "base", THREE, 3, 0)
    chat = save(tmp_path / "chat", {**THREE, "<|x|>": 3}, 4, 1, ("<|x|>",))
    Path(chat, "chat_template.jinja").write_text("{{ '<|x|>' }}{{ '<|y|>' }}")
    settings = {"method": "average", "chat_template": "auto", "vocabulary": given}
    report = breadcrumbs.merge(base, [chat, chat], output=tmp_path / "out", **settings)
    (line,) = [line for line in report.warnings if line.startswith("chat_template")]
    assert "'<|y|>'" in line and "<|x|>" not in line


def test_where_rows_are_not_matched_other_rows_are_refused(family):
    base, chat = family
    message = "shape .8, 5., .* has .4, 5..*breadcrumbs merge .* --vocabulary base"
    with pytest.raises(MismatchError, match=message):
        greedy_soup(base, [chat], lambda model: 0.0)
    assert breadcrumbs.compare(base, [chat, chat]).cosine[0, 1] == pytest.approx(1)


def test_what_is_kept_beside_the_base_has_its_rows(family, tmp_path):
    base, chat = family
    wanted = merged(tmp_path / "wanted", base, chat, vocabulary="base")
    task, archive = tmp_path / "t.safetensors", tmp_path / "a.safetensors"
    CliRunner().invoke(main, ["task", "pack", base, chat, "-o", str(task), "--transform", "none"])
    report = breadcrumbs.compress(base, [chat], archive, method="emr")
    archives.extract(archive, "chat", tmp_path / "again", base=base)
    left = "4 rows; rows are matched by token; left out: '<s>', '</s>' of "
    assert left in " ".join(report.notes)
    with Store.create(tmp_path / "store", base, method="task_arithmetic", alpha=1) as store:
        notes: list[str] = []
        store.add("chat", chat, note=notes.append)
        store.merge(tmp_path / "kept")
        assert left in " ".join(notes)
    stored = load_file(tmp_path / "kept" / "model.safetensors")
    for out in (merged(tmp_path / "merged", base, str(task)), stored):
        assert all(out[name].tobytes() == wanted[name].tobytes() for name in wanted)
    for name, value in load_file(tmp_path / "again" / "model.safetensors").items():
        np.testing.assert_allclose(value, wanted[name], atol=1e-2)
    with pytest.raises(MismatchError, match="cannot be matched by token"):
        Path(chat, "tokenizer.json").unlink()
        packing.pack(base, chat, task, force=True)


# --- reading -------------------------------------------------------------------------------------


def sentencepiece(*pieces: str) -> bytes:
    """Return a SentencePiece model: pieces with a score, and a message of settings."""
    parts = []
    for piece in pieces:
        inside = b"\x0a" + bytes([len(piece.encode())]) + piece.encode() + b"\x15\0\0\0\0\x18\x01"
        parts.append(b"\x0a" + bytes([len(inside)]) + inside)
    return b"".join(parts) + b"\x12\x02\x08\x01"


READ = {
    "words": ({"vocab.txt": "a\nb\n"}, {A: 0, B: 1}),
    "pairs": ({"vocab.json": {"a": 0}, "added_tokens.json": {"<x>": 5}}, {A: 0, "<x>": 5}),
    "unigrams": ({"tokenizer.json": {"model": {"vocab": [["a", 0.0], ["b", -1]]}}}, {A: 0, B: 1}),
    "sentencepiece": (
        {
            "tokenizer.model": sentencepiece("<unk>", "▁a"),
            "tokenizer_config.json": {"added_tokens_decoder": {"2": {"content": "<x>"}}},
        },
        {"<unk>": 0, "▁a": 1, "<x>": 2},
    ),
    "numbers of its own": (
        {
            "spiece.model": sentencepiece("<unk>", "a"),
            "tokenizer_config.json": {"tokenizer_class": "PegasusTokenizer"},
        },
        None,
    ),
    "base64": ({"tokenizer.model": b"IQ== 0\nIg== 1\n"}, None),
    "broken": ({"tokenizer.json": "{", "vocab.json": [1]}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_the_tokens_of_a_folder(tmp_path, case):
    given, wanted = READ[case]
    for name, content in given.items():
        raw = content if isinstance(content, bytes) else None
        text = content if isinstance(content, str) else json.dumps(content) if raw is None else ""
        (tmp_path / name).write_bytes(text.encode() if raw is None else raw)
    found = vocabulary.read(tmp_path)
    assert (found.ids if found is not None and found.whole else None) == wanted
