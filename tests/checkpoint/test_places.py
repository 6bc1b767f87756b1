"""Models elsewhere: merged to the same bytes, each fetched once; and what goes wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from range_server import serving

import breadcrumbs
from breadcrumbs.checkpoint import hashing, mirrors
from breadcrumbs.checkpoint import open as open_model
from breadcrumbs.checkpoint.places import parsed
from breadcrumbs.cli import main
from breadcrumbs.errors import BreadcrumbsError
from breadcrumbs.merging.reproducing import reproduce

obstore = pytest.importorskip("obstore")

BLOCK = 16 << 10
SIZES = mirrors.Sizes(block=BLOCK, piece=BLOCK // 8, wait=0.001)
SECRET = "wJalrXUtnFEMI"
SHARDS = "model-0000{}-of-00002.safetensors"


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Blocks of 16 KiB, no long waits, and mirrors under the test's own folder."""
    monkeypatch.setenv(mirrors.SCRATCH, str(tmp_path / "scratch"))
    with mirrors.fresh(SIZES):
        yield


@pytest.fixture(scope="module")
def models(minilm, tmp_path_factory):
    """A base and two fine-tunings in two shards, with all that lies beside MiniLM's weights."""
    root = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    base = {f"layers.{i}.w": rng.standard_normal((64, 100), np.float32) for i in range(6)}
    for name in ("base", "ft1", "ft2"):
        folder = root / name
        shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
        step = 0 if name == "base" else 0.01
        new = {k: v + step * rng.standard_normal(v.shape, np.float32) for k, v in base.items()}
        keys = sorted(new)
        parts = {SHARDS.format(1): keys[:4], SHARDS.format(2): keys[4:]}
        for shard, some in parts.items():
            data = safetensors.numpy.save({k: new[k] for k in some}, {"format": "pt"})
            (folder / shard).write_bytes(data)
        said = {"weight_map": {k: shard for shard, some in parts.items() for k in some}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(said))
    return root


@pytest.fixture
def web(models):
    """The models on a web server, which lists nothing."""
    with serving() as it:
        for path in models.rglob("*"):
            if path.is_file():
                it.files[f"/m/{path.relative_to(models).as_posix()}"] = path.read_bytes()
        yield it


@pytest.fixture(scope="module")
def bucket(models):
    """The models in a bucket of moto's server."""
    from obstore.store import S3Store

    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())

    urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
    keys: Any = {"access_key_id": "AKIATEST", "secret_access_key": SECRET, "region": "us-east-1"}
    there = S3Store("bucket", endpoint=url, client_options={"allow_http": True}, **keys)
    for path in models.rglob("*"):
        if path.is_file():
            obstore.put(there, f"m/{path.relative_to(models).as_posix()}", path.read_bytes())
    yield url
    server.stop()


@pytest.fixture
def aws(monkeypatch):
    """Say where S3 is, with credentials that must not be found anywhere."""

    def use(url: str) -> None:
        for key, value in (
            ("AWS_ENDPOINT_URL", url),
            ("AWS_ACCESS_KEY_ID", "AKIATEST"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(key, value)

    return use


def merged(root: str, output: Path, method: str = "ties"):
    given = [f"{root}/ft1", f"{root}/ft2"]
    return breadcrumbs.merge(f"{root}/base", given, output=output, method=method)


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a merge wrote that does not say where its inputs lay: tensors, other files."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found |= {k: v.tobytes() for k, v in safetensors.numpy.load_file(path).items()}
        elif path.is_file() and name not in ("breadcrumbs.yaml", "README.md"):
            found[name] = path.read_bytes()
    return found


def test_a_bucket_is_merged_to_the_same_bytes_and_reproduced(models, bucket, aws, tmp_path):
    aws(bucket)
    merged("s3://bucket/m", tmp_path / "far")
    merged(str(models), tmp_path / "near")
    assert contents(tmp_path / "far") == contents(tmp_path / "near")
    assert (tmp_path / "far/1_Pooling/config.json").is_file()
    recipe = (tmp_path / "far/breadcrumbs.yaml").read_text()
    assert "base: s3://bucket/m/base" in recipe and "etag:" in recipe and "blake3:" not in recipe
    for path in (tmp_path / "far").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    assert reproduce(tmp_path / "far").same


@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_each_byte_is_fetched_once(web, tmp_path, method):
    merged(f"{web.url}/m", tmp_path / "out", method)
    counts = web.requests()
    for model in ("base", "ft1", "ft2"):
        for number in (1, 2):
            path = f"/m/{model}/{SHARDS.format(number)}"
            size = len(web.files[path])
            assert counts[path] <= size / BLOCK + 3
            parts = web.parts(path)
            assert parts[0][0] == 0 and parts[-1][1] == size
            assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))


def test_a_look_at_a_model_reads_its_header_alone(web):
    path = f"/m/base/{SHARDS.format(1)}"
    with open_model(web.url + path) as model:
        assert len(model.tensors) == 4
    assert web.parts(path) == [(0, BLOCK)]


def test_hashes_are_those_of_the_files_here(models, web):
    assert hashing.model_hash(f"{web.url}/m/ft1") == hashing.model_hash(models / "ft1")


def test_what_changes_meanwhile_stops_the_merge(web, tmp_path):
    path = f"/m/ft1/{SHARDS.format(2)}"

    def change(asked: str) -> None:
        if asked == path and len(web.parts(path)) == 2:
            web.files[path] = web.files[path][:-4] + b"\1\2\3\4"

    web.before = change
    with pytest.raises(BreadcrumbsError, match=r"ft1/.*changed while it was being merged"):
        merged(f"{web.url}/m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_model_is_fetched_again(web):
    path = f"/m/base/{SHARDS.format(1)}"
    before = hashing.model_hash(web.url + path)
    asked = len(web.asked)
    assert hashing.model_hash(web.url + path) == before
    assert len(web.asked) == asked + 1  # whether it is the same still
    web.files[path] = web.files[path][:-4] + b"\1\2\3\4"
    assert hashing.model_hash(web.url + path) != before


def test_of_a_cut_answer_the_rest_is_read_and_refusals_are_tried_again(web, models, tmp_path):
    refused, cut = (f"/m/{model}/{SHARDS.format(1)}" for model in ("ft1", "ft2"))
    web.faults = {refused: [503, 429, 503], cut: ["", "cut", "cut"]}  # the first asks for the size
    merged(f"{web.url}/m", tmp_path / "out")
    merged(str(models), tmp_path / "near")
    assert contents(tmp_path / "out") == contents(tmp_path / "near")
    starts = {start for start, _ in web.parts(cut)}
    assert BLOCK // 2 in starts  # not from the beginning


def test_what_does_not_pass_says_so_in_a_line(web):
    path = f"/m/base/{SHARDS.format(1)}"
    web.faults = {path: [503] * 8}
    with pytest.raises(BreadcrumbsError, match="its server said 503, 8 times"):
        open_model(web.url + path)
    assert len(web.asked) == 8


@pytest.mark.parametrize("status", [403, 401])
def test_refused_credentials_are_not_tried_again(web, aws, status):
    aws(web.url)
    web.faults = {"/bucket": [status] * 9}
    with pytest.raises(BreadcrumbsError, match="Set AWS_ACCESS_KEY_ID") as caught:
        open_model("s3://bucket/m/base")
    assert len(web.asked) == 1 and SECRET not in str(caught.value)


def test_what_is_not_there_says_so(web, bucket, aws):
    aws(bucket)
    with pytest.raises(BreadcrumbsError, match="no files of a model"):
        open_model("s3://bucket/m/none")
    with pytest.raises(BreadcrumbsError, match="has neither model"):
        open_model(f"{web.url}/m/none")
    del web.files[f"/m/base/{SHARDS.format(2)}"]
    with pytest.raises(BreadcrumbsError, match=f"{web.url}/m/base/.*shards that are not there"):
        open_model(f"{web.url}/m/base")


def test_pickles_are_refused(web):
    web.files = {"/m/a/pytorch_model.bin": b"1", "/m/a/config.json": b"{}"}
    with pytest.raises(BreadcrumbsError, match="has neither model"):
        open_model(f"{web.url}/m/a")


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{SECRET}@host/m",
        f"https://host/m/model.safetensors?X-Amz-Signature={SECRET}",
        f"s3://bucket/base+https://host/lora?token={SECRET}",
    ],
)
def test_urls_with_secrets_are_refused_without_repeating_them(url, tmp_path):
    for act in (
        lambda: open_model(url),
        lambda: breadcrumbs.merge("base", [url], output=tmp_path / "out"),
    ):
        with pytest.raises(BreadcrumbsError, match="is not taken") as caught:
            act()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://host/m", "http://example.org/m", "hf://name", "s3:///m"])
def test_other_urls_are_refused(url):
    with pytest.raises(BreadcrumbsError, match=r"\. Give|is not hf"):
        parsed(url)


@pytest.mark.parametrize("command", [["task", "pack"], ["compress"], ["merge", "--part", "1/2"]])
def test_what_writes_to_no_urls_says_so(models, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [str(models / "base"), str(models / "ft1"), "-o", "gs://bucket/out.safetensors"]
    with pytest.raises(SystemExit) as caught:
        main([*command, *given], standalone_mode=False)
    assert caught.value.code == 1 and "not written to them" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_scratch_without_room_is_refused_before_the_merge_reads(web, tmp_path, monkeypatch):
    monkeypatch.setenv(mirrors.SCRATCH, f"{tmp_path}/scratch:400KB")
    sizes = {path: len(data) for path, data in web.files.items() if "safetensors" in path}
    with pytest.raises(BreadcrumbsError, match=r"need (\d+) bytes .*Give --scratch") as caught:
        merged(f"{web.url}/m", tmp_path / "out")
    said = int(str(caught.value).split(" need ")[1].split()[0])
    weights = [path for path in sizes if path.endswith(".safetensors")]
    read = sum(stop - start for path in weights for start, stop in web.parts(path))
    assert said == sum(sizes[path] for path in weights) - read
    assert not any(
        part != (0, BLOCK) for path in weights if "ft" in path for part in web.parts(path)
    )


def test_the_hub_is_read_at_a_commit(web, models, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    commit, start = "c" * 40, "/m/base/"
    files = {path.removeprefix(start): d for path, d in web.files.items() if path.startswith(start)}
    with serving() as cdn:
        siblings = []
        for name, data in files.items():
            about: dict[str, object] = {"rfilename": name, "size": len(data)}
            if name.endswith(".safetensors"):
                sha = hashlib.sha256(data).hexdigest()
                about["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 1}
                cdn.files[f"/{name}"] = data
                web.moved[f"/org/name/resolve/{commit}/{name}"] = f"{cdn.url}/{name}?Sig={SECRET}"
            else:
                web.files[f"/org/name/resolve/{commit}/{name}"] = data
            siblings.append(about)
        said = {"id": "org/name", "sha": commit, "siblings": siblings}
        web.files["/api/models/org/name/revision/main"] = json.dumps(said).encode()
        monkeypatch.setattr(constants, "ENDPOINT", web.url)
        monkeypatch.setenv("HF_TOKEN", "hf_" + SECRET)
        ft1 = str(models / "ft1")
        breadcrumbs.merge("hf://org/name@main", [ft1], output=tmp_path / "far", method="ties")
    breadcrumbs.merge(models / "base", [ft1], output=tmp_path / "near", method="ties")
    assert contents(tmp_path / "far") == contents(tmp_path / "near")
    recipe = (tmp_path / "far/breadcrumbs.yaml").read_text()
    assert f"base: hf://org/name@{commit}" in recipe and "sha256:" in recipe
    assert SECRET not in recipe
    tokens = {
        headers.get("authorization") or headers.get("Authorization") for _, headers in cdn.headers
    }
    assert tokens == {None}
