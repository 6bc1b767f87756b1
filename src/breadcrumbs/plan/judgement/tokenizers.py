"""Tokenizers that differ: the output has one, and the weights of all were trained with their own.

Compared are the ids of tokens (`tokenizer.json`, else `vocab.json` or `vocab.txt` with
`added_tokens.json`), merges, the bytes of other vocabularies, which token ends a text, and settings
of `tokenizer_config.json` that change which tokens a text becomes. Normal forms and the padding
token are not.

Where rows are matched by token (`plan.vocabulary`), which tokens differ is no matter any more.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import chats
from breadcrumbs.checkpoint.tensors import shown
from breadcrumbs.checkpoint.vocabulary import LARGEST, of_model, parsed
from breadcrumbs.errors import CheckpointError
from breadcrumbs.plan.judgement import beside, modules
from breadcrumbs.plan.plan import Plan

_SHOWN = 5
_TOKENIZER = "tokenizer.json"
_VOCABULARIES = ("vocab.json", "vocab.txt")
_MERGES = "merges.txt"
#: Vocabularies that are compared byte by byte, by their endings.
_BINARY = (".model", ".spm", ".tiktoken", ".codes", ".bpe")
#: And by their names: Mistral's, FSMT's of two languages, fairseq's, LUKE's of entities.
_WHOLE = ("tekken.json", "vocab-src.json", "vocab-tgt.json", "dict.txt", "entity_vocab.json")
_ENDS = ("eos_token", "bos_token")
#: Settings by which the same text becomes other tokens.
_SETTINGS = ("add_bos_token", "add_eos_token", "do_lower_case")
_OTHER_CHAT, _NO_CHAT = "another chat template", "a chat template, where that has none"
#: What may be all that differs, which `--chat-template` takes by itself.
_CHATS = ([_OTHER_CHAT], [_NO_CHAT])
#: The ids of tokens, and the merges if there are any.
Said = tuple[dict[str, Any], list[Any] | None]


def warnings(plan: Plan, packing: bool = False) -> list[str]:
    """Return a line for each model whose tokenizer is not that which the merged model gets.

    packing: whether nothing is merged yet, but task vectors are written.
    """
    labels = {source.label: source for source in plan.origins}
    target = labels.get(plan.recipe.tokenizer or "", plan.target)
    if plan.words is not None:
        target = plan.words.tokenizer or target
    folder = beside.folder_of(target)
    if folder is None:
        return []
    found: list[str] = []
    read, tokens = functools.cache(_said), plan.words is None  # of the base once
    for source, path in beside.others(plan):
        what = [] if path == folder else list(differences(folder, path, read, tokens))
        for part in modules.folders(folder) if path != folder else ():
            inner = differences(folder / part, path / part, read)
            what += [f"{part}: {text}" for text in inner]
        if plan.recipe.chat_template is not None:
            what = [text for text in what if "chat template" not in text]
        if what:
            option = "--chat-template" if what in _CHATS else "--tokenizer"
            advice = (
                f"Give {option} {source.label} if the merged model is for its texts"
                if plan.recipe.tokenizer is None or what in _CHATS
                else "Merge models that share one tokenizer"
            )
            gets = "which the merged model gets"
            if packing:
                gets, advice = "on which it is packed", _later(option, source.label)
            found.append(
                f"{source.label}: its tokenizer is not that of {target.label}, {gets}:"
                f" {'; '.join(what)}. {advice}"
            )
    return found


def _later(option: str, label: str) -> str:
    """Return what to do where a model is packed, which has none of these options."""
    if option == "--tokenizer":
        return "A merge for its texts needs its tokenizer: merge the model itself, with --tokenizer"
    return f"When you merge it, give --chat-template {label} if the merged model is for its texts"


def differences(
    base: Path, model: Path, read: Callable[[Path], Said], tokens: bool = True
) -> Iterator[str]:
    """Yield in words what differs between the tokenizers in two folders, as far as both have it.

    read: the path of a tokenizer.json -> what it says. tokens: whether it matters which there are.
    """
    mine, its = base / _TOKENIZER, model / _TOKENIZER
    both = beside.size(mine) >= 0 and beside.size(its) >= 0
    if both and not beside.same(mine, its):
        a, b = read(mine), read(its)
        yield from _of_tokens(a, b) if tokens else _of_merges(a, b)
    elif not both and tokens:
        yield from _of_files(base, model)
    if beside.size(its) >= 0 or beside.size(model / "tokenizer_config.json") >= 0:
        yield from _of_ends(base, model)
    yield from _of_settings(base, model)


def _of_files(base: Path, model: Path) -> Iterator[str]:
    """Yield what differs between vocabularies in files of their own."""
    for name in _VOCABULARIES:
        mine, its = base / name, model / name
        if beside.size(mine) >= 0 and beside.size(its) >= 0:
            more = [folder / "added_tokens.json" for folder in (base, model)]
            if not beside.same(mine, its) or not beside.same(*more):
                yield from _of_tokens((_vocabulary(mine), None), (_vocabulary(its), None))
    names = [_MERGES, *sorted(_binary(base) & _binary(model))]
    for name in names:
        sizes = beside.size(base / name), beside.size(model / name)
        if min(sizes) >= 0 and not beside.same(base / name, model / name):
            yield f"{name} differs"


def _binary(folder: Path) -> set[str]:
    try:
        files = {path.name for path in folder.iterdir() if path.is_file()}
        return {name for name in files if name.endswith(_BINARY) or name in _WHOLE}
    except OSError:
        return set()


def _of_tokens(mine: Said, its: Said) -> Iterator[str]:
    """Yield which tokens have other ids."""
    a, b = mine[0], its[0]
    if not a or not b:
        return
    groups = (
        ("tokens that only it has", [token for token in b if token not in a]),
        ("tokens that it lacks", [token for token in a if token not in b]),
        ("tokens with other ids", [token for token in b if token in a and a[token] != b[token]]),
    )
    for what, tokens in groups:
        if tokens:
            more = f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else ""
            yield f"{what}: {', '.join(map(shown, tokens[:_SHOWN]))}{more}"
    yield from _of_merges(mine, its)


def _of_merges(mine: Said, its: Said) -> Iterator[str]:
    """Yield whether the merges differ."""
    if mine[1] is not None and its[1] is not None and mine[1] != its[1]:
        yield f"other merges ({len(its[1]):,}, not {len(mine[1]):,})"


def _said(path: Path) -> Said:
    """Return the ids of a tokenizer.json by token, and its merges, None if there are none."""
    data = parsed(path)
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(model, dict):
        return {}, None
    pieces = model.get("vocab")
    ids = of_model(pieces) if isinstance(pieces, list) else _ids(pieces)
    added = data.get("added_tokens")
    for row in added if isinstance(added, list) else ():
        if isinstance(row, dict) and isinstance(row.get("content"), str):
            ids[row["content"]] = row.get("id", -1)
    merges = model.get("merges")
    if not isinstance(merges, list):
        return ids, None
    return ids, [" ".join(map(str, m)) if isinstance(m, list) else m for m in merges]


def _ids(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, dict) else {}


def _vocabulary(path: Path) -> dict[str, Any]:
    """Return the ids in a vocab.json or the lines of a vocab.txt, with added_tokens.json."""
    ids: dict[str, Any] = {}
    if path.suffix == ".json":
        ids = _ids(parsed(path))
    elif 0 <= beside.size(path) <= LARGEST:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        ids = {line: i for i, line in enumerate(text.splitlines())}
    return ids | _ids(parsed(path.parent / "added_tokens.json"))


def _of_ends(base: Path, model: Path) -> Iterator[str]:
    """Yield which token begins or ends a text, where both say it and differently."""
    mine, its = _ends(base), _ends(model)
    for key in dict.fromkeys((*mine, *its)):
        a, b = mine.get(key), its.get(key)
        if a is not None and b is not None and a != b:
            yield f"{key} is {shown(b)}, not {shown(a)}"


def _of_settings(base: Path, model: Path) -> Iterator[str]:
    """Yield which settings differ where both have them, and a chat template of the model's own."""
    mine, its = (beside.mapping(folder / "tokenizer_config.json") for folder in (base, model))
    for key in _SETTINGS:
        a, b = mine.get(key), its.get(key)
        if isinstance(a, bool) and isinstance(b, bool) and a != b:
            yield f"{key} is {json.dumps(b)}, not {json.dumps(a)}"
    chats = _chat(base), _chat(model)
    if chats[1] and chats[0] != chats[1]:
        yield _OTHER_CHAT if chats[0] else _NO_CHAT


def _chat(folder: Path) -> str:
    """Return the chat template of a folder, or all if none is the default; empty if it has none."""
    found: dict[str, str] = {}
    with suppress(CheckpointError):
        found = chats.of_folder(folder)
    text = found.get(chats.DEFAULT) or (json.dumps(found) if found else "")
    return text.strip()


def _ends(folder: Path) -> dict[str, Any]:
    """Return the tokens of `_ENDS` of a folder, and the ids at which generation stops."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        said: Mapping[str, Any] = beside.mapping(folder / name)
        for key in _ENDS:
            token = said.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[key] = token
    for name in ("config.json", "generation_config.json"):
        stops = beside.mapping(folder / name).get("eos_token_id")
        if stops is not None:
            ids = stops if isinstance(stops, list) else [stops]
            found["eos_token_id"] = sorted(i for i in ids if isinstance(i, int))
    return found
