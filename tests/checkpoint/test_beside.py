"""What a model consists of: which files and folders, and one row for each way a list can lie."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs.checkpoint import beside, parts
from breadcrumbs.checkpoint.parts import Local
from breadcrumbs.errors import CheckpointError


def folders(path: Path, modules: object = None) -> list[str]:
    """Return the folders of a model whose `modules.json` has this content, in bytes or plain."""
    if modules is not None:
        text = modules if isinstance(modules, bytes) else json.dumps(modules).encode()
        (path / "modules.json").write_bytes(text)
    return parts.folders(Local(path))


def test_the_modules_of_a_sentence_transformer(tmp_path):
    for name in ("1_Pooling", "3_Dense", "onnx"):
        (tmp_path / name).mkdir()
    paths = ["", "1_Pooling", "2_Normalize", "3_Dense", "1_Pooling"]
    modules = [{"idx": i, "name": str(i), "path": p, "type": "T"} for i, p in enumerate(paths)]
    assert folders(tmp_path, modules) == ["1_Pooling", "3_Dense"]


def test_the_ways_of_a_router(tmp_path):
    (tmp_path / "router_config.json").write_text(
        '{"types": {"query_0_A": "T", "document_0_B": "T"}}'
    )
    for name in ("query_0_A", "document_0_B/1_C", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "document_0_B" / "modules.json").write_text('[{"path": "1_C"}]')
    assert folders(tmp_path) == ["query_0_A", "document_0_B", "document_0_B/1_C"]


def test_folders_that_name_each_other_end(tmp_path):
    deep = tmp_path / "/".join(["a"] * 9).lstrip("/")
    deep.mkdir(parents=True)
    for path in [tmp_path, *tmp_path.rglob("a")]:
        (path / "modules.json").write_text('[{"path": "a"}]')
    assert folders(tmp_path) == ["a", "a/a", "a/a/a"]


@pytest.mark.parametrize(
    "modules",
    [
        *(b"[NaN]", None, 1, "1_Pooling", {"path": "1_Pooling"}, [["1_Pooling"]], ["x", None, 1]),
        *([{}], [{"path": None}], [{"path": ["1_Pooling"]}], [{"Path": "1_Pooling"}]),
    ],
)
def test_what_is_another_list_names_none(tmp_path, modules):
    (tmp_path / "1_Pooling").mkdir()
    assert folders(tmp_path, b"null" if modules is None else modules) == []


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"\xff", b"[" * 100_000, b"9" * 100_000),
        json.dumps([{"path": "1_Pooling"}]).encode() + b" " * (1 << 20),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error(tmp_path, text):
    with pytest.raises(CheckpointError, match=r"modules\.json: (cannot be read|has more)") as error:
        folders(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_list_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CheckpointError, match=r"modules\.json: cannot be read \(Permission"):
        folders(tmp_path)


OUTSIDE = [
    *("..", "../x", "1_Pooling/..", "a/b", "/", "/etc", "./", ".git", ".replaced", "~/x"),
    *("..\\x", "C:", "C:\\x", "\\\\host\\x", "x\0", "x\n", "\ud800", "*", "1_Pooling/"),
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_out_of_the_folder_is_an_error(tmp_path, path):
    for name in ("1_Pooling", ".git"):
        (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match="names the folder"):
        folders(tmp_path, [{"path": path}, {"path": "1_Pooling"}])
    (tmp_path / "modules.json").unlink()
    (tmp_path / "router_config.json").write_text(json.dumps({"types": {path: "T"}}))
    with pytest.raises(CheckpointError, match="names the folder"):
        folders(tmp_path)
    (tmp_path / "router_config.json").unlink()
    (tmp_path / "model_index.json").write_text(json.dumps({path: ["diffusers", "UNet"]}))
    with pytest.raises(CheckpointError, match="names the folder"):
        folders(tmp_path)


@given(st.lists(st.dictionaries(st.sampled_from(["path", "type"]), st.text(), max_size=2)))
def test_any_list_names_what_is_inside_or_nothing(tmp_path_factory, modules):
    try:
        assert folders(tmp_path_factory.mktemp("model"), modules) == []
    except CheckpointError as error:
        assert "names the folder" in str(error)


def test_names_that_are_no_subfolders(tmp_path):
    (tmp_path / "file").write_text("x")
    paths = ["file", "missing", "x" * 5000, "modules.json"]
    assert folders(tmp_path, [{"path": path} for path in paths]) == []


def test_links_to_folders_are_passed_over(tmp_path):
    model, outside = tmp_path / "model", tmp_path / "outside"
    for folder in (model / "1_Pooling", model / "inside", outside):
        folder.mkdir(parents=True)
    try:
        for name, target in {"out": outside, "in": model / "inside", "up": tmp_path}.items():
            (model / name).symlink_to(target, target_is_directory=True)
        (tmp_path / "link").symlink_to(model, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    assert folders(model, [{"path": p} for p in ("out", "in", "up", "1_Pooling")]) == ["1_Pooling"]
    assert folders(tmp_path / "link") == ["1_Pooling"]
    (model / "model_index.json").write_text('{"out": ["diffusers", "UNet2DConditionModel"]}')
    with pytest.raises(CheckpointError, match="names the part 'out', and there is no folder"):
        folders(model)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "modules.json")
    assert folders(tmp_path) == []


# --- files ---

KINDS = {
    "tokenizer": """
        tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json
        vocab.json vocab.txt merges.txt vocab.bpe encoder.json dict.txt bpe.codes spiece.model
        spm.model source.spm target.spm vocab-src.json sentencepiece.bpe.model tokenizer.model
        tokenizer.model.v3 tokenizer.model.v11 tekken.json qwen.tiktoken tokenization_qwen.py
        chat_template.jinja chat_template.json ice_text.model normalizer.json
        prophetnet.tokenizer entity_vocab.json rwkv_vocab_v20230424.txt emoji.json
        tokenizer.model.v7m1
    """,
    "code": """
        modeling_x.py configuration_x.py processing_x.py image_processing_x.py
    """,
    "text": """
        config.json generation_config.json preprocessor_config.json processor_config.json
        video_preprocessor_config.json image_processor_config.json scheduler_config.json
        params.json modules.json sentence_bert_config.json config_sentence_transformers.json
        model_index.json open_clip_config.json label_map.json labels.txt selected_tags.csv
        artifact.metadata mel_filters.npz LICENSE LICENSE.md NOTICE USE_POLICY.md
        requirements.txt gliner_config.json
    """,
    "extra": """
        colbert_linear.pt sparse_linear.pt model_head.pkl mm_projector.bin
        value_head.safetensors
    """,
    "": """
        README.md breadcrumbs.yaml mergekit_config.yml finetune.json adapter_config.json
        .gitattributes ._config.json trainer_state.json training_args.bin training_args.json
        optimizer.pt optimizer.bin scheduler.pt scaler.pt rng_state.pth rng_state_0.pth
        random_states_0.pkl all_results.json train_results.json eval_results.json
        test_results.json events.out.tfevents.1700.host.1.0 zero_to_fp32.py train.py handler.py
        model.onnx model.onnx_data tf_model.h5 flax_model.msgpack rust_model.ot model.gguf
        pytorch_model.bin pytorch_model.fp16.bin pytorch_model.bin.index.json
        model.safetensors.index.json model.safetensors.index.fp16.json tf_model.h5.index.json
        latest consolidated.00.pth model.fp16.safetensors train.jsonl data.csv picture.png
        run.log run.sh pytorch_model-00001-of-00002.bin openvino_model.xml openvino_model.bin
        deepspeed_config.json ema.pt global_step10 mp_rank_00_model_states.pt
        adapter_model.safetensors
    """,
}


@pytest.mark.parametrize("kind", KINDS)
def test_which_kind_a_file_is_of(kind):
    for name in KINDS[kind].split():
        assert (name, parts.kind(name)) == (name, kind)


def test_large_files_stay_behind(tmp_path):
    for name, size in {
        "notes.txt": (100 << 20) + 1,
        "head.pt": (100 << 20) + 1,
        "a.txt": 5,
    }.items():
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    assert beside.files(tmp_path) == ["a.txt"]
    assert parts.extra(Local(tmp_path), "") == []


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone: cannot be listed"):
        beside.files(tmp_path / "gone")


# --- remote code ---


def test_the_code_that_configs_name_and_what_it_imports(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"auto_map": {"AutoModel": "mine.Model", "AutoConfig": "org/name--far.Config"}})
    )
    said = {"vision_config": {"auto_map": {"AutoConfig": "inner.C"}}}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"auto_map": {"AutoProcessor": "eyes.P"}} | said)
    )
    said = {"auto_map": {"AutoTokenizer": ["words.T", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    (tmp_path / "modules.json").write_text('[{"path": "", "type": "custom_st.Transformer"}]')
    code = {
        "mine": "import torch\nfrom .layers import A\nfrom . import (\n  norms, rope as r)\n",
        "layers": "    from .kernels.deep import fused\nimport .plain\n",
        "words": "from .pieces import P",
        "pieces": "from .words import T",
        **{
            name: "" for name in ("norms", "rope", "kernels", "plain", "eyes", "inner", "custom_st")
        },
        **{name: "" for name in ("far", "train", "zero_to_fp32", "torch")},
    }
    for name, text in code.items():
        (tmp_path / f"{name}.py").write_text(text)
    wanted = {
        "inner",
        "mine",
        "layers",
        "norms",
        "rope",
        "kernels",
        "plain",
        "words",
        "pieces",
        "eyes",
    }
    found = [name for name in beside.files(tmp_path) if name.endswith(".py")]
    assert set(found) == {f"{name}.py" for name in wanted | {"custom_st"}}
    assert set(parts.tokenizer_code(Local(tmp_path))) == {"words.py", "pieces.py"}


def test_the_code_of_a_pipeline(tmp_path):
    index = {"_class_name": ["pipe", "P"], "unet": ["my_unet", "U"], "vae": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "unet").mkdir()
    for name in ("pipe.py", "other.py", "unet/my_unet.py", "unet/other.py"):
        (tmp_path / name).write_text("")
    assert beside.files(tmp_path) == ["model_index.json", "pipe.py", "unet/my_unet.py"]


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"auto_map": 3}', '{"auto_map": {"A": [1, {}]}}']
)
def test_odd_configs_name_no_code(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "train.py").write_bytes(b"\xff\xfe")
    assert beside.files(tmp_path) == ["config.json"]


def test_a_pointer_that_is_copied_is_named(tmp_path):
    """A tokenizer of which Git LFS left the pointer: of the base, or of the model that is asked."""
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    weights = np.zeros((4, 4), np.float32)
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
        save_file({"w": weights + (name == "tuned")}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "tokenizer.model").write_text("a" if name == "base" else text)
    paths = [str(tmp_path / name) for name in ("base", "tuned")]
    how = {"method": "task_arithmetic", "alpha": 0.5}

    def said(**more) -> list[str]:
        report = breadcrumbs.merge(paths[0], paths[1:], output=tmp_path / "out", **how, **more)
        shutil.rmtree(tmp_path / "out")
        return [line for line in report.warnings if "Git LFS" in line]

    assert not said()
    found = said(tokenizer=paths[1])
    assert len(found) == 1 and found[0].startswith(f"{paths[1]}: 'tokenizer.model' is a pointer")
    for name in ("base", "tuned"):
        (tmp_path / name / "tokenizer.model").write_text(text if name == "base" else "a")
    assert not said(tokenizer=paths[1])
    assert said()[0].startswith(f"{paths[0]}: 'tokenizer.model' is a pointer")
