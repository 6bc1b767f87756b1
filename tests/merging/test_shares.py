"""Shares of a merge, done in other processes, and calibrations that plugins bring."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bits import family
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import breadcrumbs
from breadcrumbs.cli import main
from breadcrumbs.merging import files, opening, shares
from breadcrumbs.methods import registry
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan.recipe import Model, Recipe

ELSEWHERE = """
import pickle, sys
from breadcrumbs.merging import shares
share = pickle.loads(sys.stdin.buffer.read())
pickle.dump(list(shares.merged(share, threads=2)), sys.stdout.buffer)
"""


@pytest.fixture
def written(tmp_path: Path) -> list[str]:
    """Write a base and three models; return their paths."""
    base, models = family.family("bfloat16")
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("base", "a", "b", "c")]
    for path, arrays in zip(paths, [base, *models], strict=True):
        save_file(arrays, path)
    return paths


@pytest.mark.parametrize(
    "method, parameters",
    [
        ("breadcrumbs", {}),  # alpha is found first, by whoever deals
        ("ties", {"granularity": "model"}),  # one job, which votes
        ("pcb", {}),  # looks at the whole model
        ("karcher", {"max_iter": 3}),  # inner products
        ("rtvq", {}),  # fits each tensor
    ],
)
def test_a_share_is_merged_elsewhere_to_the_same_bytes(
    written: list[str], method: str, parameters: dict[str, Any]
) -> None:
    models = tuple(Model(path) for path in written[1:])
    recipe = Recipe(written[0], models, method, parameters)
    with opening.opened(recipe) as plan:
        whole, _ = files.to_arrays(plan, threads=1)
        dealt = shares.deal(plan, 3)
        names = [tensor.output for tensor in plan.tensors]
        copies = {tensor.output for tensor in plan.tensors if tensor.tied}
    assert dealt and sum(len(share.units) for share in dealt) >= len(dealt)
    found = {name: np.zeros(array.size, array.dtype) for name, array in whole.items()}
    seen = dict.fromkeys(names, 0)
    for share in dealt:
        ran = subprocess.run(
            [sys.executable, "-c", ELSEWHERE], input=pickle.dumps(share), capture_output=True
        )
        assert ran.returncode == 0, ran.stderr.decode()
        for index, start, values in pickle.loads(ran.stdout):
            found[names[index]][start : start + values.size] = values.view(
                found[names[index]].dtype
            )
            seen[names[index]] += values.size
    for name, array in whole.items():
        if name not in copies:
            assert seen[name] == array.size
            assert found[name].tobytes() == array.tobytes(), name


PLUGIN = """
from pathlib import Path
import numpy as np
from breadcrumbs.methods import AUTO, Calibration, Coefficients, Everything, Factor, Linear, Method

CALLS = Path(__file__).with_suffix(".calls")


def find(plan, run):
    '''Weigh each model in each layer by how far it moved there, against all.'''
    with CALLS.open("a") as calls:
        calls.write("x")
    layers = {}
    for tensor in plan.merged:
        layer = ".".join(tensor.name.split(".")[:2]) if tensor.name.startswith("layers") else ""
        base = tensor.base.read().astype(np.float64)
        moved = [np.square(m.read().astype(np.float64) - base).sum() for m in tensor.models]
        layers[layer] = layers.get(layer, 0) + np.array(moved)
    weights = {}
    for layer, moved in layers.items():
        for model, share in zip(plan.recipe.models, moved / moved.sum(), strict=True):
            weights[f"{layer}.*" if layer else "embed*", model.name] = round(float(share), 4)
    return Coefficients({"length": 0.5}, weights)


METHODS = [
    Method(
        "layered",
        Everything(),
        Linear(
            factor=lambda values, weights: values["length"],
            parameters={"length": Factor(AUTO, "factor of the weighted sum")},
        ),
        "add the task vectors, weighed layer by layer",
        "base + length * sum_t w_t tau_t",
        "none",
        calibration=Calibration("weights", find),
    )
]
"""


def test_a_calibration_fills_weights_that_the_recipe_repeats(
    written: list[str], tmp_path: Path
) -> None:
    plugin = tmp_path / "layered.py"
    plugin.write_text(PLUGIN)
    run = CliRunner()
    first = run.invoke(
        main, ["merge", *written, "-m", "layered", "--plugin", str(plugin), "-o", f"{tmp_path}/m"]
    )
    assert first.exit_code == 0, first.output
    recipe = tmp_path / "m" / "breadcrumbs.yaml"
    assert "length: 0.5" in recipe.read_text() and "layers.0.*" in recipe.read_text()
    calls = plugin.with_suffix(".calls").read_text()
    METHODS.pop("layered")
    again = run.invoke(
        main, ["merge", str(recipe), "--plugin", str(plugin), "-o", f"{tmp_path}/again"]
    )
    METHODS.pop("layered")
    assert again.exit_code == 0, again.output
    assert plugin.with_suffix(".calls").read_text() == calls == "x"
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("m", "again"))
    base, *models = (load_file(path) for path in written)
    name = "layers.0.mlp.up_proj.weight"
    assert one[name].tobytes() == two[name].tobytes() != base[name].tobytes()
    step = one[name].astype(np.float64) - base[name].astype(np.float64)
    taus = [m[name].astype(np.float64) - base[name].astype(np.float64) for m in models]
    found = np.linalg.lstsq(np.array([t.ravel() for t in taus]).T, step.ravel(), rcond=None)[0]
    moved = np.array(
        [
            sum(
                np.square(m[n].astype(np.float64) - base[n].astype(np.float64)).sum()
                for n in base
                if n.startswith("layers.0")
            )
            for m in models
        ]
    )
    assert np.allclose(found, 0.5 * moved / moved.sum(), rtol=0.05)


def test_a_calibration_that_leaves_something_open_is_an_error(
    written: list[str], tmp_path: Path
) -> None:
    plugin = tmp_path / "open.py"
    text = PLUGIN.replace('{"length": 0.5}', "{}").replace('"layered"', '"open_ended"')
    plugin.write_text(text)
    registry.load_plugin(plugin)
    with pytest.raises(breadcrumbs.BreadcrumbsError, match="left 'auto' where numbers belong"):
        breadcrumbs.merge(written[0], written[1:], method="open_ended")
    METHODS.pop("open_ended")
