"""Results in a model card, as the hub's own library reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from huggingface_hub import ModelCard
from result_rows import row
from safetensors.numpy import save_file

from breadcrumbs.checkpoint import hashing
from breadcrumbs.cli import inspection, main, picture
from breadcrumbs.evaluate.results.results import Results


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_rows_and_what_only_the_user_knows(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "ft1")):
        (tmp_path / name).mkdir()
        weights = np.random.default_rng(seed).standard_normal((8, 4)).astype(np.float32)
        save_file({"w": weights}, tmp_path / name / "model.safetensors")
    out, file = tmp_path / "merged", tmp_path / "r.sqlite"
    run("merge", tmp_path / "base", tmp_path / "ft1", "-q", "-o", out)
    body = (out / "README.md").read_text().split("---\n", 2)[2]
    hash_ = hashing.model_hash(out)
    with Results(file) as results:
        results.add(
            row("m", "other"),
            row(hash_, "spam"),
            row(hash_, "spam", split="validation"),
            row(hash_, "ham", [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        )
    run("card", out, "--results", file, "--license", "mit", "--pipeline-tag", "text-classification",
        "--base-model", "org/base", "--base-model", "me/ft1", "--language", "en")  # fmt: skip
    card = ModelCard.load(out / "README.md", ignore_metadata_errors=False)
    found = {result.dataset_type: result for result in card.data.eval_results or ()}
    assert {task: result.metric_value for task, result in found.items()} == {
        "spam": 0.7,
        "ham": 0.1,
    }
    spam = found["spam"]
    assert (spam.metric_type, spam.dataset_split, spam.task_type) == (
        *("accuracy", "test", "text-classification"),
    )
    assert spam.dataset_name == "spam of text8" and spam.metric_args["rows"] == 10
    data = card.data.to_dict()
    assert data["model-index"][0]["name"] == "merged"
    assert data["base_model"] == ["org/base", "me/ft1"] and data["license"] == "mit"
    assert data["base_model_relation"] == "merge" and data["language"] == ["en"]
    assert data["tags"] == ["merge", "breadcrumbs"]
    assert (out / "README.md").read_text().endswith(body.lstrip("\n")), "the rest stays"
    assert "has no test rows of" in run("card", tmp_path / "base", "--results", file, code=1)
    assert "there is no model card" in run("card", tmp_path / "base", code=1)
    assert "the same bits" in run("reproduce", out)
    assert "spam of text8: accuracy 0.700 ± 0.1" in run("inspect", out)
    figure = picture.of(inspection.inspect(str(out))).figures["scores"]
    assert [row[:2] for row in figure.table.rows] == [("spam of text8", 0.7), ("ham of text8", 0.1)]
