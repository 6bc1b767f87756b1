"""A folder of weights: one file, or shards and the index that lists them.

Of several formats in one folder, the first of these is taken, as `transformers` does:

    model.safetensors, model.safetensors.index.json
    diffusion_pytorch_model.safetensors, diffusion_pytorch_model.safetensors.index.json
    another *.safetensors.index.json, if it is the only one
    another *.safetensors, if it is the only one
    pytorch_model.bin, pytorch_model.bin.index.json
    diffusion_pytorch_model.bin, diffusion_pytorch_model.bin.index.json
    another pickle, if it is the only one that is none of a training's own files

A variant (``model.fp16.safetensors``, its index ``model.safetensors.index.fp16.json``) is another
one. It is left out where there are such weights of the plain name, and a note says so.

Where an index should be and is none, shards that say by their names that they are all there
(``model-00001-of-00002.safetensors``) are read together, and a note says so.

An index is a JSON object whose ``weight_map`` gives the file of each tensor. It must tell the
truth: every shard is there, and the shards together hold exactly the tensors that it lists, each
where it says. A shard is a plain name in the folder of the index; the file of that name may be a
link to anywhere, as in the cache of a hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from breadcrumbs.checkpoint import foreign, layout, lookalikes, shards, wrapped
from breadcrumbs.checkpoint.files import File
from breadcrumbs.checkpoint.quantised.refusing import check_file
from breadcrumbs.checkpoint.safetensors import MAX_JSON, open_safetensors, parse_json
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError, listing

INDEX = ".index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".tar")
#: Files of one model that hold a slice of each tensor: as Meta gives Llama, as Megatron saves.
_SLICE = re.compile(r"(consolidated\.|mp_rank_)\d+((?:_model_states)?\.(?:pth|pt|safetensors))")
#: Pickles that training keeps beside the weights.
_LEFTOVERS = re.compile(
    r"(optimizer|scheduler|scaler|training_args|rng_state|random_states?|trainer_state|args)"
    r"[\w.-]*|.*optim_states\.pt|.*_(optimizer|scheduler)\.\w+"
)


def open_folder(path: str | os.PathLike[str], pick: tuple[str, ...] = ()) -> Checkpoint:
    """Return the checkpoint in the folder ``path``; CheckpointError when there is not just one.

    pick: as for `open_file`.
    """
    folder = Path(path)
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be listed: {error.strerror}.") from None
    try:
        found = weight_files(names, str(path))
    except NoWeightsError as error:
        inside = lookalikes.instead(folder)
        raise CheckpointError(f"{path}: {inside}" if inside else str(error)) from None
    if len(found) > 1:
        opened = _open_shards([folder / name for name in found], str(path))
    else:
        opened = open_file(folder / found[0], label=str(path), pick=pick)
    left = sorted({variant for name in names if (variant := layout.variant(name))})
    if left and not any(map(layout.variant, found)):
        plural = "s are" if len(left) > 1 else " is"
        note = f"the variant{plural} left out: {', '.join(left)}; the plain weights are read"
        opened = replace(opened, notes=(*opened.notes, note))
    return opened


def open_file(path: Path, label: str | None = None, pick: tuple[str, ...] = ()) -> Checkpoint:
    """Return the checkpoint in ``path``: a safetensors file, a pickle, or an index of either.

    label: what the user called it, when that is the folder in which it lies. pick: the keys under
    which the tensors of a pickle lie.
    """
    check_file(path)
    _check_slice(path)
    if is_index(path.name):
        _check_no_keys(path, pick)
        return _open_index(path, label)
    if path.suffix == ".safetensors" or foreign.is_safetensors(path):
        _check_no_keys(path, pick)
        checkpoint = open_safetensors(path)
    elif path.suffix in PICKLES or foreign.is_pickle(path):
        from breadcrumbs.checkpoint.pickles import open_pickle

        checkpoint = open_pickle(path, pick)
    else:
        kind = foreign.called(path) or (
            "is not a kind of weights that is read here. Give a folder, a .safetensors file or a"
            f" {', '.join(PICKLES)} pickle."
        )
        raise CheckpointError(f"{path}: {kind}")
    if not checkpoint.tensors:
        checkpoint.close()
        raise CheckpointError(f"{path}: holds no tensors.")
    return _joined([checkpoint], path, label)


class AdapterError(CheckpointError):
    """The weights among the files of a folder are those of an adapter."""


class NoWeightsError(CheckpointError):
    """There are no weights among the files of a folder; perhaps in a folder in it."""


def weight_files(names: Iterable[str], where: str) -> list[str]:
    """Return which of the file ``names`` of a folder are the weights: one, an index, or shards.

    ``where`` begins the message of the CheckpointError raised when none or several could be.
    """
    names = sorted(name for name in names if not name.startswith("."))
    for stem in ("model.safetensors", "diffusion_pytorch_model.safetensors"):
        for name in (stem, stem + INDEX):
            if name in names:
                return [name]
    if any(layout.variant(name) == "" for name in names):
        names = [name for name in names if not layout.variant(name)]
    adapters = [name for name in names if name.startswith("adapter_model.")]
    names = [name for name in names if name not in adapters]
    if adapters and not any(name.startswith("pytorch_model.bin") for name in names):
        raise AdapterError(
            f"{where}: is an adapter ({adapters[0]}), not a whole model. Give BASE+ADAPTER for the"
            " model with it."
        )
    indexes = [name for name in names if layout.indexed(name) == ".safetensors"]
    for found in (indexes, [name for name in names if name.endswith(".safetensors")]):
        # Mistral gives the same weights twice, under names of its own too
        found = [name for name in found if not name.startswith("consolidated.")] or found
        if found and all(map(shards.is_shard, found)):
            return shards.whole(found, where)
        if len(found) == 1:
            return found
        if found:
            _refuse_slices(found, where)
            raise CheckpointError(
                f"{where}: holds several models or shards without an index: {listing(found)}. "
                "Give the path of one of them."
            )
    for stem in ("pytorch_model.bin", "diffusion_pytorch_model.bin"):
        for name in (stem, stem + INDEX):
            if name in names:
                return [name]
    indexes = [name for name in names if layout.indexed(name) == ".bin" and layout.variant(name)]
    if len(indexes) == 1:
        return indexes
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    pickles = [name for name in pickles if not _LEFTOVERS.fullmatch(name)]
    if pickles and all(map(shards.is_shard, pickles)):
        return shards.whole(pickles, where)
    whole = not foreign.among(pickles)
    if len(pickles) == 1 and whole:
        return pickles
    if pickles and whole:
        _refuse_slices(pickles, where)
        raise CheckpointError(
            f"{where}: holds several checkpoints: {listing(pickles)}. Give the path of one of them."
        )
    found = f"Found {listing(names)}" if names else "It has no files"
    known = foreign.among(names)
    advice = known or " Give a folder with weights, or the path of a weight file."
    raise NoWeightsError(
        f"{where}: holds no model.safetensors, model.safetensors.index.json or pytorch_model.bin. "
        f"{found}.{advice}"
    )


def _refuse_slices(names: list[str], where: str) -> None:
    """Raise if all of several files are slices of one model, none of which is a model alone."""
    if all(map(_SLICE.fullmatch, names)):
        raise CheckpointError(
            f"{where}: holds one model in {len(names)} files with a slice of each tensor:"
            f" {listing(names)}. Give the model as transformers has it, with whole tensors."
        )


def _check_slice(path: Path) -> None:
    """Raise if the file is a slice of a model and others lie beside it."""
    found = _SLICE.fullmatch(path.name)
    if found:
        names = sorted(it.name for it in path.parent.glob(f"{found[1]}*{found[2]}"))
        names = [name for name in names if _SLICE.fullmatch(name)]
        if len(names) > 1:
            _refuse_slices(names, str(path.parent))


def read_index(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the ``weight_map`` of the index ``path``, tensor to shard; else CheckpointError."""
    name = Path(path).name
    suffix = layout.indexed(name)
    weights = f"model{suffix}" if suffix else name.removesuffix(INDEX)
    return parse_index(_index_text(path), weights, str(path))


def _index_text(path: str | os.PathLike[str]) -> bytes:
    with File(path) as file:
        if file.size > MAX_JSON:
            raise CheckpointError(
                f"{path}: has {file.size} bytes, more than the {MAX_JSON} that an index may have."
            )
        return file.read(0, file.size)


def _index_metadata(path: Path) -> dict[str, str]:
    """Return the texts among the metadata of an index."""
    said = parse_json(_index_text(path), f"{path}: the index").get("metadata")
    said = said if isinstance(said, dict) else {}
    return {key: text for key, text in said.items() if isinstance(text, str)}


def is_index(name: str) -> bool:
    """Whether a file of this name is an index, of whatever variant."""
    return name.endswith(INDEX) or bool(layout.indexed(name))


def parse_index(text: bytes, weights: str, where: str) -> dict[str, str]:
    """Return the ``weight_map`` in the JSON ``text`` of the index of ``weights`` (a file name)."""
    weight_map = parse_json(text, f"{where}: the index").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{where}: has no 'weight_map' that gives the file of each tensor. It is not an index."
        )
    suffix = Path(weights).suffix
    known: set[str] = set()  # few files of many tensors, each looked at once
    for name, shard in weight_map.items():
        if isinstance(shard, str) and shard in known:
            continue
        if not isinstance(shard, str) or not is_plain(shard) or not shard.endswith(suffix):
            raise CheckpointError(
                f"{where}: puts tensor {shown(name)} in {shown(shard)}. A shard is the plain name "
                f"of a {suffix} file in the same folder."
            )
        known.add(shard)
    return weight_map


def is_plain(name: str) -> bool:
    """Whether ``name`` can only mean a file in the folder itself, on any system."""
    return name.isprintable() and name[:1] != "." and not set(name) & set('/\\:*?"<>|')


def _open_index(path: Path, label: str | None) -> Checkpoint:
    weight_map = read_index(path)
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not (path.parent / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{path}: names {len(missing)} of {len(shards)} shards that are not there: "
            f"{listing(map(_cut, missing))}. Download or copy them."
        )
    with ExitStack() as opened:
        parts = []
        for shard in shards:
            part = open_file(path.parent / shard)
            opened.callback(part.close)
            parts.append(part)
        _check_index(path, weight_map, shards, parts)
        checkpoint = replace(_joined(parts, path, label), metadata=_index_metadata(path))
        opened.pop_all()
    return checkpoint


def _open_shards(paths: list[Path], label: str) -> Checkpoint:
    """Return shards that no index lists as one checkpoint."""
    with ExitStack() as opened:
        parts = []
        found: dict[str, Path] = {}
        for path in paths:
            part = open_file(path)
            opened.callback(part.close)
            parts.append(part)
            for name in part.tensors:
                if name in found:
                    raise CheckpointError(
                        f"{path.parent}: tensor {shown(name)} is in {found[name].name} and in"
                        f" {path.name}. They are not shards of one model."
                    )
                found[name] = path
        note = f"there is no index, so its {len(parts)} shards are read by their names"
        checkpoint = replace(_joined(parts, paths[0], label), notes=(note, *_notes(parts)))
        opened.pop_all()
    return checkpoint


def _notes(parts: list[Checkpoint]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for part in parts for note in part.notes))


def _check_no_keys(path: Path, pick: tuple[str, ...]) -> None:
    if pick:
        keys = shown(wrapped.PICK.join(pick))
        raise CheckpointError(
            f"{path}: holds tensors alone, so there is nothing under {keys} in it. Give"
            f" the path without {wrapped.PICK!r}."
        )


def _check_index(
    path: Path, weight_map: dict[str, str], shards: list[str], parts: list[Checkpoint]
) -> None:
    """Raise unless each of ``parts``, the open ``shards``, holds what the index says it holds."""
    found: dict[str, str] = {}
    for shard, part in zip(shards, parts, strict=True):
        unlisted = [name for name in part.tensors if name not in weight_map]
        if unlisted:
            raise CheckpointError(
                f"{path}: does not list what {shard} holds: {listing(map(_cut, unlisted))}. "
                "The index and the shards are of different models."
            )
        for name in part.tensors:
            if name in found:
                raise CheckpointError(
                    f"{path.parent}: tensor {shown(name)} is in {found[name]} and in {shard}. "
                    "They are not shards of one model."
                )
            found[name] = shard
    for name, shard in weight_map.items():
        if found.get(name) != shard:
            instead = f" but in {found[name]}" if name in found else ""
            raise CheckpointError(
                f"{path}: puts tensor {shown(name)} in {shard}, but it is not there{instead}. "
                "The index and the shards are of different models."
            )


def _joined(parts: list[Checkpoint], path: Path, label: str | None) -> Checkpoint:
    """Return ``parts``, opened because of the file ``path``, as one checkpoint."""
    tensors: dict[str, Tensor] = {}
    for part in parts:
        tensors.update(part.tensors)
    files = tuple(file for part in parts for file in part.files)

    def close() -> None:
        for part in parts:
            part.close()

    folder = path.parent if label is not None or is_index(path.name) else None
    metadata = parts[0].metadata if len(parts) == 1 else {}
    within = parts[0].within if len(parts) == 1 else ()
    return Checkpoint(
        label or str(path),
        tensors,
        files,
        folder=folder,
        metadata=metadata,
        close=close,
        within=within,
        notes=_notes(parts),
    )


def _cut(name: str) -> str:
    return name if len(name) <= 160 else name[:80] + "..." + name[-77:]
