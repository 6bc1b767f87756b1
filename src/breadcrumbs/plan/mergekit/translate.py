"""A mergekit configuration and the headers of its models -> a recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import stack
from breadcrumbs.checkpoint.adapters.inserted import own_dtype
from breadcrumbs.checkpoint.stack import LAYER, is_first
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import CheckpointError, MismatchError, suggestion
from breadcrumbs.methods import registry
from breadcrumbs.plan.mergekit import config as configs
from breadcrumbs.plan.mergekit import vocabulary
from breadcrumbs.plan.mergekit.config import Config, Slice
from breadcrumbs.plan.mergekit.globs import cover
from breadcrumbs.plan.mergekit.lines import Node
from breadcrumbs.plan.mergekit.methods import PEERS, WITHOUT_EFFECT, Given, Peer, Step
from breadcrumbs.plan.mergekit.settings import Place, check_names, filters, resolve
from breadcrumbs.plan.recipe import Model, Override, Recipe, beside

#: What mergekit's promoted dtype is called in a recipe.
_WIDER = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Converted:
    """A recipe, and what of the configuration it does not follow or the user should know."""

    recipe: Recipe
    notes: tuple[str, ...]


def convert(path: str | Path, root: Node | None = None) -> Converted:
    """Return the recipe that a mergekit configuration means; RecipeError names line and reason.

    The headers of its models are read, since gradients run over their layers. root: the one
    document of the file that is meant, if there are several.
    """
    path = Path(path)
    config = configs.load(path, root)
    method = config.method.text("merge_method")
    if method not in PEERS:
        near = suggestion(method, PEERS)
        config.method.refuse(
            f"merge_method {method!r} is unknown.{near} Choose from {', '.join(PEERS)}."
        )
    peer = PEERS[method]
    without = [piece for piece in config.slices if piece.base is None]
    if peer.base == "possible" and 0 < len(without) < len(config.slices):
        without[0].node.refuse("some slices have a base_model and this one has not.")
    notes = [*config.notes, *check_names(config, method, peer.parameters, WITHOUT_EFFECT)]
    columns = [_columns(config, peer, piece) for piece in config.slices]
    number = max(len(column) for column in columns)
    with ExitStack() as opened:
        # Where a slice has fewer models, the base stands for those that it lacks, with weight 0.
        full = [column + column[:1] * (number - len(column)) for column in columns]
        refs = [_reference(config, path, [c[i] for c in full]) for i in range(number)]
        found = [opened.enter_context(_opened(config, full, i, ref)) for i, ref in enumerate(refs)]
        refs = [_whole(ref, source) for ref, source in zip(refs, found, strict=True)]
        steps = _steps(config, peer, columns, found[0])
        dtype = config.dtype or _promoted(config, found)
        words = vocabulary.settings(config, path, found)
    recipe = _recipe(config, peer, refs, steps, dtype)
    if words.get("tokenizer") == (*stack.paths(recipe.base), recipe.base)[0]:
        del words["tokenizer"]  # which is copied anyway
    recipe = replace(recipe, **words)
    if config.chat_template is not None:
        recipe = replace(recipe, chat_template=beside(path, config.chat_template))
    if peer.random:
        notes.append(f"{method} draws at random: its draws are not mergekit's, their chances are")
    return Converted(recipe, tuple(notes))


def _opened(config: Config, full: list[list[int]], i: int, ref: str) -> Checkpoint:
    """Return the open model of a column; RecipeError for an adapter that does not fit."""
    try:
        return checkpoint.open(ref)
    except (CheckpointError, MismatchError) as error:
        source = config.slices[0].sources[full[0][i]]
        if "+" not in source.model:
            raise
        source.node.refuse(str(error))


def _columns(config: Config, peer: Peer, piece: Slice) -> list[int]:
    """Return the sources of a slice, the base first. RecipeError if the method cannot take them."""
    models = [source.model for source in piece.sources]
    for i, model in enumerate(models):
        if model in models[:i]:
            piece.sources[i].node.refuse(f"{model} appears twice among the models of one slice.")
    if piece.base is not None and piece.base not in models and peer.base != "one of all":
        piece.node.refuse(f"base_model {piece.base} is not among the sources of this slice.")
    base = models.index(piece.base) if piece.base in models else None
    if peer.base == "needed" and base is None:
        piece.node.refuse(f"{config.method.value} needs a base_model.")
    number = len(models) - (peer.base == "possible" and base is not None)
    if number < peer.least or (peer.most is not None and number > peer.most):
        most = "or more" if peer.most is None else f"to {peer.most}"
        wanted = str(peer.least) if peer.most == peer.least else f"{peer.least} {most}"
        besides = " besides the base" if peer.base == "possible" else ""
        piece.node.refuse(f"{config.method.value} takes {wanted} models{besides}, here {number}.")
    others = [i for i in range(len(models)) if i != base]
    if base is not None:
        return [base, *others]
    # Without a base the first model lends the layout, where it is not the base in our sense.
    return others if peer.base == "one of all" else [others[0], *others]


def _reference(config: Config, path: Path, column: Sequence[int]) -> str:
    """Return what names the models of one column, layers under layers if there are slices."""
    sources = [piece.sources[i] for piece, i in zip(config.slices, column, strict=True)]
    if sources[0].layers is None:
        return beside(path, sources[0].model)
    parts = []
    for source in sources:
        first, last = source.layers or (0, 0)
        name = beside(path, source.model)
        if parts and parts[-1][0] == name and parts[-1][2] == first:
            parts[-1][2] = last
        else:
            parts.append([name, first, last])
    return " + ".join(f"{name}[{first}:{last}]" for name, first, last in parts)


def _whole(ref: str, source: Checkpoint) -> str:
    """Return the path alone of a stack of all layers of one model."""
    one = len(source.parts) == 1 and len(source.tensors) == len(source.parts[0].tensors)
    return source.parts[0].label if one else ref


def _places(config: Config, base: Checkpoint) -> list[Place]:
    """Return where each tensor of the output lies."""
    layers: dict[str, int] = {}
    for name in base.tensors:
        if match := LAYER.search(name):
            layers[name[: match.start()]] = max(
                layers.get(name[: match.start()], 0), int(match[1]) + 1
            )
    ends, last = [], 0
    for piece in config.slices:
        first, end = piece.sources[0].layers or (0, 0)
        last += end - first
        ends.append(last)
    result = []
    for name in base.tensors:
        match = LAYER.search(name)
        if match is None:
            result.append(Place(name, 0.0, 0 if is_first(name) else len(ends) - 1))
            continue
        index, number, total = int(match[1]), 0, layers[name[: match.start()]]
        if config.slices[0].sources[0].layers is not None:
            number = sum(end <= index for end in ends)
            start = ends[number - 1] if number else 0
            index, total = index - start, ends[number] - start
        result.append(Place(name, index / (total - 1) if total > 1 else 1.0, number))
    return result


def _inputs(config: Config, place: Place) -> list[str]:
    """Return the name that the tensor of a place has in each source of its slice."""
    piece, match = config.slices[place.number], LAYER.search(place.name)
    if match is None or piece.sources[0].layers is None:
        return [place.name] * len(piece.sources)
    lengths = [s.sources[0].layers or (0, 0) for s in config.slices[: place.number]]
    offset = int(match[1]) - sum(last - first for first, last in lengths)
    before, after = place.name[: match.start()], place.name[match.end() :]
    return [f"{before}{(s.layers or (0, 0))[0] + offset}{after}" for s in piece.sources]


def _steps(
    config: Config, peer: Peer, columns: list[list[int]], base: Checkpoint
) -> dict[str, Step]:
    """Return what happens to each tensor, by name."""
    steps = {}
    for place in _places(config, base):
        piece, column = config.slices[place.number], columns[place.number]
        shared, each = resolve(config, piece, place, peer.parameters, _inputs(config, place))

        def refuse(name: str, why: str, piece: Slice = piece) -> NoReturn:
            for settings in (
                *(s.parameters for s in piece.sources),
                piece.parameters,
                *config.scopes,
            ):
                if name in settings:
                    settings[name].refuse(why)
            piece.node.refuse(why)

        given = Given(shared, each[column[0]], [each[i] for i in column[1:]], refuse)
        steps[place.name] = peer.translate(given)
    number = max(len(column) for column in columns) - 1
    usual = next((own for step in steps.values() for own in step.own), {})
    return {name: _full(step, number, usual) for name, step in steps.items()}


def _full(step: Step, number: int, usual: dict[str, Any]) -> Step:
    """Return the step with as many models, those that it lacks of weight 0."""
    missing = number - len(step.own)
    own = [*step.own, *[dict(step.own[0] if step.own else usual)] * missing]
    return Step(step.values, [*step.weights, *[0.0] * missing], own)


def _promoted(config: Config, found: Sequence[Checkpoint]) -> str | None:
    """Return the dtype that mergekit gives the output, None if it is the base's throughout."""
    kinds = set()
    same = True
    for name, tensor in found[0].tensors.items():
        dtypes = {own_dtype(c.tensors[name]) for c in found if name in c.tensors}
        if not tensor.is_weight:
            continue
        wide = _wider(dtypes)
        if wide is None:
            config.node.refuse(f"tensor {name!r} has dtypes {sorted(dtypes)}. Give a dtype.")
        kinds.add(wide)
        same &= wide == own_dtype(tensor)
    if same:
        return None
    if len(kinds) > 1:
        config.node.refuse("the models' dtypes differ, and not alike in all tensors. Give a dtype.")
    return _WIDER[kinds.pop()]


def _wider(dtypes: set[str]) -> str | None:
    """Return the dtype that all are promoted to; None if that is none of ours."""
    if len(dtypes) == 1:
        return next(iter(dtypes))
    if not dtypes <= set(_WIDER):
        return None
    return next(d for d in ("F64", "F32") if d in dtypes) if dtypes & {"F64", "F32"} else "F32"


def _recipe(
    config: Config, peer: Peer, refs: list[str], steps: dict[str, Step], dtype: str | None
) -> Recipe:
    """Return the recipe of the steps: what most tensors have, and overrides for the others."""
    names, texts = list(steps), filters(config)
    values = {name: dict(step.values) for name, step in steps.items()}
    own = {name: [dict(o) for o in step.own] for name, step in steps.items()}
    method, base, models = peer.name, refs[0], refs[1:]
    if peer.base == "possible":
        whole = any(p.base is None for p in config.slices)
        for mine in values.values():
            mine["of"] = "models" if whole else "task_vectors"
    if peer.alone and len(models) <= (peer.base == "possible"):
        return _alone(models[0] if models else base, dtype)
    if all(mine[:1] * len(mine) == mine for mine in own.values()):  # all models alike
        for name, mine in own.items():
            values[name].update(mine[0] if mine else {})
        own = {name: [{} for _ in models] for name in names}
    common = _most(list(values.values()))
    overrides = _overrides(values, common, "", names, texts)
    given: list[Model] = []
    for t, path in enumerate(models):
        mine = {name: {"weight": steps[name].weights[t], **own[name][t]} for name in names}
        usual = _most(list(mine.values()))
        weight = usual["weight"]
        if t == 0:
            common = {**common, **{k: v for k, v in usual.items() if k != "weight"}}
        different = {k: v for k, v in usual.items() if k != "weight" and common.get(k) != v}
        given.append(Model(path, weight, parameters=different))
        given = list(Recipe(base, tuple(given), method, common).models)
        overrides += _overrides(mine, usual, given[-1].name, names, texts)
    if not models and not overrides and common.get("base_weight", 1) == 1:
        return _alone(base, dtype)
    default = registry.get(method).complete({})
    common = {key: v for key, v in common.items() if v != default.get(key)}
    return Recipe(base, tuple(given), method, common, tuple(overrides), dtype=dtype)


def _alone(model: str, dtype: str | None) -> Recipe:
    """Return the recipe of one model as it is."""
    return Recipe(model, (), "average", dtype=dtype)


def _most(values: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what most of them are; of several, the first."""
    counts = Counter(tuple(sorted(v.items())) for v in values)
    return dict(counts.most_common(1)[0][0])


def _overrides(
    values: dict[str, dict[str, Any]],
    usual: dict[str, Any],
    model: str,
    names: list[str],
    texts: list[str],
) -> list[Override]:
    """Return overrides for the tensors whose values are not the usual ones."""
    groups: dict[tuple, set[str]] = {}
    for name, mine in values.items():
        if mine != usual:
            changed = {k: v for k, v in mine.items() if usual.get(k) != v}
            groups.setdefault(tuple(sorted(changed.items())), set()).add(name)
    result = []
    for changed, wanted in groups.items():
        parameters = dict(changed)
        weight = parameters.pop("weight", None)
        for glob in cover(wanted, names, texts):
            result.append(Override(glob, parameters, model, weight))
    return result
