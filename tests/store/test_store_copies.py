"""Stores of models whose head is a copy of their embeddings, and tasks that tell them apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from families import assert_same
from safetensors.numpy import save_file
from stores import merged

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.store import Store

TABLE, HEAD, QUERY = (
    "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight"
)  # fmt: skip
Tensors = dict[str, np.ndarray]


def drawn(seed: int, rows: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)


def folder(path: Path, tensors: Tensors, config: dict[str, object]) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors")
    return path


@pytest.mark.parametrize("order", ["alike apart", "apart alike"])
def test_a_task_tells_copies_apart(tmp_path: Path, order: str) -> None:
    table, other = drawn(0), drawn(1, 16)
    base = folder(tmp_path / "base", {TABLE: table, HEAD: table, QUERY: other}, {})
    tuned = table + drawn(2)
    models = {
        "alike": {TABLE: tuned, HEAD: tuned, QUERY: other + drawn(3, 16)},
        "apart": {TABLE: table + drawn(4), HEAD: table + drawn(5), QUERY: other},
    }
    paths = {name: folder(tmp_path / name, held, {}) for name, held in models.items()}
    how = {"method": "task_arithmetic", "alpha": 0.5}
    with Store.create(tmp_path / "store", str(base), **how) as store:
        for name in order.split():
            store.add(name, paths[name])
        found = merged(store)
        expected = breadcrumbs.merge(str(base), [str(paths[name]) for name in order.split()], **how)
        assert_same(found, expected)
        for name in (TABLE, HEAD):
            step = sum(held[name] - table for held in models.values())
            assert np.allclose(found[name], table + 0.5 * step, atol=1e-5)
        store.verify()
        store.remove("apart")
        assert_same(merged(store), breadcrumbs.merge(str(base), [str(paths["alike"])], **how))


def test_an_adapter_has_untied_the_head(tmp_path: Path) -> None:
    table, other = drawn(0), drawn(1, 16)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True
    }  # fmt: skip
    base = folder(tmp_path / "base", {TABLE: table, QUERY: other}, config)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(
        json.dumps(said | {"modules_to_save": ["lm_head"]})
    )
    at = "base_model.model." + QUERY.removesuffix(".weight")
    held = {f"{at}.lora_A.weight": drawn(3, 2), f"{at}.lora_B.weight": drawn(4, 2).T.copy()}
    head = table + drawn(2)
    save_file(held | {"base_model.model." + HEAD: head}, adapter / "adapter_model.safetensors")
    task = tmp_path / "task.safetensors"
    tasks.from_adapter(str(base), str(adapter), task)
    with Store.create(tmp_path / "store", str(base), method="task_arithmetic", alpha=1) as store:
        store.add("one", task)
        found = merged(store)
        assert np.array_equal(found[HEAD], head) and np.array_equal(found[TABLE], table)
        assert_same(found, breadcrumbs.merge(str(base), [task], method="task_arithmetic", alpha=1))
        store.verify()
