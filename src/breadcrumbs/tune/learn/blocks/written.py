"""The checkpoint that learning block by block writes: the start's, with other blocks.

OUT/model.safetensors    the start's tensors, in their dtypes; in the metadata what was learned
OUT/learned.json         the same, and how near each block came
OUT/...                  config and tokenizer of the start, or else of the base
    or OUT.safetensors alone
OUT.partial/             while it is being made; the same command goes on after the last block
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import beside, composite
from breadcrumbs.checkpoint.outfile import Entry
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.evaluate.learned import META
from breadcrumbs.modules.slots import as_torch

if TYPE_CHECKING:
    import torch

    from breadcrumbs.tune.learn.blocks.streamed import Model, Streamed, Weights

RECORD = "learned.json"


class Written:
    """An output under way. about: what it depends on. errors: by block, before and after."""

    def __init__(
        self,
        output: Path,
        start: Model,
        streamed: Streamed,
        about: Mapping[str, Any],
        *,
        force: bool,
    ):
        self.start, self.base, self.about = start, streamed.suite.base, about
        tensors = list(start.state.tensors.values())
        entries = [Entry(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]
        text = json.dumps(about, sort_keys=True)
        self.writer = Writer(
            output,
            entries,
            {"format": "pt", META: text},
            shard_size=None,
            key=text,
            force=force,
            resume=not force,
            again="run this again",
            layout=composite.of(start.state) if output.suffix != ".safetensors" else None,
        )
        #: Of each block, the numbers of its tensors in the output, with their names in the module.
        self.numbers: list[list[tuple[int, str]]] = [[] for _ in streamed.places]
        self._rest: list[int] = []
        for number, entry in enumerate(entries):
            place = streamed.block_of(entry.name)
            if place is None:
                self._rest.append(number)
            else:
                self.numbers[place[0]].append((number, place[1]))
        self._begun = False
        self.errors: dict[str, list[float]] = {}
        for line in self.writer.remembered():
            self.errors |= json.loads(line)

    def block(self, number: int) -> Weights | None:
        """Return the weights of a block that an earlier run wrote; None if it did not."""
        if any((place, 0) not in self.writer.done for place, _ in self.numbers[number]):
            return None
        found = {}
        for place, name in self.numbers[number]:
            entry = self.writer.entries[place]
            size = int(np.prod(entry.shape))
            array = self.writer.read(place, 0, size).reshape(entry.shape)
            found[name] = _wide(as_torch(array))
        return found

    def rounded(self, number: int, weights: Weights) -> Weights:
        """Return weights of a block as the output will have them."""
        dtypes = {name: self._dtype(place) for place, name in self.numbers[number]}
        return {name: _wide(tensor.to(dtypes[name])) for name, tensor in weights.items()}

    def write(self, number: int, weights: Weights, errors: list[float] | None = None) -> None:
        """Write a block. errors: how far it was from its goal at first, and is now."""
        if errors is not None:
            self.errors[str(number)] = errors
            self.writer.remember(json.dumps({str(number): errors}))
        arrays = checkpoint.open(
            {
                str(place): weights[name].detach().cpu().to(self._dtype(place)).contiguous()
                for place, name in self.numbers[number]
            }
        )
        for place, _ in self.numbers[number]:
            self._put(place, arrays[str(place)])

    def leave(self) -> None:
        """Leave what is done for the next run; nothing if nothing is."""
        if self.writer.done or self._begun:
            self.writer.abandon()
        else:
            self.writer.discard()

    def close(self, more: Mapping[str, Any]) -> None:
        """Write all else of the start, and give the output its name. more: for `RECORD`."""
        for number in self._rest:
            if (number, 0) not in self.writer.done:
                self._put(number, self.start.state[self.writer.entries[number].name])

        def extras(place: Path) -> None:
            with checkpoint.open(self.base) as base:
                beside.copy(self.start.state if _has_config(self.start.state) else base, place)
            text = json.dumps({**self.about, **more}, indent=2, ensure_ascii=False) + "\n"
            (place / RECORD).write_text(text, encoding="utf-8")

        self.writer.close(extras)

    def _put(self, number: int, array: np.ndarray) -> None:
        self.writer.write(number, 0, np.ascontiguousarray(array).reshape(-1))
        self.writer.finished(number, 0, array.size, {})
        self._begun = True

    def _dtype(self, number: int) -> torch.dtype:
        return as_torch(np.empty(0, DTYPES[self.writer.entries[number].dtype])).dtype


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _has_config(state: checkpoint.Checkpoint) -> bool:
    return state.folder is not None and (state.folder / "config.json").is_file()


def in_order(errors: Mapping[str, Sequence[float]]) -> list[Sequence[float]]:
    """Return errors in the order of the blocks."""
    return [errors[key] for key in sorted(errors, key=int)]
