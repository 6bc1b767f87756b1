"""Language models with tokens of their own: merged, loaded, and made to write, by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import smollm2
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs.cli.group import main

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXT = "The cat sleeps. 2+2=4, naïve"
TOOL, END, FIM = "<|tool|>", "<|/tool|>", "<|fim|>"
TEMPLATE = "{% for m in messages %}<|tool|>{{ m['content'] }}<|/tool|>{% endfor %}<|im_start|>"


def llama(rows: int, tied: bool = True) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return transformers.LlamaForCausalLM(config)


def changed(model: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def family(tmp_path_factory, one_thread):
    """Return a base of SmolLM2's tokens, a model to chat with two more, and one with others."""
    folder = tmp_path_factory.mktemp("family")
    words = smollm2.tokenizer()
    words.chat_template = None
    words.save_pretrained(folder / "base")
    llama(len(words)).save_pretrained(folder / "base")
    for name, tokens, pad, seed in (("chat", [TOOL, END], None, 1), ("code", [FIM, TOOL], 64, 2)):
        model = llama(len(words))
        mine = transformers.AutoTokenizer.from_pretrained(folder / "base")
        mine.add_special_tokens({"additional_special_tokens": tokens})
        model.resize_token_embeddings(len(mine), pad_to_multiple_of=pad, mean_resizing=False)
        if name == "chat":
            mine.eos_token, mine.chat_template = END, TEMPLATE
            end = mine.convert_tokens_to_ids(END)
            model.config.eos_token_id = model.generation_config.eos_token_id = end
        changed(model, seed).save_pretrained(folder / name)
        mine.save_pretrained(folder / name)
    return folder


def loaded(folder: Path) -> tuple[Any, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def logits(model: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def by_hand(family: Path, alpha: float, rows: int) -> Any:
    """Return the module whose weights are merged by hand: tokens of the base, those of chat, the
    one that both have as their mean, and that of code alone."""
    parts = [loaded(family / name)[0].state_dict() for name in ("base", "chat", "code")]
    base, chat, code = ({k: v.double() for k, v in part.items()} for part in parts)
    result = {}
    for name, old in base.items():
        n = old.shape[0]
        new = old + alpha * sum(model[name][:n] - old for model in (chat, code))
        if n == 49152:
            tool = (chat[name][n] + code[name][n + 1]) / 2
            new = torch.cat([new, torch.stack([tool, chat[name][n + 1], code[name][n]])])
            new = torch.cat([new, new.mean(0).repeat(rows - len(new), 1)])
        result[name] = new.float()
    model = llama(rows)
    model.load_state_dict(result)
    return model.eval()


def test_models_with_tokens_of_their_own_chat_as_one(family, tmp_path):
    out = tmp_path / "out"
    models = [str(family / name) for name in ("base", "chat", "code")]
    given = ["-m", "task_arithmetic", "-p", "alpha=0.4", "--tokenizer", models[1], "-o", str(out)]
    done = CliRunner().invoke(main, ["merge", *models, *given])
    assert done.exit_code == 0, done.output
    line = " ".join(done.output.split())
    assert "49,155 tokens in 49,155 rows" in line and f"'{FIM}' taken from" in line
    model, words = loaded(out)
    assert model.config.vocab_size == len(words) == 49155
    assert model.config.eos_token_id == words.eos_token_id == words.convert_tokens_to_ids(END)
    chat = transformers.AutoTokenizer.from_pretrained(family / "chat")
    assert words.convert_tokens_to_ids([TOOL, END, FIM]) == [49152, 49153, 49154]
    text = f"{TEXT} {TOOL}x{END}"
    assert words(text).input_ids == chat(text).input_ids
    assert words.decode(words(TEXT + FIM).input_ids, skip_special_tokens=True) == TEXT
    messages = [{"role": "user", "content": "hello"}]
    asked = words.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    assert asked["input_ids"][0, 0] == 49152
    written = model.generate(**asked, max_new_tokens=4, do_sample=False)
    assert written.shape[1] > asked["input_ids"].shape[1]
    ids = words(text + FIM).input_ids
    expected = logits(by_hand(family, 0.4, 49155), ids)
    torch.testing.assert_close(logits(model, ids), expected, rtol=1e-5, atol=1e-5)
    config = json.loads((out / "generation_config.json").read_text())
    assert config["eos_token_id"] == 49153


def test_shared_tokens_do_not_depend_on_the_vocabulary(family, tmp_path):
    models = [str(family / name) for name in ("base", "chat", "code")]
    ids = transformers.AutoTokenizer.from_pretrained(family / "base")(TEXT).input_ids
    found = []
    for number, (vocabulary, pad) in enumerate((("base", None), ("union", 64), (models[2], None))):
        out = tmp_path / str(number)
        breadcrumbs.merge(
            models[0], models[1:], alpha=0.5, output=out, vocabulary=vocabulary, pad_to=pad
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
        rows = model.get_input_embeddings().weight.shape[0]
        assert rows == model.config.vocab_size == [49152, 49216, 49216][number]
        found.append(logits(model, ids))
        assert not found[-1].argmax(-1).ge(49155).any(), "a padding row is never chosen"
    for other in found[1:]:
        assert torch.equal(found[0], other[:, :49152])


def test_a_head_of_its_own_with_a_bias_in_another_order(tiny_bert, one_thread, tmp_path):
    """MiniLM's tokens under other numbers: the same model as when they are where they were."""
    base = tiny_bert("base", transformers.BertForMaskedLM)
    plain, other, words = tmp_path / "plain", tmp_path / "other", tmp_path / "words"
    model = changed(transformers.BertForMaskedLM.from_pretrained(base), 1)
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    model.save_pretrained(plain)
    data = json.loads((Path(base) / "tokenizer.json").read_text())
    ids = data["model"]["vocab"]
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(3)).tolist()
    data["model"]["vocab"] = {token: order[number] for token, number in ids.items()}
    for row in data["added_tokens"]:
        row["id"] = order[row["id"]]
    with torch.no_grad():
        table, bias = model.bert.embeddings.word_embeddings.weight, model.cls.predictions.bias
        for tensor in (table, bias):
            moved = torch.empty_like(tensor)
            moved[order] = tensor
            tensor.copy_(moved)
    model.save_pretrained(other)
    for folder, text in (
        (plain, Path(base, "tokenizer.json").read_text()),
        (other, json.dumps(data)),
    ):
        (folder / "tokenizer.json").write_text(text)
    found = []
    for folder in (plain, other):
        breadcrumbs.merge(base, [folder], alpha=0.7, output=words / folder.name)
        merged = transformers.BertForMaskedLM.from_pretrained(words / folder.name)
        found.append(merged.state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
