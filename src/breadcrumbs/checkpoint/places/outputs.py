"""Models written to a bucket: all of a model is there, or nothing that a reader takes for one.

    OUT/.breadcrumbs-upload     the claim, put first and only if it is not there (If-None-Match)
    OUT/**.safetensors          each is an upload in parts, which is there whole or not at all
    OUT/**                      what lies beside the weights
    OUT/model.safetensors.index.json    what readers look for first: last, only if it is not there

Then the claim is removed. Where there is one, `breadcrumbs` reads no model. Of an output in one
file, ``x.safetensors``, the claim is ``x.safetensors.breadcrumbs-upload``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import layout, mirrors, parts
from breadcrumbs.checkpoint.beside import RECIPE
from breadcrumbs.checkpoint.places import Address, stores
from breadcrumbs.checkpoint.places.buckets import CARELESS, Bucket
from breadcrumbs.checkpoint.places.stores import CLAIM, Found, NotThereError
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, OutputError
from breadcrumbs.version import __version__

#: What readers look for first, the most telling last.
_FIRST = (RECIPE, "config.json", "model.safetensors.index.json", parts.MODULES, parts.COMPONENTS)


@dataclass(frozen=True)
class There:
    """What is at an output: objects by their paths in it, without the claim, and the claim."""

    found: dict[str, Found]
    claim: Found | None


class Target:
    """An output at a URL, a folder or a ``.safetensors`` file."""

    def __init__(self, address: Address):
        self.url, self.name, self.single = str(address), address.name, address.is_file
        self._path = address.path
        self._bucket = stores.store(address, kind=Bucket)
        self._claim = f"{self._path}.{CLAIM[1:]}" if self.single else f"{self._path}/{CLAIM}"
        self._data = b""
        #: Whether anything is there by this run, so that the claim must stay until it is whole.
        self.begun = False
        #: Whether what was there is to go.
        self.replaces = False

    def check(self, *, force: bool, resume: bool) -> None:
        """Raise OutputError unless a model may and can be written here; nothing stays of the try.

        force: replace what is there. resume: go on with an upload that was interrupted.
        """
        if self._looked(force=force, resume=resume).claim is None:
            if not self._bucket.put_new(self._claim, b"{}"):
                raise OutputError(self._under_way())
            careless = self._bucket.put_new(self._claim, b"[]")
            self._bucket.remove([self._claim])
            if careless:
                raise OutputError(f"{self.url}: {CARELESS}")

    def claim(self, *, force: bool, resume: bool) -> None:
        """Keep others from writing here; OutputError as for `check`."""
        there = self._looked(force=force, resume=resume)
        self.replaces = force and bool(there.found)
        if there.claim is not None:
            self.replaces |= self._said().get("replaces") is True
            self.begun = bool(there.found)
        said = {
            "breadcrumbs": __version__,
            "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "replaces": self.replaces,
            "token": secrets.token_hex(16),
        }
        self._data = json.dumps(said).encode()
        if there.claim is None:
            done = self._bucket.put_new(self._claim, self._data)
        else:
            done = self._bucket.replace(self._claim, self._data, there.claim)
        if not done:
            raise OutputError(self._under_way())

    def withdraw(self) -> None:
        """Give up the claim, if it is this run's and nothing was uploaded."""
        if self._data and not self.begun:
            with suppress(BreadcrumbsError):
                if self._bucket.read(self._claim)[0] == self._data:
                    self._bucket.remove([self._claim])

    def send(
        self,
        files: Mapping[str, Path],
        known: Mapping[str, str],
        noted: Callable[[str, str], None],
        told: Callable[[int], None],
        compare: bool = False,
    ) -> None:
        """Upload a whole model. files: by their paths in it.

        known: tags of what an earlier run uploaded, by path. noted: is called with the path and the
        tag of each file of weights that is there. told: is called with bytes that are there.
        compare: whether what is there is read again. OutputError.
        """
        found = self._look().found
        weights = [path for path in sorted(files) if path.endswith(".safetensors")]
        last = self._last(files)
        self.begun = True
        if self.replaces and not self.single:  # so that readers find no model, and no mixture
            first = [path for path in found if path in _FIRST or layout.indexed(path)]
            self._bucket.remove(map(self._at, first))
        tags: dict[str, str] = {}
        for path in (path for path in weights if path != last):
            size = files[path].stat().st_size
            there = found.get(path)
            if there and known.get(path) == there.identity.value and there.size == size:
                tags[path] = there.identity.value
                told(size)
            else:
                self._check_claim()
                tags[path] = self._bucket.put(self._at(path), files[path], told)
                noted(path, tags[path])
        for path in sorted(files.keys() - {*weights, last}, key=_order):
            tags[path] = self._bucket.put(self._at(path), files[path], told)
        if self.replaces:
            self._bucket.remove(self._at(path) for path in found if path not in files)
        self._check_sent(files, tags, compare)
        self._check_claim()
        self._commit(last, files[last], told)
        if compare:
            self._compare(last, files[last])
        self._bucket.remove([self._claim])

    def _commit(self, last: str, file: Path, told: Callable[[int], None]) -> None:
        """Put what readers look for first, if it is not there."""
        if self.single and self.replaces:
            self._bucket.put(self._at(last), file, told)
        elif file.stat().st_size <= mirrors.sizes().part:
            if not self._bucket.put_new(self._at(last), file.read_bytes()):
                raise OutputError(self._created())
            told(file.stat().st_size)
        elif self._look().found:  # a single file that is too large for a condition
            raise OutputError(self._created())
        else:
            self._bucket.put(self._at(last), file, told)

    def _last(self, files: Mapping[str, Path]) -> str:
        """Return the path of what is uploaded last: without it there is no model for anybody."""
        if self.single:
            return next(iter(files))
        index = [path for path in files if layout.indexed(path) and "/" not in path]
        return next(
            path for path in [parts.COMPONENTS, *index, "config.json", RECIPE] if path in files
        )

    def _at(self, path: str) -> str:
        return self._path if self.single else f"{self._path}/{path}"

    # --- what is there ---

    def _look(self) -> There:
        if not self.single:
            found = self._bucket.listed(self._path)
            return There(found, found.pop(CLAIM, None))
        return There(
            {self.name: it} if (it := self._head(self._path)) else {}, self._head(self._claim)
        )

    def _head(self, path: str) -> Found | None:
        try:
            return self._bucket.head(path)
        except NotThereError:
            return None

    def _looked(self, *, force: bool, resume: bool) -> There:
        """Return what is there; OutputError if it may not be written to."""
        there = self._look()
        if there.claim is not None and not (force or resume):
            raise OutputError(self._under_way())
        if there.found and there.claim is None and not force:
            raise OutputError(f"{self.url}: exists. Give another output, or --force to replace it.")
        if not self.single and there.found and force and (what := _foreign(there)) is not None:
            raise OutputError(
                f"{self.url}: holds {what or 'no model of ours'}, so --force does not replace it."
                " Remove it yourself, or give another output."
            )
        return there

    def _said(self) -> dict[str, Any]:
        """Return what the claim that is there says."""
        try:
            said = json.loads(self._bucket.read(self._claim)[0])
        except (CheckpointError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def _under_way(self) -> str:
        since = self._said().get("since")
        since = f" (since {since})" if isinstance(since, str) and len(since) < 40 else ""
        return (
            f"{self.url}: a merge into it is under way, or was interrupted{since}. If none is, give"
            " --resume to go on with it, or --force to start over."
        )

    def _created(self) -> str:
        return (
            f"{self.url}: was created in the meantime, so it is not replaced. Give --resume --force"
            " to replace it."
        )

    def _check_claim(self) -> None:
        try:
            mine = self._bucket.read(self._claim)[0] == self._data
        except NotThereError:
            mine = False
        if not mine:
            raise OutputError(
                f"{self.url}: another merge into it has begun in the meantime. Let one of them end,"
                " and give --force to replace what it made."
            )

    def _check_sent(
        self, files: Mapping[str, Path], tags: Mapping[str, str], compare: bool
    ) -> None:
        """Raise OutputError unless files are there as they were uploaded, by size and tag.

        compare: and by their bytes.
        """
        found = self._look().found if tags else {}
        for path, tag in tags.items():
            there, file = found.get(path, Found(-1)), files[path]
            same = not (tag and there.identity.value) or tag == there.identity.value
            if there.size != file.stat().st_size or not same:
                raise OutputError(
                    f"{self._bucket.url(self._at(path))}: is not what was uploaded. Make sure that"
                    " nothing else writes there."
                )
            if compare:
                self._compare(path, file)

    def _compare(self, path: str, file: Path) -> None:
        at, same = self._at(path), True

        def look(start: int, data: bytes) -> None:
            nonlocal same
            local.seek(start)
            same &= local.read(len(data)) == data

        with open(file, "rb") as local:
            found = self._bucket.head(at)
            if found.size:
                self._bucket.fetch(at, found, 0, found.size, look)
        if not same or found.size != file.stat().st_size:
            raise OutputError(
                f"{self._bucket.url(at)}: reads back other bytes than were uploaded. Give --force"
                " to upload it again."
            )


def _order(path: str) -> tuple[int, str]:
    """Return what sorts files so that what readers look for comes at the end."""
    return _FIRST.index(path) + 1 if path in _FIRST else 0, path


def _foreign(there: There) -> str | None:
    """Return what is not of a model that we wrote; None if nothing, "" if it is none."""
    if RECIPE not in there.found and there.claim is None:
        return ""
    for path in sorted(there.found):
        folder, _, name = path.rpartition("/")
        if folder and not (layout.is_ours(name) or parts.kind(name) or name.endswith(".py")):
            return repr(path)
    return None


def paths(names: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Return files of a folder by their paths in it."""
    return {path.relative_to(folder).as_posix(): path for path in names}
