"""What is left when the power goes: at every moment, the old or the new, whole."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.checkpoint import digests, durable, whole
from breadcrumbs.cli import verifying
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, OutputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")


def model(folder: Path, seed: int, n: int = 3000) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).standard_normal((4, n)).astype(np.float32)
    tensors = {f"l{i}.weight": base[i] + 0.01 * seed * rng.standard_normal(n) for i in range(4)}
    save_file({k: v.astype(np.float32) for k, v in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [model(tmp_path / "in" / name, seed) for seed, name in enumerate(("base", "a", "b"))]


class Disk:
    """A disk that knows what has been put on it, from the calls that put something there.

    files: by inode, what a file held when it was last synced. folders: by inode, its names then.
    """

    def __init__(self, top: Path, look: Callable[[Path], None], patch: pytest.MonkeyPatch):
        self.top, self.look, self.busy = top, look, False
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, tuple[int, bool]]] = {}
        self.cuts = 0
        self.all()
        fsync = os.fsync

        def synced(fd: int) -> None:
            fsync(fd)
            self.take(fd)

        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "fdatasync", lambda fd: None)  # of no account: it is not the last word
        for name in ("rename", "replace", "link", "unlink", "rmdir", "mkdir"):
            patch.setattr(os, name, self.after(getattr(os, name)))

    def all(self) -> None:
        """Put everything there is on the disk."""
        for where, _, names in os.walk(self.top):
            self.take(where)
            for name in names:
                path = os.path.join(where, name)
                self.files[os.stat(path).st_ino] = Path(path).read_bytes()

    def take(self, what: Any) -> None:
        said = os.stat(what)
        if stat.S_ISDIR(said.st_mode):
            where = what if isinstance(what, str) else f"/proc/self/fd/{what}"
            with os.scandir(where) as found:
                names = {e.name: (e.inode(), e.is_dir(follow_symlinks=False)) for e in found}
            self.folders[said.st_ino] = names
        else:
            self.files[said.st_ino] = Path(f"/proc/self/fd/{what}").read_bytes()

    def after(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **more: Any) -> Any:
            found = call(*args, **more)
            if not self.busy:
                self.cut()
            return found

        return done

    def cut(self) -> None:
        """Look at what a cut would leave, whichever folders had reached the disk by themselves."""
        self.busy = True
        now: dict[int, dict[str, tuple[int, bool]]] = {}
        for where, _, _ in os.walk(self.top):
            with os.scandir(where) as found:
                names = {e.name: (e.inode(), e.is_dir(follow_symlinks=False)) for e in found}
            now[os.stat(where).st_ino] = names
        root = os.stat(self.top).st_ino
        differing = [i for i in now if now[i] != self.folders.get(i, {})][:6]
        for early in itertools.product((False, True), repeat=len(differing)):
            chosen = dict(self.folders)
            chosen |= {i: now[i] for i, yes in zip(differing, early, strict=True) if yes}
            copy = self.top.parent / "after"
            shutil.rmtree(copy, ignore_errors=True)
            self.build(root, copy, chosen)
            self.look(copy)
            self.cuts += 1
        self.busy = False

    def build(self, inode: int, place: Path, names: dict[int, dict[str, Any]]) -> None:
        place.mkdir()
        for name, (inner, is_folder) in names.get(inode, {}).items():
            if is_folder:
                self.build(inner, place / name, names)
            else:
                (place / name).write_bytes(self.files.get(inner, b"\0" * 100))


def contents(path: Path) -> dict[str, bytes] | bytes | None:
    if path.is_file():
        return path.read_bytes()
    if not path.is_dir():
        return None
    inner = ("breadcrumbs-journal", "replaced")
    files = [f for f in path.rglob("*") if f.is_file() and not any(i in str(f) for i in inner)]
    return {str(f.relative_to(path)): f.read_bytes() for f in files}


def merging(models: list[Path], output: Path, alpha: float, **more: Any) -> None:
    base, *rest = models
    from breadcrumbs.merging import files as merging_files
    from breadcrumbs.merging import opening
    from breadcrumbs.plan.recipe import Model, Recipe

    mine = tuple(Model(str(path)) for path in rest)
    made = Recipe(str(base), mine, "task_arithmetic", {"alpha": alpha})
    with opening.opened(made) as plan:
        merging_files.to_files(plan, output, force=True, shard_size=30000, **more)


def packing(models: list[Path], output: Path, alpha: float) -> None:
    tasks.pack(models[0], models[1 if alpha == 1 else 2], output, transform="none", force=True)


def adapter(models: list[Path], output: Path, alpha: float) -> None:
    with whole.folder(output, force=True) as place:
        (place / "one").write_text(str(alpha))
        (place / "two").write_text(str(alpha))


WRITERS = {
    "folder": (merging, "out"),
    "file": (merging, "out.safetensors"),
    "task": (packing, "out.safetensors"),
    "adapter": (adapter, "out"),
    "new folders": (merging, "new/deeper/out"),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("before", [False, True])
def test_a_power_cut_leaves_old_or_new(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, before: bool
) -> None:
    write, name = WRITERS[kind]
    write(models, tmp_path / "apart" / name if kind != "task" else tmp_path / name, 0.5)
    new = contents(tmp_path / "apart" / name if kind != "task" else tmp_path / name)
    disk_top = tmp_path / "disk"
    disk_top.mkdir()
    old = None
    if before:
        write(models, disk_top / name, 1)
        old = contents(disk_top / name)
    seen: list[Any] = []
    over = False

    def look(copy: Path) -> None:
        found = contents(copy / name)
        assert not over or found == new, "after the end only the new one can be left"
        if found is None and old is not None:
            aside = [*copy.rglob(".replaced"), *copy.rglob("*.old.partial")]
            made = [*copy.rglob("out.partial"), *copy.glob(".out.*.partial")]
            somewhere = [contents(path) for path in (*aside, *made)]
            assert old in somewhere or new in somewhere, "the old one is gone"
            return
        assert found in (old, new), "what has the name is not whole"
        seen.append(found == new)

    with monkeypatch.context() as patch:
        disk = Disk(disk_top, look, patch)
        write(models, disk_top / name, 0.5)
        over = True
        disk.cut()
        assert disk.cuts > 2 and seen[-1]
    assert contents(disk_top / name) == new
    assert [p.name for p in disk_top.iterdir()] == [name.partition("/")[0]]


def test_the_simulation_sees_what_is_not_synced(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with durable.syncing(False), pytest.raises(AssertionError, match=r"not whole|is gone"):
        test_a_power_cut_leaves_old_or_new(models, tmp_path, monkeypatch, "folder", True)


def test_a_name_is_on_the_disk_before_the_old_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "folder", synced.append)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "x").write_text("x")
    durable.rename(tmp_path / "one" / "x", tmp_path / "other" / "y")
    durable.replace(tmp_path / "other" / "y", tmp_path / "one" / "z")
    durable.rename(tmp_path / "one" / "z", tmp_path / "one" / "x")
    assert [path.name for path in synced] == ["other", "one", "one", "other", "one"]


def test_what_is_not_synced_further_up_is_not_further_down() -> None:
    with durable.syncing(False):
        with durable.syncing(True):
            assert not durable.is_on()
        assert not durable.is_on()
    with durable.syncing(True):
        assert durable.is_on()


@pytest.mark.parametrize(("code", "raised"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_disks_that_cannot_sync_folders_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, raised: bool
) -> None:
    def fails(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError) if raised else contextlib.nullcontext():
        durable.folder(tmp_path)


@pytest.mark.parametrize("write", [merging, packing])
def test_an_error_that_is_told_meanwhile_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    """More is written than is put on the disk at once."""
    many = durable.STEP // 8
    models = [model(tmp_path / "in" / str(seed), seed, many) for seed in range(3)]

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(OutputError, match="Input/output error"):
        write(models, tmp_path / "out.safetensors", 1)
    assert not (tmp_path / "out.safetensors").exists()


def test_an_old_folder_gets_its_name_back(tmp_path: Path) -> None:
    (tmp_path / ".out.0123abcd.old.partial").mkdir()
    (tmp_path / ".out.0123abcd.old.partial" / "one").write_text("old")
    (tmp_path / ".out.89abcdef.partial").mkdir()
    with pytest.raises(ZeroDivisionError), whole.folder(tmp_path / "out", force=True):
        raise ZeroDivisionError
    assert (tmp_path / "out" / "one").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- digests ---


def flip(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("single", [True, False])
def test_a_flipped_bit_is_named(models: list[Path], tmp_path: Path, single: bool) -> None:
    output = tmp_path / ("out.safetensors" if single else "out")
    merging(models, output, 1)
    assert verifying.verify(str(output)) == 4
    file = output if single else max(output.glob("model-*.safetensors"))
    flip(file, -5 + file.stat().st_size)
    with pytest.raises(CheckpointError, match=r"tensor 'l3.weight' is not what was written"):
        verifying.verify(str(output))
    flip(file, -5 + file.stat().st_size)
    verifying.verify(str(output))
    text = file.read_bytes().replace(b"task_arithmetic", b"task_arithmetiC", 1)
    file.write_bytes(text)
    with pytest.raises(CheckpointError, match="its header is not what was written"):
        verifying.verify(str(output))


def test_parts_of_two_models_are_found(models: list[Path], tmp_path: Path) -> None:
    for name, alpha in (("out", 1), ("other", 0.5)):
        merging(models, tmp_path / name, alpha)
    part = min((tmp_path / "out").glob("model-*.safetensors"))
    shutil.copy(tmp_path / "other" / part.name, part)
    with pytest.raises(CheckpointError, match="Parts of two models"):
        verifying.verify(str(tmp_path / "out"))


def test_task_files_and_others(models: list[Path], tmp_path: Path) -> None:
    task = tmp_path / "t.safetensors"
    packing(models, task, 1)
    verifying.verify(str(task))
    flip(task, task.stat().st_size - 3)
    with pytest.raises(BreadcrumbsError):
        verifying.verify(str(task))
    with pytest.raises(CheckpointError, match="has no digest to verify"):
        verifying.verify(str(models[0]))


@pytest.mark.parametrize("seed", range(4))
def test_digests_do_not_depend_on_the_order_of_writing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = rng.bytes(3 * digests.BLOCK + 777)
    n, whole_ = len(data), memoryview(data)
    plain = digests.read(n, 0, n, lambda at, size: data[at : at + size])
    cuts = sorted({0, n, *rng.integers(0, n, 9).tolist()})
    runs = list(itertools.pairwise(cuts))
    for order in (runs, list(reversed(runs)), rng.permutation(runs).tolist(), [*runs, runs[1]]):
        growing = digests.Growing([n])
        growing.wrote(0, 5, memoryview(b"other bytes"))  # written over afterwards
        for low, high in order:
            growing.wrote(0, low, whole_[low:high])
        assert growing.tensor(0, lambda at, size: data[at : at + size]) == plain


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2), (0, 1, 2)])
@pytest.mark.parametrize("before", [False, True])
def test_what_is_written_over_in_pieces_is_not_what_it_was(order: Any, before: bool) -> None:
    data, n = np.random.default_rng(0).bytes(digests.BLOCK + 50), digests.BLOCK + 50
    runs = [(0, 100), (100, 5000), (5000, n)]
    growing = digests.Growing([n])
    if before:
        growing.wrote(0, 0, memoryview(bytes(n)))
    for low, high in (runs[i] for i in order):
        growing.wrote(0, low, memoryview(data)[low:high])
    found = growing.tensor(0, lambda at, size: data[at : at + size])
    assert found == digests.read(n, 0, n, lambda at, size: data[at : at + size])


# --- two at once ---

_TWO = """
import sys
from breadcrumbs.cli import main
sys.exit(main(sys.argv[1:], standalone_mode=False))
"""


def started(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _TWO, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize("what", ["pack", "export", "unpack"])
def test_two_at_once_leave_one_whole(models: list[Path], tmp_path: Path, what: str) -> None:
    base, a, b = models
    output = tmp_path / ("out" if what == "unpack" else "out.safetensors")
    sources = []
    for number, path in enumerate((a, b)):
        sources.append(tmp_path / f"t{number}.safetensors")
        tasks.pack(base, path, sources[-1], transform="none")
    begin = {
        "pack": lambda i: ("task", "pack", base, models[i], "--transform", "none", "-o", output),
        "export": lambda i: ("task", "export", base, sources[i - 1], "--to", "patch", "-o", output),
        "unpack": lambda i: ("task", "unpack", base, sources[i - 1], "-o", output),
    }[what]
    alone = []
    for number in (1, 2):
        assert started(*begin(number), "--force").wait() == 0
        alone.append(contents(output))
    assert alone[0] != alone[1]
    if what == "export":
        output.unlink()
    flags = [] if what == "export" else ["--force"]
    both = [started(*begin(number), *flags) for number in (1, 2)]
    codes = [process.wait() for process in both]
    assert 0 in codes and contents(output) in alone
    left = {"in", "t0.safetensors", "t1.safetensors", output.name}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_no_clobbering_without_force(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def pieces() -> Iterator[bytes]:
        yield b"mine"
        path.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="in the meantime"):
        whole.write(path, pieces(), force=False)
    assert path.read_bytes() == b"theirs" and list(tmp_path.iterdir()) == [path]


def test_disks_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "out"
    whole.write(path, [b"mine"], force=False)
    with pytest.raises(OutputError, match="in the meantime"):
        whole.write(path, [b"again"], force=False)
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [adapter, merging])
def test_a_folder_that_cannot_be_named_leaves_the_old_one(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    path, rename = tmp_path / "out", durable.rename
    write(models, path, 1)
    old = contents(path)

    def fails(source: Any, target: Any) -> None:
        back = str(source).endswith((".old.partial", ".replaced"))
        if Path(target) == path and not back:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(durable, "rename", fails)
    with pytest.raises((OSError, OutputError), match="Input/output error"):
        write(models, path, 0.5)
    assert contents(path) == old


def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    dead = tmp_path / ".out.safetensors.0123abcd.partial"
    dead.write_bytes(b"half")
    with whole.file(tmp_path / "out.safetensors") as place:
        assert not dead.exists()
        whole.write(tmp_path / "out.safetensors", [b"second"])
        assert place.exists(), "that of a process that lives stays"
        place.write_bytes(b"first")
    assert (tmp_path / "out.safetensors").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["ü" * 60 + ".safetensors", "x" * 243 + ".safetensors"])
def test_long_names(tmp_path: Path, name: str) -> None:
    whole.write(tmp_path / name, [b"x"])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_links_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    whole.write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "x"
    # A pipe, and no device: what is broken would replace that for the whole machine.
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        whole.write_text(tmp_path / "pipe", "x")
        assert (tmp_path / "pipe").is_fifo() and os.read(reader, 9) == b"x"
    finally:
        os.close(reader)


def test_the_same_size_and_time_is_not_the_same_file(models: list[Path], tmp_path: Path) -> None:
    victim = models[1] / "model.safetensors"
    said = victim.stat()
    calls = iter(range(2))

    def progress(nbytes: int) -> None:
        if next(calls, None) == 0:
            tensors = load_file(victim)
            save_file({name: value + 1 for name, value in tensors.items()}, victim)
            os.utime(victim, ns=(said.st_atime_ns, said.st_mtime_ns))

    with pytest.raises(CheckpointError, match="changed while it was being merged"):
        merging(models, tmp_path / "out", 1, progress=progress, threads=1)
    assert victim.stat().st_size == said.st_size and not (tmp_path / "out").exists()


def test_sync_can_be_left_out(models: list[Path], tmp_path: Path, monkeypatch: Any) -> None:
    calls = []
    monkeypatch.setattr(durable, "file", lambda fd: calls.append(fd))
    breadcrumbs.merge(models[0], models[1:], output=tmp_path / "out", sync=False, alpha=1)
    assert not calls
    breadcrumbs.merge(models[0], models[1:], output=tmp_path / "other", alpha=1)
    assert calls
