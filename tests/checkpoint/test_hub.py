"""The hub: a server on this machine that speaks what `huggingface_hub` asks of one.

`huggingface_hub` reads its variables when it is imported, so each case is a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import safetensors.numpy

pytest.importorskip("huggingface_hub")

OLD, NEW = "a" * 40, "b" * 40
#: What a fetched model prints: its files in the cache, and what the checkpoint holds.
FETCH = """
import json, os, sys
sys.modules["torch"] = None  # as where it is not installed; it takes seconds to import
import breadcrumbs.checkpoint as checkpoints
from breadcrumbs.errors import BreadcrumbsError
try:
    with checkpoints.open(sys.argv[1]) as model:
        values = {name: array.tolist() for name, array in model.items()}
        result = {"repo": model.repo, "label": model.label, "values": values,
                  "files": sorted(path.relative_to(model.folder).as_posix()
                                  for path in model.folder.rglob("*") if path.is_file())}
except BreadcrumbsError as error:
    result = {"error": str(error)}
print(json.dumps(result))
"""


def weights(**values: float) -> bytes:
    return safetensors.numpy.save({key: np.full(2, value) for key, value in values.items()})


def index(**shards: str) -> bytes:
    return json.dumps({"weight_map": shards}).encode()


SIDE = {"config.json": b"{}", "tokenizer.json": b"[]", "README.md": b"# A", "vocab.txt": b"a"}
SIDE |= {"tokenizer.model": b"\0", "chat_template.jinja": b"{{ a }}"}
UNWANTED = {
    "pytorch_model.bin": b"p",
    "modeling.py": b"raise SystemExit",
    "model.onnx": b"o",
    "tf_model.h5": b"h",
    "flax_model.msgpack": b"m",
    "model.gguf": b"g",
    "onnx/model.safetensors": b"o",
    "original/params.json": b"o",
    ".gitattributes": b"a",
    "image.png": b"i",
}
#: Of a sentence-transformers model.
MODULES = {
    "modules.json": b'[{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "3_N"}]',
    "1_Pooling/config.json": b'{"pooling": 1}',
    "2_Dense/config.json": b'{"dense": 1}',
    "2_Dense/model.safetensors": weights(linear=1),
}
UNWANTED_OF_MODULES = {
    "2_Dense/module.py": b"raise SystemExit",
    "2_Dense/model.onnx": b"o",
    "2_Dense/deeper/config.json": b"o",
    "2_Dense/deeper/model.safetensors": b"o",
    "2_Dense2/config.json": b"o",
}
#: Of a diffusers pipeline: each part, one of them in shards.
PIPE = {
    "model_index.json": b'{"unet": ["diffusers", "U"], "vae": ["diffusers", "V"], "tokenizer":'
    b' ["transformers", "T"], "safety_checker": [null, null], "_class_name": "P"}',
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors.index.json": index(a="u-1.safetensors"),
    "unet/u-1.safetensors": weights(a=1),
    "vae/diffusion_pytorch_model.safetensors": weights(b=2),
    "tokenizer/vocab.json": b'{"a": 0}',
}
UNWANTED_OF_PIPE = {
    "v1-pruned.safetensors": weights(x=1),
    "unet/diffusion_pytorch_model.bin": b"p",
    "unet/diffusion_pytorch_model.fp16.safetensors": weights(a=1),
    "safety_checker/model.safetensors": weights(c=1),
    "tokenizer/README.md": b"about",
}
#: Of a model with code of its own.
CODE = {
    "config.json": b'{"auto_map": {"AutoModel": "modeling_my.M", "AutoConfig": "org/far--c.C"}}',
    "modeling_my.py": b"from .layers import L",
    "layers.py": b"import torch",
    "additional_chat_templates/tools.jinja": b"t",
}
UNWANTED_OF_CODE = {"train.py": b"", "colbert_linear.pt": b"p", "optimizer.pt": b"p", "c.py": b""}
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
#: Repository, revision, files. A revision is a name of a commit.
LORA = {
    "adapter_model.safetensors": weights(**{"base_model.model.w.lora_A.weight": 3}),
    "adapter_config.json": b'{"peft_type": "LORA", "r": 2, "lora_alpha": 2}',
    "tokenizer.json": b"{}",
    "README.md": b"An adapter.",
}
REPOS = {
    "org/one": {
        "main": (NEW, {"model.safetensors": weights(w=2)} | SIDE | UNWANTED),
        "v1": (OLD, {"model.safetensors": weights(w=1)} | SIDE),
    },
    "org/shards": {
        "main": (
            NEW,
            {ONE: weights(a=1), TWO: weights(b=2), "consolidated.safetensors": weights(a=1, b=2)}
            | {"model.safetensors.index.json": index(a=ONE, b=TWO), "pytorch_model.bin": b"p"}
            | {"pytorch_model.bin.index.json": index(a="pytorch_model.bin")}
            | SIDE,
        ),
    },
    "org/several": {"main": (NEW, {"a.safetensors": weights(a=1), "b.safetensors": weights(b=1)})},
    "org/sentences": {
        "main": (
            NEW,
            {"model.safetensors": weights(w=2)} | SIDE | UNWANTED | MODULES | UNWANTED_OF_MODULES,
        ),
    },
    "org/escape2": {
        "main": (
            NEW,
            {"model.safetensors": weights(w=2), "modules.json": b'[{"path": "../one"}, 1, "onnx"]'}
            | UNWANTED,
        ),
    },
    "org/pipe": {"main": (NEW, PIPE | UNWANTED_OF_PIPE)},
    "org/code": {"main": (NEW, {"model.safetensors": weights(w=1)} | CODE | UNWANTED_OF_CODE)},
    "org/lora": {"main": (NEW, LORA | {"step-1/adapter_model.safetensors": b"", "o.pt": b""})},
    "org/adapter": {"main": (NEW, {"adapter_model.safetensors": weights(a=1)})},
    "org/escape": {"main": (NEW, {"model.safetensors.index.json": index(a="../../x.safetensors")})},
    "org/pickle": {"main": (NEW, {"pytorch_model.bin": b"p", "training_args.bin": b"t"} | SIDE)},
}  # fmt: skip


@dataclass
class Hub:
    """A running server: its address, and what it was asked."""

    url: str
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def downloads(self) -> set[str]:
        """Return the names of the files that were downloaded."""
        paths = [path.split("/resolve/") for method, path, _ in self.requests if method == "GET"]
        return {path[1].split("/", 1)[1] for path in paths if len(path) == 2}


@pytest.fixture
def hub() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.split("?")[0])
            served.requests.append((self.command, path, self.headers.get("Authorization")))
            status, headers, body = respond(path)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def respond(path: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the answer to a request for ``path``."""
    if "org/gated" in path:
        return 403, {"X-Error-Code": "GatedRepo"}, b""
    if "org/broken" in path:
        return 500, {}, b"trouble"
    parts = path.removeprefix("/api/models").strip("/").split("/")
    name, action, revision, rest = "/".join(parts[:2]), *(parts[2:4] or ["", ""]), parts[4:]
    revisions = REPOS.get(name)
    if revisions is None:
        return 401, {"X-Error-Code": "RepoNotFound"}, b""
    commits = {commit: files for commit, files in revisions.values()}
    revision = revision or "main"
    commit = revision if revision in commits else revisions.get(revision, ("", {}))[0]
    if not commit:
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    files = commits[commit]
    if action == "resolve":
        file = "/".join(rest)
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        headers = {"ETag": f'"{blob_id(files[file])}"', "X-Repo-Commit": commit}
        return 200, headers, files[file]
    if action == "tree":
        answer: object = [
            {"type": "file", "path": file, "size": len(body), "oid": blob_id(body)}
            for file, body in files.items()
        ]
    else:
        siblings = [{"rfilename": file} for file in files]
        answer = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}
        answer |= {"private": False, "downloads": 0, "likes": 0}
    return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()


def blob_id(body: bytes) -> str:
    """Return what git calls a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def fetch(model: str, home: Path, url: str, **variables: str) -> dict:
    """Return what `FETCH` prints for ``model``, fetched from ``url`` to the cache in ``home``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    given = {"HF_HOME": str(home), "HF_ENDPOINT": url, "NO_PROXY": "*", "no_proxy": "*"}
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    run = subprocess.run(
        [sys.executable, "-c", FETCH, model],
        env=kept | given | quiet | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_one_file(hub, tmp_path):
    result = fetch("org/one", tmp_path, hub.url, HF_TOKEN="hf_secret")
    assert result["values"] == {"w": [2, 2]}
    assert (result["repo"], result["label"]) == (f"org/one@{NEW}", "org/one")
    wanted = {"model.safetensors", *SIDE}
    assert set(result["files"]) == hub.downloads() == wanted
    assert {token for _, _, token in hub.requests} == {"Bearer hf_secret"}

    hub.requests.clear()
    again = fetch("org/one", tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert again == result and not hub.requests
    missing = fetch("org/one@v1", tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert "not in the local cache" in missing["error"] and "HF_HUB_OFFLINE" in missing["error"]


def test_an_adapter_comes_with_its_config_and_nothing_of_its_training(hub, tmp_path):
    result = fetch("org/lora", tmp_path, hub.url)
    assert result["values"] == {"base_model.model.w.lora_A.weight": [3, 3]}
    assert result["repo"] == f"org/lora@{NEW}" and hub.downloads() == set(LORA)


def test_revisions(hub, tmp_path):
    for revision in ("v1", OLD):
        result = fetch(f"org/one@{revision}", tmp_path, hub.url)
        assert result["values"] == {"w": [1, 1]} and result["repo"] == f"org/one@{OLD}"
    error = fetch("org/one@v2", tmp_path, hub.url)["error"]
    assert error.startswith("org/one@v2: has no such branch, tag or commit")
    assert {token for _, _, token in hub.requests} == {None}


def test_only_the_shards_of_the_index(hub, tmp_path):
    result = fetch("org/shards", tmp_path, hub.url)
    assert result["values"] == {"a": [1, 1], "b": [2, 2]}
    assert hub.downloads() == {ONE, TWO, "model.safetensors.index.json", *SIDE}


def test_the_modules_of_a_sentence_transformer(hub, tmp_path):
    result = fetch("org/sentences", tmp_path, hub.url)
    assert result["values"] == {"w": [2, 2], "2_Dense/linear": [1, 1]}
    assert set(result["files"]) == hub.downloads() == {"model.safetensors", *SIDE, *MODULES}


def test_the_parts_of_a_pipeline(hub, tmp_path):
    result = fetch("org/pipe", tmp_path, hub.url)
    assert result["values"] == {"unet/a": [1, 1], "vae/b": [2, 2]}
    assert set(result["files"]) == hub.downloads() == set(PIPE)


def test_code_that_the_config_names_and_templates(hub, tmp_path):
    result = fetch("org/code", tmp_path, hub.url)
    assert set(result["files"]) == hub.downloads() == {"model.safetensors", *CODE}


def test_a_module_elsewhere_is_an_error(hub, tmp_path):
    error = fetch("org/escape2", tmp_path, hub.url)["error"]
    assert "modules.json: names the folder '../one'" in error and "\n" not in error
    assert hub.downloads() == {"modules.json"}


def test_a_pickle_where_there_is_nothing_else(hub, tmp_path):
    error = fetch("org/pickle", tmp_path, hub.url)["error"]
    assert "pytorch_model.bin" in error
    assert hub.downloads() == {"pytorch_model.bin", *SIDE}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("org/none", "org/none: is neither a file or folder here nor a model at http://127"),
        ("org/gated", "org/gated: is gated. Accept its terms at http://127.0.0.1"),
        ("org/several", "org/several: holds several models or shards without an index"),
        ("org/adapter", "org/adapter: is an adapter"),
        ("org/escape", "'../../x.safetensors'. A shard is the plain name"),
        ("org/a--b", "org/a--b: is neither a file or folder here nor a valid hub id"),
        ("org/one@..", "'org/one@..': no such file or folder"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(hub, tmp_path, model, says):
    error = fetch(model, tmp_path, hub.url)["error"]
    assert says in error and error.isprintable()
    assert hub.downloads() <= {"model.safetensors.index.json"}


def test_no_connection_is_one_line(tmp_path):
    error = fetch("org/one", tmp_path, "http://127.0.0.1:9")["error"]
    assert error.startswith("org/one: could not be downloaded from http://127.0.0.1:9 (")
    assert "HF_HUB_OFFLINE=1" in error and error.isprintable()
