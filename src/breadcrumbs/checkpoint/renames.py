"""Which rules would rename a model's tensors to the base's, as advice that may be pasted.

What is known of programs and their versions comes first: old LayerNorms of BERT have gamma and beta
(transformers), weight norms are kept under two names (PyTorch 2.0's parametrizations), towers for
images have other names in memory than in files (transformers 5). The rest is found from the names:
prefixes that only a part of the names has, as those of models for images and text moved in
transformers 4.52 and 5, and words in the middle. A rule is advised only if every tensor that it
matches becomes one of the base's that is not there yet, of the same shape, and if no other rule
would do as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from breadcrumbs.checkpoint.names import matched, meet, renamed, unwrapped
from breadcrumbs.checkpoint.renaming import Rule, apply
from breadcrumbs.checkpoint.stack import LAYER
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.checkpoint.ways import Fit, ways, weighed
from breadcrumbs.errors import BreadcrumbsError

#: Old ends of names, and new ones.
KNOWN = (
    ("gamma", "weight"),
    ("beta", "bias"),
    ("weight_g", "parametrizations.weight.original0"),
    ("weight_v", "parametrizations.weight.original1"),
)
#: The layers of towers for images, as files have them, and as transformers 5 has them in memory.
IN_FILES = (
    ("encoder.layer.*.attention.attention.query.*", "layers.*.attention.q_proj.*"),
    ("encoder.layer.*.attention.attention.key.*", "layers.*.attention.k_proj.*"),
    ("encoder.layer.*.attention.attention.value.*", "layers.*.attention.v_proj.*"),
    ("encoder.layer.*.attention.output.dense.*", "layers.*.attention.o_proj.*"),
    ("encoder.layer.*.intermediate.dense.*", "layers.*.mlp.fc1.*"),
    ("encoder.layer.*.output.dense.*", "layers.*.mlp.fc2.*"),
    ("encoder.layer.*", "layers.*"),
    ("encoder.mid_position_embeddings", "encoder.interpolation.mid_position_embeddings"),
    ("*.attention.attention.query.*", "*.attention.q_proj.*"),
    ("*.attention.attention.key.*", "*.attention.k_proj.*"),
    ("*.attention.attention.value.*", "*.attention.v_proj.*"),
    ("*.attention.self.query.*", "*.attention.q_proj.*"),
    ("*.attention.self.key.*", "*.attention.k_proj.*"),
    ("*.attention.self.value.*", "*.attention.v_proj.*"),
    ("*.attention.output.dense.*", "*.attention.o_proj.*"),
    ("*.attention.q_bias", "*.attention.query.bias"),
    ("*.attention.v_bias", "*.attention.value.bias"),
    ("*.intermediate.dense.*", "*.mlp.fc1.*"),
    ("*.output.dense.*", "*.mlp.fc2.*"),
)
#: Rules that are advised; kinds of names that are looked at.
MOST, KINDS = 8, 16
#: Words of what is not the weight itself, but a part of what makes it.
_APART = ("parametrizations", "weight_g", "weight_v", "weight_orig", "base_layer")
#: What stands for the numbers of layers where names are compared.
_NUMBER = "#"


def suggestion(base: Checkpoint, model: Checkpoint) -> str:
    """Return a sentence with the rules that would make a model fit, or fit better; empty if none.

    It begins with a space, as it stands in an error about tensors that are missing or too many.
    """
    found = rules(base, model)
    if not found:
        return ""
    options = " ".join(f'--rename "{rule}"' for rule in found)
    return f" They seem to be called differently: {options} gives them the base's names."


def rules(base: Checkpoint, model: Checkpoint) -> list[Rule]:
    """Return the rules that would make a model fit, or fit better; none if they are in doubt."""
    model = _without_wrapper(base, model)
    return _verified(base, model, _rules(base, model))


def _without_wrapper(base: Checkpoint, model: Checkpoint) -> Checkpoint:
    """Return the model without a wrapper around all of it, such as ``module.``, that is not around
    the base; where rules make its names fit, that prefix is found."""
    new = {name: unwrapped(name) for name in model.tensors}
    plain = any(name == bare for name, bare in new.items())
    if plain or any(name != unwrapped(name) for name in base.tensors):
        return model
    return renamed(model, new)


def _rules(base: Checkpoint, model: Checkpoint) -> list[Rule]:
    """Return rules for the model's names, as it has them now."""
    search = _Search(base, model)
    while len(search.rules) < MOST and search.loose and search.free:
        if not search.step():
            break
    return search.rules


@dataclass
class _Search:
    """Rules found so far. loose: the model's names that the base lacks and no rule matches. free:
    the base's that no tensor of the model has, or would get."""

    base: Checkpoint
    model: Checkpoint
    rules: list[Rule] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = dict.fromkeys(self.model.tensors)
        self.loose = [name for name in self.left if name not in self.base.tensors]
        self.free = dict.fromkeys(n for n in self.base.tensors if n not in self.model.tensors)

    def step(self) -> bool:
        """Find one more rule; return whether there was one."""
        for rules, lax in (
            (_known(self.loose, self.free), True),
            (_in_files(self.loose), False),
            (self._prefixes(), False),
        ):
            for rule in rules:
                if self._take(rule, lax):
                    return True
        return any(self._take(rule, False) for rule in self._words())

    def _take(self, rule: Rule, lax: bool) -> bool:
        pairs = self.led(rule, lax)
        if not pairs:
            return False
        self.rules.append(rule)
        landed = set(pairs.values())
        self.left = {name: None for name in self.left if rule.of(name) is None}
        self.loose = [name for name in self.loose if name in self.left]
        self.free = {name: None for name in self.free if name not in landed}
        return True

    def led(self, rule: Rule, lax: bool = False) -> dict[str, str]:
        """Return where a rule leads, nothing if that is not right for all that it matches.

        lax: names that nothing has may come out too.
        """
        pairs: dict[str, str] = {}
        taken: set[str] = set()
        for name in self.left:
            new = rule.of(name)
            if new is None:
                continue
            known = self.base.tensors.get(new)
            if name in self.base.tensors or new in taken or new in self.model.tensors:
                return {}
            taken.add(new)
            if known is None and lax:
                continue
            if new not in self.free or known is None or not self._fits(name, new):
                return {}
            pairs[name] = new
        return pairs

    def _fits(self, name: str, other: str) -> bool:
        return self.model.tensors[name].shape == self.base.tensors[other].shape

    def _prefixes(self) -> list[Rule]:
        """Return rules for prefixes, those of most names first."""
        found = [
            weighed(way, self.loose, self.free, self._fits) for way in ways(self.loose, self.free)
        ]
        found = [fit for fit in found if fit.pairs and not fit.misfits and _may_be(fit)]
        found = [fit for fit in found if not any(_is_in_doubt(fit, o) for o in found if o != fit)]
        found.sort(key=lambda fit: len(fit.pairs), reverse=True)
        return [rule for fit in found for rule in _of_prefix(fit, self.loose)]

    def _words(self) -> Iterator[Rule]:
        """Yield rules for words in the middle or at the end, if one alone is right for a name."""
        by_shape: dict[tuple[int, ...], dict[str, None]] = {}
        for name in self.free:
            mine = by_shape.setdefault(self.base.tensors[name].shape, {})
            mine[LAYER.sub(_NUMBER, name)] = None
        kinds: dict[str, str] = {}
        for name in self.loose:
            kinds.setdefault(LAYER.sub(_NUMBER, name), name)
        for pattern, name in list(kinds.items())[:KINDS]:
            known = by_shape.get(self.model.tensors[name].shape, {})
            rules = [rule for rule in _between(pattern, known) if self._is_sure(rule)]
            if len(rules) == 1:
                yield rules[0]

    def _is_sure(self, rule: Rule) -> bool:
        pairs = self.led(rule)
        return len(pairs) > 1 and any(LAYER.search(name) for name in pairs)


def _known(loose: Iterable[str], free: Iterable[str]) -> Iterator[Rule]:
    """Yield the known rules for these names: with the module before it, if that is but one."""
    there = {end: _modules(free, end) for pair in KNOWN for end in pair}
    pairs = [*KNOWN, *((new, old) for old, new in KNOWN)]
    for old, new in pairs:
        modules = _modules(loose, old) & there[new] if there[new] else set()
        if len(modules) == 1 and not next(iter(modules)).isdigit():
            (module,) = modules
            yield Rule(f"*.{module}.{old}", f"*.{module}.{new}")
        if modules:
            yield Rule(f"*.{old}", f"*.{new}")
        for module in sorted(modules):
            yield Rule(f"*.{module}.{old}", f"*.{module}.{new}")
            yield Rule(f"{module}.{old}", f"{module}.{new}")


def _in_files(loose: Iterable[str]) -> Iterator[Rule]:
    """Yield rules from what transformers 5 calls towers for images to their files, and back."""
    begins = {name.partition(".")[0] for name in loose}
    for pair in IN_FILES:
        for old, new in (pair, pair[::-1]):
            if old[0] == "*" or old.partition(".")[0] in begins:
                yield Rule(old, new)
            else:
                yield Rule(f"*.{old}", f"*.{new}")


def _modules(names: Iterable[str], end: str) -> set[str]:
    """Return what stands before an end of names."""
    end = f".{end}"
    found = (name.removesuffix(end) for name in names if name.endswith(end))
    return {name.rpartition(".")[2] for name in found}


def _may_be(fit: Fit) -> bool:
    if fit.way.contradicts:
        return False
    if fit.way.replaces:
        return fit.numbered and not fit.lost and not fit.way.crosses
    return not fit.way.crosses or fit.whole


def _is_in_doubt(fit: Fit, other: Fit) -> bool:
    """Return whether another prefix leads elsewhere, and does not fit for much less."""
    return meet(fit, other) and not fit.pairs.keys() > other.pairs.keys()


def _of_prefix(fit: Fit, loose: Iterable[str]) -> Iterator[Rule]:
    """Yield rules for a prefix: for all names under it, or for parts of which all lead somewhere.

    Of two prefixes in place of each other, all or nothing, and only where there are layers: heads
    that are called differently are different heads.
    """
    way = fit.way
    start = len(way.gone)
    if way.replaces:
        yield Rule(f"{way.gone}*", f"{way.added}*")
        return
    parts = dict.fromkeys(name[start:].partition(".")[0] for name in fit.pairs)
    if len(parts) > 1 and not fit.lost:
        yield Rule(f"{way.gone}*", f"{way.added}*")
    for part in parts:
        under = f"{way.gone}{part}."
        mine = [name for name in loose if name.startswith(under)]
        if mine and all(name in fit.pairs for name in mine):
            yield Rule(f"{under}*", f"{way.added}{part}.*")


def _between(name: str, known: Iterable[str]) -> list[Rule]:
    """Return rules that lead from a name to those that are most like it, but for one place."""
    parts = name.split(".")
    best, found = 1, []
    for other in (text.split(".") for text in known):
        most = min(len(parts), len(other))
        head = next((i for i in range(most) if parts[i] != other[i]), most)
        if not head:
            continue
        tail = 0
        while tail < most - head and parts[-1 - tail] == other[-1 - tail]:
            tail += 1
        if head + tail > best:
            best, found = head + tail, []
        if head + tail == best:
            found.append(_rule(parts, other, head, tail))
    return list(dict.fromkeys(rule for rule in found if rule is not None))


def _rule(parts: list[str], other: list[str], head: int, tail: int) -> Rule | None:
    """Return the rule for one place of a name; None if that cannot be told by the words there."""
    old, new = parts[head : len(parts) - tail], other[head : len(other) - tail]
    if not old:  # something comes in: the word after it, or before it, says where
        if tail and parts[-tail] != _NUMBER:
            tail -= 1
        elif parts[head - 1] != _NUMBER:
            head -= 1
        else:
            return None
        old, new = parts[head : len(parts) - tail], other[head : len(other) - tail]
    if {_NUMBER, *_APART} & {*old, *new}:  # another layer is another layer
        return None
    ends = ["*"] if tail else []
    return Rule(".".join(["*", *old, *ends]), ".".join(["*", *new, *ends]))


def _verified(base: Checkpoint, model: Checkpoint, rules: list[Rule]) -> list[Rule]:
    """Return the rules for the names in the files; none if they do not help."""
    if not rules:
        return []
    rules = [_for_files(rule, model) for rule in rules]
    first = renamed(model, model.called)
    try:
        view, used = apply(rules, first)
        view, _ = matched(base, view)
    except BreadcrumbsError:
        return []
    before = model.tensors.keys() & base.tensors.keys()
    after = view.tensors.keys() & base.tensors.keys()
    return rules if used == set(rules) and after > before else []


def _for_files(rule: Rule, model: Checkpoint) -> Rule:
    """Return the rule for names as they are in the files, where they have a prefix."""
    for name in model.tensors:
        first = model.called.get(name, name)
        if first != name and rule.of(name) is not None and first.endswith(name):
            gone = first[: len(first) - len(name)]
            return rule if rule.old.startswith("*") else Rule(gone + rule.old, rule.new)
    return rule
