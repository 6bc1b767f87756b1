"""The methods as slow loops over Python numbers, written from the papers and the definitions.

Nothing here comes from the package, and NumPy only carries numbers in and out. A model is a dict of
arrays. Sums are whole numbers, so exact; a division of two whole numbers rounds once; every count
is the floor of a decimal times a whole number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np

#: numpy's name -> (bits of precision, exponent of the smallest normal number, largest number).
FORMATS = {
    "float64": (53, -1022, float.fromhex("0x1.fffffffffffffp1023")),
    "float32": (24, -126, float.fromhex("0x1.fffffep127")),
    "float16": (11, -14, 65504.0),
    "bfloat16": (8, -126, float.fromhex("0x1.fep127")),
    "float8_e4m3fn": (4, -6, 448.0),
    "float8_e5m2": (3, -14, 57344.0),
}
DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)
    for name in FORMATS
}

Arrays = Mapping[str, np.ndarray]


def numbers(array: np.ndarray) -> list[float]:
    """Return the entries of an array of any float dtype, in C order."""
    return array.astype(np.float64).reshape(-1).tolist()


def nearest(x: float, dtype: str) -> float:
    """Return ``x`` rounded once, to nearest even, to the format; infinity beyond its largest."""
    precision, smallest, largest = FORMATS[dtype]
    if x == 0 or dtype == "float64":
        return x
    if abs(x) >= 2 * largest:
        return math.copysign(math.inf, x)
    exponent = max(math.frexp(x)[1] - 1, smallest) - (precision - 1)
    # Scaling by a power of two is exact, and `round` is to nearest even.
    rounded = math.ldexp(round(math.ldexp(abs(x), -exponent)), exponent)
    return math.copysign(rounded if rounded <= largest else math.inf, x)


def floor_of(fraction: Any, n: int) -> int:
    """Return ``floor(fraction * n)``, the fraction read as the decimal that it is written as."""
    return math.floor(Fraction(str(fraction)) * n)


# --- masks -------------------------------------------------------------------------------------


def ranks(tau: Sequence[float]) -> list[int]:
    """Return the rank of every entry, from 1, by (magnitude, position)."""
    order = sorted(range(len(tau)), key=lambda i: (abs(tau[i]), i))
    result = [0] * len(tau)
    for rank, i in enumerate(order, 1):
        result[i] = rank
    return result


def breadcrumbs_mask(tau, *, beta=0.90, gamma=0.99, variant="paper") -> list[bool]:
    """Eq. 2 of Model Breadcrumbs, or what the authors' program does to a row."""
    n = len(tau)
    removed = floor_of(1 - Fraction(str(gamma)), n)
    if variant == "paper":
        below = floor_of(beta, n)
        return [below < rank <= n - removed for rank in ranks(tau)]
    kept = floor_of(1 - Fraction(str(beta)), n)
    return [n - removed - kept < rank <= n - removed for rank in ranks(tau)]


def bottom_masking_mask(tau, *, density=0.10) -> list[bool]:
    """Keep the largest."""
    n = len(tau)
    return [rank > n - floor_of(density, n) for rank in ranks(tau)]


def top_masking_mask(tau, *, outliers=0.01) -> list[bool]:
    """Cut the largest."""
    n = len(tau)
    return [rank <= n - floor_of(outliers, n) for rank in ranks(tau)]


MASKS = {
    "breadcrumbs": breadcrumbs_mask,
    "bottom_masking": bottom_masking_mask,
    "magnitude": lambda tau, *, density=0.20: bottom_masking_mask(tau, density=density),
    "top_masking": top_masking_mask,
}


def units(base: Arrays, names: Sequence[str], granularity: str) -> list[list[tuple[str, int]]]:
    """Return the units, each the (tensor, flat position) of its entries in order of position."""
    if granularity == "model":
        return [[(name, i) for name in sorted(names) for i in range(base[name].size)]]
    result = []
    for name in names:
        n = base[name].size
        row = base[name].shape[-1] if granularity == "row" and base[name].ndim else n
        result += [[(name, j) for j in range(i, i + row)] for i in range(0, n, row or 1)]
    return result


def kept(
    base: Arrays,
    models: Sequence[Arrays],
    merged: Sequence[str],
    method: str,
    names: Sequence[str],
    seed: int,
    parameters: Mapping[str, Any],
) -> list[dict[str, list[bool]]]:
    """Return, for every model, which entries of each tensor in ``merged`` stay."""
    masks = [{name: [True] * base[name].size for name in merged} for _ in models]
    if method == "random_sparsed":
        # The chance of 1 draws nothing; else a draw of 32 bits is compared with the floor.
        density = float(parameters.get("density", 0.10))
        limit = math.floor(density * 2**32)
        for mask, who in zip(masks, names, strict=True):
            for name in merged if density < 1 else ():
                drawn = draws((seed, who, name), base[name].size)
                mask[name] = [draw < limit for draw in drawn]
        return masks
    if method not in MASKS:
        return masks
    given = dict(parameters)
    authors = given.get("variant") == "authors"
    granularity = given.pop("granularity", None) or ("row" if authors else "tensor")
    scalars_pass = authors or (method != "breadcrumbs" and granularity == "row")
    for unit in units(base, merged, granularity):
        if not unit or (scalars_pass and base[unit[0][0]].ndim == 0 and granularity != "model"):
            continue
        inside = {name for name, _ in unit}
        arrays = [m[name] for m in (base, *models) for name in inside if name in m]
        precision = "float64" if any(a.dtype == np.float64 for a in arrays) else "float32"
        for model, mask in zip(models, masks, strict=True):
            tau: list[float] = []
            wide = {
                name: (numbers(model.get(name, base[name])), numbers(base[name])) for name in inside
            }
            for name, i in unit:
                x, y = wide[name][0][i], wide[name][1][i]
                # Of two float32 numbers, float64 holds enough of the difference (53 >= 2 * 24 + 2
                # bits) for the second rounding to be harmless (Figueroa 1995).
                tau.append(nearest(x - y, precision))
            for (name, i), keep in zip(unit, MASKS[method](tau, **given), strict=True):
                mask[name][i] = keep
    return masks


# --- random draws ------------------------------------------------------------------------------

_64 = (1 << 64) - 1


def splitmix(state: int) -> int:
    """Return the number that SplitMix64 (Steele, Lea and Flood 2014) makes of a state."""
    z = state & _64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _64
    return z ^ z >> 31


def draws(parts: Sequence[object], n: int) -> list[int]:
    """Return ``n`` numbers of 32 bits from the stream of (seed, model, tensor)."""
    text = "\0".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    state = int.from_bytes(digest, "little")
    result: list[int] = []
    while len(result) < n:
        state += 0x9E3779B97F4A7C15
        word = splitmix(state)
        result += [word & 0xFFFFFFFF, word >> 32]
    return result[:n]


# --- sums --------------------------------------------------------------------------------------


#: Every finite float64 is a whole multiple of ``1 / ONE``.
ONE = 1 << 1074


def whole(x: float) -> int:
    """Return ``x * ONE``, exactly."""
    numerator, denominator = x.as_integer_ratio()
    return numerator * (ONE // denominator)


def exact_sum(terms: Sequence[float]) -> tuple[float, float]:
    """Return the exact sum of numbers as (its nearest float64, what that rounding left over)."""
    exact = sum(map(whole, terms))
    high = exact / ONE
    return high, (exact - whole(high)) / ONE


def difference(x: float, y: float) -> tuple[float, float]:
    """Return ``x - y`` as (its nearest float64, the rest, which is exact)."""
    return exact_sum([x, -y])


def add(base: float, high: float, low: float, factor: float) -> float:
    """Return ``base + factor * (high + low)`` in float64, as exactly as a pair gives it."""
    step = factor * high
    merged = base + step
    error = (whole(base) + whole(step) - whole(merged)) / ONE
    return merged + (error + factor * low)


def signed_zero(base: float, models: Sequence[float], high: float, merged: float) -> float:
    """Return the zero ``merged`` with its sign: the models' if they are zeros of one sign.

    Else the base's where nothing is added, else its own.
    """
    signs = {math.copysign(1, x) for x in models}
    if models and all(x == 0 for x in models) and len(signs) == 1:
        return 0.0 * signs.pop()
    return math.copysign(0.0, base if high == 0 else merged)


def merge_entry(
    base: float, models: Sequence[float], keep: Sequence[bool], weights, factor: float
) -> float:
    """Return one merged weight in float64."""
    terms: list[float] = []
    for x, stays, weight in zip(models, keep, weights, strict=True):
        if stays:
            high, low = difference(x, base)
            terms += [weight * high, weight * low]
    high, low = exact_sum(terms)
    merged = add(base, high, low, factor)
    return signed_zero(base, models, high, merged) if merged == 0 else merged


def is_weight(array: np.ndarray) -> bool:
    return array.dtype in DTYPES.values()


def merge(
    base: Arrays,
    models: Sequence[Arrays],
    *,
    method: str,
    weights: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    dtype: str | None = None,
    copied: Sequence[str] = (),
    masks: Sequence[Mapping[str, list[bool]]] | None = None,
    alpha: float = 1.0,
    **parameters: Any,
) -> dict[str, np.ndarray]:
    """Return ``base + factor * sum(weight * mask * (model - base))``, rounded once.

    A model that lacks a tensor leaves it as it is. copied: names of tensors that are not merged.
    masks: what `kept` returns, if it is known already.
    alpha: the factor of the sum; the mean has 1 / (sum of weights) instead.
    """
    weights = [1.0] * len(models) if weights is None else list(weights)
    names = [f"model {i + 1}" for i in range(len(models))] if names is None else names
    merged = [name for name in base if is_weight(base[name]) and name not in copied]
    if masks is None:
        masks = kept(base, models, merged, method, names, seed, parameters)
    result = {}
    for name, array in base.items():
        out = DTYPES[dtype] if dtype and is_weight(array) else array.dtype
        if name not in merged:
            result[name] = array.astype(out)
            continue
        present = [t for t, model in enumerate(models) if name in model]
        factor = alpha
        if method == "average":
            factor = 1 / math.fsum(weights[t] for t in present) if present else 1.0
        who = [t for t in present if weights[t] != 0]
        mine = [weights[t] for t in who]
        if len(set(mine)) == 1:
            factor *= mine[0]
            mine = [1.0] * len(mine)
        columns = [numbers(models[t][name]) for t in who]
        stays = [masks[t][name] for t in who]
        values = [
            nearest(
                merge_entry(x, [c[i] for c in columns], [s[i] for s in stays], mine, factor),
                out.name,
            )
            for i, x in enumerate(numbers(array))
        ]
        with np.errstate(invalid="ignore"):
            result[name] = np.array(values, np.float64).astype(out).reshape(array.shape)
    return result
