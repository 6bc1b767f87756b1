"""Passes over the whole model as map and reduce: each shard finds its own, and anyone joins all.

Passes follow from the plan and from what earlier ones have found, so every process goes through the
same ones in the same order: of each it finds what its shards lack, and when all shards' results are
there it joins them and goes on. What comes out is what one process would have found, to the bit.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from breadcrumbs import kernels
from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Consumer
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.facts import Facts, UnitId
from breadcrumbs.engine.outputs import TensorReport
from breadcrumbs.engine.passes.protocol import Pass
from breadcrumbs.errors import OutputError, RecipeError
from breadcrumbs.merging import calibration
from breadcrumbs.merging.parts.dealing import Deal, Shard
from breadcrumbs.merging.parts.measuring import Measuring
from breadcrumbs.merging.parts.state import Folder
from breadcrumbs.plan import Plan, units
from breadcrumbs.plan.units import Job
from breadcrumbs.threads import Task, run_tasks

#: What the results of a pass that anyone does alone are called instead of a shard's.
ANYONE = 0
#: What is found of written shards, and what messages call these.
NOTES, FILES = "notes", "the files"
#: What was found of the ranks of a shard's tensors on the way to alpha, by name and first entry.
CUTS = "cuts"
#: The endings of what was merged with a majority, and with none.
ENDINGS = {0: "", -1: "-minus", 1: "-plus"}


class Again(Exception):
    """A part has done what it can for now. what: in words; left: shards that others must do."""

    def __init__(self, what: str, left: Iterable[int]):
        self.what, self.left = what, sorted(left)
        super().__init__(what)


@dataclass
class Round:
    """One go at the shards ``mine`` of a merge; of a commit there are none."""

    folder: Folder
    deal: Deal
    mine: list[Shard]
    threads: int = 1
    kernel: str = "auto"
    progress: Callable[[int], None] = runner.silent
    count: int = field(default=0, init=False)
    samples: int = field(default=0, init=False)
    searches: int = field(default=0, init=False)

    def whole(self, plan: Plan, facts: Facts | None = None) -> Facts:
        """Return what must be known of the whole model of a plan; `Again` if others must help.

        facts: what is known, to be added to.
        """
        context = Context(plan, facts=facts or Facts(), kernel=self.kernel, once=self._once)
        for begin in runner.searches(context):
            self.searches += 1
            context.facts.add(self._kept() or self._searched(context, begin))
        return context.facts

    def _searched(self, context: Context, begin: Callable[[], Facts | Pass]) -> Facts:
        """Return what a search finds, and keep it: nobody joins all results of its passes again."""
        found = begin()
        while not isinstance(found, Facts):
            found = self._passed(context, found)
        with contextlib.suppress(TypeError):  # no plain data
            text = found.to_text()
            self.folder.write(self._found, ANYONE, [self.count, self.samples, text])
        return found

    def _kept(self) -> Facts | None:
        """Return what somebody kept of a search, after whose passes it then is."""
        if not self.folder.has(self._found, ANYONE):
            return None
        self.count, self.samples, text = self.folder.read(self._found, ANYONE)
        return Facts.of_text(text)

    @property
    def _found(self) -> str:
        return f"facts-{self.searches}"

    def _once(self, find: Callable[[], Any]) -> Any:
        """Return what a sample of the model gives, which whoever comes first takes for all."""
        self.samples += 1
        kind = f"sample-{self.samples}"
        if not self.folder.has(kind, ANYONE):
            self.folder.write(kind, ANYONE, find())
        return self.folder.read(kind, ANYONE)

    def _passed(self, context: Context, pass_: Pass) -> Facts | Pass:
        """Carry out a pass, or what of it is to be done here; return what comes after it."""
        self.count += 1
        plan, kind, items = context.plan, f"pass-{self.count}", list(pass_.items())
        light = getattr(pass_, "light", False) and plan.lowered.keeps_all
        owners: dict[int, list[int]] = {}
        for i, item in enumerate(items):
            tensor = plan.tensors[pass_.looked(item)[0]]
            owners.setdefault(ANYONE if light else self.deal.owner[tensor.name], []).append(i)
        for number in (ANYONE, *(shard.number for shard in self.mine)):
            if number in owners and not self.folder.has(kind, number):
                if plan.prepares and not light:
                    self._local(context, number)
                found = scanned(pass_, items, owners[number], self.threads, self.kernel)
                self._write(plan, kind, number, [type(pass_).__name__, owners[number], found])
        left = [number for number in owners if not self.folder.has(kind, number)]
        if left:
            raise Again(f"pass {self.count} over the model", left)
        for number in sorted(owners):
            name, mine, found = self.folder.read(kind, number)
            if name != type(pass_).__name__ or mine != owners[number]:
                raise OutputError(
                    f"{self.folder.path / kind}: is of another merge. Remove {self.folder.path} and"
                    " begin again."
                )
            for i, part in found:
                if pass_.is_impossible(items[i], part):
                    raise OutputError(
                        f"{self.folder.path}/{kind}/{number:05d}: counts more than there is. Remove"
                        " it and run the parts again."
                    )
                pass_.join(items[i], part)
        return pass_.end()

    def _local(self, context: Context, number: int) -> None:
        """Find what of a shard's tensors is found of each by itself."""
        jobs = self.deal.jobs(context.plan)[number]
        runner.known_alone(context, list(jobs.values()), threads=self.threads)

    def _write(self, plan: Plan, kind: str, number: int, found: Any) -> None:
        try:
            self.folder.write(kind, number, found)
        except TypeError as error:
            raise RecipeError(
                f"method {plan.method.name}: cannot be merged in parts, since what it finds of the"
                f" whole model is no plain data ({error}). Merge without --part."
            ) from None

    # --- what is done with a majority ---

    def elected(
        self,
        kind: str,
        votes: bool,
        do: Callable[[Shard, int], dict[str, Any]],
        wait: bool = True,
        there: Callable[[Shard, int], bool] = lambda shard, way: True,
    ) -> dict[int, dict[str, Any]]:
        """Return of every shard what ``do`` found with the right majority; `Again` if any is left.

        votes: whether a majority has a say; without one it is 0. do: (shard, majority) -> what was
        found: its ``votes``, and how many entries are ``undecided`` without a majority. wait: for
        other shards, if it does not depend on them; else what is there comes back. there: whether
        what was made with a majority still is.
        """
        ways = (-1, 1) if votes else (0,)
        found: dict[int, dict[int, dict[str, Any]]] = {}

        def look(shard: Shard) -> None:
            known = {way: kind + ENDINGS[way] for way in ways if there(shard, way)}
            found[shard.number] = {
                way: self.folder.read(name, shard.number)
                for way, name in known.items()
                if self.folder.has(name, shard.number)
            }

        def make(shard: Shard, way: int) -> None:
            it = do(shard, way)
            self.folder.write(kind + ENDINGS[way], shard.number, it)
            found[shard.number][way] = it

        def way_of(number: int) -> int:
            """Return what most entries elect of the component of a shard, as far as is known."""
            of = self.deal.component
            alike = [mine for other, mine in found.items() if of[other] == of[number] and mine]
            every = sum(next(iter(mine.values()))["votes"] for mine in alike)
            return (1 if every > 0 else -1) if votes else 0

        for shard in self.deal.shards:
            look(shard)
        for shard in self.mine:
            if not found[shard.number]:
                make(shard, way_of(shard.number))
        for shard in [shard for shard in self.deal.shards if not found[shard.number]]:
            look(shard)
        left = [number for number, mine in found.items() if not mine]
        undecided = any(it["undecided"] for s in self.mine for it in found[s.number].values())
        if left and (wait or undecided):
            raise Again(FILES if kind == NOTES else kind, left)
        right = {number: 0 if left else way_of(number) for number in found}
        if votes and not left:
            for shard in self.mine:
                if _chosen(found[shard.number], right[shard.number]) is None:
                    make(shard, right[shard.number])
        chosen = {number: _chosen(mine, right[number]) for number, mine in found.items()}
        left = [number for number, it in chosen.items() if it is None]
        if left and wait:
            raise Again(FILES if kind == NOTES else kind, left)
        return {number: it for number, it in chosen.items() if it is not None}

    # --- alpha ---

    def fixed(self, plan: Plan) -> tuple[Plan, Facts]:
        """Return the plan with numbers where it says `auto`, and what of the whole model is known.

        A commit asks for the numbers alone.
        """
        if not plan.automatic:
            return plan, Facts()
        if plan.method.calibration is not None:
            raise RecipeError(
                f"method {plan.method.name}: finds its numbers by a calibration, which cannot be"
                " done in parts. Give numbers, or merge without --part."
            )
        measured = calibration.measured(plan)
        facts = self.whole(measured) if self.mine else Facts()
        jobs = self.deal.jobs(measured) if self.mine else {}

        def measure(shard: Shard, way: int) -> dict[str, Any]:
            sink, mine = Measuring(measured, self.deal, shard, way), copied(facts)
            self.run(measured, sink, mine, jobs[shard.number], keeps=calibration.KEPT)
            cuts = {
                (measured.tensors[index].name, start): cut
                for (index, start), cut in mine.cuts.items()
                if (index, start) not in facts.cuts
            }
            if cuts:  # for who writes the shard
                self.folder.write(CUTS, shard.number, cuts)
            return {**sink.sent(), "votes": sink.votes, "undecided": sink.undecided}

        sink, fresh = calibration.Products(measured), Facts()
        for found in self.elected("alpha", has_votes(measured), measure).values():
            sink.add(found)
        return calibration.told(plan, sink, facts, fresh), fresh

    def run(
        self,
        plan: Plan,
        consumer: Consumer,
        facts: Facts,
        jobs: dict[UnitId, Job],
        **more: Any,
    ) -> list[TensorReport]:
        """Carry out some jobs of a plan, with what is known, which is changed; return reports."""
        return runner.run(
            plan,
            consumer,
            threads=self.threads,
            kernel=self.kernel,
            progress=self.progress,
            facts=facts,
            only=jobs,
            jobs=list(jobs.values()),
            **more,
        )


def copied(facts: Facts) -> Facts:
    """Return facts that may be added to, with the same contents."""
    return Facts(**{key: dict(mine) for key, mine in vars(facts).items()})


def has_votes(plan: Plan) -> bool:
    """Return whether the majority of the model has a say."""
    return bool(plan.lowered.votes) and any(job.together for job in units.jobs(plan))


def _chosen(mine: dict[int, dict[str, Any]], right: int) -> dict[str, Any] | None:
    """Return what was found with the right majority, or with another that has no say in it."""
    return next((it for way, it in mine.items() if way == right or not it["undecided"]), None)


def scanned(
    pass_: Pass, items: list[Any], mine: list[int], threads: int, kernel: str
) -> list[tuple[int, Any]]:
    """Return what is found in some items, by number; of what adds up there is one for all."""
    found: list[tuple[int, Any]] = []
    lock = threading.Lock()

    def scan(i: int) -> list[Task]:
        part = pass_.sent(items[i], pass_.scan(items[i]))
        with lock:
            both = pass_.added(found[0][1], part) if found else None
            if both is None:
                found.append((i, part))
            else:
                found[0] = found[0][0], both
        return []

    with kernels.explained(kernel):
        run_tasks([partial(scan, i) for i in mine], threads)
    return sorted(found, key=lambda pair: pair[0])
