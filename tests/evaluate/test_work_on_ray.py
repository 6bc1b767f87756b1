"""Scores, searches and fine-tunings on a cluster of Ray are those of one process, whoever dies."""

from __future__ import annotations

import glob
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from worked import Work, finetuned, scored

from breadcrumbs.cli.group import main
from breadcrumbs.errors import OutputError
from breadcrumbs.evaluate.results.results import Results
from breadcrumbs.evaluate.scoring import scores
from breadcrumbs.merging.executors import cluster

pytest.importorskip("torch")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(tmp_path_factory.mktemp("work"))


@pytest.mark.shortlist
def test_scores_on_machines_that_lose_workers(
    work: Work, machines: Any, tmp_path: Path, capfd: Any
) -> None:
    """Rows are kept by this process alone, who is asked."""
    one = scored(work, tmp_path / "one", workers=1)
    work.tell("kill")
    assert scored(work, tmp_path / "ray", on="ray") == one
    assert not (work.folder / "kill").exists()
    with Results(tmp_path / "ray" / "r.sqlite", readonly=True) as results:
        assert len(results.select()) == len(one)
    assert capfd.readouterr() == ("", "")


def test_a_fine_tuning_goes_on_elsewhere(work: Work, machines: Any, tmp_path: Path) -> None:
    news: list[object] = []
    finetuned(work, tmp_path / "one", workers=1)
    work.tell("kill at 10")
    told = {"every": 0, "tell": lambda event: news.append(event.news)}
    finetuned(work, tmp_path / "ray", on="ray", **told)
    assert not (work.folder / "kill at 10").exists()
    assert any("going on after step" in str(it) for it in news)
    paths = [tmp_path / it / "seed-0/first" for it in ("one", "ray")]
    assert len({(path / "model.safetensors").read_bytes() for path in paths}) == 1
    assert sorted(it.name for it in (tmp_path / "ray").iterdir()) == ["seed-0"]
    assert (tmp_path / "ray/seed-0/suite.yaml").exists()


def test_a_search_on_ray_is_that_of_workers(work: Work, machines: Any, tmp_path: Path) -> None:
    found = []
    for number, where in enumerate((["--workers", "2"], ["--on", "ray"])):
        run = ["search", str(work.suite.path), "-o", str(tmp_path / f"{number}.yaml"), "--json"]
        run += ["-m", "task_arithmetic", "-p", "alpha=0.1:1", "--trials", "4", "--batch", "2"]
        run += ["--results", str(tmp_path / f"{number}.sqlite"), "--sampler", "random", *where]
        done = CliRunner().invoke(main, run, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found.append(done.stdout.replace(f"{number}.yaml", "best.yaml"))
    assert found[0] == found[1]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_models_that_are_not_shared_are_refused(work: Work, machines: Any, tmp_path: Path) -> None:
    folder = os.open(work.folder, os.O_RDONLY)
    try:
        mine = f"/proc/self/fd/{os.dup2(folder, 333)}"  # which no other process has
        made = replace(
            work.made, models=(replace(work.made.models[0], path=f"{mine}/first.safetensors"),)
        )
        with pytest.raises(OutputError, match=r"does not see .*333.* storage that all"):
            scores.of(work.suite, [made], work.settings(tmp_path, on="ray"), alone=True)
    finally:
        os.close(333)
        os.close(folder)


@pytest.mark.shortlist
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_nobody_listens_but_to_this_machine(machines: Any) -> None:
    """Of all processes of clusters that are there; `--on ray` alone sets what the variable does."""
    from ray._private import ray_constants  # pyright: ignore[reportMissingImports]

    assert getattr(ray_constants, cluster.LOOPBACK) is False
    owners: dict[str, str] = {}
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            called = Path(path).parents[1].joinpath("cmdline").read_text()
            owners[os.readlink(path)] = called.replace("\0", " ")
        except OSError:
            continue
    seen = []
    for line in "".join(Path(f"/proc/net/{it}").read_text() for it in ("tcp", "tcp6")).splitlines():
        _, local, _, state, *rest = line.split()
        owner = owners.get(f"socket:[{rest[5]}]", "")
        if state == "0A" and ("ray::" in owner or "/ray/" in owner):
            seen.append((local.partition(":")[0], owner[:60]))
    loopback = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
    assert len(seen) >= 5 and all(where in loopback for where, _ in seen), seen
