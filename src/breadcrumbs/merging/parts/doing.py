"""One part of a merge, as a function of plain arguments that any process or machine may call."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint import beside, durable
from breadcrumbs.errors import OutputError, RecipeError
from breadcrumbs.merging import card, estimate, files, inputs, opening
from breadcrumbs.merging.executors import machines
from breadcrumbs.merging.parts import dealing
from breadcrumbs.merging.parts.dealing import Deal, Shard
from breadcrumbs.merging.parts.passes import ANYONE, ENDINGS, Again, Round, has_votes
from breadcrumbs.merging.parts.state import WHOLE, Folder, compare
from breadcrumbs.merging.parts.writing import Merging, weights
from breadcrumbs.methods import algebra, registry
from breadcrumbs.plan import USUAL, Plan, Sizes
from breadcrumbs.plan.judgement import judged, refuse
from breadcrumbs.plan.recipe import Recipe, to_mapping
from breadcrumbs.version import __version__

SHARD_SIZE = 5 * 10**9
#: What is judged of a merge, once.
JUDGED = "judged"


@dataclass(frozen=True)
class PartReport:
    """What one go at a part has done.

    shards: the files of the part; written: those that this go wrote. waits: what is to be done by
    other parts before this one can go on, empty if it is done. of: how many shards there are.
    """

    part: int
    parts: int
    shards: tuple[str, ...]
    written: tuple[str, ...]
    of: int
    waits: str = ""
    left: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def again(self) -> bool:
        """Whether the part must be run again, when others have been."""
        return bool(self.waits)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "again": self.again}


@dataclass(frozen=True)
class Merge:
    """A merge that is done in parts: plain data, which every part and the commit are given alike.

    shard_size: bytes of a file at most; the files are what is dealt to parts. force: whether the
    output may exist, which the commit then replaces. strict: whether warnings are errors. plugins:
    files of methods. sizes: in what pieces it is carried out.
    """

    recipe: Recipe
    output: str
    shard_size: int = SHARD_SIZE
    force: bool = False
    strict: bool = False
    plugins: tuple[str, ...] = ()
    sizes: Sizes = USUAL


def merge_part(
    merge: Merge,
    part: int,
    parts: int,
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    kernel: str = "auto",
    sync: bool = True,
    verify: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> PartReport:
    """Do what can be done of one of so many parts, from 1; return what was done.

    What is done stays done, and is done by whoever comes first: a part may be called again, after a
    kill or beside itself, and then gives the same bytes. Where the method looks at the whole model
    first, a part does its share of that; where others have not done theirs, it must be called again
    (`PartReport.again`). When no part waits, `commit` makes the output of them. verify: whether
    each shard is read again. Others: as for `breadcrumbs.merge`.

    Raises a BreadcrumbsError as a merge does, and OutputError where another merge, other versions,
    plugins or inputs made what is there.
    """
    if not 1 <= part <= parts:
        raise RecipeError(f"part: {part}/{parts} is none. Give K/N, with K from 1 to N.")
    with durable.syncing(sync), begun(merge) as (plan, folder):
        deal = Deal(plan, merge.shard_size)
        mine = deal.of(part, parts)
        written: list[str] = []
        warnings, paths = plan.warnings, tuple(it.path for it in mine)

        def made(waits: str = "", left: Iterable[int] = ()) -> PartReport:
            names = tuple(it.path for it in deal.shards if it.number in set(left))
            done = tuple(written)
            return PartReport(part, parts, paths, done, len(deal.shards), waits, names, warnings)

        if not mine:
            return made()
        algebra.of(plan.recipe.device)  # which says where there is none
        threads = estimate.threads(plan, threads, max_memory)
        check_room(folder, sum(it.nbytes for it in mine if not _is_done(folder, it)))
        round_ = Round(folder, deal, mine, threads, kernel, progress)
        try:
            votes = has_votes(plan)
            waiting = [s for s in mine if votes or not _is_done(folder, s)]
            if waiting:
                plan, facts = round_.fixed(plan)
                facts = round_.whole(plan, facts)
                merging = Merging(round_, plan, facts, verify)

                def write(shard: Shard, way: int) -> dict[str, Any]:
                    found = merging.write(shard, way)
                    written.append(shard.path)
                    return found

                there = partial(is_there, folder)
                round_.elected("notes", votes, write, wait=False, there=there)
        except Again as again:
            return made(again.what, again.left)
        return made()


def is_there(folder: Folder, shard: Shard, way: int) -> bool:
    """Return whether a shard that was written with a majority lies there, or where a commit puts
    it."""
    places = (folder.path / weights(way), folder.path / WHOLE)
    return any((place / shard.path).is_file() for place in places)


def _is_done(folder: Folder, shard: Shard) -> bool:
    """Return whether a shard is written, with whatever majority."""
    return any(
        folder.has("notes" + ENDINGS[way], shard.number) and is_there(folder, shard, way)
        for way in (-1, 0, 1)
    )


@contextmanager
def begun(merge: Merge, *, only_on: bool = False) -> Iterator[tuple[Plan, Folder]]:
    """Open a merge; give its plan, in the sizes that the first part took, and its folder.

    only_on: whether some part must have begun it. Raises what a merge raises before it reads, and
    what `compare` does.
    """
    for plugin in merge.plugins:
        if Path(plugin).absolute() not in registry.FILES:
            registry.load_plugin(plugin)
    output = Path(merge.output)
    folder = Folder(output)
    with opening.opened(merge.recipe, sizes=merge.sizes, by_token=True) as plan:
        kept = _judgement(folder)
        if kept is None:
            plan = judged(files.advised(plan), merge.strict)
        else:
            plan = replace(files.advised(plan), warnings=kept)
        warnings = plan.warnings
        plan = opening.without_same_parts(plan)
        files.check_not_input(plan, output)
        card.tokenizer_of(plan)
        if plan.target.folder:
            beside.files(plan.target.folder)
        if files.is_quantised_again(plan):
            raise RecipeError(
                "dtype same: weights are not quantised again in parts. Give another dtype, or merge"
                " without --part."
            )
        if plan.coordinates is not None:
            raise RecipeError(
                f"space {plan.recipe.space}: is merged at once. Merge without --part and --on."
            )
        if any(not source.files for source in plan.inputs):
            raise RecipeError("parts: models in memory are no other process's. Give files.")
        folder.check_output(merge.force)
        about = _about(merge, plan)
        found = folder.plan() if only_on else folder.begin(about)
        sizes: Any = found.get("sizes", about["sizes"])
        compare(folder, {**about, "sizes": sizes}, found)
        if kept is None:
            folder.write(JUDGED, ANYONE, list(warnings))
        elif merge.strict:
            refuse(warnings)
        plan = replace(plan, sizes=Sizes(**{**sizes, "begun": plan.sizes.begun}))
        if note := inputs.other_version(plan):
            plan = replace(plan, notes=(*plan.notes, note))
        yield plan, folder


def _judgement(folder: Folder) -> tuple[str, ...] | None:
    """Return the warnings that one part found for all, by reading some of the weights, if they are
    there. Whether they are of this merge, `compare` says."""
    if folder.is_committed or not (folder.path / JUDGED).exists():
        return None
    with contextlib.suppress(OutputError):
        folder.plan()
        return tuple(folder.read(JUDGED, ANYONE))
    return None


def _about(merge: Merge, plan: Plan) -> dict[str, Any]:
    """Return what the output follows from, as plain data that JSON gives back as it is."""
    deal = Deal(plan, merge.shard_size)
    words = [plan.words.said, list(plan.words.ids)] if plan.words is not None else []
    depends = [to_mapping(plan.recipe, complete=True), words]
    given = [Path(plugin) for plugin in merge.plugins]
    given += [registry.PLUGINS[it] for it in [plan.recipe.method] if it in registry.PLUGINS]
    plugins = {path.name: machines.hashed(path) for path in given}
    return {
        "by": {"Breadcrumbs": __version__, "NumPy": np.__version__},
        "recipe": blake3(json.dumps(depends).encode()).hexdigest(),
        "base": merge.recipe.base,
        "models": [model.path for model in merge.recipe.models],
        "method": merge.recipe.method,
        "inputs": dealing.stamps(plan),
        "plugins": plugins,
        "shards": [it.path for it in deal.shards],
        "shard_size": merge.shard_size,
        "sizes": asdict(plan.sizes),
    }


def check_room(folder: Folder, wanted: int) -> None:
    """Raise OutputError where the disk has no room for so many bytes."""
    free = shutil.disk_usage(folder.path).free
    if wanted > free:
        raise OutputError(
            f"{os.path.dirname(folder.path)}: {wanted / 1e9:.3g} GB are needed and {free / 1e9:.3g}"
            " GB are free. Make room, or give an output on another disk."
        )


def parsed(text: str) -> tuple[int, int]:
    """Return the numbers of K/N; RecipeError for anything else."""
    part, _, parts = text.partition("/")
    if part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts):
        return int(part), int(parts)
    raise RecipeError(f"--part {text}: is not K/N, with K from 1 to N, such as 3/64.")


def listed(names: Sequence[str]) -> str:
    """Return names for a message: all of a few, else the first ones."""
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
