"""What a machine must have before it does something for another: versions, plugins and files."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from blake3 import blake3

from breadcrumbs.errors import OutputError
from breadcrumbs.version import __version__

#: Seconds until a file that one machine wrote must be seen by another, as NFS needs some.
PATIENCE = 10.0


@dataclass(frozen=True)
class Needs:
    """What a machine must have. folder: where relative paths begin; token: a file that was written
    for it, if something is to be written; inputs: what must be there. by, plugins: as here;
    packages: of which versions must be as here, besides. storage: what must be shared, in words."""

    folder: str
    token: str | None
    inputs: tuple[str, ...]
    by: tuple[tuple[str, str], ...]
    plugins: tuple[tuple[str, str], ...] = ()
    packages: tuple[str, ...] = ()
    storage: str = "inputs and an output"
    patience: float = PATIENCE


def needs(
    inputs: Sequence[str],
    *,
    token: str | None = None,
    plugins: Sequence[str] = (),
    packages: Sequence[str] = (),
    storage: str = Needs.storage,
    patience: float = PATIENCE,
) -> Needs:
    """Return what this machine has of what others need. inputs: paths, of which those count that
    are here."""
    return Needs(
        os.getcwd(),
        token,
        tuple(path for path in inputs if Path(path).exists()),
        versions(packages),
        tuple((plugin, hashed(Path(plugin))) for plugin in plugins),
        tuple(packages),
        storage,
        patience,
    )


def check(it: Needs) -> bool:
    """Return True on a machine that has what is needed; OutputError says what it lacks.

    The process goes to where relative paths begin.
    """
    here = socket.gethostname()
    with contextlib.suppress(OSError):
        os.chdir(it.folder)
    mine = versions(it.packages)
    if mine != it.by:
        both = (", ".join(f"{name} {said}" for name, said in one) for one in (mine, it.by))
        raise OutputError("{}: has {}, and this is {}. Install the same.".format(here, *both))
    for path, digest in it.plugins:
        if not Path(path).exists() or hashed(Path(path)) != digest:
            raise OutputError(f"{here}: {path} is not there, or another plugin. Give all the same.")
    for path in (*([it.token] if it.token else ()), *it.inputs):
        until = time.monotonic() + it.patience
        while not Path(path).exists():
            if time.monotonic() > until:
                what = Path(path).parent if path == it.token else path
                raise OutputError(
                    f"{here}: does not see {what}, which is here. Give {it.storage} on storage that"
                    " all machines share."
                )
            time.sleep(0.1)
    return True


def versions(packages: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Return the versions of this program and of what its numbers depend on."""
    found = [("Breadcrumbs", __version__), ("NumPy", np.__version__)]
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return tuple(found)


def hashed(path: Path) -> str:
    """Return the hash of a file's bytes."""
    return blake3(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def token(folder: Path) -> Iterator[str]:
    """Write a file into a folder for as long, and give its path."""
    place = folder / f".token-{secrets.token_hex(8)}"
    place.touch()
    try:
        yield str(place)
    finally:
        with contextlib.suppress(OSError):
            place.unlink()
