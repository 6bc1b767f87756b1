"""Learning block by block: replayed blocks, a slow distillation of whole models, resuming, rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate import learned
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.drawn import Draw
from breadcrumbs.evaluate.scoring import scores
from breadcrumbs.evaluate.scoring.keys import Keys
from breadcrumbs.evaluate.scoring.settings import Corrected, Settings
from breadcrumbs.modules import stack
from breadcrumbs.tune.learn.blocks import kinds, learning, streamed

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

THINGS = ("cat", "dog", "ship", "river", "bread", "violin", "winter", "garden")
SAID = ("the {} is old", "i saw a {} today with some friends", "this {} pleases nobody")
ASKED = ("is the {} old", "did you see a {}", "whom does this {} please or help at all")


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_bert) -> Path:
    """A folder with two tasks of a tiny BERT, an expert of each and an average in bfloat16."""
    folder = tmp_path_factory.mktemp("home")
    base = tiny_bert("base")
    tasks = []
    for number, task in enumerate(("things", "moods")):
        lines = ["text,label"]
        for thing in THINGS:
            for mood, forms in (("said", SAID), ("asked", ASKED)):
                lines += [f"{f.format(thing)},{thing if task == 'things' else mood}" for f in forms]
        (folder / f"{task}.csv").write_text("\n".join(lines) + "\n")
        rng = np.random.default_rng(number)
        state = {n: np.array(a) for n, a in breadcrumbs.load(base).items()}
        for name, array in state.items():
            if "encoder" in name and "output.LayerNorm" not in name:
                array += 0.1 * rng.standard_normal(array.shape).astype(np.float32)
        _save(state, folder / f"{task}.safetensors")
        splits = {"train": "rest", "validation": 20, "test": 10}
        entry = {"task": task, "data": f"{task}.csv", "splits": splits}
        tasks.append({**entry, "finetuned": f"{task}.safetensors"})
    told = {"foundation": "sentence", "base": base, "tasks": tasks}
    (folder / "suite.yaml").write_text(json.dumps(told))
    models = [folder / f"{task}.safetensors" for task in ("things", "moods")]
    breadcrumbs.merge(
        base, models, method="average", dtype="bfloat16", output=folder / "merged.safetensors"
    )
    return folder


def _save(state, path):
    from safetensors.numpy import save_file

    save_file(state, path)


def learn(home, output, kind=None, draw=None, **more) -> learning.Learned:
    suite, draw = suites.load(home / "suite.yaml"), draw or Draw(rows=20)
    given = {"device": "cpu", "precision": "float32"} | more
    kind = kind or kinds.make("distill", {"steps": 4, "rate": 0.2})
    return learning.learn(suite, str(home / "merged.safetensors"), output, draw, kind, **given)


def same_weights(a, b) -> bool:
    """Whether two files hold the same tensors, bit for bit."""
    one, other = breadcrumbs.load(a), breadcrumbs.load(b)
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


# Blocks


def _bert(tiny_bert):
    module = transformers.AutoModel.from_pretrained(tiny_bert("replayed")).eval()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 7, 3, 0, 0]])
    return module, lambda: module(input_ids=ids, attention_mask=mask)


def _llama(llama):
    module = transformers.AutoModelForCausalLM.from_pretrained(llama()).eval()
    ids = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 11]])
    return module, lambda: module(input_ids=ids)


def _clip(clip):
    module = transformers.CLIPModel.from_pretrained(clip).eval()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return module, lambda: module.vision_model(pixels)


@pytest.mark.parametrize("name", ["tiny_bert", "llama", "clip"])
def test_blocks_replayed_on_what_was_captured_give_the_bits_of_the_forward_pass(name, request):
    made = {"tiny_bert": _bert, "llama": _llama, "clip": _clip}[name]
    module, run = made(request.getfixturevalue(name))
    with torch.no_grad():
        found = stack.find(module, run, name)
        assert len(found) == 2
        given: list = []
        hooks = [
            block.register_forward_hook(lambda _b, _a, out: given.append(stack._first(out)))
            for block in found.blocks
        ]
        run()
        for hook in hooks:
            hook.remove()
        kept = {n: p.clone() for n, p in module.named_parameters()}
        for block in found.blocks:  # no weight of a block is looked at
            for parameter in block.parameters():
                parameter.fill_(math.nan)
        hidden, calls = found.capture(run)
        for n, p in module.named_parameters():
            p.copy_(kept[n])
        for number, call in enumerate(calls):
            hidden = found.through(number, hidden, call)
            assert hidden.numpy().tobytes() == given[number].numpy().tobytes()


def test_what_has_no_one_list_of_blocks_is_refused(t5):
    module = transformers.T5ForConditionalGeneration.from_pretrained(t5()).eval()
    ids = torch.tensor([[3, 4, 5]])
    with pytest.raises(SuiteError, match=r"foundation t5: has several stacks .*encoder.block"):
        stack.find(module, lambda: module(input_ids=ids, decoder_input_ids=ids), "t5")
    plain = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
    with pytest.raises(SuiteError, match="foundation bag: has no blocks"):
        stack.find(plain, lambda: plain(torch.zeros(1, 3)), "bag")


# Distillation


def slow(home, steps, rate, rows):
    """Return the distilled blocks of whole models, with a slow Adam, rounded block by block."""
    suite, draw = suites.load(home / "suite.yaml"), Draw(rows=rows)
    opened = draw.opened(suite)

    def whole(path):
        module = suite.foundation.load(suite.base).requires_grad_(False)
        state = {
            n: torch.from_numpy(np.asarray(a, np.float32))
            for n, a in breadcrumbs.load(path).items()
        }
        module.load_state_dict(state, strict=False)
        return module

    names = ["moods", "things"]
    merged, base = whole(home / "merged.safetensors"), whole(suite.base)
    experts = [whole(home / f"{name}.safetensors") for name in names]
    batches = []
    for name in names:
        task = opened.task(name)
        batches.append(suite.foundation.prepare(task, draw.rows_of(task).rows, streamed.BATCH))
    assert len(batches[0]) > 1
    assert any((b.inputs["attention_mask"] == 0).any() for b in batches[0])

    def hidden(module, batch, number):
        return module(**batch.inputs, output_hidden_states=True).hidden_states[number + 1]

    def loss(number, t, batch):
        out, goal = hidden(merged, batch, number), hidden(experts[t], batch, number).detach()
        total, places = 0.0, 0
        for row, mask in enumerate(batch.inputs["attention_mask"]):
            for place in range(int(mask.sum())):
                y = goal[row, place]
                total = total + ((out[row, place] - y) ** 2).sum() / (y**2).sum()
                places += 1
        return total / places

    for number in range(2):
        block = merged.encoder.layer[number]
        tensors = dict(block.named_parameters())
        olds = dict(base.encoder.layer[number].named_parameters())
        sizes = {}
        for n in tensors:
            own = [dict(e.encoder.layer[number].named_parameters())[n] for e in experts]
            sizes[n] = math.sqrt(sum(float(((p - olds[n]) ** 2).mean()) for p in own) / len(own))
        means = {n: [torch.zeros_like(p), torch.zeros_like(p)] for n, p in tensors.items()}
        begun = {n: p.clone() for n, p in tensors.items()}
        for step in range(steps):
            total = 0.0
            for p in tensors.values():
                p.requires_grad_(True)
            for t, name in enumerate(names):
                n = len(batches[t])
                order = draw.batch(f"{name}\0{number}", step // n, n, n)
                total = total + loss(number, t, batches[t][order[step % n]]) / 2
            grads = torch.autograd.grad(total, list(tensors.values()))
            shrink = 0.5 + 0.5 * math.cos(math.pi * step / steps)
            for (n, p), g in zip(tensors.items(), grads, strict=True):
                p.requires_grad_(False)
                m, v = means[n]
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                up = (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
                p -= rate * shrink * sizes[n] * up
        for n, p in tensors.items():
            assert torch.equal(p, begun[n]) == (sizes[n] == 0)
            p.copy_(p.to(torch.bfloat16).float())
    return merged


def test_a_block_at_a_time_is_the_distillation_of_whole_models(home, tmp_path, one_thread):
    steps, rate = 3, 0.2
    kind = kinds.make("distill", {"steps": steps, "rate": rate})
    kind.keeps = False
    learn(home, tmp_path / "out.safetensors", kind)
    expected = slow(home, steps, rate, 20).state_dict()
    before = breadcrumbs.load(home / "merged.safetensors")
    found = breadcrumbs.load(tmp_path / "out.safetensors")
    for name in before:
        old, new = np.asarray(before[name], np.float32), np.asarray(found[name], np.float32)
        if "encoder" not in name or "output.LayerNorm" in name:
            assert before[name].tobytes() == found[name].tobytes()
            continue
        assert found[name].dtype == before[name].dtype
        moved = np.abs(new - old).max()
        assert moved > 0
        if not name.endswith("key.bias"):  # no gradient but noise, along which Adam goes as far
            away = np.abs(new - expected[name].numpy())
            assert np.mean(away > 0.02 * moved + np.abs(new) / 256) < 0.02, name


def test_it_comes_nearer_to_the_experts_or_stays(home, tmp_path, one_thread):
    found = learn(home, tmp_path / "a", kinds.make("distill", {"steps": 12, "rate": 0.05}))
    assert len(found.errors) == 2 and all(after < before for before, after in found.errors)
    wild = kinds.make("distill", {"steps": 3, "rate": 1e6})
    found = learn(home, tmp_path / "wild.safetensors", wild)
    assert all(after == before for before, after in found.errors)
    learn(home, tmp_path / "none.safetensors", kinds.make("distill", {"steps": 0}))
    for name in ("wild", "none"):
        assert same_weights(tmp_path / f"{name}.safetensors", home / "merged.safetensors")


def test_a_run_that_was_stopped_goes_on_to_the_same_bits_in_any_order(home, tmp_path, one_thread):
    whole, again = tmp_path / "whole.safetensors", tmp_path / "again.safetensors"
    first = learn(home, whole)

    class Stop(Exception):
        pass

    def stop(done, total, what):
        if done == 1:
            raise Stop

    with pytest.raises(Stop):
        learn(home, again, progress=stop)
    assert not again.exists()
    seen = []

    def tell(done, total, what):
        seen.append(done)

    kind = kinds.make("distill", {"steps": 4, "rate": 0.2})
    fits, fit = [], kind.fit
    kind.fit = lambda block: (fits.append(block.number), fit(block))[1]
    second = learn(home, again, kind, tasks=["things", "moods"], progress=tell)
    assert fits == [1] and seen == [0, 1, 2]
    assert list(second.about["tasks"]) == ["moods", "things"]  # gradients are added in this order
    assert again.read_bytes() == whole.read_bytes() and second.errors == first.errors
    other = learn(home, tmp_path / "seed.safetensors", draw=Draw(rows=20, seed=1))
    assert other.errors != first.errors


def test_one_block_has_weights_at_a_time(home, tmp_path, monkeypatch, one_thread):
    held, real = [], streamed.Streamed.through

    def through(self, number, *rest):
        sizes = [sum(t.untyped_storage().nbytes() for t in own.values()) for own in self.places]
        held.append([n for n, size in enumerate(sizes) if size > 4 * len(self.places[n])])
        return real(self, number, *rest)

    monkeypatch.setattr(streamed.Streamed, "through", through)
    learn(home, tmp_path / "out.safetensors")
    assert {tuple(one) for one in held} == {(0,), (1,)}


# The command, and results


def test_the_command_writes_an_ordinary_model_that_says_what_it_was_learned_from(
    home, tmp_path, one_thread
):
    suite, model, out = str(home / "suite.yaml"), str(home / "merged.safetensors"), tmp_path / "out"
    run = ["learn", suite, model, "--what", "blocks", "--rows", "12", "-p", "steps=2",
           "--precision", "float32", "-o", str(out)]  # fmt: skip
    done = CliRunner().invoke(main, run)
    assert done.exit_code == 0, done.output
    assert "distill from 2 tasks, 48 encoder passes; away from the experts: " in done.output
    assert "exists" in CliRunner().invoke(main, run).output
    assert CliRunner().invoke(main, [*run, "--force"]).exit_code == 0
    transformers.AutoModel.from_pretrained(out)
    made = suites.load(suite)
    settings = Settings(str(tmp_path / "r.sqlite"), 1, "cpu", "float32", tmp_path / "cache")
    row = scores.of(made, [str(out)], settings)[-1]
    assert (row.learned_split, row.learned_rows, row.answers) == ("validation", 12, "expert")
    assert (row.transductive, row.task_known, row.encoder_passes) == (0, 0, 24)
    kind, test = kinds.make("distill", {"steps": 1}), tmp_path / "test.safetensors"
    learn(home, test, kind, Draw("test-inputs", 5))
    assert scores.of(made, [str(test)], settings)[-1].transductive
    heads = SimpleNamespace(called="affine", facts=lambda *_: {"transductive": False})
    behind = Keys(made, "float32").facts(Corrected(str(test), "h"), "moods", "test", heads)
    assert behind["transductive"]  # what it was learned behind has seen these rows
    record = json.loads((out / "learned.json").read_text())
    assert record["as"] == "distill" and len(record["errors"]) == 2
    about = learned.of(breadcrumbs.open(str(out)).metadata, "out")
    assert about is not None and about["draw"]["rows"] == 12


def test_what_cannot_be_learned_is_refused_before_weights_are_read(home, tmp_path):
    for name, given, told in (
        ("distil", {}, "Did you mean 'distill'"),
        ("distill", {"step": "3"}, "no number 'step'. Did you mean 'steps'"),
        ("distill", {"steps": "x"}, "Give a whole number"),
        ("distill", {"rate": "-1"}, "Give a number of 0 or more"),
    ):
        with pytest.raises(SuiteError, match=told):
            kinds.make(name, given)
    with pytest.raises(SuiteError, match="answers: expert, not labels"):
        learn(home, tmp_path / "x", draw=Draw(answers="labels"))
