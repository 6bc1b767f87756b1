"""The floor of a spectral method: nothing but the singular value decompositions that it needs.

    python benchmarks/svds.py METHOD THREADS BASE MODEL...

Reads the matrices, as the method does, decomposes them with NumPy in float64, without a call more,
and throws the results away; tensors are dealt to threads, each with one thread of linear algebra.
"""

import os

if __name__ == "__main__":  # before NumPy is imported, and not where only the table is wanted
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from safetensors import safe_open

#: (T, m, n) -> the shapes of the matrices that are decomposed.
NEEDS = {
    "tsv_m": lambda t, m, n: [(m, n)] * t + _polar(t, m, n),
    "iso_c": lambda t, m, n: [(m, n)],
    "iso_cts": lambda t, m, n: [(m, n)] * (t + 1) + _polar(1, m, n),
    "star": lambda t, m, n: [(m, n)] * t,
}


def _polar(t: int, m: int, n: int) -> list[tuple[int, int]]:
    """Return the shapes of the two matrices of all triplets side by side."""
    count = t * (min(m, n) // t)
    return [(m, count), (count, n)]


def main(method: str, threads: int, base: str, models: list[str]) -> None:
    files = [_tensors(folder) for folder in (base, *models)]

    def one(name: str) -> None:
        start = _read(files[0][name], name)
        if start.ndim != 2:
            return
        taus = [_read(file[name], name) - start for file in files[1:]]
        for i, shape in enumerate(NEEDS[method](len(taus), *start.shape)):
            matrix = taus[i % len(taus)]
            if matrix.shape != shape:  # of the same number of rows and columns
                matrix = np.resize(matrix, shape)
            np.linalg.svd(matrix if shape[0] >= shape[1] else matrix.T, full_matrices=False)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, files[0]))


def _tensors(folder: str) -> dict[str, str]:
    """Return the file of every tensor."""
    where = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            path = os.path.join(folder, file)
            with safe_open(path, "np") as opened:
                where |= dict.fromkeys(opened.keys(), path)
    return where


def _read(path: str, name: str) -> np.ndarray:
    with safe_open(path, "np") as opened:
        return opened.get_tensor(name).astype(np.float64)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
