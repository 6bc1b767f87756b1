"""What a configuration says of the tokenizer -> the vocabulary of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import parts
from breadcrumbs.checkpoint import vocabulary as tokens
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.plan.mergekit import config as configs
from breadcrumbs.plan.mergekit.config import Config, Tokenizer
from breadcrumbs.plan.mergekit.lines import Node
from breadcrumbs.plan.recipe import beside


def settings(config: Config, path: Path, found: Sequence[Checkpoint]) -> dict[str, Any]:
    """Return what a recipe says of tokenizer and vocabulary; RecipeError names the line.

    Where all models have one vocabulary, nothing but whose tokenizer is copied.
    """
    asked = config.tokenizer
    if asked is None:
        return {}
    node = asked.source or asked.node
    every = {part.label: part for source in found for part in source.parts or (source,)}
    source = _source(asked)
    wanted = _wanted(config, path, source, node, list(every))
    folders = {label: model.folder for label, model in every.items()}
    if asked.pad_to is None and not asked.tokens and _are_one(wanted, folders, node):
        return {"tokenizer": wanted}
    for label, folder in folders.items():
        known = tokens.read(folder)
        if known is None or not known.whole:
            node.refuse(f"{label}: its tokens cannot be read, so rows cannot be matched by them.")
    said: dict[str, Any] = {"vocabulary": "union"}
    if source == "union":
        said["tokenizer"] = wanted
    else:
        said["vocabulary"] = "base" if wanted == next(iter(every)) else wanted
    said |= {"pad_to": asked.pad_to} if asked.pad_to is not None else {}
    return said | {"tokens": {token: _row(token, n, path) for token, n in asked.tokens.items()}}


def _source(asked: Tokenizer) -> str | None:
    """Return ``union`` or ``base``; None for a model."""
    if asked.source is None:
        return "union"
    value = asked.source.value
    return value if value in ("union", "base") else None


def _wanted(
    config: Config, path: Path, source: str | None, node: Node, every: Sequence[str]
) -> str:
    """Return the model whose tokenizer is asked for, or from which the union begins."""
    bases = {piece.base for piece in config.slices}
    only = next(iter(bases)) if len(bases) == 1 else None
    wanted = only if source in ("union", "base") else configs.model(node)
    if source == "union" and wanted is None:
        wanted = every[0]
    if wanted is None:
        node.refuse("there is no base_model to take the tokenizer of, or more than one.")
    wanted = beside(path, wanted)
    if wanted not in every:
        node.refuse(
            f"{wanted} is not one of the models. Give base, union or one of them, and copy the"
            " tokenizer of another model by hand."
        )
    return wanted


def _row(token: str, node: Node, path: Path) -> dict[str, Any]:
    """Return where the row of a token is from, as a recipe says it."""
    body = node.mapping(f"the token {token!r}", ("source", "force"))
    force = body["force"].value if "force" in body else False
    if not isinstance(force, bool):
        body["force"].refuse(f"force: {force!r} is neither true nor false.")
    source = body.get("source")
    if source is None or source.value is None:
        node.refuse(f"the token {token!r} has no source: a model, or a mapping with a kind.")
    said: dict[str, Any] = {"force": True} if force else {}
    kind = source.value.get("kind") if isinstance(source.value, dict) else None
    if kind is None:
        return said | {"model": beside(path, configs.model(source))}
    inside = source.mapping("a source", ("kind", "model", "token", "token_id"))
    if kind.value == "zero":
        return said | {"zero": True}
    if kind.value != "model_token":
        kind.refuse(f"kind {kind.value!r} is not possible. Give zero or model_token.")
    if "model" not in inside or len({"token", "token_id"} & set(inside)) != 1:
        source.refuse("a model_token has a model, and token or token_id.")
    said["model"] = beside(path, configs.model(inside["model"]))
    if "token" in inside:
        return said | {"token": inside["token"].text("a token")}
    number = inside["token_id"]
    if type(number.value) is not int or number.value < 0:
        number.refuse("a token_id is a whole number from 0 on.")
    return said | {"id": number.value}


def _are_one(wanted: str, folders: dict[str, Path | None], node: Node) -> bool:
    """Return whether all models have one vocabulary; RecipeError where there is none to tell."""
    found = {label: _vocabulary(folder) for label, folder in folders.items()}
    for label in (wanted, *found):
        if found[label] is None:
            node.refuse(f"{label}: there is no tokenizer to compare.")
    return all(mine == found[wanted] for mine in found.values())


def _vocabulary(folder: Path | None) -> Any:
    """Return something that is equal for equal vocabularies; None if there is no tokenizer.

    The tokens and their numbers; else the bytes of the files that hold them.
    """
    known = tokens.read(folder)
    if folder is None or (known is not None and known.whole):
        return None if known is None else known.ids
    names = [path.name for path in folder.iterdir() if path.is_file() and _holds(path.name)]
    found = {name: (folder / name).read_bytes() for name in sorted(names)}
    return found or None


def _holds(name: str) -> bool:
    """Whether a file holds the tokens of a tokenizer, or numbers for some."""
    about = name.startswith(("tokenizer_config", "special_tokens", "chat_template"))
    return parts.is_tokenizer(name) and not about and not name.endswith(".py")
