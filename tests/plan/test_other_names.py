"""Models of other names, end to end: merged as if they had the base's, or told how to rename."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.plan.recipe import from_mapping, to_mapping
from breadcrumbs.tasks import pack

HOW = {"method": "task_arithmetic", "alpha": 0.5}
FLAGS = ("-m", "task_arithmetic", "-p", "alpha=0.5")


def weights(seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"transformer.wte.weight": (16, 8), "transformer.norm.weight": (8,)} | {
        f"transformer.h.{i}.{name}": shape
        for i in range(2)
        for name, shape in (("attn.weight", (8, 8)), ("LayerNorm.weight", (8,)))
    }
    return {k: (rng.normal(size=s) * scale).astype(np.float32) for k, s in shapes.items()}


BASE = weights()
TUNED = [{k: v + weights(i, 0.1)[k] for k, v in BASE.items()} for i in (1, 2)]
WANT = breadcrumbs.merge(BASE, TUNED, **HOW)


def named(how, tensors):
    return {how(k): v for k, v in tensors.items()}


def bare(k):
    return k.removeprefix("transformer.")


def wrapped(k):
    return "_orig_mod.module." + k


def folder(path: Path, tensors, shards: int = 1, config=None) -> str:
    path.mkdir()
    names = sorted(tensors)
    index = {}
    for i in range(shards):
        file = (
            "model.safetensors" if shards == 1 else f"model-{i + 1:05}-of-{shards:05}.safetensors"
        )
        mine = {k: np.ascontiguousarray(tensors[k]) for k in names[i::shards]}
        save_file(mine, path / file, {"format": "pt"})
        index |= dict.fromkeys(mine, file)
    if shards > 1:
        text = json.dumps({"metadata": {}, "weight_map": index})
        (path / "model.safetensors.index.json").write_text(text)
    (path / "config.json").write_text(json.dumps(config or {}))
    return str(path)


def run(*args: str) -> tuple[int, str]:
    found = CliRunner().invoke(main, [str(arg) for arg in args])
    return found.exit_code, found.output


def same(found, want=WANT) -> bool:
    return found.keys() == want.keys() and all((found[k] == v).all() for k, v in want.items())


INNER = {
    "compiled blocks": lambda k: k.replace(".h.0.", ".h.0._orig_mod.").replace(
        ".h.1.", ".h.1._orig_mod."
    ),
    "checkpointed under DDP": lambda k: (
        "module." + k.replace(".h.0.", ".h.0._checkpoint_wrapped_module.")
    ),
    "FSDP at three depths": lambda k: (
        "_fsdp_wrapped_module."
        + k.replace("transformer.", "transformer._fsdp_wrapped_module.").replace(
            ".h.1.", ".h.1._fsdp_wrapped_module."
        )
    ),
}


@pytest.mark.parametrize("case", INNER)
def test_wrappers_of_single_layers(case):
    how = INNER[case]
    assert same(breadcrumbs.merge(BASE, [named(how, t) for t in TUNED], **HOW))
    assert same(breadcrumbs.merge(BASE, [TUNED[0], named(how, TUNED[1])], **HOW))
    want = named(how, WANT)
    assert same(breadcrumbs.merge(named(how, BASE), TUNED, **HOW), want)
    bared = [named(bare, t) for t in TUNED]
    assert same(breadcrumbs.merge(named(bare, BASE), [named(how, t) for t in TUNED], **HOW),
                named(bare, WANT))  # fmt: skip
    assert same(breadcrumbs.merge(named(how, BASE), bared, **HOW), want)


def test_wrappers_that_hide_two_tensors_of_one_name_are_left():
    both = TUNED[0] | {
        "transformer.h.0._orig_mod.attn.weight": TUNED[1]["transformer.h.0.attn.weight"]
    }
    with pytest.raises(MismatchError, match="_orig_mod"):
        breadcrumbs.merge(BASE, [both], **HOW)


@pytest.mark.parametrize(
    "how", [bare, wrapped, lambda k: "model.model." + k, lambda k: "bert" + k[11:]]
)
def test_a_prefix_changes_nothing_but_a_line(tmp_path, how):
    base = folder(tmp_path / "base", BASE)
    models = [folder(tmp_path / "ft1", named(how, TUNED[0]), shards=3)]
    models += [folder(tmp_path / "ft2", TUNED[1])]  # one with, one without
    code, text = run("merge", base, *models, *FLAGS, "-o", tmp_path / "out")
    assert code == 0 and same(load_file(tmp_path / "out" / "model.safetensors"))
    assert text.count("note: ") == 1 and "ft1: names with" in text and "warning" not in text
    card = (tmp_path / "out" / "README.md").read_text()
    assert "ft1: names with" in card
    code, text = run("merge", base, *models, *FLAGS, "--dry-run", "--json")
    assert code == 0 and "ft1: names with" in json.loads(text)["notes"][0]


def test_the_recipe_beside_the_output_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "base", BASE)
    folder(
        tmp_path / "ft1",
        named(lambda k: k.replace("LayerNorm.weight", "LayerNorm.gamma"), TUNED[0]),
    )
    folder(tmp_path / "ft2", named(wrapped, TUNED[1]))
    rule = "*.LayerNorm.gamma=*.LayerNorm.weight"
    code, text = run("merge", "base", "ft1", "ft2", *FLAGS, "-o", "out", "--rename", rule)
    assert code == 0, text
    assert same(load_file("out/model.safetensors"))
    assert yaml.safe_load(Path("out/breadcrumbs.yaml").read_text())["rename"] == [rule]
    Path("again.yaml").write_text(Path("out/breadcrumbs.yaml").read_text())
    assert run("merge", "again.yaml", "-o", "again")[0] == 0
    assert (
        Path("again/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()
    )


def test_what_the_error_advises_works(tmp_path):
    how = lambda k: "module." + k.replace("LayerNorm.weight", "LayerNorm.gamma")  # noqa: E731
    base = folder(tmp_path / "base", BASE)
    models = [folder(tmp_path / f"ft{i}", named(how, t)) for i, t in enumerate(TUNED)]
    code, text = run("merge", base, *models, *FLAGS, "-o", tmp_path / "out")
    rules = re.findall('(--rename) "([^"]*)"', text)
    assert code == 1 and rules
    more = [word for pair in rules for word in pair]
    assert run("merge", base, *models, *FLAGS, "-o", tmp_path / "out", *more)[0] == 0
    assert same(load_file(tmp_path / "out" / "model.safetensors"))


def test_rules_of_one_model():
    data = {
        "base": "b",
        "models": ["x", {"model": "y", "rename": "a.*=*"}],
        "rename": ["b.*=*", "c=d"],
    }
    made = from_mapping(data)
    assert made.models[1].rename == ("a.*=*",) and made.rename == ("b.*=*", "c=d")
    assert from_mapping(to_mapping(made)) == made
    for wrong in ("a", ["a*=b"], [3], {"a": "b"}):
        with pytest.raises(RecipeError, match="rename"):
            from_mapping({**data, "rename": wrong})
        with pytest.raises(RecipeError, match="rename"):
            from_mapping({**data, "models": [{"model": "y", "rename": wrong}]})


def test_a_model_s_own_rules_come_first_and_must_match(tmp_path):
    swapped = {
        "transformer.h.0.attn.weight": "transformer.h.1.attn.weight",
        "transformer.h.1.attn.weight": "transformer.h.0.attn.weight",
    }
    base = folder(tmp_path / "base", BASE)
    one = folder(tmp_path / "ft1", named(lambda k: swapped.get(k, k), TUNED[0]))
    two = folder(tmp_path / "ft2", TUNED[1])
    rules = [f"{k}={v}" for k, v in swapped.items()]
    recipe = {"base": base, "models": [{"model": one, "rename": rules}, two], **HOW}
    recipe["parameters"] = {"alpha": recipe.pop("alpha")}
    recipe["rename"] = ["*.attn.weight=*.attn.weight"]  # for both, but after those of ft1
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert run("merge", tmp_path / "r.yaml", "-o", tmp_path / "out")[0] == 0
    assert same(load_file(tmp_path / "out" / "model.safetensors"))
    recipe["models"][0]["rename"] = [*rules, "nothing.*=*"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    code, text = run("merge", tmp_path / "r.yaml", "-o", tmp_path / "no")
    assert code == 1 and '"nothing.*=*" matches no tensor of' in text and "ft1" in text


def test_rules_leave_task_files_alone(tmp_path):
    first, second = "transformer.h.0.attn.weight", "transformer.h.1.attn.weight"
    swap = {first: second, second: first}
    task = tmp_path / "t.safetensors"
    pack(BASE, TUNED[0], task, transform="none")
    odd = named(lambda k: swap.get(k, k), TUNED[1])
    back = [f"{k}={v}" for k, v in swap.items()]
    assert same(breadcrumbs.merge(BASE, [task, odd], rename=back, **HOW))


def test_refusals_of_rules():
    for rule, error in (
        ("nothing=x", "matches no tensor of any model"),
        ("transformer.*=x", "1 \\* before"),
        ("*.0.*=*.1.*", "would both be called"),
        ("x", "OLD=NEW"),
    ):
        with pytest.raises((RecipeError, MismatchError), match=error):
            breadcrumbs.merge(BASE, TUNED, rename=rule, **HOW)


def test_a_classification_head_is_still_named():
    models = [
        named(wrapped, t) | {"_orig_mod.module.score.weight": np.ones((2, 8), np.float32)}
        for t in TUNED
    ]
    with pytest.raises(MismatchError, match=r"'score\.weight'"):
        breadcrumbs.merge(BASE, models, **HOW)
    assert same(breadcrumbs.merge(BASE, models, extra="ignore", **HOW))


def test_a_tied_head_beside_a_prefix():
    """GPT2LMHeadModel beside the hub's gpt2, which has no prefix and no head; and the reverse."""
    models = [t | {"lm_head.weight": t["transformer.wte.weight"]} for t in TUNED]
    found = breadcrumbs.merge(named(bare, BASE), models, **HOW)
    assert same(found, named(bare, WANT))
    base = BASE | {"lm_head.weight": BASE["transformer.wte.weight"]}
    found = breadcrumbs.merge(base, [named(bare, t) for t in TUNED], **HOW)
    assert same(found, WANT | {"lm_head.weight": WANT["transformer.wte.weight"]})


def test_another_size_is_named_by_shape():
    models = [named(wrapped, t) for t in TUNED]
    models[0]["_orig_mod.module.transformer.wte.weight"] = np.ones((17, 8), np.float32)
    with pytest.raises(MismatchError, match=r"'transformer.wte.weight' has shape \(17, 8\)"):
        breadcrumbs.merge(BASE, models, **HOW)


def test_with_both_flags_a_prefixed_model_is_merged():
    models = [named(wrapped, t) for t in TUNED]
    assert same(breadcrumbs.merge(BASE, models, extra="ignore", missing="base", **HOW))


def test_a_stack_as_the_base(tmp_path):
    folder(tmp_path / "base", BASE)
    base = f"{tmp_path}/base[0:2] + {tmp_path}/base[0:1]"
    more = {k.replace("h.0", "h.2"): v for k, v in TUNED[0].items() if "h.0" in k}
    tuned = TUNED[0] | more
    want = breadcrumbs.merge(base, [tuned], **HOW)
    assert same(breadcrumbs.merge(base, [named(wrapped, tuned)], **HOW), want)


def test_task_files_archives_and_comparisons(tmp_path):
    base = folder(tmp_path / "base", BASE)
    plain = [folder(tmp_path / f"p{i}", t) for i, t in enumerate(TUNED)]
    odd = [folder(tmp_path / f"o{i}", named(bare, t)) for i, t in enumerate(TUNED)]
    files = []
    for i, model in enumerate(odd):
        files.append(str(tmp_path / f"t{i}.safetensors"))
        code, text = run("task", "pack", base, model, "-o", files[-1], "--transform", "none")
        assert code == 0 and "note: " in text
    assert same(breadcrumbs.merge(base, files, **HOW))
    first, second = (breadcrumbs.compare(base, models) for models in (plain, odd))
    assert (first.cosine == second.cosine).all() and len(second.notes) == 2
    tau = breadcrumbs.TaskVector(base, odd[0])
    assert same(dict(tau), dict(breadcrumbs.TaskVector(base, plain[0])))
    for number, models in enumerate((plain, odd)):
        names = ("--name", "a", "--name", "b")
        assert (
            run("compress", base, *models, *names, "-o", tmp_path / f"{number}.safetensors")[0] == 0
        )
    mine = [load_file(tmp_path / f"{i}.safetensors") for i in (0, 1)]
    assert same(*mine)


def test_rename_everywhere(tmp_path):
    how = lambda k: k.replace("LayerNorm.weight", "ln.w")  # noqa: E731
    rule = ("--rename", "*.ln.w=*.LayerNorm.weight")
    base = folder(tmp_path / "base", BASE)
    odd = [folder(tmp_path / f"o{i}", named(how, t)) for i, t in enumerate(TUNED)]
    assert run("store", "init", tmp_path / "s", "--base", base, *FLAGS)[0] == 0
    for i, model in enumerate(odd):
        code, text = run("store", "add", tmp_path / "s", f"t{i}", model, *rule)
        assert code == 0, text
        assert run("task", "pack", base, model, "-o", tmp_path / f"{i}.safetensors", *rule)[0] == 0
    assert run("store", "merge", tmp_path / "s", "-o", tmp_path / "merged")[0] == 0
    assert same(load_file(tmp_path / "merged" / "model.safetensors"))
    assert run("compare", base, *odd, *rule)[0] == 0
    assert run("compare", base, *odd)[0] == 1
    code, text = run("compress", base, *odd, *rule, "-o", tmp_path / "a.safetensors")
    assert code == 0, text
    assert not breadcrumbs.TaskVector(base, odd[0], rename=rule[1]).keys() - BASE.keys()
    soup = breadcrumbs.greedy_soup(BASE, [named(how, t) for t in TUNED], len, rename=rule[1])
    assert soup.merged is not None and soup.merged.keys() == BASE.keys()


# --- onto a model that has more ---

PUT = {
    "before 4.52": lambda k: "language_model." + k,
    "from 4.52 on": lambda k: k.replace("transformer.", "model.language_model."),
    "as it is": lambda k: k,
}
TOWER = {f"vision_tower.h.{i}.attn.weight": np.full((8, 8), i + 0.5, np.float32) for i in range(3)}


@pytest.mark.parametrize("put", PUT)
def test_onto_keeps_what_the_target_alone_has(tmp_path, put):
    text = {k: v + 1 for k, v in BASE.items()}
    step = breadcrumbs.merge(BASE, TUNED, onto=text, **HOW)
    base = folder(tmp_path / "base", BASE, config={"model_type": "text"})
    models = [folder(tmp_path / f"ft{i}", t) for i, t in enumerate(TUNED)]
    onto = named(PUT[put], text) | TOWER
    target = folder(tmp_path / "vlm", onto, config={"model_type": "vlm"})
    code, printed = run("merge", base, *models, "--onto", target, *FLAGS, "-o", tmp_path / "out")
    assert code == 0, printed
    assert same(load_file(tmp_path / "out" / "model.safetensors"), named(PUT[put], step) | TOWER)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "vlm"
    assert "3 of the target alone" in printed
    assert same(breadcrumbs.merge(BASE, TUNED, onto=onto, **HOW), named(PUT[put], step) | TOWER)


def test_onto_by_rule_and_in_another_dtype():
    how = lambda k: k.replace("h.", "blocks.x").replace("wte", "tok")  # noqa: E731
    onto = named(how, BASE) | TOWER
    rules = ["*.blocks.x*=*.h.*", "*.tok.*=*.wte.*"]
    found = breadcrumbs.merge(BASE, TUNED, onto=onto, rename=rules, dtype="float64", **HOW)
    assert found.keys() == onto.keys() and {v.dtype.name for v in found.values()} == {"float64"}
    with pytest.raises(MismatchError, match="nothing can be added"):
        breadcrumbs.merge(BASE, TUNED, onto=TOWER, missing="base", **HOW)


def test_onto_of_torch_tensors():
    torch = pytest.importorskip("torch")
    base, onto = (
        {k: torch.from_numpy(v.copy()) for k, v in tensors.items()}
        for tensors in (BASE, named(PUT["before 4.52"], BASE) | TOWER)
    )
    found = breadcrumbs.merge(base, TUNED, onto=onto, **HOW)
    assert {k: v.numpy().sum() for k, v in found.items()}.keys() == onto.keys()
    assert same({k: v.numpy() for k, v in found.items()}, named(PUT["before 4.52"], WANT) | TOWER)


def test_gpt2_as_transformers_saves_it(tmp_path):
    """The body alone as the base, as the hub has gpt2, and a fine-tuning with a head."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=20, n_positions=8)
    torch.manual_seed(0)
    tuned = transformers.GPT2LMHeadModel(config).eval()
    tuned.save_pretrained(tmp_path / "ft")
    transformers.GPT2Model(config).save_pretrained(tmp_path / "base")
    code, text = run("merge", tmp_path / "base", tmp_path / "ft", "-m", "task_arithmetic", "-p",
                     "alpha=1", "-o", tmp_path / "out")  # fmt: skip
    assert code == 0, text
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    tokens = torch.arange(8)[None]
    assert torch.allclose(again(tokens).logits, tuned(tokens).logits, atol=1e-6)
