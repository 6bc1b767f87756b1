"""Models written to a bucket: whole or not there; resumed; refused where that is not sure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3_server import BUSY, EXPIRED, S3, serving
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs.checkpoint import mirrors
from breadcrumbs.errors import BreadcrumbsError, OutputError
from breadcrumbs.merging import files, opening
from breadcrumbs.merging.reproducing import reproduce
from breadcrumbs.plan.recipe import Model, Recipe

obstore = pytest.importorskip("obstore")
pytest.importorskip("moto")

SECRET = "wJalrXUtnFEMI"
INDEX, CLAIM = "model.safetensors.index.json", ".breadcrumbs-upload"
SHARDS = [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
KEYS = {"access_key_id": "AKIATEST", "secret_access_key": SECRET, "region": "us-east-1"}


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with serving() as it:
        yield it


@pytest.fixture
def s3(server, monkeypatch, tmp_path) -> Iterator[S3]:
    """An empty bucket, with small parts of uploads, and credentials that nothing may hold."""
    server.asked.clear()
    monkeypatch.setenv(mirrors.SCRATCH, str(tmp_path / "scratch"))
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    for key, value in (
        ("AWS_ENDPOINT_URL", server.url),
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(key, value)
    with mirrors.fresh(mirrors.Sizes(wait=0.001, part=64 << 10)):
        yield server
    server.before = lambda asked: None
    obstore.delete(there(server), list(listed(server, "")))
    assert not server.pending()


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("family"), np.random.default_rng(0)
    base = {f"layers.{i}.w": rng.standard_normal((100, 200), np.float32) for i in range(4)}
    for name, step in (("base", 0), ("ft1", 0.1), ("ft2", 0.1)):
        (root / name).mkdir()
        new = {k: v + step * rng.standard_normal(v.shape, np.float32) for k, v in base.items()}
        save_file(new, root / name / "model.safetensors", {"format": "pt"})
        (root / name / "config.json").write_text('{"model_type": "bert"}')
    return root


def there(s3: S3) -> Any:
    from obstore.store import S3Store

    options: Any = {"allow_http": True}
    return S3Store("outputs", endpoint=s3.url, client_options=options, **KEYS)  # type: ignore


def listed(s3: S3, folder: str = "m/") -> dict[str, bytes]:
    """Return what is in a folder of the bucket."""
    store = there(s3)
    names = [it["path"] for some in obstore.list(store) for it in some]
    mine = [name for name in names if name.startswith(folder)]
    return {name[len(folder) :]: bytes(obstore.get(store, name).bytes()) for name in mine}


def merge(
    family: Path,
    output: Any,
    shard_size: int = 100_000,
    method: str = "task_arithmetic",
    **options: Any,
) -> Any:
    """Merge into four files of 80 kB, which are uploaded in parts."""
    models = tuple(Model(str(family / name)) for name in ("ft1", "ft2"))
    with opening.opened(Recipe(str(family / "base"), models, method)) as plan:
        return files.to_files(plan, output, shard_size=shard_size, threads=1, **options)


def same(found: dict[str, bytes], folder: Path) -> bool:
    """Return whether a bucket has the files of a folder, and the same weights."""
    (again := folder.parent / "again").mkdir(exist_ok=True)
    for name, data in found.items():
        (again / name).write_bytes(data)
    assert found.keys() == {path.name for path in folder.iterdir()}
    assert found[INDEX] != b"" and found["config.json"] == (folder / "config.json").read_bytes()
    for path in folder.glob("*.safetensors"):
        mine, other = load_file(path), load_file(again / path.name)
        assert mine.keys() == other.keys()
        assert all(mine[k].tobytes() == other[k].tobytes() for k in mine)
    return True


def test_a_model_is_there_at_once_and_whole(family, s3, tmp_path):
    merge(family, tmp_path / "near")
    seen = []

    def before(asked):
        if asked[:2] == ("PUT", f"m/{INDEX}"):
            s3.before = lambda asked: None
            seen.append(set(listed(s3)))
            with pytest.raises(BreadcrumbsError, match="under way, or was interrupted"):
                breadcrumbs.load("s3://outputs/m")

    s3.before = before
    report = merge(family, "s3://outputs/m", verify=True)
    assert report.output == "s3://outputs/m"
    beside = ["README.md", "breadcrumbs.yaml", "config.json"]
    assert seen == [{CLAIM, *beside, *SHARDS}]
    assert [it[1][2:] for it in s3.asked if it[1][2:] in beside and it[0] == "PUT"] == beside
    found = listed(s3)
    assert same(found, tmp_path / "near")
    assert not any(SECRET.encode() in data or b"AKIATEST" in data for data in found.values())
    assert not any(str(family).encode() in data for data in found.values())
    assert not list((tmp_path / "scratch").iterdir())
    parts = [q for how, at, q in s3.asked if how == "PUT" and at == f"m/{SHARDS[0]}"]
    assert sorted(q.split("&")[0] for q in parts) == ["partNumber=1", "partNumber=2"]
    assert reproduce("s3://outputs/m", places=[str(family)]).same
    with pytest.raises(OutputError, match=r"m: exists\. Give another output, or --force"):
        merge(family, "s3://outputs/m")


def test_refusals_that_pass_are_tried_again(family, s3, tmp_path):
    merge(family, tmp_path / "near")
    left = [BUSY] * 6
    s3.before = lambda asked: left.pop() if asked[0] in ("PUT", "POST") and left else None
    merge(family, "s3://outputs/m")
    assert not left and same(listed(s3), tmp_path / "near")


def test_credentials_that_expire_are_said_and_the_upload_is_resumed(family, s3, tmp_path):
    merge(family, tmp_path / "near")
    path = f"m/{SHARDS[2]}"
    s3.before = lambda asked: EXPIRED if "partNumber=2" in asked[2] and asked[1] == path else None
    with pytest.raises(OutputError, match=r"may not be written \(400\). Set AWS_ACC.*--resume"):
        merge(family, "s3://outputs/m")
    assert set(listed(s3)) == {CLAIM, *SHARDS[:2]} and not s3.pending()
    s3.before = lambda asked: None
    with pytest.raises(BreadcrumbsError, match="is not whole"):
        breadcrumbs.load("s3://outputs/m")
    with pytest.raises(OutputError, match=r"interrupted \(since 2.* UTC\).*--resume"):
        merge(family, "s3://outputs/m")
    merge(family, "s3://outputs/m", resume=True)
    assert same(listed(s3), tmp_path / "near")
    assert [s3.put(f"m/{shard}") for shard in SHARDS] == [1, 1, 1, 1]
    assert not list((tmp_path / "scratch").iterdir())


def test_a_killed_upload_is_no_model_and_is_resumed(family, s3, tmp_path, monkeypatch):
    merge(family, tmp_path / "near")
    program = "import sys; from breadcrumbs.cli import main; main()"
    words = ["merge", *(str(family / name) for name in ("base", "ft1", "ft2")), "-m"]
    words += ["task_arithmetic", "-o", "s3://outputs/m", "--shard-size", "100kB", "--threads", "1"]
    with subprocess.Popen([sys.executable, "-c", program, *words]) as process:

        def before(asked):
            if asked[:2] == ("PUT", f"m/{SHARDS[2]}"):
                os.kill(process.pid, signal.SIGKILL)
                time.sleep(0.2)
                return BUSY
            return None

        s3.before = before
    s3.before = lambda asked: None
    assert process.returncode == -signal.SIGKILL
    assert set(listed(s3)) == {CLAIM, *SHARDS[:2]}
    merge(family, "s3://outputs/m", resume=True)
    assert same(listed(s3), tmp_path / "near")
    assert [s3.put(f"m/{shard}") for shard in SHARDS[:2]] == [1, 1]


@pytest.mark.parametrize(
    ("theirs", "when", "says"),
    [
        (INDEX, "README.md", "was created in the meantime"),
        (CLAIM, "README.md", "another merge into it"),
        (CLAIM, SHARDS[0], "another merge into it"),
        (SHARDS[0], "README.md", f"{SHARDS[0]}: is not what was uploaded"),
    ],
)
def test_a_second_commit_is_refused(family, s3, theirs, when, says):
    def before(asked):
        if asked[0] == "PUT" and asked[1] == f"m/{when}":
            s3.before = lambda asked: None
            obstore.put(there(s3), f"m/{theirs}", b"theirs".ljust(size))

    merge(family, "s3://outputs/n")
    size = len(listed(s3, "n/")[SHARDS[0]])

    s3.before = before
    with pytest.raises(OutputError, match=says):
        merge(family, "s3://outputs/m")
    found = listed(s3)
    assert found[theirs].startswith(b"theirs")
    assert (INDEX in found) == (theirs == INDEX)
    assert (SHARDS[1] in found) == (when != SHARDS[0])


def test_a_merge_that_is_under_way_keeps_others_out_before_they_read(family, s3):
    obstore.put(there(s3), f"m/{CLAIM}", b"{}")
    read = []
    with pytest.raises(OutputError, match="is under way"):
        merge(family, "s3://outputs/m", progress=read.append)
    assert not read and set(listed(s3)) == {CLAIM}


def test_who_may_not_write_hears_of_it_before_weights_are_read(family, s3, monkeypatch):
    denied = "403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"
    s3.before = lambda asked: denied if asked[0] == "PUT" else None
    monkeypatch.setattr(files.calibration, "fixed", None)  # which reads weights for alpha
    with pytest.raises(OutputError, match=r"may not be written \(403\)"):
        merge(family, "s3://outputs/m", method="breadcrumbs")
    for how in ("501 Not Implemented", None):
        s3.careless = how is None
        s3.before = lambda asked, how=how: (how, "") if how and asked[0] == "PUT" else None
        with pytest.raises(OutputError, match=r"puts nothing under a condition"):
            merge(family, "s3://outputs/m", method="breadcrumbs")
    s3.careless = False
    assert not listed(s3)


def test_an_output_is_replaced_and_what_is_not_ours_is_not(family, s3, tmp_path):
    merge(family, tmp_path / "near")
    merge(family, "s3://outputs/m", shard_size=200_000)
    old, seen = set(listed(s3)), []

    def before(asked):
        if asked[:2] in [("POST", f"m/{SHARDS[0]}"), ("PUT", f"m/{SHARDS[0]}")] and not seen:
            seen.append(set())
            seen.append(set(listed(s3)))

    s3.before = before
    merge(family, "s3://outputs/m", force=True)
    assert same(listed(s3), tmp_path / "near") and not old <= set(listed(s3))
    assert seen[1].isdisjoint({INDEX, "config.json"})
    obstore.put(there(s3), "m/data/rows.csv", b"mine")
    with pytest.raises(OutputError, match=r"holds 'data/rows\.csv', so --force does not"):
        merge(family, "s3://outputs/m", force=True)
    obstore.put(there(s3), "n/other.bin", b"mine")
    with pytest.raises(OutputError, match="holds no model of ours"):
        merge(family, "s3://outputs/n", force=True)
    assert set(listed(s3, "n/")) == {"other.bin"}


def test_one_file_is_written_under_a_condition(family, s3):
    def before(asked):
        if asked[0] == "POST" and "uploads" in asked[2]:
            seen.append(set(listed(s3, "")))

    seen: list[set[str]] = []
    s3.before = before
    merge(family, "s3://outputs/m.safetensors", verify=True)
    assert seen == [{f"m.safetensors{CLAIM}"}]
    assert set(listed(s3, "")) == {"m.safetensors"}
    assert len(breadcrumbs.load("s3://outputs/m.safetensors")) == 4
    with pytest.raises(OutputError, match="exists"):
        merge(family, "s3://outputs/m.safetensors")
    merge(family, "s3://outputs/m.safetensors", force=True)


def test_a_merge_that_fails_leaves_nothing_there(family, s3, tmp_path, monkeypatch):
    save_file({"layers.0.w": np.full((100, 200), np.nan, np.float32)}, tmp_path / "bad.safetensors")
    given = [family / "ft1", tmp_path / "bad.safetensors"]
    with pytest.raises(BreadcrumbsError, match=r"has nan at entry"):
        breadcrumbs.merge(
            *(family / "base", given),
            output="s3://outputs/m",
            method="task_arithmetic",
            missing="base",
        )
    assert s3.put(f"m/{CLAIM}") == 3 and not listed(s3)
    monkeypatch.setenv(mirrors.SCRATCH, f"{tmp_path}/scratch:100KB")
    with pytest.raises(BreadcrumbsError, match=r"320000 bytes .* room for 100 kB. Give --scratch"):
        merge(family, "s3://outputs/m")
    assert not listed(s3)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("https://host/m", "not written to. Give a folder, or a URL of s3://, gs://, az://"),
        ("hf://org/name", "Give -o FOLDER and --push-to-hub org/name"),
        ("ftp://host/m", "is no place for models"),
        ("s3://outputs", "is a bucket. Give the name of a folder in it"),
        ("s3://nothing/m", "there is no such bucket"),
        (Path("https://host/m"), "web servers are read from"),
        (f"s3://me:{SECRET}@outputs/m", "s3://outputs/m: a URL with a user, a password"),
    ],
)
def test_other_outputs_are_refused(family, s3, output, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=says) as caught:
        merge(family, output)
    assert SECRET not in str(caught.value) and not os.listdir(tmp_path)


@pytest.mark.parametrize("output", ["s3://outputs/m", "s3://outputs/m/sub", "s3://outputs"])
def test_an_input_is_never_overwritten(family, s3, output):
    merge(family, "s3://outputs/m")
    before = listed(s3, "")
    with pytest.raises(BreadcrumbsError, match=r"is one of the models|is a bucket"):
        breadcrumbs.merge("s3://outputs/m", [family / "ft1"], output=output, force=True)
    assert listed(s3, "") == before
