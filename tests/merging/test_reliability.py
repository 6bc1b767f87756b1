"""An output takes its name only when it is whole; what was interrupted goes on; inputs are safe."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs.checkpoint import locks, writer
from breadcrumbs.checkpoint.journal import JOURNAL
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.engine import batches
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, OutputError, RecipeError
from breadcrumbs.merging import card, opening
from breadcrumbs.merging import files as merging_files
from breadcrumbs.plan.recipe import Model, Recipe

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
MAIN += "from breadcrumbs.cli import main; main()"


def family(folder: Path, tensors: int, entries: int, models: int = 2) -> list[Path]:
    """Make a base and fine-tunings of it; return their folders."""
    rng = np.random.default_rng(0)
    paths = [folder / name for name in ("base", *(f"ft{i}" for i in range(1, models + 1)))]
    base = {f"t{i:03d}": rng.standard_normal(entries, np.float32) for i in range(tensors)}
    for path in paths:
        path.mkdir(parents=True)
        noise = 0 if path.name == "base" else np.float32(0.01)
        tensors_ = {
            k: v + noise * rng.standard_normal(entries, np.float32) for k, v in base.items()
        }
        save_file(tensors_, path / "model.safetensors", {"format": "pt"})
        (path / "config.json").write_text("{}")
    return paths


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """31 MB a model in 120 segments, so that kills land in different phases."""
    folder = tmp_path_factory.mktemp("large")
    yield family(folder, 120, 1 << 16)
    shutil.rmtree(folder)


@pytest.fixture
def small(tmp_path: Path) -> list[Path]:
    return family(tmp_path, 12, 1000)


def merge(paths: list[Path], output: Path, alpha: float = 1.0, **options: Any) -> Any:
    models = tuple(Model(str(path)) for path in paths[1:])
    recipe = Recipe(str(paths[0]), models, parameters={"alpha": alpha})
    with opening.opened(recipe) as plan:
        return merging_files.to_files(plan, output, **{"kernel": "numpy", "threads": 2, **options})


def one_by_one() -> Any:
    """Small tensors are merged, and noted, by themselves, so that some can be done and others not.

    (What is killed in the middle of several at a time: `test_killed_at_every_file_operation`.)
    """
    return mock.patch.object(batches, "LEAST", 10**9)


def interrupted(paths: list[Path], output: Path, after: int = 5, **options: Any) -> Path:
    """Interrupt a merge when some segments are done; return the partial folder."""
    calls = iter(range(after))

    def progress(nbytes: int) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with one_by_one(), pytest.raises(KeyboardInterrupt):
        merge(paths, output, progress=progress, threads=1, **options)
    return output.with_name(output.name + ".partial")


def add_modules(base: Path, *names: str) -> None:
    """Give a folder the subfolders of a sentence-transformers model."""
    (base / "modules.json").write_text(json.dumps([{"path": name} for name in ("", *names)]))
    for name in names:
        (base / name).mkdir()
        (base / name / "config.json").write_text("{}")
        shutil.copy(base / "model.safetensors", base / name)


def weights(output: Path) -> dict[str, bytes]:
    """Return the bytes of every weight file of an output, and of its index.

    The headers name the inputs by their places relative to the output.
    """
    if output.is_file():
        return {"": output.read_bytes()}
    return {p.name: p.read_bytes() for p in output.iterdir() if "safetensors" in p.name}


def noted(partial: Path) -> list[tuple[int, int]]:
    """Return the segments that the journal says are done."""
    try:
        lines = (partial / JOURNAL).read_bytes().split(b"\n")[1:-1]
    except OSError:  # not begun, or renamed
        return []
    notes = [note for note in map(json.loads, filter(None, lines)) if "tensor" in note]
    return [(note["tensor"], note["start"]) for note in notes]


def has_noted(partial: Path, segments: int) -> bool:
    return len(noted(partial)) >= segments


def inputs(paths: list[Path]) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for path in paths for f in path.iterdir()}


def command(paths: list[Path], output: Path, *flags: str) -> list[str]:
    models = [str(path) for path in paths]
    flags = ("-o", str(output), "-q", "-p", "alpha=1", *flags)
    return [sys.executable, "-c", MAIN, "merge", *models, *flags]


def run(*args: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, **options)


@contextmanager
def running(*args: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command(*args), stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def wait_for(process: subprocess.Popen[str], met: Callable[[], bool]) -> None:
    while process.poll() is None and not met():
        time.sleep(0.001)


def one_line(error: BaseException | str) -> str:
    text = str(error).rstrip("\n")
    assert text and "\n" not in text and "Traceback" not in text, text
    return text


# --- killed ---


@posix
@pytest.mark.parametrize(
    ("name", "flags"),
    [("out", ["--shard-size", "7MB"]), ("out.safetensors", ["-p", "granularity=model"])],
)
def test_killed_at_random_moments(
    large: list[Path], tmp_path: Path, name: str, flags: list[str]
) -> None:
    rng = random.Random(name)
    before = inputs(large)
    whole = tmp_path / "uninterrupted" / name
    assert run(large, whole, *flags).returncode == 0
    expected = weights(whole)
    output = tmp_path / "interrupted" / name
    partial = output.with_name(name + ".partial")
    kills, seen = 0, []
    while kills < 10:
        wanted = len(seen) + 1 + int(rng.random() ** 2 * (120 - len(seen)))
        again = ["--resume"] if partial.exists() else []
        with running(large, output, "--threads", "1", *flags, *again) as p:
            if rng.random() < 0.2:
                time.sleep(rng.random() * 0.5)
            else:
                wait_for(p, functools.partial(has_noted, partial, wanted))
            p.kill()
            finished = p.wait() == 0
        if output.exists():
            assert weights(output) == expected
            assert finished or not output.is_dir() or (output / "breadcrumbs.yaml").exists()
            output.unlink() if output.is_file() else shutil.rmtree(output)
            shutil.rmtree(partial, ignore_errors=True)
            seen = []
        else:
            kills += 1
            now = noted(partial)
            assert now[: len(seen)] == seen, "what was done is not noted any more"
            assert len(set(now)) == len(now), "a segment was done twice"
            seen = now
    assert partial.exists()
    assert run(large, output, "--resume", *flags).returncode == 0
    assert weights(output) == expected
    assert not partial.exists()
    assert inputs(large) == before


#: Forks a merge again and again, killed before the next file operation or the next item of a pass
#: each time, and resumes it.
DRIVER = """
import os, shutil, signal, sys, threading
from pathlib import Path
from breadcrumbs.merging import card, files as merging_files, opening
from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.plan.recipe import Model, Recipe
import blake3, yaml

base, ft, out, scenario = sys.argv[1:]
out = Path(out)
# In one of the scenarios there is something to find first, and its threads are killed in, too.
parameters = {"alpha": 1, "granularity": "model" if scenario == "file" else "tensor"}
operations = {"open", "write", "pwrite", "sendfile", "copy_file_range", "close", "ftruncate",
    "truncate", "mkdir", "rmdir", "rename", "replace", "unlink", "remove"}

def merge(at=None, **options):
    'Merge in a child that is killed at operation number `at`; return whether it was.'
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = [at]
    def hook(frame, event, called):
        file = event == "c_call" and called.__name__ in operations and "StringIO" not in str(called)
        code = frame.f_code
        looks = code.co_name in ("scan", "join") and "passes" in code.co_filename
        if file or (event == "call" and looks):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    try:
        with opening.opened(Recipe(base, (Model(ft),), parameters=parameters)) as plan:
            if at:
                sys.setprofile(hook)
            if at and scenario == "file":
                threading.setprofile(hook)
            # The thread that asks does all, or what comes before and after the others.
            merging_files.to_files(
                plan, out, threads=1 if scenario == "file" else 2, kernel="numpy",
                shard_size=20000, **options
            )
    except BreadcrumbsError as error:
        print(f"operation {at}: {error}", flush=True)
        os._exit(1)
    os._exit(0)

def weights(path):
    if not path.exists():
        return None
    if path.is_file():
        return {path.name: path.read_bytes()}
    files = {f.relative_to(path).as_posix(): f for f in path.rglob("*") if f.is_file()}
    return {name: f.read_bytes() for name, f in files.items() if name[0] != "."}

def remove():
    for path in (out, out.with_name(out.name + ".partial")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

merge()
expected = weights(out)
remove()
old = None
for at in range(1, 1000):
    if scenario == "replace":
        with opening.opened(Recipe(base, ())) as plan:
            merging_files.to_files(plan, out, threads=1, kernel="numpy")
        old = weights(out)
        assert old != expected
    killed = merge(at, force=scenario == "replace")
    found = weights(out)
    assert found in (None, old, expected), f"operation {at}: broken output"
    partial = out.with_name(out.name + ".partial")
    if found is None and old is not None:
        assert weights(partial / ".replaced") == old, f"operation {at}: the old output is lost"
    if killed and found != expected:
        merge(resume=True, force=scenario == "replace")
        assert weights(out) == expected, f"operation {at}: not resumed"
        assert not partial.exists(), f"operation {at}: left over"
        assert not any(f.name[0] == "." for f in out.parent.rglob("*")), f"{at}: left over"
    if not killed:
        break
    remove()
print(at, "operations")
"""


@posix
@pytest.mark.parametrize("scenario", ["folder", "file", "replace"])
def test_killed_at_every_file_operation(small: list[Path], tmp_path: Path, scenario: str) -> None:
    out = tmp_path / "o" / ("out.safetensors" if scenario == "file" else "out")
    if scenario == "file":
        small = family(tmp_path / "few", 3, 300, models=1)
    else:
        for model in small:
            add_modules(model, "1_Pooling", "2_Dense")
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, str(small[0]), str(small[1]), str(out), scenario],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (line,) = ran.stdout.splitlines()
    print(line)
    assert int(line.split()[0]) > 10, line


# --- interrupted and resumed ---


@posix
def test_interrupt(large: list[Path], tmp_path: Path) -> None:
    output, partial = tmp_path / "out", tmp_path / "out.partial"
    for _ in range(10):  # it may be done before the signal comes
        with running(large, output, "--threads", "2") as process:
            wait_for(process, functools.partial(has_noted, partial, 10))
            process.send_signal(signal.SIGINT)
            code = process.wait()
            assert process.stderr is not None
            said = process.stderr.read()
        if not output.exists():
            break
        shutil.rmtree(output)
    assert code == 130
    assert "--resume" in one_line(said)
    assert not output.exists()
    done = len(noted(partial))
    assert 10 <= done < 120
    assert run(large, output, "--resume").returncode == 0
    merge(large, tmp_path / "whole")
    assert weights(output) == weights(tmp_path / "whole")


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
@pytest.mark.parametrize("after", [0, 1, 5, 11])
def test_resume_does_only_what_is_not_done(
    small: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int
) -> None:
    merge(small, tmp_path / "whole" / name, shard_size=10000)
    partial = interrupted(small, tmp_path / "parts" / name, after, shard_size=10000)
    done = noted(partial)
    assert len(done) == after + 1
    again = finished(monkeypatch)
    merge(small, tmp_path / "parts" / name, shard_size=10000, resume=True, verify=True)
    assert sorted(again + done) == [(tensor, 0) for tensor in range(12)]
    assert weights(tmp_path / "parts" / name) == weights(tmp_path / "whole" / name)
    assert not partial.exists()


def finished(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that grows by every segment that is noted as done from here on."""
    segments, note = [], Writer.finished

    def spy(self: Writer, number: int, start: int, *rest: Any) -> None:
        segments.append((number, start))
        note(self, number, start, *rest)

    monkeypatch.setattr(Writer, "finished", spy)
    return segments


def test_report_of_a_resumed_merge(small: list[Path], tmp_path: Path) -> None:
    whole = merge(small, tmp_path / "whole")
    interrupted(small, tmp_path / "out")
    resumed = merge(small, tmp_path / "out", resume=True)
    assert resumed.models == whole.models
    assert resumed.norm == pytest.approx(whole.norm)
    cards = [(tmp_path / name / "README.md").read_text() for name in ("out", "whole")]
    assert cards[0] == cards[1]


@pytest.mark.parametrize("cut", [1, 2, 30, 10**9])
def test_journal_cut_off(small: list[Path], tmp_path: Path, cut: int) -> None:
    merge(small, tmp_path / "whole")
    partial = interrupted(small, tmp_path / "out")
    journal = partial / JOURNAL
    text = journal.read_bytes()
    journal.write_bytes(text[: max(0, len(text) - cut)])
    calls = iter(range(8))  # what was done before counts
    with one_by_one(), pytest.raises(KeyboardInterrupt):

        def progress(nbytes: int) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt

        merge(small, tmp_path / "out", resume=True, threads=1, progress=progress)
    lines = journal.read_bytes().splitlines()
    readable = [line for line in lines if line.endswith(b"}")]
    assert all(json.loads(line) for line in readable), "a line was added to one cut off"
    merge(small, tmp_path / "out", resume=True)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


@pytest.mark.parametrize("line", [b"[", b"[]\n5\nnull\n", b"\xff\xfe\n", b"[" * 100000 + b"\n"])
def test_journal_with_garbage(small: list[Path], tmp_path: Path, line: bytes) -> None:
    merge(small, tmp_path / "whole")
    partial = interrupted(small, tmp_path / "out")
    with open(partial / JOURNAL, "ab") as journal:
        journal.write(line)
    merge(small, tmp_path / "out", resume=True, verify=True)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_altered_segments_are_done_again(
    small: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(small, tmp_path / "whole")
    partial = interrupted(small, tmp_path / "out")
    done = noted(partial)
    with open(partial / "model.safetensors", "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        place = end - 12 * 4000 + 2 * 4000 + 1234  # in the third tensor
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))
    again = finished(monkeypatch)
    merge(small, tmp_path / "out", resume=True)
    assert set(again) & set(done) == {(2, 0)}
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_lost_files_are_done_again(small: list[Path], tmp_path: Path) -> None:
    merge(small, tmp_path / "whole", shard_size=10000)
    partial = interrupted(small, tmp_path / "out", shard_size=10000)
    next(partial.glob("model-00001*")).unlink()
    merge(small, tmp_path / "out", shard_size=10000, resume=True)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_resume_of_something_else_is_refused(small: list[Path], tmp_path: Path) -> None:
    partial = interrupted(small, tmp_path / "out")
    done = noted(partial)
    for options in ({"alpha": 0.5}, {"shard_size": 5000}):
        with pytest.raises(OutputError, match="another recipe"):
            merge(small, tmp_path / "out", resume=True, **options)
    with pytest.raises(OutputError, match="another recipe"):
        merge(small[:2], tmp_path / "out", resume=True)
    os.utime(small[1] / "model.safetensors", (1, 1))
    with pytest.raises(OutputError, match="other inputs") as caught:
        merge(small, tmp_path / "out", resume=True)
    one_line(caught.value)
    assert noted(partial) == done
    with pytest.raises(OutputError, match="--resume to go on"):
        merge(small, tmp_path / "out")
    merge(small, tmp_path / "out", force=True)
    merge(small, tmp_path / "whole")
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_resume_without_anything_begun(small: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    merge(small, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "model.safetensors").exists()


# --- outputs that exist ---


def test_existing_output_is_replaced_with_force_only(small: list[Path], tmp_path: Path) -> None:
    for name in ("out", "out.safetensors"):
        output = tmp_path / name
        merge(small, output)
        before = weights(output)
        for options in ({}, {"resume": True}):
            with pytest.raises(OutputError, match="--force"):
                merge(small, output, alpha=0.5, **options)
            assert weights(output) == before
        interrupted(small, output, alpha=0.5, force=True)
        assert weights(output) == before, "the old output stays until the new one is whole"
        merge(small, output, alpha=0.5, force=True)
        assert weights(output) != before
        assert not list(tmp_path.glob("*.partial"))


def test_killed_between_two_renames(small: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    merge(small, output)
    before = weights(output)
    partial = interrupted(small, output, alpha=0.5, force=True)
    output.rename(partial / ".replaced")
    interrupted(small, output, alpha=0.25, force=True)
    assert weights(output) == before, "the old output has its name again"
    merge(small, output, alpha=0.25, resume=True, force=True)
    assert weights(output) != before


def test_shards_of_a_replaced_output_are_gone(small: list[Path], tmp_path: Path) -> None:
    merge(small, tmp_path / "out", shard_size=10000)
    merge(small, tmp_path / "out", force=True)
    assert list(weights(tmp_path / "out")) == ["model.safetensors"]


def test_an_output_with_modules_is_replaced_with_force(small: list[Path], tmp_path: Path) -> None:
    for model in small:
        add_modules(model, "1_Pooling", "2_Dense", "3_Normalize")
        for file in (model / "3_Normalize").iterdir():
            file.unlink()  # saved with nothing in it
    for alpha in (1.0, 0.5):
        merge(small, tmp_path / "out", alpha=alpha, force=True)
        assert (tmp_path / "out" / "2_Dense" / "model.safetensors").is_file()
    assert not (tmp_path / "out.partial").exists()
    for model in small:
        (model / "modules.json").unlink()
    merge(small, tmp_path / "out", force=True)
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    "what", ["file", "folder", "hidden", "other folder", "link", "no list", "no recipe"]
)
def test_force_deletes_no_more_than_modules(small: list[Path], tmp_path: Path, what: str) -> None:
    for model in small:
        add_modules(model, "1_Pooling", "2_Dense")
    output, mine = tmp_path / "out", tmp_path / "mine"
    merge(small, output)
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    if what == "file":
        (output / "1_Pooling" / "notes.h5").write_text("mine")
    if what == "folder":
        (output / "1_Pooling" / "notes").mkdir()
    if what == "hidden":
        (output / "1_Pooling" / ".git").mkdir()
    if what == "other folder":
        (output / "notes").mkdir()
    if what == "link":
        shutil.rmtree(output / "1_Pooling")
        (output / "1_Pooling").symlink_to(mine, target_is_directory=True)
    if what == "no list":
        (output / "modules.json").write_text('[{"path": "../mine"}, {"path": "2_Dense/"}]')
    if what == "no recipe":
        (output / "breadcrumbs.yaml").unlink()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="does not replace it") as caught:
        merge(small, output, force=True)
    one_line(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("what", ["notes", "foreign model", "folder inside", "recipe alone"])
def test_force_deletes_only_merged_models(small: list[Path], tmp_path: Path, what: str) -> None:
    output = tmp_path / "out"
    if what == "folder inside":
        merge(small, output)
        (output / "mine").mkdir()
    else:
        output.mkdir()
    if what == "notes":
        (output / "notes.txt").write_text("mine")
    if what == "foreign model":
        shutil.copy(small[0] / "model.safetensors", output)
    if what == "recipe alone":
        (output / "breadcrumbs.yaml").write_text("base: x")
        (output / "thesis.tex").write_text("mine")
    before = sorted(output.rglob("*"))
    with pytest.raises(OutputError, match="does not replace it") as caught:
        merge(small, output, force=True)
    one_line(caught.value)
    assert sorted(output.rglob("*")) == before
    assert not (tmp_path / "out.partial").exists()


def test_kinds_of_output_do_not_replace_each_other(small: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("a.safetensors", "file"):
        with pytest.raises(OutputError, match="not replaced"):
            merge(small, tmp_path / name, force=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_lies_beside_is_not_ours(small: list[Path], tmp_path: Path) -> None:
    merge(small, tmp_path / "out")
    for name in ("out.replaced", "out.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("mine")
    for options in ({"force": True}, {"force": True, "resume": True}):
        with pytest.raises(OutputError, match="in the way"):
            merge(small, tmp_path / "out", **options)
    shutil.rmtree(tmp_path / "out.partial")
    merge(small, tmp_path / "out", force=True)
    assert (tmp_path / "out.replaced" / "file").read_text() == "mine"


def test_output_made_by_another_during_the_merge(small: list[Path], tmp_path: Path) -> None:
    for name in ("out", "out.safetensors"):
        output = tmp_path / name

        def make(nbytes: int, output: Path = output) -> None:
            output.write_text("theirs")

        with pytest.raises(OutputError, match="was created in the meantime"):
            merge(small, output, progress=make)
        assert output.read_text() == "theirs"
        output.unlink()
        merge(small, output, resume=True)


@posix
def test_links_are_followed(small: list[Path], tmp_path: Path) -> None:
    merge(small, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    merge(small, tmp_path / "link", alpha=0.5, force=True)
    merge(small, tmp_path / "whole", alpha=0.5)
    assert (tmp_path / "link").is_symlink()
    assert weights(tmp_path / "real") == weights(tmp_path / "whole")
    (tmp_path / "dangling").symlink_to("new/deeper")
    merge(small, tmp_path / "dangling", alpha=0.5)
    merge(small, tmp_path / "also" / "deeper", alpha=0.5)
    assert weights(tmp_path / "new" / "deeper") == weights(tmp_path / "also" / "deeper")


# --- inputs ---


def test_outputs_among_the_inputs_are_refused(small: list[Path], tmp_path: Path) -> None:
    before = inputs(small)
    outputs = [
        *small,
        small[0] / "merged",
        small[1] / "deeper" / "merged.safetensors",
        small[2] / "model.safetensors",
        tmp_path,
    ]
    if os.name == "posix":
        (tmp_path / "link").symlink_to(small[0])
        outputs += [tmp_path / "link", tmp_path / "link" / "merged"]
    for output in outputs:
        with pytest.raises(RecipeError, match="Inputs are never overwritten") as caught:
            merge(small, output, force=True)
        one_line(caught.value)
    assert inputs(small) == before
    assert not list(tmp_path.rglob("*.partial"))


@posix
@pytest.mark.parametrize("change", ["rewrite", "delete"])
def test_inputs_that_change_during_the_merge(
    small: list[Path], tmp_path: Path, change: str
) -> None:
    victim = small[1] / "model.safetensors"

    def progress(nbytes: int) -> None:
        if change == "delete":
            victim.unlink(missing_ok=True)
            return
        with open(victim, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"?")
        os.utime(victim, (1, 1))

    with pytest.raises(CheckpointError, match=r"changed|cannot be") as caught:
        merge(small, tmp_path / "out", progress=progress)
    one_line(caught.value)
    assert not (tmp_path / "out").exists()


# --- disks ---


def test_too_little_room_is_found_first(
    small: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=12 * 4000 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="are needed and") as caught:
        merge(small, tmp_path / "new" / "out")
    one_line(caught.value)
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=12 * 4000))
    interrupted(small, tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    merge(small, tmp_path / "out", resume=True)  # what lies there counts


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="patches os.pwrite")
@pytest.mark.parametrize("number", ["ENOSPC", "EIO"])
def test_disk_errors_while_writing(
    small: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    import errno

    merge(small, tmp_path / "whole")
    writes, pwrite = iter(range(7)), os.pwrite

    def failing(*args: Any) -> int:
        if next(writes, None) is None:
            raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))
        return pwrite(*args)

    monkeypatch.setattr(os, "pwrite", failing)
    with one_by_one(), pytest.raises(OutputError) as caught:
        merge(small, tmp_path / "out")
    assert ("--resume" in one_line(caught.value)) == (number == "ENOSPC")
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert len(noted(tmp_path / "out.partial")) == 7
    merge(small, tmp_path / "out", resume=True)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_disk_full_while_closing(
    small: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(card, "add", full)
        with pytest.raises(OutputError, match="--resume"):
            merge(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge(small, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "README.md").exists()


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """Mount a small disk in memory there, or skip the test."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
def test_disk_that_fills_up(tmp_path: Path) -> None:
    paths = family(tmp_path, 12, 30_000)  # 1.44 MB a model
    merge(paths, tmp_path / "room" / "whole")
    with mounted(tmp_path / "disk", "size=2m") as disk:

        def fill(nbytes: int) -> None:
            if not (disk / "other").exists():
                (disk / "other").write_bytes(bytes(1_200_000))

        with pytest.raises(OutputError, match="Make room and give --resume") as caught:
            merge(paths, disk / "out", progress=fill, threads=1)
        one_line(caught.value)
        assert not (disk / "out").exists()
        done = noted(disk / "out.partial")
        assert 0 < len(done) < 12
        with pytest.raises(OutputError, match="are needed and"):
            merge(paths, disk / "out", resume=True)
        assert noted(disk / "out.partial") == done
        (disk / "other").unlink()
        merge(paths, disk / "out", resume=True)
        assert weights(disk / "out") == weights(tmp_path / "room" / "whole")
        with pytest.raises(OutputError, match="are needed and"):
            merge(paths, disk / "out2")
        ran = run(paths, disk / "out2")
        assert ran.returncode == 1
        one_line(ran.stderr)
        assert sorted(path.name for path in disk.iterdir()) == ["out"]


@posix
def test_files_limited_in_size(small: list[Path], tmp_path: Path) -> None:
    import resource

    limit = 30_000
    ran = run(
        small,
        tmp_path / "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ran.returncode == 1
    assert "--shard-size" in one_line(ran.stderr)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
def test_output_on_a_disk_that_cannot_be_written(small: list[Path], tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro,size=2m") as disk:
        with pytest.raises(OutputError, match="Give another output") as caught:
            merge(small, disk / "deep" / "out")
        one_line(caught.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_output_in_a_folder_that_cannot_be_written(small: list[Path], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="cannot be written there"):
        merge(small, tmp_path / "locked" / "out")


@pytest.mark.parametrize("name", ["file/out", "file/deep/out", "x" * 250, "x" * 300])
def test_output_that_cannot_be(small: list[Path], tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BreadcrumbsError) as caught:
        merge(small, tmp_path / name)
    one_line(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_root_cannot_be_an_output(small: list[Path]) -> None:
    with pytest.raises(BreadcrumbsError) as caught:
        merge(small, Path("/"), force=True)
    one_line(caught.value)


def test_more_shards_than_files_may_be_open(
    small: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(writer, "OutFile", refuse)
    with pytest.raises(OutputError, match="larger --shard-size"):
        merge(small, tmp_path / "out", shard_size=1)
    assert not list(tmp_path.glob("out*"))


# --- two at once ---


@posix
def test_two_processes_at_once(large: list[Path], tmp_path: Path) -> None:
    output, partial = tmp_path / "out", tmp_path / "out.partial"
    for _ in range(10):  # it may be done before the signal comes
        with running(large, output, "--threads", "1") as first:
            wait_for(first, functools.partial(has_noted, partial, 5))
            first.send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            if not output.exists():
                for options in ({}, {"resume": True}, {"force": True}):
                    with pytest.raises(OutputError, match="another process") as caught:
                        merge(large, output, **options)
                    one_line(caught.value)
                first.send_signal(signal.SIGCONT)
                assert first.wait() == 0
                break
        shutil.rmtree(output)
    merge(large, tmp_path / "whole")
    assert weights(output) == weights(tmp_path / "whole")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")
@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_as_on_windows(
    small: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No pread, pwrite or flock; locks of bytes; no renaming of folders with open files."""
    merge(small, tmp_path / "whole" / name, shard_size=10000)
    locked = []

    def locking(file: int, mode: int, nbytes: int) -> None:
        assert os.lseek(file, 0, os.SEEK_CUR) > 10**9 and (mode, nbytes) == (2, 1)
        locked.append(file)

    def renaming(rename: Callable[..., None]) -> Callable[..., None]:
        def checked(source: Path, target: Path) -> None:
            files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
            assert not [file for file in files if file.startswith(str(source))]
            rename(source, target)

        return checked

    msvcrt = SimpleNamespace(LK_NBLCK=2, locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "pwrite")
    for call in ("rename", "replace"):
        monkeypatch.setattr(os, call, renaming(getattr(os, call)))
    interrupted(small, tmp_path / "parts" / name, shard_size=10000)
    merge(small, tmp_path / "parts" / name, shard_size=10000, resume=True, verify=True)
    assert weights(tmp_path / "parts" / name) == weights(tmp_path / "whole" / name)
    merge(small, tmp_path / "parts" / name, shard_size=10000, force=True)
    assert weights(tmp_path / "parts" / name) == weights(tmp_path / "whole" / name)
    assert len(locked) == 3


@posix
def test_a_race_has_one_winner(small: list[Path], tmp_path: Path) -> None:
    """Several begin at the same moment; each output is whole, whoever wrote it."""
    script = "import os, sys; import blake3, yaml\n"
    script += "from breadcrumbs.errors import OutputError\n"
    script += "from breadcrumbs.merging import files as merging_files, opening\n"
    script += "from breadcrumbs.plan.recipe import Model, Recipe\n"
    script += "children = []\n"
    script += "for _ in range(6):\n"
    script += "    child = os.fork()\n"
    script += "    if child: children.append(child); continue\n"
    script += "    try:\n"
    script += "        models, given = (Model(sys.argv[2]),), {'alpha': 1}\n"
    script += "        made = Recipe(sys.argv[1], models, parameters=given)\n"
    script += "        with opening.opened(made) as plan:\n"
    script += "            merging_files.to_files(plan, sys.argv[3], force=True, kernel='numpy')\n"
    script += "    except OutputError: os._exit(1)\n"
    script += "    os._exit(0)\n"
    script += "codes = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]\n"
    script += "assert set(codes) <= {0, 1} and 0 in codes, codes\n"
    merge(small[:2], tmp_path / "whole")
    for i in range(5):
        output = tmp_path / f"out{i}"
        args = [sys.executable, "-c", script, *map(str, small[:2]), str(output)]
        ran = subprocess.run(args, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert weights(output) == weights(tmp_path / "whole")
        with safe_open(output / "model.safetensors", "np") as file:
            assert len(list(file.keys())) == 12


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".gguf", ".ckpt"])
def test_an_output_with_the_name_of_another_kind_of_file(tmp_path: Path, suffix: str) -> None:
    for number, name in enumerate(("base", "tuned")):
        save_file({"w": np.full((4, 4), number, np.float32)}, tmp_path / name)
    output = tmp_path / f"out{suffix}"
    with pytest.raises(OutputError, match=r"Give .*out\.safetensors, or a folder of another name"):
        breadcrumbs.merge(tmp_path / "base", [tmp_path / "tuned"], method="average", output=output)
    assert not output.exists()
