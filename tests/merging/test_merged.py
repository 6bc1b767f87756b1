"""Merged models in memory: saved as the command line writes them, and uploaded."""

from __future__ import annotations

import base64
import copy
import gc
import json
import pickle
import weakref
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from huggingface_hub import constants

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.errors import OutputError
from breadcrumbs.merging import publishing


def state(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_normal((4, 5)).astype("f"), "b": rng.standard_normal(3).astype("f")}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folders(tmp_path) -> tuple[str, list[str]]:
    """Return a base and a model in folders, with a config and a tokenizer."""
    paths = []
    for seed, name in enumerate(("base", "ft")):
        folder = tmp_path / name
        folder.mkdir()
        breadcrumbs.merge(state(seed), [], alpha=1).save(folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "bert"}')
        (folder / "tokenizer.json").write_text("{}")
        paths.append(str(folder))
    return paths[0], paths[1:]


def test_saved_as_the_command_line_writes_it(folders, tmp_path):
    base, models = folders
    merged = breadcrumbs.merge(base, models)
    report = merged.save(tmp_path / "saved")
    ran = CliRunner().invoke(main, ["merge", base, *models, "-o", str(tmp_path / "written")])
    assert ran.exit_code == 0, ran.output
    assert files(tmp_path / "saved") == files(tmp_path / "written")
    assert {"config.json", "tokenizer.json"} <= files(tmp_path / "saved").keys()
    assert report.output == str(tmp_path / "saved") and str(tmp_path) in repr(report)
    with pytest.raises(OutputError, match="exists"):
        merged.save(tmp_path / "saved")
    merged.save(tmp_path / "saved", force=True)


def test_what_was_changed_since_is_not_saved_with_its_recipe(folders, tmp_path):
    merged = breadcrumbs.merge(*folders)
    merged["b"][0] += 1
    with pytest.raises(OutputError, match=r"'b' is not what the merge made"):
        merged.save(tmp_path / "out")
    del merged["b"]
    with pytest.raises(OutputError, match=r"no longer the merged tensors: 'b'"):
        merged.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_in_memory_are_saved_as_they_are(folders, tmp_path):
    base, model = state(0), state(1)
    merged = breadcrumbs.merge(base, [model])
    expected = {name: array.copy() for name, array in merged.items()}
    breadcrumbs.merge(base, [model], output=tmp_path / "files")
    base["w"][:], model["w"][:] = 0, 0  # as where the result is loaded into the base's module
    merged.save(tmp_path / "saved")
    saved, written = files(tmp_path / "saved"), files(tmp_path / "files")
    assert saved["model.safetensors"] == written["model.safetensors"]
    assert saved["breadcrumbs.yaml"] == written["breadcrumbs.yaml"]
    with breadcrumbs.load(tmp_path / "saved") as found:
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    half = breadcrumbs.merge(folders[0], [state(1)])  # a path, and a state dict
    half.save(tmp_path / "half")
    assert "config.json" in files(tmp_path / "half")
    merged["b"] = merged["b"][:2]
    with pytest.raises(OutputError, match=r"no longer the merged tensors: 'b'"):
        merged.save(tmp_path / "other")


def test_tensors_of_torch_are_saved(tmp_path):
    torch = pytest.importorskip("torch")
    models = [{n: torch.from_numpy(a).bfloat16() for n, a in state(i).items()} for i in range(2)]
    merged = breadcrumbs.merge(models[0], models[1:], method="ties")
    merged.save(tmp_path / "out.safetensors")
    found = breadcrumbs.load(tmp_path / "out.safetensors", as_="torch")
    assert all(torch.equal(found[name], merged[name]) for name in merged)
    torch.nn.Linear(2, 2).load_state_dict(
        breadcrumbs.merge(torch.nn.Linear(2, 2).state_dict(), [torch.nn.Linear(2, 2)])
    )


def test_a_result_keeps_no_models_in_memory(tmp_path):
    base, models = state(0), [state(1), state(2)]
    alive = [weakref.ref(array) for model in (base, *models) for array in model.values()]
    merged = breadcrumbs.merge(base, models)
    del base, models
    gc.collect()
    assert not any(one() is not None for one in alive)
    merged.save(tmp_path / "out")


def test_a_copy_is_a_plain_dict():
    merged = breadcrumbs.merge(state(0), [state(1)])
    for other in (pickle.loads(pickle.dumps(merged)), copy.deepcopy(merged)):
        assert type(other) is dict and all(np.array_equal(other[n], merged[n]) for n in merged)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """Serve what uploading asks for, and yield what was posted."""
    posted: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            lines = [json.loads(line) for line in body.splitlines() if line]
            posted.append((self.path, lines))
            answer: dict[str, Any] = {"url": f"{url}/org/new"}
            if "refused" in body:
                self.send_response(403)
                answer = {"error": "no"}
            else:
                self.send_response(200)
            if "/preupload/" in self.path:
                names = [file["path"] for file in lines[0]["files"]]
                answer = {
                    "files": [
                        {"path": name, "uploadMode": "regular", "shouldIgnore": False}
                        for name in names
                    ]
                }
            elif "/commit/" in self.path:
                answer = {"commitOid": "1" * 40, "commitUrl": f"{url}/org/new/commit/{'1' * 40}"}
            data = json.dumps(answer).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield posted
    server.shutdown()


def test_a_merged_model_is_uploaded(hub, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # so nothing is named from a place above it
    merged = breadcrumbs.merge(*folders)
    merged.save(tmp_path / "saved")
    address = merged.push_to_hub("org/new", private=True, token="hf_x", message="All of it")
    assert address.endswith(f"/org/new/commit/{'1' * 40}")
    (created, (repo,)), *_, (committed, (head, *uploaded)) = hub
    assert created == "/api/repos/create" and committed == "/api/models/org/new/commit/main"
    assert repo["name"] == "new" and repo["organization"] == "org"
    assert repo.get("private", repo.get("visibility")) in (True, "private")  # by version
    assert head["value"]["summary"] == "All of it"
    found = {it["value"]["path"]: base64.b64decode(it["value"]["content"]) for it in uploaded}
    assert found == files(tmp_path / "saved")
    assert not any(tmp_path.parts[-2].encode() in data for data in found.values())
    # The folder of a merge that was streamed.
    report = breadcrumbs.merge(*folders, output=tmp_path / "streamed")
    report.push_to_hub("org/new", token="hf_x")
    assert len(hub[-1][1]) == 1 + len(found)


def test_an_upload_that_is_refused_is_one_line(hub, tmp_path):
    file = tmp_path / "m.safetensors"
    for repo, says in (("org/refused", "refuses this token"), ("a b", "not a valid hub id")):
        with pytest.raises(OutputError, match=f"{repo}: .*{says}") as caught:
            publishing.push(tmp_path, repo, token="hf_x")
        assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match="is not a folder"):
        breadcrumbs.merge(state(0), [state(1)], output=file).push_to_hub("org/new")
