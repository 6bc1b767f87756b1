"""What a package of kernels offers: the operations on flat arrays that all arithmetic consists of.

Arrays hold *raw* weights of one run of entries: ``uint16`` (the bits of bfloat16), ``float32`` or
``float64``. ``base`` has shape (n,), ``models`` (G, n) for G models at once. The *key* of an entry
is the magnitude of its task vector: the bits of ``|model - base|`` as an unsigned integer, which
orders like the number. Differences are taken in float32 for keys (float64 if the weights are) and
in float64 for sums.

A *cut* is four integers ``(low, low_ties, high, high_ties)`` that state which ranks of a unit
stay: the keys between ``low`` and ``high``; of the entries equal to ``low`` all but the first
``low_ties``; of those equal to ``high`` the first ``high_ties``. -1 stands for all of them.

A package is a module with these functions. All give the same bits, those of `kernels.numpy`, which
is what the words here mean; it may take a function of another package where it has no better.
Arguments go by position; those without a type are arrays.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

Array = np.ndarray


class Raw(Protocol):
    """Raw weights: as numbers, their magnitudes, and back to raw ones, rounded once."""

    def widen(self, raw, /) -> Array:
        """Return raw weights as floating point; bfloat16 bits become float32."""
        ...

    def extent(self, raw, /) -> tuple[float, float]:
        """Return the smallest nonzero and the largest magnitude of contiguous raw weights.

        A NaN or infinity among them shows as a largest of nan or inf. Weights without a nonzero
        entry give (inf, 0).
        """
        ...

    def sign_zeros(self, merged, where, base, models, total, /) -> None:
        """Give the zeros of ``merged`` at positions ``where`` their sign, which no addition has.

        Where all models hold zeros of one sign, that sign; else, where nothing is added, the
        base's; else what the addition gave. base, models: raw; total: the sums.
        """
        ...

    def round_to(self, merged, dtype: str, /) -> Array:
        """Return float64 ``merged`` rounded once, to nearest even, to the dtype of that name."""
        ...


class Ranks(Protocol):
    """Keys, their ranks, and what cuts of ranks keep."""

    def magnitudes(self, base, models, /) -> Array:
        """Return the keys of ``models`` over ``base``; uint32 or uint64, shape of models."""
        ...

    def tally(self, base, models, chunk: int | Array, brackets, counts, sizes, kept, /) -> None:
        """Count, chunk by chunk, keys around two brackets and collect those inside them.

        chunk: entries of each but the last, or (chunks,) int64, those of each.
        brackets: (G, 4) keys ``low, low_end, high, high_end``; one that ends before it begins asks
        for nothing. counts: (chunks, G, 4) int64, to which the numbers of keys < low, == low, <
        high, == high are added; equal ones are counted only for a bracket of one key. kept: (G,
        capacity) keys, into which the keys from low to low_end and from high to high_end, unless
        the bracket is one key, are written in order. sizes: (chunks, G) int64, set to how many each
        chunk has of them, those included for which there was no room.
        """
        ...

    def key_of_rank(self, keys, rank: int, hint: int, /) -> int:
        """Return the key of that rank, from 1, among all ``keys``. hint: a key near it."""
        ...

    def select(self, keys, low, end, place: int, /) -> tuple[int, int]:
        """Return (the key that is number ``place`` of those from low to end, place among equals).

        Counts from 1; (0, 0) if there are fewer.
        """
        ...

    def count_runs(self, keys, starts, sizes, low: int, key: int, /) -> tuple[Array, Array]:
        """Return of runs of keys how many are ``key``, and how many from ``low`` on are below it.

        starts, sizes: (runs,) int64, where in keys each begins and how many it has.
        """
        ...

    def histogram(self, base, models, first, shift: int, counts, /) -> None:
        """Add to ``counts`` (G, bins) how many keys are in bins of ``2**shift`` from ``first`` on.

        first: (G,) keys. Keys outside the bins are not counted.
        """
        ...

    def cut_units(self, base, models, unit: int, first: int, last: int, /) -> Array:
        """Return the cuts, (n/unit, G, 4) int64, that keep ranks ``first < rank <= last``.

        Of each unit, whose entries are ranked from 1 by (key, position). ``n`` is a multiple of
        ``unit``.
        """
        ...

    def band(self, keys, cut, /) -> Array:
        """Return which of the ``keys`` of one unit, or of its first part, the ``cut`` keeps."""
        ...

    def keep_by_rank(
        self,
        base,
        model,
        unit: int,
        key: np.uint64,
        start: int,
        chances,
        divide: bool,
        taus,
        kept,
        /,
    ) -> None:
        """Write what stays of ``model - base`` to float64 ``taus`` (n,), what that is to ``kept``.

        The entry of rank r, from 0 by (key, position), of each unit of ``unit`` entries stays if
        its draw is below ``floor(chances[r] * 2**32)``, and is divided by the chance if ``divide``.
        key and start: of the `draws`, for the first of the entries.
        """
        ...


class Sums(Protocol):
    """Sums of what stays of task vectors, with what rounding them leaves over.

    extent: (2,) uint32, whose first is lowered to the bits of the smallest nonzero magnitude minus
    1 and second raised to those of the largest; `bounds.NO_EXTENT` to begin with.
    """

    def drawn(self, n: int, keys, start: int, limits, t: int, /) -> Array:
        """Return which of n entries model t keeps."""
        ...

    def add_band(
        self, base, models, unit: int | Array, cuts, weights, total, rest, inexact, /
    ) -> None:
        """Add what the cuts keep of ``weight * (model - base)`` to ``total``, float64.

        cuts: (units, G, 4), one for each unit of ``unit`` entries (the last may be shorter), or of
        as many as ``unit`` (units,) int64 says of each.
        weights: (G,). ``rest`` and ``inexact``: empty, and then every weight is 1; or as long as
        ``total``, which then holds the leading part of the exact sum and ``rest`` what rounding it
        left over; ``inexact`` is set where even their sum is not exact.
        """
        ...

    def add_drawn(
        self, base, models, keys, start: int, limits, weights, total, rest, inexact, kept, /
    ) -> None:
        """Like `add_band`, keeping the entries whose draw is below ``limits[t]``.

        keys (G,) uint64 and start: of the `draws` of each model, for the first of the entries.
        limits: (G,) uint32, or empty, and then everything is kept, as is with a limit of
        `constants.ALL`. kept: (G,) int64, to which the numbers of entries kept are added unless
        that is all.
        """
        ...

    def settle(self, total, rest, /) -> None:
        """Make ``total`` the correctly rounded ``total + rest``, and ``rest`` what is left."""
        ...

    def merge(self, base, total, rest, alpha: float, /) -> Array:
        """Return ``base + alpha * (total + rest)`` in float64; ``rest`` may be empty."""
        ...

    def merge_band(
        self, base, models, unit: int | Array, cuts, weights, alpha: float, extent, out, /
    ) -> tuple[float, bool]:
        """Write ``base + alpha * (weighted sum of what the cuts keep)``, rounded once, to ``out``.

        As `add_band`, `settle`, `merge` and `sign_zeros`, in one go. out: raw. weights: (G,), or
        empty, and then they are all 1 and the result is right where the sums are provably exact,
        which ``extent`` helps to tell. Returns the sum of squares of the sums, and whether a sum
        with weights could not be had exactly, so that the result does not hold.
        """
        ...

    def begin_band(
        self,
        base,
        models,
        chunk: int,
        brackets,
        weights,
        alpha: float,
        extent,
        out,
        counts,
        doubts,
        where,
        columns,
        /,
    ) -> tuple[float, bool, int]:
        """Do as `merge_band` before the cuts are known, and count the keys below the brackets.

        counts: as `Ranks.tally` has them, but that those of equal keys stay. What lies inside a
        bracket of some model is in doubt: there the base is written, and the sum
        of squares leaves it out. doubts: (chunks,) int64, set to how many these are; where: uint32,
        to their positions, and columns (1 + G, space), raw, to the base and the models there, as
        far as there is space. `merge_band` of the columns of a chunk, with its cuts, is what they
        come to, and `tally` of all columns what else is to be known. Returns as `merge_band`, and
        how many are in doubt.
        """
        ...

    def merge_drawn(
        self, base, models, keys, start: int, limits, weights, alpha: float, extent, out, kept, /
    ) -> tuple[float, bool]:
        """Like `merge_band`, for what `add_drawn` adds."""
        ...

    def merge_several(
        self,
        base,
        models,
        sizes,
        ranks,
        keys,
        limits,
        kind: int,
        weights,
        alpha: float,
        extents,
        out,
        kept,
        squares,
        /,
    ) -> Array:
        """Do as `merge_band` or `merge_drawn` for tensors that lie one after the other in the rows.

        kind: `constants.TOTAL`, or that of an election without weights and with the majority 1,
        and then it does as `elect_band` or `elect_drawn`. sizes: (k,) int64, the entries of each.
        ranks: (k, 3) int64, the unit of each, a divisor of its size, and the first and last rank of
        `Ranks.cut_units`; or empty (0, 3), and then keys are (k, G), or empty with the limits.
        extents: (k, 2); kept: (k, G); squares: (k,) float64, set to the sums of squares. Returns of
        which (k,) the result does not hold.
        """
        ...

    def combine(
        self, base, models, own: float, weights, factor: float, extent, out, /
    ) -> tuple[float, bool]:
        """Write ``base + factor * (own * base + sum of weights * task vectors)`` to raw ``out``.

        weights: (G,), or empty, and then they are all 1, ``own`` is 0, and the result is right
        where the sums are provably exact. The sum is rounded to float64, then the whole to the
        output. Else as `merge_band`; but where nothing is added a zero keeps the base's sign.
        """
        ...


class Elections(Protocol):
    """Elections of signs among what stays of task vectors."""

    def elect_band(
        self,
        base,
        models,
        unit: int,
        cuts,
        kind: int,
        majority: int,
        alpha: float,
        extent,
        out,
        found,
        where,
        other,
        /,
    ) -> tuple[float, int, int, float]:
        """Write ``base + alpha * step``, rounded once, to raw ``out``; `merge_band` for elections.

        The elected sign of an entry is that of the sum of what the cuts keep of all models, and
        ``majority`` (1 or -1) where the sum is 0. The step is, of the kept task vectors of that
        sign, the mean (``kind`` 0), the sum (1) or the one of the largest magnitude (2); 0 if there
        is none, and then zeros keep the base's sign. Up to 32 models, all of weight 1. found: (n,)
        float64, set to the steps, or empty. where: positions, and other: raw weights of the output,
        for the entries whose sum is 0 of terms that are not, and what they would be with the other
        majority, as far as there is room; or both are empty. Returns the sum of squares of the
        steps, and, unless these are empty, how many more entries elect 1 than -1, how many are
        undecided, and how much larger the squares would be. The votes are right where the sums are
        provably exact.
        """
        ...

    def elect_drawn(
        self,
        base,
        models,
        keys,
        start: int,
        limits,
        kind: int,
        majority: int,
        alpha: float,
        extent,
        out,
        found,
        kept,
        /,
    ) -> float:
        """Like `elect_band`, for what `add_drawn` adds."""
        ...

    def elect_weighted(
        self,
        base,
        models,
        unit: int,
        cuts,
        drawn,
        kind: int,
        majority: int,
        weights,
        shares,
        alpha: float,
        extent,
        out,
        found,
        kept,
        /,
    ) -> tuple[float, int, bool]:
        """Like `elect_band` or, with no cuts, `elect_drawn` of (keys, start, limits), with weights.

        weights: (G,), by which the task vectors are multiplied before the election. shares: of each
        set of models, as the bits of a number, what the mean of theirs is divided by (1 if that is
        0); one entry for other kinds. Returns the squares, how many more entries elect 1 than -1,
        and whether a sum could not be had exactly, so that the result does not hold.
        """
        ...

    def merge_by_rank(
        self,
        base,
        models,
        unit: int,
        drawn: tuple[Array, int, Array],
        divide,
        weights,
        kind: int,
        majority: int,
        signed: bool,
        factor: float,
        extent,
        out,
        found,
        kept,
        /,
    ) -> float:
        """Write ``base + factor * step``, rounded to raw ``out``; return the squares of the change.

        The step is what `Terms.elected`, or for `constants.TOTAL` `Terms.exact_sum`, makes of what
        `Ranks.keep_by_rank` keeps of each model, in units of ``unit``. drawn: (keys (G,), start,
        chances (G, unit)); divide: (G,) uint8. found: (n,), for the steps, or empty. To ``kept``
        (G,) is added how many entries stay. Where nothing is added a zero keeps the base's sign.
        """
        ...


class Products(Protocol):
    """Inner products of weights, in an order of addition that no processor changes."""

    def products(self, base, models, out, /) -> None:
        """Write the inner products of the base and the task vectors, in float64, part by part.

        out: (parts of `PART` entries, the last may be shorter, 1 + G, 1 + G). Of each part, lane j
        adds the products of entries j, j + `LANES`, ... in order; then halves of lanes are added.
        """
        ...

    def lengths(self, base, models, weights, others, merged, out, /) -> None:
        """Add to ``out`` (3 + G,) what tells how far a step goes: float64, 16 lanes as `products`.

        With tau the task vectors, and step the merged weights (n,), of float32 or float64, less the
        base: <step, sum of weights * tau>, the squares of the sum of others * tau, those of the
        step, and those of each tau. weights, others: (G,) float64.
        """
        ...

    def squares(self, base, model, /) -> float:
        """Return the sum of the squares of ``model - base``, of raw weights (n,), in 16 lanes."""
        ...

    def row_products(self, rows, out, /) -> None:
        """Write the inner products of float64 rows (R, n) to ``out`` (parts, R, R), alike."""
        ...


class Terms(Protocol):
    """Exact sums and elections of float64 terms, whatever made the terms."""

    def exact_sum(self, terms, weights=None, /) -> Array:
        """Return the correctly rounded sums over the first axis of float64 terms (T, n).

        weights: (T,), by which the terms are multiplied first.
        """
        ...

    def exact_pair(self, terms, weights=None, /) -> tuple[Array, Array]:
        """Return (total, rest) of the sums that `exact_sum` returns.

        total is the correctly rounded sum and rest what it leaves out, so neither depends on the
        order.
        """
        ...

    def elected(self, taus, weights, kind: int, majority: int, signed: bool, /) -> Array:
        """Return the steps of an election as `elect_band` has it, of float64 task vectors (T, n).

        weights: (T,), by which they are multiplied first. signed: whether a mean divides by the sum
        of the weights, 1 if that is 0, and not of their magnitudes.
        """
        ...

    def add_step(self, base, step, /) -> Array:
        """Return ``base + step``, both float64 (n,); where the step is 0, the base's own zero."""
        ...


class Entrywise(Protocol):
    """What methods ask that look at each entry of all models, mostly of float64 task vectors."""

    def differences(self, base, models, wide, taus, /) -> bool:
        """Write the base to ``wide`` (n,), ``models - base`` to ``taus`` (G, n), both float64.

        Returns whether all of the raw weights are finite.
        """
        ...

    def sift(self, values, low: float, high: float, /) -> tuple[int, Array, Array]:
        """Return how many float64 values are below ``low``; those from low to high, as they come,
        and their positions, uint32. No value is a NaN.
        """
        ...

    def conflicts(self, taus, weights, narrow: bool, /) -> Array:
        """Return twice the sums (n,) of the products of all pairs of ``|weight * tau|``.

        Each is added, from the smallest magnitude up, times the sum of those before it. narrow:
        whether the magnitudes of task vectors (T, n) are rounded to float32 first.
        """
        ...

    def variances(self, taus, weights, /) -> Array:
        """Return T squared times the variances (n,) of terms, weight times task vector (T, n).

        T times the sum of squares less the square of the sum, of what terms are above the smallest,
        added from that up: the same in any order of models, and 0 where all are equal.
        """
        ...

    def claims(self, taus, weights, total, rest, ps, qs, /) -> tuple[Array, int, int]:
        """Return how many models claim each entry, int32 (n,).

        That is where ``q |term| > p |total + rest - term|``, with term the weight times the task
        vector; ps, qs: (T,) float64. And at how many entries some task vector is not 0, and at how
        many of these no model claims it.
        """
        ...

    def contend(
        self,
        taus,
        weight: float,
        sums,
        low: float,
        high: float,
        number: int,
        bound: float,
        /,
    ) -> tuple[Array, Array, Array, Array]:
        """Return positions (uint32), terms ``x = weight * tau``, exponents ``number * (s * s - 1)``
        and balances ``x * sum``, of the entries that contend.

        s is |x| between the ends low and high, of their difference. With a bound above 0, and up to
        1000 models, entries do not contend of which an upper limit, 1.001 times exp(exponent) times
        balance, computed in float32, is less than the bound. taus, sums: (n,).
        """
        ...

    def add_units(self, values, units, /) -> None:
        """Add finite float64 values to ``units`` (2100, 2) int64, exactly.

        Those of row r are worth ``2**(r - 1126)``, in column 0 ``2**26`` times that. Which ones a
        package adds to is its own; what they come to is not.
        """
        ...

    def exact_at(self, n: int, places, values, /) -> Array:
        """Return `exact_sum` of terms (T, n) that are 0 but for ``values[t]`` at ``places[t]``.

        places: of each model, uint32, none twice.
        """
        ...

    def unify(self, taus, weights, row: int = -1, /) -> Array:
        """Return of each entry the largest term of the sign of the sum, negative where that is 0.

        row: if not negative, of a model; where its term has not that sign, the result is 0.
        """
        ...


class Kept(Protocol):
    """Entries that a task file keeps: positions are uint32 offsets, ascending; values are raw."""

    def from_bitmap(self, bitmap, n: int, out, /) -> int:
        """Write the positions of the ones among the first n bits to ``out``; return how many.

        bitmap: uint8, the lowest bit of a byte first. -1 where there are more than ``out`` has room
        for, or a one after the first n.
        """
        ...

    def from_gaps(self, gaps, n: int, out, /) -> int:
        """Write the positions that ``gaps`` mean to ``out``; return how many.

        gaps: uint8 or uint16; each but `constants.LONG` is how many entries lie between two that
        are kept. -1 where there are more than ``out`` has room for, or one is not below n, or the
        last is `LONG`.
        """
        ...

    def from_planes(self, planes, out, /) -> None:
        """Write values of which plane j, uint8, holds byte j, from the lowest on; of any dtype."""
        ...

    def places(self, keep, out, /) -> int:
        """Write where uint8 ``keep`` is not 0 to ``out``; return how many, -1 where room lacks."""
        ...

    def take(self, values, positions, out, /) -> None:
        """Write the raw values at the positions, which are below their number, to ``out``."""
        ...

    def fill(self, out, start: int, positions, values, /) -> None:
        """Set ``out[position - start]`` to its value, for the positions that ``out`` has."""
        ...

    def changed(self, base, model, keep, cut: bool, /) -> None:
        """Set uint8 ``keep`` to which entries a task file holds.

        Without ``cut`` all whose bits are not the base's. With it those kept already that differ
        from the base as numbers; and zeros of another sign than the base's, which carry no task
        vector but decide the sign of a merged zero.
        """
        ...

    def keep_band(self, base, model, unit: int, cuts, keep, /) -> None:
        """Set uint8 ``keep`` to what the ``cuts`` (units, 4) keep of raw entries, unit by unit."""
        ...

    def merge_kept(
        self,
        base,
        ends,
        positions,
        values,
        weights,
        alpha: float,
        extent,
        out,
        carried,
        last: bool,
        /,
    ) -> tuple[float, bool]:
        """Do as `merge_drawn` for models that are the base but where they keep other weights.

        ends: (G + 1,) where the positions and raw values of each model begin and end. weights:
        (G,), or empty where all are 1. carried: (2, n) float64, what models of earlier calls add up
        to, changed in place, or (2, 0) where these are all models. last: whether to write to
        ``out``. The sign of a zero that all models hold is not looked for.
        """
        ...

    def zeros(self, values, /) -> int:
        """Return how many raw values are zeros."""
        ...

    def product(self, left, right, start: int, out, /) -> None:
        """Write entries of ``left right``, from flat position ``start`` on, to ``out`` (float64).

        left: (rows, rank) float32, right: (rank, n) float32. Products, which are exact, are added
        from the first of the rank to the last.
        """
        ...


FAMILIES = (Raw, Ranks, Sums, Elections, Products, Terms, Entrywise, Kept)


class Kernels(Raw, Ranks, Sums, Elections, Products, Terms, Entrywise, Kept, Protocol):
    """All operations that a package of kernels offers."""


#: Their names.
OPERATIONS = tuple(name for family in FAMILIES for name in vars(family) if not name.startswith("_"))
