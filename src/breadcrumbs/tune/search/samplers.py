"""Optuna's samplers and its storage, as a search uses them.

Each trial is asked of a sampler that begins anew, from a seed of its own and the trials that are
stored. So what comes next depends on the seed and on what is known, not on how often the search
was interrupted.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.errors import MissingExtraError, RecipeError, install, printable, suggestion
from breadcrumbs.tune.search.space import Dimension, Range

#: Trials of one generation of nsga2.
POPULATION = 10

#: By name, from Optuna's samplers, a seed for this trial, and the one of the search.
_MAKE: dict[str, Callable[[Any, int, int], Any]] = {
    "random": lambda all, own, seed: all.RandomSampler(seed=own),
    "tpe": lambda all, own, seed: all.TPESampler(seed=own, constant_liar=True),
    "cmaes": lambda all, own, seed: all.CmaEsSampler(seed=own, warn_independent_sampling=False),
    "qmc": lambda all, own, seed: all.QMCSampler(
        seed=seed,
        scramble=True,
        independent_sampler=all.RandomSampler(seed=own),
        warn_independent_sampling=False,
        warn_asynchronous_seeding=False,
    ),
    "nsga2": lambda all, own, seed: all.NSGAIISampler(seed=own, population_size=POPULATION),
}
#: A grid needs no sampler: its points are known.
SAMPLERS = ("grid", *_MAKE)
#: What some need besides Optuna.
_NEEDS = {"cmaes": "cmaes", "qmc": "scipy"}


def check(name: str) -> None:
    """Raise RecipeError where there is no such sampler, MissingExtraError where it cannot run."""
    import importlib.util

    if name not in SAMPLERS:
        raise RecipeError(
            f"there is no sampler {name!r}.{suggestion(name, SAMPLERS)} There are"
            f" {', '.join(SAMPLERS)}."
        )
    for package in ("optuna", *([_NEEDS[name]] if name in _NEEDS else [])):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"a search by {name} needs {package}, which is not installed. {install('evaluate')}"
            )


def open_study(storage: str | Path | None, identity: Mapping[str, Any], objectives: int) -> Any:
    """Return a new study, or the one that an earlier run of the same search left in a file.

    identity: all that the trials depend on, as plain data. RecipeError where the file is of another
    search, or no such file.
    """
    import optuna
    from optuna.storages import InMemoryStorage, JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wanted = json.loads(json.dumps(identity))
    quoted = printable(str(storage))
    if storage is not None:
        _mend(Path(storage))
    try:
        store = JournalStorage(JournalFileBackend(str(storage))) if storage else InMemoryStorage()
        study = optuna.create_study(
            storage=store,
            study_name="search",
            directions=[StudyDirection.MAXIMIZE] * objectives,
            load_if_exists=True,
        )
        found = study.user_attrs.get("search")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RecipeError(
            f"{quoted}: cannot be used as the storage of a search ({reason}). Give another"
            " --storage, which is made, or one that a search left."
        ) from None
    if found is None:
        study.set_user_attr("search", wanted)
        return study
    for key in (*wanted, *(key for key in found if key not in wanted)):
        if found.get(key) != wanted.get(key):
            raise RecipeError(
                f"{quoted}: is of another search: {_difference(key, found, wanted)}. Give another"
                " --storage, or the same settings."
            )
    return study


def _mend(path: Path) -> None:
    """Cut off a last line that was not written to its end; RecipeError for no such file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}.") from None
    whole = data[: data.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines() or ([data] if data else [])):
        try:
            right = "op_code" in json.loads(line)
        except (ValueError, TypeError):
            right = not whole and _FIRST.startswith(data[: len(_FIRST)])
        if not right:
            raise RecipeError(
                f"{path}, line {number + 1}: cannot be used as the storage of a search. Give"
                " another --storage, which is made, or one that a search left."
            )
    if len(whole) < len(data):
        os.truncate(path, len(whole))


#: How a storage begins.
_FIRST = b'{"op_code":'


def _difference(key: str, found: Any, wanted: Any) -> str:
    """Return where two mappings differ, in words: the first key within, if they are nested."""
    old, new = found.get(key), wanted.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
        for inner in (*new, *old):
            if old.get(inner) != new.get(inner):
                return _difference(inner, old, new).replace(inner, f"{key} {inner}", 1)
    texts = [printable(json.dumps(value))[:80] for value in (old, new)]
    return f"{key} was {texts[0]}, and is {texts[1]}"


def settle(study: Any, asked: Collection[int], scores: Mapping[int, Any]) -> None:
    """Tell a study of an interrupted run what it was not told, by Optuna's numbers of trials.

    asked: those whose points are known; others are given up. scores: of those that were scored.
    """
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number in scores:
            tell(study, trial.number, scores[trial.number])
        elif trial.number not in asked:
            tell(study, trial.number, None)


def tell(study: Any, number: int, score: float | list[float] | None) -> None:
    """Tell what a trial scored, or None of one that nothing is learnt from."""
    from optuna.trial import TrialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.tell(number, score, state=TrialState.FAIL if score is None else None)


def ask(study: Any, sampler: str, seed: int, number: int, attempt: int) -> tuple[Any, Any]:
    """Return a new trial, and a function that chooses from dimensions as the sampler does."""
    import optuna

    own = np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental in Optuna
        study.sampler = _MAKE[sampler](optuna.samplers, int(own), seed)
        trial = study.ask()

    def choose(name: str, dimension: Dimension) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _suggest(trial, name, dimension)

    return trial, choose


def _suggest(trial: Any, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Range):
        if dimension.whole:
            return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
        value = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
        return dimension.rounded(value)
    if len(dimension.values) == 1:
        return dimension.values[0]
    if dimension.ordered:
        return dimension.values[trial.suggest_int(name, 0, len(dimension.values) - 1)]
    return trial.suggest_categorical(name, list(dimension.values))
