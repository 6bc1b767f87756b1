"""What is printed where there is no terminal is what rich prints, which is not loaded for it."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from breadcrumbs.cli import console

TEXTS = [
    "",
    "one",
    "one two three",
    "  leading blanks, and some   within, and at the end  ",
    "breadcrumbs: 33 of 33 tensors merged; norm of the update 21.6, 1.5 times the mean task vector",
    "two lines,\n\nand an empty one between",
    "a-word-as-wide-as-the-screen-" * 3,
    "not ascii: \u00e4\u00f6\u00fc \u2500",
    "a\ttab",
]


def of_rich(what, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False, emoji=False).print(what)
    return out.getvalue()


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_wrapped_as_rich_does(text: str) -> None:
    for width in (1, 5, 9, 10, 11, 20, 80, 200):
        found = console.wrapped(text, width)
        assert found is None or found == of_rich(text, width), width
    assert (console.wrapped(text, 200) is None) == (not text.isascii() or "\t" in text)


def test_text_of_any_words_is_wrapped_as_rich_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        words = ["x" * n + " " * k for n, k in rng.integers((0, 1), (12, 4), (20, 2)).tolist()]
        text, width = "".join(words), int(rng.integers(1, 60))
        found = console.wrapped(text, width)
        assert found is None or found == of_rich(text, width), (text, width)


def test_tables_are_those_of_rich() -> None:
    rng = np.random.default_rng(0)
    simple = 0
    for _ in range(100):
        columns, rows, long = rng.integers((1, 0, 1), (5, 4, 20)).tolist()
        right = tuple(np.flatnonzero(rng.random(columns) < 0.5).tolist())
        table = console.ruled(*("h" * n for n in rng.integers(0, long, columns)), right=right)
        for _ in range(rows):
            table.add_row(*("c" * n for n in rng.integers(0, long, columns)))
        for width in (20, 40, 80):
            found = table.plain(width)
            simple += found is not None
            assert found is None or found == of_rich(table, width), width
    assert simple > 150
    table.add_row(*["\u00fc"] * columns)
    assert table.plain(80) is None


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
