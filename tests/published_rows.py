"""One row a method that is no plain sum: its slow reference, and settings to try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from families import taus_of
from reference import breadcrumbs_mask, draws, is_weight
from references import classical, masks, recent, spectral
from references.common import added, magnitude

from breadcrumbs.methods.parameters import AUTO, defaults
from breadcrumbs.methods.registry import METHODS

Arrays = dict[str, np.ndarray]
NAMES = ["model 1", "model 2", "model 3"]


@dataclass(frozen=True)
class Row:
    """reference: (base, models, weights, **settings) -> merged, float64. settings: to try.

    models: how many are merged. weighted: whether weights are tried too; positive: those above 0
    alone. order: whether the order
    of the models changes nothing, no bit for ``exact`` ones.
    """

    reference: Callable[..., Arrays]
    settings: Sequence[dict[str, Any]] = ({},)
    models: int = 3
    weighted: bool = True
    positive: bool = False
    order: bool = True
    exact: bool = True


def uniforms(name: str, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return the draws of each model for a tensor, as numbers from [0, 1)."""
    n = int(np.prod(shape))
    return [np.array(draws((0, who, name), n)).reshape(shape) / 2.0**32 for who in NAMES]


def by_tensor(merge: Callable[..., np.ndarray]) -> Callable[..., Arrays]:
    """Return a reference of whole models from one of a tensor (name, base, models, weights)."""

    def reference(base: Arrays, models: Sequence[Arrays], weights, **settings: Any) -> Arrays:
        return {
            name: merge(name, array, [m[name] for m in models], weights, **settings)
            for name, array in base.items()
            if is_weight(array)
        }

    return reference


def dare(name, base, models, weights, *, elect: bool, p=0.9, alpha=1.0, merge="mean"):
    drawn = uniforms(name, base.shape)
    # Divided last: equal and opposite task vectors cancel, which rounded multiples may not.
    share = 1 - float(p) or 1.0
    taus = [
        np.where(u < 1 - float(p), tau, 0.0)
        for tau, u in zip(taus_of(base, models), drawn, strict=False)
    ]
    whole = [classical.dare(tau, u, p=float(p)) for tau, u in zip(taus, drawn, strict=False)]
    for tau, scaled in zip(taus, whole, strict=True):
        np.testing.assert_allclose(tau / share, scaled, rtol=1e-15)
    if not elect:
        return classical.linear_sum(base, taus, weights=weights, alpha=alpha / share)
    return classical.elected_sum(base, taus, weights=weights, alpha=alpha / share, merge=merge)


def della(
    name, base, models, weights, *, elect, density=0.5, epsilon=0.15, alpha=1.0, merge="mean"
):
    taus = []
    for model, u in zip(models, uniforms(name, base.shape), strict=False):
        chance = classical.della_probabilities(base, model, density=density, epsilon=epsilon)
        taus.append(classical.della(taus_of(base, [model])[0], u, chance))
    if not elect:
        return classical.linear_sum(base, taus, weights=weights, alpha=alpha)
    return classical.elected_sum(base, taus, weights=weights, alpha=alpha, merge=merge)


def breadcrumbs_ties(name, base, models, weights, *, beta=0.9, gamma=0.99, **settings):
    kept = []
    for model in models:
        tau = magnitude(base, model).reshape(-1).tolist()
        mask = breadcrumbs_mask(tau, beta=beta, gamma=gamma)
        kept.append(np.array(mask, bool).reshape(base.shape))
    return masks.breadcrumbs_ties(base, models, kept, weights=weights, **settings)


def weighted_models(base: Arrays, models: Sequence[Arrays], weights) -> list[Arrays]:
    """Return models whose task vectors are the weighted ones, for references without weights."""
    wide = {name: np.asarray(array, np.float64) for name, array in base.items()}
    return [
        {
            name: wide[name] + w * (np.asarray(m[name], np.float64) - wide[name])
            if is_weight(base[name])
            else base[name]
            for name in base
        }
        for m, w in zip(models, weights, strict=True)
    ]


def unweighted(merge: Callable[..., Arrays]) -> Callable[..., Arrays]:
    return lambda base, models, weights, **settings: merge(base, models, **settings)


def by_weight(merge: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """Return a reference with weights, which multiply the task vectors."""

    def reference(base: Arrays, models: Sequence[Arrays], weights, **settings: Any) -> Arrays:
        if any(w != 1 for w in weights):
            models = weighted_models(base, models, weights)
        return merge(base, models, **settings)

    return reference


def emr(base, models, task=None):
    if task is not None:
        return masks.emr_model(base, models, task - 1)
    return added(base, masks.emr(base, models)[0])


def lines(base, models, pattern=r"(\d+)", beta=0.5, **settings):
    return spectral.lines(base, models, pattern=pattern, beta=beta, **settings)


def tvq(name, base, models, weights, bits=4, alpha=0.3):
    taus = [spectral.tvq(tau, bits=bits) for tau in taus_of(base, models)]
    return classical.linear_sum(base, taus, weights=weights, alpha=alpha)


def rtvq(name, base, models, weights, alpha=0.3, **settings):
    taus = spectral.rtvq(taus_of(base, models), **settings)
    return classical.linear_sum(base, taus, weights=weights, alpha=alpha)


def spectrum(merge: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Return a reference with weights, which multiply the task vectors."""

    def reference(name, base, models, weights, **settings):
        wide = np.asarray(base, np.float64)
        mine = [wide + w * tau for w, tau in zip(weights, taus_of(base, models), strict=True)]
        return merge(wide, mine, **settings)

    return reference


def by_entry(merge: Callable[..., np.ndarray]) -> Callable[..., Arrays]:
    """Return a reference of whole models from one of task vectors, which weights multiply."""
    return by_tensor(
        lambda name, base, models, weights, **settings: merge(
            base, classical.weighted(taus_of(base, models), weights), **settings
        )
    )


def ram(name, base, models, weights, **settings):
    return recent.ram(base, taus_of(base, models), weights, **settings)


TABLE: dict[str, Row] = {
    "ties": Row(
        lambda base, models, weights, **s: classical.ties(base, models, weights=weights, **s),
        [
            {"granularity": unit, "merge": merge, "density": 0.3, "alpha": alpha}
            for unit in ("model", "tensor")
            for merge, alpha in (("mean", 1.0), ("sum", 0.3), ("max", 0.7))
        ]
        + [{}],
    ),
    "survivors": Row(classical.survivors, [{}, {"density": 0.4, "alpha": 1.0}]),
    "dare_linear": Row(
        by_tensor(lambda *given, **s: dare(*given, elect=False, **s)), [{}, {"p": 0.3}, {"p": 1}]
    ),
    "dare_ties": Row(
        by_tensor(lambda *given, **s: dare(*given, elect=True, **s)),
        [{}, {"p": 0.25, "merge": "sum"}, {"p": 0, "alpha": 0.5}, {"p": 1}],
    ),
    "della_linear": Row(
        by_tensor(lambda *given, **s: della(*given, elect=False, **s)),
        [{}, {"density": 0.7, "epsilon": 0.2}],
    ),
    "della": Row(
        by_tensor(lambda *given, **s: della(*given, elect=True, **s)),
        [{}, {"density": 0.7, "epsilon": 0.2, "merge": "sum"}],
    ),
    "breadcrumbs_ties": Row(
        by_tensor(breadcrumbs_ties),
        [{}, {"beta": 0.4, "gamma": 0.9}, {"beta": 0.5, "gamma": 0.95, "merge": "mean"}],
    ),
    "consensus": Row(
        unweighted(masks.consensus),
        [{"scale": scale, "k": k} for scale in (0.2, 0.4, 0.6) for k in (0, 1, 2, 3)]
        + [{"on": "ties", "k": k} for k in (1, 2)]
        + [{"on": on, "scale": [0.2, 0.6, 0.4]} for on in ("sum", "ties")],
        weighted=False,
    ),
    "tall_mask": Row(
        unweighted(lambda base, models, task, **s: masks.tall_mask(base, models, task - 1, **s)),
        [{"task": t, "on": on, "scale": 0.3} for t in (1, 2, 3) for on in ("sum", "ties")]
        + [{"task": 2, "scale": [0.2, 0.6, 0.4]}],
        weighted=False,
    ),
    "emr": Row(by_weight(emr), [{}, {"task": 1}, {"task": 3}]),
    "tatr": Row(by_weight(spectral.tatr), [{}, {"quantile": 0.4, "alpha": 1}, {"quantile": 1}]),
    "pcb": Row(by_weight(spectral.pcb), [{}, {"ratio": 0.4, "edge": 0.01}, {"alpha": 1}]),
    "lines": Row(
        by_weight(lines),
        [{}, {"alpha": 0, "beta": 2}, {"beta": -1, "pattern": r"blocks\.(\d+)"}],
    ),
    "tvq": Row(by_tensor(tvq), [{}, {"bits": 1}, {"bits": 8, "alpha": -1}]),
    "rtvq": Row(by_tensor(rtvq), [{}, {"base_bits": 4, "offset_bits": 1, "alpha": 1}]),
    "localize_and_stitch": Row(
        unweighted(spectral.localize_and_stitch), [{}, {"density": 0.4}], weighted=False
    ),
    "magmax": Row(by_entry(recent.magmax), [{}, {"alpha": 1}]),
    "negmerge": Row(by_entry(recent.negmerge), [{}, {"alpha": -0.5}]),
    "ram": Row(by_tensor(ram), [{}, {"least": 0.1, "alpha": 0.7}]),
    "ramplus_tl": Row(
        by_tensor(lambda *given, r=0.1, **s: ram(*given, r=r, **s)),
        [{}, {"least": 0.12, "r": 0.5, "most": 3}],
    ),
    "awd": Row(by_weight(recent.awd), [{}, {"steps": 20, "rate": 0.2, "penalty": 0, "alpha": 1}]),
    "arcee_fusion": Row(
        by_tensor(
            lambda name, base, models, weights, **s: recent.arcee_fusion(base, models[0], **s)
        ),
        [{}, {"alpha": 0.5}],
        models=1,
        weighted=False,
    ),
    "nearswap": Row(
        by_tensor(
            lambda name, base, models, weights, t=0.0001: classical.nearswap(base, models, t=t)
        ),
        [{}, {"t": 0.2}],
        models=1,
        weighted=False,
    ),
    "slerp": Row(
        by_tensor(
            lambda name, base, models, weights, t=0.5: classical.slerp(base, models, t=float(t))
        ),
        [{}, {"t": 0}, {"t": 0.3}, {"t": 1}],
        models=1,
        weighted=False,
    ),
    "nuslerp": Row(
        by_tensor(
            lambda name, base, models, weights, of="task_vectors", angles="tensor": (
                classical.nuslerp(
                    base if of == "task_vectors" else None,
                    models,
                    weights=weights,
                    flatten=angles == "tensor",
                    row_wise=angles == "column",
                )
            )
        ),
        [
            {"of": of, "angles": angles}
            for of, angles in (("models", "row"), ("task_vectors", "column"), ("models", "tensor"))
        ]
        + [{}, {"angles": "row"}, {"of": "models", "angles": "column"}],
        models=2,
        exact=False,
    ),
    "multislerp": Row(
        by_tensor(
            lambda name, base, models, weights, of="task_vectors": classical.multislerp(
                base if of == "task_vectors" else None, models, weights=weights
            )
        ),
        [{}, {"of": "models"}],
        exact=False,
    ),
    "karcher": Row(
        by_tensor(
            lambda name, base, models, weights, of="models": classical.karcher(
                None if of == "models" else base, models
            )
        ),
        [{}, {"of": "base_and_models"}],
        weighted=False,
        exact=False,
    ),
    "geometric_median": Row(
        by_tensor(
            lambda name, base, models, weights, **s: recent.geometric_median(base, models, weights)
        ),
        [{"steps": 2000, "tol": 1e-13}],
        positive=True,
        exact=False,
    ),
    "model_stock": Row(
        by_tensor(
            lambda name, base, models, weights, **s: classical.model_stock(
                base,
                models,
                clamp=s.get("ratio", "clamped") == "clamped",
                filter_wise=s.get("angles") == "row",
                guard=s.get("guard", 0.0),
                angles=s.get("pairs") == "angles",
            )
        ),
        [
            {},
            {"angles": "row"},
            {"ratio": "free"},
            {"ratio": "free", "angles": "row"},
            {"ratio": "free", "angles": "row", "guard": 0.01},
            {"guard": 100.0},
            {"pairs": "angles"},
            {"pairs": "angles", "ratio": "free", "angles": "row"},
        ],
        weighted=False,
        exact=False,
    ),
    "tsv_m": Row(by_tensor(spectrum(spectral.tsv_m)), [{}, {"alpha": 0.5}], exact=False),
    "iso_c": Row(by_tensor(spectrum(spectral.iso_c)), [{}, {"alpha": 0.5}], exact=False),
    "iso_cts": Row(by_tensor(spectrum(spectral.iso_cts)), [{}, {"common": 0.5}], exact=False),
    "polar": Row(by_tensor(spectrum(spectral.polar_step)), [{}, {"length": 0.5}], exact=False),
    "star": Row(by_tensor(spectrum(spectral.star)), [{}, {"eta": 0.7}], exact=False),
    "dc": Row(
        by_tensor(spectrum(recent.dc)),
        [{}, {"top": 0.3, "smooth": "mean"}, {"top": 1, "smooth": "linear", "rho": 2}],
        exact=False,
    ),
    "cart": Row(by_tensor(spectrum(recent.cart)), [{}, {"rank": 0.5, "scale": 1}], exact=False),
    "wudi": Row(
        by_tensor(spectrum(spectral.wudi)),
        [
            {},
            {"solver": "adam", "steps": 5},
            {"solver": "ridge"},
            {"solver": "flow", "time": 30},
            {"normalize": "none", "time": 0.5},
            {"normalize": "none", "solver": "ridge", "ridge": 0},
            {"solver": "adam", "steps": 0},
        ],
        exact=False,
    ),
    "sce": Row(
        by_tensor(spectrum(classical.sce)),
        [{}, {"density": 0.4}, {"density": 0.7, "adds": "all"}],
        exact=False,
    ),
    "cabs": Row(
        by_tensor(spectrum(spectral.cabs)), [{"n": 2, "m": 8}, {}], order=False, exact=False
    ),
}


def numbered(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with a number for alpha, which references do not find from the weights."""
    automatic = defaults(METHODS[method].parameters).get("alpha") == AUTO
    return {"alpha": 0.7, **settings} if automatic else settings


TABLE = {
    name: replace(row, settings=[numbered(name, settings) for settings in row.settings])
    for name, row in TABLE.items()
}
