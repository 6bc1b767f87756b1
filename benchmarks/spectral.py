"""Time the arithmetic of spectral methods on single matrices, beside others' on the same ones.

    python -m benchmarks.spectral --peer PYTHON --output benchmarks/results/spectral.json

Of each method and shape, with one thread, in processor seconds, medians of alternating runs:

* ``breadcrumbs``: this program's arithmetic, float64.
* ``svds``: the same with SVDs of LAPACK alone, float64. What all others differ from is that of it.
* ``torch``: the formulas of the papers in plain Torch, as their authors' programs compute them,
  float32.
* ``fusionbench``: FusionBench's own functions, float32; run by ``--peer``, the Python of a virtual
  environment that has ``fusion_bench``, and left out without one. It has no STAR.

Task vectors are seeded float32: normal numbers; products of rank 16 (adapters), which only programs
that know which singular values are 0 agree on; or differences whose singular values fall as
``1 / k^1.5``. Each program is a process, which is handed the work line by line.
"""

import os
import sys

if "--work" in sys.argv:  # before NumPy is imported
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"

import argparse
import contextlib
import importlib
import io
import json
import statistics
import subprocess
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import numpy as np

METHODS = ("tsv_m", "iso_c", "iso_cts", "star")
SHAPES = ((512, 512), (1408, 512), (512, 1408), (1024, 1024), (2816, 1024), (1024, 2816))
KINDS = ("normal", "adapters", "falling")
MODELS, COMMON, ETA = 4, "0.8", "0.4"


def task_vectors(kind: str, m: int, n: int) -> np.ndarray:
    """Return ``(MODELS, m, n)`` float32."""
    rng = np.random.default_rng([KINDS.index(kind), m, n])
    if kind == "normal":
        return (0.002 * rng.standard_normal((MODELS, m, n))).astype(np.float32)
    d = 16 if kind == "adapters" else min(m, n)
    left, right = rng.standard_normal((MODELS, m, d)), rng.standard_normal((MODELS, d, n))
    falls = np.ones(d) if kind == "adapters" else np.arange(1.0, d + 1) ** -1.5
    return ((1e-4 * left * falls) @ right).astype(np.float32)


# --- plain Torch, from the papers ----------------------------------------------------------------


def plain(method, taus):
    """Return the merged task vector as the authors' programs compute it."""
    import torch

    def svd(x):
        return torch.linalg.svd(x, full_matrices=False)

    def polar(x):
        u, _, v = svd(x)
        return u @ v

    shape, models = taus.shape[1:], len(taus)
    d = min(shape)
    if method == "iso_c":
        u, s, v = svd(taus.sum(0))
        return s.mean() * u @ v
    if method == "star":
        total = torch.zeros_like(taus[0])
        for tau in taus:
            u, s, v = svd(tau)
            held = torch.cumsum(s, 0)
            r = int((held < float(ETA) * held[-1]).sum()) + 1
            total += (u[:, :r] * (s[:r] * held[-1] / held[r - 1])) @ v[:r]
        return total / models
    parts, count = [], d // models
    if method == "iso_cts":
        count = round((d - int(float(COMMON) * d)) / models)
        u, s, v = svd(taus.sum(0))
        shared = d - count * models
        common = (u[:, :shared], s[:shared], v[:shared])
        taus = taus - common[0] @ (common[0].T @ taus)
        parts.append(common)
    for tau in taus:
        u, s, v = svd(tau)
        parts.append((u[:, :count], s[:count], v[:count]))
    us, ss, vs = zip(*parts, strict=True)
    u, s, v = torch.cat(us, 1), torch.cat(ss), torch.cat(vs)
    if method == "iso_cts":
        return s.mean() * polar(u) @ polar(v)
    return (polar(u) * s) @ polar(v)


# --- the programs --------------------------------------------------------------------------------


def breadcrumbs(method, taus):
    from breadcrumbs.methods.published import iso, star, tsv_m

    functions = {
        "tsv_m": tsv_m.tsv_m,
        "iso_c": iso.iso_c,
        "iso_cts": iso.iso_cts,
        "star": star.star,
    }
    values = {"common": Decimal(COMMON), "eta": Decimal(ETA)}
    return functions[method](taus.astype(np.float64), values)


def fusionbench(method, taus):
    iso = importlib.import_module("fusion_bench.method.isotropic_merging.iso_utils")
    tsv = importlib.import_module("fusion_bench.method.task_singular_vector.utils.TSVM_utils")
    given = [{"w": tau} for tau in taus]
    with contextlib.redirect_stdout(io.StringIO()):
        if method == "iso_c":
            return iso.iso_c(given, accelerator="cpu")["w"]
        if method == "iso_cts":
            return iso.iso_cts(given, float(COMMON), accelerator="cpu")["w"]
        return tsv.compute_and_sum_svd_mem_reduction(given, accelerator="cpu")["w"]


def work(program: str, folder: Path) -> None:
    """Do what is asked for, a line of JSON each; the result goes to a file of the program's."""
    if program == "svds":
        from breadcrumbs.methods.aggregates import singular

        singular.FEW = sys.maxsize
    if program in ("torch", "fusionbench"):
        import torch

        torch.set_num_threads(1)
    function = {"torch": plain, "fusionbench": fusionbench}.get(program, breadcrumbs)

    def run(method: str, kind: str, m: int, n: int) -> tuple[float, float]:
        taus = task_vectors(kind, m, n)
        given = torch.from_numpy(taus) if program in ("torch", "fusionbench") else taus
        seconds, began = time.process_time(), time.perf_counter()
        found = function(method, given)
        took = time.process_time() - seconds, time.perf_counter() - began
        np.save(folder / f"{program}.npy", np.asarray(found, np.float64))
        return took

    for method in METHODS[: 3 if program == "fusionbench" else 4]:  # imports are not timed
        run(method, "normal", 64, 80)
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--peer", help="Python of a virtual environment that has fusion_bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--most", type=int, default=1 << 30, help="entries of a matrix")
    parser.add_argument("--output", help="JSON file to write")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]))
        return
    pythons: dict[str, str] = dict.fromkeys(("breadcrumbs", "svds", "torch"), sys.executable)
    if options.peer:
        pythons["fusionbench"] = options.peer
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        workers = {}
        for program, python in pythons.items():
            command = [python, str(Path(__file__).resolve()), "--work", program, str(folder)]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
            workers[program] = stack.enter_context(process)
        for kind in options.kinds:
            for shape in SHAPES if kind == "normal" else SHAPES[1:3]:
                for method in options.methods if np.prod(shape) <= options.most else ():
                    row = compare(workers, folder, method, kind, shape, options.rounds)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
        for worker in workers.values():
            worker.stdin.close()
    if options.output:
        from benchmarks import programs

        command = "python -m benchmarks.spectral --peer PYTHON"
        found = {"rows": rows, "machine": programs.machine(), "command": command}
        Path(options.output).write_text(json.dumps(found, indent=1) + "\n")


def compare(workers, folder, method, kind, shape, rounds):
    """Return the row of a method and a shape: medians, ratios, and what results differ by."""
    taken = {}
    for _ in range(rounds):
        for program, worker in workers.items():
            if program == "fusionbench" and method == "star":
                continue
            worker.stdin.write(json.dumps([method, kind, *shape]) + "\n")
            worker.stdin.flush()
            taken.setdefault(program, []).append(json.loads(worker.stdout.readline())[0])
    row = {"method": method, "kind": kind, "shape": list(shape), "models": MODELS}
    exact = np.load(folder / "svds.npy")
    mine = statistics.median(taken["breadcrumbs"])
    for program, times in taken.items():
        found = np.load(folder / f"{program}.npy")
        middle = statistics.median(times)
        row[program] = {
            "cpu_seconds": round(middle, 3),
            "times_breadcrumbs": round(middle / mine, 2),
            "differs": float(f"{np.abs(found - exact).max() / np.abs(exact).max():.1e}"),
        }
    return row


if __name__ == "__main__":
    main()
