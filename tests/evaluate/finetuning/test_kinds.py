"""Fine-tuning of tiny random models of the architectures that come with the package."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("PIL.Image")

import naive_clip as clips  # noqa: E402
import naive_t5 as t5s  # noqa: E402

import breadcrumbs  # noqa: E402
from breadcrumbs.evaluate.finetuning import finetuned  # noqa: E402
from breadcrumbs.evaluate.finetuning.training import Settings  # noqa: E402
from breadcrumbs.evaluate.finetuning.tuner import Tuner  # noqa: E402
from breadcrumbs.evaluate.foundations import make  # noqa: E402
from breadcrumbs.evaluate.suite import Suite  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings(epochs=20, rate=1e-2, batch=2, precision="float32")


def tune(foundation, base, task, output, settings=SETTINGS):
    """Fine-tune a base on one task; return the record and the names of what changed."""
    suite = Suite("small", foundation, base, (task,))
    record = Tuner(suite, output, settings).tune(task.name, 0)
    before, after = breadcrumbs.open(base), breadcrumbs.open(folder(output, task))
    assert list(before) == list(after)
    assert all(before.tensors[n].dtype == after.tensors[n].dtype for n in before)
    return record, {n for n in before if before[n].tobytes() != after[n].tobytes()}


def folder(output, task):
    return str(finetuned.folder(output, task.name, 0))


def loss(path):
    """Return what training lowers, as transformers computes it, one row and word at a time."""
    labels = torch.tensor(t5s.LABELS)
    return float(torch.nn.functional.cross_entropy(t5s.naive_logits(path).float(), labels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_t5_with_tied_words(t5, tmp_path, dtype):
    base, task = t5(dtype), t5s.paraphrases()
    _, changed = tune(make("t5"), base, task, tmp_path)
    assert {"shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"} <= changed
    assert loss(folder(tmp_path, task)) < loss(base) / 2
    with open(f"{base}/config.json") as one, open(f"{folder(tmp_path, task)}/config.json") as two:
        assert one.read() == two.read()


def test_clip_trains_its_vision_tower_alone(clip, tmp_path):
    task = clips.shapes()
    record, changed = tune(make("clip"), clip, task, tmp_path)
    assert record["validation"]["after"] == 1 > record["validation"]["before"]
    assert changed and all(n.startswith(("vision_model.", "visual_projection")) for n in changed)
    found = clips.naive_logits(folder(tmp_path, task))
    assert found.argmax(1).tolist() == task.rows("validation").labels.tolist()


def test_a_frozen_tower_stays(clip, tmp_path):
    settings = replace(SETTINGS, epochs=1, freeze=("vision_model.encoder.*",))
    _, changed = tune(make("clip"), clip, clips.shapes(), tmp_path, settings)
    assert changed and not any(n.startswith("vision_model.encoder.") for n in changed)
