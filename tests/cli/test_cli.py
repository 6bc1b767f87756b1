"""The command line: what it prints where, exit codes, and one line for every error."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from breadcrumbs.cli.group import main
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.version import __version__


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with a base and two fine-tunings."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    base = {
        "emb.weight": rng.standard_normal((30, 8), np.float32),
        "lm_head.weight": rng.standard_normal((8, 5), np.float32),
        "lm_head.bias": rng.standard_normal(5, np.float32),
        "step": np.array([7], np.int64),
    }
    for name in ("base", "ft1", "ft2"):
        (tmp_path / name).mkdir()
        noise = 0 if name == "base" else 0.1
        tensors = {
            key: value + noise * rng.standard_normal(value.shape).astype(value.dtype)
            if value.dtype == np.float32
            else value
            for key, value in base.items()
        }
        tensors = {key: value.astype(base[key].dtype) for key, value in tensors.items()}
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
        (tmp_path / name / "config.json").write_text('{"torch_dtype": "float32"}')
    yield tmp_path


def invoke(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args))
    unexpected = result.exception if not isinstance(result.exception, SystemExit) else None
    assert unexpected is None, f"{args}: {unexpected!r}"
    assert result.exit_code == code, result.output
    return result


def fails(*args: str, match: str) -> str:
    """Check that a command ends with exit code 1 and one line on stderr; return it."""
    result = invoke(*args, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("breadcrumbs: ")
    assert result.stderr.count("\n") == 1 and result.stderr.endswith((".\n", "?\n")), result.stderr
    assert re.search(match, result.stderr), result.stderr
    return result.stderr


def misused(*args: str, match: str) -> None:
    """Check that a command ends with exit code 2 and says how it is used."""
    result = invoke(*args, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: ") and "Traceback" not in result.stderr
    assert re.search(match, result.stderr), result.stderr


def process(*args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    start = [sys.executable, "-m", "breadcrumbs"]
    return subprocess.run([*start, *args], capture_output=True, **options)


def data(folder: str) -> bytes:
    """Return the bytes of the tensors in the one file of a merged folder."""
    tensors = load_file(Path(folder) / "model.safetensors")
    return b"".join(tensors[name].tobytes() for name in sorted(tensors))


# --- merge ---


def test_merge_prints_a_report_on_stderr() -> None:
    result = invoke("merge", "base", "ft1", "ft2", "-o", "out")
    assert result.stdout == ""
    for text in ("ft1", "ft2", "kept", "3 of 4 tensors merged", "1 not a weight", "written: out"):
        assert text in result.stderr
    assert len(load_file("out/model.safetensors")) == 4


def test_quiet_is_silent() -> None:
    result = invoke("merge", "base", "ft1", "ft1", "-o", "out", "-q")
    assert result.output == ""
    ran = process("merge", "base", "ft1", "-o", "out", "-q", "--force", "--verify")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert invoke("merge", "base", "nowhere", "-o", "x", "-q", code=1).stderr


def test_verbose_lists_what_lost_everything() -> None:
    tensors = {f"t{i}": np.arange(3, dtype=np.float32) for i in range(8)}
    for name in ("b", "f"):
        whole = {"whole": np.arange(40, dtype=np.float32) * (1 + (name == "f"))}
        mine = {k: v + (name == "f") for k, v in tensors.items()}
        save_file(mine | whole, f"{name}.safetensors")
    settings = ["-p", "variant=authors", "-o", "o"]  # 0.1 of 3 entries, rounded down
    short = invoke("merge", "b.safetensors", "f.safetensors", *settings)
    long = invoke("merge", "b.safetensors", "f.safetensors", *settings, "--force", "-v")
    assert "8 tensors lost the whole" in short.stderr and "t7" not in short.stderr
    assert "t7" in long.stderr


def test_json_is_all_there_is_on_stdout() -> None:
    result = invoke("merge", "base", "ft1", "ft2", "-o", "out", "--json")
    found = json.loads(result.stdout)
    assert found["output"] == "out"
    assert [model["name"] for model in found["models"]] == ["ft1", "ft2"]
    assert found["tensors"] == 4 and found["merged"] == 3
    assert "NaN" not in result.stdout
    ran = process("merge", "base", "ft1", "-o", "out2", "--json")
    assert json.loads(ran.stdout)["output"] == "out2"


def test_flags_reach_the_recipe() -> None:
    result = invoke(
        *("merge", "base", "ft1", "ft2", "-m", "breadcrumbs", "--print-recipe"),
        *("-p", "beta=0.8", "-p", "alpha=0.5", "-w", "1", "-w", "0.25"),
        *("--override", "lm_head.*:alpha=1", "--override", "emb*:gamma=0.95"),
        *("--exclude", "step", "--only", "lm*", "--only", "emb*"),
        *("--only-changed", "--dtype", "bfloat16", "--missing", "base", "--extra", "ignore"),
        *("--allow-nonfinite", "--seed", "3"),
    )
    recipe = yaml.safe_load(result.stdout)
    assert recipe["models"] == ["ft1", {"model": "ft2", "weight": 0.25}]
    assert {k: float(v) for k, v in recipe["parameters"].items()} == {"beta": 0.8, "alpha": 0.5}
    overrides = [{k: str(v) for k, v in o.items()} for o in recipe["overrides"]]
    assert overrides[0]["tensors"] == "lm_head.*" and float(overrides[0]["alpha"]) == 1
    assert overrides[1] == {"tensors": "emb*", "gamma": "0.95"}
    assert recipe["exclude"] == ["step"] and recipe["only"] == ["lm*", "emb*"]
    assert recipe["only_changed"] is True and recipe["allow_nonfinite"] is True
    assert (recipe["dtype"], recipe["missing"], recipe["extra"]) == ("bfloat16", "base", "ignore")
    assert recipe["seed"] == 3
    assert result.stderr == ""
    assert sorted(os.listdir()) == ["base", "ft1", "ft2"]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-p", "beta=0.29", "-p", "gamma=0.93", "-p", "alpha=0.3"],
        ["-p", "density=0.5", "-p", "outliers=0.1", "-p", "variant=authors"],
        ["-p", "granularity=model", "-w", "0.5", "-w", "2", "--exclude", "emb*"],
        ["-m", "random_sparsed", "--seed", "5", "--override", "lm*:density=0.5"],
        ["-m", "average", "--dtype", "float16", "--only", "lm_head.weight"],
        ["-p", "beta=0.28999999999999999999", "-p", "gamma=1"],
    ],
)
def test_printed_and_written_recipes_merge_to_the_same_bits(flags: list[str]) -> None:
    merge = ["merge", "base", "ft1", "ft2", *flags]
    Path("recipe.yaml").write_text(invoke(*merge, "--print-recipe").stdout)
    invoke(*merge, "-o", "flags")
    invoke("merge", "recipe.yaml", "-o", "recipe")
    invoke("merge", "flags/breadcrumbs.yaml", "-o", "again")
    assert data("flags") == data("recipe") == data("again")


def test_flags_win_over_the_recipe() -> None:
    Path("r.yaml").write_text("base: base\nmodels: [ft1]\nparameters: {beta: 0.5, alpha: 2}\n")
    invoke("merge", "r.yaml", "-p", "alpha=0.5", "-o", "out")
    invoke("merge", "base", "ft1", "-p", "alpha=0.5", "-p", "beta=0.5", "-o", "flags")
    assert data("out") == data("flags")


def test_dry_run_reads_no_weights_and_writes_nothing() -> None:
    for name in ("base", "ft1"):
        path = Path(name) / "model.safetensors"
        size = path.stat().st_size
        start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        path.write_bytes(path.read_bytes()[:start] + b"\xff" * (size - start))  # NaN everywhere
    result = invoke("merge", "base", "ft1", "--dry-run", "--exclude", "lm_head.*", "-o", "out")
    for text in ("breadcrumbs", "4, of which 1", "(excluded)", "lm_head.bias", "to read", "memory"):
        assert text in result.stdout
    plan = json.loads(invoke("merge", "base", "ft1", "--dry-run", "--json").stdout)
    assert plan["merged"] == 3 and plan["models"] == 1
    assert plan["bytes_written"] == 4 * (240 + 40 + 5) + 8
    assert 0 < plan["bytes_measured"] < plan["bytes_read"]  # what is copied tells no alpha
    assert "before that, to choose alpha" in result.stdout
    plain = invoke("merge", "base", "ft1", "--dry-run", "-p", "alpha=1").stdout
    assert "alpha" in plain and "before that" not in plain
    assert sorted(os.listdir()) == ["base", "ft1", "ft2"]


def test_kernels_by_name_give_the_same_bytes() -> None:
    for name in ("numpy", "native"):
        invoke("merge", "base", "ft1", "-o", f"{name}.safetensors", "--kernel", name)
    assert Path("numpy.safetensors").read_bytes() == Path("native.safetensors").read_bytes()


def test_single_file_and_shards() -> None:
    invoke("merge", "base", "ft1", "-o", "out.safetensors")
    invoke("merge", "base", "ft1", "-o", "out", "--shard-size", "1KB")
    assert Path("out.safetensors").is_file()
    assert len(list(Path("out").glob("model-*-of-00002.safetensors"))) == 2


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ([], "exists.*--force"),
        (["--dtype", "bf16"], "Did you mean 'bfloat16'"),
        (["-m", "breadcrumb"], "Did you mean 'breadcrumbs'"),
        (["-p", "bata=1"], "no parameter 'bata'.*Did you mean 'beta'"),
        (["-p", "beta=high"], "'high' is not possible"),
        (["-p", "beta=0.99", "-p", "gamma=0.9"], "not below gamma"),
        (["-p", "gamma=0.01"], "gamma is a quantile"),
        (["-p", "alpha=inf"], "alpha"),
        (["-w", "nan"], "weight nan"),
        (["--exclude", "lm_haed.weight"], "matches no tensor.*Did you mean 'lm_head.weight'"),
        (["--override", "nope:alpha=1"], "matches no tensor"),
        (["--missing", "yes"], "error, base"),
        (["--max-memory", "lots"], "not a size"),
        (["--max-memory", "1MB"], "needs about"),
        (["--max-memory", ""], "not a size"),
        (["--shard-size", "0"], "not a size"),
        (["--kernel", "natvie"], "no kernels 'natvie'.*Did you mean 'native'"),
    ],
)
def test_problems_are_one_line(flags: list[str], match: str) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    fails("merge", "base", "ft1", "-o", "out", *flags, match=match)
    assert os.listdir("out") == ["mine.txt"]


def test_problems_with_models_are_one_line() -> None:
    fails("merge", "base", "ft3", "-o", "out", match="no such file.*Did you mean 'ft")
    fails("merge", "base", "base", "-o", "out", match="is the base itself")
    fails("merge", "base", "ft1", "-o", "ft1", "--force", match="Inputs are never overwritten")
    tensors = load_file("ft1/model.safetensors")
    tensors["lm_head.bias"][2] = np.nan
    save_file(tensors, "nan.safetensors")
    fails("merge", "base", "nan.safetensors", "-o", "out", match=r"'lm_head.bias' has nan.*entry 2")
    tensors["lm_head.weight"] = np.zeros((8, 6), np.float32)
    save_file(tensors, "shape.safetensors")
    fails("merge", "base", "shape.safetensors", "-o", "o", match=r"shape \(8, 6\).*\(8, 5\)")
    del tensors["lm_head.weight"]
    save_file(tensors, "lacks.safetensors")
    fails("merge", "base", "lacks.safetensors", "-o", "o", match="lacks 1 tensor.*--missing base")
    Path("cut.safetensors").write_bytes(Path("ft1/model.safetensors").read_bytes()[:-1])
    fails("merge", "base", "cut.safetensors", "-o", "o", match="cut")
    fails("inspect", "nowhere", match="no such file")


def test_problems_with_recipes_are_one_line() -> None:
    for text, match in (
        ("", "found nothing"),
        ("- a\n", "key: value"),
        ("base: base\nmodels: [ft1]\nmethdo: average\n", "Did you mean 'method'"),
        ("base: base\nbase: base\nmodels: [ft1]\n", "line 2.*twice"),
        ("base: [\n", "line 2"),
        ("base: base\n", "no 'models'"),
        ("base: !!python/object/apply:os.getcwd []\nmodels: [ft1]\n", "not YAML"),
    ):
        Path("r.yaml").write_text(text)
        fails("merge", "r.yaml", "-o", "out", match=match)
    Path("r.yaml").write_bytes(b"\xff\xfe")
    fails("merge", "r.yaml", "-o", "out", match="cannot be read as text")
    fails("merge", "none.yaml", "-o", "out", match="cannot be read")


def test_names_with_control_characters_stay_on_one_line() -> None:
    name = "two\nlines\x1b[31m"
    try:
        os.mkdir(name)
    except OSError:
        pytest.skip("this system has no such names")
    line = fails("merge", "base", name, "-o", "out", match="lines")
    assert "\x1b" not in line


def test_names_are_not_markup() -> None:
    names = ["[/x]", "[bold]b[/bold]", ":smile:", "esc\x1b[31m"]
    for model in ("b", "f[x]"):
        whole = {"w": np.arange(40, dtype=np.float32) * len(model)}
        mine = {name: np.full(3, len(model), np.float32) for name in names}
        save_file(mine | whole, f"{model}.safetensors")
    Path("o[bold]").mkdir()
    shown = invoke("inspect", "b.safetensors", "--tensors").stdout
    assert all(name in shown for name in names[:3])
    merge = ["merge", "b.safetensors", "f[x].safetensors", "-p", "variant=authors"]
    shown += invoke(*merge, "--dry-run", "--exclude", "[[]/x]").stdout
    report = invoke(*merge, "-o", "o[bold]/o", "-v").stderr
    assert "f[x]" in report and "o[bold]/o" in report
    assert all(name in report for name in names[:3]), "tensors that lost everything"
    assert "\x1b" not in shown + report


def test_misuse_is_exit_code_2() -> None:
    misused("merge", match="Missing argument")
    misused("merge", "base", "ft1", match="-o OUTPUT")
    misused("merge", "base", "ft1", "-o", "o", "--betta", "1", match="No such option")
    misused("merge", "base", "ft1", "-o", "o", "-p", "beta", match="KEY=VALUE")
    twice = ("-p", "beta=.8", "-p", " beta=.7")
    misused("merge", "base", "ft1", "-o", "o", *twice, match="--param beta is given twice")
    misused("merge", "base", "ft1", "-o", "o", "-w", "1", "-w", "2", match="2 weights")
    misused("merge", "base", "ft1", "-o", "o", "--override", "beta=1", match="GLOB:KEY=VALUE")
    for threads in ("0", "-1", "99999999999999999999"):
        misused("merge", "base", "ft1", "-o", "o", "--threads", threads, match="range")
    misused("unknown", match="No such command")
    misused("merg", match="Did you mean 'merge'")
    misused("completion", "tcsh", match="bash")


def test_processes_exit_as_told() -> None:
    for code, args in (
        (0, ["merge", "base", "ft1", "-o", "out"]),
        (1, ["merge", "base", "ft1", "-o", "out"]),
        (2, ["merge", "base", "ft1"]),
    ):
        ran = process(*args)
        assert ran.returncode == code, ran.stderr
        assert ran.stdout == b"" and b"Traceback" not in ran.stderr
        if code == 1:
            assert ran.stderr.count(b"\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_printed() -> None:
    invoke("merge", "base", "ft1", "-o", "out")
    for args in (["methods"], ["inspect", "out", "--json"], ["merge", "base", "--print-recipe"]):
        with open("/dev/full", "w") as full:
            start = [sys.executable, "-m", "breadcrumbs"]
            ran = subprocess.run([*start, *args], stdout=full, stderr=subprocess.PIPE)
        assert ran.returncode == 1
        assert ran.stderr.count(b"\n") == 1 and b"Traceback" not in ran.stderr, ran.stderr


# --- the other commands ---


def test_methods_lists_all() -> None:
    shown = invoke("methods").stdout
    assert all(name in shown for name in METHODS)
    listed = json.loads(invoke("methods", "--json").stdout)
    assert [method["name"] for method in listed] == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_methods_explains_every_parameter(name: str) -> None:
    shown = " ".join(invoke("methods", name).stdout.split())
    method = METHODS[name]
    assert "Paper: " in shown
    for parameter, declared in method.parameters.items():
        assert parameter in shown
        assert declared.help and declared.help.split()[0] in shown
    (listed,) = json.loads(invoke("methods", name, "--json").stdout)
    assert set(listed["parameters"]) == set(method.parameters)
    assert all(parameter["range"] for parameter in listed["parameters"].values())


def test_methods_of_an_unknown_name() -> None:
    fails("methods", "breadcrums", match="Did you mean 'breadcrumbs'")


@pytest.mark.parametrize("path", ["base", "base/model.safetensors", "out"])
def test_inspect(path: str) -> None:
    invoke("merge", "base", "ft1", "-o", "out", "-q")
    shown = invoke("inspect", path, "--tensors", "--hash").stdout
    for text in ("model.safetensors", "4 tensors", "285 weights", "emb.weight", "30 x 8", "I64"):
        assert text in shown
    found = json.loads(invoke("inspect", path, "--hash", "--json").stdout)
    assert found["parameters"] == 285
    assert len(found["files"][0]["blake3"]) == 64
    assert ("merged by breadcrumbs" in shown) == (path == "out")
    merged = found["merged_from"]
    assert (merged is not None) == (path == "out")
    if merged:
        assert [source["model"] for source in merged["inputs"]] == ["../base", "../ft1"]
    assert "blake3" not in invoke("inspect", path, "--json").stdout or path == "out"


def test_version() -> None:
    assert invoke("--version").stdout == f"breadcrumbs, version {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    script = invoke("completion", shell).stdout
    assert "_BREADCRUMBS_COMPLETE" in script
    if shell == "bash" and (bash := shutil.which("bash")):
        checked = subprocess.run([bash, "-n"], input=script, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr
    ran = subprocess.run(
        [sys.executable, "-c", "from breadcrumbs.cli import main; main(prog_name='breadcrumbs')"],
        capture_output=True,
        env={
            **os.environ,
            "_BREADCRUMBS_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": "breadcrumbs ",
            "COMP_CWORD": "" if shell == "fish" else "1",
        },
    )
    for command in ("merge", "methods", "inspect", "demo"):
        assert command.encode() in ran.stdout


# --- help ---


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(main)
    names = main.list_commands(context)
    found = [(name, main.get_command(context, name)) for name in names]
    return [("", main), *((name, command) for name, command in found if command is not None)]


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda c: str(c))
def test_everything_has_help(name: str, command: click.Command) -> None:
    assert command.help and command.help.split(".")[0].strip(), f"{name} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} has no help"
            assert parameter.help.endswith("."), f"{name} {parameter.opts}: {parameter.help}"
        else:
            assert parameter.make_metavar(click.Context(command)) in invoke(name, "--help").stdout
    shown = invoke(*filter(None, [name]), "--help").stdout
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert all(option in shown for option in parameter.opts)


def test_help_starts_light() -> None:
    """Nothing heavy is imported to show help, or to list what is wrong with the arguments."""
    script = (
        "import sys\n"
        "from breadcrumbs.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    for args in (["--help"], ["merge", "--help"], ["--version"]):
        ran = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True)
        loaded = set(ran.stderr.split())
        assert "breadcrumbs.cli" in loaded
        assert not loaded & {"numpy", "rich", "torch", "yaml", "huggingface_hub"}


def test_a_merge_of_no_models_prints_no_table_of_them() -> None:
    assert "of weights" in invoke("merge", "base", "ft1", "-o", "one").stderr
    stderr = invoke("merge", "base", "-m", "average", "-o", "none").stderr
    assert "of weights" not in stderr and "average: 3 of 4 tensors merged" in stderr
