"""FT-Classifier: the frozen head of the task, tuned to the merged model's features.

    min over the head's matrices of  mean KL(softmax(expert's logits) | softmax(merged's logits))

It begins as the frozen head, with which the expert answers. Its authors take 5 unlabelled rows of
each class one by one, Adam with rate 5e-4, 5 epochs; here 600 steps of 16 of the rows drawn, rate
5e-3. With ``answers: labels`` the loss is the cross-entropy of the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.errors import SuiteError

if TYPE_CHECKING:
    from breadcrumbs.evaluate.corrections.seen import Seen

STEPS, BATCH, RATE = 600, 16, 5e-3


class Head:
    """`kinds.Kind`: the numbers of the head."""

    least = 1
    answers = ("expert", "labels")

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps
        self.name = "head"

    def fit(self, seen: Seen) -> dict[str, np.ndarray]:
        """Return the head's tensors of one dimension and more, tuned, float32. Needs Torch."""
        import torch

        if not isinstance(seen.head, Mapping):
            raise SuiteError(
                f"task {seen.task!r}: its head is no mapping of tensors, so it cannot be tuned."
                " Learn an affine correction."
            )
        head = {name: tensor.detach().float().cpu() for name, tensor in seen.head.items()}
        tuned = {n: t.clone().requires_grad_(True) for n, t in head.items() if t.ndim}
        z, e = (torch.from_numpy(np.asarray(x, np.float32)) for x in (seen.merged, seen.expert))
        labels = torch.from_numpy(seen.labels)
        with torch.no_grad():
            wanted = seen.answer(head, e).float().log_softmax(-1)
        adam = torch.optim.Adam(list(tuned.values()), lr=RATE)
        measure = torch.nn.functional
        with torch.enable_grad():
            for step in range(self.steps):
                rows = torch.from_numpy(seen.draw.batch(seen.task, step, BATCH, len(z)))
                logits = seen.answer(head | tuned, z[rows]).float()
                if seen.draw.answers == "labels":
                    loss = measure.cross_entropy(logits, labels[rows])
                else:
                    given = logits.log_softmax(-1)
                    loss = measure.kl_div(
                        given, wanted[rows], reduction="batchmean", log_target=True
                    )
                adam.zero_grad()
                loss.backward()
                adam.step()
        return {name: tensor.detach().numpy() for name, tensor in tuned.items()}

    def features(self, numbers: Mapping[str, Any], features: Any) -> Any:
        """Return the features as they are."""
        return features

    def head(self, numbers: Mapping[str, Any], head: Any) -> Any:
        """Return the head with the tuned tensors in place of its own."""
        return {**head, **numbers}
