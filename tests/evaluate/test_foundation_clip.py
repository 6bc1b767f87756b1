"""CLIP: a tiny random one of the same architecture, against transformers' own forward pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import foundation_tasks as small
import pytest
from naive_clip import PROCESSOR, naive_logits, pictures, shapes
from tiny_models import SHAPES as NAMES

from breadcrumbs.errors import MismatchError, SuiteError
from breadcrumbs.evaluate import suite
from breadcrumbs.evaluate.foundations import make
from breadcrumbs.evaluate.scoring.keys import Keys

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.usefixtures("one_thread")


def vision_only(name):
    return name.startswith("vision_model.")


def close(a, b):
    small.close(a, b, atol=2e-4)


def test_logits_are_those_of_one_picture_at_a_time(clip):
    foundation, task = make("clip"), shapes()
    module, _, head = small.loaded(foundation, clip, task)
    logits, batches = small.predicted(foundation, module, head, task)
    wanted = naive_logits(clip)
    close(logits, wanted)
    assert wanted.std(0).min() > 0.1  # pictures differ, so the test can fail
    assert batches[0].inputs["pixels"].dtype == torch.uint8
    assert len({*logits.argmax(1).tolist()}) > 1


def test_it_is_what_the_whole_model_answers(clip):
    foundation, task = make("clip"), shapes()
    module, _, head = small.loaded(foundation, clip, task)
    logits, _ = small.predicted(foundation, module, head, task)
    processor = PROCESSOR.from_pretrained(clip)
    tokenizer = transformers.AutoTokenizer.from_pretrained(clip)
    texts = [f"a photo of a {name}." for name in NAMES]
    with torch.no_grad():
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        whole = transformers.CLIPModel.from_pretrained(clip).eval()(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            **processor([p.convert("RGB") for p in pictures()], return_tensors="pt"),
        )
    close(logits, whole.logits_per_image)


def test_templates_are_averaged_and_words_replace_labels(clip):
    templates = ["a photo of a {}.", "a drawing {}"]
    foundation = make("clip")
    task = shapes(head={"templates": templates, "words": {"blue line": "a_line"}})
    module, _, head = small.loaded(foundation, clip, task)
    logits, _ = small.predicted(foundation, module, head, task)
    close(logits, naive_logits(clip, templates=templates, names=(*NAMES[:2], "a line")))
    assert (logits - naive_logits(clip)).abs().max() > 0.01


@pytest.mark.parametrize("part", ["all", "vision"])
def test_states_whole_or_of_the_vision_tower_alone(clip, part):
    foundation, task = make("clip"), shapes()
    module, slots, head = small.loaded(foundation, clip, task)
    before, _ = small.predicted(foundation, module, head, task)
    state = small.shaken(small.state(clip), 0.1)
    if part == "vision":
        state = {name: array for name, array in state.items() if vision_only(name)}
    slots.put(small.shaken(small.state(clip), 0.2, seed=5))  # nothing of it may remain
    slots.put(state)
    logits, _ = small.predicted(foundation, module, head, task)
    close(logits, naive_logits(clip, state))
    assert (logits - before).abs().max() > 0.1


def test_a_state_without_half_its_tower(clip):
    _, slots, _ = small.loaded(make("clip"), clip, shapes())
    state = {n: a for n, a in small.state(clip).items() if "layers.1.mlp" not in n}
    with pytest.raises(MismatchError, match=r"missing: 'vision_model.encoder.layers.1.mlp.fc1"):
        slots.put(state)


@pytest.fixture(scope="module")
def towers(clip, tmp_path_factory):
    """Return folders of the vision tower alone, with other weights, and those weights.

    bare: as transformers 5 saves it. hub: with a prefix, as before. projected: with projection.
    """
    from safetensors.numpy import save_file

    state = small.shaken(small.state(clip), 0.1)
    whole = transformers.CLIPConfig.from_pretrained(clip)
    folders = {}
    for name in ("bare", "hub", "projected"):
        folders[name] = folder = tmp_path_factory.mktemp("tower") / name
        whole.vision_config.save_pretrained(folder)
        cut = "vision_model." if name == "bare" else ""
        kept = {n.removeprefix(cut): a for n, a in state.items() if is_kept(n, name)}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(Path(clip) / "preprocessor_config.json", folders["hub"])
    return {name: str(folder) for name, folder in folders.items()}, state


def is_kept(name, tower):
    return vision_only(name) or (tower == "projected" and name.startswith("visual_projection."))


@pytest.mark.parametrize("tower", ["bare", "hub", "projected"])
def test_a_vision_tower_is_a_base_with_the_rest_from_elsewhere(clip, towers, tower):
    if tower == "bare" and transformers.__version__ < "5":
        pytest.skip("transformers 4 has not heard of these names")
    base, state = towers[0][tower], towers[1]
    kept = {name: array for name, array in state.items() if is_kept(name, tower)}
    foundation, task = make({"kind": "clip", "text": Path(clip).name}, Path(clip).parent), shapes()
    module, slots, head = small.loaded(foundation, base, task)
    logits, _ = small.predicted(foundation, module, head, task)
    close(logits, naive_logits(clip, kept))

    changed = small.shaken(kept, 0.1, seed=3)
    cut = "vision_model." if tower == "bare" else ""
    slots.put({name.removeprefix(cut): array for name, array in changed.items()})
    assert set(slots.take()) == set(small.state(base))
    logits, _ = small.predicted(foundation, module, head, task)
    close(logits, naive_logits(clip, changed))


def test_scores_depend_on_all_of_the_model_that_the_text_tower_comes_from(clip, towers, tmp_path):
    from safetensors.numpy import save_file

    text = tmp_path / "text"
    shutil.copytree(clip, text)
    declared = {
        "foundation": {"kind": "clip", "text": "text"},
        "base": towers[0]["hub"],
        "tasks": [{"task": "shapes", "data": "shapes", "head": {"templates": "a {}."}}],
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(declared))
    (tmp_path / "shapes").mkdir()

    def key():
        return Keys(suite.load(tmp_path / "suite.yaml"), "float32").foundation

    first = key()
    assert key() == first
    (text / "tokenizer.json").write_text((text / "tokenizer.json").read_text() + "\n")
    second = key()
    shaken = small.shaken(small.state(clip), 0.1)
    save_file(shaken, text / "model.safetensors", metadata={"format": "pt"})
    assert len({first, second, key()}) == 3


def test_transformers_own_tower_is_a_base(clip, tmp_path):
    transformers.CLIPVisionModel.from_pretrained(clip).save_pretrained(tmp_path / "own")
    foundation, task = make({"kind": "clip", "text": clip}), shapes()
    module, _, head = small.loaded(foundation, tmp_path / "own", task)
    logits, _ = small.predicted(foundation, module, head, task)
    close(logits, naive_logits(clip))


def test_bases_that_do_not_go_together(clip, towers, tmp_path):
    with pytest.raises(SuiteError, match=r"is only a vision tower. Say .* text: PATH or hub id"):
        make("clip").load(towers[0]["hub"])
    config = transformers.CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=12,
        image_size=32,
        patch_size=8,
    )
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "narrow")
    with pytest.raises(SuiteError, match=r"are \(8, None\) wide, and those of `text` \(16, None\)"):
        make({"kind": "clip", "text": clip}).load(str(tmp_path / "narrow"))


@pytest.mark.parametrize("projection", [False, True])
def test_the_loss_trains_the_tower_and_the_projection_if_so_declared(clip, projection):
    foundation, task = make({"kind": "clip", "projection": projection}), shapes()
    module, slots, head = small.loaded(foundation, clip, task)
    (batch,) = foundation.prepare(task, task.rows("train"), 9)
    loss = foundation.loss(module, head, batch)
    logs = naive_logits(clip).log_softmax(-1)
    assert loss.item() == pytest.approx(
        -logs[torch.arange(7), batch.labels].mean().item(), abs=1e-4
    )
    loss.backward()
    graded = {name for name, p in module.named_parameters() if p.grad is not None}
    wanted = {n for n, _ in module.named_parameters() if vision_only(n)}
    assert graded == wanted | ({"visual_projection.weight"} if projection else set())
    if projection:
        with pytest.raises(MismatchError, match=r"missing: 'visual_projection.weight'"):
            slots.put({n: a for n, a in small.state(clip).items() if vision_only(n)})


def test_autocast_leaves_the_cosine_alone(clip):
    foundation, task = make("clip"), shapes()
    module, _, exact = small.loaded(foundation, clip, task)
    (batch,) = foundation.prepare(task, task.rows("test"), 7)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        head = foundation.head(module, task)
        logits = foundation.logits(module, head, batch)
    assert torch.equal(head["classes"], exact["classes"])
    assert logits.dtype == torch.float32
    exact = naive_logits(clip)
    assert not torch.equal(logits, exact)
    torch.testing.assert_close(logits, exact, rtol=0, atol=0.5)


def test_many_pictures_come_in_order(clip):
    foundation = make("clip")
    foundation.load(clip)
    some = pictures(5)
    task = small.task(some * 27, list(range(5)) * 27, "abcde")
    batches = foundation.prepare(task, task.rows("test"), 100)
    assert [len(batch.rows) for batch in batches] == [100, 35]
    pixels = torch.cat([batch.inputs["pixels"] for batch in batches])
    assert pixels.shape == (135, 3, 32, 32)
    for number in range(5):
        assert (pixels[number::5] == pixels[number]).all()
    assert not torch.equal(pixels[0], pixels[1])
    assert foundation.prepare(task, small.rows([], []), 3) == []


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"template": "a {}"}, r"there is no 'template'. Did you mean 'templates'\?"),
        ({"templates": "a photo"}, "'a photo' is not a text with one {}"),
        ({"templates": ["a {} {}"]}, "is not a text with one {}"),
        ({"templates": ["a {0}"]}, "is not a text with one {}"),
        ({"templates": ["a {"]}, "is not a text with one {}"),
        ({"templates": []}, "give a text with {} in it"),
        ({"words": ["a", "b"]}, "words: give 3 of them, one for each label"),
        ({"words": ["a", "b", 3]}, "are not all texts"),
        ({"words": {"blue lime": "a"}}, r"no label 'blue lime'. Did you mean 'blue line'\?"),
    ],
)
def test_heads_that_cannot_be(clip, head, message):
    foundation = make("clip")
    module = foundation.load(clip)
    with pytest.raises(SuiteError, match=message):
        foundation.head(module, shapes(head=head))


def test_rows_that_are_no_pictures(clip):
    foundation = make("clip")
    foundation.load(clip)
    with pytest.raises(SuiteError, match="task 'animals': a str where foundation clip takes pict"):
        foundation.prepare(shapes(), small.rows(["a text"], [0]), 2)


def test_a_base_without_image_processor(clip, tmp_path):
    copy = shutil.copytree(clip, tmp_path / "copy")
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(SuiteError, match="cannot load it as CLIPImageProcessor"):
        make("clip").load(str(copy))
