"""Tensors that are computed and not trained, against the programs that compute them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import sinusoids
from breadcrumbs.errors import MismatchError
from breadcrumbs.merging import opening
from breadcrumbs.plan.recipe import Model, Recipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def plan(base: Any, models: list[Any]) -> Any:
    recipe = Recipe("base", tuple(Model(f"m{i}") for i in range(len(models))))
    with opening.opened(recipe, [base, *models]) as made:
        return made


def moved(module: Any, seed: int) -> Any:
    """Return a copy whose trained weights are moved, and which has seen some data."""
    module, draw = copy.deepcopy(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=draw)
    for _ in range(3):
        module.train()(torch.randn(4, 2, 5, 5, generator=draw))
    return module.eval()


def state(module: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in module.state_dict().items()}


# --- spectral norms ---


def normed(form: str) -> Any:
    """Return a module with spectral norms, in the older or the newer form of PyTorch."""
    norm = torch.nn.utils.spectral_norm
    if form == "newer":
        norm = torch.nn.utils.parametrizations.spectral_norm
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, last = norm(torch.nn.Conv2d(2, 3, 3)), norm(torch.nn.Linear(27, 4))
    return torch.nn.Sequential(first, torch.nn.Flatten(), last).eval()


@pytest.mark.parametrize("form", ["older", "newer"])
def test_the_vectors_of_a_spectral_norm_are_buffers(form, one_thread):
    base = normed(form)
    models = [moved(base, seed) for seed in (1, 2)]
    names = [name for name in base.state_dict() if name.endswith(("_u", "_v"))]
    made = plan(state(base), [state(model) for model in models])
    assert len(names) == 4 and made.kinds["buffer"] == 4
    assert any("buffers differ between the models, so the base's" in w for w in made.warnings)
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(9))

    one = breadcrumbs.merge(state(base), [state(models[0])], method="task_arithmetic", alpha=1)
    again = normed(form)
    again.load_state_dict(one)
    assert torch.equal(again(x), models[0](x)) and not torch.equal(again(x), base(x))

    both = breadcrumbs.merge(
        state(base), list(map(state, models)), method="task_arithmetic", alpha=0.5
    )
    for name in names:
        assert np.array_equal(both[name], state(base)[name].numpy())
        assert abs(np.linalg.norm(both[name]) - 1) < 1e-5
    again.load_state_dict(both)
    assert torch.isfinite(again(x)).all()


def test_directions_of_a_weight_norm_are_weights(one_thread):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.nn.utils.weight_norm(torch.nn.Conv1d(2, 3, 3))
    assert plan(state(module), [state(module)]).kinds == {"weight": 3}


# --- tables of positions ---

SMALL = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8, "max_position_embeddings": 600, "pad_token_id": 1,
    "decoder_start_token_id": 1, "max_source_positions": 300, "max_target_positions": 300,
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
}  # fmt: skip


def table(kind: str) -> Any:
    """Return the table of positions of a model of transformers that computes it."""
    config = getattr(transformers, f"{kind}Config")(**SMALL)
    torch.manual_seed(0)
    module = getattr(transformers, f"{kind}Model")(config)
    found = {n: v for n, v in module.named_parameters() if "embed_positions" in n}
    found |= {n: v for n, v in module.named_buffers() if "embed_positions" in n}
    name, value = next((n, v) for n, v in found.items() if v.ndim == 2)
    return name, value.detach().clone()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "kind", ["Marian", "Pegasus", "M2M100", "Whisper", "Speech2Text", "RoFormer"]
)
def test_computed_tables_are_found_by_their_values(kind, dtype):
    name, value = table(kind)
    value = value.to(getattr(torch, dtype))
    with checkpoint.open({name: value}) as found:
        assert sinusoids.is_one(found.tensors[name])
        assert sinusoids.told([found])[0].tensors[name].kind == "buffer"
    value[value.shape[0] - 1] += 0.05
    with checkpoint.open({name: value}) as found:
        assert not sinusoids.is_one(found.tensors[name])


def test_tables_side_by_side_and_of_odd_width():
    places, rates = np.arange(50)[:, None], 10000.0 ** (-2 * np.arange(4) / 8)
    mixed = np.empty((1, 50, 8), np.float32)
    mixed[..., 0::2], mixed[..., 1::2] = np.sin(places * rates), np.cos(places * rates)
    rates = 10000.0 ** (-np.arange(4) / 3)
    odd = np.hstack([np.sin(places * rates), np.cos(places * rates), np.zeros((50, 1))])
    odd[1] = 0  # of the padding
    given = {"pos_encoder.pe": mixed, "embed_positions.weights": odd, "pe": odd * 1.1}
    given |= {"encoder.weight": odd, "position_embeddings.weight": np.ones((50, 8))}
    with checkpoint.open(given) as found:
        mine = [name for name, tensor in found.tensors.items() if sinusoids.is_one(tensor)]
    assert mine == ["pos_encoder.pe", "embed_positions.weights"]


@pytest.mark.parametrize("whose", ["base", "model", "half"])
@pytest.mark.parametrize("kind", ["Marian", "M2M100"])
def test_a_table_that_only_some_files_have_stops_no_merge(kind, whose):
    name, value = table(kind)
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((8, 8)).astype(np.float32)}
    model = {"w": base["w"] + np.float32(0.1)}
    if whose != "model":
        base[name] = value
    if whose != "base":
        model[name] = value.half() if whose == "half" else value
    made = plan(base, [model])
    assert not made.warnings and [t.name for t in made.merged] == ["w"]
    found = breadcrumbs.merge(base, [model], method="task_arithmetic", alpha=1)
    assert np.array_equal(found["w"], model["w"])
    assert (name in found) == (name in base)
    assert name not in found or np.array_equal(found[name], value.numpy())


def test_a_table_that_was_trained_is_a_weight():
    name, value = table("Marian")
    base = {"w": np.ones((2, 2), np.float32), name: value}
    trained = value + 0.1 * torch.randn(value.shape)
    assert plan(base, [base | {name: trained}]).kinds == {"weight": 2}
    found = breadcrumbs.merge(base, [base | {name: trained}], method="task_arithmetic", alpha=1)
    assert np.array_equal(found[name], trained.numpy())
    del base[name]
    with pytest.raises(MismatchError, match="embed_positions"):
        plan(base, [base | {name: trained}])
