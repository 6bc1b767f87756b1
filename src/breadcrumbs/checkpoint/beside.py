"""What lies beside the weights of a model: copied with them, or named where it cannot be merged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from breadcrumbs.checkpoint import configs, digests, layout, parts
from breadcrumbs.checkpoint.files import File, same_bytes
from breadcrumbs.checkpoint.foreign import is_pointer
from breadcrumbs.checkpoint.parts import Local
from breadcrumbs.checkpoint.quantised.config import CONFIG, SIDE, strip
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import CheckpointError, listing

RECIPE = "breadcrumbs.yaml"
_STEP = 1 << 20


def files(folder: Path) -> list[str]:
    """Return what goes with the weights of the model in a folder: paths in it, ``/`` between."""
    tree = Local(folder)
    return [
        f"{part}/{name}" if part else name
        for part in ("", *parts.folders(tree))
        for name in parts.files(tree, part)
    ]


def copy(
    base: Checkpoint,
    output: Path,
    tokenizer: Checkpoint | None = None,
    quantised: bool = False,
) -> None:
    """Copy what goes with the weights of a model into the folder of an output.

    tokenizer: the model whose tokenizer is copied instead of the base's. quantised: whether the
    weights are, as the base's; else what says that they are stays behind. What was written there
    already stays. CheckpointError if a file cannot be read.
    """
    for part in parts.folders(Local(base.folder)) if base.folder else ():
        if tokenizer is None or Path(part).name != parts.TEMPLATES:
            _make(output / part)
    if tokenizer is not None and tokenizer.folder is not None:
        for path in _tokenizer_files(tokenizer.folder):
            if Path(path).parent.name == parts.TEMPLATES:
                _make((output / path).parent)
            _put(tokenizer.folder, output, path)
    if base.folder is None:
        return
    for path in files(base.folder):
        name = path.rpartition("/")[2]
        if (tokenizer is None or not parts.is_tokenizer(path)) and (quantised or name not in SIDE):
            _put(base.folder, output, path)
            if name == CONFIG and not quantised and (output / path).is_file():
                strip(output / path)
    for path in _extra(base):
        _put(base.folder, output, path)


def _tokenizer_files(folder: Path) -> list[str]:
    """Return what the tokenizer of a model consists of: its files, and the code that they name."""
    code = parts.tokenizer_code(Local(folder))
    return [path for path in files(folder) if parts.is_tokenizer(path) or path in code]


def with_own_folder(model: Checkpoint) -> Checkpoint:
    """Return a model with the folder of its adapter as its own, if a tokenizer lies there."""
    folder = model.inserted.folder if model.inserted else None
    own = replace(model, folder=folder)
    return own if folder is not None and has_tokenizer(own) else model


def has_tokenizer(model: Checkpoint) -> bool:
    """Whether files of a tokenizer lie beside the weights of a model."""
    return model.folder is not None and any(map(parts.is_tokenizer, files(model.folder)))


def _make(folder: Path) -> None:
    """Make a folder, unless a file that we wrote has its name."""
    if not any(above.is_file() for above in (folder, *folder.parents)):
        folder.mkdir(parents=True, exist_ok=True)


def _put(source: Path, output: Path, path: str) -> None:
    target = output / path
    if target.parent.is_dir():
        _copy(source / path, target)
        if target.name in configs.PLACED:
            configs.without_paths(target)


def _copy(source: Path, target: Path) -> None:
    """Copy the bytes of a file; CheckpointError if it is ``source`` that makes trouble."""
    with File(source) as file, open(target, "wb") as out:
        for start in range(0, file.size, _STEP):
            out.write(file.read(start, min(_STEP, file.size - start)))


# --- what cannot be merged ---


def notices(
    target: Checkpoint, models: Sequence[Checkpoint], tokenizer: Checkpoint | None = None
) -> list[str]:
    """Return a line for each kind of weights beside the weights that is not merged, and for what is
    copied and not there. tokenizer: as for `copy`."""
    lines = []
    differ = [p for p in _extra(target) if not all(_same(target, model, p) for model in models)]
    if differ:
        lines.append(
            f"{target.label}: {listing(differ)} may be weights too, which are not merged: what"
            " comes out has the base's. Merge them by themselves and put them there"
        )
    for model, paths in _copied(target, tokenizer):
        pointers = [path for path in paths if model.folder and is_pointer(model.folder / path)]
        if pointers:
            lines.append(
                f"{model.label}: {listing(pointers)} is a pointer of Git LFS in place of the file,"
                " and is copied as it is. Run `git lfs pull` in that folder, or download the file"
            )
    left = list(_left(target))
    if left:
        lines.append(
            f"{target.label}: {listing(left)} holds weights, and no list of the model names it, so"
            " it is neither merged nor copied. If the model needs it, merge it by itself and put it"
            " there"
        )
    return lines


def _copied(
    target: Checkpoint, tokenizer: Checkpoint | None
) -> Iterator[tuple[Checkpoint, list[str]]]:
    """Yield the models of which files are copied, with these."""
    if tokenizer is not None and tokenizer.folder is not None:
        yield tokenizer, _tokenizer_files(tokenizer.folder)
    if target.folder is not None:
        paths = files(target.folder)
        yield target, [p for p in paths if tokenizer is None or not parts.is_tokenizer(p)]


def _extra(model: Checkpoint) -> list[str]:
    """Return weights that are not read, as paths in the folder of a model."""
    if model.folder is None:
        return []
    tree, read = Local(model.folder), {os.path.realpath(path) for path in model.files}
    return [
        path
        for part in ("", *parts.folders(tree))
        for name in parts.extra(tree, part)
        if os.path.realpath(model.folder / (path := f"{part}/{name}" if part else name)) not in read
    ]


def _same(target: Checkpoint, model: Checkpoint, path: str) -> bool:
    """Whether a model has a file as the target has it, or has none, as a task file."""
    if model.folder is None or target.folder is None or not (model.folder / path).is_file():
        return True
    return same_bytes(model.folder / path, target.folder / path)


_NOT_PARTS = (
    "checkpoint", "global_step", "onnx", "openvino", "original", "runs", "gguf", "mlx", "coreml",
    "flax", "tf", "wandb", "logs", "tmp", "results", "metal", "tensorrt",
)  # fmt: skip


def _left(model: Checkpoint) -> Iterator[str]:
    """Yield the subfolders with weights that no list names and that are not known as leftovers."""
    if model.folder is None:
        return
    known = {part.partition("/")[0] for part in parts.folders(Local(model.folder))}
    known |= {path.relative_to(model.folder).parts[0] for path in _inside(model)}
    for path in sorted(model.folder.iterdir()):
        name = path.name
        if name in known or name.startswith((".", *_NOT_PARTS)) or not path.is_dir():
            continue
        try:
            inside = [file.name for file in path.iterdir() if file.is_file()]
        except OSError:
            continue
        if parts.has_weights(inside) and "config.json" in inside:
            yield name


def _inside(model: Checkpoint) -> list[Path]:
    assert model.folder is not None
    return [path for path in model.files if model.folder in path.parents]


# --- what is ours ---


def foreign(folder: Path, spare: str = "") -> str | None:
    """Return what in a folder is not of a model that we wrote; None if nothing, "" if it is none.

    spare: the name of what may be in it besides.

    A model of ours has weights and a recipe, or weights whose header says so. In it there are no
    other subfolders than those that its lists name, and in these nothing but what is written there.
    """
    tree = Local(folder)
    try:
        known = parts.folders(tree)
        weights = [
            folder / part / name
            for part in ("", *known)
            for name in tree.files(part)
            if layout.is_ours(name)
        ]
        ours = bool(weights) and ((folder / RECIPE).is_file() or _made_here(weights))
        for part in ("", *known):
            for path in sorted((folder / part).iterdir()):
                name = path.relative_to(folder).as_posix()
                if name == spare:
                    continue
                if path.is_dir():
                    mine = name in known
                else:
                    mine = not part or layout.is_ours(path.name) or bool(parts.kind(path.name))
                    mine |= path.suffix == ".py"
                if not mine:
                    return name
    except CheckpointError:
        return parts.MODULES
    return None if ours else ""


def _made_here(weights: Sequence[Path]) -> bool:
    """Return whether a folder without a recipe is ours, by the header of its first weights."""
    try:
        header = read_header(min(path for path in weights if path.suffix == ".safetensors"))
    except (ValueError, CheckpointError):  # there is none, or it is damaged
        return False
    mine = header.metadata.keys() - {digests.TENSORS, digests.DIGEST}  # of every file we write
    return any(key.startswith("breadcrumbs.") for key in mine)
