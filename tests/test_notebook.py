"""The notebook runs from its first cell to its last, in a kernel of Jupyter, as users run it."""

from __future__ import annotations

import builtins

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("torch")
from docs.notebooks import make  # noqa: E402

BAR = """
from concurrent.futures import ThreadPoolExecutor
from breadcrumbs.merging import progress
with progress.bar(100, None, "merging", wait=0, step=0) as told, ThreadPoolExecutor(2) as pool:
    list(pool.map(told, [10] * 10))
with progress.bar(100, False, "merging", wait=0, step=0) as told:
    told(100)
"""


def test_the_notebook_is_what_its_cells_say():
    assert nbformat.read(make.PATH, as_version=4) == make.notebook()


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = nbformat.read(make.PATH, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(BAR))
    client = nbclient.NotebookClient(
        book, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    slips = [cell for cell in cells if "raises-exception" in cell.metadata.get("tags", ())]
    assert len(slips) >= 10
    for cell in slips:
        (error,) = [it for it in cell.outputs if it.output_type == "error"]
        assert error.ename.endswith("Error") and not hasattr(builtins, error.ename), cell
        line, said, *notes = error.traceback  # the cell's, and no line of our own code
        assert line.startswith("line 1: breadcrumbs.") and said == f"{error.ename}: {error.evalue}"
        assert all(note.startswith("In Python: ") for note in notes)
        assert len(error.evalue.splitlines()) == 1 and error.evalue.endswith((".", "?")), error
    shown = {kind for cell in cells for out in cell.outputs for kind in out.get("data", {}) if kind}
    assert "text/html" in shown
    others = [out for cell in cells if cell not in slips for out in cell.outputs]
    assert not [out for out in others if out.output_type in ("stream", "error")], others
    # The bar is one output that was changed in place, and full at the end.
    (bar,) = cells[-1].outputs
    assert bar.data["text/html"].endswith("max='100' value='100'></progress>")
