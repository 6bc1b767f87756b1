"""How processes that compute for another are started and set up."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import BaseContext

#: What they need: imported once, by the process that all others are forked from.
_NEEDED = ["torch", "breadcrumbs.evaluate.scoring.worker"]


def context() -> BaseContext:
    """Return how processes are started: forked from one that has Torch, which takes seconds to
    import, and does nothing else; where that is not safe, each from nothing."""
    if sys.platform != "linux":
        return get_context("spawn")
    found = get_context("forkserver")
    found.set_forkserver_preload(_NEEDED)
    return found


def begin(environment: Mapping[str, str]) -> None:
    """Set this process up: one thread, no Ctrl-C of its own, and an end with its parent's.

    environment: the parent's, which may have changed since the process was forked from another.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
