"""Whether a store keeps the sums of `grams`, which its user decides; what follows for the rest.

It does where it has a folder for them. So giving them up is deleting that, and a store is the same
without.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from breadcrumbs import kernels
from breadcrumbs.checkpoint.tensors import shown
from breadcrumbs.engine.consumers import Consumer
from breadcrumbs.engine.outputs import Output
from breadcrumbs.errors import StoreError
from breadcrumbs.methods import registry
from breadcrumbs.plan import Plan
from breadcrumbs.store import files
from breadcrumbs.store.grammed import Grammed, suits
from breadcrumbs.store.grams import Grams
from breadcrumbs.store.held import Held
from breadcrumbs.store.history import Entry
from breadcrumbs.store.summed import Summed
from breadcrumbs.store.sums import State, alone
from breadcrumbs.taskfile.reader import TaskFile

#: Their folder in a store.
GRAMS = "grams"


def keeps(store: Held) -> bool:
    """Return whether a store keeps Grams."""
    return (store.folder / GRAMS).is_dir()


def of(store: Held) -> Grams | None:
    """Return the Grams of a store, if it keeps them."""
    return _made(store) if keeps(store) else None


def begin(store: Held) -> bool:
    """Note that a store is to keep Grams, which `update` makes; return whether that is new.

    StoreError if its tasks are not whole.
    """
    transform, _ = store.packed_as()
    if transform != "none":
        raise StoreError(
            f"{store.folder}: fine-tunings that are added are cut by {transform}, and Grams are of"
            " whole task vectors. Make a store with -m wudi."
        )
    names = store.ledger.history().tasks()
    for task in store.ledger.tasks().values():
        how = task.said.get("transform")
        if task.hash in names and how != "none":
            raise StoreError(
                f"{store.folder}: task {shown(names[task.hash])} was cut by {how}, and Grams are of"
                " whole task vectors. Pack it with --transform none for a new store."
            )
    new = not keeps(store)
    (store.folder / GRAMS).mkdir(exist_ok=True)
    return new


def give_up(store: Held) -> bool:
    """Delete the Grams of a store; return whether it kept any."""
    if not keeps(store):
        return False
    (store.folder / files.SUMS).mkdir(exist_ok=True)
    with alone(store.folder / files.SUMS), files.spare(store.folder) as spare:
        os.replace(store.folder / GRAMS, spare / GRAMS)
        shutil.rmtree(spare / GRAMS, ignore_errors=True)
    return True


def size(store: Held) -> int:
    """Return how many bytes the Grams of a store take."""
    return sum(path.stat().st_size for path in (store.folder / GRAMS).glob("*.gram"))


def expected(store: Held) -> tuple[int, int]:
    """Return how many bytes Grams of a store take, or would, and of how many matrices they are."""
    made = _made(store)
    return made.bytes, len(made.matrices)


def check(task: TaskFile, store: Held, label: str, note: Callable[[str], None]) -> None:
    """Raise StoreError for a task that is to be added and that Grams cannot be of."""
    if not keeps(store):
        return
    if task.transform != "none":
        raise StoreError(
            f"{label}: was cut by {task.transform}, and the Grams of {store.folder} are of whole"
            " task vectors. Pack it with --transform none, or give Grams up with `breadcrumbs store"
            " grams DIR off`."
        )
    if not task.encoding.lossless:
        note(
            f"{label}: is stored as {task.encoding.name}; Grams are of the task vectors as they are"
            " stored"
        )


def update(store: Held, threads: int) -> None:
    """Bring the Grams of a store to the latest revision, if it keeps any."""
    if (grams := of(store)) is not None:
        grams.update(store.ledger.latest, partial(_state, store), threads)


def repair(store: Held, threads: int) -> tuple[int, int]:
    """Make the Grams of a store from its task files and compare; return how many there are, and
    how many were not the same bits, and are now."""
    grams = of(store)
    if grams is None:
        return 0, 0
    wrong = grams.repair(store.ledger.latest, partial(_state, store), threads)
    return len(grams.matrices), wrong


def consumer(
    store: Held, entries: Sequence[Entry], scratch: bool
) -> Callable[[Output], Consumer] | None:
    """Return what merges a revision from running sums; None for from task files, as anywhere."""
    hashes, grams = [entry.task for entry in entries], of(store)
    if grams is not None:
        return partial(Grammed, sums=store.sums, hashes=hashes, grams=grams, scratch=scratch)
    return None if scratch else partial(Summed, sums=store.sums, hashes=hashes)


def said(store: Held, plan: Plan) -> tuple[str, ...]:
    """Return what is to be said of a merge of a store: that it is one from Grams."""
    grams, merged = of(store), plan.merged
    if grams is None or not any(suits(plan.lowered, tensor, grams) for tensor in merged):
        return ()
    return (
        "merged from the Grams that the store keeps; `breadcrumbs merge` of the task files gives"
        " the same up to rounding",
    )


def _made(store: Held) -> Grams:
    settings = store.settings
    method = registry.get("wudi")
    given: dict[str, Any] = dict(settings.parameters) if settings.method == method.name else {}
    return Grams(
        store.folder / GRAMS,
        store.base,
        settings.base_hash,
        method.complete(given),
        store.task,
        kernels.choose(),
    )


def _state(store: Held, number: int) -> State:
    """Return which tasks a revision has, with what weights."""
    return Counter(
        (entry.task, entry.weight) for entry in store.entries(number) if entry.weight != 0
    )
