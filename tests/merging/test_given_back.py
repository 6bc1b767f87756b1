"""What is given comes back: modules, models of PEFT, state dicts, paths; and slips are one line."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import breadcrumbs
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, RecipeError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
HALF = {"method": "task_arithmetic", "alpha": 0.5}


def llama(seed: int = 0) -> Any:
    """Return a tiny random model with a tied head."""
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
        )
    )  # fmt: skip


def tuned(base: Any, seed: int) -> Any:
    """Return a copy of a module with other weights."""
    made = copy.deepcopy(base)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return made


def state(module: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_close(found: Any, expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_a_module_comes_back_as_one():
    base = llama().eval()
    models = [tuned(base, 1), tuned(base, 2)]
    before = [state(module) for module in (base, *models)]
    merged = breadcrumbs.merge(base, models, **HALF)
    states = breadcrumbs.merge(before[0], before[1:], **HALF)
    assert type(merged) is type(base) and not merged.training
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert all(torch.equal(merged.state_dict()[name], states[name]) for name in states)
    for module, was in zip((base, *models), before, strict=True):
        assert all(torch.equal(module.state_dict()[name], was[name]) for name in was)
    merged(torch.tensor([[1, 2]]))
    narrow = breadcrumbs.merge(base, models, dtype=torch.bfloat16, **HALF)
    assert {weight.dtype for weight in narrow.parameters()} == {torch.bfloat16}
    tau = breadcrumbs.TaskVector(base, models[0])
    assert_close(tau.apply_to(base).state_dict(), before[1])


def test_kinds_of_results():
    base, tensors = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).state_dict()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    merge = breadcrumbs.merge
    assert isinstance(merge(tensors, [base])["weight"], torch.Tensor)
    assert isinstance(merge(arrays, [tensors])["weight"], np.ndarray)
    assert isinstance(merge(arrays, [base], as_="torch")["weight"], torch.Tensor)
    assert isinstance(merge(base, [tensors], as_="numpy")["weight"], np.ndarray)
    read = breadcrumbs.load(arrays, as_="torch")
    assert isinstance(merge(read, [read], as_=None)["weight"], torch.Tensor)
    assert type(merge(base, iter([tensors]), onto=tensors, **HALF)) is torch.nn.Linear


def with_lora(base: Any, seed: int, **config: Any) -> Any:
    torch.manual_seed(seed)
    settings = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    return peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**settings | config))


def test_adapters_are_models_on_their_base():
    base = llama()
    first, second = with_lora(base, 1), with_lora(base, 2, use_rslora=True, lora_alpha=5)
    before = state(first)
    merged = breadcrumbs.merge(base, [first, second], method="task_arithmetic", alpha=1)
    whole = [copy.deepcopy(it).merge_and_unload().state_dict() for it in (first, second)]
    both = {name: whole[0][name] + whole[1][name] - value for name, value in state(base).items()}
    assert type(merged) is type(base)
    assert_close(merged.state_dict(), both)
    assert all(torch.equal(first.state_dict()[name], value) for name, value in before.items())
    dora = with_lora(base, 3, use_dora=True)
    scaled = breadcrumbs.merge(base, [dora], method="task_arithmetic", alpha=1)
    assert_close(scaled.state_dict(), copy.deepcopy(dora).merge_and_unload().state_dict())
    # As a base it is the base alone, also of the module into which the adapter was put.
    for under in (first, first.get_base_model()):
        alone = breadcrumbs.merge(under, [second], method="task_arithmetic", alpha=1)
        assert type(alone) is type(base) and not hasattr(alone, "peft_config")
        assert_close(alone.state_dict(), dict(whole[1]))
        alone(torch.tensor([[1, 2]]))
    inside = breadcrumbs.compare(first.get_base_model(), [first, second])
    assert inside.norms.min() > 0 and inside.kept.tolist() == [128, 128]


def test_adapters_that_are_not_read_are_told():
    base = llama()
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    few = peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    merged = with_lora(base, 1)
    merged.merge_adapter()
    several = with_lora(base, 1)
    several.add_adapter("b", peft.LoraConfig(r=2, target_modules=["q_proj"]))
    several.base_model.set_adapter(["default", "b"])
    for model, says in (
        (peft.get_peft_model(copy.deepcopy(base), few), r"is of type 'IA3'"),
        (peft.get_peft_model(copy.deepcopy(base), prompt), "PROMPT_TUNING changes no weights"),
        (merged, r"merged into its weights.*unmerge_adapter"),
        (several, r"2 adapters are active \('default', 'b'\)"),
    ):
        with pytest.raises(CheckpointError, match=f"^model 1: .*{says}"):
            breadcrumbs.merge(base, [model])


def test_a_module_warns_of_what_a_report_would_say():
    module = torch.nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="so the result is the base") as caught:
        breadcrumbs.merge(module, [])
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="so the result is the base"):
        breadcrumbs.merge(module, [module], **HALF)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        breadcrumbs.merge(module, [torch.nn.Linear(2, 2)], **HALF)


B, F = torch.nn.Linear(3, 3).state_dict(), torch.nn.Linear(3, 3).state_dict()
#: What is given to `merge`, and what the error says.
SLIPS: list[tuple[str, Callable[[], Any]]] = [
    (r"^models: found None where a list", lambda: merge(B, None)),
    (r"^base: None is not a path", lambda: merge(None, [F])),
    (r"^model 2: None is not a path", lambda: merge(B, [F, None])),
    (r"found one model where a list is expected", lambda: merge(B, torch.nn.Linear(3, 3))),
    (r"found one model where a list", lambda: merge(B, F)),
    (r"found a dict of models.*list\(models", lambda: merge(B, {"one": F, "two": F})),
    (r"^merge: missing.*'models'\. Call it as merge\(base, \[model", lambda: merge(B)),
    (r"^merge: too many.*merge\(base, \[model, \.\.\.\]\)", lambda: merge(B, "ft1", "ft2")),
    (r"^TaskVector: missing.*'finetuned'", lambda: breadcrumbs.TaskVector(B)),
    (r"'overwrite'\. It is called 'force'", lambda: merge(B, [F], overwrite=True)),
    (r"no finish 'scv'\. Did you mean 'svc'", lambda: merge(B, [F], method="ties+scv")),
    (r"found Tensor where a list", lambda: merge(B, F["weight"])),
    (r"^base: a Tensor is not.*a dict of tensors by name", lambda: merge(F["bias"], [F])),
    (r"found int where a list", lambda: merge(B, 3)),
    (r"'weigth'\. Did you mean 'weight'\?", lambda: merge(B, [{"weigth": F["weight"]}])),
    (r"lacks 1 tensor of base: 'bias'", lambda: merge(B, [{"weight": F["weight"]}])),
    (r"is a mapping itself", lambda: merge(B, [{"state_dict": F}])),
    (r"alpha: 'big' is not possible", lambda: merge(B, [F], alpha="big")),
    (r"no method 'tees'\. Did you mean 'ties'\?", lambda: merge(B, [F], method="tees")),
    (r"no argument 'methd'\. Did you mean 'method'\?", lambda: merge(B, [F], methd="ties")),
    (r"'densty'.*Did you mean 'density'\?", lambda: merge(B, [F], densty=0.1)),
    (r"weights: found one value where a list", lambda: merge(B, [F], weights=0.5)),
    (r"weights: 'x' is not a number", lambda: merge(B, [F], weights=["x"])),
    (r"names: 1 is not a string", lambda: merge(B, [F], names=[1])),
    (r"overrides: 3 is not a list", lambda: merge(B, [F], overrides=3)),
    (r"3 is not a tensor name", lambda: merge(B, [F], exclude=3)),
    (r"threads: '2' is not a whole number", lambda: merge(B, [F], threads="2")),
    (r"as_: 'jax' is not possible", lambda: merge(B, [F], as_="jax")),
    (r"output: 3 is not a path", lambda: merge(B, [F], output=3)),
    (r"kernels 'None'", lambda: merge(B, [F], kernel=None)),
    (r"a tensor without data", lambda: merge(torch.nn.Linear(3, 3, device="meta"), [F])),
    (r"is torch.sparse_coo", lambda: merge(B, [{k: v.to_sparse() for k, v in F.items()}])),
    (r"untie: a module holds tied", lambda: merge(torch.nn.Linear(3, 3), [F], untie=True)),
    (r"scale: 'x' is not a number", lambda: tau().apply_to(B, "x")),
    (r"a dict is not a task vector", lambda: tau().cosine(dict(F))),
    (r"no tensor 'wieght'. Did you mean 'weight'", lambda: tau()["wieght"]),
    (r"no tensor 'wieght'. Did you mean 'weight'", lambda: breadcrumbs.load(B)["wieght"]),
]


def merge(*given: Any, **more: Any) -> Any:
    return breadcrumbs.merge(*given, **more)


def tau() -> Any:
    return breadcrumbs.TaskVector(B, F)


@pytest.mark.parametrize(("says", "call"), SLIPS, ids=lambda it: it if isinstance(it, str) else "")
def test_slips_are_one_line(says, call):
    with pytest.raises(BreadcrumbsError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_numbers_of_other_libraries_are_numbers():
    expected = merge(B, [F], **HALF)
    for alpha in ("0.5", np.float32(0.5), np.array(0.5), torch.tensor(0.5)):
        found = merge(B, (F,), method="task_arithmetic", alpha=alpha, seed=np.int64(0))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    for weights in (np.array([0.5]), torch.tensor([0.5]), iter([0.5])):
        found = merge(B, [F], method="task_arithmetic", alpha=1, weights=weights)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_error_notes_what_an_option_is_called_in_python(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BreadcrumbsError) as caught:
        merge(B, [F], output=tmp_path / "out")
    assert caught.value.__notes__ == ["In Python: force=True."]
    merge(B, [F], output=tmp_path / "out", force=True)
    with pytest.raises(RecipeError) as plain:
        merge(B, None)
    assert not hasattr(plain.value, "__notes__")
