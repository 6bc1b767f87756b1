"""--tokenizer: all files of one model's, none of the base's, and the numbers of tokens."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import token_ids
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.plan import recipe
from breadcrumbs.plan.recipe import Model, Recipe


def model(folder: Path, value: float, files: dict[str, Any]) -> str:
    """Make a model of one weight; files are text, or plain data for JSON."""
    folder.mkdir(parents=True)
    save_file({"w": np.full(3, value, np.float32)}, folder / "model.safetensors")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    return str(folder)


def merged(base: str, tuned: str, output: Path, tokenizer: str | None = None) -> dict[str, str]:
    """Merge, and return the texts of what lies beside the weights."""
    breadcrumbs.merge(
        base, [tuned], method="task_arithmetic", alpha=1, output=output, tokenizer=tokenizer
    )
    written = {"README.md", "breadcrumbs.yaml"}
    return {
        path.relative_to(output).as_posix(): path.read_text()
        for path in output.rglob("*")
        if path.is_file() and path.suffix != ".safetensors" and path.name not in written
    }


OLD = ["vocab.txt", "merges.txt", "tokenizer.json", "tokenizer_config.json", "tokenization_old.py"]
OLD += ["additional_chat_templates/old.jinja", "special_tokens_map.json"]
NEW = {
    "mistral": ["tekken.json", "tokenizer.model.v3", "chat_template.jinja"],
    "marian": ["source.spm", "target.spm", "vocab.json", "tokenizer_config.json"],
    "phobert": ["vocab.txt", "bpe.codes", "added_tokens.json"],
    "chatglm": ["ice_text.model", "tokenization_chatglm.py", "tokenizer_config.json"],
    "xlm-r": ["sentencepiece.bpe.model", "additional_chat_templates/tools.jinja"],
    "whisper": ["vocab.json", "merges.txt", "normalizer.json", "chat_template.json"],
}


@pytest.mark.parametrize("family", NEW)
def test_the_tokenizer_is_taken_as_a_set(tmp_path, family):
    config = {"config.json": '{"a": "base"}', "preprocessor_config.json": '"base"'}
    base = model(tmp_path / "base", 0, {name: '"base"' for name in OLD} | config)
    tuned = model(
        tmp_path / "ft", 1, {name: '"ft"' for name in NEW[family]} | {"config.json": "{}"}
    )
    assert merged(base, tuned, tmp_path / "a") == {name: '"base"' for name in OLD} | config
    wanted = {name: '"ft"' for name in NEW[family]} | config
    assert merged(base, tuned, tmp_path / "b", tuned) == wanted
    both = Recipe(base, (Model(tuned),), "average", tokenizer=base)
    with opening.opened(both) as plan:
        merging_files.to_files(plan, tmp_path / "c", kernel="numpy")
    assert {name for name in OLD if (tmp_path / "c" / name).exists()} == set(OLD)


def test_code_of_a_tokenizer_goes_with_it(tmp_path):
    said = {"auto_map": {"AutoTokenizer": ["words.T", None]}}
    code = {"words.py": "from .pieces import P\n", "pieces.py": "# {}\n"}
    shared = {"modeling_x.py": "from .layers import L\n", "layers.py": "# {}\n", "train.py": ""}

    def files(name: str) -> dict[str, Any]:
        return {file: text.format(name) for file, text in (code | shared).items()}

    base = model(tmp_path / "base", 0, files("base"))
    tuned = model(tmp_path / "ft", 1, files("ft") | {"tokenizer_config.json": said})
    found = merged(base, tuned, tmp_path / "out", tuned)
    assert found.pop("tokenizer_config.json") == json.dumps(said)
    assert found == {
        "words.py": code["words.py"],
        "pieces.py": "# ft\n",
        "modeling_x.py": shared["modeling_x.py"],
        "layers.py": "# base\n",
    }


def vocabulary(*added: str) -> dict[str, Any]:
    tokens = [{"id": 6 + i, "content": token} for i, token in enumerate(added)]
    return {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": tokens}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "both files of the model": (
        {"config.json": {"eos_token_id": 1}, "generation_config.json": {"eos_token_id": 1, "t": 2}},
        {"config.json": {"eos_token_id": 7}, "generation_config.json": {"eos_token_id": [7, 8]}},
        {
            "config.json": {"eos_token_id": 7},
            "generation_config.json": {"eos_token_id": [7, 8], "t": 2},
        },
    ),
    "a generation config that only the model has": (
        {"config.json": {"model_type": "llama", "eos_token_id": 1}},
        {"config.json": {"eos_token_id": 7}, "generation_config.json": {"eos_token_id": 8, "t": 1}},
        {
            "config.json": {"model_type": "llama", "eos_token_id": 7},
            "generation_config.json": {"eos_token_id": 8},
        },
    ),
    "one that only the base has": (
        {"config.json": {}, "generation_config.json": {"eos_token_id": 1, "pad_token_id": 0}},
        {"config.json": {"eos_token_id": 7}},
        {"config.json": {}, "generation_config.json": {"eos_token_id": 7}},
    ),
    "numbers from the tokenizer": (
        {"config.json": {"model_type": "x", "eos_token_id": 1}},
        {
            "tokenizer.json": vocabulary("</s>", "<|im_end|>"),
            "tokenizer_config.json": {"eos_token": {"content": "<|im_end|>"}, "pad_token": "</s>"},
        },
        {"config.json": {"model_type": "x", "eos_token_id": 7, "pad_token_id": 6}},
    ),
    "numbers from unigrams and a map": (
        {"config.json": {"model_type": "x", "bos_token_id": 9}},
        {
            "tokenizer.json": {"model": {"vocab": [["<pad>", 0.0], ["</s>", 0.0]]}},
            "special_tokens_map.json": {"eos_token": "</s>", "pad_token": "<pad>"},
        },
        {"config.json": {"model_type": "x", "eos_token_id": 1, "pad_token_id": 0}},
    ),
    "numbers that the config spells out": (
        {"config.json": {"eos_token_id": 5}},
        {
            "sentencepiece.bpe.model": "x",
            "tokenizer_config.json": {
                "eos_token": "<e>", "added_tokens_decoder": {"12": {"content": "<e>"}, "?": 1},
            },
        },
        {"config.json": {"eos_token_id": 12}},
    ),
    "a pad token that the model does not have": (
        {"config.json": {"eos_token_id": 1, "pad_token_id": 3}},
        {"config.json": {"eos_token_id": 7, "pad_token_id": None}},
        {"config.json": {"eos_token_id": 7}},
    ),
    "a config in the config": (
        {"config.json": {"model_type": "v", "text_config": {"eos_token_id": 1, "pad_token_id": 2}}},
        {"config.json": {"text_config": {"eos_token_id": 7, "pad_token_id": 2}}},
        {"config.json": {"model_type": "v", "text_config": {"eos_token_id": 7, "pad_token_id": 2}}},
    ),
    "nothing known": (
        {"config.json": {"eos_token_id": 1}, "generation_config.json": {"eos_token_id": 1}},
        {"tokenizer.model": "x"},
        {"config.json": {"eos_token_id": 1}, "generation_config.json": {"eos_token_id": 1}},
    ),
    "odd files": (
        {"config.json": "[1]", "generation_config.json": "{"},
        {"config.json": {"eos_token_id": 7}, "tokenizer.json": "[]", "tokenizer_config.json": "3"},
        {"config.json": [1]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_of_tokens(tmp_path, case):
    mine, theirs, wanted = CASES[case]
    base = model(tmp_path / "base", 0, mine)
    tuned = model(tmp_path / "ft", 1, {"tokenizer.model": "x"} | theirs)
    found = merged(base, tuned, tmp_path / "out", tuned)
    for name, data in wanted.items():
        assert json.loads(found[name]) == data
    assert ("generation_config.json" in found) == ("generation_config.json" in wanted | mine)
    before = {name: (Path(base) / name).read_text() for name in mine}
    found = merged(base, tuned, tmp_path / "again")
    assert {name: found[name] for name in mine} == before, "unless asked for"


def test_slow_vocabularies(tmp_path):
    files = {"vocab.json": {"a": 0, "</s>": 2}, "added_tokens.json": {"<e>": 9}}
    said = {"eos_token": "<e>", "bos_token": "</s>", "pad_token": "?"}
    folder = model(tmp_path / "m", 0, files | {"tokenizer_config.json": said})
    assert token_ids.of_tokenizer(Path(folder)) == {"eos_token_id": 9, "bos_token_id": 2}


# --- which model is meant ---


def test_every_spelling_of_a_path(tmp_path, monkeypatch):
    base = model(tmp_path / "in" / "base", 0, {"vocab.txt": "base"})
    tuned = model(tmp_path / "in" / "ft", 1, {"vocab.txt": "ft"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tuned, target_is_directory=True)
    ways = ["in/ft", "./in/ft", "in/ft/", "in//ft", "in/../in/ft", tuned, tuned + "/", "link"]
    for number, way in enumerate(ways):
        for given in (tuned, "in/ft"):
            found = merged(base, given, tmp_path / f"out{number}{given == tuned}", way)
            assert found == {"vocab.txt": "ft"}
    with pytest.raises(RecipeError, match=r"'in' is not one of the models"):
        merged(base, tuned, tmp_path / "no", "in")


def test_paths_of_a_recipe_are_beside_it(tmp_path):
    model(tmp_path / "base", 0, {})
    model(tmp_path / "ft", 1, {"vocab.txt": "ft"})
    (tmp_path / "r.yaml").write_text("base: base\nmodels: [ft]\ntokenizer: ./ft/\n")
    assert os.path.samefile(recipe.load(tmp_path / "r.yaml").tokenizer or "", tmp_path / "ft")


@pytest.mark.parametrize("given", ["ft", "ft/model.safetensors"])
def test_a_model_without_a_tokenizer_is_refused(tmp_path, given):
    base = model(tmp_path / "base", 0, {"vocab.txt": "base"})
    model(tmp_path / "ft", 1, {"config.json": "{}"} | ({"vocab.txt": "ft"} if "." in given else {}))
    tuned = str(tmp_path / given)
    with pytest.raises(RecipeError, match="has no tokenizer files") as error:
        merged(base, tuned, tmp_path / "out", tuned)
    assert "\n" not in str(error.value) and not (tmp_path / "out.partial").exists()


def test_a_model_of_a_hub(tmp_path):
    """What is fetched lies in a folder of another name than it is asked for by."""
    base = model(tmp_path / "base", 0, {"vocab.txt": "base", "config.json": {"eos_token_id": 1}})
    tuned = model(tmp_path / "abc", 1, {"spm.model": "ft", "config.json": {"eos_token_id": 7}})
    given = Recipe(base, (Model("org/ft@main"),), "average", tokenizer="org/ft@main")
    with checkpoint.open(tuned) as found:
        fetched = dataclasses.replace(found, label="org/ft@main", repo="org/ft@" + "a" * 40)
        with opening.opened(given, [base, fetched]) as plan:
            merging_files.to_files(plan, tmp_path / "out", kernel="numpy")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"eos_token_id": 7}
    assert (tmp_path / "out" / "spm.model").exists() and not (tmp_path / "out/vocab.txt").exists()
    assert recipe.load(tmp_path / "out" / "breadcrumbs.yaml").tokenizer == "org/ft@" + "a" * 40


# --- the real ones ---


def test_the_tokenizer_of_minilm(minilm, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    tokenizer.add_special_tokens({"eos_token": "<|end|>", "additional_special_tokens": ["<|new|>"]})
    tokenizer.chat_template = {"default": "{{ messages }}", "tools": "tools"}
    tuned = model(tmp_path / "ft", 1, {"config.json": {"model_type": "bert"}})
    tokenizer.save_pretrained(tuned)
    base = model(tmp_path / "base", 0, {"config.json": {"model_type": "bert", "pad_token_id": 9}})
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (Path(base) / name).write_bytes((Path(minilm) / name).read_bytes())
    merged(base, tuned, tmp_path / "out", tuned)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "a cat<|end|> and <|new|>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template
    assert not (tmp_path / "out" / "vocab.txt").exists()
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["eos_token_id"] == tokenizer.eos_token_id
    assert said["pad_token_id"] == tokenizer.pad_token_id
