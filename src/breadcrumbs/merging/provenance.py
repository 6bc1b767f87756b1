"""What an output says of its inputs, and whether they stayed as they were meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from blake3 import blake3

from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.errors import CheckpointError
from breadcrumbs.merging import card
from breadcrumbs.plan import Plan, variants
from breadcrumbs.plan.recipe import to_mapping
from breadcrumbs.version import __version__

#: What is looked at to tell whether a file is still the same.
Stamp = tuple[int, int, int, int]


def stamps_of(it: Plan) -> dict[str, Stamp]:
    """Return what changes when an input file is written to or replaced, of every one."""
    files = [file for source in it.inputs for file in source.files]
    return {str(file): _stamp(file) for file in files}


def _stamp(file: Path) -> Stamp:
    """Return size, times and inode: whoever sets the time of writing back changes the other one.

    Not the number of the disk, which may be another after the next start of the machine.
    """
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
                f"{file}: changed while it was being merged. Let nothing write to the inputs, and"
                " merge again with --force."
            )


def provenance(it: Plan, digests: FileDigests, choice: Choice | None) -> str:
    """Return the recipe and the size and hash of every input file, as JSON.

    The hash of a task file is that which it has in its header, and which its blocks were compared
    with as they were read.
    """
    inputs = []
    for number, source in enumerate(it.inputs):
        hash_ = "task" if source.cut else "blake3"
        files = [
            {"file": source.shown_file(f), "bytes": digests.sizes[f], hash_: digests.digests[f]}
            for f in source.own_files
        ]
        what = "model" if number < len(it.origins) else "statistics"
        inputs.append({what: source.repo or source.label, "files": files})
    return json.dumps(
        {
            "version": __version__,
            "recipe": to_mapping(card.resolved(it), complete=True),
            "inputs": inputs,
            **({"choice": choice.to_mapping()} if choice else {}),
        },
    )


def key(it: Plan, shard_size: int, stamps: dict[str, Stamp]) -> str:
    """Return a digest of all that the output's bytes and layout depend on."""
    places = variants.layout(it).places
    names = [(place.folder, place.stem, place.variant) for place in places]
    depends = [__version__, to_mapping(it.recipe, complete=True), stamps, shard_size, names]
    return blake3(json.dumps(depends).encode()).hexdigest()


class Choice(Protocol):
    """How the models of a merge were chosen."""

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain data, for the metadata."""
        ...

    def to_markdown(self) -> str:
        """Return it as a section of the model card."""
        ...
