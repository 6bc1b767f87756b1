"""Chat templates of outputs, as transformers reads them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import save_file

from breadcrumbs.checkpoint import chats, parts
from breadcrumbs.cli import main
from breadcrumbs.merging import chat

transformers = pytest.importorskip("transformers")

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
OWN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")


def run(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def model(folder: Path, seed: int, template: str | None = None) -> Path:
    """Make a folder with a weight and a tokenizer of transformers' with a chat template."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    folder.mkdir()
    words = {word: i for i, word in enumerate((*SPECIAL, "[UNK]", "Hi", "Hello", "Bye"))}
    plain = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = Whitespace()
    plain.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", bos_token="<s>", eos_token="</s>"
    )
    made.chat_template = template
    made.save_pretrained(folder)
    weights = np.random.default_rng(seed).standard_normal((8, 4)).astype(np.float32)
    save_file({"w": weights}, folder / "model.safetensors")
    return folder


def spoken(folder: Path, **options: Any) -> str:
    """Return what transformers makes of a talk by the template in a folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(TALK, tokenize=False, **options)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "base", 0)
    for seed, name in enumerate(("ft1", "ft2", "ft3"), 1):
        model(tmp_path / name, seed, OWN if name != "ft3" else chat.KNOWN["chatml"])


MINE = "<system>Be kind.\n<user>Hi\n<assistant>Hello\n<user>Bye\n"
CHATML = (
    "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@pytest.mark.usefixtures("models")
def test_templates_are_written_as_transformers_reads_them() -> None:
    own = Path("own.jinja")
    own.write_text("{{ messages | length }} said")
    sources = ("merge", "base", "ft1", "ft2", "ft3", "-q", "-m", "average")
    run(*sources, "-o", "plain")
    assert not Path("plain/chat_template.jinja").exists()
    for number, (given, expected) in enumerate(
        [("auto", MINE), ("ft3", CHATML), ("chatml", CHATML), (own, "4 said"), (OWN, MINE)]
    ):
        out = f"out{number}"
        run(*sources, "-o", out, "--chat-template", given)
        assert spoken(Path(out), add_generation_prompt=True) == expected, given
        assert yaml.safe_load(Path(out, "breadcrumbs.yaml").read_text())["chat_template"] == {
            "ft3": "../ft3",
            own: own.read_text(),
        }.get(given, given)
        run("merge", f"{out}/breadcrumbs.yaml", "-q", "-o", f"{out}-again")
        assert Path(out, "chat_template.jinja").read_bytes() == (
            Path(f"{out}-again", "chat_template.jinja").read_bytes()
        )


@pytest.mark.usefixtures("models")
def test_the_template_of_a_folder_is_the_one_that_transformers_loads() -> None:
    folder = Path("ft1")
    config, file, more = (folder / n for n in (chats.CONFIG, chats.FILE, parts.TEMPLATES))
    said = json.loads(config.read_text())

    def loaded() -> dict[str, str]:
        found = transformers.AutoTokenizer.from_pretrained(folder).chat_template
        return found if isinstance(found, dict) else {"default": found} if found else {}

    file.unlink(missing_ok=True)
    (folder / chats.OLD).write_text(json.dumps({"chat_template": "old"}))
    named = [{"name": "default", "template": "one"}, {"name": "rag", "template": "other"}]
    for given, expected in (
        ("one", {"default": "one"}),
        (named, {"default": "one", "rag": "other"}),
    ):
        config.write_text(json.dumps({**said, "chat_template": given}))
        assert chats.of_folder(folder) == loaded() == expected
    more.mkdir()
    (more / "tools.jinja").write_text("tools")
    assert chats.of_folder(folder) == loaded() == {"tools": "tools"}
    file.write_text("file")
    assert chats.of_folder(folder) == loaded() == {"default": "file", "tools": "tools"}


@pytest.mark.usefixtures("models")
def test_templates_in_older_places_are_replaced_too() -> None:
    config = Path("base/tokenizer_config.json")
    said = json.loads(config.read_text())
    named = [{"name": "default", "template": "old"}, {"name": "tools", "template": "t"}]
    config.write_text(json.dumps({**said, "chat_template": named}))
    Path("base/chat_template.json").write_text(json.dumps({"chat_template": "old"}))
    assert chat.of_folder(Path("base")) == "old"
    run("merge", "base", "ft1", "-q", "-o", "out", "--chat-template", "ft1")
    found = json.loads(Path("out/tokenizer_config.json").read_text())["chat_template"]
    assert found == [{"name": "default", "template": OWN}, {"name": "tools", "template": "t"}]
    assert json.loads(Path("out/chat_template.json").read_text()) == {"chat_template": OWN}


@pytest.mark.usefixtures("models")
def test_mergekit_chat_templates() -> None:
    config: dict[str, Any] = {
        "merge_method": "linear",
        "models": [{"model": m, "parameters": {"weight": 1}} for m in ("ft1", "ft2", "ft3")],
    }
    for given, expected in (("auto", MINE), ("chatml", CHATML), (OWN, MINE)):
        Path("config.yml").write_text(yaml.safe_dump({**config, "chat_template": given}))
        run("merge", "config.yml", "-q", "--force", "-o", "out")
        assert spoken(Path("out"), add_generation_prompt=True) == expected


@pytest.mark.usefixtures("models")
def test_what_is_no_template() -> None:
    def refused(given: str) -> str:
        said = run("merge", "base", "ft1", "-o", "x", "--chat-template", given, code=1)
        assert not Path("x").exists() and not Path("x.partial").exists()
        return said.splitlines()[-1]

    assert "Did you mean 'chatml'?" in refused("chatlm")
    assert "base has no chat template" in refused("base")
    assert "line 1 is not Jinja" in refused("{% for m in messages %}and no end of it")
    said = run("merge", "base", "ft1", "-o", "x", "--chat-template", "llama3")
    assert "template writes '<|start_header_id|>'" in said and "'<|eot_id|>'" in said
    Path("base/tokenizer.json").unlink()
    Path("base/tokenizer_config.json").unlink()
    said = run("merge", "base", "ft1", "-o", "y", "--chat-template", "chatml", code=1)
    assert "base has no tokenizer" in said
    said = run("merge", "base", "ft1", "-o", "y", "--chat-template", "auto", "--tokenizer", "ft1")
    assert spoken(Path("y")) == MINE


@pytest.mark.parametrize("name", chat.KNOWN)
def test_usual_formats(name: str, tmp_path: Path) -> None:
    found = spoken(model(tmp_path / "m", 0, chat.KNOWN[name]), add_generation_prompt=True)
    head = "<|start_header_id|>{}<|end_header_id|>\n\n{}"
    said = [head.format(one["role"], one["content"]) + "<|eot_id|>" for one in TALK]
    assert (
        found
        == {
            "chatml": CHATML,
            "llama3": "<s>" + "".join(said) + head.format("assistant", ""),
            "mistral": "<s> [INST] Be kind.\n\nHi [/INST] Hello</s> [INST] Bye [/INST]",
            "alpaca": "Be kind.\n\n### Instruction:\nHi\n\n### Response:\nHello\n\n"
            "### Instruction:\nBye\n\n### Response:\n",
            "exaone": "[|system|]Be kind.[|endofturn|]\n[|user|]Hi\n"
            "[|assistant|]Hello[|endofturn|]\n[|user|]Bye\n[|assistant|]",
        }[name]
    )
