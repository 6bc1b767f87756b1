"""Parameters of methods and names of methods, as type checkers know them.

Made by `python -m docs.generate` from the declarations; edit those instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, TypedDict

import numpy as np

#: A number, or a decimal, which counts as it is written.
Number = float | Decimal | np.floating | np.integer

#: The published methods. Pairs (``transform+aggregate``) and plugins have other names.
MethodName = Literal[
    "breadcrumbs",
    "task_arithmetic",
    "average",
    "bottom_masking",
    "top_masking",
    "random_sparsed",
    "magnitude",
    "ties",
    "dare_linear",
    "dare_ties",
    "della_linear",
    "della",
    "breadcrumbs_ties",
    "consensus",
    "tall_mask",
    "emr",
    "tatr",
    "pcb",
    "lines",
    "tvq",
    "rtvq",
    "localize_and_stitch",
    "nearswap",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "model_stock",
    "tsv_m",
    "iso_c",
    "iso_cts",
    "star",
    "wudi",
    "sce",
    "cabs",
    "fisher",
    "regmean",
]


class Parameters(TypedDict, total=False):
    """Parameters of all methods, of which each method has some."""

    #: Factor of the sum of task vectors.
    alpha: Number | Literal["auto"]
    #: What has an angle of its own: a row is along the last axis, a column along the first.
    angles: Literal["tensor", "row", "column"]
    #: Bits of an entry of the mean task vector.
    base_bits: int | np.integer
    #: Weight of the base, if it is one of the models.
    base_weight: Number
    #: Quantile of |task vector| up to which entries are cut.
    beta: Number
    #: Bits of an entry of a task vector.
    bits: int | np.integer
    #: Fraction of the directions that all tasks share.
    common: Number
    #: How fractions are counted: floors of decimals, or as mergekit does.
    counts: Literal["decimal", "mergekit"]
    #: Fraction kept; with outliers, instead of beta and gamma.
    density: Number
    #: Fraction of magnitudes clamped at each end.
    edge: Number
    #: How much that rises and falls with the rank.
    epsilon: Number
    #: Fraction of the sum of singular values that is kept.
    eta: Number
    #: Quantile of |task vector| above which entries are cut.
    gamma: Number
    #: Unit whose entries are ranked together: each tensor, each row along the last axis, all; or
    #: by kind, of embeddings and heads each row, else each tensor.
    granularity: Literal["kind", "tensor", "row", "model"]
    #: Least product of two lengths that a cosine divides by; mergekit: 1e-6.
    guard: Number
    #: Tasks that must use an entry for it to stay.
    k: int | np.integer
    #: Entries of a block.
    m: int | np.integer
    #: Steps at most.
    max_iter: int | np.integer
    #: What is made of the entries of the elected sign.
    merge: Literal["mean", "sum", "max"]
    #: Entries that a model keeps of each block.
    n: int | np.integer
    #: Whether weights are made to sum to 1.
    normalize: Literal["weights", "none"]
    #: What lies on the arc.
    of: Literal["task_vectors", "models", "base_and_models"]
    #: Factor of the entries of Gram matrices off the diagonal.
    off_diagonal: Number
    #: Bits of an entry of what it leaves of each.
    offset_bits: int | np.integer
    #: The multi-task vector: the sum, or TIES (.2, disjoint sum).
    on: Literal["sum", "ties"]
    #: Fraction of largest entries cut; with density.
    outliers: Number
    #: Probability that an entry is dropped.
    p: Number
    #: Where the number of the layer stands in a tensor's name.
    pattern: str
    #: Fraction of entries that stay, those of least conflict.
    quantile: Number
    #: Learning rate of Adam.
    rate: Number
    #: Fraction of the entries of a model that compete.
    ratio: Number | Literal["clamped", "free"]
    #: Whether what stays is multiplied; l1: by the norm lost in a tensor, if it was 1e-7 at
    #: least before and after.
    rescale: Literal["none", "l1", "expected"]
    #: Added to the diagonal, as a fraction of its mean.
    ridge: Number
    #: How large a task vector must be against the rest; also one for each.
    scale: Number | Sequence[Number]
    #: What the mean divides by: the sum of |weight|, or of weight (1 if that is 0).
    shares: Literal["magnitudes", "signed"]
    #: Matrices of a 3-D tensor one by one (each) or not (whole); auto: those of experts.
    stack: Literal["auto", "each", "whole"]
    #: Steps of Adam.
    steps: int | np.integer
    #: Most that an entry moves.
    t: Number
    #: The model to rebuild.
    task: str | int
    #: Step, in radians, at which to stop.
    tol: Number
    #: Eq. 2, or the authors' released program.
    variant: Literal["paper", "authors"]
