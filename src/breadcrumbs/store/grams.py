"""What the closed form of `wudi` takes of all tasks, kept for every matrix of the base.

Of a matrix whose task vectors are tau_t (m, n) these are three sums over the tasks,

    S = sum tau_t    A = sum tau_t^T tau_t / |tau_t|^2    C = sum tau_t tau_t^T tau_t / |tau_t|^2

(`normalize: none` has no norms), of which S and C have the shape of the matrix, and A is (n, n) and
symmetric. Merging takes one decomposition of A, however many tasks there are; adding or removing
a task takes its own terms.

Each term is a function of one task and its weight, made with one thread, over the largest power of
two in the base's matrix, and rounded to a multiple of `GRID`. The sums of such terms are kept as
pairs (`pairs`), which hold them exactly: so they are one number whatever the order, and a task that
is taken out leaves no bit behind. What a product of matrices rounds to depends on the processor, so
the sums are of a machine, and on another one they are made anew.

A file for each matrix says which tasks it is of. It is replaced as a whole, and has a digest:
whoever reads it brings it to the tasks that are wanted, and what is damaged is made from the task
files. So it needs no transaction, and readers no lock.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.engine.workspace import one_blas_thread
from breadcrumbs.errors import StoreError
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.methods.parameters import Values
from breadcrumbs.methods.published import wudi
from breadcrumbs.store import files, pairs
from breadcrumbs.store.sums import State, alone
from breadcrumbs.taskfile.reader import TaskFile
from breadcrumbs.threads import Task, run_tasks

VERSION = 1
#: Terms are multiples of this: pairs hold all sums of them that are below 2^18.
GRID = 2.0**-88
#: Entries that are added at once, so that they stay in the cache.
_STEP = 1 << 15
#: Characters of a header at most: a task takes a hundred.
_LONGEST = 1 << 24


@dataclass(frozen=True)
class Matrix:
    """A matrix of the base: a tensor, or number ``index`` of a stack of them.

    place: the number of its file.
    """

    tensor: Tensor
    index: int
    shape: tuple[int, int]
    place: int

    @property
    def start(self) -> int:
        """Its first entry in the tensor."""
        return self.index * math.prod(self.shape)

    @property
    def packed(self) -> int:
        """How many entries of A are kept: those of one triangle."""
        return self.shape[1] * (self.shape[1] + 1) // 2

    @property
    def entries(self) -> int:
        """How many numbers the three sums are."""
        return 2 * math.prod(self.shape) + self.packed


@dataclass
class Sums:
    """S, the triangle of A and C, one after the other, as pairs. exact: whether pairs hold them."""

    of: State
    total: np.ndarray
    rest: np.ndarray
    exact: bool = True


class Grams:
    """The sums in ``folder``, of the tasks of a store on its base.

    how: the parameters of `wudi` that they depend on. task: hash -> the open task file.
    """

    def __init__(
        self,
        folder: Path,
        base: Checkpoint,
        base_hash: str,
        how: Values,
        task: Callable[[str], TaskFile],
        kernels: Kernels,
    ):
        self.folder, self.base_hash, self.how = folder, base_hash, how
        self.task, self.kernels = task, kernels
        self._of: dict[str, list[Matrix]] = {}
        self.matrices: list[Matrix] = []
        for name in sorted(base.tensors):
            tensor = base.tensors[name]
            shape = wudi.WUDI.each(name, tensor.shape, how)
            if not tensor.is_weight or len(shape) != 2 or not tensor.size:
                continue
            for index in range(tensor.size // math.prod(shape)):
                made = Matrix(tensor, index, (shape[0], shape[1]), len(self.matrices))
                self._of.setdefault(name, []).append(made)
                self.matrices.append(made)

    @property
    def bytes(self) -> int:
        """How many bytes the files take at most, but for their headers."""
        return sum(16 * matrix.entries for matrix in self.matrices)

    def matrix(self, name: str, start: int, shape: tuple[int, ...]) -> Matrix | None:
        """Return the matrix of a tensor that begins with entry ``start``, if it is one."""
        for matrix in self._of.get(name, ()):
            if (matrix.start, matrix.shape) == (start, shape):
                return matrix
        return None

    # --- reading ---

    def at(
        self, matrix: Matrix, wanted: State, scratch: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return S, A and C of the ``wanted`` tasks, all over a number, and that.

        To be called with one thread of linear algebra. scratch: from the task files.
        """
        found = self._at(matrix, wanted, scratch)
        size = math.prod(matrix.shape)
        s, a, c = np.split(found.total, [size, size + matrix.packed])
        unit = _unit(self._base(matrix)[2])
        return s.reshape(matrix.shape), _unpacked(a, matrix.shape[1]), c.reshape(matrix.shape), unit

    def _at(self, matrix: Matrix, wanted: State, scratch: bool = False, rest: bool = False) -> Sums:
        """Return the sums of the ``wanted`` tasks. rest: whether what totals leave out counts."""
        head = None if scratch else self._head(matrix)
        held = State() if head is None else head[0]
        if head is not None and held == wanted and not rest:
            found = self._read(matrix, *head, rest=False)
            if found is not None:
                return found
        out, into = held - wanted, wanted - held
        gone = any(not self._there(task) for task, _ in out)
        if head is not None and not gone and out.total() + into.total() < wanted.total():
            found = self._read(matrix, *head)
            if found is not None and found.exact:
                self._change(found, matrix, into, out)
                if found.exact:
                    return found
        made = Sums(State(), np.zeros(matrix.entries), np.zeros(matrix.entries))
        self._change(made, matrix, wanted, State())
        return made

    def _there(self, task: str) -> bool:
        with contextlib.suppress(StoreError):
            return self.task(task) is not None
        return False

    # --- arithmetic ---

    def _change(self, found: Sums, matrix: Matrix, into: State, out: State) -> None:
        """Put tasks in and take tasks out. Where pairs do not hold the sums, these are not exact,
        but depend on the tasks alone if they were made from nothing."""
        raw, lowest, base = self._base(matrix)
        unit = _unit(base)
        for state, sign in ((into, 1.0), (out, -1.0)):
            for (task, weight), times in sorted(state.items()):
                tau = self._vector(task, matrix, raw, lowest)
                if tau is None:
                    continue
                tau *= weight
                tau /= unit
                if not np.isfinite(tau).all():
                    tau[:] = np.nan  # which stays until it is taken out, and is an error on merging
                gram, c = wudi.term(tau.reshape(matrix.shape), self.how["normalize"] == "norms")
                term = np.concatenate([tau, _packed(gram), c.reshape(-1)])
                for _ in range(times):
                    _add(term, sign, found)
        found.of = found.of + into - out
        found.exact = not np.isnan(found.rest).any()

    def _base(self, matrix: Matrix) -> tuple[np.ndarray, int, np.ndarray]:
        """Return the raw weights of the blocks that a matrix lies in, the first entry of these, and
        the matrix, flat, in float64."""
        tensor, size = matrix.tensor, math.prod(matrix.shape)
        lowest = matrix.start // BLOCK * BLOCK
        highest = min(tensor.size, -(-(matrix.start + size) // BLOCK) * BLOCK)
        raw = np.empty(highest - lowest, DTYPES[tensor.dtype])
        tensor.read_into(lowest, raw)
        return raw, lowest, raw[matrix.start - lowest :][:size].astype(np.float64)

    def _vector(self, task: str, matrix: Matrix, raw: np.ndarray, lowest: int) -> np.ndarray | None:
        """Return the task vector (m n,) of a task as it is stored, or None if it has none there."""
        file, name, size = self.task(task), matrix.tensor.name, math.prod(matrix.shape)
        if name not in file.tensors:
            return None
        tau = np.zeros(size)
        if file.change(name, matrix.start, tau):  # two thin matrices, as their product
            return tau
        for first in range(lowest, lowest + raw.size, BLOCK):
            block = raw[first - lowest :][:BLOCK]
            if not file.number(name, first // BLOCK):
                continue
            kept = file.kept(name, first // BLOCK, block, self.kernels)
            at = kept.positions.astype(np.int64) + (first - matrix.start)
            mine = (at >= 0) & (at < size)
            values = kept.values[mine].astype(np.float64)
            tau[at[mine]] = values - block[kept.positions[mine]].astype(np.float64)
        return tau

    # --- writing ---

    def update(self, latest: Callable[[], int], states: Callable[[int], State], threads: int):
        """Bring all sums to the latest revision, one process at a time."""
        self._each(latest, states, threads, self._update)

    def repair(
        self, latest: Callable[[], int], states: Callable[[int], State], threads: int
    ) -> int:
        """Make all sums of the latest revision from the task files, and compare; return how many
        were not the same bits, and are now."""
        wrong: list[int] = []

        def look(matrix: Matrix, wanted: State) -> list[Task]:
            made, head = self._at(matrix, wanted, scratch=True), self._head(matrix)
            held = head and head[0] == wanted and self._read(matrix, *head)
            same = held and all(
                np.array_equal(mine, its, equal_nan=True)
                for mine, its in ((held.total, made.total), (held.rest, made.rest))
            )
            if not same:
                wrong.append(matrix.place)
                self._write(matrix, made)
            return []

        self.update(latest, states, threads)
        self._each(latest, states, threads, look)
        return len(wrong)

    def _each(
        self,
        latest: Callable[[], int],
        states: Callable[[int], State],
        threads: int,
        work: Callable[[Matrix, State], list[Task]],
    ) -> None:
        with alone(self.folder.parent / files.SUMS), one_blas_thread():
            if not self.folder.is_dir():  # given up meanwhile
                return
            wanted = states(latest())
            run_tasks([partial(work, matrix, wanted) for matrix in self.matrices], threads)

    def _update(self, matrix: Matrix, wanted: State) -> list[Task]:
        head = self._head(matrix)
        if head is None or head[0] != wanted:
            self._write(matrix, self._at(matrix, wanted, rest=True))
        return []

    # --- bytes ---

    def _where(self, matrix: Matrix) -> list[Any]:
        """Return what sums of other things would differ in."""
        name, how = matrix.tensor.name, self.how["normalize"]
        return [VERSION, self.base_hash, name, matrix.index, list(matrix.shape), how, machine()]

    def _write(self, matrix: Matrix, found: Sums) -> None:
        size = math.prod(matrix.shape)
        skipped = 0 if found.rest[:size].any() else size  # S is a sum of few bits, mostly
        parts = found.total, found.rest[skipped:]
        said = {
            "where": self._where(matrix),
            "tasks": [[*key, times] for key, times in sorted(found.of.items())],
            "exact": found.exact,
            "skipped": skipped,
            "digests": [_digest(part) for part in parts],
        }
        text = json.dumps(said)
        path = self.folder / f"{matrix.place}.gram"
        new = path.with_suffix(".new")
        try:
            with open(new, "wb") as file:
                file.write(f"{blake3(text.encode()).hexdigest()} {text}\n".encode())
                for part in parts:
                    file.write(part.data)
            os.replace(new, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()
            raise StoreError(
                f"{path}: cannot be written: {error.strerror}. The store itself is whole; make"
                " room, or give the Grams up with `breadcrumbs store grams DIR off`."
            ) from None

    def _head(self, matrix: Matrix) -> tuple[State, dict[str, Any]] | None:
        """Return which tasks a file says that it is of, and all that it says; None if damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            with open(self.folder / f"{matrix.place}.gram", "rb") as file:
                line = file.readline(_LONGEST)
            check, _, text = line[:-1].partition(b" ")
            said = json.loads(text)
            if blake3(text).hexdigest() == check.decode() and said["where"] == self._where(matrix):
                held = State({(task, weight): times for task, weight, times in said["tasks"]})
                return held, {**said, "begins": len(line)}
        return None

    def _read(
        self, matrix: Matrix, held: State, said: dict[str, Any], rest: bool = True
    ) -> Sums | None:
        """Return the sums of a file, or None if it is damaged, or another one by now."""
        skipped = said["skipped"]
        total = np.empty(matrix.entries)
        parts = [total, np.empty(matrix.entries - skipped)][: 1 + rest]
        try:
            with open(self.folder / f"{matrix.place}.gram", "rb") as file:
                file.seek(said["begins"])
                for part, digest in zip(parts, said["digests"], strict=False):
                    whole = file.readinto(part.view(np.uint8).data) == part.nbytes
                    if not whole or _digest(part) != digest:
                        return None
        except OSError:
            return None
        more = np.concatenate([np.zeros(skipped), parts[1]]) if rest else np.empty(0)
        return Sums(held, total, more, said["exact"])


def _unit(base: np.ndarray) -> float:
    """Return the power of two that task vectors are divided by: above all weights of the base."""
    largest = np.abs(base).max(initial=0)
    return 2.0 ** int(np.frexp(largest)[1]) if 0 < largest < math.inf else 1.0


def _add(term: np.ndarray, sign: float, found: Sums) -> None:
    for first in range(0, term.size, _STEP):
        part = slice(first, first + _STEP)
        mine = np.rint(term[part] / GRID)
        mine *= sign * GRID
        pairs.add(part, mine, np.zeros(1), found.total, found.rest)


def _packed(square: np.ndarray) -> np.ndarray:
    """Return one triangle of a symmetric matrix, row after row."""
    return np.concatenate([row[i:] for i, row in enumerate(square)])


def _unpacked(triangle: np.ndarray, n: int) -> np.ndarray:
    square, at = np.empty((n, n)), 0
    for i in range(n):
        square[i, i:] = square[i:, i] = triangle[at : at + n - i]
        at += n - i
    return square


def _digest(values: np.ndarray) -> str:
    return blake3(values.view(np.uint8).data).hexdigest()


@functools.cache
def machine() -> str:
    """Return a word for how products of matrices are rounded here, with one thread.

    It differs wherever the version of NumPy does, or a product that has to be rounded.
    """
    n = 257
    first = (np.arange(n * n, dtype=np.float64) % 8191).reshape(n, n) / 8191
    second = (np.arange(n * n, dtype=np.float64) % 127).reshape(n, n) / 127
    with one_blas_thread():
        products = first.T @ first, first @ second
    told = [np.__version__, *(_digest(product) for product in products)]
    return blake3(" ".join(told).encode()).hexdigest(length=8)
