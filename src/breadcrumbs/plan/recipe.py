"""The recipe: everything that decides the merged weights, as a frozen value and as YAML.

Parsing a recipe opens no weights. docs/recipe.md specifies the format on one page.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import origin, places, renaming, stack
from breadcrumbs.errors import RecipeError, suggestion
from breadcrumbs.methods import algebra, registry
from breadcrumbs.methods.parameters import (
    Fraction,
    Fractions,
    Integer,
    Parameter,
    Real,
    decimal,
    written,
)
from breadcrumbs.plan import inputs, learned, token_rows
from breadcrumbs.plan.declared import RECIPE, kind

#: Output dtypes: the name in a recipe -> the name in a safetensors file.
OUTPUT_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
#: The output dtype of a quantised base that is quantised again as it was.
SAME = "same"
#: In what models are merged: as they are, or adapters in coordinates of their own (`plan.spaces`).
SPACES = ("full", "core", "knots")


@dataclass(frozen=True)
class Model:
    """A fine-tuned model: where it is, its weight, and a name that keys random masks.

    name: the last part of the path unless given. statistics: the file of what the method takes of
    it besides its weights, if it does. parameters: those of the transform that this model has of
    its own. rename: rules for the names of its tensors, before those of the recipe.
    """

    path: str
    weight: float = 1.0
    name: str = ""
    statistics: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rename: tuple[str, ...] = ()


@dataclass(frozen=True)
class Override:
    """Parameters for the tensors whose names match a glob; later ones win.

    model: the name of the one model that they are for; empty for all. weight: of the models there.
    """

    tensors: str
    parameters: Mapping[str, Any]
    model: str = ""
    weight: float | None = None


@dataclass(frozen=True)
class Recipe:
    """What to merge and how. ``base`` and the models' paths are what `checkpoint.open` takes.

    exclude, only: globs of tensor names; what they leave out is copied from the base.
    only_changed: rank only tensors that differ from the base in some model (model granularity).
    dtype: output dtype of every weight, a key of `OUTPUT_DTYPES`; None keeps the base's, but
        writes weights that are quantised there as bfloat16, where ``same`` quantises them again.
    missing, extra: ``error``, or ``base`` / ``ignore`` to go on, or globs of names to go on with.
    untie: merge an embedding and its head apart where models, or what is said of tensors, do so.
    rename: rules ``OLD=NEW`` that give tensors of models and of `onto` the base's names
        (`checkpoint.renaming`).
    onto: a model that the step is added to instead of the base, such as the fine-tuning to improve.
    tokenizer: one of the models, whose tokenizer files are copied instead of the base's.
    vocabulary: ``base``, ``union`` or one of the models; None takes the smallest that loses no
        token. Rows of embeddings and heads are matched by token.
    pad_to: rows of the embedding are a multiple of this; None leaves the padding that there is.
    tokens: which rows single tokens begin as (`token_rows`).
    allow_nonfinite: treat a NaN or infinity of a model as unchanged, copy one of the base; globs of
        tensors to do that in, or in all.
    chat_template: ``auto``, a model, a name, a file or a text that the output's tokenizer gets
        (`merging.chat`).
    inputs: the files that it was merged from once, as an output says of itself: a merge checks
        that they are the same (`merging.inputs`).
    made_by: the program that wrote it, with its version.
    space: ``full``, or ``core`` or ``knots``, where adapters are merged in coordinates of their own
        (`plan.spaces`).
    learned: from which rows its numbers were learned, if they were (`plan.learned`).
    device: where products and decompositions of matrices are made (`algebra`); ``cpu`` or, of a
        method that has any, ``cuda``, which rounds in another way.
    """

    base: str
    models: tuple[Model, ...]
    method: str = "breadcrumbs"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    only_changed: bool = False
    dtype: str | None = None
    missing: str | Sequence[str] = "error"
    extra: str | Sequence[str] = "error"
    allow_nonfinite: bool | Sequence[str] = False
    untie: bool = False
    seed: int = 0
    rename: tuple[str, ...] = ()
    onto: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    inputs: tuple[Mapping[str, Any], ...] = ()
    made_by: str = ""
    vocabulary: str | None = None
    pad_to: int | None = None
    tokens: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    space: str = SPACES[0]
    learned: Mapping[str, Any] = field(default_factory=dict)
    device: str = algebra.CPU

    def __post_init__(self) -> None:
        for path in self.paths:
            places.check(path)
        object.__setattr__(self, "models", _named(self.models))
        self._check_parameters()
        if self.dtype is not None:
            RECIPE.choice(self.dtype, "recipe: dtype", (*OUTPUT_DTYPES, SAME))
        RECIPE.choice(self.space, "recipe: space", SPACES)
        self._check_device()
        for key, words in _WORDS.items():
            object.__setattr__(self, key, _allowed(getattr(self, key), f"recipe: {key}", words))
        RECIPE.whole(self.seed, "recipe: seed")
        for text in (*self.rename, *(rule for model in self.models for rule in model.rename)):
            renaming.parse(text, "recipe: rename")
        onto = [self.onto] if self.onto is not None else []
        sources = [self.base, *(model.path for model in self.models), *onto]
        known = [part for path in sources for part in stack.paths(path) or (path,)]
        if self.tokenizer is not None:
            object.__setattr__(self, "tokenizer", _known(self.tokenizer, "tokenizer", known))
        if self.vocabulary not in (None, "base", "union"):
            given = _known(self.vocabulary, "vocabulary", known, "base", "union")
            object.__setattr__(self, "vocabulary", given)
        if self.pad_to is not None and RECIPE.whole(self.pad_to, "recipe: pad_to") == 0:
            raise RecipeError("recipe: pad_to: 0 is no multiple. Give 64, or 1 for no padding.")
        rows = token_rows.parsed(self.tokens, "recipe: tokens")
        for token, row in rows.items():
            if "model" in row:
                row["model"] = _known(row["model"], f"tokens: {token!r}", known)
        object.__setattr__(self, "tokens", rows)
        for model in self.models:
            _finite(model.weight, model.path)
        for override in self.overrides:
            _finite(override.weight or 0.0, f"overrides: {override.tensors}")

    @property
    def paths(self) -> tuple[str, ...]:
        """The base, all models, their statistics, and what the step is added to instead."""
        onto = [self.onto] if self.onto is not None else []
        given = [model.statistics for model in self.models if model.statistics is not None]
        return (self.base, *(model.path for model in self.models), *given, *onto)

    def _check_device(self) -> None:
        """Raise RecipeError for no device, and for one that the method has nothing for."""
        if algebra.check(self.device) == algebra.CPU or registry.get(self.method).algebra:
            return
        known = ", ".join(name for name, method in registry.METHODS.items() if method.algebra)
        raise RecipeError(
            f"recipe: device {self.device}: {self.method} neither multiplies nor decomposes"
            " matrices, and reading takes it longer than computing, so a device would not make it"
            f" faster. Leave `device` out; those that it is for are {known}, and low_rank, svc and"
            " boost with any method."
        )

    def _check_parameters(self) -> None:
        """Raise RecipeError for parameters that the method does not have, or not for one model."""
        method = registry.get(self.method)
        method.complete(self.parameters)
        own = {model.name: model.parameters for model in self.models}
        for name, parameters in own.items():
            method.complete({**self.parameters, **_of_one(method, parameters, name)})
        for override in self.overrides:
            given = override.parameters
            if override.model:
                if override.model not in own:
                    raise RecipeError(
                        f"recipe: overrides: there is no model {override.model!r}."
                        f"{suggestion(override.model, own)} The models are {', '.join(own)}."
                    )
                given = {**own[override.model], **_of_one(method, given, override.model)}
            method.complete({**self.parameters, **given})


def _known(path: str, key: str, known: Sequence[str], *more: str) -> str:
    """Return a model's path as the recipe has it; RecipeError if it is not one of the models."""
    if path in known:
        return path
    for other in known:
        if _is_same(other, path):
            return other
    raise RecipeError(
        f"recipe: {key}: {path!r} is not one of the models. Give one of"
        f" {', '.join(dict.fromkeys((*more, *known)))}."
    )


def _is_same(path: str, other: str) -> bool:
    """Whether two paths mean one folder, however they are written."""
    try:
        return os.path.normpath(path) == os.path.normpath(other) or os.path.samefile(path, other)
    except (OSError, ValueError):  # there is none of that name
        return False


#: What may be said instead of globs.
_WORDS: dict[str, tuple[str | bool, ...]] = {
    "missing": ("error", "base"),
    "extra": ("error", "ignore"),
    "allow_nonfinite": (False, True),
}


def _allowed(value: Any, where: str, words: tuple[str | bool, ...]) -> Any:
    """Return one of the words, or globs of names as a tuple; RecipeError for anything else."""
    if isinstance(value, str | bool) and value in words:
        return value
    if isinstance(value, str) and set(value) & set("*?[."):
        return (value,)
    if isinstance(value, list | tuple) and value:
        one = value[0] if len(value) == 1 else None
        if isinstance(one, str | bool) and one in words:
            return one
        return tuple(RECIPE.text(entry, where) for entry in value)
    if isinstance(words[0], bool):
        raise RecipeError(f"{where}: {value!r} is neither true nor false, nor globs of tensors.")
    raise RecipeError(
        f"{where}: {kind(value)} is not possible. Give one of {', '.join(map(str, words))}, or a"
        f" list of globs.{suggestion(str(value), map(str, words))}"
    )


def _of_one(method: Any, parameters: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """Return the parameters of one model; RecipeError if one is of the method as a whole."""
    for key in parameters:
        if key in method.aggregate.parameters:
            raise RecipeError(
                f"recipe: {model}: {key} says how the models are combined, so it cannot be of one"
                " model. Give it under `parameters`."
            )
    return parameters


def _finite(weight: float, where: str) -> None:
    if not math.isfinite(weight):
        raise RecipeError(f"recipe: {where}: weight {weight} is not finite.")


def name_of(path: str) -> str:
    """Return what a model is called where no name is given: the last part of its path or id.

    Of a folder in a hub's cache it is that of the id.
    """
    whole = Path((origin.cached(path) or path).split("@")[0])
    if "+" not in path and whole.stem == "adapter_model":  # of PEFT, whose folder has the name
        whole = whole.parent
    name = whole.name or path
    return name.removesuffix(".safetensors") or name


def _named(models: Sequence[Model]) -> tuple[Model, ...]:
    """Give every model a name of its own, from the last part of its path."""
    named: list[Model] = []
    taken: set[str] = set()
    for model in models:
        stem = model.name or name_of(model.path)
        name, n = stem, 1
        while name in taken:
            n += 1
            name = f"{stem}-{n}"
        taken.add(name)
        named.append(replace(model, name=name))
    return tuple(named)


_KEYS = tuple(Recipe.__dataclass_fields__)
_MODEL_KEYS = ("model", "weight", "name", "statistics", "parameters", "rename")


def from_mapping(data: Any, where: str = "recipe") -> Recipe:
    """Return the recipe that plain data (as read from YAML or JSON) describe.

    Unknown keys, values of the wrong kind and impossible parameters are RecipeErrors that begin
    with ``where``.
    """
    data = RECIPE.mapping(data, where, _KEYS)
    for key in ("base", "models"):
        if key not in data:
            raise RecipeError(f"{where}: there is no {key!r}. A recipe names a base and models.")
    values = dict(data)
    values["base"] = RECIPE.text(data["base"], f"{where}: base")
    for key in ("onto", "tokenizer", "vocabulary", "chat_template"):
        if data.get(key) is not None:
            values[key] = RECIPE.text(data[key], f"{where}: {key}")
    values["tokens"] = token_rows.parsed(data.get("tokens") or {}, f"{where}: tokens")
    values["models"] = tuple(
        _model(entry, f"{where}: models[{i}]")
        for i, entry in enumerate(RECIPE.items(data["models"], f"{where}: models"))
    )
    values["parameters"] = RECIPE.mapping(data.get("parameters") or {}, f"{where}: parameters")
    values["overrides"] = tuple(
        override(entry, f"{where}: overrides[{i}]")
        for i, entry in enumerate(RECIPE.items(data.get("overrides") or [], f"{where}: overrides"))
    )
    for key in ("exclude", "only", "rename"):
        values[key] = _texts(data.get(key), f"{where}: {key}")
    values["learned"] = learned.parsed(data.get("learned") or {}, f"{where}: learned")
    values["inputs"] = tuple(
        inputs.parse(entry, f"{where}: inputs[{i}]")
        for i, entry in enumerate(RECIPE.items(data.get("inputs") or [], f"{where}: inputs"))
    )
    if data.get("made_by"):
        values["made_by"] = RECIPE.line(data["made_by"], f"{where}: made_by")
    for key in ("only_changed", "untie"):
        if not isinstance(data.get(key, False), bool):
            raise RecipeError(f"{where}: {key}: {data[key]!r} is neither true nor false.")
    for key, words in _WORDS.items():
        if key in data:
            values[key] = _allowed(data[key], f"{where}: {key}", words)
    return Recipe(**values)


def _texts(given: Any, where: str) -> tuple[str, ...]:
    """Return one text or a list of them as a tuple."""
    entries = [given] if isinstance(given, str) and given else RECIPE.items(given or [], where)
    return tuple(RECIPE.text(entry, where) for entry in entries)


def _model(entry: Any, where: str) -> Model:
    if isinstance(entry, str):
        return Model(RECIPE.text(entry, where))
    entry = RECIPE.mapping(entry, where, _MODEL_KEYS)
    if "model" not in entry:
        raise RecipeError(f"{where}: there is no 'model', the path or hub id of the fine-tuning.")
    name, statistics = entry.get("name", ""), entry.get("statistics")
    return Model(
        RECIPE.text(entry["model"], f"{where}: model"),
        _number(entry.get("weight", 1.0), f"{where}: weight"),
        RECIPE.text(name, f"{where}: name") if name != "" else "",
        statistics=None if statistics is None else RECIPE.text(statistics, f"{where}: statistics"),
        parameters=RECIPE.mapping(entry.get("parameters") or {}, f"{where}: parameters"),
        rename=_texts(entry.get("rename"), f"{where}: rename"),
    )


def _number(value: Any, where: str) -> float:
    try:
        return float(decimal(value))
    except ValueError:
        raise RecipeError(f"{where}: {value!r} is not a number.") from None


def override(entry: Any, where: str) -> Override:
    """Return the override that plain data describe; RecipeError begins with ``where``."""
    entry = dict(RECIPE.mapping(entry, where))
    if "tensors" not in entry:
        raise RecipeError(
            f"{where}: there is no 'tensors', the glob of names that the parameters are for."
        )
    tensors = RECIPE.text(entry.pop("tensors"), f"{where}: tensors")
    model = RECIPE.text(entry.pop("model"), f"{where}: model") if "model" in entry else ""
    weight = _number(entry.pop("weight"), f"{where}: weight") if "weight" in entry else None
    return Override(tensors, entry, model, weight)


def load(path: str | Path) -> Recipe:
    """Read a recipe file. Relative paths in it are relative to its folder; errors name the line."""
    path = Path(path)
    read = from_mapping(RECIPE.read(path), str(path))
    known = {inputs.name(dict(entry)): entry for entry in read.inputs}

    def of(name: str) -> str:
        return inputs.remembered(known.get(name), beside(path, name))

    recipe = with_paths(read, lambda text: stack.renamed(text, of))
    template = recipe.chat_template
    return replace(recipe, chat_template=beside(path, template)) if template else recipe


def with_paths(recipe: Recipe, of: Callable[[str], str]) -> Recipe:
    """Return a recipe whose models and files have other paths, each through ``of``."""
    template, words = recipe.chat_template, recipe.vocabulary
    return replace(
        recipe,
        base=of(recipe.base),
        onto=of(recipe.onto) if recipe.onto else None,
        tokenizer=of(recipe.tokenizer) if recipe.tokenizer else None,
        vocabulary=words if words in (None, "base", "union") else of(words),
        tokens=token_rows.renamed(recipe.tokens, of),
        chat_template=of(template) if template in recipe.paths else template,
        models=tuple(
            replace(m, path=of(m.path), statistics=of(m.statistics) if m.statistics else None)
            for m in recipe.models
        ),
        inputs=tuple(
            {key: of(value) if key in inputs.PATHS else value for key, value in entry.items()}
            for entry in recipe.inputs
        ),
    )


def beside(recipe: Path, path: str) -> str:
    """Return ``path`` relative to the recipe's folder if something is there, else unchanged."""

    def found(path: str) -> str:
        beside = recipe.parent / path
        try:
            if not Path(path).is_absolute() and beside.exists():
                return _plainly(str(beside))
            base, plus, adapter = path.rpartition("+")
            if plus and base and adapter and not Path(path).exists():
                return f"{found(base)}+{found(adapter)}"
            return path
        except (OSError, ValueError):  # no name that a file could have
            return path

    return stack.renamed(path, found)


def _plainly(path: str) -> str:
    """Return a path without ``folder/..``, unless that would be another one, through a link."""
    plain = os.path.normpath(path)
    with contextlib.suppress(OSError):
        return plain if os.path.samefile(plain, path) else path
    return path


def to_mapping(recipe: Recipe, *, complete: bool = False) -> dict[str, Any]:
    """Return the recipe as plain data, without what is at its default.

    complete: with every parameter of the method, also those at their defaults.
    """
    given, method = dict(recipe.parameters), registry.get(recipe.method)
    parameters = method.stated(given) if complete else given
    declared = method.parameters
    data: dict[str, Any] = {
        "base": recipe.base,
        "models": [_model_entry(model, declared) for model in recipe.models],
        "method": recipe.method,
        "parameters": _plain(parameters, declared),
        "overrides": [_override_entry(override, declared) for override in recipe.overrides],
    }
    for name, spec in Recipe.__dataclass_fields__.items():
        value = getattr(recipe, name)
        if name not in data and value != spec.default:
            data[name] = list(value) if isinstance(value, tuple) else value
    return {key: value for key, value in data.items() if value not in ([], {})} | {
        "models": data["models"]
    }


def _model_entry(model: Model, declared: Mapping[str, Parameter]) -> Any:
    entry: dict[str, Any] = {"model": model.path}
    if model.weight != 1.0:
        entry["weight"] = model.weight
    if model.name != name_of(model.path):
        entry["name"] = model.name
    if model.statistics is not None:
        entry["statistics"] = model.statistics
    if model.parameters:
        entry["parameters"] = _plain(model.parameters, declared)
    if model.rename:
        entry["rename"] = list(model.rename)
    return entry if len(entry) > 1 else model.path


def _override_entry(override: Override, declared: Mapping[str, Parameter]) -> dict[str, Any]:
    model = {"model": override.model} if override.model else {}
    weight = {} if override.weight is None else {"weight": override.weight}
    return {"tensors": override.tensors, **model, **weight, **_plain(override.parameters, declared)}


_NUMBERS = Fraction | Fractions | Real | Integer


def _plain(parameters: Mapping[str, Any], declared: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return parameters as plain data: a number as one, also where a flag gave it as text."""
    plain = {}
    for key, value in parameters.items():
        parameter = declared.get(key)
        if isinstance(value, str) and isinstance(parameter, _NUMBERS):
            with contextlib.suppress(ValueError):  # the plan says what is wrong with it
                value = parameter.parse(value)
        plain[key] = written(value)
    return plain


def to_yaml(recipe: Recipe, *, complete: bool = False) -> str:
    """Return the recipe as the text of a recipe file."""
    import yaml

    data = to_mapping(recipe, complete=complete)
    # Some line breaks of Unicode would read back as spaces unless they are escaped.
    plain = not set("\x85\u2028\u2029\ufeff") & set(json.dumps(data, ensure_ascii=False))
    found = data.pop("inputs", ())
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=plain, width=100)
    return text + inputs.to_yaml(found) if found else text
