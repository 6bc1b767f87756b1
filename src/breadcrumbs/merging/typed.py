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
    "survivors",
    "consensus",
    "tall_mask",
    "emr",
    "tatr",
    "pcb",
    "lines",
    "tvq",
    "rtvq",
    "localize_and_stitch",
    "magmax",
    "negmerge",
    "ram",
    "ramplus_tl",
    "awd",
    "arcee_fusion",
    "nearswap",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "geometric_median",
    "model_stock",
    "tsv_m",
    "iso_c",
    "iso_cts",
    "polar",
    "star",
    "dc",
    "cart",
    "wudi",
    "sce",
    "cabs",
    "fisher",
    "regmean",
]


class Parameters(TypedDict, total=False):
    """Parameters of all methods, of which each method has some."""

    #: What is added to all before; 1e-6 in MergeLM.
    added: Number
    #: What is added: selected entries, or all, with the selection for the weights alone.
    adds: Literal["selected", "all"]
    #: Factor of the sum of task vectors.
    alpha: Number | Literal["auto"]
    #: What has an angle of its own: a row is along the last axis, a column along the first.
    angles: Literal["tensor", "row", "column"]
    #: Bits per entry of the mean task vector.
    base_bits: int | np.integer
    #: Weight of the base, to count it as a model.
    base_weight: Number
    #: Entries of |task vector| below this quantile are cut.
    beta: Number
    #: Bits per entry of a task vector.
    bits: int | np.integer
    #: Fraction of the directions that all tasks share.
    common: Number
    #: How fractions are rounded to counts: down, or as mergekit does.
    counts: Literal["decimal", "mergekit"]
    #: Fraction kept; give it with outliers, instead of beta and gamma.
    density: Number
    #: Fraction of magnitudes clamped at each end.
    edge: Number
    #: How much that probability varies with the rank.
    epsilon: Number
    #: Fraction of the sum of singular values that is kept.
    eta: Number
    #: Entries of |task vector| above this quantile are cut.
    gamma: Number
    #: What is ranked together: each tensor, each row (last axis), or the model; kind: each row
    #: of embeddings and heads, and each other tensor.
    granularity: Literal["kind", "tensor", "row", "model"]
    #: Least product of two lengths that a cosine divides by; mergekit: 1e-6.
    guard: Number
    #: Number of tasks that must use an entry.
    k: int | np.integer
    #: Size above which an entry counts as changed; 1e-5 in mergekit.
    least: Number
    #: Of the step at most, in mean task vectors, matrix by matrix.
    length: Number
    #: Entries of a block.
    m: int | np.integer
    #: Steps at most.
    max_iter: int | np.integer
    #: How the entries with the elected sign are combined.
    merge: Literal["mean", "sum", "max"]
    #: What shared / own entries counts at most; alpha in mergekit.
    most: Number
    #: Entries that each model keeps per block; m / models unless given.
    n: int | np.integer
    #: Whether weights are normalised to sum to 1.
    normalize: Literal["weights", "none", "norms", "length"]
    #: What lies on the arc.
    of: Literal["task_vectors", "models", "base_and_models"]
    #: Factor of the entries of Gram matrices off the diagonal.
    off_diagonal: Number
    #: Bits per entry of the offsets from it.
    offset_bits: int | np.integer
    #: The multi-task vector: the sum, or TIES (0.2, disjoint sum).
    on: Literal["sum", "ties"]
    #: Fraction of entries cut at the top; give it with density.
    outliers: Number
    #: Probability that an entry is dropped.
    p: Number
    #: What the mean over all pairs is of, for T > 2.
    pairs: Literal["cosines", "angles"]
    #: Finds the layer number in a tensor's name.
    pattern: str
    #: What the length of what is taken away costs, in the same units.
    penalty: Number
    #: Fraction of entries kept, those with the least conflict.
    quantile: Number
    #: How much entries of one model alone grow, times shared / own entries.
    r: Number
    #: Fraction of the triplets kept of what a model is off the mean.
    rank: Number
    #: Its rate, in units of the mean task vector.
    rate: Number
    #: Fraction of the entries of a model that compete.
    ratio: Number | Literal["clamped", "free"]
    #: Whether kept entries are rescaled; l1: by the L1 norm lost in a tensor (unless it is below
    #: 1e-7).
    rescale: Literal["none", "l1", "expected"]
    #: Smooth: linear: the first value over the last, at most.
    rho: Number
    #: Ridge: in mean eigenvalues; .1 if not given.
    ridge: Number
    #: How large a task vector must be compared with the rest; or one per model.
    scale: Number | Sequence[Number]
    #: What the mean divides by: the sum of |weight|, or of weight (1 if that is 0).
    shares: Literal["magnitudes", "signed"]
    #: What becomes of singular values: all alike, or falling in a line, as for adapters.
    smooth: Literal["none", "mean", "linear"]
    #: Closed form of gradient flow or of a ridge, or the published program's Adam.
    solver: Literal["flow", "ridge", "adam"]
    #: Matrices of a 3-D tensor one by one (each) or not (whole); auto: those of experts.
    stack: Literal["auto", "each", "whole"]
    #: Steps of gradient descent.
    steps: int | np.integer
    #: Most that an entry moves.
    t: Number
    #: Embeddings and heads of language models get the mean, as in the papers, or are matrices.
    tables: Literal["mean", "matrix"]
    #: The model to rebuild.
    task: str | int
    #: Which of two equal magnitudes of both signs is taken; later: that of the later model.
    ties: Literal["positive", "later"]
    #: Flow: how long, in units of the mean eigenvalue; 2 if not given.
    time: Number
    #: Step, in radians, at which to stop.
    tol: Number
    #: Fraction of largest entries kept of each task in the space.
    top: Number
    #: Eq. 2, or the authors' released program.
    variant: Literal["paper", "authors"]
