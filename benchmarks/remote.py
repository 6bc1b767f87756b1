"""Merges of models elsewhere against the same of files here: seconds, requests, bytes, one hash.

    python -m benchmarks.remote --folder /tmp/remote --latency 0.03

The models lie on a web server of this machine (``tests/range_server.py``), which waits before every
answer. Seconds are those of one run each, and say little on a busy machine; requests and bytes are
exact. Each merge is a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import Size, make

ROOT = Path(__file__).resolve().parents[1]
MERGE = "from breadcrumbs.cli import main; main()"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("remote-models"))
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "breadcrumbs"])
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from range_server import serving  # pyright: ignore[reportMissingImports]

    size = Size(layers=given.layers)
    places = [make(given.folder / f"m{i}", size, i) for i in range(given.models + 1)]
    print("| source | method | seconds | requests | bytes fetched | of | tensors |")
    print("|---|---|---|---|---|---|---|")
    for method in given.methods:
        row("files here", method, [str(place) for place in places], given.folder)
        with serving() as web:
            for place in places:
                for path in place.iterdir():
                    web.files[f"/{place.name}/{path.name}"] = path.read_bytes()
            web.latency = given.latency
            urls = [f"{web.url}/{place.name}" for place in places]
            row(f"web, {1000 * given.latency:g} ms", method, urls, given.folder, web)


def row(source: str, method: str, models: list[str], folder: Path, web: Any = None) -> None:
    """Merge, and print a row of the table."""
    output = folder / "merged"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", MERGE, "merge", *models, "-o", str(output), "-m", method]
    command += ["-p", "alpha=0.5", "-q", "--scratch", str(folder / "scratch")]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - began
    counts = ["", "", ""]
    if web:
        weights = {path for path in web.files if path.endswith(".safetensors")}
        requests = sum(path in weights for _, path, _ in web.asked)
        fetched = sum(stop - start for path in weights for start, stop in web.parts(path))
        counts = [str(requests), str(fetched), str(sum(len(web.files[path]) for path in weights))]
    print(f"| {' | '.join([source, method, f'{seconds:.1f}', *counts, digest(output)])} |")


def digest(output: Path) -> str:
    """Return a hash of the bytes of all tensors of a merge."""
    hasher = hashlib.sha256()
    for path in sorted(output.glob("*.safetensors")):
        with path.open("rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            while piece := file.read(1 << 24):
                hasher.update(piece)
    return hasher.hexdigest()[:12]


if __name__ == "__main__":
    main()
