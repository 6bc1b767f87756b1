"""The running sum of a store: of every weight of the base, what the tasks add to it, exactly.

It lies in three files, block by block (`checkpoint.sparse.BLOCK` entries of one tensor):

    blocks   a header of 64 bytes for each block: which revision it is of, and a digest
    totals   float64 for each weight: the sum, rounded
    rests    float64 for each weight: what that leaves out; not written where it is 0 in a block

A block is read at the revision that it is of, and brought to any other by taking out the tasks that
are not in that one and putting in those that are. Nothing depends on it: a block that is damaged,
half written, or of something else is begun anew from the task files. So it needs no transaction,
and readers no lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.errors import StoreError
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.store import pairs
from breadcrumbs.store.history import Entry
from breadcrumbs.store.tables import WAIT
from breadcrumbs.taskfile.reader import TaskFile
from breadcrumbs.threads import Task, run_tasks

#: Which tasks a sum is of: how often each (task, weight) counts.
State = Counter[tuple[str, float]]

#: What is in the files for a block: nothing, for a sum of 0; totals; totals and rests.
EMPTY, TOTALS, RESTS = 0, 1, 2
_HEADER = np.dtype(
    [
        ("revision", "<u8"),
        ("state", "V16"),
        ("kind", "<u4"),
        ("zeros", "<u4"),
        ("digest", "V16"),
        ("check", "V16"),
    ]
)


def counted(entries: list[Entry]) -> State:
    """Return what is summed for a revision: one weight that all have is left to the factor."""
    found = [(entry.task, entry.weight) for entry in entries if entry.weight != 0]
    if len({weight for _, weight in found}) == 1:
        found = [(task, 1.0) for task, _ in found]
    return Counter(found)


@dataclass
class Sum:
    """The sum of a block. rest: empty where it is 0 everywhere. zeros: how many of its tasks keep a
    zero there, whose sign the sum does not know. inexact: where ``rest`` is rounded."""

    total: np.ndarray
    rest: np.ndarray
    zeros: int
    inexact: np.ndarray


@dataclass(frozen=True)
class _Place:
    """Where the sums of a tensor lie: its first block, and its first entry."""

    block: int
    entry: int


class Sums:
    """The running sum in ``folder``, of the tasks of a store on its base.

    states: revision -> what is summed for it. task: hash -> the open task file.
    """

    def __init__(
        self,
        folder: Path,
        base: Checkpoint,
        base_hash: str,
        states: Callable[[int], State],
        task: Callable[[str], TaskFile],
        kernels: Kernels | None = None,
    ):
        self.folder, self.base, self.base_hash = folder, base, base_hash
        self.states, self.task, self.kernels = states, task, kernels
        self._places: dict[str, _Place] = {}
        block = entry = 0
        for name in sorted(base.tensors):
            tensor = base.tensors[name]
            if tensor.is_weight:
                self._places[name] = _Place(block, entry)
                block, entry = block + -(-tensor.size // BLOCK), entry + tensor.size
        self.blocks, self.entries = block, entry
        self._ids: dict[int, bytes] = {}
        self._local = threading.local()

    # --- reading ---

    def knows(self, tensor: Tensor, wanted: State) -> bool:
        """Return whether there are sums of the ``wanted`` tasks for a tensor.

        Not of a head that the base does not store, and that a task has untied; nor of a copy that a
        task holds under another name, where other tasks tell the two apart.
        """
        return tensor.name in self._places and not any(
            tensor.name in self.task(task).about.tied for task, _ in wanted
        )

    def at(self, tensor: Tensor, number: int, wanted: State, scratch: bool = False) -> Sum:
        """Return the sum of the ``wanted`` tasks in block ``number`` of a tensor of the base.

        scratch: from the task files.
        """
        held, header = (State(), None) if scratch else self._held(tensor, number)
        out, into = held - wanted, wanted - held
        if out.total() + into.total() > wanted.total():  # less work from the beginning
            header, out, into = None, State(), wanted
        found = self._read(tensor, number, header)
        if found is None:
            found, out, into = self._nothing(tensor, number), State(), wanted
        if self._touches(out + into, tensor, number) or found.inexact.size:
            self._change(found, tensor, number, out, into, wanted)
        return found

    def _held(self, tensor: Tensor, number: int) -> tuple[State, np.void | None]:
        """Return what a block is the sum of, as its header says, and that, if it is whole."""
        header = self._header(tensor, number)
        if header is None:
            return State(), None
        try:
            state = self.states(int(header["revision"]))
        except StoreError:  # of a ledger that is gone
            return State(), None
        if self._id(int(header["revision"]), state) != header["state"].tobytes():
            return State(), None
        return state, header

    def _header(self, tensor: Tensor, number: int) -> np.void | None:
        at = self._places[tensor.name].block + number
        raw = np.zeros(1, _HEADER)
        if not self._load("blocks", at * _HEADER.itemsize, raw):
            return None
        if self._check(at, raw) != raw["check"].tobytes():
            return None
        return raw[0]

    def _read(self, tensor: Tensor, number: int, header: np.void | None) -> Sum | None:
        """Return the sum as it is in the files, or None if it is damaged."""
        found = self._nothing(tensor, number)
        if header is None or header["kind"] == EMPTY:
            return found
        found.zeros = int(header["zeros"])
        at = 8 * (self._places[tensor.name].entry + number * BLOCK)
        whole = self._load("totals", at, found.total)
        if header["kind"] == RESTS:
            found.rest = np.empty(found.total.size)
            whole = whole and self._load("rests", at, found.rest)
        if not whole or _digest(found.total, found.rest) != header["digest"].tobytes():
            return None
        found.inexact = np.flatnonzero(np.isnan(found.rest))
        return found

    def _nothing(self, tensor: Tensor, number: int) -> Sum:
        n = min(BLOCK, tensor.size - number * BLOCK)
        return Sum(np.zeros(n), np.empty(0), 0, np.empty(0, np.int64))

    def _touches(self, state: State, tensor: Tensor, number: int) -> bool:
        return any(self._number(task, tensor, number) for task, _ in state)

    def _number(self, task: str, tensor: Tensor, number: int) -> int:
        """Return how many entries of a block a task keeps."""
        file = self.task(task)
        return file.number(tensor.name, number) if tensor.name in file.tensors else 0

    # --- arithmetic ---

    def _change(
        self, found: Sum, tensor: Tensor, number: int, out: State, into: State, wanted: State
    ) -> None:
        raw = np.empty(found.total.size, DTYPES[tensor.dtype])
        tensor.read_into(number * BLOCK, raw)
        base = raw.astype(np.float64)
        rest = found.rest if found.rest.size else np.zeros(base.size)
        for state, sign in ((into, 1), (out, -1)):
            for (task, weight), times in sorted(state.items()):
                if not self._number(task, tensor, number):
                    continue
                kept = self.task(task).kept(tensor.name, number, raw, self.kernels)
                first, second = pairs.terms(kept.values, base[kept.positions], weight)
                for _ in range(times):
                    pairs.add(kept.positions, sign * first, sign * second, found.total, rest)
                if (kept.values.astype(np.float64) == 0).any():
                    found.zeros += sign * times
        inexact = np.flatnonzero(np.isnan(rest))
        if inexact.size:
            columns = self._terms(tensor, number, wanted, inexact, raw, base)
            found.total[inexact], rest[inexact], exact = pairs.of_terms(columns)
            inexact = inexact[~exact]
        found.rest = rest if rest.any() or inexact.size else np.empty(0)
        found.inexact = inexact

    def _terms(self, tensor, number, wanted: State, where, raw, base) -> np.ndarray:
        """Return the terms (T, n) of all wanted tasks at the entries ``where``."""
        columns = [np.zeros(where.size)]
        for (task, weight), times in sorted(wanted.items()):
            if not self._number(task, tensor, number):
                continue
            kept = self.task(task).kept(tensor.name, number, raw, self.kernels)
            values = base.copy()
            values[kept.positions] = kept.values
            columns += [*pairs.terms(values[where], base[where], weight)] * times
        return np.array(columns)

    # --- writing ---

    def update(self, latest: Callable[[], int], threads: int) -> None:
        """Bring all blocks to the latest revision, one process at a time."""
        self.folder.mkdir(exist_ok=True)
        with alone(self.folder):
            revision = latest()
            wanted = self.states(revision)
            for name in ("blocks", "totals", "rests"):
                (self.folder / name).touch()
            tasks: list[Task] = [
                partial(self._update, *block, revision, wanted) for block in self._all()
            ]
            run_tasks(tasks, threads)

    def _update(self, tensor: Tensor, number: int, revision: int, wanted: State) -> list[Task]:
        held, header = self._held(tensor, number)
        if header is None or header["revision"] != revision:
            changed = (held - wanted) + (wanted - held)
            if header is not None and not self._touches(changed, tensor, number):
                header["revision"] = revision
                self._write_header(tensor, number, header)
            else:
                self._write(tensor, number, revision, self.at(tensor, number, wanted))
        return []

    def repair(self, latest: Callable[[], int], threads: int) -> int:
        """Read all blocks, and make those again that are damaged; return how many were."""
        self.update(latest, threads)
        damaged: list[int] = []

        def look(tensor: Tensor, number: int) -> list[Task]:
            _, header = self._held(tensor, number)
            if header is None or self._read(tensor, number, header) is None:
                damaged.append(number)
                self._write(tensor, number, revision, self.at(tensor, number, wanted))
            return []

        with alone(self.folder):
            revision = latest()
            wanted = self.states(revision)
            run_tasks([partial(look, *block) for block in self._all()], threads)
        return len(damaged)

    def _all(self) -> Iterator[tuple[Tensor, int]]:
        """Yield all blocks: (tensor, number)."""
        for name in self._places:
            tensor = self.base.tensors[name]
            for number in range(-(-tensor.size // BLOCK)):
                yield tensor, number

    def _write(self, tensor: Tensor, number: int, revision: int, found: Sum) -> None:
        rest = found.rest.copy()
        rest[found.inexact] = np.nan
        kind = RESTS if rest.size else TOTALS if found.total.any() else EMPTY
        at = 8 * (self._places[tensor.name].entry + number * BLOCK)
        if kind >= TOTALS:
            self._store("totals", at, found.total)
        if kind == RESTS:
            self._store("rests", at, rest)
        digest = _digest(found.total, rest)
        header = np.zeros(1, _HEADER)[0]
        header["revision"], header["kind"], header["zeros"] = revision, kind, found.zeros
        header["digest"] = np.void(digest)
        self._write_header(tensor, number, header)

    def _write_header(self, tensor: Tensor, number: int, header: np.void) -> None:
        raw = np.array([header], _HEADER)
        revision = int(header["revision"])
        raw["state"] = np.void(self._id(revision, self.states(revision)))
        at = self._places[tensor.name].block + number
        raw["check"] = np.void(self._check(at, raw))
        self._store("blocks", at * _HEADER.itemsize, raw)

    # --- bytes ---

    def _check(self, at: int, raw: np.ndarray) -> bytes:
        said = raw.tobytes()[: -raw["check"].itemsize]
        return blake3(f"{self.base_hash} {BLOCK} {at} ".encode() + said).digest(16)

    def _id(self, revision: int, state: State) -> bytes:
        if revision not in self._ids:
            told = repr(sorted(state.items())).encode()
            self._ids[revision] = blake3(told).digest(16)
        return self._ids[revision]

    def _load(self, name: str, at: int, out: np.ndarray) -> bool:
        """Fill an array from a file; False where that is too short or not there."""
        with contextlib.suppress(FileNotFoundError):
            file = self._file(name)
            file.seek(at)
            return file.readinto(out.view(np.uint8).data) == out.nbytes
        return False

    def _store(self, name: str, at: int, values: np.ndarray) -> None:
        try:
            file = self._file(name)
            file.seek(at)
            left = memoryview(values.view(np.uint8).reshape(-1).data)
            while len(left):
                left = left[file.write(left) :]
        except OSError as error:
            raise StoreError(
                f"{self.folder / name}: cannot be written: {error.strerror}. The store itself is"
                " whole; make room, and `breadcrumbs store verify`."
            ) from None

    def _file(self, name: str):
        """Return this thread's open file of that name."""
        files = self._local.__dict__
        if name not in files:
            path = self.folder / name
            mode = "r+b" if os.access(path, os.W_OK) else "rb"
            files[name] = open(path, mode, buffering=0)  # noqa: SIM115
        return files[name]


def _digest(total: np.ndarray, rest: np.ndarray) -> bytes:
    return blake3(total.view(np.uint8).data).update(rest.view(np.uint8).data).digest(16)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing sums; ends with the process, however that ends."""
    try:
        connection = sqlite3.connect(folder / "lock.sqlite", timeout=WAIT, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        raise StoreError(f"{folder}: cannot be locked: {error}. Try again.") from None
    try:
        yield
    finally:
        connection.close()
