"""A merged model merged again, from the recipe and the hashes that it carries, and compared."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from breadcrumbs.checkpoint import digests, opening, stack, wrapped
from breadcrumbs.checkpoint import places as elsewhere
from breadcrumbs.checkpoint.adapters import peft
from breadcrumbs.checkpoint.beside import RECIPE
from breadcrumbs.checkpoint.safetensors import open_safetensors, read_header
from breadcrumbs.errors import RecipeError, counted, listing
from breadcrumbs.merging import files, inputs
from breadcrumbs.merging.opening import opened
from breadcrumbs.plan import Plan
from breadcrumbs.plan import inputs as said
from breadcrumbs.plan.declared import RECIPE as DECLARED
from breadcrumbs.plan.recipe import Recipe, beside, from_mapping, name_of, with_paths
from breadcrumbs.threads import Task, run_tasks

#: A tensor by the folder of the model that it lies in and its name.
Place = tuple[str, str]
Progress = AbstractContextManager[Callable[[int], None]]


@dataclass(frozen=True)
class Reproduction:
    """What came of it. differ: names of tensors that are not the same, or that one of them lacks.

    tensors: how many the model has. digest: of all of them, as they are made again. made_by: the
    program that wrote the model. notes: what may have made a difference.
    """

    model: str
    tensors: int
    differ: tuple[str, ...]
    digest: str
    made_by: str
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether all tensors are the same, bit for bit."""
        return not self.differ

    def __str__(self) -> str:
        if self.same:
            return (
                f"{counted(self.tensors, 'tensor')}, all the same bits (BLAKE3 {self.digest[:16]})"
            )
        differ, of = len(self.differ), counted(self.tensors, "tensor")
        return f"{differ} of {of} {'differs' if differ == 1 else 'differ'}: {listing(self.differ)}"

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {"same": self.same, **self.__dict__}


def reproduce(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    places: Sequence[str] = (),
    threads: int | None = None,
    max_memory: int | None = None,
    force: bool = False,
    progress: Callable[[Plan], Progress] = lambda plan: nullcontext(lambda nbytes: None),
) -> Reproduction:
    """Merge a merged model again and return whether it is the same, tensor by tensor.

    model: what a merge wrote: a folder, a ``.safetensors`` file, or a hub id.
    output: where to write what is made again; without it, it is removed once it is compared.
    places: where inputs are that are not where the recipe says: ``NAME=PATH``, with the name that
        the recipe has or the last part of it, or a folder in which they lie by that part.
    progress: of the plan, a context of what is called with numbers of input bytes done.

    Raises CheckpointError, RecipeError for a model without a recipe and for inputs that are not
    found or not the same as then.
    """
    elsewhere.refuse_output(os.fspath(output or ""))
    path = place_of(model)
    recipe = found(path)
    recipe = located(recipe, path if path.is_dir() else path.parent, places)
    with ExitStack() as within:
        if output is None:
            folder = within.enter_context(tempfile.TemporaryDirectory(prefix="breadcrumbs-"))
            output = Path(folder, "again.safetensors" if path.is_file() else "again")
        with opened(recipe, by_token=True) as plan, progress(plan) as done:
            files.to_files(
                plan,
                output,
                threads=threads,
                max_memory=max_memory,
                force=force,
                progress=done,
            )
            note = inputs.other_version(plan)
        then, now = tensors(path, threads or 1), tensors(Path(output), threads or 1)
    places_ = dict.fromkeys((*then, *now))
    differ = [_shown(place) for place in places_ if then.get(place) != now.get(place)]
    whole = blake3(json.dumps(sorted([*place, *what] for place, what in now.items())).encode())
    notes = (note,) if note else ()
    if (_header(path) or {}).get("choice", {}).get("store", {}).get("grams"):
        notes += ("it was merged from Grams of a store, which agree with its tasks up to rounding",)
    return Reproduction(
        os.fspath(model), len(then), tuple(differ), whole.hexdigest(), recipe.made_by, notes
    )


def place_of(model: str | os.PathLike[str]) -> Path:
    """Return the folder or file of a merged model, of a hub the one in its cache.

    CheckpointError where there is none.
    """
    if elsewhere.is_url(os.fspath(model)):
        from breadcrumbs.checkpoint.places import folders

        return folders.here(os.fspath(model))[0]
    text = os.path.expanduser(os.fspath(model))
    if os.path.exists(text):
        return Path(text)
    repo, revision = opening.hub_id(text)
    from breadcrumbs.checkpoint import hub

    return hub.fetch(repo, revision)[0]


def found(model: Path) -> Recipe:
    """Return the recipe that a merged model carries, paths as it has them; RecipeError if none."""
    if (model / peft.CONFIG).is_file():
        raise RecipeError(
            f"{model}: is an adapter, and those are not compared. `breadcrumbs merge"
            f" {model / RECIPE} --to lora` makes it again."
        )
    header = _header(model)
    recipe = model / RECIPE
    if model.is_dir() and recipe.is_file():
        made = from_mapping(DECLARED.read(recipe), str(recipe))
    elif header is not None:
        made = from_mapping(header["recipe"], str(model))
    else:
        raise RecipeError(
            f"{model}: has no recipe: neither {RECIPE} nor one in the header of its weights. Give a"
            " model that `breadcrumbs merge` wrote."
        )
    if header is not None and not made.inputs:
        known = tuple(said.parse(entry, str(model)) for entry in header.get("inputs", ()))
        made = replace(made, inputs=known, made_by=f"breadcrumbs {header.get('version', '?')}")
    return made


def _header(model: Path) -> dict[str, Any] | None:
    """Return what the header of a model's first file says of how it was made."""
    for path in _files(model):
        try:
            data = json.loads(read_header(path).metadata.get("breadcrumbs", "null"))
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict) and "recipe" in data:
            return data
    return None


def _files(model: Path) -> list[Path]:
    return [model] if model.is_file() else sorted(model.rglob("*.safetensors"))


def located(recipe: Recipe, folder: Path, places: Sequence[str] = ()) -> Recipe:
    """Return the recipe with paths that are there; RecipeError names those that are not.

    Looked for are ``places``, what is relative to ``folder``, the names of the recipe as they are,
    and the cache of the hub.
    """
    named, folders = _places(places)
    known = {said.name(dict(entry)): entry for entry in recipe.inputs}
    missing: list[str] = []
    used: set[str] = set()

    def one(name: str) -> str:
        head, pick, keys = name.partition(wrapped.PICK)
        if pick:
            return f"{one(head)}{pick}{keys}"
        base, plus, adapter = name.rpartition("+")
        if plus and base and adapter and name not in named and not (folder / name).exists():
            before = len(missing)
            both = f"{one(base)}+{one(adapter)}"
            if len(missing) > before and (place := said.remembered(known.get(name), "")):
                del missing[before:]
                return place
            return both
        for key in (name, Path(name).name, name_of(name)):
            if key in named:
                used.add(key)
                return named[key]
        for place in folders:
            if (place / Path(name).name).exists():
                return str(place / Path(name).name)
        found = beside(folder / RECIPE, name)
        if elsewhere.is_url(found):
            return found
        if os.path.exists(os.path.expanduser(found)) or opening.is_hub_id(found):
            return _in_cache(found, recipe) or said.remembered(known.get(name), found)
        place = said.remembered(known.get(name), "")
        if place:
            return place
        missing.append(name)
        return name

    def of(path: str) -> str:
        return stack.renamed(path, one)

    made = with_paths(recipe, of)
    if missing:
        names = list(dict.fromkeys(missing))
        raise RecipeError(
            f"{folder}: {listing(names)}: not found beside it. Say where it is: --input"
            f" {Path(names[0]).name}=PATH, or --input FOLDER for the folder that holds them."
        )
    unused = sorted(set(named) - used)
    if unused:
        known = dict.fromkeys(part for p in recipe.paths for part in stack.paths(p) or (p,))
        raise RecipeError(
            f"--input {unused[0]}: the recipe has no such input. It has {', '.join(known)}."
        )
    return made


def _places(places: Sequence[str]) -> tuple[dict[str, str], list[Path]]:
    """Return paths by name, and folders to look into."""
    named, folders = {}, []
    for place in places:
        name, equals, path = place.partition("=")
        if equals and not os.path.isdir(place):
            named[name] = path
        elif os.path.isdir(place):
            folders.append(Path(place))
        else:
            raise RecipeError(f"--input {place}: is neither NAME=PATH nor a folder.")
    return named, folders


def _in_cache(name: str, recipe: Recipe) -> str:
    """Return the folder in the hub's cache of a model at a commit, if it has all files of then."""
    repo, at, commit = name.partition("@")
    if not at or os.path.exists(name):
        return ""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "snapshots", commit)
    wanted = [
        file["file"]
        for entry in recipe.inputs
        if said.name(dict(entry)) == name
        for file in entry["files"]
    ]
    there = folder.is_dir() and wanted and all((folder / file).exists() for file in wanted)
    return str(folder) if there else ""


def tensors(model: Path, threads: int) -> dict[Place, tuple[str, list[int], str]]:
    """Return dtype, shape and digest of every tensor of a model, from the bytes of its files."""
    result: dict[Place, tuple[str, list[int], str]] = {}
    with ExitStack() as within:
        tasks: list[Task] = []
        for path in _files(model):
            file = within.enter_context(open_safetensors(path))
            inside = path.parent.relative_to(model) if path != model else Path()
            folder = "/".join(inside.parts)
            for name, tensor in file.tensors.items():

                def look(place: Place = (folder, name), tensor: Any = tensor) -> list[Task]:
                    found = digests.of_tensor(tensor).hex()
                    result[place] = tensor.dtype, list(tensor.shape), found
                    return []

                tasks.append(look)
        run_tasks(tasks, threads)
    return result


def _shown(place: Place) -> str:
    folder, name = place
    return f"{folder}/{name}" if folder else name
