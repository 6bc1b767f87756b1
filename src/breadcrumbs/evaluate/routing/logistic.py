"""Multinomial logistic regression of the task on features of the merged model.

    logits = z W + b,   the least of   sum_t 1/T mean_{rows of t} -log softmax(logits)_t + c/2 |W|^2

of features that are centred and divided by one number, the root of their mean squared length, so
that c means the same for all encoders; both are then put into W and b. Each task counts the same,
however many rows it has. c is the one of `PENALTIES` with the least loss of rows left out, a fifth
at a time, by their order (which is that of a hash). Newton's direction by L-BFGS, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
FOLDS, STEPS = 5, 200


def fit(features: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return ``weight`` (tasks, width) and ``bias`` (tasks,), float32. Needs Torch.

    features: of each task, (rows, width).
    """
    whole = np.concatenate([np.asarray(one, np.float64) for one in features])
    middle = np.mean([np.asarray(one, np.float64).mean(0) for one in features], axis=0)
    scale = float(np.sqrt(np.square(whole - middle).sum(1).mean())) or 1.0
    rows = [(np.asarray(one, np.float64) - middle) / scale for one in features]
    losses = dict.fromkeys(PENALTIES, 0.0)
    folds = min(FOLDS, *(len(one) for one in rows))
    for fold in range(folds if folds > 1 else 0):
        kept = [one[np.arange(len(one)) % folds != fold] for one in rows]
        left = [one[np.arange(len(one)) % folds == fold] for one in rows]
        found = None
        for penalty in PENALTIES:  # the strongest first: each begins where the last one ended
            found = _least(kept, penalty, found)
            losses[penalty] += _loss(left, *found)
    penalty = min(losses, key=losses.__getitem__)
    weight, bias = _least(rows, penalty, None)
    weight = weight / scale
    bias = bias - weight @ middle
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def _loss(rows: Sequence[np.ndarray], weight: np.ndarray, bias: np.ndarray) -> float:
    """Return the mean over tasks of the mean loss of their rows."""
    total = 0.0
    for task, mine in enumerate(rows):
        logits = mine @ weight.T + bias
        most = logits.max(1, keepdims=True)
        sums = np.log(np.exp(logits - most).sum(1)) + most[:, 0]
        total += float((sums - logits[:, task]).mean()) / len(rows)
    return total


def _least(
    rows: Sequence[np.ndarray], penalty: float, begun: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and bias of the least loss, from where it begins or from 0 on."""
    import torch

    tasks, width = len(rows), rows[0].shape[1]
    weight, bias = begun or (np.zeros((tasks, width)), np.zeros(tasks))
    x = torch.from_numpy(np.concatenate(rows))
    truth = torch.from_numpy(np.repeat(np.arange(tasks), [len(one) for one in rows]))
    share = torch.from_numpy(np.repeat([1 / (tasks * len(one)) for one in rows], [*map(len, rows)]))
    w, b = (torch.from_numpy(one.copy()).requires_grad_(True) for one in (weight, bias))
    solver = torch.optim.LBFGS(
        [w, b], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-12,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> torch.Tensor:
        solver.zero_grad()
        each = torch.nn.functional.cross_entropy(x @ w.T + b, truth, reduction="none")
        found = (each * share).sum() + penalty / 2 * w.square().sum()
        found.backward()
        return found

    with torch.inference_mode(False), torch.enable_grad():
        solver.step(loss)  # pyright: ignore[reportArgumentType]
    return w.detach().numpy(), b.detach().numpy()
