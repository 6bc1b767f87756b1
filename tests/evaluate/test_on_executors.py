"""Scores, searches and fine-tunings by an executor: who dies, what is not the same, what is kept.

The processes of this machine stand for all; what is of Ray alone is in test_work_on_ray.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from doubling import doubled
from worked import Work, finetuned, scored

from breadcrumbs.cli.group import main
from breadcrumbs.errors import OutputError, ScoreError
from breadcrumbs.evaluate.results.results import Results
from breadcrumbs.evaluate.scoring.pool import NEEDED, Pool
from breadcrumbs.merging.executors import Failed, Processes, Unit, machines

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(tmp_path_factory.mktemp("work"))


UNIT = Unit("call", "Do less.", error=ScoreError)


def test_processes_that_die_are_replaced_one_by_one() -> None:
    told: list[tuple[int, int]] = []
    with Processes(2, NEEDED, retries=1) as processes:
        given = iter(range(6))
        every = processes.each(doubled, given, UNIT, lambda item, news: told.append((item, news)))
        found = dict(every)
        assert [found[number] for number in (0, 1, 4, 5)] == [0, 2, 8, 10]
        assert isinstance(found[2], Failed) and repr(found[2].error) == "KeyError('two')"
        assert "in doubled" in found[2].error.__notes__[0]
        lost = found[3]
        assert isinstance(lost, Failed) and isinstance(lost.error, ScoreError)
        assert str(lost.error).startswith("processes:2: a worker was lost 2 times at the same call")
        assert sorted(told) == sorted([(n, n) for n in range(6)] + [(3, 3)])
        assert next(processes.each(doubled, [7], UNIT, lambda item, news: None)) == (7, 14)


def test_scores_by_processes_that_die_are_those_of_one(work: Work, tmp_path: Path) -> None:
    one = scored(work, tmp_path / "one", workers=1)
    work.tell("kill")
    assert scored(work, tmp_path / "two", on="processes:2") == one
    assert not (work.folder / "kill").exists()
    with Results(tmp_path / "two" / "r.sqlite", readonly=True) as results:
        assert len(results.select()) == len(one)


def test_what_was_scored_is_kept_when_the_program_ends(work: Work, tmp_path: Path) -> None:
    """With the rows that had not come back, but were told: nothing is asked twice."""
    one = scored(work, tmp_path / "one", workers=1)
    work.tell("count")
    run = [sys.executable, "-m", "breadcrumbs", "evaluate", str(work.suite.path), work.recipe]
    run += ["--results", str(tmp_path / "r.sqlite"), "--on", "processes:1"]
    run += ["--precision", "float32"]
    cache = {**os.environ, "BREADCRUMBS_CACHE": str(tmp_path)}
    work.tell("wait at 4")  # three batches a score, and two scores in what is done first
    with subprocess.Popen(run, env=cache, stdout=subprocess.DEVNULL) as process:
        try:
            work.until(lambda: (work.folder / "waits").exists())
            results = Results(tmp_path / "r.sqlite", readonly=True)
            work.until(lambda: len(results.select()) == 1)
        finally:
            process.kill()
    work.untell("wait at 4")
    before = work.counted()
    more = {"results": str(tmp_path / "r.sqlite"), "cache": tmp_path}
    assert scored(work, tmp_path / "again", workers=1, **more) == one
    assert work.counted() - before == 3 * (len(one) - 1)
    before = work.counted()  # a recipe that is merged in memory is known by its hash
    assert scored(work, tmp_path / "known", workers=1, **more) == one
    assert work.counted() == before
    work.untell("count")


def test_another_machines_files_are_no_score_of_this_one(work: Work, tmp_path: Path) -> None:
    rows = work.folder / "first.csv"
    text = rows.read_text()
    with Pool(work.suite, work.settings(tmp_path, on="processes:1")) as pool:
        pool.keys.key("0" * 64, "first", "test")  # what is here was read
        try:
            rows.write_text(text.replace("class 2", "class two"))
            with pytest.raises(ScoreError, match=r"on first: a worker has another (head|rows) \("):
                list(pool.score([(work.suite.base, ["first"])], "test"))
        finally:
            rows.write_text(text)


def test_other_machines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    needs = machines.needs(["here", "org/name"], packages=["torch"], patience=0.0)
    assert machines.check(needs) and needs.inputs == ("here",)
    other = replace(needs, by=(*needs.by[:-1], ("torch", "0.1")))
    with pytest.raises(OutputError, match=r"has .*torch 2.* and this is .*torch 0\.1\. Install"):
        machines.check(other)
    (tmp_path / "here").unlink()
    with pytest.raises(OutputError, match=r"does not see here, which is here\. Give inputs"):
        machines.check(needs)


def test_a_search_on_processes_is_that_of_workers(work: Work, tmp_path: Path) -> None:
    found = []
    for number, where in enumerate((["--workers", "2"], ["--on", "processes:2"])):
        run = ["search", str(work.suite.path), "-o", str(tmp_path / f"{number}.yaml"), "--json"]
        run += ["-m", "task_arithmetic", "-p", "alpha=0.1:1", "--trials", "4", *where]
        run += ["--results", str(tmp_path / f"{number}.sqlite"), "--sampler", "random"]
        done = CliRunner().invoke(main, run, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found.append(done.stdout.replace(f"{number}.yaml", "best.yaml"))
    assert found[0] == found[1]


@pytest.mark.parametrize("command", ["evaluate", "search", "finetune", "learn"])
def test_names_of_executors(command: str, work: Work, tmp_path: Path) -> None:
    output = {"learn": "h.safetensors", "search": "best.yaml"}.get(command, "out")
    run = [command, str(work.suite.path), *(["m"] if command == "learn" else [])]
    run += [] if command == "evaluate" else ["-o", str(tmp_path / output)]
    wrong = CliRunner().invoke(main, [*run, "--on", "processes"])
    assert wrong.exit_code == 1 and "nor ray://HOST:10001" in wrong.stderr
    if command != "learn":
        wrong = CliRunner().invoke(main, [*run, "--on", "processes:2", "--workers", "2"])
        assert wrong.exit_code == 2 and "give --workers or --on" in wrong.stderr


def test_a_fine_tuning_whose_process_dies_goes_on(work: Work, tmp_path: Path) -> None:
    news: list[object] = []
    finetuned(work, tmp_path / "one", workers=1)
    work.tell("kill at 10")
    told = {"every": 0, "tell": lambda event: news.append(event.news)}
    finetuned(work, tmp_path / "on", on="processes:2", **told)
    assert any("going on after step" in str(it) for it in news)
    paths = (tmp_path / it / "seed-0/first/model.safetensors" for it in ("one", "on"))
    assert len({path.read_bytes() for path in paths}) == 1
