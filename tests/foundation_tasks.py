"""Tasks in memory, and modules with changed weights, for the tests of foundations."""

from __future__ import annotations

import numpy as np

import breadcrumbs
from breadcrumbs.evaluate.data.task import Rows, Task
from breadcrumbs.modules.slots import Slots


def task(inputs, labels, names, *, train=None, **more):
    """Return a task whose validation and test rows are ``inputs``, as are its training rows."""
    rows = Rows(tuple(inputs), np.array(labels, np.int64), "0")
    splits = {"train": train or rows, "validation": rows, "test": rows}
    return Task("animals", tuple(names), splits.__getitem__, **more)


def rows(inputs, labels):
    return Rows(tuple(inputs), np.array(labels, np.int64), "1")


def predicted(foundation, module, head, task, size=3, split="test"):
    """Return the logits of all rows, in their order, and the batches that they came from."""
    import torch

    batches = foundation.prepare(task, task.rows(split), size)
    made = torch.full((len(task.rows(split)), len(task.labels)), torch.nan)
    with torch.no_grad():
        for batch in batches:
            assert len(batch.rows) <= size
            assert batch.labels.tolist() == task.rows(split).labels[batch.rows].tolist()
            made[batch.rows] = foundation.logits(module, head, batch)
    return made, batches


def state(path):
    with breadcrumbs.open(path) as it:
        return dict(it)


def shaken(arrays, scale=0.3, seed=0, where=lambda name: True):
    """Return the weights with noise added, in their own dtypes."""
    generator = np.random.default_rng(seed)
    made = dict(arrays)
    for name, array in arrays.items():
        if where(name) and array.dtype.kind not in "iub":
            noise = scale * generator.normal(size=array.shape)
            made[name] = np.asarray(array.astype(np.float32) + noise).astype(array.dtype)
    return made


def loaded(foundation, base, task):
    """Return the module of a base, where its weights go, and the head of a task."""
    module = foundation.load(str(base))
    with breadcrumbs.open(base) as it:
        slots = Slots(module, it)
    return module, slots, foundation.head(module, task)


def close(a, b, atol=1e-4):
    import torch

    torch.testing.assert_close(a, b, rtol=0, atol=atol)
