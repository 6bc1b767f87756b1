"""What a search makes as large as it can be: a number of the scores of all tasks."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from breadcrumbs.errors import ScoreError, suggestion

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Objective:
    """A number of scores by task, larger is better. identity: what it depends on besides.

    normalised: whether it is of values divided by those of the fine-tuned models.
    """

    name: str
    function: Callable[[Scores], Any]
    normalised: bool = False
    identity: str = ""

    def __call__(self, values: Scores, normalised: Mapping[str, float | None]) -> float:
        """Return the number; ScoreError where it is none."""
        if self.normalised:
            unknown = [task for task, value in normalised.items() if value is None]
            if unknown:
                raise ScoreError(
                    f"--objective {self.name}: {', '.join(unknown)} has no normalised value, since"
                    " its fine-tuned model does not score above 0. Give --objective raw."
                )
            values = {task: value for task, value in normalised.items() if value is not None}
        try:
            found = float(self.function(dict(values)))
        except Exception as error:  # whatever the user's function raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ScoreError(f"--objective {self.name}: failed: {reason}") from error
        if not math.isfinite(found):
            raise ScoreError(f"--objective {self.name}: is {found} of {dict(values)}.")
        return found


def _mean(values: Scores) -> float:
    return math.fsum(values.values()) / len(values)


OBJECTIVES = {
    "mean": Objective("mean", _mean, normalised=True),
    "raw": Objective("raw", _mean),
    "min": Objective("min", lambda values: min(values.values()), normalised=True),
}


def get(text: str) -> Objective:
    """Return an objective by name, or from ``FILE.py:FUNCTION``, whose argument is values by task.

    ScoreError where there is no such thing.
    """
    if text in OBJECTIVES:
        return OBJECTIVES[text]
    path, colon, name = text.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ScoreError(
            f"--objective {text}: is not one of {', '.join(OBJECTIVES)}, nor FILE.py:FUNCTION."
            f"{suggestion(text, OBJECTIVES)}"
        )
    try:
        source = Path(path).read_bytes()
        function = runpy.run_path(path).get(name)
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ScoreError(f"--objective {text}: cannot be loaded: {reason}") from error
    if not callable(function):
        raise ScoreError(f"--objective {text}: the file has no function {name!r}.")
    return Objective(text, function, identity=blake3(source).hexdigest())
