"""What an output says of its inputs: names that hold elsewhere, hashes, licences, a card for a hub;
and whether it can be made again from that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.cli import main
from breadcrumbs.errors import CheckpointError, RecipeError
from breadcrumbs.merging import licences, published, reproducing, said
from breadcrumbs.merging.said import Card
from breadcrumbs.plan import recipe
from breadcrumbs.store import Store


def run(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def model(folder: Path, seed: int, card: str = "", **files: str) -> Path:
    """Make a folder with a small model, and files beside it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    weights = {"a.weight": rng.standard_normal((40, 10)), "b": rng.standard_normal(7)}
    noise = np.random.default_rng(seed)
    for value in weights.values() if seed else ():
        value += 0.1 * noise.standard_normal(value.shape)
    save_file({n: v.astype(np.float32) for n, v in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    if card:
        (folder / "README.md").write_text(f"---\n{card}\n---\nabout it\n")
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a folder of models whose name is found wherever it was written."""
    folder = tmp_path / "SECRET-OF-ALICE"
    for seed, name in enumerate(("base", "ft1", "ft2")):
        model(folder / name, seed)
    config = {"_name_or_path": str(folder / "base"), "model_type": "llama"}
    (folder / "base" / "config.json").write_text(json.dumps(config))
    tokenizer = {"name_or_path": str(folder), "model_max_length": 512}
    (folder / "base" / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def leaks(output: Path, secret: str) -> list[str]:
    files = [output] if output.is_file() else [p for p in output.rglob("*") if p.is_file()]
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


def test_no_file_of_an_output_names_a_folder_of_the_disk(home: Path, tmp_path: Path) -> None:
    base, ft1, ft2 = (home / name for name in ("base", "ft1", "ft2"))
    inside = str(home)
    run("merge", base, ft1, ft2, "-o", home / "merged")  # beside its inputs: ../base
    run("merge", base, ft1, ft2, "-o", home / "one.safetensors")
    run("merge", home / "merged" / "breadcrumbs.yaml", "-o", home / "again")
    run("task", "pack", base, ft1, "-o", home / "task.safetensors")
    run("merge", base, home / "task.safetensors", "-o", home / "of-task")
    run("task", "unpack", base, home / "task.safetensors", "-o", home / "unpacked")
    run("compress", base, ft1, ft2, "-o", home / "archive.safetensors")
    run("extract", home / "archive.safetensors", "ft1", "-o", home / "extracted")
    with Store.create(home / "store", base) as store:
        store.add("ft1", ft1)
        store.add("ft2", ft2)
        store.merge(home / "of-store")
    for name in (
        *("merged", "one.safetensors", "again", "task.safetensors", "of-task", "unpacked"),
        *("archive.safetensors", "extracted", "of-store"),
    ):
        assert not leaks(home / name, inside), name
    warned = "the step is so small"  # a line with the label of a model is cleaned too
    assert warned not in (home / "merged" / "README.md").read_text()
    config = json.loads((home / "merged" / "config.json").read_text())
    assert config == {"model_type": "llama"}, "and the rest of a config stays"
    assert (home / "base" / "config.json").read_text().count(inside), "inputs are not written to"


def test_warnings_in_a_card_call_models_as_the_recipe_does(home: Path) -> None:
    (home / "ft1" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    run("merge", home / "base", home / "ft1", "-o", home / "merged")
    text = (home / "merged" / "README.md").read_text()
    warnings = text.split("## Warnings")[1].split("##")[0]
    assert "../ft1" in warnings and str(home) not in text


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    relative = published.relative
    assert relative("/home/alice/models/base", "/home/alice/out") == "../models/base"
    assert relative("/home/alice/out/base", "/home/alice/out") == "./base"
    assert relative("/data/base", "/home/alice/out") is None
    assert relative("/home/bob/base", "/home/alice/out") is None


def test_inputs_far_away_are_called_by_their_last_part(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "relative", lambda path, start: None)
    (home / "other").mkdir()
    (home / "ft2").rename(home / "other" / "ft1")
    run("merge", home / "base", home / "ft1", home / "other" / "ft1", "-o", home / "merged")
    made = recipe.from_mapping(yaml.safe_load((home / "merged/breadcrumbs.yaml").read_text()))
    assert [made.base, *(one.path for one in made.models)] == ["base", "ft1", "ft1-2"]
    assert [one.name for one in made.models] == ["ft1", "ft1-2"], "which keys random masks"
    run("merge", home / "merged" / "breadcrumbs.yaml", "-o", home / "again")  # as this user may
    assert "all the same bits" in run("reproduce", home / "merged")
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(home / "of-another"))
    said = run("reproduce", home / "merged", code=1)
    assert "'base', 'ft1', 'ft1-2': not found" in said and "--input base=PATH" in said
    places = [f"base={home}/base", f"ft1={home}/ft1", f"ft1-2={home}/other/ft1"]
    given = [word for place in places for word in ("--input", place)]
    assert "2 tensors, all the same bits" in run("reproduce", home / "merged", *given)


# --- made again ---


@pytest.mark.parametrize("name", ["merged", "merged.safetensors"])
def test_reproduce(home: Path, name: str) -> None:
    run("merge", home / "base", home / "ft1", home / "ft2", "-o", home / name, "-m", "dare_ties")
    assert "2 tensors, all the same bits" in run("reproduce", home / name)
    done = json.loads(run("reproduce", home / name, "--json", "-o", home / f"again-{name}"))
    assert done["same"] and done["differ"] == []
    assert done["made_by"] == f"breadcrumbs {breadcrumbs.__version__}"
    again = home / f"again-{name}"
    file = "" if again.is_file() else "model.safetensors"
    assert (again / file).read_bytes() == (home / name / file).read_bytes()
    (home.parent / "elsewhere").mkdir()
    for one in ("base", "ft1", "ft2"):
        (home / one).rename(home.parent / "elsewhere" / one)
    assert "not found beside it" in run("reproduce", home / name, code=1)
    assert "the same bits" in run("reproduce", home / name, "-i", home.parent / "elsewhere")
    with pytest.raises(RecipeError, match=r"no such input\. It has"):
        reproducing.reproduce(home / name, places=[str(home.parent / "elsewhere"), "ft9=x"])


def test_reproduce_names_the_tensors_that_differ(home: Path) -> None:
    run("merge", home / "base", home / "ft1", "-o", home / "merged", "--shard-size", "100")
    file = next((home / "merged").glob("model-00002-*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    said = run("reproduce", home / "merged", code=1)
    (name,) = load_file(file)
    assert f"1 of 2 tensors differs: '{name}'" in said


@pytest.mark.parametrize("same_size", [True, False])
def test_an_input_that_changed_is_named(home: Path, same_size: bool) -> None:
    run("merge", home / "base", home / "ft1", home / "ft2", "-o", home / "merged")
    path = home / "ft1" / "model.safetensors"
    before = (home / "merged" / "breadcrumbs.yaml").read_text()
    weights = load_file(path)
    weights["b"] = weights["b"] + 1
    size = path.stat().st_size
    save_file(weights, path, None if same_size else {"more": "text"})
    assert (path.stat().st_size == size) == same_size  # else it is known before anything is read
    then = next(
        entry["files"][0]["blake3"]
        for entry in yaml.safe_load(before)["inputs"]
        if entry["model"] == "../ft1"
    )
    for command in (
        ("reproduce", home / "merged"),
        ("merge", home / "merged" / "breadcrumbs.yaml", "-o", home / "x"),
    ):
        said = run(*command, code=1)
        assert said.count("\n") == 1 and "ft1: model.safetensors has changed" in said
        assert then[:12] in said and "begins with" in said
    assert not (home / "x").exists() and not (home / "x.partial").exists()
    text = before[: before.index("inputs:")]
    (home / "merged" / "breadcrumbs.yaml").write_text(text)
    run("merge", home / "merged" / "breadcrumbs.yaml", "-o", home / "x")


def test_another_version_and_a_file_of_another_name_are_said(home: Path) -> None:
    run("merge", home / "base", home / "ft1", "-o", home / "merged")
    path = home / "merged" / "breadcrumbs.yaml"
    path.write_text(path.read_text().replace("made_by: breadcrumbs ", "made_by: breadcrumbs 0.0."))
    assert "made by breadcrumbs 0.0." in run("reproduce", home / "merged")
    (home / "ft1/model.safetensors").rename(home / "ft1/weights.safetensors")
    said = run("reproduce", home / "merged", code=1)
    assert "was made with model.safetensors" in said and "here is weights.safetensors" in said


@pytest.mark.usefixtures("tables")
def test_a_plugin_is_an_input(home: Path) -> None:
    plugin = home / "mine.py"
    plugin.write_text(
        "from breadcrumbs.methods import Everything, Method, scaled_sum\n"
        "METHOD = Method('mine_of_cards', Everything(), scaled_sum(0.5), 's', 'f', 'p')\n"
    )
    run("merge", home / "base", home / "ft1", "-m", "mine_of_cards", "--plugin", plugin,
        "-o", home / "merged")  # fmt: skip
    assert "the same bits" in run("reproduce", home / "merged", "--plugin", plugin)
    plugin.write_text(plugin.read_text() + "# changed\n")
    said = run("reproduce", home / "merged", "--plugin", plugin, code=1)
    assert "mine.py has changed since the recipe was made" in said


def test_models_in_memory_are_no_files(home: Path) -> None:
    base, tuned = (load_file(home / name / "model.safetensors") for name in ("base", "ft1"))
    breadcrumbs.merge(base, [tuned], method="average", output=home / "merged")
    made = recipe.load(home / "merged" / "breadcrumbs.yaml")
    assert made.inputs == () and [model.path for model in made.models] == ["model 1"]
    assert "some models were only in memory" in (home / "merged" / "README.md").read_text()
    assert "'base', 'model 1': not found" in run("reproduce", home / "merged", code=1)


def test_what_has_no_recipe(home: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no recipe: neither breadcrumbs\.yaml nor"):
        reproducing.reproduce(home / "ft1")
    with pytest.raises(CheckpointError, match="no such file or folder"):
        reproducing.reproduce(home / "ft9")


# --- the card ---


def front(folder: Path) -> dict[str, Any]:
    """Return the front matter of a card, as the hub's own library reads it."""
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    return card.data.to_dict()


def snapshot(cache: Path, repo: str, seed: int, card: str) -> Path:
    """Make a model as it lies in the cache of the hub's library."""
    commit = f"{seed}" * 40
    place = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit
    return model(place, seed, card)


def test_card_for_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    apache = "license: apache-2.0\nlanguage: [en]\npipeline_tag: text-generation"
    base = snapshot(cache, "org/base", 0, apache)
    ft1 = snapshot(cache, "me/ft1", 1, "license: mit\nlanguage: de\nbase_model: org/base")
    ft2 = model(tmp_path / "ft2", 2, "license: cc-by-nc-4.0\nbase_model: org/base")
    run("merge", base, ft1, ft2, "-o", tmp_path / "merged")
    assert front(tmp_path / "merged") == {
        "base_model": ["org/base", "me/ft1"],
        "base_model_relation": "merge",
        "language": ["en", "de"],
        "library_name": "transformers",
        "license": "cc-by-nc-4.0",
        "pipeline_tag": "text-generation",
        "tags": ["merge", "breadcrumbs"],
    }
    made = yaml.safe_load((tmp_path / "merged" / "breadcrumbs.yaml").read_text())
    assert made["base"] == f"org/base@{'0' * 40}"
    assert made["models"][0] == f"me/ft1@{'1' * 40}"
    text = (tmp_path / "merged" / "README.md").read_text()
    assert "The strictest licence stated is cc-by-nc-4.0, which allows no commercial use" in text
    assert "| ../ft2 | not known | cc-by-nc-4.0 |" in text
    assert "| ft1 | 1 |" in text and text.count("1" * 40) == text.count(f"me/ft1@{'1' * 40}")
    assert "the same bits" in run("reproduce", tmp_path / "merged"), "from where it lay"
    monkeypatch.setenv("BREADCRUMBS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert "the same bits" in run("reproduce", tmp_path / "merged"), "from the cache, unasked"
    there = cache / "models--me--merged"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text("3" * 40)
    (there / "snapshots").mkdir()
    (tmp_path / "merged").rename(there / "snapshots" / ("3" * 40))
    ft2.rename(tmp_path / "elsewhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = run("reproduce", "me/merged", "-i", f"ft2={tmp_path / 'elsewhere'}")
    assert again.startswith("me/merged: 2 tensors, all the same bits")


def test_the_base_is_known_by_what_fine_tunings_say(home: Path) -> None:
    for name in ("ft1", "ft2"):
        config = {"_name_or_path": "org/some-base", "architectures": ["BertForMaskedLM"]}
        (home / name / "config.json").write_text(json.dumps(config))
    run("merge", home / "base", home / "ft1", home / "ft2", "-o", home / "merged")
    assert front(home / "merged")["base_model"] == ["org/some-base"]
    (home / "ft2" / "config.json").write_text(json.dumps({"_name_or_path": "me/FT2"}))
    run("merge", home / "base", home / "ft1", home / "ft2", "-o", home / "other")
    assert front(home / "other")["base_model"] == ["me/FT2"], "which its folder is called"


@pytest.mark.parametrize(
    ("parts", "id_", "conflicts"),
    [
        (["mit", "apache-2.0"], "apache-2.0", 0),
        (["apache-2.0", "llama3.1"], "llama3.1", 0),
        (["apache-2.0", ""], "unknown", 0),
        (["", ""], "", 0),
        (["other", "other"], "other", 0),
        (["apache-2.0", "my-own"], "other", 0),
        (["llama3.1", "gemma"], "other", 1),
        (["gpl-3.0", "llama3.1"], "other", 1),
        (["gpl-3.0", "agpl-3.0", "mit"], "agpl-3.0", 0),
        (["cc-by-sa-4.0", "cc-by-nc-4.0"], "other", 1),
        (["cc-by-nc-sa-4.0", "cc-by-sa-4.0"], "other", 1),
        (["cc-by-nc-nd-4.0", "mit"], "other", 1),
    ],
)
def test_licences(parts: list[str], id_: str, conflicts: int) -> None:
    found = licences.of({str(n): Card(license=part) for n, part in enumerate(parts)})
    assert (found.id, len(found.conflicts)) == (id_, conflicts), found
    if id_ == "agpl-3.0":
        assert found.strictest in parts


def test_an_adapter_has_a_licence_of_its_own() -> None:
    base, adapter = Path("models/base"), Path("models/adapter")
    files = base / "model.safetensors", adapter / "adapter_model.safetensors"
    model_ = Checkpoint("base+adapter", {}, files, base)
    assert list(said.of_all([model_])) == ["base+adapter", "adapter"]


def test_a_conflict_is_warned_of_and_texts_of_licences_are_known(home: Path) -> None:
    text = "                Apache License\n          Version 2.0, January 2004\n"
    (home / "base" / "LICENSE").write_text(text)
    (home / "ft1" / "README.md").write_text("---\nlicense: gpl-3.0\n---\n")
    (home / "ft2" / "README.md").write_text(
        "---\nlicense: other\nlicense_name: my-terms\nlicense_link: https://x.org/terms\n---\n"
    )
    run("merge", home / "base", home / "ft1", "-o", home / "two")
    assert front(home / "two")["license"] == "gpl-3.0"
    run("merge", home / "base", home / "ft2", "-o", home / "three")
    found = front(home / "three")
    assert (found["license"], found["license_name"]) == ("other", "of-the-parts")
    assert (
        "Licences to read, since they are not known here: ../ft2: my-terms"
        in (home / "three" / "README.md").read_text()
    )
    (home / "ft2" / "README.md").write_text("---\nlicense: gemma\n---\n")
    said = run("merge", home / "base", home / "ft1", home / "ft2", "-o", home / "four")
    assert "a merge cannot meet both" in said and "licences: " in said
    assert "a merge cannot meet both" in (home / "four" / "README.md").read_text()
    run("merge", home / "base", home / "ft1", home / "ft2", "-o", home / "x", "--strict", code=1)
