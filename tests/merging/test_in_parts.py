"""Merges in parts give the bytes of one process, whoever does them, in any order, and killed."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantised_files
from click.testing import CliRunner
from safetensors.numpy import save_file

from breadcrumbs.cli.group import main
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, OutputError, RecipeError
from breadcrumbs.merging import files, opening
from breadcrumbs.merging.parts import Merge, PartReport, commit, drive, merge_part, on_processes
from breadcrumbs.merging.parts.state import Folder
from breadcrumbs.methods import registry
from breadcrumbs.plan import Sizes
from breadcrumbs.plan.recipe import Model, Recipe

#: Chunks and segments so small that tensors have several, and bounds that every pass meets.
SMALL = Sizes(chunk=256, arena=1 << 12, run=32, few=1 << 11)
#: So many bytes make five files of the family below; the copy of a table is in the last.
SHARD = 4100
CASES: dict[str, dict[str, Any]] = {
    "ranks of tensors": {"method": "breadcrumbs", "beta": 0.3, "gamma": 0.9},
    "ranks of the model": {"method": "breadcrumbs", "granularity": "model"},
    "ranks of the model, without ties": {
        "method": "breadcrumbs", "granularity": "model", "family": "no ties",
    },
    "ranks of the model, by histograms": {
        "method": "bottom_masking", "granularity": "model", "sizes": {"budget": 64, "bins": 64},
        "family": "no ties",
    },
    "an election": {"method": "ties", "granularity": "model"},
    "elections of a pipeline": {
        "method": "ties", "granularity": "model", "family": "a pipeline",
    },
    "an election, and alpha": {"method": "ties", "granularity": "model", "alpha": "auto"},
    "alpha": {"method": "breadcrumbs", "alpha": "auto"},
    "a sum": {"method": "task_arithmetic"},
    "drawn": {"method": "dare_linear"},
    "norms": {"method": "breadcrumbs+elect", "rescale": "l1", "granularity": "model"},
    "fits": {"method": "tvq"},
    "inner products": {"method": "nuslerp"},
    "matrices": {"method": "iso_c"},
    "a cut of the model": {"method": "tatr"},
    "a cut of the model, of ranks": {"method": "breadcrumbs+pcb", "beta": 0.3, "gamma": 0.9},
    "a number of the model": {"method": "emr", "task": "ft1"},
    "votes": {"method": "consensus", "on": "ties"},
    "energies": {"method": "sce", "density": 0.3},
    "a gram of the model": {"method": "awd"},
}  # fmt: skip
WITHOUT_ALPHA = ("tvq", "nuslerp", "emr", "awd", "sce")


def family(folder: Path, ties: bool = True) -> list[str]:
    """Write a base and two fine-tunings with many equal magnitudes and sums of zero, unless no two
    are equal, and a table of two names, one in the first file of an output and one in the last."""
    rng = np.random.default_rng(3)
    shapes = {"b.embed_tokens.weight": (32, 32), "z.weight": (24, 40), "a.weight": (30, 33),
              "m.bias": (40,), "scale": (), "c.weight": (16, 64)}  # fmt: skip
    base = {name: rng.integers(-8, 9, shape) / 4 for name, shape in shapes.items()}
    paths = []

    def moved(shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(-3, 4, shape) / 8 if ties else rng.normal(0, 0.1, shape)

    for number in range(3):
        model = {
            name: np.asarray(values + bool(number) * moved(values.shape))
            for name, values in base.items()
        }
        model["m.bias"] = base["m.bias"]
        model["b.lm_head.weight"] = model["b.embed_tokens.weight"]
        arrays: dict[str, Any] = {name: it.astype(np.float32) for name, it in model.items()}
        arrays["steps"] = np.arange(3)
        path = folder / ("base" if not number else f"ft{number}")
        path.mkdir(parents=True)
        save_file(arrays, path / "model.safetensors")
        said = {"model_type": "x", "tie_word_embeddings": True}
        (path / "config.json").write_text(json.dumps(said))
        (path / "tokenizer.json").write_text("{}")
        paths.append(str(path))
    return paths


def pipeline(folder: Path) -> list[str]:
    """Write a pipeline and two fine-tunings, whose components elect different signs."""
    rng, paths = np.random.default_rng(5), []
    first = rng.integers(-8, 9, (40, 30)) / 4
    for number in range(3):
        path = folder / ("base" if not number else f"ft{number}")
        for part, lean in (("text_encoder", 1), ("unet", -1)):
            state = {}
            for name in ("a.weight", "b.weight", "c.weight"):
                step = rng.integers(-2, 3, first.shape) + lean * (rng.random(first.shape) < 0.3)
                state[name] = (first + bool(number) * step / 8).astype(np.float32)
            stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
            (path / part).mkdir(parents=True)
            save_file(state, path / part / f"{stem}.safetensors")
        index = {part: ["library", "Class"] for part in ("text_encoder", "unet")}
        (path / "model_index.json").write_text(json.dumps({"_class_name": "P", **index}))
        paths.append(str(path))
    return paths


class Bench:
    """Merges of one family, and what one process makes of them."""

    def __init__(self, folder: Path):
        self.folder, self.paths, self.number = folder, family(folder / "in"), 0
        self.families = {
            "ties": self.paths,
            "no ties": family(folder / "plain", ties=False),
            "a pipeline": pipeline(folder / "pipeline"),
        }
        self.known: dict[str, Path] = {}

    def merge(self, case: str = "a sum", **changes: Any) -> Merge:
        """Return a merge in parts into a folder of its own."""
        given = {**CASES[case], **changes}
        if given["method"] not in WITHOUT_ALPHA:
            given.setdefault("alpha", 0.5)
        sizes = replace(SMALL, **given.pop("sizes", {}))
        base, *models = self.families[given.pop("family", "ties")]
        recipe = Recipe(base, tuple(map(Model, models)), given.pop("method"), given)
        self.number += 1
        return Merge(recipe, str(self.folder / str(self.number) / "out"), SHARD, sizes=sizes)

    def one(self, case: str) -> Path:
        """Return what one process writes, once."""
        if case not in self.known:
            it = self.merge(case)
            with opening.opened(it.recipe, sizes=it.sizes, by_token=True) as plan:
                files.to_files(plan, it.output, threads=1, shard_size=SHARD)
            self.known[case] = Path(it.output)
        return self.known[case]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("parts"))


def assert_same(one: Path, other: str | Path) -> None:
    """Check that two folders have the same files, to the byte, and nothing is left beside."""
    names = sorted(p.relative_to(one).as_posix() for p in one.rglob("*"))
    assert names == sorted(p.relative_to(other).as_posix() for p in Path(other).rglob("*"))
    files_ = [name for name in names if (one / name).is_file()]
    _, wrong, lost = filecmp.cmpfiles(one, other, files_, shallow=False)
    assert not wrong and not lost
    assert not Path(f"{other}.partial").exists()


def rounds(it: Merge, order: Callable[[int], Iterable[tuple[int, int]]]) -> list[PartReport]:
    """Have all parts done until none waits. order: the parts of a round, by its number."""
    for number in range(20):
        found = [merge_part(it, k, n, threads=1) for k, n in order(number)]
        if not any(report.again for report in found):
            return found
    raise AssertionError([report.waits for report in found])


ORDERS: dict[str, Callable[[int], list[tuple[int, int]]]] = {
    "in order": lambda number: [(1, 2), (2, 2)],
    "in reverse, and dealt anew": lambda number: [
        (k, 5 - number % 4) for k in range(5 - number % 4, 0, -1)
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_the_bytes_are_those_of_one_process(case: str, bench: Bench) -> None:
    for order in ORDERS.values():
        it = bench.merge(case)
        found = rounds(it, order)
        assert found[0].of > 4
        commit(it)
        assert_same(bench.one(case), it.output)


@pytest.mark.parametrize("case", ["an election", "elections of a pipeline"])
def test_what_a_wrong_majority_decided_is_written_again(case: str, bench: Bench) -> None:
    it = bench.merge(case)
    first = merge_part(it, 1, 1, threads=1)
    notes = {path.name for path in Path(f"{it.output}.partial").glob("notes-*")}
    assert notes == {"notes-minus", "notes-plus"} and len(first.written) >= first.of
    again = merge_part(it, 1, 1, threads=1)
    assert not again.written
    commit(it)
    assert_same(bench.one(case), it.output)


@pytest.mark.parametrize("case", ["an election", "ranks of tensors"])
def test_on_processes_and_twice_at_once(case: str, bench: Bench) -> None:
    it = bench.merge(case)
    if case == "ranks of tensors":
        on_processes(it, 2, threads=2)
        assert_same(bench.one(case), it.output)
        return
    ended: list[Any] = []

    def each(numbers: Sequence[int]) -> Iterable[PartReport]:
        return [merge_part(it, k, 3, threads=1, sync=False) for k in numbers]

    def run() -> None:
        try:
            ended.append(drive(it, 3, each, sync=False))
        except OutputError as error:
            ended.append(error)

    drivers = [threading.Thread(target=run) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert_same(bench.one(case), it.output)
    late = [error for error in ended if isinstance(error, OutputError)]
    assert len(late) < 2 and all("exists" in str(e) or "committed" in str(e) for e in late), ended


def test_killed_anywhere(bench: Bench, tmp_path: Path) -> None:
    """A part and the commit, killed at every few of their writes and renames, and run again."""
    case = "an election, and alpha"
    script = Path(__file__).parents[1] / "parts_killing.py"
    made = bench.merge(case)
    (tmp_path / "merge.json").write_text(
        json.dumps([made.recipe.base, [m.path for m in made.recipe.models], CASES[case], SHARD])
    )
    one = str(bench.one(case))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), one], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    points = int(done.stdout.split()[0])
    assert points > 40  # writes there are of a merge
    for output in tmp_path.glob("*/out"):
        assert_same(Path(one), output)


# --- what is refused ---


def pass_files(it: Merge) -> list[Path]:
    return sorted(Path(f"{it.output}.partial", "pass-1").iterdir())


@pytest.mark.parametrize("lie", ["damaged", "of another shard", "of another merge", "cut off"])
def test_a_result_that_lies_is_refused(lie: str, bench: Bench) -> None:
    it = bench.merge("ranks of the model")
    merge_part(it, 1, 2, threads=1)
    first, second, *_ = pass_files(it)
    if lie == "damaged":
        data = bytearray(first.read_bytes())
        data[-3] ^= 1
        first.write_bytes(data)
    elif lie == "of another shard":
        first.write_bytes(second.read_bytes())
    elif lie == "cut off":
        first.write_bytes(first.read_bytes()[:-8])
    else:
        other = bench.merge("ranks of the model", beta=0.5)
        merge_part(other, 1, 2, threads=1)
        first.write_bytes(pass_files(other)[0].read_bytes())
    with pytest.raises(OutputError, match=r"pass-1/00001: is not what was written there"):
        merge_part(it, 2, 2, threads=1)
    first.unlink()
    rounds(it, ORDERS["in order"])
    commit(it)
    assert_same(bench.one("ranks of the model"), it.output)


@pytest.mark.parametrize("column", [0, 1])
def test_counts_that_are_more_than_there_are_entries_are_refused(column: int, bench: Bench) -> None:
    it = bench.merge("ranks of the model")
    merge_part(it, 1, 2, threads=1)
    folder = Folder(Path(it.output))
    folder.plan()
    name, items, found = folder.read("pass-1", 1)
    found[0][1][0][0, 0, 2 * column] += 4096
    folder.write("pass-1", 1, [name, items, found])
    with pytest.raises(OutputError, match="pass-1/00001: counts"):
        merge_part(it, 2, 2, threads=1)


def test_two_merges_do_not_mix(bench: Bench) -> None:
    it = bench.merge()
    merge_part(it, 1, 2, threads=1)
    others = [
        replace(it, recipe=replace(it.recipe, parameters={"alpha": 0.6})),
        replace(it, recipe=replace(it.recipe, seed=4)),
        replace(it, shard_size=SHARD + 4),
    ]
    for other in others:
        with pytest.raises(OutputError, match="was begun with another recipe"):
            merge_part(other, 2, 2, threads=1)
        with pytest.raises(OutputError, match="was begun with another recipe"):
            commit(other)
    with (
        opening.opened(it.recipe) as plan,
        pytest.raises(OutputError, match="a merge in parts is under way"),
    ):
        files.to_files(plan, it.output, threads=1)
    with pytest.raises(OutputError, match=r"3 of 5 are missing|2 of 5 are missing"):
        commit(it)


@pytest.mark.parametrize("what", ["version", "numpy", "plugin"])
def test_other_programs_are_refused(
    what: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: None
) -> None:
    plugin = tmp_path / "own.py"
    plugin.write_text(PLUGIN)
    registry.load_plugin(plugin)
    it = replace(bench.merge(), plugins=(str(plugin),))
    it = replace(it, recipe=replace(it.recipe, method="own", parameters={}))
    merge_part(it, 1, 2, threads=1)
    if what == "plugin":
        plugin.write_text(PLUGIN + "# changed\n")
    else:
        from breadcrumbs.merging.parts import doing

        owner, name = (doing, "__version__") if what == "version" else (doing.np, "__version__")
        monkeypatch.setattr(owner, name, "0.0.1")
    with pytest.raises(OutputError, match=r"another plugin|(NumPy|Breadcrumbs) 0\.0\.1"):
        merge_part(it, 2, 2, threads=1)


PLUGIN = """
from breadcrumbs.methods import Everything, Elementwise, Method

def first(entries, values):
    return entries.taus[0]

METHOD = Method("own", Everything(), Elementwise(combine=first, name="own"), "the first", "f", "p")
"""

CALIBRATED = """
from breadcrumbs.methods import AUTO, Calibration, Coefficients, Factor, Linear

def find(plan, run):
    return Coefficients({"scale": 0.25})

SCALED = Linear(
    factor=lambda values, weights: values["scale"],
    parameters={"scale": Factor(AUTO, "the factor")},
)
FOUND = Calibration("weights", find)
METHODS = [Method("found", Everything(), SCALED, "a sum", "f", "p", calibration=FOUND)]
"""


def test_an_input_that_changes_is_an_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    it = bench.merge()
    merge_part(it, 1, 2, threads=1)
    path = Path(bench.paths[1], "model.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\0\0\0\0")
    with pytest.raises(CheckpointError, match=r"ft1: model.safetensors changed since"):
        merge_part(it, 2, 2, threads=1)
    with pytest.raises(CheckpointError, match=r"ft1: model.safetensors changed since"):
        commit(it)


def test_what_cannot_be_done_in_parts_is_refused_by_name(
    bench: Bench, tmp_path: Path, tables: None
) -> None:
    it = bench.merge()
    fp8 = []
    for name in ("base", "tuned"):
        code, scale = quantised_files.quantised(quantised_files.normal(len(name), 128, 128))
        weights = {"w.weight": code, "w.weight_scale_inv": scale}
        said = {"quant_method": "fp8", "weight_block_size": [128, 128]}
        fp8.append(str(quantised_files.folder(tmp_path / name, weights, said)))
    again = Recipe(fp8[0], (Model(fp8[1]),), "task_arithmetic", {"alpha": 0.5}, dtype="same")
    plugin = tmp_path / "own.py"
    plugin.write_text(PLUGIN + CALIBRATED)
    registry.load_plugin(plugin)
    found = Recipe(it.recipe.base, it.recipe.models, "found", {"scale": "auto"})
    refused: list[tuple[Merge, type[BreadcrumbsError], str]] = [
        (replace(it, output=str(tmp_path / "a.safetensors")), OutputError, "Give a folder"),
        (replace(it, recipe=again, output=str(tmp_path / "o")), RecipeError, "dtype same"),
        (
            replace(it, recipe=found, output=str(tmp_path / "p")),
            RecipeError,
            "found: .* calib",
        ),
    ]
    for one, error, words in refused:
        with pytest.raises(error, match=words):
            merge_part(one, 1, 2)
    with pytest.raises(RecipeError, match="3/2"):
        merge_part(it, 3, 2)
    with pytest.raises(OutputError, match="no part has been merged"):
        commit(it)


def test_an_output_that_exists_is_replaced_with_force_alone(bench: Bench) -> None:
    case = "a sum"
    it = bench.merge(case)
    rounds(it, ORDERS["in order"])
    commit(it)
    with pytest.raises(OutputError, match="exists"):
        merge_part(it, 1, 1)
    forced = replace(it, force=True)
    merge_part(forced, 1, 1, threads=1)
    Path(it.output, "model-00001-of-00005.safetensors").unlink()
    commit(forced, verify=True)
    assert_same(bench.one(case), it.output)


def test_the_command_says_what_to_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    it = bench.merge("ranks of the model")
    call = ["merge", *bench.paths, "-o", it.output, "-p", "granularity=model", "-p", "alpha=0.5"]
    call += ["--shard-size", str(SHARD), "--no-sync"]

    def ran(*more: str) -> Any:
        return CliRunner().invoke(main, [*call, *more])

    first = ran("--part", "1/2", "--json")
    assert first.exit_code == 75
    assert "part 1/2 waits for pass 1 over the model (2 of 5 files left)" in first.stderr
    said = json.loads(first.stdout)
    assert said["again"] and said["left"] == [f"model-0000{i}-of-00005.safetensors" for i in (2, 4)]
    listed = ran("--commit")
    assert listed.exit_code == 1 and "5 of 5 are missing" in listed.stderr
    codes: list[int] = []
    while 0 not in codes or codes[-2:] != [0, 0]:
        codes.append(ran("--part", f"{2 - len(codes) % 2}/2", "--resume").exit_code)
        assert codes[-1] in (0, 75) and len(codes) < 30
    assert ran("--commit").exit_code == 0
    assert ran("--part", "3").exit_code == 1
    assert ran("--part", "1/2", "--dry-run").exit_code == 2
