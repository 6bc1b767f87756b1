"""The demo's image encoder in NumPy, and how well a set of weights does on each of its tasks.

The family beside this file is one base and six fine-tunings of it, bfloat16, made by
``experiments/demo_family.py``; ``data/README.md`` says from what. An encoder maps grey images of
28 x 28 to embeddings of length 1. Each task has a frozen head, the class means of the base's
embeddings, so the class with the largest cosine is the answer and only encoders are ever merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from zlib import decompress

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from breadcrumbs import checkpoint

DATA = Path(__file__).parent / "data"
SIDE = 28
LEVELS = 15  # images are stored in 16 grey levels, 0 to 15
HEADS = 4
BATCH = 50  # images at a time: their activations stay in the cache of one core
EPSILON = 1e-5  # of every normalisation

Array = NDArray[np.floating]  # float32, which the types of NumPy's functions do not say
Split = Literal["validation", "test"]


@dataclass(frozen=True)
class HeldOut:
    """Images ``(n, 28, 28)`` uint8 of levels 0 to 15 and labels ``(n,)`` int64 of one split."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What judges an encoder on one task: the frozen head ``(classes, 80)`` and two splits."""

    head: Array
    validation: HeldOut
    test: HeldOut


@dataclass(frozen=True)
class Family:
    """The base, its fine-tunings by task, and the held-out data by task, in one order."""

    base: Path
    finetuned: dict[str, Path]
    tasks: dict[str, Task]


@cache
def load_family() -> Family:
    """Return the family that is shipped in the package; its files are read once."""
    with checkpoint.open(DATA / "heldout.safetensors") as file:
        stored = dict(file)

    def split(task: str, name: Split) -> HeldOut:
        pixels = np.frombuffer(decompress(stored[f"{task}.{name}.images"].tobytes()), np.uint8)
        return HeldOut(
            pixels.reshape(-1, SIDE, SIDE), stored[f"{task}.{name}.labels"].astype(np.int64)
        )

    names = sorted(name.removesuffix(".head") for name in stored if name.endswith(".head"))
    tasks = {
        name: Task(stored[f"{name}.head"], split(name, "validation"), split(name, "test"))
        for name in names
    }
    finetuned = {name: DATA / f"{name}.safetensors" for name in names}
    return Family(DATA / "base.safetensors", finetuned, tasks)


def accuracy(
    weights: Mapping[str, NDArray], task: str, split: Split = "test", most: int | None = None
) -> float:
    """Return the fraction of a task's held-out images that an encoder classifies correctly.

    weights: the encoder's tensors by name, float32 or bfloat16; the arithmetic is float32.
    most: of the images, only so many are looked at.
    """
    tasks = load_family().tasks
    if task not in tasks:
        raise KeyError(f"No task {task!r} in the demo. Its tasks are {', '.join(tasks)}.")
    if split not in ("validation", "test"):
        raise ValueError(f"No split {split!r} in the demo. Give 'validation' or 'test'.")
    held_out: HeldOut = getattr(tasks[task], split)
    images, labels = held_out.images[:most], held_out.labels[:most]
    wide = {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}
    embedded = [trunk(wide, x) for x in _stems(wide, task, split, images)]
    answers = (np.concatenate(embedded) @ tasks[task].head.T).argmax(axis=1)
    return float(np.mean(answers == labels))


#: By task and split, the last stem that was asked for: its weights' bytes, and what it gave.
_kept: dict[tuple[str, str, int], tuple[bytes, list[Array]]] = {}


def _stems(
    weights: Mapping[str, Array], task: str, split: Split, images: NDArray[np.uint8]
) -> list[Array]:
    """Return what the stem makes of images, a batch each.

    All fine-tunings have the base's stem, so what it gives is kept as long as its weights, compared
    as bytes, are the same: half of the work of every model but the first.
    """
    own = b"".join(weights[name].tobytes() for name in sorted(weights) if _of_stem(name))
    kept, made = _kept.get((task, split, len(images)), (b"", []))
    if kept != own:
        starts = range(0, len(images), BATCH)
        made = [stem(weights, _grey(images[start : start + BATCH])) for start in starts]
        _kept[task, split, len(images)] = own, made
    return made


def _of_stem(name: str) -> bool:
    return name.startswith(("embed.", "fine.", "coarse."))


def _grey(images: NDArray[np.uint8]) -> Array:
    return images.astype(np.float32) / LEVELS


def logits(weights: Mapping[str, NDArray], head: Array, images: NDArray[np.uint8]) -> Array:
    """Return the cosines of images ``(n, 28, 28)`` with the classes of a head, ``(n, classes)``."""
    wide = {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}
    starts = range(0, len(images), BATCH)
    parts = [encode(wide, _grey(images[start : start + BATCH])) for start in starts]
    return np.concatenate(parts) @ head.T


def encode(weights: Mapping[str, Array], images: Array) -> Array:
    """Return embeddings of length 1, ``(n, 80)``, of images ``(n, 28, 28)`` in [0, 1]."""
    return trunk(weights, stem(weights, images))


def stem(weights: Mapping[str, Array], images: Array) -> Array:
    """Return ``(n, 49, 80)``: two strided convolutions with residual 3 x 3 convolutions between.

    Activations are ``(n, rows, columns, channels)``, and positions are in one row at the end.
    """
    x = convolve(images[..., None], weights, "embed.conv1", stride=2)
    for name in ("fine.0", "fine.1"):
        x = x + convolve(silu(normalise_image(x, weights, f"{name}.norm")), weights, f"{name}.conv")
    x = convolve(silu(x), weights, "embed.conv2", stride=2)
    name = "coarse.0"
    x = x + convolve(silu(normalise_image(x, weights, f"{name}.norm")), weights, f"{name}.conv")
    return x.reshape(len(x), -1, x.shape[-1]) + weights["embed.position"]


def trunk(weights: Mapping[str, Array], x: Array) -> Array:
    """Return ``(n, 80)``: two transformer blocks on ``(n, 49, 80)``, then the mean."""
    for block in ("blocks.0", "blocks.1"):
        x = x + attend(normalise(x, weights, f"{block}.norm1"), weights, f"{block}.attention")
        hidden = silu(project(normalise(x, weights, f"{block}.norm2"), weights, f"{block}.mlp.up"))
        x = x + project(hidden, weights, f"{block}.mlp.down")
    embedded = normalise(x, weights, "norm").mean(axis=1)
    return embedded / np.linalg.norm(embedded, axis=1, keepdims=True)


def convolve(x: Array, weights: Mapping[str, Array], name: str, stride: int = 1) -> Array:
    """Return the 3 x 3 convolution of ``(n, rows, columns, in)``, padded by 1, plus a bias."""
    kernel = weights[f"{name}.weight"]  # (out, in, 3, 3)
    n, rows, columns, channels = x.shape
    padded = np.zeros((n, rows + 2, columns + 2, channels), x.dtype)
    padded[:, 1:-1, 1:-1] = x
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
    n, rows, columns = windows.shape[:3]
    # The copy puts each window's nine pixels in a row, channels last, as the kernel's columns.
    flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(n * rows * columns, -1)
    matrix = kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))
    return (flat @ matrix + weights[f"{name}.bias"]).reshape(n, rows, columns, -1)


def attend(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    """Return multi-head self-attention over the positions of ``(n, positions, channels)``."""
    n, positions, channels = x.shape
    split = project(x, weights, f"{name}.qkv").reshape(n, positions, 3, HEADS, -1)
    queries, keys, values = np.ascontiguousarray(split.transpose(2, 0, 3, 1, 4))
    queries *= np.float32((channels / HEADS) ** -0.5)
    scores = queries @ keys.transpose(0, 1, 3, 2)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    mixed = scores @ values
    mixed /= scores.sum(axis=-1, keepdims=True)
    return project(
        mixed.transpose(0, 2, 1, 3).reshape(n, positions, channels), weights, f"{name}.out"
    )


def project(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    """Return ``x W^T + b`` over the last axis."""
    matrix = weights[f"{name}.weight"]
    flat = x.reshape(-1, x.shape[-1]) @ matrix.T
    flat += weights[f"{name}.bias"]
    return flat.reshape(*x.shape[:-1], len(matrix))


def normalise(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    """Return ``x`` with mean 0 and variance 1 over its channels, scaled and shifted."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...i,...i->...", centred, centred)[..., None] / x.shape[-1]
    centred /= np.sqrt(variance + EPSILON)
    centred *= weights[f"{name}.weight"]
    centred += weights[f"{name}.bias"]
    return centred


def normalise_image(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    """Return ``x`` with mean 0 and variance 1 over each whole image, scaled and shifted."""
    centred = x - x.mean(axis=(1, 2, 3), keepdims=True)
    deviation = np.sqrt(np.mean(centred * centred, axis=(1, 2, 3), keepdims=True) + EPSILON)
    return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def silu(x: Array) -> Array:
    """Return ``x / (1 + exp(-x))``."""
    below = -x
    with np.errstate(over="ignore"):  # exp(-x) is infinite where the result is 0
        np.exp(below, out=below)
    below += 1
    return np.divide(x, below, out=below)
