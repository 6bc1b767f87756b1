"""Which rows are for training, validation and test: named splits of the source, and draws.

A draw depends on the seed and on what the rows hold, not on their order: each class is ranked by
BLAKE3 of seed and input, and gives its share of the rows that are left, rounded so that the count
is exact (largest remainders). Of identical inputs one is kept, and none if their labels differ, so
no input is in two splits that are drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import Any

from blake3 import blake3

from breadcrumbs.errors import SplitError, SuiteError, suggestion
from breadcrumbs.evaluate.data.task import SPLITS, Split
from breadcrumbs.methods.parameters import count as floor_of
from breadcrumbs.methods.parameters import decimal
from breadcrumbs.plan.declared import SUITE, kind

#: The split of a source that has none, and what is left of it.
REST = "rest"
#: What the validation split of a source is also called.
ALIASES = ("validation", "val", "valid", "dev")
#: Draws are made in this order, so that another validation split leaves the test split as it is.
ORDER: tuple[Split, ...] = ("test", "validation", "train")


@dataclass(frozen=True)
class Part:
    """Rows of a split of the source. of: its name, None where it has but one.

    count, fraction: how many are drawn; without both, all that no other split draws.
    """

    of: str | None = None
    count: int | None = None
    fraction: Decimal | None = None

    @property
    def drawn(self) -> bool:
        return self.count is not None or self.fraction is not None


def parse(value: Any, where: str) -> dict[Split, Part]:
    """Return the parts that a task's ``splits`` declares; SuiteError begins with ``where``."""
    data = SUITE.mapping(value, where, SPLITS)
    return {split: _part(data[split], f"{where}: {split}") for split in SPLITS if split in data}


def _part(value: Any, where: str) -> Part:
    if isinstance(value, str) and value:
        return Part(None if value == REST else value)
    if isinstance(value, Mapping):
        data = SUITE.mapping(value, where, ("of", "count", "fraction"))
        if ("count" in data) == ("fraction" in data):
            raise SuiteError(f"{where}: give `count` or `fraction`, one of them.")
        of = SUITE.line(data["of"], f"{where}: of") if "of" in data else None
        of = None if of == REST else of
        if "count" in data:
            return Part(of, count=_count(data["count"], f"{where}: count"))
        return Part(of, fraction=_fraction(data["fraction"], f"{where}: fraction"))
    if isinstance(value, int) and not isinstance(value, bool):
        return Part(count=_count(value, where))
    if isinstance(value, float):
        return Part(fraction=_fraction(value, where))
    raise SuiteError(
        f"{where}: found {kind(value)}. Give the name of a split, `{REST}`, a count, a"
        " fraction below 1, or such as {of: train, count: 500}."
    )


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SuiteError(f"{where}: {value!r} is not a whole number of 1 or more.")
    return value


def _fraction(value: Any, where: str) -> Decimal:
    try:
        number = decimal(value)
    except ValueError:
        number = Decimal(0)
    if not 0 < number < 1:
        raise SuiteError(f"{where}: {value!r} is not a fraction between 0 and 1.")
    return number


def written(part: Part) -> Any:
    """Return the part as plain data, as `parse` takes it."""
    if not part.drawn:
        return part.of or REST
    of = {} if part.of is None else {"of": part.of}
    if part.count is not None:
        return {**of, "count": part.count} if of else part.count
    return {**of, "fraction": float(part.fraction or 0)}


def complete(given: Mapping[Split, Part], names: Sequence[str]) -> dict[Split, Part]:
    """Return a part for every split, each ``of`` a split that the source has.

    names: of the source's splits; `REST` alone where it has none. What is not given is taken from
    the source's splits of that name; where there is but one split, 0.15 and 0.25 of it are drawn
    for validation and test; where there is no validation split, 0.1 of the training split is drawn.
    """
    one = names[0] if len(names) == 1 else None
    parts: dict[Split, Part] = {
        split: _resolved(part, split, names, one) for split, part in given.items()
    }
    for split in SPLITS:
        if split not in parts:
            parts[split] = _default(split, names, one, parts)
    for first, second in combinations(SPLITS, 2):
        a, b = parts[first], parts[second]
        if a.of == b.of and not a.drawn and not b.drawn:
            raise SuiteError(
                f"splits: {first} and {second} would both be all of {a.of!r}. Draw one of them, as"
                f" in {second}: {{of: {a.of}, fraction: 0.1}}."
            )
    return {split: parts[split] for split in SPLITS}


def _resolved(part: Part, split: str, names: Sequence[str], one: str | None) -> Part:
    if part.of is None and one is None:
        raise SuiteError(
            f"splits: {split}: the source has the splits {', '.join(names)}. Say which one it is"
            f" of, as in {split}: {{of: {names[0]}, count: 500}}."
        )
    of = one if part.of is None else part.of
    if of not in names:
        has = "has no splits" if tuple(names) == (REST,) else f"has the splits {', '.join(names)}"
        raise SuiteError(
            f"splits: {split}: there is no split {of!r}; the source {has}."
            f"{suggestion(str(of), names)}"
        )
    return Part(of, part.count, part.fraction)


def _default(
    split: Split, names: Sequence[str], one: str | None, parts: Mapping[Split, Part]
) -> Part:
    if one is not None:
        share = {"train": None, "validation": Decimal("0.15"), "test": Decimal("0.25")}[split]
        return Part(one, fraction=share)
    called = [n for n in (ALIASES if split == "validation" else (split,)) if n in names]
    # GLUE has its test rows in its validation split; validation rows are then drawn from train.
    taken = [part.of for part in parts.values() if not part.drawn and split == "validation"]
    if called and called[0] not in taken:
        return Part(called[0])
    train = parts["train"].of if "train" in parts else None
    if split == "validation" and train is not None:
        return Part(train, fraction=Decimal("0.1"))
    whole = [part.of for part in parts.values() if not part.drawn]
    free = [name for name in names if name not in whole]
    if not free:
        of = parts["train"].of if "train" in parts else names[0]
        raise SuiteError(
            f"the source has the splits {', '.join(names)}, and none is left for {split}. Draw it,"
            f" as in splits: {{{split}: {{of: {of}, fraction: 0.2}}}}."
        )
    raise SuiteError(
        f"the source has the splits {', '.join(names)}, and which of them is the {split} split is"
        f" not clear. Say so, as in splits: {{{split}: {free[0]}}}."
    )


def distinct(keys: Sequence[bytes], labels: Sequence[str]) -> tuple[list[int], int, int]:
    """Return the rows that stay, how many repeat one that stays, and how many contradict another.

    keys: what identifies an input. Rows whose input comes with several labels all go.
    """
    first: dict[bytes, int] = {}
    torn: set[bytes] = set()
    for row, key in enumerate(keys):
        if labels[first.setdefault(key, row)] != labels[row]:
            torn.add(key)
    kept = [row for key, row in first.items() if key not in torn]
    contradicting = sum(key in torn for key in keys)
    return kept, len(keys) - len(kept) - contradicting, contradicting


def draw(
    keys: Sequence[bytes],
    labels: Sequence[str],
    parts: Mapping[Split, Part],
    seed: int,
) -> dict[Split, list[int]]:
    """Return the rows of each part of one split of the source, in an order that a hash decides.

    keys: of the inputs, all different. parts: what is drawn of this split, and at most one that
    takes what is left. SplitError where more is asked for than there is.
    """
    prefix = f"{seed}".encode() + b"\0"
    ranks = [blake3(prefix + key).digest() for key in keys]
    classes: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(keys)), key=lambda row: ranks[row]):
        classes[labels[row]].append(row)
    drawn: dict[Split, list[int]] = {}
    left = len(keys)
    for split in ORDER:
        part = parts.get(split)
        if part is None or not part.drawn:
            continue
        n = part.count or floor_of(part.fraction or Decimal(0), len(keys))
        if n > left:
            of = "" if part.of == REST else f" of {part.of!r}"
            there = f"are {left} rows" if left == len(keys) else f"are {left} of {len(keys)} left"
            raise SplitError(
                f"splits: {split}: {n} rows{of} are asked for, and there {there}. Ask for fewer."
            )
        taken = []
        for label, share in _shares(classes, n, left, prefix).items():
            taken += classes[label][:share]
            classes[label] = classes[label][share:]
        drawn[split] = sorted(taken, key=lambda row: ranks[row])
        left -= n
    rest = [row for rows in classes.values() for row in rows]
    for split, part in parts.items():
        if not part.drawn:
            drawn[split] = sorted(rest, key=lambda row: ranks[row])
    return drawn


def _shares(
    classes: Mapping[str, Sequence[int]], n: int, total: int, prefix: bytes
) -> dict[str, int]:
    """Return how many of ``n`` rows each class gives: its share, rounded down or up."""
    shares = {label: n * len(rows) // total for label, rows in classes.items()} if n else {}
    order = sorted(
        shares,
        key=lambda label: (
            -(n * len(classes[label]) % total),
            blake3(prefix + label.encode("utf-8", "surrogatepass")).digest(),
        ),
    )
    for label in order[: n - sum(shares.values())]:
        shares[label] += 1
    return shares
