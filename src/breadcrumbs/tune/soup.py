"""Greedy soup: the mean of those models that do not make the mean worse.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", ICML 2022, arXiv:2203.05482, Recipe 1: by falling held-out
score, a model joins if the score of the mean with it is not below that of the mean without it. For
fine-tunings of one task. The data of the score choose the models, so they must be validation data:
a score on test data would be reported twice, as choice and as result.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs import plan as plans
from breadcrumbs.checkpoint import durable, notebook, places, whole
from breadcrumbs.checkpoint import like as checkpoint_like
from breadcrumbs.errors import OutputError, RecipeError, ScoreError, explained, printable
from breadcrumbs.merging import card, files, opening
from breadcrumbs.merging.report import Report
from breadcrumbs.merging.result import given_back
from breadcrumbs.plan import Plan
from breadcrumbs.plan.judgement import judged
from breadcrumbs.plan.recipe import Recipe

if TYPE_CHECKING:
    import pandas

Step = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A model, in the order of trial. score: of it alone. mean: of the mean with it, None if it was
    the first. kept: whether it stays in the mean."""

    name: str
    score: float
    mean: float | None
    kept: bool


@dataclass(repr=False)
class Soup:
    """A greedy soup. score: of the result. merged: its weights, as the base was given (a module, or
    a dict), or report: that of its files."""

    candidates: list[Candidate]
    score: float
    merged: Any = None
    report: Report | None = None

    @property
    def chosen(self) -> list[str]:
        """The names of the models in the mean, in the order in which they joined."""
        return [candidate.name for candidate in self.candidates if candidate.kept]

    def to_mapping(self) -> dict[str, Any]:
        """Return what was chosen as plain data, for JSON."""
        return {
            "by": "greedy soup",
            "score": self.score,
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }

    def to_frame(self) -> pandas.DataFrame:
        """Return a row for each model: its score, that of the mean with it, whether it stayed."""
        return notebook.frame([asdict(candidate) for candidate in self.candidates])

    def __repr__(self) -> str:
        number = len(self.candidates)
        return f"<Soup of {len(self.chosen)} of {number} models, score {self.score:.4g}>"

    def _repr_html_(self) -> str:
        rows = [asdict(candidate) for candidate in self.candidates]
        return notebook.table("Greedy soup", rows, {"score": self.score})

    def to_markdown(self) -> str:
        """Return what was chosen as a section of a model card."""
        rows = "\n".join(
            f"| {card.cell(c.name)} | {c.score!r} | {'' if c.mean is None else repr(c.mean)} |"
            f" {'yes' if c.kept else 'no'} |"
            for c in self.candidates
        )
        return (
            "## How the models were chosen\n\n"
            "Greedy soup (arXiv:2203.05482): by falling score, a model joins the mean if the score"
            f"\nof the mean does not fall. The result scores {self.score!r} on the same data.\n\n"
            "| model | score alone | score of the mean with it | in the mean |\n"
            f"|---|---|---|---|\n{rows}\n"
        )


@explained
def greedy_soup(
    base: opening.Source,
    models: Sequence[opening.Source],
    score: Callable[[Any], float],
    scores: Sequence[float] | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    names: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    dtype: str | None = None,
    missing: str | Sequence[str] = "error",
    extra: str | Sequence[str] = "error",
    rename: str | Sequence[str] = (),
    threads: int | None = None,
    force: bool = False,
    sync: bool = True,
    step: Step = lambda what: None,
) -> Soup:
    """Return the greedy soup of ``models``.

    score: a candidate -> its held-out score, higher is better. A candidate is a state dict if
        ``base`` is one, or a module; else the path of a merged folder (a file, if ``output`` is
        one), which is removed afterwards, so that there is one at a time beside the output.
    scores: of each model alone, if they are known; without it, ``score`` finds them.
    output: where to write the result, a merge by ``average`` of the chosen models, whose model card
        and metadata say all scores. Without it, the weights are in `Soup.merged`.
    names, exclude, only, dtype, missing, extra, rename, threads: as for `breadcrumbs.merge`. force:
        replace the output if it exists. sync: wait until it is on the disk. step: called with a
        line on what is being done.
    """
    models = opening.listed(models)
    mine = opening.named(models, names)
    scores = opening.each("scores", scores, models)
    if not callable(score):
        raise RecipeError(
            f"greedy soup: score: {score!r} is no function. Give one that returns a held-out score."
        )
    if not models:
        raise RecipeError("greedy soup: no models are given. Give a base and two models or more.")
    recipe = Recipe(
        opening.label(base, "base"),
        mine,
        "average",
        exclude=opening.globs(exclude),
        only=opening.globs(only),
        dtype=dtype,
        missing=missing,
        extra=extra,
        rename=opening.globs(rename),
    )
    state = opening.under(base)
    with opening.opened(recipe, [state, *models]) as plan:
        if output is not None:
            places.refuse_output(os.fspath(output))
            _check_output(plan, Path(output), force)
        like = state if isinstance(state, Mapping) else None
        measure = _scorer(plan, score, like, output, threads, step)
        candidates, kept, best = _choose(plan, measure, scores)
        chosen, soup = judged(_mean(plan, kept)), Soup(candidates, best)
        step("writing the result")
        if output is not None:
            with durable.syncing(sync):
                soup.report = files.to_files(
                    chosen, output, threads=threads, force=force, choice=soup
                )
        else:
            arrays, soup.report = files.to_arrays(chosen, threads=threads)
            soup.merged = given_back(base, state, arrays)
    return soup


def _choose(
    plan: Plan, score: Callable[[list[int]], float], scores: Sequence[float] | None
) -> tuple[list[Candidate], list[int], float]:
    """Return the candidates, the numbers of those in the mean, and its score.

    score: numbers of models -> score of their mean.
    """
    number = range(len(plan.models))
    alone = [score([i]) for i in number] if scores is None else [_number(s, "") for s in scores]
    candidates, kept, best = [], [], -math.inf
    for i in sorted(number, key=lambda i: -alone[i]):
        mean = score([*kept, i]) if kept else None
        joins = mean is None or mean >= best
        if joins:
            kept.append(i)
            best = alone[i] if mean is None else mean
        candidates.append(Candidate(plan.recipe.models[i].name, alone[i], mean, joins))
    return candidates, kept, best


def _mean(plan: Plan, chosen: Sequence[int]) -> Plan:
    recipe = replace(plan.recipe, models=tuple(plan.recipe.models[i] for i in chosen))
    mean = plans.make(recipe, plan.base, [plan.models[i] for i in chosen])
    return replace(mean, notes=(*plan.notes, *mean.notes))


def _scorer(
    plan: Plan,
    score: Callable[[Any], float],
    like: Any,
    output: str | os.PathLike[str] | None,
    threads: int | None,
    step: Step,
) -> Callable[[list[int]], float]:
    """Return a function from numbers of models to the score of their mean."""

    def measure(chosen: list[int]) -> float:
        what = " + ".join(plan.recipe.models[i].name for i in chosen)
        mean = _mean(plan, chosen)
        step(f"merging {what}")
        if like is not None:
            arrays, _ = files.to_arrays(mean, threads=threads)
            return _number(score(checkpoint_like.like(like, arrays)), what)
        single = output is not None and Path(output).suffix == ".safetensors"
        with whole.spare(_beside(output), "breadcrumbs-soup") as folder:
            candidate = folder / ("candidate.safetensors" if single else "candidate")
            with durable.syncing(False):
                files.to_files(mean, candidate, threads=threads)
            step(f"scoring {what}")
            return _number(score(candidate), what)

    return measure


def _beside(output: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the output, which has room for it, or else the system's for such."""
    folder = Path(os.path.realpath(output)).parent if output is not None else None
    return folder if folder is not None and folder.is_dir() else Path(tempfile.gettempdir())


def _check_output(plan: Plan, output: Path, force: bool) -> None:
    """Refuse, before hours of scoring, what would be refused after them."""
    files.check_not_input(plan, output)
    if output.exists() and not force:
        raise OutputError(f"{output}: exists. Give another output, or --force to replace it.")


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        of = f" of {what}" if what else ""
        raise ScoreError(f"the score{of} is {value!r}, which is not a number. It must be one.")
    return number


def command(text: str) -> Callable[[Any], float]:
    """Return the score that a command prints: its last line on stdout, a number.

    text: the command with ``{}`` where the candidate's path belongs. It is not run by a shell; what
    it says on stderr is shown. ScoreError where it fails or prints something else.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RecipeError(f"--score {text!r}: {error}. Write it as in a shell.") from None
    if not any("{}" in word for word in words):
        raise RecipeError(
            f"--score {text!r}: has no {{}}, where the path of a candidate belongs, as in"
            ' --score "python evaluate.py {}".'
        )

    def score(candidate: Any) -> float:
        mine = [word.replace("{}", str(candidate)) for word in words]
        try:
            ran = subprocess.run(mine, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        except (OSError, UnicodeDecodeError) as error:
            raise ScoreError(f"--score: {words[0]!r} cannot be run: {error}.") from None
        if ran.returncode:
            raise ScoreError(
                f"--score: {shlex.join(mine)} ended with code {ran.returncode}. Its messages are"
                " above."
            )
        lines = ran.stdout.strip().splitlines() or [""]
        try:
            return float(lines[-1])
        except ValueError:
            raise ScoreError(
                f"--score: the last line of {shlex.join(mine)} is {printable(lines[-1][:80])!r}."
                " It must be a number."
            ) from None

    return score
