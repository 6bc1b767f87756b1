"""Rules that rename tensors: ``OLD=NEW``, where a ``*`` of OLD goes into that of NEW.

``*`` stands for any text, dots included, the first ones for as little as they can; the first one of
OLD goes into the first one of NEW, and so on. Without ``*`` a rule is for one name. A name follows
the first rule that matches it, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from breadcrumbs.checkpoint.names import renamed
from breadcrumbs.checkpoint.tensors import Checkpoint, check_name, shown
from breadcrumbs.errors import MismatchError, RecipeError, suggestion


@dataclass(frozen=True)
class Rule:
    """What names look like, and what they become."""

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}={self.new}"

    def of(self, name: str) -> str | None:
        """Return what a name becomes; None for one that the rule does not match."""
        first, *rest = self.old.split("*")
        if not rest:
            return self.new if name == self.old else None
        *middle, last = rest
        if not name.startswith(first) or not name.endswith(last):
            return None
        at, end, found = len(first), len(name) - len(last), []
        for part in middle:
            there = name.find(part, at, end)
            if there < 0:
                return None
            found.append(name[at:there])
            at = there + len(part)
        if at > end:
            return None
        parts = self.new.split("*")
        texts = zip(parts, [*found, name[at:end], ""], strict=True)
        return "".join(text for pair in texts for text in pair)


def parse(text: str, where: str = "rename") -> Rule:
    """Return the rule that a text is; RecipeError begins with ``where``."""
    old, equals, new = text.partition("=")
    if not equals or not old or not new or "=" in new:
        raise RecipeError(
            f'{where}: {text!r} is not OLD=NEW, such as "module.*=*" or "*.gamma=*.weight".'
        )
    first, second = old.count("*"), new.count("*")
    if first != second:
        raise RecipeError(
            f"{where}: {text!r} has {first} * before the = and {second} after it. What each *"
            " before it stands for goes into one after it, so give as many."
        )
    return Rule(old, new)


def new_name(rules: Iterable[Rule], name: str) -> str | None:
    """Return what the first rule that matches makes of a name; None if none does."""
    return next((new for rule in rules if (new := rule.of(name)) is not None), None)


def apply(rules: Sequence[Rule], model: Checkpoint) -> tuple[Checkpoint, set[Rule]]:
    """Return the model with its tensors renamed, and the rules that matched a name.

    MismatchError where two tensors would be called alike.
    """
    used: set[Rule] = set()
    new: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in model.tensors:
        mine = name
        for rule in rules:
            found = rule.of(name)
            if found is not None:
                used.add(rule)
                mine = check_name(found, f"{model.label}: {rule}")
                break
        if mine in taken:
            raise MismatchError(
                f"{model.label}: {shown(taken[mine])} and {shown(name)} would both be called"
                f" {shown(mine)}. Change what renames them."
            )
        taken[mine] = name
        if mine != name:
            new[name] = mine
    return (renamed(model, new) if new else model), used


def check_used(
    rules: Iterable[Rule], used: set[Rule], models: Sequence[Checkpoint], where: str = "rename"
) -> None:
    """Raise RecipeError for a rule that matches no tensor of any of the models."""
    for rule in rules:
        if rule in used:
            continue
        names = [name for model in models for name in model.tensors]
        of = models[0].label if len(models) == 1 else "any model"
        near = suggestion(rule.old, names[:10_000]) if "*" not in rule.old else ""
        raise RecipeError(
            f'{where}: "{rule}" matches no tensor of {of}.{near} `breadcrumbs inspect` lists the'
            " names."
        )
