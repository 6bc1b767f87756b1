"""What an output says of its inputs, and whether they stayed as they were meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from blake3 import blake3

from breadcrumbs.checkpoint import mirrors
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.errors import CheckpointError
from breadcrumbs.merging import inputs, published
from breadcrumbs.merging.published import Names
from breadcrumbs.methods import algebra
from breadcrumbs.plan import Plan, variants
from breadcrumbs.plan.recipe import to_mapping
from breadcrumbs.version import __version__

#: What is looked at to tell whether a file is still the same.
Stamp = tuple[int, int, int, int]


def stamps_of(it: Plan) -> dict[str, Stamp]:
    """Return what changes when an input file is written to or replaced, of every one."""
    files = [file for source in it.inputs for file in source.files]
    return {mirrors.url_of(file) or str(file): stamp(file) for file in files}


def stamp(file: Path) -> Stamp:
    """Return size, times and inode: whoever sets the time of writing back changes the other one.

    Not the number of the disk, which may be another after the next start of the machine. Of a file
    elsewhere it is what tells it from others: that it is the same is asked at every read.
    """
    mirror = mirrors.of(file)
    if mirror is not None:
        told = blake3((mirror.known or mirror.url).encode()).digest(8)
        return mirror.size, int.from_bytes(told, "little"), 0, 0
    if mirrors.url_of(file):  # a small one that was fetched whole: the same in every process
        told = blake3(file.read_bytes()).digest(8)
        return file.stat().st_size, int.from_bytes(told, "little"), 0, 0
    try:
        found = file.stat()
    except OSError:  # gone: changed
        return 0, 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def check_unchanged(before: dict[str, Stamp], after: dict[str, Stamp]) -> None:
    """Raise CheckpointError if a file is not the one that it was. Both: by path, its stamp."""
    for file, stamp in before.items():
        if after[file] != stamp:
            raise CheckpointError(
                f"{file}: changed while it was being merged. Make sure that nothing writes to"
                " the inputs, and merge again with --force."
            )


def provenance(
    it: Plan, digests: FileDigests, choice: Choice | None, names: Names, computed: str = ""
) -> str:
    """Return the recipe and the size and hash of every input file, as JSON.

    computed: what made products and decompositions of matrices, if it was a device.
    """
    return json.dumps(
        {
            "version": __version__,
            "recipe": to_mapping(published.resolved(it, names), complete=True),
            "inputs": inputs.described(it, digests, names),
            **({"computed": computed} if computed else {}),
            **({"choice": choice.to_mapping()} if choice else {}),
        },
    )


def key(it: Plan, shard_size: int, stamps: dict[str, Stamp]) -> str:
    """Return a digest of all that the output's bytes and layout depend on."""
    places = variants.layout(it).places
    names = [(place.folder, place.stem, place.variant) for place in places]
    depends = [__version__, to_mapping(it.recipe, complete=True), stamps, shard_size, names]
    depends += [on] if (on := algebra.of(it.recipe.device).name) else []
    depends += [it.words.said, list(it.words.ids)] if it.words is not None else []
    return blake3(json.dumps(depends).encode()).hexdigest()


class Choice(Protocol):
    """How the models of a merge were chosen."""

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain data, for the metadata."""
        ...

    def to_markdown(self) -> str:
        """Return it as a section of the model card."""
        ...
