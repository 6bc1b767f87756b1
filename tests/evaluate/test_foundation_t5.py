"""T5: a tiny random one of the same architecture, against one row and one word at a time."""

from __future__ import annotations

import foundation_tasks as small
import ml_dtypes
import numpy as np
import pytest
from naive_t5 import LABELS, naive_logits, paraphrases
from tiny_models import PAIRS

import breadcrumbs
from breadcrumbs.errors import MismatchError, SuiteError
from breadcrumbs.evaluate.foundations import make

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")


def test_logits_are_those_of_one_word_and_row_at_a_time(t5):
    base, foundation, task = t5(), make("t5"), paraphrases()
    module, _, head = small.loaded(foundation, base, task)
    logits, batches = small.predicted(foundation, module, head, task, size=2)
    wanted = naive_logits(base)
    small.close(logits, wanted)
    assert wanted.std(0).min() > 0.1
    assert [len(batch.rows) for batch in batches] == [2, 2, 1]
    widths = [batch.inputs["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    assert head["words"].shape[0] == 2
    assert (head["words"] == -100).any()  # words of several lengths


def test_a_text_alone_goes_in_as_it_is_and_words_are_the_labels(t5):
    base, foundation = t5(), make("t5")
    task = small.task([a for a, _ in PAIRS], LABELS, ("no", "yes"))
    module, _, head = small.loaded(foundation, base, task)
    logits, _ = small.predicted(foundation, module, head, task)
    pairs = [(a,) for a, _ in PAIRS]
    small.close(logits, naive_logits(base, template="{0}", words=("no", "yes"), pairs=pairs))


def test_the_loss_is_the_mean_over_tokens_of_the_right_words(t5):
    base, foundation, task = t5(), make("t5"), paraphrases()
    module, _, head = small.loaded(foundation, base, task)
    (batch,) = foundation.prepare(task, task.rows("train"), 9)
    loss = foundation.loss(module, head, batch)
    lengths = (head["words"] != -100).sum(1)
    scores = naive_logits(base)[torch.arange(5), LABELS]
    assert loss.item() == pytest.approx((-scores.sum() / lengths[LABELS].sum()).item(), abs=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in module.parameters())


def test_autocast_gives_float32_near_the_exact(t5):
    base, foundation, task = t5(), make("t5"), paraphrases()
    module, _, head = small.loaded(foundation, base, task)
    exact, _ = small.predicted(foundation, module, head, task)
    (batch,) = foundation.prepare(task, task.rows("test"), 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = foundation.logits(module, head, batch)
    assert rough.dtype == torch.float32
    order = np.argsort(batch.rows)
    assert not torch.equal(rough[order], exact)
    torch.testing.assert_close(rough[order], exact, rtol=0.1, atol=0.5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_state_changes_the_answers_as_loading_it_does(t5, tied):
    base, foundation, task = t5(tied=tied), make("t5"), paraphrases()
    module, slots, head = small.loaded(foundation, base, task)
    before, _ = small.predicted(foundation, module, head, task)
    original = small.state(base)
    assert ("lm_head.weight" in original) != tied
    changed = small.shaken(original, 0.1)
    slots.put(changed)
    logits, _ = small.predicted(foundation, module, head, task)
    small.close(logits, naive_logits(base, changed))
    assert (logits - before).abs().max() > 0.05
    slots.put(original)
    again, _ = small.predicted(foundation, module, head, task)
    assert torch.equal(again, before)


def test_copies_of_the_tied_embedding_in_a_pickle(t5):
    base, task = t5(), paraphrases()
    foundation = make("t5")
    module, slots, head = small.loaded(foundation, base, task)
    state = small.shaken(small.state(base), 0.1)
    copies = dict.fromkeys(
        ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
        state["shared.weight"],
    )
    slots.put(state | copies)
    logits, _ = small.predicted(foundation, module, head, task)
    small.close(logits, naive_logits(base, state))
    with pytest.raises(MismatchError, match=r"shared.weight = lm_head.weight"):
        slots.put(state | {"lm_head.weight": state["shared.weight"] * 2})


def test_bfloat16_in_shards(t5):
    base = t5(torch.bfloat16, max_shard_size="4KB")
    foundation, task = make("t5"), paraphrases()
    module, slots, head = small.loaded(foundation, base, task)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    logits, _ = small.predicted(foundation, module, head, task)
    small.close(logits, naive_logits(base))
    with breadcrumbs.open(base) as it:
        assert len(it.files) > 3
    changed = small.shaken(small.state(base), 0.1)
    assert changed["shared.weight"].dtype == ml_dtypes.bfloat16
    slots.put(changed)
    wide = {name: array.astype(np.float32) for name, array in changed.items()}
    logits, _ = small.predicted(foundation, module, head, task)
    small.close(logits, naive_logits(base, wide))


def test_long_inputs_are_cut(t5):
    base, foundation = t5(), make({"kind": "t5", "max_tokens": 6})
    foundation.load(base)
    task = paraphrases()
    (batch,) = foundation.prepare(task, task.rows("test"), 9)
    assert batch.inputs["input_ids"].shape == (5, 6)
    assert (batch.inputs["input_ids"][:, -1] == 1).all()  # the end is kept
    assert set(batch.inputs) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"template": "a {0}"}, r"'a \{0}' has to hold \{0} and \{1} once or more"),
        ({"template": "{0} {1} {2}"}, r"has to hold \{0} and \{1}"),
        ({"template": "{0} {} {1}"}, r"has to hold \{0} and \{1}"),
        ({"template": "{0} {1"}, r"has to hold \{0} and \{1}"),
        ({"template": 3}, r"3 has to hold"),
        ({"words": ["yes"]}, "give 2 of them, one for each label"),
        ({"words": [True, False]}, "are not all texts. Put numbers in quotes"),
        ({"words": ["yes", "yes"]}, "words 'yes' and 'yes' are the same to the tokenizer"),
        ({"word": ["a", "b"]}, r"no 'word'. Did you mean 'words'\?"),
    ],
)
def test_heads_that_cannot_be(t5, head, message):
    foundation, task = make("t5"), paraphrases(**head)
    module = foundation.load(t5())
    with pytest.raises(SuiteError, match=message):
        foundation.prepare(task, task.rows("test"), 2)
        foundation.head(module, task)


def test_pairs_need_a_template(t5):
    foundation = make("t5")
    foundation.load(t5())
    task = small.task(PAIRS, LABELS, ("no", "yes"))
    with pytest.raises(SuiteError, match=r"template: is not given, and the inputs are pairs"):
        foundation.prepare(task, task.rows("test"), 2)


def test_a_base_of_another_kind(t5, tmp_path):
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(SuiteError, match=r"bert: (is no|transformers cannot load it as) T5For"):
        make("t5").load(str(tmp_path / "bert"))
