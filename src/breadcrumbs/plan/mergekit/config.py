"""A mergekit configuration, checked: which models, which layers, which settings, on which line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from breadcrumbs.plan.mergekit.lines import Node, read
from breadcrumbs.plan.recipe import OUTPUT_DTYPES

Settings = Mapping[str, Node]

_KEYS = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
)


@dataclass(frozen=True)
class Source:
    """One model of a slice. layers: from the first to before the last; None for all."""

    model: str
    layers: tuple[int, int] | None
    parameters: Settings
    node: Node


@dataclass(frozen=True)
class Slice:
    """Models, or runs of their layers of one length, that are merged with each other."""

    sources: tuple[Source, ...]
    base: str | None
    parameters: Settings
    node: Node


@dataclass(frozen=True)
class Tokenizer:
    """What a file says of the tokenizer. source: ``union``, ``base`` or a model; None for union.
    pad_to: of how much the rows are a multiple. tokens: by token where its row is from."""

    source: Node | None
    node: Node
    pad_to: int | None = None
    tokens: Mapping[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """What a file says. scopes: settings that hold everywhere, those that win first.

    node: the whole. notes: what is not followed, since it changes no weight.
    """

    method: Node
    slices: tuple[Slice, ...]
    scopes: tuple[Settings, ...]
    dtype: str | None
    tokenizer: Tokenizer | None
    chat_template: str | None
    node: Node
    notes: tuple[str, ...]


def load(path: Path, root: Node | None = None) -> Config:
    """Return what the file says; RecipeError names the line of what is wrong or not offered.

    root: the one document of it that is meant.
    """
    root = root or read(path)
    top = root.mapping("a mergekit configuration", _KEYS)
    top = {key: node for key, node in top.items() if node.value is not None}
    if "merge_method" not in top:
        root.refuse("there is no merge_method.")
    given = [key for key in ("models", "slices", "modules") if key in top]
    if len(given) != 1:
        (top[given[1]] if given else root).refuse(
            "exactly one of models, slices and modules belongs here."
        )
    base = model(top["base_model"]) if "base_model" in top else None
    scopes = [_settings(top.get("parameters"))]
    body = top
    if given == ["modules"]:
        body, module = _module(top["modules"])
        scopes.insert(0, module)
    if "models" in body:
        slices = [_whole(body["models"], base, top.get("base_model"))]
    else:
        slices = [_slice(node, base) for node in body["slices"].items("slices")]
    return Config(
        top["merge_method"],
        tuple(slices),
        tuple(scopes),
        _dtype(top.get("out_dtype") or top.get("dtype")),
        _tokenizer(top),
        top["chat_template"].text("chat_template") if "chat_template" in top else None,
        root,
        tuple(_notes(top)),
    )


def _tokenizer(top: Mapping[str, Node]) -> Tokenizer | None:
    """Return what is said of the tokenizer, in either way."""
    source, section = top.get("tokenizer_source"), top.get("tokenizer")
    if section is None:
        return None if source is None else Tokenizer(source, source)
    if source is not None:
        section.refuse("tokenizer and tokenizer_source are two ways to say one thing. Give one.")
    body = section.mapping("a tokenizer section", ("source", "pad_to_multiple_of", "tokens"))
    body = {key: node for key, node in body.items() if node.value is not None}
    pad = body.get("pad_to_multiple_of")
    if pad is not None and (type(pad.value) is not int or pad.value < 1):
        pad.refuse("pad_to_multiple_of is a whole number from 1 on, such as 64.")
    tokens = body["tokens"].mapping("tokens") if "tokens" in body else {}
    return Tokenizer(body.get("source"), section, pad.value if pad else None, tokens)


def _notes(top: Mapping[str, Node]) -> list[str]:
    notes = []
    if "dtype" in top and "out_dtype" in top:
        line = top["dtype"].line
        notes.append(f"line {line}: dtype is not used: sums are float64, rounded to out_dtype once")
    return notes


def _module(node: Node) -> tuple[dict[str, Node], Settings]:
    """Return the one module of a configuration, and its settings."""
    modules = node.mapping("modules")
    if len(modules) != 1:
        second = list(modules.values())[1] if modules else node
        second.refuse(
            "more than one module is not offered: give models, which merges all of them alike,"
            " or a recipe with `only` for each."
        )
    ((name, module),) = modules.items()
    body = module.mapping(f"module {name}", ("models", "slices", "parameters"))
    if len({"models", "slices"} & set(body)) != 1:
        module.refuse("a module has models or slices.")
    return body, _settings(body.get("parameters"))


def _whole(node: Node, base: str | None, base_node: Node | None) -> Slice:
    sources = []
    for entry in node.items("models"):
        body = entry.mapping("a model", ("model", "parameters"))
        sources.append(_source(entry, body, None))
    if base is not None and base_node is not None and base not in [s.model for s in sources]:
        sources.append(Source(base, None, {}, base_node))
    return Slice(tuple(sources), base, {}, node)


def _slice(node: Node, base: str | None) -> Slice:
    body = node.mapping("a slice", ("sources", "base_model", "parameters", "residual_weight"))
    if "residual_weight" in body:
        body["residual_weight"].refuse("residual_weight does nothing in mergekit 0.1.5. Remove it.")
    if "sources" not in body:
        node.refuse("a slice has sources.")
    sources = []
    for entry in body["sources"].items("sources"):
        given = entry.mapping("a source", ("model", "layer_range", "parameters"))
        if "layer_range" not in given:
            entry.refuse("a source of a slice has a layer_range, such as [0, 16].")
        ends = given["layer_range"].value
        numbers = [end.value for end in ends] if isinstance(ends, list) else []
        if len(numbers) != 2 or not all(type(n) is int and n >= 0 for n in numbers):
            given["layer_range"].refuse("a layer_range is two whole numbers, such as [0, 16].")
        if numbers[0] >= numbers[1]:
            given["layer_range"].refuse("this layer_range holds no layer.")
        sources.append(_source(entry, given, (numbers[0], numbers[1])))
    lengths = {s.layers[1] - s.layers[0] for s in sources if s.layers}
    if len(lengths) > 1:
        node.refuse(f"the sources of a slice have as many layers each, here {sorted(lengths)}.")
    mine = model(body["base_model"]) if "base_model" in body else base
    return Slice(tuple(sources), mine, _settings(body.get("parameters")), node)


def _source(entry: Node, body: Mapping[str, Node], layers: tuple[int, int] | None) -> Source:
    if "model" not in body:
        entry.refuse("there is no model, the path or hub id.")
    return Source(model(body["model"]), layers, _settings(body.get("parameters")), entry)


def model(node: Node) -> str:
    """Return the path or hub id that a model reference means."""
    if isinstance(node.value, dict):
        body = node.mapping(
            "a model", ("model", "lora", "path", "revision", "override_architecture")
        )
        if "override_architecture" in body and body["override_architecture"].value is not None:
            body["override_architecture"].refuse("override_architecture is not offered.")
        if "lora" in body and body["lora"].value is not None:
            if "model" not in body:
                node.refuse("there is no model that the lora is for.")
            return f"{model(body['model'])}+{model(body['lora'])}"
        if "model" in body:
            return model(body["model"])
        if "path" not in body:
            node.refuse("there is no path.")
        revision = body["revision"].value if "revision" in body else None
        path = body["path"].text("a path")
        return f"{path}@{revision}" if revision else path
    return node.text("a model")  # BASE+ADAPTER too, which `checkpoint.open` opens


def _settings(node: Node | None) -> Settings:
    return {} if node is None or node.value is None else node.mapping("parameters")


def _dtype(node: Node | None) -> str | None:
    if node is None:
        return None
    name = node.text("dtype").removeprefix("torch.")
    if name not in ("float64", "float32", "float16", "bfloat16") or name not in OUTPUT_DTYPES:
        node.refuse(f"dtype {name!r} is not possible. Give float64, float32, float16 or bfloat16.")
    return name
