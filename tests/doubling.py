"""What processes of an executor are asked in tests: it imports little, since each of them does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def doubled(number: int, send: Callable[[int], None]) -> int:
    """Return twice a number, which is sent first. At 3 the process dies, and 2 is an error."""
    send(number)
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 2:
        raise KeyError("two")
    return 2 * number
