"""Pairs of texts, and how likely T5 holds one word at a time."""

from __future__ import annotations

import foundation_tasks as small
import pytest
from tiny_models import PAIRS, WORDS
from tiny_models import PARAPHRASE as TEMPLATE

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LABELS = [1, 0, 1, 0, 1]


def paraphrases(**head):
    head = {"template": TEMPLATE, "words": WORDS} | head
    return small.task(PAIRS, LABELS, ("no", "yes"), head=head)


def naive_logits(folder, state=None, template=TEMPLATE, words=WORDS, pairs=PAIRS):
    """Return the log-likelihood of one word given one row at a time, token after token."""
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder).float().eval()
    if state is not None:
        model.load_state_dict({n: torch.from_numpy(a) for n, a in state.items()}, strict=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for pair in pairs:
        text = tokenizer(template.format(*pair), return_tensors="pt")["input_ids"]
        scores = []
        for word in words:
            before, score = [model.config.decoder_start_token_id], 0.0
            for token in tokenizer(word)["input_ids"]:
                with torch.no_grad():
                    out = model(input_ids=text, decoder_input_ids=torch.tensor([before]))
                score += out.logits[0, -1].double().log_softmax(-1)[token].item()
                before.append(token)
            scores.append(score)
        rows.append(scores)
    return torch.tensor(rows)
