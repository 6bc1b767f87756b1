"""Ctrl-C: the first ends a command cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: The exit code of what a Ctrl-C has ended.
CODE = 130
#: Seconds after which somebody who waits is told how to wait no longer.
PATIENCE = 1.0
_SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def heeded() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first Ctrl-C, and end the process at the second.

    Ending cleanly means that tensors under way are finished and files closed, which may take some
    seconds. What a process that ends at once leaves is what a killed one leaves: no output takes
    its name before it is whole.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # ignored, as under nohup, or somebody else's
        return
    waiting: list[threading.Timer] = []

    def interrupt(number: int, frame: FrameType | None) -> Any:
        if waiting:
            _say(f"{_SHOW_CURSOR if sys.stderr.isatty() else ''}breadcrumbs: stopped.\n")
            os._exit(CODE)
        waiting.append(threading.Timer(PATIENCE, _say, [_HINT]))
        waiting[0].daemon = True
        waiting[0].start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for timer in waiting:
            timer.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)


_HINT = "breadcrumbs: finishing what is under way. Ctrl-C again stops at once.\n"


def _say(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # closed
        return
