"""Names of one model for those of another: prefixes, rules, advice, and what is not guessed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from breadcrumbs.checkpoint import names, renames, renaming
from breadcrumbs.checkpoint.memory import open_mapping
from breadcrumbs.checkpoint.renaming import Rule
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import MismatchError, RecipeError

BASE = {"model.embed.weight": (16, 8), "lm_head.weight": (16, 8), "model.norm.weight": (8,)} | {
    f"model.layers.{i}.{name}": shape
    for i in range(3)
    for name, shape in {
        "attn.q.weight": (8, 8),
        "attn.k.weight": (8, 8),
        "mlp.up.weight": (12, 8),
        "mlp.up.bias": (12,),
        "norm.weight": (8,),
        "norm.bias": (8,),
    }.items()
}


def checkpoint(shapes, label="base") -> Checkpoint:
    return open_mapping({k: np.zeros(s, np.float32) for k, s in shapes.items()}, label)


def renamed(how, shapes=BASE, drop=(), **extra) -> Checkpoint:
    mine = {how(k): s for k, s in shapes.items() if k not in drop}
    return checkpoint(mine | {k.replace("__", "."): s for k, s in extra.items()}, "ft")


def fits(model: Checkpoint, base=BASE) -> int:
    return len(model.tensors.keys() & base.keys())


PREFIXES = {
    "module.": lambda k: "module." + k,
    "_orig_mod.module.": lambda k: "_orig_mod.module." + k,
    "model.": lambda k: "model." + k,  # model.model.
    "net/": lambda k: "net/" + k,
    "a.b.c.": lambda k: "a.b.c." + k if "layers" in k else k,  # a part of them
    "model.layers._inner_module.": lambda k: k.replace("layers.", "layers._inner_module."),
    "bert.": lambda k: k.replace("model.", "bert."),
    "model.blocks.": lambda k: k.replace("layers.", "blocks."),
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_found_from_the_names(prefix):
    view, line = names.matched(checkpoint(BASE), renamed(PREFIXES[prefix]))
    assert list(view.tensors) == list(BASE)
    assert all(tensor.name == name for name, tensor in view.tensors.items())
    assert line.startswith("ft: names with") and repr(prefix) in line
    assert view.called == {k: PREFIXES[prefix](k) for k in BASE if PREFIXES[prefix](k) != k}


def test_a_prefix_of_the_base_alone_is_found():
    view, line = names.matched(checkpoint(BASE), renamed(lambda k: k.removeprefix("model.")))
    assert list(view.tensors) == list(BASE) and "'model.'" in line


def test_names_that_fit_are_left_alone():
    for model in (
        renamed(str),
        renamed(str, classifier__weight=(3, 8)),
        renamed(str, drop=["lm_head.weight"]),
    ):
        assert names.matched(checkpoint(BASE), model) == (model, "")


@pytest.mark.parametrize(
    "how", [lambda k: "module." + k, lambda k: k.removeprefix("model."), lambda k: "x." + k]
)
def test_a_head_of_the_fine_tuning_stays_apart(how):
    head = {how("classifier.weight").replace(".", "__"): (3, 8)}
    view, _ = names.matched(checkpoint(BASE), renamed(how, drop=["lm_head.weight"], **head))
    assert fits(view) == len(BASE) - 1
    assert view.tensors.keys() - BASE.keys() == {"classifier.weight"}


def test_buffers_of_a_part_get_its_prefix_too():
    how = lambda k: k.removeprefix("model.")  # noqa: E731
    view, _ = names.matched(checkpoint(BASE), renamed(how, layers__0__attn__mask=(2, 2)))
    assert "model.layers.0.attn.mask" in view.tensors


def test_other_heads_are_not_taken_for_the_bases():
    """RoBERTa's and BERT's: a classifier has tensors of the names and shapes of another head."""
    body = {f"roberta.layer.{i}.weight": (8, 8) for i in range(3)}
    base = checkpoint(body | {"lm_head.dense.weight": (8, 8), "lm_head.dense.bias": (8,)})
    other = {"classifier.dense.weight": (8, 8), "classifier.dense.bias": (8,)}
    model = checkpoint(body | other, "ft")
    assert names.matched(base, model) == (model, "")
    assert renames.suggestion(base, model) == ""


def test_a_layer_is_not_taken_for_another():
    base = checkpoint({f"h.0.experts.{i}.w": (4, 4) for i in range(3)} | {"x.w": (2, 2)})
    model = checkpoint({f"h.1.experts.{i}.w": (4, 4) for i in range(3)} | {"x.w": (2, 2)}, "ft")
    assert names.matched(base, model) == (model, "")
    assert renames.suggestion(base, model) == ""


def test_a_few_names_that_are_alike_say_nothing():
    odd = {f"aux.layers.{i}.w": (4, 4) for i in range(3)} | {"aux.head.w": (4, 4)}
    mine = {f"ema.layers.{i}.w": (4, 4) for i in range(3)} | {"ema.start.w": (4, 4)}
    base, model = checkpoint(BASE | odd), checkpoint(BASE | mine, "ft")
    assert names.matched(base, model) == (model, "")
    one = (
        checkpoint(BASE | {"model.layers.0.c.w": (4, 4)}),
        checkpoint(BASE | {"model.layers.0.d.w": (4, 4)}, "ft"),
    )
    assert names.matched(*one) == (one[1], "") and renames.suggestion(*one) == ""


def test_two_tensors_never_get_one_name():
    model = renamed(lambda k: "module." + k, lm_head__weight=(16, 8))
    assert names.matched(checkpoint(BASE), model) == (model, "")


def test_most_shapes_must_fit():
    wrong = {k: (5, 5) for k in BASE}
    model = renamed(lambda k: "module." + k, wrong)
    assert names.matched(checkpoint(BASE), model) == (model, "")


def test_two_places_that_fit_alike_are_named():
    base = {
        f"{tower}.layers.{i}.w": (4, 4)
        for tower in ("language_model", "vision_tower")
        for i in (0, 1)
    }
    model = checkpoint({f"layers.{i}.w": (4, 4) for i in (0, 1)}, "ft")
    with pytest.raises(
        MismatchError, match=r"'language_model.' and 'vision_tower.'.*--rename \"\*="
    ):
        names.matched(checkpoint(base), model)
    with pytest.raises(MismatchError, match=r"of ft are.*--rename \"language_model.\*=\*\""):
        names.matched(checkpoint({f"layers.{i}.w": (4, 4) for i in (0, 1)}), checkpoint(base, "ft"))


TOWER = {f"vision_tower.encoder.layers.{i}.attn.{x}.weight": (8, 8) for i in range(5) for x in "qk"}


@pytest.mark.parametrize("new", [False, True])
def test_a_text_model_goes_to_the_language_model_and_not_to_the_tower(new):
    put = (
        (lambda k: k.replace("model.", "model.language_model."))
        if new
        else lambda k: "language_model." + k
    )
    base = {put(k): s for k, s in BASE.items()} | TOWER
    view, _ = names.matched(checkpoint(base), checkpoint(BASE, "ft"))
    assert view.tensors.keys() == {put(k) for k in BASE}
    # Only the tower has so many layers, but no name says that the model is for images.
    layers = {k: s for k, s in BASE.items() if ".attn." in k}
    layers |= {k.replace(".2.", f".{i}."): s for i in (3, 4) for k, s in layers.items()}
    only = checkpoint({k.replace("model.", "net."): s for k, s in layers.items()}, "ft")
    view, _ = names.matched(checkpoint(TOWER), only)
    assert view is only


def test_a_tower_alone_goes_to_the_tower():
    base = BASE | TOWER
    model = {k.removeprefix("vision_tower."): s for k, s in TOWER.items()}
    view, _ = names.matched(checkpoint(base), checkpoint(model, "ft"))
    assert view.tensors.keys() == TOWER.keys()


BODY = {f"encoder.layer.{i}.query.weight": (8, 8) for i in range(3)} | {"embeddings.cls": (1, 8)}
POOLED = BODY | {"pooler.dense.weight": (8, 8), "pooler.dense.bias": (8,)}
CLASSIFIES = {"vit." + k: s for k, s in BODY.items()} | {"classifier.layers.0.weight": (2, 8)}


def test_a_tower_that_is_all_of_the_body_has_its_prefix_found():
    for base, model in ((POOLED, CLASSIFIES), (CLASSIFIES, POOLED)):
        view, note = names.matched(checkpoint(base), checkpoint(model, "ft"))
        assert len(view.tensors.keys() & base.keys()) == len(BODY) and "'vit.'" in note
        decorated = checkpoint({"module." + k: s for k, s in model.items()}, "ft")
        view, _ = names.matched(checkpoint(base), decorated)
        assert len(view.tensors.keys() & base.keys()) == len(BODY)


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_a_head_beside_a_part_is_in_the_same_wrapper(wrapper):
    text = BASE | {"lm_head.weight": (40, 8)}
    base = {k.replace("model.", "model.language_model."): s for k, s in text.items()} | TOWER
    ft = checkpoint({wrapper + k: s for k, s in text.items()}, "ft")
    view, _ = names.matched(checkpoint(base), ft)
    assert view.tensors.keys() == base.keys() - TOWER.keys()


@pytest.mark.parametrize(
    ("base", "model"),
    [
        (CLASSIFIES | {f"language.{k}": (9, *s) for k, s in BODY.items()}, POOLED),
        (CLASSIFIES, POOLED | {"encoder.layer.3.query.weight": (8, 8)}),
        (CLASSIFIES | {"vit.encoder.layer.3.query.weight": (8, 8)}, POOLED),
        (CLASSIFIES, POOLED | {"embed_tokens.weight": (30, 8)}),
        (CLASSIFIES | {"vit.pooler.dense.bias": (9,)}, POOLED),
    ],
)
def test_a_tower_that_is_not_is_none(base, model):
    for one, other in ((base, model), (model, base)):
        theirs = checkpoint(other, "ft")
        assert names.matched(checkpoint(one), theirs) == (theirs, "")


#: A number is a layer's: ``0.`` may go or come, but ``9.`` in place of ``9.9.X.`` is refused.
PART = st.text("ab_X9", min_size=1, max_size=6).filter(lambda part: not part.isdigit())


@given(st.lists(PART, min_size=1, max_size=3), st.lists(PART, max_size=3), st.integers(1, 4))
@example(["0", "auto_model"], [], 2)
@example(["0", "auto_model"], ["0", "model"], 2)
@example(["model"], ["0", "model"], 1)
@settings(max_examples=60, deadline=None)
def test_any_prefix_leads_back(gone, added, layers):
    here = {
        f"{part}.{i}.{name}": (size, 4)
        for i in range(layers)
        for part, size in (("layers", 2), ("blocks", 3))
        for name in ("q.weight", "k.weight")
    }
    first, second = (".".join(parts) + "." if parts else "" for parts in (gone, added))
    base = checkpoint({second + k: s for k, s in here.items()})
    view, line = names.matched(base, checkpoint({first + k: s for k, s in here.items()}, "ft"))
    assert list(view.tensors) == list(base.tensors)
    assert bool(line) == (first != second)
    assert [t.shape for t in view.tensors.values()] == [t.shape for t in base.tensors.values()]


# --- rules ---


@pytest.mark.parametrize(
    ("rule", "name", "new"),
    [
        ("a.b=c", "a.b", "c"),
        ("a.b=c", "a.b.c", None),
        ("a.*=*", "a.b.c", "b.c"),
        ("*=a.*", "b", "a.b"),
        ("*.gamma=*.weight", "x.LN.gamma", "x.LN.weight"),
        ("*.x.*=*.y.*", "a.x.b.x.c", "a.y.b.x.c"),
        ("l.*.a.*.w=m.*.b.*.v", "l.1.a.q.w", "m.1.b.q.v"),
        ("a*a=b*b", "a", None),
        ("[a].*=(b).*", "[a].c", "(b).c"),
    ],
)
def test_rules(rule, name, new):
    assert renaming.parse(rule).of(name) == new


@pytest.mark.parametrize("text", ["a", "=a", "a=", "a=b=c", "a*=b", "a=b*", "*.*=*"])
def test_rules_that_are_none(text):
    with pytest.raises(RecipeError, match=r"OLD=NEW|as many"):
        renaming.parse(text, "here")


@given(
    st.text("ab.", max_size=12),
    st.text("ab.*", min_size=1, max_size=6).filter(lambda t: "=" not in t),
)
def test_a_rule_to_itself_changes_nothing(name, old):
    new = Rule(old, old).of(name)
    pattern = "(.*?)".join(map(re.escape, old.split("*")))
    assert new == (name if re.fullmatch(pattern, name) else None)


def test_the_first_rule_that_matches_counts_and_names_stay_apart():
    model = checkpoint({"a.x": (1,), "b.x": (1,)}, "ft")
    view, used = renaming.apply([Rule("a.x", "c"), Rule("*.x", "*.y")], model)
    assert list(view.tensors) == ["c", "b.y"] and len(used) == 2
    with pytest.raises(MismatchError, match=r"ft: 'a.x' and 'b.x' would both be called 'x'"):
        renaming.apply([Rule("a.*", "*"), Rule("b.*", "*")], model)


# --- advice ---

ADVICE = {
    "gamma": (
        lambda k: k.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta"),
        ["*.norm.gamma=*.norm.weight", "*.norm.beta=*.norm.bias"],
    ),
    "gamma below a prefix": (
        lambda k: "module." + k.replace("s.0.norm.weight", "s.0.norm.gamma"),
        ["*.norm.gamma=*.norm.weight"],
    ),
    "weight norm": (
        lambda k: k.replace("up.weight", "up.parametrizations.weight.original1"),
        [],  # the base has no weight_v
    ),
    "in the middle": (lambda k: k.replace(".attn.", ".self_attn."), ["*.self_attn.*=*.attn.*"]),
    "wrapped": (
        lambda k: re.sub(r"(layers\.\d)\.", r"\1._inner_block.", k),
        ["*._inner_block.*=*.*"],
    ),
    "more than one way": (lambda k: k.replace("attn.q", "a.x").replace("attn.k", "a.y"), []),
}


@pytest.mark.parametrize("case", ADVICE)
def test_advice_makes_it_fit(case):
    how, rules = ADVICE[case]
    base, model = checkpoint(BASE), renamed(how)
    view, _ = names.matched(base, model)
    found = re.findall('--rename "([^"]*)"', renames.suggestion(base, view))
    assert found == rules
    if found:
        again, _ = renaming.apply([renaming.parse(rule) for rule in found], model)
        assert fits(names.matched(base, again)[0]) == len(BASE)


@pytest.mark.parametrize("back", [False, True])
def test_advice_for_weight_norms(back):
    old = {f"conv.{i}.{k}": (4, 2) for i in range(2) for k in ("weight_g", "weight_v", "bias")}
    new = {
        k.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): s
        for k, s in old.items()
    }
    base, model = (new, old) if back else (old, new)
    text = renames.suggestion(checkpoint(base), checkpoint(model, "ft"))
    rules = [renaming.parse(rule) for rule in re.findall('--rename "([^"]*)"', text)]
    view, _ = renaming.apply(rules, checkpoint(model, "ft"))
    assert view.tensors.keys() == base.keys()


def test_of_two_ways_the_one_that_leads_further_is_advised():
    layers = {f"layers.{i}.w": (4, 4) for i in range(3)}
    mine = layers | {"embed.w": (9, 4)}
    base = checkpoint(
        {"a." + k: s for k, s in mine.items()} | {"b." + k: s for k, s in layers.items()}
    )
    assert '--rename "*=a.*"' in renames.suggestion(base, checkpoint(mine, "ft"))
    assert renames.suggestion(base, checkpoint(layers, "ft")) == ""


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("images", ["visual.blocks", "vision_tower.encoder.layers"])
def test_advice_for_models_of_images_and_text(images, back, wrapper):
    """transformers before 4.52 and after, both ways, beside a projector and a head."""
    old = {"language_model." + k: s for k, s in BASE.items()}
    old |= {f"{images}.{i}.attn.q.weight": (8, 8) for i in range(4)}
    old |= {"multi_modal_projector.linear_1.weight": (8, 8)}
    new = {
        "lm_head.weight"
        if "lm_head" in k
        else k.replace("language_model.model.", "model.language_model.")
        if "language" in k
        else "model." + k: s
        for k, s in old.items()
    }
    base, model = (new, old) if back else (old, new)
    model = {wrapper + k: s for k, s in model.items()}
    view, _ = names.matched(checkpoint(base), checkpoint(model, "ft"))
    text = renames.suggestion(checkpoint(base), view)
    rules = [renaming.parse(rule) for rule in re.findall('--rename "([^"]*)"', text)]
    view, _ = renaming.apply(rules, checkpoint(model, "ft"))
    view, _ = names.matched(checkpoint(base), view)
    head = {"language_model.lm_head.weight"} if wrapper and not back else set()  # from module.
    assert base.keys() - view.tensors.keys() == head


# --- adapters ---

TEXT = {f"layers.{i}.attn.q.weight": (8, 8) for i in range(3)}


def under(prefix, shapes=TEXT):
    return {prefix + k: s for k, s in shapes.items()}


VLM = under("language_model.model.") | TOWER


@pytest.mark.parametrize("prefix", ["model.language_model.", "model.", "", "base.net."])
def test_the_layers_of_an_adapter_are_the_language_models(prefix):
    found = names.places(VLM, under(prefix))
    assert found == [{prefix + k: f"language_model.model.{k}" for k in TEXT}]


def test_an_adapter_of_both_parts():
    five = {k.replace("vision_tower.", ""): s for k, s in TOWER.items()}
    wanted = under("model.language_model.") | under("model.visual.", five)
    (found,) = names.places(VLM, wanted)
    assert len(found) == len(wanted) and set(found.values()) == VLM.keys()
    assert all(("visual" in k) == ("vision" in v) for k, v in found.items())


def test_an_adapter_with_more_layers_than_there_are_has_no_place():
    wanted = {f"model.layers.{i}.attn.q.weight": (8, 8) for i in range(5)}
    assert names.places(VLM, wanted) == []


def test_the_number_of_layers_decides_or_nothing_does():
    more = {f"layers.{i}.attn.q.weight": (8, 8) for i in range(4)}
    both = under("encoder.") | under("decoder.", more)
    assert names.places(both, TEXT) == [{k: f"encoder.{k}" for k in TEXT}]
    assert names.places(both, more) == [{k: f"decoder.{k}" for k in more}]
    assert len(names.places(under("encoder.") | under("decoder."), TEXT)) == 2


def test_heads_of_an_adapter_are_not_moved_to_other_heads():
    known = under("model.") | {"lm_head.weight": (3, 8)}
    (found,) = names.places(known, under("bert.") | {"classifier.weight": (3, 8)})
    assert found == {f"bert.{k}": f"model.{k}" for k in TEXT}


#: A layer of a tower for images in a file, and what transformers 5 calls it in memory.
LAYERS = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "layernorm_before",
}


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("prefix", ["vit.", ""])
@pytest.mark.parametrize("deeper", [True, False])
def test_what_a_tower_for_images_is_called_in_memory(wrapper, prefix, deeper):
    shapes = {end: (8, 8) for end in LAYERS} | {"intermediate.dense": (16, 8)}
    start = "encoder.layer" if deeper else "layers"
    beside = {f"{prefix}embeddings.cls_token": (1, 8), "classifier.weight": (3, 8)}
    files = beside | {
        f"{prefix}encoder.layer.{i}.{end}.{kind}": shape if kind == "weight" else shape[:1]
        for i in range(2)
        for end, shape in shapes.items()
        for kind in ("weight", "bias")
    }
    called = {f"encoder.layer.{i}.{old}.": f"{start}.{i}.{new}." for old, new in LAYERS.items()
              for i in range(2)}  # fmt: skip
    memory = {}
    for name in files:
        old = next((old for old in called if name.startswith(prefix + old)), "")
        memory[name] = name.replace(old, called[old]) if old else name
    there = {memory[name]: shape for name, shape in files.items()}
    back = {new: old for old, new in memory.items()}
    for one, other, means in ((files, there, memory), (there, files, back)):
        base, ft = checkpoint(one), checkpoint({wrapper + k: s for k, s in other.items()}, "ft")
        found = re.findall('--rename "(.+?)"', renames.suggestion(base, ft))
        view, _ = names.matched(base, renaming.apply(list(map(renaming.parse, found)), ft)[0])
        assert view.tensors.keys() == one.keys()
        assert all(view.called.get(name, name) == wrapper + means[name] for name in one)
