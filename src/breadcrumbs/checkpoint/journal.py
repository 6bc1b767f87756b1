"""The journal of a merge under way: which segments are done, with digests of their bytes.

A file of JSON lines in the partial folder, which is locked as long as a process has it open:

    {"key": ...}                                        what the output depends on
    {"tensor": ..., "start": ..., "stop": ..., "digest": ..., ...}      a segment that is written
    {"known": ..., "digest": ...}                       a text of what was found before that
    {"uploaded": ..., "etag": ..., "header": ...}       a file of an output at a URL

A line is appended after the bytes that it tells of. One cut off by a kill or a full disk is not
read, and what follows begins on a line of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3

from breadcrumbs.checkpoint import durable, locks
from breadcrumbs.errors import OutputError

JOURNAL = ".breadcrumbs-journal"
_PLAIN = json.JSONEncoder(separators=(",", ":"))


class Journal:
    """The open, locked journal in the folder ``partial``, which is made if need be.

    again: whether there may be one already that something can go on with; one of which nothing
    can be gone on with is left behind, and no hindrance. advice: what else to do. shown: what
    messages call the output.
    """

    def __init__(self, partial: Path, shown: Path, *, again: bool, advice: str):
        self.path, self._key = partial / JOURNAL, ""
        existed = self.path.exists()
        durable.mkdir(partial)
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        try:
            fd = self._file.fileno()
            if locks.lock(fd) is False or not locks.is_at(fd, self.path):
                raise OutputError(
                    f"{shown}: another process is writing it. Wait for it, or give another output."
                )
            if existed and not again and self._begun():
                raise OutputError(f"{partial}: an earlier merge was interrupted there. {advice}")
        except BaseException:
            self.close()
            raise

    def begin(self, key: str) -> None:
        """Forget everything, and note what the output depends on; empty: it cannot be resumed."""
        self._file.truncate(0)
        self._key = key
        self.note({"key": key})
        if durable.is_on():
            durable.file(self._file.fileno())

    def go_on(self, key: str) -> bool:
        """Prepare to note more; False if nothing has been begun, OutputError if something else."""
        begun = self._begun()
        if not begun:
            return False
        if begun != key:
            raise OutputError(
                f"{self.path.parent}: was started with another recipe, other inputs or another"
                " version. Give --force to start over."
            )
        self._key = key
        self._file.seek(-1, os.SEEK_END)
        if self._file.read(1) != b"\n":
            self._file.write(b"\n")
        return True

    def _begun(self) -> str:
        """Return what the output that was begun depends on; empty if nothing can be resumed."""
        begun = next(self._lines(), {}).get("key")
        return begun if isinstance(begun, str) else ""

    def note(self, *lines: dict[str, Any]) -> None:
        """Add a line, or several at once."""
        data = memoryview("".join([_PLAIN.encode(line) + "\n" for line in lines]).encode())
        while data:  # a disk that fills up takes a part
            data = data[self._file.write(data) or 0 :]

    def segments(self) -> Iterator[dict[str, Any]]:
        """Yield the notes of segments, in the order in which they were done."""
        return (line for line in self._lines() if "tensor" in line)

    def uploads(self) -> Iterator[dict[str, Any]]:
        """Yield the notes of files that were uploaded (`breadcrumbs.checkpoint.uploading`)."""
        return (line for line in self._lines() if isinstance(line.get("uploaded"), str))

    def remember(self, text: str) -> None:
        """Note a text of what was found out for this output."""
        self.note({"known": text, "digest": self._digest(text)})

    def remembered(self) -> Iterator[str]:
        """Yield the texts that were noted for this output; none that is not as it was written."""
        for line in self._lines():
            text = line.get("known")
            if isinstance(text, str) and line.get("digest") == self._digest(text):
                yield text

    def _digest(self, text: str) -> str:
        return blake3(f"{self._key}\n{text}".encode()).hexdigest()

    def _lines(self) -> Iterator[dict[str, Any]]:
        with open(self.path, "rb") as lines:
            for line in lines:
                try:
                    note = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(note, dict):
                    yield note

    def let_rename(self) -> None:
        """Give up the lock where it is in the way: Windows renames no folder with open files."""
        if not locks.renames_open():
            self.close()

    def close(self) -> None:
        """Close the file, and so unlock it; a second call does nothing."""
        self._file.close()
