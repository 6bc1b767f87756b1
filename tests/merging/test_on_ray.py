"""Merges on a cluster of Ray give the bytes of one process, whoever dies; errors are one line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_in_parts import SHARD, Bench, assert_same

from breadcrumbs.errors import MismatchError, OutputError, RecipeError
from breadcrumbs.merging import files, opening
from breadcrumbs.merging.executors import cluster
from breadcrumbs.merging.executors import machines as needed
from breadcrumbs.merging.parts import Merge, engines, merge_part, on_ray
from breadcrumbs.methods import registry

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray"),
]

#: A method that does what files beside it say: dies once, lacks memory or room, or waits.
PLUGIN = """
import errno, os, signal, time
from pathlib import Path
from breadcrumbs.methods import Everything, Elementwise, Method

HERE = Path(__file__).parent

def taken(name):
    try:
        (HERE / name).unlink()
    except FileNotFoundError:
        return False
    return True

def first(entries, values):
    if taken("kill") or (HERE / "kill always").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if taken("full") or (HERE / "full always").exists():
        raise MemoryError
    if taken("no room") or (HERE / "no room always").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the disk")
    if (HERE / "wait").exists():
        (HERE / f"waits {os.getpid()}").touch()
        while (HERE / "wait").exists():
            time.sleep(0.02)
    return entries.taus[0]

METHOD = Method("own", Everything(), Elementwise(combine=first, name="own"), "the first", "f", "p")
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("ray"))


class Told:
    """Merges by a method that does what it is told, and what one process makes of them."""

    def __init__(self, bench: Bench, folder: Path):
        self.bench, self.folder = bench, folder
        self.plugin = folder / "own.py"
        self.plugin.write_text(PLUGIN)
        registry.load_plugin(self.plugin)
        one = self.merge()
        with opening.opened(one.recipe, sizes=one.sizes, by_token=True) as plan:
            files.to_files(plan, one.output, threads=1, shard_size=SHARD)
        self.one = Path(one.output)

    def merge(self) -> Merge:
        it = replace(self.bench.merge(), plugins=(str(self.plugin),))
        return replace(it, recipe=replace(it.recipe, method="own", parameters={}))

    def go(self) -> None:
        """Let those go on that wait."""
        (self.folder / "wait").unlink()
        for path in self.folder.glob("waits *"):
            path.unlink()

    def tell(self, what: str) -> None:
        (self.folder / what).touch()

    def wait(self, number: int, then: Callable[[], None]) -> None:
        """Do something when so many workers wait."""
        until = time.monotonic() + 60
        while len(list(self.folder.glob("waits *"))) < number and time.monotonic() < until:
            time.sleep(0.02)
        then()


@pytest.fixture(scope="module")
def told(bench: Bench) -> Iterator[Told]:
    (bench.folder / "own").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("METHODS", "PLUGINS", "FILES"):
            patch.setattr(registry, name, dict(getattr(registry, name)))
        yield Told(bench, bench.folder / "own")


@pytest.mark.parametrize(
    "case", [pytest.param("an election, and alpha", marks=pytest.mark.shortlist), "matrices"]
)
def test_the_bytes_are_those_of_one_process(
    case: str, bench: Bench, machines: Any, capfd: Any
) -> None:
    it = bench.merge(case)
    on_ray(it, threads=1)
    assert_same(bench.one(case), it.output)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "what", [pytest.param("kill", marks=pytest.mark.shortlist), "full", "no room"]
)
def test_what_is_lost_or_may_pass_is_tried_again(
    what: str, told: Told, machines: Any, capfd: Any
) -> None:
    it = told.merge()
    told.tell(what)
    on_ray(it, threads=1)
    assert_same(told.one, it.output)
    assert not (told.folder / what).exists()
    words = {
        "kill": "lost 1 time .*want of memory",
        "full": "out of memory twice.*--max-memory",
        "no room": "No space left",
    }
    told.tell(f"{what} always")
    it = told.merge()
    with pytest.raises(OutputError, match=words[what]) as caught:
        on_ray(it, threads=1, retries=0)
    assert "\n" not in str(caught.value)
    (told.folder / f"{what} always").unlink()
    assert capfd.readouterr() == ("", "")


def test_an_error_of_a_part_comes_as_it_is(bench: Bench, machines: Any, tmp_path: Path) -> None:
    it = bench.merge()
    path = tmp_path / "model.safetensors"
    state = load_file(f"{bench.paths[1]}/model.safetensors")
    state["a.weight"] = np.full_like(state["a.weight"], np.nan)
    save_file(state, path)
    models = (replace(it.recipe.models[0], path=str(path)), it.recipe.models[1])
    it = replace(it, recipe=replace(it.recipe, models=models))
    alone = replace(it, output=str(tmp_path / "alone"))
    with pytest.raises(MismatchError) as one:
        merge_part(alone, 1, 1, threads=1)
    with pytest.raises(MismatchError) as caught:
        on_ray(it, threads=1)
    assert str(caught.value) == str(one.value) and caught.value.__cause__ is None


@pytest.mark.shortlist
@pytest.mark.parametrize("what", ["version", "plugin"])
def test_other_programs_are_refused_before_the_first_part(
    what: str, told: Told, machines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = told.merge()
    if what == "version":
        monkeypatch.setattr(needed, "__version__", "0.0.1")
    else:
        monkeypatch.setattr(needed, "hashed", lambda path: "another")
    with pytest.raises(OutputError, match=r"Breadcrumbs 0\.0\.1\b|own.py .* another plugin"):
        on_ray(it, threads=1)
    names = {path.name for path in Path(f"{it.output}.partial").iterdir()}
    assert names == {"judged", "plan.json"}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.shortlist
@pytest.mark.parametrize("what", ["output", "input"])
def test_storage_that_is_not_shared_is_refused(
    what: str, bench: Bench, machines: Any, tmp_path: Path
) -> None:
    it = bench.merge()
    folder = os.open(tmp_path if what == "output" else bench.folder / "in", os.O_RDONLY)
    try:
        mine = f"/proc/self/fd/{os.dup2(folder, 333)}"  # which no other process has
        if what == "output":
            it = replace(it, output=f"{mine}/out")
        else:
            it = replace(it, recipe=replace(it.recipe, base=f"{mine}/base"))
        with pytest.raises(OutputError, match=r"does not see .* storage that all"):
            on_ray(it, threads=1, patience=0.2)
    finally:
        os.close(333)
        os.close(folder)


def test_more_threads_than_a_machine_has_are_refused(bench: Bench, machines: Any) -> None:
    with pytest.raises(OutputError, match="no machine of it has 2 processors"):
        on_ray(bench.merge(), threads=2)


def test_names_of_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert engines.engine("ray") is on_ray
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(OutputError, match="no cluster answers there"):
            engines.engine("ray")
    for wrong in (
        "ray://",
        "ray:h:1",
        "ray://h",
        "ray://h:p",
        "rays",
        "processes:0",
        "ray://h:1/x",
    ):
        with pytest.raises(RecipeError, match=r"nor ray://HOST:10001"):
            engines.engine(wrong)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_stopped_is_resumed(number: int, told: Told, machines: Any) -> None:
    it = told.merge()
    told.tell("wait")
    call = [sys.executable, "-m", "breadcrumbs", "merge", *bench_models(it), "-o", it.output]
    call += ["-m", "own", "--plugin", str(told.plugin), "--shard-size", str(SHARD), "--no-sync"]
    call += ["--on", "ray", "--threads", "1"]
    begun = subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": machines.address},
    )
    told.wait(1, lambda: begun.send_signal(number))
    said = begun.communicate(timeout=60)
    if number == signal.SIGINT:
        assert begun.returncode == 130
        *_, last = said[1].splitlines()
        assert said[0] == "" and last == "breadcrumbs: interrupted. Give --resume to go on."
    else:
        assert begun.returncode == -signal.SIGKILL and said == ("", "")
    told.go()
    assert not Path(it.output).exists()
    on_ray(replace(it, sizes=Merge(it.recipe, it.output).sizes), threads=1)
    assert_same(told.one, it.output)


def bench_models(it: Merge) -> list[str]:
    return [it.recipe.base, *(model.path for model in it.recipe.models)]


@pytest.mark.shortlist
def test_a_machine_that_is_lost_has_its_parts_done_elsewhere(
    told: Told, machines: Any, capfd: Any
) -> None:
    it = told.merge()
    told.tell("wait")

    def lose() -> None:
        machines.remove_node(machines.second, allow_graceful=False)
        told.go()

    losing = threading.Thread(target=told.wait, args=(2, lose))
    losing.start()
    on_ray(it, threads=1)
    losing.join()
    assert_same(told.one, it.output)
    until = time.monotonic() + 30
    with cluster.connected() as found:
        while len(found.nodes()) == 2 and time.monotonic() < until:
            time.sleep(0.1)  # what is lost shows after some seconds
        assert len(found.nodes()) == 1
        time.sleep(0.5)  # and is told a little later
    assert "raylet" not in "".join(capfd.readouterr())
    machines.add()
