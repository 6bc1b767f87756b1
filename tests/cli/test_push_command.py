"""Merges pushed to a hub: in one commit, private unless told, and resumed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hub_server import Hub, Repo, serving
from huggingface_hub import ModelCard, constants
from result_rows import row
from safetensors.numpy import save_file

from breadcrumbs.checkpoint import hashing, mirrors
from breadcrumbs.cli import main
from breadcrumbs.evaluate.results.results import Results

TOKEN = "hf_wJalrXUtnFEMI"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BESIDE = ["README.md", "breadcrumbs.yaml", "config.json", "model.safetensors.index.json"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(mirrors.SCRATCH, str(tmp_path / "scratch"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    rng = np.random.default_rng(0)
    for name, licence in (("base", "apache-2.0"), ("ft1", "cc-by-nc-4.0")):
        (tmp_path / name).mkdir()
        weights = {k: rng.standard_normal((50, 40), np.float32) for k in ("a", "b")}
        save_file(weights, tmp_path / name / "model.safetensors", {"format": "pt"})
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    with serving() as it:
        monkeypatch.setattr(constants, "ENDPOINT", it.url)
        yield it
    assert it.tokens - {None} <= {f"Bearer {TOKEN}"}


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert TOKEN not in result.output
    return result.output


MERGE = ("merge", "base", "ft1", "-m", "ties", "--shard-size", "10kB")


def test_a_merge_is_pushed_in_one_commit_and_nothing_stays(hub):
    run(*MERGE, "-o", "near", "-q")
    said = run(*MERGE, "--push-to-hub", "org/name", "--dry-run")
    assert f"to push: {hub.url}/org/name, private, is made" in said
    assert all(name in said for name in (*SHARDS, *BESIDE)) and "license: cc-by-nc-4.0" in said
    assert not hub.repos and not os.path.exists("scratch")
    said = run(*MERGE, "--push-to-hub", "org/name")
    repo = hub.repos["org/name"]
    assert f"pushed: {hub.url}/org/name/commit/{repo.sha}" in said and "written:" not in said
    assert repo.private and len(repo.commits) == 1
    assert sorted(repo.files) == sorted([*SHARDS, *BESIDE])
    near = {path.name: path.read_bytes() for path in Path("near").iterdir()}
    assert [repo.files[n][-8000:] for n in SHARDS] == [near[n][-8000:] for n in SHARDS]
    card = repo.files["README.md"].decode()
    assert "license: cc-by-nc-4.0" in card and "apache-2.0" in card
    assert "base: base\n" in repo.files["breadcrumbs.yaml"].decode()
    assert not any(TOKEN.encode() in data for data in repo.files.values())
    assert not os.listdir("scratch")


def test_an_upload_that_is_cut_goes_on_where_it_was(hub):
    hub.before = lambda how, path: 400 if how == "PUT" and hub.objects else None
    said = run(*MERGE, "-o", "out", "--push-to-hub", "org/name", code=1)
    assert "could not be uploaded" in said and "`breadcrumbs push out org/name` goes on" in said
    assert len(hub.objects) == 1 and not hub.repos["org/name"].files
    hub.before, before = lambda how, path: None, hub.uploads()
    run("push", "out", "org/name")
    repo = hub.repos["org/name"]
    assert hub.uploads() == before + 1 and len(repo.commits) == 1
    assert repo.files == {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_what_a_model_scores_is_on_its_card(hub):
    run(*MERGE, "-o", "out", "-q")
    assert "model-index" not in run("push", "out", "org/name", "--dry-run")
    with Results("results.sqlite") as results:
        results.add(row("m", "other"), row(hashing.model_hash("out"), "spam"))
    before = Path("out/README.md").read_bytes()
    assert "model-index: text8 spam: accuracy 0.7" in run("push", "out", "org/name", "--dry-run")
    assert Path("out/README.md").read_bytes() == before
    run(*MERGE, "--push-to-hub", "org/name", "-q")
    Path("card.md").write_bytes(hub.repos["org/name"].files["README.md"])
    data = ModelCard.load("card.md", ignore_metadata_errors=False).data
    (found,) = data.eval_results or ()
    assert found.metric_value == 0.7 and data.model_name == "name"


def test_a_model_that_is_there_is_replaced_if_it_is_forced(hub):
    run(*MERGE, "-o", "out", "-q")
    old = {"pytorch_model.bin": b"1", "vocab.txt": b"2", ".gitattributes": b"3", "logo.png": b"4"}
    repo = hub.repos["org/name"] = Repo(private=True, files=dict(old))
    assert "holds a model. Give another name, or --force" in run("push", "out", "org/name", code=1)
    assert "removed there: vocab.txt" in run("push", "out", "org/name", "--force", "--dry-run")
    assert repo.files == old

    def before(how, path):
        if path.endswith("/preupload/main"):  # another commit
            repo.commits.append([])

    hub.before = before
    said = run("push", "out", "org/name", "--force", code=1)
    assert "org/name: was changed in the meantime" in said and repo.files == old
    hub.before = lambda how, path: None
    run("push", "out", "org/name", "--force")
    assert sorted(repo.files) == sorted([".gitattributes", "logo.png", *SHARDS, *BESIDE])


@pytest.mark.parametrize(
    ("private", "options", "says"),
    [
        (True, ["--public"], "is there and private. Push without --public"),
        (False, [], "is there and public. Push with --public"),
    ],
)
def test_nothing_gets_public_unless_it_is_told(hub, private, options, says):
    hub.repos["org/name"] = Repo(private)
    said = run(*MERGE, "-o", "out", "--push-to-hub", "org/name", *options, code=1)
    assert says in said and not os.path.exists("out")
    run(*MERGE, "-o", "out", "--push-to-hub", "org/open", "--public", "-q")
    assert not hub.repos["org/open"].private


def test_what_is_refused_is_refused_before_the_merge(hub, monkeypatch):
    assert "Ids are like org/name" in run(*MERGE, "--push-to-hub", "name", code=1)
    hub.role = "read"
    assert "this token may only read" in run(*MERGE, "--push-to-hub", "org/name", code=1)
    hub.before = lambda how, path: 401
    assert "refuses this token. Set HF_TOKEN" in run(*MERGE, "--push-to-hub", "org/name", code=1)
    assert "is not a folder" in run("push", "nothing", "org/name", code=1)
    assert "no weights with a model card" in run("push", ".", "org/name", code=1)
    for options in (["-o", "s3://b/m"], ["-o", "m.safetensors"]):
        assert "give -o FOLDER" in run(*MERGE, "--push-to-hub", "org/name", *options, code=2)
    assert "is of --push-to-hub" in run(*MERGE, "-o", "out", "--public", code=2)
    assert not hub.repos and not os.path.exists("scratch")
