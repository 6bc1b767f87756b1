"""`breadcrumbs.statistics` against loops over examples with autograd, on small Torch modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from references import classical

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.cli.inspection import inspect
from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.modules import statistics
from breadcrumbs.plan.statistics import KEY

torch = pytest.importorskip("torch")
nn = torch.nn


class Classifier(nn.Module):
    """Dropout, a frozen layer, a buffer, a counter, a tied weight, a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Linear(4, 4, bias=False)
        self.last = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)
        self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight
        self.frozen.weight.requires_grad_(False)

    def forward(self, x):
        x = self.drop(torch.tanh(self.norm(self.first(x))))
        return self.last(self.two(torch.tanh(self.one(self.frozen(x)))))


class Tagger(nn.Module):
    """Logits (1, positions, classes) of tokens, with a tied head and an output like a dataclass."""

    class Output:
        def __init__(self, logits):
            self.logits = logits

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, classes, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids, attention_mask=None):
        return self.Output(self.head(torch.tanh(self.body(self.embed(input_ids)))))


def made(kind: type, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = kind()
    if kind is Classifier:
        model.norm.running_mean.normal_()
    return model


def inputs(seed: int = 1, examples: int = 6) -> Any:
    return torch.randn(examples, 5, generator=torch.Generator().manual_seed(seed))


def squares(model: Any, terms: list[list[tuple[float, Any]]]) -> dict[str, np.ndarray]:
    """Return the mean over examples of the expected squared gradient, by a loop with `backward`."""
    names = dict(model.named_parameters(remove_duplicate=False))
    total = {name: np.zeros(tuple(p.shape)) for name, p in names.items()}
    for example in terms:
        for chance, value in example:
            for parameter in names.values():
                parameter.grad = None
                parameter.requires_grad_(True)
            value().backward()
            for name, parameter in names.items():
                if parameter.grad is not None:
                    total[name] += chance * parameter.grad.double().numpy() ** 2 / len(terms)
    return total


def check(found: Any, expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=1e-12, err_msg=name)
    assert any(values.any() for values in expected.values())


@pytest.mark.parametrize("sizes", [[6], [1, 5], [2, 2, 2]])
def test_fisher_of_given_labels_is_a_loop_over_examples(sizes):
    x, y = inputs(), torch.tensor([0, 1, 2, 2, 1, 0])
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    found = statistics.fisher(
        made(Classifier),
        batches,
        loss=lambda output, batch: nn.functional.cross_entropy(output, batch[1]),
        forward=lambda model, batch: model(batch[0]),
    )
    model = made(Classifier).eval()
    terms = [
        [(1.0, lambda i=i: nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]))]
        for i in range(len(x))
    ]
    expected = squares(model, terms)
    check(found, expected)
    weights = {name for name, v in model.state_dict().items() if v.is_floating_point()}
    assert set(found) == weights and "norm.num_batches_tracked" not in found
    assert not found["norm.running_mean"].any() and not found["unused.weight"].any()
    assert found["frozen.weight"].all()
    assert (found["one.weight"] == found["two.weight"]).all()


def test_one_gradient_for_each_example_and_not_of_the_batch():
    model = nn.Linear(1, 1, bias=False)
    x = torch.tensor([[1.0], [-1.0]])
    found = statistics.fisher(model, [x], loss=lambda output, batch: output.sum())
    gradients = [np.array([[1.0]]), np.array([[-1.0]])]
    assert found["weight"].tolist() == classical.diagonal_fisher(gradients).tolist() == [[1.0]]


def test_fisher_expects_over_the_labels_of_the_module():
    x, model = inputs(), made(Classifier)
    found = statistics.fisher(model, [x[:4], x[4:]])
    model = made(Classifier).eval()
    terms = []
    for i in range(len(x)):
        logs = torch.log_softmax(model(x[i : i + 1]), -1)[0].tolist()
        terms.append(
            [
                (np.exp(logs[c]), lambda i=i, c=c: torch.log_softmax(model(x[i : i + 1]), -1)[0, c])
                for c in range(3)
            ]
        )
    check(found, squares(model, terms))
    drawn = statistics.fisher(made(Classifier), [x], samples=1000)
    for name in ("last.weight", "first.weight"):
        assert np.abs(drawn[name] - found[name]).sum() < 0.05 * found[name].sum()
    again = statistics.fisher(made(Classifier), [x[:2], x[2:]], samples=3)
    other = statistics.fisher(made(Classifier), [x], samples=3)
    assert all((again[name] == other[name]).all() for name in again)
    seeded = statistics.fisher(made(Classifier), [x], samples=3, seed=1)
    assert (seeded["last.bias"] != other["last.bias"]).any()


def test_fisher_of_positions_leaves_padding_out():
    ids = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 1, 6, 2]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])

    def sure() -> Any:
        """Return a module that has one label for each position: itself."""
        model = made(Tagger)
        with torch.no_grad():
            model.embed.weight.copy_(30 * torch.eye(7, 6))
            model.embed.weight[6] = -30
            model.body.weight.copy_(torch.eye(6))
            model.body.bias.zero_()
        return model

    batch = {"input_ids": ids, "attention_mask": mask}
    # The labels are sure, so the gradient of their logarithm is 0 but for a module in doubt.
    assert statistics.fisher(sure(), [batch], samples=2)["body.weight"].max() < 1e-6
    model = made(Tagger)
    found = statistics.fisher(model, [batch], samples=800)
    short = [
        {"input_ids": ids[:1, :3], "attention_mask": mask[:1, :3]},
        {"input_ids": ids[1:], "attention_mask": mask[1:]},
    ]
    alone = statistics.fisher(made(Tagger), short, samples=800)
    check(found, {name: np.asarray(values, np.float64) for name, values in alone.items()})
    assert (found["embed.weight"] == found["head.weight"]).all()


def second_moment(rows: Any) -> np.ndarray:
    wide = rows.detach().double().numpy()
    return sum(np.outer(x, x) for x in wide) / len(wide)


@pytest.mark.parametrize("sizes", [[6], [1, 5], [2, 2, 2]])
def test_gram_is_the_mean_of_outer_products_of_inputs(sizes):
    x, model = inputs(), made(Classifier)
    done: list[int] = []
    found = statistics.gram(model, x.split(sizes), progress=done.append)
    assert done == sizes
    with torch.no_grad():
        model.eval()
        hidden = torch.tanh(model.norm(model.first(x)))
        deep = model.two(torch.tanh(model.one(model.frozen(hidden))))
    expected = {"first.weight": x, "frozen.weight": hidden, "last.weight": deep}
    check(found, {name: second_moment(rows) for name, rows in expected.items()})
    assert set(found) == set(expected)  # neither unused nor shared weights
    said = json.loads(found.metadata[KEY])
    assert said["kind"] == "gram" and said["rows"]["first.weight"] == 6 and said["turned"] == []


def test_gram_counts_positions_but_no_padding():
    ids = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 1, 6, 2]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    model = made(Tagger)
    rows = torch.cat([model.embed(ids[0, :3]), model.embed(ids[1])])
    found = statistics.gram(model, [{"input_ids": ids, "attention_mask": mask}])
    check(found, {"body.weight": second_moment(rows)})
    assert set(found) == {"body.weight"}  # the head is tied to the embedding
    mine = statistics.gram(model, [{"input_ids": ids}], mask=lambda batch: batch["input_ids"] == 1)
    check(mine, {"body.weight": second_moment(model.embed(torch.tensor([1, 1])))})
    whole = statistics.gram(model, [{"input_ids": ids}])
    check(whole, {"body.weight": second_moment(model.embed(ids).reshape(-1, 6))})


def test_conv1d_is_turned_and_merges_like_linear(tmp_path):
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    base, *models = ({"w": nn.Linear(4, 4)} for _ in range(3))
    given: dict[bool, list[Any]] = {True: [], False: []}
    states: dict[bool, list[Any]] = {True: [], False: []}
    for turn in (False, True):
        for number, one in enumerate([base, *models]):
            linear = one["w"]
            layer = conv1d(4, 4) if turn else linear
            if turn:
                layer.weight.data = linear.weight.data.T.contiguous()
                layer.bias.data = linear.bias.data
            x = torch.randn(9, 4, generator=torch.Generator().manual_seed(number))
            given[turn].append(statistics.gram(layer, [x]))
            states[turn].append(layer.state_dict())
    found = {}
    for turn in (False, True):
        files = [tmp_path / f"{turn}{i}.safetensors" for i in range(3)]
        for file, one in zip(files, given[turn], strict=True):
            one.save(file)
        first, *others = states[turn]
        found[turn] = breadcrumbs.merge(first, others, method="regmean", statistics=files[1:])
        again = breadcrumbs.merge(first, others, method="regmean", statistics=given[turn][1:])
        assert torch.equal(found[turn]["weight"], again["weight"])
    torch.testing.assert_close(found[True]["weight"].T, found[False]["weight"], rtol=0, atol=1e-6)
    average = breadcrumbs.merge(states[False][0], states[False][1:], method="average")
    assert not torch.allclose(found[False]["weight"], average["weight"], atol=1e-3)


def test_the_module_is_left_as_it_was():
    model = made(Classifier)
    model.train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    statistics.fisher(model, [inputs()])
    statistics.gram(model, [inputs()])
    with pytest.raises(ZeroDivisionError):
        statistics.gram(model, (1 / 0 for _ in range(1)))
    assert model.training and model.drop.training and not model.norm.training
    assert not model.frozen.weight.requires_grad and model.last.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_says_what_it_is_and_is_not_replaced(tmp_path: Path):
    found = statistics.fisher(made(Classifier), [inputs()])
    path = tmp_path / "ft1-fisher.safetensors"
    found.save(path)
    read = breadcrumbs.open(path)
    assert all((read[name] == values).all() for name, values in found.items())
    assert list(read) == list(found)
    said = json.loads(read.metadata[KEY])
    assert said["kind"] == "fisher" and said["examples"] == 6 and said["labels"] == "of the model"
    assert said["norm"] == pytest.approx(
        np.linalg.norm(np.concatenate([values.reshape(-1) for values in found.values()])), rel=1e-6
    )
    assert inspect(str(path))["merged_from"] is None and inspect(str(path))["statistics"] == said
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert "statistics of the kind fisher  examples 6, labels of the model" in result.stdout
    with pytest.raises(BreadcrumbsError, match="exists"):
        found.save(path)
    found.save(path, force=True)
    with pytest.raises(BreadcrumbsError, match="one file"):
        found.save(tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


BAD: dict[str, tuple[Any, str]] = {
    "no batches": (lambda: statistics.fisher(made(Classifier), []), "there are no batches"),
    "no batches of gram": (lambda: statistics.gram(made(Classifier), []), "no batch reached"),
    "a number": (lambda: statistics.fisher(made(Classifier), 3), "found int. Give a list of"),
    "one batch": (lambda: statistics.gram(made(Tagger), {"ids": inputs()}), r"Give \[batch\]"),
    "a tuple": (
        lambda: statistics.gram(made(Classifier), [(inputs(), inputs())]),
        "a tuple, which may hold labels",
    ),
    "no tensors": (lambda: statistics.fisher(made(Classifier), ["text"]), "has no tensors"),
    "no logits": (
        lambda: statistics.fisher(made(Classifier), [inputs()], forward=lambda m, b: m(b).sum()),
        "neither logits",
    ),
    "many labels": (
        lambda: statistics.fisher(made(Tagger), [torch.tensor([[1, 2]])]),
        "Give samples=1",
    ),
    "a loss and samples": (
        lambda: statistics.fisher(made(Tagger), [], loss=lambda o, b: o, samples=1),
        "no loss of given labels",
    ),
    "a loss that is not a number": (
        lambda: statistics.fisher(made(Classifier), [inputs()], loss=lambda o, b: o),
        "is not a number",
    ),
    "not finite": (
        lambda: statistics.fisher(made(Classifier), [inputs() * float("nan")]),
        "is not finite",
    ),
    "inputs not finite": (
        lambda: statistics.gram(made(Classifier), [inputs() * float("inf")]),
        "'first.weight' is not finite",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_measured_is_refused_in_one_line(case):
    measure, message = BAD[case]
    with pytest.raises(BreadcrumbsError, match=message) as caught:
        measure()
    assert "\n" not in str(caught.value)
