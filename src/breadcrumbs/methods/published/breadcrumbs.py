r"""Model Breadcrumbs: cut both tails of the magnitudes of a task vector, layer by layer.

Davari and Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks",
ECCV 2024, arXiv:2312.06795, Eq. 1 and 2.

``variant: paper`` ranks the n entries of a tensor and keeps
``floor(beta n) < rank <= n - floor((1 - gamma) n)``; of embeddings and heads it ranks each row,
unless ``granularity: tensor`` is given. The authors' released program, which made the printed
numbers, works differently (``variant: authors``): it ranks each row of c entries along the
last axis, removes the ``floor((1 - gamma) c)`` largest, keeps the next ``floor((1 - beta) c)``, and
leaves 0-dimensional tensors unmasked. So at 0.90/0.99 the paper keeps 9 % and the program 10 %.

``density`` (the fraction kept) and ``outliers`` (the fraction of largest removed) say the same in
the words of other programs: ``gamma = 1 - outliers``; ``beta = gamma - density`` for the paper,
``beta = 1 - density`` for the authors' program. ``counts: mergekit`` floors these two, the part
kept and the part removed, cuts fewer of the largest where both are more than the whole, and cuts
nothing at density 1.

The ablations of Fig. 7 and Table 1 cut one tail or at random. *Bottom-only masking* keeps the
largest magnitudes (`largest`). *Top-only masking* cuts the ``floor(outliers n)`` largest of n and
keeps all the rest; the authors' program does it row by row (``granularity: row``) and leaves
0-dimensional tensors unmasked. *Random masking* keeps each entry independently with a probability,
without rescaling; the draws come from a counter-based generator keyed by (seed, model, tensor), so
neither threads nor the order of models change them.
"""

from __future__ import annotations

from decimal import Decimal

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import (
    AUTO,
    COUNTS,
    GRANULARITY,
    RESCALE,
    SUM,
    Band,
    Draw,
    Fraction,
    Method,
    OneOf,
    Parameter,
    Values,
    count,
    defaults,
    difference,
    election,
    floored,
    largest,
    own_unit,
)
from breadcrumbs.methods.published import ties

PAPER = "Davari and Belilovsky, Model Breadcrumbs, ECCV 2024, arXiv:2312.06795"


def _ranks(n: int, values: Values) -> tuple[int, int]:
    if values["counts"] == "mergekit":
        kept = floored(values["density"], n)
        first = max(0, n - kept - floored(values["outliers"], n))
        return first, first + kept
    last = n - count(difference(1, values["gamma"]), n)
    if values["variant"] == "authors":
        return max(0, last - count(difference(1, values["beta"]), n)), last
    return count(values["beta"], n), last


def _check(given: Values) -> Values:
    values = dict(given)
    variant = values.get("variant", "paper")
    density, outliers = values.pop("density", None), values.pop("outliers", None)
    quantiles = [name for name in ("beta", "gamma") if name in values]
    if values.get("counts") == "mergekit" and (density is None or variant != "paper"):
        raise RecipeError(
            "breadcrumbs: counts: mergekit is for density with outliers, of variant paper."
        )
    if density is None and outliers is None:
        values = defaults(DECLARED) | values
        _check_quantiles(values["beta"], values["gamma"])
        return values
    if quantiles:
        raise RecipeError(
            f"breadcrumbs: {quantiles[0]} and {'outliers' if density is None else 'density'}"
            " are two ways to say the same thing. Give beta with gamma, or density with outliers."
        )
    if density is None or outliers is None:
        raise RecipeError(
            "breadcrumbs: density and outliers belong together. Give both,"
            " for example density 0.09 with outliers 0.01."
        )
    if values.get("counts") == "mergekit":
        return defaults(DECLARED) | values | {"density": density, "outliers": outliers}
    if not 0 < density <= difference(1, outliers):
        raise RecipeError(
            f"breadcrumbs: density {density} with outliers {outliers} is not possible. The fraction"
            " kept is above 0, and together with the fraction removed at most 1."
        )
    values["gamma"] = difference(1, outliers)
    below = Decimal(1) if variant == "authors" else values["gamma"]
    values["beta"] = difference(below, density)
    return defaults(DECLARED) | values


def _check_quantiles(beta: Decimal, gamma: Decimal) -> None:
    if gamma < Decimal("0.5"):
        raise RecipeError(
            f"breadcrumbs: gamma {gamma} would remove the largest {100 * (1 - gamma):f} % of each"
            " task vector. gamma is a quantile: entries above it are cut, so 0.99 removes the"
            f" largest 1 %. Give gamma {1 - gamma}, or outliers {gamma} with a density."
        )
    if beta >= gamma:
        raise RecipeError(
            f"breadcrumbs: beta {beta} is not below gamma {gamma}, so nothing would be kept."
            " Both are quantiles: entries between them stay, for example beta 0.9 with gamma 0.99."
        )


def _unit(values: Values) -> str:
    if values.get("variant") == "authors":
        return "row"
    return own_unit(values)


DECLARED: dict[str, Parameter] = {
    "beta": Fraction("0.90", "entries of |task vector| below this quantile are cut"),
    "gamma": Fraction("0.99", "entries of |task vector| above this quantile are cut"),
    "variant": OneOf("paper", ("paper", "authors"), "Eq. 2, or the authors' released program"),
    "granularity": GRANULARITY,
    "density": Fraction(None, "fraction kept; give it with outliers, instead of beta and gamma"),
    "outliers": Fraction(None, "fraction of entries cut at the top; give it with density"),
    "counts": COUNTS,
    "rescale": RESCALE,
}

BREADCRUMBS = Band(
    ranks=_ranks,
    parameters=DECLARED,
    check=_check,
    unit=_unit,
    keep_scalars=lambda values: values["variant"] == "authors",
    replaces={"density": ("beta", "gamma")},
    name="breadcrumbs",
)
TOP_MASKING = Band(
    ranks=lambda n, values: (0, n - count(values["outliers"], n)),
    parameters={
        "outliers": Fraction("0.01", "fraction of entries cut at the top"),
        "granularity": GRANULARITY,
    },
    keep_scalars=lambda values: values.get("granularity") == "row",
    name="top_masking",
)
RANDOM_MASK = Draw(
    keep=lambda values: float(values["density"]),
    parameters={"density": Fraction("0.10", "probability that an entry is kept")},
    name="random_mask",
)

METHOD = Method(
    "breadcrumbs",
    BREADCRUMBS,
    SUM,
    "cut both tails of each task vector, tensor by tensor, and add the rest",
    "base + alpha * sum_t weight_t * m_t * tau_t, "
    "m_t = [floor(beta n) < rank |tau_t| <= n - floor((1 - gamma) n)]",
    PAPER,
    "Published settings: ViT-B/32 beta 0.90 gamma 0.99; B/16 0.90/0.992; L/14 0.85/0.99;"
    " 200 tasks 0.85/0.993. alpha is not printed (a remark of the authors: 1 at 0.90/0.99):"
    " it is chosen automatically from the weights."
    " Embeddings and heads are ranked row by row, unless `granularity: tensor` is given."
    " Entries rank by (magnitude, position), so the number kept is exact."
    " mergekit names the fraction of largest entries cut `gamma`: 0.01 there is 0.99 here.",
)

ABLATIONS = (
    Method(
        "bottom_masking",
        largest("0.10"),
        SUM,
        "keep the largest entries of each task vector, outliers too (ablation)",
        "base + alpha * sum_t weight_t * m_t * tau_t, m_t = [rank |tau_t| > n - floor(density n)]",
        PAPER + ", Fig. 7",
        "alpha is not published.",
    ),
    Method(
        "top_masking",
        TOP_MASKING,
        SUM,
        "cut only the largest entries of each task vector (ablation)",
        "base + alpha * sum_t weight_t * m_t * tau_t, "
        "m_t = [rank |tau_t| <= n - floor(outliers n)]",
        PAPER + ", Fig. 7",
        "alpha is not published.",
    ),
    Method(
        "random_sparsed",
        RANDOM_MASK,
        SUM,
        "keep entries at random, without rescaling (ablation)",
        "base + alpha * sum_t weight_t * m_t * tau_t, m_t iid Bernoulli(density)",
        PAPER + ", Table 1",
        "alpha is not published. The draws depend on the seed, the name of the model and the"
        " name of the tensor alone.",
    ),
)

ELECTED = Method(
    "breadcrumbs_ties",
    BREADCRUMBS,
    election("sum", AUTO),
    "cut both tails of each task vector, elect a sign, add the entries with that sign",
    "base + alpha * sum over {t: sign(w_t m_t tau_t) = s} of w_t m_t tau_t, "
    "s = sign(sum_t w_t m_t tau_t), m_t as in breadcrumbs",
    PAPER + "; the election of " + ties.PAPER,
    "A combination that mergekit offers; no paper.",
)
