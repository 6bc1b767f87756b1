"""How much memory a merge takes, and how many threads fit into it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from breadcrumbs.checkpoint import mirrors
from breadcrumbs.checkpoint.quantised.experts import BANDS_BYTES
from breadcrumbs.checkpoint.quantised.layouts import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine import runner
from breadcrumbs.engine.passes import lines as angles
from breadcrumbs.errors import RecipeError
from breadcrumbs.machine import available_cores, human, read_speed
from breadcrumbs.methods.aggregates import Whole
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.plan import Coordinates
from breadcrumbs.plan.recipe import SAME
from breadcrumbs.plan.units import alone, by_entry, in_rows, in_turns, surveyed

#: Resident memory of the program itself, measured: Python with NumPy and the kernels.
PROGRAM_BYTES = 70 << 20


def memory(plan: Plan, threads: int, budget: int | None = None, begun: int | None = None) -> int:
    """Return an upper estimate of the resident bytes of a streamed merge.

    budget: bytes of keys that a survey collects of a model at most, if not those of the plan.
    """
    sizes, number = plan.sizes, max(1, len(plan.models))
    group, fused = min(sizes.group, number), min(sizes.fused, number)
    chunk, least = sizes.chunk, sizes.least * sizes.chunk
    most = max((tensor.base.size for tensor in plan.tensors), default=0)
    segment = min(most, max(least, sizes.arena // (2 * (fused + 1))))  # entries, of bfloat16
    surveyed = min(most, max(least, sizes.arena // (2 * (group + 1))))
    arena = segment * 4 * (fused + 1) + segment * 2 + int(sizes.room * surveyed) * group * 4
    chunks = chunk * (group + 1) * 4 + chunk * (8 + 8 + 1 + 8 + 4)
    more = _step_bytes(plan, threads) + _survey_bytes(plan, threads, budget or sizes.budget)
    if plan.lowered.band:
        more += sizes.begun if begun is None else begun
    if plan.coordinates is not None:
        more += _coordinate_bytes(plan.coordinates, threads)
    return (
        more
        + _quantised_bytes(plan, threads)
        + mirrors.memory(file for source in plan.inputs for file in source.files)
        + (
            PROGRAM_BYTES
            + threads * (arena + chunks + chunk * 32)
            + (threads + 1) * sizes.wave
            + len(plan.tensors) * 2048
        )
    )


def _coordinate_bytes(within: Coordinates, threads: int) -> int:
    """Return what coordinates take: what they are in, those of all models, what is merged."""
    held = sum(basis.nbytes for basis in within.bases.values())
    for tensor in within.plan.merged:
        number = 3 + len(tensor.models) if tensor.name in within.bases else 1
        held += number * tensor.base.size * DTYPES[tensor.dtype].itemsize
    return held + _step_bytes(within.plan, threads)


def _quantised_bytes(plan: Plan, threads: int) -> int:
    """Return what quantised weights take: bands of experts, and blocks that are written again."""
    bands = sum("MXFP4" in source.quantised for source in plan.sources) * BANDS_BYTES
    if plan.recipe.dtype != SAME:
        return bands
    widest = max((t.base.shape[-1] for t in plan.tensors if t.target.layout), default=0)
    return bands + threads * widest * BLOCK[0] * (4 + 2 + len(plan.models) + 1 + 4)


def _survey_bytes(plan: Plan, threads: int, budget: int) -> int:
    """Return what the surveys of units hold beyond one pass: collected keys, and cuts.

    Of each model of each chunk a cut; of those surveyed at once what a pass has counted.
    """
    models, sizes, units = max(1, len(plan.models)), plan.sizes, []
    together: Counter[str] = Counter()
    for tensor in plan.merged:
        unit = surveyed(plan, tensor)
        if unit == "model":
            together[tensor.component] += tensor.base.size
        elif unit:
            units.append(tensor.base.shape[-1] if unit == "row" else tensor.base.size)
    result = 0
    for n in [*sorted(units, reverse=True)[:threads], *together.values()]:
        # Brackets hold this share at most; they are sorted in a copy.
        collected = min(int(0.8 * sizes.room * n) * 8, budget)
        result += max(0, 2 * collected - sizes.wave)
        result += n // sizes.chunk * (40 * models + 48 * min(sizes.group, models) + 40)
    return result


def _step_bytes(plan: Plan, threads: int) -> int:
    """Return what aggregates that are no plain sum hold besides: task vectors in float64."""
    aggregate, models = plan.lowered.whole, max(1, len(plan.models))
    if plan.lowered.linear and plan.lowered.masks and not plan.lowered.in_memory:
        return 0
    if not plan.lowered.in_memory:
        # Of each model; with the histograms of its ranks, or with its statistics.
        prepares = plan.lowered.prepares
        rows = 5 + prepares + 3 * (plan.method.statistics is not None)
        long = (t.base.shape[-1] for t in plan.merged if in_rows(plan, t))
        chunk = max(long, default=plan.sizes.chunk)
        # The entries that ranks are among, with their positions, and a sample or a copy.
        held = prepares * min(_most(plan), plan.sizes.few) * 24
        return held + threads * (chunk * 8 * (rows * models + 8) + _angle_bytes(plan, 1 + models))
    # Raw rows, the base and the task vectors, and what is made of them.
    each = []
    for tensor in plan.merged:
        mine = alone(plan, tensor)
        if by_entry(plan, tensor, plan.sizes.chunk):
            mine = min(mine, plan.sizes.chunk)
        need = _whole_bytes(plan, aggregate, tensor, models, mine) if aggregate else 0
        if plan.lowered.shaped or plan.lowered.finish:
            turned = aggregate is None and not plan.lowered.shaped and mine >= plan.sizes.turns
            need += _matrix_bytes(tensor, 0 if turned else models, mine)
        each += [need] * min(threads, tensor.base.size // max(1, mine))
    # An array of statistics at a time, the sum of them, and as much to solve with.
    arrays = [max((a.size for a in t.statistics if a), default=0) for t in plan.merged]
    given = sum(sorted(arrays, reverse=True)[:threads]) * 8 * 5
    return sum(sorted(each, reverse=True)[:threads]) + given


def _most(plan: Plan) -> int:
    """Return how many entries are looked at together before others merge."""
    sizes = [tensor.base.size for tensor in plan.merged]
    return max(sizes, default=0) if plan.lowered.prepares_tensors else sum(sizes)


def _whole_bytes(plan: Plan, aggregate: Whole, tensor: TensorPlan, models: int, held: int) -> int:
    """Return what an aggregate of the whole tensor holds, from its rows to what is written.

    held: entries of the tensor that are there at once.
    """
    turned = in_turns(plan, tensor, held)
    if turned is not None and len(turned) == 2:  # a task vector, and the step
        return 8 * (2 * held + int(aggregate.memory(turned, models)))
    if turned is not None:
        return plan.sizes.chunk * 8 * (5 * models + 8)
    shape = aggregate.each(tensor.name, tensor.base.shape, tensor.values)
    if aggregate.run(tensor.values) or (len(shape) != 2 and held < tensor.base.size):
        shape = (held,)
    size = math.prod(shape)
    raw = max(DTYPES[one.dtype].itemsize for one in (tensor.base, *filter(None, tensor.models)))
    # The step, and its sum with the base; of one matrix of several, a copy of the task vectors.
    work = max(aggregate.memory(shape, models) + held, 4.0 * held)
    work += models * size if size < held else 0
    return held * (models + 1) * (8 + raw) + int(8 * work)


def _matrix_bytes(tensor: TensorPlan, models: int, held: int) -> int:
    """Return what a transform or a finish of matrices holds: task vectors, and triplets.

    models: how many are held at once, besides one.
    """
    square = min(tensor.base.shape[-2:], default=0) ** 2
    return held * (models * 9 + 8 * 6) + 8 * 6 * square


def _angle_bytes(plan: Plan, size: int) -> int:
    """Return what inner products and coefficients of the lines of a tensor take."""
    aggregate = plan.lowered.gram
    if aggregate is None:
        return 0
    most = 0
    for tensor in plan.merged:
        lines = aggregate.lines(tensor.values)
        if lines != "tensor":
            each = size if lines == "row" else 6 * size * size
            most = max(most, angles.number(tensor.base.shape, lines) * each * 8)
    return most


def seconds(plan: Plan) -> tuple[float, float] | None:
    """Return how long reading and writing take at the speed of the disk of the largest input, and
    that speed in bytes a second; None where it is not measured.

    Arithmetic, a second look at what memory did not keep and slower disks come on top.
    """
    files = {file for source in plan.inputs for file in source.files if not mirrors.of(file)}
    sized = [(file.stat().st_size, file) for file in files if file.is_file()]
    speed = read_speed(max(sized)[1]) if sized else None
    if not speed:
        return None
    return (plan.bytes_measured + plan.bytes_read + plan.bytes_written) / speed, speed


def fitted(plan: Plan, wanted: int | None, max_memory: int | None) -> tuple[Plan, int]:
    """Return the plan with sizes that fit into memory, and how many threads to use."""
    if max_memory is None:
        return plan, threads(plan, wanted, None)
    small = _sized(plan, arena=plan.sizes.least_arena)
    number = threads(small, wanted, max_memory)
    if memory(plan, number, plan.sizes.least_budget, 0) > max_memory:
        plan = small
    plan = _sized(plan, budget=budget(plan, number, max_memory))
    return _sized(plan, begun=begun(plan, number, max_memory, plan.sizes.budget)), number


def _sized(plan: Plan, **sizes: int) -> Plan:
    return replace(plan, sizes=replace(plan.sizes, **sizes))


def threads(plan: Plan, wanted: int | None, max_memory: int | None) -> int:
    """Return how many threads to use: ``wanted``, or all cores if it is worth it, as far as memory
    allows."""
    number = wanted or (1 if runner.is_small(plan) else available_cores())
    if max_memory is None:
        return number
    budget = plan.sizes.least_budget
    while number > 1 and memory(plan, number, budget, 0) > max_memory:
        number -= 1
    least = memory(plan, number, budget, 0)
    if least > max_memory:
        raise RecipeError(
            f"--max-memory {human(max_memory)}: this merge needs about {human(least)} with one"
            " thread. Allow that much."
        )
    return number


def budget(plan: Plan, threads: int, max_memory: int | None) -> int:
    """Return how many bytes of keys a survey may collect of a model, as far as memory allows."""
    most, least = plan.sizes.budget, plan.sizes.least_budget
    if max_memory is None:
        return most
    spare = max_memory - memory(plan, threads, least, 0)
    return max(least, min(most, least + spare // (2 * (threads + 1))))


def begun(plan: Plan, threads: int, max_memory: int | None, budget: int) -> int:
    """Return how many bytes of segments may be held that are merged before their ranks are known.

    budget: as `budget` returns it.
    """
    if max_memory is None:
        return plan.sizes.begun
    return max(0, min(plan.sizes.begun, max_memory - memory(plan, threads, budget, 0)))
