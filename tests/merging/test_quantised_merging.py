"""Merges of quantised models: to bfloat16, of mixed families, and to block FP8 again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from click.testing import CliRunner
from quantised_files import (
    E2M1,
    E4M3,
    Raw,
    bf16,
    blocked,
    codes,
    folder,
    fp8,
    normal,
    quantised,
    raw,
    save,
    widened,
)

import breadcrumbs
from breadcrumbs.checkpoint.quantised.blocks import nearest
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.cli import group, inspection
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.errors import BreadcrumbsError, OutputError
from breadcrumbs.merging import api, opening, quantising
from breadcrumbs.merging import files as merging_files
from breadcrumbs.plan import USUAL, Sizes
from breadcrumbs.plan.recipe import Model, Recipe

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
SHAPES = {"a.weight": (256, 128), "b.weight": (130, 300), "c.weight": (5, 7)}
NAMES = ("base", "one", "two")
Family = tuple[dict[str, Path], dict[str, Path]]


def scaled(scale: np.ndarray, kind: str) -> Any:
    """Return scales in another dtype, no smaller than they are."""
    if kind == "float32":
        return scale
    if kind == "bfloat16":
        return bf16(scale * 1.01)
    return Raw((np.ceil(np.log2(scale)) + 127).astype(np.uint8), "F8_E8M0")


def value_of(scale: Any) -> np.ndarray:
    return widened(scale) if isinstance(scale, Raw) else scale


def family(root: Path, kind: str = "float32", step: float = 0.01) -> Family:
    """Write three models of block FP8, and what they stand for as float32."""
    packed, plain = {}, {}
    for i, name in enumerate(NAMES):
        tensors: dict[str, Any] = {"norm.weight": bf16(np.ones(8) + i / 8), "ids": np.arange(3)}
        wide: dict[str, Any] = dict(tensors)
        for j, (key, shape) in enumerate(SHAPES.items()):
            values = normal(j, *shape) + (normal(10 * i + j, *shape, scale=step) if i else 0)
            _, scale = quantised(values)
            kept = scaled(scale, kind)
            code = np.zeros(shape, np.uint8)
            for m, n in np.ndindex(scale.shape):
                part = slice(128 * m, 128 * m + 128), slice(128 * n, 128 * n + 128)
                code[part] = fp8(np.clip(values[part] / value_of(kept)[m, n], -448, 448)).bits
            if i:
                code[0, 1], code[2, 2] = 0x80, 0  # a zero of each sign, which the base has not
            if j == 0:
                code[128:] = 0  # a block of zeros
            tensors |= {key: Raw(code, "F8_E4M3"), key + "_scale_inv": kept}
            wide[key] = blocked(code, value_of(kept), (128, 128))
        packed[name] = folder(root / "fp8" / name, tensors, FP8, torch_dtype="bfloat16")
        plain[name] = folder(root / "wide" / name, wide, torch_dtype="bfloat16")
        (packed[name] / "hf_quant_config.json").write_text("{}")
    return packed, plain


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"))


def merge(
    sources: list[Path],
    output: Path,
    method: str = "task_arithmetic",
    sizes: Sizes = USUAL,
    **given: Any,
) -> api.Report:
    parameters = given.pop("parameters", {"alpha": 0.5} if method == "task_arithmetic" else {})
    options = {k: given.pop(k) for k in list(given) if k not in Recipe.__dataclass_fields__}
    base, *others = map(str, sources)
    made = Recipe(base, tuple(map(Model, others)), method, parameters, **given)
    with opening.opened(made, sizes=sizes) as plan:
        return merging_files.to_files(plan, output, **options)


def picked(models: dict[str, Path], *names: str) -> list[Path]:
    return [models[name] for name in names or NAMES]


# --- to bfloat16 ---


@pytest.mark.parametrize(
    "method", ["task_arithmetic", "breadcrumbs", "ties", "dare_linear", "tsv_m"]
)
def test_as_if_dequantised_before(method: str, models: Family, tmp_path: Path) -> None:
    packed, plain = models
    merge(picked(packed), tmp_path / "a", method)
    merge(picked(plain), tmp_path / "b", method, dtype="bfloat16")
    found, expected = raw(tmp_path / "a"), raw(tmp_path / "b")
    assert found == expected and {found[key][0] for key in SHAPES} == {"BF16"}
    assert found["norm.weight"][0] == "BF16" and found["ids"][0] == "I64"


def test_the_values_are_those_of_the_definition(models: Family, tmp_path: Path) -> None:
    packed, plain = models
    report = merge(picked(packed), tmp_path / "out")
    values = [raw(plain[name]) for name in NAMES]
    for key, shape in SHAPES.items():
        base, one, two = (np.frombuffer(v[key][2], np.float32).astype(np.float64) for v in values)
        expected = bf16((base + 0.5 * (one + two - 2 * base)).astype(np.float32))
        dtype, found_shape, data = raw(tmp_path / "out")[key]
        found = widened(Raw(np.frombuffer(data, np.uint16), "BF16"))
        assert (dtype, found_shape) == ("BF16", shape) and np.array_equal(found, widened(expected))
    assert report.lost is None
    assert (
        report.bytes_read
        == 3
        * sum(
            int(np.prod(x[1])) * {"F8_E4M3": 1, "F32": 4, "BF16": 2, "I64": 8}[x[0]]
            for key, x in raw(packed["base"]).items()
            if key != "ids"
        )
        + 24
    )


def test_what_lies_beside(models: Family, tmp_path: Path) -> None:
    packed, _ = models
    merge(picked(packed), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"model_type": "llama", "torch_dtype": "bfloat16"}
    assert not (tmp_path / "out" / "hf_quant_config.json").exists()
    said = inspection.inspect(str(tmp_path / "out"))
    files = said["merged_from"]["inputs"][0]["files"]
    weights = packed["base"] / "model.safetensors"
    assert files[0]["blake3"] == blake3(weights.read_bytes()).hexdigest()
    assert said["quantised"] is None


def test_nested_configs_lose_it_too(tmp_path: Path) -> None:
    code, scale = quantised(normal(0, 8, 8))
    tensors = {"w.weight": code, "w.weight_scale_inv": scale}
    nested = {"text_config": {"quantization_config": FP8, "n": 1}, "compression_config": FP8}
    base = folder(tmp_path / "base", tensors, **nested)
    merge([base], tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"model_type": "llama", "text_config": {"n": 1}}


def test_other_dtypes(models: Family, tmp_path: Path) -> None:
    packed, plain = models
    merge(picked(packed), tmp_path / "a", dtype="float32")
    merge(picked(plain), tmp_path / "b", dtype="float32")
    assert raw(tmp_path / "a") == raw(tmp_path / "b")


def test_mixed_families(models: Family, tmp_path: Path) -> None:
    packed, plain = models
    narrow = {}
    for name in NAMES:
        tensors = {
            key: bf16(np.frombuffer(x[2], np.float32).reshape(x[1]))
            if x[0] == "F32"
            else Raw(np.frombuffer(x[2], {"BF16": np.uint16, "I64": np.int64}[x[0]]), x[0], x[1])
            for key, x in raw(plain[name]).items()
        }
        narrow[name] = folder(tmp_path / "narrow" / name, tensors)
    mixed = [packed["base"], narrow["one"], packed["two"]]
    merge(mixed, tmp_path / "a")
    merge([plain["base"], narrow["one"], plain["two"]], tmp_path / "b", dtype="bfloat16")
    assert raw(tmp_path / "a") == raw(tmp_path / "b")
    merge([narrow["base"], packed["one"], packed["two"]], tmp_path / "c")
    merge([narrow["base"], plain["one"], plain["two"]], tmp_path / "d")
    assert raw(tmp_path / "c") == raw(tmp_path / "d")
    assert "quant" not in (tmp_path / "c" / "config.json").read_text()
    merge(picked(packed, "base", "one"), tmp_path / "e", onto=str(packed["two"]))
    merge(picked(plain, "base", "one"), tmp_path / "f", onto=str(plain["two"]), dtype="bfloat16")
    assert raw(tmp_path / "e") == raw(tmp_path / "f")


def test_gpt_oss_and_its_fine_tunings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (2, 6, 2, 16)).astype(np.uint8)
    scales = rng.integers(118, 122, (2, 6, 2)).astype(np.uint8)
    values = E2M1[np.stack([blocks & 15, blocks >> 4], -1).reshape(2, 6, 2, 32)]
    values = values * np.ldexp(1.0, scales.astype(int) - 127)[..., None]
    base = values.reshape(2, 6, 64).transpose(0, 2, 1).astype(np.float32)
    name, tuned = "mlp.experts.down_proj", bf16(base + normal(1, 2, 64, 6))
    said = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    root = folder(tmp_path / "b", {name + "_blocks": blocks, name + "_scales": scales}, said)
    merge([root, folder(tmp_path / "t", {name: tuned})], tmp_path / "out")
    step = widened(tuned).astype(np.float64) - base
    expected = bf16((base + 0.5 * step).astype(np.float32))
    assert raw(tmp_path / "out") == {name: ("BF16", (2, 64, 6), expected.bits.tobytes())}
    with pytest.raises(BreadcrumbsError, match=r"dtype same writes FP8 in blocks with .* is MXFP4"):
        merge([root], tmp_path / "same", dtype="same")


def test_in_memory(models: Family) -> None:
    packed, _ = models
    torch = pytest.importorskip("torch")
    own = {"w": torch.zeros(6, 8), "x.weight": torch.ones(6, 8).to(torch.float8_e4m3fn)}
    own["x.weight_scale_inv"] = torch.full((1, 1), 0.5)
    moved = {"w": torch.ones(6, 8), "x.weight": torch.ones(6, 8)}
    found = breadcrumbs.merge(own, [moved], method="task_arithmetic", alpha=1)
    assert sorted(found) == ["w", "x.weight"] and found["x.weight"].dtype == torch.bfloat16
    assert (found["x.weight"] == 1).all() and (found["w"] == 1).all()
    with pytest.raises(BreadcrumbsError, match=r"dtype same: .* Give an output"):
        breadcrumbs.merge(own, [moved], dtype="same")
    sources = picked(packed)
    both = breadcrumbs.merge(sources[0], sources[1:], method="task_arithmetic", alpha=0.5)
    assert both["a.weight"].dtype.name == "bfloat16"


def test_what_people_see(models: Family, tmp_path: Path) -> None:
    packed, _ = models
    run = CliRunner().invoke
    sources = [str(packed[name]) for name in NAMES]
    shown = run(group.main, ["merge", *sources, "--dry-run"]).output
    assert "3 quantised (FP8, blocks of 128 x 128)" in " ".join(shown.split())
    shown = run(group.main, ["inspect", sources[0], "--tensors"]).output
    assert "3 quantised (FP8, blocks of 128 x 128), read as F32" in shown
    assert run(group.main, ["compare", *sources, "--json"]).exit_code == 0
    same = [
        "-m",
        "task_arithmetic",
        "-p",
        "alpha=0.5",
        "--dtype",
        "same",
        "-o",
        str(tmp_path / "o"),
    ]
    shown = run(group.main, ["merge", *sources, *same]).output
    assert "lost to FP8: " in shown and "% of the step" in shown
    assert "Lost to FP8" in (tmp_path / "o" / "README.md").read_text()


# --- to FP8 again ---


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "powers of two"])
def test_one_model_comes_back_byte_for_byte(kind: str, tmp_path: Path) -> None:
    packed, _ = family(tmp_path, kind)
    for names in (("base", "one"), ("base", "two"), ("base",)):
        output = tmp_path / "-".join(names)
        report = merge(picked(packed, *names), output, parameters={"alpha": 1.0}, dtype="same")
        found, expected = raw(output), raw(packed[names[-1]])
        assert {key: found[key] for key in expected if key != "ids"} == {
            key: x for key, x in expected.items() if key != "ids"
        }
        assert list(found) == list(expected) and report.lost == 0
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    assert config["quantization_config"] == FP8 and config["torch_dtype"] == "bfloat16"
    assert (tmp_path / "base" / "hf_quant_config.json").exists()


def test_odd_scales_come_back(tmp_path: Path) -> None:
    """A scale of 0 of a block of zeros, and one below 0."""
    paths = []
    for i, name in enumerate("bm"):
        code = codes(i, 256, 140)
        code[:128, :128] = 0x80 * i
        scale = np.array([[0.0, -0.5 - i], [2.0**-140, 3.0]], np.float32)
        tensors = {"w.weight": Raw(code, "F8_E4M3"), "w.weight_scale_inv": scale}
        paths.append(folder(tmp_path / name, tensors, FP8))
    merge(paths, tmp_path / "out", parameters={"alpha": 1.0}, dtype="same")
    assert raw(tmp_path / "out") == raw(paths[1])


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "powers of two"])
def test_merged_and_then_quantised(kind: str, tmp_path: Path) -> None:
    packed, plain = family(tmp_path, kind, step=0.05)
    report = merge(picked(packed), tmp_path / "out", dtype="same", verify=True)
    merge(picked(plain), tmp_path / "float32", dtype="float32")
    found, wide, lost = raw(tmp_path / "out"), raw(tmp_path / "float32"), 0.0
    for key, shape in SHAPES.items():
        value = np.frombuffer(wide[key][2], np.float32).reshape(shape)
        code = np.frombuffer(found[key][2], np.uint8).reshape(shape)
        dtype, grid, data = found[key + "_scale_inv"]
        kinds = {"F32": np.float32, "BF16": np.uint16, "F8_E8M0": np.uint8}
        held = np.frombuffer(data, kinds[dtype]).reshape(grid)
        scale = held if dtype == "F32" else widened(Raw(held, dtype))
        for i, j in np.ndindex(grid):
            part = slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128)
            top = np.abs(value[part]).max()
            if not top:
                continue
            exact = top / 448
            wanted = {
                "F32": np.float32(exact),
                "BF16": widened(bf16(np.float32(exact))),
                "F8_E8M0": np.float32(2.0 ** np.ceil(np.log2(exact))),
            }[dtype]
            assert scale[i, j] == wanted
            size = np.abs(value[part].astype(np.float64) / np.float64(wanted).reshape(()))
            nearest = np.abs(E4M3[:127].astype(np.float64) - size[..., None]).min(-1)
            mine = np.abs(np.abs(E4M3[code[part]].astype(np.float64)) - size)
            assert np.array_equal(mine, nearest)
            assert (np.signbit(E4M3[code[part]]) == np.signbit(value[part])).all()
        back = blocked(code, scale, (128, 128)).astype(np.float64)
        lost += np.square(back - value).sum()
    assert report.lost == pytest.approx(np.sqrt(lost) / report.norm, rel=1e-3)
    assert report.lost > 0.01


def test_a_scale_that_will_do_is_kept(tmp_path: Path) -> None:
    """Twice a model's codes are codes under its scale, though no model has them."""
    code = np.tile(np.arange(0x30, 0x38, dtype=np.uint8), (128, 16))
    scale = np.array([[0.75]], np.float32)
    base = {"w.weight": Raw(np.zeros_like(code), "F8_E4M3"), "w.weight_scale_inv": scale / 3}
    model = {"w.weight": Raw(code, "F8_E4M3"), "w.weight_scale_inv": scale}
    paths = [folder(tmp_path / "b", base, FP8), folder(tmp_path / "m", model, FP8)]
    merge(paths, tmp_path / "out", parameters={"alpha": 2.0}, dtype="same")
    found = raw(tmp_path / "out")
    assert found["w.weight_scale_inv"][2] == scale.tobytes()
    assert found["w.weight"][2] == (code + 8).tobytes()  # an exponent more


def test_nothing_depends_on_threads_or_files(models: Family, tmp_path: Path) -> None:
    packed, _ = models
    for name, options in {
        "a": {"threads": 1},
        "b": {"threads": 4, "shard_size": 20_000, "verify": True},
        "c": {"threads": 3, "kernel": "numpy"},
    }.items():
        merge(picked(packed), tmp_path / name, "breadcrumbs", dtype="same", **options)
    assert raw(tmp_path / "a") == raw(tmp_path / "b") == raw(tmp_path / "c")
    given = {"dtype": "same", "threads": 6, "sizes": Sizes(chunk=300, arena=300 * 4 * 8)}
    for i in range(3):
        merge(picked(packed), tmp_path / f"d{i}", "breadcrumbs", **given)
        assert raw(tmp_path / f"d{i}") == raw(tmp_path / "a")
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 2
    assert not list((tmp_path / "b").glob(".*"))


@pytest.mark.parametrize("granularity", ["tensor", "model"])
def test_elections(granularity: str, models: Family, tmp_path: Path) -> None:
    """With granularity model some segments are written twice."""
    packed, plain = models
    options = {"parameters": {"granularity": granularity, "density": 0.5}}
    merge(picked(packed), tmp_path / "same", "ties", dtype="same", **options)
    merge(picked(plain), tmp_path / "wide", "ties", dtype="float32", **options)
    found = breadcrumbs.open(tmp_path / "same")
    wide = breadcrumbs.open(tmp_path / "wide")
    for key in SHAPES:
        value = wide[key]
        rest = np.abs(found[key].astype(np.float64) - value)
        assert (rest <= np.abs(value) / 16 + np.abs(value).max() / 448 / 512 + 1e-12).all()


def test_elections_that_are_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tensor elects otherwise than most: its segments are written twice."""
    small = Sizes(chunk=64, arena=1024)
    mended, mend = [], Ballot.mend
    monkeypatch.setattr(Ballot, "mend", lambda *a: mended.append(mend(*a)) or mended[-1])
    rng, parts = np.random.default_rng(1), ({}, {}, {})
    for name, size, likely in (("a.weight", 500, -1), ("b.weight", 900, 1), ("c.weight", 600, 1)):
        base = rng.integers(-8, 9, size)
        first = rng.integers(0, 3, size) * likely
        second = np.where(rng.random(size) < 0.4, -first, rng.integers(0, 3, size) * likely)
        for part, value in zip(parts, (base, base + first, base + second), strict=True):
            part[name] = fp8(value.reshape(-1, 10))  # whole numbers up to 16 are codes
            part[name + "_scale_inv"] = np.full((-(-size // 1280), 1), 0.25, np.float32)
    paths = [folder(tmp_path / str(i), part, FP8) for i, part in enumerate(parts)]
    for threads in (1, 3):
        mended.clear()
        given = {"parameters": {"density": 0.9, "merge": "sum"}, "threads": threads, "verify": True}
        given["sizes"] = small
        merge(paths, tmp_path / f"same-{threads}", "ties", dtype="same", **given)
        assert sum(one is not None for one in mended) >= 2
        merge(paths, tmp_path / f"wide-{threads}", "ties", dtype="float32", **given)
        found, wide = (breadcrumbs.open(tmp_path / f"{x}-{threads}") for x in ("same", "wide"))
        assert all(np.array_equal(found[name], wide[name]) for name in wide)
        assert len(wide) == 3


def test_room_is_used_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "x", [], {}, shard_size=None, key="", force=False, resume=False)
    room = quantising._Room(writer)
    a, b, c = room.take(40), room.take(80), room.take(40)
    assert (a, b, c) == (0, 40, 120)
    for i, at in enumerate((a, b, c)):
        room.write(at, np.full(10, i, np.float32))
    room.give(b, 80)
    assert room.take(60) == 40 and room.take(40) == 160  # the 20 that are left are too few
    room.give(40, 60)
    room.give(a, 40)
    assert room.take(120) == 0  # beside each other
    assert (room.read(c, 10) == 2).all()
    room.close()
    writer.abandon()


def test_cut_off_between_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of which some segments are noted, and others not, is done again."""
    given = {"dtype": "same", "threads": 1, "sizes": Sizes(chunk=256, arena=256 * 4 * 6)}
    tensors: dict[str, dict[str, Any]] = {"b": {}, "m": {}}
    for j, key in enumerate(("u.weight", "v.weight")):
        for i, mine in enumerate(tensors.values()):
            mine[key], mine[key + "_scale_inv"] = quantised(normal(i + 2 * j, 140, 20))
            mine[key.replace("weight", "bias")] = normal(i, 20)
    paths = [folder(tmp_path / name, mine, FP8) for name, mine in tensors.items()]
    merge(paths, tmp_path / "whole", **given)
    real, count = Writer.finished, {"notes": 0, "cut": -1}

    def finished(self: Writer, *given: Any) -> None:
        if count["notes"] == count["cut"]:
            raise OutputError("the plug is pulled")
        count["notes"] += 1
        real(self, *given)

    monkeypatch.setattr(Writer, "finished", finished)
    merge(paths, tmp_path / "again", **given)
    every = count["notes"]
    assert every > 8
    for cut in range(1, every):
        count.update(notes=0, cut=cut)
        with pytest.raises(OutputError, match="plug"):
            merge(paths, tmp_path / f"cut-{cut}", **given)
        count["cut"] = -1
        merge(paths, tmp_path / f"cut-{cut}", **given, resume=True, verify=True)
        assert raw(tmp_path / f"cut-{cut}") == raw(tmp_path / "whole")


def test_ties_go_to_even_codes() -> None:
    values = E4M3[:127].astype(np.float64)
    middle = ((values[1:] + values[:-1]) / 2).astype(np.float32).reshape(1, -1)
    even = np.arange(126) + np.arange(126) % 2
    one = np.ones(1, np.float32)
    assert nearest(middle, one).tolist() == [even.tolist()]
    assert nearest(-middle, one).tolist() == [(even + 128).tolist()]
    above = np.nextafter(middle, np.float32(1000))
    assert nearest(above, one).tolist() == [list(range(1, 127))]
    assert nearest(np.nextafter(middle, np.float32(0)), one).tolist() == [list(range(126))]
    odd = np.array([[np.nan, np.inf, -np.inf, 1e9, 0.0, -0.0]], np.float32)
    assert nearest(odd, one).tolist() == [[0x7F, 126, 254, 126, 0, 128]]


def test_a_merge_that_was_cut_off_goes_on(
    models: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, _ = models
    whole = merge(picked(packed), tmp_path / "whole", dtype="same", threads=1)
    real, calls = quantising.requantised, []

    def counted(*given: Any) -> Any:
        calls.append(given[0].shape)
        return real(*given)

    monkeypatch.setattr(quantising, "requantised", counted)
    merge(picked(packed), tmp_path / "whole2", dtype="same", threads=1)
    every = len(calls)
    for cut in range(every):
        calls.clear()

        def failing(*given: Any, cut: int = cut) -> Any:
            if len(calls) == cut:
                raise OutputError("the plug is pulled")
            return counted(*given)

        output = tmp_path / f"cut-{cut}"
        monkeypatch.setattr(quantising, "requantised", failing)
        with pytest.raises(OutputError, match="plug"):
            merge(picked(packed), output, dtype="same", threads=1)
        monkeypatch.setattr(quantising, "requantised", counted)
        calls.clear()
        report = merge(picked(packed), output, dtype="same", threads=1, resume=True)
        assert raw(output) == raw(tmp_path / "whole")
        assert report.lost == pytest.approx(whole.lost) and report.norm == whole.norm
        assert len(calls) <= every - (cut >= 2) and not list(output.glob(".*"))
    assert every == 2 + 2 + 1


def test_companions_are_written_again(tmp_path: Path) -> None:
    code, scale = quantised(normal(0, 140, 16))
    tensors = {
        "q.weight": code, "q.weight_scale_inv": scale, "q.activation_scale": np.float32(0.5),
        "attn.k_scale": bf16(np.float32(2)), "n.weight": np.ones(4, np.float16),
    }  # fmt: skip
    base = folder(tmp_path / "base", tensors, {**FP8, "activation_scheme": "static"})
    merge([base], tmp_path / "out", dtype="same")
    assert raw(tmp_path / "out") == raw(base)
    merge([base], tmp_path / "wide")
    assert set(raw(tmp_path / "wide")) == {"q.weight", "n.weight"}


@pytest.mark.parametrize("which", ["a scale a tensor", "a stack"])
def test_what_is_not_written_again(which: str, tmp_path: Path) -> None:
    code, scale = quantised(normal(0, 8, 8))
    scale = np.float32(1) if which == "a scale a tensor" else scale
    tensors = {"layers.0.w.weight": code, "layers.0.w.weight_scale_inv": scale}
    base = str(folder(tmp_path / "base", tensors, FP8))
    base = f"{base}[0:1] + {base}[0:1]" if which == "a stack" else base
    with pytest.raises(BreadcrumbsError, match="dtype same"):
        merge([Path(base)], tmp_path / "out", dtype="same")
    merge([Path(base)], tmp_path / "wide")
    assert {x[0] for x in raw(tmp_path / "wide").values()} == {"BF16"}


def test_tied_copies(tmp_path: Path) -> None:
    paths = []
    for i, name in enumerate("bm"):
        code, scale = quantised(normal(i, 20, 8))
        tensors = {"embed_tokens.weight": code, "embed_tokens.weight_scale_inv": scale}
        tensors |= {"lm_head.weight": code, "lm_head.weight_scale_inv": scale}
        paths.append(folder(tmp_path / name, tensors, FP8))
    with pytest.raises(BreadcrumbsError, match="dtype same does not write tied copies"):
        merge(paths, tmp_path / "same", dtype="same")
    merge(paths, tmp_path / "wide")
    found = raw(tmp_path / "wide")
    assert found["embed_tokens.weight"] == found["lm_head.weight"]
    assert found["lm_head.weight"][0] == "BF16"


def test_names_with_a_prefix(models: Family, tmp_path: Path) -> None:
    """The map of names works on what codes stand for."""
    packed, _ = models
    tensors = {
        "module." + key: Raw(np.frombuffer(x[2], np.uint8), x[0], x[1])
        for key, x in raw(packed["one"]).items()
    }
    other = folder(tmp_path / "other", tensors, FP8)
    for dtype in (None, "same"):
        merge([packed["base"], other], tmp_path / f"a-{dtype}", dtype=dtype)
        merge(picked(packed, "base", "one"), tmp_path / f"b-{dtype}", dtype=dtype)
        assert raw(tmp_path / f"a-{dtype}") == raw(tmp_path / f"b-{dtype}")
    onto = {"dtype": "same", "onto": str(other), "parameters": {"alpha": 0.0}}
    merge(picked(packed, "base", "two"), tmp_path / "onto", **onto)
    assert raw(tmp_path / "onto") == raw(other)


def test_same_of_what_is_not_quantised(models: Family, tmp_path: Path) -> None:
    _, plain = models
    merge(picked(plain), tmp_path / "a", dtype="same")
    merge(picked(plain), tmp_path / "b")
    assert raw(tmp_path / "a") == raw(tmp_path / "b")


def test_what_is_no_number(tmp_path: Path) -> None:
    code = codes(0, 128, 16)
    code[0, 0] = 0x7F
    scale = np.array([[0.5]], np.float32)
    tensors = {"w.weight": Raw(code, "F8_E4M3"), "w.weight_scale_inv": scale}
    base = folder(tmp_path / "b", tensors, FP8)
    other = codes(1, 128, 16)
    model = folder(tmp_path / "m", tensors | {"w.weight": Raw(other, "F8_E4M3")}, FP8)
    with pytest.raises(BreadcrumbsError, match="has nan at entry 0"):
        merge([base, model], tmp_path / "no")
    merge([base, model], tmp_path / "out", dtype="same", allow_nonfinite=True)
    found = breadcrumbs.open(tmp_path / "out")["w.weight"]
    assert np.isnan(found[0, 0]) and np.isfinite(found).sum() == found.size - 1


# --- entries of less than a byte ---


@pytest.mark.parametrize(
    "dtype, shape, nbytes",
    [("F4", (2, 3, 6), 18), ("F4", (3, 2), 3), ("F4", (5, 262_144), 655_360), ("F4", (0, 3), 0),
     ("F6_E2M3", (4, 7), 21), ("F6_E3M2", (8, 65_537), 393_222), ("F8_E8M0", (5, 3), 15)],
)  # fmt: skip
def test_they_are_copied(dtype: str, shape: tuple[int, ...], nbytes: int, tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 256, nbytes).astype(np.uint8)
    tensors = {"codes": Raw(bits, dtype, shape), "w": normal(0, 3, 3), "after": np.arange(3)}
    base = save(tmp_path / "b.safetensors", tensors)
    model = save(tmp_path / "m.safetensors", tensors | {"w": normal(1, 3, 3)})
    report = merge([base, model], tmp_path / "out", verify=True)
    assert sum(report.copied.values()) == 2
    for name in ("codes", "after"):
        assert raw(tmp_path / "out")[name] == raw(base)[name]
    arrays = breadcrumbs.merge(base, [model], method="task_arithmetic")
    assert arrays["codes"].tobytes() == bits.tobytes()
    inspection.inspect(str(base), with_hash=True)
    if nbytes:
        pytest.importorskip("safetensors")
        import safetensors

        with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as theirs:
            assert list(theirs.get_slice("codes").get_shape()) == list(shape)
            assert theirs.get_slice("codes").get_dtype() == dtype
