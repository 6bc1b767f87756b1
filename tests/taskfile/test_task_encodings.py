"""Encodings that lose something: how much, in how many bytes, and what files of them do."""

from __future__ import annotations

import json
import random
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from families import WRITTEN, assert_same, checkpoints, packed
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, MismatchError, RecipeError
from breadcrumbs.kernels import PACKAGES, choose
from breadcrumbs.taskfile import encodings, zstd

LOSSY = ["int8", "int4", "ternary", "tvq:bits=4", "tvq:bits=2"]
#: Of what breadcrumbs keeps of Gaussian task vectors: magnitudes from 1.64 to 2.58 deviations.
MOST = {"int8": 0.002, "int4": 0.04, "ternary": 0.15, "tvq:bits=4": 0.06, "tvq:bits=2": 0.3}


@pytest.mark.parametrize("dtype", WRITTEN)
@pytest.mark.parametrize("encoding", LOSSY)
def test_the_error_is_what_is_said(tmp_path: Path, encoding: str, dtype: str) -> None:
    base, model = checkpoints(tmp_path, dtype, models=1)
    (file,) = packed(tmp_path, base, [model], encoding=encoding)
    exact = tmp_path / "exact.safetensors"
    tasks.pack(base, model, exact)
    (out,) = tasks.unpack(base, [file], tmp_path / "lossy")
    (whole,) = tasks.unpack(base, [exact], tmp_path / "whole")
    lost = length = largest = 0.0
    under, got, wanted = (dict(breadcrumbs.open(path)) for path in (base, out, whole))
    for name, mine in got.items():
        assert mine.dtype == wanted[name].dtype
        if name == "steps":
            assert (mine == wanted[name]).all()
            continue
        a, b, c = (x.astype(np.float64) for x in (under[name], mine, wanted[name]))
        assert (a[a == c] == b[a == c]).all()  # nothing where nothing is kept
        lost, length = lost + ((b - c) ** 2).sum(), length + ((c - a) ** 2).sum()
        largest = max(largest, np.abs(b - c).max(initial=0))
    with tasks.TaskFile.open(file) as task:
        said = task.about.error
        task.verify()
        assert task.about.encoding == encoding
    assert said["relative"] == pytest.approx((lost / length) ** 0.5, rel=1e-3)
    assert said["largest"] == pytest.approx(largest, rel=1e-3)
    rounding = {"bfloat16": 0.1, "float16": 0.02}.get(dtype, 0.0)
    assert 0 <= said["relative"] < MOST[encoding] + rounding
    assert said["relative"] > 0 or dtype == "bfloat16"


def test_sizes_at_a_tenth_of_the_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(0, 0.03, (2048, 1024))
    model = base + rng.normal(0, 0.002, base.shape)
    for name, weights in (("base", base), ("ft", model)):
        save_file({"w": weights.astype(ml_dtypes.bfloat16)}, tmp_path / f"{name}.safetensors")
    whole = (tmp_path / "ft.safetensors").stat().st_size
    found = {}
    for encoding in ("exact", "int8", "int4", "ternary"):
        path = tmp_path / "t.safetensors"
        cut = {"density": 0.1, "outliers": 0.01, "encoding": encoding, "force": True}
        said = tasks.pack(tmp_path / "base.safetensors", tmp_path / "ft.safetensors", path, **cut)
        assert said.density == pytest.approx(0.1, abs=0.005)
        found[encoding] = path.stat().st_size / whole
    assert found["exact"] <= 0.16 and found["int8"] <= 0.09 and found["ternary"] <= 0.04, found
    assert found["ternary"] < found["int4"] < found["int8"] < found["exact"]


def slow(encoding: str, tau: list[float]) -> list[float]:
    """Return what comes back of a block, in Python numbers."""
    if encoding.startswith("tvq"):
        levels = 2 ** int(encoding[-1]) - 1
        scale = levels / (max(tau) - min(tau))
        zero = -round(scale * min(tau))
        return [(min(max(round(scale * x + zero), 0), levels) - zero) / scale for x in tau]
    sizes = [abs(x) for x in tau]
    if encoding == "ternary":
        return [(sum(sizes) / len(sizes)) * (-1 if x < 0 else 1) for x in tau]
    levels = {"int8": 127, "int4": 7}[encoding]
    low, high = min(sizes), max(sizes)
    steps = [round((x - low) / (high - low) * levels) for x in sizes]
    back = [low + step * (high - low) / levels for step in steps]
    return [-x if y < 0 else x for x, y in zip(back, tau, strict=True)]


@pytest.mark.parametrize("encoding", LOSSY)
def test_as_the_formulas_say(encoding: str) -> None:
    rng = random.Random(7)
    base = np.array([rng.gauss(0, 1) for _ in range(99)])
    values = base + np.array([rng.gauss(0, 0.01) for _ in range(99)])
    made = encodings.asked(encoding)
    code, data = made.encode(values, base)
    found = made.decode(code, memoryview(data), 99, np.dtype(np.float64), base)
    expected = base + slow(encoding, (values - base).tolist())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("encoding", LOSSY)
def test_equal_magnitudes_come_back(encoding: str) -> None:
    base = np.zeros(50, np.float32)
    values = np.full(50, 0.25, np.float32)
    made = encodings.asked(encoding)
    code, data = made.encode(values, base)
    assert (made.decode(code, memoryview(data), 50, values.dtype, base) == values).all()
    values[::2] *= -1
    code, data = made.encode(values, base)
    if not encoding.startswith("tvq"):
        assert (made.decode(code, memoryview(data), 50, values.dtype, base) == values).all()


@pytest.mark.parametrize("encoding", [*LOSSY, "tsv:rank=4"])
def test_merging_is_that_of_the_unpacked(tmp_path: Path, encoding: str) -> None:
    for dtype in ("float32", "bfloat16"):
        base, *models = checkpoints(tmp_path / dtype, dtype)
        files = packed(tmp_path, base, models, transform="none", encoding=encoding)
        unpacked = tasks.unpack(base, files, tmp_path / dtype / "again")
        for kernel in ("numpy", "native"):
            for method in ("task_arithmetic", "ties"):
                settings = {"method": method, "kernel": kernel, "alpha": 0.5}
                merged = breadcrumbs.merge(base, files, **settings)
                assert_same(merged, breadcrumbs.merge(base, unpacked, **settings))


@pytest.mark.parametrize("encoding", ["ternary", "tsv:rank=4"])
def test_same_bytes_whatever_the_threads(tmp_path: Path, encoding: str) -> None:
    base, model = checkpoints(tmp_path, models=1)
    said = []
    for threads in (1, 3):
        path = tmp_path / f"t{threads}.safetensors"
        settings = {"encoding": encoding, "transform": "none", "name": "t"}
        tasks.pack(base, model, path, threads=threads, **settings)
        said.append(path.read_bytes())
    assert said[0] == said[1]


def test_triplets(tmp_path: Path) -> None:
    base, model = checkpoints(tmp_path, models=1)
    (file,) = packed(tmp_path, base, [model], transform="none", encoding="tsv:rank=5")
    (out,) = tasks.unpack(base, [file], tmp_path / "out")
    before, after, tuned = (dict(breadcrumbs.open(path)) for path in (base, out, model))
    for name in before:
        if name not in ("embed.weight", "layer.weight"):
            assert after[name].tobytes() == tuned[name].tobytes(), name
            continue
        tau, found = (x[name].astype(np.float64) - before[name] for x in (tuned, after))
        u, s, v = np.linalg.svd(tau, full_matrices=False)
        np.testing.assert_allclose(found, (u[:, :5] * s[:5]) @ v[:5], atol=2e-8)
    tensors = load_file(file)
    assert tensors["left/layer.weight"].shape == (64, 5)
    assert tensors["right/layer.weight"].shape == (5, 96)
    tau = tuned["layer.weight"].astype(np.float64) - before["layer.weight"]
    held = np.cumsum(np.linalg.svd(tau, compute_uv=False) ** 2)
    (file,) = packed(tmp_path, base, [model], transform="none", encoding="tsv:energy=.3")
    rank = load_file(file)["right/layer.weight"].shape[0]
    assert held[rank - 2] < 0.3 * held[-1] <= held[rank - 1]
    (file,) = packed(tmp_path, base, [model], transform="none", encoding="tsv:energy=1")
    assert not any(name.startswith("left/") for name in load_file(file))  # smaller as they are
    (whole,) = tasks.unpack(base, [file], tmp_path / "whole")
    assert_same(dict(breadcrumbs.open(whole)), tuned)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("int9", "there is no 'int9'. Did you mean 'int8'"),
        ("lora", "there is no 'lora'"),
        ("tvq:bits=9", "bits: '9' is not possible. Give a whole number from 1 to 8"),
        ("tvq:bit=3", "no parameter 'bit'.*Did you mean 'bits'"),
        ("tvq:3", "'3' is not KEY=VALUE"),
        ("tsv:rank=3,energy=.5", "rank or energy, not both"),
        ("tsv:rank=3", "takes whole task vectors. Pack with transform none"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, encoding: str, message: str) -> None:
    base, model = checkpoints(tmp_path, models=1)
    with pytest.raises(RecipeError, match=message):
        tasks.pack(base, model, tmp_path / "t.safetensors", encoding=encoding)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(LOSSY),
    st.integers(0, 3),
    st.integers(0, 40),
    st.binary(max_size=60),
    st.one_of(st.none(), st.tuples(st.floats(), st.floats())),
)
def test_any_bytes_are_values_or_refused(encoding, code, number, data, ends) -> None:
    if ends is not None:
        data = np.array(ends, "<f8").tobytes() + data
    base = np.linspace(-1, 1, number, dtype=np.float32)
    try:
        with np.errstate(over="ignore"):
            made = encodings.asked(encoding)
            values = made.decode(code, memoryview(data), number, base.dtype, base)
    except CheckpointError as error:
        assert str(error).isprintable()
    else:
        assert values.shape == (number,) and not np.isnan(values).any()


@pytest.mark.parametrize("frame", [bytes([0, 1, 16]), bytes(2), bytes(4), bytes(1 << 20)])
def test_frames_of_other_codes_are_refused(frame: bytes) -> None:
    data = memoryview(np.array([0.0, 1.0]).tobytes() + zstd.compress(frame))
    base = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError, match=r"other values than 3 of 4|at most 3 belong"):
        encodings.asked("int4").decode(1, data, 3, base.dtype, base)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_altered_files_are_refused(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.getbasetemp() / "altered"
    if not folder.exists():
        base, model = checkpoints(folder, models=1)
        for encoding in ("tsv:rank=3", "int4"):
            packed(folder, base, [model], transform="none", encoding=encoding)
            (folder / "ft1.safetensors").rename(folder / f"{encoding[:3]}.safetensors")
    kind = data.draw(st.sampled_from(["tsv", "int"]))
    whole = (folder / f"{kind}.safetensors").read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    parts = st.integers(0, head - 1) if data.draw(st.booleans()) else st.integers(0, len(whole) - 1)
    at = data.draw(parts)
    changed = bytearray(whole)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        changed = changed[: data.draw(st.integers(0, len(whole) - 1))]
    path = folder / "x.safetensors"
    path.write_bytes(changed)
    with pytest.raises(BreadcrumbsError) as raised, tasks.TaskFile.open(path) as task:
        task.verify()
    assert "\n" not in str(raised.value)


def test_products_that_lie_are_refused(tmp_path: Path) -> None:
    base, model = checkpoints(tmp_path, models=1)
    (file,) = packed(tmp_path, base, [model], transform="none", encoding="tsv:rank=3")
    from breadcrumbs.taskfile import about

    tensors = load_file(file)
    with breadcrumbs.open(file) as opened:
        metadata = dict(opened.metadata)
    said = json.loads(metadata[about.KEY])
    tables = {n[7:]: x.tobytes() for n, x in tensors.items() if n.startswith("blocks/")}

    def written(**changed) -> Path:
        lies = json.loads(json.dumps(said))
        lies["tensors"]["layer.weight"].update(changed)
        text = json.dumps(lies)
        now = {about.KEY: text, about.HASH: about.digest(text, tables)}
        save_file(tensors, tmp_path / "lie.safetensors", now)
        return tmp_path / "lie.safetensors"

    with (
        tasks.TaskFile.open(written()) as task,
        pytest.raises(MismatchError, match="read with the base's weights"),
    ):
        task.kept("layer.weight", 0)
    for error in ({"relative": 10**400, "largest": 0}, {"relative": 0, "largest": -1}, {}, 3):
        said["error"], honest = error, said["error"]
        with pytest.raises(CheckpointError):
            tasks.TaskFile.open(written())
        said["error"] = honest
    for changed in (
        {"rank": 2},
        {"rank": -3},
        {"rank": True},
        {"scale": float("nan")},
        {"scale": 10**400},
        {"digest": "x"},
        {"shape": [96, 64]},
        {"shape": [6144]},
        {"kept": 5},
        {"dtype": "I64"},
    ):
        with pytest.raises(CheckpointError):
            tasks.TaskFile.open(written(**changed))
    with (
        tasks.TaskFile.open(written(digest="0" * 64)) as task,
        pytest.raises(CheckpointError, match="does not match its hash"),
    ):
        task.verify()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_are_the_same_bits_everywhere(dtype: str) -> None:
    rng = np.random.default_rng(1)
    for m, n, rank in ((7, 9000, 3), (300, 40, 17), (1, 1, 1), (50, 1, 2)):
        left, right = (
            rng.normal(size=shape).astype(WRITTEN[dtype]).astype(np.float32)
            for shape in ((m, rank), (rank, n))
        )
        expected = np.zeros((m, n))
        for k in range(rank):
            expected += np.multiply.outer(left[:, k].astype(np.float64), right[k])
        for start, stop in ((0, m * n), (m * n // 3, m * n // 2 + 1), (m * n - 1, m * n)):
            for kernels in (choose(name) for name in PACKAGES):
                out = np.full(stop - start, np.nan)
                kernels.product(left, right, start, out)
                assert (out == expected.reshape(-1)[start:stop]).all()


def test_command_line(tmp_path: Path) -> None:
    base, model = checkpoints(tmp_path, models=1)
    pack = ["task", "pack", base, model, "-o", str(tmp_path / "t.safetensors")]
    ran = CliRunner().invoke(main, [*pack, "--encoding", "int4"])
    assert ran.exit_code == 0 and "values int4, which loses " in ran.output, ran.output
    ran = CliRunner().invoke(main, [*pack, "--encoding", "tvq", "--json", "--force"])
    said = json.loads(ran.output)
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "t.safetensors")])
    assert "values tvq:bits=4, which loses" in " ".join(shown.output.split())
    assert said["encoding"] == "tvq:bits=4" and 0 < said["error"]["relative"] < 1


@pytest.mark.parametrize("encoding", [*LOSSY, "tsv:rank=4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_statistics_and_buffers_lose_nothing(tmp_path: Path, encoding: str, dtype: str) -> None:
    """What is no weight but floating point is kept as it is beside coded weights."""
    rng, whole = np.random.default_rng(7), {"bn.running_var": 16, "pos.inv_freq": 8}
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    base = {name: rng.random(n).astype(kind) for name, n in whole.items()}
    base["w"] = rng.standard_normal((40, 50)).astype(kind)
    tuned = {name: (array + array * 2**-4).astype(kind) for name, array in base.items()}
    for name, arrays in (("base", base), ("tuned", tuned)):
        save_file(arrays, tmp_path / f"{name}.safetensors")
    path = tmp_path / "t.safetensors"
    tasks.pack(
        tmp_path / "base.safetensors",
        tmp_path / "tuned.safetensors",
        path,
        encoding=encoding,
        transform="none",
    )
    with tasks.TaskFile.open(path) as task:
        assert [t.name for t in task.tensors.values() if t.exact] == list(whole)
        task.verify()
    again = breadcrumbs.merge(base, [str(path)], method="task_arithmetic", alpha=1)
    for name in whole:
        assert again[name].tobytes() == tuned[name].tobytes()
    assert again["w"].tobytes() != tuned["w"].tobytes()
