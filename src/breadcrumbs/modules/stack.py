"""The blocks of a module that its hidden state goes through one after the other, run apart.

Found from the module tree: children of a list that one forward pass calls in order, once each, so
that what one gives the next takes in. What blocks take in besides (masks, places) is captured
without their weights: each is passed by, and the hidden state goes through unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from breadcrumbs.errors import SuiteError

if TYPE_CHECKING:
    import torch

#: What blocks call their hidden state where it has no place of its own.
HIDDEN = "hidden_states"


@dataclass(frozen=True)
class Call:
    """What a block takes in besides the hidden state. named: whether that is given by name."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    named: bool = False


class _Stop(Exception):
    """Raised by the last block, since nothing after it is needed."""


class Stack:
    """Blocks in order. alone: of each, whether it gives the hidden state alone or first of several.

    name: of the list in the module.
    """

    def __init__(self, name: str, blocks: Sequence[torch.nn.Module], alone: Sequence[bool]):
        self.name, self.blocks, self._alone = name, tuple(blocks), tuple(alone)

    def __len__(self) -> int:
        return len(self.blocks)

    def capture(self, run: Callable[[], Any]) -> tuple[torch.Tensor, list[Call]]:
        """Return what the first block takes in, and of each block the rest.

        run: sends a batch through the module. No weight of a block is looked at.
        """
        hidden: list[Any] = []
        calls: list[Call] = []

        def passing(number: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                own, call = _parted(args, kwargs)
                if not number:
                    hidden.append(own)
                calls.append(call)
                if number == len(self) - 1:
                    raise _Stop
                return own if self._alone[number] else (own, None)

            return forward

        with _forwards(self.blocks, passing), suppress(_Stop):
            run()
        return hidden[0], calls

    def end(self, run: Callable[[], Any], hidden: torch.Tensor) -> Any:
        """Return what ``run`` returns where the last block gives ``hidden``."""

        def passing(number: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                last = number == len(self) - 1
                own = hidden if last else _parted(args, kwargs)[0]
                return own if self._alone[number] else (own, None)

            return forward

        with _forwards(self.blocks, passing):
            return run()

    def through(self, number: int, hidden: torch.Tensor, call: Call) -> torch.Tensor:
        """Return what a block makes of a hidden state."""
        if call.named:
            out = self.blocks[number](*call.args, **{HIDDEN: hidden}, **call.kwargs)
        else:
            out = self.blocks[number](hidden, *call.args, **call.kwargs)
        return _first(out)


def find(
    module: torch.nn.Module,
    run: Callable[[], Any],
    what: str,
    given: Sequence[torch.nn.Module] | None = None,
) -> Stack:
    """Return the blocks of a module. run: sends a batch through it, with its weights.

    what: the foundation, for SuiteError where there are no blocks, or several stacks of them.
    given: the blocks, where the foundation says which they are.
    """
    import torch

    lists = {
        name: list(one.children())
        for name, one in module.named_modules()
        if isinstance(one, torch.nn.ModuleList | torch.nn.Sequential) and len(one)
    }
    if given is not None:
        lists = {"blocks": list(given)}
    seen: dict[int, list[tuple[Any, Any, int]]] = {}
    hooks, turn = [], [0]

    def note(block: Any, args: Any, kwargs: Any, out: Any) -> None:
        turn[0] += 1
        own = args[0] if args else kwargs.get(HIDDEN)
        seen.setdefault(id(block), []).append((own, out, turn[0]))

    try:
        for block in {id(one): one for blocks in lists.values() for one in blocks}.values():
            hooks.append(block.register_forward_hook(note, with_kwargs=True))
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    found = {name: blocks for name, blocks in lists.items() if _is_stack(blocks, seen)}
    outer = {
        name: blocks
        for name, blocks in found.items()
        if not any(name.startswith(f"{other}.") for other in found if other != name)
    }
    if len(outer) != 1:
        why = "has no blocks" if not outer else f"has several stacks of blocks ({', '.join(outer)})"
        raise SuiteError(
            f"foundation {what}: {why}. Block by block goes where a module has one list of blocks"
            " that its hidden state passes one after the other, as in sentence, clip and causal."
        )
    name, blocks = next(iter(outer.items()))
    alone = [torch.is_tensor(seen[id(block)][0][1]) for block in blocks]
    return Stack(name, blocks, alone)


def _is_stack(blocks: Sequence[Any], seen: Mapping[int, Sequence[tuple[Any, Any, int]]]) -> bool:
    """Whether blocks of one kind were called in order, once, each on what the one before gave."""
    import torch

    if len({type(block) for block in blocks}) != 1:
        return False
    calls = [seen.get(id(block), ()) for block in blocks]
    if any(len(one) != 1 for one in calls):
        return False
    turns = [one[0] for one in calls]
    if any(not torch.is_tensor(own) or not own.is_floating_point() for own, _, _ in turns):
        return False
    pairs = list(pairwise(turns))
    in_order = all(first[2] < second[2] for first, second in pairs)
    outs = [(own, _first(out)) for own, out, _ in turns]
    same = all(torch.is_tensor(out) and out.shape == own.shape for own, out in outs)
    return in_order and same and all(_first(a[1]) is b[0] for a, b in pairs)


def _parted(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Call]:
    """Return the hidden state, and the rest, in which nothing is kept from one call to the next."""
    kept = {k: None if type(v).__name__.endswith("Cache") else v for k, v in kwargs.items()}
    if args:
        return args[0], Call(args[1:], kept)
    return kept.pop(HIDDEN), Call((), kept, named=True)


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple | list) and out else out


@contextmanager
def _forwards(
    blocks: Sequence[torch.nn.Module], made: Callable[[int], Callable[..., Any]]
) -> Iterator[None]:
    """Let blocks do something else for a while."""
    before = [vars(block).get("forward") for block in blocks]
    for number, block in enumerate(blocks):
        block.forward = made(number)
    try:
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                del block.forward  # the class's own again
            else:
                block.forward = own
