"""Learn SurgeryV2's corrections greedily, block by block (`evaluate.corrections.blocks`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.evaluate.corrections.heads import DIGITS, Heads
from breadcrumbs.evaluate.corrections.seen import Seen
from breadcrumbs.evaluate.scoring.keys import Keys
from breadcrumbs.evaluate.scoring.scoring import featured
from breadcrumbs.tune.learn.blocks.block import turn
from breadcrumbs.tune.learn.blocks.streamed import BATCH, Streamed

if TYPE_CHECKING:
    import torch

    from breadcrumbs.evaluate.corrections.blocks import Blocks
    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.evaluate.suite import Suite

Numbers = dict[str, dict[str, np.ndarray]]


def learn(
    suite: Suite,
    model: str,
    draw: Draw,
    kind: Blocks,
    experts: Mapping[str, str],
    *,
    device: torch.device,
    precision: str,
    progress: Callable[[int, int, str], None],
) -> Heads:
    """Return the corrections of each task in ``experts`` inside a model. See `heads.learn`."""
    import torch

    from breadcrumbs.evaluate.corrections import blocks

    opened = draw.opened(suite)
    drawn = {name: draw.rows_of(opened.task(name)) for name in experts}
    for name, rows in drawn.items():
        rows.need(kind.least, name, kind.name)
    keys = Keys(opened, precision)
    about: dict[str, Any] = {
        "as": kind.name,
        "model": keys.of(model),
        "base": keys.base,
        "foundation": keys.foundation,
        "draw": draw.to_mapping(),
        "tasks": {
            name: {
                "labels": list(opened.task(name).labels),
                "expert": keys.of(path),
                "rows": drawn[name].rows.digest,
                "keys": [key.hex()[:DIGITS] for key in drawn[name].keys],
                "encoder_passes": 2 * len(drawn[name]),
            }
            for name, path in experts.items()
        },
    }
    streamed = Streamed(opened, drawn, size=BATCH, device=device, precision=precision)
    numbers: Numbers = {name: {} for name in experts}
    total = len(streamed.stack)
    with ExitStack() as files:
        merged, *others = (streamed.open(path) for path in (model, *experts.values()))
        for one in (merged, *others):
            files.callback(one.state.close)
        found = dict(zip(experts, others, strict=True))
        streams = {name: streamed.enter(merged, name) for name in experts}
        own = {name: streamed.enter(one, name) for name, one in found.items()}
        for number in range(total):
            progress(number, total + 1, f"block {number}")
            for name, one in found.items():
                streamed.put(number, one.block(number))
                own[name].hidden = streamed.advance(number, own[name])
            streamed.put(number, merged.block(number))
            for name, stream in streams.items():
                outs = streamed.advance(number, stream)
                made = kind.fit_block(
                    f"{draw.seed}\0{name}\0{number}",
                    outs,
                    own[name].hidden,
                    stream.counts,
                    turn(draw, name, number, len(outs)),
                )
                down, up = (torch.from_numpy(made[one]).to(device) for one in ("down", "up"))
                stream.hidden = [blocks.corrected(x, down, up) for x in outs]
                numbers[name] |= {f"{number}.{one}": array for one, array in made.items()}
            streamed.free(number)
        progress(total, total + 1, "features")
        streamed.settle(merged)
        plain = {name: streamed.features(name, stream) for name, stream in streams.items()}
        for name, one in found.items():
            streamed.settle(one)
            goal = streamed.features(name, own[name])
            answer = featured(suite.foundation).answer
            numbers[name] |= kind.fit(
                Seen(name, draw, plain[name], goal, {}, answer, drawn[name].rows.labels)
            )
    progress(total + 1, total + 1, "done")
    return Heads(about, numbers)
