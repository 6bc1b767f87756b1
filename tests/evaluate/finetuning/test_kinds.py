"""Fine-tuning of tiny random models of the architectures that come with the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("PIL.Image")

import foundation_tasks as small  # noqa: E402
import naive_clip as clips  # noqa: E402
import naive_t5 as t5s  # noqa: E402

import breadcrumbs  # noqa: E402
from breadcrumbs.checkpoint.hashing import model_hash  # noqa: E402
from breadcrumbs.evaluate.finetuning import finetuned  # noqa: E402
from breadcrumbs.evaluate.finetuning.training import Settings  # noqa: E402
from breadcrumbs.evaluate.finetuning.tuner import Tuner  # noqa: E402
from breadcrumbs.evaluate.foundations import make  # noqa: E402
from breadcrumbs.evaluate.suite import Suite  # noqa: E402
from breadcrumbs.taskfile import view  # noqa: E402

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


QUESTIONS = small.task(
    ["what is red", "a big dog", "blue sky", "a dog"], [0, 1, 0, 1], ("red", "big dog"),
    head={"template": "question: {0} answer:"},
)  # fmt: skip


def test_a_language_model_in_bfloat16(llama, tmp_path):
    record, changed = tune(make("causal"), llama(torch.bfloat16), QUESTIONS, tmp_path)
    assert record["validation"]["after"] == 1 > record["validation"]["before"]
    assert "model.layers.0.mlp.up_proj.weight" in changed


def test_an_adapter_of_a_language_model(llama, tmp_path):
    peft = pytest.importorskip("peft")
    base, settings = llama(), replace(SETTINGS, lora=4, freeze=("*.0.mlp.*",), rate=3e-2)
    tuner = Tuner(Suite("small", make("causal"), base, (QUESTIONS,)), tmp_path, settings)
    record = tuner.tune("animals", 0)
    assert record["validation"]["after"] == 1 > record["validation"]["before"]
    place = folder(tmp_path, QUESTIONS)
    with view.open_model(base, place) as tuned:
        assert model_hash(tuned) == record["model"]
        kept = small.state(base)
        changed = {name for name in kept if (kept[name] != tuned[name]).any()}
    assert len(changed) == 11 and not any(".0.mlp." in name for name in changed)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    merged = peft.PeftModel.from_pretrained(model, place).merge_and_unload().state_dict()
    with view.open_model(base, place) as tuned:
        for name in changed:
            torch.testing.assert_close(merged[name], torch.from_numpy(tuned[name]))
    assert tuner.tune("animals", 0) == record  # found, and the module is as it was
    again = Tuner(tuner.suite, tmp_path / "again", settings)
    again.tune("animals", 0)
    files = [Path(place), Path(folder(tmp_path / "again", QUESTIONS))]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        one, two = [(file / name).read_bytes() for file in files]
        assert one == two
