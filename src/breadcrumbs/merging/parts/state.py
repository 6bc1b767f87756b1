"""The state of a merge in parts: small files beside the output, which any machine may write.

    OUT.partial/plan.json           what is merged, created once, so that two merges cannot mix
    OUT.partial/pass-1/00003        what shard 3 found in the first pass over the model
    OUT.partial/notes/00003         that shard 3 is written: digests of its tensors, what was done
    OUT.partial/weights/...         shards, under their final names; attempts are .NAME.ATTEMPT
    OUT.partial/whole/              the output, while it is put together; .committed: it was

There is no lock. What a file says follows from the plan and its name alone, and it takes its name
when it is whole: so it does not matter who writes it, how often, or who was killed at it. Each has
a digest with the key of the plan in it; one that is not as it was written is an error.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint import durable
from breadcrumbs.checkpoint.journal import JOURNAL
from breadcrumbs.checkpoint.writer import IN_PARTS, check_replaceable, told
from breadcrumbs.engine.plain import of_json, to_json
from breadcrumbs.errors import CheckpointError, OutputError

#: Where a commit puts the output together, and the mark that it is done.
WHOLE, COMMITTED = "whole", ".committed"
#: Seconds to wait for whoever is writing the plan, where it cannot be linked to its name.
_PATIENCE = 5.0
#: What systems answer that cannot link.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class Folder:
    """The folder of a merge in parts. output: the folder to be written. key: of the plan."""

    def __init__(self, output: Path):
        self.shown, self.output = output, Path(os.path.realpath(output))
        self.path = self.output.parent / f"{self.output.name}.partial"
        self.key = ""

    # --- what was committed ---

    @property
    def is_committed(self) -> bool:
        """Whether the output has its name, and this folder was only to be removed."""
        marked = (self.path / COMMITTED).exists() and self.output.is_dir()
        return marked and not (self.path / WHOLE).exists()

    def mark(self) -> None:
        """Note that the output is whole and about to get its name."""
        (self.path / COMMITTED).touch()

    def clear(self) -> None:
        """Remove all of it, the mark last."""
        durable.remove(self.path, last=COMMITTED)

    # --- the plan ---

    def check_output(self, force: bool) -> None:
        """Raise OutputError for an output that no folder of weights is to take the place of."""
        if self.output.suffix == ".safetensors" or not self.output.name:
            raise OutputError(f"{self.shown}: parts are shards of a folder. Give a folder.")
        if not self.output.exists():
            return
        if not force:
            raise OutputError(
                f"{self.shown}: exists. Give another output, or --force to replace it."
            )
        if not self.output.is_dir():
            raise OutputError(
                f"{self.shown}: is not a folder, so it is not replaced by one. Remove it."
            )
        check_replaceable(self.output, self.shown)

    def begin(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Make the plan what this output is made of, unless there is one; return that one."""
        with told(self.shown, "run the parts again"):
            if self.is_committed:
                self.clear()
            durable.mkdir(self.path)
            if (self.path / JOURNAL).exists():
                raise OutputError(
                    f"{self.path}: another merge was interrupted there. Go on with it with --resume"
                    " and without --part, or remove it."
                )
            if not (self.path / IN_PARTS).exists():
                self._create(json.dumps(about, indent=1))
            return self.plan()

    def _create(self, text: str) -> None:
        """Create the plan, if nobody has by now."""
        new, place = self._attempt(self.path / IN_PARTS), self.path / IN_PARTS
        self._put(new, [text.encode()])
        try:
            os.link(new, place)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with contextlib.suppress(FileExistsError), open(place, "xb") as file:
                file.write(text.encode())
        new.unlink()
        durable.folder(self.path)

    def plan(self) -> dict[str, Any]:
        """Return what the output is made of; OutputError where nothing has been begun."""
        place, until = self.path / IN_PARTS, time.monotonic() + _PATIENCE
        while True:
            try:
                text = place.read_text(encoding="utf-8")
                found = json.loads(text)
            except FileNotFoundError:
                raise OutputError(
                    f"{self.path}: no part has been merged there. Run `merge` with --part first."
                ) from None
            except ValueError:  # it may be under way
                if time.monotonic() > until:
                    raise OutputError(
                        f"{place}: is damaged. Remove {self.path} and begin again."
                    ) from None
                time.sleep(0.05)
                continue
            self.key = blake3(text.encode()).hexdigest()
            return found

    # --- what is found and noted ---

    def has(self, kind: str, number: int) -> bool:
        """Return whether what is found of a shard is there. kind: what it is, as a folder."""
        return self._place(kind, number).exists()

    def write(self, kind: str, number: int, found: Any) -> None:
        """Write what was found of a shard; TypeError where it is no plain data."""
        arrays: list[np.ndarray] = []
        text = json.dumps(to_json(found, arrays), separators=(",", ":"))
        pieces = [array.tobytes() for array in arrays]
        head = json.dumps({"bytes": [len(piece) for piece in pieces], "found": len(text)})
        data = [head.encode() + b"\n", text.encode() + b"\n", *pieces]
        place = self._place(kind, number)
        with told(self.shown, "run the parts again"):
            place.parent.mkdir(exist_ok=True)
            new = self._attempt(place)
            self._put(new, [self._digest(kind, number, data).encode() + b"\n", *data])
            durable.replace(new, place)

    def read(self, kind: str, number: int) -> Any:
        """Return what `write` was given; OutputError if that is not what is there."""
        place = self._place(kind, number)
        with told(self.shown, "run the parts again"):
            raw = memoryview(place.read_bytes())
        try:
            return self._parsed(kind, number, raw)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise OutputError(
                f"{place}: is not what was written there. Remove it and run the parts again."
            ) from None

    def _parsed(self, kind: str, number: int, raw: memoryview) -> Any:
        said = bytes(raw[:64]).decode()
        if bytes(raw[64:65]) != b"\n" or said != self._digest(kind, number, [raw[65:]]):
            raise ValueError("digest")
        first = bytes(raw[65 : 65 + (1 << 20)]).index(b"\n") + 65
        head = json.loads(bytes(raw[65:first]))
        at = first + 1 + head["found"]
        text, arrays = json.loads(bytes(raw[first + 1 : at])), []
        at += 1
        for size in head["bytes"]:
            arrays.append(raw[at : at + size])
            at += size
        return of_json(text, arrays)

    def _digest(self, kind: str, number: int, data: Sequence[bytes | memoryview]) -> str:
        hasher = blake3(f"{self.key} {kind} {number}\n".encode())
        for piece in data:
            hasher.update(piece)
        return hasher.hexdigest()

    def _place(self, kind: str, number: int) -> Path:
        return self.path / kind / f"{number:05d}"

    # --- files ---

    def _attempt(self, place: Path) -> Path:
        return place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}")

    @staticmethod
    def _put(place: Path, data: Sequence[bytes]) -> None:
        with open(place, "xb") as file:
            for piece in data:
                file.write(piece)
            file.flush()
            if durable.is_on():
                durable.file(file.fileno())

    @contextlib.contextmanager
    def attempt(self, place: Path) -> Iterator[Path]:
        """Give a name for an attempt at a file, which takes its own when all went well."""
        place.parent.mkdir(parents=True, exist_ok=True)
        new = self._attempt(place)
        try:
            yield new
            durable.replace(new, place)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise


def compare(folder: Folder, mine: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise an error that says how two plans differ. mine: of this part; found: of the folder."""
    if mine == found:
        return
    if mine["by"] != found.get("by"):
        raise OutputError(
            f"{folder.path}: was begun by {_by(found.get('by'))}, and this is {_by(mine['by'])}."
            " Run all parts with the same."
        )
    if mine["plugins"] != found.get("plugins"):
        raise OutputError(
            f"{folder.path}: was begun with another plugin, or another state of it. Give all parts"
            " the same files, or remove the folder to begin again."
        )
    before = {(label, file): stamp for label, file, *stamp in found.get("inputs", ())}
    now = {(label, file): stamp for label, file, *stamp in mine["inputs"]}
    for (label, file), stamp in now.items():
        if before.get((label, file), stamp) != stamp:
            raise CheckpointError(
                f"{label}: {file} changed since the merge in {folder.path} was begun. Let nothing"
                " write to the inputs, remove that folder, and begin again."
            )
    raise OutputError(
        f"{folder.path}: was begun with another recipe, other inputs or another --shard-size. Give"
        " another output, or remove it to begin again."
    )


def _by(said: Any) -> str:
    known = said if isinstance(said, dict) else {}
    return " and ".join(f"{name} {version}" for name, version in known.items()) or "another program"
