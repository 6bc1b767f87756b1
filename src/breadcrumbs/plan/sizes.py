"""How much is looked at, held and worked on at once: one value, which a plan has.

None of them depends on the machine, and no result depends on them, but for the last bits of what is
added up block by block (`block`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The usual sizes; others, such as small ones, give the same results.

    chunk: entries that are computed at once. arena: bytes of raw weights of all models that one
    thread holds, those of a segment; but of many models at least ``least`` chunks. group, fused:
    models that are read at once, by the survey and by the fused kernels. repeat: entries of a tied
    copy that are written at once. kept: entries that task files keep which are merged at once.
    few: entries that ranks over the whole model are among when they are held and sorted. terms:
    entries of all models whose task vectors are held at once where that is as good. block:
    entries whose inner products are found at once, about; of more, they are added up. held: blocks
    of a comparison that are added up at once.

    Of the survey (`engine.passes.tally`): run: entries of a run of its sample. room: room for
    collected keys, as a fraction of the entries, and ``spare`` more. wave: bytes of collected keys
    of all models of one pass over a unit, about; more models take more passes. budget: bytes of
    collected keys of one model: room for as many, and brackets are narrowed by histograms of
    ``bins`` bins, in passes of their own, until they hold half of that. begun: bytes of segments
    that are merged before their ranks are known, and held until they are.

    turns: entries of a tensor from which on one task vector of it is held at a time, where its
    method allows.

    undecided: of so many entries of a chunk there is room for one that the majority of the model
    decides, and for ``spare`` more.
    """

    chunk: int = 1 << 16
    arena: int = 16 << 20
    least: int = 2
    group: int = 4
    fused: int = 32
    repeat: int = 1 << 20
    kept: int = 8 << 20
    few: int = 1 << 22
    terms: int = 1 << 17
    block: int = 1 << 14
    held: int = 256
    run: int = 2048
    room: float = 0.06
    spare: int = 64
    wave: int = 8 << 20
    budget: int = 64 << 20
    bins: int = 1 << 14
    begun: int = 64 << 20
    turns: int = 1 << 20
    undecided: int = 8

    @property
    def least_arena(self) -> int:
        """The arena where memory is short."""
        return min(self.arena, 4 << 20)

    @property
    def least_budget(self) -> int:
        """The budget where memory is short."""
        return self.wave // 2

    def room_of(self, n: int) -> int:
        """Return how many keys are collected at most from ``n`` entries."""
        return int(self.room * n) + self.spare

    def undecided_of(self, n: int) -> int:
        """Return for how many undecided entries of ``n`` there is room."""
        return n // self.undecided + self.spare


USUAL = Sizes()
