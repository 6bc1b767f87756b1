"""Fine-tunings that were interrupted go on to the same bits."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from breadcrumbs.errors import OutputError
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.finetuning import finetuning
from breadcrumbs.evaluate.finetuning.saved import Saved
from breadcrumbs.evaluate.finetuning.training import Step
from breadcrumbs.evaluate.finetuning.tuner import Tuner

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from bag_family import NOUNS, SETTINGS, tuner, weights, write_rows  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class Interrupted(BaseException):
    """Whatever ends a process."""


def interrupt(tuner: Tuner, step: int) -> None:
    """Fine-tune on `three` until a step is done, then break off."""
    seen = 0

    def tell(what):
        nonlocal seen
        seen += isinstance(what, Step)
        if seen == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        tuner.tune("three", 0, tell)


@pytest.mark.parametrize("step", [1, 2, 13, 14, 38])
def test_interrupted_after_any_step_it_gives_the_same_bits(suite, whole, tmp_path, step):
    """Steps at the beginning, at the ends of epochs of 13 batches, and in between."""
    interrupt(tuner(suite, tmp_path, every=0), step)
    told = []
    tuner(suite, tmp_path, every=0).tune("three", 0, told.append)
    assert [what for what in told if what == f"going on after step {step - 1}"] or step == 1
    assert sum(isinstance(what, Step) for what in told) == 39 - (step - 1)
    assert weights(tmp_path / "seed-0/three") == weights(whole)


def test_a_failure_does_not_spoil_the_next_task_of_the_process(suite, whole, tmp_path):
    mine = tuner(suite, tmp_path / "mine")
    interrupt(mine, 5)
    assert weights_after(mine, "two") == weights_after(tuner(suite, tmp_path / "other"), "two")
    assert weights_after(mine, "three") == weights(whole)


def weights_after(tuner: Tuner, task: str) -> bytes:
    tuner.tune(task, 0)
    return weights(tuner.output / "seed-0" / task)


def test_a_damaged_state_is_not_used(suite, whole, tmp_path):
    interrupt(tuner(suite, tmp_path, every=0), 20)
    state = tmp_path / "seed-0/three.partial/state"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    told = []
    tuner(suite, tmp_path).tune("three", 0, told.append)
    assert "scoring the base" in told
    assert weights(tmp_path / "seed-0/three") == weights(whole)


def test_what_was_begun_with_other_settings_or_rows_is_refused(home, suite, tmp_path):
    interrupt(tuner(suite, tmp_path, every=0), 3)
    with pytest.raises(OutputError, match=r"three: was made with epochs 3, and now it is 5"):
        finetuning.run(suite, tmp_path, replace(SETTINGS, epochs=5), tasks=["three"])
    other = tmp_path / "other"
    shutil.copytree(home, other, ignore=shutil.ignore_patterns("family"))
    write_rows(other / "three.csv", list(NOUNS), {"train": 100, "validation": 90, "test": 50})
    changed = suites.load(other / "two-three-bag-base.yaml")
    with pytest.raises(
        OutputError, match=r"was made with training rows \w{8}, and now it is \w{8}"
    ):
        tuner(changed, tmp_path).tune("three", 0)


def test_two_at_once_do_not_write_the_same_task(suite, tmp_path):
    def tell(what):
        if isinstance(what, Step):
            with pytest.raises(OutputError, match="another process is writing it"):
                tuner(suite, tmp_path).tune("three", 0)
            raise Interrupted

    with pytest.raises(Interrupted):
        tuner(suite, tmp_path).tune("three", 0, tell)


def test_a_full_disk_leaves_the_last_state(tmp_path):
    """Stands for a full disk: a limit of the size of files, which the system enforces."""
    saved = Saved(tmp_path / "state", 0)
    saved.write({"step": 1})
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match=r"state: cannot be written: .*Make room, and run"):
            saved.write({"step": 2, "weights": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saved.read() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
