"""Causal models on rows of our own: a tiny random Llama, against one row and word at a time."""

from __future__ import annotations

from pathlib import Path

import foundation_tasks as small
import pytest

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.reading import Reader
from breadcrumbs.evaluate.foundations import make
from breadcrumbs.evaluate.scoring.scoring import Scorer
from breadcrumbs.evaluate.suite import Suite

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["what is red", "a big dog and a blue sky", "sky", "what is a dog and what is a question"]
LABELS = [2, 0, 1, 0]
WORDS = ["red", "a big dog", "blue sky"]
TEMPLATE = "question: {0} answer:"


def questions(**head):
    head = {"template": TEMPLATE, "words": WORDS} | head
    return small.task(TEXTS, LABELS, ("x", "y", "z"), head=head)


def naive(base, prompts, words, lengths=None, end=False):
    """Return log-likelihoods of words, one prompt and token at a time; end: with the end of all."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    rows = []
    for prompt in prompts:
        scores = []
        for word in words:
            before, score = tokenizer(prompt)["input_ids"], 0.0
            for token in [*tokenizer(word)["input_ids"], *([tokenizer.eos_token_id] * end)]:
                with torch.no_grad():
                    out = model(torch.tensor([before])).logits[0, -1]
                score += out.double().log_softmax(-1)[token].item()
                before = [*before, token]
            scores.append(score)
        rows.append(scores)
    return torch.tensor(rows) / torch.tensor(lengths or [1] * len(words))


PROMPTS = [TEMPLATE.format(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("normalise", "lengths"),
    [("none", [1, 1, 1]), ("tokens", [1, 3, 2]), ("characters", [3, 9, 8])],
)
def test_logits_are_those_of_one_word_and_row_at_a_time(llama, normalise, lengths):
    base, foundation, task = llama(), make("causal"), questions(normalise=normalise)
    module, _, head = small.loaded(foundation, base, task)
    logits, batches = small.predicted(foundation, module, head, task, size=3)
    small.close(logits, naive(base, PROMPTS, WORDS, lengths))
    assert [len(batch.rows) for batch in batches] == [3, 1]


def test_the_loss_is_of_the_right_words_and_the_end_of_the_text(llama):
    base, foundation, task = llama(), make("causal"), questions()
    module, _, head = small.loaded(foundation, base, task)
    (batch,) = foundation.prepare(task, task.rows("train"), 9)
    loss = foundation.loss(module, head, batch)
    scores = naive(base, PROMPTS, WORDS, end=True)[torch.arange(4), LABELS]
    tokens = sum(len(WORDS[label].split()) + 1 for label in LABELS)
    assert loss.item() == pytest.approx(-scores.sum().item() / tokens, abs=1e-4)


def test_a_prompt_in_the_models_chat_template(llama):
    base, foundation = llama(), make("causal")
    task = questions(chat=True)
    with pytest.raises(SuiteError, match="head: chat: the base's tokenizer has no chat template"):
        small.loaded(foundation, base, task)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{% for m in messages %}and {{ m.content }}{% endfor %} is "
    tokenizer.save_pretrained(base)
    module, _, head = small.loaded(foundation, base, task)
    logits, _ = small.predicted(foundation, module, head, task)
    small.close(logits, naive(base, [f"and {prompt} is" for prompt in PROMPTS], WORDS))


def test_long_texts_are_cut_and_the_template_stays(llama):
    base, foundation = llama(), make({"kind": "causal", "max_tokens": 2})
    module, _, head = small.loaded(foundation, base, questions())
    logits, _ = small.predicted(foundation, module, head, questions())
    cut = [TEMPLATE.format(" ".join(text.split()[:2])) for text in TEXTS]
    small.close(logits, naive(base, cut, WORDS))


def written(base, prompt, most):
    """Return what a model writes, the likeliest token each time."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    while len(ids) < start + most and ids[-1] != tokenizer.eos_token_id:
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


def test_an_answer_that_is_written_is_right_to_the_letter(llama):
    base, foundation = llama(), make({"kind": "causal", "new_tokens": 3})
    (Path(base) / "generation_config.json").write_text('{"repetition_penalty": 9.0, "top_p": 0.1}')
    right = [written(base, prompt, 3) for prompt in PROMPTS]
    labels = sorted({*right, "other"})
    given = [labels.index(text) for text in right]
    given[1] = labels.index("other")
    task = small.task(TEXTS, given, labels, head={"template": TEMPLATE}, metric="exact_match")
    scorer = Scorer(Suite("s", foundation, base, (task,)), precision="float32", cache=None)
    score = scorer.score(task, "test", small.state(base), scorer.keys.base)
    assert score.hits.tolist() == [True, False, True, True] and score.value == 0.75
    assert len(set(right)) > 1


SUITE = """
foundation: {foundation}
base: {base}
tasks:
- {{task: verb, data: verbs.csv, metric: exact_match}}
"""


def test_answers_in_free_words_need_not_be_in_training_rows(llama, tmp_path):
    rows = ["text,label,split", "a,went,train", "b,came,validation", "c,went,test"]
    (tmp_path / "verbs.csv").write_text("\n".join(rows))
    (tmp_path / "s.yaml").write_text(SUITE.format(foundation="causal", base=llama()))
    (task,) = suites.load(tmp_path / "s.yaml").tasks
    assert list(task.labels) == ["came", "went"]
    assert task.rows("validation").labels.tolist() == [0]
    assert isinstance(task.read.__self__, Reader)
    (tmp_path / "s.yaml").write_text(SUITE.format(foundation="sentence", base="x"))
    with pytest.raises(SuiteError, match="foundation sentence writes none"):
        suites.load(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"template": "question"}, r"has to hold \{0\} once or more"),
        ({"words": ["red", "red", "sky"]}, "words 'red' and 'red' are the same to the tokenizer"),
        ({"normalise": "bytes"}, "'bytes' is not possible. Give one of none, tokens, characters"),
        ({"chat": "yes"}, "chat: 'yes' is not possible. Give true or false"),
        ({"shots": 2}, "head: there is no 'shots'"),
    ],
)
def test_heads_that_cannot_be(llama, head, message):
    task, foundation = questions(**head), make("causal")
    module = foundation.load(llama())
    with pytest.raises(SuiteError, match=message):
        foundation.prepare(task, task.rows("test"), 2)
        foundation.head(module, task)
