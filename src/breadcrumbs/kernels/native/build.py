"""Builds the library of kernels: python -m breadcrumbs.kernels.native.build"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = [
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-Wall",
    "-Wextra",
]
LEVELS = {
    "base": ["-march=x86-64"],
    "v3": ["-march=x86-64-v3"],
    "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in sorted((HERE / "c").glob("*.c")):
            alone = source.stem == "level"
            for level, march in {"base": []}.items() if alone else LEVELS.items():
                for raw in (16,) if alone else (16, 32):
                    out = Path(folder) / f"{source.stem}-{level}-{raw}.o"
                    subprocess.run(
                        [
                            "gcc",
                            *FLAGS,
                            *march,
                            f"-DRAW={raw}",
                            f"-DLEVEL={level}",
                            "-c",
                            source,
                            "-o",
                            out,
                        ],
                        check=True,
                    )
                    objects.append(out)
        subprocess.run(["gcc", "-shared", *objects, "-o", HERE / "kernels.so", "-lm"], check=True)


if __name__ == "__main__":
    main()
