"""A model elsewhere as a folder here: its small files whole, its weights as mirrors."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from breadcrumbs.checkpoint import mirrors, parts
from breadcrumbs.checkpoint.beside import RECIPE
from breadcrumbs.checkpoint.folder import AdapterError, is_index, is_plain, parse_index
from breadcrumbs.checkpoint.mirrors import Identity, Mirror
from breadcrumbs.checkpoint.places import Address, parsed, stores
from breadcrumbs.checkpoint.places.stores import Found, NotThereError, Store
from breadcrumbs.errors import CheckpointError

#: Lists of folders that are not looked into where a server lists none.
_PIPELINES = (parts.COMPONENTS, parts.ROUTES)
#: Small files that are asked for by name where a server lists none.
_NAMES = (
    "model.safetensors.index.json", "config.json", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "preprocessor_config.json",
    "processor_config.json", "spiece.model", "sentence_bert_config.json",
    "config_sentence_transformers.json", "data_config.json", "LICENSE", "LICENSE.txt", "NOTICE",
    "adapter_config.json", "README.md", RECIPE, parts.MODULES, *_PIPELINES,
)  # fmt: skip
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_AT_ONCE = 8


@dataclass(frozen=True)
class Elsewhere:
    """The tree of a model at a URL. found: its files by path; kept: those that are read."""

    where: str
    store: Store
    root: str
    found: dict[str, Found]
    kept: dict[str, bytes] = field(default_factory=dict)

    def files(self, folder: str) -> list[str]:
        start = f"{folder}/" if folder else ""
        inside = [path[len(start) :] for path in self.found if path.startswith(start)]
        return sorted(name for name in inside if "/" not in name)

    def is_folder(self, folder: str) -> bool:
        return any(path.startswith(f"{folder}/") for path in self.found)

    def size(self, path: str) -> int | None:
        return self.found[path].size if path in self.found else None

    def read(self, path: str) -> bytes:
        if path not in self.kept:
            self.kept[path] = self.store.read(self.at(path), self.found[path])[0]
        return self.kept[path]

    def at(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root else path

    def wanted(self) -> list[str]:
        """Return the paths of all that the model consists of."""
        try:
            weights = parts.weights(self)
        except AdapterError:
            tokenizer = [name for name in self.files("") if parts.is_tokenizer(name)]
            mine = [*_ADAPTER, *tokenizer, "README.md"]
            return [name for name in mine if name in self.found]
        found = []
        for part in ("", *parts.folders(self)):
            mine = weights.get(part, [])
            for name in mine:
                if is_index(name):
                    path = f"{part}/{name}" if part else name
                    shards = parse_index(self.read(path), "model.safetensors", self._called(path))
                    mine = [*mine, *sorted(set(shards.values()))]
            mine = [*mine, *parts.files(self, part), *parts.extra(self, part)]
            found += [f"{part}/{name}" if part else name for name in mine]
        found += [name for name in ("README.md", RECIPE) if name in self.found]
        return [path for path in dict.fromkeys(found) if path in self.found]

    def _called(self, path: str) -> str:
        return self.store.url(self.at(path))


_LOCK = threading.Lock()


def here(text: str) -> tuple[Path, str]:
    """Return the file or folder of this machine that stands for a URL, and the URL as recipes name
    it: of a hub at the commit that was found.

    What was fetched before in this process is used again, if all files are the same still.
    CheckpointError where there is no model, or it is no safetensors.
    """
    address, commit = parsed(text), ""
    if address.scheme == "hf":
        commit, found = _of_hub(address)
        address = replace(address, revision=commit)
    store = stores.store(address, commit)
    root, kept = address.path, {}
    if address.scheme != "hf":
        if address.is_file:
            root, _, name = address.path.rpartition("/")
            found = {name: store.head(address.path)}
        elif address.scheme.startswith("http"):
            found, kept = _looked_for(store, root)
        else:
            found = store.listed(root)
    if not found:
        raise CheckpointError(f"{text}: there are no files of a model. Check the name.")
    if stores.CLAIM in found:
        raise CheckpointError(
            f"{text}: a merge into it is under way, or was interrupted, so it is not whole. Wait"
            " for it, or merge again with --resume."
        )
    tree = Elsewhere(text, store, root, found, kept)
    with _LOCK:
        before, folder = mirrors.known().get(str(address), ({}, Path()))
        if before != found or _says_nothing(found):
            folder = _mirrored(tree, [address.name] if address.is_file else tree.wanted(), address)
            mirrors.known()[str(address)] = found, folder
    return folder / address.name if address.is_file else folder, str(address)


def _says_nothing(found: dict[str, Found]) -> bool:
    return not all(one.identity.kind for one in found.values())


def _mirrored(tree: Elsewhere, wanted: list[str], address: Address) -> Path:
    """Return a new folder with the files of a model, the weights among them as mirrors."""
    weights = [path for path in wanted if path.endswith(".safetensors")]
    if not weights:
        raise CheckpointError(
            f"{tree.where}: holds no weights in safetensors, which alone are read from URLs."
            " Download it, and give the path."
        )
    folder = mirrors.new_folder() / (address.name if not address.is_file else "model")
    for path in wanted:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    small = [path for path in wanted if path not in weights]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for path, data in zip(small, pool.map(tree.read, small), strict=True):
            (folder / path).write_bytes(data)
            mirrors.named(folder / path, tree.store.url(tree.at(path)))
    for path in weights:
        at, found = tree.at(path), tree.found[path]
        fetch = partial(tree.store.fetch, at, found)
        mirrors.add(Mirror(tree.store.url(at), folder / path, found.size, found.identity, fetch))
    return folder


def _looked_for(store: Store, root: str) -> tuple[dict[str, Found], dict[str, bytes]]:
    """Return the files of a model on a server that lists none, and those of them that were read."""

    def ask(name: str) -> tuple[bytes, Found] | None:
        try:
            return store.read(f"{root}/{name}" if root else name)
        except NotThereError:
            return None

    def head(name: str) -> Found | None:
        try:
            return store.head(f"{root}/{name}" if root else name)
        except NotThereError:
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        both = zip(_NAMES, pool.map(ask, _NAMES), strict=True)
        texts = {name: it for name, it in both if it is not None}
        index = _NAMES[0]
        if index in texts:
            names = sorted(set(parse_index(texts[index][0], "model.safetensors", index).values()))
        else:
            names = ["model.safetensors", _ADAPTER[1]]
        heads = zip(names, pool.map(head, names), strict=True)
        found = {name: it for name, it in heads if it is not None}
    if not found:
        raise CheckpointError(
            f"{store.url(root)}: has neither {names[0]} nor {_NAMES[0]}. Web servers list no files:"
            " give the URL of a .safetensors file, or of a folder with these names."
        )
    for name in texts.keys() & set(_PIPELINES):
        raise CheckpointError(
            f"{store.url(root)}: has parts in folders, by its {name}, and its server lists no"
            " files. Give the URL of one part, or download it."
        )
    for part in _modules(texts[parts.MODULES][0]) if parts.MODULES in texts else ():
        if config := ask(f"{part}/config.json"):
            texts[f"{part}/config.json"] = config
        if weights := head(f"{part}/model.safetensors"):
            found[f"{part}/model.safetensors"] = weights
    found |= {name: it for name, (_, it) in texts.items()}
    return found, {name: data for name, (data, _) in texts.items()}


def _modules(text: bytes) -> list[str]:
    """Return the folders that a ``modules.json`` names, none if it is not understood: of that
    `parts` says what is wrong."""
    try:
        paths = [module["path"] for module in json.loads(text)]
    except (ValueError, TypeError, KeyError):
        return []
    return [path for path in paths if path and isinstance(path, str) and is_plain(path)]


def _of_hub(address: Address) -> tuple[str, dict[str, Found]]:
    """Return the commit that a revision of a hub means, and the files there."""
    from breadcrumbs.checkpoint import hub

    commit, files = hub.listed(address.root, address.revision)
    return commit, {
        path: Found(size, Identity("sha256", sha) if sha else Identity())
        for path, (size, sha) in files.items()
    }
