"""A writer of outputs at URLs: into the scratch folder, and from there into the bucket.

The output is whole in the scratch folder before the first byte of it is uploaded, since the headers
of its files, which come first in them, name the hashes of the inputs, and those are known when all
has been read. So ``--resume`` goes on with the merge and with the upload, and the journal of the
partial folder notes both:

    SCRATCH/breadcrumbs-output-.../NAME.partial/.breadcrumbs-journal
        {"uploaded": ..., "etag": ..., "header": ...}       a file of weights, besides other lines
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from breadcrumbs.checkpoint import mirrors
from breadcrumbs.checkpoint.journal import JOURNAL
from breadcrumbs.checkpoint.outfile import Entry
from breadcrumbs.checkpoint.places.outputs import Target, paths
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.checkpoint.writer import REPLACED, Writer
from breadcrumbs.errors import OutputError


class Uploading(Writer):
    """An output under way, as a `Writer`, that is uploaded when it is whole.

    target: where to. told: is called with the bytes that are there.
    """

    room = "Give --scratch FOLDER with more room."

    def __init__(
        self,
        target: Target,
        entries: Sequence[Entry],
        metadata: dict[str, str],
        *,
        force: bool,
        resume: bool,
        told: Callable[[int], None] = lambda nbytes: None,
        **settings: Any,
    ):
        self._target, self._told, self._compare = target, told, False
        target.claim(force=force, resume=resume)
        try:
            output = home(target.url) / target.name
            super().__init__(output, entries, metadata, force=force, resume=resume, **settings)
        except BaseException:
            target.withdraw()
            raise

    def verify(self) -> None:
        """Read the output again as a `Writer`, and what was uploaded at the end."""
        super().verify()
        self._compare = True

    def _rename(self) -> None:
        if self.single:
            files = {self._target.name: self.files[0][0].path}
        else:
            found = [p for p in self.partial.rglob("*") if p.is_file() and REPLACED not in p.parts]
            files = paths([path for path in found if path.name != JOURNAL], self.partial)
        known = {
            note["uploaded"]: note.get("etag", "")
            for note in self._journal.uploads()
            if note["uploaded"] in files and note.get("header") == _header(files[note["uploaded"]])
        }

        def noted(path: str, tag: str) -> None:
            self._journal.note({"uploaded": path, "etag": tag, "header": _header(files[path])})

        try:
            self._target.send(files, known, noted, self._told, self._compare)
        except OutputError as error:
            raise OutputError(
                f"{error} What was merged is in {self.partial}: --resume, with the same --scratch,"
                " uploads what is lacking."
            ) from None
        self._remove_partial()
        self._leave()

    def abandon(self) -> None:
        super().abandon()
        self._target.withdraw()

    def discard(self) -> None:
        super().discard()
        self._target.withdraw()
        self._leave()

    def _leave(self) -> None:
        with suppress(OSError):
            self.partial.parent.rmdir()


def home(url: str) -> Path:
    """Return the folder in which an output for a URL is made, the same for every run."""
    return mirrors.scratch()[0] / f"breadcrumbs-output-{blake3(url.encode()).hexdigest()[:12]}"


def _header(file: Path) -> str:
    """Return a digest of the header of a file, which has digests of all that follows."""
    said = read_header(file)
    return blake3(json.dumps(said.metadata, sort_keys=True).encode()).hexdigest()
