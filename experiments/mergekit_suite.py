"""Run the configurations of tests/mergekit_suite through mergekit and through Breadcrumbs.

    python -m experiments.mergekit_suite --mergekit /path/to/mergekit-yaml [--only ties ...]

mergekit stays in an environment of its own. Writes, for the tests, a sample of what it returned
(tests/mergekit_suite/golden.safetensors), and experiments/results/mergekit.json: the largest
difference between the two in any entry, over the largest magnitude of the entry's tensor. Where the
output is bfloat16, mergekit is run in float64 as well, and both are compared with that: the mean of
such differences.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SUITE = HERE.parent / "tests" / "mergekit_suite"
RESULTS = HERE / "results" / "mergekit.json"
#: Every so many entries one is kept for the tests.
STRIDE = 19


def main() -> None:
    """Run the suite; print one line a configuration."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--mergekit", required=True, help="the command mergekit-yaml")
    parser.add_argument("--folder", type=Path, help="to keep models and mergekit's results in")
    parser.add_argument("--only", nargs="*", help="these configurations, and write nothing")
    given = parser.parse_args()
    sys.path.insert(0, str(SUITE.parent))
    from mergekit_suite import models  # pyright: ignore[reportAttributeAccessIssue]
    from safetensors.numpy import save_file

    rows, golden = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for family in models.FAMILIES:
            if not (folder / f"{family}base").exists():
                models.save(folder, family)
        for path in sorted(SUITE.glob("configs/*.yml")):
            if given.only and path.stem not in given.only:
                continue
            text = path.read_text()
            theirs = _theirs(given.mergekit, folder, path.stem, text)
            ours = _ours(folder, path.stem, text)
            row = {"entries": int(sum(a.size for a in theirs.values())), **_row(ours, theirs)}
            if "bfloat16" in text:
                wide = _theirs(given.mergekit, folder, path.stem + "-wide", _widened(text))
                row["mean_from_float64"] = {
                    "ours": _mean(ours, wide),
                    "mergekit": _mean(theirs, wide),
                }
                theirs = wide
            golden[path.stem] = models.flat(theirs)[::STRIDE].astype(np.float32)
            rows[path.stem] = row
            print(path.stem, json.dumps(row), flush=True)
    if given.only:
        return
    save_file(golden, SUITE / "golden.safetensors")
    RESULTS.parent.mkdir(exist_ok=True)
    about = {"mergekit": _version(given.mergekit), "configurations": rows}
    RESULTS.write_text(json.dumps(about, indent=1) + "\n")


def _widened(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith(("dtype:", "out_dtype:"))]
    return "\n".join([*lines, "dtype: float64", ""])


def _theirs(command: str, folder: Path, name: str, text: str) -> dict[str, np.ndarray]:
    made = folder / f"theirs-{name}"
    if made.exists() and (folder / f"{name}.yml").read_text() == text:
        return _load(made)
    (folder / f"{name}.yml").write_text(text)
    run = [command, f"{name}.yml", f"theirs-{name}", "--quiet", "--random-seed", "0"]
    run += ["--no-write-model-card", "--no-copy-tokenizer"]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: mergekit failed:\n{done.stderr[-3000:]}")
    return _load(made)


def _ours(folder: Path, name: str, text: str) -> dict[str, np.ndarray]:
    (folder / f"{name}.yml").write_text(text)
    run = [sys.executable, "-c", "from breadcrumbs.cli import main; main()"]
    run += ["merge", f"{name}.yml", "-o", f"ours-{name}", "-q", "--force"]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: Breadcrumbs failed:\n{done.stderr[-3000:]}")
    return _load(folder / f"ours-{name}")


def _load(path: Path) -> dict[str, np.ndarray]:
    import breadcrumbs

    return {name: values.astype(np.float64) for name, values in breadcrumbs.load(path).items()}


def _row(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, object]:
    if set(found) != set(wanted):
        return {"largest": None, "tensors": sorted(set(found) ^ set(wanted))}
    worst, where, more = 0.0, "", 0
    for name, values in wanted.items():
        off = np.abs(found[name] - values) / np.abs(values).max(initial=1e-30)
        more += int(np.count_nonzero(off > 1e-6))
        if off.max(initial=0) > worst:
            worst, where = float(off.max()), name
    return {"largest": worst, "tensor": where, "beyond_1e-6": more}


def _mean(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """Return the mean difference of entries, each over the largest magnitude of its tensor."""
    parts = [np.abs(found[k] - v).reshape(-1) / np.abs(v).max() for k, v in wanted.items()]
    return float(np.concatenate(parts).mean())


def _version(command: str) -> str:
    python = Path(command).parent / "python"
    code = "import importlib.metadata as m; print(m.version('mergekit'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
