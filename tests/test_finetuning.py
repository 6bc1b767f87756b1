"""`breadcrumbs finetune`: families of a small real network, made, interrupted and gone on with."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import breadcrumbs
from breadcrumbs.errors import OutputError, SplitError, SuiteError, TrainingError
from breadcrumbs.evaluate import finetuned, finetuning, precise, training
from breadcrumbs.evaluate.task import Rows
from breadcrumbs.evaluate.training import Place, Settings, Step, factor

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from bag_foundation import FOUNDATION, write_base  # noqa: E402

from breadcrumbs.evaluate import suite as suites  # noqa: E402
from breadcrumbs.evaluate.saved import Saved  # noqa: E402
from breadcrumbs.evaluate.tuner import Tuner  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

NOUNS = {
    "pets": ["cat", "dog", "fish", "hamster", "bird"],
    "cars": ["wheel", "engine", "brake", "road", "fuel"],
    "food": ["bread", "soup", "cake", "apple", "rice"],
}
FILLER = ["the", "a", "is", "very", "some", "of", "with", "and", "it", "to"]
SETTINGS = Settings(epochs=3, rate=1e-2, batch=16, freeze=("hidden.bias",), precision="float32")
OPTIONS = ["--epochs", "3", "--rate", "1e-2", "--batch", "16", "--freeze", "hidden.bias"]
OPTIONS += ["--precision", "float32"]
MAIN = "from breadcrumbs.cli import main; main()"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a suite of two tasks."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BREADCRUMBS_CACHE", str(folder / "cache"))
        yield from prepared(folder)


def prepared(folder):
    write_base(folder / "base")
    shutil.copy(Path(__file__).with_name("bag_foundation.py"), folder / "bag.py")
    for name, labels in (("two", ["pets", "cars"]), ("three", list(NOUNS))):
        write_rows(folder / f"{name}.csv", labels, {"train": 200, "validation": 90, "test": 50})
    write_suite(folder, "two", "three")
    yield folder


def write_rows(path: Path, labels: Sequence[str], splits: dict[str, int]) -> None:
    draw = random.Random(path.stem)
    lines = ["text,label,split"]
    for split, number in splits.items():
        for row in range(number):
            label = draw.choice(labels)
            words = draw.choices(FILLER, k=draw.randint(0, 12)) + draw.choices(NOUNS[label], k=2)
            lines.append(f"{' '.join(words)} {row},{label},{split}")
    path.write_text("\n".join(lines) + "\n")


def write_suite(folder: Path, *tasks: str, foundation: str = "bag.py", base: str = "base") -> Path:
    lines = [f"foundation: {foundation}", f"base: {base}", "tasks:"]
    lines += [f"- {{task: {t}, data: {t}.csv, text: text, label: label}}" for t in tasks]
    path = folder / f"{'-'.join(tasks)}-{Path(foundation).stem}-{base}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def suite(home):
    return suites.load(home / "two-three-bag-base.yaml")


def tuner(suite, output, settings=SETTINGS, every=1e9):
    return Tuner(suite, Path(output), settings, every=every)


def weights(folder) -> bytes:
    return (Path(folder) / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(suite, tmp_path_factory):
    """The fine-tuning on `three` that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole")
    tuner(suite, output).tune("three", 0)
    return output / "seed-0" / "three"


# --- the command ------------------------------------------------------------------------------


def command(*words: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "finetune", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def family(home):
    """What the command wrote and printed: two tasks, one seed, two processes."""
    ran = command(home / "two-three-bag-base.yaml", "-o", home / "family", *OPTIONS, "--json")
    out, told = ran.communicate(timeout=300)
    assert ran.returncode == 0, told
    return home / "family" / "seed-0", json.loads(out), told


def test_a_family_is_a_folder_for_each_task_and_a_suite_of_them(family, suite):
    folder, records, told = family
    assert sorted(path.name for path in folder.iterdir()) == ["suite.yaml", "three", "two"]
    made = suites.load(folder / "suite.yaml")
    for task in made.tasks:
        assert Path(task.finetuned) == folder / task.name
        assert task.rows("test").digest == suite.task(task.name).rows("test").digest
    for record, name in zip(records, ["two", "three"], strict=True):
        assert record["made_of"]["task"] == name
        assert record["validation"]["after"] > record["validation"]["before"] + 0.1
        assert record == json.loads((folder / name / "finetune.json").read_text())
        assert f"{name}, seed 0: accuracy on validation rows" in told


def test_a_fine_tuning_is_a_folder_like_the_bases(family, home):
    folder, *_ = family
    files = ["config.json", "finetune.json", "model.safetensors"]
    assert sorted(path.name for path in (folder / "two").iterdir()) == files
    assert (folder / "two/config.json").read_bytes() == (home / "base/config.json").read_bytes()
    base, tuned = breadcrumbs.open(home / "base"), breadcrumbs.open(folder / "two")
    assert list(base) == list(tuned)
    changed = {name for name in base if base[name].tobytes() != tuned[name].tobytes()}
    assert changed == {"words.weight", "hidden.weight"}  # frozen, unused and int64 stay
    FOUNDATION.load(str(folder / "two"))


def test_processes_give_the_bits_of_a_single_one(family, whole):
    assert weights(family[0] / "three") == weights(whole)


def test_what_is_finished_is_kept_and_other_settings_are_refused(family, suite):
    path = family[0] / "two/model.safetensors"
    before, told = path.stat(), []
    again = tuner(suite, family[0].parent).tune("two", 0, told.append)
    assert again == family[1][0] and not told
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with pytest.raises(OutputError, match=r"two: was made with rate 0\.01, and now it is 0\.001"):
        finetuning.run(suite, family[0].parent, replace(SETTINGS, rate=1e-3))


def test_force_begins_again_and_a_failure_does_not_stop_the_others(home, family, tmp_path):
    output = tmp_path / "family"
    shutil.copytree(family[0].parent, output)
    text = (home / "bag.py").read_text()
    text = text.replace(
        'task.rows("train")', 'task.rows("test" if task.name == "two" else "train")'
    )
    (home / "peek.py").write_text(text)
    suite = suites.load(write_suite(home, "two", "three", foundation="peek.py"))
    settings = replace(SETTINGS, epochs=1)
    with pytest.raises(SplitError, match=r"^task 'two': test rows were asked for"):
        finetuning.run(suite, output, settings, force=True, workers=1)
    record = finetuned.found(output / "seed-0/three")
    assert record is not None and record["made_of"]["epochs"] == 1
    made = suites.load(output / "seed-0/suite.yaml")
    assert [task.finetuned for task in made.tasks] == [None, str(output / "seed-0/three")]


def test_killed_at_any_moment_it_goes_on_to_the_same_bits(home, suite, whole, tmp_path):
    """With SIGKILL, of the first process alone: those that it began end by themselves."""
    for attempt, longest in enumerate((0.2, 0.1, 0.05, 0.0, 0.0)):  # it may be done before that
        output = tmp_path / str(attempt)
        words = [home / "two-three-bag-base.yaml", "-o", output, "--task", "three", *OPTIONS]
        ran = command(*words, "--save-every", "0", "--workers", "1")
        state = output / "seed-0/three.partial/state"
        while ran.poll() is None and not state.exists():
            time.sleep(0.001)
        time.sleep(random.random() * longest)
        ran.send_signal(signal.SIGKILL)
        ran.communicate(timeout=60)  # until nobody has its stderr open any more
        if not (output / "seed-0/three").exists():
            break
    else:
        raise AssertionError("this computer is too fast for this test")
    told = []
    tuner(suite, output).tune("three", 0, told.append)
    assert re.match("going on after step", told[1])
    assert weights(output / "seed-0/three") == weights(whole)
    assert not (output / "seed-0/three.partial").exists()


# --- going on ---------------------------------------------------------------------------------


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


# --- what it depends on -----------------------------------------------------------------------


def test_seeds_give_other_models_and_heads_do_not_change(suite, whole, tmp_path):
    mine = tuner(suite, tmp_path)
    records = [mine.tune("three", seed)["validation"]["before"] for seed in (0, 1)]
    assert weights(tmp_path / "seed-0/three") == weights(whole)
    assert weights(tmp_path / "seed-1/three") != weights(whole)
    assert records[0] == records[1]


def batches(suite, settings, start=Place(), seed=0):  # noqa: B008
    """Return (place, texts) of all batches of a training."""
    task = suite.task("three")
    module = FOUNDATION.load(suite.base)
    it = training.Training(
        FOUNDATION, module, list(module.parameters()), None, task, task.rows("train"), settings,
        seed,
    )  # fmt: skip
    return [(place, batch.inputs) for place, batch in it._batches(start)]


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(suite):
    settings = replace(SETTINGS, batch=2)  # windows of 32 rows: 200 rows are six and a quarter
    made = batches(suite, settings)
    epochs = [[inputs for place, inputs in made if place.epoch == epoch] for epoch in range(3)]
    keys = [
        [
            tuple(row[mask > 0].tolist())
            for b in epoch
            for row, mask in zip(b["words"], b["mask"], strict=True)
        ]
        for epoch in epochs
    ]
    assert sorted(keys[0]) == sorted(keys[1]) == sorted(keys[2])
    assert len(keys[0]) == 200
    together = [{frozenset(key[i : i + 2]) for i in range(0, 200, 2)} for key in keys]
    assert len(together[0] & together[1]) < 20 > len(together[1] & together[2])
    padding = [1 - float(b["mask"].mean()) for epoch in epochs for b in epoch]
    assert np.mean(padding) < 0.05  # at random it would be a quarter


def test_batches_go_on_from_any_place(suite):
    settings = replace(SETTINGS, batch=2)
    made = batches(suite, settings)
    for number in (0, 1, 15, 16, 99, 100, 101, 299):
        rest = batches(suite, settings, start=made[number][0])
        assert [place for place, _ in rest] == [place for place, _ in made[number + 1 :]]
        assert all(
            torch.equal(a["words"], b["words"])
            for (_, a), (_, b) in zip(rest, made[number + 1 :], strict=True)
        )


def test_rows_are_drawn_by_the_seed(suite):
    rows = suite.task("three").rows("train")
    few = training.drawn(rows, 20, 0, "three")
    assert len(few) == len(set(few.inputs)) == 20
    assert set(few.inputs) < set(rows.inputs)
    label = dict(zip(rows.inputs, rows.labels, strict=True))
    assert [label[text] for text in few.inputs] == few.labels.tolist()
    assert list(few.inputs) == list(training.drawn(rows, 20, 0, "three").inputs)
    assert list(few.inputs) != list(training.drawn(rows, 20, 1, "three").inputs)
    assert training.drawn(rows, 1000, 0, "three") is rows


def test_the_rate_rises_then_falls_to_nothing():
    linear = replace(SETTINGS, warmup=0.2, schedule="linear")
    shares = [0.1, 0.2, 0.6, 1.0]
    assert [factor(share, linear) for share in shares] == pytest.approx([0.5, 1, 0.5, 0])
    cosine = replace(linear, schedule="cosine")
    assert [factor(share, cosine) for share in shares] == pytest.approx([0.5, 1, 0.5, 0])
    assert factor(0.4, cosine) == pytest.approx(0.5 + 0.5 * 0.5**0.5)
    assert factor(0.0, replace(linear, warmup=0.0)) == 1


def test_a_narrow_base_is_trained_in_float32_and_rounded_once(home, tmp_path):
    """Steps of this rate are lost on bfloat16 weights, and add up in float32."""
    if not (home / "narrow").exists():
        write_base(home / "narrow", torch.bfloat16)
    suite = suites.load(write_suite(home, "three", base="narrow"))
    settings = replace(SETTINGS, rate=1e-4, epochs=20)
    tuner(suite, tmp_path, settings).tune("three", 0)
    base, tuned = breadcrumbs.open(suite.base), breadcrumbs.open(tmp_path / "seed-0/three")
    assert tuned["words.weight"].dtype == base["words.weight"].dtype == ml_dtypes.bfloat16
    large = np.abs(wide(base)) > 0.5  # where the next bfloat16 number is 2e-3 away, or more
    assert np.mean(wide(tuned)[large] != wide(base)[large]) > 0.1


def wide(checkpoint):
    return checkpoint["words.weight"].astype(np.float32)


def test_short_attention_is_the_same_attention():
    draw = torch.Generator().manual_seed(0)
    for tokens, kind in ((precise.SHORT, "Flash"), (precise.SHORT + 1, "")):
        query = torch.randn(2, 3, tokens, 8, generator=draw, requires_grad=True)
        plain = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        with precise.precise("float32", torch.device("cpu")):
            mine = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        names = [type(value.grad_fn).__name__ for value in (plain, mine)]
        assert (names[0] == names[1]) == (kind == ""), names
        torch.testing.assert_close(mine, plain)


# --- what is wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"freeze": ("hiden.*",)}, "--freeze 'hiden.*': matches no tensor .*Did you mean 'hidden"),
        ({"freeze": ("*",)}, r"--freeze \*: leaves nothing to train"),
    ],
)
def test_what_cannot_be_frozen(suite, tmp_path, change, told):
    with pytest.raises(SuiteError, match=told):
        tuner(suite, tmp_path, replace(SETTINGS, **change)).tune("two", 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"rate": float("nan")}, "rate nan"),
        ({"batch": 0}, "batch 0"),
        ({"warmup": 1.0}, "warmup 1.0"),
        ({"decay": -1.0}, "decay -1.0"),
        ({"schedule": "cosin"}, "schedule 'cosin'.*cosine"),
        ({"rows": 0}, "rows 0"),
    ],
)
def test_impossible_settings(change, told):
    with pytest.raises(SuiteError, match=told):
        replace(SETTINGS, **change)


def test_a_training_that_explodes_says_where_and_what_to_lower(suite, tmp_path):
    with pytest.raises(TrainingError, match=r"'two': at step \d+, the .*Lower the rate \(1e\+30\)"):
        tuner(suite, tmp_path, replace(SETTINGS, rate=1e30), every=0).tune("two", 0)
    assert not (tmp_path / "seed-0/two").exists()
    finetuning._check(suite, tmp_path, SETTINGS, [finetuning.Job("two", 0)], force=False)
    tuner(suite, tmp_path).tune("two", 0)  # with a lower rate, as the error says


def test_labels_that_the_head_has_no_class_for(home, tmp_path):
    text = (home / "bag.py").read_text()
    assert "len(task.labels), WIDTH" in text
    text = text.replace('head["classes"].T', 'head["classes"][:2].T')
    (home / "less.py").write_text(text)
    suite = suites.load(write_suite(home, "three", foundation="less.py"))
    with pytest.raises(SuiteError, match=r"'three': train row \d+ has label 2.*head has 2 classes"):
        tuner(suite, tmp_path).tune("three", 0)


def test_test_rows_cannot_be_reached(home, tmp_path):
    text = (home / "bag.py").read_text().replace('task.rows("train")', 'task.rows("test")')
    (home / "peek.py").write_text(text)
    suite = suites.load(write_suite(home, "three", foundation="peek.py"))
    with pytest.raises(SplitError, match="'three': test rows were asked for"):
        tuner(suite, tmp_path).tune("three", 0)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_task_without_rows(suite, tmp_path, split):
    task = suite.task("two")
    none = Rows((), np.empty(0, np.int64), "none")
    task = replace(task, read=lambda asked, read=task.read: none if asked == split else read(asked))
    with pytest.raises(SplitError, match=f"'two': there are no {split} rows"):
        tuner(replace(suite, tasks=(task,)), tmp_path).tune("two", 0)


@pytest.mark.parametrize("name", ["suite.yaml", "a/b", "..", "x.partial", "x.safetensors", ""])
def test_names_that_no_folder_can_have(name):
    with pytest.raises(SuiteError, match="cannot be the name of a folder"):
        finetuned.folder(Path("out"), name, 0)


def test_a_folder_of_something_else_is_never_touched(suite, tmp_path):
    (tmp_path / "seed-0/two").mkdir(parents=True)
    (tmp_path / "seed-0/two/finetune.json").write_text("{}")
    for force in (False, True):
        with pytest.raises(OutputError, match="exists and is no fine-tuning of ours"):
            finetuning.run(suite, tmp_path, SETTINGS, tasks=["two"], force=force)


def test_an_output_that_cannot_be_written_is_refused_at_once(suite, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="seed-0: cannot be made: Not a directory"):
        finetuning.run(suite, tmp_path / "file", SETTINGS)
