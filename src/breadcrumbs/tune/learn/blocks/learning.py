"""Learn a model block by block from a few rows: one block of each model is in memory at a time.

Rows of all tasks go up to the first block, through the start's weights and through those of each
task's expert. Then for one block after the other: the experts' blocks say what is wanted, the block
is fitted (`kinds`), rounded to what the output will have, and the rows go through it.

Memory: what lies outside of blocks once, two or three blocks in float32 (four while one is
trained), and of all rows what goes from one block to the next. The foundation loads the base whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate import learned
from breadcrumbs.evaluate.data.drawn import Draw
from breadcrumbs.evaluate.scoring.keys import Keys
from breadcrumbs.tune.learn.blocks import written
from breadcrumbs.tune.learn.blocks.block import Block
from breadcrumbs.tune.learn.heads import experts_of

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite
    from breadcrumbs.tune.learn.blocks.kinds import Kind
    from breadcrumbs.tune.learn.blocks.streamed import Model, Stream, Streamed


@dataclass(frozen=True)
class Learned:
    """What was learned. about: as the checkpoint says it. errors: of each block, how far what it
    gives was from what the experts' give, and is (`Block.error`); empty where nothing says."""

    output: str
    about: Mapping[str, Any]
    errors: Sequence[Sequence[float]]


def learn(
    suite: Suite,
    model: str,
    output: Path,
    draw: Draw,
    kind: Kind,
    *,
    tasks: Sequence[str] = (),
    experts: Mapping[str, str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    force: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Learned:
    """Write ``model`` with its blocks learned from the rows that are drawn; return how it went.

    model: a path or hub id, such as of a merge. output: a folder, or a .safetensors file. tasks:
    names; all unless told. experts: by task, instead of the suite's fine-tuned models. An
    interrupted run goes on after its last block. SuiteError, SplitError, OutputError.
    """
    from breadcrumbs.modules import devices
    from breadcrumbs.tune.learn.blocks.streamed import BATCH, Streamed

    if draw.answers != "expert":
        raise SuiteError(f"{kind.name}: is learned from answers: expert, not {draw.answers}.")
    names = sorted(dict.fromkeys(tasks)) or sorted(task.name for task in suite.tasks)
    found = experts_of(suite, names, experts or {})
    opened = draw.opened(suite)
    devices.require_torch()
    where = devices.device(device)
    precision = devices.precision(precision, where)
    drawn = {name: draw.rows_of(opened.task(name)) for name in names}
    for name, rows in drawn.items():
        rows.need(1, name, kind.name)
    keys = Keys(opened, precision)
    about = {
        "version": learned.VERSION,
        "what": "blocks",
        "as": kind.name,
        **kind.settings,
        "model": keys.of(model),
        "base": keys.base,
        "foundation": keys.foundation,
        "precision": precision,
        "draw": draw.to_mapping(),
        "tasks": {
            name: {
                "labels": list(opened.task(name).labels),
                "expert": keys.of(found[name]),
                "rows": drawn[name].rows.digest,
                "keys": [key.hex()[: learned.DIGITS] for key in drawn[name].keys],
                "encoder_passes": 2 * len(drawn[name]),
            }
            for name in names
        },
    }
    streamed = Streamed(opened, drawn, size=BATCH, device=where, precision=precision)
    with ExitStack() as files:
        start, base, *others = (streamed.open(one) for one in (model, suite.base, *found.values()))
        for one in (start, base, *others):
            files.callback(one.state.close)
        out = written.Written(output, start, streamed, about, force=force)
        try:
            run = _Run(streamed, draw, kind, start, base, dict(zip(names, others, strict=True)))
            run.all(out, progress)
            errors = written.in_order(out.errors)
            out.close({"errors": errors})
        except BaseException:
            out.leave()
            raise
    return Learned(str(output), about, errors)


class _Run:
    """All blocks, one after the other."""

    def __init__(
        self,
        streamed: Streamed,
        draw: Draw,
        kind: Kind,
        start: Model,
        base: Model,
        experts: Mapping[str, Model],
    ):
        self.streamed, self.draw, self.kind = streamed, draw, kind
        self.start, self.base, self.experts = start, base, experts
        self.tasks = list(experts)
        self.streams = {task: streamed.enter(start, task) for task in experts}
        self.own: dict[str, Stream] = {}
        if kind.follows:
            self.own = {task: streamed.enter(model, task) for task, model in experts.items()}

    def all(self, out: written.Written, progress: Callable[[int, int, str], None]) -> None:
        """Learn and write all blocks."""
        total = len(self.streamed.stack)
        for number in range(total):
            progress(number, total, f"block {number}")
            known = out.block(number)
            if known is None:
                self._learn(number, out)
            else:
                self._pass(number, known)
            self.streamed.free(number)
        progress(total, total, "done")

    def _learn(self, number: int, out: written.Written) -> None:
        streamed, kind = self.streamed, self.kind
        start, base = self.start.block(number), self.base.block(number)
        tasks, streams = self.tasks, self.streams
        block = Block(number, streamed, self.draw, start, base, tasks, streams, {})
        kind.begin(block)
        for task, model in self.experts.items():
            weights = model.block(number)
            streamed.put(number, weights)
            with kind.expert(block, task, weights):
                outs = streamed.advance(number, (self.own or streams)[task])
            if kind.follows:
                block.goals[task] = outs
        before = self._outs(number, start) if kind.follows else {}
        fitted = kind.fit(block)
        if kind.follows and fitted is start:  # as where no expert has changed anything
            after = before
        else:
            fitted = out.rounded(number, fitted)
            after = self._outs(number, fitted)
        errors = [block.error(before), block.error(after)] if kind.follows else None
        if errors is not None:
            if not all(map(math.isfinite, errors)) and not kind.keeps:
                raise SuiteError(f"block {number}: gives no finite numbers. Learn from other rows.")
            if kind.keeps and not errors[1] < errors[0]:
                fitted, after, errors = start, before, [errors[0]] * 2
        out.write(number, fitted, errors)
        self._go_on(after, block.goals)

    def _pass(self, number: int, weights: Any) -> None:
        """Let the rows through a block that is learned already."""
        goals = {}
        for task, stream in self.own.items():
            self.streamed.put(number, self.experts[task].block(number))
            goals[task] = self.streamed.advance(number, stream)
        self._go_on(self._outs(number, weights), goals)

    def _outs(self, number: int, weights: Any) -> dict[str, list[Any]]:
        self.streamed.put(number, weights)
        return {task: self.streamed.advance(number, one) for task, one in self.streams.items()}

    def _go_on(self, outs: Mapping[str, list[Any]], goals: Mapping[str, list[Any]]) -> None:
        for streams, found in ((self.streams, outs), (self.own, goals)):
            for task, hidden in found.items():
                streams[task].hidden = hidden
