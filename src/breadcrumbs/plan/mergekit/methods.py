"""mergekit's methods: the parameters that they take, and what they are in a recipe.

A translation takes the values that hold for one tensor and gives the step that they mean. Where the
definitions differ, the recipe says mergekit's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from breadcrumbs.plan.mergekit.settings import Parameter


@dataclass(frozen=True)
class Given:
    """What holds for one tensor. base: the base's values, if it counts. models: the others'."""

    shared: Mapping[str, Any]
    base: Mapping[str, Any]
    models: list[Mapping[str, Any]]
    refuse: Callable[[str, str], NoReturn]


@dataclass(frozen=True)
class Step:
    """The same in a recipe: parameters of all, and the weight and parameters of each model."""

    values: dict[str, Any] = field(default_factory=dict)
    weights: list[float] = field(default_factory=list)
    own: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Peer:
    """A method of mergekit's.

    name: of the recipe's method. base: ``needed``, ``possible`` (then task vectors are against it,
    else whole models are merged) or ``one of all``. least, most: inputs, the base among them if it
    is needed, else besides it. random: whether it draws. alone: whether one model is merged by
    itself, which is that model.
    """

    name: str
    translate: Callable[[Given], Step]
    parameters: Mapping[str, Parameter]
    base: str = "needed"
    least: int = 1
    most: int | None = None
    random: bool = False
    alone: bool = False


def _clamped(number: float) -> float:
    return min(1.0, max(0.0, number))


# --- sums and elections of task vectors --------------------------------------------------------


def _family(cut: Callable[[Given, int], dict[str, Any]], elects: bool) -> Callable[[Given], Step]:
    """Return the translation of a method that cuts task vectors and adds or elects."""

    def translate(given: Given) -> Step:
        weights = [model["weight"] for model in given.models]
        values: dict[str, Any] = {"alpha": given.shared["lambda"]}
        if elects:
            values["merge"] = "mean" if given.shared["normalize"] else "sum"
            values["shares"] = "signed" if min(weights, default=1) < 0 else "magnitudes"
        elif given.shared["normalize"]:
            total = math.fsum(weights)
            values["alpha"] /= 1.0 if abs(total) < 1e-8 else total
        own = [cut(given, t) for t in range(len(weights))]
        # A model of which nothing is kept takes no part.
        weights = [0.0 if o.pop("none", False) else w for o, w in zip(own, weights, strict=True)]
        return Step(values, weights, own)

    return translate


def _rescale(given: Given) -> str:
    return "l1" if given.shared["rescale"] else "none"


def _everything(given: Given, t: int) -> dict[str, Any]:
    return {}


def _largest(given: Given, t: int) -> dict[str, Any]:
    return {
        "density": _clamped(given.models[t]["density"]),
        "granularity": "tensor",
        "counts": "mergekit",
        "rescale": _rescale(given),
    }


def _breadcrumbs(given: Given, t: int) -> dict[str, Any]:
    gamma = given.models[t]["gamma"]
    if not 0 <= gamma <= 1:
        given.refuse("gamma", f"gamma {gamma:g} is not a fraction: it is the part cut at the top.")
    return {
        "density": _clamped(given.models[t]["density"]),
        "outliers": gamma,
        "counts": "mergekit",
        "rescale": _rescale(given),
    }


def _dare(given: Given, t: int) -> dict[str, Any]:
    density = given.models[t]["density"]
    if density < 0:
        given.refuse("density", f"density {density:g} is not a probability.")
    return {"p": round(1 - min(density, 1.0), 12), "rescale": _rescale(given)}


def _della(given: Given, t: int) -> dict[str, Any]:
    density, epsilon = given.models[t]["density"], given.models[t]["epsilon"]
    if 0 < density < 1 and not 0 < density - epsilon <= density + epsilon < 1:
        given.refuse(
            "epsilon", f"density {density:g} with epsilon {epsilon:g} leaves the range of 0 to 1."
        )
    own: dict[str, Any] = {"density": 1.0, "epsilon": 0.0, "rescale": _rescale(given)}
    if density <= 0:
        own["none"] = True
    elif density < 1:
        own |= {"density": density, "epsilon": epsilon}
    return own


def _arithmetic(*more: str, normalize: bool = False, rescale: bool = False) -> dict[str, Parameter]:
    defaults = {"density": 1.0, "gamma": 0.01, "epsilon": 0.15}
    return {
        "weight": Parameter("model", float, required=True),
        "normalize": Parameter("shared", bool, normalize),
        "lambda": Parameter("shared", float, 1.0),
        "rescale": Parameter("shared", bool, rescale),
        **{name: Parameter("model", float, defaults[name]) for name in more},
    }


# --- the others --------------------------------------------------------------------------------


def _linear(given: Given) -> Step:
    weights = [model["weight"] for model in given.models]
    if given.shared["normalize"] and math.fsum([given.base["weight"], *weights]) == 0:
        given.refuse("weight", "the weights add up to 0, so there is no mean.")
    values = {
        "base_weight": given.base["weight"],
        "normalize": "weights" if given.shared["normalize"] else "none",
    }
    return Step(values, weights, [{} for _ in weights])


def _passthrough(given: Given) -> Step:
    scale = given.base["scale"]
    return Step({"base_weight": 1.0 if scale is None else scale, "normalize": "none"})


def _unweighted(given: Given, **values: Any) -> Step:
    return Step(values, [1.0] * len(given.models), [{} for _ in given.models])


def _slerp(given: Given) -> Step:
    t = given.shared["t"]
    if not 0 <= t <= 1:
        given.refuse("t", f"t {t:g} lies beyond the two models, which is not offered.")
    return _unweighted(given, t=t)


def _nearswap(given: Given) -> Step:
    t = max(given.shared["t"], 0.0)
    if 0 < t < 1e-6:
        given.refuse("t", f"t {t:g} is below 1e-6, where mergekit divides by 1e-6 instead.")
    return _unweighted(given, t=t)


def _nuslerp(given: Given) -> Step:
    # There `row_wise` turns the tensor, so that its columns are what has an angle.
    lines = "column" if given.shared["nuslerp_row_wise"] else "row"
    angles = "tensor" if given.shared["nuslerp_flatten"] else lines
    weights = [model["weight"] for model in given.models]
    return Step({"angles": angles}, weights, [{} for _ in weights])


def _multislerp(given: Given) -> Step:
    if given.shared["eps"] != 1e-8:
        given.refuse("eps", "eps cannot be changed. Leave it out.")
    weights = [model["weight"] for model in given.models]
    # One model is taken as it is, whatever its weight.
    whole = given.shared["normalize_weights"] or len(weights) == 1
    normalize = "weights" if whole else "none"
    return Step({"normalize": normalize}, weights, [{} for _ in weights])


def _model_stock(given: Given) -> Step:
    angles = "row" if given.shared["filter_wise"] else "tensor"
    return _unweighted(given, ratio="free", angles=angles, guard=1e-6)


def _karcher(given: Given) -> Step:
    shared = given.shared
    return _unweighted(
        given, of="base_and_models", max_iter=max(shared["max_iter"], 0), tol=shared["tol"]
    )


def _sce(given: Given) -> Step:
    density = _clamped(given.shared["select_topk"])
    return _unweighted(given, density=density, counts="mergekit", guard=1e-6)


def _arcee_fusion(given: Given) -> Step:
    return _unweighted(given)


def _ram(given: Given) -> Step:
    """`alpha` there is what the ratio counts at most; here it is a factor, which is 1 there."""
    shared = given.shared
    if shared["epsilon"] < 0:
        given.refuse("epsilon", f"epsilon {shared['epsilon']:g} is no size.")
    more = {}
    if "r" in shared:
        if shared["alpha"] < 0:
            given.refuse("alpha", f"alpha {shared['alpha']:g} is below 0, the least ratio.")
        more = {"r": shared["r"], "most": shared["alpha"]}
    return _unweighted(given, least=shared["epsilon"], **more)


_EPSILON = {"epsilon": Parameter("shared", float, 1e-5)}
_WEIGHT = {"weight": Parameter("model", float, required=True)}

PEERS: dict[str, Peer] = {
    "task_arithmetic": Peer("task_arithmetic", _family(_everything, False), _arithmetic()),
    "ties": Peer("ties", _family(_largest, True), _arithmetic("density", normalize=True)),
    "breadcrumbs": Peer(
        "breadcrumbs", _family(_breadcrumbs, False), _arithmetic("density", "gamma")
    ),
    "breadcrumbs_ties": Peer(
        "breadcrumbs_ties", _family(_breadcrumbs, True), _arithmetic("density", "gamma")
    ),
    "dare_linear": Peer(
        "dare_linear", _family(_dare, False), _arithmetic("density", rescale=True), random=True
    ),
    "dare_ties": Peer(
        "dare_ties", _family(_dare, True), _arithmetic("density", rescale=True), random=True
    ),
    "della_linear": Peer(
        "della_linear",
        _family(_della, False),
        _arithmetic("density", "epsilon", rescale=True),
        random=True,
    ),
    "della": Peer(
        "della",
        _family(_della, True),
        _arithmetic("density", "epsilon", normalize=True, rescale=True),
        random=True,
    ),
    "linear": Peer(
        "average",
        _linear,
        {
            "weight": Parameter("input", float, required=True),
            "normalize": Parameter("shared", bool, True),
        },
        base="one of all",
    ),
    "passthrough": Peer(
        "average",
        _passthrough,
        {"scale": Parameter("input", float)},
        base="one of all",
        most=1,
    ),
    "slerp": Peer(
        "slerp", _slerp, {"t": Parameter("shared", float, required=True)}, least=2, most=2
    ),
    "nearswap": Peer(
        "nearswap", _nearswap, {"t": Parameter("shared", float, required=True)}, least=2, most=2
    ),
    "nuslerp": Peer(
        "nuslerp",
        _nuslerp,
        {
            **_WEIGHT,
            "nuslerp_flatten": Parameter("shared", bool, True),
            "nuslerp_row_wise": Parameter("shared", bool, False),
        },
        base="possible",
        least=2,
        most=2,
    ),
    "multislerp": Peer(
        "multislerp",
        _multislerp,
        {
            **_WEIGHT,
            "normalize_weights": Parameter("shared", bool, True),
            "eps": Parameter("shared", float, 1e-8),
        },
        base="possible",
        alone=True,
    ),
    "karcher": Peer(
        "karcher",
        _karcher,
        {
            "max_iter": Parameter("shared", int, 10),
            "tol": Parameter("shared", float, 1e-5),
        },
        base="one of all",
        alone=True,
    ),
    "model_stock": Peer(
        "model_stock",
        _model_stock,
        {"filter_wise": Parameter("shared", bool, False)},
        least=3,
    ),
    "sce": Peer("sce", _sce, {"select_topk": Parameter("shared", float, 1.0)}),
    "arcee_fusion": Peer("arcee_fusion", _arcee_fusion, {}, least=2, most=2),
    "ram": Peer("ram", _ram, _EPSILON),
    "ramplus_tl": Peer(
        "ramplus_tl",
        _ram,
        {
            "r": Parameter("shared", float, 0.1),
            "alpha": Parameter("shared", float, 0.2),
            **_EPSILON,
        },
    ),
}
#: Parameters that change no result: they are for some other method, or about memory.
WITHOUT_EFFECT = {"int8_mask"} | {name for peer in PEERS.values() for name in peer.parameters}
