"""Grams in a store: what wudi makes of them, after any changes, and that no task leaves a bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from families import assert_same
from safetensors.numpy import save_file
from stores import merged

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.cli.group import main
from breadcrumbs.errors import StoreError
from breadcrumbs.merging import reproducing
from breadcrumbs.methods.published import wudi
from breadcrumbs.store import Store, grams, info, opted
from breadcrumbs.store.grammed import Grammed

SHAPES = {
    "l.up.weight": (24, 10), "l.down.weight": (10, 40), "l.bias": (10,),
    "embed_tokens.weight": (30, 10), "mlp.experts.w": (3, 4, 6), "still.weight": (5, 5),
}  # fmt: skip


def models(folder: Path, dtype: Any = np.float64, number: int = 4) -> list[str]:
    """Write a base and fine-tunings, all of which leave one matrix as it is; return their paths.

    The second one hardly moves some inputs, so that terms are of very different sizes.
    """
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    paths = [str(folder / f"{number}.safetensors") for number in range(number + 1)]
    save_file(base, paths[0])
    for path in paths[1:]:
        tuned = {
            name: values + (rng.standard_normal(values.shape) / 8).astype(dtype)
            for name, values in base.items()
        }
        if path in paths[2:3] and dtype == np.float64:
            first = base["l.up.weight"][:, :3]
            tuned["l.up.weight"][:, :3] = first + 1e-9 * (tuned["l.up.weight"][:, :3] - first)
        save_file(tuned | {"still.weight": base["still.weight"]}, path)
    return paths


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether each tensor that was merged came from Grams and the running sum."""
    found: dict[str, bool] = {}
    before = Grammed._solved

    def noted(self, it, segment):
        found[it.tensor.name] = (made := before(self, it, segment)) is not None
        return made

    monkeypatch.setattr(Grammed, "_solved", noted)
    return found


def sums(store: Store) -> list[bytes]:
    """Return the Grams of a store, all of their bits."""
    kept = opted.of(store)
    assert kept is not None
    found = []
    for matrix in kept.matrices:
        head = kept._head(matrix)
        assert head is not None and head[1]["exact"]
        one = kept._read(matrix, *head)
        assert one is not None
        found += [one.total.tobytes(), one.rest.tobytes()]
    return found


def assert_near(store: Store, base: str, paths: list[str], weights: Any, **how: Any) -> None:
    """Check a store's merge against one of all models, and against Grams made anew."""
    expected = breadcrumbs.merge(base, paths, weights=weights, method="wudi", **how)
    found = merged(store, **how)
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=0, atol=1e-13), name
    assert_same(merged(store, scratch=True, **how), found)


HOWS = [{}, {"solver": "ridge", "ridge": 0.2}, {"normalize": "none", "stack": "whole"}]


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_any_changes_give_what_a_merge_gives(tmp_path: Path, how: dict, solved) -> None:
    base, *ft = models(tmp_path)
    store = Store.create(tmp_path / "store", base, method="wudi", **how)
    with store:
        store.add("a", ft[0])
        assert store.keep_grams() and not store.keep_grams()
        assert_near(store, base, ft[:1], [1], **how)
        store.add("b", ft[1], weight=0.3)
        store.add("c", ft[2])
        before = sums(store)
        assert_near(store, base, ft[:3], [1, 0.3, 1], **how)
        store.add("d", ft[3], weight=1e-7)
        store.set("a", -2)
        assert_near(store, base, ft, [-2, 0.3, 1, 1e-7], **how)
        store.set("a", 1)
        store.add("b", ft[3], replace=True)
        store.remove("d")
        assert_near(store, base, [ft[0], ft[2], ft[3]], [1, 1, 0.3], **how)
        store.revert(3)
        assert sums(store) == before
        assert_near(store, base, ft[:3], [1, 0.3, 1], **how)
        assert set(solved) == set(SHAPES) and all(solved.values())
        assert store.verify().grams == (6 if "stack" not in how else 3)
        assert store.verify().repaired == 0


def test_what_is_no_closed_form_of_wudi_is_merged_as_ever(tmp_path: Path, solved) -> None:
    base, *ft = models(tmp_path, np.float32, 3)
    with Store.create(tmp_path / "store", base, method="task_arithmetic", alpha=0.4) as store:
        for number, path in enumerate(ft):
            store.add(f"t{number}", path)
        store.keep_grams()
        for method, how in (
            ("wudi", {"solver": "adam"}), ("wudi", {"normalize": "none"}), ("wudi+svc", {}),
            ("iso_c", {}), ("ties", {}), ("task_arithmetic", {"alpha": 0.4}),
        ):  # fmt: skip
            solved.clear()
            expected = breadcrumbs.merge(base, ft, method=method, **how)
            for scratch in (False, True):
                assert_same(merged(store, method=method, scratch=scratch, **how), expected)
            assert not any(solved.values())
        assert_near_in_float32(merged(store, method="wudi"), base, ft)
        assert all(solved.values()) and solved


def assert_near_in_float32(found: dict, base: str, paths: list[str]) -> None:
    for name, values in breadcrumbs.merge(base, paths, method="wudi").items():
        assert np.all(np.abs(found[name] - values) <= np.spacing(np.abs(values)))


def test_adapters_are_the_products_that_they_are(tmp_path: Path) -> None:
    base, _ = models(tmp_path, np.float32, 1)
    rng, paths = np.random.default_rng(5), []
    for number in range(2):
        adapter = tmp_path / f"adapter{number}"
        adapter.mkdir()
        said = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["up"]}
        (adapter / "adapter_config.json").write_text(json.dumps(said))
        at = "base_model.model.l.up"
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 10), (24, 2)))
        save_file(
            {f"{at}.lora_A.weight": a, f"{at}.lora_B.weight": b},
            adapter / "adapter_model.safetensors",
        )
        paths.append(tmp_path / f"task{number}.safetensors")
        tasks.from_adapter(base, adapter, paths[-1])
    with Store.create(tmp_path / "store", base, method="wudi") as store:
        store.add("a", paths[0])
        store.keep_grams()
        store.add("b", paths[1])
        kept = opted.of(store)
        assert kept is not None
        (matrix,) = (one for one in kept.matrices if one.tensor.name == "l.up.weight")
        a = kept.at(matrix, grams.State({(e.task, 1.0): 1 for e in store.entries()}))[1]
        assert np.linalg.matrix_rank(a) == 4  # and no rounding of weights, which has all ranks
        assert_near_in_float32(merged(store), base, [str(path) for path in paths])


@pytest.mark.parametrize("damage", ["total", "rest", "head", "cut", "gone", "machine"])
def test_damaged_grams_are_made_again(tmp_path: Path, damage: str, monkeypatch) -> None:
    base, *ft = models(tmp_path, np.float32, 3)
    with Store.create(tmp_path / "store", base, method="wudi") as store:
        for number, path in enumerate(ft[:2]):
            store.add(f"t{number}", path)
        store.keep_grams()
        expected, before = merged(store), sums(store)
        files = sorted((tmp_path / "store/grams").glob("*.gram"))
        for file in files:
            data = bytearray(file.read_bytes())
            start = data.index(b"\n") + 1
            if damage in ("total", "rest", "head"):
                data[{"total": start + 5, "rest": -5, "head": 90}[damage]] ^= 4
            file.write_bytes(data[: -8 if damage == "cut" else None])
            if damage == "gone":
                file.unlink()
        if damage == "machine":
            monkeypatch.setattr(grams, "machine", lambda: "another")
        assert_same(merged(store), expected)
        store.add("t2", ft[2])
        store.remove("t2")
        assert store.verify().repaired == 0 and sums(store) == before
        for file in files[:2]:
            file.write_bytes(file.read_bytes()[:-3])
        assert store.verify().repaired == 2
        assert sums(store) == before


def test_where_pairs_do_not_hold_the_sums(tmp_path: Path) -> None:
    base = {"w": np.array([[1.0, 0.5], [0.25, 1.0]])}
    save_file(base, tmp_path / "base.safetensors")
    paths = [str(tmp_path / f"{number}.safetensors") for number in range(3)]
    for path, step in zip(paths, (1e9, 1e-9, 3.0), strict=True):
        save_file({"w": base["w"] + step * np.array([[1.0, 0.3], [0.7, -2.0]]) / 3}, path)
    with Store.create(tmp_path / "s", tmp_path / "base.safetensors", method="wudi") as store:
        store.keep_grams()
        store.add("a", paths[1])
        before = sums(store), merged(store)["w"].tobytes()
        store.add("b", paths[0], weight=1 / 3)
        store.add("c", paths[2], weight=1e-3)
        (file,) = (tmp_path / "s/grams").glob("*.gram")
        assert b'"exact": false' in file.read_bytes()
        assert_same(merged(store), merged(store, scratch=True))
        store.verify()
        store.remove("b")
        store.remove("c")
        assert (sums(store), merged(store)["w"].tobytes()) == before


def test_what_is_cut_or_coded(tmp_path: Path) -> None:
    base, *ft = models(tmp_path, np.float32, 2)
    with Store.create(tmp_path / "cuts", base) as store, pytest.raises(StoreError, match="whole"):
        store.keep_grams()
    cut, coded = tmp_path / "cut.safetensors", tmp_path / "coded.safetensors"
    tasks.pack(base, ft[0], cut)
    tasks.pack(base, ft[0], coded, transform="none", encoding="int4")
    with Store.create(tmp_path / "store", base, method="task_arithmetic", alpha=0.3) as store:
        store.add("cut", cut)
        with pytest.raises(StoreError, match="task 'cut' was cut by breadcrumbs"):
            store.keep_grams()
        assert not opted.keeps(store)
    with Store.create(tmp_path / "other", base, method="wudi") as store:
        store.keep_grams()
        with pytest.raises(StoreError, match="was cut by breadcrumbs, and the Grams of"):
            store.add("cut", cut)
        assert not store.entries()
        notes: list[str] = []
        store.add("coded", coded, note=notes.append)
        assert any("as int4; Grams are of the task vectors as they are stored" in n for n in notes)
        assert_near_in_float32(merged(store), base, [str(coded)])


def test_the_commands(tmp_path: Path) -> None:
    base, *ft = models(tmp_path, np.float32, 2)
    folder = str(tmp_path / "store")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["store", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    run("init", folder, "--base", base, "-m", "wudi")
    run("add", folder, "a", ft[0])
    assert "they would be of 6 matrices" in run("grams", folder)
    assert "of 6 matrices are kept for wudi" in run("grams", folder, "on")
    told = json.loads(run("info", folder, "--json"))
    assert told["grams"] and told["bytes"]["grams"] > 1000
    report = json.loads(run("merge", folder, "-o", str(tmp_path / "out"), "--json"))
    assert any("from the Grams" in note for note in report["notes"])
    again = reproducing.reproduce(tmp_path / "out")
    assert again.same and "up to rounding" in again.notes[-1]
    assert "6 Grams" in run("verify", folder)
    assert not json.loads(run("grams", folder, "off", "--json"))["grams"]
    assert not (tmp_path / "store/grams").exists()
    with Store.open(folder) as store:
        store.add("b", ft[1])
        assert not info(store)["grams"] and not store.keep_grams(False)


def test_a_term_is_what_one_task_vector_has() -> None:
    rng = np.random.default_rng(1)
    for shape in ((6, 4), (3, 9)):
        taus = rng.standard_normal((3, *shape))
        for norms in (True, False):
            a = sum(wudi.term(tau, norms)[0] for tau in taus)
            c = sum(wudi.term(tau, norms)[1] for tau in taus)
            size = [np.sum(tau**2) if norms else 1.0 for tau in taus]
            each = list(zip(taus, size, strict=True))
            assert np.allclose(a, sum(tau.T @ tau / n for tau, n in each))
            assert np.allclose(c, sum(tau @ tau.T @ tau / n for tau, n in each))
