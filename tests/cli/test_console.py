"""What is printed where there is no terminal is what rich prints, which is not loaded for it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from breadcrumbs.cli import console


def of_rich(what, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False, emoji=False).print(what)
    return out.getvalue()


@pytest.mark.parametrize("stderr", [False, True])
def test_what_is_piped_is_whole(stderr: bool, capsys, monkeypatch) -> None:
    """Lines and tables are one line each, whatever COLUMNS says, simple or not."""
    monkeypatch.setenv("COLUMNS", "40")
    for letter in ("w", "\u00fc"):  # the second one by rich
        long = " ".join(20 * [10 * letter])
        table = console.ruled("a", "b")
        table.add_row(long, letter)
        console.terminal(stderr).print(f"{long}\n  two  lines")
        console.terminal(stderr).print(table)
        shown = capsys.readouterr()[stderr]
        assert f"{long}\n  two  lines\n" in shown and f" {long}   {letter}" in shown


def on_terminal(columns: int, *args: str, **more: str) -> str:
    """Return what a command prints on a terminal of so many columns."""
    pty = pytest.importorskip("pty")
    child, ours = pty.fork()
    if not child:
        os.environ.update({"COLUMNS": str(columns), "TERM": "xterm", **more})
        os.execv(sys.executable, [sys.executable, "-m", "breadcrumbs", *args])
    shown = b""
    with contextlib.suppress(OSError):  # of the end
        while piece := os.read(ours, 1 << 16):
            shown += piece
    os.close(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    return shown.decode().replace("\r\n", "\n")


def test_a_narrow_terminal_breaks_no_word() -> None:
    shown = on_terminal(40, "methods", "breadcrumbs", NO_COLOR="1")
    assert "\x1b[3" not in shown, "colours"
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in shown.splitlines()]
    assert max(map(len, lines)) <= 40
    words = set(" ".join(lines).split())
    assert {"granularity", "embeddings", "rescaled;"} <= words
    assert "beta" in lines and "  default: 0.90" in lines
    for command in (["--help"], ["store", "--help"], ["soup", "--help"]):
        help = on_terminal(40, *command).split("Options:")[-1]  # after the examples
        assert max(map(len, help.splitlines())) <= 40 and "--help" in help
    wide = on_terminal(200, "methods", "breadcrumbs")
    assert any(line.split()[:2] == ["beta", "0.90"] for line in wide.splitlines())


def test_tables_are_those_of_rich() -> None:
    rng = np.random.default_rng(0)
    simple = 0
    for _ in range(100):
        columns, rows, long = rng.integers((1, 0, 1), (5, 4, 20)).tolist()
        right = tuple(np.flatnonzero(rng.random(columns) < 0.5).tolist())
        table = console.ruled(*("h" * n for n in rng.integers(0, long, columns)), right=right)
        for _ in range(rows):
            table.add_row(*("c" * n for n in rng.integers(0, long, columns)))
        found = table.plain()
        simple += found is not None
        assert found is None or found == of_rich(table, 1000)
    assert simple > 50
    table.add_row(*["\u00fc"] * columns)
    assert table.plain() is None


def test_a_small_merge_needs_no_rich(tmp_path) -> None:
    code = (
        "import sys, numpy as np; from safetensors.numpy import save_file\n"
        "for i in (0, 1): save_file({'w': np.arange(4.0) * (1 + i)}, f'{i}.safetensors')\n"
        "from breadcrumbs.cli import main\n"
        "try: main(['merge', '0.safetensors', '1.safetensors', '-o', 'out', '-p', 'alpha=1',"
        " '-p', 'beta=0', '-p', 'gamma=1'])\n"
        "except SystemExit as it: assert not it.code\n"
        "wanted = {'rich', 'breadcrumbs.taskfile.reader', 'breadcrumbs.cli.search'}\n"
        "assert not wanted & sys.modules.keys(), wanted & sys.modules.keys()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert not ran.returncode, ran.stderr
    assert "written: out" in ran.stderr
