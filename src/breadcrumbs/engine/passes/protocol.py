"""What a pass is: pieces of work that any thread or machine may do, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from breadcrumbs.engine.facts import Facts

#: The number of a tensor, and what share of one pass over it is done.
Looked = tuple[int, float]


class Pass(Protocol):
    """One look at some segments, before they are merged.

    Parts are plain data. They may be scanned in any order, in any thread or process, and joined
    wherever the pass began; what `end` returns does not depend on that.
    """

    def items(self) -> Sequence[Any]:
        """Return what can be scanned apart; plain data, such as segments."""
        ...

    def scan(self, item: Any) -> Any:
        """Return what is found in one item, in any thread."""
        ...

    def join(self, item: Any, part: Any) -> None:
        """Take in what was found in an item; one at a time."""
        ...

    def looked(self, item: Any) -> Looked:
        """Return how much of a tensor an item is, for whoever shows progress."""
        ...

    def sent(self, item: Any, part: Any) -> Any:
        """Return what was found in an item as it is sent to who joins it: plain data of its own."""
        ...

    def added(self, one: Any, other: Any) -> Any | None:
        """Return two parts that are sent as one, which may be the first; None: one by one."""
        ...

    def is_impossible(self, item: Any, part: Any) -> bool:
        """Return whether a part that was sent counts more than there is, and so is wrong."""
        ...

    def end(self) -> Facts | Pass:
        """Return what is known when all items are joined, or one more pass."""
        ...


class Looks:
    """What most passes have in common: what they find is sent as it is, one by one."""

    def sent(self, item: Any, part: Any) -> Any:
        return part

    def added(self, one: Any, other: Any) -> Any | None:
        return None

    def is_impossible(self, item: Any, part: Any) -> bool:
        return False
