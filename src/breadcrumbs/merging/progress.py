"""A bar of progress for those who merge in Python: in notebooks, and on a terminal if asked for."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Seconds before a bar appears, and between two of its steps.
WAIT, STEP = 0.5, 0.2


@contextmanager
def bar(
    total: int, wanted: bool | None, doing: str, *, wait: float = WAIT, step: float = STEP
) -> Iterator[Callable[[int], None]]:
    """Show a bar while bytes are done, of what takes longer than ``wait`` seconds.

    total: bytes of all. wanted: True shows it on a terminal too, None in notebooks alone, False
    nowhere. doing: one word for it. step: seconds between two changes of it. Yields what is to be
    called with bytes, from any thread.
    """
    if (wanted is None and not in_notebook()) or wanted is False:
        yield lambda nbytes: None
    elif in_notebook():
        with _Bar(total, wait, step) as shown:
            yield shown.add
    else:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as lines:
            task = lines.add_task(doing, total=total)
            yield lambda nbytes: lines.advance(task, nbytes)


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this, which shows HTML."""
    found = sys.modules.get("IPython")
    shell = found.get_ipython() if found is not None else None
    return hasattr(shell, "kernel")


class _Bar:
    """IPython's bar, which needs no widgets: shown once, changed in place a few times a second."""

    def __init__(self, total: int, wait: float, step: float):
        from IPython.display import ProgressBar

        self._bar: Any = ProgressBar(max(total, 1))
        self._done, self._shown, self._lock = 0, False, threading.Lock()
        self._next, self._step = time.monotonic() + wait, step

    def add(self, nbytes: int) -> None:
        """Note that so many more bytes are done."""
        with self._lock:
            self._done += nbytes
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + self._step
            if not self._shown:
                self._shown = True
                self._bar.display()
            self._bar.progress = min(self._done, self._bar.total)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown and error[0] is None:
            self._bar.progress = self._bar.total
