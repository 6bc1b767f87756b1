"""Files of this machine that stand for files elsewhere, filled block by block as they are read.

A mirror is sparse: as long as the file that it stands for, with zeros where nothing was fetched
yet. So it must be read through `breadcrumbs.checkpoint.files.File` alone, which asks for the blocks
first. Blocks are fetched once, on threads of their own, and stay until the program ends.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from breadcrumbs.errors import CheckpointError
from breadcrumbs.machine import human, parse

if TYPE_CHECKING:  # most merges fetch nothing, and begin sooner without
    from concurrent.futures import Future, ThreadPoolExecutor

#: Reads of less than this part of a block do not ask for what follows.
_LOOK = 16
#: Blocks that are fetched at one time, of all files.
CONNECTIONS = 16
#: Bytes of memory that a block takes while it is fetched: it is written piece by piece.
_HELD = 3 << 20
#: Says where mirrors lie, and how much they may take: ``FOLDER`` or ``FOLDER:SIZE``.
SCRATCH = "BREADCRUMBS_SCRATCH"
#: Fetches bytes ``start`` to ``stop``: hands over pieces with where each begins.
Fetch = Callable[[int, int, Callable[[int, bytes], None]], None]


@dataclass(frozen=True)
class Sizes:
    """In what pieces files are fetched and uploaded, and how often that is tried.

    block: bytes of a request. ahead: blocks of a file that are asked for before they are needed.
    piece: bytes that are written at once. tries: of a request; wait: seconds before the second one.
    part: bytes of an upload at least of which there are several.
    """

    block: int = 8 << 20
    ahead: int = 4
    piece: int = 1 << 20
    tries: int = 8
    wait: float = 0.2
    part: int = 8 << 20


@dataclass(frozen=True)
class Identity:
    """What tells a file from any other without reading it.

    kind: ``sha256`` of its bytes, or the ``etag`` that a server gives it, which with ``version``
    says something at that place alone; "" where nothing does.
    """

    kind: str = ""
    value: str = ""
    version: str = ""

    def said(self) -> dict[str, str]:
        """Return it as a recipe has it."""
        return {self.kind: self.value, **({"version": self.version} if self.version else {})}


class Mirror:
    """A file of ``size`` bytes at ``url``, as far as it was read, in the file ``path``."""

    def __init__(self, url: str, path: Path, size: int, identity: Identity, fetch: Fetch):
        self.url, self.path, self.size, self.identity = url, path, size, identity
        self._fetch, self._sizes = fetch, sizes()
        self._lock = threading.Lock()
        self._have = bytearray(-(-size // self._sizes.block))
        self._coming: dict[int, Future[None]] = {}
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        os.ftruncate(self._fd, size)

    @property
    def missing(self) -> int:
        """How many bytes were not fetched yet."""
        return sum(self._bytes(block) for block, have in enumerate(self._have) if not have)

    @property
    def known(self) -> str | None:
        """What differs between any two files that are not the same; None if nothing tells."""
        it = self.identity
        if it.kind == "sha256":
            return it.value
        return f"{it.value} {it.version} {self.url}" if it.kind else None

    def ensure(self, start: int, stop: int, ahead: bool = False) -> None:
        """Fetch what is not there yet of some bytes; CheckpointError where that fails.

        ahead: whether what follows will be wanted too, unless so few bytes are that it is a look.
        """
        block = self._sizes.block
        ahead &= (stop - start) * _LOOK >= block
        first, last = start // block, min(len(self._have), -(-stop // block))
        end = min(len(self._have), last + self._sizes.ahead) if ahead else last
        if self._have.find(0, first, end) < 0:
            return
        with self._lock:
            coming = [self._ask(i) for i in range(first, end) if not self._have[i]]
            needed = coming[: self._have[first:last].count(0)]
        for future in needed:
            future.result()

    def _ask(self, block: int) -> Future[None]:
        """Return the fetching of a block, begun if it was not; called with the lock."""
        found = self._coming.get(block)
        if found is None or (found.done() and found.exception() is not None):
            found = self._coming[block] = _here().pool().submit(self._bring, block)
        return found

    def _bring(self, block: int) -> None:
        start = block * self._sizes.block
        _here().take(self._bytes(block), self.url)
        try:
            self._fetch(start, start + self._bytes(block), self._put)
        except BaseException:
            _here().take(-self._bytes(block), self.url)
            raise
        with self._lock:
            self._have[block] = 1
            self._coming.pop(block, None)

    def _put(self, at: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._fd, view, at)
                view, at = view[done:], at + done
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                said = f"{self.path}: cannot be written: {error.strerror}."
                raise CheckpointError(said) from None
            raise CheckpointError(
                f"{self.path.parent}: is full, with the models that lie elsewhere not yet there."
                " Give --scratch FOLDER with more room."
            ) from None

    def _bytes(self, block: int) -> int:
        return min(self._sizes.block, self.size - block * self._sizes.block)


class _Here:
    """The mirrors of this process, and where they lie."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.pid = os.getpid()
        self.by_path: dict[str, Mirror] = {}
        self.urls: dict[str, str] = {}
        self.by_url: dict[str, tuple[object, Path]] = {}
        self.taken = 0
        self._folder: Path | None = None
        self._numbers = itertools.count()
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(CONNECTIONS, "breadcrumbs-fetch")
            return self._pool

    def folder(self) -> Path:
        """Return a new folder for a mirror, in the scratch folder."""
        import tempfile
        from multiprocessing import util

        place, _ = scratch()
        with self._lock:
            if self._folder is None or self._folder.parent != place:
                try:
                    place.mkdir(parents=True, exist_ok=True)
                    self._folder = Path(tempfile.mkdtemp(prefix="breadcrumbs-mirror-", dir=place))
                except OSError as error:
                    raise CheckpointError(
                        f"{place}: cannot hold what is fetched: {error.strerror}. Give --scratch"
                        " FOLDER."
                    ) from None
                # Also at the end of worker processes, which run nothing of `atexit`.
                util.Finalize(None, shutil.rmtree, (self._folder, True), exitpriority=1)
            made = self._folder / str(next(self._numbers))
        made.mkdir()
        return made

    def take(self, nbytes: int, url: str) -> None:
        """Count bytes that are to be fetched; CheckpointError where no room is left for them."""
        _, limit = scratch()
        with self._lock:
            if limit is not None and self.taken + nbytes > limit:
                raise CheckpointError(
                    f"{url}: does not fit into the {human(limit)} of --scratch, of which"
                    f" {human(self.taken)} are taken. Give more."
                )
            self.taken += nbytes


_HERE = _Here(Sizes())


def _here() -> _Here:
    """Return the mirrors of this process: a child that was forked begins with none."""
    global _HERE
    if _HERE.pid != os.getpid():
        _HERE = _Here(_HERE.sizes)
    return _HERE


def sizes() -> Sizes:
    """Return in what pieces files are fetched."""
    return _here().sizes


@contextlib.contextmanager
def fresh(sizes: Sizes) -> Iterator[None]:
    """A context in which nothing is fetched yet, and files come in pieces of other sizes."""
    global _HERE
    before, _HERE = _here(), _Here(sizes)
    try:
        yield
    finally:
        _HERE = before


def scratch() -> tuple[Path, int | None]:
    """Return the folder in which mirrors lie and how many bytes they may have, None for any."""
    import tempfile

    text = os.environ.get(SCRATCH, "")
    folder, colon, size = text.rpartition(":")
    limit = None
    if colon and size[:1].isdigit():
        text, limit = folder, parse(size)
    return Path(os.path.expanduser(text or tempfile.gettempdir())), limit


def new_folder() -> Path:
    """Return a new folder in the scratch folder, which is removed when the program ends."""
    return _here().folder()


def known() -> dict[str, tuple[object, Path]]:
    """Return, to read and to change, what was found at a URL last and what stands for it here."""
    return _here().by_url


def add(mirror: Mirror) -> None:
    """Let `of` find a mirror from now on."""
    _here().by_path[os.path.abspath(mirror.path)] = mirror
    named(mirror.path, mirror.url)


def named(path: Path, url: str) -> None:
    """Note where a file was fetched from."""
    _here().urls[os.path.abspath(path)] = url


def url_of(path: str | os.PathLike[str]) -> str:
    """Return where a file was fetched from, "" of a file as any other."""
    known = _here().urls
    return known.get(os.path.abspath(path), "") if known else ""


def of(path: str | os.PathLike[str]) -> Mirror | None:
    """Return the mirror that lies at a path, None if what is there is a file as any other."""
    known = _here().by_path
    return known.get(os.path.abspath(path)) if known else None


def whole(paths: Iterable[Path]) -> None:
    """Fetch all of those files that are mirrors, for programs that read them by themselves."""
    for mirror in filter(None, map(of, paths)):
        mirror.ensure(0, mirror.size)


def memory(paths: Iterable[Path]) -> int:
    """Return the bytes of memory that fetching takes, none where all files lie here."""
    return CONNECTIONS * _HELD if any(map(of, paths)) else 0


def check_room(paths: Iterable[Path], output: int = 0) -> None:
    """Raise CheckpointError unless there is room for what is not fetched yet of mirrors.

    output: bytes that are written into the scratch folder besides.
    """
    mirrors = list(dict.fromkeys(filter(None, map(of, paths))))
    needed = sum(mirror.missing for mirror in mirrors) + output
    if not needed or (not mirrors and scratch()[1] is None):
        return
    folder, limit = scratch()
    room = 0 if limit is None else max(0, limit - _here().taken)
    there = mirrors[0].path if mirrors else folder
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(there).free
        room = free if limit is None else min(room, free)
    if needed > room:
        what = f"the models that lie elsewhere need {needed} bytes ({human(needed)}) while they are"
        what += f" read, {human(output)} of it for the output" if output else " read"
        raise CheckpointError(
            f"{folder}: {what}, and there is room for {human(room)}. Give --scratch FOLDER[:SIZE]."
        )
