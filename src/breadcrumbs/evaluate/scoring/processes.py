"""How a process that computes for another is set up."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import connection, parent_process


def begin() -> None:
    """Set this process up: one thread, no Ctrl-C of its own, and an end with its parent's."""
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
