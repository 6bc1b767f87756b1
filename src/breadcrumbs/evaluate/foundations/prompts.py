"""What a causal language model is asked, and the words that it may answer, as tokens.

A prompt is the task's template with the text in it. With ``chat`` it is what a user says, in the
model's own chat template, up to where the answer begins; without, a space comes between prompt and
answer, unless the prompt ends a line.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data.metrics import EXACT_MATCH
from breadcrumbs.evaluate.data.settings import check_head, words
from breadcrumbs.evaluate.data.task import Rows, Task
from breadcrumbs.evaluate.foundations import texts

#: What words are padded with, and the loss leaves out.
PAD = -100
#: What the likelihood of a word is divided by.
NORMALISE = ("none", "tokens", "characters")


class Prompts:
    """Prompts and answers of one task for one tokenizer of transformers.

    Of the task's head: ``template``, with ``{0}`` where the text goes (and ``{1}`` for the second
    of a pair), ``chat`` (true or false), and of answers by likelihood ``words``, one for each
    label, and ``normalise``: none, tokens, or characters, as lm-eval's acc_norm. SuiteError.
    """

    def __init__(self, task: Task, tokenizer: Any):
        generated = task.metric == EXACT_MATCH
        known = ("template", "chat") if generated else ("template", "chat", "words", "normalise")
        check_head(task, known)
        self.task, self._tokenizer = task, tokenizer
        self.chat = task.head.get("chat", False)
        self.normalise = task.head.get("normalise", "none")
        where = f"task {task.name!r}: head"
        if not isinstance(self.chat, bool):
            raise SuiteError(f"{where}: chat: {self.chat!r} is not possible. Give true or false.")
        if self.normalise not in NORMALISE:
            raise SuiteError(
                f"{where}: normalise: {self.normalise!r} is not possible. Give one of"
                f" {', '.join(NORMALISE)}."
            )
        if self.chat and not tokenizer.chat_template:
            raise SuiteError(
                f"{where}: chat: the base's tokenizer has no chat template. Leave `chat` out, or"
                " give an instruction-tuned base."
            )

    def of(self, rows: Rows, most: int) -> list[list[int]]:
        """Return the tokens of the prompt of each row. most: tokens of a text, cut there."""
        columns = texts.columns(self.task, rows, "causal")
        template = texts.template(self.task, len(columns))
        cut = [[self._cut(text, most) for text in column] for column in columns]
        return [self._tokens(template.format(*row)) for row in zip(*cut, strict=True)]

    def words(self, task: Task) -> list[list[int]]:
        """Return the tokens of the words of the classes, as they come after a prompt.

        SuiteError for two that are the same, and one that is no token of its own.
        """
        said = words(task)
        *_, (last, field, *_) = string.Formatter().parse(task.head.get("template", "{0}"))
        stem = last if field is None else "a"  # the end of every prompt, or some text
        before = self._tokens(stem)
        found = []
        for word in said:
            whole = self._tokens(stem, word)
            if whole[: len(before)] != before or len(whole) == len(before):
                raise SuiteError(
                    f"task {task.name!r}: word {word!r} runs into the end of the prompt. End the"
                    " template with a colon or a line."
                )
            found.append(whole[len(before) :])
        texts.check_distinct(task, said, found)
        return found

    def lengths(self, task: Task, tokens: Sequence[Sequence[int]]) -> list[int]:
        """Return what the likelihood of each word is divided by."""
        if self.normalise == "none":
            return [1] * len(tokens)
        return [len(one) for one in (tokens if self.normalise == "tokens" else words(task))]

    def _cut(self, text: str, most: int) -> str:
        tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(tokens) <= most else self._tokenizer.decode(tokens[:most])

    def _tokens(self, prompt: str, answer: str = "") -> list[int]:
        """Return the tokens of a prompt, and of an answer after it."""
        if self.chat:
            said = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            begin: list[int] = []
        else:
            said = prompt.rstrip(" ")
            answer = answer if said.endswith("\n") or not answer else f" {answer}"
            begin = self._begin
        tokens = self._tokenizer(said + answer, add_special_tokens=False)["input_ids"]
        return [*begin, *tokens]

    @property
    def _begin(self) -> list[int]:
        """The token that the tokenizer puts before every text, if it does."""
        alone, first = self._tokenizer("")["input_ids"], self._tokenizer.bos_token_id
        return [first] if first is not None and alone[:1] == [first] else []
