"""The compiled library: what is said where it is missing, damaged, old, or cannot be made."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from breadcrumbs.errors import RecipeError
from breadcrumbs.kernels.native import build, built, library

WHOLE = library.PATH.read_bytes()


@pytest.fixture
def another(tmp_path, monkeypatch):
    """Return a function that says what is wrong with other bytes in place of the library."""

    def wrong(data: bytes | None) -> str:
        number = len(list(tmp_path.iterdir()))
        path = tmp_path / f"kernels{number}{library.SUFFIX}"
        if data is not None:
            path.write_bytes(data)
        monkeypatch.setattr(library, "PATH", path)
        monkeypatch.setattr(library, "library", lambda: ctypes.CDLL(str(path)))
        return built.problem.__wrapped__()

    return wrong


@pytest.mark.parametrize("kept", [0, 10, 5000, 0.5, -1])
def test_a_library_that_is_cut_off_is_not_loaded(another, kept):
    data = WHOLE[: int(kept * len(WHOLE))] if isinstance(kept, float) else WHOLE[:kept]
    said = another(data)
    assert said.endswith(f"is not a whole library. Run: {built.COMMAND}") and "\n" not in said


def test_what_is_wrong_is_one_line(another, monkeypatch):
    assert another(None) == f"the native kernels are not built. Run: {built.COMMAND}"
    said = another(b"MZ" + bytes(100))
    assert said.startswith("the native kernels cannot be loaded (") and "\n" not in said
    assert another(WHOLE) == ""
    monkeypatch.setattr(build, "digest", lambda: "0" * 32)
    said = another(WHOLE)
    assert said == f"the native kernels are not those of their sources. Run: {built.COMMAND}"
    monkeypatch.setattr(built, "__version__", "9.9")
    assert " is of version " in another(WHOLE)


def test_an_installed_package_is_not_told_to_build(another, monkeypatch, tmp_path):
    monkeypatch.setattr(built, "SOURCES", tmp_path / "c")
    assert another(None).startswith("this install could not compile the native kernels.")
    assert another(b"\x7fELF").endswith("Install breadcrumbs again.")


def test_the_digest_is_of_sources_and_options(tmp_path, monkeypatch):
    before = build.digest()
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    shutil.copytree(build.HERE / "c", tmp_path, dirs_exist_ok=True)
    assert build.digest() == before
    with (tmp_path / "steps.h").open("a") as file:
        file.write("\n")
    assert build.digest() != before
    monkeypatch.undo()
    monkeypatch.setattr(build, "NEEDED", (*build.NEEDED, "-ffast-math"))
    assert build.digest() != before


def test_without_a_compiler_or_with_a_bad_one_nothing_is_built(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setitem(sys.modules, "ziglang", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert build.compiler() is None
    with pytest.raises(build.BuildError, match="there is no compiler"):
        build.build(tmp_path / "made.so")
    monkeypatch.setenv("PATH", os.defpath)
    with pytest.raises(build.BuildError, match="the compiler failed"):
        build.build(tmp_path / "made.so", ["false"])
    with pytest.raises(build.BuildError, match="no file"):
        build.build(Path(os.devnull), ["false"])
    assert not list(tmp_path.iterdir())


def test_a_level_that_there_is_not_is_refused(monkeypatch):
    assert library.LEVELS[: len(library.levels())] == library.levels()
    for level in library.levels():
        monkeypatch.setenv("BREADCRUMBS_LEVEL", level)
        assert library.level.__wrapped__() == level
    monkeypatch.setenv("BREADCRUMBS_LEVEL", "v9")
    with pytest.raises(RecipeError, match="BREADCRUMBS_LEVEL=v9: this machine runs base"):
        library.level.__wrapped__()


def test_a_merge_without_the_library_has_the_same_bits_and_says_so_once(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("base", "ft1", "ft2"):
        values = rng.standard_normal((30, 40)).astype(np.float32)
        save_file({"w": values, "v": values[:3]}, tmp_path / f"{name}.safetensors")
    inputs = [str(tmp_path / f"{name}.safetensors") for name in ("base", "ft1", "ft2")]
    results = []
    for number, where in enumerate((library.PATH, tmp_path / "none")):
        output = tmp_path / str(number)
        run = [sys.executable, "-m", "breadcrumbs", "merge", *inputs, "-o", str(output)]
        ran = subprocess.run(
            run,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "BREADCRUMBS_LIBRARY": str(where)},
        )
        results.append((output / "model.safetensors").read_bytes()[-6000:])
        assert ran.stderr.count("NumPy's kernels are used") == number
    assert results[0] == results[1]
