"""Foundations by name and of Python files; sentence encoders, against one row at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import foundation_tasks as small
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs.errors import CheckpointError, SplitError, SuiteError
from breadcrumbs.evaluate.foundations import KINDS, make
from breadcrumbs.modules.slots import Slots

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    "the cat sleeps on the sofa all day long, and most of the night as well, purring",
    "a dog barks",
    "my cat purrs when it is fed",
    "the dog fetched a stick from the river",
    "cats chase mice",
    "two dogs ran after a ball in the park, and then one of them fell asleep under a tree",
]
LABELS = [0, 1, 0, 1, 0, 1]


def animals(inputs=TEXTS, labels=LABELS, **more):
    return small.task(inputs, labels, ("cat", "dog"), **more)


# Settings


def test_settings_have_defaults_and_are_plain_data():
    assert make("sentence").settings == {"max_tokens": 32, "scale": 20.0, "pooling": "mean"}
    given = {"kind": "sentence", "max_tokens": 16, "scale": 5, "pooling": "cls"}
    foundation = make(given)
    assert foundation.kind == "sentence"
    assert foundation.settings == {"max_tokens": 16, "scale": 5.0, "pooling": "cls"}
    for kind in KINDS.keys() - {"causal"}:  # which needs a package more
        assert json.loads(json.dumps(make(kind).settings)) == make(kind).settings


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("sentense", r"no kind 'sentense'. Did you mean 'sentence'\?"),
        ({"kind": "klip"}, r"no kind 'klip'. Did you mean 'clip'\?"),
        ({"max_tokens": 3}, "has no kind"),
        (None, "None is not a kind"),
        ({"kind": "sentence", "max_token": 3}, r"no setting 'max_token'. Did you mean 'max_tok"),
        ({"kind": "sentence", "max_tokens": 1}, "max_tokens: 1 is not possible.*from 2 up"),
        ({"kind": "sentence", "max_tokens": 2.5}, "max_tokens: 2.5 is not possible"),
        ({"kind": "sentence", "scale": 0}, "scale: 0 is not possible. Give a number above 0"),
        ({"kind": "sentence", "scale": "inf"}, "scale: 'inf' is not possible"),
        ({"kind": "sentence", "pooling": "max"}, "pooling: 'max' is not possible. Give mean, cls"),
        ({"kind": "clip", "projection": 1}, "projection: 1 is not possible. Give true or false"),
        ({"kind": "clip", "text": 1}, "text: 1 is not possible. Give a path or a hub id"),
        ({"kind": "t5", "scale": 1}, "foundation t5: has no setting 'scale'"),
    ],
)
def test_what_cannot_be_declared(declared, message):
    with pytest.raises(SuiteError, match=message):
        make(declared)


# Sentence encoders


def embedded(base, text, max_tokens=32, pooling="mean"):
    """Return the embedding of one text, or pair, alone: nothing is padded."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModel.from_pretrained(base).eval()
    pair = (text,) if isinstance(text, str) else text
    tokens = tokenizer(*pair, truncation=True, max_length=max_tokens, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state[0].double()
    vector = (hidden[0] if pooling == "cls" else hidden.mean(0)).numpy()
    return vector / np.linalg.norm(vector)


def naive_logits(base, texts, labels, classes, scale=20.0, **settings):
    vectors = np.stack([embedded(base, text, **settings) for text in texts])
    means = [vectors[np.array(labels) == k].mean(0) for k in range(classes)]
    return scale * vectors @ np.stack([m / np.linalg.norm(m) for m in means]).T


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_tokens": 8, "scale": 3.0}, {"pooling": "cls"}],
    ids=["default", "cut", "cls"],
)
def test_logits_are_those_of_one_text_at_a_time(minilm, settings):
    foundation = make({"kind": "sentence"} | settings)
    module = foundation.load(minilm)
    task = animals()
    head = foundation.head(module, task)
    logits, batches = small.predicted(foundation, module, head, task)
    np.testing.assert_allclose(
        logits.numpy(), naive_logits(minilm, TEXTS, LABELS, 2, **settings), atol=2e-5
    )
    widths = [batch.inputs["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths)
    assert max(widths) <= foundation.settings["max_tokens"]


def test_pairs_go_in_as_pairs(minilm):
    pairs = [(text, "it is a cat") for text in TEXTS]
    foundation = make("sentence")
    module = foundation.load(minilm)
    task = animals(pairs)
    logits, _ = small.predicted(foundation, module, foundation.head(module, task), task)
    np.testing.assert_allclose(logits.numpy(), naive_logits(minilm, pairs, LABELS, 2), atol=2e-5)


def test_the_loss_is_the_mean_cross_entropy_and_reaches_the_encoder(minilm):
    foundation = make("sentence")
    module = foundation.load(minilm)
    task = animals()
    head = foundation.head(module, task)
    (batch,) = foundation.prepare(task, task.rows("train"), 6)
    loss = foundation.loss(module, head, batch)
    logits = naive_logits(minilm, TEXTS, LABELS, 2)
    wanted = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), LABELS]
    assert loss.item() == pytest.approx(wanted.mean(), abs=1e-5)
    loss.backward()
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert {name for name, p in module.named_parameters() if p.grad is not None} == trained
    assert not any(name.startswith("pooler") for name in trained)
    assert len(trained) > 90


def test_autocast_changes_little_and_the_cosine_is_in_float32(minilm):
    foundation = make("sentence")
    module = foundation.load(minilm)
    task = animals()
    head = foundation.head(module, task)
    exact, _ = small.predicted(foundation, module, head, task)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = small.predicted(foundation, module, head, task)
    (batch,) = foundation.prepare(task, task.rows("test"), 6)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert foundation.logits(module, head, batch).dtype == torch.float32
    assert (exact != rough).any()
    np.testing.assert_allclose(rough.numpy(), exact.numpy(), atol=0.3)


def test_a_state_changes_the_answers_as_loading_it_does(minilm, tmp_path):
    foundation = make("sentence")
    module = foundation.load(minilm)
    task = animals()
    head = foundation.head(module, task)
    with breadcrumbs.open(minilm) as base:
        slots = Slots(module, base)
    before, _ = small.predicted(foundation, module, head, task)
    changed = small.shaken(small.state(minilm), 0.02)
    slots.put(changed)
    logits, _ = small.predicted(foundation, module, head, task)
    assert (logits - before).abs().max() > 0.1

    other = transformers.AutoModel.from_pretrained(minilm)
    own = other.state_dict()
    other.load_state_dict({n: torch.from_numpy(changed[n]) for n in own})
    other.save_pretrained(tmp_path / "other")
    loaded = make("sentence")
    shutil.copy(f"{minilm}/tokenizer.json", tmp_path / "other")
    shutil.copy(f"{minilm}/tokenizer_config.json", tmp_path / "other")
    again, _ = small.predicted(loaded, loaded.load(str(tmp_path / "other")), head, task)
    torch.testing.assert_close(logits, again, rtol=0, atol=1e-5)

    slots.put(small.state(minilm))
    restored, _ = small.predicted(foundation, module, head, task)
    assert torch.equal(restored, before)


def scored(foundation, base, task):
    module = foundation.load(base)
    with breadcrumbs.open(base) as it:
        slots = Slots(module, it)
    logits, _ = small.predicted(foundation, module, foundation.head(module, task), task)
    return module, slots, logits


def test_bfloat16_shards_and_pickles_are_bases(tiny_bert):
    foundation, task = make("sentence"), animals()
    half = tiny_bert("half", dtype=torch.bfloat16)
    shards = tiny_bert("shards", dtype=torch.bfloat16, max_shard_size="100KB")
    assert len(list(Path(shards).glob("*.safetensors"))) > 1
    assert small.state(half)["pooler.dense.bias"].dtype == ml_dtypes.bfloat16
    module, slots, logits = scored(foundation, half, task)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert torch.equal(scored(foundation, shards, task)[2], logits)

    pickled = tiny_bert("pickled", dtype=torch.bfloat16)
    weights = {n: torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) for n, a in
               small.state(pickled).items()}  # fmt: skip
    torch.save(weights, Path(pickled) / "pytorch_model.bin")
    (Path(pickled) / "model.safetensors").unlink()
    assert torch.equal(scored(foundation, pickled, task)[2], logits)

    changed = small.shaken(small.state(half))
    slots.put(changed)
    for name, array in slots.take().items():
        assert array.tobytes() == changed[name].tobytes()


def test_a_checkpoint_with_heads_and_a_prefix_is_a_base(tiny_bert):
    foundation, task = make("sentence"), animals()
    _, _, logits = scored(foundation, tiny_bert(), task)
    whole = tiny_bert("masked", kind=transformers.BertForPreTraining)
    state = small.state(whole)
    assert "bert.embeddings.word_embeddings.weight" in state
    module, slots, other = scored(foundation, whole, task)
    assert other.shape == logits.shape
    slots.put(small.shaken(state, where=lambda name: name.startswith("bert.")))
    assert (module.embeddings.word_embeddings.weight.detach().numpy() == small.shaken(
        state, where=lambda name: name.startswith("bert.")
    )["bert.embeddings.word_embeddings.weight"]).all()  # fmt: skip


def test_a_class_without_training_rows(minilm):
    foundation = make("sentence")
    module = foundation.load(minilm)
    task = small.task(TEXTS, LABELS, ("cat", "dog", "cow"))
    with pytest.raises(SuiteError, match="task 'animals': no training row is 'cow'"):
        foundation.head(module, task)


def test_heads_are_of_training_rows_alone(tiny_bert):
    foundation = make("sentence")
    module = foundation.load(tiny_bert())
    task = animals()
    seen = []

    def read(split):
        seen.append(split)
        return task.read(split)

    foundation.head(module, type(task)("a", task.labels, read).tuning())
    assert seen == ["train"]
    with pytest.raises(SplitError):
        task.tuning().rows("test")


def test_rows_that_are_no_texts(tiny_bert):
    foundation = make("sentence")
    foundation.load(tiny_bert())
    for inputs in (["a", 3], ["a", ("b", "c")], [("a", "b"), "c"], [("a", "b", "c")], [("a", 1)]):
        task = small.task(inputs, [0] * len(inputs), ("cat",))
        with pytest.raises(SuiteError, match=r"row \d is a .* takes texts, or pairs"):
            foundation.prepare(task, task.rows("test"), 2)
    empty = small.rows([], [])
    assert foundation.prepare(animals(), empty, 2) == []


def test_a_setting_of_the_head_that_there_is_not(tiny_bert):
    foundation = make("sentence")
    module = foundation.load(tiny_bert())
    with pytest.raises(SuiteError, match=r"head: there is no .words.\. It has none"):
        foundation.head(module, animals(head={"words": ["a", "b"]}))


def test_bases_that_cannot_be_loaded(tiny_bert, tmp_path):
    foundation = make("sentence")
    folder = Path(tiny_bert("broken"))
    with pytest.raises(CheckpointError, match="no such file or folder"):
        foundation.load(str(tmp_path / "nowhere"))
    with pytest.raises(SuiteError, match="places for 40 tokens, fewer than max_tokens: 41"):
        make({"kind": "sentence", "max_tokens": 41}).load(str(folder))

    with pytest.raises(SuiteError, match=r"has no config\.json"):
        copy = tmp_path / "bare"
        copy.mkdir()
        shutil.copy(folder / "model.safetensors", copy)
        foundation.load(str(copy))

    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.bias"
    save_file({**weights, name: torch.zeros(5)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        SuiteError, match=rf"'{name}' has shape \(5,\), but config.json says .*\(8,\)"
    ):
        foundation.load(str(folder))
    weights["other"] = weights.pop("encoder.layer.1.output.dense.bias")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = (
        "is not of the class AutoModel: it has no 'encoder.layer.1.output.dense.bias'.*'other' in"
    )
    with pytest.raises(SuiteError, match=message):
        foundation.load(str(folder))

    (folder / "config.json").write_text('{"model_type": "berd"}')
    with pytest.raises(SuiteError, match="transformers cannot load it as AutoModel") as error:
        foundation.load(str(folder))
    assert "\n" not in str(error.value)


# Python files

WRITTEN = '''
import numpy as np, torch
from breadcrumbs.evaluate.foundations.foundation import Batch
import breadcrumbs


class Letters:
    """Counts of letters into one layer."""

    kind = "letters"
    trains_heads = False
    settings = {"letters": 26}

    def load(self, base):
        module = torch.nn.Sequential(torch.nn.Linear(26, 2))
        with breadcrumbs.open(base) as state:
            module[0].weight.data.copy_(torch.from_numpy(state["layer.weight"]))
            module[0].bias.data.copy_(torch.from_numpy(state["layer.bias"]))
        return module.eval()

    def prepare(self, task, rows, size):
        counts = np.array([[t.count(chr(97 + i)) for i in range(26)] for t in rows.inputs])
        numbers = np.arange(len(rows))
        return [
            Batch({"x": torch.from_numpy(counts[n]).float()}, n, torch.from_numpy(rows.labels[n]))
            for n in np.array_split(numbers, -(-len(rows) // size))
        ]

    def head(self, module, task):
        return {}

    def logits(self, module, head, batch):
        return module(batch.inputs["x"])

    def loss(self, module, head, batch):
        return torch.nn.functional.cross_entropy(module(batch.inputs["x"]), batch.labels)


FOUNDATION = Letters()
'''


def test_a_foundation_of_a_python_file(tmp_path):
    (tmp_path / "letters.py").write_text(WRITTEN)
    generator = np.random.default_rng(0)
    base = {
        "layer.weight": generator.normal(size=(2, 26)).astype(np.float32),
        "layer.bias": np.zeros(2, np.float32),
    }
    save_file(base, tmp_path / "base.safetensors")
    foundation = make("letters.py", tmp_path)
    assert foundation.kind == "letters"
    assert foundation.settings["letters"] == 26
    task = animals()
    module, slots, before = scored(foundation, str(tmp_path / "base.safetensors"), task)
    state = {n: -a for n, a in small.state(tmp_path / "base.safetensors").items()}
    slots.put(state)
    logits, _ = small.predicted(foundation, module, {}, task)
    torch.testing.assert_close(logits, -before)
    assert foundation.loss(module, {}, foundation.prepare(task, task.rows("train"), 9)[0]) > 0

    assert foundation.trains_heads is False
    (tmp_path / "silent.py").write_text(WRITTEN.replace("trains_heads = False", ""))
    assert make("silent.py", tmp_path).trains_heads is True

    code = foundation.settings["code"]
    (tmp_path / "letters.py").write_text(WRITTEN + "\n# another\n")
    assert make(tmp_path / "letters.py").settings["code"] != code
    with pytest.raises(SuiteError, match="takes no settings"):
        make({"kind": "letters.py", "scale": 2}, tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "sets no FOUNDATION.*kind, settings, load"),
        ("1 / 0", "cannot be loaded: division by zero"),
        ("def", "cannot be loaded: invalid syntax"),
        ("class A: pass\nFOUNDATION = A", r"is a class. Give FOUNDATION = A\(\)"),
        ("FOUNDATION = 3", "has no 'load', 'prepare', 'head', 'logits', 'loss' and 2 more"),
        (WRITTEN.replace("def loss", "def lost"), "has no 'loss'. It needs"),
        (WRITTEN.replace('{"letters": 26}', "3"), "settings is not a mapping"),
    ],
)
def test_python_files_that_are_no_foundations(tmp_path, code, message):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(SuiteError, match=message):
        make("mine.py", tmp_path)
    with pytest.raises(SuiteError, match=r"other\.py: cannot be read: No such file"):
        make("other.py", tmp_path)
