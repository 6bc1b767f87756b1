"""Files of mergekit's other programs: several merges in one run, all else is named."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from breadcrumbs.cli import main
from breadcrumbs.errors import RecipeError
from breadcrumbs.plan import mergekit


def run(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("base", "a", "b", "c")):
        Path(name).mkdir()
        save_file({"w": np.full((2, 3), number, np.float32)}, Path(name, "model.safetensors"))


def config(text: str) -> Path:
    path = Path("config.yml")
    path.write_text(textwrap.dedent(text))
    return path


SEVERAL = """
    merge_method: linear
    models:
    - {model: halves, parameters: {weight: 1}}
    - {model: c, parameters: {weight: 1}}
    ---
    name: halves
    merge_method: linear
    models:
    - {model: a, parameters: {weight: 1}}
    - {model: twice, parameters: {weight: 1}}
    ---
    name: twice
    merge_method: task_arithmetic
    base_model: base
    models:
    - {model: b, parameters: {weight: 2}}
    """


def weight(folder: str) -> float:
    (value,) = set(load_file(Path(folder, "model.safetensors"))["w"].ravel().tolist())
    return value


def test_several_merges_run_in_the_order_that_they_need() -> None:
    path = config(SEVERAL)
    names = [one.name for one in mergekit.documents(path)]
    assert names == ["twice", "halves", ""]
    run("merge", path, "-q", "-o", "out")
    assert weight("out.parts/twice") == 4 and weight("out.parts/halves") == (1 + 4) / 2
    assert weight("out") == (2.5 + 3) / 2
    made = yaml.safe_load(Path("out/breadcrumbs.yaml").read_text())
    assert made["base"] == "../out.parts/halves"
    assert "all the same bits" in run("reproduce", "out")
    assert "exists" in run("merge", path, "-q", "-o", "out", code=1)
    run("merge", path, "-q", "-o", "out", "--force")
    run("merge", path, "-q", "-o", "other.safetensors")
    assert weight("other.parts/halves") == 2.5
    path.write_text("name: last" + path.read_text())
    run("merge", path, "-q", "-o", "all")
    assert weight("all/last") == 2.75
    assert "holds 3 merges" in run("merge", path, "-o", "x", "--dry-run", code=2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("name: twice", "name: halves"), "line 13: a second merge is called halves"),
        (("name: twice\n", ""), "a second merge has no name"),
        (("name: twice", "name: ../up"), "cannot be the name of a merge"),
        (("model: b", "model: halves"), "takes its own result: "),
        (("model: b", "model: bb"), "bb"),
    ],
)
def test_several_merges_that_cannot_be(change: tuple[str, str], said: str) -> None:
    path = config(SEVERAL)
    path.write_text(path.read_text().replace(*change))
    assert said in run("merge", path, "-q", "-o", "out", code=1)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "base_model: base\ngate_mode: hidden\nexperts: [{source_model: a}]\n",
            "is for mergekit-moe",
        ),
        (
            "genome: {models: [a, b], merge_method: linear}\ntasks: [{name: x}]\n",
            "is for mergekit-evolve",
        ),
    ],
)
def test_files_of_other_programs_are_named(text: str, said: str) -> None:
    path = config(text)
    with pytest.raises(RecipeError, match=said):
        mergekit.is_config(path)
    assert said in run("merge", path, "-o", "out", code=1)
