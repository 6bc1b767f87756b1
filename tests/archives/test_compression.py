"""Archives of tasks: models that come back with the bits of merges, and statistics by loops."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from families import close, family, saved
from reference import is_weight
from references import masks as reference
from references import spectral

import breadcrumbs
from breadcrumbs import archives
from breadcrumbs.archives import accounting, open_archive, votes, writing
from breadcrumbs.errors import CheckpointError, MismatchError, OutputError, RecipeError
from breadcrumbs.merging import opening
from breadcrumbs.plan import USUAL, Sizes

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ["cats", "dogs", "birds"]
ON = pytest.mark.parametrize("on", ["sum", "ties"])
KINDS = pytest.mark.parametrize("kind", ["usual", "ties"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
METHODS = pytest.mark.parametrize("method", ["tall", "emr", "tsv"])


def same_bits(found, expected) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype and found[name].shape == values.shape, name
        assert found[name].tobytes() == values.tobytes(), name


def rebuilt(path, task, base):
    with archives.model(path, task, base) as model:
        return dict(model)


@ON
@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_masks_are_the_references_however_it_runs(on, kind, dtype, tmp_path):
    base, *models = family(1, dtype, 3, kind)
    path, scales = tmp_path / "tasks.safetensors", [0.2, 0.4, 0.5]
    archives.compress(base, models, path, names=NAMES, on=on, scale=scales)
    expected = reference.tall_masks(base, models, scale=scales, on=on)
    with open_archive(path) as archive:
        assert archive.tasks == tuple(NAMES) and archive.parameters["scale"] == [
            "0.2",
            "0.4",
            "0.5",
        ]
        for task, mine in enumerate(expected):
            for name, mask in mine.items():
                packed = archive.bits(task, name)
                bits = np.unpackbits(packed)
                assert (bits[: mask.size] == mask.reshape(-1)).all()
                assert not bits[mask.size :].any() and packed.size == -(-mask.size // 8)
    again, given = tmp_path / "again.safetensors", {"on": on, "scale": scales}
    asked = writing.recipe(base, models, "tall", given, names=NAMES)
    with opening.opened(asked, [base, *models], Sizes(chunk=16, arena=16 * 16)) as plan:
        writing.of(plan, again, "tall", threads=1)
    assert again.read_bytes() == path.read_bytes()


@ON
@KINDS
@DTYPES
def test_a_task_has_the_bits_of_tall_mask(on, kind, dtype, tmp_path):
    base, *models = family(2, dtype, 3, kind)
    path = tmp_path / "tasks.safetensors"
    archives.compress(base, models, path, names=NAMES, on=on)
    for number, task in enumerate(NAMES):
        found = rebuilt(path, task, base)
        merged = breadcrumbs.merge(base, models, method="tall_mask", on=on, task=number + 1)
        same_bits(found, merged)
        close(found, reference.tall_mask(base, models, number, on=on), 2.0**-7)


@KINDS
@DTYPES
def test_a_task_has_the_bits_of_emr(kind, dtype, tmp_path):
    base, *models = family(3, dtype, 3, kind)
    path = tmp_path / "tasks.safetensors"
    archives.compress(base, models, path, names=NAMES, method="emr")
    for number, task in enumerate(NAMES):
        found = rebuilt(path, task, base)
        same_bits(found, breadcrumbs.merge(base, models, method="emr", task=number + 1))
        close(found, reference.emr_model(base, models, number), 2.0**-7)


def test_emr_of_models_of_other_dtypes_than_the_base(tmp_path):
    (base, *_), (_, wide, wider) = family(4, "bfloat16", 0), family(4, "float32", 2)
    wider = {n: a.astype(np.float64) if is_weight(a) else a for n, a in wider.items()}
    for models in ([wide], [wide, wider]):
        path = tmp_path / f"{len(models)}.safetensors"
        archives.compress(base, models, path, names=NAMES[: len(models)], method="emr")
        expected = breadcrumbs.merge(base, models, method="emr", task=1)
        same_bits(rebuilt(path, "cats", base), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tsv_keeps_the_leading_triplets_of_matrices_and_all_of_the_rest(dtype, tmp_path):
    base, *models = family(5, dtype, 3)
    path = tmp_path / "tasks.safetensors"
    archives.compress(base, models, path, names=NAMES, method="tsv")
    matrices = ("b", "a", "blocks.0.w", "blocks.3.w", "blocks.10.w")
    for number, (task, model) in enumerate(zip(NAMES, models, strict=True)):
        found = rebuilt(path, task, base)
        mine = {n: spectral.tsv_c(base[n], [m[n] for m in models])[number] for n in matrices}
        close(found, mine, 1e-6 if dtype == "float32" else 1e-14)
        for name in set(base) - set(matrices):  # c has one column: a triplet is no smaller
            assert found[name].tobytes() == model[name].tobytes()
    with open_archive(path) as archive:
        assert archive.lefts[0, "b"].shape == (13, 3) and archive.rights[0, "b"].shape == (3, 9)


@pytest.mark.parametrize("method", ["tall", "emr", "tsv"])
def test_bytes_are_read_from_anywhere(method, tmp_path):
    base, *models = family(4, "bfloat16", 3)
    path = tmp_path / "tasks.safetensors"
    archives.compress(base, models, path, names=NAMES, method=method)
    with archives.model(path, "dogs", base) as model:
        tensor = model.tensors["b"]
        whole = tensor.read().tobytes()
        for start, stop in ((0, 1), (3, 50), (33, 234), (18, 18), (233, 234)):
            out = bytearray(stop - start)
            tensor.source.read_into(start, memoryview(out))
            assert bytes(out) == whole[start:stop]


def test_the_golden_models_come_back_as_files(tmp_path):
    shutil.copy(GOLDEN / "base.safetensors", tmp_path / "base.safetensors")
    paths = [str(GOLDEN / f"{name}.safetensors") for name in ("ft0", "ft1", "ft2")]
    paths = [str(tmp_path / "base.safetensors"), *paths]
    path, out = tmp_path / "tasks.safetensors", tmp_path / "out.safetensors"
    archives.compress(paths[0], paths[1:], path)
    archives.extract(path, "ft2", out)  # the base is where it was, beside the archive
    expected = breadcrumbs.open(GOLDEN / "expect-tall-l4-task2.safetensors")
    found = dict(breadcrumbs.open(out))
    for name, values in expected.items():
        np.testing.assert_allclose(values, found[name], rtol=0, atol=4 * 2.0**-23)
    merged = tmp_path / "merged.safetensors"
    with archives.model(path, "ft2") as model:
        breadcrumbs.merge(paths[0], [model], method="task_arithmetic", alpha=1, output=merged)
    same_bits(dict(breadcrumbs.open(merged)), found)


def test_a_folder_gets_what_lies_beside_the_base(tmp_path):
    from safetensors.numpy import save_file

    base, model = family(6, "float32", 1)
    for name, arrays in (("base", base), ("cats", model)):
        (tmp_path / name / "1_Pooling").mkdir(parents=True)
        save_file(arrays, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(f'{{"of": "{name}"}}')
    (tmp_path / "base" / "modules.json").write_text('[{"path": "1_Pooling"}]')
    (tmp_path / "base" / "1_Pooling" / "config.json").write_text("{}")
    path = tmp_path / "tasks.safetensors"
    archives.compress(str(tmp_path / "base"), [str(tmp_path / "cats")], path)
    archives.extract(path, "cats", tmp_path / "out", shard_size=300)
    assert (tmp_path / "out" / "config.json").read_text() == '{"of": "base"}'
    assert (tmp_path / "out" / "1_Pooling" / "config.json").exists()
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    # One task is its own multi-task model: it comes back whole.
    same_bits(dict(breadcrumbs.open(tmp_path / "out")), model)


def test_frozen_tensors_are_not_in_the_file(tmp_path):
    base, first, second = family(7, "float32", 2)
    frozen = {"b": base["b"], "a": base["a"]}
    models = [first | frozen, second | frozen | {"v": base["v"]}]
    path = tmp_path / "tasks.safetensors"
    told = archives.compress(base, models, path, names=NAMES[:2])
    with open_archive(path) as archive:
        assert not {"a", "b"} & set(archive.values)
        assert (0, "v") in archive.masks and (1, "v") not in archive.masks
        assert not archive.bits(1, "v").any()
    same_bits(
        rebuilt(path, "dogs", base), breadcrumbs.merge(base, models, method="tall_mask", task=2)
    )
    floats = [a.size for a in base.values() if is_weight(a)]
    assert told.frozen == 13 * 9 + 4 * 50 and told.trained == sum(floats) - told.frozen


@METHODS
def test_heads_integers_and_what_the_base_lacks_are_stored_whole(method, tmp_path):
    base, *models = family(8, "float32", 2)
    base["head"] = np.zeros((2, 4), np.float32)
    for number, model in enumerate(models):
        model["head"] = np.full((3 + number, 4), number, np.float32)
        model["steps"] = np.arange(3) + number  # the first has the base's
    models[0]["only.mine"] = np.ones(5, np.float16)
    path = tmp_path / "tasks.safetensors"
    archives.compress(base, models, path, names=NAMES[:2], method=method, whole="head")
    for model, task in zip(models, NAMES, strict=False):
        found = rebuilt(path, task, base)
        assert set(found) == set(model)
        for name in ("head", "steps", "only.mine"):
            if name in model:
                assert found[name].dtype == model[name].dtype
                assert found[name].tobytes() == model[name].tobytes()
    with open_archive(path) as archive:
        assert {key for key in archive.wholes if key[1] == "steps"} == {(1, "steps")}


def test_a_tied_tensor_that_a_model_stores_twice_is_not_stored_whole(tmp_path):
    base, model = family(9, "float32", 1)
    path = tmp_path / "tasks.safetensors"
    archives.compress(base, [model | {"b.tied": model["b"]}], path, names=["cats"])
    with open_archive(path) as archive:
        assert not archive.wholes
    same_bits(rebuilt(path, "cats", base), model)


# --- numbers ---


def test_bits_by_the_papers_accounting_are_the_papers():
    """Twenty tasks of ViT-B/32 in float32: 57.0 gigabits, and 8.2 with masks."""
    width, layers = 768, 12
    attention = 4 * (width * width + width)
    layer = attention + 8 * width * width + 5 * width + 4 * width  # two linear layers, two norms
    embeddings = 3 * 32 * 32 * width + width + 50 * width
    trained = embeddings + layers * layer + 4 * width + width * 512
    frozen = 49408 * 512 + 77 * 512 + 2 * 512 + 512 * 512 + 1  # the text tower's without its layers
    assert round(accounting.of_models(20, trained, frozen) / 1e9, 1) == 57.0
    assert round(accounting.of_masks(20, trained, frozen) / 1e9, 1) == 8.2
    both = accounting.of_models(20, 3, 5), accounting.of_masks(20, 3, 5)
    assert both == reference.compressed_bits(20, 3, 5)


def test_real_bytes_are_those_of_the_accounting(tmp_path):
    rng = np.random.default_rng(3)
    base = {"w": rng.standard_normal((200, 500)).astype(np.float32)}
    models = [{"w": base["w"] + rng.standard_normal((200, 500)).astype(np.float32)}] * 10
    path = tmp_path / "tasks.safetensors"
    told = archives.compress(base, models, path)
    assert told.bytes == path.stat().st_size
    bits = accounting.of_masks(10, told.trained, told.frozen) - 32 * 100_000  # without the base
    assert told.bytes * 8 == pytest.approx(bits, abs=4000 * 8)
    assert told.bits == {"models": 32 * 1_000_000, "masks": bits + 32 * 100_000}


@KINDS
@ON
def test_statistics_are_counted_by_loops(kind, on, tmp_path):
    base, *models = family(10, "float32", 3, kind)
    path = tmp_path / "tasks.safetensors"
    told = archives.compress(base, models, path, names=NAMES, on=on)
    held = reference.tall_masks(base, models, on=on)
    for name, found in told.votes.items():
        wanted = [0, 0, 0, 0]
        for entry in range(base[name].size):
            if any(m[name].reshape(-1)[entry] != base[name].reshape(-1)[entry] for m in models):
                wanted[sum(int(h[name].reshape(-1)[entry]) for h in held)] += 1
        assert list(found) == wanted
    with open_archive(path) as archive:
        assert archive.votes() == told.votes
    shares = {key: votes.shares(value) for key, value in votes.by_layer(told.votes).items()}
    expected = reference.consensus_statistics(base, models, on=on)
    assert {key: shares["all"][key] for key in expected} == pytest.approx(expected)
    assert list(shares) == ["all", "layer 0", "layer 3", "layer 10", "outside layers"]
    for mine in shares.values():
        assert sum(mine.values()) == pytest.approx(1)


def test_kinds_of_weights_by_hand():
    assert votes.shares([1, 2, 3, 4]) == {
        "catastrophic": 0.1, "selfish": 0.2, "general": 0.3, "universal": 0.4,
    }  # fmt: skip
    alone = {"catastrophic": 0.25, "selfish": 0.75, "general": 0, "universal": 0}
    assert votes.shares([1, 3]) == alone
    assert set(votes.shares([0, 0, 0]).values()) == {0}


def test_no_tensor_is_held_whole(tmp_path, monkeypatch):
    """Masks are written piece by piece: no piece is larger than a chunk."""
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal(100_000).astype(np.float32)}
    models = [{"w": base["w"] + 1}, {"w": base["w"] - 2}]
    sizes = []
    count = writing.count_votes
    monkeypatch.setattr(
        writing, "count_votes", lambda taus, masks: sizes.append(taus.shape) or count(taus, masks)
    )
    archives.compress(base, models, tmp_path / "tasks.safetensors")
    assert max(sizes) == (2, USUAL.chunk) and sum(size for _, size in sizes) == 100_000


# --- what is refused ---


def test_what_cannot_be_compressed_is_refused(tmp_path):
    base, *models = family(5, "float32", 2)
    path = tmp_path / "tasks.safetensors"
    compress = archives.compress
    with pytest.raises(OutputError, match=r"Give NAME\.safetensors"):
        compress(base, models, tmp_path / "folder")
    with pytest.raises(RecipeError, match=r"scale: 3 values are given for 2 models"):
        compress(base, models, path, scale=[0.1, 0.2, 0.3])
    with pytest.raises(RecipeError, match=r"no such way to compress\. Did you mean 'tall'"):
        compress(base, models, path, method="tal")
    with pytest.raises(RecipeError, match=r"unknown parameter 'scal'\. Did you mean 'scale'"):
        compress(base, models, path, scal=0.1)
    with pytest.raises(RecipeError, match=r"--method emr: unknown parameter 'scale'.*has none"):
        compress(base, models, path, method="emr", scale=0.1)
    with pytest.raises(RecipeError, match="no models are given"):
        compress(base, [], path)
    broken = [models[0], models[1] | {"b": np.full_like(base["b"], np.nan)}]
    for method in ("tall", "emr", "tsv"):
        with pytest.raises(MismatchError, match="'b'"):
            compress(base, broken, path, method=method)
    assert not list(tmp_path.iterdir())
    compress(base, models, path, names=NAMES[:2])
    with pytest.raises(OutputError, match="exists"):
        compress(base, models, path)
    compress(base, models, path, names=NAMES[1:], force=True)
    with pytest.raises(CheckpointError, match=r"has no task 'bird'\. Did you mean 'birds'"):
        archives.model(path, "bird", base)
    (file,) = saved(tmp_path, [base])
    with pytest.raises(RecipeError, match="is one of the models"):
        compress(file, models, file, force=True)


@METHODS
def test_another_base_is_refused(method, tmp_path):
    base, *models = family(5, "float32", 2)
    (file,) = saved(tmp_path, [base])
    path = tmp_path / "tasks.safetensors"
    archives.compress(file, models, path, names=NAMES[:2], method=method)
    needed = rf"Give the base that it was made with, '\./{Path(file).name}'\."
    other = base | {"b": base["b"] + 1}
    with pytest.raises(MismatchError, match=rf"base: is not the base of .*{needed}"):
        archives.model(path, "cats", other)
    with pytest.raises(MismatchError, match=rf"'b': .* shape \(13, 9\), but here is .*{needed}"):
        archives.model(path, "cats", dict(base, b=base["b"][1:]))
    with pytest.raises(MismatchError, match=r"but here is no such tensor"):
        archives.model(path, "cats", {"w": base["b"]})
    Path(file).unlink()
    with pytest.raises(CheckpointError, match=r"its base is not where it was: .* Give --base BASE"):
        archives.model(path, "cats")


def test_the_worked_example_of_the_page(tmp_path):
    base = {"w": np.zeros(3, np.float32)}
    models = [{"w": np.array(values, np.float32)} for values in ([1, 0, 2], [0, 0, -1])]
    path = tmp_path / "tasks.safetensors"
    archives.compress(base, models, path)
    with open_archive(path) as archive:
        assert (
            archive.values["w"].read().tobytes().hex(" ") == "00 00 80 3f 00 00 00 00 00 00 80 3f"
        )
        assert archive.bits(0, "w").tobytes().hex() == "a0"
        assert archive.bits(1, "w").tobytes().hex() == "20"
        assert archive.votes() == {"w": [0, 1, 1]}


def test_task_files_are_compressed_like_models(tmp_path):
    from breadcrumbs.tasks import pack

    base, *models = family(11, "float32", 2)
    files = [str(tmp_path / f"{name}.safetensors") for name in NAMES[:2]]
    for model, file in zip(models, files, strict=True):
        pack(base, model, file, transform="none")
    paths = [tmp_path / "of-files.safetensors", tmp_path / "of-models.safetensors"]
    for given, path in zip((files, models), paths, strict=True):
        archives.compress(base, given, path, names=NAMES[:2])
    assert paths[0].read_bytes() == paths[1].read_bytes()
